"""Transcripts of long recordings are compared with the truth correctly, and word errors are Whisper's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from funasr_cli.transcript import Segment, Timings, Transcript, Word
from tools.accuracy.texts import edits, matches, rate, text_rates, units_in
from tools.accuracy.truth import TruePhrase, compare, read_truth

pytest.importorskip("whisper_normalizer", reason="`make install` adds whisper-normalizer")

PHRASES = [
    TruePhrase("Press the pound key.", (0.0, 3.0), (0.5, 2.5)),
    TruePhrase("Goodbye...", (4.0, 6.0), (4.5, 5.5)),
    TruePhrase("You have twenty two messages.", (7.0, 10.0), (7.25, 9.75)),
]


def segment(start_s: float, end_s: float, text: str, step_s: float | None = None) -> Segment:
    """Return a segment, with a word every `step_s` if given."""
    texts = text.split() if step_s else []
    words = tuple(
        Word(word, start_s + n * (step_s or 0), start_s + (n + 1) * (step_s or 0), 1.0)
        for n, word in enumerate(texts)
    )
    return Segment(start_s, end_s, text, "", "eos", 0, 1, -0.1, words=words)


def transcript(*segments: Segment, duration_s: float = 11.0) -> Transcript:
    return Transcript("a", duration_s, "m", "en", segments, Timings(0, 0, 0, 0, 0, 0, 0, 0, 0))


def test_units_are_those_of_whispers_normaliser() -> None:
    assert units_in("You've TWENTY-two e-mails, colour!", "en") == ["you", "have", "22", "e", "mails", "color"]
    assert units_in("exactly...", "en") == ["exactly"]
    assert units_in("¿Qué número?", "es") == ["que", "numero"]
    assert units_in("Größe", "de") == ["größe"]
    assert units_in("你好，世界", "zh") == ["你", "好", "世", "界"]


def test_rates_count_each_kind_of_error() -> None:
    words, characters = text_rates([("one too many words", "1 to many big words"), ("a b c", "a c")], "en")
    assert (words.substitutions, words.deletions, words.insertions, words.total) == (1, 1, 1, 7)
    assert characters.total == len("onetoomanywords") + len("abc")
    assert rate([("abc", "")]).deletions == 3


def test_edits_and_matches_are_complements() -> None:
    wanted, found = "a b c d e".split(), "z a x c e".split()
    assert [(edit.kind, edit.wanted, edit.found) for edit in edits(wanted, found)] == [
        ("insert", 0, 0),
        ("replace", 1, 2),
        ("delete", 3, 4),
    ]
    assert matches(wanted, found) == [(0, 1), (2, 3), (4, 4)]


def test_a_perfect_transcript() -> None:
    found = compare(
        transcript(
            segment(0.5, 2.5, "Press the pound key.", 0.5),
            segment(4.5, 5.5, "Goodbye.", 1.0),
            segment(7.25, 9.75, "You have 22 messages.", 0.625),
        ),
        PHRASES,
        "en",
    )
    assert (found.errors.edits, found.errors.total, found.edge_deletions) == (0, 9, 0)
    assert (found.segments, found.coverage.precision, found.coverage.recall) == (3, 1, 1)
    assert found.speech_share == pytest.approx(1)
    assert found.unaccounted_s == pytest.approx(0)
    assert found.word_starts_s == pytest.approx([0, 0, 0])
    assert found.word_ends_s == pytest.approx([0, 0, 0])
    assert (found.cues, found.cue_words_in_place) == (3, 1)
    assert found.cue_starts_s == pytest.approx([0, 0, 0], abs=1e-3)


def test_deletions_at_edges_of_segments_and_within() -> None:
    found = compare(
        transcript(
            segment(0.5, 2.5, "the pound key."),  # begins too late
            segment(7.25, 9.75, "You 22 messages."),  # "Goodbye" is between segments, "have" within one
        ),
        PHRASES,
        "en",
    )
    assert (found.errors.deletions, found.edge_deletions) == (3, 2)


def test_late_words_and_subtitles_in_the_wrong_place() -> None:
    found = compare(
        transcript(
            segment(1.0, 3.0, "Press the pound key.", 0.5),
            segment(9.9, 10.9, "Goodbye.", 1.0),  # five seconds late
        ),
        PHRASES[:2],
        "en",
    )
    assert found.word_starts_s == pytest.approx([0.5, 5.4])
    assert found.word_ends_s == pytest.approx([0.5, 5.4])
    assert found.cue_words_in_place == pytest.approx(4 / 5)
    assert found.cue_starts_s == pytest.approx([0.5, 5.4], abs=1e-3)


def test_truth_is_read_from_the_rows(tmp_path: Path) -> None:
    row = {"text": "a", "start_s": 1, "end_s": 4, "sound_start_s": 2, "sound_end_s": 3}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert read_truth(tmp_path / "x.wav") == [TruePhrase("a", (1, 4), (2, 3))]
