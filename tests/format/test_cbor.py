"""The restricted CBOR: one encoding for each value, everything else is damage."""

from __future__ import annotations

import tracemalloc
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rozenfmt.errors import BlockError
from rozenfmt.format import cbor

UINTS = st.integers(0, 2**64 - 1) | st.integers(0, 30)
LEAVES = (
    UINTS
    | st.integers(-(2**64), -1)
    | st.binary(max_size=40)
    | st.text(max_size=20)
    | st.binary(min_size=250, max_size=300)
)


def values(depth: int = 7) -> st.SearchStrategy[Any]:
    """Any value of the restricted form."""
    if not depth:
        return LEAVES
    inner = st.deferred(lambda: values(depth - 1))
    return LEAVES | st.lists(inner, max_size=4) | st.dictionaries(UINTS, inner, max_size=4)


VALUES = values()


@settings(max_examples=200)
@given(VALUES)
@example(-(2**64))
@example({2**64 - 1: [], 0: {}})
def test_round_trip(value: Any) -> None:
    data = cbor.dumps(value)
    assert cbor.loads(data) == value
    assert cbor.dumps(cbor.loads(data)) == data


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_block_errors_only(data: bytes) -> None:
    try:
        value = cbor.loads(data)
    except BlockError:
        return
    assert cbor.dumps(value) == data


@settings(max_examples=400)
@given(st.data(), VALUES)
def test_mutated_encodings_are_canonical_or_refused(data: st.DataObject, value: Any) -> None:
    good = cbor.dumps(value)
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 4)))
    changed = good[:start] + data.draw(st.binary(max_size=4)) + good[end:]
    try:
        found = cbor.loads(changed)
    except BlockError:
        return
    assert cbor.dumps(found) == changed
    # Two walks agree: what the scanner passes, cbor2 reads as one item with nothing left over.
    assert cbor2.loads(changed) == found


@settings(max_examples=200)
@given(st.binary(max_size=40), st.integers(0, 10))
def test_scan_ends_inside_its_input(data: bytes, start: int) -> None:
    try:
        end = cbor.scan(data, start)
    except BlockError:
        return
    assert start < end <= len(data)


@pytest.mark.parametrize(
    "data",
    [
        "",  # nothing
        "a2 00 00 00 01",  # a key twice
        "a2 01 00 00 01",  # keys out of order
        "a2 18 18 00 01 00",
        "a1 20 00",  # a negative key
        "a1 41 00 00",  # a byte-string key
        "a1 60 00",  # a text key
        "a1 80 00",  # an array as key
        "18 17",  # 23 in two bytes
        "19 00 ff",
        "1a 00 00 ff ff",
        "1b 00 00 00 00 ff ff ff ff",
        "38 17",  # minus 24 in two bytes
        "39 00 ff",
        "58 01 00",  # a length in two bytes
        "78 01 61",
        "98 01 00",
        "b8 01 00 00",
        "c0 00",  # tags
        "c2 41 01",
        "d8 1c 00",
        "d9 d9 f7 00",
        "f9 00 00",  # floats
        "fa 00 00 00 00",
        "fb 00 00 00 00 00 00 00 00",
        "f4",  # false
        "f5",  # true
        "f6",  # null
        "f7",  # undefined
        "e0",  # a simple value
        "f8 20",
        "5f 41 00 ff",  # indefinite lengths
        "7f 61 61 ff",
        "9f 00 ff",
        "bf 00 00 ff",
        "ff",
        "1c",  # reserved
        "1d",
        "1e",
        "1f",
        "00 00",  # bytes after the item
        "80 00",
        "18",  # cut off
        "19 01",
        "1b 01",
        "41",
        "42 00",
        "81",
        "82 00",
        "a1",
        "a1 00",
        "62 c3 28",  # not UTF-8
        "63 ed a0 80",  # a surrogate
        "62 c0 80",  # overlong
        "5b ff ff ff ff ff ff ff ff",  # huge lengths
        "7b ff ff ff ff ff ff ff ff",
        "9b ff ff ff ff ff ff ff ff",
        "bb ff ff ff ff ff ff ff ff",
        "bb 80 00 00 00 00 00 00 00 00 00",
        "5a 7f ff ff ff 00",
        "9a 7f ff ff ff 00",
        "ba 7f ff ff ff 00 00",
    ],
)
def test_refused(data: str) -> None:
    raw = bytes.fromhex(data)
    tracemalloc.start()
    try:
        with pytest.raises(BlockError):
            cbor.loads(raw)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_depth() -> None:
    for opener, closer in ((b"\x81", b"\x00"), (b"\xa1\x00", b"\x00"), (b"\x81", b"\x80"), (b"\x81", b"\xa0")):
        inner = 8 if closer == b"\x00" else 7
        cbor.loads(opener * inner + closer)
        with pytest.raises(BlockError):
            cbor.loads(opener * (inner + 1) + closer)
    with pytest.raises(BlockError):
        cbor.loads(b"\x81" * 1_000_000 + b"\x00")
    with pytest.raises(BlockError):
        cbor.loads(b"\xa1\x00" * 1_000_000 + b"\x00")
