"""Layouts of other programs: where values are read from, and what is recorded."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.damage import Change, put, state, tensors
from support.errors import refused
from support.layouts import write_mlx_audio, write_transformers
from support.small import edit_json

import funasr_cli
from funasr_cli import demo
from funasr_cli.benchmarks.synthetic import RELEASE
from funasr_cli.compute.backend import mx, tree_flatten
from funasr_cli.families.fun_asr_nano.layout_transformers import open_transformers
from funasr_cli.families.load import load_model
from funasr_cli.families.open import capabilities, open_checkpoint, open_model
from funasr_cli.languages import MLT_LANGUAGES, NANO_LANGUAGES


@pytest.fixture
def transformers(small_checkpoint: Path, tmp_path: Path) -> Path:
    return write_transformers(small_checkpoint, tmp_path / "Nano-hf")


@pytest.fixture
def mlx_audio(small_checkpoint: Path, tmp_path: Path) -> Path:
    return write_mlx_audio(small_checkpoint, tmp_path / "Nano-mlx-audio")


@pytest.mark.parametrize("layout", ["transformers", "mlx_audio"])
def test_configurations_equal_the_sources(
    layout: str, small_checkpoint: Path, request: pytest.FixtureRequest
) -> None:
    """This includes low frame rate and prompt."""
    folder = request.getfixturevalue(layout)
    opened, upstream = (open_checkpoint(each, "Nano") for each in (folder, small_checkpoint))
    assert opened.config == upstream.config
    assert opened.config.adaptor.low_frame_rate
    shapes, expected = (
        sorted((name, each.shape) for name, each in one.tensors.items()) for one in (opened, upstream)
    )
    assert shapes == expected


def test_safetensors_take_precedence_over_a_pickle(transformers: Path, small_checkpoint: Path) -> None:
    """Both are in a folder with their configurations. Without the weights or config.json, the pickle is used."""
    for name in ("config.yaml", "model.pt"):
        shutil.copyfile(small_checkpoint / name, transformers / name)
    shutil.copytree(small_checkpoint / "Qwen3-0.6B", transformers / "Qwen3-0.6B")
    assert open_checkpoint(transformers, "Nano").layout == "Transformers"
    for name in ("model.safetensors", "config.json"):
        (transformers / name).rename(transformers / "away")
        assert open_checkpoint(transformers, "Nano").layout == "FunASR"
        (transformers / "away").rename(transformers / name)


# --- Transformers ---


@pytest.mark.parametrize(
    ("name", "nested"), [("processor_config.json", True), ("preprocessor_config.json", False)]
)
def test_settings_of_the_features(name: str, nested: bool, transformers: Path) -> None:
    """They are in either of two files, before and since Transformers 5."""
    stated = {"sampling_rate": 8000, "window": "povey", "frame_length": 32, "frame_shift": 16, "stride_lfr": 5}
    content = {"feature_extractor": stated} if nested else stated
    (transformers / name).write_text(json.dumps(content))
    frontend = open_transformers(transformers, ("zh",)).config.frontend
    assert (frontend.sample_rate_hz, frontend.window, frontend.stack_step) == (8000, "povey", 5)
    assert (frontend.frame_length_ms, frontend.frame_shift_ms) == (32.0, 16.0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (put("generation_config.json", b'{"eos_token_id": [1, 2]}'), (1, 2)),
        (put("generation_config.json", b'{"eos_token_id": [7, 5]}'), (7, 5)),  # Qwen's own file states two
        (put("generation_config.json", b'{"eos_token_id": 0}'), (0,)),
        (state(eos_token_id=3), (3,)),
    ],
)
def test_where_the_stop_token_is_read(change: Change, expected: tuple[int, ...], transformers: Path) -> None:
    """It is in the decoder's configuration, or else in generation_config.json."""
    change(transformers)
    stated = open_transformers(transformers, ("zh",)).config.stop_token_ids
    state(text_config__eos_token_id=None)(transformers)
    assert open_transformers(transformers, ("zh",)).config.stop_token_ids == expected != stated


@pytest.mark.parametrize("generation", [b"{}", b'{"eos_token_id": null}', None])
def test_no_stop_token_anywhere(generation: bytes | None, transformers: Path) -> None:
    """The port's own configuration omits it when it is saved."""
    state(text_config__eos_token_id=None, eos_token_id=None)(transformers)
    (transformers / "generation_config.json").unlink(missing_ok=True)
    if generation:
        put("generation_config.json", generation)(transformers)
    with refused("model-config", f"{transformers}: ", "eos_token_id", "generation_config.json"):
        open_transformers(transformers, ("zh",))


def test_omitted_values_are_those_of_the_release(transformers: Path) -> None:
    """The port's classes have the same defaults. The decoder's sizes are always stated."""
    keep = ("num_hidden_layers", "num_timestamp_prediction_layers")

    def change(config: dict[str, Any]) -> None:
        config["audio_config"] = {name: config["audio_config"][name] for name in keep}
        config["adaptor_config"] = {}

    edit_json(transformers / "config.json", change)
    config = open_transformers(transformers, ("zh",)).config
    assert config.frontend == RELEASE.frontend
    assert (config.encoder.width, config.encoder.heads, config.encoder.ffn_dim) == (512, 4, 2048)
    assert (config.encoder.memory_taps, config.encoder.input_dim) == (11, 560)
    assert (config.adaptor.ffn_dim, config.adaptor.layers, config.adaptor.heads) == (2048, 2, 8)


def test_transformers_layout_cannot_be_decoded_as_it_is(transformers: Path) -> None:
    with refused("model-unconverted", f"funasr convert {transformers}"):
        funasr_cli.load(transformers)


# --- mlx-audio ---


@pytest.mark.parametrize(
    ("repository", "languages"),
    [("FunAudioLLM/Fun-ASR-MLT-Nano-2512", MLT_LANGUAGES), ("FunAudioLLM/Fun-ASR-Nano-2512", NANO_LANGUAGES)],
)
def test_languages_follow_from_the_named_repository(
    repository: str, languages: tuple[str, ...], mlx_audio: Path
) -> None:
    state(model_repo=repository)(mlx_audio)
    opened = open_model(mlx_audio)
    assert opened.config.prompt.languages == languages
    assert opened.source["source"] == repository


def test_older_keys(mlx_audio: Path) -> None:
    """mlx-audio's older code: `llm_config` for the decoder, upstream's name of the shift, no tokenizer path."""
    expected = open_model(mlx_audio).config

    def change(config: dict[str, Any]) -> None:
        config["llm_config"] = config.pop("text_config")
        config["audio_encoder_conf"]["sanm_shfit"] = config["audio_encoder_conf"].pop("sanm_shift")
        del config["qwen_tokenizer_path"]

    edit_json(mlx_audio / "config.json", change)
    assert open_model(mlx_audio).config == expected


def test_capabilities_are_known_without_loading(mlx_audio: Path) -> None:
    """This holds for a converted model and for mlx-audio's folder."""
    for folder in (demo.MODEL, mlx_audio):
        assert capabilities(folder) == load_model(folder).capabilities
    with refused("model-unsupported"):
        state(model_type="whisper")(mlx_audio)
        capabilities(mlx_audio)


def test_float16_is_widened(mlx_audio: Path, tmp_path: Path) -> None:
    """mlx-audio's converter can write float16, which this package does not compute in."""
    tensors(lambda found: found.update({name: values.half() for name, values in found.items()}))(mlx_audio)
    assert open_model(mlx_audio).dtype == "float16"
    loaded = dict(tree_flatten(load_model(mlx_audio, "stored").network.parameters()))
    assert {values.dtype for values in loaded.values()} == {mx.bfloat16}
    out = funasr_cli.convert(mlx_audio, tmp_path / "out", dtype="float32", verify="off").folder
    stored, converted = (load_file(folder / "model.safetensors") for folder in (mlx_audio, out))
    assert stored.keys() == converted.keys()
    assert all(torch.equal(values, stored[name].float()) for name, values in converted.items())


# --- recorded facts ---


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_digests(small_checkpoint: Path, tmp_path: Path) -> None:
    """Every file's digest, in sha256sum's format; the source shards' also in config.json and the model card."""
    source = write_transformers(small_checkpoint, tmp_path / "Nano-hf", shards=3)
    conversion = funasr_cli.convert(source, tmp_path / "out", verify="off")
    out = conversion.folder
    names = sorted(path.name for path in out.iterdir() if path.name != "SHA256SUMS")
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} < set(names)
    assert (out / "SHA256SUMS").read_text().splitlines() == [f"{sha256(out / name)}  {name}" for name in names]
    lines = [f"{sha256(path)}  {path.name}" for path in sorted(source.glob("*.safetensors"))]
    assert len(lines) == 3
    assert conversion.model.source["sha256"] == "\n".join(lines)
    assert all(f"    {line}\n" in (out / "README.md").read_text() for line in lines)


@pytest.mark.parametrize("layout", ["FunASR", "Transformers", "mlx-audio", "funasr-cli"])
def test_the_layout_is_recorded(layout: str, small_checkpoint: Path, tmp_path: Path) -> None:
    sources: dict[str, Callable[[Path], Path]] = {
        "FunASR": lambda _: small_checkpoint,
        "Transformers": lambda out: write_transformers(small_checkpoint, out),
        "mlx-audio": lambda out: write_mlx_audio(small_checkpoint, out),
        "funasr-cli": lambda out: funasr_cli.convert(small_checkpoint, out, verify="off").folder,
    }
    conversion = funasr_cli.convert(sources[layout](tmp_path / "Nano"), tmp_path / "out", verify="off")
    assert conversion.layout == conversion.model.source["layout"] == layout
    assert f"- Its layout: {layout}\n" in (conversion.folder / "README.md").read_text()


def test_names_with_line_breaks(small_checkpoint: Path, tmp_path: Path) -> None:
    """A folder's name, and a name in the configuration of a converted model."""
    source = tmp_path / "Nano\n- License: \x1b[31mMIT"
    shutil.copytree(small_checkpoint, source)
    conversion = funasr_cli.convert(source, tmp_path / "out", verify="off")
    named = "Nano\ufffd- License: \ufffd[31mMIT"
    assert conversion.model.source["source"] == named
    page = (conversion.folder / "README.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {named}, converted to MLX\n")
    state(source__revision="a\nb", source__sha256="0  a\x07\n1  b")(conversion.folder)
    source_of = open_model(conversion.folder).source
    assert (source_of["source"], source_of["revision"]) == (named, "a\ufffdb")
    assert source_of["sha256"] == "0  a\ufffd\n1  b"  # a line for each shard
