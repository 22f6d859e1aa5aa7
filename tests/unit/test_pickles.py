"""Reading a ``model.pt``: hostile ones execute and write nothing, and take little memory."""

from __future__ import annotations

import builtins
import codecs
import contextlib
import copy
import io
import os
import pickle
import subprocess
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import peak_memory
from support.damage import Call
from support.errors import refused
from support.running import tree

from funasr_cli.checkpoints import pickles
from funasr_cli.checkpoints.pickles import read_state_dict
from funasr_cli.errors import ModelError

NORM = "audio_encoder.tp_norm.weight"  # 32 values


@dataclass
class Storage:
    """The storage of a tensor's values, in a pickle."""

    key: str
    values: int


class Crafted(pickle.Pickler):
    """Writes pickles that torch.save never writes."""

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
    """Replace the pickle in a folder's ``model.pt``; the storages stay."""
    path = folder / "model.pt"
    entries = list(entries_of(path))
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, content in entries:
            archive.writestr(name, pickle if name.endswith("/data.pkl") else content)


def put_tensor(folder: Path, tensor: Call) -> None:
    put_pickle(folder, pickled({NORM: tensor}))


VALUES = {NORM: torch.arange(32.0), "b": torch.ones(2, 3, dtype=torch.bfloat16)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a valid ``model.pt``, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": VALUES}, "model.pt")
    return tmp_path


def assert_refused(folder: Path, code: str, *values: object) -> None:
    """Assert that reading fails with a message of one line, and that nothing is written."""
    before = tree(folder)
    with refused(code, *values) as caught:
        read_state_dict(folder / "model.pt")
    assert tree(folder) == before
    assert caught.value.message.startswith(f"{folder / 'model.pt'}: ")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


# --- accepted pickles ---


class Fooled:
    """An OrderedDict with attributes, whatever their names."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        attributes = dict.fromkeys(("items", "get", "keys", "values", "__iter__", "__getitem__"), 3)
        return OrderedDict, (), attributes, None, iter(self.content.items())


TRAINING = {
    "epoch": 3, "model": {"state_dict": VALUES}, "size": torch.Size([1, 2]), "many": 2**70, "seen": Counter("a"),
    "optimizer": {"state": {0: {"step": torch.tensor(1.0), "betas": (0.9, 0.999)}}, "lr": 1e-4},
    "types": [torch.ones(1, dtype=dtype) for dtype in (torch.bool, torch.uint8, torch.complex64)],
}  # fmt: skip


@pytest.mark.parametrize("content", [
    VALUES, {"model_state_dict": VALUES}, TRAINING, Fooled({"state_dict": Fooled(VALUES)}),
    {f"module.{name}": value for name, value in VALUES.items()},
    {name: torch.nn.Parameter(value) for name, value in VALUES.items()},
    {NORM: torch.arange(32.0).flip(0).flip(0), "b": torch.ones(3, 2, dtype=torch.bfloat16).t()},
    {NORM: -torch.arange(32.0)._neg_view(), "b": VALUES["b"]},
])  # fmt: skip
@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_training_scripts(folder: Path, content: Any, legacy: bool) -> None:
    torch.save(content, "model.pt", _use_new_zipfile_serialization=not legacy)
    found = read_state_dict(folder / "model.pt")
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
        NORM: ("float32", (32,)), "b": ("bfloat16", (2, 3)),
    }  # fmt: skip
    for _ in range(2):  # it can be read repeatedly
        assert found[NORM].read().tolist() == list(range(32))
        assert found["b"].read().tolist() == [[1.0] * 3] * 2


def test_doubles_are_narrowed(folder: Path) -> None:
    torch.save({NORM: torch.tensor([0.1, 1e300], dtype=torch.float64)}, "model.pt")
    assert read_state_dict(folder / "model.pt")[NORM].read().tolist() == [pytest.approx(0.1), float("inf")]


def test_other_archives(folder: Path) -> None:
    """One was written by another program, and one without checksums, which torch supports."""
    put_pickle(folder, next(content for name, content in entries_of(folder / "model.pt") if "data.pkl" in name))
    assert read_state_dict(folder / "model.pt").keys() == VALUES.keys()
    content = (folder / "model.pt").read_bytes()
    with zipfile.ZipFile("model.pt") as archive:
        for entry in archive.infolist():
            content = content.replace(entry.CRC.to_bytes(4, "little"), bytes(4))
    (folder / "model.pt").write_bytes(content)
    assert read_state_dict(folder / "model.pt").keys() == VALUES.keys()


# --- hostile calls ---


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Call(os.system, "touch executed"), "system"),
        (Call(subprocess.check_output, ["touch", "executed"]), "check_output"),
        (Call(builtins.exec, "open('executed', 'w')"), "exec"),
        (Call(builtins.getattr, "os", "system"), "getattr"),
        (Call(torch.load, "other.pt"), "torch.serialization.load"),
        (Call(torch.hub.load_state_dict_from_url, "http://127.0.0.1:9/a"), "load_state_dict_from_url"),
        (Call(torch.Tensor, 1 << 40), "torch.Tensor"),
        (Call(bytearray, 1 << 40), "bytearray"),
        (Call(codecs.encode, b"aa", "hex"), "_codecs.encode"),
        (Call(torch._utils._rebuild_wrapper_subclass, torch.Tensor), "_rebuild_wrapper_subclass"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("legacy", [False, True])
def test_calls(folder: Path, call: Call, name: str, legacy: bool) -> None:
    """All calls except those that make tensors are refused, harmless or not."""
    torch.save({"state_dict": {NORM: call}}, "model.pt", _use_new_zipfile_serialization=not legacy)
    assert_refused(folder, "model-unsafe", name)
    assert not (folder / "executed").exists()


def doubled(times: int) -> bytes:
    """Return a dict whose keys are nested tuples: each is stored once and used twice in the next."""
    return b"\x80\x02}(K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * times + b"K\x01u."


def encoded(times: int) -> bytes:
    """Return a text that is encoded again and again, doubling its length each time."""
    text: Any = b"a"
    for _ in range(times):
        text = Call(codecs.encode, text, "hex")
    return pickled({NORM: text})


PICKLES = {
    "a space": b"\x80\x02cos\na b\n.", "a terminal's": b"\x80\x02cos\n\x1b[2J\n.",
    "no UTF-8": b"\x80\x02cos\n\xff\n.", "a long name": b"\x80\x02cos\n" + b"a" * 100_000 + b"\n.",
    "tuples": doubled(60), "text": encoded(40), "marks": b"\x80\x02" + b"(" * 1_000_000, "nothing": b"",
    "no end": b"\x80\x02}", "large": bytes((1 << 22) + 1), "protocol 5": pickle.dumps({"a": 1}, protocol=5),
    "names": pickle.dumps({"a\nb": 1}, protocol=2), "list": pickle.dumps([1], protocol=2),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "marks" else []) for name in PICKLES]
)
def test_pickles(folder: Path, name: str) -> None:
    put_pickle(folder, PICKLES[name])
    is_unsafe = name in ("a space", "a terminal's", "a long name", "text", "large")
    assert_refused(folder, "model-unsafe" if is_unsafe else "model-damaged")


# --- false sizes ---

HUGE = 1 << 40
CLAIMS = [
    tensor_of(Storage("0", HUGE), 0, (HUGE,), (1,)), tensor_of(Storage("0", 4), 0, (HUGE,), (1,)),
    tensor_of(Storage("0", 4), HUGE, (4,), (1,)), tensor_of(Storage("0", 4), -1, (4,), (1,)),
    tensor_of(Storage("0", 4), 0, (4,), (-1,)), tensor_of(Storage("0", 4), 0, (-4,), (1,)),
    tensor_of(Storage("0", 4), 0, (2, 2), (1 << 62, 1 << 62)),
    tensor_of(Storage("0", 4), 0, (1 << 62, 8), (0, 0)), tensor_of(Storage("0", -4), 0, (4,), (1,)),
    tensor_of(Storage("none", 4), 0, (4,), (1,)), tensor_of(Storage("../version", 4), 0, (4,), (1,)),
    tensor_of(Storage("0", 4), 0, (1 << 20, 1 << 20), (0, 0)), tensor_of(Storage("0", 4), 0, (8,), (0,)),
]  # fmt: skip


@pytest.mark.parametrize("tensor", CLAIMS)
def test_tensors_larger_than_their_storage(folder: Path, tensor: Call) -> None:
    put_tensor(folder, tensor)
    assert_refused(folder, "model-damaged")


def test_a_large_file_in_the_old_format(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be read into memory completely."""
    torch.save(VALUES, "model.pt", _use_new_zipfile_serialization=False)
    monkeypatch.setattr(pickles, "LEGACY_LIMIT_BYTES", 100)
    assert_refused(folder, "model-unsupported", "torch.save")


# --- damaged files ---


def test_entries_that_overlap(folder: Path) -> None:
    """The same bytes may be listed several times."""
    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickled({}))
        archive.writestr("a/data/0", bytes(10_000))
        for number in range(20):
            entry = copy.copy(archive.getinfo("a/data/0"))
            entry.filename = f"a/data/{number + 1}"
            archive.filelist.append(entry)
    assert_refused(folder, "model-damaged")


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from([0.01, 0.5, 0.999, 1.0]),
    st.booleans(),
)
def test_damaged_files_never_raise_anything_else(
    folder: Path, changes: list[tuple[int, int]], kept: float, legacy: bool
) -> None:
    torch.save(VALUES, "model.pt", _use_new_zipfile_serialization=not legacy)
    content = bytearray((folder / "model.pt").read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    (folder / "model.pt").write_bytes(content[: int(len(content) * kept)])
    with contextlib.suppress(ModelError):  # many changed bytes do no harm
        for tensor in read_state_dict(folder / "model.pt").values():
            tensor.read()


REFUSE = """
from pathlib import Path
from funasr_cli.checkpoints.pickles import read_state_dict
from funasr_cli.errors import ModelError

def use(path):
    try:
        return len(read_state_dict(Path(path)))
    except ModelError:
        return 0
"""


def test_the_memory_that_refusals_take(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each of these would take gigabytes or never end."""
    changes: list[Callable[[Path], None]] = [
        lambda hostile: put_pickle(hostile, bytes(1 << 29), zipfile.ZIP_DEFLATED),
        lambda hostile: put_tensor(hostile, tensor_of(Storage("0", 1 << 33), 0, (1 << 33,), (1,))),
        lambda hostile: put_tensor(hostile, tensor_of(Storage("0", 4), 0, (1 << 17, 1 << 17), (0, 0))),
        lambda hostile: put_pickle(hostile, doubled(60)),
        lambda hostile: put_pickle(hostile, encoded(40)),
        lambda hostile: put_pickle(hostile, b"\x80\x02" + b"(" * ((1 << 22) - 2)),
    ]
    paths = [folder / "model.pt"]
    for change in changes:
        hostile = tmp_path_factory.mktemp("hostile")
        (hostile / "model.pt").write_bytes(paths[0].read_bytes())
        change(hostile)
        paths.append(hostile / "model.pt")
    counts, peaks_mib = zip(*peak_memory.after_each(paths, REFUSE), strict=True)
    assert counts == (2, *(0 for _ in changes))
    assert peaks_mib[-1] - peaks_mib[0] < 200
