"""Configurations of checkpoints that are not converted, and why."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.small import convert, edit_json
from test_convert_refusals import refusal


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "config.yaml: empty"),
        (b"- a\n- b", "not a mapping"),
        (b"just text", "not a mapping"),
        (b"a: [b", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[" * 5000, "cannot be read"),
        (b"a: 2020-01-99", "model is None: not supported"),
        (b"!!python/object/apply:os.system ['exit 1']", "cannot be read"),
        (b"model: &a [*a]", "cannot be read (anchors and aliases are not read, line 1)"),
    ],
)
def test_garbage_in_config_yaml(checkpoint: Path, content: bytes, message: str) -> None:
    (checkpoint / "config.yaml").write_bytes(content)
    assert message in refusal(checkpoint).message


REMOVED = object()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model", "Paraformer", "model is 'Paraformer': not supported"),
        ("model", REMOVED, "model is None: not supported"),
        ("audio_encoder", "SANMEncoder", "audio_encoder is 'SANMEncoder': not supported"),
        ("audio_adaptor", "Linear", "audio_adaptor is 'Linear': not supported"),
        ("llm_conf", "Qwen", "llm_conf is not a mapping"),
        ("llm_conf", REMOVED, "llm_conf.init_param_path does not name the decoder's folder"),
        ("llm_conf.init_param_path", REMOVED, "llm_conf.init_param_path does not name the decoder's folder"),
        ("llm_conf.init_param_path", "..", "llm_conf.init_param_path does not name the decoder's folder"),
        ("llm_conf.init_param_path", "/models/Qwen3-4B", "Qwen3-4B/config.json: missing"),
        ("audio_encoder_conf", 3, "audio_encoder_conf is not a mapping"),
        ("audio_encoder_conf.attention_heads", 0, "encoder.heads is 0"),
        ("audio_encoder_conf.attention_heads", 5, "encoder: 5 heads do not divide 32"),
        ("audio_encoder_conf.attention_heads", float("inf"), "a value of the wrong type"),
        ("audio_encoder_conf.attention_heads", [4], "a value of the wrong type"),
        ("audio_encoder_conf.output_size", 10**12, "encoder.width is 1000000000000"),
        ("audio_encoder_conf.output_size", -32, "encoder.width is -32"),
        ("audio_encoder_conf.output_size", 64, "misshapen: "),
        ("audio_encoder_conf.num_blocks", 3, "missing: audio_encoder.encoders.1."),
        ("audio_encoder_conf.sanm_shfit", 9, "a shift of 9 exceeds 11 taps"),
        ("audio_adaptor_conf.downsample_rate", 0, "adaptor.downsample is 0"),
        ("frontend_conf.cmvn_file", "am.mvn", "frontend_conf names a CMVN file"),
        ("frontend_conf.window", "kaiser", "window 'kaiser' is not one of"),
        ("frontend_conf.fs", "16k", "a value of the wrong type"),
        ("dataset_conf", [1], "dataset_conf is not a mapping"),
    ],
)
def test_config_yaml_that_does_not_fit(checkpoint: Path, path: str, value: Any, message: str) -> None:
    config = yaml.safe_load((checkpoint / "config.yaml").read_text(encoding="utf-8"))
    change_at(config, path, value)
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    said = refusal(checkpoint).message
    assert said.startswith(f"{checkpoint}/")
    assert message in said


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "llama", "model_type is 'llama': not supported"),
        ("hidden_size", REMOVED, "does not state 'hidden_size'"),
        ("hidden_size", None, "a value of the wrong type"),
        ("num_attention_heads", 0, "llm.num_attention_heads is 0"),
        ("num_key_value_heads", 3, "3 heads do not divide 4"),
        ("use_sliding_window", True, "use_sliding_window is True: not supported"),
        ("layer_types", ["full_attention", "sliding_attention"], "layer_types names more than full_attention"),
        ("rope_scaling", {"rope_type": "yarn"}, "rope_type is 'yarn': not supported"),
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "rope_type is 'linear': not supported"),
        ("eos_token_id", REMOVED, "does not state 'eos_token_id'"),
        ("eos_token_id", [], "stop tokens [] are not among 768 ids"),
        ("eos_token_id", 768, "stop tokens [768] are not among 768 ids"),
        ("vocab_size", 10, "tokens, but the decoder has 10"),
    ],
)
def test_decoder_config_that_does_not_fit(checkpoint: Path, path: str, value: Any, message: str) -> None:
    edit_json(checkpoint / "Qwen3-0.6B/config.json", lambda config: change_at(config, path, value))
    if path == "vocab_size":  # a stop token outside it is found first
        edit_json(checkpoint / "Qwen3-0.6B/config.json", lambda config: config.update(eos_token_id=1))
    said = refusal(checkpoint).message
    assert said.startswith(f"{checkpoint}/")
    assert message in said


def change_at(config: dict[str, Any], path: str, value: Any) -> None:
    *outer, last = path.split(".")
    for key in outer:
        config = config[key]
    if value is REMOVED:
        del config[last]
    else:
        config[last] = value


def test_trained_paths_of_the_decoder_are_found_by_their_last_part(checkpoint: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((checkpoint / "config.yaml").read_text(encoding="utf-8"))
    change_at(config, "llm_conf.init_param_path", "/nfs/someone/Qwen3-0.6B/")
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    convert(checkpoint, tmp_path / "out")


def test_decoder_config_that_is_no_json(checkpoint: Path) -> None:
    (checkpoint / "Qwen3-0.6B/config.json").write_text("[]")
    assert refusal(checkpoint).message.endswith("config.json: not a JSON object")
