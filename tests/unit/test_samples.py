"""Mixing channels, and findings about them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.media import hum, noise

from funasr_cli.audio.decode import Source, from_array, load_audio, open_recording

RATE_HZ = 16000
VOICE = hum(5 * RATE_HZ)[:, 0]
SILENCE = np.zeros_like(VOICE)


def level_of(source: Source) -> float | None:
    list(source.blocks())
    return source.findings.level_dbfs


@pytest.mark.parametrize("gain", [1.0, 0.8])
def test_channels_that_cancel_each_other_out(tmp_path: Path, gain: float) -> None:
    """A single channel is used, the same one to the end, and this is reported."""
    samples = np.stack([gain * VOICE, -VOICE], axis=1)
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, "FLOAT")
    for audio in (from_array(samples, RATE_HZ, RATE_HZ), load_audio(tmp_path / "a.wav", RATE_HZ)):
        channel = audio.findings.channel
        assert channel is not None
        np.testing.assert_array_equal(audio.samples, samples[:, channel - 1])
        assert gain == 1 or channel == 2
        (warning,) = audio.findings.warnings
        assert f"channel {channel}" in warning
        assert "--channels split" in warning


@pytest.mark.parametrize(
    "channels",
    [
        [VOICE, VOICE], [VOICE, SILENCE], [SILENCE] * 7 + [VOICE], [VOICE, hum(len(VOICE), seed=1)[:, 0]],
        [VOICE, 0.3 * VOICE], [VOICE, -0.3 * VOICE], [SILENCE, SILENCE], [1e-5 * VOICE, -1e-5 * VOICE],
        [np.where(np.arange(len(VOICE)) < len(VOICE) // 2, VOICE, 0), np.roll(SILENCE, 1)],
    ],
)  # fmt: skip
def test_channels_that_are_mixed(channels: list[np.ndarray]) -> None:
    """Voices on one or on separate channels are not mistaken for cancelling ones, nor are inaudible signals."""
    samples = np.stack(channels, axis=1).astype(np.float32)
    audio = from_array(samples, RATE_HZ, RATE_HZ)
    np.testing.assert_allclose(audio.samples, samples.mean(axis=1), atol=1e-7)
    assert (audio.findings.channel, audio.findings.warnings) == (None, ())


def test_channels_that_cancel_each_other_out_for_a_while(tmp_path: Path) -> None:
    other = np.concatenate([VOICE, -VOICE, VOICE])
    samples = np.stack([np.tile(VOICE, 3), other], axis=1)
    audio = from_array(samples, RATE_HZ, RATE_HZ)
    middle = slice(6 * RATE_HZ, 10 * RATE_HZ)  # the running powers need time to adapt
    np.testing.assert_array_equal(np.abs(audio.samples[middle]), np.abs(samples[middle, 0]))
    end = slice(12 * RATE_HZ, None)
    np.testing.assert_allclose(audio.samples[end], samples[end].mean(axis=1), atol=1e-7)


def test_single_channels_are_unchanged(tmp_path: Path) -> None:
    samples = np.stack([VOICE, -VOICE], axis=1)
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, "FLOAT")
    for channel in (1, 2):
        recording = open_recording(tmp_path / "a.wav", RATE_HZ, channel=channel)
        np.testing.assert_array_equal(np.concatenate(list(recording.blocks())), samples[:, channel - 1])
        assert recording.findings.warnings == ()


@pytest.mark.parametrize("gain_db", [0, -40, -60, -90])
def test_level(tmp_path: Path, gain_db: int) -> None:
    """The level is that of the loudest moment, regardless of silence around it. A constant is not sound."""
    square = np.sign(noise(RATE_HZ))[:, 0] * 10 ** (gain_db / 20)
    soundfile.write(tmp_path / "a.wav", np.concatenate([np.zeros(30 * RATE_HZ), square]), RATE_HZ, "FLOAT")
    assert level_of(open_recording(tmp_path / "a.wav", RATE_HZ)) == pytest.approx(gain_db, abs=0.1)
    for offset in (0, 0.5, -0.3):
        assert level_of(from_array(SILENCE + np.float32(offset), RATE_HZ, RATE_HZ)) is None


@pytest.mark.parametrize("bad", [slice(None), slice(8000, 48000), slice(None, None, 3000)])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("channel", [0, 1])
def test_a_channel_that_is_damaged(tmp_path: Path, bad: slice, value: float, channel: int) -> None:
    """The other channel is used there, and this is reported."""
    samples = np.stack([VOICE, VOICE], axis=1)
    samples[bad, channel] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, "FLOAT")
    for audio in (from_array(samples, RATE_HZ, RATE_HZ), load_audio(tmp_path / "a.wav", RATE_HZ)):
        np.testing.assert_allclose(audio.samples, VOICE, atol=1e-7)
        (warning,) = audio.findings.warnings
        assert warning.startswith(f"{len(VOICE[bad])} samples ")


@pytest.mark.parametrize("bad", [[], slice(None, None, 3000)])
@pytest.mark.parametrize("offset", [0, 0.3])
def test_damaged_cancelling_channels(bad: slice, offset: float) -> None:
    samples = np.stack([VOICE, -VOICE], axis=1) / 2 + np.float32(offset)
    samples[bad, 1] = np.nan
    findings = from_array(samples, RATE_HZ, RATE_HZ).findings
    assert findings.channel


@pytest.mark.filterwarnings("error")
def test_a_huge_sample_and_floats_in_the_range_of_integers() -> None:
    """The huge sample is not sound; the others are."""
    samples = VOICE * 32768
    audio = from_array(samples, RATE_HZ, RATE_HZ)
    np.testing.assert_array_equal(audio.samples, samples)
    samples = VOICE.copy()
    samples[3000] = 3e38
    audio = from_array(samples, RATE_HZ, RATE_HZ)
    assert level_of(audio) < 0
    assert audio.findings.nonfinite == 1
