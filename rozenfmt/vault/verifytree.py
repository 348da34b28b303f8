"""Verifying what snapshots say: nodes, contents, totals.

Snapshots share nearly everything, so what was looked at is remembered by its place, in an unnamed
temporary database, and every node is decoded once.  What nodes want and what blocks hold is
collected as rows of one size and compared when both are sorted, as for a single archive.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from blake3 import blake3

from rozenfmt.archive.check import Damage
from rozenfmt.archive.fetch import Fetcher
from rozenfmt.archive.source import Cache
from rozenfmt.archive.streamwriter import hash_zeros
from rozenfmt.archive.treereader import Place, place_of
from rozenfmt.archive.writer import TempRuns
from rozenfmt.errors import ArchiveError, BlockError, StorageError
from rozenfmt.events import Progress, ProgressCallback
from rozenfmt.format import crypto
from rozenfmt.format.blocks import Block, cut_pieces
from rozenfmt.format.index import Sorter
from rozenfmt.format.limits import MAX_TREE_DEPTH
from rozenfmt.format.nodes import Entry, InnerNode, Kind, NodeType, Part

from .findings import Findings, Key
from .passing import HASHED_HOLES, PassingContents
from .walking import key_of, place_key

if TYPE_CHECKING:
    from .archives import Archives
    from .snapshot import Snapshot

__all__ = ["TreeVerifier"]

# Number of the archive, block, piece, id, length; a length that is not known is all ones.
_ROW: Final = struct.Struct(">IQQ32sQ")
_ANY: Final = (1 << 64) - 1
_KEY: Final = 20  # bytes of a row that are the place
_FETCHED_BYTES: Final = 8 << 20
_PROGRESS_SECONDS: Final = 0.1

_SCHEMA: Final = """
CREATE TABLE nodes (place BLOB PRIMARY KEY, id BLOB, entries INTEGER, bytes INTEGER, direct INTEGER, first BLOB,
    last BLOB) WITHOUT ROWID;
CREATE TABLE contents (number INTEGER PRIMARY KEY, place BLOB UNIQUE, id BLOB, size INTEGER, snapshot INTEGER,
    archive INTEGER, block INTEGER, piece INTEGER, path BLOB);
"""


@dataclass(frozen=True, slots=True)
class _Said:
    """What an inner node says of a part of a directory: entries, first name, and the name that follows it."""

    entries: int
    first: bytes
    end: bytes | None


_Child = tuple[bytes, Place, int, _Said | None]
"""Path of a directory, place of a node, how many inner nodes are above it, and what the next one says of it."""


@dataclass(slots=True)
class _Frame:
    """A node that the walk is in, and what was counted in it and below it so far."""

    key: bytes
    place: Place
    children: Iterator[_Child] = field(default_factory=lambda: iter(()))
    said: _Said | None = None
    entries: int = 0
    size: int = 0
    direct: int = 0  # entries of this part of a directory
    first: bytes = b""
    last: bytes = b""
    broken: bool = False


class TreeVerifier:
    """Walks snapshots, and compares what their nodes refer to with what archives hold.

    Args:
        archives: Of the vault.
        findings: Where what is wrong goes.
        sample: Share of the contents to read; None for all, which then are those that ``holder`` was told of.
        workers: Threads.
        progress: Called with events.
    """

    def __init__(
        self,
        archives: Archives,
        findings: Findings,
        sample: float | None,
        workers: int,
        progress: ProgressCallback | None,
    ) -> None:
        self._archives = archives
        self._findings = findings
        self._report = findings.report
        self._sample = sample
        self._salt = os.urandom(16)
        self._workers = workers
        self._progress = progress
        self._reported = 0.0
        self._runs = TempRuns()
        self._wanted = Sorter(self._runs, _ROW.size)
        self._held = Sorter(self._runs, _ROW.size)
        self._fetched: Cache[Block] = Cache(_FETCHED_BYTES)
        self._passing = PassingContents(self._runs, self._passed, self._again)
        self._numbers: dict[Key, int] = {}
        self._snapshots: list[Snapshot] = []
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._runs.close()

    def _number(self, key: Key) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    # --- what is held ---------------------------------------------------------------------------

    def holder(self, key: Key) -> Callable[[Block, list[bytes]], None]:
        """Takes the blocks of an archive as they are read, with the ids of their pieces."""
        number = self._number(key)

        def hold(block: Block, ids: list[bytes]) -> None:
            if block.type in (b"PACK", b"TREX"):
                pieces = cut_pieces(block)
                self._held.extend(
                    _ROW.pack(number, block.sequence, at, one, len(pieces[at])) for at, one in enumerate(ids)
                )
            if block.type == b"PACK":
                self._passing.take(number, block)

        return hold

    def _want(self, snapshot: Snapshot, archive: int, block: int, piece: int, one: bytes, size: int) -> None:
        key = key_of(snapshot, archive)
        self._wanted.add(_ROW.pack(self._number(key), block, piece, one, size))

    # --- nodes ----------------------------------------------------------------------------------

    def walk(self, snapshot: Snapshot) -> None:
        """Look at every node of a snapshot that was not looked at before."""
        self._snapshots.append(snapshot)
        try:
            found = self._walk(snapshot)
        except (ArchiveError, StorageError) as error:  # deeper, or with more entries, than there can be
            self._findings.damage(snapshot.object, error)
            return
        if found is not None and found != (snapshot.entry_count, snapshot.content_bytes):
            msg = (
                f"the snapshot says that it has {snapshot.entry_count} entries of {snapshot.content_bytes} bytes, and "
                f"has {found[0]} of {found[1]}"
            )
            self._findings.note(Damage(0, None, "block", msg, snapshot.object))

    def _walk(self, snapshot: Snapshot) -> tuple[int, int] | None:
        """Entries and bytes of a snapshot; None if not all of it can be read."""
        top = _Frame(b"", snapshot.root_place(), iter([(b"", snapshot.root_place(), 0, None)]))
        stack = [top]
        while True:
            frame = stack[-1]
            child = next(frame.children, None)
            if child is None:
                stack.pop()
                if frame is top:
                    return None if top.broken else (top.entries, top.size)
                self._leave(snapshot, frame, stack[-1])
                continue
            if len(stack) > 2 * MAX_TREE_DEPTH:
                raise snapshot.too_deep()
            self._enter(snapshot, stack, child)

    def _enter(self, snapshot: Snapshot, stack: list[_Frame], child: _Child) -> None:
        """Go into a node, unless it is known."""
        path, place, depth, said = child
        assert place[0] is not None
        frame = _Frame(place_key(snapshot, place), place, said=said)
        row = self._db.execute(
            "SELECT entries, bytes, direct, first, last FROM nodes WHERE place = ? AND id = ?", (frame.key, place[0])
        ).fetchone()
        if row is not None:
            frame.entries, frame.size, frame.direct, frame.first, frame.last = row
            frame.broken = frame.entries < 0
            self._add(snapshot, frame, stack[-1])
            return
        try:
            self._decode(snapshot, frame, path, place, depth)
        except (ArchiveError, StorageError) as error:
            self._broken(snapshot, frame, error)
        stack.append(frame)

    def _broken(self, snapshot: Snapshot, frame: _Frame, error: ArchiveError | StorageError) -> None:
        _, archive, block, piece = frame.place
        self._findings.damage(snapshot.object_name(archive), error)
        self._findings.bad_piece(key_of(snapshot, archive), block, piece)
        frame.broken = True

    def _decode(self, snapshot: Snapshot, frame: _Frame, path: bytes, place: Place, depth: int) -> None:
        node = snapshot._directory(place)  # noqa: SLF001 - not the whole directory
        if node.type == NodeType.INNER:
            children = snapshot._children_of(node, place, depth)  # noqa: SLF001 - likewise
            frame.first = children[0].first_name
            frame.children = _parts(path, children, depth, frame.said.end if frame.said is not None else None)
            return
        entries = snapshot._entries_of(node, place)  # noqa: SLF001 - likewise
        if entries:
            frame.first, frame.last = entries[0].name, entries[-1].name
        frame.direct = frame.entries = len(entries)
        self._report.entries += len(entries)
        below: list[_Child] = []
        for entry in entries:
            here = path + b"/" + entry.name if path else entry.name
            if entry.kind == Kind.DIRECTORY:
                below.append((here, place_of(entry), 0, None))
            if entry.xattr_ref is not None and self._sample is None:
                one, block, piece = entry.xattr_ref
                self._want(snapshot, entry.xattr_archive, block, piece, one, _ANY)
            if entry.has_content:
                frame.size += entry.size
                self._content(snapshot, entry, here)
        frame.children = iter(below)
        self._tick(path)

    def _leave(self, snapshot: Snapshot, frame: _Frame, above: _Frame) -> None:
        """Remember what is known of a node, and count it to the one above."""
        entries = -1 if frame.broken else frame.entries
        values = (frame.key, frame.place[0], entries, frame.size, frame.direct, frame.first, frame.last)
        self._db.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        self._add(snapshot, frame, above)

    def _add(self, snapshot: Snapshot, frame: _Frame, above: _Frame) -> None:
        said = frame.said
        if said is not None:
            above.direct += frame.direct
            above.last = frame.last
            end = said.end is None or frame.last < said.end
            if not frame.broken and (said.entries, said.first, True) != (frame.direct, frame.first, end):
                msg = "the parts of a directory are not what the node above says: they overlap, or their counts differ"
                _, archive, block, _ = above.place
                self._broken(snapshot, above, snapshot.broken(archive, block, msg, "8.2"))
        above.broken |= frame.broken
        above.entries += frame.entries
        above.size += frame.size

    # --- contents -------------------------------------------------------------------------------

    def _content(self, snapshot: Snapshot, entry: Entry, path: bytes) -> None:
        """Note a content: one piece to be compared with what archives hold, others to be read."""
        assert entry.content_id is not None
        try:
            in_parts = snapshot.in_parts(entry)
        except ArchiveError as error:
            self._findings.damage(snapshot.object, error)
            return
        if self._sample is None and not in_parts:
            self._want(snapshot, entry.archive, entry.block, entry.piece, entry.content_id, entry.size)
            return
        key = place_key(snapshot, (None, entry.archive, entry.block, entry.piece)) + entry.content_id
        if not self._is_chosen(key):
            return
        self._db.execute(
            "INSERT OR IGNORE INTO contents VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                *(entry.content_id, entry.size, len(self._snapshots) - 1),
                *(entry.archive, entry.block, entry.piece, path),
            ),
        )

    def _is_chosen(self, key: bytes) -> bool:
        """Whether a content is in the sample: by the content, not by how often it is met."""
        if self._sample is None:
            return True
        return int.from_bytes(crypto.digest(self._salt, key)[:7], "little") < self._sample * (1 << 56)

    def number(self, order: Iterable[Key]) -> None:
        """Archives will be read in this order; to be told before anything refers to them."""
        for key in order:
            self._number(key)

    def expect(self) -> None:
        """Have contents in parts hashed while their archives are read."""
        for snapshot, rows in self._contents():
            for number, one, size, archive, block, piece, _ in rows:
                try:
                    _, parts = snapshot.parts(_stored(one, size, archive, block, piece))
                    self._passing.add(number, self._expected(snapshot, parts))
                except (ArchiveError, StorageError):
                    continue  # it stays among the contents, and ``finish`` tells

    def _again(self, number: int) -> tuple[Iterator[tuple[int, Part]], Callable[[Part], memoryview]]:
        """The parts of a content once more, and what reads one of them."""
        query = "SELECT snapshot, id, size, archive, block, piece FROM contents WHERE number = ?"
        at, *stored = self._db.execute(query, (number,)).fetchone()
        snapshot = self._snapshots[at]
        _, parts = snapshot.parts(_stored(*stored))
        numbered = ((self._number(key_of(snapshot, part.archive)) if part.id else 0, part) for part in parts)
        return numbered, lambda part: self._fetch(snapshot, part)

    def _fetch(self, snapshot: Snapshot, part: Part) -> memoryview:
        """A part of a block that does not pass by just now."""
        place = (*key_of(snapshot, part.archive), part.block)
        block = self._fetched.get(place)
        if block is None:
            block = snapshot.source_of(part.archive).load(part.block)
            self._fetched.put(place, block, len(block.body))
        return _cut(snapshot, part, block)

    def _expected(self, snapshot: Snapshot, parts: Iterable[Part]) -> Iterator[tuple[int, Part]]:
        """Parts with their archives, each noted as something that must be held."""
        for part in parts:
            if part.id is not None:
                self._want(snapshot, part.archive, part.block, part.piece, part.id, part.length)
                yield self._number(key_of(snapshot, part.archive)), part
            else:
                yield 0, part

    def _passed(self, number: int, digest: bytes, stored: int) -> None:
        """A content has passed by in order; if it is not what it should be, ``finish`` reads it and tells."""
        row = self._db.execute("SELECT id, size, snapshot FROM contents WHERE number = ?", (number,)).fetchone()
        if crypto.content_id(self._snapshots[row[2]].require_read(), digest, row[1]) == row[0]:
            self._db.execute("DELETE FROM contents WHERE number = ?", (number,))
            self._report.contents += 1
            self._report.content_bytes += stored

    def finish(self) -> None:
        """Read the contents that are chosen, or did not pass by; compare what was wanted with what is held."""
        for snapshot, rows in self._contents():
            self._read_contents(snapshot, rows)
        if self._sample is None:
            self._compare()

    def _contents(self) -> Iterator[tuple[Snapshot, sqlite3.Cursor]]:
        """The contents that are still to be compared with their ids, in the order in which they are stored."""
        for number, snapshot in enumerate(self._snapshots):
            yield (
                snapshot,
                self._db.execute(
                    "SELECT number, id, size, archive, block, piece, path FROM contents WHERE snapshot = ? "
                    "ORDER BY archive, block, piece",
                    (number,),
                ),
            )

    def _read_contents(self, snapshot: Snapshot, rows: sqlite3.Cursor) -> None:
        fetcher = Fetcher(snapshot, self._workers)
        try:
            current: _Content | None = None
            for (content, part), future in fetcher.blocks(self._parts(snapshot, rows)):
                if content is not current:
                    self._end_content(snapshot, current)
                    current = content
                if part is not None:
                    self._take_part(snapshot, content, part, future)
            self._end_content(snapshot, current)
        finally:
            fetcher.close()

    def _parts(
        self, snapshot: Snapshot, rows: sqlite3.Cursor
    ) -> Iterator[tuple[tuple[_Content, Part | None], tuple[int, int] | None]]:
        """Parts of the chosen contents in order, each with the block that it needs."""
        for _, one, size, archive, block, piece, path in rows:
            entry = _stored(one, size, archive, block, piece)
            content = _Content(entry, path, key_of(snapshot, archive))
            try:
                _, parts = snapshot.parts(entry)
                for part in parts:
                    if part.id is None:
                        yield (content, part), None
                        continue
                    key = key_of(snapshot, part.archive)
                    if self._findings.fault(key, part.block, part.piece) is not None:
                        content.broken = True
                    else:
                        yield (content, part), (part.archive, part.block)
            except (ArchiveError, StorageError) as error:
                self._findings.damage(snapshot.object_name(archive), error)
                content.broken = True
                self._findings.bad_piece(content.key, block, piece)
            yield (content, None), None

    def _take_part(self, snapshot: Snapshot, content: _Content, part: Part, future: Future[Block] | None) -> None:
        if content.broken:
            return
        if part.id is None:
            content.holes += part.length
            if content.holes <= HASHED_HOLES:
                hash_zeros(content.hasher, part.length)
            return
        assert future is not None
        try:
            block = future.result()
            data = _cut(snapshot, part, block)
            if self._sample is not None:
                snapshot._check_id(data, part.id, part.archive, part.block)  # noqa: SLF001 - it says what is wrong
        except (ArchiveError, StorageError) as error:
            self._findings.damage(snapshot.object_name(part.archive), error)
            self._findings.bad_piece(key_of(snapshot, part.archive), part.block, part.piece)
            content.broken = True
            return
        content.hasher.update(data)
        self._report.content_bytes += len(data)

    def _end_content(self, snapshot: Snapshot, content: _Content | None) -> None:
        if content is None:
            return
        entry = content.entry
        self._report.contents += 1
        self._tick(content.path)
        if content.broken:
            return
        if content.holes > HASHED_HOLES:
            self._findings.warn(f"{content.path!r} has more than 64 GiB of holes: only its parts were compared")
            return
        found = crypto.content_id(snapshot.require_read(), content.hasher.digest(), entry.size)
        if found != entry.content_id:
            msg = f"the parts of {content.path!r} are not the content that its id names"
            name = snapshot.object_name(entry.archive)
            self._findings.damage(name, BlockError(msg, object=name, block=entry.block, clause="6.2"))
            self._findings.bad_piece(content.key, entry.block, entry.piece)

    def _compare(self) -> None:
        """Every piece that is referred to must be where it is said to be, with the id that it is said to have."""
        keys = {number: key for key, number in self._numbers.items()}
        held = iter(self._held)
        row = next(held, b"")
        last = b""
        for wanted in self._wanted:
            if wanted == last:
                continue
            last = wanted
            number, block, piece, one, size = _ROW.unpack(wanted)
            while row and row[:_KEY] < wanted[:_KEY]:
                row = next(held, b"")
            if self._findings.fault(keys[number], block, piece) is not None:
                continue
            known = size != _ANY
            self._report.contents += known
            self._report.content_bytes += size if known else 0
            if row[:_KEY] == wanted[:_KEY] and row[_KEY:] in (wanted[_KEY:], one + row[-8:] if not known else b""):
                continue
            self._wrong(keys[number], block, piece, there=row[:_KEY] == wanted[:_KEY])

    def _wrong(self, key: Key, block: int, piece: int, *, there: bool) -> None:
        from rozenfmt.format.registry import Kind as ArchiveKind

        names = self._archives.names(*key, ArchiveKind.DATA) or self._archives.names(*key, ArchiveKind.METADATA)
        why = "is not what its id names" if there else "is not there"
        name = names[0] if names else key[1].hex()
        self._findings.note(Damage(0, block, "block", f"piece {piece}, which a directory refers to, {why}", name))
        self._findings.bad_piece(key, block, piece)

    def _tick(self, path: bytes) -> None:
        now = time.monotonic()
        if self._progress is not None and now - self._reported >= _PROGRESS_SECONDS:
            self._reported = now
            self._progress(Progress("verify", self._report.entries, self._report.bytes, 0, None, path))


@dataclass(slots=True, eq=False)
class _Content:
    """A content that is being read."""

    entry: Entry
    path: bytes
    key: Key
    hasher: blake3 = field(default_factory=blake3)
    holes: int = 0
    broken: bool = False


def _stored(one: bytes, size: int, archive: int, block: int, piece: int) -> Entry:
    """An entry of which no more is known than its content."""
    return Entry(b"", Kind.FILE, size=size, content_id=one, archive=archive, block=block, piece=piece)


def _cut(snapshot: Snapshot, part: Part, block: Block) -> memoryview:
    pieces = cut_pieces(block) if block.type == b"PACK" else []
    if part.piece >= len(pieces):
        raise snapshot.broken(part.archive, part.block, "a content is said to be where none is")
    if len(pieces[part.piece]) != part.length:
        raise snapshot.broken(part.archive, part.block, "a content has another length than what refers to it says")
    return pieces[part.piece]


def _parts(path: bytes, children: list[InnerNode], depth: int, end: bytes | None) -> Iterator[_Child]:
    """The parts of a directory, with what is said of them."""
    ends = [*(child.first_name for child in children[1:]), end]
    for child, below in zip(children, ends, strict=True):
        place = (child.id, child.archive, child.block, child.piece)
        yield path, place, depth + 1, _Said(child.entries, child.first_name, below)
