"""The host's cache made anew: the next backup stores nothing again, and knows what was before."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

import rozenfmt as rz
from rozenfmt.errors import ConflictError, StorageError
from rozenfmt.vault.rebuild import RebuildResult
from rozenfmt.vault.results import BackupResult
from rozenfmt.vault.vault import Vault

from .harm import blocks_of, flip_block, noise
from .site import Site, settle, write

MIB = 1 << 20


def build(root: Path) -> None:
    write(root / "a", "a")
    write(root / "dir/b", "b" * 100)
    write(root / "dir/sub/c", "c" * 100)
    write(root / "big", noise(5 * MIB))
    (root / "empty").mkdir()
    (root / "link").symlink_to("a")
    os.mkfifo(root / "fifo")
    os.link(root / "a", root / "dir/again")
    os.setxattr(root / "a", "user.x", b"1")
    os.setxattr(root / "dir", "user.y", b"2")
    (root / os.fsdecode(b"od\xffd\nname")).write_bytes(b"odd")
    with (root / "sparse").open("wb") as file:
        file.seek(3 * MIB)
        file.write(b"end")
        file.truncate(8 * MIB)
    settle(*(path for path in root.rglob("*") if not path.is_symlink()))


def rebuild(site: Site, *, identity: rz.Identity | None = None, lose: bool = True) -> RebuildResult:
    if lose:
        shutil.rmtree(site.cache)
    with site.writer(identities=[identity or site.me]) as vault:
        result = vault.rebuild_catalog()
    assert isinstance(result, RebuildResult)
    return result


def data(done: BackupResult) -> list[str]:
    return [name for name, _ in done.archives if not name.startswith("meta/")]


def rows(site: Site, query: str) -> set[tuple[object, ...]]:
    """What a query finds in the cache, archives by their ids."""
    (path,) = site.cache.glob("*/*.sqlite")
    with sqlite3.connect(path) as db:
        found = set(db.execute(query).fetchall())
    db.close()
    return found


PIECES = "SELECT p.id, a.id, p.block, p.piece, p.size FROM pieces p JOIN archives a ON a.number = p.archive"
CONTENTS = "SELECT c.id, c.size, a.id, c.block, c.piece FROM contents c JOIN archives a ON a.number = c.archive"
NODES = "SELECT a.id, n.block, n.piece FROM nodes n JOIN archives a ON a.number = n.archive"
SETS = "SELECT name, snapshot, foot, sequence, root, leans, entries, bytes, mode FROM sets"
ARCHIVES = "SELECT id, kind, length FROM archives WHERE length IS NOT NULL"
LEAVES = (
    "SELECT s.name, l.path, l.first, length(l.signatures), length(l.node) FROM leaves l "
    "JOIN sets s ON s.number = l.set_number"
)


@pytest.mark.parametrize("right", ["read", "browse"])
def test_the_same_catalog(site: Site, right: str) -> None:
    """Whatever the host remembered of what is stored is there again, signatures of local files apart."""
    build(site.source)
    site.backup()
    write(site.source / "dir/sub/new", "new")
    write(site.source / "big", noise(5 * MIB) + b"more")
    (site.source / "empty").rmdir()
    site.backup()
    site.backup(site.source / "dir", name="other", mode="worm")
    queries = (ARCHIVES, PIECES, CONTENTS, NODES, SETS, LEAVES)
    before = [rows(site, query) for query in queries]
    identity = site.me
    if right == "browse":
        identity = rz.Identity.generate()
        with Vault.open(site.url, identities=[site.me]) as vault:
            vault.grant(identity.recipient, "browse")
    result = rebuild(site, identity=identity)
    for query, was in zip(queries, before, strict=True):
        assert rows(site, query) == was, query
    assert not result.problems
    assert (result.snapshots, result.sets) == (3, 2)
    assert result.requests >= 3 and result.bytes > 0 and result.pieces > 0


def test_nothing_is_stored_again(site: Site) -> None:
    build(site.source)
    first = site.backup()
    rebuild(site)
    again = site.backup()
    assert not data(again)
    assert again.stored_bytes < 20_000
    assert again.new == again.deleted == again.moved == again.changed == 0
    assert not [note for note in again.notes if "memory" in note]
    with site.reader() as vault:
        snapshot = vault.snapshot(again.snapshot_id)
        assert snapshot.parent == bytes.fromhex(first.snapshot_id)
        assert not vault.diff(first.snapshot_id, again.snapshot_id)
    site.check(again.snapshot_id)


def test_without_links_the_root_is_the_parents(site: Site) -> None:
    for number in range(50):
        write(site.source / f"d{number % 7}/f{number}", str(number))
    os.setxattr(site.source / "d1", "user.y", b"2")
    site.backup()
    rebuild(site)
    assert site.backup().unchanged


def test_attributes_are_stored_once(site: Site) -> None:
    build(site.source)
    first = site.backup()
    write(site.source / "dir/new", "new")
    second = site.backup()
    rebuild(site)
    third = site.backup()
    assert [bool(blocks_of(site, one.snapshot_id, b"TREX")) for one in (first, second, third)] == [True, False, False]
    site.check(third.snapshot_id)


def test_moves_and_changes(site: Site) -> None:
    build(site.source)
    site.backup()
    rebuild(site)
    (site.source / "dir/b").rename(site.source / "moved")
    (site.source / "dir/sub").rename(site.source / "sub2")
    write(site.source / "new", "new")
    (site.source / "fifo").unlink()
    done = site.backup()
    assert {(move.old, move.new) for move in done.moves} == {
        (b"source/dir/b", b"source/moved"),
        (b"source/dir/sub", b"source/sub2"),
    }
    assert done.deletions == [b"source/fifo"]
    assert done.new == 1
    site.check(done.snapshot_id)


def test_write_once_conflicts(site: Site) -> None:
    build(site.source)
    first = site.backup(mode="worm")
    rebuild(site)
    write(site.source / "dir/b", "another")
    with pytest.raises(ConflictError) as caught:
        site.backup(mode="worm")
    (conflict,) = caught.value.result.conflicts
    assert conflict.path == b"source/dir/b"
    with site.reader() as vault:
        snapshot = vault.snapshot(caught.value.result.snapshot_id)
        assert snapshot.read("source/dir/b") == b"b" * 100
        assert snapshot.parent == bytes.fromhex(first.snapshot_id)


def test_in_place_of_what_is_there(site: Site) -> None:
    """A catalog that is out of date is replaced, and a set that is no more there is forgotten."""
    build(site.source)
    site.backup(name="gone")
    site.backup()
    (gone,) = [path for path in site.objects("meta") if "/0000000001-" in str(path)]
    gone.unlink()
    result = rebuild(site, lose=False)
    assert result.sets == 1
    done = site.backup(name="gone")
    assert done.sequence == 3
    site.check(done.snapshot_id)
    site.check(site.backup().snapshot_id)


def test_a_damaged_metadata_archive(site: Site) -> None:
    """What cannot be read is stored again; nothing is lost by it."""
    build(site.source)
    first = site.backup()
    write(site.source / "dir/more", "more")
    site.backup()
    flip_block(site, first.snapshot_id, b"TREE")
    result = rebuild(site)
    assert result.problems
    assert all(b"\0" not in problem.path for problem in result.problems)
    done = site.backup(name="fresh")
    site.check(done.snapshot_id)


def test_missing_archives_are_not_known(site: Site) -> None:
    build(site.source)
    site.backup()
    for path in [*site.objects("data"), *site.objects("arena")]:
        path.unlink()
    rebuild(site)
    assert not rows(site, PIECES)
    done = site.backup()
    assert data(done)
    site.check(done.snapshot_id)


def test_a_storage_that_fails_changes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    build(site.source)
    site.backup()
    before = rows(site, PIECES)
    with site.writer(identities=[site.me]) as vault:
        vault.snapshots()

        def broken(*_: object, **__: object) -> None:
            msg = "no more"
            raise StorageError(msg)

        monkeypatch.setattr(vault._archives, "source", broken)
        with pytest.raises(StorageError):
            vault.rebuild_catalog()
    assert rows(site, PIECES) == before


def test_a_host_key_alone_cannot(site: Site) -> None:
    with site.writer() as vault, pytest.raises(rz.NoMatchingKey):
        vault.rebuild_catalog()
