"""Description of a measurement, as plain data. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from funasr_cli import transcript
from funasr_cli.options import AUTO_DRAFT, NO_DRAFT, TranscribeOptions

SYNTHETIC_TOKENS = 64  # default number of tokens per segment, since a random model would hardly ever stop
BATCHED_RECORDINGS = 32  # default number of recordings for `Mode.BATCHES`

# The timed stages, and their names in tables. The parts add up to the total.
PARTS = tuple(f"{stage}_s" for stage in transcript.STAGES)
TEXT_PARTS = PARTS[PARTS.index("ctc_s") :]  # from the CTC branch to the text: what drafts change
LABELS = {"vad_s": "VAD", "ctc_s": "CTC", "first_token_s": "first token"}
STAGES = {
    name: LABELS.get(name, name.removesuffix("_s"))
    for name in (*PARTS[:-1], "first_token_s", PARTS[-1], "total_s")
}


class Size(StrEnum):
    """Size of a model with random weights."""

    FULL = "full"
    QWEN4B = "qwen4b"
    DEMO = "demo"


class Mode(StrEnum):
    """Kind of measurement."""

    RTF = "rtf"
    BATCHES = "batches"
    DRAFTS = "drafts"
    MEMORY = "memory"


BATCH_SIZES = {Mode.BATCHES: (1, 4, 16), Mode.DRAFTS: (1, 16)}  # defaults


@dataclass(frozen=True)
class Request:
    """Models, audio, batch sizes and durations to combine, and how to run them."""

    mode: Mode
    models: tuple[str | None, ...]  # names of converted models; None is the default model
    synthetic: tuple[Size, ...]  # further models, with random weights
    device: str | None  # None lets MLX choose
    dtype: str | None  # type to compute in, as `load_model` takes it
    engine: str  # what computes the model, as `load_model` takes it
    optional: frozenset[str]  # "dtype", "engine": defaults that are ignored for a model that they do not suit
    audio: tuple[Path, ...]  # if empty, the demo clips or generated noise, depending on the mode
    options: TranscribeOptions
    batch_sizes: tuple[int | None, ...]  # None derives the size from the available memory
    durations_s: tuple[float, ...]  # join or generate recordings of these lengths; if empty, use them unchanged
    recordings: int | None  # number of recordings in a run, repeated as needed; None uses each once
    trials: int  # timed runs of each case, after an untimed one
    references: dict[str, str] | None  # reference texts by file name, to compute error rates
    typed: Mapping[str, str]  # options given on the command line, in the form that `refuse_unsupported` uses

    @property
    def drafts(self) -> tuple[str, ...]:
        """Draft settings that each case is run with: all if drafts are measured, else the one in the options."""
        return (NO_DRAFT, AUTO_DRAFT) if self.mode == Mode.DRAFTS else (self.options.draft,)
