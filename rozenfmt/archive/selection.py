"""What of a tree is to be restored: paths, and patterns in gitignore syntax."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rozenfmt.format.nodes import Entry, Kind

if TYPE_CHECKING:
    from rozenfmt.tree.excludes import Excludes

__all__ = ["Patterns", "outermost"]


def outermost(paths: Sequence[bytes]) -> list[bytes]:
    """Paths without those that lie below another one."""
    kept: list[bytes] = []
    for path in sorted(set(paths), key=lambda p: p.split(b"/")):
        if not kept or not (path + b"/").startswith(kept[-1] + b"/"):
            kept.append(path)
    return kept


class Patterns:
    """Chooses what git would ignore: the last pattern that matches decides, and a directory takes all below along.

    Args:
        patterns: Lines in gitignore syntax, relative to the tree's root.

    Raises:
        UsageError: A pattern is malformed.
    """

    def __init__(self, patterns: Iterable[str | bytes]) -> None:
        from rozenfmt.tree.excludes import Excludes

        self._matcher: Excludes = Excludes(patterns)

    def take(self, entry: Entry, path: tuple[bytes, ...]) -> bool:
        """Whether an entry is chosen by itself."""
        return self._matcher.excluded(os.fsdecode(b"/".join(path)), directory=entry.kind == Kind.DIRECTORY)

    def take_below(self, path: tuple[bytes, ...]) -> bool:
        """Whether a directory, or one above it, is chosen."""
        return any(
            self._matcher.excluded(os.fsdecode(b"/".join(path[:depth])), directory=True)
            for depth in range(1, len(path) + 1)
        )
