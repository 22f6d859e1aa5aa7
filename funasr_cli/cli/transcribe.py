"""``funasr transcribe``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from funasr_cli.cli import console
from funasr_cli.cli.display import Display, make_display, make_folder
from funasr_cli.decoding.languages import AUTO
from funasr_cli.errors import ExitCode, FunASRError, UsageError
from funasr_cli.options import DEFAULTS, TranscribeOptions

if TYPE_CHECKING:
    from funasr_cli.audio.decode import Audio
    from funasr_cli.pipeline import Recognizer
    from funasr_cli.transcript import Transcript


class Format(StrEnum):
    """How a transcript is written."""

    TXT = "txt"
    JSON = "json"


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
    max_tokens: Annotated[int, typer.Option(help="Stop after so many tokens.")] = DEFAULTS.max_tokens,
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
    stream: Annotated[bool, typer.Option("--stream", help="Show text while it is being written.")] = False,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Write a file for each input here.")
    ] = None,
    format: Annotated[
        Format,
        typer.Option("--format", "-f", help="How transcripts are written. On stdout, json is one line each."),
    ] = Format.TXT,
) -> None:
    """Transcribe recordings."""
    options = TranscribeOptions(
        language=lang,
        hotwords=(*(hotword or ()), *_read_hotwords(hotwords_file)),
        itn=itn,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        ctc=format is Format.JSON,
    )
    display = make_display(audio, output_dir, format.value, stream=stream)
    recognizer = _load(model, options)
    make_folder(output_dir)
    raise typer.Exit(_transcribe_all(audio, recognizer, options, display))


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


def _transcribe_one(
    recognizer: "Recognizer", clip: "Audio", options: TranscribeOptions, display: Display
) -> "Transcript":
    try:
        return recognizer.transcribe(clip, options, display.piece)
    except (MemoryError, RuntimeError) as error:  # what MLX raises when the device gives up
        raise FunASRError(
            f"{clip.name}: the computation failed ({error})", "a shorter clip needs less memory"
        ) from error


def _transcribe_all(
    paths: list[Path], recognizer: "Recognizer", options: TranscribeOptions, display: Display
) -> ExitCode:
    """Transcribe one input after the other; a bad one is reported and the others are still done."""
    from funasr_cli.audio.decode import load_audio

    failed = partial = 0
    with display:
        for path in paths:
            try:
                display.begin(path)
                clip = load_audio(path, recognizer.sample_rate_hz)
                transcript = _transcribe_one(recognizer, clip, options, display)
                display.end(transcript)
            except FunASRError as error:
                failed += 1
                display.fail()
                console.report(error)
                continue
            failed += transcript.broken
            partial += not transcript.complete
            for warning in transcript.warnings:
                console.warn(f"{path}: {warning}")
    if failed:
        console.note(f"{failed} of {len(paths)} inputs failed")
        return ExitCode.INPUT_FAILED
    return ExitCode.PARTIAL if partial else ExitCode.OK
