"""Small, fast checkpoints and their conversions: fixtures for all tests, made once per run."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from support.batch import generate
from support.checkpoints import CheckpointSpec, write_checkpoint

import funasr_cli
from funasr_cli.audio.decode import load_audio
from funasr_cli.conversion.convert import Conversion
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.options import DEFAULTS

# Two layers of each kind are enough except for the arithmetic. `eos_gain` 0: no text ever ends. The native engine
# cannot compute heads of this size, so results are those of MLX in float32 on every machine; it can with `NATIVE`.
SMALL = CheckpointSpec(
    encoder_dim=32, encoder_ffn_dim=32, encoder_blocks=2, encoder_tp_blocks=1, adaptor_ffn_dim=32,
    adaptor_layers=1, llm_layers=2, llm_heads=8, llm_head_dim=24, dtype="float32", eos_gain=0.0, seed=1,
)  # fmt: skip
NATIVE: dict[str, Any] = {"llm_heads": 4, "llm_head_dim": 32}

MakeCheckpoint = Callable[..., Path]


def convert(source: str | Path, out: Path | None = None, **options: Any) -> Conversion:
    """Call `funasr_cli.convert` without verification, which takes longer than the rest and has its own tests."""
    return funasr_cli.convert(source, out, **{"verify": "off"} | options)


def small_spec(**changes: Any) -> CheckpointSpec:
    return dataclasses.replace(SMALL, **changes)


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_tensors(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the state dict of a checkpoint in place. Its container is `state_dict`."""
    import torch

    content = torch.load(folder / "model.pt", weights_only=True)
    change(content["state_dict"])
    torch.save(content, folder / "model.pt")


def first_token_ids(folder: Path, clip: Path, count: int, dtype: str | None = None) -> list[int]:
    """Return the first token ids of a whole clip, decoded as with `--no-vad`."""
    model = funasr_cli.load(str(folder), dtype).model
    samples = load_audio(clip, model.sample_rate_hz).samples
    prompts = model.prompts(model.encoded([model.features(samples)]), DEFAULTS)
    (tokens,) = generate(model.network.llm, prompts, (), count, make_sampler(DEFAULTS))
    return [token.token_id for token in tokens]


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Path:
    """Return a file or folder that the first worker to need it makes and all workers of the run share."""
    root = factory.getbasetemp()
    path = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "once" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.made").open("a+") as made:
        fcntl.flock(made, fcntl.LOCK_EX)
        made.seek(0)
        if not made.read():
            make(path)
            made.write("made")
    return path


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that converts quickly. Do not change it: use `make_checkpoint`."""
    return once(tmp_path_factory, "Small-Nano", lambda folder: write_checkpoint(folder, SMALL))


@pytest.fixture(scope="session")
def small_model(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_checkpoint` converted in float32. It never ends a text: its output loops."""
    return once(tmp_path_factory, "small", lambda folder: convert(small_checkpoint, folder, dtype="float32"))


@pytest.fixture(scope="session")
def stopping_model(
    small_model: Path, zh_wav: Path, en_flac: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`small_model` with stop tokens that it does write, after some text, for both clips taken as a whole."""

    def make(folder: Path) -> None:
        shutil.copytree(small_model, folder)
        written = [first_token_ids(small_model, clip, 12) for clip in (zh_wav, en_flac)]
        stops = [list(dict.fromkeys(ids))[-1] for ids in written]  # the token that first occurred last
        edit_json(folder / "config.json", lambda config: config.update(stop_token_ids=stops))

    return once(tmp_path_factory, "stopping", make)


@pytest.fixture(scope="session")
def small_sense_voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small SenseVoice of tests/data, converted. It understands the demo model's clips."""
    source = Path(__file__).parents[1] / "data/sense_voice_small"
    return once(tmp_path_factory, "converted-sense-voice", lambda folder: convert(source, folder))


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> MakeCheckpoint:
    """A function that writes a small checkpoint with other properties: `make_checkpoint(name="a", seed=1)`."""

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
def short_wav(zh_wav: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of speech from `zh_wav`, 16 kHz mono."""
    samples, rate_hz = soundfile.read(zh_wav)
    path = tmp_path_factory.mktemp("audio") / "short.wav"
    soundfile.write(path, samples[24000:32000], rate_hz)
    return path
