"""A segment of a recording, usually from one pause to the next, and the best place to cut it in two."""

from dataclasses import dataclass, replace

import numpy as np

from funasr_cli.audio.vad import FRAME_SAMPLES, SAMPLE_RATE_HZ

SHORTEST_PART_S = 0.5  # shortest part when a segment is cut without a pause
SMOOTHING_S = 0.16  # longer than the silence within a stop consonant


def frames_in(duration_s: float, frame_samples: int = FRAME_SAMPLES) -> int:
    """Return the number of frames of the voice activity detector in this duration, at least one."""
    return max(1, round(duration_s * SAMPLE_RATE_HZ / frame_samples))


def deepest_pause(activity: np.ndarray, first: int, last: int, frame_samples: int = FRAME_SAMPLES) -> int:
    """Return the frame from ``first`` to ``last`` with the least speech around it; ``activity`` is (frames,)."""
    around = frames_in(SMOOTHING_S, frame_samples) // 2
    smooth = np.convolve(np.pad(activity, around, mode="edge"), np.ones(2 * around + 1), "valid")
    return first + int(smooth[first : last + 1].argmin())


@dataclass(frozen=True)
class AudioSegment:
    """A part of a recording that is decoded as one unit."""

    start: int  # index of its first sample in the recording
    samples: np.ndarray  # (samples,) float32 at 16 kHz
    activity: np.ndarray  # (frames,) amount of speech per frame; comparable only within the segment
    joined: bool = False  # whether it continued across a pause that would end a segment if none were joined
    frame_samples: int = FRAME_SAMPLES  # in each frame of `activity`

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
        frame = deepest_pause(self.activity, first, last, self.frame_samples)
        sample = frame * self.frame_samples
        return (
            replace(self, samples=self.samples[:sample], activity=self.activity[:frame]),
            replace(
                self,
                start=self.start + sample,
                samples=self.samples[sample:],
                activity=self.activity[frame:],
            ),
        )

    def halves(self) -> tuple["AudioSegment", "AudioSegment"] | None:
        """Return two parts, cut at the deepest pause; None if the segment is too short to be cut."""
        shortest = frames_in(SHORTEST_PART_S, self.frame_samples)
        last = len(self.samples) // self.frame_samples - shortest
        return self.cut(shortest, last) if last >= shortest else None
