"""Options of several commands, how all are made (names, help, variables), and what Tab offers for a name."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from funasr_cli.errors import FunASRError
from funasr_cli.languages import AUTO, LANGUAGES
from funasr_cli.options import DEFAULTS

LANGUAGE, DECODING, TERMINAL = "Language and prompt", "Decoding", "Terminal"  # panels of the help
Drafting = Literal["auto", "off"]
DEFAULT_DRAFT = cast(Drafting, DEFAULTS.draft)
DEFAULT_ENGINE: Literal["auto"] = "auto"


def is_typed(context: typer.Context, name: str) -> bool:
    """Tell whether an option stands on the command line; not in a variable, the settings file or a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def typed(context: typer.Context, names: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return what stands on the command line, as it was typed, by names that come from these parameters."""
    found = {}
    for name, of in names.items():
        for parameter in of:
            if is_typed(context, parameter) and name not in found:
                off = "no-" if context.params[parameter] is False else ""
                found[name] = f"--{off}{parameter.replace('_', '-')}"
    return found


def behind_commas(*names: str) -> Callable[[str], list[str]]:
    """Make a function that completes the last of several of these names, with commas between them."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        free = (name for name in names if name.startswith(last) and name not in before.split(","))
        return [f"{before}{comma}{name}" for name in free]

    return complete


def complete_languages(incomplete: str) -> list[tuple[str, str]]:
    """Offer codes, with their English names."""
    names = {AUTO: "let the model decide"} | {code: entry.english_name for code, entry in LANGUAGES.items()}
    return [(code, name) for code, name in names.items() if code.startswith(incomplete)]


def complete_models(incomplete: str) -> list[str]:
    """Offer all converted models and the bundled one; folders are left to the shell."""
    from funasr_cli.hubs.find import DEMO, converted_models

    with suppress(FunASRError):  # a home that is wrong is no matter for the Tab key
        return [name for name in sorted({*converted_models(), DEMO}) if name.startswith(incomplete)]
    return [DEMO]


def option(panel: str | None, name: str, help: str, *short: str, env: bool = True, **settings: Any) -> Any:
    """Make an option; a variable is named after it, unless it belongs to a single run (`env=False`)."""
    variable = "FUNASR_" + name.split("/")[0].removeprefix("--").replace("-", "_").upper()
    envvar = variable if env else None
    return typer.Option(name, *short, help=help, rich_help_panel=panel, envvar=envvar, **settings)


MODEL_HELP = "Folder, hub id or alias of a converted model, or demo."
OF_MODELS: dict[str, Any] = {"metavar": "MODEL", "autocompletion": complete_models}
DRAFT_HELP = (
    "Let the decoder check the CTC branch's text, several tokens at once, where the model has that branch; the "
    "text is the same."
)

# fmt: off
Model = Annotated[str | None, option(None, "--model", MODEL_HELP, "-m", **OF_MODELS)]
Models = Annotated[  # of `list[str]`, the variable would be split at spaces
    list[Path] | None, option(None, "--model", f"{MODEL_HELP} Repeatable.", "-m", **OF_MODELS)
]
Device = Annotated[
    Literal["cpu", "gpu"] | None, option(None, "--device", "Where to compute. Default: on the GPU if MLX has one.")
]
DType = Annotated[
    Literal["stored", "float32", "bfloat16", "int8"] | None,
    option(
        None, "--dtype",
        "Type to compute in. Default: as stored on a GPU, float32 on a CPU, int8 with --engine native.",
    ),
]
Engine = Annotated[
    Literal["auto", "mlx", "native"],
    option(
        None, "--engine",
        "What computes the decoder: MLX, or native code on a CPU, in int8 or float32. auto: MLX, for now.",
    ),
]
Lang = Annotated[
    str,
    option(
        None, "--lang", "Language to write: a code (zh, en, ja, ...), a name, or auto.", "-l", metavar="LANGUAGE",
        autocompletion=complete_languages,
    ),
]
ITN = Annotated[bool, option(LANGUAGE, "--itn/--no-itn", "Write numbers as digits.")]
MaxTokens = Annotated[
    int | None,
    option(DECODING, "--max-tokens", "Stop each segment after this number of tokens. Default: by its length."),
]
Draft = Annotated[Drafting, option(DECODING, "--draft", DRAFT_HELP)]
Quiet = Annotated[bool, option(TERMINAL, "--quiet", "Say nothing but warnings and errors.", "-q")]
# fmt: on
