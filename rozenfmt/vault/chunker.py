"""Content-defined cut points inside big files, keyed by the host.

Where a file is cut depends on the bytes around the cut alone, so an insertion in front moves cuts
along and nearly all chunks are found again.  The cut points for a fixed input and key are pinned by
a test: another chunker would upload everything once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from rozenfmt.tree.content import Hole

__all__ = ["AVERAGE", "LARGEST", "SMALLEST", "Chunker"]

SMALLEST: Final = 64 * 1024
AVERAGE: Final = 256 * 1024
LARGEST: Final = 1024 * 1024


class Chunker:
    """Cuts runs of bytes into chunks of ``SMALLEST`` to ``LARGEST`` bytes (the last may be smaller).

    Args:
        seed: Secret; its lower 63 bits are used.
    """

    def __init__(self, seed: int) -> None:
        from pyfastcdc import FastCDC

        lower = seed & (1 << 63) - 1
        self._cdc = FastCDC(AVERAGE, min_size=SMALLEST, max_size=LARGEST, normalized_chunking=1, seed=lower or 1)

    def cut(self, runs: Iterable[bytes | Hole]) -> Iterator[list[memoryview | Hole]]:
        """Chunks of the bytes in ``runs``, one list for each run; a hole ends a chunk and comes out as it is."""
        rest = b""
        for run in runs:
            if isinstance(run, Hole):
                yield [*self._pieces(rest, final=True)[0], run]
                rest = b""
                continue
            pieces, rest = self._pieces(rest + run if rest else run, final=False)
            yield list(pieces)
        yield list(self._pieces(rest, final=True)[0])

    def _pieces(self, data: bytes, *, final: bool) -> tuple[list[memoryview], bytes]:
        """Chunks of a buffer whose ends do not depend on what comes after it, and the rest."""
        pieces: list[memoryview] = []
        size = len(data)
        for chunk in self._cdc.cut_buf(data):
            if not final and chunk.offset + LARGEST > size:
                return pieces, data[chunk.offset :]
            pieces.append(chunk.data)
        return pieces, b""
