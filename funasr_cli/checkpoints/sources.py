"""Readers of the layouts people have. Each gives a config and a lazy (name -> tensor) view."""

import hashlib
import importlib.util
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE, TOKENIZER_FILE
from funasr_cli.checkpoints.headers import is_tensor_name
from funasr_cli.checkpoints.pickles import CODE_HINT, check_pickle, check_storages
from funasr_cli.checkpoints.untrusted import quoted, read_json, read_yaml
from funasr_cli.checkpoints.upstream import nano_config, section
from funasr_cli.errors import ModelError, SetupError
from funasr_cli.models.fun_asr_nano import FunASRNanoConfig

if TYPE_CHECKING:
    import torch

UPSTREAM_WEIGHTS = "model.pt"
UPSTREAM_CONFIG = "config.yaml"
OPTIONAL_TOKENIZER_FILES = ("tokenizer_config.json", "vocab.json", "merges.txt", "generation_config.json")
ASKED_FOR_CODE = re.compile(r"GLOBAL ([\w.]+)")  # in torch's message about a pickle with more than tensors in it


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
    for name in (UPSTREAM_CONFIG, UPSTREAM_WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: no {name} in it", "this is not a checkpoint in FunASR's layout")
    options = read_yaml(folder / UPSTREAM_CONFIG)
    llm_folder = _llm_folder(folder, options)
    tensors = _read_tensors(folder / UPSTREAM_WEIGHTS)
    config = nano_config(
        options, read_json(llm_folder / "config.json"), ctc=keymap.has_ctc(tensors), languages=languages
    )
    return Checkpoint(config, tensors, _files(folder, llm_folder, config), folder / UPSTREAM_WEIGHTS)


def _lacks_torch() -> SetupError:
    without_cuda = "--index-url https://download.pytorch.org/whl/cpu"
    return SetupError("converting needs torch", f"pip install torch; on Linux, {without_cuda} spares you CUDA")


def require_torch() -> None:
    """Say early that torch is missing.

    Raises:
        SetupError: it is.
    """
    if importlib.util.find_spec("torch") is None:
        raise _lacks_torch()


def sha256_of(path: Path, progress: Callable[[int], None]) -> str:
    """Hex digest of a file; ``progress`` is told the bytes read since it was last called."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def _llm_folder(folder: Path, options: dict[str, Any]) -> Path:
    """The decoder's folder; upstream trains with absolute paths, so that only the last part counts."""
    stated = section(options, "llm_conf").get("init_param_path")
    if not isinstance(stated, str) or Path(stated).name in ("", ".", ".."):
        raise ModelError(
            f"{folder / UPSTREAM_CONFIG}: llm_conf.init_param_path does not name the decoder's folder"
        )
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
    content = _plain(_load_pickle(path))
    # A training script wraps the tensors once, its checkpoint manager perhaps once more.
    for _ in keymap.CONTAINERS:
        content = next(
            (_plain(content[key]) for key in keymap.CONTAINERS if isinstance(content.get(key), dict)), content
        )
    tensors = {keymap.strip_wrapper(str(name)): value for name, value in content.items()}
    if len(tensors) < len(content):
        raise ModelError(f"{path}: holds tensors both with and without the prefix {keymap.WRAPPER_PREFIX}")
    import torch

    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"{path}: not a state dict ({name!r} is a {type(value).__name__})")
        if not is_tensor_name(name):
            raise ModelError(f"{path}: {quoted(name)} is no name of a tensor")
        if value.layout != torch.strided or value.device.type != "cpu":
            raise ModelError(f"{path}: {name} is a {value.layout} tensor on {value.device}: not supported")
    check_storages(path, tensors)
    return tensors


def _plain(content: dict[Any, Any]) -> dict[Any, Any]:
    """A copy that is nothing but a dict: attributes of an OrderedDict can stand in for its methods."""
    return dict(dict.items(content))


def _load_pickle(path: Path) -> dict[str, Any]:
    """The object in the file, which `torch.load` builds without executing anything."""
    check_pickle(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read is refused below
            content = _torch_load(path)
    except ImportError as error:
        raise _lacks_torch() from error
    except Exception as error:  # on damaged files torch raises whatever its parser stumbled over
        if found := ASKED_FOR_CODE.search(str(error)):
            raise ModelError(
                f"{path}: refused, it asks for {found[1]}, which is not a tensor",
                CODE_HINT,
            ) from error
        raise ModelError(
            f"{path}: not a PyTorch checkpoint, or damaged ({type(error).__name__})", "copy or download it again"
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def _torch_load(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)  # written before PyTorch 1.6
