"""Joined recordings match their spans, and segments are compared with them correctly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tools.accuracy.decoding import Clip
from tools.accuracy.joined import (
    NOISE_S,
    PAUSES_S,
    SAMPLE_RATE_HZ,
    TOUCH_S,
    Coverage,
    coverage,
    cut_clips,
    join_clips,
    make_noise,
    merge,
    speech_extent,
)
from tools.accuracy.long import setting

BEFORE_S, AFTER_S = 0.15, 0.25  # silence around the speech in a clip
STEP = 1 / SAMPLE_RATE_HZ


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Twelve bursts of noise of different levels and lengths, with silence around them."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    made = []
    for index in range(12):
        burst = rng.uniform(0.05, 0.2) * np.sign(rng.standard_normal(SAMPLE_RATE_HZ + 1600 * index))
        samples = np.pad(burst, [round(s * SAMPLE_RATE_HZ) for s in (BEFORE_S, AFTER_S)])
        path, language = folder / f"{index:02d}.wav", ("en", "zh")[index % 2]
        soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
        made.append(Clip(path, language, "digits", f"word{index}", str(index)))
    return made


def read(path: Path) -> np.ndarray:
    samples, rate_hz = soundfile.read(path, dtype="int16")
    assert rate_hz == SAMPLE_RATE_HZ
    return samples


def test_clips_are_where_the_spans_say(clips: list[Clip], tmp_path: Path) -> None:
    joined = join_clips(clips, tmp_path / "a.flac")
    samples = read(joined.path)
    assert soundfile.info(joined.path).subtype == "PCM_16"
    assert joined.duration_s == len(samples) / SAMPLE_RATE_HZ
    assert sorted(clip.spoken for clip in joined.clips) == sorted(clip.spoken for clip in clips)
    assert joined.clips != clips
    silent = np.ones(len(samples), bool)
    for clip, (start_s, end_s) in zip(joined.clips, joined.spans, strict=True):
        part = slice(round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ))
        assert np.array_equal(samples[part], read(clip.path))
        silent[part] = False
    assert not samples[silent].any()


def test_pauses_are_everywhere_and_within_bounds(clips: list[Clip], tmp_path: Path) -> None:
    joined = join_clips(clips, tmp_path / "a.flac")
    times_s = [0.0, *(time_s for span in joined.spans for time_s in span), joined.duration_s]
    pauses_s = np.diff(times_s)[::2]
    assert len(pauses_s) == len(clips) + 1
    assert pauses_s.min() >= PAUSES_S[0] - STEP
    assert pauses_s.max() <= PAUSES_S[1] + STEP
    assert pauses_s.std() > 0.3


def test_one_language(clips: list[Clip], tmp_path: Path) -> None:
    joined = join_clips(clips, tmp_path / "a.flac", "zh")
    assert [clip.language for clip in joined.clips] == ["zh"] * 6
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["file"] for row in rows] == [clip.path.name for clip in joined.clips]
    assert [(row["start_s"], row["end_s"]) for row in rows] == joined.spans


def test_speech_is_found_within_the_clips(clips: list[Clip], tmp_path: Path) -> None:
    joined = join_clips(clips, tmp_path / "a.flac", snr_db=0)
    for (start_s, end_s), (first_s, last_s) in zip(joined.spans, joined.speech, strict=True):
        assert first_s - start_s == pytest.approx(BEFORE_S, abs=0.011)
        assert end_s - last_s == pytest.approx(AFTER_S, abs=0.011)
    assert joined.speech_s == pytest.approx(12 + 6.6, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("snr_db", [20.0, 10.0])
def test_noise_has_the_wanted_ratio_and_the_same_places(clips: list[Clip], tmp_path: Path, snr_db: float) -> None:
    clean, noisy = (join_clips(clips, tmp_path / f"{snr}.flac", snr_db=snr) for snr in (None, snr_db))
    assert (clean.clips, clean.spans, clean.duration_s) == (noisy.clips, noisy.spans, noisy.duration_s)
    speech = read(clean.path).astype(float)
    noise = read(noisy.path) - speech
    loud = speech[np.abs(speech) > 0]
    assert 10 * np.log10(np.mean(loud**2) / np.mean(noise**2)) == pytest.approx(snr_db, abs=0.2)
    pauses = noise[speech == 0]
    assert 10 * np.log10(np.mean(loud**2) / np.mean(pauses**2)) == pytest.approx(snr_db, abs=1)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_file(clips: list[Clip], tmp_path: Path) -> None:
    a, b, c = (join_clips(clips, tmp_path / f"{n}.flac", None, 10, seed) for n, seed in enumerate((1, 1, 2)))
    assert a.path.read_bytes() == b.path.read_bytes()
    assert a.spans == b.spans != c.spans


def test_cut_clips_are_the_recordings_samples(clips: list[Clip], tmp_path: Path) -> None:
    joined = join_clips(clips, tmp_path / "a.flac", snr_db=10)
    samples, cut = read(joined.path), cut_clips(joined, tmp_path / "cut")
    for clip, own, (start_s, end_s) in zip(cut, joined.clips, joined.spans, strict=True):
        assert (clip.spoken, clip.language) == (own.spoken, own.language)
        part = samples[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]
        assert np.array_equal(read(clip.path), part)
        assert not np.array_equal(read(clip.path), read(own.path)), "the clip must contain the noise"


def test_too_loud_a_sum_is_scaled_and_not_clipped(clips: list[Clip], tmp_path: Path) -> None:
    samples = read(join_clips(clips, tmp_path / "a.flac", snr_db=-20).path)
    assert 32400 < np.abs(samples.astype(int)).max() < 32500


def test_noise_changes_but_keeps_its_power() -> None:
    step = round(NOISE_S * SAMPLE_RATE_HZ)
    noise = make_noise(2 * step + 5000, np.random.default_rng(3))
    parts = noise[:step], noise[step : 2 * step], noise[2 * step :]
    assert [np.mean(part**2) for part in parts] == pytest.approx([1, 1, 1])
    tilts = [np.mean(np.diff(part) ** 2) for part in parts]  # low for dark noise
    assert max(tilts) > 1.2 * min(tilts)


def test_extent_takes_in_pauses_within_a_clip() -> None:
    samples = np.zeros(SAMPLE_RATE_HZ)
    samples[3200:4800] = samples[9600:11200] = 0.1
    assert speech_extent(samples) == (3200, 11200)


SPEECH = [(1.0, 3.0), (4.0, 5.0), (7.0, 8.0)]


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        (SPEECH, Coverage(1, 1, split=0, joined=0, missed=0, empty=0)),
        ([(0.0, 10.0)], Coverage(0.4, 1, split=0, joined=1, missed=0, empty=0)),
        ([(1.0, 2.0), (2.0, 5.0)], Coverage(0.75, 0.75, split=1, joined=1, missed=1, empty=0)),
        ([(1.0, 3.0), (2.0, 3.0), (5.5, 6.5)], Coverage(2 / 3, 0.5, split=1, joined=0, missed=2, empty=1)),
        ([(1.0, 4.05), (4.05, 5.0)], Coverage(3 / 4, 3 / 4, split=0, joined=0, missed=1, empty=0)),
        ([], Coverage(0, 0, split=0, joined=0, missed=3, empty=0)),
    ],
)
def test_coverage(segments: list[tuple[float, float]], expected: Coverage) -> None:
    found = coverage(segments, SPEECH)
    assert (found.precision, found.recall) == pytest.approx((expected.precision, expected.recall))
    names = ("split", "joined", "missed", "empty")
    assert [getattr(found, name) for name in names] == [getattr(expected, name) for name in names]
    assert TOUCH_S > 0.05  # the fifth case's first segment contains this much of the second clip


tenths = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)).map(lambda pair: (pair[0], sum(pair))))


@given(tenths, tenths)
def test_shares_against_counting_on_a_grid(segments: list[tuple[int, int]], speech: list[tuple[int, int]]) -> None:
    apart = merge(speech)
    inside, spoken = ({tenth for a, b in spans for tenth in range(a, b)} for spans in (segments, apart))
    found = coverage(segments, apart)
    assert found.precision == pytest.approx(len(inside & spoken) / max(len(inside), 1))
    assert found.recall == pytest.approx(len(inside & spoken) / max(len(spoken), 1))


def test_settings_are_python_literals() -> None:
    assert setting("min_pause_s=0.5") == ("min_pause_s", 0.5)
    assert setting("hotwords=('a=b',)") == ("hotwords", ("a=b",))
    with pytest.raises(ValueError, match="bad"):
        setting("x=bad word")
