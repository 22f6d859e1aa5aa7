"""SenseVoice compared with FunASR: random checkpoints, some of them taught sentences, and checks of every stage.

The checks are plain functions that raise AssertionError. They also run on models that are broken on purpose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.parity.checks import COSINE, FEATURE_TOLERANCE, require, worst_cosine
from support.parity.clips import BATCH_CLIPS, CLIP_NAMES, FEW_CLIPS
from support.parity.live import REPOSITORY, run_reference
from support.sense_voice import EMOTION_NAMES, LANGUAGE_TAGS, SOUND_NAMES, SenseVoiceSpec, write_sense_voice
from support.small import convert, once

from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.segment import AudioSegment
from funasr_cli.families.load import load_model
from funasr_cli.families.sense_voice import config as tables
from funasr_cli.models.ctc import best_path
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import SegmentRequest
from funasr_cli.transcript import Segment

SCRIPT = REPOSITORY / "tests/support/parity/record_sense_voice.py"
LOG_PROB_TOLERANCE = 1e-3
CLOSE = 2 * LOG_PROB_TOLERANCE  # both log-probabilities may be off, in opposite directions
ASKED = [(language, itn) for language in ("auto", *tables.LANGUAGES, "nospeech") for itn in (True, False)]
QUERIES, BLANK = 4, 0
ASKS = ("language", "itn")
KINDS = ("random", "taught", "questioned")
NO_SPEECH_ROW = 13  # a query row that upstream accepts and this package does not offer
TAG = re.compile(r"<\|(.*?)\|>")
# What the taught checkpoint must return for each clip and query.
LESSONS: dict[str, dict[str, Any]] = {
    "en-1s": {
        "language": "auto", "itn": True,
        "pieces": ["<|en|>", "<|HAPPY|>", "<|BGM|>", "<|withitn|>", "▁hello", "▁world", "."],
    },
    "zh-2.5s": {
        "language": "zh", "itn": False,
        "pieces": ["<|zh|>", "<|NEUTRAL|>", "<|Speech|>", "<|woitn|>",
                   "你", "好", "世", "界", "，", "▁hello", "▁w", "orld", "。"],
    },
    "noise-0.5s": {
        "language": "auto", "itn": False,
        "pieces": ["<|nospeech|>", "<|EMO_UNKNOWN|>", "<|Event_UNK|>", "<|woitn|>", "T", "he", "."],
    },
    "zh-0.3s": {
        "language": "yue", "itn": True,
        "pieces": ["<|yue|>", "<|OTHER|>", "<|Speech_Noise|>", "<|withitn|>", "今天", "天气"],
    },
}  # fmt: skip
# The other taught checkpoint's answers to every possible query on one clip. Every tag occurs at least once.
QUESTIONED = "zh-0.3s"
QUESTIONS = [(language, itn) for language, itn in ASKED if language != "nospeech"]
ANSWERS = {
    question: [*(f"<|{tag}|>" for tag in (*tags, "withitn" if question[1] else "woitn")), *text]
    for question, *tags, text in zip(
        QUESTIONS,
        ["nospeech", "en", "zh", "zh", "en", "en", "yue", "yue", "ja", "ja", "ko", "ko"],
        [*EMOTION_NAMES, "SAD", "NEUTRAL", "HAPPY"],
        SOUND_NAMES,
        ["T1", "T?", "你1", "你好", ["▁hello", "1"], ["▁hello", "▁world"], ["今天", "1"], ["今天", "天气"],
         "こ1", "こん", "안1", "안녕"],
        strict=True,
    )
}  # fmt: skip


def case_of(clip: str, language: str, itn: bool, prefix: str = "") -> str:
    """Return the name of a case."""
    return f"{prefix}{clip}-{language}-{'itn' if itn else 'plain'}"


@dataclass(frozen=True)
class Row:
    """A clip, its query, and the reference's results."""

    name: str
    audio: Path
    language: str
    itn: bool
    report: dict[str, Any]
    encoder: np.ndarray  # (queries + rows, encoder width)
    logits: np.ndarray  # (queries + rows, vocabulary)
    features: np.ndarray | None  # (rows, row width)

    @property
    def options(self) -> TranscribeOptions:
        """The same query as options of this package; automatic language where it has no equivalent."""
        language = self.language if self.language in tables.LANGUAGES else None
        return TranscribeOptions(language=language, itn=self.itn, vad=False, word_times=True, confidence=True)

    @property
    def margins(self) -> np.ndarray:
        """The margin of the best over the second-best label: (queries + rows,)."""
        second, best = np.partition(self.logits, -2, axis=-1)[:, -2:].T
        return best - second


@dataclass(frozen=True)
class References:
    """Conversions of a random checkpoint and of two taught ones, with FunASR's results on the originals."""

    random: Path
    taught: Path
    questioned: Path  # missing if a spec is given
    cases: dict[str, list[Row]]  # rows of each batch by case name


def asked_of(clips: dict[str, Path], *, everything: bool = False) -> dict[str, tuple[str, str, bool]]:
    """Return clip, language and ITN by case name; by default, all combinations for a few clips only."""
    asked = {}
    for turn, clip in enumerate(clips):
        chosen = ASKED if everything or clip in FEW_CLIPS else [ASKED[turn % len(ASKED)]]
        asked |= {case_of(clip, *question): (clip, *question) for question in chosen}
    return asked


def run_references(
    factory: pytest.TempPathFactory, name: str, clips: dict[str, Path], asked: dict[str, tuple[str, str, bool]],
    spec: SenseVoiceSpec | None = None,
) -> References:  # fmt: skip
    """Write the checkpoints, run the reference on them, and convert them: once, for all workers.

    With a spec, which may be large, only the first taught checkpoint and its lessons are used.
    """
    kinds, questions = (KINDS, QUESTIONS) if spec is None else (KINDS[:2], [])
    random = [
        {"name": case, "audio": [clips[clip]], "language": language, "itn": itn, "features": language == "auto"}
        for case, (clip, language, itn) in asked.items()
    ]
    batch = {"name": "batch", "audio": [clips[clip] for clip in BATCH_CLIPS], "language": "zh", "itn": False}
    lessons = [{"audio": clips[clip], **lesson} for clip, lesson in LESSONS.items()]
    taught = [
        {"name": f"taught-{clip}", "audio": [clips[clip]], "timestamps": True, "generate": True, **lesson}
        for clip, lesson in LESSONS.items()
    ]
    taught += [  # queries that were not taught
        {
            "name": case_of(clip, *question, "taught-"),
            "audio": [clips[clip]],
            **dict(zip(ASKS, question, strict=True)),
        }
        for clip in LESSONS
        for question in questions
    ]
    answers = [
        {"audio": clips[QUESTIONED], "language": language, "itn": itn, "pieces": pieces}
        for (language, itn), pieces in ANSWERS.items()
    ]
    questioned = [
        answer | {"name": case_of("questioned", *question), "audio": [clips[QUESTIONED]], "generate": True}
        for question, answer in zip(ANSWERS, answers, strict=True)
        if question in questions
    ]
    cases = [*random, batch | {"generate": True}, *taught, *questioned]

    def make(folder: Path) -> None:
        sources = [write_sense_voice(folder / kind / "SenseVoiceSmall", spec) for kind in kinds]
        job = [
            {"checkpoint": sources[0], "cases": cases[: len(random) + 1]},
            {"checkpoint": sources[1], "cases": taught, "lessons": lessons},
            *({"checkpoint": source, "cases": questioned, "lessons": answers} for source in sources[2:]),
        ]
        (folder / "job.json").write_text(json.dumps(job, default=str), encoding="utf-8")
        run_reference(SCRIPT, folder / "job.json", folder / "answers")
        for source in sources:
            convert(source, source.parent / "mlx", dtype="float32")

    folder = once(factory, name, make)
    found = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    rows: dict[str, list[Row]] = {}
    with np.load(folder / "answers.npz") as stored:
        for case in cases:
            path = case["name"]
            rows[path] = [
                Row(
                    path, audio, case["language"], case["itn"], report, stored[f"{path}/{index}/encoder"],
                    stored[f"{path}/{index}/logits"],
                    stored[f"{path}/{index}/features"] if case.get("features") else None,
                )
                for index, (audio, report) in enumerate(zip(case["audio"], found[path], strict=True))
            ]  # fmt: skip
    return References(*(folder / kind / "mlx" for kind in KINDS), rows)


@dataclass(frozen=True)
class Stages:
    """Our own model's stages for a row."""

    features: np.ndarray
    encoder: np.ndarray
    logits: np.ndarray
    segment: Segment | None  # None if this package does not offer the query


def load(folder: Path) -> Any:
    """Load a fresh model in float32, which a test may modify."""
    return load_model(folder, "float32")


def samples_of(model: Any, row: Row) -> np.ndarray:
    """Return the clip at the package's sample rate."""
    return load_audio(str(row.audio), model.sample_rate_hz).samples


def request_of(model: Any, row: Row) -> SegmentRequest:
    """Return the whole clip as a segment at some position in a recording."""
    return SegmentRequest(0, AudioSegment(16000, samples_of(model, row), np.ones(1)), first=True)


def compute(model: Any, rows: list[Row], *, segments: bool = True) -> list[Stages]:
    """Return all stages of some rows in one batch, with the reference's queries."""
    features = [model.features(samples_of(model, row)) for row in rows]
    queries = [
        (NO_SPEECH_ROW, *tables.query_rows(None, itn=row.itn)[1:])
        if row.language == "nospeech"
        else tables.query_rows(row.options.language, itn=row.itn)
        for row in rows
    ]
    hidden = model.network.encode(features, queries)
    found = []
    for row, rows_in, own in zip(rows, features, hidden, strict=True):
        segment = None
        if segments and row.language != "nospeech":
            session = model.session(row.options)
            [number] = session.add([request_of(model, row)])
            [update] = session.step()
            assert update.row == number
            segment = update.hypothesis.segment
        found.append(Stages(rows_in, np.array(own), np.array(model.network.ctc.logits(own)), segment))
    return found


def log_probs(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities of logits, both (frames, vocabulary)."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def plain(text: str) -> str:
    """Return a text without tags and redundant white space."""
    return " ".join(TAG.sub("", text).split())


def check_features(_: Any, ours: Stages, row: Row) -> None:
    if row.features is not None:
        require(ours.features.shape == row.features.shape, f"shape {ours.features.shape}")
        worst = float(np.abs(ours.features - row.features).max())
        require(worst < FEATURE_TOLERANCE, f"features differ by {worst:.1e}")


def check_encoder(_: Any, ours: Stages, row: Row) -> None:
    cosine = worst_cosine(ours.encoder, row.encoder)
    require(cosine > COSINE, f"encoder: cosine 1 - {1 - cosine:.1e}")


def check_log_probs(_: Any, ours: Stages, row: Row) -> None:
    worst = float(np.abs(log_probs(ours.logits) - log_probs(row.logits)).max())
    require(worst < LOG_PROB_TOLERANCE, f"log-probabilities differ by {worst:.1e}")


def check_labels(_: Any, ours: Stages, row: Row) -> None:
    """Check the best label of each frame where the reference's choice is clear."""
    wrong = np.flatnonzero((ours.logits.argmax(-1) != row.logits.argmax(-1)) & (row.margins > CLOSE))
    require(not wrong.size, f"another label in frames {wrong.tolist()}")


def check_text(model: Any, ours: Stages, row: Row) -> None:
    """Check text, tokens, language and tags against the reference's decoding where its choices are clear."""
    if ours.segment is None:
        return
    is_clear = row.margins > CLOSE
    labels = np.where(is_clear, row.logits.argmax(-1), ours.logits.argmax(-1))[QUERIES:]
    path = best_path(labels.tolist(), BLANK)
    text = plain(model.vocabulary.decode(path))
    if is_clear.all():
        require(text == plain(row.report["spoken"]), f"{text!r}, but upstream spells {row.report['spoken']!r}")
    if text == "The." and clear_tag(model, row, 0) == ["nospeech"]:
        text = ""  # only this package drops the text that upstream returns for silence
    require(ours.segment.text == text, f"text {ours.segment.text!r}, expected {text!r}")
    require(ours.segment.tokens == len(path), f"{ours.segment.tokens} tokens, expected {len(path)}")
    tags = [*ours.segment.tags]
    for query, names in ((1, EMOTION_NAMES), (2, SOUND_NAMES)):
        clear = clear_tag(model, row, query)
        possible = {name for tag, name in names.items() if tag in (clear or names)}
        name = tags.pop(0) if tags and tags[0] in names.values() else None
        require(name in possible, f"tags {ours.segment.tags}, expected one of {possible}")
    require(not tags, f"tags {ours.segment.tags}: too many")
    for language in clear_tag(model, row, 0):
        expected = None if language == "nospeech" else language
        require(ours.segment.language == expected, f"language {ours.segment.language}, expected {expected}")


def clear_tag(model: Any, row: Row, query: int) -> list[str]:
    """Return the reference's most likely tag of this kind at a query, or nothing if that is not clear."""
    tags = [*(LANGUAGE_TAGS, EMOTION_NAMES, SOUND_NAMES)[query]]
    logits = row.logits[query, [model.vocabulary.tags[tag] for tag in tags]]
    second, best = np.argsort(logits)[-2:]
    return [tags[best]] if logits[best] - logits[second] > CLOSE else []


Check = Callable[[Any, Stages, Row], None]
CHECKS: dict[str, Check] = {
    "features": check_features, "encoder": check_encoder, "log-probabilities": check_log_probs,
    "labels": check_labels, "text": check_text,
}  # fmt: skip


def clip_of(case: str) -> str:
    """Return the clip's name in a case's name."""
    return max((name for name in CLIP_NAMES if case.startswith(f"{name}-")), key=len)
