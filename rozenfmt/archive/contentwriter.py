"""Writes contents into a restore: blocks are fetched ahead, every piece is compared with its id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rozenfmt.errors import ArchiveError, BlockError, StorageError
from rozenfmt.format import crypto
from rozenfmt.format.blocks import Block, cut_pieces, piece_digest
from rozenfmt.format.nodes import Entry
from rozenfmt.tree.content import Hole

from .fetch import Fetcher
from .steps import Lose, Step, Task, steps
from .streamwriter import hash_zeros
from .workers import worker_pool

if TYPE_CHECKING:
    from blake3 import blake3

    from rozenfmt.tree.restore import FileWriter, Restorer

    from .treereader import TreeReader

__all__ = ["ContentWriter"]

# Beyond this, the zeros of a content's holes are not hashed: its stored parts are checked one by one.
_HASHED_HOLES: Final = 64 << 30


@dataclass(slots=True)
class _Writing:
    """A file that is being written, and the hash of its content as far as it is needed."""

    task: Task
    file: FileWriter
    whole: blake3 | None
    holes: int = 0
    hashing: Future[None] | None = None

    def hash(self, pieces: Sequence[memoryview], pool: ThreadPoolExecutor) -> None:
        """Have the next pieces hashed while they are written."""
        self.wait()
        if self.whole is not None:
            self.hashing = pool.submit(_hash, self.whole, pieces)

    def hash_hole(self, length: int) -> None:
        """Count a hole as what it reads as, unless that would take for ever."""
        self.wait()
        self.holes += length
        if self.holes > _HASHED_HOLES:
            self.whole = None
        if self.whole is not None:
            hash_zeros(self.whole, length)

    def wait(self) -> None:
        """Wait until what was given is hashed."""
        if self.hashing is not None:
            self.hashing.result()
            self.hashing = None


def _hash(whole: blake3, pieces: Sequence[memoryview]) -> None:
    for piece in pieces:
        whole.update(piece)


class ContentWriter:
    """Writes the contents of files.

    Args:
        tree: What they are in.
        restorer: Where to.
        workers: Threads that fetch and open blocks.
        prepare: Gives an entry its extended attributes.
        lose: Told of a file whose content cannot be read.
        tick: Told of the file that is being written.
    """

    def __init__(
        self,
        tree: TreeReader,
        restorer: Restorer,
        workers: int,
        *,
        prepare: Callable[[Entry, tuple[bytes, ...]], Entry],
        lose: Lose,
        tick: Callable[[tuple[bytes, ...]], None],
    ) -> None:
        self._tree = tree
        self._restorer = restorer
        self._prepare = prepare
        self._lose = lose
        self._tick = tick
        self._fetcher = Fetcher(tree, workers, digests=True)
        self._hashing = worker_pool(1, "hash")
        self._id_key: bytes | None = None  # of one archive, or of the host whose archives all of them are
        self._writing: _Writing | None = None

    def close(self) -> None:
        """Stop the workers."""
        self._fetcher.close()
        self._hashing.shutdown(wait=True, cancel_futures=True)

    def write(self, tasks: list[Task]) -> None:
        """Write the contents of these files, all of which have one."""
        try:
            for step, ready in self._fetcher.blocks(steps(self._tree, tasks, self._lose)):
                if step.parts is None:
                    self._group(step.tasks, ready)
                elif not step.tasks[0].dead:
                    self._part(step.tasks[0], step, ready)
        finally:
            self._end_file()

    def _group(self, tasks: Sequence[Task], ready: Future[Block] | None) -> None:
        assert ready is not None
        try:
            block = ready.result()
        except (ArchiveError, StorageError) as error:
            for task in tasks:
                self._lose(task, error)
            return
        for task in tasks:
            entry = task.entry
            try:
                data = self._checked(block, b"PACK", entry.archive, entry.piece, entry.size, entry.content_id)
            except ArchiveError as error:
                self._lose(task, error)
                continue
            self._restorer.small(self._prepare(entry, task.path), data, task.parent)
            self._tick(task.path)

    def _checked(
        self, block: Block, block_type: bytes, number: int, piece: int, length: int, expected: bytes | None
    ) -> memoryview:
        """A piece of a block, compared with its length and id."""
        if self._id_key is None:
            self._id_key = self._tree.require_read()
        if not block.opened:
            self._tree.require_read(number)
        pieces = cut_pieces(block) if block.type == block_type and block.opened else []
        data = pieces[piece] if piece < len(pieces) else memoryview(b"")
        if len(data) != length or crypto.content_id(self._id_key, piece_digest(block, piece), length) != expected:
            msg = "a content is not the one that its id names: the file is not restored"
            raise BlockError(msg, object=self._tree.object_name(number), block=block.sequence, clause="6.2")
        return data

    # --- contents in parts ----------------------------------------------------------------------

    def _part(self, task: Task, step: Step, ready: Future[Block] | None) -> None:
        try:
            if step.error is not None:
                raise step.error
            if self._writing is None:
                self._writing = self._begin(task)
            if self._writing is not None and not self._write(self._writing, step, ready):
                task.dead = True
        except (ArchiveError, StorageError) as error:
            self._lose(task, error)
        finally:
            if task.dead:
                self._end_file()

    def _begin(self, task: Task) -> _Writing | None:
        from blake3 import blake3

        file = self._restorer.open(self._prepare(task.entry, task.path), task.parent)
        if file is None:
            task.dead = True
            return None
        return _Writing(task, file, None if self._tree.streams_vouched else blake3())

    def _write(self, writing: _Writing, step: Step, ready: Future[Block] | None) -> bool:
        """Write the parts of a step; returns whether there is more to come."""
        parts = step.parts or ()
        if ready is None:
            for part in parts:
                writing.hash_hole(part.length)
                if not writing.file.write(Hole(part.length)):
                    return False
        else:
            block, kind = ready.result(), self._tree.stream_type
            pieces = [self._checked(block, kind, one.archive, one.piece, one.length, one.id) for one in parts]
            writing.hash(pieces, self._hashing)
            if not all(map(writing.file.write, pieces)):
                return False
        self._tick(writing.task.path)
        if step.parts:
            return True
        self._check_whole(writing)
        writing.file.commit()
        return False

    def _check_whole(self, writing: _Writing) -> None:
        """Compare a content with its id, where nothing but its parts has vouched for it."""
        entry = writing.task.entry
        writing.wait()
        if writing.whole is None:
            return
        id_key = self._id_key or self._tree.require_read()
        if crypto.content_id(id_key, writing.whole.digest(), entry.size) != entry.content_id:
            msg = "a content in parts is not the one that its id names: the file is not restored"
            raise BlockError(msg, object=self._tree.object_name(entry.archive), block=entry.block, clause="6.2")

    def _end_file(self) -> None:
        """Remove the file that is being written, unless it is complete."""
        if self._writing is not None:
            self._writing.file.abort()
            self._writing = None
