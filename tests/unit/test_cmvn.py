"""CMVN: read from an ``am.mvn``, and applied to feature rows."""

import numpy as np
import pytest
from support.sense_voice import cmvn_text

from funasr_cli.features.cmvn import CMVN

SHIFT, SCALE = np.array([-8.5, 0.25, 3.0]), np.array([0.5, 2.0, -1.0])
TEXT = cmvn_text(SHIFT, SCALE)


def test_shifted_and_then_scaled() -> None:
    rows = np.array([[8.5, 0.75, 1.0], [0.0, 0.0, 0.0]], np.float32)
    normalised = CMVN.parse(TEXT, 3)(rows)
    assert normalised.dtype == np.float32
    assert np.array_equal(normalised, [[0.0, 2.0, -4.0], [-4.25, 0.5, -3.0]])


@pytest.mark.parametrize("text", [TEXT.replace("\n", "\r\n"), TEXT.strip(), " ".join(TEXT.split())])
def test_white_space_does_not_matter(text: str) -> None:
    assert np.array_equal(CMVN.parse(text, 3).shift, SHIFT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT.replace("[ 0 ]", "[ 1 ]"),  # a splice of several frames
        TEXT.replace("[ 0 ]", ""),
        TEXT.replace("<Splice> 3 3", "<Splice> 1 3"),
        TEXT.replace("<AddShift> 3 3", "<AddShift> 3 4"),
        TEXT.replace("<AddShift>", "<Rescale>"),
        TEXT.replace("-8.5 ", ""),
        TEXT.replace("-8.5 ", "-8.5 1 "),
        TEXT.replace("-8.5 ", "nan "),
        TEXT.replace("-8.5 ", "1e39 "),
        TEXT.replace("-8.5 ", "x "),
        TEXT.replace("</Nnet>", "<Rescale> 3 3"),
        TEXT[: len(TEXT) // 2],
        TEXT + TEXT,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        CMVN.parse(text, 3)


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="4 values"):
        CMVN.parse(TEXT, 4)
