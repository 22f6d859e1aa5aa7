"""Cutting while the samples come in, against the same with the whole recording at hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.segmenting import Offline, in_frames, noise, places, stretches_of

from funasr_cli.audio.segments import deepest_pause
from funasr_cli.audio.vad import FRAME_SAMPLES, SAMPLE_RATE_HZ
from funasr_cli.options import TranscribeOptions

SHORTEST_SAMPLES = 400  # 25 ms: what one row of features needs
SURE_FRAMES = 7  # 0.2 s: so much speech in a row must never be lost
Case = tuple[np.ndarray, list[float], TranscribeOptions, list[int]]


@st.composite
def recordings(draw: st.DrawFn) -> Case:
    """Samples, the probabilities of their frames, options, and where the samples are cut into blocks."""
    levels = st.sampled_from([0.0, 0.2, 0.34, 0.36, 0.45, 0.5, 0.9, 1.0])
    runs = draw(st.lists(st.tuples(st.integers(1, 30) | st.integers(1, 150), levels), max_size=14))
    speech = [level for count, level in runs for _ in range(count)]
    loudness = np.repeat(draw(st.lists(st.sampled_from([0.0, 0.01, 0.3]), min_size=1, max_size=9)), 3000)
    count = max(0, len(speech) * FRAME_SAMPLES - draw(st.sampled_from([0, 0, 1, 200, 510, 511])))
    samples = noise(count, 1.0) * np.resize(loudness, count).astype(np.float32)
    options = TranscribeOptions(
        min_pause_s=draw(st.sampled_from([0.1, 0.2, 0.4, 0.7, 2.0])),
        max_segment_s=draw(st.sampled_from([2.0, 2.01, 3.3, 7.0])),
        join_s=draw(st.sampled_from([0.0, 0.0, 0.5, 2.0])),
    )
    blocks = st.integers(0, count) | st.integers(0, count // FRAME_SAMPLES).map(FRAME_SAMPLES.__mul__)
    return samples, speech, options, sorted(draw(st.lists(blocks, max_size=6)))


@given(recordings())
@settings(max_examples=300, deadline=None)
def test_stretches_are_parts_of_the_recording(case: Case) -> None:
    samples, speech, options, cuts = case
    found = stretches_of(samples, options, speech, cuts)
    reached = 0
    for stretch in found:
        assert stretch.start >= reached
        reached = stretch.end
        assert SHORTEST_SAMPLES < len(stretch.samples) <= options.max_segment_s * SAMPLE_RATE_HZ
        assert stretch.samples.dtype == np.float32
        np.testing.assert_array_equal(stretch.samples, samples[stretch.start : stretch.end])
        assert len(stretch.activity) == -(-len(stretch.samples) // FRAME_SAMPLES)
    assert reached <= len(samples)


@given(recordings())
@settings(max_examples=300, deadline=None)
def test_stretches_are_those_of_the_whole_recording(case: Case) -> None:
    samples, speech, options, cuts = case
    found = stretches_of(samples, options, speech, cuts)
    assert places(found) == Offline(samples, speech, options).places()
    at_once = stretches_of(samples, options, speech)
    for stretch, same in zip(found, at_once, strict=True):
        np.testing.assert_array_equal(stretch.activity, same.activity)


def runs_of(hits: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, behind the last) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], hits, [False]]).astype(int)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


@given(recordings())
@settings(max_examples=300, deadline=None)
def test_speech_is_in_and_silence_is_out(case: Case) -> None:
    samples, speech, options, cuts = case
    covered = np.zeros(len(speech), bool)
    quiet = np.array(speech) < options.vad_threshold - 0.15
    longest_pause = in_frames(max(1.0, options.min_pause_s) if options.join_s else options.min_pause_s)
    margin = in_frames(min(0.2, options.min_pause_s))
    for stretch in stretches_of(samples, options, speech, cuts):
        frames = slice(stretch.start // FRAME_SAMPLES, -(-stretch.end // FRAME_SAMPLES))
        covered[frames] = True
        for first, last in runs_of(quiet[frames]):
            assert last - first <= max(longest_pause - 1, margin)
    for first, last in runs_of(np.array(speech) >= options.vad_threshold):
        assert last - first < SURE_FRAMES or covered[first:last].all()


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=40), st.data())
def test_deepest_pause_has_the_least_speech_around_it(activity: list[int], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(activity) - 1))
    last = data.draw(st.integers(first, len(activity) - 1))

    def around(frame: int) -> int:
        return sum(activity[min(max(frame + step, 0), len(activity) - 1)] for step in (-2, -1, 0, 1, 2))

    assert deepest_pause(np.array(activity), first, last) == min(range(first, last + 1), key=around)
