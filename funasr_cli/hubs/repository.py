"""Choice of the files in a hub repository that belong to a checkpoint, the same for both hubs."""

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

Report = Callable[[int, int], None]  # called with bytes fetched and bytes in total

# Files of every family; `registry.hub_files` has what each family needs in addition.
COMMON_FILES = {CONFIG_FILE, UPSTREAM_CONFIG, PLACES_FILE, INDEX_FILE, README_FILE}
PLAIN = re.compile(r"\w[\w.+-]*")  # a file or folder name that is neither hidden nor leads upwards
PICKLED = (".pt", ".bin")  # torch reads them
SHARD = re.compile(r"model-\d{5}-of-(\d{5})\.safetensors")


@dataclass(frozen=True)
class CheckpointFolder:
    """A checkpoint on disk. A local folder has neither revision nor hub."""

    folder: Path
    name: str  # hub id, or the folder's name
    revision: str | None  # commit; a branch or tag if the hub does not say which commit that is
    hub: Hub | None = None  # the hub it came from


def wanted(hub_id: str, names: Iterable[str]) -> list[str]:
    """Choose the files to fetch: configuration, vocabularies and weights; never audio, ONNX or code.

    Raises:
        ModelError: the repository has no weights that can be converted.
        SetupError: torch or sentencepiece is needed and not installed. This is raised before any download.
    """
    names = sorted(set(names))
    tensors = weights(names)
    if not tensors:
        message = f"{hub_id}: has neither {UPSTREAM_WEIGHTS} nor {WEIGHTS_FILE}"
        raise ModelError(message, "name the repository of a checkpoint", code="weights-missing")
    patterns = [pattern.split("/") for pattern in COMMON_FILES | registry.hub_files()]
    others = [name for name in names if _fits(name, patterns)]
    if pickles := [name for name in tensors if name.endswith(PICKLED)]:
        require_torch(pickles[0])
        models = [name for name in others if name.endswith(SENTENCEPIECE)]
        if models and TOKENS_FILE not in others:
            require_sentencepiece(f"{hub_id}: {models[0]}")
    return [*others, *tensors]


def weights(names: Collection[str]) -> list[str]:
    """Return the files of one set of weights.

    If there is a ``config.json``, safetensors are preferred to ``model.pt``, because they need no unpickling.
    """
    tensors = [WEIGHTS_FILE] if WEIGHTS_FILE in names else sorted(filter(SHARD.fullmatch, names))
    pickled = [UPSTREAM_WEIGHTS] if UPSTREAM_WEIGHTS in names else []
    chosen = (tensors or pickled) if CONFIG_FILE in names else (pickled or tensors)
    others = [name for name in registry.other_weights() if name in names]
    pickles = [name for name in names if name.endswith(".pt") and "/" not in name]
    return chosen or others[:1] or (pickles if len(pickles) == 1 else [])


def is_complete(folder: Path) -> bool:
    """Return whether a folder has all weights of a checkpoint; a download may have been interrupted."""
    found = weights([path.name for path in folder.iterdir() if path.is_file()])
    shards = [match for match in map(SHARD.fullmatch, found) if match]
    return bool(found) and all(len(shards) == int(match[1]) for match in shards)


def _fits(name: str, patterns: Iterable[Sequence[str]]) -> bool:
    """Return whether a plain name matches one of the patterns, folder by folder."""
    parts = name.split("/")
    return all(map(PLAIN.fullmatch, parts)) and any(
        len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern)) for pattern in patterns
    )
