"""Continuous batching compared with each row decoded alone, without cache or batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.parity.small_decoder import (
    ENGINES,
    LLM,
    LOGPROB_TOLERANCE,
    LONGEST,
    SAMPLING,
    WIDTH,
    Watched,
    on_both_engines,
    random_prompt,
    written,
    written_alone,
)

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.mlx_batch import bucketed
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.models.cache import DecoderCache
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.options import DEFAULTS, TranscribeOptions

LENGTHS = (1, 3, 12, 33, 34, 47)  # of prompts; 33 and 47 are padded to 34 and 48 even if they are alone

greedy_and_sampling = pytest.mark.parametrize("options", [DEFAULTS, SAMPLING], ids=["greedy", "sampling"])
both_paces = pytest.mark.parametrize("eager", [False, True], ids=["step by step", "next step under way"])
all_ways = pytest.mark.parametrize(
    ("engine", "eager"),
    [(engine, False) for engine in ENGINES] + [("mlx", True)],
    ids=[*ENGINES, "mlx, next step under way"],
)


@contextmanager
def settings_of(eager: bool, growth: int = 256) -> Iterator[None]:
    """Decode as on a GPU (eager) or a CPU, with caches that grow by `growth` columns."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("cost", "mlx_batch"):
            patch.setattr(f"funasr_cli.decoding.{module}.on_accelerator", lambda: eager)
        patch.setattr("funasr_cli.models.cache.GROWTH_COLUMNS", growth)
        yield


def follow(watched: Watched, action: str, values: list[int]) -> None:
    """Execute an action of a schedule; `values` are prompt lengths, indices of live rows, or a number of steps."""
    if action == "add":
        watched.add(values)
    elif action == "step":
        for _ in range(*values):
            watched.step()
    else:
        rows = list(watched.live)
        for row in rows if action == "end all" else {rows[place] for place in values if place < len(rows)}:
            watched.end(row)


schedules = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=4)),
        st.tuples(st.just("step"), st.lists(st.integers(1, 9), min_size=1, max_size=1)),
        st.tuples(st.just("end"), st.lists(st.integers(0, 7), min_size=1, max_size=4)),
        st.tuples(st.just("end all"), st.just([])),
    ),
    min_size=2,
    max_size=16,
)


@pytest.mark.slow
@on_both_engines
def test_the_rows_are_suitable_for_comparison(engine: str) -> None:
    """All rows differ, and none loops."""
    for options in (DEFAULTS, SAMPLING):
        texts = [[token_id for token_id, _ in written(length, options, engine)] for length in LENGTHS]
        assert len(set(map(tuple, texts))) == len(LENGTHS)
        assert min(len(set(text)) for text in texts) >= LONGEST // 2
    assert all(written(length, DEFAULTS, engine) != written(length, SAMPLING, engine) for length in LENGTHS)


@pytest.mark.slow
@all_ways
@greedy_and_sampling
@given(schedule=schedules, growth=st.sampled_from([1, 8, 256]))
@settings(max_examples=40, deadline=None)
def test_rows_do_not_depend_on_rows_that_join_or_end(
    options: TranscribeOptions, engine: str, eager: bool, schedule: list[tuple[str, list[int]]], growth: int
) -> None:
    with settings_of(eager, growth):
        watched = Watched(options, engine)
        for action, values in schedule:
            follow(watched, action, values)
        while watched.live:
            watched.step()
        assert watched.decoder.step() == []


@pytest.mark.slow
@both_paces
def test_ended_rows_leave_the_batch(eager: bool) -> None:
    """They are removed when they make up half of the batch, and when others join."""
    with settings_of(eager):
        watched, sizes = Watched(), []
        for action, values in (
            ("add", [1, 3, 12, 33]), ("end", [1]), ("end", [2]), ("add", [47, 12]), ("end", [0]), ("add", [3])
        ):  # fmt: skip
            follow(watched, action, values)
            watched.step()
            sizes.append(watched.decoder._batch.cache.layers[0].keys.shape[0])
        assert sizes == [4, 4, 2, 4, 4, 4]


@both_paces
def test_the_cache_is_freed_when_all_rows_have_ended(eager: bool) -> None:
    with settings_of(eager):
        watched = Watched()
        watched.add([47])
        watched.step()  # from here on, everything that outlives the rows is in memory
        follow(watched, "end all", [])
        watched.step()
        mx.synchronize()  # pending computations also hold memory
        held_before = mx.get_active_memory()
        watched.add([47, 33, 3, 1])
        watched.step()
        cache_bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in watched.decoder._batch.cache.layers)
        assert mx.get_active_memory() >= held_before + cache_bytes
        follow(watched, "end all", [])
        watched.step()
        mx.synchronize()
        assert mx.get_active_memory() < held_before + cache_bytes // 10


@pytest.mark.slow
@both_paces
def test_the_cache_stays_short_while_many_rows_join_and_end(eager: bool) -> None:
    """200 rows of up to 20 columns, four at a time: the cache never exceeds the length of two consecutive rows."""
    draw = np.random.default_rng(0)
    columns, capacities = [], set()
    with settings_of(eager, growth=8):
        watched = Watched()
        while len(watched.tokens) < 200 or watched.live:
            if len(watched.live) < 4 and len(watched.tokens) < 200:
                watched.add(draw.choice([1, 3, 12], 4 - len(watched.live)).tolist())
            watched.step()
            for row in [row for row in watched.live if draw.random() < 0.2 or watched.tokens[row] == 8]:
                watched.end(row)
            columns.append(watched.decoder._batch.cache.columns)
            capacities.add(watched.decoder._batch.cache.layers[0].keys.shape[2])
    assert len(watched.tokens) == 200
    assert max(columns) <= 40
    assert max(capacities) <= 40
    assert min(columns[-100:]) < 20  # and it shrinks again


@all_ways
@greedy_and_sampling
@pytest.mark.parametrize("value", [mx.nan, mx.inf])
def test_a_broken_row_does_not_affect_earlier_later_and_parallel_ones(
    options: TranscribeOptions, engine: str, eager: bool, value: float
) -> None:
    broken = mx.concatenate([random_prompt(12), mx.full((1, WIDTH), value)])
    with settings_of(eager, growth=8):
        decoder = BatchDecoder(ENGINES[engine], make_sampler(options))
        rows: dict[int, int] = dict(zip(decoder.add([random_prompt(33), random_prompt(1)]), (33, 1), strict=True))
        found: dict[int, list[Token]] = {}

        def step() -> None:
            for token in decoder.step():
                found.setdefault(token.row, []).append(token)

        step()
        [bad, other] = decoder.add([broken, random_prompt(3)])
        rows[other] = 3
        step()
        step()
        rows |= dict(
            zip(decoder.add([random_prompt(47), random_prompt(12)]), (47, 12), strict=True)
        )  # the broken row is still in the batch
        step()
        decoder.end(bad)
        for _ in range(3):
            step()
    assert [token.finite for token in found.pop(bad)] == [False] * 3
    assert {row: len(tokens) for row, tokens in found.items()} == {0: 7, 1: 7, other: 6, 4: 4, 5: 4}
    for row, tokens in found.items():
        expected = written(rows[row], options, engine)[: len(tokens)]
        assert [token.token_id for token in tokens] == [token_id for token_id, _ in expected]
        assert all(token.finite for token in tokens)


@pytest.mark.slow
@both_paces
@pytest.mark.parametrize(("options", "at_once"), [(DEFAULTS, 512), (DEFAULTS, 8), (SAMPLING, 1)])
@pytest.mark.parametrize("shared_rows", [0, 1, 8, 9])
def test_the_common_prefix_of_prompts_is_computed_once(
    options: TranscribeOptions, eager: bool, shared_rows: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is computed as one row, in pieces; every row still decodes as it does alone."""
    beginning, lengths = random_prompt(shared_rows, seed=99), [3, 12, 1, 40, 9, 25, 2, 70]
    prompts = [mx.concatenate([beginning, random_prompt(length)]) for length in lengths]
    read: list[tuple[int, ...]] = []  # rows and columns of prompts
    read_prompt, run = Qwen3.read, Qwen3.__call__

    def watched_read(llm: Qwen3, embeddings: mx.array, cache: DecoderCache) -> mx.array:
        read.append(embeddings.shape[:2])
        return read_prompt(llm, embeddings, cache)

    def watched_run(llm: Qwen3, embeddings: mx.array, cache: DecoderCache) -> mx.array:
        assert embeddings.shape[1] <= max(1, at_once // embeddings.shape[0])
        return run(llm, embeddings, cache)

    found: dict[int, list[Token]] = {}
    with settings_of(eager, growth=8), monkeypatch.context() as patch:
        patch.setattr(Qwen3, "read", watched_read)
        patch.setattr(Qwen3, "__call__", watched_run)
        patch.setattr("funasr_cli.models.qwen3.POSITIONS_AT_ONCE", at_once)
        decoder = BatchDecoder(LLM, make_sampler(options), shared_rows)
        for first, last in ((0, 2), (2, 5), (5, 6), (6, 8)):
            decoder.add(prompts[first:last])
            for _ in range(3):
                for token in decoder.step():
                    found.setdefault(token.row, []).append(token)
    assert read == [(1, shared_rows)] * bool(shared_rows) + [(2, 12), (3, 40), (1, 25), (2, bucketed(70))]
    assert [len(found[row]) for row in range(8)] == [12, 12, 9, 9, 9, 6, 3, 3]
    for row, length in enumerate(lengths):
        expected = written_after_prefix(shared_rows, length, options)[: len(found[row])]
        assert [token.token_id for token in found[row]] == [token_id for token_id, _ in expected]
        for token, (_, logprob) in zip(found[row], expected, strict=True):
            assert abs(token.logprob - logprob) < LOGPROB_TOLERANCE


@cache
def written_after_prefix(shared_rows: int, length: int, options: TranscribeOptions) -> list[tuple[int, float]]:
    prompt = mx.concatenate([random_prompt(shared_rows, seed=99), random_prompt(length)])
    return written_alone(LLM, prompt, 12, options)


@pytest.mark.slow
def test_memory_grows_only_linearly_with_the_length_of_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one piece, and for each row, the attention scores of 3,072 columns alone would take 600 MB."""
    monkeypatch.setattr("funasr_cli.models.qwen3.POSITIONS_AT_ONCE", 64)
    peaks = []
    for columns in (384, 3072):
        decoder = BatchDecoder(LLM, make_sampler(DEFAULTS), columns)
        prompts = [random_prompt(columns + 1)] * 4
        mx.eval(prompts)
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        decoder.add(prompts)
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < 10 * peaks[0] < 10 * 2**22


@given(st.integers(1, 1 << 20), st.integers(0, 5000))
@settings(max_examples=300, deadline=None)
def test_bucketed(length: int, more: int) -> None:
    assert length <= bucketed(length) <= length + length // 16 + 1
    assert bucketed(length) <= bucketed(length + more)
    assert bucketed(bucketed(length)) == bucketed(length)


def test_buckets_are_few() -> None:
    assert [bucketed(length) for length in range(1, 33)] == list(range(1, 33))
    octaves = 8  # from 32 to 8192
    assert len({bucketed(length) for length in range(32, 8193)}) == 16 * octaves + 1
