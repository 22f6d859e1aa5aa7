"""Configuration of components that several families share: FunASR's front end and SAN-M encoder, Qwen3 decoders.

Each entry of a table is our field, upstream's key, and upstream's default, or a type if the key is required.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from funasr_cli.checkpoints.untrusted import quoted
from funasr_cli.checkpoints.values import Misstated, Options, require, value
from funasr_cli.features.fbank import WINDOWS, FrontendConfig
from funasr_cli.models.qwen3 import Qwen3Config
from funasr_cli.models.sanm import SANMConfig

Fields = tuple[tuple[str, str, Any], ...]

FRONTEND: Fields = (  # WavFrontend
    ("sample_rate_hz", "fs", 16000), ("window", "window", "hamming"), ("mel_bins", "n_mels", 80),
    ("frame_length_ms", "frame_length", 25.0), ("frame_shift_ms", "frame_shift", 10.0),
    ("stack_frames", "lfr_m", 1), ("stack_step", "lfr_n", 1),
)  # fmt: skip
ENCODER: Fields = (  # SenseVoiceEncoderSmall
    ("width", "output_size", 256), ("heads", "attention_heads", 4), ("ffn_dim", "linear_units", 2048),
    ("blocks", "num_blocks", 6), ("tp_blocks", "tp_blocks", 0),
    ("memory_taps", "kernel_size", 11), ("memory_shift", "sanm_shfit", 0),
)  # fmt: skip
# transformers.Qwen3Config, whose keys equal our fields. rope_theta and head_dim are handled separately.
QWEN3 = dict.fromkeys(
    ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
     "vocab_size"), int,
) | {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_bias": False}  # fmt: skip
LONGEST_FRAME_SAMPLES = 1 << 16  # the release uses 400; 25 ms at 192 kHz are 4,800


def fields_of(conf: Options, fields: Fields) -> dict[str, Any]:
    """Return our fields with the values from upstream's section."""
    return {field: value(conf, key, default) for field, key, default in fields}


def stated(config: Any, fields: Fields) -> Options:
    """Return upstream's section for a configuration, the inverse of `fields_of`."""
    return {key: getattr(config, field) for field, key, _ in fields}


def frontend_config(conf: Options) -> FrontendConfig:
    """Translate ``frontend_conf``, except its ``cmvn_file``, which the caller handles."""
    require(conf, "snip_edges", True, default=True)
    require(conf, "upsacle_samples", True, default=True)
    return FrontendConfig(**fields_of(conf, FRONTEND))


def encoder_config(conf: Options, input_dim: int) -> SANMConfig:
    """Translate ``encoder_conf``, or the family's section of another name."""
    return SANMConfig(input_dim=input_dim, **fields_of(conf, ENCODER))


def qwen3_config(conf: Options) -> Qwen3Config:
    """Translate the ``config.json`` of a Qwen3 decoder."""
    require(conf, "model_type", "qwen3")
    require(conf, "hidden_act", "silu", default="silu")
    rope = {**(conf.get("rope_scaling") or {}), **(conf.get("rope_parameters") or {})}
    require(rope, "rope_type", "default", default=rope.get("type", "default"))  # "type": before transformers 4.45
    sizes = {name: value(conf, name, default) for name, default in QWEN3.items()}
    _refuse_sliding(conf, sizes["num_hidden_layers"])
    theta = rope.get("rope_theta") or conf.get("rope_theta") or 10_000.0
    return Qwen3Config(
        head_dim=value({"head_dim": conf.get("head_dim") or 128}, "head_dim", int),
        rope_theta=value({"rope_theta": theta}, "rope_theta", float),
        **sizes,
    )


def _refuse_sliding(conf: Options, layers: int) -> None:
    """Reject sliding-window attention if any layer uses it, reading the keys as transformers does."""
    if conf.get("layer_types") is None and conf.get("sliding_window", 4096) is not None:
        if value(conf, "max_window_layers", 28) < layers:
            require(conf, "use_sliding_window", False, default=False)
    elif any(kind != "full_attention" for kind in conf.get("layer_types") or ()):
        raise Misstated("layer_types other than full_attention are not supported", code="model-unsupported")


def stop_token_ids(llm: Options) -> tuple[int, ...]:
    """Read ``eos_token_id``, one id or several, from a decoder's ``config.json``."""
    stop = llm["eos_token_id"]
    ids = stop if isinstance(stop, list) else [stop]
    return tuple(value({"eos_token_id": token_id}, "eos_token_id", int) for token_id in ids)


def heads_misfit(name: str, width: int, heads: int) -> Iterator[str]:
    """Report a width that is not divisible by the number of attention heads."""
    if width % heads:
        yield f"{name}: {width} is not divisible by {heads} heads"


def widths_misfit(name: str, width: int, source: str, source_width: int) -> Iterator[str]:
    """Report a network whose inputs are not as wide as the outputs that it takes."""
    if width != source_width:
        yield f"{name} takes rows of {width} values, but {source} gives rows of {source_width}"


def stops_misfit(stops: Sequence[int], vocab_size: int) -> Iterator[str]:
    """Report stop tokens that are missing or that the decoder does not have."""
    if not stops or not all(0 <= token_id < vocab_size for token_id in stops):
        yield f"the stop tokens are {quoted(list(stops))}, which are not ids from 0 to {vocab_size - 1}"


def encoder_misfits(encoder: SANMConfig, frontend: FrontendConfig) -> Iterator[str]:
    """Report other inconsistent values of an encoder, and of the rows that it takes."""
    yield from widths_misfit("the encoder", encoder.input_dim, "the front end", frontend.row_width)
    if encoder.input_dim % 2 or encoder.input_dim < 4:
        yield f"feature rows have {encoder.input_dim} values, not an even number of at least 4"
    if encoder.memory_shift > encoder.memory_taps // 2:
        yield f"a filter shift of {encoder.memory_shift} is more than half of {encoder.memory_taps} taps"


def frontend_misfits(frontend: FrontendConfig) -> Iterator[str]:
    """Report inconsistent values of a front end."""
    if frontend.window not in WINDOWS:
        yield f"window {quoted(frontend.window)} is not one of {', '.join(WINDOWS)}"
    for name, length_ms in (("length", frontend.frame_length_ms), ("shift", frontend.frame_shift_ms)):
        samples = round(frontend.sample_rate_hz * length_ms / 1000)
        if not 1 <= samples <= LONGEST_FRAME_SAMPLES:
            yield f"a frame {name} of {length_ms} ms is {samples} samples at {frontend.sample_rate_hz} Hz"
