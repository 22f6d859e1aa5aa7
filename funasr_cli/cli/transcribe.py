"""``funasr transcribe``: its options, what they come to, and one run."""

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from funasr_cli.audio.pcm import PCM_ENCODINGS, PCMFormat
from funasr_cli.capabilities import supported
from funasr_cli.cli import alignment, compare, console, parameters
from funasr_cli.cli.display import Display
from funasr_cli.cli.outcome import Outcome
from funasr_cli.cli.output import DEFAULT_TEMPLATE, Files, OutputPlan, Printer
from funasr_cli.cli.resume import Notes
from funasr_cli.cli.run import choose_aligner, load, read_hotwords, transcribe_all
from funasr_cli.errors import UsageError
from funasr_cli.inputs import find_inputs, folders_below, has_folders, parse_clip
from funasr_cli.languages import AUTO
from funasr_cli.options import DEFAULTS, MAX_PROMPT_TOKENS, Tags, Timestamps, TranscribeOptions
from funasr_cli.subtitles import DEFAULT_LAYOUT, SubtitleLayout
from funasr_cli.writers import (
    ALL_FORMATS,
    DATA,
    DEFAULT_FORMAT,
    DEFAULT_TIMES,
    OF_TIMES,
    WRITERS,
    Style,
    parse_formats,
)

OF_SAMPLING = ("top_p", "top_k", "seed")
OF_RESULTS = (
    "output_template", "force", "resume", "timestamps", "tags", "align_with", "highlight_words", "plot_alignment",
    "max_line_width", "max_line_count",
)  # fmt: skip
HOTWORD_HELP = f"A word to expect. Repeatable; the prompt may have {MAX_PROMPT_TOKENS} tokens in all."
TEMPLATE_HELP = (
    "Names of these files: {stem} and {suffix} of the input's, {lang} as asked for, {ext} of the format. "
    "Default: {stem}.{ext}."
)
TIMESTAMPS_HELP = (
    "Whose times are shown. Default: of words in srt, vtt and json where the model can tell them, else of "
    "segments; none in txt."
)
TAGS_HELP = (
    "Show emotion and sounds that the model heard beside the text: as names or emoji; JSON always has them."
)
ALIGN_WITH_HELP = (
    "Converted model that tells when words were said, for one that cannot tell: sensevoice, for example."
)
FORMATS_HELP = (
    f"{', '.join(WRITERS)}; several with commas, or all. On stdout one, where json is a line for each recording. "
    f"Default: {DEFAULT_FORMAT}."
)
PLOT_HELP = "Draw waveform, spectrogram, what the CTC branch heard, and the words at their times: .png or .svg."


def _path(text: str) -> Path:
    """Read a path, with ~ as in a shell, which does not see to variables and settings."""
    if not text:
        raise typer.BadParameter("a path without a name: an empty shell variable?")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise typer.BadParameter(f"{text}: {error}") from error


_input = partial(parameters.option, "Input")
_prompt = partial(parameters.option, parameters.LANGUAGE)
_segments = partial(parameters.option, "Segments and batches")
_decoding = partial(parameters.option, parameters.DECODING)
_output = partial(parameters.option, "Output")
_terminal = partial(parameters.option, parameters.TERMINAL)


def transcribe(
    context: typer.Context,
    audio: Annotated[
        list[str],
        typer.Argument(
            metavar="AUDIO", help="Files, folders, quoted patterns such as 'calls/*.mp3', or - for standard input."
        ),
    ],
    model: parameters.Model = None,
    device: parameters.Device = None,
    dtype: parameters.DType = None,
    engine: parameters.Engine = parameters.DEFAULT_ENGINE,
    lang: parameters.Lang = AUTO,
    recursive: Annotated[bool, _input("--recursive", "Look into folders below folders, too.", "-r")] = False,
    clip: Annotated[
        str | None,
        _input("--clip", "A part of each recording: 1:30-2:10, 90-130.5, 1:02:03-.", metavar="FROM-TO", env=False),
    ] = None,
    channels: Annotated[
        Literal["mix", "split"], _input("--channels", "Mix all channels, or transcribe each for itself.")
    ] = "mix",
    pcm: Annotated[
        str | None,
        _input("--pcm", f"The input has no header: {', '.join(PCM_ENCODINGS)}.", metavar="ENCODING", env=False),
    ] = None,
    rate: Annotated[int, _input("--rate", "Sample rate of --pcm in Hz.", env=False)] = PCMFormat.sample_rate_hz,
    pcm_channels: Annotated[
        int, _input("--pcm-channels", "Channels of --pcm, interleaved.", env=False)
    ] = PCMFormat.channels,
    hotword: Annotated[list[str] | None, _prompt("--hotword", HOTWORD_HELP, metavar="WORD", env=False)] = None,
    hotwords_file: Annotated[
        Path | None, _prompt("--hotwords-file", "File with a hotword on each line.", metavar="FILE", parser=_path)
    ] = None,
    compare_hotwords: Annotated[
        bool,
        _prompt(
            "--compare-hotwords", "Transcribe with and without hotwords, and show the differences.", env=False
        ),
    ] = False,
    prev_text: Annotated[
        str | None,
        _prompt(
            "--prev-text", "Text that each recording's first segment goes on from.", metavar="TEXT", env=False
        ),
    ] = DEFAULTS.prev_text,
    itn: parameters.ITN = DEFAULTS.itn,
    show_prompt: Annotated[
        bool, _prompt("--show-prompt", "Show what the model is asked, word for word.", env=False)
    ] = False,
    vad: Annotated[bool, _segments("--vad/--no-vad", "Leave out silence, end segments in pauses.")] = DEFAULTS.vad,
    vad_threshold: Annotated[
        float, _segments("--vad-threshold", "Probability from which a moment counts as speech.")
    ] = DEFAULTS.vad_threshold,
    min_pause: Annotated[
        float, _segments("--min-pause", "Shortest pause that ends a segment, in seconds.")
    ] = DEFAULTS.min_pause_s,
    join: Annotated[
        float, _segments("--join", "Let segments shorter than this, in seconds, go on over pauses of up to 1 s.")
    ] = DEFAULTS.join_s,
    max_segment: Annotated[
        float,
        _segments("--max-segment", "Longest segment, in seconds; longer speech is cut at its deepest pause."),
    ] = DEFAULTS.max_segment_s,
    batch_size: Annotated[
        int | None, _segments("--batch-size", "Segments decoded side by side. Default: by the memory at hand.")
    ] = DEFAULTS.batch_size,
    max_tokens: parameters.MaxTokens = DEFAULTS.max_tokens,
    temperature: Annotated[
        float, _decoding("--temperature", "Above 0, sample instead of taking the likeliest token.")
    ] = DEFAULTS.temperature,
    top_p: Annotated[
        float | None, _decoding("--top-p", "Sample from this share of the likeliest tokens.")
    ] = DEFAULTS.top_p,
    top_k: Annotated[
        int | None, _decoding("--top-k", "Sample from this number of the likeliest tokens.")
    ] = DEFAULTS.top_k,
    seed: Annotated[int | None, _decoding("--seed", "Start of the random numbers. Default: 0.")] = DEFAULTS.seed,
    draft: parameters.Draft = parameters.DEFAULT_DRAFT,
    format: Annotated[
        list[str] | None,
        _output(
            "--format",
            FORMATS_HELP,
            "-f",
            metavar="FORMATS",
            autocompletion=parameters.behind_commas(*WRITERS, ALL_FORMATS),
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        _output(
            "--output-dir", "Write files here, for each input and format.", "-o", metavar="FOLDER", parser=_path
        ),
    ] = None,
    output_template: Annotated[str | None, _output("--output-template", TEMPLATE_HELP, metavar="TEMPLATE")] = None,
    force: Annotated[bool, _output("--force", "Replace existing results.", env=False)] = False,
    resume: Annotated[
        bool, _output("--resume", "Skip inputs whose results exist and are up to date.", env=False)
    ] = False,
    strict: Annotated[
        bool, _output("--strict", "A single second of speech without its text fails the input.")
    ] = False,
    timestamps: Annotated[Timestamps | None, _output("--timestamps", TIMESTAMPS_HELP)] = None,
    tags: Annotated[Tags, _output("--tags", TAGS_HELP)] = Tags.NONE,
    align_with: Annotated[str | None, _output("--align-with", ALIGN_WITH_HELP, **parameters.OF_MODELS)] = None,
    highlight_words: Annotated[
        bool, _output("--highlight-words", "In subtitles, underline each word while it is said.")
    ] = False,
    plot_alignment: Annotated[
        Path | None, _output("--plot-alignment", PLOT_HELP, metavar="FILE", parser=_path, env=False)
    ] = None,
    max_line_width: Annotated[
        int, _output("--max-line-width", "Columns of a line of subtitles; a Chinese character takes two.")
    ] = DEFAULT_LAYOUT.max_line_width,
    max_line_count: Annotated[
        int, _output("--max-line-count", "Lines of a subtitle.")
    ] = DEFAULT_LAYOUT.max_line_count,
    stream: Annotated[bool, _terminal("--stream", "Show text while it is being written.")] = False,
    confidence: Annotated[
        bool, _terminal("--confidence", "Colour words that the model was unsure of; in json, say how sure.")
    ] = False,
    quiet: parameters.Quiet = False,
    verbose: Annotated[bool, _terminal("--verbose", "Say more about what is being done.", "-v")] = False,
) -> None:
    """Transcribe recordings."""
    volume = [name for name in ("quiet", "verbose") if parameters.is_typed(context, name)]
    given = volume or [name for name in ("quiet", "verbose") if context.params[name]]  # what is typed goes first
    console.set_volume(quiet="quiet" in given, verbose="verbose" in given)
    formats = _formats(context)
    _refuse_idle_options(context, formats)
    options, plan, typed = _options(context, formats), _plan(context, formats), _typed(context)
    if stream or not plan.folder:
        console.refuse_closed_stdout()
    pcm_format = None if pcm is None else PCMFormat(pcm, rate, pcm_channels)
    part = None if clip is None else parse_clip(clip)
    inputs = find_inputs(audio, recursive=recursive, clip=part, pcm=pcm_format)
    if not recursive and (below := folders_below(audio)):
        folders = f"{len(below)} folder{'s' * (len(below) > 1)} with recordings"
        console.note(f"{folders} left out; --recursive looks into folders, too")
    # What is wrong with the command line is known without these, which take time.
    from funasr_cli.families.open import capabilities
    from funasr_cli.hubs.find import find_model
    from funasr_cli.sources import split_channels

    if channels == "split":
        with console.busy("counting channels"):
            inputs = split_channels(inputs)
    if compare_hotwords:
        compare.refuse_unusable(inputs, options)
        typed = {"hotwords": "--compare-hotwords"} | typed  # those of a variable are asked for, too
        recognizer, options = load(
            find_model(model), options, typed, device=device, dtype=dtype, engine=engine, show_prompt=show_prompt
        )
        raise typer.Exit(compare.run(inputs, recognizer, options))
    if plot_alignment:
        alignment.refuse_unusable(inputs, plot_alignment, replace=force)
    others = [path for path in (plot_alignment, hotwords_file) if path]
    files = Files(plan, inputs, others) if plan.folder else None
    plan.refuse_together(inputs)
    shown = {plan.style.times or DEFAULT_TIMES[format] for format in plan.formats}
    options = replace(options, word_times=Timestamps.WORD in shown or plot_alignment is not None)
    folder = find_model(model)
    able = capabilities(folder)
    aligner = choose_aligner(align_with, able, options, typed)
    left = inputs
    if plan.folder and files:  # a result is made of what has an effect
        able = replace(able, word_times=able.word_times or aligner is not None)
        style = plan.style if able.tags or "tags" in typed else replace(plan.style, tags=Tags.NONE)
        effective = supported(options, able, typed=typed)
        left = files.left(inputs, Notes(plan.folder, folder, effective, style, dtype, engine, aligner))
    outcome = Outcome(skipped=len(inputs) - len(left), incomplete=files.incomplete if files else 0)
    if not left:
        raise typer.Exit(outcome.exit_code(strict=strict))
    recognizer, options = load(
        folder, options, typed, aligner, device=device, dtype=dtype, engine=engine, show_prompt=show_prompt
    )
    finish = []
    if plot_alignment:
        finish.append(alignment.prepare(left[0], recognizer, options, plot_alignment, replace=force))
    display = Display(left, files, Printer(left, plan), stream=stream and not _prints_data(context, formats))
    try:
        transcribe_all(left, recognizer, options, display, outcome, files, *finish)
    except KeyboardInterrupt as error:
        done = f": {len(outcome.rows)} of {len(left)} inputs are done; --resume goes on with the others"
        raise KeyboardInterrupt(done if files and outcome.rows else "") from error
    if console.shows_progress():
        from funasr_cli.cli import tables

        names = [input.label for input in left]
        console.stderr().print(tables.outcome(outcome, names, console.stderr().width))
    else:
        console.detail(outcome.costs())
    console.note(outcome.summary())
    raise typer.Exit(outcome.exit_code(strict=strict))


def _formats(context: typer.Context) -> tuple[str, ...]:
    """Return those wanted; several of them from a variable or the settings file wait for an output folder."""
    given = context.params
    formats = parse_formats(given["format"] or [DEFAULT_FORMAT])
    waits = len(formats) > 1 and given["output_dir"] is None and not parameters.is_typed(context, "format")
    return (DEFAULT_FORMAT,) if waits or given["compare_hotwords"] else formats


def _parameters() -> dict[str, tuple[str, ...]]:
    """Name the parameters that fields of `TranscribeOptions` come from: the same without the unit, but for two."""
    names = {field.name: (field.name.removesuffix("_s"),) for field in fields(TranscribeOptions)}
    return names | {"language": ("lang",), "hotwords": ("hotword", "hotwords_file")}


def _typed(context: typer.Context) -> dict[str, str]:
    """Return what stands on the command line, by fields of `TranscribeOptions` and what else may be refused."""
    given = context.params
    names = _parameters() | {name: (name,) for name in ("align_with", "show_prompt")}
    typed = parameters.typed(context, names)
    if parameters.is_typed(context, "tags") and given["tags"] is not Tags.NONE:
        typed["tags"] = f"--tags {given['tags']}"
    if parameters.is_typed(context, "highlight_words"):
        typed["word_times"] = "--highlight-words"
    elif given["timestamps"] is Timestamps.WORD:  # also of a variable: nothing else would be shown
        typed["word_times"] = f"--timestamps {Timestamps.WORD}"
    elif given["plot_alignment"]:
        typed["word_times"] = "--plot-alignment"
    return typed


def _options(context: typer.Context, formats: tuple[str, ...]) -> TranscribeOptions:
    given = dict(context.params)
    for name in OF_SAMPLING:  # they may wait for a temperature, if they have not been typed
        if not given["temperature"] and not parameters.is_typed(context, name):
            given[name] = None
    hotwords = (*(given["hotword"] or ()), *read_hotwords(given["hotwords_file"]))
    same = {field: given[names[0]] for field, names in _parameters().items() if names[0] in given}
    own = {"hotwords": tuple(dict.fromkeys(hotwords)), "ctc": not set(DATA).isdisjoint(formats)}
    return TranscribeOptions(**(same | own))


def _plan(context: typer.Context, formats: tuple[str, ...]) -> OutputPlan:
    given = context.params
    layout = SubtitleLayout(
        max_line_width=given["max_line_width"],
        max_line_count=given["max_line_count"],
        highlight_words=given["highlight_words"],
    )
    return OutputPlan(
        formats=formats,
        folder=given["output_dir"],
        template=DEFAULT_TEMPLATE if given["output_template"] is None else given["output_template"],
        language=given["lang"],
        style=Style(_times(context, formats), layout, given["tags"]),
        replace=given["force"],
        resume=given["resume"],
        tint=given["confidence"] and console.colours_stdout(),
    )


def _times(context: typer.Context, formats: tuple[str, ...]) -> Timestamps | None:
    """Tell whose times are shown; None leaves it to each format. What is typed goes before other settings."""
    times: Timestamps | None = context.params["timestamps"]
    typed = parameters.is_typed(context, "timestamps")
    if parameters.is_typed(context, "highlight_words") and times not in (None, Timestamps.WORD):
        if typed:
            message = f"--highlight-words with --timestamps {times}"
            raise UsageError(message, "it takes the times of words", code="options-conflict")
        return None
    waits = times is Timestamps.NONE and not typed and not set(OF_TIMES).isdisjoint(formats)
    return None if waits else times


def _refuse_idle_options(context: typer.Context, formats: tuple[str, ...]) -> None:
    """Refuse what has been typed but would change nothing; the environment and a settings file may hold it."""
    given = context.params
    prints_text = given["stream"] or (given["output_dir"] is None and formats == (DEFAULT_FORMAT,))
    has_text, times = not set(formats) <= set(DATA), _times(context, formats)
    has_words = any((times or DEFAULT_TIMES[format]) is Timestamps.WORD for format in formats)
    shows_confidence = "json" in formats or "jsonl" in formats or (prints_text and console.colours_stdout())
    to_files = given["output_dir"] is not None, "it is about files; add --output-dir"
    subtitles = "srt" in formats or "vtt" in formats, "it is about subtitles; add --format srt or vtt"
    raw = given["pcm"] is not None, "it is about samples without a header; add --pcm"
    pauses = given["vad"], "it is about pauses, which --no-vad does not look for"
    needs = {
        **dict.fromkeys(("output_template", "force", "resume"), to_files),
        **dict.fromkeys(("highlight_words", "max_line_width", "max_line_count"), subtitles),
        **dict.fromkeys(("rate", "pcm_channels"), raw),
        **dict.fromkeys(("vad_threshold", "min_pause", "join"), pauses),
        "confidence": (shows_confidence, "it shows in the colours of a terminal, and in json"),
        "recursive": (any(map(has_folders, given["audio"])), "it is about folders and patterns"),
        "prev_text": (bool(given["prev_text"]), "it is empty"),
        "tags": (has_text or given["tags"] is Tags.NONE, "json always has them, in a field of their own"),
        "align_with": (
            bool(given["align_with"]) and (has_words or given["plot_alignment"]),
            "it is about times of words; add --timestamps word, or --format srt, vtt or json"
            if given["align_with"]
            else "it is empty",
        ),
    }
    if given["plot_alignment"]:
        needs["resume"] = False, "it does not go with --plot-alignment"
        del needs["force"]  # it replaces the picture
    if given["compare_hotwords"]:
        alone = False, "it does not go with --compare-hotwords"
        needs |= dict.fromkeys((*OF_RESULTS, "format", "output_dir", "stream", "confidence", "strict"), alone)
    for name, (has_effect, hint) in needs.items():
        if not has_effect and parameters.is_typed(context, name):
            raise UsageError(f"--{name.replace('_', '-')} has no effect here", hint, code="option-idle")
    if _prints_data(context, formats) and parameters.is_typed(context, "stream"):
        message = f"--stream writes text, --format {','.join(formats)} data, both to stdout"
        raise UsageError(message, "add --output-dir for the data", code="options-conflict")


def _prints_data(context: typer.Context, formats: tuple[str, ...]) -> bool:
    return formats != (DEFAULT_FORMAT,) and context.params["output_dir"] is None
