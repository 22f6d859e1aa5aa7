"""SenseVoiceSmall, loaded: samples to features, encoder, text and tags.

Source: FunASR ``funasr/models/sense_voice/model.py`` (``SenseVoiceSmall.inference``).
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import soxr

from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.capabilities import Capabilities
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.families.sense_voice.config import LANGUAGES, QUERIES, query_rows
from funasr_cli.families.sense_voice.network import SenseVoice
from funasr_cli.families.sense_voice.session import SenseVoiceSession
from funasr_cli.features.cmvn import CMVN
from funasr_cli.features.fbank import Frontend
from funasr_cli.measure import available_bytes
from funasr_cli.options import DEFAULTS, MAX_SEGMENT_S, TranscribeOptions
from funasr_cli.speech_model import EncodedAudio, Session, Trace
from funasr_cli.vocabulary import PieceVocabulary

MAX_ROWS = 16
CAPABILITIES = Capabilities(
    languages=LANGUAGES, itn_switch=True, word_times=True, confidence=True, language_found=True, tags=True
)


class SenseVoiceModel:
    """A SenseVoiceSmall that is ready to transcribe."""

    sample_rate_hz = SAMPLE_RATE_HZ
    capabilities = CAPABILITIES
    best_segment_s = 30.0
    longest_segment_s = float(MAX_SEGMENT_S)
    window_s = None

    def __init__(self, network: SenseVoice, vocabulary: PieceVocabulary, cmvn: CMVN, name: str, weights_type: str):
        self.network, self.vocabulary, self.cmvn = network, vocabulary, cmvn
        self.name, self.weights_type = name, weights_type
        self.config = network.config
        self.frontend = Frontend(self.config.frontend)

    def session(self, options: TranscribeOptions) -> Session:
        """Begin a run."""
        return SenseVoiceSession(self, options)

    def features(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) at `sample_rate_hz` -> (rows, row width), normalised."""
        rate_hz = self.config.frontend.sample_rate_hz
        if rate_hz != SAMPLE_RATE_HZ:
            samples = soxr.resample(samples, SAMPLE_RATE_HZ, rate_hz)
        return self.cmvn(np.array(self.frontend(samples)))

    def read(self, hidden: mx.array) -> CTCReading:
        """(queries + rows, encoder width) -> what the CTC head hears in the rows."""
        frame_s = self.config.frontend.row_duration_s
        return CTCReading(self.network.ctc, hidden[QUERIES:], self.vocabulary, self.config.blank_id, frame_s)

    def tag_probabilities(self, hidden: mx.array, query: int, tags: Iterable[str]) -> dict[str, float]:
        """Return how likely each of some tags is at a query, if it is one of those; unknown ones are left out."""
        known = [tag for tag in tags if tag in self.vocabulary.tags]
        logits = self.network.ctc.logits_of(
            hidden[query : query + 1], [self.vocabulary.tags[tag] for tag in known]
        )
        weights = np.exp(logits[0] - logits.max())
        return dict(zip(known, (weights / weights.sum()).tolist(), strict=True))

    def rows_that_fit(self, longest_s: float) -> int:
        """Choose as many as pay, if half of the free memory holds what a layer computes of them."""
        encoder = self.config.encoder
        frames = QUERIES + math.ceil(longest_s / self.config.frontend.row_duration_s)
        values = frames * (encoder.heads * frames + encoder.ffn_dim + 8 * encoder.width)  # scores, FFN, q k v ...
        return max(1, min(MAX_ROWS, available_bytes() // 2 // (4 * values)))

    def encode(self, samples: np.ndarray) -> EncodedAudio:
        """Run the encoder over (samples,), asked for any language and for digits."""
        frames = self._encoded(self.features(samples))[QUERIES:]
        return EncodedAudio(frames, None, self.config.frontend.row_duration_s)

    def read_ctc(self, samples: np.ndarray) -> CTCReading:
        """Return what it hears in (samples,), asked for any language and for digits."""
        return self.read(self._encoded(self.features(samples)))

    def trace(self, samples: np.ndarray, forced_ids: Sequence[int] | None = None) -> Trace:
        """Take (samples,) through the model; a frame does not depend on what was written before it."""
        features = self.features(samples)
        hidden = self._encoded(features)
        logits = np.array(self.network.ctc.logits(hidden))  # (queries + rows, vocabulary)
        stages = {"features": features, "encoder": np.array(hidden)}
        return Trace(stages, logits, tuple(logits.argmax(-1).tolist()), self.read(hidden).text)

    def prompt_texts(self, options: TranscribeOptions) -> tuple[str, ...]:
        """It is not asked in words."""
        return ()

    def _encoded(self, features: np.ndarray) -> mx.array:
        [hidden] = self.network.encode([features], [query_rows(None, itn=DEFAULTS.itn)])
        return hidden
