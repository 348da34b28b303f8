"""Tombstones: only the owner's word explains why an archive is gone."""

from __future__ import annotations

from typing import Any

import pytest

from rozenfmt.errors import ArchiveError, HeaderError, LimitError, SignatureError, UsageError
from rozenfmt.format import records
from rozenfmt.keys import Identity
from rozenfmt.vault import editions, tombstones
from rozenfmt.vault.layout import edition_name, gone_name
from rozenfmt.vault.tombstones import Tombstone, build_tombstone, parse_tombstone

from . import NOW, OWNER, STRANGER, first

VAULT, HOST, ARCHIVE = b"\x01" * 16, b"\x02" * 16, b"\x03" * 16
NAME = gone_name(HOST, ARCHIVE)


def make(owner: Identity = OWNER, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "vault_id": VAULT,
        "host_id": HOST,
        "archive_id": ARCHIVE,
        "foot_hash": b"\x04" * 32,
        "now_ns": NOW,
        "why": "past retention",
    }
    return build_tombstone(owner, **values | changes)


def test_it_comes_back() -> None:
    raw = make()
    found = parse_tombstone(raw, OWNER.recipient, vault_id=VAULT, name=NAME)
    assert found == Tombstone(
        vault_id=VAULT, host_id=HOST, archive_id=ARCHIVE, foot_hash=b"\x04" * 32, made_ns=NOW, why="past retention"
    )
    assert raw[:8] == bytes.fromhex("89525A470D0A1A0A")
    assert records.encode(found) == raw[12:-64]
    assert raw[8:12] == (len(raw) - 76).to_bytes(4, "little")


def test_every_truncation_and_flip_is_refused() -> None:
    raw = make()
    for end in range(len(raw)):
        with pytest.raises(ArchiveError):
            parse_tombstone(raw[:end], OWNER.recipient)
    for at in range(len(raw)):
        for bit in (0x01, 0x80):
            with pytest.raises(ArchiveError):
                parse_tombstone(raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :], OWNER.recipient)
    with pytest.raises(HeaderError):
        parse_tombstone(raw + b"\0", OWNER.recipient)


def test_somebody_elses_word_does_not_count() -> None:
    with pytest.raises(SignatureError):
        parse_tombstone(make(STRANGER), OWNER.recipient)


def test_it_counts_for_one_archive_of_one_vault() -> None:
    raw = make()
    with pytest.raises(SignatureError):
        parse_tombstone(raw, OWNER.recipient, vault_id=bytes(16))
    for name in (gone_name(HOST, bytes(16)), gone_name(bytes(16), ARCHIVE), edition_name(1, bytes(8)), "gone/x"):
        with pytest.raises(SignatureError) as caught:
            parse_tombstone(raw, OWNER.recipient, name=name)
        assert caught.value.object == name


def test_what_the_owner_signed_for_another_purpose_is_no_tombstone() -> None:
    edition = first()
    with pytest.raises(HeaderError):
        parse_tombstone(edition.raw, OWNER.recipient)
    with pytest.raises(ArchiveError):
        parse_tombstone(tombstones.MAGIC + edition.raw[8:], OWNER.recipient)
    body = make()[12:-64]
    forged = editions.build_signed(tombstones.MAGIC, editions.SIGNATURE_LABEL, OWNER, VAULT, body)
    with pytest.raises(SignatureError):
        parse_tombstone(forged, OWNER.recipient)


def test_limits() -> None:
    record = parse_tombstone(make(), OWNER.recipient)
    long = records.encode(Tombstone(**{n: getattr(record, n) for n in record.__slots__ if n != "why"}, why="x" * 256))
    with pytest.raises(LimitError):
        parse_tombstone(
            editions.build_signed(tombstones.MAGIC, tombstones.SIGNATURE_LABEL, OWNER, VAULT, long), OWNER.recipient
        )
    with pytest.raises(LimitError):
        parse_tombstone(tombstones.MAGIC + b"\xff" * 4, OWNER.recipient)


@pytest.mark.parametrize(
    "change",
    [{"vault_id": b""}, {"host_id": bytes(17)}, {"foot_hash": bytes(31)}, {"now_ns": -1}, {"why": "x" * 256}],
    ids=str,
)
def test_impossible_ones_are_not_made(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make(**change)
