"""Finding the storage of an object, and giving its connections back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rozenfmt.errors import StorageError

if TYPE_CHECKING:
    from rozenfmt.storage.base import Storage

__all__ = ["close_storage", "opened"]


def close_storage(storage: Storage) -> None:
    """Close a storage's connections, if its back-end has any."""
    close = getattr(storage, "close", None)
    if close is not None:
        close()


@contextmanager
def opened(location: str | os.PathLike[str], storage_options: dict[str, Any] | None) -> Iterator[tuple[Storage, str]]:
    """The storage and the name of an object, for as long as it is worked on."""
    from rozenfmt.storage import resolve

    storage, name = resolve(location, storage_options)
    try:
        yield storage, name
    except BaseException:
        with suppress(StorageError):  # what went wrong first is what matters
            close_storage(storage)
        raise
    close_storage(storage)
