"""What a model can do, and the one place that refuses what it cannot. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from funasr_cli.errors import UsageError
from funasr_cli.languages import LANGUAGES, resolve_language
from funasr_cli.options import DEFAULTS, TranscribeOptions

NOBODY_TYPED: Mapping[str, str] = MappingProxyType({})
ELSEWHERE = "leave it out, or choose another model"


@dataclass(frozen=True)
class Capabilities:
    """What a model can do with a segment; what a family leaves out, it cannot.

    Attributes:
        languages: ISO codes of those it can be asked for.
        prompt: be asked in words.
        hotwords: expect words that are named beforehand.
        previous_text: go on from an earlier text.
        sampling: choose tokens by chance.
        decoder: write a text token by token, which a draft can spare.
        token_limit: end a text after a number of tokens.
        itn_switch: write numbers as digits or as words, as asked.
        digits: write numbers as digits, where there is no switch.
        partial_text: show text while it is being written.
        word_times: tell when each word was said.
        alignment: tell when the words of another model's text were said, by a CTC output.
        confidence: tell how sure it was of each piece of text.
        ctc_text: spell out what a CTC branch beside the decoder heard.
        drafts: let the decoder check a draft instead of writing each token by itself.
        second_opinion: compare the text with a second reading of its own.
        language_found: tell which language it heard.
        tags: tell emotion and sounds.
        translation: translate.
        hints: by the name of what it lacks: how to come by that all the same, for messages.
    """

    languages: tuple[str, ...]
    prompt: bool = False
    hotwords: bool = False
    previous_text: bool = False
    sampling: bool = False
    decoder: bool = False
    token_limit: bool = False
    itn_switch: bool = False
    digits: bool = False
    partial_text: bool = False
    word_times: bool = False
    alignment: bool = False
    confidence: bool = False
    ctc_text: bool = False
    drafts: bool = False
    second_opinion: bool = False
    language_found: bool = False
    tags: bool = False
    translation: bool = False
    hints: Mapping[str, str] = field(default_factory=dict, compare=False)

    def names(self) -> tuple[str, ...]:
        """Return what it can do, in words, without its languages."""
        held = [field.name for field in fields(self) if getattr(self, field.name) is True]
        return tuple(map(in_words, held))


def in_words(capability: str) -> str:
    """Return what people call a capability."""
    return capability.replace("_", " ").replace("itn", "ITN").replace("ctc", "CTC")


class Able(Protocol):
    """A model, as far as it matters here."""

    name: str
    capabilities: Capabilities
    longest_segment_s: float


class Need(NamedTuple):
    """What an option takes."""

    option: str  # in the words of the command line
    capability: str


# By the field of `TranscribeOptions`, once its value is not the default. What stands in none of these tables fails
# a test.
NEEDS = {
    "hotwords": Need("--hotword", "hotwords"),
    "prev_text": Need("--prev-text", "previous_text"),
    "temperature": Need("--temperature", "sampling"),
    "top_p": Need("--top-p", "sampling"),
    "top_k": Need("--top-k", "sampling"),
    "seed": Need("--seed", "sampling"),
    "max_tokens": Need("--max-tokens", "token_limit"),
    "exact_tokens": Need("--exact-tokens", "token_limit"),
    "confidence": Need("--confidence", "confidence"),
    "word_times": Need("--timestamps word", "word_times"),
}
# Of what somebody has typed, whatever its value; `tags` and `show_prompt` are the command's own.
NEEDS_IF_TYPED = {
    "draft": Need("--draft", "decoder"),
    "tags": Need("--tags", "tags"),
    "show_prompt": Need("--show-prompt", "prompt"),
}
BEST_EFFORT = ("ctc", "draft", "second_opinion")  # they mean: where the model has it
UNIVERSAL = ("vad", "vad_threshold", "min_pause_s", "join_s", "batch_size")  # nothing is asked of the model
BY_THEMSELVES = ("language", "itn", "max_segment_s")  # refused in ways of their own, below


def refuse_unsupported(
    options: TranscribeOptions,
    capabilities: Capabilities,
    model: str,
    *,
    longest_segment_s: float = inf,
    typed: Mapping[str, str] = NOBODY_TYPED,
) -> None:
    """Refuse an option that a model cannot honour, naming both.

    An option is asked for where its value is not the default. Numbers as digits are the default of all, so that a
    model without the switch is asked for them only where somebody has typed it, and for what it always does never.

    Args:
        options: what is asked for.
        capabilities: the model's, with word times where another model tells them for it.
        model: its name.
        longest_segment_s: the longest segment that it takes; the default of `max_segment_s` is cut down to it.
        typed: by the fields of which somebody has typed the value, even if it is the default: what was typed. It
            may have names of `NEEDS_IF_TYPED`, too.

    Raises:
        UsageError: it lacks something, or the language is not one of its own.
    """
    resolve_language(options.language, capabilities.languages)
    lacking = _lacking(options, capabilities, typed)
    for name in sorted(lacking, key=lambda name: name not in typed):  # what waits elsewhere is not to be blamed
        refuse_missing(typed.get(name, lacking[name].option), lacking[name].capability, capabilities, model)
    chosen = "max_segment_s" in typed or options.max_segment_s != DEFAULTS.max_segment_s
    if chosen and options.max_segment_s > longest_segment_s:
        message = f"--max-segment is {options.max_segment_s:g} s: {model} takes {longest_segment_s:g} s at most"
        raise UsageError(message, f"it must be 2 to {longest_segment_s:g} s", code="option-unsupported")


def supported(
    options: TranscribeOptions,
    capabilities: Capabilities,
    *,
    longest_segment_s: float = inf,
    typed: Mapping[str, str] = NOBODY_TYPED,
) -> TranscribeOptions:
    """Leave out what a model cannot honour, if nobody has typed it: as of a settings file, where it waits.

    If something has been typed that it cannot honour either, all stays, to be refused by `refuse_unsupported`,
    which takes the same.
    """
    lacking = set(_lacking(options, capabilities, typed))
    if options.max_segment_s > longest_segment_s:
        lacking.add("max_segment_s")
    if lacking & typed.keys():
        return options
    changes: dict[str, Any] = {name: getattr(DEFAULTS, name) for name in lacking}
    return replace(options, **changes)


def _lacking(options: TranscribeOptions, able: Capabilities, typed: Mapping[str, str]) -> dict[str, Need]:
    """Find what is asked for that a model cannot do, by the names of the tables."""
    asked = {name: need for name, need in NEEDS.items() if getattr(options, name) != getattr(DEFAULTS, name)}
    asked |= {name: need for name, need in NEEDS_IF_TYPED.items() if name in typed}
    if ("itn" in typed or options.itn != DEFAULTS.itn) and options.itn != able.digits:
        asked["itn"] = Need("--itn" if options.itn else "--no-itn", "itn_switch")
    return {name: need for name, need in asked.items() if not getattr(able, need.capability)}


def refuse_missing(option: str, capability: str, capabilities: Capabilities, model: str) -> None:
    """Raise a `UsageError` for an option of a model that lacks what it takes."""
    if not getattr(capabilities, capability):
        message = f"{option}: {model} has no {in_words(capability)}"
        hint = capabilities.hints.get(capability, ELSEWHERE)
        raise UsageError(message, hint, code="option-unsupported")


def refuse_aligner(model: Able, aligner: Able) -> None:
    """Raise a `UsageError` for a second model that cannot tell when words were said, or is not needed for it."""
    if model.capabilities.word_times:
        message = f"--align-with {aligner.name}: {model.name} has word times of its own"
        raise UsageError(message, "leave it out", code="option-idle")
    refuse_missing("--align-with", "alignment", aligner.capabilities, aligner.name)


def knows(options: TranscribeOptions, capabilities: Capabilities) -> bool:
    """Tell whether the language that is asked for, if any, is one of a model's; a `UsageError` for nonsense."""
    code = resolve_language(options.language, tuple(LANGUAGES))
    return not code or code in capabilities.languages


def refuse_unaligned_language(options: TranscribeOptions, aligner: Able) -> None:
    """Raise a `UsageError` for a language that the second model does not know."""
    if not knows(options, aligner.capabilities):
        message = f"--align-with {aligner.name}: it does not know language {options.language!r}"
        hint = f"it tells word times in {', '.join(aligner.capabilities.languages)}"
        raise UsageError(message, hint, code="language-unknown")
