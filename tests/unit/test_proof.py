"""A converted model is compared with its source before it is put in place."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from support.errors import refused
from support.layouts import write_mlx_audio
from support.small import MakeCheckpoint, convert, edit_json

import funasr_cli
from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.tensors import Tensor
from funasr_cli.checkpoints.untrusted import SHOWN_CHARACTERS
from funasr_cli.compute.backend import mx
from funasr_cli.conversion.convert import Proof
from funasr_cli.errors import SetupError
from funasr_cli.families.fun_asr_nano import names
from funasr_cli.families.open import open_checkpoint
from funasr_cli.paths import REFERENCE_PYTHON
from funasr_cli.speech_model import Trace
from funasr_cli.verification import proof, reference
from funasr_cli.verification.proof import prove

NORM = "llm.model.norm.weight"


def proved(source: Path, result: Path, exact: bool = True) -> Proof:
    return prove(open_checkpoint(source, "Small-Nano"), result, exact=exact, with_pytorch=False)


def edit_weights(folder: Path, change: Callable[[dict[str, mx.array]], None]) -> None:
    weights = dict(mx.load(str(folder / "model.safetensors")))
    mx.eval(weights)
    change(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)


@pytest.mark.slow
def test_the_same_values_compute_the_same(small_checkpoint: Path, small_model: Path) -> None:
    found = proved(small_checkpoint, small_model)
    assert found.errors == {"features": 0, "encoder": 0, "audio_embeddings": 0, "logits": 0}
    assert (found.agreeing, found.result_text, found.is_doubtful) == (found.tokens, found.source_text, False)


@pytest.mark.slow
def test_a_single_changed_value_is_found(small_checkpoint: Path, tmp_path: Path) -> None:
    folder = convert(small_checkpoint, tmp_path / "m", dtype="float32").folder
    edit_weights(folder, lambda weights: weights.update({NORM: weights[NORM] + mx.eye(64)[3] * 1e-6}))
    with refused("model-differs", NORM):
        proved(small_checkpoint, folder)


@pytest.mark.slow
def test_the_same_values_with_another_result(small_checkpoint: Path, tmp_path: Path) -> None:
    """The configuration differs."""
    folder = convert(small_checkpoint, tmp_path / "m", dtype="float32").folder
    edit_json(folder / "config.json", lambda config: config["llm"].update(rope_theta=10.0))
    with refused("model-differs", "features 0.0e+00, encoder 0"):
        proved(small_checkpoint, folder)
    assert proved(small_checkpoint, folder, exact=False).errors["logits"] > proof.LARGEST_IF_EXACT


@pytest.mark.slow
def test_values_that_are_not_finite_are_refused(small_checkpoint: Path, tmp_path: Path) -> None:
    folder = convert(small_checkpoint, tmp_path / "m", dtype="float32", quantize=8).folder
    scales = "llm.model.layers.0.mlp.up_proj.scales"
    edit_weights(folder, lambda weights: weights.update({scales: weights[scales] * mx.inf}))
    with refused("model-differs", "logits inf"):
        proved(small_checkpoint, folder, exact=False)


def test_most_tokens_differ() -> None:
    assert Proof("clip", "a", "b", tokens=9, agreeing=4, errors={}).is_doubtful
    assert not Proof("clip", "a", "b", tokens=9, agreeing=5, errors={}).is_doubtful


@pytest.mark.parametrize(
    ("blank_id", "result_ids", "tokens", "agreeing", "is_doubtful"),
    [
        (0, [0, 0, 0, 0, 0, 7, 8, 9], 3, 0, True),
        (0, [0, 0, 0, 0, 0, 4, 5, 9], 3, 2, False),
        (0, [1, 1, 1, 1, 1, 4, 5, 6], 3, 3, False),
        (None, [0, 0, 0, 0, 0, 7, 8, 9], 8, 5, False),
    ],
)
def test_frames_without_a_label_prove_nothing(
    small_checkpoint: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch, blank_id: int | None,
    result_ids: list[int], tokens: int, agreeing: int, is_doubtful: bool,
) -> None:  # fmt: skip
    def traced(*token_ids: int) -> Trace:
        return Trace({}, np.eye(10, dtype=np.float32)[list(token_ids)], token_ids, "", blank_id)

    monkeypatch.setattr(proof, "trace", Mock(side_effect=[traced(0, 0, 0, 0, 0, 4, 5, 6), traced(*result_ids)]))
    found = proved(small_checkpoint, small_model, exact=False)
    assert (found.tokens, found.agreeing, found.is_doubtful) == (tokens, agreeing, is_doubtful)


@pytest.mark.parametrize("error", [RuntimeError("[metal::malloc] out of\nmemory"), SetupError("no memory")])
def test_a_device_out_of_memory_only_skips_the_verification(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(proof, "trace", Mock(side_effect=error))
    conversion = funasr_cli.convert(small_checkpoint, tmp_path / "m")
    assert conversion.proof is None
    [note] = conversion.notes
    assert note.startswith("not verified: ")
    assert str(error).splitlines()[0] in note
    assert note.isprintable()
    assert (tmp_path / "m/model.safetensors").is_file()


@pytest.mark.slow
def test_comparison_with_pytorch(small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real reference is run in tests/parity; here it is replaced by a function."""
    seen: list[Trace] = []
    original = proof.trace
    monkeypatch.setattr(proof, "trace", lambda *a: seen.append(original(*a)) or seen[-1])
    monkeypatch.setattr(proof, "reference_python", lambda: None)
    monkeypatch.setattr(proof, "run_reference", lambda *_: seen[0])
    found = funasr_cli.convert(small_checkpoint, tmp_path / "same", verify="full").proof
    assert found
    assert found.port_errors == {"features": 0, "encoder": 0, "audio_embeddings": 0, "logits": 0}
    assert found.port_agreeing == found.tokens
    monkeypatch.setattr(
        proof,
        "run_reference",
        lambda *_: replace(seen[0], stages={**seen[0].stages, "encoder": seen[0].stages["encoder"] * 1.1}),
    )
    with refused("model-differs", "PyTorch's: features 0"):
        funasr_cli.convert(small_checkpoint, tmp_path / "other", verify="full")
    assert not (tmp_path / "other").exists()


def test_full_fails_if_the_device_runs_out_of_memory(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requested verification was impossible, so no model is written."""
    monkeypatch.setattr(proof, "reference_python", lambda: None)
    monkeypatch.setattr(proof, "trace", Mock(side_effect=MemoryError("no memory")))
    with refused("memory-short", "no memory"):
        funasr_cli.convert(small_checkpoint, tmp_path / "m", verify="full")
    assert not (tmp_path / "m").exists()


@pytest.mark.process
def test_full_needs_the_reference_and_its_layout(
    small_checkpoint: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNASR_REFERENCE_PYTHON", "/nowhere/python")
    with refused("reference-missing", "/nowhere/python: "):
        funasr_cli.convert(small_checkpoint, tmp_path / "m", verify="full")
    with refused("options-conflict", "--verify full"):
        funasr_cli.convert(small_model, tmp_path / "m", verify="full")
    assert not (tmp_path / "m").exists()


def test_two_tensors_of_one_name() -> None:
    tensor = Tensor("float32", (1,), lambda: mx.zeros(1))
    spell = {"block": lambda number: f"encoders.{number}", "last": lambda _: None}
    whole = "audio_encoder.encoders.1.self_attn.linear_q_k_v.bias"
    q, twice, k, v = (
        f"model.audio_tower.layers.{name}_proj.bias"
        for name in ("1.self_attn.q", "01.self_attn.q", "1.self_attn.k", "1.self_attn.v")
    )
    for both in ([q, twice], [whole, q, k, v]):
        with refused("model-misfit", "here: ", whole):
            keymap.translate(dict.fromkeys(both, tensor), names.TRANSFORMERS, "here", **spell)


def test_the_source_of_a_conversion(small_checkpoint: Path, tmp_path: Path) -> None:
    """mlx-audio's folder is a source and also names its own; our folder only names its source."""
    source = write_mlx_audio(small_checkpoint, tmp_path / "by-mlx-audio")
    first = convert(source, tmp_path / "first", dtype="float32").model.source
    assert (first["source"], first["origin"]) == ("by-mlx-audio", "FunAudioLLM/Fun-ASR-Nano-2512")
    second = convert(tmp_path / "first", tmp_path / "second").model.source
    assert {name: second[name] for name in ("source", "hub", "revision", "origin")} == {
        "source": "by-mlx-audio", "hub": None, "revision": None, "origin": "FunAudioLLM/Fun-ASR-Nano-2512",
    }  # fmt: skip


def test_an_encoder_that_cannot_be_quantized(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    source = make_checkpoint(encoder_dim=32, encoder_ffn_dim=48)
    with refused("model-misfit", "encoder", 128):
        convert(source, tmp_path / "m", quantize_encoder=8, group_size=128)


# Replaces the reference: stores its input and fails with control characters in its message.
KEEPER = """#!{python}
import json, os, pathlib, shutil, sys
if sys.argv[1] != "-c":
    shutil.copytree(json.loads(pathlib.Path(sys.argv[2]).read_text())["checkpoint"], {seen!r})
    pathlib.Path({seen!r}, "environment").write_text(json.dumps(dict(os.environ)))
    sys.exit("first line\\nlast \\x1b[2J" + "x" * 5000)
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the reference's input will be stored."""
    python, seen = tmp_path / "python", tmp_path / "seen"
    python.write_text(KEEPER.format(python=sys.executable, seen=str(seen)), encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setenv(REFERENCE_PYTHON, str(python))
    return seen


def ask(source: Path, code: str = "reference-failed", *values: str) -> None:
    """Assert that the verification fails with this code."""
    with refused(code, *values) as caught:
        proof.run_reference(open_checkpoint(source, "Small-Nano"), source / "clip.wav", [1])
    assert "\x1b" not in caught.value.message


@pytest.mark.process
def test_the_reference_gets_nothing_from_a_foreign_configuration(
    make_checkpoint: MakeCheckpoint, seen: Path
) -> None:
    source = make_checkpoint(with_ctc=True)
    options = yaml.safe_load((source / "config.yaml").read_text(encoding="utf-8"))
    options |= {"trust_remote_code": True, "remote_code": "model.py", "vad_model": "fsmn-vad"}
    options["llm_conf"]["init_param_path"] = "/trained/elsewhere/Qwen3-0.6B"
    (source / "config.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    edit_json(source / "Qwen3-0.6B/config.json", lambda config: config.update(auto_map={"AutoConfig": "a.B"}))
    for name in ("model.py", "requirements.txt", "tokens.json", "Qwen3-0.6B/a.py"):
        (source / name).write_text("raise SystemExit\n", encoding="utf-8")
    ask(source)
    (seen / "environment").unlink()
    of_decoder = ("config.json", "generation_config.json", "merges.txt", "tokenizer.json", "tokenizer_config.json")
    assert sorted(path.relative_to(seen).as_posix() for path in seen.rglob("*") if path.is_file()) == [
        *(f"Qwen3-0.6B/{name}" for name in (*of_decoder, "vocab.json")),
        "config.yaml",
        "model.pt",
        "multilingual.tiktoken",
    ]
    given = yaml.safe_load((seen / "config.yaml").read_text(encoding="utf-8"))
    assert not given.keys() & {"trust_remote_code", "remote_code", "vad_model"}
    assert given["llm_conf"] == {"hub": "hf", "init_param_path": "Qwen3-0.6B", "use_lora": False}
    assert given["audio_encoder_conf"]["output_size"] == options["audio_encoder_conf"]["output_size"]
    assert "auto_map" not in json.loads((seen / "Qwen3-0.6B/config.json").read_text(encoding="utf-8"))
    assert (seen / "model.pt").read_bytes() == (source / "model.pt").read_bytes()


@pytest.mark.process
def test_the_reference_unpickles_only_tensors(
    small_checkpoint: Path, seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    ask(small_checkpoint)
    environment = json.loads((seen / "environment").read_text(encoding="utf-8"))
    for name in [name for name in environment if name.startswith("TORCH_FORCE")]:
        monkeypatch.setenv(name, environment[name])
    if "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in environment:
        monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    torch.save({"path": tmp_path}, tmp_path / "object.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "object.pt", weights_only=False)


@pytest.mark.process
def test_a_full_temporary_folder_is_named(
    small_checkpoint: Path, seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    ask(small_checkpoint, "temporary-folder", f"{tmp_path / 'nowhere'}: ", "TMPDIR")
    assert not seen.exists()


@pytest.mark.process
def test_the_references_last_message_is_made_printable(small_checkpoint: Path, seen: Path) -> None:
    words = "last \N{REPLACEMENT CHARACTER}[2J"
    shown = words + "x" * (SHOWN_CHARACTERS - len(words))
    ask(small_checkpoint, "reference-failed", f"{small_checkpoint}: ", f"({shown})")
    assert seen.is_dir()


@pytest.mark.process
def test_the_reference_is_not_imported_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current folder may be a checkpoint's."""
    (tmp_path / "funasr.py").write_text("open('marker', 'w').close()\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(REFERENCE_PYTHON, sys.executable)
    with contextlib.suppress(SetupError):
        reference.reference_python()
    assert not (tmp_path / "marker").exists()
