"""What callers give, checked and put into the form that is used; names that are made up for them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from rozenfmt.errors import UsageError

if TYPE_CHECKING:
    from .backup import Source

__all__ = ["all_patterns", "aside_name", "checked_set_name", "checked_tags", "default_cache_dir", "pattern_inside"]


def default_cache_dir() -> str:
    """Where hosts keep their caches: below the user's cache directory."""
    from platformdirs import user_cache_dir

    return user_cache_dir("rozenfmt")


def aside_name(path: bytes) -> bytes:
    """A name beside a file that is not taken, for the file itself to get."""
    folder, name = os.path.split(path)
    stamp = time.strftime(".local-%Y%m%dT%H%M%S").encode()
    for number in count():
        ending = stamp + (b"-%d" % number if number else b"")
        found = os.path.join(folder, name[: 255 - len(ending)] + ending)
        if not os.path.lexists(found):
            return found
    raise AssertionError


def checked_set_name(name: str) -> str:
    """The name of a set as it is stored; bytes that are not UTF-8 are written out."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        size = len(name.encode())
    if not 1 <= size <= 4_096:
        msg = "the name of a set has 1 to 4,096 bytes; give one (name=)"
        raise UsageError(msg)
    return name


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags that can be stored."""
    found = tuple(tags)
    for tag in found:
        try:
            size = len(tag.encode())
        except UnicodeEncodeError:
            size = 0
        if not 1 <= size <= 4_096:
            msg = "a tag is a text of 1 to 4,096 bytes"
            raise UsageError(msg)
    return found


def all_patterns(exclude: Iterable[str], exclude_from: Iterable[str | os.PathLike[str]]) -> list[str | bytes]:
    """Patterns given and those in files."""
    from rozenfmt.tree.excludes import read_patterns

    if isinstance(exclude, str):
        msg = "exclude is a list of patterns"
        raise UsageError(msg)
    patterns: list[str | bytes] = [*exclude]
    for file in exclude_from:
        patterns.extend(read_patterns(file))
    return patterns


def pattern_inside(folder: str, source: Source) -> str | None:
    """Pattern of a folder of ours, if it lies below a source."""
    if source.command is not None or source.remote is not None:
        return None
    base, own = Path(os.path.realpath(os.fsdecode(source.path))), Path(os.path.realpath(folder))
    if base == own:
        msg = f"{base} is the vault itself, or the host's cache; it cannot be a source"
        raise UsageError(msg)
    if base not in own.parents:
        return None
    escaped = "".join("\\" + c if c in "\\*?[]!# " else c for c in own.relative_to(base).as_posix())
    return f"/{escaped}/"
