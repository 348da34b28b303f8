"""How time and memory grow: with the number of small files, and with the length of one sparse file.

Every measurement is a process of its own, so that its peak of memory is its own, too.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from .compare import scratch
from .measuring import Run, about
from .tools import Archive, Rozenfmt, Tool
from .trees import Tree

__all__ = ["scaling"]

_MILLION: Final = 1_000_000
_PHOTOS: Final = 0.1


def scaling(
    files: Sequence[int], gigabytes: Sequence[float], *, workers: int, more: int, settle: float, work: Path
) -> Iterator[dict[str, Any]]:
    """Measure trees of so many files, and sparse files of so many GB; yields what is known so far.

    Args:
        files: Numbers of small files.
        gigabytes: Lengths of sparse files.
        workers: Threads of each backup.
        more: Further threads, to see the memory that they take; 0 not to.
        settle: Seconds to wait after writing a tree.
        work: Folder with room for the biggest tree.
    """
    points: list[dict[str, Any]] = []
    found = {"mode": "scaling", "about": about(work, workers=workers), "points": points}
    for count in files:
        with scratch(work) as folder:
            points += _many_files(count, workers, settle, folder)
        yield found
    for threads in (workers, workers + more) if more else ():
        with scratch(work) as folder:
            points.append(_threads(threads, folder))
        yield found
    for length in gigabytes:
        with scratch(work) as folder:
            points += _sparse(length, workers, settle, folder)
        yield found


def _many_files(count: int, workers: int, settle: float, work: Path) -> list[dict[str, Any]]:
    """First and unchanged backup of many files."""
    tool, tree = _vault(workers, work), work / "tree"
    shape = Tree("million", "million", "", count / _MILLION).make(tree)
    time.sleep(settle)
    return [_point("files", shape.files, step, tool.backup(tree)) for step in ("first backup", "unchanged backup")]


def _threads(workers: int, work: Path) -> dict[str, Any]:
    """First backup of files that do not compress, which keep all threads busy."""
    tool, tree = _vault(workers, work), work / "tree"
    Tree("photos", "photos", "", _PHOTOS).make(tree)
    return _point("workers", workers, "first backup", tool.backup(tree))


def _sparse(gigabytes: float, workers: int, settle: float, work: Path) -> list[dict[str, Any]]:
    """A sparse file into a vault and into an archive, and back."""
    tree = work / "tree"
    shape = Tree("sparse", "sparse", "", gigabytes).make(tree)
    time.sleep(settle)
    points = []
    (work / "archive").mkdir()
    for what, tool in (("vault", _vault(workers, work)), ("archive", Archive(work / "archive"))):
        for step in ("backup", "verify", "restore"):
            run = _act(tool, step, tree, work / "restored")
            points.append(_point("sparse bytes", shape.bytes, f"{what}: {step}", run))
        shutil.rmtree(work / "restored")
    return points


def _act(tool: Tool, step: str, tree: Path, to: Path) -> Run:
    run = tool.backup(tree) if step == "backup" else tool.verify() if step == "verify" else tool.restore(to)
    assert run is not None
    return run


def _vault(workers: int, work: Path) -> Tool:
    (work / "vault").mkdir()
    tool = Rozenfmt(work / "vault")
    tool.options = ("--workers", str(workers))
    return tool


def _point(of: str, size: int, step: str, run: Run) -> dict[str, Any]:
    print(f"{size:,} {of}: {step}: {run.wall:.2f} s", file=sys.stderr, flush=True)
    return {"of": of, "size": size, "step": step, "wall": run.wall, "cpu": run.cpu, "memory": run.memory}
