"""The narrow door to storage: what the library needs of it, and nothing more.

A ``Storage`` is a folder of objects in some back-end; names in it are ``/``-separated
strings.  Writing is explicit: an ``Upload`` shows nothing to anybody until ``commit``
returns; ``discard`` removes every trace; garbage collection does neither.  Retries belong
behind this door.  So does what it takes to go on with an upload after a crash: ``mark`` a position,
``state_at`` says how to get there, ``Storage.resume`` goes on from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Leftover", "Mark", "ObjectInfo", "Storage", "Upload", "UploadState"]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing shows it: its name within the storage, and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A position in an upload from which its writer could go on.

    Attributes:
        offset: Bytes before it.
        tail: The last of these bytes, as far as the storage cannot keep them yet.
    """

    offset: int
    tail: bytes = b""


@dataclass(frozen=True, slots=True)
class UploadState:
    """What it takes to go on with an unfinished upload; holds nothing secret.

    Attributes:
        name: Of the object.
        mark: Where to go on; everything before it is in the storage, or in ``mark.tail``.
        details: What the back-end needs: text, numbers, bytes, and lists and maps of them.
    """

    name: str
    mark: Mark
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Leftover:
    """An upload that somebody began and did not finish.

    Attributes:
        name: Of the object that it would become.
        upload: What the back-end calls it.
        begun_ns: When, in nanoseconds since 1970, by the storage's clock; 0 if it is not known.
    """

    name: str
    upload: str
    begun_ns: int = 0


class Upload(Protocol):
    """One object on its way; not visible to readers before ``commit`` has returned.

    States: open, committed, discarded, failed, suspended.  Any error makes it failed; a failed
    upload can only be discarded or suspended.  Calls that the state does not allow raise ``UsageError``.
    """

    name: str

    @property
    def written(self) -> int:
        """Bytes accepted so far."""
        ...

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Accept the next bytes, blocking while the storage is slower (backpressure)."""
        ...

    def commit(self, *, keep: bool = False) -> ObjectInfo:
        """Make the object visible, whole and durable; compare its size with what was written.

        Args:
            keep: Do not discard after a failure: the caller discards or suspends.

        Raises:
            StorageError: It could not be made visible, or its size is wrong; then it is discarded.
            ConflictError: ``overwrite`` was False and the object exists.

        """
        ...

    def discard(self) -> None:
        """Remove every trace of an uncommitted upload; does nothing when called again or after a commit.

        Raises:
            StorageError: Traces are left; it may be called again.

        """
        ...

    @property
    def leftover(self) -> Leftover | None:
        """What would be left in the storage if the process died now; None if nothing was sent yet."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes that were written and would be in the ``tail`` of a mark now."""
        ...

    def mark(self) -> Mark | None:
        """Mark the current position; None where nothing of an unfinished upload could be kept."""
        ...

    def state_at(self, mark: Mark) -> UploadState | None:
        """How to go on from a mark after a crash; None while bytes before it are not known to be stored."""
        ...

    @property
    def replaces_parts(self) -> bool:
        """Whether what was sent after a mark may differ when it is sent again.

        Where not, the writer has to keep what it writes until the next state: only the same bytes will do.
        """
        ...

    def can_go_on(self) -> bool:
        """Whether an upload that was resumed is of use, after it was given again what its writer has kept."""
        ...

    def suspend(self) -> None:
        """End without removing what is stored, for ``Storage.resume``; requests in flight are cancelled."""
        ...


class Storage(Protocol):
    """A folder of objects. Safe to use from several threads."""

    url: str

    def size(self, name: str) -> int:
        """Size of an object in bytes; ``StorageError`` if there is none."""
        ...

    def read(self, name: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``, by one request; ``StorageError`` if there are fewer."""
        ...

    def read_suffix(self, name: str, length: int) -> tuple[int, bytes]:
        """The object's size and its last ``length`` bytes, or all of them; one request if possible."""
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
        """Begin an object.

        Args:
            name: Its name; components between slashes are not empty, ``.`` or ``..``.
            overwrite: Whether an existing object is replaced, at ``commit``.
            part_size: Bytes of a part, for multipart back-ends; None lets the back-end choose.
            expected_size: Bytes that will be written, as far as known; helps to choose.

        Raises:
            ConflictError: ``overwrite`` is False and the object is known to exist already; where
                that is not known yet, ``write`` or ``commit`` raises it.
            StorageError: The storage cannot be written to.
            UsageError: The name or ``part_size`` is not possible here.

        """
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose name starts with ``prefix``, by name, at all depths; never uploads under way."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; ``StorageError`` if there is none."""
        ...

    def resume(self, state: UploadState) -> Upload | None:
        """Go on with an unfinished upload; None if it is gone, or is not what it was.

        Raises:
            StorageError: The storage cannot be asked.

        """
        ...

    def leftovers(self, prefix: str) -> Iterator[Leftover]:
        """Unfinished uploads of objects whose name starts with ``prefix``, whoever began them."""
        ...

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove what is stored of an unfinished upload; nothing happens if it is gone."""
        ...
