"""`make eval`: compare drafted with plain decoding of the demo model for `docs/reports/drafted-decoding.md`."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from funasr_cli.audio.recording import open_recording
from funasr_cli.compute.backend import describe
from funasr_cli.decoding.cost import GPU_FIXED_POSITIONS, RunCost
from funasr_cli.demo import MODEL
from funasr_cli.options import AUTO_DRAFT, NO_DRAFT, TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.verification.proof import trace
from tools.accuracy.decoding import MAX_TOKENS, RECIPES, Clip, load_recipe, read_clips
from tools.export import export

BATCH_SIZES = {"float32": (1, 16, 2, 3, 8)}  # for types whose texts must be identical
FEW_BATCH_SIZES = (16,)  # for the other types, which are slow on a CPU...
FEW_CLIPS = 250  # ...and therefore decode fewer clips
TURN_CLIPS = 500  # clips decoded without drafts, then with drafts, before the next ones
TIMED = ("ctc_s", "prefill_s", "decode_s")
HEAD = """\
# Savings of drafted decoding

Each held-out clip of the demo model is decoded with and without [drafts](../glossary.md#draft), in turns. A
turn is a run of {turn} clips, during which the drafts adapt to the way the decoder writes.

- same: clips whose text is identical, character by character.
- calls, with drafts: decoder calls for all clips, including the one for the prompt.
- accepted: share of the drafted tokens that the decoder would have written itself.
- times shorter: time of CTC branch, prompt and decoding without drafts, divided by the time with them; for
  decoding alone in brackets.
- Numbers as digits are the default (`--itn`). The decoder then writes what the CTC branch does not.
- bfloat16, 8-bit and 4-bit try as many tokens as on a GPU. On a CPU, drafts save nothing in these types, so none
  are made.

Written by `make eval`, on {device}.

"""


@dataclass
class Tally:
    """Texts and counts of one way of decoding."""

    texts: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, recognizer: Recognizer, clips: Sequence[Clip], options: TranscribeOptions) -> None:
        """Decode more clips and add their texts and counts."""
        sources = [open_recording(clip.path, recognizer.sample_rate_hz) for clip in clips]
        for transcript in recognizer.transcribe_batch(sources, options):
            self.texts.append(transcript.text)
            for name in (*TIMED, "tokens", "decoder_calls", "drafted", "accepted"):
                self.counts[name] += getattr(transcript.timings, name)

    @property
    def seconds(self) -> float:
        """Seconds of the stages that drafts affect."""
        return sum(self.counts[name] for name in TIMED)


def compare(recognizer: Recognizer, clips: Sequence[Clip], options: TranscribeOptions) -> tuple[Tally, Tally]:
    """Decode with and without drafts, in turns; without second attempts, because those also run the CTC branch."""
    options = replace(options, second_opinion=False)
    plain, drafted = Tally(), Tally()
    for start in range(0, len(clips), TURN_CLIPS):
        part = clips[start : start + TURN_CLIPS]
        plain.add(recognizer, part, replace(options, draft=NO_DRAFT))
        drafted.add(recognizer, part, replace(options, draft=AUTO_DRAFT))
    return plain, drafted


def least_margin(recognizer: Recognizer, clip: Clip, options: TranscribeOptions) -> float:
    """Return the smallest difference in a text between the logits of the best and the second-best token."""
    best = np.sort(trace(recognizer.model, clip.path, options=options).logits, axis=-1)  # (steps, vocab)
    return float((best[:, -1] - best[:, -2]).min())


def as_on_gpu() -> None:
    """Try as many drafted tokens as on a GPU; on a CPU, few are tried in these types."""
    RunCost.of = lambda llm: RunCost(GPU_FIXED_POSITIONS)  # type: ignore[method-assign]


def row(name: str, itn: bool, size: int, plain: Tally, drafted: Tally) -> str:
    """Return a line of the table."""
    same = sum(one == other for one, other in zip(plain.texts, drafted.texts, strict=True))
    counts = drafted.counts
    shorter, decoding = plain.seconds / drafted.seconds, plain.counts["decode_s"] / max(counts["decode_s"], 1e-9)
    cells = [
        name, "digits" if itn else "words", str(size), f"{same} of {len(plain.texts)}",
        f"{counts['tokens']:,}", f"{plain.counts['decoder_calls']:,}", f"{counts['decoder_calls']:,}",
        f"{plain.counts['decoder_calls'] / counts['decoder_calls']:.2f}",
        f"{100 * counts['accepted'] / counts['drafted']:.1f}",
        f"{shorter:.2f} ({decoding:.1f})",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def differences(
    recognizer: Recognizer, clips: Sequence[Clip], plain: Tally, drafted: Tally, options: TranscribeOptions
) -> list[str]:
    """List the texts that differ, with the smallest margin between tokens, which rounding can reverse."""
    pairs = zip(clips, plain.texts, drafted.texts, strict=True)
    return [
        f"- `{one}` / `{other}`: closest two tokens {least_margin(recognizer, clip, options):.3f} apart"
        for clip, one, other in pairs
        if one != other
    ]


def main() -> None:
    """Decode the clips, print the table, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path, nargs="+", help="folders with clips.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    arguments = parser.parse_args()
    clips = [clip for folder in arguments.clips for clip in read_clips(folder)]
    headings = "type, numbers as, batch, same, tokens, calls, with drafts, times fewer, accepted %, times shorter"
    lines = [f"| {headings.replace(', ', ' | ')} |", "|---|---|" + "---:|" * 8]
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        upstream = Path(temporary) / "upstream"
        export(MODEL, upstream)
        for recipe in RECIPES[:4]:
            recognizer = load_recipe(upstream, recipe, Path(temporary))
            chosen = clips if recipe.name in BATCH_SIZES else clips[:FEW_CLIPS]
            if recipe.name not in BATCH_SIZES:
                as_on_gpu()
            for size in BATCH_SIZES.get(recipe.name, FEW_BATCH_SIZES):
                for itn in (False, True):
                    options = TranscribeOptions(itn=itn, max_tokens=MAX_TOKENS, vad=False, batch_size=size)
                    plain, drafted = compare(recognizer, chosen, options)
                    lines.append(row(recipe.name, itn, size, plain, drafted))
                    print(lines[-1], flush=True)
                    found = differences(recognizer, chosen, plain, drafted, options)
                    if found:
                        notes += [f"\n{recipe.name}, batch of {size}:\n", *found]
                        print("\n".join(found), flush=True)
    head = HEAD.format(device=describe(), turn=TURN_CLIPS)
    arguments.out.write_text(head + "\n".join([*lines, *notes]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
