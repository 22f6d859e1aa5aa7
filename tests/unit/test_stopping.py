"""The rule that stops a row, and the text that remains of a loop."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import funasr_cli
from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.stopping import Quota, StoppingCriteria, StopReason, find_loop, token_budget, without_loop
from funasr_cli.decoding.text import TextStream

DATA = Path(__file__).parents[1] / "data"
DEMO = Path(funasr_cli.__file__).parent / "demo"
STOP = 999
WORD = re.compile(
    r" ?[A-Za-z']+|\s|."
)  # similar to Qwen's pieces: words, single digits, single Chinese characters

SENTENCE = "We will have to talk about the budget for the coming year, and about who pays for what."
ORDINARY = [
    "My number is 0800 000 0000, again: 0800 000 0000. From abroad it is +49 89 1000 0010.",
    "no no no no", "No, no, no, no, no!", "yeah, yeah, yeah", "Wait, wait, wait, wait. What?",
    "Ha ha ha ha ha ha ha ha!", "哈哈哈哈哈哈哈哈哈哈", "嗯嗯嗯，对对对对，好好好好好", "ははははははは",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25",
    "one, two, three, four, five, six, seven, eight, nine, ten, one, two, three, four, five, six",
    "一二三四五六七八九十，一二三四五六七八九十，一二三四五六七八九十",
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798",
    "1.000000001", "It costs 1,000,000,000 dollars.", "ten million is 10000000, ten billion is 10000000000",
    f"{SENTENCE} {SENTENCE}", "我们今天要讨论的是明年的预算。" * 3, "Row, row, row your boat, " * 3,
    "the more the merrier, the more you know, the more you learn, the more you earn, the more you give",
    "----------", "Well... um... I... I... I... don't know...", "www.example.com, and WWW stands for w w w",
]  # fmt: skip


def stream_of(pieces: Sequence[str]) -> tuple[TextStream, list[int]]:
    """Return a stream, and the tokens that write these pieces; equal pieces are equal tokens."""
    vocabulary = list(dict.fromkeys(pieces))
    stream = TextStream(lambda ids: "".join(vocabulary[index] for index in ids))
    return stream, [vocabulary.index(piece) for piece in pieces]


def stop_of(
    stream: TextStream, token_ids: Sequence[int], duration_s: float = 1000
) -> tuple[int, StopReason | None]:
    """Return the number of tokens before a guard stops the row, and the reason."""
    stopping = StoppingCriteria((STOP,), token_budget(duration_s), None)
    for count, token_id in enumerate(token_ids, 1):
        if reason := stopping.push(Token(0, token_id, -1.0), stream):
            return count, reason
    return len(token_ids), None


def loop_by_definition(sequence: Sequence[object], shortest: int) -> int | None:
    for period in range(1, 65):
        for start in range(len(sequence)):
            repeated = len(sequence) - start
            same = all(sequence[i] == sequence[i + period] for i in range(start, len(sequence) - period))
            if same and repeated > period:
                if repeated >= 4 * period and repeated >= shortest:
                    return start + period
                break
    return None


@given(
    before=st.lists(st.integers(0, 2), max_size=20),
    phrase=st.lists(st.integers(0, 2), min_size=1, max_size=12),
    count=st.integers(0, 60),
    shortest=st.integers(1, 50),
)
@settings(max_examples=300, deadline=None)
def test_find_loop_is_its_definition(before: list[int], phrase: list[int], count: int, shortest: int) -> None:
    sequence = before + (phrase * count)[:count]
    assert find_loop(sequence, shortest) == loop_by_definition(sequence, shortest)


def test_limits_of_a_loop() -> None:
    """Four repetitions of at most 64 items. Of several periods, the shortest counts."""
    for period in (1, 2, 64):
        phrase = list(range(period))
        assert find_loop([-1, *phrase * 4], 4 * period) == 1 + period
        assert find_loop([-1, *(phrase * 4)[1:]], 1) is None
        assert find_loop([-1, *phrase * 4], 4 * period + 1) is None
    assert find_loop([*range(65)] * 5, 1) is None
    assert find_loop([1, 2, 1, 2] * 4, 16) == 2
    for times, reason in ((15, None), (16, StopReason.LOOP)):
        assert stop_of(*stream_of(["ha"] * times)) == (times, reason)


@pytest.mark.slow
def test_ordinary_texts_and_those_of_real_clips_are_no_loops() -> None:
    files = [DEMO / "clips/clips.jsonl", DATA / "demo/clean/clips.jsonl", DATA / "demo/noisy/clips.jsonl"]
    clips = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    texts = [clip[key] for clip in clips for key in ("spoken", "written")]
    assert len(texts) > 100
    tokenizer = Tokenizer.from_file(str(DEMO / "model/tokenizer.json"))
    streams = [(text, *stream_of(WORD.findall(text))) for text in (*ORDINARY, *texts)]
    streams += [(text, *stream_of(text)) for text in texts]
    streams += [(text, TextStream(tokenizer.decode), tokenizer.encode(text).ids) for text in texts]
    for text, stream, token_ids in streams:
        assert stop_of(stream, token_ids) == (len(token_ids), None), text
        assert without_loop(stream) == text


def test_a_repeated_sentence_in_different_tokens() -> None:
    """The text repeats four times with different token boundaries, so that no token sequence repeats."""
    sentence = "thanks for watching "
    cuts = [(3, 9), (5, 11), (2, 14), (7, 12)]
    pieces = [part for a, b in cuts for part in (sentence[:a], sentence[a:b], sentence[b:])]
    stream, token_ids = stream_of(["OK, ", *pieces])
    assert stop_of(stream, token_ids) == (len(token_ids), StopReason.LOOP)
    assert without_loop(stream) == "OK, thanks for watching"


@given(
    before=st.lists(st.sampled_from("abc"), max_size=30),
    phrase=st.lists(st.sampled_from(["a", "b", "c", "ab", "你"]), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_one_round_is_left(before: list[str], phrase: list[str]) -> None:
    stream, token_ids = stream_of(before + phrase * 64)
    assert stop_of(stream, token_ids)[1] == StopReason.LOOP
    text = without_loop(stream)
    assert find_loop(text, 40) is None
    if end := loop_by_definition(stream.token_ids, 16):
        assert text == stream.spell(stream.token_ids[:end])
    else:
        end = loop_by_definition(stream.raw, 40)
        assert end
        assert text == stream.raw[:end]


def bytewise(text: str) -> tuple[TextStream, list[int]]:
    return TextStream(lambda ids: bytes(ids).decode(errors="replace")), list(text.encode(errors="surrogateescape"))


@pytest.mark.parametrize(
    ("before", "again", "left"),
    [
        ("", "你", "你"),
        ("彠", "你", "彠你"),  # E5 BD A0, E4 BD A0: byte by byte, the loop begins within the first character
        ("说：你", "你", "说：你"),
        ("", "好的，", "好的，"),
        ("a", "😀", "a😀"),
        ("a", "\udce4", "a\ufffd"),  # a byte that is not a character
    ],
)
def test_the_remaining_text_ends_with_a_whole_character(before: str, again: str, left: str) -> None:
    stream, token_ids = bytewise(before + again * 20)
    _, reason = stop_of(stream, token_ids)
    assert reason == StopReason.LOOP
    assert without_loop(stream) == left


@pytest.mark.parametrize(
    ("duration_s", "tokens"), [(0, 24), (0.5, 32), (1, 40), (2.25, 60), (30, 504), (300, 4824)]
)
def test_the_budget_depends_on_the_length(duration_s: float, tokens: int) -> None:
    assert token_budget(duration_s) == tokens
    stream = TextStream(lambda ids: "".join(chr(0x4E00 + index) for index in ids))
    token_ids = list(range(1000, 1000 + tokens + 10))
    if tokens < 600:
        assert stop_of(stream, token_ids, duration_s) == (tokens, StopReason.BUDGET)
        assert len(stream.raw) == tokens


def pushed(max_tokens: int | None, *tokens: tuple[int, float]) -> tuple[list[StopReason | None], list[int]]:
    """Return a guard's verdict on each token (id, log-probability), and the tokens that became text."""
    stopping, stream = StoppingCriteria((STOP, STOP + 1), token_budget(1.0), max_tokens), TextStream(str)
    reasons = [stopping.push(Token(0, token_id, logprob), stream) for token_id, logprob in tokens]
    return reasons, stream.token_ids


@pytest.mark.parametrize("logprob", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("token_id", [5, STOP])
def test_not_a_number_takes_precedence(logprob: float, token_id: int) -> None:
    assert pushed(2, (1, -0.5), (token_id, logprob)) == ([None, StopReason.NONFINITE], [1])


@pytest.mark.parametrize("token_id", [STOP, STOP + 1])
def test_a_stop_token_at_the_limit_ends_the_text(token_id: int) -> None:
    assert pushed(2, (1, -0.5), (token_id, -0.5)) == ([None, StopReason.EOS], [1])
    assert pushed(1, (token_id, -0.5)) == ([StopReason.EOS], [])


@pytest.mark.parametrize(
    ("reason", "by_itself", "with_a_limit", "doubtful"),
    [
        (StopReason.LOOP, True, True, True),
        (StopReason.BUDGET, True, False, True),
        (StopReason.NONFINITE, False, False, False),
        (StopReason.EOS, False, False, True),
    ],
)
def test_which_reasons_are_worth_retrying(
    reason: StopReason, by_itself: bool, with_a_limit: bool, doubtful: bool
) -> None:
    assert StoppingCriteria((STOP,), token_budget(1.0), None).worth_retrying(reason) is by_itself
    assert StoppingCriteria((STOP,), token_budget(1.0), None).worth_retrying(reason, doubtful=True) is doubtful
    assert StoppingCriteria((STOP,), token_budget(1.0), 40).worth_retrying(reason) is with_a_limit
    assert not Quota(5).worth_retrying(StopReason.BUDGET, doubtful=True)


def first_stop(token_ids: list[int], spell: Callable[[list[int]], str], budget: int) -> tuple[int, str] | None:
    for count in range(1, len(token_ids) + 1):
        if token_ids[count - 1] == STOP:
            return count, "eos"
        written = token_ids[:count]
        if loop_by_definition(written, 16) or loop_by_definition(spell(written), 40):
            return count, "loop"
        if count == budget:
            return count, "budget"
    return None


@given(
    parts=st.lists(st.tuples(st.lists(st.sampled_from([1, 2, STOP]), max_size=4), st.integers(1, 18)), max_size=4)
)
@settings(max_examples=50, deadline=None)
def test_the_first_reason_stops_the_row(parts: list[tuple[list[int], int]]) -> None:
    token_ids = [token_id for phrase, times in parts for token_id in phrase * times][:60]

    def spell(ids: list[int]) -> str:
        return "".join("ab"[index - 1] * 3 for index in ids)

    reached = stop_of(TextStream(spell), token_ids, duration_s=1)
    assert reached == (first_stop(token_ids, spell, token_budget(1)) or (len(token_ids), None))
