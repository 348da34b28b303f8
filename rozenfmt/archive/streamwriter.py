"""One content written as a stream: ``FHDR``, ``FCNT`` …, part tables, ``FEND`` (format.md, section 5.1)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from rozenfmt.format import crypto
from rozenfmt.format.builders import PartTableBuilder, PiecesBuilder

if TYPE_CHECKING:
    from rozenfmt.format.codecs import Compression
    from rozenfmt.format.encoder import Encoder

    from .pipeline import Pipeline

__all__ = ["TABLE_TARGET", "StreamWriter", "hash_zeros"]

TABLE_TARGET: Final = 1024 * 1024
_ZEROS: Final = bytes(1024 * 1024)


def hash_zeros(hasher: blake3, length: int) -> None:
    """Feed ``length`` zero bytes to a hasher: a hole counts as what it reads as."""
    while length:
        step = min(length, len(_ZEROS))
        hasher.update(_ZEROS[:step] if step < len(_ZEROS) else _ZEROS)
        length -= step


class StreamWriter:
    """Writes one content, however long, with bounded memory.

    Args:
        encoder: The archive's encoder.
        pipeline: Where drafts go.
        id_key: Key of the content ids.
        compression: What to try on the content.
    """

    def __init__(self, encoder: Encoder, pipeline: Pipeline, *, id_key: bytes, compression: Compression) -> None:
        self._encoder = encoder
        self._pipeline = pipeline
        self._id_key = id_key
        self._compression = compression
        self._table = PartTableBuilder()
        self._leaves = PiecesBuilder(b"TREE", target=TABLE_TARGET)
        self._waiting: list[bytes] = []

    def write(self, chunks: Iterable[bytes | int], *, name: bytes, size: int) -> tuple[bytes, int, int] | None:
        """Write the content; nothing at all if it turns out empty.

        Args:
            chunks: Runs of at most 16 MiB; an integer is a hole of so many bytes.
            name: Path hint for salvage.
            size: Size hint in bytes.

        Returns:
            Content id, length in bytes and number of the ``FEND`` block; None if there was no content.
        """
        source = iter(chunks)
        first = next((chunk for chunk in source if chunk), None)
        if first is None:
            return None
        builder = self._encoder.open_stream(compression=self._compression)
        self._pipeline.submit(builder.start(name=name, size=size))
        whole = blake3()
        length = 0
        for chunk in chain((first,), source):
            if isinstance(chunk, int):
                hash_zeros(whole, chunk)
                self._keep(self._table.add(chunk, None))
                length += chunk
                continue
            whole.update(chunk)
            part = crypto.content_id(self._id_key, crypto.digest(chunk), len(chunk))
            sequence = self._pipeline.submit(builder.content([chunk], length))
            self._encoder.index.add_content([part], sequence)
            self._keep(self._table.add(len(chunk), part, sequence, 0))
            length += len(chunk)
        self._keep(self._table.rest())
        self._store_leaves()
        content_id = crypto.content_id(self._id_key, whole.digest(), length)
        sequence = self._pipeline.submit(builder.end(length, content_id, self._table.finish()))
        self._encoder.index.add_content([content_id], sequence)
        return content_id, length, sequence

    def _keep(self, leaf: bytes | None) -> None:
        """Collect a sub-table, if one was cut."""
        if leaf is None:
            return
        if not self._leaves.fits(len(leaf)):
            self._store_leaves()
        self._leaves.add(leaf)
        self._waiting.append(leaf)

    def _store_leaves(self) -> None:
        if not self._waiting:
            return
        sequence = self._pipeline.submit(self._leaves.seal())
        for piece, leaf in enumerate(self._waiting):
            self._table.sub_table(leaf, sequence, piece)
        self._waiting = []
        self._leaves = PiecesBuilder(b"TREE", target=TABLE_TARGET)
