"""Every failure a user can meet, and the exit code each one ends with."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells the shell."""

    OK = 0
    INPUT_FAILED = 1  # at least one input could not be transcribed
    USAGE = 2  # the command line itself is wrong (Typer's own code, too)
    MODEL = 3  # checkpoint missing, damaged or of an unknown layout
    PARTIAL = 4  # everything was read, but some text is cut short
    ENVIRONMENT = 5  # a library, back end or download is missing
    NO_SPEECH = 6  # there is no speech in any of the inputs
    UNEXPECTED = 70  # a fault of this program, or memory that ran out (EX_SOFTWARE of sysexits.h)
    INTERRUPTED = 130  # Ctrl-C, as shells report it


class FunASRError(Exception):
    """Root of all errors shown to the user without a traceback.

    Attributes:
        message: what happened, and where.
        hint: what to do about it; may be empty.
        code: a short stable name of the failure, such as ``model-missing``, for tests, scripts and searches.
    """

    exit_code = ExitCode.INPUT_FAILED

    def __init__(self, message: str, hint: str = "", *, code: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        if hint:
            self.add_note(hint)  # for those who see the exception itself


class AudioError(FunASRError):
    """An input cannot be read as audio."""


class OutputError(FunASRError):
    """A result cannot be written, or would overwrite something."""


class UsageError(FunASRError):
    """Options that contradict each other, or a value this checkpoint does not know."""

    exit_code = ExitCode.USAGE


class ModelError(FunASRError):
    """A checkpoint or converted model is missing, damaged or not supported."""

    exit_code = ExitCode.MODEL


class SetupError(FunASRError):
    """Something outside this program is missing: a back end, a library, the network."""

    exit_code = ExitCode.ENVIRONMENT


class UnexpectedError(FunASRError):
    """What nobody has foreseen."""

    exit_code = ExitCode.UNEXPECTED
