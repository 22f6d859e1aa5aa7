"""The bundled model and clips: small, trained on synthesised speech, for trying things without a download.

Which model it is, how well it reads and what it cannot do stands in `README.md` beside this file.
"""

import json
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).parent / "model"
CLIPS = Path(__file__).parent / "clips"


@dataclass(frozen=True)
class DemoClip:
    """A clip that no part of the training has heard, voice or sentence."""

    path: Path
    language: str  # ISO code of what is spoken
    spoken: str  # its text in words, as the model writes it without inverse text normalisation
    written: str  # its text with numbers in digits, as the model writes it by default


def clips() -> list[DemoClip]:
    """The bundled clips, in order."""
    rows = map(json.loads, (CLIPS / "clips.jsonl").read_text(encoding="utf-8").splitlines())
    return [DemoClip(CLIPS / row["file"], row["language"], row["spoken"], row["written"]) for row in rows]
