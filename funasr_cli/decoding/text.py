"""From tokens to clean text, at the end of decoding and while it is still running.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``inference_llm``: ``/sil`` becomes a space, and so does a
run of white space). What differs: ``<think>`` blocks and white space at both ends are removed.
"""

import math
import re
from collections.abc import Callable

from funasr_cli.transcript import Score

THINK = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)
FIRST_THINK = re.compile(r"\s*<think>.*?(?:</think>|\Z)", re.DOTALL)  # at the beginning
SILENCE_MARK = "/sil"
WHITE_SPACE = re.compile(r"\s+")
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # a character whose last bytes have not been decoded yet


def clean_text(raw: str, *, has_marks: bool = True) -> str:
    """Convert the decoder's complete raw output to the final text.

    Without marks, as in Whisper's output, ``<think>`` and ``/sil`` are words like any others.
    """
    return WHITE_SPACE.sub(" ", THINK.sub("", raw).replace(SILENCE_MARK, " ") if has_marks else raw).strip()


def thinking(raw: str) -> str:
    """Return the contents of all ``<think>`` blocks, joined."""
    return "\n".join(block.strip() for block in THINK.findall(raw) if block.strip())


def settled_text(raw: str, *, has_marks: bool = True) -> str:
    """Return the part of `clean_text` that no further token can change."""
    if not has_marks:
        return clean_text(raw.rstrip(UNFINISHED), has_marks=False)
    raw = _without_unfinished_mark(raw.rstrip(UNFINISHED), "<think>")
    return clean_text(_without_unfinished_mark(THINK.sub("", raw), SILENCE_MARK))


def written_text(raw: str) -> str:
    """Convert a language model's complete raw output to its text, which keeps its lines.

    Only a ``<think>`` block at the beginning is removed, up to the first ``</think>``.
    """
    block = FIRST_THINK.match(raw)
    return raw[block.end() if block else 0 :].strip()


def settled_written_text(raw: str) -> str:
    """Return the part of `written_text` that no further token can change."""
    raw = raw.rstrip(UNFINISHED)
    return "" if "<think>".startswith(raw.lstrip()) else written_text(raw)


def _without_unfinished_mark(text: str, mark: str) -> str:
    """Drop an ending that further tokens may complete to ``mark``."""
    for size in range(len(mark) - 1, 0, -1):
        if text.endswith(mark[:size]):
            return text[:-size]
    return text


class TextStream:
    """The text of a row that is being decoded. ``settled`` only grows, until it is the final text.

    Args:
        spell: token ids -> raw text, without special tokens.
        earlier: text that precedes the first token and is part of the text.
        settle: returns the part of a raw text that is final.
    """

    def __init__(
        self, spell: Callable[[list[int]], str], earlier: str = "", settle: Callable[[str], str] = settled_text
    ):
        self.spell = (lambda token_ids: earlier + spell(token_ids)) if earlier else spell
        self._spell_alone = spell
        self.earlier, self._settle = earlier, settle
        self.token_ids: list[int] = []
        self.raw = earlier  # everything decoded so far, as the tokenizer spells it
        self.settled = settle(earlier)
        # For each extension of `settled`: its new length, and the lowest log-probability of the tokens added.
        self._settled_by: list[tuple[int, float]] = [(len(self.settled), 0.0)]
        self._lowest = 0.0  # lowest log-probability since the last extension

    def push(self, token_id: int, logprob: float = 0.0) -> None:
        """Add a token."""
        self.token_ids.append(token_id)
        self.raw = self.spell(self.token_ids)
        before, self.settled = len(self.settled), self._settle(self.raw)
        if logprob < self._lowest and self._spell_alone([token_id]):  # a time, for example, is not in the text
            self._lowest = logprob
        if len(self.settled) > before:
            self._settled_by.append((len(self.settled), self._lowest))
            self._lowest = 0.0
        elif self.raw.endswith("</think>"):
            self._lowest = 0.0  # the think block is not part of the text

    def scores(self, text: str) -> tuple[Score, ...]:
        """Split the final text, or a prefix of it, into the pieces that were decoded, each with its probability.

        A piece made of several tokens gets the probability of the least likely one.
        """
        scores, start = [], 0
        for end, logprob in [*self._settled_by, (len(text), self._lowest)]:
            if start < min(end, len(text)):
                scores.append(Score(text[start:end], math.exp(logprob)))
                start = end
        return tuple(scores)
