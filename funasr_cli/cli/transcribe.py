"""``funasr transcribe``."""

from dataclasses import replace
from pathlib import Path

import typer

from funasr_cli.audio.pcm import PCMFormat
from funasr_cli.cli import alignment, compare, console, parameters, times
from funasr_cli.cli.display import Display
from funasr_cli.cli.outcome import Outcome
from funasr_cli.cli.output import DEFAULT_TEMPLATE, Files, OutputPlan, Printer
from funasr_cli.cli.parameters import Channels
from funasr_cli.cli.run import load, report, split_channels, transcribe_all
from funasr_cli.decoding.languages import AUTO
from funasr_cli.errors import UsageError
from funasr_cli.inputs import find_inputs, has_folders, parse_clip
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.subtitles import DEFAULT_LAYOUT, SubtitleLayout
from funasr_cli.writers import DEFAULT_FORMAT, Style, parse_formats

HOTWORDS_HINT = "it is a file with a hotword on each line"
OF_SAMPLING = ("top_p", "top_k", "seed")  # may wait for a temperature, if they have not been typed
OF_RESULTS = (
    "output_template", "force", "resume", "timestamps", "highlight_words", "plot_alignment",
    "max_line_width", "max_line_count",
)  # fmt: skip


def transcribe(
    context: typer.Context,
    audio: parameters.AudioArgument,
    model: parameters.Model = None,
    device: parameters.DeviceOption = None,
    dtype: parameters.DTypeOption = None,
    lang: parameters.Lang = AUTO,
    recursive: parameters.Recursive = False,
    clip: parameters.Clip = None,
    channels: parameters.ChannelsOption = Channels.MIX,
    pcm: parameters.PCM = None,
    rate: parameters.Rate = PCMFormat.sample_rate_hz,
    pcm_channels: parameters.PCMChannels = PCMFormat.channels,
    hotword: parameters.Hotword = None,
    hotwords_file: parameters.HotwordsFile = None,
    compare_hotwords: parameters.CompareHotwords = False,
    prev_text: parameters.PrevText = DEFAULTS.prev_text,
    itn: parameters.ITN = DEFAULTS.itn,
    show_prompt: parameters.ShowPrompt = False,
    vad: parameters.VAD = DEFAULTS.vad,
    vad_threshold: parameters.VADThreshold = DEFAULTS.vad_threshold,
    min_pause: parameters.MinPause = DEFAULTS.min_pause_s,
    join: parameters.Join = DEFAULTS.join_s,
    max_segment: parameters.MaxSegment = DEFAULTS.max_segment_s,
    batch_size: parameters.BatchSize = DEFAULTS.batch_size,
    max_tokens: parameters.MaxTokens = DEFAULTS.max_tokens,
    temperature: parameters.Temperature = DEFAULTS.temperature,
    top_p: parameters.TopP = DEFAULTS.top_p,
    top_k: parameters.TopK = DEFAULTS.top_k,
    seed: parameters.Seed = DEFAULTS.seed,
    draft: parameters.DraftOption = parameters.DEFAULT_DRAFT,
    format: parameters.Formats = None,
    output_dir: parameters.OutputDir = None,
    output_template: parameters.OutputTemplate = None,
    force: parameters.Force = False,
    resume: parameters.Resume = False,
    strict: parameters.Strict = False,
    timestamps: parameters.TimestampsOption = None,
    highlight_words: parameters.HighlightWords = False,
    plot_alignment: parameters.PlotAlignment = None,
    max_line_width: parameters.MaxLineWidth = DEFAULT_LAYOUT.max_line_width,
    max_line_count: parameters.MaxLineCount = DEFAULT_LAYOUT.max_line_count,
    stream: parameters.Stream = False,
    confidence: parameters.Confidence = False,
    quiet: parameters.Quiet = False,
    verbose: parameters.Verbose = False,
) -> None:
    """Transcribe recordings."""
    quiet, verbose = _typed_of(context, "quiet", "verbose")
    console.set_volume(quiet=quiet, verbose=verbose)
    formats = _formats(context)
    _refuse_idle_options(context, formats)
    options, plan = _options(context, formats), _plan(context, formats)
    pcm_format = None if pcm is None else PCMFormat(pcm, rate, pcm_channels)
    part = None if clip is None else parse_clip(clip)
    inputs = find_inputs(audio, recursive=recursive, clip=part, pcm=pcm_format)
    if channels is Channels.SPLIT:
        inputs = split_channels(inputs)
    if compare_hotwords:
        compare.refuse_unusable(inputs, options)
        recognizer = load(model, options, device=device, dtype=dtype, show_prompt=show_prompt)
        raise typer.Exit(compare.run(inputs, recognizer, options))
    if plot_alignment:
        alignment.refuse_unusable(inputs, plot_alignment, replace=force)
    files = Files(plan.folder, plan, inputs) if plan.folder else None
    left = [input for input in inputs if not (plan.resume and files and files.done(input))]
    if len(left) < len(inputs):
        console.note(f"skipped {len(inputs) - len(left)} of {len(inputs)} inputs: their results are there")
    printer = Printer(left, plan)
    if not left:
        return
    recognizer = load(model, options, device=device, dtype=dtype, show_prompt=show_prompt)
    options = times.with_words(options, plan, recognizer, must=times.needs_words(context))
    picture = None
    if plot_alignment:
        picture = alignment.Picture(left[0], recognizer, plot_alignment, replace=force)
        options = replace(options, word_times=True)
    if files:
        files.make_folder()
    outcome = Outcome(skipped=len(inputs) - len(left))
    display = Display(left, files, printer, stream=stream and not _prints_data(context, formats))
    transcribe_all(left, recognizer, options, display, outcome, *([picture.draw] if picture else []))
    report(outcome, left)
    raise typer.Exit(outcome.exit_code(strict=strict))


def _formats(context: typer.Context) -> tuple[str, ...]:
    """Those wanted; several of them from a variable or the settings file wait for an output folder."""
    given = context.params
    formats = parse_formats(given["format"] or [DEFAULT_FORMAT])
    waits = len(formats) > 1 and given["output_dir"] is None and not parameters.is_typed(context, "format")
    return (DEFAULT_FORMAT,) if waits or given["compare_hotwords"] else formats


def _options(context: typer.Context, formats: tuple[str, ...]) -> TranscribeOptions:
    given = context.params
    sampling = {
        name: given[name] for name in OF_SAMPLING if given["temperature"] or parameters.is_typed(context, name)
    }
    hotwords = (*(given["hotword"] or ()), *_read_hotwords(given["hotwords_file"]))
    return TranscribeOptions(
        language=given["lang"],
        hotwords=tuple(dict.fromkeys(hotwords)),
        prev_text=given["prev_text"],
        itn=given["itn"],
        max_tokens=given["max_tokens"],
        temperature=given["temperature"],
        confidence=given["confidence"],
        draft=given["draft"],
        ctc=not {"json", "jsonl"}.isdisjoint(formats),
        vad=given["vad"],
        vad_threshold=given["vad_threshold"],
        min_pause_s=given["min_pause"],
        join_s=given["join"],
        max_segment_s=given["max_segment"],
        batch_size=given["batch_size"],
        **sampling,
    )


def _plan(context: typer.Context, formats: tuple[str, ...]) -> OutputPlan:
    given = context.params
    return OutputPlan(
        formats=formats,
        folder=given["output_dir"],
        template=DEFAULT_TEMPLATE if given["output_template"] is None else given["output_template"],
        language=given["lang"],
        style=Style(
            times=times.shown(context, formats),
            subtitles=SubtitleLayout(
                max_line_width=given["max_line_width"],
                max_line_count=given["max_line_count"],
                highlight_words=given["highlight_words"],
            ),
        ),
        replace=given["force"],
        resume=given["resume"],
        tint=given["confidence"] and console.colours_stdout(),
    )


def _refuse_idle_options(context: typer.Context, formats: tuple[str, ...]) -> None:
    """Refuse what has been typed but would change nothing; the environment and a settings file may hold it."""
    given = context.params
    prints_text = given["stream"] or (given["output_dir"] is None and formats == (DEFAULT_FORMAT,))
    shows_confidence = "json" in formats or "jsonl" in formats or (prints_text and console.colours_stdout())
    to_files = given["output_dir"] is not None, "it is about files; add --output-dir"
    subtitles = "srt" in formats or "vtt" in formats, "it is about subtitles; add --format srt or vtt"
    raw = given["pcm"] is not None, "it is about samples without a header; add --pcm"
    pauses = given["vad"], "it is about pauses, which --no-vad does not look for"
    needs = {
        "output_template": to_files,
        "force": to_files,
        "resume": to_files,
        "highlight_words": subtitles,
        "max_line_width": subtitles,
        "max_line_count": subtitles,
        "rate": raw,
        "pcm_channels": raw,
        "vad_threshold": pauses,
        "min_pause": pauses,
        "join": pauses,
        "confidence": (shows_confidence, "it shows in the colours of a terminal, and in json"),
        "recursive": (any(map(has_folders, given["audio"])), "it is about folders and patterns"),
        "prev_text": (bool(given["prev_text"]), "it is empty"),
    }
    if given["plot_alignment"]:
        needs["resume"] = False, "it does not go with --plot-alignment"
        del needs["force"]  # it replaces the picture
    if given["compare_hotwords"]:
        alone = False, "it does not go with --compare-hotwords"
        needs |= dict.fromkeys((*OF_RESULTS, "format", "output_dir", "stream", "confidence", "strict"), alone)
    for name, (has_effect, hint) in needs.items():
        if not has_effect and parameters.is_typed(context, name):
            raise UsageError(f"--{name.replace('_', '-')} has no effect here", hint)
    if _prints_data(context, formats) and parameters.is_typed(context, "stream"):
        raise UsageError(
            f"--stream writes text, --format {','.join(formats)} data, both to stdout",
            "add --output-dir for the data",
        )


def _prints_data(context: typer.Context, formats: tuple[str, ...]) -> bool:
    return formats != (DEFAULT_FORMAT,) and context.params["output_dir"] is None


def _typed_of(context: typer.Context, one: str, other: str) -> tuple[bool, bool]:
    """Two options that exclude each other: what is typed goes before what comes from elsewhere."""
    typed = parameters.is_typed(context, one), parameters.is_typed(context, other)
    return typed if any(typed) else (context.params[one], context.params[other])


def _read_hotwords(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        words = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})", HOTWORDS_HINT) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text ({error})", HOTWORDS_HINT) from error
    if not words:
        raise UsageError(f"{path}: there are no hotwords in it", HOTWORDS_HINT)
    return words
