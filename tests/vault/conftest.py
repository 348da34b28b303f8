from __future__ import annotations

from pathlib import Path

import pytest

from rozenfmt.vault import capture

from .site import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written just now are trusted all the same: ctime cannot be set back."""
    monkeypatch.setattr(capture, "_RACY_NS", -(1 << 62))
