"""Configuration of Fun-ASR-Nano, and checks that its values are consistent."""

from collections.abc import Iterator
from dataclasses import dataclass

from funasr_cli.checkpoints.untrusted import readable
from funasr_cli.families.components import (
    encoder_misfits,
    frontend_misfits,
    heads_misfit,
    stops_misfit,
    widths_misfit,
)
from funasr_cli.features.fbank import FrontendConfig
from funasr_cli.languages import MLT_LANGUAGES, NANO_LANGUAGES
from funasr_cli.models.adaptor import AdaptorConfig
from funasr_cli.models.ctc import CTCConfig
from funasr_cli.models.qwen3 import Qwen3Config
from funasr_cli.models.sanm import SANMConfig

LOW_FRAME_RATE = 8  # feature rows per audio token in the prompt; see `audio_token_count`


@dataclass(frozen=True)
class PromptConfig:
    """The prompt format that this checkpoint was trained on.

    Attributes:
        system_turn: start with the system turn; ``dataset_conf.sys_prompt`` upstream.
        empty_think: put an empty ``<think>`` block after the assistant tag; the opposite of
            ``dataset_conf.do_think`` upstream.
        languages: ISO codes of the languages that can be requested.
    """

    system_turn: bool
    empty_think: bool
    languages: tuple[str, ...]


@dataclass(frozen=True)
class FunASRNanoConfig:
    """Configuration of the networks, the front end and the prompt."""

    frontend: FrontendConfig
    encoder: SANMConfig
    adaptor: AdaptorConfig
    llm: Qwen3Config
    ctc: CTCConfig | None
    prompt: PromptConfig
    stop_token_ids: tuple[int, ...]


def languages_of(name: str) -> tuple[str, ...]:
    """Return a checkpoint's languages, as ISO codes, by its name."""
    return MLT_LANGUAGES if "mlt" in name.casefold() else NANO_LANGUAGES


def misfits(config: FunASRNanoConfig) -> Iterator[str]:
    """Report inconsistent values of a configuration whose numbers are in range."""
    llm, ctc, encoder = config.llm, config.ctc, config.encoder
    if ctc and ctc.blank_id >= ctc.vocab_size:
        yield f"the CTC blank is id {ctc.blank_id}, but there are only {ctc.vocab_size} ids"
    yield from heads_misfit("encoder", encoder.width, encoder.heads)
    yield from heads_misfit("adaptor", config.adaptor.output_dim, config.adaptor.heads)
    yield from widths_misfit("the adaptor", config.adaptor.input_dim, "the encoder", encoder.width)
    yield from widths_misfit("the decoder", llm.hidden_size, "the adaptor", config.adaptor.output_dim)
    yield from heads_misfit("decoder's query heads", llm.num_attention_heads, llm.num_key_value_heads)
    if ctc:
        yield from heads_misfit("CTC decoder", ctc.decoder.output_dim, ctc.decoder.heads)
        yield from widths_misfit("the CTC decoder", ctc.decoder.input_dim, "the encoder", encoder.width)
    if config.adaptor.downsample > LOW_FRAME_RATE:
        yield f"the adaptor stacks {config.adaptor.downsample} frames, but the limit is {LOW_FRAME_RATE}"
    yield from encoder_misfits(encoder, config.frontend)
    yield from frontend_misfits(config.frontend)
    yield from stops_misfit(config.stop_token_ids, llm.vocab_size)
    if not config.prompt.languages:
        yield "there is no language"
    if unknown := [code for code in config.prompt.languages if code not in MLT_LANGUAGES]:
        yield f"unknown languages {readable(', '.join(unknown))}"
