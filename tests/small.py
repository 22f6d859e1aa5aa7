"""Small fast checkpoints, and fixtures over them that `unit/conftest.py` and `cli/conftest.py` share."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from checkpoints import CheckpointSpec, write_checkpoint

import funasr_cli
from funasr_cli.audio.decode import load_audio
from funasr_cli.decoding.generate import generate, make_sampler
from funasr_cli.measure import StageClock
from funasr_cli.options import TranscribeOptions

# Two layers of each kind are enough for everything but the arithmetic; `eos_gain` 0: the budget ends the text.
SMALL = CheckpointSpec(
    encoder_dim=32, encoder_ffn_dim=32, encoder_blocks=2, encoder_tp_blocks=1, adaptor_ffn_dim=32,
    adaptor_layers=1, llm_layers=2, dtype=torch.float32, eos_gain=0.0, seed=2,
)  # fmt: skip

MakeCheckpoint = Callable[..., Path]


def small_spec(**changes: Any) -> CheckpointSpec:
    return dataclasses.replace(SMALL, **changes)


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the state dict of a checkpoint in place; its container is `state_dict`."""
    content = torch.load(folder / "model.pt", weights_only=True)
    change(content["state_dict"])
    torch.save(content, folder / "model.pt")


def first_token_ids(folder: Path, clip: Path, count: int) -> list[int]:
    recognizer = funasr_cli.load(str(folder))
    audio, options, clock = load_audio(clip, recognizer.sample_rate_hz), TranscribeOptions(), StageClock()
    prompts = recognizer.prompts(recognizer.encode(recognizer.features([audio], clock), clock), options)
    tokens = generate(recognizer.loaded.model.llm, prompts, (), count, make_sampler(options))
    return [token.token_id for token in tokens]


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that converts in a moment. Not to be changed: see `make_checkpoint`."""
    return write_checkpoint(tmp_path_factory.mktemp("source") / "Small-Nano", SMALL)


@pytest.fixture(scope="session")
def small_model(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_checkpoint` converted in float32. It writes until the budget ends."""
    return funasr_cli.convert(
        str(small_checkpoint), tmp_path_factory.mktemp("out") / "small", dtype="float32"
    ).folder


@pytest.fixture(scope="session")
def stopping_model(
    small_model: Path, zh_wav: Path, en_flac: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`small_model` with stop tokens that it does write after some text of either clip."""
    folder = tmp_path_factory.mktemp("out") / "stopping"
    shutil.copytree(small_model, folder)
    written = [first_token_ids(small_model, clip, 12) for clip in (zh_wav, en_flac)]
    stops = [list(dict.fromkeys(ids))[-1] for ids in written]  # whichever token came up last
    edit_json(folder / "config.json", lambda config: config.update(stop_token_ids=stops))
    return folder


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> MakeCheckpoint:
    """Write a small checkpoint with other properties: `make_checkpoint(name="a", llm_tied=False)`."""

    def make(name: str = "checkpoint", **changes: Any) -> Path:
        return write_checkpoint(tmp_path / name, small_spec(**changes))

    return make


@pytest.fixture
def checkpoint(small_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of `small_checkpoint` to damage."""
    return shutil.copytree(small_checkpoint, tmp_path / "Small-Nano")


@pytest.fixture
def model(small_model: Path, tmp_path: Path) -> Path:
    """A copy of `small_model` to damage."""
    return shutil.copytree(small_model, tmp_path / "damaged")


@pytest.fixture(scope="session")
def short_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of noise, 16 kHz mono."""
    path = tmp_path_factory.mktemp("audio") / "short.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(8000), 16000)
    return path
