"""Speakers: who says each word, or each segment where words have no times.

Two stages work together. `Voices` sees the sound of each attempt, and keeps only embeddings of its windows.
`Speakers` holds all segments of a recording back until its end, when the embeddings are clustered, since only then
is known how many voices there are. It cuts segments where the speaker changes.
"""

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, groupby
from typing import Any

import numpy as np

from funasr_cli import funasr_clusters
from funasr_cli.diarization import (
    TELEPHONE_SHARE,
    Span,
    cluster,
    embedded,
    in_order,
    of_length_one,
    powers,
)
from funasr_cli.options import FUNASR, SPEAKER_THRESHOLD, TELEPHONE_MARGIN, TranscribeOptions
from funasr_cli.scheduling.events import Event, Failed, Finished, SegmentFinished
from funasr_cli.speaker_model import SpeakerModel
from funasr_cli.speaker_turns import Turn, Voiced, corrected, speaker_of, turns
from funasr_cli.speech_model import SegmentRequest, TranscriptStage
from funasr_cli.stages.known_speakers import KnownSpeakers
from funasr_cli.transcript import Segment, Transcript

COARSE = "speakers are those of whole segments: without word times, a change of speaker within one is not found"


class Voices(TranscriptStage):
    """Embeddings of the windows of all segments, by recording and the segment's start and end in samples."""

    def __init__(self, model: SpeakerModel):
        self.model = model
        self._kept: defaultdict[int, dict[tuple[int, int], tuple[list[Span], np.ndarray]]] = defaultdict(dict)
        self._powers: defaultdict[int, np.ndarray] = defaultdict(lambda: np.zeros(2))
        self._failed: dict[int, Exception] = {}  # by recording

    def segment(self, request: SegmentRequest, segment: Segment) -> Segment:
        """Keep the embeddings of a segment, in place of those of the longer one that it is a part of."""
        audio = request.audio
        self._powers[request.source] += powers(audio.samples, self.model.sample_rate_hz)
        kept = self._kept[request.source]
        for start, end in [each for each in kept if each[0] < audio.end and each[1] > audio.start]:
            if end - start >= audio.end - audio.start:
                del kept[start, end]
        try:
            kept[audio.start, audio.end] = embedded(audio, self.model)
        except (MemoryError, RuntimeError) as error:  # costs the speakers, not the transcript
            self._failed[request.source] = error
        return segment

    def threshold(self, source: int) -> float:
        """Return the threshold that suits the sound of a recording, and forget the sound."""
        total, above = self._powers.pop(source, np.ones(2))
        return SPEAKER_THRESHOLD - (TELEPHONE_MARGIN if above < TELEPHONE_SHARE * total else 0)

    def take(self, source: int) -> list[Voiced]:
        """Return the segments of a recording, in order, and forget them.

        Raises:
            MemoryError, RuntimeError: an embedding could not be computed.
        """
        rate_hz = self.model.sample_rate_hz
        kept = sorted(self._kept.pop(source, {}).items(), key=lambda item: item[0])
        if error := self._failed.pop(source, None):
            raise error
        return [Voiced((a / rate_hz, b / rate_hz), spans, vectors) for (a, b), (spans, vectors) in kept]


class Speakers:
    """The stage of one recording; see `EventStage`."""

    option = "--speakers none"

    def __init__(self, voices: Voices, options: TranscribeOptions, known: KnownSpeakers | None = None):
        self.name, self._voices, self._options, self._known = voices.model.name, voices, options, known
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
            self._voices.threshold(event.source)
            self._voices.take(event.source)
            yield from self._held
            yield event
        else:
            yield event

    def _with_speakers(self, source: int, transcript: Transcript) -> Transcript:
        began = time.perf_counter()
        usual = self._voices.threshold(source)
        kept = self._voices.take(source)
        vectors = np.concatenate([own.vectors for own in kept] or [np.zeros((0, 1))])  # (windows, width)
        labels = clusters(kept, vectors, self._options, usual)
        found = turns(kept, labels)
        segments = [part for segment in transcript.segments for part in cut(segment, found)]
        order, units = dict.fromkeys(part.speaker for part in segments if part.speaker), of_length_one(vectors)
        means = {speaker: units[labels == int(speaker)].mean(axis=0) for speaker in order if speaker}
        called = self._names(means)
        named = tuple(part.spoken_by(called[part.speaker]) if part.speaker else part for part in segments)
        timings = replace(transcript.timings, post_s=transcript.timings.post_s + time.perf_counter() - began)
        is_coarse = any(segment.text and not segment.words for segment in transcript.segments)
        warnings = (*transcript.warnings, *([COARSE] if is_coarse and len({*labels.tolist()}) > 1 else []))
        return replace(
            transcript,
            segments=named,
            timings=timings,
            warnings=warnings,
            speakers_by=self.name,
            speaker_embeddings=(self._options.speaker_embeddings and by_name(means, called)) or None,
        )

    def _names(self, means: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Return a name for each speaker: that of the known voice, the next of the names given, or a number.

        `means` has the mean embedding (width,) of each speaker, in order of appearance.
        """
        called = self._known.named(means) if self._known else {}
        taken = {*called.values(), *self._options.speaker_names}
        given = iter([name for name in self._options.speaker_names if name not in called.values()])
        for place, speaker in enumerate(means, 1):
            if speaker not in called:
                numbers = (f"Speaker {number}" for number in count(place))
                called[speaker] = next(given, None) or next(name for name in numbers if name not in taken)
                taken.add(called[speaker])
        return called


def clusters(
    speech: Sequence[Voiced], vectors: np.ndarray, options: TranscribeOptions, usual: float
) -> np.ndarray:
    """Return the speaker (windows,) of each window, numbered in order of appearance.

    `vectors` are all embeddings (windows, width); the `usual` threshold is used unless one is stated.
    """
    assert options.speakers is not None
    if options.speaker_method == FUNASR:
        return in_order(funasr_clusters.cluster(vectors, options.speakers[1]))
    stated = options.speaker_threshold
    threshold, join_alike = (usual, True) if stated is None else (stated, False)
    return in_order(corrected(speech, cluster(vectors, threshold, *options.speakers, join_alike=join_alike)))


def by_name(means: Mapping[str, np.ndarray], called: Mapping[str, str]) -> dict[str, tuple[float, ...]]:
    """Return what the voice of each name is like, as a vector of length one."""
    sums = dict[str, np.ndarray]()
    for speaker, mean in means.items():  # two speakers may have been given the same name
        sums[called[speaker]] = sums.get(called[speaker], 0) + mean
    return {name: tuple(of_length_one(each[None])[0].tolist()) for name, each in sums.items()}


def cut(segment: Segment, found: Sequence[Turn]) -> list[Segment]:
    """Return the parts of a segment with one speaker each, numbered as in `found`; the segment if there are none.

    A cut is between two words, in the middle of the pause. What belongs to the segment as a whole stays with the
    first part. There is no translation yet: one of the whole segment is refused together with speakers.
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
        later: dict[str, Any] = {"thinking": "", "tokens": 0, "ctc_text": None}
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
