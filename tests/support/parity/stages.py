"""Every stage of our own model on one case, computed with the package's own functions.

They are looked up in their modules at each call, so that a test can break them on purpose.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from support.batch import generate
from support.parity.live import Case

from funasr_cli.audio.decode import Audio, load_audio
from funasr_cli.compute.backend import mx
from funasr_cli.decoding import mlx_batch as decoding
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.families.batches import on_clips
from funasr_cli.families.fun_asr_nano.network import FunASRNano
from funasr_cli.languages import language_code
from funasr_cli.native.decoder import NativeDecoder
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.pipeline import Recognizer


@dataclass(frozen=True)
class Stages:
    """A clip's path through the model. Arrays have no batch axis and no padding."""

    samples: np.ndarray  # (samples,) at the model's rate
    features: np.ndarray  # (rows, row width)
    encoder: np.ndarray  # (rows, encoder width)
    adaptor: np.ndarray  # (rows, hidden)
    prompt: np.ndarray  # (tokens and audio embeddings, hidden)
    forced_logits: np.ndarray  # (steps, vocab)
    ctc_log_probs: np.ndarray | None  # (rows, CTC vocab)


def options_of(job: dict[str, Any]) -> TranscribeOptions:
    """Return a case of `reference.py` as options of this package."""
    language = job.get("language")
    return TranscribeOptions(
        language=language and language_code(language),
        hotwords=tuple(job.get("hotwords", ())),
        itn=job.get("itn", True),
        instruction=job.get("instruction"),
        dialogue=job.get("dialogue", ()),
        max_tokens=job.get("max_tokens", 64),
        vad=False,  # the reference reads whole clips
    )


def load_clip(recognizer: Recognizer, path: Any) -> Audio:
    """Load a clip at the package's sample rate."""
    return load_audio(str(path), recognizer.sample_rate_hz)


def forced_logits(recognizer: Recognizer, prompts: list[mx.array], forced_ids: list[list[int]]) -> mx.array:
    """Return the logits that predict each of `forced_ids`, (batch, steps, vocab); on MLX in one padded pass."""
    llm = recognizer.model.network.llm
    steps = len(forced_ids[0])
    if isinstance(llm, NativeDecoder):  # which needs no padding
        rows = [np.concatenate([row, llm.embed(ids[:-1])]) for row, ids in zip(prompts, forced_ids, strict=True)]
        return mx.stack([mx.array(llm.logits_after(row, steps)) for row in rows])
    vocab_size = llm.config.vocab_size
    assert max(map(max, forced_ids)) < vocab_size, "MLX reads past the end of the embedding table"
    written = llm.embed(mx.array([ids[:-1] for ids in forced_ids]))  # (batch, steps - 1, hidden)
    rows = [mx.concatenate([prompt, row]) for prompt, row in zip(prompts, written, strict=True)]
    hidden = llm(decoding.right_pad(rows), llm.make_cache(len(rows)))
    return llm.logits(mx.stack([one[len(row) - steps : len(row)] for one, row in zip(hidden, rows, strict=True)]))


def ctc_log_probs(model: FunASRNano, hidden: mx.array) -> mx.array:
    """Return log-probabilities of (..., frames, CTC width): (..., frames, CTC vocabulary)."""
    logits = mx.array(model.ctc.logits(hidden))
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def compute_batch(
    recognizer: Recognizer, clips: list[Audio], forced_ids: list[list[int]], options: TranscribeOptions = DEFAULTS
) -> list[Stages]:
    """Return all stages of clips that share a batch, padded as the package pads them."""
    model = recognizer.model.network
    features = [recognizer.model.features(clip.samples) for clip in clips]
    encoded = recognizer.model.encoded(features)
    downsample = recognizer.model.config.adaptor.downsample
    adapted = on_clips(model.audio_adaptor, encoded, downsample)
    prompts = recognizer.model.prompts(encoded, options)
    logits = forced_logits(recognizer, prompts, forced_ids)
    has_ctc = recognizer.model.config.ctc is not None
    log_probs = [ctc_log_probs(model, hidden) for hidden in model.ctc_hidden(encoded)] if has_ctc else None
    return [
        Stages(
            samples=recognizer.model.at_model_rate(clip.samples),
            features=features[row],
            encoder=np.array(encoded[row]),
            adaptor=np.array(adapted[row]),
            prompt=np.array(prompts[row]),
            forced_logits=np.array(logits[row]),
            ctc_log_probs=None if log_probs is None else np.array(log_probs[row]),
        )
        for row, clip in enumerate(clips)
    ]


def compute_unpadded(
    recognizer: Recognizer, clip: Audio, forced_ids: list[int], options: TranscribeOptions = DEFAULTS
) -> Stages:
    """Return all stages of one clip without any padding, and therefore without masks."""
    model = recognizer.model.network
    features = recognizer.model.features(clip.samples)
    hidden = model.audio_encoder(mx.array(features)[None])
    [prompt] = recognizer.model.prompts([hidden[0]], options)
    row = mx.concatenate([prompt, model.llm.embed(mx.array(forced_ids[:-1]))])
    logits = model.llm.logits(model.llm(row[None], model.llm.make_cache(1))[0, -len(forced_ids) :])
    has_ctc = recognizer.model.config.ctc is not None
    return Stages(
        samples=recognizer.model.at_model_rate(clip.samples),
        features=features,
        encoder=np.array(hidden[0]),
        adaptor=np.array(model.audio_adaptor(hidden)[0]),
        prompt=np.array(prompt),
        forced_logits=np.array(logits),
        ctc_log_probs=np.array(ctc_log_probs(model, model.ctc_decoder(hidden))[0]) if has_ctc else None,
    )


def written_ids(recognizer: Recognizer, prompts: list[mx.array], options: TranscribeOptions) -> list[list[int]]:
    """Return the ids that free decoding writes for each row, including the stop token, without a loop guard."""
    assert options.max_tokens is not None
    llm, stop = recognizer.model.network.llm, recognizer.model.config.stop_token_ids
    rows = generate(llm, prompts, stop, options.max_tokens, make_sampler(options))
    assert all(token.finite for row in rows for token in row)
    return [[token.token_id for token in row] for row in rows]


def prompts_of(recognizer: Recognizer, clips: list[Audio], options: TranscribeOptions) -> list[mx.array]:
    """Return the decoder's input embeddings for these clips, encoded in one batch."""
    model = recognizer.model
    return model.prompts(model.encoded([model.features(clip.samples) for clip in clips]), options)


def compute_case(recognizer: Recognizer, case: Case) -> Stages:
    """Return all stages of one case of the reference."""
    clip, forced = load_clip(recognizer, case.job["audio"]), case.arrays["forced_ids"].tolist()
    return compute_batch(recognizer, [clip], [forced], options_of(case.job))[0]
