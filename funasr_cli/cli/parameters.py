"""The options of ``funasr transcribe``, and those of several commands: names, help, variables, what Tab offers."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from funasr_cli.audio.pcm import PCM_ENCODINGS
from funasr_cli.errors import FunASRError
from funasr_cli.languages import AUTO, LANGUAGES
from funasr_cli.options import DEFAULTS, MAX_PROMPT_TOKENS, Hub, Timestamps
from funasr_cli.writers import ALL_FORMATS, DEFAULT_FORMAT, WRITERS

INPUT = "Input"
LANGUAGE = "Language and prompt"
SEGMENTS = "Segments and batches"
DECODING = "Decoding"
OUTPUT = "Output"
TERMINAL = "Terminal"


# What becomes of a recording's channels; what MLX computes on, and in; whether the decoder is given drafts.
Channels = Literal["mix", "split"]
Device = Literal["cpu", "gpu"]
DType = Literal["stored", "float32", "bfloat16"]
Drafting = Literal["auto", "off"]
DEFAULT_DRAFT = cast(Drafting, DEFAULTS.draft)


def path(text: str) -> Path:
    """A path, with ~ as in a shell: in variables and settings there is none to see to it.

    Raises:
        BadParameter: it is empty, or in the home of nobody.
    """
    if not text:
        raise typer.BadParameter("a path without a name: an empty shell variable?")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise typer.BadParameter(f"{text}: {error}") from error


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line; not from a variable, the settings file or a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


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


def _option(panel: str | None, name: str, help: str, *short: str, env: bool = True, **settings: Any) -> Any:
    """An option that can also be set by ``FUNASR_`` and its long name, where that makes sense."""
    variable = "FUNASR_" + name.split("/")[0].removeprefix("--").replace("-", "_").upper()
    envvar = variable if env else None
    return typer.Option(name, *short, help=help, rich_help_panel=panel, envvar=envvar, **settings)


def _once(panel: str | None, name: str, help: str, **settings: Any) -> Any:
    """An option that belongs to a single run, not into the environment."""
    return _option(panel, name, help, env=False, **settings)


MODEL_HELP = "Folder, hub id or alias of a converted model, or demo."
OF_MODELS: dict[str, Any] = {"metavar": "MODEL", "autocompletion": complete_models}
HOTWORD_HELP = f"A word to expect. Repeatable; the prompt may have {MAX_PROMPT_TOKENS} tokens in all."
TEMPLATE_HELP = (
    "Names of these files: {stem} and {suffix} of the input's, {lang} as asked for, {ext} of the format. "
    "Default: {stem}.{ext}."
)
TIMESTAMPS_HELP = (
    "Whose times are shown. Default: of words in srt, vtt and json where the model has a CTC branch, else of "
    "segments; none in txt."
)
DRAFT_HELP = (
    "Let the decoder check the CTC branch's text, several tokens at once, where the model has that branch; the "
    "text is the same."
)
FORMATS_HELP = (
    f"{', '.join(WRITERS)}; several with commas, or all. On stdout one, where json is a line for each recording. "
    f"Default: {DEFAULT_FORMAT}."
)
PLOT_HELP = "Draw waveform, spectrogram, what the CTC branch heard, and the words at their times: .png or .svg."

# fmt: off
# Of several commands
Model = Annotated[str | None, _option(None, "--model", MODEL_HELP, "-m", **OF_MODELS)]
Models = Annotated[  # of `list[str]`, the variable would be split at spaces
    list[Path] | None, _option(None, "--model", f"{MODEL_HELP} Repeatable.", "-m", **OF_MODELS)
]
DeviceOption = Annotated[
    Device | None, _option(None, "--device", "Where to compute. Default: on the GPU if MLX has one.")
]
DTypeOption = Annotated[
    DType | None, _option(None, "--dtype", "Type to compute in. Default: as stored on a GPU, float32 on a CPU.")
]
Lang = Annotated[
    str,
    _option(
        None, "--lang", "Language to write: a code (zh, en, ja, ...), a name, or auto.", "-l", metavar="LANGUAGE",
        autocompletion=complete_languages,
    ),
]
MaxTokens = Annotated[
    int | None,
    _option(DECODING, "--max-tokens", "Stop each segment after this number of tokens. Default: by its length."),
]
DraftOption = Annotated[Drafting, _option(DECODING, "--draft", DRAFT_HELP)]
HubOption = Annotated[Hub, _option(None, "--hub", "Where to fetch a hub id: Hugging Face or ModelScope.")]
Quiet = Annotated[bool, _option(TERMINAL, "--quiet", "Say nothing but warnings and errors.", "-q")]
Verbose = Annotated[bool, _option(TERMINAL, "--verbose", "Say more about what is being done.", "-v")]

# Input
AudioArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="AUDIO", help="Files, folders, quoted patterns such as 'calls/*.mp3', or - for standard input."
    ),
]
Recursive = Annotated[bool, _option(INPUT, "--recursive", "Look into folders below folders, too.", "-r")]
Clip = Annotated[
    str | None,
    _once(INPUT, "--clip", "A part of each recording: 1:30-2:10, 90-130.5, 1:02:03-.", metavar="FROM-TO"),
]
ChannelsOption = Annotated[
    Channels, _option(INPUT, "--channels", "Mix all channels, or transcribe each for itself.")
]
PCM = Annotated[
    str | None, _once(INPUT, "--pcm", f"The input has no header: {', '.join(PCM_ENCODINGS)}.", metavar="ENCODING")
]
Rate = Annotated[int, _once(INPUT, "--rate", "Sample rate of --pcm in Hz.")]
PCMChannels = Annotated[int, _once(INPUT, "--pcm-channels", "Channels of --pcm, interleaved.")]

# Language and prompt
Hotword = Annotated[list[str] | None, _once(LANGUAGE, "--hotword", HOTWORD_HELP, metavar="WORD")]
HotwordsFile = Annotated[
    Path | None,
    _option(LANGUAGE, "--hotwords-file", "File with a hotword on each line.", metavar="FILE", parser=path),
]
CompareHotwords = Annotated[
    bool, _once(LANGUAGE, "--compare-hotwords", "Transcribe with and without hotwords, and show the differences.")
]
PrevText = Annotated[
    str | None,
    _once(LANGUAGE, "--prev-text", "Text that each recording's first segment goes on from.", metavar="TEXT"),
]
ITN = Annotated[bool, _option(LANGUAGE, "--itn/--no-itn", "Write numbers as digits.")]
ShowPrompt = Annotated[bool, _once(LANGUAGE, "--show-prompt", "Show what the model is asked, word for word.")]

# Segments and batches
VAD = Annotated[bool, _option(SEGMENTS, "--vad/--no-vad", "Leave out silence, end segments in pauses.")]
VADThreshold = Annotated[
    float, _option(SEGMENTS, "--vad-threshold", "Probability from which a moment counts as speech.")
]
MinPause = Annotated[float, _option(SEGMENTS, "--min-pause", "Shortest pause that ends a segment, in seconds.")]
Join = Annotated[
    float,
    _option(SEGMENTS, "--join", "Let segments shorter than this, in seconds, go on over pauses of up to 1 s."),
]
MaxSegment = Annotated[
    float,
    _option(
        SEGMENTS, "--max-segment", "Longest segment, in seconds; longer speech is cut at its deepest pause."
    ),
]
BatchSize = Annotated[
    int | None,
    _option(SEGMENTS, "--batch-size", "Segments decoded side by side. Default: by the memory at hand."),
]

# Decoding
Temperature = Annotated[
    float, _option(DECODING, "--temperature", "Above 0, sample instead of taking the likeliest token.")
]
TopP = Annotated[float | None, _option(DECODING, "--top-p", "Sample from this share of the likeliest tokens.")]
TopK = Annotated[int | None, _option(DECODING, "--top-k", "Sample from this number of the likeliest tokens.")]
Seed = Annotated[int | None, _option(DECODING, "--seed", "Start of the random numbers. Default: 0.")]

# Output
Formats = Annotated[
    list[str] | None,
    _option(OUTPUT, "--format", FORMATS_HELP, "-f", metavar="FORMATS", autocompletion=complete_formats),
]
OutputDir = Annotated[
    Path | None,
    _option(
        OUTPUT, "--output-dir", "Write files here, for each input and format.", "-o", metavar="FOLDER",
        parser=path,
    ),
]
OutputTemplate = Annotated[str | None, _option(OUTPUT, "--output-template", TEMPLATE_HELP, metavar="TEMPLATE")]
Force = Annotated[bool, _once(OUTPUT, "--force", "Replace results that are there.")]
Resume = Annotated[bool, _once(OUTPUT, "--resume", "Skip inputs whose results are there and up to date.")]
Strict = Annotated[
    bool, _option(OUTPUT, "--strict", "A single second of speech without its text fails the input.")
]
TimestampsOption = Annotated[Timestamps | None, _option(OUTPUT, "--timestamps", TIMESTAMPS_HELP)]
HighlightWords = Annotated[
    bool, _option(OUTPUT, "--highlight-words", "In subtitles, underline each word while it is said.")
]
PlotAlignment = Annotated[Path | None, _once(OUTPUT, "--plot-alignment", PLOT_HELP, metavar="FILE", parser=path)]
MaxLineWidth = Annotated[
    int, _option(OUTPUT, "--max-line-width", "Columns of a line of subtitles; a Chinese character takes two.")
]
MaxLineCount = Annotated[int, _option(OUTPUT, "--max-line-count", "Lines of a subtitle.")]

# Terminal
Stream = Annotated[bool, _option(TERMINAL, "--stream", "Show text while it is being written.")]
Confidence = Annotated[
    bool,
    _option(TERMINAL, "--confidence", "Colour words that the model was unsure of; in json, say how sure."),
]
# fmt: on
