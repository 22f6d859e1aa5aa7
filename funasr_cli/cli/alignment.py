"""``funasr transcribe --plot-alignment``: a picture of what was heard and written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.cli import console
from funasr_cli.errors import UsageError
from funasr_cli.inputs import STDIN, Input

if TYPE_CHECKING:
    from funasr_cli.pipeline import Recognizer
    from funasr_cli.transcript import Transcript

NO_FONT = "no font on this machine has all characters of the text: install one, for example Noto Sans CJK"


def refuse_unusable(inputs: Sequence[Input], path: Path) -> None:
    """Refuse what cannot be drawn, before a model is loaded.

    Raises:
        UsageError: there are several inputs, or it can be read only once.
        FunASRError: as `check_picture` does.
    """
    from funasr_cli.audio.readers import is_pipe
    from funasr_cli.pictures import check_picture

    check_picture(path)
    if len(inputs) != 1:
        raise UsageError(f"--plot-alignment with {len(inputs)} inputs", "a picture shows a single one")
    [input] = inputs
    if input.path == STDIN or is_pipe(input.path):
        raise UsageError(f"{input.label}: can be read only once", "--plot-alignment needs a file")


class Picture:
    """The picture of an input, which is read for it first.

    Args:
        input: what is transcribed.
        recognizer: which transcribes it.
        path: of the picture.

    Raises:
        ModelError: the model has no CTC branch.
        AudioError: the input cannot be read.
        UsageError: it is too long.
    """

    def __init__(self, input: Input, recognizer: "Recognizer", path: Path):
        from funasr_cli.alignment_picture import read_short
        from funasr_cli.audio.sources import open_input

        recognizer.refuse_missing_word_times()
        self._audio = read_short(open_input(input, recognizer.sample_rate_hz))
        self._recognizer, self._path = recognizer, path

    def draw(self, transcript: "Transcript") -> None:
        """Draw it.

        Raises:
            OutputError: the file cannot be written.
        """
        from funasr_cli.alignment_picture import draw, hear

        heard = hear(self._recognizer, self._audio, transcript)
        if not draw(self._audio, transcript, heard, self._path) and self._path.suffix.lower() == ".png":
            console.warn(f"{self._path}: {NO_FONT}")
        console.note(f"wrote {self._path}")
