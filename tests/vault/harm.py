"""Bytes that do not compress, and what may happen to stored objects."""

from __future__ import annotations

import random
from pathlib import Path

from rozenfmt.format.registry import Kind

from .site import Site


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that look random, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def flip(path: Path, at: int) -> None:
    """Change one bit of an object; from its end if ``at`` is negative."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def object_of(site: Site, archive_id: str) -> Path:
    """The object of an archive."""
    (path,) = [path for path in site.objects() if archive_id in path.name]
    return path


def blocks_of(site: Site, archive_id: str, block_type: bytes) -> list[tuple[int, int, int]]:
    """Number, offset and length of an archive's blocks of one type."""
    name = str(object_of(site, archive_id).relative_to(site.url))
    kind = Kind.METADATA if name.startswith("meta/") else Kind.DATA
    with site.reader() as vault:
        source = vault._reading().open(name, site.host.host_id, bytes.fromhex(archive_id), kind)
        found = [(number, *source.place(number)[:3]) for number in range(source.root.body.first)]
    return [(number, offset, length) for number, offset, length, one in found if one == block_type]


def flip_block(site: Site, archive_id: str, block_type: bytes, which: int = 0) -> int:
    """Change one bit in the middle of a block; returns its number."""
    number, offset, length = blocks_of(site, archive_id, block_type)[which]
    flip(object_of(site, archive_id), offset + length // 2)
    return number
