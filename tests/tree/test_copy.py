"""Scan, restore, and look whether the copy is the same."""

from __future__ import annotations

import os
import shutil
import stat as st
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as s

from rozenfmt.format.nodes import Kind
from rozenfmt.tree.restore import Restorer
from rozenfmt.tree.scan import Scanner

from .helpers import CopySink, as_nobody, build_awkward, copy, facts, is_root, make_socket, scan, write


def check_awkward(place: bytes) -> None:
    build_awkward(place + b"/src")
    assert copy(place + b"/src", place + b"/out") == []
    assert facts(place + b"/out/src") == facts(place + b"/src")
    for name in (b"/sparse", b"/big"):
        assert os.stat(place + b"/out/src" + name).st_blocks == os.stat(place + b"/src" + name).st_blocks
    assert os.listdir(place + b"/out") == [b"src"]


def test_awkward_tree(place: bytes) -> None:
    check_awkward(place)


@pytest.mark.skipif(not is_root(), reason="the test above runs as an ordinary user already")
def test_awkward_tree_without_privileges(place: bytes) -> None:
    as_nobody(lambda: check_awkward(place))


@pytest.mark.skipif(not is_root(), reason="needs root")
def test_what_only_root_can(place: bytes) -> None:
    src = place + b"/src"
    os.mkdir(src)
    os.mknod(src + b"/null", 0o622 | st.S_IFCHR, os.makedev(1, 3))
    os.chmod(src + b"/null", 0o622)
    os.mknod(src + b"/disk", 0o640 | st.S_IFBLK, os.makedev(259, 70000))
    os.link(src + b"/null", src + b"/zero")
    write(src + b"/theirs", b"1")
    os.chown(src + b"/theirs", 1234, 4321)
    os.chmod(src + b"/theirs", 0o6711)
    os.setxattr(src + b"/theirs", "trusted.t", b"t")
    os.symlink("x", src + b"/link")
    os.chown(src + b"/link", 1234, 4321, follow_symlinks=False)
    os.setxattr(src + b"/link", "trusted.link", b"l", follow_symlinks=False)
    os.mkfifo(src + b"/fifo")
    os.chown(src + b"/fifo", 7, 8)
    os.mkdir(src + b"/sub", 0o2750)
    os.chown(src + b"/sub", 1234, 4321)
    os.chmod(src + b"/sub", 0o2750)
    assert copy(src, place + b"/out") == []
    assert facts(place + b"/out/src") == facts(src)


def test_sockets_are_reported(place: bytes) -> None:
    os.mkdir(place + b"/src")
    make_socket(place + b"/src/s")
    assert [(p.what, p.path) for p in copy(place + b"/src", place + b"/out")] == [("unsupported", b"src/s")]
    assert os.listdir(place + b"/out/src") == []


def test_deeper_than_any_path(place: bytes) -> None:
    fd = os.open(place, os.O_RDONLY)
    os.mkdir(b"src", dir_fd=fd)
    at = os.open(b"src", os.O_RDONLY, dir_fd=fd)
    for level in range(300):
        os.mkdir(b"d" * 200, dir_fd=at)
        os.close(os.open(b"z", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=at))
        below = os.open(b"d" * 200, os.O_RDONLY, dir_fd=at)
        os.utime(at, ns=(level, level))
        os.close(at)
        at = below
    os.close(at)
    try:
        assert copy(place + b"/src", place + b"/out") == []
        first, _ = scan(place + b"/src")
        second, problems = scan(place + b"/out/src")
        assert problems == []
        assert first.entries == second.entries
        assert sum(e.kind is Kind.FILE for e in first.entries.values()) == 300
    finally:
        os.close(fd)
        shutil.rmtree(place + b"/src")
        shutil.rmtree(place + b"/out")


def test_no_descriptor_is_left_open(place: bytes) -> None:
    build_awkward(place + b"/src")
    before = len(os.listdir("/proc/self/fd"))
    copy(place + b"/src", place + b"/out")

    class Full(CopySink):
        def small(self, *_: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Restorer(place + b"/b", report=print) as restorer:
        Scanner(place + b"/src", report=print).run(Full(restorer))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_second_run_goes_on_where_the_first_stopped(place: bytes) -> None:
    build_awkward(place + b"/src")
    assert copy(place + b"/src", place + b"/out") == []
    os.unlink(place + b"/out/src/plain")
    os.unlink(place + b"/out/src/dir/second name")
    shutil.rmtree(place + b"/out/src/dir.d")
    os.chmod(place + b"/out/src", 0o500)
    problems: list[Any] = []
    with Restorer(place + b"/out", report=problems.append) as restorer:
        Scanner(place + b"/src", report=problems.append).run(CopySink(restorer))
    assert problems == []
    assert restorer.files == 2
    assert restorer.skipped > 20
    ours, theirs = facts(place + b"/out/src"), facts(place + b"/src")
    assert {k: v[:6] for k, v in ours.items()} == {k: v[:6] for k, v in theirs.items()}


names = s.binary(min_size=1, max_size=12).map(
    lambda raw: raw.replace(b"/", b"|").replace(b"\0", b"0") + (b"_" if raw in (b".", b"..") else b"")
)
times = s.integers(-(2**31) * 10**9, 2**33 * 10**9)
files = s.tuples(s.just("file"), s.binary(max_size=300), s.integers(0, 0o777), times)
links = s.tuples(s.just("symlink"), s.binary(min_size=1, max_size=20).map(lambda t: t.replace(b"\0", b"0")))
trees = s.recursive(
    files | links | s.just(("fifo",)), lambda below: s.dictionaries(names, below, max_size=5), max_leaves=15
)


def build(path: bytes, node: Any) -> None:
    if isinstance(node, dict):
        os.mkdir(path)
        for name, below in node.items():
            build(path + b"/" + name, below)
        os.utime(path, ns=(1, len(node) * 1_000_000_007))
    elif node[0] == "file":
        write(path, node[1])
        os.chmod(path, node[2] | 0o400)
        os.utime(path, ns=(0, node[3]))
    elif node[0] == "symlink":
        os.symlink(node[1], path)
    else:
        os.mkfifo(path)


@given(tree=s.dictionaries(names, trees, max_size=6))
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_any_tree(tree: dict[bytes, Any]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as temporary:
        place = os.fsencode(temporary)
        build(place + b"/src", tree)
        assert copy(place + b"/src", place + b"/out") == []
        assert facts(place + b"/out/src") == facts(place + b"/src")
