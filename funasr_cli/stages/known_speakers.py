"""Known speakers: what they sound like, and which of the voices in a recording are theirs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from funasr_cli.audio.decode import AudioInput, opener
from funasr_cli.audio.segment import AudioSegment
from funasr_cli.diarization import embedded, of_length_one
from funasr_cli.errors import AudioError
from funasr_cli.options import DEFAULTS
from funasr_cli.scheduling.segments import Segmenter
from funasr_cli.speaker_model import SpeakerModel

ALIKE = 0.5  # cosine of the mean embeddings of one speaker; docs/speakers.md has the measurement
LEAST_SPEECH_S, MOST_SPEECH_S = 1.0, 30.0  # of a known speaker; what follows is not read


@dataclass(frozen=True, eq=False)
class KnownSpeakers:
    """Speakers whose voices are known: `voices` is (speakers, width), of length one, in the order of `names`."""

    names: tuple[str, ...]
    voices: np.ndarray

    def named(self, means: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Return the names of those who are known, given the mean embedding (width,) of each speaker.

        The two who are most alike are the same person, then the next two, as long as they are alike enough. So a
        name is given only once.
        """
        found = dict[str, str]()
        if not means:
            return found
        speakers = list(means)
        cosines = of_length_one(np.stack(list(means.values()))) @ self.voices.T  # (speakers, known)
        while cosines.max() >= ALIKE:
            speaker, known = np.unravel_index(cosines.argmax(), cosines.shape)
            found[speakers[speaker]] = self.names[known]
            cosines[speaker], cosines[:, known] = -np.inf, -np.inf
        return found


def listen(recordings: Mapping[str, AudioInput], model: SpeakerModel) -> KnownSpeakers:
    """Return what speakers sound like, given a recording of each, by name.

    Raises:
        AudioError: a recording cannot be read, or has too little speech.
    """
    voices = [_voice(name, audio, model) for name, audio in recordings.items()]
    return KnownSpeakers(tuple(recordings), np.stack(voices))


def _voice(name: str, audio: AudioInput, model: SpeakerModel) -> np.ndarray:
    """Return the mean embedding (width,) of the speech in a recording, of length one."""
    source, segmenter = opener(audio, model.sample_rate_hz)(), Segmenter(DEFAULTS)
    segments, blocks = list[AudioSegment](), iter(source.blocks())
    while sum(segment.duration_s for segment in segments) < MOST_SPEECH_S:
        if (block := next(blocks, None)) is None:
            segments += segmenter.finish()
            break
        segments += segmenter.push(block)
    speech_s = sum(segment.duration_s for segment in segments)
    if speech_s < LEAST_SPEECH_S:
        message = f"{source.name}: {speech_s:.1f} s of speech are too few to know the voice of {name}"
        raise AudioError(message, f"record at least {LEAST_SPEECH_S:g} s", code="audio-too-short")
    vectors = np.concatenate([embedded(segment, model)[1] for segment in segments])  # (windows, width)
    return of_length_one(of_length_one(vectors).mean(axis=0, keepdims=True))[0]
