"""What differs between operating systems; everything Linux-specific is here.

Elsewhere contents, names and times are kept; what the platform cannot give is left out
here and reported by the callers.
"""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ACL_ACCESS",
    "ACL_DEFAULT",
    "EXHAUSTED",
    "NO_ATIME",
    "OPEN_DIRECTORY",
    "OPEN_FILE",
    "OPEN_NODE",
    "descriptor_path",
    "has_holes",
    "next_data",
    "next_hole",
    "read_xattrs",
    "rename_new",
    "will_read_forward",
]

NO_ATIME: int = getattr(os, "O_NOATIME", 0)
"""Read without touching the access time; refused by EPERM to whoever does not own the file."""

# O_NONBLOCK: a fifo or device that takes a file's place between listing and opening must not
# block the walk; regular files ignore it.
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
OPEN_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY

OPEN_NODE: int = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW | os.O_CLOEXEC
"""A descriptor that names an inode without opening it: no driver runs, no fifo wakes a writer."""

ACL_ACCESS = "system.posix_acl_access"
ACL_DEFAULT = "system.posix_acl_default"

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors of the machine and not of one entry: going on would only repeat them for every entry."""

_NO_XATTRS = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_RENAME_NOREPLACE = 1


def descriptor_path(fd: int) -> bytes:
    """A path that leads to the very inode of ``fd``, also where ``fd`` is an ``OPEN_NODE`` one.

    The kernel jumps to the inode without resolving a name, so nothing can be planted in between.
    """
    return b"/proc/self/fd/%d" % fd


def read_xattrs(target: int | bytes, failed: Callable[[str, OSError], None]) -> tuple[tuple[bytes, bytes], ...]:
    """Read all extended attributes, sorted by name.

    Args:
        target: Descriptor open for reading, or a path (whose last component is not followed if it is
            a symlink, unless it is a ``descriptor_path``).
        failed: Called with an attribute's name (empty for the list itself) and the error.

    Returns:
        Names and values; empty where the file system has none.
    """
    try:
        names = os.listxattr(target)
    except OSError as error:
        if error.errno not in _NO_XATTRS:
            failed("", error)
        return ()
    if not names:
        return ()
    found = []
    for name in names:
        try:
            found.append((os.fsencode(name), os.getxattr(target, name)))
        except OSError as error:
            failed(name, error)
    found.sort()
    return tuple(found)


def next_data(fd: int, offset: int, end: int) -> int:
    """Offset of the first data at or after ``offset``, at most ``end``."""
    try:
        return min(os.lseek(fd, offset, os.SEEK_DATA), end)
    except OSError as error:
        if error.errno != errno.ENXIO:  # ENXIO: nothing but a hole up to the end
            raise
        return end


def next_hole(fd: int, offset: int, end: int) -> int:
    """Offset of the first hole at or after ``offset``, at most ``end``."""
    try:
        return min(os.lseek(fd, offset, os.SEEK_HOLE), end)
    except OSError as error:
        if error.errno != errno.ENXIO:  # ENXIO: the file was cut short behind us
            raise
        return end


def has_holes(fd: int, size: int) -> bool:
    """Whether the file really has holes; too few blocks may also mean compression or delayed allocation."""
    hole = next_hole(fd, 0, size)
    os.lseek(fd, 0, os.SEEK_SET)
    return hole < size


def will_read_forward(fd: int) -> None:
    """Ask the kernel to read ahead further than usual."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)


@cache
def _renameat2() -> Callable[[int, bytes, bytes], int] | None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "renameat2", None)
    if function is None:
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    get_errno = ctypes.get_errno

    def call(directory: int, old: bytes, new: bytes) -> int:
        if function(directory, old, directory, new, _RENAME_NOREPLACE) == 0:
            return 0
        return get_errno()

    return call


def rename_new(directory: int, old: bytes, new: bytes) -> None:
    """Rename within a directory, never replacing anything.

    Raises:
        FileExistsError: If ``new`` exists.
        OSError: As ``rename``.
    """
    call = _renameat2()
    code = errno.ENOSYS if call is None else call(directory, old, new)
    if code == 0:
        return
    if code not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        raise OSError(code, os.strerror(code), new)
    # A file system without the flag (NFS, some FUSE): the check is apart from the rename, and whoever
    # creates the name in between loses it. Such a race needs a second writer in the destination.
    try:
        os.stat(new, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
