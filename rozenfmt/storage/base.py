"""The narrow door to storage: what the library needs of it, and nothing more.

A ``Storage`` is a folder of objects in some back-end; names in it are ``/``-separated
strings.  Writing is explicit: an ``Upload`` shows nothing to anybody until ``commit``
returns; ``discard`` removes every trace; garbage collection does neither.  Retries and
resumption belong behind this door (see ``retry`` and ``Upload.checkpoint`` later), never
in front of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["ObjectInfo", "Storage", "Upload"]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing shows it: its name within the storage, and its size in bytes."""

    name: str
    size: int


class Upload(Protocol):
    """One object on its way; not visible to readers before ``commit`` has returned.

    States: open, committed, discarded, failed.  Any error makes it failed; a failed upload
    can only be discarded.  Calls that the state does not allow raise ``UsageError``.
    """

    name: str

    @property
    def written(self) -> int:
        """Bytes accepted so far."""
        ...

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Accept the next bytes, blocking while the storage is slower (backpressure)."""
        ...

    def commit(self) -> ObjectInfo:
        """Make the object visible, whole and durable; compare its size with what was written.

        Raises:
            StorageError: It could not be made visible, or its size is wrong; then it is discarded.
            ConflictError: ``overwrite`` was False and the object exists.
        """
        ...

    def discard(self) -> None:
        """Remove every trace of an uncommitted upload; harmless when called again."""
        ...


class Storage(Protocol):
    """A folder of objects. Safe to use from several threads."""

    url: str

    def size(self, name: str) -> int:
        """Size of an object in bytes; ``StorageError`` if there is none."""
        ...

    def read(self, name: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``; one range request; short answers raise ``StorageError``."""
        ...

    def read_suffix(self, name: str, length: int) -> tuple[int, bytes]:
        """The object's size and its last ``length`` bytes (all if it is shorter); one request where possible."""
        ...

    def stream(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end`` in pieces of about 1 to 8 MiB, read ahead where that helps."""
        ...

    def create(
        self,
        name: str,
        *,
        overwrite: bool = False,
        part_size: int | None = None,
        expected_size: int | None = None,
    ) -> Upload:
        """Begin an object. ``part_size`` in bytes is for multipart back-ends; ``expected_size`` helps to choose it."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose name starts with ``prefix``, sorted by name, at all depths; never uploads under way."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; ``StorageError`` if there is none."""
        ...
