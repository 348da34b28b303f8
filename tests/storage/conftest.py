"""Fixtures of the storage tests: one server of each kind for the whole session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rozenfmt.testing.servers import Server, moto_server, rclone_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[Server]:
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def rclone_s3() -> Iterator[Server]:
    with rclone_server() as server:
        yield server
