"""Fun-ASR-Nano, ready to transcribe: features, encoder, CTC branch, prompt, and tokens to text."""

from collections.abc import Sequence

import numpy as np

from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE, TOKENIZER_FILE
from funasr_cli.checkpoints.vocabularies import read_ctc_vocabulary, read_tokenizer
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.errors import ModelError
from funasr_cli.families.batches import Frames
from funasr_cli.families.family import LoadedModel
from funasr_cli.families.frontend import FilterBankModel
from funasr_cli.families.fun_asr_nano.prompt import prompt_texts, prompt_token_ids
from funasr_cli.families.fun_asr_nano.session import ROW_OPTIONS, NanoSession
from funasr_cli.families.writing import QwenWriter
from funasr_cli.options import DEFAULTS, MAX_SEGMENT_S, SEGMENT_S, TranscribeOptions
from funasr_cli.speech_model import EncodedAudio, Prompt, Trace

POSITIONS = 40960  # of Qwen3-0.6B


class NanoModel(FilterBankModel):
    """A loaded model, with a method for each stage; see `SpeechModel`. Rows of a batch are independent."""

    best_segment_s, longest_segment_s = SEGMENT_S, float(MAX_SEGMENT_S)
    window_s: float | None = None
    row_options = ROW_OPTIONS

    def __init__(self, loaded: LoadedModel):
        super().__init__(loaded.file.config.frontend)
        self.loaded = loaded
        self.config, self.network = loaded.file.config, loaded.network
        files, has_ctc = loaded.files, self.config.ctc is not None
        self.tokenizer = read_tokenizer(files[TOKENIZER_FILE], self.config.llm.vocab_size)
        self.ctc_vocabulary = read_ctc_vocabulary(files[CTC_VOCABULARY_FILE]) if has_ctc else None
        self.name, self.weights_type, self.engine = loaded.name, loaded.weights_type, loaded.engine
        self.capabilities = loaded.family.capabilities(self.config)
        self.parameters, self.native_bytes = loaded.parameters, loaded.native_bytes

    def session(self, options: TranscribeOptions) -> NanoSession:
        """Begin a run; raise a `UsageError` if the options do not fit into the prompt."""
        return NanoSession(self, options)

    def encode(self, samples: np.ndarray) -> EncodedAudio:
        """Run the encoder over (samples,) at `sample_rate_hz`; raise an `AudioError` if they are too few."""
        encoded = self.encoded([self.features(samples)])
        [frames], [embeddings] = encoded, self.network.audio_embeddings(encoded)
        mx.eval(embeddings := mx.array(embeddings))
        return EncodedAudio(mx.array(frames), embeddings, self.config.frontend.row_duration_s)

    def read_ctc(self, samples: np.ndarray, options: TranscribeOptions = DEFAULTS) -> CTCReading:
        """Return the CTC branch's output, which ignores the options; raise a `ModelError` without a CTC branch."""
        [reading] = self.ctc_readings(self.encoded([self.features(samples)]))
        return reading

    def trace(
        self, samples: np.ndarray, options: TranscribeOptions, forced_ids: Sequence[int] | None = None
    ) -> Trace:
        """Run (samples,) through the model as one segment, up to `options.max_tokens` tokens."""
        features = self.features(samples)
        encoded = self.encoded([features])
        llm, stops = self.network.llm, self.config.stop_token_ids
        [embeddings] = self.network.audio_embeddings(encoded)
        [prompt] = self.prompts(encoded, options)
        decoder = BatchDecoder(llm, make_sampler(options))
        decoder.add([prompt])
        written: list[int] = []
        while len(written) != options.max_tokens and not (written and written[-1] in stops):
            written += [token.token_id for token in decoder.step()]
        forced = forced_ids or written
        columns = mx.concatenate([prompt, self._embedded(forced[:-1])])  # (columns, hidden)
        return Trace(
            stages={
                "features": features,
                "encoder": np.array(encoded[0]),
                "audio_embeddings": np.array(embeddings),
            },
            logits=np.array(llm.logits_after(columns, len(forced))),  # (steps, vocab)
            token_ids=tuple(written),
            text=self.tokenizer.decode([token_id for token_id in written if token_id not in stops]),
        )

    def prompt(self, options: TranscribeOptions, *, first: bool = True) -> Prompt:
        """Return the prompt of the `first` segment of a recording, or of a later one."""
        config = self.config.prompt
        ids = prompt_token_ids(options, config, self.tokenizer, first=first)
        return Prompt(*prompt_texts(options, config, first=first), *map(len, ids))

    def encoded(self, features: list[np.ndarray]) -> list[Frames]:
        """Run the encoder over a batch: (rows, row width) -> (frames, encoder width) for each clip."""
        return self.network.encode(features)

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

    def _embedded(self, ids: Sequence[int]) -> mx.array:
        """Look up (tokens, hidden) embeddings of the decoder."""
        return mx.array(self.network.llm.embed(mx.array(ids, mx.int32)))

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

    def token_ids(self, text: str) -> list[int]:
        """Encode a text as the decoder's tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def spell(self, token_ids: list[int]) -> str:
        """Decode the decoder's tokens to text, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)
