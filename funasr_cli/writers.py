"""Transcripts as text in various formats."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from funasr_cli.errors import OutputError
from funasr_cli.transcript import Segment, Transcript


def as_lines(segments: Iterable[Segment], prefix: str = "") -> str:
    """The bare text, a line for each segment that has some."""
    return "".join(f"{prefix}{segment.text}\n" for segment in segments if segment.text)


def as_text(transcript: Transcript) -> str:
    """The bare text, a line for each segment."""
    return as_lines(transcript.segments)


def as_dict(transcript: Transcript) -> dict[str, Any]:
    """Everything known, as JSON data."""
    data = dataclasses.asdict(transcript)
    for segment, row in zip(transcript.segments, data["segments"], strict=True):
        row["state"] = segment.state
    ledger = dataclasses.asdict(transcript.ledger)
    return {"text": transcript.text, "complete": transcript.complete, "ledger": ledger, **data}


def as_json(transcript: Transcript) -> str:
    """Everything known, indented."""
    return json.dumps(as_dict(transcript), ensure_ascii=False, indent=2) + "\n"


def as_json_line(transcript: Transcript) -> str:
    """Everything known, on one line."""
    return json.dumps(as_dict(transcript), ensure_ascii=False) + "\n"


WRITERS: dict[str, Callable[[Transcript], str]] = {"txt": as_text, "json": as_json}


def output_path(source: str, folder: Path, suffix: str) -> Path:
    """Where the result for an input goes: its name with another ending."""
    return folder / f"{Path(source).stem}.{suffix}"


def exists_already(path: Path) -> OutputError:
    """What to say about a result that is there."""
    return OutputError(
        f"{path}: exists already", "add --resume to skip it, choose another --output-dir, or remove it first"
    )


def write_new(path: Path, content: str) -> None:
    """Write a file that does not exist yet, whole or not at all.

    Raises:
        OutputError: it exists, or cannot be written.
    """
    try:
        handle, partial = tempfile.mkstemp(prefix=".funasr-", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(content)
            os.chmod(partial, 0o666 & ~_umask())
            _publish(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)
    except FileExistsError as error:
        raise exists_already(path) from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error})") from error


def _publish(partial: str, path: Path) -> None:
    """Give a complete file its name; unlike a mere rename, this never overwrites."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links here (exFAT, some network shares)
        path.open("xb").close()
        os.replace(partial, path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
