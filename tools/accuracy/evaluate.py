"""`make eval`: measure error rates of the demo model on held-out clips for `docs/reports/demo-accuracy.md`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from funasr_cli.benchmarks.scoring import error_rate
from funasr_cli.demo import MODEL
from funasr_cli.families.fun_asr_nano.model import NanoModel
from funasr_cli.native.library import why_missing
from funasr_cli.options import NATIVE
from tools.accuracy.decoding import (
    RECIPES,
    STORED_RECIPES,
    Clip,
    decode,
    decode_with_reference,
    load_recipe,
    read_clips,
)
from tools.export import export

RECIPES_INTRODUCTION = """\
The loss from quantization alone, independent of a device's arithmetic: quantized values are expanded, and
everything is computed in float32. [Which recipe to use](../recipes.md)

"""
GROUPS: dict[str, Callable[[Clip], bool]] = {
    "English": lambda clip: clip.language == "en",
    "Mandarin": lambda clip: clip.language == "zh",
    "digits": lambda clip: clip.domain == "digits",
    "all": lambda clip: True,
}


def row(name: str, clips: list[Clip], texts: Iterable[str], itn: bool) -> str:
    """Return a line of the table: error rates of each group."""
    pairs = list(zip(clips, texts, strict=True))
    rates = [
        error_rate((clip.wanted(itn), text) for clip, text in pairs if belongs(clip)).percent
        for belongs in GROUPS.values()
    ]
    return f"| {name} | {' | '.join(f'{rate:.2f}' for rate in rates)} |"


def table(clips: list[Clip], upstream: Path, python: str | None, folder: Path) -> list[str]:
    """Return the table for a set of clips."""
    lines = [f"| {len(clips)} clips | {' | '.join(GROUPS)} |", "|---|" + "---|" * len(GROUPS)]
    own: list[str] = []
    counts: list[str] = []
    for recipe in RECIPES:
        if recipe.engine == NATIVE and (missing := why_missing()):
            print(f"{recipe.name}: not measured, {missing}", flush=True)
            continue
        recognizer = load_recipe(upstream, recipe, folder)
        texts = decode(recognizer, clips, itn=False, ctc=recipe is RECIPES[0])
        lines.append(row(recipe.name, clips, [text for text, _ in texts], itn=False))
        if recipe.engine == NATIVE:
            same = sum(text == expected for (text, _), expected in zip(texts, own, strict=True))
            counts.append(f"{recipe.name}: {same} of {len(clips)}")
        if recipe is RECIPES[0]:
            own = [text for text, _ in texts]
            lines.append(row("float32, CTC branch alone", clips, [ctc for _, ctc in texts], itn=False))
            written = [text for text, _ in decode(recognizer, clips, itn=True)]
            lines.append(row("float32, numbers as digits", clips, written, itn=True))
        print("\n".join(lines), flush=True)
    if counts:
        counts = ["", f"Identical to the text in float32 on MLX: {'; '.join(counts)}."]
    if python:
        theirs = decode_with_reference(python, upstream, clips, itn=False)
        same = sum(a == b for a, b in zip(own, theirs, strict=True))
        lines += [row("PyTorch reference, float32", clips, theirs, itn=False), ""]
        lines.append(
            f"Identical to the reference's text: {same} of {len(clips)} ({100 * same / len(clips):.1f} %)."
        )
        for clip, a, b in zip(clips, own, theirs, strict=True):
            if a != b:
                print(f"{clip.path}: {a!r} / {b!r}", flush=True)
    return lines + counts


def recipes_table(conditions: dict[str, list[Clip]], upstream: Path, folder: Path) -> list[str]:
    """Return a table with size and error rates of each recipe of `convert`, all computed in float32."""
    columns = [f"{name}, {group}" for name in conditions for group in ("English", "Mandarin")]
    lines = [
        f"| recipe | MB | {' | '.join(columns)} | same text as without, % |",
        "|---|---|" + "---|" * (len(columns) + 1),
    ]
    dense: list[str] = []
    for recipe in STORED_RECIPES:
        recognizer = load_recipe(upstream, recipe, folder)
        assert isinstance(recognizer.model, NanoModel)
        size_mb = (recognizer.model.loaded.folder / "model.safetensors").stat().st_size / 1e6
        rates, texts = [], []
        for clips in conditions.values():
            own = [text for text, _ in decode(recognizer, clips, itn=False)]
            pairs = list(zip(clips, own, strict=True))
            texts += own
            for language in ("en", "zh"):
                rates.append(error_rate((c.spoken, text) for c, text in pairs if c.language == language).percent)
        dense = dense or texts
        same = sum(a == b for a, b in zip(dense, texts, strict=True)) / len(texts)
        cells = [f"{size_mb:.2f}", *(f"{rate:.2f}" for rate in rates), f"{100 * same:.1f}"]
        lines.append(f"| {recipe.name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Decode the clips, print the tables, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "clips", type=Path, nargs="+", help="folders with clips.jsonl, named after their condition"
    )
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--reference-python", help="Python of the environment with the PyTorch reference")
    arguments = parser.parse_args()
    sections = []
    with tempfile.TemporaryDirectory() as temporary:
        upstream = Path(temporary) / "upstream"
        export(MODEL, upstream)
        for folder in arguments.clips:
            work = Path(temporary) / folder.name
            work.mkdir()
            lines = table(read_clips(folder), upstream, arguments.reference_python, work)
            sections.append(f"## {folder.name}\n\n" + "\n".join(lines) + "\n")
        conditions = {folder.name: read_clips(folder) for folder in arguments.clips}
        lines = recipes_table(conditions, upstream, Path(temporary) / "recipes")
        sections.append("## Recipes of `convert`\n\n" + RECIPES_INTRODUCTION + "\n".join(lines) + "\n")
    head = (
        "# Accuracy of the demo model\n\n"
        "Error rates in percent: words in English, characters in Mandarin. The speech is synthetic; its voices\n"
        "and sentences do not occur in the training. A number in digits counts as one word. Each number type\n"
        "computes in its own arithmetic. Written by `make eval`.\n\n"
    )
    arguments.out.write_text(head + "\n".join(sections), encoding="utf-8")
    print("\n".join(sections))


if __name__ == "__main__":
    main()
