"""Single archives beside restic: wall time, processor time, peak memory and stored size, as ratios.

    python tests/benchmarks/single_archive.py TREE [--rounds 3] [--work DIR]

Both tools run alternately on the same tree, each in a process of its own; put tree and work
directory on tmpfs, so that the disk does not decide.  Nothing here asserts a time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one command: seconds of wall and processor time, peak memory in MiB."""

    wall: float
    processor: float
    memory: float


def run(command: list[str], environment: dict[str, str] | None = None) -> Run:
    """Run a command to its end and measure it."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        msg = f"{command[:4]} ended with {process.returncode}"
        raise SystemExit(msg)
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


class Ours:
    """The command line of this project, as installed beside this interpreter."""

    def __init__(self, work: Path) -> None:
        self.key, self.archive = work / "me.key", work / "tree.rzn"
        self.program = [sys.executable, "-m", "rozenfmt"]
        run([*self.program, "keygen", "-o", str(self.key)])

    def create(self, tree: Path) -> Run:
        """Make the archive anew."""
        self.archive.unlink(missing_ok=True)
        return run([*self.program, "archive", "create", "-q", "-r", str(self.key), str(self.archive), str(tree)])

    def check(self) -> Run:
        """Check everything, with the key."""
        return run([*self.program, "archive", "check", "-q", "-i", str(self.key), str(self.archive)])

    def check_keyless(self) -> Run:
        """Check every stored byte, without it."""
        return run([*self.program, "archive", "check", "-q", str(self.archive)], {"ROZENFMT_IDENTITY": ""})

    def restore(self, destination: Path) -> Run:
        """Restore everything."""
        extract = [*self.program, "archive", "extract", "-q", "-i", str(self.key)]
        return run([*extract, str(self.archive), str(destination)])

    def stored(self) -> int:
        """Bytes stored."""
        return self.archive.stat().st_size


class Restic:
    """restic with a repository in a directory."""

    def __init__(self, work: Path) -> None:
        self.repository = work / "restic"
        self.environment = {
            "RESTIC_PASSWORD": "x",
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_CACHE_DIR": str(work / "restic-cache"),
        }

    def create(self, tree: Path) -> Run:
        """A first backup into a new repository."""
        shutil.rmtree(self.repository, ignore_errors=True)
        run(["restic", "init", "-q"], self.environment)
        return run(["restic", "backup", "-q", str(tree)], self.environment)

    def check(self) -> Run:
        """Read and check all data."""
        return run(["restic", "check", "-q", "--read-data"], self.environment)

    def restore(self, destination: Path) -> Run:
        """Restore everything."""
        return run(["restic", "restore", "-q", "latest", "--target", str(destination)], self.environment)

    def stored(self) -> int:
        """Bytes stored."""
        return sum(path.stat().st_size for path in self.repository.rglob("*") if path.is_file())


def restored(make: Callable[[Path], Run], work: Path) -> Run:
    """Run a restore into a fresh directory."""
    destination = work / "restored"
    shutil.rmtree(destination, ignore_errors=True)
    found = make(destination)
    shutil.rmtree(destination)
    return found


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        work = Path(folder)
        ours, peer = Ours(work), Restic(work)
        rows: dict[str, tuple[list[Run], list[Run]]] = {}
        for _ in range(options.rounds):
            steps: list[tuple[str, Callable[[], Run], Callable[[], Run] | None]] = [
                ("create", lambda: ours.create(options.tree), lambda: peer.create(options.tree)),
                ("check, all data", ours.check, peer.check),
                ("check, no key", ours.check_keyless, None),
                ("restore", lambda: restored(ours.restore, work), lambda: restored(peer.restore, work)),
            ]
            for name, mine, theirs in steps:
                row = rows.setdefault(name, ([], []))
                row[0].append(mine())
                if theirs is not None:
                    row[1].append(theirs())
        print("| what | rozenfmt | processor | memory | restic | processor | memory | ratio of walls, per round |")
        print("|---|---|---|---|---|---|---|---|")
        for name, (mine_runs, their_runs) in rows.items():
            print(f"| {name} | {describe(mine_runs)} | {describe(their_runs)} | {ratios(mine_runs, their_runs)} |")
        print(f"| stored | {ours.stored():,} | | | {peer.stored():,} | | | {ours.stored() / peer.stored():.3f} |")


def describe(runs: list[Run]) -> str:
    """Medians of one row."""
    if not runs:
        return "– | – | –"
    wall, processor = (statistics.median(values) for values in ([r.wall for r in runs], [r.processor for r in runs]))
    return f"{wall:.2f} s | {processor:.2f} s | {max(r.memory for r in runs):.0f} MiB"


def ratios(mine: list[Run], theirs: list[Run]) -> str:
    """Ratio of the walls round by round, and their median."""
    found = [a.wall / b.wall for a, b in zip(mine, theirs, strict=False)]
    return f"{statistics.median(found):.2f} ({', '.join(f'{one:.2f}' for one in found)})" if found else "–"


if __name__ == "__main__":
    main()
