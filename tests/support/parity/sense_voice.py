"""SenseVoice beside FunASR: random checkpoints, one of which is taught sentences, and checks of every stage.

The checks are plain functions that raise AssertionError, also run on models that were broken on purpose.
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
CLOSE = 2 * LOG_PROB_TOLERANCE  # two log-probabilities may move towards each other
ASKED = [(language, itn) for language in ("auto", *tables.LANGUAGES, "nospeech") for itn in (True, False)]
QUERIES, BLANK = 4, 0
ASKS = ("language", "itn")
KINDS = ("random", "taught", "questioned")
NO_SPEECH_ROW = 13  # which upstream can be asked for, and nobody here
TAG = re.compile(r"<\|(.*?)\|>")
# What the taught checkpoint says of which clip, asked for what.
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
# What the other taught checkpoint answers to everything that can be asked about one clip: each tag at least once.
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
    """The name of a case."""
    return f"{prefix}{clip}-{language}-{'itn' if itn else 'plain'}"


@dataclass(frozen=True)
class Row:
    """One clip, what was asked of the reference, and what it answered."""

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
        """The same in our words; where we cannot be asked for it, automatic."""
        language = self.language if self.language in tables.LANGUAGES else None
        return TranscribeOptions(language=language, itn=self.itn, vad=False, word_times=True, confidence=True)

    @property
    def margins(self) -> np.ndarray:
        """(queries + rows,) how far the best label lies above the second."""
        second, best = np.partition(self.logits, -2, axis=-1)[:, -2:].T
        return best - second


@dataclass(frozen=True)
class References:
    """Conversions of a random checkpoint and of two taught ones, and what FunASR makes of the checkpoints."""

    random: Path
    taught: Path
    questioned: Path  # which is not there with a spec
    cases: dict[str, list[Row]]  # by name; rows of a batch


def asked_of(clips: dict[str, Path], *, everything: bool = False) -> dict[str, tuple[str, str, bool]]:
    """Name of each case: its clip, language and ITN; by default all of those for a few clips only."""
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

    With a spec, which may be a large one, only what was taught is asked, and the first of the taught ones.
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
    taught += [  # what was not taught
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
    """What our own model makes of a row."""

    features: np.ndarray
    encoder: np.ndarray
    logits: np.ndarray
    segment: Segment | None  # None where we cannot be asked for it


def load(folder: Path) -> Any:
    """A freshly loaded model, in float32: free to be tampered with."""
    return load_model(folder, "float32")


def samples_of(model: Any, row: Row) -> np.ndarray:
    """The clip at the sample rate that recordings have."""
    return load_audio(str(row.audio), model.sample_rate_hz).samples


def request_of(model: Any, row: Row) -> SegmentRequest:
    """The whole clip as a segment, somewhere in a recording."""
    return SegmentRequest(0, AudioSegment(16000, samples_of(model, row), np.ones(1)), first=True)


def compute(model: Any, rows: list[Row], *, segments: bool = True) -> list[Stages]:
    """All stages of some rows, side by side; each is asked what the reference was asked."""
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
    """(frames, vocabulary) -> the same."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def plain(text: str) -> str:
    """A text without tags and superfluous white space."""
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
    """The best label of each frame, where the reference's choice is a clear one."""
    wrong = np.flatnonzero((ours.logits.argmax(-1) != row.logits.argmax(-1)) & (row.margins > CLOSE))
    require(not wrong.size, f"another label in frames {wrong.tolist()}")


def check_text(model: Any, ours: Stages, row: Row) -> None:
    """Text, its tokens, language and tags, as the reference decodes them, where its choices are clear."""
    if ours.segment is None:
        return
    is_clear = row.margins > CLOSE
    labels = np.where(is_clear, row.logits.argmax(-1), ours.logits.argmax(-1))[QUERIES:]
    path = best_path(labels.tolist(), BLANK)
    text = plain(model.vocabulary.decode(path))
    if is_clear.all():
        require(text == plain(row.report["spoken"]), f"{text!r}, but upstream spells {row.report['spoken']!r}")
    if text == "The." and clear_tag(model, row, 0) == ["nospeech"]:
        text = ""  # here alone: what upstream makes of silence is left out
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
    """The tag that the reference finds likeliest of its kind at a query; none where it is not clear which."""
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
    """The clip's name in that of a case."""
    return max((name for name in CLIP_NAMES if case.startswith(f"{name}-")), key=len)
