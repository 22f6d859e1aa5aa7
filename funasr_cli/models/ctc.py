"""CTC head on the CTC decoder's output, and the text that its best path spells.

Source: FunASR ``funasr/models/fun_asr_nano/ctc.py`` and ``model.py`` (``inference_llm``); Graves et al. 2006,
"Connectionist Temporal Classification", section 3.2 (best path decoding).
"""

from dataclasses import dataclass

import numpy as np

from funasr_cli.backend import mx, nn
from funasr_cli.models.adaptor import AdaptorConfig
from funasr_cli.models.layers import linear

FRAMES_AT_ONCE = 128  # a frame's logits are 240 kB in the release


@dataclass(frozen=True)
class CTCConfig:
    """The CTC branch: a decoder of the adaptor's shape and a head."""

    decoder: AdaptorConfig
    vocab_size: int
    blank_id: int


class CTCHead(nn.Module):
    """Linear layer from the CTC decoder's width to the CTC vocabulary."""

    def __init__(self, width: int, vocab_size: int):
        super().__init__()
        self.ctc_lo = linear(width, vocab_size)

    def logits(self, x: mx.array) -> mx.array:
        """(..., width) -> (..., vocab), float32."""
        return self.ctc_lo(x.astype(self._dtype)).astype(mx.float32)

    def best(self, x: mx.array) -> np.ndarray:
        """(frames, width) -> (frames,), the likeliest label of each frame."""
        parts = [self.logits(part).argmax(axis=-1) for part in _in_parts(x)]
        return np.concatenate([np.array(part) for part in parts])

    def log_totals(self, x: mx.array) -> np.ndarray:
        """(frames, width) -> (frames,), what a frame's logits exceed its log-probabilities by."""
        return np.concatenate([_logsumexp(np.array(self.logits(part))) for part in _in_parts(x)])

    def logits_of(self, x: mx.array, labels: list[int]) -> np.ndarray:
        """(frames, width) -> (frames, labels), of these labels alone."""
        rows = mx.array(labels)
        logits = x.astype(self._dtype) @ self.ctc_lo.weight[rows].T + self.ctc_lo.bias[rows]
        return np.array(logits.astype(mx.float32))

    @property
    def _dtype(self) -> mx.Dtype:
        return self.ctc_lo.bias.dtype


def _in_parts(x: mx.array) -> list[mx.array]:
    """(frames, width) in parts whose logits are not too much memory."""
    return [x[start : start + FRAMES_AT_ONCE] for start in range(0, x.shape[0], FRAMES_AT_ONCE)]


def _logsumexp(logits: np.ndarray) -> np.ndarray:
    """(frames, vocab) -> (frames,); NumPy computes sixteen exponentials at a time on x86, MLX one."""
    highest = logits.max(axis=-1)
    with np.errstate(invalid="ignore"):  # what is not finite stays so
        return highest + np.log(np.exp(logits - highest[:, None]).sum(axis=-1))


def best_path(frame_ids: list[int], blank_id: int) -> list[int]:
    """Collapse the best label of each frame: repeats merged, blanks removed."""
    previous = [blank_id, *frame_ids]
    return [now for now, before in zip(frame_ids, previous, strict=False) if now not in (before, blank_id)]
