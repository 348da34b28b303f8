"""Metadata archives of a vault: bodies of SNAP, XREF and keyr, order of blocks, nodes with archive numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rozenfmt.errors import ArchiveError, BlockError, IndexDamaged, LimitError
from rozenfmt.format import cbor, crypto, decoder, nodes, records
from rozenfmt.format.blocks import Draft
from rozenfmt.format.builders import PiecesBuilder
from rozenfmt.format.crypto import Keys
from rozenfmt.format.index import MemoryRuns
from rozenfmt.format.nodes import Entry, InnerNode, Node, NodeType, Part
from rozenfmt.format.nodes import Kind as EntryKind
from rozenfmt.format.records import BlockRecord, IndexRecord
from rozenfmt.format.registry import Kind, Suite
from rozenfmt.format.snapshots import CrossReferences, KeyringBody, Reference, SnapshotBody
from rozenfmt.format.state import SNAPSHOT, SnapshotEvent, SnapshotState

from .helpers import STORED, Forge, a_snapshot, browse_keys, node_id, read, vault_node, with_keys
from .test_nodes import ID, NAME, U64, directory

OWN = bytes(range(16))
SUITES = list(Suite)
every_suite = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)

# --- Bodies -------------------------------------------------------------------------------------


def test_a_snapshot_round_trips() -> None:
    body = a_snapshot()
    encoded = records.encode(body)
    assert list(cbor.loads(encoded)) == list(range(1, 21))
    assert SnapshotBody.decode(encoded) == body
    assert records.encode(SnapshotBody.decode(encoded)) == encoded
    bare = a_snapshot(parent=None, parent_state=1, moves=None, deleted=None, problems=None, conflicts=None)
    assert not cbor.loads(records.encode(bare)).keys() & {6, 15, 16, 17, 18}
    assert SnapshotBody.decode(records.encode(bare)) == bare


@pytest.mark.parametrize("key", sorted({*range(1, 21)} - {6, 15, 16, 17, 18}))
def test_keys_of_a_snapshot_that_must_be_there(key: int) -> None:
    values = cbor.loads(records.encode(a_snapshot()))
    del values[key]
    with pytest.raises(BlockError):
        SnapshotBody.decode(cbor.dumps(values))


@pytest.mark.parametrize(
    "changes",
    [
        {"set_name": ""},
        {"heads": b"p" * 16 + b"g" * 16},
        {"heads": b"g" * 32},
        {"tags": ("y", "x")},
        {"tags": ("x", "x")},
        {"tags": ("\U00010000", "\uffff")},  # by bytes, not by what UTF-16 makes of them
        {"parent": None},
        {"parent_state": 1},
        {"parent_state": 3},
    ],
)
def test_snapshots_that_contradict_themselves(changes: dict[str, Any]) -> None:
    with pytest.raises(BlockError):
        SnapshotBody.decode(records.encode(a_snapshot(**changes)))


def test_what_a_snapshot_may_say() -> None:
    for changes in (
        {"heads": b""},
        {"tags": ()},
        {"tags": ("\uffff", "\U00010000")},
        {"sources": ()},
        {"flags": 2**64 - 1},
        {"label": "x" * 255},
        {"set_name": "é" * 2_048},
        {"parent": None, "parent_state": 3},
        {"extra": {1_000: b"harmless"}},
    ):
        body = a_snapshot(**changes)
        assert SnapshotBody.decode(records.encode(body)) == body


@settings(max_examples=50)
@given(
    st.lists(
        st.builds(Reference, st.binary(min_size=16, max_size=16), st.integers(1, 2), U64, U64),
        max_size=5,
        unique_by=lambda one: one.archive_id,
    )
)
def test_references_round_trip(references: list[Reference]) -> None:
    encoded = records.encode(CrossReferences.of(references))
    if OWN in [one.archive_id for one in references]:
        return
    assert CrossReferences.decode(encoded, OWN) == references
    for one in references:
        with pytest.raises(BlockError):
            CrossReferences.decode(encoded, one.archive_id)
        with pytest.raises(BlockError):
            CrossReferences.decode(records.encode(CrossReferences.of([*references, one])), OWN)


REFERENCES = [Reference(b"a" * 16, 1, 500, 5), Reference(b"b" * 16, 2, 600, 6)]


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": b"a" * 16},
        {"ids": b"a" * 16 + b"b" * 16 + b"c" * 16},
        {"ids": OWN + b"b" * 16},
        {"ids": b"b" * 32},
        {"kinds": b"\1"},
        {"kinds": b"\1\2\1"},
        {"kinds": b"\1\3"},
        {"kinds": b"\0\2"},
        {"lengths": b"\1"},
        {"lengths": b"\1\1\1"},
        {"lengths": b"\1\x81\0"},
        {"live": b""},
        {"live": b"\1\1\1"},
        {"live": b"\1\x80"},
    ],
)
def test_references_that_contradict_themselves(changes: dict[str, Any]) -> None:
    with pytest.raises(BlockError):
        CrossReferences.decode(records.encode(replace(CrossReferences.of(REFERENCES), **changes)), OWN)


# --- Nodes --------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(st.data(), directory())
def test_directories_round_trip(data: st.DataObject, entries: list[Entry]) -> None:
    for one in entries:
        if one.child is not None or one.has_content:
            one.archive = data.draw(U64)
        if one.xattr_ref is not None:
            one.xattr_archive = data.draw(U64)
    raw = vault_node(entries)
    node = Node.decode(raw)
    assert node.path is None
    assert node.entries(vault=True) == entries
    assert decoder.check_node(node, vault=True) is node
    with pytest.raises(BlockError):
        node.entries()  # no path, and numbers where none belong
    assert records.encode(node.hints) == nodes.split_node(raw)[1]


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(InnerNode, NAME, st.integers(1, 99), ID, U64, U64, U64),
        min_size=1,
        max_size=5,
        unique_by=lambda c: c.first_name,
    )
)
def test_inner_nodes_round_trip(children: list[InnerNode]) -> None:
    children.sort(key=lambda child: child.first_name)
    hints = nodes.vault_hints([(c.archive, c.block, c.piece) for c in children])
    node = Node.decode(nodes.join_node(nodes.inner_record(children), hints))
    assert node.children(vault=True) == children
    with pytest.raises(BlockError):
        node.children()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 10**6), st.none() | ID, U64, U64, U64), min_size=1, max_size=6))
def test_part_tables_round_trip(rows: list[tuple[int, bytes | None, int, int, int]]) -> None:
    parts: list[Part] = []
    at = 0
    for length, one, block, piece, archive in rows:
        if one is None and parts and parts[-1].id is None:
            continue
        parts.append(Part(at, length, one, *((block, piece, archive) if one is not None else (0, 0, 0))))
        at += length
    node = Node.decode(nodes.part_leaf(parts, vault=True))
    assert node.parts(vault=True) == parts
    stored = [replace(part, offset=0) for part in parts if part.id is not None]
    if stored:
        with pytest.raises(BlockError):
            node.parts()
        table = Node.decode(nodes.part_inner(stored, vault=True))
        assert [replace(part, offset=0) for part in table.parts(vault=True)] == stored
        with pytest.raises(BlockError):
            table.parts()


FULL = [
    Entry(b"file", EntryKind.FILE, size=3, content_id=b"c" * 32, block=1, piece=2, archive=1),
    Entry(b"sub", EntryKind.DIRECTORY, child=b"d" * 32, block=3, archive=2, xattr_ref=(b"x" * 32, 4, 5)),
]


@pytest.mark.parametrize("key", [1, 2, 3, 4, 5, 6, 8, 9, 10])
def test_hints_come_and_go_together(key: int) -> None:
    logical, hints = nodes.split_node(vault_node(FULL))
    values = cbor.loads(hints)
    assert sorted(values) == [1, 2, 3, 4, 5, 6, 8, 9, 10]
    for wrong in (None, b"", b"\0\0", b"\x80", b"\x81\0"):
        changed = {k: v for k, v in {**values, key: wrong}.items() if v is not None}
        with pytest.raises(BlockError):
            Node.decode(nodes.join_node(logical, cbor.dumps(changed))).entries(vault=True)
    empty = nodes.split_node(vault_node([]))[0]
    assert Node.decode(nodes.join_node(empty, cbor.dumps({}))).entries(vault=True) == []
    with pytest.raises(BlockError):
        Node.decode(nodes.join_node(empty, cbor.dumps({key: b""}))).entries(vault=True)


def test_no_paths_and_no_partial_directories() -> None:
    logical, hints = nodes.split_node(vault_node(FULL))
    with pytest.raises(BlockError):
        Node.decode(nodes.join_node(logical, cbor.dumps({**cbor.loads(hints), 7: b""}))).entries(vault=True)
    partial = nodes.directory_record([Entry(b"a", EntryKind.FIFO)], partial=True)
    with pytest.raises(BlockError):
        Node.decode(nodes.join_node(partial, cbor.dumps({}))).entries(vault=True)
    inner = nodes.inner_record([InnerNode(b"a", 1, bytes(32), 0, 0)])
    hints = cbor.dumps({**cbor.loads(nodes.vault_hints([(0, 0, 0)])), 7: b"a"})
    with pytest.raises(BlockError):
        Node.decode(nodes.join_node(inner, hints)).children(vault=True)


# --- Order of blocks ----------------------------------------------------------------------------

XREF = records.encode(CrossReferences.of(REFERENCES))


def pieces(kind: bytes, *parts: bytes) -> Draft:
    builder = PiecesBuilder(kind, compression=STORED)
    for part in parts:
        builder.add(part)
    return builder.seal()


def other(kind: bytes, body: bytes) -> Draft:
    return Draft(kind, BlockRecord(), body, STORED)


SUB = vault_node([])
DRAFTS: dict[str, Draft] = {
    "TREE": pieces(b"TREE", SUB),
    "TREX": pieces(b"TREX", cbor.dumps([[b"user.a", b""]])),
    "XREF": other(b"XREF", XREF),
    "SNAP": other(b"SNAP", records.encode(a_snapshot(root=(node_id(SUB), 2, 0, 0)))),
    "keyr": other(b"keyr", records.encode(KeyringBody(editions=(b"an edition",)))),
    "ckpt": Draft(b"ckpt", records.CheckpointRecord(first=0, count=0), b"", STORED),
    "xtra": Draft(b"xtra", BlockRecord(extra={1_000: b"harmless"})),
    "PACK": pieces(b"PACK", b"content"),
    "DIRY": other(b"DIRY", cbor.dumps({1: []})),
}
RIGHTS: dict[str, Callable[[Keys | None], Keys | None]] = {
    "read": lambda keys: keys,
    "browse": lambda keys: None if keys is None else browse_keys(keys),
    "none": lambda _: None,
}


def outcome(
    drafts: Sequence[Draft], suite: Suite = Suite.PLAIN, right: str = "read", *, complete: bool = False
) -> ArchiveError | None:
    """What reading a metadata archive of these blocks ends with."""
    forge = Forge(suite, kind=Kind.METADATA)
    for draft in drafts:
        forge.add(draft)
    keys = RIGHTS[right](forge.keys)
    events, error = read(forge.finish(), with_keys(keys))
    if error is None and complete:
        from rozenfmt.archive.verify import ContentVerifier
        from rozenfmt.format.decoder import BlockEvent

        verifier = ContentVerifier(forge.keys or Keys.from_secret(suite, bytes(16), bytes(32)), MemoryRuns(), Kind(2))
        try:
            for event in events:
                if isinstance(event, BlockEvent) and event.block.type != b"INDX":
                    verifier.take(event.block, event.offset, event.found, verifier.ids(event.block))
            verifier._finish_vault()
        except ArchiveError as failure:
            return failure
    return error


def valid(order: Sequence[str]) -> bool:
    """What vault.md, section 5, says in words."""
    main = [kind for kind in order if kind[0].isupper()]
    return (
        "keyr" in order
        and main[-2:] == ["XREF", "SNAP"]
        and set(main[:-2]) <= {"TREE", "TREX"}
        and order.count("ckpt") <= 1
    )


@every_suite
@pytest.mark.parametrize("right", RIGHTS)
def test_orders(suite: Suite, right: str) -> None:
    """All orders of a handful of blocks; types alone tell, so that a reader without a key sees it too."""
    every = [
        *itertools.permutations(["keyr", "TREE", "XREF", "SNAP"]),
        ["TREE", "XREF", "SNAP"],
        ["keyr", "XREF", "SNAP"],
        ["keyr", "TREE", "SNAP"],
        ["keyr", "TREE", "XREF"],
        ["keyr", "TREE"],
        ["keyr"],
        [],
        ["keyr", "TREE", "XREF", "XREF", "SNAP"],
        ["keyr", "TREE", "XREF", "SNAP", "SNAP"],
        ["keyr", "TREE", "XREF", "TREX", "SNAP"],
        ["keyr", "TREE", "XREF", "SNAP", "TREX"],
        ["TREX", "xtra", "TREE", "ckpt", "keyr", "TREX", "xtra", "XREF", "xtra", "keyr", "SNAP", "xtra"],
        ["keyr", "TREE", "PACK", "XREF", "SNAP"],
        ["keyr", "TREE", "DIRY", "XREF", "SNAP"],
    ]
    for order in every:
        error = outcome([DRAFTS[kind] for kind in order], suite, right)
        assert type(error) is (type(None) if valid(order) else BlockError), (order, error)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([kind for kind in DRAFTS if kind != "ckpt"]), max_size=7))
def test_any_order(order: list[str]) -> None:
    error = outcome([DRAFTS[kind] for kind in order])
    assert type(error) is (type(None) if valid(order) else BlockError), (order, error)


def test_the_table_of_states() -> None:
    """Blocks in order, the index last; nothing but more of the index comes after it."""
    event = SnapshotEvent
    allowed = {
        SnapshotState.NODES: {event.NODES, event.XREF},
        SnapshotState.REFERRED: {event.SNAP},
        SnapshotState.ROOTED: {event.INDEX},
        SnapshotState.INDEX: {event.INDEX},
    }
    assert {state: {e for s, e in SNAPSHOT if s is state} for state in SnapshotState} == allowed


@pytest.mark.parametrize("number", [1, 2])
def test_look_ups_have_no_place(number: int) -> None:
    size = {1: 8, 2: 16}[number]
    forge = Forge(kind=Kind.METADATA)
    for kind in ("keyr", "TREE", "XREF", "SNAP"):
        forge.add(DRAFTS[kind])
    forge.add(Draft(b"INDX", IndexRecord(kind=number, count=1), b"x" * size + b"\1\0", STORED))
    assert type(read(forge.finish(), with_keys(None))[1]) is IndexDamaged


@pytest.mark.parametrize(
    ("kind", "body", "error"),
    [
        ("keyr", b"junk", BlockError),
        ("keyr", cbor.dumps({}), BlockError),
        ("keyr", cbor.dumps({1: []}), BlockError),
        ("keyr", cbor.dumps({1: [b""] * 65}), LimitError),
        ("keyr", cbor.dumps({1: [b""] * 64, 2: "new"}), None),
        ("XREF", b"\xa0", BlockError),
        ("XREF", records.encode(CrossReferences.of([])), None),
        ("SNAP", b"\xa0", BlockError),
        ("SNAP", records.encode(a_snapshot(label="x" * 256)), LimitError),
        ("SNAP", records.encode(a_snapshot(root=(bytes(32), 2, 0, 0))), None),
        ("SNAP", records.encode(a_snapshot(root=(bytes(32), 1, 0, 0))), BlockError),  # a data archive
        ("SNAP", records.encode(a_snapshot(root=(bytes(32), 3, 0, 0))), BlockError),
    ],
)
def test_bodies(kind: str, body: bytes, error: type[ArchiveError] | None) -> None:
    drafts = {**DRAFTS, kind: other(kind.encode(), body)}
    if body == records.encode(CrossReferences.of([])):
        drafts["SNAP"] = other(b"SNAP", records.encode(a_snapshot()))
    found = outcome([drafts[name] for name in ("keyr", "TREE", "XREF", "SNAP")])
    assert type(found) is (type(None) if error is None else error)


@pytest.mark.parametrize("kind", ["keyr", "XREF", "SNAP"])
def test_bodies_must_be_there(kind: str) -> None:
    drafts = {**DRAFTS, kind: Draft(kind.encode(), BlockRecord())}
    assert type(outcome([drafts[name] for name in ("keyr", "TREE", "XREF", "SNAP")])) is BlockError


# --- Places -------------------------------------------------------------------------------------

FILE, FOLDER = EntryKind.FILE, EntryKind.DIRECTORY


def leaf_of(**changes: Any) -> bytes:
    """A directory with one entry."""
    values: dict[str, Any] = {"name": b"x", "kind": FILE, **changes}
    if values["kind"] == FILE:
        values.setdefault("size", 3)
        values.setdefault("content_id", bytes(32))
    return vault_node([Entry(**values)])


def inner_of(archive: int) -> bytes:
    child = InnerNode(b"a", 1, bytes(32), 0, 0, archive)
    return nodes.join_node(nodes.inner_record([child]), nodes.vault_hints([(archive, 0, 0)]))


@pytest.mark.parametrize(
    ("node", "right"),
    [
        (leaf_of(archive=1), True),
        (leaf_of(archive=2), True),  # a part table in another metadata archive
        (leaf_of(archive=3), False),
        (leaf_of(archive=2**64 - 1), False),
        (leaf_of(kind=FOLDER, child=bytes(32), archive=2), True),
        (leaf_of(kind=FOLDER, child=bytes(32), archive=1), False),
        (leaf_of(kind=FOLDER, child=bytes(32), archive=3), False),
        (leaf_of(kind=EntryKind.FIFO, xattr_ref=(bytes(32), 0, 0), xattr_archive=2), True),
        (leaf_of(kind=EntryKind.FIFO, xattr_ref=(bytes(32), 0, 0), xattr_archive=1), False),
        (leaf_of(kind=EntryKind.FIFO, xattr_ref=(bytes(32), 0, 0), xattr_archive=9), False),
        (inner_of(2), True),
        (inner_of(1), False),
        (inner_of(4), False),
        (nodes.part_leaf([Part(0, 3, bytes(32), 0, 0, 1)], vault=True), True),
        (nodes.part_leaf([Part(0, 3, None, 0, 0)], vault=True), True),
        (nodes.part_leaf([Part(0, 3, bytes(32), 0, 0, 0)], vault=True), False),
        (nodes.part_leaf([Part(0, 3, bytes(32), 0, 0, 2)], vault=True), False),
        (nodes.part_inner([Part(0, 3, bytes(32), 0, 0, 2)], vault=True), True),
        (nodes.part_inner([Part(0, 3, bytes(32), 0, 0, 1)], vault=True), False),
    ],
)
@pytest.mark.parametrize("suite", [Suite.PLAIN, Suite.XAES_256_GCM], ids=lambda suite: suite.name)
def test_archive_numbers_are_those_of_the_list(node: bytes, right: bool, suite: Suite) -> None:
    drafts = {**DRAFTS, "TREE": pieces(b"TREE", node)}
    for held in ("read", "browse"):
        found = outcome([drafts[name] for name in ("keyr", "TREE", "XREF", "SNAP")], suite, held)
        assert type(found) is (type(None) if right else BlockError)


PARTS = nodes.part_leaf([Part(0, 3, bytes(32), 0, 0, 1)], vault=True)
SUBS = nodes.part_inner([Part(0, 3, node_id(PARTS), 1, 0)], vault=True)
UNKNOWN = nodes.join_node(cbor.dumps({1: NodeType.PARTIAL + 1}), cbor.dumps({}))


def own(kind: EntryKind, one: bytes, piece: int, block: int = 1) -> bytes:
    """A directory whose one entry is at a place of the same archive."""
    if kind is FOLDER:
        return leaf_of(kind=FOLDER, child=one, block=block, piece=piece)
    return leaf_of(content_id=one, block=block, piece=piece)


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ([SUB, own(FOLDER, node_id(SUB), 0)], True),
        ([SUB, own(FOLDER, bytes(32), 0)], False),  # another id
        ([SUB, own(FOLDER, node_id(SUB), 1)], False),  # itself
        ([own(FOLDER, node_id(SUB), 1), SUB], False),  # forward
        ([SUB, own(FOLDER, node_id(SUB), 0, block=0)], False),  # a keyr block
        ([SUB, own(FOLDER, node_id(SUB), 2**40, block=0)], False),
        ([PARTS, own(FOLDER, node_id(PARTS), 0)], False),
        ([PARTS, own(FILE, bytes(32), 0)], True),
        ([SUB, own(FILE, bytes(32), 0)], False),
        ([PARTS, SUBS, own(FILE, bytes(32), 1)], True),
        ([SUB, SUBS], False),
        ([PARTS, SUBS, nodes.part_inner([Part(0, 3, node_id(SUBS), 1, 1)], vault=True)], False),
        ([UNKNOWN], True),
        ([leaf_of(kind=EntryKind.FIFO, xattr_ref=(bytes(32), 0, 0))], False),
    ],
)
def test_places_in_the_same_archive(found: list[bytes], right: bool) -> None:
    drafts = {**DRAFTS, "TREE": pieces(b"TREE", *found)}
    order = [drafts[name] for name in ("keyr", "TREE", "XREF", "SNAP")]
    assert outcome(order) is None  # the order of blocks does not tell
    assert type(outcome(order, complete=True)) is (type(None) if right else BlockError)
    assert type(outcome(order, Suite.XCHACHA20_POLY1305, complete=True)) is (type(None) if right else BlockError)


@pytest.mark.parametrize(
    ("root", "right"),
    [
        ((node_id(SUB), 0, 1, 0), True),
        ((node_id(SUB), 0, 1, 1), False),
        ((node_id(SUB), 0, 3, 0), False),
        ((bytes(32), 0, 1, 0), False),
        ((bytes(32), 2, 1, 0), True),
    ],
)
def test_the_root_of_the_snapshot(root: tuple[bytes, int, int, int], right: bool) -> None:
    drafts = {**DRAFTS, "SNAP": other(b"SNAP", records.encode(a_snapshot(root=root)))}
    order = [drafts[name] for name in ("keyr", "TREE", "XREF", "SNAP")]
    assert type(outcome(order, complete=True)) is (type(None) if right else BlockError)


def test_attributes_are_named_by_their_id() -> None:
    attributes = bytes(cbor.dumps([[b"user.a", b""]]))
    key = crypto.derive("content id", bytes(32))
    one = crypto.content_id(key, crypto.digest(attributes), len(attributes))
    for ident, right in ((one, True), (bytes(32), False)):
        node = leaf_of(kind=EntryKind.FIFO, xattr_ref=(ident, 1, 0))
        order = [DRAFTS["keyr"], DRAFTS["TREX"], pieces(b"TREE", node), DRAFTS["XREF"], DRAFTS["SNAP"]]
        assert type(outcome(order, complete=True)) is (type(None) if right else BlockError)


def test_data_archives_have_no_streams() -> None:
    forge = Forge(kind=Kind.DATA)
    forge.add(Draft(b"FHDR", records.StreamStart(stream=0)))
    assert type(read(forge.finish(), with_keys(None))[1]) is BlockError
