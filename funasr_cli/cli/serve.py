"""``funasr serve``: a server with OpenAI's interface for transcriptions."""

import logging
import os
import re
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar

import typer

from funasr_cli.cli import console, parameters
from funasr_cli.cli.run import choose_type_and_engine
from funasr_cli.errors import ModelError, SetupError, UsageError
from funasr_cli.extras import missing, to_add
from funasr_cli.options import (
    AUTO_PUNCTUATION,
    AUTO_SPEAKER_MODEL,
    NO_PUNCTUATION,
    NO_SPEAKER_MODEL,
    SERVE_DEFAULTS,
)
from funasr_cli.paths import why_unreadable

if TYPE_CHECKING:
    from funasr_cli.pipeline import Recognizer
    from funasr_cli.punctuation_model import PunctuationModel
    from funasr_cli.speaker_model import SpeakerModel
    from funasr_cli.text_model import TextModel

Helper = TypeVar("Helper")
KEY_VARIABLE = "FUNASR_API_KEY"
LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
MOST_KEY_BYTES = 4096
HOST_NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?")
MB = 1 << 20

_network = partial(parameters.option, "Network")
_limits = partial(parameters.option, "Limits")


def serve(
    context: typer.Context,
    model: parameters.Models = None,
    align_with: Annotated[
        str | None,
        parameters.option(
            None,
            "--align-with",
            "Get word times from a second model, if a model has none.",
            **parameters.MODEL_OPTION,
        ),
    ] = None,
    punctuation: parameters.PunctuationModel = AUTO_PUNCTUATION,
    translator: parameters.Translator = None,
    speaker_model: Annotated[
        str,
        parameters.option(
            parameters.SPEAKERS,
            "--speaker-model",
            "Model of voices, for requests that ask who speaks. auto: the one that has been converted, if any.",
            metavar="auto|none|MODEL",
            env=False,
        ),
    ] = AUTO_SPEAKER_MODEL,
    device: parameters.Device = None,
    dtype: parameters.DType = parameters.DEFAULT_DTYPE,
    engine: parameters.Engine = parameters.DEFAULT_ENGINE,
    host: Annotated[str, _network("--host", "Address to listen on.")] = SERVE_DEFAULTS.host,
    port: Annotated[
        int, _network("--port", "Port to listen on. 0: any free one.", min=0, max=65535)
    ] = SERVE_DEFAULTS.port,
    api_key_file: Annotated[
        Path | None,
        _network(
            "--api-key-file", f"File with the key that clients must send. Or set {KEY_VARIABLE}.", metavar="FILE"
        ),
    ] = None,
    no_api_key: Annotated[
        bool,
        _network("--no-api-key", "Allow any machine in the network to use the server without a key.", env=False),
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        _network(
            "--allowed-host",
            "A name of this server, such as that of a proxy. Repeatable.",
            metavar="NAME",
            env=False,
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        _network(
            "--cors-origin",
            "A web page that may use the server, such as https://example.com, or *. Repeatable.",
            metavar="ORIGIN",
            env=False,
        ),
    ] = None,
    max_upload: Annotated[
        int, _limits("--max-upload", "Largest upload, in MB.", min=1)
    ] = SERVE_DEFAULTS.max_upload_mb,
    max_requests: Annotated[
        int, _limits("--max-requests", "Requests at the same time; more are refused.", min=1)
    ] = SERVE_DEFAULTS.max_requests,
    keep_alive: Annotated[
        float, _limits("--keep-alive", "Minutes until a model that is not in use is unloaded; inf: never.", min=0)
    ] = SERVE_DEFAULTS.keep_alive_min,
    prompt_as_text: Annotated[
        bool,
        parameters.option(
            parameters.LANGUAGE,
            "--prompt-as-text",
            "Take a client's prompt as the text that precedes its recording. Otherwise a list of terms counts as "
            "hotwords, and most models ignore prose.",
        ),
    ] = False,
    quiet: parameters.Quiet = False,
    verbose: Annotated[
        bool, parameters.option(parameters.TERMINAL, "--verbose", "Show each request.", "-v")
    ] = False,
) -> None:
    """Serve transcriptions over HTTP, for programs that speak OpenAI's interface.

    The first --model is the default. Without --model, all models on this machine are offered; the default is
    Fun-ASR-Nano if it is among them, else the first by name.
    """
    console.set_volume(quiet=quiet, verbose=verbose)
    if absent := missing("starlette", "uvicorn", "python_multipart", "msgspec"):
        raise SetupError(
            "funasr serve needs packages that are not installed", to_add(*absent), code="extra-missing"
        )
    key = _key(api_key_file)
    if no_api_key and key is not None:
        raise UsageError(f"cannot combine --no-api-key with a key from --api-key-file or {KEY_VARIABLE}",
                         "leave out one of the two, or unset the variable", code="options-conflict")  # fmt: skip
    for name in allowed_host or ():
        if not HOST_NAME.fullmatch(name):
            raise UsageError(f"--allowed-host {name!r} is not a name of a host",
                             "such as speech.example.com, without port; all addresses and ports are allowed",
                             code="option-value")  # fmt: skip
    if key is None and host not in LOCAL_HOSTS and not no_api_key:
        hint = f"set {KEY_VARIABLE} or --api-key-file; or allow everyone with --no-api-key"
        raise UsageError(
            f"--host {host}: other machines could use the server without a key", hint, code="key-missing"
        )
    folders = _folders([str(each) for each in model or ()])
    aligner, marks, chat = _aligner(align_with), _punctuation(punctuation), _translator(translator)
    voices = _speaker_model(speaker_model)
    _refuse_idle(context, folders)

    from funasr_cli.families.load import load_punctuation, load_text
    from funasr_cli.server.app import make_app
    from funasr_cli.server.guard import Guard
    from funasr_cli.server.run import listening, run
    from funasr_cli.server.service import Transcriptions
    from funasr_cli.server.shelf import Shelf

    def load_chat(folder: Path) -> "TextModel":
        return load_text(folder, *choose_type_and_engine(folder, context))

    helpers = aligner, Lazily(load_punctuation, marks), Lazily(load_chat, chat)
    shelf = Shelf(
        folders,
        lambda folder: _load(folder, *helpers, device, context),
        keep_alive * 60,
        partial(_load_voices, voices, device) if voices else None,
    )
    service = Transcriptions(shelf, most_open=max_requests, continues=prompt_as_text)
    guard = Guard(key, (host, *(allowed_host or ())), tuple(origin.rstrip("/") for origin in cors_origin or ()))
    for name, level in (("funasr_cli.server", logging.INFO), ("uvicorn", logging.WARNING)):
        logging.getLogger(name).addHandler(Printed())
        logging.getLogger(name).setLevel(level)
    with listening(host, port) as listener:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}"
        console.note(f"models: {', '.join(folders)}")
        run(
            make_app(service, guard, max_upload * MB),
            service,
            listener,
            lambda: console.note(f"listening on {address}"),
        )


class Printed(logging.Handler):
    """Print what the server reports: what goes wrong, and each request with --verbose."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        (console.warn if record.levelno >= logging.WARNING else console.detail)(record.getMessage())


def _key(file: Path | None) -> str | None:
    """Return the key from the file, else from the variable; None if there is neither."""
    if file is None:
        if not (text := os.environ.get(KEY_VARIABLE)):
            return None
        place, hint = KEY_VARIABLE, "set it to the key, or unset it"
    else:
        try:
            with file.expanduser().open("rb") as opened:
                text = opened.read(MOST_KEY_BYTES + 1).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: {why_unreadable(error)}", code="file-unreadable") from error
        place, hint = str(file), "put the key on its only line"
    key = text.strip()
    if not key or len(text) > MOST_KEY_BYTES or not key.isprintable():
        raise UsageError(
            f"{place}: does not contain a key", hint, code="file-unreadable" if file else "variable-value"
        )
    return key


def _folders(names: list[str]) -> Mapping[str, Path]:
    """Return the folders of the models, by the names that clients use. The default comes first.

    Without names, these are all models on this machine. The default is the one that `find_model` chooses, else the
    first by name.
    """
    from funasr_cli import demo
    from funasr_cli.families.family import SPEECH
    from funasr_cli.hubs.find import DEMO, converted_for, find_model

    known = {folder: name for name, folder in converted_for(SPEECH).items()}
    known.setdefault(demo.MODEL, DEMO)
    if names:
        return {_name(known, name, folder): folder for name in names for folder in (find_model(name),)}
    try:
        default = find_model(None)
    except ModelError as error:
        if error.code != "model-ambiguous":
            raise
        name, default = next((name, folder) for folder, name in known.items() if name != DEMO)
        console.note(
            f"the default model is {name}, the first by name; to choose another, name it first with --model"
        )
    others = {name: folder for folder, name in known.items() if folder not in (default, demo.MODEL)}
    return {_name(known, default.name, default): default, **others}


def _name(known: Mapping[Path, str], name: str, folder: Path) -> str:
    return known.get(folder) or (folder.resolve().name if Path(name).expanduser().is_dir() else name)


def _aligner(name: str | None) -> Path | None:
    from funasr_cli.hubs.find import find_aligner

    return find_aligner(name) if name else None


def _refuse_idle(context: typer.Context, folders: Mapping[str, Path]) -> None:
    """Raise a `UsageError` for a punctuation model that is named, if every model on offer writes marks itself."""
    from funasr_cli.families.open import capabilities

    name = context.params["punctuation"]
    is_named = parameters.is_typed(context, "punctuation") and name not in (AUTO_PUNCTUATION, NO_PUNCTUATION)
    if is_named and all(capabilities(folder).punctuation for folder in folders.values()):
        what = f"--punctuation {name}: not needed, all models here write punctuation themselves"
        raise UsageError(what, "leave it out", code="option-idle")


def _punctuation(name: str) -> Path | None:
    from funasr_cli.hubs.find import find_punctuation

    return find_punctuation(name)


def _speaker_model(name: str) -> Path | None:
    """Return the folder of the model that tells speakers apart; None if there is none, or none is wanted."""
    from funasr_cli.hubs.find import find_speaker_model

    if name == NO_SPEAKER_MODEL:
        return None
    try:
        return find_speaker_model(name)
    except ModelError as error:
        if name == AUTO_SPEAKER_MODEL and error.code == "model-missing":
            return None
        raise


def _load_voices(folder: Path, device: str | None) -> "SpeakerModel":
    """Load a model that tells speakers apart, in the thread that computes, when a request first asks for it."""
    from funasr_cli.compute.device import use_device
    from funasr_cli.families.load import load_speakers

    if device:
        use_device(device)
    model = load_speakers(folder)
    console.note(f"loaded {model.name}, which tells speakers apart")
    return model


def _translator(name: str | None) -> Path | None:
    from funasr_cli.hubs.find import find_translator

    return find_translator(name) if name else None


class Lazily(Generic[Helper]):
    """A model that helps others: loaded when the first of them needs it, shared by all, unloaded with the last.

    So the shelf, which knows only those that it helps, frees its memory, too.
    """

    def __init__(self, load: Callable[[Path], Helper], folder: Path | None):
        self._load, self._folder = load, folder
        self._loaded: Callable[[], Helper | None] = lambda: None  # a weak reference

    @property
    def model(self) -> Helper | None:
        """The loaded model; None if there is none."""
        if not self._folder:
            return None
        model = self._loaded() or self._load(self._folder)
        self._loaded = weakref.ref(model)
        return model


def _load(
    folder: Path,
    aligner: Path | None,
    marks: "Lazily[PunctuationModel]",
    chat: "Lazily[TextModel]",
    device: str | None,
    context: typer.Context,
) -> "Recognizer":
    """Load a model, in the thread that computes, and others if it needs help with times, marks or translations."""
    from funasr_cli.compute.device import use_device
    from funasr_cli.families.load import load_aligner, load_model
    from funasr_cli.pipeline import Recognizer

    if device:
        use_device(device)
    dtype, engine = choose_type_and_engine(folder, context)
    model = load_model(folder, dtype, engine)
    helper = load_aligner(aligner, dtype) if aligner and not model.capabilities.word_times else None
    punctuate_with = None if model.capabilities.punctuation else marks.model
    # As with `transcribe`, one that is named on the command line translates even for models that can.
    needs_chat = parameters.is_typed(context, "translator") or not model.capabilities.translation
    translator = chat.model if needs_chat else None
    console.note(f"loaded {model.name}: {model.engine}")
    # A request whose options leave it no work is not refused: the option is one of the server.
    return Recognizer(
        model, align_with=helper, punctuate_with=punctuate_with, must_punctuate=False, translator=translator
    )
