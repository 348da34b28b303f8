"""The conformance suite over every back-end that can be had without a network."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from rozenfmt.storage import RetryPolicy
from rozenfmt.testing.servers import Server, rclone_server
from rozenfmt.testing.storage import StorageSuite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rozenfmt.storage import Storage

MIB = 1 << 20
QUICK = RetryPolicy(attempts=3, first_wait=0.01, longest_wait=0.05)


@pytest.fixture(scope="module")
def sftp() -> Iterator[Server]:
    with rclone_server("sftp") as server:
        yield server


@pytest.fixture(scope="module")
def webdav() -> Iterator[Server]:
    with rclone_server("webdav") as server:
        yield server


class OnServer(StorageSuite):
    """A back-end that is reached through a server of the tests."""

    server: ClassVar[str]
    retry = QUICK
    # Thousands take a minute: see below.
    many = 30

    @pytest.fixture
    def folder(self, request: pytest.FixtureRequest) -> str:
        return f"{request.getfixturevalue(self.server).url}/{uuid.uuid4().hex}"

    @pytest.fixture
    def options(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        server: Server = request.getfixturevalue(self.server)
        return server.storage_options

    def empty(self, storage: Storage) -> None:
        """The server ends soon, and all that it has."""


class TestLocal(StorageSuite):
    steady = True
    odd_names: ClassVar[tuple[str, ...]] = (
        *StorageSuite.odd_names,
        "new\nline",
        "latin-\udce9",
        "\x01\x7f",
        "n" * 255,
        "é" * 127,
    )

    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        return str(tmp_path / "store")


class TestMemory(StorageSuite):
    shared = False
    odd_names: ClassVar[tuple[str, ...]] = (*StorageSuite.odd_names, "new\nline", "latin-\udce9", "n" * 255)
    url = "memory://suite"


class TestMoto(OnServer):
    server = "moto_s3"
    steady = True
    part_size = 5 * MIB
    # It honours If-None-Match, but looks and acts in two steps.
    exclusive = False
    refused_names: ClassVar[tuple[str, ...]] = (*StorageSuite.refused_names, "latin-\udce9", "é" * 600)

    @pytest.mark.slow
    def test_writers_in_processes(self, storage: Storage, folder: str, options: dict[str, Any]) -> None:
        # Two processes take long to import the client, which is the same for rclone.
        super().test_writers_in_processes(storage, folder, options)


class TestRclone(OnServer):
    server = "rclone_s3"
    part_size = 5 * MIB
    steady = True
    # It ignores If-None-Match, so only what a listing shows can be refused.
    exclusive = False
    odd_names: ClassVar[tuple[str, ...]] = (*StorageSuite.odd_names, "new\nline")
    refused_names: ClassVar[tuple[str, ...]] = (*StorageSuite.refused_names, "latin-\udce9")


@pytest.mark.skipif(importlib.util.find_spec("paramiko") is None, reason="needs paramiko")
class TestSftp(OnServer):
    server = "sftp"
    # A rename replaces what another process has put there since we looked.
    exclusive_processes = False
    # rclone's files are found by NFC and NFD alike.
    odd_names: ClassVar[tuple[str, ...]] = tuple(name for name in StorageSuite.odd_names if name != "e\u0301")


# The spool file of webdav4 complains when an upload is dropped, which two of the tests do.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(importlib.util.find_spec("webdav4") is None, reason="needs webdav4")
class TestWebdav(OnServer):
    server = "webdav"
    # webdav4 does not escape these; and see SFTP.
    odd_names: ClassVar[tuple[str, ...]] = tuple(
        name for name in StorageSuite.odd_names if not set(name) & set("?#%\t") and name != "e\u0301"
    )


@pytest.mark.slow
@pytest.mark.parametrize("server", ["moto_s3", "rclone_s3", "sftp", "webdav"])
def test_thousands_of_objects(server: str, request: pytest.FixtureRequest) -> None:
    found: Server = request.getfixturevalue(server)
    suite = StorageSuite()
    suite.many = 2100  # type: ignore[misc]
    storage = suite.open(f"{found.url}/{uuid.uuid4().hex}", found.storage_options)
    suite.test_many_objects(storage)
    suite.close(storage)


def test_the_suite_by_one_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rozenfmt.testing.storage", "mine", "--many", "10"]
    done = subprocess.run(
        [*command, "--", "-k", "sizes or many_objects"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == []


def test_the_suite_fails_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    command = [sys.executable, "-m", "rozenfmt.testing.storage", "file://" + str(tmp_path / "file")]
    done = subprocess.run([*command, "--", "-k", "many_small"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
