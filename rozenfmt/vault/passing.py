"""Contents in parts, hashed while the blocks that hold their parts pass by.

Who verifies reads archives from the first byte to the last, and parts nearly always lie in them in
order: so the whole of a content can be compared with its id without reading its parts again.  A
content of which a part comes late, or not at all, is left to those who read it part by part.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from rozenfmt.archive.streamwriter import hash_zeros
from rozenfmt.format.blocks import Block, cut_pieces
from rozenfmt.format.index import RunStore, Sorter
from rozenfmt.format.nodes import Part

__all__ = ["HASHED_HOLES", "PassingContents", "Whole"]

HASHED_HOLES: Final = 64 << 30
"""Beyond this, the zeros of a content's holes are not hashed: it would take minutes."""

# Archive, block, content, part, piece, length, hole before it, and hole behind it; that is -1 if a part follows.
_ROW: Final = struct.Struct(">IQIQQQQq")
_PLACE: Final = struct.Struct(">IQ")
_MOST_OPEN: Final = 1_024  # contents that are hashed side by side, of 2 KiB each

Whole = Callable[[int, bytes, int], None]
"""Told of a content that has passed: its number, its plain digest, and how many bytes of it are stored."""


@dataclass(slots=True)
class _Open:
    """A content of which the first parts have passed."""

    parts: int = 0
    stored: int = 0
    hasher: blake3 = field(default_factory=blake3)


class PassingContents:
    """First all contents are noted, then blocks are taken in the order of their archives' numbers.

    Args:
        runs: Where sorted rows go.
        whole: Told of each content that has passed in order.
    """

    def __init__(self, runs: RunStore, whole: Whole) -> None:
        self._sorter = Sorter(runs, _ROW.size)
        self._whole = whole
        self._rows: Iterator[bytes] | None = None
        self._next = b""
        self._open: dict[int, _Open] = {}

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
        """Look at the next block that is right."""
        if self._rows is None:
            self._rows = iter(self._sorter)
            self._next = next(self._rows, b"")
        if not self._next:
            return
        for content, part, piece, length, before, behind in self._due(archive, block.sequence):
            one = self._begin(content) if not part else self._open.get(content)
            pieces = cut_pieces(block) if block.type == b"PACK" else []
            if one is None or one.parts != part or piece >= len(pieces) or len(pieces[piece]) != length:
                self._open.pop(content, None)
                continue
            hash_zeros(one.hasher, before)
            one.hasher.update(pieces[piece])
            one.parts += 1
            one.stored += length
            if behind >= 0:
                hash_zeros(one.hasher, behind)
                del self._open[content]
                self._whole(content, one.hasher.digest(), one.stored)

    def _begin(self, content: int) -> _Open:
        one = self._open[content] = _Open()
        if len(self._open) > _MOST_OPEN:
            del self._open[next(iter(self._open))]
        return one

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
                self._open.pop(row[0], None)
