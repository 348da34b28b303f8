"""Runs the command line as its users do: as a process, with pipes or on a terminal."""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "rozenfmt")
SECONDS = 30.0


def environment(extra: Mapping[str, str] | None = None, *, measured: bool = True) -> dict[str, str]:
    """The environment of a test, without what the tester has set.

    Args:
        extra: Variables to add.
        measured: Let coverage follow into the process. Signals are tested without: coverage saves its
            data while the process ends, and what a signal does then is not the program's.
    """
    unwanted = {"NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    kept = {key: value for key, value in os.environ.items() if key not in unwanted and not key.startswith("ROZENFMT_")}
    if not measured:
        kept = {key: value for key, value in kept.items() if not key.startswith("COV")}
    # Compiled once for all processes, and not into the source tree.
    ours = {"PYTHONPYCACHEPREFIX": _compiled(), "COLUMNS": "100", "TERM": "xterm-256color"}
    # Never the tester's own host keys and caches.
    ours |= {"ROZENFMT_CONFIG_DIR": os.devnull, "ROZENFMT_CACHE_DIR": os.devnull}
    return {**kept, **ours, **(extra or {})}


@cache
def _compiled() -> str:
    folder = tempfile.mkdtemp(prefix="rozenfmt-compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@dataclass(frozen=True)
class Result:
    """What a process said."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def err(self) -> str:
        return self.stderr.decode()

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on standard output."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found

    @property
    def records(self) -> list[dict[str, Any]]:
        """JSON Lines on standard output."""
        return [json.loads(line) for line in self.stdout.splitlines()]


def run(
    *arguments: str | bytes | Path,
    cwd: Path | None = None,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    code: int | None = 0,
) -> Result:
    """Run a command to its end, without a terminal; the exit code must be ``code`` (None for any)."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        input=stdin,
        env=environment(env),
        capture_output=True,
        timeout=SECONDS,
        start_new_session=True,  # no controlling terminal: nothing can be asked
        check=False,
    )
    result = Result(done.returncode, done.stdout, done.stderr)
    assert code is None or result.code == code, (result.code, result.stdout[-2000:], result.stderr[-2000:])
    assert b"Traceback" not in result.stderr or "--debug" in arguments
    return result


class Terminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self._master, slave = os.openpty()
        self.text = b""
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=cwd,
            env=environment(env),
            preexec_fn=lambda: os.login_tty(slave),  # noqa: PLW1509 - nothing else makes it the controlling one
        )
        os.close(slave)

    def expect(self, text: str, *, seen: int = 1) -> None:
        """Read until ``text`` was shown ``seen`` times."""
        end = time.monotonic() + SECONDS
        while self.text.count(text.encode()) < seen:
            assert self._read(end), self.text

    def send(self, text: str) -> None:
        """Type."""
        os.write(self._master, text.encode())

    def finish(self) -> tuple[int, str]:
        """Read to the end; gives exit code and all that was shown."""
        end = time.monotonic() + SECONDS
        while self._read(end):
            pass
        os.close(self._master)
        return self.process.wait(SECONDS), self.text.decode("utf-8", "replace")

    def _read(self, end: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
        assert ready, ("nothing came", self.text)
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.text += data
        return bool(data)
