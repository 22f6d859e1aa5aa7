"""Conversion: output, destination, refused sources and their hints. More damage: support/damaged.py."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.errors import refused
from support.layouts import read_tensors
from support.running import tree
from support.small import MakeCheckpoint, convert, edit_tensors

import funasr_cli
from funasr_cli.checkpoints import format as module
from funasr_cli.checkpoints.checkpoint import Checkpoint, read_small_json
from funasr_cli.checkpoints.format import sha256_of
from funasr_cli.checkpoints.quantize import Groups, Part, Quantization
from funasr_cli.errors import ModelError
from funasr_cli.families import converted as own_layout
from funasr_cli.families import registry
from funasr_cli.families.converted import read_config
from funasr_cli.families.family import Family
from funasr_cli.families.load import load_model
from funasr_cli.families.open import open_checkpoint
from funasr_cli.verification.check import check_model

LM_HEAD, EMBEDDING = "llm.lm_head.weight", "llm.model.embed_tokens.weight"
NORM = "audio_encoder.tp_norm.weight"
MADE = '{"pieces": ["▁", "你"]}'
Tensors = dict[str, torch.Tensor]


def converted(folder: Path, out: Path, **options: object) -> Tensors:
    convert(folder, out, **options)
    return load_file(out / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_equal_those_of_the_source(make_checkpoint: MakeCheckpoint, tmp_path: Path, dtype: str) -> None:
    """They are equal to the bit, except that FSMN taps change their layout and a tied head's copy is dropped."""
    folder = make_checkpoint(dtype=getattr(torch, dtype), with_ctc=True)
    before, source = tree(folder), read_tensors(folder)
    out = converted(folder, tmp_path / "out", dtype=dtype)
    assert source.keys() - out.keys() == {LM_HEAD}
    assert out.keys() <= source.keys()
    swapped = [name for name in out if name.endswith("fsmn_block.weight")]
    assert len(swapped) == 3
    for name, tensor in out.items():
        expected = source[name].transpose(-1, -2) if name in swapped else source[name]
        assert torch.equal(tensor, expected)
        assert tensor.dtype == getattr(torch, dtype)
    assert tree(folder) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_floating_point_types_are_cast(checkpoint: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    edit_tensors(checkpoint, lambda tensors: tensors.update({n: t.to(dtype) for n, t in tensors.items()}))
    assert all(tensor.dtype == torch.bfloat16 for tensor in converted(checkpoint, tmp_path / "out").values())


@pytest.mark.slow
def test_untied_head_is_kept(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    folder = make_checkpoint(llm_tied=False)
    out = converted(folder, tmp_path / "out", dtype="float32")
    assert torch.equal(out[LM_HEAD], read_tensors(folder)[LM_HEAD])
    assert not torch.equal(out[LM_HEAD], out[EMBEDDING])


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("tied", [True, False])
def test_quantized_tensors(make_checkpoint: MakeCheckpoint, tmp_path: Path, bits: int, tied: bool) -> None:
    """All matrices of the decoder, including embeddings, and no others; values are within half a step."""
    folder = make_checkpoint(llm_tied=tied)
    out = converted(folder, tmp_path / "out", dtype="float32", quantize=bits, group_size=32)
    source = read_tensors(folder)
    quantized = {name.removesuffix(".scales") for name in out if name.endswith(".scales")}
    matrices = {n.removesuffix(".weight") for n, t in source.items() if n.startswith("llm.") and t.ndim == 2}
    assert quantized == matrices - ({LM_HEAD.removesuffix(".weight")} if tied else set())
    assert {name.removesuffix(".biases") for name in out if name.endswith(".biases")} == quantized
    for name in quantized:
        packed, scales = out[f"{name}.weight"], out[f"{name}.scales"]
        original = source[f"{name}.weight"]
        rows, columns = original.shape
        assert (packed.dtype, tuple(packed.shape)) == (torch.uint32, (rows, columns * bits // 32))
        assert tuple(scales.shape) == (rows, columns // 32)
        values = unpack(packed.numpy(), bits) * scales.repeat_interleave(32, 1).numpy()
        values += out[f"{name}.biases"].repeat_interleave(32, 1).numpy()
        error = np.abs(values - original.numpy())
        assert (error <= scales.abs().repeat_interleave(32, 1).numpy() * 1.01).all()
    for name in source.keys() - {f"{name}.weight" for name in matrices}:
        assert out[name].dtype == torch.float32


def unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """Unpack (rows, words) uint32 into (rows, values), the lowest bits first."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    return ((packed[:, :, None] >> shifts) & (2**bits - 1)).reshape(len(packed), -1).astype(np.float32)


def test_metadata_states_the_source(small_checkpoint: Path, tmp_path: Path) -> None:
    conversion = convert(small_checkpoint, tmp_path / "out")
    expected = {
        "source": "Small-Nano", "layout": "FunASR", "tool_version": f"funasr-cli {funasr_cli.__version__}",
    }  # fmt: skip
    with safe_open(conversion.folder / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "funasr-cli", **expected}
        assert len(list(file.keys())) == conversion.tensors
    config = json.loads((conversion.folder / "config.json").read_text())
    assert config["source"] == {
        **expected, "hub": None, "revision": None, "sha256": sha256_of(small_checkpoint / "model.pt"),
    }  # fmt: skip
    assert (config["format"], config["format_version"], config["dtype"]) == ("funasr-cli", 1, "bfloat16")


def test_files_of_the_source(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    folder = make_checkpoint(with_ctc=True)
    (folder / "Qwen3-0.6B/merges.txt").unlink()
    convert(folder, tmp_path / "out")
    copied = {"tokenizer.json", "tokenizer_config.json", "vocab.json", "generation_config.json"}
    for name in copied:
        assert (tmp_path / "out" / name).read_bytes() == (folder / "Qwen3-0.6B" / name).read_bytes()
    written = {"config.json", "model.safetensors", "README.md", "SHA256SUMS", "multilingual.tiktoken"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == copied | written


@pytest.mark.slow
def test_ctc_is_decided_by_the_tensors(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """`config.yaml` names a CTC decoder in both cases."""
    for name, with_ctc in (("a", True), ("b", False)):
        conversion = convert(str(make_checkpoint(name=name, with_ctc=with_ctc)), tmp_path / f"out-{name}")
        assert (conversion.model.config.ctc is not None) == with_ctc
        assert (load_model(conversion.folder).ctc_vocabulary is not None) == with_ctc


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "languages", "expected"),
    [("Nano", None, 3), ("Fun-ASR-MLT-Nano", None, 31), ("Nano", ("ko", "日本語", "ENGLISH"), ("ko", "ja", "en"))],
)
def test_languages(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, name: str, languages: tuple[str, ...] | None, expected: object
) -> None:
    conversion = convert(make_checkpoint(name=name), tmp_path / "out", languages=languages)
    got = conversion.model.config.prompt.languages
    assert (len(got) if isinstance(expected, int) else got) == expected


@pytest.fixture
def strict_family(monkeypatch: pytest.MonkeyPatch) -> Family:
    """A family with fixed languages that accepts 8 bits and no encoder recipe, and writes an extra file."""
    nano = registry.FAMILIES[0]

    def open_funasr(*details: Any) -> Checkpoint:
        assert nano.open_funasr
        return dataclasses.replace(nano.open_funasr(*details), texts={"made.json": MADE})

    def files(folder: Path, config: Any) -> dict[str, Path]:
        return {**nano.files(folder, config), "made.json": folder / "made.json"}

    part = Part("quantize", "the model", ("llm.", "audio_encoder."), ("8",), "its words go wrong")
    family = dataclasses.replace(
        nano, parts=(part,), with_languages=None, upstream_options=None, open_funasr=open_funasr, files=files
    )
    monkeypatch.setattr(registry, "FAMILIES", (family,))
    return family


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"languages": ("zh",)}, "--languages"), ({"quantize": 4}, "its words go wrong"),
        ({"quantize": "mixed"}, "--quantize 8"), ({"quantize_encoder": 8}, "--quantize-encoder 8"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("strict_family")
def test_options_that_a_family_refuses(
    small_checkpoint: Path, tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    with refused("option-unsupported", "FunASRNano", named) as caught:
        convert(small_checkpoint, tmp_path / "m", **options)
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"languages": ("zh",)}, "--languages"), ({"quantize": 4}, "--quantize 4"),
        ({"quantize_encoder": 8}, "--quantize-encoder 8"), ({"verify": "full"}, "--verify full"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["nano", "FunAudioLLM/Fun-ASR-Nano-2512"])
@pytest.mark.usefixtures("strict_family")
def test_errors_known_from_a_short_name_come_before_any_download(
    name: str, options: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("funasr_cli.conversion.convert.fetch_checkpoint", lambda *_: pytest.fail("fetched"))
    with refused("option-unsupported", "FunASRNano", named):
        funasr_cli.convert(name, tmp_path / "m", **options)
    assert not list(tmp_path.iterdir())


def test_what_a_family_quantizes_and_writes(small_checkpoint: Path, tmp_path: Path, strict_family: Family) -> None:
    """Rows that do not divide stay dense. The extra file belongs to the model like any other."""
    source = open_checkpoint(small_checkpoint, "Nano")
    assert read_small_json(source.files, source.texts, "made.json") == json.loads(MADE)
    conversion = convert(small_checkpoint, tmp_path / "m", quantize=8, group_size=32)
    checked = check_model(conversion.folder).checkpoint
    assert checked.quantization == Quantization(Groups(8, 32))
    prefixes = {name.partition(".")[0] for name in checked.quantized()}
    assert prefixes == {"llm", "audio_encoder"}
    assert read_small_json(checked.files, checked.texts, "made.json") == json.loads(MADE)
    assert (conversion.folder / "made.json").read_text(encoding="utf-8") == MADE
    page = (conversion.folder / "README.md").read_text(encoding="utf-8")
    for stated in (*strict_family.readme(checked.config), *strict_family.capabilities(checked.config).names()):
        assert stated in page
    (conversion.folder / "made.json").write_text("{}", encoding="utf-8")
    with refused("model-damaged", "made.json"):
        check_model(conversion.folder)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [{"dtype": "bfloat16"}, {"dtype": "float32", "quantize": 4, "group_size": 32}])
def test_a_dense_conversion_is_a_source(
    small_checkpoint: Path, small_model: Path, tmp_path: Path, recipe: dict[str, object]
) -> None:
    """The result is the same as from the checkpoint itself, and names the checkpoint's source."""
    direct, again = (
        converted(small_checkpoint, tmp_path / "a", **recipe),
        converted(small_model, tmp_path / "b", **recipe),
    )
    assert again.keys() == direct.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in direct.items())
    source = json.loads((tmp_path / "b/config.json").read_text())["source"]
    assert (source["source"], source["layout"]) == ("Small-Nano", "funasr-cli")
    assert source["sha256"] == sha256_of(small_model / "model.safetensors")


@pytest.mark.slow
def test_a_checkpoint_of_several_types_is_verified(checkpoint: Path, tmp_path: Path) -> None:
    """Most of it already has the requested type. Values that are narrowed may differ, and do."""

    def change(tensors: Tensors) -> None:
        tensors |= {n: t.bfloat16() for n, t in tensors.items() if not n.startswith("audio_encoder.encoders.")}

    edit_tensors(checkpoint, change)
    proof = funasr_cli.convert(checkpoint, tmp_path / "out").proof
    assert proof is not None
    assert 0 < proof.errors["encoder"] < 0.1


# --- destination ---


def test_the_source_is_never_replaced(small_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(small_checkpoint, tmp_path / "deeper/checkpoint")
    (checkpoint.parent / "link").symlink_to(checkpoint)
    before = tree(tmp_path)
    for out in (checkpoint, checkpoint.parent, checkpoint / ".", checkpoint.parent / "link"):
        for force in (False, True):
            with refused("output-is-source", out):
                convert(checkpoint, out, force=force)
    assert tree(tmp_path) == before


def test_inside_the_source(checkpoint: Path) -> None:
    convert(checkpoint, checkpoint / "mlx")
    assert read_config(checkpoint / "mlx")


@pytest.mark.parametrize("step", ["write_safetensors", "copyfile", "write_config", "write_text", "fsync"])
@pytest.mark.parametrize("replacing", [False, True])
def test_a_full_disk_leaves_the_old_model_and_nothing_else(
    small_checkpoint: Path, model: Path, monkeypatch: pytest.MonkeyPatch, step: str, replacing: bool
) -> None:
    out = model if replacing else model.parent / "new"
    owner = {"write_config": own_layout, "write_text": Path, "copyfile": shutil, "fsync": os}.get(step, module)
    monkeypatch.setattr(owner, step, Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    before = tree(model.parent)
    with refused("disk-full", out):
        funasr_cli.convert(small_checkpoint, out, force=True)
    assert tree(model.parent) == before
    assert os.listdir(model.parent) == [model.name]


# --- refused sources ---


def refusal(folder: Path, code: str, *values: str) -> ModelError:
    with refused(code, *values) as caught:
        convert(folder, folder.parent / "out")
    assert os.listdir(folder.parent) == [folder.name]
    assert isinstance(caught.value, ModelError)
    return caught.value


def test_missing_unexpected_and_misshapen_tensors_are_listed(checkpoint: Path) -> None:
    taps = "audio_encoder.encoders.0.self_attn.fsmn_block.weight"

    def change(tensors: Tensors) -> None:
        del tensors[NORM]
        tensors["audio_encoder.extra.weight"] = torch.zeros(2, 3)
        tensors["audio_encoder.tp_norm.bias"] = torch.zeros(5)
        tensors[taps] = tensors[taps].transpose(-1, -2).contiguous()  # as if converted once already

    edit_tensors(checkpoint, change)
    head, *lines = refusal(checkpoint, "model-misfit").message.splitlines()
    assert head.startswith(f"{checkpoint / 'model.pt'}: 4 tensors")
    assert lines[:2] == [f"  missing: {NORM} (32,)", "  unexpected: audio_encoder.extra.weight (2, 3)"]
    for line, parts in zip(
        lines[2:], [(taps, "(32, 1, 11)", "(32, 11, 1)"), ("bias", "(5,)", "(32,)")], strict=True
    ):
        assert line.startswith("  misshapen: ")
        assert all(part in line for part in parts)


def test_long_lists_are_cut(checkpoint: Path) -> None:
    edit_tensors(checkpoint, lambda tensors: [tensors.pop(n) for n in list(tensors) if n.startswith("llm.")])
    lines = refusal(checkpoint, "model-misfit").message.splitlines()
    assert ": 24 tensors" in lines[0]
    assert "18 more" in lines[-1]
    assert len(lines) == 8


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_tensors_that_are_not_real_numbers(checkpoint: Path, dtype: torch.dtype) -> None:
    """A tied head and embedding with such values cannot even be compared."""
    names = (EMBEDDING, LM_HEAD)
    edit_tensors(checkpoint, lambda tensors: tensors.update({name: tensors[name].to(dtype) for name in names}))
    refusal(checkpoint, "model-misfit", f"{EMBEDDING} is of type {str(dtype).removeprefix('torch.')}")


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["model.pt.ep2", "model.pt.ep10", "model.pt.best"], "model.pt.best"),
        (["model.pt.ep1", "model.pt.avg10"], "model.pt.avg10"),
        (["model.pt.\x1b[31m"], "model.pt.\N{REPLACEMENT CHARACTER}[31m"),
    ],
)
def test_files_of_upstreams_trainer(checkpoint: Path, names: list[str], named: str) -> None:
    for name in names:
        shutil.copyfile(checkpoint / "model.pt", checkpoint / name)
    (checkpoint / "model.pt").unlink()
    refusal(checkpoint, "model-missing", f"mv {named} model.pt")


def test_a_config_json_that_is_not_ours_is_ignored(checkpoint: Path, tmp_path: Path) -> None:
    """FunASR's layout does not use one."""
    (checkpoint / "config.json").write_text("{")
    assert convert(checkpoint, tmp_path / "out").tensors > 0
