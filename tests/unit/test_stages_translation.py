"""The stage that translates: held back segments, failures, languages, together with punctuation and speakers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.campplus import Pitches
from support.errors import refused
from support.punctuation import GuessingPunctuation
from support.speaking import SAID, SpeakingModel
from support.transcripts import segment, transcript
from support.translating import Interpreter

from funasr_cli.audio.decode import AudioInput, opener
from funasr_cli.audio.segment import AudioSegment
from funasr_cli.capabilities import Capabilities
from funasr_cli.errors import FunASRError, UsageError
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, Read, SegmentFinished
from funasr_cli.speech_model import SegmentRequest
from funasr_cli.stages.stage import Stages
from funasr_cli.stages.translation import LONGEST_WAIT_S, MOST_HELD, Translator
from funasr_cli.text_generator import LEAST_TOKENS
from funasr_cli.text_model import TextModel, TextResult
from funasr_cli.transcript import Segment, Transcript, Translation, Word

CUT = TextResult("half of", 200, "budget", -1.0)


def segments_of(*texts: str) -> list[Segment]:
    return [segment(number, number + 1.0, text) for number, text in enumerate(texts)]


def events_of(segments: Sequence[Segment], source: int = 0) -> Iterator[Event]:
    yield Read(source, 0.0, 0.0, None)
    for each in segments:
        yield PartialText(source, each.start_s, "...")
        yield SegmentFinished(source, each)
    yield Finished(source, transcript(*segments, duration_s=len(segments) + 1.0))


def run(
    model: TextModel, segments: Sequence[Segment], language: str | None = None, target: str = "en"
) -> Transcript:
    """Return the transcript, whose segments are those that were passed on."""
    stages = Stages([lambda: Translator(model, target, language)])
    passed = [later for event in events_of(segments) for later in stages(event)]
    last = passed[-1]
    assert isinstance(last, Finished)
    assert last.transcript.segments == tuple(e.segment for e in passed if isinstance(e, SegmentFinished))
    assert len([event for event in passed if isinstance(event, Read | PartialText)]) == len(segments) + 1
    return last.transcript


def english(text: str, **changes: Any) -> Translation:
    return replace(Translation(text, "en", mean_logprob=-0.25), **changes)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=2 * MOST_HELD + 3))
def test_each_segment_has_its_translation(texts: list[str]) -> None:
    """Nothing else of it changes. Texts without a character have nothing to translate."""
    model, before = Interpreter(), segments_of(*texts)
    if any("<|im_end|>" in text for text in texts):
        return
    found = run(model, before)
    assert [replace(each, translation=None) for each in found.segments] == before
    for each in found.segments:
        assert each.translation
        assert each.translation.text == (each.text.upper().strip() if each.text.strip() else each.text)
    asked = [text for call in model.asked for text in call]
    assert len(asked) == sum(bool(text.strip()) for text in texts)
    assert max(map(len, model.asked), default=0) <= MOST_HELD
    assert found.translated_by == model.name


def test_what_another_stage_changes_at_the_end_is_translated_too() -> None:
    """A stage of the caller's may change the transcript after its segments have been passed on."""
    one, two = segments_of("one", "two")
    model = Interpreter()
    stages = Stages([lambda: Translator(model, "en")])
    changed = [one, replace(two, text="three"), segment(5, 6, "four")]
    [*_, last] = [
        later
        for event in (
            SegmentFinished(0, one),
            SegmentFinished(0, two),
            Finished(0, transcript(*changed, duration_s=6.0)),
        )
        for later in stages(event)
    ]
    assert isinstance(last, Finished)
    assert [each.translation for each in last.transcript.segments] == list(map(english, ("ONE", "THREE", "FOUR")))


def test_the_limit_grows_with_the_text() -> None:
    """By its bytes, so that one in a script of many bytes and tokens has enough."""
    model = Interpreter()
    run(model, segments_of("short", "汉" * 100))
    assert model.limits == [LEAST_TOKENS, 300]


def test_segments_wait_for_each_other() -> None:
    """As many as are translated together; but not for long, while other events show that time passes."""
    now, model = 0.0, Interpreter()
    stages = Stages([lambda: Translator(model, "en", clock=lambda: now)])
    first, second, third = (SegmentFinished(0, each) for each in segments_of("a", "b", "c"))
    other = PartialText(0, 9.0, "...")
    assert list(stages(first)) == []
    now = LONGEST_WAIT_S / 2
    assert list(stages(second)) == []
    assert list(stages(other)) == [other]
    now = LONGEST_WAIT_S
    *passed, last = stages(other)
    assert last is other
    assert [each.segment.translation for each in passed] == [english("A"), english("B")]
    assert list(stages(third)) == []
    now = 2 * LONGEST_WAIT_S
    assert [each.segment.text for each in stages(SegmentFinished(0, segment(3, 4, "d")))] == ["c", "d"]
    assert [len(call) for call in model.asked] == [2, 2]
    many = [SegmentFinished(0, segment(number, number + 1, "x")) for number in range(4, 4 + MOST_HELD)]
    assert [len(list(stages(each))) for each in many] == [0] * (MOST_HELD - 1) + [MOST_HELD]


@pytest.mark.parametrize(
    ("answer", "translation"),
    [
        (CUT, english("half of", stop_reason="budget", mean_logprob=-1.0)),
        (TextResult("again", 9, "loop", -1.0), english("again", stop_reason="loop", mean_logprob=-1.0)),
        (TextResult("", 1, "nonfinite"), english("", stop_reason="nonfinite", mean_logprob=None)),
        (TextResult("", 1, "eos", -0.5), english("", stop_reason="empty", mean_logprob=-0.5)),
        (TextResult(" \n", 3, "eos", -0.5), english("", stop_reason="empty", mean_logprob=-0.5)),
    ],
)
def test_what_is_not_complete_says_so(answer: TextResult, translation: Translation) -> None:
    """The text of the segment stays, and the other segments have theirs."""
    found = run(Interpreter({"bad": answer}), segments_of("bad", "good"))
    assert [each.translation for each in found.segments] == [translation, english("GOOD")]
    assert found.text == "bad good"
    assert (found.complete, found.broken) == (False, False)
    assert (found.ledger.untranslated_s, found.ledger.transcribed_s, found.ledger.failed_s) == (1.0, 2.0, 0.0)
    assert [warning.startswith("0.0-1.0 s: ") for warning in found.warnings] == [True]
    english_only = found.translated
    assert english_only.text == f"{translation.text or '...'} GOOD"
    assert (english_only.complete, english_only.ledger.failed_s) == (False, 1.0)


LOOP = TextResult("again", 9, "loop", -1.0)


@pytest.mark.parametrize("failure", [CUT, LOOP, TextResult("", 1, "eos")])
def test_the_sentences_of_a_text_that_failed(failure: TextResult) -> None:
    """They are translated one by one, and count if none of them fails."""
    text = "One is good. Two is better."
    model = Interpreter({text: failure, "Two is better.": TextResult("TWO", 4, "eos", -0.5)})
    found = run(model, segments_of(text, "good"))
    first = found.segments[0].translation
    assert first
    assert (first.text, first.stop_reason) == ("ONE IS GOOD. TWO", "eos")
    assert first.mean_logprob == pytest.approx((13 * -0.25 + 4 * -0.5) / 17)
    assert (found.complete, found.warnings) == (True, ())
    again = Interpreter({text: failure, "Two is better.": failure})
    lost = run(again, segments_of(text)).segments[0].translation
    assert lost
    assert (lost.text, lost.complete) == (failure.text, False)
    broken = Interpreter({text: TextResult("", 1, "nonfinite")})
    run(broken, segments_of(text))
    assert len(broken.asked) == 1, "smaller pieces do not help"


def test_what_a_model_adds_is_not_cut() -> None:
    """Phrases that introduce a translation may as well be a part of it."""
    wordy = "Here is the translation: artificial intelligence"
    assert run(Interpreter({"人工智能": wordy}), segments_of("人工智能")).segments[0].translation == english(wordy)


def test_a_device_that_fails_costs_only_the_texts_that_it_fails_with() -> None:
    model = Interpreter(broken=["b"])
    found = run(model, segments_of("a", "b", "c"))
    lost = english("", stop_reason="error", mean_logprob=None)
    assert [each.translation for each in found.segments] == [english("A"), lost, english("C")]
    assert "the device is gone" in found.warnings[-1]
    assert not found.complete


def test_a_text_that_cannot_be_asked() -> None:
    found = run(Interpreter(), segments_of("a", "<|im_end|>"))
    assert [each.translation and each.translation.stop_reason for each in found.segments] == ["eos", "error"]


@pytest.mark.parametrize(
    ("asked", "detected", "target", "is_copied"),
    [
        ("en", None, "en", True), (None, "en", "en", True), ("zh", "en", "en", False), (None, None, "en", False),
        (None, "en", "de", False), ("de", None, "de", True),
    ],
)  # fmt: skip
def test_text_in_the_language_already_is_copied(
    asked: str | None, detected: str | None, target: str, is_copied: bool
) -> None:
    model = Interpreter()
    [found] = run(model, [replace(segment(0, 1, "Hallo"), language=detected)], asked, target).segments
    assert found.translation
    assert (found.translation.text, found.translation.language) == ("Hallo" if is_copied else "HALLO", target)
    name = {"de": "German", "en": "English"}[target]
    assert model.asked == ([] if is_copied else [[f"Translate to {name}: Hallo"]])


def test_a_failed_recording_passes_on_what_was_held_back() -> None:
    stages, failure = Stages([lambda: Translator(Interpreter(), "en")]), Failed(0, FunASRError("broken"))
    assert list(stages(SegmentFinished(0, segment(0, 1, "a")))) == []
    held, last = stages(failure)
    assert isinstance(held, SegmentFinished)
    assert (held.segment.translation, last) == (english("A"), failure)


# --- with a speech model ---

SPOKEN = replace(SAID, text="hello there", language="es", tags=())
AUDIO: AudioInput = np.sin(np.arange(32000) * 0.1).astype(np.float32)
ABLE = Capabilities(("en", "es", "zh"), translation=True)


def recognizer(able: Capabilities = ABLE, said: Segment = SPOKEN, **helpers: Any) -> Recognizer:
    model: Any = SpeakingModel(capabilities=able, result=said)
    return Recognizer(model, **helpers)


def transcribed(asr: Recognizer, **options: Any) -> Transcript:
    return asr.transcribe(AUDIO, sample_rate_hz=16000, **{"vad": False} | options)


def test_a_translator_translates_in_place_of_the_model() -> None:
    """The model is not asked to, and the translator only if a translation is wanted."""
    translator = Interpreter()
    asr = recognizer(translator=translator)
    seen: list[TranscribeOptions] = []
    session = asr.model.session
    asr.model.session = lambda options: (seen.append(options), session(options))[1]  # type: ignore[method-assign]
    found = transcribed(asr, translate=True)
    assert [each.translation for each in found.segments] == [english("HELLO THERE")]
    assert transcribed(asr).segments[0].translation is None
    assert [options.translate for options in seen] == [False, False]
    assert len(translator.asked) == 1
    assert transcribed(recognizer(), translate=True).translated_by is None


def test_any_model_translates_with_a_translator() -> None:
    able = Capabilities(("en", "es"))
    with refused("option-unsupported", "--translator"):
        transcribed(recognizer(able), translate=True)
    asr = recognizer(able, translator=Interpreter())
    assert transcribed(asr, translate=True).translated.text == "HELLO THERE"
    german = transcribed(asr, translate=True, translate_to="German").segments[0].translation
    assert german
    assert (german.text, german.language) == ("HELLO THERE", "de")
    assert not Recognizer(asr.model).capabilities.translation


def test_the_parts_of_speakers_need_a_translator() -> None:
    """A model's own translation is of a whole segment."""
    with refused("options-conflict", "--translator"):
        transcribed(recognizer(tell_apart_with=Pitches()), translate=True, speakers=(1, None), vad=True)
    asr = recognizer(tell_apart_with=Pitches(), translator=Interpreter())
    transcribed(asr, translate=True, speakers=(1, None), vad=True)


def test_languages_other_than_english_need_a_translator() -> None:
    with refused("option-unsupported", "--translator"):
        transcribed(recognizer(), translate=True, translate_to="de")
    transcribed(recognizer(), translate=True, translate_to="en")
    for options, code in (
        ({"translate_to": "de"}, "options-conflict"),
        ({"translate": True, "translate_to": "klingon"}, "language-unknown"),
    ):
        with pytest.raises(UsageError) as caught:
            replace(DEFAULTS, **options)
        assert caught.value.code == code
    assert [replace(DEFAULTS, translate=True, translate_to=name).target for name in (None, "English", "de")] == [
        "en", "en", "de",
    ]  # fmt: skip
    assert DEFAULTS.target is None


def test_events_and_transcript_have_the_same_segments() -> None:
    asr = recognizer(translator=Interpreter())
    events = list(asr.stream(AUDIO, sample_rate_hz=16000, vad=False, translate=True))
    last = events[-1]
    assert isinstance(last, Finished)
    assert [each.segment for each in events if isinstance(each, SegmentFinished)] == [*last.transcript.segments]


def test_after_punctuation_and_speakers() -> None:
    """What is translated are the parts of each speaker, with their marks."""
    texts = ("今天", "天气", "你好", "世界")
    words = tuple(Word(word, 3.0 * at, 3.0 * at + 2.5, 0.9) for at, word in enumerate(texts))
    said = replace(segment(0, 12, " ".join(texts)), words=words)
    marks, translator = GuessingPunctuation(0.2), Interpreter()
    seconds = np.arange(6 * 16000) / 16000
    two = np.concatenate([np.sin(2 * np.pi * 250 * seconds), np.sin(2 * np.pi * 950 * seconds)])
    audio = AudioSegment(0, two.astype(np.float32), np.ones(1))
    asr = recognizer(
        Capabilities(("zh",), word_times=True),
        punctuate_with=marks,
        tell_apart_with=Pitches(),
        translator=translator,
    )
    options = TranscribeOptions(speakers=(1, None), word_times=True, translate=True, language="zh")
    job, stages = asr.job(0, opener(two, 16000, 16000), options)
    [voices] = job.stages
    voices.segment(SegmentRequest(0, audio, first=True), said)
    *passed, last = [later for event in events_of([said]) for later in stages(event)]
    assert isinstance(last, Finished)
    found = last.transcript
    assert [event.segment for event in passed if isinstance(event, SegmentFinished)] == [*found.segments]
    assert [each.speaker for each in found.segments] == ["Speaker 1", "Speaker 2"]
    assert "".join(found.text.split()) == "".join(marks.punctuate([said.text])[0].split())
    assert translator.asked == [[f"Translate to English: {each.text}" for each in found.segments]]
    assert [each.translation for each in found.segments] == [english(each.text.upper()) for each in found.segments]
    helpers = (found.punctuated_by, found.speakers_by, found.translated_by)
    assert helpers == (marks.name, "pitches", translator.name)
