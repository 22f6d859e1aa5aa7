"""Pictures drawn by matplotlib: what can be drawn and where, and in which type."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.errors import OutputError, SetupError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
# Whichever of these a machine has is taken for what matplotlib's own font lacks: Chinese, Japanese, Korean.
CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Noto Sans CJK JP", "PingFang SC", "PingFang HK",
    "Hiragino Sans GB", "Hiragino Sans", "Heiti TC", "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "Apple SD Gothic Neo", "Malgun Gothic", "Arial Unicode MS",
)  # fmt: skip
OWN_FONT = "DejaVu Sans"
STYLE = {"svg.fonttype": "none", "text.parse_math": False}  # texts stay texts, whatever characters are in them


def check_picture(path: Path) -> None:
    """Refuse what could not be drawn, before anything is computed.

    Raises:
        UsageError: another kind of file.
        OutputError: it exists already, or its folder does not.
        SetupError: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: not a picture that can be drawn", f"choose from {', '.join(SUFFIXES)}")
    if path.exists():
        raise OutputError(f"{path}: exists already", "name another file")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder", "make it first")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SetupError(
            f"pictures are drawn by matplotlib ({error})", "install it: pip install matplotlib"
        ) from error


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


def save(figure: "Figure", path: Path, dpi: float | None = None) -> None:
    """Write a picture.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=dpi or "figure")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error})") from error
