"""``rozenfmt.open``: list, look up, read and extract a self-contained archive."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from rozenfmt.errors import BlockError, LimitError, NoMatchingKey, UnsupportedError, UsageError
from rozenfmt.events import ProgressCallback
from rozenfmt.format import crypto
from rozenfmt.format.blocks import cut_pieces
from rozenfmt.format.crypto import Keys
from rozenfmt.format.decoder import decode_attributes
from rozenfmt.format.limits import MAX_NODE_DEPTH, MAX_TREE_DEPTH
from rozenfmt.format.nodes import Entry, Kind, Mark, Node, NodeType, Part
from rozenfmt.format.registry import Kind as ArchiveKind
from rozenfmt.format.registry import Right
from rozenfmt.keys import Identity, Passphrase, VerifyKey

from .opening import opened
from .source import ArchiveSource, Member, ObjectReader, list_members

if TYPE_CHECKING:
    from .extract import ExtractResult

__all__ = ["Archive", "ArchiveEntry", "members", "open_archive"]

_NODE_BLOCKS: Final = 16
_ATTRIBUTE_SETS: Final = 64
_READ_MOST: Final = 4 << 30


class ArchiveEntry:
    """One entry of an archive, with its path.

    Attributes:
        directory: Path of the directory that holds it, as bytes; empty for the root.
        raw: The entry as the format has it.
    """

    __slots__ = ("directory", "raw")

    def __init__(self, directory: bytes, raw: Entry) -> None:
        self.directory = directory
        self.raw = raw

    @property
    def path_bytes(self) -> bytes:
        """Path as bytes, names joined by ``/``."""
        return self.directory + b"/" + self.raw.name if self.directory else self.raw.name

    @property
    def path(self) -> str:
        """Path as text; bytes that are not UTF-8 come as surrogates (PEP 383)."""
        return self.path_bytes.decode("utf-8", "surrogateescape")

    @property
    def name(self) -> str:
        """Base name as text."""
        return self.raw.name.decode("utf-8", "surrogateescape")

    @property
    def kind(self) -> Kind:
        """What it is."""
        return self.raw.kind

    @property
    def size(self) -> int:
        """Content's length in bytes; 0 unless it is a file."""
        return self.raw.size

    @property
    def mode(self) -> int:
        """Permission bits."""
        return self.raw.mode

    @property
    def mtime_ns(self) -> int:
        """Modification time in nanoseconds since 1970."""
        return self.raw.mtime_ns

    @property
    def uid(self) -> int:
        """Owner's number."""
        return self.raw.uid

    @property
    def gid(self) -> int:
        """Group's number."""
        return self.raw.gid

    @property
    def user(self) -> str:
        """Owner's name, or empty."""
        return self.raw.user.decode("utf-8", "surrogateescape")

    @property
    def group(self) -> str:
        """Group's name, or empty."""
        return self.raw.group.decode("utf-8", "surrogateescape")

    @property
    def target(self) -> str:
        """Symlink target, or empty."""
        return self.raw.target.decode("utf-8", "surrogateescape")

    @property
    def device(self) -> tuple[int, int] | None:
        """Major and minor number of a device."""
        return self.raw.device

    @property
    def link_group(self) -> bytes | None:
        """16 bytes shared by all hard links to one file."""
        return self.raw.link_group

    @property
    def content_id(self) -> bytes | None:
        """32 bytes that stand for the content; None if there is none."""
        return self.raw.content_id

    @property
    def changed(self) -> bool:
        """Whether the file changed while it was stored."""
        return bool(self.raw.marks & Mark.CHANGED)

    @property
    def unreadable(self) -> bool:
        """Whether its content could not be read when it was stored."""
        return bool(self.raw.marks & Mark.UNREADABLE)

    def __repr__(self) -> str:
        return f"ArchiveEntry({self.path!r}, {self.kind.name.lower()}, {self.size} bytes)"


def open_archive(
    location: str | os.PathLike[str],
    *,
    identities: Iterable[Identity | Passphrase] = (),
    verify_key: VerifyKey | None = None,
    allow_plain: bool = False,
    member: bytes | int | None = None,
    storage_options: dict[str, Any] | None = None,
) -> Archive:
    """Open a self-contained archive for reading.

    Args:
        location: Path or URL.
        identities: Keys and passphrases to try.
        verify_key: The writer that must have signed it.
        allow_plain: Read an archive without encryption although identities were given.
        member: In a joined object, the archive's id or its number from 0.
        storage_options: For fsspec: credentials, endpoint and the like.

    Raises:
        NoMatchingKey, WrongPassphrase: No identity fits.
        SignatureError: It is not signed by ``verify_key``.
        ArchiveError: It is damaged, cut off or not supported; the message says what to do.
        StorageError: The storage fails or does not hold it.

    Specification: format.md, section 12.
    """
    with ExitStack() as stack:
        storage, name = stack.enter_context(opened(location, storage_options))
        archive = _open(
            ObjectReader(storage, name, os.fsdecode(location)), identities, verify_key, member, allow_plain=allow_plain
        )
        archive.keep_open(stack.pop_all())
        return archive


def _open(
    reader: ObjectReader,
    identities: Iterable[Identity | Passphrase],
    verify_key: VerifyKey | None,
    member: bytes | int | None,
    *,
    allow_plain: bool,
) -> Archive:
    source = ArchiveSource.open(
        reader,
        tuple(identities),
        verify_key=verify_key.ed25519 if verify_key is not None else None,
        allow_plain=allow_plain,
        member=member,
    )
    if source.header.kind is not ArchiveKind.SELF_CONTAINED:
        msg = f"this is a {source.header.kind.name.lower()} archive; it has no tree of its own"
        raise UnsupportedError(msg, object=reader.name, clause="5")
    return Archive(source)


def members(location: str | os.PathLike[str], *, storage_options: dict[str, Any] | None = None) -> list[Member]:
    """The archives in an object, first to last; needs no key.

    Raises:
        ArchiveError: A tail or footer is damaged.
        StorageError: The storage fails.
    """
    with opened(location, storage_options) as (storage, name):
        return list_members(ObjectReader(storage, name, os.fsdecode(location)))


class Archive:
    """A self-contained archive, opened for reading; made by ``rozenfmt.open``.

    Iterating gives every entry, directories before what is in them, names in bytewise order.
    """

    def __init__(self, source: ArchiveSource) -> None:
        self._source = source
        self._nodes: OrderedDict[int, list[memoryview]] = OrderedDict()
        self._resources = ExitStack()
        self._attributes: OrderedDict[tuple[bytes, int, int], tuple[tuple[bytes, bytes], ...]] = OrderedDict()

    # --- about ----------------------------------------------------------------------------------

    @property
    def archive_id(self) -> bytes:
        """16 bytes that name the archive."""
        return self._source.header.archive_id

    @property
    def right(self) -> Right:
        """What the key at hand allows: everything, or names and sizes only."""
        return self._keys.right

    @property
    def signer(self) -> VerifyKey | None:
        """Who signed the archive; the signature was verified when it was opened."""
        signer = self._source.header.record.signer
        return VerifyKey(signer) if signer is not None else None

    @property
    def entry_count(self) -> int:
        """Entries in the archive."""
        return (self._source.root.body.totals or (0, 0))[0]

    @property
    def content_bytes(self) -> int:
        """Bytes of content in them."""
        return (self._source.root.body.totals or (0, 0))[1]

    @property
    def stored_bytes(self) -> int:
        """Length of the archive in bytes, up to its footer."""
        return self._source.foot.offset

    @property
    def requests(self) -> tuple[int, int]:
        """Range requests made so far, and bytes that they brought."""
        return self._source.reader.requests, self._source.reader.bytes_read

    @property
    def _keys(self) -> Keys:
        assert self._source.keys is not None
        return self._source.keys

    @property
    def source(self) -> ArchiveSource:
        """The blocks below; internal."""
        return self._source

    # --- entries --------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[ArchiveEntry]:
        return self.walk()

    def walk(self, path: str | bytes = b"") -> Iterator[ArchiveEntry]:
        """Entries below a directory (or the one entry of a file), depth first.

        Raises:
            UsageError: There is no such path.
        """
        where = _clean(path)
        if not where:
            yield from self._walk(b"", self._root_place())
            return
        entry = self.entry(where)
        yield entry
        if entry.kind is Kind.DIRECTORY:
            yield from self._walk(where, _place(entry.raw))

    def _root_place(self) -> tuple[bytes | None, int, int]:
        root = self._source.root.body.root
        if root is None:
            msg = "the index names no root directory; salvage reads the archive without it"
            raise BlockError(msg, object=self._source.reader.name, clause="9")
        return root

    def _walk(self, path: bytes, place: tuple[bytes | None, int, int]) -> Iterator[ArchiveEntry]:
        stack = [(path, self.directory_entries(place, path))]
        while stack:
            here, entries = stack[-1]
            for entry in entries:
                yield ArchiveEntry(here, entry)
                if entry.kind == Kind.DIRECTORY:
                    if len(stack) >= MAX_TREE_DEPTH:
                        msg = "directories are nested deeper than a reader follows"
                        raise LimitError(msg, object=self._source.reader.name, clause="14")
                    below = here + b"/" + entry.name if here else entry.name
                    stack.append((below, self.directory_entries(_place(entry), below)))
                    break
            else:
                stack.pop()

    def directory_entries(self, place: tuple[bytes | None, int, int], path: bytes, depth: int = 0) -> Iterator[Entry]:
        """Entries of one directory by the id and place of its node, in order; internal.

        A node that says it is of another path is refused: nodes are never shared, so no small
        archive can describe an endless tree.
        """
        node = self._node(place)
        if node.path != path:
            raise self._broken(place[1], "a directory's node says that it is of another directory")
        if node.type == NodeType.DIRECTORY:
            yield from node.entries()
            return
        if depth >= MAX_NODE_DEPTH:
            msg = "a directory's inner nodes are nested too deep"
            raise LimitError(msg, object=self._source.reader.name, block=place[1], clause="14")
        last = b""
        for child in node.children():
            count = 0
            for entry in self.directory_entries((child.id, child.block, child.piece), path, depth + 1):
                if entry.name <= last or (not count and entry.name != child.first_name):
                    raise self._broken(place[1], "the parts of a directory overlap")
                count, last = count + 1, entry.name
                yield entry
            if count != child.entries:  # else empty parts, named over and over, would take for ever
                raise self._broken(place[1], "a part of a directory has another number of entries")

    def _node(self, place: tuple[bytes | None, int, int]) -> Node:
        expected, sequence, number = place
        pieces = self._nodes.get(sequence)
        if pieces is None:
            block = self._source.load(sequence)
            if block.type != b"TREE":
                raise self._broken(sequence, "a directory is said to be where no TREE block is")
            pieces = self._nodes[sequence] = cut_pieces(block)
            if len(self._nodes) > _NODE_BLOCKS:
                self._nodes.popitem(last=False)
        else:
            self._nodes.move_to_end(sequence)
        if number >= len(pieces):
            raise self._broken(sequence, "a directory's node is missing in its block")
        try:
            node = Node.decode(pieces[number])
        except BlockError as error:
            raise self._broken(sequence, error.message) from error
        if expected is not None and node.id != expected:
            raise self._broken(sequence, "a node is not the one that refers to it says")
        if node.type not in (NodeType.DIRECTORY, NodeType.INNER):
            msg = f"a node of type {node.type} stands where a directory should"
            raise UnsupportedError(msg, object=self._source.reader.name, block=sequence, clause="8")
        return node

    def _broken(self, sequence: int, message: str) -> BlockError:
        return BlockError(message, object=self._source.reader.name, block=sequence, clause="8")

    def entry(self, path: str | bytes) -> ArchiveEntry:
        """The entry at a path: one look-up in the index, however big the archive is.

        Raises:
            UsageError: There is no such path.
        """
        where = _clean(path)
        parent, _, name = where.rpartition(b"/")
        place = self._source.find_directory(parent)
        entry = self._search((None, *place), parent, name) if place is not None and name else None
        if entry is None:
            msg = f"{os.fsdecode(where)!r} is not in the archive"
            raise UsageError(msg)
        return ArchiveEntry(parent, entry)

    def _search(self, place: tuple[bytes | None, int, int], path: bytes, name: bytes, depth: int = 0) -> Entry | None:
        node = self._node(place)
        if node.path != path:  # the path's hash met another directory: nothing else can be there
            return None
        if node.type == NodeType.DIRECTORY:
            return next((entry for entry in node.entries() if entry.name == name), None)
        children = node.children()
        number = bisect_right([child.first_name for child in children], name) - 1
        if number < 0 or depth > 8:
            return None
        child = children[number]
        return self._search((child.id, child.block, child.piece), path, name, depth + 1)

    def xattrs(self, entry: ArchiveEntry) -> tuple[tuple[bytes, bytes], ...]:
        """Extended attributes of an entry, ACLs among them.

        Raises:
            NoMatchingKey: The key at hand may only browse.
        """
        return self.attributes(entry.raw)

    def attributes(self, entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
        """Extended attributes of an entry as the format has it; internal."""
        if entry.xattr_ref is None:
            return ()
        found = self._attributes.get(entry.xattr_ref)
        if found is None:
            expected, sequence, number = entry.xattr_ref
            data = bytes(self._piece(sequence, number, b"TREX"))
            self._check_id(data, expected, sequence)
            found = self._attributes[entry.xattr_ref] = decode_attributes(data)
            if len(self._attributes) > _ATTRIBUTE_SETS:
                self._attributes.popitem(last=False)
        return found

    # --- contents -------------------------------------------------------------------------------

    def _require_read(self) -> None:
        if self._keys.secret is None:
            msg = "the key at hand may browse names and sizes, not read contents"
            raise NoMatchingKey(msg, object=self._source.reader.name, clause="6.1")

    def _piece(self, sequence: int, number: int, block_type: bytes) -> memoryview:
        self._require_read()
        block = self._source.block(sequence)
        if block.type != block_type:
            raise self._broken(sequence, f"a {block_type.decode()} block is expected here")
        pieces = cut_pieces(block)
        if number >= len(pieces):
            raise self._broken(sequence, "a piece is missing in its block")
        return pieces[number]

    def _check_id(self, data: bytes | memoryview, expected: bytes, sequence: int) -> None:
        assert self._keys.id_key is not None
        if crypto.content_id(self._keys.id_key, crypto.digest(data), len(data)) != expected:
            raise self._broken(sequence, "a content is not the one that its id names: it is not released")

    def parts(self, entry: Entry) -> tuple[int, Sequence[Part]]:
        """How a content is stored: number of its ``FEND`` or ``PACK`` block, and parts; internal."""
        self._require_read()
        block = self._source.block(entry.block)
        if block.type == b"PACK":
            part = Part(0, entry.size, entry.content_id, entry.block, entry.piece)
            return entry.block, (part,)
        if block.type != b"FEND":
            raise self._broken(entry.block, "a content is said to be where none can be")
        if block.record.length != entry.size or block.record.content_id != entry.content_id:
            raise self._broken(entry.block, "a stream is not the content that refers to it")
        return entry.block, PartTable(self, Node.decode(block.body), entry.size, entry.block)

    def part_data(self, part: Part, *, stream: bool) -> memoryview:
        """Bytes of one stored part, checked against its id; internal."""
        assert part.id is not None
        data = self._piece(part.block, part.piece, b"FCNT" if stream else b"PACK")
        if len(data) != part.length:
            raise self._broken(part.block, "a part has another length than its table says")
        self._check_id(data, part.id, part.block)
        return data

    def read(self, path: str | bytes) -> bytes:
        """The whole content of a file; for big ones use ``open``.

        Raises:
            UsageError: There is no such file.
            ArchiveError: It is damaged.
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
        """
        entry = path if isinstance(path, ArchiveEntry) else self.entry(path)
        if entry.kind is not Kind.FILE:
            msg = f"{entry.path!r} is a {entry.kind.name.lower()}, not a file"
            raise UsageError(msg)
        if entry.unreadable:
            msg = f"{entry.path!r} could not be read when the archive was made; it has no content here"
            raise UsageError(msg)
        self._require_read()
        return io.BufferedReader(_ContentFile(self, entry.raw), buffer_size=1024 * 1024)

    def extract(
        self,
        destination: str | bytes | os.PathLike[str],
        *,
        paths: Iterable[str | bytes] = (),
        overwrite: Literal["never", "if-changed", "always"] = "never",
        owners: bool | None = None,
        numeric_owners: bool = False,
        xattrs: bool = True,
        workers: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> ExtractResult:
        """Restore entries below a directory.  Nothing can be written outside of it.

        Args:
            destination: Directory, made if missing.
            paths: What to restore, with all below; everything by default. Parents are made as they were.
            overwrite: What to do with files that stand there.
            owners: Restore owners; by default only as root.
            numeric_owners: By number, not by name first.
            xattrs: Restore extended attributes and ACLs.
            workers: Threads that fetch and open blocks.
            progress: Called with events.

        Returns:
            What was restored and what was not.

        Raises:
            UsageError: A path is not in the archive.
            ArchiveError: A block is damaged. What was restored before stays.
            StorageError: The destination is full or cannot be written.
        """
        from .extract import extract

        return extract(
            self,
            destination,
            paths=[_clean(path) for path in paths],
            overwrite=overwrite,
            owners=owners,
            numeric_owners=numeric_owners,
            xattrs=xattrs,
            workers=workers,
            progress=progress,
        )

    # --- end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Drop what is cached and close the connections to the storage."""
        self._nodes.clear()
        self._resources.close()

    def keep_open(self, resources: ExitStack) -> None:
        """Take over what ``close`` is to give back; internal."""
        self._resources = resources

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _place(entry: Entry) -> tuple[bytes | None, int, int]:
    return entry.child, entry.block, entry.piece


def _clean(path: str | bytes) -> bytes:
    return os.fsencode(path).strip(b"/")


class PartTable(Sequence[Part]):
    """The parts of a streamed content, sub-tables loaded as they are needed."""

    def __init__(self, archive: Archive, node: Node, length: int, sequence: int) -> None:
        self._archive = archive
        self._sequence = sequence
        self._inner = node.type == NodeType.PARTS_INNER
        self._parts = node.parts()
        self._loaded: tuple[int, list[Part]] | None = None
        if sum(part.length for part in self._parts) != length:
            raise archive._broken(sequence, "a part table contradicts its content's length")  # noqa: SLF001

    def at(self, offset: int) -> Part:
        """The part that holds the byte at ``offset``."""
        part = _part_at(self._parts, offset)
        return _part_at(self._sub_table(part), offset) if self._inner else part

    def _sub_table(self, part: Part) -> list[Part]:
        if self._loaded is not None and self._loaded[0] == part.offset:
            return self._loaded[1]
        archive, source = self._archive, self._archive.source
        block = source.block(part.block)
        pieces = cut_pieces(block) if block.type == b"TREE" else []
        if part.piece >= len(pieces):
            raise archive._broken(part.block, "a sub-table is missing")  # noqa: SLF001
        node = Node.decode(pieces[part.piece])
        if node.id != part.id or node.type != NodeType.PARTS:
            raise archive._broken(part.block, "a sub-table is not the one that is referred to")  # noqa: SLF001
        found = node.parts(part.offset)
        if sum(one.length for one in found) != part.length:
            raise archive._broken(part.block, "a sub-table contradicts its table")  # noqa: SLF001
        self._loaded = (part.offset, found)
        return found

    def __iter__(self) -> Iterator[Part]:
        for part in self._parts:
            if self._inner:
                yield from self._sub_table(part)
            else:
                yield part

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, number: Any) -> Any:
        return list(self)[number]


def _part_at(parts: Sequence[Part], offset: int) -> Part:
    return parts[bisect_right(parts, offset, key=lambda part: part.offset) - 1]


class _ContentFile(io.RawIOBase):
    """Raw, seekable content of one entry."""

    def __init__(self, archive: Archive, entry: Entry) -> None:
        super().__init__()
        self._archive = archive
        self._size = entry.size
        self._position = 0
        self._find: Callable[[int], Part] | None = None
        self._stream = False
        self._held: tuple[int, memoryview] | None = None
        if entry.has_content:
            _, parts = archive.parts(entry)
            self._stream = isinstance(parts, PartTable)
            self._find = parts.at if isinstance(parts, PartTable) else lambda _: parts[0]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}.get(whence)
        if start is None or start + offset < 0:
            msg = f"cannot seek to {offset} from {whence}"
            raise ValueError(msg)
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self._size - self._position)
        if length <= 0 or self._find is None:
            return 0
        part = self._find(self._position)
        inside = self._position - part.offset
        length = min(length, part.length - inside)
        if part.id is None:
            view[:length] = bytes(length)
        else:
            if self._held is None or self._held[0] != part.offset:
                self._held = (part.offset, self._archive.part_data(part, stream=self._stream))
            view[:length] = self._held[1][inside : inside + length]
        self._position += length
        return length
