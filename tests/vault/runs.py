"""Backups in other processes: forked from one that has imported everything, so that what is timed is the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rozenfmt as rz
from rozenfmt.vault.hostkey import HostKey

from .trees import Fact, restored

CHILD = """
import json, os, signal, sys, traceback
import rozenfmt as rz, rozenfmt.storage.local, rozenfmt.tree.scan, rozenfmt.vault.backup
from rozenfmt.vault.catalog import Catalog
from rozenfmt.vault.hostkey import HostKey
from rozenfmt.vault.vault import Vault
from rozenfmt.vault import verify, restore, recovery
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
for line in sys.stdin:
    jobs = json.loads(line)
    children = []
    gate, opened = os.pipe()
    for job in jobs:
        child = os.fork()
        if child:
            children.append(child)
            continue
        os.close(opened)
        os.read(gate, 1)  # all begin at once
        answer = {}
        try:
            with Vault.open(job["url"], host=HostKey.parse(job["host"]), cache_dir=job["cache"]) as vault:
                done = vault.backup(job["sources"], **job["options"])
            answer = {"snapshot": done.snapshot_id, "sequence": done.sequence, "notes": done.notes, "new": done.new}
        except BaseException as error:
            answer = {"error": "".join(traceback.format_exception(error)), "kind": type(error).__name__}
        with open(job["answer"], "w") as file:
            json.dump(answer, file)
        os._exit(0)
    print(json.dumps(children), flush=True)
    os.close(gate)
    os.close(opened)
    sys.stdin.readline()
    for child in children:
        os.waitpid(child, 0)
    print("done", flush=True)
"""


class Nursery:
    """Runs backups in processes of their own."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder

    def run(
        self, jobs: Sequence[Mapping[str, Any]], *, after: float | None = None, by: signal.Signals = signal.SIGKILL
    ) -> list[dict[str, Any]]:
        """Run jobs at once; ``after`` so many seconds they get a signal. Those that were killed answer nothing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answers = [self._folder / f"answer{number}" for number in range(len(jobs))]
        for answer in answers:
            answer.unlink(missing_ok=True)
        lines = [{**job, "answer": str(answer)} for job, answer in zip(jobs, answers, strict=True)]
        self._process.stdin.write(json.dumps(lines) + "\n")
        self._process.stdin.flush()
        children = json.loads(self._process.stdout.readline())
        if after is not None:
            time.sleep(after)
            for child in children:
                os.kill(child, by)  # waited for by its parent only below: the number is still its own
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"
        found = []
        for answer in answers:
            text = answer.read_text() if answer.exists() else ""
            found.append(json.loads(text) if text.endswith("}") else {})
        return found


@contextmanager
def nursery(folder: Path) -> Iterator[Nursery]:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield Nursery(process, folder)
        finally:
            process.stdin.close()


def job(url: str, host: HostKey, cache: Path, sources: Sequence[Path], **options: Any) -> dict[str, Any]:
    return {
        "url": url,
        "host": host.to_text(),
        "cache": os.fspath(cache),
        "sources": [os.fspath(path) for path in sources],
        "options": {"workers": 1, **options},
    }


def contents(snapshot: rz.Snapshot) -> dict[str, bytes]:
    """All files of a snapshot, read one by one."""
    return {entry.path: snapshot.read(entry.path) for entry in snapshot if entry.kind is rz.Kind.FILE}


def what_it_restores(vault: rz.Vault, snapshot_id: str, folder: Path) -> dict[bytes, Fact]:
    """A snapshot, by a restore into a new folder."""
    result = vault.restore(snapshot_id, folder, workers=1)
    assert isinstance(result, rz.RestoreResult)
    assert not result.problems
    return restored(folder)
