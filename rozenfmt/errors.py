"""The error tree: one root, two branches, and a few named leaves.

``UsageError`` is the caller's mistake; ``ArchiveError`` is bad, hostile, truncated or
unsupported bytes.  Whatever the bytes, a reader raises nothing outside ``ArchiveError``.
The subclasses of ``ArchiveError`` are the failure classes of the specification (section
"Failure classes"); vectors name them by ``failure_class``.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "ArchiveError",
    "BlockError",
    "ConflictError",
    "HeaderError",
    "IndexDamaged",
    "KeyFailure",
    "LimitError",
    "MissingArchive",
    "NoMatchingKey",
    "RozenError",
    "SignatureError",
    "SourceError",
    "StorageError",
    "TruncatedError",
    "UnsupportedError",
    "UsageError",
    "WrongPassphrase",
]


class RozenError(Exception):
    """Root of every error that this library raises on purpose."""


class UsageError(RozenError):
    """The caller's mistake: a wrong argument, a wrong order of calls, a name that clashes."""


class ConflictError(RozenError):
    """Something already stands where the caller wants to write, or two versions disagree.

    Attributes:
        result: Of a backup that was done apart from the conflicts: its ``BackupResult``; else None.
    """

    result: Any = None


class SourceError(RozenError):
    """A file or directory that was to be read cannot be read.

    Attributes:
        passing: It is elsewhere, and may be reached again later: the network failed, or the server.
    """

    passing: bool = False


class StorageError(RozenError):
    """The storage failed, refused or does not hold the object.

    Args:
        message: What happened, to which object, and what to do next.
        object: Name of the object, if one is concerned.
        fatal: True if trying again cannot help (credentials, no such bucket, quota).
    """

    def __init__(self, message: str, *, object: str | None = None, fatal: bool = False) -> None:  # noqa: A002
        super().__init__(message)
        self.object = object
        self.fatal = fatal


class ArchiveError(RozenError):
    """Bad, hostile, truncated or unsupported bytes.

    Args:
        message: What is wrong, the consequence, and the next step.
        object: Name of the object that holds the bytes (a URL or a path).
        offset: Byte offset in the archive where the damage was noticed.
        block: Sequence number of the block concerned.
        clause: Section of ``spec/format.md`` that the bytes violate.
        report: The report of the operation that noticed it, where there is one.
    """

    failure_class: ClassVar[str] = "archive"

    def __init__(
        self,
        message: str,
        *,
        object: str | None = None,  # noqa: A002
        offset: int | None = None,
        block: int | None = None,
        clause: str | None = None,
        report: Any = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.object = object
        self.offset = offset
        self.block = block
        self.clause = clause
        self.report = report

    def __str__(self) -> str:
        where = []
        if self.object is not None:
            where.append(self.object)
        if self.offset is not None:
            where.append(f"offset {self.offset}")
        if self.block is not None:
            where.append(f"block {self.block}")
        if self.clause is not None:
            where.append(f"clause {self.clause}")
        return f"{self.message} [{', '.join(where)}]" if where else self.message


class HeaderError(ArchiveError):
    """The bytes do not begin with a valid preamble and header."""

    failure_class = "header"


class NoMatchingKey(ArchiveError):
    """None of the identities given opens this archive."""

    failure_class = "no-recipient"


class WrongPassphrase(NoMatchingKey):
    """The archive is locked by a passphrase, and not by the one given."""


class KeyFailure(ArchiveError):
    """A key was unwrapped but contradicts the header: commitment or header MAC is wrong."""

    failure_class = "key"


class BlockError(ArchiveError):
    """A block is damaged, moved, forged or not of the form its type prescribes."""

    failure_class = "block"


class IndexDamaged(ArchiveError):
    """Footer, tail or index are damaged or contradict the blocks; salvage may still read them."""

    failure_class = "index"


class TruncatedError(ArchiveError):
    """The archive ends before its footer and tail."""

    failure_class = "truncated"


class LimitError(ArchiveError):
    """A length, a count or a cost exceeds a limit of the specification or of this reader."""

    failure_class = "limit"


class UnsupportedError(ArchiveError):
    """The archive is of a version, suite, feature or critical type that this reader does not know."""

    failure_class = "unsupported"


class SignatureError(ArchiveError):
    """The signature is missing, malformed, by another key, or does not verify."""

    failure_class = "signature"


class MissingArchive(ArchiveError):
    """An archive of a vault that others refer to is not there (vault.md, section 6, item 5)."""

    failure_class = "missing"
