"""Whether a block that was just sealed gives back what it was made of.

A fault of an encoder or of the machine's memory shows now, not when the backup is needed.  The
body is compared byte by byte, so its hashes need not be computed again: what changed after it was
sealed, the AEAD refuses.  A plain archive has none; there the whole hash is computed once more.
"""

from __future__ import annotations

from rozenfmt.errors import ArchiveError

from . import codecs, crypto, records
from .blocks import RECORDS, Draft, SealedBlock, Slot, unpad
from .registry import BLOCK_TYPES, Body, Codec, Seal, Suite

__all__ = ["gives_back"]


def gives_back(draft: Draft, block: SealedBlock, slot: Slot) -> bool:
    """Open a block again.

    Args:
        draft: What it was made of.
        block: What was made, in buffers as ``Draft.seal`` left them.
        slot: What it was sealed for.
    """
    row = BLOCK_TYPES[draft.type]
    try:
        if slot.suite is Suite.PLAIN or row.seal is Seal.NONE:
            lead, header, header_hash, *bodies, whole_hash = block.buffers
            if crypto.digest(*block.buffers[:-1]) != whole_hash or crypto.digest(lead, header) != header_hash:
                return False
            return _matches(draft, unpad(header, 1), b"".join(bodies), 1)
        assert slot.keys is not None
        key = slot.keys.seal_key(row.seal)
        assert key is not None
        lead, nonce, sealed, header_hash, *bodies, _ = block.buffers
        if crypto.digest(lead, nonce, sealed) != header_hash:
            return False
        header = crypto.unseal_parts(slot.suite, key, nonce, sealed, crypto.AAD_BLOCK_HEADER + lead)
        if row.seal is Seal.INDEX:
            assert slot.keys.block_mac is not None
            if crypto.mac(slot.keys.block_mac, header_hash, *bodies[:-1]) != bodies.pop():
                return False
        body = b""
        if bodies:
            nonce, sealed = bodies
            body = crypto.unseal_parts(slot.suite, key, nonce, sealed, crypto.AAD_BLOCK_BODY + header_hash)
        bucket = slot.padding[1 if row.body is Body.CONTENT_PIECES else 2]
        return _matches(draft, unpad(header, slot.padding[0]), body, bucket)
    except ArchiveError:
        return False


def _matches(draft: Draft, plain: bytes, body: bytes, bucket: int) -> bool:
    """Whether record and body, opened, are those of the draft."""
    if BLOCK_TYPES[draft.type].body is Body.SPECIAL:
        return draft.gave(body)
    record = records.decode(RECORDS[draft.type], plain)
    if record.encoded is None or record.size is None:
        return not body and not draft.body
    if record.encoded + -record.encoded % bucket != len(body):
        return False
    encoded = memoryview(body)[: record.encoded]
    if record.codec == Codec.STORED and record.size == record.encoded:
        return draft.gave(encoded)  # decoding would copy it
    return draft.gave(codecs.decode(record.codec or 0, encoded, record.size))
