"""What else must hold before a change is good, so that ``pytest`` alone covers it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .helpers import ROOT, environment

CHECKS = {
    "ruff check": ["-m", "ruff", "check"],
    "ruff format": ["-m", "ruff", "format", "--check"],
    "mypy --strict": ["-m", "mypy"],  # pyproject.toml says strict, and what
    "states": ["spec/generate_states.py", "--check"],
    "vectors": ["spec/vectors/generate.py", "--check"],
}
FUZZ_TARGETS = sorted((ROOT / "tests" / "fuzz").glob("fuzz_*.py"))


def check(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(
            f"{' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout[-20_000:]}", pytrace=False
        )


@pytest.mark.parametrize("name", CHECKS)
def test_check(name: str) -> None:
    command = CHECKS[name]
    if command[0] != "-m" and not (ROOT / command[0]).exists():
        pytest.skip(f"there is no {command[0]}")
    check(*command)


def test_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    options: list[str | Path] = ["-n", "-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "doctrees"]
    check("-m", "sphinx", *options, "docs", tmp_path / "html")
    assert (tmp_path / "html" / "specification" / "format.html").exists()


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("target", FUZZ_TARGETS, ids=lambda path: path.name)
def test_fuzzing_for_a_short_while(target: Path, tmp_path: Path) -> None:
    seconds = 20 if os.environ.get("CI") else 5
    check(target, f"-max_total_time={seconds}", f"-artifact_prefix={tmp_path}/", tmp_path / "corpus")
