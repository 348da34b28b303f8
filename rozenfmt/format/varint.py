"""Varints and columns (format.md, section 1): LEB128 in its shortest form.

Columns of thousands of small numbers are the hot part of nodes and index leaves, so the
common one-byte case takes a fast path through ``bytes`` itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rozenfmt.errors import BlockError

__all__ = ["decode_column", "decode_columns", "decode_deltas", "encode_column", "encode_deltas"]

_MASK = (1 << 64) - 1
_SIGN = 1 << 63


def encode_column(numbers: Sequence[int]) -> bytes:
    """Encode unsigned numbers below 2^64 as a column; others are a ``ValueError``."""
    try:
        small = bytes(numbers)  # raises as soon as one number needs more than 8 bits
    except ValueError:
        small = b""
    if len(small) == len(numbers) and (not small or max(small) < 0x80):
        return small
    out = bytearray()
    append = out.append
    for value in numbers:
        if value < 0x80:
            append(value)
        elif value < 0x4000:
            append(value & 0x7F | 0x80)
            append(value >> 7)
        else:
            if value > _MASK:
                msg = f"{value} does not fit 64 bits"
                raise ValueError(msg)
            rest = value
            while rest >= 0x80:
                append(rest & 0x7F | 0x80)
                rest >>= 7
            append(rest)
    return bytes(out)


def encode_deltas(numbers: Iterable[int]) -> bytes:
    """Encode numbers of −2^63 … 2^64 − 1 as a delta column; differences wrap modulo 2^64."""
    previous = 0
    steps = []
    for value in numbers:
        step = value - previous
        previous = value
        if not -_SIGN <= step < _SIGN:
            step = ((step + _SIGN) & _MASK) - _SIGN
        steps.append(step << 1 if step >= 0 else (-step << 1) - 1)
    return encode_column(steps)


def decode_columns(data: bytes | memoryview, counts: Sequence[int]) -> list[list[int]]:
    """Decode columns that follow each other and together fill ``data`` exactly.

    Raises:
        BlockError: A number is not in its shortest form or 2^64 or more, or the lengths do not fit.
    """
    total = sum(counts)
    data = bytes(data)
    if len(data) < total:
        msg = "a column of numbers is shorter than its count"
        raise BlockError(msg, clause="1")
    if len(data) == total:
        if total and max(data) >= 0x80:
            msg = "a column of numbers is cut off"
            raise BlockError(msg, clause="1")
        numbers = list(data)
    else:
        numbers = _decode_long(data)
        if len(numbers) != total:
            msg = "a column of numbers has another length than its count says"
            raise BlockError(msg, clause="1")
    columns = []
    start = 0
    for count in counts:
        columns.append(numbers[start : start + count])
        start += count
    return columns


def _decode_long(data: bytes) -> list[int]:
    numbers: list[int] = []
    append = numbers.append
    value = shift = 0
    for byte in data:
        if byte >= 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                msg = "a number has more than ten bytes"
                raise BlockError(msg, clause="1")
        elif shift:
            if not byte:
                msg = "a number is not in its shortest form"
                raise BlockError(msg, clause="1")
            value |= byte << shift
            if value > _MASK:
                msg = "a number does not fit 64 bits"
                raise BlockError(msg, clause="1")
            append(value)
            value = shift = 0
        else:
            append(byte)
    if shift:
        msg = "a column of numbers is cut off"
        raise BlockError(msg, clause="1")
    return numbers


def decode_column(data: bytes | memoryview, count: int) -> list[int]:
    """Decode one column of ``count`` numbers that fills ``data`` exactly."""
    return decode_columns(data, (count,))[0]


def decode_deltas(data: bytes | memoryview, count: int, *, signed: bool = False) -> list[int]:
    """Decode a delta column of ``count`` numbers: unsigned 64-bit ones, or signed if asked.

    Raises:
        BlockError: As ``decode_columns``.
    """
    return undelta(decode_column(data, count), signed=signed)


def undelta(steps: Sequence[int], *, signed: bool = False) -> list[int]:
    """Add up decoded differences."""
    numbers = []
    value = 0
    for step in steps:
        value += (step >> 1) ^ -(step & 1)
        if signed:
            if not -_SIGN <= value < _SIGN:
                value = ((value + _SIGN) & _MASK) - _SIGN
        else:
            value &= _MASK
        numbers.append(value)
    return numbers
