"""SHA-256 of files, and the list of them that lies in a converted model, as ``sha256sum --check`` reads it."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from funasr_cli.checkpoints.untrusted import open_file, optional_file_in, read_limited
from funasr_cli.errors import ModelError

SUMS_FILE = "SHA256SUMS"
SOURCE_AGAIN = "convert the source again"
LINE = re.compile(r"([0-9a-f]{64})  (.+)")
LIMIT_BYTES = 1 << 16


def sha256_of(path: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """Hex digest of a file; ``progress`` is told the bytes read since it was last called."""
    digest = hashlib.sha256()
    with open_file(path) as (file, _):
        while block := file.read(1 << 20):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def write_sums(folder: Path, known: Mapping[str, str]) -> None:
    """Write the list for all files in a folder; ``known`` are digests by name that need not be computed again."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    lines = [f"{known.get(name) or sha256_of(folder / name)}  {name}\n" for name in names]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def read_sums(folder: Path) -> dict[str, str]:
    """Digests by name; none where there is no list, a `ModelError` where it is not such a list."""
    try:
        path = optional_file_in(folder, SUMS_FILE)
        content = read_limited(path, LIMIT_BYTES) if path else b""
    except ModelError as error:  # it can be had from nowhere else
        raise ModelError(error.message, SOURCE_AGAIN, code="model-damaged") from error
    lines = content.decode(errors="replace").splitlines()
    matches = [LINE.fullmatch(line) for line in lines]
    if not all(matches):
        raise ModelError(f"{path}: not a list of SHA-256 digests", SOURCE_AGAIN, code="model-damaged")
    return {match[2]: match[1] for match in matches if match}
