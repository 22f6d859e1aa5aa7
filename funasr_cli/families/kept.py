"""What the native engine keeps about a model: whether int8 is proven, and packed matrices.

Both are files in a folder. It is ``native`` inside a model that this program converted, if that can be written to,
else one in the user's cache folder. Folders of other programs are never written to. The files may be deleted at
any time. They are used only if they state the model's fingerprint and the version of the engine's arithmetic, and
a proof only with the hash of the bundled clips. They also state the number type of everything but the decoder,
which depends on the CPU. Packed matrices are used in that type only. A proof made in bfloat16 also covers float32,
which rounds less.

The fingerprint is a hash of the configuration and, for each file of weights, of its size, its header, and the
first and last 4 kB of each tensor. It takes milliseconds, where a hash of the whole file takes seconds. A change
in the middle of a tensor is not noticed, nor is one of other files, such as the tokenizer.
"""

import fcntl
import hashlib
import logging
import mmap
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from funasr_cli import __version__, demo
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import (
    CONFIG_FILE,
    FORMAT,
    KEPT_FOLDER,
    read_header,
    sha256_of,
    write_json,
    write_safetensors,
)
from funasr_cli.checkpoints.untrusted import file_in, open_file, optional_file_in, read_json, read_limited
from funasr_cli.errors import ModelError
from funasr_cli.native.build import sources_hash
from funasr_cli.native.library import ALIGNMENT, ARITHMETIC, BFLOAT16, TYPES, encoder_type
from funasr_cli.paths import cache_folder

KEPT_FILES = PROOF_FILE, PACKED_FILE, DIGEST_FILE = ("int8.json", "int8.safetensors", "int8.sha256")
RECORDED = "*/recorded/*.flac"  # a family's own clips, in its folder
EDGE_BYTES = 4096  # hashed at both ends of each tensor
CONFIG_LIMIT_BYTES, DIGEST_LIMIT_BYTES = 1 << 20, 1 << 12
LEAST_PACKED_BYTES = 1 << 26  # less is packed in a moment at each start
SPARE_BYTES = 1 << 28  # free space that is left on the disk
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Int8Proof:
    """The bundled clips that a model has transcribed in int8 and in float32, and on which the texts differ."""

    clips: tuple[str, ...]
    differing: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether all texts are the same."""
        return not self.differing


def fingerprint(folder: Path, weights: tuple[Path, ...]) -> str:
    """Return a hash of a model's configuration and weights; see above for what it does not notice.

    Raises:
        ModelError: a file cannot be read.
    """
    digest = hashlib.sha256()

    def add(content: bytes) -> None:
        digest.update(len(content).to_bytes(8, "little") + content)

    add(read_limited(folder / CONFIG_FILE, CONFIG_LIMIT_BYTES))
    for path in weights:
        header = read_header(path)
        add(header.raw)
        with open_file(path) as (file, size_bytes):
            add(size_bytes.to_bytes(8, "little"))
            for begin, end in header.spans.values():
                for start in (begin, max(begin, end - EDGE_BYTES)):
                    add(os.pread(file.fileno(), min(EDGE_BYTES, end - start), start))
    return digest.hexdigest()


@cache
def clips_hash() -> str:
    """Return a hash of the clips of all families: a proof made with other clips is made again."""
    digest = hashlib.sha256()
    for path in sorted([*demo.CLIPS.glob("*.flac"), *Path(__file__).parent.glob(RECORDED)]):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class Kept:
    """What is kept about one model, and where."""

    folder: Path  # the model's
    weights: tuple[Path, ...]
    is_ours: bool  # whether it was converted by this program

    @classmethod
    def about(cls, checkpoint: Checkpoint, folder: Path) -> "Kept":
        """Return what is kept about an opened checkpoint, which reads nothing yet."""
        return cls(folder, checkpoint.weights, checkpoint.layout == FORMAT)

    @cached_property
    def fingerprint(self) -> str:
        """The model's fingerprint."""
        return fingerprint(self.folder, self.weights)

    @property
    def places(self) -> tuple[Path, ...]:
        """The folders to look in, in this order; the first that can be written to is written to."""
        cache = cache_folder() / KEPT_FOLDER / self.fingerprint[:32]
        return (self.folder / KEPT_FOLDER, cache) if self.is_ours else (cache,)

    def _stamp(self) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint, "arithmetic": ARITHMETIC}

    # --- the proof of int8 ---

    def _proof_stamp(self) -> dict[str, Any]:
        return {**self._stamp(), "clips_hash": clips_hash()}

    def proof(self) -> Int8Proof | None:
        """Return the proof, if there is one of these weights, this arithmetic and this CPU's number types."""
        types = {TYPES[encoder_type()], TYPES[BFLOAT16]}
        for place in self.places:
            with suppress(ModelError, KeyError, TypeError):
                stated = read_json(file_in(place, PROOF_FILE))
                if stated.items() >= self._proof_stamp().items() and stated["encoder"] in types:
                    clips, differing = ([str(name) for name in stated[key]] for key in ("clips", "differing"))
                    return Int8Proof(tuple(clips), tuple(differing))
        return None

    def keep_proof(self, proof: Int8Proof) -> Path | None:
        """Write the proof; return its file, or None if it cannot be written."""
        content = {
            **self._proof_stamp(),
            "encoder": TYPES[encoder_type()],
            "same_texts": proof.holds,
            "clips": proof.clips,
            "differing": proof.differing,
            "made_by": f"funasr-cli {__version__}",
        }
        return self._write(PROOF_FILE, lambda path: write_json(path, content))

    # --- packed matrices ---

    def packed_file(self) -> Path | None:
        """Return the file of packed matrices; None if it is missing, stale or damaged."""
        for place in self.places:
            with suppress(ModelError):
                path = file_in(place, PACKED_FILE)
                if read_header(path).metadata == self._packed_stamp():
                    return path
        return None

    def packed(self) -> Mapping[str, np.ndarray]:
        """Map the packed matrices into memory: (bytes,) uint8 by name, or none without a usable file.

        The system reads a page when it is first used, and several processes share it.
        """
        for place in self.places:
            with (
                suppress(ModelError, OSError, ValueError),
                open_file(file_in(place, PACKED_FILE)) as (file, _),
            ):
                # By its descriptor: the header is of this file, even if another process replaces it now.
                header = read_header(Path(f"/dev/fd/{file.fileno()}"))
                if header.metadata == self._packed_stamp():
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                    mapped.madvise(mmap.MADV_WILLNEED)  # it is read in the background from now on
                    content = np.frombuffer(mapped, np.uint8)
                    return {name: content[begin:end] for name, (begin, end) in header.spans.items()}
        return {}

    def keep_packed(self, matrices: Mapping[str, np.ndarray]) -> Path | None:
        """Write packed matrices, (bytes,) uint8 each, in place of earlier ones.

        Returns:
            The file; None if it cannot be written, for example because the disk is too full, or if the matrices
            are too small to be worth it.
        """
        sizes = {name: stored_bytes(content.nbytes) for name, content in matrices.items()}
        if (total := sum(sizes.values())) < LEAST_PACKED_BYTES:
            return None
        specs, digest = {name: ("uint8", (size,)) for name, size in sizes.items()}, ""

        def contents() -> Iterator[memoryview]:
            for name, content in matrices.items():
                missing = sizes[name] - content.nbytes
                yield (np.pad(content, (0, missing)) if missing else content).data

        def write(path: Path) -> None:
            nonlocal digest
            free_bytes = shutil.disk_usage(path.parent).free
            if free_bytes < total + SPARE_BYTES:
                raise OSError(f"{total} bytes do not fit on the disk, where {free_bytes} are free")
            digest = write_safetensors(path, specs, contents(), self._packed_stamp(), ALIGNMENT)
            (path.parent / DIGEST_FILE).unlink(missing_ok=True)  # without it, nothing is compared

        def state_digest(place: Path) -> None:
            (place / DIGEST_FILE).write_text(f"{digest}  {PACKED_FILE}\n", encoding="utf-8")

        return self._write(PACKED_FILE, write, state_digest)

    def packed_problem(self) -> str | None:
        """Hash the file of packed matrices; return what is wrong with it, or None. No start takes that time."""
        with suppress(ModelError, OSError):
            if (path := self.packed_file()) and (stated := optional_file_in(path.parent, DIGEST_FILE)):
                digest, found = (
                    read_limited(stated, DIGEST_LIMIT_BYTES).decode(errors="replace")[:64],
                    sha256_of(path),
                )
                if digest != found:
                    return f"{path}: changed since it was written (SHA-256 differs)"
        return None

    def drop_packed(self) -> None:
        """Remove packed matrices, if there are any."""
        for place in self.places:
            for name in (PACKED_FILE, DIGEST_FILE):
                with suppress(OSError):
                    (place / name).unlink()

    def _packed_stamp(self) -> dict[str, str]:
        """Return what the file must state. The layout of packed weights may change with the library's sources."""
        stamp = {**self._stamp(), "encoder": TYPES[encoder_type()], "sources": sources_hash()}
        return {name: str(value) for name, value in stamp.items()}

    # --- writing ---

    def _write(
        self, name: str, write: Callable[[Path], object], then: Callable[[Path], object] = lambda _: None
    ) -> Path | None:
        """Create a file completely or not at all, in the first place that can be written to, and call `then`.

        No other process writes to that folder meanwhile.
        """
        for place in self.places:
            try:
                if place.is_symlink():  # it may lead to a folder of another program
                    raise OSError("it is a link")
                place.mkdir(parents=True, exist_ok=True)
                with _locked(place):
                    part = place / f".{name}.part"
                    part.unlink(missing_ok=True)  # of a process that was killed
                    try:
                        write(part)
                        with part.open("rb") as file:
                            os.fsync(file.fileno())
                        part.replace(place / name)
                        then(place)
                    finally:
                        part.unlink(missing_ok=True)
                return place / name
            except BlockingIOError:
                log.info("%s in %s is being written by another process", name, place)
                return None
            except OSError as error:
                log.info("%s is not kept in %s: %s", name, place, error)
        return None


def stored_bytes(size_bytes: int) -> int:
    """Return the bytes that a packed matrix takes in the file, where the next one is aligned."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; raise a BlockingIOError if another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
