"""From what the kernel says about an inode to an ``Entry``."""

from __future__ import annotations

import grp
import os
import pwd
import stat as st
from typing import TYPE_CHECKING

from rozenfmt.format.nodes import Entry, Kind, Mark

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GroupNames", "LinkGroups", "UserNames", "entry_of"]

_KINDS = {
    st.S_IFREG: Kind.FILE,
    st.S_IFDIR: Kind.DIRECTORY,
    st.S_IFLNK: Kind.SYMLINK,
    st.S_IFIFO: Kind.FIFO,
    st.S_IFCHR: Kind.CHARACTER_DEVICE,
    st.S_IFBLK: Kind.BLOCK_DEVICE,
    st.S_IFSOCK: Kind.SOCKET,
}
_DEVICES = frozenset({Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE})


class UserNames(dict[int, bytes]):
    """User names by number, looked up once each; empty if there is none."""

    def __missing__(self, uid: int) -> bytes:
        try:
            name = os.fsencode(pwd.getpwuid(uid).pw_name)
        except KeyError:
            name = b""
        self[uid] = name
        return name


class GroupNames(dict[int, bytes]):
    """Group names by number, looked up once each; empty if there is none."""

    def __missing__(self, gid: int) -> bytes:
        try:
            name = os.fsencode(grp.getgrgid(gid).gr_name)
        except KeyError:
            name = b""
        self[gid] = name
        return name


class LinkGroups:
    """Remembers files with several names until all of their names were seen.

    Args:
        entropy: Gives so many random bytes.
    """

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._groups: dict[tuple[int, int], tuple[bytes, int, int, int]] = {}

    def known(self, stat: os.stat_result) -> bytes | None:
        """The group of a file that was delivered before, counting this name; None if it is new.

        A file that was written since its first name was delivered is new: its other names hold other
        content now. So is one whose inode number was taken over by another file.
        """
        key = (stat.st_dev, stat.st_ino)
        found = self._groups.get(key)
        if found is None:
            return None
        group, size, mtime_ns, left = found
        if size != stat.st_size or mtime_ns != stat.st_mtime_ns:
            del self._groups[key]
            return None
        if left == 1:
            del self._groups[key]
        else:
            self._groups[key] = (group, size, mtime_ns, left - 1)
        return group

    def begin(self) -> bytes:
        """A fresh group for a file whose first name is about to be delivered."""
        return self._entropy(16)

    def delivered(self, stat: os.stat_result, group: bytes) -> None:
        """The content stands under its first name: further names may refer to it."""
        key = (stat.st_dev, stat.st_ino)
        self._groups[key] = (group, stat.st_size, stat.st_mtime_ns, stat.st_nlink - 1)


def entry_of(
    name: bytes,
    stat: os.stat_result,
    users: UserNames,
    groups: GroupNames,
    *,
    target: bytes = b"",
    xattrs: tuple[tuple[bytes, bytes], ...] = (),
    marks: Mark | int = 0,
    link_group: bytes | None = None,
) -> Entry:
    """The entry of an inode of any kind."""
    kind = _KINDS[st.S_IFMT(stat.st_mode)]
    return Entry(
        name,
        kind,
        st.S_IMODE(stat.st_mode),
        stat.st_uid,
        stat.st_gid,
        users[stat.st_uid],
        groups[stat.st_gid],
        stat.st_mtime_ns,
        stat.st_size if kind is Kind.FILE else 0,
        target,
        (os.major(stat.st_rdev), os.minor(stat.st_rdev)) if kind in _DEVICES else None,
        link_group,
        xattrs,
        int(marks),
    )
