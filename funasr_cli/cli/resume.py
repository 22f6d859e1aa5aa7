"""``--resume``: find out whether a result is up to date.

For each file that it writes, a run adds a line to the file `NOTES` in the output folder: hashes of the recording,
the model and the options. A result without such a line, or one that was edited later, is replaced only if the
recording is newer than the result.
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
from funasr_cli.options import AUTO_ENGINE, INT8, NATIVE, Tags, Timestamps, TranscribeOptions
from funasr_cli.paths import shown
from funasr_cli.writers import DATA, DEFAULT_TIMES, SUBTITLES, Style

NOTES = ".funasr-resume.jsonl"
LARGEST_NOTES = 1 << 26  # bytes: notes on 200,000 results
# Options that do not change the text: they are about the computation, or about a format, which `Style` covers.
NOT_ABOUT_TEXT = ("draft", "batch_size", "ctc", "word_times", "confidence")
CHANGED = {  # reasons, by the hash that differs
    "recording": "the recording has changed",
    "model": "the model has changed",
    "options": "the options have changed",
}


class Notes:
    """The notes on the results in a folder, and the model and options of this run."""

    def __init__(
        self,
        folder: Path,
        model: Path,
        options: TranscribeOptions,
        style: Style,
        dtype: str | None,
        engine: str = AUTO_ENGINE,
        aligner: Path | None = None,
        punctuation: Path | None = None,
        speakers: Path | None = None,
        translator: Path | None = None,
    ):
        self._folder = folder
        self._options, self._style, self._aligner, self._punctuation = options, style, aligner, punctuation
        self._dtype, self._engine, self._speakers, self._translator = dtype, engine, speakers, translator
        self._model = _model_hash(model)
        self._noted = dict(_read(folder / NOTES))
        self._recordings: dict[Path, str] = {}
        self._has_warned = False

    def outdated(self, file: Path, format: str, input: Input) -> str | None:
        """Return why an existing result must be replaced; None if it is up to date, or is not a file."""
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
            return "they are empty"
        return "the recording is newer" if recorded.st_mtime_ns > made_ns else None

    def is_incomplete(self, file: Path) -> bool:
        """Return whether a result was incomplete when it was written."""
        return self._noted.get(self._name(file), {}).get("complete") is False

    def read(self, input: Input) -> None:
        """Note the state of a recording before it is read, since it may change during the run."""
        self._recordings[input.path] = _recording(input)

    def add(self, file: Path, format: str, input: Input, content: str, *, complete: bool) -> None:
        """Add a line on a result. If that fails, `--resume` can only compare the times of files."""
        line = {"file": self._name(file), "content": _hash(content.encode()), **self._made_of(format, input)}
        line["complete"] = complete
        path = self._folder / NOTES
        try:
            if path.exists() and not path.is_file():  # opening a pipe would block until it has a reader
                raise OSError(errno.EEXIST, "not a regular file")
            with path.open("a", encoding="utf-8") as notes:
                notes.write("\n" + json.dumps(line))  # the line end is first, in case the last line was cut off
        except OSError as error:
            if not self._has_warned:
                effect = "--resume can only compare the times of files"
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
            "dtype": self._dtype or (INT8 if self._engine == NATIVE else None),
        }
        # Options of later versions count only if they differ from the default: old results stay up to date.
        if self._style.tags is not Tags.NONE and format not in DATA:
            own["tags"] = self._style.tags
        if self._engine == NATIVE:
            own["engine"] = self._engine
        if self._aligner and own["times"] is Timestamps.WORD:
            own["align_with"] = _model_hash(self._aligner)
        if self._punctuation:
            own["punctuation"] = _model_hash(self._punctuation)
        if self._speakers:
            own["speaker_model"] = _model_hash(self._speakers)
        if self._translator:
            own["translator"] = _model_hash(self._translator)
        if self._style.bilingual and format in SUBTITLES:
            own["bilingual"] = True
        options = _hash(json.dumps([_text_options(self._options), own]).encode())
        return {"recording": recording, "model": self._model, "options": options}


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield file names and their notes, oldest first. Incomplete lines are skipped."""
    with suppress(OSError):
        if not path.is_file() or path.stat().st_size > LARGEST_NOTES:
            return
        for line in path.read_bytes().splitlines():
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                noted = json.loads(line)
                yield str(noted["file"]), noted


def _recording(input: Input) -> str:
    """Return the size and time of a recording; a random value for a pipe, whose content may differ each time."""
    try:
        found = os.stat(input.path)
        return f"{found.st_size}-{found.st_mtime_ns}" if stat.S_ISREG(found.st_mode) else secrets.token_hex(8)
    except OSError:  # the recording cannot be read either, and has no result
        return ""


def _model_hash(folder: Path) -> str:
    """Return a hash of the configuration, which states the SHA-256 of the source, and of file names and sizes."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".tiktoken"))
        sizes = [(path.name, path.resolve().name, path.stat().st_size) for path in files]
        return _hash((folder / "config.json").read_bytes() + json.dumps(sizes).encode())
    except OSError:  # loading the model reports this in detail
        return ""


def _text_options(options: TranscribeOptions) -> dict[str, object]:
    """Return the options that affect the text and differ from their defaults."""
    by_code = dataclasses.replace(options, language=language_code(options.language or ""))
    return {
        field.name: value
        for field in dataclasses.fields(by_code)
        if field.name not in NOT_ABOUT_TEXT and (value := getattr(by_code, field.name)) != field.default
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
