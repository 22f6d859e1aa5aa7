"""What counts as a word, the words that two texts share, and the label that a character comes from."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funasr_cli.units import common, folded, is_spoken, word_spans

TEXTS = st.text(st.sampled_from("ab9 3\n'.,-“”（）。，$€·々中文カーがが゙한é\u0301\N{HANGUL FILLER}"), max_size=30)


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Hello, world!", ["Hello,", "world!"]), ("  it's 3:20 pm ", ["it's", "3:20", "pm"]),
        ("yes - no", ["yes -", "no"]), ("- yes", ["- yes"]), ("“Go!” he said…", ["“Go!”", "he", "said…"]),
        ("3点20分。", ["3", "点", "20", "分。"]), ("他说：“你好。”", ["他", "说：", "“你", "好。”"]),
        ("我用 iPhone15（新）", ["我", "用", "iPhone15", "（新）"]), ("花了$50元", ["花", "了", "$50", "元"]),
        ("コーヒー・が゙", ["コ", "ー", "ヒ", "ー・", "が゙"]), ("안녕 하세요", ["안녕", "하세요"]), ("...", []),
        ("", []),
    ],
)  # fmt: skip
def test_words(text: str, wanted: list[str]) -> None:
    assert words(text) == wanted


@given(TEXTS)
def test_words_spell_the_text(text: str) -> None:
    """Only white space is left out, and each word has a letter or a digit."""
    spans = word_spans(text)
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(text)]
    if spans:
        assert all(not text[end:start].strip() for end, start in zip(ends, starts, strict=True))
    else:
        assert not any(map(is_spoken, text))
    assert all(any(map(is_spoken, word)) and word == word.strip() for word in words(text))


def test_folded() -> None:
    assert folded("“Don’t”, ＡＢ-3！") == "dontab3"


@settings(max_examples=200)
@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_common_is_a_longest_common_subsequence(ours: list[str], theirs: list[str]) -> None:
    pairs = common(ours, theirs)
    assert all(ours[own] == theirs[other] for own, other in pairs)
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(pairs))
    lengths = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]  # the standard algorithm
    for i, own in enumerate(ours):
        for j, other in enumerate(theirs):
            shorter = max(lengths[i][j + 1], lengths[i + 1][j])
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if own == other else shorter
    assert len(pairs) == lengths[-1][-1]
