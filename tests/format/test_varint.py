"""Columns of numbers: round trips, and one encoding for each number."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rozenfmt.errors import BlockError
from rozenfmt.format.varint import decode_column, decode_columns, decode_deltas, encode_column, encode_deltas

U64 = st.integers(0, 2**64 - 1) | st.integers(0, 300)
I64 = st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300)


@given(st.lists(U64))
@example([0, 127, 128, 16_383, 16_384, 2**63, 2**64 - 1])
def test_column_round_trip(numbers: list[int]) -> None:
    data = encode_column(numbers)
    assert decode_column(data, len(numbers)) == numbers
    assert decode_column(memoryview(data), len(numbers)) == numbers
    assert len(data) == sum(max(1, -(-number.bit_length() // 7)) for number in numbers)


@given(st.lists(U64), st.lists(U64), st.lists(U64))
def test_columns_back_to_back(a: list[int], b: list[int], c: list[int]) -> None:
    data = encode_column(a) + encode_column(b) + encode_column(c)
    assert decode_columns(data, (len(a), len(b), len(c))) == [a, b, c]


@given(st.lists(U64))
@example([2**64 - 1, 0, 2**63, 0, 2**64 - 1])
def test_unsigned_delta_round_trip(numbers: list[int]) -> None:
    assert decode_deltas(encode_deltas(numbers), len(numbers)) == numbers


@given(st.lists(I64))
@example([-(2**63), 2**63 - 1, -(2**63), 0])
def test_signed_delta_round_trip(numbers: list[int]) -> None:
    assert decode_deltas(encode_deltas(numbers), len(numbers), signed=True) == numbers


def test_signed_varints_are_those_of_the_specification() -> None:
    assert encode_deltas([1]) == b"\x02"
    assert encode_deltas([-1]) == b"\x01"
    assert encode_deltas([-(2**63)]) == encode_column([2**64 - 1])
    assert encode_deltas([5, 3]) == b"\x0a\x03"


@given(st.binary(max_size=40), st.integers(0, 40))
def test_what_is_accepted_is_canonical(data: bytes, count: int) -> None:
    try:
        numbers = decode_column(data, count)
    except BlockError:
        return
    assert len(numbers) == count
    assert all(0 <= number < 2**64 for number in numbers)
    assert encode_column(numbers) == data
    assert encode_deltas(decode_deltas(data, count)) == data
    assert encode_deltas(decode_deltas(data, count, signed=True)) == data


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"\x80\x00", 1),  # zero in two bytes
        (b"\xff\x00", 1),
        (b"\x80\x80\x00", 1),
        (b"\xff" * 9 + b"\x02", 1),  # 2^64
        (b"\xff" * 9 + b"\x7f", 1),
        (b"\xff" * 10 + b"\x01", 1),  # eleven bytes
        (b"\x80" * 1_000, 1),
        (b"\x80", 1),
        (b"\x01\x80", 2),
        (b"\x01", 2),
        (b"\x01\x01", 1),
        (b"\x01", 0),
        (b"", 1),
        (b"", 2**63),
        (b"\x01" * 5, 2**63),
    ],
)
def test_refused(data: bytes, count: int) -> None:
    with pytest.raises(BlockError):
        decode_column(data, count)
    with pytest.raises(BlockError):
        decode_deltas(data, count)


@given(st.integers(max_value=-1) | st.integers(min_value=2**64))
def test_numbers_out_of_range_are_not_written(number: int) -> None:
    for numbers in ([number], [1, number], [300, number]):
        with pytest.raises(ValueError, match=r"."):
            encode_column(numbers)
