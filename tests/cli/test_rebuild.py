"""A cache that is made anew."""

from __future__ import annotations

import shutil

from .site import Site


def test_rebuild(site: Site) -> None:
    site.backup()
    site.run("grant", "v", "-i", "me.key", "clerk.key", "--browse")
    shutil.rmtree(site.path / "cache")
    result = site.run("rebuild-cache", "v", "-i", "clerk.key", "--owner", "me.key")
    assert result.out.startswith("read 1 snapshot (")
    assert "1 set with 6 entries; 3 contents known to be stored" in result.out
    done = site.backup("--json").document
    assert (done["notes"], done["counts"]["unchanged"], done["counts"]["new"]) == ([], 4, 0)
    assert len(done["archives"]) == 1


def test_rebuild_json(site: Site) -> None:
    site.backup()
    document = site.run("rebuild-cache", "v", "-i", "me.key", "--json").document
    assert set(document) == {
        *("command", "status", "vault", "vault_id", "warnings", "host_id", "snapshots", "sets", "entries", "pieces"),
        *("requests", "bytes", "seconds", "problem_count", "problems"),
    }
    assert document["host_id"] == site.host.host_id.hex()


def test_rebuild_takes_both_keys(site: Site) -> None:
    assert "-i FILE" in site.run("rebuild-cache", "v", code=2).err
    site.key_file.unlink()
    assert "no host key" in site.run("rebuild-cache", "v", "-i", "me.key", code=2).err
