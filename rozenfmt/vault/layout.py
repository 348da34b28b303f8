"""Names of a vault's objects (vault.md, section 1), as text and as what they say.

Text in, values out: this module must not know storage, editions or archives.  A name is parsed
only in the one form that it has; everything else gives None, and the caller says that it is
ignored.  No name is believed: what it says is compared with the object itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from rozenfmt.errors import UsageError
from rozenfmt.format.limits import MAX_U64

__all__ = [
    "ARENA",
    "DATA",
    "EDITIONS",
    "GONE",
    "META",
    "PROBE",
    "DataName",
    "MetaName",
    "data_name",
    "edition_name",
    "gone_name",
    "meta_name",
    "parse_data_name",
    "parse_edition_name",
    "parse_gone_name",
    "parse_meta_name",
    "parse_probe_name",
    "probe_name",
    "probe_place",
]

EDITIONS: Final = "editions/"
META: Final = "meta/"
DATA: Final = "data/"
ARENA: Final = "arena/"
GONE: Final = "gone/"
PROBE: Final = "probe/"

ID_SIZE: Final = 16
SALT_SIZE: Final = 8
_SUFFIX: Final = ".rzn"
_EDITION_DIGITS: Final = 8
_SEQUENCE_DIGITS: Final = 10

# [0-9], since \d takes the digits of every script.  20 digits hold any 64-bit number, and keep
# int() away from names of megabytes.
_ID: Final = "([0-9a-f]{32})"
_EDITION: Final = re.compile(r"editions/([0-9]{8,20})-([0-9a-f]{16})")
_META: Final = re.compile(rf"meta/{_ID}/([0-9]{{10,20}})-{_ID}\.rzn")
_DATA: Final = re.compile(rf"(data|arena)/{_ID}/{_ID}\.rzn")
_GONE: Final = re.compile(rf"gone/{_ID}/{_ID}")
_PEOPLE: Final = "people"
_TIME_DIGITS: Final = 12
_PROBE: Final = re.compile(rf"probe/(?:{_ID}|{_PEOPLE})/([0-9]{{12}})-([0-9a-f]{{16}})\.json")


@dataclass(frozen=True, slots=True)
class MetaName:
    """What the name of a metadata archive says."""

    host_id: bytes
    sequence: int
    archive_id: bytes


@dataclass(frozen=True, slots=True)
class DataName:
    """What the name of a data archive says; ``arena`` if it waits to be joined."""

    host_id: bytes
    archive_id: bytes
    arena: bool


def edition_name(number: int, salt: bytes) -> str:
    """Name of an edition.

    Args:
        number: Its number, from 1.
        salt: 8 random bytes, so that two editions made at the same time have different names.

    Raises:
        UsageError: An argument is out of bounds.
    """
    return f"{EDITIONS}{_digits(number, _EDITION_DIGITS)}-{_hex(salt, SALT_SIZE)}"


def parse_edition_name(name: str) -> tuple[int, bytes] | None:
    """Number and salt, or None."""
    match = _EDITION.fullmatch(name)
    number = _number(match[1], _EDITION_DIGITS) if match else None
    return None if match is None or number is None else (number, bytes.fromhex(match[2]))


def meta_name(host_id: bytes, sequence: int, archive_id: bytes) -> str:
    """Name of a metadata archive; ``UsageError`` if an argument is out of bounds."""
    return f"{META}{_hex(host_id, ID_SIZE)}/{_digits(sequence, _SEQUENCE_DIGITS)}-{_hex(archive_id, ID_SIZE)}{_SUFFIX}"


def parse_meta_name(name: str) -> MetaName | None:
    """Host, sequence number and archive, or None."""
    match = _META.fullmatch(name)
    sequence = _number(match[2], _SEQUENCE_DIGITS) if match else None
    if match is None or sequence is None:
        return None
    return MetaName(bytes.fromhex(match[1]), sequence, bytes.fromhex(match[3]))


def data_name(host_id: bytes, archive_id: bytes, *, arena: bool) -> str:
    """Name of a data archive; ``UsageError`` if an id has another length."""
    return f"{ARENA if arena else DATA}{_hex(host_id, ID_SIZE)}/{_hex(archive_id, ID_SIZE)}{_SUFFIX}"


def parse_data_name(name: str) -> DataName | None:
    """Host, archive and place, or None."""
    match = _DATA.fullmatch(name)
    if match is None:
        return None
    return DataName(bytes.fromhex(match[2]), bytes.fromhex(match[3]), arena=match[1] == "arena")


def gone_name(host_id: bytes, archive_id: bytes) -> str:
    """Name of a tombstone; ``UsageError`` if an id has another length."""
    return f"{GONE}{_hex(host_id, ID_SIZE)}/{_hex(archive_id, ID_SIZE)}"


def parse_gone_name(name: str) -> tuple[bytes, bytes] | None:
    """Host and archive, or None."""
    match = _GONE.fullmatch(name)
    return None if match is None else (bytes.fromhex(match[1]), bytes.fromhex(match[2]))


def probe_place(host_id: bytes | None) -> str:
    """Prefix below which probes by a host, or by people, write; vault.md, section 10."""
    return f"{PROBE}{_PEOPLE if host_id is None else _hex(host_id, ID_SIZE)}/"


def probe_name(host_id: bytes | None, seconds: int, salt: bytes) -> str:
    """Name of the report of a probe, begun at a time in seconds since 1970."""
    return f"{probe_place(host_id)}{_digits(seconds, _TIME_DIGITS)}-{_hex(salt, SALT_SIZE)}.json"


def parse_probe_name(name: str) -> int | None:
    """Seconds since 1970 that the name of a report says, or None."""
    match = _PROBE.fullmatch(name)
    return None if match is None else _number(match[2], _TIME_DIGITS)


def _hex(value: bytes, size: int) -> str:
    if len(value) != size:
        msg = f"{size} bytes are needed for a name, not {len(value)}"
        raise UsageError(msg)
    return value.hex()


def _digits(number: int, width: int) -> str:
    if not 1 <= number <= MAX_U64:
        msg = f"numbers in names begin with 1 and have 64 bits; {number} does not"
        raise UsageError(msg)
    return f"{number:0{width}d}"


def _number(digits: str, width: int) -> int | None:
    number = int(digits)
    return number if 1 <= number <= MAX_U64 and digits == f"{number:0{width}d}" else None
