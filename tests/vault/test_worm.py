"""WORM sets: what was stored once stays what it is; each change is told for what it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from rozenfmt.errors import ConflictError, UsageError
from rozenfmt.vault.results import BackupResult, Command, Conflict, Move
from rozenfmt.vault.vault import Vault

from .site import Site, facts, write

pytestmark = pytest.mark.usefixtures("untimed")


def picture(number: int, size: int = 300_000) -> bytes:
    return blake3(b"picture %d" % number).digest(size)


@pytest.fixture
def photos(site: Site) -> Site:
    """A folder of pictures, backed up once."""
    for number in range(12):
        write(site.source / f"{2019 + number % 3}/IMG_{number:04}.jpg", picture(number), mode=0o644)
    write(site.source / "2020/film.mov", picture(99, 20_000_000))
    backup(site)
    return site


def backup(site: Site, **options: Any) -> BackupResult:
    return site.backup(name="photos", mode="worm", **options)


def refused(site: Site, **options: Any) -> BackupResult:
    with pytest.raises(ConflictError) as caught:
        backup(site, **options)
    assert isinstance(caught.value.result, BackupResult)
    return caught.value.result


def content(site: Site, path: str, snapshot: str = "latest:photos") -> bytes:
    with site.reader() as vault:
        return vault.snapshot(snapshot).read(path)


def test_nothing_changed(photos: Site) -> None:
    done = backup(photos)
    assert done.unchanged
    assert done.same == 13
    assert done.stored_bytes < 20_000


def test_each_change_is_told_for_what_it_is(photos: Site) -> None:
    base = photos.source
    (base / "2019/IMG_0000.jpg").rename(base / "2019/lake.jpg")  # renamed
    (base / "2019/IMG_0003.jpg").rename(base / "2021/IMG_0003.jpg")  # moved
    (base / "2020/IMG_0001.jpg").chmod(0o600)  # metadata
    os.utime(base / "2020/IMG_0004.jpg", ns=(10**18, 10**18))  # metadata
    (base / "2021/IMG_0002.jpg").unlink()  # deleted
    write(base / "2021/new.jpg", picture(50))  # new
    write(base / "2020/IMG_0007.jpg", picture(51))  # edited
    before = {path: path.read_bytes() for path in photos.objects()}
    done = refused(photos)
    assert done.moves == [
        Move(b"source/2019/IMG_0000.jpg", b"source/2019/lake.jpg"),
        Move(b"source/2019/IMG_0003.jpg", b"source/2021/IMG_0003.jpg"),
    ]
    assert done.deletions == [b"source/2021/IMG_0002.jpg"]
    assert (done.new, done.metadata, done.changed) == (1, 2, 0)
    assert [(c.path, c.answer) for c in done.conflicts] == [(b"source/2020/IMG_0007.jpg", "withhold")]
    assert not done.complete
    assert {path: path.read_bytes() for path in before} == before  # nothing stored was touched
    with photos.reader() as vault:
        snapshot = vault.snapshot("latest:photos")
        assert snapshot.read("source/2020/IMG_0007.jpg") == picture(7)
        assert snapshot.entry("source/2020/IMG_0007.jpg").raw.marks == 8
        assert snapshot.read("source/2019/lake.jpg") == picture(0)
        assert snapshot.entry("source/2020/IMG_0001.jpg").mode == 0o600
        assert snapshot.counts.conflicts == 1
        older = next(s for s in vault.snapshots() if s.sequence == 1)
        assert older.read("source/2021/IMG_0002.jpg") == picture(2)


def test_metadata_alone_writes_kilobytes(photos: Site) -> None:
    for path in photos.source.rglob("*.jpg"):
        path.chmod(0o600)
    (photos.source / "2019").rename(photos.source / "nineteen")
    done = backup(photos)
    assert done.metadata == 12
    assert done.moves == [Move(b"source/2019", b"source/nineteen", directory=True)]
    assert done.stored_bytes < 20_000
    photos.check(done.snapshot_id)


def test_without_an_answer_the_question_comes_again(photos: Site) -> None:
    write(photos.source / "2020/IMG_0007.jpg", picture(51))
    refused(photos)
    again = refused(photos)
    assert again.conflicts[0].old_id != again.conflicts[0].new_id
    write(photos.source / "2020/IMG_0007.jpg", picture(7))  # put back by hand
    done = backup(photos)
    assert not done.conflicts
    with photos.reader() as vault:
        assert vault.snapshot("latest:photos").entry("source/2020/IMG_0007.jpg").raw.marks == 0
    photos.check(done.snapshot_id)


@pytest.mark.parametrize("path", ["source/2020/IMG_0007.jpg", "source/2020/film.mov"])
def test_accept(photos: Site, path: str) -> None:
    write(photos.root / path, picture(60, 18_000_000 if "film" in path else 1_000))
    done = backup(photos, on_conflict="accept")
    assert done.changed == 1
    assert done.complete
    photos.check(done.snapshot_id)
    assert backup(photos).unchanged


@pytest.mark.parametrize("path", ["source/2020/IMG_0007.jpg", "source/2020/film.mov"])
def test_skip_keeps_what_was_stored(photos: Site, path: str) -> None:
    old = (photos.root / path).read_bytes()
    write(photos.root / path, picture(60, 18_000_000))
    done = backup(photos, on_conflict="skip")
    assert [c.answer for c in done.conflicts] == ["skip"]
    assert not done.complete
    assert done.stored_bytes < 100_000  # the new content was not even stored
    assert content(photos, path) == old


def test_keep_both(photos: Site) -> None:
    path = "source/2020/IMG_0007.jpg"
    write(photos.root / path, picture(60))
    done = backup(photos, on_conflict="keep-both")
    assert done.complete
    with photos.reader() as vault:
        snapshot = vault.snapshot("latest:photos")
        (kept,) = [entry for entry in snapshot if ".~" in entry.path]
        assert kept.path.startswith(path + ".~")
        assert snapshot.read(kept.path) == picture(7)
        assert snapshot.read(path) == picture(60)
    assert backup(photos).unchanged  # the earlier version is carried over
    (photos.root / path).unlink()
    done = backup(photos)
    assert done.deletions == [path.encode()]
    assert content(photos, kept.path) == picture(7)


def test_restore_puts_the_old_content_back(photos: Site) -> None:
    path = photos.root / "source/2020/IMG_0007.jpg"
    before = path.stat().st_mtime_ns
    write(path, picture(60))
    with Vault.open(photos.url, host=photos.host, identities=[photos.me], cache_dir=photos.cache) as vault:
        done = vault.backup([photos.source], name="photos", mode="worm", on_conflict="restore")
    assert [c.answer for c in done.conflicts] == ["restore"]
    assert done.complete
    assert path.read_bytes() == picture(7)
    assert path.stat().st_mtime_ns == before
    (aside,) = path.parent.glob("IMG_0007.jpg.local-*")
    assert aside.read_bytes() == picture(60)
    assert not list(path.parent.glob(".rozenfmt-*"))
    done = backup(photos)
    assert done.new == 1  # what was put aside is a file like any other
    photos.check(done.snapshot_id)


def test_restore_is_not_offered_to_a_host_alone(photos: Site) -> None:
    write(photos.source / "2020/IMG_0007.jpg", picture(60))
    with pytest.raises(ConflictError, match="key"):
        backup(photos, on_conflict="restore")
    seen = []

    def ask(conflict: Conflict) -> Any:
        seen.append(conflict)
        return "skip"

    backup(photos, on_conflict=ask)
    assert [c.can_restore for c in seen] == [False]


def test_fail_stores_no_snapshot(photos: Site) -> None:
    write(photos.source / "2020/IMG_0007.jpg", picture(60))
    with pytest.raises(ConflictError) as caught:
        backup(photos, on_conflict="fail")
    assert caught.value.result is None
    assert len(photos.objects("meta")) == 1


def test_a_callback_may_answer_for_all(photos: Site) -> None:
    for number in (1, 4, 7):
        write(photos.source / f"2020/IMG_{number:04}.jpg", picture(60 + number))
    asked: list[Conflict] = []

    def ask(conflict: Conflict) -> Any:
        asked.append(conflict)
        conflict.for_all = len(asked) == 2
        return "skip" if len(asked) == 1 else "accept"

    done = backup(photos, on_conflict=ask)
    assert len(asked) == 2
    assert [c.answer for c in done.conflicts] == ["skip", "accept", "accept"]
    first = asked[0]
    assert (first.path, first.local_path) == (
        b"source/2020/IMG_0001.jpg",
        os.fsencode(photos.source / "2020/IMG_0001.jpg"),
    )
    assert first.old_size == first.new_size == 300_000


def test_a_wrong_answer_is_refused(photos: Site) -> None:
    write(photos.source / "2020/IMG_0007.jpg", picture(60))
    with pytest.raises(UsageError):
        backup(photos, on_conflict="perhaps")
    assert len(photos.objects("meta")) == 1


def test_an_emptied_file_is_a_conflict(photos: Site) -> None:
    write(photos.source / "2020/IMG_0007.jpg", b"")
    done = refused(photos)
    assert done.conflicts[0].new_size == 0
    assert content(photos, "source/2020/IMG_0007.jpg") == picture(7)


def test_an_unmounted_disk_is_no_deletion(photos: Site) -> None:
    shutil.rmtree(photos.source)
    photos.source.mkdir()
    from rozenfmt.errors import SourceError

    with pytest.raises(SourceError, match="mounted"):
        backup(photos)
    assert len(photos.objects("meta")) == 1


def test_a_lost_memory_asks_nothing_and_loses_nothing(photos: Site) -> None:
    write(photos.source / "2020/IMG_0007.jpg", picture(60))
    shutil.rmtree(photos.cache)
    done = backup(photos)
    assert any("memory" in note for note in done.notes)
    assert not done.conflicts
    with photos.reader() as vault:
        first, second = vault.snapshots()
        assert first.read("source/2020/IMG_0007.jpg") == picture(7)
        assert second.read("source/2020/IMG_0007.jpg") == picture(60)
        assert second.parent_state.name == "UNKNOWN"


def test_a_set_may_change_its_mode(photos: Site) -> None:
    write(photos.source / "2020/IMG_0007.jpg", picture(60))
    done = photos.backup(name="photos", mode="snapshot")
    assert done.changed == 1
    write(photos.source / "2020/IMG_0007.jpg", picture(61))
    assert len(refused(photos).conflicts) == 1


def test_a_hard_link_to_a_changed_file(photos: Site) -> None:
    os.link(photos.source / "2020/IMG_0007.jpg", photos.source / "2020/second.jpg")
    backup(photos)
    with (photos.source / "2020/IMG_0007.jpg").open("r+b") as file:
        file.write(b"changed")
    done = refused(photos)
    assert {c.path for c in done.conflicts} >= {b"source/2020/IMG_0007.jpg"}
    assert content(photos, "source/2020/IMG_0007.jpg") == picture(7)
    assert content(photos, "source/2020/second.jpg") == picture(7)


def test_a_file_that_became_a_directory(photos: Site) -> None:
    path = photos.source / "2020/IMG_0007.jpg"
    path.unlink()
    write(path / "inside", "inside")
    done = backup(photos)
    assert (done.new, done.deleted) == (1, 1)
    photos.check(done.snapshot_id)
    assert facts(photos.restored(done.snapshot_id, "again") / "source") == facts(photos.source)


def test_what_is_in_the_snapshot_folder_stays(photos: Site) -> None:
    """Archives are never overwritten or removed, whatever happens."""
    names = {str(p): p.stat().st_ino for p in photos.objects() if "editions" not in str(p)}
    for number in range(3):
        write(photos.source / "2020/IMG_0007.jpg", picture(70 + number))
        backup(photos, on_conflict="accept")
    assert names.items() <= {str(p): p.stat().st_ino for p in photos.objects()}.items()
    assert Path(photos.url).exists()


def test_what_a_snapshot_stored_in_parts_is_not_stored_again(site: Site) -> None:
    write(site.source / "film.mov", picture(1, 5_000_000))
    site.backup(name="photos", mode="snapshot")
    os.utime(site.source / "film.mov", ns=(10**18, 10**18))
    done = backup(site)
    assert done.metadata == 1
    assert done.stored_bytes < 20_000
    site.check(done.snapshot_id)
    assert backup(site).read_bytes == 0


def test_restoring_twice_within_a_second_keeps_both_local_files(photos: Site) -> None:
    path = photos.source / "2020/IMG_0007.jpg"
    for number in range(3):
        write(path, picture(60 + number))
        with Vault.open(photos.url, host=photos.host, identities=[photos.me], cache_dir=photos.cache) as vault:
            vault.backup([photos.source], name="photos", mode="worm", on_conflict="restore")
    assert path.read_bytes() == picture(7)
    aside = {one.read_bytes() for one in path.parent.glob("IMG_0007.jpg.local-*")}
    assert aside == {picture(60), picture(61), picture(62)}


def test_a_command_is_no_write_once_source(photos: Site) -> None:
    with pytest.raises(UsageError, match="snapshot mode"):
        photos.backup(Command("dump", ["true"]), name="photos", mode="worm")
