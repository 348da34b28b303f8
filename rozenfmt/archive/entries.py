"""Entries as callers see them: what the format has, with its path."""

from __future__ import annotations

from rozenfmt.format.nodes import Entry, Kind, Mark

__all__ = ["ArchiveEntry"]


class ArchiveEntry:
    """One entry of an archive or a snapshot, with its path.

    Attributes:
        directory: Path of the directory that holds it, as bytes; empty for the root.
        raw: The entry as the format has it.
    """

    __slots__ = ("directory", "raw")

    def __init__(self, directory: bytes, raw: Entry) -> None:
        self.directory = directory
        self.raw = raw

    @property
    def path_bytes(self) -> bytes:
        """Path as bytes, names joined by ``/``."""
        return self.directory + b"/" + self.raw.name if self.directory else self.raw.name

    @property
    def path(self) -> str:
        """Path as text; bytes that are not UTF-8 come as surrogates (PEP 383)."""
        return self.path_bytes.decode("utf-8", "surrogateescape")

    @property
    def name(self) -> str:
        """Base name as text."""
        return self.raw.name.decode("utf-8", "surrogateescape")

    @property
    def kind(self) -> Kind:
        """What it is."""
        return self.raw.kind

    @property
    def size(self) -> int:
        """Content's length in bytes; 0 unless it is a file."""
        return self.raw.size

    @property
    def mode(self) -> int:
        """Permission bits."""
        return self.raw.mode

    @property
    def mtime_ns(self) -> int:
        """Modification time in nanoseconds since 1970."""
        return self.raw.mtime_ns

    @property
    def uid(self) -> int:
        """Owner's number."""
        return self.raw.uid

    @property
    def gid(self) -> int:
        """Group's number."""
        return self.raw.gid

    @property
    def user(self) -> str:
        """Owner's name, or empty."""
        return self.raw.user.decode("utf-8", "surrogateescape")

    @property
    def group(self) -> str:
        """Group's name, or empty."""
        return self.raw.group.decode("utf-8", "surrogateescape")

    @property
    def target(self) -> str:
        """Symlink target, or empty."""
        return self.raw.target.decode("utf-8", "surrogateescape")

    @property
    def device(self) -> tuple[int, int] | None:
        """Major and minor number of a device."""
        return self.raw.device

    @property
    def link_group(self) -> bytes | None:
        """16 bytes shared by all hard links to one file."""
        return self.raw.link_group

    @property
    def content_id(self) -> bytes | None:
        """32 bytes that stand for the content; None if there is none."""
        return self.raw.content_id

    @property
    def changed(self) -> bool:
        """Whether the file changed while it was stored."""
        return bool(self.raw.marks & Mark.CHANGED)

    @property
    def unreadable(self) -> bool:
        """Whether its content could not be read when it was stored."""
        return bool(self.raw.marks & Mark.UNREADABLE)

    @property
    def withheld(self) -> bool:
        """Whether this is the entry of an earlier snapshot: the file had other content, in a write-once set."""
        return bool(self.raw.marks & Mark.WITHHELD)

    @property
    def kept(self) -> bool:
        """Whether this is an earlier version, kept beside the new one, in a write-once set."""
        return bool(self.raw.marks & Mark.KEPT)

    def __repr__(self) -> str:
        return f"ArchiveEntry({self.path!r}, {self.kind.name.lower()}, {self.size} bytes)"
