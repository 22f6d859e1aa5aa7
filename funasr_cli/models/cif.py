"""Continuous integrate-and-fire (CIF): where each token of a text is in the encoder's output.

Each frame has a weight. Where the sum of the weights passes a whole number, a token "fires": it is complete, and
its embedding is the weighted sum of its frames. BiCif models have a second row of weights, three for each frame,
which fire where a token begins.

NumPy computes all of this, row by row, in float32 with sums in float64: a rounding error can change the number of
tokens. There is no padding, so a row's result does not depend on its batch.

Source: FunASR ``funasr/models/paraformer/cif_predictor.py`` (``CifPredictorV2``, ``cif_v1``),
``funasr/models/bicif_paraformer/cif_predictor.py`` (``CifPredictorV3``, ``get_upsample_timestamp``) and
``funasr/utils/timestamp_tools.py`` (``ts_prediction_lfr6_standard``); Dong and Xu 2020, "CIF: Continuous
Integrate-and-Fire for End-to-End Speech Recognition", section 2. What differs: upstream's convolutions and its
LSTM also read the padding of a batch; ``CifPredictorV3`` adds up in float32 and may fire one frame away where the
sum is a whole number except for rounding; times before the start are cut off, and characters for which nothing
fires get the time that remains.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from funasr_cli.compute.backend import nn
from funasr_cli.models.lstm import LSTM, Tensors

CONTEXT = 3  # frames that a weight depends on
FIRES_FROM = 1 - 1e-4  # of the second weights
FIRST_SHIFT = -1.5  # steps from a fire to where the character begins
LONGEST_STEPS = 12  # of a character; what follows is silence
LEAST_SILENCE_STEPS = 5  # after the last fire

Span = tuple[float, float]


@dataclass(frozen=True)
class TimesConfig:
    """The second weights of a BiCif model: ``relu(smooth_factor * sigmoid - noise_threshold)``."""

    upsampling: int  # their number for each frame
    smooth_factor: float
    noise_threshold: float


@dataclass(frozen=True)
class CIFConfig:
    """Sizes of a predictor."""

    width: int
    tail_threshold: float  # weight of the frame of zeros that follows the last
    times: TimesConfig | None  # None: the model does not tell where characters begin


class Fired(NamedTuple):
    """What a predictor finds in one row."""

    weights: np.ndarray  # (frames + 1,) float32, the tail among them
    fires: np.ndarray  # (tokens,) the frames in which tokens are complete
    embeddings: np.ndarray  # (tokens, width) float32


class Predictor(nn.Module):
    """The predictor; attribute names are the checkpoint's keys."""

    def __init__(self, config: CIFConfig):
        super().__init__()
        width = config.width
        self.cif_conv1d = Tensors(weight=(width, width, CONTEXT), bias=(width,))  # PyTorch's layout: out, in, taps
        self.cif_output = Tensors(weight=(1, width), bias=(1,))
        if config.times:
            self.upsample_cnn = Tensors(weight=(width, width, config.times.upsampling), bias=(width,))  # in, out
            self.blstm = LSTM(width, suffixes=("", "_reverse"))
            self.cif_output2 = Tensors(weight=(1, 2 * width), bias=(1,))
        self._config = config

    def __call__(self, hidden: np.ndarray, tokens: int | None = None) -> Fired:
        """Find the tokens in `hidden` (frames, width).

        `tokens` is the wanted number of tokens: if another number fires, the weights are scaled.
        """
        weights = np.append(self._weights(hidden), np.float32(self._config.tail_threshold))
        if tokens is not None and np.floor(_sums(weights)[-1]) != tokens:
            weights = weights * np.float32((tokens + 0.5) / weights.sum(dtype=np.float64))
        sums = _sums(weights)  # (frames + 1,)
        before = np.concatenate([[0.0], sums[:-1]])
        fires = np.flatnonzero(np.floor(sums) > np.floor(before))
        start = np.arange(len(fires))[:, None]  # token n takes what the sums add between n and n + 1
        shares = np.clip(np.minimum(sums, start + 1) - np.maximum(before, start), 0, None)  # (tokens, frames + 1)
        return Fired(weights, fires, shares[:, :-1].astype(np.float32) @ hidden)  # the tail's frame is zeros

    def _weights(self, hidden: np.ndarray) -> np.ndarray:
        """Compute the weight of each frame, (frames,)."""
        padded = np.pad(hidden, [(CONTEXT // 2, CONTEXT // 2), (0, 0)])
        near = np.concatenate([padded[tap : tap + len(hidden)] for tap in range(CONTEXT)], axis=1)
        matrix = self.cif_conv1d.made("matrix", lambda: _by_taps(self.cif_conv1d.array("weight")))
        context = np.maximum(near @ matrix + self.cif_conv1d.array("bias"), 0)  # (frames, width)
        return _sigmoid(context @ self.cif_output.array("weight")[0] + self.cif_output.array("bias"))

    def fine_weights(self, hidden: np.ndarray, tokens: int) -> np.ndarray:
        """Compute the second weights (frames * upsampling,), which add up to the number of tokens."""
        times = self._config.times
        assert times
        kernel = self.upsample_cnn.made("matrix", lambda: _joined(self.upsample_cnn.array("weight")))
        steps = (hidden @ kernel).reshape(-1, self._config.width) + self.upsample_cnn.array("bias")
        self.blstm.cast()  # MLX in this thread, NumPy in the others
        with ThreadPoolExecutor(2) as pool:  # NumPy lets them run at the same time
            forward, backward = pool.map(self.blstm, (steps[None], steps[None, ::-1]), ("", "_reverse"))
        both = np.concatenate([forward, backward[:, ::-1]], axis=-1)[0]  # (frames * upsampling, 2 * width)
        raw = _sigmoid(both @ self.cif_output2.array("weight")[0] + self.cif_output2.array("bias"))
        found = np.maximum(raw * np.float32(times.smooth_factor) - np.float32(times.noise_threshold), 0)
        total = found.sum(dtype=np.float64)
        return found * np.float32(tokens / total) if total else found


def _sums(weights: np.ndarray) -> np.ndarray:
    """Add up in float64, and round to float32 as upstream does: then sums that are nearly whole fire."""
    return np.cumsum(weights, dtype=np.float64).astype(np.float32).astype(np.float64)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def _by_taps(kernel: np.ndarray) -> np.ndarray:
    """Turn (out, in, taps) into (taps * in, out)."""
    return np.ascontiguousarray(kernel.transpose(2, 1, 0).reshape(-1, len(kernel)))


def _joined(kernel: np.ndarray) -> np.ndarray:
    """Turn (in, out, steps) of a transposed convolution without overlaps into (in, steps * out)."""
    return np.ascontiguousarray(kernel.transpose(0, 2, 1).reshape(len(kernel), -1))


def fire_steps(weights: np.ndarray) -> np.ndarray:
    """Return the steps in which second weights fire: their sum, less what has fired, reaches `FIRES_FROM`."""
    total, threshold, found = np.float32(0), np.float32(FIRES_FROM), []
    for step, weight in enumerate(weights.astype(np.float32)):
        total += weight
        if total >= threshold:
            found.append(step)
            total -= threshold
    return np.array(found, int)


def character_spans(weights: np.ndarray, characters: int) -> list[Span]:
    """Return where each character begins and ends, in steps, by the second weights (steps,) of a row.

    Character n lasts from fire n to fire n + 1, and at most `LONGEST_STEPS`.
    """
    fires = fire_steps(weights)
    if len(fires) != characters + 1:
        scale = np.float32((characters + 1) / weights.sum(dtype=np.float64)) if weights.any() else np.float32(1)
        fires = fire_steps(weights * scale)
    steps, starts = len(weights), (fires + FIRST_SHIFT).tolist()
    last = starts[-1] if starts else 0.0
    starts += [float(steps)] * (characters + 1 - len(starts))
    spans = [
        (max(start, 0.0), max(0.0, min(following, start + LONGEST_STEPS)))
        for start, following in pairwise(starts[: characters + 1])
    ]
    if spans and spans[-1][1] == last:  # no silence after the last character
        end = (steps + last) / 2 if steps - last > LEAST_SILENCE_STEPS else float(steps)
        spans[-1] = spans[-1][0], end
    return spans
