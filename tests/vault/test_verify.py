"""What verification finds, on each level, and what it says is lost; a local tree against a snapshot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rozenfmt as rz
from rozenfmt.errors import NoMatchingKey, StorageError, UsageError
from rozenfmt.events import Event, Progress
from rozenfmt.storage.local import LocalStorage
from rozenfmt.vault import layout, passing
from rozenfmt.vault.capture import Capture
from rozenfmt.vault.content import ContentStore, Parts
from rozenfmt.vault.findings import VerifyReport
from rozenfmt.vault.output import ArchiveOutput
from rozenfmt.vault.results import BackupResult
from rozenfmt.vault.snapshot import Snapshot
from rozenfmt.vault.tombstones import build_tombstone
from rozenfmt.vault.vault import Vault
from rozenfmt.vault.verifytree import TreeVerifier

from .harm import flip, flip_block, noise, object_of
from .site import Site, settle, write

MIB = 1 << 20
LEVELS = ("present", "hashes", "opened", "contents")


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


def verify(
    site: Site, snapshot: str | None = None, *, identity: rz.Identity | None = None, **options: Any
) -> VerifyReport:
    with Vault.open(site.url, identities=[identity or site.me], owner=site.me.recipient) as vault:
        return vault.verify(snapshot, **options)


def browser(site: Site) -> rz.Identity:
    friend = rz.Identity.generate()
    with Vault.open(site.url, identities=[site.me]) as vault:
        vault.grant(friend.recipient, "browse")
    return friend


def data_of(done: BackupResult) -> str:
    """Id of the one data archive of a backup."""
    (name,) = [name for name, _ in done.archives if not name.startswith("meta/")]
    return name.rpartition("/")[2].removesuffix(".rzn")


def lost(report: VerifyReport) -> set[bytes]:
    assert report.lost_count == len(report.lost)
    return {one.path for one in report.lost}


# --- all is well ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("whole", [True, False])
def test_all_is_well(site: Site, level: str, whole: bool) -> None:
    build(site.source)
    site.backup()
    write(site.source / "dir/sub/new", "new")
    (site.source / "empty").rmdir()
    done = site.backup()
    site.backup(site.source / "dir", name="worm", mode="worm")
    report = verify(site, None if whole else done.snapshot_id, level=level)
    assert report.ok, report
    assert not report.warnings
    assert report.level == level
    assert report.snapshots == (3 if whole else 1)
    assert report.archives == (5 if whole else 4)
    if level == "present":
        assert (report.read, report.blocks, report.bytes) == (0, 0, 0)
    else:
        assert report.read == report.archives
        if whole:
            assert report.bytes == sum(path.stat().st_size for path in site.objects() if "editions" not in str(path))
    if level == "contents":
        assert report.entries > 10
        assert report.contents >= 7
        assert report.content_bytes > 5 * MIB


def test_contents_that_are_stored_in_order_are_read_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a chunk is the same as others before it; one whose parts go backwards is read again."""
    read: list[bytes] = []
    end = TreeVerifier._end_content

    def ended(self: TreeVerifier, snapshot: Snapshot, content: Any) -> None:
        read.extend(() if content is None else [content.path])
        end(self, snapshot, content)

    monkeypatch.setattr(TreeVerifier, "_end_content", ended)
    build(site.source)
    (site.source / "image").write_bytes(bytes(6 * MIB) + noise(8 * MIB, 2) + bytes(6 * MIB))
    settle(site.source / "image")
    site.backup()
    assert verify(site, level="contents").ok
    assert read == []
    monkeypatch.setattr(passing, "_MOST_KEPT", MIB // 2)
    assert verify(site, level="contents").ok
    assert read == [b"source/image"]


def test_each_thing_once(site: Site) -> None:
    """Contents and directories that snapshots share are looked at once."""
    build(site.source)
    site.backup()
    one = verify(site, level="contents")
    for number in range(3):
        write(site.source / "new", str(number))
        site.backup()
    more = verify(site, level="contents")
    assert more.ok
    assert more.contents == one.contents + 3
    assert more.content_bytes == one.content_bytes + 3


def test_of_nothing(site: Site) -> None:
    report = verify(site, level="contents")
    assert report.ok
    assert report.snapshots == report.archives == 0


@pytest.mark.parametrize("level", ["hashes", "opened", "contents"])
def test_a_sample(site: Site, level: str) -> None:
    for number in range(40):
        write(site.source / f"f{number}", noise(5_000, number))
        if not number % 4:
            site.backup()
    done = site.backup()
    report = verify(site, level=level, sample=0.5)
    assert report.ok
    everything = verify(site, level=level)
    assert 0 < report.bytes < everything.bytes
    if level == "contents":
        assert 0 < report.contents < everything.contents
    assert verify(site, done.snapshot_id, level=level, sample=0.000001).read >= (level != "contents")
    for share in (0, -1, 1.5):
        with pytest.raises(UsageError):
            verify(site, level=level, sample=share)


def test_progress(site: Site) -> None:
    build(site.source)
    site.backup()
    events: list[Event] = []
    verify(site, level="contents", progress=events.append)
    assert any(isinstance(event, Progress) for event in events[1:])
    first = events[0]
    assert isinstance(first, Progress)
    assert (first.operation, first.files, first.bytes_done) == ("verify", 0, 0)
    assert first.bytes_total == sum(
        path.stat().st_size for folder in ("meta", "data", "arena") for path in site.objects(folder)
    )


# --- what is missing ------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_a_data_archive_is_missing(site: Site, level: str) -> None:
    build(site.source)
    first = site.backup()
    write(site.source / "dir/new", "new")
    second = site.backup()
    gone = object_of(site, data_of(second))
    gone.unlink()
    report = verify(site, level=level)
    name = str(gone.relative_to(site.url)).replace("arena/", "data/")
    assert not report.ok
    assert report.missing == [name]
    assert [(one.snapshot, one.path, one.what, one.object) for one in report.lost] == [
        (second.snapshot_id, b"source/dir/new", "missing", name)
    ]
    assert not report.damages
    assert verify(site, first.snapshot_id, level=level).ok


@pytest.mark.parametrize("right", ["read", "browse"])
@pytest.mark.parametrize("level", LEVELS)
def test_directories_are_missing(site: Site, level: str, right: str) -> None:
    """An older metadata archive that newer snapshots lean on is gone."""
    build(site.source)
    first = site.backup()
    write(site.source / "new", "new")
    second = site.backup()
    object_of(site, first.snapshot_id).unlink()
    identity = browser(site) if right == "browse" else None
    if identity is not None and level == "contents":
        with pytest.raises(NoMatchingKey):
            verify(site, level=level, identity=identity)
        return
    report = verify(site, level=level, identity=identity)
    assert len(report.missing) == 1
    assert first.snapshot_id in report.missing[0]
    assert b"source/dir" in lost(report)
    assert b"source/big" in lost(report)  # its part table
    assert b"source/new" not in lost(report)
    assert {one.snapshot for one in report.lost} == {second.snapshot_id}
    assert any("parent" in text for text in report.warnings)


def test_the_only_snapshot_is_missing(site: Site) -> None:
    build(site.source)
    done = site.backup()
    with site.reader() as vault:
        snapshot = vault.snapshot(done.snapshot_id)
        object_of(site, done.snapshot_id).unlink()
        report = vault.verify(snapshot)
    assert report.missing == [snapshot.object]
    assert lost(report) == {b""}
    report = verify(site)
    assert report.ok
    assert any("refers to 1 data archives" in text for text in report.warnings)


def test_a_tombstone_is_named(site: Site) -> None:
    build(site.source)
    done = site.backup()
    gone = object_of(site, data_of(done))
    gone.unlink()
    host, archive = site.host.host_id, bytes.fromhex(data_of(done))
    stone = build_tombstone(
        site.me, vault_id=site.host.vault_id, host_id=host, archive_id=archive, foot_hash=bytes(32), now_ns=1
    )
    write(Path(site.url) / layout.gone_name(host, archive), stone)
    report = verify(site)
    assert report.missing
    assert b"source/dir/b" in lost(report)
    assert all("a tombstone stands for it" in one.detail for one in report.lost)


def test_a_move_from_the_arena_is_no_loss(site: Site) -> None:
    build(site.source)
    done = site.backup()
    here = object_of(site, data_of(done))
    there = Path(str(here).replace("/arena/", "/data/"))
    assert here != there
    there.parent.mkdir(parents=True)
    shutil.copy(here, there)
    assert verify(site, level="contents").ok
    flip(here, 1000)
    report = verify(site, level="contents")
    assert not report.ok
    assert not report.lost  # the copy has everything
    here.unlink()
    assert verify(site, level="contents").ok


# --- what is damaged ------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(100))


def empty(path: Path) -> None:
    os.truncate(path, 0)


HARM: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut off": (truncate, "present"),
    "longer": (lengthen, "present"),
    "emptied": (empty, "present"),
    "first bit": (lambda path: flip(path, 0), "hashes"),
    "header": (lambda path: flip(path, 60), "hashes"),
    "last bit": (lambda path: flip(path, -1), "hashes"),
    "footer": (lambda path: flip(path, -200), "hashes"),
    "middle": (lambda path: flip(path, path.stat().st_size // 2), "hashes"),
}


@pytest.mark.parametrize("harm", sorted(HARM))
@pytest.mark.parametrize("kind", ["data", "metadata"])
def test_damage(site: Site, harm: str, kind: str) -> None:
    build(site.source)
    first = site.backup()
    write(site.source / "dir/new", "new")
    second = site.backup()
    path = object_of(site, data_of(first) if kind == "data" else first.snapshot_id)
    damage, seen_from = HARM[harm]
    damage(path)
    for level in LEVELS:
        if level == "present" and kind == "metadata" and harm == "middle":
            continue  # it depends on which block is there
        report = verify(site, level=level)
        # Whoever lists snapshots reads the ends of their archives.
        seen = LEVELS.index(level) >= LEVELS.index(seen_from) or (kind == "metadata" and harm in ("last bit", "footer"))
        assert report.ok == (not seen)
        if not seen:
            continue
        assert {one.object for one in report.damages} == {str(path.relative_to(site.url))}
        assert b"source/dir/new" not in lost(report)
        if harm not in ("first bit", "header", "middle"):
            assert b"source/big" in lost(report)
            assert {one.snapshot for one in report.lost} == {first.snapshot_id, second.snapshot_id}


@pytest.mark.parametrize("level", ["hashes", "opened", "contents"])
def test_one_block_of_contents(site: Site, level: str) -> None:
    """What else the archive holds is not lost; and all blocks that are damaged are named."""
    for number in range(6):
        write(site.source / f"f{number}", noise(6 * MIB // 2, number))
    done = site.backup(compression="none", mode="worm")
    archive = data_of(done)
    blocks = {flip_block(site, archive, b"PACK", 1), flip_block(site, archive, b"PACK", -1)}
    report = verify(site, level=level)
    assert {one.block for one in report.damages} == blocks
    assert {one.object for one in report.damages} == {str(object_of(site, archive).relative_to(site.url))}
    assert 0 < report.lost_count < 6
    with site.reader() as vault:
        snapshot = vault.snapshot(done.snapshot_id)
        for number in range(6):
            path = f"source/f{number}"
            if path.encode() in lost(report):
                with pytest.raises(rz.ArchiveError):
                    snapshot.read(path)
            else:
                snapshot.read(path)


@pytest.mark.parametrize("level", ["hashes", "opened", "contents"])
def test_directories_and_attributes(site: Site, level: str) -> None:
    build(site.source)
    done = site.backup()
    flip_block(site, done.snapshot_id, b"TREX")
    assert lost(verify(site, level=level)) == {b"source/a", b"source/dir", b"source/dir/again"}
    flip_block(site, done.snapshot_id, b"TREE")
    report = verify(site, level=level)
    assert lost(report)
    assert {one.failure_class for one in report.damages} == {"block"}


@pytest.mark.parametrize("level", LEVELS)
def test_exchanged_for_another_hosts(site: Site, level: str) -> None:
    """Everything is in order with the other archive, but for its place."""
    build(site.source)
    done = site.backup()
    with site.reader() as vault:
        other = vault.enrol("desktop")
    theirs = site.backup(host=other)
    ours = object_of(site, data_of(done))
    size = ours.stat().st_size
    shutil.copy(object_of(site, data_of(theirs)), ours)
    report = verify(site, done.snapshot_id, level=level)
    if level == "present" and ours.stat().st_size == size:
        assert report.ok  # a listing shows no more
        return
    assert report.damages
    assert b"source/big" in lost(report)
    assert verify(site, theirs.snapshot_id, level=level).ok


@pytest.mark.parametrize("level", LEVELS)
def test_a_snapshot_exchanged(site: Site, level: str) -> None:
    build(site.source)
    first = site.backup()
    write(site.source / "new", "new")
    second = site.backup()
    shutil.copy(object_of(site, first.snapshot_id), object_of(site, second.snapshot_id))
    report = verify(site, level=level)
    assert [one.object for one in report.damages] == [str(object_of(site, second.snapshot_id).relative_to(site.url))]
    assert (second.snapshot_id, b"") in {(one.snapshot, one.path) for one in report.lost}
    assert verify(site, first.snapshot_id, level=level).ok


@pytest.mark.parametrize("level", ["opened", "contents"])
def test_a_browser_sees_what_it_may(site: Site, level: str) -> None:
    build(site.source)
    site.backup()
    friend = browser(site)
    if level == "contents":
        with pytest.raises(NoMatchingKey):
            verify(site, level=level, identity=friend)
    else:
        assert verify(site, level=level, identity=friend).ok


def test_a_storage_that_fails_for_one_object(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    build(site.source)
    first = site.backup()
    write(site.source / "dir/new", "new")
    site.backup()
    bad = data_of(first)

    def stream(self: LocalStorage, name: str, *arguments: Any) -> Any:
        if bad in name:
            msg = "the disk is on fire"
            raise StorageError(msg, object=name)
        return plain(self, name, *arguments)

    plain = LocalStorage.stream
    monkeypatch.setattr(LocalStorage, "stream", stream)
    report = verify(site, level="contents")
    assert {one.failure_class for one in report.damages} == {"storage"}
    assert b"source/big" in lost(report)
    assert b"source/dir/new" not in lost(report)


def test_lists_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from rozenfmt.vault import findings

    monkeypatch.setattr(findings, "_KEPT", 5)
    for number in range(20):
        write(site.source / f"f{number}", str(number))
    done = site.backup()
    object_of(site, data_of(done)).unlink()
    report = verify(site)
    assert len(report.lost) == 5
    assert report.lost_count == 20


# --- a host that lies -----------------------------------------------------------------------------


def test_a_piece_is_not_what_its_id_says(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ContentStore.piece

    def piece(self: ContentStore, data: bytes | memoryview, one: bytes | None = None) -> Any:
        if bytes(data) == b"b" * 100:
            return plain(self, b"B" * 100, self.id_of(data))
        return plain(self, data, one)

    monkeypatch.setattr(ContentStore, "piece", piece)
    build(site.source)
    done = site.backup()
    assert verify(site, level="opened").ok
    for sample in (None, 1.0):
        report = verify(site, level="contents", sample=sample)
        assert lost(report) == {b"source/dir/b"}
        assert {one.object for one in report.damages} == {str(object_of(site, data_of(done)).relative_to(site.url))}


def test_a_content_is_not_its_parts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Parts.__iter__

    def parts(self: Parts) -> Any:
        yield from plain(self)
        if self.length == 5 * MIB:
            self.content_id = bytes(32)

    monkeypatch.setattr(Parts, "__iter__", parts)
    build(site.source)
    site.backup()
    assert verify(site, level="opened").ok
    for sample in (None, 1.0):
        report = verify(site, level="contents", sample=sample)
        assert lost(report) == {b"source/big"}


def test_totals_are_wrong(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Capture._count

    def count(self: Capture, entry: Any) -> None:
        plain(self, entry)
        self.result.entries += 1

    monkeypatch.setattr(Capture, "_count", count)
    build(site.source)
    done = site.backup()
    assert verify(site, level="opened").ok
    report = verify(site, level="contents")
    assert [one.object for one in report.damages] == [str(object_of(site, done.snapshot_id).relative_to(site.url))]
    assert not report.lost


def test_a_parent_was_exchanged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive of this id is another one than the child has seen."""
    write(site.source / "a", "1")
    site.backup()
    monkeypatch.setattr(ArchiveOutput, "finish", _forgetful(ArchiveOutput.finish))
    write(site.source / "a", "22")
    site.backup()
    write(site.source / "a", "333")
    third = site.backup()
    report = verify(site, level="hashes")
    assert {one.failure_class for one in report.damages} == {"signature"}
    assert third.snapshot_id in report.damages[0].message


def _forgetful(finish: Callable[[ArchiveOutput], None]) -> Callable[[ArchiveOutput], None]:
    def wrong(self: ArchiveOutput) -> None:
        finish(self)
        self.foot_hash = bytes(32)

    return wrong


# --- order of snapshots ---------------------------------------------------------------------------


def test_a_fork(site: Site, tmp_path: Path) -> None:
    """A host that was restored from an image goes on from an older snapshot."""
    write(site.source / "a", "1")
    site.backup()
    shutil.copytree(site.cache, tmp_path / "image")
    write(site.source / "a", "22")
    site.backup()
    write(site.source / "a", "333")
    site.backup(cache_dir=tmp_path / "image")
    report = verify(site)
    assert report.ok
    assert any("fork" in text for text in report.warnings)


def test_a_gap(site: Site) -> None:
    write(site.source / "a", "1")
    first = site.backup(name="one")
    site.backup(name="two")
    object_of(site, first.snapshot_id).unlink()
    report = verify(site)
    assert any(first.snapshot_id in text and "tombstone" in text for text in report.warnings)


def test_strange_names(site: Site) -> None:
    write(site.source / "a", "1")
    site.backup()
    write(Path(site.url) / "meta/what-is-this", "1")
    report = verify(site, level="contents")
    assert report.ok
    assert any("what-is-this" in text for text in report.warnings)


def test_bad_arguments(site: Site) -> None:
    with pytest.raises(UsageError):
        verify(site, level="all")
    with pytest.raises(UsageError):
        verify(site, against=site.source)


# --- a local tree ---------------------------------------------------------------------------------


def against(site: Site, done: BackupResult, directory: Path, **options: Any) -> VerifyReport:
    return verify(site, done.snapshot_id, against=directory, **options)


def test_against_the_same(site: Site) -> None:
    build(site.source)
    done = site.backup()
    for path in [*site.objects("data"), *site.objects("arena")]:
        path.write_bytes(bytes(path.stat().st_size))  # they are not read
    report = against(site, done, site.source)
    assert report.ok, report
    assert report.content_bytes > 5 * MIB
    assert not report.unconfirmed
    assert report.restorable_paths == []


def test_against_changes(site: Site) -> None:
    build(site.source)
    done = site.backup()
    time = os.stat(site.source / "dir/b").st_mtime_ns
    write(site.source / "dir/b", "B" * 100)
    os.utime(site.source / "dir/b", ns=(time, time))
    write(site.source / "new", "new")
    os.setxattr(site.source / "a", "user.x", b"2")
    (site.source / "fifo").unlink()
    shutil.rmtree(site.source / "dir/sub")
    with (site.source / "big").open("r+b") as file:
        file.seek(3 * MIB)
        file.write(b"!")
    report = against(site, done, site.source)
    assert not report.ok
    found = {(os.fsdecode(one.path)[7:], one.what, one.details) for one in report.different}
    assert found == {
        ("a", "metadata", ("xattrs",)),
        ("big", "content", ("content", "mtime")),
        ("dir", "metadata", ("mtime",)),
        ("dir/again", "metadata", ("xattrs",)),
        ("dir/b", "content", ("content",)),
        ("dir/sub", "removed", ()),
        ("dir/sub/c", "removed", ()),
        ("fifo", "removed", ()),
        ("new", "added", ()),
        ("", "metadata", ("mtime",)),
    }
    assert report.different_count == len(report.different)
    assert b"source/new" not in report.restorable_paths


def test_differences_can_be_restored(site: Site, tmp_path: Path) -> None:
    build(site.source)
    done = site.backup()
    write(site.source / "dir/b", "other")
    shutil.rmtree(site.source / "dir/sub")
    (site.source / "fifo").unlink()
    report = against(site, done, site.source)
    with site.reader() as vault:
        vault.restore(done.snapshot_id, tmp_path / "out", paths=report.restorable_paths, overwrite="always")
        vault.restore(done.snapshot_id, site.root, paths=report.restorable_paths, overwrite="always")
    assert against(site, done, site.source).ok


def test_against_with_a_browsing_key(site: Site) -> None:
    build(site.source)
    done = site.backup()
    time = os.stat(site.source / "dir/b").st_mtime_ns
    write(site.source / "dir/b", "B" * 100)
    os.utime(site.source / "dir/b", ns=(time, time))
    friend = browser(site)
    report = against(site, done, site.source, identity=friend)
    assert report.ok
    assert report.unconfirmed == 7
    write(site.source / "a", "longer")
    report = against(site, done, site.source, identity=friend)
    assert {one.path for one in report.different if one.what == "content"} == {b"source/a", b"source/dir/again"}


def test_which_source(site: Site, tmp_path: Path) -> None:
    build(site.source)
    write(tmp_path / "more/x", "x")
    both = site.backup(site.source, tmp_path / "more")
    one = site.backup(("named", site.source), name="one")
    assert against(site, both, site.source).ok
    assert against(site, both, tmp_path / "more").ok
    shutil.copytree(tmp_path / "more", tmp_path / "copy")
    with pytest.raises(UsageError):
        against(site, both, tmp_path / "copy")
    with pytest.raises(UsageError):
        against(site, both, tmp_path / "nothing")
    assert against(site, one, site.source).ok
    assert not against(site, one, tmp_path / "copy").ok


def test_against_with_excludes(site: Site) -> None:
    build(site.source)
    done = site.backup()
    time = os.stat(site.source).st_mtime_ns
    write(site.source / "x.tmp", "x")
    os.utime(site.source, ns=(time, time))
    assert not against(site, done, site.source).ok
    assert against(site, done, site.source, exclude=["*.tmp"]).ok


def test_against_where_directories_are_lost(site: Site) -> None:
    build(site.source)
    first = site.backup()
    write(site.source / "new", "new")
    second = site.backup()
    object_of(site, first.snapshot_id).unlink()
    report = against(site, second, site.source)
    assert report.missing
    assert not report.ok
