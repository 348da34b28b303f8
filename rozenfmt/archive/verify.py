"""Comparing what an archive says of itself with what it holds (format.md, end of section 11).

Facts are collected as fixed-size rows while blocks pass by, sorted with bounded memory, and
merged at the end: what blocks hold, what the index says, and what nodes refer to.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Any, Final

from blake3 import blake3

from rozenfmt.errors import ArchiveError, BlockError, IndexDamaged, LimitError, UnsupportedError
from rozenfmt.format import crypto
from rozenfmt.format.blocks import Block, cut_pieces, piece_digests
from rozenfmt.format.crypto import Keys
from rozenfmt.format.index import LookupLeaf, Root, RunStore, Sorter, TableLeaf
from rozenfmt.format.limits import MAX_NODE_DEPTH
from rozenfmt.format.nodes import Entry, InnerNode, Node, NodeType, Part
from rozenfmt.format.registry import IndexKind
from rozenfmt.format.registry import Kind as ArchiveKind
from rozenfmt.format.snapshots import SnapshotBody

from .streamwriter import hash_zeros

__all__ = ["ContentVerifier"]

_PLACE = struct.Struct(">QQ")
_SIZE = struct.Struct(">Q")
_MOST_HOLES: Final = 1 << 44
_NAME: Final = 64  # bytes of a name that sorted rows hold; longer ones are kept apart


@dataclass(slots=True)
class _Stream:
    """A stream as it passes by: hash of the content so far, parts with ids."""

    hasher: Any
    end: int
    parts: Any  # hasher over offset, id, length and place of each part: a list would grow with the content
    holes: int = 0


class ContentVerifier:
    """Checks one archive's contents, nodes and index against each other.

    Args:
        keys: Keys with the read right, or the browse right (then contents are left out).  Without the id key of
            a vault's host ids are left out, and places are compared.
        runs: Where sorted rows go.
        kind: What the archive is for.
    """

    def __init__(self, keys: Keys, runs: RunStore, kind: ArchiveKind = ArchiveKind.SELF_CONTAINED) -> None:
        self._keys = keys
        self._read = keys.secret is not None
        self._blind = keys.id_key is None
        self._vault = kind is ArchiveKind.METADATA
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
        self._paths_below = Sorter(runs, 16 + place)  # those that an inner node refers to, by its own path
        self._paths_named = Sorter(runs, 16 + place)  # topmost nodes, by the entries that refer to them
        self._strange = Sorter(runs, place)  # nodes of types that are not known
        self._last_held = Sorter(runs, place + _NAME)  # last names of directory leaves
        self._last_said = Sorter(runs, place + _NAME)  # names that they must stay below
        self._long_held: dict[bytes, bytes] = {}
        self._long_said: dict[bytes, bytes] = {}
        self._inner: dict[bytes, tuple[int, bytes]] = {}  # inner nodes: depth, and last leaf below
        self._forward: BlockError | None = None
        self._table = Sorter(runs, 8 + 4 + 8 + 8 + 32)
        self._table_listed = Sorter(runs, 8 + 4 + 8 + 8 + 32)
        self._streams: dict[int, _Stream] = {}
        self._sub_tables: dict[bytes, Node] = {}
        self._tables = Sorter(runs, 32 + place)  # part tables of a metadata archive
        self._tables_wanted = Sorter(runs, 32 + place)  # and those that are referred to within it
        self._sub_wanted = Sorter(runs, 32 + place)
        self._subs = Sorter(runs, 32 + place)
        self._root: Root | None = None
        self._first_index: tuple[int, int] | None = None
        self._leaves: list[tuple[int, int, int, bytes]] = []
        self.entries = 0
        self.content_bytes = 0

    def ids(self, block: Block) -> list[bytes]:
        """Content ids of a block's pieces: the dear part, a pure function, to be run on a worker."""
        key = self._keys.id_key
        if key is None and self._read and block.opened and block.type in (b"PACK", b"TREX"):
            return [bytes(32)] * len(cut_pieces(block))
        if key is None or not block.opened or block.type not in (b"PACK", b"FCNT", b"TREX"):
            return []
        return [
            crypto.content_id(key, one, len(piece))
            for one, piece in zip(piece_digests(block), cut_pieces(block), strict=True)
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
        self._held.extend([one + pack(sequence, number) + size(len(pieces[number])) for number, one in enumerate(ids)])
        self._index.extend([one[:8] + pack(sequence, number) for number, one in enumerate(ids)])

    def _take_start(self, block: Block, _found: Any, _ids: list[bytes]) -> None:
        self._streams[block.record.stream] = _Stream(blake3(), 0, blake3())

    def _take_content(self, block: Block, _found: Any, ids: list[bytes]) -> None:
        stream = self._streams[block.record.stream]
        _skip(stream, block.record.offset)
        for number, (piece, one) in enumerate(zip(cut_pieces(block), ids, strict=True)):
            self._index.add(one[:8] + _PLACE.pack(block.sequence, number))
            stream.parts.update(_part_row(stream.end, one, len(piece), block.sequence, number))
            stream.hasher.update(piece)
            stream.end += len(piece)

    def _take_end(self, block: Block, node: Node, _ids: list[bytes]) -> None:
        stream = self._streams.pop(block.record.stream)
        record = block.record
        place = _PLACE.pack(block.sequence, 0)
        self._index.add(record.content_id[:8] + place)
        self._held.add(record.content_id + place + _SIZE.pack(record.length))
        said = blake3()
        for part in self._parts(node):
            if part.id is not None:
                said.update(_part_row(part.offset, part.id, part.length, part.block, part.piece))
        if not self._read:
            return
        _skip(stream, record.length)
        assert self._keys.id_key is not None
        if crypto.content_id(self._keys.id_key, stream.hasher.digest(), record.length) != record.content_id:
            msg = "a stream's content is not the one that its id names"
            raise BlockError(msg, block=block.sequence, clause="6.2")
        if said.digest() != stream.parts.digest():
            msg = "a stream's part table does not describe its blocks"
            raise BlockError(msg, block=block.sequence, clause="8.3")

    def _parts(self, node: Node) -> Iterator[Part]:
        """The parts of a content, one sub-table after the other."""
        if node.type == NodeType.PARTS:
            yield from node.parts()
            return
        for table in node.parts():
            leaf = self._sub_tables.pop(_PLACE.pack(table.block, table.piece), None)
            if leaf is not None and leaf.type != NodeType.PARTS:
                msg = "a part table refers to a node of a type that this version does not know"
                raise UnsupportedError(msg, clause="8")
            if leaf is None or leaf.id != table.id or leaf.record.length != table.length:
                msg = "a part table refers to a sub-table that does not stand before it"
                raise BlockError(msg, clause="8.3")
            yield from leaf.parts(table.offset)

    # --- nodes ----------------------------------------------------------------------------------

    def _take_tree(self, block: Block, found: list[Node], _ids: list[bytes]) -> None:
        if self._vault:
            self._take_vault_tree(block, found)
            return
        for number, node in enumerate(found):
            place = _PLACE.pack(block.sequence, number)
            if node.type == NodeType.PARTS:
                self._sub_tables[place] = node
            elif node.type == NodeType.DIRECTORY:
                entries = node.entries()
                assert node.path is not None
                self._nodes.add(node.id + place)
                self._directory(entries, node.path, block.sequence, number)
                self._inner_held.add(_inner_row(place, entries[0].name if entries else b"", len(entries)))
                if entries:
                    self._note_name(self._last_held, self._long_held, place, entries[-1].name)
            elif node.type == NodeType.INNER:
                children = node.children()
                self._nodes.add(node.id + place)
                self._inner_held.add(_inner_row(place, children[0].first_name, sum(c.entries for c in children)))
                for child in children:
                    at = _PLACE.pack(child.block, child.piece)
                    self._before(child.block, child.piece, block.sequence, number)
                    self._wanted.add(child.id + at)
                    self._inner_said.add(_inner_row(at, child.first_name, child.entries))
                    self._paths_below.add(self._path_hash(node.path) + at)
                self._ranges(place, children)
            elif node.type not in tuple(NodeType):
                self._strange.add(place)
                self._sub_tables[place] = node
            if node.type in (NodeType.DIRECTORY, NodeType.INNER):
                self._paths.add(self._path_hash(node.path) + place)

    def _take_vault_tree(self, block: Block, found: list[Node]) -> None:
        """Nodes of a metadata archive: what they refer to in the archive itself (vault.md, section 5.1)."""
        for number, node in enumerate(found):
            own = (block.sequence, number)
            row = node.id + _PLACE.pack(*own)
            if node.type == NodeType.DIRECTORY:
                self._nodes.add(row)
                for entry in node.entries(vault=True):
                    self._take_vault_entry(entry, own)
            elif node.type == NodeType.INNER:
                self._nodes.add(row)
                for child in node.children(vault=True):
                    if not child.archive:
                        self._want(self._wanted, child.id, (child.block, child.piece), own)
            elif node.type in (NodeType.PARTS, NodeType.PARTS_INNER):
                self._tables.add(bytes(32) + row[32:])  # entries name the content, not its table
                if node.type == NodeType.PARTS:
                    self._subs.add(row)
                for part in node.parts(vault=True):
                    if node.type == NodeType.PARTS_INNER and not part.archive:
                        assert part.id is not None
                        self._want(self._sub_wanted, part.id, (part.block, part.piece), own)
            else:
                self._strange.add(row[32:])

    def _take_vault_entry(self, entry: Entry, own: tuple[int, int]) -> None:
        self.entries += 1
        if entry.content_id is not None:
            self.content_bytes += entry.size
        if not entry.archive and entry.child is not None:
            self._want(self._wanted, entry.child, (entry.block, entry.piece), own)
        elif not entry.archive and entry.content_id is not None:
            self._want(self._tables_wanted, bytes(32), (entry.block, entry.piece), own)
        if entry.xattr_ref is not None and not entry.xattr_archive:
            one, sequence, piece = entry.xattr_ref
            self._want(self._attributes_wanted, bytes(32) if self._blind else one, (sequence, piece), own)

    def _want(self, sorter: Sorter, one: bytes, place: tuple[int, int], own: tuple[int, int]) -> None:
        self._before(*place, *own)
        sorter.add(one + _PLACE.pack(*place))

    def _take_snapshot(self, block: Block, found: SnapshotBody, _ids: list[bytes]) -> None:
        one, archive, sequence, piece = found.root
        if not archive:
            self._want(self._wanted, one, (sequence, piece), (block.sequence, 0))

    def _path_hash(self, path: bytes | None) -> bytes:
        assert path is not None
        return crypto.mac(self._keys.path_key, path)[:16]

    def _before(self, block: int, piece: int, own_block: int, own_piece: int) -> None:
        """In a self-contained archive, what a node refers to stands before it (format.md, section 5)."""
        if (block, piece) >= (own_block, own_piece) and self._forward is None:
            msg = "a node refers to something that does not stand before it"
            self._forward = BlockError(msg, block=own_block, clause="5")

    def _note_name(self, sorter: Sorter, long: dict[bytes, bytes], place: bytes, name: bytes) -> None:
        sorter.add(place + name[:_NAME].ljust(_NAME, b"\0"))
        if len(name) > _NAME:
            long[place] = name

    def _ranges(self, place: bytes, children: list[InnerNode]) -> None:
        """Note below which name each child's last leaf must end, and how deep inner nodes are."""
        leaves, depth = [], 0
        for child in children:
            below, leaf = self._inner.get(at := _PLACE.pack(child.block, child.piece), (0, at))
            leaves.append(leaf)
            depth = max(depth, below + 1)
        if depth > MAX_NODE_DEPTH:
            msg = "a directory's inner nodes are nested too deep"
            raise LimitError(msg, clause="14")
        self._inner[place] = (depth, leaves[-1])
        for leaf, (_, following) in zip(leaves, pairwise(children), strict=False):
            self._note_name(self._last_said, self._long_said, leaf, following.first_name)

    def _directory(self, entries: list[Entry], path: bytes, node_block: int, node_piece: int) -> None:
        for entry in entries:
            self.entries += 1
            if entry.xattr_ref is not None:
                one, sequence, piece = entry.xattr_ref
                self._before(sequence, piece, node_block, node_piece)
                self._attributes_wanted.add(one + _PLACE.pack(sequence, piece))
            if entry.child is not None or entry.has_content:
                self._before(entry.block, entry.piece, node_block, node_piece)
            if entry.child is not None:
                at = _PLACE.pack(entry.block, entry.piece)
                self._wanted.add(entry.child + at)
                self._paths_named.add(self._path_hash(path + b"/" + entry.name if path else entry.name) + at)
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
            blind = self._blind and found.kind is IndexKind.CONTENT
            for key, sequence, piece in found.entries():
                sorter.add((bytes(8) if blind else key) + _PLACE.pack(sequence, piece))

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
        if root.body.root is not None:
            self._finish_tree(*root.body.root)
        if self._vault:
            self._finish_vault()
        if self._read:
            _same(self._listed, self._index, "content look-up")
        if root.body.totals is not None and root.body.totals != (self.entries, self.content_bytes):
            msg = f"the index counts {root.body.totals}, the directories {self.entries, self.content_bytes}"
            raise IndexDamaged(msg, clause="9")

    def _finish_tree(self, root_id: bytes, root_block: int, root_piece: int) -> None:
        """Compare the nodes of a self-contained archive with each other and with what they refer to."""
        if self._forward is not None:
            raise self._forward
        root_place = _PLACE.pack(root_block, root_piece)
        root = root_id + root_place
        if root not in self._nodes:
            self._refuse_strange(root_place)
            msg = "the index root refers to a directory that is not there"
            raise IndexDamaged(msg, clause="9")
        self._wanted.add(root)
        self._paths_named.add(self._path_hash(b"") + root_place)
        missing = _missing(self._wanted, self._nodes)
        if missing is not None:
            self._refuse_strange(missing[32:])
            raise _refers(missing, "a directory")
        _once(self._wanted)
        if self._wanted.count != self._nodes.count:
            msg = "there are nodes of directories that nothing refers to"
            raise BlockError(msg, clause="8")
        _within(self._inner_said, self._inner_held, "a part of a directory", 0)
        self._compare_ranges()
        for said in (self._paths_named, self._paths_below):
            if _missing(said, self._paths) is not None:
                msg = "a directory's node says that it is of another directory"
                raise BlockError(msg, clause="8")
        _same(self._paths_listed, self._paths_named, "path look-up")
        if self._read:
            _within(self._attributes_wanted, self._attributes, "extended attributes")
            _within(self._named, self._held, "a content")

    def _finish_vault(self) -> None:
        """Compare what nodes of a metadata archive refer to within it; the rest lies in other archives."""
        if self._forward is not None:
            raise self._forward
        for wanted, held, what in (
            (self._wanted, self._nodes, "a directory"),
            (self._tables_wanted, self._tables, "a part table"),
            (self._sub_wanted, self._subs, "a sub-table"),
        ):
            missing = _missing(wanted, held)
            if missing is not None:
                self._refuse_strange(missing[32:])
                raise _refers(missing, what)
        if self._read:
            _within(self._attributes_wanted, self._attributes, "extended attributes")

    def _refuse_strange(self, place: bytes) -> None:
        if place in self._strange:
            msg = "a node of a type that this version does not know stands where a directory should"
            raise UnsupportedError(msg, clause="8")

    def _compare_ranges(self) -> None:
        """All names below a child of an inner node are below the next child's first name."""
        size = _PLACE.size
        held = iter(self._last_held)
        row = next(held, b"")
        for limit in self._last_said:
            place = limit[:size]
            while row and row[:size] < place:
                row = next(held, b"")
            if row[:size] != place:
                continue
            names = (
                self._long_held.get(place, row[size:].rstrip(b"\0")),
                self._long_said.get(place, limit[size:].rstrip(b"\0")),
            )
            if names[0] >= names[1]:
                msg = "the parts of a directory overlap"
                raise BlockError(msg, block=_PLACE.unpack(place)[0], clause="8.2")


_HANDLERS: dict[bytes, Callable[[ContentVerifier, Block, Any, list[bytes]], None]] = {
    b"PACK": ContentVerifier._take_pack,
    b"FHDR": ContentVerifier._take_start,
    b"FCNT": ContentVerifier._take_content,
    b"FEND": ContentVerifier._take_end,
    b"TREE": ContentVerifier._take_tree,
    b"TREX": ContentVerifier._take_attributes,
    b"SNAP": ContentVerifier._take_snapshot,
}


def _row(block: Block, offset: int) -> bytes:
    return _table_row(block.sequence, block.type, offset, block.length, block.whole_hash)


def _table_row(sequence: int, block_type: bytes, offset: int, length: int, whole_hash: bytes) -> bytes:
    return b"".join(
        (_SIZE.pack(sequence), block_type, offset.to_bytes(8, "big"), length.to_bytes(8, "big"), whole_hash)
    )


def _part_row(offset: int, part_id: bytes, length: int, block: int, piece: int) -> bytes:
    return part_id + b"".join(number.to_bytes(8, "big") for number in (offset, length, block, piece))


def _inner_row(place: bytes, first_name: bytes, entries: int) -> bytes:
    return place + crypto.digest(first_name)[:16] + entries.to_bytes(8, "big")


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
    hash_zeros(stream.hasher, max(end - stream.end, 0))
    stream.end = max(end, stream.end)


def _same(listed: Iterable[bytes], held: Iterable[bytes], what: str) -> None:
    if any(a != b for a, b in zip_longest(listed, held)):
        msg = f"the index's {what} does not describe the blocks; the contents are whole, salvage reads them all"
        raise IndexDamaged(msg, clause="9")


def _missing(wanted: Iterable[bytes], held: Iterable[bytes]) -> bytes | None:
    """The first wanted row that is not among the held ones; both come sorted."""
    rows = iter(held)
    row = next(rows, None)
    for one in wanted:
        while row is not None and row < one:
            row = next(rows, None)
        if row != one:
            return one
    return None


def _refers(row: bytes, what: str, place_at: int = 32) -> ArchiveError:
    sequence, piece = _PLACE.unpack_from(row, place_at)
    msg = f"a directory refers to {what} that is not in block {sequence}, piece {piece}"
    return BlockError(msg, block=sequence, clause="8")


def _within(wanted: Sorter, held: Sorter, what: str, place_at: int = 32) -> None:
    """Every wanted row must be among the held ones; both come sorted."""
    row = _missing(wanted, held)
    if row is not None:
        raise _refers(row, what, place_at)
