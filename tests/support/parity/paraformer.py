"""Paraformer compared with FunASR: random checkpoints of each layout, and checks of every stage.

The checks are plain functions that raise AssertionError. They also run on models that are broken on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paraformer import CHARACTERS, ParaformerSpec, write_paraformer
from support.parity.checks import COSINE, FEATURE_TOLERANCE, require, worst_cosine
from support.parity.clips import BATCH_CLIPS, FEW_CLIPS
from support.parity.live import REPOSITORY, run_reference
from support.small import convert, once

from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.segment import AudioSegment
from funasr_cli.families.load import load_model
from funasr_cli.models.cif import fire_steps
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import SegmentRequest
from funasr_cli.transcript import Segment

SCRIPT = REPOSITORY / "tests/support/parity/record_paraformer.py"
WEIGHT_TOLERANCE = 1e-5
EMBEDDING_TOLERANCE = 1e-4  # relative to the largest; upstream subtracts running sums over the whole clip
LOGIT_TOLERANCE = 1e-3
CLOSE = 2 * LOGIT_TOLERANCE  # both logits may be off, in opposite directions
SHORT_S = 1e-3  # upstream cuts to whole milliseconds


KINDS = ("plain", "bicif", "seaco")
FEW = tuple(dict.fromkeys((*FEW_CLIPS, *BATCH_CLIPS)))
HOTWORDS = "世界 hello 天气"
MANY = " ".join(a + b for a in CHARACTERS[:8] for b in CHARACTERS[8:16])  # more than are looked for at a time
LESSON = "你 好 hel@@ lo a b 世 界 micro@@ phone 1 2".split()


def cases_of(kind: str, clips: dict[str, Path], names: tuple[str, ...]) -> dict[str, tuple[Path, str]]:
    """Return the cases of a layout: every clip; for SeACo, every second one also with hotwords, one with many."""
    cases = {name: (clips[name], "") for name in names}
    if kind == "seaco":
        cases |= {f"{name}-hotwords": (clips[name], HOTWORDS) for name in names[::2]}
        cases["many-hotwords"] = (clips["zh-2.5s"], MANY)
    return cases


@dataclass(frozen=True)
class Row:
    """A clip, its hotwords, and the reference's results for it alone."""

    name: str
    audio: Path
    hotwords: tuple[str, ...]
    report: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def options(self) -> TranscribeOptions:
        """The options of this package."""
        return TranscribeOptions(vad=False, hotwords=self.hotwords, confidence=True)

    @property
    def margins(self) -> np.ndarray:
        """The margin of the best over the second-best output: (tokens,)."""
        second, best = np.partition(self.arrays["logits"], -2, axis=-1)[:, -2:].T
        return best - second


@dataclass(frozen=True)
class References:
    """A conversion of a checkpoint, with FunASR's results on the original."""

    model: Path
    rows: dict[str, Row]


@dataclass(frozen=True)
class Job:
    """A random checkpoint, and clips with hotwords, separated by spaces, by the name of the case.

    With a lesson, the checkpoint is first taught to read these tokens from a clip.
    """

    spec: ParaformerSpec
    cases: dict[str, tuple[Path, str]]
    lesson: tuple[Path, list[str]] | None = None


def run_references(factory: pytest.TempPathFactory, name: str, jobs: dict[str, Job]) -> dict[str, References]:
    """Write checkpoints, run the reference on them, and convert them: once, for all workers."""

    def make(folder: Path) -> None:
        stated = []
        for kind, job in jobs.items():
            cases = [
                {"name": f"{kind}/{case}", "audio": audio, "hotword": words}
                for case, (audio, words) in job.cases.items()
            ]
            lessons = [{"audio": job.lesson[0], "tokens": job.lesson[1]}] if job.lesson else []
            source = write_paraformer(folder / kind / "Paraformer", job.spec)
            stated.append({"checkpoint": source, "cases": cases, "lessons": lessons})
        (folder / "job.json").write_text(json.dumps(stated, default=str), encoding="utf-8")
        run_reference(SCRIPT, folder / "job.json", folder / "answers")
        for kind in jobs:
            convert(folder / kind / "Paraformer", folder / kind / "mlx", dtype="float32")

    folder = once(factory, f"paraformer-{name}", make)
    found = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    arrays: dict[str, dict[str, np.ndarray]] = {case: {} for case in found}
    with np.load(folder / "answers.npz") as stored:
        for path in stored.files:
            case, _, what = path.rpartition("/")
            arrays[case][what] = stored[path]
    return {
        kind: References(
            folder / kind / "mlx",
            {
                case: Row(case, audio, tuple(words.split()), found[f"{kind}/{case}"], arrays[f"{kind}/{case}"])
                for case, (audio, words) in job.cases.items()
            },
        )
        for kind, job in jobs.items()
    }


def run_few(factory: pytest.TempPathFactory, clips: dict[str, Path]) -> dict[str, References]:
    """Compare a few clips in each layout, and teach each layout a sentence."""
    clip = clips["zh-2.5s"]
    jobs = {kind: Job(ParaformerSpec(kind), cases_of(kind, clips, FEW)) for kind in KINDS}
    jobs |= {f"{kind}-taught": Job(ParaformerSpec(kind), {"clip": (clip, "")}, (clip, LESSON)) for kind in KINDS}
    return run_references(factory, "few", jobs)


@dataclass(frozen=True)
class Stages:
    """Our own model's stages for a row."""

    features: np.ndarray
    encoder: np.ndarray
    fired: Any
    decoded: np.ndarray
    logits: np.ndarray
    hotword_logits: np.ndarray | None
    fine_weights: np.ndarray | None
    reading: Any
    text: str
    times_s: list[tuple[float, float]] | None


def load(folder: Path, engine: str = "mlx") -> Any:
    """Load a fresh model in float32, which a test may modify."""
    return load_model(folder, "float32", engine)


def samples_of(model: Any, row: Row) -> np.ndarray:
    """Return the clip at the package's sample rate."""
    return load_audio(str(row.audio), model.sample_rate_hz).samples


def compute(model: Any, rows: list[Row]) -> list[Stages]:
    """Return all stages of some rows with the same hotwords, in one batch."""
    [words] = {row.hotwords for row in rows}
    has_times = model.config.predictor.times is not None
    options = TranscribeOptions(hotwords=words, word_times=has_times)
    features = [model.features(samples_of(model, row)) for row in rows]
    hidden = model.hidden(features)
    network = model.network
    fired = [network.predictor(each) for each in hidden]
    embeddings = [each.embeddings for each in fired]
    decoded = network.decode(embeddings, hidden)
    heard = (
        network.hotword_logits(embeddings, decoded, model.hotwords(words).encoded) if words else [None] * len(rows)
    )
    found = []
    for own, reading, *stages in zip(rows, model.read(hidden, options), features, hidden, fired, decoded, heard):  # noqa: B905
        duration_s = len(samples_of(model, own)) / model.sample_rate_hz
        weights = reading.fine_weights
        times_s = model.spans_s(reading, duration_s) if weights is not None else None
        text = model.spelled(reading)[0]
        found.append(Stages(*stages[:4], reading.logits, stages[4], weights, reading, text, times_s))
    return found


def segment_of(model: Any, row: Row, options: TranscribeOptions) -> Segment:
    """Return the whole clip as a segment at some position in a recording."""
    session = model.session(options)
    session.add([SegmentRequest(0, AudioSegment(16000, samples_of(model, row), np.ones(1)), first=True)])
    [update] = session.step()
    return update.hypothesis.segment


def check_features(_: Any, ours: Stages, row: Row) -> None:
    require(ours.features.shape == row.arrays["features"].shape, f"shape {ours.features.shape}")
    worst = float(np.abs(ours.features - row.arrays["features"]).max())
    require(worst < FEATURE_TOLERANCE, f"features differ by {worst:.1e}")


def check_encoder(_: Any, ours: Stages, row: Row) -> None:
    cosine = worst_cosine(ours.encoder, row.arrays["encoder"])
    require(cosine > COSINE, f"encoder: cosine 1 - {1 - cosine:.1e}")


def check_weights(_: Any, ours: Stages, row: Row) -> None:
    """Check the weight of each frame, the tail's among them, and the number of tokens."""
    theirs = row.arrays["alphas"]
    require(ours.fired.weights.shape == theirs.shape, f"shape {ours.fired.weights.shape}")
    worst = float(np.abs(ours.fired.weights - theirs).max())
    require(worst < WEIGHT_TOLERANCE, f"weights differ by {worst:.1e}")
    require(len(ours.fired.fires) == int(row.arrays["tokens"].round()), f"{len(ours.fired.fires)} tokens")


def check_fires(_: Any, ours: Stages, row: Row) -> None:
    fires = np.flatnonzero(row.arrays["peaks"] >= 1)
    require(ours.fired.fires.tolist() == fires.tolist(), f"fires {ours.fired.fires}, expected {fires}")
    if len(fires):
        theirs = row.arrays["embeddings"]
        worst = float(np.abs(ours.fired.embeddings - theirs).max() / np.abs(theirs).max())
        require(worst < EMBEDDING_TOLERANCE, f"embeddings differ by {worst:.1e}")


def check_logits(_: Any, ours: Stages, row: Row) -> None:
    if len(row.report["ids"]):
        cosine = worst_cosine(ours.decoded, row.arrays["decoded"])
        require(cosine > COSINE, f"decoder: cosine 1 - {1 - cosine:.1e}")
        worst = float(np.abs(ours.logits - row.arrays["logits"]).max())
        require(worst < LOGIT_TOLERANCE, f"logits differ by {worst:.1e}")


def check_hotwords(_: Any, ours: Stages, row: Row) -> None:
    require((ours.hotword_logits is None) == (not row.hotwords), "hotwords")
    if ours.hotword_logits is not None and len(row.report["ids"]):
        worst = float(np.abs(ours.hotword_logits - row.arrays["hotword_logits"]).max())
        require(worst < LOGIT_TOLERANCE, f"hotword logits differ by {worst:.1e}")


def check_text(_: Any, ours: Stages, row: Row) -> None:
    """Check tokens and text where the reference's choices are clear."""
    ids = row.report["ids"]
    if not ids:
        require(ours.text == "", f"{ours.text!r}, but nothing fires")
        return
    if (row.margins > CLOSE).all():
        require(ours.reading.token_ids.tolist() == ids, f"tokens {ours.reading.token_ids}, expected {ids}")
        require(ours.text == row.report["plain"], f"{ours.text!r}, but upstream writes {row.report['plain']!r}")


def check_times(_: Any, ours: Stages, row: Row) -> None:
    """Check the second weights, where they fire, and the time of each character."""
    if ours.fine_weights is None or "times_ms" not in row.report:
        return
    theirs = row.arrays["fine_weights"]
    worst = float(np.abs(ours.fine_weights - theirs).max())
    require(worst < WEIGHT_TOLERANCE, f"second weights differ by {worst:.1e}")
    fires = np.flatnonzero(row.arrays["fine_peaks"] >= 1 - 1e-4).tolist()
    require(fire_steps(ours.fine_weights).tolist() == fires, "second weights fire elsewhere")
    times = row.report["times_ms"]
    require(ours.times_s is not None and len(ours.times_s) >= len(times), f"{ours.times_s}")
    end_s = max(end for _, end in ours.times_s or [(0, 0)])
    for own, span in zip(ours.times_s or [], times, strict=False):
        for time_s, time_ms in zip(own, span, strict=True):  # upstream's may be negative, or after the audio
            wanted_s = time_ms / 1000 if 0 <= time_ms / 1000 <= end_s else time_s
            require(abs(time_s - wanted_s) <= SHORT_S + 1e-6, f"{row.name}: {own} s, expected {span} ms")


Check = Callable[[Any, Stages, Row], None]
CHECKS: dict[str, Check] = {
    "features": check_features, "encoder": check_encoder, "weights": check_weights, "fires": check_fires,
    "logits": check_logits, "hotwords": check_hotwords, "text": check_text, "times": check_times,
}  # fmt: skip
