"""Directory nodes and part tables: what ``TREE`` and ``FEND`` blocks hold (format.md, section 8).

A node is facts (the logical record, which its id is made of) and hints (where things are
stored).  ``Entry`` is one line of a directory: everything restorable, nothing that belongs
to one machine only (device and inode numbers, ctime, atime).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from rozenfmt.errors import BlockError, LimitError, UnsupportedError

from . import cbor, records
from .crypto import digest
from .limits import MAX_NAME, MAX_NODE_ENTRIES, MAX_U32
from .records import ascending_rows, bytes_, items, key, rows, uint
from .varint import decode_column, decode_deltas, encode_column, encode_deltas

__all__ = [
    "Entry",
    "InnerNode",
    "Kind",
    "Mark",
    "Node",
    "NodeType",
    "Part",
    "directory_hints",
    "directory_record",
    "join_node",
    "outline",
    "part_inner",
    "part_leaf",
    "split_node",
    "vault_hints",
]


class NodeType(IntEnum):
    """Types of node (format.md, section 8)."""

    DIRECTORY = 1
    INNER = 2
    PARTS = 3
    PARTS_INNER = 4
    PARTIAL = 5


class Kind(IntEnum):
    """What an entry is; the numbers are those of the format."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    CHARACTER_DEVICE = 5
    BLOCK_DEVICE = 6
    SOCKET = 7


# Asking an enum's class takes longer than all else that is done for an entry.
_KINDS: Final = {int(kind): kind for kind in Kind}
_FILE: Final = int(Kind.FILE)
_DIRECTORY: Final = int(Kind.DIRECTORY)
_SYMLINK: Final = int(Kind.SYMLINK)
_DEVICES: Final = (int(Kind.CHARACTER_DEVICE), int(Kind.BLOCK_DEVICE))


class Mark(IntEnum):
    """Bits that say how an entry's content was captured."""

    CHANGED = 1  # the file changed while it was read: content may be of no single moment
    UNREADABLE = 2  # the content could not be read: nothing is stored for it
    SPARSE = 4  # holes were seen; restoring should leave holes where the part table has them
    WITHHELD = 8  # WORM: the file had other content; this is the entry of the snapshot before (vault.md, 7.2)
    KEPT = 16  # WORM: an earlier version, kept beside the new one (vault.md, 7.2)


_UNREADABLE: Final = int(Mark.UNREADABLE)


@dataclass(slots=True)
class Entry:
    """One entry of a directory.

    Attributes:
        name: Base name as bytes: not empty, not ``.`` or ``..``, without NUL and ``/``.
        kind: What it is.
        mode: Permission bits, 0 to 0o7777.
        uid: Owner's number.
        gid: Group's number.
        user: Owner's name, empty if it had none.
        group: Group's name, empty if it had none.
        mtime_ns: Modification time in nanoseconds since 1970, may be negative.
        size: Content's length in bytes; 0 unless ``kind`` is ``FILE``.
        target: Symlink target; empty unless ``kind`` is ``SYMLINK``.
        device: Major and minor number; None unless it is a device.
        link_group: 16 bytes shared by all hard links to one file; None if it has one name.
        xattrs: Extended attributes (ACLs among them) as name and value, sorted by name.
        marks: ``Mark`` bits.
        content_id: 32 bytes; None unless it is a file with ``size`` > 0 whose content is stored.
        block: Sequence number of the block that holds the content (``PACK``) or ends it (``FEND``).
        piece: Number of the piece in a ``PACK`` block; 0 for ``FEND``.
        child: Id of the directory's own node; None unless ``kind`` is ``DIRECTORY``.  For a directory
            ``block`` and ``piece`` say where that node is stored.
        xattr_ref: Id, ``TREX`` block and piece of the extended attributes, if there are any.
        archive: In a vault, which archive holds the content or the directory's node; else 0.
        xattr_archive: Likewise for the extended attributes.
    """

    name: bytes
    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    user: bytes = b""
    group: bytes = b""
    mtime_ns: int = 0
    size: int = 0
    target: bytes = b""
    device: tuple[int, int] | None = None
    link_group: bytes | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    marks: int = 0
    content_id: bytes | None = None
    block: int = 0
    piece: int = 0
    child: bytes | None = None
    xattr_ref: tuple[bytes, int, int] | None = None
    archive: int = 0
    xattr_archive: int = 0

    @property
    def has_content(self) -> bool:
        """Whether content is stored for this entry."""
        return self.kind == _FILE and self.size > 0 and not self.marks & _UNREADABLE


# --- Records ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryRecord:
    """Logical record of a directory leaf or a partial directory (format.md, section 8.1)."""

    type: int = key(1, uint())
    count: int = key(2, uint(limit=MAX_NODE_ENTRIES))
    names: bytes = key(3, bytes_())
    kinds: bytes = key(4, bytes_())
    modes: bytes = key(5, bytes_(multiple=2))
    mtimes: bytes = key(6, bytes_())
    owners: tuple[tuple[int, int, bytes, bytes], ...] | None = key(
        7, rows(uint(0, MAX_U32), uint(0, MAX_U32), bytes_(), bytes_(), at_least=1), optional=True
    )
    owner_numbers: bytes | None = key(8, bytes_(), optional=True)
    sizes: bytes | None = key(9, bytes_(), optional=True)
    content_ids: bytes | None = key(10, bytes_(multiple=32), optional=True)
    children: bytes | None = key(11, bytes_(multiple=32), optional=True)
    targets: tuple[bytes, ...] | None = key(12, items(bytes_()), optional=True)
    devices: tuple[tuple[int, int], ...] | None = key(13, rows(uint(), uint(), at_least=1), optional=True)
    links: tuple[tuple[int, bytes], ...] | None = key(14, ascending_rows(bytes_(16)), optional=True)
    xattrs: tuple[tuple[int, bytes], ...] | None = key(15, ascending_rows(bytes_(32)), optional=True)
    marks: tuple[tuple[int, int], ...] | None = key(16, ascending_rows(uint(1)), optional=True)
    extra: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerRecord:
    """Logical record of a directory inner node (format.md, section 8.2)."""

    type: int = key(1, uint())
    count: int = key(2, uint(1, limit=MAX_NODE_ENTRIES))
    first_names: bytes = key(3, bytes_())
    entries: bytes = key(4, bytes_())
    children: bytes = key(5, bytes_(multiple=32))
    extra: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsRecord:
    """Logical record of a part table, leaf or inner (format.md, section 8.3)."""

    type: int = key(1, uint())
    length: int = key(2, uint(1))
    lengths: bytes = key(3, bytes_())
    ids: bytes | None = key(4, bytes_(multiple=32), optional=True)
    holes: bytes | None = key(5, bytes_(), optional=True)
    extra: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HintsRecord:
    """Hints of any node: block and piece columns, in a vault archive numbers too, and the directory's path."""

    blocks: bytes | None = key(1, bytes_(), optional=True)
    pieces: bytes | None = key(2, bytes_(), optional=True)
    child_blocks: bytes | None = key(3, bytes_(), optional=True)
    child_pieces: bytes | None = key(4, bytes_(), optional=True)
    xattr_blocks: bytes | None = key(5, bytes_(), optional=True)
    xattr_pieces: bytes | None = key(6, bytes_(), optional=True)
    path: bytes | None = key(7, bytes_(), optional=True)
    archives: bytes | None = key(8, bytes_(), optional=True)
    child_archives: bytes | None = key(9, bytes_(), optional=True)
    xattr_archives: bytes | None = key(10, bytes_(), optional=True)
    extra: dict[int, Any] = field(default_factory=dict)


_LOGICAL: dict[int, type[DirectoryRecord | InnerRecord | PartsRecord]] = {
    NodeType.DIRECTORY: DirectoryRecord,
    NodeType.INNER: InnerRecord,
    NodeType.PARTS: PartsRecord,
    NodeType.PARTS_INNER: PartsRecord,
    NodeType.PARTIAL: DirectoryRecord,
}


def join_node(logical: bytes, hints: bytes) -> bytes:
    """A node as it is stored: length of the logical record, logical record, hints."""
    return b"".join((len(logical).to_bytes(4, "little"), logical, hints))


def split_node(data: bytes) -> tuple[bytes, bytes]:
    """Logical record and hints of a node that ``join_node`` made."""
    split = 4 + int.from_bytes(data[:4], "little")
    return data[4:split], data[split:]


def outline(data: bytes) -> tuple[list[bytes], bytes, bool]:
    """Names and kinds of a directory leaf that this program has made, without looking at the rest of it.

    Returns:
        The names; the kinds; whether no entry has other names (hard links) or marks but ``SPARSE``.
    """
    facts = cbor.loads_own(split_node(data)[0])
    plain = 14 not in facts and all(marks == Mark.SPARSE for _, marks in facts.get(16, ()))
    return facts[3].split(b"\0") if facts[2] else [], facts[4], plain


@dataclass(frozen=True, slots=True)
class Part:
    """A run of a streamed content: a stored piece, a hole, or (in an inner table) a sub-table.

    Attributes:
        offset: Where it begins in the content, in bytes.
        length: Its length in bytes.
        id: Id of the piece or sub-table; None for a hole.
        block: Block that holds it.
        piece: Its number there.
        archive: In a vault, which archive holds it; else 0.
    """

    offset: int
    length: int
    id: bytes | None
    block: int
    piece: int
    archive: int = 0


@dataclass(frozen=True, slots=True)
class InnerNode:
    """A child of a directory inner node: first name, entries below, id and place."""

    first_name: bytes
    entries: int
    id: bytes
    block: int
    piece: int
    archive: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """A decoded node: type, id, logical record and hints.

    Nodes of a vault's metadata archives are read with ``vault=True``: their hints have archive numbers
    and no path (vault.md, section 5.1).  Elsewhere it is the other way round.
    """

    type: int
    id: bytes
    record: Any
    hints: HintsRecord
    _entries: dict[bool, list[Entry]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Node:
        """Read one node.

        Raises:
            BlockError: It is malformed.
        """
        data = bytes(data)
        split = 4 + int.from_bytes(data[:4], "little")
        if len(data) < 4 or split > len(data):
            raise _bad("a node is cut off", "8")
        logical = data[4:split]
        facts = cbor.loads(logical)
        kind = facts.get(1) if type(facts) is dict else None
        if type(kind) is not int:
            raise _bad("a node has no type", "8")
        cls_ = _LOGICAL.get(kind)
        if cls_ is None:  # what its hints mean is not known either
            return cls(kind, digest(logical), None, HintsRecord(extra=_map(data[split:])))
        record = records.take(cls_, facts, clause="8")
        return cls(kind, digest(logical), record, records.decode(HintsRecord, data[split:], clause="8"))

    @property
    def path(self) -> bytes | None:
        """Path hint of a directory's node."""
        return self.hints.path

    def entries(self, *, vault: bool = False) -> list[Entry]:
        """Entries of a directory leaf or a partial directory, in order of name."""
        if vault in self._entries:
            return self._entries[vault]
        if self.type not in (NodeType.DIRECTORY, NodeType.PARTIAL):
            raise _bad("a directory leaf was expected here", "8.1")
        if vault and self.type == NodeType.PARTIAL:
            raise _bad("a partial directory stands in a vault", "8.1")
        return _Directory(self.record, self.hints, vault=vault).entries()

    def keep_entries(self, *, vault: bool = False) -> list[Entry]:
        """The same entries, for all who ask from now on: none may change them."""
        found = self._entries[vault] = self.entries(vault=vault)
        return found

    def children(self, *, vault: bool = False) -> list[InnerNode]:
        """Children of a directory inner node, in order of name."""
        if self.type != NodeType.INNER:
            raise _bad("a directory inner node was expected here", "8.2")
        return _inner_children(self.record, self.hints, vault=vault)

    def parts(self, offset: int = 0, *, vault: bool = False) -> list[Part]:
        """Parts of a part table whose content begins at ``offset`` of the whole."""
        if self.type == NodeType.PARTS:
            return _leaf_parts(self.record, self.hints, offset, vault=vault)
        if self.type == NodeType.PARTS_INNER:
            return _inner_parts(self.record, self.hints, offset, vault=vault)
        if self.record is not None:
            raise _bad("a directory's node stands where a part table should", "8.3")
        msg = f"a node of type {self.type} stands where a part table should"
        raise UnsupportedError(msg, clause="8.3")


def _map(data: bytes) -> dict[int, Any]:
    found = cbor.loads(data)
    if type(found) is not dict:
        raise _bad("a node's hints are not a map", "8")
    return found


def _bad(message: str, clause: str) -> BlockError:
    return BlockError(message, clause=clause)


# --- Directories --------------------------------------------------------------------------------


def _check_names(names: bytes, count: int) -> list[bytes]:
    """Split and check the names of a node (format.md, section 8.1)."""
    if names.count(b"\0") + 1 != count and (count or names):  # counted first: splitting takes memory
        raise _bad("a directory's names do not match its count", "8.1")
    found = names.split(b"\0") if count else []
    previous = b""
    for name in found:
        if name <= previous:
            raise _bad("a directory's names are empty, doubled or out of order", "8.1")
        if name in (b".", b"..") or len(name) > MAX_NAME:
            raise _bad("a directory has a name that no file can have", "8.1")
        previous = name
    if b"/" in names:
        raise _bad("a directory has a name with a slash", "8.1")
    return found


def directory_record(entries: Sequence[Entry], *, partial: bool = False) -> bytes:
    """Logical record of a directory leaf (or a partial directory), entries being in order of name.

    Args:
        entries: With ``content_id``, ``child`` and ``xattr_ref`` set where they apply, unless partial.
        partial: Leave the ids out.
    """
    count = len(entries)
    owners: dict[tuple[int, int, bytes, bytes], int] = {}
    numbers = [owners.setdefault((e.uid, e.gid, e.user, e.group), len(owners)) for e in entries]
    files = [e for e in entries if e.kind == 1]
    content = [e for e in files if e.size and not e.marks & 2]
    children = [e for e in entries if e.kind == 2]
    values: dict[int, Any] = {
        1: int(NodeType.PARTIAL if partial else NodeType.DIRECTORY),
        2: count,
        3: b"\0".join([e.name for e in entries]),
        4: bytes([e.kind for e in entries]),
        5: struct.pack(f"<{count}H", *[e.mode for e in entries]),
        6: encode_deltas([e.mtime_ns for e in entries]),
        7: [list(owner) for owner in owners] or None,
        8: encode_column(numbers) if len(owners) > 1 else None,
        9: encode_column([e.size for e in files]) if files else None,
        10: b"".join([e.content_id or b"" for e in content]) if content and not partial else None,
        11: b"".join([e.child or b"" for e in children]) if children and not partial else None,
        12: [e.target for e in entries if e.kind == 3] or None,
        13: [list(e.device or (0, 0)) for e in entries if e.kind in (5, 6)] or None,
        14: [[i, e.link_group] for i, e in enumerate(entries) if e.link_group is not None] or None,
        15: None
        if partial
        else [[i, e.xattr_ref[0]] for i, e in enumerate(entries) if e.xattr_ref is not None] or None,
        16: [[i, e.marks] for i, e in enumerate(entries) if e.marks] or None,
    }
    return cbor.dumps({key: value for key, value in values.items() if value is not None})


Places = Sequence[tuple[int, int]]


def directory_hints(path: bytes | None, content: Places = (), children: Places = (), xattrs: Places = ()) -> bytes:
    """Hints of a node: places as block and piece, in the order of the logical record's ids."""
    values: dict[int, Any] = {}
    for number, places in ((1, content), (3, children), (5, xattrs)):
        if places:
            values[number] = encode_deltas([block for block, _ in places])
            values[number + 1] = encode_column([piece for _, piece in places])
    if path is not None:
        values[7] = path
    return cbor.dumps(values)


VaultPlaces = Sequence[tuple[int, int, int]]


def vault_hints(content: VaultPlaces = (), children: VaultPlaces = (), xattrs: VaultPlaces = ()) -> bytes:
    """Hints of a node in a vault: places as archive number, block and piece (vault.md, section 5.1)."""
    values: dict[int, Any] = {}
    for number, places in ((1, content), (3, children), (5, xattrs)):
        if places:
            values[number] = encode_deltas([place[1] for place in places])
            values[number + 1] = encode_column([place[2] for place in places])
    for number, places in ((8, content), (9, children), (10, xattrs)):
        if places:
            values[number] = encode_column([place[0] for place in places])
    return cbor.dumps(values)


def inner_record(children: Sequence[InnerNode]) -> bytes:
    """Logical record of a directory inner node."""
    return cbor.dumps(
        {
            1: int(NodeType.INNER),
            2: len(children),
            3: b"\0".join([c.first_name for c in children]),
            4: encode_column([c.entries for c in children]),
            5: b"".join([c.id for c in children]),
        }
    )


def _places(
    blocks: bytes | None, pieces: bytes | None, archives: bytes | None, count: int, *, vault: bool
) -> list[tuple[int, int, int]]:
    """Block, piece and archive of ``count`` things."""
    if (blocks is not None) != (count > 0) or (pieces is not None) != (count > 0):
        raise _bad("a node's hints do not match its ids", "8")
    if (archives is not None) != (vault and count > 0):
        raise _bad("a node's hints lack the archives, or name some for nothing", "vault 5.1")
    if not count:
        return []
    assert blocks is not None
    assert pieces is not None
    numbers = decode_column(archives or b"", count) if vault else [0] * count
    return list(zip(decode_deltas(blocks, count), decode_column(pieces, count), numbers, strict=True))


def _ids(data: bytes | None, count: int) -> list[bytes]:
    if len(data or b"") != 32 * count or (data is not None) != (count > 0):
        raise _bad("a node's ids do not match its entries", "8")
    data = data or b""
    return [data[i : i + 32] for i in range(0, len(data), 32)]


class _Directory:
    """Puts the columns of a directory leaf together again, checking each against the others."""

    def __init__(self, record: DirectoryRecord, hints: HintsRecord, *, vault: bool) -> None:
        self.record = record
        self.hints = hints
        self.vault = vault
        self.partial = record.type == NodeType.PARTIAL

    def entries(self) -> list[Entry]:
        record, count = self.record, self.record.count
        if len(record.kinds) != count or len(record.modes) != 2 * count:
            raise _bad("a directory's columns have different lengths", "8.1")
        _check_path(self.hints, vault=self.vault)
        names = _check_names(record.names, count)
        if count and not 1 <= min(record.kinds) <= max(record.kinds) <= 7:
            raise _bad("a directory has an entry of an unknown kind", "8.1")
        modes = struct.unpack(f"<{count}H", record.modes)
        if count and max(modes) > 0o7777:
            raise _bad("a directory has a mode out of range", "8.1")
        mtimes = decode_deltas(record.mtimes, count, signed=True)
        owners = self._owners()
        entries = [
            Entry(name, _KINDS[kind], mode, *owner, mtime)
            for name, kind, mode, owner, mtime in zip(names, record.kinds, modes, owners, mtimes, strict=True)
        ]
        self._sparse(entries)
        self._files([e for e in entries if e.kind == _FILE])
        self._directories([e for e in entries if e.kind == _DIRECTORY] if _DIRECTORY in record.kinds else [])
        self._others(entries if max(record.kinds, default=0) > _DIRECTORY else [])
        return entries

    def _owners(self) -> list[tuple[int, int, bytes, bytes]]:
        table, count = self.record.owners or (), self.record.count
        if (count > 0) != bool(table) or len(set(table)) != len(table):
            raise _bad("a directory's table of owners is wrong", "8.1")
        if (self.record.owner_numbers is not None) != (len(table) > 1):
            raise _bad("a directory's owners do not match its table", "8.1")
        if self.record.owner_numbers is None:
            return list(table) * count
        numbers = decode_column(self.record.owner_numbers, count)
        if list(dict.fromkeys(numbers)) != list(range(len(table))):
            raise _bad("a directory's owners are not in order of first use", "8.1")
        return [table[number] for number in numbers]

    def _files(self, files: list[Entry]) -> None:
        record, hints = self.record, self.hints
        if (record.sizes is not None) != bool(files):
            raise _bad("a directory's sizes do not match its files", "8.1")
        for entry, size in zip(files, decode_column(record.sizes or b"", len(files)), strict=True):
            entry.size = size
        content = [e for e in files if e.size and not e.marks & _UNREADABLE]
        places = _places(hints.blocks, hints.pieces, hints.archives, len(content), vault=self.vault)
        if self.partial:
            if record.content_ids is not None or record.children is not None or record.xattrs is not None:
                raise _bad("a partial directory has ids", "8.1")
        else:
            for entry, one in zip(content, _ids(record.content_ids, len(content)), strict=True):
                entry.content_id = one
        for entry, place in zip(content, places, strict=True):
            entry.block, entry.piece, entry.archive = place

    def _directories(self, directories: list[Entry]) -> None:
        hints, count = self.hints, 0 if self.partial else len(directories)
        places = _places(hints.child_blocks, hints.child_pieces, hints.child_archives, count, vault=self.vault)
        if self.partial:
            return
        ids = _ids(self.record.children, count)
        for entry, one, (block, piece, archive) in zip(directories, ids, places, strict=True):
            entry.child, entry.block, entry.piece, entry.archive = one, block, piece, archive

    def _sparse(self, entries: list[Entry]) -> None:
        record, count = self.record, self.record.count
        for found in (record.links, record.xattrs, record.marks):
            if found and found[-1][0] >= count:
                raise _bad("a directory refers to an entry that it does not have", "8.1")
        for number, group in record.links or ():
            entries[number].link_group = group
        for number, marks in record.marks or ():
            entries[number].marks = marks
        refs, hints = record.xattrs or (), self.hints
        places = _places(hints.xattr_blocks, hints.xattr_pieces, hints.xattr_archives, len(refs), vault=self.vault)
        for (number, one), (block, piece, archive) in zip(refs, places, strict=True):
            entries[number].xattr_ref = (one, block, piece)
            entries[number].xattr_archive = archive

    def _others(self, entries: list[Entry]) -> None:
        links = [e for e in entries if e.kind == _SYMLINK]
        devices = [e for e in entries if e.kind in _DEVICES]
        if len(self.record.targets or ()) != len(links) or len(self.record.devices or ()) != len(devices):
            raise _bad("a directory's targets or devices do not match its entries", "8.1")
        for entry, target in zip(links, self.record.targets or (), strict=True):
            entry.target = target
        for entry, device in zip(devices, self.record.devices or (), strict=True):
            entry.device = device


def _check_path(hints: HintsRecord, *, vault: bool) -> None:
    """A directory's node has its path as a hint, except in a vault, where many may share it."""
    if (hints.path is None) != vault:
        raise _bad("a directory's node lacks the path, or has one in a vault", "8.1")


def _inner_children(record: InnerRecord, hints: HintsRecord, *, vault: bool) -> list[InnerNode]:
    names = _check_names(record.first_names, record.count)
    counts = decode_column(record.entries, record.count)
    ids = _ids(record.children, record.count)
    places = _places(hints.blocks, hints.pieces, hints.archives, record.count, vault=vault)
    _check_path(hints, vault=vault)
    if 0 in counts:
        raise _bad("a directory inner node is incomplete", "8.2")
    return [
        InnerNode(name, entries, one, *place)
        for name, entries, one, place in zip(names, counts, ids, places, strict=True)
    ]


# --- Part tables --------------------------------------------------------------------------------


def part_leaf(parts: Sequence[Part], *, vault: bool = False) -> bytes:
    """A whole part-table leaf, hints included."""
    stored = [part for part in parts if part.id is not None]
    holes = [number for number, part in enumerate(parts) if part.id is None]
    values: dict[int, Any] = {
        1: int(NodeType.PARTS),
        2: sum(part.length for part in parts),
        3: encode_column([part.length for part in parts]),
        4: b"".join([part.id or b"" for part in stored]) or None,
        5: encode_column([b - a for a, b in zip([0, *holes], holes, strict=False)]) if holes else None,
    }
    logical = cbor.dumps({key: value for key, value in values.items() if value is not None})
    return join_node(logical, _part_hints(stored, vault=vault))


def _part_hints(parts: Sequence[Part], *, vault: bool) -> bytes:
    if vault:
        return vault_hints([(part.archive, part.block, part.piece) for part in parts])
    return directory_hints(None, [(part.block, part.piece) for part in parts])


def part_inner(parts: Sequence[Part], *, vault: bool = False) -> bytes:
    """A whole inner part table over sub-tables, hints included."""
    logical = cbor.dumps(
        {
            1: int(NodeType.PARTS_INNER),
            2: sum(part.length for part in parts),
            3: encode_column([part.length for part in parts]),
            4: b"".join([part.id or b"" for part in parts]),
        }
    )
    return join_node(logical, _part_hints(parts, vault=vault))


def _part_lengths(record: PartsRecord) -> list[int]:
    count = sum(byte < 0x80 for byte in record.lengths)
    if count > MAX_NODE_ENTRIES:
        msg = f"a part table of {count} parts"
        raise LimitError(msg, clause="14")
    lengths = decode_column(record.lengths, count)
    if not lengths or 0 in lengths or sum(lengths) != record.length:
        raise _bad("a part table does not add up", "8.3")
    return lengths


def _leaf_parts(record: PartsRecord, hints: HintsRecord, offset: int, *, vault: bool) -> list[Part]:
    lengths = _part_lengths(record)
    holes: set[int] = set()
    if record.holes is not None:
        steps = decode_column(record.holes, sum(byte < 0x80 for byte in record.holes))
        number = 0
        for position, step in enumerate(steps):
            number += step
            if number >= len(lengths) or (position and step < 2):  # neighbouring holes would be one
                raise _bad("a part table's holes are wrong", "8.3")
            holes.add(number)
        if not steps:
            raise _bad("a part table's holes are wrong", "8.3")
    stored = len(lengths) - len(holes)
    ids: Iterator[bytes] = iter(_ids(record.ids, stored))
    places = iter(_places(hints.blocks, hints.pieces, hints.archives, stored, vault=vault))
    parts = []
    for number, length in enumerate(lengths):
        if number in holes:
            parts.append(Part(offset, length, None, 0, 0))
        else:
            parts.append(Part(offset, length, next(ids), *next(places)))
        offset += length
    return parts


def _inner_parts(record: PartsRecord, hints: HintsRecord, offset: int, *, vault: bool) -> list[Part]:
    lengths = _part_lengths(record)
    if record.holes is not None:
        raise _bad("an inner part table has holes", "8.3")
    ids = _ids(record.ids, len(lengths))
    places = _places(hints.blocks, hints.pieces, hints.archives, len(lengths), vault=vault)
    parts = []
    for length, one, place in zip(lengths, ids, places, strict=True):
        parts.append(Part(offset, length, one, *place))
        offset += length
    return parts
