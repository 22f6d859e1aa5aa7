"""The CTC branch's own reading of a segment: the text of its best path, and its posteriors.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``inference_llm``).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from funasr_cli.backend import mx
from funasr_cli.decoding.text import clean_text
from funasr_cli.models.ctc import CTCHead, best_path
from funasr_cli.vocabulary import CTCVocabulary


@dataclass(frozen=True, eq=False)
class CTCReading:
    """What the CTC branch makes of one segment.

    Attributes:
        text: what its best path spells, cleaned as the decoder's text is.
        frame_ids: the likeliest label of each frame.
        blank_id: the label that says nothing.
        frame_duration_s: seconds from one frame to the next.
    """

    text: str
    frame_ids: list[int]
    blank_id: int
    frame_duration_s: float
    _hidden: mx.array  # (frames, width) behind the CTC decoder
    _head: CTCHead

    @property
    def token_ids(self) -> list[int]:
        """Labels of the best path, repeats merged and blanks removed."""
        return best_path(self.frame_ids, self.blank_id)

    def log_probs(self, labels: list[int]) -> np.ndarray:
        """(frames, labels) log-probabilities of these labels alone: all of them would be 240 kB a frame."""
        return self._head.logits_of(self._hidden, labels) - self._log_totals[:, None]

    @cached_property
    def _log_totals(self) -> np.ndarray:
        return self._head.log_totals(self._hidden)  # (frames,)


def read_ctc(
    head: CTCHead, hidden: mx.array, vocabulary: CTCVocabulary, blank_id: int, frame_duration_s: float
) -> CTCReading:
    """The reading of one segment.

    Args:
        head: of the CTC branch.
        hidden: (frames, width), the CTC decoder's output, without padding.
        vocabulary: of its labels.
        blank_id: the label that says nothing.
        frame_duration_s: seconds from one frame to the next.
    """
    frame_ids = head.best(hidden).tolist()
    text = clean_text(vocabulary.decode(best_path(frame_ids, blank_id)))
    return CTCReading(text, frame_ids, blank_id, frame_duration_s, hidden, head)
