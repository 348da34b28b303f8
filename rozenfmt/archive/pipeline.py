"""Seals blocks on worker threads and writes them in order, with bounded memory.

Compression, hashing and encryption release the interpreter's lock, so threads suffice.  At
most ``depth`` blocks are under way; a caller that is faster waits here, and so reading
follows the slower of compression and storage.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from rozenfmt.archive.workers import worker_pool
from rozenfmt.errors import BlockError
from rozenfmt.format.recheck import gives_back

if TYPE_CHECKING:
    from rozenfmt.format.blocks import Draft, SealedBlock, Slot
    from rozenfmt.format.crypto import Entropy
    from rozenfmt.format.encoder import Encoder

__all__ = ["Pipeline", "default_workers"]


def default_workers() -> int:
    """Worker threads by default: the processors that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class Pipeline:
    """Between an encoder and the storage.

    Args:
        encoder: Numbers and chains the blocks.
        write: Takes the blocks, in order, on the caller's thread.
        workers: Threads that compress and seal.
        entropy: Gives nonces; called on the workers.
        decode_check: Open and decode every sealed block again before it is written: a fault of an encoder
            or of memory shows now, not when the backup is needed.
    """

    def __init__(
        self,
        encoder: Encoder,
        write: Callable[[SealedBlock], None],
        *,
        workers: int,
        entropy: Entropy = os.urandom,
        decode_check: bool = False,
    ) -> None:
        self._decode_check = decode_check
        self._encoder = encoder
        self._write = write
        self._checking = threading.Semaphore(max(1, workers // 2))
        self._entropy = entropy
        self._depth = workers + 1
        self._pool = worker_pool(workers, "seal")
        self._pending: deque[Future[SealedBlock]] = deque()

    def submit(self, draft: Draft) -> int:
        """Number a draft and have it sealed; returns its number.

        Waits while too many are under way; errors of earlier blocks or of the storage come out here.
        """
        slot = self._encoder.assign(draft)
        self._pending.append(self._pool.submit(self._seal, draft, slot))
        while self._pending and (len(self._pending) > self._depth or self._pending[0].done()):
            self._write_first()
        return slot.sequence

    def _seal(self, draft: Draft, slot: Slot) -> SealedBlock:
        block = draft.seal(slot, self._entropy)
        if self._decode_check:
            with self._checking:  # it takes several times the block in memory
                if not gives_back(draft, block, slot):
                    msg = (
                        "a block did not come back as it was sealed: the machine's memory may be faulty; "
                        "run a memory test"
                    )
                    raise BlockError(msg, block=slot.sequence)
        return block

    def drain(self) -> None:
        """Wait until everything submitted is written."""
        while self._pending:
            self._write_first()

    def wait_for(self, sequence: int) -> None:
        """Wait until a block is written."""
        while self._pending and self._encoder.next_sequence - len(self._pending) <= sequence:
            self._write_first()

    def _write_first(self) -> None:
        block = self._pending[0].result()
        self._pending.popleft()
        self._encoder.commit(block)
        self._write(block)

    def close(self) -> None:
        """Stop the workers; what is not yet begun is dropped."""
        self._pending.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
