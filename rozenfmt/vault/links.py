"""Hard links in a snapshot: which entries are names of one file, and under which group.

Groups of the scanner are made anew each time; a file keeps the group that it had in the snapshot
before, so that its directory's node stays the same.  A file that keeps an old content, because its new
one was withheld, is no name of one that was taken as it is now.
"""

from __future__ import annotations

from rozenfmt.format.nodes import Entry

__all__ = ["Links"]


class Links:
    """Link groups of one snapshot.

    Args:
        worm: Whether the set is write-once: then a file with another content is another file.
    """

    def __init__(self, *, worm: bool) -> None:
        self._worm = worm
        self._first: dict[bytes, Entry] = {}
        # Groups in use: by a file as it is now (True), or by one that was withheld.
        self._groups: dict[bytes, bool] = {}
        self._renamed: dict[bytes, bytes] = {}

    def taken(self, entry: Entry) -> None:
        """A file has not changed, and so has its group."""
        if entry.link_group is not None:
            self._groups[entry.link_group] = True

    def remember(self, entry: Entry) -> None:
        """The first name of a file, whose content further names share."""
        if entry.link_group is not None:
            self._first[entry.link_group] = entry

    def first(self, entry: Entry) -> Entry | None:
        """The first name of the file that this is another name of."""
        return self._first.get(entry.link_group or b"")

    def keep(self, entry: Entry, old: Entry | None) -> None:
        """Give a file with several names the link group that it had, unless another file has it now."""
        fresh = entry.link_group
        if fresh is None or fresh in self._groups:
            return
        group = self._renamed.get(fresh)
        if group is None:
            group = fresh
            if (
                old is not None
                and old.link_group is not None
                and old.link_group not in self._groups
                and not (self._worm and old.content_id != entry.content_id)
            ):
                group = old.link_group
            self._renamed[fresh] = group
            self._groups[group] = True
        entry.link_group = group

    def withhold(self, old: Entry) -> None:
        """A file that keeps its old content is no other name of one that is taken as it is now."""
        if old.link_group is not None and self._groups.setdefault(old.link_group, False):
            old.link_group = None
