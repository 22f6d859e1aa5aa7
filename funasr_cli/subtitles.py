"""Subtitle cues: which text is shown when, and how it is broken into lines. `formats.py` writes the files.

Cues are built from timed pieces of text: words where word times are known, otherwise whole segments. A time within
a piece is interpolated from the share of the piece's text that precedes it.
"""

import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from funasr_cli.characters import columns, one_line
from funasr_cli.errors import UsageError
from funasr_cli.linebreaks import Words
from funasr_cli.transcript import Segment, TimedText, Transcript, Word


@dataclass(frozen=True)
class SubtitleLayout:
    """Layout of subtitles, with its defaults.

    A cue that is too short, or would have to be read too fast, is extended up to the start of the next one.
    """

    max_line_width: int = 42  # columns; Chinese, Japanese and Korean characters and emoji take two
    max_line_count: int = 2  # lines in a cue
    min_duration_s: float = 0.8
    max_columns_per_s: float = 20.0  # reading speed
    highlight_words: bool = False  # repeat the cue for each word that has times, with that word marked

    def __post_init__(self) -> None:
        """Raise a UsageError, naming the allowed values, for a value out of range."""
        for fits, found, wanted in (
            (self.max_line_width >= 2, f"--max-line-width is {self.max_line_width}", "at least 2 columns"),
            (self.max_line_count >= 1, f"--max-line-count is {self.max_line_count}", "at least 1"),
            (0 <= self.min_duration_s <= 60, f"the shortest cue is {self.min_duration_s} s", "0 to 60 s"),
            (1 <= self.max_columns_per_s < math.inf, f"reading speed is {self.max_columns_per_s}", "1 or more"),
        ):
            if not fits:
                raise UsageError(found, f"it must be {wanted}", code="option-value")


DEFAULT_LAYOUT = SubtitleLayout()


@dataclass(frozen=True)
class Sentence:
    """A sentence of a segment, on one line."""

    text: str
    start_s: float
    end_s: float
    estimated: bool = False  # its start or end is estimated, not measured


@dataclass(frozen=True)
class Piece(Sentence):
    """A piece of text with its times. Joined, the pieces of a segment give its text, including spaces."""

    is_word: bool = False  # it can be highlighted while it is spoken
    speaker: str | None = None


@dataclass(frozen=True)
class Cue:
    """A subtitle: one or more lines shown at the same time."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]  # at least one, none of them blank
    estimated: bool  # its start or end is estimated, not measured
    marked: tuple[int, int] | None = None  # start and end, in its text, of the word being spoken
    speaker: str | None = None  # who speaks; not part of its text
    below: tuple[str, ...] = ()  # lines of the translation

    @property
    def text(self) -> str:
        """The lines, joined with line feeds."""
        return "\n".join(self.lines)


def pieces_of(segment: Segment, *, words: bool = True) -> list[Piece]:
    """Return the smallest parts of a segment that have times: words, the model's own pieces, or the whole segment.

    Text between two parts belongs to the second.
    """
    parts: Sequence[Word | TimedText] = segment.words if words and segment.words else segment.pieces
    if not parts:
        return [Piece(segment.text, segment.start_s, segment.end_s, speaker=segment.speaker)]
    borders = [0]
    for part in parts:
        borders.append(segment.text.index(part.text, borders[-1]) + len(part.text))
    borders[-1] = len(segment.text)
    pieces = []
    for part, (first, last) in zip(parts, pairwise(borders), strict=True):
        as_word = (part.estimated, True) if isinstance(part, Word) else (False, False)
        text = segment.text[first:last]
        pieces.append(Piece(text, part.start_s, part.end_s, *as_word, segment.speaker))
    return pieces


def sentences_of(segment: Segment) -> list[Sentence]:
    """Return a segment's sentences; none if it has no visible text. Times inside a piece are interpolated."""
    words = Words(one_line(segment.text), sys.maxsize)
    if not words.columns_before[-1]:
        return []
    clock = _Clock(pieces_of(segment), words)
    return [
        Sentence(words.line(first, last), *clock.span(first, last))
        for first, last in pairwise([0, *words.sentence_ends])
    ]


def make_cues(transcript: Transcript, layout: SubtitleLayout = DEFAULT_LAYOUT) -> list[Cue]:
    """Return the cues of a transcript. A segment without visible text has none.

    Without word times, no cue crosses the boundary between two of the model's own pieces that take time. If
    segments have translations, these are spread over their cues.
    """
    plans: list[_Plan] = []
    for segment in transcript.segments:
        pieces = pieces_of(segment)
        groups = [pieces] if segment.words else [[piece] for piece in _lasting(pieces)]
        own = [plan for group in groups for plan in _planned(group, layout)]
        plans += _with_translation(own, segment, layout) if segment.translation else own
    return _cues(plans, transcript.start_s, transcript.start_s + transcript.duration_s, layout)


def _lasting(pieces: Iterable[Piece]) -> list[Piece]:
    """Join each piece that takes no time with the one before it, which could otherwise end a cue after 1 ms.

    Whisper writes such pieces where its times go beyond the end of a segment.
    """
    joined: list[Piece] = []
    for piece in pieces:
        if joined and (piece.end_s <= piece.start_s or joined[-1].end_s <= joined[-1].start_s):
            before = joined.pop()
            piece = replace(before, text=before.text + piece.text, end_s=max(before.end_s, piece.end_s))
        joined.append(piece)
    return joined


def cues_of_pieces(
    segments: Iterable[Sequence[Piece]],
    end_s: float,
    layout: SubtitleLayout = DEFAULT_LAYOUT,
    start_s: float = 0.0,
) -> list[Cue]:
    """Return cues for segments given as pieces. The cues are in order and do not overlap.

    They stay within the recording unless it has fewer milliseconds than cues.
    """
    plans = [plan for segment in segments for plan in _planned(segment, layout)]
    return _cues(plans, start_s, end_s, layout)


def _cues(plans: Sequence["_Plan"], start_s: float, end_s: float, layout: SubtitleLayout) -> list[Cue]:
    """Return cues that keep within the recording and do not overlap; see `cues_of_pieces`."""
    cues = _timed(plans, start_s, end_s, layout)
    if not layout.highlight_words:
        return cues
    return [part for cue, plan in zip(cues, plans, strict=True) for part in _highlighted(cue, plan.marks)]


_Mark = tuple[tuple[int, int], float, float]  # a word: start and end in a cue's text, start and end in seconds


@dataclass(frozen=True)
class _Plan:
    """A cue, with its words, whose times may still overlap others or be too short to read."""

    lines: tuple[str, ...]
    start_s: float
    end_s: float
    estimated: bool
    marks: tuple[_Mark, ...]
    speaker: str | None
    below: tuple[str, ...] = ()


def _planned(segment: Sequence[Piece], layout: SubtitleLayout) -> Iterator[_Plan]:
    """Yield the cues of a segment, with the times of their text."""
    words = Words(one_line("".join(piece.text for piece in segment)), layout.max_line_width)
    if not words.columns_before[-1]:
        return
    clock = _Clock(segment, words)
    sentences = pairwise([0, *words.sentence_ends])
    parts = [part for first, last in sentences for part in _parts(words, first, last, layout)]
    for first, last in _merged(parts, words, clock, layout):
        lines = tuple(words.lines(first, last))
        marks = tuple(clock.marks(first, lines)) if layout.highlight_words else ()
        yield _Plan(lines, *clock.span(first, last), marks, segment[0].speaker)


def _with_translation(plans: Sequence[_Plan], segment: Segment, layout: SubtitleLayout) -> list[_Plan]:
    """Spread the translation of a segment over its cues, in proportion to their text, best between sentences.

    A part keeps to the width of a line, but not to the number of lines: it must not be lost.
    """
    text = one_line(segment.translation.text) if segment.translation else ""
    words = Words(text, layout.max_line_width)
    if not words.columns_before[-1] or text == one_line(segment.text):
        return list(plans)
    widths = [max(1, sum(map(columns, plan.lines))) for plan in plans]
    spread, first, last = list[_Plan](), 0, len(words.words)
    for number, plan in enumerate(plans):
        cut, cuts = last, range(first + 1, last)
        if cuts and number < len(plans) - 1 and words.width(first, last):
            cut = words.best_cut(first, last, cuts, sum(widths[number:]) / widths[number])
        spread.append(replace(plan, below=tuple(words.lines(first, cut)) if first < cut else ()))
        first = cut
    return spread


class _Clock:
    """Times of positions in a segment's text. A position is the number of columns before it."""

    def __init__(self, segment: Sequence[Piece], words: Words):
        self._pieces = segment
        self._widths = [sum(map(columns, one_line(piece.text).split(" "))) for piece in segment]
        self._ends = list(accumulate(self._widths))
        self._places = words.columns_before
        self._letters_before = list(accumulate((len(word.text) for word in words.words), initial=0))

    def span(self, first: int, last: int) -> tuple[float, float, bool]:
        """Return the start and end of a span of words, and whether either of them is estimated."""
        begin, end = self._places[first], self._places[last]
        start_s, start_estimated = self._time(bisect_right(self._ends, begin), begin)
        end_s, end_estimated = self._time(bisect_left(self._ends, end), end)
        return start_s, end_s, start_estimated or end_estimated

    def marks(self, first: int, lines: Sequence[str]) -> Iterator[_Mark]:
        """Yield position and times of the words in a cue that begins at word ``first``, by counting letters."""
        letters = [place for place, char in enumerate("\n".join(lines)) if not char.isspace()]
        end = -self._letters_before[first]
        for piece in self._pieces:
            begin, end = end, end + len("".join(one_line(piece.text).split(" ")))
            inside = letters[max(begin, 0) : max(end, 0)]
            if inside and piece.is_word:
                yield (inside[0], inside[-1] + 1), piece.start_s, piece.end_s

    def _time(self, index: int, place: int) -> tuple[float, bool]:
        index = min(index, len(self._ends) - 1)
        piece = self._pieces[index]
        left = (self._ends[index] - place) / (self._widths[index] or 1)
        share = min(max(1 - left, 0.0), 1.0)
        time_s = piece.end_s if share == 1 else piece.start_s + share * (piece.end_s - piece.start_s)
        return time_s, piece.estimated or 0 < share < 1


def _parts(words: Words, first: int, last: int, layout: SubtitleLayout) -> Iterator[tuple[int, int]]:
    """Cut a sentence into parts of about equal size that fit in a cue, preferably at commas."""
    room = layout.max_line_width * layout.max_line_count
    while (fitting := words.reach(first, last, layout.max_line_count)) < last:
        needed = max(2, math.ceil(words.width(first, last) / room))
        cut = words.best_cut(first, last, range(first + 1, fitting + 1), needed)
        yield first, cut
        first = cut
    yield first, last


def _merged(
    parts: Iterable[tuple[int, int]], words: Words, clock: _Clock, layout: SubtitleLayout
) -> list[tuple[int, int]]:
    """Join parts that are too short to read with the part before, if both fit in a cue.

    Parts are kept separate if the pause between them leaves time to read them.
    """
    merged: list[tuple[int, int]] = []
    for first, last in parts:
        if merged:
            before = merged[-1][0]
            (start_s, pause_s, _), (resume_s, end_s, _) = clock.span(before, first), clock.span(first, last)
            shortest_s = max(min(pause_s - start_s, end_s - resume_s), resume_s - pause_s)
            if shortest_s < layout.min_duration_s and words.reach(before, last, layout.max_line_count) == last:
                first = merged.pop()[0]
        merged.append((first, last))
    return merged


def _timed(plans: Sequence[_Plan], start_s: float, end_s: float, layout: SubtitleLayout) -> list[Cue]:
    """Round times to milliseconds, remove overlaps, and extend cues that are too short for their text."""
    free = math.ceil(start_s * 1000)
    limit = max(math.floor(end_s * 1000), free + len(plans))
    times: list[tuple[int, int]] = []
    for plan in plans:
        start = max(free, round(plan.start_s * 1000))
        free = max(start + 1, round(plan.end_s * 1000))
        times.append((start, free))
    cues: list[Cue] = []
    for plan, (start, end) in zip(reversed(plans), reversed(times), strict=True):
        wanted_s = max(layout.min_duration_s, sum(map(columns, plan.lines)) / layout.max_columns_per_s)
        start = min(start, limit - 1)
        end = min(max(end, start + math.ceil(wanted_s * 1000)), limit)
        cues.append(Cue(start, end, plan.lines, plan.estimated, speaker=plan.speaker, below=plan.below))
        limit = start
    return cues[::-1]


def _highlighted(cue: Cue, marks: Iterable[_Mark]) -> Iterator[Cue]:
    """Split a cue in time so that each word is marked while it is spoken, and none is marked in between.

    A word with no duration is never marked.
    """
    shown_ms = cue.start_ms
    for place, start_s, end_s in marks:
        start_ms = min(max(round(start_s * 1000), shown_ms), cue.end_ms)
        end_ms = min(round(end_s * 1000), cue.end_ms)
        if start_ms < end_ms:
            if shown_ms < start_ms:
                yield replace(cue, start_ms=shown_ms, end_ms=start_ms)
            yield replace(cue, start_ms=start_ms, end_ms=end_ms, marked=place)
            shown_ms = end_ms
    if shown_ms < cue.end_ms:
        yield replace(cue, start_ms=shown_ms)
