"""Trees, archives of many blocks, and archives that no honest writer makes."""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import rozenfmt as rz
from rozenfmt.archive.pipeline import Pipeline
from rozenfmt.format import crypto, nodes
from rozenfmt.format.blocks import Draft
from rozenfmt.format.builders import PiecesBuilder, StreamBuilder
from rozenfmt.format.crypto import Keys
from rozenfmt.format.encoder import Encoder
from rozenfmt.format.header import Header, build_header, parse_header
from rozenfmt.format.nodes import Entry
from rozenfmt.format.records import HeaderRecord
from rozenfmt.format.registry import Right, Suite
from rozenfmt.storage.base import ObjectInfo

KIB: Final = 1024
MIB: Final = 1024 * 1024


def make_removable(path: Path) -> None:
    subprocess.run(["chmod", "-R", "u+rwx", "--", str(path)], check=True)


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, the same for each seed."""
    return random.Random(seed).randbytes(size)


def many_files(root: Path, count: int = 300, *, size: int = 20_000, big: Sequence[int] = ()) -> dict[str, bytes]:
    """A tree of noise; returns the contents by path below the root's parent."""
    contents: dict[str, bytes] = {}
    root.mkdir()
    for number in range(count):
        directory = root / f"d{number % 7}"
        directory.mkdir(exist_ok=True)
        data = noise(1 + number * 9973 % size, number)
        (directory / f"f{number:04}").write_bytes(data)
        contents[f"{root.name}/{directory.name}/f{number:04}"] = data
    for number, length in enumerate(big):
        data = noise(length, 10_000 + number)
        (root / f"big{number}").write_bytes(data)
        contents[f"{root.name}/big{number}"] = data
    return contents


def write_archive(path: Path, recipient: rz.Recipient, *sources: Path, **options: Any) -> Path:
    with rz.create(path, recipients=[recipient], **options) as archive:
        for source in sources:
            archive.add_tree(source)
    return path


def drained(submit: Callable[[Pipeline, Draft], int]) -> Callable[[Pipeline, Draft], int]:
    """Write each block at once, so that checkpoints do not depend on how fast the workers are."""

    def at_once(pipeline: Pipeline, draft: Draft) -> int:
        sequence = submit(pipeline, draft)
        pipeline.drain()
        return sequence

    return at_once


def threads() -> set[str]:
    """Names of this library's threads that are alive."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("rozenfmt-")}


@dataclass
class NullUpload:
    """An upload that goes nowhere."""

    name: str = "null"
    written: int = 0
    state: str = "open"
    kept: list[bytes] | None = None
    on_write: Callable[[int], None] | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)
        if self.kept is not None:
            self.kept.append(bytes(data))
        if self.on_write is not None:
            self.on_write(self.written)

    def commit(self) -> ObjectInfo:
        self.state = "committed"
        return ObjectInfo(self.name, self.written)

    def discard(self) -> None:
        if self.state == "open":
            self.state = "discarded"


# --- Archives as blocks -------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """One block of an archive: type, offset and bytes."""

    type: bytes
    offset: int
    data: bytes


def header_of(data: bytes) -> Header:
    return parse_header(data)


def blocks_of(data: bytes) -> list[Stored]:
    """Blocks of a whole archive, ``FOOT`` included."""
    at = len(parse_header(data).section)
    found = []
    while at < len(data) - 64:
        a = int.from_bytes(data[at + 40 : at + 44], "little")
        b = int.from_bytes(data[at + 44 : at + 52], "little")
        length = 52 + a + b + 64 + (32 if data[at + 12] & 1 else 0)
        found.append(Stored(data[at + 8 : at + 12], at, data[at : at + length]))
        at += length
    return found


# --- Crafted archives ---------------------------------------------------------------------------


@dataclass
class Crafter:
    """Writes an archive block by block, with a key, and without any scruples.

    What ``raw_directory`` takes is written as it is; the index tells the truth unless it is changed.
    """

    recipient: rz.Recipient | None
    secret: bytes = field(default_factory=lambda: os.urandom(32))
    archive_id: bytes = field(default_factory=lambda: os.urandom(16))
    keys: Keys = field(init=False)
    encoder: Encoder = field(init=False)
    out: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        suite = Suite.XCHACHA20_POLY1305 if self.recipient is not None else Suite.PLAIN
        self.keys = Keys.from_secret(suite, self.archive_id, self.secret if self.recipient is not None else bytes(32))
        common: dict[str, Any] = {
            "archive_id": self.archive_id,
            "kind": 3,
            "suite": int(suite),
            "features": (),
            "creator": "crafted",
            "id_key": 0,
        }
        if self.recipient is None:
            record = HeaderRecord(padding=(1, 1, 1), **common)
        else:
            body = self.recipient.wrap(Right.READ, self.archive_id, self.secret, os.urandom)
            record = HeaderRecord(
                padding=(1024, 4096, 1024),
                commit_secret=self.keys.commitment_to_secret(),
                commit_index=self.keys.commitment_to_index_key(),
                stanzas=((1, 1, body),),
                **common,
            )
        keys = self.keys if self.recipient is not None else None
        self.encoder = Encoder(build_header(record, keys), keys, entropy=os.urandom)
        self.out.append(self.encoder.begin())

    def id(self, data: bytes) -> bytes:
        assert self.keys.id_key is not None
        return crypto.content_id(self.keys.id_key, crypto.digest(data), len(data))

    def block(self, draft: Draft) -> int:
        sealed = self.encoder.write(draft)
        self.out += sealed.buffers
        return sealed.sequence

    def pieces(self, block_type: bytes, pieces: Sequence[bytes], *, listed: bool = True) -> int:
        builder = PiecesBuilder(block_type, target=16 * MIB)
        for piece in pieces:
            builder.add(piece)
        sequence = self.block(builder.seal())
        if block_type == b"PACK" and listed:
            self.encoder.index.add_content([self.id(piece) for piece in pieces], sequence)
        return sequence

    def file(self, name: bytes, data: bytes, **facts: Any) -> Entry:
        """A file in a pack of its own."""
        sequence = self.pieces(b"PACK", [data])
        return Entry(name, rz.Kind.FILE, 0o644, size=len(data), content_id=self.id(data), block=sequence, **facts)

    def stream(self, pieces: Sequence[bytes], length: int, content_id: bytes, table: Callable[[int], bytes]) -> int:
        """A stream of one block for each piece; the part table is given the first one's number."""
        builder: StreamBuilder = self.encoder.open_stream()
        self.block(builder.start())
        first, at = self.encoder.next_sequence, 0
        for piece in pieces:
            sequence = self.block(builder.content([piece], at))
            self.encoder.index.add_content([self.id(piece)], sequence)
            at += len(piece)
        sequence = self.block(builder.end(length, content_id, table(first)))
        self.encoder.index.add_content([content_id], sequence)
        return sequence

    def logical(self, entries: Sequence[Entry]) -> bytes:
        return nodes.directory_record(entries)

    def hints(self, path: bytes, entries: Sequence[Entry]) -> bytes:
        return nodes.directory_hints(
            path,
            [(e.block, e.piece) for e in entries if e.has_content],
            [(e.block, e.piece) for e in entries if e.kind is rz.Kind.DIRECTORY],
            [e.xattr_ref[1:] for e in entries if e.xattr_ref is not None],
        )

    def directory(
        self, path: bytes, entries: Sequence[Entry], *, logical: bytes | None = None, listed: bool = True
    ) -> Entry:
        """A directory's node in a ``TREE`` of its own; returns the entry that refers to it."""
        logical = logical if logical is not None else self.logical(entries)
        return self.node(path, logical, self.hints(path, entries), listed=listed)

    def node(self, path: bytes, logical: bytes, hints: bytes, *, listed: bool = True) -> Entry:
        sequence = self.pieces(b"TREE", [nodes.join_node(logical, hints)])
        if listed:
            self.encoder.index.add_path(crypto.mac(self.keys.path_key, path)[:16], sequence, 0)
        return Entry(
            path.rpartition(b"/")[2] or b"root",
            rz.Kind.DIRECTORY,
            0o755,
            child=crypto.digest(logical),
            block=sequence,
            piece=0,
        )

    def finish(self, root: Entry, totals: tuple[int, int] = (0, 0)) -> bytes:
        assert root.child is not None
        self.out += self.encoder.finish(root=(root.child, root.block, root.piece), totals=totals)
        return b"".join(self.out)


# --- Trees on disk ------------------------------------------------------------------------------


def files_below(root: Path) -> Iterator[tuple[str, Path]]:
    """Every regular file, by its path below ``root``."""
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(root)), path


def assert_only_right(restored: Path, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """What salvage restored under its own name is right byte for byte; returns it."""
    good: dict[str, bytes] = {}
    for name, path in files_below(restored):
        if name.startswith("lost+found/") or name.endswith(".incomplete"):
            continue
        data = path.read_bytes()
        assert contents[name] == data, name
        good[name] = data
    return good
