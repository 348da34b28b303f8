"""What a verification finds: the report, and which archives, blocks and pieces cannot be had."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from rozenfmt.archive.check import Damage
from rozenfmt.archive.compare import Change
from rozenfmt.errors import ArchiveError, MissingArchive, StorageError
from rozenfmt.events import Problem

__all__ = ["Findings", "Key", "Lost", "VerifyReport"]

_KEPT: Final = 10_000
_DIFFERENT: Final = 100_000
_Bytes = bytes  # a report has a field of this name

Key = tuple[bytes, bytes]
"""Host id and archive id."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Something of a snapshot that does not restore as it should.

    Attributes:
        snapshot: The snapshot's id.
        path: What is lost: a file's content or attributes, or a directory with all that is in it; empty if it is
            the whole snapshot.
        what: ``missing`` or ``damaged``: what became of the archive.
        object: The archive at fault.
        detail: The reason in words, for a person.
    """

    snapshot: str
    path: bytes
    what: str
    object: str
    detail: str


@dataclass(slots=True)
class VerifyReport:
    """What was verified, and what is wrong.

    Attributes:
        level: ``present``, ``hashes``, ``opened`` or ``contents``.
        sample: Share of the archives or contents that was looked at; None for all.
        snapshots: Snapshots looked at.
        archives: Archives whose presence was looked at.
        read: Objects that were read from their first byte to their last.
        blocks: Blocks verified.
        bytes: Stored bytes verified.
        requests: Requests for archives, those for whole objects not among them.
        entries: Entries seen; in directories that snapshots share, once.
        contents: Contents whose ids were compared; what many share, once.
        content_bytes: Their bytes.
        missing: Objects that should be there and are not.
        damages: What is damaged (the first 10,000).
        damage_count: How many there are.
        lost: What of the snapshots is lost by it (the first 10,000).
        lost_count: How many there are.
        warnings: What a person should know, and what does not keep anything from being restored: snapshots that are
            gone, forks, objects of strange names, objects that nothing refers to.
        different: How a local tree differs from the snapshot (the first 100,000): ``removed`` is in the snapshot only.
        different_count: How many differences there are.
        unconfirmed: Local files of the same size and time, whose contents the key at hand cannot compare.
        problems: Local files that could not be read.
        seconds: Time taken.
    """

    level: str = "present"
    sample: float | None = None
    snapshots: int = 0
    archives: int = 0
    read: int = 0
    blocks: int = 0
    bytes: int = 0
    requests: int = 0
    entries: int = 0
    contents: int = 0
    content_bytes: int = 0
    missing: list[str] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    damage_count: int = 0
    lost: list[Lost] = field(default_factory=list)
    lost_count: int = 0
    warnings: list[str] = field(default_factory=list)
    different: list[Change] = field(default_factory=list)
    different_count: int = 0
    unconfirmed: int = 0
    problems: list[Problem] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is missing, damaged, lost or different; warnings apart."""
        return not (self.missing or self.damage_count or self.lost_count or self.different_count or self.problems)

    @property
    def restorable_paths(self) -> list[_Bytes]:
        """What ``Vault.restore`` would bring back to what it was: paths that were removed or changed here.

        What is below a removed directory is restored along with it.  A directory that differs in nothing but
        its own metadata is left out, unless nothing else differs: restoring it would restore all that is in it.
        """
        found: list[_Bytes] = []
        own: list[_Bytes] = []
        removed = None
        for change in self.different:
            if change.what == "added" or (removed is not None and change.path.startswith(removed)):
                continue
            if change.what == "removed":
                removed = change.path + b"/"
            (own if change.what == "metadata" and change.directory else found).append(change.path)
        return found or own


class Findings:
    """Collects what is wrong, each thing once.

    Attributes:
        report: Where it goes.
        failed: Archives that cannot be read at all, and why.
        blocks: Blocks of others that cannot be read.
        pieces: Pieces (block, number) that are not what refers to them says.
    """

    def __init__(self, report: VerifyReport) -> None:
        self.report = report
        self.failed: dict[Key, ArchiveError | StorageError] = {}
        self.blocks: dict[Key, set[int]] = {}
        self.pieces: dict[Key, set[tuple[int, int]]] = {}
        self._told: set[tuple[str, str, int | None, int]] = set()

    @property
    def any(self) -> bool:
        """Whether anything may be lost."""
        return bool(self.failed or self.blocks or self.pieces)

    def damage(self, name: str, error: ArchiveError | StorageError) -> None:
        """Something is wrong with an object."""
        if isinstance(error, MissingArchive):
            self.missing(name)
        elif isinstance(error, ArchiveError):
            self.note(Damage(error.offset or 0, error.block, error.failure_class, error.message, error.object or name))
        else:
            if error.fatal:
                raise error
            self.note(Damage(0, None, "storage", str(error), name))

    def note(self, damage: Damage) -> None:
        """Something is wrong."""
        key = (damage.object, damage.failure_class, damage.block, damage.offset if damage.block is None else 0)
        if key in self._told:
            return
        report = self.report
        report.damage_count += 1
        if report.damage_count <= _KEPT:
            self._told.add(key)
            report.damages.append(damage)

    def missing(self, name: str) -> None:
        """An object is not there."""
        if name not in self.report.missing:
            self.report.missing.append(name)

    def lost(self, lost: Lost) -> None:
        """Something does not restore."""
        self.report.lost_count += 1
        if self.report.lost_count <= _KEPT:
            self.report.lost.append(lost)

    def different(self, changes: list[Change], count: int) -> None:
        """A local tree differs."""
        self.report.different += changes[:_DIFFERENT]
        self.report.different_count += count

    def warn(self, text: str) -> None:
        """Something that a person should know."""
        if len(self.report.warnings) < _KEPT and text not in self.report.warnings:
            self.report.warnings.append(text)

    def bad_block(self, key: Key, block: int) -> None:
        """A block cannot be read."""
        self.blocks.setdefault(key, set()).add(block)

    def bad_piece(self, key: Key, block: int, piece: int) -> None:
        """A piece is not what it should be."""
        self.pieces.setdefault(key, set()).add((block, piece))

    def fault(self, key: Key, block: int, piece: int) -> ArchiveError | StorageError | str | None:
        """Why a piece cannot be had; None if it can, as far as is known."""
        if key in self.failed:
            return self.failed[key]
        if block in self.blocks.get(key, ()):
            return f"block {block} is damaged"
        if (block, piece) in self.pieces.get(key, ()):
            return f"piece {piece} of block {block} is not what refers to it says"
        return None
