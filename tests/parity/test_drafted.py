"""Decoding with drafts of all kinds gives the same text as each row alone, without cache, batch or draft."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.parity.small_decoder import (
    ENGINES,
    LLM,
    LONGEST,
    SAMPLING,
    VOCAB_SIZE,
    WIDTH,
    Watched,
    on_both_engines,
    random_prompt,
    written,
)

from funasr_cli.compute.backend import mx
from funasr_cli.decoding import cost
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.cost import MOST_POSITIONS, RunCost, drafts_pay, tried_at_once
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.native.decoder import NativeDecoder
from funasr_cli.options import DEFAULTS, TranscribeOptions

LENGTHS = (1, 3, 12, 33, 47)  # of prompts
greedy_and_sampling = pytest.mark.parametrize("options", [DEFAULTS, SAMPLING], ids=["greedy", "sampling"])


@dataclass
class Script:
    """A draft that proposes the row's own future text, with mistakes at given positions."""

    truth: list[int]
    stretches: list[int]  # lengths of the proposals, repeated cyclically
    mistakes: set[int]  # positions in the text
    odds: tuple[float, float] = (0.9, 0.9)
    done: int = 0
    judged: list[tuple[int, int]] = field(default_factory=list)
    asked: int = 0

    def propose(self) -> list[int]:
        length = self.stretches[self.asked % len(self.stretches)]
        self.asked += 1
        places = range(self.done, min(self.done + length, len(self.truth)))
        return [(self.truth[at] + (at in self.mistakes)) % VOCAB_SIZE for at in places]

    def judge(self, proposed: int, accepted: int) -> None:
        assert 0 <= accepted <= proposed
        self.judged.append((proposed, accepted))


chances = st.sampled_from([0.2, 0.6, 0.9, 1.0])


@st.composite
def drafts(draw: Any, length: int, options: TranscribeOptions, engine: str) -> Script | None:
    if draw(st.integers(0, 4)) == 0:
        return None
    truth = [token_id for token_id, _ in written(length, options, engine)]
    stretches = draw(st.lists(st.integers(0, 30), min_size=1, max_size=3))
    mistakes = draw(st.sets(st.integers(0, LONGEST), max_size=6))
    return Script(truth, stretches, mistakes, odds=(draw(chances), draw(chances)))


@pytest.mark.slow
@on_both_engines
@greedy_and_sampling
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_the_text_does_not_depend_on_drafts(options: TranscribeOptions, engine: str, data: st.DataObject) -> None:
    """Rows join and end at any step, with proposals of all lengths, right, partly right and wrong."""
    drafted = Watched(options, engine)
    for _ in range(data.draw(st.integers(1, 3))):
        lengths = data.draw(st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=4))
        drafted.add(lengths, [data.draw(drafts(length, options, engine)) for length in lengths])
        for _ in range(data.draw(st.integers(1, 4))):
            if drafted.live:
                drafted.step()
    while drafted.live:
        drafted.step()
    assert set(drafted.tokens.values()) == {LONGEST}


def right(length: int, engine: str) -> Script:
    return Script([token_id for token_id, _ in written(length, DEFAULTS, engine)], [LONGEST], set())


@on_both_engines
def test_a_right_draft_is_read_with_the_prompt(engine: str) -> None:
    drafted = Watched(engine=engine)
    drafted.add([12], [draft := right(12, engine)])
    drafted.step()
    [(proposed, accepted)] = draft.judged
    assert proposed == accepted > 1
    assert drafted.tokens == {0: accepted + 1}


@on_both_engines
def test_right_drafts_save_passes_and_wrong_ones_do_not(engine: str) -> None:
    rows = {name: right(12, engine) for name in ("right", "mistakes", "wrong")}
    rows["mistakes"].mistakes = {5, 10, 15}
    rows["wrong"].mistakes = set(range(LONGEST))
    passes = {}
    for name, draft in rows.items():
        drafted = Watched(engine=engine)
        drafted.add([12], [draft])
        while drafted.live:
            drafted.step()
        passes[name] = drafted.passes[0]
    assert passes["wrong"] == LONGEST
    assert passes["right"] < passes["mistakes"] < LONGEST // 3
    assert all(accepted == 0 for _, accepted in rows["wrong"].judged)


@on_both_engines
def test_a_broken_row_accepts_nothing_from_its_draft(engine: str) -> None:
    broken = mx.concatenate([random_prompt(12), mx.full((1, WIDTH), mx.nan)])
    decoder = BatchDecoder(ENGINES[engine], make_sampler(DEFAULTS))
    decoder.add([broken, random_prompt(3)], [right(12, engine), right(3, engine)])
    tokens = decoder.step()
    assert not any(token.finite for token in tokens if token.row == 0)
    other = [token.token_id for token in tokens if token.row == 1]
    assert other == [token_id for token_id, _ in written(3, DEFAULTS, engine)][: len(other)]


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0))), min_size=1, max_size=20
    ),
    st.builds(RunCost, st.sampled_from([1, 16, 128, 1000]), st.sampled_from([0, 16])),
)
@settings(max_examples=200, deadline=None)
def test_number_of_proposed_tokens(rows: list[tuple[int, tuple[float, float]]], run_cost: RunCost) -> None:
    """The chosen width is compared with the best of all widths: the most expected tokens for their cost."""
    lengths, odds = [length for length, _ in rows], [chance for _, chance in rows]

    def rate(width: int) -> float:
        right = sum(
            first * further**place for length, (first, further) in rows for place in range(min(length, width))
        )
        return (len(rows) + right) / run_cost(len(rows) * (1 + width))

    width = tried_at_once(lengths, odds, run_cost)
    assert 0 <= width <= max(lengths)
    assert len(rows) * (1 + width) <= max(MOST_POSITIONS, len(rows))
    allowed = range(min(max(lengths), MOST_POSITIONS // len(rows) - 1) + 1)
    assert rate(width) == pytest.approx(max(map(rate, allowed)))


def test_cost_of_a_pass() -> None:
    assert [RunCost(16, 16)(positions) for positions in (1, 2, 3, 16, 17)] == [17, 18, 32, 32, 33]
    assert [RunCost(128)(positions) for positions in (1, 3, 16)] == [129, 131, 144]
    assert RunCost.of(LLM) == RunCost(16, 16)
    assert {RunCost.of(llm).padded for name, llm in ENGINES.items() if name != "mlx"} <= {0}


@pytest.mark.parametrize(
    ("size_bytes", "rows", "pay"), [(1_800_000, 1, True), (1_800_000, 2, False), (630_000_000, 16, True)]
)
def test_when_drafts_pay(size_bytes: int, rows: int, pay: bool) -> None:
    """On the C library, with decoders of the demo's and the release's size."""
    assert drafts_pay(Mock(spec=NativeDecoder, size_bytes=size_bytes), rows) is pay


def test_when_drafts_pay_on_mlx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where each position costs as much as a pass: on a CPU, in other types than float32."""
    other = Mock(spec=type(LLM), matrix_dtype=mx.bfloat16)
    for accelerated in (False, True):
        monkeypatch.setattr(cost, "on_accelerator", lambda value=accelerated: value)
        assert drafts_pay(LLM, 16)
        assert drafts_pay(other, 1) is accelerated
