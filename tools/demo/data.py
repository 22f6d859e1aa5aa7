"""Training clips in files of 2,048 ("shards"), reproducible from a seed and an index, and batches of them.

Round k of the training reads shards k-4 to k, so each clip is used five times with different masks. Meanwhile
another process makes the shards of the next round.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tiktoken
import torch
from tokenizers import Tokenizer

from . import augment
from .features import ROW_WIDTH, audio_token_count, filter_bank, stack_rows
from .grammar import Mixture, Sentence, draw_sentence
from .speak import Speaker, Spoken, draw_voice
from .vocabulary import ASSISTANT_TAG, END_OF_TURN, SYSTEM_TURN, instruction, token_id

SHARD_CLIPS = 2048
SHARDS_HEARD = 5  # number of rounds that use a shard
SHARDS_AHEAD = 3
MAX_ROWS, MAX_CLIPS = 2000, 48  # limits of a batch: feature rows with padding, and clips
IGNORED = -100  # label of a position without loss

# (first shard, mixture of domains (grammar.DOMAINS) from there on): digit strings first.
CURRICULUM = (
    (0, Mixture((14, 2, 1, 1, 1, 1, 1), (1, 4))),
    (8, Mixture((8, 2, 2, 2, 3, 1, 4), (1, 6))),
    (16, Mixture((4, 2, 2, 2, 4, 2, 6), (1, 8))),
)


@dataclass(frozen=True)
class Clip:
    """A sentence, its voice, and its log-mel features (frames, 80) in float16."""

    sentence: Sentence
    voice: str
    frames: np.ndarray


def mixture_of(shard: int) -> Mixture:
    """Return the mixture of domains that a shard is drawn from."""
    return [mixture for first, mixture in CURRICULUM if first <= shard][-1]


def make_waveform(
    speaker: Speaker, sentence: Sentence, seed: int, held_out: bool, snr_db: float | None
) -> tuple[str, Spoken]:
    """Return a voice's name and its speech, clean or with noise at `snr_db`."""
    voice = draw_voice(random.Random(seed), sentence.language, held_out)
    noise = np.random.default_rng(seed)
    spoken = speaker.say(sentence.spoken, voice)
    samples, before_s = augment.surround(spoken.samples, noise)
    if snr_db is not None:
        samples = augment.add_noise(samples, snr_db, noise)
    return voice.name, spoken.later(augment.set_peak(samples, 0.5), before_s)


def make_distorted(speaker: Speaker, sentence: Sentence, seed: int) -> tuple[str, np.ndarray]:
    """Return a training voice's name and its randomly distorted samples."""
    voice = draw_voice(random.Random(seed), sentence.language, held_out=False)
    spoken = speaker.say(sentence.spoken, voice)
    return voice.name, augment.distort(spoken.samples, np.random.default_rng(seed))


def make_shard(speaker: Speaker, seed: int, shard: int) -> list[Clip]:
    """Make the training clips of one shard."""
    rng = random.Random(f"{seed}/{shard}")
    clips = []
    for _ in range(SHARD_CLIPS):
        sentence = draw_sentence(rng, mixture_of(shard), held_out=False)
        voice, samples = make_distorted(speaker, sentence, rng.getrandbits(63))
        clips.append(Clip(sentence, voice, filter_bank(samples).astype(np.float16)))
    return clips


def write_shard(path: Path, clips: list[Clip]) -> None:
    """Store clips in one file, which appears only when it is complete."""
    texts = [asdict(clip.sentence) | {"voice": clip.voice} for clip in clips]
    lengths = np.array([len(clip.frames) for clip in clips])
    part = path.with_suffix(".part.npz")
    np.savez(part, frames=np.concatenate([c.frames for c in clips]), lengths=lengths, texts=json.dumps(texts))
    part.rename(path)


def read_shard(path: Path) -> list[Clip]:
    """Read the clips of one file."""
    with np.load(path) as stored:
        frames = np.split(stored["frames"], np.cumsum(stored["lengths"])[:-1])
        texts = json.loads(str(stored["texts"]))
    voices = [text.pop("voice") for text in texts]
    return [Clip(Sentence(**text), *rest) for text, *rest in zip(texts, voices, frames, strict=True)]


def shard_path(folder: Path, shard: int) -> Path:
    """Return the file of a shard."""
    return folder / f"shard-{shard:05d}.npz"


def produce(folder: Path, seed: int) -> None:
    """Make shards ahead of the reader, whose round is in `round.txt`, until the parent process ends."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    speaker = Speaker()
    while os.getppid() == parent:
        now = int((folder / "round.txt").read_text())
        for old in range(now - 2 * SHARDS_HEARD, now - SHARDS_HEARD):
            shard_path(folder, old).unlink(missing_ok=True)
        wanted = range(max(0, now - SHARDS_HEARD + 1), now + SHARDS_AHEAD + 1)
        missing = [shard for shard in wanted if not shard_path(folder, shard).exists()]
        if missing:
            write_shard(shard_path(folder, missing[0]), make_shard(speaker, seed, missing[0]))
        else:
            time.sleep(2)


def announce_round(folder: Path, index: int) -> None:
    """Write the current round for the producer."""
    part = folder / "round.part"
    part.write_text(str(index))
    part.rename(folder / "round.txt")


def read_round(folder: Path, index: int) -> list[Clip]:
    """Return all clips of a round; wait for missing shards."""
    announce_round(folder, index)
    clips = []
    for shard in range(max(0, index - SHARDS_HEARD + 1), index + 1):
        while not shard_path(folder, shard).exists():
            time.sleep(1)
        clips += read_shard(shard_path(folder, shard))
    return clips


def split_batches(clips: list[Clip], rng: random.Random) -> list[list[Clip]]:
    """Return random batches of clips of one language and similar length, each within MAX_ROWS and MAX_CLIPS."""
    jittered = {id(clip): len(clip.frames) + rng.uniform(0, 30) for clip in clips}
    batches: list[list[Clip]] = []
    rows = 0
    for clip in sorted(clips, key=lambda clip: (clip.sentence.language, jittered[id(clip)])):
        rows = max(rows, -(-len(clip.frames) // 6))
        full = batches and (len(batches[-1]) == MAX_CLIPS or rows * (len(batches[-1]) + 1) > MAX_ROWS)
        if not batches or full or batches[-1][0].sentence.language != clip.sentence.language:
            batches.append([])
            rows = -(-len(clip.frames) // 6)
        batches[-1].append(clip)
    rng.shuffle(batches)
    return batches


@dataclass
class Batch:
    """The tensors of a training step: B clips of one language, T feature rows, L columns starting at the audio."""

    features: torch.Tensor  # (B, T, 560) float32
    lengths: torch.Tensor  # (B,) feature rows
    ctc_ids: torch.Tensor  # (sum of ctc_lengths,)
    ctc_lengths: torch.Tensor  # (B,)
    prompt_ids: torch.Tensor  # (P,): the part before the audio
    token_ids: torch.Tensor  # (B, L): zeros for the audio embeddings, assistant tag, text, end of turn, padding
    audio: torch.Tensor  # (B, L) bool: columns that the audio embeddings fill
    labels: torch.Tensor  # (B, L): the next token where there is a loss, else IGNORED


class Collator:
    """Turns clips into batches: masks features, draws prompts, tokenises."""

    def __init__(self, tokenizer: Tokenizer, ctc_encoding: tiktoken.Encoding) -> None:
        self._tokenizer = tokenizer
        self._ctc = ctc_encoding
        self._end_of_turn = token_id(tokenizer, END_OF_TURN)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text; special tokens are recognised."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[list[int]]) -> list[str]:
        """Return the texts of LLM ids without special tokens."""
        return self._tokenizer.decode_batch(ids, skip_special_tokens=True)

    def decode_ctc(self, ids: list[int]) -> str:
        """Return the text of CTC labels."""
        return self._ctc.decode(ids)

    def prompt(self, language: str | None, itn: bool) -> tuple[list[int], list[int]]:
        """Return the prompt's ids before and after the audio."""
        return self.encode(SYSTEM_TURN + instruction(language, itn)), self.encode(ASSISTANT_TAG)

    def __call__(self, clips: list[Clip], rng: np.random.Generator) -> Batch:
        """Make a training batch. Half of the prompts name the language, and half ask for digits."""
        itn = bool(rng.random() < 0.5)
        before, after = self.prompt(clips[0].sentence.language if rng.random() < 0.5 else None, itn)
        stacked, columns, ctc = [], [], []
        for clip in clips:
            stacked.append(stack_rows(augment.mask_features(clip.frames.astype(np.float32), rng)))
            rows = audio_token_count(len(stacked[-1]))
            text = self.encode(clip.sentence.written if itn else clip.sentence.spoken)
            text.append(self._end_of_turn)
            given = after + text[:-1]
            labels = [IGNORED] * (rows + len(after) - 1) + text
            columns.append(([0] * rows + given, [True] * rows + [False] * len(given), labels))
            ctc.append(self._ctc.encode(clip.sentence.spoken))
        width = max(len(ids) for ids, *_ in columns)

        def table(part: int, fill: int) -> torch.Tensor:
            return torch.tensor([column[part] + [fill] * (width - len(column[part])) for column in columns])

        return Batch(
            *pad_features(stacked),
            ctc_ids=torch.tensor([token for ids in ctc for token in ids]),
            ctc_lengths=torch.tensor([len(ids) for ids in ctc]),
            prompt_ids=torch.tensor(before),
            token_ids=table(0, 0),
            audio=table(1, False).bool(),
            labels=table(2, IGNORED),
        )


def pad_features(stacked: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad feature rows with zeros on the right: (B, T, 560) and lengths (B,)."""
    lengths = torch.tensor([len(rows) for rows in stacked])
    features = torch.zeros(len(stacked), int(lengths.max()), ROW_WIDTH)
    for index, rows in enumerate(stacked):
        features[index, : len(rows)] = torch.from_numpy(rows)
    return features, lengths


def batches(folder: Path, collate: Collator, seed: int, index: int, done: int) -> Iterator[tuple[int, int, Batch]]:
    """Yield (round, batches used of it, batch) endlessly, starting after `done` batches of round `index`."""
    while True:
        split = split_batches(read_round(folder, index), random.Random(f"{seed}/batches/{index}"))
        for position in range(done, len(split)):
            rng = np.random.default_rng([seed, index, position])
            yield index, position + 1, collate(split[position], rng)
        index, done = index + 1, 0
