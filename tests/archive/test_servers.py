"""Whole archives on S3, by moto and by rclone."""

from __future__ import annotations

from pathlib import Path

import pytest

import rozenfmt as rz
from rozenfmt.storage import resolve
from rozenfmt.testing.servers import Server

from .helpers import MIB, assert_only_right, many_files, threads


def names(url: str, server: Server) -> set[str]:
    storage, own = resolve(url, server.storage_options)
    return {item.name for item in storage.list() if item.name == own}


def test_life_of_an_archive(tmp_path: Path, s3: Server, me: rz.Identity) -> None:
    """Nothing is visible before the commit; open, check, extract, join and salvage work as on a disk."""
    options = s3.storage_options
    url = f"{s3.url}/life.rzn"
    contents = many_files(tmp_path / "src", 40, big=[9 * MIB, 5 * MIB])
    with rz.create(url, recipients=[me.recipient], storage_options=options) as writer:
        writer.add_tree(tmp_path / "src")
        assert not names(url, s3)
    assert names(url, s3)
    with pytest.raises(rz.ConflictError), rz.create(url, recipients=[me.recipient], storage_options=options) as writer:
        writer.add("x", b"")
    assert rz.check(url, identities=[me], storage_options=options).level == "contents"
    assert rz.check(url, storage_options=options).level == "stored"
    with rz.open(url, identities=[me], storage_options=options) as archive:
        assert not rz.compare(archive, tmp_path / "src")
        assert archive.extract(tmp_path / "out").problem_count == 0
    assert not rz.compare(tmp_path / "src", tmp_path / "out/src")
    report = rz.salvage(url, tmp_path / "saved", identities=[me], storage_options=options)
    assert report.problem_count == 0
    assert assert_only_right(tmp_path / "saved", contents) == contents
    joined = f"{s3.url}/joined.rzn"
    rz.join(joined, [url], storage_options=options)
    assert len(rz.members(joined, storage_options=options)) == 2
    with rz.open(joined, identities=[me], storage_options=options) as archive:
        assert archive.read("src/d0/f0000") == contents["src/d0/f0000"]
    assert not threads()


def test_discarded(s3: Server, me: rz.Identity, tmp_path: Path) -> None:
    many_files(tmp_path / "src", 3, big=[9 * MIB])
    url = f"{s3.url}/discarded.rzn"
    with (
        pytest.raises(ZeroDivisionError),
        rz.create(url, recipients=[me.recipient], storage_options=s3.storage_options) as writer,
    ):
        writer.add_tree(tmp_path / "src")
        raise ZeroDivisionError
    assert not names(url, s3)
    with pytest.raises(rz.StorageError):
        rz.open(url, identities=[me], storage_options=s3.storage_options)
    with pytest.raises(rz.StorageError):
        rz.check(url, storage_options=s3.storage_options)


def test_damaged_on_s3(s3: Server, me: rz.Identity, tmp_path: Path) -> None:
    contents = many_files(tmp_path / "src", 10, big=[5 * MIB])
    url = f"{s3.url}/damaged.rzn"
    with rz.create(tmp_path / "a", recipients=[me.recipient]) as writer:
        writer.add_tree(tmp_path / "src")
    data = (tmp_path / "a").read_bytes()
    storage, name = resolve(url, s3.storage_options)
    upload = storage.create(name)
    upload.write(data[: 6 * MIB // 2])
    upload.commit()
    with pytest.raises(rz.ArchiveError):
        rz.open(url, identities=[me], storage_options=s3.storage_options)
    with pytest.raises(rz.TruncatedError):
        rz.check(url, identities=[me], storage_options=s3.storage_options)
    report = rz.salvage(url, tmp_path / "saved", identities=[me], storage_options=s3.storage_options)
    assert not report.terminated
    assert_only_right(tmp_path / "saved", contents)


def test_nothing_there(s3: Server, me: rz.Identity) -> None:
    for refused in (rz.open, rz.check):
        with pytest.raises(rz.StorageError):
            refused(f"{s3.url}/nothing", identities=[me], storage_options=s3.storage_options)
