"""Fixtures of the storage tests: one server of each kind for the whole session."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from aiobotocore.session import AioSession  # type: ignore[import-untyped]

from rozenfmt.testing.servers import Server, moto_server, rclone_server

from .relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Relay()
    yield made
    made.close()


@pytest.fixture
def dead_port() -> Iterator[str]:
    """Host and port where nobody listens, and nobody will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def with_session(server: Server) -> Server:
    """Let all storages of a server share what botocore parses, which takes longer than most tests."""
    return replace(server, storage_options={**server.storage_options, "session": AioSession()})


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[Server]:
    with moto_server() as server:
        yield with_session(server)


@pytest.fixture(scope="session")
def rclone_s3() -> Iterator[Server]:
    with rclone_server() as server:
        yield with_session(server)
