"""Memory does not grow with the archive: sparse giants into an upload that goes nowhere, in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .helpers import MIB

SCRIPT = """
import os, sys
import rozenfmt as rz
from rozenfmt.archive.writer import ArchiveWriter, _header
from rozenfmt.format.codecs import Compression
import rozenfmt.tree.scan, nacl.bindings, zstandard, rozenfmt.archive.check, rozenfmt.tree.restore

def peak():
    # Not getrusage: its ru_maxrss survives exec, and begins with the peak of the process that forked.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

class Null:
    name = "null"
    written = 0
    def write(self, data): self.written += len(data)
    def commit(self): return None
    def discard(self): pass

def writer(upload, compression):
    me = rz.Identity.generate()
    record, keys = _header((me.recipient,), (), None, "xchacha20-poly1305", plain=False)
    return ArchiveWriter(
        upload, record, keys, signer=None, compression=Compression.parse(compression), workers=2, progress=None
    )

what, size, place = sys.argv[1], int(sys.argv[2]), sys.argv[3]
upload = Null()
archive = writer(upload, "zstd:1" if what != "noise" else "none")
before = peak()
if what == "sparse":
    with open(place, "wb") as file:
        for number in range(64):
            file.seek(size // 64 * number)
            file.write(os.urandom(8192))
        file.truncate(size)
    archive.add_tree(place)
elif what == "noise":
    block = os.urandom(1 << 20)
    class Source:
        left = size
        def read(self, wanted):
            data = block[: min(wanted, self.left)]
            self.left -= len(data)
            return data
    archive.add("noise", Source())
elif what == "entries":
    for number in range(size):
        archive.add(f"d{number // 5000:04}/f{number:08}", b"%d" % number, mtime_ns=number)
result = archive.commit()
print(peak() - before, upload.written, result.content_bytes)
"""


def grown(what: str, size: int, place: Path) -> tuple[int, int]:
    """MiB by which the peak of memory grew, and bytes written."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, what, str(size), str(place / "file")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kib, written, content = map(int, done.stdout.split())
    assert what == "entries" or content == size
    return kib // 1024, written


def test_sparse_4_gib(tmp_path: Path) -> None:
    mib, written = grown("sparse", 4 << 30, tmp_path)
    assert mib < 150
    assert written < 20 * MIB


def test_stream_of_1_gib(tmp_path: Path) -> None:
    mib, written = grown("noise", 1 << 30, tmp_path)
    assert mib < 150
    assert written > 1 << 30


def test_20_000_entries(tmp_path: Path) -> None:
    mib, _ = grown("entries", 20_000, tmp_path)
    assert mib < 150


@pytest.mark.slow
def test_sparse_64_gib(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mib, written = grown("sparse", 64 << 30, tmp_path)
    with capsys.disabled():
        print(f"\n64 GiB sparse: +{mib} MiB, {written} bytes written")  # noqa: T201 -- a measurement
    assert mib < 150


@pytest.mark.slow
def test_a_million_entries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mib, written = grown("entries", 1_000_000, tmp_path)
    with capsys.disabled():
        print(f"\n1,000,000 entries: +{mib} MiB, {written} bytes written")  # noqa: T201 -- a measurement
    assert mib < 1_000  # add() keeps its directories open, so each entry stays in memory until the commit
