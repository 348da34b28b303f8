"""``compare``: every kind of change is told, and nothing else."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rozenfmt as rz
from rozenfmt.vault.vault import Vault
from tests.tree.helpers import as_nobody, is_root

from .helpers import MIB, noise, write_archive


def build(root: Path) -> None:
    (root / "dir/sub").mkdir(parents=True)
    (root / "dir.d").mkdir()
    (root / "empty").mkdir()
    for name in ("a", "dir/b", "dir/sub/c", "dir.d/d", "z"):
        (root / name).write_bytes(name.encode() * 100)
    (root / "big").write_bytes(noise(5 * MIB))
    os.link(root / "a", root / "dir/a-again")
    (root / "link").symlink_to("a")
    os.mkfifo(root / "fifo")
    os.setxattr(root / "a", "user.x", b"1")
    for path in [*sorted(root.rglob("*")), root]:
        os.utime(path, ns=(0, 1_600_000_000_000_000_000), follow_symlinks=False)


def keep_time(path: Path, change: Callable[[], object]) -> None:
    """Change something and put the times of it and of its directory back."""
    times = [(one, os.lstat(one).st_mtime_ns) for one in (path, path.parent) if os.path.lexists(one)]
    change()
    for one, time in times:
        if os.path.lexists(one):
            os.utime(one, ns=(0, time), follow_symlinks=False)


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    time = os.lstat(path).st_mtime_ns

    def change() -> None:
        path.unlink()
        make(path)
        os.utime(path, ns=(0, time), follow_symlinks=False)

    keep_time(path, change)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


Expected = list[tuple[str, str, tuple[str, ...]]]
CHANGES: dict[str, tuple[Callable[[Path], object], Expected]] = {
    "nothing": (lambda r: None, []),
    "content": (lambda r: keep_time(r / "z", lambda: flip(r / "z", 5)), [("z", "content", ("content",))]),
    "last byte": (lambda r: keep_time(r / "big", lambda: flip(r / "big", -1)), [("big", "content", ("content",))]),
    "size": (
        lambda r: keep_time(r / "z", lambda: (r / "z").write_bytes(b"")),
        [("z", "content", ("size",))],
    ),
    "mode": (lambda r: (r / "z").chmod(0o4711), [("z", "metadata", ("mode",))]),
    "mode of a directory": (lambda r: (r / "dir").chmod(0o700), [("dir", "metadata", ("mode",))]),
    "mtime": (lambda r: os.utime(r / "z", ns=(0, -1)), [("z", "metadata", ("mtime",))]),
    "mtime of a link": (
        lambda r: os.utime(r / "link", ns=(0, 1), follow_symlinks=False),
        [("link", "metadata", ("mtime",))],
    ),
    "nanosecond": (
        lambda r: os.utime(r / "dir/sub", ns=(0, 1_600_000_000_000_000_001)),
        [("dir/sub", "metadata", ("mtime",))],
    ),
    "target": (
        lambda r: replaced(r / "link", lambda path: path.symlink_to("b")),
        [("link", "metadata", ("target",))],
    ),
    "xattr value": (lambda r: os.setxattr(r / "z", "user.x", b"2"), [("z", "metadata", ("xattrs",))]),
    "xattr of a directory": (lambda r: os.setxattr(r / "dir", "user.x", b""), [("dir", "metadata", ("xattrs",))]),
    "link broken": (
        lambda r: keep_time(
            r / "dir/a-again",
            lambda: Path(shutil.copy2(r / "a", r / "dir/tmp")).replace(r / "dir/a-again"),
        ),
        [("a", "metadata", ("links",)), ("dir/a-again", "metadata", ("links",))],
    ),
    "link made": (
        lambda r: keep_time(r / "dir/x", lambda: os.link(r / "z", r / "dir/x")),
        [("dir/x", "added", ()), ("z", "metadata", ("links",))],
    ),
    "added": (
        lambda r: keep_time(r / "dir/sub/new", lambda: (r / "dir/sub/new").write_bytes(b"")),
        [("dir/sub/new", "added", ())],
    ),
    "removed": (lambda r: keep_time(r / "dir.d/d", (r / "dir.d/d").unlink), [("dir.d/d", "removed", ())]),
    "tree removed": (
        lambda r: keep_time(r / "dir.d", lambda: shutil.rmtree(r / "dir.d")),
        [("dir.d", "removed", ()), ("dir.d/d", "removed", ())],
    ),
    "kind": (
        lambda r: replaced(r / "z", lambda path: path.symlink_to("a")),
        [("z", "kind", ("file", "symlink"))],
    ),
    "file for fifo": (
        lambda r: replaced(r / "fifo", lambda path: path.touch()),
        [("fifo", "kind", ("fifo", "file"))],
    ),
}


@pytest.mark.parametrize("case", sorted(CHANGES))
def test_each_change(tmp_path: Path, me: rz.Identity, case: str) -> None:
    """Directory with directory, archive with directory, archive with archive, and the other way round."""
    one = tmp_path / "src"
    build(one)
    write_archive(tmp_path / "a", me.recipient, one)
    two = tmp_path / "other/src"
    (tmp_path / "other").mkdir()
    with rz.open(tmp_path / "a", identities=[me]) as archive:
        archive.extract(tmp_path / "other")
    change, expected = CHANGES[case]
    change(two)
    write_archive(tmp_path / "b", me.recipient, two)
    full = [(f"src/{path}", what, details) for path, what, details in expected]
    with rz.open(tmp_path / "a", identities=[me]) as a, rz.open(tmp_path / "b", identities=[me]) as b:
        assert told(rz.compare(one, two)) == expected
        for left, right in ((a, two), (one, b), (a, b)):
            assert told(rz.compare(left, right)) == full
        back = {"added": "removed", "removed": "added"}
        turned = [
            (path, back.get(what, what), details[::-1] if what == "kind" else details) for path, what, details in full
        ]
        assert told(rz.compare(b, a)) == turned
        metadata_only = rz.compare(a, b, contents=False)
        assert [change for change in told(metadata_only) if "content" in change[2]] == []


def told(difference: rz.Difference) -> Expected:
    assert difference.problem_count == 0
    assert difference.count == len(difference.changes)
    assert bool(difference) == bool(difference.changes)
    return [(os.fsdecode(change.path), change.what, change.details) for change in difference.changes]


def test_owner(tmp_path: Path) -> None:
    if not is_root():
        pytest.skip("needs root")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").touch()
        os.utime(tmp_path / name / "f", ns=(0, 0))
    os.chown(tmp_path / "b/f", 1234, 0)
    assert told(rz.compare(tmp_path / "a", tmp_path / "b"))[-1] == ("f", "metadata", ("owner",))


def test_sparse_or_not_is_the_same(tmp_path: Path, me: rz.Identity) -> None:
    one = tmp_path / "src"
    one.mkdir()
    (one / "f").write_bytes(bytes(9 * MIB) + b"x")
    write_archive(tmp_path / "a", me.recipient, one)
    time = os.stat(one / "f").st_mtime_ns
    with open(one / "f", "wb") as file:
        file.seek(9 * MIB)
        file.write(b"x")
    os.utime(one / "f", ns=(0, time))
    with rz.open(tmp_path / "a", identities=[me]) as archive:
        assert told(rz.compare(archive, one)) == []


def test_sides_that_are_not_there(tmp_path: Path, me: rz.Identity) -> None:
    build(tmp_path / "src")
    write_archive(tmp_path / "a", me.recipient, tmp_path / "src")
    (tmp_path / "elsewhere").mkdir()
    with rz.open(tmp_path / "a", identities=[me]) as archive:
        for left, right in ((archive, tmp_path / "none"), (tmp_path / "elsewhere", archive)):
            with pytest.raises(rz.UsageError):
                rz.compare(left, right)


def test_unreadable_file_does_not_end_it(open_place: Path) -> None:
    """A file that cannot be read is a problem and a difference; the rest is compared."""

    def work() -> None:
        for name in ("a", "b"):
            (open_place / name).mkdir()
            for file in ("one", "two"):
                (open_place / name / file).write_bytes(b"same")
                os.utime(open_place / name / file, ns=(0, 0))
            os.utime(open_place / name, ns=(0, 0))
        (open_place / "a/one").chmod(0)
        (open_place / "b/one").chmod(0)
        (open_place / "b/two").write_bytes(b"else")
        os.utime(open_place / "b/two", ns=(0, 0))
        difference = rz.compare(open_place / "a", open_place / "b")
        assert [(change.path, change.what) for change in difference.changes] == [
            (b"one", "content"),
            (b"two", "content"),
        ]
        assert difference.problem_count >= 1

    as_nobody(work)


def test_excludes_and_events(tmp_path: Path) -> None:
    build(tmp_path / "src")
    shutil.copytree(tmp_path / "src", tmp_path / "copy", symlinks=True, ignore=shutil.ignore_patterns("fifo"))
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            server.bind("src/socket")
        finally:
            os.chdir(here)
    events: list[rz.Event] = []
    difference = rz.compare(
        tmp_path / "src", tmp_path / "copy", exclude=["fifo", "a*", "socket"], progress=events.append
    )
    assert {change.what for change in difference.changes} <= {"metadata"}
    assert all(isinstance(event, rz.Progress) for event in events)


# --- snapshots ------------------------------------------------------------------------------------


@pytest.fixture
def vault(tmp_path: Path, me: rz.Identity) -> Iterator[Vault]:
    """A vault in which the tree of ``build`` was backed up, with the key of its host and of its owner."""
    url = str(tmp_path / "vault")
    with Vault.init(url, owner=me, cache_dir=tmp_path / "cache") as made:
        host = made.enrol("laptop")
    build(tmp_path / "src")
    with Vault.open(url, host=host, identities=[me], cache_dir=tmp_path / "cache") as opened:
        opened.backup([tmp_path / "src"], name="all")
        yield opened


@pytest.mark.parametrize("case", sorted(CHANGES))
def test_each_change_since_a_snapshot(tmp_path: Path, me: rz.Identity, vault: Vault, case: str) -> None:
    """Snapshot with directory, with archive, and with snapshot, and the other way round."""
    one = tmp_path / "src"
    change, expected = CHANGES[case]
    change(one)
    expected = [(f"src/{path}", what, details) for path, what, details in expected]
    vault.backup([one], name="all")
    write_archive(tmp_path / "a", me.recipient, one)
    before, after = vault.snapshots()
    with rz.open(tmp_path / "a", identities=[me]) as archive:
        for side in (one, archive, after):
            assert told(rz.compare(before, side)) == expected
            back = told(rz.compare(side, before))
            assert [path for path, _, _ in back] == [path for path, _, _ in expected]
            assert told(rz.compare(after, side)) == []


def test_nothing_is_read_between_snapshots(tmp_path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    CHANGES["last byte"][0](tmp_path / "src")
    vault.backup([tmp_path / "src"], name="all")
    before, after = vault.snapshots()
    monkeypatch.setattr(type(before), "_piece", None)
    difference = rz.compare(before, after)
    assert [os.fsdecode(change.path) for change in difference.changes] == ["src/big"]
    assert difference.bytes == 0


def test_snapshots_of_two_hosts(tmp_path: Path, me: rz.Identity, vault: Vault) -> None:
    """Ids by different keys say nothing: contents are read."""
    host = vault.enrol("desktop")
    CHANGES["last byte"][0](tmp_path / "src")
    with Vault.open(vault.url, host=host, identities=[me], cache_dir=tmp_path / "cache") as other:
        other.backup([tmp_path / "src"], name="all")
        left, right = other.snapshots(host="laptop")[0], other.snapshots(host="desktop")[0]
        difference = rz.compare(left, right)
    assert told(difference) == [("src/big", "content", ("content",))]
    assert difference.bytes > 5 * MIB


def test_a_snapshot_with_a_browsing_key(tmp_path: Path, me: rz.Identity, vault: Vault) -> None:
    friend = rz.Identity.generate()
    vault.grant(friend.recipient, "browse")
    CHANGES["content"][0](tmp_path / "src")
    vault.backup([tmp_path / "src"], name="all")
    with Vault.open(vault.url, identities=[friend], owner=me.recipient) as seen:
        before, after = seen.snapshots()
        assert told(rz.compare(before, after)) == [("src/z", "content", ("content",))]
        with pytest.raises(rz.NoMatchingKey):
            rz.compare(before, tmp_path / "src")
