"""PyTorch's ``model.pt``: `torch.load` reads it without executing anything; what goes in and comes out is checked.

``weights_only=True`` is not enough for a file from anybody. torch inflates what is compressed, reads older files
whole, calls what it knows with any arguments (``codecs.encode`` nested 40 times makes a terabyte of a byte) and
hashes tuples of tuples (60 within each other, each written once and referred to twice, keep it busy for ever). And
what it builds may be no tensor, or one of more values than there are.
"""

import io
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funasr_cli.checkpoints.tensors import FLOATING, Tensor, presentable
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, open_file, quoted, readable
from funasr_cli.compute.backend import mx
from funasr_cli.errors import ModelError, SetupError

if TYPE_CHECKING:
    import torch

LEGACY_LIMIT_BYTES = 4 << 30  # of files from before PyTorch 1.6, which cannot be mapped
LEGACY_PICKLES = 5  # the magic number, the protocol, the machine, the object, the keys of its storages
PICKLE_LIMIT_BYTES = 1 << 22  # of everything but values; a release's has 0.2 MB
MOST_OBJECTS = 10_000_000  # in anything, each counted as often as it is referred to
PICKLE = "data.pkl"
ARCHIVE_MAGIC = b"PK\x03\x04"
# What tensors are pickled with; all of it is in torch's own list, too.
ALLOWED = re.compile(
    r"collections (OrderedDict|Counter)"
    r"|torch (\w+Storage|Size|device|b?float\d\w*|u?int\d+|complex\d+|bool)"
    r"|torch\.storage UntypedStorage"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|sparse_tensor|meta_tensor_no_storage)"
    r"|torch\.serialization _get_layout"
)

CONTAINERS = ("state_dict", "model_state_dict", "model")  # keys under which training scripts wrap the tensors
# What PyTorch's DistributedDataParallel and compile, and PEFT, leave in the names of the tensors that they wrap.
WRAPPERS = re.compile(r"^module\.|(?<![^.])(_orig_mod|base_model\.model|base_layer)\.")

READING = "reading"
INSTALL_TORCH = "pip install torch; on Linux, --index-url https://download.pytorch.org/whl/cpu spares you CUDA"
TORCH_HINT = f"{INSTALL_TORCH}; the -hf repositories, in Transformers' layout, do without"
CODE_HINT = "only plain state dicts are read; nothing in a checkpoint is ever executed"


def require_torch(doing: str = READING) -> None:
    """Say early, as a `SetupError`, that torch is missing; and what it is needed for."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        hint = TORCH_HINT if doing == READING else INSTALL_TORCH
        raise SetupError(f"{doing} model.pt needs torch", hint, code="package-missing") from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors in a file that `torch.save` wrote, by name; where it can be mapped, their values stay in it.

    Raises:
        ModelError: it is damaged, or holds anything but tensors.
    """
    import torch

    content = _load(path)
    # A training script wraps the tensors once, its checkpoint manager perhaps once more.
    for _ in CONTAINERS:
        content = next((content[key] for key in CONTAINERS if isinstance(content.get(key), dict)), content)
        content = dict(dict.items(content))  # attributes of an OrderedDict can stand in for its methods
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            what = f"not a state dict ({quoted(name)} is a {type(value).__name__})"
            raise ModelError(f"{path}: {what}", code="model-damaged")
        if fault := _fault(value):
            raise ModelError(f"{path}: {quoted(name)} is {fault}", DAMAGED_HINT, code="model-damaged")
    tensors = {WRAPPERS.sub("", str(name)): _tensor(value) for name, value in content.items()}
    if len(tensors) < len(content):
        raise ModelError(f"{path}: holds tensors both with and without a wrapper's prefix", code="model-damaged")
    return presentable(tensors, path)


def _load(path: Path) -> dict[Any, Any]:
    import torch

    try:
        mapped = _check_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read is refused below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except ModelError:
        raise
    except Exception as error:  # on damaged files the parsers raise whatever they stumbled over
        what = f"not a PyTorch checkpoint, or damaged ({type(error).__name__})"
        raise ModelError(f"{path}: {what}", DAMAGED_HINT, code="model-damaged") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: holds a {type(content).__name__}, not a state dict", code="model-damaged")
    return dict(dict.items(content))


def _check_file(path: Path) -> bool:
    """Refuse what torch had better not see; whether it is an archive, which can be mapped."""
    with open_file(path) as (file, size_bytes):
        is_archive = file.read(len(ARCHIVE_MAGIC)) == ARCHIVE_MAGIC
        file.seek(0)
        if is_archive:
            _check_pickle(_archived_pickle(zipfile.ZipFile(file), size_bytes, path), 1, path)
        elif size_bytes <= LEGACY_LIMIT_BYTES:
            _check_pickle(file.read(PICKLE_LIMIT_BYTES), LEGACY_PICKLES, path)
        else:
            hint = "load it with torch.load and save it anew with torch.save"
            raise ModelError(f"{path}: too large for PyTorch's old format", hint, code="model-unsupported")
    return is_archive


def _archived_pickle(archive: zipfile.ZipFile, size_bytes: int, path: Path) -> bytes:
    """The pickle in an archive in which everything is stored as it is, and once."""
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ModelError(f"{path}: refused, it is compressed, which torch.save never does", code="model-unsafe")
    pickles = [entry for entry in entries if entry.filename.rpartition("/")[2] == PICKLE]
    if len(pickles) != 1 or sum(entry.file_size for entry in entries) > size_bytes:
        raise ValueError("entries that overlap, or no single pickle")
    if pickles[0].file_size > PICKLE_LIMIT_BYTES:
        raise ModelError(f"{path}: refused, its {PICKLE} is too large for tensors alone", code="model-unsafe")
    pickles[0].CRC = None  # type: ignore[assignment]  # torch can be told to leave checksums out
    return archive.read(pickles[0])


def _check_pickle(content: bytes, pickles: int, path: Path) -> None:
    """Follow the pickles without building anything: of each thing on the stack, only the objects in it count."""
    stream = io.BytesIO(content)
    for _ in range(pickles):
        stack: list[int | None] = []  # None is a mark
        memo: dict[Any, int | None] = {}
        for operation, argument, _ in pickletools.genops(stream):
            if operation.name == "GLOBAL" and not ALLOWED.fullmatch(str(argument)):
                asked = readable(str(argument).replace(" ", "."))
                what = f"refused, it asks for {asked}, which is not a tensor"
                raise ModelError(f"{path}: {what}", CODE_HINT, code="model-unsafe")
            if operation.name == "MARK":
                stack.append(None)
            elif operation.name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif operation.name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            else:
                objects = 1
                for kind in reversed(operation.stack_before):
                    if kind is pickletools.stackslice:
                        while (taken := stack.pop()) is not None:
                            objects += taken
                    elif kind is not pickletools.markobject:  # which went with the slice
                        objects += stack.pop() or 0
                if objects > MOST_OBJECTS:
                    raise ValueError("it refers to itself too often")
                if operation.stack_after:
                    stack.append(objects)


def _fault(value: "torch.Tensor") -> str | None:
    """Say why a tensor cannot be read as plain values in the file; None where it can."""
    import torch

    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        return f"a {value.layout} {value.dtype} tensor on {value.device}"
    steps = zip(value.shape, value.stride(), strict=True)
    last = value.storage_offset() + sum((extent - 1) * stride for extent, stride in steps)
    values = value.untyped_storage().nbytes() // value.element_size()
    if (value.numel() and not 0 <= last < values) or value.numel() > values:
        return f"of shape {quoted(tuple(value.shape))}, but there are only {values:,} values"
    return None


def _tensor(value: "torch.Tensor") -> Tensor:
    import torch

    stored = str(value.dtype).removeprefix("torch.")
    is_exotic = value.is_floating_point() and stored not in FLOATING  # float64 above all
    dtype = "float32" if is_exotic else stored

    def read() -> mx.array:
        values = value.detach().resolve_neg()
        values = (values.float() if is_exotic else values).contiguous()
        if dtype == "bfloat16":  # which NumPy does not know
            return mx.array(values.view(torch.int16).numpy()).view(mx.bfloat16)
        return mx.array(values.numpy())

    return Tensor(dtype, tuple(value.shape), read)
