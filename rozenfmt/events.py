"""Typed progress and log events.

Long operations take ``progress=``, a callable that is given these objects on the caller's
thread or on a worker's; it must be quick and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Event", "Problem", "Progress", "ProgressCallback"]


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


Event = Progress | Problem
ProgressCallback = Callable[[Event], None]
