"""How long, how fast: the options for the storage, and what a terminal shows of retries."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rozenfmt.cli.options import rate, seconds

from .conftest import World
from .helpers import Terminal, run

KIB = 1024


@pytest.fixture
def nobody() -> Iterator[dict[str, str]]:
    """An environment whose S3 server does not answer."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield {
            "AWS_ACCESS_KEY_ID": "some-access-key",
            "AWS_SECRET_ACCESS_KEY": "some-secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{bound.getsockname()[1]}",
        }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", 500 * KIB),
        ("0.5", 512),
        ("2MiB", 2 * KIB**2),
        ("2M", 2 * KIB**2),
        ("2MB", 2_000_000),
        ("100B", 100),
        (" 1 G ", KIB**3),
    ],
)
def test_rates(text: str, expected: float) -> None:
    assert rate(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2H", 7200), ("0", 0)])
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "fast", "-1", "0", "0KiB", "1e3"])
def test_wrong_rates(text: str) -> None:
    with pytest.raises(click.BadParameter):
        rate(text)


@pytest.mark.parametrize("text", ["", "soon", "-1", "1d", "1m30s"])
def test_wrong_times(text: str) -> None:
    with pytest.raises(click.BadParameter):
        seconds(text)


def test_limits_of_local_storage(world: World, tmp_path: Path) -> None:
    run("archive", "create", "--plain", "--limit-upload", "1GiB", tmp_path / "a.rzn", world.tree)
    run("archive", "check", "--limit-download", "1000000", tmp_path / "a.rzn")
    run("archive", "extract", "--limit-download", "1GiB", tmp_path / "a.rzn", tmp_path / "out")
    assert (tmp_path / "out" / "tree" / "a.txt").read_text() == "hello\n"
    run("archive", "check", "--limit-download", "0", tmp_path / "a.rzn", code=2)


def test_terminal_shows_retries(nobody: dict[str, str], tmp_path: Path) -> None:
    arguments = ("archive", "check", "--retry-for", "0.6s", "s3://bucket/a.rzn")
    terminal = Terminal(*arguments, cwd=tmp_path, env=nobody)
    code, shown = terminal.finish()
    assert code == 1
    text = " ".join(shown.split())
    assert "rozenfmt: cannot read s3://bucket/a.rzn" in text or "cannot read the size of s3://bucket/a.rzn" in text
    assert "attempt 2 follows" in text
    assert text.count("attempt 2 follows") == 1
    assert "some-secret-key" not in text
    assert "some-access-key" not in text


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_retries_are_no_output(nobody: dict[str, str], tmp_path: Path, option: str) -> None:
    arguments = ("archive", "members", option, "--retry-for", "0.3", "s3://bucket/a.rzn")
    code, shown = Terminal(*arguments, cwd=tmp_path, env=nobody).finish()
    assert code == 1
    assert "follows" not in shown


def test_pipes_get_no_retries(nobody: dict[str, str], tmp_path: Path) -> None:
    result = run("archive", "members", "--retry-for", "0.3", "s3://bucket/a.rzn", cwd=tmp_path, env=nobody, code=1)
    assert "follows" not in result.err
    assert result.err.count("\n") == 1
