"""Configurations that no model can have: each is refused in one line, before a model is built from it."""

from __future__ import annotations

import math
import re
import tracemalloc
from typing import Any

import pytest
from support.checkpoints import upstream_config
from support.small import SMALL

from funasr_cli.benchmarks.synthetic import RELEASE
from funasr_cli.checkpoints import validate
from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.checkpoints.upstream import nano_config
from funasr_cli.checkpoints.validate import check_config
from funasr_cli.errors import ModelError
from funasr_cli.models.fun_asr_nano import FunASRNano

LLM = {
    "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 128, "vocab_size": 768, "rope_theta": 1e6,
    "tie_word_embeddings": True, "eos_token_id": 1,
}  # fmt: skip
WHERE, LLM_WHERE = "Nano/config.yaml", "Nano/Qwen3-0.6B/config.json"


def refusal(path: str, value: Any) -> str:
    """What is said once this stands there; paths without a section are those of the decoder."""
    section, _, name = path.rpartition(".")
    yaml, llm = upstream_config(SMALL), dict(LLM)
    (yaml[section] if section else llm)[name] = value
    with pytest.raises(ModelError) as caught:
        nano_config(yaml, llm, ctc=True, languages=("zh",), where=WHERE, llm_where=LLM_WHERE)
    assert caught.value.message.isprintable()
    return caught.value.message


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("audio_encoder_conf.tp_blocks", True, "tp_blocks is True, not a whole number"),
        ("audio_encoder_conf.tp_blocks", None, "tp_blocks is None, not a whole number"),
        ("audio_encoder_conf.attention_heads", "4", "attention_heads is '4', not a whole number"),
        ("audio_encoder_conf.attention_heads", 4.5, "attention_heads is 4.5, not a whole number"),
        ("audio_encoder_conf.attention_heads", [4], "attention_heads is [4], not a whole number"),
        ("audio_encoder_conf.tp_blocks", "x" * 999, f"tp_blocks is '{'x' * 199}..., not a whole number"),
        ("audio_adaptor_conf.use_low_frame_rate", "no", "use_low_frame_rate is 'no', not true or false"),
        ("audio_adaptor_conf.use_low_frame_rate", 1, "use_low_frame_rate is 1, not true or false"),
        ("dataset_conf.sys_prompt", {}, "sys_prompt is {}, not true or false"),
        ("frontend_conf.window", 3, "window is 3, not a name"),
        ("frontend_conf.frame_length", "25", "frame_length is '25', not a number"),
        ("frontend_conf.frame_length", True, "frame_length is True, not a number"),
        ("ctc_decoder_conf.llm_dim", {"a": 1}, "llm_dim is {'a': 1}, not a whole number"),
        ("vocab_size", "768", "vocab_size is '768', not a whole number"),
        ("rms_norm_eps", [], "rms_norm_eps is [], not a number"),
        ("tie_word_embeddings", "false", "tie_word_embeddings is 'false', not true or false"),
        ("eos_token_id", [1, "2"], "eos_token_id is '2', not a whole number"),
        ("eos_token_id", [[1]], "eos_token_id is [1], not a whole number"),
        ("layer_types", 3, "'int' object is not iterable"),
        ("rope_scaling", [1], "'list' object is not a mapping"),
    ],
)  # fmt: skip
def test_values_of_the_wrong_type(path: str, value: Any, message: str) -> None:
    where = WHERE if "." in path else LLM_WHERE
    assert refusal(path, value) == f"{where}: a value of the wrong type ({message})"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("audio_encoder_conf.num_blocks", 1001, "encoder.blocks is 1001"),
        ("audio_encoder_conf.tp_blocks", 1001, "encoder.tp_blocks is 1001"),
        ("audio_adaptor_conf.n_layer", 1001, "adaptor.layers is 1001"),
        ("ctc_decoder_conf.n_layer", 1001, "ctc.decoder.layers is 1001"),
        ("num_hidden_layers", 1001, "llm.num_hidden_layers is 1001"),
        ("num_hidden_layers", 10**30, f"llm.num_hidden_layers is {10**30}"),
        ("audio_encoder_conf.linear_units", (1 << 24) + 1, "encoder.ffn_dim is 16777217"),
        ("frontend_conf.fs", 1_000_001, "frontend.sample_rate_hz is 1000001"),
        ("frontend_conf.n_mels", 1001, "frontend.mel_bins is 1001"),
        ("frontend_conf.frame_length", 1e308, "frontend.frame_length_ms is 1e+308"),
        ("frontend_conf.frame_length", 5000, "a frame length of 5000.0 ms is 80000 samples at 16000 Hz"),
        ("rms_norm_eps", math.nan, "llm.rms_norm_eps is nan"),
        ("rope_theta", 1e300, "llm.rope_theta is 1e+300"),
        ("eos_token_id", [768] * 999, f"stop tokens [{'768, ' * 39}768,... are not among 768 ids"),
    ],
)  # fmt: skip
def test_numbers_beyond_all_measure(path: str, value: Any, message: str) -> None:
    assert refusal(path, value) == f"{WHERE}, {LLM_WHERE}: {message}"


def test_a_model_of_more_parameters_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted without a model, and rightly."""
    monkeypatch.setattr(validate, "MOST_PARAMETERS", 1)
    with pytest.raises(ModelError) as caught:
        check_config(RELEASE, WHERE)
    (said,) = re.findall(r"a model of ([\d,]+) parameters", caught.value.message)
    expected = sum(map(math.prod, model_shapes(FunASRNano(RELEASE)).values()))
    assert int(said.replace(",", "")) == pytest.approx(expected, rel=0.001)


def test_a_configuration_is_refused_before_a_model_is_built() -> None:
    """Each extent could be, all of them together could not."""
    yaml, llm = upstream_config(SMALL), LLM | {"hidden_size": 1 << 20, "intermediate_size": 1 << 20}
    tracemalloc.start()
    with pytest.raises(ModelError, match=r"^Nano/config.yaml: a model of [\d,]{15,} parameters$"):
        nano_config(yaml, llm, ctc=False, languages=("zh",), where=WHERE)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
