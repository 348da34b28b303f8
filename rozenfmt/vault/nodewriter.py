"""Directory nodes, part tables and attributes on their way into a metadata archive.

A node is looked up by its facts *and* its places: one that refers to what is stored elsewhere now
is another node, so nothing stale is ever taken over.  Places may still be open when a node is made
(its pack is not full, its children wait); nodes wait as logical records, and are placed in order.

Archive numbers are the catalog's here; in what is written they are rows of this archive's ``XREF``.
"""

from __future__ import annotations

import struct
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.archive.cutting import CHILDREN_MOST, child_groups, leaf_ends
from rozenfmt.archive.streamwriter import TABLE_TARGET
from rozenfmt.format import cbor, crypto, nodes, records
from rozenfmt.format.blocks import Draft
from rozenfmt.format.builders import PiecesBuilder, table_ends
from rozenfmt.format.nodes import Entry, InnerNode, Kind, Part
from rozenfmt.format.records import BlockRecord
from rozenfmt.format.snapshots import CrossReferences, KeyringBody, Reference, SnapshotBody

from .catalog import Leaf, Place

if TYPE_CHECKING:
    from .catalog import Catalog
    from .content import ContentStore, Parts
    from .output import ArchiveOutput

__all__ = ["NODE", "Directory", "NodeWriter", "Uses", "attributes_key", "node_key", "pack_uses"]

NODE: Final = -1
"""Archive number of a place that is a node still waiting; its block is the node's handle."""

Uses = dict[int, int]
"""Bytes that are referred to, by archive number."""

_PENDING: Final = 1024 * 1024
_ATTRIBUTE_CACHE: Final = 4_096
_PLACE: Final = struct.Struct("<qqI")
_NODE: Final = struct.Struct("<32sqqII")  # id, archive, block, piece, length of the logical record
_COUNT: Final = struct.Struct("<I")
_USE: Final = struct.Struct("<QQ")
_XATTR_KEY: Final = b"extended attributes"


def node_key(
    logical: bytes, content: Sequence[Place], children: Sequence[Place] = (), attributes: Sequence[Place] = ()
) -> bytes:
    """What the catalog knows a node by: its facts and its places, of which no open one."""
    pack = _PLACE.pack
    return crypto.digest(logical, b"".join([pack(*p) for group in (content, children, attributes) for p in group]))


def attributes_key(one: bytes) -> bytes:
    """What the catalog knows a set of extended attributes by: its id."""
    return crypto.digest(_XATTR_KEY, one)


def pack_uses(uses: Uses) -> bytes:
    """Uses as the catalog has them."""
    return b"".join(_USE.pack(*item) for item in sorted(uses.items()))


@dataclass(slots=True)
class Directory:
    """A directory that is being written; entries come in order of name.

    Attributes:
        path: Its path from the snapshot's root.
        entries: Entries that are in no leaf yet.
        signatures: One for each of them.
        leaves: Leaves cut so far.
        firsts: First names of all leaves, for the catalog.
        uses: Archives that entries in no leaf yet refer to, with bytes.
        taken: How many of the leaves were taken over.
        top: What the catalog has of the node above all leaves, if the first of them was taken over.
        replaced: It is not the directory that was here before, or is below such a one: the catalog's rows of
            this path may be dropped, as those of one that was moved away.
    """

    path: bytes
    replaced: bool = False
    entries: list[Entry] = field(default_factory=list)
    signatures: list[bytes] = field(default_factory=list)
    leaves: list[InnerNode] = field(default_factory=list)
    firsts: set[bytes] = field(default_factory=set)
    uses: Uses = field(default_factory=dict)
    taken: int = 0
    top: bytes = b""
    name_bytes: int = 0


@dataclass(slots=True)
class _Pending:
    """A node whose places are still open."""

    handle: int
    logical: bytes
    content: Sequence[Place] = ()
    children: Sequence[Place] = ()
    attributes: Sequence[Place] = ()
    leaf: tuple[bytes, bytes, bytes, bool] | None = None  # path, first name, signatures, replaced
    uses: Uses = field(default_factory=dict)
    contents: int = 0  # bytes of the contents that a leaf refers to
    top: tuple[bytes, bytes, int] | None = None  # path and first name of the directory, and its leaves
    parts: list[Part] | None = None  # of a part table; the logical record is made when it is placed
    inner: bool = False
    content_id: bytes = b""
    size: int = 0


class NodeWriter:
    """Writes the metadata archive of one snapshot, up to ``SNAP``.

    Args:
        output: The archive.
        number: Its local number.
        catalog: Where nodes are known from.
        store: Where contents go.
        set_number: The set, for leaves in the catalog.
        usable: Whether an archive of this local number may be referred to.
        reuse: Take over nodes of older archives.
        knows: The set has a snapshot already.
        numbered: For an archive that is resumed: local numbers of the archives in its ``XREF``, from row 1 on.
    """

    def __init__(
        self,
        output: ArchiveOutput,
        number: int,
        catalog: Catalog,
        store: ContentStore,
        *,
        set_number: int,
        usable: Callable[[int], bool],
        reuse: bool,
        knows: bool,
        numbered: Sequence[int] = (),
    ) -> None:
        self._output = output
        self.number = number
        self._catalog = catalog
        self._store = store
        self._set = set_number
        self._usable = usable
        self._reuse = reuse
        self._knows = knows
        self._pending: list[_Pending] = []
        self._pending_bytes = 0
        self._next = 0
        self._places: dict[int, Place] = {}
        self._tables: dict[int, tuple[Place, Uses]] = {}
        self._ids: dict[int, bytes] = {}
        self._attributes = PiecesBuilder(b"TREX")
        self._attribute_blocks = array("q", [-1])
        self._fresh_attributes: list[tuple[bytes, int]] = []
        self._attribute_places: OrderedDict[bytes, Place] = OrderedDict()
        self._builder = PiecesBuilder(b"TREE", target=TABLE_TARGET)
        self._fresh: dict[bytes, Place] = {}
        self._numbers: dict[int, int] = {one: row for row, one in enumerate((number, *numbered))}
        output.numbers = self._ids_from
        self._live: Uses = {}
        self._leaves: list[tuple[bytes, Leaf]] = []
        self._directories_in: set[int] = set()
        self.written = 0

    def _ids_from(self, known: int) -> list[bytes]:
        """Ids of the archives numbered after so many rows, for the journal."""
        return [self._catalog.id_of(archive) for archive in list(self._numbers)[known + 1 :]]

    # --- keys -----------------------------------------------------------------------------------

    def keyring(self, editions: tuple[bytes, ...]) -> None:
        """Write the ``keyr`` block (vault.md, section 5.4)."""
        self._output.submit(Draft(b"keyr", BlockRecord(), records.encode(KeyringBody(editions=editions))))

    # --- attributes -----------------------------------------------------------------------------

    def attributes(self, xattrs: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, Place]:
        """Store a set of extended attributes once; returns its id and place."""
        data = cbor.dumps([[name, value] for name, value in xattrs])
        one = self._store.id_of(data)
        place = self._attribute_places.get(one)
        if place is None:
            place = self._catalog.find_node(attributes_key(one))
            if place is None or not (place[0] == self.number or (self._reuse and self._usable(place[0]))):
                if not self._attributes.fits(len(data)):
                    self._flush_attributes()
                place = (self.number, -len(self._attribute_blocks), self._attributes.add(data))
                self._fresh_attributes.append((attributes_key(one), place[2]))
            self._attribute_places[one] = place
            if len(self._attribute_places) > _ATTRIBUTE_CACHE:
                self._attribute_places.popitem(last=False)
        return one, place

    def _flush_attributes(self) -> None:
        if self._attributes.count:
            block = self._attribute_blocks[-1] = self._output.encoder.next_sequence
            self._output.note((key, block, piece, 0) for key, piece in self._fresh_attributes)
            self._output.submit(self._attributes.seal())
            self._catalog.add_nodes((key, self.number, block, piece) for key, piece in self._fresh_attributes)
            self._fresh_attributes = []
            self._attributes = PiecesBuilder(b"TREX")
            self._attribute_blocks.append(-1)

    # --- part tables ----------------------------------------------------------------------------

    def table(self, parts: Parts) -> Place | None:
        """Take a content that is stored in parts; returns the place of its table, None if it was empty.

        Raises:
            Whatever reading the parts raises: then what was taken is left out.
        """
        found: list[Part] = []
        tables: list[Part] = []
        start = 0
        for part in parts:
            found.append(part)
            if table_ends(len(found), part.id):
                tables.append(self._sub_table(found, start))
                start += tables[-1].length
                found = []
        if not parts.length:
            return None
        if not tables:
            pending = _Pending(self._handle(), b"", parts=found)
        else:
            if found:
                tables.append(self._sub_table(found, start))
            pending = _Pending(self._handle(), b"", parts=tables, inner=True)
        pending.content_id, pending.size = parts.content_id, parts.length
        self._push(pending, 64 * len(pending.parts or ()))
        return (NODE, pending.handle, 0)

    def _sub_table(self, parts: list[Part], start: int) -> Part:
        pending = _Pending(self._handle(), b"", parts=parts)
        self._push(pending, 64 * len(parts))
        return Part(start, sum(part.length for part in parts), b"", pending.handle, 0, NODE)

    def _place_table(self, pending: _Pending) -> None:
        """Make a part table, now that all its parts have places."""
        assert pending.parts is not None
        uses: Uses = {}
        parts = []
        for part in pending.parts:
            if part.id is None:
                parts.append(part)
                continue
            if part.archive == NODE:
                (archive, block, piece), below = self._tables[part.block]
                for number, size in below.items():
                    uses[number] = uses.get(number, 0) + size
                parts.append(replace(part, archive=archive, block=block, piece=piece, id=self._ids.pop(part.block)))
            else:
                archive, block, piece = self._store.resolve((part.archive, part.block, part.piece))
                uses[archive] = uses.get(archive, 0) + part.length
                parts.append(replace(part, archive=archive, block=block, piece=piece))
        make = nodes.part_inner if pending.inner else nodes.part_leaf
        logical = nodes.split_node(make(parts, vault=True))[0]
        places = [(part.archive, part.block, part.piece) for part in parts if part.id is not None]
        place = self._place(logical, places, (), ())
        uses[place[0]] = uses.get(place[0], 0) + len(logical)
        if pending.content_id:
            self._catalog.add_content(pending.content_id, pending.size, place, pack_uses(uses))
        else:
            self._ids[pending.handle] = crypto.digest(logical)
        self._tables[pending.handle] = (place, uses)

    @staticmethod
    def known_uses(packed: bytes) -> Uses:
        """Archives that a content in parts uses, as the catalog has them."""
        return dict(_USE.iter_unpack(packed))

    # --- directories ----------------------------------------------------------------------------

    def add(self, directory: Directory, entry: Entry, signature: bytes, uses: Uses) -> None:
        """Put an entry into a directory, after those before it in order of name.

        Args:
            directory: The directory.
            entry: The entry.
            signature: For the catalog.
            uses: What its content uses; nothing if its place is a table of this run.
        """
        directory.entries.append(entry)
        directory.signatures.append(signature)
        directory.name_bytes += len(entry.name)
        for archive, size in uses.items():
            directory.uses[archive] = directory.uses.get(archive, 0) + size
        if leaf_ends(len(directory.entries), directory.name_bytes, entry.name):
            self._cut(directory)

    def _cut(self, directory: Directory) -> None:
        entries = directory.entries
        node, handle = self._leaf(directory)
        first = entries[0].name if entries else b""
        directory.leaves.append(InnerNode(first, len(entries), node, handle, 0, NODE))

    def _leaf(self, directory: Directory) -> tuple[bytes, int]:
        entries = directory.entries
        logical = nodes.directory_record(entries)
        first = entries[0].name if entries else b""
        directory.firsts.add(first)
        contents = [e for e in entries if e.has_content]
        pending = _Pending(
            self._handle(),
            logical,
            [(e.archive, e.block, e.piece) for e in contents],
            [(e.archive, e.block, e.piece) for e in entries if e.kind == Kind.DIRECTORY],
            [(e.xattr_archive, *e.xattr_ref[1:]) for e in entries if e.xattr_ref is not None],
            leaf=(directory.path, first, b"".join(directory.signatures), directory.replaced),
            uses=directory.uses,
            contents=sum([e.size for e in contents]),
        )
        directory.entries, directory.signatures, directory.name_bytes, directory.uses = [], [], 0, {}
        self._push(pending, len(logical))
        return crypto.digest(logical), pending.handle

    @property
    def reuses(self) -> bool:
        """Whether nodes of older archives are taken over."""
        return self._reuse

    @staticmethod
    def archives_of(leaf: Leaf) -> list[int]:
        """The archives that a leaf of the catalog needs, its own first."""
        return [_NODE.unpack(leaf.place)[1], *(archive for archive, _ in _USE.iter_unpack(leaf.uses))]

    def take(self, directory: Directory, leaf: Leaf, entries: int) -> None:
        """Take a leaf of the snapshot before over into a directory, as it is; it begins where none is open.

        Args:
            directory: The directory.
            leaf: The leaf, with its place; everything that it needs may be referred to.
            entries: How many it has.
        """
        one, archive, block, piece, length = _NODE.unpack(leaf.place)
        self.use(dict(_USE.iter_unpack(leaf.uses)))
        self._use(archive, length)
        self._directories_in.add(archive)
        if not directory.leaves:
            directory.top = leaf.top
        directory.taken += 1
        directory.firsts.add(leaf.first)
        directory.leaves.append(InnerNode(leaf.first, entries, one, block, piece, archive))

    def complete(self, directory: Directory) -> tuple[bytes, Place]:
        """Make a directory's topmost node; returns its id and place."""
        if not directory.leaves:
            node, handle = self._leaf(directory)
            return node, (NODE, handle, 0)
        if directory.entries:
            self._cut(directory)
        children = directory.leaves
        if len(children) == 1:
            return _place_of(children[0])
        known = self._known_top(directory)
        if known is not None:
            return known
        top = (directory.path, children[0].first_name, len(children)) if len(children) <= CHILDREN_MOST else None
        while len(children) > CHILDREN_MOST:
            children = [self._inner(group) for group in child_groups(children)]
        return _place_of(self._inner(children, top) if len(children) > 1 else children[0])

    def _known_top(self, directory: Directory) -> tuple[bytes, Place] | None:
        """The node above all leaves, if they were all taken over."""
        if directory.taken != len(directory.leaves) or not directory.top:
            return None
        one, archive, block, piece, length = _NODE.unpack_from(directory.top)
        if _COUNT.unpack_from(directory.top, _NODE.size)[0] != directory.taken or not self._usable(archive):
            return None
        self._use(archive, length)
        self._directories_in.add(archive)
        return one, (archive, block, piece)

    def _inner(self, children: list[InnerNode], top: tuple[bytes, bytes, int] | None = None) -> InnerNode:
        logical = nodes.inner_record(children)
        places = [_place_of(child)[1] for child in children]
        pending = _Pending(self._handle(), logical, places, inner=True, top=top)
        self._push(pending, len(logical))
        count = sum(child.entries for child in children)
        return InnerNode(children[0].first_name, count, crypto.digest(logical), pending.handle, 0, NODE)

    def _handle(self) -> int:
        self._next += 1
        return self._next

    def _push(self, pending: _Pending, size: int) -> None:
        self._pending.append(pending)
        self._pending_bytes += size
        if self._pending_bytes >= _PENDING:
            self.flush()

    # --- placing --------------------------------------------------------------------------------

    def _use(self, archive: int, size: int) -> None:
        self._live[archive] = self._live.get(archive, 0) + size

    def use(self, uses: Uses) -> None:
        """Count what is referred to."""
        for archive, size in uses.items():
            self._use(archive, size)

    def flush(self) -> None:
        """Place every node that waits, and write those that are new."""
        if not self._pending:
            return
        self._store.flush()
        self._flush_attributes()
        self._builder = PiecesBuilder(b"TREE", target=TABLE_TARGET)
        for pending in self._pending:
            if pending.parts is not None:
                self._place_table(pending)
            else:
                self._place_directory(pending)
        if self._builder.count:
            self._seal()
        self._catalog.add_leaves(self._leaves)
        self._leaves = []
        self._pending = []
        self._pending_bytes = 0

    def _seal(self) -> None:
        """Hand over the nodes that are in the block at hand."""
        self._output.note((key, block, piece, 0) for key, (_, block, piece) in self._fresh.items())
        self._output.submit(self._builder.seal())
        self._catalog.add_nodes((key, *place) for key, place in self._fresh.items())
        self._fresh = {}

    def _place_directory(self, pending: _Pending) -> None:
        if pending.inner:  # children of inner nodes are leaves or inner nodes of the same directory
            content = [self._places.pop(place[1]) if place[0] == NODE else place for place in pending.content]
            children = []
        else:
            content = [self._resolve_content(place, pending.uses) for place in pending.content]
            children = [self._child(place) for place in pending.children]
        attributes = [self._resolve_attributes(place) for place in pending.attributes]
        place = self._place(pending.logical, content, children, attributes)
        self._places[pending.handle] = place
        self._directories_in.add(place[0])
        self._use(place[0], len(pending.logical))
        for one in attributes:
            pending.uses.setdefault(one[0], 0)
        self.use(pending.uses)
        if pending.top is not None:
            path, first, count = pending.top
            where = _NODE.pack(crypto.digest(pending.logical), *place, len(pending.logical))
            self._catalog.set_top(path, first, where + _COUNT.pack(count))
        if pending.leaf is not None:
            path, first, signatures, replaced = pending.leaf
            stored = nodes.join_node(pending.logical, nodes.vault_hints(content, children, attributes))
            where = _NODE.pack(crypto.digest(pending.logical), *place, len(pending.logical))
            leaf = Leaf(first, signatures, stored, where, pack_uses(pending.uses), pending.contents)
            old = None if replaced or not self._knows else self._catalog.leaf_of(self._set, path, first)
            if old is None or replace(old, top=b"") != leaf:
                self._leaves.append((path, leaf))

    def _child(self, place: Place) -> Place:
        if place[0] != NODE:  # a subtree that was taken over whole
            self._use(place[0], 0)
            return place
        return self._places.pop(place[1])

    def _resolve_content(self, place: Place, uses: Uses) -> Place:
        if place[0] == NODE:
            found, more = self._tables[place[1]]
            for archive, size in more.items():
                uses[archive] = uses.get(archive, 0) + size
            return found
        return self._store.resolve(place)

    def _resolve_attributes(self, place: Place) -> Place:
        archive, block, piece = place
        return place if block >= 0 else (archive, self._attribute_blocks[-1 - block], piece)

    def _place(
        self, logical: bytes, content: Sequence[Place], children: Sequence[Place], attributes: Sequence[Place]
    ) -> Place:
        """Where a node is: where it was stored before with the same places, or in this archive."""
        key = node_key(logical, content, children, attributes)
        found = self._fresh.get(key) or self._catalog.find_node(key)
        if found is not None and (found[0] == self.number or (self._reuse and self._usable(found[0]))):
            return found
        hints = nodes.vault_hints(
            [self._numbered(p) for p in content],
            [self._numbered(p) for p in children],
            [self._numbered(p) for p in attributes],
        )
        piece = nodes.join_node(logical, hints)
        if not self._builder.fits(len(piece)):
            self._seal()
            self._builder = PiecesBuilder(b"TREE", target=TABLE_TARGET)
        number = self._builder.add(piece)
        # The number that this block will get: nothing else is submitted before it.
        place = (self.number, self._output.encoder.next_sequence, number)
        self._fresh[key] = place
        self.written += 1
        return place

    def _numbered(self, place: Place) -> Place:
        return (self.reference(place[0]), place[1], place[2])

    def reference(self, archive: int) -> int:
        """Number of an archive in this archive's ``XREF``, given now if it has none."""
        number = self._numbers.get(archive)
        if number is None:
            number = self._numbers[archive] = len(self._numbers)
        return number

    # --- end ------------------------------------------------------------------------------------

    def place_of(self, place: Place) -> Place:
        """Where a node is that was made before the last ``flush``."""
        return self._places[place[1]] if place[0] == NODE else place

    @property
    def leans(self) -> int:
        """In how many other metadata archives directories stand; part tables and attributes apart."""
        return len(self._directories_in - {self.number})

    def references(self) -> dict[int, int]:
        """Every archive that the snapshot depends on, by local number, with live bytes; not this one."""
        for archive in self._live:
            self.reference(archive)
        return {archive: self._live.get(archive, 0) for archive in self._numbers if archive != self.number}

    def close(self, lengths: dict[int, tuple[bytes, int, int]], body: SnapshotBody) -> None:
        """Write ``XREF`` and ``SNAP``.

        Args:
            lengths: Id, kind and length of archives, by local number.
            body: Of ``SNAP``.
        """
        live = self.references()
        rows = [Reference(*lengths[archive], live[archive]) for archive in live]
        self._draft(b"XREF", CrossReferences.of(rows))
        self._draft(b"SNAP", body)

    def _draft(self, block_type: bytes, body: Any) -> None:
        self._output.submit(Draft(block_type, BlockRecord(), records.encode(body)))


def _place_of(node: InnerNode) -> tuple[bytes, Place]:
    return node.id, (node.archive, node.block, node.piece)
