"""CTC head on the CTC decoder's output, and the text that its best path spells.

Source: FunASR ``funasr/models/fun_asr_nano/ctc.py`` and ``model.py`` (``inference_llm``); Graves et al. 2006,
"Connectionist Temporal Classification", section 3.2 (best path decoding).
"""

from dataclasses import dataclass

from funasr_cli.backend import mx, nn
from funasr_cli.models.adaptor import AdaptorConfig
from funasr_cli.models.layers import linear


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

    def __call__(self, x: mx.array) -> mx.array:
        """(batch, frames, width) -> (batch, frames, vocab) log-probabilities, float32."""
        logits = self.ctc_lo(x.astype(self.ctc_lo.weight.dtype)).astype(mx.float32)
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def best_path(frame_ids: list[int], blank_id: int) -> list[int]:
    """Collapse the best label of each frame: repeats merged, blanks removed."""
    previous = [blank_id, *frame_ids]
    return [now for now, before in zip(frame_ids, previous, strict=False) if now not in (before, blank_id)]
