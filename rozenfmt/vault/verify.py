"""Verifying what a vault holds: is it there, is it whole, does it open, is it what its id says.

Nothing found ends the run: everything is collected, and at the end it is told which paths of which
snapshots are lost.  What other parts of the program have cached is not believed; everything is
listed and read anew.
"""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from blake3 import blake3

from rozenfmt.archive.check import Damage, check_object
from rozenfmt.archive.pipeline import default_workers
from rozenfmt.errors import ArchiveError, MissingArchive, NoMatchingKey, StorageError, UsageError
from rozenfmt.events import Progress, ProgressCallback
from rozenfmt.format.blocks import cut_pieces
from rozenfmt.format.registry import Kind, Right
from rozenfmt.storage.location import is_url

from . import layout
from .archives import Archives
from .findings import Findings, Key, Lost, VerifyReport
from .losses import find_lost
from .snapshot import Snapshot
from .verifytree import TreeVerifier
from .walking import foot_hash

if TYPE_CHECKING:
    from rozenfmt.archive.source import ArchiveSource
    from rozenfmt.format.blocks import Block
    from rozenfmt.storage.base import ObjectInfo

__all__ = ["LEVELS", "Lost", "VerifyReport", "verify"]

LEVELS: Final = ("present", "hashes", "opened", "contents")
_GAPS: Final = ("parent", "heads")  # of the problems of snapshots: told here in other words

T = TypeVar("T")


@dataclass(slots=True)
class _Needed:
    """An archive that should be there, and what is known of it."""

    kind: Kind
    length: int | None = None
    objects: list[ObjectInfo] = field(default_factory=list)


@dataclass(slots=True)
class _Listing:
    objects: dict[tuple[Key, Kind], list[ObjectInfo]]
    gone: set[Key]


def verify(
    archives: Archives,
    snapshots: Sequence[Snapshot],
    *,
    whole: bool,
    problems: Sequence[Any] = (),
    level: str,
    against: str | bytes | os.PathLike[str] | None = None,
    sample: float | None = None,
    exclude: Iterable[str] = (),
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> VerifyReport:
    """Verify snapshots, or a whole vault; each level includes those before.

    - ``present``: every archive that the snapshots depend on is there with its length, by listing alone.
    - ``hashes``: every stored byte of these is as it was written, by its hashes; host and signature are right.
    - ``opened``: with the keys at hand, everything opens and obeys the format.
    - ``contents``: every directory, content and part of a content has its id, and the totals are right. Contents
      whose parts lie scattered over many places are read a second time, each once, to compare the whole with its id.

    With a sample, that share of the archives is read; for ``contents``, that share of the contents, directories
    all, and of data archives no more than the blocks of these.

    Args:
        archives: The vault's; listed and opened anew.
        snapshots: Which ones; with ``whole`` those that are there now.
        whole: Look at every object of the vault, and at how snapshots follow each other.
        problems: What was found wrong with the vault's editions, in words.
        level: One of ``LEVELS``.
        against: A local directory to compare the one snapshot with.
        sample: Share to look at, above 0 and up to 1, chosen anew each time.
        exclude: Patterns in gitignore syntax, with ``against``.
        workers: Threads that verify and open blocks.
        progress: Called with events.

    Raises:
        UsageError: An argument is out of bounds, or ``against`` goes with several snapshots.
        NoMatchingKey: ``contents`` needs a key that reads.
        StorageError: The vault cannot be listed, or refuses.

    Specification: vault.md, section 6.
    """
    _check_arguments(archives, snapshots, whole=whole, level=level, against=against, sample=sample)
    started = time.monotonic()
    report = VerifyReport(level=level, sample=sample)
    job = _Verify(
        Archives(archives.storage, archives.keyring), Findings(report), level, sample, workers, progress, whole=whole
    )
    job.run(snapshots, problems)
    if against is not None and job.snapshots:
        from .against import compare_local

        compare_local(job.findings, job.snapshots[0], against, exclude=exclude, progress=progress)
    report.requests = job.archives.traffic.requests
    report.seconds = time.monotonic() - started
    return report


def _check_arguments(
    archives: Archives,
    snapshots: Sequence[Snapshot],
    *,
    whole: bool,
    level: str,
    against: object,
    sample: float | None,
) -> None:
    if level not in LEVELS:
        msg = f"unknown level {level!r}: use {', '.join(LEVELS)}"
        raise UsageError(msg)
    if sample is not None and not 0 < sample <= 1:
        msg = f"a sample is a share above 0 and up to 1, not {sample}"
        raise UsageError(msg)
    if against is not None and (whole or len(snapshots) != 1):
        msg = "a local directory is compared with one snapshot: say with which"
        raise UsageError(msg)
    if is_url(against):
        msg = "only a local directory can be compared with a snapshot: mount it, or back it up again with reread='all'"
        raise UsageError(msg)
    if level == "contents" and archives.keyring.right is not Right.READ:
        msg = "the key at hand may browse names and sizes, not read contents; other levels need no more"
        raise NoMatchingKey(msg, object=archives.storage.url, clause="vault 2")


class _Verify:
    """One run."""

    def __init__(
        self,
        archives: Archives,
        findings: Findings,
        level: str,
        sample: float | None,
        workers: int | None,
        progress: ProgressCallback | None,
        *,
        whole: bool,
    ) -> None:
        self.archives = archives
        self.findings = findings
        self.snapshots: list[Snapshot] = []
        self._report = findings.report
        self._depth = LEVELS.index(level)
        self._sample = sample
        self._workers = workers or default_workers()
        self._progress = progress
        self._whole = whole
        self._needed: dict[Key, _Needed] = {}
        self._foots: dict[Key, bytes] = {}

    def run(self, snapshots: Sequence[Snapshot], problems: Sequence[Any]) -> None:
        """All levels, one after the other."""
        self._listing = self._list()
        for problem in problems if self._whole else ():
            if isinstance(problem, str) and not problem.startswith(layout.META):
                self.findings.warn(problem)
        self.snapshots = self._all() if self._whole else self._again(snapshots)
        self._report.snapshots = len(self.snapshots)
        self._find_needed()
        self._present()
        self._order()
        with TreeVerifier(self.archives, self.findings, self._sample, self._workers, self._progress) as tree:
            if self._depth:
                self._read(tree)
                self._compare_parents()
            if self._depth == LEVELS.index("contents"):
                tree.finish()
        find_lost(self.findings, self.snapshots)

    # --- what there is --------------------------------------------------------------------------

    def _list(self) -> _Listing:
        found: dict[tuple[Key, Kind], list[ObjectInfo]] = defaultdict(list)
        storage = self.archives.storage
        for info in storage.list(layout.META):
            meta = layout.parse_meta_name(info.name)
            if meta is not None:
                found[(meta.host_id, meta.archive_id), Kind.METADATA].append(info)
        for prefix in (layout.DATA, layout.ARENA):
            for info in storage.list(prefix):
                data = layout.parse_data_name(info.name)
                if data is not None:
                    found[(data.host_id, data.archive_id), Kind.DATA].append(info)
        gone = {key for info in storage.list(layout.GONE) if (key := layout.parse_gone_name(info.name)) is not None}
        return _Listing(found, gone)

    def _all(self) -> list[Snapshot]:
        """The snapshots that are there now; those that cannot be opened are damage."""
        listed = self.archives.snapshots()
        for problem in listed.problems:
            name = layout.parse_meta_name(problem.object)
            if name is None:
                self.findings.warn(f"{problem.object}: {problem.detail}")
            elif problem.what not in _GAPS and self._open(name, problem.object) is not None:
                self.findings.note(Damage(0, None, problem.what, problem.detail, problem.object))
        return list(listed.snapshots)

    def _again(self, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
        """The same snapshots, opened anew."""
        names = [(layout.parse_meta_name(one.object), one.object) for one in snapshots]
        opened = [self._open(parsed, name) for parsed, name in names if parsed is not None]
        return [one for one in opened if one is not None]

    def _open(self, parsed: layout.MetaName, name: str) -> Snapshot | None:
        """A snapshot; if it cannot be opened it is lost, unless another object of the same archive can be."""
        key = (parsed.host_id, parsed.archive_id)
        try:
            return Snapshot.of(self.archives, self.archives.open(name, *key, Kind.METADATA), parsed)
        except (ArchiveError, StorageError) as error:
            found = error
        there = any(info.name == name for info in self._listing.objects.get((key, Kind.METADATA), ()))
        if there:
            self.findings.damage(name, found)
        else:
            self.findings.missing(name)
        try:
            self.archives.source(*key, Kind.METADATA)
        except (ArchiveError, StorageError) as error:
            self.findings.failed[key] = error
        detail = f"the snapshot cannot be opened: {found}"
        self.findings.lost(Lost(parsed.archive_id.hex(), b"", "damaged" if there else "missing", name, detail))
        return None

    def _find_needed(self) -> None:
        """Everything that the snapshots depend on, and in a whole vault everything that is there."""
        for one in self.snapshots:
            self._needed[one.host_id, one.archive_id] = _Needed(Kind.METADATA, one.stored_bytes)
        for one in self.snapshots:
            try:
                rows = one.references
            except (ArchiveError, StorageError) as error:
                self.findings.damage(one.object, error)
                self.findings.failed[one.host_id, one.archive_id] = error
                continue
            for row in rows:
                self._needed.setdefault((one.host_id, row.archive_id), _Needed(Kind(row.kind), row.length))
        if self._whole:
            self._find_others()
        for key, needed in self._needed.items():
            needed.objects = self._listing.objects.get((key, needed.kind), [])

    def _find_others(self) -> None:
        others = [(key, kind) for key, kind in self._listing.objects if key not in self._needed]
        garbage = [key for key, kind in others if kind is Kind.DATA]
        if garbage:
            size = sum(info.size for key in garbage for info in self._listing.objects[key, Kind.DATA])
            self.findings.warn(
                f"no snapshot that can be opened refers to {len(garbage)} data archives of {size} bytes together: "
                "a backup under way, or one that was given up"
            )
        for key, kind in others:
            self._needed[key] = _Needed(kind)

    # --- present --------------------------------------------------------------------------------

    def _present(self) -> None:
        """By the listing alone."""
        self._report.archives = len(self._needed)
        for key, needed in self._needed.items():
            if needed.length is None or key in self.findings.failed:
                continue
            if any(info.size == needed.length for info in needed.objects):
                continue
            name = self.archives.name_of(*key, needed.kind)
            error: ArchiveError | StorageError
            if not needed.objects:
                self.findings.missing(name)
                why = "a tombstone stands for it" if key in self._listing.gone else "no tombstone stands for it"
                error = MissingArchive(f"{name} is not in the vault; {why}", object=name, clause="vault 6")
            else:
                size = needed.objects[0].size
                what = "truncated" if size < needed.length else "block"
                msg = f"the archive has {size} bytes, and what refers to it says {needed.length}"
                self.findings.note(Damage(0, None, what, msg, name))
                error = ArchiveError(f"{name}: {msg}", object=name, clause="vault 6")
            self.findings.failed[key] = error

    def _order(self) -> None:
        """How snapshots follow each other: gaps, forks, numbers that go back (vault.md, section 6, item 6)."""
        children: dict[tuple[bytes, str, bytes], list[Snapshot]] = defaultdict(list)
        for one in self.snapshots:
            name = f"snapshot {one.id} of {one.name!r} on {one.host!r}"
            hidden = [
                head.hex()
                for head in one.heads
                if not self._is_there(one.host_id, head) and (one.host_id, head) not in self._listing.gone
            ]
            if hidden:
                self.findings.warn(
                    f"{name} saw snapshots that are not there, and no tombstone says why: {', '.join(hidden)}"
                )
            if one.parent is None:
                continue
            children[one.host_id, one.name, one.parent].append(one)
            if not self._is_there(one.host_id, one.parent):
                self.findings.warn(f"the parent {one.parent.hex()} of {name} is not there: deleted, or withheld")
            for info in self._listing.objects.get(((one.host_id, one.parent), Kind.METADATA), ()):
                parent = layout.parse_meta_name(info.name)
                if parent is not None and parent.sequence >= one.sequence:
                    self.findings.warn(f"{name} has number {one.sequence}, and its parent has {parent.sequence}")
        for (_, name, parent_id), found in children.items():
            if len(found) > 1:
                ids = ", ".join(one.id for one in found)
                self.findings.warn(f"a fork in {name!r}: the snapshots {ids} have the same parent {parent_id.hex()}")

    def _is_there(self, host_id: bytes, archive_id: bytes) -> bool:
        return bool(self._listing.objects.get(((host_id, archive_id), Kind.METADATA)))

    # --- hashes, opened -------------------------------------------------------------------------

    def _read(self, tree: TreeVerifier) -> None:
        """Read archives from the first byte to the last, one after the other."""
        rows = [(key, needed, info) for key, needed in self._needed.items() for info in needed.objects]
        if self._sample is not None:
            if self._depth == LEVELS.index("contents"):
                rows = [row for row in rows if row[1].kind is Kind.METADATA]
            rows = _some(rows, self._sample)
        if self._progress is not None and (self._sample is None or self._depth < LEVELS.index("contents")):
            # Storages may bill what is read; who sees this can still stop.
            total = sum(info.size for _, _, info in rows)
            self._progress(Progress("verify", 0, 0, 0, total, b""))
        # Metadata first: by then every directory that is looked at below is known to be whole, or not.
        self._read_objects([row for row in rows if row[1].kind is Kind.METADATA], tree)
        # The biggest first: of a content that was changed, nearly all is in one, and what is new in smaller ones.
        data = sorted((row for row in rows if row[1].kind is Kind.DATA), key=lambda row: -row[2].size)
        if self._depth == LEVELS.index("contents"):
            tree.number(key for key, _, _ in data)
            for snapshot in self.snapshots:
                tree.walk(snapshot)
            if self._sample is None:
                tree.expect()
        self._read_objects(data, tree)

    def _read_objects(self, rows: Iterable[tuple[Key, _Needed, ObjectInfo]], tree: TreeVerifier) -> None:
        for key, needed, info in rows:
            if not self._read_object(key, needed, info.name, tree):
                self._still(key, needed)

    def _read_object(self, key: Key, needed: _Needed, name: str, tree: TreeVerifier) -> bool:
        """Read one object; whether all is well."""
        archives, findings, report = self.archives, self.findings, self._report
        keyring = archives.keyring
        opened = self._depth >= LEVELS.index("opened")
        compare = self._depth >= LEVELS.index("contents")
        try:
            source = archives.open(name, *key, needed.kind, needed.length)
            if needed.kind is Kind.METADATA:
                self._foots[key] = foot_hash(source)
            done, error = check_object(
                archives.storage,
                name,
                identities=keyring.unwrappers if opened else (),
                id_key=keyring.id_key(key[0]) if compare else None,
                verify_key=keyring.view.host(key[0]).verify_key,
                workers=self._workers,
                progress=self._progress,
                seen=tree.holder(key) if compare else None,
            )
        except (ArchiveError, StorageError) as error:
            findings.damage(name, error)
            if isinstance(error, StorageError) and len(needed.objects) == 1:  # not all of it was seen
                findings.failed[key] = error
            return False
        report.read += 1
        report.blocks += done.blocks
        report.bytes += done.bytes
        if error is None:
            return True
        findings.damage(name, error)
        self._each_block(key, source, name, tree.holder(key) if compare else None)
        return False

    def _each_block(
        self, key: Key, source: ArchiveSource, name: str, hold: Callable[[Block, list[bytes]], None] | None
    ) -> None:
        """Which blocks of a damaged archive can be read all the same."""
        keyring = self.archives.keyring
        id_key = keyring.id_key(key[0])
        for sequence in range(source.root.body.first):
            try:
                block = source.load(sequence)
                if hold is not None and id_key is not None and block.type in (b"PACK", b"TREX"):
                    hold(block, [_id(id_key, piece) for piece in cut_pieces(block)])
            except (ArchiveError, StorageError) as error:
                self.findings.damage(name, error)
                self.findings.bad_block(key, sequence)

    def _still(self, key: Key, needed: _Needed) -> None:
        """Whether a damaged archive can be opened all the same, from this object or a copy."""
        if key in self.findings.failed:
            return
        try:
            source = self.archives.source(*key, needed.kind, needed.length)
        except (ArchiveError, StorageError) as error:
            self.findings.failed[key] = error
            return
        if len(needed.objects) > 1 and key in self.findings.blocks:  # blocks of a copy that is not read
            for sequence in list(self.findings.blocks[key]):
                try:
                    source.load(sequence)
                    self.findings.blocks[key].discard(sequence)
                except (ArchiveError, StorageError):
                    continue

    def _compare_parents(self) -> None:
        """A parent must be the archive that its child has seen (vault.md, section 5.3, key 6)."""
        for one in self.snapshots:
            foot = self._foots.get((one.host_id, one.parent)) if one.parent is not None else None
            if foot is not None and foot != one.parent_foot:
                msg = f"the snapshot {one.id} was made after another archive of this id: it was exchanged"
                assert one.parent is not None
                name = self.archives.name_of(one.host_id, one.parent, Kind.METADATA)
                self.findings.note(Damage(0, None, "signature", msg, name))


def _id(key: bytes, piece: memoryview) -> bytes:
    return blake3(blake3(piece).digest() + len(piece).to_bytes(8, "little"), key=key).digest()


def _some(rows: list[T], share: float) -> list[T]:
    """A share of some rows, at least one of them, chosen at random."""
    return random.sample(rows, min(len(rows), max(1, round(len(rows) * share)))) if rows else []
