"""Excludes in gitignore syntax, on names that are bytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rozenfmt.errors import SourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Excludes", "read_patterns"]

# The matcher is built of regular expressions in which "." stops at a newline and "$" also matches before
# one. A lone high surrogate is an ordinary character to them and never comes out of ``os.fsdecode``.
_NEWLINE = "\ud80a"


def _text(value: str | bytes) -> str:
    return os.fsdecode(value).replace("\n", _NEWLINE)


class Excludes:
    """Patterns as in a ``.gitignore`` at the root of the tree: the last one that matches decides.

    An excluded directory is not entered, so nothing below it can be included again.

    Args:
        patterns: Lines without their line ends; comments and empty lines are allowed.

    Raises:
        UsageError: If a pattern is malformed.
    """

    def __init__(self, patterns: Iterable[str | bytes]) -> None:
        import pathspec  # noqa: PLC0415 -- only paid for by those who exclude

        try:
            self._match = pathspec.GitIgnoreSpec.from_lines([_text(line) for line in patterns]).match_file
        except ValueError as error:
            message = f"Malformed exclude pattern: {error}"
            raise UsageError(message) from error

    def excluded(self, path: str, *, directory: bool) -> bool:
        """Whether the entry is to be left out.

        Args:
            path: Relative to the root, by ``os.fsdecode``, with ``/`` between components.
            directory: Whether the entry is a directory itself (a symlink to one is not).
        """
        path = path.replace("\n", _NEWLINE)
        return self._match(path + "/" if directory else path)


def read_patterns(path: str | bytes | os.PathLike[str]) -> list[bytes]:
    """Read the lines of an exclude file; a UTF-8 byte order mark is dropped, as git does.

    Raises:
        SourceError: If the file cannot be read.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 -- paths may be bytes
            return file.read().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n")
    except OSError as error:
        message = f"Cannot read the exclude file {os.fsdecode(path)!r}: {error.strerror}"
        raise SourceError(message) from error
