"""Copies of editions in metadata archives, for when ``editions/`` is damaged or lost (vault.md, section 5.4).

A ``keyr`` block is not sealed, so no key is needed to find it.  What it holds is believed no more
than an object in ``editions/``: the owner's signature decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from rozenfmt.errors import ArchiveError, StorageError
from rozenfmt.format import records
from rozenfmt.format.decoder import opener_for
from rozenfmt.format.frame import PREFIX_SIZE, parse_frame, parse_prefix
from rozenfmt.format.header import parse_header
from rozenfmt.format.snapshots import KeyringBody

from .layout import META, parse_meta_name

if TYPE_CHECKING:
    from rozenfmt.storage.base import ObjectInfo, Storage

__all__ = ["edition_copies"]

_FRONT: Final = 1024 * 1024
_NEWEST: Final = 4  # metadata archives of each host that are looked at


def edition_copies(storage: Storage, report: Callable[[str], None]) -> Iterator[bytes]:
    """Editions that the newest metadata archives of each host carry, unverified.

    Args:
        storage: The vault's folder.
        report: Is told, in words, of archives that could not be looked at.

    Raises:
        StorageError: The vault cannot be listed.
    """
    hosts: dict[bytes, list[tuple[int, ObjectInfo]]] = {}
    for info in storage.list(META):
        name = parse_meta_name(info.name)
        if name is not None:
            hosts.setdefault(name.host_id, []).append((name.sequence, info))
    for found in hosts.values():
        found.sort(key=lambda one: (one[0], one[1].name), reverse=True)
        for _, info in found[:_NEWEST]:
            try:
                yield from _copies_in(storage.read(info.name, 0, min(info.size, _FRONT)))
            except (ArchiveError, StorageError) as error:
                report(f"no copy of an edition in {info.name}: {error}")


def _copies_in(front: bytes) -> Iterator[bytes]:
    header = parse_header(front)
    opener = opener_for(header, None)
    at, sequence = len(header.section), 0
    while at + PREFIX_SIZE <= len(front):
        prefix = parse_prefix(front[at : at + PREFIX_SIZE], header.archive_id, sequence)
        if prefix.type == b"INDX" or at + prefix.frame_length > len(front):
            return
        if prefix.type == b"keyr":
            block = opener.open(parse_frame(front[at : at + prefix.frame_length], prefix))
            yield from records.decode(KeyringBody, block.body, clause="vault 5.4").editions
        at += prefix.frame_length
        sequence += 1
