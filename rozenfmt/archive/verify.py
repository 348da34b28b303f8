"""Comparing what an archive says of itself with what it holds (format.md, end of section 11).

Facts are collected as fixed-size rows while blocks pass by, sorted with bounded memory, and
merged at the end: what blocks hold, what the index says, and what nodes refer to.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Final

from blake3 import blake3

from rozenfmt.errors import BlockError, IndexDamaged, LimitError
from rozenfmt.format import crypto
from rozenfmt.format.blocks import Block, cut_pieces
from rozenfmt.format.crypto import Keys
from rozenfmt.format.index import LookupLeaf, Root, RunStore, Sorter, TableLeaf
from rozenfmt.format.nodes import Entry, Node, NodeType, Part
from rozenfmt.format.registry import IndexKind

__all__ = ["ContentVerifier"]

_PLACE = struct.Struct(">QI")
_SIZE = struct.Struct(">Q")
_ZEROS: Final = bytes(1024 * 1024)
_MOST_HOLES: Final = 1 << 44


@dataclass(slots=True)
class _Stream:
    """A stream as it passes by: hash of the content so far, parts with ids."""

    hasher: Any
    end: int
    parts: list[tuple[int, bytes, int]]
    holes: int = 0


class ContentVerifier:
    """Checks one archive's contents, nodes and index against each other.

    Args:
        keys: Keys with the read right, or the browse right (then contents are left out).
        runs: Where sorted rows go.
    """

    def __init__(self, keys: Keys, runs: RunStore) -> None:
        self._keys = keys
        self._read = keys.secret is not None
        place = _PLACE.size
        self._held = Sorter(runs, 32 + place + _SIZE.size)  # contents that blocks hold: id, place, size
        self._named = Sorter(runs, 32 + place + _SIZE.size)  # contents that nodes refer to
        self._nodes = Sorter(runs, 32 + place)  # nodes that TREE blocks hold: id, place
        self._wanted = Sorter(runs, 32 + place)  # nodes that are referred to
        self._attributes = Sorter(runs, 32 + place)
        self._attributes_wanted = Sorter(runs, 32 + place)
        self._listed = Sorter(runs, 8 + place)  # content look-up, as the leaves have it
        self._index = Sorter(runs, 8 + place)  # content look-up, as it should be
        self._paths_listed = Sorter(runs, 16 + place)
        self._inner_said = Sorter(runs, place + 24)  # first names and counts, as inner nodes have them
        self._inner_held = Sorter(runs, place + 24)  # and as the nodes below are
        self._paths = Sorter(runs, 16 + place)  # every node of a directory, by its path
        self._paths_below = Sorter(runs, 16 + place)  # those that an inner node refers to
        self._table = Sorter(runs, 8 + 4 + 8 + 8 + 32)
        self._table_listed = Sorter(runs, 8 + 4 + 8 + 8 + 32)
        self._streams: dict[int, _Stream] = {}
        self._sub_tables: dict[bytes, tuple[bytes, list[Part]]] = {}
        self._root: Root | None = None
        self._first_index: tuple[int, int] | None = None
        self._leaves: list[tuple[int, int, int, bytes]] = []
        self.entries = 0
        self.content_bytes = 0

    def ids(self, block: Block) -> list[bytes]:
        """Content ids of a block's pieces: the dear part, a pure function, to be run on a worker."""
        key = self._keys.id_key
        if key is None or not block.opened or block.type not in (b"PACK", b"FCNT", b"TREX"):
            return []
        return [
            blake3(blake3(piece).digest() + len(piece).to_bytes(8, "little"), key=key).digest()
            for piece in cut_pieces(block)
        ]

    def take(self, block: Block, offset: int, found: Any, ids: list[bytes]) -> None:
        """Look at the next block; ``found`` is what ``Grammar.accept`` gave, ``ids`` what ``ids`` gave for it."""
        if block.type == b"INDX":
            self._take_index(block, offset, found)
            return
        if block.type == b"FOOT":
            return
        self._table.add(_row(block, offset))
        handler = _HANDLERS.get(block.type)
        if handler is not None and block.opened:
            handler(self, block, found, ids)

    # --- contents -------------------------------------------------------------------------------

    def _take_pack(self, block: Block, _found: Any, ids: list[bytes]) -> None:
        pack, size, sequence = _PLACE.pack, _SIZE.pack, block.sequence
        pieces = cut_pieces(block)
        self._held.extend(
            [one + pack(sequence, number) + size(len(pieces[number])) for number, one in enumerate(ids)]
        )
        self._index.extend([one[:8] + pack(sequence, number) for number, one in enumerate(ids)])

    def _take_start(self, block: Block, _found: Any, _ids: list[bytes]) -> None:
        self._streams[block.record.stream] = _Stream(blake3(), 0, [])

    def _take_content(self, block: Block, _found: Any, ids: list[bytes]) -> None:
        stream = self._streams[block.record.stream]
        _skip(stream, block.record.offset)
        for number, (piece, one) in enumerate(zip(cut_pieces(block), ids, strict=True)):
            self._index.add(one[:8] + _PLACE.pack(block.sequence, number))
            stream.parts.append((stream.end, one, len(piece)))
            stream.hasher.update(piece)
            stream.end += len(piece)

    def _take_end(self, block: Block, node: Node, _ids: list[bytes]) -> None:
        stream = self._streams.pop(block.record.stream)
        record = block.record
        place = _PLACE.pack(block.sequence, 0)
        self._index.add(record.content_id[:8] + place)
        self._held.add(record.content_id + place + _SIZE.pack(record.length))
        parts = self._parts(node)
        if not self._read:
            return
        _skip(stream, record.length)
        assert self._keys.id_key is not None
        if crypto.content_id(self._keys.id_key, stream.hasher.digest(), record.length) != record.content_id:
            msg = "a stream's content is not the one that its id names"
            raise BlockError(msg, block=block.sequence, clause="6.2")
        if [(part.offset, part.id, part.length) for part in parts if part.id is not None] != stream.parts:
            msg = "a stream's part table does not describe its blocks"
            raise BlockError(msg, block=block.sequence, clause="8.3")

    def _parts(self, node: Node) -> list[Part]:
        if node.type == NodeType.PARTS:
            return node.parts()
        parts = []
        for table in node.parts():
            found, leaf = self._sub_tables.pop(_PLACE.pack(table.block, table.piece), (b"", []))
            if found != table.id or sum(part.length for part in leaf) != table.length:
                msg = "a part table refers to a sub-table that does not stand before it"
                raise BlockError(msg, clause="8.3")
            parts += [replace(part, offset=part.offset + table.offset) for part in leaf]
        return parts

    # --- nodes ----------------------------------------------------------------------------------

    def _take_tree(self, block: Block, found: list[Node], _ids: list[bytes]) -> None:
        for number, node in enumerate(found):
            place = _PLACE.pack(block.sequence, number)
            if node.type == NodeType.PARTS:
                self._sub_tables[place] = (node.id, node.parts())
            elif node.type == NodeType.DIRECTORY:
                entries = node.entries()
                self._nodes.add(node.id + place)
                self._directory(entries, block.sequence, number)
                self._inner_held.add(_inner_row(place, entries[0].name if entries else b"", len(entries)))
            elif node.type == NodeType.INNER:
                children = node.children()
                self._nodes.add(node.id + place)
                self._inner_held.add(_inner_row(place, children[0].first_name, sum(c.entries for c in children)))
                for child in children:
                    at = _PLACE.pack(child.block, child.piece)
                    _before(child.block, child.piece, block.sequence, number)
                    self._wanted.add(child.id + at)
                    self._inner_said.add(_inner_row(at, child.first_name, child.entries))
                    self._paths_below.add(self._path_hash(node) + _PLACE.pack(child.block, child.piece))
            if node.type in (NodeType.DIRECTORY, NodeType.INNER):
                self._paths.add(self._path_hash(node) + place)

    def _path_hash(self, node: Node) -> bytes:
        assert node.path is not None
        return crypto.mac(self._keys.path_key, node.path)[:16]

    def _directory(self, entries: list[Entry], node_block: int, node_piece: int) -> None:
        for entry in entries:
            self.entries += 1
            if entry.xattr_ref is not None:
                one, sequence, piece = entry.xattr_ref
                _before(sequence, piece, node_block, node_piece)
                self._attributes_wanted.add(one + _PLACE.pack(sequence, piece))
            if entry.child is not None or entry.has_content:
                _before(entry.block, entry.piece, node_block, node_piece)
            if entry.child is not None:
                self._wanted.add(entry.child + _PLACE.pack(entry.block, entry.piece))
            elif entry.has_content:
                self._name(entry)

    def _name(self, entry: Entry) -> None:
        assert entry.content_id is not None
        self.content_bytes += entry.size
        self._named.add(entry.content_id + _PLACE.pack(entry.block, entry.piece) + _SIZE.pack(entry.size))

    def _take_attributes(self, block: Block, _found: Any, ids: list[bytes]) -> None:
        self._attributes.extend([one + _PLACE.pack(block.sequence, number) for number, one in enumerate(ids)])

    # --- index ----------------------------------------------------------------------------------

    def _take_index(self, block: Block, offset: int, found: Any) -> None:
        if self._first_index is None:
            self._first_index = (block.sequence, offset)
        if isinstance(found, Root):
            self._root = found
            return
        self._leaves.append((block.sequence, offset, block.length, block.whole_hash))
        if isinstance(found, TableLeaf):
            rows = zip(found.types, found.offsets, found.lengths, found.hashes, strict=True)
            for number, row in enumerate(rows, found.first):
                self._table_listed.add(_table_row(number, *row))
        elif isinstance(found, LookupLeaf):
            sorter = self._listed if found.kind is IndexKind.CONTENT else self._paths_listed
            for key, sequence, piece in found.entries():
                sorter.add(key + _PLACE.pack(sequence, piece))

    # --- end ------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Compare everything.

        Raises:
            IndexDamaged: The index contradicts the blocks.
            BlockError: A node refers to what is not there.
        """
        root = self._root
        assert root is not None
        leaves = [(leaf.sequence, leaf.offset, leaf.length, leaf.whole_hash) for leaf in root.leaves]
        if (root.body.first, root.body.offset) != self._first_index or leaves != self._leaves:
            msg = "the index root contradicts its leaves"
            raise IndexDamaged(msg, clause="9")
        _same(self._table_listed, self._table, "block table")
        _same(self._paths_listed, _without(self._paths, self._paths_below), "path look-up")
        if root.body.root is not None:
            one, sequence, piece = root.body.root
            self._wanted.add(one + _PLACE.pack(sequence, piece))
        _within(self._wanted, self._nodes, "a directory")
        _once(self._wanted)
        _within(self._inner_said, self._inner_held, "a part of a directory", 0)
        if self._read:
            _same(self._listed, self._index, "content look-up")
            _within(self._attributes_wanted, self._attributes, "extended attributes")
            _within(self._named, self._held, "a content")
        if root.body.totals is not None and root.body.totals != (self.entries, self.content_bytes):
            msg = f"the index counts {root.body.totals}, the directories {self.entries, self.content_bytes}"
            raise IndexDamaged(msg, clause="9")


_HANDLERS: dict[bytes, Callable[[ContentVerifier, Block, Any, list[bytes]], None]] = {
    b"PACK": ContentVerifier._take_pack,
    b"FHDR": ContentVerifier._take_start,
    b"FCNT": ContentVerifier._take_content,
    b"FEND": ContentVerifier._take_end,
    b"TREE": ContentVerifier._take_tree,
    b"TREX": ContentVerifier._take_attributes,
}


def _row(block: Block, offset: int) -> bytes:
    return _table_row(block.sequence, block.type, offset, block.length, block.whole_hash)


def _table_row(sequence: int, block_type: bytes, offset: int, length: int, whole_hash: bytes) -> bytes:
    return b"".join(
        (_SIZE.pack(sequence), block_type, offset.to_bytes(8, "big"), length.to_bytes(8, "big"), whole_hash)
    )


def _inner_row(place: bytes, first_name: bytes, entries: int) -> bytes:
    return place + crypto.digest(first_name)[:16] + entries.to_bytes(8, "big")


def _before(block: int, piece: int, own_block: int, own_piece: int) -> None:
    """What a node refers to stands before it (format.md, section 5)."""
    if (block, piece) >= (own_block, own_piece):
        msg = "a node refers to something that does not stand before it"
        raise BlockError(msg, clause="5")


def _once(rows: Iterable[bytes]) -> None:
    """Each node is referred to once, so that a small archive cannot describe an endless tree."""
    previous = b""
    for row in rows:
        if row == previous:
            msg = "two directories share a node"
            raise BlockError(msg, clause="8")
        previous = row


def _skip(stream: _Stream, end: int) -> None:
    """Hash the zeros of a hole."""
    stream.holes += end - stream.end
    if stream.holes > _MOST_HOLES:
        msg = "a content's holes add up to more than 16 TiB: hashing them would take hours"
        raise LimitError(msg, clause="8.3")
    while stream.end < end:
        step = min(end - stream.end, len(_ZEROS))
        stream.hasher.update(_ZEROS[:step])
        stream.end += step


def _same(listed: Iterable[bytes], held: Iterable[bytes], what: str) -> None:
    if any(a != b for a, b in zip_longest(listed, held)):
        msg = f"the index's {what} does not describe the blocks; the contents are whole, salvage reads them all"
        raise IndexDamaged(msg, clause="9")


def _without(rows: Iterable[bytes], others: Iterable[bytes]) -> Iterator[bytes]:
    """Sorted rows that are not among the others, which come sorted too."""
    rest = iter(others)
    other = next(rest, None)
    for row in rows:
        while other is not None and other < row:
            other = next(rest, None)
        if row != other:
            yield row


def _within(wanted: Sorter, held: Sorter, what: str, place_at: int = 32) -> None:
    """Every wanted row must be among the held ones; both come sorted."""
    rows = iter(held)
    row = next(rows, None)
    for one in wanted:
        while row is not None and row < one:
            row = next(rows, None)
        if row != one:
            sequence, piece = _PLACE.unpack_from(one, place_at)
            msg = f"a directory refers to {what} that is not in block {sequence}, piece {piece}"
            raise BlockError(msg, block=sequence, clause="8")
