"""Restoring entries of an archive or a snapshot below a directory.

Entries are taken in tree order, a window at a time; within a window, contents are written in
the order of their archives and blocks, and each block is fetched and opened once, ahead of the
writing, on worker threads.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from rozenfmt.errors import ArchiveError, StorageError
from rozenfmt.events import Problem, Progress, ProgressCallback
from rozenfmt.format.limits import MAX_TREE_DEPTH
from rozenfmt.format.nodes import Entry, Kind, Mark

from .contentwriter import ContentWriter
from .pipeline import default_workers
from .selection import outermost
from .steps import Task
from .treereader import place_of

if TYPE_CHECKING:
    from rozenfmt.tree.restore import Directory, Restorer

    from .reader import Archive
    from .selection import Patterns
    from .treereader import TreeReader

__all__ = ["ExtractJob", "ExtractResult", "Reporter", "cannot_restore", "extract", "restoring"]

WINDOW: Final = 8_192
_PROGRESS_SECONDS: Final = 0.1
_KEPT_PROBLEMS: Final = 10_000

Path = tuple[bytes, ...]
Failed = Callable[[Path, str, ArchiveError | StorageError], None]
"""Told of what is lost of a path (``content``, ``entries`` or ``attributes``), and why, by callers who go on."""


@dataclass(slots=True)
class ExtractResult:
    """What was restored.

    Attributes:
        files: Files, links and special files restored.
        directories: Directories made or entered.
        bytes: Content bytes written.
        skipped: Entries left alone because they stand already.
        problems: What could not be restored, in order (the first 10,000).
        problem_count: How many there were.
        seconds: Time taken.
    """

    files: int = 0
    directories: int = 0
    bytes: int = 0
    skipped: int = 0
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    seconds: float = 0.0


class Reporter:
    """Keeps problems in a result, and passes them on."""

    def __init__(self, result: ExtractResult, progress: ProgressCallback | None) -> None:
        self._result = result
        self._progress = progress

    def __call__(self, problem: Problem) -> None:
        """Take one problem."""
        self._result.problem_count += 1
        if len(self._result.problems) < _KEPT_PROBLEMS:
            self._result.problems.append(problem)
        if self._progress is not None:
            self._progress(problem)


def extract(
    archive: Archive,
    destination: str | bytes | os.PathLike[str],
    *,
    paths: Sequence[bytes],
    overwrite: Literal["never", "if-changed", "always"],
    owners: bool | None,
    numeric_owners: bool,
    xattrs: bool,
    workers: int | None,
    progress: ProgressCallback | None,
) -> ExtractResult:
    """See ``Archive.extract``."""
    from rozenfmt.tree.restore import Restorer

    result = ExtractResult()
    archive.require_read()
    chosen = [(path, archive.entry(path).raw) for path in outermost(paths)]
    with restoring(destination, result):
        restorer = Restorer(
            destination,
            report=Reporter(result, progress),
            overwrite=overwrite,
            owners=owners,
            numeric_owners=numeric_owners,
            xattrs=xattrs,
        )
        with restorer:
            job = ExtractJob(
                archive, restorer, xattrs=xattrs, workers=workers, progress=progress, total=archive.content_bytes
            )
            job.run(chosen if paths else None)
    job.finish(result)
    return result


class restoring:  # noqa: N801 -- reads as what is done
    """Turns the end of all restoring into one error, and takes the time."""

    def __init__(self, destination: str | bytes | os.PathLike[str], result: ExtractResult) -> None:
        self._destination = destination
        self._result = result
        self._started = time.monotonic()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._result.seconds = time.monotonic() - self._started
        if isinstance(error, OSError):
            raise cannot_restore(self._destination, error) from error


def cannot_restore(destination: str | bytes | os.PathLike[str], error: OSError) -> StorageError:
    """The error for a destination that cannot be written at all."""
    advice = {
        errno.ENOSPC: "free space and run it again: what is restored already is kept",
        errno.EDQUOT: "the quota is used up: free space and run it again",
        errno.EROFS: "the file system is read-only: choose another place",
        errno.EACCES: "you may not write there: choose another place, or another user",
        errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
    }.get(error.errno or 0, "choose another place")
    return StorageError(f"cannot restore below {os.fsdecode(destination)!r}: {error.strerror}; {advice}")


class _Folder:
    """A directory on the way: made when something in it is restored, if patterns leave that open."""

    __slots__ = ("dead", "entries", "entry", "handle", "parent", "path", "taken")

    def __init__(self, parent: _Folder | None, entry: Entry | None, path: Path, *, taken: bool) -> None:
        self.parent = parent
        self.entry = entry
        self.path = path
        self.taken = taken
        self.entries: Iterator[Entry] = iter(())
        self.handle: Directory | None = None
        self.dead = False


class ExtractJob:
    """One run over a tree.

    Args:
        tree: What is restored.
        restorer: Where to.
        xattrs: Whether extended attributes are restored.
        workers: Threads that fetch and open blocks.
        progress: Called with events.
        operation: What they call it.
        total: Content bytes that will be written, if that is known.
        window: Files after which contents are written.
        patterns: Which entries; all by default.
        failed: Told of what cannot be read; by default the error is raised.
    """

    def __init__(
        self,
        tree: TreeReader,
        restorer: Restorer,
        *,
        xattrs: bool = True,
        workers: int | None = None,
        progress: ProgressCallback | None = None,
        operation: str = "extract",
        total: int | None = None,
        window: int = WINDOW,
        patterns: Patterns | None = None,
        failed: Failed | None = None,
    ) -> None:
        self.tree = tree
        self._restorer = restorer
        self._xattrs = xattrs
        self._progress = progress
        self._operation = operation
        self._window = window
        self._patterns = patterns
        self._tell = failed
        self._total = total
        self._limit = tree.entry_limit()
        self._met = 0
        self._reported = 0.0
        self._tasks: list[Task] = []
        self._linked: list[Task] = []
        self._leaving: list[Directory] = []
        self._groups: dict[bytes, Path] = {}
        self._root = _Folder(None, None, (), taken=patterns is None)
        self._root.handle = restorer.root
        self._above: dict[Path, _Folder] = {(): self._root}  # of chosen paths, which may share them
        self._writer = ContentWriter(
            tree,
            restorer,
            workers or default_workers(),
            prepare=self._with_attributes,
            lose=self.lose,
            tick=self._tick,
        )

    def run(self, chosen: Sequence[tuple[bytes, Entry]] | None = None) -> None:
        """Restore these paths, or everything."""
        try:
            if chosen is None:
                self._descend(self._root, self.tree.root_place())
            else:
                for path, entry in chosen:
                    self._chosen(path, entry)
            self.flush()
        finally:
            self._writer.close()

    def finish(self, result: ExtractResult) -> None:
        """Take the restorer's counts over, and send the last event."""
        done = self._restorer
        result.files, result.directories, result.bytes, result.skipped = (
            done.files,
            done.directories,
            done.bytes,
            done.skipped,
        )
        self._emit(b"")

    def failed(self, path: Path, what: str, error: ArchiveError | StorageError) -> None:
        """Something of a path is lost."""
        if self._tell is None:
            raise error
        self._tell(path, what, error)

    def lose(self, task: Task, error: ArchiveError | StorageError) -> None:
        """The content of a file is lost: its other names cannot be linked to it."""
        task.dead = True
        group = task.entry.link_group
        if group is not None and self._groups.get(group) == task.path:
            del self._groups[group]
        self.failed(task.path, "content", error)

    # --- the tree -------------------------------------------------------------------------------

    def _chosen(self, path: bytes, entry: Entry) -> None:
        """Restore one path, with its parents as they were."""
        names = tuple(path.split(b"/"))
        folder = self._root
        for depth in range(1, len(names)):
            above = names[:depth]
            if above not in self._above:
                parent = self.tree.entry(b"/".join(above)).raw
                taken = self._patterns is None or folder.taken or self._patterns.take(parent, above)
                self._above[above] = _Folder(folder, parent, above, taken=taken)
                if taken:
                    self._made(self._above[above])
            folder = self._above[above]
        below = self._one(entry, folder)
        if below is not None:
            self._descend(below, place_of(entry))

    def _descend(self, folder: _Folder, place: tuple[bytes | None, int, int, int]) -> None:
        """Restore all entries of a directory and what is below, without recursion."""
        stack = [self._begun(folder, place)]
        while stack:
            folder = stack[-1]
            for entry in folder.entries:
                below = self._one(entry, folder)
                if below is not None:
                    if len(stack) >= MAX_TREE_DEPTH:
                        raise self.tree.too_deep()
                    stack.append(self._begun(below, place_of(entry)))
                    break
            else:
                stack.pop()
                if folder.handle is not None and folder.parent is not None:
                    self._leaving.append(folder.handle)
                    self._flush_if_due()

    def _begun(self, folder: _Folder, place: tuple[bytes | None, int, int, int]) -> _Folder:
        lost = None if self._tell is None else partial(self.failed, folder.path, "entries")
        folder.entries = self.tree.directory_entries(place, b"/".join(folder.path), lost)
        return folder

    def _one(self, entry: Entry, folder: _Folder) -> _Folder | None:
        """Handle one entry; returns the directory to go into, if it is one."""
        self._met += 1
        if self._limit is not None and self._met > self._limit:
            raise self.tree.too_many_entries()
        path = (*folder.path, entry.name)
        taken = folder.taken or (self._patterns is not None and self._patterns.take(entry, path))
        if entry.kind == Kind.DIRECTORY:
            below = _Folder(folder, entry, path, taken=taken)
            return below if not taken or self._made(below) is not None else None
        parent = self._made(folder) if taken else None
        if parent is None:
            return None
        if entry.kind != Kind.FILE or entry.marks & Mark.UNREADABLE:
            self._other(entry, parent, path)
            return None
        if entry.link_group is not None and entry.link_group in self._groups:
            self._linked.append(Task(entry, parent, path))
        else:
            if entry.link_group is not None:
                self._groups[entry.link_group] = path
            self._tasks.append(Task(entry, parent, path))
        self._flush_if_due()
        return None

    def _made(self, folder: _Folder) -> Directory | None:
        """The directory in the destination; None if it cannot be."""
        if folder.handle is not None or folder.dead:
            return folder.handle
        chain = [folder]
        while (above := chain[-1].parent) is not None and above.handle is None and not above.dead:
            chain.append(above)
        for one in reversed(chain):
            assert one.entry is not None
            assert one.parent is not None
            if one.parent.handle is not None:
                one.handle = self._restorer.enter(self._with_attributes(one.entry, one.path), one.parent.handle)
            one.dead = one.handle is None
        return folder.handle

    def _other(self, entry: Entry, parent: Directory, path: Path) -> None:
        group = entry.link_group
        if group is not None and group in self._groups:
            if self._restorer.wanted(entry, parent):
                self._restorer.link(entry, self._groups[group], parent)
        elif self._restorer.other(self._with_attributes(entry, path), parent) and group is not None:
            self._groups[group] = path

    def _flush_if_due(self) -> None:
        if max(len(self._tasks), len(self._linked), len(self._leaving)) >= self._window:
            self.flush()

    def _with_attributes(self, entry: Entry, path: Path) -> Entry:
        if self._xattrs and entry.xattr_ref is not None:
            try:
                entry.xattrs = self.tree.attributes(entry)
            except (ArchiveError, StorageError) as error:
                self.failed(path, "attributes", error)
        return entry

    # --- contents -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the contents of this window, block by block, then links and directories' metadata."""
        wanted = [task for task in self._tasks if self._restorer.wanted(task.entry, task.parent)]
        for task in wanted:
            if not task.entry.has_content:
                self._restorer.small(self._with_attributes(task.entry, task.path), b"", task.parent)
        self.contents([task for task in wanted if task.entry.has_content])
        for task in self._linked:
            self._link(task)
        for directory in self._leaving:
            self._restorer.leave(directory)
        self._tasks, self._linked, self._leaving = [], [], []

    def contents(self, tasks: list[Task]) -> None:
        """Write the contents of files that have one."""
        self._writer.write(tasks)

    def _link(self, task: Task) -> None:
        group = task.entry.link_group
        assert group is not None
        entry = self._with_attributes(task.entry, task.path)
        if not self._restorer.wanted(entry, task.parent):
            return
        first = self._groups.setdefault(group, task.path)
        if first != task.path and self._restorer.link(entry, first, task.parent):
            return
        if entry.has_content:
            self.contents([task])
        else:
            self._restorer.small(entry, b"", task.parent)

    # --- events ---------------------------------------------------------------------------------

    def _tick(self, path: Path) -> None:
        if self._progress is not None:
            now = time.monotonic()
            if now - self._reported >= _PROGRESS_SECONDS:
                self._reported = now
                self._emit(b"/".join(path))

    def _emit(self, path: bytes) -> None:
        if self._progress is not None:
            done = self._restorer
            self._progress(Progress(self._operation, done.files, done.bytes, 0, self._total, path))
