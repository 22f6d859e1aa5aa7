"""``funasr transcribe``."""

from pathlib import Path

import typer

from funasr_cli.cli import compare, console, parameters
from funasr_cli.cli.display import Display
from funasr_cli.cli.outcome import Outcome
from funasr_cli.cli.output import DEFAULT_TEMPLATE, Files, OutputPlan, Printer
from funasr_cli.cli.parameters import Channels
from funasr_cli.cli.run import load, report, split_channels, transcribe_all
from funasr_cli.decoding.languages import AUTO
from funasr_cli.errors import UsageError
from funasr_cli.inputs import PCMFormat, find_inputs, parse_clip
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.subtitles import DEFAULT_LAYOUT, SubtitleLayout
from funasr_cli.writers import DEFAULT_FORMAT, parse_formats

OF_RESULTS = ("output_template", "force", "resume", "max_line_width", "max_line_count")


def transcribe(
    context: typer.Context,
    audio: parameters.AudioArgument,
    model: parameters.Model = None,
    lang: parameters.Lang = AUTO,
    recursive: parameters.Recursive = False,
    clip: parameters.Clip = None,
    channels: parameters.ChannelsOption = Channels.MIX,
    pcm: parameters.PCM = None,
    rate: parameters.Rate = 16000,
    pcm_channels: parameters.PCMChannels = 1,
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
    format: parameters.Formats = None,
    output_dir: parameters.OutputDir = None,
    output_template: parameters.OutputTemplate = None,
    force: parameters.Force = False,
    resume: parameters.Resume = False,
    strict: parameters.Strict = False,
    max_line_width: parameters.MaxLineWidth = DEFAULT_LAYOUT.max_line_width,
    max_line_count: parameters.MaxLineCount = DEFAULT_LAYOUT.max_line_count,
    stream: parameters.Stream = False,
    confidence: parameters.Confidence = False,
    quiet: parameters.Quiet = False,
    verbose: parameters.Verbose = False,
) -> None:
    """Transcribe recordings."""
    quiet, verbose = _typed_of(context, "quiet", "verbose")
    force, resume = _typed_of(context, "force", "resume")
    console.set_volume(quiet=quiet, verbose=verbose)
    formats = parse_formats(format or [DEFAULT_FORMAT]) if not compare_hotwords else (DEFAULT_FORMAT,)
    _refuse_idle_options(context, formats)
    stream = stream and not _prints_data(context, formats)
    if not temperature:  # settings of sampling may wait for one
        top_p, top_k, seed = (
            context.params[name] if _is_typed(context, name) else None for name in ("top_p", "top_k", "seed")
        )
    options = TranscribeOptions(
        language=lang,
        hotwords=(*(hotword or ()), *_read_hotwords(hotwords_file)),
        prev_text=prev_text,
        itn=itn,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        confidence=confidence,
        ctc=not {"json", "jsonl"}.isdisjoint(formats),
        vad=vad,
        vad_threshold=vad_threshold,
        min_pause_s=min_pause,
        join_s=join,
        max_segment_s=max_segment,
        batch_size=batch_size,
    )
    plan = OutputPlan(
        formats=formats,
        folder=output_dir,
        template=DEFAULT_TEMPLATE if output_template is None else output_template,
        language=lang,
        layout=SubtitleLayout(max_line_width=max_line_width, max_line_count=max_line_count),
        replace=force,
        resume=resume,
        tint=confidence and console.colours_stdout(),
    )
    pcm_format = None if pcm is None else PCMFormat(pcm, rate, pcm_channels)
    part = None if clip is None else parse_clip(clip)
    inputs = find_inputs(audio, recursive=recursive, clip=part, pcm=pcm_format)
    if channels is Channels.SPLIT:
        inputs = split_channels(inputs)
    if compare_hotwords:
        compare.refuse_unusable(inputs, options)
        recognizer = load(model, options, show_prompt=show_prompt)
        raise typer.Exit(compare.run(inputs, recognizer, options))
    files = Files(plan.folder, plan, inputs) if plan.folder else None
    left = [input for input in inputs if not (resume and files and files.done(input))]
    if len(left) < len(inputs):
        console.note(f"skipped {len(inputs) - len(left)} of {len(inputs)} inputs: their results are there")
    printer = Printer(left, plan)
    if not left:
        return
    recognizer = load(model, options, show_prompt=show_prompt)
    if files:
        files.make_folder()
    outcome = Outcome(skipped=len(inputs) - len(left))
    transcribe_all(left, recognizer, options, Display(left, files, printer, stream=stream), outcome)
    report(outcome, left)
    raise typer.Exit(outcome.exit_code(strict=strict))


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
        "max_line_width": subtitles,
        "max_line_count": subtitles,
        "rate": raw,
        "pcm_channels": raw,
        "vad_threshold": pauses,
        "min_pause": pauses,
        "join": pauses,
        "confidence": (shows_confidence, "it shows on a terminal, and in json"),
    }
    if given["compare_hotwords"]:
        alone = False, "it does not go with --compare-hotwords"
        needs |= dict.fromkeys((*OF_RESULTS, "format", "output_dir", "stream", "confidence", "strict"), alone)
    for name, (has_effect, hint) in needs.items():
        if not has_effect and _is_typed(context, name):
            raise UsageError(f"--{name.replace('_', '-')} has no effect here", hint)
    if _prints_data(context, formats) and _is_typed(context, "stream"):
        raise UsageError(
            f"--stream writes text, --format {','.join(formats)} data, both to stdout",
            "add --output-dir for the data",
        )


def _prints_data(context: typer.Context, formats: tuple[str, ...]) -> bool:
    return formats != (DEFAULT_FORMAT,) and context.params["output_dir"] is None


def _typed_of(context: typer.Context, one: str, other: str) -> tuple[bool, bool]:
    """Two options that exclude each other: what is typed goes before what comes from elsewhere."""
    typed = _is_typed(context, one), _is_typed(context, other)
    return typed if any(typed) else (context.params[one], context.params[other])


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _read_hotwords(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text ({error})") from error
