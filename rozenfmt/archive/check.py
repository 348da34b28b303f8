"""``rozenfmt.check``: every stored byte without a key, everything with one."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.archive.workers import worker_pool
from rozenfmt.errors import ArchiveError
from rozenfmt.events import Progress, ProgressCallback
from rozenfmt.format.blocks import Block, Opener
from rozenfmt.format.builders import TAIL_SIZE
from rozenfmt.format.decoder import Grammar, RawBlock, RawHeader, RawTail, Splitter, open_raw, opener_for, parse_tail
from rozenfmt.format.header import ID_KEY_OF_HOST, PREAMBLE_SIZE, Unwrapper, parse_header, unlock
from rozenfmt.format.limits import MAX_HEADER_RECORD
from rozenfmt.format.registry import Kind
from rozenfmt.keys import Identity, Passphrase, VerifyKey

from .framescan import Gap, scan_frames
from .opening import opened, retries_told
from .pipeline import default_workers
from .verify import ContentVerifier
from .writer import TempRuns

if TYPE_CHECKING:
    from rozenfmt.storage.bandwidth import Bandwidth
    from rozenfmt.storage.base import Storage
    from rozenfmt.storage.retry import RetryPolicy

__all__ = ["CheckReport", "Damage", "Seen", "check", "check_object"]

_PROGRESS_SECONDS: Final = 0.1
_Bytes = bytes  # a report has a field of this name

Seen = Callable[[Block, list[bytes]], None]
"""Told of each block that is right, in order, with the content ids of its pieces as far as keys allow."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One place that is damaged.

    Attributes:
        offset: Byte offset in the object.
        block: Number of the block concerned, if known.
        failure_class: One of the specification's classes (format.md, section 16).
        message: What is wrong and what follows from it.
        object: The object, where a report is about several.
    """

    offset: int
    block: int | None
    failure_class: str
    message: str
    object: str = ""


@dataclass(slots=True)
class CheckReport:
    """What was checked.

    Attributes:
        object: The object.
        level: ``stored`` (no key: hashes of every byte), ``browse`` (names and structure too) or
            ``contents`` (everything).
        archives: Archives found in the object.
        blocks: Blocks verified.
        bytes: Stored bytes verified.
        entries: Entries seen, with a key.
        content_bytes: Bytes of content that the entries name, with a key.
        signers: Ed25519 keys whose signatures verified.
        damages: What is wrong; empty if all is well.
        seconds: Time taken.
    """

    object: str
    level: str = "stored"
    archives: int = 0
    blocks: int = 0
    bytes: int = 0
    entries: int = 0
    content_bytes: int = 0
    signers: list[_Bytes] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    seconds: float = 0.0


def check(
    location: str | os.PathLike[str],
    *,
    identities: Iterable[Identity | Passphrase] = (),
    verify_key: VerifyKey | None = None,
    allow_plain: bool = False,
    storage_options: dict[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> CheckReport:
    """Check an object from its first byte to its last.

    Without a key: hashes of every block, header and tail, order, chain, footer, signature.  With one:
    also that everything opens, that contents have their ids, and that directories, index and blocks
    agree.  Joined objects are checked whole.

    Args:
        location: Path or URL.
        identities: Keys and passphrases to try; none for a check without a key.
        verify_key: The writer that must have signed each archive.
        allow_plain: Accept archives without encryption although identities were given.
        storage_options: For fsspec.
        retry: How long failed requests to the storage are made again; None for the defaults.
        bandwidth: Limits of what goes to the storage and comes from it.
        workers: Threads that verify and open blocks.
        progress: Called with events.

    Raises:
        ArchiveError: Something is damaged; its class is that of the first damage, and ``report`` lists all.
        StorageError: The storage fails.

    Specification: format.md, section 11.
    """
    label = os.fsdecode(location)
    started = time.monotonic()
    with opened(location, storage_options, retry, bandwidth) as (storage, name), retries_told(storage, progress):
        job = _Check(
            CheckReport(label),
            tuple(identities),
            verify_key.ed25519 if verify_key is not None else None,
            allow_plain=allow_plain,
            workers=workers or default_workers(),
            progress=progress,
            total=storage.size(name),
        )
        try:
            job.run(storage, name)
        except ArchiveError as error:
            error.object = label
            _list_damage(job.report, error, storage, name, job.base)
            job.report.seconds = time.monotonic() - started
            error.report = job.report
            raise
        finally:
            job.close()
    job.report.seconds = time.monotonic() - started
    return job.report


def check_object(
    storage: Storage,
    name: str,
    *,
    identities: Sequence[Unwrapper] = (),
    id_key: bytes | None = None,
    verify_key: bytes | None = None,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    seen: Seen | None = None,
) -> tuple[CheckReport, ArchiveError | None]:
    """Check one object of a vault, as ``check`` does; internal.

    Args:
        storage: Where it is.
        name: Its name there.
        identities: What opens it; none for a check without a key.
        id_key: The host's, if content ids are to be compared.
        verify_key: Ed25519 key that must have signed it.
        workers: Threads that verify and open blocks.
        progress: Called with events.
        seen: Told of each block that is right.

    Returns:
        What was checked, and what ended it: the first damage, if there is any.

    Raises:
        StorageError: The storage fails.
    """
    started = time.monotonic()
    job = _Check(
        CheckReport(name),
        tuple(identities),
        verify_key,
        allow_plain=False,
        workers=workers or default_workers(),
        progress=progress,
        total=storage.size(name) if progress is not None else 0,
        id_key=id_key,
        seen=seen,
    )
    found = None
    try:
        job.run(storage, name)
    except ArchiveError as error:
        error.object = name
        found = error
    finally:
        job.close()
    job.report.seconds = time.monotonic() - started
    return job.report, found


def _list_damage(report: CheckReport, error: ArchiveError, storage: Storage, name: str, base: int) -> None:
    """The first damage, and whatever else does not verify behind it."""
    at = base + (error.offset or 0)
    report.damages.append(Damage(at, error.block, error.failure_class, error.message))
    for gap in scan_frames(storage, name, at).gaps:
        if gap.start > at and not _between_archives(storage, name, gap):
            msg = f"{gap.length} bytes hold no valid block"
            report.damages.append(Damage(gap.start, None, "block", msg))


def _between_archives(storage: Storage, name: str, gap: Gap) -> bool:
    """Whether a gap is just what stands between blocks: a tail, and the header of the next archive."""
    if gap.length > TAIL_SIZE + PREAMBLE_SIZE + MAX_HEADER_RECORD + 64:
        return False
    data = storage.read(name, gap.start, gap.length)
    try:
        parse_tail(data[:TAIL_SIZE])
        return len(data) == TAIL_SIZE or len(parse_header(data[TAIL_SIZE:]).section) == len(data) - TAIL_SIZE
    except ArchiveError:
        return False


class _Check:
    """One run of ``check``: split in order, open in parallel, judge in order."""

    def __init__(
        self,
        report: CheckReport,
        identities: tuple[Unwrapper, ...],
        verify_key: bytes | None,
        *,
        allow_plain: bool,
        workers: int,
        progress: ProgressCallback | None,
        total: int,
        id_key: bytes | None = None,
        seen: Seen | None = None,
    ) -> None:
        self.report = report
        self.base = 0
        self._identities = identities
        self._verify_key = verify_key
        self._allow_plain = allow_plain
        self._id_key = id_key
        self._seen = seen
        self._progress = progress
        self._total = total
        self._reported = 0.0
        self._pool = worker_pool(workers, "check")
        self._depth = 2 * workers + 2
        self._pending: deque[tuple[RawBlock, Future[tuple[Block, list[bytes]]]]] = deque()
        self._opener: Opener | None = None
        self._grammar: Grammar | None = None
        self._verifier: ContentVerifier | None = None
        self._runs = TempRuns()

    def close(self) -> None:
        self._pending.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._runs.close()

    def run(self, storage: Storage, name: str) -> None:
        """Check the whole object."""
        items = self._items(storage, name)
        while True:
            try:
                item = next(items, None)
            except ArchiveError:
                self._drain()  # an earlier block's error comes first
                raise
            if item is None:
                break
            if isinstance(item, RawBlock):
                assert self._opener is not None
                self._pending.append((item, self._pool.submit(_open, item, self._opener, self._verifier)))
                if len(self._pending) > self._depth:
                    self._judge()
            else:
                self._drain()
                self._section(item)

    def _items(self, storage: Storage, name: str) -> Iterator[RawHeader | RawBlock | RawTail]:
        splitter = Splitter()
        for chunk in storage.stream(name):
            splitter.feed(chunk)
            yield from splitter
        splitter.close()
        yield from splitter

    def _section(self, item: RawHeader | RawTail) -> None:
        if isinstance(item, RawHeader):
            self.base = item.base
            keys = unlock(item.header, self._identities, allow_plain=self._allow_plain)
            if keys is not None and self._id_key is not None and item.header.record.id_key == ID_KEY_OF_HOST:
                keys = replace(keys, id_key=self._id_key)
            directory = item.header.kind is Kind.DIRECTORY
            self._opener = opener_for(item.header, keys)
            self._grammar = Grammar(item.header, keys, None if directory else self._verify_key)
            self._verifier = None if keys is None else ContentVerifier(keys, self._runs, item.header.kind)
            if not directory and keys is not None and self._identities:
                self.report.level = "contents" if keys.secret is not None else "browse"
            elif not directory and keys is not None and item.header.suite == 0:
                self.report.level = "contents"
            return
        assert self._grammar is not None
        self._grammar.accept_tail(item.data, item.offset)
        self.report.bytes = self.base + item.offset + len(item.data)
        if self._verifier is not None:
            self._verifier.finish()
            self.report.entries += self._verifier.entries
            self.report.content_bytes += self._verifier.content_bytes
        self.report.archives += 1
        signer = self._grammar.header.record.signer
        if signer is not None and signer not in self.report.signers:
            self.report.signers.append(signer)

    def _drain(self) -> None:
        while self._pending:
            self._judge()

    def _judge(self) -> None:
        raw, future = self._pending.popleft()
        block, ids = future.result()
        assert self._grammar is not None
        found = self._grammar.accept(block, raw.offset)
        if self._verifier is not None:
            try:
                self._verifier.take(block, raw.offset, found, ids)
            except ArchiveError as error:
                error.offset, error.block = raw.offset, raw.prefix.sequence
                raise
        if self._seen is not None:
            self._seen(block, ids)
        self.report.blocks += 1
        self.report.bytes = self.base + raw.offset + block.length
        now = time.monotonic()
        if self._progress is not None and now - self._reported >= _PROGRESS_SECONDS:
            self._reported = now
            entries = self._verifier.entries if self._verifier is not None else 0
            self._progress(Progress("check", entries, self.report.bytes, 0, self._total, b""))


def _open(raw: RawBlock, opener: Opener, verifier: ContentVerifier | None) -> tuple[Block, list[bytes]]:
    """What can be done with one block apart from its neighbours; runs on a worker."""
    block = open_raw(raw, opener)
    try:
        return block, [] if verifier is None else verifier.ids(block)
    except ArchiveError as error:
        error.offset, error.block = raw.offset, raw.prefix.sequence
        raise
