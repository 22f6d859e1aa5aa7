"""``funasr transcribe``: its options, and one run."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from funasr_cli.audio.pcm import PCM_ENCODINGS, PCMFormat
from funasr_cli.capabilities import refuse_unsupported, supported
from funasr_cli.cli import alignment, compare, console, first_model, parameters
from funasr_cli.cli.display import Display
from funasr_cli.cli.outcome import Outcome
from funasr_cli.cli.output import Files, Printer
from funasr_cli.cli.resume import Notes
from funasr_cli.cli.run import (
    choose_aligner,
    choose_punctuation,
    choose_translator,
    choose_type_and_engine,
    load,
    transcribe_all,
)
from funasr_cli.cli.transcribe_options import (
    formats_of,
    options_of,
    plan_of,
    prints_data,
    refuse_idle,
    typed_of,
)
from funasr_cli.inputs import find_inputs, folders_below, parse_clip
from funasr_cli.languages import AUTO
from funasr_cli.options import (
    AUTO_PUNCTUATION,
    AUTO_SPEAKER_MODEL,
    DEFAULTS,
    MAX_PROMPT_TOKENS,
    MIN_PAUSES_S,
    NO_SPEAKERS,
    SPEAKER_THRESHOLD,
    TELEPHONE_MARGIN,
    VAD_THRESHOLDS,
    Tags,
    Timestamps,
)
from funasr_cli.subtitles import DEFAULT_LAYOUT
from funasr_cli.writers import (
    ALL_FORMATS,
    DEFAULT_FORMAT,
    DEFAULT_TIMES,
    SUBTITLES,
    WRITERS,
)

HOTWORD_HELP = (
    f"A word to expect, such as a name. Repeatable; the prompt is limited to {MAX_PROMPT_TOKENS} tokens."
)
DIALOGUE_HELP = (
    'Advanced: earlier turns of a conversation, as a JSON list of {"role": ..., "content": ...}: perhaps system, '
    "then user and assistant in turn."
)
YES_HELP = (
    "Download a missing model from Hugging Face without asking. Without --model, that is Fun-ASR-Nano in a layout "
    "that needs no torch; funasr convert nano downloads another one."
)
TEMPLATE_HELP = (
    "File names: {stem} and {suffix} come from the input's name, {lang} from --lang, and {ext} from the "
    "format. Default: {stem}.{ext}."
)
TIMESTAMPS_HELP = (
    "Show the times of words, of segments, or none. Default: none in txt; elsewhere segments, or words in srt, "
    "vtt and json if the model has word times."
)
TAGS_HELP = "Show detected emotions and sounds next to the text, as names or emoji. JSON always contains them."
ALIGN_WITH_HELP = (
    "Get word times from a second converted model, for example sensevoice, if the model itself has none."
)
FORMATS_HELP = (
    f"Output format: {', '.join(WRITERS)}. With --output-dir, also several, separated by commas, or "
    f"all. On stdout, json prints one line per recording. Default: {DEFAULT_FORMAT}."
)
TRANSLATE_HELP = (
    "Also translate: with --translator, or into English if the model can. A second line in txt and md, a column "
    "in tsv, a field in json, a second file of subtitles."
)
BILINGUAL_HELP = "With --translate, show both languages in each subtitle, as on stdout, not in two files."
PLOT_HELP = "Draw a .png or .svg file with waveform, spectrogram, CTC output, and words at their times."


VadModel = Literal["silero", "fsmn", "fsmn-dynamic"]
SpeakerMethod = Literal["average", "funasr"]
DEFAULT_SPEAKER_METHOD = cast(SpeakerMethod, DEFAULTS.speaker_method)
DEFAULT_VAD_MODEL = cast(VadModel, DEFAULTS.vad_model)


def _by_vad_model(values: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g} with {name}" for name, value in values.items())


def _path(text: str) -> Path:
    """Read a path, and expand ~, which the shell does not do in variables and settings."""
    if not text:
        raise typer.BadParameter("the path is empty; perhaps a shell variable is not set")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise typer.BadParameter(f"{text}: {error}") from error


_input = partial(parameters.option, "Input")
_prompt = partial(parameters.option, parameters.LANGUAGE)
_speakers = partial(parameters.option, parameters.SPEAKERS)
_translation = partial(parameters.option, parameters.TRANSLATION)
_segments = partial(parameters.option, "Segments and batches")
_decoding = partial(parameters.option, parameters.DECODING)
_output = partial(parameters.option, "Output")
_terminal = partial(parameters.option, parameters.TERMINAL)


def transcribe(
    context: typer.Context,
    audio: Annotated[
        list[str],
        typer.Argument(
            metavar="AUDIO",
            help="Audio or video files, folders, quoted patterns such as 'calls/*.mp3', or - for stdin.",
        ),
    ],
    model: parameters.Model = None,
    yes: Annotated[bool, parameters.option(None, "--yes", YES_HELP, "-y", env=False)] = False,
    device: parameters.Device = None,
    dtype: parameters.DType = parameters.DEFAULT_DTYPE,
    engine: parameters.Engine = parameters.DEFAULT_ENGINE,
    lang: parameters.Lang = AUTO,
    recursive: Annotated[bool, _input("--recursive", "Include subfolders.", "-r")] = False,
    clip: Annotated[
        str | None,
        _input(
            "--clip",
            "Transcribe only this part of each recording: 1:30-2:10, 90-130.5, 1:02:03-.",
            metavar="FROM-TO",
            env=False,
        ),
    ] = None,
    channels: Annotated[
        Literal["mix", "split"],
        _input("--channels", "Mix all channels, or transcribe each one separately, as one speaker."),
    ] = "mix",
    pcm: Annotated[
        str | None,
        _input(
            "--pcm",
            f"Read raw samples without a header: {', '.join(PCM_ENCODINGS)}.",
            metavar="ENCODING",
            env=False,
        ),
    ] = None,
    rate: Annotated[int, _input("--rate", "Sample rate of --pcm in Hz.", env=False)] = PCMFormat.sample_rate_hz,
    pcm_channels: Annotated[
        int, _input("--pcm-channels", "Number of interleaved channels of --pcm.", env=False)
    ] = PCMFormat.channels,
    hotword: Annotated[list[str] | None, _prompt("--hotword", HOTWORD_HELP, metavar="WORD", env=False)] = None,
    hotwords_file: Annotated[
        Path | None,
        _prompt("--hotwords-file", "A text file with one hotword per line.", metavar="FILE", parser=_path),
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
            "--prev-text",
            "Text that precedes each recording, as context for its first segment.",
            metavar="TEXT",
            env=False,
        ),
    ] = DEFAULTS.prev_text,
    instruction: Annotated[
        str | None,
        _prompt(
            "--instruction",
            "Advanced: what to do with each segment, in place of the model's own words; see --show-prompt.",
            metavar="TEXT",
            env=False,
        ),
    ] = DEFAULTS.instruction,
    dialogue: Annotated[
        Path | None, _prompt("--dialogue", DIALOGUE_HELP, metavar="FILE", parser=_path, env=False)
    ] = None,
    itn: parameters.ITN = DEFAULTS.itn,
    punctuation: parameters.PunctuationModel = AUTO_PUNCTUATION,
    speakers: Annotated[
        str,
        _speakers(
            "--speakers",
            "Tell speakers apart, with a model such as campplus: auto, how many there are, or a range.",
            metavar="auto|none|N|MIN-MAX",
            env=False,
        ),
    ] = NO_SPEAKERS,
    speaker_model: parameters.SpeakerModel = AUTO_SPEAKER_MODEL,
    speaker_method: Annotated[
        SpeakerMethod,
        _speakers(
            "--speaker-method",
            "How voices are grouped: by average linkage, or as FunASR does, for comparison.",
            env=False,
        ),
    ] = DEFAULT_SPEAKER_METHOD,
    speaker_threshold: Annotated[
        float | None,
        _speakers(
            "--speaker-threshold",
            "Cosine distance of two speakers: less finds more speakers. Default: "
            f"{SPEAKER_THRESHOLD:g}, or {SPEAKER_THRESHOLD - TELEPHONE_MARGIN:g} for telephone sound.",
            env=False,
        ),
    ] = DEFAULTS.speaker_threshold,
    speaker_names: Annotated[
        str | None,
        _speakers(
            "--speaker-names",
            "Names in order of appearance, or of the channels with --channels split, as in host,guest.",
            metavar="NAMES",
            env=False,
        ),
    ] = None,
    known_speakers: Annotated[
        Path | None,
        _speakers(
            "--known-speakers",
            "Name those who sound like a recording in this folder: ann.wav is the voice of ann.",
            metavar="FOLDER",
            parser=_path,
            env=False,
        ),
    ] = None,
    speaker_embeddings: Annotated[
        bool,
        _speakers("--speaker-embeddings", "Also write what each voice is like, a vector, into json.", env=False),
    ] = DEFAULTS.speaker_embeddings,
    translate: Annotated[bool, _translation("--translate", TRANSLATE_HELP)] = DEFAULTS.translate,
    translator: parameters.Translator = None,
    translate_to: Annotated[
        str | None,
        _translation(
            "--translate-to",
            "Language to translate into: a code or a name. Others than English need --translator. Default: en.",
            metavar="LANGUAGE",
            autocompletion=parameters.complete_languages,
        ),
    ] = DEFAULTS.translate_to,
    show_prompt: Annotated[
        bool, _prompt("--show-prompt", "Show the model's prompt, word for word.", env=False)
    ] = False,
    vad: Annotated[
        bool, _segments("--vad/--no-vad", "Skip silence (voice activity detection), and cut segments at pauses.")
    ] = DEFAULTS.vad,
    vad_model: Annotated[
        VadModel,
        _segments(
            "--vad-model",
            "What detects speech: Silero VAD, or FunASR's FSMN-VAD. fsmn-dynamic: the longer a segment, the "
            "shorter the pause that ends it.",
        ),
    ] = DEFAULT_VAD_MODEL,
    vad_threshold: Annotated[
        float | None,
        _segments(
            "--vad-threshold",
            f"Probability above which audio counts as speech. Default: {_by_vad_model(VAD_THRESHOLDS)}.",
        ),
    ] = DEFAULTS.vad_threshold,
    min_pause: Annotated[
        float | None,
        _segments(
            "--min-pause",
            f"Shortest pause that ends a segment, in seconds. Default: {_by_vad_model(MIN_PAUSES_S)}.",
        ),
    ] = DEFAULTS.min_pause_s,
    join: Annotated[
        float | None,
        _segments(
            "--join",
            "Extend segments shorter than this, in seconds, across pauses of up to 1 s, or a tenth of this. "
            "Default: 0, or the window of a model that has one.",
        ),
    ] = DEFAULTS.join_s,
    max_segment: Annotated[
        float | None,
        _segments(
            "--max-segment",
            "Maximum length of a segment, in seconds. Longer speech is cut at its deepest pause. Default: the "
            "model's, usually 30.",
        ),
    ] = DEFAULTS.max_segment_s,
    batch_size: Annotated[
        int | None,
        _segments("--batch-size", "Segments decoded at the same time. Default: depends on free memory."),
    ] = DEFAULTS.batch_size,
    max_tokens: parameters.MaxTokens = DEFAULTS.max_tokens,
    temperature: Annotated[
        float,
        _decoding(
            "--temperature",
            "Above 0, up to 2: choose each token at random by its probability. 0: take the likeliest.",
        ),
    ] = DEFAULTS.temperature,
    top_p: Annotated[
        float | None,
        _decoding("--top-p", "Choose only from the likeliest tokens that together have this probability."),
    ] = DEFAULTS.top_p,
    top_k: Annotated[
        int | None, _decoding("--top-k", "Choose only from this number of likeliest tokens.")
    ] = DEFAULTS.top_k,
    seed: Annotated[int | None, _decoding("--seed", "Random seed for --temperature. Default: 0.")] = DEFAULTS.seed,
    draft: parameters.Draft = parameters.DEFAULT_DRAFT,
    format: Annotated[
        list[str] | None,
        _output(
            "--format",
            FORMATS_HELP,
            "-f",
            metavar="FORMATS",
            autocompletion=parameters.comma_separated(*WRITERS, ALL_FORMATS),
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        _output(
            "--output-dir",
            "Write one file per input and format into this folder.",
            "-o",
            metavar="FOLDER",
            parser=_path,
        ),
    ] = None,
    output_template: Annotated[str | None, _output("--output-template", TEMPLATE_HELP, metavar="TEMPLATE")] = None,
    force: Annotated[bool, _output("--force", "Replace existing output files.", env=False)] = False,
    resume: Annotated[
        bool, _output("--resume", "Skip inputs whose output files exist and are up to date.", env=False)
    ] = False,
    strict: Annotated[
        bool, _output("--strict", "Fail an input if even one second of speech has no text.")
    ] = False,
    timestamps: Annotated[Timestamps | None, _output("--timestamps", TIMESTAMPS_HELP)] = None,
    tags: Annotated[Tags, _output("--tags", TAGS_HELP)] = Tags.NONE,
    align_with: Annotated[str | None, _output("--align-with", ALIGN_WITH_HELP, **parameters.MODEL_OPTION)] = None,
    highlight_words: Annotated[
        bool, _output("--highlight-words", "In subtitles, underline each word as it is spoken.")
    ] = False,
    bilingual: Annotated[bool, _output("--bilingual", BILINGUAL_HELP)] = False,
    plot_alignment: Annotated[
        Path | None, _output("--plot-alignment", PLOT_HELP, metavar="FILE", parser=_path, env=False)
    ] = None,
    max_line_width: Annotated[
        int,
        _output("--max-line-width", "Maximum width of a subtitle line, in columns. Chinese characters take two."),
    ] = DEFAULT_LAYOUT.max_line_width,
    max_line_count: Annotated[
        int, _output("--max-line-count", "Maximum number of lines of a subtitle.")
    ] = DEFAULT_LAYOUT.max_line_count,
    stream: Annotated[bool, _terminal("--stream", "Show text while it is being decoded.")] = False,
    confidence: Annotated[
        bool,
        _terminal(
            "--confidence", "Colour words by the model's confidence; in json, add the confidence of each word."
        ),
    ] = False,
    quiet: parameters.Quiet = False,
    verbose: Annotated[bool, _terminal("--verbose", "Show more details.", "-v")] = False,
) -> None:
    """Transcribe recordings. If the model is missing, offer to download it."""
    volume = [name for name in ("quiet", "verbose") if parameters.is_typed(context, name)]
    # The command line has precedence over variables and the settings file.
    chosen = volume or [name for name in ("quiet", "verbose") if context.params[name]]
    console.set_volume(quiet="quiet" in chosen, verbose="verbose" in chosen)
    formats = formats_of(context)
    refuse_idle(context, formats)
    options, typed = options_of(context, formats), typed_of(context)
    plan = plan_of(context, formats, options.target)
    if stream or not plan.folder:
        console.refuse_closed_stdout()
    pcm_format = None if pcm is None else PCMFormat(pcm, rate, pcm_channels)
    part = None if clip is None else parse_clip(clip)
    inputs = find_inputs(audio, recursive=recursive, clip=part, pcm=pcm_format)
    if not recursive and (below := folders_below(audio)):
        folders = f"{len(below)} folder{'s' * (len(below) > 1)} with recordings"
        console.note(f"skipped {folders}; --recursive includes subfolders")
    # These imports take time, so errors on the command line are reported first.
    from funasr_cli.families.open import capabilities
    from funasr_cli.hubs.find import find_speaker_model
    from funasr_cli.sources import split_channels

    load_with = partial(load, device=device, show_prompt=show_prompt)
    if channels == "split":
        with console.busy("counting channels"):
            inputs = split_channels(inputs, options.speaker_names)
    if compare_hotwords:
        compare.refuse_unusable(inputs, options)
        typed = {"hotwords": "--compare-hotwords"} | typed  # hotwords from a variable count as well
        folder = first_model.find_or_fetch(context, inputs, options, typed)
        number_type, computed_by = choose_type_and_engine(folder, context)
        recognizer, options = load_with(folder, options, typed, dtype=number_type, engine=computed_by)
        raise typer.Exit(compare.run(inputs, recognizer, options))
    if plot_alignment:
        alignment.refuse_unusable(inputs, plot_alignment, replace=force)
    others = [path for path in (plot_alignment, hotwords_file, dialogue) if path]
    files = Files(plan, inputs, others) if plan.folder else None
    plan.refuse_together(inputs)
    shown = {plan.style.times or DEFAULT_TIMES[format] for format in plan.formats}
    word_times = Timestamps.WORD in shown or plot_alignment is not None
    word_times = word_times or options.speakers is not None
    options = replace(options, word_times=word_times, segment_times=Timestamps.SEGMENT in shown)
    voices = find_speaker_model(speaker_model) if options.speakers else None
    folder = first_model.find_or_fetch(context, inputs, options, typed, files)
    able = capabilities(folder)
    marks = choose_punctuation(punctuation, able, folder.name, options, typed)
    number_type, computed_by = choose_type_and_engine(folder, context)
    aligner = choose_aligner(align_with, able, options, typed)
    able = able.with_aligner() if aligner else able
    chat = choose_translator(translator, able, options, typed)
    able = able.with_translator() if chat else able
    if options.translate and not chat and not set(SUBTITLES).isdisjoint(plan.formats):
        options = replace(options, segment_times=True)  # a translation has no word times
    if plot_alignment:  # a library is asked for only if there will be a picture
        refuse_unsupported(supported(options, able, typed=typed), able, folder.name, typed=typed)
        alignment.require_libraries()
    left = inputs
    if plan.folder and files:  # results depend only on the options that have an effect
        style = plan.style if able.tags or "tags" in typed else replace(plan.style, tags=Tags.NONE)
        effective = supported(options, able, typed=typed)
        if effective.target != plan.target:  # a setting that has no effect
            files = Files(replace(plan, target=effective.target), inputs, others)
        notes = Notes(
            plan.folder, folder, effective, style, number_type, computed_by, aligner, marks, voices, chat
        )
        left = files.left(inputs, notes)
    outcome = Outcome(skipped=len(inputs) - len(left), incomplete=files.incomplete if files else 0)
    if not left:
        raise typer.Exit(outcome.exit_code(strict=strict))
    translate_by = (chat, *choose_type_and_engine(chat, context)) if chat else None
    recognizer, options = load_with(
        folder, options, typed, aligner, marks, voices, translate_by, dtype=number_type, engine=computed_by
    )
    finish = []
    if plot_alignment:
        finish.append(alignment.prepare(left[0], recognizer, options, plot_alignment, replace=force))
    display = Display(left, files, Printer(left, plan), stream=stream and not prints_data(context, formats))
    try:
        transcribe_all(left, recognizer, options, display, outcome, files, *finish)
    except KeyboardInterrupt as error:
        about = outcome.interruption(len(left), to_files=files is not None, stream=stream)
        raise KeyboardInterrupt(about) from error
    if console.shows_progress():
        from funasr_cli.cli import tables

        names = [input.label for input in left]
        console.stderr().print(tables.outcome(outcome, names, console.stderr().width))
    else:
        console.detail(outcome.costs())
    console.note(outcome.summary())
    raise typer.Exit(outcome.exit_code(strict=strict))
