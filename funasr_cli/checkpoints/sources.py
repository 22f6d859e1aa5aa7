"""Readers of the layouts people have. Each gives a config and a lazy (name -> tensor) view."""

import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE, TOKENIZER_FILE, read_json
from funasr_cli.checkpoints.upstream import nano_config
from funasr_cli.errors import ModelError, SetupError
from funasr_cli.models.fun_asr_nano import FunASRNanoConfig

if TYPE_CHECKING:
    import torch

WEIGHTS_FILE = "model.pt"
CONFIG_FILE = "config.yaml"
OPTIONAL_TOKENIZER_FILES = ("tokenizer_config.json", "vocab.json", "merges.txt", "generation_config.json")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        tensors: names as in the model, values mapped from disk and not read yet.
        files: files to take over as they are, under these names.
        weights: the file that holds the tensors.
    """

    config: FunASRNanoConfig
    tensors: Mapping[str, "torch.Tensor"]
    files: Mapping[str, Path]
    weights: Path


def open_upstream(folder: Path, languages: tuple[str, ...]) -> Checkpoint:
    """Open a folder in FunASR's layout: ``model.pt``, ``config.yaml``, the decoder's folder.

    Raises:
        ModelError: something is missing, damaged, hostile or not supported.
        SetupError: torch is not installed.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: no {name} in it", "this is not a checkpoint in FunASR's layout")
    options = _read_yaml(folder / CONFIG_FILE)
    llm_folder = _llm_folder(folder, options)
    tensors = _read_tensors(folder / WEIGHTS_FILE)
    config = nano_config(
        options, read_json(llm_folder / "config.json"), ctc=keymap.has_ctc(tensors), languages=languages
    )
    return Checkpoint(config, tensors, _files(folder, llm_folder, config), folder / WEIGHTS_FILE)


def sha256_of(path: Path, progress: Callable[[int], None]) -> str:
    """Hex digest of a file; ``progress`` is told the bytes read since it was last called."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    if not isinstance(options, dict):
        raise ModelError(f"{path}: not a mapping")
    return options


def _llm_folder(folder: Path, options: dict[str, Any]) -> Path:
    """The decoder's folder; upstream trains with absolute paths, so that only the last part counts."""
    stated = (options.get("llm_conf") or {}).get("init_param_path")
    if not isinstance(stated, str) or Path(stated).name in ("", ".", ".."):
        raise ModelError(f"{folder / CONFIG_FILE}: llm_conf.init_param_path does not name the decoder's folder")
    llm_folder = folder / Path(stated).name
    for name in ("config.json", TOKENIZER_FILE):
        if not (llm_folder / name).is_file():
            raise ModelError(f"{llm_folder / name}: missing", "copy it from the decoder's own repository")
    return llm_folder


def _files(folder: Path, llm_folder: Path, config: FunASRNanoConfig) -> dict[str, Path]:
    files = {TOKENIZER_FILE: llm_folder / TOKENIZER_FILE}
    files |= {name: llm_folder / name for name in OPTIONAL_TOKENIZER_FILES if (llm_folder / name).is_file()}
    if config.ctc is not None:
        if not (folder / CTC_VOCABULARY_FILE).is_file():
            raise ModelError(
                f"{folder / CTC_VOCABULARY_FILE}: missing", "the CTC branch cannot be read without it"
            )
        files[CTC_VOCABULARY_FILE] = folder / CTC_VOCABULARY_FILE
    return files


def _read_tensors(path: Path) -> dict[str, "torch.Tensor"]:
    try:
        import torch
    except ImportError as error:
        raise SetupError("converting needs torch", "pip install 'funasr-cli[convert]'") from error
    try:
        content = _load_pickle(path)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: refused, it asks for more than tensors ({str(error).splitlines()[0]})",
            "only plain state dicts are read; nothing in a checkpoint is ever executed",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: not a PyTorch checkpoint, or cut short ({error})") from error
    while wrapped := next((content[key] for key in keymap.CONTAINERS if isinstance(content.get(key), dict)), None):
        content = wrapped
    tensors = {keymap.strip_wrapper(str(name)): value for name, value in content.items()}
    if strangers := [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]:
        raise ModelError(f"{path}: not a state dict ({', '.join(strangers[:5])})")
    return tensors


def _load_pickle(path: Path) -> dict[str, Any]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        content = torch.load(path, map_location="cpu", weights_only=True)  # written before PyTorch 1.6
    if not isinstance(content, dict):
        raise ModelError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content
