"""Which files of a repository make a checkpoint, on either hub."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from funasr_cli.checkpoints.format import CONFIG_FILE, INDEX_FILE, README_FILE, WEIGHTS_FILE
from funasr_cli.checkpoints.funasr import PLACES_FILE, UPSTREAM_CONFIG, UPSTREAM_WEIGHTS
from funasr_cli.checkpoints.pickles import require_torch
from funasr_cli.checkpoints.pieces import SENTENCEPIECE, TOKENS_FILE, require_sentencepiece
from funasr_cli.errors import ModelError
from funasr_cli.families import registry
from funasr_cli.options import Hub

Tell = Callable[[int, int], None]  # bytes fetched, bytes in all

# Whatever the family; what each of them needs besides, `registry.hub_files` tells.
COMMON_FILES = {CONFIG_FILE, UPSTREAM_CONFIG, PLACES_FILE, INDEX_FILE, README_FILE}
PLAIN = re.compile(r"\w[\w.+-]*")  # the name of a file or folder: no way up, nothing hidden
SHARD = re.compile(r"model-\d{5}-of-(\d{5})\.safetensors")


@dataclass(frozen=True)
class CheckpointFolder:
    """A checkpoint on disk; a local folder has neither revision nor hub."""

    folder: Path
    name: str  # hub id, or the folder's name
    revision: str | None  # commit, or a branch or tag where the hub does not tell which commit that is
    hub: Hub | None = None  # which one it was taken from


def wanted(hub_id: str, names: Iterable[str]) -> list[str]:
    """The files to fetch: configuration, vocabularies and weights; never audio, ONNX or code.

    Raises:
        ModelError: there are no weights among them that could be converted.
        SetupError: torch or sentencepiece is needed and not installed, said before anything is downloaded.
    """
    names = sorted(set(names))
    tensors = weights(names)
    if not tensors:
        message = f"{hub_id}: no {UPSTREAM_WEIGHTS} and no {WEIGHTS_FILE} in it"
        raise ModelError(message, "name the repository of a checkpoint", code="weights-missing")
    patterns = [pattern.split("/") for pattern in COMMON_FILES | registry.hub_files()]
    others = [name for name in names if _fits(name, patterns)]
    if UPSTREAM_WEIGHTS in tensors:
        require_torch()
        models = [name for name in others if name.endswith(SENTENCEPIECE)]
        if models and TOKENS_FILE not in others:
            require_sentencepiece(f"{hub_id}: {models[0]}")
    return [*others, *tensors]


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


def _fits(name: str, patterns: Iterable[Sequence[str]]) -> bool:
    """Whether a plain name is that of a pattern, folder by folder."""
    parts = name.split("/")
    return all(map(PLAIN.fullmatch, parts)) and any(
        len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern)) for pattern in patterns
    )
