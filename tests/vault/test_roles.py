"""The policies that are printed suffice for each role, and allow no more; what a probe says with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import AioSession  # type: ignore[import-untyped]

import rozenfmt as rz
from rozenfmt.errors import StorageError, UsageError
from rozenfmt.storage import open_storage
from rozenfmt.storage.s3 import S3Storage
from rozenfmt.testing.servers import Server, moto_server
from rozenfmt.vault import layout, roles

from .iam import Guard, guarded
from .test_killed import noise

YES, NO, IGNORED, NOT_ALLOWED, UNKNOWN = rz.AbilityResult
LEAST = 64 << 10
SIZE = 12_000_000


@pytest.fixture(scope="module")
def moto() -> Iterator[Server]:
    with moto_server() as server:
        # What botocore parses takes longer than most of these tests.
        yield replace(server, storage_options={**server.storage_options, "session": AioSession()})


class Shop:
    """A vault in a bucket, with its owner, a host and a tree."""

    def __init__(self, server: Server, root: Path, name: str) -> None:
        self.options: dict[str, Any] = server.storage_options
        self.url = f"{server.url}/{name}"
        self.me = rz.Identity.generate()
        self.root = root
        self.cache = root / "cache"
        self.tree = root / "tree"
        self.tree.mkdir()
        (self.tree / "image").write_bytes(noise(SIZE))
        (self.tree / "note").write_text("a note")
        with rz.Vault.init(self.url, owner=self.me, storage_options=self.options) as vault:
            self.host = vault.enrol("laptop")

    def policy(self, role: str) -> dict[str, Any]:
        return roles.policy(role, self.url, self.host.host_id.hex())

    def backup(self, data_size: int = 9_000_000) -> None:
        with rz.Vault.open(self.url, host=self.host, cache_dir=self.cache, storage_options=self.options) as vault:
            vault.backup([self.tree], name="all", data_size=data_size)

    def reader(self) -> rz.Vault:
        return rz.Vault.open(self.url, identities=[self.me], storage_options=self.options)

    def objects(self) -> list[str]:
        storage: Any = open_storage(self.url, self.options)
        try:
            return [info.name for info in storage.list()]
        finally:
            storage.close()

    def probe(self, **options: Any) -> rz.ProbeReport:
        return rz.probe(self.url, storage_options=self.options, transfer=LEAST, **options)


@pytest.fixture
def shop(moto: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Shop:
    return Shop(moto, tmp_path, request.node.name)


def test_the_policies_suffice(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_is_overwritten = roles.bucket_policy(shop.url)
    with guarded(monkeypatch, Guard(shop.policy("host"), nothing_is_overwritten)) as guard:
        shop.backup()
        (shop.tree / "note").write_text("another note")
        shop.backup()
    assert guard.refused == []
    assert {"put_object", "upload_part"} <= {method for method, _ in guard.allowed}
    with guarded(monkeypatch, Guard(shop.policy("reader"), nothing_is_overwritten)) as guard, shop.reader() as vault:
        assert vault.verify(level="contents").ok
        vault.restore("latest:all", shop.root / "out")
    assert guard.refused == []
    assert (shop.root / "out/tree/image").read_bytes() == noise(SIZE)
    with guarded(monkeypatch, Guard(shop.policy("owner"), nothing_is_overwritten)) as guard, shop.reader() as vault:
        vault.enrol("second")
        vault.grant(rz.Identity.generate().recipient)
    assert guard.refused == []


def test_resuming_with_the_policy_of_a_host(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, submit = count(), S3Storage.submit
    (shop.tree / "large").write_bytes(noise(4 * SIZE, 1))

    def interrupt(self: S3Storage, work: Any) -> Any:
        if "_put_part" in work.__qualname__ and next(sent) == 4:
            work.close()
            raise KeyboardInterrupt
        return submit(self, work)

    with guarded(monkeypatch, Guard(shop.policy("host"), roles.bucket_policy(shop.url))) as guard:
        with monkeypatch.context() as patch:
            patch.setattr(S3Storage, "submit", interrupt)
            with pytest.raises(KeyboardInterrupt):
                shop.backup(data_size=10 * SIZE)
        shop.backup(data_size=10 * SIZE)
    assert guard.refused == []
    assert "list_parts" in {method for method, _ in guard.allowed}, "it went on"
    with shop.reader() as vault:
        assert vault.verify(level="contents").ok


def test_a_host_with_its_policy(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.backup()
    before = shop.objects()
    with guarded(monkeypatch, Guard(shop.policy("host"), roles.bucket_policy(shop.url))):
        report = shop.probe(host=shop.host)
        with pytest.raises(StorageError), shop.reader() as vault:
            vault.restore("latest:all", shop.root / "out")
    assert report.roles == ("host",)
    for name in ("read", "suffix", "delete", "overwrite", "read_data", "delete_data", "put_editions", "copy"):
        assert report[name].result is NOT_ALLOWED, name
    for name in (
        "list",
        "put",
        "put_data",
        "read_editions",
        "no_overwrite",
        "multipart",
        "list_parts",
        "abort",
        "intact",
    ):
        assert report[name].result is YES, name
    for name in ("versioning", "object_lock", "abort_rule", "list_uploads"):
        assert report[name].result is NOT_ALLOWED, name
    assert report.upload_rate is not None
    assert report.download_rate is None
    assert report.missing("host") == ()
    left = set(shop.objects()) - set(before)
    assert left == set(report.leftovers)
    assert all(name.startswith(layout.probe_place(shop.host.host_id)) for name in left)
    storage: Any = open_storage(shop.url, shop.options)
    try:
        assert sum(storage.size(name) for name in left) < 10_000, "what stays is small"
    finally:
        storage.close()
    with shop.reader() as vault:
        assert len(vault.snapshots()) == 1
        assert vault.verify(level="contents").ok
        assert vault.problems == [], "readers do not mind what probes leave"


def test_a_host_whose_policy_knows_no_probe(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = json.loads(json.dumps(shop.policy("host")).replace("/probe/", "/elsewhere/"))
    before = shop.objects()
    with guarded(monkeypatch, Guard(policy)):
        report = shop.probe(host=shop.host.host_id.hex())
    assert report.reached
    assert report["list"].result is NOT_ALLOWED
    assert report["put"].result is NOT_ALLOWED
    assert report["put_data"].result is YES
    assert report["delete_data"].result is NOT_ALLOWED
    assert report.roles == ()
    assert shop.objects() == before


@pytest.mark.parametrize("role", ["reader", "owner", "maintenance"])
def test_people_with_their_policies(shop: Shop, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    shop.backup()
    before = shop.objects()
    with guarded(monkeypatch, Guard(shop.policy(role), roles.bucket_policy(shop.url))):
        report = shop.probe()
    assert role in report.roles
    assert "host" not in report.roles
    assert report["read"].result is YES
    assert report["put_data"].result is NOT_ALLOWED
    assert report["put_editions"].result is (YES if role == "owner" else NOT_ALLOWED)
    assert report["delete_data"].result is (YES if role == "maintenance" else NOT_ALLOWED)
    assert report["put"].result is (YES if role == "owner" else NOT_ALLOWED)
    if role != "owner":
        assert shop.objects() == before
        assert report.download_rate is not None


def test_reports_are_kept_in_the_vault(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded(monkeypatch, Guard(shop.policy("host"), roles.bucket_policy(shop.url))):
        report = shop.probe(host=shop.host, record=True)
    assert report.recorded.startswith(layout.probe_place(shop.host.host_id))
    assert report.recorded in shop.objects()
    with guarded(monkeypatch, Guard(shop.policy("reader"))), shop.reader() as vault:
        assert vault.last_probe() == report
    assert rz.last_probe(shop.url, storage_options=shop.options, host=shop.host) == report
    with guarded(monkeypatch, Guard(shop.policy("reader"))):
        refused = shop.probe(record=True)
    assert refused.recorded == ""
    assert refused.warnings, "it says that it was not stored"


def test_the_last_report_counts(tmp_path: Path) -> None:
    vault = rz.Vault.init(tmp_path / "v", owner=rz.Identity.generate())
    assert vault.last_probe() is None
    first = vault.probe(transfer=LEAST, record=True)
    assert vault.last_probe() == first
    later = tmp_path / "v" / layout.probe_name(None, first.when // 10**9 + 60, bytes(8))
    later.write_text((tmp_path / "v" / first.recorded).read_text().replace('"host_id": ""', '"host_id": "ab"'))
    found = vault.last_probe()
    assert found is not None
    assert found.host_id == "ab"
    for number, rubbish in enumerate((b"", b"[]", b"{}", b"\xff", b"[" * 60_000, b'{"form": "rozenfmt probe 1"}')):
        name = layout.probe_name(None, first.when // 10**9 + 100 + number, bytes(8))
        (tmp_path / "v" / name).write_bytes(rubbish)
    assert vault.last_probe() == found, "what is no report is passed over"
    assert rz.last_probe(tmp_path / "v", host="00" * 16) is None


def test_a_probe_is_no_part_of_a_vault(tmp_path: Path) -> None:
    me = rz.Identity.generate()
    with rz.Vault.init(tmp_path / "v", owner=me) as vault:
        before = sorted(path for path in (tmp_path / "v").rglob("*"))
        report = vault.probe(transfer=LEAST)
        assert sorted(path for path in (tmp_path / "v").rglob("*")) == before
        assert report.host_id == ""
        host = vault.enrol("laptop")
    with rz.Vault.open(tmp_path / "v", host=host) as vault:
        assert vault.probe(transfer=LEAST).host_id == host.host_id.hex()


@pytest.mark.parametrize("host", ["", "ab", "x" * 32, "0" * 31])
def test_a_host_is_named_by_its_id(tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError):
        rz.probe(tmp_path, host=host)


def test_names_of_reports() -> None:
    name = layout.probe_name(bytes(16), 1_700_000_000, bytes(8))
    assert name == f"probe/{'0' * 32}/001700000000-{'0' * 16}.json"
    assert layout.parse_probe_name(name) == 1_700_000_000
    assert layout.parse_probe_name(layout.probe_name(None, 1, bytes(8))) == 1
    for other in (name + "x", name.replace("probe/", "data/"), "probe/people/000000000000-" + "0" * 16 + ".json"):
        assert layout.parse_probe_name(other) is None


@pytest.mark.parametrize("url", ["s3://", "gs://bucket/x", "/folder"])
def test_policies_are_for_s3(url: str) -> None:
    with pytest.raises(UsageError):
        roles.policy("reader", url)


def test_a_vault_that_is_a_whole_bucket() -> None:
    (first, second) = roles.policy("reader", "s3://bucket")["Statement"]
    assert first["Condition"]["StringLike"]["s3:prefix"] == "*"
    assert second["Resource"] == "arn:aws:s3:::bucket/*"
    with pytest.raises(UsageError):
        roles.policy("king", "s3://bucket")
