"""The host's cache made anew from its metadata archives, with the key of a person.

Every metadata archive of the host is read once, from its first node to its last: what directories
and part tables refer to is what is stored, and where.  Of each set, the directories of the latest
snapshot become what the next backup is compared with; nothing tells how the files were found, so
each is read again once, and found to be stored.  The right to browse is enough.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from rozenfmt.archive.fetch import Fetcher
from rozenfmt.archive.pipeline import default_workers
from rozenfmt.archive.treereader import Place as NodePlace
from rozenfmt.archive.treereader import place_of
from rozenfmt.errors import ArchiveError, BlockError, StorageError
from rozenfmt.events import Problem, Progress, ProgressCallback
from rozenfmt.format import nodes
from rozenfmt.format.blocks import cut_pieces
from rozenfmt.format.nodes import Entry, Node, NodeType
from rozenfmt.format.nodes import Kind as EntryKind
from rozenfmt.format.registry import Kind
from rozenfmt.format.snapshots import CrossReferences, Mode

from .baseline import UNTRUSTED
from .catalog import Leaf, Place, SetState
from .nodewriter import Uses, attributes_key, node_key, pack_uses
from .snapshot import last_records
from .walking import foot_hash

if TYPE_CHECKING:
    from rozenfmt.archive.source import ArchiveSource
    from rozenfmt.archive.treereader import TreeReader
    from rozenfmt.format.blocks import Block

    from .archives import Archives
    from .catalog import Catalog
    from .snapshot import Snapshot

__all__ = ["RebuildResult", "rebuild"]

_BLOCKS: Final = 16
_PROGRESS_SECONDS: Final = 0.1
_LARGEST: Final = 1 << 63


@dataclass(slots=True)
class RebuildResult:
    """What a cache was made from.

    Attributes:
        snapshots: Metadata archives read.
        sets: Sets whose latest snapshot is known again.
        entries: Entries of those.
        pieces: Contents, and parts of them, that are known to be stored.
        problems: What could not be read; the cache does not know it, and it will be stored again.
        requests: Requests for archives, those that found the snapshots included.
        bytes: Bytes that they brought.
        seconds: Time taken.
    """

    snapshots: int = 0
    sets: int = 0
    entries: int = 0
    pieces: int = 0
    problems: list[Problem] = field(default_factory=list)
    requests: int = 0
    bytes: int = 0
    seconds: float = 0.0


def rebuild(
    catalog: Catalog, archives: Archives, snapshots: Sequence[Snapshot], progress: ProgressCallback | None = None
) -> RebuildResult:
    """Fill a host's catalog from its snapshots, in place of what it holds.

    Args:
        catalog: The host's.
        archives: Of the vault, opened by a person.
        snapshots: All of this host.
        progress: Called with events.

    Raises:
        StorageError: The storage fails; the catalog is as it was.
    """
    started = time.monotonic()
    job = _Rebuild(catalog, archives, progress)
    catalog.forget_rebuilt()
    try:
        job.run(sorted(snapshots, key=lambda one: (one.sequence, one.archive_id)))
    except BaseException:
        catalog.forget_rebuilt()
        raise
    result = job.result
    result.requests, result.bytes = archives.traffic.requests, archives.traffic.bytes
    result.seconds = time.monotonic() - started
    return result


class _One:
    """One archive, for ``Fetcher``."""

    def __init__(self, source: ArchiveSource) -> None:
        self._source = source

    def source_of(self, _number: int) -> ArchiveSource:
        return self._source


class _Rebuild:
    """One run."""

    def __init__(self, catalog: Catalog, archives: Archives, progress: ProgressCallback | None) -> None:
        self._catalog = catalog
        self._archives = archives
        self._progress = progress
        self._reported = 0.0
        self.result = RebuildResult()
        self._lengths: dict[int, int] = {}
        self._there: dict[int, bool] = {}
        self._tables: dict[Place, Uses] = {}
        self._contents: dict[bytes, tuple[int, Place]] = {}
        self._blocks: OrderedDict[tuple[bytes, int], list[memoryview]] = OrderedDict()

    def run(self, snapshots: Sequence[Snapshot]) -> None:
        """Read everything, then put it into the catalog at once."""
        for snapshot in snapshots:
            self._numbered(snapshot.host_id, snapshot.archive_id, Kind.METADATA, snapshot.stored_bytes)
        own = {snapshot.archive_id for snapshot in snapshots}
        latest: dict[str, Snapshot] = {}
        for snapshot in snapshots:
            latest[snapshot.name] = snapshot
            with _Noting(self.result, snapshot.object):
                for row in snapshot.references:
                    if row.kind == Kind.METADATA and row.archive_id not in own:
                        own.add(row.archive_id)  # its snapshot cannot be read, and it is needed all the same
                        self._read(snapshot.host_id, row.archive_id, row.length)
            self._read(snapshot.host_id, snapshot.archive_id, snapshot.stored_bytes)
            self.result.snapshots += 1
        for one, (size, place) in self._contents.items():
            uses = self._tables.get(place)
            if uses is not None:
                self._catalog.add_content(one, size, place, pack_uses(uses))
        states = [state for one in latest.values() if (state := self._set(one)) is not None]
        self.result.sets = len(states)
        self._catalog.replace_all(self._lengths, states)

    def _numbered(self, host_id: bytes, archive_id: bytes, kind: int, length: int) -> int:
        """Local number of an archive; its length is noted if it is there."""
        number = self._catalog.archive_number(archive_id, kind)
        if number not in self._there:
            there = self._there[number] = bool(self._archives.names(host_id, archive_id, Kind(kind)))
            if there:
                self._lengths[number] = length
        return number

    # --- what is stored -------------------------------------------------------------------------

    def _read(self, host_id: bytes, archive_id: bytes, length: int) -> None:
        """Note what the nodes of a metadata archive hold and refer to."""
        with _Noting(self.result, self._archives.name_of(host_id, archive_id, Kind.METADATA)):
            source = self._archives.source(host_id, archive_id, Kind.METADATA, length)
            rows = CrossReferences.decode(source.block(last_records(source)[1]).body, archive_id)
            own = self._numbered(host_id, archive_id, Kind.METADATA, length)
            numbers = [own, *(self._numbered(host_id, row.archive_id, row.kind, row.length) for row in rows)]
            for block in self._trees(source):
                if isinstance(block, (ArchiveError, StorageError)):
                    _note(self.result, source.reader.name, block)
                    continue
                with _Noting(self.result, source.reader.name):
                    for number, piece in enumerate(cut_pieces(block)):
                        self._node(bytes(piece), (own, block.sequence, number), numbers)
                self._tick()

    @staticmethod
    def _trees(source: ArchiveSource) -> Iterator[Block | ArchiveError | StorageError]:
        """The ``TREE`` blocks of an archive, neighbours by one request."""
        wanted = ((n, (0, n)) for n in range(source.root.body.first) if source.place(n)[2] == b"TREE")
        fetcher = Fetcher(cast("TreeReader", _One(source)), default_workers())
        try:
            for _, future in fetcher.blocks(wanted):
                assert future is not None
                try:
                    yield future.result()
                except (ArchiveError, StorageError) as error:
                    yield error
        finally:
            fetcher.close()

    def _node(self, raw: bytes, place: Place, numbers: Sequence[int]) -> None:
        node, logical = Node.decode(raw), nodes.split_node(raw)[0]
        content: list[Place] = []
        children: list[Place] = []
        attributes: list[Place] = []
        if node.type == NodeType.DIRECTORY:
            entries = _renumbered(node.entries(vault=True), numbers)
            content, children, attributes = _places(entries)
            for entry in entries:
                self._entry(entry)
        elif node.type == NodeType.INNER:
            content = [(_of(numbers, one.archive), one.block, one.piece) for one in node.children(vault=True)]
        elif node.type in (NodeType.PARTS, NodeType.PARTS_INNER):
            content = self._table(node, logical, place, numbers)
        else:
            return
        known = content + children + attributes
        if all(self._there[one[0]] for one in known):  # else it can never be taken over
            self._catalog.add_nodes([(node_key(logical, content, children, attributes), *place)])

    def _entry(self, entry: Entry) -> None:
        """Note where an entry's content is, and its attributes."""
        if entry.xattr_ref is not None and self._there[entry.xattr_archive]:
            one, block, piece = entry.xattr_ref
            self._catalog.add_nodes([(attributes_key(one), entry.xattr_archive, block, piece)])
        if not entry.has_content:
            return
        assert entry.content_id is not None
        place = (entry.archive, entry.block, entry.piece)
        if self._catalog.kind_of(entry.archive) == Kind.DATA:
            self._piece(entry.content_id, place, entry.size)
        else:
            self._contents[entry.content_id] = (entry.size, place)

    def _piece(self, one: bytes, place: Place, size: int) -> None:
        if self._there[place[0]]:
            self.result.pieces += 1
            self._catalog.add_pieces([(one, *place, size)])

    def _table(self, node: Node, logical: bytes, place: Place, numbers: Sequence[int]) -> list[Place]:
        """Note the parts of a content, and which archives they need; returns their places."""
        uses: Uses = {}
        found: list[Place] = []
        for part in node.parts(vault=True):
            if part.id is None:
                continue
            at = (_of(numbers, part.archive), part.block, part.piece)
            _check(at)
            found.append(at)
            if node.type == NodeType.PARTS:
                self._piece(part.id, at, part.length)
                uses[at[0]] = uses.get(at[0], 0) + part.length
            else:
                for number, size in self._tables.get(at, {}).items():
                    uses[number] = uses.get(number, 0) + size
        uses[place[0]] = uses.get(place[0], 0) + len(logical)
        if node.type == NodeType.PARTS or all(at in self._tables for at in found):
            self._tables[place] = uses
        return found

    # --- the latest snapshots -------------------------------------------------------------------

    def _set(self, snapshot: Snapshot) -> tuple[SetState, int] | None:
        """A set as its latest snapshot has it, its leaves noted."""
        state = self._catalog.set_state(snapshot.name)
        with _Noting(self.result, snapshot.object):
            source = snapshot.source_of(0)
            rows = snapshot.references
            numbers = [self._numbered(snapshot.host_id, snapshot.archive_id, Kind.METADATA, snapshot.stored_bytes)]
            numbers += [self._numbered(snapshot.host_id, row.archive_id, row.kind, row.length) for row in rows]
            standing = self._leaves(snapshot, state.number, numbers)
            found = SetState(
                number=state.number,
                snapshot=snapshot.archive_id,
                foot=foot_hash(source),
                sequence=snapshot.sequence,
                root=snapshot.root_place()[0],
                leans=len(standing - {0}),
                entries=snapshot.entry_count,
                bytes=snapshot.content_bytes,
            )
            return found, int(Mode[snapshot.mode.upper()])
        return None

    def _leaves(self, snapshot: Snapshot, set_number: int, numbers: Sequence[int]) -> set[int]:
        """Note the leaves of all directories of a snapshot; returns the snapshot's numbers of archives they are in."""
        count = 0
        standing = set()
        stack: list[tuple[bytes, NodePlace, int]] = [(b"", snapshot.root_place(), 0)]
        while stack:
            path, place, depth = stack.pop()
            standing.add(place[1])
            with _Noting(self.result, snapshot.object, path):
                raw, node = self._raw(snapshot, place)
                if node.type == NodeType.INNER:
                    for child in snapshot._children_of(node, place, depth):  # noqa: SLF001 - not the whole directory
                        below = (child.id, child.archive, child.block, child.piece)
                        stack.append((path, below, depth + 1))
                    continue
                entries = snapshot._entries_of(node, place)  # noqa: SLF001 - likewise
                count += len(entries)
                if count > snapshot.entry_limit():
                    raise snapshot.too_many_entries()
                stack += [
                    (path + b"/" + entry.name if path else entry.name, place_of(entry), 0)
                    for entry in entries
                    if entry.kind == EntryKind.DIRECTORY
                ]
                stored = nodes.join_node(
                    nodes.split_node(raw)[0], nodes.vault_hints(*_places(_renumbered(entries, numbers)))
                )
                first = entries[0].name if entries else b""
                self._catalog.rebuilt_leaf(set_number, path, Leaf(first, UNTRUSTED * len(entries), stored))
            self._tick()
        self.result.entries += count
        return standing

    def _raw(self, snapshot: Snapshot, place: NodePlace) -> tuple[bytes, Node]:
        """A node as it is stored, compared with its id."""
        expected, number, sequence, piece = place
        node = snapshot.node(number, sequence, piece, expected)
        source = snapshot.source_of(number)
        key = (source.header.archive_id, sequence)
        pieces = self._blocks.get(key)
        if pieces is None:
            pieces = self._blocks[key] = cut_pieces(source.block(sequence))
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        return bytes(pieces[piece]), node

    def _tick(self) -> None:
        now = time.monotonic()
        if self._progress is not None and now - self._reported >= _PROGRESS_SECONDS:
            self._reported = now
            done = self.result
            self._progress(Progress("rebuild", done.entries, self._archives.traffic.bytes, 0, None, b""))


class _Noting:
    """What cannot be read is noted, and the rest goes on; a storage that fails ends the run."""

    def __init__(self, result: RebuildResult, name: str, path: bytes = b"") -> None:
        self._result = result
        self._name = name
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, ArchiveError):
            return False
        _note(self._result, self._name, error, self._path)
        return True


def _note(result: RebuildResult, name: str, error: BaseException, path: bytes = b"") -> None:
    if isinstance(error, StorageError):
        raise error
    result.problems.append(Problem(path, "damaged", f"{name}: {error}"))


def _renumbered(entries: list[Entry], numbers: Sequence[int]) -> list[Entry]:
    for entry in entries:
        entry.archive = _of(numbers, entry.archive)
        entry.xattr_archive = _of(numbers, entry.xattr_archive)
    return entries


def _of(numbers: Sequence[int], number: int) -> int:
    if number >= len(numbers):
        msg = "a node refers to an archive that its own does not list"
        raise BlockError(msg, clause="vault 5.1")
    return numbers[number]


def _places(entries: Iterable[Entry]) -> tuple[list[Place], list[Place], list[Place]]:
    """Places of contents, directories and attributes, as a node's hints have them."""
    content: list[Place] = []
    children: list[Place] = []
    attributes: list[Place] = []
    for entry in entries:
        if entry.has_content:
            content.append((entry.archive, entry.block, entry.piece))
        elif entry.kind == EntryKind.DIRECTORY:
            children.append((entry.archive, entry.block, entry.piece))
        if entry.xattr_ref is not None:
            attributes.append((entry.xattr_archive, *entry.xattr_ref[1:]))
    for place in (*content, *children, *attributes):
        _check(place)
    return content, children, attributes


def _check(place: Place) -> None:
    """Refuse what no catalog can hold, and no writer wrote."""
    if place[1] >= _LARGEST or place[2] >= 1 << 32:
        msg = "a node refers to a block or a piece that there cannot be"
        raise BlockError(msg, clause="vault 5.1")
