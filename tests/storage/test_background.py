"""Writes on a thread come in order, and what goes wrong there is told."""

from __future__ import annotations

import errno
import gc
import os
import random
from pathlib import Path

import pytest

from rozenfmt.errors import StorageError
from rozenfmt.storage.background import BackgroundWriter
from rozenfmt.storage.local import LocalStorage


def test_all_sizes_and_kinds_in_order(tmp_path: Path) -> None:
    chance = random.Random(1)
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    writer = BackgroundWriter(fd)
    expected = b""
    for size in [1, 300_000, 5, 2_000_000, 262_144, 262_143, 0, 700_000] * 2:
        data = chance.randbytes(size)
        expected += data
        buffer = bytearray(data)
        writer.write(memoryview(buffer) if chance.random() < 0.5 else data)
        buffer[:] = bytes(size)  # a caller may use its buffer again
    writer.settle()
    assert (tmp_path / "file").read_bytes() == expected
    writer.stop()
    os.close(fd)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_told_with_the_next_call() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    for then in ("settle", "write"):
        writer = BackgroundWriter(fd)
        writer.write(bytes(1 << 20))
        with pytest.raises(OSError, match="space") as caught:
            writer.settle() if then == "settle" else writer.write(b"more")
        assert caught.value.errno == errno.ENOSPC
        writer.stop()
    os.close(fd)


def test_an_upload_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(str(tmp_path))
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    upload = storage.create("object")
    upload.write(b"small")
    upload.write(bytes(1 << 20))
    with pytest.raises(StorageError):
        upload.commit()
    upload.discard()
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_is_dropped_gives_its_descriptor_back(tmp_path: Path) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    upload = LocalStorage(str(tmp_path)).create("object")
    upload.write(bytes(8 << 20))
    del upload
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
