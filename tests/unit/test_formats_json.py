"""JSON: everything can be read back, numbers have six decimals, and the schema describes it."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from jsonschema import Draft202012Validator
from support.transcripts import folded, segment, spoken, transcript, transcripts, worded

import funasr_cli
from funasr_cli.formats import as_dict, as_json, as_json_line
from funasr_cli.options import Timestamps
from funasr_cli.subtitles import Sentence, sentences_of
from funasr_cli.transcript import Ledger, Segment, TimedText, Timings, Transcript, Translation, Word

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/transcript.schema.json").read_text(encoding="utf-8"))
RULES = settings(max_examples=300, deadline=None)


def test_numbers_have_no_rounding_noise() -> None:
    """An example of such noise is 2.4585000000000004."""
    text = as_json(transcript(segment(0.1 + 0.2, 2.4585000000000004, "a"), duration_s=3.0))
    assert '"start_s": 0.3,' in text
    assert '"end_s": 2.4585,' in text


@RULES
@given(transcripts(divided=True) | worded())
def test_json_round_trip(original: Transcript) -> None:
    rows = [
        {
            **row, "state": part.state, "sentences": list(map(dataclasses.asdict, sentences_of(part))),
            **{name: list(row[name]) for name in ("scores", "words", "tags", "pieces")},
        }
        for part, row in zip(original.segments, map(dataclasses.asdict, original.segments), strict=True)
    ]  # fmt: skip
    expected = {
        **dataclasses.asdict(original), "segments": rows, "warnings": list(original.warnings),
        "lost": list(map(list, original.lost)), "text": original.text,
        "complete": original.complete, "times": original.times, "ledger": dataclasses.asdict(original.ledger),
    }  # fmt: skip
    expected["timings"]["passes"] = original.timings.decoder_calls
    line = as_json_line(original)
    rounded = json.loads(json.dumps(expected), parse_float=lambda digits: round(float(digits), 6))
    assert json.loads(as_json(original)) == json.loads(line) == rounded
    assert len(line.splitlines()) == 1


@pytest.mark.slow
@RULES
@given(transcripts(divided=True) | worded())
def test_json_follows_its_schema(original: Transcript) -> None:
    Draft202012Validator(SCHEMA).validate(json.loads(as_json(original)))


def test_words_have_times() -> None:
    """Words are omitted if only segment times or no times are requested; in the latter case, sentences are too."""
    part = spoken(1.0, 3.0, "One 2.", (1.2, 1.5), (1.5, 2.46), guessed="2.")
    original = transcript(dataclasses.replace(part, pieces=(TimedText("One 2.", 1.0, 3.0),)), duration_s=3.0)
    sentence = {"text": "One 2.", "start_s": 1.2, "end_s": 2.46, "estimated": True}
    words = [
        {"text": "One", "start_s": 1.2, "end_s": 1.5, "score": 0.9, "estimated": False, "speaker": None},
        {"text": "2.", "start_s": 1.5, "end_s": 2.46, "score": None, "estimated": True, "speaker": None},
    ]
    whole = sentence | {"start_s": 1.0, "end_s": 3.0, "estimated": False}
    for times, measured, kept, sentences in (
        (Timestamps.WORD, "word", words, [sentence]),
        (Timestamps.SEGMENT, "segment", [], [whole]),
        (Timestamps.NONE, "segment", [], []),
    ):
        data = json.loads(as_json(original, times))
        (row,) = data["segments"]
        assert (data["times"], row["words"], row["sentences"]) == (measured, kept, sentences)
        assert len(row["pieces"]) == (times is not Timestamps.NONE)
        assert (row["start_s"], row["end_s"]) == (1.0, 3.0)
        Draft202012Validator(SCHEMA).validate(data)
        assert json.loads(as_json_line(original, times)) == data
    assert as_json(original) == as_json(original, Timestamps.WORD)


def test_sentences_mark_estimated_times() -> None:
    """A segment with a single sentence has measured times; several sentences share its time by their lengths."""
    three = segment(2.0, 5.0, "Two.\n 你好！ Six ox. ")  # 4, 6 and 6 columns wide
    original = transcript(segment(1.0, 2.0, "One."), three, segment(5.0, 7.0, "\n"), duration_s=7.0)
    rows = [row["sentences"] for row in json.loads(as_json(original))["segments"]]
    assert rows == [
        [{"text": "One.", "start_s": 1.0, "end_s": 2.0, "estimated": False}],
        [
            {"text": "Two.", "start_s": 2.0, "end_s": 2.75, "estimated": True},
            {"text": "你好！", "start_s": 2.75, "end_s": 3.875, "estimated": True},
            {"text": "Six ox.", "start_s": 3.875, "end_s": 5.0, "estimated": True},
        ],
        [],
    ]


@RULES
@given(transcripts())
def test_sentences_hold_the_text_and_the_time_of_their_segment(original: Transcript) -> None:
    for part in original.segments:
        sentences = sentences_of(part)
        spelled = "".join(sentence.text for sentence in sentences)
        assert not sentences or spelled.replace(" ", "") == folded(part.text).replace(" ", "")
        times = [time_s for sentence in sentences for time_s in (sentence.start_s, sentence.end_s)]
        assert times == sorted(times)
        assert not times or (times[0], times[-1]) == (part.start_s, part.end_s)
        assert len(sentences) != 1 or not sentences[0].estimated


def test_real_transcripts_follow_the_schema(
    stopping_model: Path, small_model: Path, zh_wav: Path, tmp_path: Path
) -> None:
    """Complete, cut short and silent ones."""
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(16000), 16000)
    stopping, endless = funasr_cli.load(str(stopping_model)), funasr_cli.load(str(small_model))
    original = [
        stopping.transcribe(zh_wav, vad=False, ctc=True),
        endless.transcribe(zh_wav, max_tokens=3, language="zh"),
        stopping.transcribe(silence),
    ]
    assert [(len(one.segments) > 0, one.complete) for one in original] == [
        (True, True),
        (True, False),
        (False, True),
    ]
    for one in original:
        Draft202012Validator(SCHEMA).validate(json.loads(as_json(one)))


@pytest.mark.parametrize(
    ("kind", "more"),
    [(Transcript, {"text", "complete", "times", "ledger"}), (Segment, {"state", "sentences"}),
     (Timings, {"passes"}), *((kind, set()) for kind in (Word, TimedText, Translation, Sentence, Ledger))],
)  # fmt: skip
def test_the_schema_describes_every_field(kind: Any, more: set[str]) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    schema = SCHEMA["$defs"].get(kind.__name__.lower(), SCHEMA)
    fields = {field.name for field in dataclasses.fields(kind)} | more
    assert set(schema["properties"]) == set(schema["required"]) == fields
    assert schema["additionalProperties"] is False
    for field in (schema, *schema["properties"].values()):
        described = SCHEMA["$defs"][field["$ref"].removeprefix("#/$defs/")] if "$ref" in field else field
        assert described["description"].endswith(".")


def test_the_schema_refuses_what_is_not_a_transcript() -> None:
    """Missing fields, extra fields and invalid values are refused."""
    validator = Draft202012Validator(SCHEMA)
    part = dataclasses.replace(
        spoken(0.0, 1.0, "a", (0.2, 0.8)), pieces=(TimedText("a", 0.1, 0.9),), translation=Translation("b", "en")
    )
    good = as_dict(transcript(part, duration_s=1.0)) | {"warnings": []}
    good = json.loads(json.dumps(good))
    assert validator.is_valid(good)
    places = [lambda data: data, lambda data: data["segments"][0], lambda data: data["ledger"],
              lambda data: data["timings"], lambda data: data["segments"][0]["sentences"][0],
              *(lambda data, name=name: data["segments"][0][name][0] for name in ("words", "pieces")),
              lambda data: data["segments"][0]["translation"]]  # fmt: skip
    for place in places:
        for key in [*place(good), "more"]:
            bad = copy.deepcopy(good)
            place(bad)[key] = {}
            assert not validator.is_valid(bad), key
            del place(bad)[key]
            assert validator.is_valid(bad) == (key == "more"), key
    for key, value in [("times", "token"), ("duration_s", -1)]:
        assert not validator.is_valid(good | {key: value})
    good["segments"][0]["tags"] = ["happy", "music"]
    assert validator.is_valid(good)
    good["segments"][0]["tags"] = ["HAPPY"]
    assert not validator.is_valid(good)
