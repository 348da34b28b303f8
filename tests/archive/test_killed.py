"""SIGKILL at any moment: nothing that opens is left under the name."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import rozenfmt as rz
from rozenfmt.testing.servers import Server

from .helpers import MIB, noise

# Forked from one that has imported everything, so that a kill hits the work and not the imports.
CHILD = """
import json, os, sys
import rozenfmt as rz, rozenfmt.archive.writer, rozenfmt.storage.s3, rozenfmt.tree.scan, rozenfmt.storage.local
from aiobotocore.session import AioSession
session = AioSession()
session.get_service_model("s3")
me = rz.Identity.generate()
print("ready", flush=True)
for line in sys.stdin:
    url, source, options = json.loads(line)
    if options is not None:
        options["session"] = session
    child = os.fork()
    if not child:
        with rz.create(url, recipients=[me.recipient], storage_options=options, compression="none") as archive:
            print(os.getpid(), flush=True)
            archive.add_tree(source)
        os._exit(0)
    os.waitpid(child, 0)
    print("done", flush=True)
"""


@contextmanager
def nursery() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.stdin.close()


def _kill_once(process: subprocess.Popen[str], url: str, source: Path, options: Any, delay: float) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([url, str(source), options]) + "\n")
    process.stdin.flush()
    child = process.stdout.readline().strip()
    if child != "done":
        time.sleep(delay)
        subprocess.run(["kill", "-9", child], check=False, stderr=subprocess.DEVNULL)
        assert process.stdout.readline() == "done\n"


def _rounds(url: str, source: Path, options: Any, count: int, longest: float, reading: Any = None) -> int:
    """Kill so often; returns how many archives were finished before."""
    finished = 0
    chosen = random.Random(5)
    with nursery() as process:
        for number in range(count):
            name = f"{url}/killed{number}.rzn"
            _kill_once(process, name, source, options, chosen.random() * longest)
            try:
                rz.open(name, storage_options=reading)
            except rz.StorageError:
                continue  # there is none
            except rz.UsageError:  # it is there and wants a key: then it is whole
                rz.check(name, storage_options=reading)
                finished += 1
    return finished


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "src"
    path.mkdir()
    for number in range(6):
        (path / f"f{number}").write_bytes(noise(5 * MIB, number))
    return path


def test_local(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    finished = _rounds(str(folder), source, None, 25, 0.15)
    assert finished < 25
    left = os.listdir(folder)
    partial = [name for name in left if name not in {f"killed{number}.rzn" for number in range(25)}]
    assert all(name.startswith(".") and name.endswith(".partial") for name in partial)
    assert len(left) - len(partial) == finished


def test_s3(s3: Server, source: Path) -> None:
    options = {key: value for key, value in s3.storage_options.items() if key != "session"}
    finished = _rounds(f"{s3.url}/killed", source, options, 12, 0.6, s3.storage_options)
    assert finished < 12
