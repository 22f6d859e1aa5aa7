"""A hostile ``model.pt`` is refused in one line; nothing is executed or written, and little memory taken."""

from __future__ import annotations

import builtins
import codecs
import copy
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.crafted import NORM, Call, Storage, entries_of, pickled, put_pickle, put_tensor, tensor_of
from support.small import convert, edit_tensors

from funasr_cli.checkpoints.pickles import check_pickle
from funasr_cli.errors import ModelError

Tensors = dict[str, Any]


def everything_in(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def here(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint in the folder that the process is in."""
    monkeypatch.chdir(checkpoint.parent)
    return checkpoint


def refusal(checkpoint: Path) -> str:
    """What is said of its ``model.pt``, without the path."""
    before = everything_in(checkpoint.parent)
    with pytest.raises(ModelError) as caught:
        convert(checkpoint, checkpoint.parent / "out")
    assert everything_in(checkpoint.parent) == before
    message = caught.value.message
    assert message.isprintable()  # one line, too
    assert message.startswith(f"{checkpoint / 'model.pt'}: ")
    return message.removeprefix(f"{checkpoint / 'model.pt'}: ")


@pytest.mark.parametrize("protocol", [4, 5])
def test_another_pickle_protocol(here: Path, protocol: int) -> None:
    """torch itself reads no other than its own with ``weights_only=True``."""
    path = here / "model.pt"
    torch.save(torch.load(path, weights_only=True), path, pickle_protocol=protocol)
    with pytest.raises(ModelError) as caught:
        check_pickle(path)
    assert caught.value.message == f"{path}: saved with pickle protocol {protocol}"
    assert caught.value.hint == "save it with torch.save's own protocol, 2"


def test_what_torch_saves_is_let_through(here: Path) -> None:
    """As an archive, in the old format, and archived anew by somebody else."""
    content = torch.load("Small-Nano/model.pt", weights_only=True)
    content |= {
        "optimizer": {
            "state": {0: {"step": torch.tensor(1.0), "betas": (0.9, 0.999)}},
            "param_groups": [{"lr": 1e-4}],
        },
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "size": torch.Size([1, 2]),
        "many": 2**70,
        "types": [
            torch.ones(1, dtype=dtype) for dtype in (torch.bool, torch.uint8, torch.complex64, torch.uint16)
        ],
        "module": torch.nn.Linear(2, 2).state_dict(),
    }
    for legacy in (False, True):
        if legacy:
            del content["types"][-1]
        torch.save(content, "Small-Nano/model.pt", _use_new_zipfile_serialization=not legacy)
        check_pickle(here / "model.pt")
        assert convert("Small-Nano", Path(f"out-{legacy}")).tensors > 0


def test_an_archive_written_by_another_program(here: Path) -> None:
    """It has other ends than PyTorch's."""
    for name, content in entries_of(here / "model.pt"):
        if name.endswith("/data.pkl"):
            put_pickle(here, content)
            break
    assert convert(here, here.parent / "out").tensors > 0


# --- what it asks for ---


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Call(os.system, "touch executed"), f"{os.system.__module__}.system"),
        (Call(subprocess.check_output, ["touch", "executed"]), "subprocess.check_output"),
        (Call(builtins.eval, "open('executed', 'w')"), "builtins.eval"),
        (Call(builtins.exec, "open('executed', 'w')"), "builtins.exec"),
        (Call(builtins.getattr, "os", "system"), "builtins.getattr"),
        (Call(torch.load, "other.pt"), "torch.serialization.load"),
        (Call(torch.hub.load_state_dict_from_url, "http://127.0.0.1:9/a"), "torch.hub.load_state_dict_from_url"),
        (Call(torch.Tensor, 1 << 40), "torch.Tensor"),
        (Call(bytearray, 1 << 40), "builtins.bytearray"),
        (Call(codecs.encode, b"aa", "hex"), "_codecs.encode"),
        (Call(torch._utils._rebuild_wrapper_subclass, torch.Tensor), "torch._utils._rebuild_wrapper_subclass"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("legacy", [False, True])
def test_calls(here: Path, call: Call, name: str, legacy: bool) -> None:
    """Of everything but what tensors are made with, harmless or not."""
    torch.save({"state_dict": {NORM: call}}, here / "model.pt", _use_new_zipfile_serialization=not legacy)
    assert refusal(here) == f"refused, it asks for {name}, which is not a tensor"
    assert not (here.parent / "executed").exists()


@pytest.mark.parametrize("name", [b"a b", b"\x1b[2J", b"\xff", b"a" * 100_000, b"os\nsystem"])
def test_names_that_are_none(here: Path, name: bytes) -> None:
    put_pickle(here, b"\x80\x02cos\n" + name + b"\n.")
    said = refusal(here)
    assert said.startswith(("refused, it asks for ", "not a PyTorch checkpoint, or damaged ("))
    assert len(said) < 300


def doubled(times: int) -> bytes:
    """A dict whose keys are tuples of tuples of tuples: each is written once, and stands in the next twice."""
    return b"\x80\x02}(K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * times + b"K\x01u."


def test_tuples_that_would_take_for_ever(here: Path) -> None:
    put_pickle(here, doubled(60))
    assert refusal(here) == "not a PyTorch checkpoint, or damaged (it refers to itself too often)"


class Fooled:
    """An OrderedDict with attributes, which may be called anything."""

    def __init__(self, content: Tensors) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        attributes = dict.fromkeys(("items", "get", "keys", "values", "__iter__", "__getitem__"), 3)
        return OrderedDict, (), attributes, None, iter(self.content.items())


def test_attributes_that_stand_in_for_methods(here: Path) -> None:
    expected = convert(here, here.parent / "expected").folder
    tensors = torch.load(here / "model.pt", weights_only=True)["state_dict"]
    torch.save(Fooled({"state_dict": Fooled(tensors)}), here / "model.pt")
    with pytest.raises(TypeError):
        torch.load(here / "model.pt", weights_only=True).items()
    found = convert(here, here.parent / "found").folder
    before, after = (load_file(folder / "model.safetensors") for folder in (expected, found))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "", "a" * 1000, ("a", "b" * 1000)])
def test_names_of_tensors(here: Path, name: Any) -> None:
    edit_tensors(here, lambda tensors: tensors.update({name: torch.ones(1)}))
    assert refusal(here).endswith(" is no name of a tensor")


# --- what it claims ---

HUGE = 1 << 40


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (tensor_of(Storage("0", HUGE), 0, (HUGE,), (1,)), "damaged"),
        (tensor_of(Storage("0", 4), 0, (HUGE,), (1,)), "damaged"),
        (tensor_of(Storage("0", 4), HUGE, (4,), (1,)), "damaged"),
        (tensor_of(Storage("0", 4), -1, (4,), (1,)), "damaged"),
        (tensor_of(Storage("0", 4), 0, (4,), (-1,)), "damaged"),
        (tensor_of(Storage("0", 4), 0, (-4,), (1,)), "damaged"),
        (tensor_of(Storage("0", 4), 0, (2, 2), (1 << 62, 1 << 62)), "damaged"),
        (tensor_of(Storage("0", 4), 0, (1 << 62, 8), (0, 0)), "damaged"),
        (tensor_of(Storage("0", -4), 0, (4,), (1,)), "damaged"),
        (tensor_of(Storage("none", 4), 0, (4,), (1,)), "damaged"),
        (tensor_of(Storage("../version", 4), 0, (4,), (1,)), "damaged"),
        (
            tensor_of(Storage("0", 4), 0, (1 << 20, 1 << 20), (0, 0)),
            f"{NORM} of shape (1048576, 1048576) has only 16 bytes",
        ),
        (tensor_of(Storage("0", 4), 0, (8,), (0,)), f"{NORM} of shape (8,) has only 16 bytes"),
    ],
)
def test_tensors_that_claim_more_than_there_is(here: Path, tensor: Call, message: str) -> None:
    put_tensor(here, tensor)
    said = refusal(here)
    if message == "damaged":
        assert said.startswith("not a PyTorch checkpoint, or damaged (")
    else:
        assert said == message


def test_storages_that_share_their_bytes(here: Path) -> None:
    """Each within the file, all of them together many times as large."""
    size = (here / "model.pt").stat().st_size
    keys = [name.rpartition("/")[2] for name, _ in entries_of(here / "model.pt") if "/data/" in name]
    values = size // 8
    tensors = {key: tensor_of(Storage(key, values), 0, (values,), (1,)) for key in keys[:20]}
    put_pickle(here, pickled(tensors))
    assert " bytes of " in (said := refusal(here))
    assert said.startswith("its tensors claim ")


def test_an_old_file_that_claims_more_than_there_is(here: Path) -> None:
    path = here / "model.pt"
    torch.save({NORM: torch.ones(4)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    claim = b"X\x03\x00\x00\x00cpu"
    at = content.index(claim)
    numel = content.index(b"K\x04", at)
    for values in (1 << 30, 1 << 40):
        path.write_bytes(content[:numel] + b"\x8a\x08" + values.to_bytes(8, "little") + content[numel + 2 :])
        assert refusal(here).startswith("not a PyTorch checkpoint, or damaged (")


# --- the archive ---


def test_a_bomb(here: Path) -> None:
    """A quarter of a gigabyte of nothing in little more than a megabyte."""
    put_pickle(here, bytes(1 << 28), zipfile.ZIP_DEFLATED)
    assert (here / "model.pt").stat().st_size < 1 << 22
    assert refusal(here) == "refused, it is compressed, which torch.save never does"


def another_end(content: bytes) -> bytes:
    """Two archives behind one another: zipfile finds the directory of the second, torch looks into the first."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", pickled({}))
    return content + buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_end, "no directory of an archive"),
        (lambda content: content[:-2] + b"\x01\x00", "no end of an archive"),
        (lambda content: content[:-2] + b"\x01\x00x", "no end of an archive"),
        (lambda content: content + bytes(10), "no end of an archive"),
        (lambda content: content[:4] + bytes(100) + content[4:], "no directory of an archive"),
        (lambda content: content[:4], "Invalid argument"),
    ],
)
def test_archives_that_two_programs_read_differently(
    here: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    path = here / "model.pt"
    for name, content in list(entries_of(path)):  # without the ends in 64 bits
        if name.endswith("/data.pkl"):
            put_pickle(here, content)
    path.write_bytes(change(path.read_bytes()))
    said = refusal(here)
    assert said.startswith("not a PyTorch checkpoint, or damaged (")
    assert message in said


def test_entries_that_overlap(here: Path) -> None:
    """However many times the same bytes are listed."""
    with zipfile.ZipFile(here / "model.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickled({}))
        archive.writestr("a/data/0", bytes(10_000))
        for number in range(20):
            entry = copy.copy(archive.getinfo("a/data/0"))
            entry.filename = f"a/data/{number + 1}"
            archive.filelist.append(entry)
    assert refusal(here) == "not a PyTorch checkpoint, or damaged (entries that overlap)"


def test_a_pickle_without_end(here: Path) -> None:
    put_pickle(here, b"\x80\x02" + b"(" * 1_000_000)
    assert refusal(here) == "not a PyTorch checkpoint, or damaged (its pickle is too long)"


@pytest.mark.parametrize("names", [[], ["a/data.pkl", "b/data.pkl"], ["a/data.pkl", "a/DATA.PKL"]])
def test_archives_with_no_pickle_or_several(here: Path, names: list[str]) -> None:
    with zipfile.ZipFile(here / "model.pt", "w") as archive:
        for name in ["a/version", *names]:
            archive.writestr(name, "3")
    assert refusal(here) == "not a PyTorch checkpoint, or damaged (no data.pkl of a usual size)"


def test_a_pickle_that_is_too_large(here: Path) -> None:
    put_pickle(here, bytes((1 << 24) + 1))
    assert refusal(here) == "not a PyTorch checkpoint, or damaged (no data.pkl of a usual size)"


def test_a_tar_archive_with_links(here: Path) -> None:
    """PyTorch's oldest format is unpacked into a folder; nothing of that kind is even begun."""
    with tarfile.open(here / "model.pt", "w") as archive:
        for name in ("storages", "tensors", "pickle", "sys_info"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        outside = tarfile.TarInfo("../../executed")
        outside.size = 1
        archive.addfile(outside, io.BytesIO(b"x"))
    assert refusal(here) == "not a PyTorch checkpoint, or damaged (it begins like none)"
    assert not (here.parent / "executed").exists()


PEAK = """
import resource, sys
from pathlib import Path
from funasr_cli.checkpoints.layouts.funasr import open_funasr
from funasr_cli.errors import ModelError
import torch

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

torch.load(sys.argv[1], weights_only=True)
before = peak_mib()
for folder in sys.argv[2:]:
    try:
        open_funasr(Path(folder), ("zh",))
    except ModelError:
        pass
    else:
        raise SystemExit("it was read")
print(peak_mib() - before)
"""


def test_the_memory_that_refusals_take(make_checkpoint: Callable[..., Path]) -> None:
    """Each of these asks for gigabytes."""
    hostile = {name: make_checkpoint(name) for name in ("bomb", "storage", "shape", "tuples", "marks", "encoded")}
    good = make_checkpoint("good") / "model.pt"
    put_pickle(hostile["bomb"], bytes(1 << 29), zipfile.ZIP_DEFLATED)
    put_tensor(hostile["storage"], tensor_of(Storage("0", 1 << 33), 0, (1 << 33,), (1,)))
    put_tensor(hostile["shape"], tensor_of(Storage("0", 4), 0, (1 << 17, 1 << 17), (0, 0)))
    put_pickle(hostile["tuples"], doubled(60))
    put_pickle(hostile["marks"], b"\x80\x02" + b"(" * ((1 << 24) - 2))
    text: Any = b"a"
    for _ in range(40):
        text = Call(codecs.encode, text, "hex")
    put_pickle(hostile["encoded"], pickled({NORM: text}))
    command = [
        "sh",
        "-c",
        '"$0" "$@"; exit $?',
        sys.executable,
        "-c",
        PEAK,
        str(good),
        *map(str, hostile.values()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 400
