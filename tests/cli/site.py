"""A vault of its own for each test, and the machine that backs up into it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import rozenfmt as rz

from .helpers import Result, Terminal, run

OLD = 1_577_836_800  # the beginning of 2020


@dataclass(frozen=True)
class Site:
    """A folder with a vault ``v``, a source ``photos``, and the keys ``me.key`` (owner), ``ada.key`` and ``clerk.key``.

    Attributes:
        path: The folder.
        me: The vault's owner.
        host: The host key that is saved for the vault.
    """

    path: Path
    me: rz.Identity
    host: rz.HostKey

    @property
    def env(self) -> dict[str, str]:
        return {"ROZENFMT_CONFIG_DIR": str(self.path / "config"), "ROZENFMT_CACHE_DIR": str(self.path / "cache")}

    @property
    def source(self) -> Path:
        return self.path / "photos"

    @property
    def key_file(self) -> Path:
        return self.path / "config" / "hosts" / f"{self.host.vault_id.hex()}.host"

    def run(
        self,
        *arguments: str | bytes | Path,
        code: int | None = 0,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> Result:
        """Run a command here, as the machine that is enrolled."""
        return run(*arguments, cwd=self.path, code=code, env=self.env | dict(env or {}), stdin=stdin)

    def backup(self, *arguments: str | Path, code: int = 0) -> Result:
        """Back up ``photos`` as the set ``photos``."""
        return self.run("backup", "v", "photos", "--name", "photos", *arguments, code=code)

    def terminal(self, *arguments: str | Path) -> Terminal:
        """Run a command here, on a terminal."""
        return Terminal(*arguments, cwd=self.path, env=self.env)

    def vault(self) -> rz.Vault:
        """The vault, opened by its owner."""
        return rz.Vault.open(self.path / "v", identities=[self.me])

    def put(self, name: str, data: bytes, *, mtime: int = OLD) -> None:
        """Write a file below the source."""
        file = self.source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        os.utime(file, (mtime, mtime))


def make_site(path: Path) -> Site:
    me = rz.Identity.generate()
    me.save(path / "me.key")
    for name in ("ada", "clerk"):
        rz.Identity.generate().save(path / f"{name}.key")
    with rz.Vault.init(path / "v", owner=me) as vault:
        host = vault.enrol("laptop")
    site = Site(path, me, host)
    site.key_file.parent.mkdir(parents=True)
    host.save(site.key_file)
    site.put("2019/a.jpg", os.urandom(20_000))
    site.put("2019/b.jpg", os.urandom(30_000))
    site.put("notes.txt", b"cold lake\n" * 100)
    (site.source / "latest").symlink_to("2019")
    return site
