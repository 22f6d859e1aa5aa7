"""The cache folder: parts that appear only when complete, each with a list of its files' SHA-256."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.errors import FunASRError

VARIABLE = "FUNASR_REAL_DATA"
DEFAULT = Path("~/.cache/funasr-cli-real-data")
SUMS = "SHA256SUMS"  # in the format of `sha256sum`, so that `sha256sum --check SHA256SUMS` verifies a part
WHISPER = "weights/whisper-base"
SPEECH = "speech"
LONG = f"{SPEECH}/long-en"
SEVERAL = f"{SPEECH}/voices"


def root() -> Path:
    """Return the cache folder, which may not exist."""
    return Path(os.environ.get(VARIABLE) or DEFAULT).expanduser()


@dataclass(frozen=True)
class Part:
    """A subfolder of the cache.

    Attributes:
        name: its path relative to the cache.
        source: what it is made of, and its licence.
        make: fills an empty folder. Raises a FunASRError if something that it needs is missing.
        digest: SHA-256 of the list of hashes that it must have; None if the files may differ between machines.
    """

    name: str
    source: str
    make: Callable[[Path], None]
    digest: str | None = None

    @property
    def folder(self) -> Path:
        """Where the part is."""
        return root() / self.name

    def problem(self) -> str:
        """Return why the part is not usable; empty if it is complete and unchanged."""
        sums = self.folder / SUMS
        if not sums.is_file():
            return "not fetched"
        stated = sums.read_text(encoding="utf-8")
        if stated != list_sums(self.folder):
            return f"{self.folder}: files differ from {SUMS}"
        return self._unexpected(stated)

    def write(self) -> None:
        """Make the part in a temporary folder, and put it in place when it is complete.

        Raises:
            FunASRError: something is missing, or the files are not the expected ones.
        """
        unfinished = self.folder.with_name(f".{self.folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        self.make(unfinished)
        sums = list_sums(unfinished)
        if unexpected := self._unexpected(sums):
            raise FunASRError(unexpected, f"compare {unfinished} with tools/real_data", code="file-changed")
        (unfinished / SUMS).write_text(sums, encoding="utf-8")
        shutil.rmtree(self.folder, ignore_errors=True)
        unfinished.rename(self.folder)

    def _unexpected(self, sums: str) -> str:
        found = hashlib.sha256(sums.encode()).hexdigest()
        return f"{self.name}: SHA-256 {found}, not {self.digest}" if self.digest not in (None, found) else ""


def list_sums(folder: Path) -> str:
    """Return the SHA-256 of each file in a folder as `sha256sum` prints them, sorted by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    return "".join(f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
