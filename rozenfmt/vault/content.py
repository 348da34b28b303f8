"""Contents on their way into data archives: looked up, packed, and archives begun and ended as needed.

A content gets a place at once.  While its pack is open the block's number is not known yet: the
place then holds the pack's serial number, as ``-1 - serial``, and ``resolve`` gives the number later.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from rozenfmt.archive.streamwriter import hash_zeros
from rozenfmt.format.builders import PACK_TARGET, PiecesBuilder
from rozenfmt.format.limits import MAX_DECODED, MAX_PIECES
from rozenfmt.format.nodes import Part
from rozenfmt.format.registry import Kind
from rozenfmt.tree.content import Hole

from . import layout
from .ahead import ahead
from .catalog import Place
from .output import ArchiveOutput

if TYPE_CHECKING:
    from collections.abc import Container
    from concurrent.futures import Executor

    from rozenfmt.format.codecs import Compression
    from rozenfmt.storage.base import Storage

    from .catalog import Catalog
    from .journal import Journal
    from .output import Sealing

__all__ = ["ContentStore", "Parts"]

_MOST_PIECES: Final = 4_000_000
# An archive of one content ends here, and another one goes on: about 700 parts of an upload, where some servers take
# 1,000, and of the size that resuming and memory are reckoned with.
_MOST_OF_OWN: Final = 4 << 30


class Parts:
    """A content that is stored in parts: iterate it to the end, then look at the attributes.

    Args:
        store: Takes the parts.
        chunks: The content, in lists of chunks and holes.
        reading: Gives a thread to read, cut and hash on; None to do so on the caller's.
        tick: Called now and then.

    Attributes:
        length: Its length in bytes.
        content_id: 32 bytes; empty if there was no content.
    """

    def __init__(
        self,
        store: ContentStore,
        chunks: Iterable[Sequence[memoryview | Hole]],
        *,
        reading: Executor | None,
        tick: Callable[[], None],
    ) -> None:
        self._store = store
        self._chunks = chunks
        self._reading = reading
        self._tick = tick
        self._whole = blake3()
        self.length = 0
        self.content_id = b""

    def __iter__(self) -> Iterator[Part]:
        hole: Part | None = None
        hashed = self._hashed()
        for chunks in hashed if self._reading is None else ahead(hashed, self._reading):
            self._tick()
            for chunk, one in chunks:
                if isinstance(chunk, Hole):
                    start = self.length if hole is None else hole.offset
                    self.length += chunk.length
                    hole = Part(start, self.length - start, None, 0, 0)
                    continue
                if hole is not None:
                    yield hole
                    hole = None
                _, place = self._store.piece(chunk, one)
                yield Part(self.length, len(chunk), one, place[1], place[2], place[0])
                self.length += len(chunk)
        if hole is not None:
            yield hole
        if self.length:
            self.content_id = self._store.content_id(self._whole.digest(), self.length)

    def _hashed(self) -> Iterator[list[tuple[memoryview | Hole, bytes]]]:
        """Chunks with their ids; the whole is hashed along."""
        for chunks in self._chunks:
            found: list[tuple[memoryview | Hole, bytes]] = []
            for chunk in chunks:
                if isinstance(chunk, Hole):
                    hash_zeros(self._whole, chunk.length)
                    found.append((chunk, b""))
                else:
                    self._whole.update(chunk)
                    found.append((chunk, self._store.id_of(chunk)))
            yield found


class ContentStore:
    """Where contents and parts of them go.

    Args:
        storage: The vault's folder.
        catalog: What is stored already.
        sealing: For new archives.
        compression: What to try on contents.
        target: Bytes after which a data archive is complete.
        big: Whether the run is expected to fill at least one archive; else they go to the arena.
        usable: Whether an archive of this local number may be referred to.
        collision: Told of an id that stands for contents of different sizes.
        journal: Where the progress of archives is kept.
        resumed: Archives to go on with, by local number; what is in them is in the catalog.

    Attributes:
        stored: Bytes of the complete archives.
        archives: Objects that were stored: name and length.
        own: Local numbers of the archives begun by this run.
        read: Bytes of content taken, stored before or not.
    """

    def __init__(
        self,
        storage: Storage,
        catalog: Catalog,
        sealing: Sealing,
        *,
        compression: Compression,
        target: int,
        big: bool,
        usable: Callable[[int], bool],
        collision: Callable[[bytes], None],
        journal: Journal | None = None,
        resumed: dict[int, ArchiveOutput] | None = None,
    ) -> None:
        self._storage = storage
        self._catalog = catalog
        self._sealing = sealing
        self._compression = compression
        self._target = target
        self._big = big
        self._usable = usable
        self._collision = collision
        self._id_key = sealing.host.id_key
        self._output: ArchiveOutput | None = None
        self._number = 0
        self._mixed: tuple[ArchiveOutput, int] | None = None
        self._alone: int | None = None  # bytes of the content that fills archives of its own now
        self._journal = journal
        self._waiting = dict(resumed or {})
        self._wanted: set[int] = set()  # those of them that something refers to
        self._pieces_in = 0
        self._pack: list[bytes | memoryview] = []
        self._pack_size = 0
        self._open: dict[bytes, tuple[int, int]] = {}
        # The number of each pack's block, by its serial number; that of the open pack is -1.
        self._blocks = array("q", [-1])
        self.stored = 0
        self.archives: list[tuple[str, int]] = []
        self.own: set[int] = set(self._waiting)
        self.read = 0

    @property
    def flushed(self) -> int:
        """Serial number of the open pack: places in packs below it can be resolved."""
        return len(self._blocks) - 1

    @property
    def written(self) -> int:
        """Bytes stored so far, archives under way included."""
        waiting = self._mixed[0].written if self._mixed is not None else 0
        return self.stored + waiting + (self._output.written if self._output is not None else 0)

    def resolve(self, place: Place) -> Place:
        """A place with its block's number."""
        archive, block, piece = place
        return place if block >= 0 else (archive, self._blocks[-1 - block], piece)

    def content_id(self, digest: bytes, length: int) -> bytes:
        """Content id from the plain digest and the length."""
        return blake3(digest + length.to_bytes(8, "little"), key=self._id_key).digest()

    def id_of(self, data: bytes | memoryview) -> bytes:
        """Content id of a whole content."""
        return self.content_id(blake3(data).digest(), len(data))

    def piece(self, data: bytes | memoryview, one: bytes | None = None) -> tuple[bytes, Place]:
        """Store up to 16 MiB as one piece, unless it is stored already; returns id and place."""
        size = len(data)
        self.read += size
        if one is None:
            one = self.id_of(data)
        here = self._open.get(one)
        if here is not None:
            if here[1] == size:
                return one, (self._number, -1 - self.flushed, here[0])
            self.flush()
        found = self._catalog.find_piece(one)
        if found is not None and self._usable(found[0]):
            if found[3] == size:
                if self._waiting:
                    self._wanted.add(found[0])
                return one, found[:3]
            self._collision(one)  # never trusted: stored apart
        pack = self._pack
        if pack and (self._pack_size + size > PACK_TARGET or len(pack) == MAX_PIECES):
            self.flush()
            pack = self._pack
        if self._output is None:
            self._begin(self._alone)
        number = len(pack)
        pack.append(data)
        self._pack_size += size
        self._open[one] = (number, size)
        return one, (self._number, -len(self._blocks), number)

    @staticmethod
    def fits(size: int) -> bool:
        """Whether a content may be one piece."""
        return size <= MAX_DECODED

    def flush(self) -> None:
        """Hand the open pack over; ends the archive when it is full."""
        if not self._pack:
            return
        assert self._output is not None
        sequence = self._output.encoder.next_sequence
        self._output.note([(one, sequence, piece, size) for one, (piece, size) in self._open.items()])
        builder = PiecesBuilder(b"PACK", target=PACK_TARGET, compression=self._compression)
        builder.extend(self._pack)
        self._pack, self._pack_size = [], 0
        self._output.submit(builder.seal())
        self._blocks[-1] = sequence
        self._output.encoder.index.add_content(self._open, sequence)
        number = self._number
        self._catalog.add_pieces([(one, number, sequence, piece, size) for one, (piece, size) in self._open.items()])
        self._pieces_in += len(self._open)
        self._open = {}
        self._blocks.append(-1)
        most = self._target if self._alone is None else max(self._target, _MOST_OF_OWN)
        if self._output.stored >= most or (self._alone is None and self._pieces_in >= _MOST_PIECES):
            self._end()

    def begin_own(self, size: int) -> None:
        """What comes next, of so many bytes, gets archives of its own, mostly one; ``end_own`` closes them."""
        self.flush()
        if self._output is not None:
            self._mixed = (self._output, self._number)
        self._alone = size
        self._begin(size)

    def end_own(self) -> None:
        """The content that got archives of its own is complete; go on with the common one."""
        self.flush()
        self._end()
        self._alone = None
        if self._mixed is not None:
            self._output, self._number = self._mixed
            self._mixed = None

    def _begin(self, size: int | None = None) -> None:
        waiting = next((n for n, output in self._waiting.items() if output.own is (size is not None)), None)
        if waiting is not None:
            self._number = waiting
            self._output = self._waiting.pop(waiting)
            self._pieces_in = 0
            return
        archive_id = os.urandom(16)
        arena = size is None and not self._big
        name = layout.data_name(self._sealing.host.host_id, archive_id, arena=arena)
        self._number = self._catalog.archive_number(archive_id, Kind.DATA)
        self.own.add(self._number)
        self._output = ArchiveOutput.begin(
            self._storage,
            name,
            archive_id,
            Kind.DATA,
            self._sealing,
            journal=self._journal,
            expected_size=self._expected(size),
            own=size is not None,
        )
        self._pieces_in = 0

    def _expected(self, size: int | None) -> int:
        """Bytes that an archive will have at most: storages choose parts by it, and small ones take less memory."""
        return self._target if size is None else min(size, max(self._target, _MOST_OF_OWN))

    def _end(self) -> None:
        output = self._output
        if output is None:
            return
        if not output.encoder.next_sequence:  # nothing new came: everything was stored before
            output.discard()
            self._output = None
            return
        output.finish()
        self._output = None
        self._complete(output, self._number)

    def _complete(self, output: ArchiveOutput, number: int) -> None:
        self._catalog.complete_data(number, output.length)
        output.settled()
        self.archives.append((output.name, output.length))
        self.stored += output.written

    def finish(self, needed: Container[int] = ()) -> None:
        """Store what is left; afterwards every place can be resolved and every archive is complete.

        Args:
            needed: Archives that are referred to in any case.
        """
        self.flush()
        self._end()
        for number, output in list(self._waiting.items()):
            if number in self._wanted or number in needed:
                output.finish()
                self._complete(output, number)
            else:  # its files are not there any more, or are other ones
                output.discard()
            del self._waiting[number]

    def give_up(self, error: BaseException) -> None:
        """End without a snapshot: what can be gone on with is left for the next run."""
        for output in (self._output, *([self._mixed[0]] if self._mixed is not None else []), *self._waiting.values()):
            if output is not None:
                output.give_up(error)
        self._output = self._mixed = None
        self._waiting = {}
