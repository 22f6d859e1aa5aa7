"""The results of a run: numbers for each input, the summary line, the exit code."""

import math
import time
from collections import Counter
from dataclasses import dataclass, field

from funasr_cli.errors import ExitCode
from funasr_cli.formats import clock
from funasr_cli.scheduling.events import Event, Failed, Finished
from funasr_cli.transcript import Ledger

LOST = "the text of unfinished inputs is lost; with --stream, it appears while it is decoded"
LOW_DBFS = -45.0  # the peak of speech is rarely lower; voice activity detection misses most speech below it


def is_low(level_dbfs: float | None) -> bool:
    """Return whether a recording has sound, but is too quiet for voice activity detection."""
    return level_dbfs is not None and level_dbfs < LOW_DBFS


def no_speech(level_dbfs: float | None) -> str:
    """Return the message that no speech was found, and what to try."""
    if is_low(level_dbfs):
        return (
            f"no speech found: the peak level is only {level_dbfs:.0f} dBFS; amplify it, or lower --vad-threshold"
        )
    if level_dbfs is None:
        return "no speech found: there is no sound at all"
    return "no speech found; if there should be some, lower --vad-threshold, or try --no-vad or --channels split"


def speed(audio_s: float, taken_s: float) -> str:
    """Describe the speed as a multiple of real time."""
    times = audio_s / max(taken_s, 1e-3)
    return f"{times:.{1 if times < 100 else 0}f}x real time"


@dataclass(frozen=True)
class Row:
    """The result of one input."""

    source: int  # index of the input
    state: str  # "done", "silent", "incomplete" or "failed"
    complete: bool = False
    duration_s: float = 0.0
    segments: int = 0
    states: Counter[str] = field(default_factory=Counter)  # segments by state; "doubtful", "untranslated" again
    ledger: Ledger = field(default_factory=Ledger)
    level_dbfs: float | None = None


@dataclass
class Outcome:
    """The results of all inputs so far."""

    failed: set[int] = field(default_factory=set)  # inputs without a result, or with no complete segment in it
    skipped: int = 0  # inputs whose results existed already
    incomplete: int = 0  # skipped inputs whose results are incomplete
    rows: list[Row] = field(default_factory=list)  # one for each finished input, in the order of finishing
    started: float = field(default_factory=time.perf_counter)

    def add(self, event: Event) -> None:
        """Count a finished or failed input; ignore other events."""
        if isinstance(event, Failed):
            self.failed.add(event.source)
            self.rows.append(Row(event.source, "failed"))
        elif isinstance(event, Finished):
            transcript, segments = event.transcript, event.transcript.segments
            self.failed |= {event.source} if transcript.broken else set()
            state = "incomplete" if not transcript.complete else "done" if segments else "silent"
            states = Counter(segment.state for segment in segments)
            states["doubtful"] = sum(segment.doubtful for segment in segments)
            states["untranslated"] = sum(segment.untranslated for segment in segments)
            self.rows.append(
                Row(
                    event.source, "failed" if event.source in self.failed else state, transcript.complete,
                    transcript.duration_s, len(segments), states, transcript.ledger, transcript.level_dbfs,
                )
            )  # fmt: skip

    def exit_code(self, *, strict: bool) -> ExitCode:
        """Return the code of the most serious outcome. Silence counts only if no input contains speech."""
        partial = self.incomplete > 0 or any(not row.complete for row in self.rows)
        if self.failed or (strict and partial):
            return ExitCode.INPUT_FAILED
        if partial:
            return ExitCode.PARTIAL
        is_silent = not self.skipped and all(row.state == "silent" for row in self.rows)
        return ExitCode.NO_SPEECH if is_silent else ExitCode.OK

    def summary(self) -> str:
        """Return one line with the ledger of all inputs; empty for a single input that could not be read."""
        failed, ledger = len(self.failed), sum((row.ledger for row in self.rows), Ledger())
        states = sum((row.states for row in self.rows), Counter[str]())
        which = "the input" if len(self.rows) == 1 else f"{failed} of {len(self.rows)} inputs"
        parts = [f"{which} failed"] if failed and not self.is_unreadable else []
        if ledger.speech_s:
            share = math.floor(ledger.done_share * 1000 + 1e-9) / 10  # rounded down: 100% is really everything
            facts = [f"{share:.1f}% of {clock(ledger.speech_s)} of speech transcribed"]
            for state in ("repaired", "failed", "doubtful"):
                if count := states[state]:
                    facts.append(f"{count} segment{'s' * (count != 1)} {state}")
            if count := states["untranslated"]:
                facts.append(f"{count} translation{'s' * (count != 1)} incomplete")
            if ledger.failed_s:
                facts.append(f"{clock(ledger.failed_s)} of audio failed")
            parts.append(", ".join(facts))
        elif len(self.rows) > failed:
            levels = [row.level_dbfs for row in self.rows if row.state == "silent"]
            parts.append(no_speech(max((level for level in levels if level is not None), default=None)))
        return "; ".join(parts)

    def interruption(self, inputs: int, *, to_files: bool, stream: bool) -> str:
        """Return what to add to the message that a run was interrupted: what is done, and what is lost."""
        if to_files and self.rows:
            return f": {len(self.rows)} of {inputs} inputs are done; --resume continues with the others"
        return "" if stream or len(self.rows) == inputs else f": {LOST}"

    @property
    def is_unreadable(self) -> bool:
        """Whether the only input could not be read. Its error message says everything."""
        return len(self.rows) == 1 and self.rows[0].state == "failed" and not self.rows[0].duration_s

    def costs(self) -> str:
        """Return the length of all audio, the time taken and the speed, in words."""
        audio_s, taken_s = sum(row.duration_s for row in self.rows), time.perf_counter() - self.started
        taken = clock(taken_s) if taken_s >= 60 else f"{taken_s:.1f} s"
        return f"{clock(audio_s)} of audio in {taken}" + (f", {speed(audio_s, taken_s)}" if audio_s else "")
