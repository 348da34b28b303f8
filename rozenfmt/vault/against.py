"""A local tree against a snapshot, without reading a data archive."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rozenfmt.archive.compare import compare_tree
from rozenfmt.errors import UsageError
from rozenfmt.events import ProgressCallback
from rozenfmt.format.registry import Right

if TYPE_CHECKING:
    from .findings import Findings
    from .snapshot import Snapshot

__all__ = ["compare_local", "source_of"]


def compare_local(
    findings: Findings,
    snapshot: Snapshot,
    directory: str | bytes | os.PathLike[str],
    *,
    exclude: Iterable[str],
    progress: ProgressCallback | None,
) -> None:
    """Compare a local tree with one source of a snapshot.

    Contents are compared by the ids that local files would have, for which they are read; files of another size
    are not read.  A key that may browse cannot make ids: then files of the same size and time are unconfirmed.

    Args:
        findings: Where differences go.
        snapshot: The snapshot.
        directory: A directory, or a file; see ``source_of``.
        exclude: Patterns in gitignore syntax, relative to the directory.
        progress: Called with events.

    Raises:
        UsageError: The directory does not exist, or stands for no source of the snapshot.
        ArchiveError: The root of the snapshot is damaged, or the archive that holds it is missing.
    """
    name = source_of(snapshot, directory)
    keyring = snapshot.archives.keyring
    id_key = keyring.id_key(snapshot.host_id) if keyring.right is Right.READ else None
    found = compare_tree(
        snapshot,
        name,
        directory,
        ids_by=snapshot.host_id,
        id_key=id_key,
        exclude=exclude,
        lost=lambda _, error: findings.damage(snapshot.object, error),
        progress=progress,
    )
    findings.different(found.changes, found.count)
    report = findings.report
    report.unconfirmed += found.unconfirmed
    report.problems += found.problems
    report.entries += found.files
    report.content_bytes += found.bytes


def source_of(snapshot: Snapshot, directory: str | bytes | os.PathLike[str]) -> bytes:
    """Name of the source in a snapshot that a local directory stands for: the only one, or that of its base name.

    Raises:
        UsageError: There is none.
    """
    path = os.path.abspath(os.fsencode(directory))
    names = [source.name for source in snapshot.sources]
    by_origin = [source.name for source in snapshot.sources if source.origin == path]
    base = os.path.basename(path) or b"root"
    if base in names:
        return base
    if len(by_origin) == 1:
        return by_origin[0]
    if len(names) == 1:
        return names[0]
    shown = ", ".join(repr(os.fsdecode(name)) for name in names)
    msg = f"{os.fsdecode(path)!r} stands for no source of this snapshot, which has {shown}: give one of that name"
    raise UsageError(msg)
