"""A place to work in on each file system that is at hand."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=[tempfile.gettempdir(), "/dev/shm"])
def place(request: pytest.FixtureRequest) -> Iterator[bytes]:
    """An empty directory, as bytes, that anybody may write to."""
    if not os.access(request.param, os.W_OK):
        pytest.skip(f"{request.param} is not there")
    path = tempfile.mkdtemp(dir=request.param, prefix="rozenfmt-test-")
    os.chmod(path, 0o777)
    try:
        os.setxattr(path, "user.rozenfmt", b"1")
        os.removexattr(path, "user.rozenfmt")
    except OSError:
        shutil.rmtree(path)
        pytest.skip(f"{request.param} has no extended attributes")
    yield os.fsencode(path)
    for directory, names, _ in os.walk(path):
        for name in names:
            if not os.path.islink(os.path.join(directory, name)):
                os.chmod(os.path.join(directory, name), 0o700)
    shutil.rmtree(path)
