"""Read PyTorch's ``model.pt`` safely: check the file, load it without executing code, and check the result.

``torch.load(weights_only=True)`` alone is not safe for an untrusted file. torch decompresses archives, reads files
in the old format into memory, and calls the functions it knows with any arguments: ``codecs.encode`` nested 40
times turns one byte into a terabyte. Hashing 60 nested tuples, each referenced twice, practically never ends. The
result may not be a tensor, or may be a tensor with more values than the file holds.
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
from funasr_cli.extras import to_add

if TYPE_CHECKING:
    import torch

LEGACY_LIMIT_BYTES = 4 << 30  # limit for files written before PyTorch 1.6, which cannot be memory-mapped
LEGACY_PICKLES = 5  # magic number, protocol, machine, object, keys of its storages
PICKLE_LIMIT_BYTES = 1 << 22  # limit for everything except values; 0.2 MB in the release
MOST_OBJECTS = 10_000_000  # limit for the objects inside one object, counted once per reference
PICKLE = "data.pkl"
ARCHIVE_MAGIC = b"PK\x03\x04"
# Globals that a pickled tensor needs. All of them are on torch's own list of safe globals.
ALLOWED = re.compile(
    r"collections (OrderedDict|Counter)"
    r"|torch (\w+Storage|Size|device|b?float\d\w*|u?int\d+|complex\d+|bool)"
    r"|torch\.storage UntypedStorage"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|sparse_tensor|meta_tensor_no_storage)"
    r"|torch\.serialization _get_layout"
)

CONTAINERS = ("state_dict", "model_state_dict", "model")  # keys under which training scripts store the tensors
# Parts of tensor names left by PyTorch's DistributedDataParallel, torch.compile and PEFT.
WRAPPERS = re.compile(r"^module\.|(?<![^.])(_orig_mod|base_model\.model|base_layer)\.")

READING = "reading"
NO_TORCH_NEEDED = "safetensors, as in most repositories in Transformers' layout, do not need torch"
CODE_HINT = "only plain state dicts are supported; code in a checkpoint is never executed"


def require_torch(file: str, doing: str = READING) -> None:
    """Fail early with a `SetupError`, naming the file and the purpose, if torch is missing."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        hint = f"{to_add('convert')}; {NO_TORCH_NEEDED}" if doing == READING else to_add("convert")
        raise SetupError(f"{doing} {file} needs torch", hint, code="package-missing") from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors, by name, in a file written by `torch.save`. The file is memory-mapped if possible.

    Raises:
        ModelError: the file is damaged, or contains something other than tensors.
    """
    import torch

    content = _load(path)
    # A training script may nest the tensors under one key, and its checkpoint manager under another.
    for _ in CONTAINERS:
        content = next((content[key] for key in CONTAINERS if isinstance(content.get(key), dict)), content)
        content = dict(dict.items(content))  # attributes of an OrderedDict may shadow its methods
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            what = f"not a state dict ({quoted(name)} is a {type(value).__name__})"
            raise ModelError(f"{path}: {what}", code="model-damaged")
        if fault := _fault(value):
            raise ModelError(f"{path}: {quoted(name)} is {fault}", DAMAGED_HINT, code="model-damaged")
    tensors = {WRAPPERS.sub("", str(name)): _tensor(value) for name, value in content.items()}
    if len(tensors) < len(content):
        raise ModelError(f"{path}: has tensors both with and without a wrapper's prefix", code="model-damaged")
    return presentable(tensors, path)


def _load(path: Path) -> dict[Any, Any]:
    import torch

    try:
        mapped = _check_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; unreadable files raise an error below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except ModelError:
        raise
    except Exception as error:  # the parsers may raise any exception on a damaged file
        what = f"not a PyTorch checkpoint, or damaged ({type(error).__name__})"
        raise ModelError(f"{path}: {what}", DAMAGED_HINT, code="model-damaged") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: contains a {type(content).__name__}, not a state dict", code="model-damaged")
    return dict(dict.items(content))


def _check_file(path: Path) -> bool:
    """Reject a file that is unsafe to load; return whether it is an archive, which can be memory-mapped."""
    with open_file(path) as (file, size_bytes):
        is_archive = file.read(len(ARCHIVE_MAGIC)) == ARCHIVE_MAGIC
        file.seek(0)
        if is_archive:
            _check_pickle(_archived_pickle(zipfile.ZipFile(file), size_bytes, path), 1, path)
        elif size_bytes <= LEGACY_LIMIT_BYTES:
            _check_pickle(file.read(PICKLE_LIMIT_BYTES), LEGACY_PICKLES, path)
        else:
            hint = "load it with torch.load and save it again with torch.save"
            raise ModelError(f"{path}: too large for PyTorch's old format", hint, code="model-unsupported")
    return is_archive


def _archived_pickle(archive: zipfile.ZipFile, size_bytes: int, path: Path) -> bytes:
    """Return the pickle in an archive. Reject compressed or overlapping entries."""
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ModelError(f"{path}: refused: it is compressed, unlike files of torch.save", code="model-unsafe")
    pickles = [entry for entry in entries if entry.filename.rpartition("/")[2] == PICKLE]
    if len(pickles) != 1 or sum(entry.file_size for entry in entries) > size_bytes:
        raise ValueError("entries that overlap, or no single pickle")
    if pickles[0].file_size > PICKLE_LIMIT_BYTES:
        raise ModelError(f"{path}: refused: its {PICKLE} is too large for tensors alone", code="model-unsafe")
    pickles[0].CRC = None  # type: ignore[assignment]  # torch has an option to omit checksums
    return archive.read(pickles[0])


def _check_pickle(content: bytes, pickles: int, path: Path) -> None:
    """Simulate the pickles without building objects, and count the objects in each item on the stack.

    Reject globals that tensors do not need, and objects that refer to themselves too often.
    """
    stream = io.BytesIO(content)
    for _ in range(pickles):
        stack: list[int | None] = []  # None is a mark
        memo: dict[Any, int | None] = {}
        for operation, argument, _ in pickletools.genops(stream):
            if operation.name == "GLOBAL" and not ALLOWED.fullmatch(str(argument)):
                asked = readable(str(argument).replace(" ", "."))
                what = f"refused: it refers to {asked}, which tensors do not need"
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
                    elif kind is not pickletools.markobject:  # already taken with the slice
                        objects += stack.pop() or 0
                if objects > MOST_OBJECTS:
                    raise ValueError("it refers to itself too often")
                if operation.stack_after:
                    stack.append(objects)


def _fault(value: "torch.Tensor") -> str | None:
    """Return why a tensor cannot be read as plain values in the file, or None if it can."""
    import torch

    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        return f"a {value.layout} {value.dtype} tensor on {value.device}"
    steps = zip(value.shape, value.stride(), strict=True)
    last = value.storage_offset() + sum((extent - 1) * stride for extent, stride in steps)
    values = value.untyped_storage().nbytes() // value.element_size()
    if (value.numel() and not 0 <= last < values) or value.numel() > values:
        return f"of shape {quoted(tuple(value.shape))}, but has only {values:,} values"
    return None


def _tensor(value: "torch.Tensor") -> Tensor:
    import torch

    stored = str(value.dtype).removeprefix("torch.")
    is_exotic = value.is_floating_point() and stored not in FLOATING  # float64 above all
    dtype = "float32" if is_exotic else stored

    def read() -> mx.array:
        values = value.detach().resolve_neg()
        values = (values.float() if is_exotic else values).contiguous()
        if dtype == "bfloat16":  # NumPy has no bfloat16
            return mx.array(values.view(torch.int16).numpy()).view(mx.bfloat16)
        return mx.array(values.numpy())

    return Tensor(dtype, tuple(value.shape), read)
