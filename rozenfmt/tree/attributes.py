"""Putting an entry's metadata onto an open inode; what cannot be put is handed to a callback."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat as st
import struct
from typing import TYPE_CHECKING

from rozenfmt.format.nodes import Kind
from rozenfmt.tree.platform import ACL_ACCESS, ACL_DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable

    from rozenfmt.format.nodes import Entry

__all__ = ["Attributes", "drop_inherited_acls"]

_SET_IDS = st.S_ISUID | st.S_ISGID
_LARGEST_ID = 2**32 - 2  # 2**32 - 1 means "leave it as it is" to chown
_ACL_NAME = ACL_ACCESS.encode()
_ACL_HEADER = 4
_ACL_ITEM = struct.Struct("<HHI")  # tag, rights, id
_ACL_OWNING_GROUP = 4
_PLAIN_TIMES = 2**31 * 10**9  # every file system holds these; others are cut to its range without an error
_NO_ACLS = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EOPNOTSUPP})


class Attributes:
    """Sets owner, extended attributes, mode and times, in this order.

    The order matters: ``chown`` clears set-id bits and file capabilities, a user's own attributes can only be
    set while the mode still allows writing, an ACL rewrites the group bits that the mode then confirms, and
    everything changes times.

    Args:
        owners: Set owner and group.
        numeric: Take owners by number, not by name first.
        xattrs: Set extended attributes.
    """

    def __init__(self, *, owners: bool, numeric: bool, xattrs: bool) -> None:
        self._owners = owners
        self._numeric = numeric
        self._xattrs = xattrs
        self._ids: dict[tuple[bytes, int, bytes, int], tuple[int, int]] = {}

    def apply(self, target: int | bytes, entry: Entry, failed: Callable[[str, str], None]) -> None:
        """Set everything.

        Args:
            target: An open descriptor, or the ``descriptor_path`` of one that cannot be written through.
            entry: What to set.
            failed: Called with a ``Problem.what`` and the detail.
        """
        if self._owners:
            try:
                uid, gid = self._ids[entry.user, entry.uid, entry.group, entry.gid]
                os.chown(target, uid, gid)
            except (KeyError, OSError):
                self._chown(target, entry, failed)
        mode = entry.mode
        if entry.xattrs:
            mode = self._set_xattrs(target, entry, failed)
        if entry.kind is not Kind.SYMLINK:
            try:
                if mode & _SET_IDS:
                    self._chmod_set_ids(target, entry, mode, failed)
                else:
                    os.chmod(target, mode & 0o1777)
            except OSError as error:
                failed("mode", error.strerror or str(error))
        try:
            os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
            if not 0 <= entry.mtime_ns < _PLAIN_TIMES and os.stat(target).st_mtime_ns != entry.mtime_ns:
                failed("times", "the file system cannot hold so early or late a time")
        except (OSError, OverflowError) as error:
            failed("times", str(error))

    def _chown(self, target: int | bytes, entry: Entry, failed: Callable[[str, str], None]) -> None:
        """The slow path: owners not seen before, or refused."""
        uid, gid = self._resolve(entry)
        if not (0 <= uid <= _LARGEST_ID and 0 <= gid <= _LARGEST_ID):
            failed("owner", f"no such number: {uid}:{gid}")
            return
        self._ids[entry.user, entry.uid, entry.group, entry.gid] = uid, gid
        try:
            os.chown(target, uid, gid)
        except OSError as error:
            failed("owner", f"{uid}:{gid}: {error.strerror}")
            if error.errno != errno.EPERM:
                return
            try:
                os.chown(target, -1, gid)  # a group of ours is allowed
            except OSError:
                return  # reported just above together with the user

    def _resolve(self, entry: Entry) -> tuple[int, int]:
        uid, gid = entry.uid, entry.gid
        if self._numeric:
            return uid, gid
        if entry.user:
            try:
                uid = pwd.getpwnam(os.fsdecode(entry.user)).pw_uid
            except (KeyError, ValueError):
                uid = entry.uid  # no such user here: by number
        if entry.group:
            try:
                gid = grp.getgrnam(os.fsdecode(entry.group)).gr_gid
            except (KeyError, ValueError):
                gid = entry.gid
        return uid, gid

    def _set_xattrs(self, target: int | bytes, entry: Entry, failed: Callable[[str, str], None]) -> int:
        """Set extended attributes and return the mode to set after them."""
        mode = entry.mode
        for name, value in entry.xattrs:
            try:
                if self._xattrs:
                    os.setxattr(target, name, value)
                elif name == _ACL_NAME:
                    mode = _mode_without_acl(mode, value)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                failed("xattr", f"{os.fsdecode(name)}: {reason}")
                if name == _ACL_NAME:
                    mode = _mode_without_acl(mode, value)
        return mode

    def _chmod_set_ids(self, target: int | bytes, entry: Entry, mode: int, failed: Callable[[str, str], None]) -> None:
        """Set-id bits only for the owner they were meant for: else they would lend somebody else's rights."""
        uid, gid = self._resolve(entry)
        stat = os.stat(target)
        mode &= 0o7777
        if stat.st_uid != uid:
            mode &= ~st.S_ISUID
        if stat.st_gid != gid:
            mode &= ~st.S_ISGID
        os.chmod(target, mode)
        if os.stat(target).st_mode & _SET_IDS != entry.mode & _SET_IDS:
            failed("mode", f"set-id bits of {entry.mode:04o} are left out: the owner is another one")


def _mode_without_acl(mode: int, acl: bytes) -> int:
    """Narrow a mode whose ACL is not restored.

    With an ACL the group bits of a mode are its mask, often wider than what the owning group may do; alone
    they would be that group's rights.
    """
    rights: int
    for offset in range(_ACL_HEADER, len(acl) - _ACL_ITEM.size + 1, _ACL_ITEM.size):
        tag, rights, _ = _ACL_ITEM.unpack_from(acl, offset)
        if tag == _ACL_OWNING_GROUP:
            return mode & (~0o070 | rights << 3)
    return mode


def drop_inherited_acls(fd: int, *, directory: bool) -> None:
    """Take away the ACLs that a new inode got from its directory's default ACL.

    Raises:
        OSError: If there are some and they stay.
    """
    for name in (ACL_ACCESS, ACL_DEFAULT) if directory else (ACL_ACCESS,):
        try:
            os.removexattr(fd, name)
        except OSError as error:
            if error.errno not in _NO_ACLS:
                raise
