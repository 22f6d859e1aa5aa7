"""The CTC branch's own reading of a segment: the text of its best path, and its posteriors.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``inference_llm``).
"""

from functools import cached_property
from itertools import groupby

import numpy as np

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.text import clean_text
from funasr_cli.models.ctc import CTCHead, best_path
from funasr_cli.vocabulary import CTCVocabulary


class CTCReading:
    """What the CTC branch makes of its decoder's output for one segment, (frames, width) `hidden`, not padded."""

    def __init__(
        self, head: CTCHead, hidden: mx.array, vocabulary: CTCVocabulary, blank_id: int, frame_duration_s: float
    ):
        self._head, self._hidden = head, hidden
        self.vocabulary, self.blank_id, self.frame_duration_s = vocabulary, blank_id, frame_duration_s
        self.frame_ids: list[int] = head.best(hidden).tolist()  # the likeliest label of each frame
        self.token_ids = best_path(self.frame_ids, blank_id)  # repeats merged and blanks removed
        self.text = clean_text(vocabulary.decode(self.token_ids))  # as the decoder's text is cleaned

    def log_probs(self, labels: list[int]) -> np.ndarray:
        """(frames, labels) log-probabilities of these labels alone: all of them would be 240 kB a frame."""
        return self._head.logits_of(self._hidden, labels) - self._log_totals[:, None]

    def token_logprobs(self) -> list[float]:
        """Log-probability of each token of the best path, at the frame where it is likeliest."""
        classes = sorted(set(self.token_ids))
        log_probs = self.log_probs(classes) if classes else np.zeros((0, 0))  # (frames, classes)
        runs = groupby(enumerate(self.frame_ids), key=lambda frame: frame[1])  # of frames with the same label
        return [
            min(0.0, max(float(log_probs[frame, classes.index(label)]) for frame, _ in run))  # a sum may round up
            for label, run in runs
            if label != self.blank_id
        ]

    @cached_property
    def _log_totals(self) -> np.ndarray:
        return self._head.log_totals(self._hidden)  # (frames,)
