"""Worker threads that seal and open blocks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Final

__all__ = ["worker_pool"]

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
