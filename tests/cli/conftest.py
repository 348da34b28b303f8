"""A tree, keys and an archive that tests read and do not change."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from .helpers import run
from .site import Site, make_site

HOSTILE = b"evil\x1b[31m\n\xff\\\xc2\x9b"


@dataclass(frozen=True)
class World:
    """What every test may use.

    Attributes:
        path: The directory that holds all of it.
        tree: A small tree.
        recipient: Of ``me.key``.
        verify_key: Of ``sign.key``, with which ``a.rzn`` is signed.
    """

    path: Path
    tree: Path
    recipient: str
    verify_key: str


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    path = tmp_path_factory.mktemp("world")
    tree = path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a.txt").write_text("hello\n")
    (tree / "sub" / "big").write_bytes(os.urandom(300_000))
    (tree / "link").symlink_to("a.txt")
    (tree / "skip.tmp").write_text("not wanted")
    Path(os.fsdecode(os.fsencode(tree) + b"/" + HOSTILE)).touch()
    recipient = run("keygen", "-o", "me.key", cwd=path).out.strip()
    run("keygen", "-o", "other.key", cwd=path)
    verify_key = run("keygen", "-o", "sign.key", "--sign", cwd=path).out.strip()
    create = ("archive", "create", "--exclude", "*.tmp")
    run(*create, "-r", recipient, "--browse", "other.key", "--sign", "sign.key", "a.rzn", "tree", cwd=path)
    run(*create, "--plain", "plain.rzn", "tree", cwd=path)
    return World(path, tree, recipient, verify_key)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A vault for one test."""
    return make_site(tmp_path)
