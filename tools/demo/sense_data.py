"""Clips for the small SenseVoice, the labels that the demo model's CTC branch gives them, and batches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import torch

from . import augment, data
from .features import filter_bank, stack_rows
from .grammar import Sentence, draw_sentence
from .sense_network import (
    EMOTION_QUERY,
    EVENT_QUERY,
    LANGUAGE_QUERIES,
    WITH_ITN_QUERY,
    WITHOUT_ITN_QUERY,
    Cmvn,
    Teacher,
)
from .sense_vocabulary import NO_TEACHER, tag_ids
from .speak import SAMPLE_RATE_HZ, Speaker

SHARD_CLIPS = 1024
SILENT_SHARE = 0.04  # share of clips without speech: silence and noise
TAUGHT = 4  # labels per frame whose probabilities are kept
MAX_ROWS, MAX_CLIPS = 1600, 48  # limits of a batch
AUTO_SHARE, ITN_SHARE = 0.5, 0.4
_MIXTURE = data.CURRICULUM[-1][1]


@dataclass
class Lesson:
    """A clip and the teacher's labels of its T rows, (T, 4) each, or None if the teacher misread the clip."""

    clip: data.Clip
    labels: np.ndarray | None = None
    probabilities: np.ndarray | None = None


def make_shard(speaker: Speaker, seed: int, shard: int) -> list[data.Clip]:
    """Make training clips, some of them without speech."""
    rng = random.Random(f"sense/{seed}/{shard}")
    clips = []
    for _ in range(SHARD_CLIPS):
        if rng.random() < SILENT_SHARE:
            sentence, voice, samples = Sentence("nospeech", "nospeech", "", ""), "", _silent(rng)
        else:
            sentence = draw_sentence(rng, _MIXTURE, held_out=False)
            voice, samples = data.make_distorted(speaker, sentence, rng.getrandbits(63))
        clips.append(data.Clip(sentence, voice, filter_bank(samples).astype(np.float16)))
    return clips


def produce(folder: Path, seed: int, shards: range) -> None:
    """Make the missing shards."""
    missing = [shard for shard in shards if not data.shard_path(folder, shard).exists()]
    if missing:
        speaker = Speaker()
        for shard in missing:
            data.write_shard(data.shard_path(folder, shard), make_shard(speaker, seed, shard))


class Lecturer:
    """Runs the teacher on clips."""

    def __init__(self, teacher: Teacher, pieces: sentencepiece.SentencePieceProcessor, classes: list[int]) -> None:
        self._teacher, self._pieces = teacher, pieces
        self._classes = np.array(classes)
        self._known = torch.from_numpy(self._classes != NO_TEACHER)

    def __call__(self, clips: list[data.Clip]) -> list[Lesson]:
        """Return lessons, sorted by length."""
        lessons = []
        ordered = sorted(clips, key=lambda clip: len(clip.frames))
        for start in range(0, len(ordered), MAX_CLIPS):
            part = ordered[start : start + MAX_CLIPS]
            features, lengths = data.pad_features([stack_rows(clip.frames.astype(np.float32)) for clip in part])
            probabilities = self._teacher(features, lengths).exp() * self._known
            best, ranks = probabilities.topk(TAUGHT, dim=-1)
            labels = self._classes[ranks.numpy()]
            for row, clip in enumerate(part):
                lessons.append(self._lesson(clip, labels[row, : lengths[row]], best[row, : lengths[row]].numpy()))
        return lessons

    def _lesson(self, clip: data.Clip, labels: np.ndarray, probabilities: np.ndarray) -> Lesson:
        path = labels[:, 0]
        changes = np.concatenate([[True], path[1:] != path[:-1]])
        read = [int(label) for label in path[changes] if label != 0]
        if read != self._pieces.encode(clip.sentence.spoken):
            return Lesson(clip)
        return Lesson(clip, labels, probabilities / probabilities.sum(1, keepdims=True))


@dataclass
class SenseBatch:
    """The tensors of a training step: B clips, T feature rows."""

    features: torch.Tensor  # (B, T, 560) after CMVN
    lengths: torch.Tensor  # (B,)
    queries: torch.Tensor  # (B, 4) rows of the embedding
    tags: torch.Tensor  # (B, 4) labels of the query frames
    targets: list[list[int]]  # labels of each clip's text
    taught: torch.Tensor  # (B, T): weight of the teacher's labels of a row
    labels: torch.Tensor  # (B, T, 4)
    probabilities: torch.Tensor  # (B, T, 4)


def collate(
    lessons: list[Lesson], pieces: sentencepiece.SentencePieceProcessor, cmvn: Cmvn, rng: np.random.Generator
) -> SenseBatch:
    """Mask and normalise features, draw the queries, encode the texts."""
    stacked, queries, tags, targets = [], [], [], []
    for lesson in lessons:
        sentence = lesson.clip.sentence
        itn = bool(rng.random() < ITN_SHARE)
        frames = augment.mask_features(lesson.clip.frames.astype(np.float32), rng)
        stacked.append(cmvn(stack_rows(frames)))
        queries.append(_queries(sentence.language, itn, rng))
        tags.append(tag_ids(pieces, sentence.language, itn))
        targets.append(pieces.encode(sentence.written if itn else sentence.spoken))
    features, lengths = data.pad_features(stacked)
    shape = features.shape[:2]
    taught = torch.zeros(shape)
    labels, probabilities = torch.zeros(*shape, TAUGHT, dtype=torch.long), torch.zeros(*shape, TAUGHT)
    for row, lesson in enumerate(lessons):
        # The teacher writes numbers in words, so it cannot teach a text with digits.
        if lesson.labels is not None and queries[row][3] == WITHOUT_ITN_QUERY:
            count = len(lesson.labels)
            taught[row, :count] = torch.from_numpy(np.where(lesson.labels[:, 0] == 0, 1.0, 3.0))
            labels[row, :count] = torch.from_numpy(lesson.labels)
            probabilities[row, :count] = torch.from_numpy(lesson.probabilities)
    return SenseBatch(
        features, lengths, torch.tensor(queries), torch.tensor(tags), targets, taught, labels, probabilities
    )


def split_batches(lessons: list[Lesson], rng: random.Random) -> Iterator[list[Lesson]]:
    """Yield random batches of lessons of similar length, within MAX_ROWS and MAX_CLIPS."""
    jittered = sorted(lessons, key=lambda lesson: len(lesson.clip.frames) + rng.uniform(0, 40))
    batches: list[list[Lesson]] = [[]]
    rows = 0
    for lesson in jittered:
        rows = max(rows, -(-len(lesson.clip.frames) // 6))
        if len(batches[-1]) == MAX_CLIPS or rows * (len(batches[-1]) + 1) > MAX_ROWS:
            batches.append([])
            rows = -(-len(lesson.clip.frames) // 6)
        batches[-1].append(lesson)
    rng.shuffle(batches)
    yield from batches


def _queries(language: str, itn: bool, rng: np.random.Generator) -> list[int]:
    named = LANGUAGE_QUERIES[language]
    if language == "nospeech":  # a user who names a language does not know that the clip has no speech
        named = LANGUAGE_QUERIES[str(rng.choice(["zh", "en"]))]
    chosen = LANGUAGE_QUERIES["auto"] if rng.random() < AUTO_SHARE else named
    return [chosen, EMOTION_QUERY, EVENT_QUERY, WITH_ITN_QUERY if itn else WITHOUT_ITN_QUERY]


def _silent(rng: random.Random) -> np.ndarray:
    """Return 0.3 to 3 s of digital silence or coloured noise."""
    count = int(rng.uniform(0.3, 3.0) * SAMPLE_RATE_HZ)
    if rng.random() < 0.2:
        return np.zeros(count, np.float32)
    noise = np.random.default_rng(rng.getrandbits(63))
    # The filter bank removes a constant, so a constant with noise leaves only the noise.
    samples = augment.add_noise(np.full(count, 1e-3, np.float32), 0.0, noise)
    return augment.set_peak(samples, float(np.exp(noise.uniform(*np.log((0.001, 0.5))))))
