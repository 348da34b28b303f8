"""The benchmarks run, on trees so small that their times say nothing; no other tools are needed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def benchmarks(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]


def with_peer(results: dict[str, Any], **speeds: float) -> dict[str, Any]:
    """As if restic had been there, and had taken so many times as long on trees of these names."""
    runs = []
    for name, speed in speeds.items():
        for run in results["runs"]:
            runs += [{**run, "tree": name}, {**run, "tree": name, "tool": "restic", "wall": run["wall"] * speed}]
    trees = dict.fromkeys(speeds, results["trees"]["tiny"])
    return {**results, "tools": ["rozenfmt", "restic"], "trees": trees, "runs": runs}


def test_tools_side_by_side(tmp_path: Path) -> None:
    options = ["--tools=rozenfmt", "--steps=1 % changed,restore", "--rounds=1", "--settle=0", "--scale=0.002"]
    file = tmp_path / "compare.json"
    benchmarks("compare", "tiny", *options, "--work", tmp_path, "--json", file)
    assert list(tmp_path.iterdir()) == [file], "nothing is left behind"
    results = json.loads(file.read_text())
    assert results["trees"]["tiny"]["files"] == 200
    assert [run["step"] for run in results["runs"]] == ["first", "1 % changed", "restore"]
    assert all(run["wall"] > 0 and run["cpu"] > 0 and run["memory"] > 1 << 20 for run in results["runs"])
    first, changed, _ = (run["stored"] for run in results["runs"])
    assert first > changed > 0

    file.write_text(json.dumps(with_peer(results, easy=4, hard=0.5)))
    found = rows(benchmarks("report", file))
    assert ["1 % changed / restic", "easy", "≤ 0.35", "0.25", "met"] in found
    assert ["1 % changed / restic", "hard", "≤ 0.35", "2.00", "**missed**"] in found

    if importlib.util.find_spec("matplotlib") is not None:  # the extra "bench", which the tests do without
        plots = [tmp_path / "1.svg", tmp_path / "2.svg"]
        for plot in plots:
            benchmarks("report", file, "--svg", plot)
        assert plots[0].read_bytes() == plots[1].read_bytes()
        assert 0 < plots[0].stat().st_size < 100_000


def test_against_the_bare_libraries(tmp_path: Path) -> None:
    file = tmp_path / "roofline.json"
    benchmarks("roofline", "tiny", "--rounds=1", "--scale=0.002", "--work", tmp_path, "--json", file)
    tree = json.loads(file.read_text())["trees"]["tiny"]
    (seen,) = tree["rounds"]
    assert seen["bytes"]["read"] == seen["bytes"]["BLAKE3"] == tree["shape"]["bytes"]
    assert seen["bare stored"] < seen["rozenfmt stored"]


@pytest.mark.slow
def test_growth(tmp_path: Path) -> None:
    file = tmp_path / "scaling.json"
    sizes = ["--files=100,200", "--gigabytes=0.01,0.02", "--more=1", "--settle=0"]
    found = benchmarks("scaling", *sizes, "--work", tmp_path, "--json", file)
    points = json.loads(file.read_text())["points"]
    assert {point["of"] for point in points} == {"files", "sparse bytes", "workers"}
    assert [row[1] for row in rows(found) if row[0] == "unchanged backup"] == ["100", "200"]
