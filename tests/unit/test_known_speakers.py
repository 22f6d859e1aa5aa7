"""Known speakers: what they sound like, who in a recording is known, and recordings that are of no use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.campplus import Pitches
from support.errors import refused

from funasr_cli import demo
from funasr_cli.audio.decode import from_array, load_audio
from funasr_cli.stages.known_speakers import ALIKE, MOST_SPEECH_S, KnownSpeakers, listen

RATE_HZ = 16000
CLIPS = [clip.path for clip in demo.clips()]


def known(**voices: list[float]) -> KnownSpeakers:
    return KnownSpeakers(tuple(voices), np.array(list(voices.values())))


def test_each_name_is_given_once_to_the_most_alike() -> None:
    """Not in order of appearance; and not to those who are not alike enough."""
    people = known(ann=[1, 0, 0], bo=[0, 1, 0])
    means = {"0": np.array([0.8, 0.6, 0]), "1": np.array([2.0, 0.1, 0]), "2": np.array([0, 0, 1.0])}
    assert people.named(means) == {"1": "ann", "0": "bo"}
    assert people.named({"0": means["0"], "2": means["2"]}) == {"0": "ann"}
    assert people.named({}) == {}


@pytest.mark.parametrize(("cosine", "found"), [(ALIKE + 0.01, {"0": "ann"}), (ALIKE - 0.01, {})])
def test_the_least_likeness(cosine: float, found: dict[str, str]) -> None:
    mean = np.array([cosine, np.sqrt(1 - cosine**2)])
    assert known(ann=[1, 0]).named({"0": 3 * mean}) == found


class Windows(Pitches):
    """A model that keeps the clips it gets."""

    def __init__(self) -> None:
        self.clips = list[np.ndarray]()

    def embed(self, clips: np.ndarray) -> np.ndarray:
        self.clips.append(clips)
        return super().embed(clips)


def test_what_speakers_sound_like() -> None:
    """The mean of the windows of speech. Silence around it makes no difference."""
    speech, model = load_audio(CLIPS[0], RATE_HZ), Windows()
    silence = np.zeros(4 * RATE_HZ, np.float32)
    padded = from_array(np.concatenate([silence, speech.samples, silence]), RATE_HZ, RATE_HZ)
    people = listen({"ann": CLIPS[0], "bo": padded, "cy": load_audio(CLIPS[3], RATE_HZ)}, model)
    assert people.names == ("ann", "bo", "cy")
    units = Pitches().embed(model.clips[0])
    assert people.voices[0] == pytest.approx(units.mean(axis=0) / np.linalg.norm(units.mean(axis=0)))
    assert sum(len(clips) for clips in model.clips[1:2]) * 0.75 < speech.duration_s + 1
    assert np.linalg.norm(people.voices, axis=1) == pytest.approx(1)


def test_long_recordings_are_not_read_to_their_end() -> None:
    speech = load_audio(CLIPS[0], RATE_HZ).samples
    block = np.concatenate([speech] * 4)[: 10 * RATE_HZ]

    class Endless:
        name, sample_rate_hz, expected_s, start_s, read = "endless", RATE_HZ, None, 0.0, 0

        def blocks(self) -> Iterator[np.ndarray]:
            while True:
                self.read += 1
                yield block

    source = Endless()
    listen({"ann": source}, Pitches())  # type: ignore[dict-item]
    assert MOST_SPEECH_S / 10 <= source.read < 10


def test_recordings_that_are_of_no_use(tmp_path: Path) -> None:
    """The message names the speaker."""
    with refused("audio-too-short", "ann"):
        listen({"ann": from_array(np.zeros(5 * RATE_HZ), RATE_HZ, RATE_HZ)}, Pitches())
    with refused("audio-too-short", "ann"):
        listen({"ann": from_array(load_audio(CLIPS[0], RATE_HZ).samples[:8000], RATE_HZ, RATE_HZ)}, Pitches())
    with refused("audio-missing", "gone.wav"):
        listen({"ann": tmp_path / "gone.wav"}, Pitches())
