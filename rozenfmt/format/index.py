"""Building and reading the index: ``INDX`` leaves and root (format.md, section 9).

Entries are collected as fixed-size sortable byte strings.  Sorted runs go to a ``RunStore``,
so that memory stays bounded for any number of entries; this module does no I/O itself.
"""

from __future__ import annotations

import heapq
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol

from rozenfmt.errors import ArchiveError, IndexDamaged, LimitError

from . import records
from .blocks import Block, Draft, SealedBlock
from .codecs import Compression
from .records import IndexRecord, RootBody
from .registry import IndexKind
from .state import INDEX, IndexEvent, IndexState, Machine
from .varint import decode_column, decode_columns, encode_column

__all__ = [
    "IndexBuilder",
    "LookupLeaf",
    "MemoryRuns",
    "Root",
    "RunStore",
    "Sorter",
    "TableLeaf",
]

_PLACE = struct.Struct(">QI")
_TABLE = struct.Struct("<4s32sQ")
_KEY_SIZE: Final = {IndexKind.CONTENT: 8, IndexKind.PATH: 16, IndexKind.TABLE: 8}
_LEAF_ENTRIES: Final = {IndexKind.CONTENT: 16_384, IndexKind.PATH: 4_096, IndexKind.TABLE: 4_096}
_RUN_ENTRIES: Final = 131_072
_EVENTS: Final = {
    IndexKind.CONTENT: IndexEvent.CONTENT_LEAF,
    IndexKind.PATH: IndexEvent.PATH_LEAF,
    IndexKind.TABLE: IndexEvent.TABLE_LEAF,
}


class RunStore(Protocol):
    """Keeps sorted runs of entries; the library above may put them into a temporary file."""

    def append(self, run: bytes) -> int:
        """Keep a run; returns its handle."""
        ...

    def read(self, handle: int, start: int, length: int) -> bytes:
        """Part of a run."""
        ...

    def size(self, handle: int) -> int:
        """Length of a run in bytes."""
        ...


class MemoryRuns:
    """Runs kept in memory: for small archives and tests."""

    def __init__(self) -> None:
        self._runs: list[bytes] = []

    def append(self, run: bytes) -> int:
        """Keep a run."""
        self._runs.append(run)
        return len(self._runs) - 1

    def read(self, handle: int, start: int, length: int) -> bytes:
        """Part of a run."""
        return self._runs[handle][start : start + length]

    def size(self, handle: int) -> int:
        """Length of a run."""
        return len(self._runs[handle])


class Sorter:
    """Collects equal-sized byte strings and gives them back sorted."""

    def __init__(self, runs: RunStore, size: int) -> None:
        self._runs = runs
        self._size = size
        self._fresh: list[bytes] = []
        self._handles: list[int] = []
        self.count = 0

    def add(self, entry: bytes) -> None:
        """Take one string."""
        self._fresh.append(entry)
        self.count += 1
        if len(self._fresh) >= _RUN_ENTRIES:
            self._spill()

    def extend(self, entries: Iterable[bytes]) -> None:
        """Take several strings."""
        before = len(self._fresh)
        self._fresh.extend(entries)
        self.count += len(self._fresh) - before
        if len(self._fresh) >= _RUN_ENTRIES:
            self._spill()

    def _spill(self) -> None:
        self._fresh.sort()
        self._handles.append(self._runs.append(b"".join(self._fresh)))
        self._fresh = []

    def _read(self, handle: int) -> Iterator[bytes]:
        total, step = self._runs.size(handle), self._size * 4_096
        for start in range(0, total, step):
            chunk = self._runs.read(handle, start, step)
            for at in range(0, len(chunk), self._size):
                yield chunk[at : at + self._size]

    def __iter__(self) -> Iterator[bytes]:
        self._fresh.sort()
        if not self._handles:
            return iter(self._fresh)
        return heapq.merge(*(self._read(handle) for handle in self._handles), self._fresh)

    def export(self) -> list[bytes]:
        """Everything, as sorted runs."""
        runs = [self._runs.read(handle, 0, self._runs.size(handle)) for handle in self._handles]
        return [*runs, b"".join(sorted(self._fresh))]

    def restore(self, runs: list[bytes]) -> None:
        """Take over what ``export`` gave."""
        for run in runs[:-1]:
            self._handles.append(self._runs.append(run))
        self._fresh = [runs[-1][at : at + self._size] for at in range(0, len(runs[-1]), self._size)]
        self.count = sum(map(len, runs)) // self._size


class IndexBuilder:
    """Collects entries while an archive is written, then makes the leaves and the root.

    States: ``state.INDEX``.  A wrong order of calls raises ``UsageError`` and changes nothing.
    """

    def __init__(self, runs: RunStore | None = None, *, leaf_entries: dict[IndexKind, int] | None = None) -> None:
        runs = runs if runs is not None else MemoryRuns()
        self._machine = Machine(IndexState.COLLECTING, INDEX)
        self._runs = runs
        self._leaf_entries = leaf_entries or _LEAF_ENTRIES
        self._content = Sorter(runs, 8 + _PLACE.size)
        self._paths = Sorter(runs, 16 + _PLACE.size)
        self._table: list[bytes] = []
        self._table_runs: list[int] = []
        self._blocks = 0
        self._leaves: list[tuple[IndexKind, bytes, int]] = []
        self._leaf_blocks: list[SealedBlock] = []

    @property
    def state(self) -> IndexState:
        """Where the builder stands."""
        return self._machine.state

    def add_content(self, ids: Iterable[bytes], block: int) -> None:
        """List the pieces of one block, by content id, in order."""
        self._machine.step(IndexEvent.ENTRY)
        pack = _PLACE.pack
        self._content.extend([one[:8] + pack(block, piece) for piece, one in enumerate(ids)])

    def add_path(self, path_hash: bytes, block: int, piece: int) -> None:
        """List a directory's topmost node by the 16-byte hash of its path."""
        self._machine.step(IndexEvent.ENTRY)
        self._paths.add(path_hash + _PLACE.pack(block, piece))

    def add_block(self, block: SealedBlock) -> None:
        """List a block in the block table; to be called in order of sequence."""
        self._machine.step(IndexEvent.ENTRY)
        self._table.append(_TABLE.pack(block.type, block.whole_hash, block.length))
        self._blocks += 1
        if len(self._table) == self._leaf_entries[IndexKind.TABLE]:
            self._table_runs.append(self._runs.append(b"".join(self._table)))
            self._table = []

    def leaves(self, first_offset: int) -> Iterator[Draft]:
        """Drafts of all leaves, in order.

        Args:
            first_offset: Offset of block 0, which is the length of the header section.
        """
        for kind, sorter in ((IndexKind.CONTENT, self._content), (IndexKind.PATH, self._paths)):
            entries = iter(sorter)
            while group := list(islice(entries, self._leaf_entries[kind])):
                self._machine.step(_EVENTS[kind])
                yield _lookup_leaf(kind, group)
                self._leaves.append((kind, group[0][: _KEY_SIZE[kind]], len(group)))
        offset, first = first_offset, 0
        for rows in self._table_groups():
            self._machine.step(IndexEvent.TABLE_LEAF)
            yield _table_leaf(rows, first, offset)
            self._leaves.append((IndexKind.TABLE, first.to_bytes(8, "big"), len(rows)))
            first += len(rows)
            offset += sum(row[2] for row in rows)

    def _table_groups(self) -> Iterator[list[tuple[bytes, bytes, int]]]:
        for handle in self._table_runs:
            yield list(_TABLE.iter_unpack(self._runs.read(handle, 0, self._runs.size(handle))))
        if self._table:
            yield list(_TABLE.iter_unpack(b"".join(self._table)))

    def leaf_written(self, block: SealedBlock) -> None:
        """Note where the leaf that was drafted last is stored."""
        self._leaf_blocks.append(block)

    def root(
        self, first: int, offset: int, root: tuple[bytes, int, int] | None, totals: tuple[int, int] | None
    ) -> Draft:
        """Draft of the root.

        Args:
            first: Sequence number of the first ``INDX`` block.
            offset: Its offset.
            root: Node id, block and piece of the root directory, in kinds that have one.
            totals: Entries below the root and bytes of content in them.
        """
        self._machine.step(IndexEvent.ROOT)
        body = RootBody(
            first=first,
            offset=offset,
            kinds=bytes(kind for kind, _, _ in self._leaves),
            lengths=encode_column([block.length for block in self._leaf_blocks]),
            hashes=b"".join(block.whole_hash for block in self._leaf_blocks),
            first_keys=b"".join(key for _, key, _ in self._leaves),
            counts=encode_column([count for _, _, count in self._leaves]),
            root=root,
            totals=totals,
        )
        return Draft(b"INDX", IndexRecord(kind=int(IndexKind.ROOT)), records.encode(body), Compression.metadata())

    def export(self) -> dict[int, Any]:
        """State as CBOR-able values; only while collecting."""
        self._machine.step(IndexEvent.ENTRY)
        tables = [self._runs.read(handle, 0, self._runs.size(handle)) for handle in self._table_runs]
        return {
            1: self._content.export(),
            2: self._paths.export(),
            3: [*tables, b"".join(self._table)],
        }

    def restore(self, state: dict[int, Any]) -> None:
        """Take over what ``export`` gave, into a builder that is still empty."""
        self._content.restore(state[1])
        self._paths.restore(state[2])
        for run in state[3][:-1]:
            self._table_runs.append(self._runs.append(run))
        last = state[3][-1]
        self._table = [last[at : at + _TABLE.size] for at in range(0, len(last), _TABLE.size)]
        self._blocks = sum(map(len, state[3])) // _TABLE.size


def _lookup_leaf(kind: IndexKind, entries: list[bytes]) -> Draft:
    size = _KEY_SIZE[kind]
    keys = b"".join([entry[:size] for entry in entries])
    places = [_PLACE.unpack_from(entry, size) for entry in entries]
    body = b"".join((keys, encode_column([p[0] for p in places]), encode_column([p[1] for p in places])))
    return Draft(b"INDX", IndexRecord(kind=int(kind), count=len(entries)), body, Compression.metadata())


def _table_leaf(rows: list[tuple[bytes, bytes, int]], first: int, offset: int) -> Draft:
    body = b"".join((b"".join(r[0] for r in rows), b"".join(r[1] for r in rows), encode_column([r[2] for r in rows])))
    record = IndexRecord(kind=int(IndexKind.TABLE), count=len(rows), first=first, offset=offset)
    return Draft(b"INDX", record, body, Compression.metadata())


# --- Reading ------------------------------------------------------------------------------------


def _damaged(message: str) -> IndexDamaged:
    return IndexDamaged(message, clause="9")


def _columns(data: bytes, count: int, columns: int) -> list[list[int]]:
    try:
        return decode_columns(data, (count,) * columns)
    except ArchiveError as error:
        raise _damaged(error.message) from error


@dataclass(frozen=True, slots=True)
class LookupLeaf:
    """A content or path look-up leaf: sorted keys, and where each leads."""

    kind: IndexKind
    count: int
    keys: bytes
    blocks: list[int]
    pieces: list[int]

    @classmethod
    def decode(cls, block: Block) -> LookupLeaf:
        """Read a leaf from an opened ``INDX`` block."""
        kind, count = IndexKind(block.record.kind), block.record.count
        if kind not in (IndexKind.CONTENT, IndexKind.PATH):
            msg = "a look-up leaf was expected here"
            raise _damaged(msg)
        size = _KEY_SIZE[kind] * count
        keys = block.body[:size]
        if len(keys) != size:
            msg = "a look-up leaf is shorter than its count"
            raise _damaged(msg)
        blocks, pieces = _columns(block.body[size:], count, 2)
        return cls(kind, count, keys, blocks, pieces)

    def entries(self) -> Iterator[tuple[bytes, int, int]]:
        """All entries as key, block, piece."""
        size = _KEY_SIZE[self.kind]
        for number in range(self.count):
            yield self.keys[number * size : number * size + size], self.blocks[number], self.pieces[number]

    def find(self, key: bytes) -> list[tuple[int, int]]:
        """Places of a key (the full id or hash may be given)."""
        size = _KEY_SIZE[self.kind]
        key = key[:size]
        number = bisect_left(range(self.count), key, key=lambda i: self.keys[i * size : i * size + size])
        found = []
        while number < self.count and self.keys[number * size : number * size + size] == key:
            found.append((self.blocks[number], self.pieces[number]))
            number += 1
        return found


@dataclass(frozen=True, slots=True)
class TableLeaf:
    """A block-table leaf: type, offset, length and whole hash of consecutive blocks."""

    first: int
    types: list[bytes]
    hashes: list[bytes]
    offsets: list[int]
    lengths: list[int]

    @classmethod
    def decode(cls, block: Block) -> TableLeaf:
        """Read a leaf from an opened ``INDX`` block."""
        record = block.record
        if record.kind != IndexKind.TABLE:
            msg = "a block-table leaf was expected here"
            raise _damaged(msg)
        count, body = record.count, block.body
        if len(body) < 36 * count:
            msg = "a block-table leaf is shorter than its count"
            raise _damaged(msg)
        (lengths,) = _columns(body[36 * count :], count, 1)
        offsets, offset = [], record.offset
        for length in lengths:
            offsets.append(offset)
            offset += length
        return cls(
            record.first,
            [body[i : i + 4] for i in range(0, 4 * count, 4)],
            [body[i : i + 32] for i in range(4 * count, 36 * count, 32)],
            offsets,
            lengths,
        )


@dataclass(frozen=True, slots=True)
class Leaf:
    """Where a leaf is stored, and its first key."""

    kind: IndexKind
    sequence: int
    offset: int
    length: int
    whole_hash: bytes
    first_key: bytes
    count: int


@dataclass(frozen=True, slots=True)
class Root:
    """The index root: leaves by kind, the root directory's place, totals."""

    body: RootBody
    leaves: tuple[Leaf, ...]

    @classmethod
    def decode(cls, block: Block) -> Root:
        """Read the root from an opened ``INDX`` block."""
        if block.record.kind != IndexKind.ROOT:
            msg = "the index root was expected here"
            raise _damaged(msg)
        body = records.decode(RootBody, block.body, IndexDamaged, "9")
        count = len(body.kinds)
        try:
            lengths, counts = decode_column(body.lengths, count), decode_column(body.counts, count)
        except LimitError:
            raise
        except ArchiveError as error:
            raise _damaged(error.message) from error
        if len(body.hashes) != 32 * count or not set(body.kinds) <= {1, 2, 3} or sorted(body.kinds) != list(body.kinds):
            msg = "the index root's columns contradict each other"
            raise _damaged(msg)
        leaves, offset, at = [], body.offset, 0
        for number, kind in enumerate(map(IndexKind, body.kinds)):
            size = _KEY_SIZE[kind]
            key = body.first_keys[at : at + size]
            whole_hash = body.hashes[32 * number : 32 * number + 32]
            leaves.append(Leaf(kind, body.first + number, offset, lengths[number], whole_hash, key, counts[number]))
            at += size
            offset += lengths[number]
        if at != len(body.first_keys):
            msg = "the index root's columns contradict each other"
            raise _damaged(msg)
        return cls(body, tuple(leaves))

    def of_kind(self, kind: IndexKind) -> list[Leaf]:
        """Leaves of one kind, in order."""
        return [leaf for leaf in self.leaves if leaf.kind is kind]

    def candidates(self, kind: IndexKind, key: bytes) -> list[Leaf]:
        """Leaves that may hold a key; more than one only if equal keys straddle leaves."""
        leaves = self.of_kind(kind)
        key = key[: _KEY_SIZE[kind]]
        first = max(bisect_left([leaf.first_key for leaf in leaves], key) - 1, 0)
        last = bisect_right([leaf.first_key for leaf in leaves], key)
        return leaves[first:last]
