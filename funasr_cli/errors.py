"""Errors shown to users, and their exit codes."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the process."""

    OK = 0
    INPUT_FAILED = 1  # at least one input could not be transcribed
    USAGE = 2  # the command line is wrong (the code that Typer uses)
    MODEL = 3  # a checkpoint is missing, damaged or in an unknown layout
    PARTIAL = 4  # all inputs were read, but some text is cut short
    ENVIRONMENT = 5  # a library, back end or download is unavailable
    NO_SPEECH = 6  # no input contains speech
    UNEXPECTED = 70  # a bug in this program, or out of memory (EX_SOFTWARE in sysexits.h)
    INTERRUPTED = 130  # Ctrl-C, as shells report it


class FunASRError(Exception):
    """Base class of all errors that are shown without a traceback.

    Attributes:
        message: what happened, and where.
        hint: what to do about it; may be empty.
        code: short, stable name of the failure, such as ``model-missing``, for scripts, tests and web searches.
    """

    exit_code = ExitCode.INPUT_FAILED

    def __init__(self, message: str, hint: str = "", *, code: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        if hint:
            self.add_note(hint)  # shown in a traceback


class AudioError(FunASRError):
    """An input cannot be read as audio."""


class OutputError(FunASRError):
    """A result cannot be written, or would overwrite a file."""


class UsageError(FunASRError):
    """Options conflict, or this checkpoint does not support a value."""

    exit_code = ExitCode.USAGE


class ModelError(FunASRError):
    """A checkpoint or converted model is missing, damaged or unsupported."""

    exit_code = ExitCode.MODEL


class SetupError(FunASRError):
    """A back end, a library or the network is unavailable."""

    exit_code = ExitCode.ENVIRONMENT


class UnexpectedError(FunASRError):
    """An unexpected internal error."""

    exit_code = ExitCode.UNEXPECTED
