"""One S3 server for all pages and examples."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rozenfmt.testing.servers import Server, moto_server


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    with moto_server() as server:
        yield server
