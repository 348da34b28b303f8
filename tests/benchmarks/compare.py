"""Tools side by side on the same trees.

Every round makes the tree and all stores anew.  Step by step, the tools run one after the other, and each round
begins with another one of them: what disturbs the machine for a while disturbs all alike.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from .measuring import Failed, Record, Run, about, measure, size_of
from .tools import PIPE, RESTIC, TOOLS, Kind, Tool
from .trees import Shape, Tree

__all__ = ["BACKUPS", "READS", "START_UPS", "STEPS", "compare"]

# Files that were written just now are read again by the next backup, whose clock may be a little off.
SETTLE: Final = 2.2
BACKUPS: Final = ("first", "unchanged", "1 % changed", "folder moved")
READS: Final = ("verify", "verify without key", "check", "restore", "one file")
STEPS: Final = BACKUPS + READS

START_UPS: Final = {
    "python -c pass": ("-c", "pass"),
    "import rozenfmt": ("-c", "import rozenfmt"),
    "rozenfmt --version": ("-m", "rozenfmt", "--version"),
}
_STARTS: Final = 3  # in each round


@dataclass(slots=True)
class _Contender:
    """A tool in a round, and the shape of what it stored last."""

    kind: Kind
    tool: Tool
    saw: Shape | None = None


class _Round:
    """One round on one tree.

    Args:
        tree: To be made, changed and backed up.
        kinds: The tools, in the order in which they have their turns.
        work: An empty folder.
        number: Of the round.
        steps: Of ``STEPS``.
        settle: Seconds to wait after writing to the tree.
    """

    def __init__(
        self, tree: Tree, kinds: Sequence[Kind], work: Path, *, number: int, steps: Sequence[str], settle: float
    ) -> None:
        self._tree, self._work, self._number, self._steps, self._settle = tree, work, number, steps, settle
        self._path = work / "tree"
        self._contenders: list[_Contender] = []
        for position, kind in enumerate(kinds):
            folder = work / str(position)
            folder.mkdir()
            self._contenders.append(_Contender(kind, kind.make(folder)))
        self.records: list[Record] = []

    def run(self) -> Shape:
        """Take all steps; returns the shape that the tree had at first."""
        made = shape = self._tree.make(self._path)
        self._wait()
        for step in BACKUPS:
            if step == "1 % changed" and step in self._steps:
                shape = self._tree.change(self._path)
                self._wait()
            if step == "folder moved" and step in self._steps:
                shape = self._tree.move(self._path)
                self._wait()
            self._backup(step, shape)
            self._say_ratios(step)
        # Room is short on tmpfs; and nothing may be read from here any more.
        shutil.rmtree(self._path)
        for contender in self._contenders:
            if not contender.tool.reads:
                shutil.rmtree(contender.tool.store)
        for step in READS:
            self._read(step, made)
            self._say_ratios(step)
        return made

    def _wait(self) -> None:
        time.sleep(self._settle)

    def _backup(self, step: str, shape: Shape) -> None:
        for contender in self._contenders:
            if step == "first" or (step in self._steps and contender.tool.incremental):
                before = size_of(contender.tool.store)
                run = contender.tool.backup(self._path)
                contender.saw = shape
                self._note(contender, step, run, size_of(contender.tool.store) - before)

    def _read(self, step: str, made: Shape) -> None:
        if step not in self._steps or (step == "one file" and made.file is None):
            return
        for contender in self._contenders:
            run = self._act(contender, step, made.file or "") if contender.tool.reads else None
            if run is not None:
                self._note(contender, step, run, 0)

    def _act(self, contender: _Contender, step: str, file: str) -> Run | None:
        tool = contender.tool
        match step:
            case "verify":
                return tool.verify()
            case "verify without key":
                return tool.keyless()
            case "check":
                return tool.check()
            case "restore":
                return self._restore(contender)
            case _:
                return tool.read(self._path, file)

    def _restore(self, contender: _Contender) -> Run | None:
        """Restore, and see that everything came back: a tool that restores less would be faster."""
        to = self._work / "restored"
        run = contender.tool.restore(to)
        if run is not None:
            back, saw = self._tree.look(to), contender.saw
            assert saw is not None
            if (back.files, back.bytes) != (saw.files, saw.bytes):
                raise Failed(
                    f"{contender.kind.name} restored {back.files} files of {back.bytes} bytes, "
                    f"but had stored {saw.files} of {saw.bytes}"
                )
            shutil.rmtree(to)
        return run

    def _say_ratios(self, step: str) -> None:
        seconds = {record.tool: record.wall for record in self.records if record.step == step}
        for peer in (RESTIC, PIPE):
            if peer in seconds:
                found = (f"{tool} {wall / seconds[peer]:.2f}" for tool, wall in seconds.items() if tool != peer)
                _say(f"    / {peer}: {', '.join(found)}")

    def _note(self, contender: _Contender, step: str, run: Run, stored: int) -> None:
        name = contender.kind.name
        self.records.append(Record(self._tree.name, self._number, name, step, run.wall, run.cpu, run.memory, stored))
        _say(f"{self._tree.name}, round {self._number + 1}: {step}, {name}: {run.wall:.2f} s")


def compare(
    trees: Sequence[Tree], kinds: Sequence[Kind], *, rounds: int, steps: Sequence[str], settle: float, work: Path
) -> Iterator[dict[str, Any]]:
    """Measure all tools on all trees; yields what is known after every round.

    Args:
        trees: To be backed up.
        kinds: The tools.
        rounds: How many times.
        steps: Of ``STEPS``; the first backup is always made.
        settle: Seconds to wait after writing to a tree.
        work: Folder with room for the tree, and for what all tools store.
    """
    found: dict[str, Any] = {
        "mode": "compare",
        "about": about(work, scale=min(tree.scale for tree in trees), rounds=rounds),
        "trees": {},
        "tools": [kind.name for kind in TOOLS.values() if kind in kinds],
        "runs": [],
        "starts": {name: [] for name in START_UPS},
    }
    for tree in trees:
        for number in range(rounds):
            turn = number % len(kinds)
            with scratch(work) as folder:
                one = _Round(tree, [*kinds[turn:], *kinds[:turn]], folder, number=number, steps=steps, settle=settle)
                found["trees"][tree.name] = asdict(one.run())
            found["runs"] += [asdict(record) for record in one.records]
            _start_ups(found["starts"])
            yield found


def _start_ups(found: dict[str, list[float]]) -> None:
    """Seconds that interpreter and library take before they do anything, several times in turn."""
    for _ in range(_STARTS):
        for name, arguments in START_UPS.items():
            found[name].append(measure([sys.executable, *arguments]).wall)


@contextmanager
def scratch(work: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rozenfmt-bench-", dir=work) as folder:
        yield Path(folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
