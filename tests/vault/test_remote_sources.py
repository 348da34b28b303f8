"""Vaults back up what stands on other file systems: whole lives on real servers, and what may go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
from aiobotocore.session import AioSession  # type: ignore[import-untyped]

import rozenfmt as rz
from rozenfmt.errors import ConflictError, SourceError, UsageError
from rozenfmt.storage.retry import RetryPolicy
from rozenfmt.testing.servers import moto_server, rclone_server
from rozenfmt.testing.sftp import PASSWORD, SftpServer, sftp_server
from rozenfmt.tree import remote_files
from rozenfmt.vault.backup import parse_sources
from rozenfmt.vault.vault import Vault

from .site import SETTLED, Site, facts, settle, write
from .test_killed import noise

KINDS = ["moto", "s3", "sftp", "webdav", "memory"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files, "RETRY", RetryPolicy(attempts=3, first_wait=0.01))


@dataclass
class Place:
    """Somewhere that can be written to behind the vault's back."""

    url: str
    options: dict[str, Any]
    fs: Any
    root: str
    folder: Path | None
    pid: int = 0

    def begin(self, files: dict[str, bytes]) -> None:
        """Put files there, of a time long ago where that can be set; before anybody has looked."""
        for name, data in files.items():
            if self.folder is not None:
                settle(write(self.folder / name, data))
            else:
                self.put(name, data)

    def put(self, name: str, data: bytes) -> None:
        self.fs.makedirs(f"{self.root}/{name}".rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(f"{self.root}/{name}", data)

    def remove(self, name: str) -> None:
        self.fs.invalidate_cache()
        self.fs.rm_file(f"{self.root}/{name}")


@contextmanager
def place(kind: str) -> Iterator[Place]:
    with ExitStack() as stack:
        if kind == "memory":
            fs = fsspec.filesystem("memory", skip_instance_cache=True)
            stack.callback(fs.store.clear)
            yield Place("memory://source/prefix", {}, fs, "/source/prefix", None)
            return
        server = stack.enter_context(moto_server() if kind == "moto" else rclone_server(kind))  # type: ignore[arg-type]
        options = dict(server.storage_options)
        if kind in ("moto", "s3"):
            options["session"] = AioSession()
        if kind == "sftp":
            options["host_key_policy"] = "auto_add"
        # Not behind the server's back: rclone remembers what it has seen.
        writing = {key: value for key, value in options.items() if key != "host_key_policy"}
        fs, root = fsspec.url_to_fs(server.url, skip_instance_cache=True, **writing)
        if kind == "webdav":
            stack.callback(fs.client.http.close)
        if kind == "sftp":
            stack.callback(fs.client.close)
        yield Place(server.url, options, fs, str(root), server.folder, server.pid)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of files that a source was asked for."""
    asked: list[str] = []
    for name in ("read", "fetch"):
        real = getattr(remote_files.RemoteFiles, name)

        def noted(self: Any, path: str, *rest: Any, real: Any = real) -> Any:
            asked.append(path)
            return real(self, path, *rest)

        monkeypatch.setattr(remote_files.RemoteFiles, name, noted)
    return asked


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("kind", KINDS)
def test_life_of_a_remote_source(kind: str, site: Site, reads: list[str]) -> None:
    with place(kind) as there:
        wanted = {
            "a file": b"first",
            "dir/empty": b"",
            "dir/[odd]* name +%41 é": b"odd",
            "dir/what?": b"a question",
            "dir/sub/changes": b"before",
            "dir/sub/goes": b"away with it",
            "dir/sub/moves": b"from one place to another",
            "image": noise(3_000_000),
        }
        there.begin(wanted)

        def backup() -> rz.BackupResult:
            reads.clear()
            return site.backup(there.url, source_options=there.options)

        first = backup()
        assert (first.new, first.problems, first.complete) == (len(wanted), [], True)
        restored = site.restored(first.snapshot_id) / "prefix"
        assert contents(restored) == wanted
        if there.folder is not None:
            precise = 1_000_000_000 if kind in ("sftp", "webdav") else 1
            for name in wanted:
                assert (restored / name).stat().st_mtime_ns == SETTLED // precise * precise

        second = backup()
        assert (second.unchanged, second.same) == (True, len(wanted))
        if kind == "memory":  # it tells when a file was made, and nothing that changes with it
            assert second.read_bytes == first.read_bytes
        else:
            assert (second.read_bytes, reads) == (0, [])

        changes = {"dir/sub/changes": b"and after", "dir/new": b"new", "elsewhere": wanted["dir/sub/moves"]}
        for name, data in changes.items():
            there.put(name, data)
        for name in ("dir/sub/goes", "dir/sub/moves"):
            there.remove(name)
        third = backup()
        assert (third.new, third.changed, third.moved, third.deleted, third.same) == (1, 1, 1, 1, 5)
        assert [(m.old, m.new) for m in third.moves] == [(b"prefix/dir/sub/moves", b"prefix/elsewhere")]
        if kind != "memory":
            assert {path.rpartition("/")[2] for path in reads} == {"changes", "new", "elsewhere"}
        now = {**wanted, **changes}
        del now["dir/sub/goes"], now["dir/sub/moves"]
        assert contents(site.restored(third.snapshot_id) / "prefix") == now
        assert site.backup(there.url, source_options=there.options, reread="all").read_bytes >= 3_000_000


@pytest.fixture
def sftp(site: Site) -> Iterator[SftpServer]:
    with sftp_server(site.source) as server:
        yield server


def test_modes_owners_links_and_times_come_back(site: Site, sftp: SftpServer) -> None:
    for name, mode in (("run", 0o755), ("secret", 0o600), ("dir/in", 0o440)):
        settle(write(site.source / name, name.encode(), mode=mode))
    (site.source / "link").symlink_to("nowhere")
    (site.source / "dir").chmod(0o750)
    odd = os.fsencode(site.source) + b"/latin-\xe9"
    Path(os.fsdecode(odd)).write_bytes(b"odd")
    settle(Path(os.fsdecode(odd)), site.source / "dir", site.source)
    result = site.backup(("source", sftp.url), source_options=sftp.options)
    assert result.complete, result.problems
    assert facts(site.restored(result.snapshot_id) / "source") == facts(site.source)


def test_unchanged_files_are_not_opened_and_recent_ones_are(site: Site, sftp: SftpServer) -> None:
    settle(*(write(site.source / f"old{number}", "x") for number in range(5)))
    write(site.source / "just now", "x")
    for opened in ({f"/old{n}".encode() for n in range(5)} | {b"/just now"}, {b"/just now"}):
        sftp.seen.opened.clear()
        site.backup(sftp.url, source_options=sftp.options)
        assert set(sftp.seen.opened) == opened
    (site.source / "old1").chmod(0o600)
    settle(write(site.source / "old2", "another size"))
    settle(site.source / "just now")
    sftp.seen.opened.clear()
    result = site.backup(sftp.url, source_options=sftp.options)
    assert (result.changed, result.metadata, result.same) == (1, 2, 3)
    assert set(sftp.seen.opened) == {b"/old1", b"/old2", b"/just now"}


def test_a_big_file_that_changes_under_the_reader_is_read_again(site: Site, sftp: SftpServer) -> None:
    path = write(site.source / "big", noise(9_000_000))
    settle(path)  # the server tells whole seconds: what is written twice in one cannot be told apart
    after = noise(9_000_000, 1)

    def change(_: bytes, offset: int) -> None:
        if offset > 4_000_000 and path.read_bytes() != after:
            path.write_bytes(after)

    sftp.seen.on_read = change
    result = site.backup(("source", sftp.url), source_options=sftp.options)
    assert result.complete, result.problems
    assert (site.restored(result.snapshot_id) / "source/big").read_bytes() == after


def test_the_same_name_elsewhere_is_another_file(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for folder, data in ((site.source, "one"), (other, "two")):
        settle(write(folder / "x", data))
    for folder, content in ((site.source, b"one"), (other, b"two")):
        with sftp_server(folder) as server:
            result = site.backup(("source", server.url), source_options=server.options)
        assert contents(site.restored(result.snapshot_id) / "source") == {"x": content}


# --- a write-once set -----------------------------------------------------------------------------


def test_write_once_sets_of_remote_files(site: Site, sftp: SftpServer) -> None:
    small, big = write(site.source / "small", "before"), write(site.source / "big", noise(17_000_000))
    settle(small, big)

    def backup(**more: Any) -> rz.BackupResult:
        return site.backup(("source", sftp.url), source_options=sftp.options, mode="worm", **more)

    backup()
    write(small, "after!")
    write(big, noise(17_000_000, 1))
    with pytest.raises(ConflictError) as left:
        backup()
    result = left.value.result
    assert {c.path for c in result.conflicts} == {b"source/small", b"source/big"}
    assert all(not c.can_restore and c.local_path == b"" for c in result.conflicts)
    assert (site.restored(result.snapshot_id) / "source/small").read_bytes() == b"before"
    # Not even with a key that reads: nothing is written to another machine.
    with Vault.open(site.url, host=site.host, identities=[site.me], cache_dir=site.cache) as vault:
        before = len(vault.snapshots())
        with pytest.raises(ConflictError) as refused:
            vault.backup(
                [("source", sftp.url)], source_options=sftp.options, mode="worm", name="all", on_conflict="restore"
            )
        assert refused.value.result is None
        assert len(vault.snapshots()) == before
    accepted = backup(on_conflict="accept")
    assert accepted.changed == 2
    assert (site.restored(accepted.snapshot_id) / "source/big").read_bytes() == noise(17_000_000, 1)


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_source_that_became_empty_or_is_gone(site: Site, sftp: SftpServer) -> None:
    write(site.source / "dir/x", "x")
    url, options = sftp.url + "/dir", sftp.options
    site.backup(url, source_options=options)
    before = site.objects()
    (site.source / "dir/x").unlink()
    with pytest.raises(SourceError):
        site.backup(url, source_options=options)
    assert site.objects() == before
    assert site.backup(url, source_options=options, allow_empty=True).entries == 1
    (site.source / "dir").rmdir()
    with pytest.raises(SourceError):
        site.backup(url, source_options=options)
    gone = site.backup(url, source_options=options, allow_empty=True)
    assert gone.entries == 0
    assert gone.notes


@pytest.mark.parametrize("kind", ["s3", "sftp", "webdav"])
def test_a_server_that_is_killed_leaves_no_snapshot(kind: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with place(kind) as there:
        there.begin({f"{number:02}": noise(3_000, number) for number in range(60)} | {"big": noise(6_000_000)})
        count, lock = 0, threading.Lock()
        for name in ("read", "fetch"):
            real = getattr(remote_files.RemoteFiles, name)

            def killing(self: Any, path: str, *rest: Any, real: Any = real) -> Any:
                nonlocal count
                with lock:
                    count += 1
                    if count == 20:
                        os.kill(there.pid, signal.SIGKILL)
                return real(self, path, *rest)

            monkeypatch.setattr(remote_files.RemoteFiles, name, killing)
        before = site.objects("meta")
        with pytest.raises(SourceError):
            site.backup(there.url, source_options=there.options)
        assert site.objects("meta") == before
    with pytest.raises(SourceError):
        site.backup(there.url, source_options=there.options)
    alive = [thread.name for thread in threading.enumerate() if thread.name.startswith("rozenfmt-s")]
    assert not alive


def test_a_run_that_lost_its_source_is_gone_on_with(site: Site, sftp: SftpServer) -> None:
    for number in range(3):
        settle(write(site.source / f"{number}", noise(6_000_000, number)))

    def cut(path: bytes, offset: int) -> None:
        if path.endswith(b"/2") and offset > 4_000_000:
            sftp.seen.refuse = True
            for transport in sftp.seen.transports:
                transport.close()

    sftp.seen.on_read = cut
    with site.writer() as vault:
        with pytest.raises(SourceError) as lost:
            vault.backup([("source", sftp.url)], name="all", source_options=sftp.options, data_size=1 << 20)
        assert lost.value.passing
        (left,) = vault.interrupted()
        assert left.sources == (sftp.url.replace("somebody@", "").encode(),)
        for path in site.cache.rglob("*"):
            assert not path.is_file() or PASSWORD.encode() not in path.read_bytes()
        sftp.seen.refuse, sftp.seen.on_read = False, None
        (done,) = vault.resume(source_options={sftp.url: sftp.options, "s3://of-another-backup": {"key": "x"}})
        assert not vault.interrupted()
    assert contents(site.restored(done.snapshot_id) / "source") == {f"{n}": noise(6_000_000, n) for n in range(3)}
    with site.writer() as vault:
        with pytest.raises(SourceError) as missing:
            vault.backup(sftp.url + "/nowhere", source_options=sftp.options)
        assert not missing.value.passing
        assert not vault.interrupted()


def test_files_that_cannot_be_read_are_told_and_the_rest_is_stored(
    site: Site, sftp: SftpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(*(write(site.source / name, name) for name in ("good", "bad", "dir/x")))
    real = remote_files.RemoteFiles.fetch

    def refuse(self: Any, path: str, size: int) -> Any:
        if path.endswith("/bad"):
            raise PermissionError(13, "access is denied")
        return real(self, path, size)

    monkeypatch.setattr(remote_files.RemoteFiles, "fetch", refuse)
    result = site.backup(("source", sftp.url), source_options=sftp.options)
    assert not result.complete
    assert [(p.path, p.what) for p in result.problems] == [(b"source/bad", "unreadable")]
    monkeypatch.undo()
    with Vault.open(site.url, identities=[site.me]) as vault:
        assert vault.snapshot("latest").read("source/good") == b"good"
    again = site.backup(("source", sftp.url), source_options=sftp.options)
    assert again.complete
    assert contents(site.restored(again.snapshot_id) / "source") == {"good": b"good", "bad": b"bad", "dir/x": b"dir/x"}


# --- names, options, secrets ----------------------------------------------------------------------


def test_sources_and_their_names() -> None:
    def name(*sources: Any, **options: Any) -> list[tuple[bytes, bytes]]:
        return [(one.name, one.path) for one in parse_sources(*sources, **options)]

    assert name("sftp://me:word@host:22/srv/www/") == [(b"www", b"sftp://host:22/srv/www/")]
    assert name(["sftp://me@host:2222"]) == [(b"host", b"sftp://host:2222")]
    assert name(["s3://bucket", ("other", "s3://bucket/a b")]) == [
        (b"bucket", b"s3://bucket"),
        (b"other", b"s3://bucket/a b"),
    ]
    assert name(["simplecache::s3://bucket/x"]) == [(b"x", b"simplecache::s3://bucket/x")]
    assert name("memory://") == [(b"root", b"memory://")]
    # What is no text is a path; and so is what says that it is one.
    assert name(b"s3://bucket") == [(b"bucket", os.fsencode(os.path.abspath("s3:/bucket")))]
    assert name([Path("s3://bucket")]) == [(b"bucket", os.fsencode(os.path.abspath("s3:/bucket")))]
    assert name("file:///tmp/x") == [(b"x", b"/tmp/x")]
    with pytest.raises(UsageError):
        name(["s3://one/x", "s3://two/x"])
    with pytest.raises(UsageError):
        name([("..", "s3://one")])


def test_options_go_to_the_sources_they_are_for() -> None:
    def options(source_options: Any, *urls: str) -> list[dict[str, Any]]:
        found = parse_sources([(str(n), url) for n, url in enumerate(urls)], source_options)
        return [dict(one.remote.options) if one.remote else {} for one in found]

    both = {"a": 1, "s3://bucket": {"b": 2}, "s3://bucket/deep": {"a": 3}}
    assert options(both, "s3://bucket/x", "s3://bucket/deep/y", "s3://bucket2", "/local") == [
        {"a": 1, "b": 2},
        {"a": 3, "b": 2},
        {"a": 1},
        {},
    ]
    assert options({"sftp://host": {"port": 22}}, "sftp://me:word@host/x") == [{"port": 22}]
    assert options({"s3://": {"key": "k"}}, "s3://bucket") == [{"key": "k"}]
    for wrong in ({"s3://other": {"a": 1}}, {"s3://bucket": "text"}, ["a"]):
        with pytest.raises(UsageError):
            options(wrong, "s3://bucket")
    with pytest.raises(UsageError):
        options({"a": 1}, "/local")


def test_secrets_are_not_stored_nor_told(site: Site, sftp: SftpServer, capfd: pytest.CaptureFixture[str]) -> None:
    write(site.source / "x", "x")
    address = sftp.url.replace("somebody@", f"somebody:{PASSWORD}@")
    options = {key: value for key, value in sftp.options.items() if key != "password"}
    with site.writer() as vault:
        result = vault.backup([("source", address)], source_options=options)
        assert PASSWORD not in repr(result)
        assert result.set_name == address.replace(f"somebody:{PASSWORD}@", "")
        for wrong, more in ((address + "/nowhere", options), (address.replace("somebody", "nobody"), options)):
            with pytest.raises(SourceError) as refused:
                vault.backup([("source", wrong)], source_options=more)
            assert PASSWORD not in f"{refused.value!r} {refused.value.__cause__!r} {refused.value.__context__!r}"
    with site.reader() as vault:
        (source,) = vault.snapshot(result.snapshot_id).sources
        assert source.origin == result.set_name.encode()
        assert source.kind is rz.SourceKind.OTHER
    for path in site.cache.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes()
    assert PASSWORD not in "".join(capfd.readouterr())


def test_the_vault_does_not_back_up_itself(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory", skip_instance_cache=True)
    fs.pipe_file("/all/data", b"data")
    fs.pipe_file("/all/[v]2/other", b"no vault")
    me = rz.Identity.generate()
    try:
        with Vault.init("memory://all/[v] 1", owner=me, cache_dir=tmp_path) as vault:
            host = vault.enrol("h")
        with Vault.open("memory://all/[v] 1", host=host, identities=[me], cache_dir=tmp_path) as vault:
            result = vault.backup("memory://all", name="all")
            assert [e.path for e in vault.snapshot(result.snapshot_id) if e.kind is rz.Kind.FILE] == [
                "all/[v]2/other",
                "all/data",
            ]
            with pytest.raises(UsageError):
                vault.backup("memory://all/[v] 1")
            # What is inside may be backed up by somebody who wants to; and another server's is another folder.
            assert vault.backup("memory://all/[v] 1/editions", name="editions").entries > 1
    finally:
        fs.store.clear()


def test_a_directory_elsewhere_cannot_be_compared(site: Site) -> None:
    write(site.source / "x", "x")
    result = site.backup()
    with site.reader() as vault, pytest.raises(UsageError):
        vault.verify(result.snapshot_id, against="sftp://host/dir")


def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    """In a fresh process: what it takes for a file of 160 MiB is not much more than for one of 64 MiB."""
    served = tmp_path / "served"
    for name, size in (("small/x", 64 << 20), ("big/x", 160 << 20)):
        path = write(served / name)
        with path.open("wb") as file:
            file.truncate(size)  # zeros: only the way through is looked at
    peaks = []
    with sftp_server(served) as server:
        for name in ("small", "big"):
            script = f"""
import sys, tempfile, rozenfmt as rz
with tempfile.TemporaryDirectory() as place:
    me = rz.Identity.generate()
    with rz.Vault.init(place + "/v", owner=me, cache_dir=place) as vault:
        host = vault.enrol("h")
    with rz.Vault.open(place + "/v", host=host, cache_dir=place) as vault:
        assert vault.backup({server.url + "/" + name!r}, source_options={server.options!r}, workers=2).complete
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")))
"""
            done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 48 << 20, peaks
