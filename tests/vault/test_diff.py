"""What changed between two snapshots: every kind of change, moves, hosts, and how little is read for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import rozenfmt as rz
from rozenfmt.errors import MissingArchive
from rozenfmt.vault.diff import SnapshotDiff, diff
from rozenfmt.vault.results import Move
from rozenfmt.vault.vault import Vault

from .site import Site, settle, write


def compared(site: Site, older: str, newer: str) -> SnapshotDiff:
    with site.reader() as vault:
        return vault.diff(older, newer)


def told(found: SnapshotDiff) -> list[tuple[str, str, tuple[str, ...]]]:
    """Every change, times of directories apart."""
    return [
        (os.fsdecode(one.path), one.what, one.details)
        for one in found
        if not (one.kind is rz.Kind.DIRECTORY and one.details == ("mtime",))
    ]


def build(root: Path) -> None:
    write(root / "a", "a")
    write(root / "dir/b", "b" * 100)
    write(root / "dir/sub/c", "c" * 100)
    write(root / "dir.d/d", "d" * 100)
    write(root / "z", "z" * 100)
    (root / "empty").mkdir()
    (root / "link").symlink_to("a")
    os.mkfifo(root / "fifo")
    (root / "links").mkdir()
    os.link(root / "a", root / "links/again")
    os.setxattr(root / "a", "user.x", b"1")
    (root / os.fsdecode(b"od\xffd\nname")).write_bytes(b"odd")
    settle(*(path for path in root.rglob("*") if not path.is_symlink()))


def do(*steps: Callable[[], object]) -> None:
    for step in steps:
        step()


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


Expected = list[tuple[str, str, tuple[str, ...]]]
CHANGES: dict[str, tuple[Callable[[Path], object], Expected]] = {
    "nothing": (lambda r: None, []),
    "content": (lambda r: write(r / "z", "y" * 100), [("z", "changed", ("content", "mtime"))]),
    "size": (lambda r: write(r / "z", "y"), [("z", "changed", ("size", "mtime"))]),
    "emptied": (lambda r: write(r / "z"), [("z", "changed", ("size", "mtime"))]),
    "mode": (lambda r: (r / "z").chmod(0o4711), [("z", "metadata", ("mode",))]),
    "mode of a directory": (lambda r: (r / "dir").chmod(0o700), [("dir", "metadata", ("mode",))]),
    "mtime": (lambda r: os.utime(r / "z", ns=(0, 5)), [("z", "metadata", ("mtime",))]),
    "target": (
        lambda r: replaced(r / "link", lambda path: path.symlink_to("b")),
        [("link", "changed", ("target", "mtime"))],
    ),
    "xattrs": (lambda r: os.setxattr(r / "z", "user.x", b"2"), [("z", "metadata", ("xattrs",))]),
    "another value": (
        lambda r: os.setxattr(r / "a", "user.x", b"2"),
        [("a", "metadata", ("xattrs",)), ("links/again", "metadata", ("xattrs",))],
    ),
    "link made": (
        lambda r: os.link(r / "z", r / "dir/x"),
        [("dir/x", "new", ()), ("z", "metadata", ("links",))],
    ),
    "kind": (
        lambda r: replaced(r / "z", lambda path: path.symlink_to("a")),
        [("z", "changed", ("kind", "file", "symlink"))],
    ),
    "file for a directory": (
        lambda r: do((r / "dir.d/d").unlink, (r / "dir.d").rmdir, lambda: write(r / "dir.d", "x")),
        [("dir.d", "changed", ("kind", "directory", "file")), ("dir.d/d", "deleted", ())],
    ),
    "directory for a file": (
        lambda r: do((r / "z").unlink, lambda: write(r / "z/sub/new", "x")),
        [("z", "changed", ("kind", "file", "directory")), ("z/sub", "new", ()), ("z/sub/new", "new", ())],
    ),
    "new": (
        lambda r: write(r / "new/sub/file", "x"),
        [("new", "new", ()), ("new/sub", "new", ()), ("new/sub/file", "new", ())],
    ),
    "deleted": (
        lambda r: do((r / "dir.d/d").unlink, (r / "dir.d").rmdir),
        [("dir.d", "deleted", ()), ("dir.d/d", "deleted", ())],
    ),
    "renamed": (lambda r: (r / "z").rename(r / "zz"), [("zz", "moved", ())]),
    "moved": (lambda r: (r / "z").rename(r / "dir/sub/z"), [("dir/sub/z", "moved", ())]),
    "moved directory": (lambda r: (r / "dir").rename(r / "dir.d/dir"), [("dir.d/dir", "moved", ())]),
    "moved into a new directory": (
        lambda r: do((r / "new").mkdir, lambda: (r / "dir").rename(r / "new/dir")),
        [("new", "new", ()), ("new/dir", "moved", ())],
    ),
    "moved into a new directory, and more in it": (
        lambda r: do(
            (r / "new").mkdir,
            lambda: (r / "dir").rename(r / "new/dir"),
            lambda: write(r / "new/dir/fresh/deep/file", "x"),
            lambda: shutil.rmtree(r / "new/dir/sub"),
        ),
        [
            ("new", "new", ()),
            ("new/dir", "moved", ()),
            ("new/dir/fresh", "new", ()),
            ("new/dir/fresh/deep", "new", ()),
            ("new/dir/fresh/deep/file", "new", ()),
            ("dir/sub", "deleted", ()),
            ("dir/sub/c", "deleted", ()),
        ],
    ),
    "moved out of a deleted directory": (
        lambda r: do(lambda: (r / "dir.d/d").rename(r / "d"), (r / "dir.d").rmdir),
        [("d", "moved", ()), ("dir.d", "deleted", ())],
    ),
    "moved and changed inside": (
        lambda r: do(lambda: (r / "dir").rename(r / "dir.e"), lambda: settle(write(r / "dir.e/b", "other"))),
        [("dir.e", "moved", ()), ("dir.e/b", "changed", ("size",))],
    ),
    "moved with other metadata": (
        lambda r: do(lambda: (r / "z").rename(r / "zz"), lambda: (r / "zz").chmod(0o600)),
        [("zz", "metadata", ("mode",)), ("zz", "moved", ())],
    ),
}


@pytest.mark.parametrize("case", sorted(CHANGES))
@pytest.mark.parametrize("related", [True, False], ids=["parent", "stranger"])
def test_each_change(site: Site, untimed: None, case: str, related: bool) -> None:
    """Against the parent, whose moves are on record, and between snapshots that do not know each other."""
    build(site.source)
    before = site.backup()
    change, expected = CHANGES[case]
    change(site.source)
    after = site.backup(**({} if related else {"name": "other"}))
    expected = sorted((f"source/{path}", what, details) for path, what, details in expected)
    if not related and case == "moved into a new directory, and more in it":
        expected = sorted(
            [
                *(one for one in expected if one[0] != "source/new/dir"),
                ("source/dir", "deleted", ()),
                ("source/new/dir", "new", ()),
                ("source/new/dir/b", "moved", ()),
            ]
        )
    if not related and case == "moved and changed inside":
        expected = [
            ("source/dir", "deleted", ()),
            ("source/dir.e", "new", ()),
            ("source/dir.e/b", "new", ()),
            ("source/dir.e/sub", "moved", ()),
            ("source/dir/b", "deleted", ()),
        ]
    found = compared(site, before.snapshot_id, after.snapshot_id)
    assert sorted(told(found)) == expected
    assert bool(found) == bool(list(found))
    assert sum(found.counts.values()) == len(found) == len(list(found))


def test_lists_and_order(site: Site, untimed: None) -> None:
    build(site.source)
    before = site.backup()
    (site.source / "dir").rename(site.source / "dir2")
    write(site.source / "a.new", "1")
    write(site.source / "b/x", "2")
    (site.source / "fifo").unlink()
    after = site.backup()
    found = compared(site, before.snapshot_id, after.snapshot_id)
    assert found.moved == [Move(b"source/dir", b"source/dir2", directory=True)]
    assert [one.path for one in found.new] == [b"source/a.new", b"source/b", b"source/b/x"]
    assert [one.path for one in found.deleted] == [b"source/fifo"]
    assert not found.changed
    paths = [one.path.split(b"/") for one in found]
    assert paths == sorted(paths)
    back = compared(site, after.snapshot_id, before.snapshot_id)
    assert back.moved == [Move(b"source/dir2", b"source/dir", directory=True)]
    assert [one.path for one in back.deleted] == [one.path for one in found.new]
    assert "1 moved" in repr(found)


def test_moved_once_and_same_names_first(site: Site, untimed: None) -> None:
    for name in ("one/same", "two/other", "two/same"):
        write(site.source / name, "the same")
    before = site.backup()
    for name in ("three/same", "three/more", "four/same", "four/much"):
        write(site.source / name, "the same")
    for name in ("one/same", "two/other", "two/same"):
        (site.source / name).unlink()
    after = site.backup(name="stranger")
    found = compared(site, before.snapshot_id, after.snapshot_id)
    moves = {(m.old.decode()[7:], m.new.decode()[7:]) for m in found.moved}
    assert len(moves) == 3
    assert {old for old, new in moves if new.endswith("/same")} == {"one/same", "two/same"}
    assert len(found.new) == 3  # two directories and one file


def test_little_is_read(site: Site, untimed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories that did not change are not looked at."""
    from rozenfmt.vault.snapshot import Snapshot

    for number in range(60):
        write(site.source / f"d{number:02}/sub/file", str(number))
    before = site.backup()
    write(site.source / "d33/sub/file", "another")
    after = site.backup()
    read: list[object] = []
    monkeypatch.setattr(Snapshot, "_entries", _counting(Snapshot._entries, read))
    found = compared(site, before.snapshot_id, after.snapshot_id)
    assert [one.path for one in found.changed] == [b"source/d33/sub/file"]
    assert len(read) == 8  # root, source, d33 and sub, on either side


def _counting(method: Callable[..., object], read: list[object]) -> Callable[..., object]:
    def counted(*arguments: object) -> object:
        read.append(arguments)
        return method(*arguments)

    return counted


def test_a_big_directory(site: Site, untimed: None) -> None:
    """Leaves and inner nodes: one entry of many changes, one comes, one goes."""
    for number in range(9_000):
        (site.source / f"file-{number:05}").touch()
    before = site.backup()
    write(site.source / "file-04000", "x")
    (site.source / "file-07000").unlink()
    write(site.source / "file-07000a")
    after = site.backup()
    found = compared(site, before.snapshot_id, after.snapshot_id)
    assert told(found) == [
        ("source/file-04000", "changed", ("size", "mtime")),
        ("source/file-07000", "deleted", ()),
        ("source/file-07000a", "new", ()),
    ]


def test_other_hosts(site: Site, untimed: None) -> None:
    """Content ids of two hosts say nothing about each other."""
    build(site.source)
    before = site.backup()
    settle(write(site.source / "z", "y" * 100))  # of the same size and time: not to be told
    write(site.source / "dir/b", "B" * 100)
    write(site.source / "a", "longer")
    with Vault.open(site.url, identities=[site.me]) as vault:
        other = vault.enrol("desktop")
    after = site.backup(host=other)
    found = compared(site, before.snapshot_id, after.snapshot_id)
    assert told(found) == [
        ("source/a", "changed", ("size", "mtime")),
        ("source/dir/b", "changed", ("content unknown", "mtime")),
        ("source/links/again", "changed", ("size", "mtime")),
    ]
    assert found.unconfirmed == 4  # c, d, z, and the one of the odd name


def test_a_browser_may(site: Site, untimed: None) -> None:
    build(site.source)
    before = site.backup()
    write(site.source / "z", "more")
    after = site.backup()
    friend = rz.Identity.generate()
    with Vault.open(site.url, identities=[site.me]) as vault:
        vault.grant(friend.recipient, "browse")
        owner = vault.owner
    with Vault.open(site.url, identities=[friend], owner=owner) as vault, pytest.raises(rz.NoMatchingKey):
        vault.snapshot(after.snapshot_id).read("source/z")
    with Vault.open(site.url, identities=[friend], owner=owner) as vault:
        found = vault.diff(before.snapshot_id, after.snapshot_id)
    assert told(found) == [("source/z", "changed", ("size", "mtime"))]


def test_a_missing_archive_is_an_error(site: Site, untimed: None) -> None:
    build(site.source)
    first = site.backup()
    write(site.source / "new", "1")
    second = site.backup()
    write(site.source / "dir/newer", "2")
    third = site.backup()
    (gone,) = [path for path in site.objects("meta") if first.snapshot_id in path.name]
    gone.unlink()
    with site.reader() as vault, pytest.raises(MissingArchive):
        vault.diff(second.snapshot_id, third.snapshot_id)


def test_empty_directories_are_not_moved(site: Site) -> None:
    (site.source / "empty").mkdir()
    before = site.backup()
    (site.source / "void").mkdir()
    (site.source / "empty").rmdir()
    after = site.backup(name="stranger")
    assert told(compared(site, before.snapshot_id, after.snapshot_id)) == [
        ("source/empty", "deleted", ()),
        ("source/void", "new", ()),
    ]


def test_itself(site: Site) -> None:
    build(site.source)
    done = site.backup()
    with site.reader() as vault:
        snapshot = vault.snapshot(done.snapshot_id)
        found = diff(snapshot, snapshot)
    assert not found
    assert list(found) == []
    assert found.counts == dict.fromkeys(("new", "changed", "metadata", "moved", "deleted"), 0)
