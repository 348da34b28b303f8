"""Nodes: what goes in comes out, and what is accepted has one encoding."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rozenfmt.errors import ArchiveError, BlockError, UnsupportedError, UsageError
from rozenfmt.format import cbor, decoder, nodes, records
from rozenfmt.format.builders import PartTableBuilder
from rozenfmt.format.nodes import Entry, InnerNode, Kind, Mark, Node, NodeType, Part

from .helpers import node_id, tree_node

ID = st.binary(min_size=32, max_size=32)
U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
MTIME = st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5) | st.just(1_700_000_000_123_456_789)
NAME = (
    (st.binary(min_size=1, max_size=12) | st.text(min_size=1, max_size=6).map(lambda t: t.encode("utf-8", "replace")))
    .map(lambda name: name.replace(b"/", b"-").replace(b"\0", b"+"))
    .filter(lambda name: name not in (b".", b".."))
) | st.sampled_from([b"...", b"\xff\xfe", b"\n", b"-rf", b" ", b"a" * 300, b"\x01"])
OWNER = st.sampled_from([(0, 0, b"root", b"root"), (1000, 100, b"me", b"users"), (2**32 - 1, 0, b"", b"")]) | st.tuples(
    U32, U32, st.binary(max_size=6), st.binary(max_size=6)
)


@st.composite
def entry(draw: st.DrawFn, *, partial: bool = False) -> Entry:
    """Any entry that a directory leaf (or a partial one) can hold."""
    kind = draw(st.sampled_from(Kind))
    found = Entry(draw(NAME), kind, draw(st.integers(0, 0o7777)), *draw(OWNER), draw(MTIME))
    found.marks = draw(st.sampled_from([0, 0, 0, 1, 2, 4, 7, 2**63]))
    if draw(st.integers(0, 3)) == 0:
        found.link_group = draw(st.binary(min_size=16, max_size=16))
    if kind is Kind.FILE:
        found.size = draw(st.just(0) | U64)
    if found.has_content:
        found.block, found.piece = draw(U64), draw(U64)
        found.content_id = None if partial else draw(ID)
    if kind is Kind.DIRECTORY and not partial:
        found.child, found.block, found.piece = draw(ID), draw(U64), draw(U64)
    if kind is Kind.SYMLINK:
        found.target = draw(st.binary(max_size=20))
    if kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
        found.device = (draw(U64), draw(U64))
    if not partial and draw(st.integers(0, 3)) == 0:
        found.xattr_ref = (draw(ID), draw(U64), draw(U64))
    return found


def directory(*, partial: bool = False) -> st.SearchStrategy[list[Entry]]:
    """Entries in order of name."""
    return st.lists(entry(partial=partial), max_size=6, unique_by=lambda e: e.name).map(
        lambda found: sorted(found, key=lambda e: e.name)
    )


def partial_node(path: bytes, entries: Sequence[Entry]) -> bytes:
    """A whole partial directory."""
    places = [(e.block, e.piece) for e in entries if e.has_content]
    return nodes.join_node(nodes.directory_record(entries, partial=True), nodes.directory_hints(path, places))


def split(node: bytes) -> tuple[bytes, bytes]:
    """Logical record and hints."""
    end = 4 + int.from_bytes(node[:4], "little")
    return node[4:end], node[end:]


@settings(max_examples=150)
@given(directory(), st.binary(max_size=30))
def test_directory_round_trip(entries: list[Entry], path: bytes) -> None:
    data = tree_node(path, entries)
    node = Node.decode(data)
    assert node.type == NodeType.DIRECTORY
    assert node.id == node_id(data)
    assert node.path == path
    assert node.entries() == entries
    assert decoder.check_node(node) is node


@settings(max_examples=60)
@given(directory(partial=True), st.binary(max_size=30))
def test_partial_round_trip(entries: list[Entry], path: bytes) -> None:
    node = Node.decode(partial_node(path, entries))
    assert node.type == NodeType.PARTIAL
    assert node.entries() == entries


def mutations(data: st.DataObject, values: dict[int, Any]) -> dict[int, Any]:
    """A logical record with one to three of its columns changed a little, or dropped, or added."""
    changed = dict(values)
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from([*changed, *range(1, 18)]))
        value = changed.get(key)
        if value is None or data.draw(st.integers(0, 9)) == 0:
            changed[key] = data.draw(
                st.sampled_from([0, 1, 3, b"", b"\0", b"\1\1", bytes(32), [], [[0, 1]], [[0, bytes(32)]]])
            )
        elif data.draw(st.integers(0, 9)) == 0:
            del changed[key]
        elif isinstance(value, bytes):
            start = data.draw(st.integers(0, len(value)))
            end = data.draw(st.integers(start, min(len(value), start + 2)))
            changed[key] = value[:start] + data.draw(st.binary(max_size=2)) + value[end:]
        elif isinstance(value, int):
            changed[key] = max(value + data.draw(st.integers(-2, 2)), 0)
        elif isinstance(value, list) and value:
            rows = [list(row) if isinstance(row, list) else row for row in value]
            at = data.draw(st.integers(0, len(rows) - 1))
            match data.draw(st.integers(0, 3)):
                case 0:
                    del rows[at]
                case 1:
                    rows.insert(at, rows[at])
                case 2:
                    rows.reverse()
                case _:
                    if isinstance(rows[at], list) and isinstance(rows[at][0], int):
                        rows[at][0] = data.draw(st.integers(0, 8))
            changed[key] = rows
    return changed


@settings(max_examples=500)
@given(st.data(), directory() | directory(partial=True), st.booleans())
def test_directories_are_canonical(data: st.DataObject, entries: list[Entry], partial: bool) -> None:
    """Whatever mutated record is still accepted, its entries are written back as the same bytes."""
    if partial:
        for one in entries:
            one.xattr_ref = None
    node = partial_node(b"p", entries) if partial else tree_node(b"p", entries)
    logical, hints = split(node)
    changed = cbor.dumps(mutations(data, cbor.loads(logical)))
    _check_canonical(changed, hints)


@settings(max_examples=300)
@given(st.data(), directory())
def test_directories_are_canonical_bytewise(data: st.DataObject, entries: list[Entry]) -> None:
    logical, hints = split(tree_node(b"p", entries))
    start = data.draw(st.integers(0, len(logical)))
    end = data.draw(st.integers(start, min(len(logical), start + 2)))
    _check_canonical(logical[:start] + data.draw(st.binary(max_size=2)) + logical[end:], hints)


def _check_canonical(logical: bytes, hints: bytes) -> None:
    try:
        node = Node.decode(nodes.join_node(logical, hints))
        if node.type not in (NodeType.DIRECTORY, NodeType.PARTIAL):
            return
        found = node.entries()
    except ArchiveError:
        return
    again = cbor.loads(nodes.directory_record(found, partial=node.type == NodeType.PARTIAL))
    assert cbor.dumps({**node.record.extra, **again}) == logical
    places = [(e.block, e.piece) for e in found if e.has_content]
    children = [(e.block, e.piece) for e in found if e.child is not None]
    xattrs = [e.xattr_ref[1:] for e in found if e.xattr_ref is not None]
    assert nodes.directory_hints(b"p", places, children, xattrs) == hints


ONE = Entry(b"a", Kind.FILE)
MANY = [Entry(name, Kind.FILE) for name in (b"a", b"b", b"c")]


def _with(values: dict[int, Any], entries: Sequence[Entry] = (ONE,), hints: bytes | None = None) -> bytes:
    logical, own = split(tree_node(b"", entries))
    found = {**cbor.loads(logical), **values}
    return nodes.join_node(
        cbor.dumps({key: value for key, value in found.items() if value is not None}), own if hints is None else hints
    )


BAD_NAMES = [b"", b".", b"..", b"/", b"a/b", b"/a", b"a/", b"a\0b", b"\0", b"a\0", b"x" * 65_536]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name[:5]))
def test_names_that_no_file_can_have(name: bytes) -> None:
    with pytest.raises(BlockError):
        Node.decode(_with({3: name})).entries()
    inner = {1: 2, 2: 1, 3: name, 4: b"\1", 5: bytes(32)}
    with pytest.raises(BlockError):
        Node.decode(nodes.join_node(cbor.dumps(inner), nodes.directory_hints(b"", [(0, 0)]))).children()


@pytest.mark.parametrize(
    "names",
    [
        b"b\0a\0c",
        b"a\0a\0b",
        b"a\0b\0b",
        b"\0a\0b",
        b"a\0\0b",
        b"a\0b",
        b"a\0b\0c\0d",
        b"",
        b"c\0b\0a",
        b"a\0b\0..",
        b"\0\0",
    ],
)
def test_names_out_of_order(names: bytes) -> None:
    with pytest.raises(BlockError):
        Node.decode(_with({3: names}, MANY)).entries()


def test_the_longest_name_passes() -> None:
    one = Entry(b"x" * 65_535, Kind.FIFO)
    assert Node.decode(tree_node(b"", [one])).entries() == [one]


FILE = Entry(b"f", Kind.FILE, size=5, content_id=bytes(32))
LINK = Entry(b"s", Kind.SYMLINK, target=b"t")
SUB = Entry(b"d", Kind.DIRECTORY, child=bytes(32))
DEVICE = Entry(b"n", Kind.BLOCK_DEVICE, device=(1, 2))
TWO_OWNERS = [Entry(b"a", Kind.FIFO, uid=1), Entry(b"b", Kind.FIFO, uid=2)]
OWNERS = [[1, 0, b"", b""], [2, 0, b"", b""]]


@pytest.mark.parametrize(
    ("entries", "values"),
    [
        ([ONE], {2: 0}),
        ([ONE], {2: 2}),
        ([ONE], {2: 65_536}),
        ([ONE], {4: b""}),
        ([ONE], {4: b"\0"}),
        ([ONE], {4: b"\x08"}),
        ([ONE], {4: b"\1\1"}),
        ([ONE], {5: b""}),
        ([ONE], {5: b"\x00\x10"}),  # mode 0o10000
        ([ONE], {5: b"\0\0\0\0"}),
        ([ONE], {6: b""}),
        ([ONE], {6: b"\0\0"}),
        ([ONE], {6: b"\x80\x00"}),
        ([ONE], {7: None}),
        ([ONE], {7: OWNERS}),
        ([ONE], {7: OWNERS, 8: b"\0"}),  # a row that nobody uses
        ([ONE], {8: b"\0"}),
        (TWO_OWNERS, {8: None}),
        (TWO_OWNERS, {8: b"\1\0"}),  # not in order of first use
        (TWO_OWNERS, {8: b"\0\2"}),
        (TWO_OWNERS, {8: b"\0"}),
        (TWO_OWNERS, {7: [OWNERS[0], OWNERS[0]]}),  # a row twice
        ([], {7: [[0, 0, b"", b""]]}),
        ([], {3: b"a"}),
        ([ONE], {9: None}),
        ([ONE], {9: b"\0\0"}),
        ([LINK], {9: b""}),
        ([ONE], {10: bytes(32)}),
        ([ONE], {10: b""}),
        ([FILE], {10: None}),
        ([FILE], {10: bytes(64)}),
        ([FILE], {9: b"\0"}),  # no content, but an id
        ([FILE], {16: [[0, 2]]}),  # unreadable, but an id
        ([SUB], {11: None}),
        ([SUB], {11: bytes(64)}),
        ([ONE], {11: b""}),
        ([LINK], {12: None}),
        ([LINK], {12: [b"a", b"b"]}),
        ([ONE], {12: [b"a"]}),
        ([DEVICE], {13: None}),
        ([DEVICE], {13: [[1, 2], [3, 4]]}),
        ([ONE], {13: [[1, 2]]}),
        ([ONE], {14: [[1, bytes(16)]]}),
        ([ONE], {14: [[2**63, bytes(16)]]}),
        ([ONE], {15: [[0, bytes(32)]]}),  # without hints
        ([ONE], {16: [[1, 1]]}),
        ([FILE], {1: 5}),  # a partial directory with ids
        ([SUB], {1: 5}),
    ],
)
def test_columns_that_contradict_each_other(entries: list[Entry], values: dict[int, Any]) -> None:
    assert Node.decode(_with({}, entries)).entries() == entries
    with pytest.raises(BlockError):
        Node.decode(_with(values, entries)).entries()


@pytest.mark.parametrize(
    ("entries", "hints"),
    [
        ([ONE], {}),  # no path
        ([FILE], {7: b""}),
        ([FILE], {1: b"\0", 7: b""}),
        ([FILE], {2: b"\0", 7: b""}),
        ([FILE], {1: b"\0\0", 2: b"\0\0", 7: b""}),
        ([ONE], {1: b"", 2: b"", 7: b""}),
        ([SUB], {1: b"\0", 2: b"\0", 7: b""}),
        ([ONE], {3: b"\0", 4: b"\0", 7: b""}),
        ([ONE], {5: b"\0", 6: b"\0", 7: b""}),
        ([ONE], {5: b"", 6: b"", 7: b""}),
    ],
)
def test_hints_that_do_not_match(entries: list[Entry], hints: dict[int, bytes]) -> None:
    with pytest.raises(BlockError):
        Node.decode(_with({}, entries, cbor.dumps(hints))).entries()


def test_a_name_column_of_zeros_takes_no_memory() -> None:
    import tracemalloc

    data = _with({3: bytes(4_000_000)})
    tracemalloc.start()
    try:
        with pytest.raises(BlockError):
            Node.decode(data).entries()
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\2\0\0\0\xa0",
        b"\1\0\0\0\xa0\xa0",  # no type
        b"\1\0\0\0\x80\xa0",
        b"\3\0\0\0\xa1\1\x60\xa0",  # type as text
        b"\3\0\0\0\xa1\1\1",  # no hints
        b"\3\0\0\0\xa1\1\1\xa0",  # nothing but a type
        b"\3\0\0\0\xa1\1\x18\xa0",
        tree_node(b"", [ONE]) + b"\0",
    ],
)
def test_malformed_nodes(data: bytes) -> None:
    with pytest.raises(BlockError):
        Node.decode(data)


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_arbitrary_bytes(data: bytes) -> None:
    with contextlib.suppress(ArchiveError):
        decoder.check_node(Node.decode(data))


def test_unknown_node_types_pass_unless_something_refers_to_them() -> None:
    node = Node.decode(nodes.join_node(cbor.dumps({1: 99, 2: b"new"}), cbor.dumps({8: 1})))
    assert decoder.check_node(node).record is None
    assert decoder.check_node(node, vault=True).hints.extra == {8: 1}
    with pytest.raises(UnsupportedError):
        node.parts()
    with pytest.raises(ArchiveError):
        node.entries()
    with pytest.raises(BlockError):
        Node.decode(tree_node(b"", [])).parts()
    with pytest.raises(BlockError):
        Node.decode(nodes.join_node(cbor.dumps({1: 99}), cbor.dumps([8])))


def test_unknown_keys_are_kept() -> None:
    logical, hints = split(tree_node(b"", [ONE]))
    more = cbor.dumps({**cbor.loads(logical), 1_000: [b"x"]})
    hinted = cbor.dumps({**cbor.loads(hints), 1_000: {1: 2}})
    node = Node.decode(nodes.join_node(more, hinted))
    assert node.entries() == [ONE]
    assert records.encode(node.record) == more
    assert records.encode(node.hints) == hinted


# --- Inner nodes --------------------------------------------------------------------------------

CHILDREN = st.lists(
    st.builds(InnerNode, NAME, st.integers(1, 2**64 - 1), ID, U64, U64),
    min_size=1,
    max_size=6,
    unique_by=lambda c: c.first_name,
).map(lambda found: sorted(found, key=lambda c: c.first_name))


def inner(children: Sequence[InnerNode]) -> bytes:
    """A whole inner node."""
    hints = nodes.directory_hints(b"p", [(c.block, c.piece) for c in children])
    return nodes.join_node(nodes.inner_record(children), hints)


@settings(max_examples=60)
@given(CHILDREN)
def test_inner_round_trip(children: list[InnerNode]) -> None:
    node = Node.decode(inner(children))
    assert node.children() == children
    assert node.path == b"p"
    with pytest.raises(BlockError):
        node.entries()
    with pytest.raises(BlockError):
        node.parts()


@settings(max_examples=200)
@given(st.data(), CHILDREN)
def test_inner_nodes_are_canonical(data: st.DataObject, children: list[InnerNode]) -> None:
    logical, hints = split(inner(children))
    changed = cbor.dumps(mutations(data, cbor.loads(logical)))
    _round(changed, hints, lambda node: (node.children(), nodes.inner_record(node.children())))


def _round(logical: bytes, hints: bytes, again: Callable[[Node], tuple[Any, bytes]]) -> None:
    try:
        node = Node.decode(nodes.join_node(logical, hints))
        _, record = again(node)
    except ArchiveError:
        return
    assert cbor.dumps({**node.record.extra, **cbor.loads(record)}) == logical


@pytest.mark.parametrize(
    "values",
    [{2: 1}, {2: 3}, {3: b"b\0a"}, {3: b"a\0a"}, {3: b"a"}, {4: b"\1"}, {4: b"\1\0"}, {4: b"\1\1\1"}, {5: bytes(32)}],
)
def test_inner_nodes_that_contradict_themselves(values: dict[int, Any]) -> None:
    children = [InnerNode(b"a", 1, bytes(32), 0, 0), InnerNode(b"b", 1, bytes(32), 0, 0)]
    logical, hints = split(inner(children))
    with pytest.raises(BlockError):
        Node.decode(nodes.join_node(cbor.dumps({**cbor.loads(logical), **values}), hints)).children()


# --- Part tables --------------------------------------------------------------------------------


@st.composite
def part_list(draw: st.DrawFn, *, holes: bool = True) -> list[Part]:
    """Parts that follow each other."""
    found: list[Part] = []
    offset = 0
    for _ in range(draw(st.integers(1, 8))):
        length = draw(st.integers(1, 2**40) | st.integers(1, 200))
        if holes and draw(st.booleans()) and (not found or found[-1].id is not None):
            found.append(Part(offset, length, None, 0, 0))
        else:
            found.append(Part(offset, length, draw(ID), draw(U64), draw(U64)))
        offset += length
    return found


@settings(max_examples=80)
@given(part_list(), st.integers(0, 2**40))
def test_part_leaf_round_trip(parts: list[Part], offset: int) -> None:
    data = nodes.part_leaf(parts)
    node = Node.decode(data)
    assert node.type == NodeType.PARTS
    assert node.parts() == parts
    moved = [Part(p.offset + offset, p.length, p.id, p.block, p.piece) for p in parts]
    assert node.parts(offset) == moved
    assert node.record.length == sum(part.length for part in parts)


@settings(max_examples=60)
@given(part_list(holes=False))
def test_part_inner_round_trip(parts: list[Part]) -> None:
    node = Node.decode(nodes.part_inner(parts))
    assert node.type == NodeType.PARTS_INNER
    assert node.parts() == parts


@settings(max_examples=300)
@given(st.data(), part_list(), st.booleans())
def test_part_tables_are_canonical(data: st.DataObject, parts: list[Part], is_inner: bool) -> None:
    stored = [part for part in parts if part.id is not None]
    if is_inner and not stored:
        return
    logical, hints = split(nodes.part_inner(stored) if is_inner else nodes.part_leaf(parts))
    changed = cbor.dumps(mutations(data, cbor.loads(logical)))

    def again(node: Node) -> tuple[Any, bytes]:
        found = node.parts()
        return found, split(nodes.part_inner(found) if node.type == NodeType.PARTS_INNER else nodes.part_leaf(found))[0]

    _round(changed, hints, again)


THREE = [Part(0, 1, bytes(32), 0, 0), Part(1, 2, None, 0, 0), Part(3, 3, bytes(32), 1, 0)]


@pytest.mark.parametrize(
    "values",
    [
        {2: 5},
        {2: 7},
        {3: b"\1\2"},
        {3: b"\1\2\0"},
        {3: b""},
        {3: b"\1\2\x83\0"},
        {4: None},
        {4: bytes(32)},
        {4: bytes(96)},
        {5: None},
        {5: b""},
        {5: b"\3"},
        {5: b"\1\0"},
        {5: b"\1\1\1"},
        {5: b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
        {4: b"", 5: b"\0\1\1"},
    ],
)
def test_part_tables_that_contradict_themselves(values: dict[int, Any]) -> None:
    logical, hints = split(nodes.part_leaf(THREE))
    assert Node.decode(nodes.join_node(logical, hints)).parts() == THREE
    found = {key: value for key, value in {**cbor.loads(logical), **values}.items() if value is not None}
    with pytest.raises(BlockError):
        Node.decode(nodes.join_node(cbor.dumps(found), hints)).parts()


def test_inner_part_tables_have_no_holes() -> None:
    logical, hints = split(nodes.part_inner(THREE[:1]))
    for holes in (b"", b"\0"):
        with pytest.raises(BlockError):
            Node.decode(nodes.join_node(cbor.dumps({**cbor.loads(logical), 5: holes}), hints)).parts()


def test_a_table_of_holes_only_has_no_ids() -> None:
    parts = [Part(0, 2**40, None, 0, 0)]
    node = Node.decode(nodes.part_leaf(parts))
    assert node.parts() == parts
    assert node.record.ids is None
    assert node.hints.blocks is None


def build_table(parts: Sequence[tuple[int, bytes | None]]) -> tuple[bytes, list[bytes]]:
    """A table as a writer makes it; sub-tables are stored at block 1,000 and up."""
    builder = PartTableBuilder()
    tables: list[bytes] = []
    for number, (length, part_id) in enumerate(parts):
        node = builder.add(length, part_id, number, 0)
        if node is not None:
            builder.sub_table(node, 1_000_000 + len(tables), 0)
            tables.append(node)
    rest = builder.rest()
    if rest is not None:
        builder.sub_table(rest, 1_000_000 + len(tables), 0)
        tables.append(rest)
    return builder.finish(), tables


def some_parts(count: int, seed: bytes = b"") -> list[tuple[int, bytes | None]]:
    """Deterministic parts; every 97th is a hole."""
    stream = hashlib.shake_128(seed).digest(32 * count)
    return [(1 + n % 7, None if n % 97 == 96 else stream[32 * n : 32 * n + 32]) for n in range(count)]


def expand(table: bytes, tables: Sequence[bytes]) -> list[tuple[int, bytes | None]]:
    """All parts of a table, as a reader finds them."""
    top = Node.decode(table)
    if top.type == NodeType.PARTS:
        return [(part.length, part.id) for part in top.parts()]
    by_id = {node_id(node): node for node in tables}
    found: list[tuple[int, bytes | None]] = []
    for sub in top.parts():
        assert sub.id is not None
        node = Node.decode(by_id[sub.id])
        assert node.type == NodeType.PARTS
        parts = node.parts(sub.offset)
        assert parts[0].offset == sub.offset
        assert sum(part.length for part in parts) == sub.length
        found += [(part.length, part.id) for part in parts]
    return found


@pytest.mark.parametrize("count", [1, 511, 512, 513, 5_000, 20_000])
def test_part_tables_of_any_size(count: int) -> None:
    parts = some_parts(count)
    table, tables = build_table(parts)
    assert expand(table, tables) == parts
    assert Node.decode(table).record.length == sum(length for length, _ in parts)
    for node in tables[:-1]:
        assert 512 <= len(Node.decode(node).parts()) <= 8_192
    if count > 8_192:
        assert len(tables) > 1


def test_without_a_cut_by_content_tables_end_at_8192_parts() -> None:
    parts: list[tuple[int, bytes | None]] = [(1, b"\xff" * 32)] * 20_000
    table, tables = build_table(parts)
    assert [len(Node.decode(node).parts()) for node in tables] == [8_192, 8_192, 3_616]
    assert expand(table, tables) == parts


def test_neighbouring_holes_are_one() -> None:
    table, tables = build_table([(1, None)] * 20_000)
    assert expand(table, tables) == [(20_000, None)]
    table, tables = build_table([(1, None), (2, None), (3, bytes(32)), (4, None), (5, None)])
    assert expand(table, tables) == [(3, None), (3, bytes(32)), (9, None)]
    logical, hints = split(nodes.part_leaf([Part(0, 1, None, 0, 0), Part(1, 1, None, 0, 0)]))
    with pytest.raises(BlockError):
        Node.decode(nodes.join_node(logical, hints)).parts()


def test_cuts_do_not_depend_on_what_precedes() -> None:
    """Two contents that share a long run share the sub-tables inside it."""
    shared = some_parts(30_000, b"shared")
    one = build_table(some_parts(700, b"one") + shared)[1]
    two = build_table(some_parts(1_950, b"two") + shared)[1]

    def ids(node: bytes) -> tuple[Any, ...]:
        return tuple(part.id for part in Node.decode(node).parts())

    common = {ids(node) for node in one} & {ids(node) for node in two}
    assert len(common) >= len(one) // 2


def test_sub_tables_may_be_stored_late() -> None:
    builder = PartTableBuilder()
    waiting: list[bytes] = []
    parts = some_parts(30_000)
    for number, (length, part_id) in enumerate(parts):
        node = builder.add(length, part_id, number, 0)
        if node is not None:
            waiting.append(node)
    rest = builder.rest()
    if rest is not None:
        waiting.append(rest)
    with pytest.raises(UsageError):
        builder.finish()
    for number, node in enumerate(waiting):
        builder.sub_table(node, number, 0)
    assert expand(builder.finish(), waiting) == parts


def test_marks_are_bits() -> None:
    assert [int(mark) for mark in Mark] == [1, 2, 4, 8, 16]


# --- Extended attributes ------------------------------------------------------------------------


@given(st.dictionaries(st.binary(max_size=8), st.binary(max_size=8), min_size=1, max_size=5))
def test_attributes(found: dict[bytes, bytes]) -> None:
    rows = sorted(found.items())
    assert decoder.decode_attributes(cbor.dumps([list(row) for row in rows])) == tuple(rows)
    if len(rows) > 1:
        for wrong in (rows[::-1], [*rows, rows[-1]]):
            with pytest.raises(BlockError):
                decoder.decode_attributes(cbor.dumps([list(row) for row in wrong]))


@pytest.mark.parametrize(
    "value", [0, b"", {}, [], [[]], [[b"a"]], [[b"a", b"b", b"c"]], [[b"a", "b"]], [["a", b"b"]], [b"a"]]
)
def test_malformed_attributes(value: Any) -> None:
    with pytest.raises(BlockError):
        decoder.decode_attributes(cbor.dumps(value))
