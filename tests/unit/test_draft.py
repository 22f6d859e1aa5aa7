"""Drafts from the CTC text: where a draft resumes in a row, and what is learnt about the decoder's spelling."""

from __future__ import annotations

from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funasr_cli.decoding.draft import (
    ADDED,
    CHANGED,
    LONGEST_ENDING,
    LONGEST_FORM,
    MOST_MISSES,
    MOST_TOKENS,
    SKIPPED,
    CTCDraft,
    SpellingMemory,
    align,
)
from funasr_cli.decoding.text import TextStream
from funasr_cli.units import units_of


def spell(token_ids: list[int]) -> str:
    return "".join(map(chr, token_ids))


def encode(text: str) -> list[int]:
    """Return a token for each character, so that every difference matters."""
    return list(map(ord, text))


def draft_after(text: str, *written: str) -> str | None:
    """Return the draft's proposal after these pieces have been written. It is also asked before each piece."""
    stream = TextStream(spell)
    draft = CTCDraft(text, stream, encode, SpellingMemory())
    for piece in written:
        draft.propose()
        for token_id in encode(piece):
            stream.push(token_id)
    proposal = draft.propose()
    return None if proposal is None else spell(proposal)


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
        ("open the door", "open the door", None),  # nothing is left
        ("open the door", "open the door.", None),
        ("open the door now", "open a", " door now"),  # another word
        ("open the door now", "open door", " now"),  # one word less
        ("open the door now", "please open", " the door now"),  # one word more
        ("the train leaves at ten ten a m", "The train leaves at 10", " a m"),  # a digit for a word
        ("我想问我在滨海", "我想问", "我在滨海"),
        ("我想问我在滨海", "我想问，", "我在滨海"),
        ("我想问我在滨海", "我想我在", "滨海"),
        ("", "open", None),
        ("你好", "你\N{REPLACEMENT CHARACTER}", ""),  # within a character
        ("word " * 500, "", ("word " * 500)[:MOST_TOKENS]),
        ("...", "open", None),
    ],
)
def test_where_a_draft_resumes(text: str, written: str, rest: str) -> None:
    assert draft_after(text, written) == rest
    assert draft_after(text, *written) == rest  # written character by character


def test_an_unrelated_draft_is_given_up_soon() -> None:
    stream = TextStream(spell)
    memory = SpellingMemory()
    draft = CTCDraft("open the door " * 20, stream, encode, memory)
    assert draft.odds == pytest.approx((0.8, 0.9))
    for _ in range(4):
        draft.judge(5, 0)
    assert draft.odds == pytest.approx((0.8 / 3, 0.9))
    assert 0.5 < CTCDraft("", stream, encode, memory).odds[0] < 0.6  # the odds of other drafts are kept
    draft.judge(10, 7)
    assert draft.odds[1] == pytest.approx((0.9 * 8 + 6) / (8 + 7))


def asked_at(text: str, written: str, right: int) -> list[int]:
    """Return the steps with a proposal for a row, if the first token is right in the first `right` steps."""
    stream = TextStream(spell)
    draft, asked = CTCDraft(text, stream, encode, SpellingMemory()), []
    for step, token_id in enumerate(encode(written)):
        proposal = draft.propose()
        if proposal:
            draft.judge(len(proposal), int(step < right))
            asked.append(step)
        stream.push(token_id)
    assert draft.propose() is None
    return asked


def test_mistakes_cause_pauses_and_then_end_the_draft() -> None:
    """The texts are aligned only a few times, no matter how long the row becomes."""
    asked = asked_at("x" + "open the door " * 20, "x" * 200, 1)
    assert asked == [0, 1, 2, 5, 10, 19, 36, 69]
    assert len(asked) == 1 + MOST_MISSES + 1


@pytest.mark.parametrize("written", ["x" * 200, "海" * 200])
def test_a_draft_that_begins_wrong_is_not_tried_again(written: str) -> None:
    assert asked_at("open the door " * 20, written, 0) == [0]


def test_a_draft_that_begins_wrong_is_tried_where_the_texts_agree() -> None:
    stream = TextStream(spell)
    draft = CTCDraft("I open the door", stream, encode, SpellingMemory())
    for piece, proposal in (("We", "I open the door"), (" ", ""), ("open", ""), (".", ""), ("", " the door")):
        assert spell(draft.propose() or []) == proposal
        if proposal:
            draft.judge(len(proposal), 0)
        for token_id in encode(piece):
            stream.push(token_id)


# Numbers and marks are left out: neighbours among them join, so that changing one changes more.
letters = st.lists(st.sampled_from("the cat sat on the mat 我 在 海 Mat".split()), max_size=40).map(" ".join)
words = st.lists(st.sampled_from("the cat sat on 1 20 the mat 我 在 海 , . Mat".split()), max_size=40).map(
    " ".join
)


def passes_for(ctc_text: str, written: str, most: int) -> int:
    """Return the number of passes of a decoder that accepts matching tokens and adds one of its own in each."""
    stream = TextStream(spell)
    draft, wanted, passes = CTCDraft(ctc_text, stream, encode, SpellingMemory()), encode(written), 0
    while rest := wanted[len(stream.token_ids) :]:
        proposal = (draft.propose() or [])[:most]
        same = list(takewhile(lambda pair: pair[0] == pair[1], zip(proposal, rest, strict=False)))
        if proposal:
            draft.judge(len(proposal), len(same))
        for token_id in rest[: len(same) + 1]:
            stream.push(token_id)
        passes += 1
    return passes


@given(
    ctc_text=letters,
    other=words,
    edits=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["dog", "7"])), max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_a_changed_word_costs_few_extra_passes(ctc_text: str, other: str, edits: list[tuple[int, str]]) -> None:
    most, written = 7, ctc_text.split(" ")
    places = {place % len(written): word for place, word in edits}
    for place, word in places.items():
        written[place] = word
    least = -(-len(" ".join(written)) // (most + 1))
    passes = passes_for(ctc_text, " ".join(written), most)
    assert passes >= least
    if units_of(ctc_text):  # else there is nothing to draft
        assert passes <= least + 12 * len(places)
    assert passes_for(other, ctc_text, most) <= len(ctc_text)


def brute_force(written: list[str], ctc_text: list[str]) -> list[float]:
    """Return the edit distance of a text to each prefix of another one."""

    def cost(i: int, j: int) -> float:
        if not i:
            return SKIPPED * j
        if not j:
            return ADDED * i
        pair = cost(i - 1, j - 1) + (0 if written[i - 1] == ctc_text[j - 1] else CHANGED)
        return min(pair, cost(i - 1, j) + ADDED, cost(i, j - 1) + SKIPPED)

    return [cost(len(written), j) for j in range(len(ctc_text) + 1)]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=5), st.lists(st.sampled_from("abc"), max_size=5))
@settings(max_examples=200, deadline=None)
def test_alignment_against_all_alignments(written: list[str], ctc_text: list[str]) -> None:
    costs = brute_force(written, ctc_text)
    count, agrees = align(units_of(" ".join(written)), units_of(" ".join(ctc_text)), open_end=False)
    assert costs[count] == pytest.approx(min(costs))
    if agrees:
        assert written[-1] == ctc_text[count - 1]


LEARNED = [
    ("open page ten", "Open page 10."), ("my room is one two", "My room is 12."), ("two one two", "212"),
    ("see you on monday", "See you on Monday."), ("现在是十一点", "现在是11点。"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ctc_text", "written"),
    [
        ("see page ten", "See page 10."), ("my room is two one two", "My room is 212."), ("one two", "12."),
        ("on monday see you", "On Monday see you."), ("unknown words", "Unknown words."), ("十一点", "11点。"),
        ("", ""),
    ],
)  # fmt: skip
def test_habits(ctc_text: str, written: str) -> None:
    memory = SpellingMemory()
    assert memory.write(ctc_text) == ctc_text
    for each in LEARNED:
        memory.learn(*each)
    assert memory.write(ctc_text) == written


@given(st.lists(st.tuples(words, words), max_size=6), words)
@settings(max_examples=200, deadline=None)
def test_habits_of_any_texts(pairs: list[tuple[str, str]], ctc_text: str) -> None:
    """A rewritten text has about the same length; a text that is written as recognised is proposed unchanged."""
    memory, plain = SpellingMemory(), SpellingMemory()
    for one, other in pairs:
        memory.learn(one, other)
        plain.learn(one, one)
    units = units_of(ctc_text)
    assert len(memory.write(ctc_text)) <= len(ctc_text) + LONGEST_FORM * len(units) + LONGEST_ENDING
    assert [unit.key for unit in units_of(plain.write(ctc_text))] == [unit.key for unit in units]


def test_impossible_lengths_are_not_learnt() -> None:
    memory = SpellingMemory()
    memory.learn("one two three", "one " + "and on " * 300 + "three")
    memory.learn("uh", "x" * 5000)
    memory.learn("yes", "Yes" + "." * 3000)
    assert memory.write("one two three") == "one two three"
    assert memory.write("uh") == "uh"


def test_the_oldest_habits_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("funasr_cli.decoding.draft.MOST_FORMS", 2)
    memory = SpellingMemory()
    for word in ("monday", "tuesday", "friday"):
        memory.learn(f"on {word}", f"on {word.capitalize()}")
    assert memory.write("on monday or tuesday or friday") == "on monday or Tuesday or Friday"
