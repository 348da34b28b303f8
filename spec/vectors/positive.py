"""Archives that every reader must accept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from rozenfmt.format import cbor, nodes
from rozenfmt.format.nodes import Entry, InnerNode, Kind
from rozenfmt.format.varint import encode_column
from spec.vectors.maker import BROWSER, HOST_ID_KEY, READER, SIGNER, STRANGER, Hook, Maker, key

TIME = 1_790_000_000_123_456_789
DEFAULT = (1024, 4096, 1024)


@dataclass
class Other:
    """Another set of keys for the same bytes, and what comes of it."""

    expected: str = "success"
    identities: list[bytes] = field(default_factory=list)
    passphrases: list[str] = field(default_factory=list)
    verify_key: bytes | None = None
    allow_plain: bool = False
    right: str | None = None
    stop: str = "start"
    archives: int | None = None  # how many of the archives are taken up; None: all


@dataclass
class Vector:
    """One scenario."""

    description: str
    feature: str
    clause: str
    makers: list[Maker]
    expected: str = "success"
    keyless: str = "success"
    identities: list[bytes] = field(default_factory=lambda: [READER])
    passphrases: list[str] = field(default_factory=list)
    verify_key: bytes | None = None
    allow_plain: bool = False
    right: str | None = "read"
    stop: str = "end"  # where the reader with keys stops, in the last archive
    stop_keyless: str = "end"
    others: list[Other] = field(default_factory=list)
    change: Hook | None = None  # of the whole object
    plain: set[int] = field(default_factory=set)

    @property
    def data(self) -> bytes:
        """The object."""
        data = b"".join(maker.data for maker in self.makers)
        return bytes(self.change(data)) if self.change is not None else data


BROWSE = Other(identities=[BROWSER], right="browse")
VECTORS: dict[str, Callable[[], Vector]] = {}


def file(name: bytes, maker: Maker, content: bytes, place: tuple[int, int], **more: Any) -> Entry:
    """An entry with a content."""
    entry = Entry(name, Kind.FILE, 0o644, 1000, 100, b"user", b"users", TIME, len(content), **more)
    if content:
        entry.content_id, (entry.block, entry.piece) = maker.ident(content), place
    return entry


def folder(name: bytes, one: bytes, place: tuple[int, int], **more: Any) -> Entry:
    """An entry that is a directory."""
    entry = Entry(name, Kind.DIRECTORY, 0o755, 1000, 100, b"user", b"users", TIME, **more)
    entry.child, (entry.block, entry.piece) = one, place
    return entry


def rich(m: Maker) -> Maker:
    """A tree with about everything that an archive can hold."""
    text = b"To be read by people who have never heard of us. " * 12
    noise = blake3(b"noise").digest(5_000)
    numbers = m.pack(b"1", b"hello, world\n", text)
    names = m.pack(b"second pack\n", noise[:300])
    one = m.stream(b"big", 9_000, "application/octet-stream")
    two = m.stream(b"deep/er/two")
    m.write(one, noise[:1_000], noise[1_000:3_000])
    m.block("xtst", {1000: b"harmless"})
    m.write(two, b"two " * 50)
    m.write(one, noise[3_000:5_000])
    m.checkpoint()
    m.write(two, b"end of two", hole=1_000, codec="stored")
    one_at = m.close(one)
    lost = m.stream(b"given up", 1 << 40)
    m.write(lost, b"a stream that nobody closes")
    two_at = m.close(two, hole=24)
    m.checkpoint()
    refs = m.attributes([(b"security.x", b"\x00\xff"), (b"user.comment", b"two\nlines")], [(b"user.empty", b"")])
    deepest = [
        file(b"two", m, bytes(two.content) + bytes(24), two_at, marks=4),
        file(b"caf\xe9 \xff\xfe", m, b"second pack\n", names[0]),
        file(b"line\nbreak", m, noise[:300], names[1], marks=1),
    ]
    nodes_ = [m.directory(b"deep/er", deepest)]
    tree = len(m.blocks)
    nodes_.append(m.directory(b"deep", [folder(b"er", nodes_[0][1], (tree, 0), xattr_ref=refs[1])]))
    nodes_.append(m.directory(b"none", []))
    group = m.random(16)
    unread = Entry(b"unreadable", Kind.FILE, 0, 0, 0, b"root", b"root", TIME, 77, marks=2)
    entries = [
        file(b"big", m, bytes(one.content), one_at, xattr_ref=refs[0]),
        file(b"empty", m, b"", (0, 0)),
        file(b"one", m, b"1", numbers[0]),
        file(b"hello", m, b"hello, world\n", numbers[1], link_group=group),
        file(b"hello again", m, b"hello, world\n", numbers[1], link_group=group),
        file(b"text", m, text, numbers[2], xattr_ref=refs[0]),
        unread,
        folder(b"deep", nodes_[1][1], (tree, 1)),
        folder(b"none", nodes_[2][1], (tree, 2)),
        Entry(b"link", Kind.SYMLINK, 0o777, 1000, 100, b"user", b"users", TIME, target=b"deep/../\xff"),
        Entry(b"dangling", Kind.SYMLINK, 0o777, 0, 0, mtime_ns=-1, target=b""),
        Entry(b"fifo", Kind.FIFO, 0o600, 1, 2, b"", b"", 0),
        Entry(b"socket", Kind.SOCKET, 0o7777, 2**32 - 1, 2**32 - 1, b"\xff", b"x" * 300, 2**63 - 1),
        Entry(b"tty", Kind.CHARACTER_DEVICE, 0o620, 0, 5, b"root", b"tty", -(2**63), device=(4, 1)),
        Entry(b"disk", Kind.BLOCK_DEVICE, 0o660, 0, 6, b"root", b"disk", TIME, device=(259, 2**32)),
    ]
    nodes_.append(m.directory(b"", entries))
    assert m.tree(*(node for node, _ in nodes_)) == tree
    for number, path in enumerate((b"deep/er", b"deep", b"none", b"")):
        m.place(path, tree, number)
    m.finish((nodes_[3][1], tree, 3))
    return m


def small(m: Maker) -> Maker:
    """A small tree with a block of each type; most negative vectors are made of it."""
    stream = m.stream(b"big", 70)
    m.write(stream, b"abc", b"defg")
    places = m.pack(b"hello, world\n", b"zzz" * 40)
    m.write(stream, b"tail", hole=53)
    end = m.close(stream, hole=6)
    refs = m.attributes([(b"user.a", b"1"), (b"user.b", b"")])
    m.checkpoint()
    tree = len(m.blocks)
    sub = m.directory(b"sub", [file(b"z", m, b"zzz" * 40, places[1])])
    entries = [
        file(b"big", m, bytes(stream.content) + bytes(6), end, marks=4),
        file(b"hello", m, b"hello, world\n", places[0], xattr_ref=refs[0]),
        Entry(b"link", Kind.SYMLINK, 0o777, 0, 0, b"root", b"root", -7, target=b"hello"),
        folder(b"sub", sub[1], (tree, 0)),
    ]
    entries = m.hook("entries", entries)
    root = m.directory(b"", entries)
    pieces = m.hook("pieces", [sub[0], root[0]])
    m.tree(*pieces)
    m.place(b"sub", tree, 0)
    m.place(b"", tree, 1)
    m.finish((root[1], tree, 1))
    return m


def empty(m: Maker) -> Maker:
    """No entries at all."""
    node, one = m.directory(b"", [])
    m.place(b"", m.tree(node), 0)
    m.finish((one, 0, 0))
    return m


def data(m: Maker) -> Maker:
    """A data archive, as the vault writes them: contents without names."""
    m.pack(b"a content", b"another content " * 9)
    m.checkpoint()
    m.pack(b"a part of a big content, ", b"another one", b"a content")
    m.block("xtst", {1000: b"harmless"})
    m.finish()
    return m


def metadata(m: Maker) -> Maker:
    """A metadata archive with about everything that one can hold."""
    refs = m.attributes([(b"user.a", b"1")], [(b"security.x", b"\x00\xff")])
    for editions in m.hook("keyrings", [(b"an edition, of which nothing is believed", b"another one")]):
        m.keyring(*editions)
    m.checkpoint()
    tables = len(m.blocks)
    one, two = b"a part of a big content, ", b"another one"
    parts = [
        nodes.Part(0, len(one), m.ident(one), 3, 0, 1),
        nodes.Part(25, 1 << 30, None, 0, 0),
        nodes.Part(0, len(two), m.ident(two), 3, 1, 1),
    ]
    sub = m.table(parts, "sub table")
    total = len(one) + (1 << 30) + len(two)
    subs = [nodes.Part(0, total, sub[1], tables, 0), nodes.Part(total, 99, m.ident(b"elsewhere"), 4, 0, 2)]
    inner_table = m.table(subs, "inner table", inner=True)
    small_table = m.table([parts[0], nodes.Part(0, 7, None, 0, 0)], "small table")
    m.tree(sub[0], inner_table[0], small_table[0])
    m.block("xtst", {1000: b"harmless"})
    first = len(m.blocks)
    shared = m.leaf(b"shared", [], name="shared")
    files = [
        file(b"big", m, b"big", (tables, 1), marks=4, xattr_ref=refs[0]),
        file(b"gone by", m, b"an earlier version", (5, 6), archive=2, marks=16),
        file(b"kept", m, b"a content", (0, 0), archive=1, marks=8, xattr_ref=(refs[0][0], 9, 1), xattr_archive=3),
        file(b"other", m, one + bytes(7), (tables, 2)),
    ]
    files[0].size = total + 99
    left = m.leaf(b"", m.hook("files", files), name="files")
    node, top = m.inner(b"", [InnerNode(b"big", 4, left[1], first, 1), InnerNode(b"x", 7, m.ident(b"x"), 8, 1, 2)])
    m.tree(shared[0], left[0], node)
    entries = [
        folder(b"a", shared[1], (first, 0)),
        folder(b"b", shared[1], (first, 0), xattr_ref=refs[1]),
        folder(b"c", m.ident(b"a node of another archive"), (3, 9), archive=3),
        folder(b"d", top, (first, 2)),
        Entry(b"link", Kind.SYMLINK, 0o777, 0, 0, b"root", b"root", -7, target=b"hello"),
    ]
    root = m.leaf(b"", m.hook("entries", entries), name="root")
    pieces = m.hook("pieces", [root[0]])
    block = m.tree(*pieces)
    order: dict[str, Callable[[], object]] = {
        "XREF": lambda: m.references([(bytes([n]) * 16, kind, 999, 9) for n, kind in ((1, 1), (2, 2), (3, 2))]),
        "SNAP": lambda: m.snapshot(snapshot_record(root[1], block)),
        "TREE": lambda: m.tree(m.leaf(b"", [], name="late")[0]),
        "TREX": lambda: m.attributes([(b"user.late", b"")]),
        "PACK": lambda: m.pack(b"content"),
    }
    for name in m.hook("order", ["XREF", "SNAP"]):
        order[name]()
    m.finish()
    return m


def snapshot_record(root: bytes, block: int) -> dict[int, Any]:
    """Body of a ``SNAP`` with all keys."""
    return {
        1: key("vault")[:16],
        2: key("host")[:16],
        3: "caf\u00e9",
        4: "/home/me",
        5: 7,
        6: [key("parent")[:16], key("foot of the parent")],
        7: b"".join(sorted((key("parent")[:16], key("sibling")[:16]))),
        8: 2,
        9: [TIME, TIME + 5],
        10: [root, 0, block, 0],
        11: [17, 1 << 31],
        12: [[b"a", b"/home/me/a", 1], [b"b", b"pg_dump shop", 2], [b"c", b"s3://bucket/c", 3]],
        13: ["holiday", "\uffff", "\U00010000"],
        14: [1, 2, 3, 1, 1, 4, 1, 2, 5],
        15: [[b"d/old", b"d/new", 1]],
        16: [b"d/deleted"],
        17: [[b"d/x\xff", "unreadable", "permission denied"]],
        18: [[b"d/big", 1], [b"d/kept", 4]],
        19: 2,
        20: 2,
    }


def directory_of(name: str, members: list[Maker], hooks: dict[str, Hook] | None = None) -> Maker:
    """The directory archive of a joined object."""
    m = Maker(name, suite=0, kind=4, codec="stored", hooks=hooks)
    rows, offset = [], 0
    for member in members:
        rows.append([member.archive_id, offset, len(member.data)])
        offset += len(member.data)
    m.block("prty", {}, b"parity, which nobody reads yet", codec="stored")
    m.block("DIRY", {}, cbor.dumps({1: m.hook("members", rows)}))
    m.finish()
    return m


def inner(m: Maker) -> Maker:
    """A directory of four leaves below two levels of inner nodes."""
    places = m.pack(*(b"content of %d" % number for number in range(8)))
    entries = [file(b"file %d" % n, m, b"content of %d" % n, places[n]) for n in range(8)]
    m.note(b"", entries)
    leaves = [m.leaf(b"", entries[at : at + 2]) for at in range(0, 8, 2)]
    tree = m.tree(*(node for node, _ in leaves))
    low = []
    for half in (0, 2):
        children = [InnerNode(entries[2 * n].name, 2, leaves[n][1], tree, n) for n in (half, half + 1)]
        low.append(m.inner(b"", m.hook("children", children), f"inner {half}"))
    top = m.inner(b"", [InnerNode(entries[4 * n].name, 4, low[n][1], tree + 1, n) for n in (0, 1)], "inner top")
    m.tree(low[0][0], low[1][0], top[0])
    m.place(b"", tree + 1, 2)
    m.finish((top[1], tree + 1, 2))
    return m


def sub_tables(m: Maker) -> Maker:
    """A stream whose part table has sub-tables, holes at their borders."""
    stream = m.stream(b"big")
    m.write(stream, b"one", b"two")
    m.write(stream, b"three", hole=10)
    m.write(stream, b"four", hole=10)
    at = m.close(stream, hole=5, tables=(3, 2, 2))
    node, one = m.directory(b"", [file(b"big", m, bytes(stream.content) + bytes(5), at, marks=4)])
    tree = m.tree(node)
    m.place(b"", tree, 0)
    m.finish((one, tree, 0))
    return m


def streams(m: Maker) -> Maker:
    """Interleaved streams, one of them only a hole, one given up at once."""
    a, b, c = m.stream(b"a"), m.stream(b"b", 8), m.stream()
    hole = m.stream(b"hole")
    m.write(a, b"a1")
    m.write(b, b"b1")
    m.write(a, b"a2")
    at_hole = m.close(hole, hole=1_000)
    d = m.stream(b"d")
    m.write(b, b"b2")
    m.write(d, b"d1")
    at_a = m.close(a)
    m.write(d, b"d2", hole=7)
    at_d, at_b = m.close(d), m.close(b)
    assert c.number == 2
    entries = [
        file(b"a", m, b"a1a2", at_a),
        file(b"b", m, b"b1b2", at_b),
        file(b"d", m, bytes(d.content), at_d, marks=4),
        file(b"hole", m, bytes(1_000), at_hole, marks=4),
    ]
    node, one = m.directory(b"", entries)
    tree = m.tree(node)
    m.place(b"", tree, 0)
    m.finish((one, tree, 0))
    return m


def partial(m: Maker) -> Maker:
    """Checkpoints with partial nodes before the directory is whole; a checkpoint that lists nothing new but itself."""
    first = m.pack(b"first")
    early = [file(b"first", m, b"first", first[0])]
    m.tree(m.leaf(b"", early, partial=True, name="partial")[0])
    m.checkpoint()
    m.checkpoint()
    second = m.pack(b"second")
    entries = [*early, file(b"second", m, b"second", second[0]), Entry(b"link", Kind.SYMLINK, target=b"first")]
    node, one = m.directory(b"", entries)
    strange = nodes.join_node(cbor.dumps({1: 99, 2: b"a node of a type that nobody refers to"}), cbor.dumps({}))
    tree = m.tree(strange, node)
    m.checkpoint()
    m.place(b"", tree, 1)
    m.finish((one, tree, 1))
    return m


def doubles(m: Maker) -> Maker:
    """The same content in several places, and two directories with equal nodes."""
    places = [*m.pack(b"same", b"same"), *m.pack(b"same", b"other")]
    tree = len(m.blocks)
    below = [m.directory(path, [file(b"x", m, b"same", places[2])]) for path in (b"left", b"right")]
    entries = [
        file(b"a", m, b"same", places[0]),
        file(b"b", m, b"same", places[1]),
        file(b"c", m, b"other", places[3], marks=1 << 40),
        folder(b"left", below[0][1], (tree, 0)),
        folder(b"right", below[1][1], (tree, 1)),
    ]
    assert below[0][1] == below[1][1]
    node, one = m.directory(b"", entries)
    m.tree(below[0][0], below[1][0], node)
    for number, path in enumerate((b"left", b"right", b"")):
        m.place(path, tree, number)
    m.finish((one, tree, 2))
    return m


def checksum(m: Maker) -> Maker:
    """A zstd frame with a checksum."""
    places = m.pack(b"zzz" * 400)
    node, one = m.directory(b"", [file(b"z", m, b"zzz" * 400, places[0])])
    m.place(b"", m.tree(node), 0)
    m.finish((one, 1, 0))
    return m


def positive(name: str, description: str, feature: str, clause: str) -> Callable[[Callable[[str], Vector]], None]:
    """Register a scenario; its function gets the name and fills the rest."""

    def register(make: Callable[[str], Vector]) -> None:
        def build() -> Vector:
            vector = make(name)
            vector.description, vector.feature, vector.clause = description, feature, clause
            return vector

        VECTORS[name] = build

    return register


def of(*makers: Maker, **more: Any) -> Vector:
    """A vector; without identities if it is plain."""
    if all(maker.suite == 0 for maker in makers):
        more.setdefault("identities", [])
    return Vector("", "", "", list(makers), **more)


def _combinations() -> None:
    rows: list[tuple[int, str, bool, tuple[int, int, int]]] = [
        (0, "stored", True, (1, 1, 1)),
        (0, "zstd", False, (1, 1, 1)),
        (0, "lz4", False, (1, 1, 1)),
        (1, "stored", False, (64, 128, 64)),
        (1, "zstd", True, DEFAULT),
        (1, "lz4", True, (64, 128, 64)),
        (2, "stored", True, (1, 1, 1)),
        (2, "zstd", True, (64, 128, 64)),
        (2, "lz4", False, (256, 1024, 256)),
    ]
    for suite, codec, signed, padding in rows:
        name = f"tree-{suite}-{codec}" + "-signed" * signed
        description = f"a whole tree; suite {suite}, codec {codec}, padding {list(padding)}"

        @positive(name, description + (", signed" if signed else ""), "tree", "8")
        def _tree(
            name: str,
            *,
            suite: int = suite,
            codec: str = codec,
            signed: bool = signed,
            padding: tuple[int, int, int] = padding,
        ) -> Vector:
            maker = rich(Maker(name, suite=suite, codec=codec, signed=signed, padding=padding))
            return of(maker, others=[BROWSE] if suite else [])


_combinations()


@positive("small", "the archive that most negative vectors are made of", "tree", "8")
def _small(name: str) -> Vector:
    return of(small(Maker(name)), others=[BROWSE])


@positive("small-signed", "the same, signed, the signer being demanded", "signature", "10")
def _signed(name: str) -> Vector:
    from rozenfmt.format.crypto import ed25519_public

    stranger = Other("signature", [READER], verify_key=ed25519_public(STRANGER), right="read", stop="end")
    return of(small(Maker(name, signed=True)), verify_key=ed25519_public(SIGNER), others=[stranger])


@positive("small-plain", "the same without encryption", "suite 0", "6.3")
def _plain(name: str) -> Vector:
    others = [Other("unsupported", [READER]), Other("success", [READER], allow_plain=True, right="read", stop="end")]
    return of(small(Maker(name, suite=0, signed=True)), others=others)


@positive("empty", "no entries", "tree", "8.1")
def _empty(name: str) -> Vector:
    return of(empty(Maker(name)), others=[BROWSE])


@positive("empty-plain", "no entries, no encryption: the smallest archive", "tree", "8.1")
def _empty_plain(name: str) -> Vector:
    return of(empty(Maker(name, suite=0, codec="stored")))


@positive("passphrase", "locked by a passphrase; the one given needs normalisation", "passphrase", "7")
def _passphrase(name: str) -> Vector:
    other = Other("no-recipient", [READER])
    maker = small(Maker(name, passphrase="caf\u00e9"))
    return of(maker, identities=[], passphrases=["wrong", "cafe\u0301"], others=[other])


@positive("passphrase-2", "locked by a passphrase, suite 2", "passphrase", "7")
def _passphrase_2(name: str) -> Vector:
    maker = small(Maker(name, suite=2, passphrase="correct horse", signed=True))
    return of(maker, identities=[READER], passphrases=["correct horse"])


@positive("browse", "opened by a key that may only browse", "rights", "6.1")
def _browse(name: str) -> Vector:
    maker = rich(Maker(name, recipients=((2, STRANGER), (2, BROWSER))))
    return of(maker, identities=[BROWSER], right="browse", stop="start")


@positive("recipients", "seven recipients; the one who reads has a browse stanza too", "stanzas", "7")
def _recipients(name: str) -> Vector:
    several = [(right, key(f"recipient {n}")) for n in range(3) for right in (2, 1)]
    maker = small(Maker(name, suite=2, recipients=[(2, READER), *several, (1, READER), (2, BROWSER)]))
    return of(maker, identities=[STRANGER, READER], others=[BROWSE])


@positive("grease", "unknown keys in all records, an unknown stanza, ancillary type and flag", "extensions", "15")
def _grease(name: str) -> Vector:
    flags = {f"prefix:{tag}": lambda p: {**p, "flags": p["flags"] | 1 << 16} for tag in ("PACK:0", "TREE:0", "xtst:0")}
    return of(rich(Maker(name, grease=True, signed=True, hooks=flags)), others=[BROWSE])


@positive("grease-plain", "the same without encryption", "extensions", "15")
def _grease_plain(name: str) -> Vector:
    return of(rich(Maker(name, suite=0, grease=True, hooks={"prefix:FOOT:0": lambda p: {**p, "flags": 1 << 31}})))


@positive(
    "ancillary-mac", "an unknown ancillary block with a MAC flag, whose MAC nobody can check", "extensions", "4.1"
)
def _ancillary_mac(name: str) -> Vector:
    hooks = {"prefix:xtst:0": lambda p: {**p, "flags": 1}, "mac:xtst:0": lambda _: bytes(32)}
    return of(rich(Maker(name, hooks=hooks)), others=[BROWSE])


@positive("data", "an archive of kind 1", "kinds", "5")
def _data(name: str) -> Vector:
    return of(data(Maker(name, kind=1, id_key=HOST_ID_KEY, signed=True)), others=[BROWSE])


@positive("data-own-ids", "an archive of kind 1 with ids of its own", "kinds", "3")
def _data_own_ids(name: str) -> Vector:
    return of(data(Maker(name, kind=1, suite=2, grease=True, leaf_entries=2)), others=[BROWSE])


@positive("data-plain", "an archive of kind 1 without encryption", "kinds", "5")
def _data_plain(name: str) -> Vector:
    return of(data(Maker(name, kind=1, suite=0, signed=True)))


VAULT: dict[str, Any] = {"kind": 2, "id_key": HOST_ID_KEY, "signed": True}


@positive("metadata", "an archive of kind 2 with a block of each type", "kinds", "vault 5")
def _metadata(name: str) -> Vector:
    return of(metadata(Maker(name, **VAULT)), others=[BROWSE])


@positive("metadata-own-ids", "the same with ids of its own, suite 2", "kinds", "vault 5")
def _metadata_own_ids(name: str) -> Vector:
    return of(metadata(Maker(name, kind=2, suite=2)), others=[BROWSE])


@positive("metadata-plain", "the same without encryption", "kinds", "vault 5")
def _metadata_plain(name: str) -> Vector:
    return of(metadata(Maker(name, kind=2, suite=0, leaf_entries=3)))


@positive("metadata-grease", "the same with unknown keys everywhere", "extensions", "vault 5")
def _metadata_grease(name: str) -> Vector:
    return of(metadata(Maker(name, grease=True, **VAULT)), others=[BROWSE])


@positive("metadata-least", "a first snapshot of nothing: the least that there can be", "kinds", "vault 5")
def _metadata_least(name: str) -> Vector:
    return of(least(Maker(name, **VAULT)), others=[BROWSE])


def least(m: Maker) -> Maker:
    """A snapshot without entries, without references, without a parent."""
    m.keyring(b"")
    node, one = m.leaf(b"", [])
    block = m.tree(node)
    m.references([])
    left_out = (6, 15, 16, 17, 18)
    record = {k: v for k, v in snapshot_record(one, block).items() if k not in left_out}
    m.snapshot({**record, 5: 1, 7: b"", 8: 1, 11: [0, 0], 12: [], 13: [], 14: [0] * 9, 19: 1, 20: 0})
    m.finish()
    return m


@positive("leaves", "an index of many leaves", "index", "9")
def _leaves(name: str) -> Vector:
    return of(rich(Maker(name, leaf_entries=2)), others=[BROWSE])


@positive("leaves-equal", "equal rows of the content look-up on both sides of a leaf's border", "index", "9")
def _leaves_equal(name: str) -> Vector:
    return of(doubles(Maker(name, leaf_entries=1, suite=2)), others=[BROWSE])


@positive("doubles", "one content in several places, two directories with the same node id", "nodes", "8")
def _doubles(name: str) -> Vector:
    return of(doubles(Maker(name)), others=[BROWSE])


@positive("inner", "a directory of two levels of inner nodes", "nodes", "8.2")
def _inner(name: str) -> Vector:
    return of(inner(Maker(name)), others=[BROWSE])


@positive("sub-tables", "a part table of sub-tables", "part tables", "8.3")
def _sub_tables(name: str) -> Vector:
    return of(sub_tables(Maker(name)), others=[BROWSE])


@positive("sub-tables-plain", "a part table of sub-tables, plain", "part tables", "8.3")
def _sub_tables_plain(name: str) -> Vector:
    return of(sub_tables(Maker(name, suite=0, leaf_entries=3)))


@positive("streams", "interleaved streams, one only a hole, one never closed", "streams", "5.1")
def _streams(name: str) -> Vector:
    return of(streams(Maker(name)), others=[BROWSE])


@positive("checkpoints", "checkpoints, a partial node, and a node of unknown type", "checkpoints", "5.5")
def _checkpoints(name: str) -> Vector:
    return of(partial(Maker(name, suite=2)), others=[BROWSE])


@positive("zstd-checksum", "a zstd frame with a checksum", "codecs", "4.4")
def _checksum(name: str) -> Vector:
    return of(checksum(Maker(name, codec="zstd-checksum")))


@positive("passed-over", "reserved ancillary blocks", "extensions", "5.7")
def _passed_over(name: str) -> Vector:
    m = Maker(name)
    m.block("prty", {}, b"parity", codec="stored")
    m.block("xemp", {})
    return of(empty_after(m), others=[BROWSE])


def empty_after(m: Maker) -> Maker:
    """An empty tree behind other blocks."""
    node, one = m.directory(b"", [])
    tree = m.tree(node)
    m.place(b"", tree, 0)
    m.finish((one, tree, 0))
    return m


@positive("joined", "three archives and the directory of the object", "joined objects", "5.6")
def _joined(name: str) -> Vector:
    members = [
        small(Maker(f"{name} 0", signed=True)),
        streams(Maker(f"{name} 1", suite=2, codec="lz4")),
        inner(Maker(f"{name} 2")),
    ]
    return of(*members, directory_of(f"{name} 3", members), others=[BROWSE])


@positive("joined-mixed", "archives of several kinds and suites, no directory", "joined objects", "2")
def _joined_mixed(name: str) -> Vector:
    members = [empty(Maker(f"{name} 0", suite=0)), data(Maker(f"{name} 1", kind=1)), small(Maker(f"{name} 2"))]
    return of(*members, allow_plain=True, others=[Other("unsupported", [READER], archives=0)])


@positive("joined-demanded", "the demand for a signer spares the directory", "joined objects", "10")
def _joined_demanded(name: str) -> Vector:
    from rozenfmt.format.crypto import ed25519_public

    members = [small(Maker(f"{name} 0", signed=True)), empty(Maker(f"{name} 1", signed=True, suite=2))]
    return of(*members, directory_of(f"{name} 2", members), verify_key=ed25519_public(SIGNER))


__all__ = ["VECTORS", "Vector", "encode_column"]
