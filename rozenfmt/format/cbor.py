"""The restricted CBOR of the format (format.md, section 1.1).

cbor2 does the encoding and decoding.  It accepts duplicate keys, long integers, tags that
run code, and trailing bytes, so every input is walked first by ``scan``, which admits only
the one encoding that each value has; what passes is exactly what ``dumps`` gives back.
"""

from __future__ import annotations

from typing import Any

import cbor2

from rozenfmt.errors import BlockError

from .limits import MAX_CBOR_DEPTH

__all__ = ["dumps", "loads", "loads_own", "scan"]

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP = range(6)


def dumps(value: Any) -> bytes:
    """Encode a value canonically; maps must have unsigned integer keys."""
    return cbor2.dumps(value, canonical=True)


def loads(data: bytes) -> Any:
    """Decode one canonical item that fills ``data``.

    Raises:
        BlockError: The bytes are not in the restricted form.
    """
    end = scan(data)
    if end != len(data):
        msg = "bytes follow a CBOR item"
        raise BlockError(msg, clause="1.1")
    return cbor2.loads(data)


def loads_own(data: bytes) -> Any:
    """Decode what ``dumps`` of this program has made, and nobody else has touched since."""
    return cbor2.loads(data)


def scan(data: bytes, start: int = 0) -> int:
    """Walk one item and return where it ends; iterative, so hostile nesting costs nothing."""
    # Each frame: [items still to come, is this a map, is the next item a key, last key]
    stack: list[list[int]] = []
    pos = start
    while True:
        major, value, pos = _head(data, pos)
        if stack and stack[-1][1] and stack[-1][2]:
            if major != _UINT or value <= stack[-1][3]:
                msg = "a map key is not an integer, or not in ascending order"
                raise BlockError(msg, clause="1.1")
            stack[-1][3] = value
        if major in (_BYTES, _TEXT):
            if value > len(data) - pos:
                msg = "a CBOR string is longer than its record"
                raise BlockError(msg, clause="1.1")
            if major == _TEXT:
                _check_text(data[pos : pos + value])
            pos += value
        elif major in (_ARRAY, _MAP):
            if len(stack) >= MAX_CBOR_DEPTH:
                msg = "CBOR nesting is deeper than 8"
                raise BlockError(msg, clause="1.1")
            items = value * 2 if major == _MAP else value
            if items > len(data) - pos:  # each item takes at least a byte
                msg = "a CBOR array or map is longer than its record"
                raise BlockError(msg, clause="1.1")
            stack.append([items, int(major == _MAP), 1, -1])
            if items:
                continue
            stack.pop()
        while stack:
            frame = stack[-1]
            frame[0] -= 1
            frame[2] ^= 1
            if frame[0]:
                break
            stack.pop()
        if not stack:
            return pos


def _head(data: bytes, pos: int) -> tuple[int, int, int]:
    """Major type, argument, and the position after the head."""
    if pos >= len(data):
        msg = "a CBOR item is cut off"
        raise BlockError(msg, clause="1.1")
    byte = data[pos]
    major, short = byte >> 5, byte & 31
    if major > _MAP:
        msg = "a CBOR tag, float or simple value"
        raise BlockError(msg, clause="1.1")
    pos += 1
    if short < 24:
        return major, short, pos
    if short > 27:
        msg = "an indefinite or reserved CBOR length"
        raise BlockError(msg, clause="1.1")
    size = 1 << (short - 24)
    if len(data) - pos < size:
        msg = "a CBOR item is cut off"
        raise BlockError(msg, clause="1.1")
    value = int.from_bytes(data[pos : pos + size], "big")
    if value < (24, 1 << 8, 1 << 16, 1 << 32)[short - 24]:
        msg = "a CBOR number is not in its shortest form"
        raise BlockError(msg, clause="1.1")
    return major, value, pos + size


def _check_text(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        msg = "a CBOR text string is not UTF-8"
        raise BlockError(msg, clause="1.1") from error
