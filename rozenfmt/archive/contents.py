"""The content of one entry: its table of parts, and a seekable file over them."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rozenfmt.format.nodes import NodeType, Part

if TYPE_CHECKING:
    from rozenfmt.format.nodes import Entry, Node

    from .treereader import TreeReader

__all__ = ["PartTable", "content_file"]


class PartTable(Sequence[Part]):
    """The parts of a content, sub-tables loaded as they are needed."""

    def __init__(self, tree: TreeReader, node: Node, number: int, sequence: int, length: int) -> None:
        self._tree = tree
        self._inner = node.type == NodeType.PARTS_INNER
        self._rows = tree.node_parts(node, number, sequence)
        self._loaded: tuple[int, list[Part]] | None = None
        if sum(part.length for part in self._rows) != length:
            raise tree.broken(number, sequence, "a part table contradicts its content's length")

    def at(self, offset: int) -> Part:
        """The part that holds the byte at ``offset``."""
        part = _part_at(self._rows, offset)
        return _part_at(self._sub_table(part), offset) if self._inner else part

    def _sub_table(self, part: Part) -> list[Part]:
        if self._loaded is not None and self._loaded[0] == part.offset:
            return self._loaded[1]
        tree = self._tree
        node = tree.node(part.archive, part.block, part.piece, part.id)
        if node.type != NodeType.PARTS:
            raise tree.broken(part.archive, part.block, "a sub-table is not the one that is referred to")
        found = tree.node_parts(node, part.archive, part.block, part.offset)
        if sum(one.length for one in found) != part.length:
            raise tree.broken(part.archive, part.block, "a sub-table contradicts its table")
        self._loaded = (part.offset, found)
        return found

    def __iter__(self) -> Iterator[Part]:
        for part in self._rows:
            if self._inner:
                yield from self._sub_table(part)
            else:
                yield part

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, number: Any) -> Any:
        return list(self)[number]


def _part_at(parts: Sequence[Part], offset: int) -> Part:
    return parts[bisect_right(parts, offset, key=lambda part: part.offset) - 1]


def content_file(tree: TreeReader, entry: Entry) -> io.BufferedReader:
    """A file over the content of an entry, buffered.

    Raises:
        ArchiveError: Its part table is damaged or missing.
    """
    return io.BufferedReader(_ContentFile(tree, entry), buffer_size=1024 * 1024)


class _ContentFile(io.RawIOBase):
    """Raw, seekable content of one entry."""

    def __init__(self, tree: TreeReader, entry: Entry) -> None:
        super().__init__()
        self._tree = tree
        self._size = entry.size
        self._position = 0
        self._find: Callable[[int], Part] | None = None
        self._type = b""
        self._held: tuple[int, memoryview] | None = None
        if entry.has_content:
            self._type, parts = tree.parts(entry)
            self._find = parts.at if isinstance(parts, PartTable) else lambda _: parts[0]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}.get(whence)
        if start is None or start + offset < 0:
            msg = f"cannot seek to {offset} from {whence}"
            raise ValueError(msg)
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self._size - self._position)
        if length <= 0 or self._find is None:
            return 0
        part = self._find(self._position)
        inside = self._position - part.offset
        length = min(length, part.length - inside)
        if part.id is None:
            view[:length] = bytes(length)
        else:
            if self._held is None or self._held[0] != part.offset:
                self._held = (part.offset, self._tree.part_data(part, self._type))
            view[:length] = self._held[1][inside : inside + length]
        self._position += length
        return length
