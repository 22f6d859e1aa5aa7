"""A run of FunASR-Qwen4B: batched decoding of segments, each perhaps with a translation.

Source: OminiX-MLX ``funasr-qwen4b-mlx/src/model.rs``. What differs: no text is cut by lists of phrases or for
repeated blocks. A loop ends a text as in every model here, and a text that repeats its instruction is decoded
again in halves and marked as doubtful.
"""

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from funasr_cli.capabilities import BEST_EFFORT
from funasr_cli.decoding.row_text import RowText
from funasr_cli.decoding.stopping import StopReason, stopping_criteria
from funasr_cli.decoding.text import (
    FIRST_THINK,
    WHITE_SPACE,
    TextStream,
    settled_written_text,
    thinking,
    written_text,
)
from funasr_cli.families.funasr_qwen4b.config import QUERIES
from funasr_cli.families.funasr_qwen4b.prompt import ECHOES, FORMATS, TRANSCRIBE, TRANSLATE, budget
from funasr_cli.families.rows import DecoderSession, Row
from funasr_cli.options import ENGLISH, TranscribeOptions
from funasr_cli.speech_model import Hypothesis, SegmentRequest
from funasr_cli.transcript import Translation

if TYPE_CHECKING:
    from funasr_cli.families.funasr_qwen4b.model import Qwen4BModel

# What is done with the text. All rows share the sampling and the longest segment.
ROW_OPTIONS: tuple[str, ...] = (
    "language", "itn", "max_tokens", "exact_tokens", "confidence", "translate", *BEST_EFFORT,
)  # fmt: skip


class Qwen4BSession(DecoderSession[Row]):
    """A batch of segments on the decoder; see `Session`. A row may have a second text, its translation."""

    def __init__(self, model: "Qwen4BModel", options: TranscribeOptions):
        super().__init__(model.network.llm, options)
        self._model = model

    def _row_bytes(self) -> int:
        model, total = self._model, 0
        longest_s = self._options.max_segment_s or model.best_segment_s
        audio_rows = ceil(longest_s / model.config.frontend.row_duration_s) + len(QUERIES)
        for task, texts in FORMATS[model.config.prompt_format].items():  # any row may be translated
            text_tokens = sum(len(model.token_ids(text)) for text in texts)
            total += model.network.llm.row_bytes(text_tokens + audio_rows + budget(longest_s, task))
        return total

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        """Encode segments, and prefill the prompts of all their texts; return the row numbers."""
        model, options = self._model, requests[0].options or self._options
        with self._timed("features"):
            features = [model.features(request.audio.samples) for request in requests]
        with self._timed("encoder"):
            encoded = model.encoded(features)
        tasks = (TRANSCRIBE, TRANSLATE) if options.translate else (TRANSCRIBE,)
        with self._timed("prefill"):
            prompts = model.task_prompts(encoded, tasks)
            numbers = self._decoder.add([prompt for of_task in prompts for prompt in of_task])
        rows = [Row(request, options) for request in requests]
        for number, (task, row) in zip(numbers, ((task, row) for task in tasks for row in rows), strict=True):
            most = budget(row.request.audio.duration_s, task)
            stopping = stopping_criteria(options, model.config.stop_token_ids, most)
            row.parts[number] = RowText(TextStream(model.spell, settle=settled_line), stopping)
        return self._join(rows)

    def _hypothesis(self, row: Row) -> Hypothesis:
        part, *others = row.texts
        text, block = in_a_line(written_text(part.raw)), FIRST_THINK.match(part.raw)
        repeats_instruction = part.reason == StopReason.EOS and any(echo in text for echo in ECHOES)
        translation = None
        if others:
            english = in_a_line(written_text(others[0].raw))
            stop_reason = "empty" if text and not english else str(others[0].reason)
            translation = Translation(english, ENGLISH, (), others[0].mean_logprob, stop_reason)
        segment = row.segment(
            text,
            thinking=thinking(block[0]) if block else "",
            translation=translation,
            doubtful=repeats_instruction,
        )
        return Hypothesis(segment, retry_may_help=part.stopping.worth_retrying(row.reason, repeats_instruction))


def in_a_line(text: str) -> str:
    """Return a text with a space in place of each run of white space."""
    return WHITE_SPACE.sub(" ", text)


def settled_line(raw: str) -> str:
    """Return the part of a text in a line that no further token can change."""
    return in_a_line(settled_written_text(raw))
