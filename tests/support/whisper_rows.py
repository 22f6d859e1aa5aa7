"""A small Whisper model, clips, and what its session's rows write."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small import convert, once
from support.whisper import random_tensors, write_hf

from funasr_cli.audio.segment import AudioSegment
from funasr_cli.compute.backend import mx
from funasr_cli.families.load import load_model
from funasr_cli.families.whisper.model import WhisperModel
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import SegmentRequest
from funasr_cli.transcript import Segment

RNG = np.random.default_rng(0)
CLIPS = [RNG.normal(0, 0.1, int(seconds * 16000)).astype(np.float32) for seconds in (1, 2.5, 30, 0.2)]


@pytest.fixture(scope="session")
def whisper_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in Transformers' layout. Do not change it."""
    return once(tmp_path_factory, "small-whisper", lambda folder: write_hf(folder, random_tensors()))


@pytest.fixture(scope="session")
def small_whisper(whisper_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`whisper_source` converted in float32. Do not change it."""
    return once(
        tmp_path_factory, "small-whisper-mlx", lambda folder: convert(whisper_source, folder, dtype="float32")
    )


@pytest.fixture(scope="session")
def shared_whisper(small_whisper: Path) -> WhisperModel:
    """A model that no test may change."""
    return load_whisper(small_whisper)


@pytest.fixture
def whisper(small_whisper: Path) -> WhisperModel:
    """A model that a test may change."""
    return load_whisper(small_whisper)


def load_whisper(folder: Path, dtype: str = "float32", engine: str = "mlx") -> WhisperModel:
    found = load_model(folder, dtype, engine)
    assert isinstance(found, WhisperModel)
    return found


def request(samples: np.ndarray, *, first: bool = True) -> SegmentRequest:
    return SegmentRequest(0, AudioSegment(8000, samples, np.ones(max(1, len(samples) // 512))), first)


def decode(model: WhisperModel, options: TranscribeOptions, *clips: np.ndarray) -> list[Segment]:
    """Decode clips as one batch."""
    session = model.session(options)
    numbers = session.add([request(samples) for samples in clips])
    found: dict[int, Segment] = {}
    while len(found) < len(clips):
        found |= {update.row: update.hypothesis.segment for update in session.step() if update.hypothesis}
    return [found[number] for number in numbers]


def assert_same(one: Segment, other: Segment, tolerance: float = 1e-4) -> None:
    """Compare everything but the last bits of probabilities."""

    def exact(segment: Segment) -> Any:
        translation = segment.translation and dataclasses.replace(segment.translation, mean_logprob=None)
        words = [(word.text, word.start_s, word.end_s) for word in segment.words]
        scores = [score.text for score in segment.scores]
        return (segment.text, segment.language, segment.pieces, segment.tokens, segment.stop_reason, translation,
                words, scores)  # fmt: skip

    assert exact(one) == exact(other)
    assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=tolerance)


def writes(model: WhisperModel, monkeypatch: pytest.MonkeyPatch, *texts: list[int | str]) -> None:
    """Make the decoder write these tokens, ids or names, for its rows in turn, whatever it hears."""
    vocabulary = model.vocabulary
    rows = [[vocabulary.special[each] if isinstance(each, str) else each for each in text] for text in texts]

    class Rules:
        need_tokens = True

        def __call__(self, logits: Any, steps: Any, written: list[list[int]]) -> Any:
            chosen = np.full(logits.shape, -20.0, np.float32)
            for index, row in enumerate(written):
                begun = [text for text in rows if row and text[: len(row)] == row]
                text = (begun or [rows[index % len(rows)]])[0]
                chosen[index, text[len(row)] if len(row) < len(text) else vocabulary.end] = 0.0
            return mx.array(chosen)

    monkeypatch.setattr(model, "rules", lambda options: Rules())
