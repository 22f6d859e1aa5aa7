"""Word timestamps: the decoder's text, aligned with the CTC branch's output.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``inference_llm``: the text, spelled in the CTC branch's
vocabulary, is force-aligned with its posteriors). What differs: upstream aligns the text unchanged, including
capitals, commas and digits, which most CTC branches were not trained on. Here, words in both texts are aligned as
the CTC branch spells them, and words that it cannot spell get the remaining time. Upstream's times are those of
the tokens' frames; here, word borders are placed between these frames.
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
# Middle of the first CTC frame: that of its middle feature frame, which is 25 ms long. The others follow evenly.
FIRST_MIDDLE_S = 0.0125
# CTC emits a label near the middle of its sound, for a frame or two. So the border between words without a pause
# divides the time between their frames in proportion to the lengths of their labels. Next to a pause, a word
# extends beyond its frames by `REACH_S`. Measured on training voices and sentences of the demo model (`tools.demo
# clips`, `--training`), never on held-out ones: the first word begins 0.09 s (English) or 0.11 s (Mandarin) before
# its first frame, and the last one ends 0.25 s or 0.15 s after its last.
REACH_S = 0.25
FIRST_REACH_S = 0.1  # the first word begins this long before its first frame
SHORTEST_PAUSE_S = 0.1  # a shorter gap between words is not a pause
LONG = re.compile(rf"[{UNSPACED_LETTERS}\d{UNFINISHED}]")  # characters that take longer to say than a letter

Span = tuple[float, float]


@dataclass
class Group:
    """Words that are aligned together, usually just one."""

    words: range  # indices into the text's words; empty if the CTC branch heard something that is not written
    labels: range  # indices into the plan's labels; empty if the CTC branch heard nothing of the words
    measured: bool  # the labels spell these words, so their times are measured


class Plan:
    """The words of a text and the CTC labels to align for them.

    The first `unsaid` characters of the text were not spoken in the segment.
    """

    def __init__(self, text: str, reading: CTCReading, unsaid: int = 0):
        self.spans = word_spans(text)  # start and end of each word in the text
        self.labels: list[int] = []  # to align, in order
        self.groups: list[Group] = []  # the words in order, each in one group, with their labels
        self._text, self._vocabulary = text, reading.vocabulary
        self._has_capitals = reading.text != reading.text.lower()
        self._heard = reading.token_ids
        self._next = 0  # index of the next heard label; earlier ones are in a group or skipped
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
        """Add words that the CTC branch did not hear, in place of the labels that it heard up to `end`."""
        spelled = [self._spell(*self.spans[word]) for word in words]
        if words and all(spelled):
            for word, labels in zip(words, spelled, strict=True):
                self._add(range(word, word + 1), labels, measured=True)
        elif words or self._next < end:  # the heard labels take the words' place in the alignment
            self._add(words, self._heard[self._next : end], measured=False)
        self._next = max(self._next, end)

    def _add_heard(self, word: int, first: int, last: int) -> None:
        """Add a word that the CTC branch also heard, as its labels from `first` to `last`."""
        labels = self._heard[self._next : last + 1]
        before = self.groups[-1] if self.groups else None
        shared = first < self._next  # its first label also spells the end of the previous word
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
        """Return the labels that spell a word of the text; none if it cannot be spelled, as with digits."""
        first, last = _letters(self._text, start, end)
        spoken = "".join(map(_spoken, self._text[first : last + 1]))
        if any(unicodedata.category(char)[0] == "N" for char in spoken) or not self._vocabulary.can_spell(spoken):
            return []
        if not self._has_capitals:
            spoken = spoken.lower()
        labels = self._vocabulary.encode(f" {spoken}" if self._text[:start].endswith(" ") else spoken)
        return [label for label in labels if self._vocabulary.decode([label]).strip()]


def _spoken(char: str) -> str:
    """Replace punctuation inside a word, which is not pronounced, by a space."""
    if char in APOSTROPHES:
        return "'"
    return char if unicodedata.category(char)[0] in "LNM" else " "


def _letters(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the indices of the first and the last letter or digit in ``text[start:end]``."""
    spoken = [index for index in range(start, end) if is_spoken(text[index])]
    return spoken[0], spoken[-1]


def time_words(
    text: str, reading: CTCReading, start_s: float, end_s: float, earlier: str = ""
) -> tuple[Word, ...]:
    """Time the words of a segment. `earlier` is the beginning of its text that was spoken before the segment.

    Words are in order, without overlaps and within the segment. Joined with the text's own spaces, they give the
    text. A word's score is that of its least likely label, each label taken at its best frame. The result is empty
    if there is nothing to align, the labels do not fit into the frames, or the posteriors are not finite.
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
            begun_s, ended_s = (min(start_s + time_s, end_s) for time_s in (first_s, last_s))  # against rounding
            words.append(Word(word_text, begun_s, ended_s, score, not group.measured))
    return tuple(words)


def place(labels: list[int], reading: CTCReading) -> tuple[np.ndarray, np.ndarray]:
    """Align labels with a segment.

    Returns:
        (labels, 2) first and last frame of each label, and (labels,) its highest probability.

    Raises:
        AlignmentError: the labels cannot be aligned; see `align`.
    """
    classes = sorted({reading.blank_id, *labels})
    log_probs = reading.log_probs(classes)  # (frames, classes)
    columns = {label: column for column, label in enumerate(classes)}
    own = np.array([columns[label] for label in labels])
    path = align(log_probs, own, columns[reading.blank_id])  # (frames,)
    frames = np.flatnonzero(path != BLANK)  # frames with a label
    indices = path[frames]  # their labels, ascending
    first = np.searchsorted(indices, np.arange(len(labels)))  # (labels,) positions in both
    last = np.append(first[1:], len(indices)) - 1
    logprobs = np.maximum.reduceat(log_probs[frames, own[indices]], first)
    return np.stack([frames[first], frames[last]], axis=1), np.exp(np.minimum(logprobs, 0))


class Core(NamedTuple):
    """The frames of a group: middles of the first and the last one, and the spoken lengths of their labels."""

    first_s: float
    last_s: float
    first_length: int
    last_length: int


def _spans(cores: list[Core | None], frame_s: float, duration_s: float) -> list[Span]:
    """Return the time span of each group, without overlaps and within the segment.

    Groups without a core, where the CTC branch heard nothing, get the time between their neighbours.
    """
    half_s = frame_s / 2  # a word extends beyond its frames by this, next to one without frames
    spans_s: list[Span | None] = []
    for index, (before, core, after) in enumerate(zip([None, *cores], cores, [*cores[1:], None], strict=False)):
        if core is None:
            spans_s.append(None)
            continue
        first_s = core.first_s - (half_s if index else FIRST_REACH_S)
        last_s = core.last_s + (half_s if index + 1 < len(cores) else REACH_S)
        begun_s = _border(before, core)[1] if before else first_s
        spans_s.append((begun_s, _border(core, after)[0] if after else last_s))
    ordered: list[Span] = []
    for index, span_s in enumerate(spans_s):
        earliest_s = ordered[-1][1] if ordered else 0.0
        latest_s = next((later[0] for later in spans_s[index + 1 :] if later), duration_s)
        first_s, last_s = span_s or (earliest_s, latest_s)
        first_s = min(max(first_s, earliest_s), duration_s)
        ordered.append((first_s, min(max(first_s, min(last_s, latest_s)), duration_s)))
    return ordered


def _border(before: Core, after: Core) -> Span:
    """Return the end of the first of two neighbours, and the start of the second."""
    share = before.last_length / (before.last_length + after.first_length)
    border_s = before.last_s + share * (after.first_s - before.last_s)
    end_s, start_s = min(border_s, before.last_s + REACH_S), max(border_s, after.first_s - REACH_S)
    return (end_s, start_s) if start_s - end_s >= SHORTEST_PAUSE_S else (border_s, border_s)


def _shares(texts: list[str], span_s: Span) -> list[Span]:
    """Divide a span among words in proportion to their spoken lengths."""
    if not texts:
        return []
    lengths = [spoken_length(text) for text in texts]
    ends_s = np.interp(np.cumsum([0, *lengths]), [0, sum(lengths)], span_s).clip(*span_s)
    return list(pairwise(ends_s.tolist()))


def spoken_length(text: str) -> int:
    """Estimate how long a text takes to say, in letters of an alphabet; at least 1.

    In the demo model's training clips, a Mandarin character takes 0.27 s and an English letter 0.06 s. A digit
    counts as a character, since it is read as a word or a character. So does a replacement character, which is
    part of a character.
    """
    return max(1, sum(5 if LONG.match(char) else is_spoken(char) for char in text))
