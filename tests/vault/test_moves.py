"""Moves, links and earlier versions in the corners: what was told wrongly once, and stays right."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from rozenfmt.errors import ConflictError
from rozenfmt.vault import capture
from rozenfmt.vault.catalog import Catalog, Leaf
from rozenfmt.vault.results import BackupResult, Move
from rozenfmt.vault.vault import Vault

from .site import Site, facts, write
from .test_backup import unprivileged

pytestmark = pytest.mark.usefixtures("untimed")


def counts(done: BackupResult) -> tuple[int, int, int, int]:
    return done.new, done.changed, done.metadata, done.same


def test_a_directory_made_anew_for_the_same_files(site: Site) -> None:
    """Each file is known to be moved by itself, and the directory by what is in it: it is one move."""
    for number in range(3):
        write(site.source / f"old/{number}", f"number {number}")
    site.backup()
    (site.source / "new").mkdir()
    for number in range(3):
        (site.source / f"old/{number}").rename(site.source / f"new/{number}")
    (site.source / "old").rmdir()
    done = site.backup()
    assert counts(done) == (0, 0, 0, 3)
    assert done.moves == [Move(b"source/old", b"source/new", directory=True)]
    site.check(done.snapshot_id)


def test_a_directory_that_was_copied_and_removed(site: Site) -> None:
    for number in range(3):
        write(site.source / f"old/below/{number}", f"number {number}")
    site.backup()
    shutil.copytree(site.source / "old", site.source / "new")
    shutil.rmtree(site.source / "old")
    done = site.backup()
    assert counts(done) == (0, 0, 0, 3)
    assert done.moves == [Move(b"source/old", b"source/new", directory=True)]


def test_equal_directories_in_one_another(site: Site) -> None:
    write(site.source / "one/a", "a")
    os.utime(site.source / "one/a", ns=(1, 1))
    shutil.copytree(site.source / "one", site.source / "two/one")
    site.backup()
    shutil.copytree(site.source / "two", site.source / "three")
    shutil.rmtree(site.source / "one")
    shutil.rmtree(site.source / "two")
    done = site.backup()
    assert counts(done) == (0, 0, 0, 1)
    assert done.moves == [Move(b"source/two", b"source/three", directory=True)]
    assert done.deletions == [b"source/one"]


def test_a_directory_that_was_replaced_by_another_one_of_its_name(site: Site) -> None:
    for folder in range(3):
        write(site.source / f"dir/{folder}/file", f"number {folder}")
    site.backup(mode="worm")
    (site.source / "dir").rename(site.source / "was")
    (site.source / "dir").mkdir()
    for folder in range(3):
        (site.source / f"was/{folder}").rename(site.source / f"dir/{folder}")
    done = site.backup(mode="worm")
    assert counts(done) == (0, 0, 0, 3)
    assert not done.deletions
    site.check(done.snapshot_id)
    assert counts(site.backup(mode="worm")) == (0, 0, 0, 3)
    write(site.source / "dir/1/file", "other")
    with pytest.raises(ConflictError):
        site.backup(mode="worm")


def test_a_directory_that_has_the_inode_of_a_deleted_one(site: Site) -> None:
    write(site.source / "2019/picture", "one")
    site.backup(mode="worm")
    shutil.rmtree(site.source / "2019")
    (site.source / "2022").mkdir()  # most file systems give it the same inode
    write(site.source / "2022/picture", "other")
    done = site.backup(mode="worm")
    assert (done.new, done.deletions, done.moves, done.conflicts) == (1, [b"source/2019"], [], [])
    site.check(done.snapshot_id)


def test_a_moved_file_and_a_copy_of_it(site: Site) -> None:
    write(site.source / "dir/file", "content")
    site.backup()
    (site.source / "dir/file").rename(site.source / "file")
    (site.source / "dir").rmdir()
    shutil.copyfile(site.source / "file", site.source / "second")
    done = site.backup()
    assert done.moves == [Move(b"source/dir/file", b"source/file")]
    assert (done.new, done.deletions) == (1, [b"source/dir"])


def test_a_file_that_makes_way_is_no_move(site: Site) -> None:
    """Its path is not gone: there is a new file."""
    write(site.source / "log", "first")
    site.backup()
    (site.source / "log").rename(site.source / "log.1")
    write(site.source / "log", "second")
    done = site.backup()
    assert (done.new, done.changed, done.moves, done.deletions) == (1, 1, [], [])
    site.check(done.snapshot_id)


def test_a_moved_name_of_a_file_with_several(site: Site) -> None:
    write(site.source / "below/a", "content")
    os.link(site.source / "below/a", site.source / "z")
    site.backup()
    (site.source / "z").rename(site.source / "zz")
    done = site.backup()
    assert done.moves == [Move(b"source/z", b"source/zz")]
    assert sum(counts(done)) == 1
    site.check(done.snapshot_id)


def test_rereading_does_not_take_a_move_for_granted(site: Site) -> None:
    path = write(site.source / "file", "one")
    os.utime(path, ns=(1, 1))
    site.backup()
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    path.rename(site.source / "moved")
    done = site.backup(reread="all")
    assert (done.new, done.moves, done.deletions) == (1, [], [b"source/file"])
    site.check(done.snapshot_id)


@pytest.mark.parametrize("racy", [False, True])
def test_names_of_one_file_keep_their_group(site: Site, monkeypatch: pytest.MonkeyPatch, racy: bool) -> None:
    if racy:
        monkeypatch.setattr(capture, "_RACY_NS", 1 << 62)
    write(site.source / "a", "content")
    os.link(site.source / "a", site.source / "b")
    os.symlink("target", site.source / "link")
    os.link(site.source / "link", site.source / "second", follow_symlinks=False)
    os.mkfifo(site.source / "pipe")
    os.link(site.source / "pipe", site.source / "third")
    site.backup()
    assert site.backup().unchanged
    write(site.source / "c", "new")
    assert counts(site.backup()) == (1, 0, 0, 6)


def test_groups_of_files_that_parted(site: Site) -> None:
    """Only one of them can have the group that they had."""
    write(site.source / "a", "content")
    for name in "bcd":
        os.link(site.source / "a", site.source / name)
    site.backup()
    shutil.copy2(site.source / "a", site.source / "new")
    (site.source / "new").rename(site.source / "a")
    (site.source / "b").unlink()
    os.link(site.source / "a", site.source / "b")
    done = site.backup()
    where = site.restored(done.snapshot_id) / "source"
    inodes = [(where / name).stat().st_ino for name in "abcd"]
    assert inodes[0] == inodes[1] != inodes[2] == inodes[3]


# --- write-once sets ------------------------------------------------------------------------------


def test_another_file_under_a_stored_name_is_a_question(site: Site) -> None:
    """By a hard link, it is never read; its content is another one all the same."""
    write(site.source / "a", "first")
    write(site.source / "b", "second")
    site.backup(mode="worm")
    (site.source / "b").unlink()
    os.link(site.source / "a", site.source / "b")
    with pytest.raises(ConflictError) as caught:
        site.backup(mode="worm")
    assert [conflict.path for conflict in caught.value.result.conflicts] == [b"source/b"]
    where = site.restored(caught.value.result.snapshot_id) / "source"
    assert (where / "b").read_text() == "second"
    done = site.backup(mode="worm", on_conflict="accept")
    site.check(done.snapshot_id)


def test_each_name_of_a_changed_file_is_a_question(site: Site) -> None:
    write(site.source / "a", "content")
    os.link(site.source / "a", site.source / "b")
    site.backup(mode="worm")
    write(site.source / "a", "changed")
    os.link(site.source / "a", site.source / "new name")
    answers = {b"source/a": "skip", b"source/b": "accept"}
    done = site.backup(mode="worm", on_conflict=lambda conflict: answers[conflict.path])
    assert [(conflict.path, conflict.answer) for conflict in done.conflicts] == list(answers.items())
    where = site.restored(done.snapshot_id) / "source"
    found = {name: (where / name).read_text() for name in ("a", "b", "new name")}
    assert found == {"a": "content", "b": "changed", "new name": "changed"}


def test_a_version_that_is_kept_already(site: Site) -> None:
    for text in ("first", "second", "first", "second"):
        write(site.source / "file", text)
        done = site.backup(mode="worm", on_conflict="keep-both")
        assert done.complete
    with site.reader() as vault:
        snapshot = vault.snapshot(done.snapshot_id)
        kept = sorted(snapshot.read(entry.path) for entry in snapshot if ".~" in entry.path)
    assert kept == [b"first", b"second"]


def test_what_was_put_back_did_not_change_while_it_was_read(site: Site) -> None:
    """Renaming it aside is our own doing; big files are open meanwhile."""
    path = write(site.source / "file", bytes(20_000_000))
    site.backup(mode="worm")
    write(path, b"\1" * 20_000_000)
    with Vault.open(site.url, host=site.host, identities=[site.me], cache_dir=site.cache) as vault:
        done = vault.backup([site.source], name="all", mode="worm", on_conflict="restore")
    assert (done.problems, done.complete) == ([], True)
    assert path.read_bytes() == bytes(20_000_000)


def test_an_unreadable_directory_keeps_what_it_had() -> None:
    with unprivileged(), tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        site = Site(Path(folder))
        write(site.source / "dir/one", "one")
        write(site.source / "dir/below/two", "two")
        write(site.source / "file", "file")
        before = site.backup(mode="worm")
        (site.source / "dir").chmod(0)
        done = site.backup(mode="worm")
        assert {problem.path for problem in done.problems} == {b"source/dir"}
        assert (done.entries, done.same, done.directories, done.deletions) == (before.entries, 3, 3, [])
        with site.reader() as vault:
            snapshot = vault.snapshot(done.snapshot_id)
            assert snapshot.read("source/dir/below/two") == b"two"
            assert {entry.path for entry in snapshot} == {entry.path for entry in vault.snapshot(before.snapshot_id)}
        for path in site.objects("arena"):
            path.unlink()
        done = site.backup(mode="worm")  # it cannot be stored again, which is no reason to store nothing
        assert b"source/dir/one" in {problem.path for problem in done.problems}
        (site.source / "dir").chmod(0o755)
        site.check(site.backup(mode="worm", on_conflict="accept").snapshot_id)
        assert facts(site.source)["dir/below/two"][4] == b"two"


# --- the cache ------------------------------------------------------------------------------------


def test_a_directory_that_is_being_read_keeps_nobody_from_writing(tmp_path: Path) -> None:
    keys = {"vault_id": bytes(16), "host_id": bytes(16)}
    with Catalog(str(tmp_path / "c"), **keys) as one, Catalog(str(tmp_path / "c"), **keys) as two:
        for number in range(40):
            one.add_leaves([(b"dir/%03d" % (number // 20), Leaf(b"%03d" % number, b"", b"node"))])
        state = one.set_state("set")
        one.complete_snapshot(state, number=one.archive_number(b"1" * 16, 2), length=1, mode=1, known={})
        for many in (one.leaves(state.number, b"dir/001"), one.subtree(state.number, b"dir")):
            next(many)
            two.remember("a", b"b")
            one.archive_number(os.urandom(16), 1)
            assert len(list(many)) in (19, 39)
        assert [(path, leaf.first) for path, leaf in one.subtree(state.number, b"")] == [
            (b"dir/%03d" % (number // 20), b"%03d" % number) for number in range(40)
        ]


def test_equal_big_files_have_one_table(site: Site) -> None:
    """Both are known by it: neither is read again."""
    for name in ("a", "b", "c/a", "d/a"):
        write(site.source / name, bytes(3_000_000))
    site.backup()
    again = site.backup()
    assert (again.read_bytes, again.unchanged) == (0, True)
    site.check(again.snapshot_id)
