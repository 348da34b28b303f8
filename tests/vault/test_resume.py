"""A run that was killed or cut off, and the next one that goes on with what it left."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rozenfmt as rz
from rozenfmt.archive.pipeline import Pipeline
from rozenfmt.storage import open_storage
from rozenfmt.storage.base import Leftover
from rozenfmt.storage.upload import State
from rozenfmt.testing.servers import moto_server, rclone_server
from rozenfmt.vault import output
from rozenfmt.vault.journal import Journal

from .dying import Runner, archives_of
from .runs import what_it_restores
from .site import write
from .test_killed import noise
from .trees import differences, tree

pytestmark = pytest.mark.usefixtures("untimed")

MIB = 1 << 20
BOUND = 64 * MIB
SERVERS = {"moto": moto_server, "rclone": rclone_server}


@pytest.fixture
def local(tmp_path: Path) -> Runner:
    return Runner(str(tmp_path / "vault"), {}, tmp_path)


@pytest.fixture(scope="module", params=["moto", "rclone"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    with SERVERS[request.param]() as found:
        yield found


@pytest.fixture
def remote(server: Any, tmp_path: Path) -> Runner:
    return Runner(f"{server.url}/{tmp_path.name}", server.storage_options, tmp_path)


def fill(source: Path, *, megabytes: int = 60) -> None:
    """Contents that do not compress: small ones, and some in parts."""
    for number in range(40):
        write(source / f"small {number}", noise(30_000 + number, number))
    for number in range(megabytes // 10):
        write(source / f"big {number}", noise(10_000_000, f"big {number}"))


def main_journal(runner: Runner) -> Path:
    (path,) = (path for path in runner.journals() if path.suffix == ".journal")
    return path


def whole(runner: Runner, snapshot: str) -> None:
    """A snapshot is what the source is, and everything stored is sound."""
    with runner.open() as vault:
        report = vault.verify(level="contents")
        assert not report.problems
        where = runner.folder / f"restored {snapshot[:8]}"
        got = what_it_restores(vault, snapshot, where)
    assert not differences(tree({b"source": runner.source}), got)
    assert not runner.journals()


@pytest.mark.parametrize(("what", "after"), [("upload_part", 6), ("upload_part", 9), ("complete_multipart_upload", 1)])
def test_killed_while_uploading(remote: Runner, what: str, after: int) -> None:
    fill(remote.source)
    remote.dies(what=what, after=after)
    assert not remote.stored("meta")
    done = remote.run()
    whole(remote, done["snapshot"])
    assert remote.sent - archives_of(remote.stored()) <= BOUND
    if after != 6:  # else no mark was reached
        assert done["resumed"] > 10 * MIB
    with remote.as_host() as vault:
        assert not vault.interrupted()
        assert not vault.leftovers()


def test_killed_again_and_again(remote: Runner) -> None:
    fill(remote.source, megabytes=150)
    for after in (9, 4, 3):
        remote.dies(what="upload_part", after=after)
    done = remote.run(resume=False)
    whole(remote, done["snapshot"])
    assert done["resumed"] > 16 * MIB
    assert remote.sent - archives_of(remote.stored()) <= 3 * BOUND


def test_killed_before_it_was_noted_that_an_archive_is_complete(local: Runner) -> None:
    fill(local.source, megabytes=20)
    local.dies(what="data complete", marks=MIB, data_size=8 * MIB)
    stored = local.stored("data", "arena")
    done = local.run(marks=MIB, data_size=8 * MIB)
    whole(local, done["snapshot"])
    assert stored.items() <= local.stored("data", "arena").items()
    assert done["resumed"] >= sum(stored.values())
    assert archives_of(local.stored()) < 23_000_000


def test_cut_off_from_the_network(remote: Runner) -> None:
    fill(remote.source)
    quick = {"attempts": 2, "first_wait": 0.01}
    said = remote.dies(what="upload_part", after=9, how="network", retry=quick)
    assert "StorageError" in said
    with remote.as_host() as vault:
        (one,) = vault.interrupted()
        assert one.set_name == "all"
        assert one.sources == (os.fsencode(remote.source),)
        assert one.stored_bytes > 16 * MIB
    done = remote.run(resume=True)
    whole(remote, done["snapshot"])
    assert done["resumed"] >= one.stored_bytes
    assert remote.sent - archives_of(remote.stored()) <= BOUND


@pytest.mark.parametrize(("what", "after"), [("upload_part", 8), ("complete_multipart_upload", 1)])
def test_cut_off_at_the_end(remote: Runner, what: str, after: int) -> None:
    """The last part is not accepted; or the object is complete, and only its writer was not told."""
    fill(remote.source)
    remote.dies(what=what, after=after, how="network", retry={"attempts": 2, "first_wait": 0.01})
    with remote.as_host() as vault:
        (one,) = vault.interrupted()
    done = remote.run(resume=True)
    whole(remote, done["snapshot"])
    assert done["resumed"] >= one.stored_bytes > 16 * MIB
    if after == 1:
        assert done["resumed"] > 60_000_000
    assert remote.sent - archives_of(remote.stored()) <= BOUND


@pytest.mark.parametrize("blocks", [21, 75])
def test_metadata_is_gone_on_with_too(local: Runner, blocks: int) -> None:
    """Both archives of a run are under way at the same time, and die between any two blocks."""
    for number in range(3_000):
        write(local.source / f"dir {number % 40}" / f"{'long name ' * 8}{number}", noise(1_500, number))
    local.dies(what="block", after=blocks, marks=50_000, small=100_000, compression="none")
    with local.as_host() as vault:
        (one,) = vault.interrupted()
    kinds = {name.partition("/")[0] for name, _ in one.archives}
    if blocks == 75:
        assert kinds == {"arena", "meta"}
    done = local.run(marks=50_000, small=100_000, compression="none")
    assert done["resumed"] >= one.stored_bytes
    names = {name for name, _ in done["archives"]}
    assert names >= {name for name, _ in one.archives}
    whole(local, done["snapshot"])


def test_files_that_changed_meanwhile(local: Runner) -> None:
    fill(local.source, megabytes=20)
    local.dies(what="block", after=4, marks=MIB)
    write(local.source / "big 0", noise(9_000_000, "another"))
    shutil.rmtree(local.source / "big 1", ignore_errors=True)
    (local.source / "big 1").unlink()
    done = local.run(marks=MIB)
    assert done["resumed"]
    whole(local, done["snapshot"])


def test_other_keys_since_then(local: Runner) -> None:
    """What is encrypted to an earlier epoch is not gone on with: somebody lost the right to read it."""
    friend = rz.Identity.generate()
    with local.open() as vault:
        vault.grant(friend.recipient)
    fill(local.source, megabytes=20)
    local.dies(what="block", after=4, marks=MIB)
    with local.open() as vault:
        vault.revoke(friend.recipient)
    done = local.run()
    assert not done["resumed"]
    whole(local, done["snapshot"])
    assert not list((local.folder / "vault").rglob("*.partial"))


def test_an_upload_that_is_gone(remote: Runner) -> None:
    """A rule of the bucket, or a person, has aborted it: that ends the resumption, not the backup."""
    fill(remote.source)
    remote.dies(what="upload_part", after=9)
    storage = open_storage(remote.url, remote.storage)
    found = list(storage.leftovers("arena/")) + list(storage.leftovers("data/"))
    assert found
    for leftover in found:
        storage.remove_leftover(leftover)
        storage.remove_leftover(leftover)
    done = remote.run()
    assert not done["resumed"]
    whole(remote, done["snapshot"])


def test_a_journal_that_was_lost(remote: Runner) -> None:
    fill(remote.source)
    remote.dies(what="upload_part", after=9)
    storage = open_storage(remote.url, remote.storage)
    others = storage.create(f"data/{'0' * 32}/{'1' * 32}.rzn", part_size=5 * MIB)
    others.write(bytes(12 * MIB))
    for path in remote.journals():
        path.unlink()
    with remote.as_host() as vault:
        assert not vault.interrupted()
        (left,) = vault.leftovers()
        assert remote.host.host_id.hex() in left.name
        done = remote.run()
        assert vault.leftovers() == [left]
        assert vault.remove_leftovers() == 1
        assert not vault.leftovers()
    assert [one.name for one in storage.leftovers("")] == [others.name]
    others.discard()
    whole(remote, done["snapshot"])


def test_given_up(local: Runner) -> None:
    fill(local.source, megabytes=20)
    local.dies(what="block", after=4, marks=MIB)
    assert list((local.folder / "vault").rglob("*.partial"))
    with local.as_host() as vault:
        assert vault.discard_interrupted("another") == 0
        assert vault.discard_interrupted("all") == 1
        assert not vault.interrupted()
    assert not list((local.folder / "vault").rglob("*.partial"))
    assert not local.journals()


def test_a_run_that_is_alive_keeps_its_journal(local: Runner) -> None:
    fill(local.source, megabytes=20)
    local.dies(what="block", after=4, marks=MIB)
    folder = local.cache / local.host.vault_id.hex()
    (held,) = Journal.abandoned(str(folder), local.host.host_id)
    with held:
        assert Journal.any_in_use(str(folder), local.host.host_id)
        with local.as_host() as vault:
            assert not vault.interrupted()
            with pytest.raises(rz.UsageError):
                vault.remove_leftovers()
        done = local.run()
        assert not done["resumed"]
    done = local.run()
    assert done["resumed"]
    whole(local, done["snapshot"])


def test_a_journal_is_as_secret_as_what_it_is_about(local: Runner) -> None:
    fill(local.source, megabytes=20)
    local.dies(what="block", after=4, marks=MIB)
    path = main_journal(local)
    assert path.stat().st_mode & 0o777 == 0o600
    secrets = [row[0] for row in sqlite3.connect(path).execute("SELECT secret FROM archives")]
    assert all(len(secret) == 32 for secret in secrets)
    assert secrets
    kept = os.open(path, os.O_RDONLY)
    local.run()
    left = os.pread(kept, os.fstat(kept).st_size, 0)
    os.close(kept)
    assert not any(secret in left for secret in secrets)


@pytest.mark.parametrize("damage", ["empty", "torn", "noise", "hole"])
def test_a_damaged_journal(local: Runner, damage: str) -> None:
    fill(local.source, megabytes=20)
    local.dies(what="block", after=4, marks=MIB)
    path = main_journal(local)
    data = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "torn": data[: len(data) // 2],
            "noise": noise(5_000),
            "hole": data[:8_192] + noise(len(data) - 8_192),
        }[damage]
    )
    os.utime(path, (0, 0))
    done = local.run()
    with local.open() as vault:
        got = what_it_restores(vault, done["snapshot"], local.folder / "restored")
    assert not differences(tree({b"source": local.source}), got)
    assert not local.journals()


def test_interrupted_by_a_person(local: Runner) -> None:
    fill(local.source, megabytes=20)
    local.dies(what="block", after=4, marks=MIB, how="interrupt")
    with local.as_host() as vault:
        assert [one.set_name for one in vault.interrupted()] == ["all"]
        (done,) = vault.resume()
    assert done.resumed_bytes
    whole(local, done.snapshot_id)


def test_what_would_happen_again_leaves_nothing(local: Runner) -> None:
    """A source that cannot be read is no reason to keep anything."""
    fill(local.source, megabytes=20)
    with local.as_host() as vault, pytest.raises(rz.SourceError):
        vault.backup([local.source, local.folder / "z missing"], name="all")
    assert not local.journals()
    assert not list((local.folder / "vault").rglob("*.partial"))


@pytest.mark.parametrize("passing", [False, True])
def test_a_source_that_is_lost(local: Runner, monkeypatch: pytest.MonkeyPatch, *, passing: bool) -> None:
    """What was uploaded is kept if the source may come back, and only then."""
    fill(local.source, megabytes=20)
    write_first, left = Pipeline._write_first, 4

    def lost(pipeline: Pipeline) -> None:
        nonlocal left
        write_first(pipeline)
        left -= 1
        if not left:
            error = rz.SourceError("the source is gone")
            error.passing = passing
            raise error

    monkeypatch.setattr(output, "_MARK_EVERY", MIB)
    with local.as_host() as vault:
        monkeypatch.setattr(Pipeline, "_write_first", lost)
        with pytest.raises(rz.SourceError):
            vault.backup([local.source], name="all")
        monkeypatch.setattr(Pipeline, "_write_first", write_first)
        if not passing:
            assert not vault.interrupted()
            assert not list((local.folder / "vault").rglob("*.partial"))
            return
        (done,) = vault.resume()
    assert done.resumed_bytes > MIB
    whole(local, done.snapshot_id)


def test_commands_and_patterns_are_remembered(local: Runner) -> None:
    fill(local.source, megabytes=20)
    write(local.source / "small.tmp", "x")
    with local.as_host() as vault:
        count = 0

        def stop(event: rz.Event) -> None:
            nonlocal count
            count += isinstance(event, rz.Progress)
            if count == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            vault.backup(
                [local.source, rz.Command("z", ["printf", "%s", "hello"])],
                name="all",
                exclude=["*.tmp"],
                tags=["nightly"],
                progress=stop,
            )
        (done,) = vault.resume()
    with local.open() as vault:
        snapshot = vault.snapshot(done.snapshot_id)
        assert snapshot.read("z") == b"hello"
        assert snapshot.tags == ("nightly",)
        assert not any(entry.path.endswith(".tmp") for entry in snapshot)


def test_suspended_uploads_of_a_folder(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    upload = storage.create("a/b")
    upload.write(b"one")
    mark = upload.mark()
    assert mark is not None
    state = upload.state_at(mark)
    assert state is not None
    upload.write(b" that is lost")
    upload.suspend()
    with pytest.raises(rz.UsageError):
        upload.write(b"x")
    (left,) = storage.leftovers("a/")
    assert (left.name, left.upload) == ("a/b", upload.leftover.upload)  # type: ignore[union-attr]
    again = storage.resume(state)
    assert again is not None
    again.write(b" and two")
    again.commit()
    assert again.state is State.COMMITTED  # type: ignore[attr-defined]
    assert storage.read("a/b", 0, 11) == b"one and two"
    assert storage.resume(state) is None
    assert not list(storage.leftovers(""))
    with pytest.raises(rz.StorageError):
        storage.remove_leftover(Leftover("a/b", "a/b"))


def test_many_small_files_before_the_first_mark(remote: Runner) -> None:
    """What is in blocks goes into the journal early; it counts only as far as a mark covers it."""
    for number in range(3_000):
        write(remote.source / f"dir {number % 7}" / f"{number}", noise(9_000, number))
    options: dict[str, Any] = {"small": 200_000, "pieces": 50, "compression": "none"}
    remote.dies(what="upload_part", after=4, **options)
    done = remote.run(**options)
    assert done["resumed"] or remote.sent < BOUND
    whole(remote, done["snapshot"])
    with remote.as_host() as vault:
        assert not vault.interrupted()
