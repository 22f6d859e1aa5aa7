"""Error rates of a small SenseVoice in FunASR's own class, and its word starts compared with the demo's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from funasr import AutoModel

from .ctc_alignment import forced_alignment
from .data import pad_features
from .evaluate import Count, edit_distance
from .features import filter_bank, stack_rows
from .sense_network import LANGUAGE_QUERIES, QUERIES, Teacher
from .sense_train import DEMO_MODEL
from .vocabulary import load_ctc_encoding

BATCH_CLIPS = 40
FRAME_S = 0.06


def evaluate(model: Path, clips: Path, texts: Path | None = None) -> dict[str, Any]:
    """Return error rates in percent over the clips that `tools.demo clips` wrote to a folder.

    `spoken` is without ITN and `written` with it, both without a named language; `named` is `spoken` with the
    language named. `tags` is the share of clips whose four tags are all right. The recognised texts are written to
    the file `texts`, as a list for each of the three.
    """
    rows = [json.loads(line) for line in (clips / "clips.jsonl").read_text(encoding="utf-8").splitlines()]
    samples = [soundfile.read(clips / row["file"], dtype="float32")[0] for row in rows]
    auto = load(model)
    found: dict[str, Any] = {"clips": len(rows)}
    read: dict[str, list[str]] = {}
    for kind, itn, named in (("spoken", False, False), ("written", True, False), ("named", False, True)):
        languages = [row["language"] if named else "auto" for row in rows]
        read[kind] = transcribe(auto, samples, languages, itn)
        counts: dict[str, Count] = {}
        right = 0
        for row, text in zip(rows, read[kind], strict=True):
            tags, words = split_tags(text)
            norm = "withitn" if itn else "woitn"
            right += tags == [f"<|{tag}|>" for tag in (row["language"], "NEUTRAL", "Speech", norm)]
            _count(counts, row, words, row["written" if itn else "spoken"])
        found[kind] = {name: count.percent for name, count in sorted(counts.items())}
        found[kind]["tags"] = round(100 * right / len(rows), 2)
    found["word_starts"] = word_starts(auto, rows, samples)
    if texts is not None:
        texts.write_text(json.dumps(read, ensure_ascii=False), encoding="utf-8")
    return found


def load(model: Path) -> Any:
    """Load FunASR's model on the CPU, without dither."""
    logging.getLogger().setLevel(logging.ERROR)
    return AutoModel(
        model=str(model), device="cpu", disable_update=True, disable_pbar=True, log_level="ERROR",
        frontend_conf={"dither": 0.0},
    )  # fmt: skip


def transcribe(auto: Any, samples: Sequence[np.ndarray], languages: Sequence[str], itn: bool) -> list[str]:
    """Return texts with their tags, in order. FunASR accepts only one language per batch."""
    texts = [""] * len(samples)
    for language in sorted(set(languages)):
        order = [i for i in range(len(samples)) if languages[i] == language]
        order.sort(key=lambda index: len(samples[index]))
        for start in range(0, len(order), BATCH_CLIPS):
            part = order[start : start + BATCH_CLIPS]
            results = auto.generate(
                input=[samples[i] for i in part], batch_size=len(part), language=language, use_itn=itn
            )
            for index, result in zip(part, results, strict=True):
                texts[index] = result["text"]
    return texts


def split_tags(text: str) -> tuple[list[str], str]:
    """Split a text into its leading tags and the rest."""
    tags = []
    while text.startswith("<|") and "|>" in text:
        tag, text = text.split("|>", 1)
        tags.append(f"{tag}|>")
    return tags, text.strip()


def word_starts(auto: Any, rows: list[dict[str, Any]], samples: Sequence[np.ndarray]) -> dict[str, float]:
    """Align the spoken text with both models; return how far apart the words start, as shares of words in percent.

    In Mandarin, each character counts as a word.
    """
    ranks = load_ctc_encoding(DEMO_MODEL / "multilingual.tiktoken")
    teacher = Teacher(DEMO_MODEL, ranks.n_vocab)
    network, pieces = auto.model, auto.kwargs["tokenizer"].sp
    frontend = auto.kwargs["frontend"]
    between: list[float] = []
    for row, clip in zip(rows, samples, strict=True):
        text = row["spoken"]
        plain = stack_rows(filter_bank(clip))
        features, lengths = pad_features([plain])
        own = teacher(features, lengths)[0].numpy()
        cmvn = frontend.cmvn.numpy()  # (2, 560): shift, scale
        queries = torch.tensor([[LANGUAGE_QUERIES["auto"], 1, 2, 15]])
        with torch.inference_mode():
            rows_in = torch.cat([network.embed(queries), (features + cmvn[0]) * cmvn[1]], 1).float()
            logits = network.ctc.ctc_lo(network.encoder(rows_in, lengths + QUERIES)[0])
        mine = logits[0, QUERIES:].log_softmax(-1).numpy()
        own_starts = _word_starts(own, ranks.encode(text), lambda i: ranks.decode([i]), ranks.n_vocab)
        mine_starts = _word_starts(mine, pieces.encode(text), lambda i: pieces.id_to_piece(i).replace("▁", " "), 0)
        between += [abs(own_starts[place] - mine_starts[place]) for place in own_starts]
    return {
        "words": len(between),
        "within 120 ms of the demo's": _share(between, 2),
        "within 60 ms of the demo's": _share(between, 1),
    }


def _word_starts(
    log_probs: np.ndarray, labels: list[int], spell: Callable[[int], str], blank: int
) -> dict[int, float]:
    """Map the position of each word's first character to seconds. A label's first letter begins a word."""
    frames, starts, place = forced_alignment(log_probs, labels, blank), {}, 0
    for label, frame in zip(labels, frames, strict=True):
        piece = spell(label)
        first = place + (len(piece) - len(piece.lstrip()))
        starts[first] = frame * FRAME_S
        place += len(piece)
    return starts


def _count(counts: dict[str, Count], row: dict[str, Any], heard: str, right: str) -> None:
    written = right == row["written"]
    kind = "digits" if row["domain"] == "digits" else row["language"]
    by_character = row["language"] == "zh" or (written and kind == "digits")
    reference, units = (list(t.replace(" ", "")) if by_character else t.split() for t in (right, heard))
    for name in (kind, "all"):
        count = counts.setdefault(name, Count())
        count.errors += edit_distance(reference, units)
        count.units += len(reference)


def _share(distances_s: Sequence[float], frames: int) -> float:
    return round(100 * float(np.mean(np.array(distances_s) < (frames + 0.5) * FRAME_S)), 2)
