"""FunASR-Qwen4B, ready to transcribe: features, encoder, adaptor, prompt, and tokens to text."""

from collections.abc import Sequence

import numpy as np

from funasr_cli.compute.backend import mx
from funasr_cli.families.batches import Frames
from funasr_cli.families.cmvn import read_cmvn
from funasr_cli.families.decoder_model import DecoderModel
from funasr_cli.families.family import LoadedModel
from funasr_cli.families.funasr_qwen4b.prompt import FORMATS, TRANSCRIBE
from funasr_cli.families.funasr_qwen4b.session import ROW_OPTIONS, Qwen4BSession
from funasr_cli.families.writing import QwenWriter
from funasr_cli.features.floored_fbank import FlooredFrontend
from funasr_cli.options import SCALED_INPUT, SEGMENT_S, TranscribeOptions
from funasr_cli.speech_model import Prompt


class Qwen4BModel(DecoderModel):
    """A loaded model, with a method for each stage; see `SpeechModel`."""

    best_segment_s, longest_segment_s = SEGMENT_S, SEGMENT_S
    row_options = ROW_OPTIONS

    def __init__(self, loaded: LoadedModel):
        super().__init__(loaded)
        config = self.config
        self.cmvn = read_cmvn(loaded.files, config.frontend.row_width) if config.has_queries else None
        if not config.has_queries:
            is_scaled = config.encoder_input == SCALED_INPUT
            self.frontend = FlooredFrontend(config.frontend, is_scaled=is_scaled)

    @property
    def text_model(self) -> QwenWriter:
        """The decoder as a model of texts; see `HasTextModel`."""
        config, llm = self.config, self.network.llm
        return QwenWriter(
            self.loaded, llm, self.tokenizer, stop_token_ids=config.stop_token_ids, positions=config.positions,
            empty_think=config.empty_think,
        )  # fmt: skip

    def session(self, options: TranscribeOptions) -> Qwen4BSession:
        """Begin a run."""
        return Qwen4BSession(self, options)

    def features(self, samples: np.ndarray) -> np.ndarray:
        """Compute the encoder's input (rows, row width) of (samples,) at `sample_rate_hz`."""
        rows = super().features(samples)
        return self.cmvn(rows) if self.cmvn else rows

    def prompt(self, options: TranscribeOptions, *, first: bool = True) -> Prompt:
        """Return the prompt of the transcript, which is the same for all segments."""
        texts = FORMATS[self.config.prompt_format][TRANSCRIBE]
        return Prompt(*texts, *(len(self.token_ids(text)) for text in texts))

    def prompts(
        self, encoded: Sequence[Frames], options: TranscribeOptions, first: list[bool] | None = None
    ) -> list[mx.array]:
        """Return the decoder's input for the transcript of each clip; see `task_prompts`."""
        [prompts] = self.task_prompts(encoded, [TRANSCRIBE])
        return prompts

    def task_prompts(self, encoded: Sequence[Frames], tasks: Sequence[str]) -> list[list[mx.array]]:
        """Return the decoder's input, (length, hidden) embeddings, for each task and clip: text, audio, text."""
        embeddings = self.network.audio_embeddings(encoded)
        texts = [FORMATS[self.config.prompt_format][task] for task in tasks]
        around = [[self._embedded(self.token_ids(text)) for text in pair] for pair in texts]
        return [[mx.concatenate([before, audio, after]) for audio in embeddings] for before, after in around]
