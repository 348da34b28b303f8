"""Excludes in gitignore syntax, on names that are bytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rozenfmt.errors import SourceError, UsageError

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

    import pathspec

__all__ = ["Excludes", "read_patterns"]

# The matcher is built of regular expressions in which "." stops at a newline and "$" also matches before
# one. A lone high surrogate is an ordinary character to them and never comes out of ``os.fsdecode``.
_NEWLINE = "\ud80a"


def _text(value: str | bytes) -> str:
    return os.fsdecode(value).replace("\n", _NEWLINE)


class Excludes:
    """Patterns as in a ``.gitignore`` at the root of the tree: the last one that matches decides.

    An excluded directory is not entered, so nothing below it can be included again.

    ``pathspec`` translates the patterns. Its own matching is for lists of files: there a pattern also matches
    whatever is below its directory, and ``doc/**`` also ``doc`` itself. A walk that asks for one entry after
    the other, as git does, wants each pattern to match the entry alone.

    Args:
        patterns: Lines without their line ends; comments and empty lines are allowed.

    Raises:
        UsageError: If a pattern is malformed.
    """

    def __init__(self, patterns: Iterable[str | bytes]) -> None:
        import pathspec

        # The last one decides, so they are tried from the last one on.
        self._regex_pattern = pathspec.RegexPattern
        self._rules: list[tuple[re.Pattern[str], bool, bool]] = []
        try:
            for line in patterns:
                text = _as_git_reads_it(_text(line))
                for pattern in pathspec.GitIgnoreSpec.from_lines([text]).patterns:
                    self._add(pattern, directory_only=text.rstrip().endswith("/"))
        except ValueError as error:
            message = f"Malformed exclude pattern: {error}"
            raise UsageError(message) from error

    def _add(self, pattern: pathspec.Pattern, *, directory_only: bool) -> None:
        if isinstance(pattern, self._regex_pattern) and pattern.regex and pattern.include is not None:
            self._rules.insert(0, (pattern.regex, pattern.include, directory_only))

    def excluded(self, path: str, *, directory: bool) -> bool:
        """Whether the entry is to be left out.

        Args:
            path: Relative to the root, by ``os.fsdecode``, with ``/`` between components.
            directory: Whether the entry is a directory itself (a symlink to one is not).
        """
        path = path.replace("\n", _NEWLINE)
        for regex, include, directory_only in self._rules:
            if directory_only and not directory:
                continue
            found = regex.match(path + "/" if directory_only else path)
            if found and _entire(found):
                return include
        return False


def _as_git_reads_it(line: str) -> str:
    """Say a pattern for directories at any depth in the one way that ``pathspec`` reads as git does."""
    pattern = line.rstrip()
    sign = "!" if pattern.startswith("!") else ""
    pattern = pattern.removeprefix("!")
    rest = pattern.removeprefix("/").replace("**/", "")
    if pattern == "*/" or ("**/" in pattern and rest in ("", "*/")):
        return sign + "?*/"  # any directory at all
    if pattern.endswith("/**/"):
        return f"{sign}{pattern}*/"  # those below, not the one above
    return line


def _entire(found: re.Match[str]) -> bool:
    """Whether the entry itself was matched, not a directory that it is in (where ``ps_d`` is its slash)."""
    if "ps_d" not in found.re.groupindex:
        return True
    return found.end("ps_d") in (-1, len(found.string))


def read_patterns(path: str | bytes | os.PathLike[str]) -> list[bytes]:
    """Read the lines of an exclude file; a UTF-8 byte order mark is dropped, as git does.

    Raises:
        SourceError: If the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n")
    except OSError as error:
        message = f"Cannot read the exclude file {os.fsdecode(path)!r}: {error.strerror}"
        raise SourceError(message) from error
