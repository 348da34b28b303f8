"""Runs of a backup that die by SIGKILL at a moment that is chosen, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import rozenfmt as rz

RUN = """
import json, os, signal, sys
import rozenfmt as rz
from rozenfmt.archive import pipeline
from rozenfmt.storage import s3
from rozenfmt.vault import capture, catalog, content, nodewriter, output

given = json.loads(sys.argv[1])
log = os.open(given["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
left = given["after"]

def happened(what):
    global left
    if what == given["what"]:
        left -= 1
        if not left:
            if given["how"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"interrupt": KeyboardInterrupt, "network": ConnectionResetError}[given["how"]]

capture._RACY_NS = -(1 << 62)
if given["marks"]:
    output._MARK_EVERY = given["marks"]
if given["pieces"]:
    output._PIECES = given["pieces"]
if given["small"]:
    content.PACK_TARGET = given["small"]
    nodewriter.TABLE_TARGET = nodewriter._PENDING = given["small"] // 5

send = s3.S3Storage.send
async def counting(self, method, arguments):
    body = arguments.get("Body")
    if body is not None:
        os.write(log, f"{len(body)}\\n".encode())
    if given["how"] == "network" and left <= 0:
        raise ConnectionResetError
    if not method.startswith("complete"):
        happened(method)
    answer = await send(self, method, arguments)
    if method.startswith("complete"):
        happened(method)
    return answer
s3.S3Storage.send = counting

write = pipeline.Pipeline._write_first
def writing(self):
    write(self)
    happened("block")
pipeline.Pipeline._write_first = writing

complete = catalog.Catalog.complete_data
def completing(self, *arguments):
    happened("data complete")
    complete(self, *arguments)
catalog.Catalog.complete_data = completing

with rz.Vault.open(
    given["url"], host=rz.HostKey.parse(given["host"]), cache_dir=given["cache"], storage_options=given["storage"],
    retry=rz.RetryPolicy(**given["retry"]),
) as vault:
    if given["resume"]:
        (done,) = vault.resume()
    else:
        done = vault.backup(given["sources"], **given["options"])
print(json.dumps({"snapshot": done.snapshot_id, "resumed": done.resumed_bytes, "stored": done.stored_bytes,
    "archives": done.archives, "notes": done.notes}))
"""


class Runner:
    """Backs a tree up into a vault somewhere, in processes that may die.

    Args:
        url: The vault, which is made.
        storage: Its storage options.
        folder: For cache, log and keys.
    """

    def __init__(self, url: str, storage: dict[str, Any], folder: Path) -> None:
        self.url = url
        self.storage = storage
        self.folder = folder
        self.cache = folder / "cache"
        self.log = folder / "sent"
        self.source = folder / "source"
        self.source.mkdir()
        self.me = rz.Identity.generate()
        with rz.Vault.init(url, owner=self.me, storage_options=storage) as vault:
            self.host = vault.enrol("laptop")

    def start(
        self,
        *,
        what: str = "never",
        after: int = 1,
        how: str = "kill",
        marks: int = 0,
        small: int = 0,
        pieces: int = 0,
        resume: bool = False,
        retry: dict[str, float] | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Begin a run.

        Args:
            what: A request of S3, ``block`` for a block written, ``data complete``.
            after: When it happens for this time, the run dies.
            how: ``kill``, ``interrupt`` or ``network``, which then stays away.
            marks: Bytes between two marks; 0 for what is usual.
            small: Bytes of a block of contents; 0 for what is usual.
            pieces: So many are kept in memory before a mark covers them; 0 for what is usual.
            resume: Finish what was interrupted instead of beginning.
            retry: Policy for requests.
            options: Of ``Vault.backup``.
        """
        given = {
            "url": self.url,
            "storage": self.storage,
            "host": self.host.to_text(),
            "cache": str(self.cache),
            "log": str(self.log),
            "sources": [str(self.source)],
            "options": {"name": "all", "workers": 2, **options},
            "what": what,
            "after": after,
            "how": how,
            "marks": marks,
            "small": small,
            "pieces": pieces,
            "resume": resume,
            "retry": retry or {},
        }
        return subprocess.Popen(
            [sys.executable, "-c", RUN, json.dumps(given)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, **given: Any) -> dict[str, Any]:
        """A run that comes to its end; what it did."""
        with self.start(**given) as process:
            out, err = process.communicate()
        assert process.returncode == 0, err
        done: dict[str, Any] = json.loads(out)
        return done

    def dies(self, **given: Any) -> str:
        """A run that dies; what it said."""
        with self.start(**given) as process:
            out, err = process.communicate()
        assert not out, out
        assert process.returncode == -9 if given.get("how", "kill") == "kill" else process.returncode, err
        return err

    @property
    def sent(self) -> int:
        """Bytes of bodies sent so far."""
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0

    def open(self, **options: Any) -> rz.Vault:
        """The vault as its owner opens it."""
        return rz.Vault.open(self.url, identities=[self.me], storage_options=self.storage, **options)

    def as_host(self) -> rz.Vault:
        """The vault as the host opens it."""
        return rz.Vault.open(self.url, host=self.host, cache_dir=self.cache, storage_options=self.storage)

    def journals(self) -> list[Path]:
        """What is in the cache besides the catalog."""
        return sorted(path for path in self.cache.rglob("*") if ".journal" in path.name)

    def stored(self, *prefixes: str) -> dict[str, int]:
        """Objects of the vault."""
        from rozenfmt.storage import open_storage

        storage = open_storage(self.url, self.storage)
        try:
            return {info.name: info.size for prefix in prefixes or ("",) for info in storage.list(prefix)}
        finally:
            close = getattr(storage, "close", None)
            if close is not None:
                close()


def archives_of(found: dict[str, int]) -> int:
    """Bytes of all archives in a listing."""
    return sum(size for name, size in found.items() if os.path.splitext(name)[1] == ".rzn")
