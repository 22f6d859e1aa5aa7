"""Rules on logits: tokens that a decoder must not choose next, time tokens in order, a penalty for repetitions.

Source: openai-whisper ``whisper/decoding.py`` (``SuppressBlank``, ``SuppressTokens``, ``ApplyTimestampRules``);
OpenAI's API reference (``presence_penalty``).
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from funasr_cli.compute.backend import mx


class LogitRules(Protocol):
    """Rules that change the logits of the next tokens."""

    need_tokens: bool  # whether the rules depend on the tokens so far, not only on their number

    def __call__(self, logits: mx.array, steps: Sequence[int], written: Sequence[Sequence[int]]) -> mx.array:
        """Return the logits (batch, vocab) float32 after the rules.

        Args:
            logits: of each row's next token.
            steps: the number of tokens of each row.
            written: these tokens; may lack the latest ones unless `need_tokens`.
        """


def ruled(
    logits: mx.array, rules: Sequence[LogitRules], steps: Sequence[int], written: Sequence[Sequence[int]]
) -> mx.array:
    """Return logits (batch, vocab) after each row's rules; without rules, as they are."""
    for each in dict.fromkeys(rules):
        rows = [row for row, own in enumerate(rules) if own is each]
        chosen = logits[mx.array(rows)]
        logits[mx.array(rows)] = each(chosen, [steps[row] for row in rows], [written[row] for row in rows])
    return logits


class PresencePenalty:
    """Subtract a number from the logit of each token that a row has written, once, however often it has."""

    need_tokens = True

    def __init__(self, penalty: float):
        self._penalty = penalty

    def __call__(self, logits: mx.array, steps: Sequence[int], written: Sequence[Sequence[int]]) -> mx.array:
        """Subtract the penalty; see `LogitRules`."""
        pairs = [(row, token) for row, tokens in enumerate(written) for token in sorted(set(tokens))]
        if not pairs:
            return logits
        rows, tokens = mx.array(pairs).T
        return logits.at[rows, tokens].subtract(self._penalty)


class Exclusion:
    """Rules for a text without times: some tokens are never chosen, some not at the beginning.

    They exclude tokens by setting their logits to minus infinity.
    """

    need_tokens = False

    def __init__(self, vocab_size: int, never: Sequence[int], not_first: Sequence[int]):
        excluded = np.zeros((2, vocab_size), bool)  # at the beginning, and later
        excluded[:, list(never)] = True
        excluded[0, list(not_first)] = True
        self._excluded, self._on_device = excluded, mx.array(excluded)

    @property
    def first_of_group(self) -> int:
        """The first of the tokens that may together exclude all before them; the vocabulary's size without such.

        They do so if together they are likelier than the likeliest token before them.
        """
        return self._excluded.shape[1]

    def excluded(self, written: Sequence[int]) -> np.ndarray:
        """Return the tokens, (vocab,) bool, that may not follow those of a row, regardless of the logits."""
        return self._excluded[int(len(written) > 0)]

    def __call__(self, logits: mx.array, steps: Sequence[int], written: Sequence[Sequence[int]]) -> mx.array:
        """Exclude tokens; see `LogitRules`."""
        excluded = self._on_device[mx.array([int(step > 0) for step in steps])]  # (batch, vocab)
        return mx.where(excluded, -mx.inf, logits)


class TimeRules(Exclusion):
    """Rules for a text with time tokens, which are the highest ids of the vocabulary.

    The text begins with a time. Times come in pairs, one that ends a piece and one that begins the next, except
    before the end. They do not decrease, and no piece is empty. If all times together are likelier than the
    likeliest other token, the next token is a time.
    """

    need_tokens = True

    def __init__(
        self,
        vocab_size: int,
        never: Sequence[int],
        not_first: Sequence[int],
        end: int,
        first_time: int,
        latest: int,
    ):
        """Make the rules.

        Args:
            vocab_size: number of tokens.
            never: tokens that are never chosen.
            not_first: tokens that are not chosen at the beginning.
            end: the token that ends a text; ids below it are text.
            first_time: the lowest time token.
            latest: number of time tokens after it that the text may begin with.
        """
        super().__init__(vocab_size, never, not_first)
        self._vocab_size, self._end, self._first_time, self._latest = vocab_size, end, first_time, latest

    def __call__(self, logits: mx.array, steps: Sequence[int], written: Sequence[Sequence[int]]) -> mx.array:
        """Exclude tokens; see `LogitRules`."""
        first, excluded = self._first_time, np.stack([self.excluded(tokens) for tokens in written])
        logits = mx.where(mx.array(excluded), -mx.inf, logits)
        times = mx.logsumexp(logits[:, first:], axis=-1, keepdims=True)
        likelier = times > logits[:, :first].max(axis=-1, keepdims=True)  # (batch, 1)
        is_other = mx.arange(self._vocab_size) < first
        return mx.where(likelier & is_other, -mx.inf, logits)

    @property
    def first_of_group(self) -> int:
        """The first time token."""
        return self._first_time

    def excluded(self, written: Sequence[int]) -> np.ndarray:
        """Return the tokens that may not follow; see `Exclusion`."""
        tokens, first, excluded = written, self._first_time, super().excluded(written).copy()
        if not tokens:
            excluded[:first] = excluded[first + self._latest + 1 :] = True
            return excluded
        after_time = tokens[-1] >= first
        after_pair = after_time and (len(tokens) == 1 or tokens[-2] >= first)
        if after_pair:
            excluded[first:] = True
        elif after_time:
            excluded[: self._end] = True
        if times := [token for token in tokens if token >= first]:
            same_allowed = after_time and not after_pair  # the next piece may begin where this one ends
            excluded[first : times[-1] + (0 if same_allowed else 1)] = True
        return excluded
