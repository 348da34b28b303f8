"""``rozenfmt resume``: what was interrupted is listed, finished, or given up."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from .helpers import SECONDS, environment
from .site import Site
from .test_process import INTERRUPTIBLE

DUMP = "head -c 3000000 /dev/urandom; touch started; test -e quick || exec sleep 60"


def interrupt(site: Site) -> None:
    """A backup that gets SIGINT when its command has written everything."""
    command = ["backup", "v", "photos", "--name", "photos", "--stdin-from-command", "dump", "--", "sh", "-c", DUMP]
    process = subprocess.Popen(
        [*INTERRUPTIBLE, *command],
        cwd=site.path,
        env=environment(site.env, measured=False),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + SECONDS
    while not (site.path / "started").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert b"rozenfmt resume" in err


def test_nothing_was_interrupted(site: Site) -> None:
    site.backup()
    for option in ([], ["--list"], ["--list", "--leftovers"]):
        assert site.run("resume", "v", *option).out == "nothing was interrupted\n"
    assert "gave up 0 interrupted backups" in site.run("resume", "v", "--discard").out


def test_finished(site: Site) -> None:
    interrupt(site)
    listed = site.run("resume", "v", "--list")
    assert listed.out.startswith("photos: begun ")
    (one,) = site.run("resume", "v", "--list", "--json").document["interrupted"]
    assert one["set"] == "photos"
    assert len(one["sources"]) == 2
    assert site.run("resume", "v", "--name", "another").out == "nothing was interrupted\n"
    (site.path / "quick").touch()
    document = site.run("resume", "v", "--json").document
    (result,) = document["results"]
    assert result["set"] == "photos"
    assert result["complete"]
    assert site.run("resume", "v").out == "nothing was interrupted\n"
    assert "dump" in site.run("ls", "v", "latest:photos", "-i", "me.key").out


def test_given_up(site: Site) -> None:
    interrupt(site)
    result = site.run("resume", "v", "--discard", "--leftovers")
    assert result.out == "gave up 1 interrupted backup, removed 0 other uploads\n"
    assert site.run("resume", "v").out == "nothing was interrupted\n"


@pytest.mark.parametrize("options", [["--list", "--discard"], ["--leftovers"]])
def test_options_that_contradict(site: Site, options: list[str]) -> None:
    site.run("resume", "v", *options, code=2)
