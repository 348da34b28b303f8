"""The walk: order, races, limits, excludes."""

from __future__ import annotations

import os
import shutil
import threading
from typing import Any

import pytest

from rozenfmt.errors import SourceError, UsageError
from rozenfmt.format.nodes import Entry, Kind, Mark
from rozenfmt.tree import walk as walk_module
from rozenfmt.tree.compare import local_entries
from rozenfmt.tree.content import FileReader, Hole
from rozenfmt.tree.excludes import Excludes, read_patterns
from rozenfmt.tree.scan import Scanner

from .helpers import Recorder, as_nobody, build_awkward, is_root, make_socket, no_problem, scan, write

REAL_READ = os.read
REAL_OPEN = os.open


def whats(problems: list[Any]) -> list[tuple[str, bytes]]:
    return [(problem.what, problem.path) for problem in problems]


def test_depth_first_in_bytewise_order(place: bytes) -> None:
    root = place + b"/src"
    for directory in (b"", b"/b", b"/b/\xff", b"/\xc3\xa9"):
        os.mkdir(root + directory)
    for name in (b"a", b"b.x", b"b/z", b"b/\xff/1", b"\xff", b"c\n", b"\xc3\xa9/2", b"\xf0\x9f\x98\x80"):
        write(root + b"/" + name)
    sink, problems = scan(root)
    assert problems == []
    assert sink.events == [
        ("enter", b"src"),
        ("small", b"src/a"),
        ("enter", b"src/b"),
        ("small", b"src/b/z"),
        ("enter", b"src/b/\xff"),
        ("small", b"src/b/\xff/1"),
        ("leave", b"src/b/\xff"),
        ("leave", b"src/b"),
        ("small", b"src/b.x"),
        ("small", b"src/c\n"),
        ("enter", b"src/\xc3\xa9"),
        ("small", b"src/\xc3\xa9/2"),
        ("leave", b"src/\xc3\xa9"),
        ("small", b"src/\xf0\x9f\x98\x80"),
        ("small", b"src/\xff"),
        ("leave", b"src"),
    ]


def test_other_roots(place: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place + b"/file", b"123")
    os.symlink(b"file", place + b"/link")
    os.mkdir(place + b"/dir")
    os.symlink(b"dir", place + b"/dirlink")
    assert scan(place + b"/file")[0].content == {b"file": b"123"}
    assert scan(place + b"/link")[0].entries[b"link"].target == b"file"
    assert scan(place + b"/dir/")[0].events == [("enter", b"dir"), ("leave", b"dir")]
    assert scan(place + b"/dirlink")[0].events == [("other", b"dirlink")]
    assert scan(place + b"/dirlink/")[0].events == [("enter", b"dir"), ("leave", b"dir")]
    assert scan(place + b"/dir", name=b"other")[0].events[0] == ("enter", b"other")
    monkeypatch.chdir(os.fsdecode(place + b"/dir"))
    assert scan(b".")[0].events[0] == ("enter", b"dir")
    assert walk_module.split_root(b"/") == (b"/", b".", b"root")
    for missing in (b"/nothing", b"/nothing/at/all", b"/file/below"):
        with pytest.raises(SourceError):
            scan(place + missing)


def test_unreadable_root_is_an_error(place: bytes) -> None:
    def check() -> None:
        os.mkdir(place + b"/src", 0o300)
        with pytest.raises(SourceError):
            scan(place + b"/src")

    as_nobody(check)


def test_unreadable_entries_keep_their_metadata(place: bytes) -> None:
    def check() -> None:
        os.mkdir(place + b"/src")
        write(place + b"/src/a", b"12345")
        os.chmod(place + b"/src/a", 0)
        os.mkdir(place + b"/src/d", 0o000)
        write(place + b"/src/e")
        sink, problems = scan(place + b"/src", prefix=b"at/")
        assert whats(problems) == [("unreadable", b"at/src/a"), ("unreadable", b"at/src/d")]
        assert sink.entries[b"src/a"].marks == Mark.UNREADABLE
        assert sink.entries[b"src/a"].size == 5
        assert sink.entries[b"src/d"].marks == Mark.UNREADABLE
        assert ("leave", b"src/d") in sink.events
        assert sink.content == {b"src/e": b""}
        found = {path: entry for path, entry, _ in local_entries(place + b"/src", report=problems.append)}
        assert found[b"d"].marks == Mark.UNREADABLE

    as_nobody(check)


@pytest.mark.skipif(not is_root(), reason="needs files of another user")
def test_other_peoples_files_are_read_though_their_access_time_changes(place: bytes) -> None:
    os.mkdir(place + b"/src", 0o755)
    write(place + b"/src/a", b"1")
    write(place + b"/src/b", b"2")

    def check() -> None:
        sink, problems = scan(place + b"/src")
        assert problems == []
        assert sink.content == {b"src/a": b"1", b"src/b": b"2"}

    as_nobody(check)


def test_access_times_of_own_files_stay(place: bytes) -> None:
    os.mkdir(place + b"/src")
    write(place + b"/src/a", b"1")
    os.utime(place + b"/src/a", ns=(0, 0))
    os.utime(place + b"/src", ns=(0, 0))
    scan(place + b"/src")
    assert os.stat(place + b"/src/a").st_atime_ns == 0
    assert os.stat(place + b"/src").st_atime_ns == 0


def test_hard_links_across_directories(place: bytes) -> None:
    root = place + b"/src"
    os.makedirs(root + b"/d")
    write(root + b"/a", b"1")
    os.link(root + b"/a", root + b"/d/b")
    os.link(root + b"/a", root + b"/z")
    os.link(root + b"/a", place + b"/outside")
    os.symlink(b"x", root + b"/s1")
    os.link(root + b"/s1", root + b"/s2", follow_symlinks=False)
    numbers = iter(range(100))
    sink, _ = scan(root, entropy=lambda n: bytes([next(numbers)]) * n)
    assert [event for event in sink.events if event[0] == "link"] == [
        ("link", b"src/d/b"),
        ("link", b"src/z"),
    ]
    groups = {sink.entries[path].link_group for path in (b"src/a", b"src/d/b", b"src/z")}
    assert groups == {bytes(16)}
    assert sink.entries[b"src/s1"].link_group == sink.entries[b"src/s2"].link_group == b"\1" * 16
    assert sink.entries[b"src/d/b"].size == 1


def test_a_link_rewritten_since_its_first_name_is_delivered_anew(place: bytes) -> None:
    root = place + b"/src"
    os.mkdir(root)
    write(root + b"/a", b"1")
    os.link(root + b"/a", root + b"/b")

    class Writes(Recorder):
        def small(self, entry: Entry, data: bytes) -> None:
            super().small(entry, data)
            write(root + b"/a", b"22")

    sink = Writes()
    Scanner(root, report=print).run(sink)
    assert sink.content == {b"src/a": b"1", b"src/b": b"22"}


def test_a_growing_file_is_read_again(place: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(place + b"/src")
    path = write(place + b"/src/log", b"1234")

    def growing(fd: int, count: int) -> bytes:
        data = REAL_READ(fd, count)
        with open(path, "ab") as file:
            file.write(b"5")
        return data

    monkeypatch.setattr(os, "read", growing)
    sink, problems = scan(place + b"/src")
    assert problems == []
    assert sink.content == {b"src/log": b"12345"}
    assert sink.entries[b"src/log"].size == 5
    assert sink.entries[b"src/log"].marks == 0


def test_a_file_that_never_holds_still_is_marked(place: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(place + b"/src")
    path = write(place + b"/src/log", b"1234")
    calls = 0

    def changing(*arguments: int) -> bytes:
        nonlocal calls
        calls += 1
        data = (REAL_READ if len(arguments) == 2 else real_pread)(*arguments)
        os.utime(path, ns=(0, calls))
        return data

    real_pread = os.pread
    monkeypatch.setattr(os, "read", changing)
    monkeypatch.setattr(os, "pread", changing)
    sink, problems = scan(place + b"/src")
    assert whats(problems) == [("changed", b"src/log")]
    assert sink.content == {b"src/log": b"1234"}
    assert sink.entries[b"src/log"].marks == Mark.CHANGED
    assert calls > 4


def test_a_file_that_outgrows_the_limit_while_read_is_streamed(place: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(place + b"/src")
    path = write(place + b"/src/log", b"1234")

    def growing(fd: int, count: int) -> bytes:
        data = REAL_READ(fd, count)
        if os.path.getsize(path) < 100:
            write(path, b"5" * 100)
        return data

    monkeypatch.setattr(os, "read", growing)
    sink, problems = scan(place + b"/src", small_limit=50)
    assert problems == []
    assert sink.content == {b"src/log": b"5" * 100}


@pytest.mark.parametrize("error", [13, 5, 2])
def test_errors_of_one_file(place: bytes, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    os.mkdir(place + b"/src")
    for name in (b"/a", b"/b", b"/c"):
        write(place + b"/src" + name, b"1")

    def failing(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if path == b"b" and not flags & os.O_PATH:
            raise OSError(error, os.strerror(error))
        return REAL_OPEN(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", failing)
    sink, problems = scan(place + b"/src")
    assert whats(problems) == [("vanished" if error == 2 else "unreadable", b"src/b")]
    assert sink.content == {b"src/a": b"1", b"src/c": b"1"}


def test_a_read_error_is_reported(place: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(place + b"/src")
    write(place + b"/src/small", b"1")
    write(place + b"/src/stream", b"1" * 100)

    def failing(*_: Any) -> bytes:
        raise OSError(5, "I/O error")

    monkeypatch.setattr(os, "read", failing)
    monkeypatch.setattr(os, "pread", failing)
    sink, problems = scan(place + b"/src", small_limit=50)
    assert whats(problems) == [("unreadable", b"src/small"), ("unreadable", b"src/stream")]
    assert sink.events[1] == ("other", b"src/small")
    assert sink.entries[b"src/small"].marks == sink.entries[b"src/stream"].marks == Mark.UNREADABLE


def test_running_out_of_descriptors_ends_the_scan(place: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(place + b"/src")
    write(place + b"/src/a")

    def failing(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if path == b"a":
            raise OSError(24, "Too many open files")
        return REAL_OPEN(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(SourceError):
        scan(place + b"/src")


def test_what_the_sink_raises_is_not_the_files_fault(place: bytes) -> None:
    os.mkdir(place + b"/src")
    write(place + b"/src/a", b"1" * 100)

    class Full(Recorder):
        def small(self, entry: Entry, data: bytes) -> None:
            raise OSError(28, "No space left")

        def stream(self, entry: Entry, reader: FileReader) -> None:
            for _ in reader:
                raise OSError(28, "No space left")

    for limit in (50, 200):
        for root in (b"/src", b"/src/a"):
            with pytest.raises(OSError, match="No space"):
                Scanner(place + root, report=no_problem, small_limit=limit).run(Full())


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "nothing"])
@pytest.mark.parametrize("victim", [b"file", b"dir"])
def test_replaced_between_listing_and_opening(
    place: bytes, monkeypatch: pytest.MonkeyPatch, kind: str, victim: bytes
) -> None:
    os.makedirs(place + b"/src/dir")
    write(place + b"/src/dir/inner", b"inner")
    write(place + b"/src/file", b"1")
    os.mkdir(place + b"/secret")
    write(place + b"/secret/inner", b"secret")
    target = place + b"/src/" + victim
    swapped = False

    def swapping(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        nonlocal swapped
        if path == victim and not swapped:
            swapped = True
            (os.unlink if victim == b"file" else shutil.rmtree)(target)
            if kind == "symlink":
                os.symlink(place + (b"/secret" if victim == b"dir" else b"/secret/inner"), target)
            elif kind == "fifo":
                os.mkfifo(target)
            elif kind == "directory":
                os.mkdir(target)
        return REAL_OPEN(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", swapping)
    sink, problems = scan(place + b"/src")
    assert b"secret" not in sink.content.values()
    found = sink.entries.get(b"src/" + victim)
    if kind == "nothing":
        assert whats(problems) == [("vanished", b"src/" + victim)]
    else:
        assert found is not None
        assert found.kind == {"symlink": Kind.SYMLINK, "fifo": Kind.FIFO, "directory": Kind.DIRECTORY}[kind]


def test_files_come_and_go_during_the_walk(place: bytes) -> None:
    root = place + b"/src"
    for number in range(20):
        os.makedirs(root + b"/%d" % number)
    stop = threading.Event()

    def disturb() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            path = root + b"/%d/f%d" % (turn % 20, turn % 7)
            try:
                if turn % 3 == 0:
                    os.unlink(path)
                elif turn % 3 == 1:
                    write(path, b"x" * (turn % 1000))
                else:
                    os.symlink(b"/etc/passwd", path)
            except (FileExistsError, FileNotFoundError, OSError):
                continue

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(30):
            sink, problems = scan(root)
            assert {problem.what for problem in problems} <= {"vanished", "changed"}
            assert len([event for event in sink.events if event[0] == "enter"]) == 21
            assert all(set(data) <= {ord("x")} for data in sink.content.values())
    finally:
        stop.set()
        thread.join()


def test_a_directory_moved_away_ends_that_branch_only(place: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module.Walk.__init__, "__kwdefaults__", {"open_limit": 2})
    root = place + b"/src"
    os.makedirs(root + b"/a/b/c/d/e")
    write(root + b"/a/b/later", b"later")
    write(root + b"/z", b"z")
    os.makedirs(place + b"/elsewhere/f")
    write(place + b"/elsewhere/f/later", b"secret")

    class Moves(Recorder):
        def enter(self, entry: Entry) -> None:
            super().enter(entry)
            if entry.name == b"e":
                os.rename(root + b"/a/b/c", place + b"/elsewhere/f/c")
                os.rename(root + b"/a/b", place + b"/gone")

    sink = Moves()
    problems: list[Any] = []
    Scanner(root, report=problems.append).run(sink)
    assert whats(problems) == [("vanished", b"src/a/b")]
    assert sink.content == {b"src/z": b"z"}
    assert sink.events[-1] == ("leave", b"src")


def test_few_descriptors_for_a_deep_tree(place: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module.Walk.__init__, "__kwdefaults__", {"open_limit": 3})
    root = place + b"/src"
    os.makedirs(root + b"/d" * 40)
    for level in range(41):
        write(root + b"/d" * level + b"/z", b"%d" % level)
    sink, problems = scan(root)
    assert problems == []
    assert len(sink.content) == 41


def test_streams_and_holes(place: bytes) -> None:
    os.mkdir(place + b"/src")
    with open(place + b"/src/sparse", "wb") as file:
        file.write(b"start")
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(2 << 20)
    with open(place + b"/src/hole", "wb") as file:
        file.truncate(1 << 30)
    write(place + b"/src/big", b"1234567")

    class Sizes(Recorder):
        def stream(self, entry: Entry, reader: FileReader) -> None:
            if entry.name != b"hole":
                super().stream(entry, reader)
                return
            assert list(reader) == [Hole(1 << 30)]
            assert reader.finish().size == 1 << 30

    sink = Sizes()
    Scanner(place + b"/src", report=no_problem, small_limit=6, chunk_size=3).run(sink)
    assert sink.content[b"src/big"] == b"1234567"
    assert sink.content[b"src/sparse"] == b"start".ljust(1 << 20, b"\0") + b"middle".ljust(1 << 20, b"\0")
    assert sink.holes[b"src/sparse"] > 1 << 20
    assert sink.entries[b"src/sparse"].marks == Mark.SPARSE


def test_a_stream_that_changes_can_be_taken_again(place: bytes) -> None:
    path = write(place + b"/file", b"1" * 100)
    tries = 0

    class Again(Recorder):
        def stream(self, entry: Entry, reader: FileReader) -> None:
            nonlocal tries
            while True:
                tries += 1
                data = []
                for chunk in reader:
                    data.append(chunk)
                    if tries <= stubborn:
                        with open(path, "ab") as file:
                            file.write(b"2")
                final = reader.finish()
                assert final.size == sum(map(len, data))  # type: ignore[arg-type]
                if not final.marks & Mark.CHANGED or not reader.rewind():
                    return

    stubborn = 1
    problems: list[Any] = []
    Scanner(path, report=problems.append, small_limit=50).run(Again())
    assert (tries, problems) == (2, [])
    tries, stubborn = 0, 100
    Scanner(path, report=problems.append, small_limit=50).run(Again())
    assert tries == 4
    assert whats(problems) == [("changed", b"file")]


def test_pseudo_files_are_longer_than_they_say() -> None:
    sink, problems = scan(b"/proc/self/status")
    assert problems == []
    assert sink.content[b"status"].startswith(b"Name:")
    assert sink.entries[b"status"].size == len(sink.content[b"status"])
    sink, _ = scan(b"/proc/self/status", small_limit=10)
    assert sink.content[b"status"].startswith(b"Name:")
    assert sink.entries[b"status"].size == len(sink.content[b"status"])


def test_specials_are_never_opened(place: bytes) -> None:
    os.mkdir(place + b"/src")
    os.mkfifo(place + b"/src/fifo")
    make_socket(place + b"/src/socket")
    sink, problems = scan(place + b"/src")
    assert problems == []
    assert sink.entries[b"src/fifo"].kind is Kind.FIFO
    assert sink.entries[b"src/socket"].kind is Kind.SOCKET
    sink, _ = scan(place + b"/src/fifo")
    assert sink.events == [("other", b"fifo")]


def test_unreadable_attributes_are_reported(place: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(place + b"/file", b"1")
    os.setxattr(path, "user.a", b"a")
    os.setxattr(path, "user.b", b"b")
    real = os.getxattr

    def failing(target: Any, name: str) -> bytes:
        if name == "user.a":
            raise OSError(13, "Permission denied")
        return real(target, name)

    monkeypatch.setattr(os, "getxattr", failing)
    sink, problems = scan(path)
    assert whats(problems) == [("xattr", b"file")]
    assert sink.entries[b"file"].xattrs == ((b"user.b", b"b"),)


def test_the_stat_of_what_is_delivered(place: bytes) -> None:
    build_awkward(place + b"/src")
    seen = 0

    class Checks(Recorder):
        def _add(self, what: str, entry: Entry) -> bytes:
            nonlocal seen
            path = super()._add(what, entry)
            if what != "leave":
                seen += 1
                assert scanner.stat.st_ino == os.lstat(place + b"/" + path).st_ino
            return path

    scanner = Scanner(place + b"/src", report=no_problem)
    scanner.run(Checks())
    assert seen > 30


def test_cache_directories(place: bytes) -> None:
    root = place + b"/src"
    for name in (b"cache", b"fake", b"linked"):
        os.makedirs(root + b"/" + name + b"/sub")
        write(root + b"/" + name + b"/data")
    tag = b"Signature: 8a477f597d28d172789f06886806bc55"
    write(root + b"/cache/CACHEDIR.TAG", tag + b"\n# a cache")
    write(root + b"/fake/CACHEDIR.TAG", b"Signature: nothing")
    os.symlink(root + b"/cache/CACHEDIR.TAG", root + b"/linked/CACHEDIR.TAG")
    sink, _ = scan(root, skip_caches=True)
    assert [path for what, path in sink.events if path.startswith(b"src/cache") and what != "leave"] == [
        b"src/cache",
        b"src/cache/CACHEDIR.TAG",
    ]
    assert b"src/fake/data" in sink.entries
    assert b"src/linked/data" in sink.entries
    assert b"src/cache/data" in scan(root)[0].entries


def test_one_file_system(place: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    os.makedirs(place + b"/src/mount/sub")
    write(place + b"/src/z")
    inode = os.stat(place + b"/src/mount").st_ino
    real = os.fstat

    def elsewhere(fd: int) -> os.stat_result:
        stat = real(fd)
        if stat.st_ino != inode:
            return stat
        return os.stat_result([*stat[:2], stat.st_dev + 1, *stat[3:]])

    monkeypatch.setattr(os, "fstat", elsewhere)
    sink, _ = scan(place + b"/src", one_file_system=True)
    assert [path for what, path in sink.events if what != "leave"] == [b"src", b"src/mount", b"src/z"]
    found = [path for path, _, _ in local_entries(place + b"/src", report=no_problem, one_file_system=True)]
    assert found == [b"", b"mount", b"z"]


def excluded(patterns: list[str | bytes], place: bytes) -> list[bytes]:
    sink, _ = scan(place + b"/src", excludes=Excludes(patterns))
    everything, _ = scan(place + b"/src")
    return sorted(path[4:] for path in everything.entries if path not in sink.entries)


def test_excludes(place: bytes) -> None:
    root = place + b"/src"
    for directory in (b"build", b"doc/build", b"a\nb/build", b"keep"):
        os.makedirs(root + b"/" + directory)
    files = (
        b"x.o",
        b"keep/x.o",
        b"keep/y.o",
        b"build/f",
        b"doc/b.txt",
        b"a\nb/x.o",
        b"\xff.o",
        b"x.o\n",
        b"doc/[",
    )
    for file in files:
        write(root + b"/" + file)
    assert excluded([], place) == []
    assert excluded(["*.o", "!keep/y.o", "# a comment", ""], place) == [
        b"a\nb/x.o",
        b"keep/x.o",
        b"x.o",
        b"\xff.o",
    ]
    assert excluded(["/build"], place) == [b"build", b"build/f"]
    assert excluded(["build/", "!build/f"], place) == [b"a\nb/build", b"build", b"build/f", b"doc/build"]
    assert excluded(["x.o/"], place) == []
    assert excluded([b"\xff.o"], place) == [b"\xff.o"]
    assert excluded(["doc/**", "!doc/b.txt"], place) == [b"doc/[", b"doc/build"]
    assert excluded(["doc/\\["], place) == [b"doc/["]
    everything = excluded(["*"], place)
    assert excluded(["*", "!keep", "!keep/x.o"], place) == [
        path for path in everything if path not in (b"keep", b"keep/x.o")
    ]
    assert excluded(["doc/**/"], place) == [b"doc/build"]
    assert excluded(["/**", "!/keep/"], place) == [path for path in everything if path != b"keep"]
    with pytest.raises(UsageError):
        Excludes(["!"])


def test_exclude_files(place: bytes) -> None:
    path = write(place + b"/patterns", b"\xef\xbb\xbf*.o\r\n# x\n\xff\n")
    assert read_patterns(path) == [b"*.o", b"# x", b"\xff", b""]
    assert Excludes(read_patterns(path)).excluded("a/x.o", directory=False)
    with pytest.raises(SourceError):
        read_patterns(place + b"/nothing")


def test_local_entries_are_those_of_the_scan(place: bytes) -> None:
    build_awkward(place + b"/src")
    sink, _ = scan(place + b"/src")
    order = [path[4:] for what, path in sink.events if what != "leave"]
    found = []
    for path, entry, content in local_entries(place + b"/src", report=no_problem):
        found.append(path)
        scanned = sink.entries[b"src/" + path if path else b"src"]
        assert entry.name == scanned.name
        assert (entry.link_group is None) == (scanned.link_group is None)
        entry.link_group, entry.marks = scanned.link_group, scanned.marks
        assert entry == scanned
        if entry.kind is Kind.FILE and scanned.link_group is None:
            assert b"".join(content()) == sink.content[b"src/" + path]
    assert found == order
    assert [(p, e.size, b"".join(c())) for p, e, c in local_entries(place + b"/src/plain", report=print)] == [
        (b"", 18, b"content 0 of plain")
    ]
    with pytest.raises(SourceError):
        list(local_entries(place + b"/nothing", report=print))


def test_content_that_vanished_before_it_was_compared(place: bytes) -> None:
    os.mkdir(place + b"/src")
    write(place + b"/src/a")
    write(place + b"/src/b")
    for path, _, content in local_entries(place + b"/src", report=print):
        if path:
            os.unlink(place + b"/src/" + path)
            if path == b"b":
                os.symlink(b"/etc/passwd", place + b"/src/b")
            with pytest.raises(SourceError):
                list(content())
