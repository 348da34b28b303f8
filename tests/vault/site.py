"""A vault in a directory, with an owner, a host and a source tree: what most tests of backups begin with."""

from __future__ import annotations

import os
import stat as st
from pathlib import Path
from typing import Any

import rozenfmt as rz
from rozenfmt.vault.hostkey import HostKey
from rozenfmt.vault.results import BackupResult
from rozenfmt.vault.vault import Vault

SETTLED = 1_600_000_000_000_000_000
"""A time long ago: what has it is not taken for having been written just now."""


class Site:
    """A vault below ``root``; backups by a host that cannot read, reading by the owner."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root / "vault")
        self.cache = root / "cache"
        self.source = root / "source"
        self.source.mkdir()
        self.me = rz.Identity.generate()
        with Vault.init(self.url, owner=self.me, cache_dir=self.cache) as vault:
            self.host = vault.enrol("laptop")

    def writer(self, host: HostKey | None = None, **options: Any) -> Vault:
        return Vault.open(self.url, host=host or self.host, cache_dir=options.pop("cache_dir", self.cache), **options)

    def reader(self) -> Vault:
        return Vault.open(self.url, identities=[self.me])

    def backup(self, *sources: Any, **options: Any) -> BackupResult:
        host, cache = options.pop("host", None), options.pop("cache_dir", self.cache)
        options.setdefault("name", "all")
        options.setdefault("workers", 2)
        with self.writer(host, cache_dir=cache) as vault:
            return vault.backup(sources or [self.source], **options)

    def restored(self, snapshot_id: str, to: str = "restored") -> Path:
        """Restore a snapshot into a new directory and return it."""
        where = self.root / f"{to}-{snapshot_id[:12]}"
        with self.reader() as vault:
            result = vault.restore(snapshot_id, where)
        assert not result.problems, result.problems
        return where

    def objects(self, prefix: str = "") -> list[Path]:
        base = Path(self.url) / prefix
        return sorted(path for path in base.rglob("*") if path.is_file())

    def check(self, snapshot_id: str) -> None:
        """A snapshot restores to exactly what the source is now."""
        assert facts(self.restored(snapshot_id) / self.source.name) == facts(self.source)


def settle(*paths: Path) -> None:
    """Give files a time long ago.  Their ctime stays new: see ``untimed``."""
    for path in paths:
        os.utime(path, ns=(SETTLED, SETTLED), follow_symlinks=False)


def facts(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything of a tree that a restore gives back, by path; hard links as groups of paths."""
    found: dict[str, tuple[Any, ...]] = {}
    groups: dict[tuple[int, int], str] = {}
    stack = [os.fsencode(root)]
    while stack:
        path = stack.pop()
        stat = os.lstat(path)
        where = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
        content: Any = None
        if st.S_ISREG(stat.st_mode):
            content = Path(os.fsdecode(path)).read_bytes()
        elif st.S_ISLNK(stat.st_mode):
            content = os.readlink(path)
        elif st.S_ISDIR(stat.st_mode):
            stack += [os.path.join(path, child) for child in os.listdir(path)]
        xattrs = sorted(
            (x, os.getxattr(path, x, follow_symlinks=False)) for x in os.listxattr(path, follow_symlinks=False)
        )
        link = groups.setdefault((stat.st_dev, stat.st_ino), where) if stat.st_nlink > 1 and content is not None else ""
        mtime = 0 if st.S_ISLNK(stat.st_mode) else stat.st_mtime_ns
        found[where] = (stat.st_mode, stat.st_uid, stat.st_gid, mtime, content, tuple(xattrs), bool(link))
    return found


def write(path: Path, data: bytes | str = b"", *, mode: int | None = None) -> Path:
    """Write a file, with its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    if mode is not None:
        path.chmod(mode)
    return path
