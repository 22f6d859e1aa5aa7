"""Configuration of a Qwen3 chat model."""

from collections.abc import Iterator
from dataclasses import dataclass

from funasr_cli.families.components import heads_misfit, stops_misfit
from funasr_cli.models.qwen3 import Qwen3Config


@dataclass(frozen=True)
class Qwen3TextConfig:
    """Sizes of the decoder, and how it is asked.

    Attributes:
        llm: sizes of the decoder.
        positions: the most tokens of a prompt and its text.
        stop_token_ids: tokens that end a text.
        empty_think: whether an empty ``<think>`` block keeps the model from thinking.
    """

    llm: Qwen3Config
    positions: int
    stop_token_ids: tuple[int, ...]
    empty_think: bool


def misfits(config: Qwen3TextConfig) -> Iterator[str]:
    """Report inconsistent values of a configuration whose numbers are in range."""
    llm = config.llm
    yield from heads_misfit("query heads", llm.num_attention_heads, llm.num_key_value_heads)
    yield from stops_misfit(config.stop_token_ids, llm.vocab_size)
