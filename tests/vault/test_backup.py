"""Backups of real trees by a host that cannot read, read back by the owner."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blake3 import blake3

import rozenfmt as rz
from rozenfmt.archive.pipeline import Pipeline
from rozenfmt.errors import NoMatchingKey, SignatureError, SourceError, StorageError, UsageError
from rozenfmt.format.blocks import Draft
from rozenfmt.vault import content
from rozenfmt.vault.results import Command, Move
from rozenfmt.vault.vault import Vault

from .site import SETTLED, Site, facts, settle, write

pytestmark = pytest.mark.usefixtures("untimed")


def noise(size: int, seed: int = 0) -> bytes:
    return blake3(b"%d" % seed).digest(size)


def fill(site: Site) -> None:
    """A small tree of every kind."""
    base = site.source
    write(base / "a.txt", "hello\n", mode=0o640)
    write(base / "empty")
    write(base / "dir/one.bin", noise(5_000))
    write(base / "dir/two.bin", noise(200_000, 1))
    write(base / "dir/below/three.txt", "three\n" * 1000)
    write(base / "big.bin", noise(5_000_000, 2))
    (base / "hollow").mkdir()
    (base / "link").symlink_to("dir/one.bin")
    os.link(base / "dir/two.bin", base / "second name")
    os.mkfifo(base / "pipe")
    Path(os.fsdecode(os.fsencode(base) + b"/odd \xff\n*[name]?")).write_bytes(b"odd")
    os.setxattr(base / "a.txt", "user.colour", b"blue")
    with (base / "sparse").open("wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    os.truncate(base / "sparse", 4_000_000)


def test_a_tree_of_every_kind_comes_back(site: Site) -> None:
    fill(site)
    done = site.backup()
    assert (done.new, done.changed, done.same, done.deleted) == (11, 0, 0, 0)
    assert done.complete
    site.check(done.snapshot_id)


def test_an_unchanged_tree_reads_and_stores_next_to_nothing(site: Site) -> None:
    fill(site)
    first = site.backup()
    second = site.backup()
    assert second.unchanged
    assert (second.same, second.new, second.changed, second.metadata) == (11, 0, 0, 0)
    assert second.read_bytes == 0
    assert len(second.archives) == 1
    assert second.stored_bytes < 20_000
    assert second.sequence == first.sequence + 1
    site.check(second.snapshot_id)


def test_only_what_changed_is_read_and_stored(site: Site) -> None:
    fill(site)
    site.backup()
    write(site.source / "dir/one.bin", noise(5_000, 9))
    write(site.source / "dir/new.bin", noise(7_000, 10))
    (site.source / "a.txt").chmod(0o600)
    done = site.backup()
    assert (done.new, done.changed, done.metadata, done.same) == (1, 1, 1, 9)
    assert not done.unchanged
    assert done.stored_bytes < 40_000
    site.check(done.snapshot_id)


def test_every_snapshot_restores_alone(site: Site) -> None:
    fill(site)
    seen = []
    for number in range(4):
        write(site.source / f"dir/{number}", f"number {number}")
        if number:
            (site.source / f"dir/{number - 1}").unlink()
        seen.append((site.backup().snapshot_id, facts(site.source)))
    for snapshot, then in seen:
        assert facts(site.restored(snapshot) / "source") == then


def test_an_image_with_bytes_inserted_in_front_stores_what_changed(site: Site) -> None:
    image = noise(30_000_000)
    write(site.source / "image", image)
    first = site.backup()
    write(site.source / "image", b"inserted" * 1_000 + image)
    second = site.backup()
    assert second.stored_bytes < first.stored_bytes * 0.1
    changed = bytearray(image)
    changed[10_000_000:10_300_000] = noise(300_000, 7)
    write(site.source / "image", bytes(changed))
    third = site.backup()
    assert third.stored_bytes < first.stored_bytes * 0.15
    site.check(third.snapshot_id)


def test_same_contents_are_stored_once(site: Site) -> None:
    for number in range(20):
        write(site.source / f"copy {number}", noise(100_000))
    done = site.backup()
    assert done.stored_bytes < 150_000
    site.check(done.snapshot_id)


def test_a_copy_of_a_stored_file_is_not_stored_again(site: Site) -> None:
    write(site.source / "original", noise(3_000_000))
    site.backup()
    shutil.copyfile(site.source / "original", site.source / "copy")
    done = site.backup()
    assert done.new == 1
    assert not done.moves
    assert done.stored_bytes < 60_000
    site.check(done.snapshot_id)


# --- moves and deletions --------------------------------------------------------------------------


def test_renamed_and_moved_files_are_told_and_not_read(site: Site) -> None:
    fill(site)
    site.backup()
    (site.source / "a.txt").rename(site.source / "z.txt")
    (site.source / "dir/one.bin").rename(site.source / "one.bin")
    (site.source / "big.bin").rename(site.source / "dir/below/big.bin")
    done = site.backup()
    assert done.moves == [
        Move(b"source/a.txt", b"source/z.txt"),
        Move(b"source/big.bin", b"source/dir/below/big.bin"),
        Move(b"source/dir/one.bin", b"source/one.bin"),
    ]
    assert (done.new, done.changed, done.deleted, done.read_bytes) == (0, 0, 0, 0)
    site.check(done.snapshot_id)


def test_a_moved_directory_is_one_record(site: Site) -> None:
    fill(site)
    site.backup()
    (site.source / "dir").rename(site.source / "hollow/moved")
    done = site.backup()
    assert done.moves == [Move(b"source/dir", b"source/hollow/moved", directory=True)]
    assert (done.new, done.changed, done.deleted, done.read_bytes) == (0, 0, 0, 0)
    site.check(done.snapshot_id)
    again = site.backup()
    assert again.unchanged


@pytest.mark.parametrize("new", ["zzz", "aaa"])
def test_changes_in_a_moved_directory_are_told_apart(site: Site, new: str) -> None:
    fill(site)
    site.backup()
    (site.source / "dir").rename(site.source / new)
    write(site.source / new / "one.bin", "other")
    (site.source / new / "below/three.txt").unlink()
    write(site.source / new / "fresh", "fresh")
    done = site.backup()
    assert done.moves == [Move(b"source/dir", b"source/%s" % new.encode(), directory=True)]
    assert (done.new, done.changed, done.deleted) == (1, 1, 1)
    assert done.deletions == [b"source/dir/below/three.txt"]
    site.check(done.snapshot_id)


def test_what_was_copied_elsewhere_and_removed_is_a_move(site: Site) -> None:
    """As between file systems: other inodes, same contents."""
    fill(site)
    site.backup()
    shutil.copyfile(site.source / "big.bin", site.source / "dir/big.bin")
    (site.source / "big.bin").unlink()
    shutil.copytree(site.source / "dir/below", site.source / "below", copy_function=shutil.copy2)
    shutil.rmtree(site.source / "dir/below")
    done = site.backup()
    assert Move(b"source/big.bin", b"source/dir/big.bin") in done.moves
    assert Move(b"source/dir/below", b"source/below", directory=True) in done.moves
    assert (done.new, done.deleted) == (0, 0)
    site.check(done.snapshot_id)


def test_deletions_are_recorded_topmost(site: Site) -> None:
    fill(site)
    before = site.backup()
    shutil.rmtree(site.source / "dir")
    (site.source / "a.txt").unlink()
    done = site.backup()
    assert done.deletions == [b"source/a.txt", b"source/dir"]
    assert done.deleted == 2
    site.check(done.snapshot_id)
    assert (site.restored(before.snapshot_id) / "source/dir/below/three.txt").exists()


def test_an_inode_that_was_taken_over_is_no_move(site: Site) -> None:
    write(site.source / "old", "old content")
    site.backup()
    (site.source / "old").unlink()
    for number in range(50):  # one of these usually gets the inode
        write(site.source / f"new {number}", f"other {number:7}")
    done = site.backup()
    assert not done.moves
    site.check(done.snapshot_id)


def test_another_name_of_the_same_file_is_no_move(site: Site) -> None:
    write(site.source / "file", "content")
    site.backup()
    os.link(site.source / "file", site.source / "name")
    done = site.backup()
    assert not done.moves
    assert done.deleted == 0
    site.check(done.snapshot_id)


# --- sources --------------------------------------------------------------------------------------


def test_several_sources_and_single_files(site: Site) -> None:
    fill(site)
    other = write(site.root / "notes.txt", "notes")
    done = site.backup(other, ("renamed", site.source), Command("out.txt", [sys.executable, "-c", "print('output')"]))
    where = site.restored(done.snapshot_id)
    assert (where / "notes.txt").read_text() == "notes"
    assert (where / "out.txt").read_text() == "output\n"
    assert facts(where / "renamed") == facts(site.source)


def test_sources_that_clash_are_refused(site: Site) -> None:
    other = site.root / "elsewhere/source"
    other.mkdir(parents=True)
    with pytest.raises(UsageError, match="source"):
        site.backup(site.source, other)
    with pytest.raises(UsageError):
        site.backup(("a/b", site.source))


def test_a_missing_or_empty_source_is_no_deletion(site: Site) -> None:
    fill(site)
    first = site.backup()
    shutil.rmtree(site.source)
    with pytest.raises(SourceError):
        site.backup()
    site.source.mkdir()
    with pytest.raises(SourceError, match="mounted"):
        site.backup()
    with site.reader() as vault:
        assert [s.id for s in vault.snapshots()] == [first.snapshot_id]
    done = site.backup(allow_empty=True)
    assert done.deleted > 0
    site.check(done.snapshot_id)
    site.backup()  # empty as before


def test_a_missing_source_may_be_meant(site: Site) -> None:
    fill(site)
    site.backup()
    shutil.rmtree(site.source)
    done = site.backup(allow_empty=True)
    assert done.deletions == [b"source"]
    assert done.entries == 0


def test_the_vault_inside_of_its_source_is_left_out(site: Site) -> None:
    fill(site)
    for _ in range(2):
        done = site.backup(("root", site.root))
    assert done.unchanged
    with site.reader() as vault:
        assert not [e.path for e in vault.snapshot(done.snapshot_id) if "editions" in e.path]


def test_excludes(site: Site) -> None:
    fill(site)
    done = site.backup(exclude=["*.bin", "/hollow/"])
    with site.reader() as vault:
        paths = {entry.path for entry in vault.snapshot(done.snapshot_id)}
    assert "source/a.txt" in paths
    assert not {p for p in paths if p.endswith(".bin") or "hollow" in p}


# --- commands -------------------------------------------------------------------------------------


def test_a_command_that_fails_leaves_nothing(site: Site) -> None:
    script = "import sys; sys.stdout.write('x' * 3_000_000); sys.stdout.flush(); sys.exit(3)"
    with pytest.raises(SourceError, match="exited with 3"):
        site.backup(Command("dump", [sys.executable, "-c", script]))
    with pytest.raises(SourceError, match="cannot start"):
        site.backup(Command("dump", ["/does/not/exist"]))
    assert not site.objects("meta")


def test_a_big_output_is_cut_by_content(site: Site) -> None:
    data = noise(8_000_000)
    write(site.root / "dump", data)
    cat = Command("dump", ["cat", str(site.root / "dump")])
    first = site.backup(cat, name="dumps")
    write(site.root / "dump", b"-- header\n" + data)
    second = site.backup(cat, name="dumps")
    assert second.changed == 1
    assert second.stored_bytes < first.stored_bytes * 0.2
    assert (site.restored(second.snapshot_id) / "dump").read_bytes() == b"-- header\n" + data


# --- sets, hosts, packing -------------------------------------------------------------------------


def test_sets_have_their_own_parents(site: Site) -> None:
    fill(site)
    one = site.backup(name="one")
    two = site.backup(name="two")
    assert not two.unchanged
    assert two.same == 0
    assert two.stored_bytes < 40_000  # the contents are there
    again = site.backup(name="one")
    assert again.unchanged
    with site.reader() as vault:
        assert vault.snapshot("latest:one").parent == bytes.fromhex(one.snapshot_id)
        with pytest.raises(UsageError):
            vault.snapshot("latest")
        assert vault.snapshot("latest:two@laptop").id == two.snapshot_id


def test_the_default_set_is_named_by_the_sources(site: Site) -> None:
    fill(site)
    assert site.backup(name=None).set_name == str(site.source)


def test_hosts_do_not_share_contents(site: Site) -> None:
    fill(site)
    with site.reader() as vault:
        other = vault.enrol("server")
    one = site.backup()
    two = site.backup(host=other)
    assert two.stored_bytes > one.stored_bytes * 0.9
    site.check(two.snapshot_id)
    own = {path.parent.name for path in site.objects("data") + site.objects("arena")}
    assert own == {site.host.host_id.hex(), other.host_id.hex()}


def test_a_retired_host_stops(site: Site) -> None:
    fill(site)
    site.backup()
    with site.reader() as vault:
        vault.retire(site.host.host_id.hex())
    with pytest.raises(SignatureError, match="retired"):
        site.backup()
    with site.reader() as vault:
        assert len(vault.snapshots()) == 1


def test_archives_are_complete_at_their_size(site: Site) -> None:
    for number in range(12):
        write(site.source / f"{number:02}", noise(3_000_000, number))
    write(site.source / "whole", noise(20_000_000, 99))
    done = site.backup(data_size=8_000_000)
    sizes = sorted(length for name, length in done.archives if not name.startswith("meta/"))
    assert len(sizes) >= 3  # what is still in the pipeline goes in too
    assert all(name.startswith(("data/", "meta/")) for name, _ in done.archives)
    assert sum(size >= 8_000_000 for size in sizes) >= len(sizes) - 1
    assert any(size > 19_000_000 for size in sizes)  # a big file has one of its own
    site.check(done.snapshot_id)


def test_archives_of_one_content_end_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all servers take as many parts as the biggest file would need."""
    monkeypatch.setattr(content, "_MOST_OF_OWN", 8_000_000)
    write(site.source / "a", noise(100_000, 1))
    write(site.source / "big", noise(90_000_000, 99))
    write(site.source / "z", noise(100_000, 2))
    done = site.backup(data_size=1_000_000)
    sizes = sorted(length for name, length in done.archives if name.startswith("data/"))
    assert len(sizes) >= 3
    assert sum(size >= 8_000_000 for size in sizes) >= len(sizes) - 2
    assert sizes[-1] < 80_000_000  # what is still in the pipeline goes in too
    site.check(done.snapshot_id)


def test_a_big_file_that_comes_just_when_an_archive_is_complete(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = Pipeline.submit

    def at_once(pipeline: Pipeline, draft: Draft) -> int:
        sequence = submit(pipeline, draft)
        pipeline.drain()
        return sequence

    monkeypatch.setattr(Pipeline, "submit", at_once)
    for number in range(2):
        write(site.source / f"{number}", noise(4_050_000, number))
    write(site.source / "whole", noise(20_000_000, 99))
    done = site.backup(data_size=8_000_000)
    sizes = sorted(length for name, length in done.archives if not name.startswith("meta/"))
    assert len(sizes) == 2
    assert sizes[1] > 20_000_000
    site.check(done.snapshot_id)


def test_small_backups_wait_in_the_arena(site: Site) -> None:
    fill(site)
    site.backup()
    assert site.objects("arena")
    assert not site.objects("data")


def test_a_directory_of_many_files_with_one_changed(site: Site) -> None:
    for number in range(20_000):
        write(site.source / f"many/file {number}", f"{number % 50}")
    first = site.backup()
    write(site.source / "many/file 777", "changed")
    second = site.backup()
    assert (second.changed, second.same) == (1, 19_999)
    assert second.stored_bytes < first.stored_bytes * 0.7
    site.check(second.snapshot_id)


# --- the cache ------------------------------------------------------------------------------------


def test_without_its_memory_a_host_begins_anew_and_says_so(site: Site) -> None:
    fill(site)
    first = site.backup()
    shutil.rmtree(site.cache)
    second = site.backup()
    assert any("memory" in note for note in second.notes)
    assert second.sequence == first.sequence + 1
    with site.reader() as vault:
        snapshot = vault.snapshot(second.snapshot_id)
        assert snapshot.parent is None
    site.check(second.snapshot_id)
    assert site.backup().unchanged


def test_a_damaged_cache_is_set_aside(site: Site) -> None:
    fill(site)
    site.backup()
    (database,) = site.cache.rglob("*.sqlite")
    data = bytearray(database.read_bytes())
    data[4_096:40_960] = bytes(36_864)
    database.write_bytes(data)
    for left in site.cache.rglob("*.sqlite-*"):
        left.unlink()
    done = site.backup()
    assert any("damaged" in note for note in done.notes)
    assert list(site.cache.rglob("*.damaged-*"))
    site.check(done.snapshot_id)


def test_the_cache_of_last_week(site: Site) -> None:
    """A virtual machine that was set back: the catalog knows less than the vault has."""
    fill(site)
    site.backup()
    shutil.copytree(site.cache, site.root / "week")
    write(site.source / "later", noise(100_000, 5))
    later = site.backup()
    shutil.rmtree(site.cache)
    (site.root / "week").rename(site.cache)
    write(site.source / "last", "last")
    done = site.backup()
    assert done.sequence == later.sequence + 1
    site.check(done.snapshot_id)
    with site.reader() as vault:
        assert len(vault.snapshots()) == 3


def test_an_archive_that_vanished_is_stored_again(site: Site) -> None:
    fill(site)
    site.backup()
    for path in site.objects("arena"):
        path.unlink()
    done = site.backup()
    assert any("not in the vault any more" in note for note in done.notes)
    site.check(done.snapshot_id)


def test_an_archive_that_vanishes_before_the_commit_is_stored_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rozenfmt.vault import backup

    fill(site)
    site.backup()
    write(site.source / "more", "more")
    confirm = backup._Run._confirm
    calls: list[int] = []

    def lose(self: backup._Run, *arguments: object) -> object:
        if not calls:
            for path in site.objects("arena")[:1]:
                path.unlink()
        calls.append(1)
        return confirm(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(backup._Run, "_confirm", lose)
    done = site.backup()
    assert len(calls) == 2
    site.check(done.snapshot_id)


def test_storage_that_loses_everything_stops_the_backup(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from rozenfmt.vault import backup

    fill(site)
    confirm = backup._Run._confirm

    def lose(self: backup._Run, *arguments: object) -> object:
        for path in site.objects("arena"):
            path.unlink()
        return confirm(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(backup._Run, "_confirm", lose)
    with pytest.raises(StorageError, match="vanish"):
        site.backup()
    assert not site.objects("meta")


def test_a_tombstone_counts_as_missing(site: Site) -> None:
    fill(site)
    site.backup()
    for path in site.objects("arena"):
        write(Path(site.url) / "gone" / path.parent.name / path.stem, b"whatever it says")
    done = site.backup()
    assert len(done.archives) > 1
    for path in site.objects("gone"):
        (Path(site.url) / "arena" / path.parent.name / f"{path.name}.rzn").unlink()
    site.check(done.snapshot_id)


def test_metadata_archives_that_pile_up_are_gathered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from rozenfmt.vault import backup

    monkeypatch.setattr(backup, "_LEAN_ON", 4)
    for number in range(10):
        write(site.source / f"{number}/file", f"{number}")
        done = site.backup()
    with site.reader() as vault:
        snapshot = vault.snapshot(done.snapshot_id)
        assert sum(reference.kind == 2 for reference in snapshot.references) <= 6
    site.check(done.snapshot_id)


# --- rights ---------------------------------------------------------------------------------------


def test_a_host_reads_nothing(site: Site) -> None:
    fill(site)
    done = site.backup()
    with site.writer() as vault:
        for attempt in (
            vault.snapshots,
            lambda: vault.snapshot("latest"),
            lambda: vault.restore(done.snapshot_id, site.root / "out"),
            vault.verify,
            lambda: vault.diff("latest", "latest"),
        ):
            with pytest.raises(NoMatchingKey, match="host key cannot read"):
                attempt()
        with pytest.raises(UsageError, match="owner"):
            vault.enrol("another")
    assert not (site.root / "out").exists()


def test_a_person_cannot_back_up_without_a_host_key(site: Site) -> None:
    with site.reader() as vault, pytest.raises(UsageError, match="host key"):
        vault.backup([site.source])


def test_a_browser_sees_names_and_no_contents(site: Site) -> None:
    fill(site)
    done = site.backup()
    friend = rz.Identity.generate()
    with site.reader() as vault:
        vault.grant(friend.recipient, "browse")
    with Vault.open(site.url, identities=[friend], owner=site.me.recipient) as vault:
        snapshot = vault.snapshot(done.snapshot_id)
        assert "source/dir/below/three.txt" in {entry.path for entry in snapshot}
        for attempt in (
            lambda: snapshot.read("source/a.txt"),
            lambda: snapshot.open("source/big.bin"),
            lambda: vault.restore(snapshot, site.root / "out"),
        ):
            with pytest.raises(NoMatchingKey):
                attempt()
    with pytest.raises(UsageError, match="owner"):
        Vault.open(site.url, identities=[friend])
    with pytest.raises(NoMatchingKey):
        Vault.open(site.url, identities=[rz.Identity.generate()], owner=site.me.recipient)


def test_who_was_removed_reads_no_more(site: Site) -> None:
    fill(site)
    friend = rz.Identity.generate()
    with site.reader() as vault:
        vault.grant(friend.recipient)
    before = site.backup()
    with site.reader() as vault:
        vault.revoke(friend.recipient)
    write(site.source / "secret", "secret")
    site.backup()
    with pytest.raises(NoMatchingKey):
        Vault.open(site.url, identities=[friend], owner=site.me.recipient)
    with site.reader() as vault:
        assert len(vault.snapshots()) == 2
        assert vault.snapshot(before.snapshot_id).read("source/a.txt") == b"hello\n"


def test_storage_that_brings_back_old_editions_is_refused(site: Site) -> None:
    fill(site)
    with site.reader() as vault:
        vault.grant(rz.Identity.generate().recipient)
    site.backup()
    newest = site.objects("editions")[-1]
    newest.unlink()
    with pytest.raises(SignatureError):
        site.backup()


# --- what happens while it runs -------------------------------------------------------------------


def test_files_written_just_now_are_looked_at_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second write within the clock's tick leaves size and times as they were."""
    from rozenfmt.vault import capture

    monkeypatch.setattr(capture, "_RACY_NS", 2_000_000_000)
    path = write(site.source / "file", "one")
    site.backup()
    stat = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = site.backup()
    assert done.changed == 1
    site.check(done.snapshot_id)


def test_reread_all_finds_what_times_do_not_show(site: Site) -> None:
    from rozenfmt.vault import catalog

    path = write(site.source / "file", "one")
    settle(path)
    site.backup()
    real = catalog.signature(path.stat())
    path.write_bytes(b"two")
    os.utime(path, ns=(SETTLED, SETTLED))
    with pytest.MonkeyPatch.context() as patch:  # as if the disk had changed it behind the kernel's back
        patch.setattr("rozenfmt.vault.capture.signature", lambda stat: real)
        assert site.backup().unchanged
        done = site.backup(reread="all")
    assert done.changed == 1


def test_problems_are_in_result_and_snapshot() -> None:
    with unprivileged(), tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        site = Site(Path(folder))
        fill(site)
        (site.source / "a.txt").chmod(0)
        (site.source / "hollow").chmod(0)
        done = site.backup(name="some")
        assert not done.complete
        assert {p.path for p in done.problems} == {b"source/a.txt", b"source/hollow"}
        with site.reader() as vault:
            snapshot = vault.snapshot("latest:some")
            assert snapshot.incomplete
            assert {p[0] for p in snapshot.problems} == {b"source/a.txt", b"source/hollow"}
            assert snapshot.entry("source/a.txt").unreadable
            assert snapshot.entry("source/dir/one.bin").size == 5_000


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may read everything: be somebody else."""
    if os.geteuid():
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize("loss", ["all gone", "all empty", "newest flipped"])
def test_lost_editions_are_read_from_metadata_archives(site: Site, loss: str) -> None:
    fill(site)
    friend = rz.Identity.generate()
    with site.reader() as vault:
        vault.grant(friend.recipient)
    done = site.backup()
    for path in site.objects("editions") if loss != "newest flipped" else site.objects("editions")[-1:]:
        if loss == "all gone":
            path.unlink()
        elif loss == "all empty":
            path.write_bytes(b"")
        else:
            path.write_bytes(path.read_bytes()[:-1] + b"?")
    with Vault.open(site.url, identities=[friend], owner=site.me.recipient) as vault:
        assert any("copy" in problem for problem in vault.problems)
        assert vault.snapshot(done.snapshot_id).read("source/a.txt") == b"hello\n"
        with pytest.raises(UsageError):
            vault.repair_editions()
    with site.reader() as vault:
        assert vault.repair_editions() == 1
        assert vault.repair_editions() == 0
    site.check(site.backup().snapshot_id)


def test_directories_that_change_places(site: Site) -> None:
    for name in ("one", "two"):
        (site.source / name / "deep").mkdir(parents=True)
        (site.source / name / "deep/link").symlink_to("nowhere")
        write(site.source / name / "file", name)
    site.backup()
    (site.source / "one").rename(site.source / "x")
    (site.source / "two").rename(site.source / "one")
    (site.source / "x").rename(site.source / "two")
    done = site.backup()
    site.check(done.snapshot_id)
    again = site.backup()
    assert again.unchanged
    assert again.same == 4
    assert again.read_bytes == 0


def test_live_bytes_are_what_the_snapshot_refers_to(site: Site) -> None:
    write(site.source / "a", noise(10_000))
    write(site.source / "b", noise(3_000_000, 1))
    for _ in range(2):
        done = site.backup()
        with site.reader() as vault:
            snapshot = vault.snapshot(done.snapshot_id)
            assert [r.live for r in snapshot.references if r.kind == 1] == [3_010_000]
        assert done.leans_on[1] == 1


def test_hard_links_across_sources(site: Site) -> None:
    other = site.root / "other"
    write(site.source / "a", "linked")
    other.mkdir()
    os.link(site.source / "a", other / "b")
    for _ in range(2):
        where = site.restored(site.backup(site.source, other).snapshot_id)
        assert (where / "source/a").stat().st_ino == (where / "other/b").stat().st_ino


def test_a_newest_edition_that_is_hidden_is_read_from_metadata_archives(site: Site) -> None:
    fill(site)
    friend = rz.Identity.generate()
    with site.reader() as vault:
        other = vault.enrol("server")
    with site.reader() as vault:
        vault.grant(friend.recipient)
    done = site.backup(host=other)
    for path in site.objects("editions")[-2:]:
        path.unlink()
    with site.reader() as vault:
        assert [one.host for one in vault.snapshots()] == ["server"]
    with Vault.open(site.url, identities=[friend], owner=site.me.recipient) as vault:
        assert vault.snapshot(done.snapshot_id).read("source/a.txt") == b"hello\n"


def test_patterns_from_a_file(site: Site) -> None:
    fill(site)
    patterns = write(site.root / "patterns", "*.bin\n!one.bin\n")
    done = site.backup(exclude_from=[patterns])
    with site.reader() as vault:
        paths = {entry.path for entry in vault.snapshot(done.snapshot_id)}
    assert "source/dir/one.bin" in paths
    assert "source/big.bin" not in paths


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "forever"},
        {"cipher": "rot13"},
        {"tags": [""]},
        {"tags": ["\udcff"]},
        {"name": ""},
        {"exclude": "*.bin"},
        {"compression": "zip"},
    ],
    ids=repr,
)
def test_wrong_arguments_are_refused_before_anything_is_done(site: Site, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        site.backup(**wrong)
    with pytest.raises(UsageError, match="nothing to back up"), site.writer() as vault:
        vault.backup([])
    assert not site.objects("meta")


def test_the_same_id_for_another_content_is_never_trusted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from rozenfmt.vault.content import ContentStore

    write(site.source / "one", noise(1_000))
    site.backup()
    write(site.source / "two", noise(2_000, 1))
    (database,) = site.cache.rglob("*.sqlite")
    with sqlite3.connect(database) as catalog:
        (one,) = catalog.execute("SELECT id FROM pieces").fetchone()
    real = ContentStore.id_of
    monkeypatch.setattr(ContentStore, "id_of", lambda self, data: one if len(data) == 2_000 else real(self, data))
    done = site.backup()
    assert any("stored apart" in note for note in done.notes)
    assert done.stored_bytes > 15_000
    assert len(done.archives) == 2  # it was stored, not taken for the other one


def test_tables_of_big_files_do_not_have_directories_written_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from rozenfmt.vault import backup

    monkeypatch.setattr(backup, "_LEAN_ON", 3)
    for number in range(6):  # each table stands in an archive of its own
        write(site.source / f"{number}/big", noise(2_000_000, number))
        site.backup()
    for _ in range(3):
        done = site.backup()
        assert done.unchanged
        assert done.leans_on[0] >= 5
        assert done.stored_bytes < 20_000
