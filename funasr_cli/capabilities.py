"""What a model can do, and the one place that refuses what it cannot. Imports nothing heavy."""

from dataclasses import dataclass, fields

from funasr_cli.errors import UsageError
from funasr_cli.languages import resolve_language
from funasr_cli.options import DEFAULTS, TranscribeOptions


@dataclass(frozen=True)
class Capabilities:
    """What a model can do with a segment; what a family leaves out, it cannot.

    Attributes:
        languages: ISO codes of those it can be asked for.
        hotwords: expect words that are named beforehand.
        previous_text: go on from an earlier text.
        sampling: choose tokens by chance, and end a text after a number of them.
        itn_switch: write numbers as digits or as words, as asked.
        partial_text: show text while it is being written.
        word_times: tell when each word was said.
        confidence: tell how sure it was of each piece of text.
        ctc_text: spell out what a CTC branch beside the decoder heard.
        drafts: let the decoder check a draft instead of writing each token by itself.
        second_opinion: compare the text with a second reading of its own.
        language_found: tell which language it heard.
        tags: tell emotion and sounds.
        translation: translate.
    """

    languages: tuple[str, ...]
    hotwords: bool = False
    previous_text: bool = False
    sampling: bool = False
    itn_switch: bool = False
    partial_text: bool = False
    word_times: bool = False
    confidence: bool = False
    ctc_text: bool = False
    drafts: bool = False
    second_opinion: bool = False
    language_found: bool = False
    tags: bool = False
    translation: bool = False

    def names(self) -> tuple[str, ...]:
        """Return what it can do, in words, languages left out."""
        held = [field.name for field in fields(self) if getattr(self, field.name) is True]
        return tuple(name.replace("_", " ") for name in held)


# Options of the command line that only some models honour: the option, its field, what it takes.
NEEDS = (
    ("--hotword", "hotwords", "hotwords"),
    ("--prev-text", "prev_text", "previous_text"),
    ("--temperature", "temperature", "sampling"),
    ("--top-p", "top_p", "sampling"),
    ("--top-k", "top_k", "sampling"),
    ("--seed", "seed", "sampling"),
    ("--max-tokens", "max_tokens", "sampling"),
    ("--exact-tokens", "exact_tokens", "sampling"),
    ("--itn", "itn", "itn_switch"),
    ("--confidence", "confidence", "confidence"),
    ("--timestamps word", "word_times", "word_times"),
)


def refuse_unsupported(options: TranscribeOptions, capabilities: Capabilities, model: str) -> None:
    """Raise a `UsageError` for an option that a model cannot honour, naming both, or for an unknown language."""
    resolve_language(options.language, capabilities.languages)
    for option, field, needed in NEEDS:
        if getattr(options, field) != getattr(DEFAULTS, field) and not getattr(capabilities, needed):
            message = f"{option}: {model} has no {needed.replace('_', ' ')}"
            raise UsageError(message, "leave it out, or choose another model", code="option-unsupported")
