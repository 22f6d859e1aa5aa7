"""Read NumPy archives (``.npz``) of tensors: type and shape of each array first, its values when needed."""

import math
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from funasr_cli.checkpoints.tensors import Tensor, presentable
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, open_file, quoted, unreadable
from funasr_cli.compute.backend import mx
from funasr_cli.errors import ModelError

SUFFIX = ".npy"
LONGEST_HEADER = 10_000  # bytes; NumPy's own limit


def open_npz(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an archive by name. Nothing is unpickled, and compressed entries are refused.

    Raises:
        ModelError: the file is missing, damaged, or compressed, or an entry's size is not that of its shape.
    """
    found: dict[str, Tensor] = {}
    try:
        with open_file(path) as (file, size_bytes), zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                what = "refused: it is compressed, and its size in memory is unknown"
                raise ModelError(f"{path}: {what}", "save it again with numpy.savez", code="model-unsafe")
            if sum(entry.file_size for entry in entries) > size_bytes:
                raise ValueError("entries that overlap")
            for entry in entries:
                with archive.open(entry) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(stream, max_header_size=LONGEST_HEADER)
                    header_bytes = stream.tell()
                if dtype.hasobject or min(shape, default=0) < 0:
                    raise ValueError(f"{quoted(entry.filename)} is not an array of numbers")
                if header_bytes + math.prod(shape) * dtype.itemsize != entry.file_size:
                    raise ValueError(f"{quoted(entry.filename)} does not have the size that it states")
                name = entry.filename.removesuffix(SUFFIX)
                found[name] = Tensor(str(dtype), tuple(shape), partial(_values, path, entry.filename))
    except ModelError:
        raise
    except Exception as error:  # the parsers may raise any exception on a damaged file
        raise unreadable(path, error, DAMAGED_HINT) from error
    return presentable(found, path)


def _values(path: Path, entry: str) -> mx.array:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(entry) as stream:
            return mx.array(np.lib.format.read_array(stream, allow_pickle=False))
    except Exception as error:  # as above
        raise unreadable(path, error, DAMAGED_HINT) from error
