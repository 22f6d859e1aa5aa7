"""What the native engine keeps about a model: packed matrices, bit by bit, and when they are not used."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.native import LIBRARY, WITHOUT
from support.small import edit_json

from funasr_cli import demo
from funasr_cli.checkpoints.format import read_header
from funasr_cli.families import kept as module
from funasr_cli.families.kept import DIGEST_FILE, EDGE_BYTES, PACKED_FILE, PROOF_FILE, Int8Proof, Kept, fingerprint
from funasr_cli.families.load import load_model
from funasr_cli.families.open import open_model
from funasr_cli.native import library as native_library
from funasr_cli.native.decoder import NativeDecoder
from funasr_cli.native.library import ALIGNMENT, BFLOAT16, FLOAT32, INT8, Packed, is_bfloat16_fast
from funasr_cli.pipeline import Recognizer

needs_library = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def _keep_small_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "LEAST_PACKED_BYTES", 1)
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model, to change."""
    shutil.copytree(demo.MODEL, tmp_path / "m")
    shutil.rmtree(tmp_path / "m/native", ignore_errors=True)
    return tmp_path / "m"


def about(folder: Path) -> Kept:
    return Kept.about(open_model(folder), folder)


def random_matrices(sizes: list[int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(sizes))
    return {f"part.{number}": rng.integers(0, 256, size, np.uint8) for number, size in enumerate(sizes)}


def assert_same(got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
    assert list(got) == list(wanted)
    for name, content in wanted.items():
        assert got[name].ctypes.data % ALIGNMENT == 0
        np.testing.assert_array_equal(got[name][: len(content)], content)


@given(sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=6))
def test_matrices_come_back_bit_by_bit(sizes: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("m")
    for name in ("config.json", WEIGHTS):
        shutil.copyfile(demo.MODEL / name, folder / name)
    kept, matrices = Kept(folder, (folder / WEIGHTS,), is_ours=True), random_matrices(sizes)
    assert kept.packed() == {}
    assert kept.keep_packed(matrices) == folder / "native" / PACKED_FILE
    assert_same(kept.packed(), matrices)
    assert {path.name for path in (folder / "native").iterdir()} == {PACKED_FILE, DIGEST_FILE}


@pytest.mark.parametrize("damage", ["truncated", "longer", "empty", "garbage", "header", "a link", "a folder"])
def test_a_damaged_file_is_not_used(folder: Path, damage: str) -> None:
    kept = about(folder)
    path = kept.keep_packed(random_matrices([1000, 64]))
    assert path
    content = path.read_bytes()
    changed = {
        "truncated": content[:-1], "longer": content + b"\0", "empty": b"", "garbage": os.urandom(2000),
        "header": content[:8] + b"[" + content[9:],
    }  # fmt: skip
    if damage == "a link":
        path.rename(folder.parent / "elsewhere")
        path.symlink_to(folder.parent / "elsewhere")
    elif damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(changed[damage])
    assert kept.packed() == {}


@pytest.mark.parametrize("name", ["fingerprint", "ARITHMETIC", "sources_hash"])
def test_a_file_of_another_model_or_version_is_not_used(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, matrices = about(folder), random_matrices([100])
    kept.keep_packed(matrices)
    kept.keep_proof(Int8Proof(("a.flac",)))
    if name == "fingerprint":
        edit_json(folder / "config.json", lambda config: config["llm"].update(rope_theta=10.0))
    else:
        monkeypatch.setattr(module, name, {"ARITHMETIC": -1, "sources_hash": lambda: "other"}[name])
    assert about(folder).packed() == {}
    assert (about(folder).proof() is None) == (name != "sources_hash")
    about(folder).keep_packed(matrices)  # in place of the stale one
    assert_same(about(folder).packed(), matrices)


def test_a_proof_with_other_clips_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about(folder).keep_packed(random_matrices([100]))
    about(folder).keep_proof(Int8Proof(("a.flac",)))
    module.clips_hash.cache_clear()
    monkeypatch.setattr(module, "RECORDED", "*/recorded/none")
    try:
        assert about(folder).proof() is None
        assert about(folder).packed()
    finally:
        module.clips_hash.cache_clear()


@pytest.mark.parametrize("made_in", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("used_in", [FLOAT32, BFLOAT16])
def test_a_cpu_with_other_number_types(
    folder: Path, made_in: int, used_in: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed matrices are not read in another type; a proof in bfloat16 covers float32, which rounds less."""
    monkeypatch.setattr(module, "encoder_type", lambda: made_in)
    about(folder).keep_packed(random_matrices([128]))
    about(folder).keep_proof(Int8Proof(("a.flac",)))
    monkeypatch.setattr(module, "encoder_type", lambda: used_in)
    assert bool(about(folder).packed()) == (made_in == used_in)
    assert bool(about(folder).packed_file()) == (made_in == used_in)
    assert bool(about(folder).proof()) == (used_in == FLOAT32 or made_in == BFLOAT16)
    demo_proof = about(demo.MODEL).proof()  # on both kinds of CPU
    assert demo_proof
    assert demo_proof.holds


def test_changes_that_the_fingerprint_notices(folder: Path) -> None:
    """The first and last bytes of every tensor, header and configuration; not the middle of a large tensor."""
    path = folder / WEIGHTS
    before, content = fingerprint(folder, (path,)), bytearray(path.read_bytes())
    spans = read_header(path).spans
    assert before == fingerprint(folder, (path,))

    def changed(position: int) -> bool:
        with path.open("r+b") as file:
            for value in (content[position] ^ 1, content[position]):
                file.seek(position)
                file.write(bytes([value]))
                file.flush()
                if value != content[position]:
                    found = fingerprint(folder, (path,)) != before
        return found

    for begin, end in spans.values():
        assert changed(begin)
        assert changed(end - 1)
    begin, end = max(spans.values(), key=lambda span: span[1] - span[0])
    assert changed(begin + EDGE_BYTES - 1)
    assert not changed(begin + EDGE_BYTES)  # documented
    assert not changed(end - EDGE_BYTES - 1)
    assert fingerprint(folder, (path,)) == before
    header = content.replace(b'"funasr-cli"', b'"funasr-clj"', 1)
    path.write_bytes(header)
    assert fingerprint(folder, (path,)) != before
    path.write_bytes(content)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert fingerprint(folder, (path,)) != before


def test_the_proof_comes_back(folder: Path) -> None:
    kept = about(folder)
    assert kept.proof() is None
    for proof in (Int8Proof(("a.flac", "b.flac")), Int8Proof(("a.flac", "b.flac"), ("b.flac",))):
        path = kept.keep_proof(proof)
        assert path == folder / "native" / PROOF_FILE
        assert about(folder).proof() == proof
        assert json.loads(path.read_text())["same_texts"] is proof.holds
    for content in ("", "[]", "{", '{"clips": 3}', json.dumps(json.loads(path.read_text()) | {"clips": None})):
        path.write_text(content)
        assert about(folder).proof() is None


def test_where_it_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache, if the model is of another program or cannot be written to, or its folder leads elsewhere."""
    cache = tmp_path / "home/native"
    other = Kept(folder, (folder / WEIGHTS,), is_ours=False)
    path = other.keep_packed(random_matrices([100]))
    assert path == cache / other.fingerprint[:32] / PACKED_FILE
    assert not (folder / "native").exists()
    assert_same(about(folder).packed(), random_matrices([100]))  # the cache is read for every model
    (tmp_path / "elsewhere").mkdir()
    (folder / "native").symlink_to(tmp_path / "elsewhere")
    assert about(folder).keep_proof(Int8Proof(())) == cache / other.fingerprint[:32] / PROOF_FILE
    assert not list((tmp_path / "elsewhere").iterdir())
    (folder / "native").unlink()
    mkdir = Path.mkdir

    def read_only(self: Path, *args: object, **options: object) -> None:
        if self.is_relative_to(folder):
            raise PermissionError(13, "read-only")
        mkdir(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert about(folder).keep_packed(random_matrices([200])) == path
    assert_same(about(folder).packed(), random_matrices([200]))


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))  # type: ignore[attr-defined]
    assert about(folder).keep_packed(random_matrices([100])) is None
    assert about(folder).packed() == {}
    assert not any((folder / "native").iterdir())


@pytest.mark.parametrize("error", [OSError(28, "no space"), KeyboardInterrupt()])
def test_an_interruption_leaves_the_earlier_file(
    folder: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, matrices = about(folder), random_matrices([100])
    kept.keep_packed(matrices)

    def interrupted(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(module, "write_safetensors", interrupted)
    if isinstance(error, OSError):
        kept.keep_packed(random_matrices([200]))
    else:
        with pytest.raises(KeyboardInterrupt):
            kept.keep_packed(random_matrices([200]))
    assert {path.name for path in (folder / "native").iterdir()} == {PACKED_FILE, DIGEST_FILE}
    assert_same(kept.packed(), matrices)


def test_what_a_killed_process_left_is_replaced(folder: Path) -> None:
    kept = about(folder)
    (folder / "native").mkdir()
    (folder / "native" / f".{PACKED_FILE}.part").write_bytes(b"half")
    kept.keep_packed(random_matrices([100]))
    assert {path.name for path in (folder / "native").iterdir()} == {PACKED_FILE, DIGEST_FILE}


def test_writers_at_the_same_time(folder: Path) -> None:
    """One of them writes; a file that is in use stays as it is."""
    kept, matrices = about(folder), random_matrices([100_000] * 5)
    kept.keep_packed(matrices)
    in_use = kept.packed()
    found: list[Path | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(about(folder).keep_packed(matrices))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) <= {None, folder / "native" / PACKED_FILE}
    assert any(found)
    assert kept.packed_problem() is None
    for each in (in_use, kept.packed()):
        assert_same(each, matrices)
    assert {path.name for path in (folder / "native").iterdir()} == {PACKED_FILE, DIGEST_FILE}
    assert not (folder.parent / "home").exists()


def test_a_file_that_is_replaced_while_it_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it states is not taken for what another file states."""
    kept, matrices = about(folder), random_matrices([64, 640])
    path = kept.keep_packed(matrices)
    assert path

    def replaced(opened: Path) -> object:
        header = read_header(opened)
        kept.keep_packed(random_matrices([640, 64, 64 * len(calls)]))
        calls.append(opened)
        return header

    calls: list[Path] = [path]
    monkeypatch.setattr(module, "read_header", replaced)
    found = kept.packed()
    assert len(calls) > 1
    assert_same(found, matrices)


def test_small_matrices_are_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_PACKED_BYTES", 1000)
    assert about(folder).keep_packed(random_matrices([900])) is None
    assert about(folder).keep_packed(random_matrices([900, 100])) is not None


# --- as the engine uses them ---


def matrices_of(folder: Path) -> list[np.ndarray]:
    decoder = load_model(folder, "int8", "native").network.llm
    assert isinstance(decoder, NativeDecoder)
    return [packed.bytes for packed in decoder._kept if isinstance(packed, Packed)]


@needs_library
def test_a_later_start_packs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = matrices_of(folder)
    monkeypatch.setattr(Packed, "put", None)
    later = matrices_of(folder)
    assert len(later) == len(first)
    for ours, theirs in zip(later, first, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert not ours.flags.writeable
        assert ours.base is not None
    clip = demo.clips()[0]
    assert Recognizer(load_model(folder, "int8", "native")).transcribe(clip.path).text == clip.written


@needs_library
def test_matrices_of_another_size_are_packed_again(folder: Path) -> None:
    """A file may state anything about itself."""
    wanted, kept = matrices_of(folder), about(folder)
    found = dict(kept.packed())
    for change in (
        {},
        {name: content[:64] for name, content in found.items()},
        {"other": found[next(iter(found))]},
    ):
        kept.keep_packed(change or dict(list(found.items())[:3]))
        for ours, theirs in zip(matrices_of(folder), wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert_same(kept.packed(), found)


@needs_library
def test_matrices_packed_on_another_cpu_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 bytes of an encoder are not taken for bfloat16."""
    assert LIBRARY
    if not is_bfloat16_fast(LIBRARY):
        pytest.skip("this CPU packs in float32 only")
    clip = demo.clips()[0]
    with monkeypatch.context() as patch:
        patch.setattr(native_library, "is_bfloat16_fast", lambda _: False)
        model = load_model(folder, "int8", "native")
        assert model.network.audio_encoder.type == "float32"
    model = load_model(folder, "int8", "native")
    assert model.network.audio_encoder.type == "bfloat16"
    assert Recognizer(model).transcribe(clip.path).text == clip.written


@needs_library
def test_only_int8_is_kept(folder: Path) -> None:
    load_model(folder, "float32", "native")
    assert about(folder).packed() == {}


@needs_library
def test_a_view_of_other_or_unaligned_bytes() -> None:
    assert LIBRARY
    packed = Packed.of(LIBRARY, np.ones((32, 64), np.float32), INT8)
    Packed.view(LIBRARY, packed.bytes, 32, 64, INT8, has_offset=False)
    taller = Packed.of(LIBRARY, np.ones((64, 64), np.float32), INT8)
    views = (packed.bytes[:-1], 32), (packed.bytes, 48), (packed.bytes[1:], 16), (taller.bytes, 32)
    for content, rows in views:
        with pytest.raises(ValueError, match="not a packed matrix"):
            Packed.view(LIBRARY, content, rows, 64, INT8, has_offset=False)
