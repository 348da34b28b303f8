"""The block frame: prefix, sections and hashes (format.md, section 4.1).

Knows bytes and unkeyed hashes only; what the sections hold is for ``blocks``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from rozenfmt.errors import BlockError, LimitError, TruncatedError, UnsupportedError

from .crypto import digest
from .limits import MAX_BLOCK_BODY, MAX_BLOCK_HEADER
from .registry import FLAG_MAC, FLAGS_CRITICAL

__all__ = ["HASH_SIZE", "PREFIX_SIZE", "SYNC", "Frame", "Prefix", "parse_frame", "parse_prefix"]

SYNC: Final = bytes.fromhex("F5727A9CE107B35A")
_PREFIX = struct.Struct("<8s4sI16sQIQ")
PREFIX_SIZE: Final = _PREFIX.size
HASH_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Prefix:
    """The 52 bytes that every block begins with, in wire order after the sync marker."""

    type: bytes
    flags: int
    archive_id: bytes
    sequence: int
    header_length: int
    body_length: int

    def pack(self) -> bytes:
        """The prefix as stored."""
        return _PREFIX.pack(
            SYNC, self.type, self.flags, self.archive_id, self.sequence, self.header_length, self.body_length
        )

    @property
    def mac_length(self) -> int:
        """32 if the block carries a MAC, else 0."""
        return HASH_SIZE if self.flags & FLAG_MAC else 0

    @property
    def frame_length(self) -> int:
        """Stored length of the whole block."""
        return PREFIX_SIZE + self.header_length + self.body_length + self.mac_length + 2 * HASH_SIZE


@dataclass(frozen=True, slots=True)
class Frame:
    """A block whose two hashes verified; its sections are still sealed."""

    prefix: Prefix
    header_section: bytes
    header_hash: bytes
    body_section: memoryview
    mac: bytes
    whole_hash: bytes


def parse_prefix(
    data: bytes | bytearray | memoryview, archive_id: bytes | None, sequence: int | None, *, check_flags: bool = True
) -> Prefix:
    """Steps (b) to (d) of sequential reading (format.md, section 11), on the 52 bytes of ``data``.

    Args:
        data: At least 52 bytes.
        archive_id: The archive that the block must belong to; None takes any.
        sequence: The sequence number that it must have; None takes any.
        check_flags: Refuse unknown critical flags.

    Raises:
        BlockError, LimitError, UnsupportedError: As the specification says.
    """
    sync, kind, flags, own, number, header_length, body_length = _PREFIX.unpack(data[:PREFIX_SIZE])
    if sync != SYNC:
        msg = "no block begins here"
        raise BlockError(msg, clause="4.1")
    if archive_id is not None and own != archive_id:
        msg = "a block of another archive stands here"
        raise BlockError(msg, clause="4.1")
    if sequence is not None and number != sequence:
        msg = f"block {number} stands where block {sequence} should: blocks were removed, doubled or moved"
        raise BlockError(msg, clause="4.1")
    if check_flags and flags & FLAGS_CRITICAL:
        msg = f"a block has flags {flags:#x} that this version does not know"
        raise UnsupportedError(msg, clause="4.1")
    if header_length > MAX_BLOCK_HEADER or body_length > MAX_BLOCK_BODY:
        msg = f"a block claims {header_length} + {body_length} bytes"
        raise LimitError(msg, clause="14")
    return Prefix(kind, flags, own, number, header_length, body_length)


def parse_frame(data: bytes | bytearray | memoryview, prefix: Prefix) -> Frame:
    """Steps (e) and (f): cut a frame into its sections and verify both hashes.

    Args:
        data: The block from its sync marker on; may be longer.
        prefix: What ``parse_prefix`` made of its beginning.

    Raises:
        TruncatedError: ``data`` is shorter than the frame.
        BlockError: A hash is wrong.
    """
    view = memoryview(data)
    length = prefix.frame_length
    if len(view) < length:
        msg = "the archive ends inside a block"
        raise TruncatedError(msg, clause="11")
    header_end = PREFIX_SIZE + prefix.header_length
    header_hash = bytes(view[header_end : header_end + HASH_SIZE])
    if digest(view[:header_end]) != header_hash:
        msg = "a block's header hash is wrong: its header is damaged"
        raise BlockError(msg, clause="4.1")
    whole_hash = bytes(view[length - HASH_SIZE : length])
    if digest(view[: length - HASH_SIZE]) != whole_hash:
        msg = "a block's whole hash is wrong: it is damaged"
        raise BlockError(msg, clause="4.1")
    body_start = header_end + HASH_SIZE
    body_end = body_start + prefix.body_length
    return Frame(
        prefix=prefix,
        header_section=bytes(view[PREFIX_SIZE:header_end]),
        header_hash=header_hash,
        body_section=view[body_start:body_end],
        mac=bytes(view[body_end : body_end + prefix.mac_length]),
        whole_hash=whole_hash,
    )
