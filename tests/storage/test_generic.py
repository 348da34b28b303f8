"""What is particular to other file systems of fsspec: their file objects, and their moves."""

from __future__ import annotations

import gc
import os
import uuid
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

from rozenfmt.errors import StorageError, UsageError
from rozenfmt.storage import ObjectInfo, RetryPolicy
from rozenfmt.storage.generic import GenericStorage

QUICK = RetryPolicy(attempts=3, budget=5.0, first_wait=0.01, longest_wait=0.05)


class BufferedFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file that publishes when it is closed, as those of the object stores do."""

    def _initiate_upload(self) -> None:
        self.parts: list[bytes] = []

    def _upload_chunk(self, final: bool = False) -> bool:
        self.fs.check("upload")
        self.parts.append(self.buffer.getvalue())
        if final:
            self.fs.pipe_file(self.path, b"".join(self.parts))
            self.fs.published.append(self.path)
        return True


class BufferedFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """A file system with such files, which fails as it is told."""

    protocol = "buffered"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("buffered://").strip("/")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, global_store=False, **options)
        self.failures: dict[str, list[Exception]] = {}
        self.published: list[str] = []

    def check(self, what: str) -> None:
        if self.failures.get(what):
            raise self.failures[what].pop(0)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "wb":
            return super()._open(path, mode, **options)
        return BufferedFile(self, path, mode, block_size=1000)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
        with super()._open(path, "wb") as file:
            file.write(value)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        self.check("copy")
        super().cp_file(path1, path2, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self.check("read")
        data: bytes = super().cat_file(path, start=start, end=end, **options)
        return data


@pytest.fixture
def storage() -> GenericStorage:
    fsspec.register_implementation("buffered", BufferedFileSystem, clobber=True)
    return GenericStorage("buffered://folder", retry=QUICK)


def names(storage: GenericStorage) -> list[str]:
    return sorted(storage.fs.store)


def test_files_that_publish_when_closed(storage: GenericStorage) -> None:
    upload = storage.create("a")
    upload.write(b"x" * 2500)
    assert list(storage.list()) == []
    assert upload.commit() == ObjectInfo("a", 2500)
    assert names(storage) == ["/folder/a"]


@pytest.mark.parametrize("size", [10, 2500])
def test_discard_and_collection_publish_nothing(storage: GenericStorage, size: int) -> None:
    upload = storage.create("a")
    upload.write(b"x" * size)
    upload.discard()
    assert names(storage) == []
    upload = storage.create("a")
    upload.write(b"x" * size)
    del upload
    gc.collect()
    assert list(storage.list()) == []
    assert "/folder/a" not in names(storage)


def test_failed_write_is_terminal(storage: GenericStorage) -> None:
    upload = storage.create("a")
    upload.write(b"x" * 900)
    storage.fs.failures["upload"] = [OSError("once")]
    with pytest.raises(StorageError):
        upload.write(b"y" * 900)
    with pytest.raises(UsageError):
        upload.write(b"z")
    with pytest.raises(UsageError):
        upload.commit()
    upload.discard()
    del upload
    gc.collect()
    assert storage.fs.published == []
    assert names(storage) == []


@pytest.mark.parametrize("what", ["upload", "copy"])
def test_failed_commit_leaves_nothing(storage: GenericStorage, what: str) -> None:
    upload = storage.create("a")
    upload.write(b"x" * 10)
    storage.fs.failures[what] = [OSError("once")]
    with pytest.raises(StorageError):
        upload.commit()
    del upload
    gc.collect()
    assert names(storage) == []


def test_torn_copy_is_removed(storage: GenericStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def tear(fs: BufferedFileSystem, path1: str, path2: str) -> None:
        fs.pipe_file(path2, fs.cat_file(path1)[:-1])
        raise OSError("half-way")

    monkeypatch.setattr(BufferedFileSystem, "cp_file", tear)
    upload = storage.create("a")
    upload.write(b"x" * 10)
    with pytest.raises(StorageError):
        upload.commit()
    assert names(storage) == []


def test_failed_replacement_keeps_what_was_there(storage: GenericStorage) -> None:
    for data, fails in ((b"old", False), (b"new", True)):
        upload = storage.create("a", overwrite=True)
        upload.write(data)
        if fails:
            storage.fs.failures["copy"] = [OSError("once")]
            with pytest.raises(StorageError):
                upload.commit()
        else:
            upload.commit()
    assert storage.read("a", 0, 3) == b"old"
    assert names(storage) == ["/folder/a"]


def test_lost_bytes_are_noticed(storage: GenericStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def lossy(file: BufferedFile, final: bool = False) -> bool:
        if final:
            file.fs.pipe_file(file.path, file.buffer.getvalue()[:-1])
        return True

    monkeypatch.setattr(BufferedFile, "_upload_chunk", lossy)
    upload = storage.create("a")
    upload.write(b"x" * 10)
    with pytest.raises(StorageError):
        upload.commit()
    assert names(storage) == []


def test_reading_is_repeated(storage: GenericStorage) -> None:
    upload = storage.create("a")
    upload.write(b"0123456789")
    upload.commit()
    storage.fs.failures["read"] = [ConnectionError(), TimeoutError()]
    assert storage.read("a", 2, 3) == b"234"
    storage.fs.failures["read"] = [PermissionError(), ConnectionError()]
    with pytest.raises(StorageError) as caught:
        storage.read("a", 2, 3)
    assert caught.value.fatal
    assert len(storage.fs.failures["read"]) == 1


def test_secrets_are_not_told(storage: GenericStorage) -> None:
    leaky = GenericStorage("buffered://folder", {"token": "my-secret-token"}, retry=QUICK)
    upload = leaky.create("a")
    upload.write(b"x")
    leaky.fs.failures["upload"] = [OSError("refused for my-secret-token")]
    with pytest.raises(StorageError) as caught:
        upload.commit()
    assert "my-secret-token" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert storage.url == leaky.url


def test_root_of_the_memory_file_system() -> None:
    storage = GenericStorage("memory://")
    name = uuid.uuid4().hex
    upload = storage.create(name)
    upload.write(b"x")
    upload.commit()
    assert ObjectInfo(name, 1) in list(storage.list(name[:30]))
    storage.delete(name)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork(storage: GenericStorage) -> None:
    child = os.fork()
    if child == 0:
        # Only the exit status leaves the child: pytest must not run in it.
        status = 1
        try:
            storage.create("a")
        except UsageError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
