"""Configuration of FunASR-Qwen4B, and checks that its values are consistent.

Source: OminiX-MLX ``funasr-qwen4b-mlx``. Its history, its plan and its adaptor's README disagree about what goes
into the encoder, and about the prompt. No weights are published, so which one is right is unknown
(docs/qwen4b.md). Both are fields of the converted model's configuration.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from funasr_cli.checkpoints.untrusted import quoted
from funasr_cli.families.components import (
    encoder_misfits,
    heads_misfit,
    stops_misfit,
    widths_misfit,
)
from funasr_cli.families.funasr_qwen4b.prompt import FORMATS
from funasr_cli.features.fbank import FrontendConfig
from funasr_cli.models.post_norm import PostNormConfig
from funasr_cli.models.qwen3 import Qwen3Config
from funasr_cli.models.sanm import SANMConfig
from funasr_cli.options import ENCODER_INPUTS, SENSE_VOICE_INPUT

# SenseVoiceSmall has a table of query rows. Four precede the audio: Chinese, event, emotion, numbers in words.
QUERY_ROWS, QUERIES = 16, (3, 1, 2, 15)


@dataclass(frozen=True)
class FunASRQwen4BConfig:
    """Configuration of the networks, the front end and the prompt.

    Attributes:
        encoder_input: one of `ENCODER_INPUTS`.
        prompt_format: one of `FORMATS`.
        stop_token_ids: tokens that end a text; Qwen3 has two.
        positions: the most tokens of a prompt and its text.
        empty_think: whether an empty ``<think>`` block keeps the decoder from thinking; for texts alone.
    """

    encoder_input: str
    prompt_format: str
    frontend: FrontendConfig
    encoder: SANMConfig
    adaptor: PostNormConfig
    llm: Qwen3Config
    stop_token_ids: tuple[int, ...]
    positions: int
    empty_think: bool

    @property
    def has_queries(self) -> bool:
        """Whether the encoder gets what FunASR gives to SenseVoiceSmall: normalised features after query rows."""
        return self.encoder_input == SENSE_VOICE_INPUT


def misfits(config: FunASRQwen4BConfig) -> Iterator[str]:
    """Report inconsistent values of a configuration whose numbers are in range."""
    llm, encoder, adaptor = config.llm, config.encoder, config.adaptor
    choices = {"encoder_input": ENCODER_INPUTS, "prompt_format": tuple(FORMATS)}
    for name, known in choices.items():
        if (stated := getattr(config, name)) not in known:
            yield f"{name} is {quoted(stated)}, not one of {', '.join(known)}"
    yield from heads_misfit("adaptor", adaptor.width, adaptor.heads)
    yield from widths_misfit("the adaptor", adaptor.input_dim, "the encoder", encoder.width)
    yield from widths_misfit("the decoder", llm.hidden_size, "the adaptor", adaptor.output_dim)
    yield from heads_misfit("decoder's query heads", llm.num_attention_heads, llm.num_key_value_heads)
    yield from encoder_misfits(encoder, config.frontend)
    yield from stops_misfit(config.stop_token_ids, llm.vocab_size)
