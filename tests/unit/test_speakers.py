"""The stage that tells speakers apart: words, cuts, names, formats, and what stays with a failed recording."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soxr
from support.campplus import Pitches

from funasr_cli.audio.segment import AudioSegment
from funasr_cli.errors import AudioError, UsageError
from funasr_cli.options import SPEAKER_THRESHOLD, TELEPHONE_MARGIN, TranscribeOptions, parse_speakers
from funasr_cli.scheduling.events import Event, Failed, Finished, SegmentFinished
from funasr_cli.speaker_model import SpeakerModel
from funasr_cli.speaker_turns import Turn
from funasr_cli.speech_model import SegmentRequest
from funasr_cli.stages.known_speakers import KnownSpeakers
from funasr_cli.stages.speakers import COARSE, Speakers, Voices, cut
from funasr_cli.stages.stage import Stages
from funasr_cli.transcript import Score, Segment, Timings, Transcript, Word
from funasr_cli.writers import WRITERS

RATE_HZ = 16000
AUTO = TranscribeOptions(speakers=(1, None))


def tone(hertz: float, duration_s: float) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(duration_s * RATE_HZ)) / RATE_HZ).astype(np.float32)


def segment(start_s: float, end_s: float, text: str, *words: tuple[float, float]) -> Segment:
    """Return a segment; `words` are the times of its words."""
    timed = [Word(word, *times, 0.9) for word, times in zip(text.split(), words, strict=bool(words))]
    return Segment(start_s, end_s, text, "", "eos", 0, 7, -0.1, words=tuple(timed) if words else ())


def told_apart(
    recording: np.ndarray,
    segments: list[Segment],
    options: TranscribeOptions = AUTO,
    source: int = 0,
    known: KnownSpeakers | None = None,
    model: SpeakerModel | None = None,
) -> list[Event]:
    """Run a recording through both stages, as the scheduler and `Recognizer.run` do."""
    voices = Voices(model or Pitches())
    stages = Stages([lambda: Speakers(voices, options, known)])
    for each in segments:
        start, end = round(each.start_s * RATE_HZ), round(each.end_s * RATE_HZ)
        audio = AudioSegment(start, recording[start:end], np.ones(1))
        assert voices.segment(SegmentRequest(source, audio, first=False), each) is each

    def events() -> Iterator[Event]:
        for each in segments:
            yield from stages(SegmentFinished(source, each))
        required = (field.name for field in dataclasses.fields(Timings) if field.default is dataclasses.MISSING)
        timings = Timings(**dict.fromkeys(required, 0))
        duration_s = len(recording) / RATE_HZ
        yield from stages(Finished(source, Transcript("a.wav", duration_s, "m", None, tuple(segments), timings)))

    return list(events())


def transcript_of(events: list[Event]) -> Transcript:
    [done] = [event for event in events if isinstance(event, Finished)]
    assert [event.segment for event in events if isinstance(event, SegmentFinished)] == [*done.transcript.segments]
    return done.transcript


class Deaf(Pitches):
    """A model whose device fails."""

    def embed(self, clips: np.ndarray) -> np.ndarray:
        raise MemoryError("no memory")


CHANGE = np.concatenate([tone(250, 6), tone(950, 6)])
WORDS = segment(0, 12, "one two three four", (0, 1), (2, 5), (6.2, 7), (9, 11))


def test_a_segment_is_cut_where_the_speaker_changes() -> None:
    found = transcript_of(told_apart(CHANGE, [WORDS]))
    assert [(part.speaker, part.text) for part in found.segments] == [
        ("Speaker 1", "one two"),
        ("Speaker 2", "three four"),
    ]
    assert [part.end_s for part in found.segments] == [pytest.approx(5.6), 12]
    assert found.segments[1].start_s == found.segments[0].end_s
    assert [word.speaker for part in found.segments for word in part.words] == ["Speaker 1"] * 2 + [
        "Speaker 2"
    ] * 2
    assert found.text == WORDS.text
    assert found.ledger.transcribed_s == 12
    assert sum(part.tokens for part in found.segments) == WORDS.tokens
    assert found.speakers_by == "pitches"
    assert COARSE not in found.warnings


def test_without_words_a_segment_has_its_main_speaker() -> None:
    segments = [segment(0, 5, "one two"), segment(5, 12, "three four")]
    found = transcript_of(told_apart(CHANGE, segments))
    assert [(part.speaker, part.text) for part in found.segments] == [
        ("Speaker 1", "one two"),
        ("Speaker 2", "three four"),
    ]
    assert COARSE in found.warnings


def test_names_in_order_of_appearance() -> None:
    options = dataclasses.replace(AUTO, speaker_names=("host",))
    found = transcript_of(told_apart(CHANGE, [WORDS], options))
    assert [part.speaker for part in found.segments] == ["host", "Speaker 2"]


def test_known_speakers() -> None:
    """They have their names; the others get the names that are given, or numbers, but none of theirs."""

    def speakers(names: tuple[str, ...], *known: str) -> list[str | None]:
        voices = np.concatenate([Pitches().embed(tone(hertz, 1.5)[None]) for hertz in (950, 2000)])
        people = KnownSpeakers(known, voices[: len(known)])
        options = dataclasses.replace(AUTO, speaker_names=names)
        return [part.speaker for part in transcript_of(told_apart(CHANGE, [WORDS], options, 0, people)).segments]

    assert speakers((), "Bo", "Cy") == ["Speaker 1", "Bo"]
    assert speakers(("host",), "Bo") == ["host", "Bo"]
    assert speakers(("Bo", "guest"), "Bo") == ["guest", "Bo"]
    assert speakers((), "Speaker 1") == ["Speaker 2", "Speaker 1"]


def test_embeddings_on_request() -> None:
    assert transcript_of(told_apart(CHANGE, [WORDS])).speaker_embeddings is None
    options = dataclasses.replace(AUTO, speaker_embeddings=True, speaker_names=("host",))
    found = transcript_of(told_apart(CHANGE, [WORDS], options)).speaker_embeddings
    assert found is not None
    assert list(found) == ["host", "Speaker 2"]
    assert all(np.linalg.norm(each) == pytest.approx(1) for each in found.values())
    assert [np.argmax(each) for each in found.values()] == [2, 9]  # of 100 Hz each
    same = dataclasses.replace(options, speaker_names=("host", "host"))
    both = transcript_of(told_apart(CHANGE, [WORDS], same)).speaker_embeddings
    assert both is not None
    assert np.flatnonzero(both["host"]).tolist() == [2, 9]


def test_funasrs_method() -> None:
    """With fewer than 20 windows, there is one speaker."""
    pytest.importorskip("sklearn")
    options = dataclasses.replace(AUTO, speaker_method="funasr")
    assert {part.speaker for part in transcript_of(told_apart(CHANGE, [WORDS], options)).segments} == {"Speaker 1"}
    draw = np.random.default_rng(0)
    talk = np.concatenate([tone(hertz, 6) for hertz in (250, 950) * 4])
    talk += draw.normal(0, 0.01, len(talk)).astype(np.float32)
    found = transcript_of(told_apart(talk, [segment(6 * k, 6 * k + 6, "a") for k in range(8)], options))
    assert [part.speaker for part in found.segments] == ["Speaker 1", "Speaker 2"] * 4


def test_a_given_number() -> None:
    options = dataclasses.replace(AUTO, speakers=(1, 1))
    found = transcript_of(told_apart(CHANGE, [WORDS], options))
    assert [(part.speaker, part.text) for part in found.segments] == [("Speaker 1", WORDS.text)]


def test_a_second_attempt_replaces_the_first() -> None:
    """The embeddings of a segment that is decoded again in two parts count once."""
    voices, audio = Voices(Pitches()), AudioSegment(0, CHANGE, np.ones(round(12 * 16000 / 512)))
    parts = audio.halves()
    assert parts
    for each in (audio, *parts):
        voices.segment(SegmentRequest(3, each, first=True), WORDS)
    assert [span for span, _, _ in voices.take(3)] == [(part.start_s, part.end_s) for part in parts]
    assert voices.take(3) == []


def test_a_failed_recording_keeps_its_segments() -> None:
    voices = Voices(Pitches())
    stages = Stages([lambda: Speakers(voices, AUTO)])
    error = Failed(0, AudioError("no", code="audio-damaged"))
    held = SegmentFinished(0, WORDS)
    assert list(stages(held)) == []
    assert list(stages(error)) == [held, error]


def test_what_belongs_to_the_whole_segment_stays_with_the_first_part() -> None:
    scores = tuple(Score(text, 0.5) for text in ("one", " two", " three", " fo", "ur"))
    whole = dataclasses.replace(WORDS, thinking="hm", ctc_text="one", scores=scores)
    first, second = cut(whole, [Turn(0, 5.5, 0), Turn(5.5, 12, 1)])
    assert (first.thinking, first.ctc_text) == ("hm", "one")
    assert (second.thinking, second.ctc_text) == ("", None)
    assert first.scores + second.scores == scores
    assert "".join(score.text for score in first.scores) == first.text


def noisy(rate_hz: int) -> np.ndarray:
    """Return 4 s at 16 kHz, of which the upper frequencies are missing at 8 kHz."""
    noise = np.random.default_rng(0).normal(0, 0.05, 4 * rate_hz)
    return soxr.resample(noise, rate_hz, RATE_HZ).astype(np.float32)


def hum(samples: np.ndarray, level: float) -> np.ndarray:
    """Return samples with a constant and a hum, as a bad microphone adds them."""
    return samples + level + level * np.sin(2 * np.pi * 50.15 * np.arange(len(samples)) / RATE_HZ + 1)


@pytest.mark.parametrize("level", [0, 0.3])
@pytest.mark.parametrize(("rate_hz", "margin"), [(8000, TELEPHONE_MARGIN), (16000, 0.0)])
def test_telephone_sound(rate_hz: int, margin: float, level: float) -> None:
    """A quantized recording at 8 kHz is recognised; one of 16 kHz is not, even if a quiet part sounds like it."""
    voice = 0.2 * noisy(8000) + 0.01 * noisy(rate_hz)  # a thousandth of it is above 4 kHz, as of speech
    voices, sound = Voices(Pitches()), np.round(hum(voice, level) * 32767) / 32768
    for start, samples in ((0, sound), (len(sound), 0.3 * noisy(8000))):
        audio = AudioSegment(start, samples.astype(np.float32), np.ones(1))
        voices.segment(SegmentRequest(5, audio, first=True), WORDS)
    assert voices.threshold(5) == pytest.approx(SPEAKER_THRESHOLD - margin)
    assert voices.threshold(5) == SPEAKER_THRESHOLD


def test_a_threshold_that_is_stated_is_not_changed() -> None:
    """Two voices at a distance of 0.71 are two only with the threshold for telephone sound."""

    class Alike(Pitches):
        def embed(self, clips: np.ndarray) -> np.ndarray:
            means = super().embed(clips)
            return means + np.eye(len(means[0]), dtype=np.float32)[0] * 0.64

    sound = soxr.resample(soxr.resample(CHANGE, RATE_HZ, 8000), 8000, RATE_HZ).astype(np.float32)
    for stated, count in ((None, 2), (SPEAKER_THRESHOLD, 1), (SPEAKER_THRESHOLD - TELEPHONE_MARGIN, 2)):
        options = dataclasses.replace(AUTO, speaker_threshold=stated)
        found = transcript_of(told_apart(sound, [WORDS], options, model=Alike()))
        assert len({part.speaker for part in found.segments}) == count


def test_without_voices_nothing_changes() -> None:
    assert cut(WORDS, []) == [WORDS]


def test_formats() -> None:
    options = dataclasses.replace(AUTO, speaker_names=("A<b", "*C"))
    found = transcript_of(told_apart(CHANGE, [WORDS], options))
    assert WRITERS["txt"](found) == "A<b: one two\n*C: three four\n"
    assert WRITERS["srt"](found).splitlines()[2] == "[A<b] one two"
    assert "<v A&lt;b>one two" in WRITERS["vtt"](found)
    assert WRITERS["tsv"](found).splitlines()[:2] == ["start\tend\tspeaker\ttext", "0\t5600\tA<b\tone two"]
    assert "**\\*C:** three four" in WRITERS["md"](found)
    assert '"speaker": "*C"' in WRITERS["json"](found)
    assert WRITERS["tsv"](dataclasses.replace(found, speakers_by=None)).startswith("start\tend\ttext\n")


@pytest.mark.parametrize(
    ("text", "wanted"), [("auto", (1, None)), ("none", None), ("3", (3, 3)), ("2-4", (2, 4)), ("1-1", (1, 1))]
)
def test_numbers_of_speakers(text: str, wanted: tuple[int, int | None] | None) -> None:
    assert TranscribeOptions(speakers=parse_speakers(text)).speakers == wanted


@pytest.mark.parametrize("text", ["", "0", "4-2", "2-", "-3", "two", "1.5", "²"])
def test_wrong_numbers_of_speakers(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        TranscribeOptions(speakers=parse_speakers(text))
    assert caught.value.code == "option-value"


@pytest.mark.parametrize(
    "changes",
    [
        {"speaker_threshold": 0}, {"speaker_threshold": 2}, {"vad": False}, {"speaker_method": "best"},
        {"speaker_method": "funasr", "speakers": (2, 4)}, {"speaker_method": "funasr", "speakers": (2, None)},
        {"speaker_method": "funasr", "speaker_threshold": SPEAKER_THRESHOLD},
    ],
)  # fmt: skip
def test_options_that_cannot_work(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        dataclasses.replace(AUTO, **changes)


def test_a_failure_costs_the_speakers_not_the_text() -> None:
    found = transcript_of(told_apart(CHANGE, [WORDS], model=Deaf()))
    assert found.segments == (WORDS,)
    assert (found.complete, found.failed_stages, found.speakers_by) == (False, (Pitches().name,), None)
    assert "no memory" in found.warnings[0]
