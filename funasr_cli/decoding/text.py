"""What tokens spell: clean text, at the end and while they are still coming in.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``inference_llm``: ``/sil`` becomes a space, runs of white
space one space). What differs: ``<think>`` blocks and white space at both ends are taken out.
"""

import math
import re
from collections.abc import Callable

from funasr_cli.transcript import Score

THINK = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)
SILENCE_MARK = "/sil"
WHITE_SPACE = re.compile(r"\s+")
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # stands for a character whose last bytes are still to come


def clean_text(raw: str) -> str:
    """Final text of everything the decoder wrote."""
    return WHITE_SPACE.sub(" ", THINK.sub("", raw).replace(SILENCE_MARK, " ")).strip()


def thinking(raw: str) -> str:
    """What stood in ``<think>`` blocks, joined."""
    return "\n".join(block.strip() for block in THINK.findall(raw) if block.strip())


def settled_text(raw: str) -> str:
    """The part of `clean_text` that no further token can change."""
    raw = _without_unfinished_mark(raw.rstrip(UNFINISHED), "<think>")
    return clean_text(_without_unfinished_mark(THINK.sub("", raw), SILENCE_MARK))


def _without_unfinished_mark(text: str, mark: str) -> str:
    """Drop an ending that may yet grow into ``mark``."""
    for size in range(len(mark) - 1, 0, -1):
        if text.endswith(mark[:size]):
            return text[:-size]
    return text


class TextStream:
    """What a row spells while its tokens are still coming in: ``settled`` only grows, up to the final text.

    Args:
        spell: token ids -> raw text, special tokens left out.
        earlier: what has been written before the first token, and is part of the text.
    """

    def __init__(self, spell: Callable[[list[int]], str], earlier: str = ""):
        self.spell = (lambda token_ids: earlier + spell(token_ids)) if earlier else spell
        self.earlier = earlier
        self.token_ids: list[int] = []
        self.raw = earlier  # everything written so far, as the tokenizer spells it
        self.settled = settled_text(earlier)
        # Length of `settled`, and the lowest log-probability behind what was added to get there.
        self._settled_by: list[tuple[int, float]] = [(len(self.settled), 0.0)]
        self._lowest = 0.0  # of the tokens that have settled nothing yet

    def push(self, token_id: int, logprob: float = 0.0) -> None:
        """Add a token."""
        self.token_ids.append(token_id)
        self.raw = self.spell(self.token_ids)
        before, self.settled = len(self.settled), settled_text(self.raw)
        self._lowest = min(self._lowest, logprob)
        if len(self.settled) > before:
            self._settled_by.append((len(self.settled), self._lowest))
            self._lowest = 0.0
        elif self.raw.endswith("</think>"):
            self._lowest = 0.0  # what has been thought is no part of the text

    def scores(self, text: str) -> tuple[Score, ...]:
        """The final text, or the beginning of it, in the pieces in which it came, with how likely each was.

        Characters of several tokens are as likely as the least likely of these.
        """
        scores, start = [], 0
        for end, logprob in [*self._settled_by, (len(text), self._lowest)]:
            if start < min(end, len(text)):
                scores.append(Score(text[start:end], math.exp(logprob)))
                start = end
        return tuple(scores)
