"""The steps of ``funasr transcribe``: read hotwords, choose an aligner, load the models, transcribe the inputs."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.capabilities import Capabilities, knows, punctuation_problem, supported
from funasr_cli.cli import console, parameters
from funasr_cli.errors import OutputError, UsageError
from funasr_cli.inputs import Input
from funasr_cli.options import AUTO_PUNCTUATION, LONG_PROMPT_TOKENS, TranscribeOptions
from funasr_cli.paths import why_unreadable

if TYPE_CHECKING:
    import typer

    from funasr_cli.cli.display import Display
    from funasr_cli.cli.outcome import Outcome
    from funasr_cli.cli.output import Files
    from funasr_cli.pipeline import Recognizer
    from funasr_cli.scheduling.events import Finished

DEMO_NOTE = "the demo model knows a few phrases of synthetic speech, not real recordings"
AUDIO_MARK = "<audio>"
MOST_HOTWORDS_BYTES = 1 << 22  # far more than fits into a prompt


def read_hotwords(path: Path | None) -> list[str]:
    """Read a file with one hotword per line; without a file, return no hotwords."""
    if path is None:
        return []
    hint = "the file must contain one hotword per line"
    try:
        with path.open("rb") as file:
            content = file.read(MOST_HOTWORDS_BYTES + 1)
        if len(content) > MOST_HOTWORDS_BYTES:
            limit = f"more than {MOST_HOTWORDS_BYTES >> 20} MB of hotwords"
            raise UsageError(f"{path}: {limit}", hint, code="prompt-too-long")
        words = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
        problem = "" if words else "contains no hotwords"
    except (OSError, UnicodeDecodeError) as error:
        problem = why_unreadable(error)
    if problem:
        raise UsageError(f"{path}: {problem}", hint, code="file-unreadable")
    return words


def read_dialogue(path: Path | None) -> tuple[tuple[str, str], ...]:
    """Read earlier turns, in the form of FunASR's messages: a list of objects with a role and its content.

    `TranscribeOptions` checks the roles. Without a file, return no turns.
    """
    if path is None:
        return ()
    hint = 'the file must contain a JSON list of {"role": "user", "content": "..."}'
    try:
        with path.open("rb") as file:
            content = file.read(MOST_HOTWORDS_BYTES + 1)
        if len(content) > MOST_HOTWORDS_BYTES:
            raise UsageError(f"{path}: more than {MOST_HOTWORDS_BYTES >> 20} MB", hint, code="prompt-too-long")
        turns = json.loads(content.decode("utf-8-sig"))
        is_list = isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns)
        if is_list and turns and all(set(turn) == {"role", "content"} for turn in turns):
            return tuple((turn["role"], turn["content"]) for turn in turns)
        problem = "is not a list of turns"
    except (ValueError, RecursionError):  # of the JSON or of its encoding
        problem = "is not JSON"
    except OSError as error:
        problem = why_unreadable(error)
    raise UsageError(f"{path}: {problem}", hint, code="file-unreadable")


def refuse_pipes(inputs: Sequence[Input], option: str) -> None:
    """Raise a UsageError if an input can be read only once, such as a pipe: the option reads inputs twice."""
    from funasr_cli.audio.tape import STDIN, is_pipe

    for input in inputs:
        if input.path == STDIN or is_pipe(input.path):
            message, hint = f"{input.label}: can be read only once", f"{option} needs a file"
            raise UsageError(message, hint, code="input-once")


def choose_aligner(
    name: str | None, able: Capabilities, options: TranscribeOptions, typed: Mapping[str, str]
) -> Path | None:
    """Return the folder of the model that aligns words, if one is needed.

    A default from a variable or the settings file is ignored if the model has word times itself, or if the second
    model does not know the language.
    """
    from funasr_cli.families.open import capabilities
    from funasr_cli.hubs.find import find_aligner

    is_default = "align_with" not in typed
    if not name or not options.word_times or (is_default and able.word_times):
        return None
    folder = find_aligner(name)
    if not is_default or "word_times" in typed or knows(options, capabilities(folder)):
        return folder
    console.detail(f"no word times: {name}, a default for --align-with, does not know {options.language}")
    return None


def choose_punctuation(
    name: str, able: Capabilities, model: str, options: TranscribeOptions, typed: Mapping[str, str]
) -> Path | None:
    """Return the folder of the model that punctuates, if one is there and has work.

    A model that is named on the command line must have work. A name from a variable or the settings file is
    ignored if it has none.
    """
    from funasr_cli.families.open import capabilities
    from funasr_cli.hubs.find import find_punctuation

    must = "punctuation" in typed and name != AUTO_PUNCTUATION
    options = supported(options, able, typed=typed)
    if not must and able.writes_marks(options):  # then it need not be there
        return None
    if (folder := find_punctuation(name)) is None:
        return None
    problem = punctuation_problem(options, able, model, name, capabilities(folder).languages)
    if problem and must:
        raise problem
    return None if problem else folder


def choose_translator(
    name: str | None, able: Capabilities, options: TranscribeOptions, typed: Mapping[str, str]
) -> Path | None:
    """Return the folder of the model that translates, if one is needed.

    A model that is named on the command line translates even if the speech model can. A default from a variable or
    the settings file helps a speech model that cannot translate, or not into the language that is asked for, or
    not each speaker's part on its own.
    """
    from funasr_cli.hubs.find import find_translator

    is_able = able.any_translation if options.translate_to else able.translation
    is_able = is_able and (able.speaker_translation or not options.speakers)
    if not name or not options.translate or (is_able and "translator" not in typed):
        return None
    return find_translator(name)


def choose_type_and_engine(folder: Path, context: "typer.Context") -> tuple[str | None, str]:
    """Return the number type and the engine to load a model with, as `choose_engine` chooses them.

    Those from a variable or the settings file are ignored if the model cannot be loaded with them.
    """
    device, dtype, engine = (context.params[name] for name in ("device", "dtype", "engine"))
    from funasr_cli.compute.device import use_device
    from funasr_cli.families.load import choose_engine

    if device:
        use_device(device)
    chosen = choose_engine(folder, dtype, engine, parameters.optional_computing(context), console.note)
    if chosen.exact:
        console.note(chosen.exact)
    if chosen.slow:
        console.warn(chosen.slow)
    if chosen.ignored:
        console.detail(f"a default from a variable or the settings file is ignored: {chosen.ignored}")
    return chosen.dtype, chosen.engine


def load(
    folder: Path,
    options: TranscribeOptions,
    typed: Mapping[str, str],
    aligner: Path | None = None,
    marks: Path | None = None,
    voices: Path | None = None,
    translator: tuple[Path, str | None, str] | None = None,
    *,
    device: str | None,
    dtype: str | None,
    engine: str,
    show_prompt: bool,
) -> "tuple[Recognizer, TranscribeOptions]":
    """Load the model, and refuse options that it does not support before any audio is read.

    Unsupported options from a variable or the settings file are dropped without an error.

    Args:
        folder: the model's folder.
        options: the requested options.
        typed: the options on the command line, as `refuse_unsupported` takes them.
        aligner: folder of a second model that aligns words.
        marks: folder of a model that punctuates.
        voices: folder of a model that tells speakers apart.
        translator: folder, number type and engine of a language model that translates.
        device: "cpu" or "gpu"; None leaves the choice to MLX.
        dtype: number type to compute in, as `load_model` takes it.
        engine: engine that computes the model, as `load_model` takes it.
        show_prompt: also print the model's prompt.
    """
    from funasr_cli.compute.backend import lacks_blas
    from funasr_cli.compute.device import gflops_a_core, in_words, use_device
    from funasr_cli.families.load import load_aligner, load_model, load_punctuation, load_speakers, load_text
    from funasr_cli.pipeline import Recognizer

    if device:
        use_device(device)
    with console.busy(f"loading {folder.name}"):
        model = load_model(folder, dtype, engine)
    align_with, punctuate_with = None, None
    if aligner:
        with console.busy(f"loading {aligner.name}"):
            align_with = load_aligner(aligner, dtype)
    if marks:
        with console.busy(f"loading {marks.name}"):
            punctuate_with = load_punctuation(marks)
        console.detail(f"punctuation by {punctuate_with.name} from {marks}")
    tell_apart_with = None
    if voices:
        with console.busy(f"loading {voices.name}"):
            tell_apart_with = load_speakers(voices)
        console.detail(f"speakers by {tell_apart_with.name} from {voices}")
    translate_with = None
    if translator:
        with console.busy(f"loading {translator[0].name}"):
            translate_with = load_text(*translator)
        console.detail(f"translation by {translate_with.name} from {translator[0]}: {translate_with.engine}")
    recognizer = Recognizer(
        model,
        align_with=align_with,
        punctuate_with=punctuate_with,
        tell_apart_with=tell_apart_with,
        translator=translate_with,
    )
    options = recognizer.supported(options, typed)
    recognizer.refuse_unsupported(options, typed)
    prompt = recognizer.model.prompt(options)
    if prompt and (tokens := prompt.tokens_before + prompt.tokens_after) > LONG_PROMPT_TOKENS:
        console.warn(f"a prompt of {tokens} tokens slows down every segment, and may distort the text")
    if console.is_verbose():
        gflops = gflops_a_core()
        console.detail(f"model {recognizer.model.name} from {folder}, {recognizer.model.weights_type}")
        console.detail(f"on {in_words(gflops)}; engine: {recognizer.model.engine}")
        warn_if_slow(gflops)
    elif lacks_blas():
        warn_if_slow(0.0)  # known without measuring
    if show_prompt:
        _show_prompt(recognizer, options)
    return recognizer, options


def warn_if_slow(gflops: float | None) -> None:
    """Warn if a CPU has to use MLX's own slow BLAS, or if the BLAS that was found has no effect."""
    from funasr_cli.compute.device import slowness

    if problem := slowness(gflops):
        console.warn(problem)


def _show_prompt(recognizer: "Recognizer", options: TranscribeOptions) -> None:
    """Print the prompt of a recording's first segment, and of later segments if it differs."""
    for first in (True, False) if options.prev_text else (True,):
        prompt = recognizer.model.prompt(options, first=first)
        assert prompt is not None, "its capabilities say that there is one"
        before, after = prompt.tokens_before, prompt.tokens_after
        which = " of a recording's first segment" if first else " of later segments"
        which = which if options.prev_text else ""
        console.say(f"prompt{which}, {before} tokens before the audio and {after} after it:")
        console.say(AUDIO_MARK.join((prompt.before, prompt.after)), wrap=False)


def _is_own_recording(input: Input) -> bool:
    """Return whether an input is a file other than the demo model's clips, judged by its size."""
    from funasr_cli import demo

    sizes = {clip.path.stat().st_size for clip in demo.clips()}
    return input.path.is_file() and input.path.stat().st_size not in sizes


def transcribe_all(
    inputs: Sequence[Input],
    recognizer: "Recognizer",
    options: TranscribeOptions,
    display: "Display",
    outcome: "Outcome",
    files: "Files | None" = None,
    finish: "Callable[[Finished], None]" = lambda event: None,
) -> None:
    """Transcribe all inputs. If one fails, report it and continue with the others.

    `finish` is called with each result after it has been displayed.
    """
    from funasr_cli.audio.recording import Source
    from funasr_cli.hubs.find import DEMO
    from funasr_cli.scheduling.events import Finished
    from funasr_cli.sources import open_input

    def open_one(input: Input) -> Source:
        if files:
            files.prepare(input)
        return open_input(input, recognizer.sample_rate_hz)

    if recognizer.model.name == DEMO and any(map(_is_own_recording, inputs)):
        console.note(DEMO_NOTE)
    with display.region:
        for event in recognizer.run([partial(open_one, input) for input in inputs], options):
            try:
                display.show(event)
                if isinstance(event, Finished):
                    finish(event)
            except OutputError as error:
                if event.source not in outcome.failed:
                    console.report(error)
                outcome.failed.add(event.source)
            outcome.add(event)
