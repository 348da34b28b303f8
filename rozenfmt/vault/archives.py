"""The archives of a vault: found by listing, opened by id, and believed only as far as they prove themselves.

An object's name says host, archive and sequence number; the archive that stands there must say
the same, be encrypted to the vault's epochs, and be signed by that host (vault.md, section 6).
References name archives by id alone, so whether one is in ``data/`` or in ``arena/`` is looked up here.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rozenfmt.archive.source import ArchiveSource, Caches, ObjectReader, Traffic
from rozenfmt.archive.workers import in_threads
from rozenfmt.errors import ArchiveError, BlockError, MissingArchive, RozenError, StorageError, TruncatedError
from rozenfmt.format.registry import Kind, Suite

from . import layout
from .layout import ARENA, DATA, META, MetaName
from .snapshot import Snapshot
from .tombstones import parse_tombstone

if TYPE_CHECKING:
    from rozenfmt.format.header import Header
    from rozenfmt.storage.base import ObjectInfo, Storage

    from .keyring import Keyring

__all__ = ["Archives", "ObjectProblem", "SnapshotList"]

HOST_ID_KEY: Final = 1
_META_SUFFIX: Final = 1024 * 1024
_DATA_SUFFIX: Final = 256 * 1024
_OPEN: Final = 64
_PARALLEL: Final = 16
_LOCKS: Final = 32
_RELIST_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 60.0
_TOMBSTONE: Final = 4_096

_Key = tuple[bytes, bytes]
"""Host id and archive id."""


@dataclass(frozen=True, slots=True)
class ObjectProblem:
    """Something wrong with an object of a vault that does not keep the others from being read.

    Attributes:
        object: Its name.
        what: ``name`` (a name that the specification does not have), the failure class of an archive
            (``signature``, ``block``, ``truncated`` and so on), ``storage``, ``parent`` or ``heads``
            (a snapshot's parent, or others that its writer saw, are not there).
        detail: The reason in words, for a person.
    """

    object: str
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.object}: {self.detail}"


@dataclass(frozen=True, slots=True)
class SnapshotList:
    """All snapshots that can be read, and what was passed over; iterating gives the snapshots.

    Attributes:
        snapshots: By host and set, each set's oldest first.
        problems: Objects that are passed over, and gaps.
    """

    snapshots: list[Snapshot]
    problems: list[ObjectProblem]

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self.snapshots)

    def __len__(self) -> int:
        return len(self.snapshots)


@dataclass(frozen=True, slots=True)
class _Listing:
    meta: dict[_Key, tuple[tuple[MetaName, ObjectInfo], ...]]
    data: dict[_Key, tuple[ObjectInfo, ...]]
    problems: tuple[ObjectProblem, ...]


class Archives:
    """The archives of one vault, for reading; safe to use from several threads.

    Args:
        storage: The vault's folder.
        keyring: The vault's editions, opened by who reads.

    Attributes:
        storage: As given.
        keyring: As given.
        traffic: Requests for archives so far, and bytes that they brought; listings are not counted.
    """

    def __init__(self, storage: Storage, keyring: Keyring) -> None:
        self.storage = storage
        self.keyring = keyring
        self.traffic = Traffic()
        self._caches = Caches()
        self._lock = threading.Lock()
        # One for each of a few groups of archives: none is opened twice, most are opened side by side.
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._open: OrderedDict[_Key, ArchiveSource] = OrderedDict()
        self._failed: dict[_Key, tuple[RozenError, float]] = {}
        self._listing: _Listing | None = None
        self._listed = 0.0
        self._snapshots: dict[str, Snapshot] = {}

    # --- listing --------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Forget the listing, and which archives could not be opened."""
        with self._lock:
            self._listing = None
            self._failed.clear()

    @property
    def problems(self) -> tuple[ObjectProblem, ...]:
        """Objects whose names the specification does not have."""
        return self._listed_objects().problems

    def _listed_objects(self, *, newer_than: float = -1.0) -> _Listing:
        with self._lock:
            if self._listing is None or self._listed < newer_than:
                self._listed = time.monotonic()
                self._listing = self._list()
            return self._listing

    def _list(self) -> _Listing:
        meta: dict[_Key, tuple[tuple[MetaName, ObjectInfo], ...]] = {}
        data: dict[_Key, tuple[ObjectInfo, ...]] = {}
        problems: list[ObjectProblem] = []
        for info in self.storage.list(META):
            name = layout.parse_meta_name(info.name)
            if name is None:
                problems.append(_strange(info.name))
            else:  # of several names of one archive at most one is right; none may hide it
                key = (name.host_id, name.archive_id)
                meta[key] = (*meta.get(key, ()), (name, info))
        for prefix in (DATA, ARENA):  # of two copies the one in data/ is tried first
            for info in self.storage.list(prefix):
                found = layout.parse_data_name(info.name)
                if found is None:
                    problems.append(_strange(info.name))
                else:
                    key = (found.host_id, found.archive_id)
                    data[key] = (*data.get(key, ()), info)
        return _Listing(meta, data, tuple(problems))

    def names(self, host_id: bytes, archive_id: bytes, kind: Kind) -> list[str]:
        """The objects that are said to hold an archive: none, one, or one in ``data/`` and a copy in ``arena/``."""
        return [info.name for info in self._infos((host_id, archive_id), kind)]

    def _infos(self, key: _Key, kind: Kind) -> tuple[ObjectInfo, ...]:
        listing = self._listed_objects()
        if kind is Kind.METADATA:
            return tuple(info for _, info in listing.meta.get(key, ()))
        return listing.data.get(key, ())

    def name_of(self, host_id: bytes, archive_id: bytes, kind: Kind) -> str:
        """What to call an archive in messages, be it there or not."""
        names = self.names(host_id, archive_id, kind)
        if names:
            return names[0]
        if kind is Kind.METADATA:
            return f"{META}{host_id.hex()}/…-{archive_id.hex()}.rzn"
        return layout.data_name(host_id, archive_id, arena=False)

    # --- opening --------------------------------------------------------------------------------

    def source(self, host_id: bytes, archive_id: bytes, kind: Kind, length: int | None = None) -> ArchiveSource:
        """An archive of a host, opened and verified; one that is open already, if it is.

        Args:
            host_id: Whose archive.
            archive_id: Which one.
            kind: What it must be.
            length: Its total length in bytes, where whoever refers to it says so.

        Raises:
            MissingArchive: It is not there.
            SignatureError: It is not signed by the host, or there is no such host.
            BlockError: It is another archive than its name, or what refers to it, says.
            TruncatedError: It is shorter than it should be.
            ArchiveError: It is damaged.
            StorageError: The storage fails.

        Specification: vault.md, section 6, items 2 and 4.
        """
        key = (host_id, archive_id)
        source = self._opened(key)
        if source is None:
            with self._locks[archive_id[0] % _LOCKS]:
                source = self._opened(key) or self._open_new(key, kind, length)
        if source.header.kind is not kind:
            msg = f"this is a {_words(source.header.kind)} archive; what refers to it says {_words(kind)}"
            raise BlockError(msg, object=source.reader.name, clause="vault 6")
        _check_length(source.reader.size, length, source.reader.name)
        return source

    def _opened(self, key: _Key) -> ArchiveSource | None:
        with self._lock:
            failed = self._failed.get(key)
            if failed is not None and time.monotonic() < failed[1]:
                # What failed would fail again, for each of the many files that are stored there.
                raise failed[0].with_traceback(None)
            found = self._open.get(key)
            if found is not None:
                self._open.move_to_end(key)
            return found

    def _open_new(self, key: _Key, kind: Kind, length: int | None) -> ArchiveSource:
        try:
            source = self._try_all(key, kind, length)
        except (ArchiveError, StorageError) as error:
            until = time.monotonic() + _RETRY_SECONDS if isinstance(error, StorageError) else float("inf")
            with self._lock:
                self._failed[key] = (error, until)
            raise
        with self._lock:
            self._open[key] = source
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        return source

    def _try_all(self, key: _Key, kind: Kind, length: int | None) -> ArchiveSource:
        """Try each object of the archive; where none is there any more, look again once."""
        started = time.monotonic()
        infos = self._infos(key, kind)
        if not infos:  # it may have come since the listing
            self._listed_objects(newer_than=started - _RELIST_SECONDS)
            infos = self._infos(key, kind)
        errors: list[ArchiveError | StorageError] = []
        for info in infos:
            try:
                return self.open(info.name, *key, kind, length)
            except (ArchiveError, StorageError) as error:
                errors.append(error)
        if errors and all(isinstance(error, StorageError) for error in errors):
            self._listed_objects(newer_than=started)  # it may have gone, or have gone elsewhere
            for info in self._infos(key, kind):
                if info not in infos:
                    return self.open(info.name, *key, kind, length)
            if not self._infos(key, kind):
                errors = []
        if not errors:
            raise self._missing(key, kind)
        raise errors[0]

    def open(
        self, name: str, host_id: bytes, archive_id: bytes, kind: Kind, length: int | None = None
    ) -> ArchiveSource:
        """Open the archive that stands at a name, without keeping it; errors as ``source``."""
        host = self.keyring.view.host(host_id)
        suffix = _META_SUFFIX if kind is Kind.METADATA else _DATA_SUFFIX
        reader = ObjectReader(self.storage, name, name, suffix=suffix, traffic=self.traffic)
        _check_length(reader.size, length, name)

        def check(header: Header) -> None:
            _check_header(header, archive_id, kind)

        source = ArchiveSource.open(
            reader, self.keyring.unwrappers, verify_key=host.verify_key, check=check, caches=self._caches
        )
        assert source.keys is not None
        source.keys = replace(source.keys, id_key=self.keyring.id_key(host_id))
        return source

    def _missing(self, key: _Key, kind: Kind) -> MissingArchive:
        name = self.name_of(*key, kind)
        what = "contents" if kind is Kind.DATA else "directories, part tables or attributes"
        msg = f"an archive is not in the vault: {what} that it holds cannot be read; all else can. {self._why(key)}"
        return MissingArchive(msg, object=name, clause="vault 6")

    def _why(self, key: _Key) -> str:
        """What ``gone/`` says about an archive that is not there."""
        name = layout.gone_name(*key)
        view = self.keyring.view
        try:
            size, raw = self.storage.read_suffix(name, _TOMBSTONE)
        except StorageError:
            return "No tombstone says that it was deleted on purpose: look for a copy"
        try:
            tombstone = parse_tombstone(raw[:size], view.owner, vault_id=view.vault_id, name=name)
        except ArchiveError as error:
            return f"{name} says that it was deleted, but is not to be believed: {error.message}. Look for a copy"
        day = datetime.fromtimestamp(min(tombstone.made_ns // 10**9, 2**37), UTC).date()
        why = f": {tombstone.why}" if tombstone.why else ""
        return f"The owner deleted it on {day}{why}"

    # --- snapshots ------------------------------------------------------------------------------

    def snapshots(self) -> SnapshotList:
        """All snapshots of the vault, each opened by one read; what cannot be opened hides no other.

        Raises:
            StorageError: The vault cannot be listed.

        Specification: vault.md, section 6, items 2 and 6.
        """
        listing = self._listed_objects(newer_than=time.monotonic())
        rows = [row for same in listing.meta.values() for row in same]
        with self._lock:
            self._failed.clear()
        results = in_threads(self.storage, self._snapshot, rows, workers=_PARALLEL, name="snapshots")
        problems = list(listing.problems)
        found: list[Snapshot] = []
        for (_, info), result in zip(rows, results, strict=True):
            if isinstance(result, Snapshot):
                found.append(result)
            else:
                what = result.failure_class if isinstance(result, ArchiveError) else "storage"
                problems.append(ObjectProblem(info.name, what, _message(result)))
        found.sort(key=lambda one: (one.host, one.host_id, one.name, one.sequence, one.archive_id))
        self._snapshots = {one.object: one for one in found}
        problems += self._gaps(found, listing)
        return SnapshotList(found, problems)

    def _snapshot(self, row: tuple[MetaName, ObjectInfo]) -> Snapshot | ArchiveError | StorageError:
        name, info = row
        known = self._snapshots.get(info.name)  # nobody overwrites an object
        if known is not None and known.stored_bytes == info.size:
            return known
        try:
            source = self.open(info.name, name.host_id, name.archive_id, Kind.METADATA)
            snapshot = Snapshot.of(self, source, name)
        except (ArchiveError, StorageError) as error:
            return error
        with self._lock:
            if len(self._open) < _OPEN // 2:
                self._open.setdefault((name.host_id, name.archive_id), source)
        return snapshot

    def _gaps(self, snapshots: list[Snapshot], listing: _Listing) -> Iterator[ObjectProblem]:
        """Parents that are not there, and heads that went without a tombstone (vault.md, section 6, item 6)."""
        gone = {found for info in self._tombstones() if (found := layout.parse_gone_name(info.name)) is not None}
        for one in snapshots:
            there = [(one.host_id, head) for head in one.heads]
            if one.parent is not None and (one.host_id, one.parent) not in listing.meta:
                detail = f"its parent {one.parent.hex()} is not there: it was deleted, or is withheld"
                yield ObjectProblem(one.object, "parent", detail)
            hidden = [key[1].hex() for key in there if key not in listing.meta and key not in gone]
            if hidden:
                detail = f"its writer saw snapshots that are not there, and no tombstone says why: {', '.join(hidden)}"
                yield ObjectProblem(one.object, "heads", detail)

    def _tombstones(self) -> list[ObjectInfo]:
        try:
            return list(self.storage.list(layout.GONE))
        except StorageError:
            return []


def _strange(name: str) -> ObjectProblem:
    return ObjectProblem(name, "name", "no object of a vault has such a name; it is ignored")


def _message(error: ArchiveError | StorageError) -> str:
    """What is wrong, without the object that the problem names anyway."""
    return error.message if isinstance(error, ArchiveError) else str(error)


def _words(kind: Kind) -> str:
    return kind.name.lower().replace("_", "-")


def _check_length(size: int, length: int | None, name: str) -> None:
    if length is None or size == length:
        return
    if size < length:
        msg = f"the archive has {size} of its {length} bytes: it was cut off; what it holds cannot be read"
        raise TruncatedError(msg, object=name, clause="vault 6")
    msg = f"the archive has {size} bytes, what refers to it says {length}: it is another one"
    raise BlockError(msg, object=name, clause="vault 6")


def _check_header(header: Header, archive_id: bytes, kind: Kind) -> None:
    """Hold a header against what must stand there; nothing in it is believed yet."""
    if header.archive_id != archive_id:
        msg = f"archive {header.archive_id.hex()} stands in the place of another one: objects were exchanged"
    elif header.kind is not kind:
        msg = f"a {_words(header.kind)} archive stands where a {_words(kind)} archive should"
    elif header.suite is Suite.PLAIN:
        msg = "an archive of the vault is not encrypted: somebody put it there"
    elif header.record.id_key != HOST_ID_KEY:
        msg = f"the archive's content ids are made with key {header.record.id_key}, not with the host's"
    else:
        return
    raise BlockError(msg, clause="vault 6")
