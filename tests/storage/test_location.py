"""Addresses, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rozenfmt.errors import StorageError, UsageError
from rozenfmt.storage import ObjectInfo, RetryPolicy, open_storage, resolve
from rozenfmt.storage.bandwidth import Bandwidth
from rozenfmt.storage.generic import GenericStorage
from rozenfmt.storage.local import LocalStorage
from rozenfmt.storage.paced import PacedLocalStorage
from rozenfmt.storage.redact import Redactor
from rozenfmt.storage.s3 import S3Storage

if TYPE_CHECKING:
    from rozenfmt.storage.location import Location

CHEAP = """
import sys
import rozenfmt.storage
storage, name = rozenfmt.storage.resolve(sys.argv[1])
upload = storage.create(name)
upload.write(b"x")
upload.commit()
rozenfmt.storage.resolve("file://" + sys.argv[1])[0].read(name, 0, 1)
print(sorted({"fsspec", "s3fs", "asyncio", "ssl", "botocore"} & set(sys.modules)))
"""


def test_local_paths_import_no_fsspec(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHEAP, str(tmp_path / "a")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_local_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    addresses: list[Location] = [
        "a.rzn",
        str(tmp_path / "a.rzn"),
        tmp_path / "a.rzn",
        bytes(tmp_path / "a.rzn"),
        f"file://{tmp_path}/a.rzn",
    ]
    (tmp_path / "a.rzn").write_bytes(b"1234")
    for address in addresses:
        storage, name = resolve(address)
        assert isinstance(storage, LocalStorage)
        assert (name, storage.size(name)) == ("a.rzn", 4)
    # A path is a path, whatever it looks like.
    (tmp_path / "s3:" / "x").write_bytes(b"12")
    storage, name = resolve(Path("s3://x"))
    assert isinstance(storage, LocalStorage)
    assert storage.read(name, 0, 2) == b"12"
    storage, name = resolve(b"latin-\xe9")
    upload = storage.create(name)
    upload.commit()
    assert ObjectInfo("latin-\udce9", 0) in list(open_storage(".").list())


def test_remote_addresses() -> None:
    options = {"key": "unused-key", "secret": "unused-secret", "endpoint_url": "http://127.0.0.1:9"}
    storage, name = resolve("s3://bucket/some/folder/a.rzn", options)
    assert isinstance(storage, S3Storage)
    assert (storage.url, storage.bucket, name) == ("s3://bucket/some/folder", "bucket", "a.rzn")
    assert storage.key(name) == "some/folder/a.rzn"
    storage, name = resolve("S3://bucket/a.rzn", options)
    assert isinstance(storage, S3Storage)
    assert storage.key(name) == "a.rzn"
    storage, name = resolve("memory://a.rzn")
    assert isinstance(storage, GenericStorage)
    assert storage.path(name) == "/a.rzn"
    storage, name = resolve("memory://folder/a?b#c.rzn")
    assert isinstance(storage, GenericStorage)
    assert storage.path(name) == "/folder/a?b#c.rzn"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/",
        "folder/",
        ".",
        "..",
        "a/..",
        "s3://",
        "s3://bucket",
        "s3://bucket/",
        "memory://",
        "memory://a/",
    ],
)
def test_folders_are_no_objects(address: str) -> None:
    with pytest.raises(UsageError):
        resolve(address)


def test_misuse() -> None:
    with pytest.raises(UsageError):
        open_storage("")
    with pytest.raises(UsageError):
        open_storage("/tmp", {"key": "x"})
    with pytest.raises(UsageError):
        open_storage(5)  # type: ignore[arg-type]
    with pytest.raises((UsageError, StorageError)):
        open_storage("no-such-protocol://x")
    with pytest.raises(UsageError):
        open_storage("s3://bucket", {"key": "a-key", "username": "a-name"})


def test_redaction() -> None:
    options = {
        "key": "AKIA0123",
        "client_kwargs": {"aws_secret_access_key": "deep-secret"},
        "auth": ("u", "pass-word"),
    }
    redactor = Redactor("sftp://me:open-sesame@host/x", options)
    text = redactor.text(
        "sftp://me:open-sesame@host/x AKIA0123 deep-secret pass-word open-sesame https://h/x?X-Amz-Signature=abc&y=1"
    )
    for secret in ("AKIA0123", "deep-secret", "pass-word", "open-sesame", "abc"):
        assert secret not in text
    assert "host/x" in text
    harmless = ValueError("nothing to see")
    assert redactor.cause(harmless) is harmless
    chained = ValueError("outer")
    chained.__cause__ = KeyError("deep-secret")
    assert redactor.cause(chained) is None


def test_policy_and_limits_reach_the_storage(tmp_path: Path) -> None:
    policy, limits = RetryPolicy(attempts=7), Bandwidth(up=1000)
    options = {"key": "unused-key", "secret": "unused-secret", "endpoint_url": "http://127.0.0.1:9"}
    s3 = open_storage("s3://bucket/x", options, retry=policy, bandwidth=limits)
    memory, _ = resolve("memory://folder/a", retry=policy, bandwidth=limits)
    local = open_storage(tmp_path, retry=policy, bandwidth=limits)
    assert isinstance(s3, S3Storage)
    assert isinstance(memory, GenericStorage)
    assert isinstance(local, PacedLocalStorage)
    assert s3.retry.policy is memory.retry.policy is policy
    assert s3._sending is memory.sending is limits.sending
