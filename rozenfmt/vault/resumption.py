"""What a run finds in the journal of one that was killed, and makes of it (vault.md, section 7.3).

A data archive goes on with its next block: the files are read again, and what is stored already is
recognised by its id.  The metadata archive goes on too, since its nodes are recognised in the same
way; one that refers to a block that was lost is simply not found again, and nothing refers to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from rozenfmt.errors import StorageError
from rozenfmt.format.registry import Kind

from . import layout
from .output import ArchiveOutput

if TYPE_CHECKING:
    from rozenfmt.storage.base import Storage

    from .catalog import Catalog
    from .journal import Journal, Row, Saved
    from .output import Sealing

__all__ = ["Resumption"]


class Resumption:
    """Archives of a run that was killed, taken over by the run that goes on.

    Args:
        storage: The vault's folder.
        catalog: What is in them is noted there.
        journal: The dead run's, which is this run's now.
        sealing: Of this run.
        is_there: Whether an archive of this id and length is in the storage.

    Attributes:
        outputs: Data archives to go on with, by local number.
        stored: Bytes that need not be sent again.
    """

    def __init__(
        self,
        storage: Storage,
        catalog: Catalog,
        journal: Journal,
        sealing: Sealing,
        is_there: Callable[[bytes, int], bool],
    ) -> None:
        self._storage = storage
        self._catalog = catalog
        self._journal = journal
        self._sealing = sealing
        self._is_there = is_there
        self._rest = journal.saved()
        self.outputs: dict[int, ArchiveOutput] = {}
        self.stored = 0

    def data(self) -> None:
        """Take over data archives."""
        for saved in list(self._rest):
            under = saved.under
            if under.kind != Kind.DATA:
                continue
            number = self._catalog.archive_number(under.archive_id, under.kind)
            if saved.length and self._is_there(under.archive_id, saved.length):
                # The run died after the storage had completed it, and before it could note that.
                for _, rows in _by_block(self._journal.pieces(under.archive_id)):
                    self._catalog.add_pieces((key, number, block, piece, size) for key, block, piece, size in rows)
                self._catalog.complete_data(number, saved.length)
                self._journal.drop(under.archive_id)
                self._rest.remove(saved)
                self.stored += saved.length
            elif under.bound == self._sealing.epoch.id:
                output = self._resume(saved)
                if output is None:
                    continue
                for block, rows in _by_block(chain(self._journal.pieces(under.archive_id), output.found)):
                    output.encoder.index.add_content([row[0] for row in rows], block)
                    self._catalog.add_pieces((key, number, block, piece, size) for key, _, piece, size in rows)
                self.outputs[number] = output
                if output.closed:
                    output.finish()
                    self._catalog.complete_data(number, output.length)
                    output.settled()
                    del self.outputs[number]

    def metadata(
        self, sequence: int, heads: bytes, *, usable: Callable[[int], bool]
    ) -> tuple[int, ArchiveOutput, Sequence[int]] | None:
        """Take over the metadata archive.

        Args:
            sequence: The lowest number that the snapshot may have.
            heads: What it was bound to besides the epoch, as it would be now.
            usable: Whether an archive of this local number may be referred to.

        Returns:
            Its local number, itself, and the local numbers in the rows of its ``XREF`` from 1 on.
        """
        for saved in self._rest:
            under = saved.under
            name = layout.parse_meta_name(under.name)
            if under.kind != Kind.METADATA or under.bound != self._sealing.epoch.id + heads:
                continue
            if name is None or name.sequence < sequence or (saved.length and self._is_there(*_identity(saved))):
                continue
            return self._take_metadata(saved, usable)
        return None

    def _take_metadata(
        self, saved: Saved, usable: Callable[[int], bool]
    ) -> tuple[int, ArchiveOutput, Sequence[int]] | None:
        output = self._resume(saved)
        if output is None:
            return None
        numbered = self._catalog.numbers_of(output.found_numbers)
        if numbered is None or not all(map(usable, numbered)):
            self.stored -= output.resumed
            output.discard()
            return None
        one = saved.under.archive_id
        number = self._catalog.archive_number(one, saved.under.kind)
        for block, rows in _by_block(chain(self._journal.pieces(one), output.found)):
            self._catalog.add_nodes((key, number, block, piece) for key, _, piece, _ in rows)
        return number, output, numbered

    @staticmethod
    def sequence_of(output: ArchiveOutput) -> int:
        """The sequence number in the name of a metadata archive."""
        name = layout.parse_meta_name(output.name)
        assert name is not None
        return name.sequence

    def drop_rest(self) -> list[str]:
        """Remove what cannot be gone on with: it is this host's own, and nothing refers to it.

        Returns:
            What could not be removed, in words.
        """
        left = []
        for saved in self._rest:
            upload = None if saved.length and self._is_there(*_identity(saved)) else self._storage.resume(saved.upload)
            try:
                if upload is not None:
                    upload.discard()
            except StorageError as error:  # it costs storage, and stands in the way of nothing
                left.append(f"an unfinished upload that is of no use any more could not be removed: {error}")
            self._journal.drop(saved.under.archive_id)
        self._rest = []
        for one, leftover in self._journal.unsaved():
            try:
                self._storage.remove_leftover(leftover)
            except StorageError as error:
                left.append(f"an unfinished upload that is of no use any more could not be removed: {error}")
            self._journal.drop(one)
        return left

    def give_up(self, error: BaseException, *, taken: bool) -> None:
        """The run ends early.

        Args:
            error: Why.
            taken: The data archives are somebody else's to give up.
        """
        if not taken:
            for output in self.outputs.values():
                output.give_up(error)

    def _resume(self, saved: Saved) -> ArchiveOutput | None:
        output = ArchiveOutput.resume(self._storage, saved, self._sealing, self._journal)
        self._rest.remove(saved)
        if output is None:
            self._journal.drop(saved.under.archive_id)
            return None
        self.stored += output.resumed
        return output


def _by_block(pieces: Iterable[Row]) -> Iterator[tuple[int, list[Row]]]:
    for block, rows in groupby(pieces, key=itemgetter(1)):
        yield block, list(rows)


def _identity(saved: Saved) -> tuple[bytes, int]:
    return saved.under.archive_id, saved.length
