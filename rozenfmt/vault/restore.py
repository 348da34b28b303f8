"""Restoring a snapshot, and the plan of it: which blocks of which archives, before any is read.

What is missing or damaged takes along what refers to it, and nothing else: the job goes on, and
names the archive and every path that is lost with it (vault.md, section 6, item 5).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from rozenfmt.archive.extract import ExtractJob, ExtractResult, Reporter, restoring
from rozenfmt.archive.fetch import Run, runs
from rozenfmt.archive.selection import Patterns, outermost
from rozenfmt.archive.steps import Task, steps
from rozenfmt.archive.treereader import clean_path
from rozenfmt.errors import ArchiveError, MissingArchive, StorageError
from rozenfmt.events import Problem, ProgressCallback
from rozenfmt.format.nodes import Entry
from rozenfmt.format.registry import Kind
from rozenfmt.tree.restore import Directory, Restorer

if TYPE_CHECKING:
    from .snapshot import Snapshot

__all__ = ["PlannedArchive", "RestorePlan", "RestoreResult", "restore"]

# Deduplicated contents lie scattered: the more files are looked at together, the fewer blocks are read twice.
_WINDOW = 32_768
_KEPT_PROBLEMS = 10_000

Overwrite = Literal["never", "if-changed", "always"]
Chosen = list[tuple[bytes, Entry]] | None
T = TypeVar("T")


@dataclass(slots=True)
class RestoreResult(ExtractResult):
    """What was restored.

    Attributes:
        files: Files, links and special files restored.
        directories: Directories made or entered.
        bytes: Content bytes written.
        skipped: Entries left alone because they stand already.
        problems: What could not be restored, in order (the first 10,000). ``missing`` and ``damaged`` are paths
            whose content, or all that is below them, is lost with an archive that the detail names.
        problem_count: How many there were.
        seconds: Time taken.
        read_bytes: Bytes read from the storage.
        lost: How many paths are ``missing`` or ``damaged``.
    """

    read_bytes: int = 0
    lost: int = 0


@dataclass(slots=True)
class PlannedArchive:
    """A data archive that a restore reads.

    Attributes:
        object: Its name in the vault.
        archive_id: Its id.
        length: Its length in bytes.
        blocks: Blocks that are needed.
        requests: Reads that bring them, and the one that opens the archive.
        bytes: Bytes that these bring.
        exact: False if the archive cannot be read now (it may be in cold storage): then ``bytes`` is all of it.
    """

    object: str
    archive_id: bytes
    length: int
    blocks: int = 0
    requests: int = 0
    bytes: int = 0
    exact: bool = True


@dataclass(slots=True)
class RestorePlan:
    """What a restore into an empty directory would do and read.

    Metadata archives are read to make the plan, and are not in it; extended attributes are in them.

    Attributes:
        files: Files, links and special files.
        directories: Directories.
        bytes: Content bytes.
        archives: The data archives that are needed, in the order in which they are read first: in cold storage,
            the objects to thaw.
        problems: Paths that would be lost, as in ``RestoreResult`` (the first 10,000).
        lost: How many.
    """

    files: int = 0
    directories: int = 0
    bytes: int = 0
    archives: list[PlannedArchive] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    lost: int = 0

    @property
    def requests(self) -> int:
        """Reads from data archives."""
        return sum(one.requests for one in self.archives)

    @property
    def read_bytes(self) -> int:
        """Bytes that they bring."""
        return sum(one.bytes for one in self.archives)


@overload
def restore(
    snapshot: Snapshot,
    destination: str | bytes | os.PathLike[str],
    *,
    paths: Iterable[str | bytes] = ...,
    patterns: Iterable[str | bytes] = ...,
    overwrite: Overwrite = ...,
    owners: bool | None = ...,
    numeric_owners: bool = ...,
    xattrs: bool = ...,
    workers: int | None = ...,
    progress: ProgressCallback | None = ...,
    dry_run: Literal[False] = ...,
) -> RestoreResult: ...


@overload
def restore(
    snapshot: Snapshot,
    destination: str | bytes | os.PathLike[str],
    *,
    paths: Iterable[str | bytes] = ...,
    patterns: Iterable[str | bytes] = ...,
    overwrite: Overwrite = ...,
    owners: bool | None = ...,
    numeric_owners: bool = ...,
    xattrs: bool = ...,
    workers: int | None = ...,
    progress: ProgressCallback | None = ...,
    dry_run: bool,
) -> RestoreResult | RestorePlan: ...


def restore(
    snapshot: Snapshot,
    destination: str | bytes | os.PathLike[str],
    *,
    paths: Iterable[str | bytes] = (),
    patterns: Iterable[str | bytes] = (),
    overwrite: Overwrite = "never",
    owners: bool | None = None,
    numeric_owners: bool = False,
    xattrs: bool = True,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    dry_run: bool = False,
) -> RestoreResult | RestorePlan:
    """Restore a snapshot below a directory.  Nothing can be written outside of it.

    A restore that was interrupted goes on where it stopped when it is run again: files appear by a rename when
    they are complete, and complete ones are kept.

    Args:
        snapshot: The snapshot.
        destination: Directory, made if missing; not touched by a dry run.
        paths: What to restore, with all below; everything by default. Parents are made as they were.
        patterns: Of that, what matches these patterns in gitignore syntax, with all below; everything by default.
        overwrite: What to do with files that stand there.
        owners: Restore owners; by default only as root.
        numeric_owners: By number, not by name first.
        xattrs: Restore extended attributes and ACLs.
        workers: Threads that fetch and open blocks.
        progress: Called with events.
        dry_run: Restore nothing, and say what would be read; the right to browse is enough.

    Returns:
        What was restored and what was not; the plan, for a dry run.

    Raises:
        UsageError: A path is not in the snapshot, or a pattern is malformed.
        NoMatchingKey: The key at hand may only browse.
        BlockError: The snapshot has more entries than it says.
        StorageError: The destination is full or cannot be written, or the vault's storage does not answer.

    Specification: vault.md, section 6, items 3 and 5.
    """
    lines = list(patterns)
    chosen_patterns = Patterns(lines) if lines else None
    wanted = outermost([clean_path(path) for path in paths])
    if dry_run:
        plan = RestorePlan()
        losses = _PlanLosses(snapshot, plan)
        planning = _PlanJob(snapshot, losses, plan, chosen_patterns)
        planning.run(_chosen(snapshot, wanted, losses) if wanted else None)
        planning.complete()
        return plan
    snapshot.require_read()
    result = RestoreResult()
    report = Reporter(result, progress)
    result_losses = _ResultLosses(snapshot, result, report)
    before = snapshot.archives.traffic.bytes
    chosen = _chosen(snapshot, wanted, result_losses) if wanted else None
    with restoring(destination, result):
        restorer = Restorer(
            destination,
            report=report,
            overwrite=overwrite,
            owners=owners,
            numeric_owners=numeric_owners,
            xattrs=xattrs,
        )
        with restorer:
            job = ExtractJob(
                snapshot,
                restorer,
                xattrs=xattrs,
                workers=workers,
                progress=progress,
                operation="restore",
                total=snapshot.content_bytes if chosen is None and not lines else None,
                window=_WINDOW,
                patterns=chosen_patterns,
                failed=result_losses,
            )
            job.run(chosen)
    job.finish(result)
    result.read_bytes = snapshot.archives.traffic.bytes - before
    return result


def _chosen(snapshot: Snapshot, paths: list[bytes], losses: _Losses) -> list[tuple[bytes, Entry]]:
    """The entries at some paths; those that cannot be reached are lost."""
    found = []
    for path in paths:
        try:
            found.append((path, snapshot.entry(path).raw))
        except (ArchiveError, StorageError) as error:
            losses(tuple(path.split(b"/")), "content", error)
    return found


# --- What is lost -------------------------------------------------------------------------------


class _Losses:
    """Tells of what is lost; raises where the storage itself does not answer any more."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __call__(self, path: tuple[bytes, ...], what: str, error: ArchiveError | StorageError) -> None:
        """Something of a path cannot be read."""
        if isinstance(error, StorageError):
            try:
                self._snapshot.archives.storage.size(self._snapshot.object)
            except StorageError:
                raise error from None
        word = "missing" if isinstance(error, MissingArchive) else "damaged"
        lead = {"content": "", "entries": "not all that is below is known: "}.get(what, "without its attributes: ")
        self.lose(Problem(b"/".join(path), word if what != "attributes" else "xattr", lead + str(error)))

    def lose(self, problem: Problem) -> None:
        """Take note of it."""
        raise NotImplementedError


class _ResultLosses(_Losses):
    def __init__(self, snapshot: Snapshot, result: RestoreResult, report: Reporter) -> None:
        super().__init__(snapshot)
        self._result = result
        self._report = report

    def lose(self, problem: Problem) -> None:
        self._result.lost += problem.what != "xattr"
        self._report(problem)


class _PlanLosses(_Losses):
    def __init__(self, snapshot: Snapshot, plan: RestorePlan) -> None:
        super().__init__(snapshot)
        self._plan = plan

    def lose(self, problem: Problem) -> None:
        self._plan.lost += 1
        if len(self._plan.problems) < _KEPT_PROBLEMS:
            self._plan.problems.append(problem)


# --- The plan -----------------------------------------------------------------------------------


class _Nowhere(Restorer):
    """Stands for the destination of a dry run: everything can be restored, and nothing is."""

    def __init__(self) -> None:  # a restorer that opens nothing
        self.files = self.directories = self.bytes = self.skipped = 0
        self._here = Directory(None, None, os.stat_result((0,) * 10))

    @property
    def root(self) -> Directory:
        return self._here

    def enter(self, entry: Entry, parent: Directory | None = None) -> Directory:  # noqa: ARG002 -- see above
        self.directories += 1
        return self._here

    def leave(self, directory: Directory | None = None) -> None:
        pass

    def wanted(self, entry: Entry, parent: Directory | None = None) -> bool:  # noqa: ARG002 -- see above
        return True

    def small(self, entry: Entry, data: object, parent: Directory | None = None) -> bool:  # noqa: ARG002 -- see above
        self.files += 1
        return True

    def other(self, entry: Entry, parent: Directory | None = None) -> bool:  # noqa: ARG002 -- see above
        self.files += 1
        return True

    def link(self, entry: Entry, first: tuple[bytes, ...], parent: Directory | None = None) -> bool:  # noqa: ARG002
        self.files += 1
        return True


class _PlanJob(ExtractJob):
    """A job that counts what it would read, window by window, as the job itself reads it."""

    def __init__(self, snapshot: Snapshot, losses: _Losses, plan: RestorePlan, patterns: Patterns | None) -> None:
        self._nowhere = _Nowhere()
        super().__init__(
            snapshot, self._nowhere, xattrs=False, workers=1, window=_WINDOW, patterns=patterns, failed=losses
        )
        self._snapshot = snapshot
        self._plan = plan
        self._rows: dict[int, PlannedArchive] = {}

    def contents(self, tasks: list[Task]) -> None:
        """Count these files, and the reads for them."""
        self._plan.files += len(tasks)
        self._plan.bytes += sum(task.entry.size for task in tasks)
        for step, error in self._counted(runs(self._snapshot, steps(self._snapshot, tasks, self._lost))):
            for task in step.tasks:
                self._lost(task, step.error or error)

    def _lost(self, task: Task, error: ArchiveError | StorageError | None) -> None:
        if error is not None and not task.dead:
            self._plan.files -= 1
            self._plan.bytes -= task.entry.size
            self.lose(task, error)

    def _counted(self, found: Iterator[Run[T]]) -> Iterator[tuple[T, ArchiveError | StorageError | None]]:
        for run in found:
            error = run.error
            if isinstance(error, StorageError) and self._snapshot.references[run.number - 1].kind == Kind.DATA:
                self._row(run)
                error = None
            elif run.source is not None:
                row = self._row(run)
                row.blocks += run.blocks
                if run.asks:
                    row.requests += 1
                    row.bytes += run.end - run.start
            for item, _ in run.rows:
                yield item, error

    def _row(self, run: Run[T]) -> PlannedArchive:
        row = self._rows.get(run.number)
        if row is None:
            one = self._snapshot.references[run.number - 1]
            name = self._snapshot.object_name(run.number)
            if run.source is None:
                row = PlannedArchive(name, one.archive_id, one.length, bytes=one.length, exact=False)
            else:  # what was read of it by now was for the index, which a restore reads too
                reader = run.source.reader
                row = PlannedArchive(name, one.archive_id, one.length, 0, reader.requests, reader.bytes_read)
            self._rows[run.number] = row
        return row

    def complete(self) -> None:
        """Put the plan together."""
        self._plan.files += self._nowhere.files
        self._plan.directories = self._nowhere.directories
        self._plan.archives = list(self._rows.values())
