"""PyTorch's ``model.pt``, looked at before torch reads it and once it has.

torch with ``weights_only=True`` executes nothing, but it inflates what is compressed, allocates what is claimed,
and calls what it knows with any arguments. What is let through here is what `torch.save` writes of tensors.
"""

import io
import pickletools
import re
import struct
import zipfile
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, open_file, quoted, readable
from funasr_cli.errors import ModelError

if TYPE_CHECKING:
    import torch

PICKLE_LIMIT_BYTES = 1 << 24  # of everything but values; a release's has 0.2 MB
DIRECTORY_LIMIT_BYTES = 1 << 24  # of the archive; 0.1 MB
MOST_OPERATIONS = 1_000_000  # about 30 for a tensor
MOST_OBJECTS = 10_000_000  # in anything, each counted as often as it is referred to

PICKLE = "data.pkl"
ARCHIVE_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # before PyTorch 1.6; its MAGIC_NUMBER, pickled
LEGACY_PICKLES = 5  # the magic number, the protocol, the machine, the object, the keys of its storages

# What a dict of tensors is pickled with; all of it is in torch's own list, too.
ALLOWED = re.compile(
    r"collections (OrderedDict|Counter)"
    r"|torch (\w+Storage|Size|device|b?float\d\w*|u?int\d+|complex\d+|bool)"
    r"|torch\.storage UntypedStorage"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|sparse_tensor|meta_tensor_no_storage)"
    r"|torch\.serialization _get_layout"
)
OPERATIONS = frozenset(
    "PROTO STOP MARK GLOBAL REDUCE BUILD BINPERSID APPEND APPENDS SETITEM SETITEMS TUPLE TUPLE1 TUPLE2 TUPLE3 "
    "EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT "
    "BINUNICODE SHORT_BINSTRING BINGET LONG_BINGET BINPUT LONG_BINPUT".split()
)
PROTOCOL = 2  # torch.save's own, which the operations above are those of
PROTOCOL_HINT = f"save it with torch.save's own protocol, {PROTOCOL}"
CODE_HINT = "only plain state dicts are read; nothing in a checkpoint is ever executed"


class _Damaged(Exception):
    """Not what torch.save writes."""


def check_pickle(path: Path) -> None:
    """Refuse what `torch.load` had better not see; no values are read.

    Raises:
        ModelError: it is no checkpoint of PyTorch's, or asks for more than tensors.
    """
    try:
        with open_file(path) as (file, size_bytes):
            head = file.read(len(LEGACY_MAGIC))
            if head.startswith(ARCHIVE_MAGIC):
                _check_objects(io.BytesIO(_archived_pickle(file, size_bytes, path)), 1, path)
            elif head == LEGACY_MAGIC:
                file.seek(0)
                _check_objects(io.BytesIO(file.read(PICKLE_LIMIT_BYTES)), LEGACY_PICKLES, path)
            else:
                raise _Damaged("it begins like none")
    except _Damaged as error:
        raise ModelError(f"{path}: not a PyTorch checkpoint, or damaged ({error})", DAMAGED_HINT) from error


def _archived_pickle(file: BinaryIO, size_bytes: int, path: Path) -> bytes:
    """The pickle in a zip archive in which everything is stored as it is."""
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise ModelError(f"{path}: refused, it is compressed, which torch.save never does", DAMAGED_HINT)
        # torch does not tell capital letters from others.
        pickles = [entry for entry in entries if entry.filename.casefold().rpartition("/")[2] == PICKLE]
        if len(pickles) != 1 or pickles[0].file_size > PICKLE_LIMIT_BYTES:
            raise _Damaged(f"no {PICKLE} of a usual size")
        if sum(entry.file_size for entry in entries) > size_bytes:
            raise _Damaged("entries that overlap")
        return _stored_bytes(file, pickles[0])
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError, struct.error) as error:
        raise _Damaged(readable(str(error))) from error


def _check_directory(file: BinaryIO) -> None:
    """See to it that zipfile and torch find the same directory: right before the records that end the archive."""
    end = file.seek(-22, io.SEEK_END)
    signature, *_, size_bytes, begin, comment_bytes = struct.unpack("<4s4H2LH", file.read(22))
    if signature != b"PK\x05\x06" or comment_bytes:
        raise _Damaged("no end of an archive")
    if end >= 20:  # perhaps the same in 64 bits, behind a locator
        file.seek(end - 20)
        locator, _, long_end, _ = struct.unpack("<4sLQL", file.read(20))
        if locator == b"PK\x06\x07":
            file.seek(long_end)
            *_, size_bytes, begin = struct.unpack("<4sQ2H2L4Q", file.read(56))
            end = long_end
    if begin + size_bytes != end or size_bytes > DIRECTORY_LIMIT_BYTES:
        raise _Damaged("no directory of an archive")


def _stored_bytes(file: BinaryIO, entry: zipfile.ZipInfo) -> bytes:
    """Read past zipfile, which insists on checksums that torch can be told to leave out."""
    file.seek(entry.header_offset)
    *_, name_bytes, extra_bytes = struct.unpack("<4s5H3L2H", file.read(30))
    file.seek(name_bytes + extra_bytes, io.SEEK_CUR)
    return file.read(entry.file_size)


def _check_objects(stream: io.BytesIO, pickles: int, path: Path) -> None:
    """Follow the pickles without building anything.

    Each thing on the stack is known by the objects in it alone: a tuple of tuples of tuples, each written once and
    referred to twice, would keep whoever hashes it busy for ever.
    """
    for _ in range(pickles):
        stack: list[int | None] = []  # None is a mark
        memo: dict[int, int | None] = {}
        protocol: Any = 0
        try:
            for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
                if number >= MOST_OPERATIONS:
                    raise _Damaged("its pickle is too long")
                protocol = argument if operation.name == "PROTO" else protocol
                _check_operation(operation.name, argument, protocol, path)
                _follow(operation, argument, stack, memo)
        except (ValueError, KeyError, IndexError) as error:
            raise _Damaged("its pickle is cut short or changed") from error


def _check_operation(name: str, argument: Any, protocol: int, path: Path) -> None:
    if name not in OPERATIONS:
        if protocol > PROTOCOL:
            raise ModelError(f"{path}: saved with pickle protocol {protocol}", PROTOCOL_HINT)
        raise _Damaged(f"operation {name}")
    if name == "GLOBAL" and not ALLOWED.fullmatch(str(argument)):
        raise ModelError(
            f"{path}: refused, it asks for {_as_written(str(argument))}, which is not a tensor", CODE_HINT
        )


def _as_written(name: str) -> str:
    """``module name`` as ``module.name``; Python 2 called some modules otherwise, and so do pickles."""
    module, _, rest = name.partition(" ")
    dotted = f"{IMPORT_MAPPING.get(module, module)}.{rest}"
    return dotted if re.fullmatch(r"[\w.]{1,100}", dotted) else quoted(dotted)


def _follow(operation: Any, argument: Any, stack: list[int | None], memo: dict[int, int | None]) -> None:
    """What an operation of `pickletools` does to the stack."""
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
            raise _Damaged("it refers to itself too often")
        if operation.stack_after:
            stack.append(objects)


def check_storages(path: Path, tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Refuse tensors that claim more than the file holds, or say the same bytes more than once.

    Raises:
        ModelError: naming the first, or the sum.
    """
    storages: dict[int, int] = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise ModelError(
                f"{path}: {name} of shape {tuple(tensor.shape)} has only {storage.nbytes():,} bytes", DAMAGED_HINT
            )
    _check_sum(path, storages.values())


def _check_sum(path: Path, sizes_bytes: Iterable[int]) -> None:
    claimed, size_bytes = sum(sizes_bytes), path.stat().st_size
    if claimed > size_bytes:
        raise ModelError(f"{path}: its tensors claim {claimed:,} bytes of {size_bytes:,}", DAMAGED_HINT)
