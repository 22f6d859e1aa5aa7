"""The frontend compared with kaldi-native-fbank, and its stacking with a simple loop."""

import dataclasses

import kaldi_native_fbank as knf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.parity.checks import FEATURE_TOLERANCE
from support.sense_voice import cmvn_text

from funasr_cli.compute.backend import mx
from funasr_cli.features.cmvn import CMVN
from funasr_cli.features.fbank import LOW_FREQUENCY_HZ, MIN_SAMPLES, Frontend, FrontendConfig, mel_filters

RELEASE = FrontendConfig(
    sample_rate_hz=16000, window="hamming", mel_bins=80, frame_length_ms=25.0, frame_shift_ms=10.0,
    stack_frames=7, stack_step=6,
)  # fmt: skip
FRONTEND = Frontend(RELEASE)
TIME_S = np.arange(8000) / 16000


def oracle(samples: np.ndarray, config: FrontendConfig = RELEASE) -> np.ndarray:
    """Return the filter bank features of Kaldi's own code: (frames, mel bins)."""
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = config.sample_rate_hz
    options.frame_opts.window_type = config.window
    options.frame_opts.frame_shift_ms = config.frame_shift_ms
    # For a shorter clip, upstream shortens the frame to the clip.
    options.frame_opts.frame_length_ms = min(config.frame_length_ms, len(samples) / config.sample_rate_hz * 1000)
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = config.mel_bins
    options.energy_floor = 0.0
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(config.sample_rate_hz, samples * 32768)
    fbank.input_finished()
    return np.stack([fbank.get_frame(index) for index in range(fbank.num_frames_ready)])


def assert_same(samples: np.ndarray, config: FrontendConfig = RELEASE) -> None:
    samples = samples.astype(np.float32)
    expected = oracle(samples, config)
    ours = np.array(Frontend(config).filter_bank(samples))
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() < FEATURE_TOLERANCE


@given(st.integers(MIN_SAMPLES, 4000), st.floats(-4.5, 0), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_noise_of_any_length_and_level(length: int, level_log10: float, seed: int) -> None:
    noise = np.random.default_rng(seed).uniform(-1, 1, length)
    assert_same(noise * 10**level_log10)


SIGNALS = {
    "1 kHz": np.sin(2 * np.pi * 1000 * TIME_S),
    "50 Hz": np.sin(2 * np.pi * 50 * TIME_S),
    "square": np.sign(np.sin(2 * np.pi * 441 * TIME_S)),
    "the Nyquist frequency at full scale": np.where(np.arange(8000) % 2, 1.0, -1.0),
    "quiet": 1e-5 * np.sin(2 * np.pi * 300 * TIME_S),
    "an offset alone": np.ones(8000),
} | {
    f"{length} samples": np.random.default_rng(length).uniform(-0.5, 0.5, length)
    for length in (MIN_SAMPLES, 3, 31, 32, 33, 255, 256, 257, 399, 400, 401, 559, 560, 561)
}


@pytest.mark.parametrize("name", SIGNALS)
def test_tones_and_lengths_around_the_first_frames(name: str) -> None:
    assert_same(SIGNALS[name])


@pytest.mark.parametrize("length", [MIN_SAMPLES, 100, 400, 3000])
def test_silence_is_the_floor(length: int) -> None:
    assert_same(np.zeros(length))
    rows = np.array(FRONTEND(np.zeros(length, np.float32)))
    assert np.array_equal(rows, np.full_like(rows, np.log(np.finfo(np.float32).eps)))


@pytest.mark.parametrize("window", ["hamming", "hanning", "povey", "rectangular"])
def test_other_settings(window: str) -> None:
    config = dataclasses.replace(
        RELEASE, window=window, sample_rate_hz=8000, mel_bins=40, frame_length_ms=32.0, frame_shift_ms=8.0
    )
    assert_same(np.random.default_rng(3).uniform(-0.3, 0.3, 5000), config)


def naive_stack(frames: np.ndarray, count: int, step: int) -> np.ndarray:
    """Pad with copies of the first frame, take `count` frames every `step`, and repeat the last one at the end."""
    padded = [frames[0]] * ((count - 1) // 2) + list(frames)
    rows = []
    while len(rows) * step < len(frames):
        row = padded[len(rows) * step :][:count]
        rows.append(np.concatenate(row + [frames[-1]] * (count - len(row))))
    return np.stack(rows)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_stacking(frames: int, count: int, step: int) -> None:
    step = min(step, count)  # no checkpoint skips frames
    values = np.arange(frames * 2, dtype=np.float32).reshape(frames, 2)
    frontend = Frontend(dataclasses.replace(RELEASE, mel_bins=2, stack_frames=count, stack_step=step))
    assert np.array_equal(np.array(frontend._stack(mx.array(values))), naive_stack(values, count, step))


@given(st.integers(MIN_SAMPLES, 20_000))
@settings(max_examples=50, deadline=None)
def test_number_of_rows(length: int) -> None:
    frames = 1 + max(0, length - 400) // 160
    assert FRONTEND(np.zeros(length, np.float32)).shape == (-(-frames // 6), 560)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bins", "fft_size", "sample_rate_hz", "tolerance"),
    [(80, 512, 16000, 0.006), (40, 256, 8000, 0.009), (23, 1024, 16000, 0.02)],
)
def test_mel_filters_against_librosa(bins: int, fft_size: int, sample_rate_hz: int, tolerance: float) -> None:
    """Kaldi's filters are triangles in mel, librosa's (HTK scale, not normalised) in Hz, with the same edges.

    So they have the same support and differ only by the curvature of the mel scale within a triangle, which grows
    with its width: measured 0.004, 0.006 and 0.013. Kaldi's filters omit the bin at the Nyquist frequency.
    """
    from librosa.filters import mel

    theirs = mel(
        sr=sample_rate_hz, n_fft=fft_size, n_mels=bins, fmin=LOW_FREQUENCY_HZ, fmax=sample_rate_hz / 2, htk=True,
        norm=None, dtype=np.float64,
    ).T  # (fft_size / 2 + 1, bins)  # fmt: skip
    ours = mel_filters(bins, fft_size, sample_rate_hz)
    assert ours.shape == theirs.shape
    assert not ours[-1].any()
    assert np.array_equal(ours > 0, theirs > 1e-9)
    assert np.abs(ours - theirs).max() < tolerance


def test_normalised_rows() -> None:
    """The rows equal Kaldi's frames, stacked and normalised in NumPy with the two rows of numbers in the file."""
    draw = np.random.default_rng(5)
    text = cmvn_text(draw.normal(-11, 1.5, 560), draw.normal(0.15, 0.01, 560))
    lines = [line for line in text.splitlines() if line.startswith("<LearnRateCoef>")]
    shift, scale = (np.array(line.partition("[")[2].split()[:-1], np.float64) for line in lines)
    samples = draw.uniform(-0.3, 0.3, 16000).astype(np.float32)
    expected = (naive_stack(oracle(samples), 7, 6) + shift) * scale
    ours = CMVN.parse(text, 560)(np.array(FRONTEND(samples)))
    assert ours.shape == expected.shape == (17, 560)
    assert np.abs(ours - expected).max() < FEATURE_TOLERANCE
