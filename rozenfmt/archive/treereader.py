"""What an archive and a snapshot have in common: a tree of nodes, and contents at places that it names.

A place is an archive number, a block and a piece.  A self-contained archive knows number 0 only;
a snapshot has a number for every archive that it refers to.  Every node, piece and attribute is
compared with its id before anything of it is given out.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rozenfmt.errors import (
    ArchiveError,
    BlockError,
    LimitError,
    NoMatchingKey,
    StorageError,
    UnsupportedError,
    UsageError,
)
from rozenfmt.format import crypto
from rozenfmt.format.blocks import cut_pieces
from rozenfmt.format.decoder import decode_attributes
from rozenfmt.format.limits import MAX_NODE_DEPTH, MAX_TREE_DEPTH
from rozenfmt.format.nodes import Entry, InnerNode, Kind, Node, NodeType, Part

from .contents import PartTable, content_file
from .entries import ArchiveEntry
from .source import Cache

if TYPE_CHECKING:
    import io

    from .source import ArchiveSource

__all__ = ["Lost", "Place", "TreeReader", "clean_path", "place_of"]

Place = tuple[bytes | None, int, int, int]
"""Where a node is: its id (None if the block alone vouches for it), archive number, block, piece."""

Lost = Callable[[ArchiveError | StorageError], None]
"""Told of what cannot be read, by callers who go on without it."""

_NODE_BYTES: Final = 64 * 1024 * 1024
_PIECE_OVERHEAD: Final = 200  # bytes that a cut piece takes beside its content
_ATTRIBUTE_SETS: Final = 64
_READ_MOST: Final = 4 << 30


class TreeReader(ABC):
    """Walks a tree, looks entries up, and reads contents; made by those who know where it is stored.

    Iterating gives every entry, directories before what is in them, names in bytewise order.
    """

    def __init__(self) -> None:
        self._nodes: Cache[list[memoryview]] = Cache(_NODE_BYTES)
        self._attributes: Cache[tuple[tuple[bytes, bytes], ...]] = Cache(_ATTRIBUTE_SETS)

    # --- what the kinds of trees differ in ------------------------------------------------------

    _what = "archive"

    stream_type = b"FCNT"
    """Type of the blocks that hold parts of contents; internal."""

    streams_vouched = True
    """Whether the block of a part table vouches for the content's id; internal."""

    @abstractmethod
    def source_of(self, number: int) -> ArchiveSource:
        """The blocks of one of the archives; internal."""

    @abstractmethod
    def root_place(self) -> Place:
        """Where the root directory's node is; internal."""

    @property
    @abstractmethod
    def entry_count(self) -> int:
        """Entries in the tree."""

    @property
    @abstractmethod
    def content_bytes(self) -> int:
        """Bytes of content in them."""

    @abstractmethod
    def in_parts(self, entry: Entry) -> bool:
        """Whether a content is a part table, and not one piece; internal."""

    @abstractmethod
    def _table(self, entry: Entry) -> PartTable:
        """The part table of such a content."""

    @abstractmethod
    def _find(self, path: bytes) -> Entry | None:
        """The entry at a path."""

    def object_name(self, number: int) -> str:
        """What an archive is called in messages; internal."""
        return self.source_of(number).reader.name

    def entry_limit(self) -> int | None:
        """How many entries a walk may meet, where nothing else bounds it; internal."""
        return None

    def _is_of(self, node: Node, path: bytes) -> bool:  # noqa: ARG002 -- for those whose nodes know it
        """Whether a directory's node may be of this path."""
        return True

    def _entries(self, node: Node, number: int) -> list[Entry]:  # noqa: ARG002 -- for those who renumber
        """Entries of a leaf that stands in archive ``number``."""
        return node.entries()

    def _children(self, node: Node, number: int) -> list[InnerNode]:  # noqa: ARG002 -- likewise
        return node.children()

    def _parts(self, node: Node, number: int, offset: int) -> list[Part]:  # noqa: ARG002 -- likewise
        return node.parts(offset)

    # --- entries --------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[ArchiveEntry]:
        return self.walk()

    def walk(
        self, path: str | bytes = b"", *, lost: Callable[[bytes, ArchiveError | StorageError], None] | None = None
    ) -> Iterator[ArchiveEntry]:
        """Entries below a directory (or the one entry of a file), depth first.

        Args:
            path: Where to begin; everything by default.
            lost: Called with the path of each directory of which something cannot be read, and why; the walk
                goes on with the rest. By default the error is raised.

        Raises:
            UsageError: There is no such path.
            ArchiveError: A node is damaged, or an archive that holds one is missing.
        """
        where = clean_path(path)
        if not where:
            yield from self._walk(b"", self.root_place(), lost)
            return
        entry = self.entry(where)
        yield entry
        if entry.kind is Kind.DIRECTORY:
            yield from self._walk(where, place_of(entry.raw), lost)

    def _walk(
        self, path: bytes, place: Place, lost: Callable[[bytes, ArchiveError | StorageError], None] | None
    ) -> Iterator[ArchiveEntry]:
        def begin(path: bytes, place: Place) -> tuple[bytes, Iterator[Entry]]:
            told = None if lost is None else lambda error: lost(path, error)
            return path, self.directory_entries(place, path, told)

        limit, count = self.entry_limit(), 0
        stack = [begin(path, place)]
        while stack:
            here, entries = stack[-1]
            for entry in entries:
                count += 1
                if limit is not None and count > limit:
                    raise self.too_many_entries()
                yield ArchiveEntry(here, entry)
                if entry.kind == Kind.DIRECTORY:
                    if len(stack) >= MAX_TREE_DEPTH:
                        raise self.too_deep()
                    stack.append(begin(here + b"/" + entry.name if here else entry.name, place_of(entry)))
                    break
            else:
                stack.pop()

    def listdir(self, path: str | bytes = b"") -> Iterator[ArchiveEntry]:
        """Entries of one directory, names in bytewise order; reads no more than it must.

        Args:
            path: The directory; the root by default.

        Raises:
            UsageError: There is no such path, or it is no directory.
            ArchiveError: A node is damaged, or an archive that holds one is missing.
        """
        where = clean_path(path)
        place = self.root_place()
        if where:
            entry = self.entry(where)
            if entry.kind is not Kind.DIRECTORY:
                msg = f"{entry.path!r} is a {_words(entry.kind)}, not a directory"
                raise UsageError(msg)
            place = place_of(entry.raw)
        return (ArchiveEntry(where, entry) for entry in self.directory_entries(place, where))

    def directory_entries(self, place: Place, path: bytes, lost: Lost | None = None, depth: int = 0) -> Iterator[Entry]:
        """Entries of one directory by the id and place of its node, in order; internal.

        A node that says it is of another path is refused: nodes that know their path are never shared,
        so no small archive can describe an endless tree.  Where they do not, ``entry_limit`` ends it.
        """
        try:
            node = self._directory(place)
            if not self._is_of(node, path):
                raise self.broken(place[1], place[2], "a directory's node says that it is of another directory")
            if node.type == NodeType.DIRECTORY:
                yield from self._entries_of(node, place)
                return
            children = self._children_of(node, place, depth)
        except (ArchiveError, StorageError) as error:
            if lost is None:
                raise
            lost(error)
            return
        try:
            yield from self._inner_entries(place, children, path, lost, depth)
        except ArchiveError as error:
            if lost is None:
                raise
            lost(error)

    def _inner_entries(
        self, place: Place, children: Sequence[InnerNode], path: bytes, lost: Lost | None, depth: int
    ) -> Iterator[Entry]:
        last = b""
        for child in children:
            count = 0
            missing: list[ArchiveError | StorageError] = []
            below = self.directory_entries(
                (child.id, child.archive, child.block, child.piece),
                path,
                None if lost is None else missing.append,
                depth + 1,
            )
            for entry in below:
                if entry.name <= last or (not count and not missing and entry.name != child.first_name):
                    raise self.broken(place[1], place[2], "the parts of a directory overlap")
                count, last = count + 1, entry.name
                if count > child.entries:  # else a part could be named over and over
                    break
                yield entry
            if count != child.entries and (not missing or count > child.entries):
                # Empty parts, named over and over, would take for ever.
                raise self.broken(place[1], place[2], "a part of a directory has another number of entries")
            if lost is not None:
                for error in missing:
                    lost(error)

    def _directory(self, place: Place) -> Node:
        expected, number, sequence, piece = place
        node = self.node(number, sequence, piece, expected)
        if node.type not in (NodeType.DIRECTORY, NodeType.INNER):
            msg = f"a node of type {node.type} stands where a directory should"
            raise UnsupportedError(msg, object=self.object_name(number), block=sequence, clause="8")
        return node

    def _entries_of(self, node: Node, place: Place) -> list[Entry]:
        try:
            return self._entries(node, place[1])
        except ArchiveError as error:
            raise self._located(error, place[1], place[2]) from None

    def _children_of(self, node: Node, place: Place, depth: int) -> list[InnerNode]:
        if depth >= MAX_NODE_DEPTH:
            msg = "a directory's inner nodes are nested too deep"
            raise LimitError(msg, object=self.object_name(place[1]), block=place[2], clause="14")
        try:
            return self._children(node, place[1])
        except ArchiveError as error:
            raise self._located(error, place[1], place[2]) from None

    def _located(self, error: ArchiveError, number: int, sequence: int) -> ArchiveError:
        """The same error, with the object and the block where it is."""
        if error.object is None:
            error.object, error.block = self.object_name(number), sequence
        return error

    def node(self, number: int, sequence: int, piece: int, expected: bytes | None) -> Node:
        """A node from a ``TREE`` block, compared with the id by which it is referred to; internal."""
        pieces = self._nodes.get((number, sequence))
        if pieces is None:
            block = self.source_of(number).load(sequence)
            if block.type != b"TREE":
                raise self.broken(number, sequence, "a node is said to be where no TREE block is")
            pieces = cut_pieces(block)
            self._nodes.put((number, sequence), pieces, len(block.body) + _PIECE_OVERHEAD * len(pieces))
        if piece >= len(pieces):
            raise self.broken(number, sequence, "a node is missing in its block")
        try:
            node = Node.decode(pieces[piece])
        except BlockError as error:
            raise self.broken(number, sequence, error.message) from error
        if expected is not None and node.id != expected:
            raise self.broken(number, sequence, "a node is not the one that refers to it says")
        return node

    def broken(self, number: int, sequence: int, message: str, clause: str = "8") -> BlockError:
        """The error for a block that is not what refers to it says; internal."""
        return BlockError(message, object=self.object_name(number), block=sequence, clause=clause)

    def too_many_entries(self) -> BlockError:
        """The error for a tree that goes on beyond ``entry_limit``; internal."""
        msg = f"the tree has more than the {self.entry_limit()} entries that it says"
        return BlockError(msg, object=self.object_name(0), clause="vault 6")

    def too_deep(self) -> LimitError:
        """The error for a tree that is too deep; internal."""
        msg = "directories are nested deeper than a reader follows"
        return LimitError(msg, object=self.object_name(0), clause="14")

    def entry(self, path: str | bytes) -> ArchiveEntry:
        """The entry at a path; reads a few blocks, however big the tree is.

        Raises:
            UsageError: There is no such path.
            ArchiveError: A node on the way is damaged, or the archive that holds it is missing.
        """
        where = clean_path(path)
        parent, _, name = where.rpartition(b"/")
        entry = self._find(where) if name else None
        if entry is None:
            msg = f"{os.fsdecode(where)!r} is not in the {self._what}"
            raise UsageError(msg)
        return ArchiveEntry(parent, entry)

    def _search(self, place: Place, path: bytes, name: bytes, depth: int = 0) -> Entry | None:
        """An entry of the directory ``path`` by its name: one node of each level is read."""
        node = self._directory(place)
        if not self._is_of(node, path):  # the path's hash met another directory: nothing else can be there
            return None
        if node.type == NodeType.DIRECTORY:
            return next((entry for entry in self._entries_of(node, place) if entry.name == name), None)
        children = self._children_of(node, place, depth)
        at = bisect_right(children, name, key=_first_name) - 1
        if at < 0:
            return None
        child = children[at]
        return self._search((child.id, child.archive, child.block, child.piece), path, name, depth + 1)

    def xattrs(self, entry: ArchiveEntry) -> tuple[tuple[bytes, bytes], ...]:
        """Extended attributes of an entry, ACLs among them.

        Raises:
            NoMatchingKey: The key at hand may only browse.
            ArchiveError: They are damaged, or the archive that holds them is missing.
        """
        return self.attributes(entry.raw)

    def attributes(self, entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
        """Extended attributes of an entry as the format has it; internal."""
        if entry.xattr_ref is None:
            return ()
        expected, sequence, piece = entry.xattr_ref
        key = (expected, entry.xattr_archive, sequence, piece)
        found = self._attributes.get(key)
        if found is None:
            data = bytes(self._piece(entry.xattr_archive, sequence, piece, b"TREX"))
            self._check_id(data, expected, entry.xattr_archive, sequence)
            found = decode_attributes(data)
            self._attributes.put(key, found, 1)
        return found

    # --- contents -------------------------------------------------------------------------------

    def require_read(self, number: int = 0) -> bytes:
        """The key of content ids in an archive; internal.

        Raises:
            NoMatchingKey: The key at hand may only browse.
        """
        keys = self.source_of(number).keys
        if keys is None or keys.secret is None or keys.id_key is None:
            msg = "the key at hand may browse names and sizes, not read contents"
            raise NoMatchingKey(msg, object=self.object_name(number), clause="6.1")
        return keys.id_key

    def _piece(self, number: int, sequence: int, piece: int, block_type: bytes) -> memoryview:
        self.require_read(number)
        block = self.source_of(number).block(sequence)
        if block.type != block_type:
            raise self.broken(number, sequence, f"a {block_type.decode()} block is expected here")
        pieces = cut_pieces(block)
        if piece >= len(pieces):
            raise self.broken(number, sequence, "a piece is missing in its block")
        return pieces[piece]

    def _check_id(self, data: bytes | memoryview, expected: bytes, number: int, sequence: int) -> None:
        if crypto.content_id(self.require_read(number), crypto.digest(data), len(data)) != expected:
            raise self.broken(number, sequence, "a content is not the one that its id names: it is not released")

    def parts(self, entry: Entry) -> tuple[bytes, Sequence[Part]]:
        """How a content is stored: the type of the blocks that hold it, and its parts; internal."""
        if self.in_parts(entry):
            return self.stream_type, self._table(entry)
        return b"PACK", (Part(0, entry.size, entry.content_id, entry.block, entry.piece, entry.archive),)

    def node_parts(self, node: Node, number: int, sequence: int, offset: int = 0) -> list[Part]:
        """Parts of a table that stands in a block; internal."""
        try:
            return self._parts(node, number, offset)
        except ArchiveError as error:
            raise self._located(error, number, sequence) from None

    def table(self, node: Node, number: int, sequence: int, length: int) -> PartTable:
        """A part table from the node that stands in a block; internal."""
        return PartTable(self, node, number, sequence, length)

    def part_data(self, part: Part, block_type: bytes) -> memoryview:
        """Bytes of one stored part, checked against its id; internal."""
        assert part.id is not None
        data = self._piece(part.archive, part.block, part.piece, block_type)
        if len(data) != part.length:
            raise self.broken(part.archive, part.block, "a content has another length than what refers to it says")
        self._check_id(data, part.id, part.archive, part.block)
        return data

    def read(self, path: str | bytes) -> bytes:
        """The whole content of a file; for big ones use ``open``.

        Raises:
            UsageError: There is no such file.
            ArchiveError: It is damaged, or an archive that holds it is missing.
        """
        entry = self.entry(path)
        if entry.size > _READ_MOST:
            msg = f"{entry.path!r} has {entry.size} bytes, too many to hold at once: use open"
            raise UsageError(msg)
        with self.open(entry) as file:
            return file.read()

    def open(self, path: str | bytes | ArchiveEntry) -> io.BufferedReader:
        """A file's content as a seekable binary file that reads only the blocks it needs.

        Raises:
            UsageError: There is no such file, or its content was never stored.
            NoMatchingKey: The key at hand may only browse.
            ArchiveError: Where it is stored is damaged or missing; reading raises it too.
        """
        entry = path if isinstance(path, ArchiveEntry) else self.entry(path)
        if entry.kind is not Kind.FILE:
            msg = f"{entry.path!r} is a {_words(entry.kind)}, not a file"
            raise UsageError(msg)
        if entry.unreadable:
            msg = f"{entry.path!r} could not be read when the {self._what} was made; it has no content here"
            raise UsageError(msg)
        self.require_read()
        return content_file(self, entry.raw)


def place_of(entry: Entry) -> Place:
    """Where a directory's node is."""
    return entry.child, entry.archive, entry.block, entry.piece


def clean_path(path: str | bytes) -> bytes:
    """A caller's path as the format has it."""
    return os.fsencode(path).strip(b"/")


def _words(kind: Kind) -> str:
    return kind.name.lower().replace("_", " ")


def _first_name(child: InnerNode) -> bytes:
    return child.first_name
