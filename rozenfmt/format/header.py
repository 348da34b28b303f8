"""Preamble, header record and header MACs (format.md, sections 3, 6.1 and 7)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from rozenfmt.errors import (
    HeaderError,
    KeyFailure,
    LimitError,
    NoMatchingKey,
    TruncatedError,
    UnsupportedError,
    UsageError,
    WrongPassphrase,
)

from . import crypto, records
from .crypto import Keys
from .limits import MAX_HEADER_RECORD
from .records import HeaderRecord
from .registry import Kind, Right, StanzaType, Suite

__all__ = [
    "MAGIC",
    "PREAMBLE_SIZE",
    "VERSION",
    "Header",
    "Unwrapper",
    "build_header",
    "header_section_length",
    "parse_header",
    "unlock",
]

MAGIC: Final = bytes.fromhex("89525A4E0D0A1A0A")
# Whose key content ids are made with; in a vault it is the host's, which no archive holds.
ID_KEY_OF_SECRET: Final = 0
ID_KEY_OF_HOST: Final = 1
VERSION: Final = (0, 1)
_PREAMBLE = struct.Struct("<8sHHI")
_FIXED: Final = _PREAMBLE.size
PREAMBLE_SIZE: Final = _FIXED + 32
_MACS: Final = 64
_STANZA_SIZES: Final = {StanzaType.X25519: 80, StanzaType.PASSPHRASE: 96}


class Unwrapper(Protocol):
    """Something that may open a stanza: an identity or a passphrase."""

    @property
    def stanza_type(self) -> StanzaType:
        """The type of stanza that it may open."""
        ...

    def unwrap(self, right: int, archive_id: bytes, body: bytes) -> bytes:
        """The 32 bytes that the stanza wraps; ``NoMatchingKey`` if it is for somebody else."""
        ...


@dataclass(frozen=True, slots=True)
class Header:
    """A header section: its record, its bytes, and its digest."""

    record: HeaderRecord
    section: bytes
    digest: bytes

    @property
    def suite(self) -> Suite:
        """The archive's suite."""
        return Suite(self.record.suite)

    @property
    def kind(self) -> Kind:
        """The archive's kind."""
        return Kind(self.record.kind)

    @property
    def archive_id(self) -> bytes:
        """16 random bytes that name the archive."""
        return self.record.archive_id


def build_header(record: HeaderRecord, keys: Keys | None) -> Header:
    """Encode a header; ``keys`` is None exactly for suite 0.

    Raises:
        UsageError: The record is over the format's limits.
    """
    body = records.encode(record)
    if len(body) > MAX_HEADER_RECORD:
        msg = f"a header of {len(body)} bytes is over {MAX_HEADER_RECORD}: use fewer recipients"
        raise UsageError(msg)
    lead = _PREAMBLE.pack(MAGIC, *VERSION, len(body))
    macs = bytes(_MACS)
    if keys is not None:
        assert keys.header_mac_secret is not None
        macs = crypto.mac(keys.header_mac_index, lead, body) + crypto.mac(keys.header_mac_secret, lead, body)
    header_digest = crypto.digest(lead, body, macs)
    return Header(record, b"".join((lead, header_digest, body, macs)), header_digest)


def header_section_length(data: bytes | bytearray | memoryview) -> int:
    """Length of the whole header section, from its first 48 bytes.

    Raises:
        HeaderError: No archive begins here.
        UnsupportedError: It is of another version.
        LimitError: The header is over the limit.
        TruncatedError: Fewer than 48 bytes.
    """
    lead = bytes(data[:8])
    if lead != MAGIC[: len(lead)]:
        msg = "this is not a rozenfmt archive"
        raise HeaderError(msg, offset=0, clause="3")
    if len(data) < PREAMBLE_SIZE:
        msg = "the archive ends inside its preamble"
        raise TruncatedError(msg, offset=0, clause="3")
    major: int
    minor: int
    length: int
    _, major, minor, length = _PREAMBLE.unpack(data[:_FIXED])
    if (major, minor) != VERSION:
        msg = f"the archive is of format version {major}.{minor}; this version reads {VERSION[0]}.{VERSION[1]} only"
        raise UnsupportedError(msg, offset=8, clause="15")
    if not 1 <= length <= MAX_HEADER_RECORD:
        msg = f"the header claims {length} bytes"
        raise LimitError(msg, offset=12, clause="14")
    return PREAMBLE_SIZE + length + _MACS


def parse_header(data: bytes | bytearray | memoryview) -> Header:
    """Read a header section from the beginning of ``data``, in the order of section 3.

    Raises:
        ArchiveError: Of the class that the specification gives.
    """
    length = header_section_length(data)
    if len(data) < length:
        msg = "the archive ends inside its header"
        raise TruncatedError(msg, offset=0, clause="3")
    section = bytes(data[:length])
    header_digest = section[_FIXED:PREAMBLE_SIZE]
    if crypto.digest(section[:_FIXED], section[PREAMBLE_SIZE:]) != header_digest:
        msg = "the header is damaged; the copy at the end of the archive may still open it"
        raise HeaderError(msg, offset=0, clause="3")
    record = records.decode(HeaderRecord, section[PREAMBLE_SIZE:-_MACS], HeaderError, "3")
    if record.suite not in tuple(Suite):
        msg = f"suite {record.suite} is not known to this version"
        raise UnsupportedError(msg, offset=PREAMBLE_SIZE, clause="6.3")
    record.check()
    _check_stanzas(record)
    if record.suite == Suite.PLAIN and section[-_MACS:] != bytes(_MACS):
        msg = "the header of a plain archive has MACs"
        raise HeaderError(msg, offset=0, clause="3")
    if record.features:
        msg = f"the archive needs features {list(record.features)} that this version does not have"
        raise UnsupportedError(msg, offset=PREAMBLE_SIZE, clause="15")
    if record.id_key > (ID_KEY_OF_HOST if record.kind in (Kind.DATA, Kind.METADATA) else ID_KEY_OF_SECRET):
        msg = f"the archive's content ids are made with key {record.id_key}, which this version does not know"
        raise UnsupportedError(msg, offset=PREAMBLE_SIZE, clause="3")
    return Header(record, section, header_digest)


def _check_stanzas(record: HeaderRecord) -> None:
    stanzas = record.stanzas or ()
    for kind, right, body in stanzas:
        if kind in _STANZA_SIZES and (len(body) != _STANZA_SIZES[StanzaType(kind)] or right not in tuple(Right)):
            msg = "a recipient stanza has a wrong form"
            raise HeaderError(msg, offset=PREAMBLE_SIZE, clause="7")
        if kind == StanzaType.PASSPHRASE:
            crypto.passphrase_cost(body).check(crypto.ARGON2_READER_LIMIT)
    if len(stanzas) > 1 and any(kind == StanzaType.PASSPHRASE for kind, _, _ in stanzas):
        msg = "a passphrase stanza stands beside others"
        raise HeaderError(msg, offset=PREAMBLE_SIZE, clause="7")


def unlock(header: Header, identities: Sequence[Unwrapper], *, allow_plain: bool = False) -> Keys | None:
    """Unwrap the archive's key and hold the header against it.

    Returns:
        Keys; for suite 0 those of the fixed secret; None if no identity was given and the archive is encrypted.
        They have no id key if it is that of a host.

    Raises:
        NoMatchingKey: No identity fits; the message says which kinds of recipients there are.
        WrongPassphrase: It is locked by a passphrase, and by another one.
        KeyFailure: A commitment or a header MAC is wrong, or not zero where there is no key.
        UnsupportedError: Identities were given and the archive is not encrypted.
    """
    record = header.record
    if header.suite is Suite.PLAIN:
        if identities and not allow_plain and header.kind is not Kind.DIRECTORY:
            msg = (
                "the archive is not encrypted, although a key was given; "
                "somebody may have replaced it. To read it all the same, allow plain archives"
            )
            raise UnsupportedError(msg, clause="3")
        if header.section[-_MACS:] != bytes(_MACS):
            msg = "a plain archive's header has a MAC"
            raise KeyFailure(msg, offset=0, clause="3")
        return _own_ids(record, Keys.from_secret(Suite.PLAIN, record.archive_id, bytes(32)))
    if not identities:
        return None
    keys = _unwrap(record, identities)
    assert record.commit_secret is not None
    assert record.commit_index is not None
    crypto.check_commitments(keys, record.commit_secret, record.commit_index)
    _check_macs(header, keys)
    return _own_ids(record, keys)


def _own_ids(record: HeaderRecord, keys: Keys) -> Keys:
    """The keys without an id key if the archive's ids are made with the key of a host."""
    return keys if record.id_key == ID_KEY_OF_SECRET else replace(keys, id_key=None)


def _unwrap(record: HeaderRecord, identities: Sequence[Unwrapper]) -> Keys:
    stanzas = record.stanzas or ()
    for wanted in (Right.READ, Right.BROWSE):
        for kind, right, body in stanzas:
            if right != wanted:
                continue
            for identity in identities:
                if identity.stanza_type != kind:
                    continue
                try:
                    secret = identity.unwrap(right, record.archive_id, body)
                except NoMatchingKey:
                    continue
                make = Keys.from_secret if wanted is Right.READ else Keys.from_index_key
                return make(Suite(record.suite), record.archive_id, secret)
    kinds = [kind for kind, _, _ in stanzas]
    if StanzaType.PASSPHRASE in kinds and any(i.stanza_type is StanzaType.PASSPHRASE for i in identities):
        msg = "the passphrase does not open this archive"
        raise WrongPassphrase(msg, clause="7")
    names = {StanzaType.X25519: "X25519 key", StanzaType.PASSPHRASE: "passphrase", StanzaType.XWING: "post-quantum key"}
    counts = [
        f"{kinds.count(kind)} × {names.get(StanzaType(kind)) if kind in tuple(StanzaType) else f'unknown type {kind}'}"
        for kind in dict.fromkeys(kinds)
    ]
    msg = f"none of the keys given opens this archive; its recipients are: {', '.join(counts)}"
    raise NoMatchingKey(msg, clause="7")


def _check_macs(header: Header, keys: Keys) -> None:
    lead, body = header.section[:_FIXED], header.section[PREAMBLE_SIZE:-_MACS]
    mac_index, mac_secret = header.section[-_MACS:-32], header.section[-32:]
    right = crypto.equal(crypto.mac(keys.header_mac_index, lead, body), mac_index)
    if keys.header_mac_secret is not None:
        right &= crypto.equal(crypto.mac(keys.header_mac_secret, lead, body), mac_secret)
    if not right:
        msg = "the header's MAC is wrong: the header was tampered with"
        raise KeyFailure(msg, offset=0, clause="6.1")
