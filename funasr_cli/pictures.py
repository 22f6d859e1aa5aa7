"""Pictures drawn by matplotlib: what can be drawn and where, and in which type."""

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.errors import OutputError, SetupError, UsageError
from funasr_cli.writers import refuse_name, refuse_unwritable, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
OTHER_NAME = "name another file"
# Whichever of these a machine has is taken for what matplotlib's own font lacks: Chinese, Japanese, Korean.
CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Noto Sans CJK JP", "PingFang SC", "PingFang HK",
    "Hiragino Sans GB", "Hiragino Sans", "Heiti TC", "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "Apple SD Gothic Neo", "Malgun Gothic", "Arial Unicode MS",
)  # fmt: skip
OWN_FONT = "DejaVu Sans"
STYLE = {"svg.fonttype": "none", "text.parse_math": False}  # texts stay texts, whatever characters are in them


def check_picture(path: Path, *, replace: bool = False, hint: str = OTHER_NAME) -> None:
    """Refuse what could not be drawn, before anything is computed; the hint is for a file that exists already.

    Raises:
        UsageError: another kind of file.
        OutputError: it exists already, or cannot be written.
        SetupError: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        message, choice = f"{path}: not a picture that can be drawn", f"choose from {', '.join(SUFFIXES)}"
        raise UsageError(message, choice, code="option-value")
    if os.path.lexists(path) and not replace and not path.is_dir():
        raise OutputError(f"{path}: exists already", hint, code="output-exists")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder", "make it first", code="output-unwritable")
    refuse_unwritable(path.parent, OTHER_NAME)
    refuse_name(path)
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        message = f"pictures are drawn by matplotlib ({error})"
        raise SetupError(message, "pip install 'funasr-cli[plot]'", code="package-missing") from error


@contextmanager
def drawing() -> Iterator[list[warnings.WarningMessage]]:
    """Within it, text is drawn as it is, in all fonts that there are; yields what matplotlib warns of."""
    from matplotlib import font_manager, rc_context

    logging.getLogger(font_manager.__name__).setLevel(logging.ERROR)  # no word about weights that a font lacks
    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [OWN_FONT, *(name for name in CJK_FONTS if name in installed)]
    with rc_context({**STYLE, "font.family": fonts}), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        yield warned


def save(figure: "Figure", path: Path, dpi: float | None = None, *, replace: bool = False) -> None:
    """Write a picture, whole or not at all; raise an OutputError if it exists already or cannot be written."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.lower().removeprefix("."), dpi=dpi or "figure")
    try:
        write_whole(path, content.getvalue(), replace=replace)
    except FileExistsError as error:  # somebody made it meanwhile
        raise OutputError(f"{path}: exists already", OTHER_NAME, code="output-exists") from error
