"""Options that several commands share, and helpers to make options and shell completion."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from funasr_cli.errors import FunASRError
from funasr_cli.languages import AUTO, LANGUAGES
from funasr_cli.options import AUTO_PUNCTUATION, DEFAULTS, NO_PUNCTUATION

LANGUAGE, DECODING, TERMINAL = "Language and prompt", "Decoding", "Terminal"  # panels of the help
SPEAKERS, TRANSLATION = "Speakers", "Translation"
Drafting = Literal["auto", "off"]
DEFAULT_DRAFT = cast(Drafting, DEFAULTS.draft)
DEFAULT_DTYPE: Literal["auto"] = "auto"
DEFAULT_ENGINE: Literal["auto"] = "auto"


def is_typed(context: typer.Context, name: str) -> bool:
    """Return whether an option was given on the command line, not in a variable or the settings file."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def typed(context: typer.Context, names: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return the options given on the command line, as written, by name. `names` has the parameters of each."""
    found = {}
    for name, parameters in names.items():
        for parameter in parameters:
            if is_typed(context, parameter) and name not in found:
                off = "no-" if context.params[parameter] is False else ""
                found[name] = f"--{off}{parameter.replace('_', '-')}"
    return found


def optional_computing(context: typer.Context) -> frozenset[str]:
    """Return which of --dtype and --engine come from a variable or the settings file."""
    names = {"dtype": DEFAULT_DTYPE, "engine": DEFAULT_ENGINE}
    return frozenset(
        name for name, default in names.items() if context.params[name] != default and not is_typed(context, name)
    )


def comma_separated(*names: str) -> Callable[[str], list[str]]:
    """Return a completion function for a list of names separated by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        free = (name for name in names if name.startswith(last) and name not in before.split(","))
        return [f"{before}{comma}{name}" for name in free]

    return complete


def complete_languages(incomplete: str) -> list[tuple[str, str]]:
    """Offer language codes, with their English names."""
    names = {AUTO: "the model decides"} | {code: entry.english_name for code, entry in LANGUAGES.items()}
    return [(code, name) for code, name in names.items() if code.startswith(incomplete)]


def complete_models(incomplete: str) -> list[str]:
    """Offer the converted models and the demo model. The shell completes folders."""
    from funasr_cli.families.family import SPEECH
    from funasr_cli.hubs.find import DEMO, converted_for

    with suppress(FunASRError):  # the Tab key does not report an invalid FUNASR_HOME
        return [name for name in sorted({*converted_for(SPEECH), DEMO}) if name.startswith(incomplete)]
    return [DEMO]


def complete_punctuation(incomplete: str) -> list[str]:
    """Offer the two words, and the punctuation models on this machine."""
    from funasr_cli.families.family import PUNCTUATION
    from funasr_cli.hubs.find import converted_for

    names = [AUTO_PUNCTUATION, NO_PUNCTUATION]
    with suppress(FunASRError):
        names += sorted(converted_for(PUNCTUATION))
    return [name for name in names if name.startswith(incomplete)]


def complete_translators(incomplete: str) -> list[str]:
    """Offer the chat models on this machine."""
    from funasr_cli.families.family import TEXT
    from funasr_cli.hubs.find import converted_for

    with suppress(FunASRError):
        return [name for name in sorted(converted_for(TEXT)) if name.startswith(incomplete)]
    return []


def option(panel: str | None, name: str, help: str, *short: str, env: bool = True, **settings: Any) -> Any:
    """Make an option. A variable with the same name also sets it, unless `env` is false."""
    variable = "FUNASR_" + name.split("/")[0].removeprefix("--").replace("-", "_").upper()
    envvar = variable if env else None
    return typer.Option(name, *short, help=help, rich_help_panel=panel, envvar=envvar, **settings)


MODEL_HELP = "Model to use: a name that funasr models lists, a folder, a hub id, or demo."
MODEL_OPTION: dict[str, Any] = {"metavar": "MODEL", "autocompletion": complete_models}
PUNCTUATION_HELP = (
    "Punctuate text that the model writes without marks. auto: with a punctuation model on this machine, such as "
    "ct-punc, if there is one. none: never. Or name the model."
)
DRAFT_HELP = (
    "auto: decode faster by checking a quick first draft, if the model has a CTC branch and this saves time. "
    "The text does not change."
)

# fmt: off
Model = Annotated[str | None, option(None, "--model", MODEL_HELP, "-m", **MODEL_OPTION)]
Models = Annotated[  # with `list[str]`, the variable would be split at spaces
    list[Path] | None, option(None, "--model", f"{MODEL_HELP} Repeatable.", "-m", **MODEL_OPTION)
]
Device = Annotated[
    Literal["cpu", "gpu"] | None, option(None, "--device", "Device to use. Default: the GPU, if MLX supports it.")
]
DType = Annotated[
    Literal["auto", "stored", "float32", "bfloat16", "int8"],
    option(
        None, "--dtype",
        "Number type for computing. auto: as stored on a GPU; on a CPU int8 (the decoder only; the rest in "
        "bfloat16 or float32) if it gives the same texts as float32 on a few clips, else float32.",
    ),
]
Engine = Annotated[
    Literal["auto", "mlx", "native"],
    option(
        None, "--engine",
        "Engine: MLX, or native CPU code in int8 or float32. auto: the one that suits --dtype.",
    ),
]
Lang = Annotated[
    str,
    option(
        None, "--lang", "Spoken language: a code (zh, en, ja, ...), a name, or auto.", "-l", metavar="LANGUAGE",
        autocompletion=complete_languages,
    ),
]
ITN = Annotated[bool, option(LANGUAGE, "--itn/--no-itn", "Write numbers as digits, or (--no-itn) as words.")]
PunctuationModel = Annotated[
    str,
    option(
        LANGUAGE, "--punctuation", PUNCTUATION_HELP, metavar="auto|none|MODEL",
        autocompletion=complete_punctuation,
    ),
]
SpeakerModel = Annotated[
    str,
    option(
        SPEAKERS, "--speaker-model", "Model of voices. auto: the one that has been converted.",
        metavar="auto|MODEL", env=False,
    ),
]
Translator = Annotated[
    str | None,
    option(
        TRANSLATION, "--translator", "Chat model that translates, such as a converted Qwen3.", metavar="MODEL",
        autocompletion=complete_translators,
    ),
]
MaxTokens = Annotated[
    int | None,
    option(DECODING, "--max-tokens", "Maximum tokens per segment. Default: depends on its length.", metavar="N"),
]
Draft = Annotated[Drafting, option(DECODING, "--draft", DRAFT_HELP)]
Quiet = Annotated[bool, option(TERMINAL, "--quiet", "Print only results, warnings and errors.", "-q")]
# fmt: on
