"""FSMN-VAD alone, and the segments that are cut by it. test_fsmn_vad_parity.py compares it with FunASR's."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.segmenting import noise, places, seconds

from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.fsmn_vad import FRAME_SAMPLES, FsmnVoiceActivityDetector
from funasr_cli.audio.segment import AudioSegment
from funasr_cli.options import FSMN, FSMN_DYNAMIC, TranscribeOptions
from funasr_cli.scheduling import segments
from funasr_cli.scheduling.segments import new_segmenter

ZH = load_audio(Path(__file__).parents[1] / "data/zh-6s.wav", 16000).samples
EN = load_audio(Path(__file__).parents[1] / "data/en-11s-jfk.flac", 16000).samples


def speech_in(*pieces: np.ndarray) -> np.ndarray:
    detector = FsmnVoiceActivityDetector()
    return np.concatenate([*map(detector, pieces), detector.finish()])


ZH_SPEECH = speech_in(ZH)


def test_the_probabilities_of_the_release() -> None:
    """As FunASR 1.4.16 computes them with the released ``model.pt``."""
    assert len(ZH_SPEECH) == 598
    assert 1 - ZH_SPEECH[[0, 100, 300]] == pytest.approx([0.410384, 0.959423, 0.980258], abs=1e-5)
    assert (1 - ZH_SPEECH).mean() == pytest.approx(0.345218, abs=1e-5)
    assert (1 - speech_in(EN)).mean() == pytest.approx(0.207285, abs=1e-5)


@pytest.mark.slow
@given(cuts=st.lists(st.integers(0, len(ZH)), max_size=8))
@settings(max_examples=30, deadline=None)
def test_pieces_change_nothing(cuts: list[int]) -> None:
    np.testing.assert_array_equal(speech_in(*np.split(ZH, sorted(cuts))), ZH_SPEECH)


def test_what_is_known_early() -> None:
    """A frame is known 45 ms after it began."""
    detector, known = FsmnVoiceActivityDetector(), 0
    for start in range(0, len(ZH), 160):
        known += len(detector(ZH[start : start + 160]))
        assert known == max(0, 1 + (start + 160 - 720) // FRAME_SAMPLES)


@pytest.mark.parametrize("count", [0, 1, 399])
def test_too_short_for_a_frame(count: int) -> None:
    found = speech_in(noise(count))
    assert (found.shape, found.dtype) == ((0,), np.float32)
    assert len(speech_in(noise(400))) == 1


def test_silence_and_noise_are_no_speech() -> None:
    for samples in (np.zeros(seconds(5), np.float32), noise(seconds(5), 0.01)):
        assert cut(samples, vad_model=FSMN) == []
        assert cut(samples, vad_model=FSMN_DYNAMIC) == []


@pytest.mark.slow
def test_memory_is_bounded() -> None:
    five_minutes = np.zeros(seconds(300), np.float32)
    tracemalloc.start()
    try:
        FsmnVoiceActivityDetector()(five_minutes)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 40e6


# --- segments ---


class Scripted:
    """A detector that returns a fixed sequence of probabilities, those of a frame as soon as it is complete."""

    def __init__(self, speech: Sequence[float]):
        self.speech, self.seen, self.known = np.array(speech, np.float32), 0, 0

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        self.seen += len(samples)
        first, self.known = self.known, min(len(self.speech), max(0, 1 + (self.seen - 400) // FRAME_SAMPLES))
        return self.speech[first : self.known]

    def finish(self) -> np.ndarray:
        return self.speech[self.known :]


def cut(
    samples: np.ndarray, piece: int = 16_000, speech: Sequence[float] | None = None, **options
) -> list[AudioSegment]:
    """Return the segments of a recording that arrives in pieces."""
    with pytest.MonkeyPatch.context() as patch:
        if speech is not None:
            patch.setattr(segments, "FsmnVoiceActivityDetector", lambda: Scripted(speech))
        segmenter = new_segmenter(TranscribeOptions(**options))
    found = [
        one for start in range(0, len(samples), piece) for one in segmenter.push(samples[start : start + piece])
    ]
    return found + segmenter.finish()


def scripted(*runs: tuple[float, float]) -> tuple[np.ndarray, list[float]]:
    """Return noise and probabilities for runs of (seconds, probability)."""
    speech = [level for duration_s, level in runs for _ in range(round(100 * duration_s))]
    return noise(len(speech) * FRAME_SAMPLES + 240), speech


def test_clips_are_cut_as_funasr_cuts_them() -> None:
    """In ms. Speech that continues at the end is kept to the last sample (FunASR: 5980, 10980)."""
    for vad_model, pause_s, clip, expected in (
        (FSMN, None, ZH, [(770, 2400), (3380, 6000)]),
        (FSMN, None, EN, [(40, 2310), (3020, 4600), (5120, 11_000)]),
        (FSMN, 2.0, ZH, [(770, 6000)]),
        (FSMN_DYNAMIC, None, ZH, [(770, 6000)]),
    ):
        for piece in (3200, 160_000):
            found = cut(clip, piece, vad_model=vad_model, min_pause_s=pause_s)
            assert [(start / 16, end / 16) for start, end in places(found)] == expected


def test_the_threshold_counts() -> None:
    samples, speech = scripted((1, 0.0), (2, 0.6), (2, 0.0))
    assert cut(samples, speech=speech, vad_model=FSMN) == []
    assert len(cut(samples, speech=speech, vad_model=FSMN, vad_threshold=0.5)) == 1


def test_short_segments_are_joined() -> None:
    samples, speech = scripted(*[(1, 1.0), (0.8, 0.0)] * 6)
    apart = cut(samples, speech=speech, vad_model=FSMN)
    assert (len(apart), {segment.joined for segment in apart}) == (6, {False})
    joined = cut(samples, speech=speech, vad_model=FSMN, join_s=10)
    assert 1 <= len(joined) < 6
    assert joined[0].joined
    assert (joined[0].start, joined[-1].end) == (apart[0].start, apart[-1].end)


@pytest.mark.parametrize("vad_model", [FSMN, FSMN_DYNAMIC])
def test_too_long_segments_are_cut_where_speech_is_least(vad_model: str) -> None:
    samples, speech = scripted((7, 1.0), (0.1, 0.3), (6, 1.0), (3, 0.0))
    first, second = cut(samples, speech=speech, vad_model=vad_model, max_segment_s=10)
    assert 7.0 <= first.end_s == second.start_s <= 7.1
    assert [len(half.activity) for half in first.halves()] == [pytest.approx(350, abs=350)] * 2


@given(
    runs=st.lists(
        st.tuples(st.sampled_from([0.03, 0.2, 0.5, 1.0, 4.0]), st.sampled_from([0.0, 0.7, 0.9])), max_size=12
    ),
    piece=st.integers(100, 50_000),
    join_s=st.sampled_from([0.0, 2.0]),
    max_segment_s=st.sampled_from([2.0, 5.0, 30.0]),
    vad_model=st.sampled_from([FSMN, FSMN_DYNAMIC]),
)
@settings(max_examples=100, deadline=None)
def test_segments_in_pieces(
    runs: list[tuple[float, float]], piece: int, join_s: float, max_segment_s: float, vad_model: str
) -> None:
    samples, speech = scripted(*runs)
    options = {"speech": speech, "vad_model": vad_model, "join_s": join_s, "max_segment_s": max_segment_s}
    found, whole = cut(samples, piece, **options), cut(samples, 10**7, **options)
    assert places(found) == places(whole)
    edges = [edge for place in places(found) for edge in place]
    assert edges == sorted(edges)
    for segment, same in zip(found, whole, strict=True):
        np.testing.assert_array_equal(segment.samples, samples[segment.start : segment.end])
        np.testing.assert_array_equal(segment.activity, same.activity)
        assert len(segment.activity) == -(-len(segment.samples) // FRAME_SAMPLES)
        assert 400 <= len(segment.samples) <= max_segment_s * 16_000
    run = 0
    for frame, level in enumerate(speech):
        run = run + 1 if level >= 0.8 else 0
        if run >= 35:
            assert any(start <= 160 * frame < end for start, end in places(found))
