"""Cepstral mean and variance normalisation (CMVN), with the statistics in an ``am.mvn`` file.

Source: FunASR ``funasr/frontends/wav_frontend.py`` (``load_cmvn``, ``apply_cmvn``); the file is a Kaldi nnet in
text form. What differs: a file with unexpected components, sizes or numbers is rejected.
"""

import re
from dataclasses import dataclass

import numpy as np

# The three components, each with its sizes and values. Splice has only the frame offset 0, since the frames are
# already stacked.
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
        """Parse the content of an ``am.mvn`` file; raise a `ValueError` that describes what is wrong with it."""
        match = NNET.fullmatch(text)
        if not match:
            raise ValueError("expected the components Splice [ 0 ], AddShift and Rescale")
        with np.errstate(over="ignore"):  # infinities are rejected below
            shift, scale = (np.array(match[group].split(), dtype=np.float32) for group in (5, 8))
        sizes = {int(match[group]) for group in (1, 2, 3, 4, 6, 7)} | {len(shift), len(scale)}
        if sizes != {row_width}:
            found = ", ".join(map(str, sorted(sizes)))
            raise ValueError(f"the sizes in it are {found}, but feature rows have {row_width} values")
        if not (np.isfinite(shift).all() and np.isfinite(scale).all()):
            raise ValueError("it contains numbers that are not finite")
        return cls(shift, scale)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Normalise stacked rows (rows, row width) float32; return the same shape."""
        return (rows + self.shift) * self.scale
