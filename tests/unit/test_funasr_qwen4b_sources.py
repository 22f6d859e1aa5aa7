"""The three sources of a FunASR-Qwen4B: layouts, what is missing or does not belong, and the converted model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.adapters import factors, write_peft
from support.checkpoints import CheckpointSpec
from support.errors import refused
from support.qwen3 import write_qwen3
from support.qwen4b import (
    ADAPTOR_FILE,
    ENCODER_FILE,
    LLM_FOLDER,
    adaptor_arrays,
    encoder_arrays,
    load_qwen4b,
    ominix_adaptor,
    write_folder,
)
from support.sense_voice import SenseVoiceSpec, write_sense_voice
from support.small import convert

from funasr_cli.checkpoints.format import read_header
from funasr_cli.families.converted import open_converted, read_config
from funasr_cli.families.funasr_qwen4b.sources import is_folder
from funasr_cli.families.load import load_model
from funasr_cli.families.open import open_checkpoint
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.verification.check import check_model

Change = Callable[[dict[str, np.ndarray]], Any]


@pytest.fixture
def source(qwen4b_source: Path, tmp_path: Path) -> Path:
    """A copy of `qwen4b_source` to damage."""
    return shutil.copytree(qwen4b_source, tmp_path / "source")


def edit(path: Path, change: Change) -> None:
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def shards_of(folder: Path) -> dict[str, np.ndarray]:
    return {name: values for path in folder.glob("*.safetensors") for name, values in load_file(path).items()}


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = arrays_of(one), arrays_of(other)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def test_one_folder(small_qwen4b: Path, qwen4b_source: Path) -> None:
    model = read_config(small_qwen4b)
    assert model.config.encoder_input == "unscaled"
    assert model.config.prompt_format == "current"
    assert (model.config.encoder.blocks, model.config.encoder.tp_blocks) == (3, 2)
    assert len(model.config.stop_token_ids) == 2
    assert len(model.source["sha256"].splitlines()) == 5  # encoder, adaptor, three shards
    assert check_model(small_qwen4b).listed
    found = arrays_of(small_qwen4b)
    packed = found["audio_adaptor.layers.0.in_proj.weight"]
    np.testing.assert_array_equal(packed, adaptor_arrays()["transformer.layers.0.self_attn.in_proj_weight"])


def write_upstream(folder: Path) -> None:
    save_file(encoder_arrays(), folder / ENCODER_FILE)


def write_ffn(folder: Path) -> None:
    save_file(ominix_adaptor(adaptor_arrays(), "ffn_"), folder / ADAPTOR_FILE)


def write_packed(folder: Path) -> None:
    save_file(adaptor_arrays(), folder / ADAPTOR_FILE)


def write_pickle(folder: Path) -> None:
    import torch

    (folder / ADAPTOR_FILE).unlink()
    state = {name: torch.from_numpy(values) for name, values in adaptor_arrays().items()}
    torch.save(state, folder / "adaptor_phase2_final.pt")


def write_whole_llm(folder: Path) -> None:
    shutil.rmtree(folder / LLM_FOLDER)
    write_qwen3(folder / LLM_FOLDER, shards=1, tied=False)


def move(folder: Path) -> None:
    (folder / "sensevoice").mkdir()
    (folder / ENCODER_FILE).rename(folder / "sensevoice/encoder.safetensors")
    (folder / ADAPTOR_FILE).rename(folder / f"models/{ADAPTOR_FILE}")
    (folder / LLM_FOLDER).rename(folder / "qwen3-4b")


LAYOUTS = [write_upstream, write_ffn, write_packed, write_pickle, write_whole_llm, move]


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_every_layout_gives_the_same_model(
    source: Path, small_qwen4b: Path, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    """Bit by bit: names of upstream or of OminiX, split or packed, a pickle, one file or shards, other places."""
    write(source)
    if write is move:  # it has the adaptor's folder, but no adaptor of its own
        convert(None, tmp_path / "out", dtype="float32", adaptor=source / f"models/{ADAPTOR_FILE}",
                encoder=source / "sensevoice/encoder.safetensors", llm=source / "qwen3-4b")  # fmt: skip
        assert_same_weights(tmp_path / "out", small_qwen4b)
        shutil.rmtree(tmp_path / "out")
    convert(source, tmp_path / "out", dtype="float32")
    assert_same_weights(tmp_path / "out", small_qwen4b)


def test_named_parts_come_before_those_of_the_folder(source: Path, tmp_path: Path) -> None:
    other = write_qwen3(tmp_path / "other", seed=9)
    convert(source, tmp_path / "out", dtype="float32", llm=other)
    expected = load_file(other / "model.safetensors")["model.norm.weight"]
    np.testing.assert_array_equal(arrays_of(tmp_path / "out")["llm.model.norm.weight"], expected)
    shutil.rmtree(tmp_path / "out")
    convert(None, tmp_path / "out", dtype="float32", adaptor=source / ADAPTOR_FILE, llm=other)
    np.testing.assert_array_equal(arrays_of(tmp_path / "out")["llm.model.norm.weight"], expected)


@pytest.mark.parametrize(
    ("missing", "option"), [(ENCODER_FILE, "--encoder"), (ADAPTOR_FILE, "--adaptor"), (LLM_FOLDER, "--llm")]
)
def test_a_missing_part(source: Path, tmp_path: Path, missing: str, option: str) -> None:
    shutil.rmtree(source / missing) if option == "--llm" else (source / missing).unlink()
    with refused("model-missing" if option != "--adaptor" else "model-unsupported"):
        convert(source, tmp_path / "out")
    if option == "--adaptor":
        with refused("model-missing", option):
            convert(source, tmp_path / "out", llm=source / LLM_FOLDER)
    else:
        with refused("model-missing", option):
            convert(None, tmp_path / "out", adaptor=source / ADAPTOR_FILE)
    assert not (tmp_path / "out").exists()


def test_a_part_is_never_replaced(source: Path, sense_voice: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "converted"
    convert(sense_voice, encoder)
    with refused("output-is-source", encoder):
        convert(source, encoder, force=True, encoder=encoder)
    assert open_converted(encoder).config.encoder


def test_parts_that_nothing_names(tmp_path: Path) -> None:
    with refused("command-line", "--adaptor"):
        convert(None, tmp_path / "out", llm="x")
    with refused("options-conflict", "--revision"):
        convert(None, tmp_path / "out", adaptor="x", revision="main")
    with refused("model-missing"):
        convert(None, tmp_path / "out", adaptor=tmp_path / "none.safetensors", llm=tmp_path / "none")


PROBLEMS: dict[str, tuple[str, Change, str]] = {
    "missing in the adaptor": (ADAPTOR_FILE, lambda arrays: arrays.pop("layers.1.norm2.bias"), "norm2.bias"),
    "unknown in the adaptor": (ADAPTOR_FILE, lambda arrays: arrays.update(extra=arrays["norm.bias"]), "extra"),
    "a part of q, k, v": (ADAPTOR_FILE, lambda arrays: arrays.pop("layers.0.k_proj.weight"), "in_proj"),
    "misshapen": (ADAPTOR_FILE, lambda arrays: arrays.update({"norm.bias": np.zeros(3, np.float32)}), "norm.bias"),
    "not an adaptor": (ADAPTOR_FILE, lambda arrays: arrays.pop("input_proj.weight"), "input_proj.weight"),
    "missing in the encoder": (ENCODER_FILE, lambda arrays: arrays.pop("encoder.encoders.1.norm1.bias"), "norm1"),
    "unknown in the encoder": (
        ENCODER_FILE, lambda arrays: arrays.update({"encoder.more": arrays["encoder.tp_norm.bias"]}), "more",
    ),
    "not an encoder": (ENCODER_FILE, lambda arrays: arrays.pop("encoder.after_norm.weight"), "after_norm.weight"),
}  # fmt: skip


@pytest.mark.parametrize("problem", PROBLEMS)
def test_tensors_that_are_missing_or_unknown(source: Path, tmp_path: Path, problem: str) -> None:
    """The message names the file. Upstream continues with random values, or ignores them."""
    file, change, named = PROBLEMS[problem]
    edit(source / file, change)
    with refused("model-misfit", file, named):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_language_model_that_lacks_a_shard_or_a_tensor(source: Path, tmp_path: Path) -> None:
    index = source / LLM_FOLDER / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    shard = source / LLM_FOLDER / "model-00002-of-00003.safetensors"
    edit(shard, lambda arrays: arrays.pop(lost := next(iter(arrays))) is content["weight_map"].pop(lost))
    with refused("model-damaged"):
        convert(source, tmp_path / "out")
    index.write_text(json.dumps(content))
    with refused("model-misfit", "missing", shard.parent.name):
        convert(source, tmp_path / "out")
    shard.unlink()
    with refused("model-missing", shard.name):
        convert(source, tmp_path / "out")


def test_a_language_model_in_our_layout(source: Path, tmp_path: Path) -> None:
    """It could be read, but has other names: the message says so instead of a missing key."""
    convert(write_qwen3(tmp_path / "base"), tmp_path / "converted")
    with refused("model-unsupported", "--llm", "converted"):
        convert(source, tmp_path / "out", llm=tmp_path / "converted")


def test_another_language_model(source: Path, tmp_path: Path) -> None:
    """Of other widths, or with adapters that are not merged."""
    with refused("model-config", "adaptor"):
        convert(source, tmp_path / "out", llm=write_qwen3(tmp_path / "wide", hidden_size=128))
    llm = write_qwen3(tmp_path / "lora")
    edit(llm / "model.safetensors", lambda arrays: arrays.update({"x.lora_A.weight": arrays["model.norm.weight"]}))
    with refused("lora-unmerged"):
        convert(source, tmp_path / "out", llm=llm)


def test_an_encoder_that_may_be_another_models(source: Path, tmp_path: Path) -> None:
    """Fun-ASR-Nano's has the same names and shapes: a name, a whole folder or the queries tell them apart."""
    (source / ENCODER_FILE).rename(source / "model.safetensors")
    with refused("model-ambiguous", "model.safetensors", ENCODER_FILE):
        convert(source, tmp_path / "out")
    edit(
        source / "model.safetensors",
        lambda arrays: arrays.update({"embed.weight": np.zeros((16, 560), np.float32)}),
    )
    convert(source, tmp_path / "out")
    nano = {f"audio_{name}": values for name, values in encoder_arrays().items()}
    save_file(nano, source / ENCODER_FILE)
    with refused("model-ambiguous", ENCODER_FILE):
        convert(source, tmp_path / "nano")


def test_a_nano_as_the_encoder(source: Path, small_checkpoint: Path, small_model: Path, tmp_path: Path) -> None:
    for folder in (small_checkpoint, small_model):
        with refused("model-misfit", "SenseVoiceSmall"):
            convert(source, tmp_path / "out", encoder=folder)


def test_several_adaptors(source: Path, tmp_path: Path) -> None:
    """Names that upstream knows come first; of others, one must be named."""
    shutil.copy(source / ADAPTOR_FILE, source / "adaptor-mine.safetensors")
    convert(source, tmp_path / "out")
    (source / ADAPTOR_FILE).rename(source / "adaptor-his.safetensors")
    with refused("model-ambiguous", "adaptor-his.safetensors", "--adaptor"):
        convert(source, tmp_path / "other")


def test_notes(source: Path, tmp_path: Path) -> None:
    (source / "punc_ct").mkdir()
    (source / ADAPTOR_FILE).rename(source / "adaptor_phase3_final.safetensors")
    notes = "\n".join(convert(source, tmp_path / "out").notes)
    assert "ct-punc" in notes
    assert "LoRA" in notes


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_language_model_stays_as_it_is(source: Path, tmp_path: Path, bits: int) -> None:
    """Its arrays are copied; encoder and adaptor are not quantized with it, but the encoder may be."""
    llm = write_qwen3(tmp_path / "llm", groups=(bits, 64), dtype="bfloat16")
    convert(source, tmp_path / "out", llm=llm, quantize_encoder=8)
    opened = open_converted(tmp_path / "out")
    quantized = opened.quantized()
    assert {groups.bits for name, groups in quantized.items() if name.startswith("llm.")} == {bits}
    encoders = [name for name in quantized if name.startswith("audio_encoder.")]
    assert encoders
    assert {quantized[name].bits for name in encoders} == {8}
    assert not any(name.startswith("audio_adaptor.") for name in quantized)
    there, here = (read_header(folder / "model.safetensors") for folder in (llm, tmp_path / "out"))
    raw_there, raw_here = ((folder / "model.safetensors").read_bytes() for folder in (llm, tmp_path / "out"))
    for name, (begin, end) in there.spans.items():
        first, last = here.spans[f"llm.{name}"]
        assert raw_there[begin:end] == raw_here[first:last], name
    assert load_model(tmp_path / "out", "float32", "mlx").session(TranscribeOptions())
    with refused("model-quantized"):
        convert(source, tmp_path / "again", llm=llm, quantize="4")


def test_four_bits(source: Path, tmp_path: Path) -> None:
    """Also of the adaptor; the result can be computed as it is stored."""
    convert(source, tmp_path / "out", quantize="4")
    quantized = open_converted(tmp_path / "out").quantized()
    assert {"audio_adaptor.layers.0.in_proj", "llm.model.embed_tokens"} <= quantized.keys()
    assert not any(name.startswith("audio_encoder.") for name in quantized)
    model = load_qwen4b(tmp_path / "out", dtype="stored")
    assert model.trace(np.ones(16000, np.float32) / 9, TranscribeOptions(max_tokens=3)).logits.shape[0] == 3


@pytest.fixture(scope="module")
def sense_voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SenseVoiceSmall in FunASR's layout, with an encoder as wide as the adaptor takes."""
    sizes = CheckpointSpec(
        encoder_dim=64, encoder_ffn_dim=96, encoder_blocks=3, encoder_tp_blocks=2, dtype="float32", seed=4
    )
    return write_sense_voice(tmp_path_factory.mktemp("sense") / "SenseVoice", SenseVoiceSpec(sizes))


def test_sense_voice_as_the_encoder(source: Path, sense_voice: Path, tmp_path: Path) -> None:
    """As FunASR has it, or converted; either has what the encoder got when it was trained."""
    (source / ENCODER_FILE).unlink()
    convert(sense_voice, tmp_path / "converted", dtype="float32")
    for name, folder in (("a", sense_voice), ("b", tmp_path / "converted")):
        convert(source, tmp_path / name, dtype="float32", encoder=folder, encoder_input="sensevoice")
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    ours, theirs = load_qwen4b(tmp_path / "a"), load_model(tmp_path / "converted", "float32", "mlx")
    samples = np.random.default_rng(1).normal(0, 0.1, 20000).astype(np.float32)
    [expected] = theirs.hidden([samples], TranscribeOptions(language="zh", itn=False), {})
    [found] = ours.encoded([ours.features(samples)])
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=1e-5)
    [prompt] = ours.prompts([found], DEFAULTS)
    texts = sum(len(ours.token_ids(text)) for text in ("语音转写成中文：", "只输出转写文字，不要分析或解释："))
    assert len(prompt) == len(expected) + texts  # with the rows of the queries
    convert(source, tmp_path / "plain", dtype="float32", encoder=sense_voice)
    assert "embed.weight" not in arrays_of(tmp_path / "plain")


def test_an_encoder_without_what_its_input_needs(source: Path, tmp_path: Path) -> None:
    with refused("model-missing", "embed.weight", "--encoder"):
        convert(source, tmp_path / "out", encoder_input="sensevoice")
    edit(source / ENCODER_FILE, lambda arrays: arrays.update({"embed.weight": np.zeros((16, 560), np.float32)}))
    with refused("model-missing", "am.mvn"):
        convert(source, tmp_path / "out", encoder_input="sensevoice")


def test_a_quantized_encoder(source: Path, sense_voice: Path, tmp_path: Path) -> None:
    convert(sense_voice, tmp_path / "converted", quantize="8", group_size=32)
    with refused("model-quantized"):
        convert(source, tmp_path / "out", encoder=tmp_path / "converted")


def test_options_of_this_family_alone(small_checkpoint: Path, tmp_path: Path) -> None:
    with refused("option-unsupported", "--encoder-input"):
        convert(small_checkpoint, tmp_path / "out", encoder_input="scaled")
    with refused("option-value", "--encoder-input"):
        convert(small_checkpoint, tmp_path / "out", encoder_input="loud")
    with refused("option-unsupported", "--languages"):
        convert(write_folder(tmp_path / "source"), tmp_path / "out", languages=("zh",))


def test_inputs_of_the_encoder(source: Path, tmp_path: Path) -> None:
    """Scaled samples shift the logarithms; it is a field of the configuration, too."""
    convert(source, tmp_path / "scaled", dtype="float32", encoder_input="scaled")
    scaled = load_qwen4b(tmp_path / "scaled")
    samples = np.random.default_rng(1).normal(0, 0.1, 20000).astype(np.float32)
    emphasised = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1]) * 32768
    convert(source, tmp_path / "plain", dtype="float32")
    plain = load_qwen4b(tmp_path / "plain")
    np.testing.assert_allclose(scaled.features(samples), plain.features(emphasised), atol=1e-3)
    content = json.loads((tmp_path / "plain/config.json").read_text())
    content["encoder_input"] = "scaled"
    (tmp_path / "plain/config.json").write_text(json.dumps(content))
    changed = load_qwen4b(tmp_path / "plain")
    np.testing.assert_array_equal(changed.features(samples), scaled.features(samples))
    content["encoder_input"] = "loud"
    (tmp_path / "plain/config.json").write_text(json.dumps(content))
    with refused("model-config", "loud"):
        load_qwen4b(tmp_path / "plain")


def test_two_filters_are_always_silent(qwen4b_source: Path) -> None:
    from funasr_cli.features.floored_fbank import floored_mel_filters

    filters = floored_mel_filters(80, 512, 16000)
    assert filters.shape == (257, 80)
    assert np.flatnonzero(filters.max(axis=0) == 0).tolist() == [1, 8]
    assert open_checkpoint(qwen4b_source, "x").layout == "OminiX"


@pytest.mark.parametrize("where", ["named", "found"])
def test_an_adapter_of_the_language_model(source: Path, tmp_path: Path, where: str) -> None:
    """It is merged if it is named, or if PEFT has written it into the language model's folder."""
    weights = {name: torch.from_numpy(values) for name, values in shards_of(source / LLM_FOLDER).items()}
    modules = [f"model.layers.{layer}.self_attn.{kind}_proj" for layer in (0, 1) for kind in "qv"]
    tensors = factors(weights, modules)
    adapter = write_peft(tmp_path / "mine", tensors)
    plain = open_checkpoint(source, "Qwen4B")
    if where == "named":
        found = open_checkpoint(source, "Qwen4B", adapter)
    else:
        shutil.copytree(adapter, source / LLM_FOLDER, dirs_exist_ok=True)
        found = open_checkpoint(source, "Qwen4B")
    for name, tensor in found.tensors.items():
        expected, module = np.array(plain.tensors[name].read_in("float32")), name.split(".", 1)[1]
        if (module := module.removesuffix(".weight")) in modules:
            expected += 1.5 * (tensors[f"{module}.lora_B"] @ tensors[f"{module}.lora_A"]).numpy()
        np.testing.assert_allclose(np.array(tensor.read_in("float32")), expected, rtol=0, atol=5e-6, err_msg=name)


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (["adaptor_phase2_final.pt"], True),
        (["models/adaptor_phase3_final.safetensors"], True),
        (["adaptor_cached.pt", "models/Qwen3-4B/config.json"], True),
        (["adaptor_config.pt"], False),
        (["adaptor.safetensors", "model.pt", "config.yaml"], False),
    ],
)
def test_an_unrelated_adaptor_does_not_make_a_folder_of_this_model(
    names: list[str], counts: bool, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert is_folder(tmp_path) is counts
