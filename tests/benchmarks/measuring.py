"""One process at a time: how long it took, on the clock and on the processors, and how much memory at its peak.

Whoever measures must stay small.  Linux counts into the peak of a child what its parent held when the child began,
so nothing big is read, made or imported here: trees are made by processes of their own, and what the smallest
program seems to take is kept with the results.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = [
    "MIB",
    "ROOT",
    "Failed",
    "Record",
    "Run",
    "Spread",
    "about",
    "apart",
    "measure",
    "shell",
    "size_of",
]

ROOT: Final = Path(__file__).resolve().parents[2]
MIB: Final = 1 << 20

_LIBRARIES: Final = ("blake3", "cryptography", "pyfastcdc", "pynacl", "zstandard")
_PROGRAMS: Final = {
    "restic": ("restic", "version"),
    "borg": ("borg", "--version"),
    "age": ("age", "--version"),
    "zstd": ("zstd", "--version"),
    "tar": ("tar", "--version"),
}


class Failed(SystemExit):
    """A process that was to be measured ended with an error."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one process took.

    Attributes:
        wall: Seconds on the clock.
        cpu: Seconds of processors, user and system, with all its children.
        memory: Peak of resident memory in bytes; of several processes, that of the biggest.
    """

    wall: float
    cpu: float
    memory: int


@dataclass(frozen=True, slots=True)
class Record:
    """A run in its place among the others.

    Attributes:
        tree: What was backed up.
        round: Number of the round, from 0.
        tool: Name of the tool.
        step: What it did.
        wall: See ``Run``.
        cpu: See ``Run``.
        memory: See ``Run``.
        stored: Bytes that the step added to the store.
    """

    tree: str
    round: int
    tool: str
    step: str
    wall: float
    cpu: float
    memory: int
    stored: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of some values."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1])

    def text(self, form: str) -> str:
        """For a table: ``0.41 (0.39–0.44)``, each number in the given format; of one value, that alone."""
        if self.least == self.most:
            return format(self.median, form)
        return f"{self.median:{form}} ({self.least:{form}}–{self.most:{form}})"


def measure(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Run:
    """Run a command to its end.

    Args:
        command: What to run; its standard output is thrown away.
        environment: On top of that of this process.
        cwd: Where to run it.

    Raises:
        Failed: It did not exit with 0.
    """
    # What is installed has been compiled; a checkout is to be compiled once, and not again for each process.
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**inherited, **(environment or {})},
            cwd=cwd,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-2000:]
            raise Failed(f"{' '.join(map(str, command))} ended with {process.returncode}: {said}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def shell(line: str, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> Run:
    """Run a line of bash, in which ``$1`` and so on are the arguments, and measure it with all its processes."""
    return measure(["bash", "-c", f"set -eu -o pipefail; {line}", "bash", *arguments], environment)


def apart(module: str, *arguments: str | Path) -> Any:
    """Run one of these modules in a process of its own; returns what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.{module}", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def size_of(store: Path) -> int:
    """Bytes in a file, or in all files below a folder; 0 if it is not there."""
    if not store.is_dir():
        return store.stat().st_size if store.exists() else 0
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(store) for name in names)


def about(work: Path, **settings: object) -> dict[str, Any]:
    """The machine, the versions, and how the measurement was made."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": {
            "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
            "processors": len(os.sched_getaffinity(0)),
            "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "memory floor": measure(["true"]).memory,
            "system": _field("/etc/os-release", "PRETTY_NAME").strip('"') or platform.system(),
            "kernel": platform.release(),
            "file system": _file_system(work),
        },
        "versions": _versions(),
        "settings": settings,
    }


def _field(path: str, name: str) -> str:
    """What a line ``name: value`` or ``name=value`` of a file says; empty if there is none."""
    if not os.path.exists(path):
        return ""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.replace("=", ":", 1).partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _file_system(place: Path) -> str:
    return _said("stat", "--file-system", "--format=%T", str(place)).strip()


def _said(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version(), "rozenfmt": importlib.metadata.version("rozenfmt")}
    if (ROOT / ".git").exists() and shutil.which("git"):
        found["rozenfmt"] += f" ({_said('git', '-C', str(ROOT), 'describe', '--always', '--dirty').strip()})"
    for name in _LIBRARIES:
        found[name] = importlib.metadata.version(name)
    for name, command_line in _PROGRAMS.items():
        if shutil.which(name):
            said = _said(*command_line)
            words = [word.strip("v,") for word in said.splitlines()[0].split()]
            found[name] = next((word for word in words if word[:1].isdigit()), said.strip())
    return found
