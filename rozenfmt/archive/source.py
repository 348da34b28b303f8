"""Random access to one archive in one object (format.md, section 12).

The last 256 KiB are read first: tail, footer with the copy of the header, index root and the
leaves before it.  Every block is compared with the block table before it is opened, and the
block table with the root, and the root with the footer, whose MACs and signature cover it.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

from rozenfmt.errors import ArchiveError, BlockError, IndexDamaged, LimitError, TruncatedError, UsageError
from rozenfmt.format import crypto, records
from rozenfmt.format.blocks import Block, foot_record
from rozenfmt.format.builders import TAIL_SIZE
from rozenfmt.format.crypto import Keys
from rozenfmt.format.decoder import Tail, check_foot, opener_for, parse_tail
from rozenfmt.format.frame import PREFIX_SIZE, Frame, parse_frame, parse_prefix
from rozenfmt.format.header import Header, Unwrapper, parse_header, unlock
from rozenfmt.format.index import Leaf, LookupLeaf, Root, TableLeaf
from rozenfmt.format.limits import MAX_BLOCK_BODY, MAX_BLOCK_HEADER
from rozenfmt.format.records import FootRecord
from rozenfmt.format.registry import IndexKind, Kind

if TYPE_CHECKING:
    from rozenfmt.storage.base import Storage

__all__ = ["ArchiveSource", "Cache", "Caches", "Member", "ObjectReader", "Traffic", "list_members"]

SUFFIX: Final = 256 * 1024
LONGEST_FRAME: Final = PREFIX_SIZE + MAX_BLOCK_HEADER + MAX_BLOCK_BODY + 96
_BLOCK_BYTES: Final = 48 * 1024 * 1024
_LEAF_BYTES: Final = 32 * 1024 * 1024
_LEAF_ROW: Final = 128  # bytes that a row of an index leaf takes in memory, about
_FOOT_LIMIT: Final = 2 * 1024 * 1024

V = TypeVar("V")


class Cache(Generic[V]):
    """The values used last, up to a number of bytes; safe to use from several threads.

    Args:
        limit: Bytes to keep; the last value is kept whatever its size.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> V | None:
        """The value of a key, if it is still there."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: V, cost: int) -> None:
        """Keep a value of ``cost`` bytes."""
        with self._lock:
            if key in self._values:
                return
            self._values[key] = (value, cost)
            self._bytes += cost
            while self._bytes > self._limit and len(self._values) > 1:
                self._bytes -= self._values.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self._bytes = 0


@dataclass(frozen=True, slots=True)
class Caches:
    """What opened archives keep: blocks, and leaves of their indexes; archives may share it."""

    blocks: Cache[Block] = field(default_factory=lambda: Cache(_BLOCK_BYTES))
    leaves: Cache[LookupLeaf | TableLeaf] = field(default_factory=lambda: Cache(_LEAF_BYTES))


class Traffic:
    """Range requests made, and bytes that they brought; readers may share it."""

    def __init__(self) -> None:
        self.requests = 0
        self.bytes = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """Count a request that brought ``size`` bytes."""
        with self._lock:
            self.requests += 1
            self.bytes += size


class ObjectReader:
    """Range reads from one object; what the suffix read brought is not asked for again.

    Args:
        storage: Where it is.
        name: Its name there.
        label: Its name in messages.
        suffix: Bytes at its end that are read first.
        traffic: Counts its requests too.

    Attributes:
        name: The object, for messages.
        size: Its size in bytes.
        requests: Range requests made so far.
        bytes_read: Bytes that they brought.
    """

    def __init__(
        self, storage: Storage, name: str, label: str, *, suffix: int = SUFFIX, traffic: Traffic | None = None
    ) -> None:
        self.name = label
        self.storage = storage
        self._object = name
        self._traffic = traffic
        self.size, self._suffix = storage.read_suffix(name, suffix)
        self.requests = 1
        self.bytes_read = len(self._suffix)
        if traffic is not None:
            traffic.add(len(self._suffix))

    def holds(self, start: int) -> bool:
        """Whether bytes from ``start`` on need no request."""
        return start >= self.size - len(self._suffix)

    def read(self, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``.

        Raises:
            TruncatedError: They lie beyond the object's end.
        """
        if length > LONGEST_FRAME:
            msg = f"a block of {length} bytes is over the limit"
            raise LimitError(msg, object=self.name, offset=start, clause="14")
        if start < 0 or length < 0 or start + length > self.size:
            msg = f"{length} bytes at {start} lie outside the object, which has {self.size}"
            raise TruncatedError(msg, object=self.name, offset=start)
        at = start - (self.size - len(self._suffix))
        if at >= 0:
            return self._suffix[at : at + length]
        self.requests += 1
        self.bytes_read += length
        if self._traffic is not None:
            self._traffic.add(length)
        return self.storage.read(self._object, start, length)


@dataclass(frozen=True, slots=True)
class Member:
    """An archive in a joined object.

    Attributes:
        archive_id: Its id.
        kind: Its kind.
        offset: Where it begins in the object.
        length: Its length in bytes.
    """

    archive_id: bytes
    kind: Kind
    offset: int
    length: int


def _read_tail(reader: ObjectReader, end: int) -> Tail:
    if end < TAIL_SIZE:
        msg = "the archive is shorter than its tail: it was cut off. Salvage reads what is left"
        raise TruncatedError(msg, object=reader.name, offset=0, clause="10")
    try:
        tail = parse_tail(reader.read(end - TAIL_SIZE, TAIL_SIZE))
        if tail.total > end:
            msg = "the archive's tail speaks of more bytes than there are; salvage reads the rest"
            raise IndexDamaged(msg, clause="10")
    except ArchiveError as error:
        error.object, error.offset = reader.name, end - TAIL_SIZE
        raise
    return tail


def _read_foot(reader: ObjectReader, base: int, tail: Tail) -> tuple[Frame, Header]:
    """The ``FOOT`` frame, and the header from its copy; nothing authenticated yet."""
    if tail.foot_length > _FOOT_LIMIT or tail.foot_length < PREFIX_SIZE:
        msg = "the footer's length is out of bounds"
        raise IndexDamaged(msg, object=reader.name, offset=base + tail.foot_offset, clause="10")
    data = reader.read(base + tail.foot_offset, tail.foot_length)
    try:
        prefix = parse_prefix(data, None, None)
        if prefix.type != b"FOOT" or prefix.frame_length != tail.foot_length:
            msg = "the tail does not point at a footer"
            raise IndexDamaged(msg, clause="10")
        frame = parse_frame(data, prefix)
        header = parse_header(foot_record(frame).header)
        if header.archive_id != prefix.archive_id or crypto.digest(_lead(tail), header.digest) != tail.digest:
            msg = "footer, tail and header contradict each other"
            raise IndexDamaged(msg, clause="10")
    except BlockError as error:
        raise IndexDamaged(error.message, object=reader.name, offset=base + tail.foot_offset, clause="10") from error
    except ArchiveError as error:
        error.object = reader.name
        raise
    return frame, header


def _lead(tail: Tail) -> bytes:
    return b"".join(n.to_bytes(8, "little") for n in (tail.foot_offset, tail.foot_length, tail.total))


def list_members(reader: ObjectReader) -> list[Member]:
    """The archives of an object, first to last, found from the end backwards."""
    return list(_members_backwards(reader))[::-1]


def _members_backwards(reader: ObjectReader) -> Iterator[Member]:
    end = reader.size
    if not end:
        msg = "the object is empty"
        raise TruncatedError(msg, object=reader.name, offset=0, clause="2")
    while end > 0:
        tail = _read_tail(reader, end)
        base = end - tail.total
        _, header = _read_foot(reader, base, tail)
        yield Member(header.archive_id, header.kind, base, tail.total)
        end = base


def _find_member(reader: ObjectReader, wanted: bytes) -> int | None:
    """Where the archive of an id ends in the object; None if it is not there.

    The way back stops at a member whose own tail is damaged; those before it are found through the
    directory at the object's end, if there is one.
    """
    last: Member | None = None
    try:
        for member in _members_backwards(reader):
            last = last or member
            if member.archive_id == wanted:
                return member.offset + member.length
    except ArchiveError:
        if last is None or last.kind is not Kind.DIRECTORY:
            raise
        for archive_id, offset, length in _directory_rows(reader, last):
            if archive_id == wanted:
                return offset + length
        raise
    return None


def _directory_rows(reader: ObjectReader, directory: Member) -> tuple[tuple[bytes, int, int], ...]:
    """What a directory archive lists: hints, which whoever follows them must check."""
    source = ArchiveSource.open(reader, (), member=directory.archive_id)
    return records.decode(records.DirectoryBody, source.block(0).body, clause="5.6").members


class ArchiveSource:
    """Blocks of one archive, verified, on demand; safe to use from several threads.

    Made by ``open``.
    """

    def __init__(
        self,
        reader: ObjectReader,
        base: int,
        header: Header,
        keys: Keys | None,
        foot: FootRecord,
        root: Block,
        *,
        caches: Caches | None = None,
    ) -> None:
        self.reader = reader
        self.base = base
        self.header = header
        self.keys = keys
        self.foot = foot
        self._opener = opener_for(header, keys)
        self.root = Root.decode(root)
        self._tables = self.root.of_kind(IndexKind.TABLE)
        self._firsts = [int.from_bytes(leaf.first_key, "big") for leaf in self._tables]
        self._caches = caches if caches is not None else Caches()

    @classmethod
    def open(
        cls,
        reader: ObjectReader,
        identities: Sequence[Unwrapper],
        *,
        verify_key: bytes | None = None,
        allow_plain: bool = False,
        member: bytes | int | None = None,
        check: Callable[[Header], None] | None = None,
        caches: Caches | None = None,
    ) -> Self:
        """Find tail, footer and root, unwrap the key, and authenticate them.

        Args:
            reader: The object.
            identities: Keys and passphrases to try.
            verify_key: Ed25519 public key that must have signed the archive.
            allow_plain: Accept an archive without encryption although identities were given.
            member: Id or number of the archive in a joined object.
            check: Judges the header before any key is tried; for callers who know what must stand here,
                and that the object is one archive.
            caches: Where blocks are kept; by default the archive has its own.

        Raises:
            ArchiveError: As the specification says; the message names the next step.
        """
        end = reader.size if check is not None else _member_end(reader, member)
        tail = _read_tail(reader, end)
        base = end - tail.total
        frame, header = _read_foot(reader, base, tail)
        try:
            if isinstance(member, bytes) and header.archive_id != member:
                msg = "the directory of the joined object points at another archive"
                raise IndexDamaged(msg, offset=base, clause="5.6")
            if check is not None:
                if base:
                    msg = "other bytes stand before the archive in its object"
                    raise BlockError(msg, offset=0, clause="vault 1")
                check(header)
            keys = unlock(header, identities, allow_plain=allow_plain)
            foot = _check_foot(frame, header, keys, verify_key, tail)
            root = cls._root_block(reader, base, header, keys, foot)
            return cls(reader, base, header, keys, foot, root, caches=caches)
        except ArchiveError as error:
            error.object = error.object or reader.name
            raise

    @staticmethod
    def _root_block(reader: ObjectReader, base: int, header: Header, keys: Keys | None, foot: FootRecord) -> Block:
        if keys is None:
            msg = "the archive is encrypted and no key was given: give the identity or passphrase that opens it"
            raise UsageError(msg)
        sequence, offset, length, whole_hash = foot.root
        try:
            frame = _frame(reader.read(base + offset, length), header, sequence, length, b"INDX", whole_hash)
            block = opener_for(header, keys).open(frame)
        except ArchiveError as error:
            msg = f"the index root is damaged: {error.message}; salvage reads the archive without it"
            raise IndexDamaged(msg, offset=base + offset, block=sequence, clause="12") from error
        return block

    # --- blocks ---------------------------------------------------------------------------------

    def block(self, sequence: int) -> Block:
        """A block by its number, opened and verified against the block table.

        Raises:
            ArchiveError: It is damaged, or the index does not list it.
        """
        key = (self.header.archive_id, sequence)
        block = self._caches.blocks.get(key)
        if block is None:
            block = self._load(sequence)
            self._caches.blocks.put(key, block, len(block.body))
        return block

    def load(self, sequence: int) -> Block:
        """Like ``block``, without keeping it: for those who go through the archive once."""
        found = self._caches.blocks.get((self.header.archive_id, sequence))
        return found if found is not None else self._load(sequence)

    def _load(self, sequence: int) -> Block:
        offset, length, _, _ = self.place(sequence)
        return self.open_block(sequence, self.read(offset, length))

    def read(self, offset: int, length: int) -> bytes:
        """Stored bytes from an offset of the archive, a block's or those of several; nothing verified."""
        return self.reader.read(self.base + offset, length)

    def open_block(self, sequence: int, data: bytes | memoryview) -> Block:
        """A block from its stored bytes, verified against the block table.

        Raises:
            ArchiveError: They are damaged, or of another block.
        """
        offset, length, block_type, whole_hash = self.place(sequence)
        try:
            return self._opener.open(_frame(data, self.header, sequence, length, block_type, whole_hash))
        except ArchiveError as error:
            error.object, error.offset, error.block = self.reader.name, self.base + offset, sequence
            raise

    def place(self, sequence: int) -> tuple[int, int, bytes, bytes]:
        """Offset, length, type and whole hash of a block, from the block table."""
        at = bisect_right(self._firsts, sequence) - 1
        if at >= 0:
            table = self._leaf(self._tables[at])
            assert isinstance(table, TableLeaf)
            number = sequence - table.first
            if 0 <= number < len(table.types):
                return table.offsets[number], table.lengths[number], table.types[number], table.hashes[number]
        msg = f"the index does not list block {sequence}, which something refers to"
        raise IndexDamaged(msg, object=self.reader.name, block=sequence, clause="9")

    def _leaf(self, leaf: Leaf) -> LookupLeaf | TableLeaf:
        key = (self.header.archive_id, leaf.sequence)
        found = self._caches.leaves.get(key)
        if found is not None:
            return found
        try:
            data = self.reader.read(self.base + leaf.offset, leaf.length)
            frame = _frame(data, self.header, leaf.sequence, leaf.length, b"INDX", leaf.whole_hash)
            block = self._opener.open(frame)
            found = TableLeaf.decode(block) if leaf.kind is IndexKind.TABLE else LookupLeaf.decode(block)
        except ArchiveError as error:
            msg = f"an index leaf is damaged: {error.message}; salvage reads the archive without it"
            raise IndexDamaged(
                msg, object=self.reader.name, offset=self.base + leaf.offset, block=leaf.sequence, clause="12"
            ) from error
        self._caches.leaves.put(key, found, _LEAF_ROW * leaf.count)
        return found

    # --- look-ups -------------------------------------------------------------------------------

    def find_directory(self, path: bytes) -> tuple[int, int] | None:
        """Block and piece of a directory's node, by path."""
        assert self.keys is not None
        key = crypto.mac(self.keys.path_key, path)[:16]
        for leaf in self.root.candidates(IndexKind.PATH, key):
            found = self._leaf(leaf)
            assert isinstance(found, LookupLeaf)
            places = found.find(key)
            if places:
                return places[0]
        return None

    def find_content(self, content_id: bytes) -> list[tuple[int, int]]:
        """Places where a content may be, by id; the content confirms."""
        places = []
        for leaf in self.root.candidates(IndexKind.CONTENT, content_id):
            found = self._leaf(leaf)
            assert isinstance(found, LookupLeaf)
            places += found.find(content_id)
        return places


def _member_end(reader: ObjectReader, member: bytes | int | None) -> int:
    """Where the wanted archive ends in the object."""
    if member is None:
        tail = _read_tail(reader, reader.size)
        if tail.total == reader.size:
            return reader.size
    if isinstance(member, bytes):
        end = _find_member(reader, member)
        if end is not None:
            return end
    members = list_members(reader)
    content = [m for m in members if m.kind is not Kind.DIRECTORY]
    if member is None and len(content) == 1:
        return content[0].offset + content[0].length
    if isinstance(member, int) and 0 <= member < len(content):
        return content[member].offset + content[member].length
    listed = ", ".join(f"{n}: {m.archive_id.hex()}" for n, m in enumerate(content[:20]))
    what = "holds several archives; say which one (member)" if member is None else f"has no member {member!r}"
    msg = f"{reader.name} {what} ({listed})"
    raise UsageError(msg)


def _check_foot(frame: Frame, header: Header, keys: Keys | None, verify_key: bytes | None, tail: Tail) -> FootRecord:
    foot = foot_record(frame)
    if foot.offset != tail.foot_offset or foot.blocks != frame.prefix.sequence:
        msg = "the footer contradicts the tail"
        raise IndexDamaged(msg, clause="10")
    body = bytes(frame.body_section)
    block = Block(b"FOOT", frame.prefix.sequence, foot, body, frame.header_hash, frame.whole_hash, 0)
    check_foot(block, header, keys, verify_key)
    return foot


def _frame(
    data: bytes | memoryview, header: Header, sequence: int, length: int, block_type: bytes, whole_hash: bytes
) -> Frame:
    """Cut and verify a block that the index describes."""
    prefix = parse_prefix(bytes(data[:PREFIX_SIZE]).ljust(PREFIX_SIZE, b"\0"), header.archive_id, sequence)
    if prefix.type != block_type or prefix.frame_length != length:
        msg = "a block is not the one that the index describes"
        raise BlockError(msg, clause="12")
    frame = parse_frame(data, prefix)
    if frame.whole_hash != whole_hash:
        msg = "a block is not the one that the index describes: it was exchanged"
        raise BlockError(msg, clause="12")
    return frame
