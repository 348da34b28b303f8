"""What a run has under way, so that the next one can go on after a crash (vault.md, section 7.3).

One SQLite file for each run, beside the host's cache, mode 0600.  Whoever has it open holds it
locked; a file that nobody holds is that of a run that was killed.  For each archive under way it
has, as of the last mark that the storage has reached: the upload, the blocks, what is in them, and
the bytes that no part holds yet.  Each save is one transaction that reaches the disk.  What else is
noted need not outlast a power cut: it is about tidying up.

It holds the secrets of archives that are not complete: whoever steals it can read these archives,
and nothing else.  They are overwritten when the archive is complete, and the file is removed.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Self

import cbor2

from rozenfmt.errors import StorageError
from rozenfmt.storage.base import Leftover, Mark, UploadState

__all__ = ["Journal", "Remains", "Row", "Saved", "Under"]

_SUFFIX: Final = ".journal"
_VERSION: Final = 2
_PIECE: Final = struct.Struct("<32sIQ")  # key, piece, size
_NEW_SECONDS: Final = 60
_SCHEMA: Final = """
CREATE TABLE run (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE archives (id BLOB PRIMARY KEY, kind INTEGER, own INTEGER, name TEXT, bound BLOB, secret BLOB,
    header BLOB, blocks INTEGER, offset INTEGER, upload BLOB, length INTEGER) WITHOUT ROWID;
CREATE TABLE blocks (archive BLOB, sequence INTEGER, type BLOB, hash BLOB, length INTEGER,
    PRIMARY KEY (archive, sequence)) WITHOUT ROWID;
CREATE TABLE pieces (archive BLOB, block INTEGER, rows BLOB, PRIMARY KEY (archive, block)) WITHOUT ROWID;
CREATE TABLE begun (archive BLOB PRIMARY KEY, name TEXT, upload TEXT) WITHOUT ROWID;
CREATE TABLE numbers (archive BLOB, number INTEGER, other BLOB, PRIMARY KEY (archive, number)) WITHOUT ROWID;
"""

Row = tuple[bytes, int, int, int]
"""Key (a content id, or what the catalog knows a node by), block, piece, and size of a piece (0 for nodes)."""


@dataclass(frozen=True, slots=True)
class Under:
    """An archive that is under way.

    Attributes:
        archive_id: 16 bytes.
        kind: Data or metadata.
        own: Whether it holds one big content alone.
        name: Of its object.
        bound: What must be the same when it is gone on with: the epoch, and what else its first blocks hold.
        secret: Its archive secret.
        header: Its header section.
    """

    archive_id: bytes
    kind: int
    own: bool
    name: str
    bound: bytes
    secret: bytes
    header: bytes


@dataclass(frozen=True, slots=True)
class Saved:
    """How far an archive came.

    Attributes:
        under: What it is.
        upload: How to go on with its upload.
        blocks: Type, whole hash and length of each block before the mark.
        length: Its total length in bytes, if the run came to its end; else 0.
    """

    under: Under
    upload: UploadState
    blocks: list[tuple[bytes, bytes, int]]
    length: int


@dataclass(frozen=True, slots=True)
class Remains:
    """A run that did not come to its end.

    Attributes:
        path: Its journal.
        request: The arguments of ``Vault.backup``, as far as they can be written down.
        begun_ns: When it began.
        archives: Names of objects whose upload can be gone on with, and bytes of them that are stored.
        names: Names of all objects of which something is in the storage.
    """

    path: str
    request: dict[str, Any]
    begun_ns: int
    archives: tuple[tuple[str, int], ...]
    names: frozenset[str]


def _unless_broken(change: Callable[..., None]) -> Callable[..., None]:
    """A full disk is no reason to give up a backup: from then on it cannot be gone on with, that is all."""

    @wraps(change)
    def guarded(self: Journal, *args: Any, **kwargs: Any) -> None:
        if self.broken is None:
            try:
                change(self, *args, **kwargs)
            except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
                raise  # no disk does that
            except (sqlite3.Error, OSError) as error:
                self.broken = str(error)

    return guarded


class _InUseError(Exception):
    """The run that the journal belongs to is alive."""


class Journal:
    """The journal of one run; not to be shared between threads.

    Args:
        path: The file.
        request: What the run is about, for one that begins; None to take over what is there.

    Attributes:
        path: As given.
        request: What the run is about.
        broken: Why nothing can be saved any more; the run goes on without.
    """

    def __init__(self, path: str, request: dict[str, Any] | None = None) -> None:
        self.path = path
        self.broken: str | None = None
        if request is not None:
            try:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
            except OSError as error:
                msg = f"cannot write the journal {path}: {error.strerror}; give another place (cache_dir)"
                raise StorageError(msg) from error
        # Not opened by ourselves once it exists: closing any descriptor of it would let go of SQLite's locks.
        # Whoever looks for abandoned runs may hold a new file for a moment.
        wait = 0 if request is None else 10
        self._db = sqlite3.connect(f"{Path(path).as_uri()}?mode=rw", uri=True, timeout=wait, isolation_level=None)
        try:
            self._prepare(request)
        except sqlite3.Error as error:
            self._db.close()
            if request is None:
                raise
            _remove(path)
            msg = f"cannot write the journal {path}: {error}; make room, or give another place (cache_dir)"
            raise StorageError(msg) from error
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, request: dict[str, Any] | None) -> None:
        db = self._db
        try:
            # The lock that the first transaction takes is kept until the file is closed, or its owner dies.
            for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = TRUNCATE", "synchronous = OFF"):
                db.execute(f"PRAGMA {pragma}")
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise _InUseError from error
        try:
            if request is not None:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute("INSERT INTO run VALUES (?, ?)", (f"request {_VERSION}", cbor2.dumps(request)))
                db.execute("INSERT INTO run VALUES ('begun', ?)", (time.time_ns(),))
            else:
                _require_sound(db)
            self.request: dict[str, Any] = cbor2.loads(self._value(f"request {_VERSION}"))
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    @classmethod
    def begin(cls, folder: str, host_id: bytes, request: dict[str, Any]) -> Journal:
        """A journal for a run that begins."""
        return cls(os.path.join(folder, f"{host_id.hex()}.{secrets.token_hex(8)}{_SUFFIX}"), request)

    @classmethod
    def adopt(cls, folder: str, host_id: bytes, request: dict[str, Any]) -> Journal:
        """The journal of a dead run for the same set, or a new one."""
        for journal in cls.abandoned(folder, host_id):
            if journal.set_name == request["name"]:
                journal.ask(request)
                return journal
            journal.close()
        return cls.begin(folder, host_id, request)

    @classmethod
    def abandoned(cls, folder: str, host_id: bytes) -> Iterator[Journal]:
        """Journals of runs of a host that are dead; each is open and locked, and is the caller's to close.

        A file that is no journal any more (the disk was full when it began, it is of another version, or
        damaged) is removed: nothing in it is needed to restore, and what its run has uploaded is found by
        ``Storage.leftovers``.
        """
        for name in _names(folder, host_id):
            path = os.path.join(folder, name)
            try:
                journal = cls(path)
            except (_InUseError, StorageError):
                continue
            except (sqlite3.DatabaseError, ValueError, KeyError):
                if _age(path) > _NEW_SECONDS:  # else it may be one that is being made
                    _remove(path)
                continue
            yield journal

    # --- about ----------------------------------------------------------------------------------

    @property
    def set_name(self) -> str:
        """Name of the set that the run makes a snapshot of."""
        return str(self.request["name"])

    @property
    def empty(self) -> bool:
        """Whether nothing of the run is left in the storage."""
        try:
            found = self._db.execute("SELECT 1 FROM archives UNION ALL SELECT 1 FROM begun LIMIT 1")
            return found.fetchone() is None
        except sqlite3.Error:  # that a run has failed matters more; the next one looks again
            return False

    def remains(self) -> Remains:
        """What there is to go on with."""
        rows = self._db.execute("SELECT name, offset FROM archives ORDER BY name").fetchall()
        names = self._db.execute("SELECT name FROM archives UNION SELECT name FROM begun").fetchall()
        return Remains(self.path, self.request, int(self._value("begun")), tuple(rows), frozenset(n for (n,) in names))

    def _value(self, key: str) -> Any:
        row = self._db.execute("SELECT value FROM run WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return row[0]

    @_unless_broken
    def ask(self, request: dict[str, Any]) -> None:
        """The run that goes on may be about something else than the one that died."""
        self.request = request
        self._db.execute("UPDATE run SET value = ? WHERE key = ?", (cbor2.dumps(request), f"request {_VERSION}"))

    @staticmethod
    def any_in_use(folder: str, host_id: bytes) -> bool:
        """Whether a run of a host is under way on this machine."""
        for name in _names(folder, host_id):
            try:
                Journal(os.path.join(folder, name)).close()
            except _InUseError:
                return True
            except (sqlite3.DatabaseError, StorageError, ValueError, KeyError):
                continue
        return False

    # --- saving ---------------------------------------------------------------------------------

    @_unless_broken
    def save(
        self,
        under: Under,
        upload: UploadState,
        *,
        count: int,
        blocks: Iterable[tuple[int, bytes, bytes, int]],
        pieces: Iterable[Row],
        numbers: Iterable[tuple[int, bytes]],
    ) -> None:
        """Save how far an archive came.

        Args:
            under: The archive.
            upload: Its upload, at a mark between two blocks.
            count: How many blocks are before the mark.
            blocks: Sequence, type, whole hash and length of those that were not saved before.
            pieces: What is in them.
            numbers: Rows of its ``XREF`` that were not saved before: number, archive id.
        """
        one = under.archive_id
        self._save_tail(one, upload.mark)
        with self._transaction(sync=True):
            self._add(one, pieces)
            self._db.executemany("INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", ((one, *block) for block in blocks))
            self._db.executemany("INSERT INTO numbers VALUES (?, ?, ?)", ((one, *row) for row in numbers))
            self._db.execute(
                "INSERT INTO archives VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO UPDATE "
                "SET blocks = excluded.blocks, offset = excluded.offset, upload = excluded.upload",
                (
                    *(one, int(under.kind), under.own, under.name, under.bound, under.secret, under.header),
                    *(count, upload.mark.offset, cbor2.dumps(upload.details)),
                ),
            )
        self._forget_tails(one, upload.mark.offset)

    # Not in the database, which would keep several copies in memory, and write them twice.

    def _tail(self, archive_id: bytes, offset: int) -> str:
        return f"{self.path}.{archive_id.hex()}.tail-{offset}"

    def _save_tail(self, archive_id: bytes, mark: Mark) -> None:
        fd = os.open(self._tail(archive_id, mark.offset), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(mark.tail)
            file.flush()
            os.fsync(file.fileno())

    def _load_tail(self, archive_id: bytes, offset: int) -> bytes | None:
        try:
            with open(self._tail(archive_id, offset), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _forget_tails(self, archive_id: bytes, keep: int = -1) -> None:
        folder, name = os.path.split(self._tail(archive_id, 0))
        name = name.removesuffix("0")
        for one in os.listdir(folder):
            if one.startswith(name) and one != f"{name}{keep}":
                os.unlink(os.path.join(folder, one))

    @_unless_broken
    def begun(self, archive_id: bytes, leftover: Leftover) -> None:
        """Something of an archive is in the storage, and would stay there."""
        with self._transaction():
            self._db.execute("INSERT INTO begun VALUES (?, ?, ?)", (archive_id, leftover.name, leftover.upload))

    @_unless_broken
    def ending(self, archive_id: bytes, length: int, pieces: Iterable[Row]) -> None:
        """The object is about to become visible: it may be, when the next run looks.

        Args:
            archive_id: Of an archive that was saved before; nothing happens for others.
            length: Its total length in bytes.
            pieces: What is in it and was not saved before.
        """
        with self._transaction():
            known = self._db.execute("UPDATE archives SET length = ? WHERE id = ?", (length, archive_id)).rowcount
            if known:
                self._add(archive_id, pieces)

    def _add(self, archive_id: bytes, pieces: Iterable[Row]) -> None:
        pack = _PIECE.pack
        for block, rows in groupby(pieces, key=itemgetter(1)):
            packed = b"".join([pack(key, piece, size) for key, _, piece, size in rows])
            self._db.execute("INSERT INTO pieces VALUES (?, ?, ?)", (archive_id, block, packed))

    @_unless_broken
    def drop(self, archive_id: bytes) -> None:
        """An archive is complete, or was given up."""
        with self._transaction():
            self._db.execute("UPDATE archives SET secret = zeroblob(32) WHERE id = ?", (archive_id,))
        with self._transaction():
            self._db.execute("DELETE FROM archives WHERE id = ?", (archive_id,))
            for table in ("blocks", "pieces", "numbers", "begun"):
                self._db.execute(f"DELETE FROM {table} WHERE archive = ?", (archive_id,))  # noqa: S608
        self._forget_tails(archive_id)

    # --- going on -------------------------------------------------------------------------------

    def saved(self) -> list[Saved]:
        """Every archive that was under way."""
        columns = "id, kind, own, name, bound, secret, header, blocks, offset, upload, length"
        found = []
        for row in self._db.execute(f"SELECT {columns} FROM archives ORDER BY name").fetchall():  # noqa: S608
            one, kind, own, name, bound, secret, header, count, offset, upload, length = row
            tail = self._load_tail(one, offset)
            if tail is None:  # somebody has tidied up
                continue
            state = UploadState(name, Mark(offset, tail), cbor2.loads(upload))
            blocks = self._db.execute(
                "SELECT type, hash, length FROM blocks WHERE archive = ? AND sequence < ? ORDER BY sequence",
                (one, count),
            ).fetchall()
            found.append(Saved(Under(one, kind, bool(own), name, bound, secret, header), state, blocks, length))
        return found

    def unsaved(self) -> list[tuple[bytes, Leftover]]:
        """Archives of which something is in the storage, and too little is known to go on with them."""
        rows = self._db.execute(
            "SELECT archive, name, upload FROM begun WHERE archive NOT IN (SELECT id FROM archives)"
        )
        return [(one, Leftover(name, upload)) for one, name, upload in rows.fetchall()]

    def pieces(self, archive_id: bytes) -> Iterator[Row]:
        """What is in an archive, by block and piece."""
        at = -1
        query = "SELECT block, rows FROM pieces WHERE archive = ? AND block > ? ORDER BY block LIMIT 16"
        while found := self._db.execute(query, (archive_id, at)).fetchall():
            for block, rows in found:
                yield from ((key, block, piece, size) for key, piece, size in _PIECE.iter_unpack(rows))
            at = found[-1][0]

    def numbers(self, archive_id: bytes) -> list[bytes]:
        """Ids of the archives in the rows of its ``XREF`` from 1 on."""
        rows = self._db.execute("SELECT other FROM numbers WHERE archive = ? ORDER BY number", (archive_id,))
        return [row[0] for row in rows.fetchall()]

    @_unless_broken
    def go_on(self, archive_id: bytes, count: int) -> None:
        """An archive goes on after so many blocks: what was noted of later ones is void."""
        with self._transaction():
            self._db.execute("UPDATE archives SET length = 0 WHERE id = ?", (archive_id,))
            self._db.execute("DELETE FROM pieces WHERE archive = ? AND block >= ?", (archive_id, count))
            self._db.execute("DELETE FROM blocks WHERE archive = ? AND sequence >= ?", (archive_id, count))

    # --- end ------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, *, sync: bool = False) -> Iterator[None]:
        """All or nothing; ``sync`` if it is to outlast a power cut, with all that was written before."""
        if sync:
            self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        else:
            self._db.execute("COMMIT")
        finally:
            if sync:
                self._db.execute("PRAGMA synchronous = OFF")

    def remove(self) -> None:
        """The run came to its end: close and remove the file."""
        with suppress(sqlite3.Error), self._transaction():  # the file is removed in any case
            self._db.execute("UPDATE archives SET secret = zeroblob(32)")
        self._db.close()
        _remove(self.path)

    def close(self) -> None:
        """Close the file and let go of it; what it says stays for the next run."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _require_sound(db: sqlite3.Connection) -> None:
    if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        msg = "the journal is damaged"
        raise sqlite3.DatabaseError(msg)


def _names(folder: str, host_id: bytes) -> list[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name.startswith(host_id.hex() + ".") and name.endswith(_SUFFIX))


def _age(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0


def _remove(path: str) -> None:
    """Remove a journal and what is spooled beside it."""
    folder, name = os.path.split(path)
    with suppress(FileNotFoundError):  # somebody has tidied up
        for one in os.listdir(folder):
            if one.startswith((name + "-", name + ".")):
                os.unlink(os.path.join(folder, one))
        os.unlink(path)
