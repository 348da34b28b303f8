"""What is particular to local folders: publication, crashes, full disks."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from rozenfmt.errors import ConflictError, StorageError, UsageError
from rozenfmt.storage import ObjectInfo, local
from rozenfmt.storage.local import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20

WRITER = """
import sys
from rozenfmt.storage import open_storage
storage = open_storage(sys.argv[1])
upload = storage.create("victim")
upload.write(b"x" * 3_000_000)
print("written", flush=True)
sys.stdin.read()
"""

FILL = """
import resource, sys
from rozenfmt.errors import StorageError
from rozenfmt.storage import open_storage
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
upload = open_storage(sys.argv[1]).create("big")
try:
    for _ in range(4):
        upload.write(bytes(1 << 19))
except StorageError as error:
    upload.discard()
    print(error)
"""


def test_killed_writer_leaves_nothing_visible(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    storage = LocalStorage(str(tmp_path))
    assert list(storage.list()) == []
    with pytest.raises(StorageError):
        storage.size("victim")
    # What it left does not stand in the way of the next attempt.
    assert [name for name in os.listdir(tmp_path) if not name.endswith(".partial")] == []
    upload = storage.create("victim")
    upload.write(b"again")
    assert upload.commit() == ObjectInfo("victim", 5)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        storage = LocalStorage(str(tmp_path))
        kept = storage.create("kept")
        kept.write(b"x")
        kept.commit()
        upload = storage.create("big")
        with pytest.raises(StorageError) as caught:
            for _ in range(4):
                upload.write(bytes(MIB // 2))
        assert caught.value.fatal
        assert caught.value.object == "big"
        with pytest.raises(UsageError):
            upload.write(b"x")
        with pytest.raises(UsageError):
            upload.commit()
        upload.discard()
        assert os.listdir(tmp_path) == ["kept"]
        again = storage.create("big")
        again.write(bytes(MIB // 2))
        assert again.commit().size == MIB // 2


def test_file_size_limit(tmp_path: Path) -> None:
    assert resource.RLIMIT_FSIZE >= 0
    done = subprocess.run([sys.executable, "-c", FILL, str(tmp_path)], check=True, capture_output=True, text=True)
    assert str(tmp_path) in done.stdout
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_mode_follows_umask(tmp_path: Path, *, overwrite: bool) -> None:
    before = os.umask(0o027)
    try:
        upload = LocalStorage(str(tmp_path)).create("a", overwrite=overwrite)
        upload.write(b"x")
        upload.commit()
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "a").stat().st_nlink == 1
    assert os.listdir(tmp_path) == ["a"]


def test_upload_lies_beside_its_destination(tmp_path: Path) -> None:
    upload = LocalStorage(str(tmp_path)).create("folder/name")
    (partial,) = os.listdir(tmp_path / "folder")
    assert partial.startswith(".name.rozen-")
    assert partial.endswith(".partial")
    upload.discard()
    assert os.listdir(tmp_path / "folder") == []


def test_root_of_one_object_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        LocalStorage(str(tmp_path / "unmounted"), make_root=False).create("a")
    assert os.listdir(tmp_path) == []
    LocalStorage(str(tmp_path / "vault")).create("a/b").discard()
    assert os.listdir(tmp_path) == ["vault"]
    with pytest.raises(StorageError):
        LocalStorage(str(tmp_path / "no" / "parent")).create("a")


def test_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    storage = LocalStorage(str(tmp_path))
    for name in ("fifo", "folder"):
        with pytest.raises(StorageError):
            storage.read(name, 0, 1)
        with pytest.raises(StorageError):
            list(storage.stream(name))
    assert list(storage.list()) == []


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"12")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "circle").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "dangling").symlink_to(root / "nothing")
    (root / "file").symlink_to(tmp_path / "elsewhere" / "x")
    assert list(LocalStorage(str(root)).list()) == [ObjectInfo("file", 2), ObjectInfo("linked/x", 2)]


def test_size_that_changed_is_noticed(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    upload = storage.create("a")
    upload.write(b"0123456789")
    (partial,) = os.listdir(tmp_path)
    os.truncate(tmp_path / partial, 4)
    with pytest.raises(StorageError):
        upload.commit()
    assert os.listdir(tmp_path) == []


def test_truncation_while_streaming_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(12 * MIB))
    pieces = LocalStorage(str(tmp_path)).stream("a")
    next(pieces)
    os.truncate(tmp_path / "a", 5 * MIB)
    with pytest.raises(StorageError):
        list(pieces)


def refuse_links(*_arguments: object, **_options: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("renameat2", [True, False])
def test_publication_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, renameat2: bool) -> None:
    monkeypatch.setattr(os, "link", refuse_links)
    if not renameat2:
        monkeypatch.setattr(local, "_renameat2", lambda: None)
    storage = LocalStorage(str(tmp_path))
    first, second = storage.create("a"), storage.create("a")
    first.write(b"first")
    second.write(b"second")
    first.commit()
    with pytest.raises(ConflictError):
        second.commit()
    assert os.listdir(tmp_path) == ["a"]
    assert storage.read("a", 0, 5) == b"first"


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_failure_to_publish_discards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    upload = LocalStorage(str(tmp_path)).create("a")
    upload.write(b"x")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError) as caught:
        upload.commit()
    assert not caught.value.fatal
    assert os.listdir(tmp_path) == []
    with pytest.raises(UsageError):
        upload.commit()


def test_everything_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, link = os.fsync, os.link

    def seen_fsync(fd: int) -> None:
        events.append("sync " + os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    def seen_link(source: str, target: str) -> None:
        events.append("link")
        link(source, target)

    upload = LocalStorage(str(tmp_path)).create("folder/a")
    upload.write(b"x")
    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "link", seen_link)
    upload.commit()
    assert [event.partition(".")[0] for event in events] == ["sync ", "link", "sync folder"]
