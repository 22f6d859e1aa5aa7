"""Errors as OpenAI's interface shows them: a status, and JSON with message, type, code and parameter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse

from funasr_cli.errors import AudioError, FunASRError, SetupError, UsageError

INVALID, OURS = "invalid_request_error", "server_error"
RETRY_AFTER_S = "5"
RETRY = {"Retry-After": RETRY_AFTER_S}
NO_RETRY = {"x-should-retry": "false"}  # to OpenAI's clients, which otherwise upload the file twice more
TEMPORARY = ("memory-short", "engine-stopped")


class Problem(Exception):
    """An answer that is an error.

    Attributes:
        status: HTTP status.
        message: what happened and what to do.
        code: short, stable name; None where OpenAI has none.
        param: name of the field that caused it.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.code = status, code
        self.message, self.param = _encodable(message), _encodable(param) if param else None
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = OURS if self.status >= 500 else "requests" if self.status == 429 else INVALID
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.body, self.status, self.headers)


def _encodable(text: str) -> str:
    """Return a text that UTF-8 can encode: names in a client's JSON may have lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def invalid(param: str | None, message: str, code: str | None = None) -> Problem:
    """Return the answer to a field that is missing or wrong."""
    return Problem(400, message, code, param=param)


def as_problem(error: BaseException, spelled: Mapping[str, str] | None = None) -> Problem:
    """Return the answer for an error of a transcription.

    Args:
        error: the error.
        spelled: the request's fields, by field of `TranscribeOptions`, to name the one that an error is about.
    """
    if isinstance(error, Problem):
        return error
    if not isinstance(error, FunASRError):
        return Problem(500, "internal error", "unexpected", headers=NO_RETRY)
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    if isinstance(error, AudioError):
        return Problem(400, message, error.code, param="file")
    if isinstance(error, UsageError):
        names = ["language"] if error.code == "language-unknown" else (spelled or {}).values()
        param = min((name for name in names if name in message), key=message.index, default=None)
        return Problem(400, message, "unsupported_value" if error.code == "option-unsupported" else error.code,
                       param=param)  # fmt: skip
    if isinstance(error, SetupError) and error.code == "lanes-taken":
        return Problem(429, message, "rate_limit_exceeded", headers=RETRY)
    if isinstance(error, SetupError) and error.code in TEMPORARY:
        return Problem(503, message, error.code, headers=RETRY)
    return Problem(500, message, error.code, headers=NO_RETRY)


def where(error: BaseException) -> str:
    """Name an error and its place, without its message, which may contain what was said."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "unknown place"
    return f"{type(error).__name__} at {place}"
