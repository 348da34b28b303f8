"""Programs that make backups, each with a store of its own below a work folder.

A step that a tool has no word for answers None.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .measuring import Run, measure, shell

__all__ = ["ARCHIVE", "BORG", "OURS", "PIPE", "RESTIC", "TOOLS", "UNCHECKED", "Kind", "Tool", "missing"]

OURS: Final = "rozenfmt"
UNCHECKED: Final = "rozenfmt, no decode check"
ARCHIVE: Final = "rozenfmt archive"
RESTIC: Final = "restic"
BORG: Final = "borg"
PIPE: Final = "pipe"

_PROGRAM: Final = (sys.executable, "-m", "rozenfmt")


class Tool:
    """A program, and what it has stored.

    Args:
        work: An empty folder of its own, with everything that it writes.

    Attributes:
        store: File or folder with the backups.
        incremental: Whether a later backup stores only what is new; else there is only a first one.
        reads: Whether it is asked to verify and to restore; else its store is given up after the backups.
    """

    incremental = True
    reads = True

    def __init__(self, work: Path) -> None:
        self.store = work / "store"

    def backup(self, tree: Path) -> Run:
        """Back the tree up."""
        raise NotImplementedError

    def verify(self) -> Run | None:
        """Read everything that is stored, and prove with the key that the contents are right."""

    def keyless(self) -> Run | None:
        """Read everything that is stored, and prove as much as can be proven without a key."""

    def check(self) -> Run | None:
        """See that everything is there, without reading contents."""

    def restore(self, to: Path) -> Run | None:
        """Restore the latest backup below a folder that is not there yet."""

    def read(self, tree: Path, file: str) -> Run | None:
        """Read one file of the latest backup."""


class Rozenfmt(Tool):
    """The command line of this project over a vault, as it runs from this checkout."""

    options: tuple[str, ...] = ()

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        key = work / "me.key"
        self._environment = {
            "ROZENFMT_CONFIG_DIR": str(work / "config"),
            "ROZENFMT_CACHE_DIR": str(work / "cache"),
            "ROZENFMT_IDENTITY": str(key),
        }
        self._run("keygen", "-o", key)
        self._run("init", self.store, "-i", key)

    def _run(self, *arguments: str | Path) -> Run:
        return measure([*_PROGRAM, *arguments], self._environment)

    def backup(self, tree: Path) -> Run:
        return self._run("backup", "-q", "--name", "bench", *self.options, self.store, tree)

    def verify(self) -> Run | None:
        return self._run("verify", "-q", "--level", "contents", self.store)

    def keyless(self) -> Run | None:
        # As docs/howto/verify.md has it.
        line = 'find "$1" -name "*.rzn" -print0 | xargs -0 "${@:2}" archive check -q'
        return shell(line, self.store, *_PROGRAM, environment={**self._environment, "ROZENFMT_IDENTITY": ""})

    def check(self) -> Run | None:
        return self._run("verify", "-q", "--level", "present", self.store)

    def restore(self, to: Path) -> Run | None:
        return self._run("restore", "-q", self.store, "latest:bench", to)

    def read(self, tree: Path, file: str) -> Run | None:
        return self._run("cat", self.store, "latest:bench", f"{tree.name}/{file}")


class Unchecked(Rozenfmt):
    """The same without decoding each block again, which the others do not do either."""

    options = ("--no-decode-check",)
    reads = False


class Archive(Tool):
    """The command line of this project, and a single file."""

    incremental = False

    def __init__(self, work: Path) -> None:
        self.store = work / "tree.rzn"
        self._key = work / "me.key"
        self._run("keygen", "-o", self._key)

    @staticmethod
    def _run(*arguments: str | Path) -> Run:
        return measure([*_PROGRAM, *arguments], {"ROZENFMT_IDENTITY": ""})

    def backup(self, tree: Path) -> Run:
        return self._run("archive", "create", "-q", "-r", self._key, self.store, tree)

    def verify(self) -> Run | None:
        return self._run("archive", "check", "-q", "-i", self._key, self.store)

    def keyless(self) -> Run | None:
        return self._run("archive", "check", "-q", self.store)

    def restore(self, to: Path) -> Run | None:
        return self._run("archive", "extract", "-q", "-i", self._key, self.store, to)

    def read(self, tree: Path, file: str) -> Run | None:
        return self._run("archive", "cat", "-i", self._key, self.store, f"{tree.name}/{file}")


class Restic(Tool):
    """restic with a repository in a folder."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self._environment = {
            "RESTIC_REPOSITORY": str(self.store),
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(work / "cache"),
        }
        self._run("init")

    def _run(self, *arguments: str | Path) -> Run:
        return measure(["restic", "-q", *arguments], self._environment)

    def backup(self, tree: Path) -> Run:
        return self._run("backup", tree)

    def verify(self) -> Run | None:
        return self._run("check", "--read-data")

    def check(self) -> Run | None:
        return self._run("check")

    def restore(self, to: Path) -> Run | None:
        return self._run("restore", "latest", "--target", to)

    def read(self, tree: Path, file: str) -> Run | None:
        return self._run("dump", "latest", tree / file)


class Borg(Tool):
    """BorgBackup with a repository in a folder."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self._environment = {
            "BORG_REPO": str(self.store),
            "BORG_PASSPHRASE": "benchmark",
            "BORG_BASE_DIR": str(work / "base"),
        }
        self._number = 0
        self._run("init", "-e", "repokey-blake2")

    def _run(self, *arguments: str | Path, cwd: Path | None = None) -> Run:
        return measure(["borg", *arguments], self._environment, cwd)

    def backup(self, tree: Path) -> Run:
        self._number += 1
        return self._run("create", "-C", "zstd,3", f"::{self._number}", tree)

    def verify(self) -> Run | None:
        return self._run("check", "--verify-data")

    def keyless(self) -> Run | None:
        return self._run("check", "--repository-only")

    def check(self) -> Run | None:
        return self._run("check", "--archives-only")

    def restore(self, to: Path) -> Run | None:
        to.mkdir()
        return self._run("extract", f"::{self._number}", cwd=to)

    def read(self, tree: Path, file: str) -> Run | None:
        return self._run("extract", "--stdout", f"::{self._number}", str(tree / file).lstrip("/"))


class Pipe(Tool):
    """``tar | zstd -3 -T2 | age``, with as many threads as there are processors."""

    incremental = False

    def __init__(self, work: Path) -> None:
        self.store = work / "tree.tar.zst.age"
        self._key = work / "age.key"
        self._threads = len(os.sched_getaffinity(0))
        measure(["age-keygen", "-o", self._key])
        command = ["age-keygen", "-y", str(self._key)]
        self._recipient = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def backup(self, tree: Path) -> Run:
        line = f'tar -C "$1" -cf - "$2" | zstd -q -3 -T{self._threads} | age -r "$3" -o "$4"'
        return shell(line, tree.parent, tree.name, self._recipient, self.store)

    def verify(self) -> Run | None:
        return shell('age -d -i "$1" "$2" | zstd -q -t', self._key, self.store)

    def restore(self, to: Path) -> Run | None:
        return shell('mkdir "$3"; age -d -i "$1" "$2" | zstd -q -d | tar -C "$3" -xf -', self._key, self.store, to)

    def read(self, tree: Path, file: str) -> Run | None:
        line = 'age -d -i "$1" "$2" | zstd -q -d | tar -xf - -O "$3"'
        return shell(line, self._key, self.store, f"{tree.name}/{file}")


@dataclass(frozen=True, slots=True)
class Kind:
    """A tool that can be asked for.

    Attributes:
        name: In tables.
        make: Makes one with an empty store.
        programs: What must be installed.
    """

    name: str
    make: Callable[[Path], Tool]
    programs: tuple[str, ...] = ()


TOOLS: Final = {
    "rozenfmt": Kind(OURS, Rozenfmt),
    "unchecked": Kind(UNCHECKED, Unchecked),
    "archive": Kind(ARCHIVE, Archive),
    "restic": Kind(RESTIC, Restic, ("restic",)),
    "borg": Kind(BORG, Borg, ("borg",)),
    "pipe": Kind(PIPE, Pipe, ("tar", "zstd", "age", "age-keygen")),
}


def missing(kind: Kind) -> list[str]:
    """Programs that a tool needs and that are not installed."""
    return [program for program in kind.programs if shutil.which(program) is None]
