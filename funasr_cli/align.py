"""Times of words by another model's CTC output, for a model that cannot tell them itself."""

from dataclasses import replace

from funasr_cli.audio.segment import AudioSegment
from funasr_cli.decoding.words import time_words
from funasr_cli.speech_model import SpeechModel, TranscriptStage
from funasr_cli.transcript import Segment
from funasr_cli.units import is_spoken


class Aligner(TranscriptStage):
    """Gives the words of each segment the times at which another model hears them.

    What it spells otherwise is bridged as between a decoder and its own CTC branch (`decoding/words.py`); words
    that cannot be bridged are marked as estimated.
    """

    timed_as = "ctc"

    def __init__(self, model: SpeechModel, language: str | None):
        """`language` is what the recording is in, an ISO code; None lets the model decide."""
        self._model, self._language = model, language

    def segment(self, audio: AudioSegment, segment: Segment) -> Segment:
        """Add the words, if there are any."""
        if not any(map(is_spoken, segment.text)):
            return segment
        reading = self._model.read_ctc(audio.samples, self._language)
        return replace(segment, words=time_words(segment.text, reading, audio.start_s, audio.end_s))
