"""The clips that both implementations transcribe: 20 ms to 30 s, speech, noise, silence, several sample rates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from funasr_cli.languages import LANGUAGES, MLT_LANGUAGES

RATE_HZ = 16000
CLIP_NAMES = (
    "zh", "en", "zh-0.02s", "zh-0.1s", "zh-0.3s", "zh-2.5s", "en-1s", "en-4.3s", "zh-en-17s", "speech-30s",
    "silence-1s", "silence-5s", "late-speech", "noise-0.5s", "noise-10s", "quiet-noise", "noisy-zh", "zh-8k",
    "en-8k-stereo", "stereo-44k", "zh-22k", "sweep-48k", "square", "impulse",
)  # fmt: skip
BATCH_CLIPS = ("zh", "en-1s", "noise-0.5s", "silence-1s", "zh-0.1s")
SPOKEN = ("auto", *(LANGUAGES[code].prompt_name for code in MLT_LANGUAGES))
# The clips that `make test` compares with the reference; all of them would take minutes.
FEW_CLIPS = (
    "zh-0.02s", "zh-2.5s", "en-1s", "en-4.3s", "silence-1s", "late-speech", "en-8k-stereo", "stereo-44k",
)  # fmt: skip
FEW_SPOKEN = ("auto", "中文", "越南语")


def few_at_first(names: tuple[str, ...], few: tuple[str, ...]) -> list[Any]:
    """Return test parameters for all names; `make test` runs only a few of them."""
    return [pytest.param(name, marks=[] if name in few else pytest.mark.full) for name in names]


def write_clips(folder: Path, zh_wav: Path, en_flac: Path) -> None:
    """Write all clips except the two recordings themselves."""
    zh, _ = soundfile.read(zh_wav, dtype="float32")
    stereo, stereo_hz = soundfile.read(en_flac, dtype="float32", always_2d=True)
    en = soxr.resample(stereo.mean(axis=1), stereo_hz, RATE_HZ)
    draw = np.random.default_rng(0)

    def noise(seconds: float, level: float, channels: int = 1, rate_hz: int = RATE_HZ) -> np.ndarray:
        return (level * draw.standard_normal((int(seconds * rate_hz), channels))).astype(np.float32).squeeze()

    sweep_s = np.arange(2 * 48000) / 48000
    one_sided = stereo[: 4 * stereo_hz] * np.array([1.0, 0.2]) + noise(4, 0.05, 2, stereo_hz) * np.array([0, 1])
    impulse = np.zeros(int(0.7 * RATE_HZ), np.float32)
    impulse[5000] = 0.9
    signals = {
        "zh-0.02s": (zh[16000:16320], RATE_HZ),
        "zh-0.1s": (zh[16000:17600], RATE_HZ),
        "zh-0.3s": (zh[20000:24800], RATE_HZ),
        "zh-2.5s": (zh[8000:48000], RATE_HZ),
        "en-1s": (en[16000:32000], RATE_HZ),
        "en-4.3s": (en[30000:98800], RATE_HZ),
        "zh-en-17s": (np.concatenate([zh, en]), RATE_HZ),
        "speech-30s": (np.concatenate([zh, en, zh[::-1], en])[: 30 * RATE_HZ], RATE_HZ),
        "silence-1s": (np.zeros(RATE_HZ, np.float32), RATE_HZ),
        "silence-5s": (np.zeros(5 * RATE_HZ, np.float32), RATE_HZ),
        "late-speech": (np.concatenate([np.zeros(2 * RATE_HZ, np.float32), zh[16000:64000]]), RATE_HZ),
        "noise-0.5s": (noise(0.5, 0.1), RATE_HZ),
        "noise-10s": (noise(10, 0.3), RATE_HZ),
        "quiet-noise": (noise(3, 1e-4), RATE_HZ),
        "noisy-zh": (zh[:80000] + noise(5, 0.02), RATE_HZ),
        "zh-8k": (soxr.resample(zh, RATE_HZ, 8000), 8000),
        "en-8k-stereo": (soxr.resample(stereo[: 5 * stereo_hz], stereo_hz, 8000), 8000),
        "stereo-44k": (one_sided, stereo_hz),
        "zh-22k": (soxr.resample(zh[:48000], RATE_HZ, 22050), 22050),
        "sweep-48k": (0.5 * np.sin(2 * np.pi * (100 * sweep_s + 1500 * sweep_s**2)), 48000),
        "square": (np.sign(np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ) + 0.1), RATE_HZ),
        "impulse": (impulse, RATE_HZ),
    }
    folder.mkdir()
    for name, path in clip_paths(folder, zh_wav, en_flac).items():
        if name in signals:
            signal, rate_hz = signals[name]
            soundfile.write(path, signal, rate_hz, subtype="FLOAT")


def clip_paths(folder: Path, zh_wav: Path, en_flac: Path) -> dict[str, Path]:
    """Return the file of each clip by name, including the two recordings."""
    return {name: folder / f"{name}.wav" for name in CLIP_NAMES} | {"zh": zh_wav, "en": en_flac}
