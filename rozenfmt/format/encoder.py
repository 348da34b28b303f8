"""The encoder: numbers blocks, chains their hashes, keeps the index, closes the archive.

Sans-I/O: drafts go in, bytes to be written come out.  A pipeline may take several drafts'
slots with ``assign``, seal them in parallel, and hand them back to ``commit`` in order.
Misuse raises ``UsageError`` before anything changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rozenfmt.errors import UsageError

from . import crypto
from .blocks import Draft, SealedBlock, Slot
from .builders import FooterBuilder, StreamBuilder, checkpoint
from .codecs import Compression
from .crypto import Entropy, Keys
from .header import Header
from .index import IndexBuilder
from .limits import MAX_DECODED, MAX_OPEN_STREAMS
from .registry import Kind, Suite
from .state import ARCHIVE, ArchiveEvent, ArchiveState, Machine, StreamState

__all__ = ["Encoder"]

_STATE_VERSION = 1


class Encoder:
    """Writes one archive, strictly forward.

    Args:
        header: From ``build_header``.
        keys: The archive's keys; None exactly in suite 0.
        entropy: Gives random bytes.
        signer_seed: Ed25519 seed if the header names a signer.
        index: Where entries are collected; one in memory by default.

    Attributes:
        foot_hash: Whole hash of ``FOOT``, once it was written.
    """

    def __init__(
        self,
        header: Header,
        keys: Keys | None,
        *,
        entropy: Entropy,
        signer_seed: bytes | None = None,
        index: IndexBuilder | None = None,
    ) -> None:
        if (keys is None) != (header.suite is Suite.PLAIN):
            msg = "an encrypted archive needs keys, a plain one has none"
            raise UsageError(msg)
        if (signer_seed is None) != (header.record.signer is None):
            msg = "the header's signer and the signing key do not go together"
            raise UsageError(msg)
        self.header = header
        self.keys = keys
        self.index = index if index is not None else IndexBuilder()
        self._entropy = entropy
        self._signer_seed = signer_seed
        self._machine = Machine(ArchiveState.START, ARCHIVE)
        self._next = 0
        self._committed = 0
        self._offset = 0
        self._chain = header.digest
        self._streams: dict[int, StreamBuilder] = {}
        self._next_stream = 0
        self._streams_written = 0
        self._contents_written: dict[int, int] = {}
        self._checkpoint_first = 0
        self._checkpoint_rows: list[tuple[bytes, int]] = []
        self._checkpoint_offset: int | None = None
        self._checkpoints_made = 0
        self.foot_hash: bytes | None = None

    @property
    def state(self) -> ArchiveState:
        """Where the encoder stands."""
        return self._machine.state

    @property
    def offset(self) -> int:
        """Bytes given out so far."""
        return self._offset

    @property
    def next_sequence(self) -> int:
        """The number that the next draft will get."""
        return self._next

    @property
    def idle(self) -> bool:
        """Whether every numbered block was committed: a block boundary."""
        return self._next == self._committed

    def begin(self) -> bytes:
        """The header section."""
        self._machine.step(ArchiveEvent.HEADER)
        self._offset = len(self.header.section)
        return self.header.section

    def replay(self, blocks: Iterable[tuple[bytes, bytes, int]]) -> None:
        """Go on after blocks that an encoder with the same header and keys has written; instead of ``begin``.

        For archives without streams and checkpoints; ``restore`` takes over any state.  What belongs into
        the index besides the block table is the caller's to add.  It may be called again, with the next blocks.

        Args:
            blocks: Type, whole hash and length in bytes of each.

        Raises:
            UsageError: Blocks are under way, or the index was begun.
        """
        if self._machine.state is ArchiveState.START:
            self.begin()
        if self._machine.state is not ArchiveState.BLOCKS or not self.idle:
            msg = "blocks can be replayed between other blocks only"
            raise UsageError(msg)
        for block_type, whole_hash, length in blocks:
            self.index.add_block(SealedBlock(block_type, self._next, length, whole_hash, b"", ()))
            self._offset += length
            self._chain = crypto.digest(self._chain, whole_hash)
            self._next += 1
            self._committed += 1

    def open_stream(self, *, compression: Compression | None = None) -> StreamBuilder:
        """A builder for a new stream, with the next stream number.

        Streams start in the order in which they were opened.  One that was abandoned stays open for
        readers, and so for this count.

        Raises:
            UsageError: 1,024 streams are open.
        """
        self._streams = {n: s for n, s in self._streams.items() if s.state is not StreamState.ENDED}
        if len(self._streams) >= MAX_OPEN_STREAMS:
            msg = f"{MAX_OPEN_STREAMS} streams are open already"
            raise UsageError(msg)
        builder = StreamBuilder(self._next_stream, compression=compression)
        self._streams[self._next_stream] = builder
        self._next_stream += 1
        return builder

    def assign(self, draft: Draft) -> Slot:
        """Give a draft its number; it must then be sealed and committed, or the archive fails.

        ``INDX`` and ``FOOT`` are made by ``finish`` alone.
        """
        if draft.type in (b"INDX", b"FOOT"):
            msg = "index and footer are written by finish()"
            raise UsageError(msg)
        if len(draft.body) > MAX_DECODED:
            msg = f"a block body of {len(draft.body)} bytes is over {MAX_DECODED}"
            raise UsageError(msg)
        if draft.type == b"FHDR" and draft.record.stream != self._streams_written:
            msg = f"stream {draft.record.stream} starts before stream {self._streams_written}"
            raise UsageError(msg)
        if draft.type == b"FCNT" and draft.record.number != self._contents_written.get(draft.record.stream, 0):
            msg = f"part {draft.record.number} of stream {draft.record.stream} is out of order"
            raise UsageError(msg)
        self._machine.step(ArchiveEvent.BLOCK)
        self._streams_written += draft.type == b"FHDR"
        if draft.type == b"FCNT":
            self._contents_written[draft.record.stream] = draft.record.number + 1
        elif draft.type == b"FEND":
            self._contents_written.pop(draft.record.stream, None)
        return self._slot()

    def _slot(self) -> Slot:
        record = self.header.record
        slot = Slot(self.header.suite, record.archive_id, record.padding, self.keys, self._next)
        self._next += 1
        return slot

    def commit(self, block: SealedBlock) -> None:
        """Take a sealed block over into chain and index; its buffers are to be written now.

        Raises:
            UsageError: It is not the next one in order, or the archive has failed.
        """
        if self._machine.state in (ArchiveState.FAILED, ArchiveState.END, ArchiveState.START):
            msg = "this archive takes no more blocks"
            raise UsageError(msg)
        if block.sequence != self._committed or self.idle:
            msg = f"block {block.sequence} came before block {self._committed}"
            raise UsageError(msg)
        if self._machine.state is ArchiveState.BLOCKS:
            self.index.add_block(block)
            self._checkpoint_rows.append((block.type, block.length))
            if block.type == b"ckpt":
                self._checkpoint_offset = self._offset
        self._committed += 1
        self._offset += block.length
        self._chain = crypto.digest(self._chain, block.whole_hash)

    def write(self, draft: Draft) -> SealedBlock:
        """``assign``, ``seal`` and ``commit`` in one, for callers without a pipeline."""
        block = draft.seal(self.assign(draft), self._entropy)
        self.commit(block)
        return block

    def checkpoint(self) -> Draft:
        """Draft of a ``ckpt`` block that lists the blocks committed since the last one.

        It is to be numbered by ``assign`` like any other draft; other blocks may be under way.

        Raises:
            UsageError: The previous ``ckpt`` is still under way.
        """
        if self._checkpoints_made > 0 and self._checkpoint_offset is None:
            msg = "the previous checkpoint was not committed yet"
            raise UsageError(msg)
        draft = checkpoint(self._checkpoint_first, self._checkpoint_rows, self._checkpoint_offset)
        self._checkpoint_first += len(self._checkpoint_rows)
        self._checkpoint_rows = []
        self._checkpoint_offset = None
        self._checkpoints_made += 1
        return draft

    def fail(self) -> None:
        """Give the archive up; nothing can be written any more."""
        self._machine.step(ArchiveEvent.FAIL)

    def finish(
        self, *, root: tuple[bytes, int, int] | None = None, totals: tuple[int, int] | None = None
    ) -> Iterator[bytes]:
        """Write index, footer and tail; gives the buffers to be written.

        Args:
            root: Node id, block and piece of the root directory, in kinds that have one.
            totals: Number of entries below the root, and bytes of content in them.
        """
        checkpointing = self._checkpoints_made > 0 and self._checkpoint_offset is None
        if not self.idle or checkpointing or self._machine.state is not ArchiveState.BLOCKS:
            msg = "blocks are still under way, or the archive is not open"
            raise UsageError(msg)
        rooted = self.header.kind is Kind.SELF_CONTAINED
        if (root is not None) != rooted or (totals is not None) != rooted:
            msg = "a self-contained archive has a root directory and totals, others have none"
            raise UsageError(msg)
        first, offset = self._next, self._offset
        for draft in self.index.leaves(len(self.header.section)):
            self._machine.step(ArchiveEvent.INDEX_LEAF)
            leaf = self._write_index(draft)
            self.index.leaf_written(leaf)
            yield from leaf.buffers
        draft = self.index.root(first, offset, root, totals)
        self._machine.step(ArchiveEvent.INDEX_ROOT)
        at = self._offset
        sealed = self._write_index(draft)
        yield from sealed.buffers
        footer = FooterBuilder(self.header.section, self.header.digest, self.header.archive_id)
        footer.root(sealed.sequence, at, sealed.length, sealed.whole_hash)
        yield from self._finish_footer(footer)

    def _write_index(self, draft: Draft) -> SealedBlock:
        block = draft.seal(self._slot(), self._entropy)
        self.commit(block)
        return block

    def _finish_footer(self, footer: FooterBuilder) -> Iterator[bytes]:
        self._machine.step(ArchiveEvent.FOOT)
        at = self._offset
        record = footer.record(at, self._next, self._chain)
        macs_length = 64 if self._signer_seed is None else 128
        # The MACs and the signature are made over the header hash, which binds the body's length.
        slot = self._slot()
        blank = Draft(b"FOOT", record, bytes(macs_length)).seal(slot, self._entropy)
        block = Draft(b"FOOT", record, self._foot_body(footer, blank.header_hash)).seal(slot, self._entropy)
        self.foot_hash = block.whole_hash
        self._committed += 1
        self._offset += block.length
        yield from block.buffers
        tail = footer.tail(at, block.length)
        self._machine.step(ArchiveEvent.TAIL)
        self._offset += len(tail)
        yield tail

    def _foot_body(self, footer: FooterBuilder, header_hash: bytes) -> bytes:
        body = bytes(64)
        if self.keys is not None:
            assert self.keys.foot_mac_secret is not None
            body = crypto.mac(self.keys.foot_mac_index, header_hash) + crypto.mac(
                self.keys.foot_mac_secret, header_hash
            )
        if self._signer_seed is not None:
            body += crypto.sign(self._signer_seed, footer.signed_message(header_hash))
        return body

    # --- state ----------------------------------------------------------------------------------

    def export(self) -> dict[int, Any]:
        """State at a block boundary, as CBOR-able values; holds no secret.

        Raises:
            UsageError: Blocks are under way, or the archive is not between header and index.
        """
        if not self.idle or self._machine.state is not ArchiveState.BLOCKS:
            msg = "the state can be exported at block boundaries only"
            raise UsageError(msg)
        streams = [s.export() for s in self._streams.values() if s.state in (StreamState.OPEN, StreamState.ABANDONED)]
        return {
            0: _STATE_VERSION,
            1: self.header.section,
            2: self._next,
            3: self._offset,
            4: self._chain,
            5: streams,
            6: self._streams_written,
            7: self._checkpoint_first,
            8: [list(row) for row in self._checkpoint_rows],
            9: [] if self._checkpoint_offset is None else [self._checkpoint_offset],
            10: self.index.export(),
            11: self._checkpoints_made,
        }

    def restore(self, state: dict[int, Any]) -> dict[int, StreamBuilder]:
        """Go on where ``export`` was called, in a new encoder with the same header and keys.

        Returns:
            Builders of the streams that were open, by number.

        Raises:
            UsageError: The state is of another archive or version, or this encoder was used.
        """
        if state.get(0) != _STATE_VERSION or state[1] != self.header.section:
            msg = "this state belongs to another archive or version"
            raise UsageError(msg)
        self._machine.step(ArchiveEvent.HEADER)
        self._next = self._committed = state[2]
        self._offset, self._chain = state[3], state[4]
        self._streams = {row[0]: StreamBuilder.restore(row) for row in state[5]}
        self._contents_written = {number: stream.blocks for number, stream in self._streams.items()}
        self._next_stream = self._streams_written = state[6]
        self._checkpoint_first = state[7]
        self._checkpoint_rows = [(row[0], row[1]) for row in state[8]]
        self._checkpoint_offset = state[9][0] if state[9] else None
        self.index.restore(state[10])
        self._checkpoints_made = state[11]
        return {n: s for n, s in self._streams.items() if s.state is StreamState.OPEN}
