"""Drafts from the CTC text: where a row takes them up again, and what is learned about how the decoder writes."""

from __future__ import annotations

from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funasr_cli.decoding.draft import ADDED, CHANGED, MOST_TOKENS, SKIPPED, CTCDraft, align
from funasr_cli.decoding.habits import Habits, units_of
from funasr_cli.decoding.text import TextStream


def spell(token_ids: list[int]) -> str:
    return "".join(map(chr, token_ids))


def encode(text: str) -> list[int]:
    """A token for each character: every difference shows."""
    return list(map(ord, text))


def draft_behind(text: str, *written: str) -> str:
    """What a draft proposes when these pieces have been written, asked in front of each."""
    stream = TextStream(spell)
    draft = CTCDraft(text, stream, encode, Habits())
    for piece in written:
        draft.propose()
        for token_id in encode(piece):
            stream.push(token_id)
    return spell(draft.propose())


@pytest.mark.parametrize(
    ("text", "written", "rest"),
    [
        ("open the door", "", "open the door"),
        ("open the door", "open", " the door"),
        ("open the door", "op", "en the door"),
        ("open the door", "open ", "the door"),
        ("open the door", "Open", " the door"),
        ("open the door", "open, ", "the door"),
        ("open the door", "open the", " door"),
        ("open the door", "open the door", ""),
        ("open the door", "open the door.", ""),
        ("open the door now", "open a", " door now"),  # another word
        ("open the door now", "open door", " now"),  # one less
        ("open the door now", "please open", " the door now"),  # one more
        ("the train leaves at ten ten a m", "The train leaves at 10", " a m"),  # a digit for a word
        ("我想问我在滨海", "我想问", "我在滨海"),
        ("我想问我在滨海", "我想问，", "我在滨海"),
        ("我想问我在滨海", "我想我在", "滨海"),
        ("", "open", ""),
        ("...", "open", "..."),
    ],
)
def test_where_a_draft_goes_on(text: str, written: str, rest: str) -> None:
    assert draft_behind(text, written) == rest
    assert draft_behind(text, *written) == rest  # told character by character


def test_a_draft_within_a_character_waits_for_the_rest_of_it() -> None:
    assert draft_behind("你好", "你\N{REPLACEMENT CHARACTER}") == ""


def test_a_proposal_is_limited() -> None:
    assert len(draft_behind("word " * 500)) == MOST_TOKENS


def test_a_draft_that_has_nothing_to_do_with_the_text_is_hopeless_soon() -> None:
    stream = TextStream(spell)
    habits = Habits()
    draft = CTCDraft("open the door " * 20, stream, encode, habits)
    assert draft.odds == pytest.approx((0.8, 0.9))
    for _ in range(4):
        draft.judge(len(draft.propose()), 0)
    assert draft.odds == pytest.approx((0.8 / 3, 0.9))
    assert 0.5 < CTCDraft("", stream, encode, habits).odds[0] < 0.6  # others have not been given up
    draft.judge(10, 7)
    assert draft.odds[1] == pytest.approx((0.9 * 8 + 6) / (8 + 7))


words = st.lists(st.sampled_from("the cat sat on 1 20 the mat 我 在 海 , . Mat".split()), max_size=40).map(
    " ".join
)


@given(heard=words, written=words, pieces=st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_any_text_can_be_written_beside_any_draft(heard: str, written: str, pieces: int) -> None:
    """As the decoder does: what agrees is kept, then comes a token of its own. It ends, and never takes longer."""
    stream = TextStream(spell)
    draft, wanted, passes = CTCDraft(heard, stream, encode, Habits()), encode(written), 0
    while len(stream.token_ids) < len(wanted):
        rest = wanted[len(stream.token_ids) :]
        proposal = draft.propose()[:pieces]
        same = list(takewhile(lambda pair: pair[0] == pair[1], zip(proposal, rest, strict=False)))
        draft.judge(len(proposal), len(same))
        for token_id in rest[: len(same) + 1]:
            stream.push(token_id)
        passes += 1
    assert passes <= len(wanted)
    assert stream.raw == written
    if heard == written:
        assert passes == -(-len(wanted) // (pieces + 1))


def brute_force(written: list[str], heard: list[str]) -> list[float]:
    """Cost of the cheapest way from a text to each beginning of another."""

    def cost(i: int, j: int) -> float:
        if not i:
            return SKIPPED * j
        if not j:
            return ADDED * i
        pair = cost(i - 1, j - 1) + (0 if written[i - 1] == heard[j - 1] else CHANGED)
        return min(pair, cost(i - 1, j) + ADDED, cost(i, j - 1) + SKIPPED)

    return [cost(len(written), j) for j in range(len(heard) + 1)]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=5), st.lists(st.sampled_from("abc"), max_size=5))
@settings(max_examples=200, deadline=None)
def test_alignment_against_all_ways(written: list[str], heard: list[str]) -> None:
    costs = brute_force(written, heard)
    count, agrees = align(units_of(" ".join(written)), units_of(" ".join(heard)), open_end=False)
    assert costs[count] == pytest.approx(min(costs))
    if agrees:
        assert written[-1] == heard[count - 1]


@given(st.text(st.sampled_from("ab1 9,.我海'’é-ß̈\n<|>")))
@settings(max_examples=300, deadline=None)
def test_units_stand_in_the_text(text: str) -> None:
    end = 0
    for unit in units_of(text):
        start = unit.end - len(unit.text)
        assert end <= start < unit.end
        assert text[start : unit.end] == unit.text == unit.space + unit.text.strip()
        assert not any(char.isalnum() for char in text[end:start])
        end = unit.end
    assert not any(char.isalnum() for char in text[end:])


LEARNED = [
    ("open page ten", "Open page 10."),
    ("my room is one two", "My room is 12."),
    ("two one two", "212"),
    ("see you on monday", "See you on Monday."),
    ("现在是十一点", "现在是11点。"),
]


@pytest.mark.parametrize(
    ("heard", "written"),
    [
        ("see page ten", "See page 10."),
        ("my room is two one two", "My room is 212."),
        ("one two", "12."),
        ("on monday see you", "On Monday see you."),
        ("unknown words", "Unknown words."),
        ("十一点", "11点。"),
        ("", ""),
    ],
)
def test_habits(heard: str, written: str) -> None:
    habits = Habits()
    assert habits.write(heard) == heard
    for each in LEARNED:
        habits.learn(*each)
    assert habits.write(heard) == written


@given(st.lists(st.tuples(words, words), max_size=6), words)
@settings(max_examples=200, deadline=None)
def test_habits_of_any_texts(pairs: list[tuple[str, str]], heard: str) -> None:
    """Nothing breaks, and a text that is written as it is heard is proposed as it is."""
    habits, plain = Habits(), Habits()
    for one, other in pairs:
        habits.learn(one, other)
        plain.learn(one, one)
    assert isinstance(habits.write(heard), str)
    assert [unit.key for unit in units_of(plain.write(heard))] == [unit.key for unit in units_of(heard)]
