"""Checkpoints that both implementations load. The reference runs once on each of them."""

from pathlib import Path

import pytest
from support.checkpoints import CheckpointSpec, write_checkpoint
from support.parity.clips import BATCH_CLIPS, FEW_CLIPS, FEW_SPOKEN, SPOKEN, clip_paths, write_clips
from support.parity.dialogues import PROMPTS
from support.parity.live import Jobs, Pair, run_pair
from support.small import convert, once

from funasr_cli.families.load import load_model
from funasr_cli.pipeline import Recognizer

CTC = CheckpointSpec(dtype="float32", with_ctc=True)
HOTWORDS = ["Kennedy", "滨海新区", "it's"]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory, zh_wav: Path, en_flac: Path) -> dict[str, Path]:
    """The file of each clip, by name."""
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
    """`ctc_model`, loaded. Do not change it."""
    return Recognizer(load_model(ctc_model, "float32"))


def nano_cases(clips: dict[str, Path]) -> Jobs:
    """Return a case for every clip, alternating languages, hotwords and ITN."""
    languages = (None, "中文", "英文", "日文")
    return [
        {
            "name": name, "audio": path, "language": languages[turn % 4],
            "hotwords": HOTWORDS if turn % 3 == 1 else [], "itn": turn % 5 != 2, "max_tokens": 64,
        }
        for turn, (name, path) in enumerate(clips.items())
    ]  # fmt: skip


@pytest.fixture(scope="session")
def nano(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A few clips."""
    cases = [case for case in nano_cases(clips) if case["name"] in FEW_CLIPS]
    return run_pair(tmp_path_factory, "Fun-ASR-Nano-pair", CTC, cases)


@pytest.fixture(scope="session")
def nano_rest(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The other clips, which take minutes."""
    cases = [case for case in nano_cases(clips) if case["name"] not in FEW_CLIPS]
    return run_pair(tmp_path_factory, "Fun-ASR-Nano-rest", CTC, cases)


def mlt_cases(clips: dict[str, Path]) -> Jobs:
    """Return a case for each language, on one clip."""
    return [
        {
            "name": name, "audio": clips["en-1s"], "language": None if name == "auto" else name,
            "hotwords": HOTWORDS[: turn % 3], "itn": turn % 2 == 0, "max_tokens": 16,
        }
        for turn, name in enumerate(SPOKEN)
    ]  # fmt: skip


@pytest.fixture(scope="session")
def mlt(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A few languages. Without a CTC branch, so that the reference can decode batches."""
    cases = [case for case in mlt_cases(clips) if case["name"] in FEW_SPOKEN]
    shared = {"language": "中文", "max_tokens": 24}
    cases += [{"name": name, "audio": clips[name], **shared} for name in BATCH_CLIPS]
    cases.append({"name": "dialogue", "audio": clips["en-1s"], "max_tokens": 16, "prompts": PROMPTS} | PROMPTS[0])
    batch = {"name": "batch", "audio": [clips[name] for name in BATCH_CLIPS], **shared}
    return run_pair(tmp_path_factory, "Fun-ASR-MLT-Nano-tiny", CheckpointSpec(dtype="float32"), cases, [batch])


@pytest.fixture(scope="session")
def mlt_rest(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The other languages."""
    cases = [case for case in mlt_cases(clips) if case["name"] not in FEW_SPOKEN]
    return run_pair(tmp_path_factory, "Fun-ASR-MLT-Nano-rest", CheckpointSpec(dtype="float32"), cases)


@pytest.fixture(scope="session")
def small_variance(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Norms whose inputs have variances near their eps, so that a wrong eps shows (1e-5, 1e-12, RMSNorm: 1e-6)."""
    spec = CheckpointSpec(dtype="float32", encoder_entry_gain=1e-3, adaptor_gain=3e-3, embedding_std=2e-3)
    cases = [{"name": "zh", "audio": clips["zh"], "max_tokens": 16}]
    return run_pair(tmp_path_factory, "Fun-ASR-Nano-small", spec, cases)
