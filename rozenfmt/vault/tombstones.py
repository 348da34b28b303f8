"""Tombstones: the owner's word that an archive was deleted on purpose (vault.md, section 8).

Bytes in, records out.  This module must not know storage.  A writer does not need it: for a
writer an archive with an object of that name is missing, whatever the object says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from rozenfmt.errors import ArchiveError, HeaderError, SignatureError, UsageError
from rozenfmt.format import records
from rozenfmt.format.records import bytes_, key, text, uint
from rozenfmt.keys import Identity, Recipient
from rozenfmt.vault.editions import build_signed, split_signed, verify_signed
from rozenfmt.vault.hostkey import check_label
from rozenfmt.vault.layout import parse_gone_name

__all__ = ["Tombstone", "build_tombstone", "parse_tombstone"]

MAGIC: Final = bytes.fromhex("89525A470D0A1A0A")
SIGNATURE_LABEL: Final = b"rozenfmt v0 tombstone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """What a tombstone says; its fields are those of its record, in wire order.

    Attributes:
        vault_id: 16 bytes.
        host_id: Whose archive it was.
        archive_id: Which one.
        foot_hash: Whole hash of its ``FOOT`` block.
        made_ns: When it was deleted, nanoseconds since 1970-01-01 UTC.
        why: Why, at most 255 bytes.
    """

    vault_id: bytes = key(1, bytes_(16))
    host_id: bytes = key(2, bytes_(16))
    archive_id: bytes = key(3, bytes_(16))
    foot_hash: bytes = key(4, bytes_(32))
    made_ns: int = key(5, uint())
    why: str = key(6, text(255))
    extra: dict[int, Any] = field(default_factory=dict)


def build_tombstone(
    owner: Identity, *, vault_id: bytes, host_id: bytes, archive_id: bytes, foot_hash: bytes, now_ns: int, why: str = ""
) -> bytes:
    """Sign a tombstone.

    Raises:
        UsageError: An argument is out of bounds.
    """
    tombstone = Tombstone(
        vault_id=vault_id,
        host_id=host_id,
        archive_id=archive_id,
        foot_hash=foot_hash,
        made_ns=now_ns,
        why=check_label(why),
    )
    raw = build_signed(MAGIC, SIGNATURE_LABEL, owner, vault_id, records.encode(tombstone))
    try:
        parse_tombstone(raw, owner.recipient)
    except ArchiveError as error:
        msg = f"this tombstone cannot be made: {error.message}"
        raise UsageError(msg) from error
    return raw


def parse_tombstone(
    raw: bytes, owner: Recipient, *, vault_id: bytes | None = None, name: str | None = None
) -> Tombstone:
    """Read a tombstone and verify it.

    Args:
        raw: The whole object.
        owner: The vault's owner.
        vault_id: The vault that it must be of; None for any.
        name: Its name in the vault, if the tombstone must be the one of that name.

    Raises:
        HeaderError: It is malformed.
        LimitError: It is too long.
        SignatureError: It is not signed by this owner, or is about another vault or archive.
    """
    try:
        return _parse_tombstone(bytes(raw), owner, vault_id, name)
    except ArchiveError as error:
        error.object = error.object or name
        raise


def _parse_tombstone(raw: bytes, owner: Recipient, vault_id: bytes | None, name: str | None) -> Tombstone:
    body, signature = split_signed(raw, MAGIC, "a tombstone", "vault 8")
    tombstone = records.decode(Tombstone, body, HeaderError, "vault 8")
    verify_signed(SIGNATURE_LABEL, owner, tombstone.vault_id, body, signature, "this tombstone")
    # A true one, copied from elsewhere, must not explain away what somebody removed here.
    if vault_id is not None and tombstone.vault_id != vault_id:
        msg = f"this tombstone is of another vault, {tombstone.vault_id.hex()} instead of {vault_id.hex()}"
        raise SignatureError(msg, clause="vault 8")
    if name is not None and parse_gone_name(name) != (tombstone.host_id, tombstone.archive_id):
        msg = "this tombstone is about another archive than its name says"
        raise SignatureError(msg, clause="vault 8")
    return tombstone
