"""A segment of a recording, usually from one pause to the next, and the best place to cut it in two."""

from dataclasses import dataclass

import numpy as np

from funasr_cli.audio.vad import FRAME_SAMPLES, SAMPLE_RATE_HZ

SHORTEST_PART_S = 0.5  # shortest part when a segment is cut without a pause
SMOOTHING_FRAMES = 5  # 160 ms, longer than the silence within a stop consonant


def frames_in(duration_s: float) -> int:
    """Return the number of frames of the voice activity detector in this duration, at least one."""
    return max(1, round(duration_s * SAMPLE_RATE_HZ / FRAME_SAMPLES))


def deepest_pause(activity: np.ndarray, first: int, last: int) -> int:
    """Return the frame from ``first`` to ``last`` with the least speech around it; ``activity`` is (frames,)."""
    smooth = np.convolve(np.pad(activity, SMOOTHING_FRAMES // 2, mode="edge"), np.ones(SMOOTHING_FRAMES), "valid")
    return first + int(smooth[first : last + 1].argmin())


@dataclass(frozen=True)
class AudioSegment:
    """A part of a recording that is decoded as one unit."""

    start: int  # index of its first sample in the recording
    samples: np.ndarray  # (samples,) float32 at 16 kHz
    activity: np.ndarray  # (frames,) amount of speech per frame of 32 ms; comparable only within the segment
    joined: bool = False  # whether it continued across a pause that would end a segment if none were joined

    @property
    def end(self) -> int:
        """Index of the first sample after the segment."""
        return self.start + len(self.samples)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE_HZ

    @property
    def start_s(self) -> float:
        """Start in seconds."""
        return self.start / SAMPLE_RATE_HZ

    @property
    def end_s(self) -> float:
        """End in seconds."""
        return self.end / SAMPLE_RATE_HZ

    def cut(self, first: int, last: int) -> tuple["AudioSegment", "AudioSegment"]:
        """Return two parts, cut at the deepest pause from frame ``first`` to frame ``last``."""
        frame = deepest_pause(self.activity, first, last)
        sample = frame * FRAME_SAMPLES
        return (
            AudioSegment(self.start, self.samples[:sample], self.activity[:frame], self.joined),
            AudioSegment(self.start + sample, self.samples[sample:], self.activity[frame:], self.joined),
        )

    def halves(self) -> tuple["AudioSegment", "AudioSegment"] | None:
        """Return two parts, cut at the deepest pause; None if the segment is too short to be cut."""
        shortest = frames_in(SHORTEST_PART_S)
        last = len(self.samples) // FRAME_SAMPLES - shortest
        return self.cut(shortest, last) if last >= shortest else None
