"""What a shell offers when Tab is pressed: languages, formats, models."""

from collections.abc import Callable, Iterable
from contextlib import suppress

from funasr_cli.errors import FunASRError
from funasr_cli.languages import AUTO, LANGUAGES
from funasr_cli.writers import ALL_FORMATS, WRITERS


def complete_languages(incomplete: str) -> list[tuple[str, str]]:
    """Codes, with their English names."""
    names = {AUTO: "let the model decide"} | {code: entry.english_name for code, entry in LANGUAGES.items()}
    return [(code, name) for code, name in names.items() if code.startswith(incomplete)]


def complete_formats(incomplete: str) -> list[str]:
    """Formats, also the next one behind a comma."""
    return _behind_commas((*WRITERS, ALL_FORMATS), incomplete)


def complete_codes(incomplete: str) -> list[str]:
    """Codes of languages, also the next one behind a comma."""
    return _behind_commas(LANGUAGES, incomplete)


def _behind_commas(names: Iterable[str], incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    free = (name for name in names if name.startswith(last) and name not in before.split(","))
    return [f"{before}{comma}{name}" for name in free]


def completer(values: Iterable[object]) -> Callable[[str], list[str]]:
    """What completes one of a few values."""
    return lambda incomplete: [str(value) for value in values if str(value).startswith(incomplete)]


def complete_models(incomplete: str) -> list[str]:
    """Everything that has been converted, and the bundled one; folders are the shell's own business."""
    from funasr_cli.checkpoints.hub import DEMO, converted_models

    with suppress(FunASRError):  # a home that is wrong is no matter for the Tab key
        return [name for name in sorted({*converted_models(), DEMO}) if name.startswith(incomplete)]
    return [DEMO]


def complete_sources(incomplete: str) -> list[str]:
    """Checkpoints that have a short name, and the long ones."""
    from funasr_cli.checkpoints.hub import ALIASES

    return [name for name in (*ALIASES, *ALIASES.values()) if name.startswith(incomplete)]
