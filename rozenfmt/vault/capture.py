"""From the source tree into one snapshot: what a ``Scanner`` finds meets what the catalog remembers.

For each file: is it the same (then its entry is taken over unread), is its content known (then only
metadata are stored), is it moved, new, changed; in a WORM set a changed content is a question.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from blake3 import blake3

from rozenfmt.archive.streamwriter import hash_zeros
from rozenfmt.errors import SourceError
from rozenfmt.events import Problem, Progress, ProgressCallback
from rozenfmt.format.nodes import Entry, Kind, Mark
from rozenfmt.format.snapshots import Mode
from rozenfmt.tree.content import FileReader, Hole
from rozenfmt.tree.scan import Scanner

from .baseline import UNTRUSTED
from .catalog import SIGNATURE, signature
from .chunker import Chunker
from .content import Parts
from .links import Links
from .moves import resolve_gone
from .nodewriter import NODE, Directory
from .policy import Policy
from .results import Command, Conflict
from .takeover import Run, TakeOver, facts_signature

if TYPE_CHECKING:
    from rozenfmt.tree.remote import RemoteScanner

    from .baseline import Baseline, KnownDirectory
    from .catalog import Catalog, Place
    from .content import ContentStore
    from .nodewriter import NodeWriter, Uses
    from .results import BackupResult, OnConflict

__all__ = ["CHUNKED_FROM", "READ_SIZE", "Capture", "Reread"]

CHUNKED_FROM: Final = 1024 * 1024
"""In snapshot mode, bigger files are cut by content."""

WHOLE_UP_TO: Final = 16 * 1024 * 1024
"""In WORM mode, files up to this size are one piece."""

READ_SIZE: Final = 2 * 1024 * 1024
"""Bytes that are read at once; several of these wait to be stored, so they are no more than reading fast takes."""

Reread = Literal["none", "sample", "all"]

_RACY_NS: Final = 2_000_000_000  # of the coarsest usual file system, FAT
_SAMPLE: Final = 0.02
_PROGRESS_SECONDS: Final = 0.1
_TIME_LIMIT: Final = 1 << 63
_LISTED: Final = 16_384
_RUN: Final = 1024 * 1024


@dataclass(slots=True)
class _Level:
    """A directory that the walk is in."""

    directory: Directory
    known: KnownDirectory | None
    old: Entry | None
    moved: bool = False
    inode: int = 0
    run: Run | None = None  # the leaf at hand, as long as everything in it is the same
    runs: bool = False  # leaves may be taken over
    passing: bool = False  # so far this directory is an entry of such a leaf
    new_before: int = 0  # how many entries were counted as new when the walk came here
    entries_before: int = 0  # and how many altogether
    beside: list[Entry] = field(default_factory=list)  # earlier versions that wait for their turn by name


class Capture:
    """Takes one snapshot's sources; a ``Sink`` and a ``Known`` for the scanner.

    Args:
        writer: Of the metadata archive.
        store: Of contents.
        catalog: The host's memory.
        baseline: The snapshot before.
        mode: Snapshot or WORM.
        result: Counts and lists go there.
        usable: Whether an archive of this local number may be referred to.
        chunker_seed: Keys the cut points.
        target: Files of this size get an archive of their own.
        on_conflict: What to do about contents that changed in WORM mode.
        restore: Puts the old content of a path back in place of a local file; None if no key for it is at hand.
        reread: Which files to read although nothing about them has changed.
        progress: Called with events.
    """

    def __init__(
        self,
        writer: NodeWriter,
        store: ContentStore,
        catalog: Catalog,
        baseline: Baseline,
        *,
        mode: Mode,
        result: BackupResult,
        usable: Callable[[int], bool],
        chunker_seed: int,
        target: int,
        on_conflict: OnConflict | None,
        restore: Callable[[bytes, bytes], None] | None,
        reread: Reread,
        progress: ProgressCallback | None,
    ) -> None:
        self._writer = writer
        self._store = store
        self._catalog = catalog
        self._baseline = baseline
        self._worm = mode is Mode.WORM
        self.result = result
        self._usable = usable
        self._chunker = Chunker(chunker_seed)
        self._target = target
        self._policy = Policy(on_conflict, can_restore=restore is not None)
        self._restore = restore
        self._reread = reread
        self._progress = progress
        self._reported = 0.0
        self._links = Links(worm=self._worm)
        self._take_over_whole = TakeOver(writer, result, usable, self._uses_of)
        self._stack: list[_Level] = []
        self._scanner: Scanner | RemoteScanner
        self._asked: bytes | None = None
        self._old: tuple[bytes, Entry] | None = None
        self._moved_here: tuple[bytes, Entry] | None = None
        self._looked_ns = 0
        self._roots: dict[bytes, bytes] = {}
        self._remote: dict[bytes, bytes] = {}
        self._allow_empty = False
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="rozenfmt-read")

    # --- sources --------------------------------------------------------------------------------

    def begin(self, roots: dict[bytes, bytes], remote: dict[bytes, bytes]) -> None:
        """Go into the snapshot's root.

        Args:
            roots: Local paths of the sources, by name.
            remote: What to call those that are elsewhere, by name.
        """
        self._roots = roots
        self._remote = remote
        known = self._baseline.directory(b"", self._gone)
        self._stack = [_Level(Directory(b""), known, None, runs=self._reread == "none")]

    def tree(self, scanner: Scanner | RemoteScanner, *, allow_empty: bool) -> None:
        """Take a local or remote tree; sources come in ascending order of name."""
        self._allow_empty = allow_empty
        self._looked_ns = time.time_ns()
        self._asked = None
        self._scanner = scanner
        scanner.run(self)

    def finish(self) -> tuple[bytes, Place]:
        """Complete the root; returns its node's id and place, the latter to be asked of the writer after a flush."""
        level = self._stack[-1]
        self._end_run(level, last=True)
        if level.known is not None:
            level.known.finish()
        root = self._complete(level)
        resolve_gone(self._catalog, self._baseline, self.result)
        return root

    def close(self) -> None:
        """End the thread that reads; called in any case."""
        self._reading.shutdown()

    def small_limit(self) -> int:
        """Files up to this size are given whole."""
        return WHOLE_UP_TO if self._worm else CHUNKED_FROM

    def command(self, source: Command) -> None:
        """Take the output of a program.

        Raises:
            SourceError: It cannot be started, or does not exit with 0.
        """
        name = os.fsencode(source.name)
        entry = Entry(name, Kind.FILE, 0o600, os.getuid(), os.getgid(), mtime_ns=time.time_ns())
        shown = os.fspath(source.arguments[0])
        try:
            process = subprocess.Popen(  # noqa: S603 - what the caller says is to be run
                list(source.arguments), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
            )
        except OSError as error:
            msg = f"cannot start {shown!r}: {error.strerror}; nothing was stored"
            raise SourceError(msg) from error
        with process:
            try:
                assert process.stdout is not None
                self._take_parts(entry, _runs(process.stdout), name)
                code = process.wait()
            except BaseException:
                process.kill()
                raise
        if code:
            how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
            msg = f"{shown!r} {how}: its output is not complete, and nothing was stored"
            raise SourceError(msg)
        found = self._find(name)
        old = found[1] if found is not None else None
        self._classify(entry, old, content_same=old is not None and old.content_id == entry.content_id)
        self._add(entry, UNTRUSTED)

    # --- what is known --------------------------------------------------------------------------

    def same(self, name: bytes, stat: os.stat_result) -> bool:
        """Whether a file is as it was, and so is all before it in its leaf; then nothing is to be done now."""
        run = self._run_at(name, Kind.FILE)
        return run is not None and stat.st_nlink == 1 and run.same(signature(stat))

    def _run_at(self, name: bytes, kind: Kind) -> Run | None:
        """The run of unchanged entries at hand, if this is the next one of them."""
        level = self._stack[-1]
        run = level.run
        while True:
            if run is None:
                if not level.runs or level.known is None or level.beside:
                    return None
                run = level.run = self._take_over_whole.run(level.known, level.directory)
                if run is None:
                    return None
            if run.names[run.at] == name:
                return run if run.kinds[run.at] == kind else None
            if not run.complete or level.known is None or not level.known.more:
                return None
            self._end_run(level)
            run = None

    def _end_run(self, level: _Level, *, last: bool = False) -> None:
        """Take the leaf at hand over if all of it was the same, and add what there is of it if not.

        Only at the end of a directory nothing can follow its last leaf; elsewhere one is complete if another follows.
        """
        run, level.run = level.run, None
        if run is None or level.known is None:
            return
        if run.complete and (last or level.known.more):
            self._take_over_whole.take(run, level.known, level.directory)
            self._tick(level.directory.path)
        else:
            self._take_over_whole.give_up(run, level.known, level.directory)

    def unchanged(self, name: bytes, stat: os.stat_result) -> Entry | None:
        """The entry as it was stored, if nothing about the file has changed."""
        self._looked_ns = time.time_ns()
        self._moved_here = None
        found = self._find(name)
        if found is None:
            moved = self._baseline.moved_file(stat) if self._reread == "none" else None
            if moved is not None and self._places_hold(moved[1]):
                self._moved_here = moved
            return None
        seen, old = found
        if (
            not _looks_same(seen, old, stat)
            or not self._places_hold(old)
            or self._reread == "all"
            or (self._reread == "sample" and random.random() < _SAMPLE)  # noqa: S311 - a sample, not a secret
        ):
            return None
        return old

    def ahead(self) -> Callable[[bytes, os.stat_result], bool]:
        """What tells in advance, in order of name, whether files of the directory at hand will be read."""
        known = self._stack[-1].known
        if known is None or self._reread == "all":
            return lambda _name, _stat: True
        again = self._baseline.directory(known.path, lambda _directory, _entry: None)

        def wanted(name: bytes, stat: os.stat_result) -> bool:
            found = again.find(name)
            return found is None or not _looks_same(*found, stat)

        return wanted

    def content_known(self, name: bytes, stat: os.stat_result) -> bool:  # noqa: ARG002 - of the same file as before
        """Whether the file was moved here, as it was."""
        return self._moved_here is not None

    def taken(self, entry: Entry) -> None:
        """A file that has not changed."""
        self.result.same += 1
        self._links.taken(entry)
        self._links.remember(entry)
        assert self._old is not None
        self._add(entry, self._old[0])

    def described(self, entry: Entry) -> None:
        """A file that was moved here: its metadata are new, its content is known."""
        assert self._moved_here is not None
        path, old = self._moved_here
        self._baseline.moved_files[path] = self._path(entry.name)
        _copy_content(old, entry)
        entry.marks |= old.marks & Mark.SPARSE
        self._links.keep(entry, old)
        self._links.remember(entry)
        self._add(entry, self._signature())

    def _find(self, name: bytes) -> tuple[bytes, Entry] | None:
        if self._asked != name:
            self._end_run(self._stack[-1])
            known = self._stack[-1].known
            self._asked = name
            self._old = known.find(name) if known is not None else None
        return self._old

    def _old_of(self, entry: Entry) -> Entry | None:
        """The baseline's entry of this name; one of another kind is gone, and this one is new."""
        if not self._baseline.known:
            return None
        found = self._find(entry.name)
        if found is None:
            return None
        if found[1].kind == entry.kind:
            return found[1]
        known = self._stack[-1].known
        assert known is not None
        self._gone(known.path, found[1])
        self._old = None
        return None

    def _places_hold(self, entry: Entry) -> bool:
        """Whether everything that an entry of the baseline refers to is still there."""
        if entry.xattr_ref is not None and not self._usable(entry.xattr_archive):
            return False
        if not entry.has_content:
            return True
        return self._usable(entry.archive) and self._uses(entry) is not None

    def _uses(self, entry: Entry) -> dict[int, int] | None:
        """Archives that a stored content needs, with bytes; None if one of them is missing."""
        assert entry.content_id is not None
        if entry.size <= CHUNKED_FROM and not entry.marks & Mark.SPARSE:
            return {entry.archive: entry.size}
        found = self._catalog.find_content(entry.content_id)
        if found is None or found[1] != (entry.archive, entry.block, entry.piece):
            return {entry.archive: entry.size} if self._is_data(entry.archive) else None
        uses = self._writer.known_uses(found[2])
        return uses if all(map(self._usable, uses)) else None

    def _is_data(self, archive: int) -> bool:
        return self._catalog.kind_of(archive) == 1

    def _uses_of(self, entry: Entry) -> Uses | None:
        """Archives that an entry's content needs, for the writer; it knows itself what is in parts and new."""
        return self._uses(entry) if entry.has_content and entry.archive != NODE else {}

    # --- what the scanner finds -----------------------------------------------------------------

    @property
    def knows(self) -> bool:
        """Whether there is anything to compare files with."""
        return self._baseline.known

    def enter(self, entry: Entry) -> None:
        """A directory begins."""
        self._looked_ns = time.time_ns()  # before any of its files are looked at
        path = self._path(entry.name)
        above = self._stack[-1]
        if self._enter_passing(entry, path, above):
            return
        old = self._old_of(entry)
        known, moved = None, False
        if old is not None:
            assert above.known is not None
            known = self._baseline.directory(_join(above.known.path, entry.name), self._gone)
        else:
            was = self._baseline.moved_directory(path, self._scanner.stat)
            if was is not None:
                known, moved = self._baseline.directory(was, self._gone), True
                self._catalog.drop_tree(was)
        inode = self._scanner.stat.st_ino
        before = SIGNATURE.unpack(self._old[0])[3] if old is not None and self._old is not None else 0
        directory = Directory(path, above.directory.replaced or inode != before)
        so_far = self.result
        runs = above.runs and not moved and not directory.replaced
        self._stack.append(
            _Level(directory, known, old, moved, inode, runs=runs, new_before=so_far.new, entries_before=so_far.entries)
        )
        self._asked = None

    def _enter_passing(self, entry: Entry, path: bytes, above: _Level) -> bool:
        """Go into a directory that may turn out to be the same, as everything before it in its leaf."""
        run = self._run_at(entry.name, Kind.DIRECTORY)
        if run is None:
            return False
        assert above.known is not None
        known = self._baseline.directory(_join(above.known.path, entry.name), self._gone)
        inode = self._scanner.stat.st_ino
        replaced = above.directory.replaced or inode != run.inode
        so_far = self.result
        self._stack.append(
            _Level(
                Directory(path, replaced),
                known,
                None,
                inode=inode,
                runs=not replaced,
                passing=True,
                new_before=so_far.new,
                entries_before=so_far.entries,
            )
        )
        self._asked = None
        return True

    def leave(self, entry: Entry) -> None:
        """A directory ends."""
        self._looked_ns = time.time_ns()
        level = self._stack.pop()
        known, unread = level.known, entry.marks & Mark.UNREADABLE
        if known is not None:
            self._refuse_empty(entry, level)
            if not unread:
                self._stack.append(level)  # what is carried over goes into this directory
                self._end_run(level, last=True)
                known.finish()
                self._stack.pop()
        if unread and self._worm and level.passing:
            self._look_up(level, entry)
        if unread and self._worm and level.old is not None and level.old.child is not None:
            assert known is not None
            entry.marks |= Mark.WITHHELD
            self._take_over(known.path, level.directory)
        entry.child, (entry.archive, entry.block, entry.piece) = self._complete(level)
        not_empty = self.result.entries > level.entries_before  # empty directories are all alike
        if known is None and self._baseline.known and entry.child is not None and not_empty:
            self._catalog.note_new(entry.child, level.directory.path, self.result.new - level.new_before)
        self.result.directories += 1
        self._asked = None
        seen = facts_signature(entry, level.inode)
        if level.passing:
            run = self._stack[-1].run
            if run is not None and entry.archive != NODE and run.same(seen):
                self._count(entry)
                return
            self._look_up(level, entry)
        self._add(entry, seen)

    def _look_up(self, level: _Level, entry: Entry) -> None:
        """What was taken for the same is not: look up what it was."""
        level.passing = False
        self._asked = None
        level.old = self._old_of(entry)

    def _refuse_empty(self, entry: Entry, level: _Level) -> None:
        """A source that has become empty is more likely a disk that is not mounted than a deletion of everything."""
        empty = not level.directory.entries and not level.directory.leaves and (level.run is None or not level.run.at)
        was_empty = level.known is None or level.known.empty
        if len(self._stack) == 1 and empty and not was_empty and not self._allow_empty:
            where = os.fsdecode(self._roots.get(entry.name) or self._remote[entry.name])
            msg = (
                f"{where!r} is empty, and was not before: is its disk mounted? Nothing was stored. "
                "If it is meant to be empty, say so (allow_empty)"
            )
            raise SourceError(msg)

    def _complete(self, level: _Level) -> tuple[bytes, Place]:
        self._put_beside(level, None)
        node = self._writer.complete(level.directory)
        if level.known is not None and not level.moved:
            for first in level.known.firsts:
                if first not in level.directory.firsts:
                    self._catalog.drop_leaf(level.directory.path, first)
        return node

    def _take_over(self, was: bytes, directory: Directory) -> None:
        """WORM: a directory that cannot be read keeps what it had; nodes that are the same are not written again."""
        stack: list[tuple[Directory, bytes, Iterator[tuple[bytes, Entry]], tuple[bytes, Entry] | None]]
        stack = [(directory, was, self._baseline.entries(was), None)]
        while stack:
            here, path, entries, own = stack[-1]
            item = next(entries, None)
            if item is None:
                stack.pop()
                if own is not None:
                    seen, entry = own
                    entry.child, (entry.archive, entry.block, entry.piece) = self._writer.complete(here)
                    self._writer.add(stack[-1][0], entry, seen, {})
                continue
            seen, entry = item
            self._count(entry)
            if entry.kind == Kind.DIRECTORY:
                self.result.directories += 1
                below = _join(path, entry.name)
                inside = Directory(_join(here.path, entry.name), replaced=here.replaced)
                stack.append((inside, below, self._baseline.entries(below), item))
                continue
            if not self._places_hold(entry):
                self._problem(_join(here.path, entry.name), "damaged", "what was stored before is missing in the vault")
                entry.content_id, entry.xattr_ref = None, None
                entry.marks, seen = entry.marks | Mark.UNREADABLE, UNTRUSTED
            if entry.link_group is not None:
                self._links.withhold(entry)
            self.result.same += 1
            self._writer.add(here, entry, seen, self._uses_of(entry) or {})

    def small(self, entry: Entry, data: bytes) -> None:
        """A file with its whole content."""
        old = self._old_of(entry)
        one = self._store.id_of(data) if data else None
        if self._conflicts(old, one):
            assert old is not None
            if not self._settle(entry, old, one, len(data)):
                return
        uses = self._store_whole(entry, data, one) if one is not None else {}
        if entry.link_group is not None:
            self._links.keep(entry, old)
            self._links.remember(entry)
        self._classify(entry, old, content_same=old is not None and old.content_id == one)
        self._add(entry, self._signature(), uses)

    def _store_whole(self, entry: Entry, data: bytes, one: bytes) -> Uses:
        """Store a content as one piece, unless it was stored in parts before, in another mode."""
        entry.size, entry.content_id = len(data), one
        if len(data) > CHUNKED_FROM:
            found = self._catalog.find_content(one)
            uses = self._writer.known_uses(found[2]) if found is not None else {}
            if found is not None and found[0] == len(data) and all(map(self._usable, uses)):
                entry.archive, entry.block, entry.piece = found[1]
                return uses
        _, (entry.archive, entry.block, entry.piece) = self._store.piece(data, one)
        return {entry.archive: entry.size}

    def stream(self, entry: Entry, reader: FileReader) -> None:
        """A big or sparse file."""
        old = self._old_of(entry)
        sure = self._signature()
        path = self._path(entry.name)
        if self._worm and old is not None and old.kind == Kind.FILE:
            one, size = self._hash(reader, path)
            if (
                not reader.finish().marks & Mark.UNREADABLE
                and self._conflicts(old, one)
                and not (self._settle(entry, old, one, size))
            ):
                return
            again = reader.rewind()
            assert again
        own = old is None and entry.size >= self._target
        if own:
            self._store.begin_own(entry.size)
        while True:
            self._take_parts(
                entry, reader, path, background=entry.size > 2 * READ_SIZE and isinstance(self._scanner, Scanner)
            )
            final = reader.finish()
            if not final.marks & Mark.CHANGED or final.marks & Mark.UNREADABLE or not reader.rewind():
                break
            sure = UNTRUSTED  # what was read now is not what the scanner looked at
        if own:
            self._store.end_own()
        _copy_content(entry, final)
        self._links.keep(entry, old)
        final.link_group = entry.link_group
        if final.marks & Mark.UNREADABLE:
            final.content_id = None
        if final.marks & (Mark.CHANGED | Mark.UNREADABLE):
            sure = UNTRUSTED
        if final.marks & Mark.UNREADABLE and self._keep_old(old):
            return
        self._links.remember(final)
        same = old is not None and old.content_id == final.content_id
        self._classify(final, old, content_same=same)
        self._add(final, sure)

    def _take_parts(self, entry: Entry, runs: Iterable[bytes | Hole], path: bytes, *, background: bool = False) -> None:
        """Store a content cut by content; small ones as one piece.

        In the background only what does not keep one waiting: a program or a network that hangs could not be left.
        """
        entry.content_id, entry.size = None, 0
        head: list[bytes | Hole] = []
        size, whole = 0, True
        source = iter(runs)
        for run in source:
            head.append(run)
            size += run.length if isinstance(run, Hole) else len(run)
            if isinstance(run, Hole) or size > CHUNKED_FROM:
                whole = False
                break
        if whole:
            data = b"".join(run for run in head if isinstance(run, bytes))
            if data:
                entry.size = len(data)
                entry.content_id, (entry.archive, entry.block, entry.piece) = self._store.piece(data)
            return
        chunks = self._chunker.cut(_chain(head, source))
        parts = Parts(self._store, chunks, reading=self._reading if background else None, tick=lambda: self._tick(path))
        place = self._writer.table(parts)
        entry.size = parts.length
        if place is not None:
            entry.content_id = parts.content_id
            entry.archive, entry.block, entry.piece = place

    def link(self, entry: Entry) -> None:
        """Another name of a file that was delivered before."""
        old = self._old_of(entry)
        first = self._links.first(entry)
        if first is not None:
            _copy_content(first, entry)
            entry.marks = first.marks
        elif entry.size:
            self._problem(self._path(entry.name), "unreadable", "another name of this file was not stored")
            entry.marks |= Mark.UNREADABLE
        if self._conflicts(old, entry.content_id) and not entry.marks & Mark.UNREADABLE:
            assert old is not None
            if not self._settle(entry, old, entry.content_id, entry.size):
                return
        if old is None and self._moved_here is not None:
            self._baseline.moved_files[self._moved_here[0]] = self._path(entry.name)
        else:
            self._classify(entry, old, content_same=old is not None and old.content_id == entry.content_id)
        self._add(entry, self._signature())

    def other(self, entry: Entry) -> None:
        """What has no content to read, or whose content cannot be read."""
        seen = facts_signature(entry)
        run = self._run_at(entry.name, entry.kind) if entry.kind != Kind.FILE else None
        if run is not None and run.same(seen):
            self.result.same += 1
            self._count(entry)
            return
        old = self._old_of(entry)
        if entry.marks & Mark.UNREADABLE and self._keep_old(old):
            return
        same = old is not None and not entry.marks & Mark.UNREADABLE
        self._links.keep(entry, old)
        self._classify(entry, old, content_same=same)
        self._add(entry, seen)

    def _keep_old(self, old: Entry | None) -> bool:
        """WORM: a file that cannot be read keeps the content that it had."""
        if not self._worm or old is None or not old.has_content or not self._places_hold(old):
            return False
        old.marks |= Mark.WITHHELD
        self._links.withhold(old)
        self.result.same += 1
        self._add(old, UNTRUSTED)
        return True

    # --- WORM -----------------------------------------------------------------------------------

    def _conflicts(self, old: Entry | None, one: bytes | None) -> bool:
        return (
            self._worm
            and old is not None
            and old.kind == Kind.FILE
            and not old.marks & (Mark.UNREADABLE | Mark.CHANGED)
            and old.content_id != one
        )

    def _settle(self, entry: Entry, old: Entry, one: bytes | None, size: int) -> bool:
        """Ask about a changed content; False if the entry is dealt with, True if the new content is to be stored."""
        path = self._path(entry.name)
        local = self.locate(path)
        conflict = Conflict(
            path,
            local or b"",
            old.size,
            size,
            old.mtime_ns,
            entry.mtime_ns,
            old.content_id or b"",
            one or b"",
            can_restore=self._restore is not None and local is not None,
        )
        answer = self._policy.answer(conflict)
        self.result.conflicts.append(conflict)
        if answer == "accept":
            return True
        held = self._places_hold(old)
        if not held:
            self._problem(path, "damaged", "the content stored before is missing in the vault: the new one is stored")
            conflict.answer = "accept"
            return True
        if answer == "keep-both":
            kept = replace(old, marks=old.marks | Mark.KEPT, link_group=None)
            kept.name = old.name + b".~" + (old.content_id or b"").hex()[:8].encode()
            self._stack[-1].beside.append(kept)
            return True
        if answer == "restore":
            assert self._restore is not None
            assert local is not None
            self._restore(path, local)
        else:
            old.marks |= Mark.WITHHELD
        self._links.withhold(old)
        self.result.same += 1
        entry.link_group = None  # the content was not taken: the next name of the file is read again, and asked about
        self._add(old, UNTRUSTED)
        return False

    def _put_beside(self, level: _Level, before: bytes | None, beside: Entry | None = None) -> None:
        """Put earlier versions into the directory whose turn by name has come."""
        level.beside.sort(key=lambda kept: kept.name)
        while level.beside and (before is None or level.beside[0].name <= before):
            kept = level.beside.pop(0)
            if kept.name == before:
                if beside is not None and beside.marks & Mark.KEPT and beside.content_id == kept.content_id:
                    continue  # this version is kept already
                path = _join(level.directory.path, kept.name)
                self._problem(path, "name", "an earlier version should stand here: its name is taken")
                continue
            self._count(kept)
            self._writer.add(level.directory, kept, UNTRUSTED, self._uses_of(kept) or {})

    # --- what is gone ---------------------------------------------------------------------------

    def _gone(self, directory: bytes, entry: Entry) -> None:
        """An entry of the baseline that was not found where it was."""
        if entry.marks & Mark.KEPT and self._places_hold(entry):
            self._add(entry, UNTRUSTED)
            return
        path = _join(directory, entry.name)
        self._catalog.note_gone((entry.child or entry.content_id) or b"", path, int(entry.kind))

    # --- putting in -----------------------------------------------------------------------------

    def _add(self, entry: Entry, seen: bytes, uses: Uses | None = None) -> None:
        """Put an entry into the directory at hand; what its content uses is found out if it is not given."""
        name = entry.name
        if not -_TIME_LIMIT <= entry.mtime_ns < _TIME_LIMIT:
            self._problem(self._path(name), "times", "its time lies outside of 1677 to 2262")
            entry.mtime_ns = max(-_TIME_LIMIT, min(entry.mtime_ns, _TIME_LIMIT - 1))
        if entry.xattrs:
            one, (archive, block, piece) = self._writer.attributes(entry.xattrs)
            entry.xattr_ref, entry.xattr_archive, entry.xattrs = (one, block, piece), archive, ()
        level = self._stack[-1]
        if level.beside:
            self._put_beside(level, name, entry)
        self._count(entry)
        self._writer.add(level.directory, entry, seen, (self._uses_of(entry) or {}) if uses is None else uses)
        if not self.result.entries & 63:
            self._tick(name)

    def _count(self, entry: Entry) -> None:
        self.result.entries += 1
        if entry.has_content:
            self.result.content_bytes += entry.size

    def _classify(self, entry: Entry, old: Entry | None, *, content_same: bool) -> None:
        """Count an entry as new, changed, of changed metadata, or the same."""
        result = self.result
        if old is None:
            result.new += 1
            if self._baseline.known and entry.has_content:
                assert entry.content_id is not None
                self._catalog.note_new(entry.content_id, self._path(entry.name))
        elif not content_same or old.target != entry.target or old.device != entry.device:
            result.changed += 1
        elif _facts(entry) != _facts(old) or self._attributes_differ(entry, old):
            result.metadata += 1
        else:
            result.same += 1

    def _attributes_differ(self, entry: Entry, old: Entry) -> bool:
        if not entry.xattrs:
            return old.xattr_ref is not None
        return old.xattr_ref is None or self._writer.attributes(entry.xattrs)[0] != old.xattr_ref[0]

    def _signature(self) -> bytes:
        """Signature of the file at hand; untrusted if it was written too short a time ago to tell."""
        stat = self._scanner.stat
        if max(stat.st_mtime_ns, stat.st_ctime_ns) > self._looked_ns - _RACY_NS:
            return UNTRUSTED
        return signature(stat)

    def _path(self, name: bytes) -> bytes:
        return _join(self._stack[-1].directory.path, name)

    def locate(self, path: bytes) -> bytes | None:
        """Local path of something in the snapshot; None if it is in no source of this run."""
        name, _, rest = path.partition(b"/")
        root = self._roots.get(name)
        if root is None:
            return None
        return root + b"/" + rest if rest else root

    def _hash(self, reader: FileReader, path: bytes) -> tuple[bytes | None, int]:
        whole, size = blake3(), 0
        for run in self._ticking(reader, path):
            if isinstance(run, Hole):
                hash_zeros(whole, run.length)
                size += run.length
            else:
                whole.update(run)
                size += len(run)
        return (self._store.content_id(whole.digest(), size) if size else None), size

    # --- events ---------------------------------------------------------------------------------

    def _problem(self, path: bytes, what: str, detail: str) -> None:
        self.report(Problem(path, what, detail))

    def report(self, problem: Problem) -> None:
        """Something that could not be captured."""
        self.result.problem_count += 1
        if len(self.result.problems) < 10_000:
            self.result.problems.append(problem)
        if self._progress is not None:
            self._progress(problem)

    def _ticking(self, runs: Iterable[bytes | Hole], path: bytes) -> Iterator[bytes | Hole]:
        for run in runs:
            yield run
            self._tick(path)

    def _tick(self, path: bytes) -> None:
        if self._progress is not None:
            now = time.monotonic()
            if now - self._reported >= _PROGRESS_SECONDS:
                self._reported = now
                self.emit(path)

    def emit(self, path: bytes) -> None:
        """Send a ``Progress`` event."""
        if self._progress is not None:
            done = self.result
            self._progress(Progress("backup", done.entries, done.content_bytes, self._store.written, None, path))


def _looks_same(seen: bytes, old: Entry, stat: os.stat_result) -> bool:
    """Whether a file is as it was, by what can be seen without reading it."""
    return seen != UNTRUSTED and seen == signature(stat) and old.kind == Kind.FILE and not old.marks & ~Mark.SPARSE


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _copy_content(source: Entry, target: Entry) -> None:
    target.content_id, target.size = source.content_id, source.size
    target.archive, target.block, target.piece = source.archive, source.block, source.piece


def _facts(entry: Entry) -> tuple[object, ...]:
    return (
        *(entry.mode, entry.uid, entry.gid, entry.user, entry.group, entry.mtime_ns, entry.link_group),
        entry.marks & ~Mark.WITHHELD,
    )


def _runs(file: object) -> Iterator[bytes]:
    read = file.read  # type: ignore[attr-defined]
    while data := read(_RUN):
        yield data


def _chain(head: list[bytes | Hole], rest: Iterator[bytes | Hole]) -> Iterator[bytes | Hole]:
    yield from head
    head.clear()
    yield from rest
