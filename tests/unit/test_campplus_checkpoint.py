"""CAM++ checkpoints: layouts that are read, number types, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from support.campplus import write_campplus
from support.errors import refused
from support.small import convert

from funasr_cli.errors import AudioError
from funasr_cli.families.campplus.layouts import WEIGHTS
from funasr_cli.families.load import load_speakers
from funasr_cli.families.open import open_checkpoint, open_model
from funasr_cli.hubs.repository import wanted


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_alone(tmp_path: Path, name: str) -> None:
    """A repository of ModelScope has no configuration; float16 in place of bfloat16, which is too coarse."""
    source = write_campplus(tmp_path / "source", name)
    half, exact = (
        convert(source, tmp_path / "half").folder,
        convert(source, tmp_path / "f", dtype="float32").folder,
    )
    assert {tensor.dtype for tensor in open_model(half).tensors.values()} == {"float16"}
    clip = np.random.default_rng(0).normal(0, 0.1, (1, 24000)).astype(np.float32)
    [a], [b] = (load_speakers(folder).embed(clip).astype(np.float64) for folder in (half, exact))
    assert 1e-9 < 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) < 1e-4


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"growth_rate": 64}, "model-unsupported"),
        ({"output_level": "frame"}, "model-unsupported"),
        ({"feat_dim": 60}, "model-config"),
        ({"embedding_size": "large"}, "model-config"),
    ],
)
def test_other_sizes_are_refused(tmp_path: Path, changes: dict[str, object], code: str) -> None:
    source = write_campplus(tmp_path / "source", WEIGHTS[0])
    (source / "config.yaml").write_text(yaml.safe_dump({"model": "CAMPPlus", "model_conf": changes}))
    with refused(code, "config.yaml"):
        open_checkpoint(source, "source")


def test_a_configuration_without_sizes(tmp_path: Path) -> None:
    source = write_campplus(tmp_path / "source", WEIGHTS[0])
    (source / "config.yaml").write_text("model: CAMPPlus\n")
    assert open_checkpoint(source, "source").config.embedding_size == 192


def test_too_short_clips(tmp_path: Path) -> None:
    model = load_speakers(convert(write_campplus(tmp_path / "source"), tmp_path / "model").folder)
    with pytest.raises(AudioError):
        model.embed(np.zeros((1, 400), np.float32))
    shortest = model.embed(np.random.default_rng(0).normal(size=(1, 880)).astype(np.float32))
    assert np.isfinite(shortest).all()


def test_files_of_the_hubs() -> None:
    names = ["README.md", "configuration.json", "config.yaml", WEIGHTS[0], "examples/speaker1_a_cn_16k.wav"]
    assert wanted("funasr/campplus", names) == ["README.md", "config.yaml", "configuration.json", WEIGHTS[0]]
