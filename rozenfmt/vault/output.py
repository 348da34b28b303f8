"""One archive of a vault on its way into the storage: header for an epoch, encoder, pipeline, upload, journal."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from rozenfmt.archive.pipeline import Pipeline, default_workers
from rozenfmt.archive.writer import TempRuns
from rozenfmt.errors import RozenError, SourceError, StorageError
from rozenfmt.format import crypto
from rozenfmt.format.blocks import SealedBlock
from rozenfmt.format.crypto import Keys
from rozenfmt.format.encoder import Encoder
from rozenfmt.format.header import build_header, parse_header
from rozenfmt.format.index import IndexBuilder
from rozenfmt.format.records import HeaderRecord
from rozenfmt.format.registry import Kind, Right, StanzaType, Suite

from .journal import Under
from .spool import Spool

if TYPE_CHECKING:
    from rozenfmt.format.blocks import Draft
    from rozenfmt.storage.base import Mark, Storage, Upload

    from .editions import Epoch
    from .hostkey import HostKey
    from .journal import Journal, Row, Saved

__all__ = ["HOST_ID_KEY", "PADDING", "ArchiveOutput", "Sealing", "is_passing"]

HOST_ID_KEY: Final = 1
PADDING: Final = (1024, 2048, 1024)

# With parts of 8 MiB, four of them in flight, a crash costs at most 60 MiB that are sent once more:
# a part, those in flight, a block, and what lies between two marks.
_MARK_EVERY: Final = 16 << 20
_TAIL: Final = 4 << 20
_PIECES: Final = 20_000  # of small files a mark may be far away


@dataclass(frozen=True, slots=True)
class Sealing:
    """How a run seals its archives.

    Attributes:
        host: Signs them and makes their content ids.
        epoch: To whose keys they are wrapped.
        suite: The AEAD.
        workers: Threads that compress and seal; 0 for one for each processor.
        decode_check: Open every sealed block again before it is written.
    """

    host: HostKey
    epoch: Epoch
    suite: Suite = Suite.XCHACHA20_POLY1305
    workers: int = 0
    decode_check: bool = True


class ArchiveOutput:
    """An archive that is being written; nothing of it is visible before ``finish`` returns.

    At a mark between two blocks, every 16 MiB or so, the journal learns how to go on from there.  What
    comes after the last mark is sent again under the same part numbers, or is spooled first where the
    storage does not take other bytes for a part that it has.

    Args:
        under: What it is.
        keys: Its keys.
        upload: Where it goes.
        sealing: Keys and ways.
        journal: Where its progress is kept.
        saved: How far it came before, for one that is resumed.

    Attributes:
        archive_id: 16 bytes.
        name: Of the object.
        own: Whether it holds one big content alone.
        length: Total length in bytes, once it is finished.
        foot_hash: Whole hash of ``FOOT``, once it is finished.
        resumed: Bytes that were stored before.
        closed: The run before this one came as far as the footer: nothing can be added.
        numbers: Gives the ids of the archives in ``XREF`` after so many rows.
        found: What was found in blocks after the mark, for the catalog.
        found_numbers: Ids of the archives in ``XREF``, from row 1 on, of one that is resumed.
    """

    def __init__(
        self,
        under: Under,
        keys: Keys,
        upload: Upload,
        sealing: Sealing,
        *,
        journal: Journal | None,
        saved: Saved | None = None,
    ) -> None:
        self.archive_id = under.archive_id
        self.name = under.name
        self.own = under.own
        self.length = 0
        self.foot_hash = b""
        self.resumed = upload.written
        self.closed = False
        self.found: list[Row] = []
        self.found_numbers: list[bytes] = []
        self.numbers: Callable[[int], list[bytes]] = lambda _known: []
        self._under = under
        self._upload = upload
        self._journal = journal
        self._saved = saved is not None  # whether the journal knows how to go on with it
        self._noted = saved is not None  # whether the journal knows of it
        self._blocks: list[tuple[int, bytes, bytes, int]] = []
        self._pieces: deque[Row] = deque()
        self._numbers_saved = 0
        self._spool = None if journal is None else Spool(f"{journal.path}.{under.archive_id.hex()}", under.archive_id)
        self._spooling = False
        self._numbers_spooled = 0
        self._mark: tuple[Mark, int] | None = None
        self._next_mark = upload.written + _MARK_EVERY
        self._runs = TempRuns()
        self.encoder = Encoder(
            parse_header(under.header),
            keys,
            entropy=os.urandom,
            signer_seed=sealing.host.signing.seed,
            index=IndexBuilder(self._runs),
        )
        self._pipeline = Pipeline(
            self.encoder,
            self._write,
            workers=sealing.workers or default_workers(),
            decode_check=sealing.decode_check,
        )
        if saved is None:
            upload.write(self.encoder.begin())
            if journal is not None:
                self._note_upload()
        else:
            self.encoder.replay(saved.blocks)

    @classmethod
    def begin(
        cls,
        storage: Storage,
        name: str,
        archive_id: bytes,
        kind: Kind,
        sealing: Sealing,
        *,
        journal: Journal | None = None,
        expected_size: int | None = None,
        own: bool = False,
        bound: bytes = b"",
    ) -> ArchiveOutput:
        """Begin an archive.

        Args:
            storage: The vault's folder.
            name: Of the object.
            archive_id: 16 random bytes.
            kind: Data or metadata.
            sealing: Keys and ways.
            journal: Where its progress is kept.
            expected_size: Bytes that it will have, as far as known.
            own: It holds one big content alone.
            bound: What must be the same when it is gone on with, besides the epoch.
        """
        record, keys = _header(archive_id, kind, sealing)
        assert keys.secret is not None
        section = build_header(record, keys).section
        under = Under(archive_id, kind, own, name, sealing.epoch.id + bound, keys.secret, section)
        upload = storage.create(name, expected_size=expected_size)
        try:
            return cls(under, keys, upload, sealing, journal=journal)
        except BaseException:
            upload.discard()
            raise

    @classmethod
    def resume(cls, storage: Storage, saved: Saved, sealing: Sealing, journal: Journal) -> ArchiveOutput | None:
        """Go on with an archive; None if its upload is gone."""
        upload = storage.resume(saved.upload)
        if upload is None:
            return None
        header = parse_header(saved.under.header)
        keys = Keys.from_secret(header.suite, saved.under.archive_id, saved.under.secret)
        keys = replace(keys, id_key=sealing.host.id_key)
        journal.go_on(saved.under.archive_id, len(saved.blocks))
        try:
            output = cls(saved.under, keys, upload, sealing, journal=journal, saved=saved)
        except BaseException:
            upload.suspend()
            raise
        try:
            numbers = journal.numbers(saved.under.archive_id)
            output._numbers_saved = len(numbers)
            output._replay(numbers)
            if (output.closed and saved.under.kind == Kind.METADATA) or not upload.can_go_on():
                output.discard()
                return None
            if not output.closed and not upload.replaces_parts:
                output._begin_spool(output.encoder.next_sequence)
        except BaseException:
            output.suspend()
            raise
        return output

    def _replay(self, numbers: list[bytes]) -> None:
        """Send what was spooled since the mark."""
        assert self._spool is not None
        for spooled in self._spool.blocks(self.encoder.next_sequence):
            self.encoder.replay([(spooled.type, spooled.whole_hash, len(spooled.data))])
            self._blocks.append((spooled.sequence, spooled.type, spooled.whole_hash, len(spooled.data)))
            self._pieces.extend(spooled.pieces)
            self.found.extend(spooled.pieces)
            first, ids = spooled.numbered
            numbers[first:] = [*ids, *numbers[first + len(ids) :]]
            self._upload.write(spooled.data)
        if self._spool.ended:
            self.closed = True
            for buffer in self._spool.ending():
                self._upload.write(buffer)
        self.resumed = self._upload.written
        self.found_numbers = numbers

    @property
    def stored(self) -> int:
        """Bytes that were given out so far."""
        return self.encoder.offset

    @property
    def written(self) -> int:
        """Bytes that this run gave out so far."""
        return self.encoder.offset - self.resumed

    def note(self, pieces: Iterable[Row]) -> None:
        """Tell what is in a block that was submitted, for the journal."""
        if self._journal is not None:
            self._pieces.extend(pieces)

    def submit(self, draft: Draft) -> int:
        """Number a draft and have it sealed and written; waits while too many are under way."""
        return self._pipeline.submit(draft)

    def drain(self) -> None:
        """Wait until everything submitted is written."""
        self._pipeline.drain()

    def close_blocks(self) -> Iterator[bytes]:
        """Index, footer and tail, after the last block."""
        self._pipeline.drain()
        yield from self.encoder.finish()

    def finish(self) -> None:
        """Write index and footer, and make the archive visible.

        Raises:
            StorageError: It could not be stored. The caller suspends or discards it.
        """
        if not self.closed:
            buffers = self.close_blocks()
            for buffer in self._spool.end(buffers) if self._spooling and self._spool is not None else buffers:
                self._upload.write(buffer)
            assert self.encoder.foot_hash is not None
            self.foot_hash = self.encoder.foot_hash
        self.length = self._upload.written
        if self._journal is not None and self._saved:
            self._journal.ending(self.archive_id, self.length, self._pieces)
            self._pieces.clear()
        self._upload.commit(keep=True)
        self._close()

    def settled(self) -> None:
        """What the archive holds is noted elsewhere: the journal may forget it."""
        if self._journal is not None and self._noted:
            self._journal.drop(self.archive_id)
            self._saved = self._noted = False
        if self._spool is not None:
            self._spool.remove()

    def give_up(self, error: BaseException) -> None:
        """Leave it for the next run if that can go on with it: not after what would only happen again."""
        if not isinstance(error, RozenError) or is_passing(error):
            if self._mark is not None:
                self._save(*self._mark)  # more may have arrived since the last block
        else:
            self._saved = False
        if self._saved:
            self.suspend()
        else:
            self.discard()

    def suspend(self) -> None:
        """Leave it as it is, for the next run."""
        self._close()
        self._upload.suspend()

    def discard(self) -> None:
        """Remove what is stored of it; harmless when it is finished, or called again."""
        self._close()
        try:
            self._upload.discard()
        except StorageError:
            return  # what went wrong before is what matters; while it stands in the journal, it is not lost sight of
        self.settled()

    def _close(self) -> None:
        self._pipeline.close()
        self._runs.close()
        if self._spool is not None:
            self._spool.close()

    # --- the journal ----------------------------------------------------------------------------

    def _write(self, block: SealedBlock) -> None:
        if self._journal is not None:
            self._blocks.append((block.sequence, block.type, block.whole_hash, block.length))
        if self._spooling:
            self._spool_block(block)
        for buffer in block.buffers:
            self._upload.write(buffer)
        if self._journal is not None:
            self._note_upload()
            self._look_for_mark(block)
            if len(self._pieces) > _PIECES:
                self._journal.note(self.archive_id, self._pieces_before(block.sequence + 1))

    def _note_upload(self) -> None:
        leftover = None if self._noted else self._upload.leftover
        if leftover is not None:
            assert self._journal is not None
            self._journal.begun(self.archive_id, leftover)
            self._noted = True

    def _look_for_mark(self, block: SealedBlock) -> None:
        # Right behind the boundary between two parts there is little to be written to the journal.
        due = self._next_mark if self._upload.unsent <= _TAIL else self._next_mark + 2 * _TAIL
        if self._mark is None and self.encoder.offset >= due:
            mark = self._upload.mark()
            self._next_mark = self.encoder.offset + _MARK_EVERY
            if mark is not None:
                self._mark = mark, block.sequence + 1
                if not self._upload.replaces_parts:
                    self._begin_spool(block.sequence + 1)
        if self._mark is not None:
            self._save(*self._mark)

    def _begin_spool(self, sequence: int) -> None:
        assert self._spool is not None
        try:
            self._spool.begin(sequence)
        except OSError:
            self._stop_spooling()
        else:
            self._spooling = True
            self._numbers_spooled = self._numbers_saved

    def _spool_block(self, block: SealedBlock) -> None:
        assert self._spool is not None
        first, numbers = self._numbers_spooled, self.numbers(self._numbers_spooled)
        self._numbers_spooled += len(numbers)
        try:
            self._spool.add(block, [row for row in self._pieces if row[1] == block.sequence], (first, numbers))
        except OSError:
            self._stop_spooling()

    def _stop_spooling(self) -> None:
        """A full disk is no reason to give up a backup; after a crash this upload begins again."""
        assert self._spool is not None
        self._spooling = False
        self._spool.remove()

    def _pieces_before(self, sequence: int) -> list[Row]:
        """Take out what is in blocks before this one."""
        pieces = []
        while self._pieces and self._pieces[0][1] < sequence:
            pieces.append(self._pieces.popleft())
        return pieces

    def _save(self, mark: Mark, count: int) -> None:
        state = self._upload.state_at(mark)
        if state is None:
            return
        assert self._journal is not None
        blocks = [row for row in self._blocks if row[0] < count]
        self._blocks = self._blocks[len(blocks) :]
        pieces = self._pieces_before(count)
        numbers = self.numbers(self._numbers_saved)
        rows = list(enumerate(numbers, self._numbers_saved + 1))
        self._numbers_saved += len(rows)
        self._journal.save(self._under, state, count=count, blocks=blocks, pieces=pieces, numbers=rows)
        self._saved = True
        self._mark = None
        if self._journal.broken is not None:
            self._stop_spooling()  # the mark is unknown to the journal, and no earlier one gets here
        elif self._spooling:
            assert self._spool is not None
            self._spool.forget(count)


def is_passing(error: BaseException) -> bool:
    """Whether the same run may come to its end later: the network failed, the storage's or a source's."""
    return (isinstance(error, StorageError) and not error.fatal) or (isinstance(error, SourceError) and error.passing)


def _header(archive_id: bytes, kind: Kind, sealing: Sealing) -> tuple[HeaderRecord, Keys]:
    """Header and keys of a new archive (vault.md, section 2)."""
    from rozenfmt import __version__

    keys = Keys.from_secret(sealing.suite, archive_id, os.urandom(32))
    assert keys.secret is not None
    wraps = (
        (Right.READ, keys.secret, sealing.epoch.read_public),
        (Right.BROWSE, keys.index_key, sealing.epoch.browse_public),
    )
    stanzas = tuple(
        (
            int(StanzaType.X25519),
            int(right),
            crypto.hpke_seal(public, crypto.stanza_info(right, archive_id), secret, os.urandom),
        )
        for right, secret, public in wraps
    )
    record = HeaderRecord(
        archive_id=archive_id,
        kind=int(kind),
        suite=int(sealing.suite),
        features=(),
        padding=PADDING,
        creator=f"rozenfmt {__version__}",
        commit_secret=keys.commitment_to_secret(),
        commit_index=keys.commitment_to_index_key(),
        stanzas=stanzas,
        signer=sealing.host.signing.verify_key.ed25519,
        id_key=HOST_ID_KEY,
    )
    return record, replace(keys, id_key=sealing.host.id_key)
