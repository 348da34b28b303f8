"""What a probe finds in real storages, and that it leaves nothing there."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rozenfmt.errors import UsageError
from rozenfmt.storage import RetryPolicy, Storage, location, open_storage
from rozenfmt.storage.abilities import ROLES, Ability, AbilityResult, Findings, ProbeReport, known
from rozenfmt.storage.lifecycle import abort_days, warnings_of
from rozenfmt.storage.probe import Plan, Question, probe_storage
from rozenfmt.storage.probe_files import mount_of
from rozenfmt.storage.s3 import S3Storage
from rozenfmt.testing.servers import Server, rclone_server

YES, NO, IGNORED, NOT_ALLOWED, UNKNOWN = AbilityResult
QUICK = RetryPolicy(attempts=2, budget=2, first_wait=0.01, longest_wait=0.01)
LEAST = 64 << 10
QUESTIONS = (
    Question("put_data", "put", "data/1/new"),
    Question("read_data", "get", "data/1/old"),
    Question("read_editions", "get", "editions/1"),
    Question("put_editions", "put", "editions/1"),
    Question("delete_data", "delete", "data/1/old"),
)
BLOCKED = "BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"


def plan(transfer: int = LEAST, scratch: str = "probe/people/tmp-1/") -> Plan:
    return Plan(
        scratch,
        QUESTIONS,
        warm=("meta/", "editions/", "arena/"),
        kept=("meta/", "editions/", "data/"),
        transfer=transfer,
        existing=("editions/", "data/"),
    )


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test opens."""
    opened: list[Any] = []

    def note(*args: Any, **options: Any) -> Any:
        opened.append(location.open_storage(*args, **options))
        return opened[-1]

    monkeypatch.setitem(globals(), "open_storage", note)
    yield
    for one in opened:
        one.close()


def results(report: ProbeReport) -> dict[str, AbilityResult]:
    return {one.name: one.result for one in report.abilities}


def s3(server: Server, folder: str) -> S3Storage:
    storage = open_storage(f"{server.url}/{folder}", server.storage_options, retry=QUICK)
    assert isinstance(storage, S3Storage)
    return storage


def request(storage: S3Storage, method: str, **arguments: Any) -> Any:
    return storage.submit(storage.request(method, Bucket=storage.bucket, **arguments)).result()


@contextmanager
def own_bucket(server: Server, name: str, **options: Any) -> Iterator[S3Storage]:
    storage = open_storage(f"s3://{name}/vault", server.storage_options, retry=QUICK)
    assert isinstance(storage, S3Storage)
    request(storage, "create_bucket", **options)
    yield storage


def everything(storage: S3Storage) -> tuple[list[Any], list[Any]]:
    """Objects with all their versions, and unfinished uploads, of the folder."""
    prefix = storage.key("x")[:-1]
    page = request(storage, "list_object_versions", Prefix=prefix)
    uploads = request(storage, "list_multipart_uploads", Prefix=prefix)
    return [*page.get("Versions", ()), *page.get("DeleteMarkers", ())], uploads.get("Uploads", [])


# --- S3 -------------------------------------------------------------------------------------------


def test_a_server_that_does_all(moto_s3: Server) -> None:
    storage = s3(moto_s3, "all")
    report = probe_storage(storage, plan((5 << 20) + 1000), host_id="ab")
    found = results(report)
    settings = {"versioning", "object_lock", "retention", "abort_rule", "private"}
    assert {name for name, result in found.items() if result is not YES} == settings
    assert {found[name] for name in settings} == {NO}
    assert report.roles == tuple(ROLES)
    assert report.reached
    assert report.host_id == "ab"
    assert report.leftovers == ()
    assert everything(storage) == ([], [])
    assert report.facts["storage_class"] == "STANDARD"
    assert report.upload_rate is not None
    assert report.download_rate is not None
    assert report.latency is not None
    assert report.clock_difference is not None
    assert abs(report.clock_difference) < 30
    assert report.bytes_sent >= 5 << 20
    assert report.bytes_received >= 5 << 20


def test_a_server_that_ignores_conditions(rclone_s3: Server) -> None:
    storage = s3(rclone_s3, "ignores")
    report = probe_storage(storage, plan())
    found = results(report)
    assert found["no_overwrite"] is IGNORED
    assert found["conditional_complete"] is IGNORED
    assert found["part_copy"] is IGNORED, "it answers, and copies nothing"
    assert found["private"] is UNKNOWN
    assert found["replace_part"] is not YES
    assert report.roles == tuple(ROLES)
    assert report.leftovers == ()
    assert list(storage.list()) == []


@pytest.mark.parametrize(("server", "replaces"), [("moto_s3", True), ("rclone_s3", False)])
def test_a_server_that_does_not_list_parts(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, server: str, *, replaces: bool
) -> None:
    """What depends on the listing is found out in another way, or taken for what it seems."""
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    send = S3Storage.send

    async def refuse(self: S3Storage, method: str, arguments: Any) -> Any:
        if method != "list_parts":
            return await send(self, method, arguments)
        answer = {"Error": {"Code": "MethodNotAllowed"}, "ResponseMetadata": {"HTTPStatusCode": 405}}
        raise ClientError(answer, method)

    monkeypatch.setattr(S3Storage, "send", refuse)
    storage = s3(request.getfixturevalue(server), "unlisted")
    report = probe_storage(storage, plan())
    found = results(report)
    assert found["list_parts"] is NO
    assert found["abort"] is YES
    assert (found["replace_part"] is YES) is replaces
    assert report.roles == tuple(ROLES)
    assert report.leftovers == ()
    assert list(storage.list()) == []


def test_versions_are_removed_too(moto_s3: Server) -> None:
    with own_bucket(moto_s3, "versioned") as storage:
        request(storage, "put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
        request(storage, "put_public_access_block", PublicAccessBlockConfiguration=dict.fromkeys(BLOCKED, True))
        report = probe_storage(storage, plan())
        assert everything(storage) == ([], [])
    assert report["versioning"].result is YES
    assert report["private"].result is YES
    assert report.leftovers == ()
    assert report.download_rate is not None


def test_object_lock(moto_s3: Server) -> None:
    with own_bucket(moto_s3, "locked", ObjectLockEnabledForBucket=True) as storage:
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 30}}
        lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
        request(storage, "put_object_lock_configuration", ObjectLockConfiguration=lock)
        report = probe_storage(storage, plan())
        left, uploads = everything(storage)
    assert report["object_lock"].result is YES
    assert "30 days" in report["object_lock"].detail
    assert report["retention"].result is YES
    assert uploads == []
    assert bool(left) == bool(report.leftovers), "what cannot be removed is told"


def test_rules_of_the_bucket(moto_s3: Server) -> None:
    with own_bucket(moto_s3, "ruled") as storage:
        rules = [
            {
                "ID": "abort",
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
            },
            {
                "ID": "freeze",
                "Status": "Enabled",
                "Filter": {"Prefix": "vault/"},
                "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}],
            },
        ]
        request(storage, "put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": rules})
        report = probe_storage(storage, plan())
    assert report["abort_rule"].result is YES
    assert [text for text in report.warnings if "'freeze'" in text and "meta/" in text]


@pytest.mark.parametrize("interrupted", [3, 15, 21, 45, 59])
def test_an_interrupt_leaves_nothing(moto_s3: Server, monkeypatch: pytest.MonkeyPatch, interrupted: int) -> None:
    storage = s3(moto_s3, f"interrupt-{interrupted}")
    calls, submit = count(), S3Storage.submit

    def interrupt(self: S3Storage, work: Any) -> Any:
        future = submit(self, work)
        if next(calls) == interrupted:
            with suppress(Exception):
                future.result()  # the request arrives, its answer does not
            raise KeyboardInterrupt
        return future

    monkeypatch.setattr(S3Storage, "submit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        probe_storage(storage, plan())
    monkeypatch.undo()
    assert everything(storage) == ([], [])


def test_every_request_may_fail(moto_s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that knows nothing but listing and putting; the report says so, and no exception does."""
    from botocore.exceptions import ClientError

    send = S3Storage.send

    async def refuse(self: S3Storage, method: str, arguments: Any) -> Any:
        if method in {"list_objects_v2", "put_object", "delete_object"}:
            return await send(self, method, arguments)
        answer = {"Error": {"Code": "NotImplemented"}, "ResponseMetadata": {"HTTPStatusCode": 501}}
        raise ClientError(answer, method)

    monkeypatch.setattr(S3Storage, "send", refuse)
    storage = s3(moto_s3, "refuses")
    report = probe_storage(storage, plan())
    found = results(report)
    assert {found[name] for name in ("multipart", "abort", "read", "put_data", "versioning", "abort_rule")} == {NO}
    assert report["put"].result is YES
    assert report.roles == ()
    assert {one.name for one in report.missing("host")} == {"intact", "multipart", "read_editions", "put_data"} - (
        {"intact"} if report["intact"].result is YES else set()
    )
    assert list(storage.list()) == []


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://no-such-bucket/vault", {}),
        ("s3://bucket/vault", {"endpoint_url": "http://127.0.0.1:9"}),
    ],
)
def test_nothing_is_reached(moto_s3: Server, url: str, options: dict[str, Any]) -> None:
    report = probe_storage(open_storage(url, {**moto_s3.storage_options, **options}, retry=QUICK), plan())
    assert not report.reached
    assert report["reach"].result is NO
    assert report["reach"].detail
    assert report.roles == ()
    assert report.bytes_sent == 0


def test_wrong_credentials(rclone_s3: Server) -> None:
    options = {**rclone_s3.storage_options, "secret": "another-secret-of-nobody"}
    report = probe_storage(open_storage(rclone_s3.url, options, retry=QUICK), plan())
    assert report.roles == ()
    assert "another-secret" not in str(report.as_dict())


# --- folders --------------------------------------------------------------------------------------


def test_a_local_folder(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    report = probe_storage(storage, plan())
    assert {name for name, result in results(report).items() if result is not YES} <= {"case", "hard_links"}
    assert report.roles == tuple(ROLES)
    assert report.facts["longest_name"] == os.pathconf(tmp_path, "PC_NAME_MAX")
    assert isinstance(report.facts["free"], int)
    assert report.facts["file_system"] == mount_of(str(tmp_path))[0] != ""
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_to_be(tmp_path: Path) -> None:
    report = probe_storage(open_storage(tmp_path / "vault"), plan())
    assert report.roles == tuple(ROLES)
    assert list(tmp_path.iterdir()) == [], "the folder was made for the probe only"


@pytest.mark.parametrize("what", ["missing", "file"])
def test_a_folder_that_cannot_be(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("x")
    place = tmp_path / "no" / "folder" if what == "missing" else tmp_path / "file"
    report = probe_storage(open_storage(place), plan())
    assert not report.reached
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_others_have_stays(tmp_path: Path) -> None:
    kept = tmp_path / "probe" / "people" / "000000000001-0123456789abcdef.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    report = probe_storage(open_storage(tmp_path), plan())
    assert report.leftovers == ()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is allowed to root")
def test_a_folder_that_may_only_be_read(tmp_path: Path) -> None:
    (tmp_path / "editions").mkdir()
    (tmp_path / "editions" / "1").write_bytes(b"x" * 200)
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        report = probe_storage(open_storage(tmp_path), plan())
    finally:
        tmp_path.chmod(stat.S_IRWXU)
    assert report["put"].result is NOT_ALLOWED
    assert report["read"].result is YES
    assert report["put_data"].result is NOT_ALLOWED


def test_reading_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing may be written, an object of the vault shows whether reading works."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(os.urandom(100_000))
    storage = open_storage(tmp_path)

    def refuse(*_: object, **__: object) -> Any:
        raise PermissionError(13, "denied")

    monkeypatch.setattr("rozenfmt.storage.local.os.mkdir", refuse)
    report = probe_storage(storage, plan())
    assert report["put"].result is NOT_ALLOWED
    assert report["read"].result is YES
    assert report.download_rate is not None
    assert report.bytes_sent == 0


@pytest.mark.parametrize("kind", ["webdav", "sftp"])
def test_file_systems_of_fsspec(kind: Any) -> None:
    with rclone_server(kind) as server:
        storage = open_storage(server.url, server.storage_options)
        report = probe_storage(storage, plan())
        assert list(storage.list()) == []
        assert server.folder is not None
        assert [path for path in server.folder.rglob("*") if path.is_file() or "tmp-" in path.name] == []
    assert {name for name, result in results(report).items() if result is not YES} <= {"suffix", "odd_names"}
    assert "does not replace" in report["rename"].detail or "which replaces" in report["rename"].detail
    assert report.roles == tuple(ROLES)


def test_a_move_that_is_a_copy() -> None:
    storage = open_storage("memory://probe-of-memory")
    report = probe_storage(storage, plan())
    assert report["rename"].result is NO
    assert report.roles == tuple(ROLES)
    assert list(storage.list()) == []


def test_threads_of_its_own_end(tmp_path: Path) -> None:
    before = threading.active_count()
    probe_storage(open_storage(tmp_path), plan())
    assert threading.active_count() == before


@pytest.mark.parametrize("transfer", [0, LEAST - 1, (1 << 30) + 1])
def test_how_much_is_measured_has_bounds(tmp_path: Path, transfer: int) -> None:
    with pytest.raises(UsageError):
        probe_storage(open_storage(tmp_path), plan(transfer))


class Narrow:
    """A storage with the methods of the protocol only, which somebody else wrote."""

    url = "narrow"

    def __init__(self, storage: Storage) -> None:
        for name in ("size", "read", "read_suffix", "stream", "create", "list", "delete"):
            setattr(self, name, getattr(storage, name))


def test_storages_of_others(tmp_path: Path) -> None:
    storage: Any = Narrow(open_storage(tmp_path))
    report = probe_storage(storage, plan())
    assert report.kind == "fsspec"
    assert report.roles == tuple(ROLES)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# --- reports --------------------------------------------------------------------------------------


def test_reports_survive_json(tmp_path: Path) -> None:
    import json

    report = probe_storage(open_storage(tmp_path), plan())
    assert ProbeReport.from_dict(json.loads(json.dumps(report.as_dict()))) == report


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, None) for name in ("abilities", "url", "facts", "warnings", "when", "kind")],
        *[(name, True) for name in ("abilities", "url", "facts", "warnings", "when", "seconds")],
        *[(name, [1]) for name in ("abilities", "url", "warnings", "leftovers")],
        ("abilities", []),
        ("abilities", [{"name": "reach", "result": "perhaps"}]),
        ("facts", {"a": []}),
        ("kind", "tape"),
    ],
)
def test_other_forms_are_no_reports(tmp_path: Path, name: str, value: Any) -> None:
    values = probe_storage(open_storage(tmp_path), plan()).as_dict()
    with pytest.raises(ValueError):  # noqa: PT011 - the only one it raises
        ProbeReport.from_dict({**values, name: value})


def test_one_by_name(tmp_path: Path) -> None:
    report = probe_storage(open_storage(tmp_path), plan())
    assert report["put"] == next(one for one in report.abilities if one.name == "put")
    with pytest.raises(KeyError):
        report["multipart"]
    with pytest.raises(UsageError):
        report.missing("nobody")


def test_the_table_of_abilities() -> None:
    for kind in ("s3", "local", "fsspec"):
        rows = known(kind)
        assert all(row.needed_for and row.consequence for row in rows.values())
        findings = Findings(kind)
        assert [one.name for one in findings.abilities()] == list(rows)
        assert {one.result for one in findings.abilities()} == {UNKNOWN}
    names = {name for kind in ("s3", "local", "fsspec") for name in known(kind)}
    assert {name for needed in ROLES.values() for name in needed} <= names
    assert Ability("x", YES, "y", "z").detail == ""


# --- rules of buckets -----------------------------------------------------------------------------

WARM, KEPT = ("meta/", "arena/"), ("meta/", "arena/", "data/")


def rule(prefix: str | None = "", **more: Any) -> dict[str, Any]:
    where: dict[str, Any] = {} if prefix is None else {"Filter": {"Prefix": prefix}}
    return {"ID": "one", "Status": "Enabled", **where, **more}


FREEZE = {"Transitions": [{"Days": 3, "StorageClass": "DEEP_ARCHIVE"}]}


@pytest.mark.parametrize(
    ("given", "warnings"),
    [
        (rule("v/data/", **FREEZE), 0),
        (rule("v/", **FREEZE), 1),
        (rule("", **FREEZE), 1),
        (rule(None, **FREEZE), 1),
        (rule("v/meta/0123", **FREEZE), 1),
        (rule("w/", **FREEZE), 0),
        ({**rule(None, **FREEZE), "Prefix": "v/data/"}, 0),
        ({**rule(None, **FREEZE), "Filter": {"And": {"Prefix": "v/meta/", "ObjectSizeGreaterThan": 9}}}, 1),
        ({**rule("v/", **FREEZE), "Status": "Disabled"}, 0),
        (rule("v/", Transitions=[{"Days": 3, "StorageClass": "GLACIER_IR"}]), 0),
        (rule("v/", NoncurrentVersionTransitions=[{"NoncurrentDays": 3, "StorageClass": "GLACIER"}]), 1),
        (rule("v/data/", Expiration={"Days": 90}), 1),
        (rule("v/", Expiration={"ExpiredObjectDeleteMarker": True}), 0),
        (rule("v/probe/", Expiration={"Days": 1}), 0),
        (rule("v/", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1}), 1),
        (rule("v/", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7}), 0),
    ],
)
def test_which_rules_harm(given: dict[str, Any], warnings: int) -> None:
    found = list(warnings_of([given], "v/", warm=WARM, kept=KEPT))
    assert len(found) == warnings
    assert all("'one'" in text for text in found)


def test_when_unfinished_uploads_end() -> None:
    def aborts(prefix: str, days: int) -> dict[str, Any]:
        return rule(prefix, AbortIncompleteMultipartUpload={"DaysAfterInitiation": days})

    assert abort_days([], "v/") is None
    assert abort_days([aborts("", 7), aborts("v/", 3), aborts("w/", 1)], "v/") == 3
    assert abort_days([aborts("v/data/", 3)], "v/") is None, "other folders of the vault are left"
