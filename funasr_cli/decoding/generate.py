"""Autoregressive decoding of a batch, token by token."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from funasr_cli.backend import mx, on_accelerator
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.options import TranscribeOptions


class StopReason(StrEnum):
    """Why a row ended."""

    EOS = "eos"
    BUDGET = "budget"
    NONFINITE = "nonfinite"


@dataclass(frozen=True)
class Token:
    """One decoded token of one row.

    Attributes:
        stop: set on the last event of a row, whose ``token_id`` is then text only for `StopReason.BUDGET`.
    """

    row: int
    token_id: int
    logprob: float
    stop: StopReason | None


Sampler = Callable[[mx.array], mx.array]  # (batch, vocab) logits -> (batch,) ids


def make_sampler(options: TranscribeOptions) -> Sampler:
    """Greedy, or temperature, then top-k, then top-p (the order of transformers).

    All rows share a step's random numbers, so that a row's text does not depend on its neighbours.
    """
    if options.temperature == 0:
        return lambda logits: mx.argmax(logits, axis=-1)
    key = mx.random.key(options.seed or 0)

    def sample(logits: mx.array) -> mx.array:
        nonlocal key
        key, step_key = mx.random.split(key)
        # Differences to the likeliest: a tiny temperature may only push the others out of range.
        scaled = (logits - logits.max(axis=-1, keepdims=True)) / options.temperature
        if options.top_k is not None:
            scaled = keep_top_k(scaled, options.top_k)
        if options.top_p is not None:
            scaled = keep_top_p(scaled, options.top_p)
        return mx.argmax(scaled + mx.random.gumbel(logits.shape[-1:], key=step_key), axis=-1)

    return sample


def keep_top_k(logits: mx.array, count: int) -> mx.array:
    """(batch, vocab) with all but the ``count`` largest logits at minus infinity; ties with the last stay."""
    if count >= logits.shape[-1]:
        return logits
    least = mx.topk(logits, count, axis=-1).min(axis=-1, keepdims=True)
    return mx.where(logits >= least, logits, -mx.inf)


def keep_top_p(logits: mx.array, share: float) -> mx.array:
    """(batch, vocab) with everything behind the smallest set that holds ``share`` at minus infinity."""
    order = mx.argsort(-logits, axis=-1)
    probabilities = mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1)
    before = mx.cumsum(probabilities, axis=-1) - probabilities  # mass of the likelier tokens; 0 for the first
    kept = mx.put_along_axis(mx.zeros_like(before), order, (before < share).astype(before.dtype), axis=-1)
    return mx.where(kept > 0, logits, -mx.inf)


def left_pad(prompts: list[mx.array]) -> tuple[mx.array, list[int]]:
    """Join rows of different lengths so that all end in the last column.

    Args:
        prompts: one (length, hidden) array a row.

    Returns:
        (batch, longest, hidden), and the columns of padding in front of each row.
    """
    longest = max(prompt.shape[0] for prompt in prompts)
    padding = [longest - prompt.shape[0] for prompt in prompts]
    rows = [mx.pad(prompt, [(pad, 0), (0, 0)]) for prompt, pad in zip(prompts, padding, strict=True)]
    return mx.stack(rows), padding


def generate(
    llm: Qwen3, prompts: list[mx.array], stop_token_ids: tuple[int, ...], max_tokens: int, sampler: Sampler
) -> Iterator[Token]:
    """Write each row until it stops.

    The next step is under way while the caller handles the tokens of the last one.

    Args:
        llm: the decoder.
        prompts: one (length, hidden) array of embeddings a row.
        stop_token_ids: any of these ends a row.
        max_tokens: budget of each row.
        sampler: picks ids from logits.

    Yields:
        Events in step order, rows in order within a step; the last one of each row carries its stop reason.
    """
    embeddings, padding = left_pad(prompts)
    cache = llm.make_cache(padding)
    eager = on_accelerator()  # a GPU is fed ahead; a CPU would waste a whole step on rows that have just ended

    def step(embeddings: mx.array) -> tuple[mx.array, mx.array]:
        """(batch, new, hidden) -> ids and their log-probabilities, each (batch,)."""
        logits = llm.logits(llm(embeddings, cache)[:, -1])  # (batch, vocab)
        ids = sampler(logits)
        chosen = mx.take_along_axis(logits, ids[:, None], axis=-1)[:, 0]
        return ids, chosen - mx.logsumexp(logits, axis=-1)

    open_rows = set(range(len(prompts)))
    pending = step(embeddings)
    for written in range(1, max_tokens + 1):
        ids, logprobs = pending
        last = written == max_tokens
        if not last:
            pending = step(llm.embed(ids[:, None]))
            if eager:
                mx.async_eval(*pending)
        mx.eval(ids, logprobs)
        tokens = [
            Token(row, token_id, logprob, _stop_reason(token_id, logprob, stop_token_ids, last))
            for row, (token_id, logprob) in enumerate(zip(ids.tolist(), logprobs.tolist(), strict=True))
            if row in open_rows
        ]
        open_rows -= {token.row for token in tokens if token.stop}
        if open_rows and not eager:
            mx.async_eval(*pending)
        yield from tokens
        if not open_rows:
            return


def _stop_reason(token_id: int, logprob: float, stop_token_ids: tuple[int, ...], last: bool) -> StopReason | None:
    # The log-probability sums over all logits: one NaN or infinity among them shows here.
    if not -float("inf") < logprob < float("inf"):
        return StopReason.NONFINITE
    if token_id in stop_token_ids:
        return StopReason.EOS
    return StopReason.BUDGET if last else None
