"""Restoring entries of an archive below a directory.

Entries are taken in tree order, a window at a time; within a window, contents are written in
the order of their blocks, and each block is fetched and opened once, ahead of the writing, on
worker threads.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from rozenfmt.errors import BlockError, LimitError, StorageError
from rozenfmt.events import Problem, Progress, ProgressCallback
from rozenfmt.format import crypto
from rozenfmt.format.blocks import Block, cut_pieces
from rozenfmt.format.limits import MAX_TREE_DEPTH
from rozenfmt.format.nodes import Entry, Kind, Mark, Part

from .pipeline import default_workers

if TYPE_CHECKING:
    from rozenfmt.tree.restore import Directory, Restorer

    from .reader import Archive

__all__ = ["ExtractResult", "extract"]

_WINDOW: Final = 8_192
_PROGRESS_SECONDS: Final = 0.1


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

    def report(problem: Problem) -> None:
        result.problem_count += 1
        if len(result.problems) < 10_000:
            result.problems.append(problem)
        if progress is not None:
            progress(problem)

    started = time.monotonic()
    archive._require_read()  # noqa: SLF001
    chosen = [(path, archive.entry(path)) for path in _outermost(paths)]
    try:
        with Restorer(
            destination,
            report=report,
            overwrite=overwrite,
            owners=owners,
            numeric_owners=numeric_owners,
            xattrs=xattrs,
        ) as restorer:
            job = _Job(archive, restorer, xattrs=xattrs, progress=progress, workers=workers or default_workers())
            try:
                if paths:
                    for path, entry in chosen:
                        job.chosen(path, entry.raw)
                else:
                    job.tree(archive._root_place(), restorer.root)  # noqa: SLF001
                job.flush()
            finally:
                job.close()
    except OSError as error:
        raise cannot_restore(destination, error) from error
    result.files, result.directories = restorer.files, restorer.directories
    result.bytes, result.skipped = restorer.bytes, restorer.skipped
    result.seconds = time.monotonic() - started
    job.emit(b"")
    return result


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


def _outermost(paths: Sequence[bytes]) -> list[bytes]:
    """Paths without those that lie below another one."""
    kept: list[bytes] = []
    for path in sorted(set(paths), key=lambda p: p.split(b"/")):
        if not kept or not (path + b"/").startswith(kept[-1] + b"/"):
            kept.append(path)
    return kept


@dataclass(frozen=True, slots=True)
class _Task:
    entry: Entry
    parent: Directory
    path: tuple[bytes, ...]


class _Job:
    """One run of ``extract``."""

    def __init__(
        self,
        archive: Archive,
        restorer: Restorer,
        *,
        xattrs: bool,
        progress: ProgressCallback | None,
        workers: int,
    ) -> None:
        self._archive = archive
        self._source = archive.source
        self._restorer = restorer
        self._xattrs = xattrs
        self._progress = progress
        self._reported = 0.0
        self._tasks: list[_Task] = []
        self._linked: list[_Task] = []
        self._leaving: list[Directory] = []
        self._groups: dict[bytes, tuple[bytes, ...]] = {}
        self._parents: dict[bytes, Directory | None] = {}  # of chosen paths, which may share them
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="rozenfmt-open")
        self._ahead = workers + 2

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def chosen(self, path: bytes, entry: Entry) -> None:
        """Restore one path, with its parents as they were."""
        names = path.split(b"/")
        directory: Directory | None = self._restorer.root
        for depth in range(1, len(names)):
            above = b"/".join(names[:depth])
            if above not in self._parents:
                parent = self._with_attributes(self._archive.entry(above).raw)
                self._parents[above] = None if directory is None else self._restorer.enter(parent, directory)
            directory = self._parents[above]
        if directory is not None:
            self._entry(entry, directory, tuple(names))

    def tree(self, place: tuple[bytes | None, int, int], parent: Directory, path: tuple[bytes, ...] = ()) -> None:
        """Restore all entries of a directory and what is below, without recursion."""
        stack: list[tuple[Iterator[Entry], Directory, tuple[bytes, ...]]] = []
        stack.append((self._archive.directory_entries(place, b"/".join(path)), parent, path))
        while stack:
            entries, directory, here = stack[-1]
            for entry in entries:
                below = self._one(entry, directory, (*here, entry.name))
                if below is not None:
                    if len(stack) >= MAX_TREE_DEPTH:
                        msg = "directories are nested deeper than a reader follows"
                        raise LimitError(msg, object=self._source.reader.name, clause="14")
                    place, inside = (entry.child, entry.block, entry.piece), (*here, entry.name)
                    stack.append((self._archive.directory_entries(place, b"/".join(inside)), below, inside))
                    break
            else:
                stack.pop()
                if directory.parent is not None:
                    self._leaving.append(directory)
                    self._flush_if_due()

    def _entry(self, entry: Entry, parent: Directory, path: tuple[bytes, ...]) -> None:
        below = self._one(entry, parent, path)
        if below is not None:
            self.tree((entry.child, entry.block, entry.piece), below, path)

    def _one(self, entry: Entry, parent: Directory, path: tuple[bytes, ...]) -> Directory | None:
        """Handle one entry; returns the directory to go into, if it is one."""
        if entry.kind == Kind.DIRECTORY:
            return self._restorer.enter(self._with_attributes(entry), parent)
        if entry.kind != Kind.FILE or entry.marks & Mark.UNREADABLE:
            self._other(entry, parent, path)
            return None
        if entry.link_group is not None and entry.link_group in self._groups:
            self._linked.append(_Task(entry, parent, path))
        else:
            if entry.link_group is not None:
                self._groups[entry.link_group] = path
            self._tasks.append(_Task(entry, parent, path))
        self._flush_if_due()
        return None

    def _other(self, entry: Entry, parent: Directory, path: tuple[bytes, ...]) -> None:
        group = entry.link_group
        if group is not None and group in self._groups:
            if self._restorer.wanted(entry, parent):
                self._restorer.link(entry, self._groups[group], parent)
        elif self._restorer.other(self._with_attributes(entry), parent) and group is not None:
            self._groups[group] = path

    def _flush_if_due(self) -> None:
        if max(len(self._tasks), len(self._linked), len(self._leaving)) >= _WINDOW:
            self.flush()

    def _with_attributes(self, entry: Entry) -> Entry:
        if self._xattrs and entry.xattr_ref is not None:
            entry.xattrs = self._archive.attributes(entry)
        return entry

    # --- contents -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the contents of this window, block by block, then links and directories' metadata."""
        wanted = [task for task in self._tasks if self._restorer.wanted(task.entry, task.parent)]
        for task in wanted:
            if not task.entry.has_content:
                self._restorer.small(self._with_attributes(task.entry), b"", task.parent)
        with_content = [task for task in wanted if task.entry.has_content]
        with_content.sort(key=lambda task: (task.entry.block, task.entry.piece))
        groups: list[list[_Task]] = []
        for task in with_content:
            if groups and groups[-1][0].entry.block == task.entry.block:
                groups[-1].append(task)
            else:
                groups.append([task])
        for group, block in zip(groups, self._prefetch([g[0].entry.block for g in groups]), strict=True):
            if block.type == b"PACK":
                self._pack(block, group)
            else:
                for task in group:
                    self._stream(task)
        for task in self._linked:
            self._link(task)
        for directory in self._leaving:
            self._restorer.leave(directory)
        self._tasks, self._linked, self._leaving = [], [], []

    def _prefetch(self, sequences: Sequence[int]) -> Iterator[Block]:
        """Blocks in order, a few of them fetched and opened ahead."""
        pending: deque[Future[Block]] = deque()
        numbers = iter(sequences)
        for number in numbers:
            pending.append(self._pool.submit(self._source.load, number))
            if len(pending) > self._ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _pack(self, block: Block, tasks: Sequence[_Task]) -> None:
        pieces = cut_pieces(block)
        id_key = self._archive._keys.id_key  # noqa: SLF001
        assert id_key is not None
        for task in tasks:
            entry = task.entry
            data = pieces[entry.piece] if entry.piece < len(pieces) else memoryview(b"")
            if len(data) != entry.size or crypto.content_id(id_key, crypto.digest(data), len(data)) != entry.content_id:
                msg = f"the content of {_show(task.path)} is not the one that its id names: it is not restored"
                raise BlockError(msg, object=self._source.reader.name, block=block.sequence, clause="6.2")
            self._restorer.small(self._with_attributes(entry), data, task.parent)
            self._tick(task.path)

    def _stream(self, task: _Task) -> None:
        from rozenfmt.tree.content import Hole

        _, parts = self._archive.parts(task.entry)
        writer = self._restorer.open(self._with_attributes(task.entry), task.parent)
        if writer is None:
            return
        try:
            for part, block in self._parts_ahead(parts):
                done = writer.write(Hole(part.length) if block is None else self._part(block, part, task))
                if not done:
                    return
                self._tick(task.path)
            writer.commit()
        finally:
            writer.abort()

    def _parts_ahead(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Block | None]]:
        pending: deque[tuple[Part, Future[Block] | None]] = deque()
        for part in parts:
            load = None if part.id is None else self._pool.submit(self._source.load, part.block)
            pending.append((part, load))
            if len(pending) > self._ahead:
                first, future = pending.popleft()
                yield first, None if future is None else future.result()
        for first, future in pending:
            yield first, None if future is None else future.result()

    def _part(self, block: Block, part: Part, task: _Task) -> memoryview:
        id_key = self._archive._keys.id_key  # noqa: SLF001
        assert id_key is not None
        pieces = cut_pieces(block) if block.type == b"FCNT" else []
        number, length, expected = part.piece, part.length, part.id
        data = pieces[number] if number < len(pieces) else memoryview(b"")
        if len(data) != length or crypto.content_id(id_key, crypto.digest(data), len(data)) != expected:
            msg = f"a part of {_show(task.path)} is not the one that its id names: the file is not restored"
            raise BlockError(msg, object=self._source.reader.name, block=block.sequence, clause="6.2")
        return data

    def _link(self, task: _Task) -> None:
        assert task.entry.link_group is not None
        entry = self._with_attributes(task.entry)
        if not self._restorer.wanted(entry, task.parent):
            return
        if self._restorer.link(entry, self._groups[task.entry.link_group], task.parent):
            return
        if not entry.has_content:
            self._restorer.small(entry, b"", task.parent)
        elif self._source.block(entry.block).type == b"PACK":
            self._pack(self._source.block(entry.block), [task])
        else:
            self._stream(task)

    # --- events ---------------------------------------------------------------------------------

    def _tick(self, path: tuple[bytes, ...]) -> None:
        if self._progress is not None:
            now = time.monotonic()
            if now - self._reported >= _PROGRESS_SECONDS:
                self._reported = now
                self.emit(b"/".join(path))

    def emit(self, path: bytes) -> None:
        """Send a ``Progress`` event."""
        if self._progress is not None:
            total = self._archive.content_bytes
            done = self._restorer
            self._progress(Progress("extract", done.files, done.bytes, 0, total, path))


def _show(path: tuple[bytes, ...]) -> str:
    return os.fsdecode(b"/".join(path))
