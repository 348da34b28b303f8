"""Walking remote trees: what file systems tell, in what order it comes, and what is not taken."""

from __future__ import annotations

import datetime as dt
import os
import socket
import stat as st
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import fsspec  # type: ignore[import-untyped]
import pytest
from aiobotocore.session import AioSession  # type: ignore[import-untyped]

from rozenfmt.errors import SourceError, UsageError
from rozenfmt.events import Problem
from rozenfmt.format.nodes import Entry, Kind, Mark
from rozenfmt.storage.retry import RetryPolicy
from rozenfmt.testing.servers import Server, moto_server
from rozenfmt.testing.sftp import SftpServer, sftp_server
from rozenfmt.tree import remote, remote_files
from rozenfmt.tree.content import CHUNK_SIZE
from rozenfmt.tree.excludes import Excludes
from rozenfmt.tree.remote import RemoteScanner
from rozenfmt.tree.remote_files import NEVER, Found, FsspecFiles, found_of, origin_of, same, time_ns

from .helpers import Recorder

SECOND = 1_000_000_000
LONG_AGO = 1_600_000_000


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files, "RETRY", RetryPolicy(attempts=3, first_wait=0.01))


def walk(url: str, options: dict[str, Any] | None = None, **more: Any) -> tuple[Recorder, list[Problem]]:
    sink, problems = Recorder(), list[Problem]()
    more.setdefault("name", b"root")
    RemoteScanner(url, options or {}, report=problems.append, **more).run(sink)
    return sink, problems


# --- what file systems tell -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        (dt.datetime(2020, 1, 1, 0, 0, 0, 123_456, tzinfo=dt.UTC), 1_577_836_800_123_456_000),
        (dt.datetime(2020, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))), 1_577_836_800 * SECOND),
        (dt.datetime(2020, 1, 1), 1_577_836_800 * SECOND),  # noqa: DTZ001 - so do some file systems
        (dt.datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=dt.UTC), -SECOND // 2),
        (1_577_836_800, 1_577_836_800 * SECOND),
        (1_577_836_800.25, 1_577_836_800 * SECOND + SECOND // 4),
        (-1.5, -SECOND - SECOND // 2),
        (1_577_836_800_123, 1_577_836_800_123_000_000),
        (1_577_836_800_123_456_789, 1_577_836_800_123_456_789),
        ("2020-01-01T00:00:00Z", 1_577_836_800 * SECOND),
        ("2020-01-01T01:00:00+01:00", 1_577_836_800 * SECOND),
        ("Wed, 01 Jan 2020 00:00:00 GMT", 1_577_836_800 * SECOND),
        ("20200101000000", 1_577_836_800 * SECOND),
        ("20200101000000.5", 1_577_836_800 * SECOND + SECOND // 2),
        ("1577836800", 1_577_836_800 * SECOND),
        ("yesterday", None),
        ("", None),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        (b"2020", None),
        (None, None),
    ],
)
def test_times(told: object, meant: int | None) -> None:
    assert time_ns(told) == meant


@pytest.mark.parametrize(
    ("info", "mtime_ns", "version", "dated"),
    [
        ({"LastModified": "2020-01-01T00:00:00Z", "ETag": '"a"'}, 1_577_836_800 * SECOND, b'etag="a"', True),
        ({"mtime": 7, "created": 5, "size": 1}, 7 * SECOND, b"", True),
        ({"created": 5, "size": 1}, 5 * SECOND, b"", False),
        ({"updated": "1970-01-02", "rev": "1", "crc32c": "x="}, 86_400 * SECOND, b"crc32c=x=\nrev=1", True),
        ({"modify": "20200101000000", "size": "no number"}, 1_577_836_800 * SECOND, b"", True),
        ({"etag": "a\nsize=3"}, None, b"etag=a size=3", False),
        ({"etag": None, "mtime": None}, None, b"", False),
    ],
)  # fmt: skip
def test_what_listings_say(info: dict[str, Any], mtime_ns: int | None, version: bytes, dated: bool) -> None:
    found = found_of({"type": "file", **info}, b"x")
    assert (found.mtime_ns, found.version, found.dated) == (mtime_ns, version, dated)
    assert st.S_ISREG(found.mode)
    assert st.S_IMODE(found.mode) == 0o644


def test_kinds_and_owners() -> None:
    told = found_of({"type": "directory", "mode": 0o40750, "uid": 5, "gid": 6, "owner": "ada", "group": "club"}, b"d")
    assert (told.mode, told.owner, told.user, told.group) == (0o40750, (5, 6), b"ada", b"club")
    assert found_of({"type": "directory"}, b"d").mode == 0o40755
    assert found_of({"type": "file"}, b"d").owner == (os.getuid(), os.getgid())
    link = found_of({"type": "file", "islink": True, "destination": "elsewhere"}, b"l")
    assert st.S_ISLNK(link.mode)
    assert link.target == b"elsewhere"
    assert found_of({"type": "other"}, b"o").mode == 0o644  # of no kind: the walk reports it


def file(**facts: Any) -> Found:
    return Found(b"x", st.S_IFREG | 0o644, **{"size": 1, "mtime_ns": LONG_AGO * SECOND, "dated": True, **facts})


def test_looks_are_compared_by_what_both_tell() -> None:
    assert same(file(), file())
    assert not same(file(), file(size=2))
    assert not same(file(), file(mtime_ns=LONG_AGO * SECOND + SECOND))
    assert same(file(), file(mtime_ns=LONG_AGO * SECOND + 1)), "one of them knows whole seconds only"
    assert not same(file(mtime_ns=3), file(mtime_ns=4))
    assert same(file(version=b"etag=1\nmd5=2"), file(version=b"etag=1"))
    assert not same(file(version=b"etag=1"), file(version=b"etag=2"))
    assert same(file(version=b"etag=1"), file(mtime_ns=None))


def test_signatures_trust_no_more_than_was_told() -> None:
    now = (LONG_AGO + 3600) * SECOND

    def seen(found: Found, source: bytes = b"s", at: int = now) -> tuple[int, ...]:
        stat = found.stat(source, at)
        return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino

    assert seen(file()) == seen(file())
    others = [file(version=b"etag=1"), file(size=2), file(mtime_ns=1), file(uid=3)]
    assert len({seen(file()), *map(seen, others), seen(file(), b"elsewhere")}) == 6
    assert seen(file())[2] != NEVER
    assert seen(file(), at=(LONG_AGO + 30) * SECOND)[2] == NEVER, "it may be written again in the same second"
    assert seen(file(version=b"etag=1"), at=LONG_AGO * SECOND)[2] != NEVER, "then the version would be another one"
    assert seen(file(dated=False))[2] == NEVER, "when it was made says nothing of when it was changed"
    assert seen(file(mtime_ns=None, dated=False))[2] == NEVER
    assert file(mtime_ns=1 << 70).stat(b"", now).st_mtime_ns == NEVER


def test_origins_hold_no_secret() -> None:
    assert origin_of("sftp://me:word@host:22/a@b") == "sftp://host:22/a@b"
    assert origin_of("https://host/a?sig=secret") == "https://host/a"
    assert origin_of("s3://bucket/what?") == "s3://bucket/what?"
    assert origin_of("zip://a::https://me:word@host/b?c") == "zip://a::https://host/b?c"


# --- a walk, in memory ----------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[Any]:
    fs = fsspec.filesystem("memory", global_store=True, skip_instance_cache=True)
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def fill(fs: Any, *paths: str) -> None:
    for path in paths:
        fs.store.pop(path, None)
        fs.pipe_file(path, path.encode())


def test_order_is_that_of_names_as_bytes(memory: Any) -> None:
    fill(memory, "/t/b", "/t/a/z", "/t/a-b", "/t/a/y/x", "/t/é", "/t/Z", "/t/a b", "/t/\U0001f600", "/t/\uffff")
    memory.makedirs("/t/empty")
    sink, problems = walk("memory://t")
    assert not problems
    files = [path for what, path in sink.events if what not in ("enter", "leave")]
    assert files == sorted(files, key=lambda path: path.split(b"/"))
    assert [path for what, path in sink.events if what == "enter"] == [
        b"root", b"root/a", b"root/a/y", b"root/empty",
    ]  # fmt: skip
    assert sink.content[b"root/a/y/x"] == b"/t/a/y/x"
    assert sink.entries[b"root/b"].mode == 0o644
    assert sink.entries[b"root/a"].mode == 0o755
    assert sink.entries[b"root/a"].mtime_ns == 0


def test_many_directories_and_files_come_in_order_however_far_ahead_is_asked(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_BYTES_AHEAD", 40)
    monkeypatch.setattr(remote, "_LISTING_LIMIT", 5)
    paths = [f"/t/{a}/{b}/{c:02}" for a in range(4) for b in range(12) for c in range(7 if b % 2 else 3)]
    fill(memory, *paths)
    sink, problems = walk("memory://t")
    assert not problems
    assert [path for what, path in sink.events if what == "small"] == [
        b"root" + path.removeprefix("/t").encode()
        for path in sorted(paths, key=lambda path: [part.encode() for part in path.split("/")])
    ]
    assert all(sink.content[b"root" + p.removeprefix("/t").encode()] == p.encode() for p in paths)


def test_names_that_no_file_can_have_are_named_and_left_out(memory: Any) -> None:
    fill(memory, "/t/good", "/t/a//b", "/t/c/../../etc/passwd", "/t/d/./e", "/t/nul\0", "/t/[a]*?\n{b}")
    sink, problems = walk("memory://t")
    assert {(p.path, p.what) for p in problems} == {
        (b"root/a/", "name"),
        (b"root/c/..", "name"),
        (b"root/d/.", "name"),
        (b"root/nul\0", "name"),
    }
    files = {path for what, path in sink.events if what == "small"}
    assert files == {b"root/good", b"root/[a]*?\n{b}"}
    assert sink.content[b"root/[a]*?\n{b}"] == b"/t/[a]*?\n{b}"


def test_excludes_and_caches(memory: Any) -> None:
    fill(memory, "/t/a.tmp", "/t/keep", "/t/sub/b.tmp", "/t/sub/keep", "/t/build/x", "/t/sub/build/x", "/t/cache/x")
    memory.pipe_file("/t/cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n")
    fill(memory, "/t/nocache/x")
    memory.pipe_file("/t/nocache/CACHEDIR.TAG", b"nothing of the kind, however long this text may be")
    sink, problems = walk("memory://t", excludes=Excludes(["*.tmp", "/build/"]), skip_caches=True)
    assert not problems
    assert {path for what, path in sink.events if what == "small"} == {
        b"root/keep", b"root/sub/keep", b"root/sub/build/x", b"root/cache/CACHEDIR.TAG",
        b"root/nocache/x", b"root/nocache/CACHEDIR.TAG",
    }  # fmt: skip


def test_a_file_alone_and_nothing_at_all(memory: Any) -> None:
    fill(memory, "/t/only")
    sink, _ = walk("memory://t/only", name=b"other")
    assert sink.content == {b"other": b"/t/only"}
    scanner = RemoteScanner("memory://nowhere", {}, report=print, name=b"x")
    with pytest.raises(SourceError):
        scanner.run(Recorder())
    assert scanner.missing


def test_what_fsspec_does_not_know() -> None:
    with pytest.raises(UsageError):
        walk("nonsense://t")


class Flaky(FsspecFiles):
    """Memory that fails as told, by method and path."""

    failures: dict[tuple[str, str], list[Exception]]

    def _fail(self, what: str, path: str) -> None:
        waiting = self.failures.get((what, path))
        if waiting:
            raise waiting.pop(0)

    def _list(self, path: str) -> list[Found]:
        self._fail("list", path)
        return super()._list(path)

    def _look(self, path: str) -> Found:
        self._fail("look", path)
        return super()._look(path)

    def _read(self, path: str, start: int, end: int) -> bytes:
        self._fail("read", path)
        return super()._read(path, start, end)


@pytest.fixture
def flaky(memory: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Recorder, list[Problem]]]:
    fill(memory, "/t/a", "/t/dir/x", "/t/z")

    def run(failures: dict[tuple[str, str], list[Exception]], **more: Any) -> tuple[Recorder, list[Problem]]:
        Flaky.failures = failures
        monkeypatch.setattr(remote, "FsspecFiles", Flaky)
        return walk("memory://t", **more)

    return run


def test_passing_failures_are_tried_again(flaky: Callable[..., Any]) -> None:
    again = [TimeoutError("wait"), ConnectionResetError("gone")]
    sink, problems = flaky({("read", "/t/a"): again[:], ("list", "/t/dir"): again[:], ("look", "/t"): again[:]})
    assert not problems
    assert set(sink.content) == {b"root/a", b"root/dir/x", b"root/z"}


def test_one_file_that_fails_is_a_problem_and_the_walk_goes_on(flaky: Callable[..., Any]) -> None:
    sink, problems = flaky({("read", "/t/a"): [TimeoutError("wait")] * 3, ("read", "/t/z"): [PermissionError()]})
    assert [(p.path, p.what) for p in problems] == [(b"root/a", "unreadable"), (b"root/z", "unreadable")]
    assert sink.entries[b"root/a"].marks == Mark.UNREADABLE
    assert set(sink.content) == {b"root/dir/x"}


def test_a_directory_that_fails_is_marked(flaky: Callable[..., Any]) -> None:
    sink, problems = flaky({("list", "/t/dir"): [PermissionError()] * 2})
    assert [(p.path, p.what) for p in problems] == [(b"root/dir", "unreadable")]
    assert sink.entries[b"root/dir"].marks == Mark.UNREADABLE
    assert ("leave", b"root/dir") in sink.events


def test_what_vanishes_is_a_problem(flaky: Callable[..., Any]) -> None:
    gone = FileNotFoundError("gone")
    sink, problems = flaky({("read", "/t/a"): [gone], ("list", "/t/dir"): [gone, gone]})
    assert [(p.path, p.what) for p in problems] == [(b"root/a", "vanished"), (b"root/dir", "vanished")]
    assert set(sink.entries) == {b"root", b"root/z"}


def test_a_source_that_fails_as_a_whole_ends_the_walk(flaky: Callable[..., Any]) -> None:
    down: list[Exception] = [ConnectionResetError("down")] * 3
    with pytest.raises(SourceError):
        flaky({("read", "/t/z"): down[:], ("look", "/t"): [*[TimeoutError("slow")] * 2, *down]})


def test_secrets_in_errors_are_masked(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(memory, "/t/a")
    Flaky.failures = {("read", "/t/a"): [ValueError("https://me:hunter22@host/?sig=abcdef failed for hunter22")]}
    monkeypatch.setattr(remote, "FsspecFiles", Flaky)
    _, (problem,) = walk("memory://t", {"token": "hunter22"})
    assert problem.path == b"root/a"
    assert "hunter22" not in problem.detail
    assert "sig=" not in problem.detail


# --- SFTP -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "served"
    place.mkdir()
    return place


@pytest.fixture
def sftp(folder: Path) -> Iterator[SftpServer]:
    with sftp_server(folder) as server:
        yield server


def test_sftp_tells_modes_owners_times_links_and_any_name(folder: Path, sftp: SftpServer) -> None:
    odd = os.fsencode(folder) + b"/latin-\xe9\n*?[x]"
    Path(os.fsdecode(odd)).write_bytes(b"odd")
    os.mkdir(os.fsencode(folder) + b"/dir-\xff")
    Path(os.fsdecode(os.fsencode(folder) + b"/dir-\xff/in")).write_bytes(b"inside")
    os.symlink(b"nowhere-\xfe", os.fsencode(folder) + b"/link-\xfd")
    (folder / "run").write_bytes(b"#!")
    (folder / "run").chmod(0o4751)
    os.utime(folder / "run", (LONG_AGO, LONG_AGO))
    os.mkfifo(folder / "fifo", 0o600)
    (folder / "empty").touch()
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "s"))
        sink, problems = walk(sftp.url, sftp.options)
    assert not problems
    entries = sink.entries
    assert entries[b"root/run"].mode == 0o4751
    assert entries[b"root/run"].mtime_ns == LONG_AGO * SECOND
    assert (entries[b"root/run"].uid, entries[b"root/run"].gid) == (os.getuid(), os.getgid())
    assert entries[b"root/link-\xfd"].target == b"nowhere-\xfe"
    assert entries[b"root/fifo"].kind is Kind.FIFO
    assert entries[b"root/s"].kind is Kind.SOCKET
    assert sink.content == {
        b"root/latin-\xe9\n*?[x]": b"odd",
        b"root/dir-\xff/in": b"inside",
        b"root/run": b"#!",
        b"root/empty": b"",
    }
    assert sftp.seen.connections == 1


def test_sftp_many_entries_and_big_files_in_short_answers(folder: Path, sftp: SftpServer) -> None:
    for number in range(300):
        (folder / f"file {number:03}").write_bytes(b"%d" % number)
    big = os.urandom(CHUNK_SIZE + 12_345)
    (folder / "big").write_bytes(big)
    sftp.seen.most = 20_000
    sink, problems = walk(sftp.url, sftp.options, small_limit=100_000)
    assert not problems
    assert sink.content[b"root/big"] == big
    assert len(sink.content) == 301
    assert all(sink.content[b"root/file %03d" % number] == b"%d" % number for number in range(300))


def test_sftp_a_file_that_changes_once_is_read_again(folder: Path, sftp: SftpServer) -> None:
    small, big = folder / "small", folder / "big"
    small.write_bytes(b"before")
    big.write_bytes(bytes(CHUNK_SIZE + 5))
    for path in (small, big):
        os.utime(path, (LONG_AGO, LONG_AGO))
    left = {os.fsencode(small): b"and after", os.fsencode(big): b"x" * (CHUNK_SIZE + 5)}

    def change(path: bytes, offset: int) -> None:
        data = left.pop(path, None)
        if data is not None:
            Path(os.fsdecode(path)).write_bytes(data)

    sftp.seen.on_read = change
    sink, problems = walk(sftp.url, sftp.options, small_limit=1000)
    assert sink.content[b"root/small"] == b"and after"
    assert not sink.entries[b"root/small"].marks
    # This sink takes a big file once: it is marked. A vault's reads it again.
    assert [(p.path, p.what) for p in problems] == [(b"root/big", "changed")]
    assert sink.entries[b"root/big"].marks == Mark.CHANGED


def test_sftp_a_file_that_always_changes_is_marked(folder: Path, sftp: SftpServer) -> None:
    path = folder / "log"
    path.write_bytes(b"line\n")

    def grow(at: bytes, offset: int) -> None:
        with open(at, "ab") as file:
            file.write(b"line\n")

    sftp.seen.on_read = grow
    sink, problems = walk(sftp.url, sftp.options)
    assert [(p.path, p.what) for p in problems] == [(b"root/log", "changed")]
    entry = sink.entries[b"root/log"]
    assert entry.marks == Mark.CHANGED
    assert entry.size == len(sink.content[b"root/log"])


def test_sftp_what_is_denied_and_what_vanishes(folder: Path, sftp: SftpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("denied", "gone", "kept"):
        (folder / name).write_bytes(b"x")
    (folder / "closed").mkdir()
    real_open, real_list = os.open, os.listdir

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if isinstance(path, bytes) and path.endswith(b"/denied"):
            raise PermissionError(13, "no")
        if isinstance(path, bytes) and path.endswith(b"/gone"):
            raise FileNotFoundError(2, "no")
        return real_open(path, *rest, **more)

    def closed(path: Any) -> Any:
        if isinstance(path, bytes) and path.endswith(b"/closed"):
            raise PermissionError(13, "no")
        return real_list(path)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "listdir", closed)
    sink, problems = walk(sftp.url, sftp.options)
    assert [(p.path, p.what) for p in problems] == [
        (b"root/closed", "unreadable"),
        (b"root/denied", "unreadable"),
        (b"root/gone", "vanished"),
    ]
    assert sink.entries[b"root/closed"].marks == sink.entries[b"root/denied"].marks == Mark.UNREADABLE
    assert b"root/gone" not in sink.entries
    assert sink.content == {b"root/kept": b"x"}


def test_sftp_a_lost_connection_is_made_again(folder: Path, sftp: SftpServer) -> None:
    for number in range(40):
        (folder / f"{number:02}").write_bytes(bytes(1000))
    (folder / "big").write_bytes(bytes(CHUNK_SIZE + 50_000))
    cuts = [os.fsencode(folder / "20"), os.fsencode(folder / "big")]

    def cut(path: bytes, offset: int) -> None:
        if path in cuts and (offset or path.endswith(b"/20")):
            cuts.remove(path)
            sftp.seen.transports[-1].close()

    sftp.seen.on_read = cut
    sink, problems = walk(sftp.url, sftp.options, small_limit=10_000)
    assert not problems
    assert not cuts
    assert len(sink.content) == 41
    assert sftp.seen.connections == 3


def test_sftp_refusals_say_why(sftp: SftpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as wrong:
        walk(sftp.url, {**sftp.options, "password": "of-another-person"})
    assert "of-another-person" not in str(wrong.value)
    monkeypatch.setenv("HOME", str(tmp_path))
    strict = {key: value for key, value in sftp.options.items() if key != "host_key_policy"}
    with pytest.raises(SourceError):
        walk(sftp.url, strict)
    with pytest.raises(UsageError):
        walk(sftp.url, {**sftp.options, "host_key_policy": "whatever"})
    with pytest.raises(UsageError):
        walk(sftp.url, {**sftp.options, "no_such_option": 1})


def test_sftp_known_hosts_are_believed(
    sftp: SftpServer, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import paramiko  # type: ignore[import-untyped]

    (folder / "x").write_bytes(b"x")
    host, port = sftp.url.rpartition("@")[2].split(":")
    with paramiko.Transport((host, int(port))) as asked:
        asked.start_client(timeout=10)
        key = asked.get_remote_server_key()
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    known = tmp_path / ".ssh" / "known_hosts"
    known.write_text(f"[{host}]:{port} {key.get_name()} {key.get_base64()}\n")
    strict = {name: value for name, value in sftp.options.items() if name != "host_key_policy"}
    assert walk(sftp.url, strict)[0].content == {b"root/x": b"x"}
    other = paramiko.ECDSAKey.generate()
    known.write_text(f"[{host}]:{port} {other.get_name()} {other.get_base64()}\n")
    with pytest.raises(SourceError):
        walk(sftp.url, {**strict, "host_key_policy": "auto_add"})


# --- S3 -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moto() -> Iterator[Server]:
    with moto_server() as server:
        yield server


@pytest.fixture
def bucket(moto: Server, request: pytest.FixtureRequest) -> Callable[[dict[str, bytes]], tuple[str, dict[str, Any]]]:
    options = {**moto.storage_options, "session": AioSession()}
    name = request.node.name.replace("_", "-")[:60]

    def put(objects: dict[str, bytes]) -> tuple[str, dict[str, Any]]:
        client = boto3.client(
            "s3",
            endpoint_url=options["endpoint_url"],
            aws_access_key_id=options["key"],
            aws_secret_access_key=options["secret"],
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=name)
        for key, data in objects.items():
            client.put_object(Bucket=name, Key=key, Body=data)
        client.close()
        return f"s3://{name}", options

    return put


def test_s3_odd_keys(bucket: Callable[..., Any]) -> None:
    url, options = bucket(
        {
            "top/good": b"good",
            "top/[a]*?{b}": b"odd",
            "top/ & <tag> %41+": b"marked up",
            "top/a//b": b"empty component",
            "top/c/../d": b"up",
            "top/both": b"object",
            "top/both/inside": b"folder",
            "top/marked/": b"",
            "top/marked/x": b"x",
            "top/full/": b"a marker with content",
            "top/empty-folder/": b"",
            "top/é": b"accent",
            "topsail/other": b"of another folder",
        }
    )
    sink, problems = walk(url + "/top", options)
    assert sink.content == {
        b"root/good": b"good",
        b"root/[a]*?{b}": b"odd",
        b"root/ & <tag> %41+": b"marked up",
        b"root/both/inside": b"folder",
        b"root/marked/x": b"x",
        "root/é".encode(): b"accent",
    }
    assert {(p.path, p.what) for p in problems} == {
        (b"root/a/", "name"),
        (b"root/both", "name"),
        (b"root/c/..", "name"),
        (b"root/full/", "name"),
    }
    assert {path for what, path in sink.events if what == "enter"} >= {b"root/empty-folder", b"root/full", b"root/a"}
    assert abs(sink.entries[b"root/good"].mtime_ns // SECOND - int(dt.datetime.now(dt.UTC).timestamp())) < 600


def test_s3_roots(bucket: Callable[..., Any]) -> None:
    url, options = bucket({"one": b"1", "one-more": b"2", "one/x": b"3", "deep/er/y": b"4"})
    assert walk(f"{url}/deep", options)[0].content == {b"root/er/y": b"4"}
    assert walk(f"{url}/one", options)[0].content == {b"root": b"1"}
    assert walk(url, options)[0].content == {b"root/one/x": b"3", b"root/one-more": b"2", b"root/deep/er/y": b"4"}
    for nowhere in ("on", "deep/e", "none"):
        scanner = RemoteScanner(f"{url}/{nowhere}", options, report=print, name=b"x")
        with pytest.raises(SourceError):
            scanner.run(Recorder())
        assert scanner.missing
    with pytest.raises(SourceError):
        walk("s3://no-such-bucket-at-all/x", options)


def test_s3_many_pages_and_a_big_object(bucket: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from rozenfmt.tree import remote_s3

    real, asked = remote_s3.S3Files._page, list[Any]()

    async def short(self: Any, **arguments: Any) -> Any:
        asked.append(arguments)
        return await real(self, **{"MaxKeys": 3, **arguments})

    monkeypatch.setattr(remote_s3.S3Files, "_page", short)
    big = os.urandom(CHUNK_SIZE + 99)
    url, options = bucket({f"{n:02}{'/x' * (n % 2)}": b"" for n in range(20)} | {"big": big, "zero/nothing": b""})
    sink, problems = walk(url, options, small_limit=1 << 20)
    assert not problems
    assert sink.content[b"root/big"] == big
    assert len(sink.content) == 22
    assert sum("ContinuationToken" in one for one in asked) == 7


def test_s3_an_object_that_is_replaced_is_read_again(
    bucket: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rozenfmt.tree import remote_s3

    url, options = bucket({"a": b"before"})
    real = remote_s3.S3Files._fetch
    replaced: list[str] = []

    def late(self: Any, path: str, size: int) -> tuple[bytes, Found]:
        if not replaced:
            replaced.append(path)
            fs = fsspec.filesystem("s3", **options, skip_instance_cache=True)
            fs.pipe_file(f"{url[5:]}/a", b"and after")
        return real(self, path, size)

    monkeypatch.setattr(remote_s3.S3Files, "_fetch", late)
    sink, problems = walk(url, options)
    assert not problems
    assert sink.content == {b"root/a": b"and after"}
    assert sink.entries[b"root/a"] == Entry(
        b"a", Kind.FILE, 0o644, os.getuid(), os.getgid(), mtime_ns=sink.entries[b"root/a"].mtime_ns, size=9
    )
