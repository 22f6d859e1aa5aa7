"""Talks for telling speakers apart: the truth says where each voice is, and a talk is the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tools.accuracy import mixtures
from tools.accuracy.mixtures import NOISE, RATE_HZ, SNR_DB, TELEPHONE, Mixture
from tools.accuracy.speakers import embedded
from tools.real_data.cache import SEVERAL, VARIABLE

TONES_HZ = {"a": 250.0, "b": 450.0, "c": 950.0}


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each voice another tone, in clips of 2 and 3 s with silence at both ends."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    mixtures.trimmed.cache_clear()
    for voice, tone_hz in TONES_HZ.items():
        folder = tmp_path / SEVERAL / voice
        folder.mkdir(parents=True)
        for place in range(20):
            tone = np.sin(2 * np.pi * tone_hz * np.arange((2 + place % 2) * RATE_HZ) / RATE_HZ)
            soundfile.write(folder / f"{place}.wav", np.pad(0.3 * tone, RATE_HZ // 5), RATE_HZ)
    yield
    mixtures.trimmed.cache_clear()


def test_the_truth_says_who_speaks(clips: None) -> None:
    samples, said = Mixture(3, 1, 0).talk()
    assert {voice for _, _, voice in said} == set(TONES_HZ)
    assert 60 * RATE_HZ <= len(samples) < 76 * RATE_HZ
    for (start_s, end_s, voice), (later_s, _, later) in pairwise(said):
        assert voice != later
        assert end_s - start_s <= 15
        assert 0.1 <= later_s - end_s <= 0.6
        assert not samples[round(end_s * RATE_HZ) : round(later_s * RATE_HZ)].any()
        own = samples[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)]
        loudest_hz = np.abs(np.fft.rfft(own)).argmax() * RATE_HZ / len(own)
        assert loudest_hz == pytest.approx(TONES_HZ[voice], abs=1)
        assert np.sqrt((own**2).mean()) == pytest.approx(mixtures.LEVEL, rel=0.05)


def test_a_talk_is_the_same_each_time(clips: None) -> None:
    (first, said), (again, same) = (Mixture(2, 1, 1).talk() for _ in range(2))
    assert np.array_equal(first, again)
    assert said == same
    assert said != Mixture(2, 1, 2).talk()[1]


def test_conditions(clips: None) -> None:
    mixture = Mixture(2, 1, 0)
    samples, _ = mixture.talk()
    noise = mixture.changed(samples, NOISE) - samples
    power = (samples[samples != 0] ** 2).mean() / (noise**2).mean()
    assert 10 * np.log10(power) == pytest.approx(SNR_DB, abs=0.1)
    spectrum = np.abs(np.fft.rfft(mixture.changed(samples, TELEPHONE)))
    assert spectrum[round(len(spectrum) * 0.55) :].max() < 1e-3 * spectrum.max()
    assert mixtures.segments([(0, 1, "a"), (1.2, 2, "b"), (2.4, 3, "a")]) == [(0, 2), (2.4, 3)]


def test_windows_of_a_talk_have_the_sound_of_their_times() -> None:
    class Ends:
        """Embed a clip as its first and last value."""

        def embed(self, clips: np.ndarray) -> np.ndarray:
            return clips[:, [0, -1]]

    samples = np.arange(10 * RATE_HZ, dtype=np.float32)
    found = embedded(Ends(), samples, [(1.0, 4.0), (5.0, 6.0)])  # type: ignore[arg-type]
    assert found["places"].tolist() == [0, 0, 0, 1]
    assert found["spans"].tolist() == [[1.0, 2.5], [1.75, 3.25], [2.5, 4.0], [5.0, 6.5]]
    last = (RATE_HZ * found["spans"][:, 1] - 1).tolist()
    assert found["vectors"].tolist() == [
        *map(list, zip(RATE_HZ * found["spans"][:3, 0], last[:3], strict=True)),
        [5 * RATE_HZ, 0],
    ]
