"""Names of inputs in messages and tables."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

STANDARD_INPUT = "standard input"  # the name of the input with the label "-"


def display_name(label: str) -> str:
    """Return the name of an input for messages and tables: "standard input" for "-", also with a channel."""
    return f"{STANDARD_INPUT}{label[1:]}" if label == "-" or label.startswith("- [ch ") else label


def short_names(labels: Sequence[str]) -> list[str]:
    """Return the file names of inputs. Files with the same name also get as many folders as tell them apart."""
    paths = [Path(display_name(label)) for label in labels]
    names = {path: path.name for path in paths}
    for length in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        count = Counter(names.values())
        alike = [path for path, name in names.items() if count[name] > 1]
        names |= {path: str(Path(*path.parts[-length:])) for path in alike}
    return [names[path] for path in paths]


def renamed(message: str, label: str) -> str:
    """Replace the input's label at the beginning of a message with its display name."""
    return display_name(label) + message.removeprefix(label) if message.startswith(f"{label}: ") else message
