"""Measure rozenfmt: beside other tools, against its own libraries, and as the work grows.

    python -m tests.benchmarks compare source=TREE photos --rounds 5 --json compare.json
    python -m tests.benchmarks roofline source=TREE photos --rounds 3 --json roofline.json
    python -m tests.benchmarks scaling --json scaling.json
    python -m tests.benchmarks report *.json --markdown results.md --svg results.svg

To be run in the repository's root, with nothing else on the machine, and a work folder on tmpfs.  --scale 0.1 is
for a first look.  Nothing here asserts a time; targets.py says what is aimed at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .compare import SETTLE, STEPS, compare
from .report import markdown, plot
from .scaling import scaling
from .tools import TOOLS, Kind, missing
from .trees import GENERATED, Tree


def main() -> None:
    """Do what the command line says."""
    given = _parser().parse_args()
    if given.mode == "report":
        results = [json.loads(file.read_text(encoding="utf-8")) for file in given.files]
        _write(markdown(results), given.markdown)
        if given.svg is not None:
            plot(results, given.svg)
        return
    one: dict[str, Any] = {}
    for one in {"compare": _compare, "roofline": _roofline, "scaling": _scaling}[given.mode](given):
        if given.json is not None:  # again and again, so that an interruption costs one round
            given.json.write_text(json.dumps(one, indent=1) + "\n", encoding="utf-8")
    _write(markdown([one]), None)


def _compare(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    return compare(
        [Tree.parse(text, given.scale) for text in given.trees],
        list(_kinds(given.tools)),
        rounds=given.rounds,
        steps=given.steps,
        settle=given.settle,
        work=given.work,
    )


def _roofline(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from .roofline import roofline  # brings the library into this process, which is to stay small for the others

    trees = [Tree.parse(text, given.scale) for text in given.trees]
    return roofline(trees, rounds=given.rounds, workers=given.workers, work=given.work)


def _scaling(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    return scaling(
        given.files, given.gigabytes, workers=given.workers, more=given.more, settle=given.settle, work=given.work
    )


def _kinds(names: Sequence[str]) -> list[Kind]:
    kinds = []
    for name in names:
        if name not in TOOLS:
            raise SystemExit(f"there is no tool {name!r}; there are {', '.join(TOOLS)}")
        lacking = missing(TOOLS[name])
        if lacking:
            print(f"{name} is left out: {', '.join(lacking)} not installed", file=sys.stderr)
        else:
            kinds.append(TOOLS[name])
    return kinds


def _write(text: str, file: Path | None) -> None:
    if file is None:
        sys.stdout.write(text)
    else:
        file.write_text(text, encoding="utf-8")


def _list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = parser.add_subparsers(dest="mode", required=True)
    measuring = argparse.ArgumentParser(add_help=False)
    measuring.add_argument("--work", type=Path, default=Path("/dev/shm"), help="folder for everything; on tmpfs")
    measuring.add_argument("--json", type=Path, help="keep the results in this file")
    on_trees = argparse.ArgumentParser(add_help=False)
    on_trees.add_argument("trees", nargs="+", help=f"NAME=DIR, which is copied first, or {', '.join(GENERATED)}")
    on_trees.add_argument("--rounds", type=int, default=3)
    on_trees.add_argument("--scale", type=float, default=1.0, help="which part of each tree, e.g. 0.1")
    settling = argparse.ArgumentParser(add_help=False)
    settling.add_argument("--settle", type=float, default=SETTLE, help="seconds to wait after writing a tree")
    working = argparse.ArgumentParser(add_help=False)
    working.add_argument("--workers", type=int, default=2)

    mode = modes.add_parser("compare", parents=[measuring, on_trees, settling], help="beside other tools")
    mode.add_argument("--tools", type=_list, default=list(TOOLS), help=f"some of {','.join(TOOLS)}")
    mode.add_argument(
        "--steps",
        type=_list,
        default=list(STEPS),
        help=f"besides the first, some of {','.join(STEPS)}".replace("%", "%%"),
    )
    modes.add_parser("roofline", parents=[measuring, on_trees, working], help="against the bare libraries")
    mode = modes.add_parser("scaling", parents=[measuring, settling, working], help="as the work grows")
    sizes = [10_000, 100_000, 1_000_000]
    mode.add_argument("--files", type=_numbers, default=sizes, help="numbers of files; by default 10^4 to 10^6")
    mode.add_argument("--gigabytes", type=_amounts, default=[1, 10, 100], help="of sparse files")
    mode.add_argument("--more", type=int, default=4, help="workers, to see what memory they take; 0 not to")
    mode = modes.add_parser("report", help="Markdown, and a plot (pip install '.[bench]')")
    mode.add_argument("files", nargs="+", type=Path)
    mode.add_argument("--markdown", type=Path, help="by default to standard output")
    mode.add_argument("--svg", type=Path)
    return parser


def _numbers(text: str) -> list[int]:
    return [int(number) for number in _amounts(text)]


def _amounts(text: str) -> list[float]:
    return [float(word) for word in _list(text) if word]


if __name__ == "__main__":
    main()
