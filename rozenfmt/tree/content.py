"""Content of one file as a sequence of bytes and holes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from rozenfmt.format.nodes import Entry, Mark
from rozenfmt.tree.platform import next_data, next_hole, will_read_forward

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CHUNK_SIZE", "READ_TRIES", "FileReader", "Hole", "OpenFile", "Readable", "changed", "read_chunks"]

CHUNK_SIZE = 4 << 20
"""Bytes that a reader holds at once."""

READ_TRIES = 4
"""How often a file that changes under the reader is read: once, and three times again."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A run of zeros that takes no space.

    Attributes:
        length: In bytes.
    """

    length: int


def changed(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file was written or replaced, or had its metadata set, between two looks at it."""
    return (
        before.st_mtime_ns != after.st_mtime_ns
        or before.st_ctime_ns != after.st_ctime_ns
        or before.st_size != after.st_size
        or before.st_ino != after.st_ino
    )


def _run(fd: int, start: int, end: int | None, chunk_size: int) -> Iterator[bytes]:
    """Read from ``start`` to ``end``, or to the end of the file if that comes first or ``end`` is None."""
    while end is None or start < end:
        data = os.pread(fd, chunk_size if end is None else min(chunk_size, end - start), start)
        if not data:
            return
        start += len(data)
        yield data


def read_chunks(fd: int, size: int, *, sparse: bool, chunk_size: int = CHUNK_SIZE) -> Iterator[bytes | Hole]:
    """Read a file from its beginning.

    Args:
        fd: Open for reading; its position is of no account afterwards.
        size: As ``fstat`` says. What is appended later is not read, so a growing file has an end; 0 reads to
            the end, since files like those of ``/proc`` are longer than they say.
        sparse: Look for holes.
        chunk_size: Largest piece of data in bytes.

    Raises:
        OSError: If reading fails.
    """
    if not sparse:
        yield from _run(fd, 0, size or None, chunk_size)
        return
    position = 0
    while position < size:
        data = next_data(fd, position, size)
        if data > position:
            yield Hole(data - position)
        position = next_hole(fd, data, size) if data < size else size
        yield from _run(fd, data, position, chunk_size)


class Readable(Protocol):
    """A file that is open, wherever it is."""

    def chunks(self, size: int, *, sparse: bool) -> Iterator[bytes | Hole]:
        """Read it from its beginning; ``OSError`` if that fails."""

    def look(self) -> os.stat_result:
        """Its state now; ``OSError`` if that cannot be told."""


class OpenFile:
    """A local file.

    Args:
        fd: Open for reading.
        chunk_size: Bytes to be read at once.
    """

    def __init__(self, fd: int, chunk_size: int = CHUNK_SIZE) -> None:
        self._fd = fd
        self._chunk_size = chunk_size
        will_read_forward(fd)

    def chunks(self, size: int, *, sparse: bool) -> Iterator[bytes | Hole]:
        """See ``read_chunks``."""
        return read_chunks(self._fd, size, sparse=sparse, chunk_size=self._chunk_size)

    def look(self) -> os.stat_result:
        """As ``fstat``."""
        return os.fstat(self._fd)


class FileReader:
    """Content of a file that is too big, or too sparse, to be read whole. Iterate, then ``finish``.

    Bounded memory: one chunk at a time. A read error ends the iteration; ``finish`` then marks the entry
    ``UNREADABLE`` and what was delivered is to be thrown away. If the file changed while it was read,
    ``finish`` marks it ``CHANGED``, and ``rewind`` allows another try if the consumer can take one.
    """

    def __init__(self, file: Readable, entry: Entry, stat: os.stat_result) -> None:
        self._file = file
        self._entry = entry
        self._stat = stat
        self._size = 0
        self._tries = 1
        self._changed: bool | None = None  # as the first look after an iteration had it
        self.error: OSError | None = None

    def __iter__(self) -> Iterator[bytes | Hole]:
        self._size = 0
        self._changed = None
        sparse = bool(self._entry.marks & Mark.SPARSE)
        chunks = self._file.chunks(self._stat.st_size, sparse=sparse)
        while True:
            # Only the read is guarded: an OSError of the consumer is not the file's.
            try:
                chunk = next(chunks, None)
            except OSError as error:
                self.error = error
                return
            if chunk is None:
                return
            self._size += chunk.length if isinstance(chunk, Hole) else len(chunk)
            yield chunk

    def finish(self) -> Entry:
        """The entry as it was really read: its size, and marks for what went wrong.

        What is done to the file after the first call is no matter of what was read.
        """
        marks = self._entry.marks
        try:
            if self._changed is None:
                self._changed = changed(self._stat, self._file.look())
            if self._changed:
                marks |= Mark.CHANGED
        except OSError as error:
            self.error = error
        if self.error is not None:
            marks |= Mark.UNREADABLE
        return replace(self._entry, size=self._size, marks=marks)

    def rewind(self) -> bool:
        """Make ready to be iterated again, from the file as it is now.

        Returns:
            False if the tries are used up: keep what was read, marked ``CHANGED``.
        """
        if self._tries == READ_TRIES:
            return False
        self._tries += 1
        try:
            self._stat = self._file.look()
        except OSError as error:
            self.error = error
            return False
        self.error, self._changed = None, None
        self._entry = replace(self._entry, size=self._stat.st_size, mtime_ns=self._stat.st_mtime_ns)
        return True
