"""The index: everything that was listed is found again, in order, however many leaves and runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rozenfmt.errors import UsageError
from rozenfmt.format import cbor, crypto, frame, index
from rozenfmt.format.blocks import Block, Opener, SealedBlock, Slot
from rozenfmt.format.index import IndexBuilder, LookupLeaf, MemoryRuns, Root, TableLeaf
from rozenfmt.format.registry import IndexKind, Kind, Suite
from rozenfmt.format.state import IndexState

from .helpers import make_encoder, make_header, make_keys, read, with_keys

TINY = {IndexKind.CONTENT: 16, IndexKind.PATH: 8, IndexKind.TABLE: 32}
ARCHIVE = bytes(16)


@pytest.fixture(autouse=True)
def _tiny_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_RUN_ENTRIES", 50)


def open_sealed(block: SealedBlock) -> Block:
    """A block of suite 0, opened again."""
    stored = b"".join(block.buffers)
    prefix = frame.parse_prefix(stored, ARCHIVE, block.sequence)
    return Opener(Suite.PLAIN, Kind.SELF_CONTAINED, (1, 1, 1), None).open(frame.parse_frame(stored, prefix))


def build(builder: IndexBuilder, first: int = 1_000) -> tuple[list[Block], Root]:
    """Leaves and root as a reader has them."""
    leaves: list[Block] = []
    for draft in builder.leaves(100):
        slot = Slot(Suite.PLAIN, ARCHIVE, (1, 1, 1), None, first + len(leaves))
        sealed = draft.seal(slot, bytes)
        builder.leaf_written(sealed)
        leaves.append(open_sealed(sealed))
    draft = builder.root(first, 5_000, (bytes(32), 1, 2), (3, 4))
    slot = Slot(Suite.PLAIN, ARCHIVE, (1, 1, 1), None, first + len(leaves))
    return leaves, Root.decode(open_sealed(draft.seal(slot, bytes)))


def ids(count: int, seed: bytes = b"", keep: int = 32) -> list[bytes]:
    """Ids, the first byte of few values if ``keep`` is small, so that prefixes collide."""
    stream = hashlib.shake_128(seed).digest(32 * count)
    found = [stream[32 * n : 32 * n + 32] for n in range(count)]
    return [bytes(8 - keep) + one[:keep] + one[8:] for one in found] if keep < 8 else found


def find(leaves: list[Block], root: Root, kind: IndexKind, key: bytes) -> list[tuple[int, int]]:
    """A look-up as a reader does it."""
    found = []
    for leaf in root.candidates(kind, key):
        block = leaves[leaf.sequence - root.body.first]
        assert (leaf.length, leaf.whole_hash) == (block.length, block.whole_hash)
        found += LookupLeaf.decode(block).find(key)
    return found


@pytest.mark.parametrize("keep", [32, 1], ids=["distinct", "colliding"])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 49, 50, 51, 3_000])
def test_content_is_found(count: int, keep: int) -> None:
    builder = IndexBuilder(leaf_entries=TINY)
    expected: dict[bytes, list[tuple[int, int]]] = {}
    names = ids(count, keep=keep)
    for start in range(0, count, 7):
        builder.add_content(names[start : start + 7], start)
        for piece, name in enumerate(names[start : start + 7]):
            expected.setdefault(name[:8], []).append((start, piece))
    leaves, root = build(builder)
    assert len(root.of_kind(IndexKind.CONTENT)) == -(-count // 16)
    for name in names:
        assert find(leaves, root, IndexKind.CONTENT, name) == sorted(expected[name[:8]])
    for name in ids(200, b"others"):
        if name[:8] not in expected:
            assert find(leaves, root, IndexKind.CONTENT, name) == []
    for key in (bytes(8), b"\xff" * 8):
        assert find(leaves, root, IndexKind.CONTENT, key) == sorted(expected.get(key, []))
    listed = [entry for block in leaves if block.record.kind == 1 for entry in LookupLeaf.decode(block).entries()]
    assert listed == sorted(listed)
    assert len(listed) == count


def test_equal_keys_straddle_leaves() -> None:
    """The same id in 100 blocks: seven leaves begin with it, and the one before may end with it."""
    builder = IndexBuilder(leaf_entries=TINY)
    same, below, above = b"m" * 32, b"a" * 32, b"z" * 32
    builder.add_content([below] * 5, 0)
    for block in range(1, 101):
        builder.add_content([same], block)
    builder.add_content([above] * 5, 101)
    leaves, root = build(builder)
    assert find(leaves, root, IndexKind.CONTENT, same) == [(block, 0) for block in range(1, 101)]
    assert find(leaves, root, IndexKind.CONTENT, below) == [(0, piece) for piece in range(5)]
    assert find(leaves, root, IndexKind.CONTENT, above) == [(101, piece) for piece in range(5)]
    assert len(root.candidates(IndexKind.CONTENT, same)) == 7
    assert root.candidates(IndexKind.CONTENT, b"A" * 8) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**40), st.integers(0, 2**32 - 1)), max_size=80))
def test_any_paths_are_found(entries: list[tuple[int, int, int]]) -> None:
    builder = IndexBuilder(leaf_entries=TINY)
    for key, block, piece in entries:
        builder.add_path(bytes([key]) * 16, block, piece)
    leaves, root = build(builder)
    for key in range(5):
        expected = sorted((block, piece) for other, block, piece in entries if other == key)
        assert find(leaves, root, IndexKind.PATH, bytes([key]) * 16) == expected


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 1_000])
def test_block_table(count: int) -> None:
    builder = IndexBuilder(leaf_entries=TINY)
    for number in range(count):
        builder.add_block(SealedBlock(b"PACK", number, 10 + number, crypto.digest(b"%d" % number), b"", ()))
    leaves, root = build(builder)
    assert root.leaves == tuple(root.of_kind(IndexKind.TABLE))
    number, offset = 0, 100
    for block, leaf in zip(leaves, root.leaves, strict=True):
        table = TableLeaf.decode(block)
        assert leaf.first_key == number.to_bytes(8, "big")
        assert table.first == number
        assert leaf.count == len(table.types) <= 32
        for kind, whole_hash, at, length in zip(table.types, table.hashes, table.offsets, table.lengths, strict=True):
            assert (kind, whole_hash, at, length) == (b"PACK", crypto.digest(b"%d" % number), offset, 10 + number)
            number, offset = number + 1, offset + length
    assert number == count
    for wanted in range(0, count, 13):
        (leaf,) = root.candidates(IndexKind.TABLE, wanted.to_bytes(8, "big"))[-1:]
        table = TableLeaf.decode(leaves[leaf.sequence - root.body.first])
        assert table.hashes[wanted - table.first] == crypto.digest(b"%d" % wanted)


def fill(builder: IndexBuilder, numbers: Iterable[int]) -> None:
    """Some of everything."""
    for number in numbers:
        builder.add_content([crypto.digest(b"c%d" % (number * 7 + i)) for i in range(7)], number)
        builder.add_path(crypto.digest(b"p%d" % number)[:16], number, 1)
        builder.add_block(SealedBlock(b"TREE", number, 9, crypto.digest(b"%d" % number), b"", ()))


@pytest.mark.parametrize("at", [0, 1, 6, 7, 8, 50, 199, 200])
def test_export_and_restore(at: int) -> None:
    straight = IndexBuilder(leaf_entries=TINY)
    fill(straight, range(200))
    one = IndexBuilder(leaf_entries=TINY)
    fill(one, range(at))
    state = cbor.loads(cbor.dumps(one.export()))
    two = IndexBuilder(leaf_entries=TINY)
    two.restore(state)
    assert cbor.dumps(two.export()) == cbor.dumps(state)
    for builder in (one, two):  # exporting changes nothing
        fill(builder, range(at, 200))
        assert build_bytes(builder) == build_bytes(straight)
        straight = IndexBuilder(leaf_entries=TINY)
        fill(straight, range(200))


def build_bytes(builder: IndexBuilder) -> Any:
    """All bodies."""
    leaves, root = build(builder)
    return [block.body for block in leaves], root


def test_order_of_calls() -> None:
    builder = IndexBuilder(leaf_entries=TINY)
    fill(builder, range(3))
    build(builder)
    assert builder.state is IndexState.DONE
    for call in (
        lambda: builder.add_content([], 0),
        lambda: builder.add_path(bytes(16), 0, 0),
        lambda: builder.add_block(SealedBlock(b"PACK", 0, 0, b"", b"", ())),
        builder.export,
        lambda: list(builder.leaves(0)),
        lambda: builder.root(0, 0, None, None),
    ):
        with pytest.raises(UsageError):
            call()
        assert builder.state is IndexState.DONE


def test_runs_are_spilled_and_read_in_part() -> None:
    class Counting(MemoryRuns):
        appended = 0
        longest = 0

        def append(self, run: bytes) -> int:
            self.appended += 1
            self.longest = max(self.longest, len(run))
            return super().append(run)

    runs = Counting()
    builder = IndexBuilder(runs, leaf_entries=TINY)
    fill(builder, range(500))
    assert runs.appended >= 500 * 7 // 56 + 10
    assert runs.longest <= 60 * 28
    leaves, root = build(builder)
    for number in range(0, 500, 11):
        assert find(leaves, root, IndexKind.CONTENT, crypto.digest(b"c%d" % (number * 7 + 3))) == [(number, 3)]
        assert find(leaves, root, IndexKind.PATH, crypto.digest(b"p%d" % number)) == [(number, 1)]


def test_a_whole_archive_with_many_leaves() -> None:
    """What the builder writes, the decoder accepts."""
    for suite in Suite:
        header, keys = make_header(suite)
        encoder = make_encoder(header, keys, index=IndexBuilder(leaf_entries=TINY))
        out = [encoder.begin()]
        for _ in range(100):
            out += encoder.write(encoder.checkpoint()).buffers
        encoder.index.add_content(ids(300, keep=1), 5)
        for name in ids(40):
            encoder.index.add_path(name[:16], 1, 1)
        out += encoder.finish(root=(bytes(32), 0, 0), totals=(0, 0))
        assert read(b"".join(out), with_keys(make_keys(suite)))[1] is None
        assert read(b"".join(out), with_keys(None))[1] is None
