"""Adapters of events: logging, and a progress bar on a terminal and off it."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import rozenfmt as rz

PROGRESS = rz.Progress("create", 3, 2048, 1024, None, b"a/b")
PROBLEM = rz.Problem(b"a/\x1b[31m\xff", "unreadable", "permission denied")


def test_problems_are_logged_at_once_and_cannot_forge_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rozenfmt"):
        rz.LogEvents()(PROBLEM)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "\x1b" not in record.getMessage()
    assert "permission denied" in record.getMessage()


def test_progress_is_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("somebody")
    with caplog.at_level(logging.INFO, "somebody"):
        often, seldom = rz.LogEvents(logger, every=0), rz.LogEvents(logger, every=3600)
        for _ in range(3):
            often(PROGRESS)
            seldom(PROGRESS)
    assert [record.args for record in caplog.records] == [("create", 3, 2048, 1024)] * 3


def test_retries_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    retry = rz.Retry("read", "s3://b/\x1b[31m", 1, 2.0, "no answer in time")
    rz.LogEvents()(retry)  # the storage has logged it already
    assert caplog.records == []
    rz.LogEvents(logging.getLogger("somebody"))(retry)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "\x1b" not in record.getMessage()
    assert "no answer in time" in record.getMessage()


def test_an_operation_feeds_an_adapter(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content")
    with (
        caplog.at_level(logging.INFO, "rozenfmt"),
        rz.create(tmp_path / "x.rzn", plain=True, progress=rz.LogEvents(every=0)) as archive,
    ):
        archive.add_tree(tmp_path / "tree")
    assert any("create" in record.getMessage() for record in caplog.records)


def test_no_bar_without_a_terminal() -> None:
    with rz.progress_bar() as bar:
        assert bar is None or sys.stderr.isatty()


def test_a_bar_on_a_terminal() -> None:
    code = (
        "import rozenfmt as rz, time\n"
        "with rz.progress_bar() as bar:\n"
        "    bar(rz.Progress('create', 3, 2048, 1024, None, b'some/path'))\n"
        "    bar(rz.Problem(b'x', 'unreadable', 'no'))\n"
        "    bar(rz.Retry('read', 's3://b/a', 1, 2.0, 'no answer in time'))\n"
        "    time.sleep(0.5)\n"
        "    with bar.paused():\n"
        "        print('a question', file=__import__('sys').stderr, flush=True)\n"
        "    bar(rz.Progress('create', 4, 4096, 2048, None, b'another'))\n"
        "    time.sleep(0.5)\n"
    )
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(main, 4096):
            shown += part
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(main)
    assert process.wait() == 0
    assert b"3 entries" in shown
    assert b"2.0 KiB" in shown
    assert b"cannot read s3://b/a: no answer in time; attempt 2" in shown
    before, _, after = shown.partition(b"a question")
    assert before.count(b"\x1b[?25l") == before.count(b"\x1b[?25h") == 1  # hidden, and back before the question
    assert b"4 entries" in after
