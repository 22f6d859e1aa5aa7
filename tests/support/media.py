"""Files in containers that libsndfile does not read, written with PyAV, and ways to read them back."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import av.subtitles.stream  # PyAV itself imports this late, perhaps in a test that runs without PyAV
import numpy as np

from funasr_cli.audio.decode import open_recording
from funasr_cli.errors import AudioError

RATE_HZ = 16000
FRAME_SAMPLES = 1000


def hum(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Return (samples, channels) between noise and voice, different per channel, that lossy codecs preserve."""
    white = np.random.default_rng(seed).uniform(-1, 1, (samples + 31, channels))
    smooth = np.apply_along_axis(np.convolve, 0, white, np.hanning(32) / 16, "valid")
    return smooth.astype(np.float32)


def noise(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Return (samples, channels) of noise too quiet to clip in any format."""
    return np.random.default_rng(seed).uniform(-0.3, 0.3, (samples, channels)).astype(np.float32)


def read_all(path: Path) -> tuple[np.ndarray, AudioError | None, list[tuple[float, float]]]:
    """Return what could be read, (samples,), the error at the end, and the spans that were lost."""
    blocks, recording, fault = [np.zeros(0, np.float32)], None, None
    try:
        recording = open_recording(path, RATE_HZ)
        blocks.extend(recording.blocks())  # blocks before an error are kept
    except AudioError as error:
        fault = error
    return np.concatenate(blocks), fault, recording.findings.lost if recording else []


def read(path: Path) -> tuple[np.ndarray, AudioError | None]:
    """Return what could be read, (samples,), and the error at the end."""
    samples, fault, _ = read_all(path)
    return samples, fault


def write_media(
    path: Path,
    codec: str,
    samples: np.ndarray,
    rate_hz: int = 16000,
    *,
    options: dict[str, str] | None = None,
    format: str | None = None,
    metadata: dict[str, str] | None = None,
    pictures_s: float = 0.0,
    pictures: str = "mpeg4",
    skip_s: tuple[float, float] = (0.0, 0.0),
) -> Path:
    """Write samples to a media file.

    Args:
        path: the file; its suffix selects the container.
        codec: FFmpeg's name of the audio codec.
        samples: (samples, channels) float.
        rate_hz: their sample rate.
        options: container options.
        format: the container, if the suffix does not determine it.
        metadata: tags such as a title.
        pictures_s: duration of a video track that starts with the audio; 0 for none.
        pictures: codec of the video track.
        skip_s: (from, by): time stamps from `from` seconds on are shifted by `by` seconds.
    """
    with av.open(path, "w", format=format, options=options or {}) as container:
        container.metadata.update(metadata or {})
        shown = container.add_stream(pictures, rate=10) if pictures_s else None
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
        sound = container.add_stream(codec, rate=rate_hz, layout=layout) if len(samples) else None
        if sound and codec.startswith("wma"):
            sound.bit_rate = 64_000
        if shown:
            _write_pictures(container, shown, pictures_s)
        if sound:
            _write_sound(container, sound, samples, skip_s)
    return path


def _write_sound(container: Any, stream: Any, samples: np.ndarray, skip_s: tuple[float, float]) -> None:
    for start in range(0, len(samples), FRAME_SAMPLES):
        planes = np.ascontiguousarray(samples[start : start + FRAME_SAMPLES].T, np.float32)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=stream.layout.name)
        frame.sample_rate = stream.rate
        frame.pts = start + (round(skip_s[1] * stream.rate) if start >= skip_s[0] * stream.rate else 0)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def laced_matroska(samples: np.ndarray, rate_hz: int = 16000) -> bytes:
    """Return (samples,) int16 as a file with eight packets per block, like mkvmerge's and unlike FFmpeg's."""

    def element(number: str, content: bytes) -> bytes:
        return bytes.fromhex(number) + (len(content) | 1 << 56).to_bytes(8, "big") + content

    sound = element("B5", struct.pack(">d", rate_hz)) + element("9F", b"\1") + element("6264", b"\x10")
    track = element("D7", b"\1") + element("73C5", b"\1") + element("83", b"\2") + element("86", b"A_PCM/INT/LIT")
    timing = element("23E383", (50_000_000).to_bytes(4, "big"))  # nanoseconds per packet
    length = element("4489", struct.pack(">d", 1000 * len(samples) / rate_hz))
    blocks = b""
    for start in range(0, len(samples), 8 * rate_hz // 20):
        packets = samples[start : start + 8 * rate_hz // 20].astype("<i2").tobytes()
        blocks += element("A3", b"\x81" + struct.pack(">hBB", 1000 * start // rate_hz, 0x84, 7) + packets)
    content = element("1549A966", element("2AD7B1", (1_000_000).to_bytes(4, "big")) + length)
    content += element("1654AE6B", element("AE", track + timing + element("E1", sound)))
    content += element("1F43B675", element("E7", b"\0") + blocks)
    return element("1A45DFA3", element("4282", b"matroska")) + element("18538067", content)


def _write_pictures(container: Any, stream: Any, duration_s: float) -> None:
    stream.width = stream.height = 32
    for number in range(round(10 * duration_s)):
        frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number % 200, np.uint8), format="rgb24")
        frame.pts = number
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
