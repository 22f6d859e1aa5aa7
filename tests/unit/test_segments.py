"""Segmentation of recordings, with a scripted voice activity detector."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.segmenting import (
    PART_FRAMES,
    Offline,
    Scripted,
    in_frames,
    noise,
    places,
    scripted,
    seconds,
    segments_of,
    with_dips,
)

from funasr_cli.audio.vad import FRAME_SAMPLES, SAMPLE_RATE_HZ
from funasr_cli.options import SILERO, VAD_THRESHOLDS, TranscribeOptions
from funasr_cli.scheduling import segments
from funasr_cli.scheduling.segments import Segmenter


def test_margins_around_speech() -> None:
    samples, speech = scripted((2, 0.0), (3, 1.0), (2, 0.0))
    (segment,) = segments_of(samples, TranscribeOptions(), speech)
    first, last = in_frames(2) - 6, in_frames(2) + in_frames(3) + 6  # 6 frames: 0.19 s
    assert places([segment]) == [(first * FRAME_SAMPLES, last * FRAME_SAMPLES)]
    assert (segment.start_s, segment.end_s) == (1.792, 5.184)
    assert segment.duration_s == pytest.approx(3.392)


@pytest.mark.parametrize(
    ("runs", "options", "found"),
    [
        *(([(30, 0.0), (frames, 1.0), (30, 0.0)], {}, int(frames > 2)) for frames in range(5)),  # clicks
        # Speech continues at a lower probability than it starts.
        ([(31, 0.36), (31, 0.5), (31, 0.36), (31, 0.5)], {}, 1),
        ([(31, 0.36), (31, 0.5), (31, 0.34), (31, 0.5)], {}, 2),
        # A low threshold still finds pauses.
        *(([(31, 0.6), (62, 0.0), (31, 0.6)], {"vad_threshold": low}, 2) for low in (0.005, 0.02, 0.1, 0.15)),
        # The shortest pause that ends a segment: 0.4 s are 12.5 frames.
        *(([(30, 1.0), (pause, 0.0), (30, 1.0)], {}, 1 + (pause > 11)) for pause in (11, 12, 13)),
    ],
)
def test_number_of_segments(runs: list[tuple[int, float]], options: dict, found: int) -> None:
    speech = [level for frames, level in runs for _ in range(frames)]
    samples = noise(len(speech) * FRAME_SAMPLES)
    assert len(segments_of(samples, TranscribeOptions(**options), speech)) == found


def test_short_segments_are_joined_over_pauses() -> None:
    samples, speech = scripted(*[(1, 1.0), (0.6, 0.0)] * 20)
    apart = segments_of(samples, TranscribeOptions(), speech)
    assert len(apart) == 20
    joined = segments_of(samples, TranscribeOptions(join_s=10), speech)
    assert [segment.duration_s > 6.3 for segment in joined] == [True] * 4  # from there on, 0.6 s count as a pause
    with_long_pauses, speech = scripted(*[(1, 1.0), (1.1, 0.0)] * 5)
    assert len(segments_of(with_long_pauses, TranscribeOptions(join_s=10), speech)) == 5


def test_the_longer_joined_segments_may_be_the_longer_pauses_in_short_ones() -> None:
    """Up to 3 s for 30 s, and shorter ones the longer the segment is."""
    samples, speech = scripted(*[(2, 1.0), (1.6, 0.0)] * 20)
    joined = segments_of(samples, TranscribeOptions(join_s=30), speech)
    assert [segment.duration_s > 15 for segment in joined] == [True] * len(joined)
    with_longer_pauses, speech = scripted(*[(1, 1.0), (3.1, 0.0)] * 5)
    assert len(segments_of(with_longer_pauses, TranscribeOptions(join_s=30), speech)) == 5


def test_joined_segments_are_marked() -> None:
    """Those that continue across a pause of `min_pause_s`, not across a shorter one."""
    options = TranscribeOptions(join_s=10)
    for pause_s, joined in ((0.35, False), (0.45, True)):
        samples, speech = scripted((1, 1.0), (pause_s, 0.0), (1, 1.0), (2, 0.0), (1, 1.0), (2, 0.0))
        found = segments_of(samples, options, speech)
        assert [segment.joined for segment in found] == [joined, False]
        assert [half.joined for half in found[0].halves() or ()] == [joined] * 2


def test_the_end_of_a_word_after_a_cut_is_not_a_click() -> None:
    """64 frames of speech are split after the 62nd, the maximum length of a segment."""
    speech = [1.0] * 64 + [0.0] * 100
    samples = noise(len(speech) * FRAME_SAMPLES)
    found = segments_of(samples, TranscribeOptions(max_segment_s=2, min_pause_s=2), speech)
    assert places(found) == [(0, 62 * FRAME_SAMPLES), (62 * FRAME_SAMPLES, 70 * FRAME_SAMPLES)]


NO_VAD = TranscribeOptions(vad=False)


@pytest.mark.parametrize("samples", [0, 1, 160, 511, 512, 513, 1024])
def test_less_than_a_word_is_not_speech(samples: int) -> None:
    assert segments_of(noise(samples), NO_VAD) == []
    assert segments_of(noise(samples), TranscribeOptions()) == []
    assert segments_of(noise(samples), TranscribeOptions(), [1.0] * -(-samples // FRAME_SAMPLES)) == []


@given(count=st.integers(1025, 200_000), max_segment_s=st.sampled_from([2.0, 2.5, 3.1]), data=st.data())
@settings(max_examples=100, deadline=None)
def test_without_vad_nothing_is_left_out(count: int, max_segment_s: float, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=4)))
    found = segments_of(noise(count), TranscribeOptions(vad=False, max_segment_s=max_segment_s), cuts=cuts)
    assert [0, *(segment.end for segment in found)] == [*(segment.start for segment in found), count]
    lengths = [len(segment.samples) for segment in found]
    assert max(lengths) <= max_segment_s * SAMPLE_RATE_HZ
    if len(found) > 1:
        assert min(lengths) > (PART_FRAMES - 1) * FRAME_SAMPLES


@pytest.mark.parametrize(
    ("samples", "found"),
    [(seconds(29.99), 1), (seconds(30), 1), (seconds(30) + 1, 2), (seconds(30.01), 2), (seconds(30.4), 2)],
)
def test_a_slightly_too_long_segment_is_split_in_two(samples: int, found: int) -> None:
    assert len(segments_of(noise(samples), NO_VAD)) == found


@pytest.mark.parametrize("dip_s", [0.6, 3.0, 15.0, 23.456, 29.2])
@pytest.mark.parametrize("duration_s", [30.01, 30.3])
def test_the_cut_is_in_the_deepest_pause(dip_s: float, duration_s: float) -> None:
    first, second = segments_of(with_dips(duration_s, dip_s), NO_VAD)
    assert dip_s <= first.end_s == second.start_s <= dip_s + 0.2
    assert (first.start, second.end) == (0, seconds(duration_s))


BLOCK = noise(seconds(10))


def an_hour_of(speech: float, options: TranscribeOptions) -> tuple[int, int, int]:
    """Return the maximum bytes kept between blocks, the maximum used within one, and the number of segments."""
    kept = count = 0
    script = np.full(seconds(3600) // FRAME_SAMPLES + 1, speech, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "VoiceActivityDetector", lambda: Scripted(script))
        segmenter = Segmenter(options)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(360):
            count += len(segmenter.push(BLOCK))
            kept = max(kept, tracemalloc.get_traced_memory()[0] - before)
        count += len(segmenter.finish())
        return kept, tracemalloc.get_traced_memory()[1] - before, count
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("speech", "segments", "kept_blocks", "most_blocks"),
    [
        (0.0, range(1), 3, 6),
        (1.0, range(120, 241), 6, 16),
    ],  # the open segment: 30.5 s, and the block in which it ended
)
def test_of_an_hour_the_open_segment_is_kept(
    speech: float, segments: range, kept_blocks: int, most_blocks: int
) -> None:
    kept, most, count = an_hour_of(speech, TranscribeOptions())
    assert count in segments
    assert kept < kept_blocks * BLOCK.nbytes
    assert most < most_blocks * BLOCK.nbytes


# --- streaming segmentation compared with that of the whole recording ---

SHORTEST_SAMPLES = 400  # 25 ms: needed for one row of features
SURE_FRAMES = 7  # 0.2 s: a run of speech this long must never be lost
Case = tuple[np.ndarray, list[float], TranscribeOptions, list[int]]


@st.composite
def recordings(draw: st.DrawFn) -> Case:
    """Draw samples, the probabilities of their frames, options, and block boundaries."""
    levels = st.sampled_from([0.0, 0.2, 0.34, 0.36, 0.45, 0.5, 0.9, 1.0])
    runs = draw(st.lists(st.tuples(st.integers(1, 30) | st.integers(1, 150), levels), max_size=14))
    speech = [level for count, level in runs for _ in range(count)]
    loudness = np.repeat(draw(st.lists(st.sampled_from([0.0, 0.01, 0.3]), min_size=1, max_size=9)), 3000)
    count = max(0, len(speech) * FRAME_SAMPLES - draw(st.sampled_from([0, 0, 1, 200, 510, 511])))
    samples = noise(count, 1.0) * np.resize(loudness, count).astype(np.float32)
    max_segment_s = draw(st.sampled_from([2.0, 2.01, 3.3, 7.0, 25.0]))
    options = TranscribeOptions(
        min_pause_s=draw(st.sampled_from([0.1, 0.2, 0.4, 0.7, 2.0])),
        max_segment_s=max_segment_s,
        join_s=min(draw(st.sampled_from([0.0, 0.0, 0.5, 2.0, 20.0])), max_segment_s),
    )
    blocks = st.integers(0, count) | st.integers(0, count // FRAME_SAMPLES).map(FRAME_SAMPLES.__mul__)
    return samples, speech, options, sorted(draw(st.lists(blocks, max_size=6)))


@given(recordings())
@settings(max_examples=300, deadline=None)
def test_segments_equal_those_of_the_whole_recording(case: Case) -> None:
    samples, speech, options, cuts = case
    found = segments_of(samples, options, speech, cuts)
    assert places(found) == Offline(samples, speech, options).places()
    at_once = segments_of(samples, options, speech)
    for segment, same in zip(found, at_once, strict=True):
        np.testing.assert_array_equal(segment.activity, same.activity)
        np.testing.assert_array_equal(segment.samples, samples[segment.start : segment.end])
        assert SHORTEST_SAMPLES < len(segment.samples) <= options.max_segment_s * SAMPLE_RATE_HZ


def runs_of(hits: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], hits, [False]]).astype(int)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


@given(recordings())
@settings(max_examples=300, deadline=None)
def test_segments_contain_speech_and_exclude_silence(case: Case) -> None:
    samples, speech, options, cuts = case
    covered = np.zeros(len(speech), bool)
    quiet = np.array(speech) < VAD_THRESHOLDS[SILERO] - 0.15
    longest_s = max(1.0, options.join_s / 10, options.min_pause_s) if options.join_s else options.min_pause_s
    longest_pause = in_frames(longest_s)
    margin = in_frames(min(0.2, options.min_pause_s))
    for segment in segments_of(samples, options, speech, cuts):
        frames = slice(segment.start // FRAME_SAMPLES, -(-segment.end // FRAME_SAMPLES))
        covered[frames] = True
        for first, last in runs_of(quiet[frames]):
            assert last - first <= max(longest_pause - 1, margin)
    for first, last in runs_of(np.array(speech) >= VAD_THRESHOLDS[SILERO]):
        assert last - first < SURE_FRAMES or covered[first:last].all()
