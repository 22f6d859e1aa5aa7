"""Decode a set of clips with our models of several types, and with the PyTorch reference."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import funasr_cli
from funasr_cli.audio.recording import open_recording
from funasr_cli.options import INT8, MLX, NATIVE, TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import join_texts

REFERENCE = Path(__file__).parents[2] / "funasr_cli/verification/reference.py"
BATCH = 16
MAX_TOKENS = 64


@dataclass(frozen=True)
class Clip:
    """A recording with its reference texts and word starts.

    Attributes:
        spoken: the text with numbers as words.
        written: the text with numbers as digits.
        word_starts_s: (position of a word's first character in `spoken`, seconds); empty if unknown.
    """

    path: Path
    language: str
    domain: str
    spoken: str
    written: str
    word_starts_s: tuple[tuple[int, float], ...] = ()

    def wanted(self, itn: bool) -> str:
        """Return the reference text with or without inverse text normalisation."""
        return self.written if itn else self.spoken


@dataclass(frozen=True)
class Recipe:
    """A conversion of the demo model, and the number type and the engine for decoding."""

    name: str
    options: dict[str, Any]
    dtype: str
    engine: str = MLX


RECIPES = (
    Recipe("float32", {"dtype": "float32"}, "stored"),
    Recipe("bfloat16", {"dtype": "bfloat16"}, "stored"),
    Recipe("8-bit", {"dtype": "bfloat16", "quantize": 8}, "stored"),
    Recipe("4-bit", {"dtype": "bfloat16", "quantize": 4}, "stored"),
    Recipe("4-bit, groups of 32", {"dtype": "bfloat16", "quantize": 4, "group_size": 32}, "stored"),
    Recipe("float32, native engine", {"dtype": "float32"}, "float32", NATIVE),
    Recipe("int8, native engine", {"dtype": "float32"}, INT8, NATIVE),
)

# Computed in float32, to compare the loss of the stored values independently of the arithmetic.
STORED: dict[str, dict[str, Any]] = {
    "none": {},
    "`--quantize 8`": {"quantize": "8"},
    "`--quantize mixed`": {"quantize": "mixed"},
    "`--quantize 4`": {"quantize": "4"},
    "`--quantize 4 --group-size 32`": {"quantize": "4", "group_size": 32},
    "`--quantize 8 --quantize-encoder 8`": {"quantize": "8", "quantize_encoder": 8},
    "`--quantize 4 --quantize-encoder 8`": {"quantize": "4", "quantize_encoder": 8},
}
STORED_RECIPES = tuple(
    Recipe(name, {"dtype": "bfloat16", **options}, "float32") for name, options in STORED.items()
)


def read_clips(folder: Path) -> list[Clip]:
    """Return the clips that are listed in a folder's `clips.jsonl`."""
    rows = map(json.loads, (folder / "clips.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        Clip(
            folder / row["file"], row["language"], row["domain"], row["spoken"], row["written"],
            tuple((position, start_s) for position, start_s in row.get("word_starts_s", ())),
        )
        for row in rows
    ]  # fmt: skip


def load_recipe(upstream: Path, recipe: Recipe, folder: Path) -> Recognizer:
    """Convert an upstream checkpoint with a recipe, and load it in the recipe's number type and engine."""
    out = folder / recipe.name
    funasr_cli.convert(str(upstream), out, languages=("zh", "en"), verify="off", **recipe.options)
    return funasr_cli.load(out, recipe.dtype, engine=recipe.engine)


def decode(recognizer: Recognizer, clips: list[Clip], itn: bool, ctc: bool = False) -> list[tuple[str, str]]:
    """Return text and CTC text (may be empty) of each clip, decoded as one segment like in the reference."""
    options = TranscribeOptions(itn=itn, max_tokens=MAX_TOKENS, ctc=ctc, vad=False, batch_size=BATCH)
    sources = [open_recording(clip.path, recognizer.sample_rate_hz) for clip in clips]
    return [
        (transcript.text, join_texts(segment.ctc_text or "" for segment in transcript.segments))
        for transcript in recognizer.transcribe_batch(sources, options)
    ]


def decode_with_reference(python: str, upstream: Path, clips: list[Clip], itn: bool) -> list[str]:
    """Return the texts of the PyTorch reference for the same checkpoint, in float32, without outer white space."""
    # Sort by length, because a batch is decoded until its longest text ends.
    order = sorted(range(len(clips)), key=lambda index: clips[index].path.stat().st_size)
    chunks = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    batches = [
        {
            "name": str(n),
            "audio": [str(clips[index].path) for index in chunk],
            "itn": itn,
            "max_tokens": MAX_TOKENS,
        }
        for n, chunk in enumerate(chunks)
    ]
    with tempfile.TemporaryDirectory() as folder:
        job, out = Path(folder) / "job.json", Path(folder) / "out"
        content = {"checkpoint": str(upstream), "threads": 1, "cases": [], "batches": batches}
        job.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": ""}
        command = [python, str(REFERENCE), str(job), str(out)]
        done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the reference failed:\n{done.stderr[-4000:]}")
        answers = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))
    texts = {
        index: text
        for n, chunk in enumerate(chunks)
        for index, text in zip(chunk, answers[str(n)]["texts"], strict=True)
    }
    return [texts[index].strip() for index in range(len(clips))]
