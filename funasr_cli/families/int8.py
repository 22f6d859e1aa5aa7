"""Find out whether a model writes the same texts in int8 as in float32, on a few bundled recordings.

"int8" is all that the native engine rounds: weights and inputs of the decoder's products to 8 bits, those of the
other networks to bfloat16.

A decoder writes each clip token by token in int8. One pass in float32 over the same tokens then gives what float32
would write after each of them. If that is always the next token, including the one that stops, float32 writes the
same text, by induction: greedy decoding depends only on the tokens before. The texts of models without a decoder
are compared themselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from funasr_cli import demo
from funasr_cli.audio.decode import load_audio
from funasr_cli.compute.backend import mx
from funasr_cli.families.kept import Int8Proof
from funasr_cli.options import DEFAULTS, INT8, MLX, NATIVE, TranscribeOptions
from funasr_cli.speech_model import SpeechModel, Trace

MOST_CLIPS = 3
SENTENCE = replace(DEFAULTS, max_tokens=24)  # long enough for most clips
Load = Callable[[str, str], SpeechModel]  # takes a number type and an engine


def prove(load: Load, exact_engine: str = MLX, recordings: Sequence[Path] = ()) -> Int8Proof:
    """Compare the texts of a model in int8 and in float32, which are loaded one after the other.

    Args:
        load: loads the model.
        exact_engine: computes float32.
        recordings: the clips; without any, those of the demo.

    Raises:
        FunASRError: as `load` raises, if one of them cannot be loaded.
    """
    clips, rounded = _traces(load(INT8, NATIVE), recordings)
    mx.clear_cache()
    exact = load("float32", exact_engine)
    compared = zip(clips, map(_options, range(len(clips))), rounded, strict=True)
    differing = [clip.name for clip, options, trace in compared if _differs(exact, clip, options, trace)]
    return Int8Proof(tuple(clip.name for clip in clips), tuple(differing))


def clips_for(languages: Sequence[str]) -> list[Path]:
    """Return the demo's clips to compare: in these languages, or in others if none is."""
    clips = demo.clips()
    return [clip.path for clip in [clip for clip in clips if clip.language in languages] or clips][:MOST_CLIPS]


def _traces(model: SpeechModel, recordings: Sequence[Path]) -> tuple[Sequence[Path], list[Trace]]:
    """Return the clips, and what a model writes for each of them."""
    clips = recordings or clips_for(model.capabilities.languages)
    return clips, [_trace(model, clip, _options(place)) for place, clip in enumerate(clips)]


def _options(place: int) -> TranscribeOptions:
    """Return the options for a clip, given its place: the first one with times, where a model writes them."""
    return replace(SENTENCE, segment_times=place == 0)


def _differs(exact: SpeechModel, clip: Path, options: TranscribeOptions, rounded: Trace) -> bool:
    if rounded.blank_id is not None:
        return _trace(exact, clip, options).text != rounded.text
    forced = replace(options, max_tokens=1)  # the tokens are given: no others are decoded
    trace = _trace(exact, clip, forced, rounded.token_ids)
    likeliest = trace.likeliest_ids or tuple(trace.logits.argmax(-1).tolist())
    return likeliest != rounded.token_ids


def _trace(
    model: SpeechModel, clip: Path, options: TranscribeOptions, forced_ids: Sequence[int] | None = None
) -> Trace:
    return model.trace(load_audio(clip, model.sample_rate_hz).samples, options, forced_ids)
