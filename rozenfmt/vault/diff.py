"""What changed between two snapshots, found by the ids of nodes.

Directories, and leaves of big ones, that have the same id hold the same: they are not even read.
So two snapshots of a million files that differ in one cost a few nodes.  What was found is kept in
an unnamed temporary database, since two snapshots may have nothing in common.

Content ids are made with a host's key.  Between snapshots of different hosts they say nothing, and
contents are compared by size and time of modification alone.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rozenfmt.format import crypto
from rozenfmt.format.limits import MAX_NODE_DEPTH, MAX_TREE_DEPTH
from rozenfmt.format.nodes import Entry, Kind, Mark, directory_record

from .results import Move
from .walking import children_of, entries_of

if TYPE_CHECKING:
    from rozenfmt.archive.treereader import Place

    from .snapshot import Snapshot

__all__ = ["SnapshotChange", "SnapshotDiff", "diff"]

_OLD, _NEW = 0, 1
_AGAIN: Final = 4
_EMPTY: Final = crypto.digest(directory_record([]))
_WHAT: Final = ("new", "changed", "metadata", "moved", "deleted")

_SCHEMA: Final = """
CREATE TABLE changes (key BLOB, what TEXT, kind INTEGER, details TEXT, old BLOB);
CREATE TABLE things (side INTEGER, key BLOB, name BLOB, id BLOB, kind INTEGER, archive INTEGER, block INTEGER,
    piece INTEGER, facts BLOB, expanded INTEGER, PRIMARY KEY (side, key)) WITHOUT ROWID;
CREATE INDEX by_id ON things (id, side);
"""


@dataclass(frozen=True, slots=True)
class SnapshotChange:
    """One entry in which two snapshots differ.

    Attributes:
        path: Its path in the newer snapshot; of what is deleted, in the older one.
        what: ``new``, ``changed`` (kind, content, target or device), ``metadata``, ``moved`` or ``deleted``.
        kind: What it is, or was.
        details: What differs, for ``changed`` and ``metadata``: ``kind``, ``size``, ``content``, ``content unknown``
            (of two hosts, of the same size), ``target``, ``device``, ``mode``, ``owner``, ``mtime``, ``xattrs``,
            ``links``, ``marks``.
        old_path: Of what was moved, where it was.
    """

    path: bytes
    what: str
    kind: Kind
    details: tuple[str, ...] = ()
    old_path: bytes | None = None


class SnapshotDiff:
    """What differs between two snapshots; false if nothing does.

    Iterating gives every change in order of path: a directory before what is in it.  What is new or
    deleted is listed entry by entry; a directory that was moved as it is stands for all that is in it.

    Attributes:
        older: Id of the older snapshot.
        newer: Id of the newer snapshot.
        counts: How many changes there are of each kind.
        unconfirmed: Files of two hosts that have the same size and time: taken for the same, though nothing says so.
    """

    def __init__(self, older: str, newer: str, db: sqlite3.Connection, unconfirmed: int) -> None:
        self.older = older
        self.newer = newer
        self.unconfirmed = unconfirmed
        self._db = db
        weakref.finalize(self, db.close)
        found = dict(db.execute("SELECT what, count(*) FROM changes GROUP BY what").fetchall())
        self.counts: dict[str, int] = {what: found.get(what, 0) for what in _WHAT}

    def __iter__(self) -> Iterator[SnapshotChange]:
        return self._select("ORDER BY key, what DESC")

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __bool__(self) -> bool:
        return len(self) > 0

    @property
    def new(self) -> list[SnapshotChange]:
        """What is only in the newer snapshot."""
        return list(self._of("new"))

    @property
    def changed(self) -> list[SnapshotChange]:
        """What has another content, kind, target or device."""
        return list(self._of("changed"))

    @property
    def metadata(self) -> list[SnapshotChange]:
        """What has only other metadata; directories among them."""
        return list(self._of("metadata"))

    @property
    def moved(self) -> list[Move]:
        """What was moved or renamed."""
        return [Move(one.old_path or b"", one.path, one.kind is Kind.DIRECTORY) for one in self._of("moved")]

    @property
    def deleted(self) -> list[SnapshotChange]:
        """What is only in the older snapshot."""
        return list(self._of("deleted"))

    def _of(self, what: str) -> Iterator[SnapshotChange]:
        return self._select("WHERE what = ? ORDER BY key", what)

    def _select(self, clauses: str, *arguments: str) -> Iterator[SnapshotChange]:
        rows = self._db.execute(f"SELECT key, what, kind, details, old FROM changes {clauses}", arguments)  # noqa: S608
        for key, what, kind, details, old in rows:
            path = key.replace(b"\0", b"/")
            yield SnapshotChange(path, what, Kind(kind), tuple(details.split("\n")) if details else (), old)

    def __repr__(self) -> str:
        counts = ", ".join(f"{number} {what}" for what, number in self.counts.items() if number)
        return f"SnapshotDiff({self.older[:8]}, {self.newer[:8]}: {counts or 'nothing'})"


def diff(older: Snapshot, newer: Snapshot) -> SnapshotDiff:
    """What changed from one snapshot to another; of any sets, and of any hosts of a vault.

    Moves are those that the newer snapshot recorded, if the older one is its parent; besides, directories that
    are not empty with the same node id, and files that are not empty with the same content id, each once.
    Needs no more than the right to browse.

    Raises:
        ArchiveError: A directory that may differ is damaged, or an archive that holds it is missing.
        StorageError: The storage fails.
    """
    job = _Differ(older, newer)
    try:
        job.run()
    except BaseException:
        job.db.close()
        raise
    return SnapshotDiff(older.id, newer.id, job.db, job.unconfirmed)


class _Differ:
    """One comparison."""

    def __init__(self, older: Snapshot, newer: Snapshot) -> None:
        self._trees = (older, newer)
        self._same_host = older.host_id == newer.host_id
        self.unconfirmed = 0
        self.db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self.db.executescript(_SCHEMA)
        self._seen = [0, 0]
        self._groups: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
        self._todo: list[tuple[Place, Place, bytes, bytes]] = []

    def run(self) -> None:
        older, newer = self._trees
        self.db.execute("BEGIN")
        self._todo.append((older.root_place(), newer.root_place(), b"", b""))
        self._walk()
        recorded = newer.moves if self._same_host and newer.parent == older.archive_id else ()
        while True:  # what was moved is compared with what it was, where there may be more to list
            self._recorded(recorded)
            if self._same_host:
                self._match(directories=True)
            if self.db.execute("SELECT 1 FROM things WHERE NOT expanded LIMIT 1").fetchone() is None:
                break
            for side in (_NEW, _OLD):
                self._expand_all(side)
        if self._same_host:
            self._match(directories=False)
        for side, what in ((_OLD, "deleted"), (_NEW, "new")):
            self.db.execute(
                "INSERT INTO changes SELECT key, ?, kind, '', NULL FROM things WHERE side = ?", (what, side)
            )
        self.db.execute("DELETE FROM things")
        self.db.execute("COMMIT")

    # --- side by side ---------------------------------------------------------------------------

    def _walk(self) -> None:
        """Compare pairs of directories, and those below them."""
        while self._todo:
            left, right, old_path, new_path = self._todo.pop()
            if left[0] == right[0]:
                continue
            a, b = self._leaves(left, right)
            for one, two in _merge(self._entries(_OLD, a, old_path), self._entries(_NEW, b, new_path)):
                if one is None:
                    assert two is not None
                    self._note(_NEW, new_path, two)
                elif two is None:
                    self._note(_OLD, old_path, one)
                else:
                    self._pair(one, two, old_path, new_path)

    def _leaves(self, left: Place, right: Place) -> tuple[list[Place], list[Place]]:
        """Leaves of two directories, without those that both have."""
        sides: list[list[Place]] = [[left], [right]]
        for depth in range(MAX_NODE_DEPTH + 1):
            common = {place[0] for place in sides[0]} & {place[0] for place in sides[1]}
            inner = False
            for side in (_OLD, _NEW):
                found: list[Place] = []
                for place in sides[side]:
                    if place[0] in common:
                        continue
                    children = children_of(self._trees[side], place, depth)
                    inner |= children is not None
                    found += [place] if children is None else children
                sides[side] = found
            if not inner:
                break
        return sides[0], sides[1]

    def _entries(self, side: int, leaves: Sequence[Place], path: bytes) -> Iterator[Entry]:
        tree = self._trees[side]
        limit = tree.entry_limit()
        if path.count(b"/") >= MAX_TREE_DEPTH:
            raise tree.too_deep()
        for place in leaves:
            entries = entries_of(tree, place)
            self._seen[side] += len(entries)
            # A directory may be looked at for itself, and again as one that was moved, along with one above it.
            if self._seen[side] > _AGAIN * limit:
                raise tree.too_many_entries()
            yield from entries

    def _pair(self, one: Entry, two: Entry, old_path: bytes, new_path: bytes) -> None:
        path = _join(new_path, two.name)
        if one.kind != two.kind:
            self._change(path, "changed", two.kind, ("kind", one.kind.name.lower(), two.kind.name.lower()))
            if one.kind == Kind.DIRECTORY:
                self._below(_OLD, _join(old_path, one.name), _place(one))
            elif two.kind == Kind.DIRECTORY:
                self._below(_NEW, path, _place(two))
            return
        self._compare(one, two, path)
        if one.kind == Kind.DIRECTORY and one.child != two.child:
            self._todo.append((_place(one), _place(two), _join(old_path, one.name), path))

    def _compare(self, one: Entry, two: Entry, path: bytes) -> None:
        content, metadata = self._content(one, two), self._metadata(one, two)
        if content or metadata:
            self._change(path, "changed" if content else "metadata", two.kind, (*content, *metadata))

    def _content(self, one: Entry, two: Entry) -> list[str]:
        if one.target != two.target:
            return ["target"]
        if one.device != two.device:
            return ["device"]
        if one.kind != Kind.FILE:
            return []
        if one.size != two.size:
            return ["size"]
        if one.has_content != two.has_content:
            return ["content"]
        if self._same_host:
            return ["content"] if one.content_id != two.content_id else []
        if one.has_content and one.mtime_ns != two.mtime_ns:
            return ["content unknown"]
        self.unconfirmed += one.has_content
        return []

    def _metadata(self, one: Entry, two: Entry) -> list[str]:
        found = []
        if one.mode != two.mode:
            found.append("mode")
        if (one.uid, one.gid, one.user, one.group) != (two.uid, two.gid, two.user, two.group):
            found.append("owner")
        if one.mtime_ns != two.mtime_ns:
            found.append("mtime")
        if self._xattrs_differ(one, two):
            found.append("xattrs")
        if not self._linked_alike(one.link_group, two.link_group):
            found.append("links")
        if (one.marks ^ two.marks) & ~Mark.WITHHELD:
            found.append("marks")
        return found

    def _xattrs_differ(self, one: Entry, two: Entry) -> bool:
        if one.xattr_ref is None or two.xattr_ref is None:
            return one.xattr_ref is not two.xattr_ref
        if self._same_host:
            return one.xattr_ref[0] != two.xattr_ref[0]
        return False

    def _linked_alike(self, one: bytes | None, two: bytes | None) -> bool:
        """Whether two link groups stand for the same names; their values may differ."""
        if one is None or two is None:
            return one is two
        return self._groups[0].setdefault(one, two) == two and self._groups[1].setdefault(two, one) == one

    # --- what is on one side only ---------------------------------------------------------------

    def _note(self, side: int, directory: bytes, entry: Entry) -> None:
        one = entry.child if entry.child != _EMPTY else None
        self._thing(side, _join(directory, entry.name), entry, one or entry.content_id or b"")

    def _thing(self, side: int, path: bytes, entry: Entry, one: bytes) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO things VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(side, path.replace(b"/", b"\0"), entry.name, one, int(entry.kind)),
                *(entry.archive, entry.block, entry.piece, _facts(entry)),
                entry.kind != Kind.DIRECTORY or entry.child == _EMPTY,
            ),
        )

    def _expand_all(self, side: int) -> None:
        """List what is below directories that are on one side only, as far as they were not moved."""
        while True:
            rows = self.db.execute(
                "SELECT key, id, archive, block, piece FROM things WHERE side = ? AND NOT expanded LIMIT 256", (side,)
            ).fetchall()
            if not rows:
                return
            for key, one, *where in rows:
                self.db.execute("UPDATE things SET expanded = 1 WHERE side = ? AND key = ?", (side, key))
                self._below(side, key.replace(b"\0", b"/"), (one or None, *where), match=True)

    def _below(self, side: int, path: bytes, place: Place, *, match: bool = False) -> None:
        """Note what is in a directory that is on one side only."""
        leaves, depth = [place], 0
        while depth <= MAX_NODE_DEPTH:
            found: list[Place] = []
            for leaf in leaves:
                children = children_of(self._trees[side], leaf, depth)
                found += [leaf] if children is None else children
            if found == leaves:
                break
            leaves, depth = found, depth + 1
        for entry in self._entries(side, leaves, path):
            self._note(side, path, entry)
            if match and self._same_host and entry.child not in (None, _EMPTY):
                self._moved_here(side, _join(path, entry.name), entry)

    def _moved_here(self, side: int, path: bytes, entry: Entry) -> None:
        """A directory that is on the other side only has the same id: it is the same one, and not gone into."""
        other = self.db.execute(
            "SELECT key FROM things WHERE id = ? AND side = ? ORDER BY name != ?, key LIMIT 1",
            (entry.child, 1 - side, entry.name),
        ).fetchone()
        if other is not None:
            key = path.replace(b"/", b"\0")
            self._take(*((other[0], key) if side == _NEW else (key, other[0])))

    # --- moves ----------------------------------------------------------------------------------

    def _recorded(self, moves: Sequence[tuple[bytes, bytes, Kind]]) -> None:
        for old, new, _ in moves:
            keys = old.replace(b"/", b"\0"), new.replace(b"/", b"\0")
            found = [
                self.db.execute(
                    "SELECT kind, id, archive, block, piece FROM things WHERE side = ? AND key = ?", (side, keys[side])
                ).fetchone()
                for side in (_OLD, _NEW)
            ]
            a, b = found
            if a is None or b is None or a[0] != b[0]:
                continue
            self._take(*keys)
            if a[0] == Kind.DIRECTORY and a[1] != b[1]:
                left, right = ((row[1] or _EMPTY, *row[2:]) for row in (a, b))
                self._todo.append((left, right, old, new))
                self._walk()

    def _match(self, *, directories: bool) -> None:
        """Pair what is gone with what is new by their ids, each once, same names first."""
        compare = "=" if directories else "!="
        ids = self.db.execute(
            f"SELECT id FROM things WHERE kind {compare} ? AND id != x'' GROUP BY id "  # noqa: S608
            "HAVING min(side) != max(side) ORDER BY min(length(key)), id",
            (int(Kind.DIRECTORY),),
        ).fetchall()
        for (one,) in ids:
            sides = [
                self.db.execute(
                    "SELECT key, name FROM things WHERE id = ? AND side = ? ORDER BY key", (one, side)
                ).fetchall()
                for side in (_OLD, _NEW)
            ]
            by_name: dict[bytes, list[bytes]] = {}
            for key, name in reversed(sides[_NEW]):
                by_name.setdefault(name, []).append(key)
            rest = []
            for key, name in sides[_OLD]:
                if by_name.get(name):
                    self._take(key, by_name[name].pop())
                else:
                    rest.append(key)
            left = sorted(key for keys in by_name.values() for key in keys)
            for old, new in zip(rest, left, strict=False):
                self._take(old, new)

    def _take(self, old: bytes, new: bytes) -> None:
        """Something was moved: it is neither new nor deleted, nor is what is below it."""
        rows = [
            self.db.execute("SELECT kind, facts, id FROM things WHERE side = ? AND key = ?", row).fetchone()
            for row in ((_OLD, old), (_NEW, new))
        ]
        if rows[0] is None or rows[1] is None:  # it went along with a directory above it
            return
        self._change(new, "moved", rows[1][0], (), old.replace(b"\0", b"/"))
        if rows[0][1] != rows[1][1] or (rows[0][0] != Kind.DIRECTORY and rows[0][2] != rows[1][2]):
            self._look_again(old, new)
        for side, key in ((_OLD, old), (_NEW, new)):
            self.db.execute(
                "DELETE FROM things WHERE side = ? AND (key = ? OR (key > ? AND key < ?))",
                (side, key, key + b"\0", key + b"\1"),
            )

    def _look_again(self, old: bytes, new: bytes) -> None:
        """What was moved has other metadata too."""
        paths = old.replace(b"\0", b"/"), new.replace(b"\0", b"/")
        one, two = (self._trees[side].entry(paths[side]).raw for side in (_OLD, _NEW))
        self._compare(one, two, paths[1])

    def _change(
        self, path: bytes, what: str, kind: int, details: Sequence[str] = (), old_path: bytes | None = None
    ) -> None:
        row = (path.replace(b"/", b"\0"), what, int(kind), "\n".join(details), old_path)
        self.db.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?)", row)


def _merge(left: Iterator[Entry], right: Iterator[Entry]) -> Iterator[tuple[Entry | None, Entry | None]]:
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.name < b.name):
            yield a, None
            a = next(left, None)
        elif a is None or b.name < a.name:
            yield None, b
            b = next(right, None)
        else:
            yield a, b
            a, b = next(left, None), next(right, None)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _place(entry: Entry) -> Place:
    return entry.child, entry.archive, entry.block, entry.piece


def _facts(entry: Entry) -> bytes:
    """What a move may change besides the place, in short."""
    xattrs = entry.xattr_ref[0] if entry.xattr_ref is not None else b""
    marks = entry.marks & ~Mark.WITHHELD
    facts = (entry.mode, entry.uid, entry.gid, entry.user, entry.group, entry.mtime_ns, xattrs, entry.link_group, marks)
    return crypto.digest(repr(facts).encode())[:16]
