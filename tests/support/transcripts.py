"""Transcripts with the characters and times that are difficult for formats."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from typing import Any

from hypothesis import strategies as st

from funasr_cli.tags import EMOTIONS, SOUNDS
from funasr_cli.transcript import Score, Segment, TimedText, Timings, Transcript, Translation, Word

TIMINGS = Timings(0.1, 0.05, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0, 5, decoder_calls=4)

WORDS = [
    "hello", "Well,", "yes.", "Mr.", "O.K.!", "well-known", "1", "2024", "3.14", "00:00:01,000", "00:01.500",
    "https://example.org/a_b", "NOTE", "STYLE", "REGION", "WEBVTT", "=1+1",
    "世界", "你好，", "今天。", "“你好”", "（一）", "「カタカナ」", "ちょっと", "한국어", "전각", "ＡＢＣ",
    "مرحبا", "שלום", "हिन्दी", "ภาษาไทย", "e\u0301te\u0301", "\u1112\u1161\u11ab",
    "👩\u200d👩\u200d👧", "👍🏽", "🇩🇪", "❤\ufe0f", "1\ufe0f\u20e3", "🎉",
    "-->", "--->", "->", "&", "&amp;", "&lt;", "<i>", "</i>", "<", ">", "<v Bob>", "<00:01.000>", "<!--",
    "[bold]", "[a](b)", "{\\an8}", "{b}", "\\", "\\n", "\\N", "\\u0041", "\\\\t", "*", "_", "`", "#", "~~", "|",
    "- ", "1. ", '"', "'", "\t", "\n", "\r\n", "\r", "\n\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029",
    "\x00", "\x07", "\x1b[31m", "\x7f", "\x9b", "\udcff", "\udc80", "\ufeff", "\ufffe", "\u200b", "\u200f",
    "\u202e", "\u00ad", " ", "  ", "\u3000", "\u00a0", "x" * 100, "字" * 60, "-" * 50, "!" * 45, "👩\u200d👧" * 30,
]  # fmt: skip

pieces_of_text = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
texts = st.lists(st.tuples(pieces_of_text, st.sampled_from(["", " "])), max_size=30).map(
    lambda parts: "".join(map("".join, parts))
)
seconds = st.sampled_from([0.0, 0.0004, 0.0006, 0.05, 0.3, 2.5, 29.9996, 3599.9996]) | st.floats(0, 100)
ODD_NAMES = ["a.wav", "x/[b]_*c*.flac", "&lt;.wav", "a\udcff.wav", "录\u2028音.wav", "a\nb.wav", "", "#1 # .wav"]


tags = st.lists(st.sampled_from([*EMOTIONS, *SOUNDS]), max_size=4, unique=True).map(tuple)
heard_beside = st.fixed_dictionaries(  # optional fields of a segment that few models fill
    {
        "language": st.sampled_from([None, "zh", "yue"]),
        "tags": tags,
        "no_speech_probability": st.none() | st.floats(0, 1),
        "translation": st.none() | st.builds(Translation, texts, st.just("en")),
    }
)


@st.composite
def _pieces(draw: st.DrawFn, text: str, start_s: float, length_s: float) -> tuple[TimedText, ...]:
    """Return the parts between spaces as timed pieces, or nothing."""
    runs = re.findall(r"\S+", text) if draw(st.booleans()) else []
    shares = sorted(draw(st.lists(st.floats(0, 1), min_size=2 * len(runs), max_size=2 * len(runs))))
    bounds = [start_s + share * length_s for share in shares]
    return tuple(map(TimedText, runs, bounds[::2], bounds[1::2]))


@st.composite
def transcripts(draw: st.DrawFn, texts: st.SearchStrategy[str] = texts, *, divided: bool = False) -> Transcript:
    """Draw ordered segments. They may touch, have no length, or be divided into timed parts, but not overlap."""
    start_s = draw(st.just(0.0) | seconds)
    segments, position_s = [], start_s
    for text, gap_s, length_s in draw(st.lists(st.tuples(texts, seconds, seconds), max_size=6)):
        from_s, position_s = position_s + gap_s, position_s + gap_s + length_s
        stop_reason = draw(st.sampled_from(["eos", "budget", "loop", "nonfinite"]))
        scores = draw(st.sampled_from([(), tuple(Score(char, 1 / 3) for char in text)]))
        heard = {**draw(heard_beside), "pieces": draw(_pieces(text, from_s, length_s)) if divided else ()}
        segments.append(
            dataclasses.replace(segment(from_s, position_s, text, stop_reason), scores=scores, **heard)
        )
    name, problem = draw(st.sampled_from(ODD_NAMES)), draw(texts)
    return transcript(
        *segments, duration_s=position_s - start_s + draw(seconds), source=name, fault=problem or None,
        warnings=(problem,), start_s=start_s,
    )  # fmt: skip


@st.composite
def worded(draw: st.DrawFn, texts: st.SearchStrategy[str] = texts) -> Transcript:
    """Draw segments that mostly have words, with or without white space in between. Words may have no length."""
    original = draw(transcripts(texts))
    return dataclasses.replace(original, segments=tuple(draw(_with_words(part)) for part in original.segments))


@st.composite
def _with_words(draw: st.DrawFn, part: Segment) -> Segment:
    kind = draw(st.sampled_from([None, r"\S", r"\S{1,3}", r"\S+", r"\S+(?:\s+\S+)?"]))
    runs = re.findall(kind, part.text) if kind else []
    if not runs:
        return part
    shares = draw(st.lists(st.floats(0, 1), min_size=2 * len(runs), max_size=2 * len(runs)).map(sorted))
    bounds = [part.start_s + share * part.duration_s for share in shares]
    estimated = draw(st.lists(st.booleans(), min_size=len(runs), max_size=len(runs)))
    words = [
        Word(run, start_s, end_s, None if guessed else 0.5, guessed)
        for run, start_s, end_s, guessed in zip(runs, bounds[::2], bounds[1::2], estimated, strict=True)
    ]
    return dataclasses.replace(part, words=tuple(words))


def spoken(start_s: float, end_s: float, text: str, *times: tuple[float, float], guessed: str = "") -> Segment:
    """Return a segment with these times for its space-separated words. Words in `guessed` are estimated."""
    words = tuple(
        Word(word, *ends, None if word in guessed.split() else 0.9, word in guessed.split())
        for word, ends in zip(text.split(), times, strict=True)
    )
    return dataclasses.replace(segment(start_s, end_s, text), words=words)


def segment(start_s: float, end_s: float, text: str, stop_reason: str = "eos") -> Segment:
    return Segment(start_s, end_s, text, "", stop_reason, 0, 5, -0.5)


def transcript(*segments: Segment, duration_s: float, source: str = "a.wav", **more: Any) -> Transcript:
    return Transcript(source, duration_s, "nano", None, segments, TIMINGS, **more)


def folded(text: str) -> str:
    """Return what a readable format keeps of a text: no control characters or lone surrogates, single spaces."""
    kept = (char for char in text if char.isspace() or (unicodedata.category(char) != "Cc" and char != "\ufeff"))
    return " ".join("".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in kept).split())
