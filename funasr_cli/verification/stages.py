"""What a model makes of a clip, stage by stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from funasr_cli.audio.decode import load_audio
from funasr_cli.backend import mx
from funasr_cli.decoding.generate import BatchDecoder
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.pipeline import Recognizer

SENTENCE = replace(DEFAULTS, max_tokens=24)


@dataclass(frozen=True)
class Stages:
    """One clip's way through a model, in float32.

    Attributes:
        features: (rows, row width).
        encoder: (rows, encoder width).
        audio_rows: (audio tokens, hidden), what the adaptor puts into the prompt.
        token_ids: written greedily, the stop token among them.
        logits: (steps, vocab) in front of each token that was forced.
        text: what the written tokens say.
    """

    features: np.ndarray
    encoder: np.ndarray
    audio_rows: np.ndarray
    token_ids: tuple[int, ...]
    logits: np.ndarray
    text: str


def run_stages(
    recognizer: Recognizer,
    clip: Path,
    forced_ids: Sequence[int] | None = None,
    options: TranscribeOptions = SENTENCE,
) -> Stages:
    """Take a clip through the model, as one segment.

    Args:
        recognizer: the model.
        clip: read as it is; silence is not left out.
        forced_ids: whose logits are wanted; None takes those that the model itself writes.
        options: with a limit on the tokens.
    """
    features = recognizer.features(load_audio(clip, recognizer.sample_rate_hz).samples)
    encoded = recognizer.encode([features])
    model, stops = recognizer.loaded.model, recognizer.config.stop_token_ids
    [audio_rows] = model.audio_rows(encoded.hidden, encoded.lengths)
    [prompt] = recognizer.prompts(encoded, options)
    decoder = BatchDecoder(model.llm, make_sampler(options))
    decoder.add([prompt])
    written: list[int] = []
    while len(written) != options.max_tokens and not (written and written[-1] in stops):
        written += [token.token_id for token in decoder.step()]
    forced = forced_ids or written
    embeddings = mx.concatenate([prompt, model.llm.embed(mx.array(forced[:-1], mx.int32))])  # (columns, hidden)
    hidden = model.llm(embeddings[None], model.llm.make_cache(1))[0, -len(forced) :]  # (steps, hidden)
    return Stages(
        features=features,
        encoder=np.array(encoded.hidden[0, : encoded.lengths[0]]),
        audio_rows=np.array(audio_rows),
        token_ids=tuple(written),
        logits=np.array(model.llm.logits(hidden)),
        text=recognizer.loaded.tokenizer.decode([token_id for token_id in written if token_id not in stops]),
    )
