"""Snapshots that a host wrote with all keys and bad will: verification tells, comparisons refuse, nothing hangs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import rozenfmt as rz
from rozenfmt.errors import ArchiveError
from rozenfmt.format import nodes
from rozenfmt.format.nodes import Entry, InnerNode
from rozenfmt.format.registry import Kind
from rozenfmt.format.snapshots import Reference
from rozenfmt.vault import layout
from rozenfmt.vault.catalog import Catalog
from rozenfmt.vault.diff import diff
from rozenfmt.vault.findings import VerifyReport
from rozenfmt.vault.rebuild import rebuild
from rozenfmt.vault.verify import LEVELS, verify

from .crafting import CraftedArchive, CraftedVault, fifo


@pytest.fixture
def vault(tmp_path: Path) -> CraftedVault:
    return CraftedVault(tmp_path / "vault")


def verified(vault: CraftedVault, level: str, **options: float) -> VerifyReport:
    return verify(vault.archives(), [], whole=True, level=level, workers=2, **options)  # type: ignore[arg-type]


def good(vault: CraftedVault, sequence: int) -> CraftedArchive:
    meta, data = vault.meta(sequence=sequence), vault.data()
    file, chunked = (
        meta.file("f", b"content", data),
        meta.chunked("parts", [b"one" * 9, 50, b"two" * 9], data, leaves=2),
    )
    data.finish()
    d = meta.directory("d", [file, chunked, meta.attributes(fifo("p"), [(b"user.x", b"1")])])
    return meta.snap(meta.directory("root", [d]), (4, 7 + 104))


# --- what is wrong --------------------------------------------------------------------------------


def endless(vault: CraftedVault, meta: CraftedArchive) -> None:
    below = meta.directory("a", [fifo("leaf")])
    for _ in range(40):
        below = meta.directory("a", [below, replace(below, name=b"b")])
    meta.snap(below, (81, 0))


def another_node(vault: CraftedVault, meta: CraftedArchive) -> None:
    wrong = replace(meta.directory("d", [fifo("a")]), child=bytes(32))
    meta.snap(meta.directory("root", [wrong]), (2, 0))


def self_contained(vault: CraftedVault, meta: CraftedArchive) -> None:
    node = nodes.join_node(nodes.directory_record([fifo("a")]), nodes.directory_hints(b"d"))
    meta.snap(meta.directory("root", [meta.directory("d", [fifo("a")], node=node)]), (2, 0))


def out_of_range(what: str) -> Callable[[CraftedVault, CraftedArchive], None]:
    def build(vault: CraftedVault, meta: CraftedArchive) -> None:
        below = meta.directory("d", [fifo("a")])
        setattr(below, what, (1 << 40) + 1)
        meta.snap(meta.directory("root", [below]), (2, 0))

    return build


def in_a_data_archive(vault: CraftedVault, meta: CraftedArchive) -> None:
    data = vault.data()
    sequence = data.pieces(b"PACK", [b"x"])
    below = replace(meta.directory("d", []), archive=meta.number(data), block=sequence)
    data.finish()
    meta.snap(meta.directory("root", [below]), (1, 0))


def content_at(what: str) -> Callable[[CraftedVault, CraftedArchive], None]:
    def build(vault: CraftedVault, meta: CraftedArchive) -> None:
        data = vault.data()
        file = meta.file("f", b"data", data)
        if what == "directory":
            file = replace(file, archive=0, block=meta.directory("d", []).block)
        elif what == "attributes":
            file = replace(file, archive=0, block=meta.pieces(b"TREX", [b"data"]))
        elif what == "no piece":
            file = replace(file, piece=5)
        elif what == "another content":
            file = replace(file, content_id=meta.id(b"other"))
        elif what == "shorter":
            file = replace(file, size=3)
        data.finish()
        meta.snap(meta.directory("root", [file]), (1, file.size))

    return build


def parts_that(what: str) -> Callable[[CraftedVault, CraftedArchive], None]:
    def build(vault: CraftedVault, meta: CraftedArchive) -> None:
        data = vault.data()
        parts = meta.parts([b"one", b"two"], data)
        if what == "are others":
            parts = [replace(parts[0], id=bytes(32)), parts[1]]
        elif what == "are longer":
            parts = [replace(parts[0], length=4), replace(parts[1], offset=4, length=2)]
        elif what == "are exchanged":
            parts = [replace(parts[1], offset=0), replace(parts[0], offset=3)]
        elif what == "are directories":
            parts = [replace(parts[0], archive=0, block=meta.directory("d", []).block), parts[1]]
        block, piece = meta.table(parts)
        size = 5 if what == "do not add up" else 6
        one = meta.id(b"onetwo")
        file = Entry(b"f", rz.Kind.FILE, 0o644, size=size, content_id=one, block=block, piece=piece)
        data.finish()
        meta.snap(meta.directory("root", [file]), (1, size))

    return build


def other_attributes(vault: CraftedVault, meta: CraftedArchive) -> None:
    entry = meta.attributes(fifo("e"), [(b"user.x", b"1")])
    assert entry.xattr_ref is not None
    entry = replace(entry, xattr_ref=(bytes(32), *entry.xattr_ref[1:]))
    meta.snap(meta.directory("root", [entry]), (1, 0))


def parts_of_a_directory(what: str) -> Callable[[CraftedVault, CraftedArchive], None]:
    def build(vault: CraftedVault, meta: CraftedArchive) -> None:
        one, two = meta.directory("", [fifo("a"), fifo("b")]), meta.directory("", [fifo("c")])
        assert one.child is not None
        assert two.child is not None
        rows = [InnerNode(b"a", 2, one.child, one.block, 0, 0), InnerNode(b"c", 1, two.child, two.block, 0, 0)]
        if what == "count":
            rows[0] = replace(rows[0], entries=1)
        elif what == "again":
            rows[1] = replace(rows[0], first_name=b"b")
        elif what == "overlap":
            rows[1] = replace(rows[1], first_name=b"ab")
        else:
            rows[1] = replace(rows[1], first_name=b"bb")
        meta.snap(meta.directory("root", [meta.inner("d", rows)]), (4, 0))

    return build


def totals(vault: CraftedVault, meta: CraftedArchive) -> None:
    meta.snap(meta.directory("root", [fifo("a")]), (2, 0))


def unlisted(vault: CraftedVault, meta: CraftedArchive) -> None:
    one, data = vault.meta(sequence=50), vault.data()
    old = one.directory("old", [one.file("a", b"x", data)])
    data.finish()
    one.snap(one.directory("root", [old]), (2, 1))
    meta.others = [one, Reference(data.archive_id, 1, data.length + 1, 0)]
    meta.snap(meta.directory("root", [replace(old, archive=1)]), (2, 1))


def of_another_host(vault: CraftedVault, meta: CraftedArchive) -> None:
    theirs = vault.data(host=vault.enrol("server"))
    root = meta.directory("root", [meta.file("a", b"theirs", theirs)])
    theirs.finish()
    meta.snap(root, (1, 6))
    to = vault.path(layout.data_name(vault.host.host_id, theirs.archive_id, arena=False))
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(theirs.stored.read_bytes())


WRONG: dict[str, Callable[[CraftedVault, CraftedArchive], None]] = {
    "endless": endless,
    "another node": another_node,
    "self-contained": self_contained,
    **{f"{what} out of range": out_of_range(what) for what in ("archive", "block", "piece")},
    "directory in a data archive": in_a_data_archive,
    **{
        f"content: {what}": content_at(what)
        for what in ("directory", "attributes", "no piece", "another content", "shorter")
    },
    **{
        f"parts that {what}": parts_that(what)
        for what in ("are others", "are longer", "are exchanged", "are directories", "do not add up")
    },
    "other attributes": other_attributes,
    **{f"inner: {what}": parts_of_a_directory(what) for what in ("count", "again", "overlap", "first name")},
    "totals": totals,
    "unlisted": unlisted,
    "of another host": of_another_host,
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_verification_tells(vault: CraftedVault, case: str) -> None:
    good(vault, 1)
    assert verified(vault, "contents").ok
    meta = vault.meta(sequence=2)
    WRONG[case](vault, meta)
    for level in LEVELS:
        for options in ({}, {"sample": 1.0}):
            report = verified(vault, level, **options)
            sees = level == "contents" and (case != "other attributes" or not options)
            if sees:
                assert not report.ok, options
                assert bool(report.lost) == (case not in ("totals", "endless"))
            assert all(one.object for one in report.damages)


@pytest.mark.parametrize("case", sorted(WRONG))
def test_differences_are_refused_or_told(vault: CraftedVault, case: str) -> None:
    good(vault, 1)
    WRONG[case](vault, vault.meta(sequence=2))
    before, after = vault.snapshot(number=0), vault.snapshot(number=1)
    for older, newer in ((before, after), (after, before)):
        try:
            found = diff(older, newer)
        except ArchiveError as error:
            assert error.object is not None  # noqa: PT017 - either may be
        else:
            assert found


@pytest.mark.parametrize("case", sorted(WRONG))
def test_rebuilding_goes_on(vault: CraftedVault, case: str, tmp_path: Path) -> None:
    good(vault, 1)
    WRONG[case](vault, vault.meta(sequence=2))
    host = vault.host
    archives = vault.archives()
    snapshots = [one for one in archives.snapshots() if one.host_id == host.host_id]
    with Catalog(str(tmp_path / "cache.sqlite"), vault_id=host.vault_id, host_id=host.host_id) as catalog:
        result = rebuild(catalog, archives, snapshots)
        assert result.sets == 1
        meta = vault.meta(sequence=99)
        for data in (b"content", b"one" * 9, b"two" * 9):
            assert catalog.find_piece(meta.id(data)) is not None
        assert catalog.find_content(meta.id(b"one" * 9 + bytes(50) + b"two" * 9)) is not None


def test_good_ones_of_all_kinds(vault: CraftedVault) -> None:
    """Big directories, shared nodes, and the same under another kind of archive."""
    meta, data = vault.meta(sequence=3), vault.data(arena=True)
    big = meta.big_directory("big", [fifo(f"p{number:03}") for number in range(50)], 7)
    shared = meta.directory("a", [fifo("leaf"), meta.file("f", b"x", data)])
    data.finish()
    root = meta.directory("root", [big, shared, replace(shared, name=b"b")])
    meta.snap(root, (57, 2))
    for level in LEVELS:
        report = verified(vault, level)
        assert report.ok, report
    assert report.entries == 55
    assert vault.data().kind is Kind.DATA
