"""Words as the library gives them: asked for, refused, and in every format."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small import MakeCheckpoint, convert

import funasr_cli
from funasr_cli import demo
from funasr_cli.backend import mx
from funasr_cli.options import Timestamps
from funasr_cli.pipeline import Recognizer
from funasr_cli.subtitles import pieces_of
from funasr_cli.transcript import Segment
from funasr_cli.units import word_spans
from funasr_cli.writers import DEFAULT_TIMES, WRITERS, Style


def assert_words_are_those_of_the_text(segment: Segment) -> None:
    """All of them, in order, without overlaps, within the segment."""
    assert [word.text for word in segment.words] == [
        segment.text[slice(*span)] for span in word_spans(segment.text)
    ]
    assert "".join(piece.text for piece in pieces_of(segment)) == segment.text
    times = [time_s for word in segment.words for time_s in (word.start_s, word.end_s)]
    assert [segment.start_s, *times, segment.end_s] == sorted([segment.start_s, *times, segment.end_s])
    assert all((word.score is None) == word.estimated for word in segment.words)


@pytest.fixture(scope="module")
def asr() -> Recognizer:
    return funasr_cli.load("demo")


@pytest.mark.slow
@pytest.mark.parametrize("itn", [True, False])
def test_words_of_the_clips(asr: Recognizer, itn: bool) -> None:
    clips = demo.clips()
    for clip, said in zip(
        clips, asr.transcribe_batch([clip.path for clip in clips], itn=itn, word_times=True), strict=True
    ):
        assert said.text == (clip.written if itn else clip.spoken)
        assert said.times == "word"
        for segment in said.segments:
            assert_words_are_those_of_the_text(segment)
            assert not any(word.estimated for word in segment.words) or itn


@pytest.mark.slow
def test_words_of_a_text_without_sense(make_checkpoint: MakeCheckpoint, tmp_path: Path, zh_wav: Path) -> None:
    """Of random weights: whatever it is, every format can be made of it."""
    able = funasr_cli.load(convert(make_checkpoint(with_ctc=True), tmp_path / "m").folder)
    assert able.has_ctc
    said = able.transcribe(zh_wav, word_times=True, vad=False, max_tokens=20, temperature=1.5, seed=3)
    assert len(said.segments[0].words) > 5
    for segment in said.segments:
        assert_words_are_those_of_the_text(segment)
    for name, write in WRITERS.items():
        worded = write(said, Style(Timestamps.WORD))
        assert (worded == write(said)) == (DEFAULT_TIMES[name] is Timestamps.WORD)


@pytest.mark.parametrize("word_times", [True, False])
def test_words_without_times_are_told(word_times: bool) -> None:
    """A CTC head without sense: the text is there, and what it is good for is said."""
    clip = demo.clips()[0]
    unable = funasr_cli.load("demo")
    head = unable.loaded.model.ctc.ctc_lo
    head.weight = mx.full(head.weight.shape, float("nan"))
    said = unable.transcribe(clip.path, word_times=word_times, draft="off", second_opinion=False)
    assert (said.text, said.segments[0].words, said.times) == (clip.written, (), "segment")
    told = "0.1-2.7 s: no times of words: the text could not be aligned with what the CTC branch heard"
    assert said.warnings == ((told,) if word_times else ())
