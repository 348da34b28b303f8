"""Requests to a remote file system under way beside the walk."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pool"]

T = TypeVar("T")


class Pool:
    """A few threads.  They never keep the process alive: a request may hang for as long as a server likes.

    Args:
        threads: How many, at most.
    """

    def __init__(self, threads: int) -> None:
        self._most = threads
        self._threads: list[threading.Thread] = []
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._closed = False

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have something done; in the order of asking, as far as there are threads."""
        future: Future[T] = Future()
        self._queue.put((future, work))
        if len(self._threads) < self._most:
            thread = threading.Thread(target=self._run, name="rozenfmt-source", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def _run(self) -> None:
        while (task := self._queue.get()) is not None:
            future, work = task
            if self._closed:
                future.cancel()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - for whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)
            del task, future, work  # nor keep the last content while waiting for the next one

    def close(self) -> None:
        """Begin nothing more; what is under way is left to end by itself."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)

    def join(self, timeout: float) -> None:
        """Wait for what is under way, at most so many seconds for each thread."""
        for thread in self._threads:
            thread.join(timeout)
