"""The vault beside restic and borg: first backup, unchanged, 1 % changed, a folder moved, verify, restore.

    python tests/benchmarks/vault.py [source=TREE] [photos] [image] [--rounds 1] [--work /dev/shm]

``photos`` are 360 generated files of random bytes (1.9 GB); ``image`` is one file of 2.4 GB, half of it
random, of which regions are overwritten and in front of which bytes are inserted.  Each step is a process of
its own; the tools take turns on the same tree.  Put the work directory on tmpfs.  Nothing here asserts a time.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Protocol

_STEPS: Final = ("first", "unchanged", "changed", "moved", "verify", "restore")
_SETTLE: Final = 2.2  # seconds after which a file is not taken for having been written just now


def run(command: list[str], environment: dict[str, str]) -> float:
    """Run a command to its end; returns seconds."""
    start = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"{' '.join(command[:4])} ended with {done.returncode}: {done.stderr[-2000:]}"
        raise SystemExit(msg)
    return time.perf_counter() - start


def size_of(folder: Path) -> int:
    """Bytes in all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Tool(Protocol):
    """A program that makes backups into a folder of its own."""

    name: str
    store: Path

    def backup(self, tree: Path) -> float:
        """Back the tree up."""
        ...

    def verify(self) -> float:
        """Read and check everything."""
        ...

    def restore(self, to: Path) -> float:
        """Restore the latest snapshot."""
        ...


class Ours:
    """This project's command line; with ``check=False`` without the decode check, which the others do not make."""

    def __init__(self, work: Path, *, check: bool = True) -> None:
        self.name = "rozenfmt" if check else "rozenfmt, no decode check"
        self.store, self._key = work / "vault", work / "me.key"
        self._options = [] if check else ["--no-decode-check"]
        self._program = [sys.executable, "-m", "rozenfmt"]
        self._environment = {
            "ROZENFMT_CONFIG_DIR": str(work / "config"),
            "ROZENFMT_CACHE_DIR": str(work / "cache"),
            "ROZENFMT_IDENTITY": str(self._key),
        }
        self._run("keygen", "-o", str(self._key))
        self._run("init", str(self.store), "-i", str(self._key))

    def _run(self, *arguments: str) -> float:
        return run([*self._program, *arguments], self._environment)

    def backup(self, tree: Path) -> float:
        """Back the tree up."""
        return self._run("backup", "-q", "--name", "bench", *self._options, str(self.store), str(tree))

    def verify(self) -> float:
        """Read and check everything."""
        return self._run("verify", "-q", "--level", "contents", str(self.store))

    def restore(self, to: Path) -> float:
        """Restore the latest snapshot."""
        return self._run("restore", "-q", str(self.store), "latest:bench", str(to))


class Restic:
    """restic."""

    name = "restic"

    def __init__(self, work: Path) -> None:
        self.store = work / "restic"
        self._environment = {
            "RESTIC_REPOSITORY": str(self.store),
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(work / "restic-cache"),
        }
        self._run("init")

    def _run(self, *arguments: str) -> float:
        return run(["restic", "-q", *arguments], self._environment)

    def backup(self, tree: Path) -> float:
        """Back the tree up."""
        return self._run("backup", str(tree))

    def verify(self) -> float:
        """Read and check everything."""
        return self._run("check", "--read-data")

    def restore(self, to: Path) -> float:
        """Restore the latest snapshot."""
        return self._run("restore", "latest", "--target", str(to))


class Borg:
    """BorgBackup."""

    name = "borg"

    def __init__(self, work: Path) -> None:
        self.store = work / "borg"
        self._environment = {
            "BORG_REPO": str(self.store),
            "BORG_PASSPHRASE": "benchmark",
            "BORG_BASE_DIR": str(work / "borg-base"),
        }
        self._number = 0
        self._run("init", "-e", "repokey-blake2")

    def _run(self, *arguments: str) -> float:
        return run(["borg", *arguments], self._environment)

    def backup(self, tree: Path) -> float:
        """Back the tree up."""
        self._number += 1
        return self._run("create", "-C", "zstd,3", f"::{self._number}", str(tree))

    def verify(self) -> float:
        """Read and check everything."""
        return self._run("check", "--verify-data")

    def restore(self, to: Path) -> float:
        """Restore the latest archive."""
        to.mkdir()
        here = Path.cwd()
        os.chdir(to)
        try:
            return self._run("extract", f"::{self._number}")
        finally:
            os.chdir(here)


def make_photos(where: Path) -> None:
    """360 files of random bytes, 3.5 to 7 MB each, in 12 folders."""
    chance = random.Random(1)
    for number in range(360):
        path = where / f"{2010 + number % 12}" / f"IMG_{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(3_500_000, 7_000_000)))


def make_image(where: Path) -> None:
    """One file of 2.4 GB: random and repeated regions of 8 MB in turn."""
    where.mkdir()
    chance = random.Random(2)
    with (where / "disk.img").open("wb") as file:
        for number in range(300):
            file.write(chance.randbytes(8_000_000) if number % 2 else (b"%08d" % number) * 1_000_000)


def change(tree: Path) -> None:
    """Append to 1 % of the files; in a single big file overwrite 1 % in 24 places, and insert bytes in front."""
    chance = random.Random(3)
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    if len(files) == 1:
        whole = files[0].read_bytes()
        changed = bytearray(whole)
        del whole
        for _ in range(24):
            at = chance.randrange(len(changed) - 1_000_000)
            changed[at : at + 1_000_000] = chance.randbytes(1_000_000)
        files[0].write_bytes(b"inserted in front" + changed)
        return
    for path in chance.sample(files, max(1, len(files) // 100)):
        with path.open("ab") as file:
            file.write(b"changed %d\n" % chance.getrandbits(40))


def move(tree: Path) -> None:
    """Rename the first folder, or the only file."""
    first = next(path for path in sorted(tree.iterdir()) if path.is_dir() or len(list(tree.iterdir())) == 1)
    first.rename(tree / "moved away")


def measure(make_tree: Callable[[Path], object], tools: list[Tool], work: Path) -> dict[str, dict[str, float]]:
    """All steps with all tools on one tree; sizes are in MB."""
    tree = work / "tree"
    make_tree(tree)
    time.sleep(_SETTLE)
    found: dict[str, dict[str, float]] = {tool.name: {} for tool in tools}
    for step, prepare in (("first", None), ("unchanged", None), ("changed", change), ("moved", move)):
        if prepare is not None:
            prepare(tree)
            time.sleep(_SETTLE)
        for tool in tools:
            before = size_of(tool.store)
            found[tool.name][step] = tool.backup(tree)
            found[tool.name][f"{step} MB"] = (size_of(tool.store) - before) / 1e6
    for tool in tools:
        found[tool.name]["verify"] = tool.verify()
        found[tool.name]["restore"] = tool.restore(work / "restored")
        shutil.rmtree(work / "restored")
    return found


def show(name: str, rounds: list[dict[str, dict[str, float]]]) -> None:
    """A Markdown table of medians."""
    print(f"\n| {name} | first | stored MB | unchanged | 1 % changed | MB | moved | MB | verify | restore |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for tool in rounds[0]:
        cell = {key: statistics.median(one[tool][key] for one in rounds) for key in rounds[0][tool]}
        row = [
            *(f"{cell['first']:.2f} s", f"{cell['first MB']:.1f}", f"{cell['unchanged']:.2f} s"),
            *(f"{cell['changed']:.2f} s", f"{cell['changed MB']:.2f}", f"{cell['moved']:.2f} s"),
            *(f"{cell['moved MB']:.3f}", f"{cell['verify']:.2f} s", f"{cell['restore']:.2f} s"),
        ]
        print(f"| {tool} | {' | '.join(row)} |")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", default=["photos"], help="source=DIR, photos, image")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("/dev/shm"))
    arguments = parser.parse_args()
    for name in arguments.trees:
        kind, _, source = name.partition("=")
        makers: dict[str, Callable[[Path], object]] = {
            "source": partial(shutil.copytree, source, symlinks=True),
            "photos": make_photos,
            "image": make_image,
        }
        rounds = []
        for _ in range(arguments.rounds):
            work = arguments.work / f"rozenfmt-bench-{os.getpid()}"
            work.mkdir()
            try:
                tools: list[Tool] = []
                for folder, make in (("a", Ours), ("b", lambda to: Ours(to, check=False))):
                    (work / folder).mkdir()
                    tools.append(make(work / folder))
                tools += [Restic(work)] if shutil.which("restic") else []
                tools += [Borg(work)] if shutil.which("borg") else []
                rounds.append(measure(makers[kind], tools, work))
            finally:
                shutil.rmtree(work)
        show(kind, rounds)


if __name__ == "__main__":
    main()
