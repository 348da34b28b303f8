"""One backup, from the sources to the commit (vault.md, section 7.1).

Everything that is referred to is stored and seen in a listing before the metadata archive becomes
visible.  If the second listing lacks something, what it held is stored again and the snapshot is
made anew; so a catalog that is out of date cannot make a snapshot that does not restore.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rozenfmt.errors import ConflictError, RozenError, SignatureError, SourceError, StorageError, UsageError
from rozenfmt.format import records
from rozenfmt.format.codecs import Compression
from rozenfmt.format.limits import MAX_DECODED, MAX_SNAP_ROWS
from rozenfmt.format.nodes import Kind as EntryKind
from rozenfmt.format.registry import Kind, Suite
from rozenfmt.format.snapshots import Answer, Mode, ParentState, SnapFlag, SnapshotBody, SourceKind
from rozenfmt.tree.capture import LinkGroups

from . import layout
from .baseline import Baseline
from .capture import READ_SIZE, Capture
from .catalog import Catalog, SetState
from .content import ContentStore
from .editions import HostState
from .journal import Journal
from .nodewriter import NodeWriter
from .output import ArchiveOutput, Sealing, is_passing
from .results import BackupResult, Command
from .resumption import Resumption

if TYPE_CHECKING:
    from rozenfmt.events import ProgressCallback
    from rozenfmt.storage.base import Storage
    from rozenfmt.tree.excludes import Excludes

    from .capture import Reread
    from .editions import EditionView
    from .hostkey import HostKey
    from .remotes import Remote
    from .results import AnySource, OnConflict, Sources

__all__ = ["DATA_SIZE", "Job", "Source", "parse_sources", "run"]

DATA_SIZE: Final = 1 << 30
"""Bytes after which a data archive is complete."""

_LEAN_ON: Final = 48  # other metadata archives that a snapshot's directories may stand in
_LONGEST_SECONDS: Final = 30 * 86_400
_ATTEMPTS: Final = 3
_HIGHEST: Final = 1 << 62
_ANSWERS: Final = {
    "withhold": Answer.WITHHOLD,
    "restore": Answer.RESTORE,
    "accept": Answer.ACCEPT,
    "keep-both": Answer.KEEP_BOTH,
    "skip": Answer.SKIP,
}
_PLAN_SECONDS: Final = 0.5
_PLAN_FILES: Final = 20_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """Something to back up under a name in the snapshot's root: a local path, a command, or a URL.

    ``path`` is what is told of it: for a URL, without secrets.
    """

    name: bytes
    path: bytes
    command: Command | None = None
    remote: Remote | None = None

    @property
    def kind(self) -> SourceKind:
        """What it is."""
        if self.remote is not None:
            return SourceKind.OTHER
        return SourceKind.LOCAL if self.command is None else SourceKind.COMMAND


@dataclass(frozen=True, slots=True)
class Job:
    """What to back up, and how; see ``Vault.backup``."""

    sources: Sequence[Source]
    set_name: str
    mode: Mode
    excludes: Callable[[Source], Excludes | None]
    tags: tuple[str, ...] = ()
    one_file_system: bool = False
    skip_caches: bool = False
    allow_empty: bool = False
    reread: Reread = "none"
    on_conflict: OnConflict | None = None
    compression: Compression = field(default_factory=Compression)
    suite: Suite = Suite.XCHACHA20_POLY1305
    data_size: int = DATA_SIZE
    workers: int = 0
    decode_check: bool = True
    request: dict[str, Any] = field(default_factory=dict)
    restore: Callable[[bytes, bytes, bytes], None] | None = None
    progress: ProgressCallback | None = None


class _Missing(Exception):  # noqa: N818 - a message from one step to another
    """Archives that the snapshot refers to are not there: local numbers."""

    def __init__(self, numbers: set[int]) -> None:
        super().__init__(numbers)
        self.numbers = numbers


@dataclass(slots=True)
class _Listing:
    """What the host's own prefixes hold.

    Attributes:
        present: Length by archive id, for data and metadata archives.
        heads: Ids of the metadata archives of the highest sequence number.
        sequence: That number; 0 if there are none.
        gone: Ids of archives with a tombstone.
    """

    present: dict[bytes, int]
    heads: list[bytes]
    sequence: int
    gone: set[bytes]

    @classmethod
    def read(cls, storage: Storage, host_id: bytes) -> _Listing:
        found = cls({}, [], 0, set())
        prefix = host_id.hex() + "/"
        for info in storage.list(layout.META + prefix):
            meta = layout.parse_meta_name(info.name)
            if meta is None:
                continue
            found.present[meta.archive_id] = info.size
            if meta.sequence > _HIGHEST:
                continue  # no backup has such a number: somebody wants to leave none for the next one
            if meta.sequence > found.sequence:
                found.sequence, found.heads = meta.sequence, []
            if meta.sequence == found.sequence:
                found.heads.append(meta.archive_id)
        for folder in (layout.DATA, layout.ARENA):
            for info in storage.list(folder + prefix):
                data = layout.parse_data_name(info.name)
                if data is not None:
                    found.present[data.archive_id] = info.size
        for info in storage.list(layout.GONE + prefix):
            gone = layout.parse_gone_name(info.name)
            if gone is not None:
                found.gone.add(gone[1])
        return found

    def has(self, archive_id: bytes, length: int) -> bool:
        """Whether an archive is there, whole, and not to be deleted."""
        return self.present.get(archive_id) == length and archive_id not in self.gone


def run(storage: Storage, view: EditionView, host: HostKey, catalog: Catalog, job: Job) -> BackupResult:
    """Make one snapshot.

    Raises:
        SourceError: A source cannot be read at all, has become empty, or a command failed.
        ConflictError: WORM: contents changed, and nobody said what to do. Everything else was stored: see
            its ``result``. With the answer ``fail``, nothing was.
        StorageError: The storage failed.
        SignatureError: The host is not, or no longer, one of the vault's.
    """
    row = view.host(host.host_id)
    if row.state is not HostState.ACTIVE or row.verify_key != host.signing.verify_key.ed25519:
        msg = f"the host {host.label!r} was retired, or has another key in this vault: ask its owner to enrol it"
        raise SignatureError(msg)
    journal = Journal.adopt(os.path.dirname(catalog.path), host.host_id, job.request | {"name": job.set_name})
    try:
        result = _run(storage, view, host, catalog, job, journal)
    except BaseException as error:
        # What would only happen again is no reason to begin again; without uploads there is nothing to keep either.
        if journal.empty and isinstance(error, RozenError) and not is_passing(error):
            journal.remove()
        raise
    else:
        journal.remove()
    finally:
        journal.close()
    open_conflicts = [c for c in result.conflicts if c.answer == "withhold"]
    if open_conflicts:
        first = os.fsdecode(open_conflicts[0].path)
        msg = (
            f"the content of {len(open_conflicts)} files of a write-once set has changed, {first!r} among them; the "
            "snapshot keeps what was stored before, everything else was backed up. Say what to do (on_conflict)"
        )
        conflict = ConflictError(msg)
        conflict.result = result
        raise conflict
    return result


def _run(
    storage: Storage, view: EditionView, host: HostKey, catalog: Catalog, job: Job, journal: Journal
) -> BackupResult:
    """Make the snapshot, with as many attempts as it takes."""
    started = time.monotonic()
    notes = []
    if catalog.set_aside is not None:
        notes.append(f"the host's cache was damaged and set aside as {catalog.set_aside}")
    for attempt in range(_ATTEMPTS):
        work = _Run(storage, view, host, catalog, job, journal, notes=notes)
        try:
            result = work.make()
        except _Missing as missing:
            work.discard()
            catalog.forget_archives(missing.numbers)
            catalog.forget_run()
            if attempt == _ATTEMPTS - 1:
                msg = "archives of this backup vanish from the storage while it is made: something else deletes them"
                raise StorageError(msg) from None
            notes.append(
                f"{len(missing.numbers)} archives that the snapshot needs were missing: what they held is stored again"
            )
            continue
        except sqlite3.Error as error:
            msg = f"the host's cache fails ({error}): nothing was committed; see whether its disk is full"
            failure = StorageError(msg)
            work.give_up(failure)
            raise failure from error
        except BaseException as error:
            work.give_up(error)
            raise
        break
    if journal.broken is not None:
        result.notes.append(f"the run could not have been resumed: its journal cannot be written ({journal.broken})")
    result.seconds = time.monotonic() - started
    return result


class _Run:
    """One attempt at a snapshot."""

    def __init__(
        self,
        storage: Storage,
        view: EditionView,
        host: HostKey,
        catalog: Catalog,
        job: Job,
        journal: Journal,
        *,
        notes: list[str],
    ) -> None:
        self._storage = storage
        self._view = view
        self._host = host
        self._catalog = catalog
        self._job = job
        self._journal = journal
        self._result = BackupResult(set_name=job.set_name, mode=job.mode.name.lower(), notes=notes)
        self._begun = time.time_ns()
        self._clock = time.monotonic()
        self._output: ArchiveOutput | None = None
        self._store: ContentStore | None = None
        self._resumption: Resumption | None = None
        self._usable: dict[int, bool] = {}
        self._links = LinkGroups(os.urandom)

    def make(self) -> BackupResult:
        """Read, store, check, commit."""
        catalog, job, host = self._catalog, self._job, self._host
        catalog.forget_run()
        known = catalog.archives()  # first: what another process completes meanwhile is not to look missing
        self._listing = _Listing.read(self._storage, host.host_id)
        self._forget_missing(known)
        state = catalog.set_state(job.set_name)
        sequence = max(self._listing.sequence, catalog.highest_sequence()) + 1
        baseline = Baseline(catalog, state.number, known=state.snapshot is not None, locate=self._locate)
        sealing = Sealing(host, self._view.current_epoch, job.suite, job.workers, job.decode_check)
        remains = Resumption(self._storage, catalog, self._journal, sealing, self._listing.has)
        self._resumption = remains
        remains.data()
        self._store = store = ContentStore(
            self._storage,
            catalog,
            sealing,
            compression=job.compression,
            target=job.data_size,
            big=not baseline.known and _is_big(job.sources, job.data_size),
            usable=self._is_usable,
            collision=self._collision,
            journal=self._journal,
            resumed=remains.outputs,
        )
        heads = b"".join(sorted(self._view.digests))
        found = remains.metadata(sequence, heads, usable=self._is_usable)
        self._result.notes += remains.drop_rest()
        if found is None:
            archive_id = os.urandom(16)
            name = layout.meta_name(host.host_id, sequence, archive_id)
            number = catalog.archive_number(archive_id, Kind.METADATA)
            numbered: Sequence[int] = ()
            self._output = output = ArchiveOutput.begin(
                self._storage, name, archive_id, Kind.METADATA, sealing, journal=self._journal, bound=heads
            )
        else:
            number, output, numbered = found
            self._output = output
            sequence = remains.sequence_of(output)
        writer = NodeWriter(
            output,
            number,
            catalog,
            store,
            set_number=state.number,
            usable=self._is_usable,
            reuse=state.leans <= _LEAN_ON,
            knows=baseline.known,
            numbered=numbered,
        )
        if found is None:
            writer.keyring(self._view.raw_heads)
        root, place = self._capture(writer, store, baseline)
        store.finish(needed=numbered)
        length_of = self._confirm(writer)
        body = self._body(state, sequence, root, (writer.reference(place[0]), *place[1:]))
        writer.close(length_of, body)
        output.finish()
        self._remember(state, sequence, root, number, writer)
        output.settled()
        return self._done(body)

    def discard(self) -> None:
        """Leave nothing half-written."""
        self.give_up(UsageError())

    def give_up(self, error: BaseException) -> None:
        """End without a snapshot; what the next run can go on with is left to it."""
        if self._resumption is not None:
            self._resumption.give_up(error, taken=self._store is not None)
        if self._store is not None:
            self._store.give_up(error)
        if self._output is not None:
            self._output.give_up(error)

    # --- what is there --------------------------------------------------------------------------

    def _forget_missing(self, known: dict[int, tuple[bytes, int, int]]) -> None:
        """What the catalog knows of archives that are not there any more is void."""
        missing = []
        for number, (archive_id, _, length) in known.items():
            there = self._usable[number] = self._listing.has(archive_id, length)
            if not there:
                missing.append(number)
        if missing:
            self._catalog.forget_archives(missing)
            self._result.notes.append(
                f"{len(missing)} archives that this host stored are not in the vault any more; "
                "what they held is stored again where it is still needed"
            )

    def _is_usable(self, number: int) -> bool:
        """Whether an archive may be referred to: one that was listed, or was made by this run or meanwhile."""
        found = self._usable.get(number)
        if found is None:
            assert self._store is not None
            if number in self._store.own:
                return True
            found = self._usable[number] = self._catalog.length_of(number) is not None
        return found

    def _locate(self, path: bytes) -> bytes | None:
        return self._captured.locate(path)

    def _collision(self, one: bytes) -> None:
        self._result.notes.append(f"two contents with the id {one.hex()}: the second one is stored apart")

    # --- reading --------------------------------------------------------------------------------

    def _capture(
        self, writer: NodeWriter, store: ContentStore, baseline: Baseline
    ) -> tuple[bytes, tuple[int, int, int]]:
        job = self._job
        restore = None
        if job.restore is not None and baseline.known:
            parent = self._catalog.set_state(job.set_name).snapshot
            assert parent is not None
            put_back = job.restore

            def restore(path: bytes, local: bytes) -> None:
                put_back(parent, path, local)

        self._captured = capture = Capture(
            writer,
            store,
            self._catalog,
            baseline,
            mode=job.mode,
            result=self._result,
            usable=self._is_usable,
            chunker_seed=self._host.chunker_seed,
            target=job.data_size,
            on_conflict=job.on_conflict,
            restore=restore,
            reread=job.reread,
            progress=job.progress,
        )
        with closing(capture):
            sources = sorted(job.sources, key=lambda source: source.name)
            capture.begin(
                {source.name: source.path for source in sources if source.kind is SourceKind.LOCAL},
                {source.name: source.path for source in sources if source.kind is SourceKind.OTHER},
            )
            for source in sources:
                if source.command is not None:
                    capture.command(source.command)
                else:
                    self._tree(capture, source)
            root, place = capture.finish()
        writer.flush()
        return root, writer.place_of(place)

    def _tree(self, capture: Capture, source: Source) -> None:
        from rozenfmt.tree.scan import Scanner

        job = self._job
        if source.remote is not None:
            self._remote(capture, source, source.remote)
            return
        scanner = Scanner(
            source.path,
            report=capture.report,
            excludes=job.excludes(source),
            one_file_system=job.one_file_system,
            skip_caches=job.skip_caches,
            name=source.name,
            small_limit=capture.small_limit(),
            chunk_size=READ_SIZE,
            known=capture if capture.knows else None,
            links=self._links,
        )
        try:
            capture.tree(scanner, allow_empty=job.allow_empty)
        except SourceError:
            if job.allow_empty and not os.path.lexists(source.path):
                self._result.notes.append(f"{os.fsdecode(source.path)!r} does not exist")
                return
            raise

    def _remote(self, capture: Capture, source: Source, remote: Remote) -> None:
        from rozenfmt.tree.remote import RemoteScanner

        job = self._job
        scanner = RemoteScanner(
            remote.url,
            remote.options,
            report=capture.report,
            name=source.name,
            excludes=job.excludes(source),
            skip_caches=job.skip_caches,
            small_limit=capture.small_limit(),
            known=capture,
            retry=getattr(getattr(self._storage, "retry", None), "policy", None),
            progress=job.progress,
        )
        try:
            capture.tree(scanner, allow_empty=job.allow_empty)
        except SourceError:
            if not (job.allow_empty and scanner.missing):
                raise
            self._result.notes.append(f"{remote.origin!r} does not exist")

    # --- the commit -----------------------------------------------------------------------------

    def _confirm(self, writer: NodeWriter) -> dict[int, tuple[bytes, int, int]]:
        """See in a second listing that everything referred to is there; returns id, kind and length."""
        if time.monotonic() - self._clock > _LONGEST_SECONDS:
            msg = "the backup took longer than 30 days, the longest that a vault allows: nothing was committed"
            raise StorageError(msg)
        needed = writer.references()
        listing = _Listing.read(self._storage, self._host.host_id)
        known = self._catalog.archives()
        missing = {n for n in needed if n not in known or not listing.has(known[n][0], known[n][2])}
        if missing:
            raise _Missing(missing)
        return {number: known[number] for number in needed}

    def _body(self, state: SetState, sequence: int, root: bytes, place: tuple[int, int, int]) -> SnapshotBody:
        result, job = self._result, self._job
        result.unchanged = state.root is not None and state.root[:32] == root and not result.conflicts
        parent = None
        known = ParentState.UNKNOWN if self._listing.heads and not self._was_here() else ParentState.FIRST
        if state.snapshot is not None and state.foot is not None:
            parent, known = (state.snapshot, state.foot), ParentState.KNOWN
        elif known is ParentState.UNKNOWN:
            result.notes.append(
                "the host's memory of earlier backups was lost: everything was read again, and what cannot be "
                "recognised was stored again"
            )
        flags = SnapFlag.UNCHANGED if result.unchanged else SnapFlag(0)
        if result.problem_count:
            flags |= SnapFlag.INCOMPLETE
        body = SnapshotBody(
            vault_id=self._host.vault_id,
            host_id=self._host.host_id,
            label=self._host.label,
            set_name=job.set_name,
            sequence=sequence,
            parent=parent,
            heads=b"".join(sorted(self._listing.heads)),
            mode=int(job.mode),
            times=(self._begun, time.time_ns()),
            root=(root, *place),
            totals=(result.entries, result.content_bytes),
            sources=tuple((s.name, s.path, int(s.kind)) for s in sorted(job.sources, key=lambda s: s.name)),
            tags=tuple(sorted(set(job.tags), key=str.encode)),
            counts=(
                *(result.new, result.changed, result.metadata, result.moved, result.deleted, result.same),
                *(result.problem_count, len(result.conflicts), result.directories),
            ),
            moves=tuple(
                (m.old, m.new, int(EntryKind.DIRECTORY if m.directory else EntryKind.FILE)) for m in result.moves
            )
            or None,
            deleted=tuple(result.deletions) or None,
            problems=tuple((p.path, p.what[:64], _shortened(p.detail)) for p in result.problems[:MAX_SNAP_ROWS])
            or None,
            conflicts=tuple((c.path, int(_ANSWERS[c.answer])) for c in result.conflicts[:MAX_SNAP_ROWS]) or None,
            parent_state=int(known),
            flags=int(flags),
        )
        return _fitting(body)

    def _was_here(self) -> bool:
        """Whether the host remembers any snapshot at all: then a set without one is a new set."""
        return self._catalog.highest_sequence() > 0

    def _remember(self, state: SetState, sequence: int, root: bytes, number: int, writer: NodeWriter) -> None:
        output, result = self._output, self._result
        assert output is not None
        kinds = [self._catalog.kind_of(archive) for archive in writer.references()]
        result.leans_on = kinds.count(Kind.METADATA), kinds.count(Kind.DATA)
        after = replace(
            state,
            snapshot=output.archive_id,
            foot=output.foot_hash,
            sequence=sequence,
            root=root,
            leans=writer.leans,
            entries=result.entries,
            bytes=result.content_bytes,
        )
        pin = self._view.number.to_bytes(8, "little") + b"".join(self._view.digests)
        try:
            self._catalog.complete_snapshot(
                after, number=number, length=output.length, mode=int(self._job.mode), known={"pin": pin}, before=state
            )
        except sqlite3.Error as error:  # the snapshot stands: that it is not remembered costs time, and nothing else
            result.notes.append(
                f"the host's cache cannot be written ({error}): the next backup compares with an earlier snapshot"
            )

    def _done(self, body: SnapshotBody) -> BackupResult:
        result, store, output = self._result, self._store, self._output
        assert store is not None
        assert output is not None
        result.snapshot_id = output.archive_id.hex()
        result.sequence = body.sequence
        result.archives = [*store.archives, (output.name, output.length)]
        result.stored_bytes = store.stored + output.written
        assert self._resumption is not None
        result.resumed_bytes = self._resumption.stored
        result.read_bytes = store.read
        self._captured.emit(b"")
        return result


def _shortened(text: str) -> str:
    return text.encode("utf-8", "backslashreplace")[:4_096].decode("utf-8", "ignore")


def _fitting(body: SnapshotBody) -> SnapshotBody:
    """The record, its lists cut until it fits a block; the counts say what is left out."""
    while len(records.encode(body)) > MAX_DECODED:
        body = replace(
            body,
            moves=_half(body.moves),
            deleted=_half(body.deleted),
            problems=_half(body.problems),
            conflicts=_half(body.conflicts),
        )
    return body


def _half(rows: tuple[T, ...] | None) -> tuple[T, ...] | None:
    return (rows or ())[: len(rows or ()) // 2] or None


def _is_big(sources: Iterable[Source], target: int) -> bool:
    """Whether a first backup will fill at least one data archive: a quick look, given up when it takes long.

    Where that many files together have a quarter of it, the rest is taken for granted.
    """
    if any(source.kind is not SourceKind.LOCAL for source in sources):
        return False
    deadline = time.monotonic() + _PLAN_SECONDS
    total = files = 0
    for source in sources:
        stack = [source.path]
        while stack:
            try:
                with os.scandir(stack.pop()) as listing:
                    for item in listing:
                        if item.is_dir(follow_symlinks=False):
                            stack.append(os.fsencode(item.path))
                        elif item.is_file(follow_symlinks=False):
                            total += item.stat(follow_symlinks=False).st_size
                            files += 1
            except NotADirectoryError:
                total += os.path.getsize(source.path)
            except OSError:
                continue  # the scan will report it
            if total >= target or files >= _PLAN_FILES:
                return total >= target // 4
            if time.monotonic() > deadline:
                return False
    return False


def parse_sources(sources: Sources, source_options: Mapping[str, Any] | None = None) -> list[Source]:
    """Give every source its name in the snapshot's root.

    Args:
        sources: As ``Vault.backup`` is given them.
        source_options: For those that are URLs.

    Raises:
        UsageError: There are none, two have the same name, or options have no source.
    """
    from rozenfmt.storage.location import is_url

    given = [sources] if isinstance(sources, (str, bytes, os.PathLike, Command)) else list(sources)
    options: Mapping[str, Any] = {}
    urls = [str(place) for place in map(_place, given) if is_url(place)]
    if urls or source_options:
        from .remotes import checked_options

        options = checked_options(source_options, urls)
    found: dict[bytes, Source] = {}
    for source in given:
        one = _parsed(source, options)
        if one.name in (b"", b".", b"..") or b"/" in one.name or b"\0" in one.name:
            msg = f"{os.fsdecode(one.name)!r} is not a name that a source can have"
            raise UsageError(msg)
        if one.name in found:
            msg = (
                f"two sources would be stored as {os.fsdecode(one.name)!r}: {os.fsdecode(found[one.name].path)} and "
                f"{os.fsdecode(one.path)}; give one of them another name (name, path)"
            )
            raise UsageError(msg)
        found[one.name] = one
    if not found:
        msg = "there is nothing to back up: name at least one source"
        raise UsageError(msg)
    return list(found.values())


def _place(source: AnySource) -> object:
    return source[1] if isinstance(source, tuple) else source


def _parsed(source: AnySource, options: Mapping[str, Any]) -> Source:
    from rozenfmt.storage.location import is_url, local_path

    if isinstance(source, Command):
        words = b" ".join(os.fsencode(word) for word in source.arguments)
        return Source(os.fsencode(source.name), words, source)
    name, place = source if isinstance(source, tuple) else (None, source)
    if is_url(place):
        from .remotes import remote_of

        remote = remote_of(str(place), options)
        given = remote.base_name if name is None else os.fsencode(name)
        return Source(given, os.fsencode(remote.origin), remote=remote)
    path = os.path.abspath(os.fsencode(local_path(place)))
    return Source((os.path.basename(path) or b"root") if name is None else os.fsencode(name), path)
