"""Compare voice activity detectors on the long recordings of `make real-data`, on noise and on silence.

    python -m tools.accuracy.detectors

Prints one line for each recording and each setting. docs/long-recordings.md has the table.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.recording import BLOCK_S
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.options import FSMN, FSMN_DYNAMIC, TranscribeOptions
from funasr_cli.scheduling.segments import new_segmenter
from tools.accuracy.joined import Span, coverage, make_noise
from tools.accuracy.real_speech import RECORDINGS
from tools.accuracy.truth import read_truth
from tools.real_data.cache import LONG, root

SETTINGS: tuple[dict[str, Any], ...] = (
    {}, {"vad_model": FSMN}, {"vad_model": FSMN, "min_pause_s": 0.4}, {"vad_model": FSMN_DYNAMIC}
)  # fmt: skip
NOISE_S = 120


def cut(samples: np.ndarray, options: TranscribeOptions) -> list[Span]:
    """Return the segments (start, end) in seconds of (samples,) at 16 kHz, which are read in blocks as usual."""
    segmenter, size = new_segmenter(options), round(BLOCK_S * SAMPLE_RATE_HZ)
    found = [
        one for start in range(0, len(samples), size) for one in segmenter.push(samples[start : start + size])
    ]
    return [(segment.start_s, segment.end_s) for segment in found + segmenter.finish()]


def recordings() -> Iterator[tuple[str, np.ndarray, list[Span]]]:
    """Yield the name, the samples (samples,) and the true spans of speech of each recording."""
    for name in RECORDINGS:
        path = root() / LONG / f"{name}.wav"
        yield name, load_audio(path, SAMPLE_RATE_HZ).samples, [phrase.sound_s for phrase in read_truth(path)]
    noise = make_noise(NOISE_S * SAMPLE_RATE_HZ, np.random.default_rng(0)).astype(np.float32)
    yield "noise, -20 dB", 0.1 * noise, []
    yield "noise, -40 dB", 0.01 * noise, []
    yield "silence", 0 * noise, []


def row(samples: np.ndarray, speech: Sequence[Span], options: dict[str, Any]) -> list[str]:
    """Return what one setting finds in a recording, as cells of a table."""
    started_s = time.process_time()
    segments = cut(samples, TranscribeOptions(**options))
    speed = len(samples) / SAMPLE_RATE_HZ / (time.process_time() - started_s)
    found, lengths_s = coverage(segments, speech), [end_s - start_s for start_s, end_s in segments] or [0.0]
    return [
        f"{options}", f"{len(segments)} segments", f"mean {np.mean(lengths_s):.1f} s",
        f"longest {max(lengths_s):.1f} s",
        f"precision {found.precision:.1%}", f"recall {found.recall:.2%}", f"{found.missed} missed",
        f"{found.split} split", f"{found.joined} with several", f"{speed:.0f} x real time (CPU time)",
    ]  # fmt: skip


if __name__ == "__main__":
    for name, samples, speech in recordings():
        for options in SETTINGS:
            print(" | ".join([name, *row(samples, speech, options)]), flush=True)
