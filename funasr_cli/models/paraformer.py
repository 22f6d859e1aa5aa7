"""The networks of Paraformer: SAN-M encoder, CIF predictor and decoder; for SeACo models, those of hotwords.

Source: FunASR ``funasr/models/paraformer/model.py`` (``Paraformer.inference``) and
``funasr/models/seaco_paraformer/model.py`` (``_seaco_decode_with_ASF``); Shi et al. 2023, "SeACo-Paraformer: A
Non-Autoregressive ASR System with Flexible and Effective Hotword Customization Ability", section 3. What differs:
upstream chooses among many hotwords by the first row of a batch, here each row does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from funasr_cli.compute.backend import mx, nn
from funasr_cli.models.cif import CIFConfig, Predictor
from funasr_cli.models.layers import embedding, linear
from funasr_cli.models.lstm import LSTM
from funasr_cli.models.sanm import PlainSANMEncoder, SANMConfig
from funasr_cli.models.sanm_decoder import SANMDecoder, SANMDecoderConfig

BIAS_LAYERS = 2  # of the LSTM that encodes hotwords
MOST_HOTWORDS = 50  # with more, including the last, the likeliest are chosen for each row

FIRST_WRITTEN = 3  # the tokens before it, <blank>, <s> and </s>, are not text

Rows = Sequence[np.ndarray]


class Hotwords(NamedTuple):
    """What to look for."""

    encoded: np.ndarray  # (hotwords, width); the last stands for none of them
    no_bias_id: int  # the output where none is found


@dataclass(frozen=True, eq=False)
class Reading:
    """What the model reads in a clip, token by token.

    Attributes:
        token_ids: (tokens,) all that fired, with </s>.
        logprobs: (tokens,) the log-probability of each.
        fine_weights: (steps,) where characters begin, see `models.cif`; None if no times are wanted.
        logits: (tokens, vocabulary) of the main decoder; hotwords have no influence on them.
        hidden: (rows, width), the encoder's output.
    """

    token_ids: np.ndarray
    logprobs: np.ndarray
    fine_weights: np.ndarray | None
    logits: np.ndarray
    hidden: np.ndarray

    @property
    def written(self) -> np.ndarray:
        """Indices of the tokens that are text, or unknown."""
        return np.flatnonzero(self.token_ids >= FIRST_WRITTEN)


class Paraformer(nn.Module):
    """The whole network. Attribute names are the checkpoint's keys, except for `hotword_embed`.

    The encoder and the decoders may be replaced by those of the C library, which take and give the same.
    """

    def __init__(
        self,
        encoder: SANMConfig,
        predictor: CIFConfig,
        decoder: SANMDecoderConfig,
        seaco: SANMDecoderConfig | None,
    ):
        super().__init__()
        width, vocab_size = encoder.width, decoder.vocab_size or 0
        self.encoder: Any = PlainSANMEncoder(encoder)
        self.predictor = Predictor(predictor)
        self.decoder: Any = SANMDecoder(decoder)
        if seaco:
            self.hotword_embed = embedding(vocab_size, width)
            self.bias_encoder = LSTM(width, BIAS_LAYERS)
            self.seaco_decoder: Any = SANMDecoder(seaco)
            self.hotword_output_layer = linear(width, vocab_size)

    def read(
        self, hidden: Rows, hotwords: Hotwords | None, tokens: int | None, *, has_times: bool
    ) -> list[Reading]:
        """Read clips from the encoder's output (rows, width); `tokens` forces the number of tokens.

        Where the hotword decoder finds a hotword, its token replaces that of the main decoder.
        """
        embeddings = [self.predictor(rows, tokens).embeddings for rows in hidden]
        decoded = self.decode(embeddings, hidden)
        heard = self.hotword_logits(embeddings, decoded, hotwords.encoded) if hotwords else []
        readings = []
        for number, rows in enumerate(hidden):
            has_tokens = len(decoded[number]) > 0
            logits = self.decoder.logits(decoded[number]) if has_tokens else np.zeros((0, 1), np.float32)
            ids, logprobs = _best(logits)
            if hotwords and has_tokens:
                others, other_logprobs = _best(heard[number])
                is_hotword = others != hotwords.no_bias_id  # (tokens,)
                ids, logprobs = np.where(is_hotword, others, ids), np.where(is_hotword, other_logprobs, logprobs)
            weights = self.predictor.fine_weights(rows, len(ids)) if has_times and has_tokens else None
            readings.append(Reading(ids, logprobs, weights, logits, rows))
        return readings

    def decode(self, embeddings: Rows, hidden: Rows) -> list[np.ndarray]:
        """Run the decoder: (tokens, width) and (rows, width) -> (tokens, width) for each clip."""
        return _decode(self.decoder, embeddings, hidden)

    def hotwords(self, words: Sequence[Sequence[int]]) -> np.ndarray:
        """Encode hotwords, given as token ids: (hotwords, width) float32."""
        longest = max(map(len, words))
        ids = np.array([[*word, *[0] * (longest - len(word))] for word in words])  # (hotwords, longest)
        encoded = self.bias_encoder(np.array(self.hotword_embed(mx.array(ids)).astype(mx.float32)))
        return np.array([row[len(word) - 1] for row, word in zip(encoded, words, strict=True)])

    def hotword_logits(self, embeddings: Rows, decoded: Rows, hotwords: np.ndarray) -> list[np.ndarray]:
        """Look for hotwords (hotwords, width), of which the last stands for none: (tokens, vocab) for each clip.

        Their decoder runs over the embeddings and over the main decoder's output, (tokens, width) both.
        """
        sources = [self._likeliest(row, hotwords) for row in decoded]
        found = zip(*(_decode(self.seaco_decoder, rows, sources) for rows in (embeddings, decoded)), strict=True)
        head: Any = self.hotword_output_layer
        merged = [mx.array(one + other).astype(head.bias.dtype) for one, other in found]
        return [np.array(head(row).astype(mx.float32)) for row in merged]

    def _likeliest(self, decoded: np.ndarray, hotwords: np.ndarray) -> np.ndarray:
        """Return those of many hotwords that a clip's tokens attend to most, and the last."""
        if len(hotwords) <= MOST_HOTWORDS or not len(decoded):
            return hotwords
        scores = self.seaco_decoder.attention(decoded, hotwords).sum(axis=(0, 1))  # (hotwords,)
        return hotwords[[*np.argsort(-scores, kind="stable")[:MOST_HOTWORDS], -1]]


def _best(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the likeliest token of each row of (tokens, vocabulary), and its log-probability: (tokens,) each."""
    highest = logits.max(axis=-1, initial=-np.inf)
    return logits.argmax(axis=-1), -np.log(np.exp(logits - highest[:, None]).sum(axis=-1))


def _decode(decoder: Any, tokens: Rows, sources: Rows) -> list[np.ndarray]:
    """Run a decoder over a batch; a row without tokens stays empty."""
    out = [row[:0] for row in tokens]
    wanted = [number for number, row in enumerate(tokens) if len(row)]
    found = decoder([tokens[n] for n in wanted], [sources[n] for n in wanted]) if wanted else []
    for number, row in zip(wanted, found, strict=True):
        out[number] = row
    return out
