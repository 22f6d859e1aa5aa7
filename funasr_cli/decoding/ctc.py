"""The CTC branch's output for a segment: the text of its best path, and its posteriors.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``inference_llm``).
"""

from functools import cached_property
from itertools import groupby

import numpy as np

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.text import clean_text
from funasr_cli.models.ctc import CTCHead, best_path
from funasr_cli.native.networks import NativeCTCHead
from funasr_cli.vocabulary import CTCVocabulary


class CTCReading:
    """The CTC branch's output for one segment, from its decoder's output `hidden` (frames, width), not padded."""

    def __init__(
        self,
        head: CTCHead | NativeCTCHead,
        hidden: mx.array | np.ndarray,
        vocabulary: CTCVocabulary,
        blank_id: int,
        frame_duration_s: float,
    ):
        self._head, self._hidden = head, hidden
        self.vocabulary, self.blank_id, self.frame_duration_s = vocabulary, blank_id, frame_duration_s
        self.frame_ids: list[int] = head.best(hidden).tolist()  # the likeliest label of each frame
        self.token_ids = best_path(self.frame_ids, blank_id)  # repeats merged and blanks removed
        self.text = clean_text(vocabulary.decode(self.token_ids))  # cleaned like the decoder's text

    def log_probs(self, labels: list[int]) -> np.ndarray:
        """Return the log-probabilities of these labels only, (frames, labels): all would take 240 kB a frame."""
        return self._head.logits_of(self._hidden, labels) - self._log_totals[:, None]

    def token_logprobs(self) -> list[float]:
        """Return the log-probability of each token of the best path, at its likeliest frame."""
        classes = sorted(set(self.token_ids))
        log_probs = self.log_probs(classes) if classes else np.zeros((0, 0))  # (frames, classes)
        runs = groupby(enumerate(self.frame_ids), key=lambda frame: frame[1])  # frames with the same label
        return [
            min(0.0, max(float(log_probs[frame, classes.index(label)]) for frame, _ in run))  # rounded, may be > 0
            for label, run in runs
            if label != self.blank_id
        ]

    @cached_property
    def _log_totals(self) -> np.ndarray:
        return self._head.log_totals(self._hidden)  # (frames,)
