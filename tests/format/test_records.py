"""Every record: round trip, canonical, unknown keys kept, each key's presence and form enforced."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rozenfmt.errors import ArchiveError, BlockError, HeaderError, IndexDamaged, LimitError
from rozenfmt.format import cbor, nodes, records, snapshots
from rozenfmt.format.limits import MAX_DECODED, MAX_LEAF_ENTRIES, MAX_NODE_ENTRIES, MAX_SNAP_ROWS, MAX_STANZAS

UINT = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
BYTES = st.binary(max_size=40)


def exactly(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def multiple(of: int) -> st.SearchStrategy[bytes]:
    return st.integers(0, 3).flatmap(lambda n: exactly(n * of))


def rows(*columns: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(*columns), min_size=least, max_size=4).map(tuple)


def numbered(second: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(UINT, second, min_size=1, max_size=4).map(lambda found: tuple(sorted(found.items())))


# What each key of each record may hold, in addition to what its class declares.
BLOCK: dict[str, st.SearchStrategy[Any]] = {
    "codec": UINT,
    "size": st.integers(1, MAX_DECODED),
    "encoded": st.integers(1, MAX_DECODED),
    "content_hash": exactly(32),
}
FIELDS: dict[type, dict[str, st.SearchStrategy[Any]]] = {
    records.HeaderRecord: {
        "archive_id": exactly(16),
        "kind": st.integers(1, 4),
        "suite": UINT,
        "features": st.sets(UINT, max_size=4).map(lambda found: tuple(sorted(found))),
        "padding": st.tuples(*(st.integers(1, 65_536),) * 3),
        "creator": st.text(max_size=16),
        "commit_secret": exactly(32),
        "commit_index": exactly(32),
        "stanzas": rows(UINT, UINT, BYTES, least=1),
        "signer": exactly(32),
        "id_key": UINT,
        "volume_set": exactly(16),
        "volume": UINT,
    },
    records.BlockRecord: BLOCK,
    records.PiecesRecord: {**BLOCK, "lengths": BYTES},
    records.StreamStart: {
        **BLOCK,
        "stream": UINT,
        "name": BYTES,
        "hint_size": UINT,
        "media_type": st.text(max_size=60),
    },
    records.StreamContent: {**BLOCK, "lengths": BYTES, "stream": UINT, "number": UINT, "offset": UINT},
    records.StreamEnd: {
        **BLOCK,
        "stream": UINT,
        "length": st.integers(1, 2**64 - 1),
        "blocks": UINT,
        "content_id": exactly(32),
    },
    records.CheckpointRecord: {**BLOCK, "first": UINT, "count": UINT, "previous": UINT},
    records.CheckpointBody: {"types": multiple(4), "lengths": BYTES},
    records.IndexRecord: {
        **BLOCK,
        "kind": st.integers(1, 4),
        "count": st.integers(1, MAX_LEAF_ENTRIES),
        "first": UINT,
        "offset": UINT,
    },
    records.RootBody: {
        "first": UINT,
        "offset": UINT,
        "kinds": BYTES,
        "lengths": BYTES,
        "hashes": multiple(32),
        "first_keys": BYTES,
        "counts": BYTES,
        "root": st.tuples(exactly(32), UINT, UINT),
        "totals": st.tuples(UINT, UINT),
    },
    records.FootRecord: {
        "offset": UINT,
        "blocks": UINT,
        "root": st.tuples(UINT, UINT, UINT, exactly(32)),
        "chain": exactly(32),
        "header": BYTES,
    },
    records.DirectoryBody: {"members": rows(exactly(16), UINT, UINT)},
    nodes.DirectoryRecord: {
        "type": UINT,
        "count": st.integers(0, MAX_NODE_ENTRIES),
        "names": BYTES,
        "kinds": BYTES,
        "modes": multiple(2),
        "mtimes": BYTES,
        "owners": rows(U32, U32, BYTES, BYTES, least=1),
        "owner_numbers": BYTES,
        "sizes": BYTES,
        "content_ids": multiple(32),
        "children": multiple(32),
        "targets": st.lists(BYTES, min_size=1, max_size=4).map(tuple),
        "devices": rows(UINT, UINT, least=1),
        "links": numbered(exactly(16)),
        "xattrs": numbered(exactly(32)),
        "marks": numbered(st.integers(1, 2**64 - 1)),
    },
    nodes.InnerRecord: {
        "type": UINT,
        "count": st.integers(1, MAX_NODE_ENTRIES),
        "first_names": BYTES,
        "entries": BYTES,
        "children": multiple(32),
    },
    nodes.PartsRecord: {
        "type": UINT,
        "length": st.integers(1, 2**64 - 1),
        "lengths": BYTES,
        "ids": multiple(32),
        "holes": BYTES,
    },
    nodes.HintsRecord: dict.fromkeys(
        (
            *("blocks", "pieces", "child_blocks", "child_pieces", "xattr_blocks", "xattr_pieces", "path"),
            *("archives", "child_archives", "xattr_archives"),
        ),
        BYTES,
    ),
    snapshots.SnapshotBody: {
        "vault_id": exactly(16),
        "host_id": exactly(16),
        "label": st.text(max_size=60),
        "set_name": st.text(min_size=1, max_size=60),
        "sequence": st.integers(1, 2**64 - 1),
        "parent": st.tuples(exactly(16), exactly(32)),
        "heads": multiple(16),
        "mode": st.integers(1, 2),
        "times": st.tuples(UINT, UINT),
        "root": st.tuples(exactly(32), UINT, UINT, UINT),
        "totals": st.tuples(UINT, UINT),
        "sources": rows(BYTES, BYTES, st.integers(1, 3)),
        "tags": st.lists(st.text(max_size=9), max_size=3).map(tuple),
        "counts": st.tuples(*(UINT,) * 9),
        "moves": rows(BYTES, BYTES, st.integers(1, 7), least=1),
        "deleted": st.lists(BYTES, min_size=1, max_size=4).map(tuple),
        "problems": rows(BYTES, st.text(max_size=16), st.text(max_size=60), least=1),
        "conflicts": rows(BYTES, st.integers(1, 5), least=1),
        "parent_state": st.integers(1, 3),
        "flags": UINT,
    },
    snapshots.CrossReferences: {"ids": multiple(16), "kinds": BYTES, "lengths": BYTES, "live": BYTES},
    snapshots.KeyringBody: {"editions": st.lists(BYTES, min_size=1, max_size=4).map(tuple)},
}
CLASSES = list(FIELDS)
by_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
# A key far above all that are declared, holding anything; and one that a later version might take.
EXTRA = st.dictionaries(
    st.integers(100, 2**64 - 1), st.recursive(UINT | BYTES | st.text(max_size=5), st.lists, max_leaves=4), max_size=3
)


def wire_fields(cls: type) -> list[Field[Any]]:
    return [field for field in fields(cls) if "key" in field.metadata]


def a_record(cls: type) -> st.SearchStrategy[Any]:
    """Any record of a class, each optional key there or not."""
    values: dict[str, st.SearchStrategy[Any]] = {}
    for field in wire_fields(cls):
        strategy = FIELDS[cls][field.name]
        values[field.name] = strategy if field.default is MISSING else st.none() | strategy
    return st.builds(cls, **values, extra=EXTRA)


def full(cls: type) -> dict[int, Any]:
    """A map with every key of a class, all valid."""
    found: dict[int, Any] = {}
    for field in wire_fields(cls):
        found[field.metadata["key"]] = _first(FIELDS[cls][field.name])
    return found


def _first(strategy: st.SearchStrategy[Any]) -> Any:
    from hypothesis import HealthCheck, Phase, find

    quiet = settings(phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck), derandomize=True)
    return find(strategy, lambda _: True, settings=quiet)


def test_every_record_is_listed() -> None:
    declared = set()
    for module in (records, nodes, snapshots):
        for thing in vars(module).values():
            if isinstance(thing, type) and hasattr(thing, "__dataclass_fields__") and wire_fields(thing):
                declared.add(thing)
    assert declared == set(CLASSES)
    for cls in CLASSES:
        assert {field.name for field in wire_fields(cls)} == set(FIELDS[cls])


@by_class
def test_wire_order(cls: type) -> None:
    keys = [field.metadata["key"] for field in wire_fields(cls)]
    assert keys == sorted(set(keys))


@by_class
@settings(max_examples=30)
@given(data=st.data())
def test_round_trip(cls: type, data: st.DataObject) -> None:
    record = data.draw(a_record(cls))
    encoded = records.encode(record)
    decoded: Any = records.decode(cls, encoded)
    assert decoded == record
    assert records.encode(decoded) == encoded


@by_class
@settings(max_examples=60)
@given(data=st.data())
def test_what_is_accepted_is_written_back_as_it_was(cls: type, data: st.DataObject) -> None:
    good = records.encode(data.draw(a_record(cls)))
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 3)))
    changed = good[:start] + data.draw(st.binary(max_size=3)) + good[end:]
    try:
        decoded: Any = records.decode(cls, changed)
    except (BlockError, LimitError):
        return
    assert records.encode(decoded) == changed


@by_class
def test_missing_keys(cls: type) -> None:
    values = full(cls)
    records.decode(cls, cbor.dumps(values))
    for field in wire_fields(cls):
        less = {key: value for key, value in values.items() if key != field.metadata["key"]}
        if field.default is MISSING:
            for error in (BlockError, HeaderError, IndexDamaged):
                with pytest.raises(error):
                    records.decode(cls, cbor.dumps(less), error)
        else:
            assert getattr(records.decode(cls, cbor.dumps(less)), field.name) is None


WRONG: list[Any] = [
    0,
    1,
    -1,
    2**64 - 1,
    b"",
    b"x" * 5,
    "",
    "text",
    [],
    [0],
    [[]],
    [[0, 0]],
    {},
    {0: 0},
    [b"x"],
    [[b""]],
]


@by_class
def test_wrong_types(cls: type) -> None:
    """A value of another major type than the valid one is refused, whatever it is."""
    values = full(cls)
    for field in wire_fields(cls):
        key = field.metadata["key"]
        kind = type(values[key]) if type(values[key]) is not tuple else list
        for wrong in WRONG:
            if type(wrong) is not kind or wrong == -1:
                with pytest.raises(BlockError):
                    records.decode(cls, cbor.dumps({**values, key: wrong}))
    for top in (0, b"", "", [], [1]):
        with pytest.raises(BlockError):
            records.decode(cls, cbor.dumps(top))


@dataclass
class Case:
    """One value out of the form or the limit of its key."""

    cls: type
    name: str
    value: Any
    error: type[ArchiveError] = BlockError


R, N, S = records, nodes, snapshots
CASES = [
    Case(R.HeaderRecord, "archive_id", bytes(15)),
    Case(R.HeaderRecord, "archive_id", bytes(17)),
    Case(R.HeaderRecord, "kind", 0),
    Case(R.HeaderRecord, "kind", 5),
    Case(R.HeaderRecord, "features", [1, 1]),
    Case(R.HeaderRecord, "features", [2, 1]),
    Case(R.HeaderRecord, "features", [-1]),
    Case(R.HeaderRecord, "padding", [1, 1]),
    Case(R.HeaderRecord, "padding", [1, 1, 0]),
    Case(R.HeaderRecord, "padding", [1, 65_537, 1]),
    Case(R.HeaderRecord, "padding", [1, 1, 1, 1]),
    Case(R.HeaderRecord, "creator", "x" * 65, LimitError),
    Case(R.HeaderRecord, "creator", "é" * 33, LimitError),
    Case(R.HeaderRecord, "commit_secret", bytes(31)),
    Case(R.HeaderRecord, "commit_index", bytes(33)),
    Case(R.HeaderRecord, "signer", bytes(31)),
    Case(R.HeaderRecord, "stanzas", []),
    Case(R.HeaderRecord, "stanzas", [[1, 1]]),
    Case(R.HeaderRecord, "stanzas", [[1, 1, b"", 1]]),
    Case(R.HeaderRecord, "stanzas", [[1, 1, "x"]]),
    Case(R.HeaderRecord, "stanzas", [[9, 1, b""]] * (MAX_STANZAS + 1), LimitError),
    Case(R.BlockRecord, "size", 0),
    Case(R.BlockRecord, "size", MAX_DECODED + 1, LimitError),
    Case(R.BlockRecord, "encoded", 0),
    Case(R.BlockRecord, "content_hash", bytes(31)),
    Case(R.StreamStart, "name", bytes(65_536), LimitError),
    Case(R.StreamStart, "media_type", "x" * 256, LimitError),
    Case(R.StreamEnd, "length", 0),
    Case(R.StreamEnd, "content_id", bytes(31)),
    Case(R.CheckpointBody, "types", b"PACKx"),
    Case(R.IndexRecord, "kind", 0),
    Case(R.IndexRecord, "kind", 5),
    Case(R.IndexRecord, "count", 0),
    Case(R.IndexRecord, "count", MAX_LEAF_ENTRIES + 1, LimitError),
    Case(R.RootBody, "hashes", bytes(33)),
    Case(R.RootBody, "root", [bytes(31), 0, 0]),
    Case(R.RootBody, "totals", [0]),
    Case(R.FootRecord, "root", [0, 0, 0, bytes(31)]),
    Case(R.FootRecord, "chain", bytes(31)),
    Case(R.DirectoryBody, "members", [[bytes(16), 0]]),
    Case(N.DirectoryRecord, "modes", b"\0"),
    Case(N.DirectoryRecord, "owners", []),
    Case(N.DirectoryRecord, "owners", [[2**32, 0, b"", b""]]),
    Case(N.DirectoryRecord, "owners", [[0, -1, b"", b""]]),
    Case(N.DirectoryRecord, "owners", [[0, 0, "", b""]]),
    Case(N.DirectoryRecord, "content_ids", bytes(31)),
    Case(N.DirectoryRecord, "targets", []),
    Case(N.DirectoryRecord, "targets", [""]),
    Case(N.DirectoryRecord, "devices", [[1]]),
    Case(N.DirectoryRecord, "devices", []),
    Case(N.DirectoryRecord, "links", []),
    Case(N.DirectoryRecord, "links", [[0, bytes(15)]]),
    Case(N.DirectoryRecord, "links", [[1, bytes(16)], [0, bytes(16)]]),
    Case(N.DirectoryRecord, "links", [[1, bytes(16)], [1, bytes(16)]]),
    Case(N.DirectoryRecord, "xattrs", [[0, bytes(16)]]),
    Case(N.DirectoryRecord, "marks", [[0, 0]]),
    Case(N.InnerRecord, "count", 0),
    Case(N.PartsRecord, "length", 0),
    Case(N.PartsRecord, "ids", bytes(31)),
    Case(S.SnapshotBody, "vault_id", bytes(15)),
    Case(S.SnapshotBody, "host_id", bytes(17)),
    Case(S.SnapshotBody, "label", "x" * 256, LimitError),
    Case(S.SnapshotBody, "label", "é" * 128, LimitError),
    Case(S.SnapshotBody, "set_name", "x" * 4_097, LimitError),
    Case(S.SnapshotBody, "sequence", 0),
    Case(S.SnapshotBody, "parent", [bytes(16)]),
    Case(S.SnapshotBody, "parent", [bytes(15), bytes(32)]),
    Case(S.SnapshotBody, "parent", [bytes(16), bytes(31)]),
    Case(S.SnapshotBody, "heads", bytes(17)),
    Case(S.SnapshotBody, "mode", 0),
    Case(S.SnapshotBody, "mode", 3),
    Case(S.SnapshotBody, "times", [1]),
    Case(S.SnapshotBody, "times", [-1, 1]),
    Case(S.SnapshotBody, "root", [bytes(32), 0, 0]),
    Case(S.SnapshotBody, "root", [bytes(31), 0, 0, 0]),
    Case(S.SnapshotBody, "totals", [0, 0, 0]),
    Case(S.SnapshotBody, "sources", [[b"", b""]]),
    Case(S.SnapshotBody, "sources", [[b"", b"", 0]]),
    Case(S.SnapshotBody, "sources", [[b"", b"", 4]]),
    Case(S.SnapshotBody, "sources", [[bytes(65_536), b"", 1]], LimitError),
    Case(S.SnapshotBody, "tags", [b"x"]),
    Case(S.SnapshotBody, "tags", ["x" * 4_097], LimitError),
    Case(S.SnapshotBody, "counts", [0] * 8),
    Case(S.SnapshotBody, "counts", [0] * 10),
    Case(S.SnapshotBody, "counts", [0] * 8 + [-1]),
    Case(S.SnapshotBody, "moves", []),
    Case(S.SnapshotBody, "moves", [[b"a", b"b", 0]]),
    Case(S.SnapshotBody, "moves", [[b"a", b"b", 8]]),
    Case(S.SnapshotBody, "moves", [[b"a", b"b", 1]] * (MAX_SNAP_ROWS + 1), LimitError),
    Case(S.SnapshotBody, "deleted", []),
    Case(S.SnapshotBody, "deleted", ["x"]),
    Case(S.SnapshotBody, "deleted", [b""] * (MAX_SNAP_ROWS + 1), LimitError),
    Case(S.SnapshotBody, "problems", []),
    Case(S.SnapshotBody, "problems", [[b"", "x" * 65, ""]], LimitError),
    Case(S.SnapshotBody, "problems", [[b"", "", "x" * 4_097]], LimitError),
    Case(S.SnapshotBody, "problems", [[b"", "", ""]] * (MAX_SNAP_ROWS + 1), LimitError),
    Case(S.SnapshotBody, "conflicts", []),
    Case(S.SnapshotBody, "conflicts", [[b"", 0]]),
    Case(S.SnapshotBody, "conflicts", [[b"", 6]]),
    Case(S.SnapshotBody, "conflicts", [[b"", 1]] * (MAX_SNAP_ROWS + 1), LimitError),
    Case(S.SnapshotBody, "parent_state", 0),
    Case(S.SnapshotBody, "parent_state", 4),
    Case(S.SnapshotBody, "flags", -1),
    Case(S.CrossReferences, "ids", bytes(15)),
    Case(S.KeyringBody, "editions", []),
    Case(S.KeyringBody, "editions", ["x"]),
    Case(S.KeyringBody, "editions", [b""] * 65, LimitError),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.cls.__name__}.{case.name}")
def test_values_out_of_form(case: Case) -> None:
    values = full(case.cls)
    (key,) = (field.metadata["key"] for field in wire_fields(case.cls) if field.name == case.name)
    with pytest.raises(case.error) as caught:
        records.decode(case.cls, cbor.dumps({**values, key: case.value}))
    assert type(caught.value) is case.error


def test_keys_of_the_block_record_come_and_go_together() -> None:
    whole = {"codec": 0, "size": 1, "encoded": 1, "content_hash": bytes(32)}
    records.BlockRecord(**whole).check_body(present=True)  # type: ignore[arg-type]
    records.BlockRecord().check_body(present=False)
    with pytest.raises(BlockError):
        records.BlockRecord().check_body(present=True)
    for name, value in whole.items():
        with pytest.raises(BlockError):
            records.BlockRecord(**{**whole, name: None}).check_body(present=True)  # type: ignore[arg-type]
        with pytest.raises(BlockError):
            records.BlockRecord(**{name: value}).check_body(present=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_keys_of_index_records_go_with_the_kind(kind: int) -> None:
    for count in (None, 1):
        for first in (None, 0):
            for offset in (None, 0):
                record = records.IndexRecord(kind=kind, count=count, first=first, offset=offset)
                fits = (count is not None) == (kind != 4) and {first is not None, offset is not None} == {kind == 3}
                if fits:
                    record.check()
                else:
                    with pytest.raises(IndexDamaged):
                        record.check()
