"""The order in which contents are written: that in which they are stored, whatever the tree's order is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rozenfmt.errors import ArchiveError, StorageError
from rozenfmt.format.nodes import Entry, Part

if TYPE_CHECKING:
    from rozenfmt.tree.restore import Directory

    from .treereader import TreeReader

__all__ = ["Lose", "Step", "Task", "steps"]

_TOGETHER: Final = 256  # parts of a block, so that progress shows


@dataclass(slots=True)
class Task:
    """A file that is to be restored.

    Attributes:
        entry: What it is.
        parent: Where to.
        path: Its path, by names.
        dead: Nothing more is to be done for it: it is complete, or lost.
    """

    entry: Entry
    parent: Directory
    path: tuple[bytes, ...]
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Something to write.

    Attributes:
        tasks: Files whose contents are pieces of one block; or one file.
        parts: Of that one, parts that are all in one block, or a hole; empty at its end, or if its parts cannot
            be found. None for whole contents.
        error: Why they cannot be found.
    """

    tasks: Sequence[Task]
    parts: Sequence[Part] | None
    error: ArchiveError | StorageError | None = None


Lose = Callable[[Task, ArchiveError | StorageError], None]
"""Told of a file whose content cannot be read; may raise the error."""

Key = tuple[int, int]
"""Archive number and block."""


def steps(tree: TreeReader, tasks: list[Task], lose: Lose) -> Iterator[tuple[Step, Key | None]]:
    """All that is to be written for these files, in the order in which it is stored, with the block it takes.

    A content in parts comes where its first part is: what shares its blocks is near.

    Args:
        tree: What the files are in.
        tasks: The files, all with a content; they are sorted.
        lose: Told of those whose place cannot be found.
    """
    for key, found in _units(tree, tasks, lose):
        if isinstance(found, list):
            yield Step(found, None), key
            continue
        try:
            _, parts = tree.parts(found.entry)
            for together in _neighbours(parts):
                if found.dead:
                    break
                first = together[0]
                yield Step([found], together), None if first.id is None else (first.archive, first.block)
        except (ArchiveError, StorageError) as error:
            yield Step([found], [], error), None
        else:
            yield Step([found], []), None


def _units(tree: TreeReader, tasks: list[Task], lose: Lose) -> list[tuple[Key, list[Task] | Task]]:
    """Groups of contents that are pieces of one block, and single contents in parts; by place."""
    tasks.sort(key=lambda task: (task.entry.archive, task.entry.block, task.entry.piece))
    units: list[tuple[Key, list[Task] | Task]] = []
    last: Key | None = None
    group: list[Task] | None = None
    for task in tasks:
        key = (task.entry.archive, task.entry.block)
        try:
            if key != last:
                last = None
                group = None if tree.in_parts(task.entry) else []
                last = key
                if group is not None:
                    units.append((key, group))
            if group is None:
                units.append((_first_place(tree, task.entry), task))
            else:
                group.append(task)
        except (ArchiveError, StorageError) as error:
            lose(task, error)
    units.sort(key=lambda unit: unit[0])
    return units


def _first_place(tree: TreeReader, entry: Entry) -> Key:
    """Where a content in parts begins; where its table is, if its parts are near that."""
    if not tree.streams_vouched:
        for part in tree.parts(entry)[1]:
            if part.id is not None:
                return part.archive, part.block
    return entry.archive, entry.block


def _neighbours(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Parts that follow each other and are in one block, a bounded number together; holes alone."""
    together: list[Part] = []
    for part in parts:
        if together:
            first = together[0]
            same = first.id is not None and part.id is not None
            if not same or (first.archive, first.block) != (part.archive, part.block) or len(together) >= _TOGETHER:
                yield together
                together = []
        together.append(part)
    if together:
        yield together
