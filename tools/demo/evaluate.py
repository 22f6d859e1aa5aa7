"""Error rates on held-out voices and sentences, for the LLM (with and without ITN) and for CTC."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import tiktoken
import torch

from .data import Clip, Collator, make_waveform, pad_features
from .features import audio_token_count, filter_bank, stack_rows
from .grammar import Mixture, Sentence, draw_sentence
from .network import DemoNetwork
from .speak import SAMPLE_RATE_HZ, Speaker, Spoken

QUICK_CLIPS = 120
BATCH_CLIPS, MAX_TOKENS = 40, 40
MIXTURE = Mixture((6, 2, 2, 2, 4, 2, 6), (3, 8))
Encoding = tiktoken.Encoding


class Swapped:
    """A context in which a network uses other weights."""

    def __init__(self, network: DemoNetwork, weights: list[torch.Tensor]) -> None:
        self._network, self._weights = network, weights

    def __enter__(self) -> None:
        self._own = [p.detach().clone() for p in self._network.parameters()]
        self._copy(self._weights)

    def __exit__(self, *_: object) -> None:
        self._copy(self._own)

    def _copy(self, weights: list[torch.Tensor]) -> None:
        for parameter, weight in zip(self._network.parameters(), weights, strict=True):
            parameter.data.copy_(weight)


@dataclass
class Count:
    """Errors and units (words or characters) of some clips."""

    errors: int = 0
    units: int = 0

    @property
    def percent(self) -> float:
        """The error rate in percent."""
        return round(100 * self.errors / max(self.units, 1), 2)


def speak_clips(
    count: int, seed: int, snr_db: float | None, held_out: bool = True
) -> Iterator[tuple[Sentence, str, Spoken]]:
    """Yield (sentence, voice, speech) for held-out sentences and voices, clean or with noise at `snr_db`."""
    rng, speaker = random.Random(f"{seed}/evaluation"), Speaker()
    for _ in range(count):
        sentence = draw_sentence(rng, MIXTURE, held_out)
        yield sentence, *make_waveform(speaker, sentence, rng.getrandbits(63), held_out, snr_db)


def make_clips(count: int, seed: int, snr_db: float | None) -> list[Clip]:
    """Return the features of `speak_clips`."""
    return [
        Clip(sentence, voice, filter_bank(spoken.samples).astype(np.float16))
        for sentence, voice, spoken in speak_clips(count, seed, snr_db)
    ]


def write_clips(out: Path, clips: int, snr: float | None, seed: int, training: bool) -> None:
    """Write `speak_clips` as 16-bit WAV files, and their texts and word starts as `clips.jsonl`."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "clips.jsonl").open("w", encoding="utf-8") as texts:
        for index, (sentence, voice, spoken) in enumerate(speak_clips(clips, seed, snr, not training)):
            name = f"{index:04d}-{sentence.language}-{sentence.domain}.wav"
            soundfile.write(out / name, spoken.samples, SAMPLE_RATE_HZ, subtype="PCM_16")
            starts_s = [(position, round(start_s, 4)) for position, start_s in spoken.word_starts_s]
            row = {"file": name, "voice": voice, **asdict(sentence), "word_starts_s": starts_s}
            texts.write(json.dumps(row, ensure_ascii=False) + "\n")


@torch.inference_mode()
def transcribe(
    network: DemoNetwork, collate: Collator, clips: list[Clip], itn: bool
) -> tuple[list[str], list[str]]:
    """Return the greedy texts of the LLM and of CTC. The prompts name no language."""
    stacked = [stack_rows(clip.frames.astype(np.float32)) for clip in clips]
    features, lengths = pad_features(stacked)
    encoded = network.encode(features, lengths)
    adapted = network.audio_adaptor(encoded, lengths)[0]
    before, after = collate.prompt(None, itn)
    rows = [audio_token_count(int(length)) for length in lengths]
    pads = [max(rows) - count for count in rows]  # left padding
    ids = torch.tensor([[0] * pad + before + [0] * n + after for pad, n in zip(pads, rows, strict=True)])
    mask = torch.arange(ids.shape[1])[None] >= torch.tensor(pads)[:, None]
    audio = mask & (torch.arange(ids.shape[1])[None] >= torch.tensor(pads)[:, None] + len(before))
    audio &= torch.arange(ids.shape[1])[None] < ids.shape[1] - len(after)
    found = network.llm.generate(
        inputs_embeds=network.embed(ids, audio, adapted), attention_mask=mask.long(), max_new_tokens=MAX_TOKENS,
        do_sample=False,
    )  # fmt: skip
    best = network.ctc_log_probs(encoded, lengths).argmax(-1)
    paths = [torch.unique_consecutive(row[:length]) for row, length in zip(best, lengths, strict=True)]
    spelt = [collate.decode_ctc(path[path != network.blank].tolist()) for path in paths]
    return collate.decode(found.tolist()), spelt


def error_counts(network: DemoNetwork, collate: Collator, clips: list[Clip]) -> dict[str, Count]:
    """Count errors by `{llm,itn,ctc}/{en,zh}/{digits,other}`: `llm` writes words, `itn` digits and punctuation."""
    network.eval()
    counts: dict[str, Count] = {}
    clips = sorted(clips, key=lambda clip: len(clip.frames))
    for start in range(0, len(clips), BATCH_CLIPS):
        part = clips[start : start + BATCH_CLIPS]
        words, ctc = transcribe(network, collate, part, itn=False)
        written, _ = transcribe(network, collate, part, itn=True)
        for clip, *texts in zip(part, words, written, ctc, strict=True):
            sentence = clip.sentence
            kind = "digits" if sentence.domain == "digits" else "other"
            wanted = (sentence.spoken, sentence.written, sentence.spoken)
            for reader, text, right in zip(("llm", "itn", "ctc"), texts, wanted, strict=True):
                count = counts.setdefault(f"{reader}/{sentence.language}/{kind}", Count())
                by_character = sentence.language == "zh" or (reader == "itn" and kind == "digits")
                reference, heard = (list(t.replace(" ", "")) if by_character else t.split() for t in (right, text))
                count.errors += edit_distance(reference, heard)
                count.units += len(reference)
    network.train()
    return counts


def summary(counts: dict[str, Count]) -> dict[str, float]:
    """Return error rates in percent: for each group, and for each of llm, itn and ctc overall."""
    result = {name: count.percent for name, count in sorted(counts.items())}
    for reader in ("llm", "itn", "ctc"):
        group = [count for name, count in counts.items() if name.startswith(reader)]
        result[reader] = Count(sum(c.errors for c in group), sum(c.units for c in group)).percent
    return result


def edit_distance(reference: Iterable[str], heard: Iterable[str]) -> int:
    """Return the Levenshtein distance."""
    heard = list(heard)
    row = list(range(len(heard) + 1))
    for index, unit in enumerate(reference, 1):
        previous, row[0] = row[0], index
        for column, other in enumerate(heard, 1):
            best = min(row[column] + 1, row[column - 1] + 1, previous + (unit != other))
            previous, row[column] = row[column], best
    return row[-1]
