"""What became of entries that are not where they were: moved, or deleted.

What was moved within a file system was found by its inode already (``baseline``).  The rest is matched
by ids of contents and of directories' nodes, each old path once, same names first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rozenfmt.format.nodes import Kind

from .results import Move

if TYPE_CHECKING:
    from .baseline import Baseline
    from .catalog import Catalog
    from .results import BackupResult

__all__ = ["resolve_gone"]

_LISTED: Final = 16_384


def resolve_gone(catalog: Catalog, baseline: Baseline, result: BackupResult) -> None:
    """Tell moves from deletions, now that everything was seen.

    Args:
        catalog: Was told of all that is gone and of all that is new.
        baseline: Knows what was found by its inode.
        result: Gets moves and deletions; what was found by its content was counted as new there.
    """
    moves = [Move(old, new, directory=True) for old, new in baseline.moved_directories.items()]
    moves += [Move(old, new) for old, new in baseline.moved_files.items()]
    gone = [
        (path, kind, one)
        for path, kind, one in catalog.gone()
        if path not in baseline.moved_directories and path not in baseline.moved_files
    ]
    catalog.replace_gone(gone)
    matched = catalog.match_moves()
    directories = {old for old, _, kind, _ in matched if kind == Kind.DIRECTORY}
    new_directories = {new for _, new, kind, _ in matched if kind == Kind.DIRECTORY}
    expanded = []
    for path, kind, _ in gone:
        if kind == Kind.DIRECTORY:
            catalog.drop_tree(path)
            if path not in directories:
                for inside, entry in baseline.subtree(path):
                    one = _join(inside, entry.name)
                    if entry.has_content and one not in baseline.moved_files and not baseline.below_moved(one):
                        assert entry.content_id is not None
                        expanded.append((one, int(entry.kind), entry.content_id))
    if expanded:
        catalog.add_gone(expanded)
        matched = catalog.match_moves()
    whole: dict[bytes, bytes] = {}
    for old, new, kind, files in matched:  # what is found by its content was counted as new
        if _below(new, new_directories):
            continue
        moves.append(Move(old, new, directory=kind == Kind.DIRECTORY))
        if kind == Kind.DIRECTORY:
            whole[old] = new
            result.new -= files
            result.same += files
        else:
            result.new -= 1
    if whole:
        moves = _without_parts(moves, whole, result)
    taken = {move.old for move in moves}
    deleted = [path for path, _, _ in gone if path not in taken]
    result.moved, result.deleted = len(moves), len(deleted)
    result.moves = sorted(moves, key=lambda move: move.old)[:_LISTED]
    result.deletions = sorted(deleted)[:_LISTED]


def _without_parts(moves: list[Move], whole: dict[bytes, bytes], result: BackupResult) -> list[Move]:
    """The moves, but for those that the move of a directory says already."""
    kept = []
    for move in moves:
        above = move.old.rpartition(b"/")[0]
        while above and above not in whole:
            above = above.rpartition(b"/")[0]
        if not above or move.new != whole[above] + move.old[len(above) :]:
            kept.append(move)
        elif not move.directory:
            result.same += 1
    return kept


def _below(path: bytes, directories: set[bytes]) -> bool:
    while path:
        path = path.rpartition(b"/")[0]
        if path in directories:
            return True
    return False


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
