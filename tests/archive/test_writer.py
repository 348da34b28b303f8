# ruff: noqa: SIM117 -- what must be left clean stands apart from what is done
"""Adding, committing, giving up: an archive is there whole, or there is nothing."""

from __future__ import annotations

import gc
import io
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import rozenfmt as rz
from rozenfmt.archive import treewriter
from rozenfmt.archive.pipeline import Pipeline
from rozenfmt.format.crypto import Keys
from rozenfmt.format.registry import Suite
from rozenfmt.tree import content
from tests.tree.helpers import as_nobody, is_root

from .helpers import KIB, MIB, blocks_of, drained, many_files, noise, threads, write_archive


class Trickle(io.BytesIO):
    """A source that gives little at a time and then ends, or fails."""

    def __init__(self, data: bytes, step: int, error: BaseException | None = None) -> None:
        super().__init__(data)
        self._step = step
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(min(size, self._step) if size is not None and size >= 0 else self._step)
        if not data and self._error is not None:
            raise self._error
        return data


def test_add_bytes_path_and_stream(tmp_path: Path, me: rz.Identity) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"from a file")
    os.utime(file, ns=(0, -5))
    file.chmod(0o4750)
    big = noise(9 * MIB)
    with rz.create(tmp_path / "a", recipients=[me.recipient]) as archive:
        archive.add("bytes", b"plain", mode=0o600, mtime_ns=7)
        archive.add("view", memoryview(bytearray(b"view")))
        archive.add("dir/below/file", file)
        archive.add("dir/later", file, mtime_ns=9)
        archive.add("stream", Trickle(b"trickle" * 1000, 3))
        archive.add("big", Trickle(big, 70_001))
        archive.add("exact", io.BytesIO(big[: 4 * MIB]))
        archive.add("exact+1", io.BytesIO(big[: 4 * MIB + 1]))
        archive.add("exact+4", io.BytesIO(big[: 8 * MIB]))
        archive.add("empty", b"")
        archive.add(b"caf\xe9", b"latin")
    rz.check(tmp_path / "a", identities=[me])
    with rz.open(tmp_path / "a", identities=[me]) as archive_:
        assert archive_.read("bytes") == b"plain"
        assert archive_.read("view") == b"view"
        assert archive_.read("dir/below/file") == b"from a file"
        assert archive_.read("stream") == b"trickle" * 1000
        assert archive_.read("big") == big
        assert archive_.read("exact") == big[: 4 * MIB]
        assert archive_.read("exact+1") == big[: 4 * MIB + 1]
        assert archive_.read("exact+4") == big[: 8 * MIB]
        assert archive_.read("empty") == b""
        assert archive_.read(b"caf\xe9") == archive_.read("caf\udce9") == b"latin"
        entry = archive_.entry("dir/below/file")
        assert (entry.mode, entry.mtime_ns) == (0o4750, -5)
        assert archive_.entry("dir/later").mtime_ns == 9
        assert (archive_.entry("bytes").mode, archive_.entry("bytes").mtime_ns) == (0o600, 7)


def test_several_trees_and_clashes(tmp_path: Path, me: rz.Identity) -> None:
    for name in ("one", "two"):
        many_files(tmp_path / name, 10)
    with rz.create(tmp_path / "a", recipients=[me.recipient]) as archive:
        archive.add("notes/first", b"1")
        archive.add_tree(tmp_path / "one")
        archive.add_tree(tmp_path / "two", name="zwei")
        archive.add("notes/second", b"2")
        for refused in (
            lambda: archive.add_tree(tmp_path / "one"),
            lambda: archive.add_tree(tmp_path / "two", name="notes"),
            lambda: archive.add_tree(tmp_path / "two", name="a/b"),
            lambda: archive.add_tree(tmp_path / "two", name=".."),
            lambda: archive.add("notes", b""),
            lambda: archive.add("notes/first", b""),
            lambda: archive.add("one", b""),
            lambda: archive.add("one/new", b""),
            lambda: archive.add("one/d0/new", b""),
            lambda: archive.add("notes/first/below", b""),
            lambda: archive.add("", b""),
            lambda: archive.add("a//b", b""),
            lambda: archive.add("a/../b", b""),
            lambda: archive.add("nul\0", b""),
            lambda: archive.add("text", io.StringIO("text")),  # type: ignore[arg-type]
            lambda: archive.add("directory", tmp_path),
        ):
            with pytest.raises((rz.UsageError, rz.SourceError)):
                refused()
        archive.add("text", b"now it is right")
    report = rz.check(tmp_path / "a", identities=[me])
    assert report.entries == archive.result.entries
    with rz.open(tmp_path / "a", identities=[me]) as archive_:
        assert {entry.path for entry in archive_ if "/" not in entry.path} == {"notes", "one", "zwei", "text"}
        assert not rz.compare(archive_, tmp_path / "one")
        assert archive_.read("notes/second") == b"2"
    with pytest.raises(rz.UsageError):
        archive.add("late", b"")
    with pytest.raises(rz.UsageError):
        archive.add_tree(tmp_path / "one", name="late")
    with pytest.raises(rz.UsageError):
        archive.commit()
    archive.discard()
    assert (tmp_path / "a").exists()


def test_arguments_that_contradict(tmp_path: Path, me: rz.Identity) -> None:
    words = rz.Passphrase("x", cost=rz.Argon2Cost(1, 8))
    wrong: list[dict[str, Any]] = [
        {},
        {"recipients": [me.recipient], "plain": True},
        {"recipients": [words, me.recipient]},
        {"recipients": [words], "browsers": [me.recipient]},
        {"recipients": [me.recipient], "cipher": "rot13"},
        {"recipients": [me.recipient], "compression": "zstd:99"},
        {"recipients": [me.recipient], "compression": "brotli"},
        {"recipients": [me.recipient], "part_size": -1, "location": "s3://bucket/x"},
    ]
    for options in wrong[:-1]:
        with pytest.raises(rz.UsageError):
            rz.create(tmp_path / "a", **options)
    assert os.listdir(tmp_path) == []


def test_existing_is_kept(tmp_path: Path, me: rz.Identity) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(rz.ConflictError):
        rz.create(tmp_path / "a", recipients=[me.recipient])
    with rz.create(tmp_path / "a", recipients=[me.recipient], overwrite=True) as archive:
        archive.add("x", b"new")
        assert (tmp_path / "a").read_bytes() == b"old"
    with rz.open(tmp_path / "a", identities=[me]) as archive_:
        assert archive_.read("x") == b"new"
    with rz.create(tmp_path / "b", recipients=[me.recipient]) as archive:
        (tmp_path / "b").write_bytes(b"somebody was faster")
        archive.add("x", b"")
        with pytest.raises(rz.ConflictError):
            archive.commit()
    assert (tmp_path / "b").read_bytes() == b"somebody was faster"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


class Stop(BaseException):
    """Like KeyboardInterrupt, but the test runner's own."""


def _raise(error: BaseException) -> None:
    raise error


def target(fd: str) -> str | None:
    """What a descriptor of this process is open on; None if it is closed by now."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return None


@contextmanager
def nothing_left(folder: Path, *, lost: int = 0) -> Iterator[None]:
    gc.collect()  # of earlier tests
    before = sorted(os.listdir(folder))
    descriptors = sum(target(fd) is not None for fd in os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert sorted(os.listdir(folder)) == before
    assert not threads()
    left = [name for fd in os.listdir("/proc/self/fd") if (name := target(fd)) is not None]
    assert not [name for name in left if name.startswith(f"{folder}/")]
    # A signal that comes between opening a source and having its descriptor loses one.
    assert len(left) <= descriptors + lost


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt(), Stop(), MemoryError(), GeneratorExit()])
def test_exceptions_leave_nothing(tmp_path: Path, me: rz.Identity, error: BaseException) -> None:
    source = tmp_path / "src"
    many_files(source, 50, big=[9 * MIB])
    (tmp_path / "out").mkdir()
    with nothing_left(tmp_path / "out"):
        with pytest.raises(type(error)), rz.create(tmp_path / "out/a", recipients=[me.recipient]) as archive:
            archive.add_tree(source)
            raise error
    with nothing_left(tmp_path / "out"):  # from a callback in the middle of a tree
        with (
            pytest.raises(type(error)),
            rz.create(tmp_path / "out/a", recipients=[me.recipient], progress=lambda _: _raise(error)) as archive,
        ):
            archive._reported = -1.0
            archive.add_tree(source)
    with nothing_left(tmp_path / "out"):
        archive = rz.create(tmp_path / "out/a", recipients=[me.recipient])
        archive.add_tree(source)
        archive.discard()
        archive.discard()
        with pytest.raises(rz.UsageError):
            archive.commit()
    with nothing_left(tmp_path / "out"):  # a failure that the caller swallows is not forgotten
        archive = rz.create(tmp_path / "out/a", recipients=[me.recipient], progress=lambda _: _raise(error))
        archive._reported = -1.0
        with pytest.raises(type(error)):
            archive.add_tree(source)
        with pytest.raises(rz.UsageError):
            archive.add("x", b"")
        with pytest.raises(rz.UsageError):
            archive.commit()
        archive.discard()
    with nothing_left(tmp_path / "out"), pytest.raises(rz.UsageError):
        with rz.create(tmp_path / "out/a", recipients=[me.recipient], progress=lambda _: _raise(error)) as archive:
            archive._reported = -1.0
            with pytest.raises(type(error)):
                archive.add_tree(source)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Whoever runs the tests in the background may have SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_real_interrupt(tmp_path: Path, me: rz.Identity) -> None:
    """Ctrl-C while blocks are under way on the workers."""
    source = tmp_path / "src"
    many_files(source, 20, big=[30 * MIB])
    (tmp_path / "out").mkdir()
    for delay in (0.01, 0.05, 0.1):
        with nothing_left(tmp_path / "out", lost=1):
            timer = threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGINT))
            with (
                pytest.raises(KeyboardInterrupt),
                rz.create(tmp_path / "out/a", recipients=[me.recipient], compression="zstd:9") as archive,
            ):
                timer.start()
                for number in range(100_000):
                    archive.add_tree(source, name=f"src{number}")
            timer.join()


@pytest.mark.parametrize("size", [10, 9 * MIB])
@pytest.mark.parametrize("error", [OSError(5, "I/O error"), ValueError("broken")])
def test_source_that_fails_on_the_way(tmp_path: Path, me: rz.Identity, size: int, error: Exception) -> None:
    """A source's own failure is a SourceError, and the archive goes on without it."""
    with rz.create(tmp_path / "a", recipients=[me.recipient]) as archive:
        archive.add("before", b"1")
        if isinstance(error, OSError):
            with pytest.raises(rz.SourceError):
                archive.add("broken", Trickle(noise(size), MIB, error))
            with pytest.raises(rz.SourceError):
                archive.add("missing", tmp_path / "nothing")
            with pytest.raises(rz.SourceError):
                archive.add_tree(tmp_path / "nothing")
            archive.add("after", b"2")
            archive.add("broken", b"better")
        else:
            with pytest.raises(ValueError, match="broken"):
                archive.add("broken", Trickle(noise(size), MIB, error))
            archive.discard()
    if isinstance(error, OSError):
        rz.check(tmp_path / "a", identities=[me])
        with rz.open(tmp_path / "a", identities=[me]) as archive_:
            assert [entry.path for entry in archive_] == ["after", "before", "broken"]
            assert archive_.read("broken") == b"better"
    else:
        assert os.listdir(tmp_path) == []


def test_file_that_shrinks_and_file_that_grows(
    tmp_path: Path, me: rz.Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "src"
    source.mkdir()
    for name in ("grows", "shrinks", "vanishes"):
        (source / name).write_bytes(noise(9 * MIB))
    real = content.FileReader.__iter__

    def meddle(reader: content.FileReader) -> Iterator[Any]:
        name = reader._entry.name
        for number, chunk in enumerate(real(reader)):
            yield chunk
            if number == 0:
                path = source / os.fsdecode(name)
                size = {b"grows": 20 * MIB, b"shrinks": 5 * MIB, b"vanishes": 0}[name]
                os.truncate(path, size)

    monkeypatch.setattr(content.FileReader, "__iter__", meddle)
    write_archive(tmp_path / "a", me.recipient, source)
    rz.check(tmp_path / "a", identities=[me])
    with rz.open(tmp_path / "a", identities=[me]) as archive:
        assert all(archive.entry(f"src/{name}").changed for name in ("grows", "shrinks", "vanishes"))
        assert archive.read("src/grows") == noise(9 * MIB)
        assert archive.read("src/shrinks") == noise(9 * MIB)[: 5 * MIB]


def test_full_disk(tmp_path: Path, me: rz.Identity) -> None:
    """A small tmpfs: for the archive, for what is restored, and for temporary files."""
    if not is_root():
        pytest.skip("needs root to mount")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("cannot mount a tmpfs")
    try:
        source = tmp_path / "src"
        many_files(source, 10, big=[12 * MIB])
        with nothing_left(small), pytest.raises(rz.StorageError):
            write_archive(small / "a", me.recipient, source)
        write_archive(tmp_path / "a", me.recipient, source)
        with rz.open(tmp_path / "a", identities=[me]) as archive, pytest.raises(rz.StorageError):
            archive.extract(small / "out")
        assert not threads()
        with pytest.raises(rz.StorageError):
            rz.salvage(tmp_path / "a", small / "rescued", identities=[me])
        subprocess.run(["find", str(small), "-mindepth", "1", "-delete"], check=True)
        one = rz.create(small / "a", recipients=[me.recipient])
        with nothing_left_but_partial(small, one), pytest.raises(rz.StorageError):
            one.add("big", io.BytesIO(noise(12 * MIB)))
            one.commit()
    finally:
        subprocess.run(["umount", str(small)], check=True)


@contextmanager
def nothing_left_but_partial(folder: Path, archive: rz.ArchiveWriter) -> Iterator[None]:
    yield
    with pytest.raises(rz.UsageError):
        archive.commit()
    archive.discard()
    assert os.listdir(folder) == []


def test_folder_that_cannot_be_written(open_place: Path) -> None:
    def work() -> None:
        me = rz.Identity.generate()
        with pytest.raises(rz.StorageError):
            rz.create("/proc/archive", recipients=[me.recipient])
        with pytest.raises(rz.StorageError):
            rz.create("/nowhere/archive", recipients=[me.recipient])
        with pytest.raises(rz.SourceError), rz.create(open_place / "a", recipients=[me.recipient]) as archive:
            (open_place / "locked").mkdir(0)
            archive.add_tree(open_place / "locked")
        assert os.listdir(open_place) == ["locked"]

    as_nobody(work)


@pytest.mark.parametrize("workers", [1, 2, 24])
def test_checkpoints_with_any_number_of_workers(
    tmp_path: Path, me: rz.Identity, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Checkpoints may come faster than the blocks before them are sealed."""
    monkeypatch.setattr(treewriter, "_CHECKPOINT_BYTES", 200 * KIB)
    source = tmp_path / "src"
    many_files(source, 200, size=60_000, big=[5 * MIB] * 3)
    write_archive(tmp_path / "a", me.recipient, source, workers=workers, compression="zstd:12")
    rz.check(tmp_path / "a", identities=[me])
    with rz.open(tmp_path / "a", identities=[me]) as archive:
        assert not rz.compare(archive, source)
    checkpoints = [block.type for block in blocks_of((tmp_path / "a").read_bytes())].count(b"ckpt")
    assert checkpoints or workers > 1  # with many workers it may be that nothing is written before the end


def test_checkpoint_of_a_directory_that_is_too_big_for_one_node(
    tmp_path: Path, me: rz.Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(treewriter, "_CHECKPOINT_BYTES", 100 * KIB)
    monkeypatch.setattr(Pipeline, "submit", drained(Pipeline.submit))
    monkeypatch.setattr(treewriter, "LEAF_MOST", 1100)
    with rz.create(tmp_path / "a", recipients=[me.recipient]) as archive:
        for number in range(3000):
            archive.add(f"dir/{number * 7919 % 3000:04}", b"x%d" % number)
        archive.add("dir/zz", noise(5 * MIB))
        archive.add("dir/zzz", b"")
    rz.check(tmp_path / "a", identities=[me])
    data = (tmp_path / "a").read_bytes()
    checkpoint = next(block for block in blocks_of(data) if block.type == b"ckpt")
    (tmp_path / "cut").write_bytes(data[: checkpoint.offset])
    report = rz.salvage(tmp_path / "cut", tmp_path / "out", identities=[me])
    assert not report.terminated
    assert report.problem_count == 0
    assert len(os.listdir(tmp_path / "out/dir")) in (3001, 3002)
    for number in range(3000):
        assert (tmp_path / f"out/dir/{number * 7919 % 3000:04}").read_bytes() == b"x%d" % number


def test_events_and_result(tmp_path: Path, me: rz.Identity) -> None:
    source = tmp_path / "src"
    contents = many_files(source, 100)
    events: list[rz.Event] = []
    with rz.create(tmp_path / "a", recipients=[me.recipient], progress=events.append) as archive:
        archive.add_tree(source)
    result = archive.result
    assert result.content_bytes == sum(map(len, contents.values()))
    assert result.entries == 100 + 7 + 1
    assert result.stored_bytes == os.path.getsize(tmp_path / "a")
    assert isinstance(events[-1], rz.Progress)
    assert (events[-1].files, events[-1].bytes_done) == (result.entries, result.content_bytes)


def test_problems_name_paths_below_the_archives_root(open_place: Path) -> None:
    def work() -> None:
        me = rz.Identity.generate()
        (open_place / "src/sub").mkdir(parents=True)
        (open_place / "src/sub/locked").write_bytes(b"x")
        (open_place / "src/sub/locked").chmod(0)
        with rz.create(open_place / "a", recipients=[me.recipient]) as archive:
            archive.add_tree(open_place / "src", name="other")
        assert [problem.path for problem in archive.result.problems] == [b"other/sub/locked"]

    as_nobody(work)


def test_plain_archive_has_the_documented_keys(tmp_path: Path) -> None:
    """Ids of a plain archive are those of the fixed secret, so that everybody can compare contents."""
    with rz.create(tmp_path / "a", plain=True) as archive:
        archive.add("x", b"content")
    with rz.open(tmp_path / "a") as archive_:
        keys = Keys.from_secret(Suite.PLAIN, archive_.archive_id, bytes(32))
        assert keys.id_key is not None
        from rozenfmt.format import crypto

        assert archive_.entry("x").content_id == crypto.content_id(keys.id_key, crypto.digest(b"content"), 7)


def test_workers_stop_when_a_seal_fails(tmp_path: Path, me: rz.Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error on a worker comes out on the caller's thread, and nothing is left."""
    from rozenfmt.format import codecs

    calls: list[int] = []
    real: Callable[..., Any] = codecs.encode

    def encode(data: bytes, compression: Any) -> Any:
        calls.append(len(data))
        if len(calls) > 2:
            raise MemoryError
        return real(data, compression)

    monkeypatch.setattr(codecs, "encode", encode)
    (tmp_path / "out").mkdir()
    with nothing_left(tmp_path / "out"), pytest.raises(MemoryError):
        with rz.create(tmp_path / "out/a", recipients=[me.recipient]) as archive:
            for number in range(20):
                archive.add(str(number), noise(5 * MIB, number))
