"""What is to be measured: plain data. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from funasr_cli import transcript
from funasr_cli.options import AUTO_DRAFT, NO_DRAFT, TranscribeOptions

SYNTHETIC_TOKENS = 64  # of each segment by default: a random model would hardly ever stop
BATCHED_RECORDINGS = 32  # of `Mode.BATCHES` by default

# What is timed, and what tables call it. The parts add up.
PARTS = tuple(f"{stage}_s" for stage in transcript.STAGES)
TEXT_PARTS = PARTS[PARTS.index("ctc_s") :]  # from the CTC branch to the text: what drafts change
LABELS = {"vad_s": "VAD", "ctc_s": "CTC", "first_token_s": "first token"}
STAGES = {
    name: LABELS.get(name, name.removesuffix("_s"))
    for name in (*PARTS[:-1], "first_token_s", PARTS[-1], "total_s")
}


class Size(StrEnum):
    """Of a model with random weights."""

    FULL = "full"
    DEMO = "demo"


class Mode(StrEnum):
    """What can be measured."""

    RTF = "rtf"
    BATCHES = "batches"
    DRAFTS = "drafts"
    MEMORY = "memory"


BATCH_SIZES = {Mode.BATCHES: (1, 4, 16), Mode.DRAFTS: (1, 16)}  # by default


@dataclass(frozen=True)
class Request:
    """Models x audio x batch sizes x durations, and how to run them."""

    mode: Mode
    models: tuple[str | None, ...]  # names of converted models; None is the default one
    synthetic: tuple[Size, ...]  # models with random weights, measured with the others
    device: str | None  # None lets MLX choose
    dtype: str | None  # to compute in; None goes by the device
    audio: tuple[Path, ...]  # none takes the demo model's clips or generated ones, as suits the mode
    options: TranscribeOptions
    batch_sizes: tuple[int | None, ...]  # None goes by the memory at hand
    durations_s: tuple[float, ...]  # to which recordings are joined, or generated; empty takes them as they are
    recordings: int | None  # how many are transcribed in a run; they are repeated. None takes each once
    trials: int  # timed runs of each case, behind one that is not timed
    references: dict[str, str] | None  # texts by file name, to count errors against
    typed: Mapping[str, str]  # which options somebody has typed, as `refuse_unsupported` takes it

    @property
    def drafts(self) -> tuple[str, ...]:
        """With which of `DRAFTS` each case is run: that of the options, unless they are what is measured."""
        return (NO_DRAFT, AUTO_DRAFT) if self.mode == Mode.DRAFTS else (self.options.draft,)
