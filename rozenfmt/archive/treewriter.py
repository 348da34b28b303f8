"""Turns entries and contents into blocks: packs, streams, nodes, attributes, checkpoints.

A node's facts are final when its directory is complete, but where its contents and children
are stored is known only when their blocks get numbers.  So entries carry *handles* (ordinals
of a content's or node's future place), nodes wait as logical records, and hints are added
when a ``TREE`` block is written, right after the open ``PACK``.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from rozenfmt.errors import UsageError
from rozenfmt.events import Problem
from rozenfmt.format import cbor, crypto, nodes
from rozenfmt.format.builders import PiecesBuilder
from rozenfmt.format.codecs import Compression
from rozenfmt.format.encoder import Encoder
from rozenfmt.format.nodes import Entry, InnerNode, Kind

from .cutting import CHILDREN_MOST, LEAF_MOST, child_groups, leaf_ends
from .pipeline import Pipeline
from .streamwriter import TABLE_TARGET, StreamWriter

__all__ = ["OpenDirectory", "TreeWriter"]

_PENDING_NODES: Final = 1024 * 1024
_PENDING_NODES_MOST: Final = 4 * 1024 * 1024
_CHECKPOINT_BYTES: Final = 64 * 1024 * 1024
_ATTRIBUTE_CACHE: Final = 4_096
_TIME_LIMIT: Final = 1 << 63


@dataclass(slots=True)
class OpenDirectory:
    """A directory that is being written.

    Attributes:
        path: Its path from the root, names joined by ``/``.
        entry: Its own entry; None for the root.
        ordered: Its entries come in order of name, so that leaves can be cut on the way.
        entries: Entries that are in no leaf yet; files carry handles in ``block``, directories in ``block``.
        names: Names already taken, where order does not show doubles.
        leaves: Leaves cut so far.
        noted: How many of ``entries`` a partial node has covered.
    """

    path: bytes
    entry: Entry | None
    ordered: bool
    entries: list[Entry] = field(default_factory=list)
    names: set[bytes] = field(default_factory=set)
    leaves: list[InnerNode] = field(default_factory=list)
    noted: int = 0
    last_name: bytes = b""
    name_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _PendingNode:
    """A node whose hints are still open; handles as in the entries."""

    logical: bytes
    handle: int
    content: Sequence[tuple[int, int]]
    children: Sequence[int]
    attributes: Sequence[tuple[int, int]]
    path: bytes
    top: bool
    inner: bool = False


class TreeWriter:
    """Writes the tree of a self-contained archive through a pipeline.

    Args:
        encoder: The archive's encoder.
        pipeline: Where drafts go.
        id_key: Key of the content ids.
        path_key: Key of the path look-up.
        compression: What to try on contents.
        report: Told what cannot be stored as it is.
    """

    def __init__(
        self,
        encoder: Encoder,
        pipeline: Pipeline,
        *,
        id_key: bytes,
        path_key: bytes,
        compression: Compression,
        report: Callable[[Problem], None],
    ) -> None:
        self._encoder = encoder
        self._pipeline = pipeline
        self._id_key = id_key
        self._path_key = path_key
        self._compression = compression
        self._report = report
        self._pack = PiecesBuilder(b"PACK", compression=compression)
        self._pack_ids: list[bytes] = []
        self._attributes = PiecesBuilder(b"TREX")
        self._attribute_places: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        # Block numbers by handle. A handle is given when a PACK or TREX is begun or a stream ended.
        self._blocks = array("q")
        self._pack_handle = self._new_handle()
        self._attribute_handle = self._new_handle()
        self._node_places: dict[int, tuple[int, int]] = {}
        self._next_node = 0
        self._pending: list[_PendingNode] = []
        self._pending_bytes = 0
        self._links: dict[bytes, tuple[bytes | None, int, int, int]] = {}
        self._checkpoint_at = _CHECKPOINT_BYTES
        self._last_checkpoint = -1
        self.root = OpenDirectory(b"", None, ordered=False)
        self.stack: list[OpenDirectory] = [self.root]
        self.others: dict[bytes, OpenDirectory] = {}
        self.entries = 0
        self.content_bytes = 0

    def _new_handle(self) -> int:
        self._blocks.append(-1)
        return len(self._blocks) - 1

    # --- entries --------------------------------------------------------------------------------

    def add(self, directory: OpenDirectory, entry: Entry) -> None:
        """Put an entry into a directory.

        Raises:
            UsageError: Its name is taken.
        """
        name = entry.name
        if not -_TIME_LIMIT <= entry.mtime_ns < _TIME_LIMIT:
            self._report(Problem(_join(directory.path, name), "times", "its time lies outside of 1677 to 2262"))
            entry.mtime_ns = max(-_TIME_LIMIT, min(entry.mtime_ns, _TIME_LIMIT - 1))
        if directory.ordered and name > directory.last_name:
            directory.last_name = name
        elif directory.ordered or name in directory.names:
            msg = f"{_show(directory.path, name)} is in the archive already"
            raise UsageError(msg)
        else:
            directory.names.add(name)
        if entry.xattrs:
            entry.xattr_ref = self._attribute_ref(entry.xattrs)
            entry.xattrs = ()
        directory.entries.append(entry)
        directory.name_bytes += len(name)
        self.entries += 1
        if entry.has_content:
            self.content_bytes += entry.size
        if directory.ordered and leaf_ends(len(directory.entries), directory.name_bytes, directory.last_name):
            self._cut_leaf(directory)
        if self._encoder.offset >= self._checkpoint_at:  # big files alone never fill a pack
            self.flush_pack()

    def small(self, entry: Entry, data: bytes) -> None:
        """Store a content of up to 16 MiB in a pack and note it in ``entry``."""
        size = entry.size = len(data)
        if not size:
            return
        if not self._pack.fits(size):
            self.flush_pack()
        one = blake3(blake3(data).digest() + size.to_bytes(8, "little"), key=self._id_key).digest()
        entry.content_id = one
        entry.block = self._pack_handle
        entry.piece = self._pack.add(data)
        self._pack_ids.append(one)
        if entry.link_group is not None:
            self._links[entry.link_group] = (one, entry.block, entry.piece, size)

    def stream(self, entry: Entry, chunks: Iterable[bytes | int], name: bytes) -> int:
        """Store a content as a stream.

        Args:
            entry: Gets size, content id and place.
            chunks: Runs of at most 16 MiB; an integer is a hole of so many bytes.
            name: Path hint for salvage.

        Returns:
            The content's length in bytes.
        """
        writer = StreamWriter(self._encoder, self._pipeline, id_key=self._id_key, compression=self._compression)
        found = writer.write(chunks, name=name, size=entry.size)
        if found is None:
            entry.size = 0
            return 0
        entry.content_id, entry.size, sequence = found
        entry.block, entry.piece = self._new_handle(), 0
        self._blocks[entry.block] = sequence
        if entry.link_group is not None:
            self._links[entry.link_group] = (entry.content_id, entry.block, 0, entry.size)
        return entry.size

    def link(self, entry: Entry) -> None:
        """Give ``entry`` the content of the file that its link group named before."""
        if entry.link_group is not None and entry.link_group in self._links:
            entry.content_id, entry.block, entry.piece, entry.size = self._links[entry.link_group]

    def _attribute_ref(self, xattrs: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, int, int]:
        """Store a set of extended attributes once; returns id, handle and piece."""
        data = cbor.dumps([[name, value] for name, value in xattrs])
        one = crypto.content_id(self._id_key, crypto.digest(data), len(data))
        place = self._attribute_places.get(one)
        if place is None:
            if not self._attributes.fits(len(data)):
                self._flush_attributes()
            place = (self._attribute_handle, self._attributes.add(data))
            self._attribute_places[one] = place
            if len(self._attribute_places) > _ATTRIBUTE_CACHE:
                self._attribute_places.popitem(last=False)
        return (one, *place)

    # --- directories ----------------------------------------------------------------------------

    def _cut_leaf(self, directory: OpenDirectory) -> None:
        entries = directory.entries
        node, handle = self._pend(directory.path, entries, top=False)
        directory.leaves.append(InnerNode(entries[0].name, len(entries), node, handle, 0))
        directory.entries, directory.noted, directory.name_bytes = [], 0, 0

    def complete(self, directory: OpenDirectory) -> tuple[bytes, int]:
        """Make a directory's final node; returns its id and the handle of its place."""
        if not directory.ordered:
            entries = sorted(directory.entries, key=lambda e: e.name)
            directory.entries, directory.name_bytes = [], 0
            for entry in entries:
                directory.entries.append(entry)
                directory.last_name = entry.name
                directory.name_bytes += len(entry.name)
                if leaf_ends(len(directory.entries), directory.name_bytes, directory.last_name):
                    self._cut_leaf(directory)
        if not directory.leaves:
            return self._pend(directory.path, directory.entries, top=True)
        if directory.entries:
            self._cut_leaf(directory)
        return self._join_leaves(directory)

    def _join_leaves(self, directory: OpenDirectory) -> tuple[bytes, int]:
        """Inner nodes over a directory's leaves, level by level."""
        children = directory.leaves
        while len(children) > CHILDREN_MOST:
            children = [self._inner(directory.path, group, top=False) for group in child_groups(children)]
        top = self._inner(directory.path, children, top=True)
        return top.id, top.block

    def _inner(self, path: bytes, children: list[InnerNode], *, top: bool) -> InnerNode:
        logical = nodes.inner_record(children)
        one, handle = crypto.digest(logical), self._next_node
        self._next_node += 1
        self._push(_PendingNode(logical, handle, (), [c.block for c in children], (), path, top, inner=True))
        return InnerNode(children[0].first_name, sum(c.entries for c in children), one, handle, 0)

    def _pend(self, path: bytes, entries: Sequence[Entry], *, top: bool) -> tuple[bytes, int]:
        logical = nodes.directory_record(entries)
        handle = self._next_node
        self._next_node += 1
        self._push(
            _PendingNode(
                logical,
                handle,
                [(e.block, e.piece) for e in entries if e.has_content],
                [e.block for e in entries if e.kind == Kind.DIRECTORY],
                [e.xattr_ref[1:] for e in entries if e.xattr_ref is not None],
                path,
                top,
            )
        )
        return crypto.digest(logical), handle

    def _push(self, node: _PendingNode) -> None:
        self._pending.append(node)
        self._pending_bytes += len(node.logical)
        if self._pending_bytes >= _PENDING_NODES_MOST:
            self.flush_pack()

    # --- blocks ---------------------------------------------------------------------------------

    def flush_pack(self) -> None:
        """Write the open pack, then what waited for it."""
        if self._pack.count:
            sequence = self._pipeline.submit(self._pack.seal())
            self._blocks[self._pack_handle] = sequence
            self._encoder.index.add_content(self._pack_ids, sequence)
            self._pack = PiecesBuilder(b"PACK", compression=self._compression)
            self._pack_ids = []
            self._pack_handle = self._new_handle()
        if self._pending_bytes >= _PENDING_NODES:
            self._flush_nodes()
        if self._encoder.offset >= self._checkpoint_at:
            self._checkpoint()

    def _flush_attributes(self) -> None:
        if not self._attributes.count:
            return
        self._blocks[self._attribute_handle] = self._pipeline.submit(self._attributes.seal())
        self._attributes = PiecesBuilder(b"TREX")
        self._attribute_handle = self._new_handle()

    def _flush_nodes(self) -> None:
        """Write all pending nodes; the pack that they refer to must have been written."""
        self._flush_attributes()
        builder = PiecesBuilder(b"TREE", target=TABLE_TARGET)
        for node in self._pending:
            piece = nodes.join_node(node.logical, self._hints(node))
            if not builder.fits(len(piece)):
                self._pipeline.submit(builder.seal())
                builder = PiecesBuilder(b"TREE", target=TABLE_TARGET)
            number = builder.add(piece)
            sequence = self._encoder.next_sequence  # the number this block will get: nothing else comes before it
            if node.handle >= 0:
                self._node_places[node.handle] = (sequence, number)
            if node.top:
                self._encoder.index.add_path(crypto.mac(self._path_key, node.path)[:16], sequence, number)
        if builder.count:
            self._pipeline.submit(builder.seal())
        self._pending = []
        self._pending_bytes = 0

    def _hints(self, node: _PendingNode) -> bytes:
        blocks = self._blocks
        children = [self._node_places.pop(handle) for handle in node.children]
        if node.inner:
            return nodes.directory_hints(node.path, children)
        content = [(blocks[handle], piece) for handle, piece in node.content]
        attributes = [(blocks[handle], piece) for handle, piece in node.attributes]
        return nodes.directory_hints(node.path, content, children, attributes)

    def _checkpoint(self) -> None:
        """Write every complete node, partial nodes for the open directories, and a ``ckpt``."""
        self._checkpoint_at = self._encoder.offset + _CHECKPOINT_BYTES
        for directory in (*self.stack, *self.others.values()):
            for start in range(directory.noted, len(directory.entries), LEAF_MOST):
                fresh = sorted(directory.entries[start : start + LEAF_MOST], key=lambda e: e.name)
                logical = nodes.directory_record(fresh, partial=True)
                content = [(e.block, e.piece) for e in fresh if e.has_content]
                self._pending.append(_PendingNode(logical, -1, content, (), (), directory.path, top=False))
            directory.noted = len(directory.entries)
        self._flush_nodes()
        self._pipeline.wait_for(self._last_checkpoint)
        self._last_checkpoint = self._pipeline.submit(self._encoder.checkpoint())

    def finish(self) -> tuple[bytes, int, int]:
        """Complete every directory still open; returns id, block and piece of the root's node."""
        for path in sorted(self.others, key=lambda p: p.count(b"/"), reverse=True):
            directory = self.others.pop(path)
            assert directory.entry is not None
            directory.entry.child, directory.entry.block = self.complete(directory)
        one, handle = self.complete(self.root)
        self.flush_pack()
        self._flush_nodes()
        return (one, *self._node_places[handle])


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _show(directory: bytes, name: bytes) -> str:
    return _join(directory, name).decode("utf-8", "backslashreplace")
