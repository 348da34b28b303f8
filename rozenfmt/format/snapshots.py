"""Bodies of ``SNAP``, ``XREF`` and ``keyr``: what makes a metadata archive a snapshot (vault.md, section 5).

One frozen dataclass for each, fields in wire order, as in ``records``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any

from rozenfmt.errors import BlockError

from . import records
from .limits import MAX_NAME, MAX_SNAP_ROWS
from .records import bytes_, items, key, row, rows, text, texts, uint
from .varint import decode_column, encode_column

__all__ = [
    "Answer",
    "CrossReferences",
    "KeyringBody",
    "Mode",
    "ParentState",
    "Reference",
    "SnapFlag",
    "SnapshotBody",
    "SourceKind",
]


class Mode(IntEnum):
    """How a set treats what it has stored before."""

    SNAPSHOT = 1
    WORM = 2


class SourceKind(IntEnum):
    """Where the content of a source came from."""

    LOCAL = 1
    COMMAND = 2
    OTHER = 3


class Answer(IntEnum):
    """What is done about a file of a WORM set whose content changed (vault.md, section 7.2)."""

    WITHHOLD = 1
    RESTORE = 2
    ACCEPT = 3
    KEEP_BOTH = 4
    SKIP = 5


class ParentState(IntEnum):
    """What the writer knew of the snapshot before."""

    FIRST = 1
    KNOWN = 2
    UNKNOWN = 3


class SnapFlag(IntFlag):
    """Bits of key 20."""

    UNCHANGED = 1
    INCOMPLETE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotBody:
    """Body of ``SNAP`` (vault.md, section 5.3)."""

    vault_id: bytes = key(1, bytes_(16))
    host_id: bytes = key(2, bytes_(16))
    label: str = key(3, text(255))
    set_name: str = key(4, text(4_096))
    sequence: int = key(5, uint(1))
    parent: tuple[bytes, bytes] | None = key(6, row(bytes_(16), bytes_(32)), optional=True)
    heads: bytes = key(7, bytes_(multiple=16))
    mode: int = key(8, uint(1, 2))
    times: tuple[int, int] = key(9, row(uint(), uint()))
    root: tuple[bytes, int, int, int] = key(10, row(bytes_(32), uint(), uint(), uint()))
    totals: tuple[int, int] = key(11, row(uint(), uint()))
    sources: tuple[tuple[bytes, bytes, int], ...] = key(12, rows(bytes_(limit=MAX_NAME), bytes_(), uint(1, 3)))
    tags: tuple[str, ...] = key(13, texts(4_096))
    counts: tuple[int, ...] = key(14, row(*(uint(),) * 9))
    moves: tuple[tuple[bytes, bytes, int], ...] | None = key(
        15, rows(bytes_(), bytes_(), uint(1, 7), at_least=1, limit=MAX_SNAP_ROWS), optional=True
    )
    deleted: tuple[bytes, ...] | None = key(16, items(bytes_(), limit=MAX_SNAP_ROWS), optional=True)
    problems: tuple[tuple[bytes, str, str], ...] | None = key(
        17, rows(bytes_(), text(64), text(4_096), at_least=1, limit=MAX_SNAP_ROWS), optional=True
    )
    conflicts: tuple[tuple[bytes, int], ...] | None = key(
        18, rows(bytes_(), uint(1, 5), at_least=1, limit=MAX_SNAP_ROWS), optional=True
    )
    parent_state: int = key(19, uint(1, 3))
    flags: int = key(20, uint())
    extra: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def decode(cls, body: bytes) -> SnapshotBody:
        """Read a body and hold its fields against each other.

        Raises:
            BlockError, LimitError: It is malformed.
        """
        found = records.decode(cls, body, BlockError, "vault 5.3")
        heads = [found.heads[at : at + 16] for at in range(0, len(found.heads), 16)]
        if (
            not found.set_name
            or heads != sorted(set(heads))
            or list(found.tags) != sorted(set(found.tags), key=str.encode)
            or (found.parent is not None) != (found.parent_state == ParentState.KNOWN)
        ):
            msg = "a snapshot's record contradicts itself"
            raise BlockError(msg, clause="vault 5.3")
        return found


@dataclass(frozen=True, slots=True)
class Reference:
    """An archive that a snapshot depends on.

    Attributes:
        archive_id: Its id.
        kind: 1 data, 2 metadata.
        length: Its total length in bytes.
        live: Bytes of its pieces that the snapshot refers to, as the writer counted them.
    """

    archive_id: bytes
    kind: int
    length: int
    live: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossReferences:
    """Body of ``XREF`` (vault.md, section 5.2)."""

    ids: bytes = key(1, bytes_(multiple=16))
    kinds: bytes = key(2, bytes_())
    lengths: bytes = key(3, bytes_())
    live: bytes = key(4, bytes_())
    extra: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, references: list[Reference]) -> CrossReferences:
        """The record for these archives, numbered from 1 in this order."""
        return cls(
            ids=b"".join(one.archive_id for one in references),
            kinds=bytes(one.kind for one in references),
            lengths=encode_column([one.length for one in references]),
            live=encode_column([one.live for one in references]),
        )

    @classmethod
    def decode(cls, body: bytes, own_id: bytes) -> list[Reference]:
        """Read a body.

        Args:
            body: Of the block.
            own_id: Id of the archive that it stands in.

        Raises:
            BlockError: It is malformed, or names an archive twice, or its own.
        """
        found = records.decode(cls, body, BlockError, "vault 5.2")
        count = len(found.kinds)
        ids = [found.ids[at : at + 16] for at in range(0, len(found.ids), 16)]
        lengths, live = decode_column(found.lengths, count), decode_column(found.live, count)
        if len(ids) != count or len({*ids, own_id}) != count + 1 or set(found.kinds) - {1, 2}:
            msg = "a metadata archive's list of other archives contradicts itself"
            raise BlockError(msg, clause="vault 5.2")
        return [Reference(*one) for one in zip(ids, found.kinds, lengths, live, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringBody:
    """Body of ``keyr`` (vault.md, section 5.4): edition objects, of which nothing is believed here."""

    editions: tuple[bytes, ...] = key(1, items(bytes_(), limit=64))
    extra: dict[int, Any] = field(default_factory=dict)
