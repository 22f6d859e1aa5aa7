"""A folder that is written whole or not at all, whatever happens to the process, and never over something else.

It is written in a hidden folder beside its place, synchronised, and renamed. An old one moves aside first, as
``.funasr-old-XXXX/NAME``, and is removed last; if the process dies in between, the next run in that folder puts it
back. Locks, which the system takes back when a process ends in whatever way, tell the folders of the living from
those of the dead.
"""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from os.path import lexists, samestat
from pathlib import Path

from funasr_cli.checkpoints import format as files
from funasr_cli.errors import ModelError, OutputError
from funasr_cli.families.open import is_converted
from funasr_cli.hubs.find import ASIDE_PREFIX, hub_of
from funasr_cli.options import DEFAULT_HUB, Hub
from funasr_cli.paths import NO_ROOM, nearest_existing

TEMPORARY_PREFIX = ".funasr-convert-"  # hidden: what is unfinished is no model yet
RANDOM_BYTES = 8
DRIVES = Path("/Volumes")  # where macOS shows them; nothing else is kept there
# What may go with a model that is replaced, besides what its own list names; older ones have no list.
WRITTEN = {
    files.CONFIG_FILE, files.WEIGHTS_FILE, files.README_FILE, files.TOKENIZER_FILE, files.CTC_VOCABULARY_FILE,
    *files.OPTIONAL_TOKENIZER_FILES, files.SUMS_FILE, ".DS_Store",
}  # fmt: skip

ELSEWHERE = "name another folder"
GONE = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ENOENT, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)
HINTS = {
    **dict.fromkeys(NO_ROOM, "make room there (a quota may be used up), or name a folder on another disk"),
    errno.EFBIG: "that disk does not take files of this size: name a folder on another one",
    errno.EROFS: "that disk can only be read from: name a folder on another one",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "name a folder that you may write to"),
    errno.EBUSY: "it is a disk of its own: name a folder on it",
    **dict.fromkeys(GONE, "see whether its disk is still connected, and run it again"),
}
# A file system without locks for folders, one that cannot synchronise, or a folder that may not be opened.
UNSUPPORTED = (
    errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.ENOLCK, errno.EACCES,
)  # fmt: skip


def check_place(out: Path, source: Path | None, *, replace: bool, hub: Hub = DEFAULT_HUB) -> None:
    """Refuse, as an `OutputError`, an ``out`` that does not suit `new_folder`, before gigabytes are downloaded.

    Clean up what killed runs left beside it, too. ``source`` is a local folder, which must not be replaced; what
    is none comes from ``hub``.
    """
    target = _followed(out)
    with _output_errors(target):
        if source and source.resolve().is_relative_to(out.resolve()):
            raise OutputError(f"{out}: holds the source", ELSEWHERE, code="output-is-source")
        if nearest_existing(target) == DRIVES != target.absolute():
            message = f"{DRIVES / target.absolute().relative_to(DRIVES).parts[0]}: no such drive is connected"
            raise OutputError(message, f"connect it, or {ELSEWHERE}", code="output-unwritable")
        probe = _random(nearest_existing(target.parent), TEMPORARY_PREFIX)
        probe.mkdir(mode=0o700)  # what a file system allows shows in no other way
        shutil.rmtree(probe, ignore_errors=True)
        _clean_up(target.parent)
        if not lexists(out):
            return
        if not replace:
            other = hub_of(out)
            where = f", from {other.label}" if other and other != hub and not source else ""
            hint = f"pass --force to replace it, or {ELSEWHERE}"
            raise OutputError(f"{out}: exists already{where}", hint, code="output-exists")
        _refuse_foreign(out)


@contextmanager
def new_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to write into, which becomes ``out`` at the end, unless an exception leaves the block.

    After an exception, everything is as it was before. SIGKILL leaves ``out`` as it was, or whole and new, or an
    old model aside, which `check_place` puts back. Of a link to a folder, that folder is meant. With ``replace``,
    an empty folder or an earlier conversion is replaced.

    Raises:
        OutputError: ``out`` has appeared meanwhile, or cannot be written.
        ModelError: another file, which the block was to read, could not be read.
    """
    out = _followed(out)
    with _output_errors(out), ExitStack() as stack:
        missing = [path for path in (out.parent, *out.parent.parents) if not path.exists()]
        out.parent.mkdir(parents=True, exist_ok=True)
        for path in missing:
            _sync(path.parent)
        if not replace:
            _refuse_appeared(out)
        temporary = _random(out.parent, TEMPORARY_PREFIX)
        with _locked(out.parent):  # or another process would take it for a leftover before it is locked
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            temporary.mkdir(mode=0o700)
            stack.enter_context(_locked(temporary))
        new = temporary / "new"
        new.mkdir()
        yield new
        for path in (*new.rglob("*"), new):
            _sync(path)
        with _locked(out.parent):
            _publish(new, out, replace)


# --- what may be replaced, and what the messages say ---


def _followed(out: Path) -> Path:
    """Where a link to a folder leads, so that a model gets to the disk that its user has chosen."""
    with _output_errors(out):
        if out.is_symlink() and not out.exists():
            hint = f"see whether the disk that it leads to is connected, or {ELSEWHERE}"
            raise OutputError(f"{out}: a link that leads nowhere", hint, code="output-unwritable")
        if not out.name or ".." in out.parts:  # perhaps this process's own folder, which moves when it is replaced
            return Path(os.path.abspath(out))
        return out.resolve() if out.is_symlink() and out.is_dir() else out


def _refuse_appeared(out: Path) -> None:
    if lexists(out):
        hint = f"another program has put it there: use that, pass --force, or {ELSEWHERE}"
        raise OutputError(f"{out}: has appeared meanwhile", hint, code="output-exists")


def _refuse_foreign(out: Path) -> None:
    """Let only an empty folder or an earlier conversion pass, and only if nobody has put anything else there."""
    found = sorted(out.iterdir()) if out.is_dir() else None
    if found is None or (found and not is_converted(out)):  # many a foreign folder has a config.json, too
        raise OutputError(f"{out}: not a converted model, so not replaced", ELSEWHERE, code="output-foreign")
    written = set(WRITTEN)
    with suppress(ModelError):
        written.update(files.read_sums(out))  # a later version may write more files than this one
    if foreign := [path.name for path in found if path.name not in written or not path.is_file()]:
        message = f"{out}: holds {foreign[0]}, which no conversion writes, so it is not replaced"
        raise OutputError(message, f"move it, or {ELSEWHERE}", code="output-foreign")


@contextmanager
def _output_errors(out: Path) -> Iterator[None]:
    """Say what the system refuses in our form; temporary names are nobody's concern."""
    try:
        yield
    except OSError as error:
        names = [os.fsdecode(name) for name in (error.filename2, error.filename) if name]
        temporary = any(prefix in name for name in names for prefix in (TEMPORARY_PREFIX, ASIDE_PREFIX))
        if not temporary and names and not out.absolute().is_relative_to(Path(names[0]).absolute()):
            raise ModelError(f"{names[0]}: cannot be read ({error.strerror})", code="model-damaged") from error
        message = f"{out}: cannot be written ({OSError(error.errno, error.strerror) if temporary else error})"
        hint, is_full = HINTS.get(error.errno or 0, ""), error.errno in NO_ROOM
        raise OutputError(message, hint, code="disk-full" if is_full else "output-unwritable") from error


# --- into place, and after a death ---


def _publish(new: Path, out: Path, replace: bool) -> None:
    """Rename, and see to it that the name lasts; an old model ends up where the new one was."""
    aside, identity = None, new.stat()
    if not replace:
        _refuse_appeared(out)
    elif lexists(out):
        _refuse_foreign(out)
        aside = _random(out.parent, ASIDE_PREFIX) / out.name
        aside.parent.mkdir(mode=0o700)
    try:
        if aside:
            out.rename(aside)
        new.rename(out)
        _sync(out.parent)
    except BaseException:
        if lexists(out) and samestat(identity, out.lstat()):
            out.rename(new)
        if aside and lexists(aside):
            aside.rename(out)
        raise
    else:
        if aside:
            aside.rename(new)
    finally:
        if aside:
            with suppress(OSError):
                aside.parent.rmdir()


def _clean_up(parent: Path) -> None:
    """Put back old models whose name is empty, and remove what dead processes have left; nothing without locks."""
    with suppress(OSError), _locked(parent) as is_locked:  # no process is between two renames
        if not is_locked:
            return
        for folder in _real_folders(parent, ASIDE_PREFIX):
            for old in folder.iterdir():
                place = parent / old.name
                # Half deleted, it must not be found as an old model by the next process.
                old.rename(_random(parent, TEMPORARY_PREFIX) if lexists(place) else place)
            folder.rmdir()
        for folder in _real_folders(parent, TEMPORARY_PREFIX):
            with suppress(OSError), _locked(folder, wait=False) as is_dead:
                if is_dead:
                    shutil.rmtree(folder, ignore_errors=True)


def _random(parent: Path, prefix: str) -> Path:
    return parent / f"{prefix}{secrets.token_hex(RANDOM_BYTES)}"


def _real_folders(parent: Path, prefix: str) -> list[Path]:
    """Those that `_random` has named, and no links."""
    found = parent.glob(prefix + 2 * RANDOM_BYTES * "[0-9a-f]")
    return [folder for folder in found if folder.is_dir() and not folder.is_symlink()]


@contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a folder; False where there is no such thing, as on many disks on a network.

    A `BlockingIOError` says that another process holds it, if this one is not to wait.
    """
    with ExitStack() as stack:
        is_locked = False
        with _tolerated():
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_locked = True
        yield is_locked


def _sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk itself."""
    with _tolerated(), ExitStack() as stack:
        descriptor = os.open(path, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        os.fsync(descriptor)


@contextmanager
def _tolerated() -> Iterator[None]:
    """Go on where a file system does not know how to do this."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
