"""CTC: the head on the CTC decoder's output, best path decoding and forced alignment.

Source: FunASR ``funasr/models/fun_asr_nano/ctc.py`` and ``model.py`` (``inference_llm``); Graves et al. 2006,
"Connectionist Temporal Classification", sections 3.2 (best path decoding), 3.1 and 4.1 (the label sequence with
blanks around each label, and its allowed transitions), with the maximum over paths instead of their sum;
``torchaudio.functional.forced_align``, which FunASR calls in ``funasr/models/fun_asr_nano/tools/utils.py``. What
differs from torchaudio: labels that do not fit raise an error instead of giving an empty list, NaN is rejected,
and among equally likely paths the one that stays longest in a state wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from funasr_cli.compute.backend import mx, nn
from funasr_cli.models.adaptor import AdaptorConfig
from funasr_cli.models.layers import linear

BLANK = -1  # in a path: the frame has no label
FRAMES_AT_ONCE = 128  # one frame's logits take 240 kB in the release


class AlignmentError(ValueError):
    """No path through the frames spells the labels."""


def align(log_probs: np.ndarray, labels: Sequence[int] | np.ndarray, blank: int) -> np.ndarray:
    """Find the likeliest path that spells the labels (Viterbi).

    At each frame, the path stays in its state, moves to the next one, or skips a blank between different labels.

    Args:
        log_probs: (frames, classes) log-probabilities.
        labels: the class of each label, never the blank.
        blank: the class of the blank.

    Returns:
        (frames,) index of each frame's label in `labels`, or `BLANK` if it has none.

    Raises:
        AlignmentError: there are too few frames for the labels, a log-probability is NaN or infinite (-inf is
            allowed and means impossible), or every path is impossible.
    """
    classes = np.full(2 * len(labels) + 1, blank)  # (states,): blank, label, blank, label, ... blank
    classes[1::2] = labels
    equal = classes[3::2] == classes[1:-2:2]  # equal neighbours, which need a blank between them
    needed = len(labels) + int(equal.sum())
    if len(log_probs) < needed:
        raise AlignmentError(f"{len(labels)} labels need {needed} frames, there are {len(log_probs)}")
    if not len(log_probs):
        return np.zeros(0, int)
    back, final = _forward(log_probs, classes, equal)
    ends = final[-2:]  # the last label, and the blank after it
    if not np.isfinite(ends.max()):
        raise AlignmentError("no path is possible")
    state = len(classes) - len(ends) + int(ends.argmax())
    states = np.empty(len(back), int)  # the best path, filled from its end
    for frame in range(len(back) - 1, -1, -1):
        states[frame] = state
        state -= int(back[frame, state])
    return np.where(states % 2, states // 2, BLANK)


def _forward(log_probs: np.ndarray, classes: np.ndarray, equal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the best path to each state.

    Returns:
        (frames, states) number of states that the path advanced by at each frame, and (states,) its final score.
    """
    frames, states = len(log_probs), len(classes)
    no_skip = np.ones(max(states - 2, 0), bool)  # (states - 2,), from the third state on
    no_skip[1::2] = equal
    back = np.zeros((frames, states), np.int8)  # one byte each: 5,000 frames and 2,500 labels take 25 MB
    scores = np.full(states, -np.inf)
    scores[:2] = 0.0  # a path starts with a blank or the first label
    for frame, row in enumerate(log_probs):
        if frame:
            stayed = scores
            scores = stayed.copy()
            _improve(scores[1:], back[frame, 1:], stayed[:-1], 1)
            _improve(scores[2:], back[frame, 2:], np.where(no_skip, -np.inf, stayed[:-2]), 2)
        emitted = row[classes].astype(np.float64)
        if np.isnan(emitted).any() or emitted.max() == np.inf:
            raise AlignmentError(f"frame {frame} has log-probabilities that are not finite")
        scores += emitted
    return back, scores


def _improve(scores: np.ndarray, steps: np.ndarray, others: np.ndarray, step: int) -> None:
    """Replace scores and steps, in place, wherever the other path to a state is better."""
    better = others > scores
    scores[better] = others[better]
    steps[better] = step


@dataclass(frozen=True)
class CTCConfig:
    """Sizes of the CTC branch: a decoder with the adaptor's architecture, and a head."""

    decoder: AdaptorConfig
    vocab_size: int
    blank_id: int


class CTCHead(nn.Module):
    """Linear layer from the CTC decoder's width to the CTC vocabulary."""

    def __init__(self, width: int, vocab_size: int):
        super().__init__()
        self.ctc_lo = linear(width, vocab_size)

    def logits(self, x: mx.array) -> mx.array:
        """Compute logits (..., vocab) float32 from `x` (..., width)."""
        return self.ctc_lo(x.astype(self._dtype)).astype(mx.float32)

    def best(self, x: mx.array) -> np.ndarray:
        """Return the likeliest label of each frame, (frames,), from `x` (frames, width)."""
        parts = [self.logits(part).argmax(axis=-1) for part in _in_parts(x)]
        return np.concatenate([np.array(part) for part in parts])

    def log_totals(self, x: mx.array) -> np.ndarray:
        """Return the log normaliser of each frame, (frames,), from `x` (frames, width).

        Subtracted from a frame's logits, it gives log-probabilities.
        """
        return np.concatenate([_logsumexp(np.array(self.logits(part))) for part in _in_parts(x)])

    def logits_of(self, x: mx.array, labels: list[int]) -> np.ndarray:
        """Compute only the logits of these labels, (frames, labels), from `x` (frames, width)."""
        rows, head = mx.array(labels), self.ctc_lo
        weight = head.weight[rows]  # (labels, width), or packed
        if isinstance(head, nn.QuantizedLinear):
            scales, biases = head.scales[rows], head.biases[rows]
            weight = mx.dequantize(weight, scales, biases, group_size=head.group_size, bits=head.bits)
        logits = x.astype(self._dtype) @ weight.T + head.bias[rows]
        return np.array(logits.astype(mx.float32))

    @property
    def _dtype(self) -> mx.Dtype:
        return self.ctc_lo.bias.dtype


def _in_parts(x: mx.array) -> list[mx.array]:
    """Split (frames, width) into parts, to bound the memory that their logits take."""
    return [x[start : start + FRAMES_AT_ONCE] for start in range(0, x.shape[0], FRAMES_AT_ONCE)]


def _logsumexp(logits: np.ndarray) -> np.ndarray:
    """Reduce (frames, vocab) to (frames,), with NumPy: on x86, MLX does not vectorise exponentials."""
    highest = logits.max(axis=-1)
    with np.errstate(invalid="ignore"):  # NaN and infinities propagate
        return highest + np.log(np.exp(logits - highest[:, None]).sum(axis=-1))


def best_path(frame_ids: list[int], blank_id: int) -> list[int]:
    """Collapse the best label of each frame: merge repeats, then remove blanks."""
    previous = [blank_id, *frame_ids]
    return [now for now, before in zip(frame_ids, previous, strict=False) if now not in (before, blank_id)]
