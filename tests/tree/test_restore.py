"""Restoring: nothing outside the destination, nothing lost silently, nothing half-done left behind."""

from __future__ import annotations

import errno
import os
import stat as st
from collections.abc import Iterator
from typing import Any

import pytest

from rozenfmt.errors import UsageError
from rozenfmt.format.nodes import Entry, Kind, Mark
from rozenfmt.tree import directories as directories_module
from rozenfmt.tree import platform
from rozenfmt.tree import restore as restore_module
from rozenfmt.tree.content import Hole
from rozenfmt.tree.restore import Restorer

from .helpers import ACL, as_nobody, entry, facts, is_root, write

DIRECTORY = Kind.DIRECTORY
BAD_NAMES = [b"", b".", b"..", b"/etc/x", b"a/b", b"../x", b"/", b"a\0b", b"x" * 256]


class Kit:
    """A destination next to something that must not be touched."""

    def __init__(self, place: bytes) -> None:
        self.out = place + b"/out"
        self.outside = place + b"/outside"
        os.mkdir(self.outside)
        write(self.outside + b"/file", b"precious")
        self.before = facts(self.outside)
        self.problems: list[Any] = []

    def restorer(self, **options: Any) -> Restorer:
        return Restorer(self.out, report=self.problems.append, **options)

    def whats(self) -> list[tuple[str, bytes]]:
        return [(problem.what, problem.path) for problem in self.problems]

    def read(self, path: bytes) -> bytes:
        with open(self.out + b"/" + path, "rb") as file:
            return file.read()

    def check_outside(self) -> None:
        assert facts(self.outside) == self.before


@pytest.fixture
def kit(place: bytes) -> Iterator[Kit]:
    kit = Kit(place)
    yield kit
    kit.check_outside()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_none(kit: Kit, name: bytes) -> None:
    with kit.restorer() as restorer:
        assert restorer.enter(entry(name, DIRECTORY)) is None or len(name) == 256
        assert not restorer.small(entry(name), b"x")
        assert not restorer.stream(entry(name), [b"x"])
        assert not restorer.other(entry(name, Kind.SYMLINK, target=b"/etc"))
        assert not restorer.other(entry(name, Kind.FIFO))
        assert restorer.small(entry(b"good"), b"x")
        assert not restorer.link(entry(name, size=1), (b"good",))
        assert not restorer.link(entry(b"link", size=1), (name,))
        assert not restorer.link(entry(b"link", size=1), (name, b"good"))
    assert len(kit.problems) == 8
    assert {what for what, _ in kit.whats()} <= {"name", "unwritable"}
    assert os.listdir(kit.out) == [b"good"]


def test_a_link_of_the_archive_is_never_followed(kit: Kit) -> None:
    with kit.restorer(overwrite="always") as restorer:
        assert restorer.other(entry(b"dir", Kind.SYMLINK, target=kit.outside))
        assert restorer.other(entry(b"file", Kind.SYMLINK, target=kit.outside + b"/file"))
        assert restorer.enter(entry(b"dir", DIRECTORY, mode=0)) is None
        assert not restorer.small(entry(b"file", mode=0), b"x")
        assert not restorer.stream(entry(b"file", mode=0), [b"x"])
        assert not restorer.link(entry(b"new", size=8, mtime_ns=0), (b"dir", b"file"))
        assert not restorer.link(entry(b"new", size=8, mtime_ns=0), (b"file",))
    assert {what for what, _ in kit.whats()} == {"name", "unwritable", "exists"}


@pytest.mark.parametrize("overwrite", ["never", "if-changed", "always"])
def test_planted_links_are_never_followed(kit: Kit, overwrite: str) -> None:
    os.mkdir(kit.out)
    os.symlink(kit.outside, kit.out + b"/dir")
    os.symlink(kit.outside + b"/file", kit.out + b"/file")
    os.symlink(kit.outside + b"/file", kit.out + b"/other")
    os.symlink(kit.outside + b"/new", kit.out + b"/dangling")
    with kit.restorer(overwrite=overwrite) as restorer:
        assert restorer.enter(entry(b"dir", DIRECTORY)) is None
        replaced = [
            restorer.small(entry(b"file", mode=0o600), b"x"),
            restorer.small(entry(b"dangling"), b"x"),
            restorer.other(entry(b"other", Kind.FIFO, mode=0o600)),
        ]
    assert replaced == [overwrite != "never"] * 3
    assert kit.whats()[0] == ("exists", b"dir")
    assert os.path.islink(kit.out + b"/dir")
    assert os.path.islink(kit.out + b"/file") == (overwrite == "never")


def test_a_directory_swapped_for_a_link_while_restoring(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories_module, "OPEN_LIMIT", 1)
    with kit.restorer() as restorer:
        first = restorer.enter(entry(b"first", DIRECTORY))
        second = restorer.enter(entry(b"second", DIRECTORY), restorer.root)
        third = restorer.enter(entry(b"third", DIRECTORY), restorer.root)
        os.rename(kit.out + b"/first", kit.out + b"/moved")
        os.symlink(kit.outside, kit.out + b"/first")
        os.rename(kit.out + b"/second", kit.out + b"/moved2")
        os.mkdir(kit.out + b"/second")
        assert not restorer.small(entry(b"file"), b"x", first)
        assert not restorer.small(entry(b"file"), b"x", second)
        assert restorer.small(entry(b"file"), b"x", third)
    assert [what for what, _ in kit.whats()] == ["unwritable", "unwritable", "mode", "mode"]
    assert os.listdir(kit.out + b"/second") == []


def test_a_file_swapped_before_its_metadata_is_set(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(path: bytes, *_: int, dir_fd: int) -> None:
        os.link(kit.outside + b"/file", path, dst_dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", swapped)
    with kit.restorer() as restorer:
        assert not restorer.other(entry(b"fifo", Kind.FIFO, mode=0o777))
    assert kit.whats() == [("unwritable", b"fifo")]
    assert os.listdir(kit.out) == []


def test_storage_order(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories_module, "OPEN_LIMIT", 3)
    with kit.restorer() as restorer:
        handles = []
        for number in range(10):
            top = restorer.enter(entry(b"d%d" % number, DIRECTORY, mode=0o500, mtime_ns=number), restorer.root)
            inner = restorer.enter(entry(b"inner", DIRECTORY, mode=0o555, mtime_ns=-number), top)
            assert top is not None
            assert inner is not None
            handles += [top, inner]
        for turn in range(3):
            for handle in handles[turn::3] + handles[::-1]:
                restorer.small(entry(b"f%d" % turn), b"x", handle)
            restorer.problems = 0
            kit.problems.clear()
        restorer.leave(handles[0])  # waits for what is in it
        assert st.S_IMODE(os.stat(kit.out + b"/d0").st_mode) == 0o700
        restorer.leave(handles[1])
        assert st.S_IMODE(os.stat(kit.out + b"/d0").st_mode) == 0o500
    for number in range(10):
        stat = os.stat(kit.out + b"/d%d" % number)
        assert (stat.st_mtime_ns, st.S_IMODE(stat.st_mode)) == (number, 0o500)
        stat = os.stat(kit.out + b"/d%d/inner" % number)
        assert (stat.st_mtime_ns, st.S_IMODE(stat.st_mode)) == (-number, 0o555)
    assert restorer.directories == 20


def test_metadata_of_directories_is_set_last_also_without_privileges(place: bytes) -> None:
    def check() -> None:
        kit = Kit(place)
        with kit.restorer() as restorer:
            for _ in range(5):
                assert restorer.enter(entry(b"d", DIRECTORY, mode=0, mtime_ns=7))
                assert restorer.small(entry(b"f", mode=0), b"")
            restorer.leave()
        assert kit.problems == []
        at = kit.out
        for _ in range(5):
            at += b"/d"
            assert os.stat(at).st_mtime_ns == 7
            assert st.S_IMODE(os.stat(at).st_mode) == 0
            os.chmod(at, 0o700)

    as_nobody(check)


@pytest.mark.parametrize("overwrite", ["never", "if-changed", "always"])
def test_what_stands_already(kit: Kit, overwrite: str) -> None:
    os.mkdir(kit.out)
    write(kit.out + b"/other", b"theirs")
    write(kit.out + b"/same", b"same")
    os.chmod(kit.out + b"/same", 0o644)
    os.utime(kit.out + b"/same", ns=(5, 5))
    os.makedirs(kit.out + b"/dir/sub")
    os.mkdir(kit.out + b"/file")
    inode = os.stat(kit.out + b"/same").st_ino
    with kit.restorer(overwrite=overwrite) as restorer:
        restorer.small(entry(b"other"), b"ours")
        restorer.small(entry(b"same", size=4, mtime_ns=5), b"same")
        assert not restorer.small(entry(b"file"), b"a directory is never replaced")
        assert restorer.enter(entry(b"dir", DIRECTORY))
        assert not restorer.stream(entry(b"sub"), [b"x"])
        assert restorer.small(entry(b"new"), b"x")
        restorer.leave()
        assert restorer.enter(entry(b"other", DIRECTORY)) is None
    assert (kit.read(b"other") == b"ours") == (overwrite != "never")
    assert (os.stat(kit.out + b"/same").st_ino == inode) == (overwrite != "always")
    expected = [("exists", b"file"), ("exists", b"dir/sub")]
    if overwrite == "never":
        expected.insert(0, ("exists", b"other"))
        expected.append(("exists", b"other"))
    else:
        expected.append(("name", b"other"))
    assert kit.whats() == expected
    assert restorer.skipped == {"never": 4, "if-changed": 3, "always": 2}[overwrite]
    assert restorer.problems == len(kit.problems)


def test_a_twin_is_reported_and_the_first_one_stays(kit: Kit) -> None:
    with kit.restorer(overwrite="always") as restorer:
        assert restorer.small(entry(b"a", size=1), b"1")
        assert not restorer.small(entry(b"a"), b"2")
        assert not restorer.other(entry(b"a", Kind.FIFO))
        assert not restorer.link(entry(b"a", size=1), (b"a",))
        assert restorer.enter(entry(b"a", DIRECTORY)) is None
        assert restorer.enter(entry(b"d", DIRECTORY))
        restorer.leave()
        assert restorer.enter(entry(b"d", DIRECTORY)) is None
    assert kit.whats() == [("name", b"a")] * 4 + [("name", b"d")]
    assert kit.read(b"a") == b"1"


def test_names_that_differ_only_in_case(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that folds case: simulated at the one call that would notice."""
    real = platform.rename_new
    monkeypatch.setattr(restore_module, "rename_new", lambda fd, old, new: real(fd, old, new.lower()))
    with kit.restorer() as restorer:
        assert restorer.small(entry(b"readme"), b"1")
        assert not restorer.small(entry(b"README"), b"2")
    assert kit.whats() == [("name", b"README")]
    assert os.listdir(kit.out) == [b"readme"]


def test_file_systems_without_an_exclusive_rename(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "_renameat2", lambda: None)
    with kit.restorer() as restorer:
        assert restorer.small(entry(b"a"), b"1")
        assert not restorer.small(entry(b"a"), b"2")
    assert kit.whats() == [("name", b"a")]
    assert kit.read(b"a") == b"1"


def test_streams(kit: Kit) -> None:
    chunks: list[bytes | memoryview | Hole] = [b"start", Hole(1 << 20), memoryview(b"middle"), Hole(5 << 20)]
    with kit.restorer() as restorer:
        assert restorer.stream(entry(b"sparse", mtime_ns=9, mode=0o444), chunks)
        assert restorer.stream(entry(b"empty"), [])
        assert not restorer.stream(entry(b"bad"), [b"1", Hole(-5)])
    assert kit.read(b"sparse") == b"start" + bytes(1 << 20) + b"middle" + bytes(5 << 20)
    stat = os.stat(kit.out + b"/sparse")
    assert stat.st_blocks * 512 < 1 << 20
    assert (stat.st_mtime_ns, st.S_IMODE(stat.st_mode)) == (9, 0o444)
    assert restorer.bytes == stat.st_size
    assert kit.whats() == [("unwritable", b"bad")]
    assert sorted(os.listdir(kit.out)) == [b"empty", b"sparse"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.EIO, "read"), ValueError("x")])
def test_an_error_of_the_source_leaves_nothing_behind(kit: Kit, error: Any) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error), kit.restorer() as restorer:
        restorer.stream(entry(b"a"), chunks())
    assert os.listdir(kit.out) == []
    assert kit.problems == []


def test_interleaved_writers(kit: Kit) -> None:
    with kit.restorer() as restorer:
        directory = restorer.enter(entry(b"d", DIRECTORY, mode=0o500, mtime_ns=3))
        writers = [restorer.open(entry(b"f%d" % number), directory) for number in range(4)]
        for turn in range(3):
            for number, writer in enumerate(writers):
                assert writer is not None
                assert writer.write(b"%d%d" % (number, turn))
        for number, writer in enumerate(writers):
            assert writer is not None
            if number == 3:
                writer.abort()
                assert not writer.write(b"late")
                assert not writer.commit()
            else:
                assert writer.commit(entry(b"../ignored", mtime_ns=number))
    assert sorted(os.listdir(kit.out + b"/d")) == [b"f0", b"f1", b"f2"]
    assert kit.read(b"d/f1") == b"101112"
    assert os.stat(kit.out + b"/d/f2").st_mtime_ns == 2
    assert os.stat(kit.out + b"/d").st_mtime_ns == 3


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EMFILE])
def test_a_full_disk_ends_the_restore(kit: Kit, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    with kit.restorer() as restorer:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match=os.strerror(code)):
            restorer.small(entry(b"a"), b"x")
        with pytest.raises(OSError, match=os.strerror(code)):
            restorer.stream(entry(b"a"), [b"x"])
        monkeypatch.undo()
    assert os.listdir(kit.out) == []


def test_short_writes(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    with kit.restorer() as restorer:
        assert restorer.small(entry(b"a"), b"0123456789")
        assert restorer.stream(entry(b"b"), [b"0123456789", b"abcdefg"])
    assert kit.read(b"a") == b"0123456789"
    assert kit.read(b"b") == b"0123456789abcdefg"


def test_hard_links(kit: Kit) -> None:
    os.mkdir(kit.out)
    write(kit.out + b"/stale", b"old")
    with kit.restorer(overwrite="always") as restorer:
        assert restorer.enter(entry(b"d", DIRECTORY, mtime_ns=4))
        assert restorer.small(entry(b"first", size=1, mtime_ns=3), b"1")
        restorer.leave()
        facts_: dict[str, Any] = {"size": 1, "mtime_ns": 3}
        assert restorer.link(entry(b"second", **facts_), (b"d", b"first"))
        assert restorer.link(entry(b"stale", **facts_), (b"d", b"first"))
        assert not restorer.link(entry(b"third", **facts_), (b"d", b"nothing"))
        assert not restorer.link(entry(b"third", **facts_), ())
        assert not restorer.link(entry(b"third", size=2, mtime_ns=3), (b"d", b"first"))
        assert restorer.small(entry(b"third", **facts_), b"1")
    assert os.stat(kit.out + b"/d/first").st_nlink == 3
    assert os.stat(kit.out + b"/d").st_mtime_ns == 4
    assert sorted(os.listdir(kit.out)) == [b"d", b"second", b"stale", b"third"]


def test_strange_facts_are_reported(kit: Kit) -> None:
    with kit.restorer(owners=True) as restorer:
        restorer.small(entry(b"time", mtime_ns=-(2**200)), b"1")
        restorer.small(entry(b"owner", uid=2**32 - 1), b"1")
        restorer.small(entry(b"owner2", uid=2**40), b"1")
        restorer.small(entry(b"mode", mode=0o100_644), b"1")
        restorer.small(entry(b"xattr", xattrs=((b"nonsense", b""), (b"user.ok", b"1"), (b"", b""))), b"1")
        restorer.small(entry(b"nul", xattrs=((b"user.a\0b", b"1"),)), b"1")
        restorer.other(entry(b"target", Kind.SYMLINK, target=b""))
        restorer.other(entry(b"target2", Kind.SYMLINK, target=b"a\0b"))
        restorer.other(entry(b"target3", Kind.SYMLINK, target=b"x" * 5000))
        restorer.other(entry(b"unread", marks=Mark.UNREADABLE))
        with pytest.raises(UsageError):
            restorer.other(entry(b"d", DIRECTORY))
        with pytest.raises(UsageError):
            restorer.leave()
    assert [what for what, _ in kit.whats()] == [
        "times",
        "owner",
        "owner",
        "xattr",
        "xattr",
        "xattr",
        "unwritable",
        "unwritable",
        "name",
        "unreadable",
    ]
    assert os.getxattr(kit.out + b"/xattr", "user.ok") == b"1"
    with pytest.raises(UsageError):
        kit.restorer(overwrite="maybe")


def test_a_time_that_the_file_system_cuts_is_reported(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.utime
    monkeypatch.setattr(os, "utime", lambda target, ns: real(target, ns=(min(ns), 2**34 * 10**9)))
    with kit.restorer() as restorer:
        restorer.small(entry(b"a", mtime_ns=2**40 * 10**9), b"1")
        restorer.small(entry(b"b", mtime_ns=5), b"1")
    assert kit.whats() == [("times", b"a")]


def test_owners_by_name_then_by_number(kit: Kit) -> None:
    if not is_root():
        pytest.skip("needs root")
    with kit.restorer() as restorer:
        restorer.small(entry(b"name", uid=4242, gid=4242, user=b"nobody", group=b"root"), b"")
        restorer.small(entry(b"unknown", uid=4242, gid=4243, user=b"no such user", group=b"\xff"), b"")
    with kit.restorer(numeric_owners=True) as restorer:
        restorer.small(entry(b"number", uid=4242, gid=4242, user=b"nobody"), b"")
    owners = {name: os.stat(kit.out + b"/" + name) for name in os.listdir(kit.out)}
    assert (owners[b"name"].st_uid, owners[b"name"].st_gid) == (65534, 0)
    assert (owners[b"unknown"].st_uid, owners[b"unknown"].st_gid) == (4242, 4243)
    assert owners[b"number"].st_uid == 4242
    assert kit.problems == []


def test_without_privileges(place: bytes) -> None:
    def check() -> None:
        kit = Kit(place)
        with kit.restorer() as restorer:
            assert restorer.small(entry(b"theirs", uid=0, gid=0), b"")
            assert restorer.small(entry(b"suid", uid=0, gid=os.getegid(), mode=0o6755), b"")
            assert not restorer.other(entry(b"null", Kind.CHARACTER_DEVICE, device=(1, 3)))
            assert restorer.small(entry(b"label", xattrs=((b"trusted.x", b"1"),)), b"")
        with kit.restorer(owners=True, devices=True) as restorer:
            assert restorer.small(entry(b"theirs2", uid=0, gid=0), b"")
            assert not restorer.other(entry(b"null", Kind.CHARACTER_DEVICE, device=(1, 3)))
        assert kit.whats() == [
            ("mode", b"suid"),
            ("device", b"null"),
            ("xattr", b"label"),
            ("owner", b"theirs2"),
            ("device", b"null"),
        ]
        assert st.S_IMODE(os.stat(kit.out + b"/suid").st_mode) == 0o2755
        os.mkdir(kit.out + b"/locked", 0o500)
        with kit.restorer() as restorer:
            assert restorer.enter(entry(b"locked", DIRECTORY, mode=0o500))
            assert restorer.small(entry(b"f"), b"")
            restorer.leave()
        assert st.S_IMODE(os.stat(kit.out + b"/locked").st_mode) == 0o500
        os.chmod(kit.out + b"/locked", 0o700)

    as_nobody(check)


def test_a_device_without_numbers_is_not_made(kit: Kit) -> None:
    with kit.restorer(devices=True) as restorer:
        assert not restorer.other(entry(b"whiteout", Kind.CHARACTER_DEVICE))
    assert kit.whats() == [("device", b"whiteout")]


def test_an_acl_that_is_left_out_does_not_widen_the_groups_rights(kit: Kit) -> None:
    acl = ((b"system.posix_acl_access", ACL),)
    with kit.restorer(xattrs=False) as restorer:
        restorer.small(entry(b"a", mode=0o670, xattrs=acl), b"")
    assert st.S_IMODE(os.stat(kit.out + b"/a").st_mode) == 0o640
    with kit.restorer() as restorer:
        restorer.small(entry(b"b", mode=0o670, xattrs=acl), b"")
    assert st.S_IMODE(os.stat(kit.out + b"/b").st_mode) == 0o670


def test_acls_of_the_destination_are_not_inherited(kit: Kit) -> None:
    os.mkdir(kit.out)
    os.setxattr(kit.out, "system.posix_acl_default", ACL)
    with kit.restorer() as restorer:
        restorer.small(entry(b"a"), b"")
        restorer.enter(entry(b"d", DIRECTORY))
        restorer.small(entry(b"b"), b"")
        restorer.leave()
    assert kit.problems == []
    for name in (b"a", b"d", b"d/b"):
        assert os.listxattr(kit.out + b"/" + name) == []


def test_wanted(kit: Kit) -> None:
    os.mkdir(kit.out)
    write(kit.out + b"/a")
    with kit.restorer() as restorer:
        assert not restorer.wanted(entry(b"a", size=1))
        assert restorer.wanted(entry(b"b"))
        os.unlink(kit.out + b"/a")
        assert restorer.wanted(entry(b"a"))


def test_entries_are_not_changed(kit: Kit) -> None:
    one = entry(b"a", mode=0o640, xattrs=((b"user.a", b"1"),))
    same = Entry(one.name, one.kind, one.mode, one.uid, one.gid, xattrs=one.xattrs)
    with kit.restorer() as restorer:
        restorer.small(one, b"")
    assert one == same
