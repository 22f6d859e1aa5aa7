"""Cut a recording into segments of speech that begin and end in pauses, while it is being read.

The two thresholds and their hysteresis are those of silero-vad, ``utils_vad.py`` (``get_speech_timestamps``).
Three things differ. This code works on a stream. The longer a segment, the shorter the pause that ends it. A
segment that is too long is cut where speech probability and loudness are lowest.
"""

from collections.abc import Callable

import numpy as np

from funasr_cli.audio.segment import SHORTEST_PART_S, AudioSegment, frames_in
from funasr_cli.audio.vad import FRAME_SAMPLES, SAMPLE_RATE_HZ, VoiceActivityDetector
from funasr_cli.options import SEGMENT_S, TranscribeOptions

HYSTERESIS = 0.15  # speech continues down to this much below the probability that starts it...
NO_SPEECH = 0.01  # ...but not below this probability
MARGIN_S = 0.2  # kept before and after speech, which may begin and end softly
# Longest pause within a short segment, where segments are joined: this share of `join_s`, and at least a second.
JOIN_PAUSE_SHARE, JOIN_PAUSE_S = 0.1, 1.0
SHORTEST_SPEECH_S = 0.1  # shorter sounds are clicks
SILENT_POWER = 1e-10
QUIETER_DB = 20.0  # when choosing a cut, this many dB count as much as a speech probability of 1


class Segmenter:
    """Divider of one recording into segments while its samples arrive.

    `first_sample` is the position of the first sample within the recording; 0 unless the input is a clip.
    """

    def __init__(self, options: TranscribeOptions, first_sample: int = 0):
        self._options = options
        self._longest_s, self._join_s = options.max_segment_s or SEGMENT_S, options.join_s or 0.0
        self._first_sample = first_sample
        self._detect: Callable[[np.ndarray], np.ndarray] = (
            VoiceActivityDetector() if options.vad else lambda samples: np.ones(len(samples) // FRAME_SAMPLES)
        )
        self._margin = frames_in(min(MARGIN_S, options.min_pause_s))
        self._low = max(options.vad_threshold - HYSTERESIS, min(options.vad_threshold, NO_SPEECH))
        self.read = 0  # samples pushed so far
        self._rest = np.zeros(0, np.float32)  # last samples, which do not fill a frame yet
        self._base = 0  # first frame that is kept
        self._samples = np.zeros(0, np.float32)  # samples of the frames from `_base` on
        self._speech = np.zeros(0, np.float32)  # (frames,) their speech probabilities
        self._next = 0  # next frame to examine
        self._start: int | None = None  # first frame of the open segment
        self._continues = False  # whether the open segment begins at a cut, not at a pause
        self._pause: int | None = None  # first frame of the current pause in the open segment
        self._joined = False  # whether the open segment continued across a pause of `min_pause_s`
        self._free = 0  # first frame that belongs to no segment yet

    def push(self, samples: np.ndarray) -> list[AudioSegment]:
        """Add (samples,) float32 at 16 kHz and return the segments that have ended."""
        self.read += len(samples)
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = samples[whole:]
        return self._take(samples[:whole])

    def finish(self) -> list[AudioSegment]:
        """Return the last segments, once all samples have been pushed."""
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
            self._examine(self._next)
            self._next += 1
            ended += self._ended()
        self._forget()
        return ended

    def _examine(self, frame: int) -> None:
        """Open a segment, or record that a pause begins or ends."""
        speech = self._speech[frame - self._base]
        if self._start is None:
            if speech >= self._options.vad_threshold:
                self._start, self._pause = max(self._free, frame - self._margin), None
                self._continues = self._joined = False
        elif speech >= self._low:
            if self._pause is not None and frame - self._pause >= frames_in(self._options.min_pause_s):
                self._joined = True
            self._pause = None
        elif self._pause is None:
            self._pause = frame

    def _ended(self) -> list[AudioSegment]:
        """Return the open segment if its pause is long enough, or its first part if it is too long."""
        if self._start is None:
            return []
        if self._pause is not None and self._next - self._pause >= self._pause_needed():
            return self._close(self._pause + self._margin)
        longest = self._longest_frames
        if self._next - self._start <= longest + frames_in(SHORTEST_PART_S):
            return []
        first, _ = self._segment(self._next).cut(longest // 2, longest)
        self._start = self._free = self._start + len(first.activity)
        self._continues = True
        return [first]

    @property
    def _longest_frames(self) -> int:
        return int(self._longest_s * SAMPLE_RATE_HZ) // FRAME_SAMPLES

    def _pause_needed(self) -> int:
        """Return how many frames of pause end the segment: the longer it is, the fewer."""
        assert self._start is not None
        assert self._pause is not None
        options = self._options
        speech = max(0, self._pause - self._start)  # the pause may have begun before the cut
        grown = min(1.0, speech / frames_in(self._join_s)) if self._join_s else 1.0
        longest_s = max(JOIN_PAUSE_SHARE * self._join_s, JOIN_PAUSE_S, options.min_pause_s)
        return frames_in(longest_s + grown * (options.min_pause_s - longest_s))

    def _close(self, end: int) -> list[AudioSegment]:
        """Close the segment at frame ``end``. Return it, or two parts if it is too long, or none if it is a click.

        After a cut, a single frame above the lower threshold is enough, since the speech began before the cut.
        """
        assert self._start is not None
        end = max(end, self._start)
        segment = self._segment(end)
        speech = self._speech[self._start - self._base : end - self._base]
        self._start, self._pause, self._free = None, None, end
        spoken = (speech >= (self._low if self._continues else self._options.vad_threshold)).sum()
        if spoken < (1 if self._continues else frames_in(SHORTEST_SPEECH_S)):
            return []
        if len(segment.samples) <= self._longest_s * SAMPLE_RATE_HZ:
            return [segment]
        frames, longest, shortest = len(segment.activity), self._longest_frames, frames_in(SHORTEST_PART_S)
        return list(segment.cut(max(shortest, frames - longest), min(longest, frames - shortest)))

    def _segment(self, end: int) -> AudioSegment:
        """Return the open segment up to frame ``end``."""
        assert self._start is not None
        first, last = self._start - self._base, end - self._base
        samples = self._samples[first * FRAME_SAMPLES : last * FRAME_SAMPLES]
        power = np.square(samples).reshape(-1, FRAME_SAMPLES).mean(axis=1)  # (frames,)
        loudness_db = 10 * np.log10(power + SILENT_POWER)
        within = self.read - self._start * FRAME_SAMPLES  # the last frame may be padded with zeros
        activity = self._speech[first:last] + loudness_db / QUIETER_DB
        start = self._first_sample + self._start * FRAME_SAMPLES
        return AudioSegment(start, samples[:within].copy(), activity, self._joined)

    def _forget(self) -> None:
        """Discard all frames before the open segment, or before the margin of the next one."""
        keep = self._start if self._start is not None else max(self._free, self._next - self._margin)
        self._samples = self._samples[(keep - self._base) * FRAME_SAMPLES :]
        self._speech = self._speech[keep - self._base :]
        self._base = keep
