"""What a tree on a disk is, to be held against what a restore gives back."""

from __future__ import annotations

import os
import stat as st
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3


class Fact(NamedTuple):
    """An entry; ``content`` is the digest of a file, or the target of a link; ``links`` are all names of the file."""

    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    content: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    links: frozenset[bytes] = frozenset()

    @property
    def directory(self) -> bool:
        return self.kind == st.S_IFDIR

    @property
    def file(self) -> bool:
        return self.kind == st.S_IFREG

    def alone(self) -> Fact:
        """The same, as if it had one name only."""
        return self._replace(links=frozenset())

    def same_content(self, other: Fact) -> bool:
        return (self.kind, self.size, self.content) == (other.kind, other.size, other.content)


def tree(roots: Mapping[bytes, Path]) -> dict[bytes, Fact]:
    """All entries below some roots, by the path that they have in a snapshot."""
    found: dict[bytes, Fact] = {}
    inodes: dict[tuple[int, int], list[bytes]] = {}
    stack = [(name, os.fsencode(path)) for name, path in roots.items()]
    while stack:
        name, path = stack.pop()
        stat = os.lstat(path)
        kind, size, content = st.S_IFMT(stat.st_mode), 0, b""
        if kind == st.S_IFREG:
            with open(path, "rb") as file:
                data = file.read()
            size, content = len(data), blake3(data).digest()
            if stat.st_nlink > 1:
                inodes.setdefault((stat.st_dev, stat.st_ino), []).append(name)
        elif kind == st.S_IFLNK:
            content = os.readlink(path)
        elif kind == st.S_IFDIR:
            stack += [(name + b"/" + one, path + b"/" + one) for one in os.listdir(path)]
        xattrs = tuple(
            sorted((x, os.getxattr(path, x, follow_symlinks=False)) for x in os.listxattr(path, follow_symlinks=False))
        )
        mtime = stat.st_mtime_ns if kind != st.S_IFLNK else 0
        found[name] = Fact(kind, st.S_IMODE(stat.st_mode), stat.st_uid, stat.st_gid, mtime, size, content, xattrs)
    for names in inodes.values():
        if len(names) > 1:
            for name in names:
                found[name] = found[name]._replace(links=frozenset(names))
    return found


def restored(folder: Path) -> dict[bytes, Fact]:
    """All entries below a folder into which a snapshot was restored."""
    return tree({os.fsencode(name): folder / name for name in os.listdir(folder)})


def differences(wanted: Mapping[bytes, Fact], got: Mapping[bytes, Fact]) -> list[str]:
    """In words, for a message."""
    lines = [f"missing: {path!r}" for path in wanted.keys() - got.keys()]
    lines += [f"not expected: {path!r}" for path in got.keys() - wanted.keys()]
    lines += [
        f"{path!r}: {wanted[path]} became {got[path]}"
        for path in wanted.keys() & got.keys()
        if wanted[path] != got[path]
    ]
    return sorted(lines)
