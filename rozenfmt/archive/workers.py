"""Worker threads: they seal and open blocks, and read ahead."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from rozenfmt.storage.base import Storage

__all__ = ["in_threads", "stop_workers", "worker_pool"]

T = TypeVar("T")
U = TypeVar("U")

# What blocks are made and opened with, imported where it is used.  Two threads that import the same
# package at the same moment may wait for each other for ever (seen on CPython 3.11 with zstandard).
_USED: Final = (
    "cryptography.hazmat.primitives.ciphers",
    "cryptography.hazmat.primitives.ciphers.aead",
    "lz4.block",
    "nacl.bindings",
    "nacl.exceptions",
    "zstandard",
)


def worker_pool(workers: int, name: str) -> ThreadPoolExecutor:
    """Threads for work on blocks.

    Args:
        workers: How many, 1 or more.
        name: What their names end with.
    """
    for module in _USED:
        import_module(module)
    return ThreadPoolExecutor(workers, thread_name_prefix=f"rozenfmt-{name}")


def stop_workers(pool: Executor, storage: Storage | None) -> None:
    """End threads that work with a storage: when the user interrupts, without waiting for its answers."""
    interrupted = isinstance(sys.exc_info()[1], (KeyboardInterrupt, SystemExit))
    interrupt = getattr(storage, "interrupt", None)
    if interrupted and interrupt is not None:
        interrupt()
    pool.shutdown(wait=True, cancel_futures=True)


def in_threads(storage: Storage, function: Callable[[T], U], items: Sequence[T], *, workers: int, name: str) -> list[U]:
    """What ``function`` makes of each item, in order; it reads from the storage, in threads."""
    pool = worker_pool(min(workers, len(items) or 1), name)
    try:
        return list(pool.map(function, items))
    finally:
        stop_workers(pool, storage)
