"""Transition tables of every state machine of the format, and nothing else.

An event that the table does not list raises and changes nothing.  A failed machine stays
failed.  ``spec/states.md`` is drawn from these tables.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, Generic, TypeVar

from rozenfmt.errors import UsageError

__all__ = [
    "ARCHIVE",
    "FOOTER",
    "INDEX",
    "MACHINES",
    "PIECES",
    "SNAPSHOT",
    "STREAM",
    "ArchiveEvent",
    "ArchiveState",
    "FooterEvent",
    "FooterState",
    "IndexEvent",
    "IndexState",
    "Machine",
    "PiecesEvent",
    "PiecesState",
    "SnapshotEvent",
    "SnapshotState",
    "StreamEvent",
    "StreamState",
]


class ArchiveState(Enum):
    """An archive as a sequence of sections, for encoder and decoder alike."""

    START = "start"
    BLOCKS = "blocks"
    INDEX = "index"
    ROOT = "root"
    FOOT = "foot"
    END = "end"
    FAILED = "failed"


class ArchiveEvent(Enum):
    """What may come next in an archive."""

    HEADER = "header section"
    BLOCK = "any other block"
    INDEX_LEAF = "INDX leaf"
    INDEX_ROOT = "INDX root"
    FOOT = "FOOT"
    TAIL = "tail"
    FAIL = "failure"


ARCHIVE: Final[dict[tuple[ArchiveState, ArchiveEvent], ArchiveState]] = {
    (ArchiveState.START, ArchiveEvent.HEADER): ArchiveState.BLOCKS,
    (ArchiveState.BLOCKS, ArchiveEvent.BLOCK): ArchiveState.BLOCKS,
    (ArchiveState.BLOCKS, ArchiveEvent.INDEX_LEAF): ArchiveState.INDEX,
    (ArchiveState.BLOCKS, ArchiveEvent.INDEX_ROOT): ArchiveState.ROOT,
    (ArchiveState.INDEX, ArchiveEvent.INDEX_LEAF): ArchiveState.INDEX,
    (ArchiveState.INDEX, ArchiveEvent.INDEX_ROOT): ArchiveState.ROOT,
    (ArchiveState.ROOT, ArchiveEvent.FOOT): ArchiveState.FOOT,
    (ArchiveState.FOOT, ArchiveEvent.TAIL): ArchiveState.END,
    **{
        (state, ArchiveEvent.FAIL): ArchiveState.FAILED
        for state in ArchiveState
        if state not in (ArchiveState.END, ArchiveState.FAILED)
    },
}


class StreamState(Enum):
    """One streamed content."""

    NEW = "new"
    OPEN = "open"
    ENDED = "ended"
    ABANDONED = "abandoned"


class StreamEvent(Enum):
    """Blocks of a stream; ``ABANDON`` leaves no trace in the archive."""

    FHDR = "FHDR"
    FCNT = "FCNT"
    FEND = "FEND"
    ABANDON = "abandon"


STREAM: Final = {
    (StreamState.NEW, StreamEvent.FHDR): StreamState.OPEN,
    (StreamState.OPEN, StreamEvent.FCNT): StreamState.OPEN,
    (StreamState.OPEN, StreamEvent.FEND): StreamState.ENDED,
    (StreamState.OPEN, StreamEvent.ABANDON): StreamState.ABANDONED,
}


class PiecesState(Enum):
    """A block of pieces that is being filled: ``PACK``, ``TREE``, ``TREX``."""

    EMPTY = "empty"
    FILLING = "filling"
    SEALED = "sealed"


class PiecesEvent(Enum):
    """Calls on a builder of pieces."""

    ADD = "add a piece"
    SEAL = "seal"


PIECES: Final = {
    (PiecesState.EMPTY, PiecesEvent.ADD): PiecesState.FILLING,
    (PiecesState.FILLING, PiecesEvent.ADD): PiecesState.FILLING,
    (PiecesState.FILLING, PiecesEvent.SEAL): PiecesState.SEALED,
}


class IndexState(Enum):
    """The index: leaves by kind, then the root."""

    COLLECTING = "collecting"
    CONTENT = "content look-up"
    PATH = "path look-up"
    TABLE = "block table"
    DONE = "done"


class IndexEvent(Enum):
    """Entries collected while blocks are written, then leaves, then the root."""

    ENTRY = "entry or block"
    CONTENT_LEAF = "content look-up leaf"
    PATH_LEAF = "path leaf"
    TABLE_LEAF = "block-table leaf"
    ROOT = "root"


INDEX: Final[dict[tuple[IndexState, IndexEvent], IndexState]] = {
    (IndexState.COLLECTING, IndexEvent.ENTRY): IndexState.COLLECTING,
    **{
        (state, event): target
        for event, target, sources in (
            (IndexEvent.CONTENT_LEAF, IndexState.CONTENT, (IndexState.COLLECTING, IndexState.CONTENT)),
            (
                IndexEvent.PATH_LEAF,
                IndexState.PATH,
                (IndexState.COLLECTING, IndexState.CONTENT, IndexState.PATH),
            ),
            (
                IndexEvent.TABLE_LEAF,
                IndexState.TABLE,
                (IndexState.COLLECTING, IndexState.CONTENT, IndexState.PATH, IndexState.TABLE),
            ),
            (
                IndexEvent.ROOT,
                IndexState.DONE,
                (IndexState.COLLECTING, IndexState.CONTENT, IndexState.PATH, IndexState.TABLE),
            ),
        )
        for state in sources
    },
}


class FooterState(Enum):
    """The footer's parts, in the order in which they can be computed."""

    OPEN = "open"
    ROOTED = "rooted"
    SEALED = "sealed"
    DONE = "done"


class FooterEvent(Enum):
    """Calls on the footer builder."""

    ROOT = "index root written"
    SEAL = "MACs and signature"
    TAIL = "tail"


FOOTER: Final = {
    (FooterState.OPEN, FooterEvent.ROOT): FooterState.ROOTED,
    (FooterState.ROOTED, FooterEvent.SEAL): FooterState.SEALED,
    (FooterState.SEALED, FooterEvent.TAIL): FooterState.DONE,
}


class SnapshotState(Enum):
    """A metadata archive of a vault (vault.md, section 5); ancillary blocks may stand anywhere before the index."""

    NODES = "nodes"
    REFERRED = "referred"
    ROOTED = "rooted"
    INDEX = "index"


class SnapshotEvent(Enum):
    """Blocks of a metadata archive."""

    NODES = "TREE or TREX"
    XREF = "XREF"
    SNAP = "SNAP"
    INDEX = "INDX"


SNAPSHOT: Final = {
    (SnapshotState.NODES, SnapshotEvent.NODES): SnapshotState.NODES,
    (SnapshotState.NODES, SnapshotEvent.XREF): SnapshotState.REFERRED,
    (SnapshotState.REFERRED, SnapshotEvent.SNAP): SnapshotState.ROOTED,
    (SnapshotState.ROOTED, SnapshotEvent.INDEX): SnapshotState.INDEX,
    (SnapshotState.INDEX, SnapshotEvent.INDEX): SnapshotState.INDEX,
}

MACHINES: Final[dict[str, tuple[Enum, dict[Any, Any]]]] = {
    "Archive": (ArchiveState.START, ARCHIVE),
    "Stream": (StreamState.NEW, STREAM),
    "Block of pieces": (PiecesState.EMPTY, PIECES),
    "Index": (IndexState.COLLECTING, INDEX),
    "Footer": (FooterState.OPEN, FOOTER),
    "Metadata archive": (SnapshotState.NODES, SNAPSHOT),
}

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


class Machine(Generic[S, E]):
    """A state that only its table's transitions can change."""

    __slots__ = ("_table", "state")

    def __init__(self, state: S, table: dict[tuple[S, E], S]) -> None:
        self.state = state
        self._table = table

    def allows(self, event: E) -> bool:
        """Whether ``event`` is legal now."""
        return (self.state, event) in self._table

    def step(self, event: E) -> None:
        """Take ``event``.

        Raises:
            UsageError: It is not legal in the present state; nothing has changed.
        """
        target = self._table.get((self.state, event))
        if target is None:
            msg = f"{event.value!r} is not allowed in state {self.state.value!r}"
            raise UsageError(msg)
        self.state = target
