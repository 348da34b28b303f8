"""Vaults and archives behind a proxy that breaks things: complete, or failed and clean; nothing lost or doubled."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import AioSession  # type: ignore[import-untyped]

import rozenfmt as rz
from rozenfmt.storage import open_storage
from rozenfmt.testing.proxy import HTTP_KINDS, Faults, Proxy, fault_proxy
from rozenfmt.testing.servers import moto_server, rclone_server
from rozenfmt.vault.vault import Vault

from .runs import what_it_restores
from .site import write
from .test_killed import noise
from .trees import differences, tree

QUICK = rz.RetryPolicy(attempts=5, first_wait=0.01, longest_wait=0.05)
# The client waits for a stalled answer for a minute.
KINDS = sorted(HTTP_KINDS.keys() - {"stall"})
ACTED = {"lose-response", "late-error", "cut-response"}
SOAK = int(os.environ.get("ROZENFMT_SOAK", "100"))

pytestmark = pytest.mark.usefixtures("untimed")


@pytest.fixture(scope="module", params=["moto", "rclone"])
def proxy(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    start: Any = moto_server if request.param == "moto" else rclone_server
    with start() as server:
        options = {**server.storage_options, "session": AioSession()}
        with fault_proxy(replace(server, storage_options=options)) as proxy:
            yield proxy


class Place:
    """A tree, a vault behind the proxy, and what its snapshots must be."""

    def __init__(self, proxy: Proxy, root: Path) -> None:
        self.proxy = proxy
        proxy.plan = None
        self.root = root
        self.source = root / "source"
        self.url = f"{proxy.server.url}/{uuid.uuid4().hex}/vault"
        self.options = proxy.server.storage_options
        self.me = rz.Identity.generate()
        self.wanted: dict[str, dict[bytes, Any]] = {}
        self.number = 0
        for number in range(8):
            write(self.source / f"dir{number % 2}/file {number} ü", noise(20_000, number))
        write(self.source / "image", noise(2_400_000))
        with Vault.init(self.url, owner=self.me, storage_options=self.options, retry=QUICK) as vault:
            self.host = vault.enrol("laptop")
        # Somebody else's unfinished upload, next to ours.
        self.calm = open_storage(self.url, self.options, retry=QUICK)
        self.theirs = self.calm.create("data/theirs", part_size=5 << 20)
        proxy.log.clear()
        self.theirs.write(noise(6_000_000))
        while not proxy.requests["UploadPart"]:
            time.sleep(0.01)  # their part is on its way, and no fault is for it
        proxy.log.clear()

    def change(self) -> None:
        self.number += 1
        write(self.source / f"dir{self.number % 3}/new {self.number}", noise(30_000, ("new", self.number)))
        data = bytearray((self.source / "image").read_bytes())
        data[self.number * 1000 :][:100_000] = noise(100_000, ("image", self.number))
        start = self.number * 77_777 % 2_000_000
        data[start : start + 100_000] = noise(100_000, ("image", self.number))
        write(self.source / "image", bytes(data))

    def backup(self, plan: Faults) -> rz.RozenError | None:
        """A backup with faults; returns how it failed.  Nothing may be seen of one that did."""
        self.proxy.plan = plan
        error: rz.RozenError | None = None
        try:
            with Vault.open(
                self.url,
                host=self.host,
                cache_dir=self.root / "cache",
                storage_options=self.options,
                retry=QUICK,
            ) as vault:
                done = vault.backup([self.source], name="all", data_size=1_000_000)
            self.wanted[done.snapshot_id] = tree({b"source": self.source})
        except (rz.StorageError, rz.ConflictError) as caught:
            error = caught
        finally:
            self.proxy.plan = None
        return error

    def check(self, *, last: int = 1) -> None:
        """All snapshots are there, each of them once, and the last ones are what the tree was."""
        with Vault.open(self.url, identities=[self.me], storage_options=self.options, retry=QUICK) as vault:
            assert [snapshot.id for snapshot in vault.snapshots()] == list(self.wanted)
            assert not vault.problems
            for one in list(self.wanted)[-last:]:
                assert not differences(self.wanted[one], what_it_restores(vault, one, self.root / one))
            report = vault.verify(level="contents")
            assert not (report.damages or report.missing or report.lost), report
        unknown = sum(
            done.request.operation == "CreateMultipartUpload" and done.fault in ACTED for done in self.proxy.log
        )
        left = [leftover.name for leftover in self.calm.leftovers("")]
        assert "data/theirs" in left
        assert len(left) <= 1 + unknown, left

    def close(self) -> None:
        self.theirs.discard()
        self.calm.close()  # type: ignore[attr-defined]


@pytest.fixture
def place(proxy: Proxy, tmp_path: Path) -> Iterator[Place]:
    place = Place(proxy, tmp_path)
    yield place
    place.close()


@pytest.mark.parametrize(
    ("proxy", "kind"),
    [
        pytest.param(server, kind, marks=[] if (server, kind) == ("moto", "lose-response") else pytest.mark.slow)
        for server in ("moto", "rclone")
        for kind in KINDS
    ],
    indirect=["proxy"],
)
def test_backups_under_each_fault(place: Place, kind: str) -> None:
    for seed in range(2):
        place.change()
        # The client has more attempts than there are faults in a row.
        error = place.backup(Faults(rate=0.3, seed=seed, kinds={kind}, in_a_row=2))
        lost = ("NoSuchUpload", "cannot replace a part")
        assert error is None or (kind == "short-request" and any(one in str(error) for one in lost))
    place.check()


def test_backups_under_all_faults(place: Place) -> None:
    for seed in range(3):
        place.change()
        place.backup(Faults(rate=0.05, seed=seed, kinds=set(KINDS)))
    assert place.backup(Faults(rate=0)) is None
    place.check(last=2)


@pytest.mark.slow
def test_many_backups_under_all_faults(place: Place) -> None:
    failed = []
    for seed in range(SOAK):
        place.change()
        error = place.backup(Faults(rate=(0.05, 0.1, 0.3)[seed % 3], seed=seed, kinds=set(KINDS)))
        failed += [error] if error is not None else []
    assert len(failed) < SOAK / 2, failed
    assert place.backup(Faults(rate=0)) is None
    place.check(last=20)


@pytest.mark.parametrize("proxy", ["moto"], indirect=True)
def test_reading_under_all_faults(place: Place) -> None:
    assert place.backup(Faults(rate=0)) is None
    (one,) = place.wanted
    place.proxy.plan = Faults(rate=0.2, seed=5, kinds=set(KINDS), in_a_row=2)
    try:
        with Vault.open(place.url, identities=[place.me], storage_options=place.options, retry=QUICK) as vault:
            report = vault.verify(level="contents")
            assert not (report.damages or report.missing or report.lost), report
            assert not differences(place.wanted[one], what_it_restores(vault, one, place.root / "restored"))
    finally:
        place.proxy.plan = None


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_archives_under_all_faults(proxy: Proxy, tmp_path: Path, seed: int) -> None:
    proxy.plan = None
    me = rz.Identity.generate()
    folder, options = f"{proxy.server.url}/{uuid.uuid4().hex}", proxy.server.storage_options
    source = tmp_path / "source"
    write(source / "big", noise(11_000_000, seed))
    for number in range(20):
        write(source / f"small {number}", noise(number * 100, number))
    url, made = f"{folder}/photos.rzn", False
    calm = open_storage(folder, options, retry=QUICK)
    proxy.plan = Faults(rate=0.1, seed=seed, kinds=set(KINDS))
    with (
        contextlib.suppress(rz.StorageError, rz.ConflictError),
        rz.create(url, recipients=[me.recipient], storage_options=options, retry=QUICK, part_size=5 << 20) as archive,
    ):
        archive.add_tree(source)
        archive.commit()
        made = True
    proxy.plan = None
    assert [info.name for info in calm.list()] == (["photos.rzn"] if made else [])
    if made:
        assert rz.check(url, identities=[me], storage_options=options, retry=QUICK).damages == []
        proxy.plan = Faults(rate=0.2, seed=seed, kinds=set(KINDS), in_a_row=2)
        with rz.open(url, identities=[me], storage_options=options, retry=QUICK) as archive:
            for path in ("big", "small 7"):
                assert archive.read(f"source/{path}") == (source / path).read_bytes()
        proxy.plan = None
    calm.close()  # type: ignore[attr-defined]
