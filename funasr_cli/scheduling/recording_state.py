"""The state of each recording while it is transcribed: its segments in order, its timings and its warnings."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from funasr_cli.audio.segment import AudioSegment
from funasr_cli.decoding.agreement import Comparison
from funasr_cli.languages import resolve_language
from funasr_cli.scheduling.intake import Ended, Job
from funasr_cli.speech_model import Hypothesis, SpeechModel
from funasr_cli.transcript import CHANNELS, STAGES, Segment, Timings, Transcript
from funasr_cli.units import is_spoken


@dataclass(frozen=True, eq=False)
class Attempt:
    """A segment of audio and the result of decoding it."""

    audio: AudioSegment
    hypothesis: Hypothesis

    @property
    def segment(self) -> Segment:
        """The segment for the transcript, if this attempt is kept."""
        return self.hypothesis.segment

    @property
    def start(self) -> int:
        """Index of the first sample."""
        return self.audio.start


@dataclass
class RecordingState:
    """The state of one recording, from its opening to its transcript.

    A segment is identified by its first sample, and is open until it is final. A complete but doubtful segment
    that is decoded again in parts stays in `_doubts` until its parts are final. Then whichever is better is kept.
    """

    job: Job
    name: str
    started: float
    start_s: float = 0.0
    speaker: str | None = None
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: Counter[str] = field(default_factory=lambda: Counter(tokens=0))  # sums of `Update.counts`
    first_token: float | None = None
    end: Ended | None = None
    _open: set[int] = field(default_factory=set)  # first samples of the segments that are not final
    _final: dict[int, Attempt] = field(default_factory=dict)  # final segments that wait for an earlier one
    _doubts: list[Attempt] = field(default_factory=list)  # attempts being decoded again in parts, longest first
    _finished: list[Segment] = field(default_factory=list)

    @property
    def source(self) -> int:
        """Number of the recording."""
        return self.job.source

    @property
    def done(self) -> bool:
        """Whether everything has been read and every segment is final."""
        return self.end is not None and not self._open

    def is_open(self, audio: AudioSegment) -> bool:
        """Return whether this segment is not final yet."""
        return audio.start in self._open

    def expect(self, audio: AudioSegment) -> None:
        """Add an open segment."""
        self._open.add(audio.start)

    def replace(self, attempt: Attempt, parts: tuple[AudioSegment, ...]) -> None:
        """Expect parts in place of a segment. If it was complete, keep it in case the parts are no better."""
        self._open.remove(attempt.start)
        self._open.update(part.start for part in parts)
        if attempt.segment.complete:
            self._doubts.append(attempt)

    def finish(self, attempt: Attempt) -> list[Segment]:
        """Add a final segment. Return the segments that no longer wait for an earlier one, in order."""
        self._open.remove(attempt.start)
        self._final[attempt.start] = attempt
        self._decide()
        earliest = min([*self._open, *(doubt.start for doubt in self._doubts)], default=None)
        ready = sorted(start for start in self._final if earliest is None or start < earliest)
        released = [self._final.pop(start).segment for start in ready]
        if self.speaker is not None:
            released = [segment.spoken_by(self.speaker) for segment in released]
        self._finished += released
        return released

    def _decide(self) -> None:
        """Choose between each doubtful segment and its parts, once these are final."""
        for doubt in self._doubts[::-1]:
            samples = range(doubt.start, doubt.audio.end)
            if any(start in samples for start in self._open):
                continue
            self._doubts.remove(doubt)
            parts = [self._final.pop(start) for start in sorted(self._final) if start in samples]
            kept = parts if _are_better(parts, doubt) else [doubt]
            self._final.update((attempt.start, attempt) for attempt in kept)

    def transcript(self, model: SpeechModel) -> Transcript:
        """Return the transcript, once `done`. If times of words were wanted, warn about segments without them."""
        assert self.end is not None
        options = self.job.options
        now = time.perf_counter()
        measured: dict[str, Any] = dict(self.counts)
        measured |= {f"{stage}_s": self.seconds[stage] + self.end.seconds.get(stage, 0.0) for stage in STAGES}
        measured["post_s"] = self.seconds["post"]
        return Transcript(
            source=self.name,
            start_s=self.start_s,
            duration_s=self.end.read_s + self.end.unread_s,
            model=model.name,
            engine=model.engine,
            vad_model=options.vad_model if options.vad else None,
            language=resolve_language(options.language, model.capabilities.languages),
            segments=tuple(self._finished),
            timings=Timings(
                first_token_s=(self.first_token or now) - self.started,
                total_s=now - self.started,
                **measured,
            ),
            unread_s=self.end.unread_s,
            fault=self.end.error.message if self.end.error else None,
            warnings=(
                *self.end.findings.warnings,
                *(text for segment in self._finished for text in _warnings(segment, options.word_times)),
            ),
            lost=tuple(self.end.findings.lost),
            level_dbfs=self.end.findings.level_dbfs,
            speakers_by=None if self.speaker is None else CHANNELS,
        )


def _are_better(parts: list[Attempt], whole: Attempt) -> bool:
    """Return whether all parts are complete and agree better with the second reading than the whole does.

    If there is none, or the whole lacks its translation, none of them may be doubtful or lack its translation.
    """
    complete = [part for part in parts if part.segment.complete]
    first = whole.hypothesis.agreement
    if first is None or whole.segment.untranslated:
        is_flawed = any(part.segment.doubtful or part.segment.untranslated for part in parts)
        return len(complete) == len(parts) and not is_flawed
    known = [part.hypothesis.agreement for part in complete if part.hypothesis.agreement]
    return len(known) == len(parts) and sum(known, Comparison(0, 0)).better_than(first)


def _warnings(segment: Segment, word_times: bool) -> Iterator[str]:
    where = f"{segment.start_s:.1f}-{segment.end_s:.1f} s"
    if problem := _problem(segment):
        yield f"{where}: {problem}"
    if segment.translation and segment.translation.problem:
        yield f"{where}: {segment.translation.problem}"
    if word_times and not segment.words and any(map(is_spoken, segment.text)):
        yield f"{where}: no word times: the text could not be aligned with the audio"


def _problem(segment: Segment) -> str | None:
    if segment.doubtful and not segment.text:
        return "no text, although speech was detected: words may be missing"
    if segment.doubtful and segment.disagreement is None:
        return "the model doubts this text: it may be made up"
    if segment.doubtful:
        return "the second opinion disagrees with this text: it may be made up"
    return {
        "budget": f"cut short after {segment.tokens} tokens: the end may be missing",
        "loop": "the text repeats itself in a loop: anything after the first round is missing",
        "nonfinite": "the model computed a value that is not a number: the rest of the text is missing",
    }.get(segment.stop_reason)
