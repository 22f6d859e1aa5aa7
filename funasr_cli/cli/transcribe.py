"""``funasr transcribe``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from funasr_cli.cli import console
from funasr_cli.cli.display import Display
from funasr_cli.cli.outcome import Outcome
from funasr_cli.cli.output import Folder
from funasr_cli.decoding.languages import AUTO
from funasr_cli.errors import OutputError, UsageError
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.writers import WRITERS

if TYPE_CHECKING:
    from funasr_cli.pipeline import Recognizer


def transcribe(
    audio: Annotated[
        list[Path], typer.Argument(metavar="AUDIO", help="Files, in any format that can be read here.")
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder, hub id or alias of a converted model, or demo.")
    ] = None,
    lang: Annotated[
        str, typer.Option("--lang", "-l", help="Language to write: a code (zh, en, ja, ...), a name, or auto.")
    ] = AUTO,
    hotword: Annotated[list[str] | None, typer.Option(help="A word to expect. Repeatable.")] = None,
    hotwords_file: Annotated[Path | None, typer.Option(help="File with a hotword on each line.")] = None,
    itn: Annotated[bool, typer.Option("--itn/--no-itn", help="Write numbers as digits.")] = DEFAULTS.itn,
    max_tokens: Annotated[
        int | None, typer.Option(help="Stop each segment after so many tokens. Default: by its length.")
    ] = DEFAULTS.max_tokens,
    temperature: Annotated[
        float, typer.Option(help="Above 0, sample instead of taking the likeliest token.")
    ] = DEFAULTS.temperature,
    top_p: Annotated[
        float | None, typer.Option(help="Sample from this share of the likeliest tokens.")
    ] = DEFAULTS.top_p,
    top_k: Annotated[
        int | None, typer.Option(help="Sample from so many of the likeliest tokens.")
    ] = DEFAULTS.top_k,
    seed: Annotated[int | None, typer.Option(help="Start of the random numbers. Default: 0.")] = DEFAULTS.seed,
    vad: Annotated[
        bool, typer.Option("--vad/--no-vad", help="Leave out silence, end segments in pauses.")
    ] = DEFAULTS.vad,
    vad_threshold: Annotated[
        float, typer.Option(help="Probability from which a moment counts as speech.")
    ] = DEFAULTS.vad_threshold,
    min_pause: Annotated[
        float, typer.Option(help="Shortest pause that ends a segment, in seconds.")
    ] = DEFAULTS.min_pause_s,
    join: Annotated[
        float, typer.Option(help="Let segments shorter than this, in seconds, go on over pauses of up to 1 s.")
    ] = DEFAULTS.join_s,
    max_segment: Annotated[
        float, typer.Option(help="Longest segment, in seconds; longer speech is cut at its deepest pause.")
    ] = DEFAULTS.max_segment_s,
    batch_size: Annotated[
        int | None, typer.Option(help="Segments decoded side by side. Default: by the memory at hand.")
    ] = DEFAULTS.batch_size,
    strict: Annotated[
        bool, typer.Option("--strict", help="A single second of speech without its text fails the input.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip inputs whose results are in the output folder.")
    ] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Show text while it is being written.")] = False,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Write a file for each input here.")
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format", "-f", help=f"{', '.join(WRITERS)}. On stdout, json is one line for each recording."
        ),
    ] = "txt",
) -> None:
    """Transcribe recordings."""
    if format not in WRITERS:
        raise UsageError(f"unknown format {format!r}", f"choose from {', '.join(WRITERS)}")
    options = TranscribeOptions(
        language=lang,
        hotwords=(*(hotword or ()), *_read_hotwords(hotwords_file)),
        itn=itn,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        ctc=format in ("json", "jsonl"),
        vad=vad,
        vad_threshold=vad_threshold,
        min_pause_s=min_pause,
        join_s=join,
        max_segment_s=max_segment,
        batch_size=batch_size,
    )
    if stream and format != "txt" and output_dir is None:
        raise UsageError(
            f"--stream writes text, --format {format} data, both to stdout",
            "add --output-dir for the data",
        )
    if resume and output_dir is None:
        raise UsageError("--resume without --output-dir", "it skips inputs whose results are in that folder")
    folder = Folder(output_dir, format, audio) if output_dir else None
    inputs = [path for path in audio if not (resume and folder and folder.has(path))]
    if len(inputs) < len(audio):
        console.note(f"skipped {len(audio) - len(inputs)} of {len(audio)} inputs: their results are there")
    if not inputs:
        return
    recognizer = _load(model, options)
    if folder:
        folder.make()
    display = Display(inputs, folder, format, stream=stream)
    outcome = _transcribe_all(inputs, recognizer, options, display, folder, len(audio) - len(inputs))
    console.note(outcome.summary())
    raise typer.Exit(outcome.exit_code(strict=strict))


def _read_hotwords(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text ({error})") from error


def _load(model: str | None, options: TranscribeOptions) -> "Recognizer":
    """Load the model, and let it refuse a language or hotword before any audio is read."""
    from funasr_cli.backend import lacks_blas
    from funasr_cli.checkpoints.hub import find_model
    from funasr_cli.checkpoints.load import load_model
    from funasr_cli.decoding.prompt import prompt_token_ids
    from funasr_cli.pipeline import Recognizer

    folder = find_model(model)
    with console.busy(f"loading {folder.name}"):
        recognizer = Recognizer(load_model(folder))
    prompt_token_ids(options, recognizer.config.prompt, recognizer.loaded.tokenizer)
    if lacks_blas():
        console.warn(
            "no fast BLAS found, so this takes many times as long as it need: "
            "install OpenBLAS (Debian: libopenblas0-pthread), or name one with FUNASR_BLAS"
        )
    return recognizer


def _transcribe_all(
    paths: list[Path],
    recognizer: "Recognizer",
    options: TranscribeOptions,
    display: Display,
    folder: Folder | None,
    skipped: int,
) -> Outcome:
    """Transcribe all inputs; a bad one is reported and the others are still done."""
    from funasr_cli.audio.recording import Recording, open_recording

    def open_input(path: Path) -> Recording:
        if folder:
            folder.refuse_existing(path)
        return open_recording(path, recognizer.sample_rate_hz)

    outcome = Outcome(skipped=skipped)
    with display:
        for event in recognizer.run([partial(open_input, path) for path in paths], options):
            try:
                display.show(event)
            except OutputError as error:
                if event.source not in outcome.failed:
                    console.report(error)
                outcome.failed.add(event.source)
            outcome.add(event)
    return outcome
