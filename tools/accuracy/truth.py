"""Compare the transcript of a long recording with its true texts and times."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from funasr_cli.benchmarks.scoring import ErrorRate
from funasr_cli.formats import as_srt
from funasr_cli.transcript import Transcript
from tools.accuracy.joined import Coverage, Span, coverage, shared_s, total_s
from tools.accuracy.texts import edits, matches, rate, units_in

IN_PLACE_S = 0.3  # how far from its phrase a subtitle may be shown


@dataclass(frozen=True)
class TruePhrase:
    """A phrase of a recording, with its span and that of the sound within it, in seconds."""

    text: str
    span_s: Span
    sound_s: Span


@dataclass(frozen=True)
class Findings:
    """How a transcript compares with the truth.

    Attributes:
        errors: of words, over the whole text.
        edge_deletions: words that are missing where a segment begins or ends.
        segments: number of segments.
        mean_segment_s: their mean length.
        coverage: of the phrases' sound by segments.
        speech_share: speech in the ledger, relative to the phrases' sound.
        unaccounted_s: difference between the ledger's total and the recording's length.
        word_starts_s: error of the start of each phrase's first word, positive for late; empty without word times.
        word_ends_s: the same for the end of each phrase's last word.
        cues: number of subtitles.
        cue_words_in_place: share of the correct words that are shown at most `IN_PLACE_S` before or after the
            sound of their phrase.
        cue_starts_s: error of the start of subtitles that begin with the first word of a phrase.
    """

    errors: ErrorRate
    edge_deletions: int
    segments: int
    mean_segment_s: float
    coverage: Coverage
    speech_share: float
    unaccounted_s: float
    word_starts_s: list[float]
    word_ends_s: list[float]
    cues: int
    cue_words_in_place: float
    cue_starts_s: list[float]


def read_truth(path: Path) -> list[TruePhrase]:
    """Read the phrases of a recording of `make real-data` from the `.jsonl` next to it."""
    rows = map(json.loads, path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines())
    return [
        TruePhrase(row["text"], (row["start_s"], row["end_s"]), (row["sound_start_s"], row["sound_end_s"]))
        for row in rows
    ]


def compare(transcript: Transcript, phrases: Sequence[TruePhrase], language: str) -> Findings:
    """Compare a transcript with the truth."""
    segments = transcript.segments
    sounds = [phrase.sound_s for phrase in phrases]
    spans = [(segment.start_s, segment.end_s) for segment in segments]
    wanted, _ = _tagged((phrase.text for phrase in phrases), language)
    found, owners = _tagged((segment.text for segment in segments), language)
    starts, ends = _word_errors(transcript, phrases, language)
    cues, in_place, cue_starts = _subtitles(transcript, phrases, language)
    ledger = transcript.ledger
    return Findings(
        errors=rate([(wanted, found)]),
        edge_deletions=_edge_deletions(wanted, found, owners),
        segments=len(segments),
        mean_segment_s=total_s(spans) / max(1, len(spans)),
        coverage=coverage(spans, sounds),
        speech_share=ledger.speech_s / total_s(sounds),
        unaccounted_s=ledger.speech_s + ledger.silence_s - transcript.duration_s,
        word_starts_s=starts,
        word_ends_s=ends,
        cues=cues,
        cue_words_in_place=in_place,
        cue_starts_s=cue_starts,
    )


def _tagged(texts: Iterable[str], language: str) -> tuple[list[str], list[int]]:
    """Return the units of several texts, and for each unit the number of its text."""
    pairs = [(unit, number) for number, text in enumerate(texts) for unit in units_in(text, language)]
    return [unit for unit, _ in pairs], [number for _, number in pairs]


def _edge_deletions(wanted: Sequence[str], found: Sequence[str], owners: Sequence[int]) -> int:
    """Count deleted words whose neighbours in the text are in different segments, or that have only one."""
    places = [edit.found for edit in edits(wanted, found) if edit.kind == "delete"]
    return sum(place in (0, len(owners)) or owners[place - 1] != owners[place] for place in places)


def _by_word(phrases: Sequence[TruePhrase], language: str) -> tuple[list[str], list[int]]:
    """Return the units of all phrases, normalised word by word as those of timed words, and their phrases."""
    units, owners = [], []
    for number, phrase in enumerate(phrases):
        own, _ = _tagged(phrase.text.split(), language)
        units += own
        owners += [number] * len(own)
    return units, owners


def _word_errors(
    transcript: Transcript, phrases: Sequence[TruePhrase], language: str
) -> tuple[list[float], list[float]]:
    words = [word for segment in transcript.segments for word in segment.words]
    wanted, owners = _by_word(phrases, language)
    found, places = _tagged((word.text for word in words), language)
    starts, ends = [], []
    for true, place in matches(wanted, found):
        sound, word = phrases[owners[true]].sound_s, words[places[place]]
        if true == 0 or owners[true - 1] != owners[true]:
            starts.append(word.start_s - sound[0])
        if true == len(owners) - 1 or owners[true + 1] != owners[true]:
            ends.append(word.end_s - sound[1])
    return starts, ends


def _subtitles(
    transcript: Transcript, phrases: Sequence[TruePhrase], language: str
) -> tuple[int, float, list[float]]:
    import pysubs2

    cues = pysubs2.SSAFile.from_string(as_srt(transcript), format_="srt")
    spans = [(cue.start / 1000, cue.end / 1000) for cue in cues]
    wanted, owners = _by_word(phrases, language)
    words = [(word, number) for number, cue in enumerate(cues) for word in cue.plaintext.split()]
    found, places = _tagged((word for word, _ in words), language)
    cue_of = [words[place][1] for place in places]
    pairs = matches(wanted, found)
    near = [(start_s - IN_PLACE_S, end_s + IN_PLACE_S) for start_s, end_s in (p.sound_s for p in phrases)]
    overlaps = shared_s(spans, near) > 0  # (cues, phrases)
    in_place = sum(bool(overlaps[cue_of[place], owners[true]]) for true, place in pairs)
    starts = [
        spans[cue_of[place]][0] - phrases[owners[true]].sound_s[0]
        for true, place in pairs
        if (true == 0 or owners[true - 1] != owners[true]) and (place == 0 or cue_of[place - 1] != cue_of[place])
    ]
    return len(cues), in_place / max(1, len(pairs)), starts


def quantiles_ms(errors_s: Sequence[float]) -> str:
    """Return the median of the absolute errors, and what 95 % of them are within, in milliseconds."""
    if not errors_s:
        return "-"
    median, most = np.quantile(np.abs(errors_s), [0.5, 0.95]) * 1000
    return f"{median:.0f} / {most:.0f}"
