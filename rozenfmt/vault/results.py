"""What a backup is told, asks, and answers: commands as sources, conflicts, the result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rozenfmt.errors import UsageError
from rozenfmt.events import Problem

__all__ = ["AnySource", "BackupResult", "Command", "Conflict", "ConflictAnswer", "Move", "OnConflict", "Sources"]

ConflictAnswer = Literal["restore", "accept", "keep-both", "skip", "fail"]


@dataclass(frozen=True, slots=True)
class Command:
    """A source that is the output of a program; stored only if it exits with 0.

    Attributes:
        name: Name of the file in the snapshot's root.
        arguments: Program and arguments; no shell is involved.
    """

    name: str
    arguments: Sequence[str | os.PathLike[str]]

    def __post_init__(self) -> None:
        if not self.arguments or isinstance(self.arguments, str):
            msg = "a command is a list: the program, then its arguments"
            raise UsageError(msg)


Place = str | bytes | os.PathLike[str]
AnySource = Place | Command | tuple[str | bytes, Place]
Sources = Place | Command | Iterable[AnySource]


@dataclass(slots=True)
class Conflict:
    """A file of a set in WORM mode that has other content than in the snapshot before.

    Attributes:
        path: Its path in the snapshot.
        local_path: Where it is; empty if it is not on this machine.
        old_size: Size in bytes as it was stored.
        new_size: Size in bytes as it is now.
        old_mtime_ns: Modification time as it was stored.
        new_mtime_ns: Modification time as it is now.
        old_id: Content id as it was stored.
        new_id: Content id as it is now.
        can_restore: Whether ``restore`` is possible: a key that reads is at hand, and the file is on this machine.
        answer: What was done; ``withhold`` if nobody was asked.
        for_all: A callback may set it: its answer then goes for all further conflicts.
    """

    path: bytes
    local_path: bytes
    old_size: int
    new_size: int
    old_mtime_ns: int
    new_mtime_ns: int
    old_id: bytes
    new_id: bytes
    can_restore: bool = False
    answer: str = "withhold"
    for_all: bool = False


OnConflict = ConflictAnswer | Callable[[Conflict], ConflictAnswer]


@dataclass(frozen=True, slots=True)
class Move:
    """Something that was moved or renamed; a directory stands for all that is in it.

    Attributes:
        old: Path in the snapshot before.
        new: Path in this one.
        directory: Whether it is a directory.
    """

    old: bytes
    new: bytes
    directory: bool = False


@dataclass(slots=True)
class BackupResult:
    """What a backup did.

    Attributes:
        snapshot_id: The snapshot's id, 32 hexadecimal digits.
        set_name: Its set.
        sequence: Its sequence number.
        mode: ``snapshot`` or ``worm``.
        unchanged: Nothing had changed: the snapshot points at what was stored before.
        new: Files, links and special files that were not there before.
        changed: Those whose content changed.
        metadata: Those of which only name, place, time, mode, owner or attributes changed.
        moved: Rows of ``moves``.
        deleted: Rows of ``deletions``.
        same: Those in which nothing changed.
        directories: Directories in the snapshot.
        entries: All entries of the snapshot.
        content_bytes: Bytes of content in the snapshot.
        read_bytes: Bytes that were read to find out what is new.
        stored_bytes: Bytes written to the storage.
        resumed_bytes: Bytes of archives that an interrupted run had stored, and that this one went on with.
        archives: Objects written: name and length in bytes, the snapshot's own last.
        leans_on: How many other metadata archives, and how many data archives, the snapshot refers to.
        moves: What was moved (the first 16,384).
        deletions: Paths that are gone (the first 16,384); a directory stands for what was in it.
        conflicts: Files of a WORM set whose content changed.
        problems: What could not be captured (the first 10,000).
        problem_count: How many there were.
        notes: What a person should know: a lost cache, archives that had to be stored again.
        seconds: Time taken.
    """

    snapshot_id: str = ""
    set_name: str = ""
    sequence: int = 0
    mode: str = "snapshot"
    unchanged: bool = False
    new: int = 0
    changed: int = 0
    metadata: int = 0
    moved: int = 0
    deleted: int = 0
    same: int = 0
    directories: int = 0
    entries: int = 0
    content_bytes: int = 0
    read_bytes: int = 0
    stored_bytes: int = 0
    resumed_bytes: int = 0
    archives: list[tuple[str, int]] = field(default_factory=list)
    leans_on: tuple[int, int] = (0, 0)
    moves: list[Move] = field(default_factory=list)
    deletions: list[bytes] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether everything was captured as it is: no problems, and no conflict left open."""
        return not self.problem_count and not any(c.answer in ("withhold", "skip") for c in self.conflicts)
