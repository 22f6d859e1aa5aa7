"""Checkpoints that both implementations load: the reference runs once on each of them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.clips import write_clips
from parity.live import Pair, run_pair
from parity.stated import STATED
from support.checkpoints import CheckpointSpec, small_variance_spec, write_checkpoint

import funasr_cli
from funasr_cli.checkpoints.load import load_model
from funasr_cli.languages import LANGUAGES, MLT_LANGUAGES
from funasr_cli.pipeline import Recognizer

BATCH_CLIPS = ("zh", "en-1s", "noise-0.5s", "silence-1s", "zh-0.1s")
HOTWORDS = ["Kennedy", "滨海新区", "it's"]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory, zh_wav: Path, en_flac: Path) -> dict[str, Path]:
    """Name -> file of every clip."""
    return write_clips(tmp_path_factory.mktemp("clips"), zh_wav, en_flac)


@pytest.fixture(scope="session")
def ctc_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full depth, tiny width, with the CTC branch."""
    spec = CheckpointSpec(dtype=torch.float32, with_ctc=True)
    return write_checkpoint(tmp_path_factory.mktemp("ctc") / "Fun-ASR-Nano-ctc", spec)


@pytest.fixture(scope="session")
def ctc_model(ctc_checkpoint: Path) -> Path:
    """`ctc_checkpoint`, converted in float32."""
    return funasr_cli.convert(
        str(ctc_checkpoint), ctc_checkpoint.with_name("model"), dtype="float32", verify="off"
    ).folder


@pytest.fixture(scope="session")
def ctc_recognizer(ctc_model: Path) -> Recognizer:
    """`ctc_model`, loaded; not to be changed."""
    return Recognizer(load_model(ctc_model, "float32"))


@pytest.fixture(scope="session")
def nano(ctc_checkpoint: Path, clips: dict[str, Path]) -> Pair:
    """Every clip, with the languages, hotwords and ITN taking turns."""
    languages = (None, "中文", "英文", "日文")
    cases: list[dict[str, Any]] = [
        {
            "name": name,
            "audio": path,
            "language": languages[turn % 4],
            "hotwords": HOTWORDS if turn % 3 == 1 else [],
            "itn": turn % 5 != 2,
            "max_tokens": 64,
        }
        for turn, (name, path) in enumerate(clips.items())
    ]
    return run_pair(ctc_checkpoint, cases)


@pytest.fixture(scope="session")
def mlt(tiny_checkpoint: Path, clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """All languages on one clip; no CTC branch, so that the reference decodes batches, too."""
    checkpoint = tmp_path_factory.mktemp("mlt") / "Fun-ASR-MLT-Nano-tiny"
    shutil.copytree(tiny_checkpoint, checkpoint)
    spoken: list[str | None] = [None, *(LANGUAGES[code].prompt_name for code in MLT_LANGUAGES)]
    cases: list[dict[str, Any]] = [
        {
            "name": language or "auto",
            "audio": clips["en-1s"],
            "language": language,
            "hotwords": HOTWORDS[: turn % 3],
            "itn": turn % 2 == 0,
            "max_tokens": 16,
        }
        for turn, language in enumerate(spoken)
    ]
    shared = {"language": "中文", "max_tokens": 24}
    cases += [{"name": name, "audio": clips[name], **shared} for name in BATCH_CLIPS]
    batch = {"name": "batch", "audio": [clips[name] for name in BATCH_CLIPS], **shared}
    return run_pair(checkpoint, cases, [batch])


@pytest.fixture(scope="session")
def small_variance(tmp_path_factory: pytest.TempPathFactory, clips: dict[str, Path]) -> Pair:
    """Norms see variances near their eps."""
    spec = small_variance_spec(dtype=torch.float32)
    checkpoint = write_checkpoint(tmp_path_factory.mktemp("small") / "Fun-ASR-Nano-small", spec)
    return run_pair(checkpoint, [{"name": "zh", "audio": clips["zh"], "max_tokens": 16}])


@pytest.fixture(scope="session", params=STATED)
def stated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, clips: dict[str, Path]
) -> Pair:
    """Nothing is as in the release."""
    folder = tmp_path_factory.mktemp(request.param) / "Fun-ASR-Nano-other"
    checkpoint = write_checkpoint(folder, STATED[request.param])
    cases = [{"name": name, "audio": clips[name], "language": "英文"} for name in ("zh-2.5s", "en-1s", "zh-0.1s")]
    return run_pair(checkpoint, cases)
