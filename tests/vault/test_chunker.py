from __future__ import annotations

import hashlib
import itertools

from blake3 import blake3

from rozenfmt.tree.content import Hole
from rozenfmt.vault.chunker import LARGEST, SMALLEST, Chunker


def noise(size: int, seed: bytes = b"noise") -> bytes:
    return blake3(seed).digest(size)


def cuts(data: bytes, seed: int, step: int) -> list[bytes]:
    runs = [data[at : at + step] for at in range(0, len(data), step)]
    return [bytes(c) for found in Chunker(seed).cut(runs) for c in found if not isinstance(c, Hole)]


def test_cut_points_are_pinned() -> None:
    """Another chunker would upload every big file once more: these numbers may change only on purpose."""
    chunks = cuts(noise(4_000_000), 0x0123_4567_89AB_CDEF, 4_000_000)
    assert [len(chunk) for chunk in chunks] == [
        *(181907, 299091, 123273, 438416, 469418, 398704, 98099),
        *(149713, 537563, 470974, 384074, 273744, 175024),
    ]


def test_how_it_is_fed_does_not_matter() -> None:
    data = noise(5_000_000)
    whole = cuts(data, 7, len(data))
    for step in (1_000, 65_536, 1 << 20, 3_000_001):
        assert cuts(data, 7, step) == whole
    assert b"".join(whole) == data


def test_sizes_stay_within_bounds() -> None:
    for data in (noise(9_000_000), bytes(9_000_000)):
        *chunks, last = cuts(data, 7, 1 << 20)
        assert all(SMALLEST <= len(chunk) <= LARGEST for chunk in chunks)
        assert 0 < len(last) <= LARGEST


def test_another_key_cuts_elsewhere() -> None:
    data = noise(5_000_000)
    assert cuts(data, 1 << 62, len(data)) != cuts(data, 7, len(data))


def test_bytes_inserted_in_front_move_few_chunks() -> None:
    data = noise(20_000_000)
    before = {hashlib.sha256(c).digest() for c in cuts(data, 7, 1 << 20)}
    after = {hashlib.sha256(c).digest() for c in cuts(b"some bytes in front" + data, 7, 1 << 20)}
    assert len(after - before) <= 3


def test_a_hole_ends_a_chunk() -> None:
    data = noise(300_000)
    runs: list[bytes | Hole] = [data[:150_000], Hole(1_000_000), data[150_000:]]
    found = [chunk for chunks in Chunker(7).cut(runs) for chunk in chunks]
    kinds = [isinstance(c, Hole) for c in found]
    assert kinds.count(True) == 1
    before = b"".join(bytes(c) for c in itertools.takewhile(lambda c: not isinstance(c, Hole), found))  # type: ignore[arg-type]
    assert before == data[:150_000]


def test_seeds_of_64_bits_are_taken() -> None:
    assert cuts(noise(2_000_000), (1 << 64) - 1, 1 << 20)
