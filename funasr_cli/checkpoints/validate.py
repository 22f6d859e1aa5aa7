"""What the sizes in a configuration have to satisfy, whether upstream wrote it or `convert` did."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from funasr_cli.audio.frontend import WINDOWS, FrontendConfig
from funasr_cli.checkpoints.untrusted import quoted, readable
from funasr_cli.decoding.languages import LANGUAGES
from funasr_cli.errors import ModelError
from funasr_cli.models.adaptor import AdaptorConfig
from funasr_cli.models.fun_asr_nano import FunASRNanoConfig
from funasr_cli.models.qwen3 import Qwen3Config
from funasr_cli.models.sanm import SANMConfig

MAY_BE_ZERO = ("memory_shift", "blank_id", "tp_blocks")
LOW_FRAME_RATE = 8  # feature rows for each row of the prompt, see `audio_token_count`
LARGEST = 1 << 24  # no extent of any such model comes near; MLX counts extents in 32 bits
MOST = {  # several times what any such model has, by the name of the field
    "blocks": 1000, "tp_blocks": 1000, "layers": 1000, "num_hidden_layers": 1000, "sample_rate_hz": 1_000_000,
    "mel_bins": 1000, "stack_frames": 1000,
}  # fmt: skip
MOST_PARAMETERS = 20 * 10**9  # 24 times the release's
LARGEST_NUMBER = 1e12  # of those that are not whole; rope_theta reaches 1e9
LONGEST_FRAME_SAMPLES = 1 << 16  # the release's has 400, one of 25 ms at 192 kHz 4,800


def check_config(config: FunASRNanoConfig, where: str) -> None:
    """Refuse a configuration that no model can have, before it fails somewhere deep in the arithmetic.

    Raises:
        ModelError: naming what does not add up.
    """
    problems = [*_out_of_range(config, "")]
    if not problems:  # the rest divides by these numbers
        problems = [*_misfits(config)]
    if problems:
        raise ModelError(f"{where}: {'; '.join(problems)}")


def _out_of_range(config: Any, path: str) -> Iterator[str]:
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _out_of_range(value, f"{name}.")
        elif type(value) is int:
            least = 0 if field.name in MAY_BE_ZERO else 1
            if not least <= value <= MOST.get(field.name, LARGEST):
                yield f"{name} is {value}"
        elif type(value) is float and not 0 < value <= LARGEST_NUMBER:
            yield f"{name} is {value}"


def _misfits(config: FunASRNanoConfig) -> Iterator[str]:
    llm, ctc = config.llm, config.ctc
    attention = [("encoder", config.encoder.width, config.encoder.heads)]
    attention.append(("adaptor", config.adaptor.output_dim, config.adaptor.heads))
    attention.append(("decoder's query heads", llm.num_attention_heads, llm.num_key_value_heads))
    if ctc:
        attention.append(("CTC decoder", ctc.decoder.output_dim, ctc.decoder.heads))
        if ctc.blank_id >= ctc.vocab_size:
            yield f"CTC blank {ctc.blank_id} is not among {ctc.vocab_size} ids"
    yield from (
        f"{name}: {heads} heads do not divide {width}" for name, width, heads in attention if width % heads
    )
    if config.adaptor.downsample > LOW_FRAME_RATE:
        yield f"the adaptor stacks {config.adaptor.downsample} frames, more than one row of the prompt stands for"
    if (parameters := _parameters(config)) > MOST_PARAMETERS:
        yield f"a model of {parameters:,} parameters"
    yield from _frontend_misfits(config.frontend)
    yield from _encoder_misfits(config.encoder)
    stops = config.stop_token_ids
    if not stops or not all(0 <= token_id < llm.vocab_size for token_id in stops):
        yield f"stop tokens {quoted(list(stops))} are not among {llm.vocab_size} ids"
    if not config.prompt.languages:
        yield "no language"
    if unknown := [code for code in config.prompt.languages if code not in LANGUAGES]:
        yield f"unknown languages {readable(', '.join(unknown))}"


def _frontend_misfits(frontend: FrontendConfig) -> Iterator[str]:
    if frontend.window not in WINDOWS:
        yield f"window {quoted(frontend.window)} is not one of {', '.join(WINDOWS)}"
    for name, length_ms in (("length", frontend.frame_length_ms), ("shift", frontend.frame_shift_ms)):
        samples = round(frontend.sample_rate_hz * length_ms / 1000)
        if not 1 <= samples <= LONGEST_FRAME_SAMPLES:
            yield f"a frame {name} of {length_ms} ms is {samples} samples at {frontend.sample_rate_hz} Hz"


def _encoder_misfits(encoder: SANMConfig) -> Iterator[str]:
    if encoder.input_dim % 2 or encoder.input_dim < 4:
        yield f"rows of {encoder.input_dim} values have no sines and cosines in equal number"
    if encoder.memory_shift > encoder.memory_taps // 2:
        yield f"a shift of {encoder.memory_shift} exceeds {encoder.memory_taps} taps"


def _parameters(config: FunASRNanoConfig) -> int:
    """How many a model of these sizes has in its matrices; a model is not built to find out."""
    total = _encoder_parameters(config.encoder) + _adaptor_parameters(config.adaptor) + _llm_parameters(config.llm)
    if config.ctc:
        decoder = config.ctc.decoder
        total += _adaptor_parameters(decoder) + decoder.output_dim * config.ctc.vocab_size
    return total


def _encoder_parameters(encoder: SANMConfig) -> int:
    layer = encoder.width * (4 * encoder.width + 2 * encoder.ffn_dim + encoder.memory_taps)
    return (encoder.blocks + encoder.tp_blocks) * layer + 3 * encoder.width * encoder.input_dim


def _adaptor_parameters(adaptor: AdaptorConfig) -> int:
    ends = adaptor.ffn_dim * (adaptor.input_dim * adaptor.downsample + adaptor.output_dim)
    return ends + adaptor.layers * adaptor.output_dim * (4 * adaptor.output_dim + adaptor.output_dim // 2)


def _llm_parameters(llm: Qwen3Config) -> int:
    heads = 2 * (llm.num_attention_heads + llm.num_key_value_heads)
    layer = llm.hidden_size * (heads * llm.head_dim + 3 * llm.intermediate_size)
    tables = 1 if llm.tie_word_embeddings else 2
    return llm.num_hidden_layers * layer + tables * llm.vocab_size * llm.hidden_size
