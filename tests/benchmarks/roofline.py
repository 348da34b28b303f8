"""How near the library comes to what the same libraries do in the same process with nothing around them.

The bare pipeline does what a first backup cannot do without: walk and stat, read, BLAKE3 of every content, cut
big files by content (and BLAKE3 of the parts), fill blocks of 4 MiB, zstd level 3, an AEAD, write to a file.  It
keeps no names, no catalog and no index, and it checks nothing.  Walking, reading and hashing happen on one thread,
compressing and sealing on the others, as in the library.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from io import RawIOBase
from pathlib import Path
from threading import local
from typing import Any, Final

import zstandard
from blake3 import blake3
from pyfastcdc import FastCDC

import rozenfmt as rz
from rozenfmt.format import crypto
from rozenfmt.format.registry import Suite
from rozenfmt.vault.capture import CHUNKED_FROM
from rozenfmt.vault.chunker import AVERAGE, LARGEST, SMALLEST

from .compare import scratch
from .measuring import about, size_of
from .trees import Tree

__all__ = ["roofline"]

_BLOCK: Final = 4 << 20
_READ: Final = 8 << 20
_SAMPLE: Final = 1 << 14
_BATCH: Final = 16  # blocks for each thread, when one stage is measured after the other
_KEY: Final = bytes(range(32))

_local = local()


# --- the stages ---------------------------------------------------------------------------------------


def walk(tree: Path) -> Iterator[tuple[str, int]]:
    """Path and size of every regular file."""
    stack = [str(tree)]
    while stack:
        with os.scandir(stack.pop()) as listing:
            for item in sorted(listing, key=_name):
                status = item.stat(follow_symlinks=False)
                if item.is_dir(follow_symlinks=False):
                    stack.append(item.path)
                elif item.is_file(follow_symlinks=False):
                    yield item.path, status.st_size


def _name(item: os.DirEntry[str]) -> str:
    return item.name


def read(path: str, size: int) -> Iterator[bytes]:
    """The content in runs of up to 8 MiB."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if size <= _READ:
            yield os.read(descriptor, size)
        else:
            while run := os.read(descriptor, _READ):
                yield run
    finally:
        os.close(descriptor)


def cut(run: bytes) -> list[memoryview]:
    """Parts of a run of a big file."""
    cutter: FastCDC | None = getattr(_local, "cutter", None)
    if cutter is None:
        cutter = _local.cutter = FastCDC(AVERAGE, min_size=SMALLEST, max_size=LARGEST, normalized_chunking=1, seed=1)
    return [part.data for part in cutter.cut_buf(run)]


def compress(block: memoryview) -> bytes | memoryview:
    """A block by zstd 3, or as it is if three samples of it do not shrink."""
    if getattr(_local, "compressors", None) is None:
        _local.compressors = zstandard.ZstdCompressor(level=1), zstandard.ZstdCompressor(level=3)
    quick, usual = _local.compressors
    middle = len(block) // 2
    sample = b"".join((block[:_SAMPLE], block[middle : middle + _SAMPLE], block[-_SAMPLE:]))
    if len(quick.compress(sample)) > 0.985 * len(sample):
        return block
    packed: bytes = usual.compress(block)
    return packed


def seal(packed: bytes | memoryview) -> tuple[bytes, bytes]:
    """A block encrypted as the library does it by default."""
    plain = bytes(packed) if isinstance(packed, memoryview) else packed
    return crypto.seal(Suite.XCHACHA20_POLY1305, _KEY, os.urandom(24), plain, b"benchmark")


class Filler:
    """Puts runs together to blocks of 4 MiB."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, run: bytes) -> list[memoryview]:
        """Take a run; returns the blocks that are full."""
        self._pieces.append(run)
        self._size += len(run)
        if self._size < _BLOCK:
            return []
        whole = memoryview(b"".join(self._pieces))
        end = self._size // _BLOCK * _BLOCK
        self._pieces, self._size = [bytes(whole[end:])], self._size - end
        return [whole[start : start + _BLOCK] for start in range(0, end, _BLOCK)]

    def rest(self) -> list[memoryview]:
        """The last block, if anything is left."""
        return [memoryview(b"".join(self._pieces))] if self._size else []


# --- one stage after the other ------------------------------------------------------------------------


class Stages:
    """Seconds and bytes of each stage.

    Attributes:
        seconds: On the clock, by stage.
        bytes: That went in, by stage.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.bytes: dict[str, int] = {}

    @contextmanager
    def timed(self, stage: str, size: int) -> Iterator[None]:
        """Add the time of a block of code."""
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start, size)

    def add(self, stage: str, seconds: float, size: int) -> None:
        """Add some time."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.bytes[stage] = self.bytes.get(stage, 0) + size


def one_by_one(tree: Path, workers: int, out: Path) -> Stages:
    """All stages over all bytes, a batch of blocks at a time, and never two stages at once."""
    stages, filler = Stages(), Filler()
    blocks: list[memoryview] = []
    with stages.timed("walk and stat", 0):
        files = list(walk(tree))
    with ThreadPoolExecutor(workers) as pool, out.open("wb", buffering=0) as file:
        for path, size in files:
            for run in _timed(read(path, size), stages):
                _hash_timed(run, stages, parts=size > CHUNKED_FROM)
                start = time.perf_counter()
                blocks += filler.add(run)
                stages.add("fill blocks", time.perf_counter() - start, len(run))
                if len(blocks) >= _BATCH * workers:
                    _finish(blocks, pool, stages, file)
                    blocks = []
        _finish([*blocks, *filler.rest()], pool, stages, file)
    return stages


def _timed(runs: Iterator[bytes], stages: Stages) -> Iterator[bytes]:
    while True:
        start = time.perf_counter()
        run = next(runs, b"")
        stages.add("read", time.perf_counter() - start, len(run))
        if not run:
            return
        yield run


def _hash_timed(run: bytes, stages: Stages, *, parts: bool) -> None:
    start = time.perf_counter()
    blake3(run).digest()
    stages.add("BLAKE3", time.perf_counter() - start, len(run))
    if parts:
        with stages.timed("FastCDC", len(run)):
            found = cut(run)
        with stages.timed("BLAKE3 of parts", len(run)):
            for part in found:
                blake3(part).digest()


def _finish(blocks: list[memoryview], pool: ThreadPoolExecutor, stages: Stages, file: RawIOBase) -> None:
    with stages.timed("zstd 3", sum(map(len, blocks))):
        packed = list(pool.map(compress, blocks))
    with stages.timed("AEAD", sum(map(len, packed))):
        sealed = list(pool.map(seal, packed))
    with stages.timed("write", sum(map(len, packed))):
        for nonce, data in sealed:
            file.write(nonce)
            file.write(data)


# --- all at once --------------------------------------------------------------------------------------


def bare(tree: Path, workers: int, out: Path) -> float:
    """The pipeline of all stages; returns seconds."""
    start = time.perf_counter()
    filler = Filler()
    pending: deque[Future[tuple[bytes, bytes]]] = deque()
    with ThreadPoolExecutor(workers) as pool, out.open("wb", buffering=0) as file:

        def submit(blocks: Iterable[memoryview]) -> None:
            for block in blocks:
                pending.append(pool.submit(_compress_and_seal, block))
                while len(pending) > workers + 1 or (pending and pending[0].done()):
                    _write(pending.popleft(), file)

        for path, size in walk(tree):
            whole = blake3()
            for run in read(path, size):
                whole.update(run)
                if size > CHUNKED_FROM:
                    for part in cut(run):
                        blake3(part).digest()
                submit(filler.add(run))
            whole.digest()
        submit(filler.rest())
        while pending:
            _write(pending.popleft(), file)
    return time.perf_counter() - start


def _compress_and_seal(block: memoryview) -> tuple[bytes, bytes]:
    return seal(compress(block))


def _write(done: Future[tuple[bytes, bytes]], file: RawIOBase) -> None:
    nonce, data = done.result()
    file.write(nonce)
    file.write(data)


# --- the library --------------------------------------------------------------------------------------


def ours(tree: Path, workers: int, folder: Path) -> tuple[float, int]:
    """A first backup into a new vault by the library, without decode check; returns seconds and stored bytes."""
    place, cache = folder / "vault", folder / "cache"
    with rz.Vault.init(place, owner=rz.Identity.generate(), cache_dir=cache) as vault:
        host = vault.enrol("benchmark")
    before = size_of(place)
    with rz.Vault.open(place, host=host, cache_dir=cache) as vault:
        start = time.perf_counter()
        vault.backup([tree], name="roofline", decode_check=False, workers=workers)
        seconds = time.perf_counter() - start
    return seconds, size_of(place) - before


def roofline(trees: Sequence[Tree], *, rounds: int, workers: int, work: Path) -> Iterator[dict[str, Any]]:
    """Measure the stages, the bare pipeline and the library on each tree, in turn; yields what is known so far.

    Args:
        trees: To be read.
        rounds: How many times.
        workers: Threads that compress and seal.
        work: Folder with room for the tree and twice its compressed size.
    """
    found: dict[str, Any] = {
        "mode": "roofline",
        "about": about(work, scale=min(tree.scale for tree in trees), rounds=rounds, workers=workers),
        "trees": {},
    }
    for tree in trees:
        with scratch(work) as folder:
            shape = tree.make(folder / "tree")
            _warm_up(folder)
            seen: list[dict[str, Any]] = []
            found["trees"][tree.name] = {"shape": asdict(shape), "rounds": seen}
            for number in range(rounds):
                seen.append(one_round(folder / "tree", folder, workers))
                share = seen[-1]["bare"] / seen[-1]["rozenfmt"]
                print(f"{tree.name}, round {number + 1}: share {share:.2f}", file=sys.stderr, flush=True)
                yield found


def one_round(tree: Path, work: Path, workers: int) -> dict[str, Any]:
    """Everything once."""
    out = work / "out"
    stages = one_by_one(tree, workers, out)
    out.unlink()
    seconds = bare(tree, workers, out)
    size = out.stat().st_size
    out.unlink()
    with scratch(work) as folder:
        took, stored = ours(tree, workers, folder)
    return {
        "stages": stages.seconds,
        "bytes": stages.bytes,
        "bare": seconds,
        "bare stored": size,
        "rozenfmt": took,
        "rozenfmt stored": stored,
    }


def _warm_up(work: Path) -> None:
    """Whatever is imported at first use is not to count."""
    with scratch(work) as folder:
        (folder / "tree").mkdir()
        (folder / "tree" / "file").write_bytes(os.urandom(2 * CHUNKED_FROM))
        one_round(folder / "tree", folder, 1)
