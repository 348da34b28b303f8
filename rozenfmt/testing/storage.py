"""One conformance suite for every storage back-end.

Subclass ``StorageSuite`` in a test module, say where it may write, and pytest does the rest::

    from rozenfmt.testing.storage import StorageSuite


    class TestMine(StorageSuite):
        url = "sftp://nas/tests"
        storage_options = {"username": "backup"}

Each test gets a folder of its own below ``url``, and empties it afterwards.  The same without a
module: ``python -m rozenfmt.testing.storage URL``.  For a storage that is not of fsspec, override
``open``.  What a back-end cannot do is declared by the class attributes, so that a reader sees it.
"""

# The names of the tests say what they demand.
# ruff: noqa: D102

from __future__ import annotations

import contextlib
import gc
import json
import random
import subprocess
import sys
import threading
import unicodedata
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from rozenfmt.errors import ConflictError, RozenError, StorageError, UsageError
from rozenfmt.storage import ObjectInfo, RetryPolicy, open_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rozenfmt.storage import Storage, Upload

__all__ = ["StorageSuite", "pattern"]

_KIB = 1024
_MIB = 1 << 20
_WRITERS = 4
_ROUNDS = 3
_SECOND_PROCESS = """
import json, sys
from rozenfmt.errors import ConflictError
from rozenfmt.storage import open_storage
url, options, me, rounds = json.loads(sys.stdin.readline())
storage = open_storage(url, options)
for number in range(rounds):
    print("ready", flush=True)
    sys.stdin.readline()
    own = storage.create(f"own/{me}/{number}")
    own.write(me.encode() * 100)
    own.commit()
    try:
        shared = storage.create(f"shared/{number}")
        shared.write(me.encode() * 100)
        shared.commit()
        print("won", flush=True)
    except ConflictError:
        print("lost", flush=True)
"""
# Seconds after which a race whose writers failed early is given up.
_PATIENCE = 60


def pattern(size: int, seed: int = 0) -> bytes:
    """Incompressible bytes that are the same in every run.

    Args:
        size: Number of bytes.
        seed: Another seed gives other bytes.

    """
    return random.Random(f"{seed}/{size}").randbytes(size)  # noqa: S311 - not for secrets


class StorageSuite:
    """What the library relies on, as tests.

    Class attributes, for subclasses to set:

    ``url``, ``storage_options``: a folder that may be written to, and its options for fsspec.
    ``retry``: how long failed requests are made again; not for minutes, since some are to fail.
    ``part_size``: bytes of a part, for back-ends with multipart uploads; None for others.
    ``exclusive``: whether of two racing writers with ``overwrite=False`` one at most can win.
    ``exclusive_processes``: the same for writers in two processes; None for the same as ``exclusive``.
    ``shared``: whether another process sees the same objects.
    ``steady``: whether reading notices that the object is replaced meanwhile, or goes on with the old one.
    ``many``: number of objects in one folder; more than 1,000 makes S3 list in pages.
    ``odd_names``: names that the back-end must take as they are.
    ``refused_names``: names that it cannot hold and must refuse by ``UsageError`` or ``StorageError``.
    """

    url: ClassVar[str | None] = None
    storage_options: ClassVar[dict[str, Any]] = {}
    retry: ClassVar[RetryPolicy] = RetryPolicy(attempts=4, first_wait=0.2)
    part_size: ClassVar[int | None] = None
    exclusive: ClassVar[bool] = True
    exclusive_processes: ClassVar[bool | None] = None
    shared: ClassVar[bool] = True
    steady: ClassVar[bool] = False
    many: ClassVar[int] = 1100
    odd_names: ClassVar[tuple[str, ...]] = (
        "[a-z]*?.rzn",
        "{a,b}.rzn",
        "a b+c%20d&e=f;g#h.rzn",
        "-rf",
        ".hidden",
        "back\\slash",
        "q?versionId=7",
        "ünï\u0301cødé ✓ 🦀",
        unicodedata.normalize("NFC", "é"),
        unicodedata.normalize("NFD", "é"),
        "A",
        "a",
        "%41",
        "a+b",
        "a b",
        " space ",
        "...",
        ".dir/..b",
        "name.partial",
        "deep/er/still/x",
        "tab\tinside",
        "quote'\"quote",
        "~",
        "$HOME",
        "n" * 200,
    )
    refused_names: ClassVar[tuple[str, ...]] = (
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "nul\0",
    )

    @pytest.fixture
    def folder(self) -> str:
        """Address of a folder that nobody uses; it need not exist yet."""
        if self.url is None:
            pytest.fail(f"{type(self).__name__} must set url to a folder that may be written to")
        return f"{self.url.rstrip('/')}/{uuid.uuid4().hex}"

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Options for fsspec."""
        return self.storage_options

    def open(self, folder: str, options: dict[str, Any]) -> Storage:
        """Open the folder; called several times for the same one."""
        return open_storage(folder, options or None, retry=self.retry)

    @pytest.fixture
    def storage(self, folder: str, options: dict[str, Any]) -> Iterator[Storage]:
        """The folder, opened; emptied afterwards."""
        storage = self.open(folder, options)
        yield storage
        with contextlib.suppress(RozenError):
            # A test that failed has said more than this can.
            self.empty(storage)
        self.close(storage)

    @pytest.fixture
    def another(self, folder: str, options: dict[str, Any]) -> Iterator[Storage]:
        """A second client of the same folder."""
        another = self.open(folder, options)
        yield another
        self.close(another)

    # Helpers

    def empty(self, storage: Storage) -> None:
        """Delete what a test has left."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(storage.delete, [info.name for info in storage.list()]))

    def close(self, storage: Storage) -> None:
        """Close connections, where a storage has them."""
        close = getattr(storage, "close", None)
        if close is not None:
            close()

    def put(self, storage: Storage, name: str, data: bytes, *, overwrite: bool = False) -> ObjectInfo:
        """Write an object in one piece."""
        upload = self.begin(storage, name, overwrite=overwrite)
        upload.write(data)
        return upload.commit()

    def begin(self, storage: Storage, name: str, *, overwrite: bool = False) -> Upload:
        """Begin an object with the part size of the suite."""
        return storage.create(name, overwrite=overwrite, part_size=self.part_size)

    def boundary(self) -> int:
        """The size around which sizes are interesting."""
        return self.part_size or 256 * _KIB

    def assert_absent(self, storage: Storage, name: str) -> None:
        """Nobody sees the object in any way."""
        assert name not in [info.name for info in storage.list()]
        with pytest.raises(StorageError):
            storage.size(name)
        with pytest.raises(StorageError):
            storage.read(name, 0, 1)
        with pytest.raises(StorageError):
            storage.read_suffix(name, 1)
        with pytest.raises(StorageError):
            list(storage.stream(name))

    # Commit and discard

    def test_nothing_visible_before_commit(self, storage: Storage) -> None:
        data = pattern(2 * self.boundary() + 7)
        upload = self.begin(storage, "dir/a")
        self.assert_absent(storage, "dir/a")
        upload.write(data)
        assert upload.written == len(data)
        self.assert_absent(storage, "dir/a")
        assert list(storage.list()) == []
        assert upload.commit() == ObjectInfo("dir/a", len(data))
        assert list(storage.list()) == [ObjectInfo("dir/a", len(data))]
        assert b"".join(storage.stream("dir/a")) == data

    @pytest.mark.parametrize("parts", [0, 1, 2])
    def test_discard_leaves_nothing(self, storage: Storage, parts: int) -> None:
        upload = self.begin(storage, "a")
        upload.write(pattern(parts * self.boundary() + 3))
        upload.discard()
        upload.discard()
        self.assert_absent(storage, "a")
        assert list(storage.list()) == []
        with pytest.raises(UsageError):
            upload.write(b"x")
        with pytest.raises(UsageError):
            upload.commit()
        self.assert_absent(storage, "a")

    def test_commit_happens_once(self, storage: Storage) -> None:
        upload = self.begin(storage, "a")
        upload.write(b"abc")
        upload.commit()
        with pytest.raises(UsageError):
            upload.commit()
        with pytest.raises(UsageError):
            upload.write(b"d")
        upload.discard()
        assert storage.read("a", 0, 3) == b"abc"
        assert storage.size("a") == 3

    def test_collection_does_not_commit(self, storage: Storage) -> None:
        upload = self.begin(storage, "a")
        upload.write(pattern(2 * self.boundary() + 1))
        del upload
        gc.collect()
        self.assert_absent(storage, "a")
        assert list(storage.list()) == []
        self.put(storage, "a", b"later")
        assert storage.read("a", 0, 5) == b"later"

    def test_exception_does_not_commit(self, storage: Storage) -> None:
        def produce() -> None:
            upload = self.begin(storage, "a")
            upload.write(pattern(self.boundary() + 1))
            raise LookupError

        with pytest.raises(LookupError):
            produce()
        gc.collect()
        self.assert_absent(storage, "a")

    def test_misuse_does_not_fail_an_upload(self, storage: Storage) -> None:
        upload = self.begin(storage, "a")
        with pytest.raises(UsageError):
            upload.write("text")  # type: ignore[arg-type]
        upload.write(b"bytes")
        assert upload.commit().size == 5

    def test_buffers_are_taken_by_value(self, storage: Storage) -> None:
        size = self.boundary() // 2 + 1
        upload = self.begin(storage, "a")
        buffer = bytearray(size)
        for value in range(5):
            buffer[:] = bytes([value]) * size
            upload.write(memoryview(buffer) if value % 2 else buffer)
        upload.commit()
        assert b"".join(storage.stream("a")) == b"".join(bytes([value]) * size for value in range(5))

    def test_views_of_wider_items(self, storage: Storage) -> None:
        upload = self.begin(storage, "a")
        upload.write(memoryview(b"12345678").cast("I"))
        assert upload.written == 8
        upload.commit()
        assert storage.read("a", 0, 8) == b"12345678"

    # Sizes

    @pytest.mark.parametrize("delta", [-1, 0, 1])
    @pytest.mark.parametrize("parts", [0, 1, 2, 3])
    def test_sizes_around_parts(self, storage: Storage, parts: int, delta: int) -> None:
        size = parts * self.boundary() + delta
        if size < 0:
            size = 2
        data = pattern(size)
        assert self.put(storage, "a", data) == ObjectInfo("a", size)
        assert storage.size("a") == size
        assert list(storage.list()) == [ObjectInfo("a", size)]
        assert b"".join(storage.stream("a")) == data

    def test_many_small_writes(self, storage: Storage) -> None:
        data = pattern(2 * self.boundary() + 11)
        upload = self.begin(storage, "a")
        step = self.boundary() // 7
        for start in range(0, len(data), step):
            upload.write(data[start : start + step])
            upload.write(b"")
        assert upload.commit().size == len(data)
        assert b"".join(storage.stream("a")) == data

    # Reading

    def test_ranges(self, storage: Storage) -> None:
        size = self.boundary() + 100
        data = pattern(size)
        self.put(storage, "a", data)
        edges = [0, 1, self.boundary() - 1, self.boundary(), self.boundary() + 1, size - 1, size]
        for start in edges:
            for end in edges:
                if start <= end:
                    assert storage.read("a", start, end - start) == data[start:end]

    def test_short_reads_raise(self, storage: Storage) -> None:
        self.put(storage, "a", b"0123456789")
        self.put(storage, "empty", b"")
        for start, length in [(0, 11), (9, 2), (10, 1), (11, 0), (11, 1), (1 << 40, 1), (0, 1 << 40)]:
            with pytest.raises(StorageError):
                storage.read("a", start, length)
        with pytest.raises(StorageError):
            storage.read("empty", 0, 1)
        assert storage.read("empty", 0, 0) == b""
        for start, end in [(0, 11), (11, 11), (11, None)]:
            with pytest.raises(StorageError):
                list(storage.stream("a", start, end))

    def test_negative_ranges_are_misuse(self, storage: Storage) -> None:
        self.put(storage, "a", b"0123456789")
        with pytest.raises(UsageError):
            storage.read("a", -1, 1)
        with pytest.raises(UsageError):
            storage.read("a", 5, -1)
        with pytest.raises(UsageError):
            storage.read_suffix("a", -1)
        with pytest.raises(UsageError):
            list(storage.stream("a", -1))
        with pytest.raises(UsageError):
            list(storage.stream("a", 2, 1))

    def test_suffixes(self, storage: Storage) -> None:
        data = pattern(1000)
        self.put(storage, "a", data)
        for length in (0, 1, 999, 1000, 1001, 1 << 30):
            assert storage.read_suffix("a", length) == (1000, data[max(0, 1000 - length) :])
        self.put(storage, "empty", b"")
        assert storage.read_suffix("empty", 5) == (0, b"")
        assert storage.read_suffix("empty", 0) == (0, b"")

    def test_stream_of_ranges(self, storage: Storage) -> None:
        data = pattern(2 * self.boundary() + 5)
        self.put(storage, "a", data)
        for start, end in [(0, None), (1, None), (5, 5), (7, len(data) - 1), (len(data), None), (0, 1)]:
            assert b"".join(storage.stream("a", start, end)) == data[start:end]

    def test_stream_can_be_left(self, storage: Storage) -> None:
        data = pattern(self.boundary() + 5)
        self.put(storage, "a", data)
        pieces = storage.stream("a")
        assert data.startswith(next(iter(pieces)))
        del pieces
        gc.collect()
        assert storage.size("a") == len(data)

    def test_what_is_missing_raises(self, storage: Storage) -> None:
        self.put(storage, "folder/a", b"x")
        for name in ("b", "folder", "folder/b", "folder/a/b"):
            with pytest.raises(StorageError):
                storage.size(name)
            with pytest.raises(StorageError):
                storage.read(name, 0, 1)
            with pytest.raises(StorageError):
                storage.read(name, 0, 0)
            with pytest.raises(StorageError):
                storage.delete(name)
        assert storage.read("folder/a", 0, 1) == b"x"

    # Names

    def test_odd_names(self, storage: Storage) -> None:
        wrong: dict[str, Any] = {}
        stored = []
        for number, name in enumerate(self.odd_names):
            try:
                self.put(storage, name, pattern(10 + number, seed=number))
                stored.append(name)
            except RozenError as error:
                wrong[name] = error
        assert [info.name for info in storage.list()] == sorted(stored)
        for number, name in enumerate(self.odd_names):
            if name not in wrong:
                try:
                    self._check_name(storage, name, pattern(10 + number, seed=number))
                except (RozenError, AssertionError) as error:
                    wrong[name] = error
        assert not wrong, "\n".join(f"{name!r}: {error}" for name, error in wrong.items())
        for name in stored:
            storage.delete(name)
        assert list(storage.list()) == []

    def _check_name(self, storage: Storage, name: str, data: bytes) -> None:
        assert storage.size(name) == len(data)
        assert storage.read(name, 1, 8) == data[1:9]
        assert storage.read_suffix(name, 4) == (len(data), data[-4:])
        assert b"".join(storage.stream(name)) == data
        assert ObjectInfo(name, len(data)) in list(storage.list(name))
        self.put(storage, name, b"new", overwrite=True)
        assert storage.read(name, 0, 3) == b"new"

    def test_patterns_match_nothing_else(self, storage: Storage) -> None:
        self.put(storage, "ab", b"kept")
        self.put(storage, "a*", b"gone")
        self.put(storage, "[ab]b", b"gone")
        assert storage.read("a*", 0, 4) == b"gone"
        storage.delete("a*")
        storage.delete("[ab]b")
        with pytest.raises(StorageError):
            storage.delete("a?")
        assert [info.name for info in storage.list()] == ["ab"]

    def test_refused_names(self, storage: Storage) -> None:
        def attempt(name: str) -> None:
            self.put(storage, name, b"x")

        for name in self.refused_names:
            with pytest.raises((UsageError, StorageError)):
                attempt(name)
            with pytest.raises((UsageError, StorageError)):
                storage.read(name, 0, 1)
        assert list(storage.list()) == []

    # Listing and deleting

    def test_listing_order_and_prefix(self, storage: Storage) -> None:
        names = ["a", "a-b", "a.d", "a0", "ab/c", "ab/d/e", "ab.x", "b/1", "b/10", "b/2", "c/z", "é"]
        for name in names:
            self.put(storage, name, name.encode())
        sizes = {name: len(name.encode()) for name in names}
        for prefix in (
            "",
            "a",
            "a-",
            "a/",
            "ab",
            "ab/",
            "ab/d",
            "ab/d/",
            "b/1",
            "zzz",
            "zzz/",
            "b/10/x",
            "é",
        ):
            expected = sorted(name for name in names if name.startswith(prefix))
            assert list(storage.list(prefix)) == [ObjectInfo(name, sizes[name]) for name in expected]

    def test_listing_hides_uploads(self, storage: Storage) -> None:
        self.put(storage, "d/a", b"x")
        uploads = [self.begin(storage, name) for name in ("b", "d/b", "d/e/f")]
        for upload in uploads:
            upload.write(pattern(self.boundary() + 1))
        assert [info.name for info in storage.list()] == ["d/a"]
        for upload in uploads:
            upload.discard()
        assert [info.name for info in storage.list()] == ["d/a"]

    def test_listings_are_fresh(self, storage: Storage) -> None:
        for number in range(3):
            assert len(list(storage.list("d/"))) == number
            self.put(storage, f"d/{number}", b"x")
            assert storage.size(f"d/{number}") == 1
        storage.delete("d/1")
        assert [info.name for info in storage.list("d/")] == ["d/0", "d/2"]

    def test_other_clients_are_seen_at_once(self, storage: Storage, another: Storage) -> None:
        if not self.shared:
            pytest.skip("clients share nothing")
        assert list(storage.list()) == []
        with pytest.raises(StorageError):
            storage.size("d/a")
        self.put(another, "d/a", b"first")
        assert list(storage.list()) == [ObjectInfo("d/a", 5)]
        assert storage.read_suffix("d/a", 9) == (5, b"first")
        with pytest.raises(ConflictError):
            self.put(storage, "d/a", b"mine")
        self.put(another, "d/a", b"replaced", overwrite=True)
        assert storage.size("d/a") == 8
        assert storage.read("d/a", 0, 8) == b"replaced"
        assert b"".join(storage.stream("d/a")) == b"replaced"
        assert list(storage.list("d/")) == [ObjectInfo("d/a", 8)]
        another.delete("d/a")
        self.assert_absent(storage, "d/a")
        self.put(storage, "d/a", b"mine")
        assert another.read("d/a", 0, 4) == b"mine"

    def test_uploads_of_other_clients_are_left_alone(self, storage: Storage, another: Storage) -> None:
        data = pattern(2 * self.boundary() + 1)
        upload = self.begin(another, "theirs")
        upload.write(data)
        mine = self.begin(storage, "mine")
        mine.write(pattern(2 * self.boundary() + 2))
        mine.discard()
        self.put(storage, "more", pattern(self.boundary() + 1))
        assert upload.commit().size == len(data)
        assert b"".join(another.stream("theirs")) == data

    def test_deep_prefixes(self, storage: Storage) -> None:
        levels = [f"level {number}" for number in range(12)]
        names = ["/".join(levels[: depth + 1]) + "/x" for depth in range(12)]
        for name in names:
            self.put(storage, name, name.encode())
        assert [info.name for info in storage.list()] == sorted(names)
        for depth in (0, 1, 5, 10, 11):
            prefix = "/".join(levels[: depth + 1])
            expected = sorted(name for name in names if name.startswith(prefix + "/"))
            assert [info.name for info in storage.list(prefix + "/")] == expected
            assert storage.size(names[depth]) == len(names[depth])
        assert list(storage.list("/".join(levels) + "/y")) == []

    def test_many_objects(self, storage: Storage) -> None:
        names = [f"many/{number:05}" for number in range(self.many)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: self.put(storage, name, name.encode()), names))
        assert list(storage.list()) == [ObjectInfo(name, len(name)) for name in names]
        assert [info.name for info in storage.list("many/0000")] == names[:10]
        assert list(storage.list("many/x")) == []

    def test_listing_while_objects_come_and_go(self, storage: Storage) -> None:
        for number in range(20):
            self.put(storage, f"kept/{number:03}", b"x")
        found = []
        for number, info in enumerate(storage.list("kept/")):
            found.append(info.name)
            self.put(storage, f"new/{number}", b"x")
        assert found == [f"kept/{number:03}" for number in range(20)]

    def test_deletion(self, storage: Storage) -> None:
        self.put(storage, "a", b"x")
        storage.delete("a")
        self.assert_absent(storage, "a")
        with pytest.raises(StorageError):
            storage.delete("a")
        self.put(storage, "a", b"again")
        assert storage.read("a", 0, 5) == b"again"

    # Clashes

    def test_no_overwriting(self, storage: Storage) -> None:
        self.put(storage, "a", b"first")
        with pytest.raises(ConflictError):
            self.put(storage, "a", b"second")
        with pytest.raises(ConflictError):
            self.put(storage, "a", pattern(2 * self.boundary() + 1))
        assert storage.read_suffix("a", 9) == (5, b"first")
        assert list(storage.list()) == [ObjectInfo("a", 5)]

    @pytest.mark.parametrize("parts", [0, 2])
    def test_conflict_at_commit(self, storage: Storage, parts: int) -> None:
        upload = self.begin(storage, "a")
        upload.write(pattern(parts * self.boundary() + 1))
        self.put(storage, "a", b"faster")
        with pytest.raises(ConflictError):
            upload.commit()
        upload.discard()
        with pytest.raises(UsageError):
            upload.commit()
        assert storage.read_suffix("a", 9) == (6, b"faster")
        assert list(storage.list()) == [ObjectInfo("a", 6)]

    def test_overwriting(self, storage: Storage) -> None:
        self.put(storage, "a", b"first")
        upload = self.begin(storage, "a", overwrite=True)
        upload.write(b"2nd")
        assert storage.read_suffix("a", 9) == (5, b"first")
        upload.commit()
        assert storage.read_suffix("a", 9) == (3, b"2nd")
        upload = self.begin(storage, "a", overwrite=True)
        upload.write(pattern(self.boundary() + 1))
        upload.discard()
        assert storage.read_suffix("a", 9) == (3, b"2nd")
        self.put(storage, "new", b"x", overwrite=True)
        assert [info.name for info in storage.list()] == ["a", "new"]

    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize("parts", [0, 1])
    def test_racing_writers(self, storage: Storage, parts: int, *, overwrite: bool) -> None:
        size = parts * self.boundary() + 100
        contents = [pattern(size, seed=number) for number in range(_WRITERS)]
        ready = threading.Barrier(_WRITERS, timeout=_PATIENCE)
        won: list[int] = []

        def write(number: int) -> None:
            upload = self.begin(storage, "a", overwrite=overwrite)
            try:
                upload.write(contents[number])
                ready.wait()
                upload.commit()
            except ConflictError:
                return
            won.append(number)

        errors = _in_threads([lambda number=number: write(number) for number in range(_WRITERS)])  # type: ignore[misc]
        if self.exclusive and not overwrite:
            assert errors == []
            assert len(won) == 1
        assert b"".join(storage.stream("a")) in [contents[number] for number in won]
        assert list(storage.list()) == [ObjectInfo("a", size)]

    def test_writers_in_processes(self, storage: Storage, folder: str, options: dict[str, Any]) -> None:
        plain = {
            key: value for key, value in options.items() if isinstance(value, (str, int, float, list, tuple, dict))
        }
        if not self.shared or type(self).open is not StorageSuite.open:
            pytest.skip("another process could not open it")
        exclusive = self.exclusive if self.exclusive_processes is None else self.exclusive_processes
        with _process(folder, plain, "b") as one, _process(folder, plain, "c") as two:
            for number in range(_ROUNDS):
                for process in (one, two):
                    assert process.stdout is not None
                    assert process.stdout.readline() == "ready\n"
                for process in (one, two):
                    assert process.stdin is not None
                    process.stdin.write("go\n")
                    process.stdin.flush()
                results = [process.stdout.readline().strip() for process in (one, two) if process.stdout]
                assert set(results) <= {"won", "lost"}
                assert "won" in results
                if exclusive:
                    assert sorted(results) == ["lost", "won"]
                winners = [me * 100 for me, result in zip((b"b", b"c"), results, strict=True) if result == "won"]
                assert storage.read(f"shared/{number}", 0, 100) in winners
        expected = sorted(f"own/{me}/{number}" for me in "bc" for number in range(_ROUNDS))
        assert [info.name for info in storage.list("own/")] == expected

    def test_replaced_while_read(self, storage: Storage, another: Storage) -> None:
        writer = another if self.shared else storage
        size = 20 * _MIB
        old, new = pattern(size, seed=1), pattern(size, seed=2)
        self.put(storage, "a", old)
        pieces = storage.stream("a")
        got = [next(pieces)]
        self.put(writer, "a", new, overwrite=True)
        with contextlib.suppress(StorageError):
            got += pieces
        data = b"".join(got)
        if self.steady:
            assert old.startswith(data)
        position = 0
        for piece in got:
            assert piece in (old[position : position + len(piece)], new[position : position + len(piece)])
            position += len(piece)
        assert b"".join(storage.stream("a")) == new

    def test_threads_share_a_storage(self, storage: Storage) -> None:
        contents = {f"t/{number}": pattern(self.boundary() + number, seed=number) for number in range(_WRITERS)}

        def work(name: str) -> None:
            self.put(storage, name, contents[name])
            assert b"".join(storage.stream(name)) == contents[name]

        assert _in_threads([lambda name=name: work(name) for name in contents]) == []  # type: ignore[misc]
        assert [info.name for info in storage.list("t/")] == sorted(contents)


@contextlib.contextmanager
def _process(folder: str, options: dict[str, Any], name: str) -> Iterator[subprocess.Popen[str]]:
    """A writer in a process of its own."""
    with subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", _SECOND_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        try:
            # Not as an argument, where others would see the secrets.
            process.stdin.write(json.dumps([folder, options or None, name, _ROUNDS]) + "\n")
            process.stdin.flush()
            yield process
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def _in_threads(work: list[Callable[[], None]]) -> list[BaseException]:
    """Run all at once; returns what they raised."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


if __name__ == "__main__":
    from rozenfmt.testing.run import main

    sys.exit(main())
