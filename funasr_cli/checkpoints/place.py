"""A folder that is written whole or not at all, whatever happens to the process, and never over something else.

It is written within a temporary folder beside its place, synchronised, and renamed. A living process holds a lock
on its temporary folder, which the system takes back when the process ends in whatever way: one that nobody holds
is a leftover.
"""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from funasr_cli.checkpoints.format import (
    CONFIG_FILE,
    CTC_VOCABULARY_FILE,
    README_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
)
from funasr_cli.checkpoints.hashes import SUMS_FILE, read_sums
from funasr_cli.checkpoints.hub import hub_of
from funasr_cli.checkpoints.layouts.files import OPTIONAL_TOKENIZER_FILES
from funasr_cli.checkpoints.rename import UNSUPPORTED, exchange, rename_new
from funasr_cli.checkpoints.sources import is_converted
from funasr_cli.errors import ModelError, OutputError
from funasr_cli.options import DEFAULT_HUB, Hub
from funasr_cli.paths import nearest_existing, refuse_unwritable

TEMPORARY_PREFIX = ".funasr-convert-"  # hidden: what is unfinished is no model yet
RANDOM_BYTES = 8
LEFTOVERS = TEMPORARY_PREFIX + 2 * RANDOM_BYTES * "[0-9a-f]"
# What a temporary folder holds: what is being written; and what stands aside for it, under its own name.
NEW, ASIDE = "new", "aside"
DRIVES = Path("/Volumes")  # where macOS shows them; nothing else is kept there
# What may go with a model that is replaced, besides what its own list names; older ones have no list.
WRITTEN = {
    CONFIG_FILE, WEIGHTS_FILE, README_FILE, SUMS_FILE,
    TOKENIZER_FILE, *OPTIONAL_TOKENIZER_FILES, CTC_VOCABULARY_FILE,
    ".DS_Store",  # Finder's
}  # fmt: skip

ELSEWHERE = "name another folder"
HINTS = {
    errno.ENOSPC: "make room on that disk, or name a folder on another one",
    errno.EDQUOT: "your quota there is used up: delete something, or name a folder on another disk",
    errno.EFBIG: "that disk does not take files of this size: name a folder on another one",
    errno.EROFS: "that disk can only be read from: name a folder on another one",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "name a folder that you may write to"),
    errno.EBUSY: "it is a disk of its own: name a folder on it",
    **dict.fromkeys(
        (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ENOENT, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),
        "see whether its disk is still connected, and run it again",
    ),
}
# How file systems say that there are no locks, and that folders cannot be synchronised (or only be written to).
NO_LOCKS = (*UNSUPPORTED, errno.EBADF, errno.ENOLCK)
NO_SYNC = (*UNSUPPORTED, errno.EACCES)


def check_place(out: Path, source: Path | None, *, replace: bool, hub: Hub = DEFAULT_HUB) -> None:
    """Refuse an unsuitable ``out`` at once, before gigabytes are downloaded; remove leftovers beside it.

    Args:
        out: what `new_folder` will be asked for.
        source: a local folder that must not be replaced.
        replace: an empty folder or an earlier conversion may be replaced.
        hub: where a source that is no local folder will come from.

    Raises:
        OutputError: it exists and may not be replaced, or nothing can be written there.
    """
    target = _followed(out)
    with _output_errors(target):
        if source and (out.resolve() == source.resolve() or out.resolve() in source.resolve().parents):
            raise OutputError(f"{out}: holds the source", "choose another folder for the converted model")
        if nearest_existing(target) == DRIVES != target.absolute():
            drive = DRIVES / target.absolute().relative_to(DRIVES).parts[0]
            raise OutputError(f"{drive}: no such drive is connected", f"connect it, or {ELSEWHERE}")
        refuse_unwritable(target.parent, ELSEWHERE)
        _remove_leftovers(target.parent)
        if not _exists(out):
            return
        if not replace:
            other = hub_of(out)
            where = f", from {other.label}" if other and other != hub and not source else ""
            raise OutputError(f"{out}: exists already{where}", f"pass --force to replace it, or {ELSEWHERE}")
        _refuse_foreign(out)


@contextmanager
def new_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to write into, which becomes ``out`` at the end, unless an exception leaves the block.

    After an exception, everything is as it was before. SIGKILL leaves ``out`` as it was, or whole and new. Where
    folders cannot be exchanged at once, it may also leave an old model aside, which `check_place` puts back.

    Args:
        out: folder to create, and its parents; see `check_place`. Of a link to a folder, that folder is meant.
        replace: an empty folder or an earlier conversion is replaced.

    Raises:
        OutputError: ``out`` has appeared meanwhile, or cannot be written.
        ModelError: another file, which the block was to read, could not be read.
    """
    out = _followed(out)
    with _output_errors(out):
        _make_folders(out.parent)
        if not replace and _exists(out):
            raise _appeared(out)
        with _temporary_folder(out.parent) as temporary:
            new = temporary / NEW
            new.mkdir()
            yield new
            for path in (*new.rglob("*"), new):
                _sync(path)
            _publish(new, out, replace)


# --- what may be replaced, and what is said ---


def _followed(out: Path) -> Path:
    """Where a link to a folder leads, so that a model gets to the disk that its user has chosen."""
    with _output_errors(out):
        if out.is_symlink() and not out.exists():
            hint = f"see whether the disk that it leads to is connected, or {ELSEWHERE}"
            raise OutputError(f"{out}: a link that leads nowhere", hint)
        if (
            not out.name or ".." in out.parts
        ):  # it may be this process's own folder, which moves when it is replaced
            return Path(os.path.abspath(out))
        return out.resolve() if out.is_symlink() and out.is_dir() else out


def _exists(path: Path) -> bool:
    """Whether something goes by this name, be it a link that leads nowhere."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _appeared(out: Path) -> OutputError:
    return OutputError(
        f"{out}: has appeared meanwhile",
        f"another program has put it there: use that, pass --force, or {ELSEWHERE}",
    )


def _refuse_foreign(out: Path) -> None:
    """Let only an empty folder or an earlier conversion pass, and only if nobody has put anything else there."""
    files = sorted(out.iterdir()) if out.is_dir() else None
    if files is None or (files and not is_converted(out)):  # many a foreign folder has a config.json, too
        raise OutputError(f"{out}: is not a converted model, so it is not replaced", ELSEWHERE)
    ours = WRITTEN | _listed(out)
    for path in files:
        if path.name not in ours or not path.is_file():
            raise OutputError(
                f"{out}: holds {path.name}, which no conversion writes, so it is not replaced",
                f"move it, or {ELSEWHERE}",
            )


def _listed(out: Path) -> set[str]:
    """What its own list names; a later version may write more files than this one."""
    try:
        return set(read_sums(out))
    except ModelError:
        return set()


@contextmanager
def _output_errors(out: Path) -> Iterator[None]:
    """Say what the system refuses in our form; temporary names are nobody's concern."""
    try:
        yield
    except OSError as error:
        names = [os.fsdecode(name) for name in (error.filename2, error.filename) if name]
        temporary = any(TEMPORARY_PREFIX in name for name in names)
        if not temporary and names and not out.absolute().is_relative_to(Path(names[0]).absolute()):
            raise ModelError(f"{names[0]}: cannot be read ({error.strerror})") from error
        reason = OSError(error.errno, error.strerror) if temporary else error
        raise OutputError(f"{out}: cannot be written ({reason})", HINTS.get(error.errno or 0, "")) from error


# --- temporary folders ---


@contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder that is locked while this process lives, and gone afterwards."""
    folder = parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(RANDOM_BYTES)}"
    lock = None
    try:
        lock = _make_locked(folder)
        yield folder
    finally:
        _remove(folder)
        if lock is not None:
            os.close(lock)


def _make_locked(folder: Path) -> int | None:
    """Make a folder and lock it, as `_lock` does; None where there are no locks, so that nobody removes it."""
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            return _lock(folder, fcntl.LOCK_EX)
        except FileNotFoundError:  # before it was locked, another process took it for a leftover
            continue
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return None


def _lock(folder: Path, operation: int) -> int:
    """Lock a folder until the descriptor that this returns is closed.

    Raises:
        FileNotFoundError: it is gone, or another one has taken its place.
        BlockingIOError: another process has locked it, and the operation is not to wait.
        OSError: the file system has no locks, as most of those on a network.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, operation)
        if not os.path.samestat(os.fstat(descriptor), folder.lstat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_leftovers(parent: Path) -> None:
    """Remove temporary folders of processes that have died; what may be somebody's stays."""
    for folder in parent.glob(LEFTOVERS):
        with suppress(OSError):
            lock = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                _remove(folder)
            finally:
                os.close(lock)


def _remove(temporary: Path) -> None:
    """Remove a temporary folder, but not a model in it that has nowhere else to be."""
    _give_back(temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def _give_back(temporary: Path) -> None:
    """Put back what stands aside, unless something has taken its place."""
    for old in (temporary / ASIDE).glob("*"):
        try:
            rename_new(old, temporary.parent / old.name)
        except FileExistsError:  # half deleted, it must not be found here by the next process
            old.rename(temporary / secrets.token_hex(RANDOM_BYTES))


# --- into place ---


def _publish(new: Path, out: Path, replace: bool) -> None:
    """Rename, and see to it that the name lasts."""
    replaced = _move_into_place(new, out, replace)
    try:
        _sync(out.parent)
    except BaseException:
        if replaced:
            _swap(new, out)
        else:
            rename_new(out, new)
        raise


def _move_into_place(new: Path, out: Path, replace: bool, tries: int = 100) -> bool:
    """Rename; whether there was an old model, which now is where the new one was."""
    try:
        rename_new(new, out)
        return False
    except FileExistsError:
        if not replace:
            raise _appeared(out) from None
    try:
        _refuse_foreign(out)
        _swap(new, out)
        return True
    except (FileNotFoundError, FileExistsError):  # others replace it at this moment; the last one wins
        if not tries:
            raise
    return _move_into_place(new, out, replace, tries - 1)


def _swap(new: Path, out: Path) -> None:
    """Exchange two folders: at once, or in steps between which ``out`` is missing for a moment."""
    if exchange(new, out):
        return
    aside = new.parent / ASIDE / out.name
    aside.parent.mkdir(exist_ok=True)
    try:
        out.rename(aside)
        rename_new(new, out)
    except BaseException:
        _give_back(new.parent)
        raise
    aside.rename(new)


def _make_folders(folder: Path) -> None:
    """Make a folder with its parents, and see to it that their names last."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk itself."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in NO_SYNC):
            raise
