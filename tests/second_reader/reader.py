"""The second reader: sequential reading (section 11), random access (12) and salvage (13).

result = read(data, x25519_private=[...])      # SpecError, with .result, on the first step that fails
content, reads = open_random(data, b"a/b", x25519_private=[...])
files = salvage(data, x25519_private=[...])
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from blake3 import blake3

from . import model as m
from . import primitives as p
from .model import (
    Block,
    Entry,
    Frame,
    Header,
    Identities,
    Keys,
    Location,
    SpecError,
    place,
    refuse,
)
from .primitives import Malformed, need, present
from .snapshots import Metadata

TAIL = 64
WINDOW = 256 * 1024
OWN_CONTENT_LIMIT = 1 << 34  # a bound of this reader, for contents that are nearly all hole


# ---------------------------------------------------------------- what sequential reading gives


@dataclass
class Stream:
    number: int
    open: bool = True
    pieces: list[tuple[Location, int, bytes]] = field(default_factory=list)  # place, offset in the content, bytes
    blocks: int = 0
    end: int = 0


@dataclass
class StreamEnd:
    stream: int
    length: int
    blocks: int
    content_id: bytes
    table: m.PartLeaf | m.PartInner


@dataclass
class Archive:
    """One archive of the object; fields stay as they were when reading failed."""

    offset: int  # of its preamble, in the object
    header: Header | None = None
    right: str | None = None
    blocks: list[tuple[str, int, int]] = field(default_factory=list)  # type, sequence number, stored length
    released: bytes = blake3(b"").digest()  # BLAKE3 of all released bodies, in order
    released_bytes: int = 0
    tree: list[Entry] = field(default_factory=list)
    signature: str | None = None  # "valid" or "none" once checked
    stored: dict[Location, Callable[[], bytes]] = field(default_factory=dict)
    terminated: bool = False
    metadata: Metadata | None = None  # of an archive of kind 2

    def contents(self, path: bytes) -> bytes:
        for entry in self.tree:
            if entry.path == path and entry.kind == m.FILE:
                if entry.size == 0:
                    return b""
                if entry.content_at is None:
                    raise ValueError("the content was not stored")
                return self.stored[entry.content_at]()
        raise KeyError(path)


@dataclass
class Result:
    archives: list[Archive] = field(default_factory=list)


def read(
    data: bytes,
    *,
    x25519_private: Sequence[bytes] = (),
    passphrases: Sequence[str] = (),
    verify_key: bytes | None = None,
    allow_plain: bool = False,
    id_key: bytes | None = None,
) -> Result:
    """Reads all archives of the object and checks them completely, as far as the keys allow."""
    identities = Identities(list(x25519_private), list(passphrases), verify_key, allow_plain, id_key)
    result = Result()
    base = 0
    while True:
        sequential = _Sequential(data, base, identities)
        result.archives.append(sequential.out)
        try:
            base = sequential.run()
        except SpecError as error:
            error.result = result
            if error.offset is None:
                error.offset = sequential.base + sequential.at
            raise
        if base == len(data):
            return result


# ---------------------------------------------------------------- section 11


class _Sequential:
    def __init__(self, data: bytes, base: int, identities: Identities) -> None:
        self.data = data
        self.base = base
        self.identities = identities
        self.at = 0  # in the archive
        self.out = Archive(base)
        self.frames: list[Frame] = []
        self.hasher = blake3()
        self.streams: list[Stream] = []
        self.ends: dict[int, StreamEnd] = {}
        self.ended: dict[int, int] = {}  # sequence number of FEND by stream
        self.packed: dict[Location, bytes] = {}
        self.nodes: dict[Location, m.Node] = {}
        self.xattrs: dict[Location, tuple[bytes | None, list[tuple[bytes, bytes]]]] = {}
        self.leaves: list[tuple[Frame, m.IndexLeaf]] = []
        self.root: m.IndexRoot | None = None
        self.first_index: int | None = None
        self.checkpointed: tuple[int, int | None] = (0, None)  # where the last ckpt ended, and its offset
        self.directories = 0  # DIRY blocks

    def run(self) -> int:
        """Reads one archive; the offset behind it in the object."""
        header = m.parse_header(self.data[self.base :])
        self.header = self.out.header = header
        self.metadata = self.out.metadata = Metadata(header.archive_id) if header.kind == 2 else None
        m.check_usable(header, self.identities)
        self.keys = m.unwrap(header, self.identities)
        self.out.right = None if self.keys is None else self.keys.right
        self.at = len(header.section)
        chain = header.digest
        while True:
            seq = len(self.frames)
            frame = m.parse_frame(self.data, self.base + self.at, self.at, header.archive_id, seq)
            known = m.check_type(header, frame)
            block = None
            if known and known.body not in ("special", "reserved") and m.readable(known, self.keys):
                block = m.open_block(header, self.keys, known, frame)
            self.order(frame)
            if frame.type == b"FOOT":
                break
            if block is not None:
                self.accept(frame, block)
                if frame.type in (b"PACK", b"FCNT"):
                    self.hasher.update(block.body)
                    self.out.released = self.hasher.digest()
                    self.out.released_bytes += len(block.body)
            self.frames.append(frame)
            self.out.blocks.append((frame.type.decode(), frame.seq, frame.length))
            chain = p.h(chain + frame.whole_hash)
            self.at += frame.length
        self.foot(frame, chain)
        self.out.blocks.append((frame.type.decode(), frame.seq, frame.length))
        self.at += frame.length
        tail = self.data[self.base + self.at :][:TAIL]
        if len(tail) < TAIL:
            refuse("truncated", "11.3", "tail is cut off")
        if tail != m.tail_of(frame, header.digest):
            refuse("index", "11.3", "wrong tail")
        self.out.terminated = True
        if self.keys is not None:
            _Complete(self).check()
        return self.base + self.at + TAIL

    def order(self, frame: Frame) -> None:
        """The grammar of section 5, as far as the types alone tell; so it binds readers without a key too."""
        kind = frame.type
        if self.metadata is not None and self.first_index is None:
            self.metadata.order(kind)
        if kind == b"INDX":
            if self.first_index is None:
                self.first_index = frame.seq
        elif kind == b"FOOT":
            if self.first_index is None or (self.keys is not None and self.root is None):
                refuse("block", "5", "FOOT before the root of the index")
            if self.header.kind == 4 and self.directories != 1:
                refuse("block", "5", "directory archive without its DIRY")
        elif self.first_index is not None:
            refuse("block", "5", f"{kind.decode()} behind INDX")
        elif kind == b"DIRY":
            self.directories += 1
            if self.directories > 1:
                refuse("block", "5", "a second DIRY")

    def accept(self, frame: Frame, block: Block) -> None:
        """Step (k)."""
        if frame.type == b"INDX":
            with place("index", "9"):
                self.index(frame, block)
            return
        with place("block", "5"):
            if frame.type == b"FHDR":
                self.stream_start(block)
            elif frame.type == b"FCNT":
                self.stream_content(frame, block)
            elif frame.type == b"FEND":
                self.stream_end(frame, block)
            elif frame.type == b"PACK":
                for number, piece in enumerate(block.pieces):
                    self.packed[frame.seq, number] = piece
            elif frame.type == b"TREE":
                for number, piece in enumerate(block.pieces):
                    self.nodes[frame.seq, number] = m.parse_node(piece, vault=self.header.kind == 2)
            elif frame.type == b"TREX":
                assert self.keys is not None
                for number, piece in enumerate(block.pieces):
                    one = None if self.keys.id_key is None else self.keys.content_id(piece)
                    self.xattrs[frame.seq, number] = (one, m.parse_xattrs(piece))
            elif frame.type == b"ckpt":
                self.checkpoint_block(frame, block)
            elif frame.type == b"DIRY":
                check_diry(block.body)
            if self.metadata is not None:
                nodes = [self.nodes[frame.seq, n] for n in range(len(block.pieces))] if frame.type == b"TREE" else []
                self.metadata.take(frame.type, frame.seq, block, nodes)

    def stream_start(self, block: Block) -> None:
        record = block.record
        if p.is_uint(need(record, 16)) != len(self.streams):
            raise Malformed("stream number out of turn")
        if 17 in record and len(p.is_bytes(record[17])) > m.MAX_NAME:
            refuse("limit", "5.1", "path hint is too long")
        if 18 in record:
            p.is_uint(record[18])
        if 19 in record and len(p.is_text(record[19]).encode()) > m.MAX_MEDIA_TYPE:
            refuse("limit", "5.1", "media type is too long")
        self.streams.append(Stream(len(self.streams)))
        if sum(stream.open for stream in self.streams) > m.MAX_STREAMS:
            refuse("limit", "5.1", "too many open streams")

    def open_stream(self, number: p.Value) -> Stream:
        found = p.is_uint(number)
        if found >= len(self.streams) or not self.streams[found].open:
            raise Malformed("stream is not open")
        return self.streams[found]

    def stream_content(self, frame: Frame, block: Block) -> None:
        stream = self.open_stream(need(block.record, 17))
        if p.is_uint(need(block.record, 18)) != stream.blocks:
            raise Malformed("FCNT out of turn in its stream")
        offset = p.is_uint(need(block.record, 19), stream.end)
        if offset + len(block.body) >= 1 << 63:
            raise Malformed("stream ends beyond 2^63")
        for number, piece in enumerate(block.pieces):
            stream.pieces.append(((frame.seq, number), offset, piece))
            offset += len(piece)
        stream.end = offset
        stream.blocks += 1

    def stream_end(self, frame: Frame, block: Block) -> None:
        end = parse_fend(block)
        stream = self.open_stream(end.stream)
        if self.sees_content and (end.length < stream.end or end.blocks != stream.blocks):
            raise Malformed("FEND contradicts the FCNT blocks of its stream")
        stream.open = False
        self.ends[frame.seq] = end
        self.ended[end.stream] = frame.seq

    @property
    def sees_content(self) -> bool:
        return self.keys is not None and self.keys.s is not None

    def checkpoint_block(self, frame: Frame, block: Block) -> None:
        first, previous = self.checkpointed
        count = p.is_uint(need(block.record, 17))
        if p.is_uint(need(block.record, 16)) != first or first + count > frame.seq:
            raise Malformed("ckpt does not go on where the previous one ended, or lists itself")
        listed = self.frames[first : first + count]
        if present(block.record, 18, previous is not None) and block.record[18] != previous:
            raise Malformed("ckpt with a wrong offset of the previous one")
        if bool(block.body) != bool(listed):
            raise Malformed("ckpt with a body though it lists nothing, or without one")
        if listed:
            body = p.cbor_map(block.body)
            types = m.split(p.is_bytes(need(body, 1)), 4, count)
            lengths = p.column(p.is_bytes(need(body, 2)), count)
            if list(zip(types, lengths, strict=False)) != [(f.type, f.length) for f in listed]:
                raise Malformed("ckpt contradicts the blocks")
        self.checkpointed = (first + count, frame.offset)

    def index(self, frame: Frame, block: Block) -> None:
        if self.root is not None:
            raise Malformed("INDX behind the root")
        kind = p.is_uint(need(block.record, 16), 1, 4)
        if kind != 4:
            if kind == 2 and self.header.kind != 3:
                raise Malformed("path look-up in an archive that is not self-contained")
            if kind == 1 and self.header.kind not in (1, 3):
                raise Malformed("content look-up in an archive without contents")
            if self.leaves and kind < self.leaves[-1][1].kind:
                raise Malformed("leaves of the index out of order")
            self.leaves.append((frame, m.parse_index_leaf(kind, block)))
            return
        root = self.root = m.parse_index_root(self.header, block)
        first = self.leaves[0][0] if self.leaves else frame
        if (root.first_seq, root.first_offset) != (first.seq, first.offset):
            raise Malformed("root has the wrong place of the first INDX block")
        told = list(zip(root.kinds, root.lengths, root.hashes, root.first_keys, root.counts, strict=False))
        found = [(leaf.kind, f.length, f.whole_hash, leaf.first_key, leaf.count) for f, leaf in self.leaves]
        if told != found:
            raise Malformed("root contradicts the leaves")

    def foot(self, frame: Frame, chain: bytes) -> None:
        foot = m.parse_foot(frame)
        root = self.frames[-1]
        if foot.root != (root.seq, root.offset, root.length, root.whole_hash):
            refuse("index", "10", "FOOT contradicts the root of the index")
        if foot.chain != chain:
            refuse("index", "10", "wrong chain")
        self.out.signature = m.check_foot(self.header, self.keys, self.identities, frame, foot)


def parse_fend(block: Block) -> StreamEnd:
    node = m.parse_node(block.body)
    if node.what is None:
        refuse("unsupported", "8", f"FEND with a node of type {node.type}")
    if not isinstance(node.what, (m.PartLeaf, m.PartInner)):
        raise Malformed("body of FEND is not a part table")
    record = block.record
    end = StreamEnd(
        p.is_uint(need(record, 16)),
        p.is_uint(need(record, 17), 1),
        p.is_uint(need(record, 18)),
        p.is_bytes(need(record, 19), 32),
        node.what,
    )
    if end.length != end.table.total:
        raise Malformed("part table has another total than FEND")
    return end


def check_diry(body: bytes) -> None:
    last = -1
    for row in p.is_array(need(p.cbor_map(body), 1)):
        archive_id, offset, length = p.is_array(row, 3)
        p.is_bytes(archive_id, 16)
        p.is_uint(length)
        last = p.is_uint(offset, last + 1)


# ---------------------------------------------------------------- the complete check (end of section 11)


Child = Callable[[bytes, Location, Location], m.Node]
Found = tuple[Location, Entry]  # an entry, and the place of the leaf that holds it


def flatten(node: m.Node, place_: Location, path: bytes, child: Child, depth: int = 0) -> list[Found]:
    """All entries of the directory whose topmost node is given, with the checks of section 8.2."""
    if isinstance(node.what, (m.Leaf, m.Inner)) and node.what.path != path:
        refuse("block", "8", "a directory's node says that it is of another path")
    if isinstance(node.what, m.Leaf) and not node.what.partial:
        return [(place_, entry) for entry in node.what.entries]
    if not isinstance(node.what, m.Inner):
        refuse("block", "8.2", "a directory's node is of another type")
    inner = node.what
    if depth >= m.MAX_INNER_DEPTH:
        refuse("limit", "8.2", "inner nodes are nested too deeply")
    entries: list[Found] = []
    for number, (first, count) in enumerate(zip(inner.firsts, inner.counts, strict=False)):
        at = inner.places[number]
        below = flatten(child(inner.ids[number], at, place_), at, path, child, depth + 1)
        if len(below) != count or below[0][1].name != first:
            refuse("block", "8.2", "inner node contradicts its child")
        if number + 1 < len(inner.firsts) and below[-1][1].name >= inner.firsts[number + 1]:
            refuse("block", "8.2", "names of a child run out of its range")
        entries += below
    return entries


class _Complete:
    def __init__(self, reader: _Sequential) -> None:
        assert reader.keys is not None and reader.root is not None
        self.r = reader
        self.keys = reader.keys
        self.root = reader.root
        self.rows = {kind: [row for _, x in reader.leaves if x.kind == kind for row in x.rows] for kind in (1, 2)}
        self.referred: set[Location] = set()  # nodes

    def check(self) -> None:
        self.block_table()
        self.look_up()
        for seq, end in self.r.ends.items():
            self.stream(seq, end)
        if self.r.header.kind == 3:
            self.tree()
        if self.r.metadata is not None:
            ids = {at: one for at, (one, _) in self.r.xattrs.items()} if self.r.sees_content else None
            self.r.metadata.complete(self.r.nodes, ids)

    def block_table(self) -> None:
        seq = 0
        offset = len(self.r.header.section)
        for _, leaf in self.r.leaves:
            if leaf.kind != 3:
                continue
            if (leaf.first_seq, leaf.first_offset) != (seq, offset):
                refuse("index", "9", "block table has a gap")
            for row in leaf.blocks:
                if seq >= self.root.first_seq:
                    refuse("index", "9", "block table lists too many blocks")
                frame = self.r.frames[seq]
                if row != (frame.type, frame.whole_hash, frame.length):
                    refuse("index", "9", f"block table contradicts block {seq}")
                seq += 1
                offset += frame.length
        if seq != self.root.first_seq:
            refuse("index", "9", "block table lists too few blocks")

    def look_up(self) -> None:
        rows = self.rows[1]
        if not p.ascending(rows):
            refuse("index", "9", "content look-up is not sorted")
        ends = [(end.content_id[:8], seq, 0) for seq, end in self.r.ends.items()]
        if not self.r.sees_content:
            return
        if self.keys.id_key is None:
            if sorted(row[1:] for row in rows) != sorted(self.r.packed):
                refuse("index", "9", "content look-up contradicts the places of the contents")
            return
        made = [(self.keys.content_id(x)[:8], seq, n) for (seq, n), x in self.r.packed.items()]
        for stream in self.r.streams:
            made += [(self.keys.content_id(x)[:8], seq, n) for (seq, n), _, x in stream.pieces]
        if rows != sorted(made + ends):
            refuse("index", "9", "content look-up contradicts the contents")

    def node(self, node_id: bytes, at: Location, by: Location | None = None) -> m.Node:
        """A node that is referred to, by a node at a place or by the index root."""
        failure_class = "index" if by is None else "block"
        if by is not None and at >= by:
            refuse("block", "5", f"what {by} refers to does not stand before it")
        node = self.r.nodes.get(at)
        if node is None or not p.same(node.id, node_id):
            refuse(failure_class, "8", f"no node of that id at {at}")
        if node.what is None:
            refuse("unsupported", "8", f"node of type {node.type} is referred to")
        if at in self.referred:
            refuse("block", "8", f"node at {at} is referred to twice")
        self.referred.add(at)
        return node

    # -- streams

    def parts(self, seq: int, table: m.PartLeaf | m.PartInner) -> Iterator[m.Part]:
        if isinstance(table, m.PartLeaf):
            yield from table.parts
            return
        for length, node_id, at in zip(table.lengths, table.ids, table.places, strict=False):
            node = self.node(node_id, at, (seq, 0))
            if not isinstance(node.what, m.PartLeaf) or node.what.total != length:
                refuse("block", "8.3", "part table contradicts its sub-table")
            yield from node.what.parts

    def stream(self, seq: int, end: StreamEnd) -> None:
        parts = list(self.parts(seq, end.table))
        if not self.r.sees_content:
            return
        pieces = iter(self.r.streams[end.stream].pieces)
        offset = 0
        for part in parts:
            if part.id is not None:
                found = next(((at, start, len(x), self.keys.content_id(x)) for at, start, x in pieces), None)
                if found != (part.at, offset, part.length, part.id):
                    refuse("block", "8.3", "part table contradicts the FCNT blocks")
            offset += part.length
        if next(pieces, None) is not None:
            refuse("block", "8.3", "part table misses a piece")
        if not p.same(stream_id(self.keys, self.r.streams[end.stream], end.length), end.content_id):
            refuse("block", "5.1", "content id of the stream does not fit")
        self.r.out.stored[seq, 0] = lambda: join(self.r.streams[end.stream].pieces, end.length)

    # -- directories

    def tree(self) -> None:
        assert self.root.directory is not None and self.root.totals is not None
        for at, piece in self.r.packed.items():
            self.r.out.stored[at] = lambda piece=piece: piece  # type: ignore[misc]
        rows = self.rows[2]
        if not p.ascending([row[0] for row in rows]):
            refuse("index", "9", "path look-up is not sorted")
        node_id, place_ = self.root.directory
        found = {p.mac(self.keys.path_key, b"")[:16]: place_}
        size = 0
        todo: list[tuple[int, bytes, m.Node, Location]] = [(0, b"", self.node(node_id, place_), place_)]
        while todo:
            depth, path, node, place_ = todo.pop()
            if depth > m.MAX_DIRECTORY_DEPTH:
                refuse("limit", "14", "directories are nested too deeply")
            for leaf_at, entry in flatten(node, place_, path, self.node):
                entry.path = path + b"/" + entry.name if path else entry.name
                self.r.out.tree.append(entry)
                size += entry.size or 0 if entry.has_content else 0
                self.entry(entry, leaf_at)
                if entry.kind == m.DIRECTORY:
                    assert entry.node_id is not None and entry.node_at is not None
                    found[p.mac(self.keys.path_key, entry.path)[:16]] = entry.node_at
                    below = self.node(entry.node_id, entry.node_at, leaf_at)
                    todo.append((depth + 1, entry.path, below, entry.node_at))
        self.r.out.tree.sort(key=lambda entry: entry.path)
        for at, node in self.r.nodes.items():
            if node.type in (1, 2) and at not in self.referred:
                refuse("block", "8", f"nothing refers to the directory's node at {at}")
        if rows != sorted((key, *at) for key, at in found.items()):
            refuse("index", "9", "path look-up contradicts the directories")
        if self.root.totals != (len(self.r.out.tree), size):
            refuse("index", "9", "root counts other entries or bytes")

    def entry(self, entry: Entry, leaf_at: Location) -> None:
        for at in (entry.content_at, entry.xattr_at):
            if at is not None and at >= leaf_at:
                refuse("block", "5", f"what {leaf_at} refers to does not stand before it")
        if not self.r.sees_content:
            return
        if entry.content_id is not None:
            assert entry.content_at is not None
            end = self.r.ends.get(entry.content_at[0])
            piece = self.r.packed.get(entry.content_at)
            if end is not None and entry.content_at[1] == 0:
                if (end.content_id, end.length) != (entry.content_id, entry.size):
                    refuse("block", "8.1", "entry contradicts its stream")
            elif piece is None:
                refuse("block", "8.1", "content lies where no content is")
            elif len(piece) != entry.size or not p.same(self.keys.content_id(piece), entry.content_id):
                refuse("block", "8.1", "entry contradicts its content")
        if entry.xattr_id is not None and entry.xattr_at is not None:
            found = self.r.xattrs.get(entry.xattr_at)
            if found is None or found[0] != entry.xattr_id:
                refuse("block", "8.1", "no extended attributes of that id")
            entry.xattrs = found[1]


def stream_id(keys: Keys, stream: Stream, length: int) -> bytes:
    """Content id of a stream with its holes, without joining it."""
    if length > OWN_CONTENT_LIMIT:
        refuse("limit", "14", f"this reader does not hash contents of {length} bytes")
    assert keys.id_key is not None
    hasher = blake3()

    def zeros(count: int) -> None:
        while count > 0:
            step = min(count, 1 << 20)
            hasher.update(bytes(step))
            count -= step

    position = 0
    for _, offset, piece in stream.pieces:
        zeros(offset - position)
        hasher.update(piece)
        position = offset + len(piece)
    zeros(length - position)
    return p.mac(keys.id_key, hasher.digest() + length.to_bytes(8, "little"))


def join(pieces: list[tuple[Location, int, bytes]], length: int) -> bytes:
    content = bytearray(length)
    for _, offset, piece in pieces:
        content[offset : offset + len(piece)] = piece
    return bytes(content)


# ---------------------------------------------------------------- random access (section 12)


def open_random(
    data: bytes,
    path: bytes,
    *,
    x25519_private: Sequence[bytes] = (),
    passphrases: Sequence[str] = (),
    verify_key: bytes | None = None,
    allow_plain: bool = False,
    fetch: Callable[[int, int], bytes] | None = None,
) -> tuple[bytes, int]:
    """The content of one file of the last archive of the object, and the number of ranges that were read."""
    identities = Identities(list(x25519_private), list(passphrases), verify_key, allow_plain)
    random = RandomAccess(len(data), fetch or (lambda start, length: data[start : start + length]))
    random.open(identities)
    if random.keys is None or random.keys.s is None:
        raise PermissionError("contents need the read right")
    return random.content(path), random.reads


class RandomAccess:
    """One archive at the end of an object, by its index."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self.size = size
        self.fetch = fetch
        self.reads = 0
        self.window_at = size  # in the object
        self.window = b""
        self.base = 0
        self.blocks: dict[int, Block] = {}
        self.leaves: dict[int, m.IndexLeaf] = {}

    def get(self, offset: int, length: int) -> bytes:
        """Bytes at an offset in the archive."""
        start = self.base + offset
        if self.window_at <= start and start + length <= self.size:
            return self.window[start - self.window_at :][:length]
        self.reads += 1
        return self.fetch(start, length)

    def open(self, identities: Identities) -> None:
        start = max(0, self.size - WINDOW)
        window = self.get(start, self.size - start)
        self.window_at, self.window = start, window
        if self.size < TAIL:
            refuse("truncated", "12.1", "no tail")
        tail = window[-TAIL:]
        if tail[56:] != m.END_MAGIC:
            refuse("index", "12.1", "wrong end magic")
        at, length, total = (int.from_bytes(tail[i : i + 8], "little") for i in (0, 8, 16))
        if at + length + TAIL != total or total > self.size:
            refuse("index", "12.1", "tail contradicts itself or the object")
        if length > 52 + m.MAX_A + 32 + m.MAX_B + 64:
            refuse("limit", "12.1", "FOOT is too long")
        self.base = self.size - total
        frame = m.parse_frame(self.get(at, length), 0, at, None, None)
        if frame.type != b"FOOT" or frame.flags & 1:
            refuse("index", "12.2", "tail does not lead to FOOT")
        foot = m.parse_foot(frame)
        header = self.header = m.parse_header(foot.header_section)
        if tail != m.tail_of(frame, header.digest) or frame.archive_id != header.archive_id:
            refuse("index", "12.1", "tail or FOOT does not belong to the header")
        m.check_usable(header, identities)
        self.keys = m.unwrap(header, identities)
        m.check_foot(header, self.keys, identities, frame, foot)
        if self.keys is None:
            raise PermissionError("an identity is needed")
        seq, offset, length, whole = foot.root
        block = self.block(seq, offset, length, b"INDX", whole, "index")
        with place("index", "9"):
            if p.is_uint(need(block.record, 16)) != 4:
                raise Malformed("FOOT does not lead to the root")
            self.root = m.parse_index_root(header, block)
            if self.root.first_seq + len(self.root.kinds) != seq:
                raise Malformed("root has the wrong number of leaves")

    def block(self, seq: int, offset: int, length: int, kind: bytes, whole: bytes, failure_class: str) -> Block:
        if seq not in self.blocks:
            if length > 52 + m.MAX_A + 32 + m.MAX_B + 64:
                refuse("limit", "12.4", "block is too long")
            raw = self.get(offset, length)
            # The hash is compared first: what a wrong block says of itself does not matter.
            if not p.same(p.h(raw[:-32]), whole) or raw[-32:] != whole:
                refuse(failure_class, "12.4", f"block {seq} is not the one that is listed", self.base + offset)
            frame = m.parse_frame(raw, 0, offset, self.header.archive_id, seq)
            known = m.check_type(self.header, frame)
            if frame.type != kind or frame.length != length or known is None:
                refuse(failure_class, "12.4", f"block {seq} has another type or length than listed")
            if not m.readable(known, self.keys):
                refuse("no-recipient", "6.1", f"{kind.decode()} needs the read right")
            self.blocks[seq] = m.open_block(self.header, self.keys, known, frame)
        return self.blocks[seq]

    def leaf(self, number: int) -> m.IndexLeaf:
        if number not in self.leaves:
            root = self.root
            kind = root.kinds[number]
            offset = root.first_offset + sum(root.lengths[:number])
            seq = root.first_seq + number
            block = self.block(seq, offset, root.lengths[number], b"INDX", root.hashes[number], "index")
            with place("index", "9"):
                if p.is_uint(need(block.record, 16)) != kind:
                    raise Malformed("leaf of another kind")
                leaf = m.parse_index_leaf(kind, block)
                if (leaf.first_key, leaf.count) != (root.first_keys[number], root.counts[number]):
                    raise Malformed("root contradicts its leaf")
            self.leaves[number] = leaf
        return self.leaves[number]

    def leaf_for(self, kind: int, key: bytes) -> m.IndexLeaf | None:
        numbers = [number for number, found in enumerate(self.root.kinds) if found == kind]
        index = bisect_right([self.root.first_keys[number] for number in numbers], key) - 1
        return None if index < 0 else self.leaf(numbers[index])

    def sequence_of(self, wanted: bytes) -> int:
        """The one block of a type, by the block table."""
        found = []
        for number, kind in enumerate(self.root.kinds):
            if kind == 3:
                leaf = self.leaf(number)
                found += [leaf.first_seq + at for at, row in enumerate(leaf.blocks) if row[0] == wanted]
        if len(found) != 1:
            refuse("block", "vault 5", f"{len(found)} blocks of type {wanted.decode()}")
        return found[0]

    def listed(self, seq: int, *kinds: bytes) -> tuple[bytes, Block]:
        """A block by the block table."""
        leaf = self.leaf_for(3, seq.to_bytes(8, "big"))
        if leaf is None or seq - leaf.first_seq >= leaf.count:
            refuse("index", "12.4", f"block table does not list block {seq}")
        number = seq - leaf.first_seq
        kind, whole, length = leaf.blocks[number]
        if kind not in kinds:
            refuse("block", "12.4", f"block {seq} is {kind!r}")
        offset = leaf.first_offset + sum(row[2] for row in leaf.blocks[:number])
        return kind, self.block(seq, offset, length, kind, whole, "block")

    def piece(self, at: Location, kind: bytes) -> bytes:
        block = self.listed(at[0], kind)[1]
        if at[1] >= len(block.pieces):
            refuse("block", "12.5", f"no piece {at}")
        return block.pieces[at[1]]

    def node(self, node_id: bytes | None, at: Location) -> m.Node:
        with place("block", "8"):
            node = m.parse_node(self.piece(at, b"TREE"), vault=self.header.kind == 2)
        if node_id is not None and not p.same(node.id, node_id):
            refuse("block", "12.5", "node has another id")
        if node.what is None:
            refuse("unsupported", "8", f"node of type {node.type} is referred to")
        return node

    def find(self, path: bytes) -> Entry:
        parent, _, name = path.rpartition(b"/")
        key = p.mac(self.keys.path_key if self.keys else b"", parent)[:16]
        leaf = self.leaf_for(2, key)
        places = [(row[1], row[2]) for row in leaf.rows if row[0] == key] if leaf else []
        if not places:
            raise KeyError(path)
        node = self.node(None, places[0])
        for _ in range(m.MAX_INNER_DEPTH + 1):
            what = node.what
            if isinstance(what, m.Leaf) and not what.partial:
                for entry in what.entries:
                    if entry.name == name:
                        return entry
                raise KeyError(path)
            if not isinstance(what, m.Inner):
                refuse("block", "12.5", "a directory's node is of another type")
            number = bisect_right(what.firsts, name) - 1
            if number < 0:
                raise KeyError(path)
            node = self.node(what.ids[number], what.places[number])
        refuse("limit", "8.2", "inner nodes are nested too deeply")
        return None

    def content(self, path: bytes) -> bytes:
        entry = self.find(path)
        if entry.kind != m.FILE:
            raise KeyError(path)
        if entry.size == 0:
            return b""
        if entry.content_at is None or entry.content_id is None:
            raise ValueError("the content was not stored")
        kind, block = self.listed(entry.content_at[0], b"PACK", b"FEND")
        content = self.stream(block) if kind == b"FEND" else self.piece(entry.content_at, b"PACK")
        assert self.keys is not None
        if len(content) != entry.size or not p.same(self.keys.content_id(content), entry.content_id):
            refuse("block", "12.5", "content has another length or id")
        return content

    def stream(self, block: Block) -> bytes:
        with place("block", "5.1"):
            end = parse_fend(block)
        if end.length > OWN_CONTENT_LIMIT:
            refuse("limit", "14", f"this reader does not join contents of {end.length} bytes")
        tables = [end.table]
        if isinstance(end.table, m.PartInner):
            tables = [self.node(i, at).what for i, at in zip(end.table.ids, end.table.places, strict=False)]  # type: ignore[misc]
            if [t.total if isinstance(t, m.PartLeaf) else 0 for t in tables] != end.table.lengths:
                refuse("block", "8.3", "part table contradicts its sub-table")
        content = b""
        for table in tables:
            assert isinstance(table, m.PartLeaf)
            for part in table.parts:
                piece = bytes(part.length) if part.at is None else self.piece(part.at, b"FCNT")
                if len(piece) != part.length:
                    refuse("block", "8.3", "part has another length")
                content += piece
        return content


# ---------------------------------------------------------------- salvage (section 13)


def salvage(
    data: bytes,
    *,
    x25519_private: Sequence[bytes] = (),
    passphrases: Sequence[str] = (),
    allow_plain: bool = False,
) -> dict[bytes, bytes]:
    """What can be had of the files of the first archive: contents by path, or by `lost+found/` and id."""
    identities = Identities(list(x25519_private), list(passphrases), None, allow_plain)
    header: Header | None
    failure: SpecError | None = None
    try:
        header = m.parse_header(data)
    except SpecError as error:
        header, failure = None, error
    frames = list(_scan(data, len(header.section) if header else 0))
    if header is None:
        header = _header_from_foot(frames)
    if header is None:
        raise failure or SpecError("header", "13", "no copy of the header section")
    m.check_usable(header, identities)
    keys = m.unwrap(header, identities)
    if keys is None or keys.s is None:
        raise PermissionError("contents need the read right")
    heap = _Heap(header, keys)
    for frame in frames:
        if frame.archive_id == header.archive_id:
            heap.add(frame)
    return heap.files()


def _scan(data: bytes, at: int) -> Iterator[Frame]:
    """Steps 1 and 2: all frames that verify, of any archive."""
    while 0 <= at < len(data):
        try:
            frame = m.parse_frame(data, at, at, None, None)
        except SpecError:
            at = data.find(m.SYNC, at + 1)
            continue
        yield frame
        at += frame.length


def _header_from_foot(frames: list[Frame]) -> Header | None:
    for frame in frames:
        if frame.type == b"FOOT":
            try:
                header = m.parse_header(m.parse_foot(frame).header_section)
            except SpecError:
                continue
            if header.archive_id == frame.archive_id:
                return header
    return None


class _Heap:
    """Pieces by location, and what names them."""

    def __init__(self, header: Header, keys: Keys) -> None:
        self.header = header
        self.keys = keys
        self.seen: set[int] = set()
        self.packed: dict[Location, bytes] = {}
        self.streams: dict[int, list[tuple[Location, int, bytes]]] = {}
        self.ends: dict[int, StreamEnd] = {}
        self.directories: list[m.Leaf] = []

    def add(self, frame: Frame) -> None:
        """Step 3. What does not open or parse is lost."""
        try:
            known = m.check_type(self.header, frame)
            if known is None or known.body in ("special", "reserved") or frame.seq in self.seen:
                return
            block = m.open_block(self.header, self.keys, known, frame)
            with place("block", "13.3"):
                self.take(frame, block)
            self.seen.add(frame.seq)
        except SpecError:
            return

    def take(self, frame: Frame, block: Block) -> None:
        if frame.type == b"PACK":
            self.packed.update({(frame.seq, number): piece for number, piece in enumerate(block.pieces)})
        elif frame.type == b"FCNT":
            stream, offset = p.is_uint(need(block.record, 17)), p.is_uint(need(block.record, 19))
            for number, piece in enumerate(block.pieces):
                self.streams.setdefault(stream, []).append(((frame.seq, number), offset, piece))
                offset += len(piece)
        elif frame.type == b"FEND":
            self.ends[frame.seq] = parse_fend(block)
        elif frame.type == b"TREE":
            for piece in block.pieces:
                try:
                    node = m.parse_node(piece)
                except Malformed:
                    continue
                if isinstance(node.what, m.Leaf):
                    self.directories.append(node.what)

    def files(self) -> dict[bytes, bytes]:
        """Step 4."""
        contents = dict(self.packed)
        whole_streams: set[int] = set()
        for seq, end in self.ends.items():
            content = self.joined(end.stream, end.length)
            if content is not None and p.same(self.keys.content_id(content), end.content_id):
                contents[seq, 0] = content
                whole_streams.add(end.stream)
        files: dict[bytes, bytes] = {}
        named: set[Location] = set()
        for leaf in sorted(self.directories, key=lambda leaf: leaf.partial):
            for entry in leaf.entries:
                path = leaf.path + b"/" + entry.name if leaf.path else entry.name
                content = b"" if entry.size == 0 else contents.get(entry.content_at or (-1, -1))
                if entry.kind != m.FILE or content is None or entry.marks & m.UNREADABLE:
                    continue
                if len(content) != entry.size:
                    continue
                if entry.content_id is not None and not p.same(entry.content_id, self.keys.content_id(content)):
                    continue
                if entry.content_at is not None:
                    named.add(entry.content_at)
                files.setdefault(path, content)
        lost = [content for at, content in contents.items() if at not in named]
        for stream in self.streams.keys() - whole_streams:
            content = self.joined(stream, None)
            if content is not None:
                lost.append(content)
        ids = {self.keys.content_id(content) for content in files.values()}
        for content in lost:
            if self.keys.content_id(content) not in ids:
                files[b"lost+found/" + self.keys.content_id(content).hex().encode()] = content
        return files

    def joined(self, stream: int, length: int | None) -> bytes | None:
        pieces = sorted(self.streams.get(stream, []))
        end = max((offset + len(piece) for _, offset, piece in pieces), default=0)
        length = end if length is None else length
        return join(pieces, length) if end <= length <= OWN_CONTENT_LIMIT else None
