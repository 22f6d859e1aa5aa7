"""Fetch a model that is not on this machine, after asking: one command to the first transcript."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funasr_cli.capabilities import (
    Capabilities,
    refuse_aligner,
    refuse_unaligned_language,
    refuse_unsupported,
    supported,
)
from funasr_cli.cli import alignment, console, parameters
from funasr_cli.cli.run import choose_aligner, choose_punctuation, choose_translator
from funasr_cli.errors import ExitCode, FunASRError, ModelError, OutputError, SetupError, UsageError
from funasr_cli.extras import missing, named, to_add
from funasr_cli.inputs import Input
from funasr_cli.languages import LANGUAGES, resolve_language
from funasr_cli.options import AUTO_DTYPE, INT8, MLX, Hub, TranscribeOptions
from funasr_cli.paths import size_in_words

if TYPE_CHECKING:
    import typer

    from funasr_cli.cli.output import Files
    from funasr_cli.families.family import Download

HUB_VARIABLE = "FUNASR_HUB"  # of funasr convert
OTHER_WAYS = (
    "convert a folder or hub id with funasr convert SOURCE, or test the installation with --model demo, a small "
    "model that understands only synthetic speech"
)
# Of a model that is unknown until it has been fetched: the most and the least that it may support.
ANYTHING, NOTHING = Capabilities(tuple(LANGUAGES), word_times=True), Capabilities(())


@dataclass
class Known:
    """What is known of a model that has not been loaded."""

    name: str
    capabilities: Capabilities
    longest_segment_s: float = inf


def find_or_fetch(
    context: "typer.Context",
    inputs: Sequence[Input],
    options: TranscribeOptions,
    typed: Mapping[str, str],
    files: "Files | None" = None,
) -> Path:
    """Find the folder of a model as `find_model` does. Offer to fetch one that is missing.

    A note names a model that is used because it is the only one, and not the default. The hub is not contacted
    before the user agrees, on a terminal or with ``--yes``. Everything that can be checked without the model is
    checked before the question. If a variable forbids downloads, a model in the hub's cache is converted without a
    question.

    Args:
        context: the command's parameters: ``model``, ``align_with``, ``punctuation``, ``translator``, ``device``,
            ``dtype``, ``engine``, ``yes``.
        inputs: the recordings to transcribe.
        options: how to transcribe.
        typed: the options on the command line, by field of `TranscribeOptions`.
        files: the files to write.

    Raises:
        ModelError: the name is neither a model nor a hub id, downloads are off, or the user declined.
        UsageError: there is no terminal to ask on, and ``--yes`` was not given; or an option cannot work.
        SetupError: the hub cannot be reached, or the conversion needs a package that is not installed.
        FunASRError: none of the inputs can be transcribed, or the conversion failed.
    """
    from funasr_cli.hubs.find import (
        DEFAULT_DOWNLOAD,
        DEFAULT_MODEL,
        find_model,
        is_fetched,
        models_folder,
        offered,
    )
    from funasr_cli.hubs.huggingface import forbids_downloads

    given = context.params
    try:
        folder = find_model(given["model"])
        if given["model"] is None:
            name = folder.relative_to(models_folder()).as_posix()
            if name not in (DEFAULT_MODEL, DEFAULT_DOWNLOAD.hub_id):  # it was chosen by what is on this machine
                console.note(f"using {name}, the only speech model that has been converted")
        return folder
    except ModelError as error:
        if error.code == "model-ambiguous":
            error.hint += " (--model NAME)"
        download = offered(given["model"]) if error.code == "model-missing" else None
        if download is None:
            raise
        absent = error
    offline = forbids_downloads()
    is_here = offline is not None and is_fetched(download)
    if offline and not is_here:
        copied = "copy a model's folder from another machine and name it with --model"
        hint = f"{offline} is set, so nothing is downloaded: {copied}, or test the installation with --model demo"
        raise ModelError(absent.message, hint, code=absent.code)
    _refuse_options(download, options, typed, context)
    _refuse_inputs(inputs, files)
    packed_bytes = _packed_bytes(given, download)
    _refuse_conversion(download, packed_bytes)
    if is_here:
        console.note(f"using {download.hub_id} from the download cache, since {offline} is set")
    else:
        _get_consent(given, download, absent, packed_bytes)
    folder = find_model(str(_fetch(download)))  # only now is the kind of an unknown model known
    if not (given["align_with"] and options.word_times):
        _note_missing_word_times(folder)
    return folder


# --- what cannot work ---


def _refuse_options(
    download: "Download",
    options: TranscribeOptions,
    typed: Mapping[str, str],
    context: "typer.Context",
) -> None:
    """Raise an error for a device, an engine, a second model or an option that cannot be used with the model."""
    from funasr_cli.compute.device import use_device
    from funasr_cli.families.load import refuse_by_family
    from funasr_cli.families.open import capabilities
    from funasr_cli.families.registry import of_download

    device, dtype, engine, align_with = (
        context.params[name] for name in ("device", "dtype", "engine", "align_with")
    )
    if device:
        use_device(device)
    refuse_by_family(of_download(download), dtype, engine, parameters.optional_computing(context))
    able = download.capabilities or ANYTHING
    choose_punctuation(context.params["punctuation"], able, download.name, options, typed)
    if aligner := choose_aligner(align_with, able, options, typed):
        second = Known(aligner.name, capabilities(aligner))
        refuse_aligner(Known(download.name, download.capabilities or NOTHING), second)
        refuse_unaligned_language(options, second)
    translator = choose_translator(context.params["translator"], able, options, typed)
    if able is ANYTHING:
        resolve_language(options.language, able.languages, download.name)
    else:
        able = able.with_aligner() if aligner else able
        able = able.with_translator() if translator else able
        known: dict[str, Any] = {"longest_segment_s": download.longest_segment_s, "typed": typed}
        refuse_unsupported(supported(options, able, **known), able, download.name, **known)
    if context.params["plot_alignment"]:
        alignment.require_libraries()


def _refuse_inputs(inputs: Sequence[Input], files: "Files | None") -> None:
    """Raise an error if no input can be read and its results written; warn if some cannot.

    Several errors are reported here, with the line that ends a run.
    """
    import typer

    problems = list(_problems(inputs, files))
    if problems and len(problems) == len(inputs):
        if len(problems) == 1:
            raise problems[0]
        for problem in problems:
            console.report(problem)
        console.note(f"{len(problems)} of {len(inputs)} inputs failed")
        raise typer.Exit(ExitCode.INPUT_FAILED)
    for problem in problems:
        console.warn(problem.message)


def _problems(inputs: Sequence[Input], files: "Files | None") -> Iterator[FunASRError]:
    """Yield an error for each input that cannot be read, or whose results cannot be written."""
    from funasr_cli.sources import why_unreadable

    for input in inputs:
        if problem := why_unreadable(input):
            yield problem
        elif files:
            try:
                files.prepare(input)
            except OutputError as error:
                yield error


def _packed_bytes(given: Mapping[str, Any], download: "Download") -> int:
    """Return the size of the weights in the form that this CPU needs; 0 if none will be kept."""
    from funasr_cli.families.native import stated_kept_bytes

    in_int8 = given["engine"] != MLX and given["dtype"] in (AUTO_DTYPE, INT8)
    return stated_kept_bytes(download) if in_int8 else 0


def _refuse_conversion(download: "Download", packed_bytes: int) -> None:
    """Raise an error if the conversion needs a missing package, or its folder or the disk cannot take it."""
    from funasr_cli.conversion.convert import place_of
    from funasr_cli.hubs.find import require_room

    if extras := missing(*download.packages):
        easier = _same_without_packages(download)
        instead = f"; or use --model {easier}, the same model without this need" if easier else ""
        message = f"{download.hub_id}: the conversion needs {' and '.join(download.packages)}"
        raise SetupError(message, f"{to_add(*extras)}{instead}", code="package-missing")
    try:
        place_of(download)
    except OutputError as error:
        if error.code == "output-exists":
            raise _leftover(error) from error
        raise
    require_room(download, packed_bytes)


def _same_without_packages(download: "Download") -> str | None:
    """Return the short name of the same model in a layout that needs no packages, if there is one."""
    from funasr_cli.hubs.find import DOWNLOADS, short_name

    name = short_name(download)
    return name if name and download.packages and not DOWNLOADS[name].packages else None


def _leftover(error: OutputError) -> OutputError:
    """Return an error for a folder that is in the model's place, and is not a model that can be used."""
    return OutputError(error.message, "it is not a usable model: move or remove it", code=error.code)


# --- consent ---


def _get_consent(given: Mapping[str, Any], download: "Download", absent: ModelError, packed_bytes: int) -> None:
    """Print what is fetched and from where, and ask whether to do so, unless ``--yes`` was given.

    Raises:
        ModelError: the answer is no.
        UsageError: there is no terminal.
    """
    from funasr_cli.hubs.huggingface import site

    what = f"{_described(download)} from {site()}"
    if given["yes"]:
        _warn_of_other_hub(download)
        console.note(f"fetching {what}" + ("" if download.name == download.hub_id else f": {download.hub_id}"))
        return
    if not _has_terminal():
        message = f"{absent.message}, and there is no terminal to ask before a download"
        raise UsageError(message, f"add --yes to fetch {what}, {OTHER_WAYS}", code="download-unconfirmed")
    _warn_of_other_hub(download)
    _explain(given["model"], download, packed_bytes)
    if not _agrees(f"Fetch {what}? [Y/n] "):
        raise ModelError("no model was fetched", OTHER_WAYS, code="model-missing")


def _explain(name: str | None, download: "Download", packed_bytes: int) -> None:
    """Print what a user should know before the question."""
    disk = ""
    if download.size_bytes and download.converted_bytes:
        disk = f", which takes {size_in_words(download.size_bytes + download.converted_bytes)} of disk space"
        if packed_bytes:
            disk += f"; {size_in_words(packed_bytes)} more are for weights in the form that this CPU needs"
    console.say("No speech model is installed yet." if name is None else f"{name} is not on this machine yet.")
    console.say(f"{download.hub_id} is downloaded once and converted{disk}.")
    if easier := _same_without_packages(download):
        console.say(f"The same model is available in a layout that converts without PyTorch: --model {easier}")
    console.say("After that no network is needed. Recordings never leave this machine.")


def _warn_of_other_hub(download: "Download") -> None:
    """Warn that the variable for another hub has no effect here."""
    from funasr_cli.hubs.find import short_name

    if os.environ.get(HUB_VARIABLE, "").lower() == Hub.MS:
        command = f"funasr convert {short_name(download) or download.hub_id} --hub {Hub.MS}"
        console.warn(f"{HUB_VARIABLE}={Hub.MS} does not apply to transcribe; to use ModelScope, run {command}")


def _has_terminal() -> bool:
    """Return whether a question can be shown on stderr and answered on stdin."""
    return sys.stdin is not None and os.isatty(0) and console.is_terminal()


def _agrees(question: str) -> bool:
    """Ask on stderr, until the answer is yes or no. Enter means yes; the end of input means no."""
    while True:
        sys.stderr.write(question)
        sys.stderr.flush()
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            raise
        if not line:
            sys.stderr.write("\n")
        answer = line.strip().lower()
        if answer in ("", "y", "yes", "n", "no"):
            return bool(line) and not answer.startswith("n")


# --- download and conversion ---


def _fetch(download: "Download") -> Path:
    """Fetch and convert a model, with a progress bar for each step; return its folder."""
    from funasr_cli.conversion.convert import fetch_model
    from funasr_cli.hubs.find import find_model, short_name

    try:
        with console.progress() as on_progress:
            folder, conversion = fetch_model(download, on_progress)
    except SetupError as error:
        if error.code == "hub-unreachable" and (name := short_name(download)):
            there = f"funasr convert {name} --hub {Hub.MS}{_needing('torch', 'modelscope_hub')}"
            copied = "copy a converted model from another machine and name its folder with --model"
            error.hint = f"try ModelScope: {there}; or set HF_ENDPOINT to a mirror; or {copied}"
        raise
    except OutputError as error:
        if error.code != "output-exists":
            raise
        try:
            return find_model(download.hub_id)  # another run has converted it in the meantime
        except ModelError:
            raise _leftover(error) from error
    if conversion:
        console.note(f"converted to {folder}")
    return folder


def _note_missing_word_times(folder: Path) -> None:
    """Print how to get word times, if a model that was just fetched has none."""
    from funasr_cli.families.open import capabilities, open_model
    from funasr_cli.hubs.find import ctc_copy

    if capabilities(folder).word_times:
        return
    console.note("this model has no word times, because its weights lack a CTC branch. To get word times, run:")
    if copy := ctc_copy(open_model(folder).source):
        console.note(f"  {copy}{_needing('torch', 'modelscope_hub')}; or")
    needing = _needing("torch", "sentencepiece")
    console.note(f"  funasr convert sensevoice{needing}, and from then on add --align-with sensevoice")


def _needing(*packages: str) -> str:
    """Return a remark on the extras to install before a command; empty if it has all its packages."""
    extras = missing(*packages)
    return f" (first install {named(*extras)})" if extras else ""


def _described(download: "Download") -> str:
    size = size_in_words(download.size_bytes) if download.size_bytes else "size unknown"
    return f"{download.name} ({size})"
