"""Sealing and opening single blocks (format.md, sections 4.2 to 4.5).

``Draft.seal`` is a pure function of its arguments, so that a pipeline may run many of them
in parallel once their sequence numbers are given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from rozenfmt.errors import BlockError, IndexDamaged, LimitError, UnsupportedError, UsageError

from . import codecs, crypto, records
from .codecs import Compression
from .crypto import Entropy, Keys
from .frame import Frame, Prefix
from .limits import MAX_BLOCK_BODY, MAX_BLOCK_HEADER, MAX_DECODED, MAX_PIECES
from .records import BlockRecord
from .registry import BLOCK_TYPES, FLAG_MAC, BlockType, Body, Kind, Seal, Suite
from .varint import decode_column

# Zeros behind a body that pieces were joined to: as many as the usual padding may need.
_ROOM: Final = 2048

__all__ = ["Block", "Draft", "Opener", "SealedBlock", "Slot", "cut_pieces", "piece_digest", "piece_digests"]

RECORDS: dict[bytes, type[BlockRecord]] = {
    b"FHDR": records.StreamStart,
    b"FCNT": records.StreamContent,
    b"FEND": records.StreamEnd,
    b"PACK": records.PiecesRecord,
    b"TREE": records.PiecesRecord,
    b"TREX": records.PiecesRecord,
    b"INDX": records.IndexRecord,
    b"DIRY": records.BlockRecord,
    b"SNAP": records.BlockRecord,
    b"XREF": records.BlockRecord,
    b"keyr": records.BlockRecord,
    b"ckpt": records.CheckpointRecord,
}


@dataclass(frozen=True, slots=True)
class Slot:
    """What a block is sealed with besides its content: keys and place in the archive."""

    suite: Suite
    archive_id: bytes
    padding: tuple[int, int, int]
    keys: Keys | None
    sequence: int


@dataclass(frozen=True, slots=True)
class SealedBlock:
    """A block as stored, in buffers to be written one after the other."""

    type: bytes
    sequence: int
    length: int
    whole_hash: bytes
    header_hash: bytes
    buffers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """A block before compression and sealing.

    Attributes:
        type: One of the registry's types.
        record: Its record, without keys 1 to 4.
        body: The body before encoding; empty if the type has none.
        compression: What to try on the body.
        padded: The body again with zeros behind it, if it was made so: then it is stored without another copy.
    """

    type: bytes
    record: Any
    body: bytes | bytearray | memoryview = b""
    compression: Compression = Compression.metadata()
    padded: bytes = field(default=b"", repr=False)

    @classmethod
    def joined(
        cls, block_type: bytes, record: Any, pieces: Iterable[bytes | bytearray | memoryview], compression: Compression
    ) -> Draft:
        """A block whose body are these pieces."""
        padded = b"".join((*pieces, bytes(_ROOM)))
        return cls(block_type, record, memoryview(padded)[:-_ROOM], compression, padded)

    def gave(self, body: bytes | memoryview) -> bool:
        """Whether a body is this block's."""
        if self.padded:  # comparing views would take it byte by byte
            return len(body) == len(self.body) and self.padded.startswith(body)
        return body == self.body

    def seal(self, slot: Slot, entropy: Entropy) -> SealedBlock:
        """Encode, pad and seal this block for one slot.

        Raises:
            UsageError: The body or the record is over the format's limits.
        """
        row = BLOCK_TYPES.get(self.type) or BlockType(self.type, Seal.NONE, Body.OTHER, frozenset())
        if len(self.body) > MAX_DECODED:
            msg = f"a block body of {len(self.body)} bytes is over {MAX_DECODED}"
            raise UsageError(msg)
        sealed = slot.suite is not Suite.PLAIN and row.seal is not Seal.NONE
        record = self.record
        body: bytes | memoryview = b""
        if row.body is Body.SPECIAL:
            body = bytes(self.body)
        elif self.body:
            codec, encoded = codecs.encode(self.body, self.compression)
            record = replace(
                record,
                codec=int(codec),
                size=len(self.body),
                encoded=len(encoded),
                content_hash=crypto.digest(self.body),
            )
            bucket = slot.padding[1 if row.body is Body.CONTENT_PIECES else 2] if sealed else 1
            padding = -len(encoded) % bucket
            if encoded is self.body and padding <= _ROOM and self.padded:
                body = memoryview(self.padded)[: len(encoded) + padding]
            else:
                body = b"".join((encoded, bytes(padding)))
        plain = records.encode(record)
        header = b"".join((len(plain).to_bytes(4, "little"), plain))
        if sealed:
            header += bytes(-len(header) % slot.padding[0])
        return _seal_sections(row, slot, header, body, entropy, sealed=sealed)


def _seal_sections(
    row: BlockType, slot: Slot, header: bytes, body: bytes | memoryview, entropy: Entropy, *, sealed: bool
) -> SealedBlock:
    extra = crypto.SEAL_OVERHEAD if sealed else 0
    with_mac = sealed and row.seal is Seal.INDEX
    prefix = Prefix(
        type=row.name,
        flags=FLAG_MAC if with_mac else 0,
        archive_id=slot.archive_id,
        sequence=slot.sequence,
        header_length=len(header) + extra,
        body_length=len(body) + extra if body else 0,
    )
    if prefix.header_length > MAX_BLOCK_HEADER or prefix.body_length > MAX_BLOCK_BODY:
        msg = "a block is over the format's limits"
        raise UsageError(msg)
    lead = prefix.pack()
    parts: list[bytes] = [lead]
    key = b""
    if sealed:
        assert slot.keys is not None
        key = slot.keys.seal_key(row.seal) or b""
        assert key
        parts += crypto.seal(slot.suite, key, entropy(crypto.NONCE_SIZE), header, crypto.AAD_BLOCK_HEADER + lead)
    else:
        parts.append(header)
    header_hash = crypto.digest(*parts)
    parts.append(header_hash)
    body_at = len(parts)
    if body and sealed:
        parts += crypto.seal(slot.suite, key, entropy(crypto.NONCE_SIZE), body, crypto.AAD_BLOCK_BODY + header_hash)
    elif body:
        parts.append(bytes(body))
    if with_mac:
        assert slot.keys is not None
        assert slot.keys.block_mac is not None
        parts.append(crypto.mac(slot.keys.block_mac, header_hash, *parts[body_at:]))
    whole_hash = crypto.digest(*parts)
    parts.append(whole_hash)
    return SealedBlock(row.name, slot.sequence, prefix.frame_length, whole_hash, header_hash, tuple(parts))


@dataclass(frozen=True, slots=True)
class Block:
    """A block that was opened and verified as far as the keys at hand allow.

    Attributes:
        type: Its type.
        sequence: Its number.
        record: Its record; None if the keys at hand do not open it, or the type is ancillary and unknown.
        body: The decoded body, or empty.
        header_hash: Unkeyed hash over prefix and header section.
        whole_hash: Hash over everything stored.
        length: Stored length in bytes.
    """

    type: bytes
    sequence: int
    record: Any
    body: bytes
    header_hash: bytes
    whole_hash: bytes
    length: int
    _pieces: list[memoryview] = field(default_factory=list, repr=False, compare=False)
    _digests: list[bytes] = field(default_factory=list, repr=False, compare=False)

    @property
    def opened(self) -> bool:
        """Whether record and body were opened."""
        return self.record is not None


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens verified frames of one archive: steps (g) to (j) of sequential reading (section 11).

    Attributes:
        suite: The archive's suite.
        kind: The archive's kind.
        padding: The archive's padding rule.
        keys: Keys at hand, or None to check frames only; ignored in suite 0.
    """

    suite: Suite
    kind: Kind
    padding: tuple[int, int, int]
    keys: Keys | None

    def open(self, frame: Frame) -> Block:
        """Open one frame.

        Raises:
            ArchiveError: As the specification says for the step that fails.
        """
        row = self._row(frame.prefix)
        record, body = None, b""
        if row is not None and row.body is Body.SPECIAL:
            record = foot_record(frame)
            body = bytes(frame.body_section)
        elif row is not None and row.name in RECORDS:
            record, body = self._open_sections(frame, row)
        return Block(
            type=frame.prefix.type,
            sequence=frame.prefix.sequence,
            record=record,
            body=body,
            header_hash=frame.header_hash,
            whole_hash=frame.whole_hash,
            length=frame.prefix.frame_length,
        )

    def _row(self, prefix: Prefix) -> BlockType | None:
        row = BLOCK_TYPES.get(prefix.type)
        if row is None or not row.implemented:
            if not prefix.type.isalpha():  # bytes.isalpha knows ASCII letters only
                msg = "a block's type is not four letters"
                raise BlockError(msg, clause="4.1")
            if prefix.type[:1].isupper():
                msg = f"block type {prefix.type.decode()} is not known to this version"
                raise UnsupportedError(msg, clause="4.1")
            if row is None:
                if self.suite is Suite.PLAIN and prefix.flags & FLAG_MAC:
                    msg = "a block of a plain archive has a MAC"
                    raise BlockError(msg, clause="4.1")
                return None
        if self.kind not in row.kinds:
            msg = f"a {row.name.decode()} block has no place in this kind of archive"
            raise BlockError(msg, clause="4.2")
        with_mac = self.suite is not Suite.PLAIN and row.seal is Seal.INDEX
        if bool(prefix.flags & FLAG_MAC) != with_mac:
            msg = f"a {row.name.decode()} block is not sealed as its type prescribes"
            raise BlockError(msg, clause="4.2")
        return row

    def _open_sections(self, frame: Frame, row: BlockType) -> tuple[Any, bytes]:
        sealed = self.suite is not Suite.PLAIN and row.seal is not Seal.NONE
        key = self.keys.seal_key(row.seal) if sealed and self.keys is not None else None
        if sealed and key is None:
            return None, b""
        header: bytes = frame.header_section
        if key is not None:
            header = crypto.unseal(self.suite, key, header, crypto.AAD_BLOCK_HEADER + frame.prefix.pack())
        record = records.decode(RECORDS[row.name], unpad(header, self.padding[0] if sealed else 1))
        has_body = frame.prefix.body_length > 0
        record.check_body(present=has_body)
        if (row.body is Body.NONE) == has_body and row.name != b"ckpt":
            msg = f"a {row.name.decode()} block with a body that does not go with its type"
            raise BlockError(msg, clause="5")
        mac_key = self.keys.block_mac if self.keys is not None and frame.mac else None
        if mac_key is not None and not crypto.equal(
            crypto.mac(mac_key, frame.header_hash, frame.body_section), frame.mac
        ):
            msg = "a block's MAC is wrong: it was written by somebody who can only browse"
            raise BlockError(msg, clause="6.1")
        body = self._body(frame, row, record, key) if has_body else b""
        if isinstance(record, records.IndexRecord):
            record.check()
        return record, body

    def _body(self, frame: Frame, row: BlockType, record: BlockRecord, key: bytes | None) -> bytes:
        assert record.size is not None
        assert record.encoded is not None
        plain: bytes | memoryview = frame.body_section
        bucket = 1
        if key is not None:
            plain = crypto.unseal(self.suite, key, plain, crypto.AAD_BLOCK_BODY + frame.header_hash)
            bucket = self.padding[1 if row.body is Body.CONTENT_PIECES else 2]
        encoded = record.encoded
        if encoded + -encoded % bucket != len(plain) or any(memoryview(plain)[encoded:]):
            msg = "a body is not padded as its archive says"
            raise BlockError(msg, clause="4.3")
        body = codecs.decode(record.codec or 0, memoryview(plain)[:encoded], record.size)
        if crypto.digest(body) != record.content_hash:
            msg = "a body does not match its content hash"
            raise BlockError(msg, clause="4.4")
        return body


def foot_record(frame: Frame) -> records.FootRecord:
    """The record of a ``FOOT`` frame.

    Raises:
        IndexDamaged: It is malformed.
    """
    try:
        plain = unpad(frame.header_section, 1)
    except BlockError as error:
        raise IndexDamaged(error.message, clause="10") from error
    record = records.decode(records.FootRecord, plain, IndexDamaged, "10")
    if record.extra.keys() & {1, 2, 3, 4}:
        msg = "the footer's record has keys of a body"
        raise IndexDamaged(msg, clause="10")
    return record


def unpad(plain: bytes, bucket: int) -> bytes:
    """Take the record out of a header plaintext."""
    length = int.from_bytes(plain[:4], "little")
    used = 4 + length
    if len(plain) < 4 or used + -used % bucket != len(plain) or any(memoryview(plain)[used:]):
        msg = "a block header is not padded as its archive says"
        raise BlockError(msg, clause="4.3")
    return plain[4:used]


def piece_lengths(record: Any) -> list[int]:
    """Lengths of a block's pieces, checked against its body (format.md, section 4.5)."""
    count = sum(byte < 0x80 for byte in record.lengths)
    if count > MAX_PIECES:
        msg = f"a block of {count} pieces"
        raise LimitError(msg, clause="14")
    lengths = decode_column(record.lengths, count)
    if not lengths or 0 in lengths or sum(lengths) != record.size:
        msg = "the pieces of a block do not add up to its body"
        raise BlockError(msg, clause="4.5")
    return lengths


def cut_pieces(block: Block) -> list[memoryview]:
    """The pieces of an opened block, without copying."""
    pieces = block._pieces  # noqa: SLF001  cut once, kept with the block
    if not pieces:
        view = memoryview(block.body)
        found = []
        start = 0
        for length in piece_lengths(block.record):
            found.append(view[start : start + length])
            start += length
        pieces[:] = found
    return pieces


def piece_digests(block: Block) -> list[bytes]:
    """Plain digests of the pieces of an opened block: what their content ids are made of.

    They are computed once, best on a worker.
    """
    digests = block._digests  # noqa: SLF001  kept with the block
    if not digests:
        pieces = cut_pieces(block)
        whole = len(pieces) == 1  # then the content hash, which the body was compared with, is the piece's
        digests[:] = [block.record.content_hash] if whole else [crypto.digest(piece) for piece in pieces]
    return digests


def piece_digest(block: Block, number: int) -> bytes:
    """Plain digest of one piece."""
    digests = block._digests  # noqa: SLF001  if all were computed
    return digests[number] if digests else crypto.digest(cut_pieces(block)[number])
