"""What a host remembers: a cache in SQLite, of which nothing is needed to restore.

It knows numbers for archives, where pieces, contents and nodes are stored, and for each set the
directories as they were, each leaf as one row: signatures of its files (to tell what changed) and
the node itself (to take over what did not).  Archives have small local numbers here; places are
``(number, block, piece)``.

What belongs to archives that are not complete lives in temporary tables, which die with the
connection: a killed run leaves nothing that others could believe.  Transactions are short, since
several processes of one host share the file.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

from rozenfmt.errors import StorageError, UsageError
from rozenfmt.format.nodes import Entry, Node

__all__ = ["SIGNATURE", "Catalog", "CatalogDamaged", "Leaf", "Place", "SetState", "signature"]

_VERSION: Final = 2
_BUSY_SECONDS: Final = 120
_FRESH: Final = 100_000  # pieces held in memory, about 25 MB, before they go to a temporary table
_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "fuse.sshfs", "glusterfs"})

Place = tuple[int, int, int]

SIGNATURE: Final = struct.Struct("<QqqQ")
"""Size, mtime, ctime (nanoseconds) and inode of an entry; all zero if it is not to be trusted."""

_LEAF: Final = "first, signatures, node, place, uses, size, top"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS archives (number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB UNIQUE, kind INTEGER,
    length INTEGER);
CREATE TABLE IF NOT EXISTS pieces (id BLOB PRIMARY KEY, archive INTEGER, block INTEGER, piece INTEGER, size INTEGER)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents (id BLOB PRIMARY KEY, size INTEGER, archive INTEGER, block INTEGER, piece INTEGER,
    uses BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodes (key BLOB PRIMARY KEY, archive INTEGER, block INTEGER, piece INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sets (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, snapshot BLOB, foot BLOB,
    sequence INTEGER, root BLOB, leans INTEGER, entries INTEGER, bytes INTEGER, mode INTEGER);
CREATE TABLE IF NOT EXISTS leaves (set_number INTEGER, path BLOB, first BLOB, signatures BLOB, node BLOB,
    place BLOB, uses BLOB, size INTEGER, top BLOB, PRIMARY KEY (set_number, path, first)) WITHOUT ROWID;
"""

_TEMPORARY: Final = """
CREATE TEMP TABLE fresh_pieces (id BLOB PRIMARY KEY, archive INTEGER, block INTEGER, piece INTEGER, size INTEGER)
    WITHOUT ROWID;
CREATE TEMP TABLE fresh_contents (id BLOB PRIMARY KEY, size INTEGER, archive INTEGER, block INTEGER, piece INTEGER,
    uses BLOB) WITHOUT ROWID;
CREATE TEMP TABLE fresh_nodes (key BLOB PRIMARY KEY, archive INTEGER, block INTEGER, piece INTEGER) WITHOUT ROWID;
CREATE TEMP TABLE fresh_leaves (path BLOB, first BLOB, signatures BLOB, node BLOB, place BLOB, uses BLOB,
    size INTEGER, top BLOB, PRIMARY KEY (path, first)) WITHOUT ROWID;
CREATE TEMP TABLE fresh_tops (path BLOB, first BLOB, top BLOB);
CREATE TEMP TABLE gone_leaves (path BLOB, first BLOB);
CREATE TEMP TABLE gone_trees (path BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE inodes (inode INTEGER PRIMARY KEY, path BLOB, first BLOB, position INTEGER) WITHOUT ROWID;
CREATE TEMP TABLE new_things (id BLOB, name BLOB, path BLOB, files INTEGER);
CREATE TEMP TABLE gone_things (id BLOB, name BLOB, path BLOB, kind INTEGER);
"""


class CatalogDamaged(Exception):  # noqa: N818 - named for what happened
    """The file is not a sound catalog; it is set aside and the run begins again."""


@dataclass(frozen=True, slots=True)
class SetState:
    """What is remembered of a set: its last snapshot.

    Attributes:
        number: Local number of the set.
        snapshot: Archive id of the last snapshot; None if there was none yet.
        foot: Whole hash of its ``FOOT``.
        sequence: Its sequence number.
        root: Node id and place of its root: 32 bytes and three u64; None without a snapshot.
        leans: How many other metadata archives its directories stand in.
        entries: Its entries.
        bytes: Bytes of its contents.
    """

    number: int
    snapshot: bytes | None
    foot: bytes | None
    sequence: int
    root: bytes | None
    leans: int
    entries: int
    bytes: int


@dataclass(slots=True)
class Leaf:
    """A leaf of a directory as it was.

    Attributes:
        first: Name of its first entry.
        signatures: One for each entry.
        node: Its node, with local archive numbers.
        place: Its id, where it is stored, and its length there; empty if that is not known.
        uses: Archives that its entries refer to, with bytes.
        size: Bytes of its entries' contents.
        top: In the first of several leaves: the node that holds them all, and how many they are.
    """

    first: bytes
    signatures: bytes
    node: bytes
    place: bytes = b""
    uses: bytes = b""
    size: int = 0
    top: bytes = b""

    def entries(self) -> list[Entry]:
        """Its entries; archive numbers are local ones."""
        return Node.decode(self.node).entries(vault=True)


def signature(stat: os.stat_result) -> bytes:
    """Signature of a file as it is now."""
    return SIGNATURE.pack(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


class Catalog:
    """The cache of one host of one vault; not to be shared between threads.

    Args:
        path: The database file, made if missing, mode 0600.
        vault_id: 16 bytes.
        host_id: 16 bytes.

    Attributes:
        is_new: The file did not exist: the host's memory is empty.
        set_aside: Name that a damaged file was given, if there was one.
    """

    def __init__(self, path: str, *, vault_id: bytes, host_id: bytes) -> None:
        self.path = path
        self._owner = vault_id + host_id
        self.set_aside: str | None = None
        self._pieces: dict[bytes, tuple[int, int, int, int]] = {}
        try:
            self._open()
        except (CatalogDamaged, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.DatabaseError) and not _is_damage(error):
                raise _unusable(path, error) from error
            self.put_aside()
            try:
                self._open()
            except sqlite3.DatabaseError as again:
                raise _unusable(path, again) from again

    def _open(self) -> None:
        folder = os.path.dirname(self.path)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            if not os.path.exists(self.path):  # closing a descriptor of it would let go of SQLite's locks
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
        except OSError as error:
            msg = f"cannot write the host's cache {self.path}: {error.strerror}; give another place (cache_dir)"
            raise StorageError(msg) from error
        self.is_new = os.path.getsize(self.path) == 0
        self._db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            self._prepare(network=file_system(folder) in _NETWORK)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, *, network: bool) -> None:
        db = self._db
        if network:
            self._set_journal("delete")  # shared memory does not work there
        else:
            self._set_journal("wal")
            db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA temp_store = FILE")
        db.execute("PRAGMA cache_size = -16384")
        if not self.is_new and db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise CatalogDamaged
        with self._transaction():
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise CatalogDamaged
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {_VERSION}")
            db.execute("INSERT OR IGNORE INTO about VALUES ('owner', ?)", (self._owner,))
            owner = db.execute("SELECT value FROM about WHERE key = 'owner'").fetchone()[0]
        if owner != self._owner:
            msg = f"{self.path} is the cache of another vault or host; give another place (cache_dir)"
            raise UsageError(msg)
        db.executescript(_TEMPORARY)
        self._tables = ["main.pieces"] if db.execute("SELECT 1 FROM pieces LIMIT 1").fetchone() else []

    def _set_journal(self, mode: str) -> None:
        """Set the journal's mode; while another process does so too, SQLite refuses at once instead of waiting."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                if self._db.execute("PRAGMA journal_mode").fetchone()[0] != mode:
                    self._db.execute(f"PRAGMA journal_mode = {mode}")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """One transaction over temporary tables, which waits for no other process."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def put_aside(self) -> None:
        """Give a damaged file another name, with what belongs to it."""
        self.close()
        self.set_aside = f"{self.path}.damaged-{time.strftime('%Y%m%dT%H%M%S')}"
        for end in ("", "-wal", "-shm"):
            if os.path.exists(self.path + end):
                os.replace(self.path + end, self.set_aside + end)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_db"):
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- small things ---------------------------------------------------------------------------

    def remember(self, key: str, value: bytes) -> None:
        """Keep a small value."""
        self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))

    def recall(self, key: str) -> bytes | None:
        """A value that ``remember`` kept."""
        row = self._db.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    # --- archives -------------------------------------------------------------------------------

    def archive_number(self, archive_id: bytes, kind: int) -> int:
        """Local number of an archive, given now if it has none."""
        row = self._db.execute("SELECT number FROM archives WHERE id = ?", (archive_id,)).fetchone()
        if row is None:
            self._db.execute("INSERT OR IGNORE INTO archives (id, kind) VALUES (?, ?)", (archive_id, kind))
            row = self._db.execute("SELECT number FROM archives WHERE id = ?", (archive_id,)).fetchone()
        return int(row[0])

    def id_of(self, number: int) -> bytes:
        """Id of an archive that has a local number."""
        return bytes(self._db.execute("SELECT id FROM archives WHERE number = ?", (number,)).fetchone()[0])

    def numbers_of(self, ids: Iterable[bytes]) -> list[int] | None:
        """Local numbers of archives; None if one of them is not known."""
        found = []
        for one in ids:
            row = self._db.execute("SELECT number FROM archives WHERE id = ?", (one,)).fetchone()
            if row is None:
                return None
            found.append(int(row[0]))
        return found

    def archives(self) -> dict[int, tuple[bytes, int, int]]:
        """Complete archives: id, kind and length by local number."""
        rows = self._db.execute("SELECT number, id, kind, length FROM archives WHERE length IS NOT NULL")
        return {row[0]: (row[1], row[2], row[3]) for row in rows}

    def kind_of(self, number: int) -> int:
        """Kind of an archive: 1 data, 2 metadata; 0 if it is not known."""
        row = self._db.execute("SELECT kind FROM archives WHERE number = ?", (number,)).fetchone()
        return 0 if row is None else int(row[0])

    def length_of(self, number: int) -> int | None:
        """Length of a complete archive; None if it is not complete, or not known."""
        row = self._db.execute("SELECT length FROM archives WHERE number = ?", (number,)).fetchone()
        return None if row is None else row[0]

    def complete_data(self, number: int, length: int) -> None:
        """A data archive is whole and stored: what was put into it may be referred to."""
        # In order of id: rows at random places cost several times as much.
        rows = sorted((one, *rest) for one, rest in self._pieces.items() if rest[0] == number)
        with self._transaction():
            self._db.execute("UPDATE archives SET length = ? WHERE number = ?", (length, number))
            self._db.execute(
                "INSERT OR REPLACE INTO main.pieces SELECT * FROM fresh_pieces WHERE archive = ? ORDER BY id", (number,)
            )
            self._db.executemany("INSERT OR REPLACE INTO main.pieces VALUES (?, ?, ?, ?, ?)", rows)
            self._db.execute("DELETE FROM fresh_pieces WHERE archive = ?", (number,))
        for row in rows:
            del self._pieces[row[0]]
        if "main.pieces" not in self._tables:
            self._tables.insert(0, "main.pieces")

    def forget_archives(self, numbers: Iterable[int]) -> None:
        """Archives are missing in the storage: nothing may be taken from them any more."""
        with self._transaction():
            for number in numbers:
                for table in ("pieces", "contents", "nodes"):
                    self._db.execute(f"DELETE FROM {table} WHERE archive = ?", (number,))  # noqa: S608
                self._db.execute("UPDATE archives SET length = NULL WHERE number = ?", (number,))

    # --- pieces, contents, nodes ----------------------------------------------------------------

    def add_pieces(self, rows: Iterable[tuple[bytes, int, int, int, int]]) -> None:
        """Note pieces (id, archive, block, piece, size) of a data archive that is being written."""
        self._pieces.update((row[0], row[1:]) for row in rows)
        if len(self._pieces) >= _FRESH:
            self._flush_pieces()

    def _flush_pieces(self) -> None:
        rows = ((one, *rest) for one, rest in sorted(self._pieces.items()))
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO fresh_pieces VALUES (?, ?, ?, ?, ?)", rows)
        self._tables = [*(table for table in self._tables if table != "fresh_pieces"), "fresh_pieces"]
        self._pieces.clear()

    def find_piece(self, one: bytes) -> tuple[int, int, int, int] | None:
        """Archive, block, piece and size of a piece, stored before or in this run."""
        found = self._pieces.get(one)
        if found is not None:
            return found
        for table in self._tables:  # those that may hold anything: this is asked for each new file
            row = self._db.execute(
                f"SELECT archive, block, piece, size FROM {table} WHERE id = ?",  # noqa: S608
                (one,),
            ).fetchone()
            if row is not None:
                return row  # type: ignore[no-any-return]
        return None

    def find_content(self, one: bytes) -> tuple[int, Place, bytes] | None:
        """Size, place of the part table, and used archives of a content that is stored in parts."""
        row = self._db.execute(
            "SELECT size, archive, block, piece, uses FROM main.contents WHERE id = ? UNION ALL "
            "SELECT size, archive, block, piece, uses FROM fresh_contents WHERE id = ? LIMIT 1",
            (one, one),
        ).fetchone()
        return None if row is None else (row[0], (row[1], row[2], row[3]), row[4])

    def add_content(self, one: bytes, size: int, place: Place, uses: bytes) -> None:
        """Note a content in parts, whose table is in the metadata archive that is being written."""
        self._db.execute("INSERT OR REPLACE INTO fresh_contents VALUES (?, ?, ?, ?, ?, ?)", (one, size, *place, uses))

    def find_node(self, key: bytes) -> Place | None:
        """Place of a node by the hash of its facts and places."""
        return self._db.execute(  # type: ignore[no-any-return]
            "SELECT archive, block, piece FROM main.nodes WHERE key = ? UNION ALL "
            "SELECT archive, block, piece FROM fresh_nodes WHERE key = ? LIMIT 1",
            (key, key),
        ).fetchone()

    def add_nodes(self, rows: Iterable[tuple[bytes, int, int, int]]) -> None:
        """Note nodes in the metadata archive that is being written."""
        with self._noting():
            self._db.executemany("INSERT OR REPLACE INTO fresh_nodes VALUES (?, ?, ?, ?)", rows)

    # --- sets and directories -------------------------------------------------------------------

    def set_state(self, name: str) -> SetState:
        """What is remembered of a set."""
        columns = "number, snapshot, foot, sequence, root, leans, entries, bytes"
        row = self._db.execute(f"SELECT {columns} FROM sets WHERE name = ?", (name,)).fetchone()  # noqa: S608
        if row is None:
            self._db.execute(
                "INSERT OR IGNORE INTO sets (name, sequence, leans, entries, bytes) VALUES (?, 0, 0, 0, 0)", (name,)
            )
            row = self._db.execute(f"SELECT {columns} FROM sets WHERE name = ?", (name,)).fetchone()  # noqa: S608
        return SetState(*row)

    def highest_sequence(self) -> int:
        """The highest sequence number ever used."""
        return int(self._db.execute("SELECT coalesce(max(sequence), 0) FROM sets").fetchone()[0])

    def leaves(self, set_number: int, path: bytes) -> Iterator[Leaf]:
        """The leaves of a directory, in order of name."""
        # By small selections: with a cursor left open, this connection could not write any more as soon as
        # another process has written.
        at, start = ">=", b""
        while rows := self._db.execute(
            f"SELECT {_LEAF} FROM main.leaves WHERE set_number = ? AND path = ? "  # noqa: S608
            f"AND first {at} ? ORDER BY first LIMIT 4",
            (set_number, path, start),
        ).fetchall():
            for row in rows:
                yield Leaf(*row)
            if len(rows) < 4:
                return
            at, start = ">", rows[-1][0]

    def leaf_of(self, set_number: int, path: bytes, name: bytes) -> Leaf | None:
        """The leaf of a directory in which a name would be."""
        row = self._db.execute(
            f"SELECT {_LEAF} FROM main.leaves WHERE set_number = ? AND path = ? AND first <= ? "  # noqa: S608
            "ORDER BY first DESC LIMIT 1",
            (set_number, path, name),
        ).fetchone()
        return None if row is None else Leaf(*row)

    def subtree(self, set_number: int, path: bytes) -> Iterator[tuple[bytes, Leaf]]:
        """All leaves of a directory and of those below it, with their paths."""
        low, high = (path + b"/", path + b"0") if path else (b"", b"\xff" * 16)
        for first, last in ((path, path + b"\0"), (low, high)) if path else ((low, high),):
            at, start = ">=", (first, b"")
            while rows := self._db.execute(
                f"SELECT path, {_LEAF} FROM main.leaves WHERE set_number = ? "  # noqa: S608
                f"AND path < ? AND (path, first) {at} (?, ?) ORDER BY path, first LIMIT 16",
                (set_number, last, *start),
            ).fetchall():
                for row in rows:
                    yield row[0], Leaf(*row[1:])
                at, start = ">", rows[-1][:2]

    def add_leaves(self, leaves: Iterable[tuple[bytes, Leaf]]) -> None:
        """Note leaves of the snapshot that is being made, with the paths of their directories."""
        rows = [(path, *_columns(leaf)) for path, leaf in leaves]
        with self._noting():
            self._db.executemany("INSERT OR REPLACE INTO fresh_leaves VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def set_top(self, path: bytes, first: bytes, top: bytes) -> None:
        """Note the node that holds all leaves of a directory, of which the first begins with ``first``."""
        self._db.execute("INSERT INTO fresh_tops VALUES (?, ?, ?)", (path, first, top))

    def drop_leaf(self, path: bytes, first: bytes) -> None:
        """A leaf is no more: its directory is cut otherwise now."""
        self._db.execute("INSERT INTO gone_leaves VALUES (?, ?)", (path, first))

    def drop_tree(self, path: bytes) -> None:
        """A directory is no more at this path, nor is what was below it."""
        self._db.execute("INSERT OR IGNORE INTO gone_trees VALUES (?)", (path,))

    def complete_snapshot(
        self,
        state: SetState,
        *,
        number: int,
        length: int,
        mode: int,
        known: Mapping[str, bytes],
        before: SetState | None = None,
    ) -> None:
        """A metadata archive is stored: take over what was noted, in one transaction.

        Args:
            state: The set as it is now.
            number: Local number of the metadata archive.
            length: Its length in bytes.
            mode: The set's mode.
            known: Small values to remember along with it.
            before: The set as it was when the run began. If another process has made a snapshot of it meanwhile,
                that one stays what the next is compared with: what was noted are differences from the one before.
        """
        db = self._db
        with self._transaction():
            db.execute("UPDATE archives SET length = ? WHERE number = ?", (length, number))
            for table in ("contents", "nodes"):
                db.execute(f"INSERT OR REPLACE INTO main.{table} SELECT * FROM fresh_{table}")  # noqa: S608
            for key, value in known.items():
                db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))
            row = db.execute("SELECT snapshot FROM sets WHERE number = ?", (state.number,)).fetchone()
            if before is not None and row[0] != before.snapshot:
                db.execute(
                    "UPDATE sets SET sequence = max(sequence, ?) WHERE number = ?", (state.sequence, state.number)
                )
                return
            for (path,) in db.execute("SELECT path FROM gone_trees").fetchall():
                db.execute(
                    "DELETE FROM main.leaves WHERE set_number = ? AND (path = ? OR (path >= ? AND path < ?))",
                    (state.number, path, path + b"/", path + b"0"),
                )
            db.executemany(
                "DELETE FROM main.leaves WHERE set_number = ? AND path = ? AND first = ?",
                [(state.number, *row) for row in db.execute("SELECT path, first FROM gone_leaves").fetchall()],
            )
            db.execute(
                f"INSERT OR REPLACE INTO main.leaves SELECT ?, path, {_LEAF} FROM fresh_leaves",  # noqa: S608
                (state.number,),
            )
            db.executemany(
                "UPDATE main.leaves SET top = ? WHERE set_number = ? AND path = ? AND first = ?",
                [(top, state.number, path, first) for path, first, top in db.execute("SELECT * FROM fresh_tops")],
            )
            db.execute(
                "UPDATE sets SET snapshot = ?, foot = ?, sequence = ?, root = ?, leans = ?, entries = ?, bytes = ?, "
                "mode = ? WHERE number = ?",
                (
                    *(state.snapshot, state.foot, state.sequence, state.root),
                    *(state.leans, state.entries, state.bytes, mode, state.number),
                ),
            )

    def forget_run(self) -> None:
        """Drop what was noted for a snapshot that is not made after all; stored data archives stay known."""
        self._pieces.clear()
        for table in (
            *("fresh_pieces", "fresh_contents", "fresh_nodes", "fresh_leaves", "fresh_tops"),
            *("gone_leaves", "gone_trees", "inodes", "new_things", "gone_things"),
        ):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608

    # --- rebuilding -----------------------------------------------------------------------------

    def rebuilt_leaf(self, set_number: int, path: bytes, leaf: Leaf) -> None:
        """Note a leaf for ``replace_all``."""
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS rebuilt AS SELECT * FROM main.leaves WHERE 0")
        row = (set_number, path, *_columns(leaf))
        self._db.execute("INSERT INTO rebuilt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def replace_all(self, lengths: Mapping[int, int], sets: Iterable[tuple[SetState, int]]) -> None:
        """Forget everything, and take over what was noted; all of it or, when interrupted, nothing.

        Args:
            lengths: Of the archives that are there, by local number.
            sets: Each set as it was at its latest snapshot, and its mode.
        """
        self._flush_pieces()
        db = self._db
        db.execute("CREATE TEMP TABLE IF NOT EXISTS rebuilt AS SELECT * FROM main.leaves WHERE 0")
        with self._transaction():
            for table in ("pieces", "contents", "nodes"):
                db.execute(f"DELETE FROM main.{table}")  # noqa: S608
                db.execute(f"INSERT INTO main.{table} SELECT * FROM fresh_{table}")  # noqa: S608
            db.execute("DELETE FROM main.leaves")
            db.execute("INSERT OR REPLACE INTO main.leaves SELECT * FROM rebuilt")
            db.execute("UPDATE archives SET length = NULL")
            db.executemany("UPDATE archives SET length = ? WHERE number = ?", [(v, k) for k, v in lengths.items()])
            db.execute("UPDATE sets SET snapshot = NULL, foot = NULL, root = NULL, leans = 0, entries = 0, bytes = 0")
            db.executemany(
                "UPDATE sets SET snapshot = ?, foot = ?, sequence = max(sequence, ?), root = ?, leans = ?, "
                "entries = ?, bytes = ?, mode = ? WHERE number = ?",
                [
                    (
                        one.snapshot,
                        one.foot,
                        one.sequence,
                        one.root,
                        one.leans,
                        one.entries,
                        one.bytes,
                        mode,
                        one.number,
                    )
                    for one, mode in sets
                ],
            )
        self.forget_rebuilt()
        self._tables = ["main.pieces"]

    def forget_rebuilt(self) -> None:
        """Drop what was noted for ``replace_all``."""
        self._db.execute("DROP TABLE IF EXISTS temp.rebuilt")
        self.forget_run()

    # --- moves ----------------------------------------------------------------------------------

    def index_inodes(self, set_number: int) -> None:
        """Make entries of the last snapshot findable by inode."""
        with self._transaction():
            for path, first, signatures in self._db.execute(
                "SELECT path, first, signatures FROM main.leaves WHERE set_number = ?", (set_number,)
            ).fetchall():
                self._db.executemany(
                    "INSERT OR IGNORE INTO inodes VALUES (?, ?, ?, ?)",
                    [
                        (one[3] - (1 << 63), path, first, position)
                        for position, one in enumerate(SIGNATURE.iter_unpack(signatures))
                        if one[3]
                    ],
                )

    def find_inode(self, set_number: int, inode: int) -> tuple[bytes, Leaf, int] | None:
        """Directory, leaf and position in it of the entry that had an inode."""
        row = self._db.execute(
            "SELECT i.path, i.first, l.signatures, l.node, i.position FROM inodes i JOIN main.leaves l "
            "ON l.set_number = ? AND l.path = i.path AND l.first = i.first WHERE i.inode = ?",
            (set_number, inode - (1 << 63)),
        ).fetchone()
        return None if row is None else (row[0], Leaf(*row[1:4]), row[4])

    def note_new(self, one: bytes, path: bytes, files: int = 1) -> None:
        """Something new: its content or node id, its path, and how many entries were counted as new for it."""
        self._db.execute("INSERT INTO new_things VALUES (?, ?, ?, ?)", (one, path.rpartition(b"/")[2], path, files))

    def note_gone(self, one: bytes, path: bytes, kind: int) -> None:
        """Something that is no more."""
        self._db.execute("INSERT INTO gone_things VALUES (?, ?, ?, ?)", (one, path.rpartition(b"/")[2], path, kind))

    def gone(self) -> list[tuple[bytes, int, bytes]]:
        """What ``note_gone`` was told: path, kind, id."""
        return list(self._db.execute("SELECT path, kind, id FROM gone_things ORDER BY path"))

    def replace_gone(self, rows: Iterable[tuple[bytes, int, bytes]]) -> None:
        """Only these are gone after all."""
        self._db.execute("DELETE FROM gone_things")
        self.add_gone(rows)

    def add_gone(self, rows: Iterable[tuple[bytes, int, bytes]]) -> None:
        """These are gone too."""
        named = ((one, path.rpartition(b"/")[2], path, kind) for path, kind, one in rows)
        with self._transaction():
            self._db.executemany("INSERT INTO gone_things VALUES (?, ?, ?, ?)", named)

    def match_moves(self) -> list[tuple[bytes, bytes, int, int]]:
        """Pairs of what is gone and what is new with the same id, each once, same names first.

        Returns:
            Old path, new path, kind, and how many entries were counted as new.
        """
        db = self._db
        db.execute("CREATE INDEX IF NOT EXISTS temp.new_ids ON new_things (id)")
        db.execute("CREATE INDEX IF NOT EXISTS temp.gone_ids ON gone_things (id)")
        ids = db.execute(
            "SELECT DISTINCT id FROM gone_things WHERE id != x'' AND id IN (SELECT id FROM new_things)"
        ).fetchall()
        found = []
        for (one,) in ids:
            gone = db.execute("SELECT path, name, kind FROM gone_things WHERE id = ? ORDER BY path", (one,)).fetchall()
            new = db.execute("SELECT path, name, files FROM new_things WHERE id = ? ORDER BY path", (one,)).fetchall()
            files = {row[0]: row[2] for row in new}
            by_name: dict[bytes, list[bytes]] = {}
            for path, name, _ in reversed(new):
                by_name.setdefault(name, []).append(path)
            rest = []
            for path, name, kind in gone:
                if by_name.get(name):
                    match = by_name[name].pop()
                    found.append((path, match, kind, files[match]))
                else:
                    rest.append((path, kind))
            left = sorted(path for paths in by_name.values() for path in paths)
            found += [(old, path, kind, files[path]) for (old, kind), path in zip(rest, left, strict=False)]
        return found


def _columns(leaf: Leaf) -> tuple[bytes | int, ...]:
    return leaf.first, leaf.signatures, leaf.node, leaf.place, leaf.uses, leaf.size, leaf.top


class _Transaction:
    """``BEGIN IMMEDIATE`` … ``COMMIT``: a reader that turns writer half-way may be refused otherwise."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is bad; a full disk is no reason to forget everything."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _unusable(path: str, error: sqlite3.DatabaseError) -> StorageError:
    if "locked" in str(error):
        return _busy(path)
    return StorageError(f"cannot use the host's cache {path}: {error}; make room, or give another place (cache_dir)")


def _busy(path: str) -> StorageError:
    msg = f"the host's cache {path} is in use by another process for more than {_BUSY_SECONDS} seconds; try again later"
    return StorageError(msg)


def file_system(folder: str) -> str:
    """Type of the file system of a folder, as Linux names it; empty if it cannot be told."""
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields = line.split()
                point = fields[1].encode().decode("unicode_escape", "surrogateescape")
                inside = os.path.realpath(folder) + "/"
                if len(point) >= len(best) and inside.startswith(point.rstrip("/") + "/"):
                    best, kind = point, fields[2]
    except (OSError, IndexError, UnicodeError):
        return ""
    return kind
