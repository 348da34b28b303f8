"""Finding the storage of an object, and giving its connections back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rozenfmt.errors import StorageError

if TYPE_CHECKING:
    from rozenfmt.events import ProgressCallback
    from rozenfmt.storage.bandwidth import Bandwidth
    from rozenfmt.storage.base import Storage
    from rozenfmt.storage.retry import RetryPolicy

__all__ = ["close_storage", "opened", "retries_told"]


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
