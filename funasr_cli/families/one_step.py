"""Models that read a whole segment at once: their front end, and a session whose rows end as soon as they join."""

import math
from collections.abc import Sequence
from itertools import count
from typing import Any, Generic, TypeVar

import numpy as np

from funasr_cli.compute.backend import on_accelerator
from funasr_cli.compute.memory import available_bytes
from funasr_cli.families.cmvn import read_cmvn
from funasr_cli.families.family import LoadedModel
from funasr_cli.families.frontend import FilterBankModel
from funasr_cli.languages import resolve_language
from funasr_cli.models.sanm import SANMConfig
from funasr_cli.options import MAX_SEGMENT_S, SEGMENT_S, TranscribeOptions
from funasr_cli.speech_model import Hypothesis, SegmentRequest, Update
from funasr_cli.transcript import Segment

MOST_ROWS = 16  # more rows gain little
CPU_ROWS_AT_ONCE = 4  # enough to use the CPU fully; with more, the first texts only take longer
Read = TypeVar("Read")  # what a model reads in a segment
Seconds = dict[str, float]  # by stage


class OneStepModel(FilterBankModel):
    """Base class of such models with FunASR's normalised features; see `SpeechModel`."""

    best_segment_s, longest_segment_s = SEGMENT_S, float(MAX_SEGMENT_S)
    queries = 0  # rows that precede the audio

    def __init__(self, loaded: LoadedModel):
        super().__init__(loaded)
        self.cmvn = read_cmvn(loaded.files, self.config.frontend.row_width)

    def features(self, samples: np.ndarray) -> np.ndarray:
        """Compute normalised features (rows, row width) of (samples,) at `sample_rate_hz`."""
        return self.cmvn(super().features(samples))


class OneStepSession(Generic[Read]):
    """One run of such a model with a SAN-M encoder; see `Session`."""

    def __init__(self, model: Any, options: TranscribeOptions):
        self._model, self._options = model, options
        resolve_language(options.language, model.capabilities.languages)  # raises if the language is unknown
        self.rows_at_once = MOST_ROWS if on_accelerator() else CPU_ROWS_AT_ONCE
        self.seconds: Seconds = {}
        self._rows: dict[int, tuple[SegmentRequest, TranscribeOptions, Read]] = {}
        self._numbers = count()

    def read(self, requests: Sequence[SegmentRequest], options: TranscribeOptions) -> list[Read]:
        """Read segments."""
        raise NotImplementedError

    def segment(self, request: SegmentRequest, options: TranscribeOptions, read: Read) -> Segment:
        """Return the finished segment."""
        raise NotImplementedError

    @property
    def max_rows(self) -> int:
        """Number of rows for which one layer's arrays fit into half the free memory; at most `MOST_ROWS`."""
        encoder: SANMConfig = self._model.config.encoder
        longest_s = self._options.max_segment_s or self._model.best_segment_s
        frames = self._model.queries + math.ceil(longest_s / self._model.config.frontend.row_duration_s)
        values = frames * (encoder.heads * frames + encoder.ffn_dim + 8 * encoder.width)  # scores, FFN, q k v ...
        return max(1, min(MOST_ROWS, available_bytes() // 2 // (4 * values)))

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        """Read segments as new rows and return their numbers."""
        options = requests[0].options or self._options
        read = self.read(requests, options)
        numbers = [next(self._numbers) for _ in requests]
        rows = [(request, options, each) for request, each in zip(requests, read, strict=True)]
        self._rows.update(zip(numbers, rows, strict=True))
        return numbers

    def step(self) -> list[Update]:
        """Finish all rows and return their segments."""
        segments = {number: self.segment(*row) for number, row in self._rows.items()}
        self._rows.clear()
        return [
            Update(number, hypothesis=Hypothesis(segment), counts={"tokens": segment.tokens})
            for number, segment in segments.items()
        ]

    def drop(self, row: int) -> None:
        """Remove a row, if it has not ended."""
        self._rows.pop(row, None)

    def reset(self) -> set[int]:
        """Recover from an error. All rows that have not ended are lost."""
        lost, self._rows = set(self._rows), {}
        return lost
