"""Write a folder completely or not at all, even if the process is killed, and never overwrite anything else.

The folder is written under a hidden temporary name next to its final place, synchronised to disk, and renamed. An
old model first moves aside, to ``.funasr-old-XXXX/NAME``, and is removed last. If the process dies in between, the
next run in that folder puts the old model back. Folders of running processes are locked. The system releases a
lock when its process ends, so the folders of dead processes can be recognised and removed.
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
from funasr_cli.families.kept import KEPT_FILES
from funasr_cli.families.open import is_converted
from funasr_cli.hubs.find import ASIDE_PREFIX, hub_of, models_folder
from funasr_cli.options import DEFAULT_HUB, Hub
from funasr_cli.paths import NO_ROOM, nearest_existing

TEMPORARY_PREFIX = ".funasr-convert-"  # hidden, so that an unfinished folder is not taken for a model
RANDOM_BYTES = 8
DRIVES = Path("/Volumes")  # where macOS mounts drives
# Files that may be deleted with a replaced model, in addition to its own list; older models have no list.
KNOWN_FILES = {
    files.CONFIG_FILE, files.WEIGHTS_FILE, files.README_FILE, files.TOKENIZER_FILE, files.CTC_VOCABULARY_FILE,
    *files.OPTIONAL_TOKENIZER_FILES, files.SUMS_FILE, ".DS_Store",
}  # fmt: skip

OTHER_FOLDER_HINT = "name another folder"
DISCONNECTED = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ENOENT, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)
HINTS = {  # {choose}: how a caller can choose another folder
    **dict.fromkeys(NO_ROOM, "free some space (or raise a quota), or {choose} a folder on another disk"),
    errno.EFBIG: "that disk does not support files of this size: {choose} a folder on another one",
    errno.EROFS: "that disk is read-only: {choose} a folder on another one",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.ENOTDIR), "{choose} a folder that you may write to"),
    errno.EBUSY: "it is the top of a disk: {choose} a folder on it",
    **dict.fromkeys(DISCONNECTED, "check that its disk is still connected, and run it again"),
}
# The file system cannot lock or synchronise folders, or the folder may not be opened.
UNSUPPORTED = (
    errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.ENOLCK, errno.EACCES,
)  # fmt: skip


def check_place(out: Path, source: Path | None, *, replace: bool, hub: Hub = DEFAULT_HUB) -> None:
    """Raise an `OutputError` if `new_folder` could not create ``out``, before gigabytes are downloaded.

    This also removes leftovers of killed runs next to it. ``source`` is a local folder, which must not be
    replaced; None means that the checkpoint comes from ``hub``.
    """
    target = _followed(out)
    with _output_errors(target):
        if source and source.resolve().is_relative_to(out.resolve()):
            raise OutputError(f"{out}: contains the source", OTHER_FOLDER_HINT, code="output-is-source")
        if nearest_existing(target) == DRIVES != target.absolute():
            message = f"{DRIVES / target.absolute().relative_to(DRIVES).parts[0]}: this drive is not connected"
            raise OutputError(message, f"connect it, or {OTHER_FOLDER_HINT}", code="output-unwritable")
        probe = _random(nearest_existing(target.parent), TEMPORARY_PREFIX)
        probe.mkdir(mode=0o700)  # the only reliable test of write access
        shutil.rmtree(probe, ignore_errors=True)
        _clean_up(target.parent)
        if not lexists(out):
            return
        if not replace:
            other = hub_of(out)
            where = f", from {other.label}" if other and other != hub and not source else ""
            hint = f"pass --force to replace it, or {OTHER_FOLDER_HINT}"
            raise OutputError(f"{out}: already exists{where}", hint, code="output-exists")
        _refuse_foreign(out)


@contextmanager
def new_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a folder to write into, which becomes ``out`` when the block ends without an exception.

    After an exception, everything is as it was before. After SIGKILL, ``out`` is unchanged or complete, or the old
    model is aside and `check_place` puts it back. If ``out`` is a link to a folder, that folder is created or
    replaced. With ``replace``, an empty folder or an earlier conversion may be replaced.

    Raises:
        OutputError: ``out`` was created by another process in the meantime, or cannot be written.
        ModelError: a file that the block reads cannot be read.
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
        with _locked(out.parent):  # otherwise another process might remove it before it is locked
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
    """Resolve a link to a folder, so that a model is written to the disk that its user has chosen."""
    with _output_errors(out):
        if out.is_symlink() and not out.exists():
            hint = f"check that the disk it points to is connected, or {OTHER_FOLDER_HINT}"
            raise OutputError(f"{out}: is a broken link", hint, code="output-unwritable")
        # It may be this process's working folder, which moves when it is replaced.
        if not out.name or ".." in out.parts:
            return Path(os.path.abspath(out))
        return out.resolve() if out.is_symlink() and out.is_dir() else out


def _refuse_appeared(out: Path) -> None:
    if lexists(out):
        hint = f"another program created it: use that, pass --force, or {OTHER_FOLDER_HINT}"
        raise OutputError(f"{out}: was created in the meantime", hint, code="output-exists")


def _refuse_foreign(out: Path) -> None:
    """Raise an OutputError unless this is an empty folder, or an earlier conversion without any other files."""
    found = sorted(out.iterdir()) if out.is_dir() else None
    if found is None or (found and not is_converted(out)):  # other folders may have a config.json as well
        raise OutputError(
            f"{out}: is not a converted model, so it is not replaced", OTHER_FOLDER_HINT, code="output-foreign"
        )
    written = set(KNOWN_FILES)
    with suppress(ModelError):
        written.update(files.read_sums(out))  # a later version of this program may write more files
    if foreign := [
        path.name for path in found if not _is_kept(path) and not (path.name in written and path.is_file())
    ]:
        message = f"{out}: contains {foreign[0]}, which no conversion writes, so it is not replaced"
        raise OutputError(message, f"move it, or {OTHER_FOLDER_HINT}", code="output-foreign")


def _is_kept(path: Path) -> bool:
    """Return whether this is the folder of what the native engine keeps, without other files."""
    is_folder = path.name == files.KEPT_FOLDER and path.is_dir() and not path.is_symlink()
    return is_folder and all(
        each.name.removeprefix(".").removesuffix(".part") in KEPT_FILES for each in path.iterdir()
    )


def how_to_choose(out: Path) -> str:
    """Return the verb of a hint on another folder: a caller names it, unless the folder is the default one."""
    is_default = out.absolute().is_relative_to(models_folder().absolute())
    return "set FUNASR_HOME to" if is_default else "name"


@contextmanager
def _output_errors(out: Path) -> Iterator[None]:
    """Turn errors of the system into ours, without temporary names."""
    try:
        yield
    except OSError as error:
        names = [os.fsdecode(name) for name in (error.filename2, error.filename) if name]
        temporary = any(prefix in name for name in names for prefix in (TEMPORARY_PREFIX, ASIDE_PREFIX))
        if not temporary and names and not out.absolute().is_relative_to(Path(names[0]).absolute()):
            raise ModelError(f"{names[0]}: cannot be read ({error.strerror})", code="model-damaged") from error
        message = f"{out}: cannot be written ({OSError(error.errno, error.strerror) if temporary else error})"
        is_full = error.errno in NO_ROOM
        hint = HINTS.get(error.errno or 0, "").format(choose=how_to_choose(out))
        raise OutputError(message, hint, code="disk-full" if is_full else "output-unwritable") from error


# --- publishing, and cleaning up after killed processes ---


def _publish(new: Path, out: Path, replace: bool) -> None:
    """Move the new folder into place and synchronise. An old model goes where the new one was."""
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
    """Put back old models that were not replaced, and remove leftovers of dead processes, if locks work here."""
    with suppress(OSError), _locked(parent) as is_locked:  # no other process is between two renames
        if not is_locked:
            return
        for folder in _real_folders(parent, ASIDE_PREFIX):
            for old in folder.iterdir():
                place = parent / old.name
                # Rename it first: half deleted, it must not look like an old model to the next process.
                old.rename(_random(parent, TEMPORARY_PREFIX) if lexists(place) else place)
            folder.rmdir()
        for folder in _real_folders(parent, TEMPORARY_PREFIX):
            with suppress(OSError), _locked(folder, wait=False) as is_dead:
                if is_dead:
                    shutil.rmtree(folder, ignore_errors=True)


def _random(parent: Path, prefix: str) -> Path:
    return parent / f"{prefix}{secrets.token_hex(RANDOM_BYTES)}"


def _real_folders(parent: Path, prefix: str) -> list[Path]:
    """Return the folders that `_random` named, without links."""
    found = parent.glob(prefix + 2 * RANDOM_BYTES * "[0-9a-f]")
    return [folder for folder in found if folder.is_dir() and not folder.is_symlink()]


@contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a folder; yield False if locks are not supported, as on many network disks.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is false.
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
    """Wait until a file or folder has been written to disk."""
    with _tolerated(), ExitStack() as stack:
        descriptor = os.open(path, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        os.fsync(descriptor)


@contextmanager
def _tolerated() -> Iterator[None]:
    """Ignore errors that mean that the file system does not support an operation."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
