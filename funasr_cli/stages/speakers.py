"""Speakers: who says each word, or each segment where words have no times.

Two stages work together. `Voices` sees the sound of each attempt, and keeps only embeddings of its windows.
`Speakers` holds all segments of a recording back until its end, when the embeddings are clustered, since only then
is known how many voices there are. It cuts segments where the speaker changes.
"""

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from funasr_cli.diarization import WINDOW_S, Turn, cluster, speaker_of, turns, windows
from funasr_cli.options import TranscribeOptions
from funasr_cli.scheduling.events import Event, Failed, Finished, SegmentFinished
from funasr_cli.speaker_model import SpeakerModel
from funasr_cli.speech_model import SegmentRequest, TranscriptStage
from funasr_cli.transcript import Segment, Transcript

COARSE = "speakers are those of whole segments: without word times, a change of speaker within one is not found"
Span = tuple[float, float]  # start and end, in seconds


class Voices(TranscriptStage):
    """Embeddings of the windows of all segments, by recording and the segment's start and end in samples."""

    def __init__(self, model: SpeakerModel):
        self.model = model
        self._kept: defaultdict[int, dict[tuple[int, int], tuple[list[Span], np.ndarray]]] = defaultdict(dict)
        self._failed: dict[int, Exception] = {}  # by recording

    def segment(self, request: SegmentRequest, segment: Segment) -> Segment:
        """Keep the embeddings of a segment, in place of those of the longer one that it is a part of."""
        audio, rate_hz = request.audio, self.model.sample_rate_hz
        kept = self._kept[request.source]
        for start, end in [each for each in kept if each[0] < audio.end and each[1] > audio.start]:
            if end - start >= audio.end - audio.start:
                del kept[start, end]
        spans = list(windows(len(audio.samples) / rate_hz))
        padded = np.pad(audio.samples, (0, max(0, round(WINDOW_S * rate_hz) - len(audio.samples))))
        starts = [min(round(start_s * rate_hz), len(padded) - round(WINDOW_S * rate_hz)) for start_s, _ in spans]
        clips = np.stack([padded[start : start + round(WINDOW_S * rate_hz)] for start in starts])
        try:
            embedded = self.model.embed(clips)  # (windows, width)
        except (MemoryError, RuntimeError) as error:  # costs the speakers, not the transcript
            self._failed[request.source] = error
            return segment
        kept[audio.start, audio.end] = [(audio.start_s + a, audio.start_s + b) for a, b in spans], embedded
        return segment

    def take(self, source: int) -> list[tuple[Span, list[Span], np.ndarray]]:
        """Return times, windows and embeddings of the segments of a recording, in order, and forget them.

        Raises:
            MemoryError, RuntimeError: an embedding could not be computed.
        """
        rate_hz = self.model.sample_rate_hz
        kept = sorted(self._kept.pop(source, {}).items(), key=lambda item: item[0])
        if error := self._failed.pop(source, None):
            raise error
        return [((a / rate_hz, b / rate_hz), spans, vectors) for (a, b), (spans, vectors) in kept]


class Speakers:
    """The stage of one recording; see `EventStage`."""

    option = "--speakers none"

    def __init__(self, voices: Voices, options: TranscribeOptions):
        self.name, self._voices, self._options = voices.model.name, voices, options
        self._held: deque[SegmentFinished] = deque()

    def __call__(self, event: Event) -> Iterator[Event]:
        """Hold segments back, and yield them with their speakers at the end."""
        if isinstance(event, SegmentFinished):
            self._held.append(event)
        elif isinstance(event, Finished):
            transcript = self._with_speakers(event.source, event.transcript)
            yield from (SegmentFinished(event.source, segment) for segment in transcript.segments)
            yield replace(event, transcript=transcript)
        elif isinstance(event, Failed):
            self._voices.take(event.source)
            yield from self._held
            yield event
        else:
            yield event

    def _with_speakers(self, source: int, transcript: Transcript) -> Transcript:
        began = time.perf_counter()
        found = self._turns(self._voices.take(source))
        segments = [part for segment in transcript.segments for part in cut(segment, found)]
        names = self._options.speaker_names
        order = dict.fromkeys(part.speaker for part in segments if part.speaker is not None)
        called = {old: names[i] if i < len(names) else f"Speaker {i + 1}" for i, old in enumerate(order)}
        named = tuple(_named(part, called) for part in segments)
        timings = replace(transcript.timings, post_s=transcript.timings.post_s + time.perf_counter() - began)
        is_coarse = any(segment.text and not segment.words for segment in transcript.segments)
        warnings = (*transcript.warnings, *([COARSE] if is_coarse and len(order) > 1 else []))
        return replace(transcript, segments=named, timings=timings, warnings=warnings, speakers_by=self.name)

    def _turns(self, kept: Sequence[tuple[Span, list[Span], np.ndarray]]) -> list[Turn]:
        """Return the turns of a recording, in order."""
        if not kept:
            return []
        assert self._options.speakers is not None
        vectors = np.concatenate([vectors for _, _, vectors in kept])  # (windows, width)
        labels = iter(cluster(vectors, self._options.speaker_threshold, *self._options.speakers).tolist())
        found = []
        for (_, end_s), spans, _ in kept:
            found += turns(spans, [next(labels) for _ in spans], end_s)
        return found


def cut(segment: Segment, found: Sequence[Turn]) -> list[Segment]:
    """Return the parts of a segment with one speaker each, numbered as in `found`; the segment if there are none.

    A cut is between two words, in the middle of the pause. What belongs to the segment as a whole, such as the
    speech model's own translation, stays with the first part.
    """
    near = [turn for turn in found if turn.end_s > segment.start_s and turn.start_s < segment.end_s] or list(found)
    if not near:
        return [segment]
    if not segment.words:
        return [replace(segment, speaker=str(speaker_of(segment.start_s, segment.end_s, near)))]
    speakers = [speaker_of(word.start_s, word.end_s, near) for word in segment.words]
    runs = [len(list(run)) for _, run in groupby(speakers)]
    if len(runs) == 1:
        words = tuple(replace(word, speaker=str(speakers[0])) for word in segment.words)
        return [replace(segment, words=words, speaker=str(speakers[0]))]
    starts, place = [], 0  # of each word in the text
    for word in segment.words:
        starts.append(segment.text.index(word.text, place))
        place = starts[-1] + len(word.text)
    places, place = [], 0  # of each score
    for score in segment.scores:
        places.append(place + len(score.text) - len(score.text.lstrip()))
        place += len(score.text)
    parts, first = list[Segment](), 0
    for run in runs:
        last, speaker = first + run, str(speakers[first])
        is_last, words = last == len(segment.words), segment.words[first:last]
        begin = starts[first] if first else 0
        end = len(segment.text) if is_last else starts[last]
        end_s = segment.end_s if is_last else (words[-1].end_s + segment.words[last].start_s) / 2
        later: dict[str, Any] = {"thinking": "", "tokens": 0, "ctc_text": None, "translation": None}
        parts.append(
            replace(
                segment,
                start_s=parts[-1].end_s if parts else segment.start_s,
                end_s=end_s,
                text=segment.text[begin:end] if is_last else segment.text[begin:end].rstrip(),
                words=tuple(replace(word, speaker=speaker) for word in words),
                scores=tuple(score for score, at in zip(segment.scores, places, strict=True) if begin <= at < end),
                pieces=(),
                speaker=speaker,
                **(later if parts else {}),
            )
        )
        first = last
    return parts


def _named(segment: Segment, called: dict[str, str]) -> Segment:
    if segment.speaker is None:
        return segment
    name = called[segment.speaker]
    return replace(segment, speaker=name, words=tuple(replace(word, speaker=name) for word in segment.words))
