"""The depth-first walk that ``scan`` and ``compare`` share: directories open by descriptor, names in order.

Only the deepest ``OPEN_LIMIT`` directories (and the root) keep their descriptors. An ancestor that lost its
own is reached again by ``..`` and compared with the device and inode it had, so that a directory moved
elsewhere during the walk cannot lead out of the tree.
"""

from __future__ import annotations

import errno
import os
import stat as st
from typing import TYPE_CHECKING

from rozenfmt.errors import SourceError
from rozenfmt.events import Problem
from rozenfmt.format.nodes import Mark
from rozenfmt.tree.platform import EXHAUSTED, NO_ATIME, OPEN_DIRECTORY, OPEN_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rozenfmt.format.nodes import Entry
    from rozenfmt.tree.excludes import Excludes

__all__ = ["DIRECTORY", "FILE", "OPEN_LIMIT", "OTHER", "Frame", "Walk", "open_quietly", "split_root"]

OPEN_LIMIT = 64
"""Directories open at once, the root apart."""

# What a listing says about an entry. It is a hint: whoever opens the entry looks again.
FILE = 0
DIRECTORY = 1
OTHER = 2

_TAG_NAME = b"CACHEDIR.TAG"
_TAG_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


class Frame:
    """A directory that the walk is in."""

    __slots__ = ("device", "entry", "fd", "inode", "inside", "name", "pending")

    def __init__(self, fd: int, name: bytes, entry: Entry, stat: os.stat_result, inside: str) -> None:
        self.fd = fd
        self.name = name
        self.entry = entry
        self.device = stat.st_dev
        self.inode = stat.st_ino
        self.inside = inside
        self.pending: Iterator[tuple[bytes, int]] = iter(())


def split_root(root: bytes) -> tuple[bytes, bytes, bytes]:
    """How to reach a root like any other entry.

    Returns:
        A directory to open, the name to open in it, and the base name to record (``root`` for ``/``).
    """
    head, tail = os.path.split(root)
    if tail not in (b"", b".", b".."):
        return head or b".", tail, tail
    # "/", "a/", ".", "a/..": there is no name to open it by but the path itself, symlinks followed.
    return root or b".", b".", os.path.basename(os.path.realpath(root)) or b"root"


def open_quietly(name: bytes, flags: int, directory: int) -> tuple[int, bool]:
    """Open, without touching the access time where that is allowed.

    Returns:
        The descriptor, and whether it was allowed.

    Raises:
        OSError: As ``open``.
    """
    try:
        return os.open(name, flags | NO_ATIME, dir_fd=directory), True
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        return os.open(name, flags, dir_fd=directory), False


class Walk:
    """The stack of directories.

    Args:
        excludes: What to leave out of the listings.
        skip_caches: Of a directory with a proper ``CACHEDIR.TAG``, list only the tag.
        report: Given what could not be read.
        prefix: Put before the paths in reports.
        open_limit: Directories open at once, the root apart.
    """

    def __init__(
        self,
        *,
        excludes: Excludes | None,
        skip_caches: bool,
        report: Callable[[Problem], None],
        prefix: bytes,
        open_limit: int = OPEN_LIMIT,
    ) -> None:
        self._excludes = excludes
        self._skip_caches = skip_caches
        self._report = report
        self._prefix = prefix
        self._open_limit = open_limit
        self.frames: list[Frame] = []

    def path(self, name: bytes) -> bytes:
        """Path of an entry of the current directory, for reports."""
        return self._prefix + b"/".join([*(frame.name for frame in self.frames), name])

    def problem(self, name: bytes, what: str, detail: str | OSError) -> None:
        """Report something about an entry of the current directory.

        Raises:
            SourceError: If the error is the machine's and would befall every entry.
        """
        if isinstance(detail, OSError):
            if detail.errno in EXHAUSTED:
                message = f"Cannot go on reading at {os.fsdecode(self.path(name))!r}: {detail.strerror}"
                raise SourceError(message) from detail
            detail = detail.strerror or str(detail)
        self._report(Problem(self.path(name), what, detail))

    def push(self, fd: int, entry: Entry, stat: os.stat_result) -> Frame:
        """Go into an open directory, which the walk closes from now on."""
        frames = self.frames
        inside = ""
        if frames and self._excludes is not None:
            inside = f"{frames[-1].inside}{os.fsdecode(entry.name)}/"
        frame = Frame(fd, entry.name, entry, stat, inside)
        listing = self._list(frame)
        frames.append(frame)
        frame.pending = iter(listing)
        if len(frames) > self._open_limit + 1:
            ancestor = frames[-1 - self._open_limit]
            if ancestor.fd >= 0:
                os.close(ancestor.fd)
                ancestor.fd = -1
        return frame

    def pop(self) -> Entry:
        """Leave the current directory and make sure its parent is open again."""
        frames = self.frames
        frame = frames.pop()
        try:
            if frames and frames[-1].fd < 0:
                self._open_again(frame.fd)
        finally:
            if frame.fd >= 0:
                os.close(frame.fd)
        return frame.entry

    def close(self) -> None:
        """Close what is open; for a walk that ends early too."""
        while self.frames:
            frame = self.frames.pop()
            if frame.fd >= 0:
                os.close(frame.fd)

    def _open_again(self, child: int) -> None:
        """Open the current directory by its child's ``..``, or by the names from the root down."""
        frame = self.frames[-1]
        try:
            if child >= 0:
                fd = os.open(b"..", OPEN_DIRECTORY, dir_fd=child)
                if self._is(fd, frame):
                    frame.fd = fd
                    return
            frame.fd = self._descend()
        except OSError as error:
            frame.pending = iter(())
            self.frames.pop()
            try:
                self.problem(frame.name, "vanished", error)
            finally:
                self.frames.append(frame)

    def _descend(self) -> int:
        root, *below = self.frames
        at = root.fd
        for frame in below:
            fd = os.open(frame.name, OPEN_DIRECTORY, dir_fd=at)
            if at != root.fd:
                os.close(at)
            if not self._is(fd, frame):
                raise OSError(errno.ESTALE, "the directory was moved or replaced while it was walked")
            at = fd
        return at

    @staticmethod
    def _is(fd: int, frame: Frame) -> bool:
        """Whether the descriptor is that directory; it is closed if not."""
        stat = os.fstat(fd)
        if stat.st_ino == frame.inode and stat.st_dev == frame.device:
            return True
        os.close(fd)
        return False

    def _list(self, frame: Frame) -> list[tuple[bytes, int]]:
        """Names in bytewise order, each with a hint of its kind; an error is reported and ends the list."""
        found: list[tuple[bytes, int]] = []
        add = found.append
        encode = os.fsencode
        try:
            with os.scandir(frame.fd) as listing:
                for item in listing:
                    if item.is_file(follow_symlinks=False):
                        add((encode(item.name), FILE))
                    elif item.is_dir(follow_symlinks=False):
                        add((encode(item.name), DIRECTORY))
                    else:
                        add((encode(item.name), OTHER))
        except OSError as error:
            frame.entry.marks |= Mark.UNREADABLE
            self.problem(frame.name, "unreadable", error)
        found.sort()
        if self._skip_caches and (_TAG_NAME, FILE) in found and self._is_cache(frame):
            return [(_TAG_NAME, FILE)]
        if self._excludes is not None:
            return self._filtered(found, frame.inside, self._excludes)
        return found

    @staticmethod
    def _filtered(found: list[tuple[bytes, int]], inside: str, excludes: Excludes) -> list[tuple[bytes, int]]:
        excluded = excludes.excluded
        decode = os.fsdecode
        return [item for item in found if not excluded(inside + decode(item[0]), directory=item[1] == DIRECTORY)]

    def _is_cache(self, frame: Frame) -> bool:
        try:
            fd, _ = open_quietly(_TAG_NAME, OPEN_FILE, frame.fd)
        except OSError:
            # The tag itself is an entry of the listing then, and its failure is reported there.
            return False
        try:
            return st.S_ISREG(os.fstat(fd).st_mode) and os.read(fd, len(_TAG_SIGNATURE)) == _TAG_SIGNATURE
        except OSError:
            return False  # likewise
        finally:
            os.close(fd)
