"""Stages after the transcript: events in order, punctuation of segments, words and scores in step, failures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.errors import refused
from support.punctuation import CHARACTERS, WORDS, GuessingPunctuation
from support.speaking import SAID, SpeakingModel
from support.transcripts import TIMINGS

from funasr_cli.audio.decode import AudioInput
from funasr_cli.capabilities import Capabilities
from funasr_cli.errors import FunASRError
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.punctuation_model import Marks
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, Read, SegmentFinished
from funasr_cli.stages.punctuation import Punctuation, with_marks
from funasr_cli.stages.stage import Stages
from funasr_cli.subtitles import pieces_of, sentences_of
from funasr_cli.transcript import Score, Segment, TimedText, Transcript, Word, join_texts
from funasr_cli.units import word_spans

MARKS = "，。？、,.?"
letters = st.sampled_from([*CHARACTERS, *"abXY09'-", *"龘ü👍", " "])
texts = st.lists(st.one_of(letters, st.sampled_from([f" {word} " for word in WORDS])), max_size=60).map("".join)


def segment_of(text: str, number: int = 0, **changes: Any) -> Segment:
    """Return a segment with words, and with a score and a piece for every few characters."""
    spans = word_spans(text)
    words = [
        Word(text[first:last], number + 0.01 * first, number + 0.01 * last, first / 100) for first, last in spans
    ]
    scores = [Score(text[start : start + 3], start / 100) for start in range(0, len(text), 3)]
    pieces = [TimedText(text[start : start + 7], start, start + 1) for start in range(0, len(text), 7)]
    plain = Segment(number, number + 1.0, text, "", "eos", 0, 3, -0.5)
    return replace(plain, words=tuple(words), scores=tuple(scores), pieces=tuple(pieces), **changes)


def events_of(segments: Sequence[Segment], source: int = 0) -> Iterator[Event]:
    yield Read(source, 0.0, 0.0, None)
    for segment in segments:
        yield PartialText(source, segment.start_s, "...")
        yield SegmentFinished(source, segment)
    yield Finished(source, transcript_of(segments))


def transcript_of(segments: Sequence[Segment]) -> Transcript:
    return Transcript("a.wav", 30.0, "owner/Speaking", None, tuple(segments), TIMINGS)


def run(segments: Sequence[Segment], model: GuessingPunctuation) -> tuple[list[Segment], Transcript]:
    """Return the segments as they are passed on, and the transcript."""
    stages = Stages([lambda: Punctuation(model)])
    passed = [later for event in events_of(segments) for later in stages(event)]
    assert isinstance(passed[-1], Finished)
    assert [type(event) for event in passed if isinstance(event, Read | PartialText)] == [
        type(event) for event in events_of(segments) if isinstance(event, Read | PartialText)
    ]
    found = [event.segment for event in passed if isinstance(event, SegmentFinished)]
    return found, passed[-1].transcript


def plain(text: str) -> str:
    return "".join(char for char in text if char not in MARKS)


@given(st.lists(texts, max_size=8), st.sampled_from([0.3, 0.9]))
def test_segments_are_punctuated_as_one_text(parts: list[str], silence: float) -> None:
    """Those that have been passed on are those of the transcript."""
    model, segments = GuessingPunctuation(silence), [segment_of(text, at) for at, text in enumerate(parts)]
    found, transcript = run(segments, model)
    assert tuple(found) == transcript.segments
    assert [plain(segment.text) for segment in found] == parts
    whole = model.punctuate([join_texts(parts)])[0]
    assert "".join(transcript.text.split()) == "".join(whole.split())
    assert transcript.punctuated_by == model.name
    assert transcript.timings.post_s >= 0


@given(st.lists(texts, max_size=6))
def test_words_and_scores_stay_in_step(parts: list[str]) -> None:
    """Only their text changes: times, scores and numbers are as before, and each still follows the other."""
    segments = [segment_of(text, at) for at, text in enumerate(parts)]
    found, _ = run(segments, GuessingPunctuation(0.2))
    for before, after in zip(segments, found, strict=True):
        without = replace(after, text=before.text, words=before.words, scores=before.scores, pieces=before.pieces)
        assert without == before
        for name in ("words", "scores", "pieces"):
            olds, news = getattr(before, name), getattr(after, name)
            assert [replace(new, text=old.text) for old, new in zip(olds, news, strict=True)] == [*olds]
            assert [plain(new.text) for new in news] == [old.text for old in olds]
        assert "".join(score.text for score in after.scores) == after.text
        assert "".join(piece.text for piece in pieces_of(after)) == after.text
        assert [word.text for word in after.words] == [after.text[slice(*span)] for span in word_spans(after.text)]
        sentences_of(after)


def test_marks_in_the_middle() -> None:
    segment = segment_of("今天ok 你好", tags=("happy",))
    after = with_marks(segment, ((2, "，"), (4, "."), (7, "。")))
    assert after.text == "今天，ok. 你好。"
    assert [word.text for word in after.words] == ["今", "天，", "ok.", "你", "好。"]
    assert [score.text for score in after.scores] == ["今天，o", "k. 你", "好。"]
    assert [piece.text for piece in after.pieces] == ["今天，ok. 你好。"]
    assert [sentence.text for sentence in sentences_of(after)] == ["今天，ok.", "你好。"]
    assert with_marks(segment, ()) is segment


def test_a_segment_waits_for_the_end_of_its_sentence() -> None:
    """It is passed on as soon as its marks are final, not before."""

    class Later(GuessingPunctuation):
        """The marks of each part are final when the next part comes."""

        def start(self) -> Any:
            return Running()

    class Running:
        waiting = 0

        def add(self, text: str) -> list[Marks]:
            self.waiting += 1
            return [((1, "，"),)] if self.waiting > 1 else []

        def end(self) -> list[Marks]:
            return [((1, "。"),)]

    stages = Stages([lambda: Punctuation(Later())])
    segments = [segment_of(text, at) for at, text in enumerate("天气好")]
    passed = [
        [later.segment.text for later in stages(event) if isinstance(later, SegmentFinished)]
        for event in events_of(segments)
        if not isinstance(event, PartialText)
    ]
    assert passed == [[], [], ["天，"], ["气，"], ["好。"]]


def test_another_language_stays_as_it_is() -> None:
    """It ends the text before it."""
    languages = ["zh", "ko", None, "yue", "ja"]
    segments = [segment_of("今天天气", at, language=code) for at, code in enumerate(languages)]
    model = GuessingPunctuation()
    found, transcript = run(segments, model)
    assert tuple(found) == transcript.segments
    assert [plain(segment.text) for segment in found] == ["今天天气"] * 5
    assert found[0].text == model.punctuate(["今天天气"])[0]
    assert (found[1], found[4]) == (segments[1], segments[4])
    assert found[2].text + found[3].text == model.punctuate(["今天天气" * 2])[0]
    stages = Stages([lambda: Punctuation(model, "zh")])
    *_, last = [later for event in events_of(segments) for later in stages(event)]
    assert isinstance(last, Finished)
    assert last.transcript.text == model.punctuate(["今天天气" * 5])[0], "the language was asked for"


def test_recordings_have_their_own_text() -> None:
    """Their events come in any order."""
    model = GuessingPunctuation()
    both = [[segment_of("今天天气怎么样" * 4, at), segment_of("你好世界", at + 1)] for at in range(2)]
    stages = Stages([lambda: Punctuation(model)])
    mixed = [
        event for pair in zip(*(events_of(one, at) for at, one in enumerate(both)), strict=True) for event in pair
    ]
    passed = [later for event in mixed for later in stages(event)]
    for source, segments in enumerate(both):
        own = [event.segment for event in passed if isinstance(event, SegmentFinished) and event.source == source]
        assert own == run(segments, model)[0]


def test_a_failed_recording_passes_on_what_was_held_back() -> None:
    stages, failure = Stages([lambda: Punctuation(GuessingPunctuation())]), Failed(0, FunASRError("broken"))
    assert list(stages(SegmentFinished(0, segment_of("今天")))) == []
    *segments, last = stages(failure)
    assert last is failure
    assert [plain(event.segment.text) for event in segments if isinstance(event, SegmentFinished)] == ["今天"]


class Failing(GuessingPunctuation):
    """A model whose device fails after some calls."""

    def __init__(self, calls: int = 0, error: Exception | None = None) -> None:
        super().__init__()
        self.calls, self.error = calls, error or RuntimeError("the device is gone")

    def logits(self, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        return super().logits(rows)


@given(st.lists(texts, min_size=1, max_size=8), st.integers(0, 8), st.sampled_from([MemoryError, RuntimeError]))
def test_a_stage_that_fails_does_not_lose_the_transcript(
    parts: list[str], calls: int, error: type[Exception]
) -> None:
    """Its recording continues: what was passed on stays, the rest is as it came, and the transcript says so."""
    segments = [segment_of(text, at) for at, text in enumerate(parts)]
    model = Failing(calls, error("no memory"))
    found, transcript = run(segments, model)
    assert tuple(found) == transcript.segments
    assert [plain(segment.text) for segment in found] == parts
    if model.calls < 0:
        assert (transcript.complete, transcript.broken) == (False, False)
        assert transcript.failed_stages == (model.name,)
        assert [warning for warning in transcript.warnings if "no memory" in warning] == [*transcript.warnings]
        whole, _ = run(segments, GuessingPunctuation())
        same = next((at for at, one in enumerate(found) if one != whole[at]), len(found))
        assert found[same:] == segments[same:]
    else:
        assert (transcript.failed_stages, transcript.complete, transcript.warnings) == ((), True, ())


def test_segments_held_back_come_out_when_the_stage_fails() -> None:
    """At once, and those that follow without waiting. The warning states the time of the first."""
    stages, segments = Stages([lambda: Punctuation(Failing())]), [segment_of("今" * 15, at) for at in range(4)]
    passed = [
        [later.segment for later in stages(event) if isinstance(later, SegmentFinished)]
        for event in events_of(segments)
        if isinstance(event, SegmentFinished)
    ]
    assert passed == [[], segments[:2], segments[2:3], segments[3:]]
    *_, last = stages(Finished(0, transcript_of(segments)))
    assert isinstance(last, Finished)
    assert "0.0 s" in last.transcript.warnings[0]


def test_other_recordings_and_stages_continue() -> None:
    broken, whole = Failing(), GuessingPunctuation()
    makers = iter([Punctuation(broken), Punctuation(whole)])
    stages = Stages([lambda: next(makers)])
    segments = [segment_of("今天天气怎么样" * 4)]
    first, second = (
        [later for event in events_of(segments, at) for later in stages(event)][-1] for at in range(2)
    )
    assert isinstance(first, Finished)
    assert isinstance(second, Finished)
    assert (first.transcript.segments, first.transcript.complete) == (tuple(segments), False)
    assert second.transcript == replace(run(segments, whole)[1], timings=second.transcript.timings)
    both = Stages([lambda: Punctuation(broken), lambda: Punctuation(whole)])
    *_, last = [later for event in events_of(segments) for later in both(event)]
    assert isinstance(last, Finished)
    assert last.transcript.text == second.transcript.text
    assert (last.transcript.failed_stages, last.transcript.punctuated_by) == ((broken.name,), whole.name)


def test_a_failed_recording_whose_stage_fails_passes_on_what_was_held_back() -> None:
    stages, failure = Stages([lambda: Punctuation(Failing())]), Failed(0, FunASRError("broken"))
    segment = SegmentFinished(0, segment_of("今天"))
    assert list(stages(segment)) == []
    assert list(stages(failure)) == [segment, failure]


def test_without_stages_events_are_passed_on() -> None:
    stages, events = Stages(), list(events_of([segment_of("今天")]))
    assert [later for event in events for later in stages(event)] == events


# --- with a speech model ---

UNMARKED = replace(SAID, text="今天天气怎么样 hello world", language="zh")
AUDIO: AudioInput = np.sin(np.arange(16000) * 0.1).astype(np.float32)
MODEL = GuessingPunctuation(0.2)
MARKED = MODEL.punctuate([UNMARKED.text])[0]


def recognizer(able: Capabilities, *, must: bool = True) -> Recognizer:
    model: Any = SpeakingModel(capabilities=able, result=UNMARKED)
    return Recognizer(model, punctuate_with=MODEL, must_punctuate=must)


def transcribed(able: Capabilities, *, must: bool = True, **options: Any) -> Transcript:
    return recognizer(able, must=must).transcribe(AUDIO, sample_rate_hz=16000, vad=False, **options)


def test_a_model_that_writes_no_marks() -> None:
    able = Capabilities(("zh", "en", "ko"), partial_text=True)
    transcript = transcribed(able)
    assert (transcript.text, transcript.punctuated_by) == (MARKED, MODEL.name)
    events = list(recognizer(able).stream(AUDIO, sample_rate_hz=16000, vad=False))
    assert [event.segment for event in events if isinstance(event, SegmentFinished)] == [*transcript.segments]


@pytest.mark.parametrize(
    ("able", "options", "code"),
    [
        ({"punctuation": True}, {}, "option-idle"),
        ({"itn_punctuation": True, "itn_switch": True}, {}, "option-idle"),
        ({}, {"language": "ko"}, "language-unknown"),
    ],
)
def test_a_model_without_work(able: dict[str, Any], options: dict[str, Any], code: str) -> None:
    """It is refused, or not used if it does not have to be."""
    capabilities = Capabilities(("zh", "en", "ko"), **able)
    with refused(code, MODEL.name):
        transcribed(capabilities, **options)
    transcript = transcribed(capabilities, must=False, **options)
    assert (transcript.text, transcript.punctuated_by) == (UNMARKED.text, None)


def test_the_language_that_was_asked_for_counts() -> None:
    """Otherwise, the detected one."""
    model: Any = SpeakingModel(capabilities=Capabilities(("zh",)), result=replace(UNMARKED, language="ja"))
    recognizer = Recognizer(model, punctuate_with=MODEL)
    for language, text in (("zh", MARKED), ("Chinese", MARKED), (None, UNMARKED.text), ("auto", UNMARKED.text)):
        found = recognizer.transcribe(AUDIO, sample_rate_hz=16000, vad=False, language=language)
        assert found.text == text


def test_marks_only_with_itn() -> None:
    able = Capabilities(("zh", "en"), itn_punctuation=True, itn_switch=True)
    assert transcribed(able, itn=False).text == MARKED
    assert transcribed(able, must=False).text == UNMARKED.text
    assert able.writes_marks(TranscribeOptions())
    assert not able.writes_marks(TranscribeOptions(itn=False))
