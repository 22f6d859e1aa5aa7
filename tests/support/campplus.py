"""CAM++ checkpoints with random weights, as the hubs have them; and a model of voices without a network."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from support.small import convert, once

from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.families.campplus.layouts import WEIGHTS
from funasr_cli.models.campplus import CAMPPlus
from funasr_cli.speech_model import Trace


def write_campplus(folder: Path, name: str = WEIGHTS[1]) -> Path:
    """Write random weights, with the counters of a trained checkpoint, into a folder."""
    import torch

    draw, state = np.random.default_rng(0), {}
    for key, shape in model_shapes(CAMPPlus(80, 192)).items():
        is_scale = key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight"))
        inputs = math.prod(shape[1:]) if len(shape) > 1 else 100
        values = draw.uniform(0.5, 1.5, shape) if is_scale else draw.normal(0, inputs**-0.5, shape)
        state[key] = torch.tensor(values, dtype=torch.float32)
        if key.endswith("running_var"):
            state[key.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    folder.mkdir(parents=True)
    torch.save(state, folder / name)
    return folder


def converted_campplus(folder: Path) -> Path:
    """Write and convert a checkpoint with random weights; return the converted folder."""
    return convert(write_campplus(folder / "source"), folder / "converted").folder


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted checkpoint with random weights."""
    return once(tmp_path_factory, "campplus", converted_campplus) / "converted"


class Pitches:
    """A model of voices whose embedding is the loudest frequency of a clip, one axis for each 100 Hz."""

    name, sample_rate_hz = "pitches", 16000

    def embed(self, clips: np.ndarray) -> np.ndarray:
        """Return (clips, 40) embeddings of clips (clips, samples)."""
        spectrum = np.abs(np.fft.rfft(clips, axis=1))  # (clips, frequencies)
        loudest_hz = spectrum.argmax(axis=1) * self.sample_rate_hz / clips.shape[1]
        return np.eye(40, dtype=np.float32)[np.clip(loudest_hz // 100, 0, 39).astype(int)]

    def trace(self) -> Trace:
        raise NotImplementedError
