"""``rozenfmt.open``: list, look up, read and extract a self-contained archive."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from rozenfmt.errors import BlockError, UnsupportedError
from rozenfmt.events import ProgressCallback
from rozenfmt.format.nodes import Entry, Node
from rozenfmt.format.registry import Kind as ArchiveKind
from rozenfmt.format.registry import Right
from rozenfmt.keys import Identity, Passphrase, VerifyKey

from .entries import ArchiveEntry
from .opening import opened, retries_told
from .source import ArchiveSource, Member, ObjectReader, list_members
from .treereader import Place, TreeReader, clean_path

if TYPE_CHECKING:
    from rozenfmt.storage.bandwidth import Bandwidth
    from rozenfmt.storage.retry import RetryPolicy

    from .contents import PartTable
    from .extract import ExtractResult

__all__ = ["Archive", "ArchiveEntry", "members", "open_archive"]


def open_archive(
    location: str | os.PathLike[str],
    *,
    identities: Iterable[Identity | Passphrase] = (),
    verify_key: VerifyKey | None = None,
    allow_plain: bool = False,
    member: bytes | int | None = None,
    storage_options: dict[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
) -> Archive:
    """Open a self-contained archive for reading.

    Args:
        location: Path or URL.
        identities: Keys and passphrases to try.
        verify_key: The writer that must have signed it.
        allow_plain: Read an archive without encryption although identities were given.
        member: In a joined object, the archive's id or its number from 0.
        storage_options: For fsspec: credentials, endpoint and the like.
        retry: How long failed requests to the storage are made again; None for the defaults.
        bandwidth: Limits of what goes to the storage and comes from it.

    Raises:
        NoMatchingKey, WrongPassphrase: No identity fits.
        SignatureError: It is not signed by ``verify_key``.
        ArchiveError: It is damaged, cut off or not supported; the message says what to do.
        StorageError: The storage fails or does not hold it.

    Specification: format.md, section 12.
    """
    with ExitStack() as stack:
        storage, name = stack.enter_context(opened(location, storage_options, retry, bandwidth))
        archive = _open(
            ObjectReader(storage, name, os.fsdecode(location)), identities, verify_key, member, allow_plain=allow_plain
        )
        archive.keep_open(stack.pop_all())
        return archive


def _open(
    reader: ObjectReader,
    identities: Iterable[Identity | Passphrase],
    verify_key: VerifyKey | None,
    member: bytes | int | None,
    *,
    allow_plain: bool,
) -> Archive:
    source = ArchiveSource.open(
        reader,
        tuple(identities),
        verify_key=verify_key.ed25519 if verify_key is not None else None,
        allow_plain=allow_plain,
        member=member,
    )
    if source.header.kind is not ArchiveKind.SELF_CONTAINED:
        msg = f"this is a {source.header.kind.name.lower()} archive; it has no tree of its own"
        raise UnsupportedError(msg, object=reader.name, clause="5")
    return Archive(source)


def members(
    location: str | os.PathLike[str],
    *,
    storage_options: dict[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
) -> list[Member]:
    """The archives in an object, first to last; needs no key.

    Args:
        location: Path or URL.
        storage_options: For fsspec.
        retry: How long failed requests to the storage are made again; None for the defaults.
        bandwidth: Limits of what goes to the storage and comes from it.

    Raises:
        ArchiveError: A tail or footer is damaged.
        StorageError: The storage fails.
    """
    with opened(location, storage_options, retry, bandwidth) as (storage, name):
        return list_members(ObjectReader(storage, name, os.fsdecode(location)))


class Archive(TreeReader):
    """A self-contained archive, opened for reading; made by ``rozenfmt.open``.

    Iterating gives every entry, directories before what is in them, names in bytewise order.
    """

    def __init__(self, source: ArchiveSource) -> None:
        super().__init__()
        self._source = source
        self._resources = ExitStack()

    # --- about ----------------------------------------------------------------------------------

    @property
    def archive_id(self) -> bytes:
        """16 bytes that name the archive."""
        return self._source.header.archive_id

    @property
    def right(self) -> Right:
        """What the key at hand allows: everything, or names and sizes only."""
        assert self._source.keys is not None
        return self._source.keys.right

    @property
    def signer(self) -> VerifyKey | None:
        """Who signed the archive; the signature was verified when it was opened."""
        signer = self._source.header.record.signer
        return VerifyKey(signer) if signer is not None else None

    @property
    def entry_count(self) -> int:
        """Entries in the archive."""
        return (self._source.root.body.totals or (0, 0))[0]

    @property
    def content_bytes(self) -> int:
        """Bytes of content in them."""
        return (self._source.root.body.totals or (0, 0))[1]

    @property
    def stored_bytes(self) -> int:
        """Length of the archive in bytes, up to its footer."""
        return self._source.foot.offset

    @property
    def requests(self) -> tuple[int, int]:
        """Range requests made so far, and bytes that they brought."""
        return self._source.reader.requests, self._source.reader.bytes_read

    # --- where things are -----------------------------------------------------------------------

    @property
    def source(self) -> ArchiveSource:
        """The blocks below; internal."""
        return self._source

    def source_of(self, number: int) -> ArchiveSource:  # noqa: ARG002 -- there is but one
        """The blocks below; internal."""
        return self._source

    def root_place(self) -> Place:
        """Where the root directory's node is; internal."""
        root = self._source.root.body.root
        if root is None:
            msg = "the index names no root directory; salvage reads the archive without it"
            raise BlockError(msg, object=self._source.reader.name, clause="9")
        return (root[0], 0, *root[1:])

    def _is_of(self, node: Node, path: bytes) -> bool:
        return node.path == path

    def _find(self, path: bytes) -> Entry | None:
        """One look-up in the index, whatever the depth."""
        parent, _, name = path.rpartition(b"/")
        place = self._source.find_directory(parent)
        return self._search((None, 0, *place), parent, name) if place is not None else None

    def in_parts(self, entry: Entry) -> bool:
        """Whether a content is a stream, and not one piece; internal."""
        block_type = self._source.place(entry.block)[2]
        if block_type not in (b"PACK", b"FEND"):
            raise self.broken(0, entry.block, "a content is said to be where none can be")
        return block_type == b"FEND"

    def _table(self, entry: Entry) -> PartTable:
        block = self._source.block(entry.block)
        if block.record.length != entry.size or block.record.content_id != entry.content_id:
            raise self.broken(0, entry.block, "a stream is not the content that refers to it")
        return self.table(Node.decode(block.body), 0, entry.block, entry.size)

    def extract(
        self,
        destination: str | bytes | os.PathLike[str],
        *,
        paths: Iterable[str | bytes] = (),
        overwrite: Literal["never", "if-changed", "always"] = "never",
        owners: bool | None = None,
        numeric_owners: bool = False,
        xattrs: bool = True,
        workers: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> ExtractResult:
        """Restore entries below a directory.  Nothing can be written outside of it.

        Args:
            destination: Directory, made if missing.
            paths: What to restore, with all below; everything by default. Parents are made as they were.
            overwrite: What to do with files that stand there.
            owners: Restore owners; by default only as root.
            numeric_owners: By number, not by name first.
            xattrs: Restore extended attributes and ACLs.
            workers: Threads that fetch and open blocks.
            progress: Called with events.

        Returns:
            What was restored and what was not.

        Raises:
            UsageError: A path is not in the archive.
            ArchiveError: A block is damaged. What was restored before stays.
            StorageError: The destination is full or cannot be written.
        """
        from .extract import extract

        with retries_told(self._source.reader.storage, progress):
            return extract(
                self,
                destination,
                paths=[clean_path(path) for path in paths],
                overwrite=overwrite,
                owners=owners,
                numeric_owners=numeric_owners,
                xattrs=xattrs,
                workers=workers,
                progress=progress,
            )

    # --- end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Drop what is cached and close the connections to the storage."""
        self._nodes.clear()
        self._resources.close()

    def keep_open(self, resources: ExitStack) -> None:
        """Take over what ``close`` is to give back; internal."""
        self._resources = resources

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
