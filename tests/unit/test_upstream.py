"""Configurations of checkpoints: what is read, and which ones are refused before a model is built."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import upstream_config
from support.errors import refused
from support.small import SMALL

from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.errors import ModelError
from funasr_cli.families.fun_asr_nano.config import FunASRNanoConfig
from funasr_cli.families.fun_asr_nano.network import FunASRNano
from funasr_cli.families.fun_asr_nano.upstream import nano_config, upstream_options

LLM = {
    "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 128, "vocab_size": 768, "rope_theta": 1e6,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "attention_bias": False, "eos_token_id": [1, 2],
    "rope_scaling": {"rope_type": "default"}, "hidden_act": "silu", "max_window_layers": 28,
    "sliding_window": None,
}  # fmt: skip
YAML = upstream_config(SMALL)
WHERE, LLM_WHERE = "Nano/config.yaml", "Nano/Qwen3-0.6B/config.json"
REMOVED = object()


def config_with(path: str, value: Any) -> FunASRNanoConfig:
    """Return the configuration with this value; paths without a section are the decoder's or top-level options."""
    section, _, name = path.rpartition(".")
    yaml, llm = {key: dict(part) if isinstance(part, dict) else part for key, part in YAML.items()}, dict(LLM)
    content = yaml[section] if section else yaml if name in yaml else llm
    if value is REMOVED:
        del content[name]
    else:
        content[name] = value
    return nano_config(yaml, llm, ctc=True, languages=("zh",), where=WHERE, llm_where=LLM_WHERE)


def test_the_unchanged_configuration_is_valid() -> None:
    config = config_with("tie_word_embeddings", True)
    assert (config.llm.hidden_size, config.stop_token_ids) == (64, (1, 2))
    yaml, llm = upstream_options(config, "Qwen3-0.6B")
    assert nano_config(yaml, llm, ctc=True, languages=("zh",), where="a") == config


UNSUPPORTED = [
    ("model", "Paraformer"), ("model", REMOVED), ("frontend", "WavFrontendOnline"),
    ("audio_encoder", "SANMEncoder"), ("audio_adaptor", "Linear"), ("ctc_decoder", "Linear"),
    ("frontend_conf.cmvn_file", "am.mvn"), ("frontend_conf.snip_edges", False), ("model_type", "llama"),
    ("layer_types", ["full_attention", "sliding_attention"]), ("rope_scaling", {"rope_type": "yarn"}),
    ("rope_scaling", {"type": "linear", "factor": 2.0}), ("hidden_act", "gelu"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *UNSUPPORTED,
        ("audio_encoder_conf.tp_blocks", True), ("audio_encoder_conf.tp_blocks", None),
        ("audio_encoder_conf.attention_heads", "4"), ("audio_encoder_conf.attention_heads", 4.5),
        ("audio_encoder_conf.attention_heads", [4]), ("audio_encoder_conf.tp_blocks", "x" * 999),
        ("audio_encoder_conf.attention_heads", math.inf), ("audio_encoder_conf.attention_heads", 10**4200),
        ("audio_adaptor_conf.use_low_frame_rate", "no"), ("audio_adaptor_conf.use_low_frame_rate", 1),
        ("dataset_conf.sys_prompt", {}), ("frontend_conf.window", 3), ("frontend_conf.frame_length", "25"),
        ("frontend_conf.frame_length", True), ("frontend_conf.frame_length", 10**400),
        ("frontend_conf.fs", "16k"), ("ctc_decoder_conf.llm_dim", {"a": 1}), ("vocab_size", "768"),
        ("rms_norm_eps", []), ("hidden_size", None), ("tie_word_embeddings", "false"),
        ("eos_token_id", [1, "2"]), ("eos_token_id", [[1]]), ("rope_scaling", [1]), ("layer_types", 3),
        ("audio_encoder_conf", 3), ("dataset_conf", [1]), ("hidden_size", REMOVED), ("eos_token_id", REMOVED),
        # extremely large numbers
        ("audio_encoder_conf.num_blocks", 1001), ("audio_encoder_conf.tp_blocks", 1001),
        ("audio_adaptor_conf.n_layer", 1001), ("ctc_decoder_conf.n_layer", 1001), ("num_hidden_layers", 1001),
        ("num_hidden_layers", 10**18), ("audio_encoder_conf.linear_units", 1 << 21),
        ("frontend_conf.fs", 1_000_001), ("frontend_conf.n_mels", 1001), ("frontend_conf.frame_length", 1e308),
        ("frontend_conf.frame_length", 5000), ("rms_norm_eps", math.nan), ("rope_theta", 1e300),
        ("eos_token_id", [768] * 999), ("eos_token_id", []), ("audio_encoder_conf.output_size", 10**12),
        ("audio_encoder_conf.output_size", -32),
        # inconsistent values
        ("audio_encoder_conf.attention_heads", 0), ("audio_encoder_conf.attention_heads", 5),
        ("audio_encoder_conf.sanm_shfit", 9), ("audio_adaptor_conf.downsample_rate", 0),
        ("num_attention_heads", 0), ("num_key_value_heads", 3), ("frontend_conf.window", "kaiser"),
        ("audio_adaptor_conf.downsample_rate", 16), ("num_key_value_heads", REMOVED), ("frontend_conf.n_mels", 1),
    ],
)  # fmt: skip
def test_unsupported_values(path: str, value: Any) -> None:
    with refused("model-unsupported" if (path, value) in UNSUPPORTED else "model-config") as caught:
        config_with(path, value)
    message = caught.value.message
    assert message.startswith((f"{WHERE}: ", f"{LLM_WHERE}: ", f"{WHERE}, {LLM_WHERE}: "))
    assert message.isprintable()
    assert len(message) < 500


def test_a_window_over_the_attention() -> None:
    """It is refused if a layer uses it, not for a switch that affects no layer: Transformers reads it that way."""
    slides = {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 1}
    for change in ({"sliding_window": None}, {"max_window_layers": 2}, {"use_sliding_window": False},
                   {"layer_types": ["full_attention"] * 2}):  # fmt: skip
        nano_config(YAML, LLM | slides | change, ctc=False, languages=("zh",), where=WHERE)
    with refused("model-unsupported"):
        nano_config(YAML, LLM | slides, ctc=False, languages=("zh",), where=WHERE)


def test_the_largest_model_is_described_in_little_memory() -> None:
    """Its tensors' shapes are compared with the checkpoint's before any of them is computed."""
    llm = LLM | dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size", "head_dim"), 1 << 20)
    config = nano_config(YAML, llm, ctc=True, languages=("zh",), where=WHERE)
    tracemalloc.start()
    assert max(map(math.prod, model_shapes(FunASRNano(config)).values())) >= 1 << 40
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


# --- any content ---

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-3, 70), st.floats(), st.text(max_size=8),
    st.sampled_from([10**12, 10**400, 2**63, 1 << 24, 0, -1, 1e308, 5e-324]),
    st.sampled_from(["16000", "", "\ud800", "../x", "\x1b[2J"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def paths_of(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values in nested objects."""
    for key, value in content.items() if isinstance(content, dict) else ():
        yield (*path, key)
        yield from paths_of(value, (*path, key))


def with_value(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value at the path."""
    return {**content, path[0]: with_value(content[path[0]], path[1:], value)} if path else value


def edited(content: Any) -> st.SearchStrategy[Any]:
    """Draw a structure with one value replaced."""
    places = st.sampled_from(list(paths_of(content)))
    return st.tuples(places, VALUES).map(lambda edit: with_value(content, *edit))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(edited(YAML) | st.just(YAML), edited(LLM) | st.just(LLM))
def test_edited_configurations(yaml: Any, llm: Any) -> None:
    """A model can be built from every configuration that is accepted."""
    refused = None
    try:
        assert model_shapes(FunASRNano(nano_config(yaml, llm, ctc=True, languages=("zh",), where="a")))
    except ModelError as error:
        refused = error
    if refused:
        assert (refused.message + refused.hint).isprintable()
        assert len(refused.message) < 3000
        assert refused.code in ("model-config", "model-unsupported")
