"""Limits of the format (format.md, section 14): every length is compared before it is believed."""

from __future__ import annotations

from typing import Final

MAX_HEADER_RECORD: Final = 98_304
MAX_STANZAS: Final = 64
MAX_BLOCK_HEADER: Final = 1_048_640
MAX_BLOCK_BODY: Final = 16_842_792
MAX_DECODED: Final = 16_777_216
MAX_PIECES: Final = 65_536
MAX_OPEN_STREAMS: Final = 1_024
MAX_CBOR_DEPTH: Final = 8
MAX_NAME: Final = 65_535
MAX_MEDIA_TYPE: Final = 255
MAX_CREATOR: Final = 64
MAX_NODE_DEPTH: Final = 8
MAX_TREE_DEPTH: Final = 65_536
MAX_LEAF_ENTRIES: Final = 65_536
MAX_NODE_ENTRIES: Final = 65_536
MAX_ATTRIBUTES: Final = 16_384
MAX_SNAP_ROWS: Final = 16_384
MAX_BUCKET: Final = 65_536
MAX_ZSTD_WINDOW: Final = 16_777_216

ARGON2_MAX_PASSES: Final = 16
ARGON2_MIN_KIB: Final = 8
ARGON2_MAX_KIB: Final = 1_048_576

MAX_U32: Final = 2**32 - 1
MAX_U64: Final = 2**64 - 1
