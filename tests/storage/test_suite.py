"""The conformance suite over every back-end that can be had without a network."""

from __future__ import annotations

import importlib.util
import uuid
from typing import TYPE_CHECKING, ClassVar

import pytest

from rozenfmt.storage import RetryPolicy, open_storage
from rozenfmt.storage.generic import GenericStorage
from rozenfmt.storage.s3 import S3Storage
from rozenfmt.testing.servers import rclone_server
from rozenfmt.testing.storage import StorageSuite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rozenfmt.storage import Storage
    from rozenfmt.testing.servers import Server

MIB = 1 << 20
QUICK = RetryPolicy(attempts=3, budget=5.0, first_wait=0.01, longest_wait=0.05)


def open_s3(server: Server) -> Iterator[S3Storage]:
    storage = S3Storage(f"{server.url}/{uuid.uuid4().hex}", server.storage_options, retry=QUICK)
    yield storage
    storage.close()


@pytest.fixture(scope="module")
def sftp() -> Iterator[Server]:
    with rclone_server("sftp") as server:
        yield server


@pytest.fixture(scope="module")
def webdav() -> Iterator[Server]:
    with rclone_server("webdav") as server:
        yield server


class TestLocal(StorageSuite):
    odd_names: ClassVar[tuple[str, ...]] = (
        *StorageSuite.odd_names,
        "new\nline",
        "latin-\udce9",
        "\x01\x7f",
        "n" * 255,
        "é" * 127,
    )

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage(tmp_path / "store")


class TestMemory(StorageSuite):
    odd_names: ClassVar[tuple[str, ...]] = (*StorageSuite.odd_names, "new\nline", "latin-\udce9", "n" * 255)

    @pytest.fixture
    def storage(self) -> Storage:
        return open_storage(f"memory://{uuid.uuid4().hex}")


class TestMoto(StorageSuite):
    part_size = 5 * MIB
    # It honours If-None-Match, but looks and acts in two steps.
    exclusive = False
    refused_names: ClassVar[tuple[str, ...]] = (*StorageSuite.refused_names, "latin-\udce9", "é" * 600)

    @pytest.fixture
    def storage(self, moto_s3: Server) -> Iterator[Storage]:
        yield from open_s3(moto_s3)


class TestRclone(StorageSuite):
    part_size = 5 * MIB
    # It ignores If-None-Match, so only what a listing shows can be refused.
    exclusive = False
    odd_names: ClassVar[tuple[str, ...]] = (*StorageSuite.odd_names, "new\nline")
    refused_names: ClassVar[tuple[str, ...]] = (*StorageSuite.refused_names, "latin-\udce9")

    @pytest.fixture
    def storage(self, rclone_s3: Server) -> Iterator[Storage]:
        yield from open_s3(rclone_s3)


@pytest.mark.skipif(importlib.util.find_spec("paramiko") is None, reason="needs paramiko")
class TestSftp(StorageSuite):
    @pytest.fixture
    def storage(self, sftp: Server) -> Iterator[Storage]:
        storage = GenericStorage(f"{sftp.url}/{uuid.uuid4().hex}", sftp.storage_options, retry=QUICK)
        yield storage
        storage.close()


# The spool file of webdav4 complains when an upload is dropped, which two of the tests do.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(importlib.util.find_spec("webdav4") is None, reason="needs webdav4")
class TestWebdav(StorageSuite):
    # webdav4 does not escape these.
    odd_names: ClassVar[tuple[str, ...]] = tuple(
        name for name in StorageSuite.odd_names if not set(name) & set("?#%\t")
    )

    @pytest.fixture
    def storage(self, webdav: Server) -> Iterator[Storage]:
        storage = GenericStorage(f"{webdav.url}/{uuid.uuid4().hex}", webdav.storage_options, retry=QUICK)
        yield storage
        storage.close()
