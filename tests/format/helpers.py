"""Small archives with deterministic bytes, and ways to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from rozenfmt.errors import ArchiveError
from rozenfmt.format import builders, crypto, decoder, nodes, records
from rozenfmt.format.blocks import Draft, Opener, SealedBlock, Slot
from rozenfmt.format.codecs import Compression
from rozenfmt.format.crypto import Keys
from rozenfmt.format.decoder import BlockEvent, Decoder, EndEvent, HeaderEvent
from rozenfmt.format.encoder import Encoder
from rozenfmt.format.frame import PREFIX_SIZE, parse_prefix
from rozenfmt.format.header import Header, build_header, unlock
from rozenfmt.format.records import HeaderRecord
from rozenfmt.format.registry import Codec, Kind, Right, StanzaType, Suite
from rozenfmt.format.snapshots import SnapshotBody

STORED = Compression(Codec.STORED, 0)
PRIVATE = crypto.digest(b"private key")
SEED = crypto.digest(b"signer")
Event = HeaderEvent | BlockEvent | EndEvent


@dataclass
class Identity:
    """An X25519 key, as ``header.unlock`` wants it."""

    private: bytes = PRIVATE
    stanza_type: StanzaType = StanzaType.X25519

    def unwrap(self, right: int, archive_id: bytes, body: bytes) -> bytes:
        """Open one stanza."""
        return crypto.hpke_open(self.private, crypto.stanza_info(right, archive_id), body)


class Stream:
    """Deterministic bytes, one call after the other."""

    def __init__(self, seed: bytes = b"") -> None:
        self._seed = seed
        self._calls = 0

    def __call__(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        self._calls += 1
        return (crypto.digest(self._seed, self._calls.to_bytes(8, "big")) * (size // 32 + 1))[:size]


class PlaceEntropy:
    """Bytes that depend on the encoder's place only, so that a restored encoder takes the same ones."""

    def __init__(self) -> None:
        self.encoder: Encoder | None = None
        self._place = -1
        self._calls = 0

    def __call__(self, size: int) -> bytes:
        """Bytes for this place and call."""
        assert self.encoder is not None
        place = self.encoder.next_sequence
        self._calls = self._calls + 1 if place == self._place else 0
        self._place = place
        return crypto.digest(b"%d %d" % (place, self._calls))[:size]


def make_header(
    suite: Suite = Suite.XCHACHA20_POLY1305,
    *,
    name: bytes = b"archive",
    kind: Kind = Kind.SELF_CONTAINED,
    padding: tuple[int, int, int] = (32, 16, 8),
    signed: bool = True,
    id_key: int = 0,
) -> tuple[Header, Keys | None]:
    """A header whose archive id and secret come from ``name``."""
    archive_id = crypto.digest(b"id", name)[:16]
    keys = make_keys(suite, name)
    sealed = suite is not Suite.PLAIN
    stanzas = None
    if sealed:
        assert keys.secret is not None
        public = crypto.x25519_public(PRIVATE)
        body = crypto.hpke_seal(public, crypto.stanza_info(1, archive_id), keys.secret, Stream(name))
        stanzas = ((int(StanzaType.X25519), int(Right.READ), body),)
    record = HeaderRecord(
        archive_id=archive_id,
        kind=int(kind),
        suite=int(suite),
        features=(),
        padding=padding if sealed else (1, 1, 1),
        creator="tests",
        commit_secret=keys.commitment_to_secret() if sealed else None,
        commit_index=keys.commitment_to_index_key() if sealed else None,
        stanzas=stanzas,
        signer=crypto.ed25519_public(SEED) if signed else None,
        id_key=id_key,
    )
    return build_header(record, keys if sealed else None), keys if sealed else None


def make_keys(suite: Suite, name: bytes = b"archive") -> Keys:
    """The keys of the archive ``name``."""
    secret = crypto.digest(b"secret", name) if suite is not Suite.PLAIN else bytes(32)
    return Keys.from_secret(suite, crypto.digest(b"id", name)[:16], secret)


def browse_keys(keys: Keys) -> Keys:
    """What a holder of the browse right has."""
    return Keys.from_index_key(keys.suite, keys.archive_id, keys.index_key)


def make_encoder(header: Header, keys: Keys | None, **more: Any) -> Encoder:
    """An encoder with entropy that depends on the place."""
    entropy = PlaceEntropy()
    seed = SEED if header.record.signer is not None else None
    entropy.encoder = Encoder(header, keys, entropy=entropy, signer_seed=seed, **more)
    return entropy.encoder


@dataclass
class Small:
    """A small archive, and where its parts are."""

    data: bytes
    header: Header
    keys: Keys
    blocks: list[SealedBlock]
    contents: list[bytes] = field(default_factory=list)

    def spans(self) -> list[tuple[int, int]]:
        """Start and end of each block."""
        return frame_spans(self.data, len(self.header.section))


def frame_spans(data: bytes, start: int) -> list[tuple[int, int]]:
    """Start and end of each block from ``start`` to the tail."""
    found = []
    while start < len(data) - builders.TAIL_SIZE:
        prefix = parse_prefix(data[start : start + PREFIX_SIZE], None, None)
        found.append((start, start + prefix.frame_length))
        start += prefix.frame_length
    return found


def tree_node(path: bytes, entries: Sequence[nodes.Entry]) -> bytes:
    """A whole directory leaf."""
    with_content = [(e.block, e.piece) for e in entries if e.has_content]
    children = [(e.block, e.piece) for e in entries if e.kind == nodes.Kind.DIRECTORY]
    xattrs = [e.xattr_ref[1:] for e in entries if e.xattr_ref is not None]
    return nodes.join_node(nodes.directory_record(entries), nodes.directory_hints(path, with_content, children, xattrs))


def vault_node(entries: Sequence[nodes.Entry]) -> bytes:
    """A whole directory leaf as metadata archives have it."""
    with_content = [(e.archive, e.block, e.piece) for e in entries if e.has_content]
    children = [(e.archive, e.block, e.piece) for e in entries if e.kind == nodes.Kind.DIRECTORY]
    xattrs = [(e.xattr_archive, *e.xattr_ref[1:]) for e in entries if e.xattr_ref is not None]
    return nodes.join_node(nodes.directory_record(entries), nodes.vault_hints(with_content, children, xattrs))


def a_snapshot(**changes: Any) -> SnapshotBody:
    """A record of a snapshot with all keys."""
    body = SnapshotBody(
        vault_id=b"v" * 16,
        host_id=b"h" * 16,
        label="host",
        set_name="set",
        sequence=7,
        parent=(b"p" * 16, b"f" * 32),
        heads=b"g" * 16 + b"p" * 16,
        mode=2,
        times=(1, 2),
        root=(b"r" * 32, 0, 0, 0),
        totals=(3, 4),
        sources=((b"a", b"/a", 1),),
        tags=("x", "y"),
        counts=(1, 2, 3, 4, 5, 6, 7, 8, 9),
        moves=((b"a/b", b"a/c", 1),),
        deleted=(b"a/d",),
        problems=((b"a/e", "unreadable", "permission denied"),),
        conflicts=((b"a/f", 1),),
        parent_state=2,
        flags=2,
    )
    return replace(body, **changes)


def node_id(node: bytes) -> bytes:
    """Id of an encoded node."""
    return crypto.digest(node[4 : 4 + int.from_bytes(node[:4], "little")])


@cache
def small_archive(suite: Suite, name: bytes = b"archive", *, signed: bool = True, grease: bool = True) -> Small:
    """A self-contained archive with a block of each type."""
    header, maybe = make_header(suite, name=name, signed=signed)
    keys = make_keys(suite, name)
    assert keys.id_key is not None
    encoder = make_encoder(header, maybe)
    out: list[bytes] = [encoder.begin()]
    sealed: list[SealedBlock] = []

    def write(draft: Draft) -> SealedBlock:
        block = encoder.write(draft)
        sealed.append(block)
        out.extend(block.buffers)
        return block

    def ident(content: bytes) -> bytes:
        assert keys.id_key is not None
        return crypto.content_id(keys.id_key, crypto.digest(content), len(content))

    contents = [b"hello, world\n", b"zzz" * 40]
    pack = builders.PiecesBuilder(b"PACK")
    for content in contents:
        pack.add(content)
    packed = write(pack.seal())
    encoder.index.add_content(map(ident, contents), packed.sequence)

    stream = encoder.open_stream()
    write(stream.start(name=b"big", size=70))
    one = write(stream.content([b"abc", b"defg"], 0))
    if grease:
        write(Draft(b"xtra", records.BlockRecord(extra={1_000: b"harmless"})))
    write(encoder.checkpoint())
    two = write(stream.content([b"tail"], 60))
    table = builders.PartTableBuilder()
    table.add(3, ident(b"abc"), one.sequence, 0)
    table.add(4, ident(b"defg"), one.sequence, 1)
    table.add(53, None)
    table.add(4, ident(b"tail"), two.sequence, 0)
    table.add(6, None)
    whole = b"abcdefg" + bytes(53) + b"tail" + bytes(6)
    end = write(stream.end(70, ident(whole), table.finish()))
    encoder.index.add_content([ident(b"abc"), ident(b"defg")], one.sequence)
    encoder.index.add_content([ident(b"tail")], two.sequence)
    encoder.index.add_content([ident(whole)], end.sequence)

    trex = builders.PiecesBuilder(b"TREX")
    attributes = attributes_piece()
    trex.add(attributes)
    attrs = write(trex.seal())
    entries = [
        nodes.Entry(
            b"big", nodes.Kind.FILE, 0o644, 1, 2, b"u", b"g", 5, 70, content_id=ident(whole), block=end.sequence
        ),
        nodes.Entry(
            b"hello",
            nodes.Kind.FILE,
            0o600,
            mtime_ns=-7,
            size=len(contents[0]),
            content_id=ident(contents[0]),
            block=packed.sequence,
            xattr_ref=(ident(attributes), attrs.sequence, 0),
        ),
    ]
    tree = builders.PiecesBuilder(b"TREE")
    node = tree_node(b"", entries)
    tree.add(node)
    placed = write(tree.seal())
    encoder.index.add_path(crypto.mac(keys.path_key, b"")[:16], placed.sequence, 0)
    out.extend(encoder.finish(root=(node_id(node), placed.sequence, 0), totals=(2, 70 + len(contents[0]))))
    return Small(b"".join(out), header, keys, sealed, contents)


def attributes_piece() -> bytes:
    """A ``TREX`` piece."""
    from rozenfmt.format import cbor

    return cbor.dumps([[b"user.a", b"1"], [b"user.b", b""]])


KeyChooser = Callable[[Header], Keys | None]


def with_keys(keys: Keys | None) -> KeyChooser:
    """An ``unlock`` that holds the header against fixed keys, as ``header.unlock`` does."""
    from rozenfmt.format.header import _check_macs

    def choose(header: Header) -> Keys | None:
        if header.suite is Suite.PLAIN or keys is None:
            return unlock(header, ())
        assert header.record.commit_secret is not None
        assert header.record.commit_index is not None
        # The archive id is the header's word: a spliced header must fail at its commitments.
        crypto.check_commitments(
            replace(keys, archive_id=header.archive_id), header.record.commit_secret, header.record.commit_index
        )
        _check_macs(header, keys)
        return keys

    return choose


def read(
    data: bytes | Iterable[bytes], choose: KeyChooser, verify_key: bytes | None = None
) -> tuple[list[Event], ArchiveError | None]:
    """All events of an object, and the error that ended them."""
    reader = Decoder(choose, verify_key)
    events: list[Event] = []
    try:
        for part in [data] if isinstance(data, bytes) else data:
            events += reader.feed(part)
        events += reader.close()
    except ArchiveError as error:
        return events, error
    return events, None


def released(events: Iterable[Event]) -> list[bytes]:
    """Decoded bodies of ``PACK`` and ``FCNT``."""
    return [
        event.block.body
        for event in events
        if isinstance(event, BlockEvent) and event.block.type in (b"PACK", b"FCNT") and event.block.opened
    ]


def summary(events: Iterable[Event]) -> list[Any]:
    """Events in a form that can be compared."""
    found: list[Any] = []
    for event in events:
        if isinstance(event, HeaderEvent):
            found.append(("header", event.base, event.header.digest))
        elif isinstance(event, BlockEvent):
            found.append((event.block.type, event.offset, event.block.record, event.block.body, event.block.whole_hash))
        else:
            found.append(("end", event.foot))
    return found


class Forge:
    """Assembles archives block by block, with any block wrong, and a footer that fits."""

    def __init__(
        self,
        suite: Suite = Suite.PLAIN,
        *,
        kind: Kind = Kind.SELF_CONTAINED,
        keys: Keys | None = None,
        signed: bool = False,
    ) -> None:
        self.header, own = make_header(suite, kind=kind, signed=signed)
        self.keys = keys if keys is not None else own
        self.out = bytearray(self.header.section)
        self.sequence = 0
        self.chain = self.header.digest
        self.root: tuple[int, int, int, bytes] = (0, 0, 0, bytes(32))

    @property
    def slot(self) -> Slot:
        """The next slot."""
        record = self.header.record
        return Slot(self.header.suite, record.archive_id, record.padding, self.keys, self.sequence)

    def add(self, draft: Draft, keys: Keys | None = None) -> SealedBlock:
        """Append a draft, sealed properly."""
        slot = self.slot if keys is None else replace(self.slot, keys=keys)
        block = draft.seal(slot, Stream(b"%d" % self.sequence))
        self.add_raw(b"".join(block.buffers), block.whole_hash)
        return block

    def add_raw(self, frame: bytes, whole_hash: bytes) -> None:
        """Append a block as stored."""
        self.root = (self.sequence, len(self.out), len(frame), whole_hash)
        self.out += frame
        self.sequence += 1
        self.chain = crypto.digest(self.chain, whole_hash)

    def index_root(self, **changes: Any) -> SealedBlock:
        """Append an index root without leaves."""
        body = records.RootBody(
            first=self.sequence,
            offset=len(self.out),
            kinds=b"",
            lengths=b"",
            hashes=b"",
            first_keys=b"",
            counts=b"",
            root=(bytes(32), 0, 0) if self.header.kind is Kind.SELF_CONTAINED else None,
            totals=(0, 0) if self.header.kind is Kind.SELF_CONTAINED else None,
        )
        body = replace(body, **changes)
        return self.add(Draft(b"INDX", records.IndexRecord(kind=4), records.encode(body), STORED))

    def finish(self, *, with_root: bool = True, foot_body: bytes | None = None, **changes: Any) -> bytes:
        """Append root, footer and tail."""
        if with_root:
            self.index_root()
        at = len(self.out)
        record = records.FootRecord(
            offset=at, blocks=self.sequence, root=self.root, chain=self.chain, header=self.header.section
        )
        record = replace(record, **changes)
        body = bytes(64)
        if self.keys is not None:
            blank = Draft(b"FOOT", record, bytes(64)).seal(self.slot, Stream())
            assert self.keys.foot_mac_secret is not None
            body = crypto.mac(self.keys.foot_mac_index, blank.header_hash) + crypto.mac(
                self.keys.foot_mac_secret, blank.header_hash
            )
        foot = self.add(Draft(b"FOOT", record, body if foot_body is None else foot_body))
        return bytes(self.out) + builders.build_tail(at, foot.length, self.header.digest)


def frame(
    forge: Forge, kind: bytes, header: bytes, body: bytes = b"", flags: int = 0, **changes: Any
) -> tuple[bytes, bytes]:
    """A frame with right hashes around any sections; returns it and its whole hash."""
    from rozenfmt.format.frame import Prefix

    prefix = Prefix(kind, flags, forge.header.archive_id, forge.sequence, len(header), len(body))
    lead = replace(prefix, **changes).pack() + header
    stored = lead + crypto.digest(lead) + body
    whole = crypto.digest(stored)
    return stored + whole, whole


def plain_header(record: bytes) -> bytes:
    """A header section of suite 0."""
    return len(record).to_bytes(4, "little") + record


def opener(small: Small, keys: Keys | None) -> Opener:
    """An opener for a small archive."""
    return decoder.opener_for(small.header, keys)
