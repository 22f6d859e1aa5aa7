"""Talks of real voices, with the truth about who speaks when: the clips of `make real-data` in turns.

Nine voices: prompts of Asterisk (four), dialogues of a game (two actors in each of two languages), and a reader of
LibriVox, who has too few clips for long talks. Turns have 1 to 15 s, pauses between them 0.1 to 0.6 s. A talk of a
voice that runs out of clips repeats them.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import soxr

from tools.accuracy.joined import make_noise
from tools.real_data.cache import SEVERAL, root
from tools.real_data.speech import DURATION_S
from tools.real_data.voices import read_clip

RATE_HZ = 16000
PAUSE_S = (0.1, 0.6)
SEGMENT_PAUSE_S = 0.3  # a longer one separates segments
SNR_DB = 10
CLEAN, NOISE, TELEPHONE = CONDITIONS = ("clean", "noise", "8 kHz")
LEVEL = 0.05  # root of the mean square
USUAL_CLIP_S = 3.2
Said = list[tuple[float, float, str]]  # start, end and voice


@dataclass(frozen=True)
class Mixture:
    """A talk; the numbers are also the seed."""

    speakers: int
    minutes: int
    take: int

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.speakers}-voices-{self.minutes:02}-min-{self.take}"

    def talk(self) -> tuple[np.ndarray, Said]:
        """Return the samples (samples,), and who speaks when."""
        draw = np.random.default_rng([self.speakers, self.minutes, self.take])
        clips = {}
        for folder in sorted(path for path in (root() / SEVERAL).iterdir() if path.is_dir()):
            paths = sorted(path for path in folder.iterdir())
            if len(paths) * USUAL_CLIP_S >= 60 * self.minutes / self.speakers or len(paths) > 100:
                clips[folder.name] = cycle([paths[place] for place in draw.permutation(len(paths))])
        cast = draw.permutation(sorted(clips))[: self.speakers].tolist()
        said, parts, at, last = Said(), list[np.ndarray](), 0, ""
        while at < 60 * self.minutes * RATE_HZ or len({voice for _, _, voice in said}) < self.speakers:
            voice = str(draw.choice([each for each in cast if each != last]))
            wanted, start = draw.uniform(*DURATION_S) * RATE_HZ, at
            while at - start < wanted:
                clip = trimmed(next(clips[voice]))
                if at > start and at - start + len(clip) > DURATION_S[1] * RATE_HZ:
                    break
                parts.append(clip)
                at += len(clip)
            said.append((start / RATE_HZ, at / RATE_HZ, voice))
            parts.append(np.zeros(int(draw.uniform(*PAUSE_S) * RATE_HZ), np.float32))
            at, last = at + len(parts[-1]), voice
        return np.concatenate(parts).astype(np.float32), said

    def changed(self, samples: np.ndarray, condition: str) -> np.ndarray:
        """Return the talk's samples in a condition."""
        if condition == NOISE:
            power = float((samples[samples != 0] ** 2).mean())
            noise = make_noise(len(samples), np.random.default_rng([self.speakers, self.minutes, self.take]))
            return (samples + np.sqrt(power / 10 ** (SNR_DB / 10)) * noise).astype(np.float32)
        if condition == TELEPHONE:
            return soxr.resample(soxr.resample(samples, RATE_HZ, 8000), 8000, RATE_HZ).astype(np.float32)
        return samples


# 9 talks of each number of speakers, 57 minutes.
MIXTURES = tuple(
    Mixture(speakers, minutes, take)
    for minutes, takes in ((1, 3), (2, 2), (5, 2), (10, 1), (30, 1))
    for speakers in (2, 3, 4, 5)
    for take in range(takes)
)


# As many others, on which no threshold was chosen.
OTHERS = tuple(replace(mixture, take=mixture.take + 10) for mixture in MIXTURES)


@cache
def trimmed(path: Path) -> np.ndarray:
    """Read a clip without the silence at both ends, below a fiftieth of the loudest 20 ms, at a common level."""
    clip = read_clip(path, RATE_HZ)
    levels = np.sqrt((clip[: len(clip) // 320 * 320].reshape(-1, 320) ** 2).mean(axis=1))
    loud = np.flatnonzero(levels > levels.max() / 50)
    own = clip[loud[0] * 320 : (loud[-1] + 1) * 320]
    return own * (LEVEL / max(float(np.sqrt((own**2).mean())), 1e-6))


def segments(said: Said) -> list[tuple[float, float]]:
    """Return stretches of speech: turns that are closer than `SEGMENT_PAUSE_S` are one."""
    found: list[tuple[float, float]] = []
    for start_s, end_s, _ in said:
        if found and start_s - found[-1][1] < SEGMENT_PAUSE_S:
            found[-1] = (found[-1][0], end_s)
        else:
            found.append((start_s, end_s))
    return found
