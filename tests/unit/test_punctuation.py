"""Tokens, pieces and marks of a CT-Transformer, with a model that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.punctuation import CHARACTERS, LABELS, VOCABULARY, WORDS, GuessingPunctuation

from funasr_cli.families.ct_punc.text import MOST_CARRIED, Pieces, Token, at_the_end, mark_after, tokens_of
from funasr_cli.punctuation_model import inserted
from funasr_cli.transcript import join_texts

MARKS = "，。？、,.?"
letters = st.sampled_from([*CHARACTERS, *"abcXYZ0189'-%$()", *"龘üñ한か", *"  \t\n\u3000", "👍"])
seeds = st.integers(0, 1 << 20)
# Hypothesis itself rarely makes lists that are longer than a piece.
many_ids = st.builds(
    lambda count, seed: Random(seed).choices(range(len(VOCABULARY)), k=count), st.integers(0, 700), seeds
)
long_texts = st.builds(
    lambda count, seed: "".join(Random(seed).choices([*CHARACTERS, " ok ", "x", "龘", " "], k=count)),
    st.integers(0, 90),
    seeds,
)
texts = st.lists(st.one_of(letters, st.sampled_from([f" {word} " for word in WORDS])), max_size=80).map("".join)


def whole(ids: Sequence[int], model: GuessingPunctuation) -> list[int]:
    """Return the labels of a whole text, by the rules of the reference, without that of its end."""
    final: list[int] = []
    left: list[int] = []
    pieces = [ids[start : start + 20] for start in range(0, len(ids), 20)]
    for number, piece in enumerate(pieces):
        row = [*left, *piece]
        labels = model.logits([row])[0].argmax(-1).tolist()
        cut = len(row)
        if number < len(pieces) - 1:
            cut, comma = 0, None
            for index in range(len(row) - 2, 1, -1):
                if LABELS[labels[index]] in "。？":
                    cut = index + 1
                    break
                if comma is None and LABELS[labels[index]] == "，":
                    comma = index
            if not cut and len(row) > 200 and comma is not None:
                labels[comma] = 3
                cut = comma + 1
        final += labels[:cut]
        left = row[cut:]
    return final


def read(pieces: Pieces, model: GuessingPunctuation, *, ended: bool) -> None:
    model.decide([pieces], ended=ended)


@given(many_ids, st.sampled_from([0.3, 0.9, 0.99, 1.0]), st.data())
def test_parts_give_the_labels_of_the_whole(ids: list[int], silence: float, data: st.DataObject) -> None:
    """The text comes in parts of any length. Final labels never change."""
    model, pieces, start = GuessingPunctuation(silence), Pieces(LABELS), 0
    before: list[int] = []
    while start < len(ids):
        stop = start + data.draw(st.integers(1, 90))
        pieces.add(ids[start:stop])
        read(pieces, model, ended=False)
        assert pieces.final[: len(before)] == before
        assert len(pieces.final) < stop, "what follows may change the last label"
        before, start = list(pieces.final), stop
    read(pieces, model, ended=True)
    assert pieces.final == whole(ids, model)


class Silent(GuessingPunctuation):
    """A model that never writes a mark."""

    longest = 0  # piece that it has read

    def logits(self, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
        self.longest = max(self.longest, *map(len, rows))
        return [np.eye(len(LABELS))[[1] * len(row)] for row in rows]


def test_a_sentence_without_end_is_cut_off() -> None:
    """So memory stays bounded. No mark is invented."""
    model, pieces = Silent(), Pieces(LABELS)
    pieces.add([5] * 5 * MOST_CARRIED)
    read(pieces, model, ended=True)
    assert pieces.final == [1] * 5 * MOST_CARRIED
    assert MOST_CARRIED < model.longest <= MOST_CARRIED + 20


@given(st.lists(texts, max_size=12), st.sampled_from([0.3, 0.9]))
def test_without_its_marks_a_text_is_as_before(given_texts: list[str], silence: float) -> None:
    """And each text of a batch is as if it were alone."""
    model = GuessingPunctuation(silence)
    punctuated = model.punctuate(given_texts)
    for before, after in zip(given_texts, punctuated, strict=True):
        assert "".join(char for char in after if char not in MARKS) == before
        assert model.punctuate([before]) == [after]


@given(st.lists(texts | long_texts, max_size=12), st.sampled_from([0.3, 0.9]))
def test_segments_give_the_text_of_the_whole(parts: list[str], silence: float) -> None:
    model = GuessingPunctuation(silence)
    running = model.start()
    marks = [mark for part in parts for mark in running.add(part)]
    marks += running.end()
    punctuated = [inserted(part, mark) for part, mark in zip(parts, marks, strict=True)]
    together = model.punctuate([join_texts(parts)])[0]
    # Spaces between two parts depend on their ends, which are marks here.
    assert "".join(join_texts(punctuated).split()) == "".join(together.split())


@given(texts, texts)
def test_after_its_end_another_text_begins(first: str, second: str) -> None:
    model = GuessingPunctuation()
    running = model.start()
    for text in (first, second, second):
        marks = running.add(text) + running.end()
        assert [inserted(text, mark) for mark in marks] == model.punctuate([text])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \t\n", []),
        ("你好hello世界", ["你", "好", "hello", "世", "界"]),
        (" it's  3.5% ok ", ["it's", "3.5%", "ok"]),
        ("naïve", ["na", "ï", "ve"]),
        ("今天\u3000天气", ["今", "天", "天", "气"]),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    found = list(tokens_of(text))
    assert [token.text for token in found] == tokens
    assert all(text[: token.end].endswith(token.text) for token in found)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("今天天气怎么样", ["今天", "天气", "怎么样"]),
        ("怎么 样hello怎么样", ["怎", "么", "样", "hello", "怎么样"]),
        ("天气们", ["天气", "们"]),
    ],
)
def test_the_longest_words(text: str, tokens: list[str]) -> None:
    words = {"今天", "天气", "怎么样", "样hello"}
    assert [token.text for token in tokens_of(text, words)] == tokens


@pytest.mark.parametrize(
    ("token", "label", "mark"),
    [
        ("好", "，", "，"), ("ok", "，", ","), ("ok", "。", "."), ("ok", "？", "?"), ("ok", "、", "、"),
        ("3%", "。", "."), ("好", "_", ""), ("好", "<unk>", ""), ("，", "。", ""), ("ok.", "，", ""),
    ],
)  # fmt: skip
def test_marks(token: str, label: str, mark: str) -> None:
    assert mark_after(Token(token, 0), label) == mark


@pytest.mark.parametrize(
    ("token", "label", "last"),
    [
        ("好", "_", "。"), ("好", "，", "。"), ("好", "、", "。"), ("好", "。", "。"), ("好", "？", "？"),
        ("ok", "，", "。"), ("ok", "？", "？"), ("。", "_", "_"), ("ok.", "_", "_"), ("，", "_", "。"),
        ("好", "<unk>", "。"),
    ],
)  # fmt: skip
def test_the_end_of_a_text(token: str, label: str, last: str) -> None:
    assert at_the_end(Token(token, 0), label) == last
