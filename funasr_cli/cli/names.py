"""Names of inputs in messages and tables."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

STANDARD_INPUT = "standard input"  # the name of the input with the label "-"


def display_name(label: str) -> str:
    """Return the name of an input for messages and tables: "standard input" for "-", also with a channel."""
    return f"{STANDARD_INPUT}{label[1:]}" if label == "-" or label.startswith("- [ch ") else label


def short_names(labels: Sequence[str]) -> list[str]:
    """Return the file names of inputs, with their folder where several inputs have the same name."""
    paths = [Path(display_name(label)) for label in labels]
    count = Counter(path.name for path in paths)
    return [path.name if count[path.name] == 1 else "/".join(path.parts[-2:]) for path in paths]


def renamed(message: str, label: str) -> str:
    """Replace the input's label at the beginning of a message with its display name."""
    return display_name(label) + message.removeprefix(label) if message.startswith(f"{label}: ") else message
