"""Open the weights of a folder in Transformers' layout: safetensors, in one file or in shards."""

from pathlib import Path

from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints.tensors import Tensor, open_safetensors
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in, optional_file_in, quoted, read_index
from funasr_cli.errors import ModelError


def open_weights(folder: Path) -> tuple[tuple[Path, ...], dict[str, Tensor]]:
    """Open the weights; return their files (one, or all shards in order) and the tensors."""
    index = optional_file_in(folder, files.INDEX_FILE)
    listed = read_index(index) if index else {}
    names = sorted(set(listed.values())) or [files.WEIGHTS_FILE]
    weights = tuple(file_in(folder, name, DAMAGED_HINT) for name in names)
    tensors: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    for path in weights:
        found = open_safetensors(path)
        if twice := tensors.keys() & found.keys():
            raise ModelError(f"{path}: {min(twice)} is also in another shard", DAMAGED_HINT, code="model-damaged")
        tensors |= found
        places |= dict.fromkeys(found, path.name)
    if index and (wrong := places.items() ^ listed.items()):
        message = f"{index}: the entry of {quoted(min(wrong)[0])} does not match the shards"
        raise ModelError(message, DAMAGED_HINT, code="model-damaged")
    return weights, tensors
