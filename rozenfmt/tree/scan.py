"""Walking and capturing a local tree.

One pass, depth first, names in bytewise order. Every entry is opened relative to its directory's descriptor
and never through a symlink, so neither a race nor a planted link leads out of the tree, and the length of
paths does not matter. What cannot be read is reported and the walk goes on.
"""

from __future__ import annotations

import errno
import os
import stat as st
from typing import TYPE_CHECKING, Protocol

from rozenfmt.errors import SourceError
from rozenfmt.format.nodes import Entry, Kind, Mark
from rozenfmt.tree.capture import GroupNames, LinkGroups, UserNames, entry_of
from rozenfmt.tree.content import CHUNK_SIZE, READ_TRIES, FileReader, OpenFile, changed
from rozenfmt.tree.platform import (
    NO_ATIME,
    OPEN_DIRECTORY,
    OPEN_FILE,
    OPEN_NODE,
    descriptor_path,
    has_holes,
    read_xattrs,
)
from rozenfmt.tree.walk import DIRECTORY, FILE, Walk, open_quietly, split_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from rozenfmt.events import Problem
    from rozenfmt.tree.excludes import Excludes

__all__ = ["SMALL_LIMIT", "Known", "Scanner", "Sink"]

SMALL_LIMIT = 4 << 20
"""Files up to so many bytes are read whole."""

SPARSE_MINIMUM = 64 << 10
"""Smaller files are not looked at for holes: finding one saves nothing."""

_PSEUDO_READ = 64 << 10
_BLOCK = 512  # the unit of st_blocks, whatever the file system's own block size
_MOVED = frozenset({errno.ENOENT, errno.ESTALE})
_OTHER_KIND = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENODEV, errno.EISDIR})


class Sink(Protocol):
    """Takes what a ``Scanner`` finds, on its thread. What a method raises ends the scan.

    During a call, ``Scanner.stat`` is the ``stat_result`` of the entry, with what an ``Entry`` leaves out.
    """

    def enter(self, entry: Entry) -> None:
        """A directory begins; the root too. One that cannot be listed is marked ``UNREADABLE``."""

    def leave(self, entry: Entry) -> None:
        """A directory ends: the entry that ``enter`` was given."""

    def small(self, entry: Entry, data: bytes) -> None:
        """A regular file with its whole content."""

    def stream(self, entry: Entry, reader: FileReader) -> None:
        """A big or sparse regular file. ``reader.finish()`` gives the final entry."""

    def link(self, entry: Entry) -> None:
        """Another name of a file that was delivered before with the same ``link_group``."""

    def other(self, entry: Entry) -> None:
        """A symlink, fifo, device or socket, or a file marked ``UNREADABLE``.

        Each name of a hard-linked one comes here, complete, with the ``link_group`` that they share.
        """


class Known(Protocol):
    """Remembers files, so that those that did not change are not read (``Scanner(known=…)``).

    Asked in the order of the walk, for regular files, before they are opened.
    """

    def same(self, name: bytes, stat: os.stat_result) -> bool:
        """Whether a file is known and nothing about it has changed, so that it need not be delivered at all."""

    def unchanged(self, name: bytes, stat: os.stat_result) -> Entry | None:
        """The entry as it was stored, if nothing about the file has changed; goes to ``taken``."""

    def content_known(self, name: bytes, stat: os.stat_result) -> bool:
        """Whether only the metadata need be captured; the entry goes to ``described``."""

    def taken(self, entry: Entry) -> None:
        """An entry that ``unchanged`` gave, with the link group it has now."""

    def described(self, entry: Entry) -> None:
        """An entry without content, of a file of which ``content_known`` said so."""


class Scanner:
    """Walks one source.

    Args:
        root: Path of a directory or of any other entry; as itself if it is a symlink.
        report: Given each ``Problem``: ``unreadable``, ``vanished``, ``changed``, ``xattr``.
        excludes: Patterns relative to the root.
        one_file_system: Do not go below mount points; their directories are captured empty.
        skip_caches: Of a directory with a valid ``CACHEDIR.TAG``, capture itself and the tag only.
        prefix: Put before the root's name in reported paths.
        name: Name of the root's entry; its base name by default, ``root`` for ``/``.
        small_limit: Files up to so many bytes are read whole.
        chunk_size: Bytes that a ``FileReader`` reads at once.
        entropy: Source of the random ids of hard-link groups.
        known: What is remembered of earlier walks.
        links: Remembers files with several names; give the same one to all sources that may share files.

    Attributes:
        stat: Of the entry that the sink is given now.
    """

    def __init__(
        self,
        root: bytes,
        *,
        report: Callable[[Problem], None],
        excludes: Excludes | None = None,
        one_file_system: bool = False,
        skip_caches: bool = False,
        prefix: bytes = b"",
        name: bytes | None = None,
        small_limit: int = SMALL_LIMIT,
        chunk_size: int = CHUNK_SIZE,
        entropy: Callable[[int], bytes] = os.urandom,
        known: Known | None = None,
        links: LinkGroups | None = None,
    ) -> None:
        self._known = known
        self._parent, self._opened_as, base = split_root(root)
        self._name = base if name is None else name
        self._root = root
        self._one_file_system = one_file_system
        self._small_limit = small_limit
        self._chunk_size = chunk_size
        self._walk = Walk(excludes=excludes, skip_caches=skip_caches, report=report, prefix=prefix)
        self._links = LinkGroups(entropy) if links is None else links
        self._users = UserNames()
        self._groups = GroupNames()
        self._file_flags = OPEN_FILE | NO_ATIME
        self._device = -1
        self._sink: Sink
        self.stat: os.stat_result

    def run(self, sink: Sink) -> None:
        """Deliver everything to ``sink``.

        Raises:
            SourceError: If the root cannot be read, or the machine is out of descriptors or memory.
        """
        self._sink = sink
        try:
            self._begin()
            self._loop()
        finally:
            self._walk.close()

    def _begin(self) -> None:
        """Deliver the root; if it is a directory, the walk is in it afterwards."""
        try:
            parent = os.open(self._parent, OPEN_NODE & ~os.O_NOFOLLOW | os.O_DIRECTORY)
        except OSError as error:
            raise self._no_root(error) from error
        try:
            kind = self._look(parent)
            if kind == st.S_IFDIR:
                self._directory(parent, self._opened_as, self._name)
            elif kind == st.S_IFREG:
                (self._file if self._known is None else self._remembered)(parent, self._opened_as, self._name)
            else:
                self._other(parent, self._opened_as, self._name)
        finally:
            os.close(parent)

    def _look(self, parent: int) -> int:
        """The root's kind. A root that cannot be read is an error: it is not one entry among many."""
        try:
            stat = os.stat(self._opened_as, dir_fd=parent, follow_symlinks=False)
            kind = st.S_IFMT(stat.st_mode)
            if kind == st.S_IFDIR:
                os.close(os.open(self._opened_as, OPEN_DIRECTORY, dir_fd=parent))
        except OSError as error:
            raise self._no_root(error) from error
        self._device = stat.st_dev
        return kind

    def _no_root(self, error: OSError) -> SourceError:
        return SourceError(f"Cannot read the source {os.fsdecode(self._root)!r}: {error.strerror}")

    def _loop(self) -> None:
        frames = self._walk.frames
        file = self._file if self._known is None else self._remembered
        while frames:
            frame = frames[-1]
            fd = frame.fd
            for name, hint in frame.pending:
                if hint == FILE:
                    file(fd, name, name)
                elif hint == DIRECTORY:
                    if self._directory(fd, name, name):
                        break
                else:
                    self._other(fd, name, name)
            else:
                self._sink.leave(self._walk.pop())
                self._file_flags = OPEN_FILE | NO_ATIME

    def _remembered(self, directory: int, opened_as: bytes, name: bytes) -> None:
        """Deliver a regular file, without reading it if it is known."""
        known = self._known
        assert known is not None
        try:
            stat = os.stat(opened_as, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            self._unopened(directory, opened_as, name, error)
            return
        if stat.st_mode & 0o170000 != st.S_IFREG:
            self._file(directory, opened_as, name)
            return
        if known.same(name, stat):
            return
        self.stat = stat
        entry = known.unchanged(name, stat)
        if entry is None:
            self._file(directory, opened_as, name, describe=known.content_known(name, stat))
            return
        if stat.st_nlink > 1:
            group = self._links.known(stat)
            if group is None:
                group = entry.link_group or self._links.begin()
                self._links.delivered(stat, group)
            entry.link_group = group
        known.taken(entry)

    def _file(self, directory: int, opened_as: bytes, name: bytes, *, describe: bool = False) -> None:
        """Deliver a regular file. This is the hot path: a few system calls and one ``Entry``."""
        try:
            try:
                fd = os.open(opened_as, self._file_flags, dir_fd=directory)
            except PermissionError as error:
                if error.errno != errno.EPERM or self._file_flags == OPEN_FILE:
                    raise
                fd = os.open(opened_as, OPEN_FILE, dir_fd=directory)
                self._file_flags = OPEN_FILE  # somebody else's: likely so for the rest of this directory
        except OSError as error:
            self._unopened(directory, opened_as, name, error)
            return
        try:
            found = self._read(fd, name, describe=describe)
            if found is None:
                return
            self.stat = stat = found[0]
            entry = found[1]
            if found[2] is not None:
                self._sink.small(entry, found[2])
            elif describe and self._known is not None and stat.st_mode & 0o170000 == st.S_IFREG:
                self._known.described(entry)
            elif entry.marks & Mark.UNREADABLE:
                self._sink.other(entry)
                return
            elif stat.st_mode & 0o170000 != st.S_IFREG:
                self._other(directory, opened_as, name)
                return
            elif not self._stream(fd, entry):
                return
            if entry.link_group is not None:
                self._links.delivered(self.stat, entry.link_group)
        finally:
            os.close(fd)

    def _read(
        self, fd: int, name: bytes, *, describe: bool = False
    ) -> tuple[os.stat_result, Entry, bytes | None] | None:
        """Look at an open file and read it if it is small.

        Returns:
            None if it was delivered as a link or reported; else its stat, its entry, and its content unless
            it is to be streamed, is unreadable, or is no regular file (any more).
        """
        try:
            stat = os.fstat(fd)
        except OSError as error:
            self._walk.problem(name, "unreadable", error)
            return None
        try:
            attributes = os.listxattr(fd)
            xattrs = self._xattrs(fd, name) if attributes else ()
        except OSError:
            xattrs = self._xattrs(fd, name)
        uid = stat.st_uid
        gid = stat.st_gid
        size = stat.st_size
        mode = stat.st_mode
        entry = Entry(
            name,
            Kind.FILE,
            mode & 0o7777,
            uid,
            gid,
            self._users[uid],
            self._groups[gid],
            stat.st_mtime_ns,
            size,
            b"",
            None,
            None,
            xattrs,
        )
        if mode & 0o170000 != st.S_IFREG:
            return stat, entry, None
        if stat.st_nlink > 1:
            group = self._links.known(stat)
            entry.link_group = self._links.begin() if group is None else group
            if group is not None:
                self.stat = stat
                self._sink.link(entry)
                return None
        if describe:
            return stat, entry, None
        try:
            if size > self._small_limit or (size >= SPARSE_MINIMUM and stat.st_blocks * _BLOCK < size):
                if size >= SPARSE_MINIMUM and stat.st_blocks * _BLOCK < size and has_holes(fd, size):
                    entry.marks |= Mark.SPARSE
                if entry.marks or size > self._small_limit:
                    return stat, entry, None
            data = os.read(fd, size + 1 if size else _PSEUDO_READ)
            after = os.fstat(fd)
            if (
                len(data) == size
                and after.st_mtime_ns == stat.st_mtime_ns
                and after.st_ctime_ns == stat.st_ctime_ns
                and after.st_size == size
            ):
                return stat, entry, data
            return self._read_again(fd, stat, entry, data)
        except OSError as error:
            return self._unreadable(stat, entry, error)

    def _read_again(
        self, fd: int, stat: os.stat_result, entry: Entry, data: bytes
    ) -> tuple[os.stat_result, Entry, bytes | None]:
        """The first read was short or long, or the file changed under it: read until it holds still."""
        for attempt in range(READ_TRIES):
            if attempt:
                stat = os.fstat(fd)
                data = os.pread(fd, stat.st_size + 1, 0)
            # Files like those of /proc are longer or shorter than they say and change without a trace; a
            # network file system may give less than it was asked for.
            while len(data) <= self._small_limit:
                more = os.pread(fd, max(_PSEUDO_READ, stat.st_size + 1 - len(data)), len(data))
                if not more:
                    break
                data += more
            else:
                stat = os.fstat(fd)
                entry.size = stat.st_size
                return stat, entry, None
            entry.size = len(data)
            entry.mtime_ns = stat.st_mtime_ns
            if not changed(stat, os.fstat(fd)):
                return stat, entry, data
        entry.marks |= Mark.CHANGED
        self._walk.problem(entry.name, "changed", "the file changed each time while it was read")
        return stat, entry, data

    def _unreadable(
        self, stat: os.stat_result, entry: Entry, error: OSError
    ) -> tuple[os.stat_result, Entry, bytes | None]:
        self._walk.problem(entry.name, "unreadable", error)
        entry.marks |= Mark.UNREADABLE
        return stat, entry, None

    def _stream(self, fd: int, entry: Entry) -> bool:
        """Deliver a big or sparse file; False if it turned out to be unreadable."""
        reader = FileReader(OpenFile(fd, self._chunk_size), entry, self.stat)
        self._sink.stream(entry, reader)
        marks = reader.finish().marks
        if reader.error is not None:
            self._walk.problem(entry.name, "unreadable", reader.error)
            return False
        if marks & Mark.CHANGED:
            self._walk.problem(entry.name, "changed", "the file changed while it was read")
        return True

    def _directory(self, parent: int, opened_as: bytes, name: bytes) -> bool:
        """Deliver a directory and go into it; False if the walk stays where it is."""
        try:
            fd, _ = open_quietly(opened_as, OPEN_DIRECTORY, parent)
        except OSError as error:
            self._unopened(parent, opened_as, name, error)
            return False
        entered = False
        try:
            try:
                self.stat = stat = os.fstat(fd)
            except OSError as error:
                self._walk.problem(name, "unreadable", error)
                return False
            entry = entry_of(name, stat, self._users, self._groups, xattrs=self._xattrs(fd, name))
            self._sink.enter(entry)
            if self._one_file_system and stat.st_dev != self._device:
                self._sink.leave(entry)
                return False
            self._walk.push(fd, entry, stat)
            entered = True
            self._file_flags = OPEN_FILE | NO_ATIME
            return True
        finally:
            if not entered:
                os.close(fd)

    def _unopened(self, directory: int, opened_as: bytes, name: bytes, error: OSError) -> None:
        """A file or directory could not be opened: it vanished, became something else, or is refused."""
        if error.errno in _MOVED:
            self._walk.problem(name, "vanished", error)
        elif error.errno in _OTHER_KIND:
            self._other(directory, opened_as, name)
        else:
            self._walk.problem(name, "unreadable", error)
            self._other(directory, opened_as, name, unreadable=True)

    def _other(self, directory: int, opened_as: bytes, name: bytes, *, unreadable: bool = False) -> None:
        """Deliver what has no content to read, by a descriptor that does not open it."""
        try:
            fd = os.open(opened_as, OPEN_NODE, dir_fd=directory)
        except OSError as error:
            self._walk.problem(name, "vanished" if error.errno in _MOVED else "unreadable", error)
            return
        try:
            self.stat = stat = os.fstat(fd)
            regular = st.S_ISREG(stat.st_mode) or st.S_ISDIR(stat.st_mode)
            if regular and not unreadable:
                self._walk.problem(name, "changed", "it was replaced while it was read: no content is captured")
            target = os.readlink(b"", dir_fd=fd) if st.S_ISLNK(stat.st_mode) else b""
            entry = entry_of(
                name,
                stat,
                self._users,
                self._groups,
                target=target,
                xattrs=self._xattrs(descriptor_path(fd), name),
                marks=Mark.UNREADABLE if regular else 0,
            )
        except OSError as error:
            self._walk.problem(name, "unreadable", error)
            return
        finally:
            os.close(fd)
        if stat.st_nlink > 1 and not regular:
            entry.link_group = self._links.known(stat)
            if entry.link_group is None:
                entry.link_group = self._links.begin()
                self._links.delivered(stat, entry.link_group)
        if entry.kind is Kind.DIRECTORY:
            self._sink.enter(entry)
            self._sink.leave(entry)
        else:
            self._sink.other(entry)

    def _xattrs(self, target: int | bytes, name: bytes) -> tuple[tuple[bytes, bytes], ...]:
        def failed(attribute: str, error: OSError) -> None:
            detail = f"{attribute}: {error.strerror}" if attribute else f"cannot list: {error.strerror}"
            self._walk.problem(name, "xattr", detail)

        return read_xattrs(target, failed)
