"""Find out whether a model writes the same texts in int8 as in float32, on a few bundled recordings or prompts.

"int8" is all that the native engine rounds: weights and inputs of the decoder's products to 8 bits, those of the
other networks to bfloat16.

A decoder writes each clip token by token in int8. One pass in float32 over the same tokens then gives what float32
would write after each of them. If that is always the next token, including the one that stops, float32 writes the
same text, by induction: greedy decoding depends only on the tokens before. The texts of models without a decoder
are compared themselves. A model that writes text from text continues `PROMPTS` instead.
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
from funasr_cli.text_model import TextModel

MOST_CLIPS = 3
SENTENCE = replace(DEFAULTS, max_tokens=24)  # long enough for most clips
PROMPTS = {  # what a model of texts is asked, by name
    "into English": "Translate to English: 开放时间：早上九点至下午五点。",
    "into Chinese": "Translate to Chinese: The meeting starts at three sharp.",
    "question": "Name the colours of the rainbow.",
}
PROMPT_TOKENS = 24  # that are written for each
Load = Callable[[str, str], SpeechModel | TextModel]  # takes a number type and an engine
Case = tuple[Path | str, TranscribeOptions]  # a clip and its options, or a prompt


def prove(load: Load, exact_engine: str = MLX, recordings: Sequence[Path] = ()) -> Int8Proof:
    """Compare the texts of a model in int8 and in float32, which are loaded one after the other.

    Args:
        load: loads the model.
        exact_engine: computes float32.
        recordings: the clips; without any, those of the demo.

    Raises:
        FunASRError: as `load` raises, if one of them cannot be loaded.
    """
    cases, rounded = _traces(load(INT8, NATIVE), recordings)
    mx.clear_cache()
    exact = load("float32", exact_engine)
    pairs = zip(cases.items(), rounded, strict=True)
    return Int8Proof(tuple(cases), tuple(name for (name, case), trace in pairs if _differs(exact, case, trace)))


def clips_for(languages: Sequence[str]) -> list[Path]:
    """Return the demo's clips to compare: in these languages, or in others if none is."""
    clips = demo.clips()
    return [clip.path for clip in [clip for clip in clips if clip.language in languages] or clips][:MOST_CLIPS]


def _traces(model: SpeechModel | TextModel, recordings: Sequence[Path]) -> tuple[dict[str, Case], list[Trace]]:
    """Return the clips or prompts by name, and what a model writes for each of them.

    The first clip is read with times, where a model writes them.
    """
    cases: dict[str, Case] = {name: (prompt, SENTENCE) for name, prompt in PROMPTS.items()}
    if not isinstance(model, TextModel):
        clips = enumerate(recordings or clips_for(model.capabilities.languages))
        cases = {clip.name: (clip, replace(SENTENCE, segment_times=place == 0)) for place, clip in clips}
    return cases, [_trace(model, case) for case in cases.values()]


def _differs(exact: SpeechModel | TextModel, case: Case, rounded: Trace) -> bool:
    if rounded.blank_id is not None:
        return _trace(exact, case).text != rounded.text
    trace = _trace(exact, case, rounded.token_ids)
    likeliest = trace.likeliest_ids or tuple(trace.logits.argmax(-1).tolist())
    return likeliest != rounded.token_ids


def _trace(model: SpeechModel | TextModel, case: Case, forced_ids: Sequence[int] | None = None) -> Trace:
    what, options = case
    if isinstance(model, TextModel):
        return model.trace(model.chat(str(what)), 1 if forced_ids else PROMPT_TOKENS, forced_ids)
    if forced_ids:
        options = replace(options, max_tokens=1)  # the tokens are given: no others are decoded
    return model.trace(load_audio(what, model.sample_rate_hz).samples, options, forced_ids)
