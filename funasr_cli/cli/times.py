"""``--timestamps`` and ``--highlight-words``: whose times are shown, and what the model has to give for it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from typer import Context

from funasr_cli.cli.output import OutputPlan
from funasr_cli.cli.parameters import is_typed
from funasr_cli.errors import UsageError
from funasr_cli.options import Timestamps, TranscribeOptions
from funasr_cli.writers import DEFAULT_TIMES, OF_TIMES

if TYPE_CHECKING:
    from funasr_cli.pipeline import Recognizer


def shown(context: Context, formats: Iterable[str]) -> Timestamps | None:
    """Whose times; None leaves it to each format. What is typed goes before what comes from elsewhere.

    Raises:
        UsageError: words are to be marked, but their times left out.
    """
    times: Timestamps | None = context.params["timestamps"]
    typed = is_typed(context, "timestamps")
    if is_typed(context, "highlight_words") and times not in (None, Timestamps.WORD):
        if typed:
            raise UsageError(f"--highlight-words with --timestamps {times}", "it takes the times of words")
        return None
    waits = times is Timestamps.NONE and not typed and not set(OF_TIMES).isdisjoint(formats)
    return None if waits else times


def needs_words(context: Context) -> bool:
    """Whether the times of words have been asked for by name."""
    return context.params["timestamps"] is Timestamps.WORD or is_typed(context, "highlight_words")


def with_words(
    options: TranscribeOptions, plan: OutputPlan, recognizer: "Recognizer", *, must: bool
) -> TranscribeOptions:
    """Options that give the times of words where they are shown and the model can tell them.

    Raises:
        ModelError: they must be shown, and it cannot.
    """
    if must:
        recognizer.refuse_missing_word_times()
    wanted = {plan.style.times or DEFAULT_TIMES[format] for format in plan.formats}
    return replace(options, word_times=recognizer.has_ctc and Timestamps.WORD in wanted)
