"""Contents in parts that are hashed as their blocks pass by: told if they are whole, and never told wrong."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from rozenfmt.archive.writer import TempRuns
from rozenfmt.errors import BlockError
from rozenfmt.format.blocks import Block
from rozenfmt.format.nodes import Part
from rozenfmt.format.records import PiecesRecord
from rozenfmt.format.varint import encode_column
from rozenfmt.vault import passing
from rozenfmt.vault.passing import PassingContents

Stored = dict[tuple[int, int], list[bytes]]
"""Pieces by archive and block."""


def block(sequence: int, pieces: list[bytes]) -> Block:
    body = b"".join(pieces)
    record = PiecesRecord(lengths=encode_column([len(piece) for piece in pieces]), size=len(body))
    return Block(b"PACK", sequence, record, body, bytes(32), bytes(32), len(body))


def run(
    stored: Stored,
    contents: list[list[tuple[int, Part]]],
    *,
    lost: int | None = None,
    fetches: list[tuple[int, Part]] | None = None,
) -> dict[int, bytes]:
    """Have everything pass by, one block perhaps not; returns the digests of those that were told."""
    told: dict[int, bytes] = {}
    sizes: dict[int, int] = {}

    def whole(number: int, digest: bytes, size: int) -> None:
        assert number not in told
        told[number], sizes[number] = digest, size

    gone = sorted(stored)[lost] if lost is not None and lost < len(stored) else None

    def again(number: int) -> tuple[list[tuple[int, Part]], Callable[[Part], memoryview]]:
        places = {id(part): (archive, part.block) for archive, part in contents[number]}

        def read(part: Part) -> memoryview:
            fetched.append((number, part))
            pieces = stored.get(places[id(part)], [])
            if places[id(part)] == gone or part.piece >= len(pieces) or len(pieces[part.piece]) != part.length:
                raise BlockError("it is not there")
            return memoryview(pieces[part.piece])

        return contents[number], read

    fetched: list[tuple[int, Part]] = [] if fetches is None else fetches
    runs = TempRuns()
    try:
        watch = PassingContents(runs, whole, again)
        for number, parts in enumerate(contents):
            watch.add(number, parts)
        for at, (archive, sequence) in enumerate(sorted(stored)):
            if at != lost:
                watch.take(archive, block(sequence, stored[archive, sequence]))
    finally:
        runs.close()
    for number, size in sizes.items():
        assert size == sum(part.length for _, part in contents[number] if part.id is not None)
    return told


def digest(stored: Stored, parts: list[tuple[int, Part]]) -> bytes:
    hasher = blake3()
    for archive, part in parts:
        hasher.update(bytes(part.length) if part.id is None else stored[archive, part.block][part.piece])
    return hasher.digest()


def content(stored: Stored, *places: tuple[int, int, int] | int) -> list[tuple[int, Part]]:
    """Parts at places (archive, block, piece), and holes of some length."""
    parts, offset = [], 0
    for place in places:
        if isinstance(place, int):
            parts.append((0, Part(offset, place, None, 0, 0)))
        else:
            archive, sequence, piece = place
            length = len(stored[archive, sequence][piece])
            parts.append((archive, Part(offset, length, bytes(32), sequence, piece)))
        offset += parts[-1][1].length
    return parts


STORED: Stored = {
    (1, 0): [b"zeros" * 100, b"first"],
    (1, 1): [b"second", b"third"],
    (1, 2): [b"fourth"],
    (2, 0): [b"fifth", b"sixth" * 50],
}


def test_what_lies_in_order_is_told() -> None:
    contents = [
        content(STORED, (1, 0, 1), (1, 1, 0), (2, 0, 0)),
        content(STORED, (1, 1, 1), (1, 1, 1), (1, 2, 0)),
        content(STORED, 10, (1, 0, 0), 20, 30, (2, 0, 1), 5),
    ]
    assert run(STORED, contents) == {number: digest(STORED, one) for number, one in enumerate(contents)}


def test_what_comes_early_is_kept() -> None:
    zeros = (1, 0, 0)
    contents = [
        content(STORED, zeros, (1, 1, 0), zeros, zeros, (2, 0, 1), 7, zeros, 3),
        content(STORED, (2, 0, 0), (1, 2, 0), (1, 1, 0), (1, 0, 1)),
    ]
    assert run(STORED, contents) == {number: digest(STORED, one) for number, one in enumerate(contents)}


def test_what_lies_in_other_archives_is_fetched() -> None:
    changed = content(STORED, (2, 0, 0), 8, (1, 0, 0), (1, 0, 1), 3, (2, 0, 1), (2, 0, 0), (1, 1, 0), (2, 0, 0), 5)
    fetched: list[tuple[int, Part]] = []
    assert run(STORED, [changed], fetches=fetched) == {0: digest(STORED, changed)}
    assert [part.piece for _, part in fetched] == [0, 1, 0]  # the last one came by itself


def test_no_more_is_fetched_than_reading_again_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "_FETCHED_MORE", passing._BLOCK)
    two = {**STORED, (2, 1): [b"seventh"]}
    changed = content(two, (2, 0, 0), (1, 0, 0), (2, 1, 0), (1, 0, 1), (1, 1, 0))
    fetched: list[tuple[int, Part]] = []
    assert run(two, [changed], fetches=fetched) == {0: digest(two, changed)}
    assert [(part.block, part.piece) for _, part in fetched] == [(0, 0)]


def test_a_content_of_which_too_much_comes_early_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "_MOST_KEPT", 400)
    monkeypatch.setattr(passing, "_FETCHED_MORE", 0)
    contents = [
        content(STORED, (2, 0, 0), (1, 0, 0)),
        content(STORED, (1, 1, 0), (1, 0, 1)),
        content(STORED, (1, 0, 1), (1, 2, 0)),
    ]
    assert sorted(run(STORED, contents)) == [1, 2]


def test_a_content_with_a_lost_block_is_not_told() -> None:
    contents = [content(STORED, (1, 0, 1), (1, 1, 0), (2, 0, 0)), content(STORED, (1, 0, 1), (1, 2, 0))]
    assert sorted(run(STORED, contents, lost=1)) == [1]


def test_a_part_that_is_not_there_or_of_another_length_is_not_told() -> None:
    beyond = [(1, Part(0, 5, bytes(32), 0, 2)), (1, Part(5, 6, bytes(32), 1, 0))]
    longer = [(1, Part(0, 6, bytes(32), 0, 1)), (1, Part(6, 6, bytes(32), 1, 0))]
    elsewhere = [(1, Part(0, 5, bytes(32), 0, 1)), (9, Part(5, 6, bytes(32), 1, 0))]
    assert run(STORED, [beyond, longer, elsewhere]) == {}


def test_holes_that_would_take_for_ever_are_not_hashed() -> None:
    far = content(STORED, (1, 0, 1), 1 << 62, (1, 1, 0), (2, 0, 0))
    assert run(STORED, [far, content(STORED, 1 << 62)]) == {}


@given(st.integers(0, 2**32), st.integers(0, 12))
def test_any_order_is_told_right_or_not_at_all(seed: int, lost: int) -> None:
    chance = random.Random(seed)
    stored = {
        (archive, sequence): [chance.randbytes(chance.randrange(1, 50)) for _ in range(chance.randrange(1, 4))]
        for archive in range(1, 4)
        for sequence in range(4)
    }
    places = [(*place, piece) for place, pieces in stored.items() for piece in range(len(pieces))]
    contents = [
        content(stored, *(chance.choice(places) if chance.random() < 0.9 else 9 for _ in range(chance.randrange(1, 9))))
        for _ in range(6)
    ]
    told = run(stored, contents, lost=lost)
    gone = sorted(stored)[lost] if lost < len(stored) else None
    for number, parts in enumerate(contents):
        needs = {(archive, part.block) for archive, part in parts if part.id is not None}
        assert (number in told) == (bool(needs) and gone not in needs)
        if number in told:
            assert told[number] == digest(stored, parts)
