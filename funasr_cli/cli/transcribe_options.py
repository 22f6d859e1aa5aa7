"""What a command line of ``funasr transcribe`` asks for: formats, options, places of results.

What has no effect is refused on the command line, and ignored in variables and the settings file.
"""

from dataclasses import fields
from pathlib import Path

import typer

from funasr_cli.cli import console, parameters
from funasr_cli.cli.output import DEFAULT_TEMPLATE, OutputPlan
from funasr_cli.cli.run import read_dialogue, read_hotwords
from funasr_cli.errors import UsageError
from funasr_cli.inputs import find_inputs, has_folders
from funasr_cli.languages import AUTO
from funasr_cli.options import (
    DEFAULTS,
    MIN_PAUSES_S,
    NO_SPEAKERS,
    Tags,
    Timestamps,
    TranscribeOptions,
    parse_speakers,
)
from funasr_cli.paths import shown
from funasr_cli.subtitles import SubtitleLayout
from funasr_cli.writers import DATA, DEFAULT_FORMAT, DEFAULT_TIMES, TIMED_FORMATS, Style, parse_formats

SAMPLING_OPTIONS = ("top_p", "top_k", "seed")
RESULT_OPTIONS = (
    "output_template", "force", "resume", "timestamps", "tags", "translate", "translate_to", "translator",
    "bilingual", "align_with", "punctuation", "highlight_words", "plot_alignment", "max_line_width",
    "max_line_count", "speakers",
)  # fmt: skip


def formats_of(context: typer.Context) -> tuple[str, ...]:
    """Return the formats to write. Without an output folder, several from a variable or settings are ignored."""
    params = context.params
    formats = parse_formats(params["format"] or [DEFAULT_FORMAT])
    needs_folder = len(formats) > 1 and params["output_dir"] is None
    is_ignored = needs_folder and not parameters.is_typed(context, "format")
    return (DEFAULT_FORMAT,) if is_ignored or params["compare_hotwords"] else formats


def _parameters() -> dict[str, tuple[str, ...]]:
    """Return the parameters for each field of `TranscribeOptions`: its name without the unit, except for two."""
    names = {field.name: (field.name.removesuffix("_s"),) for field in fields(TranscribeOptions)}
    return names | {"language": ("lang",), "hotwords": ("hotword", "hotwords_file")}


def typed_of(context: typer.Context) -> dict[str, str]:
    """Return the options on the command line, by field of `TranscribeOptions`, and others that may be refused."""
    params = context.params
    names = _parameters() | {
        name: (name,) for name in ("align_with", "show_prompt", "plot_alignment", "punctuation", "translator")
    }
    typed = parameters.typed(context, names)
    if parameters.is_typed(context, "tags") and params["tags"] is not Tags.NONE:
        typed["tags"] = f"--tags {params['tags']}"
    if parameters.is_typed(context, "highlight_words"):
        typed["word_times"] = "--highlight-words"
    elif params["timestamps"] is Timestamps.WORD:  # also from a variable, since nothing else would be shown
        typed["word_times"] = f"--timestamps {Timestamps.WORD}"
    elif params["plot_alignment"]:
        typed["word_times"] = "--plot-alignment"
    return typed


def options_of(context: typer.Context, formats: tuple[str, ...]) -> TranscribeOptions:
    """Return the options of a run."""
    params = dict(context.params)
    for name in SAMPLING_OPTIONS:  # ignored without a temperature, unless they are on the command line
        if not params["temperature"] and not parameters.is_typed(context, name):
            params[name] = None
    if not params["translate"] and not parameters.is_typed(context, "translate_to"):
        params["translate_to"] = None
    if params["vad_model"] not in MIN_PAUSES_S and not parameters.is_typed(context, "min_pause"):
        params["min_pause"] = None
    if params["instruction"] is not None:  # what it replaces is refused on the command line, else ignored
        params |= {"lang": AUTO, "hotword": None, "hotwords_file": None, "itn": DEFAULTS.itn}
    hotwords = (*(params["hotword"] or ()), *read_hotwords(params["hotwords_file"]))
    same = {field: params[names[0]] for field, names in _parameters().items() if names[0] in params}
    names = (params["speaker_names"] or "").split(",")
    own = {
        "hotwords": tuple(dict.fromkeys(hotwords)),
        "dialogue": read_dialogue(params["dialogue"]),
        "ctc": not set(DATA).isdisjoint(formats),
        "speakers": parse_speakers(params["speakers"]),
        "speaker_names": tuple(name.strip() for name in names if name.strip()),
        "known_speakers": _known_speakers(params["known_speakers"]),
    }
    return TranscribeOptions(**(same | own))


def _known_speakers(folder: Path | None) -> dict[str, Path] | None:
    """Return the recordings in a folder, by the name of the speaker: that of the file without its ending."""
    if folder is None:
        return None
    if not folder.is_dir():
        hint = "name a folder with a recording of each known speaker, such as ann.wav"
        raise UsageError(f"--known-speakers {shown(folder)}: is not a folder", hint, code="option-value")
    found = find_inputs([folder])
    if problem := next((input.problem for input in found if input.problem), None):
        raise problem
    paths = {input.stem: input.path for input in found}
    if len(paths) < len(found):
        twice = next(input.stem for input in found if input.path != paths[input.stem])
        message = f"--known-speakers {shown(folder)}: there are two recordings of {twice}"
        raise UsageError(message, "leave one", code="option-value")
    return paths


def plan_of(context: typer.Context, formats: tuple[str, ...], target: str | None) -> OutputPlan:
    """Return the formats and places of results; `target` is the language of the translations."""
    params = context.params
    bilingual = target is not None and (params["bilingual"] or params["output_dir"] is None)
    layout = SubtitleLayout(
        max_line_width=params["max_line_width"],
        max_line_count=params["max_line_count"],
        highlight_words=params["highlight_words"],
    )
    return OutputPlan(
        formats=formats,
        folder=params["output_dir"],
        template=DEFAULT_TEMPLATE if params["output_template"] is None else params["output_template"],
        language=params["lang"],
        target=target,
        style=Style(_times(context, formats), layout, params["tags"], bilingual),
        replace=params["force"],
        resume=params["resume"],
        tint=params["confidence"] and console.colours_stdout(),
    )


def _times(context: typer.Context, formats: tuple[str, ...]) -> Timestamps | None:
    """Return which times to show; None leaves it to each format. The command line has precedence."""
    times: Timestamps | None = context.params["timestamps"]
    typed = parameters.is_typed(context, "timestamps")
    if parameters.is_typed(context, "highlight_words") and times not in (None, Timestamps.WORD):
        if typed:
            message = f"cannot combine --highlight-words with --timestamps {times}"
            raise UsageError(message, "leave out --timestamps, or choose word", code="options-conflict")
        return None
    is_ignored = times is Timestamps.NONE and not typed and not set(TIMED_FORMATS).isdisjoint(formats)
    return None if is_ignored else times


def refuse_idle(context: typer.Context, formats: tuple[str, ...]) -> None:
    """Refuse options on the command line that have no effect. Those from variables or settings are ignored."""
    params = context.params
    prints_text = params["stream"] or (params["output_dir"] is None and formats == (DEFAULT_FORMAT,))
    has_text, times = not set(formats) <= set(DATA), _times(context, formats)
    has_words = any((times or DEFAULT_TIMES[format]) is Timestamps.WORD for format in formats)
    shows_confidence = "json" in formats or "jsonl" in formats or (prints_text and console.colours_stdout())
    to_files = params["output_dir"] is not None, "works only with --output-dir"
    subtitles = "srt" in formats or "vtt" in formats, "works only with --format srt or vtt"
    raw = params["pcm"] is not None, "works only with --pcm"
    pauses = params["vad"], "works only with pauses, which --no-vad does not detect"
    needs = {
        **dict.fromkeys(("output_template", "force", "resume"), to_files),
        **dict.fromkeys(("highlight_words", "max_line_width", "max_line_count"), subtitles),
        **dict.fromkeys(("rate", "pcm_channels"), raw),
        **dict.fromkeys(("vad_model", "vad_threshold", "min_pause", "join"), pauses),
        "confidence": (shows_confidence, "works only on a terminal with colours, and with --format json"),
        "recursive": (any(map(has_folders, params["audio"])), "works only with folders and patterns"),
        "prev_text": (bool(params["prev_text"]), "is empty"),
        **dict.fromkeys(
            ("lang", "hotword", "hotwords_file", "compare_hotwords", "itn"),
            (params["instruction"] is None, "cannot be combined with --instruction, which replaces it"),
        ),
        **dict.fromkeys(
            ("speaker_model", "speaker_method", "speaker_threshold", "known_speakers"),
            (params["speakers"] != NO_SPEAKERS, "works only with --speakers"),
        ),
        "speaker_names": (
            params["speakers"] != NO_SPEAKERS or params["channels"] == "split",
            "works only with --speakers or --channels split",
        ),
        "speaker_embeddings": (
            params["speakers"] != NO_SPEAKERS and not set(DATA).isdisjoint(formats),
            f"works only with --speakers and --format {' or '.join(DATA)}",
        ),
        **dict.fromkeys(("translator", "translate_to"), (params["translate"], "works only with --translate")),
        "bilingual": (subtitles[0] and params["translate"], "works only with --translate and --format srt or vtt"),
        "tags": (has_text or params["tags"] is Tags.NONE, "is not needed: json always contains tags"),
        "align_with": (
            bool(params["align_with"]) and (has_words or params["plot_alignment"]),
            "works only with word times: add --timestamps word, or --format srt, vtt or json"
            if params["align_with"]
            else "is empty",
        ),
    }
    if params["plot_alignment"]:
        needs["resume"] = False, "cannot be combined with --plot-alignment"
        del needs["force"]  # it replaces the picture
    if params["compare_hotwords"]:
        alone = False, "cannot be combined with --compare-hotwords"
        needs |= dict.fromkeys((*RESULT_OPTIONS, "format", "output_dir", "stream", "confidence", "strict"), alone)
    for name, (has_effect, reason) in needs.items():
        if not has_effect and parameters.is_typed(context, name):
            raise UsageError(f"--{name.replace('_', '-')} {reason}", code="option-idle")
    if params["channels"] == "split" and params["speakers"] != NO_SPEAKERS:
        message = "cannot combine --speakers with --channels split: each channel is one speaker"
        raise UsageError(message, "leave out --speakers, or add --channels mix", code="options-conflict")
    if prints_data(context, formats) and parameters.is_typed(context, "stream"):
        message = f"--stream and --format {','.join(formats)} would both write to stdout"
        raise UsageError(message, "add --output-dir for the data", code="options-conflict")


def prints_data(context: typer.Context, formats: tuple[str, ...]) -> bool:
    """Return whether stdout carries another format than the default one."""
    return formats != (DEFAULT_FORMAT,) and context.params["output_dir"] is None
