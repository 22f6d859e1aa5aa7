"""Cut a recording into segments of speech that begin and end in pauses, while it is being read.

With Silero VAD, the two thresholds and their hysteresis are those of silero-vad, ``utils_vad.py``
(``get_speech_timestamps``). Three things differ. This code works on a stream. The longer a segment, the shorter
the pause that ends it. A segment that is too long is cut where speech probability and loudness are lowest.

With FSMN-VAD, `audio.fsmn_rules` decides where segments begin and end, margins included. Joining and cutting are
the same.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from funasr_cli.audio.fsmn_rules import LOOK_BACK_FRAMES, FsmnRules
from funasr_cli.audio.fsmn_vad import FRAME_SAMPLES as FSMN_FRAME_SAMPLES
from funasr_cli.audio.fsmn_vad import FsmnVoiceActivityDetector
from funasr_cli.audio.segment import SHORTEST_PART_S, AudioSegment, frames_in
from funasr_cli.audio.vad import FRAME_SAMPLES, SAMPLE_RATE_HZ, VoiceActivityDetector
from funasr_cli.options import MIN_PAUSES_S, SEGMENT_S, SILERO, VAD_THRESHOLDS, TranscribeOptions

HYSTERESIS = 0.15  # speech continues down to this much below the probability that starts it...
NO_SPEECH = 0.01  # ...but not below this probability
MARGIN_S = 0.2  # kept before and after speech, which may begin and end softly
# Longest pause within a short segment, where segments are joined: this share of `join_s`, and at least a second.
JOIN_PAUSE_SHARE, JOIN_PAUSE_S = 0.1, 1.0
SHORTEST_SPEECH_S = 0.1  # shorter sounds are clicks
SILENT_POWER = 1e-10
QUIETER_DB = 20.0  # when choosing a cut, this many dB count as much as a speech probability of 1


class Detector(Protocol):
    """Speech probabilities of the frames of a recording that arrives in pieces."""

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Add (samples,) and return the probabilities (frames,) that are now known."""

    def finish(self) -> np.ndarray:
        """Return the probabilities of the last frames (frames,)."""


class WholeFrames:
    """Silero VAD, or no detector, for any number of samples. The last frame is padded with zeros."""

    def __init__(self, *, detects: bool):
        self._detect: Callable[[np.ndarray], np.ndarray] = (
            VoiceActivityDetector() if detects else lambda samples: np.ones(len(samples) // FRAME_SAMPLES)
        )
        self._rest = np.zeros(0, np.float32)  # last samples, which do not fill a frame yet

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Add (samples,) and return the probabilities (frames,) of the frames that are now whole."""
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = samples[whole:].copy()
        return self._detect(samples[:whole])

    def finish(self) -> np.ndarray:
        """Return the probability of the last frame, (1,) or (0,)."""
        return self._detect(np.pad(self._rest, (0, -len(self._rest) % FRAME_SAMPLES)))


class Segmenter:
    """Divider of one recording into segments while its samples arrive, with Silero VAD or without a detector.

    `first_sample` is the position of the first sample within the recording; 0 unless the input is a clip.
    """

    frame_samples = FRAME_SAMPLES

    def __init__(self, options: TranscribeOptions, first_sample: int = 0):
        self._longest_s, self._join_s = options.max_segment_s or SEGMENT_S, options.join_s or 0.0
        self._threshold = options.vad_threshold or VAD_THRESHOLDS[options.vad_model]
        self._min_pause_s = options.min_pause_s or MIN_PAUSES_S.get(options.vad_model, 0.0)
        self._first_sample = first_sample
        self._low = max(self._threshold - HYSTERESIS, min(self._threshold, NO_SPEECH))
        self._set_up(options)
        self.read = 0  # samples pushed so far
        self._base = 0  # first frame that is kept
        self._samples = np.zeros(0, np.float32)  # samples of the frames from `_base` on
        self._speech = np.zeros(0, np.float32)  # (frames,) their speech probabilities
        self._next = 0  # next frame to examine
        self._start: int | None = None  # first frame of the open segment
        self._continues = False  # whether the open segment begins at a cut, not at a pause
        self._pause: int | None = None  # first frame of the current pause in the open segment
        self._joined = False  # whether the open segment continued across a pause that would have ended it
        self._free = 0  # first frame that belongs to no segment yet

    def _set_up(self, options: TranscribeOptions) -> None:
        """Choose the detector, and how many frames before and after speech are kept."""
        self._detector: Detector = WholeFrames(detects=options.vad)
        self._before = self._after = self._frames_in(min(MARGIN_S, self._min_pause_s))

    def push(self, samples: np.ndarray) -> list[AudioSegment]:
        """Add (samples,) float32 at 16 kHz and return the segments that have ended."""
        self.read += len(samples)
        self._samples = np.concatenate([self._samples, samples])
        return self._take(self._detector(samples))

    def finish(self) -> list[AudioSegment]:
        """Return the last segments, once all samples have been pushed."""
        ended = self._take(self._detector.finish())
        if self._start is not None:
            end = -(-self.read // self.frame_samples)  # after the last sample
            ended += self._close(end if self._pause is None else min(self._pause + self._after, end))
        return ended

    def _take(self, speech: np.ndarray) -> list[AudioSegment]:
        """Add the probabilities of the next frames (frames,), and return the segments that have ended."""
        self._speech = np.concatenate([self._speech, speech])
        ended: list[AudioSegment] = []
        while self._next < self._base + len(self._speech):
            self._examine(self._next)
            self._next += 1
            ended += self._ended()
        self._forget()
        return ended

    def _examine(self, frame: int) -> None:
        """Open a segment, or record that a pause begins or ends."""
        speech = self._speech[frame - self._base]
        if self._start is None:
            if speech >= self._threshold:
                self._open(frame - self._before)
        elif speech >= self._low:
            if self._pause is not None and frame - self._pause >= self._frames_in(self._min_pause_s):
                self._joined = True
            self._pause = None
        elif self._pause is None:
            self._pause = frame

    def _open(self, frame: int) -> None:
        self._start, self._pause = max(self._free, frame), None
        self._continues = self._joined = False

    def _ended(self) -> list[AudioSegment]:
        """Return the open segment if its pause is long enough, or its first part if it is too long."""
        if self._start is None:
            return []
        if self._pause is not None and self._next - self._pause >= self._pause_needed():
            return self._close(self._pause + self._after)
        longest = self._longest_frames
        if self._next - self._start <= longest + self._frames_in(SHORTEST_PART_S):
            return []
        first, _ = self._segment(self._next).cut(longest // 2, longest)
        self._start = self._free = self._start + len(first.activity)
        self._continues = True
        return [first]

    def _frames_in(self, duration_s: float) -> int:
        return frames_in(duration_s, self.frame_samples)

    @property
    def _longest_frames(self) -> int:
        return int(self._longest_s * SAMPLE_RATE_HZ) // self.frame_samples

    def _pause_needed(self) -> int:
        """Return how many frames of pause end the segment: the longer it is, the fewer."""
        assert self._start is not None
        assert self._pause is not None
        speech = max(0, self._pause - self._start)  # the pause may have begun before the cut
        grown = min(1.0, speech / self._frames_in(self._join_s)) if self._join_s else 1.0
        longest_s = max(JOIN_PAUSE_SHARE * self._join_s, JOIN_PAUSE_S, self._min_pause_s)
        return self._frames_in(longest_s + grown * (self._min_pause_s - longest_s))

    def _close(self, end: int) -> list[AudioSegment]:
        """Close the segment at frame ``end``. Return it, or two parts if it is too long, or none if it is a click.

        After a cut, a single frame above the lower threshold is enough, since the speech began before the cut.
        """
        assert self._start is not None
        end = max(end, self._start)
        segment = self._segment(end)
        speech = self._speech[self._start - self._base : end - self._base]
        self._start, self._pause, self._free = None, None, end
        spoken = (speech >= (self._low if self._continues else self._threshold)).sum()
        if spoken < (1 if self._continues else self._frames_in(SHORTEST_SPEECH_S)):
            return []
        if len(segment.samples) <= self._longest_s * SAMPLE_RATE_HZ:
            return [segment]
        frames, longest, shortest = len(segment.activity), self._longest_frames, self._frames_in(SHORTEST_PART_S)
        return list(segment.cut(max(shortest, frames - longest), min(longest, frames - shortest)))

    def _segment(self, end: int) -> AudioSegment:
        """Return the open segment up to frame ``end``, or up to the last sample."""
        assert self._start is not None
        size = self.frame_samples
        first, last = self._start - self._base, end - self._base
        samples = self._samples[first * size : last * size]
        whole = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)  # (frames, size)
        loudness_db = 10 * np.log10(np.square(whole).mean(axis=1) + SILENT_POWER)  # (frames,)
        speech = self._speech[first:last]
        speech = np.pad(speech, (0, len(whole) - len(speech)), mode="edge" if len(speech) else "constant")
        start = self._first_sample + self._start * size
        return AudioSegment(start, samples.copy(), speech + loudness_db / QUIETER_DB, self._joined, size)

    def _forget(self) -> None:
        """Discard all frames before the open segment, or before the margin of the next one."""
        keep = self._start if self._start is not None else max(self._free, self._next - self._before)
        self._samples = self._samples[(keep - self._base) * self.frame_samples :]
        self._speech = self._speech[keep - self._base :]
        self._base = keep


class FsmnSegmenter(Segmenter):
    """Divider with FSMN-VAD. A segment that has ended is kept only while it may be joined to the next one."""

    frame_samples = FSMN_FRAME_SAMPLES

    def _set_up(self, options: TranscribeOptions) -> None:
        self._detector = FsmnVoiceActivityDetector()
        self._rules = FsmnRules(self._threshold, 1000 * self._min_pause_s or None)
        self._min_pause_s = 0.0  # the rules have waited already
        self._before, self._after = LOOK_BACK_FRAMES, 0

    def _examine(self, frame: int) -> None:
        begun = self._rules.start
        end = self._rules.step(float(self._speech[frame - self._base]))
        if self._rules.start is not None and begun is None:
            if self._start is None:
                self._open(self._rules.start)
            else:
                self._joined, self._pause = True, None
        elif end is not None:
            self._pause = end


def new_segmenter(options: TranscribeOptions, first_sample: int = 0) -> Segmenter:
    """Make the segmenter for one recording, which begins at ``first_sample`` unless the whole is read."""
    kind = Segmenter if options.vad_model == SILERO or not options.vad else FsmnSegmenter
    return kind(options, first_sample)
