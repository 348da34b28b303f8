"""Numbers of the format and what each block type prescribes (``spec/registry.md``)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

__all__ = [
    "BLOCK_TYPES",
    "FLAG_MAC",
    "BlockType",
    "Body",
    "Codec",
    "IndexKind",
    "Kind",
    "Right",
    "Seal",
    "StanzaType",
    "Suite",
]


class Kind(IntEnum):
    """What an archive is for (format.md, section 3)."""

    DATA = 1
    METADATA = 2
    SELF_CONTAINED = 3
    DIRECTORY = 4


class Suite(IntEnum):
    """Cipher suites (format.md, section 6.3)."""

    PLAIN = 0
    XCHACHA20_POLY1305 = 1
    XAES_256_GCM = 2


class Codec(IntEnum):
    """Body codecs (format.md, section 4.4)."""

    STORED = 0
    ZSTD = 1
    LZ4 = 2


class StanzaType(IntEnum):
    """Kinds of recipients (format.md, section 7)."""

    X25519 = 1
    PASSPHRASE = 2
    XWING = 3


class Right(IntEnum):
    """What a stanza gives: everything, or names and sizes only."""

    READ = 1
    BROWSE = 2


class IndexKind(IntEnum):
    """Kinds of ``INDX`` blocks (format.md, section 9)."""

    CONTENT = 1
    PATH = 2
    TABLE = 3
    ROOT = 4


class Seal(StrEnum):
    """The key that a block type is sealed under."""

    INDEX = "I"
    CONTENT = "C"
    NONE = "none"


class Body(StrEnum):
    """What a block type's body is."""

    NONE = "none"
    CONTENT_PIECES = "content pieces"
    PIECES = "pieces"
    OTHER = "other"
    SPECIAL = "special"


FLAG_MAC: Final = 1
FLAGS_CRITICAL: Final = 0xFFFE
FEATURE_VOLUMES: Final = 1
FEATURE_PQ: Final = 2


@dataclass(frozen=True, slots=True)
class BlockType:
    """One row of the registry's table of block types."""

    name: bytes
    seal: Seal
    body: Body
    kinds: frozenset[Kind]
    implemented: bool = True

    @property
    def critical(self) -> bool:
        """Whether a reader that does not know this type must refuse the archive."""
        return self.name[:1].isupper()


_STREAM = frozenset({Kind.SELF_CONTAINED})
_CONTENT = frozenset({Kind.DATA, Kind.SELF_CONTAINED})
_TREE = frozenset({Kind.METADATA, Kind.SELF_CONTAINED})
_ALL = frozenset(Kind)

BLOCK_TYPES: Final[dict[bytes, BlockType]] = {
    row.name: row
    for row in (
        BlockType(b"FHDR", Seal.INDEX, Body.NONE, _STREAM),
        BlockType(b"FCNT", Seal.CONTENT, Body.CONTENT_PIECES, _STREAM),
        BlockType(b"FEND", Seal.INDEX, Body.OTHER, _STREAM),
        BlockType(b"PACK", Seal.CONTENT, Body.CONTENT_PIECES, _CONTENT),
        BlockType(b"TREE", Seal.INDEX, Body.PIECES, _TREE),
        BlockType(b"TREX", Seal.CONTENT, Body.PIECES, _TREE),
        BlockType(b"SNAP", Seal.INDEX, Body.OTHER, frozenset({Kind.METADATA})),
        BlockType(b"XREF", Seal.INDEX, Body.OTHER, frozenset({Kind.METADATA})),
        BlockType(b"INDX", Seal.INDEX, Body.OTHER, _ALL),
        BlockType(b"FOOT", Seal.NONE, Body.SPECIAL, _ALL),
        BlockType(b"DIRY", Seal.NONE, Body.OTHER, frozenset({Kind.DIRECTORY})),
        BlockType(b"ckpt", Seal.INDEX, Body.OTHER, _ALL - {Kind.DIRECTORY}),
        BlockType(b"keyr", Seal.NONE, Body.OTHER, frozenset({Kind.METADATA})),
        BlockType(b"prty", Seal.NONE, Body.OTHER, _ALL, implemented=False),
    )
}
