"""Checkpoints that both implementations load: the reference runs once on each of them."""

from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import CheckpointSpec, small_variance_spec, write_checkpoint
from support.parity.clips import BATCH_CLIPS, clip_paths, write_clips
from support.parity.live import Pair, run_pair
from support.parity.stated import STATED
from support.small import convert, once

from funasr_cli.checkpoints.load import load_model
from funasr_cli.languages import LANGUAGES, MLT_LANGUAGES
from funasr_cli.pipeline import Recognizer

CTC = CheckpointSpec(dtype="float32", with_ctc=True)
HOTWORDS = ["Kennedy", "滨海新区", "it's"]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory, zh_wav: Path, en_flac: Path) -> dict[str, Path]:
    """Name -> file of every clip."""
    folder = once(tmp_path_factory, "clips", lambda folder: write_clips(folder, zh_wav, en_flac))
    return clip_paths(folder, zh_wav, en_flac)


@pytest.fixture(scope="session")
def ctc_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full depth, tiny width, with the CTC branch; converted in float32."""

    def make(folder: Path) -> None:
        convert(write_checkpoint(folder / "Fun-ASR-Nano-ctc", CTC), folder / "model", dtype="float32")

    return once(tmp_path_factory, "ctc", make) / "model"


@pytest.fixture(scope="session")
def ctc_recognizer(ctc_model: Path) -> Recognizer:
    """`ctc_model`, loaded; not to be changed."""
    return Recognizer(load_model(ctc_model, "float32"))


@pytest.fixture(scope="session")
def nano(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
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
    return run_pair(tmp_path_factory, "Fun-ASR-Nano-pair", CTC, cases)


@pytest.fixture(scope="session")
def mlt(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """All languages on one clip; no CTC branch, so that the reference decodes batches, too."""
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
    spec = CheckpointSpec(dtype="float32")
    return run_pair(tmp_path_factory, "Fun-ASR-MLT-Nano-tiny", spec, cases, [batch])


@pytest.fixture(scope="session")
def small_variance(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Norms see variances near their eps."""
    cases = [{"name": "zh", "audio": clips["zh"], "max_tokens": 16}]
    return run_pair(tmp_path_factory, "Fun-ASR-Nano-small", small_variance_spec(dtype="float32"), cases)


@pytest.fixture(scope="session", params=STATED)
def stated(
    request: pytest.FixtureRequest, clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    """Nothing is as in the release."""
    cases = [{"name": name, "audio": clips[name], "language": "英文"} for name in ("zh-2.5s", "en-1s", "zh-0.1s")]
    return run_pair(tmp_path_factory, f"Fun-ASR-Nano-{request.param}", STATED[request.param], cases)
