"""The directories of a restore: handles, the few open descriptors, and what is still to be finished."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from rozenfmt.errors import UsageError
from rozenfmt.tree.attributes import drop_inherited_acls
from rozenfmt.tree.platform import ACL_DEFAULT, OPEN_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rozenfmt.format.nodes import Entry

__all__ = ["OPEN_LIMIT", "Directories", "Directory", "valid_name"]

OPEN_LIMIT = 64
"""Directories open at once, the destination apart."""

_OWNER_ALL = 0o700


def valid_name(name: bytes) -> bool:
    """Whether a name stays in the directory it is given in."""
    return bool(name) and b"/" not in name and b"\0" not in name and name not in (b".", b"..")


class Directory:
    """A directory of the destination.

    Attributes:
        parent: None for the destination itself.
        entry: What its metadata will be; None for the destination itself.
        before: Names that stood in it before this run and were not replaced since.
        inherits: It has a default ACL, which new entries in it get unasked.
    """

    __slots__ = ("before", "children", "device", "entry", "inherits", "inode", "left", "parent")

    def __init__(self, parent: Directory | None, entry: Entry | None, stat: os.stat_result) -> None:
        self.parent = parent
        self.entry = entry
        self.device = stat.st_dev
        self.inode = stat.st_ino
        self.before: set[bytes] = set()
        self.inherits = False
        self.children = 0  # directories in it that are not complete
        self.left = False

    @property
    def name(self) -> bytes:
        """Its base name; empty for the destination."""
        return b"" if self.entry is None else self.entry.name

    def path(self, name: bytes) -> bytes:
        """Path of an entry in it, relative to the destination."""
        parts = [name]
        at: Directory | None = self
        while at is not None and at.parent is not None:
            parts.append(at.name)
            at = at.parent
        return b"/".join(reversed(parts))


class Directories:
    """Opens, makes and remembers directories.

    Args:
        destination: Path of the root, made if it is missing.

    Raises:
        OSError: If it cannot be made or opened.
    """

    def __init__(self, destination: bytes) -> None:
        with contextlib.suppress(FileExistsError):  # wanted; whether it is a directory is seen next
            os.mkdir(destination)
        self._root_fd = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.root = Directory(None, None, os.fstat(self._root_fd))
        self._look_inside(self.root, self._root_fd)
        self._open: dict[Directory, int] = {}  # in order of last use
        self._last = self.root
        self._last_fd = self._root_fd
        self._pending: dict[Directory, None] = {}  # in order of making: parents come first

    def descriptor(self, directory: Directory) -> int:
        """Descriptor of a directory, opened again if need be; valid until the next call.

        Raises:
            OSError: If it cannot be reached any more, ``ESTALE`` if another one is in its place.
        """
        if directory is self._last:
            return self._last_fd
        if directory is self.root:
            fd = self._root_fd
        elif directory in self._open:
            fd = self._open.pop(directory)
            self._keep(directory, fd)
        else:
            fd = self._reach(directory)
        self._last = directory
        self._last_fd = fd
        return fd

    def make(self, parent: Directory, entry: Entry) -> Directory:
        """Make a directory with all rights for its owner only, or enter one that stood there before.

        Raises:
            FileExistsError: If something that this run made ended at this name.
            OSError: If it cannot be made or is not a directory (``ENOTDIR``, ``ELOOP``).
        """
        name = entry.name
        at = self.descriptor(parent)
        new = True
        try:
            os.mkdir(name, _OWNER_ALL, dir_fd=at)
        except FileExistsError:
            if name not in parent.before:
                raise
            new = False
        fd = os.open(name, OPEN_DIRECTORY, dir_fd=at)
        try:
            stat = os.fstat(fd)
            directory = Directory(parent, entry, stat)
            if not new:
                # Without its owner's rights nothing could be put into it; its mode is set when it is left.
                if stat.st_uid == os.geteuid() and stat.st_mode & _OWNER_ALL != _OWNER_ALL:
                    os.chmod(fd, stat.st_mode & 0o7777 | _OWNER_ALL)
                self._look_inside(directory, fd)
                parent.before.discard(name)
            elif parent.inherits:
                drop_inherited_acls(fd, directory=True)
                os.chmod(fd, _OWNER_ALL)  # which the default ACL may have narrowed
        except BaseException:
            os.close(fd)
            raise
        self._keep(directory, fd)
        self._last = directory
        self._last_fd = fd
        parent.children += 1
        self._pending[directory] = None
        return directory

    def resolve(self, components: tuple[bytes, ...]) -> int:
        """Open a directory by its path below the root, one component at a time; the caller closes it.

        Raises:
            OSError: If there is none, or a symlink is on the way.
        """
        at = os.dup(self._root_fd)
        for name in components:
            try:
                below = os.open(name, OPEN_DIRECTORY, dir_fd=at)
            finally:
                os.close(at)
            at = below
        return at

    def complete(self, directory: Directory) -> Iterator[Directory]:
        """Note that nothing more comes into a directory.

        Yields:
            Directories that are complete now, this one and then ancestors that waited for it.

        Raises:
            UsageError: If it is the destination, or was left before.
        """
        if directory.parent is None or directory.left:
            message = "leave() without a directory to leave: each enter() that gave a handle allows one"
            raise UsageError(message)
        directory.left = True
        at: Directory | None = directory
        while at is not None and at.left and not at.children:
            yield at
            at = at.parent

    def remaining(self) -> Iterator[Directory]:
        """Yield all directories that are not complete, children before their parents."""
        for directory in reversed(list(self._pending)):
            directory.left = True
            yield directory

    def forget(self, directory: Directory) -> None:
        """Its metadata is set: close it and drop what is remembered of it."""
        if self._pending.pop(directory, self) is self:
            return
        directory.before.clear()
        if directory.parent is not None:
            directory.parent.children -= 1
        fd = self._open.pop(directory, -1)
        if fd >= 0:
            os.close(fd)
        if directory is self._last:
            self._last = self.root
            self._last_fd = self._root_fd

    def close(self) -> None:
        """Close all descriptors."""
        self._pending.clear()
        while self._open:
            os.close(self._open.popitem()[1])
        self._last = self.root
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = self._last_fd = -1

    def _keep(self, directory: Directory, fd: int) -> None:
        self._open[directory] = fd
        if len(self._open) > OPEN_LIMIT:
            oldest = next(iter(self._open))
            os.close(self._open.pop(oldest))

    def _reach(self, directory: Directory) -> int:
        """Open a directory from the nearest ancestor that is open; those on the way stay open for a while.

        So the directories of a deep tree can be finished one after the other, from the leaves up, without
        going all the way down for each.
        """
        self._last, self._last_fd = self.root, self._root_fd  # what was last may be closed on the way
        way: list[Directory] = []
        at = directory
        while at.parent is not None and at not in self._open:
            way.append(at)
            at = at.parent
        fd = self._open.get(at, self._root_fd)
        for step in reversed(way):
            fd = os.open(step.name, OPEN_DIRECTORY, dir_fd=fd)
            stat = os.fstat(fd)
            if stat.st_ino != step.inode or stat.st_dev != step.device:
                os.close(fd)
                raise OSError(errno.ESTALE, "the directory was moved or replaced while it was restored")
            self._keep(step, fd)
        return fd

    @staticmethod
    def _look_inside(directory: Directory, fd: int) -> None:
        """Note what stands in a directory that this run did not make."""
        with os.scandir(fd) as listing:
            directory.before = {os.fsencode(item.name) for item in listing}
        try:
            directory.inherits = bool(os.getxattr(fd, ACL_DEFAULT))
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise
