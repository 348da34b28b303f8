"""The life of a vault on real servers of each kind, and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import AioSession  # type: ignore[import-untyped]

import rozenfmt as rz
from rozenfmt.errors import ConflictError, StorageError
from rozenfmt.testing.servers import moto_server, rclone_server
from rozenfmt.vault.vault import Vault

from .runs import what_it_restores
from .site import write
from .test_killed import noise
from .trees import Fact, differences, tree

pytestmark = pytest.mark.usefixtures("untimed")


@contextmanager
def server(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if kind == "memory":
        yield "memory://vault-of-a-test", {}
        return
    if kind == "moto":
        with moto_server() as found:
            yield found.url, {**found.storage_options, "session": AioSession()}
        return
    with rclone_server(kind) as found:  # type: ignore[arg-type]
        extra = {"session": AioSession()} if kind == "s3" else {}
        yield found.url, {**found.storage_options, **extra}


@pytest.mark.parametrize("kind", ["moto", "s3", "sftp", "webdav", "memory"])
def test_life_of_a_vault(kind: str, tmp_path: Path) -> None:
    me, source = rz.Identity.generate(), tmp_path / "source"
    for number in range(6):
        write(source / f"dir{number % 2}/file {number} ü", noise(50_000, number))
    write(source / "image", noise(2_400_000))
    wanted: dict[str, dict[bytes, Fact]] = {}
    with server(kind) as (folder, options):
        url = f"{folder}/vault"
        with Vault.init(url, owner=me, storage_options=options) as vault:
            host = vault.enrol("laptop")
        with pytest.raises(ConflictError):
            Vault.init(url, owner=me, storage_options=options)
        unchanged = []
        for number in range(3):
            with Vault.open(url, host=host, cache_dir=tmp_path / "cache", storage_options=options) as vault:
                done = vault.backup([source], name="all", data_size=1_000_000)
            wanted[done.snapshot_id] = tree({b"source": source})
            unchanged.append(done.unchanged)
            if not number:
                write(source / "dir0/new", "new")
                (source / "dir1").rename(source / "moved")
                with (source / "image").open("r+b") as file:
                    file.seek(1_200_000)
                    file.write(b"changed")
        assert unchanged == [False, False, True]
        with Vault.open(url, identities=[me], storage_options=options) as vault:
            assert [snapshot.id for snapshot in vault.snapshots()] == list(wanted)
            assert not vault.problems
            for one, then in wanted.items():
                assert not differences(then, what_it_restores(vault, one, tmp_path / one))
            assert vault.snapshot("latest").read("source/dir0/new") == b"new"
        with pytest.raises(StorageError):
            Vault.open(url + "/elsewhere", identities=[me], storage_options=options)
