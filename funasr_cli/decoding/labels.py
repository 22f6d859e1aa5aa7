"""Which labels of the CTC branch say a text: those that it heard where both agree, else those that spell it."""

import unicodedata
from dataclasses import dataclass

from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.units import common, folded, is_spoken, word_spans

APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"


@dataclass
class Group:
    """Words that are aligned together: mostly one.

    Attributes:
        words: their positions among the words of the text; none where something was heard that is not written.
        labels: positions among all labels that are aligned; none where nothing was heard of what is written.
        measured: whether the labels say these words, so that the times are theirs.
    """

    words: range
    labels: range
    measured: bool


class Plan:
    """What to align for a text.

    Attributes:
        spans: where each word begins and ends in the text.
        labels: of the CTC branch, in order.
        groups: the words, in order, each in one group, with their labels.

    Args:
        text: what the decoder wrote.
        reading: of the same segment.
        unsaid: how many characters at the beginning were not said in the segment.
    """

    def __init__(self, text: str, reading: CTCReading, unsaid: int = 0):
        self.spans = word_spans(text)
        self.labels: list[int] = []
        self.groups: list[Group] = []
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
