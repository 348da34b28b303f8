"""How many requests the steps of a vault's life make, and how many bytes they move, on S3.

    python tests/benchmarks/requests.py [--files 2000] [--snapshots 20] [--mib 256]

Counted where requests leave (``S3Storage.send``), against ``moto[server]`` on this machine; retries would be
counted too.  The table of docs/explanation/costs.md comes from here.  Nothing here asserts anything.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import rozenfmt as rz
from rozenfmt.storage.s3 import S3Storage
from rozenfmt.testing.servers import moto_server

# As providers bill them: what writes or lists costs several times what reads; deleting costs nothing.
CLASSES: Final = {
    "list_objects_v2": "list",
    "get_object": "get",
    "head_object": "get",
    "put_object": "put",
    "create_multipart_upload": "put",
    "upload_part": "put",
    "complete_multipart_upload": "put",
    "list_parts": "list",
    "list_multipart_uploads": "list",
    "abort_multipart_upload": "free",
    "delete_object": "free",
}


class Counting:
    """Requests and bytes since the last step."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.up = self.down = 0

    def install(self) -> None:
        """Count from now on."""
        send = S3Storage.send

        async def count(storage: S3Storage, method: str, arguments: Any) -> Any:
            self.requests[CLASSES.get(method, method)] += 1
            body = arguments.get("Body")
            if body is not None:
                self.up += len(body)
            answer = await send(storage, method, arguments)
            if method == "get_object":
                self.down += int(answer["ContentLength"])
            return answer

        S3Storage.send = count  # type: ignore[assignment,method-assign]

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Print what the block did."""
        self.requests.clear()
        self.up = self.down = 0
        yield
        numbers = [self.requests[kind] for kind in ("put", "list", "get", "free")]
        rest = sum(self.requests.values()) - sum(numbers)
        columns = " ".join(f"{number:>6}" for number in (*numbers, rest))
        print(f"{name:<44} {columns} {self.up / 2**20:>9.2f} {self.down / 2**20:>9.2f}")


def write_tree(root: Path, files: int, mib: int, seed: int) -> None:
    """Files of random bytes, half of them small, in directories of a hundred."""
    numbers = random.Random(seed)
    left = mib << 20
    for number in range(files):
        folder = root / f"{number // 100:04}"
        folder.mkdir(parents=True, exist_ok=True)
        wanted = 2_000 if number % 2 else left // max(1, files - number) * 2
        size = min(left, int(wanted * numbers.uniform(0.5, 1.5)))
        (folder / f"{number:06}.bin").write_bytes(os.urandom(size))
        left -= size


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--snapshots", type=int, default=20)
    parser.add_argument("--mib", type=int, default=256)
    given = parser.parse_args()
    counting = Counting()
    counting.install()
    with moto_server() as server, tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        tree, options, url = place / "tree", server.storage_options, f"{server.url}/vault"
        write_tree(tree, given.files, given.mib, 1)
        time.sleep(2.5)  # what was written just now is not trusted by the next backup
        me = rz.Identity.generate()
        print(f"{'':<44} {'put':>6} {'list':>6} {'get':>6} {'free':>6} {'other':>6} {'MiB up':>9} {'MiB down':>9}")
        with counting.step("init"):
            vault = rz.Vault.init(url, owner=me, storage_options=options)
        with counting.step("enrol"), vault:
            host = vault.enrol("host")

        def backup() -> None:
            cache = place / "cache"
            with rz.Vault.open(url, host=host, cache_dir=cache, storage_options=options) as vault:
                vault.backup([tree], name="tree")

        def reader() -> rz.Vault:
            return rz.Vault.open(url, identities=[me], storage_options=options)

        with counting.step(f"first backup, {given.files} files, {given.mib} MiB"):
            backup()
        with counting.step("backup, nothing changed"):
            backup()
        (tree / "0000" / "new.bin").write_bytes(os.urandom(100_000))
        time.sleep(2.5)
        with counting.step("backup, one file of 100 kB new"):
            backup()
        for number in range(max(0, given.snapshots - 3)):
            (tree / "0001" / "new.bin").write_bytes(os.urandom(1000 + number))
            backup()
        with counting.step(f"list {given.snapshots} snapshots"), reader() as vault:
            snapshots = vault.snapshots()
        if len(snapshots) != given.snapshots:
            print(f"there are {len(snapshots)} snapshots")
        with counting.step("restore one file"), reader() as vault:
            vault.restore("latest:tree", place / "one", paths=["tree/0000/000000.bin"])
        with counting.step("restore all, dry run"), reader() as vault:
            vault.restore("latest:tree", place / "none", dry_run=True)
        with counting.step("restore all"), reader() as vault:
            vault.restore("latest:tree", place / "all")
        for level in ("present", "hashes", "contents"):
            with counting.step(f"verify the vault, {level}"), reader() as vault:
                vault.verify(level=level)
        with counting.step("verify the vault, contents, sample 5 %"), reader() as vault:
            vault.verify(level="contents", sample=0.05)
        with counting.step("probe"):
            rz.probe(url, storage_options=options)


if __name__ == "__main__":
    main()
