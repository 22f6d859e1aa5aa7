"""When a row has to stop: the model says so, it has written more than can be said, or it goes in circles."""

from collections.abc import Sequence
from enum import StrEnum

from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.text import UNFINISHED, TextStream

TOKENS_AT_ONCE = 24  # on top of the rate: punctuation, a short segment's last word
TOKENS_A_SECOND = 16  # the fastest speakers come to about 8 tokens of Qwen's a second, more in rarer scripts
LONGEST_PERIOD = 64
LONGEST_CHARACTER = 4  # bytes, each of which may be a token
ROUNDS = 4  # in a row are a loop...
LOOPING_TOKENS = 16  # ...if it is at least this long...
LOOPING_CHARACTERS = 40  # ...in one or the other: the same characters can be cut into ever different tokens


class StopReason(StrEnum):
    """Why a row ended."""

    EOS = "eos"
    BUDGET = "budget"
    LOOP = "loop"
    NONFINITE = "nonfinite"


def token_budget(duration_s: float) -> int:
    """Return a number of tokens that nobody can say in this time."""
    return TOKENS_AT_ONCE + round(TOKENS_A_SECOND * duration_s)


def find_loop(sequence: Sequence[object], shortest: int) -> int | None:
    """Find the loop of the shortest period at the end of tokens or characters, and where its first round ends.

    It takes at least `shortest` repeated items, and `ROUNDS` rounds in any case.
    """
    for period in range(1, min(LONGEST_PERIOD, len(sequence) // ROUNDS) + 1):
        start = len(sequence) - period
        while start > 0 and sequence[start - 1] == sequence[start - 1 + period]:
            start -= 1
        if len(sequence) - start >= max(ROUNDS * period, shortest):
            return start + period
    return None


class StoppingCriteria:
    """Watches one row."""

    def __init__(self, stop_token_ids: tuple[int, ...], duration_s: float, max_tokens: int | None):
        """`max_tokens` is a limit that was asked for; None goes by the length of the row's audio."""
        self._stop_token_ids = stop_token_ids
        self._asked_for = max_tokens is not None
        self._budget = token_budget(duration_s) if max_tokens is None else max_tokens
        self._seen = 0

    def push(self, token: Token, stream: TextStream) -> StopReason | None:
        """Let a token into the text, if it is text; why the row has to stop, if it has to."""
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
        """Whether smaller pieces may do better; not against a limit that was asked for, or with broken weights.

        `doubtful` is a text where the CTC branch heard something else.
        """
        if reason == StopReason.EOS:
            return doubtful
        return reason == StopReason.LOOP or (reason == StopReason.BUDGET and not self._asked_for)


class Quota(StoppingCriteria):
    """Lets exactly this number of tokens through, whatever they are: for measuring."""

    def __init__(self, tokens: int):
        super().__init__((), 0.0, tokens)

    def push(self, token: Token, stream: TextStream) -> StopReason | None:
        """Count a token."""
        self._seen += 1
        stream.push(token.token_id, token.logprob)
        return StopReason.BUDGET if self._seen == self._budget else None


def without_loop(stream: TextStream) -> str:
    """Raw text up to the end of the first round of its loop, or of the character that this would cut."""
    if end := find_loop(stream.token_ids, LOOPING_TOKENS):
        texts = [stream.spell(stream.token_ids[: end + more]) for more in range(LONGEST_CHARACTER)]
        return next((text for text in texts if not text.endswith(UNFINISHED)), texts[0])
    return stream.raw[: find_loop(stream.raw, LOOPING_CHARACTERS)]  # all of it where there is none
