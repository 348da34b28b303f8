"""Where big directories are cut into leaves and inner nodes: by names alone, within bounds.

So a change in a directory of a million entries touches one leaf and the inner nodes above it.
The cuts are policy, not format: readers take any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from blake3 import blake3

from rozenfmt.format.nodes import InnerNode

__all__ = ["CHILDREN_MOST", "LEAF_MOST", "child_groups", "leaf_ends"]

LEAF_MOST: Final = 16_384
CHILDREN_MOST: Final = 4_096
_LEAF_LEAST: Final = 1_024
_LEAF_NAME_BYTES: Final = 1024 * 1024
_LEAF_MASK: Final = 0x0FFF
_CHILDREN_LEAST: Final = 64
_CHILDREN_MASK: Final = 0xFF


def leaf_ends(count: int, name_bytes: int, last_name: bytes) -> bool:
    """Whether a leaf of ``count`` entries with so many bytes of names ends after ``last_name``."""
    if count < _LEAF_LEAST:
        return name_bytes >= _LEAF_NAME_BYTES
    if count >= LEAF_MOST or name_bytes >= _LEAF_NAME_BYTES:
        return True
    return not int.from_bytes(blake3(last_name).digest(2), "little") & _LEAF_MASK


def child_groups(children: Iterable[InnerNode]) -> Iterator[list[InnerNode]]:
    """Runs of children that share an inner node."""
    group: list[InnerNode] = []
    for child in children:
        group.append(child)
        cut = not int.from_bytes(blake3(child.first_name).digest(2), "little") & _CHILDREN_MASK
        if (cut and len(group) >= _CHILDREN_LEAST) or len(group) >= CHILDREN_MOST:
            yield group
            group = []
    if group:
        yield group
