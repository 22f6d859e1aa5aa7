"""``funasr transcribe --plot-alignment``: a picture of the audio and the words at their times."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.cli import console
from funasr_cli.cli.run import refuse_pipes
from funasr_cli.errors import UsageError
from funasr_cli.inputs import Input
from funasr_cli.options import TranscribeOptions

if TYPE_CHECKING:
    from funasr_cli.pipeline import Recognizer
    from funasr_cli.scheduling.events import Finished

FORCE_HINT = "add --force to replace it, or choose another file"
NO_FONT = "no installed font has all characters of the text; install one, such as Noto Sans CJK"


def refuse_unusable(inputs: Sequence[Input], path: Path, *, replace: bool) -> None:
    """Refuse inputs and picture files that cannot work, before a model is loaded.

    Raises:
        UsageError: there are several inputs or channels, the input is a pipe, or the picture would replace it.
        OutputError: the picture's file cannot be written (see `check_picture`).
    """
    from funasr_cli.pictures import OTHER_NAME, check_picture

    check_picture(path, replace=replace, hint=FORCE_HINT)
    if len(inputs) > 1:
        recordings = sum(input.channel in (None, 1) for input in inputs)
        several, hint = f"{recordings} inputs", "a picture shows one transcript"
        if recordings == 1:
            several, hint = (
                f"{len(inputs)} channels, each transcribed separately",
                f"{hint}; use --channels mix",
            )
        raise UsageError(f"cannot combine --plot-alignment with {several}", hint, code="options-conflict")
    [input] = inputs
    if os.path.realpath(path) == os.path.realpath(input.path):
        raise UsageError(f"{path} is the input itself", OTHER_NAME, code="output-is-input")
    refuse_pipes(inputs, "--plot-alignment")


def require_libraries() -> None:
    """Raise a SetupError if a library that draws is missing. Call it for a model that has an alignment to draw."""
    from funasr_cli.alignment_picture import require_librosa
    from funasr_cli.pictures import require_matplotlib

    require_matplotlib()
    require_librosa()


def prepare(
    input: Input, recognizer: "Recognizer", options: TranscribeOptions, path: Path, *, replace: bool
) -> "Callable[[Finished], None]":
    """Read an input, and return a function that draws the picture from its transcript.

    That function raises an OutputError if the picture cannot be written.

    Raises:
        AudioError: the input cannot be read.
        UsageError: the input is too long.
    """
    from funasr_cli.alignment_picture import LONGEST_S, draw
    from funasr_cli.audio.decode import read_whole
    from funasr_cli.sources import open_input

    read_ctc = partial(recognizer.timing_model.read_ctc, options=options)
    source = open_input(input, recognizer.sample_rate_hz)
    if (source.expected_s or 0) > LONGEST_S:
        hint = f"a picture shows at most {LONGEST_S:g} s; select a part with --clip"
        raise UsageError(f"{source.name}: too long for a picture", hint, code="picture-too-long")
    audio = read_whole(source, LONGEST_S)

    def draw_it(event: "Finished") -> None:
        all_drawn = draw(read_ctc, audio, event.transcript, path, replace=replace)
        if not all_drawn and path.suffix.lower() == ".png":
            console.warn(f"{path}: {NO_FONT}")
        console.note(f"wrote {path}")

    return draw_it
