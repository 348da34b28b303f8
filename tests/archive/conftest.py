"""Fixtures of the archive tests: keys, an open place to work in, and one server of each kind."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiobotocore.session import AioSession  # type: ignore[import-untyped]

import rozenfmt as rz
from rozenfmt.testing.servers import Server, moto_server, rclone_server

from .helpers import make_removable


@pytest.fixture(scope="session")
def me() -> rz.Identity:
    return rz.Identity.generate()


@pytest.fixture
def deep_place() -> Iterator[Path]:
    """An empty directory in memory, where trees of thousands of directories cost little."""
    yield from _place("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """An empty directory that anybody may write to, on a file system with extended attributes."""
    yield from _place(None)


def _place(folder: str | None) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="rozenfmt-test-", dir=folder))
    path.chmod(0o777)
    yield path
    make_removable(path)
    # Not by shutil.rmtree, which goes no deeper than the interpreter's recursion limit.
    subprocess.run(["rm", "-rf", "--", str(path)], check=True)


def _with_session(server: Server) -> Server:
    """Let all storages of a server share what botocore parses, which takes longer than most tests."""
    return replace(server, storage_options={**server.storage_options, "session": AioSession()})


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[Server]:
    with moto_server() as server:
        yield _with_session(server)


@pytest.fixture(scope="session")
def rclone_s3() -> Iterator[Server]:
    with rclone_server() as server:
        yield _with_session(server)


@pytest.fixture(params=["moto_s3", "rclone_s3"])
def s3(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(request.param)
    return server
