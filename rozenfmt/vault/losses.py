"""Which paths of snapshots are lost by what a verification found.

Directories of which nothing is lost are remembered by their places, in an unnamed temporary
database: snapshots share nearly everything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rozenfmt.archive.treereader import Place, place_of
from rozenfmt.errors import ArchiveError, MissingArchive, StorageError
from rozenfmt.format.limits import MAX_TREE_DEPTH
from rozenfmt.format.nodes import Entry, Kind, NodeType

from .findings import Findings, Lost
from .walking import key_of, place_key

if TYPE_CHECKING:
    from .snapshot import Snapshot

__all__ = ["find_lost"]


def find_lost(findings: Findings, snapshots: Iterable[Snapshot]) -> None:
    """Tell which paths of snapshots do not restore, by what is known to be missing or damaged."""
    if not findings.any:
        return
    clean = sqlite3.connect("", isolation_level=None)
    try:
        clean.execute("CREATE TABLE clean (place BLOB PRIMARY KEY) WITHOUT ROWID")
        clean.execute("BEGIN")
        for snapshot in snapshots:
            _find(findings, snapshot, clean)
    finally:
        clean.close()


def _find(findings: Findings, snapshot: Snapshot, clean: sqlite3.Connection) -> None:
    try:
        keys = {(snapshot.host_id, row.archive_id) for row in snapshot.references}
    except (ArchiveError, StorageError):
        keys = set()
    keys.add((snapshot.host_id, snapshot.archive_id))
    if keys.isdisjoint({*findings.failed, *findings.blocks, *findings.pieces}):
        return
    _Losses(findings, snapshot, clean).run()


class _Losses:
    """One snapshot's."""

    def __init__(self, findings: Findings, snapshot: Snapshot, clean: sqlite3.Connection) -> None:
        self._findings = findings
        self._snapshot = snapshot
        self._clean = clean
        self._entries = 0

    def run(self) -> None:
        stack: list[tuple[bytes, Iterator[tuple[bytes, Place, int]], int]] = []
        stack.append((b"", iter([(b"", self._snapshot.root_place(), 0)]), 0))
        while stack:
            key, children, before = stack[-1]
            child = next(children, None)
            if child is None:
                stack.pop()
                if self._findings.report.lost_count == before and key:
                    self._clean.execute("INSERT OR IGNORE INTO clean VALUES (?)", (key,))
                continue
            path, place, depth = child
            key = place_key(self._snapshot, place)
            if self._clean.execute("SELECT 1 FROM clean WHERE place = ?", (key,)).fetchone() is not None:
                continue
            before = self._findings.report.lost_count
            # Deeper, or with more entries, than there can be: what is damaged may be shared over and over.
            if len(stack) <= 2 * MAX_TREE_DEPTH and self._entries <= self._snapshot.entry_limit():
                stack.append((key, iter(self._directory(path, place, depth)), before))

    def _directory(self, path: bytes, place: Place, depth: int) -> list[tuple[bytes, Place, int]]:
        """Look at the entries of a node; returns the nodes below it."""
        tree = self._snapshot
        if self._bad(path, place[1], place[2], place[3], "a directory, or a part of it"):
            return []
        try:
            node = tree._directory(place)  # noqa: SLF001 - not the whole directory
            if node.type == NodeType.INNER:
                children = tree._children_of(node, place, depth)  # noqa: SLF001 - likewise
                return [(path, (c.id, c.archive, c.block, c.piece), depth + 1) for c in children]
            entries = tree._entries_of(node, place)  # noqa: SLF001 - likewise
        except (ArchiveError, StorageError) as error:
            self._lost(path, tree.object_name(place[1]), error, "a directory, or a part of it")
            return []
        below = []
        self._entries += len(entries)
        for entry in entries:
            here = path + b"/" + entry.name if path else entry.name
            if entry.kind == Kind.DIRECTORY:
                below.append((here, place_of(entry), 0))
            self._entry(here, entry)
        return below

    def _entry(self, path: bytes, entry: Entry) -> None:
        if entry.xattr_ref is not None:
            self._bad(path, entry.xattr_archive, *entry.xattr_ref[1:], "its extended attributes")
        if not entry.has_content or self._bad(path, entry.archive, entry.block, entry.piece, "its content"):
            return
        tree = self._snapshot
        try:
            if tree.in_parts(entry):
                for part in tree.parts(entry)[1]:
                    if part.id is not None and self._bad(
                        path, part.archive, part.block, part.piece, "a part of its content"
                    ):
                        return
        except (ArchiveError, StorageError) as error:
            self._lost(path, tree.object_name(entry.archive), error, "its content")

    def _bad(self, path: bytes, archive: int, block: int, piece: int, what: str) -> bool:
        """Whether what stands at a place is lost; then it is told."""
        try:
            key = key_of(self._snapshot, archive)
        except (ArchiveError, StorageError) as error:
            self._lost(path, self._snapshot.object, error, what)
            return True
        fault = self._findings.fault(key, block, piece)
        if fault is not None:
            self._lost(path, self._snapshot.object_name(archive), fault, what)
        return fault is not None

    def _lost(self, path: bytes, name: str, why: ArchiveError | StorageError | str, what: str) -> None:
        missing = "missing" if isinstance(why, MissingArchive) else "damaged"
        if not isinstance(why, str) and isinstance(why, ArchiveError):
            name = why.object or name
            why = why.message
        self._findings.lost(Lost(self._snapshot.id, path, missing, name, f"{what} is lost: {why}"))
