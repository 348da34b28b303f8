"""Leaves of directories that have not changed are taken over whole, without looking into them.

While the entries of a leaf turn out to be what they were, one after the other, nothing is done with
them; at its end the node that is stored already stands for all of them.  At the first difference,
those before it are added one by one, as if nothing had been put off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rozenfmt.format import cbor, crypto, nodes
from rozenfmt.format.nodes import Entry, Kind

from .baseline import UNTRUSTED
from .catalog import SIGNATURE

if TYPE_CHECKING:
    from .baseline import KnownDirectory
    from .catalog import Leaf
    from .nodewriter import Directory, NodeWriter, Uses
    from .results import BackupResult

__all__ = ["Run", "TakeOver", "facts_signature"]

_FACTS: Final = 24


@dataclass(slots=True)
class Run:
    """A leaf of which everything so far is the same.

    Attributes:
        leaf: As the catalog has it.
        names: Of its entries; an empty one follows, which no entry has.
        kinds: Of its entries; a zero follows.
        signatures: As in the catalog.
        at: How many entries were found the same.
    """

    leaf: Leaf
    names: list[bytes]
    kinds: bytes
    signatures: bytes
    at: int = 0

    def same(self, seen: bytes) -> bool:
        """Whether the entry at hand has this signature; goes on to the next one if so."""
        size = SIGNATURE.size
        if self.signatures[self.at * size : (self.at + 1) * size] != seen:
            return False
        self.at += 1
        return True

    @property
    def inode(self) -> int:
        """That the entry at hand had."""
        return int(SIGNATURE.unpack_from(self.signatures, self.at * SIGNATURE.size)[3])

    @property
    def complete(self) -> bool:
        """Whether all entries were the same."""
        return self.at == len(self.names) - 1


def facts_signature(entry: Entry, inode: int = 0) -> bytes:
    """Signature of what has no content: a digest of all that is stored of it, in 24 bytes, and its inode.

    For a directory, ``child`` must be set.  What has marks or other names is always looked at again.
    """
    if (
        entry.kind == Kind.FILE
        or entry.marks
        or entry.link_group is not None
        or not -(1 << 63) <= entry.mtime_ns < 1 << 63
    ):
        return UNTRUSTED[:_FACTS] + inode.to_bytes(8, "little")
    facts = [
        *(int(entry.kind), entry.mode, entry.uid, entry.gid, entry.user, entry.group, entry.mtime_ns),
        *(entry.target, entry.device and list(entry.device), entry.child, [list(one) for one in entry.xattrs]),
    ]
    return crypto.digest(cbor.dumps(facts))[:_FACTS] + inode.to_bytes(8, "little")


class TakeOver:
    """Takes leaves over.

    Args:
        writer: Of the metadata archive.
        result: Entries taken over are counted there.
        usable: Whether an archive of this local number may be referred to.
        uses: What the content of an entry uses; None if that cannot be told for it alone.
    """

    def __init__(
        self,
        writer: NodeWriter,
        result: BackupResult,
        usable: Callable[[int], bool],
        uses: Callable[[Entry], Uses | None],
    ) -> None:
        self._writer = writer
        self._result = result
        self._usable = usable
        self._uses = uses

    def run(self, known: KnownDirectory, directory: Directory) -> Run | None:
        """Begin with the leaf that comes next, if it can be taken over."""
        if directory.entries or not self._writer.reuses:
            return None  # it would begin elsewhere
        leaf = known.next_leaf()
        if leaf is None or not leaf.place:
            return None
        names, kinds, plain = nodes.outline(leaf.node)
        if not plain or not all(map(self._usable, self._writer.archives_of(leaf))):
            return None
        return Run(leaf, [*names, b""], kinds + b"\0", leaf.signatures)

    def take(self, run: Run, known: KnownDirectory, directory: Directory) -> None:
        """All of a leaf was the same."""
        files = run.kinds.count(Kind.FILE)
        result = self._result
        result.entries += files  # the others were counted as they came
        result.same += files
        result.content_bytes += run.leaf.size
        self._writer.take(directory, run.leaf, run.at)
        known.skip(run.at)

    def give_up(self, run: Run, known: KnownDirectory, directory: Directory) -> None:
        """The entry at hand is not the same: add those before it."""
        result = self._result
        known.skip(run.at)
        for seen, entry in known.first_entries(run.at) if run.at else ():
            if entry.kind == Kind.FILE:
                result.same += 1
                result.entries += 1
                if entry.has_content:
                    result.content_bytes += entry.size
            uses = self._uses(entry)
            if uses is None:  # then of all that the leaf needs nothing may go
                uses = dict.fromkeys(self._writer.archives_of(run.leaf)[1:], 0)
            self._writer.add(directory, entry, seen, uses)
