"""Layouts of other programs on the command line: what is said of them, and which ones are read as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.expected import lines_of
from support.layouts import write_mlx_audio, write_transformers
from support.running import invoke
from support.small import MakeCheckpoint

import funasr_cli
from funasr_cli.checkpoints.format import sha256_of

HEAD = "CTC head, and so word times: no, this model has none"
ELSEWHERE = "ModelScope's copy has one: --hub ms"


@pytest.fixture
def ctc_checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint("Nano", with_ctc=True)


def test_transformers(small_checkpoint: Path, tmp_path: Path) -> None:
    """It says that upstream's frame rate and prompt are stated."""
    source, out = write_transformers(small_checkpoint, tmp_path / "Nano-hf"), tmp_path / "out"
    result = invoke("convert", source, out, "--dtype", "float32", "--verify", "off")
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    first, note, *others = result.stderr.splitlines()
    assert first.startswith("87 tensors in the layout of Transformers, ")
    assert ("frame rate" in note, others[1]) == (True, HEAD)
    result = invoke("transcribe", "clip.wav", "-m", source)
    result.assert_error(3, "model-unconverted", f"funasr convert {source}")


@pytest.mark.slow
def test_mlx_audio(ctc_checkpoint: Path, short_wav: Path, tmp_path: Path) -> None:
    """Transcribed as it lies there, as if it had been converted; it says what becomes of the CTC branch."""
    source = write_mlx_audio(ctc_checkpoint, tmp_path / "Nano-mlx-audio")
    out = tmp_path / "out"
    result = invoke("convert", source, out, "--dtype", "float32", "--verify", "off")
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    first, note, *others = result.stderr.splitlines()
    assert first.startswith("87 tensors in the layout of mlx-audio, ")
    assert ("CTC branch is left out" in note, others[1]) == (True, f"{HEAD}; {ELSEWHERE}")
    model = funasr_cli.convert(ctc_checkpoint, tmp_path / "model", dtype="float32", verify="off").folder
    expected = lines_of(model, short_wav, max_tokens=4)
    assert expected
    for folder in (source, out):
        assert invoke("transcribe", short_wav, "-m", folder, "--max-tokens", 4).stdout == expected
    checked = invoke("convert", "--check", source)
    assert (checked.exit_code, checked.stderr) == (0, "")
    whole, digest, *others = checked.stdout.splitlines()
    assert whole.startswith("whole: 87 arrays, ")
    assert digest == f"SHA-256 of the weights: {sha256_of(source / 'model.safetensors')}"
    assert others == ["no list of SHA-256 lies there", "languages: zh, en, ja", f"{HEAD}; {ELSEWHERE}"]
