"""The picture in docs/explanation/architecture.md shows the whole house."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from .helpers import ROOT


@pytest.fixture(scope="module")
def pages() -> Any:
    """What draws the documentation's picture of the house."""
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("code_pages", ROOT / "docs" / "_ext" / "code_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_room_is_in_the_picture(pages: Any) -> None:
    packages = {path.parent.name for path in (ROOT / "rozenfmt").glob("*/__init__.py")}
    assert packages - {"testing"} == set(pages.ROOMS)
