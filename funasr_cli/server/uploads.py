"""Receive a request's fields and its file, counted; the file is private, temporary, and removed on every path."""

import asyncio
import base64
import binascii
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from funasr_cli.server.problems import NO_RETRY, RETRY, Problem, invalid
from funasr_cli.server.speakers import REFERENCES

JSON, FORM = "application/json", "multipart/form-data"
MOST_JSON_BYTES = 16 << 20  # a body of JSON has to be in memory as a whole
MOST_FIELDS = 200  # in addition to the file
MOST_FIELD_BYTES = 64 << 10  # of a form, in memory; its file is on disk
# 10 s of stereo at 48 kHz, in base64; and of four such fields together.
MOST_REFERENCE_BYTES, MOST_REFERENCES_BYTES = 3 << 20, 12 << 20
# Others wait for the place of an upload. So it may pause for `STALL_S`, and be as slow on the average as the first
# rate after that time, and as the second one after `LONG_S`: then 500 MB take an hour and a half at most.
STALL_S, LEAST_BYTES_A_SECOND = 60.0, 8_000
LONG_S, LEAST_OF_LONG = 600.0, 100_000


@dataclass(frozen=True)
class Upload:
    """A request's fields, in order, and its file."""

    fields: list[tuple[str, Any]]  # strings in a form, any value in JSON
    path: Path


@asynccontextmanager
async def received(request: Request, folder: Path, most_bytes: int) -> AsyncIterator[Upload]:
    """Receive the body of a request; its file exists until the end of the context.

    Raises:
        Problem: it is too large (413), arrives too slowly (408), has no file, or cannot be read (400).
        ClientDisconnect: the client has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind not in (JSON, FORM):
        raise invalid("file", f"send the recording as {FORM}, or as {JSON} in base64")
    is_json = kind == JSON
    descriptor, name = tempfile.mkstemp(dir=folder)
    path = Path(name)
    try:
        try:
            with open(descriptor, "wb") as file:
                limit = min(most_bytes, MOST_JSON_BYTES) if is_json else most_bytes
                fields = await (_from_json if is_json else _from_form)(counted(request, limit), file)
        except OSError as error:
            full = Problem(503, "the server cannot store the upload", "disk-full", headers=RETRY)
            raise full from error
        yield Upload(fields, path)
    finally:
        path.unlink(missing_ok=True)


def counted(request: Request, most_bytes: int) -> Request:
    """Return the request with a limit on its body."""
    too_large = Problem(413, f"the request is larger than {most_bytes:,} bytes, the limit of this server",
                        "too_large", param="file")  # fmt: skip
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > most_bytes:
        raise Problem(413, f"{too_large.message}: {int(stated):,} bytes", "too_large", param="file")
    count, began = 0, time.monotonic()

    async def receive() -> Message:
        nonlocal count
        left_s = min(STALL_S + count / LEAST_BYTES_A_SECOND, LONG_S + count / LEAST_OF_LONG)
        try:
            message = await asyncio.wait_for(request.receive(), min(STALL_S, left_s - (time.monotonic() - began)))
        except TimeoutError as error:
            least = (f"none for {STALL_S:g} s, or less than {LEAST_BYTES_A_SECOND:,} bytes a second, "
                     f"after {LONG_S / 60:g} minutes {LEAST_OF_LONG:,}")  # fmt: skip
            raise Problem(408, f"the upload is too slow: {least}", "too_slow", headers=NO_RETRY) from error
        count += len(message.get("body", b""))
        if count > most_bytes:
            raise too_large
        return message

    return Request(request.scope, receive)


class FormParser(MultiPartParser):
    """A parser that limits fields in memory: recordings of known speakers, and the others, which are shorter."""

    _references = 0  # bytes so far

    def on_part_end(self) -> None:
        """Check the length of a field that has been read."""
        super().on_part_end()
        name, value = self.items[-1]
        if isinstance(value, str) and len(value) > MOST_FIELD_BYTES:
            self._references += len(value)
            if not name.startswith(REFERENCES) or self._references > MOST_REFERENCES_BYTES:
                raise MultiPartException(f"the field {name[:50]!r} is too long")


async def _from_form(request: Request, file: BinaryIO) -> list[tuple[str, Any]]:
    try:
        parser = FormParser(
            request.headers,
            request.stream(),
            max_files=2,
            max_fields=MOST_FIELDS,
            max_part_size=MOST_REFERENCE_BYTES,
        )
        form = await parser.parse()
    except (Problem, ClientDisconnect, OSError):
        raise
    except Exception as error:  # whatever a damaged body makes the parser raise
        detail = error.message if isinstance(error, MultiPartException) else "the body is damaged"
        raise invalid(None, f"not a form: {detail}") from error
    try:
        files = [value for name, value in form.multi_items() if name in ("file", "file[]")]
        if not files:
            raise invalid("file", "the field 'file' is missing", "missing_required_parameter")
        if len(files) > 1 or not isinstance(files[0], UploadFile):
            raise invalid("file", "send one file, with a file name, as multipart/form-data")
        await run_in_threadpool(shutil.copyfileobj, files[0].file, file)
        return [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    finally:
        await form.close()


async def _from_json(request: Request, file: BinaryIO) -> list[tuple[str, Any]]:
    body = await request.body()
    return await run_in_threadpool(_read_json, body, file)


def _read_json(body: bytes, file: BinaryIO) -> list[tuple[str, Any]]:
    """Read a JSON object whose `file` is base64, with or without the beginning of a data URL."""
    try:
        fields = json.loads(body)
        if not isinstance(fields, Mapping):
            raise ValueError
    except (ValueError, RecursionError) as error:
        raise invalid(None, "the body is not a JSON object") from error
    if len(fields) > MOST_FIELDS + 1:
        raise invalid(None, f"the JSON object has more than {MOST_FIELDS} fields in addition to the file")
    content = fields.get("file")
    if not isinstance(content, str):
        raise invalid("file", "'file' must be the recording in base64", "missing_required_parameter")
    try:
        decoded = base64.b64decode(content[content.find(",") + 1 :] if content.startswith("data:") else content,
                                   validate=True)  # fmt: skip
    except (binascii.Error, ValueError) as error:
        raise invalid("file", "'file' is not base64") from error
    file.write(decoded)
    return [(name, value) for name, value in fields.items() if name != "file"]


def private_folder() -> Path:
    """Make a folder for temporary files that only this user can read."""
    folder = Path(tempfile.mkdtemp(prefix=f"funasr-serve-{os.getpid()}-"))
    folder.chmod(0o700)
    return folder
