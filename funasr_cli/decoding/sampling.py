"""Choice of token ids from logits: greedy, or by random sampling."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from funasr_cli.compute.backend import mx, on_accelerator

# (batch, vocab) logits, and the number of tokens that each row has so far -> (batch,) ids
Sampler = Callable[[mx.array, list[int]], mx.array]


class Sampling(Protocol):
    """What to sample from; see `TranscribeOptions`, whose fields these are."""

    @property
    def temperature(self) -> float: ...  # noqa: D102
    @property
    def top_p(self) -> float | None: ...  # noqa: D102
    @property
    def top_k(self) -> int | None: ...  # noqa: D102
    @property
    def seed(self) -> int | None: ...  # noqa: D102


def greedy(logits: mx.array, steps: list[int]) -> mx.array:
    """Choose the most likely tokens: a `Sampler` that an engine may replace with its own."""
    return mx.argmax(logits, axis=-1)


def make_sampler(options: Sampling) -> Sampler:
    """Make a sampler: greedy at temperature 0, else temperature, then top-k, then top-p (as in transformers).

    All rows use the same random numbers for their n-th token. So a text depends neither on the other rows of the
    batch nor on when its row joined.
    """
    if options.temperature == 0:
        return greedy
    keys = [mx.random.key(options.seed or 0)]  # the keys of all steps so far, then the one to split next

    def step_key(step: int) -> mx.array:
        while len(keys) < step + 2:
            keys.extend(reversed(mx.random.split(keys.pop())))
        return keys[step]

    def sample(logits: mx.array, steps: list[int]) -> mx.array:
        noise = {step: mx.random.gumbel(logits.shape[-1:], key=step_key(step)) for step in set(steps)}
        # Relative to the highest logit, so that a tiny temperature overflows only the logits of other tokens.
        scaled = (logits - logits.max(axis=-1, keepdims=True)) / options.temperature
        if options.top_k is not None:
            scaled = keep_top_k(scaled, options.top_k)
        if options.top_p is not None:
            scaled = keep_top_p(scaled, options.top_p)
        return mx.argmax(scaled + mx.stack([noise[step] for step in steps]), axis=-1)

    return sample


def log_probabilities(logits: mx.array, ids: mx.array) -> mx.array:
    """Return the log-probabilities of chosen ids: (batch, vocab) float32, (batch,) -> (batch,).

    On a CPU, this evaluates both arguments and uses NumPy: on x86, MLX does not vectorise exponentials.
    """
    if on_accelerator():
        chosen = mx.take_along_axis(logits, ids[:, None], axis=-1)[:, 0]
        return chosen - mx.logsumexp(logits, axis=-1)
    mx.eval(logits, ids)
    values = np.ascontiguousarray(np.array(logits, copy=False))
    with np.errstate(invalid="ignore"):  # a value that is not finite ends the row
        differences = values - values.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(differences, np.array(ids)[:, None].astype(np.int64), axis=-1)[:, 0]
        return mx.array(chosen - np.log(np.exp(differences).sum(axis=-1)))


def keep_top_k(logits: mx.array, count: int) -> mx.array:
    """Set all but the ``count`` largest logits (batch, vocab) to minus infinity. Ties with the last are kept."""
    if count >= logits.shape[-1]:
        return logits
    least = mx.topk(logits, count, axis=-1).min(axis=-1, keepdims=True)
    return mx.where(logits >= least, logits, -mx.inf)


def keep_top_p(logits: mx.array, share: float) -> mx.array:
    """Keep the smallest set of tokens whose probabilities sum to ``share``; set the others to minus infinity."""
    if share >= 1:  # sums are rounded, so unlikely tokens would be lost
        return logits
    order = mx.argsort(-logits, axis=-1)
    probabilities = mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1)
    before = mx.cumsum(probabilities, axis=-1) - probabilities  # probability of all likelier tokens together
    kept = mx.put_along_axis(mx.zeros_like(before), order, (before < share).astype(before.dtype), axis=-1)
    return mx.where(kept > 0, logits, -mx.inf)
