"""Writes that go on while the caller makes the next buffer."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

__all__ = ["BackgroundWriter"]

_SMALL: Final = 256 << 10  # written sooner than handed over


class BackgroundWriter:
    """Writes to the end of an open file, one buffer at a time, large ones on a thread.

    Args:
        fd: The descriptor; the caller closes it, after ``stop``.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Write after all that came before; bytes, which cannot change, may still be on their way when it returns.

        Raises:
            OSError: This or an earlier write failed.
        """
        self.settle()
        if isinstance(data, memoryview) or len(data) < _SMALL:
            self._write_all(data)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="rozenfmt-write")
        self._pending = self._pool.submit(self._write_all, data)

    def settle(self) -> None:
        """Wait until all is written; ``OSError`` if it was not."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def stop(self) -> None:
        """Nothing touches the descriptor any more, whether or not all was written."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _write_all(self, data: bytes | memoryview) -> None:
        done = os.write(self._fd, data)
        if done < len(data):
            view = memoryview(data)
            while done < len(view):
                done += os.write(self._fd, view[done:])
