"""What the sizes in a configuration have to satisfy, whether upstream wrote it or `convert` did."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from funasr_cli.checkpoints.untrusted import quoted, readable
from funasr_cli.errors import ModelError
from funasr_cli.features import WINDOWS
from funasr_cli.languages import LANGUAGES
from funasr_cli.models.fun_asr_nano import FunASRNanoConfig

MAY_BE_ZERO = ("memory_shift", "blank_id", "tp_blocks")
LOW_FRAME_RATE = 8  # feature rows for each row of the prompt, see `audio_token_count`
# Several times what any such model has. A model of these sizes can be described: what it takes is held to the
# checkpoint's tensors before any of it is computed.
LARGEST = 1 << 20
MOST = {"sample_rate_hz": 1_000_000} | dict.fromkeys(
    ("blocks", "tp_blocks", "layers", "num_hidden_layers", "heads", "num_attention_heads", "num_key_value_heads",
     "mel_bins", "stack_frames"), 1000,
)  # fmt: skip
LARGEST_NUMBER = 1e12  # of those that are not whole; rope_theta reaches 1e9
LONGEST_FRAME_SAMPLES = 1 << 16  # the release's has 400, one of 25 ms at 192 kHz 4,800


def check_config(config: FunASRNanoConfig, where: str) -> None:
    """Refuse a configuration that no model can have, before it fails somewhere deep in the arithmetic.

    Raises:
        ModelError: naming what does not add up.
    """
    problems = [*_out_of_range(config, "")] or [*_misfits(config)]  # which divides by these numbers
    if problems:
        raise ModelError(f"{where}: {'; '.join(problems)}", code="model-config")


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
    llm, ctc, encoder = config.llm, config.ctc, config.encoder
    attention = [
        ("encoder", encoder.width, encoder.heads),
        ("adaptor", config.adaptor.output_dim, config.adaptor.heads),
        ("decoder's query heads", llm.num_attention_heads, llm.num_key_value_heads),
    ]
    if ctc:
        attention.append(("CTC decoder", ctc.decoder.output_dim, ctc.decoder.heads))
        if ctc.blank_id >= ctc.vocab_size:
            yield f"CTC blank {ctc.blank_id} is not among {ctc.vocab_size} ids"
    yield from (
        f"{name}: {heads} heads do not divide {width}" for name, width, heads in attention if width % heads
    )
    if config.adaptor.downsample > LOW_FRAME_RATE:
        yield f"the adaptor stacks {config.adaptor.downsample} frames, more than one row of the prompt stands for"
    if encoder.input_dim % 2 or encoder.input_dim < 4:
        yield f"rows of {encoder.input_dim} values have no sines and cosines in equal number"
    if encoder.memory_shift > encoder.memory_taps // 2:
        yield f"a shift of {encoder.memory_shift} exceeds {encoder.memory_taps} taps"
    frontend = config.frontend
    if frontend.window not in WINDOWS:
        yield f"window {quoted(frontend.window)} is not one of {', '.join(WINDOWS)}"
    for name, length_ms in (("length", frontend.frame_length_ms), ("shift", frontend.frame_shift_ms)):
        samples = round(frontend.sample_rate_hz * length_ms / 1000)
        if not 1 <= samples <= LONGEST_FRAME_SAMPLES:
            yield f"a frame {name} of {length_ms} ms is {samples} samples at {frontend.sample_rate_hz} Hz"
    stops = config.stop_token_ids
    if not stops or not all(0 <= token_id < llm.vocab_size for token_id in stops):
        yield f"stop tokens {quoted(list(stops))} are not among {llm.vocab_size} ids"
    if not config.prompt.languages:
        yield "no language"
    if unknown := [code for code in config.prompt.languages if code not in LANGUAGES]:
        yield f"unknown languages {readable(', '.join(unknown))}"
