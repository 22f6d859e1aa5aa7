"""Open the weights of a folder in Transformers' layout: safetensors, in one file or in shards, or a pickle."""

from pathlib import Path

from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints.pickles import read_state_dict, require_torch
from funasr_cli.checkpoints.tensors import Tensor, open_safetensors
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in, optional_file_in, quoted, read_index
from funasr_cli.checkpoints.values import Options
from funasr_cli.errors import ModelError

PICKLE = "pytorch_model.bin"


def refuse_quantized(content: Options, path: Path) -> None:
    """Raise a `ModelError` if a ``config.json`` states that the weights are quantized for PyTorch."""
    if content.get("quantization_config"):
        message = f"{path}: weights quantized for PyTorch are not supported"
        raise ModelError(message, "convert its unquantized source", code="model-unsupported")


def open_weights(folder: Path) -> tuple[tuple[Path, ...], dict[str, Tensor]]:
    """Open safetensors; return their files (one, or all shards in order) and the tensors."""
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


def open_weights_or_pickle(folder: Path) -> tuple[tuple[Path, ...], dict[str, Tensor]]:
    """Open safetensors, or else `PICKLE`; return files and tensors as `open_weights` does.

    Raises:
        SetupError: torch is needed, but not installed.
    """
    if any((folder / name).exists() for name in (files.WEIGHTS_FILE, files.INDEX_FILE)):
        return open_weights(folder)
    path = file_in(folder, PICKLE, f"the folder has neither {files.WEIGHTS_FILE} nor {PICKLE}")
    require_torch(PICKLE)
    return (path,), read_state_dict(path)
