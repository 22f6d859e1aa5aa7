"""Draw and save pictures with matplotlib: file checks, fonts, and atomic writes."""

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.errors import OutputError, SetupError, UsageError
from funasr_cli.extras import to_add
from funasr_cli.writers import refuse_name, refuse_unwritable, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
OTHER_NAME = "name another file"
# Fallback fonts for Chinese, Japanese and Korean, which matplotlib's own font lacks. Those installed are used.
CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Noto Sans CJK JP", "PingFang SC", "PingFang HK",
    "Hiragino Sans GB", "Hiragino Sans", "Heiti TC", "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "Apple SD Gothic Neo", "Malgun Gothic", "Arial Unicode MS",
)  # fmt: skip
OWN_FONT = "DejaVu Sans"
STYLE = {"svg.fonttype": "none", "text.parse_math": False}  # keep text as text, and never parse it as a formula


def check_picture(path: Path, *, replace: bool = False, hint: str = OTHER_NAME) -> None:
    """Fail early if a picture cannot be written. ``hint`` is shown if the file already exists.

    Raises:
        UsageError: the file name extension is unsupported.
        OutputError: the file already exists or cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        message, choice = f"{path}: unsupported picture format", f"choose from {', '.join(SUFFIXES)}"
        raise UsageError(message, choice, code="option-value")
    if os.path.lexists(path) and not replace and not path.is_dir():
        raise OutputError(f"{path}: already exists", hint, code="output-exists")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder", "create it first", code="output-unwritable")
    refuse_unwritable(path.parent, OTHER_NAME)
    refuse_name(path)


def require_matplotlib() -> None:
    """Raise a SetupError if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        message = f"drawing pictures needs matplotlib ({error})"
        raise SetupError(message, to_add("plot"), code="package-missing") from error


@contextmanager
def drawing() -> Iterator[list[warnings.WarningMessage]]:
    """Set up text and fonts for drawing; yield a list that collects matplotlib's warnings."""
    from matplotlib import font_manager, rc_context

    logging.getLogger(font_manager.__name__).setLevel(logging.ERROR)  # hide warnings about missing font weights
    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [OWN_FONT, *(name for name in CJK_FONTS if name in installed)]
    with rc_context({**STYLE, "font.family": fonts}), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        yield warned


def save(figure: "Figure", path: Path, dpi: float | None = None, *, replace: bool = False) -> None:
    """Write a picture atomically; raise an OutputError if it already exists or cannot be written."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.lower().removeprefix("."), dpi=dpi or "figure")
    try:
        write_whole(path, content.getvalue(), replace=replace)
    except FileExistsError as error:  # another process created it in the meantime
        raise OutputError(f"{path}: already exists", OTHER_NAME, code="output-exists") from error
