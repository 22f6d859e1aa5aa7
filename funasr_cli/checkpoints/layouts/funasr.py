"""FunASR's layout, of releases and fine-tunes: ``model.pt``, ``config.yaml`` and the decoder's folder."""

import importlib.util
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE
from funasr_cli.checkpoints.headers import is_tensor_name
from funasr_cli.checkpoints.layouts.files import OF_THE_DECODER, tokenizer_files
from funasr_cli.checkpoints.pickles import CODE_HINT, check_pickle, check_storages
from funasr_cli.checkpoints.tensors import FLOATING, Tensor, usual_dtype
from funasr_cli.checkpoints.untrusted import file_in, quoted, read_json, readable
from funasr_cli.checkpoints.upstream import MODEL, nano_config, require, section, stated_in
from funasr_cli.errors import ModelError, SetupError

if TYPE_CHECKING:
    import torch


LAYOUT = "FunASR"
UPSTREAM_WEIGHTS = "model.pt"
UPSTREAM_CONFIG = "config.yaml"
NO_CONFIG = f"FunASR writes one beside {UPSTREAM_WEIGHTS}: copy it, or that of the model that was fine-tuned"
NO_WEIGHTS = f"the weights belong beside {UPSTREAM_CONFIG}: copy or download them, too"
READING = "reading"
INSTALL_TORCH = "pip install torch; on Linux, --index-url https://download.pytorch.org/whl/cpu spares you CUDA"
TORCH_HINT = f"{INSTALL_TORCH}; the -hf repositories, in Transformers' layout, do without"
ASKED_FOR_CODE = re.compile(r"GLOBAL ([\w.]+)")  # in torch's message about a pickle with more than tensors in it


def open_funasr(folder: Path, languages: tuple[str, ...]) -> Checkpoint:
    """Open a folder in this layout.

    Raises:
        ModelError: something is missing, damaged, hostile or not supported.
        SetupError: torch is not installed.
    """
    from funasr_cli.checkpoints.plain_yaml import read_yaml

    require_torch()
    path = file_in(folder, UPSTREAM_CONFIG, NO_CONFIG)
    options = read_yaml(path)
    with stated_in(str(path)):
        require(options, "model", MODEL)  # or else what is missing for ours would be said of another model
    weights = file_in(folder, UPSTREAM_WEIGHTS, _instead_of_weights(folder))
    llm_folder = _llm_folder(folder, options)
    llm_path = file_in(folder, f"{llm_folder}/config.json", OF_THE_DECODER)
    llm = read_json(llm_path)
    files = tokenizer_files(folder, folder / llm_folder)
    stored = _read_tensors(weights)
    config = nano_config(
        options,
        llm,
        ctc=keymap.has_ctc(stored),
        languages=languages,
        where=str(path),
        llm_where=str(llm_path),
    )
    if config.ctc is not None:
        files[CTC_VOCABULARY_FILE] = file_in(folder, CTC_VOCABULARY_FILE, "the CTC branch needs it")
    return Checkpoint(
        layout=LAYOUT,
        config=config,
        dtype=usual_dtype(stored),
        tensors=keymap.translate(stored, keymap.FUNASR, str(weights), tied=config.llm.tie_word_embeddings),
        quantization=None,
        files=files,
        weights=(weights,),
        source={},
    )


def _instead_of_weights(folder: Path) -> str:
    """What to do where there are none: upstream's trainer writes ``model.pt.best``, ``model.pt.ep3`` and so on."""
    written = sorted(path.name for path in folder.glob(f"{UPSTREAM_WEIGHTS}.*"))
    best = f"{UPSTREAM_WEIGHTS}.best"
    if not written:
        return NO_WEIGHTS
    found = readable(best if best in written else written[0])
    return f"rename the one you want to {UPSTREAM_WEIGHTS}, as in: mv {found} {UPSTREAM_WEIGHTS}"


def lacks_torch(doing: str = READING) -> SetupError:
    """What to say where torch is missing."""
    return SetupError(f"{doing} {UPSTREAM_WEIGHTS} needs torch", TORCH_HINT if doing == READING else INSTALL_TORCH)


def require_torch(doing: str = READING) -> None:
    """Say early that torch is missing.

    Args:
        doing: what it is needed for.

    Raises:
        SetupError: it is.
    """
    if importlib.util.find_spec("torch") is None:
        raise lacks_torch(doing)


def _llm_folder(folder: Path, options: dict[str, Any]) -> str:
    """Name of the decoder's folder; upstream trains with absolute paths, so that only the last part counts."""
    with stated_in(str(folder / UPSTREAM_CONFIG)):
        stated = section(options, "llm_conf").get("init_param_path")
    if not isinstance(stated, str) or Path(stated).name in ("", ".", ".."):
        raise ModelError(
            f"{folder / UPSTREAM_CONFIG}: llm_conf.init_param_path does not name the decoder's folder"
        )
    return Path(stated).name


def _read_tensors(path: Path) -> dict[str, Tensor]:
    content = _plain(_load_pickle(path))
    # A training script wraps the tensors once, its checkpoint manager perhaps once more.
    for _ in keymap.CONTAINERS:
        content = next(
            (_plain(content[key]) for key in keymap.CONTAINERS if isinstance(content.get(key), dict)), content
        )
    tensors = {str(name).removeprefix(keymap.WRAPPER_PREFIX): value for name, value in content.items()}
    if len(tensors) < len(content):
        raise ModelError(f"{path}: holds tensors both with and without the prefix {keymap.WRAPPER_PREFIX}")
    import torch

    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"{path}: not a state dict ({quoted(name)} is a {type(value).__name__})")
        if not is_tensor_name(name):
            raise ModelError(f"{path}: {quoted(name)} is no name of a tensor")
        if value.layout != torch.strided or value.device.type != "cpu":
            raise ModelError(f"{path}: {name} is a {value.layout} tensor on {value.device}: not supported")
    check_storages(path, tensors)
    return {name: _tensor(value) for name, value in tensors.items()}


def _plain(content: dict[Any, Any]) -> dict[Any, Any]:
    """A copy that is nothing but a dict: attributes of an OrderedDict can stand in for its methods."""
    return dict(dict.items(content))


def _tensor(value: "torch.Tensor") -> Tensor:
    import torch

    stored, shape = str(value.dtype).removeprefix("torch."), tuple(value.shape)
    is_exotic = value.is_floating_point() and stored not in FLOATING  # float64 above all
    dtype = "float32" if is_exotic else stored

    def mapped() -> np.ndarray:
        values = (value.float() if is_exotic else value).contiguous()
        return values.flatten().view(torch.uint8).numpy()

    return Tensor.of_file(dtype, shape, mapped)


def _load_pickle(path: Path) -> dict[str, Any]:
    """The object in the file, which `torch.load` builds without executing anything."""
    check_pickle(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read is refused below
            content = _torch_load(path)
    except ImportError as error:
        raise lacks_torch() from error
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
