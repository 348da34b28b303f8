"""Restoring snapshots: everything comes back, little is read, and what is lost is named and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rozenfmt as rz
from rozenfmt.errors import StorageError
from rozenfmt.format.nodes import Entry, Part
from rozenfmt.storage.local import LocalStorage
from rozenfmt.vault import restore as module
from rozenfmt.vault.restore import RestorePlan, RestoreResult, restore
from rozenfmt.vault.snapshot import Snapshot

from .crafting import NOW, CraftedArchive, CraftedVault

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def vault(tmp_path: Path) -> CraftedVault:
    return CraftedVault(tmp_path / "vault")


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def noise(size: int, seed: int = 0) -> bytes:
    import random

    return random.Random(f"{size} {seed}").randbytes(size)


class Rich:
    """A snapshot with a bit of everything, over two metadata and three data archives."""

    def __init__(self, vault: CraftedVault) -> None:
        self.vault = vault
        self.old, self.meta = vault.meta(), vault.meta(sequence=2)
        self.data = [vault.data(), vault.data(), vault.data(arena=True)]
        old, meta, (one, two, three) = self.old, self.meta, self.data
        self.contents: dict[str, bytes] = {}
        small = [(f"{number:03}", noise(number * 7 + 1)) for number in range(200)]
        kept = old.packed(small, one)
        chunks = [noise(70 * KIB, number) for number in range(12)]
        sparse: list[bytes | int] = [chunks[0], 300_000, chunks[1], 5]
        shared = chunks[:6] + chunks[:6] + [chunks[9]]
        old_d = old.directory("old", [*kept, old.chunked("chunked", chunks, two, leaves=5, together=4)])
        for data in (one, two):
            old.number(data)
        fresh = [
            Entry(b"empty", rz.Kind.FILE, 0o600, mtime_ns=NOW),
            meta.file("new", b"new", three),
            meta.chunked("sparse", sparse, three),
            meta.chunked("shared", shared, three, together=3),
            Entry(b"link", rz.Kind.SYMLINK, 0o777, mtime_ns=NOW, target=b"old/003"),
            Entry(b"pipe", rz.Kind.FIFO, 0o600, mtime_ns=NOW),
        ]
        linked = replace(fresh[1], name=b"new too", link_group=b"g" * 16)
        fresh[1] = replace(fresh[1], link_group=b"g" * 16)
        for data in self.data:
            data.finish()
        old.snap(old.directory("root", [old_d]), (202, 0))
        fresh[1] = meta.attributes(fresh[1], [(b"user.colour", b"blue")])
        linked = replace(linked, xattr_ref=fresh[1].xattr_ref)
        meta.number(old)
        meta.others += [data for data in self.data if data not in meta.others]
        top = meta.directory("top", [*fresh, linked])
        root = meta.directory("root", [replace(old_d, archive=meta.number(old)), top])
        meta.snap(root, (210, 1))
        self.contents.update({f"old/{name}": data for name, data in small})
        self.contents["old/chunked"] = b"".join(chunks)
        self.contents["top/sparse"] = b"".join(bytes(c) if isinstance(c, int) else c for c in sparse)
        self.contents["top/shared"] = b"".join(shared)
        self.contents |= {"top/empty": b"", "top/new": b"new", "top/new too": b"new"}

    def snapshot(self) -> Snapshot:
        return self.vault.snapshot()


def test_everything(vault: CraftedVault, tmp_path: Path) -> None:
    rich = Rich(vault)
    result = restore(rich.snapshot(), tmp_path / "out")
    assert isinstance(result, RestoreResult)
    assert files(tmp_path / "out") == rich.contents
    assert (result.files, result.directories, result.lost, result.problems) == (208, 2, 0, [])
    assert result.bytes == sum(len(data) for data in rich.contents.values()) - 3
    out = tmp_path / "out/top"
    assert os.readlink(out / "link") == "old/003"
    assert (out / "new").stat().st_ino == (out / "new too").stat().st_ino
    assert (out / "new").stat().st_mtime_ns == NOW
    assert (tmp_path / "out/old").stat().st_mtime_ns == NOW
    assert (out / "sparse").stat().st_blocks * 512 < 300_000
    try:
        assert os.getxattr(out / "new", "user.colour") == b"blue"
    except OSError:
        pytest.skip("no extended attributes here")


def test_again_and_interrupted(vault: CraftedVault, tmp_path: Path) -> None:
    """A second run finishes what the first one did not, and reads nothing for what is complete."""
    rich, out = Rich(vault), tmp_path / "out"

    def stop(event: object) -> None:
        if isinstance(event, rz.Progress) and event.files > 100:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rozenfmt.archive.extract._PROGRESS_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            restore(rich.snapshot(), out, progress=stop)
    before = files(out)
    assert 0 < len(before) < len(rich.contents)
    assert all(rich.contents[name] == data for name, data in before.items())
    again = restore(rich.snapshot(), out)
    assert files(out) == rich.contents
    assert again.skipped >= len(before)
    assert not again.problems
    third = restore(rich.snapshot(), out)
    assert (third.files, third.bytes, third.skipped) == (0, 0, 208)
    assert third.read_bytes < 64 * KIB


@pytest.mark.parametrize("overwrite", ["never", "if-changed", "always"])
def test_overwrite(vault: CraftedVault, tmp_path: Path, overwrite: Any) -> None:
    rich, out = Rich(vault), tmp_path / "out"
    restore(rich.snapshot(), out)
    (out / "old/003").write_bytes(b"mine")
    result = restore(rich.snapshot(), out, overwrite=overwrite)
    assert ((out / "old/003").read_bytes() == b"mine") == (overwrite == "never")
    assert result.files == {"never": 0, "if-changed": 1, "always": 208}[overwrite]
    assert [one.what for one in result.problems] == (["exists"] if overwrite == "never" else [])


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"paths": ["old/003", b"top/new"]}, ["old/003", "top/new"]),
        ({"paths": ["top", "top/new", "old/000"]}, ["old/000", "top/*"]),
        ({"patterns": ["new*"]}, ["top/new", "top/new too"]),
        ({"patterns": ["/top/", "!sparse"]}, ["top/*"]),
        ({"patterns": ["00*", "!/old/003"]}, [f"old/{n:03}" for n in range(10) if n != 3]),
        ({"patterns": ["chunked"], "paths": ["old"]}, ["old/chunked"]),
        ({"patterns": ["/old"], "paths": ["old/003", "top/new"]}, ["old/003"]),
        ({"patterns": ["nothing"]}, []),
    ],
    ids=str,
)
def test_choosing(vault: CraftedVault, tmp_path: Path, options: dict[str, Any], names: list[str]) -> None:
    rich, out = Rich(vault), tmp_path / "out"
    wanted = {
        name: data
        for name, data in rich.contents.items()
        if any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in names)
    }
    plan = restore(rich.snapshot(), tmp_path / "nowhere", dry_run=True, **options)
    assert isinstance(plan, RestorePlan)
    result = restore(rich.snapshot(), out, **options)
    assert files(out) == wanted
    assert {path.name for path in out.iterdir()} == {name.split("/")[0] for name in wanted}
    assert (plan.files, plan.directories) == (result.files, result.directories)
    assert not (tmp_path / "nowhere").exists()


def test_unknown_path_and_malformed_pattern(vault: CraftedVault, tmp_path: Path) -> None:
    rich = Rich(vault)
    with pytest.raises(rz.UsageError, match="not in the snapshot"):
        restore(rich.snapshot(), tmp_path / "out", paths=["no"])
    with pytest.raises(rz.UsageError):
        restore(rich.snapshot(), tmp_path / "out", patterns=["!"])
    assert not (tmp_path / "out").exists()


def test_browsers_plan_and_do_not_restore(vault: CraftedVault, tmp_path: Path) -> None:
    Rich(vault)
    snapshot = vault.snapshot(vault.friend)
    with pytest.raises(rz.NoMatchingKey):
        restore(snapshot, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    plan = restore(snapshot, tmp_path / "out", dry_run=True)
    assert isinstance(plan, RestorePlan)
    assert (plan.files, len(plan.archives), plan.lost) == (208, 3, 0)


def test_progress(vault: CraftedVault, tmp_path: Path) -> None:
    events: list[Any] = []
    restore(Rich(vault).snapshot(), tmp_path / "out", progress=events.append)
    assert events[-1].operation == "restore"
    assert events[-1].files == 208
    assert events[-1].bytes_total == 1


# --- How much is read ---------------------------------------------------------------------------


def scattered(vault: CraftedVault) -> CraftedArchive:
    """Blocks of 1 MiB, every second one wanted in the first half, all in the second."""
    meta, data = vault.meta(), vault.data()
    entries = []
    for number in range(40):
        entry = meta.file(f"{number:02}", noise(MIB, number), data)
        if number >= 20 or number % 2:
            entries.append(entry)
    data.finish()
    return meta.snap(meta.directory("root", entries), (len(entries), len(entries) * MIB))


def test_neighbours_are_read_together(vault: CraftedVault, tmp_path: Path) -> None:
    scattered(vault)
    snapshot = vault.snapshot()
    plan = restore(snapshot, tmp_path, dry_run=True)
    assert isinstance(plan, RestorePlan)
    (row,) = plan.archives
    assert row.blocks == 30
    # One to open it; nine alone and one with those after it; then 16 MiB together at most.
    assert row.requests == 1 + 9 + 2
    assert 30 * MIB < row.bytes < 31 * MIB
    fresh = vault.snapshot()
    before = fresh.archives.traffic.requests
    result = restore(fresh, tmp_path / "out")
    assert fresh.archives.traffic.requests - before == plan.requests
    assert result.read_bytes == plan.read_bytes
    assert (len(files(tmp_path / "out")), result.problems) == (30, [])


def test_the_plan_is_what_is_read(vault: CraftedVault, tmp_path: Path) -> None:
    rich = Rich(vault)
    big = rich.data[0].length
    assert big < 256 * KIB  # comes whole with the first read
    plan = restore(rich.snapshot(), tmp_path, dry_run=True)
    assert isinstance(plan, RestorePlan)
    assert {one.object for one in plan.archives} == {one.name for one in rich.data}
    assert all(one.exact for one in plan.archives)
    snapshot = rich.snapshot()
    list(snapshot)
    snapshot.xattrs(snapshot.entry("top/new"))
    snapshot.require_read()
    before = snapshot.archives.traffic.requests
    result = restore(snapshot, tmp_path / "out")
    assert (snapshot.archives.traffic.requests - before, result.read_bytes) == (plan.requests, plan.read_bytes)
    assert (plan.files, plan.directories, plan.bytes) == (result.files, result.directories, result.bytes)


def test_a_block_of_many_parts_is_opened_once(
    vault: CraftedVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rozenfmt.format.blocks import Opener

    meta, data = vault.meta(), vault.data()
    chunks = [noise(10 * KIB, number) for number in range(64)]
    entries = [meta.chunked("a", chunks, data, together=16), meta.chunked("b", [chunks[3]] * 500, data, together=500)]
    same = meta.file("c", b"shares no block", data)
    data.finish()
    meta.snap(meta.directory("root", [*entries, same]), (3, 0))
    opened: list[bytes] = []
    right = Opener.open

    def counted(self: Opener, frame: Any) -> Any:
        opened.append(frame.prefix.type)
        return right(self, frame)

    monkeypatch.setattr(Opener, "open", counted)
    result = restore(vault.snapshot(), tmp_path / "out")
    assert result.lost == 0
    assert opened.count(b"PACK") == 4 + 1 + 1
    assert (tmp_path / "out/a").read_bytes() == b"".join(chunks)


def test_windows(vault: CraftedVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WINDOW", 7)
    rich = Rich(vault)
    result = restore(rich.snapshot(), tmp_path / "out", workers=1)
    assert files(tmp_path / "out") == rich.contents
    assert result.lost == 0


# --- What is lost -------------------------------------------------------------------------------


def _remove(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip_index(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-200] ^= 1
    path.write_bytes(raw)


def _exchange(path: Path) -> None:
    other = next(one for one in (path.parents[2] / "data").rglob("*.rzn") if one != path)
    path.write_bytes(other.read_bytes())


DAMAGE: dict[str, Callable[[Path], None]] = {
    "remove": _remove,
    "empty": _empty,
    "cut": _cut,
    "flip": _flip_index,
    "exchange": _exchange,
}


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("how", sorted(DAMAGE))
def test_a_data_archive_takes_its_own_files_along(vault: CraftedVault, tmp_path: Path, which: int, how: str) -> None:
    rich, out = Rich(vault), tmp_path / "out"
    archive = rich.data[which]
    prefix = [("old/0", "old/1"), ("old/chunked",), ("top/new", "top/s")][which]
    DAMAGE[how](archive.stored)
    plan = restore(vault.archives().snapshots().snapshots[-1], out, dry_run=True)
    result = restore(vault.archives().snapshots().snapshots[-1], out)
    gone = {name for name in rich.contents if name.startswith(prefix)}
    assert files(out) == {name: data for name, data in rich.contents.items() if name not in gone}
    lost = [one for one in result.problems if one.what in ("missing", "damaged")]
    assert {os.fsdecode(one.path) for one in lost} == gone
    assert result.lost == len(gone) == len(lost)
    assert {one.what for one in lost} == {"missing" if how == "remove" else "damaged"}
    assert all(archive.archive_id.hex() in one.detail for one in lost)
    assert not list(out.rglob(".rozenfmt*"))
    assert isinstance(plan, RestorePlan)
    assert (plan.files, plan.bytes, plan.lost) == (result.files, result.bytes, result.lost)
    assert len(result.problems) == result.lost


@pytest.mark.parametrize("how", sorted(DAMAGE))
def test_a_metadata_archive_takes_its_directories_along(vault: CraftedVault, tmp_path: Path, how: str) -> None:
    rich, out = Rich(vault), tmp_path / "out"
    DAMAGE[how](rich.old.stored)
    snapshot = vault.archives().snapshots().snapshots[-1]
    assert snapshot.sequence == 2
    result = restore(snapshot, out)
    assert files(out) == {name: data for name, data in rich.contents.items() if name.startswith("top/")}
    assert [(one.path, one.what) for one in result.problems] == [(b"old", "missing" if how == "remove" else "damaged")]
    assert rich.old.archive_id.hex() in result.problems[0].detail
    assert result.lost == 1
    again = restore(snapshot, tmp_path / "more", paths=["old/003", "top/new"])
    assert (again.files, again.lost, again.problems[0].path) == (1, 1, b"old/003")


def test_every_flip_of_a_data_archive_costs_no_more_than_its_block(vault: CraftedVault, tmp_path: Path) -> None:
    meta, data = vault.meta(), vault.data()
    entries = [meta.file(f"{number}", noise(300, number), data) for number in range(6)]
    data.finish()
    meta.snap(meta.directory("root", entries), (6, 1800))
    good = data.stored.read_bytes()
    right = {f"{number}": noise(300, number) for number in range(6)}
    for at in range(len(data.out[0]) + 10, len(data.out[0]) + 6 * 600, 331):  # in the packs
        data.stored.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        out = tmp_path / f"{at}"
        result = restore(vault.snapshot(), out)
        found = files(out)
        assert len(found) == 5
        assert found.items() <= right.items()
        assert [one.what for one in result.problems] == ["damaged"]
        assert "block" in result.problems[0].detail


def test_a_bad_part_takes_its_file_along(vault: CraftedVault, tmp_path: Path) -> None:
    meta, data = vault.meta(), vault.data()
    chunks = [noise(5000, number) for number in range(8)]
    good = meta.chunked("good", chunks, data)
    whole = replace(meta.chunked("whole", chunks, data), content_id=bytes(32))  # all parts are right
    parts = meta.parts(chunks, data)
    bad = [*parts[:5], replace(parts[5], id=bytes(32)), *parts[6:]]
    far = [*parts[:5], replace(parts[5], block=99), *parts[6:]]
    entries = [good, whole]
    for name, rows in (("bad", bad), ("far", far)):
        block, _ = meta.table(rows, leaves=3)
        entries.append(replace(good, name=name.encode(), block=block))
    packed = meta.file("packed", b"fine", data)
    wrong = replace(packed, name=b"wrong", content_id=bytes(32))
    data.finish()
    meta.snap(meta.directory("root", [*entries, packed, wrong]), (6, 0))
    result = restore(vault.snapshot(), tmp_path / "out")
    assert files(tmp_path / "out") == {"good": b"".join(chunks), "packed": b"fine"}
    assert sorted(os.fsdecode(one.path) for one in result.problems) == ["bad", "far", "whole", "wrong"]
    assert result.lost == 4
    assert not list((tmp_path / "out").rglob(".rozenfmt*"))


def test_lost_attributes_cost_no_file(vault: CraftedVault, tmp_path: Path) -> None:
    meta, data = vault.meta(), vault.data()
    file = meta.attributes(meta.file("f", b"x", data), [(b"user.x", b"1")])
    assert file.xattr_ref is not None
    data.finish()
    meta.snap(meta.directory("root", [replace(file, xattr_ref=(bytes(32), *file.xattr_ref[1:]))]), (1, 1))
    result = restore(vault.snapshot(), tmp_path / "out")
    assert files(tmp_path / "out") == {"f": b"x"}
    assert ([one.what for one in result.problems], result.lost) == (["xattr"], 0)
    assert restore(vault.snapshot(), tmp_path / "more", xattrs=False).problems == []


def test_unreadable_object(vault: CraftedVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that the storage does not give is lost; a plan has it all the same, since it may be thawed."""
    rich = Rich(vault)
    cold = rich.data[1].name
    read_suffix = LocalStorage.read_suffix

    def frozen(self: LocalStorage, name: str, length: int) -> tuple[int, bytes]:
        if name == cold:
            msg = "it is in cold storage"
            raise StorageError(msg, object=name)
        return read_suffix(self, name, length)

    monkeypatch.setattr(LocalStorage, "read_suffix", frozen)
    plan = restore(rich.snapshot(), tmp_path / "out", dry_run=True)
    assert isinstance(plan, RestorePlan)
    (row,) = [one for one in plan.archives if one.object == cold]
    assert (row.exact, row.bytes, plan.lost) == (False, rich.data[1].length, 0)
    result = restore(rich.snapshot(), tmp_path / "out")
    assert [(one.path, one.what) for one in result.problems] == [(b"old/chunked", "damaged")]
    assert "cold storage" in result.problems[0].detail


def test_storage_that_does_not_answer(vault: CraftedVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rich = Rich(vault)
    snapshot = rich.snapshot()
    list(snapshot)

    def down(*args: object) -> Any:
        msg = "no route to host"
        raise StorageError(msg)

    for name in ("read", "read_suffix", "size"):
        monkeypatch.setattr(LocalStorage, name, down)
    with pytest.raises(StorageError, match="no route"):
        restore(snapshot, tmp_path / "out")


def test_one_bad_sector(vault: CraftedVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range that cannot be read does not take the blocks along that can."""
    scattered(vault)
    read = LocalStorage.read

    def bad(self: LocalStorage, name: str, start: int, length: int) -> bytes:
        if start <= 25 * MIB < start + length:
            msg = "input/output error"
            raise StorageError(msg, object=name)
        return read(self, name, start, length)

    monkeypatch.setattr(LocalStorage, "read", bad)
    result = restore(vault.snapshot(), tmp_path / "out")
    assert (result.files, result.lost) == (29, 1)


def test_endless_tree(vault: CraftedVault, tmp_path: Path) -> None:
    meta, data = vault.meta(), vault.data()
    below = meta.directory("a", [meta.file("leaf", b"x", data)])
    data.finish()
    for _ in range(40):
        below = meta.directory("a", [below, replace(below, name=b"b")])
    meta.snap(below, (81, 1))
    for options in ({}, {"dry_run": True}, {"patterns": ["nothing"]}):
        with pytest.raises(rz.BlockError, match="more than the 81 entries"):
            restore(vault.snapshot(), tmp_path / "out", **options)


@pytest.mark.parametrize("length", [1 << 40, 1 << 62])
def test_endless_holes(vault: CraftedVault, tmp_path: Path, length: int) -> None:
    """Nobody hashes exabytes of zeros; what the file system takes is made, and is a hole."""
    meta, data = vault.meta(), vault.data()
    data.pieces(b"PACK", [b"x"])
    block, piece = meta.table([Part(0, length, None, 0, 0)])
    file = Entry(b"f", rz.Kind.FILE, 0o644, mtime_ns=NOW, size=length, content_id=bytes(32), block=block, piece=piece)
    data.finish()
    meta.snap(meta.directory("root", [file]), (1, length))
    result = restore(vault.snapshot(), tmp_path / "out")
    assert result.lost + result.files + len(result.problems) >= 1
    assert all(path.stat().st_blocks * 512 < MIB for path in (tmp_path / "out").iterdir())


def test_nothing_leaves_the_destination(vault: CraftedVault, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    meta, data = vault.meta(), vault.data()
    evil = meta.file("evil", b"planted", data)
    data.finish()
    link = Entry(b"X", rz.Kind.SYMLINK, 0o777, mtime_ns=NOW, target=os.fsencode(tmp_path / "outside"))
    meta.snap(meta.directory("root", [link, meta.directory("x", [evil])]), (3, 7))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").symlink_to(tmp_path / "outside")
    result = restore(vault.snapshot(), tmp_path / "out")
    assert not list((tmp_path / "outside").iterdir())
    assert [one.what for one in result.problems] == ["exists"]
