"""Storages behind a proxy that breaks things: they succeed, or they fail and leave nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiobotocore.session import AioSession  # type: ignore[import-untyped]

from rozenfmt.errors import ConflictError, RozenError, StorageError, UsageError
from rozenfmt.storage import ObjectInfo, RetryPolicy, Storage, open_storage
from rozenfmt.storage.generic import GenericStorage
from rozenfmt.testing.proxy import HTTP_KINDS, TCP_KINDS, Faults, Proxy, Request, fault_proxy
from rozenfmt.testing.servers import Server, moto_server, rclone_server
from rozenfmt.testing.storage import pattern

MIB = 1 << 20
PART = 5 * MIB
QUICK = RetryPolicy(attempts=4, first_wait=0.01, longest_wait=0.05)
SIZES = {"empty": 0, "small": 1_000, "d/whole": 300_000, "d/parts": 2 * PART + 5}
# A stall ends when the client's patience does.
ACTED = {"lose-response", "late-error", "cut-response", "stall"}
QUICK_KINDS = sorted(HTTP_KINDS.keys() - {"stall"})


def with_session(server: Server) -> Server:
    """The server, with what botocore parses shared by all clients."""
    return replace(server, storage_options={**server.storage_options, "session": AioSession()})


@pytest.fixture(scope="module", params=["moto", "rclone"])
def proxy(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    start: Any = moto_server if request.param == "moto" else rclone_server
    with start() as server, fault_proxy(with_session(server), stall=2.5) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def webdav() -> Iterator[Proxy]:
    with rclone_server("webdav") as server, fault_proxy(server) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def sftp() -> Iterator[Server]:
    with rclone_server("sftp") as server:
        yield server


class Site:
    """A folder, seen by somebody whom nothing disturbs and through the proxy, with objects of others in it."""

    def __init__(self, proxy: Proxy, **options: Any) -> None:
        self.proxy = proxy
        proxy.plan = None
        folder = uuid.uuid4().hex
        self.url = f"{proxy.server.url}/{folder}"
        self.calm = open_storage(self.url, proxy.server.storage_options, retry=QUICK)
        self.storage = open_storage(self.url, {**proxy.server.storage_options, **options}, retry=QUICK)
        self.theirs = self.calm.create("theirs/late", part_size=PART)
        # More than a part, where there are parts.
        self.size = PART + 1 if "endpoint_url" in proxy.server.storage_options else 1000
        proxy.log.clear()
        self.theirs.write(pattern(self.size))
        while self.size > PART and not proxy.requests["UploadPart"]:
            time.sleep(0.01)  # their part is on its way, and no fault is for it
        self.put(self.calm, "theirs/done", b"kept")
        proxy.log.clear()

    @staticmethod
    def put(storage: Storage, name: str, data: bytes) -> ObjectInfo:
        upload = storage.create(name, part_size=PART)
        try:
            upload.write(data)
            return upload.commit()
        finally:
            upload.discard()

    def work(self, plan: Callable[[Request], str]) -> list[RozenError]:
        """Write, read, list and delete; returns what failed, after making sure that it failed cleanly."""
        failed: list[RozenError] = []
        for name, size in SIZES.items():
            data = pattern(size)
            self.proxy.plan = plan
            try:
                assert self.put(self.storage, name, data) == ObjectInfo(name, size)
            except (StorageError, ConflictError) as error:
                failed.append(error)
                self.proxy.plan = None
                self.assert_absent(name)
                continue
            self.proxy.plan = None
            assert b"".join(self.calm.stream(name)) == data
            self.proxy.plan = plan
            failed += self.read(name, data)
            self.proxy.plan = None
        self.proxy.plan = plan
        with contextlib.suppress(StorageError):
            self.storage.delete("small")
            assert "small" not in [info.name for info in self.calm.list()]
        self.check()
        return failed

    def assert_absent(self, name: str) -> None:
        assert name not in [info.name for info in self.calm.list()]

    def read(self, name: str, data: bytes) -> list[RozenError]:
        steps: list[tuple[Callable[[], Any], Any]] = [
            (lambda: self.storage.size(name), len(data)),
            (lambda: self.storage.read(name, len(data) // 2, len(data) // 4), data[len(data) // 2 :][: len(data) // 4]),
            (lambda: self.storage.read_suffix(name, 100), (len(data), data[-100:])),
            (lambda: b"".join(self.storage.stream(name)), data),
            (lambda: list(self.storage.list(name)), [ObjectInfo(name, len(data))]),
        ]
        failed: list[RozenError] = []
        for step, wanted in steps:
            try:
                assert step() == wanted
            except StorageError as error:
                failed.append(error)
        return failed

    def check(self) -> None:
        """Nothing of ours is left unfinished, and nothing of others was touched."""
        self.proxy.plan = None
        # An upload whose beginning was not answered is not known to us: nobody can know that it is ours.
        unknown = sum(
            done.request.operation == "CreateMultipartUpload" and done.fault in ACTED for done in self.proxy.log
        )
        left = [leftover.name for leftover in self.calm.leftovers("")]
        assert len(left) <= 1 + unknown, left
        self.theirs.commit()
        assert self.calm.size("theirs/late") == self.size
        assert self.calm.read("theirs/done", 0, 4) == b"kept"
        for storage in (self.calm, self.storage):
            storage.close()  # type: ignore[attr-defined]


# The others are much alike for the client.
OFTEN = {("moto", "cut-response"), ("moto", "late-error"), ("rclone", "lose-response"), ("rclone", "short-request")}


@pytest.mark.parametrize(
    ("proxy", "kind"),
    [
        pytest.param(server, kind, marks=[] if (server, kind) in OFTEN else pytest.mark.slow)
        for server in ("moto", "rclone")
        for kind in QUICK_KINDS
    ],
    indirect=["proxy"],
)
def test_each_fault_alone(proxy: Proxy, kind: str) -> None:
    site = Site(proxy)
    failed = site.work(Faults(rate=0.5, seed=1, kinds={kind}, in_a_row=2))
    # The client has more attempts than there are faults; but rclone loses an upload with its damaged part.
    lost = ("NoSuchUpload", "cannot replace a part")
    assert all(kind == "short-request" and any(one in str(error) for one in lost) for error in failed), failed


@pytest.mark.parametrize("proxy", ["rclone"], indirect=True)
def test_answers_that_stop(proxy: Proxy) -> None:
    site = Site(proxy, config_kwargs={"read_timeout": 1})
    stalled = {"CompleteMultipartUpload": "stall", "GetObject": "stall"}
    assert site.work(lambda request: stalled.pop(request.operation, "")) == []
    assert stalled == {}


def test_all_faults_mixed(proxy: Proxy) -> None:
    site = Site(proxy)
    site.work(Faults(rate=0.05, seed=1, kinds=set(QUICK_KINDS)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_all_faults_mixed_for_long(proxy: Proxy, seed: int) -> None:
    site = Site(proxy)
    site.work(Faults(rate=0.05 + seed % 4 * 0.1, seed=seed))


def test_own_success_is_recognised_at_once(proxy: Proxy) -> None:
    site = Site(proxy)
    # Over a connection that was used before, the HTTP client sends a PUT again by itself.
    lost = iter(["lose-response"])
    proxy.plan = lambda request: next(lost, "") if request.operation == "PutObject" else ""
    site.put(site.storage, "a", b"mine")
    assert proxy.requests["PutObject"] == 2
    assert site.storage.read("a", 0, 4) == b"mine"
    with pytest.raises(ConflictError):
        site.put(site.storage, "a", b"else")
    site.check()


@pytest.mark.parametrize("always", [False, True])
def test_what_was_stored_damaged_is_replaced_or_removed(proxy: Proxy, always: bool) -> None:
    site = Site(proxy)
    short = iter(["short-request"] * (99 if always else 1))
    proxy.plan = lambda request: next(short, "") if request.operation == "PutObject" else ""
    if always:
        with pytest.raises(StorageError):
            site.put(site.storage, "a", pattern(1000))
    else:
        site.put(site.storage, "a", pattern(1000))
    proxy.plan = None
    assert [info.size for info in site.calm.list("a")] == ([] if always else [1000])
    site.check()


def test_a_part_that_was_stored_damaged_is_replaced_if_the_server_can(proxy: Proxy) -> None:
    site = Site(proxy)
    site.storage.parallel = 1  # type: ignore[attr-defined]
    parts = iter(["", "", "short-request"])
    proxy.plan = lambda request: next(parts, "") if request.operation == "UploadPart" else ""
    upload = site.storage.create("a", part_size=PART)
    if proxy.server.folder is None:
        upload.write(pattern(4 * PART))
        upload.commit()
        assert b"".join(site.calm.stream("a")) == pattern(4 * PART)
    else:  # rclone passes parts on as they come
        with pytest.raises(StorageError, match="run it again") as caught:
            upload.write(pattern(4 * PART))
        assert not caught.value.fatal
        upload.discard()
        site.put(site.storage, "a", pattern(4 * PART))
    assert [info.size for info in site.calm.list("a")] == [4 * PART]
    site.check()


@pytest.mark.parametrize("proxy", ["moto"], indirect=True)
def test_the_end_of_patience(proxy: Proxy) -> None:
    site = Site(proxy)
    upload = site.storage.create("a", part_size=PART)
    upload.write(pattern(PART + 1))
    proxy.plan = lambda request: "503"
    with pytest.raises(StorageError) as caught:
        upload.commit()
    assert not caught.value.fatal
    proxy.plan = None
    upload.discard()
    assert "a" not in [info.name for info in site.calm.list()]
    assert [leftover.name for leftover in site.calm.leftovers("")] == ["theirs/late"]
    site.check()


# What the proxy counts


@pytest.mark.parametrize("proxy", ["moto"], indirect=True)
def test_bytes_are_counted(proxy: Proxy) -> None:
    site = Site(proxy)
    site.put(site.storage, "a", pattern(2 * PART + 3))
    assert proxy.up["UploadPart"] == 2 * PART + 3
    before = proxy.down["GetObject"]
    assert len(site.storage.read("a", 5, 1000)) == 1000
    deadline = time.monotonic() + 20
    while proxy.down["GetObject"] == before and time.monotonic() < deadline:
        time.sleep(0.01)  # the client has its bytes before the proxy has noted them
    assert proxy.down["GetObject"] - before == 1000
    refused = iter(["500"])
    proxy.plan = lambda request: next(refused, "") if "/b?" in request.target and "Number=1" in request.target else ""
    site.put(site.storage, "b", pattern(PART + 1))
    proxy.plan = None
    assert proxy.up["UploadPart"] == 2 * PART + 3 + PART + 1 + PART, "a part was sent twice"
    assert proxy.faults == {"500": 1}
    site.check()


@pytest.mark.parametrize("proxy", ["moto"], indirect=True)
def test_a_slow_server_is_slow(proxy: Proxy) -> None:
    site = Site(proxy)
    proxy.rate = 40 * MIB
    try:
        site.put(site.storage, "a", pattern(PART + 1))
        assert len(site.storage.read("a", 0, PART)) == PART
    finally:
        proxy.rate = None
    site.check()


def test_nothing_is_left_of_a_proxy(sftp: Server) -> None:
    before = set(threading.enumerate())
    with fault_proxy(sftp, lambda request: "stall", stall=60) as proxy:
        host, _, port = proxy.server.endpoint.rpartition(":")
        idle = socket.create_connection((host, int(port)))
        waiting = socket.create_connection((host, int(port)))
        waiting.sendall(b"SSH-2.0-nobody\r\n")
    assert set(threading.enumerate()) == before
    for one in (idle, waiting):
        one.settimeout(10)
        with one, contextlib.suppress(ConnectionError):
            assert one.recv(100) == b""
    with pytest.raises(OSError, match=r".*"):
        socket.create_connection((host, int(port)), timeout=1)


def test_plans_that_mean_nothing(sftp: Server) -> None:
    with pytest.raises(UsageError):
        Faults(kinds={"flood"})
    with pytest.raises(UsageError):
        Faults(rate=5)
    with pytest.raises(UsageError), fault_proxy(sftp, rate=0):
        pass


def test_plans_repeat_themselves() -> None:
    requests = [Request(number, "GetObject", f"/a/{number % 3}", 0) for number in range(500)]

    def decided(**options: Any) -> list[str]:
        plan = Faults(rate=0.5, **options)
        return [plan(request) for request in requests]

    assert decided(seed=1) == decided(seed=1) != decided(seed=2)
    assert set(decided(kinds={"drop"})) == {"", "drop"}
    assert set(decided(operations={"PutObject"})) == {""}
    plan = Faults(rate=1, in_a_row=2, kinds={"500"})
    assert [plan(replace(requests[0], number=number)) for number in range(6)] == ["500", "500", "", "500", "500", ""]


# WebDAV and SFTP


def test_webdav_keeps_what_it_has(webdav: Proxy) -> None:
    site = Site(webdav)
    site.put(site.storage, "a", b"old")
    for number, kind in enumerate(["drop", "cut-request", "cut-response", "lose-response"]):
        plan = Faults(rate=1, kinds={kind}, operations={"PUT"})
        webdav.plan = plan
        with pytest.raises(StorageError):
            site.put(site.storage, f"new {number}", pattern(100_000))
        webdav.plan = None
        assert [info.name for info in site.calm.list()] == ["a", "theirs/done"]
        assert site.calm.read("a", 0, 3) == b"old"
        assert list(site.calm.leftovers("new")) == []
    site.check()


def test_webdav_recognises_its_own_success(webdav: Proxy) -> None:
    site = Site(webdav)
    for number, (operation, kind) in enumerate(
        [("COPY", "lose-response"), ("COPY", "late-error"), ("DELETE", "lose-response"), ("DELETE", "late-error")]
    ):
        once = iter([kind])
        webdav.plan = lambda request, once=once, operation=operation: (
            next(once, "") if request.operation == operation else ""
        )
        assert site.put(site.storage, f"new {number}", pattern(1000)).size == 1000
        webdav.plan = None
        assert site.calm.read(f"new {number}", 0, 1000) == pattern(1000)
        assert list(site.calm.leftovers("new")) == []
    site.check()


@pytest.mark.parametrize(
    ("theirs", "kind"), [(b"shorter", ""), (b"shorter", "late-error"), (pattern(1000, seed=1), ""), (pattern(2000), "")]
)
def test_webdav_leaves_alone_what_another_was_faster_with(theirs: bytes, kind: str) -> None:
    with rclone_server("webdav") as server, fault_proxy(server) as proxy:
        site = Site(proxy)
        folder = site.url.rpartition("/")[2]
        other = GenericStorage(f"{server.url}/{folder}", server.storage_options, retry=QUICK)

        def plan(request: Request) -> str:
            if request.operation != "COPY":
                return ""
            # Between our look and our move, and not by a commit, which would wait for ours.
            other.fs.pipe_file(other.path("a"), theirs)
            return kind

        proxy.plan = plan
        with pytest.raises((ConflictError, StorageError)):
            site.put(site.storage, "a", pattern(1000))
        proxy.plan = None
        assert [info.name for info in site.calm.list()] == ["a", "theirs/done"]
        assert b"".join(site.calm.stream("a")) == theirs
        other.close()
        site.check()


def test_webdav_sends_nothing_of_what_is_discarded(webdav: Proxy) -> None:
    site = Site(webdav)
    upload = site.storage.create("a")
    upload.write(pattern(MIB))
    upload.discard()
    assert webdav.up["PUT"] == 0
    site.check()


def test_sftp_does_not_wait_for_acknowledgements(sftp: Server) -> None:
    storage = GenericStorage(sftp.url, sftp.storage_options)
    connection = storage.fs.client.get_transport().sock
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    storage.close()


@pytest.mark.parametrize("kind", sorted(TCP_KINDS))
def test_sftp_that_breaks(sftp: Server, kind: str) -> None:
    folder = uuid.uuid4().hex
    calm = GenericStorage(f"{sftp.url}/{folder}", sftp.storage_options, retry=QUICK)
    Site.put(calm, "kept", b"kept")
    with fault_proxy(sftp, stall=0.1, delay=0.01) as proxy:
        storage = GenericStorage(f"{proxy.server.url}/{folder}", proxy.server.storage_options, retry=QUICK)
        upload = storage.create("a")
        proxy.plan = lambda request: kind
        with contextlib.suppress(StorageError):
            upload.write(pattern(100_000))
            upload.commit()
        with contextlib.suppress(StorageError):
            upload.discard()
        with contextlib.suppress(StorageError):
            storage.close()
    expected = ["a", "kept"] if kind == "delay" else ["kept"]
    assert [info.name for info in calm.list()] == expected
    assert calm.read("kept", 0, 4) == b"kept"
    calm.close()
