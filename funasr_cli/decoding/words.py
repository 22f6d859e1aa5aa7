"""When each word was said: the decoder's text, aligned with what the CTC branch heard.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``inference_llm``: the text, spelled in the CTC branch's
vocabulary, force-aligned on its posteriors). What differs: upstream aligns the text as it stands, with capitals,
commas and digits, which CTC branches are mostly not taught; here what both agree on is aligned as the CTC branch
itself spells it, and what it cannot have said is given the time that is left. Upstream's times are those of its
tokens' frames, here they are put between them.
"""

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from funasr_cli.characters import UNSPACED_LETTERS
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.decoding.text import UNFINISHED
from funasr_cli.models.ctc import BLANK, AlignmentError, align
from funasr_cli.transcript import Word
from funasr_cli.units import common, folded, is_spoken, word_spans

APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
# Where the middle of the first CTC frame is: that of its middle feature frame, 25 ms long. Others follow evenly.
FIRST_MIDDLE_S = 0.0125
# CTC says a label near the middle of what it stands for, in a frame or two. So the border between words in a flow
# divides what lies between their frames as their labels' lengths do; next to a pause a word reaches beyond its
# frames by `REACH_S`. Measured on training voices and sentences of the demo model (`tools.demo clips`,
# `--training`), never on held-out ones: the first word begins 0.09 s (English) or 0.11 s (Mandarin) before its
# first frame, the last one ends 0.25 or 0.15 s behind its last.
REACH_S = 0.25
FIRST_REACH_S = 0.1  # of the first word, forwards
SHORTEST_PAUSE_S = 0.1  # less than that between words is no silence
LONG = re.compile(rf"[{UNSPACED_LETTERS}\d{UNFINISHED}]")  # characters that stand for more than a letter's sound

Span = tuple[float, float]


@dataclass
class Group:
    """Words that are aligned together: mostly one."""

    words: range  # among the words of the text; none where something was heard that is not written
    labels: range  # among all labels that are aligned; none where nothing was heard of what is written
    measured: bool  # the labels say these words, so that the times are theirs


class Plan:
    """What to align for a text, of which `unsaid` characters at the beginning were not said in the segment."""

    def __init__(self, text: str, reading: CTCReading, unsaid: int = 0):
        self.spans = word_spans(text)  # where each word begins and ends in the text
        self.labels: list[int] = []  # of the CTC branch, in order
        self.groups: list[Group] = []  # the words, in order, each in one group, with their labels
        self._text, self._vocabulary = text, reading.vocabulary
        self._has_capitals = reading.text != reading.text.lower()
        self._heard = reading.token_ids
        self._next = 0  # of what was heard: those in front are in a group, or have been left out
        heard, sources = reading.vocabulary.spell(self._heard)
        letters = [_letters(heard, *span) for span in word_spans(heard)]
        done = sum(end <= unsaid for _, end in self.spans)
        if done:
            self._add(range(done), [], measured=False)
        written_keys = [folded(text[start:end]) for start, end in self.spans[done:]]
        heard_keys = [folded(heard[first : last + 1]) for first, last in letters]
        for word, other in [(done + own, other) for own, other in common(written_keys, heard_keys)]:
            first, last = (sources[index] for index in letters[other])
            self._add_unheard(range(done, word), first[0])
            self._add_heard(word, first[0], last[1])
            done = word + 1
        self._add_unheard(range(done, len(self.spans)), len(self._heard))

    def _add_unheard(self, words: range, end: int) -> None:
        """Words that the CTC branch did not hear, in place of what it heard up to before `end`."""
        spelled = [self._spell(*self.spans[word]) for word in words]
        if words and all(spelled):
            for word, labels in zip(words, spelled, strict=True):
                self._add(range(word, word + 1), labels, measured=True)
        elif words or self._next < end:  # what was heard holds the place
            self._add(words, self._heard[self._next : end], measured=False)
        self._next = max(self._next, end)

    def _add_heard(self, word: int, first: int, last: int) -> None:
        """A word that the CTC branch heard, too, as its labels from `first` to `last`."""
        labels = self._heard[self._next : last + 1]
        before = self.groups[-1] if self.groups else None
        shared = first < self._next  # its first label also says the end of the word in front
        self._next = max(self._next, last + 1)
        if shared and before and before.measured and before.words.stop == word:
            self.labels += labels
            before.words = range(before.words.start, word + 1)
            before.labels = range(before.labels.start, len(self.labels))
        else:
            self._add(range(word, word + 1), labels, measured=bool(labels))

    def _add(self, words: range, labels: list[int], *, measured: bool) -> None:
        start = len(self.labels)
        self.labels += labels
        self.groups.append(Group(words, range(start, len(self.labels)), measured))

    def _spell(self, start: int, end: int) -> list[int]:
        """Labels that say a word of the text; none where nobody knows, as of digits."""
        first, last = _letters(self._text, start, end)
        said = "".join(map(_said, self._text[first : last + 1]))
        if any(unicodedata.category(char)[0] == "N" for char in said) or not self._vocabulary.can_spell(said):
            return []
        if not self._has_capitals:
            said = said.lower()
        labels = self._vocabulary.encode(f" {said}" if self._text[:start].endswith(" ") else said)
        return [label for label in labels if self._vocabulary.decode([label]).strip()]


def _said(char: str) -> str:
    """What is heard of a character within a word: punctuation is not."""
    if char in APOSTROPHES:
        return "'"
    return char if unicodedata.category(char)[0] in "LNM" else " "


def _letters(text: str, start: int, end: int) -> tuple[int, int]:
    """The first and the last letter or digit from `start` to before `end`."""
    spoken = [index for index in range(start, end) if is_spoken(text[index])]
    return spoken[0], spoken[-1]


def time_words(
    text: str, reading: CTCReading, start_s: float, end_s: float, earlier: str = ""
) -> tuple[Word, ...]:
    """Time the words of a segment, of whose text `earlier` was said before it.

    They are in order, without overlaps, within the segment; joined with the text's own spaces they are the text.
    A score is that of the least likely label, each at its best frame. There are none if the labels cannot be
    aligned: there are none, they do not fit into the frames, or the posteriors are not finite.
    """
    plan = Plan(text, reading, len(earlier))
    if not plan.labels or not plan.spans:
        return ()
    try:
        frames, probabilities = place(plan.labels, reading)
    except AlignmentError:
        return ()
    middles_s = frames * reading.frame_duration_s + FIRST_MIDDLE_S
    lengths = [spoken_length(reading.vocabulary.decode([label])) for label in plan.labels]
    cores = []
    for labels in (group.labels for group in plan.groups):
        ends = (labels[0], labels[-1]) if labels else None
        cores.append(ends and Core(middles_s[ends[0], 0], middles_s[ends[1], 1], *(lengths[end] for end in ends)))
    spans_s = _spans(cores, reading.frame_duration_s, end_s - start_s)
    words = []
    for group, span_s in zip(plan.groups, spans_s, strict=True):
        score = float(probabilities[group.labels].min()) if group.measured else None
        texts = [text[slice(*plan.spans[word])] for word in group.words]
        for word_text, (first_s, last_s) in zip(texts, _shares(texts, span_s), strict=True):
            begun_s, ended_s = (min(start_s + time_s, end_s) for time_s in (first_s, last_s))  # sums may round up
            words.append(Word(word_text, begun_s, ended_s, score, not group.measured))
    return tuple(words)


def place(labels: list[int], reading: CTCReading) -> tuple[np.ndarray, np.ndarray]:
    """Align labels with a segment: (labels, 2) first and last frame of each, (labels,) its highest probability.

    Raises:
        AlignmentError: they cannot be aligned.
    """
    classes = sorted({reading.blank_id, *labels})
    log_probs = reading.log_probs(classes)  # (frames, classes)
    columns = {label: column for column, label in enumerate(classes)}
    own = np.array([columns[label] for label in labels])
    path = align(log_probs, own, columns[reading.blank_id])  # (frames,)
    spoken = np.flatnonzero(path != BLANK)  # frames that say a label
    said = path[spoken]  # which one, ascending
    first = np.searchsorted(said, np.arange(len(labels)))  # (labels,) positions in both
    last = np.append(first[1:], len(said)) - 1
    logprobs = np.maximum.reduceat(log_probs[spoken, own[said]], first)
    return np.stack([spoken[first], spoken[last]], axis=1), np.exp(np.minimum(logprobs, 0))


class Core(NamedTuple):
    """The frames that say a group: the middles of the first and the last one, and how long their labels take."""

    first_s: float
    last_s: float
    first_length: int
    last_length: int


def _spans(cores: list[Core | None], frame_s: float, duration_s: float) -> list[Span]:
    """When each group was said, without overlaps and within the segment.

    Groups without a core, of which nothing was heard, take what their neighbours leave.
    """
    half_s = frame_s / 2  # by which a word reaches beyond its frames next to one without frames
    spans_s: list[Span | None] = []
    for index, (before, core, behind) in enumerate(zip([None, *cores], cores, [*cores[1:], None], strict=False)):
        if core is None:
            spans_s.append(None)
            continue
        first_s = core.first_s - (half_s if index else FIRST_REACH_S)
        last_s = core.last_s + (half_s if index + 1 < len(cores) else REACH_S)
        begun_s = _border(before, core)[1] if before else first_s
        spans_s.append((begun_s, _border(core, behind)[0] if behind else last_s))
    ordered: list[Span] = []
    for index, span_s in enumerate(spans_s):
        earliest_s = ordered[-1][1] if ordered else 0.0
        latest_s = next((later[0] for later in spans_s[index + 1 :] if later), duration_s)
        first_s, last_s = span_s or (earliest_s, latest_s)
        first_s = min(max(first_s, earliest_s), duration_s)
        ordered.append((first_s, min(max(first_s, min(last_s, latest_s)), duration_s)))
    return ordered


def _border(before: Core, behind: Core) -> Span:
    """Where one of two neighbours ends, and where the other one begins."""
    share = before.last_length / (before.last_length + behind.first_length)
    border_s = before.last_s + share * (behind.first_s - before.last_s)
    end_s, start_s = min(border_s, before.last_s + REACH_S), max(border_s, behind.first_s - REACH_S)
    return (end_s, start_s) if start_s - end_s >= SHORTEST_PAUSE_S else (border_s, border_s)


def _shares(texts: list[str], span_s: Span) -> list[Span]:
    """A span shared out among words by their length."""
    if not texts:
        return []
    lengths = [spoken_length(text) for text in texts]
    ends_s = np.interp(np.cumsum([0, *lengths]), [0, sum(lengths)], span_s).clip(*span_s)
    return list(pairwise(ends_s.tolist()))


def spoken_length(text: str) -> int:
    """About how long it takes to say, in letters of an alphabet; at least 1.

    In the demo model's training clips a character of Mandarin takes 0.27 s, a letter of English 0.06 s. A digit
    stands for a word or a character, and what is no text by itself for one in part.
    """
    return max(1, sum(5 if LONG.match(char) else is_spoken(char) for char in text))
