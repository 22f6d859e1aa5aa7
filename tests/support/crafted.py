"""Checkpoints with pickles that torch.save never writes."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from support.damage import Call

NORM = "audio_encoder.tp_norm.weight"  # 32 values


@dataclass
class Storage:
    """What stands for the values of a tensor in a pickle."""

    key: str
    values: int


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


def put_pickle(folder: Path, pickle: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Exchange the pickle in a folder's ``model.pt``, the storages stay."""
    path = folder / "model.pt"
    entries = list(entries_of(path))
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, content in entries:
            archive.writestr(name, pickle if name.endswith("/data.pkl") else content)


def put_tensor(folder: Path, tensor: Call) -> None:
    put_pickle(folder, pickled({NORM: tensor}))
