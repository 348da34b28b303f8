"""Reading a local tree for a comparison: entries in the order of an archive, contents only when asked for."""

from __future__ import annotations

import os
import stat as st
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from rozenfmt.errors import SourceError
from rozenfmt.format.nodes import Entry, Kind, Mark
from rozenfmt.tree.capture import GroupNames, LinkGroups, UserNames, entry_of
from rozenfmt.tree.content import Hole, read_chunks
from rozenfmt.tree.platform import OPEN_DIRECTORY, OPEN_FILE, OPEN_NODE, descriptor_path, read_xattrs
from rozenfmt.tree.walk import Walk, open_quietly, split_root

if TYPE_CHECKING:
    from rozenfmt.events import Problem
    from rozenfmt.tree.excludes import Excludes

__all__ = ["OpenContent", "local_entries"]

OpenContent = Callable[[], Iterator[bytes]]

_BLOCK = 512  # the unit of st_blocks
_ZEROS = bytes(1 << 20)


def local_entries(
    root: bytes,
    *,
    report: Callable[[Problem], None],
    excludes: Excludes | None = None,
    one_file_system: bool = False,
    skip_caches: bool = False,
    prefix: bytes = b"",
    entropy: Callable[[int], bytes] = os.urandom,
) -> Iterator[tuple[bytes, Entry, OpenContent]]:
    """Walk a tree as ``Scanner`` does, in the same order, without reading contents.

    Hard links carry a ``link_group``: equal groups tell equal files, their values mean nothing.

    Yields:
        Path relative to the root (empty for the root itself), its entry, and a callable that gives a regular
        file's content as bytes, holes as zeros. A directory comes before what is in it. Call it, and use up
        what it gives, before asking for the next entry; ``SourceError`` is raised if it cannot be read.

    Raises:
        SourceError: If the root cannot be read, or the machine is out of descriptors or memory.
    """
    walk = Walk(excludes=excludes, skip_caches=skip_caches, report=report, prefix=prefix)
    parent_path, opened_as, base = split_root(root)
    parent = -1
    try:
        try:
            parent = os.open(parent_path, OPEN_NODE & ~os.O_NOFOLLOW | os.O_DIRECTORY)
            device = os.stat(opened_as, dir_fd=parent, follow_symlinks=False).st_dev
        except OSError as error:
            message = f"Cannot read the source {os.fsdecode(root)!r}: {error.strerror}"
            raise SourceError(message) from error
        look = _Look(walk, entropy, device if one_file_system else None)
        root_names = iter([(opened_as, base)])
        yield from look.deliver(parent, root_names)
        while walk.frames:
            frame = walk.frames[-1]
            depth = len(walk.frames)
            yield from look.deliver(frame.fd, ((name, name) for name, _ in frame.pending))
            if len(walk.frames) == depth:
                walk.pop()
    finally:
        walk.close()
        if parent >= 0:
            os.close(parent)


class _Look:
    """Captures the entries of directories without opening what is in them."""

    def __init__(self, walk: Walk, entropy: Callable[[int], bytes], only_device: int | None) -> None:
        self._walk = walk
        self._links = LinkGroups(entropy)
        self._users = UserNames()
        self._groups = GroupNames()
        self._only_device = only_device

    def deliver(
        self, directory: int, names: Iterator[tuple[bytes, bytes]]
    ) -> Iterator[tuple[bytes, Entry, OpenContent]]:
        """Yield entries up to and including the first directory that the walk goes into."""
        inside = [frame.name for frame in self._walk.frames[1:]]
        is_root = not self._walk.frames
        for opened_as, name in names:
            found = self._capture(directory, opened_as, name)
            if found is None:
                continue
            entry, stat = found
            path = b"" if is_root else b"/".join([*inside, name])
            yield path, entry, partial(self._content, directory, opened_as, name, stat)
            if entry.kind is Kind.DIRECTORY and self._enter(directory, opened_as, entry, stat):
                return

    def _capture(self, directory: int, opened_as: bytes, name: bytes) -> tuple[Entry, os.stat_result] | None:
        try:
            fd = os.open(opened_as, OPEN_NODE, dir_fd=directory)
        except OSError as error:
            self._walk.problem(name, "vanished", error)
            return None
        try:
            stat = os.fstat(fd)
            target = os.readlink(b"", dir_fd=fd) if st.S_ISLNK(stat.st_mode) else b""
            xattrs = read_xattrs(descriptor_path(fd), partial(self._no_xattr, name))
        except OSError as error:
            self._walk.problem(name, "unreadable", error)
            return None
        finally:
            os.close(fd)
        group = self._group(stat) if stat.st_nlink > 1 and not st.S_ISDIR(stat.st_mode) else None
        entry = entry_of(name, stat, self._users, self._groups, target=target, xattrs=xattrs, link_group=group)
        return entry, stat

    def _group(self, stat: os.stat_result) -> bytes:
        group = self._links.known(stat)
        if group is None:
            group = self._links.begin()
            self._links.delivered(stat, group)
        return group

    def _no_xattr(self, name: bytes, attribute: str, error: OSError) -> None:
        self._walk.problem(name, "xattr", f"{attribute or 'cannot list'}: {error.strerror}")

    def _enter(self, parent: int, opened_as: bytes, entry: Entry, stat: os.stat_result) -> bool:
        if self._only_device is not None and stat.st_dev != self._only_device:
            return False
        try:
            fd, _ = open_quietly(opened_as, OPEN_DIRECTORY, parent)
        except OSError as error:
            self._walk.problem(entry.name, "unreadable", error)
            entry.marks |= Mark.UNREADABLE
            return False
        self._walk.push(fd, entry, os.fstat(fd))
        return True

    @staticmethod
    def _content(directory: int, opened_as: bytes, name: bytes, seen: os.stat_result) -> Iterator[bytes]:
        try:
            fd, _ = open_quietly(opened_as, OPEN_FILE, directory)
            try:
                stat = os.fstat(fd)
                if not st.S_ISREG(stat.st_mode) or (stat.st_dev, stat.st_ino) != (seen.st_dev, seen.st_ino):
                    message = f"{os.fsdecode(name)!r} was replaced while it was compared"
                    raise SourceError(message)
                sparse = stat.st_blocks * _BLOCK < stat.st_size
                yield from _plain(read_chunks(fd, stat.st_size, sparse=sparse))
            finally:
                os.close(fd)
        except OSError as error:
            message = f"Cannot read {os.fsdecode(name)!r}: {error.strerror}"
            raise SourceError(message) from error


def _plain(chunks: Iterator[bytes | Hole]) -> Iterator[bytes]:
    for chunk in chunks:
        if not isinstance(chunk, Hole):
            yield chunk
            continue
        for _ in range(chunk.length // len(_ZEROS)):
            yield _ZEROS
        if rest := chunk.length % len(_ZEROS):
            yield _ZEROS[:rest]
