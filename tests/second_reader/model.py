"""Parsing of single pieces of a rozenfmt archive: header section, frames, sealed sections, nodes, index leaves, FOOT.

Nothing here knows more than the bytes of one section, block or piece; `reader` puts them together. Section numbers in
comments and in `SpecError.clause` are those of spec/format.md.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, TypeVar

from . import primitives as p
from .primitives import Malformed, Map, need, present

MAGIC = bytes.fromhex("89525A4E0D0A1A0A")
SYNC = bytes.fromhex("F5727A9CE107B35A")
END_MAGIC = bytes.fromhex("0A1A0A0D4E5A5289")

MAX_HEADER = 98_304
MAX_A = 1_048_640
MAX_B = 16_842_792
MAX_BODY = 16_777_216
MAX_PIECES = 65_536
MAX_ENTRIES = 65_536
MAX_NAME = 65_535
MAX_STREAMS = 1_024
MAX_CREATOR = 64
MAX_MEDIA_TYPE = 255
MAX_STANZAS = 64
MAX_INNER_DEPTH = 8
MAX_DIRECTORY_DEPTH = 65_536

FILE, DIRECTORY, SYMLINK, FIFO, CHARACTER, DEVICE, SOCKET = range(1, 8)
CHANGED, UNREADABLE, SPARSE = 1, 2, 4
Location = tuple[int, int]  # sequence number of a block, number of a piece in it

T = TypeVar("T")


class SpecError(Exception):
    """A refusal; `failure_class` is one of section 16, `offset` counts from the start of the object."""

    def __init__(self, failure_class: str, clause: str, why: str, offset: int | None = None) -> None:
        super().__init__(f"{failure_class}: {why} (section {clause})")
        self.failure_class = failure_class
        self.clause = clause
        self.offset = offset
        self.result: Any = None


def refuse(failure_class: str, clause: str, why: str, offset: int | None = None) -> NoReturn:
    raise SpecError(failure_class, clause, why, offset)


@contextmanager
def place(failure_class: str, clause: str) -> Iterator[None]:
    """Malformed bytes are the failure class of the place they stand in."""
    try:
        yield
    except Malformed as error:
        raise SpecError(failure_class, clause, str(error)) from error


# ---------------------------------------------------------------- header section (section 3)


class Stanza(NamedTuple):
    type: int
    right: int
    body: bytes


@dataclass(frozen=True)
class Header:
    section: bytes  # all 112 + n bytes
    digest: bytes
    maced: bytes  # bytes 0-15 and the header record
    mac_i: bytes
    mac_s: bytes
    archive_id: bytes
    kind: int
    suite: int
    features: list[int]
    padding: tuple[int, int, int]
    creator: str
    commit_s: bytes
    commit_i: bytes
    stanzas: list[Stanza]
    signer: bytes | None
    id_key_number: int


def parse_header(data: bytes) -> Header:
    """The header section at the start of `data`; refusals in the order of section 3."""
    magic = data[:8]
    if magic != MAGIC[: len(magic)]:
        refuse("header", "3", "wrong magic")
    if len(data) < 48:
        refuse("truncated", "3", "preamble is cut off")
    major, minor, n = struct.unpack_from("<HHI", data, 8)
    if (major, minor) != (0, 1):
        refuse("unsupported", "3", f"version {major}.{minor}")
    if not 1 <= n <= MAX_HEADER:
        refuse("limit", "3", f"header record of {n} bytes")
    if len(data) < 112 + n:
        refuse("truncated", "3", "header section is cut off")
    section = data[: 112 + n]
    maced = section[:16] + section[48 : 48 + n]
    if not p.same(section[16:48], p.h(section[:16] + section[48:])):
        refuse("header", "3", "wrong header digest")
    with place("header", "3"):
        return _header_record(section, maced, section[48 : 48 + n])


def _header_record(section: bytes, maced: bytes, raw: bytes) -> Header:
    record = p.cbor_map(raw)
    archive_id = p.is_bytes(need(record, 1), 16)
    kind = p.is_uint(need(record, 2), 1, 4)
    suite = p.is_uint(need(record, 3))
    features = [p.is_uint(number) for number in p.is_array(need(record, 4))]
    if not p.ascending(features):
        raise Malformed("required features are not ascending")
    h_bucket, p_bucket, o_bucket = (p.is_uint(v, 1, 65_536) for v in p.is_array(need(record, 5), 3))
    creator = p.is_text(need(record, 6))
    if len(creator.encode()) > MAX_CREATOR:
        refuse("limit", "14", "creator is too long")
    signer = p.is_bytes(record[10], 32) if 10 in record else None
    id_key_number = p.is_uint(need(record, 11))
    if 1 not in features:
        present(record, 12, False)
        present(record, 13, False)
    commit_s = commit_i = b""
    stanzas: list[Stanza] = []
    if suite not in (0, 1, 2):
        refuse("unsupported", "3", f"suite {suite}")
    for key in (7, 8, 9):
        present(record, key, suite != 0)
    if suite == 0 and (h_bucket, p_bucket, o_bucket) != (1, 1, 1):
        raise Malformed("padding in suite 0")
    if suite != 0:
        if kind == 4:
            raise Malformed("a directory archive has suite 0")
        commit_s = p.is_bytes(record[7], 32)
        commit_i = p.is_bytes(record[8], 32)
        stanzas = _stanzas(record[9])
    mac_i, mac_s = section[-64:-32], section[-32:]
    if suite == 0 and (any(mac_i) or any(mac_s)):
        raise Malformed("MACs of suite 0 are not zero")
    if features:
        refuse("unsupported", "3", f"required feature {features[0]}")
    if id_key_number > (1 if kind in (1, 2) else 0):
        refuse("unsupported", "3", f"id key {id_key_number}")
    buckets = (h_bucket, p_bucket, o_bucket)
    return Header(
        section,
        section[16:48],
        maced,
        mac_i,
        mac_s,
        archive_id,
        kind,
        suite,
        features,
        buckets,
        creator,
        commit_s,
        commit_i,
        stanzas,
        signer,
        id_key_number,
    )


def _stanzas(value: p.Value) -> list[Stanza]:
    """What every reader refuses of stanzas (section 7)."""
    rows = p.is_array(value)
    if not rows:
        raise Malformed("no stanzas")
    if len(rows) > MAX_STANZAS:
        refuse("limit", "14", f"{len(rows)} stanzas")
    stanzas = []
    for row in rows:
        kind, right, body = p.is_array(row, 3)
        stanzas.append(Stanza(p.is_uint(kind), p.is_uint(right), p.is_bytes(body)))
    sizes = {1: 80, 2: 96}
    for stanza in stanzas:
        if stanza.type not in sizes:
            continue
        if stanza.right not in (1, 2):
            raise Malformed(f"stanza with right {stanza.right}")
        if len(stanza.body) != sizes[stanza.type]:
            raise Malformed(f"stanza of {len(stanza.body)} bytes")
        if stanza.type == 2:
            if len(stanzas) != 1:
                raise Malformed("passphrase stanza is not alone")
            t, m = struct.unpack_from("<II", stanza.body, 16)
            if not (1 <= t <= 16 and 8 <= m <= 1_048_576):
                refuse("limit", "7", f"Argon2id with t = {t}, m = {m}")
    return stanzas


# ---------------------------------------------------------------- keys and stanzas (sections 6 and 7)


@dataclass(frozen=True)
class Identities:
    x25519_private: list[bytes] = field(default_factory=list)
    passphrases: list[str] = field(default_factory=list)
    verify_key: bytes | None = None
    allow_plain: bool = False
    id_key: bytes | None = None  # of the vault's host

    @property
    def any(self) -> bool:
        return bool(self.x25519_private or self.passphrases)


class Keys:
    """What follows from S, or from I alone."""

    def __init__(self, right: int, key: bytes) -> None:
        self.s = key if right == 1 else None
        self.i = p.kdf("index key I", key) if right == 1 else key
        self.seal_i = p.kdf("seal I", self.i)
        self.path_key = p.kdf("path", self.i)
        self.seal_c = p.kdf("seal C", p.kdf("content key C", key)) if right == 1 else None
        self.id_key: bytes | None = p.kdf("content id", key) if right == 1 else None
        self.block_mac = p.kdf("block mac S", key) if right == 1 else None

    @property
    def right(self) -> str:
        return "browse" if self.s is None else "read"

    def content_id(self, content: bytes) -> bytes:
        assert self.id_key is not None
        return p.mac(self.id_key, p.h(content) + struct.pack("<Q", len(content)))


def check_usable(header: Header, identities: Identities) -> None:
    """The refusal of a header that is whole: section 3, last paragraph."""
    if identities.any and header.suite == 0 and header.kind != 4 and not identities.allow_plain:
        refuse("unsupported", "3", "plain archive, though an identity was given")


def _try_stanza(header: Header, stanza: Stanza, identities: Identities) -> bytes | None:
    suffix = bytes([stanza.right]) + header.archive_id
    body = stanza.body
    if stanza.type == 1:
        if identities.x25519_private and p.low_order(body[:32]):
            refuse("header", "7", "public key gives an all-zero shared secret")
        for private in identities.x25519_private:
            key = p.hpke_open(private, b"rozenfmt v0 stanza" + suffix, body)
            if key is not None:
                return key
    if stanza.type == 2:
        t, m = struct.unpack_from("<II", body, 16)
        for passphrase in identities.passphrases:
            raw = unicodedata.normalize("NFC", passphrase).encode()
            wrapping = p.argon2id(raw, body[:16], t, m)
            try:
                ad = b"rozenfmt v0 passphrase" + suffix + body[:24]
                return p.xchacha_open(wrapping, body[24:48], body[48:], ad)
            except Malformed:
                continue
    return None


def unwrap(header: Header, identities: Identities) -> Keys | None:
    """Section 7, then commitments, then header MACs. None: no identity was given."""
    keys = _unwrap(header, identities)
    if keys is not None and header.id_key_number == 1:
        keys.id_key = identities.id_key if keys.s is not None else None
    return keys


def _unwrap(header: Header, identities: Identities) -> Keys | None:
    if header.suite == 0:
        return Keys(1, bytes(32))
    if not identities.any:
        return None
    keys = None
    for right in (1, 2):
        for stanza in header.stanzas:
            if keys is None and stanza.right == right and stanza.type in (1, 2):
                key = _try_stanza(header, stanza, identities)
                keys = None if key is None else Keys(right, key)
    if keys is None:
        refuse("no-recipient", "7", "no stanza opens")
    if keys.s is not None and not p.same(p.kdf("commit S", keys.s + header.archive_id), header.commit_s):
        refuse("key", "6.1", "commitment to S does not fit")
    if not p.same(p.kdf("commit I", keys.i + header.archive_id), header.commit_i):
        refuse("key", "6.1", "commitment to I does not fit")
    if not p.same(p.mac(p.kdf("header mac I", keys.i), header.maced), header.mac_i):
        refuse("key", "6.1", "MAC_I does not fit")
    if keys.s is not None and not p.same(p.mac(p.kdf("header mac S", keys.s), header.maced), header.mac_s):
        refuse("key", "6.1", "MAC_S does not fit")
    return keys


# ---------------------------------------------------------------- frames (section 4.1; steps (a) to (g) of 11.2)


class BlockType(NamedTuple):
    under: str  # "I", "C" or "" for not sealed
    body: str  # "no", "yes", "optional", "pieces" or "special"
    kinds: str


TYPES = {
    b"FHDR": BlockType("I", "no", "3"),
    b"FCNT": BlockType("C", "pieces", "3"),
    b"FEND": BlockType("I", "yes", "3"),
    b"PACK": BlockType("C", "pieces", "13"),
    b"TREE": BlockType("I", "pieces", "23"),
    b"TREX": BlockType("C", "pieces", "23"),
    b"SNAP": BlockType("I", "yes", "2"),
    b"XREF": BlockType("I", "yes", "2"),
    b"INDX": BlockType("I", "yes", "1234"),
    b"FOOT": BlockType("", "special", "1234"),
    b"DIRY": BlockType("", "yes", "4"),
    b"ckpt": BlockType("I", "optional", "123"),
    b"keyr": BlockType("", "yes", "2"),
    b"prty": BlockType("", "reserved", "1234"),
}


@dataclass(frozen=True)
class Frame:
    offset: int  # in the archive
    length: int  # stored
    type: bytes
    flags: int
    archive_id: bytes
    seq: int
    prefix: bytes
    header_section: bytes
    header_hash: bytes
    body_section: bytes
    block_mac: bytes
    whole_hash: bytes


def parse_frame(data: bytes, at: int, offset: int, archive_id: bytes | None, seq: int | None) -> Frame:
    """Steps (a) to (f). `at` is the place in `data`, `offset` the one in the archive."""
    if len(data) - at < 52:
        refuse("truncated", "11.2 (a)", "no whole block prefix, and FOOT has not come")
    prefix = data[at : at + 52]
    sync, kind, flags, found_id, found_seq, a, b = struct.unpack("<8s4sI16sQIQ", prefix)
    if sync != SYNC:
        refuse("block", "11.2 (b)", "no sync marker")
    if archive_id is not None and found_id != archive_id:
        refuse("block", "11.2 (b)", "block of another archive")
    if seq is not None and found_seq != seq:
        refuse("block", "11.2 (b)", f"sequence number {found_seq} where {seq} belongs")
    if flags & 0xFFFE:
        refuse("unsupported", "11.2 (c)", f"flags {flags:#x}")
    if a > MAX_A or b > MAX_B:
        refuse("limit", "11.2 (d)", f"sections of {a} and {b} bytes")
    mac_size = 32 if flags & 1 else 0
    length = 52 + a + 32 + b + mac_size + 32
    if len(data) - at < length:
        refuse("truncated", "11.2 (e)", "block is cut off")
    block = data[at : at + length]
    header_hash = block[52 + a : 84 + a]
    if not p.same(header_hash, p.h(block[: 52 + a])):
        refuse("block", "11.2 (f)", "wrong header hash")
    if not p.same(block[-32:], p.h(block[:-32])):
        refuse("block", "11.2 (f)", "wrong whole hash")
    body_end = 84 + a + b
    return Frame(
        offset,
        length,
        kind,
        flags,
        found_id,
        found_seq,
        prefix,
        block[52 : 52 + a],
        header_hash,
        block[84 + a : body_end],
        block[body_end : body_end + mac_size],
        block[-32:],
    )


def check_type(header: Header, frame: Frame) -> BlockType | None:
    """Step (g). None: an ancillary type that is not known."""
    if not (frame.type.isalpha() and frame.type.isascii()):
        refuse("block", "11.2 (g)", "type is not four letters")
    known = TYPES.get(frame.type)
    if known is None:
        if frame.type[:1].isupper():
            refuse("unsupported", "11.2 (g)", f"critical type {frame.type.decode()}")
        if header.suite == 0 and frame.flags & 1:
            refuse("block", "4.1", "block MAC in suite 0")
        return None
    if str(header.kind) not in known.kinds:
        refuse("block", "11.2 (g)", f"{frame.type.decode()} in an archive of kind {header.kind}")
    if (frame.flags & 1) != (1 if header.suite != 0 and known.under == "I" else 0):
        refuse("block", "11.2 (g)", "MAC flag differs from what the type prescribes")
    return known


# ---------------------------------------------------------------- opening a block (section 4; steps (h) to (j))


@dataclass(frozen=True)
class Block:
    record: Map
    body: bytes  # decoded; empty if there is none
    pieces: list[bytes]


def _unpad(plain: bytes, used: int, bucket: int) -> None:
    if len(plain) != -(-used // bucket) * bucket or any(plain[used:]):
        raise Malformed("wrong padding")


def record_of(plain: bytes, bucket: int) -> Map:
    if len(plain) < 4:
        raise Malformed("header plaintext is shorter than the length of its record")
    n = int.from_bytes(plain[:4], "little")
    if n > len(plain) - 4:
        raise Malformed("record is longer than the header plaintext")
    _unpad(plain, 4 + n, bucket)
    return p.cbor_map(plain[4 : 4 + n])


def readable(known: BlockType, keys: Keys | None) -> bool:
    return known.under == "" or (keys is not None and (known.under == "I" or keys.s is not None))


def open_block(header: Header, keys: Keys | None, known: BlockType, frame: Frame) -> Block:
    """Steps (h) to (j) for a type of which `readable` is true; not for FOOT and not for reserved types."""
    sealed = header.suite != 0 and known.under != ""
    key = b""
    if sealed:
        assert keys is not None
        key = keys.seal_i if known.under == "I" else keys.seal_c or b""
    bucket, pieces_bucket, other_bucket = header.padding if sealed else (1, 1, 1)
    body_bucket = pieces_bucket if frame.type in (b"PACK", b"FCNT") else other_bucket
    has_body = len(frame.body_section) > 0

    with place("block", "11.2 (h)"):
        plain = frame.header_section
        if sealed:
            plain = p.open_section(header.suite, key, plain, b"rozenfmt v0 block header" + frame.prefix)
        record = record_of(plain, bucket)
        if (known.body == "no" and has_body) or (known.body in ("yes", "pieces") and not has_body):
            raise Malformed("body section is there, or missing, against the type")
        for number in (1, 2, 3, 4):
            present(record, number, has_body)
        codec = d = e = 0
        if has_body:
            codec = p.is_uint(record[1])
            d = p.is_uint(record[2], 1)
            e = p.is_uint(record[3])
            p.is_bytes(record[4], 32)
            if d > MAX_BODY:
                refuse("limit", "14", f"decoded body of {d} bytes")
        if frame.type == b"INDX":
            _index_form(record)

    if frame.flags & 1 and keys is not None and keys.block_mac is not None:
        expected = p.mac(keys.block_mac, frame.header_hash + frame.body_section)
        if not p.same(frame.block_mac, expected):
            refuse("block", "11.2 (i)", "block MAC does not fit")
    if not has_body:
        return Block(record, b"", [])

    with place("block", "11.2 (j)"):
        plain = frame.body_section
        if sealed:
            plain = p.open_section(header.suite, key, plain, b"rozenfmt v0 block body" + frame.header_hash)
        if e > len(plain):
            raise Malformed("encoded body is longer than the body plaintext")
        _unpad(plain, e, body_bucket)
        body = _decode(codec, plain[:e], d)
        if not p.same(p.h(body), p.is_bytes(record[4])):
            raise Malformed("wrong content hash")
        pieces = []
        if known.body == "pieces":
            lengths = p.column(p.is_bytes(need(record, 16)))
            if len(lengths) > MAX_PIECES:
                refuse("limit", "4.5", f"{len(lengths)} pieces")
            if not lengths or 0 in lengths or sum(lengths) != d:
                raise Malformed("lengths of the pieces do not add up to the body")
            at = 0
            for length in lengths:
                pieces.append(body[at : at + length])
                at += length
    return Block(record, body, pieces)


def _index_form(record: Map) -> None:
    """The form of an `INDX` record, each key by itself (11.2, at the end)."""
    p.is_uint(need(record, 16), 1, 4)
    for key in (18, 19):
        if key in record:
            p.is_uint(record[key])
    if 17 in record and p.is_uint(record[17], 1) > MAX_ENTRIES:
        refuse("limit", "14", "index leaf of too many entries")


def _decode(codec: int, encoded: bytes, d: int) -> bytes:
    if codec == 0:
        if len(encoded) != d:
            raise Malformed("stored body with e other than d")
        return encoded
    if codec not in (1, 2):
        refuse("unsupported", "4.4", f"codec {codec}")
    if len(encoded) >= d:
        raise Malformed("compressed body is not shorter")
    return p.zstd_decode(encoded, d) if codec == 1 else p.lz4_decode(encoded, d)


# ---------------------------------------------------------------- nodes (section 8)


@dataclass
class Entry:
    """One entry of a directory; `path` is filled in by whoever knows the directory."""

    name: bytes
    kind: int
    mode: int
    mtime_ns: int
    uid: int = 0
    gid: int = 0
    user: bytes = b""
    group: bytes = b""
    size: int | None = None
    target: bytes | None = None
    device: tuple[int, int] | None = None
    link_group: bytes | None = None
    marks: int = 0
    content_id: bytes | None = None
    content_at: Location | None = None
    content_in: int = 0  # archive numbers, in archives of kind 2
    node_id: bytes | None = None
    node_at: Location | None = None
    node_in: int = 0
    xattr_id: bytes | None = None
    xattr_at: Location | None = None
    xattr_in: int = 0
    xattrs: list[tuple[bytes, bytes]] | None = None
    path: bytes = b""

    @property
    def has_content(self) -> bool:
        return self.kind == FILE and bool(self.size) and not self.marks & UNREADABLE


@dataclass
class Leaf:
    partial: bool
    entries: list[Entry]
    path: bytes


@dataclass
class Inner:
    firsts: list[bytes]
    counts: list[int]
    ids: list[bytes]
    places: list[Location]
    path: bytes
    archives: list[int]


class Part(NamedTuple):
    length: int
    id: bytes | None  # None: a hole
    at: Location | None
    archive: int = 0


@dataclass
class PartLeaf:
    total: int
    parts: list[Part]


@dataclass
class PartInner:
    total: int
    lengths: list[int]
    ids: list[bytes]
    places: list[Location]
    archives: list[int]


@dataclass
class Node:
    id: bytes
    type: int
    what: Leaf | Inner | PartLeaf | PartInner | None  # None: a type that is not known


def split(raw: bytes, size: int, count: int) -> list[bytes]:
    if len(raw) != size * count:
        raise Malformed(f"{len(raw)} bytes where {count} times {size} belong")
    return [raw[i : i + size] for i in range(0, len(raw), size)]


def _places(hints: Map, key: int, count: int) -> list[Location]:
    blocks = p.delta_column(p.is_bytes(need(hints, key)), count, as_signed=False)
    pieces = p.column(p.is_bytes(need(hints, key + 1)), count)
    return list(zip(blocks, pieces, strict=False))


def _optional_places(hints: Map, key: int, count: int) -> list[Location]:
    present(hints, key, count > 0)
    present(hints, key + 1, count > 0)
    return _places(hints, key, count) if count else []


def _check_name(name: bytes) -> None:
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise Malformed("name that is not allowed")
    if len(name) > MAX_NAME:
        raise Malformed(f"name of {len(name)} bytes")


def _names(raw: bytes, count: int) -> list[bytes]:
    if count == 0:
        if raw:
            raise Malformed("names of no entries")
        return []
    names = raw.split(b"\0")
    if len(names) != count:
        raise Malformed("number of names differs from that of entries")
    for name in names:
        _check_name(name)
    if not p.ascending(names):
        raise Malformed("names are not strictly ascending")
    return names


def _count(rows: int) -> int:
    if rows > MAX_ENTRIES:
        refuse("limit", "14", f"node of {rows} entries, children or parts")
    return rows


ARCHIVES = {1: 8, 3: 9, 5: 10}  # which hint has the archive numbers to which places


def _numbers(hints: Map, key: int, count: int, vault: bool) -> list[int]:
    """Archive numbers to the places in `key` (vault.md, section 5.1)."""
    there = present(hints, ARCHIVES[key], vault and count > 0)
    return p.column(p.is_bytes(hints[ARCHIVES[key]]), count) if there else [0] * count


def _path_hint(hints: Map, vault: bool) -> bytes:
    if vault:
        present(hints, 7, False)
        return b""
    path = p.is_bytes(need(hints, 7))
    for name in path.split(b"/") if path else []:
        _check_name(name)
    return path


def parse_node(piece: bytes, *, vault: bool = False) -> Node:
    """`vault`: it stands in an archive of kind 2."""
    if len(piece) < 4:
        raise Malformed("node is cut off")
    n = int.from_bytes(piece[:4], "little")
    if n > len(piece) - 4:
        raise Malformed("logical record is longer than the node")
    logical = p.cbor_map(piece[4 : 4 + n])
    hints = p.cbor_map(piece[4 + n :])
    kind = p.is_uint(need(logical, 1))
    what: Leaf | Inner | PartLeaf | PartInner | None = None
    if kind in (1, 5):
        if vault and kind == 5:
            raise Malformed("a partial directory in an archive of kind 2")
        what = _directory_leaf(logical, hints, partial=kind == 5, vault=vault)
    elif kind == 2:
        count = _count(p.is_uint(need(logical, 2), 1))
        what = Inner(
            _names(p.is_bytes(need(logical, 3)), count),
            p.column(p.is_bytes(need(logical, 4)), count),
            split(p.is_bytes(need(logical, 5)), 32, count),
            _places(hints, 1, count),
            _path_hint(hints, vault),
            _numbers(hints, 1, count, vault),
        )
        if 0 in what.counts:
            raise Malformed("inner node with an empty child")
    elif kind == 3:
        what = _part_leaf(logical, hints, vault)
    elif kind == 4:
        lengths = p.column(p.is_bytes(need(logical, 3)))
        _count(len(lengths))
        ids = split(p.is_bytes(need(logical, 4)), 32, len(lengths))
        places, numbers = _places(hints, 1, len(lengths)), _numbers(hints, 1, len(lengths), vault)
        what = PartInner(p.is_uint(need(logical, 2)), lengths, ids, places, numbers)
        if not lengths or 0 in lengths or sum(lengths) != what.total:
            raise Malformed("lengths of the sub-tables do not add up")
    return Node(p.h(piece[4 : 4 + n]), kind, what)


def _numbered(record: Map, key: int, count: int) -> list[tuple[int, p.Value]]:
    """`[entry number, value]` pairs, strictly ascending; absent if there are none."""
    if key not in record:
        return []
    rows = []
    last = -1
    for row in p.is_array(record[key]):
        number, value = p.is_array(row, 2)
        last = p.is_uint(number, last + 1, count - 1)
        rows.append((last, value))
    if not rows:
        raise Malformed(f"key {key} is empty")
    return rows


def _directory_leaf(logical: Map, hints: Map, *, partial: bool, vault: bool) -> Leaf:
    count = _count(p.is_uint(need(logical, 2)))
    names = _names(p.is_bytes(need(logical, 3)), count)
    kinds = p.is_bytes(need(logical, 4), count)
    modes = [int.from_bytes(m, "little") for m in split(p.is_bytes(need(logical, 5)), 2, count)]
    times = p.delta_column(p.is_bytes(need(logical, 6)), count, as_signed=True)
    if any(not 1 <= kind <= 7 for kind in kinds):
        raise Malformed("unknown kind of entry")
    if any(mode > 0o7777 for mode in modes):
        raise Malformed("mode above 0o7777")
    entries = [Entry(*row) for row in zip(names, kinds, modes, times, strict=False)]
    _owners(logical, entries)

    def these(*wanted: int) -> list[Entry]:
        return [entry for entry in entries if entry.kind in wanted]

    files, directories = these(FILE), these(DIRECTORY)
    if present(logical, 9, bool(files)):
        for entry, size in zip(files, p.column(p.is_bytes(logical[9]), len(files)), strict=False):
            entry.size = size
    if present(logical, 12, bool(these(SYMLINK))):
        targets = p.is_array(logical[12], len(these(SYMLINK)))
        for entry, target in zip(these(SYMLINK), targets, strict=False):
            entry.target = p.is_bytes(target)
    if present(logical, 13, bool(these(CHARACTER, DEVICE))):
        devices = p.is_array(logical[13], len(these(CHARACTER, DEVICE)))
        for entry, device in zip(these(CHARACTER, DEVICE), devices, strict=False):
            major, minor = p.is_array(device, 2)
            entry.device = (p.is_uint(major), p.is_uint(minor))
    for number, group in _numbered(logical, 14, count):
        entries[number].link_group = p.is_bytes(group, 16)
    for number, marks in _numbered(logical, 16, count):
        entries[number].marks = p.is_uint(marks, 1)

    filled = [entry for entry in files if entry.has_content]
    if present(logical, 10, bool(filled) and not partial):
        for entry, raw in zip(filled, split(p.is_bytes(logical[10]), 32, len(filled)), strict=False):
            entry.content_id = raw
    if present(logical, 11, bool(directories) and not partial):
        for entry, raw in zip(directories, split(p.is_bytes(logical[11]), 32, len(directories)), strict=False):
            entry.node_id = raw
    if partial:
        present(logical, 15, False)
    with_xattrs = []
    for number, value in _numbered(logical, 15, count):
        entries[number].xattr_id = p.is_bytes(value, 32)
        with_xattrs.append(entries[number])

    for entry, at in zip(filled, _optional_places(hints, 1, len(filled)), strict=False):
        entry.content_at = at
    for entry, at in zip(directories, _optional_places(hints, 3, 0 if partial else len(directories)), strict=False):
        entry.node_at = at
    for entry, at in zip(with_xattrs, _optional_places(hints, 5, len(with_xattrs)), strict=False):
        entry.xattr_at = at
    for entry, number in zip(filled, _numbers(hints, 1, len(filled), vault), strict=True):
        entry.content_in = number
    for entry, number in zip(directories, _numbers(hints, 3, len(directories), vault), strict=True):
        entry.node_in = number
    for entry, number in zip(with_xattrs, _numbers(hints, 5, len(with_xattrs), vault), strict=True):
        entry.xattr_in = number
    return Leaf(partial, entries, _path_hint(hints, vault))


def _owners(logical: Map, entries: list[Entry]) -> None:
    rows: list[tuple[int, int, bytes, bytes]] = []
    if present(logical, 7, bool(entries)):
        for row in p.is_array(logical[7]):
            uid, gid, user, group = p.is_array(row, 4)
            high = 2**32 - 1
            rows.append((p.is_uint(uid, 0, high), p.is_uint(gid, 0, high), p.is_bytes(user), p.is_bytes(group)))
        if not rows or len(set(rows)) != len(rows):
            raise Malformed("owners are empty or not unique")
    numbers = [0] * len(entries)
    if present(logical, 8, len(rows) > 1):
        numbers = p.column(p.is_bytes(logical[8]), len(entries))
    seen = 0
    for entry, number in zip(entries, numbers, strict=False):
        if number > seen or number >= len(rows):
            raise Malformed("owners are not in order of first use")
        seen = max(seen, number + 1)
        entry.uid, entry.gid, entry.user, entry.group = rows[number]
    if seen != len(rows):
        raise Malformed("owner that no entry uses")


def _part_leaf(logical: Map, hints: Map, vault: bool) -> PartLeaf:
    total = p.is_uint(need(logical, 2))
    lengths = p.column(p.is_bytes(need(logical, 3)))
    _count(len(lengths))
    if not lengths or 0 in lengths or sum(lengths) != total:
        raise Malformed("lengths of the parts do not add up")
    holes: set[int] = set()
    if 5 in logical:
        last = 0
        for delta in p.column(p.is_bytes(logical[5])):
            last += delta
            if last in holes or last >= len(lengths):
                raise Malformed("numbers of the holes are not ascending, or too big")
            if last - 1 in holes:
                raise Malformed("two neighbouring parts are holes")
            holes.add(last)
        if not holes:
            raise Malformed("key 5 is empty")
    stored = len(lengths) - len(holes)
    found = split(p.is_bytes(logical[4]), 32, stored) if present(logical, 4, stored > 0) else []
    ids = iter(found)
    places = iter(_optional_places(hints, 1, stored))
    archives = iter(_numbers(hints, 1, stored, vault))
    parts = [
        Part(length, None, None) if number in holes else Part(length, next(ids), next(places), next(archives))
        for number, length in enumerate(lengths)
    ]
    return PartLeaf(total, parts)


def parse_xattrs(piece: bytes) -> list[tuple[bytes, bytes]]:
    pairs = []
    rows = p.is_array(p.cbor(piece))
    if len(rows) > 16_384:
        refuse("limit", "14", f"{len(rows)} extended attributes")
    for row in rows:
        name, value = p.is_array(row, 2)
        pairs.append((p.is_bytes(name), p.is_bytes(value)))
    if not pairs or not p.ascending([name for name, _ in pairs]):
        raise Malformed("extended attributes are empty, or not ascending")
    return pairs


# ---------------------------------------------------------------- index (section 9)

KEY_SIZE = {1: 8, 2: 16, 3: 8}


@dataclass
class IndexLeaf:
    kind: int
    count: int
    first_key: bytes
    rows: list[tuple[bytes, int, int]]  # kinds 1 and 2: (prefix or hash, block, piece)
    blocks: list[tuple[bytes, bytes, int]]  # kind 3: (type, whole hash, stored length)
    first_seq: int
    first_offset: int


@dataclass
class IndexRoot:
    first_seq: int
    first_offset: int
    kinds: bytes
    lengths: list[int]
    hashes: list[bytes]
    first_keys: list[bytes]
    counts: list[int]
    directory: tuple[bytes, Location] | None
    totals: tuple[int, int] | None


def parse_index_leaf(kind: int, block: Block) -> IndexLeaf:
    count = p.is_uint(need(block.record, 17))
    for key in (18, 19):
        present(block.record, key, kind == 3)
    body = block.body
    size = {1: 8, 2: 16, 3: 36}[kind] * count
    if len(body) < size:
        raise Malformed("index leaf is cut off")
    if kind == 3:
        types, hashes = split(body[: 4 * count], 4, count), split(body[4 * count : size], 32, count)
        blocks = list(zip(types, hashes, p.column(body[size:], count), strict=False))
        first_seq, first_offset = p.is_uint(need(block.record, 18)), p.is_uint(need(block.record, 19))
        return IndexLeaf(kind, count, first_seq.to_bytes(8, "big"), [], blocks, first_seq, first_offset)
    numbers = p.column(body[size:], 2 * count)
    keys = split(body[:size], KEY_SIZE[kind], count)
    rows = list(zip(keys, numbers[:count], numbers[count:], strict=False))
    if not p.ascending(rows):
        raise Malformed("index leaf is not sorted")
    if kind == 2 and len(set(keys)) != count:
        raise Malformed("path hash twice")
    return IndexLeaf(kind, count, keys[0], rows, [], 0, 0)


def parse_index_root(header: Header, block: Block) -> IndexRoot:
    for key in (17, 18, 19):
        present(block.record, key, False)
    record = p.cbor_map(block.body)
    kinds = p.is_bytes(need(record, 3))
    if any(kind not in KEY_SIZE for kind in kinds) or bytes(sorted(kinds)) != kinds:
        raise Malformed("kinds of the leaves are unknown or out of order")
    joined = p.is_bytes(need(record, 6))
    first_keys, at = [], 0
    for kind in kinds:
        first_keys.append(joined[at : at + KEY_SIZE[kind]])
        at += KEY_SIZE[kind]
    if at != len(joined):
        raise Malformed("first keys have the wrong length")
    root = IndexRoot(
        p.is_uint(need(record, 1)),
        p.is_uint(need(record, 2)),
        kinds,
        p.column(p.is_bytes(need(record, 4)), len(kinds)),
        split(p.is_bytes(need(record, 5)), 32, len(kinds)),
        first_keys,
        p.column(p.is_bytes(need(record, 7)), len(kinds)),
        None,
        None,
    )
    present(record, 8, header.kind == 3)
    present(record, 9, header.kind == 3)
    if header.kind == 3:
        node_id, seq, piece = p.is_array(record[8], 3)
        root.directory = (p.is_bytes(node_id, 32), (p.is_uint(seq), p.is_uint(piece)))
        entries, size = p.is_array(record[9], 2)
        root.totals = (p.is_uint(entries), p.is_uint(size))
    return root


# ---------------------------------------------------------------- FOOT and tail (section 10)


@dataclass
class Foot:
    offset: int
    seq: int
    root: tuple[int, int, int, bytes]  # sequence number, offset, length, whole hash
    chain: bytes
    header_section: bytes


def parse_foot(frame: Frame) -> Foot:
    with place("index", "10"):
        record = record_of(frame.header_section, 1)
        for key in (1, 2, 3, 4):
            present(record, key, False)
        seq, offset, length, whole = p.is_array(need(record, 18), 4)
        return Foot(
            p.is_uint(need(record, 16)),
            p.is_uint(need(record, 17)),
            (p.is_uint(seq), p.is_uint(offset), p.is_uint(length), p.is_bytes(whole, 32)),
            p.is_bytes(need(record, 19), 32),
            p.is_bytes(need(record, 20)),
        )


def check_foot(header: Header, keys: Keys | None, identities: Identities, frame: Frame, foot: Foot) -> str:
    """What can be checked of FOOT without the blocks before it. Returns the status of the signature."""
    if (foot.offset, foot.seq) != (frame.offset, frame.seq):
        refuse("index", "10", "FOOT contradicts its own place")
    if foot.header_section != header.section:
        refuse("index", "10", "copy of the header section differs")
    if len(frame.body_section) not in (64, 128):
        refuse("index", "10", f"body of FOOT of {len(frame.body_section)} bytes")
    mac_i, mac_s = frame.body_section[:32], frame.body_section[32:64]
    signature = frame.body_section[64:]
    if header.suite == 0:
        if any(mac_i) or any(mac_s):
            refuse("index", "10", "MACs of FOOT are not zero in suite 0")
    elif keys is not None:
        if not p.same(p.mac(p.kdf("foot mac I", keys.i), frame.header_hash), mac_i):
            refuse("index", "10", "FMAC_I does not fit")
        if keys.s is not None and not p.same(p.mac(p.kdf("foot mac S", keys.s), frame.header_hash), mac_s):
            refuse("index", "10", "FMAC_S does not fit")
    if bool(signature) != (header.signer is not None):
        refuse("signature", "10", "signature is missing, or there without a signer")
    if header.kind != 4 and identities.verify_key is not None and header.signer != identities.verify_key:
        refuse("signature", "10", "not the signer that was demanded")
    if header.signer is None:
        return "none"
    message = b"rozenfmt v0 signature" + header.archive_id + header.digest + frame.header_hash
    if not p.ed25519_strict(header.signer, signature, message):
        refuse("signature", "10", "signature does not verify")
    return "valid"


def tail_of(foot: Frame, header_digest: bytes) -> bytes:
    """The only right tail behind a FOOT block."""
    numbers = struct.pack("<QQQ", foot.offset, foot.length, foot.offset + foot.length + 64)
    return numbers + p.h(numbers + header_digest) + END_MAGIC
