"""Contents in parts, hashed while the blocks that hold their parts pass by.

Who verifies reads archives from the first byte to the last, and parts nearly always lie in them in
order: so the whole of a content can be compared with its id without reading its parts again.  What
comes early is kept for a while: a chunk of zeros, say, is stored once, where it was met first, and
wanted again and again.  Where something was changed, the new parts lie in another archive: these are
fetched when their turn comes, a block at a time, since the other way would be to read all of the
content again.  A content of which too much comes early or is to be fetched, or a part does not come
at all, is left to those who read it part by part.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from rozenfmt.archive.streamwriter import hash_zeros
from rozenfmt.errors import ArchiveError, StorageError
from rozenfmt.format.blocks import Block, cut_pieces
from rozenfmt.format.index import RunStore, Sorter
from rozenfmt.format.nodes import Part

__all__ = ["HASHED_HOLES", "Again", "PassingContents", "Whole"]

HASHED_HOLES: Final = 64 << 30
"""Beyond this, the zeros of a content's holes are not hashed: it would take minutes."""

# Archive, block, content, part, piece, length, hole before it, and hole behind it; that is -1 if a part follows.
_ROW: Final = struct.Struct(">IQIQQQQq")
_PLACE: Final = struct.Struct(">IQ")
_MOST_OPEN: Final = 1_024  # contents that are hashed side by side, of 2 KiB each
_MOST_KEPT: Final = 32 << 20  # bytes of pieces that came early
_MOST_WAITING: Final = 65_536  # parts that these are
# Of a content, blocks are fetched for so many bytes more than have passed: reading it again would cost as much.
_FETCHED_MORE: Final = 8 << 20
_BLOCK: Final = 4 << 20

Whole = Callable[[int, bytes, int], None]
"""Told of a content that has passed: its number, its plain digest, and how many bytes of it are stored."""

Again = Callable[[int], tuple[Iterable[tuple[int, Part]], Callable[[Part], memoryview]]]
"""For a content, by its number: its parts once more, with the numbers of their archives, and what reads one of them.

Both raise what says that an archive is damaged, or the storage fails.
"""


@dataclass(slots=True)
class _Piece:
    """A piece that came early, once for all parts that are made of it."""

    data: bytes
    waiting: int = 0


@dataclass(slots=True)
class _Open:
    """A content of which parts have passed: how many are hashed, and those that came early."""

    parts: int = 0
    stored: int = 0
    hasher: blake3 = field(default_factory=blake3)
    early: dict[int, tuple[_Piece, int, int]] = field(default_factory=dict)
    missing: _Missing | None = None


@dataclass(slots=True)
class _Missing:
    """What fetches the parts of a content that lie in other archives."""

    parts: Iterator[tuple[int, Part, int]]
    read: Callable[[Part], memoryview]
    next: int = 0  # number of the part that comes next out of ``parts``
    held: tuple[int, Part, int] | None = None  # the one that came last, if it was not used
    block: tuple[int, int] = (-1, -1)
    fetched: int = 0


class PassingContents:
    """First all contents are noted, then blocks are taken in the order of their archives' numbers.

    Args:
        runs: Where sorted rows go.
        whole: Told of each content that has passed in order.
        again: What gives parts that lie in other archives.
    """

    def __init__(self, runs: RunStore, whole: Whole, again: Again) -> None:
        self._sorter = Sorter(runs, _ROW.size)
        self._whole = whole
        self._again = again
        self._rows: Iterator[bytes] | None = None
        self._next = b""
        self._open: dict[int, _Open] = {}
        self._over: set[int] = set()  # given up, or told although not all parts have passed
        self._kept = 0
        self._waiting = 0

    def add(self, content: int, parts: Iterable[tuple[int, Part]]) -> None:
        """Note a content: its own number, and its parts with the numbers of their archives."""
        waiting: tuple[int, ...] | None = None  # until it is known what follows
        count = hole = holes = 0
        for archive, part in parts:
            if part.id is None:
                hole += part.length
                holes += part.length
            elif holes <= HASHED_HOLES:
                if waiting is not None:
                    self._sorter.add(_ROW.pack(*waiting, -1))
                waiting = (archive, part.block, content, count, part.piece, part.length, hole)
                count, hole = count + 1, 0
        if waiting is not None and holes <= HASHED_HOLES:
            self._sorter.add(_ROW.pack(*waiting, hole))

    def take(self, archive: int, block: Block) -> None:
        """Look at the next block that is right, a ``PACK``."""
        if self._rows is None:
            self._rows = iter(self._sorter)
            self._next = next(self._rows, b"")
        if not self._next:
            return
        copies: dict[int, _Piece] = {}
        for content, part, piece, length, before, behind in self._due(archive, block.sequence):
            if content in self._over:
                continue
            one = self._one(content)
            pieces = cut_pieces(block)
            if one is None or piece >= len(pieces) or len(pieces[piece]) != length:
                self._give_up(content)
            elif part < one.parts:
                continue  # it was fetched
            elif part == one.parts or self._fill(archive, content, one, part):
                self._hash(content, one, pieces[piece], before, behind)
            elif content in self._open:
                self._keep(one, part, copies.setdefault(piece, _Piece(b"")), pieces[piece], before, behind)
                if self._kept > _MOST_KEPT or self._waiting > _MOST_WAITING:
                    self._give_up(content)

    def _one(self, content: int) -> _Open | None:
        """A content that a part of passes; None if it was given up just now."""
        one = self._open.get(content)
        if one is None:
            one = self._open[content] = _Open()
            if len(self._open) > _MOST_OPEN:
                self._give_up(next(iter(self._open)))
        return one

    def _hash(self, content: int, one: _Open, data: bytes | memoryview, before: int, behind: int) -> None:
        """Hash the next part of a content, and those after it that came early."""
        while True:
            hash_zeros(one.hasher, before)
            one.hasher.update(data)
            one.parts += 1
            one.stored += len(data)
            if behind >= 0:
                hash_zeros(one.hasher, behind)
                del self._open[content]
                if one.missing is not None:
                    self._over.add(content)
                self._whole(content, one.hasher.digest(), one.stored)
                return
            found = one.early.pop(one.parts, None)
            if found is None:
                return
            piece, before, behind = found
            data = piece.data
            self._release(piece)

    def _fill(self, archive: int, content: int, one: _Open, until: int) -> bool:
        """Whether all parts before one that is in this archive were fetched from others."""
        try:
            missing = one.missing
            if missing is None:
                parts, read = self._again(content)
                missing = one.missing = _Missing(_stored(parts), read)
            while one.parts < until:
                while missing.held is None or missing.next <= one.parts:
                    missing.held = next(missing.parts)
                    missing.next += 1
                number, part, before = missing.held
                place = (number, part.block)
                if place != missing.block:
                    if number == archive or missing.fetched + _BLOCK > _FETCHED_MORE + one.stored:
                        return False
                    missing.block = place
                    missing.fetched += _BLOCK
                self._hash(content, one, missing.read(part), before, -1)
        except (ArchiveError, StorageError, StopIteration):
            self._give_up(content)  # who reads it again tells why
            return False
        return True

    def _keep(self, one: _Open, part: int, piece: _Piece, data: memoryview, before: int, behind: int) -> None:
        if not piece.waiting:
            piece.data = bytes(data)  # a view would keep all of its block
            self._kept += len(data)
        piece.waiting += 1
        self._waiting += 1
        one.early[part] = piece, before, behind

    def _release(self, piece: _Piece) -> None:
        piece.waiting -= 1
        self._waiting -= 1
        if not piece.waiting:
            self._kept -= len(piece.data)

    def _give_up(self, content: int) -> None:
        self._over.add(content)
        one = self._open.pop(content, None)
        for piece, _, _ in one.early.values() if one is not None else ():
            self._release(piece)

    def _due(self, archive: int, block: int) -> Iterator[tuple[int, ...]]:
        """The rows of a block; contents with parts in blocks that were passed over are given up."""
        assert self._rows is not None
        place = _PLACE.pack(archive, block)
        while self._next and self._next[: _PLACE.size] <= place:
            here, row = self._next[: _PLACE.size] == place, _ROW.unpack(self._next)[2:]
            self._next = next(self._rows, b"")
            if here:
                yield row
            else:
                self._give_up(row[0])


def _stored(parts: Iterable[tuple[int, Part]]) -> Iterator[tuple[int, Part, int]]:
    """The parts that are stored, each with the length of the hole before it."""
    hole = 0
    for archive, part in parts:
        if part.id is None:
            hole += part.length
        else:
            yield archive, part, hole
            hole = 0
