"""A host needs no more of the storage than vault.md allows it; what a storage can do to a vault is noticed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import AioSession  # type: ignore[import-untyped]

import rozenfmt as rz
from rozenfmt.errors import ConflictError, RozenError, SignatureError, StorageError
from rozenfmt.storage import ObjectInfo, Storage, Upload, open_storage
from rozenfmt.testing.servers import moto_server
from rozenfmt.vault import layout, loading
from rozenfmt.vault.hostkey import HostKey
from rozenfmt.vault.vault import Vault

from .runs import contents
from .site import Site, write
from .test_killed import noise

pytestmark = pytest.mark.usefixtures("untimed")


class HostRights:
    """A storage that lets a host do what vault.md demands of it, and takes note of what else was tried."""

    def __init__(self, storage: Storage, host: HostKey) -> None:
        self._storage = storage
        one = host.host_id.hex() + "/"
        self.own = [layout.META + one, layout.DATA + one, layout.ARENA + one]
        self.listed = [layout.EDITIONS, *self.own, layout.GONE + one]
        self.url = storage.url
        self.refused: list[str] = []
        self.created: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)  # what is about local folders

    def _refuse(self, call: str) -> StorageError:
        self.refused.append(call)
        return StorageError(f"{call}: access denied", fatal=True)

    def _readable(self, call: str, name: str) -> None:
        if not name.startswith(layout.EDITIONS):
            raise self._refuse(f"{call} {name}")

    def size(self, name: str) -> int:
        self._readable("size", name)
        return self._storage.size(name)

    def read(self, name: str, start: int, length: int) -> bytes:
        self._readable("read", name)
        return self._storage.read(name, start, length)

    def read_suffix(self, name: str, length: int) -> tuple[int, bytes]:
        self._readable("read_suffix", name)
        return self._storage.read_suffix(name, length)

    def stream(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self._readable("stream", name)
        return self._storage.stream(name, start, end)

    def create(self, name: str, *, overwrite: bool = False, **options: Any) -> Upload:
        if overwrite or not name.startswith(tuple(self.own)) or name in {one.name for one in self._storage.list()}:
            raise self._refuse(f"create {name}")
        self.created.append(name)
        return self._storage.create(name, **options)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if not prefix.startswith(tuple(self.listed)):
            raise self._refuse(f"list {prefix}")
        return self._storage.list(prefix)

    def delete(self, name: str) -> None:
        raise self._refuse(f"delete {name}")


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Callable[[Site], HostRights]:
    """From now on, every vault of the site is opened with a host's rights."""

    def guard(site: Site) -> HostRights:
        rights = HostRights(open_storage(site.url), site.host)
        monkeypatch.setattr("rozenfmt.storage.open_storage", lambda *_, **__: rights)
        return rights

    return guard


def fill(site: Site) -> None:
    for number in range(8):
        write(site.source / f"dir{number % 2}/file {number}", noise(200_000, number))
    write(site.source / "image", noise(3_000_000))
    write(site.source / "empty")


@pytest.mark.parametrize("mode", ["snapshot", "worm"])
def test_a_host_needs_no_more(
    site: Site, guarded: Callable[[Site], HostRights], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    fill(site)
    rights = guarded(site)
    snapshots = [site.backup(mode=mode, data_size=500_000)]
    snapshots.append(site.backup(mode=mode))
    write(site.source / "dir0/new", "new")
    (site.source / "dir1").rename(site.source / "moved")
    snapshots.append(site.backup(mode=mode))
    write(site.source / "image", noise(3_000_000, 1))
    with suppress(ConflictError):
        site.backup(mode=mode)
    for answer in ("skip", "keep-both", "accept"):
        write(site.source / "image", noise(3_000_000, answer))
        snapshots.append(site.backup(mode=mode, on_conflict=answer))
    shutil.rmtree(site.cache)
    snapshots.append(site.backup(mode=mode))
    assert rights.refused == []
    assert len(rights.created) == len(set(rights.created))
    monkeypatch.undo()
    site.check(snapshots[-1].snapshot_id)
    with site.reader() as vault:
        assert len(vault.snapshots()) == len(snapshots) + 1
        assert not vault.problems


def test_what_is_missing_is_found_without_reading(site: Site, guarded: Callable[[Site], HostRights]) -> None:
    fill(site)
    site.backup(data_size=500_000)
    site.objects("data")[0].unlink()
    site.objects("data")[-1].write_bytes(b"cut off")
    rights = guarded(site)
    done = site.backup(data_size=500_000)
    assert len(done.archives) > 1
    assert rights.refused == []


def test_an_existing_name_is_never_written(site: Site, guarded: Callable[[Site], HostRights]) -> None:
    """The guard itself: it refuses."""
    fill(site)
    rights = guarded(site)
    done = site.backup()
    with pytest.raises(StorageError):
        rights.create(done.archives[0][0])
    for call in (rights.size, rights.delete, lambda name: rights.read(name, 0, 1), rights.list):
        with pytest.raises(StorageError):
            call(done.archives[0][0].replace(site.host.host_id.hex(), "0" * 32))
    assert len(rights.refused) == 5


def test_requests_of_a_host_on_s3(site: Site) -> None:
    """By what goes over the wire: no object is asked for but editions, and none is deleted."""
    fill(site)
    with moto_server() as server:
        session = AioSession()
        calls: list[tuple[str, str]] = []

        def note(model: Any, params: Any, **_: Any) -> None:
            calls.append((model.name, params["url_path"]))

        session.register("before-call.s3", note)
        options = {**server.storage_options, "session": session}
        url = f"{server.url}/vault"
        with Vault.init(url, owner=site.me, storage_options=options) as vault:
            host = vault.enrol("laptop")
        calls.clear()
        for number in range(3):
            write(site.source / "image", noise(12_000_000, number))
            with Vault.open(url, host=host, cache_dir=site.cache, storage_options=options) as vault:
                vault.backup([site.source], mode="worm", on_conflict="accept", data_size=6_000_000)
        wire = list(calls)
        with Vault.open(url, identities=[site.me], storage_options=options) as vault:
            assert vault.snapshots()[-1].read("source/image") == noise(12_000_000, 2)
    assert {name for name, _ in wire} <= {
        *("ListObjectsV2", "GetObject", "PutObject"),
        *("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"),
    }
    assert {"GetObject", "PutObject", "UploadPart"} <= {name for name, _ in wire}
    assert all("/vault/editions/" in path for name, path in wire if name == "GetObject")
    own = tuple(f"/prefix/vault/{folder}/{host.host_id.hex()}/" for folder in ("meta", "data", "arena"))
    assert all(any(one in path for one in own) for name, path in wire if name not in ("ListObjectsV2", "GetObject"))


# --- storage that is hostile ----------------------------------------------------------------------


class Twice:
    """A vault with two hosts and two snapshots of each."""

    def __init__(self, site: Site) -> None:
        self.site = site
        with site.reader() as vault:
            self.other = vault.enrol("other")
        fill(site)
        self.ids: list[str] = []
        for number in range(2):
            write(site.source / "changing", f"number {number}" * 1_000)
            self.ids.append(site.backup().snapshot_id)
            self.ids.append(site.backup(host=self.other).snapshot_id)

    @property
    def vault(self) -> Path:
        return Path(self.site.url)

    def objects(self, folder: str, host: HostKey) -> list[Path]:
        return self.site.objects(f"{folder}/{host.host_id.hex()}")

    def meta(self, number: int) -> Path:
        (found,) = self.vault.glob(f"meta/*/*-{self.ids[number]}.rzn")
        return found

    def seen(self, *lost: int) -> list[str]:
        """All snapshots but these are whole; returns what is told about the others."""
        with self.site.reader() as vault:
            found = {snapshot.id for snapshot in vault.snapshots()}
            assert found == {one for number, one in enumerate(self.ids) if number not in lost}
            for one in found:
                data = contents(vault.snapshot(one))
                assert data["source/image"] == noise(3_000_000)
                assert data["source/changing"] == f"number {min(self.ids.index(one) // 2, 1)}".encode() * 1_000
            return vault.problems


@pytest.fixture
def twice(site: Site) -> Twice:
    return Twice(site)


def test_nothing_hostile(twice: Twice) -> None:
    assert twice.seen() == []


def test_an_epoch_key_of_somebody_else(twice: Twice, site: Site, tmp_path: Path) -> None:
    """An edition that another owner signed, with keys that he has."""
    with Vault.init(tmp_path / "foreign", owner=rz.Identity.generate()) as vault:
        vault.enrol("laptop")
    for path in sorted((tmp_path / "foreign/editions").iterdir()):
        shutil.copy(path, twice.vault / "editions")
    assert any("editions/" in problem for problem in twice.seen())
    done = site.backup()
    twice.ids += [done.snapshot_id]
    with site.reader() as vault:
        assert vault.snapshot(done.snapshot_id).read("source/empty") == b""
    for path in site.objects("editions"):
        if not (tmp_path / "foreign/editions" / path.name).exists():
            path.unlink()
    with pytest.raises(RozenError):
        site.backup()
    assert len(site.objects("meta")) == 5
    assert any("editions" in problem for problem in twice.seen())  # a reader has the copies in metadata archives


@pytest.mark.parametrize("how", ["hidden", "replayed"])
def test_an_old_edition(twice: Twice, site: Site, how: str) -> None:
    with site.reader() as vault:
        vault.retire(twice.other.host_id.hex())
        vault.grant(rz.Identity.generate().recipient)
    with pytest.raises(SignatureError, match="retired"):
        site.backup(host=twice.other)
    site.backup()  # from now on, the host knows what there was
    editions = site.objects("editions")
    old = editions[0].read_bytes()
    for path in editions[1:] if how == "replayed" else editions[-1:]:
        path.unlink()
    if how == "replayed":
        write(twice.vault / layout.edition_name(9, b"replayed"), old)
    with pytest.raises(SignatureError, match="roll"):
        site.backup()
    assert len(site.objects("meta")) == 5


def test_a_host_that_nobody_enrolled(twice: Twice, site: Site, tmp_path: Path) -> None:
    """It knows the epoch's public keys, as everybody does, and signs with a key of its own."""
    (tmp_path / "stranger").mkdir()
    stranger = Site(tmp_path / "stranger")
    write(stranger.source / "planted", "planted")
    stranger.backup()
    for folder in ("meta", "arena"):
        for path in stranger.objects(folder):
            name = path.relative_to(stranger.url)
            shutil.copytree(path.parent, twice.vault / name.parent, dirs_exist_ok=True)
    problems = twice.seen()
    assert any(stranger.host.host_id.hex() in problem for problem in problems)


def test_archives_signed_by_somebody_else_in_the_name_of_a_host(twice: Twice, site: Site) -> None:
    """Somebody who knows everything about a host but its signing key."""
    view = loading.load_view(open_storage(site.url), owner=site.me.recipient)
    forger = replace(site.host, signing=rz.SigningKey.generate())
    with pytest.raises(SignatureError):
        site.backup(host=forger, cache_dir=site.root / "forged")
    row = view.hosts[site.host.host_id]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(view), "host", lambda *_: replace(row, verify_key=forger.signing.verify_key.ed25519))
        done = site.backup(host=forger, cache_dir=site.root / "forged")
    problems = twice.seen()
    assert [problem for problem in problems if done.snapshot_id in problem and "sign" in problem]


@pytest.mark.parametrize("renamed", [False, True])
def test_an_archive_of_one_host_under_the_name_of_another(twice: Twice, site: Site, renamed: bool) -> None:
    foreign = twice.meta(1)
    name = foreign.name if not renamed else twice.meta(2).name
    target = twice.vault / "meta" / site.host.host_id.hex() / name
    shutil.copy(foreign, target)
    problems = twice.seen(*([2] if renamed else []))
    assert any(name in problem for problem in problems)


def test_an_old_snapshot_as_the_newest(twice: Twice, site: Site) -> None:
    old = twice.meta(0)
    replayed = old.with_name(old.name.replace("0000000001", "0000000009"))
    assert replayed != old
    shutil.copy(old, replayed)
    problems = twice.seen()
    assert any(replayed.name in problem for problem in problems)
    done = site.backup()  # it counts as a number that is taken, and hides nothing
    assert done.sequence == 10
    old.unlink()
    with site.reader() as vault:
        assert twice.ids[0] not in {snapshot.id for snapshot in vault.snapshots()}


def test_an_archive_in_the_place_of_another_of_the_same_host(twice: Twice, site: Site) -> None:
    one, two = twice.objects("arena", site.host)[:2]
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    with site.reader() as vault:
        for number, snapshot in enumerate(vault.snapshots(host="laptop")):
            result = vault.restore(snapshot, site.root / f"out {number}")
            assert isinstance(result, rz.RestoreResult)
            lost = {problem.path for problem in result.problems}
            assert b"source/changing" in lost
            assert result.lost == len(result.problems)
            assert not (site.root / f"out {number}/source/changing").exists()
            assert (site.root / f"out {number}/source/empty").read_bytes() == b""
        for snapshot in vault.snapshots(host="other"):
            assert snapshot.read("source/image") == noise(3_000_000)


def test_metadata_of_two_vaults_exchanged(twice: Twice, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Twice(Site(tmp_path / "second"))
    one, two = twice.meta(2), second.meta(2)
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    assert any(one.name in problem for problem in twice.seen(2))
    assert any(two.name in problem for problem in second.seen(2))


def test_what_a_hostile_storage_does_to_the_next_backup(twice: Twice, site: Site) -> None:
    """Names that nobody wrote, numbers that are very high: none keeps a host from backing up."""
    host = site.host.host_id.hex()
    for name in (
        f"meta/{host}/18446744073709551614-{'0' * 32}.rzn",
        f"meta/{host}/0000000002-{'1' * 32}.rzn",
        f"meta/{host}/nonsense",
        f"data/{host}/{'2' * 32}.rzn",
        f"gone/{host}/{'3' * 32}",
        "editions/00000001-0000000000000000",
        "elsewhere",
    ):
        write(twice.vault / name, b"nonsense")
    done = site.backup()
    assert done.sequence == 3
    twice.ids.append(done.snapshot_id)
    with site.reader() as vault:
        assert vault.snapshot(done.snapshot_id).read("source/image") == noise(3_000_000)
        assert len(vault.snapshots()) == 5
