"""The bundled demo model and clips, for trying the program without a download.

`README.md` in this folder describes the model, its training on synthesised speech, its accuracy and its limits.
"""

import json
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).parent / "model"
CLIPS = Path(__file__).parent / "clips"


@dataclass(frozen=True)
class DemoClip:
    """A clip whose voice and sentence are not in the training data."""

    path: Path
    language: str  # ISO code of the spoken language
    spoken: str  # its text as the model writes it without inverse text normalisation, with numbers in words
    written: str  # its text as the model writes it by default, with numbers in digits


def clips() -> list[DemoClip]:
    """Return the bundled clips, in order."""
    rows = map(json.loads, (CLIPS / "clips.jsonl").read_text(encoding="utf-8").splitlines())
    return [DemoClip(CLIPS / row["file"], row["language"], row["spoken"], row["written"]) for row in rows]
