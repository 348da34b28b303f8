"""Sealed blocks kept beside the journal until a mark covers them, for storages that never replace a part.

Everything is written here before a part of it is sent.  After a kill the same bytes are sent once
more under the same numbers, and parts that are there already are recognised.  Nothing is synced: after
a power cut such an upload may have to begin again, but no disk is worn by it.  Files that are removed
before the system writes them back never reach the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

import cbor2

from rozenfmt.errors import ArchiveError, StorageError
from rozenfmt.format.frame import parse_frame, parse_prefix

if TYPE_CHECKING:
    from rozenfmt.format.blocks import SealedBlock

    from .journal import Row

__all__ = ["Spool", "Spooled"]

_END: Final = "end"
_READ: Final = 1 << 20
_LENGTHS: Final = 8


@dataclass(frozen=True, slots=True)
class Spooled:
    """A block as it was sealed.

    Attributes:
        sequence: Its number.
        type: Its type.
        whole_hash: Its hash.
        data: Its bytes.
        pieces: What is in it, for the catalog.
        numbered: Row of ``XREF`` from which on archives got theirs before this block, and the ids of these archives.
    """

    sequence: int
    type: bytes
    whole_hash: bytes
    data: bytes
    pieces: list[Row]
    numbered: tuple[int, list[bytes]]


class Spool:
    """The blocks of one archive from its last mark on.

    Args:
        path: What the names of its files begin with.
        archive_id: 16 bytes.
    """

    def __init__(self, path: str, archive_id: bytes) -> None:
        self._path = path
        self._archive_id = archive_id
        self._file: IO[bytes] | None = None

    def begin(self, sequence: int) -> None:
        """Begin a new file with the block of this number; older ones stay until ``forget``."""
        self.close()
        path = f"{self._path}.{sequence:020d}"
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")

    def add(self, block: SealedBlock, pieces: Sequence[Row], numbered: tuple[int, list[bytes]]) -> None:
        """Keep a block; before any of it is sent."""
        assert self._file is not None
        about = cbor2.dumps([list(map(list, pieces)), *numbered])
        lengths = len(about).to_bytes(4, "little") + block.length.to_bytes(4, "little")
        self._file.write(lengths + about)
        for buffer in block.buffers:
            self._file.write(buffer)
        self._file.flush()

    def forget(self, sequence: int) -> None:
        """Blocks before this one are covered by a mark that has reached the disk."""
        for first, path in self._files():
            if first < sequence:
                with suppress(FileNotFoundError):
                    os.unlink(path)

    def blocks(self, sequence: int) -> Iterator[Spooled]:
        """Blocks from a number on, as far as they are whole and follow each other."""
        for _, path in self._files():
            with open(path, "rb") as file:
                while (found := self._read(file, sequence)) is not None:
                    yield found
                    sequence += 1

    def _read(self, file: IO[bytes], sequence: int) -> Spooled | None:
        lengths = file.read(_LENGTHS)
        about = file.read(int.from_bytes(lengths[:4], "little"))
        data = file.read(int.from_bytes(lengths[4:], "little"))
        if len(lengths) < _LENGTHS or not data:
            return None
        try:
            frame = parse_frame(data, parse_prefix(data, self._archive_id, sequence))
            pieces, first, ids = cbor2.loads(about)
        except (ArchiveError, ValueError, EOFError):  # the end was cut off, or never written
            return None
        rows: list[Row] = [tuple(row) for row in pieces]
        return Spooled(sequence, frame.prefix.type, frame.whole_hash, data, rows, (first, ids))

    def end(self, buffers: Iterator[bytes]) -> Iterator[bytes]:
        """Keep all that comes after the last block, then give it back to be sent.

        Raises:
            StorageError: The disk is full, for example.
        """
        path = f"{self._path}.{_END}"
        try:
            with open(path + "ing", "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.writelines(buffers)
            os.rename(path + "ing", path)
        except OSError as error:
            msg = (
                f"cannot write {path}: {error.strerror}; make room, or give another place (cache_dir), and run it again"
            )
            raise StorageError(msg) from error
        return self.ending()

    def ending(self) -> Iterator[bytes]:
        """All that comes after the last block; nothing if the archive did not come so far."""
        with suppress(FileNotFoundError), open(f"{self._path}.{_END}", "rb") as file:
            while data := file.read(_READ):
                yield data

    @property
    def ended(self) -> bool:
        """Whether the archive came to its end."""
        return os.path.exists(f"{self._path}.{_END}")

    def close(self) -> None:
        """Close the file; what is in it stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Remove everything."""
        self.close()
        for path in [path for _, path in self._files()] + [f"{self._path}.{_END}", f"{self._path}.{_END}ing"]:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def _files(self) -> list[tuple[int, str]]:
        folder, base = os.path.split(self._path)
        found = []
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            last = name[len(base) + 1 :]
            if name.startswith(base + ".") and last.isdecimal():
                found.append((int(last), os.path.join(folder, name)))
        return sorted(found)
