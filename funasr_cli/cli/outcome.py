"""What came of all inputs together: the summary line, the numbers of each, and the exit code."""

import math
import time
from collections import Counter
from dataclasses import dataclass, field

from funasr_cli.errors import ExitCode
from funasr_cli.formats import clock
from funasr_cli.scheduling.events import Event, Failed, Finished
from funasr_cli.transcript import Ledger

LOW_DBFS = -45.0  # the loudest moment of speech is rarely softer; the voice activity detection misses much of that


def is_low(level_dbfs: float | None) -> bool:
    """Whether there is sound, but too soft to be found."""
    return level_dbfs is not None and level_dbfs < LOW_DBFS


def no_speech(level_dbfs: float | None) -> str:
    """What was found instead of speech, and what to try."""
    if is_low(level_dbfs):
        return f"no speech found: the level is only {level_dbfs:.0f} dBFS; raise it, or lower --vad-threshold"
    if level_dbfs is None:
        return "no speech found: there is no sound in it"
    return "no speech found; if there is some, lower --vad-threshold, or try --no-vad or --channels split"


@dataclass(frozen=True)
class Row:
    """What came of one input."""

    source: int  # its index
    state: str  # "done", "silent", "gaps" or "failed"
    complete: bool = False
    duration_s: float = 0.0
    segments: int = 0
    states: Counter[str] = field(default_factory=Counter)  # of its segments; "doubtful" ones count twice
    ledger: Ledger = field(default_factory=Ledger)
    level_dbfs: float | None = None


@dataclass
class Outcome:
    """Keeps account of what happened."""

    failed: set[int] = field(default_factory=set)  # without a result, or with one in which no segment is complete
    skipped: int = 0  # inputs that had their results already
    incomplete: int = 0  # of these, the ones whose results lack something
    rows: list[Row] = field(default_factory=list)  # of the inputs that have come to their end, in that order
    started: float = field(default_factory=time.perf_counter)

    def add(self, event: Event) -> None:
        """Count an input that has come to its end; other events change nothing."""
        if isinstance(event, Failed):
            self.failed.add(event.source)
            self.rows.append(Row(event.source, "failed"))
        elif isinstance(event, Finished):
            transcript, segments = event.transcript, event.transcript.segments
            self.failed |= {event.source} if transcript.broken else set()
            state = "gaps" if not transcript.complete else "done" if segments else "silent"
            states = Counter(segment.state for segment in segments)
            states["doubtful"] = sum(segment.doubtful for segment in segments)
            self.rows.append(
                Row(
                    event.source, "failed" if event.source in self.failed else state, transcript.complete,
                    transcript.duration_s, len(segments), states, transcript.ledger, transcript.level_dbfs,
                )
            )  # fmt: skip

    def exit_code(self, *, strict: bool) -> ExitCode:
        """The gravest thing that happened; silence counts only where there was nothing else."""
        partial = self.incomplete > 0 or any(not row.complete for row in self.rows)
        if self.failed or (strict and partial):
            return ExitCode.INPUT_FAILED
        if partial:
            return ExitCode.PARTIAL
        is_silent = not self.skipped and all(row.state == "silent" for row in self.rows)
        return ExitCode.NO_SPEECH if is_silent else ExitCode.OK

    def summary(self) -> str:
        """The ledger of all inputs in a line."""
        failed, ledger = len(self.failed), sum((row.ledger for row in self.rows), Ledger())
        states = sum((row.states for row in self.rows), Counter[str]())
        repaired = states["repaired"]
        parts = [f"{failed} of {len(self.rows)} inputs failed"] if failed else []
        if ledger.speech_s:
            share = math.floor(ledger.done_share * 1000 + 1e-9) / 10  # all of it only where nothing is missing
            doubtful = f", {states['doubtful']} doubtful" if states["doubtful"] else ""
            lost = f", {clock(ledger.failed_s)} of audio failed" if ledger.failed_s else ""
            parts.append(
                f"{share:.1f}% of {clock(ledger.speech_s)} speech transcribed, "
                f"{repaired} segment{'s' * (repaired != 1)} repaired, {states['failed']} failed{lost}{doubtful}"
            )
        elif len(self.rows) > failed:
            levels = [row.level_dbfs for row in self.rows if row.state == "silent"]
            parts.append(no_speech(max((level for level in levels if level is not None), default=None)))
        return "; ".join(parts)

    def costs(self) -> str:
        """Audio, wall clock and real-time factor of all inputs."""
        audio_s, taken_s = sum(row.duration_s for row in self.rows), time.perf_counter() - self.started
        rtf = f", RTF {taken_s / audio_s:.3f}" if audio_s else ""
        taken = clock(taken_s) if taken_s >= 60 else f"{taken_s:.1f} s"
        return f"{clock(audio_s)} of audio in {taken}{rtf}"
