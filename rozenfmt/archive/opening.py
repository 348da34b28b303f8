"""Finding the storage of an object, and giving its connections back."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from rozenfmt.errors import StorageError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from rozenfmt.events import ProgressCallback
    from rozenfmt.storage.bandwidth import Bandwidth
    from rozenfmt.storage.base import Storage
    from rozenfmt.storage.retry import RetryPolicy

__all__ = ["close_storage", "in_threads", "opened", "retries_told", "stop_workers"]

T = TypeVar("T")
U = TypeVar("U")


def close_storage(storage: Storage) -> None:
    """Close a storage's connections, if its back-end has any."""
    close = getattr(storage, "close", None)
    if close is not None:
        close()


@contextmanager
def retries_told(storage: Storage, progress: ProgressCallback | None) -> Iterator[None]:
    """Tell the callback of an operation of retries, for as long as it runs."""
    retry = getattr(storage, "retry", None)
    if retry is None:
        yield
        return
    with retry.reported_to(progress):
        yield


def stop_workers(pool: Executor, storage: Storage | None) -> None:
    """End threads that work with a storage: when the user interrupts, without waiting for its answers."""
    interrupted = isinstance(sys.exc_info()[1], (KeyboardInterrupt, SystemExit))
    interrupt = getattr(storage, "interrupt", None)
    if interrupted and interrupt is not None:
        interrupt()
    pool.shutdown(wait=True, cancel_futures=True)


def in_threads(storage: Storage, function: Callable[[T], U], items: Sequence[T], *, workers: int, name: str) -> list[U]:
    """What ``function`` makes of each item, in order; it reads from the storage, in threads."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(min(workers, len(items) or 1), thread_name_prefix=name)
    try:
        return list(pool.map(function, items))
    finally:
        stop_workers(pool, storage)


@contextmanager
def opened(
    location: str | os.PathLike[str],
    storage_options: dict[str, Any] | None,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
) -> Iterator[tuple[Storage, str]]:
    """The storage and the name of an object, for as long as it is worked on."""
    from rozenfmt.storage import resolve

    storage, name = resolve(location, storage_options, retry=retry, bandwidth=bandwidth)
    try:
        yield storage, name
    except BaseException:
        with suppress(StorageError):  # what went wrong first is what matters
            close_storage(storage)
        raise
    close_storage(storage)
