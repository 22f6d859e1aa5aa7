"""From the tokens of a row of Whisper's to its segment: text, words, pieces, translation, doubts."""

from __future__ import annotations

import pytest
from support.whisper_rows import CLIPS, decode, request, writes

from funasr_cli.families.whisper.model import WhisperModel
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.subtitles import pieces_of
from funasr_cli.transcript import MISSING
from funasr_cli.writers import WRITERS


def test_a_segment(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    hello = whisper.vocabulary.encode(" Hello world,  it's 房.")
    writes(whisper, monkeypatch, hello)
    options = TranscribeOptions(word_times=True, confidence=True)
    [segment] = decode(whisper, options, CLIPS[1])
    assert segment.text == "Hello world, it's 房."
    assert (segment.start_s, segment.end_s, segment.stop_reason) == (0.5, 3.0, "eos")
    assert "".join(score.text for score in segment.scores) == segment.text
    assert [word.text for word in segment.words] == ["Hello", "world,", "it's", "房."]
    times = [time_s for word in segment.words for time_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert 0.5 <= times[0] <= times[-1] <= 3.0
    assert segment.tokens == len(hello) + 1
    assert 0 <= segment.no_speech_probability <= 1
    assert segment.language in whisper.capabilities.languages
    [given] = decode(whisper, TranscribeOptions(language="de"), CLIPS[1])
    assert given.language is None
    assert given.words == given.scores == given.pieces == ()


@pytest.mark.parametrize("text", ["Say either/silver and gold", "no <think> me</think> now", "an end/si"])
def test_marks_of_other_models_are_words(
    whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    writes(whisper, monkeypatch, whisper.vocabulary.encode(f" {text}"))
    [segment] = decode(whisper, TranscribeOptions(word_times=True, confidence=True), CLIPS[1])
    assert segment.text == "".join(piece.text for piece in pieces_of(segment)) == text
    assert "".join(score.text for score in segment.scores) == text


def test_pieces(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are within the segment; a last piece with no end time lasts until the end of the segment."""
    one, two = whisper.vocabulary.encode(" One."), whisper.vocabulary.encode(" Two")
    writes(whisper, monkeypatch, ["0.00", *one, "0.80", "1.20", *two])
    [segment] = decode(whisper, TranscribeOptions(segment_times=True), CLIPS[1])
    assert [(piece.text, piece.start_s, piece.end_s) for piece in segment.pieces] == [
        ("One.", 0.5, pytest.approx(1.3)),
        ("Two", pytest.approx(1.7), 3.0),
    ]
    assert segment.text == "One. Two"
    writes(whisper, monkeypatch, ["0.00", *one, "29.00"])
    assert decode(whisper, TranscribeOptions(segment_times=True), CLIPS[1])[0].pieces[0].end_s == 3.0


def test_words_that_were_left_out_at_the_end(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the times end long before the segment, here of 2.5 s, its halves are decoded, which cover more of it."""
    one = whisper.vocabulary.encode(" One.")
    for end, times_s in (("1.40", [(0.0, 1.4)]), ("0.80", [(0.0, 0.8), (1.25, 2.05)])):
        writes(whisper, monkeypatch, ["0.00", *one, end])
        transcript = Recognizer(whisper).transcribe(
            CLIPS[1], sample_rate_hz=16000, vad=False, language="de", segment_times=True
        )
        pieces = [piece for segment in transcript.segments for piece in segment.pieces]
        assert [piece.text for piece in pieces] == ["One."] * len(times_s)
        found_s = [time_s for piece in pieces for time_s in (piece.start_s, piece.end_s)]
        assert found_s == pytest.approx([time_s for pair in times_s for time_s in pair], abs=0.8)


ROUNDS = [each for step in range(20, 60) for each in (f"{step / 50:.2f}", " no")]
LOOPS = {"tokens": ["0.00", " One.", "0.20", "0.20", *[" no"] * 60], "rounds": ["0.00", " One.", "0.20", *ROUNDS]}


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("translate", [False, True])
@pytest.mark.parametrize("kind", ["segment_times", "word_times"])
def test_a_loop_is_divided_as_far_as_its_text_goes(
    whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch, loop: str, translate: bool, kind: str
) -> None:
    """Words and pieces are parts of the text, which lacks most of what the whisper wrote, also in files."""
    looping = [
        token for each in LOOPS[loop] for token in (whisper.vocabulary.encode(each) if each[0] == " " else [each])
    ]
    writes(whisper, monkeypatch, looping, *[["0.02", *looping]] * translate)
    options = TranscribeOptions(language="de", translate=translate, vad=False, **{kind: True})
    [segment] = decode(whisper, options, CLIPS[1])
    assert (segment.text, segment.stop_reason) == ("One. no", "loop")
    parts = segment.words if options.word_times else segment.pieces
    assert [part.text for part in parts] == ["One.", "no"]
    assert 0.5 <= parts[0].start_s <= parts[0].end_s <= parts[1].start_s <= parts[1].end_s <= 3.0
    if translate:
        assert segment.translation.text == "One. no"
        pieces = [piece.text for piece in segment.translation.pieces]
        assert pieces == ([] if options.word_times else ["One.", "no"])
    transcript = Recognizer(whisper).transcribe(CLIPS[1], options, sample_rate_hz=16000)
    for each in (transcript, transcript.translated)[: 1 + translate]:
        for name in ("srt", "json"):
            assert "One." in WRITERS[name](each)


def test_a_time_inside_a_character(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The character belongs to the piece that it begins in."""
    first, *rest = next(ids for ids in map(whisper.vocabulary.encode, "龘鬱䯂") if len(ids) >= 2)
    writes(whisper, monkeypatch, ["0.00", first, "0.80", "0.80", *rest, *whisper.vocabulary.encode(" b"), "1.20"])
    [segment] = decode(whisper, TranscribeOptions(segment_times=True), CLIPS[1])
    assert [piece.text for piece in segment.pieces] == segment.text.split()
    assert len(segment.pieces) == 2
    assert "".join(piece.text for piece in pieces_of(segment)) == segment.text


def test_translations(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    hallo, hello = whisper.vocabulary.encode(" Hallo"), whisper.vocabulary.encode(" Hello there")
    writes(whisper, monkeypatch, hallo, hello)
    [segment] = decode(whisper, TranscribeOptions(language="de", translate=True), CLIPS[0])
    assert (segment.text, segment.translation.text, segment.translation.language) == ("Hallo", "Hello there", "en")
    assert segment.tokens == len(hallo) + len(hello) + 2
    assert segment.translation.mean_logprob == pytest.approx(0.0, abs=1e-3)
    assert (segment.translated.text, segment.translated.language) == ("Hello there", "en")
    [english] = decode(whisper, TranscribeOptions(language="en", translate=True), CLIPS[0])
    assert english.translation.text == english.text == "Hallo"
    assert decode(whisper, TranscribeOptions(language="de"), CLIPS[0])[0].translation is None


def test_a_translation_that_is_empty(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as missing, and the spoken text does not stand in for it."""
    writes(whisper, monkeypatch, whisper.vocabulary.encode(" Hallo"), [])
    [segment] = decode(whisper, TranscribeOptions(language="de", translate=True), CLIPS[0])
    assert (segment.text, segment.translation.text, segment.translation.stop_reason) == ("Hallo", "", "empty")
    assert segment.complete
    assert segment.untranslated
    assert segment.translated.text == MISSING


def test_pieces_of_a_translation(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have times of their own, and are the segment's if the translation takes its place."""
    spoken, one, two = (whisper.vocabulary.encode(text) for text in (" Eins zwei", " One.", " Two"))
    writes(whisper, monkeypatch, ["0.00", *spoken, "1.80"], ["0.02", *one, "0.80", "1.20", *two])
    [segment] = decode(whisper, TranscribeOptions(language="de", segment_times=True, translate=True), CLIPS[1])
    assert [piece.text for piece in segment.pieces] == ["Eins zwei"]
    times = [(piece.text, piece.start_s, piece.end_s) for piece in segment.translation.pieces]
    assert times == [("One.", pytest.approx(0.52), pytest.approx(1.3)), ("Two", pytest.approx(1.7), 3.0)]
    assert segment.translated.pieces == segment.translation.pieces
    assert not segment.translated.translated.words


def test_a_translation_that_does_not_end(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its segment is decoded again in parts. The text itself is complete."""
    writes(whisper, monkeypatch, whisper.vocabulary.encode(" Hallo"), whisper.vocabulary.encode(" no") * 50)
    session = whisper.session(TranscribeOptions(language="de", translate=True))
    session.add([request(CLIPS[0])])
    updates = [update for _ in range(60) for update in session.step()]
    hypothesis = updates[-1].hypothesis
    assert (hypothesis.segment.stop_reason, hypothesis.retry_may_help) == ("eos", True)
    assert hypothesis.segment.translation.stop_reason == "loop"


def test_text_of_silence(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is dropped only if it is improbable as well."""
    writes(whisper, monkeypatch, whisper.vocabulary.encode(" Thank you."))
    listen = whisper.listen
    monkeypatch.setattr(whisper, "listen", lambda *args: [each._replace(no_speech=0.7) for each in listen(*args)])
    assert decode(whisper, TranscribeOptions(), CLIPS[0])[0].text == "Thank you."
    monkeypatch.setattr("funasr_cli.families.windows.UNLIKELY", 1.0)
    [segment] = decode(whisper, TranscribeOptions(word_times=True, translate=True), CLIPS[0])
    assert (segment.text, segment.words, segment.language, segment.doubtful) == ("", (), None, False)
    assert segment.translation.text == ""


def test_no_text_of_speech_is_doubtful(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    writes(whisper, monkeypatch, ["endoftext"])
    listen = whisper.listen
    monkeypatch.setattr(whisper, "listen", lambda *args: [each._replace(no_speech=0.1) for each in listen(*args)])
    assert [segment.doubtful for segment in decode(whisper, TranscribeOptions(), CLIPS[0], CLIPS[3])] == [
        True,
        False,
    ]


def test_a_text_that_repeats_itself_in_long_rounds(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few rounds for a loop of tokens, but it compresses too well."""
    sentence = " It was the best of times, it was the worst of times, and the town did not know which it was."
    writes(whisper, monkeypatch, whisper.vocabulary.encode(sentence * 3))
    session = whisper.session(TranscribeOptions())
    session.add([request(CLIPS[2])])
    hypotheses = [update.hypothesis for _ in range(80) for update in session.step() if update.hypothesis]
    assert (hypotheses[0].segment.stop_reason, hypotheses[0].retry_may_help) == ("loop", True)


@pytest.mark.slow
def test_the_longest_text(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has 224 tokens, fewer after a long prompt, and is decoded again in parts."""
    numbers = [
        token for number in range(1000, 1400) for token in whisper.vocabulary.encode(f" {number * 7919 % 9973}")
    ]
    writes(whisper, monkeypatch, numbers)
    for options, most in (
        (TranscribeOptions(), 224), (TranscribeOptions(prev_text="word " * 300), 448 - 228),
        (TranscribeOptions(max_tokens=300), 224), (TranscribeOptions(exact_tokens=300), 224),
        (TranscribeOptions(max_tokens=5), 5),
    ):  # fmt: skip
        session = whisper.session(options)
        session.add([request(CLIPS[0])])
        hypotheses = [update.hypothesis for _ in range(230) for update in session.step() if update.hypothesis]
        assert hypotheses[0].segment.tokens == most
        assert hypotheses[0].segment.stop_reason == "budget"
        assert hypotheses[0].retry_may_help == (options.max_tokens is None and options.exact_tokens is None)


def test_incomplete_characters_are_held_back(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = next(ids for ids in map(whisper.vocabulary.encode, "房龘鬱䯂") if len(ids) >= 2)
    writes(whisper, monkeypatch, ids)
    session = whisper.session(TranscribeOptions())
    session.add([request(CLIPS[0])])
    texts = [update.text for _ in range(len(ids) + 1) for update in session.step() if update.text is not None]
    assert texts == [] or "\N{REPLACEMENT CHARACTER}" not in "".join(texts)
