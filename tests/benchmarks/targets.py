"""What is aimed at, as data.  A target is met if the median over the rounds is within its limit.

Limits hold for whole trees (scale 1) on a machine with two processors, with a warm cache, on tmpfs.  Requests to
S3 are counted by requests.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from .measuring import MIB, Record, Spread
from .tools import OURS, PIPE, RESTIC, UNCHECKED

__all__ = ["TARGETS", "Target", "Verdict", "judge", "ratios"]

Results = dict[str, Any]
Values = dict[str, list[float]]  # by tree; the empty name if no tree matters
Quantity = Literal["wall", "cpu", "memory", "stored"]


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table.

    Attributes:
        what: In words.
        values: Finds the values of all rounds in the results of the modes.
        limit: Which the median is to be within.
        unit: Of the values; empty for ratios.
        least: The limit is the least, not the most.
        trees: Which it is about; all, if there are none.
    """

    what: str
    values: Callable[[Sequence[Results]], Values]
    limit: float
    unit: str = ""
    least: bool = False
    trees: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target, and what was found on one tree.

    Attributes:
        target: Which one.
        tree: Which tree; empty if none matters.
        found: Over the rounds; None if it was not measured.
    """

    target: Target
    tree: str
    found: Spread | None

    @property
    def met(self) -> bool:
        """Whether the median is within the limit."""
        if self.found is None:
            return False
        median, limit = self.found.median, self.target.limit
        return median >= limit if self.target.least else median <= limit


def judge(results: Sequence[Results]) -> list[Verdict]:
    """All targets, on every tree that they are about and that was measured."""
    verdicts = []
    for target in TARGETS:
        values = target.values(results)
        found = {tree: seen for tree, seen in values.items() if seen and (not target.trees or tree in target.trees)}
        verdicts += [Verdict(target, tree, Spread.of(seen)) for tree, seen in found.items()]
        verdicts += [Verdict(target, tree, None) for tree in (target.trees or ("",)) if not found]
    return verdicts


# --- where the values are -----------------------------------------------------------------------------


def ratios(runs: Iterable[Record], quantity: Quantity, ours: tuple[str, str], theirs: tuple[str, str]) -> Values:
    """One tool's step to another's, round by round; a tool's step is its name and the step's."""
    found: dict[tuple[str, int], dict[tuple[str, str], float]] = {}
    for run in runs:
        found.setdefault((run.tree, run.round), {})[run.tool, run.step] = getattr(run, quantity)
    values: Values = {}
    for (tree, _), seen in found.items():
        if ours in seen and seen.get(theirs):
            values.setdefault(tree, []).append(seen[ours] / seen[theirs])
    return values


def _of(results: Sequence[Results], mode: str) -> list[Results]:
    return [one for one in results if one["mode"] == mode]


def _runs(results: Sequence[Results]) -> list[Record]:
    """Of all results; rounds that were measured apart stay apart."""
    return [
        Record(**{**run, "round": run["round"] + 1000 * number})
        for number, one in enumerate(_of(results, "compare"))
        for run in one["runs"]
    ]


def _ratio(
    step: str, theirs: str, *, ours: str = OURS, their_step: str = "", quantity: Quantity = "wall"
) -> Callable[[Sequence[Results]], Values]:
    def values(results: Sequence[Results]) -> Values:
        return ratios(_runs(results), quantity, (ours, step), (theirs, their_step or step))

    return values


def _peak(step: str) -> Callable[[Sequence[Results]], Values]:
    def values(results: Sequence[Results]) -> Values:
        found: Values = {}
        for run in _runs(results):
            if (run.tool, run.step) == (OURS, step):
                found.setdefault(run.tree, []).append(run.memory / MIB)
        return found

    return values


def _over_start(step: str) -> Callable[[Sequence[Results]], Values]:
    """Seconds beyond an interpreter that does nothing."""

    def values(results: Sequence[Results]) -> Values:
        found: Values = {}
        for one in _of(results, "compare"):
            start = Spread.of(one["starts"]["python -c pass"]).median
            for run in (Record(**run) for run in one["runs"]):
                if (run.tool, run.step) == (OURS, step):
                    found.setdefault(run.tree, []).append(run.wall - start)
        return found

    return values


def _import(results: Sequence[Results]) -> Values:
    seen = [
        (after - before) * 1000
        for one in _of(results, "compare")
        for before, after in zip(one["starts"]["python -c pass"], one["starts"]["import rozenfmt"], strict=True)
    ]
    return {"": seen}


def _rooflines(results: Sequence[Results]) -> list[tuple[str, int, dict[str, Any]]]:
    """Tree, number of files, and values of every round."""
    return [
        (name, tree["shape"]["files"], one_round)
        for one in _of(results, "roofline")
        for name, tree in one["trees"].items()
        for one_round in tree["rounds"]
    ]


def _share(results: Sequence[Results]) -> Values:
    values: Values = {}
    for tree, _, seen in _rooflines(results):
        values.setdefault(tree, []).append(seen["bare"] / seen["rozenfmt"])
    return values


def _overhead(results: Sequence[Results]) -> Values:
    values: Values = {}
    for tree, files, seen in _rooflines(results):
        values.setdefault(tree, []).append((seen["rozenfmt stored"] - seen["bare stored"]) / files)
    return values


def _growth(of: str, step: str, unit: int = 1) -> Callable[[Sequence[Results]], Values]:
    """Memory for each further one, between the two biggest sizes."""

    def values(results: Sequence[Results]) -> Values:
        seen: list[float] = []
        for one in _of(results, "scaling"):
            points = sorted(
                (point["size"], point["memory"])
                for point in one["points"]
                if (point["of"], point["step"]) == (of, step)
            )
            if len(points) > 1:
                (fewer, before), (more, after) = points[-2:]
                seen.append((after - before) / (more - fewer) / unit)
        return {"": seen}

    return values


# --- the table ----------------------------------------------------------------------------------------

TARGETS: Final = (
    Target("first backup / restic, no decode check", _ratio("first", RESTIC, ours=UNCHECKED), 0.45),
    Target("first backup / pipe, no decode check", _ratio("first", PIPE, ours=UNCHECKED), 1.15),
    Target("first backup, with decode check / without", _ratio("first", UNCHECKED), 1.30),
    Target("unchanged / restic", _ratio("unchanged", RESTIC), 0.30, trees=("source",)),
    Target("unchanged, beyond the interpreter's start", _over_start("unchanged"), 0.7, "s", trees=("photos",)),
    Target("1 % changed / restic", _ratio("1 % changed", RESTIC), 0.35),
    Target("restore / restic", _ratio("restore", RESTIC), 0.70),
    Target("restore / pipe", _ratio("restore", PIPE), 1.30),
    Target("verify, all data / restic", _ratio("verify", RESTIC), 0.60),
    Target("verify without key / restic with key", _ratio("verify without key", RESTIC, their_step="verify"), 0.30),
    Target("stored / restic", _ratio("first", RESTIC, quantity="stored"), 0.76, trees=("source",)),
    Target("peak memory, first backup", _peak("first"), 200, "MiB", trees=("source",)),
    Target("peak memory, unchanged", _peak("unchanged"), 200, "MiB", trees=("source",)),
    Target("peak memory, for each further worker", _growth("workers", "first backup", MIB), 40, "MiB"),
    Target("memory for each further file, first backup", _growth("files", "first backup"), 20, "bytes"),
    Target("memory for each further file, unchanged", _growth("files", "unchanged backup"), 20, "bytes"),
    Target("stored beyond compressed contents, for each file", _overhead, 70, "bytes", trees=("source", "tiny")),
    Target("share of the bare libraries' speed", _share, 0.80, least=True),
    Target("import rozenfmt, beyond the interpreter", _import, 60, "ms"),
)
