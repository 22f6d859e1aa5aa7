"""Times of words by another model's CTC output, for a model that cannot tell them itself."""

from dataclasses import replace

from funasr_cli.decoding.agreement import said_before
from funasr_cli.decoding.text import clean_text
from funasr_cli.decoding.words import time_words
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import SegmentRequest, SpeechModel, TranscriptStage
from funasr_cli.transcript import Segment, Transcript
from funasr_cli.units import is_spoken


class Aligner(TranscriptStage):
    """Gives the words of each segment the times at which another model hears them.

    What it spells otherwise is bridged as between a decoder and its own CTC branch (`decoding/words.py`); words
    that cannot be bridged are marked as estimated.
    """

    def __init__(self, model: SpeechModel, options: TranscribeOptions):
        """`options` are those of the run: the other model is asked for the same language and spelling."""
        self._model, self._options = model, options

    def segment(self, request: SegmentRequest, segment: Segment) -> Segment:
        """Add the words, if there are any."""
        if not any(map(is_spoken, segment.text)):
            return segment
        reading = self._model.read_ctc(request.audio.samples, self._options)
        earlier = clean_text((request.first and self._options.prev_text) or "")
        before = said_before(segment.text, earlier, reading.text)
        return replace(segment, words=time_words(segment.text, reading, segment.start_s, segment.end_s, before))

    def transcript(self, transcript: Transcript) -> Transcript:
        """Add the name of the model that measured the word times."""
        return replace(transcript, aligned_by=self._model.name)
