"""The snapshot before, as the catalog remembers it: what is the same, what is gone, what was moved."""

from __future__ import annotations

import os
import stat as st
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from rozenfmt.format.nodes import Entry, Kind

from .catalog import SIGNATURE, Leaf

if TYPE_CHECKING:
    from .catalog import Catalog

__all__ = ["UNTRUSTED", "Baseline", "KnownDirectory"]

UNTRUSTED: Final = bytes(SIGNATURE.size)
"""The signature of an entry that must be looked at again."""


_LOOKS: Final = 256


class KnownDirectory:
    """A directory of the snapshot before, walked along with the one that is being read, in order of name.

    Args:
        leaves: Its leaves.
        path: Its path then.
        gone: Told of each entry that was passed over.

    Attributes:
        exists: There was such a directory.
        empty: It had no entries.
        more: There are leaves after the one at hand.
        firsts: First names of the leaves seen so far.
    """

    def __init__(self, leaves: Iterator[Leaf], path: bytes, gone: Callable[[bytes, Entry], None]) -> None:
        self.path = path
        self.firsts: list[bytes] = []
        self._leaves = leaves
        self._gone = gone
        self._leaf: Leaf | None = None
        self._decoded: list[Entry] | None = None
        self._count = self._at = 0
        self._following = next(leaves, None)
        self._load()
        self.exists = self._leaf is not None
        self.empty = not self._count

    @property
    def more(self) -> bool:
        """Whether there are leaves after the one at hand."""
        return self._following is not None

    def _load(self) -> bool:
        leaf = self._following
        if leaf is None:
            return False
        self._following = next(self._leaves, None)
        self.firsts.append(leaf.first)
        self._leaf, self._decoded = leaf, None
        self._count, self._at = len(leaf.signatures) // SIGNATURE.size, 0
        return True

    def _entries(self) -> list[Entry]:
        if self._decoded is None:
            self._decoded = self._leaf.entries() if self._leaf is not None else []
        return self._decoded

    def next_leaf(self) -> Leaf | None:
        """The leaf that comes next; None if one has been begun."""
        if self._at == self._count and self.more:
            self._load()
        return self._leaf if self._at == 0 else None

    def skip(self, count: int) -> None:
        """Go on after the first entries of the leaf at hand, ``count`` of them."""
        self._at = count

    def first_entries(self, count: int) -> list[tuple[bytes, Entry]]:
        """Signatures and entries of the first ones of the leaf at hand."""
        return [(self._signature(at), entry) for at, entry in enumerate(self._entries()[:count])]

    def _signature(self, at: int) -> bytes:
        assert self._leaf is not None
        return self._leaf.signatures[at * SIGNATURE.size : (at + 1) * SIGNATURE.size]

    def find(self, name: bytes) -> tuple[bytes, Entry] | None:
        """Signature and entry of a name; names must be asked in ascending order."""
        while True:
            entries, at = self._entries(), self._at
            count = len(entries)
            while at < count:
                entry = entries[at]
                if entry.name >= name:
                    self._at = at
                    if entry.name > name:
                        return None
                    self._at = at + 1
                    return self._signature(at), entry
                self._gone(self.path, entry)
                at += 1
            self._at = at
            if not self._load():
                return None

    def finish(self) -> None:
        """There are no more names: the rest is gone."""
        while True:
            if self._at < self._count:
                for entry in self._entries()[self._at :]:
                    self._gone(self.path, entry)
                self._at = self._count
            if not self._load():
                return


class Baseline:
    """What the last snapshot of a set had, and where it is now.

    Args:
        catalog: The host's memory.
        set_number: The set; its last snapshot is the baseline.
        known: Whether there is one.
        locate: Local path of something in the snapshot; None if it cannot be told.
    """

    def __init__(
        self, catalog: Catalog, set_number: int, *, known: bool, locate: Callable[[bytes], bytes | None]
    ) -> None:
        self._catalog = catalog
        self._set = set_number
        self.known = known
        self._locate = locate
        self._indexed = False
        self.moved_directories: dict[bytes, bytes] = {}  # old path to new path
        self.moved_files: dict[bytes, bytes] = {}

    def directory(self, path: bytes, gone: Callable[[bytes, Entry], None]) -> KnownDirectory:
        """A directory as it was."""
        leaves = self._catalog.leaves(self._set, path) if self.known else iter(())
        return KnownDirectory(leaves, path, gone)

    def entries(self, path: bytes) -> Iterator[tuple[bytes, Entry]]:
        """Signatures and entries of a directory as it was."""
        size = SIGNATURE.size
        for leaf in self._catalog.leaves(self._set, path):
            for at, entry in enumerate(leaf.entries()):
                yield leaf.signatures[at * size : (at + 1) * size], entry

    def subtree(self, path: bytes) -> Iterator[tuple[bytes, Entry]]:
        """Everything that was below a directory: path of the directory it was in, and entry."""
        for inside, leaf in self._catalog.subtree(self._set, path):
            for entry in leaf.entries():
                yield inside, entry

    def _by_inode(self, stat: os.stat_result) -> tuple[bytes, bytes, Entry, bytes] | None:
        """Old path, its directory, entry and signature of what had this inode and is not there any more."""
        if not self.known:
            return None
        if not self._indexed:
            self._catalog.index_inodes(self._set)
            self._indexed = True
        found = self._catalog.find_inode(self._set, stat.st_ino)
        if found is None:
            return None
        directory, leaf, position = found
        entry = leaf.entries()[position]
        path = directory + b"/" + entry.name if directory else entry.name
        where = self._locate(path)
        if where is None:
            return None
        try:
            now = os.lstat(where)
        except OSError:
            now = None
        if now is not None and (now.st_ino == stat.st_ino or st.S_IFMT(now.st_mode) == st.S_IFMT(stat.st_mode)):
            return None  # another name of the same file, or something new in its place: the path is not gone
        size = SIGNATURE.size
        return path, directory, entry, leaf.signatures[position * size : (position + 1) * size]

    def moved_file(self, stat: os.stat_result) -> tuple[bytes, Entry] | None:
        """Old path and entry of a file that is new here, if inode, size and time say that it was moved."""
        if not stat.st_size:
            return None
        found = self._by_inode(stat)
        if found is None:
            return None
        old, _, entry, signature = found
        size, mtime_ns, _, _ = SIGNATURE.unpack(signature)
        if entry.kind != Kind.FILE or not entry.has_content or (size, mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            return None
        if old in self.moved_files or self.below_moved(old):
            return None
        return old, replace(entry)

    def moved_directory(self, path: bytes, stat: os.stat_result) -> bytes | None:
        """Old path of a directory that is new here, if its inode says that it was moved."""
        found = self._by_inode(stat)
        if found is None or found[2].kind != Kind.DIRECTORY:
            return None
        old = found[0]
        if self.below_moved(old) or not self._holds_some(path, old):
            return None
        self.moved_directories[old] = path
        return old

    def _holds_some(self, path: bytes, old: bytes) -> bool:
        """Whether a directory has anything that another one had: inodes of deleted ones are soon used again."""
        where = self._locate(path)
        if where is None:
            return False
        stack = [(old, where)]
        looked = 0
        while stack and looked < _LOOKS:
            was, where = stack.pop()
            for signature, entry in islice(self.entries(was), _LOOKS):
                size, mtime_ns, _, inode = SIGNATURE.unpack(signature)
                if not inode:
                    continue
                looked += 1
                try:
                    now = os.lstat(where + b"/" + entry.name)
                except OSError:
                    continue
                if now.st_ino != inode:
                    continue
                if entry.kind == Kind.DIRECTORY and st.S_ISDIR(now.st_mode):
                    stack.append((was + b"/" + entry.name, where + b"/" + entry.name))
                elif entry.kind == Kind.FILE and (now.st_size, now.st_mtime_ns) == (size, mtime_ns):
                    return True
        return False

    def below_moved(self, path: bytes) -> bool:
        """Whether this is a directory that was moved, or was in one."""
        while path:
            if path in self.moved_directories:
                return True
            path = path.rpartition(b"/")[0]
        return False
