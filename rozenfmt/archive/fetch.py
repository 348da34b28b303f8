"""Blocks of a tree's archives in the order in which they are wanted, fetched and opened ahead.

Neighbours in an archive are fetched by one range read.  What is fetched is bounded in bytes, and
what is opened in blocks, since a small stored block may be a big one when it is opened.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from rozenfmt.archive.workers import stop_workers, worker_pool
from rozenfmt.errors import ArchiveError, StorageError
from rozenfmt.format.blocks import cut_pieces, piece_digests

if TYPE_CHECKING:
    from rozenfmt.format.blocks import Block
    from rozenfmt.storage.base import Storage

    from .source import ArchiveSource
    from .treereader import TreeReader

__all__ = ["RUN_BYTES", "Fetcher", "Run", "Wanted", "runs"]

RUN_BYTES: Final = 16 * 1024 * 1024
# Bytes between two blocks that are rather read than asked around: a request takes longer.
_GAP: Final = 256 * 1024
_FETCHED: Final = 64 * 1024 * 1024
_RECENT: Final = 4
_ROWS: Final = 1_024
# Pieces of this length are worth hashing on a worker; for shorter ones, threads wait for each other longer.
_LONG: Final = 64 * 1024

T = TypeVar("T")
Wanted = tuple[T, tuple[int, int] | None]
"""Something, and archive number and block that it needs, if any."""


@dataclass(slots=True)
class _Slot:
    """A block that is wanted at least once."""

    sequence: int
    offset: int = 0
    length: int = 0
    opened: Future[Block] | None = None


@dataclass(slots=True)
class Run(Generic[T]):
    """Neighbouring blocks of an archive, to be fetched by one read.

    Attributes:
        rows: What wants them, in order; without a slot where no block is needed.
        source: The archive; None if the run needs none, or the archive is not to be had.
        number: The archive's number.
        start: Offset in the archive.
        end: Where it ends.
        blocks: Distinct blocks in it.
        error: Why the archive is not to be had.
    """

    rows: deque[tuple[T, _Slot | None]] = field(default_factory=deque)
    source: ArchiveSource | None = None
    number: int = 0
    start: int = 0
    end: int = 0
    blocks: int = 0
    error: ArchiveError | StorageError | None = None
    data: Future[bytes] | None = field(default=None, repr=False)

    @property
    def asks(self) -> bool:
        """Whether it takes a request: what the first read of an archive brought does not."""
        return self.source is not None and not self.source.reader.holds(self.source.base + self.start)

    def takes(self, number: int, offset: int, length: int) -> bool:
        """Whether a block may be fetched with this run."""
        return (
            self.source is not None
            and self.number == number
            and 0 <= offset - self.end <= _GAP
            and offset + length - self.start <= RUN_BYTES
        )


def runs(tree: TreeReader, wanted: Iterable[Wanted[T]]) -> Iterator[Run[T]]:
    """Cut what is wanted into runs, without changing its order.

    A block that was wanted a moment ago is not fetched again.
    """
    recent: OrderedDict[tuple[int, int], _Slot] = OrderedDict()
    run: Run[T] = Run()
    for item, key in wanted:
        if len(run.rows) >= _ROWS:
            yield run
            run = Run()
        if key is None:
            run.rows.append((item, None))
            continue
        slot = recent.get(key)
        if slot is not None:
            recent.move_to_end(key)
            run.rows.append((item, slot))
            continue
        number, sequence = key
        try:
            source = tree.source_of(number)
            offset, length, _, _ = source.place(sequence)
        except (ArchiveError, StorageError) as error:
            yield run
            yield Run(deque([(item, _Slot(sequence))]), number=number, error=error)
            run = Run()
            continue
        if not run.takes(number, offset, length):
            yield run
            run = Run(deque(), source, number, offset, offset)
        slot = recent[key] = _Slot(sequence, offset, length)
        if len(recent) > _RECENT:
            recent.popitem(last=False)
        run.rows.append((item, slot))
        run.end = offset + length
        run.blocks += 1
    yield run


class Fetcher:
    """Fetches and opens blocks ahead of their use.

    Args:
        tree: Whose archives they are in.
        workers: Threads.
        digests: Have them compute the digests of contents too, for a caller who compares their ids.
    """

    def __init__(self, tree: TreeReader, workers: int, *, digests: bool = False) -> None:
        self._tree = tree
        self._pool = worker_pool(workers, "open")
        self._ahead = workers + 2
        self._load = _load_digested if digests else _load
        self._storage: Storage | None = None

    def close(self) -> None:
        """Stop the workers; what is not yet begun is dropped."""
        stop_workers(self._pool, self._storage)

    def blocks(self, wanted: Iterable[Wanted[T]]) -> Iterator[tuple[T, Future[Block] | None]]:
        """What is wanted, in order, each with its block.

        Errors of archives and storage come out of the futures.
        """
        waiting: deque[tuple[T, _Slot | None]] = deque()
        opening = 0
        for run in self._fetched(runs(self._tree, wanted)):
            rows = run.rows
            while rows:  # a row that is done must not hold its block any longer
                item, slot = rows.popleft()
                if slot is not None and slot.opened is None:
                    slot.opened = self._open(run, slot)
                waiting.append((item, slot))
                opening += slot is not None
                # The workers take jobs in order: no opening waits for a read that has not begun.
                while opening > self._ahead:
                    opening -= waiting[0][1] is not None
                    yield _ready(*waiting.popleft())
        while waiting:
            yield _ready(*waiting.popleft())

    def _fetched(self, found: Iterator[Run[T]]) -> Iterator[Run[T]]:
        """Runs, the reads of the following ones under way."""
        pending: deque[Run[T]] = deque()
        size = 0
        for run in found:
            if run.source is not None:
                self._storage = run.source.reader.storage
            if run.source is not None and run.blocks > 1:
                run.data = self._pool.submit(run.source.read, run.start, run.end - run.start)
            pending.append(run)
            size += run.end - run.start
            while len(pending) > 1 and (size > _FETCHED or len(pending) > self._ahead):
                first = pending.popleft()
                size -= first.end - first.start
                yield first
        yield from pending

    def _open(self, run: Run[T], slot: _Slot) -> Future[Block]:
        if run.source is None:
            failed: Future[Block] = Future()
            failed.set_exception(run.error)
            return failed
        return self._pool.submit(self._load, run.source, run, slot)


def _ready(item: T, slot: _Slot | None) -> tuple[T, Future[Block] | None]:
    return item, None if slot is None else slot.opened


def _load(source: ArchiveSource, run: Run[T], slot: _Slot) -> Block:
    if run.data is None:
        return source.load(slot.sequence)
    try:
        data = run.data.result()
    except (ArchiveError, StorageError):
        return source.load(slot.sequence)  # a fault in one block must not take its neighbours along
    start = slot.offset - run.start
    return source.open_block(slot.sequence, memoryview(data)[start : start + slot.length])


def _load_digested(source: ArchiveSource, run: Run[T], slot: _Slot) -> Block:
    block = _load(source, run, slot)
    if block.opened and block.type in (b"PACK", b"FCNT") and len(block.body) >= _LONG * len(cut_pieces(block)):
        piece_digests(block)
    return block
