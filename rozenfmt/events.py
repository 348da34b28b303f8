"""Typed progress and log events.

Long operations take ``progress=``, a callable that is given these objects on the caller's
thread or on a worker's; it must be quick and must not raise.  ``Retry`` comes on a thread that
waits for the storage, never on the thread of an event loop, and never twice at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Event", "Problem", "Progress", "ProgressCallback", "Retry"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an operation is; sent a few times a second.

    Attributes:
        operation: ``create``, ``check``, ``extract``, ``salvage`` or ``compare``; of a vault ``backup``,
            ``restore``, ``verify``, ``rebuild``.
        files: Entries done so far.
        bytes_done: Content bytes taken (when creating or backing up) or written (when extracting or
            restoring), or stored bytes checked.
        bytes_stored: Bytes written to the archive so far, 0 when reading.
        bytes_total: The value that ``bytes_done`` will reach, or None if it is not known.
        path: What is being worked on now, as bytes, or empty.
    """

    operation: str
    files: int
    bytes_done: int
    bytes_stored: int
    bytes_total: int | None
    path: bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be captured, read or restored, without ending the operation.

    Attributes:
        path: The entry concerned, as bytes relative to the archive's or snapshot's root.
        what: A short word: ``unreadable``, ``vanished``, ``changed``, ``owner``, ``mode``,
            ``times``, ``xattr``, ``device``, ``name``, ``exists``, ``unsupported``, ``unwritable``,
            ``damaged``, ``missing``.
        detail: The reason in words, for a person.
    """

    path: bytes
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Retry:
    """A request to the storage failed for a reason that may pass, and will be made again.

    Attributes:
        action: What it is to do, to follow "cannot": ``write part 3 of``, ``read``, ``list``.
        where: The object or folder concerned, without secrets.
        attempt: How many attempts have failed, 1 or more.
        wait: Seconds until the next one.
        reason: What happened, in words, without secrets.
        throttled: Whether the storage asked for fewer requests.
    """

    action: str
    where: str
    attempt: int
    wait: float
    reason: str
    throttled: bool = False


Event = Progress | Problem | Retry
ProgressCallback = Callable[[Event], None]
