"""Directory nodes and part tables: what a ``TREE`` block holds (format.md, section "Nodes").

``Entry`` is one line of a directory: everything restorable, nothing that belongs to one
machine only (device and inode numbers, ctime, atime).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Entry", "Kind", "Mark"]


class Kind(IntEnum):
    """What an entry is; the numbers are those of the format."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    CHARACTER_DEVICE = 5
    BLOCK_DEVICE = 6
    SOCKET = 7


class Mark(IntEnum):
    """Bits that say how an entry's content was captured."""

    CHANGED = 1  # the file changed while it was read: content may be of no single moment
    UNREADABLE = 2  # the content could not be read: nothing is stored for it
    SPARSE = 4  # holes were seen; restoring should leave holes where the part table has them


@dataclass(slots=True)
class Entry:
    """One entry of a directory.

    Attributes:
        name: Base name as bytes: not empty, not ``.`` or ``..``, without NUL and ``/``.
        kind: What it is.
        mode: Permission bits, 0 to 0o7777.
        uid: Owner's number.
        gid: Group's number.
        user: Owner's name, empty if it had none.
        group: Group's name, empty if it had none.
        mtime_ns: Modification time in nanoseconds since 1970, may be negative.
        size: Content's length in bytes; 0 unless ``kind`` is ``FILE``.
        target: Symlink target; empty unless ``kind`` is ``SYMLINK``.
        device: Major and minor number; None unless it is a device.
        link_group: 16 bytes shared by all hard links to one file; None if it has one name.
        xattrs: Extended attributes (ACLs among them) as name and value, sorted by name.
        marks: ``Mark`` bits.
        content_id: 32 bytes; None unless it is a file with ``size`` > 0 whose content is stored.
        block: Sequence number of the block that holds the content (``PACK``) or ends it (``FEND``).
        piece: Number of the piece in a ``PACK`` block; 0 for ``FEND``.
        child: Id of the directory's own node; None unless ``kind`` is ``DIRECTORY``.
    """

    name: bytes
    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    user: bytes = b""
    group: bytes = b""
    mtime_ns: int = 0
    size: int = 0
    target: bytes = b""
    device: tuple[int, int] | None = None
    link_group: bytes | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    marks: int = 0
    content_id: bytes | None = None
    block: int = 0
    piece: int = 0
    child: bytes | None = None
