"""A snapshot: the tree that a metadata archive has the root of, spread over archives of one host.

The snapshot's own ``XREF`` lists every archive that it depends on, and its numbers are the
snapshot's numbers of archives: 0 is its own metadata archive, k row k.  Nodes in other metadata
archives number by their own ``XREF``; that is translated as they are decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from rozenfmt.archive.contents import PartTable
from rozenfmt.archive.treereader import Place, TreeReader, place_of
from rozenfmt.errors import ArchiveError, BlockError
from rozenfmt.format.nodes import Entry, InnerNode, Node, Part
from rozenfmt.format.nodes import Kind as EntryKind
from rozenfmt.format.registry import Kind
from rozenfmt.format.snapshots import (
    Answer,
    CrossReferences,
    Mode,
    ParentState,
    Reference,
    SnapFlag,
    SnapshotBody,
    SourceKind,
)

if TYPE_CHECKING:
    from rozenfmt.archive.source import ArchiveSource

    from .archives import Archives
    from .layout import MetaName

__all__ = ["Counts", "Snapshot", "SnapshotSource", "last_records"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNLISTED: Final = "a node refers to an archive that the snapshot does not list"
_MODES: Final = {Mode.SNAPSHOT: "snapshot", Mode.WORM: "worm"}


@dataclass(frozen=True, slots=True)
class Counts:
    """What changed since the parent; the first six count entries other than directories.

    Attributes:
        new: Entries that were not there.
        changed: Entries with other content.
        metadata: Entries with the same content and other metadata.
        moved: Moves, as ``moves`` lists them; a directory is one.
        deleted: Deletions, as ``deleted`` lists them; a directory is one.
        unchanged: Entries that are as they were.
        problems: What could not be read, or not as it should be.
        conflicts: Files of a WORM set with other content.
        directories: Directories.
    """

    new: int
    changed: int
    metadata: int
    moved: int
    deleted: int
    unchanged: int
    problems: int
    conflicts: int
    directories: int


@dataclass(frozen=True, slots=True)
class SnapshotSource:
    """What was backed up under a name of the root.

    Attributes:
        name: The name, as bytes.
        origin: Where it was read from, as bytes.
        kind: A local tree, a command's output, or another file system.
    """

    name: bytes
    origin: bytes
    kind: SourceKind


class Snapshot(TreeReader):
    """One snapshot, for reading; made by ``Archives.snapshots``.

    Iterating gives every entry, directories before what is in them, names in bytewise order.

    Attributes:
        archive_id: Of its metadata archive.
        host_id: Whose backup it is.
        host: The host's label, as the vault's owner has signed it.
        name: The set that it belongs to.
        sequence: Its sequence number; order among the snapshots of a set is by this and the archive id.
        mode: ``snapshot`` or ``worm``.
        started_ns: When the backup began, by the host's clock, in nanoseconds since 1970.
        finished_ns: When it ended.
        tags: What it was tagged with.
        sources: What was backed up.
        counts: What changed since the parent.
        moves: Old path, new path and kind, the first 16,384.
        deleted: Paths that are there no more, the first 16,384.
        problems: Path, word and text of what could not be read, the first 16,384.
        conflicts: Path and answer, the first 16,384.
        parent: Archive id of the snapshot before, if the writer knew it.
        parent_foot: Whole hash of the parent's footer.
        parent_state: What the writer knew of the parent.
        heads: The host's latest snapshots that the writer saw, by archive id.
        unchanged: Whether nothing changed since the parent.
        incomplete: Whether something could not be read.
        entry_count: Entries below the root.
        content_bytes: Bytes of content in them.
        object: Name of its object in the vault.
        stored_bytes: Length of its metadata archive in bytes.
    """

    _what = "snapshot"
    stream_type = b"PACK"
    streams_vouched = False

    def __init__(self, archives: Archives, name: MetaName, object_name: str, size: int, body: SnapshotBody) -> None:
        super().__init__()
        self.archives = archives
        self.archive_id = name.archive_id
        self.host_id = name.host_id
        self.host = archives.keyring.label(name.host_id)
        self.object = object_name
        self.stored_bytes = size
        self.name = body.set_name
        self.sequence = body.sequence
        self.mode = _MODES[Mode(body.mode)]
        self.started_ns, self.finished_ns = body.times
        self.tags = body.tags
        self.sources = tuple(SnapshotSource(name, origin, SourceKind(kind)) for name, origin, kind in body.sources)
        self.counts = Counts(*body.counts)
        self.moves = tuple((old, new, EntryKind(kind)) for old, new, kind in body.moves or ())
        self.deleted = body.deleted or ()
        self.problems = body.problems or ()
        self.conflicts = tuple((path, Answer(answer)) for path, answer in body.conflicts or ())
        self.parent = body.parent[0] if body.parent is not None else None
        self.parent_foot = body.parent[1] if body.parent is not None else None
        self.parent_state = ParentState(body.parent_state)
        self.heads = tuple(body.heads[at : at + 16] for at in range(0, len(body.heads), 16))
        self.unchanged = bool(body.flags & SnapFlag.UNCHANGED)
        self.incomplete = bool(body.flags & SnapFlag.INCOMPLETE)
        self._root = body.root
        self._totals = body.totals
        self._references: tuple[Reference, ...] | None = None
        self._numbers: dict[int, dict[int, int]] = {}

    @classmethod
    def of(cls, archives: Archives, source: ArchiveSource, name: MetaName) -> Snapshot:
        """The snapshot of an opened metadata archive.

        Raises:
            BlockError: It contradicts its name or the vault, or lacks ``SNAP`` or ``XREF``.
            ArchiveError: It is damaged.

        Specification: vault.md, sections 5.3 and 6, item 2.
        """
        snap, _ = last_records(source)
        try:
            body = SnapshotBody.decode(source.block(snap).body)
        except ArchiveError as error:
            error.object, error.block = source.reader.name, snap
            raise
        if body.vault_id != archives.keyring.view.vault_id:
            msg = "the snapshot says that it is of another vault"
        elif body.host_id != name.host_id:
            msg = "the snapshot says that it is of another host"
        elif body.sequence != name.sequence:
            msg = f"the snapshot says that it is number {body.sequence}: its object was renamed"
        else:
            return cls(archives, name, source.reader.name, source.reader.size, body)
        raise BlockError(msg, object=source.reader.name, block=snap, clause="vault 6")

    # --- about ----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The archive id in hexadecimal: what a person calls the snapshot by."""
        return self.archive_id.hex()

    @property
    def time(self) -> datetime:
        """When the backup began, by the host's clock, to the microsecond."""
        try:
            return _EPOCH + timedelta(microseconds=self.started_ns // 1_000)
        except OverflowError:
            return datetime.max.replace(tzinfo=UTC)

    @property
    def entry_count(self) -> int:
        """Entries below the root."""
        return self._totals[0]

    @property
    def content_bytes(self) -> int:
        """Bytes of content in them."""
        return self._totals[1]

    @property
    def references(self) -> tuple[Reference, ...]:
        """The other archives that the snapshot depends on; read when it is asked for first.

        Raises:
            ArchiveError: The metadata archive is damaged or gone.
        """
        if self._references is None:
            self._references = self._cross_references(self.source_of(0))
        return self._references

    def __repr__(self) -> str:
        return f"Snapshot({self.id[:8]}, {self.name!r} of {self.host!r}, number {self.sequence})"

    # --- archives -------------------------------------------------------------------------------

    def _reference(self, number: int) -> Reference:
        rows = self.references
        if not 1 <= number <= len(rows):
            msg = f"a place is in archive {number}, and the snapshot refers to {len(rows)} only"
            raise BlockError(msg, object=self.object, clause="vault 5.1")
        return rows[number - 1]

    def source_of(self, number: int) -> ArchiveSource:
        """The blocks of one of the archives; internal."""
        if not number:
            return self.archives.source(self.host_id, self.archive_id, Kind.METADATA, self.stored_bytes)
        row = self._reference(number)
        return self.archives.source(self.host_id, row.archive_id, Kind(row.kind), row.length)

    def object_name(self, number: int) -> str:
        """What an archive is called in messages; internal."""
        if not number:
            return self.object
        row = self._reference(number)
        return self.archives.name_of(self.host_id, row.archive_id, Kind(row.kind))

    def _cross_references(self, source: ArchiveSource) -> tuple[Reference, ...]:
        _, xref = last_records(source)
        try:
            return tuple(CrossReferences.decode(source.block(xref).body, source.header.archive_id))
        except BlockError as error:
            error.object, error.block = source.reader.name, xref
            raise

    def _translation(self, number: int) -> dict[int, int]:
        """The snapshot's own numbers for those that the nodes of archive ``number`` use.

        What the snapshot's ``XREF`` does not list, with kind and length, has none: the snapshot does not
        depend on it, and whoever deletes archives does not know that it would.
        """
        found = self._numbers.get(number)
        if found is None:
            found = {0: number}
            if number:
                ours = {(row.archive_id, row.kind, row.length): k for k, row in enumerate(self.references, 1)}
                for k, row in enumerate(self._cross_references(self.source_of(number)), 1):
                    if (row.archive_id, row.kind, row.length) in ours:
                        found[k] = ours[row.archive_id, row.kind, row.length]
            else:
                found.update((k, k) for k in range(1, len(self.references) + 1))
            self._numbers[number] = found
        return found

    # --- nodes ----------------------------------------------------------------------------------

    def root_place(self) -> Place:
        """Where the root directory's node is; internal."""
        return self._root

    def entry_limit(self) -> int:
        """How many entries a walk may meet: nodes may be shared here, and the same ones come again; internal."""
        return self._totals[0]

    def _entries(self, node: Node, number: int) -> list[Entry]:
        entries = node.entries(vault=True)
        numbers = self._translation(number)
        try:
            for entry in entries:
                entry.archive = numbers[entry.archive]
                if entry.xattr_ref is not None:
                    entry.xattr_archive = numbers[entry.xattr_archive]
        except KeyError:
            raise BlockError(_UNLISTED, clause="vault 5.2") from None
        return entries

    def _children(self, node: Node, number: int) -> list[InnerNode]:
        numbers = self._translation(number)
        try:
            return [
                InnerNode(one.first_name, one.entries, one.id, one.block, one.piece, numbers[one.archive])
                for one in node.children(vault=True)
            ]
        except KeyError:
            raise BlockError(_UNLISTED, clause="vault 5.2") from None

    def _parts(self, node: Node, number: int, offset: int) -> list[Part]:
        numbers = self._translation(number)
        try:
            return [
                Part(one.offset, one.length, one.id, one.block, one.piece, numbers[one.archive])
                for one in node.parts(offset, vault=True)
            ]
        except KeyError:
            raise BlockError(_UNLISTED, clause="vault 5.2") from None

    def _find(self, path: bytes) -> Entry | None:
        """Down from the root: one node of each level of each directory is read."""
        place, here, entry = self.root_place(), b"", None
        for name in path.split(b"/"):
            if entry is not None:
                if entry.kind != EntryKind.DIRECTORY:
                    return None
                place = place_of(entry)
            entry = self._search(place, here, name)
            if entry is None:
                return None
            here = here + b"/" + name if here else name
        return entry

    def in_parts(self, entry: Entry) -> bool:
        """Whether a content is a part table in a metadata archive, and not one piece; internal."""
        return not entry.archive or self._reference(entry.archive).kind == Kind.METADATA

    def _table(self, entry: Entry) -> PartTable:
        node = self.node(entry.archive, entry.block, entry.piece, None)
        return self.table(node, entry.archive, entry.block, entry.size)


def last_records(source: ArchiveSource) -> tuple[int, int]:
    """Blocks of ``SNAP`` and ``XREF`` of a metadata archive.

    They are the last ones but for ancillary blocks, so that what the first read brings is enough.

    Raises:
        BlockError: They are not there, or not in this order.
        IndexDamaged: The block table is damaged.

    Specification: vault.md, section 5.
    """
    found: list[int] = []
    for wanted in (b"SNAP", b"XREF"):
        sequence = (found[-1] if found else source.root.body.first) - 1
        while sequence >= 0 and source.place(sequence)[2][:1].islower():
            sequence -= 1
        if sequence < 0 or source.place(sequence)[2] != wanted:
            msg = f"a metadata archive has no {wanted.decode()} block where it should"
            raise BlockError(msg, object=source.reader.name, clause="vault 5")
        found.append(sequence)
    return found[0], found[1]
