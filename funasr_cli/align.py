"""Word times from another model's CTC output, for a model that does not provide them itself."""

from dataclasses import replace

from funasr_cli.decoding.agreement import spoken_before
from funasr_cli.decoding.text import clean_text
from funasr_cli.decoding.words import time_words
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import SegmentRequest, SpeechModel, TranscriptStage
from funasr_cli.transcript import Segment, Transcript
from funasr_cli.units import is_spoken


class Aligner(TranscriptStage):
    """Stage that adds word times to a segment by aligning its text with another model's CTC output.

    Differences in spelling are handled as between a decoder and its own CTC branch (`decoding/words.py`). Words
    that cannot be matched get estimated times and are marked as such.
    """

    def __init__(self, model: SpeechModel, options: TranscribeOptions):
        """Take the aligning model and the options of the run, so that it uses the same language and ITN."""
        self._model, self._options = model, options

    def segment(self, request: SegmentRequest, segment: Segment) -> Segment:
        """Add the words with their times, unless the text has none."""
        if not any(map(is_spoken, segment.text)):
            return segment
        reading = self._model.read_ctc(request.audio.samples, self._options)
        earlier = clean_text((request.first and self._options.prev_text) or "")
        before = spoken_before(segment.text, earlier, reading.text)
        return replace(segment, words=time_words(segment.text, reading, segment.start_s, segment.end_s, before))

    def transcript(self, transcript: Transcript) -> Transcript:
        """Add the name of the model that measured the word times."""
        return replace(transcript, aligned_by=self._model.name)
