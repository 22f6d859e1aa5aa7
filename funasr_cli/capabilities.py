"""What a model supports, and the checks that refuse unsupported options. Imports nothing heavy."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from funasr_cli.errors import UsageError
from funasr_cli.languages import LANGUAGES, resolve_language
from funasr_cli.options import DEFAULTS, TranscribeOptions

NOTHING_TYPED: Mapping[str, str] = MappingProxyType({})
OTHER_MODEL = "leave it out, or use another model: funasr models lists what each one supports"
TRANSLATOR = "name a chat model that translates with --translator, such as a converted Qwen3"
OTHER_WAYS = {  # for capabilities that another model can lend, unless a family has its own hint
    "translation": f"{TRANSLATOR}; or use a multilingual Whisper model",
    "any_translation": TRANSLATOR,
}


@dataclass(frozen=True)
class Capabilities:
    """What a model supports. A family leaves out what its models do not support.

    Attributes:
        languages: ISO codes of the languages that a caller can ask for.
        prompt: takes a prompt in words.
        hotwords: takes words to expect.
        previous_text: takes the text that precedes a recording.
        instruction: follows an instruction that replaces the usual one.
        dialogue: takes earlier turns of a conversation.
        context_text: takes any text before a recording as a hint at style and spelling, and does not repeat it.
        sampling: samples tokens at a temperature.
        token_limit: stops after a given number of tokens.
        itn_switch: writes numbers as digits or as words, as requested.
        digits: writes numbers as digits; matters only without `itn_switch`.
        partial_text: shows text while it is being decoded.
        word_times: measures when each word was spoken.
        alignment: has a CTC output, which shows when a text was spoken, also that of another model.
        confidence: gives a probability for each piece of text.
        ctc_text: gives the text of a CTC branch in addition to the decoder's.
        drafts: lets the decoder verify a draft instead of writing each token itself.
        second_opinion: compares its text with a second reading of the audio.
        language_found: identifies the spoken language.
        tags: detects emotion and sounds.
        translation: translates into English.
        any_translation: translates into any language, not only into English.
        speaker_translation: translates what each speaker says on its own, not a segment with several speakers.
        punctuation: writes punctuation.
        itn_punctuation: writes punctuation only with ITN; matters only without `punctuation`.
        hints: for a capability that is missing, by name: what to do instead. Shown in messages.
    """

    languages: tuple[str, ...]
    prompt: bool = False
    hotwords: bool = False
    previous_text: bool = False
    instruction: bool = False
    dialogue: bool = False
    context_text: bool = False
    sampling: bool = False
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
    any_translation: bool = False
    speaker_translation: bool = False
    punctuation: bool = False
    itn_punctuation: bool = False
    hints: Mapping[str, str] = field(default_factory=dict, compare=False)

    def with_aligner(self) -> "Capabilities":
        """Return these capabilities and those that come from a second model, which has a CTC output."""
        return replace(self, word_times=True, alignment=True)

    def with_translator(self) -> "Capabilities":
        """Return these capabilities and those that come from a language model that translates."""
        return replace(self, translation=True, any_translation=True, speaker_translation=True)

    def names(self) -> tuple[str, ...]:
        """Return the supported capabilities in words, without the languages."""
        supported = [field.name for field in fields(self) if getattr(self, field.name) is True]
        return tuple(map(in_words, supported))

    def writes_marks(self, options: TranscribeOptions) -> bool:
        """Return whether the model itself writes punctuation."""
        return self.punctuation or (self.itn_punctuation and options.itn)


def in_words(capability: str) -> str:
    """Return the name of a capability as messages and lists show it."""
    return capability.replace("_", " ").replace("itn", "ITN").replace("ctc", "CTC")


class Able(Protocol):
    """The part of a model that these checks use."""

    name: str
    capabilities: Capabilities
    longest_segment_s: float


class Need(NamedTuple):
    """The capability that an option needs."""

    option: str  # as written on the command line
    capability: str


# Needed when a field of `TranscribeOptions` differs from its default. A test fails for a field that is in none of
# these tables.
NEEDS = {
    "hotwords": Need("--hotword", "hotwords"),
    "prev_text": Need("--prev-text", "previous_text"),
    "instruction": Need("--instruction", "instruction"),
    "dialogue": Need("--dialogue", "dialogue"),
    "temperature": Need("--temperature", "sampling"),
    "top_p": Need("--top-p", "sampling"),
    "top_k": Need("--top-k", "sampling"),
    "seed": Need("--seed", "sampling"),
    "max_tokens": Need("--max-tokens", "token_limit"),
    "exact_tokens": Need("--exact-tokens", "token_limit"),
    "confidence": Need("--confidence", "confidence"),
    "word_times": Need("--timestamps word", "word_times"),
    "translate_to": Need("--translate-to", "any_translation"),
    "translate": Need("--translate", "translation"),
}
# Needed when an option is given on the command line, with any value. Of these, only `draft` is a field of
# `TranscribeOptions`.
NEEDS_IF_TYPED = {
    "draft": Need("--draft", "drafts"),
    "plot_alignment": Need("--plot-alignment", "alignment"),
    "tags": Need("--tags", "tags"),
    "show_prompt": Need("--show-prompt", "prompt"),
}
BEST_EFFORT = (
    "ctc",
    "draft",
    "second_opinion",
    "segment_times",
)  # have no effect on a model without the capability
UNIVERSAL = (  # work with every model
    "vad", "vad_model", "vad_threshold", "min_pause_s", "join_s", "batch_size", "speaker_method",
    "speaker_threshold", "speaker_names", "known_speakers", "speaker_embeddings",
)  # fmt: skip
CHECKED_SEPARATELY = ("language", "itn", "max_segment_s", "speakers")  # have their own checks, below


def refuse_unsupported(
    options: TranscribeOptions,
    capabilities: Capabilities,
    model: str,
    *,
    longest_segment_s: float = inf,
    typed: Mapping[str, str] = NOTHING_TYPED,
) -> None:
    """Refuse an option that a model does not support; the message names both.

    An option counts as requested when its value is not the default. Numbers as digits are the default for every
    model, so a model without the ITN switch refuses `--itn` only when it is given on the command line.

    Args:
        options: the requested options.
        capabilities: those of the model; see `Capabilities.with_aligner` if another one measures word times.
        model: the model's name.
        longest_segment_s: the longest segment that the model takes.
        typed: options given on the command line, even with their default value: the option as written, by field of
            `TranscribeOptions` or by name in `NEEDS_IF_TYPED`.

    Raises:
        UsageError: the model lacks a capability, or does not know the language.
    """
    resolve_language(options.language, capabilities.languages, model)
    if _mixes_speakers(options, capabilities):
        speakers, translate = (typed.get(name, f"--{name}") for name in ("speakers", "translate"))
        message = (
            f"cannot combine {speakers} with {translate}: {model} translates whole segments, not each speaker"
        )
        hint = (
            "name a chat model with --translator, which translates each speaker's part; or ask for one at a time"
        )
        raise UsageError(message, hint, code="options-conflict")
    lacking = _lacking(options, capabilities, typed)
    for name in sorted(lacking, key=lambda name: name not in typed):  # the command line first, then settings
        refuse_missing(typed.get(name, lacking[name].option), lacking[name].capability, capabilities, model)
    if (options.max_segment_s or 0) > longest_segment_s:
        message = (
            f"--max-segment {options.max_segment_s:g}: {model} takes segments of up to {longest_segment_s:g} s"
        )
        raise UsageError(message, f"choose 2 to {longest_segment_s:g} seconds", code="option-unsupported")


def supported(
    options: TranscribeOptions,
    capabilities: Capabilities,
    *,
    longest_segment_s: float = inf,
    typed: Mapping[str, str] = NOTHING_TYPED,
) -> TranscribeOptions:
    """Return the options, after resetting unsupported ones that come from a variable or the settings file.

    If an unsupported option was given on the command line, all options stay, and `refuse_unsupported` refuses it.
    The arguments are those of `refuse_unsupported`.
    """
    lacking = set(_lacking(options, capabilities, typed))
    if (options.max_segment_s or 0) > longest_segment_s:
        lacking.add("max_segment_s")
    if _mixes_speakers(options, capabilities):
        lacking.add("translate")  # speakers cannot come from a setting
    if lacking & typed.keys():
        return options
    changes: dict[str, Any] = {name: getattr(DEFAULTS, name) for name in lacking}
    return replace(options, **changes)


def _lacking(options: TranscribeOptions, able: Capabilities, typed: Mapping[str, str]) -> dict[str, Need]:
    """Return the needs that a model does not meet, by option name."""
    asked = {name: need for name, need in NEEDS.items() if getattr(options, name) != getattr(DEFAULTS, name)}
    asked |= {name: need for name, need in NEEDS_IF_TYPED.items() if name in typed}
    if ("itn" in typed or options.itn != DEFAULTS.itn) and options.itn != able.digits:
        asked["itn"] = Need("--itn" if options.itn else "--no-itn", "itn_switch")
    return {name: need for name, need in asked.items() if not getattr(able, need.capability)}


def _mixes_speakers(options: TranscribeOptions, able: Capabilities) -> bool:
    """Return whether one translation would be of a segment that may have several speakers."""
    return bool(options.speakers and options.translate and able.translation and not able.speaker_translation)


def refuse_missing(option: str, capability: str, capabilities: Capabilities, model: str) -> None:
    """Raise a `UsageError` if a model lacks the capability that an option needs."""
    if not getattr(capabilities, capability):
        hint = capabilities.hints.get(capability, OTHER_WAYS.get(capability, OTHER_MODEL))
        raise UsageError(f"{model} does not support {option}", hint, code="option-unsupported")


def refuse_aligner(model: Able, aligner: Able) -> None:
    """Raise a `UsageError` if the second model cannot measure word times, or the first one needs no help."""
    if model.capabilities.word_times:
        message = f"--align-with {aligner.name}: not needed, {model.name} measures word times itself"
        raise UsageError(message, "leave it out", code="option-idle")
    if not aligner.capabilities.alignment:
        message = f"--align-with {aligner.name}: this model cannot measure word times for another one"
        raise UsageError(message, "use a model with a CTC output, such as sensevoice", code="option-unsupported")


def knows(options: TranscribeOptions, capabilities: Capabilities) -> bool:
    """Return whether a model supports the requested language; raise a `UsageError` for an unknown one."""
    code = resolve_language(options.language, tuple(LANGUAGES))
    return not code or code in capabilities.languages


def refuse_unaligned_language(options: TranscribeOptions, aligner: Able) -> None:
    """Raise a `UsageError` if the second model does not support the language."""
    if not knows(options, aligner.capabilities):
        message = f"--align-with {aligner.name}: this model does not support the language {options.language!r}"
        hint = f"it measures word times in {', '.join(aligner.capabilities.languages)}"
        raise UsageError(message, hint, code="language-unknown")


def punctuation_problem(
    options: TranscribeOptions, able: Capabilities, model: str, punctuation: str, languages: Collection[str]
) -> UsageError | None:
    """Return why a punctuation model has no work; None if it has.

    Args:
        options: how to transcribe.
        able: capabilities of the speech model.
        model: name of the speech model.
        punctuation: name of the punctuation model.
        languages: those that the punctuation model knows.
    """
    option = f"--punctuation {punctuation}"
    if able.writes_marks(options):
        hint = "leave it out" if able.punctuation else "leave it out, or add --no-itn"
        return UsageError(f"{option}: not needed, {model} writes punctuation itself", hint, code="option-idle")
    code = resolve_language(options.language, tuple(LANGUAGES))
    if code and code not in languages:
        message = f"{option}: this model does not support the language {options.language!r}"
        return UsageError(message, f"it knows {', '.join(languages)}", code="language-unknown")
    return None
