"""``funasr transcribe --plot-alignment``: a picture of what was heard and written."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.audio.tape import STDIN
from funasr_cli.cli import console
from funasr_cli.errors import UsageError
from funasr_cli.inputs import Input

if TYPE_CHECKING:
    from funasr_cli.pipeline import Recognizer
    from funasr_cli.transcript import Transcript

FORCE_HINT = "add --force to replace it, or name another file"
NO_FONT = "no font on this machine has all characters of the text: install one, for example Noto Sans CJK"


def refuse_unusable(inputs: Sequence[Input], path: Path, *, replace: bool) -> None:
    """Refuse what cannot be drawn, before a model is loaded.

    Raises:
        UsageError: there are several inputs or channels, or it can be read only once, or is the picture's file.
        FunASRError: as `check_picture` does.
    """
    from funasr_cli.audio.tape import is_pipe
    from funasr_cli.pictures import OTHER_NAME, check_picture

    check_picture(path, replace=replace, hint=FORCE_HINT)
    recordings = [input for input in inputs if input.channel in (None, 1)]
    if len(recordings) > 1:
        raise UsageError(f"--plot-alignment with {len(recordings)} inputs", "a picture shows a single one")
    if len(inputs) > 1:
        channels = f"{len(inputs)} channels, each transcribed for itself"
        hint = "a picture shows a single text; choose --channels mix"
        raise UsageError(f"--plot-alignment with {channels}", hint)
    [input] = inputs
    if os.path.realpath(path) == os.path.realpath(input.path):
        raise UsageError(f"{path} is an input", OTHER_NAME)
    if input.path == STDIN or is_pipe(input.path):
        raise UsageError(f"{input.label}: can be read only once", "--plot-alignment needs a file")


class Picture:
    """The picture of an input, which is read for it first.

    Args:
        input: what is transcribed.
        recognizer: which transcribes it.
        path: of the picture.
        replace: one that is there.

    Raises:
        ModelError: the model has no CTC branch.
        AudioError: the input cannot be read.
        UsageError: it is too long.
    """

    def __init__(self, input: Input, recognizer: "Recognizer", path: Path, *, replace: bool):
        from funasr_cli.alignment_picture import read_short
        from funasr_cli.sources import open_input

        recognizer.refuse_missing_word_times()
        self._audio = read_short(open_input(input, recognizer.sample_rate_hz))
        self._recognizer, self._path, self._replace = recognizer, path, replace

    def draw(self, transcript: "Transcript") -> None:
        """Draw it.

        Raises:
            OutputError: the file cannot be written.
        """
        from funasr_cli.alignment_picture import draw, hear

        heard = hear(self._recognizer, self._audio, transcript)
        all_drawn = draw(self._audio, transcript, heard, self._path, replace=self._replace)
        if not all_drawn and self._path.suffix.lower() == ".png":
            console.warn(f"{self._path}: {NO_FONT}")
        console.note(f"wrote {self._path}")
