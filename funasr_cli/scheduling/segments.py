"""Where a recording is cut: segments of speech that begin and end in pauses, found while it is being read.

Source of the two thresholds and their hysteresis: silero-vad ``utils_vad.py`` (``get_speech_timestamps``). What
differs: it works on a stream; the pause that ends a segment is the shorter the longer the segment has become; what
is too long is cut where speech and loudness are lowest.
"""

from collections.abc import Callable

import numpy as np

from funasr_cli.audio.segment import SHORTEST_PART_S, AudioSegment, frames_in
from funasr_cli.audio.vad import FRAME_SAMPLES, SAMPLE_RATE_HZ, VoiceActivityDetector
from funasr_cli.options import TranscribeOptions

HYSTERESIS = 0.15  # speech goes on at probabilities that are lower by this than the one that begins it...
NO_SPEECH = 0.01  # ...but not below this
MARGIN_S = 0.2  # kept around speech: soft beginnings and endings
JOIN_PAUSE_S = 1.0  # short segments go on over a pause of up to this, where they are joined
SHORTEST_SPEECH_S = 0.1  # less is a click
SILENT_POWER = 1e-10
QUIETER_DB = 20.0  # where it is quieter by this, a cut is as good as where there is no speech at all


class Segmenter:
    """Cuts one recording into segments while its samples come in.

    `first_sample` is where the first one stands in what the recording is a part of.
    """

    def __init__(self, options: TranscribeOptions, first_sample: int = 0):
        self._options = options
        self._first_sample = first_sample
        self._detect: Callable[[np.ndarray], np.ndarray] = (
            VoiceActivityDetector() if options.vad else lambda samples: np.ones(len(samples) // FRAME_SAMPLES)
        )
        self._margin = frames_in(min(MARGIN_S, options.min_pause_s))
        self._low = max(options.vad_threshold - HYSTERESIS, min(options.vad_threshold, NO_SPEECH))
        self.read = 0  # samples taken in
        self._rest = np.zeros(0, np.float32)  # those that do not fill a frame yet
        self._base = 0  # the first frame that is still kept
        self._samples = np.zeros(0, np.float32)  # of the frames from `_base` on
        self._speech = np.zeros(0, np.float32)  # (frames,) their probabilities
        self._next = 0  # the next frame to look at
        self._start: int | None = None  # first frame of the segment that is open
        self._goes_on = False  # whether it begins at a cut
        self._pause: int | None = None  # first frame of the pause that it has come to
        self._free = 0  # the first frame that belongs to no segment yet

    def push(self, samples: np.ndarray) -> list[AudioSegment]:
        """Take in (samples,) float32 at 16 kHz; the segments that have ended."""
        self.read += len(samples)
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = samples[whole:]
        return self._take(samples[:whole])

    def finish(self) -> list[AudioSegment]:
        """The last segments, once everything has been pushed."""
        ended = self._take(np.pad(self._rest, (0, -len(self._rest) % FRAME_SAMPLES)))
        if self._start is not None:
            quiet_from = self._next if self._pause is None else self._pause + self._margin
            ended += self._close(min(quiet_from, self._next))
        return ended

    def _take(self, samples: np.ndarray) -> list[AudioSegment]:
        self._samples = np.concatenate([self._samples, samples])
        self._speech = np.concatenate([self._speech, self._detect(samples)])
        ended: list[AudioSegment] = []
        while self._next < self._base + len(self._speech):
            self._look(self._next)
            self._next += 1
            ended += self._what_ended()
        self._forget()
        return ended

    def _look(self, frame: int) -> None:
        """Open a segment, or notice that a pause begins or ends."""
        speech = self._speech[frame - self._base]
        if self._start is None:
            if speech >= self._options.vad_threshold:
                self._start, self._pause = max(self._free, frame - self._margin), None
                self._goes_on = False
        elif speech >= self._low:
            self._pause = None
        elif self._pause is None:
            self._pause = frame

    def _what_ended(self) -> list[AudioSegment]:
        """The open segment when its pause has become long enough, or the first part of one that is too long."""
        if self._start is None:
            return []
        if self._pause is not None and self._next - self._pause >= self._pause_needed():
            return self._close(self._pause + self._margin)
        longest = self._longest_frames
        if self._next - self._start <= longest + frames_in(SHORTEST_PART_S):
            return []
        first, _ = self._segment(self._next).cut(longest // 2, longest)
        self._start = self._free = self._start + len(first.activity)
        self._goes_on = True
        return [first]

    @property
    def _longest_frames(self) -> int:
        return int(self._options.max_segment_s * SAMPLE_RATE_HZ) // FRAME_SAMPLES

    def _pause_needed(self) -> int:
        """Frames of pause that end a segment: the longer it is by now, the fewer."""
        assert self._start is not None
        assert self._pause is not None
        options = self._options
        speech = max(0, self._pause - self._start)  # a pause may have begun before the cut that it goes on behind
        grown = min(1.0, speech / frames_in(options.join_s)) if options.join_s else 1.0
        longest_s = max(JOIN_PAUSE_S, options.min_pause_s)
        return frames_in(longest_s + grown * (options.min_pause_s - longest_s))

    def _close(self, end: int) -> list[AudioSegment]:
        """The open segment up to frame ``end``, in two if it is too long; nothing if it was only a click.

        What goes on behind a cut has been speech already: there, the softest rest of it counts.
        """
        assert self._start is not None
        end = max(end, self._start)
        segment = self._segment(end)
        speech = self._speech[self._start - self._base : end - self._base]
        self._start, self._pause, self._free = None, None, end
        spoken = (speech >= (self._low if self._goes_on else self._options.vad_threshold)).sum()
        if spoken < (1 if self._goes_on else frames_in(SHORTEST_SPEECH_S)):
            return []
        if len(segment.samples) <= self._options.max_segment_s * SAMPLE_RATE_HZ:
            return [segment]
        frames, longest, shortest = len(segment.activity), self._longest_frames, frames_in(SHORTEST_PART_S)
        return list(segment.cut(max(shortest, frames - longest), min(longest, frames - shortest)))

    def _segment(self, end: int) -> AudioSegment:
        """The open segment up to frame ``end``."""
        assert self._start is not None
        first, last = self._start - self._base, end - self._base
        samples = self._samples[first * FRAME_SAMPLES : last * FRAME_SAMPLES]
        power = np.square(samples).reshape(-1, FRAME_SAMPLES).mean(axis=1)  # (frames,)
        loudness_db = 10 * np.log10(power + SILENT_POWER)
        within = self.read - self._start * FRAME_SAMPLES  # the last frame may be filled up with zeros
        activity = self._speech[first:last] + loudness_db / QUIETER_DB
        start = self._first_sample + self._start * FRAME_SAMPLES
        return AudioSegment(start, samples[:within].copy(), activity)

    def _forget(self) -> None:
        """Let go of everything before the open segment, or before the margin of one that may open next."""
        keep = self._start if self._start is not None else max(self._free, self._next - self._margin)
        self._samples = self._samples[(keep - self._base) * FRAME_SAMPLES :]
        self._speech = self._speech[keep - self._base :]
        self._base = keep
