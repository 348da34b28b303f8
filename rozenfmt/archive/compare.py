"""``rozenfmt.compare``: archives, snapshots and directories against each other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from rozenfmt.errors import ArchiveError, SourceError, StorageError, UsageError
from rozenfmt.events import Problem, Progress, ProgressCallback
from rozenfmt.format import cbor, crypto
from rozenfmt.format.nodes import Entry, Kind, Mark

from .reader import Archive
from .treereader import TreeReader

if TYPE_CHECKING:
    from rozenfmt.tree.excludes import Excludes

__all__ = ["Change", "Difference", "compare", "compare_tree"]

_KEPT: Final = 100_000
_PIECE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that differs.

    Attributes:
        path: Its path as bytes.
        what: ``added`` (only in b), ``removed`` (only in a), ``kind``, ``content`` or ``metadata``.
        details: What differs: ``size``, ``content``, ``mode``, ``owner``, ``mtime``, ``target``, ``device``,
            ``xattrs``, ``links``.
        directory: Whether it is a directory, in a or else in b.
    """

    path: bytes
    what: str
    details: tuple[str, ...] = ()
    directory: bool = False


@dataclass(slots=True)
class Difference:
    """What differs between a and b; false if nothing does.

    Attributes:
        changes: The differences in order of path (the first 100,000).
        count: How many there are.
        files: Entries compared.
        bytes: Content bytes compared.
        problems: What could not be read.
        problem_count: How many there were.
        unconfirmed: Files of the same size and time whose contents could not be compared.
        seconds: Time taken.
    """

    changes: list[Change] = field(default_factory=list)
    count: int = 0
    files: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    unconfirmed: int = 0
    seconds: float = 0.0

    def report(self, problem: Problem) -> None:
        """Take note of what could not be read; internal."""
        self.problem_count += 1
        if len(self.problems) < 10_000:
            self.problems.append(problem)

    def __bool__(self) -> bool:
        return self.count > 0


@dataclass(frozen=True, slots=True)
class _Item:
    """One entry of either side."""

    path: bytes
    entry: Entry
    content: Callable[[], Iterator[bytes]]
    xattrs: Callable[[], tuple[tuple[bytes, bytes], ...]]
    ids_by: bytes | None = None  # stands for the key that its ids are made with

    @property
    def key(self) -> list[bytes]:
        return self.path.split(b"/")


Side = TreeReader | str | bytes | os.PathLike[str]


def compare(
    a: Side,
    b: Side,
    *,
    contents: bool = True,
    exclude: Iterable[str] = (),
    progress: ProgressCallback | None = None,
) -> Difference:
    """Compare archives, snapshots and directories, with all metadata that restoring gives back.

    Contents are compared byte by byte.  Those with the same id by the same key are the same, and not
    read: so it is between snapshots of one host.

    A directory stands for what ``add_tree`` or ``backup`` would have stored of it, under its base name;
    compared with an archive or a snapshot, only that part of it is looked at.

    Args:
        a: An opened archive, a snapshot, or the path of a directory.
        b: Likewise; differences are told as changes from a to b.
        contents: Compare contents too, not only sizes and metadata.
        exclude: Patterns in gitignore syntax, for directories.
        progress: Called with events.

    Raises:
        UsageError: A side is neither, or the archive does not hold the directory's name.
        NoMatchingKey: Contents must be read, and a key at hand may only browse.
        ArchiveError: An archive is damaged, or missing.
    """
    result = Difference()
    names = [None if isinstance(side, TreeReader) else _base_name(side) for side in (a, b)]
    both_local = None not in names
    excludes = _excludes(exclude)
    left, right = (
        _archive_items(side, other)
        if isinstance(side, TreeReader)
        else _local_items(side, b"" if both_local else name or b"", excludes, result.report)
        for side, name, other in ((a, names[0], names[1]), (b, names[1], names[0]))
    )
    _run(result, left, right, lambda x, y: _content_differs(x, y, result, contents=contents), progress)
    return result


def compare_tree(
    tree: TreeReader,
    below: bytes,
    directory: str | bytes | os.PathLike[str],
    *,
    ids_by: bytes,
    id_key: bytes | None,
    exclude: Iterable[str] = (),
    lost: Callable[[bytes, ArchiveError | StorageError], None] | None = None,
    progress: ProgressCallback | None = None,
) -> Difference:
    """Compare part of a snapshot with a local tree by ids, without reading stored contents; internal.

    Args:
        tree: The snapshot.
        below: The part of it that the local tree should be.
        directory: The local tree.
        ids_by: What stands for the key of its ids.
        id_key: That key; without it contents and attributes cannot be compared, and are taken for the same where
            size and time are, or where there are any.
        exclude: Patterns in gitignore syntax, for the local tree.
        lost: Told of directories of the snapshot that cannot be read; by default the error is raised.
        progress: Called with events.

    Raises:
        UsageError: The local tree does not exist, or the snapshot does not hold ``below``.
        ArchiveError: The snapshot is damaged, unless ``lost`` is given.
    """
    result = Difference()
    left = _archive_items(tree, below, lost)
    right = _local_items(directory, below, _excludes(exclude), result.report)
    _run(
        result,
        _with_ids(left, ids_by, id_key),
        _with_ids(right, ids_by, id_key),
        lambda a, b: _content_id_differs(a, b, result, id_key),
        progress,
    )
    return result


def _with_ids(items: Iterator[_Item], ids_by: bytes, id_key: bytes | None) -> Iterator[_Item]:
    """The same items, attributes as ids: those that they would have, or one for all."""
    for item in items:
        entry = item.entry
        if id_key is None and (entry.xattrs or entry.xattr_ref):
            entry.xattr_ref = (b"", 0, 0)
        elif id_key is not None and entry.xattrs:
            data = cbor.dumps([[name, value] for name, value in entry.xattrs])
            entry.xattr_ref = (crypto.content_id(id_key, crypto.digest(data), len(data)), 0, 0)
        yield _Item(item.path, entry, item.content, item.xattrs, ids_by)


def _content_id_differs(a: _Item, b: _Item, result: Difference, id_key: bytes | None) -> list[str]:
    """Whether a local file has another content than a stored one, by its id."""
    one, two = a.entry, b.entry
    if one.kind != Kind.FILE or one.size != two.size:
        return ["size"] if one.kind == Kind.FILE else []
    if one.marks & Mark.UNREADABLE:
        return ["content"]
    if not one.size:
        return []
    if id_key is None:
        result.unconfirmed += 1
        return []
    whole, size = blake3(), 0
    for data in b.content():
        whole.update(data)
        size += len(data)
    result.bytes += size
    return [] if crypto.content_id(id_key, whole.digest(), size) == one.content_id else ["content"]


def _run(
    result: Difference,
    left: Iterator[_Item],
    right: Iterator[_Item],
    differs: Callable[[_Item, _Item], list[str]],
    progress: ProgressCallback | None,
) -> None:
    """Go through both sides, and note what differs."""
    started = time.monotonic()
    links: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
    reported = 0.0
    for one, two in _merge(left, right):
        result.files += 1
        path = one.path if one is not None else two.path if two is not None else b""
        try:
            change = _change(one, two, links, differs)
        except SourceError as error:  # what cannot be read cannot be said to be the same
            result.report(Problem(path, "unreadable", str(error)))
            change = Change(path, "content", ("content",))
        if change is not None:
            result.count += 1
            if len(result.changes) < _KEPT:
                result.changes.append(change)
        now = time.monotonic()
        if progress is not None and now - reported >= 0.1:
            reported = now
            progress(Progress("compare", result.files, result.bytes, 0, None, path))
    result.seconds = time.monotonic() - started


def _base_name(side: Side) -> bytes:
    assert not isinstance(side, TreeReader)
    return os.path.basename(os.path.abspath(os.fsencode(side))) or b"root"


def _excludes(patterns: Iterable[str]) -> Excludes | None:
    from rozenfmt.tree.excludes import Excludes

    patterns = list(patterns)
    return Excludes(patterns) if patterns else None


def _archive_items(
    archive: TreeReader,
    below: bytes | None,
    lost: Callable[[bytes, ArchiveError | StorageError], None] | None = None,
) -> Iterator[_Item]:
    entries = archive.walk(below or b"", lost=lost)
    # In an archive of its own ids are made with its own key, in a vault with that of the host.
    ids_by = archive.archive_id if isinstance(archive, Archive) else getattr(archive, "host_id", None)
    for entry in entries:

        def content(entry: object = entry) -> Iterator[bytes]:
            with archive.open(entry) as file:  # type: ignore[arg-type]
                while data := file.read(_PIECE):
                    yield data

        yield _Item(
            entry.path_bytes,
            entry.raw,
            content,
            lambda raw=entry.raw: archive.attributes(raw),  # type: ignore[misc]
            ids_by,
        )


def _local_items(
    side: Side, name: bytes, excludes: Excludes | None, report: Callable[[Problem], None]
) -> Iterator[_Item]:
    from rozenfmt.tree.compare import local_entries

    assert not isinstance(side, TreeReader)
    root = os.path.abspath(os.fsencode(side))
    if not os.path.lexists(root):
        msg = f"{os.fsdecode(root)!r} does not exist"
        raise UsageError(msg)
    for path, entry, content in local_entries(root, report=report, excludes=excludes):
        if not path:
            if not name:
                continue
            entry.name = name
        full = b"/".join(part for part in (name, path) if part)
        yield _Item(full, entry, content, lambda entry=entry: entry.xattrs)  # type: ignore[misc]


def _merge(left: Iterator[_Item], right: Iterator[_Item]) -> Iterator[tuple[_Item | None, _Item | None]]:
    """Pair up two sides that come in the same order: a directory before its entries, names as bytes."""
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.key < b.key):
            yield a, None
            a = next(left, None)
        elif a is None or b.key < a.key:
            yield None, b
            b = next(right, None)
        else:
            yield a, b
            a, b = next(left, None), next(right, None)


def _change(
    a: _Item | None,
    b: _Item | None,
    links: tuple[dict[bytes, bytes], dict[bytes, bytes]],
    differs: Callable[[_Item, _Item], list[str]],
) -> Change | None:
    if a is None or b is None:
        item, what = (a, "removed") if a is not None else (b, "added")
        assert item is not None
        return Change(item.path, what, directory=item.entry.kind is Kind.DIRECTORY)
    if a.entry.kind != b.entry.kind:
        kinds = (a.entry.kind.name.lower(), b.entry.kind.name.lower())
        return Change(a.path, "kind", kinds, directory=a.entry.kind is Kind.DIRECTORY)
    content = differs(a, b)
    metadata = _metadata(a, b, links)
    if content:
        return Change(a.path, "content", (*content, *metadata))
    if not metadata:
        return None
    return Change(a.path, "metadata", tuple(metadata), directory=a.entry.kind is Kind.DIRECTORY)


def _content_differs(a: _Item, b: _Item, result: Difference, *, contents: bool) -> list[str]:
    if a.entry.kind != Kind.FILE:
        return []
    if a.entry.size != b.entry.size:
        return ["size"]
    unread = (a.entry.marks | b.entry.marks) & Mark.UNREADABLE
    if not contents or not a.entry.size or unread:
        return ["content"] if unread else []
    if a.ids_by is not None and a.ids_by == b.ids_by:
        return [] if a.entry.content_id == b.entry.content_id else ["content"]
    result.bytes += a.entry.size
    same = all(x == y for x, y in _aligned(a.content(), b.content()))
    return [] if same else ["content"]


def _aligned(a: Iterator[bytes], b: Iterator[bytes]) -> Iterator[tuple[memoryview, memoryview]]:
    """Cut two runs of bytes at the same places."""
    x: memoryview = memoryview(b"")
    y: memoryview = memoryview(b"")
    while True:
        if not x:
            x = memoryview(next(a, b""))
        if not y:
            y = memoryview(next(b, b""))
        if not x or not y:
            if x or y:
                yield x, y
            return
        size = min(len(x), len(y))
        yield x[:size], y[:size]
        x, y = x[size:], y[size:]


def _metadata(a: _Item, b: _Item, links: tuple[dict[bytes, bytes], dict[bytes, bytes]]) -> list[str]:
    one, two = a.entry, b.entry
    found = []
    if one.mode != two.mode and one.kind != Kind.SYMLINK:
        found.append("mode")
    if (one.uid, one.gid) != (two.uid, two.gid):
        found.append("owner")
    if one.mtime_ns != two.mtime_ns:
        found.append("mtime")
    if one.target != two.target:
        found.append("target")
    if one.device != two.device:
        found.append("device")
    if _xattrs_differ(a, b):
        found.append("xattrs")
    if _linked(one, a.path, links[0]) != _linked(two, b.path, links[1]):
        found.append("links")
    return found


def _xattrs_differ(a: _Item, b: _Item) -> bool:
    one, two = a.entry.xattr_ref, b.entry.xattr_ref
    if a.ids_by is not None and a.ids_by == b.ids_by:
        return (one and one[0]) != (two and two[0])
    return a.xattrs() != b.xattrs()


def _linked(entry: Entry, path: bytes, seen: dict[bytes, bytes]) -> bytes | None:
    """First path of the entry's link group on its side: the same on both if the links are the same."""
    if entry.link_group is None:
        return None
    return seen.setdefault(entry.link_group, path)
