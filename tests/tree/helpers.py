"""Sinks, independent snapshots and awkward trees."""

from __future__ import annotations

import os
import pickle
import socket
import stat as st
import struct
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rozenfmt.format.nodes import Entry, Kind
from rozenfmt.tree.content import FileReader, Hole
from rozenfmt.tree.restore import Restorer
from rozenfmt.tree.scan import Scanner

if TYPE_CHECKING:
    from collections.abc import Callable

    from rozenfmt.events import Problem

NOBODY = 65534
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *item)
    for item in [
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 7, 1234),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 7, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    ]
)
"""rw for the owner, rwx for user 1234, r for the owning group, mask rwx, nothing for others: mode 0670."""


@dataclass
class Recorder:
    """A sink that keeps everything, holes as zeros."""

    events: list[tuple[str, bytes]] = field(default_factory=list)
    entries: dict[bytes, Entry] = field(default_factory=dict)
    content: dict[bytes, bytes] = field(default_factory=dict)
    holes: dict[bytes, int] = field(default_factory=dict)
    where: list[bytes] = field(default_factory=list)

    def _add(self, what: str, entry: Entry) -> bytes:
        path = b"/".join([*self.where, entry.name])
        self.events.append((what, path))
        self.entries[path] = entry
        return path

    def enter(self, entry: Entry) -> None:
        self._add("enter", entry)
        self.where.append(entry.name)

    def leave(self, entry: Entry) -> None:
        assert self.where.pop() == entry.name
        self._add("leave", entry)

    def small(self, entry: Entry, data: bytes) -> None:
        self.content[self._add("small", entry)] = data

    def stream(self, entry: Entry, reader: FileReader) -> None:
        path = self._add("stream", entry)
        data = []
        for chunk in reader:
            if isinstance(chunk, Hole):
                self.holes[path] = self.holes.get(path, 0) + chunk.length
            data.append(bytes(chunk.length) if isinstance(chunk, Hole) else chunk)
        self.content[path] = b"".join(data)
        self.entries[path] = reader.finish()

    def link(self, entry: Entry) -> None:
        self._add("link", entry)

    def other(self, entry: Entry) -> None:
        self._add("other", entry)


class CopySink:
    """A sink that restores at once."""

    def __init__(self, restorer: Restorer) -> None:
        self.restorer = restorer
        self.where: list[bytes] = []
        self.first: dict[bytes, tuple[bytes, ...]] = {}
        self.skipping = 0

    def _remember(self, entry: Entry) -> None:
        if entry.link_group is not None:
            self.first.setdefault(entry.link_group, (*self.where, entry.name))

    def enter(self, entry: Entry) -> None:
        if self.skipping or self.restorer.enter(entry) is None:
            self.skipping += 1
        self.where.append(entry.name)

    def leave(self, entry: Entry) -> None:
        assert self.where.pop() == entry.name
        if self.skipping:
            self.skipping -= 1
        else:
            self.restorer.leave()

    def small(self, entry: Entry, data: bytes) -> None:
        if not self.skipping and self.restorer.small(entry, data):
            self._remember(entry)

    def stream(self, entry: Entry, reader: FileReader) -> None:
        if not self.skipping and self.restorer.stream(entry, reader):
            self._remember(entry)

    def link(self, entry: Entry) -> None:
        assert entry.link_group is not None
        if not self.skipping:
            self.restorer.link(entry, self.first[entry.link_group])

    def other(self, entry: Entry) -> None:
        if self.skipping:
            return
        if entry.link_group in self.first:
            self.restorer.link(entry, self.first[entry.link_group])
        elif self.restorer.other(entry):
            self._remember(entry)


def scan(root: bytes, **options: Any) -> tuple[Recorder, list[Problem]]:
    """Scan into a ``Recorder``."""
    sink = Recorder()
    problems: list[Problem] = []
    Scanner(root, report=problems.append, **options).run(sink)
    return sink, problems


def copy(source: bytes, destination: bytes, **options: Any) -> list[Problem]:
    """Scan and restore; the copy is ``destination`` / base name of ``source``."""
    problems: list[Problem] = []
    with Restorer(destination, report=problems.append, **options) as restorer:
        Scanner(source, report=problems.append).run(CopySink(restorer))
    return problems


def facts(path: bytes) -> dict[bytes, tuple[Any, ...]]:
    """Everything restorable below a path, told by plain calls: the oracle of these tests."""
    found: dict[bytes, tuple[Any, ...]] = {}
    groups: dict[tuple[int, int], int] = {}

    def look(name: bytes) -> None:
        full = path + name
        stat = os.lstat(full)
        kind = st.S_IFMT(stat.st_mode)
        content: Any = None
        if kind == st.S_IFREG and os.access(full, os.R_OK):
            with open(full, "rb") as file:
                content = file.read()
        elif kind == st.S_IFLNK:
            content = os.readlink(full)
        elif kind in (st.S_IFCHR, st.S_IFBLK):
            content = stat.st_rdev
        names = sorted(os.listxattr(full, follow_symlinks=False))
        xattrs = [(item, os.getxattr(full, item, follow_symlinks=False)) for item in names]
        link = groups.setdefault((stat.st_dev, stat.st_ino), len(groups)) if kind != st.S_IFDIR else None
        found[name] = stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime_ns, content, xattrs, link
        if kind == st.S_IFDIR:
            for below in sorted(os.listdir(full)):
                look(name + b"/" + below)

    look(b"")
    return found


def write(path: bytes, data: bytes = b"") -> bytes:
    """Write a file."""
    with open(path, "wb") as file:
        file.write(data)
    return path


def build_awkward(root: bytes) -> None:
    """A tree of everything that an ordinary user can make."""
    os.mkdir(root)
    names = [
        b"plain", b"-rf", b"--", b"new\nline", b"[*]?", b"tab\there", b"\xff\xfe", b"caf\xe9", "é".encode(),
        b" ", b"...", b"~", b"$(x)", b"\\", b"a" * 255, b"\x01", b"'\"", b"CON", b".hidden",
    ]  # fmt: skip
    for number, name in enumerate(names):
        write(root + b"/" + name, b"content %d of " % number + name)
        os.utime(root + b"/" + name, ns=(0, 1_600_000_000_123_456_789 + number))
    write(root + b"/empty")
    write(root + b"/old")
    os.utime(root + b"/old", ns=(0, -1_234_567_890_123_456_789))
    write(root + b"/read-only", b"x")
    os.chmod(root + b"/read-only", 0o400)
    write(root + b"/set-id", b"x")
    os.chmod(root + b"/set-id", 0o6755)
    write(root + b"/acl", b"x")
    os.setxattr(root + b"/acl", "system.posix_acl_access", ACL)
    os.setxattr(root + b"/acl", "user.z", b"\x00\xff")
    os.setxattr(root + b"/acl", "user.a", b"")
    for directory in (b"/empty-dir", b"/dir", b"/dir/deeper", b"/dir/new\nline", b"/dir.d", b"/\xff\xff"):
        os.mkdir(root + directory)
    os.setxattr(root + b"/dir", "system.posix_acl_default", ACL)
    os.setxattr(root + b"/dir", "user.dir", b"yes")
    os.link(root + b"/plain", root + b"/dir/second name")
    os.link(root + b"/plain", root + b"/zz-third")
    os.symlink(b"plain", root + b"/link")
    os.symlink(b"/nowhere/\xff\n", root + b"/dangling")
    os.symlink(b"dir", root + b"/link-to-dir")
    os.symlink(b"..", root + b"/dir/up")
    os.utime(root + b"/link", ns=(0, 5), follow_symlinks=False)
    os.mkfifo(root + b"/fifo", 0o640)
    os.utime(root + b"/fifo", ns=(0, 77))
    with open(root + b"/sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(3 << 20)
    write(root + b"/big", os.urandom(1 << 20) * 5)
    os.chmod(root + b"/dir/deeper", 0o1500)
    for directory in (b"/dir/deeper", b"/dir", b"/empty-dir", b""):
        os.utime(root + directory, ns=(0, 1_500_000_000_000_000_001))


def make_socket(path: bytes) -> None:
    """Leave a socket behind."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


def as_nobody(function: Callable[[], None]) -> None:
    """Run without privileges: in a forked child if this is root, else right here."""
    if os.geteuid() != 0:
        function()
        return
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        message = ""
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            function()
        except BaseException:  # noqa: BLE001 -- carried to the parent
            message = traceback.format_exc()
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(message, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        message = pickle.load(pipe)
    os.waitpid(child, 0)
    assert not message, message


def entry(name: bytes, kind: Kind = Kind.FILE, **facts_: Any) -> Entry:
    """An entry of this user with sensible modes."""
    mode = 0o755 if kind is Kind.DIRECTORY else 0o644
    return Entry(name, kind, **{"mode": mode, "uid": os.geteuid(), "gid": os.getegid(), **facts_})


def no_problem(problem: Problem) -> None:
    """A ``report`` that accepts none."""
    raise AssertionError(problem)


def is_root() -> bool:
    """Whether privileged tests can run."""
    return os.geteuid() == 0
