"""Finding valid frames in a damaged object (format.md, section 13).

One pass forward with bounded memory: at a place where no frame verifies, the next sync
marker is looked for; a block that verified is never searched inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rozenfmt.errors import ArchiveError
from rozenfmt.format.crypto import digest
from rozenfmt.format.frame import HASH_SIZE, PREFIX_SIZE, SYNC, Frame, parse_frame, parse_prefix
from rozenfmt.format.limits import MAX_BLOCK_BODY, MAX_BLOCK_HEADER

if TYPE_CHECKING:
    from rozenfmt.storage.base import Storage

__all__ = ["FoundFrame", "Gap", "ScanResult", "Window", "frames", "scan_frames"]

_LONGEST: Final = PREFIX_SIZE + MAX_BLOCK_HEADER + MAX_BLOCK_BODY + 96


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes that belong to no valid block (headers and tails between archives included)."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """Where a valid block stands in the object."""

    archive_id: bytes
    sequence: int
    type: bytes
    offset: int
    length: int


@dataclass(slots=True)
class ScanResult:
    """Valid blocks and the gaps between them."""

    found: list[FoundFrame] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


class Window:
    """A moving window over an object's bytes."""

    def __init__(self, chunks: Iterator[bytes], start: int) -> None:
        self._chunks = chunks
        self.data = bytearray()
        self.offset = start
        self.ended = False

    def fill(self, length: int) -> bool:
        """Have ``length`` bytes at hand, if the object has them."""
        while len(self.data) < length and not self.ended:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.ended = True
            else:
                self.data += chunk
        return len(self.data) >= length

    def drop(self, length: int) -> None:
        """Move on."""
        del self.data[:length]
        self.offset += length


def frames(window: Window, on_gap: Callable[[Gap], None]) -> Iterator[tuple[int, Frame]]:
    """Every valid frame with its offset, in order; gaps are told to ``on_gap`` as they end."""
    gap_start: int | None = None
    while True:
        frame = _frame_here(window)
        if frame is not None:
            if gap_start is not None:
                on_gap(Gap(gap_start, window.offset - gap_start))
                gap_start = None
            length = frame.prefix.frame_length
            yield window.offset, frame
            frame.body_section.release()
            window.drop(length)
            continue
        if gap_start is None:
            gap_start = window.offset
        if not _skip_to_marker(window):
            end = window.offset + len(window.data)
            if end > gap_start:
                on_gap(Gap(gap_start, end - gap_start))
            return


def _frame_here(window: Window) -> Frame | None:
    if not window.fill(PREFIX_SIZE):
        return None
    try:
        prefix = parse_prefix(window.data[:PREFIX_SIZE], None, None, check_flags=False)
        head = PREFIX_SIZE + prefix.header_length
        if not window.fill(head + HASH_SIZE):
            return None
        # The header's hash first: a false marker may claim 16 MiB.
        if digest(window.data[:head]) != window.data[head : head + HASH_SIZE]:
            return None
        if not window.fill(prefix.frame_length):
            return None
        return parse_frame(bytes(memoryview(window.data)[: prefix.frame_length]), prefix)
    except ArchiveError:
        return None


def _skip_to_marker(window: Window) -> bool:
    """Move to the next sync marker behind the present byte; False if there is none."""
    step = 1
    while True:
        window.fill(step + len(SYNC))
        at = window.data.find(SYNC, step)
        if at >= 0:
            window.drop(at)
            return True
        if window.ended:
            return False
        step = max(len(window.data) - len(SYNC) + 1, 1)
        if step > _LONGEST:
            window.drop(step - 1)
            step = 1
        window.fill(len(window.data) + 1)


def scan_frames(storage: Storage, name: str, start: int) -> ScanResult:
    """Scan an object from ``start`` on for valid blocks."""
    result = ScanResult()
    window = Window(iter(storage.stream(name, start)), start)
    for offset, frame in frames(window, result.gaps.append):
        prefix = frame.prefix
        result.found.append(FoundFrame(prefix.archive_id, prefix.sequence, prefix.type, offset, prefix.frame_length))
    return result
