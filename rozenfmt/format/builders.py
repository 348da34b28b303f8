"""Typed block builders, driven by the tables in ``state`` (format.md, section 5).

Each builder makes drafts; sealing and numbering are the encoder's.  A wrong order of calls
raises ``UsageError`` and writes nothing.  Builders hold no hashers: content ids come from
outside, so that every state can be exported and restored at a block boundary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from rozenfmt.errors import UsageError

from . import crypto, nodes, records
from .blocks import Draft
from .codecs import Compression
from .limits import MAX_DECODED, MAX_MEDIA_TYPE, MAX_NAME, MAX_PIECES
from .nodes import Part
from .records import CheckpointBody, CheckpointRecord, FootRecord, PiecesRecord, StreamContent, StreamEnd, StreamStart
from .registry import Codec
from .state import (
    FOOTER,
    PIECES,
    STREAM,
    FooterEvent,
    FooterState,
    Machine,
    PiecesEvent,
    PiecesState,
    StreamEvent,
    StreamState,
)
from .varint import encode_column

__all__ = ["FooterBuilder", "PartTableBuilder", "PiecesBuilder", "StreamBuilder", "checkpoint", "table_ends"]

PACK_TARGET: Final = 4 * 1024 * 1024
_TABLE_LEAST: Final = 512
_TABLE_MOST: Final = 8_192
_TABLE_MASK: Final = 0x07FF


class PiecesBuilder:
    """Fills one ``PACK``, ``TREE`` or ``TREX`` with whole pieces, to about ``target`` bytes."""

    def __init__(self, block_type: bytes, *, target: int = PACK_TARGET, compression: Compression | None = None) -> None:
        self.type = block_type
        self._target = min(target, MAX_DECODED)
        self._compression = compression or Compression.metadata()
        self._machine = Machine(PiecesState.EMPTY, PIECES)
        self._pieces: list[bytes | bytearray | memoryview] = []
        self.size = 0

    @property
    def state(self) -> PiecesState:
        """Where the builder stands."""
        return self._machine.state

    @property
    def count(self) -> int:
        """Pieces so far."""
        return len(self._pieces)

    def fits(self, size: int, count: int = 1) -> bool:
        """Whether ``count`` pieces of ``size`` bytes may still be added without going over the target.

        An empty block takes any piece up to the format's limit.
        """
        if not self._pieces and count == 1:
            return size <= MAX_DECODED
        return self.size + size <= self._target and len(self._pieces) + count <= MAX_PIECES

    def add(self, piece: bytes | bytearray | memoryview) -> int:
        """Append a piece and return its number.

        Raises:
            UsageError: It is empty, does not fit, or the block was sealed already.
        """
        self.extend((piece,))
        return len(self._pieces) - 1

    def extend(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Append pieces, all or none.

        Raises:
            UsageError: One is empty, they do not fit, or the block was sealed already.
        """
        sizes = list(map(len, pieces))
        if not all(sizes):
            msg = "a piece of no bytes"
            raise UsageError(msg)
        if not self._machine.allows(PiecesEvent.ADD) or not self.fits(sum(sizes), len(sizes)):
            self._machine.step(PiecesEvent.ADD)
            msg = f"{len(sizes)} pieces of {sum(sizes)} bytes do not fit the block any more"
            raise UsageError(msg)
        self._machine.step(PiecesEvent.ADD)
        self._pieces += pieces
        self.size += sum(sizes)

    def seal(self) -> Draft:
        """Close the block.

        Raises:
            UsageError: It is empty or was sealed already.
        """
        self._machine.step(PiecesEvent.SEAL)
        record = PiecesRecord(lengths=encode_column([len(piece) for piece in self._pieces]))
        pieces, self._pieces = self._pieces, []
        return Draft.joined(self.type, record, pieces, self._compression)


class StreamBuilder:
    """One streamed content: ``FHDR``, any number of ``FCNT``, ``FEND``.

    Args:
        number: Stream number, as the encoder gives it.
        compression: What to try on the content.
    """

    def __init__(self, number: int, *, compression: Compression | None = None) -> None:
        self.number = number
        self._compression = compression or Compression()
        self._machine = Machine(StreamState.NEW, STREAM)
        self._blocks = 0
        self._end = 0

    @property
    def state(self) -> StreamState:
        """Where the stream stands."""
        return self._machine.state

    @property
    def blocks(self) -> int:
        """``FCNT`` drafts made so far."""
        return self._blocks

    @property
    def end_offset(self) -> int:
        """Where the content so far ends, in bytes."""
        return self._end

    def start(self, *, name: bytes | None = None, size: int | None = None, media_type: str | None = None) -> Draft:
        """Draft of ``FHDR``, with optional hints."""
        if name is not None and len(name) > MAX_NAME:
            name = None
        if media_type is not None and len(media_type.encode()) > MAX_MEDIA_TYPE:
            msg = "a media type is over 255 bytes"
            raise UsageError(msg)
        self._machine.step(StreamEvent.FHDR)
        return Draft(b"FHDR", StreamStart(stream=self.number, name=name, hint_size=size, media_type=media_type))

    def content(self, pieces: Sequence[bytes | bytearray | memoryview], offset: int) -> Draft:
        """Draft of an ``FCNT``.

        Args:
            pieces: Runs that follow each other, none empty, 16 MiB together at most.
            offset: Where the first begins; past ``end_offset`` if a hole precedes.

        Raises:
            UsageError: The stream is not open, or the arguments are out of range.
        """
        lengths = [len(piece) for piece in pieces]
        if offset < self._end or not lengths or 0 in lengths or len(lengths) > MAX_PIECES or sum(lengths) > MAX_DECODED:
            msg = "a stream's pieces are empty, too big, or overlap what was written"
            raise UsageError(msg)
        self._machine.step(StreamEvent.FCNT)
        record = StreamContent(lengths=encode_column(lengths), stream=self.number, number=self._blocks, offset=offset)
        self._blocks += 1
        self._end = offset + sum(lengths)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return Draft(b"FCNT", record, body, self._compression)

    def end(self, length: int, content_id: bytes, table: bytes) -> Draft:
        """Draft of ``FEND``.

        Args:
            length: Length of the content in bytes, at least 1; past ``end_offset`` if it ends with a hole.
            content_id: Its id.
            table: Its part table, from ``PartTableBuilder.finish``.
        """
        if length < max(self._end, 1):
            msg = "a stream's length is less than what was written"
            raise UsageError(msg)
        self._machine.step(StreamEvent.FEND)
        record = StreamEnd(stream=self.number, length=length, blocks=self._blocks, content_id=content_id)
        return Draft(b"FEND", record, table)

    def abandon(self) -> None:
        """Give the stream up; readers ignore what it wrote."""
        self._machine.step(StreamEvent.ABANDON)

    def export(self) -> list[Any]:
        """State as CBOR-able values."""
        packing = self._compression
        return [self.number, self._machine.state.value, self._blocks, self._end, int(packing.codec), packing.level]

    @classmethod
    def restore(cls, state: Sequence[Any]) -> StreamBuilder:
        """A builder in the state that ``export`` gave."""
        builder = cls(state[0], compression=Compression(Codec(state[4]), state[5]))
        builder._machine = Machine(StreamState(state[1]), STREAM)
        builder._blocks, builder._end = state[2], state[3]
        return builder


def table_ends(count: int, part_id: bytes | None) -> bool:
    """Whether a sub-table of ``count`` parts ends after the part of this id: by content, within bounds."""
    by_content = part_id is not None and not int.from_bytes(part_id[:2], "little") & _TABLE_MASK
    return count >= _TABLE_MOST or (count >= _TABLE_LEAST and by_content)


class PartTableBuilder:
    """Collects the parts of one content; big tables go out as sub-tables, cut by content.

    Where a sub-table is cut depends on the parts' ids alone, so that contents which share long
    runs share sub-tables.
    """

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._tables: list[Part] = []
        self._cuts: deque[int] = deque()
        self._start = 0
        self._length = 0

    def add(self, length: int, part_id: bytes | None, block: int = 0, piece: int = 0) -> bytes | None:
        """Append a part (a hole, if ``part_id`` is None).

        Returns:
            A finished sub-table to be stored as a piece of a ``TREE`` block and then told to
            ``sub_table``; usually None.
        """
        if part_id is None and self._parts and self._parts[-1].id is None:
            hole = self._parts.pop()
            self._parts.append(Part(hole.offset, hole.length + length, None, 0, 0))
        else:
            self._parts.append(Part(self._length, length, part_id, block, piece))
        self._length += length
        return self._cut() if table_ends(len(self._parts), part_id) else None

    def _cut(self) -> bytes:
        node = nodes.part_leaf(self._parts)
        self._cuts.append(sum(part.length for part in self._parts))
        self._parts = []
        return node

    def rest(self) -> bytes | None:
        """The last sub-table, if there are sub-tables and parts are left; to be called before ``finish``."""
        return self._cut() if (self._tables or self._cuts) and self._parts else None

    def sub_table(self, node: bytes, block: int, piece: int) -> None:
        """Note where a sub-table was stored; in the order in which they came out."""
        split = 4 + int.from_bytes(node[:4], "little")
        covered = self._cuts.popleft()
        self._tables.append(Part(self._start, covered, crypto.digest(node[4:split]), block, piece))
        self._start += covered

    def finish(self) -> bytes:
        """The table for ``FEND``."""
        if not self._tables and not self._cuts:
            return nodes.part_leaf(self._parts)
        if self._parts or self._cuts:
            msg = "the last sub-table was not stored"
            raise UsageError(msg)
        return nodes.part_inner(self._tables)


def checkpoint(first: int, rows: Sequence[tuple[bytes, int]], previous: int | None) -> Draft:
    """Draft of a ``ckpt`` block (format.md, section 5.5).

    Args:
        first: Sequence number of the first block listed.
        rows: Type and stored length of each block since the previous ``ckpt``.
        previous: Offset of the previous ``ckpt``.
    """
    body = b""
    if rows:
        columns = CheckpointBody(
            types=b"".join(row[0] for row in rows), lengths=encode_column([row[1] for row in rows])
        )
        body = records.encode(columns)
    return Draft(b"ckpt", CheckpointRecord(first=first, count=len(rows), previous=previous), body)


class FooterBuilder:
    """Makes ``FOOT`` and tail once the index root is written (format.md, section 10)."""

    def __init__(self, header_section: bytes, header_digest: bytes, archive_id: bytes) -> None:
        self._machine = Machine(FooterState.OPEN, FOOTER)
        self._header = header_section
        self._digest = header_digest
        self._archive_id = archive_id
        self._root: tuple[int, int, int, bytes] | None = None

    @property
    def state(self) -> FooterState:
        """Where the builder stands."""
        return self._machine.state

    def root(self, sequence: int, offset: int, length: int, whole_hash: bytes) -> None:
        """Note where the index root is."""
        self._machine.step(FooterEvent.ROOT)
        self._root = (sequence, offset, length, whole_hash)

    def record(self, offset: int, blocks: int, chain: bytes) -> FootRecord:
        """The footer's record; offset and number of blocks before it, and the chain."""
        self._machine.step(FooterEvent.SEAL)
        assert self._root is not None
        return FootRecord(offset=offset, blocks=blocks, root=self._root, chain=chain, header=self._header)

    def signed_message(self, foot_header_hash: bytes) -> bytes:
        """What the signature covers."""
        return b"".join((crypto.SIGNATURE_LABEL, self._archive_id, self._digest, foot_header_hash))

    def tail(self, offset: int, length: int) -> bytes:
        """The last 64 bytes of the archive."""
        self._machine.step(FooterEvent.TAIL)
        return build_tail(offset, length, self._digest)


TAIL_SIZE: Final = 64
END_MAGIC: Final = bytes.fromhex("0A1A0A0D4E5A5289")


def build_tail(offset: int, length: int, header_digest: bytes) -> bytes:
    """The tail for a ``FOOT`` of ``length`` bytes at ``offset``."""
    lead = b"".join(n.to_bytes(8, "little") for n in (offset, length, offset + length + TAIL_SIZE))
    return lead + crypto.digest(lead, header_digest) + END_MAGIC
