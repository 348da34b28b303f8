"""``rozenfmt.join``: archives back to back in one object, without a key (format.md, sections 2 and 5.6)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from rozenfmt.errors import UsageError
from rozenfmt.format import records
from rozenfmt.format.blocks import Draft
from rozenfmt.format.codecs import Compression
from rozenfmt.format.encoder import Encoder
from rozenfmt.format.header import build_header
from rozenfmt.format.records import BlockRecord, DirectoryBody, HeaderRecord
from rozenfmt.format.registry import Codec, Kind, Suite

from .opening import opened
from .source import Member, ObjectReader, list_members

if TYPE_CHECKING:
    from rozenfmt.storage.bandwidth import Bandwidth
    from rozenfmt.storage.base import Storage
    from rozenfmt.storage.retry import RetryPolicy

__all__ = ["directory_archive", "join"]


def join(
    location: str | os.PathLike[str],
    members: Iterable[str | os.PathLike[str]],
    *,
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
) -> list[Member]:
    """Copy archives into one object, which stays readable with each archive's own key.

    The bytes of the archives are not changed; a small directory archive follows them.  Objects
    that are joined already may be joined again; their own directories are left out.

    Args:
        location: Path or URL of the new object.
        members: Paths or URLs of the archives, in order.
        overwrite: Replace an object of this name.
        storage_options: For fsspec, for all of them.
        retry: How long failed requests to the storage are made again; None for the defaults.
        bandwidth: Limits of what goes to the storage and comes from it.

    Returns:
        The archives in the new object, the directory last.

    Raises:
        ArchiveError: A member has no valid tail and footer.
        UsageError: There are no members, or two have the same id.
        StorageError: The storage fails; nothing is left.
    """
    with ExitStack() as stack:
        open_one = partial(opened, storage_options=storage_options, retry=retry, bandwidth=bandwidth)
        return _join(stack, open_one, location, members, overwrite=overwrite)


def _join(
    stack: ExitStack,
    open_one: Callable[[str | os.PathLike[str]], AbstractContextManager[tuple[Storage, str]]],
    location: str | os.PathLike[str],
    members: Iterable[str | os.PathLike[str]],
    *,
    overwrite: bool,
) -> list[Member]:
    sources = []
    for member in members:
        storage, name = stack.enter_context(open_one(member))
        found = list_members(ObjectReader(storage, name, os.fsdecode(member)))
        sources += [(storage, name, one) for one in found if one.kind is not Kind.DIRECTORY]
    if not sources:
        msg = "name at least one archive to join"
        raise UsageError(msg)
    if len({one.archive_id for _, _, one in sources}) < len(sources):
        msg = "the same archive is named twice"
        raise UsageError(msg)
    storage, name = stack.enter_context(open_one(location))
    total = sum(one.length for _, _, one in sources)
    upload = storage.create(name, overwrite=overwrite, expected_size=total + 65_536)
    try:
        joined: list[Member] = []
        for origin, origin_name, one in sources:
            at = upload.written
            for chunk in origin.stream(origin_name, one.offset, one.offset + one.length):
                upload.write(chunk)
            joined.append(Member(one.archive_id, one.kind, at, one.length))
        at = upload.written
        archive_id = os.urandom(16)
        directory = directory_archive(archive_id, joined)
        upload.write(directory)
        upload.commit()
    except BaseException:
        upload.discard()
        raise
    return [*joined, Member(archive_id, Kind.DIRECTORY, at, len(directory))]


def directory_archive(archive_id: bytes, members: Iterable[Member]) -> bytes:
    """The directory archive that ends a joined object."""
    from rozenfmt import __version__

    record = HeaderRecord(
        archive_id=archive_id,
        kind=int(Kind.DIRECTORY),
        suite=int(Suite.PLAIN),
        features=(),
        padding=(1, 1, 1),
        creator=f"rozenfmt {__version__}",
        id_key=0,
    )
    encoder = Encoder(build_header(record, None), None, entropy=os.urandom)
    body = records.encode(DirectoryBody(members=tuple((m.archive_id, m.offset, m.length) for m in members)))
    out = [encoder.begin()]
    out += encoder.write(Draft(b"DIRY", BlockRecord(), body, Compression(Codec.STORED))).buffers
    out += encoder.finish()
    return b"".join(out)
