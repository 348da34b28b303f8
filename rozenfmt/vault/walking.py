"""Single nodes of a snapshot's directories, and what identifies an archive: for those who do not walk a whole tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rozenfmt.format import crypto
from rozenfmt.format.builders import TAIL_SIZE
from rozenfmt.format.frame import PREFIX_SIZE, parse_frame, parse_prefix
from rozenfmt.format.nodes import Entry, NodeType

if TYPE_CHECKING:
    from rozenfmt.archive.source import ArchiveSource
    from rozenfmt.archive.treereader import Place

    from .findings import Key
    from .snapshot import Snapshot

__all__ = ["children_of", "entries_of", "foot_hash", "key_of", "place_key"]


def children_of(tree: Snapshot, place: Place, depth: int = 0) -> list[Place] | None:
    """Nodes below an inner node of a directory; None if it is a leaf."""
    node = tree._directory(place)  # noqa: SLF001 - the node of a directory, and not the whole directory
    if node.type == NodeType.DIRECTORY:
        return None
    found = tree._children_of(node, place, depth)  # noqa: SLF001
    return [(child.id, child.archive, child.block, child.piece) for child in found]


def entries_of(tree: Snapshot, place: Place) -> list[Entry]:
    """Entries of a leaf of a directory."""
    return tree._entries_of(tree._directory(place), place)  # noqa: SLF001


def foot_hash(source: ArchiveSource) -> bytes:
    """Whole hash of an archive's ``FOOT``: what a child snapshot names its parent by (vault.md, section 5.3)."""
    start = source.foot.offset
    data = source.read(start, source.reader.size - source.base - TAIL_SIZE - start)
    return parse_frame(data, parse_prefix(data[:PREFIX_SIZE], None, None)).whole_hash


def key_of(snapshot: Snapshot, archive: int) -> Key:
    """Host and archive of an archive number."""
    if not archive:
        return snapshot.host_id, snapshot.archive_id
    return snapshot.host_id, snapshot.references[archive - 1].archive_id


def place_key(snapshot: Snapshot, place: Place) -> bytes:
    """What stands for a place, whichever snapshot refers to it."""
    key = key_of(snapshot, place[1])
    return crypto.digest(*key, place[2].to_bytes(8, "little"), place[3].to_bytes(8, "little"))[:16]
