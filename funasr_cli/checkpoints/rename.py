"""Renames that never overwrite, and two folders that swap their names: what ``os.rename`` does not offer."""

import ctypes
import errno
import os
import sys
from pathlib import Path

# Flags of renamex_np, from <sys/stdio.h>, and of renameat2, from <linux/fs.h>.
NO_REPLACE, EXCHANGE = (4, 2) if sys.platform == "darwin" else (1, 2)
AT_FDCWD = -100  # paths are relative to the current folder
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def rename_new(source: Path, target: Path) -> None:
    """Rename; whatever goes by the new name stays, be it an empty folder, which ``os.rename`` would replace.

    Raises:
        FileExistsError: there is something of that name, or a link that leads nowhere.
    """
    if _rename(source, target, NO_REPLACE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)  # what comes between is safe, too, unless it is an empty folder


def exchange(first: Path, second: Path) -> bool:
    """Let two paths swap what they stand for, at once; False where the file system cannot do that."""
    return _rename(first, second, EXCHANGE)


def _rename(source: Path, target: Path, flag: int) -> bool:
    """Whether it has been done; False where the system or the file system does not know the flag."""
    libc = ctypes.CDLL(None, use_errno=True)
    old, new = os.fsencode(source), os.fsencode(target)
    try:
        if sys.platform == "darwin":
            failed = libc.renamex_np(old, new, flag)
        else:
            failed = libc.renameat2(AT_FDCWD, old, AT_FDCWD, new, flag)
    except AttributeError:  # an older C library
        return False
    if failed and ctypes.get_errno() not in UNSUPPORTED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(source), None, str(target))
    return not failed
