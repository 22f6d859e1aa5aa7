"""What both hubs share: the files that make a checkpoint, where a download stands, why one has failed."""

import errno
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.checkpoints.format import CONFIG_FILE, CTC_VOCABULARY_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from funasr_cli.checkpoints.layouts.files import OPTIONAL_TOKENIZER_FILES
from funasr_cli.checkpoints.layouts.funasr import UPSTREAM_CONFIG, UPSTREAM_WEIGHTS
from funasr_cli.checkpoints.layouts.transformers import INDEX_FILE
from funasr_cli.checkpoints.pickles import require_torch
from funasr_cli.errors import ModelError, OutputError, SetupError

Tell = Callable[[int, int], None]  # bytes fetched, bytes in all

# Of the decoder and its tokenizer: at the top, or in a folder such as Qwen3-0.6B.
DECODER_FILES = {
    CONFIG_FILE,
    TOKENIZER_FILE,
    *OPTIONAL_TOKENIZER_FILES,
    "special_tokens_map.json",
    "added_tokens.json",
}
TOP_FILES = DECODER_FILES | {
    UPSTREAM_CONFIG, CTC_VOCABULARY_FILE, INDEX_FILE, "configuration.json", "README.md",
    "processor_config.json", "preprocessor_config.json", "chat_template.jinja",
}  # fmt: skip
FOLDER = re.compile(r"\w[\w.+-]*")  # a plain name: no way up, nothing hidden
SHARD = re.compile(r"model-\d{5}-of-(\d{5})\.safetensors")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
COMMIT = re.compile(r"[0-9a-f]{40}")  # these two are made folder and file names of
SHA256 = re.compile(r"[0-9a-f]{64}")
RESUMES = "run it again: it goes on where it stopped"


@dataclass(frozen=True)
class Snapshot:
    """A repository's files on disk.

    Attributes:
        commit: what they were taken from; a branch or tag where the hub does not tell which commit that is.
    """

    folder: Path
    commit: str | None


def wanted(hub_id: str, names: Iterable[str]) -> list[str]:
    """The files to fetch: configuration, tokenizer and weights; never audio, ONNX or code.

    Raises:
        ModelError: there are no weights among them that could be converted.
        SetupError: torch is needed and not installed, which is said before anything is downloaded.
    """
    names = sorted(set(names))
    tensors = weights(names)
    if not tensors:
        raise ModelError(
            f"{hub_id}: no {UPSTREAM_WEIGHTS} and no {WEIGHTS_FILE} in it", "name the repository of a checkpoint"
        )
    if UPSTREAM_WEIGHTS in tensors:
        require_torch()
    return [*filter(_is_wanted_text, names), *tensors]


def weights(names: Collection[str]) -> list[str]:
    """The files of one set of weights.

    With a ``config.json`` beside them, safetensors go before ``model.pt``: there is nothing to unpickle in them.
    """
    tensors = [WEIGHTS_FILE] if WEIGHTS_FILE in names else sorted(filter(SHARD.fullmatch, names))
    pickled = [UPSTREAM_WEIGHTS] if UPSTREAM_WEIGHTS in names else []
    return (tensors or pickled) if CONFIG_FILE in names else (pickled or tensors)


def is_complete(folder: Path) -> bool:
    """Whether all weights of a checkpoint are in a folder: a download may have been interrupted."""
    found = weights([path.name for path in folder.iterdir() if path.is_file()])
    shards = [match for match in map(SHARD.fullmatch, found) if match]
    return bool(found) and all(len(shards) == int(match[1]) for match in shards)


def _is_wanted_text(name: str) -> bool:
    match name.split("/"):
        case [file]:
            return file in TOP_FILES
        case [folder, file]:
            return file in DECODER_FILES and FOLDER.fullmatch(folder) is not None
    return False


@contextmanager
def quiet(client: str) -> Iterator[None]:
    """Keep a client from logging: what there is to say, we say."""
    logger = logging.getLogger(client)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, the innermost last."""
    cause: BaseException | None = error
    while cause:
        yield cause
        cause = cause.__cause__ or cause.__context__


def reason(error: BaseException) -> str:
    """The innermost reason, in one line."""
    *_, innermost = (cause for cause in causes(error) if not isinstance(cause, StopIteration))  # what JSON ends in
    texts = (getattr(innermost, "strerror", None), getattr(innermost, "message", None), str(innermost))
    return str(next(filter(None, texts), type(innermost).__name__)).splitlines()[0]


def failure(hub_id: str, error: BaseException, cache: Path) -> OutputError | SetupError:
    """A download that has ended early: the disk is full, or anything else."""
    if any(isinstance(cause, OSError) and cause.errno in NO_ROOM for cause in causes(error)):
        return OutputError(f"{cache}: the disk is full", "make room there and run it again")
    return SetupError(f"{hub_id}: the download failed ({reason(error)})", RESUMES)
