"""Transcripts as text in various formats."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from funasr_cli.errors import OutputError
from funasr_cli.transcript import Transcript


def as_text(transcript: Transcript) -> str:
    """The bare text on a line."""
    return transcript.text + "\n"


def as_dict(transcript: Transcript) -> dict[str, Any]:
    """Everything known, as JSON data."""
    return {"text": transcript.text, "complete": transcript.complete, **dataclasses.asdict(transcript)}


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
        raise OutputError(f"{path}: exists already", "choose another --output-dir, or remove it first") from error
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
