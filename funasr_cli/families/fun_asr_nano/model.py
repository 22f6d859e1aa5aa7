"""Fun-ASR-Nano, ready to transcribe: features, encoder, CTC branch, prompt, and tokens to text."""

from collections.abc import Sequence

import numpy as np

from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE
from funasr_cli.checkpoints.vocabularies import read_ctc_vocabulary
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.errors import ModelError
from funasr_cli.families.batches import Frames
from funasr_cli.families.decoder_model import DecoderModel
from funasr_cli.families.family import LoadedModel
from funasr_cli.families.fun_asr_nano.prompt import prompt_texts, prompt_token_ids
from funasr_cli.families.fun_asr_nano.session import ROW_OPTIONS, NanoSession
from funasr_cli.families.writing import QwenWriter
from funasr_cli.options import DEFAULTS, MAX_SEGMENT_S, SEGMENT_S, TranscribeOptions
from funasr_cli.speech_model import Prompt

POSITIONS = 40960  # of Qwen3-0.6B


class NanoModel(DecoderModel):
    """A loaded model, with a method for each stage; see `SpeechModel`."""

    best_segment_s, longest_segment_s = SEGMENT_S, float(MAX_SEGMENT_S)
    row_options = ROW_OPTIONS

    def __init__(self, loaded: LoadedModel):
        super().__init__(loaded)
        has_ctc = self.config.ctc is not None
        self.ctc_vocabulary = read_ctc_vocabulary(loaded.files[CTC_VOCABULARY_FILE]) if has_ctc else None

    def session(self, options: TranscribeOptions) -> NanoSession:
        """Begin a run; raise a `UsageError` if the options do not fit into the prompt."""
        return NanoSession(self, options)

    def read_ctc(self, samples: np.ndarray, options: TranscribeOptions = DEFAULTS) -> CTCReading:
        """Return the CTC branch's output, which ignores the options; raise a `ModelError` without a CTC branch."""
        [reading] = self.ctc_readings(self.encoded([self.features(samples)]))
        return reading

    def prompt(self, options: TranscribeOptions, *, first: bool = True) -> Prompt:
        """Return the prompt of the `first` segment of a recording, or of a later one."""
        config = self.config.prompt
        ids = prompt_token_ids(options, config, self.tokenizer, first=first)
        return Prompt(*prompt_texts(options, config, first=first), *map(len, ids))

    def prompts(
        self, encoded: Sequence[Frames], options: TranscribeOptions, first: list[bool] | None = None
    ) -> list[mx.array]:
        """Return the decoder's input, (length, hidden) embeddings for each clip: text, audio, text.

        ``first`` marks the rows that are the first of their recordings; None marks all of them.
        """
        embeddings = self.network.audio_embeddings(encoded)
        first = first or [True] * len(embeddings)
        texts = {}  # (tokens, hidden) before and after the audio embeddings
        for is_first in set(first):
            ids = prompt_token_ids(options, self.config.prompt, self.tokenizer, first=is_first)
            texts[is_first] = [self._embedded(part) for part in ids]
        return [
            mx.concatenate([texts[is_first][0], audio, texts[is_first][1]])
            for audio, is_first in zip(embeddings, first, strict=True)
        ]

    @property
    def text_model(self) -> QwenWriter:
        """The decoder as a model of texts; see `HasTextModel`. It was trained on little but transcription."""
        return QwenWriter(
            self.loaded,
            self.network.llm,
            self.tokenizer,
            stop_token_ids=self.config.stop_token_ids,
            positions=POSITIONS,
            empty_think=self.config.prompt.empty_think,
        )

    def ctc_readings(self, encoded: Sequence[Frames]) -> list[CTCReading]:
        """Return the CTC branch's output for each row; raise a `ModelError` without a CTC branch."""
        vocabulary, ctc, network = self.ctc_vocabulary, self.config.ctc, self.network
        if vocabulary is None or ctc is None:
            hint = self.capabilities.hints["ctc_text"]
            raise ModelError(f"{self.name} has no CTC branch", hint, code="ctc-missing")
        frame_s = self.config.frontend.row_duration_s
        return [
            CTCReading(network.ctc, hidden, vocabulary, ctc.blank_id, frame_s)
            for hidden in network.ctc_hidden(encoded)
        ]
