"""Cepstral mean and variance normalisation, with the numbers of an ``am.mvn``.

Source: FunASR ``funasr/frontends/wav_frontend.py`` (``load_cmvn``, ``apply_cmvn``); the file is a Kaldi nnet in
text. What differs: a file of other components, sizes or numbers is refused.
"""

import re
from dataclasses import dataclass

import numpy as np

# The three components, each with its sizes and its brackets: the first holds the offsets of the frames that are
# spliced, which have been stacked already.
NNET = re.compile(
    r"<Nnet>\s*<Splice>\s+(\d+)\s+(\d+)\s+\[\s*0\s*\]"
    r"\s*<AddShift>\s+(\d+)\s+(\d+)\s+<LearnRateCoef>\s+\S+\s+\[([^\[\]<>]*)\]"
    r"\s*<Rescale>\s+(\d+)\s+(\d+)\s+<LearnRateCoef>\s+\S+\s+\[([^\[\]<>]*)\]\s*</Nnet>\s*"
)


@dataclass(frozen=True, eq=False)
class CMVN:
    """Shift and scale of each value in a feature row, (row width,) float32 each."""

    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def parse(cls, text: str, row_width: int) -> "CMVN":
        """Read the content of an ``am.mvn``; a `ValueError` says what is wrong with it."""
        match = NNET.fullmatch(text)
        if not match:
            raise ValueError("not a Splice [ 0 ], an AddShift and a Rescale")
        with np.errstate(over="ignore"):  # which is refused below
            shift, scale = (np.array(match[group].split(), dtype=np.float32) for group in (5, 8))
        sizes = {int(match[group]) for group in (1, 2, 3, 4, 6, 7)} | {len(shift), len(scale)}
        if sizes != {row_width}:
            raise ValueError(f"of size {', '.join(map(str, sorted(sizes)))}, feature rows have {row_width} values")
        if not (np.isfinite(shift).all() and np.isfinite(scale).all()):
            raise ValueError("has numbers that are not finite")
        return cls(shift, scale)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Normalise stacked rows, (rows, row width) float32 -> the same."""
        return (rows + self.shift) * self.scale
