"""``--resume``: whether a result is still that of its recording, by what a file beside it notes.

For each file that it writes, a run adds a line to `NOTES` in the output folder: what the result was made of, as
hashes. A result without a line, one that has been edited since, and one of an older version are made again only
where the recording is newer than they are.
"""

import dataclasses
import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from funasr_cli.cli import console
from funasr_cli.inputs import Input
from funasr_cli.languages import language_code
from funasr_cli.options import AUTO_ENGINE, NATIVE, Tags, Timestamps, TranscribeOptions
from funasr_cli.paths import shown
from funasr_cli.writers import DATA, DEFAULT_TIMES, SUBTITLES, Style

NOTES = ".funasr-resume.jsonl"
LARGEST_NOTES = 1 << 26  # bytes: those of 200,000 results
# These change nothing in a text: how it is computed, and what a format asks for, which `Style` says.
NOT_OF_THE_TEXT = ("draft", "batch_size", "ctc", "word_times", "confidence")
CHANGED = {  # by what differs
    "recording": "the recording has changed",
    "model": "the model is another one",
    "options": "the options are others",
}


class Notes:
    """What is noted of the results in a folder, in that folder, and what those of this run are made with."""

    def __init__(
        self,
        folder: Path,
        model: Path,
        options: TranscribeOptions,
        style: Style,
        dtype: str | None,
        engine: str = AUTO_ENGINE,
        aligner: Path | None = None,
    ):
        self._folder = folder
        self._options, self._style, self._aligner = options, style, aligner
        self._dtype, self._engine = dtype, engine
        self._model = _model_hash(model)
        self._noted = dict(_read(folder / NOTES))
        self._recordings: dict[Path, str] = {}
        self._has_warned = False

    def outdated(self, file: Path, format: str, input: Input) -> str | None:
        """Tell why a result that exists is to be made again; None: it is not, or it is no file at all."""
        try:
            if not file.is_file():
                return None
            content, made_ns = file.read_bytes(), file.stat().st_mtime_ns
            recorded = os.stat(input.path)
        except OSError:
            return None
        noted = self._noted.get(self._name(file), {})
        if noted.get("content") == _hash(content):
            now = self._made_of(format, input)
            return next((reason for key, reason in CHANGED.items() if noted.get(key) != now[key]), None)
        if noted and not content:
            return "they are empty now"
        return "the recording is newer" if recorded.st_mtime_ns > made_ns else None

    def is_incomplete(self, file: Path) -> bool:
        """Tell whether a result lacked something when it was written."""
        return self._noted.get(self._name(file), {}).get("complete") is False

    def read(self, input: Input) -> None:
        """Take down which recording is read: it may change while it is transcribed."""
        self._recordings[input.path] = _recording(input)

    def add(self, file: Path, format: str, input: Input, content: str, *, complete: bool) -> None:
        """Note what a result was made of; where that cannot be written, it is held to its time alone."""
        line = {"file": self._name(file), "content": _hash(content.encode()), **self._made_of(format, input)}
        line["complete"] = complete
        path = self._folder / NOTES
        try:
            if path.exists() and not path.is_file():  # opening a pipe would wait for whoever reads it
                raise OSError(errno.EEXIST, "it is no file")
            with path.open("a", encoding="utf-8") as notes:
                notes.write("\n" + json.dumps(line))  # first: what a kill cut off before stays a line of its own
        except OSError as error:
            if not self._has_warned:
                effect = "--resume will go by the times of files alone"
                console.warn(f"{shown(path)}: cannot be written ({error.strerror}): {effect}")
            self._has_warned = True

    def _name(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix()

    def _made_of(self, format: str, input: Input) -> dict[str, Any]:
        recording = self._recordings.get(input.path) or _recording(input)
        own = {
            "part": [input.clip, input.channel, input.pcm and dataclasses.astuple(input.pcm)],
            "times": self._style.times or DEFAULT_TIMES[format],
            "subtitles": dataclasses.astuple(self._style.subtitles) if format in SUBTITLES else None,
            "confidence": self._options.confidence and format in ("json", "jsonl"),
            "dtype": self._dtype,
        }
        # Of what came later only what is no default, so that it makes nothing outdated.
        if self._style.tags is not Tags.NONE and format not in DATA:
            own["tags"] = self._style.tags
        if self._engine == NATIVE:
            own["engine"] = self._engine
        if self._aligner and own["times"] is Timestamps.WORD:
            own["align_with"] = _model_hash(self._aligner)
        options = _hash(json.dumps([_of_the_text(self._options), own]).encode())
        return {"recording": recording, "model": self._model, "options": options}


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read lines, the last of each file counts; one that a kill cut off is none, nor is what is no file."""
    with suppress(OSError):
        if not path.is_file() or path.stat().st_size > LARGEST_NOTES:
            return
        for line in path.read_bytes().splitlines():
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                noted = json.loads(line)
                yield str(noted["file"]), noted


def _recording(input: Input) -> str:
    """Return size and time of a recording; of a pipe, which may bring another each time, some number."""
    try:
        found = os.stat(input.path)
        return f"{found.st_size}-{found.st_mtime_ns}" if stat.S_ISREG(found.st_mode) else secrets.token_hex(8)
    except OSError:  # it cannot be read either, and has no result
        return ""


def _model_hash(folder: Path) -> str:
    """Hash the configuration, which holds the source's SHA-256, and the sizes and names of all files."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".tiktoken"))
        sizes = [(path.name, path.resolve().name, path.stat().st_size) for path in files]
        return _hash((folder / "config.json").read_bytes() + json.dumps(sizes).encode())
    except OSError:  # loading it tells better what is wrong
        return ""


def _of_the_text(options: TranscribeOptions) -> dict[str, object]:
    """Return those that are no defaults, so that an option of a later version makes nothing outdated."""
    by_code = dataclasses.replace(options, language=language_code(options.language or ""))
    return {
        field.name: value
        for field in dataclasses.fields(by_code)
        if field.name not in NOT_OF_THE_TEXT and (value := getattr(by_code, field.name)) != field.default
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
