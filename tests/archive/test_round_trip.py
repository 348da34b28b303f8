"""Create, check, extract, compare: whatever a tree may hold comes back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import rozenfmt as rz
from tests.tree.helpers import as_nobody, build_awkward, facts, is_root, make_socket, write

from .helpers import MIB, noise, write_archive

SUITES: list[dict[str, Any]] = [
    {"cipher": "xchacha20-poly1305", "compression": "zstd:3"},
    {"cipher": "xaes-256-gcm", "compression": "lz4"},
    {"plain": True, "compression": "none"},
]


def round_trip(source: Path, place: Path, options: dict[str, Any]) -> None:
    """Store, check, restore; compare by this library, and by plain system calls."""
    me = rz.Identity.generate()
    plain = bool(options.get("plain"))
    keys = [] if plain else [me]
    path = place / "archive.rzn"
    with rz.create(path, recipients=[] if plain else [me.recipient], **options) as writer:
        writer.add_tree(source)
    assert writer.result.problem_count == 0
    report = rz.check(path, identities=keys)
    assert report.level == "contents"
    assert report.entries == writer.result.entries
    assert report.content_bytes == writer.result.content_bytes
    with rz.open(path, identities=keys) as archive:
        assert archive.entry_count == writer.result.entries == sum(1 for _ in archive)
        difference = rz.compare(archive, source)
        assert not difference, difference.changes
        result = archive.extract(place / "out")
        assert {problem.what for problem in result.problems} <= {"unsupported"}  # sockets
        restored = place / "out" / source.name
        difference = rz.compare(archive, restored)
        assert {change.what for change in difference.changes} <= {"removed"}
        assert difference.count == result.problem_count
    there, back = facts(os.fsencode(source)), facts(os.fsencode(restored))
    sockets = [name for name, fact in there.items() if fact[0] & 0o170000 == 0o140000]
    for name in sockets:
        del there[name]
    assert len(sockets) == result.problem_count
    assert _renumbered(back) == _renumbered(there)


def _renumbered(found: dict[bytes, tuple[Any, ...]]) -> dict[bytes, tuple[Any, ...]]:
    """Hard-link groups by the first name in each."""
    groups: dict[int, bytes] = {}
    return {name: (*fact[:-1], groups.setdefault(fact[-1], name)) for name, fact in sorted(found.items())}


def build(source: Path, *, privileged: bool) -> None:
    """Everything awkward, and what big files need: many parts, exact part sizes, holes of all kinds."""
    root = os.fsencode(source)
    build_awkward(root)
    for name, size in ((b"part-1", 4 * MIB - 1), (b"part", 4 * MIB), (b"part+1", 4 * MIB + 1), (b"parts", 9 * MIB)):
        write(root + b"/" + name, noise(size, size))
    with open(root + b"/hole-first", "wb") as file:
        file.seek(5 * MIB)
        file.write(b"end")
    with open(root + b"/hole-last", "wb") as file:
        file.write(noise(3 * MIB))
        file.truncate(40 * MIB)
    with open(root + b"/all-hole", "wb") as file:
        file.truncate(30 * MIB)
    os.link(root + b"/parts", root + b"/dir/parts-again")
    os.link(root + b"/hole-last", root + b"/dir.d/hole-again")
    os.link(root + b"/link", root + b"/zz-link-again")  # a symlink of two names
    os.link(root + b"/fifo", root + b"/zz-fifo-again")
    os.link(root + b"/empty", root + b"/zz-empty-again")
    deep = root + b"/deep"
    for number in range(120):
        os.mkdir(deep)
        write(deep + b"/f", b"%d" % number)
        deep += b"/d" * 1
    make_socket(root + b"/socket")
    if privileged:
        os.mknod(root + b"/null", 0o600 | 0o020000, os.makedev(1, 3))
        os.mknod(root + b"/loop", 0o660 | 0o060000, os.makedev(7, 250))
        for name in (b"/plain", b"/dir", b"/link", b"/fifo"):
            os.chown(root + name, 12345, 54321, follow_symlinks=False)
        os.setxattr(root + b"/plain", "trusted.rozen", b"\0\1")
        os.chmod(root + b"/plain", 0o4711)
    for name in (b"/dir", b"/dir.d", b""):
        os.utime(root + name, ns=(0, 1_500_000_000_000_000_007))


@pytest.mark.parametrize("options", SUITES, ids=["xchacha", "xaes", "plain"])
def test_awkward_tree_as_root(open_place: Path, options: dict[str, Any]) -> None:
    if not is_root():
        pytest.skip("needs root")
    build(open_place / "src", privileged=True)
    round_trip(open_place / "src", open_place, options)


def test_awkward_tree_as_user(open_place: Path) -> None:
    def work() -> None:
        build(open_place / "src", privileged=False)
        round_trip(open_place / "src", open_place, SUITES[0])

    as_nobody(work)


def test_unreadable_things_are_reported_and_not_made_up(open_place: Path) -> None:
    """What an ordinary user cannot read is never restored as an empty file."""

    def work() -> None:
        source = open_place / "src"
        source.mkdir()
        for name, data in (("secret", b"x"), ("secret-empty", b""), ("open", b"y")):
            (source / name).write_bytes(data)
        (source / "locked").mkdir()
        (source / "secret").chmod(0)
        (source / "secret-empty").chmod(0)
        (source / "locked").chmod(0)
        me = rz.Identity.generate()
        with rz.create(open_place / "a", recipients=[me.recipient]) as writer:
            writer.add_tree(source)
        found = {(problem.path, problem.what) for problem in writer.result.problems}
        assert found == {
            (b"src/secret", "unreadable"),
            (b"src/secret-empty", "unreadable"),
            (b"src/locked", "unreadable"),
        }
        rz.check(open_place / "a", identities=[me])
        with rz.open(open_place / "a", identities=[me]) as archive:
            assert archive.entry("src/secret").unreadable
            with pytest.raises(rz.UsageError):
                archive.read("src/secret")
            result = archive.extract(open_place / "out")
        assert {problem.path for problem in result.problems} == {b"src/secret", b"src/secret-empty"}
        assert sorted(os.listdir(open_place / "out/src")) == ["locked", "open"]
        (source / "locked").chmod(0o700)

    as_nobody(work)


def test_directory_of_20_000(tmp_path: Path, me: rz.Identity) -> None:
    """Inner nodes, look-ups among them, and names in the right order."""
    source = tmp_path / "many"
    source.mkdir()
    for number in range(20_000):
        (source / f"{number * 7919 % 20_000:05}").write_bytes(b"%d" % number if number % 50 == 0 else b"")
    (source / "zz").mkdir()
    write_archive(tmp_path / "a", me.recipient, source)
    report = rz.check(tmp_path / "a", identities=[me])
    assert report.entries == 20_002
    with rz.open(tmp_path / "a", identities=[me]) as archive:
        names = [entry.name for entry in archive.walk("many")]
        assert names[1:] == sorted(names[1:])
        assert archive.read("many/00000") == b"0"
        assert archive.entry("many/19999").size == 0
        for missing in ("many/", "many/x", "many/20000", "many/0000", "many/zz/x", "nothing"):
            if missing != "many/":
                with pytest.raises(rz.UsageError):
                    archive.entry(missing)
        assert not rz.compare(archive, source)
        assert archive.extract(tmp_path / "out").problem_count == 0
    assert not rz.compare(source, tmp_path / "out" / "many")


def data_of(path: Path) -> list[tuple[int, int]]:
    """Where the data of a file begin and end.

    Not how many blocks it takes: these are more as soon as the file system has written its tree of extents.
    """
    found, at = [], 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # no data any more
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append((start, at))
    return found


def test_many_extents(tmp_path: Path, me: rz.Identity) -> None:
    """Part tables that need sub-tables, cut at holes as well as at data."""
    source = tmp_path / "src"
    source.mkdir()
    for name, first in (("data-first", 0), ("hole-first", 1)):
        with open(source / name, "wb") as file:
            for number in range(4200):
                file.seek((2 * number + first) * 4096)
                file.write(b"%d" % number)
            file.truncate((2 * 4200 + 1) * 4096)
    write_archive(tmp_path / "a", me.recipient, source)
    rz.check(tmp_path / "a", identities=[me])
    with rz.open(tmp_path / "a", identities=[me]) as archive:
        assert not rz.compare(archive, source)
        with archive.open("src/data-first") as file:
            file.seek(2 * 4100 * 4096)
            assert file.read(4) == b"4100"
        archive.extract(tmp_path / "out")
    assert not rz.compare(source, tmp_path / "out/src")
    for name in ("data-first", "hole-first"):
        assert data_of(tmp_path / "out/src" / name) == data_of(source / name)


def test_very_deep_tree(deep_place: Path, me: rz.Identity) -> None:
    """Deeper than PATH_MAX and than the interpreter's recursion limit: list, restore, salvage."""
    depth = 1030
    top = os.open(deep_place, os.O_DIRECTORY)
    at = top
    for _ in range(depth):
        os.mkdir(b"deep", dir_fd=at)
        below = os.open(b"deep", os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    file = os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=at)
    os.write(file, b"down here")
    os.close(file)
    os.close(at)
    write_archive(deep_place / "a", me.recipient, deep_place / "deep")
    rz.check(deep_place / "a", identities=[me])
    with rz.open(deep_place / "a", identities=[me]) as archive:
        assert sum(1 for _ in archive) == depth + 1
        assert archive.read("deep/" * depth + "file") == b"down here"
        assert archive.extract(deep_place / "out").problem_count == 0
        assert not rz.compare(archive, deep_place / "out" / "deep")
    report = rz.salvage(deep_place / "a", deep_place / "rescued", identities=[me])
    assert (report.files, report.problem_count) == (1, 0)
    assert not rz.compare(deep_place / "deep", deep_place / "rescued" / "deep")


@pytest.mark.parametrize("kind", ["file", "symlink", "fifo", "empty"])
def test_source_that_is_no_directory(tmp_path: Path, me: rz.Identity, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "file":
        path.write_bytes(noise(5 * MIB))
    elif kind == "symlink":
        path.symlink_to("/nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.touch()
    write_archive(tmp_path / "a", me.recipient, path)
    with rz.open(tmp_path / "a", identities=[me]) as archive:
        assert [entry.path for entry in archive] == ["thing"]
        assert not rz.compare(archive, path)
        archive.extract(tmp_path / "out")
    assert not rz.compare(path, tmp_path / "out/thing")


def test_extract_paths(tmp_path: Path, me: rz.Identity) -> None:
    """Chosen paths with their parents as they were; links within the choice stay links."""
    source = tmp_path / "src"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/one").write_bytes(b"1")
    os.link(source / "a/b/one", source / "a/two")
    (source / "c").write_bytes(b"3")
    os.chmod(source / "a", 0o750)
    os.utime(source / "a", ns=(5, 5))
    write_archive(tmp_path / "x", me.recipient, source)
    with rz.open(tmp_path / "x", identities=[me]) as archive:
        archive.extract(tmp_path / "out", paths=["src/a/b", "src/a/b/one", "src/a/two"])
        assert os.stat(tmp_path / "out/src/a").st_mode & 0o7777 == 0o750
        assert os.stat(tmp_path / "out/src/a").st_mtime_ns == 5
        assert os.stat(tmp_path / "out/src/a/two").st_nlink == 2
        assert not (tmp_path / "out/src/c").exists()
        with pytest.raises(rz.UsageError):
            archive.extract(tmp_path / "out2", paths=["src/none"])
        again = archive.extract(tmp_path / "out")
        assert again.problem_count == 0
        assert not rz.compare(source, tmp_path / "out/src")
