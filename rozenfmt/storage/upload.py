"""What all uploads share: their states, and the rule that failure is terminal.

The file objects of fsspec commit when they are closed, left or garbage collected, also after an
error.  Here only ``commit`` commits.  The transitions are data; back-ends fill in three hooks and
never touch the state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.errors import StorageError, UsageError
from rozenfmt.storage.base import UploadState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rozenfmt.storage.base import Leftover, Mark, ObjectInfo

__all__ = ["TRANSITIONS", "BaseUpload", "Event", "State", "as_view", "check_name", "check_range"]


class State(Enum):
    """States of an upload."""

    OPEN = auto()
    COMMITTED = auto()
    FAILED = auto()
    DISCARDED = auto()
    SUSPENDED = auto()


class Event(Enum):
    """What can happen to an upload."""

    WRITE = auto()
    COMMIT = auto()
    FAIL = auto()
    DISCARD = auto()
    SUSPEND = auto()


# A pair that is missing is a misuse, and changes nothing.  Discarding or suspending what has ended is
# allowed and does nothing, so that ``finally: upload.discard()`` is a correct program.
TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.OPEN, Event.WRITE): State.OPEN,
    (State.OPEN, Event.COMMIT): State.COMMITTED,
    (State.OPEN, Event.FAIL): State.FAILED,
    (State.OPEN, Event.DISCARD): State.DISCARDED,
    (State.FAILED, Event.DISCARD): State.DISCARDED,
    (State.DISCARDED, Event.DISCARD): State.DISCARDED,
    (State.COMMITTED, Event.DISCARD): State.COMMITTED,
    (State.OPEN, Event.SUSPEND): State.SUSPENDED,
    (State.FAILED, Event.SUSPEND): State.SUSPENDED,
    (State.COMMITTED, Event.SUSPEND): State.COMMITTED,
    (State.SUSPENDED, Event.SUSPEND): State.SUSPENDED,
    (State.SUSPENDED, Event.DISCARD): State.SUSPENDED,
}


class BaseUpload(ABC):
    """The state machine of an upload, around the hooks of a back-end.

    Args:
        name: Name of the object within its storage.
        written: Bytes of it that are there already, if it is resumed.

    """

    # Cuts what is written into pieces and hands out each in its time; set where bandwidth is limited.
    paced: Callable[[memoryview], Iterator[memoryview]] | None = None

    def __init__(self, name: str, written: int = 0) -> None:
        self.name = name
        self._state = State.OPEN
        self._written = written

    @property
    def written(self) -> int:
        """Bytes accepted so far."""
        return self._written

    @property
    def state(self) -> State:
        """Where the upload stands."""
        return self._state

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Accept the next bytes, blocking while the storage is slower.

        Args:
            data: Any number of bytes; the caller may change or reuse the buffer afterwards.

        Raises:
            UsageError: The upload is not open.
            StorageError: The storage failed; the upload can only be discarded now.

        """
        self._next(Event.WRITE)
        view = as_view(data)
        try:
            if self.paced is not None:
                for piece in self.paced(view):
                    self._write(piece)
            elif len(view):
                self._write(data if isinstance(data, bytes) else view)
        except BaseException:
            self._state = self._next(Event.FAIL)
            raise
        self._written += len(view)

    def commit(self, *, keep: bool = False) -> ObjectInfo:
        """Make the object visible, whole and durable.

        Args:
            keep: Do not discard after a failure: the caller discards or suspends.

        Raises:
            UsageError: The upload is not open.
            ConflictError: ``overwrite`` was False and the object exists; the upload is discarded.
            StorageError: It could not be made visible, or its size is wrong; the upload is discarded.

        """
        committed = self._next(Event.COMMIT)
        try:
            info = self._commit()
        except BaseException as error:
            self._state = self._next(Event.FAIL)
            if isinstance(error, Exception) and not keep:
                self._discard_after(error)
            raise
        self._state = committed
        return info

    def discard(self) -> None:
        """Remove every trace of an uncommitted upload; does nothing when called again or after a commit.

        Raises:
            StorageError: Traces are left; calling again tries again.

        """
        after = self._next(Event.DISCARD)
        if after is not self._state:
            self._discard()
            self._state = after

    @property
    def leftover(self) -> Leftover | None:
        """What would be left in the storage if the process died now; None if nothing was sent yet."""
        return None

    @property
    def unsent(self) -> int:
        """Bytes that were written and would be in the ``tail`` of a mark now."""
        return 0

    def mark(self) -> Mark | None:
        """Mark the current position, to go on from after a crash.

        Returns:
            None where nothing of an unfinished upload could be kept.

        Raises:
            UsageError: The upload is not open.

        """
        self._next(Event.WRITE)
        return self._mark()

    def state_at(self, mark: Mark) -> UploadState | None:
        """How to go on from a mark; None while bytes before it are not known to be stored.

        Raises:
            UsageError: The upload was ended.
            StorageError: The storage fails.

        """
        self._next(Event.SUSPEND)
        details = self._details(mark)
        return None if details is None else UploadState(self.name, mark, details)

    @property
    def replaces_parts(self) -> bool:
        """Whether what was sent after a mark may differ when it is sent again."""
        return True

    def can_go_on(self) -> bool:
        """Whether an upload that was resumed is of use, after it was given again what its writer has kept."""
        return True

    def suspend(self) -> None:
        """End without removing what is stored, so that it can be resumed; does nothing after a commit.

        Raises:
            UsageError: The upload was discarded.

        """
        after = self._next(Event.SUSPEND)
        if after is not self._state:
            self._state = after
            self._suspend()

    def _next(self, event: Event) -> State:
        try:
            return TRANSITIONS[self._state, event]
        except KeyError:
            msg = f"cannot {event.name.lower()} the upload of {self.name!r}: it is {self._state.name.lower()}"
            raise UsageError(msg) from None

    def _discard_after(self, error: Exception) -> None:
        """Discard because of an error that is about to be raised; a second error must not hide it."""
        try:
            self.discard()
        except StorageError as second:
            error.args = (f"{error}; moreover, {second}", *error.args[1:])

    @abstractmethod
    def _write(self, data: bytes | memoryview) -> None:
        """Take the bytes, which are never empty; a ``memoryview`` must not be kept."""

    @abstractmethod
    def _commit(self) -> ObjectInfo:
        """Make the object visible, and compare its size with ``written``."""

    @abstractmethod
    def _discard(self) -> None:
        """Remove what there is of the object; may be called again if it raised."""

    def _mark(self) -> Mark | None:
        """Mark the position that was reached; None if this back-end cannot go on with uploads."""
        return None

    def _details(self, mark: Mark) -> dict[str, Any] | None:
        """What it takes to go on from a mark that ``_mark`` gave; None if it is too early."""
        raise NotImplementedError

    def _suspend(self) -> None:
        """Let go of files and requests, and leave what is stored."""
        raise NotImplementedError


def as_view(data: bytes | bytearray | memoryview) -> memoryview:
    """A flat view of bytes."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        msg = f"bytes are expected, not {type(data).__name__}"
        raise UsageError(msg)
    view = memoryview(data)
    if not view.c_contiguous:
        msg = "a memoryview must be contiguous to be written"
        raise UsageError(msg)
    return view.cast("B")


def check_name(name: str) -> str:
    """Return a name that means the same place in every back-end.

    Raises:
        UsageError: It is empty, has an empty, ``.`` or ``..`` component, or holds a NUL.

    """
    if not isinstance(name, str):
        msg = f"a name is a str, not {type(name).__name__}"
        raise UsageError(msg)
    if "\0" in name or any(part in {"", ".", ".."} for part in name.split("/")):
        msg = (
            f"{name!r} is not a name of an object: components between slashes must not be empty, "
            "'.' or '..', and a NUL is not allowed"
        )
        raise UsageError(msg)
    return name


def check_range(start: int, length: int | None) -> None:
    """Refuse negative numbers, which file systems read as counted from the end.

    Raises:
        UsageError: ``start`` or ``length`` is negative.

    """
    if start < 0 or (length is not None and length < 0):
        msg = f"a range cannot begin at {start} and have the length {length}"
        raise UsageError(msg)
