"""Faults on the way to real servers: what is tried again, what is not, and what is told."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec  # type: ignore[import-untyped]
import pytest
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

import rozenfmt as rz
from rozenfmt.archive.workers import in_threads
from rozenfmt.errors import StorageError
from rozenfmt.storage import RetryPolicy, open_storage
from rozenfmt.storage.generic import GenericStorage
from rozenfmt.storage.s3 import S3Storage
from rozenfmt.testing.servers import rclone_server
from rozenfmt.testing.storage import pattern

from .relay import Relay, answering, cutting, dropping, resetting, swallowing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rozenfmt.storage.base import Storage
    from rozenfmt.testing.servers import Server

QUICK = RetryPolicy(per_request=20, budget=20, first_contact=20, first_wait=0.01, longest_wait=0.02)
MIB = 1 << 20
PART = 5 * MIB


def opened(server: Server, **more: Any) -> Any:
    """A folder of its own on a server."""
    slash = "" if server.url.endswith("/") else "/"
    return open_storage(f"{server.url}{slash}{uuid.uuid4().hex}", server.storage_options, **{"retry": QUICK, **more})


def put(storage: Storage, name: str, data: bytes) -> None:
    upload = storage.create(name)
    upload.write(data)
    upload.commit()


@pytest.fixture(scope="module")
def webdav() -> Iterator[Server]:
    with rclone_server("webdav") as server:
        yield server


@pytest.fixture(scope="module")
def sftp() -> Iterator[Server]:
    with rclone_server("sftp") as server:
        yield server


# Passing faults


@pytest.mark.parametrize(
    "fault",
    [
        resetting,
        dropping,
        answering(500),
        answering(500, "InternalError"),
        answering(503, "SlowDown"),
        answering(429),
        answering(408, "RequestTimeout"),
        lambda connection: connection.sendall(b"SSH-2.0-hello\r\n\r\n"),
        lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<List"),
    ],
    ids=["reset", "drop", "500", "InternalError", "SlowDown", "429", "408", "garbage", "cut"],
)
def test_s3_survives(relay: Relay, rclone_s3: Server, fault: Any) -> None:
    storage = opened(relay.of(rclone_s3))
    told: list[rz.Retry] = []
    relay.script = [fault] * 3
    with storage.retry.reported_to(told.append):
        put(storage, "a", b"content")
    assert relay.script == []
    # A connection that is cut is made anew once by aiohttp.
    assert [event.attempt for event in told] == list(range(1, len(told) + 1))
    assert 1 <= len(told) <= 3
    assert all(event.reason and event.wait >= 0 for event in told)
    storage.close()


@pytest.mark.parametrize(
    "fault",
    [
        resetting,
        answering(500),
        lambda connection: connection.sendall(
            b"HTTP/1.1 206 OK\r\nContent-Length: 7\r\nContent-Range: bytes 0-6/7\r\n\r\ncon"
        ),
    ],
    ids=["reset", "500", "cut"],
)
def test_s3_reads_again(relay: Relay, rclone_s3: Server, fault: Any) -> None:
    storage = opened(relay.of(rclone_s3))
    put(storage, "a", b"content")
    storage.close()
    relay.script = [fault] * 3
    assert storage.read("a", 0, 7) == b"content"
    assert relay.script == []
    storage.close()


@pytest.mark.parametrize("limited", [False, True])
def test_s3_sends_the_whole_body_again(relay: Relay, rclone_s3: Server, limited: bool) -> None:
    storage = opened(relay.of(rclone_s3), bandwidth=rz.Bandwidth(up=1 << 30) if limited else None)
    put(storage, "first", b"x")
    storage.close()
    data = pattern(4 * MIB)
    upload = storage.create("a", overwrite=True)
    upload.write(data)
    relay.script = [cutting] * 3
    upload.commit()
    assert relay.script == []
    assert storage.read("a", 0, len(data)) == data
    storage.close()


@pytest.mark.parametrize(
    "fault",
    [resetting, dropping, answering(500), answering(503), answering(429), answering(502)],
    ids=["reset", "drop", "500", "503", "429", "502"],
)
def test_webdav_survives(relay: Relay, webdav: Server, fault: Any) -> None:
    storage = opened(relay.of(webdav))
    relay.script = [fault] * 3
    assert list(storage.list()) == []
    assert relay.taken == 4  # webdav4's own attempts do not multiply ours
    storage.close()


def test_sftp_connects_again(relay: Relay, sftp: Server) -> None:
    storage = opened(relay.of(sftp))
    put(storage, "a", pattern(MIB))
    told: list[rz.Retry] = []
    with storage.retry.reported_to(told.append):
        relay.cut()
        assert storage.read("a", 0, MIB) == pattern(MIB)
        relay.cut()
        assert [info.name for info in storage.list()] == ["a"]
    assert [(event.action, event.attempt) for event in told] == [("read", 1), ("list", 1)]
    assert relay.taken == 3
    storage.close()


def test_sftp_server_that_is_not_up_yet(relay: Relay, sftp: Server) -> None:
    relay.script = [lambda _connection: None] * 2
    storage = opened(relay.of(sftp))
    assert list(storage.list()) == []
    storage.close()


def test_server_that_comes_back(moto_s3: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead_port = f"127.0.0.1:{free.getsockname()[1]}"
    options = {**moto_s3.storage_options, "endpoint_url": f"http://{dead_port}"}
    storage = open_storage(moto_s3.url, options, retry=QUICK)
    tried = threading.Event()
    relays: list[Relay] = []

    def start() -> None:
        assert tried.wait(20)
        relays.append(Relay(moto_s3.endpoint, port=int(dead_port.rpartition(":")[2])))

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    with storage.retry.reported_to(lambda _event: tried.set()):  # type: ignore[attr-defined]
        put(storage, uuid.uuid4().hex, b"x")
    thread.join()
    assert tried.is_set()
    storage.close()  # type: ignore[attr-defined]
    relays[0].close()


def test_throttled_upload_slows_down(relay: Relay, moto_s3: Server) -> None:
    storage = opened(relay.of(moto_s3))
    put(storage, "first", b"x")
    storage.close()  # the next requests make connections of their own
    told: list[rz.Retry] = []
    relay.script = [answering(503, "SlowDown")] * 6
    with storage.retry.reported_to(told.append):
        upload = storage.create("a", part_size=PART)
        data = pattern(8 * PART)
        upload.write(data)
        upload.commit()
    assert len(told) == 6
    assert all(event.throttled for event in told)
    assert storage.limiter.limit is not None
    assert storage.read("a", 0, len(data)) == data
    storage.close()


def test_server_says_when_to_come_back(relay: Relay, moto_s3: Server) -> None:
    storage = opened(relay.of(moto_s3))
    told: list[rz.Retry] = []
    relay.script = [answering(503, "SlowDown", Retry_After="1")]
    with storage.retry.reported_to(told.append):
        assert list(storage.list()) == []
    assert told[0].wait >= 1
    storage.close()


def test_body_that_nobody_takes(relay: Relay, moto_s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # Neither botocore nor aiohttp has a time limit for that.
    monkeypatch.setattr("rozenfmt.storage.s3_body._GRACE", 0.0)
    server = relay.of(moto_s3)
    server.storage_options["config_kwargs"] = {"read_timeout": 1}
    storage = opened(server)
    put(storage, "first", b"x")
    storage.close()
    relay.script = [swallowing]
    told: list[rz.Retry] = []
    with storage.retry.reported_to(told.append):
        upload = storage.create("a", overwrite=True)
        upload.write(bytes(8 * MIB))
        upload.commit()
    assert len(told) == 1
    assert storage.size("a") == 8 * MIB
    storage.close()


# Lasting faults


def test_dead_address_of_s3(dead_port: str) -> None:
    options = {"key": "some-key", "secret": "some-secret", "endpoint_url": f"http://{dead_port}"}
    policy = RetryPolicy(first_contact=0.2, first_wait=0.05)
    storage = S3Storage("s3://bucket/x", options, retry=policy)
    told: list[rz.Retry] = []
    with pytest.raises(StorageError, match="refused") as caught, storage.retry.reported_to(told.append):
        storage.size("a")
    assert told
    assert not caught.value.fatal
    with pytest.raises(StorageError, match="resolve"):
        S3Storage("s3://bucket/x", {**options, "endpoint_url": "http://no-such-host.invalid"}, retry=policy).size("a")


@pytest.mark.parametrize("kind", ["sftp", "webdav"])
def test_dead_address_of_others(dead_port: str, kind: str) -> None:
    targets: dict[str, tuple[str, dict[str, Any]]] = {
        "sftp": (f"sftp://{dead_port}/x", {"username": "u", "password": "a-password"}),
        "webdav": ("webdav://x", {"base_url": f"http://{dead_port}", "auth": ("u", "a-password")}),
    }
    url, options = targets[kind]
    with pytest.raises(StorageError) as caught:
        GenericStorage(url, options, retry=RetryPolicy(first_contact=0.2, first_wait=0.05)).size("a")
    assert not caught.value.fatal
    assert "a-password" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "InvalidAccessKeyId"),
        (403, "RequestTimeTooSkewed"),
        (400, "ExpiredToken"),
        (403, "QuotaExceeded"),
        (404, "NoSuchBucket"),
        (503, "XMinioStorageFull"),
        (507, ""),
        (401, ""),
        (403, ""),
    ],
)
def test_s3_fails_at_once(relay: Relay, moto_s3: Server, status: int, code: str) -> None:
    storage = opened(relay.of(moto_s3))
    relay.script = [answering(status, code)] * 2
    with pytest.raises(StorageError) as caught:
        list(storage.list())
    assert caught.value.fatal
    assert relay.taken == 1
    storage.close()


@pytest.mark.parametrize("status", [401, 403, 404, 405, 507])
def test_webdav_fails_at_once(relay: Relay, webdav: Server, status: int) -> None:
    storage = opened(relay.of(webdav))
    relay.script = [answering(status)] * 2
    with pytest.raises(StorageError) as caught:
        storage.read("a", 0, 10)
    assert caught.value.fatal
    assert relay.taken == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_sftp_login_fails_at_once(relay: Relay, sftp: Server) -> None:
    server = relay.of(sftp)
    with pytest.raises(StorageError) as caught:
        GenericStorage(server.url, {**server.storage_options, "password": "wrong-password"}, retry=QUICK)
    assert caught.value.fatal
    assert relay.taken == 1
    assert "wrong-password" not in str(caught.value)


@pytest.mark.parametrize("kind", ["s3", "webdav"])
def test_untrusted_certificate_fails_at_once(relay: Relay, tmp_path: Path, kind: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))

    def shake(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True):
            pass

    relay.script = [shake] * 3
    targets: dict[str, tuple[str, dict[str, Any]]] = {
        "s3": ("s3://bucket/x", {"key": "k", "secret": "s", "endpoint_url": f"https://{relay.address}"}),
        "webdav": ("webdav://x", {"base_url": f"https://{relay.address}", "auth": ("u", "p")}),
    }
    url, options = targets[kind]
    storage = open_storage(url, options, retry=QUICK)
    with pytest.raises(StorageError, match="certificate") as caught:
        storage.size("a")
    assert caught.value.fatal
    assert relay.taken == 1


def certificate(folder: Path) -> Path:
    """A certificate that nobody trusts, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


# Where requests really go


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CONFIG_FILE"])
@pytest.mark.parametrize("kind", ["moto", "rclone"])
def test_endpoint_of_the_environment(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, variable: str
) -> None:
    server: Server = request.getfixturevalue(f"{kind}_s3")
    url = f"http://{server.endpoint}"
    if variable == "AWS_CONFIG_FILE":
        (tmp_path / "config").write_text(f"[default]\nendpoint_url = {url}\n")
        url = str(tmp_path / "config")
    monkeypatch.setenv(variable, url)
    options = {key: server.storage_options[key] for key in ("key", "secret", "client_kwargs")}
    storage = open_storage(f"{server.url}/{uuid.uuid4().hex}", options, retry=QUICK)
    assert isinstance(storage, S3Storage)
    put(storage, "a", b"first")
    assert storage.conditional is None
    # rclone ignores the condition: were it taken for Amazon, the object would be replaced.
    with pytest.raises(rz.ConflictError):
        put(storage, "a", b"second")
    assert storage.read("a", 0, 5) == b"first"
    storage.close()


@pytest.mark.parametrize(
    ("endpoint", "conditional"),
    [
        (None, True),
        ("https://s3.eu-west-1.amazonaws.com", True),
        ("https://s3.cn-north-1.amazonaws.com.cn/", True),
        ("https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com:443", True),
        ("https://s3.amazonaws.com.example.org", None),
        ("https://amazonaws.com.example.org", None),
        ("https://notamazonaws.com", None),
        ("http://127.0.0.1:9000", None),
    ],
)
def test_only_amazon_is_amazon(endpoint: str | None, conditional: bool | None) -> None:
    options = {"key": "k", "secret": "s", "endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}}
    storage = S3Storage("s3://bucket/x", options)
    storage.run(storage._find_endpoint(), action="find", name=None, permission="")
    assert storage.conditional is conditional
    storage.close()


# Events of operations


def test_operations_tell_of_retries(
    relay: Relay, rclone_s3: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = relay.of(rclone_s3)
    url = f"{server.url}/{uuid.uuid4().hex}.rzn"
    told: list[tuple[rz.Retry, int]] = []

    def take(event: rz.Event) -> None:
        if isinstance(event, rz.Retry):
            told.append((event, threading.get_ident()))

    common: dict[str, Any] = {"storage_options": server.storage_options, "retry": QUICK, "progress": take}
    relay.script = [answering(503, "SlowDown")]
    with rz.create(url, plain=True, **common) as archive:
        archive.add("a", b"content")
    relay.script = [answering(500)]
    rz.check(url, **common)
    assert [event.throttled for event, _ in told] == [True, False]
    assert {thread for _, thread in told} == {threading.get_ident()}
    assert all(url.rpartition("/")[0] in event.where for event, _ in told)
    assert len([record for record in caplog.records if record.name == "rozenfmt.storage"]) == 2
    shown = f"{told!r} {caplog.text}"
    assert server.storage_options["secret"] not in shown
    assert server.storage_options["key"] not in shown

    del told[:]
    common.pop("progress")
    with rz.open(url, **common) as archive_read:
        relay.script = [answering(500)]
        archive_read._source.reader.storage.close()  # type: ignore[attr-defined]
        archive_read.extract(tmp_path / "out", progress=take)
    assert (tmp_path / "out" / "a").read_bytes() == b"content"


def test_everything_takes_a_policy(dead_port: str) -> None:
    options: dict[str, Any] = {"key": "some-key", "secret": "some-secret", "endpoint_url": f"http://{dead_port}"}
    options["session"] = AioSession()
    once = RetryPolicy(attempts=1)
    me = rz.Identity.generate()
    for attempt in (
        lambda: rz.Vault.init("s3://bucket/v", owner=me, storage_options=options, retry=once),
        lambda: rz.Vault.open("s3://bucket/v", identities=[me], storage_options=options, retry=once),
        lambda: next(rz.Vault.identify("s3://bucket/v", storage_options=options, retry=once)),
        lambda: rz.open("s3://bucket/a", storage_options=options, retry=once),
        lambda: rz.members("s3://bucket/a", storage_options=options, retry=once),
        lambda: rz.join("s3://bucket/a", ["s3://bucket/b"], storage_options=options, retry=once),
        lambda: next(rz.inspect("s3://bucket/a", storage_options=options, retry=once)),
        lambda: rz.salvage("s3://bucket/a", "nowhere", storage_options=options, retry=once),
    ):
        with pytest.raises(StorageError):
            attempt()


# Interrupts


PATIENT = RetryPolicy(per_request=1000, budget=1000, first_contact=1000, first_wait=500, longest_wait=500)


@pytest.fixture
def soon() -> Iterator[threading.Event]:
    """Sends this thread an interrupt once it is set."""
    event, main = threading.Event(), threading.get_ident()

    def interrupt() -> None:
        if event.wait(30):
            time.sleep(0.3)  # for the wait to begin
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    yield event
    event.set()
    thread.join()


@pytest.mark.parametrize("size", [10, 6 * PART], ids=["one", "parts"])
def test_interrupt_while_uploading(
    relay: Relay, moto_s3: Server, soon: threading.Event, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("rozenfmt.storage.retry._HURRY", 0.3)
    storage = opened(relay.of(moto_s3), retry=PATIENT)
    put(storage, "first", b"x")
    storage.close()

    def fall_silent(connection: socket.socket) -> None:
        soon.set()
        swallowing(connection)

    upload = storage.create("a", overwrite=True, part_size=PART)
    if size > PART:
        upload.write(bytes(PART + 1))
        storage.close()
    relay.script = [fall_silent] * 20
    with pytest.raises(KeyboardInterrupt):
        upload.write(bytes(size))
        upload.commit()
    if size > PART:
        with pytest.raises(StorageError):  # the network is as dead for what cleans up
            upload.discard()
    else:
        upload.discard()


def test_interrupt_while_waiting_for_another_attempt(dead_port: str, soon: threading.Event) -> None:
    options = {"key": "some-key", "secret": "some-secret", "endpoint_url": f"http://{dead_port}"}
    storage = S3Storage("s3://bucket/x", options, retry=PATIENT)
    dav = GenericStorage("webdav://x", {"base_url": f"http://{dead_port}", "auth": ("u", "p")}, retry=PATIENT)
    with pytest.raises(KeyboardInterrupt), storage.retry.reported_to(lambda _event: soon.set()):
        storage.size("a")
    assert not [task for task in storage._running if not task.done()]
    main = threading.get_ident()
    with (
        pytest.raises(KeyboardInterrupt),
        dav.retry.reported_to(lambda _: signal.pthread_kill(main, signal.SIGINT)),
    ):
        dav.size("a")


class Dead(MemoryFileSystem):  # type: ignore[misc]
    """A file system whose server is gone."""

    protocol = "dead"

    def info(self, path: str, **options: Any) -> Any:
        raise ConnectionResetError


@pytest.mark.parametrize("kind", ["s3", "generic"])
def test_interrupt_while_threads_read(dead_port: str, soon: threading.Event, kind: str) -> None:
    fsspec.register_implementation("dead", Dead, clobber=True)
    options = {"key": "some-key", "secret": "some-secret", "endpoint_url": f"http://{dead_port}"}
    storage: Any = (
        S3Storage("s3://bucket/x", options, retry=PATIENT)
        if kind == "s3"
        else GenericStorage("dead://x", retry=PATIENT)
    )
    before = set(threading.enumerate())

    def read(name: str) -> int:
        size: int = storage.size(name)
        return size

    with pytest.raises(KeyboardInterrupt), storage.retry.reported_to(lambda _event: soon.set()):
        in_threads(storage, read, ["a", "b", "c", "d", "e"], workers=2, name="network-test")
    assert not [
        one for one in threading.enumerate() if one not in before and one.name.startswith("rozenfmt-network-test")
    ]


def test_interrupted_program_ends(relay: Relay, moto_s3: Server, tmp_path: Path) -> None:
    silent = threading.Event()

    def fall_silent(connection: socket.socket) -> None:
        silent.set()
        swallowing(connection)

    relay.target = moto_s3.endpoint
    relay.script = [fall_silent] * 100
    (tmp_path / "a").write_bytes(b"content")
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "some-key",
        "AWS_SECRET_ACCESS_KEY": "some-secret",
        "AWS_ENDPOINT_URL": f"http://{relay.address}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    arguments = ["archive", "create", "--plain", "--retry-for", "10m", f"s3://bucket/{uuid.uuid4().hex}", "a"]
    command = [sys.executable, "-m", "rozenfmt", *arguments]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as process:
        assert silent.wait(30)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"interrupted" in said
