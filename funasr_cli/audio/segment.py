"""A segment of a recording: samples between two pauses, and where it is best cut in two."""

from dataclasses import dataclass

import numpy as np

from funasr_cli.audio.vad import FRAME_SAMPLES, SAMPLE_RATE_HZ

SHORTEST_PART_S = 0.5  # of what is cut without a pause
SMOOTHING_FRAMES = 5  # a cut wants 160 ms of quiet, not a single stop consonant


def frames_in(duration_s: float) -> int:
    """Return how many frames of the voice activity detector this is, at least one."""
    return max(1, round(duration_s * SAMPLE_RATE_HZ / FRAME_SAMPLES))


def deepest_pause(activity: np.ndarray, first: int, last: int) -> int:
    """The frame from ``first`` to ``last`` around which there is least speech, ``activity`` being (frames,)."""
    smooth = np.convolve(np.pad(activity, SMOOTHING_FRAMES // 2, mode="edge"), np.ones(SMOOTHING_FRAMES), "valid")
    return first + int(smooth[first : last + 1].argmin())


@dataclass(frozen=True)
class AudioSegment:
    """A part of a recording that is decoded in one piece."""

    start: int  # its first sample in the recording
    samples: np.ndarray  # (samples,) float32 at 16 kHz
    activity: np.ndarray  # (frames,) how much speech is in each frame of 32 ms; comparable within the segment

    @property
    def end(self) -> int:
        """The first sample behind it."""
        return self.start + len(self.samples)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE_HZ

    @property
    def start_s(self) -> float:
        """Where it begins, in seconds."""
        return self.start / SAMPLE_RATE_HZ

    @property
    def end_s(self) -> float:
        """Where it ends, in seconds."""
        return self.end / SAMPLE_RATE_HZ

    def cut(self, first: int, last: int) -> tuple["AudioSegment", "AudioSegment"]:
        """Two parts, cut at the deepest pause from frame ``first`` to frame ``last``."""
        frame = deepest_pause(self.activity, first, last)
        sample = frame * FRAME_SAMPLES
        return (
            AudioSegment(self.start, self.samples[:sample], self.activity[:frame]),
            AudioSegment(self.start + sample, self.samples[sample:], self.activity[frame:]),
        )

    def halves(self) -> tuple["AudioSegment", "AudioSegment"] | None:
        """Two parts, cut at the deepest pause; None where that would leave less than half a second."""
        shortest = frames_in(SHORTEST_PART_S)
        last = len(self.samples) // FRAME_SAMPLES - shortest
        return self.cut(shortest, last) if last >= shortest else None
