"""Checkpoints that are not converted, and why."""

import collections
import contextlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.small import convert, edit_json, edit_tensors

from funasr_cli.checkpoints.layouts.funasr import open_funasr
from funasr_cli.errors import ExitCode, ModelError, SetupError, UsageError

Tensors = dict[str, torch.Tensor]
NORM = "audio_encoder.tp_norm.weight"


def refusal(folder: Path, **options: Any) -> ModelError:
    out = folder.parent / "out"
    with pytest.raises(ModelError) as caught:
        convert(folder, out, **options)
    assert not out.exists()
    assert not list(folder.parent.glob(".*"))
    assert caught.value.exit_code == ExitCode.MODEL
    return caught.value


def test_missing_unexpected_and_misshapen_tensors_are_listed(checkpoint: Path) -> None:
    def change(tensors: Tensors) -> None:
        del tensors[NORM]
        tensors["audio_encoder.extra.weight"] = torch.zeros(2, 3)
        tensors["audio_encoder.tp_norm.bias"] = torch.zeros(5)
        name = "audio_encoder.encoders.0.self_attn.fsmn_block.weight"
        tensors[name] = tensors[name].transpose(-1, -2).contiguous()  # as if converted once already

    edit_tensors(checkpoint, change)
    error = refusal(checkpoint)
    assert error.message.splitlines() == [
        f"{checkpoint / 'model.pt'}: 4 tensors do not fit the configuration",
        f"  missing: {NORM} (32,)",
        "  unexpected: audio_encoder.extra.weight (2, 3)",
        "  misshapen: audio_encoder.encoders.0.self_attn.fsmn_block.weight is (32, 1, 11), the configuration says "
        "(32, 11, 1)",
        "  misshapen: audio_encoder.tp_norm.bias is (5,), the configuration says (32,)",
    ]
    assert error.hint == "the checkpoint is incomplete, or its configuration belongs to another one"


def test_long_lists_are_cut(checkpoint: Path) -> None:
    edit_tensors(checkpoint, lambda tensors: [tensors.pop(n) for n in list(tensors) if n.startswith("llm.")])
    lines = refusal(checkpoint).message.splitlines()
    assert lines[0].endswith(": 24 tensors do not fit the configuration")
    assert lines[-1] == "  missing: ... and 18 more"
    assert len(lines) == 8


def test_half_a_ctc_branch_is_refused(checkpoint: Path) -> None:
    edit_tensors(checkpoint, lambda tensors: tensors.update({"ctc.ctc_lo.bias": torch.zeros(3)}))
    assert "missing: ctc_decoder." in refusal(checkpoint).message


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_tensors_that_are_not_real_numbers(checkpoint: Path, dtype: torch.dtype) -> None:
    edit_tensors(checkpoint, lambda tensors: tensors.update({NORM: torch.ones(32, dtype=dtype)}))
    assert refusal(checkpoint).message.endswith(
        f": {NORM} is of type {str(dtype).removeprefix('torch.')}, not float32 or bfloat16 or float16"
    )


def test_tied_integers(checkpoint: Path) -> None:
    """Their head and embedding cannot be compared."""
    names = ("llm.model.embed_tokens.weight", "llm.lm_head.weight")
    edit_tensors(checkpoint, lambda tensors: tensors.update({name: tensors[name].long() for name in names}))
    assert refusal(checkpoint).message.endswith(
        f": {names[0]} is of type int64, not float32 or bfloat16 or float16"
    )


@pytest.mark.parametrize("tensor", [torch.ones(32).to_sparse(), torch.ones(32, device="meta")])
def test_tensors_without_plain_values(checkpoint: Path, tensor: torch.Tensor) -> None:
    edit_tensors(checkpoint, lambda tensors: tensors.update({NORM: tensor}))
    assert f"{NORM} is a {tensor.layout} tensor on {tensor.device}: not supported" in refusal(checkpoint).message


class Payload:
    """Runs a shell command when it is unpickled by something that executes pickles."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("legacy", [False, True])
def test_hostile_pickles_are_refused_and_not_executed(checkpoint: Path, tmp_path: Path, legacy: bool) -> None:
    proof = tmp_path / "executed"
    content = torch.load(checkpoint / "model.pt", weights_only=True)
    content["state_dict"][NORM] = Payload(proof)
    torch.save(content, checkpoint / "model.pt", _use_new_zipfile_serialization=not legacy)
    torch.load(checkpoint / "model.pt", weights_only=False)
    assert proof.exists(), "the payload must be a real one"
    proof.unlink()
    error = refusal(checkpoint)
    assert error.message == (
        f"{checkpoint / 'model.pt'}: refused, it asks for {os.system.__module__}.system, which is not a tensor"
    )
    assert error.hint == "only plain state dicts are read; nothing in a checkpoint is ever executed"
    assert not proof.exists()


def test_whole_modules_are_refused(checkpoint: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), checkpoint / "model.pt")
    assert "it asks for torch.nn.modules.linear.Linear" in refusal(checkpoint).message


def self_reference() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["model"] = content
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list, not a state dict"),
        (torch.ones(1), "holds a Tensor, not a state dict"),
        ({"a": 3}, "not a state dict ('a' is a int)"),
        ({"state_dict": {"a": torch.ones(1), "b": "x"}}, "not a state dict ('b' is a str)"),
        (self_reference(), "not a state dict ('model' is a dict)"),
        (
            {"a": torch.ones(1), "module.a": torch.zeros(1)},
            "holds tensors both with and without the prefix module.",
        ),
        (collections.OrderedDict(), "87 tensors do not fit"),
        ({3: torch.ones(1)}, "unexpected: 3 (1,)"),
    ],
)
def test_other_objects(checkpoint: Path, content: Any, message: str) -> None:
    torch.save(content, checkpoint / "model.pt")
    assert message in refusal(checkpoint).message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "model.pt: empty"),
        (b"<html><body>404</body></html>", "not a PyTorch checkpoint, or damaged"),
        (b"PK\x03\x04" + bytes(100), "not a PyTorch checkpoint, or damaged"),
        (pickle.dumps({"a": 1}, protocol=5), "not a PyTorch checkpoint, or damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a pointer of git-lfs"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_other_files(checkpoint: Path, content: bytes, message: str) -> None:
    (checkpoint / "model.pt").write_bytes(content)
    assert message in refusal(checkpoint).message


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
def test_truncated_weights(checkpoint: Path, kept: float) -> None:
    path = checkpoint / "model.pt"
    os.truncate(path, int(path.stat().st_size * kept))
    assert "not a PyTorch checkpoint, or damaged" in refusal(checkpoint).message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_damaged_pickles_never_raise_anything_else(
    checkpoint: Path, changes: list[tuple[int, int]], legacy: bool
) -> None:
    path = checkpoint / "model.pt"
    torch.save({"a": torch.ones(3), "b": torch.zeros(2, 2)}, path, _use_new_zipfile_serialization=not legacy)
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    path.write_bytes(content)
    with contextlib.suppress(ModelError):  # many a changed byte does no harm
        open_funasr(checkpoint, ("zh",))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("config.yaml", "FunASR writes one beside model.pt: copy it, or that of the model that was fine-tuned"),
        ("model.pt", "the weights belong beside config.yaml: copy or download them, too"),
    ],
)
def test_half_a_checkpoint(checkpoint: Path, name: str, hint: str) -> None:
    (checkpoint / name).unlink()
    error = refusal(checkpoint)
    assert error.message == f"{checkpoint / name}: missing"
    assert error.hint == hint


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["model.pt.ep2", "model.pt.ep10", "model.pt.best"], "model.pt.best"),
        (["model.pt.ep1", "model.pt.avg10"], "model.pt.avg10"),
        (["model.pt.\x1b[31m"], "model.pt.\N{REPLACEMENT CHARACTER}[31m"),
    ],
)
def test_what_upstreams_trainer_leaves(checkpoint: Path, names: list[str], named: str) -> None:
    for name in names:
        shutil.copyfile(checkpoint / "model.pt", checkpoint / name)
    (checkpoint / "model.pt").unlink()
    error = refusal(checkpoint)
    assert error.message == f"{checkpoint / 'model.pt'}: missing"
    assert error.hint == f"rename the one you want to model.pt, as in: mv {named} model.pt"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_missing_files_of_the_decoder(checkpoint: Path, name: str) -> None:
    (checkpoint / "Qwen3-0.6B" / name).unlink()
    assert refusal(checkpoint).message == f"{checkpoint / 'Qwen3-0.6B' / name}: missing"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "unlike Qwen's tokenizer: model None"),
        ("not json", "cannot be read ("),
        ('{"model": {"type": "BPE"}}', "damaged ("),
    ],
)
def test_damaged_tokenizer(checkpoint: Path, content: str, message: str) -> None:
    (checkpoint / "Qwen3-0.6B/tokenizer.json").write_text(content)
    assert f"tokenizer.json: {message}" in refusal(checkpoint).message


def test_an_empty_tokenizer(checkpoint: Path) -> None:
    path = checkpoint / "Qwen3-0.6B/tokenizer.json"
    path.write_bytes(b"")
    assert refusal(checkpoint).message == f"{path}: empty"


def test_tokenizer_of_another_model(checkpoint: Path) -> None:
    def change(tokenizer: dict[str, Any]) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary.update({f"extra{i}": len(vocabulary) + 1000 + i for i in range(500)})

    edit_json(checkpoint / "Qwen3-0.6B/tokenizer.json", change)
    assert "but the decoder has 768" in refusal(checkpoint).message


@pytest.mark.parametrize("content", ["x y z\n", "!!!\n", "\xff"])
def test_damaged_ctc_vocabulary(make_checkpoint: Callable[..., Path], content: str) -> None:
    folder = make_checkpoint(with_ctc=True)
    (folder / "multilingual.tiktoken").write_text(content, encoding="latin-1")
    assert "multilingual.tiktoken: damaged (" in refusal(folder).message
    (folder / "multilingual.tiktoken").unlink()
    assert refusal(folder).message == f"{folder / 'multilingual.tiktoken'}: missing"


@pytest.mark.parametrize("languages", [("xx",), ("zh", ""), ("zh,en",)])
def test_unknown_languages(checkpoint: Path, languages: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        convert(checkpoint, checkpoint.parent / "out", languages=languages)
    assert caught.value.message == f"unknown language {languages[-1]!r}"
    assert caught.value.hint.startswith("known: zh, en, yue, ja, ko, ")


def test_without_torch(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(SetupError) as caught:
        open_funasr(checkpoint, ("zh",))
    assert caught.value.message == "reading model.pt needs torch"
    assert caught.value.hint.startswith("pip install torch; ")


def test_a_config_json_that_is_not_ours_is_no_matter(small_checkpoint: Path, tmp_path: Path) -> None:
    """FunASR's own layout does not need one."""
    source = tmp_path / "source"
    shutil.copytree(small_checkpoint, source)
    (source / "config.json").write_text("{")
    assert convert(source, tmp_path / "out").tensors > 0


def test_a_quantized_conversion_is_no_source(small_checkpoint: Path, tmp_path: Path) -> None:
    quantized = convert(small_checkpoint, tmp_path / "quantized", quantize=8).folder
    error = refusal(quantized)
    assert error.message == f"{quantized / 'model.safetensors'}: is quantized, its dense weights are gone"
    assert error.hint == "transcribe reads it as it is; to change the recipe, convert what it was made from"
