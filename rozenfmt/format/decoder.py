"""The decoder: bytes in, verified blocks out (format.md, section 11).

Three parts that a pipeline may run apart: ``Splitter`` cuts the stream of bytes into raw
items (cheap, in order); ``open_raw`` verifies and opens one raw block (dear, a pure
function); ``Grammar`` judges the blocks of one archive in order.  ``Decoder`` is all three
in a row.  However the bytes are cut when they are fed, the same items come out.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rozenfmt.errors import (
    ArchiveError,
    BlockError,
    IndexDamaged,
    LimitError,
    SignatureError,
    TruncatedError,
    UsageError,
)

from . import cbor, crypto, records
from .blocks import Block, Opener, cut_pieces
from .builders import END_MAGIC, TAIL_SIZE, FooterBuilder, build_tail
from .crypto import Keys
from .frame import PREFIX_SIZE, Prefix, parse_frame, parse_prefix
from .header import MAGIC, PREAMBLE_SIZE, Header, header_section_length, parse_header
from .index import LookupLeaf, Root, TableLeaf
from .limits import MAX_ATTRIBUTES, MAX_OPEN_STREAMS
from .nodes import Node, NodeType
from .registry import IndexKind, Suite
from .registry import Kind as ArchiveKind
from .snapshots import CrossReferences, KeyringBody, Reference, SnapshotBody
from .state import (
    ARCHIVE,
    INDEX,
    SNAPSHOT,
    STREAM,
    ArchiveEvent,
    ArchiveState,
    IndexEvent,
    IndexState,
    Machine,
    SnapshotEvent,
    SnapshotState,
    StreamEvent,
    StreamState,
)
from .varint import decode_column

__all__ = [
    "BlockEvent",
    "Decoder",
    "EndEvent",
    "Grammar",
    "HeaderEvent",
    "RawBlock",
    "RawHeader",
    "RawTail",
    "Splitter",
    "Tail",
    "check_foot",
    "open_raw",
    "parse_tail",
]


_ROW = struct.Struct("<4sQ")


@dataclass(frozen=True, slots=True)
class RawHeader:
    """A parsed header; ``base`` is where its archive begins in the object."""

    header: Header
    base: int


@dataclass(frozen=True, slots=True)
class RawBlock:
    """A block as cut from the stream, unverified; ``offset`` counts from its archive's preamble."""

    prefix: Prefix
    data: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class RawTail:
    """The 64 bytes after ``FOOT``."""

    data: bytes
    offset: int


class _Fed:
    """Bytes that were fed and not taken yet.  What is taken is copied once, or not at all."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._start = 0  # in the first chunk
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, data: bytes | bytearray | memoryview) -> None:
        if data:
            self._chunks.append(bytes(data))
            self._size += len(data)

    def peek(self, length: int) -> bytes:
        """The first bytes, or all if there are fewer."""
        start, found = self._start, []
        for chunk in self._chunks:
            found.append(chunk[start : start + length])
            length -= len(found[-1])
            start = 0
            if not length:
                break
        return b"".join(found)

    def take(self, length: int) -> bytes:
        """The first bytes, of which there must be as many."""
        self._size -= length
        chunk = self._chunks[0]
        end = self._start + length
        if end < len(chunk):
            data = chunk[self._start : end]
            self._start = end
            return data
        found = []
        while length:
            view = memoryview(self._chunks[0])[self._start : self._start + length]
            found.append(view)
            length -= len(view)
            self._start += len(view)
            if self._start == len(self._chunks[0]):
                self._chunks.popleft()
                self._start = 0
        return b"".join(found)


class Splitter:
    """Cuts one object, which may be several archives back to back, into raw items.

    Feed it with ``feed`` and end it with ``close``; take items by iterating.  It buffers at most
    one block.  An error is sticky.
    """

    def __init__(self) -> None:
        self._fed = _Fed()
        self._base = 0
        self._offset = 0
        self._header: Header | None = None
        self._sequence = 0
        self._tail_next = False
        self._closed = False
        self._failure: ArchiveError | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Append the object's next bytes."""
        if self._closed:
            msg = "bytes were fed after the end"
            raise UsageError(msg)
        self._fed.add(data)

    def close(self) -> None:
        """Say that the object ends here."""
        self._closed = True

    def __iter__(self) -> Iterator[RawHeader | RawBlock | RawTail]:
        while True:
            if self._failure is not None:
                raise self._failure
            try:
                item = self._next()
            except ArchiveError as error:
                self._failure = error
                raise
            if item is None:
                return
            yield item

    def _next(self) -> RawHeader | RawBlock | RawTail | None:
        if self._header is None:
            return self._next_header()
        if self._tail_next:
            data = self._take(TAIL_SIZE, "its tail")
            if data is None:
                return None
            tail = RawTail(data, self._offset - TAIL_SIZE)
            self._base += self._offset
            self._header, self._offset, self._sequence, self._tail_next = None, 0, 0, False
            return tail
        return self._next_block()

    def _next_header(self) -> RawHeader | None:
        if not self._fed and self._closed and self._base:
            return None
        lead = self._fed.peek(PREAMBLE_SIZE)
        if len(lead) < PREAMBLE_SIZE and not self._closed:
            if lead[:8] != MAGIC[: len(lead)]:
                header_section_length(lead)
            return None
        length = header_section_length(lead)
        if len(self._fed) < length and not self._closed:
            return None
        header = parse_header(self._fed.peek(length))
        self._fed.take(length)
        self._header, self._offset = header, length
        return RawHeader(header, self._base)

    def _next_block(self) -> RawBlock | None:
        if len(self._fed) < PREFIX_SIZE:
            if self._closed:
                msg = "the archive ends before its footer: it was cut off or is unfinished; salvage reads the rest"
                raise TruncatedError(msg, offset=self._offset, block=self._sequence, clause="11")
            return None
        assert self._header is not None
        try:
            prefix = parse_prefix(self._fed.peek(PREFIX_SIZE), self._header.archive_id, self._sequence)
        except ArchiveError as error:
            error.offset, error.block = self._offset, self._sequence
            raise
        data = self._take(prefix.frame_length, "a block")
        if data is None:
            return None
        item = RawBlock(prefix, data, self._offset - len(data))
        self._sequence += 1
        self._tail_next = prefix.type == b"FOOT"
        return item

    def _take(self, length: int, what: str) -> bytes | None:
        if len(self._fed) < length:
            if self._closed:
                msg = (
                    f"the archive ends inside {what}: it was cut off, or is still being written; salvage reads the rest"
                )
                raise TruncatedError(msg, offset=self._offset, block=self._sequence, clause="11")
            return None
        data = self._fed.take(length)
        self._offset += length
        return data


def open_raw(raw: RawBlock, opener: Opener) -> Block:
    """Verify and open one raw block: steps (f) to (j).

    Raises:
        ArchiveError: With offset and block filled in.
    """
    try:
        return opener.open(parse_frame(raw.data, raw.prefix))
    except ArchiveError as error:
        error.offset, error.block = raw.offset, raw.prefix.sequence
        raise


@dataclass(frozen=True, slots=True)
class Tail:
    """A parsed tail: where ``FOOT`` is, its length, and the archive's total length."""

    foot_offset: int
    foot_length: int
    total: int
    digest: bytes


def parse_tail(data: bytes) -> Tail:
    """Read 64 bytes of tail; its hash is checked later, with the header digest.

    Raises:
        IndexDamaged: The numbers or the end magic are wrong.
    """
    offset, length, total = (int.from_bytes(data[i : i + 8], "little") for i in (0, 8, 16))
    if data[56:] != END_MAGIC or offset + length + TAIL_SIZE != total:
        msg = "the archive's tail is damaged or cut off; salvage reads the rest"
        raise IndexDamaged(msg, clause="10")
    return Tail(offset, length, total, data[24:56])


def check_foot(block: Block, header: Header, keys: Keys | None, verify_key: bytes | None) -> None:
    """MACs and signature of ``FOOT``, as far as the keys at hand allow.

    Raises:
        IndexDamaged: A MAC is wrong, or the body has a wrong form.
        SignatureError: The signature is missing, wrong, or by another key than ``verify_key``.
    """
    signer = header.record.signer
    if len(block.body) not in (64, 128):
        msg = "the footer has a wrong length"
        raise IndexDamaged(msg, clause="10")
    if header.suite is Suite.PLAIN:
        right = block.body[:64] == bytes(64)
    elif keys is None:
        right = True
    else:
        right = crypto.equal(crypto.mac(keys.foot_mac_index, block.header_hash), block.body[:32])
        if keys.foot_mac_secret is not None:
            right &= crypto.equal(crypto.mac(keys.foot_mac_secret, block.header_hash), block.body[32:64])
    if not right:
        msg = "the footer's MAC is wrong: it was written by somebody who cannot read this archive"
        raise IndexDamaged(msg, clause="10")
    if (len(block.body) == 64) != (signer is None):
        msg = "a signature without a signer, or a signer without a signature"
        raise SignatureError(msg, clause="10")
    if verify_key is not None and signer != verify_key and header.kind is not ArchiveKind.DIRECTORY:
        who = "is not signed" if signer is None else "is signed by another key"
        msg = f"the archive {who}; the writer that you trust did not write it"
        raise SignatureError(msg, clause="10")
    if signer is not None:
        footer = FooterBuilder(header.section, header.digest, header.archive_id)
        crypto.verify_signature(signer, footer.signed_message(block.header_hash), block.body[64:])


class Grammar:
    """Judges the blocks of one archive in order: step (k), the footer, and the tail.

    Args:
        header: The archive's header.
        keys: Keys at hand, or None.
        verify_key: Ed25519 public key that must have signed it, or None.
    """

    def __init__(self, header: Header, keys: Keys | None, verify_key: bytes | None = None) -> None:
        self.header = header
        self._keys = keys
        self._verify_key = verify_key
        self._machine = Machine(ArchiveState.BLOCKS, ARCHIVE)
        self._chain = header.digest
        self._streams: dict[int, _StreamReader] = {}
        self._next_stream = 0
        self._last_index: tuple[int, int, int, bytes] | None = None
        self._unopened_index = False
        self._index = Machine(IndexState.COLLECTING, INDEX)
        self._leaves: list[tuple[IndexKind, int, int, int, bytes, bytes, int]] = []
        self._last_entry: tuple[IndexKind | None, tuple[bytes, int, int]] = (None, (b"", 0, 0))
        self._checkpoint_end: tuple[int, int | None] = (0, None)
        self._checkpoints_open = header.suite is Suite.PLAIN or keys is not None
        self._unlisted = bytearray()  # rows of the blocks that no checkpoint has listed yet
        self._members_seen = False
        self._vault = header.kind is ArchiveKind.METADATA
        self._snapshot = Machine(SnapshotState.NODES, SNAPSHOT)
        self._keyring_seen = False
        # Archive numbers in hints: where any archive may stand, where one of data must, where one of metadata.
        self._anywhere: set[int] = set()
        self._in_data: set[int] = set()
        self._in_metadata: set[int] = set()
        self._references: list[Reference] = []
        self.root: Root | None = None
        self.foot: records.FootRecord | None = None
        self._foot_length = 0

    @property
    def state(self) -> ArchiveState:
        """Where the archive stands."""
        return self._machine.state

    def accept(self, block: Block, offset: int) -> Any:
        """Take the next block.

        Returns:
            What was decoded on the way, for callers that look closer: nodes of ``TREE`` and ``FEND``, a
            leaf or the root of ``INDX``, otherwise None.

        Raises:
            ArchiveError: It has no place here or is malformed.
        """
        try:
            found = self._accept(block, offset)
        except ArchiveError as error:
            error.offset, error.block = offset, block.sequence
            if self._machine.allows(ArchiveEvent.FAIL):
                self._machine.step(ArchiveEvent.FAIL)
            raise
        if block.type == b"ckpt" and block.opened:
            self._checkpoint_end = (block.record.first + block.record.count, offset)
            del self._unlisted[: _ROW.size * block.record.count]
        if self._checkpoints_open and block.type not in (b"INDX", b"FOOT"):
            self._unlisted += _ROW.pack(block.type, block.length)
        if block.type != b"FOOT":
            self._chain = crypto.digest(self._chain, block.whole_hash)
        return found

    def _accept(self, block: Block, offset: int) -> Any:
        if block.type == b"INDX":
            return self._accept_index(block, offset)
        if block.type == b"FOOT":
            if self._unopened_index:
                self._step(ArchiveEvent.INDEX_ROOT)
            if self.header.kind is ArchiveKind.DIRECTORY and not self._members_seen:
                msg = "a directory archive without its directory"
                raise BlockError(msg, clause="5")
            self._step(ArchiveEvent.FOOT)
            return self._accept_foot(block, offset)
        if self._unopened_index:  # leaf or root, nothing but INDX and FOOT comes after it
            self._step(ArchiveEvent.INDEX_LEAF)
        self._step(ArchiveEvent.BLOCK)
        if self._vault:
            self._keyring_seen |= block.type == b"keyr"
            if block.type in _SNAPSHOT_EVENTS:
                self._step_snapshot(_SNAPSHOT_EVENTS[block.type])
        if not block.opened:
            return None
        handler = _HANDLERS.get(block.type)
        return handler(self, block) if handler is not None else None

    def _step(self, event: ArchiveEvent, error: type[ArchiveError] = BlockError) -> None:
        try:
            self._machine.step(event)
        except UsageError as misuse:
            msg = f"the block stands where it must not: {misuse}"
            raise error(msg, clause="5") from misuse

    def _step_snapshot(self, event: SnapshotEvent) -> None:
        try:
            self._snapshot.step(event)
        except UsageError as misuse:
            msg = f"a block of a metadata archive stands where it must not: {misuse}"
            raise BlockError(msg, clause="vault 5") from misuse

    def _accept_index(self, block: Block, offset: int) -> Any:
        if self._vault:
            self._step_snapshot(SnapshotEvent.INDEX)
            if not self._keyring_seen:
                msg = "a metadata archive has no keyr block"
                raise BlockError(msg, clause="vault 5")
        if self._unopened_index:
            self._step(ArchiveEvent.INDEX_LEAF)
        self._last_index = (block.sequence, offset, block.length, block.whole_hash)
        self._unopened_index = not block.opened
        if not block.opened:
            if self._machine.state not in (ArchiveState.BLOCKS, ArchiveState.INDEX):
                self._step(ArchiveEvent.INDEX_LEAF)
            return None
        kind = IndexKind(block.record.kind)
        self._step(ArchiveEvent.INDEX_ROOT if kind is IndexKind.ROOT else ArchiveEvent.INDEX_LEAF, IndexDamaged)
        self._step_index(kind)
        if kind is IndexKind.ROOT:
            self.root = self._index_root(block, offset)
            return self.root
        leaf = TableLeaf.decode(block) if kind is IndexKind.TABLE else self._lookup_leaf(block)
        key = leaf.first.to_bytes(8, "big") if isinstance(leaf, TableLeaf) else next(leaf.entries())[0]
        self._leaves.append((kind, block.sequence, offset, block.length, block.whole_hash, key, block.record.count))
        return leaf

    def _step_index(self, kind: IndexKind) -> None:
        try:
            self._index.step(_INDEX_EVENTS[kind])
        except UsageError as misuse:
            msg = f"a leaf of the index stands where it must not: {misuse}"
            raise IndexDamaged(msg, clause="9") from misuse

    def _lookup_leaf(self, block: Block) -> LookupLeaf:
        leaf = LookupLeaf.decode(block)
        if self.header.kind not in _LOOKUPS[leaf.kind]:
            msg = f"{leaf.kind.name.lower()} look-up in an archive of a kind that has none"
            raise IndexDamaged(msg, clause="9")
        entries = list(leaf.entries())
        kind, last = self._last_entry
        rows = [last, *entries] if kind is leaf.kind else entries
        paths = leaf.kind is IndexKind.PATH  # a path stands once; a content's prefix may stand at several places
        if any(a >= b or (paths and a[0] == b[0]) for a, b in pairwise(rows)):
            msg = "look-up leaves are not sorted, or have a row twice"
            raise IndexDamaged(msg, clause="9")
        self._last_entry = (leaf.kind, entries[-1])
        return leaf

    def _index_root(self, block: Block, offset: int) -> Root:
        root = Root.decode(block)
        first = self._leaves[0][1:3] if self._leaves else (block.sequence, offset)
        seen = [(x.kind, x.sequence, x.offset, x.length, x.whole_hash, x.first_key, x.count) for x in root.leaves]
        rooted = self.header.kind is ArchiveKind.SELF_CONTAINED
        if (
            (root.body.first, root.body.offset) != first
            or seen != self._leaves
            or (root.body.root is not None) != rooted
            or (root.body.totals is not None) != rooted
        ):
            msg = "the index root contradicts the leaves before it, or the kind of archive"
            raise IndexDamaged(msg, clause="9")
        return root

    def _accept_foot(self, block: Block, offset: int) -> None:
        record: records.FootRecord = block.record
        if (
            record.offset != offset
            or record.blocks != block.sequence
            or record.root != self._last_index
            or record.chain != self._chain
            or record.header != self.header.section
        ):
            msg = "the footer contradicts the blocks before it"
            raise IndexDamaged(msg, clause="10")
        check_foot(block, self.header, self._keys, self._verify_key)
        self.foot = record
        self._foot_length = block.length

    def accept_tail(self, data: bytes, offset: int) -> None:
        """Take the tail.

        Raises:
            IndexDamaged: It is not the tail of this archive.
        """
        assert self.foot is not None
        if data != build_tail(self.foot.offset, self._foot_length, self.header.digest):
            msg = "the tail contradicts the footer"
            raise IndexDamaged(msg, offset=offset, clause="10")
        self._step(ArchiveEvent.TAIL)

    # --- streams and nodes ----------------------------------------------------------------------

    def _stream_start(self, block: Block) -> None:
        if block.record.stream != self._next_stream:
            msg = "a stream does not have the next number"
            raise BlockError(msg, clause="5.1")
        if len(self._streams) >= MAX_OPEN_STREAMS:
            msg = "too many open streams"
            raise LimitError(msg, clause="14")
        self._next_stream += 1
        stream = self._streams[block.record.stream] = _StreamReader()
        stream.step(StreamEvent.FHDR)

    def _stream_content(self, block: Block) -> None:
        stream = self._stream(block)
        stream.step(StreamEvent.FCNT)
        stream.content(block.record, block.record.size)
        cut_pieces(block)

    def _stream_end(self, block: Block) -> Node:
        stream = self._stream(block)
        stream.step(StreamEvent.FEND)
        counted = self._keys is None or self._keys.secret is not None
        if counted and (block.record.blocks != stream.blocks or block.record.length < stream.end):
            msg = "a stream's end contradicts its content"
            raise BlockError(msg, clause="5.1")
        del self._streams[block.record.stream]
        node = Node.decode(block.body)
        if sum(part.length for part in node.parts()) != block.record.length:
            msg = "a stream's part table contradicts its length"
            raise BlockError(msg, clause="8.3")
        return node

    def _stream(self, block: Block) -> _StreamReader:
        stream = self._streams.get(block.record.stream)
        if stream is None:
            msg = f"stream {block.record.stream} is not open"
            raise BlockError(msg, clause="5.1")
        return stream

    def _pieces(self, block: Block) -> None:
        cut_pieces(block)

    def _tree(self, block: Block) -> list[Node]:
        found = [Node.decode(piece) for piece in cut_pieces(block)]
        for node in found:
            if self._vault:
                self._vault_node(node)
            else:
                check_node(node)
        return found

    def _vault_node(self, node: Node) -> None:
        """Check a node as ``check_node`` does, and note the archives that it refers to."""
        if node.type in (NodeType.DIRECTORY, NodeType.PARTIAL):
            for entry in node.keep_entries(vault=True):
                if entry.child is not None:
                    self._in_metadata.add(entry.archive)
                elif entry.has_content:
                    self._anywhere.add(entry.archive)
                if entry.xattr_ref is not None:
                    self._in_metadata.add(entry.xattr_archive)
        elif node.type == NodeType.INNER:
            self._in_metadata.update(child.archive for child in node.children(vault=True))
        elif node.type == NodeType.PARTS:
            self._in_data.update(part.archive for part in node.parts(vault=True) if part.id is not None)
            if 0 in self._in_data:
                msg = "a part table says that a part lies in this archive, which holds no contents"
                raise BlockError(msg, clause="vault 5.1")
        elif node.type == NodeType.PARTS_INNER:
            self._in_metadata.update(part.archive for part in node.parts(vault=True))

    def _cross_references(self, block: Block) -> list[Reference]:
        found = self._references = CrossReferences.decode(block.body, self.header.archive_id)
        for kind, numbers in ((None, self._anywhere), (1, self._in_data), (2, self._in_metadata)):
            for number in numbers:
                self._refer(number, kind)
        return found

    def _refer(self, number: int, kind: int | None) -> None:
        """An archive number must be that of a row of ``XREF``, and of this kind."""
        if number > len(self._references):
            msg = f"a node or the snapshot refers to archive number {number}, of {len(self._references)}"
            raise BlockError(msg, clause="vault 5.1")
        if number and kind is not None and self._references[number - 1].kind != kind:
            msg = f"archive number {number} is of another kind than what refers to it needs"
            raise BlockError(msg, clause="vault 5.1")

    def _snapshot_body(self, block: Block) -> SnapshotBody:
        found = SnapshotBody.decode(block.body)
        self._refer(found.root[1], 2)
        return found

    def _keyring(self, block: Block) -> KeyringBody:
        return records.decode(KeyringBody, block.body, clause="vault 5.4")

    def _attributes(self, block: Block) -> None:
        for piece in cut_pieces(block):
            decode_attributes(bytes(piece))

    def _checkpoint(self, block: Block) -> None:
        count, (first, previous) = block.record.count, self._checkpoint_end
        if block.record.first != first or block.record.previous != previous or first + count > block.sequence:
            msg = "a checkpoint does not go on where the previous one ended"
            raise BlockError(msg, clause="5.5")
        if (count > 0) != bool(block.body):
            msg = "a checkpoint contradicts itself"
            raise BlockError(msg, clause="5.5")
        if count:
            body = records.decode(records.CheckpointBody, block.body, clause="5.5")
            rows = list(_ROW.iter_unpack(self._unlisted[: _ROW.size * count]))
            lengths = decode_column(body.lengths, count)
            if body.types != b"".join(row[0] for row in rows) or lengths != [row[1] for row in rows]:
                msg = "a checkpoint contradicts the blocks that it lists"
                raise BlockError(msg, clause="5.5")

    def _members(self, block: Block) -> tuple[tuple[bytes, int, int], ...]:
        if self._members_seen:
            msg = "a second directory of members"
            raise BlockError(msg, clause="5")
        self._members_seen = True
        body = records.decode(records.DirectoryBody, block.body, clause="5.6")
        offsets = [row[1] for row in body.members]
        if sorted(set(offsets)) != offsets:
            msg = "the members of a joined object are out of order"
            raise BlockError(msg, clause="5.6")
        return body.members


_LOOKUPS = {
    IndexKind.CONTENT: (ArchiveKind.DATA, ArchiveKind.SELF_CONTAINED),
    IndexKind.PATH: (ArchiveKind.SELF_CONTAINED,),
}

_INDEX_EVENTS = {
    IndexKind.CONTENT: IndexEvent.CONTENT_LEAF,
    IndexKind.PATH: IndexEvent.PATH_LEAF,
    IndexKind.TABLE: IndexEvent.TABLE_LEAF,
    IndexKind.ROOT: IndexEvent.ROOT,
}

_SNAPSHOT_EVENTS = {
    b"TREE": SnapshotEvent.NODES,
    b"TREX": SnapshotEvent.NODES,
    b"XREF": SnapshotEvent.XREF,
    b"SNAP": SnapshotEvent.SNAP,
}

_HANDLERS: dict[bytes, Callable[[Grammar, Block], Any]] = {
    b"XREF": Grammar._cross_references,
    b"SNAP": Grammar._snapshot_body,
    b"keyr": Grammar._keyring,
    b"FHDR": Grammar._stream_start,
    b"FCNT": Grammar._stream_content,
    b"FEND": Grammar._stream_end,
    b"PACK": Grammar._pieces,
    b"TREE": Grammar._tree,
    b"TREX": Grammar._attributes,
    b"ckpt": Grammar._checkpoint,
    b"DIRY": Grammar._members,
}


class _StreamReader:
    """What a reader knows of one open stream."""

    __slots__ = ("_machine", "blocks", "end")

    def __init__(self) -> None:
        self._machine = Machine(StreamState.NEW, STREAM)
        self.blocks = 0
        self.end = 0

    def step(self, event: StreamEvent) -> None:
        self._machine.step(event)

    def content(self, record: records.StreamContent, size: int) -> None:
        if record.number != self.blocks or record.offset < self.end:
            msg = "a part of a stream is missing, doubled or out of order"
            raise BlockError(msg, clause="5.1")
        self.blocks += 1
        self.end = record.offset + size
        if self.end >= 1 << 63:
            msg = "a stream ends beyond 2^63 bytes"
            raise BlockError(msg, clause="5.1")


def check_node(node: Node, *, vault: bool = False) -> Node:
    """Decode a node's columns once, so that damage shows where it stands; unknown types pass."""
    if node.type in (NodeType.DIRECTORY, NodeType.PARTIAL):
        node.keep_entries(vault=vault)
    elif node.type == NodeType.INNER:
        node.children(vault=vault)
    elif node.type in (NodeType.PARTS, NodeType.PARTS_INNER):
        node.parts(vault=vault)
    return node


def decode_attributes(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes of a ``TREX`` piece (format.md, section 5.4).

    Raises:
        BlockError: It is malformed.
    """
    rows = cbor.loads(data)
    msg = "extended attributes are malformed"
    if type(rows) is not list or not rows:
        raise BlockError(msg, clause="5.4")
    if len(rows) > MAX_ATTRIBUTES:
        msg = f"an entry with {len(rows)} extended attributes"
        raise LimitError(msg, clause="14")
    found: list[tuple[bytes, bytes]] = []
    for row in rows:
        if type(row) is not list or len(row) != 2 or type(row[0]) is not bytes or type(row[1]) is not bytes:
            raise BlockError(msg, clause="5.4")
        if found and row[0] <= found[-1][0]:
            raise BlockError(msg, clause="5.4")
        found.append((row[0], row[1]))
    return tuple(found)


# --- All in a row -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeaderEvent:
    """An archive begins; ``base`` is its offset in the object."""

    header: Header
    keys: Keys | None
    base: int


@dataclass(frozen=True, slots=True)
class BlockEvent:
    """A block was verified and accepted; ``found`` is what ``Grammar.accept`` decoded."""

    block: Block
    offset: int
    found: Any


@dataclass(frozen=True, slots=True)
class EndEvent:
    """An archive is complete."""

    foot: records.FootRecord


class Decoder:
    """Reads an object sequentially: feed bytes, get events.

    Args:
        unlock: Gives the keys for a header (see ``header.unlock``), or None to check without a key.
        verify_key: Ed25519 public key that must have signed each archive but directories.
    """

    def __init__(self, unlock: Callable[[Header], Keys | None], verify_key: bytes | None = None) -> None:
        self._splitter = Splitter()
        self._unlock = unlock
        self._verify_key = verify_key
        self._grammar: Grammar | None = None
        self._opener: Opener | None = None
        self._failure: ArchiveError | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> list[HeaderEvent | BlockEvent | EndEvent]:
        """Append bytes; returns the events that they complete.

        If an error follows these events, the next call raises it.  An error is sticky.
        """
        self._splitter.feed(data)
        found: list[HeaderEvent | BlockEvent | EndEvent] = []
        try:
            for event in self.events():
                found.append(event)  # noqa: PERF402 -- keeps what came before an error
        except ArchiveError:
            if not found:
                raise
        return found

    def close(self) -> list[HeaderEvent | BlockEvent | EndEvent]:
        """Say that the object ends; raises ``TruncatedError`` if it ends too early, and any error still due."""
        self._splitter.close()
        return list(self.events())

    def events(self) -> Iterator[HeaderEvent | BlockEvent | EndEvent]:
        """Events that the bytes fed so far allow; an error comes after the events before it, and stays."""
        if self._failure is not None:
            raise self._failure
        try:
            for item in self._splitter:
                yield self._event(item)
        except ArchiveError as error:
            self._failure = error
            raise

    def _event(self, item: RawHeader | RawBlock | RawTail) -> HeaderEvent | BlockEvent | EndEvent:
        if isinstance(item, RawHeader):
            keys = self._unlock(item.header)
            self._grammar = Grammar(item.header, keys, self._verify_key)
            self._opener = opener_for(item.header, keys)
            return HeaderEvent(item.header, keys, item.base)
        assert self._grammar is not None
        assert self._opener is not None
        if isinstance(item, RawBlock):
            block = open_raw(item, self._opener)
            return BlockEvent(block, item.offset, self._grammar.accept(block, item.offset))
        self._grammar.accept_tail(item.data, item.offset)
        assert self._grammar.foot is not None
        return EndEvent(self._grammar.foot)


def opener_for(header: Header, keys: Keys | None) -> Opener:
    """An opener for the blocks of one archive."""
    return Opener(header.suite, header.kind, header.record.padding, keys)
