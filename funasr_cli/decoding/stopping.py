"""When a row has to stop: at a stop token, at its token budget, in a loop, or at values that are not finite."""

from collections.abc import Sequence
from enum import StrEnum

from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.text import UNFINISHED, TextStream
from funasr_cli.options import TranscribeOptions

TOKENS_AT_ONCE = 24  # budget in addition to the rate: for punctuation, and the last word of a short segment
TOKENS_PER_S = 16  # the fastest speakers reach about 8 Qwen tokens a second, more in rarer scripts
LONGEST_PERIOD = 64
LONGEST_CHARACTER = 4  # bytes, each of which may be a token
# A loop has at least this number of rounds, and this number of tokens or of characters. Both are checked, since
# the same characters can be split into different tokens in each round.
ROUNDS = 4
LOOPING_TOKENS = 16
LOOPING_CHARACTERS = 40


class StopReason(StrEnum):
    """Reason why a row ended."""

    EOS = "eos"
    BUDGET = "budget"
    LOOP = "loop"
    NONFINITE = "nonfinite"


def token_budget(duration_s: float) -> int:
    """Return a number of tokens that exceeds any real speech of this duration."""
    return TOKENS_AT_ONCE + round(TOKENS_PER_S * duration_s)


def find_loop(sequence: Sequence[object], shortest: int) -> int | None:
    """Find a loop at the end of a sequence of tokens or characters; return where its first round ends.

    A loop has at least `shortest` items and `ROUNDS` rounds. The shortest period is tried first.
    """
    for period in range(1, min(LONGEST_PERIOD, len(sequence) // ROUNDS) + 1):
        start = len(sequence) - period
        while start > 0 and sequence[start - 1] == sequence[start - 1 + period]:
            start -= 1
        if len(sequence) - start >= max(ROUNDS * period, shortest):
            return start + period
    return None


class StoppingCriteria:
    """Stopping criteria of one row."""

    def __init__(self, stop_token_ids: tuple[int, ...], budget: int, max_tokens: int | None):
        """Set the criteria. `max_tokens` is the user's limit; without one, `budget` is the limit."""
        self._stop_token_ids = stop_token_ids
        self._asked_for = max_tokens is not None
        self._budget = budget if max_tokens is None else max_tokens
        self._seen = 0

    def push(self, token: Token, stream: TextStream) -> StopReason | None:
        """Append a token to the text, unless it is a stop token or not finite. Return a reason to stop, if any."""
        self._seen += 1
        if not token.finite:
            return StopReason.NONFINITE
        if token.token_id in self._stop_token_ids:
            return StopReason.EOS
        stream.push(token.token_id, token.logprob)
        if find_loop(stream.token_ids, LOOPING_TOKENS) or find_loop(stream.raw, LOOPING_CHARACTERS):
            return StopReason.LOOP
        return StopReason.BUDGET if self._seen == self._budget else None

    def worth_retrying(self, reason: StopReason, doubtful: bool = False) -> bool:
        """Return whether decoding smaller pieces may help.

        It does not help against the user's own limit, or if the weights are broken. `doubtful` means that
        something else contradicts the text, such as the CTC branch, or times that end too early.
        """
        if reason == StopReason.EOS:
            return doubtful
        return reason == StopReason.LOOP or (reason == StopReason.BUDGET and not self._asked_for)


class Quota(StoppingCriteria):
    """Stopping criteria for benchmarks, which accept exactly this number of tokens, stop tokens included."""

    def __init__(self, tokens: int):
        super().__init__((), tokens, tokens)

    def push(self, token: Token, stream: TextStream) -> StopReason | None:
        """Append a token to the text and count it."""
        self._seen += 1
        stream.push(token.token_id, token.logprob)
        return StopReason.BUDGET if self._seen == self._budget else None


def stopping_criteria(
    options: TranscribeOptions, stop_token_ids: tuple[int, ...], budget: int, most: int | None = None
) -> StoppingCriteria:
    """Return the criteria that options ask for; `most` is the decoder's own limit, if it has one."""
    asked_for = options.max_tokens if options.exact_tokens is None else options.exact_tokens
    if asked_for is not None and most is not None:
        asked_for = min(asked_for, most)
    if options.exact_tokens is not None and asked_for is not None:
        return Quota(asked_for)
    return StoppingCriteria(stop_token_ids, budget, asked_for)


def without_loop(stream: TextStream) -> str:
    """Return the raw text up to the end of the first round of its loop, without splitting a character."""
    if end := find_loop(stream.token_ids, LOOPING_TOKENS):
        texts = [stream.spell(stream.token_ids[: end + more]) for more in range(LONGEST_CHARACTER)]
        return next((text for text in texts if not text.endswith(UNFINISHED)), texts[0])
    return stream.raw[: find_loop(stream.raw, LOOPING_CHARACTERS)]  # everything if there is no loop
