"""The options of ``funasr transcribe``, and those of several commands: names, help, variables, completion."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from funasr_cli.audio.pcm import PCM_ENCODINGS
from funasr_cli.cli.completion import complete_formats, complete_languages, complete_models
from funasr_cli.options import (
    AUTO_DRAFT,
    DEFAULTS,
    MAX_HOTWORD_CHARACTERS,
    MAX_HOTWORDS,
    NO_DRAFT,
    Hub,
    Timestamps,
)
from funasr_cli.writers import DEFAULT_FORMAT, WRITERS

INPUT = "Input"
LANGUAGE = "Language and prompt"
SEGMENTS = "Segments and batches"
DECODING = "Decoding"
OUTPUT = "Output"
TERMINAL = "Terminal"


class Channels(StrEnum):
    """What becomes of a recording's channels."""

    MIX = "mix"
    SPLIT = "split"


class Device(StrEnum):
    """What MLX computes on."""

    CPU = "cpu"
    GPU = "gpu"


class DType(StrEnum):
    """What it computes in."""

    STORED = "stored"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Drafting(StrEnum):
    """Whether the decoder is given drafts."""

    AUTO = AUTO_DRAFT
    OFF = NO_DRAFT


DEFAULT_DRAFT = Drafting(DEFAULTS.draft)


def folder(text: str) -> Path:
    """A path to write to.

    Raises:
        BadParameter: it is empty.
    """
    if not text:
        raise typer.BadParameter("a folder without a name: an empty shell variable?")
    return file(text)


def file(text: str) -> Path:
    """A path, with ~ as in a shell: in variables and settings there is none to see to it.

    Raises:
        BadParameter: it is in the home of nobody.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise typer.BadParameter(f"{text}: {error}") from error


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line; not from a variable, the settings file or a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(panel: str | None, *names: str, env: bool = True, **settings: Any) -> Any:
    """An option that can also be set by ``FUNASR_`` and its long name, where that makes sense."""
    long = next(name for name in names if name.startswith("--"))
    variable = "FUNASR_" + long.split("/")[0].removeprefix("--").replace("-", "_").upper()
    return typer.Option(*names, rich_help_panel=panel, envvar=variable if env else None, **settings)


def _once(panel: str | None, *names: str, **settings: Any) -> Any:
    """An option that belongs to a single run, not into the environment."""
    return _option(panel, *names, env=False, **settings)


# Of several commands
Model = Annotated[
    str | None,
    _option(
        None,
        "--model", "-m",
        metavar="MODEL",
        help="Folder, hub id or alias of a converted model, or demo.",
        autocompletion=complete_models,
    ),
]  # fmt: skip
Models = Annotated[
    list[Path] | None,  # of `list[str]`, the variable would be split at spaces
    _option(
        None,
        "--model", "-m",
        metavar="MODEL",
        help="Folder, hub id or alias of a converted model, or demo. Repeatable.",
        autocompletion=complete_models,
    ),
]  # fmt: skip
DeviceOption = Annotated[
    Device | None, _option(None, "--device", help="Where to compute. Default: on the GPU if MLX has one.")
]
DTypeOption = Annotated[
    DType | None,
    _option(
        None, "--dtype", help="Type to compute in. Default: as stored on a GPU, float32 on a CPU."
    ),
]  # fmt: skip
Lang = Annotated[
    str,
    _option(
        None,
        "--lang", "-l",
        metavar="LANGUAGE",
        help="Language to write: a code (zh, en, ja, ...), a name, or auto.",
        autocompletion=complete_languages,
    ),
]  # fmt: skip
MaxTokens = Annotated[
    int | None,
    _option(DECODING, "--max-tokens", help="Stop each segment after so many tokens. Default: by its length."),
]
DraftOption = Annotated[
    Drafting,
    _option(
        DECODING,
        "--draft",
        help="Let the decoder check the CTC branch's text, several tokens at once, where the model has that "
        "branch; the text is the same.",
    ),
]
HubOption = Annotated[Hub, _option(None, "--hub", help="Where to fetch a hub id: Hugging Face or ModelScope.")]
Quiet = Annotated[bool, _option(TERMINAL, "--quiet", "-q", help="Say nothing but warnings and errors.")]
Verbose = Annotated[bool, _option(TERMINAL, "--verbose", "-v", help="Say more about what is being done.")]

# Input
AudioArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="AUDIO", help="Files, folders, quoted patterns such as 'calls/*.mp3', or - for standard input."
    ),
]
Recursive = Annotated[bool, _option(INPUT, "--recursive", "-r", help="Look into folders below folders, too.")]
Clip = Annotated[
    str | None,
    _once(INPUT, "--clip", metavar="FROM-TO", help="A part of each recording: 1:30-2:10, 90-130.5, 1:02:03-."),
]
ChannelsOption = Annotated[
    Channels, _option(INPUT, "--channels", help="Mix all channels, or transcribe each for itself.")
]
PCM = Annotated[
    str | None,
    _once(
        INPUT, "--pcm", metavar="ENCODING", help=f"The input has no header: {', '.join(PCM_ENCODINGS)}."
    ),
]  # fmt: skip
Rate = Annotated[int, _once(INPUT, "--rate", help="Sample rate of --pcm in Hz.")]
PCMChannels = Annotated[int, _once(INPUT, "--pcm-channels", help="Channels of --pcm, interleaved.")]

# Language and prompt
Hotword = Annotated[
    list[str] | None,
    _once(
        LANGUAGE,
        "--hotword",
        metavar="WORD",
        help=f"A word to expect. Repeatable: up to {MAX_HOTWORDS}, of {MAX_HOTWORD_CHARACTERS} characters each.",
    ),
]
HotwordsFile = Annotated[
    Path | None,
    _option(LANGUAGE, "--hotwords-file", metavar="FILE", parser=file, help="File with a hotword on each line."),
]
CompareHotwords = Annotated[
    bool,
    _once(LANGUAGE, "--compare-hotwords", help="Transcribe with and without hotwords, and show the differences."),
]
PrevText = Annotated[
    str | None,
    _once(LANGUAGE, "--prev-text", metavar="TEXT", help="Text that each recording's first segment goes on from."),
]
ITN = Annotated[bool, _option(LANGUAGE, "--itn/--no-itn", help="Write numbers as digits.")]
ShowPrompt = Annotated[bool, _once(LANGUAGE, "--show-prompt", help="Show what the model is asked, word for word.")]

# Segments and batches
VAD = Annotated[bool, _option(SEGMENTS, "--vad/--no-vad", help="Leave out silence, end segments in pauses.")]
VADThreshold = Annotated[
    float, _option(SEGMENTS, "--vad-threshold", help="Probability from which a moment counts as speech.")
]
MinPause = Annotated[
    float, _option(SEGMENTS, "--min-pause", help="Shortest pause that ends a segment, in seconds.")
]
Join = Annotated[
    float,
    _option(
        SEGMENTS, "--join", help="Let segments shorter than this, in seconds, go on over pauses of up to 1 s."
    ),
]
MaxSegment = Annotated[
    float,
    _option(
        SEGMENTS,
        "--max-segment",
        help="Longest segment, in seconds; longer speech is cut at its deepest pause.",
    ),
]
BatchSize = Annotated[
    int | None,
    _option(
        SEGMENTS, "--batch-size", help="Segments decoded side by side. Default: by the memory at hand."
    ),
]  # fmt: skip

# Decoding
Temperature = Annotated[
    float, _option(DECODING, "--temperature", help="Above 0, sample instead of taking the likeliest token.")
]
TopP = Annotated[
    float | None, _option(DECODING, "--top-p", help="Sample from this share of the likeliest tokens.")
]
TopK = Annotated[int | None, _option(DECODING, "--top-k", help="Sample from so many of the likeliest tokens.")]
Seed = Annotated[int | None, _option(DECODING, "--seed", help="Start of the random numbers. Default: 0.")]

# Output
Formats = Annotated[
    list[str] | None,
    _option(
        OUTPUT,
        "--format", "-f",
        metavar="FORMATS",
        help=f"{', '.join(WRITERS)}; several with commas, or all. On stdout one, where json is a line for each "
        f"recording. Default: {DEFAULT_FORMAT}.",
        autocompletion=complete_formats,
    ),
]  # fmt: skip
OutputDir = Annotated[
    Path | None,
    _option(
        OUTPUT,
        "--output-dir",
        "-o",
        metavar="FOLDER",
        parser=folder,
        help="Write files here, for each input and format.",
    ),
]
OutputTemplate = Annotated[
    str | None,
    _option(
        OUTPUT,
        "--output-template",
        metavar="TEMPLATE",
        help="Names of these files: {stem} and {suffix} of the input's, {lang} as asked for, {ext} of the format. "
        "Default: {stem}.{ext}.",
    ),
]
Force = Annotated[bool, _once(OUTPUT, "--force", help="Replace results that are there.")]
Resume = Annotated[bool, _once(OUTPUT, "--resume", help="Skip inputs whose results are there.")]
Strict = Annotated[
    bool, _option(OUTPUT, "--strict", help="A single second of speech without its text fails the input.")
]
TimestampsOption = Annotated[
    Timestamps | None,
    _option(
        OUTPUT,
        "--timestamps",
        help="Whose times are shown. Default: of words in srt, vtt and json where the model has a CTC branch, "
        "else of segments; none in txt.",
    ),
]
HighlightWords = Annotated[
    bool, _option(OUTPUT, "--highlight-words", help="In subtitles, underline each word while it is said.")
]
PlotAlignment = Annotated[
    Path | None,
    _once(
        OUTPUT,
        "--plot-alignment",
        metavar="FILE",
        parser=file,
        help="Draw the waveform, what the CTC branch heard, and the words at their times: .png or .svg.",
    ),
]
MaxLineWidth = Annotated[
    int,
    _option(OUTPUT, "--max-line-width", help="Columns of a line of subtitles; a Chinese character takes two."),
]
MaxLineCount = Annotated[int, _option(OUTPUT, "--max-line-count", help="Lines of a subtitle.")]

# Terminal
Stream = Annotated[bool, _option(TERMINAL, "--stream", help="Show text while it is being written.")]
Confidence = Annotated[
    bool,
    _option(TERMINAL, "--confidence", help="Colour words that the model was unsure of; in json, say how sure."),
]
