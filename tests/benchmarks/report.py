"""Results as Markdown and as a plot."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from .compare import BACKUPS, READS, START_UPS, STEPS
from .measuring import MIB, Record, Spread
from .targets import Quantity, Target, judge, ratios
from .tools import PIPE, RESTIC

__all__ = ["markdown", "plot"]

_HEAD: Final = """\
<!-- Written by `python -m tests.benchmarks report`: measure again instead of editing. -->
"""
_TRIAL: Final = """\
**A trial on a small part of the trees.** What takes the same time however small the tree, such as starting the
interpreter, weighs far more here than on whole trees, for which the targets are meant.
"""
_COLOURS: Final = ("#1b6ca8", "#7fb2d9", "#4a9c6d", "#d1603d", "#8d6cab", "#8c8c8c")


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Everything as Markdown, to be included in a page.

    Args:
        results: Of one or several modes.
    """
    parts = [_HEAD, *_conditions(results), *_targets(results)]
    for one in results:
        parts += {"compare": _compared, "roofline": _roofline, "scaling": _scaling}[one["mode"]](one)
    parts += _starting([one for one in results if one["mode"] == "compare"])
    return "\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A Markdown table; its first columns hold words, the others numbers."""
    lines = [head, ["---" if column < words else "--:" for column in range(len(head))], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# --- conditions and targets ---------------------------------------------------------------------------


def _conditions(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    scales = [one["about"]["settings"].get("scale", 1.0) for one in results]
    if min(scales) < 1:
        yield _TRIAL
    rows = []
    for one in results:
        about = one["about"]
        machine = about["machine"]
        rows.append(
            (
                one["mode"],
                about["date"],
                f"{machine['processor']}, {machine['processors']} processors, {machine['memory'] / 2**30:.0f} GiB",
                f"{machine['system']}, Linux {machine['kernel']}, {machine['file system']}",
                ", ".join(f"{name} {value}" for name, value in about["settings"].items()),
            )
        )
    yield table(("measurement", "date", "machine", "system, file system", "settings"), sorted(set(rows)), words=5)
    versions = {name: version for one in results for name, version in one["about"]["versions"].items()}
    yield f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}.\n"


def _targets(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "### Targets\n"
    yield "Medians over the rounds, with the least and the most in parentheses.\n"
    rows = []
    for verdict in judge(results):
        target = verdict.target
        limit = f"{'≥' if target.least else '≤'} {target.limit:g}{_unit(target)}"
        if verdict.found is None:
            rows.append((target.what, verdict.tree, limit, "–", "not measured"))
        else:
            found = verdict.found.text(_form(target)) + _unit(target)
            rows.append((target.what, verdict.tree, limit, found, "met" if verdict.met else "**missed**"))
    yield table(("what", "tree", "target", "found", ""), rows, words=2)


def _unit(target: Target) -> str:
    return f" {target.unit}" if target.unit else ""


def _form(target: Target) -> str:
    return ".0f" if target.limit >= 10 else ".2f"


# --- tools side by side -------------------------------------------------------------------------------


def _compared(one: dict[str, Any]) -> Iterator[str]:
    runs = [Record(**run) for run in one["runs"]]
    for name, shape in one["trees"].items():
        mine = [run for run in runs if run.tree == name]
        tools = [tool for tool in one["tools"] if any(run.tool == tool for run in mine)]
        yield f"### Tree: {name}\n"
        yield f"{shape['files']:,} files in {shape['directories']:,} folders, {_size(shape['bytes'])}.\n"
        yield "Seconds on the clock, and of processors in parentheses:\n"
        yield table(("", *tools), _rows(mine, tools, STEPS, _seconds))
        yield "Stored:\n"
        yield table(("", *tools), _rows(mine, tools, BACKUPS, _stored))
        floor = one["about"]["machine"]["memory floor"] / MIB
        yield f"Peak memory in MiB; of several processes, of the biggest; less than {floor:.0f} cannot be seen:\n"
        yield table(("", *tools), _rows(mine, tools, STEPS, _memory))
        ratio_rows = list(_ratio_rows(mine, tools))
        if ratio_rows:
            yield f"Ratios of seconds, tool / {RESTIC} and tool / {PIPE}:\n"
            yield table(("", *_ratio_names(tools)), ratio_rows)


def _starting(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    if results:
        yield "### Starting\n"
        rows = []
        for what in START_UPS:
            seen = Spread.of(seconds * 1000 for one in results for seconds in one["starts"][what])
            rows.append((f"`{what}`", seen.text(".0f")))
        yield table(("", "ms"), rows)


def _rows(runs: Sequence[Record], tools: Sequence[str], steps: Sequence[str], cell: Any) -> Iterator[Sequence[str]]:
    for step in steps:
        found = [[run for run in runs if (run.tool, run.step) == (tool, step)] for tool in tools]
        if any(found):
            yield (step, *(cell(some) if some else "–" for some in found))


def _seconds(runs: Sequence[Record]) -> str:
    wall, cpu = Spread.of(run.wall for run in runs), Spread.of(run.cpu for run in runs)
    return f"{wall.median:.2f} ({cpu.median:.2f})"


def _stored(runs: Sequence[Record]) -> str:
    return _size(Spread.of(run.stored for run in runs).median)


def _memory(runs: Sequence[Record]) -> str:
    return f"{Spread.of(run.memory for run in runs).most / MIB:.0f}"


def _pairs(tools: Sequence[str]) -> list[tuple[str, str]]:
    return [(ours, theirs) for theirs in (RESTIC, PIPE) if theirs in tools for ours in tools if "rozenfmt" in ours]


def _ratio_names(tools: Sequence[str]) -> list[str]:
    return [f"{ours} / {theirs}" for ours, theirs in _pairs(tools)]


def _ratio_rows(runs: Sequence[Record], tools: Sequence[str]) -> Iterator[Sequence[str]]:
    wall: Quantity = "wall"
    for step in STEPS:
        cells = []
        for ours, theirs in _pairs(tools):
            # A peer that cannot verify without its key is compared by what it does with it.
            keyed = step == "verify without key" and not any((run.tool, run.step) == (theirs, step) for run in runs)
            values = ratios(runs, wall, (ours, step), (theirs, "verify" if keyed else step))
            cells += [Spread.of(seen).text(".2f") for seen in values.values()] or ["–"]
        if set(cells) - {"–"}:
            yield (step, *cells)


# --- roofline and scaling -----------------------------------------------------------------------------


def _roofline(one: dict[str, Any]) -> Iterator[str]:
    yield "### Roofline\n"
    yield f"Medians; {one['about']['settings']['workers']} threads for zstd and the AEAD, one for all else.\n"
    for name, tree in one["trees"].items():
        shape, rounds = tree["shape"], tree["rounds"]
        yield f"{name}: {shape['files']:,} files, {_size(shape['bytes'])}\n"
        rows = []
        for stage, size in rounds[0]["bytes"].items():
            seconds = Spread.of(seen["stages"][stage] for seen in rounds).median
            rows.append((stage, f"{seconds:.2f}", f"{size / 1e9 / seconds:.2f}" if size else "–"))
        for what in ("bare", "rozenfmt"):
            seconds = Spread.of(seen[what] for seen in rounds).median
            label = "all at once" if what == "bare" else "rozenfmt, first backup"
            rows.append((f"**{label}**", f"{seconds:.2f}", f"{shape['bytes'] / 1e9 / seconds:.2f}"))
        yield table(("stage", "seconds", "GB/s"), rows)
        share = Spread.of(seen["bare"] / seen["rozenfmt"] for seen in rounds)
        bare, ours = (rounds[0][what] for what in ("bare stored", "rozenfmt stored"))
        yield (
            f"Share of the bare libraries' speed: {share.text('.2f')}. Stored: {_size(bare)} bare, {_size(ours)} by "
            f"rozenfmt, {(ours - bare) / shape['files']:.0f} bytes more for each file.\n"
        )


def _scaling(one: dict[str, Any]) -> Iterator[str]:
    yield "### Growth\n"
    points: list[dict[str, Any]] = one["points"]
    kinds = {point["of"] for point in points}
    if "files" in kinds:
        yield "Small files:\n"
        head = ("", "files", "s", "µs a file", "× the size before", "peak MiB", "bytes for each further file")
        yield table(head, _growth(points, "files", per=1, time=1e6, memory=1))
    if "sparse bytes" in kinds:
        yield "One sparse file:\n"
        head = ("", "GB", "s", "s a GB", "× the size before", "peak MiB", "MiB for each further GB")
        yield table(head, _growth(points, "sparse bytes", per=1_000_000_000, time=1, memory=MIB))
    if "workers" in kinds:
        yield "First backup of files that do not compress:\n"
        rows = [(f"{point['size']}", f"{point['memory'] / MIB:.0f}") for point in points if point["of"] == "workers"]
        yield table(("workers", "peak MiB"), rows)


def _growth(
    points: Iterable[dict[str, Any]], of: str, *, per: int, time: float, memory: int
) -> Iterator[Sequence[str]]:
    """Each step at each size, beside the size before.

    Args:
        points: Of all kinds.
        of: Which kind of them.
        per: What is counted as one.
        time: Units in a second.
        memory: Bytes in a unit.
    """
    before: dict[str, Any] = {}
    for point in sorted((p for p in points if p["of"] == of), key=lambda p: (str(p["step"]), int(p["size"]))):
        size, each = point["size"] / per, point["wall"] / point["size"] * per * time
        growth = ["", ""]
        if point["step"] == before.get("step"):
            more = (point["memory"] - before["memory"]) / memory / (size - before["size"] / per)
            growth = [f"{each / (before['wall'] / before['size'] * per * time):.2f}", f"{more:.3g}"]
        amount = f"{size:,.0f}" if per == 1 else f"{size:g}"
        row = (amount, f"{point['wall']:.2f}", f"{each:.3g}", growth[0], f"{point['memory'] / MIB:.0f}", growth[1])
        yield (point["step"], *row)
        before = point


def _size(size: float) -> str:
    for unit, bound in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size) >= bound:
            return f"{size / bound:.3g} {unit}" if size < 999.5 * bound else f"{size / bound:.0f} {unit}"
    return f"{size:.0f} bytes"


# --- the plot -----------------------------------------------------------------------------------------


def plot(results: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw the seconds of all tools as SVG: a row for each tree, a group of bars for each step.

    Args:
        results: Of one or several modes; only tools side by side are drawn.
        file: What to write.

    Raises:
        SystemExit: matplotlib is not installed, or there is nothing to draw.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = [
        (name, [Record(**run) for run in one["runs"] if run["tree"] == name], one["tools"])
        for one in results
        if one["mode"] == "compare"
        for name in one["trees"]
    ]
    # Text stays text, and nothing depends on when it is drawn: the file is small, and changes with the data only.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "rozenfmt", "font.size": 9}):
        figure = Figure(figsize=(9, 0.5 + 2.2 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False)
        for axis, (name, runs, tools) in zip(axes[:, 0], panels, strict=True):
            _panel(axis, name, runs, tools)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
        drawn = StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    # A tenth of a point is enough, and nobody reads the indentation.
    short = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.1f}", drawn.getvalue())
    file.write_text(re.sub(r" ?\n\s*", "\n", short), encoding="utf-8")


def _panel(axis: Any, name: str, runs: Sequence[Record], tools: Sequence[str]) -> None:
    steps = [step for step in (*BACKUPS, *READS) if any(run.step == step for run in runs)]
    width = 0.8 / len(tools)
    for number, tool in enumerate(tools):
        found = [[run.wall for run in runs if (run.tool, run.step) == (tool, step)] for step in steps]
        places = [place + (number - (len(tools) - 1) / 2) * width for place in range(len(steps))]
        bars = [(place, Spread.of(some)) for place, some in zip(places, found, strict=True) if some]
        heights = [spread.median for _, spread in bars]
        reach = [[s.median - s.least for _, s in bars], [s.most - s.median for _, s in bars]]
        axis.bar(
            [place for place, _ in bars],
            heights,
            width,
            yerr=reach,
            label=tool,
            color=_COLOURS[number % len(_COLOURS)],
            clip_on=False,
            error_kw={"elinewidth": 0.6, "clip_on": True},
        )
    axis.set_xticks(range(len(steps)), ["\n".join(wrap(step, 11)) for step in steps])
    axis.set_ylabel("seconds")
    medians = [Spread.of(run.wall for run in runs if (run.tool, run.step) == pair).median for pair in _seen(runs)]
    axis.set_ylim(0, 1.2 * max(medians))  # a disturbed round is not to make all others small
    axis.set_title(name, loc="left", fontweight="bold")
    axis.spines[["top", "right"]].set_visible(False)


def _seen(runs: Iterable[Record]) -> set[tuple[str, str]]:
    return {(run.tool, run.step) for run in runs}
