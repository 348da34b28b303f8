"""``rozenfmt.salvage``: what is left of a damaged or cut-off archive (format.md, section 13).

Two passes.  The first finds every block that verifies.  The second restores: directory nodes
name what they hold by their path hints, complete nodes before partial ones; contents that no
node names go to ``lost+found``.  Nothing is restored that did not verify.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from blake3 import blake3

from rozenfmt.errors import (
    ArchiveError,
    HeaderError,
    LimitError,
    NoMatchingKey,
    TruncatedError,
    UnsupportedError,
    UsageError,
)
from rozenfmt.events import Problem, Progress, ProgressCallback
from rozenfmt.format import crypto
from rozenfmt.format.blocks import Block, cut_pieces, foot_record
from rozenfmt.format.crypto import Keys
from rozenfmt.format.decoder import check_foot, decode_attributes, opener_for
from rozenfmt.format.frame import Frame, parse_frame, parse_prefix
from rozenfmt.format.header import MAGIC, PREAMBLE_SIZE, Header, header_section_length, parse_header, unlock
from rozenfmt.format.limits import MAX_HEADER_RECORD
from rozenfmt.format.nodes import Entry, Kind, Mark, Node, NodeType
from rozenfmt.format.records import StreamContent
from rozenfmt.keys import Identity, Passphrase

from .extract import cannot_restore
from .framescan import Gap, Window, frames
from .opening import opened, retries_told
from .streamwriter import hash_zeros

if TYPE_CHECKING:
    from rozenfmt.storage.bandwidth import Bandwidth
    from rozenfmt.storage.base import Storage
    from rozenfmt.storage.retry import RetryPolicy
    from rozenfmt.tree.restore import Directory, Restorer

__all__ = ["SalvageReport", "salvage"]

_CACHE_BLOCKS: Final = 6
_LOST: Final = b"lost+found"
_HEADER_MOST: Final = MAX_HEADER_RECORD + PREAMBLE_SIZE + 64
_HASHED_MOST: Final = 1 << 44  # longer contents can only be holes, and hashing those takes hours


@dataclass(slots=True)
class SalvageReport:
    """What was saved.

    Attributes:
        object: The object.
        archive_id: The archive that was salvaged.
        terminated: Whether its footer was found whole; if not, what is saved may not be all.
        header_from: ``front`` or ``back``: which copy of the header opened it.
        blocks: Blocks that verified and opened.
        missing: Ranges of sequence numbers (first, last) that are lost.
        damaged_bytes: Bytes that belong to no valid block.
        files, directories, bytes: What was restored.
        lost_found: Contents without a name, in ``lost+found``.
        problems: Files that are lost or not whole (the first 10,000).
        problem_count: How many there were.
        seconds: Time taken.
    """

    object: str
    archive_id: bytes = b""
    terminated: bool = False
    header_from: str = ""
    blocks: int = 0
    missing: list[tuple[int, int]] = field(default_factory=list)
    damaged_bytes: int = 0
    files: int = 0
    directories: int = 0
    bytes: int = 0
    lost_found: int = 0
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    seconds: float = 0.0


def salvage(
    location: str | os.PathLike[str],
    destination: str | bytes | os.PathLike[str],
    *,
    identities: Iterable[Identity | Passphrase] = (),
    overwrite: Literal["never", "if-changed", "always"] = "never",
    allow_plain: bool = False,
    member: int = 0,
    storage_options: dict[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
    progress: ProgressCallback | None = None,
) -> SalvageReport:
    """Restore whatever can still be read.

    Args:
        location: Path or URL of the damaged archive.
        destination: Directory to restore into; made if missing.
        identities: Keys and passphrases to try; the read right is needed.
        overwrite: What to do with files that stand there.
        allow_plain: Salvage an archive without encryption although identities were given.
        member: Of several archives in the object, which one, in order of their headers.
        storage_options: For fsspec.
        retry: How long failed requests to the storage are made again; None for the defaults.
        bandwidth: Limits of what goes to the storage and comes from it.
        progress: Called with events.

    Raises:
        NoMatchingKey: No identity fits, or the key may only browse.
        HeaderError: Neither copy of the header is left: the key is lost with it.
        StorageError: The storage fails, or the destination is full.
    """
    started = time.monotonic()
    report = SalvageReport(os.fsdecode(location))

    def tell(problem: Problem) -> None:
        report.problem_count += 1
        if len(report.problems) < 10_000:
            report.problems.append(problem)
        if progress is not None:
            progress(problem)

    with opened(location, storage_options, retry, bandwidth) as (storage, name), retries_told(storage, progress):
        survey = _Survey(storage, name, report, progress)
        header, keys = survey.choose(tuple(identities), member, allow_plain=allow_plain)
        if keys.secret is None:
            msg = "the key at hand may browse names and sizes, not read contents"
            raise NoMatchingKey(msg, object=report.object, clause="6.1")
        _restore(survey.blocks_of(header, keys), destination, report, tell, progress, overwrite)
    report.seconds = time.monotonic() - started
    return report


def _restore(
    blocks: _Blocks,
    destination: str | bytes | os.PathLike[str],
    report: SalvageReport,
    tell: Callable[[Problem], None],
    progress: ProgressCallback | None,
    overwrite: Literal["never", "if-changed", "always"],
) -> None:
    from rozenfmt.tree.restore import Restorer

    try:
        with Restorer(destination, report=tell, overwrite=overwrite) as restorer:
            _Rescue(blocks, restorer, report, tell, progress).run()
    except OSError as error:
        raise cannot_restore(destination, error) from error
    report.files, report.directories, report.bytes = restorer.files, restorer.directories, restorer.bytes


# --- First pass ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    sequence: int
    type: bytes
    offset: int
    length: int


class _Survey:
    """Finds headers and valid frames in the object, in one pass."""

    def __init__(self, storage: Storage, name: str, report: SalvageReport, progress: ProgressCallback | None) -> None:
        self._storage = storage
        self._name = name
        self._report = report
        self._size = storage.size(name)
        self._progress = progress
        self._frames: dict[bytes, list[_Found]] = {}
        self._headers: dict[bytes, tuple[Header, str]] = {}
        self._feet: dict[bytes, list[Block]] = {}
        self._gaps: list[Gap] = []
        self._unusable: ArchiveError | None = None
        self._scan()

    def _scan(self) -> None:
        window = Window(iter(self._storage.stream(self._name)), 0)
        for offset, frame in frames(window, self._gaps.append):
            prefix = frame.prefix
            found = _Found(prefix.sequence, prefix.type, offset, prefix.frame_length)
            self._frames.setdefault(prefix.archive_id, []).append(found)
            if prefix.type == b"FOOT":
                self._foot(frame)
            if self._progress is not None and not prefix.sequence % 64:
                self._progress(Progress("salvage", 0, offset, 0, self._size, b""))
        damaged = 0
        for gap in self._gaps:
            damaged += gap.length - self._sections(gap)
        self._report.damaged_bytes = max(damaged, 0)

    def _sections(self, gap: Gap) -> int:
        """Bytes of a gap that are whole header sections and tails; headers found are kept."""
        at, used = gap.start, 0
        end = gap.start + gap.length
        while at < end:
            data = self._storage.read(self._name, at, min(4 * _HEADER_MOST, self._size - at))
            start = data.find(MAGIC)
            if start < 0:
                at += max(len(data) - len(MAGIC) + 1, 1)
                continue
            if at + start >= end:
                break
            if start and len(data) - start < _HEADER_MOST:
                at += start  # read again, so that all of it is at hand
                continue
            try:
                header = parse_header(data[start:])
                length = header_section_length(data[start:])
            except ArchiveError as error:
                self._refused(error)
                at += start + 1
                continue
            self._headers.setdefault(header.archive_id, (header, "front"))
            used += length
            at += start + length
        tails = sum(1 for archive in self._feet if archive in self._frames)
        return used + (64 if tails and gap.length - used >= 64 and gap.start > 0 else 0)

    def _foot(self, frame: Frame) -> None:
        try:
            header = parse_header(foot_record(frame).header)
        except ArchiveError as error:
            self._refused(error)
            return
        if header.archive_id == frame.prefix.archive_id:
            body = bytes(frame.body_section)
            prefix, record = frame.prefix, foot_record(frame)
            foot = Block(b"FOOT", prefix.sequence, record, body, frame.header_hash, frame.whole_hash, 0)
            self._feet.setdefault(header.archive_id, []).append(foot)
            self._headers.setdefault(header.archive_id, (header, "back"))

    def _refused(self, error: ArchiveError) -> None:
        """A header that is whole, and cannot be used: that is the reason to give if there is no other."""
        if self._unusable is None and isinstance(error, (LimitError, UnsupportedError)):
            self._unusable = error

    def choose(
        self, identities: tuple[Identity | Passphrase, ...], member: int, *, allow_plain: bool
    ) -> tuple[Header, Keys]:
        """Header and keys of the archive to salvage."""
        ids = [one for one in self._frames if one in self._headers]
        ids += [one for one in self._headers if one not in ids]
        if not ids:
            self._no_header()
        if not 0 <= member < len(ids):
            msg = f"the object holds {len(ids)} archives; there is no number {member}"
            raise UsageError(msg)
        header, where = self._headers[ids[member]]
        keys = unlock(header, identities, allow_plain=allow_plain)
        if keys is None:
            msg = "the archive is encrypted and no key was given: give the identity or passphrase that opens it"
            raise UsageError(msg)
        self._report.archive_id, self._report.header_from = ids[member], where
        self._report.terminated = any(_is_authentic(foot, header, keys) for foot in self._feet.get(ids[member], ()))
        return header, keys

    def _no_header(self) -> None:
        start = self._storage.read(self._name, 0, min(self._size, MAX_HEADER_RECORD + PREAMBLE_SIZE + 64))
        if self._unusable is not None:
            self._unusable.object = self._report.object
            raise self._unusable
        if not self._frames and self._size:
            parse_header(start)  # says best what is wrong
        if not self._size:
            msg = "the object is empty"
            raise TruncatedError(msg, object=self._report.object)
        count = sum(map(len, self._frames.values()))
        msg = (
            f"both copies of the header are gone: {count} blocks are whole, but the key to them was in the header. "
            "Without another copy of the archive nothing can be read"
        )
        raise HeaderError(msg, object=self._report.object, clause="13")

    def blocks_of(self, header: Header, keys: Keys) -> _Blocks:
        """The archive's blocks; missing ones are reported."""
        table: dict[int, list[_Found]] = {}
        for found in self._frames.get(header.archive_id, ()):
            table.setdefault(found.sequence, []).append(found)
        expected = 0
        for sequence in sorted(table):
            if sequence > expected:
                self._report.missing.append((expected, sequence - 1))
            expected = sequence + 1
        return _Blocks(self._storage, self._name, header, keys, table, self._report)


def _is_authentic(foot: Block, header: Header, keys: Keys) -> bool:
    """Whether a footer was written by who had the archive's key."""
    try:
        check_foot(foot, header, keys, None)
    except ArchiveError:
        return False
    return True


# --- Second pass --------------------------------------------------------------------------------


class _Blocks:
    """Blocks of the archive that verified, opened on demand."""

    def __init__(
        self,
        storage: Storage,
        name: str,
        header: Header,
        keys: Keys,
        table: dict[int, list[_Found]],
        report: SalvageReport,
    ) -> None:
        self.keys = keys
        self._storage = storage
        self._name = name
        self._header = header
        self._opener = opener_for(header, keys)
        self._table = table
        self._report = report
        self._cache: dict[int, Block | None] = {}

    def of_type(self, *types: bytes) -> list[int]:
        """Numbers of the blocks of these types, in order."""
        return sorted(number for number, places in self._table.items() if any(one.type in types for one in places))

    def get(self, sequence: int) -> Block | None:
        """A block, or None if it is missing, or does not open."""
        if sequence not in self._cache:
            if len(self._cache) >= _CACHE_BLOCKS:
                self._cache.pop(next(iter(self._cache)))
            self._cache[sequence] = self._open(sequence)
        return self._cache[sequence]

    def _open(self, sequence: int) -> Block | None:
        places = self._table.get(sequence)
        if places is None:
            return None
        for found in places:
            data = self._storage.read(self._name, found.offset, found.length)
            try:
                frame = parse_frame(data, parse_prefix(data, self._header.archive_id, sequence))
                return self._opener.open(frame)
            except ArchiveError:
                # It verified as bytes but does not open: foreign, forged, or of a newer version.
                continue
        self._table.pop(sequence)
        self._report.missing.append((sequence, sequence))
        return None

    def pieces(self, sequence: int, block_type: bytes) -> list[memoryview]:
        """Pieces of a block; none if it is missing or of another type."""
        block = self.get(sequence)
        if block is None or block.type != block_type:
            return []
        try:
            return cut_pieces(block)
        except ArchiveError:
            return []

    def content_id(self, data: bytes | memoryview) -> bytes:
        """Content id of some bytes."""
        assert self.keys.id_key is not None
        return crypto.content_id(self.keys.id_key, crypto.digest(data), len(data))


class _Rescue:
    """Restores what the blocks hold."""

    def __init__(
        self,
        blocks: _Blocks,
        restorer: Restorer,
        report: SalvageReport,
        tell: Callable[[Problem], None],
        progress: ProgressCallback | None,
    ) -> None:
        self._blocks = blocks
        self._restorer = restorer
        self._report = report
        self._tell = tell
        self._progress = progress
        self._directories: dict[bytes, Directory | None] = {b"": restorer.root}
        self._entries: dict[bytes, Entry] = {}
        self._named: dict[int, set[int]] = {}
        self._done: set[bytes] = set()
        self._groups: dict[bytes, tuple[bytes, ...]] = {}
        self._parts: dict[int, list[int]] = {}
        self._ends: dict[int, int] = {}
        self._names: dict[int, bytes] = {}

    def run(self) -> None:
        """Everything, in order."""
        self._survey_streams()
        # Directories first, so that each gets the metadata its parent's node has for it.
        for node in self._nodes():
            path = node.path or b""
            for entry in node.entries():
                if entry.kind == Kind.DIRECTORY:
                    self._entries.setdefault(_join(path, entry.name), entry)
        for wanted in (NodeType.DIRECTORY, NodeType.PARTIAL):
            for node in self._nodes():
                if node.type == wanted:
                    self._node(node)
        self._lost_and_found()
        self._report.blocks = len(self._blocks._table)  # noqa: SLF001
        self._report.missing.sort()

    def _nodes(self) -> Iterator[Node]:
        for sequence in self._blocks.of_type(b"TREE"):
            for piece in self._blocks.pieces(sequence, b"TREE"):
                try:
                    node = Node.decode(piece)
                    if node.type in (NodeType.DIRECTORY, NodeType.PARTIAL):
                        node.entries()
                        yield node
                except ArchiveError:
                    continue

    def _survey_streams(self) -> None:
        for sequence in self._blocks.of_type(b"FHDR", b"FCNT", b"FEND"):
            block = self._blocks.get(sequence)
            if block is None or block.type not in (b"FHDR", b"FCNT", b"FEND"):
                continue
            stream = block.record.stream
            if block.type == b"FCNT":
                self._parts.setdefault(stream, []).append(sequence)
            elif block.type == b"FEND":
                self._ends[sequence] = stream
            elif block.record.name is not None:
                self._names[stream] = block.record.name

    # --- named ----------------------------------------------------------------------------------

    def _directory(self, path: bytes) -> Directory | None:
        """The restored directory of a path, made with what is known of it."""
        missing = []
        while path not in self._directories:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        parent = self._directories[path]
        for below in reversed(missing):
            name = below.rpartition(b"/")[2]
            entry = self._entries.get(below) or Entry(name, Kind.DIRECTORY, 0o755, os.getuid(), os.getgid())
            parent = None if parent is None else self._restorer.enter(self._with(entry), parent)
            self._directories[below] = parent
        return parent

    def _with(self, entry: Entry) -> Entry:
        """Add extended attributes, if their block is there."""
        if entry.xattr_ref is not None and not entry.xattrs:
            expected, sequence, number = entry.xattr_ref
            pieces = self._blocks.pieces(sequence, b"TREX")
            if number < len(pieces) and self._blocks.content_id(pieces[number]) == expected:
                with suppress(ArchiveError):
                    entry.xattrs = decode_attributes(bytes(pieces[number]))
        return entry

    def _node(self, node: Node) -> None:
        path = node.path or b""
        directory = self._directory(path)
        if directory is None:
            return
        for entry in node.entries():
            full = _join(path, entry.name)
            if entry.has_content:
                self._named.setdefault(entry.block, set()).add(entry.piece)
            if full in self._done:
                continue
            self._done.add(full)
            if entry.kind == Kind.DIRECTORY:
                self._directory(full)
            elif entry.kind != Kind.FILE or entry.marks & Mark.UNREADABLE:
                self._restorer.other(self._with(entry), directory)
            else:
                self._file(entry, directory, full)

    def _file(self, entry: Entry, directory: Directory, full: bytes) -> None:
        first = self._groups.get(entry.link_group) if entry.link_group is not None else None
        if first is not None and self._restorer.link(entry, first, directory):
            return
        if not entry.size:
            self._restorer.small(self._with(entry), b"", directory)
        elif entry.block in self._ends:
            self._streamed(entry, directory, full)
        else:
            pieces = self._blocks.pieces(entry.block, b"PACK")
            data = pieces[entry.piece] if entry.piece < len(pieces) else None
            if data is None or len(data) != entry.size:
                self._lost(full, f"its content was in block {entry.block}, which is lost")
                return
            if entry.content_id is not None and self._blocks.content_id(data) != entry.content_id:
                self._lost(full, "what stands at its place has another id")
                return
            self._restorer.small(self._with(entry), data, directory)
        if entry.link_group is not None:
            self._groups.setdefault(entry.link_group, tuple(full.split(b"/")))
        if self._progress is not None and not self._restorer.files % 256:
            self._progress(Progress("salvage", self._restorer.files, self._restorer.bytes, 0, None, full))

    def _streamed(self, entry: Entry, directory: Directory, full: bytes) -> None:
        """A stream that has its end: it is whole, or it is lost in part."""
        writer = self._restorer.open(self._with(entry), directory)
        if writer is None:
            return
        end = self._blocks.get(entry.block)  # a partial directory has no id: the stream's own end has
        expected = None if end is None else end.record.content_id
        whole = expected is not None and entry.content_id in (None, expected) and entry.size <= _HASHED_MOST
        hasher = blake3()
        try:
            if whole:
                length = self._copy(self._ends[entry.block], writer, hasher, entry.size)
                assert self._blocks.keys.id_key is not None
                found = crypto.content_id(self._blocks.keys.id_key, hasher.digest(), length)
                whole = length == entry.size and found == expected
            if whole:
                writer.commit()
        finally:
            writer.abort()
        if not whole:
            partial = Entry(entry.name + b".incomplete", Kind.FILE, 0o600, os.getuid(), os.getgid(), size=entry.size)
            writer = self._restorer.open(partial, directory)
            if writer is not None:
                self._copy(self._ends[entry.block], writer, None, entry.size)
                writer.commit()
            self._lost(full, f"parts of it are lost; the rest is in {os.fsdecode(partial.name)!r}, zeros for the gaps")

    def _copy(self, stream: int, writer: Any, hasher: Any, size: int) -> int:
        """Write a stream's parts in order, holes between them; returns the length written."""
        from rozenfmt.tree.content import Hole

        end = 0
        for sequence in [*self._parts.get(stream, ()), None]:
            block = self._blocks.get(sequence) if sequence is not None else None
            record = block.record if block is not None else None
            start = record.offset if isinstance(record, StreamContent) else size
            if start > end:
                writer.write(Hole(start - end))
                if hasher is not None:
                    hash_zeros(hasher, start - end)
                end = start
            if block is not None and start == end:
                writer.write(block.body)
                if hasher is not None:
                    hasher.update(block.body)
                end += len(block.body)
        return end

    def _lacks(self, stream: int, blocks: int) -> bool:
        parts = self._parts[stream]
        return len(parts) != blocks or any(self._blocks.get(sequence) is None for sequence in parts)

    def _lost(self, path: bytes, why: str) -> None:
        self._tell(Problem(path, "damaged", why))

    # --- unnamed --------------------------------------------------------------------------------

    def _lost_and_found(self) -> None:
        for sequence in self._blocks.of_type(b"PACK"):
            named = self._named.get(sequence, set())
            for number, piece in enumerate(self._blocks.pieces(sequence, b"PACK")):
                if number not in named:
                    self._unnamed(self._blocks.content_id(piece).hex().encode(), piece)
        ended = {stream: sequence for sequence, stream in self._ends.items()}
        for stream in self._parts:
            end = ended.get(stream)
            if end is None or end not in self._named:
                self._unnamed_stream(stream, end)

    def _place(self) -> Directory | None:
        return self._directory(_LOST)

    def _unnamed(self, name: bytes, data: memoryview) -> None:
        directory = self._place()
        if directory is not None:
            entry = Entry(name, Kind.FILE, 0o600, os.getuid(), os.getgid(), mtime_ns=0, size=len(data))
            if self._restorer.small(entry, data, directory):
                self._report.lost_found += 1

    def _unnamed_stream(self, stream: int, end_sequence: int | None) -> None:
        """A stream that no directory names, whole or cut off: under its hint, flattened, or its number."""
        directory = self._place()
        if directory is None:
            return
        hint = self._names.get(stream, b"")
        name = hint.rpartition(b"/")[2].replace(b"\0", b"")[:200] or b"content"
        name = b"stream-%d-%s" % (stream, name)
        block = self._blocks.get(end_sequence) if end_sequence is not None else None
        size = block.record.length if block is not None else 0
        if block is None or self._lacks(stream, block.record.blocks):
            name += b".incomplete"
        entry = Entry(name, Kind.FILE, 0o600, os.getuid(), os.getgid(), size=size)
        writer = self._restorer.open(entry, directory)
        if writer is None:
            return
        self._copy(stream, writer, None, size)
        if writer.commit():
            self._report.lost_found += 1
            self._lost(_join(_LOST, name), f"no directory names it; it was on its way to {os.fsdecode(hint)!r}")


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
