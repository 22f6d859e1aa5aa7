"""Fetch a model that is not on this machine, after asking: one command to the first transcript."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.cli import console
from funasr_cli.cli.convert import has_ctc_on_modelscope, progress
from funasr_cli.errors import ModelError, OutputError, SetupError, UsageError
from funasr_cli.inputs import Input
from funasr_cli.languages import LANGUAGES, resolve_language
from funasr_cli.options import TranscribeOptions

if TYPE_CHECKING:
    from funasr_cli.families.family import Download

HUB = "Hugging Face"
TO_MODELSCOPE = "funasr convert nano --hub ms"
OTHER_WAYS = (
    "convert a folder or hub id with funasr convert SOURCE, or try the small bundled model with --model demo"
)


def find_or_fetch(
    name: str | None,
    inputs: Sequence[Input],
    options: TranscribeOptions,
    typed: Mapping[str, str],
    *,
    align_with: str | None,
    yes: bool,
) -> Path:
    """Find the folder of a model as `find_model` does. Offer to fetch one that is missing.

    The hub is not contacted before the user agrees, on a terminal or with ``--yes``. Everything that can be
    checked without the model is checked before the question.

    Args:
        name: the value of ``--model``; None takes the default model.
        inputs: the recordings to transcribe.
        options: how to transcribe.
        typed: the options on the command line, by field of `TranscribeOptions`.
        align_with: the value of ``--align-with``.
        yes: whether ``--yes`` was given.

    Raises:
        ModelError: the name is neither a model nor a hub id, downloads are off, or the user declined.
        UsageError: there is no terminal to ask on, and ``--yes`` was not given; or an option cannot work.
        SetupError: the hub cannot be reached, or the weights need torch and it is not installed.
        FunASRError: none of the inputs can be opened, or the conversion failed.
    """
    from funasr_cli.hubs.find import find_model, offered, require_room
    from funasr_cli.hubs.huggingface import forbids_downloads

    try:
        return find_model(name)
    except ModelError as error:
        missing = error
    download = offered(name) if missing.code == "model-missing" else None
    if download is None:
        raise missing
    variable = forbids_downloads()
    if variable and not yes:
        copied = "copy a model's folder from another machine and name it with --model"
        missing.hint = f"{variable} is set, so nothing is downloaded: {copied}, or try --model demo"
        raise missing
    aligner = align_with if options.word_times else None
    _refuse_unusable(inputs, download, options, typed, aligner)
    if not variable:
        require_room(download)
    if not yes:
        _ask(name, download, missing)
    elif not variable:
        console.note(f"fetching {_described(download)} from {HUB}: {download.hub_id}")
    folder = _fetch(download)
    if not aligner:
        _note_missing_word_times(folder)
    return folder


def _refuse_unusable(
    inputs: Sequence[Input],
    download: "Download",
    options: TranscribeOptions,
    typed: Mapping[str, str],
    aligner: str | None,
) -> None:
    """Raise errors that would otherwise appear only after the download."""
    from funasr_cli.hubs.find import find_aligner
    from funasr_cli.sources import why_unreadable

    problems = [problem for problem in takewhile(bool, map(why_unreadable, inputs)) if problem]
    if problems and len(problems) == len(inputs):
        for problem in problems[:-1]:
            console.report(problem)
        raise problems[-1]
    resolve_language(options.language, tuple(LANGUAGES))
    needs_aligner = "word_times" in typed and not download.word_times
    if aligner and ("align_with" in typed or needs_aligner):
        find_aligner(aligner)
    elif needs_aligner:
        message = f"{typed['word_times']}: {download.hub_id} has no word times"
        hint = f"run {TO_MODELSCOPE}; or run funasr convert sensevoice and add --align-with sensevoice"
        raise UsageError(message, hint, code="option-unsupported")


def _ask(name: str | None, download: "Download", missing: ModelError) -> None:
    """Ask whether to fetch a model.

    Raises:
        ModelError: the answer is no.
        UsageError: there is no terminal.
    """
    from funasr_cli.hubs.find import models_folder

    what = _described(download)
    if not _has_terminal():
        message = f"{missing.message}, and there is no terminal to ask before a download"
        hint = f"add --yes to fetch {what} from {HUB}, {OTHER_WAYS}"
        raise UsageError(message, hint, code="download-unconfirmed")
    console.say("No speech model is installed yet." if name is None else f"{name} is not on this machine yet.")
    which = "It" if download.name == download.hub_id else f"{download.name} ({download.hub_id})"
    disk = f" and takes {_gigabytes(2 * download.size_bytes)} of disk space" if download.size_bytes else ""
    console.say(f"{which} is downloaded once{disk}.")
    console.say(f"Converted models are kept in {models_folder()}.")
    console.say("After the download no network is needed. Recordings never leave this machine.")
    if not _agrees(f"Fetch {what} from {HUB}? [Y/n] "):
        raise ModelError("no model was fetched", OTHER_WAYS, code="model-missing")


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


def _fetch(download: "Download") -> Path:
    """Fetch and convert a model, with a progress bar for each step; return its folder."""
    from funasr_cli.conversion.convert import fetch_model
    from funasr_cli.hubs.find import find_model

    try:
        with progress() as on_progress:
            folder, conversion = fetch_model(download.hub_id, on_progress)
    except SetupError as error:
        if error.code == "hub-unreachable":
            to_modelscope = f"funasr convert {_name_on_modelscope(download)} --hub ms"
            error.hint = (
                f"try ModelScope: {to_modelscope}; or set HF_ENDPOINT to a mirror; or copy a converted model from "
                "another machine and name its folder with --model"
            )
        raise
    except OutputError as error:
        if error.code == "output-exists":  # another run converted the model in the meantime
            return find_model(download.hub_id)
        raise
    if conversion:
        console.note(f"converted to {folder}")
    return folder


def _note_missing_word_times(folder: Path) -> None:
    """Print how to get word times, if a model that was just fetched has none."""
    from funasr_cli.families.open import capabilities, open_model

    if capabilities(folder).word_times:
        return
    for line in _ways_to_word_times(open_model(folder).source):
        console.note(line)


def _ways_to_word_times(source: Mapping[str, str | None]) -> Iterator[str]:
    yield "no word times: the weights have no CTC branch. To get word times, install torch and run one of:"
    if has_ctc_on_modelscope(source):
        yield f"  {TO_MODELSCOPE}"
    yield "  funasr convert sensevoice, and from then on add --align-with sensevoice"


def _name_on_modelscope(download: "Download") -> str:
    """Return the short name of a model whose weights are also on ModelScope, else the hub id."""
    from funasr_cli.hubs.find import DOWNLOADS

    return next((alias for alias, known in DOWNLOADS.items() if known == download), download.hub_id)


def _described(download: "Download") -> str:
    return f"{download.name} ({_gigabytes(download.size_bytes)})" if download.size_bytes else download.name


def _gigabytes(size_bytes: int) -> str:
    """Return a size in GB, rounded up."""
    return f"{ceil(size_bytes / 1e8) / 10:.1f} GB"
