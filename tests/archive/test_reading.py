"""``open``: seekable contents, few requests, little read."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as s

import rozenfmt as rz
from rozenfmt.storage.local import LocalStorage
from rozenfmt.testing.servers import Server

from .helpers import MIB, noise, write_archive

SIZE = 9 * MIB + 12_345


@dataclass
class Files:
    archive: rz.Archive
    contents: dict[str, bytes]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    place = tmp_path_factory.mktemp("reading")
    me = rz.Identity.generate()
    source = place / "src"
    source.mkdir()
    (source / "parts").write_bytes(noise(SIZE))
    (source / "small").write_bytes(noise(70_000, 2))
    (source / "empty").touch()
    with open(source / "sparse", "wb") as file:
        file.write(noise(10_000, 3))
        file.seek(5 * MIB)
        file.write(noise(5 * MIB, 4))
        file.seek(20 * MIB)
        file.write(b"x")
        file.truncate(23 * MIB + 1)
    contents = {name: (source / name).read_bytes() for name in ("parts", "small", "empty", "sparse")}
    write_archive(place / "a", me.recipient, source)
    with rz.open(place / "a", identities=[me]) as archive:
        yield Files(archive, contents)


STEPS = s.lists(
    s.one_of(
        s.tuples(s.just("seek"), s.integers(0, 24 * MIB), s.just(0)),
        s.tuples(s.just("seek"), s.integers(-6 * MIB, 6 * MIB), s.just(1)),
        s.tuples(s.just("seek"), s.integers(-24 * MIB, MIB), s.just(2)),
        s.tuples(s.just("seek"), s.sampled_from([4 * MIB, 8 * MIB, 5 * MIB, 10 * MIB, 20 * MIB]), s.just(0)),
        s.tuples(s.just("read"), s.integers(0, 5 * MIB), s.just(0)),
        s.tuples(s.just("read"), s.integers(0, 50), s.just(0)),
        s.tuples(s.just("readinto"), s.integers(0, 2 * MIB), s.just(0)),
        s.tuples(s.just("peek"), s.just(0), s.just(0)),
        s.tuples(s.just("rest"), s.just(0), s.just(0)),
    ),
    max_size=8,
)


@pytest.mark.parametrize("name", ["parts", "sparse", "small", "empty"])
@given(steps=STEPS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_like_the_original(files: Files, name: str, steps: list[tuple[str, int, int]]) -> None:
    data = files.contents[name]
    model = io.BytesIO(data)
    with files.archive.open(f"src/{name}") as file:
        assert file.readable()
        assert file.seekable()
        assert not file.writable()
        for action, number, whence in steps:
            if action == "seek":
                start = {0: 0, 1: model.tell(), 2: len(data)}[whence]
                if start + number < 0:
                    with pytest.raises((ValueError, OSError)):
                        file.seek(number, whence)
                    continue
                assert file.seek(number, whence) == model.seek(number, whence)
            elif action == "read":
                assert file.read(number) == model.read(number)
            elif action == "readinto":
                one, two = bytearray(number), bytearray(number)
                assert file.readinto(one) == model.readinto(two)
                assert one == two
            elif action == "peek":
                peeked = file.peek(10)
                assert peeked == data[model.tell() : model.tell() + len(peeked)]
            else:
                assert file.read() == model.read()
            assert file.tell() == model.tell()
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_what_has_no_content(files: Files) -> None:
    for wrong in ("src", "src/none", "none", ""):
        with pytest.raises(rz.UsageError):
            files.archive.open(wrong)
    assert files.archive.read("/src/small/") == files.contents["small"]
    for entry in files.archive:
        if entry.kind is rz.Kind.FILE:
            with files.archive.open(entry) as file:
                assert file.read() == files.contents[entry.name]


def test_many_threads(files: Files) -> None:
    def work(number: int) -> bool:
        name = ("parts", "sparse", "small")[number % 3]
        with files.archive.open(f"src/{name}") as file:
            file.seek(number * 1000)
            return file.read(100_000) == files.contents[name][number * 1000 : number * 1000 + 100_000]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(60)))


class Counter:
    """Counts what a storage is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, storage: type) -> None:
        self.requests = 0
        self.bytes = 0
        for name in ("read", "read_suffix", "size"):
            monkeypatch.setattr(storage, name, self._counted(getattr(storage, name)))

    def _counted(self, real: Any) -> Any:
        def counted(*args: Any) -> Any:
            found = real(*args)
            self.requests += 1
            self.bytes += len(found[1] if isinstance(found, tuple) else found) if not isinstance(found, int) else 0
            return found

        return counted


def _big(path: str, me: rz.Identity, directories: int, files: int, size: int, **options: Any) -> None:
    with rz.create(path, recipients=[me.recipient], compression="none", **options) as archive:
        block = noise(size)
        for directory in range(directories):
            for number in range(files):
                archive.add(f"d{directory:03}/f{number:05}", number.to_bytes(8, "little") + block[8:])


def test_small_file_from_a_big_archive(tmp_path: Path, me: rz.Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 MB on disk: at most four requests and 8 MiB, counting keys and look-up."""
    path = str(tmp_path / "a")
    _big(path, me, 30, 100, 100_000)
    counter = Counter(monkeypatch, LocalStorage)
    with rz.open(path, identities=[me]) as archive:
        data = archive.read("d017/f00042")
        assert data[:8] == (42).to_bytes(8, "little")
        assert archive.requests == (counter.requests, counter.bytes)
    assert counter.requests <= 4
    assert counter.bytes <= 8 * MIB


@pytest.mark.parametrize("files", [3_000, 30_000])
def test_few_requests_among_many_files(
    tmp_path: Path, me: rz.Identity, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    path = str(tmp_path / "a")
    _big(path, me, 1, files, 3_000)
    counter = Counter(monkeypatch, LocalStorage)
    with rz.open(path, identities=[me]) as archive:
        assert archive.read(f"d000/f{files // 2:05}")[:8] == (files // 2).to_bytes(8, "little")
    assert counter.bytes <= 8 * MIB
    assert counter.requests <= (4 if files == 3_000 else 6)


def test_small_file_from_s3(moto_s3: Server, me: rz.Identity) -> None:
    url = f"{moto_s3.url}/reading.rzn"
    _big(url, me, 10, 30, 100_000, storage_options=moto_s3.storage_options)
    with rz.open(url, identities=[me], storage_options=moto_s3.storage_options) as archive:
        assert archive.read("d007/f00017")[:8] == (17).to_bytes(8, "little")
        requests, size = archive.requests
    assert requests <= 4
    assert size <= 8 * MIB


@pytest.mark.slow
def test_small_file_from_1_gib(tmp_path: Path, me: rz.Identity, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "a")
    _big(path, me, 110, 100, 100_000)
    assert os.path.getsize(path) > 1 << 30
    with rz.open(path, identities=[me]) as archive:
        assert archive.read("d077/f00042")[:8] == (42).to_bytes(8, "little")
        requests, size = archive.requests
    with capsys.disabled():
        print(f"\n1 GiB, 11,000 files: {requests} requests, {size} bytes")  # noqa: T201 -- a measurement
    assert requests <= 4
    assert size <= 8 * MIB
