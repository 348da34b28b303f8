"""Reading snapshots: what is spread over archives comes together, and what is forged is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import rozenfmt as rz
from rozenfmt.errors import MissingArchive
from rozenfmt.format import nodes
from rozenfmt.format.blocks import Draft
from rozenfmt.format.builders import StreamBuilder
from rozenfmt.format.nodes import Entry, InnerNode, Part
from rozenfmt.format.records import BlockRecord
from rozenfmt.format.registry import Kind, Suite
from rozenfmt.format.snapshots import ParentState, Reference
from rozenfmt.keys import SigningKey
from rozenfmt.storage.base import ObjectInfo
from rozenfmt.storage.local import LocalStorage
from rozenfmt.vault import layout
from rozenfmt.vault.archives import Archives
from rozenfmt.vault.selection import select
from rozenfmt.vault.snapshot import Snapshot
from rozenfmt.vault.tombstones import build_tombstone

from .crafting import NOW, CraftedArchive, CraftedVault, fifo

MIB = 1 << 20


@pytest.fixture
def vault(tmp_path: Path) -> CraftedVault:
    return CraftedVault(tmp_path / "vault")


def small(vault: CraftedVault, sequence: int = 1, content: bytes = b"content", **changes: Any) -> CraftedArchive:
    """A snapshot of one file in one directory."""
    meta, data = vault.meta(sequence=sequence), vault.data()
    entry = meta.file("f", content, data)
    data.finish()
    root = meta.directory("root", [meta.directory("d", [entry])])
    return meta.snap(root, (2, len(content)), **changes)


def two_snapshots(vault: CraftedVault) -> tuple[CraftedArchive, CraftedArchive]:
    """The second leans on nodes of the first, and numbers the archives in another order."""
    one, two, data = vault.meta(sequence=1), vault.data(), vault.data(arena=True)
    old = one.directory(
        "old",
        [
            one.file("a", b"alpha", two),
            one.attributes(one.file("b", b"beta", data), [(b"user.x", b"1")]),
            one.chunked("c", [b"c" * 1000, 5000, b"d" * 2000], data, leaves=2),
        ],
    )
    two.finish()
    data.finish()
    one.snap(one.directory("root", [old]), (4, 8009))
    meta, new = vault.meta(sequence=2), vault.data()
    fresh = meta.file("new", b"gamma", new)
    again = replace(meta.file("z", b"?", vault.data()), content_id=meta.id(b"beta"), size=4)
    new.finish()
    meta.others = [new, data, one, two]
    again = replace(again, archive=2, block=0)
    root = meta.directory("root", [replace(old, archive=3), fresh, again])
    meta.snap(root, (6, 8018), parent=(one.archive_id, bytes(32)), parent_state=2, heads=one.archive_id)
    return one, meta


def test_over_several_archives(vault: CraftedVault) -> None:
    _, meta = two_snapshots(vault)
    snapshot = vault.snapshot()
    assert [entry.path for entry in snapshot] == ["new", "old", "old/a", "old/b", "old/c", "z"]
    assert [entry.name for entry in snapshot.listdir("old")] == ["a", "b", "c"]
    assert [entry.path for entry in snapshot.walk("old")] == ["old", "old/a", "old/b", "old/c"]
    assert [entry.path for entry in snapshot.walk("z")] == ["z"]
    contents = {"new": b"gamma", "old/a": b"alpha", "old/b": b"beta", "z": b"beta"}
    contents["old/c"] = b"c" * 1000 + bytes(5000) + b"d" * 2000
    for path, content in contents.items():
        assert snapshot.read(path) == content
        assert snapshot.entry(path).size == len(content)
    with snapshot.open("old/c") as file:
        file.seek(5990)
        assert file.read(20) == bytes(10) + b"d" * 10
    assert snapshot.xattrs(snapshot.entry("old/b")) == ((b"user.x", b"1"),)
    assert snapshot.id == meta.archive_id.hex()
    assert len(snapshot.references) == 4
    for path in ("no", "old/no", "new/below", "old/a/b", "", "old//a"):
        with pytest.raises(rz.UsageError):
            snapshot.entry(path)
    with pytest.raises(rz.UsageError, match="not a directory"):
        snapshot.listdir("new")


def test_what_a_snapshot_says(vault: CraftedVault) -> None:
    one, _ = two_snapshots(vault)
    small(
        vault,
        sequence=3,
        set_name="täglich",
        mode=2,
        tags=("a", "b"),
        counts=(1, 2, 3, 4, 5, 6, 7, 8, 9),
        moves=((b"x", b"y", 2),),
        deleted=(b"gone",),
        problems=((b"p", "unreadable", "no permission"),),
        conflicts=((b"c", 4),),
        flags=3,
    )
    found = vault.archives().snapshots()
    assert [(s.name, s.sequence) for s in found] == [("photos", 1), ("photos", 2), ("täglich", 3)]
    second, third = list(found)[1:]
    assert (second.host, second.host_id, second.mode) == ("laptop", vault.host.host_id, "snapshot")
    assert (second.parent, second.parent_state, second.heads) == (one.archive_id, ParentState.KNOWN, (one.archive_id,))
    assert (second.entry_count, second.content_bytes) == (6, 8018)
    assert (third.mode, third.tags, third.counts.directories, third.counts.new) == ("worm", ("a", "b"), 9, 1)
    assert third.moves == ((b"x", b"y", rz.Kind.DIRECTORY),)
    assert (third.deleted, third.problems) == ((b"gone",), ((b"p", "unreadable", "no permission"),))
    assert (third.unchanged, third.incomplete) == (True, True)
    assert third.time == datetime.fromtimestamp(NOW // 10**9, UTC)
    assert third.sources[0].origin == b"/home/me/photos"
    assert third.object == layout.meta_name(third.host_id, 3, third.archive_id)
    assert third.stored_bytes == vault.path(third.object).stat().st_size


def test_root_in_another_archive(vault: CraftedVault) -> None:
    """Nothing changed: the snapshot has no node of its own."""
    one, data = vault.meta(), vault.data()
    root = one.directory("root", [one.file("f", b"x", data)])
    data.finish()
    one.snap(root, (1, 1))
    two = vault.meta(sequence=2)
    two.others = [data, one]
    two.snap(replace(root, archive=2), (1, 1), flags=1)
    snapshot = vault.snapshot()
    assert snapshot.unchanged
    assert snapshot.read("f") == b"x"


def test_listing_takes_one_read_each(vault: CraftedVault) -> None:
    for sequence in range(1, 21):
        small(vault, sequence)
    archives = vault.archives()
    assert len(archives.snapshots()) == 20
    assert archives.traffic.requests == 20
    assert len(archives.snapshots()) == 20
    assert archives.traffic.requests == 20


def test_listing_one_directory_reads_a_few_blocks(vault: CraftedVault) -> None:
    meta = vault.meta()
    many = [fifo(f"entry number {number:07}") for number in range(100_000)]
    big = meta.big_directory("big", many, 500)
    other = meta.directory("other", [fifo("a"), fifo("b")])
    meta.pieces(b"TREE", [os.urandom(2 * MIB)])  # so that the first read does not bring everything
    meta.snap(meta.directory("root", [big, other]), (len(many) + 4, 0))
    snapshot = vault.snapshot()
    traffic = snapshot.archives.traffic
    before = traffic.requests
    assert [entry.name for entry in snapshot.listdir("other")] == ["a", "b"]
    assert traffic.requests - before <= 3
    before = traffic.requests
    assert snapshot.entry("big/entry number 0077777").kind is rz.Kind.FIFO
    assert traffic.requests - before <= 3
    assert traffic.bytes < meta.length / 2
    assert len(list(islice(snapshot.listdir("big"), 10))) == 10
    assert sum(1 for _ in snapshot) == len(many) + 4


def test_browsing(vault: CraftedVault) -> None:
    two_snapshots(vault)
    snapshot = vault.snapshot(vault.friend)
    assert len(list(snapshot)) == 6
    assert snapshot.host == "laptop"
    for work in (
        lambda: snapshot.read("new"),
        lambda: snapshot.read("old/c"),
        lambda: snapshot.xattrs(snapshot.entry("old/b")),
    ):
        with pytest.raises(rz.NoMatchingKey):
            work()


# --- Objects that are not what they should be ---------------------------------------------------


def problems(vault: CraftedVault) -> dict[str, str]:
    """What is wrong, by object; the one good snapshot is seen all the same."""
    small(vault, sequence=9, set_name="good")
    found = vault.archives().snapshots()
    assert [one.name for one in found] == ["good"]
    assert [entry.path for entry in found.snapshots[0]] == ["d", "d/f"]
    return {one.object: one.what for one in found.problems}


def test_signed_by_another_host(vault: CraftedVault) -> None:
    other = vault.enrol("server")
    meta = vault.meta(signer=other.signing)
    forged = meta.snap(meta.directory("root", []), (0, 0))
    stranger = vault.meta(signer=SigningKey.generate(), sequence=2)
    stranger.snap(stranger.directory("root", []), (0, 0))
    assert problems(vault) == {forged.name: "signature", stranger.name: "signature"}


def test_host_that_nobody_enrolled(vault: CraftedVault) -> None:
    host = replace(vault.host, host_id=os.urandom(16), signing=SigningKey.generate())
    meta = vault.meta(host=host)
    meta.snap(meta.directory("root", []), (0, 0))
    assert problems(vault) == {meta.name: "signature"}


def test_exchanged_objects(vault: CraftedVault) -> None:
    one, two = small(vault, 1), small(vault, 2)
    a, b = one.stored.read_bytes(), two.stored.read_bytes()
    one.stored.write_bytes(b)
    two.stored.write_bytes(a)
    assert problems(vault) == {one.name: "block", two.name: "block"}


@pytest.mark.parametrize(
    "changes", [{"sequence": 7}, {"vault_id": bytes(16)}, {"host_id": bytes(16)}], ids=["sequence", "vault", "host"]
)
def test_record_that_contradicts_the_name(vault: CraftedVault, changes: dict[str, Any]) -> None:
    meta = vault.meta(sequence=3)
    meta.snap(meta.directory("root", []), (0, 0), **changes)
    assert problems(vault) == {meta.name: "block"}


def test_copy_under_another_number_hides_nothing(vault: CraftedVault) -> None:
    meta = small(vault, 5, set_name="right")
    copy = layout.meta_name(vault.host.host_id, 1, meta.archive_id)
    vault.path(copy).write_bytes(meta.stored.read_bytes())
    found = vault.archives().snapshots()
    assert [one.sequence for one in found] == [5]
    assert [(one.object, one.what) for one in found.problems] == [(copy, "block")]
    assert found.snapshots[0].read("d/f") == b"content"


def test_kinds_suites_and_id_keys(vault: CraftedVault) -> None:
    where = layout.meta_name(vault.host.host_id, 1, bytes(16))
    data = vault.data(archive_id=bytes(16))
    data.pieces(b"PACK", [b"x"])
    data.finish(where)
    plain = vault.meta(sequence=2, suite=Suite.PLAIN)
    plain.snap(plain.directory("root", []), (0, 0))
    own, later = vault.meta(sequence=3, id_key_number=0), vault.meta(sequence=4, id_key_number=2)
    own.snap(own.directory("root", []), (0, 0))
    later.snap(later.directory("root", []), (0, 0))
    expected = {where: "block", plain.name: "block", own.name: "block", later.name: "unsupported"}
    assert problems(vault) == expected


def test_cut_off_and_lengthened(vault: CraftedVault) -> None:
    cut, longer, joined, empty = (small(vault, number) for number in range(1, 5))
    cut.stored.write_bytes(cut.stored.read_bytes()[:-1000])
    longer.stored.write_bytes(longer.stored.read_bytes() + b"x")
    joined.stored.write_bytes(small(vault, 5).stored.read_bytes() + joined.stored.read_bytes())
    vault.path(layout.meta_name(vault.host.host_id, 5, bytes(16))).write_bytes(b"")
    empty.stored.write_bytes(b"")
    found = vault.archives().snapshots()
    told = {one.object: one.what for one in found.problems}
    assert told.pop(joined.name) == "block"
    assert set(told) == {cut.name, longer.name, empty.name, layout.meta_name(vault.host.host_id, 5, bytes(16))}
    assert set(told.values()) == {"index", "truncated"}
    assert [one.sequence for one in found] == [5]


def test_flips_are_found(vault: CraftedVault) -> None:
    meta = small(vault)
    good = meta.stored.read_bytes()
    for at in range(0, len(good), 97):
        meta.stored.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        found = vault.archives().snapshots()
        try:  # what is released is right
            for one in found:
                assert [entry.path for entry in one] == ["d", "d/f"]
                assert one.read("d/f") == b"content"
        except rz.ArchiveError:
            pass


def test_lacking_blocks(vault: CraftedVault) -> None:
    first = vault.meta(sequence=1)
    first.keyring()
    first.cross_references()
    first.finish()
    second = vault.meta(sequence=2)
    second.record(second.directory("root", []), (0, 0))
    second.finish()
    late = vault.meta(sequence=3)
    late.last_blocks(late.directory("root", []), (0, 0))
    late.directory("late", [])
    late.finish()
    twice = vault.meta(sequence=4)
    root = twice.directory("root", [])
    twice.cross_references()
    twice.record(root, (0, 0))
    twice.record(root, (0, 0))
    twice.finish()
    assert problems(vault) == dict.fromkeys([first.name, second.name, late.name, twice.name], "block")


def test_ancillary_blocks_stand_anywhere(vault: CraftedVault) -> None:
    meta = vault.meta()
    root = meta.directory("root", [fifo("f")])
    meta.keyring()
    meta.cross_references()
    meta.block(Draft(b"abcd", BlockRecord(), b"grease"))
    meta.record(root, (1, 0))
    meta.block(Draft(b"abcd", BlockRecord(), b"grease"))
    meta.finish()
    assert [entry.path for entry in vault.snapshot()] == ["f"]


def test_strange_names(vault: CraftedVault) -> None:
    names = ["meta/readme", "data/x/y.rzn", f"arena/{'0' * 32}/{'1' * 32}.tmp"]
    for name in names:
        vault.path(name).parent.mkdir(parents=True, exist_ok=True)
        vault.path(name).write_bytes(b"?")
    assert problems(vault) == dict.fromkeys(names, "name")


def test_gaps(vault: CraftedVault) -> None:
    one, two = two_snapshots(vault)
    one.stored.unlink()
    found = vault.archives().snapshots()
    assert [(problem.object, problem.what) for problem in found.problems] == [(two.name, "parent"), (two.name, "heads")]
    _bury(vault, one.archive_id)
    found = vault.archives().snapshots()
    assert [problem.what for problem in found.problems] == ["parent"]
    assert len(found) == 1


def _bury(vault: CraftedVault, archive_id: bytes, owner: rz.Identity | None = None) -> None:
    raw = build_tombstone(
        owner or vault.owner,
        vault_id=vault.host.vault_id,
        host_id=vault.host.host_id,
        archive_id=archive_id,
        foot_hash=bytes(32),
        now_ns=NOW,
        why="old",
    )
    path = vault.path(layout.gone_name(vault.host.host_id, archive_id))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)


# --- Archives that others refer to --------------------------------------------------------------


def test_missing_archive(vault: CraftedVault) -> None:
    meta, data, more = vault.meta(), vault.data(), vault.data()
    root = meta.directory("root", [meta.file("a", b"lost", data), meta.file("b", b"kept", more)])
    data.finish()
    more.finish()
    meta.snap(root, (2, 8))
    data.stored.unlink()
    snapshot = vault.snapshot()
    assert len(list(snapshot)) == 2
    assert snapshot.read("b") == b"kept"
    with pytest.raises(MissingArchive, match="No tombstone") as caught:
        snapshot.read("a")
    assert caught.value.object == data.name
    assert caught.value.failure_class == "missing"
    _bury(vault, data.archive_id)
    with pytest.raises(MissingArchive, match="The owner deleted it on 2023-11-14: old"):
        vault.snapshot().read("a")
    _bury(vault, data.archive_id, rz.Identity.generate())
    with pytest.raises(MissingArchive, match="not to be believed"):
        vault.snapshot().read("a")


def test_missing_archives_are_looked_for_once(vault: CraftedVault, monkeypatch: pytest.MonkeyPatch) -> None:
    meta, data = vault.meta(), vault.data()
    root = meta.directory("root", [meta.file(f"{number:03}", b"%d" % number, data) for number in range(200)])
    data.finish()
    meta.snap(root, (200, 490))
    data.stored.unlink()
    snapshot = vault.snapshot()
    asked: list[str] = []

    def listed(self: LocalStorage, prefix: str = "") -> Iterator[ObjectInfo]:
        asked.append(prefix)
        return iter(())

    monkeypatch.setattr(LocalStorage, "list", listed)
    for entry in snapshot:
        with pytest.raises(MissingArchive):
            snapshot.read(entry.path)
    assert len(asked) <= 6


def test_archive_that_moved_from_the_arena(vault: CraftedVault) -> None:
    meta, data = vault.meta(), vault.data(arena=True)
    root = meta.directory("root", [meta.file("a", b"moved", data)])
    data.finish()
    meta.snap(root, (1, 5))
    snapshot = vault.snapshot()
    assert snapshot.object_name(1).startswith("arena/")
    to = vault.path(layout.data_name(vault.host.host_id, data.archive_id, arena=False))
    to.parent.mkdir(parents=True)
    data.stored.rename(to)
    assert snapshot.read("a") == b"moved"


def test_damaged_copy_in_data_sound_one_in_the_arena(vault: CraftedVault) -> None:
    meta, data = vault.meta(), vault.data(arena=True)
    root = meta.directory("root", [meta.file("a", b"copied", data)])
    data.finish()
    meta.snap(root, (1, 6))
    to = vault.path(layout.data_name(vault.host.host_id, data.archive_id, arena=False))
    to.parent.mkdir(parents=True)
    to.write_bytes(data.stored.read_bytes()[:-1])
    assert vault.snapshot().read("a") == b"copied"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda raw: raw[:-200], rz.ArchiveError),
        (lambda raw: raw + bytes(64), rz.ArchiveError),
        (lambda raw: b"", rz.ArchiveError),
    ],
    ids=["cut", "longer", "empty"],
)
def test_another_length(vault: CraftedVault, change: Any, error: type[Exception]) -> None:
    meta, data = vault.meta(), vault.data()
    root = meta.directory("root", [meta.file("a", b"content", data)])
    data.finish()
    meta.snap(root, (1, 7))
    data.stored.write_bytes(change(data.stored.read_bytes()))
    with pytest.raises(error) as caught:
        vault.snapshot().read("a")
    assert caught.value.object == data.name  # type: ignore[attr-defined]


def test_reference_with_another_length_or_kind(vault: CraftedVault) -> None:
    for number, (kind, more) in enumerate([(1, 1), (1, -1), (2, 0)], 1):
        meta, data = vault.meta(sequence=number), vault.data()
        root = meta.directory("root", [meta.file("a", b"content", data)])
        data.finish()
        meta.others = [Reference(data.archive_id, kind, data.length + more, 0)]
        meta.snap(root, (1, 7))
        with pytest.raises(rz.ArchiveError):
            vault.snapshot().read("a")


def test_data_archive_of_another_host(vault: CraftedVault) -> None:
    other = vault.enrol("server")
    meta, theirs = vault.meta(), vault.data(host=other)
    root = meta.directory("root", [meta.file("a", b"theirs", theirs)])
    theirs.finish()
    meta.snap(root, (1, 6))
    with pytest.raises(MissingArchive):
        vault.snapshot().read("a")
    # Nor does it help to copy it.
    to = vault.path(layout.data_name(vault.host.host_id, theirs.archive_id, arena=False))
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(theirs.stored.read_bytes())
    with pytest.raises(rz.SignatureError):
        vault.snapshot().read("a")


def test_archive_that_the_snapshot_does_not_list(vault: CraftedVault) -> None:
    one, data = vault.meta(), vault.data()
    old = one.directory("old", [one.file("a", b"x", data)])
    data.finish()
    one.snap(one.directory("root", [old]), (2, 1))
    lists: list[list[CraftedArchive | Reference]] = [[one], [one, Reference(data.archive_id, 1, data.length + 1, 0)]]
    for others in lists:
        two = vault.meta(sequence=2 + len(others))
        two.others = others
        two.snap(two.directory("root", [replace(old, archive=1)]), (2, 1))
        snapshot = vault.snapshot()
        with pytest.raises(rz.BlockError, match="does not list") as caught:
            list(snapshot)
        assert (caught.value.object, caught.value.block) == (one.name, old.block)


# --- Trees that are not what they should be -----------------------------------------------------


def read_all(snapshot: Snapshot) -> None:
    for entry in islice(snapshot, 10_000):
        if entry.kind is rz.Kind.FILE:
            snapshot.read(entry.path)


def refused(vault: CraftedVault, message: str, where: CraftedArchive | None = None) -> None:
    with pytest.raises(rz.BlockError, match=message) as caught:
        read_all(vault.snapshot())
    assert caught.value.object is not None
    if where is not None:
        assert caught.value.object == where.name
        assert caught.value.block is not None


def test_endless_tree(vault: CraftedVault) -> None:
    """2^40 entries in 40 nodes: refused when there are more than the snapshot says."""
    meta = vault.meta()
    below = meta.directory("a", [fifo("leaf")])
    for _ in range(40):
        below = meta.directory("a", [below, replace(below, name=b"b")])
    meta.snap(below, (81, 0))
    snapshot = vault.snapshot()
    count = 0
    with pytest.raises(rz.BlockError, match="more than the 81 entries"):
        for _ in snapshot:
            count += 1
    assert count == 81


def test_shared_nodes_are_fine(vault: CraftedVault) -> None:
    meta = vault.meta()
    below = meta.directory("a", [fifo("leaf")])
    meta.snap(meta.directory("root", [below, replace(below, name=b"b")]), (4, 0))
    assert [entry.path for entry in vault.snapshot()] == ["a", "a/leaf", "b", "b/leaf"]


def test_another_node(vault: CraftedVault) -> None:
    meta = vault.meta()
    wrong = replace(meta.directory("d", [fifo("a")]), child=bytes(32))
    meta.snap(meta.directory("root", [wrong]), (2, 0))
    refused(vault, "not the one that refers to it", meta)


def test_node_of_a_self_contained_archive(vault: CraftedVault) -> None:
    meta = vault.meta()
    logical = nodes.directory_record([fifo("a")])
    node = nodes.join_node(logical, nodes.directory_hints(b"d"))
    meta.snap(meta.directory("root", [meta.directory("d", [fifo("a")], node=node)]), (2, 0))
    refused(vault, "has one in a vault", meta)


def test_places_out_of_range(vault: CraftedVault) -> None:
    for number, name in enumerate(["archive", "block", "piece"], 1):
        meta = vault.meta(sequence=number)
        below = meta.directory("d", [fifo("a")])
        setattr(below, name, 99)
        meta.snap(meta.directory("root", [below]), (2, 0))
        with pytest.raises(rz.ArchiveError) as caught:
            list(vault.snapshot())
        assert caught.value.object == meta.name


def test_directory_in_a_data_archive(vault: CraftedVault) -> None:
    meta, data = vault.meta(), vault.data()
    sequence = data.pieces(b"PACK", [b"x"])
    below = replace(meta.directory("d", []), archive=meta.number(data), block=sequence)
    data.finish()
    meta.snap(meta.directory("root", [below]), (1, 0))
    refused(vault, "no TREE block", data)


def test_content_elsewhere(vault: CraftedVault) -> None:
    """At a stream in a data archive, at a directory, at attributes: nothing that a vault has."""
    stream = StreamBuilder(0)
    for number in range(4):
        meta, data = vault.meta(sequence=number + 1), vault.data()
        file = meta.file("f", b"data", data)
        if number == 0:
            start = data.block(stream.start())
            file = replace(file, block=start)
            data.block(stream.content([b"data"], 0))
            data.block(stream.end(4, data.id(b"data"), nodes.part_leaf([Part(0, 4, data.id(b"data"), start + 1, 0)])))
        elif number == 1:
            file = replace(file, archive=0, block=meta.directory("d", []).block)
        elif number == 2:
            file = replace(file, archive=0, block=meta.pieces(b"TREX", [b"data"]))
        else:
            file = replace(file, piece=5)
        data.finish()
        meta.snap(meta.directory("root", [file]), (1, 4))
        with pytest.raises(rz.ArchiveError) as caught:
            vault.snapshot().read("f")
        assert caught.value.object in (meta.name, data.name)


def test_parts_in_a_metadata_archive(vault: CraftedVault) -> None:
    """Parts are pieces of PACK blocks, whatever a table says."""
    meta = vault.meta()
    sequence = meta.pieces(b"TREE", [b"data"])
    block, piece = meta.table([Part(0, 4, meta.id(b"data"), sequence, 0, 0)])
    file = Entry(b"f", rz.Kind.FILE, 0o644, size=4, content_id=meta.id(b"data"), block=block, piece=piece)
    meta.snap(meta.directory("root", [file]), (1, 4))
    refused(vault, "PACK block is expected", meta)


def test_contents_and_attributes_that_are_others(vault: CraftedVault) -> None:
    meta, data = vault.meta(), vault.data()
    wrong = replace(meta.file("a", b"data", data), content_id=meta.id(b"other"))
    chunked = meta.chunked("b", [b"one", b"two"], data)
    parts = meta.parts([b"one", b"two"], data)
    bad = meta.table([replace(parts[0], id=bytes(32)), parts[1]])
    short = replace(meta.file("d", b"1234", data), size=3, content_id=meta.id(b"123"))
    attributes = meta.attributes(fifo("e"), [(b"user.x", b"1")])
    assert attributes.xattr_ref is not None
    attributes = replace(attributes, xattr_ref=(bytes(32), *attributes.xattr_ref[1:]))
    entries = [wrong, chunked, replace(chunked, name=b"c", block=bad[0]), short, attributes]
    data.finish()
    meta.snap(meta.directory("root", entries), (5, 19))
    snapshot = vault.snapshot()
    assert snapshot.read("b") == b"onetwo"
    for name in "acd":
        with pytest.raises(rz.BlockError) as caught:
            snapshot.read(name)
        assert caught.value.object == data.name
    with pytest.raises(rz.BlockError) as caught:
        snapshot.xattrs(snapshot.entry("e"))
    assert caught.value.object == meta.name


def test_table_of_another_length(vault: CraftedVault) -> None:
    meta, data = vault.meta(), vault.data()
    file = replace(meta.chunked("f", [b"one", b"two"], data), size=5)
    data.finish()
    meta.snap(meta.directory("root", [file]), (1, 5))
    refused(vault, "contradicts its content's length", meta)


def test_inner_nodes(vault: CraftedVault) -> None:
    meta = vault.meta()
    one, two = meta.directory("", [fifo("a"), fifo("b")]), meta.directory("", [fifo("c")])
    assert one.child is not None
    assert two.child is not None
    rows = [InnerNode(b"a", 2, one.child, one.block, 0, 0), InnerNode(b"c", 1, two.child, two.block, 0, 0)]
    good = meta.inner("good", rows)
    bad = {
        "count": [replace(rows[0], entries=1), rows[1]],
        "again": [rows[0], replace(rows[0], first_name=b"b")],
        "name": [rows[0], replace(rows[1], first_name=b"bb")],
    }
    entries = [good, *(meta.inner(name, children) for name, children in bad.items())]
    meta.snap(meta.directory("root", entries), (20, 0))
    snapshot = vault.snapshot()
    assert [entry.name for entry in snapshot.listdir("good")] == ["a", "b", "c"]
    for name in bad:
        with pytest.raises(rz.BlockError) as caught:
            list(snapshot.listdir(name))
        assert caught.value.object == meta.name


def test_walking_on_past_what_is_lost(vault: CraftedVault) -> None:
    one = vault.meta()
    gone = one.directory("gone", [fifo("x")])
    leaf = one.directory("", [fifo("c"), fifo("d")])
    one.snap(one.directory("root", [gone]), (2, 0))
    two = vault.meta(sequence=2)
    kept = two.directory("", [fifo("a"), fifo("b")])
    last = two.directory("", [fifo("e")])
    assert kept.child is not None
    assert leaf.child is not None
    assert last.child is not None
    half = two.inner(
        "half",
        [
            InnerNode(b"a", 2, kept.child, kept.block, 0, 0),
            InnerNode(b"c", 2, leaf.child, leaf.block, 0, two.number(one)),
            InnerNode(b"e", 1, last.child, last.block, 0, 0),
        ],
    )
    two.snap(two.directory("root", [replace(gone, archive=1), half]), (8, 0))
    one.stored.unlink()
    snapshot = next(iter(vault.archives().snapshots()))
    lost: list[tuple[bytes, str]] = []
    found = [entry.path for entry in snapshot.walk(lost=lambda path, error: lost.append((path, type(error).__name__)))]
    assert found == ["gone", "half", "half/a", "half/b", "half/e"]
    assert lost == [(b"gone", "MissingArchive"), (b"half", "MissingArchive")]
    with pytest.raises(MissingArchive):
        list(snapshot)


# --- Choosing -----------------------------------------------------------------------------------


class Chosen:
    """As much of a snapshot as choosing looks at."""

    def __init__(self, digits: str, name: str, sequence: int, host: str = "laptop", minutes: int = 0) -> None:
        self.archive_id = bytes.fromhex(digits.ljust(32, "0"))
        self.id = self.archive_id.hex()
        self.name, self.sequence, self.host = name, sequence, host
        self.host_id = host.encode().ljust(16, b"\0")
        self.time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)


ALL: list[Any] = [
    Chosen("aaaa1", "photos", 1),
    Chosen("aaaa2", "photos", 3, minutes=1),  # its clock is behind
    Chosen("bbbb3", "photos", 3),
    Chosen("cccc1", "photos", 7, "server", minutes=9),
    Chosen("dddd1", "/srv/a@b", 4, "server", minutes=3),
    Chosen("eeee1", "x@server", 5, minutes=3),
]


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("aaaa1", "aaaa1"),
        ("AAAA2", "aaaa2"),
        ("bbbb3".ljust(32, "0"), "bbbb3"),
        ("latest:photos@laptop", "bbbb3"),
        ("latest:photos@server", "cccc1"),
        (f"latest:photos@{b'server'.ljust(16, bytes(1)).hex()}", "cccc1"),
        ("latest:/srv/a@b", "dddd1"),
        ("latest:/srv/a@b@server", "dddd1"),
        ("latest:x@server", "eeee1"),
        ("latest:x@server@laptop", "eeee1"),
    ],
)
def test_select(text: str, digits: str) -> None:
    assert select(ALL, text).id.startswith(digits)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latest", "photos@laptop"),
        ("latest:photos", "photos@server"),
        ("latest:none", "no snapshot of 'none'"),
        ("latest:photos@nowhere", "no snapshot"),
        ("latest:", "no snapshot"),
        ("aaaa", "2 snapshots begin with aaaa"),
        ("aaa", "at least 4 digits"),
        ("photos", "no id of a snapshot"),
        ("ffff", "no snapshot whose id"),
        ("", "no id"),
    ],
)
def test_select_refuses(text: str, says: str) -> None:
    with pytest.raises(rz.UsageError, match=says):
        select(ALL, text)


def test_select_latest_of_the_only_set() -> None:
    assert select(ALL[:3], "latest").id.startswith("bbbb3")
    with pytest.raises(rz.UsageError, match="no snapshot"):
        select([], "latest")


def test_select_by_time() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert select(ALL, "latest", before=start).id.startswith("bbbb3")
    assert select(ALL, "latest:photos", before=start + timedelta(minutes=5)).id.startswith("bbbb3")
    with pytest.raises(rz.UsageError, match="began by"):
        select(ALL, "latest", before=start - timedelta(days=1))
    with pytest.raises(rz.UsageError, match="time zone"):
        select(ALL, "latest", before=datetime(2026, 1, 1))  # noqa: DTZ001 -- the point


def test_archives_are_bounded(vault: CraftedVault, monkeypatch: pytest.MonkeyPatch) -> None:
    from rozenfmt.vault import archives

    monkeypatch.setattr(archives, "_OPEN", 4)
    meta = vault.meta()
    entries = []
    for number in range(12):
        data = vault.data()
        entries.append(meta.file(f"{number:02}", b"content %d" % number, data))
        data.finish()
    meta.snap(meta.directory("root", entries), (12, 110))
    snapshot = vault.snapshot()
    for _ in range(2):
        for number in range(12):
            assert snapshot.read(f"{number:02}") == b"content %d" % number
    assert len(snapshot.archives._open) <= 4


def test_threads(vault: CraftedVault) -> None:
    from concurrent.futures import ThreadPoolExecutor

    meta, data = vault.meta(), vault.data()
    entries = [meta.file(f"{number:02}", os.urandom(1000), data) for number in range(50)]
    data.finish()
    meta.snap(meta.directory("root", entries), (50, 50_000))
    archives: Archives = vault.archives()
    snapshot = next(iter(archives.snapshots()))
    before = archives.traffic.requests
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda n: len(snapshot.read(f"{n % 50:02}")), range(200))) == 200_000
    assert archives.traffic.requests == before + 1
    assert archives.source(snapshot.host_id, data.archive_id, Kind.DATA).header.kind == Kind.DATA
