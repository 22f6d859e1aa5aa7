"""Checkpoints with pickles that torch.save never writes."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

NORM = "audio_encoder.tp_norm.weight"  # 32 values


@dataclass
class Storage:
    """What stands for the values of a tensor in a pickle."""

    key: str
    values: int


class Call:
    """A function that is called by whoever executes the pickle."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


class Crafted(pickle.Pickler):
    """Writes what torch.save never would."""

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        return (
            ("storage", torch.FloatStorage, value.key, "cpu", value.values) if isinstance(value, Storage) else None
        )


def pickled(content: Any) -> bytes:
    buffer = io.BytesIO()
    Crafted(buffer, protocol=2).dump(content)
    return buffer.getvalue()


def tensor_of(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Call:
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, shape, strides, False, OrderedDict())


def entries_of(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        yield from ((entry.filename, archive.read(entry)) for entry in archive.infolist())


def put_pickle(checkpoint: Path, pickle: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Exchange the pickle in its ``model.pt``, the storages stay."""
    path = checkpoint / "model.pt"
    entries = list(entries_of(path))
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, content in entries:
            archive.writestr(name, pickle if name.endswith("/data.pkl") else content)


def put_tensor(checkpoint: Path, tensor: Call) -> None:
    put_pickle(checkpoint, pickled({NORM: tensor}))
