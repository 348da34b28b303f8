"""Archives with one fault each, made by somebody who holds the keys, so that nothing else is wrong."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

import cbor2

from rozenfmt.format import cbor, crypto, nodes
from rozenfmt.format.nodes import Entry, InnerNode, Kind
from rozenfmt.format.varint import encode_column, encode_deltas
from spec.vectors.maker import BROWSER, READER, SIGNER, STRANGER, Hook, Maker
from spec.vectors.positive import (
    BROWSE,
    VECTORS,
    Other,
    Vector,
    directory_of,
    empty,
    file,
    folder,
    inner,
    partial,
    small,
    sub_tables,
)

ORDER = 2**252 + 27742317777372353535851937790883648493
IDENTITY = b"\x01" + bytes(31)
BASE = bytes.fromhex("5866666666666666666666666666666666666666666666666666666666666666")


def flip(value: bytes, at: int = 0) -> bytes:
    """One bit of a byte turned."""
    at %= len(value)
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


def put(number: int, value: Any) -> Hook:
    """Give a key of a map another value."""
    return lambda record: {**record, number: value}


def drop(number: int) -> Hook:
    """Leave a key of a map out."""
    return lambda record: {k: v for k, v in record.items() if k != number}


def edit(number: int, change: Hook) -> Hook:
    """Change a key's value."""
    return lambda record: {**record, number: change(record[number])}


def prefix(**values: Any) -> Hook:
    """Change fields of a prefix."""
    return lambda fields: {**fields, **values}


def first(change: Hook) -> Hook:
    """Change the first value only, of several that pass a hook."""
    seen: list[int] = []

    def hook(value: Any) -> Any:
        seen.append(0)
        return change(value) if len(seen) == 1 else value

    return hook


def row(number: int, change: Callable[..., Any]) -> Hook:
    """Change one item of a list."""
    return lambda rows: [*rows[:number], change(rows[number]), *rows[number + 1 :]]


def bad(  # noqa: PLR0917 -- a table of vectors is easier to read
    name: str,
    expected: str,
    keyless: str,
    stop: str,
    clause: str,
    description: str,
    hooks: dict[str, Hook] | None = None,
    *,
    base: Callable[[Maker], Maker] = small,
    browse: str = "",
    vector: dict[str, Any] | None = None,
    stop_keyless: str | None = None,
    **options: Any,
) -> None:
    """Register a negative vector."""

    def build() -> Vector:
        maker = base(Maker(name, hooks=hooks, **options))
        more = dict(vector or {})
        more.setdefault("identities", [READER] if maker.suite else [])
        if browse:
            right = None if browse in ("header", "limit", "unsupported", "key", "no-recipient") else "browse"
            more["others"] = [Other(browse, [BROWSER], right=right)]
        right = None if stop == "start" else "read"
        more.setdefault("right", right)
        more.setdefault("stop_keyless", stop_keyless or stop)
        return Vector(description, expected, clause, [maker], expected=expected, keyless=keyless, stop=stop, **more)

    VECTORS[name] = build


# --- header, versions, recipients ---------------------------------------------------------------


def header(
    name: str, clause: str, description: str, hooks: dict[str, Hook], *, failure: str = "header", **more: Any
) -> None:
    """A fault that every reader finds in the header."""
    more.setdefault("base", empty)
    bad(name, failure, more.pop("keyless", failure), "start", clause, description, hooks, **more)


def pairs(record: dict[int, Any], extra: bytes = b"") -> bytes:
    """A map's pairs, without the head."""
    return b"".join(cbor.dumps(k) + cbor.dumps(v) for k, v in sorted(record.items())) + extra


def noncanonical(record: dict[int, Any]) -> bytes:
    """A map whose first key is longer than it need be."""
    raw = pairs(record)
    assert raw[0] < 24
    return bytes([0xA0 | len(record), 0x18, raw[0]]) + raw[1:]


def doubled(record: dict[int, Any]) -> bytes:
    """A map with its last key twice."""
    last = max(record)
    return bytes([0xA0 | len(record) + 1]) + pairs(record, cbor.dumps(last) + cbor.dumps(record[last]))


def stanza(number: int, change: Hook) -> dict[str, Hook]:
    """Change one stanza."""
    return {"stanzas": row(number, change)}


header("header-magic", "3", "one byte of the magic is wrong", {"lead": flip})
header("header-digest", "3", "the header digest is wrong", {"header_digest": flip})
header("header-not-shortest", "1.1", "a key that is not in its shortest form", {"header": noncanonical})
header("header-key-twice", "1.1", "a key that stands twice", {"header": doubled})
header(
    "header-tag",
    "1.1",
    "a value with a CBOR tag",
    {"header": lambda r: bytes([0xA0 | len(r) + 1]) + pairs(r, b"\x18\x32\xc2\x41\x01")},
)
header("header-bytes-behind", "1.1", "a byte follows the record", {"header": lambda r: cbor.dumps(r) + b"\x00"})
header("header-not-a-map", "3", "the record is an array", {"header": lambda _: cbor.dumps([1, 2])})
header("header-key-missing", "3", "the creator is missing", {"header": drop(6)})
header("header-kind-5", "3", "kind 5", {"header": put(2, 5)})
header("header-features-unsorted", "3", "features that are not ascending", {"header": put(4, [2, 1])})
header("header-volume", "3", "key 12 without feature 1", {"header": put(12, bytes(16))})
header("header-padding-0", "3", "a bucket of 0", {"header": put(5, [64, 0, 64])})
header("header-commitment-missing", "3", "no commitment to S", {"header": drop(7)})
header("header-no-stanzas", "3", "an empty array of stanzas", {"stanzas": lambda _: []})
header("header-stanza-length", "7", "a stanza of 79 bytes", stanza(0, lambda s: [*s[:2], s[2][:-1]]))
header("header-right-3", "7", "a stanza with right 3", stanza(1, lambda s: [s[0], 3, s[2]]))
header("header-plain-macs", "3", "header MACs that are not zero in suite 0", {"header_macs": flip}, suite=0)
header("header-plain-padding", "3", "padding in suite 0", {"header": put(5, [1, 1, 2])}, suite=0)
header("header-plain-stanzas", "3", "stanzas in suite 0", {"header": put(9, [[1000, 1, b""]])}, suite=0)
header("header-sealed-directory", "3", "a directory archive with suite 1", {"header": put(2, 4)})


def _beside() -> Vector:
    name = "header-passphrase-beside"
    m = Maker(name)
    two = Maker(name, hooks={"stanzas": lambda s: [*s, [2, 1, m.passphrase_stanza("x")]]})
    return Vector(
        "a passphrase stanza beside others",
        "header",
        "7",
        [empty(two)],
        "header",
        "header",
        right=None,
        stop="start",
        stop_keyless="start",
    )


VECTORS["header-passphrase-beside"] = _beside
header(
    "header-small-order",
    "7",
    "a stanza whose public key gives an all-zero secret: refused by a reader that tries it",
    stanza(0, lambda s: [*s[:2], bytes(32) + s[2][32:]]),
    keyless="success",
    stop_keyless="end",
)
header("unsupported-minor", "3", "version 0.2", {"lead": lambda x: x[:10] + b"\x02" + x[11:]}, failure="unsupported")
header("unsupported-major", "3", "version 1.1", {"lead": lambda x: x[:8] + b"\x01" + x[9:]}, failure="unsupported")
header("unsupported-suite", "3", "suite 9", {"header": put(3, 9)}, failure="unsupported")
header("unsupported-feature", "3", "required feature 3", {"header": put(4, [3])}, failure="unsupported")
header("unsupported-id-key", "3", "id key 1 in kind 3", {"header": put(11, 1)}, failure="unsupported")
header("limit-header-0", "3", "a header record of 0 bytes", {"lead": lambda x: x[:12] + bytes(4)}, failure="limit")
header(
    "limit-header",
    "14",
    "a header record of 98,305 bytes",
    {"lead": lambda x: x[:12] + struct.pack("<I", 98_305)},
    failure="limit",
)
header("limit-stanzas", "14", "65 stanzas", {"stanzas": lambda s: [*s, *[[1000, 1, b""]] * 63]}, failure="limit")
header("limit-creator", "14", "a creator of 65 bytes", {"header": put(6, "x" * 65)}, failure="limit")
for _name, _at, _value in (("t-0", 16, 0), ("t-17", 16, 17), ("m-7", 20, 7), ("m-big", 20, 1_048_577)):
    header(
        f"limit-argon2-{_name}",
        "7",
        f"Argon2id with {_name[0]} = {_value}",
        {
            "stanzas": lambda s, at=_at, value=_value: [  # type: ignore[misc]
                [2, 1, s[0][2][:at] + struct.pack("<I", value) + s[0][2][at + 4 :]]
            ]
        },
        failure="limit",
        passphrase="x",
        vector={"identities": [], "passphrases": ["x"]},
    )


def _recipient(name: str, description: str, options: dict[str, Any], vector: dict[str, Any]) -> None:
    vector = {"right": None, **vector}
    bad(
        name,
        "no-recipient",
        "success",
        "start",
        "7",
        description,
        base=empty,
        vector=vector,
        stop_keyless="end",
        **options,
    )


_recipient("no-recipient", "another key", {}, {"identities": [STRANGER]})
_recipient(
    "no-recipient-passphrase",
    "another passphrase",
    {"passphrase": "right"},
    {"identities": [], "passphrases": ["wrong"]},
)
_recipient(
    "no-recipient-moved",
    "a browse stanza that is passed off as a read stanza",
    {"hooks": {"stanzas": lambda s: [[1, 1, s[1][2]]]}},
    {"identities": [BROWSER]},
)
_recipient(
    "no-recipient-unknown",
    "only stanzas of unknown types",
    {"hooks": {"stanzas": lambda _: [[1000, 1, bytes(80)], [3, 1, bytes(10)]]}},
    {},
)


def _key(name: str, clause: str, description: str, hooks: dict[str, Hook], browse: str) -> None:
    bad(name, "key", "success", "start", clause, description, hooks, base=empty, browse=browse, stop_keyless="end")


_key("key-commitment-s", "6.1", "a wrong commitment to S", {"header": edit(7, flip)}, "success")
_key("key-commitment-i", "6.1", "a wrong commitment to I", {"header": edit(8, flip)}, "key")
_key("key-mac-i", "6.1", "a wrong MAC_I", {"header_macs": flip}, "key")
_key("key-mac-s", "6.1", "a wrong MAC_S", {"header_macs": lambda m: flip(m, 32)}, "success")


def _other_secret() -> Vector:
    name = "key-other-secret"
    m = Maker(name)
    wrong = m.stanza(1, READER, bytes(32))
    two = Maker(name, hooks={"stanzas": lambda s: [[1, 1, wrong], *s]})
    return Vector(
        "the first stanza that opens wraps another secret; a right one follows",
        "key",
        "7",
        [empty(two)],
        "key",
        right=None,
        stop="start",
        others=[BROWSE],
    )


VECTORS["key-other-secret"] = _other_secret
bad(
    "unsupported-plain",
    "unsupported",
    "success",
    "start",
    "3",
    "a plain archive where a key was given",
    base=empty,
    suite=0,
    vector={"identities": [READER], "right": None},
    stop_keyless="end",
)

# --- frames --------------------------------------------------------------------------------------


def _extra(m: Maker, kind: str) -> Maker:
    m.pack(b"a content")
    m.block(kind, {}, b"body", codec="stored")
    node, one = m.directory(b"", [])
    tree = m.tree(node)
    m.place(b"", tree, 0)
    m.finish((one, tree, 0))
    return m


def _late(m: Maker) -> Maker:
    root = m.foot
    m.foot = lambda: (m.block("xtst", {}), root())[1]  # type: ignore[method-assign]
    return empty(m)


def _no_index(m: Maker) -> Maker:
    m.block("xtst", {})
    m.foot()
    return m


def frame(
    name: str, clause: str, description: str, hooks: dict[str, Hook], stop: str, failure: str = "block", **more: Any
) -> None:
    """A fault that every reader finds in a block."""
    more.setdefault("browse", failure)
    bad(name, failure, failure, stop, clause, description, hooks, **more)
    if failure in ("limit", "unsupported"):
        _right(name)


def _right(name: str) -> None:
    """Limits and unknown numbers behind the header leave the right known."""
    build = VECTORS[name]

    def again() -> Vector:
        vector = build()
        for other in vector.others:
            other.right = "browse"
        return vector

    VECTORS[name] = again


def _spliced(parts: list[bytes]) -> list[bytes]:
    return [*parts[:3], small(Maker("another archive")).blocks[2].frame, *parts[4:]]


frame("block-sync", "4.1", "a wrong sync marker", {"prefix:PACK:0": prefix(sync=bytes(8))}, "PACK:0")
frame("block-archive-id", "4.1", "another archive id", {"prefix:PACK:0": prefix(id=bytes(16))}, "PACK:0")
frame("block-spliced", "4.1", "a block of another archive", {"parts": _spliced}, "PACK:0")
frame("block-swapped", "4.1", "two blocks change places", {"parts": lambda p: [*p[:2], p[3], p[2], *p[4:]]}, "FCNT:0")
frame("block-doubled", "4.1", "a block stands twice", {"parts": lambda p: [*p[:4], p[3], *p[4:]]}, "FCNT:1")
frame("block-removed", "4.1", "a block is missing", {"parts": lambda p: [*p[:3], *p[4:]]}, "PACK:0")
frame("block-sequence", "4.1", "a wrong sequence number", {"prefix:PACK:0": prefix(sequence=7)}, "PACK:0")
frame("block-header-hash", "4.1", "a wrong header hash", {"header_hash:PACK:0": flip}, "PACK:0")
frame("block-whole-hash", "4.1", "a wrong whole hash", {"whole:PACK:0": flip}, "PACK:0")
frame(
    "block-type-digits",
    "4.1",
    "a type that is not four letters",
    {"prefix:xtst:0": prefix(type=b"x-12")},
    "xtst:0",
    base=lambda m: _extra(m, "xtst"),
)
frame("block-mac-missing", "4.2", "a block under I without its MAC", {"prefix:TREE:0": prefix(flags=0)}, "TREE:0")
frame("block-mac-unwanted", "4.2", "a block under C with a MAC", {"prefix:PACK:0": prefix(flags=1)}, "PACK:0")
frame(
    "block-mac-plain",
    "4.1",
    "an unknown ancillary block with a MAC flag in suite 0",
    {"prefix:xtst:0": prefix(flags=1)},
    "xtst:0",
    base=lambda m: _extra(m, "xtst"),
    suite=0,
    browse="",
)
frame(
    "block-wrong-kind",
    "4.2",
    "a type that has no place in this kind of archive",
    {},
    "DIRY:0",
    base=lambda m: _extra(m, "DIRY"),
)
frame("block-tree-in-data", "4.2", "TREE in an archive of kind 1", {"header": put(2, 1)}, "TREE:0", base=empty)
frame("block-after-index", "5", "an ancillary block between INDX and FOOT", {}, "xtst:0", base=_late)
frame("block-no-index", "5", "FOOT without an index", {}, "FOOT:0", base=_no_index)
frame(
    "unsupported-type", "4.1", "an unknown critical type", {}, "Xtst:0", "unsupported", base=lambda m: _extra(m, "Xtst")
)
frame("unsupported-flag", "4.1", "critical flag bit 1", {"prefix:PACK:0": prefix(flags=2)}, "PACK:0", "unsupported")
frame(
    "unsupported-flag-15",
    "4.1",
    "critical flag bit 15 of an ancillary block",
    {"prefix:ckpt:0": prefix(flags=0x8001)},
    "ckpt:0",
    "unsupported",
)
frame("limit-a", "14", "a header section of 1,048,641 bytes", {"prefix:PACK:0": prefix(a=1_048_641)}, "PACK:0", "limit")
frame("limit-b", "14", "a body section of 16,842,793 bytes", {"prefix:PACK:0": prefix(b=16_842_793)}, "PACK:0", "limit")


# --- sections: found by whoever opens them -------------------------------------------------------


def sealed(
    name: str,
    clause: str,
    description: str,
    hooks: dict[str, Hook],
    stop: str,
    failure: str = "block",
    *,
    browse: str = "success",
    **more: Any,
) -> None:
    """A fault that only a reader with S finds, or with I too."""
    bad(name, failure, "success", stop, clause, description, hooks, browse=browse, stop_keyless="end", **more)
    if failure in ("limit", "unsupported"):
        _right(name)


ZERO = {1: 0, 2: 1, 3: 1, 4: bytes(32)}
sealed(
    "block-header-aead",
    "4.2",
    "a header section that does not open",
    {"header_section:PACK:0": lambda s: flip(s, 30)},
    "PACK:0",
)
sealed(
    "block-body-aead",
    "4.2",
    "a body section that does not open",
    {"body_section:PACK:0": lambda s: flip(s, 30)},
    "PACK:0",
)
sealed(
    "block-body-aead-2",
    "4.2",
    "a body section that does not open, suite 2",
    {"body_section:PACK:0": lambda s: flip(s, -1)},
    "PACK:0",
    suite=2,
)
sealed(
    "block-tree-aead",
    "4.2",
    "a body under I that does not open",
    {"body_section:TREE:0": lambda s: flip(s, 30)},
    "TREE:0",
    browse="block",
)
sealed(
    "block-forged", "6.1", "a block made with I alone: its MAC is wrong", {"mac:TREE:0": lambda _: bytes(32)}, "TREE:0"
)
sealed("block-forged-index", "6.1", "an index made with I alone", {"mac:INDX:0": lambda _: bytes(32)}, "INDX:0")
sealed("block-forged-start", "6.1", "a block without a body made with I alone", {"mac:FHDR:0": flip}, "FHDR:0")
sealed(
    "block-header-padding",
    "4.3",
    "header padding that is not zero",
    {"header_plain:PACK:0": lambda p: p[:-1] + b"\x01"},
    "PACK:0",
    padding=(128, 128, 64),
)
sealed(
    "block-header-bucket",
    "4.3",
    "a header padded by a bucket too many",
    {"header_plain:PACK:0": lambda p: p + bytes(64)},
    "PACK:0",
)
sealed(
    "block-header-unpadded",
    "4.3",
    "a header that is not padded",
    {"header_plain:PACK:0": lambda p: p.rstrip(b"\0") + b"\0" * 0},
    "PACK:0",
    padding=(256, 128, 64),
)
sealed(
    "block-body-padding",
    "4.3",
    "body padding that is not zero",
    {"body_plain:PACK:0": lambda p: p[:-1] + b"\x01"},
    "PACK:0",
)
sealed(
    "block-body-bucket",
    "4.3",
    "a body padded by a bucket too many",
    {"body_plain:PACK:0": lambda p: p + bytes(128)},
    "PACK:0",
)
sealed(
    "block-body-bucket-o",
    "4.3",
    "a body under I padded to the wrong bucket",
    {"body_plain:TREE:0": lambda p: p + bytes(-len(p) % 4096)},
    "TREE:0",
    browse="block",
)
sealed(
    "block-record-length",
    "4.2",
    "a record longer than the header plaintext",
    {"header_plain:PACK:0": lambda p: b"\xff\xff\xff\xff" + p[4:]},
    "PACK:0",
)
sealed(
    "block-record-form", "1.1", "a record that is not in its one encoding", {"record:PACK:0": noncanonical}, "PACK:0"
)
sealed("block-record-twice", "1.1", "a record with a key twice", {"record:FHDR:0": doubled}, "FHDR:0", browse="block")
sealed(
    "block-record-deep", "1.1", "a record nested nine deep", {"record:PACK:0": put(1000, [[[[[[[[1]]]]]]]])}, "PACK:0"
)
sealed("block-key-4", "4.4", "no content hash", {"record:PACK:0": drop(4)}, "PACK:0")
sealed(
    "block-keys-without-body",
    "4.4",
    "keys 1 to 4 without a body",
    {"record:FHDR:0": lambda r: {**ZERO, **r}},
    "FHDR:0",
    browse="block",
)
sealed("block-body-missing", "4.4", "PACK without a body", {"body:PACK:0": lambda _: b""}, "PACK:0")
sealed(
    "block-stored-length",
    "4.4",
    "codec 0 with e other than d",
    {"record:PACK:0": edit(3, lambda e: e - 1)},
    "PACK:0",
    codec="stored",
)
sealed(
    "block-d",
    "4.4",
    "codec 0 with d other than e",
    {"record:PACK:0": edit(2, lambda d: d + 1)},
    "PACK:0",
    codec="stored",
)
sealed("block-content-hash", "4.4", "a wrong content hash", {"record:PACK:0": edit(4, flip)}, "PACK:0")
sealed(
    "block-pieces-sum",
    "4.5",
    "pieces that do not add up",
    {"record:PACK:0": put(16, encode_column([13, 119]))},
    "PACK:0",
)
sealed(
    "block-piece-empty", "4.5", "a piece of no bytes", {"record:PACK:0": put(16, encode_column([13, 120, 0]))}, "PACK:0"
)
sealed(
    "block-pieces-varint",
    "1",
    "a piece's length that is not in its shortest form",
    {"record:PACK:0": put(16, b"\x8d\x00\x78")},
    "PACK:0",
)
sealed(
    "block-pieces-cut", "1", "a column that ends inside a number", {"record:PACK:0": put(16, b"\x0d\x78\x80")}, "PACK:0"
)
sealed("unsupported-codec", "4.4", "codec 7", {"record:PACK:0": put(1, 7)}, "PACK:0", "unsupported")
sealed("limit-d", "14", "a decoded body of 16,777,217 bytes", {"record:PACK:0": put(2, 16_777_217)}, "PACK:0", "limit")
sealed(
    "limit-hint",
    "14",
    "a path hint of 65,536 bytes",
    {"record:FHDR:0": put(17, bytes(65_536))},
    "FHDR:0",
    "limit",
    browse="limit",
)
sealed(
    "limit-media-type",
    "14",
    "a media type of 256 bytes",
    {"record:FHDR:0": put(19, "x" * 256)},
    "FHDR:0",
    "limit",
    browse="limit",
)
sealed(
    "limit-index-leaf",
    "14",
    "an index leaf that says it has 65,537 entries",
    {"record:INDX:0": put(17, 65_537)},
    "INDX:0",
    "limit",
    browse="limit",
)


def _many_pieces(m: Maker) -> Maker:
    m.pack(b"first")
    m.block("PACK", {16: b"\x01" * 65_537}, bytes(65_537))
    return _end(m)


def _many_streams(m: Maker) -> Maker:
    for _ in range(1_025):
        m.stream()
    return _end(m)


def _end(m: Maker) -> Maker:
    node, one = m.directory(b"", [])
    tree = m.tree(node)
    m.place(b"", tree, 0)
    m.finish((one, tree, 0))
    return m


sealed("limit-pieces", "14", "65,537 pieces in a block", {}, "PACK:1", "limit", base=_many_pieces)
bad(
    "limit-streams",
    "limit",
    "limit",
    "FHDR:1024",
    "14",
    "1,025 open streams",
    base=_many_streams,
    suite=0,
    codec="stored",
)

# --- codecs --------------------------------------------------------------------------------------

ZSTD = bytes.fromhex("28b52ffd")
RLE = struct.pack("<I", 1 | 1 << 1 | 133 << 3)[:3]


def body(name: str, description: str, number: int, encoded: bytes, clause: str = "4.4") -> None:
    """133 bytes of ``z``, encoded in a way of its own."""
    hooks: dict[str, Hook] = {"body:PACK:0": lambda _: b"z" * 133, "encoded:PACK:0": lambda _: (number, encoded)}
    sealed(name, clause, description, hooks, "PACK:0")


FRAME = ZSTD + b"\x20" + bytes([133]) + RLE + b"z"  # a good one
EMPTY = ZSTD + b"\x20\x00\x01\x00\x00"
body("block-zstd-two", "two zstd frames, of which the second is empty", 1, FRAME + EMPTY)
body("block-zstd-behind", "a byte behind the zstd frame", 1, FRAME + b"\x00")
body("block-zstd-skippable", "a skippable frame before the zstd frame", 1, bytes.fromhex("502a4d1800000000") + FRAME)
body("block-zstd-no-size", "a zstd frame without its content size", 1, ZSTD + b"\x00\x58" + RLE + b"z")
body("block-zstd-size", "a zstd frame with another content size", 1, ZSTD + b"\x20" + bytes([132]) + RLE + b"z")
body(
    "block-zstd-short",
    "a zstd frame that gives fewer bytes than it says",
    1,
    ZSTD + b"\x20" + bytes([133]) + struct.pack("<I", 3 | 132 << 3)[:3] + b"z",
)
body("block-zstd-dictionary", "a zstd frame that needs a dictionary", 1, ZSTD + b"\x21\x05" + bytes([133]) + RLE + b"z")
body("block-zstd-cut", "a zstd frame that is cut off", 1, FRAME[:-1])
body(
    "block-zstd-checksum",
    "a zstd frame with a wrong checksum",
    1,
    ZSTD + b"\x24" + bytes([133]) + RLE + b"z" + bytes(4),
)
body(
    "block-zstd-long",
    "a zstd frame longer than the body",
    1,
    ZSTD + b"\x20" + bytes([133]) + struct.pack("<I", 1 | 133 << 3)[:3] + b"z" * 133,
)
body("block-lz4-offset", "an lz4 block that refers to what lies before its beginning", 2, b"\x1fz\x02\x00\x6b\x50zzzzz")
body("block-lz4-cut", "an lz4 block that is cut off", 2, b"\x1fz\x01\x00")
body("block-lz4-long", "an lz4 block that gives a byte too many", 2, b"\x1fz\x01\x00\x6d\x50zzzzz")
body("block-lz4-short", "an lz4 block that gives a byte too few", 2, b"\x1fz\x01\x00\x6b\x50zzzzz")
sealed(
    "block-zstd-window",
    "4.4",
    "a zstd window of 32 MiB",
    {
        "body:PACK:0": lambda _: b"z" * 300,
        "encoded:PACK:0": lambda _: (
            1,
            ZSTD + b"\x40\x78" + struct.pack("<H", 44) + struct.pack("<I", 3 | 300 << 3)[:3] + b"z",
        ),
    },
    "PACK:0",
)

# --- streams -------------------------------------------------------------------------------------

sealed(
    "stream-number", "5.1", "FHDR with a number out of turn", {"record:FHDR:0": put(16, 1)}, "FHDR:0", browse="block"
)
sealed("stream-not-open", "5.1", "FCNT of a stream without FHDR", {"record:FCNT:0": put(17, 5)}, "FCNT:0")
sealed("stream-gap", "5.1", "a number of FCNT is left out", {"record:FCNT:1": put(18, 2)}, "FCNT:1")
sealed("stream-overlap", "5.1", "FCNT before the end of the previous one", {"record:FCNT:1": put(19, 6)}, "FCNT:1")
sealed("stream-too-long", "5.1", "a stream that ends at 2^63", {"record:FCNT:1": put(19, 2**63 - 4)}, "FCNT:1")
sealed(
    "stream-end-number",
    "5.1",
    "FEND of a stream that is not open",
    {"record:FEND:0": put(16, 1)},
    "FEND:0",
    browse="block",
)
sealed("stream-end-count", "5.1", "FEND with a wrong number of blocks", {"record:FEND:0": put(18, 3)}, "FEND:0")
sealed(
    "stream-end-total",
    "8.3",
    "FEND whose length is not that of its table",
    {"record:FEND:0": put(17, 71)},
    "FEND:0",
    browse="block",
)
sealed(
    "stream-id",
    "6.2",
    "a content id of the stream that is wrong everywhere",
    {"stream_id": flip, "entries": lambda e: [_with(e[0], content_id=flip(e[0].content_id)), *e[1:]]},
    "end",
)


def _with(entry: Entry, **values: Any) -> Entry:
    for name, value in values.items():
        setattr(entry, name, value)
    return entry


def _short(logical: dict[int, Any]) -> dict[int, Any]:
    """The table of a stream whose length is below the end of its last FCNT."""
    return {**logical, 2: 59, 3: encode_column([3, 4, 48, 4])} | {5: encode_column([2])}


def _after_end(m: Maker) -> Maker:
    stream = m.stream()
    m.write(stream, b"abc")
    m.close(stream)
    m.write(stream, b"def")
    return _end(m)


sealed(
    "stream-end-short",
    "5.1",
    "FEND with a length below the end of the last FCNT",
    {"record:FEND:0": put(17, 59), "logical:table": _short},
    "FEND:0",
)
sealed("stream-closed", "5.1", "FCNT behind FEND", {}, "FCNT:1", base=_after_end)
sealed("table-part-id", "8.3", "a part table with a wrong id", {"logical:table": edit(4, flip)}, "end")
sealed(
    "table-lengths",
    "8.3",
    "a part table whose first two parts have other lengths",
    {"logical:table": put(3, encode_column([4, 3, 53, 4, 6]))},
    "end",
)
sealed(
    "table-sum",
    "8.3",
    "a part table that does not add up",
    {"logical:table": put(3, encode_column([3, 4, 53, 4, 7]))},
    "FEND:0",
    browse="block",
)
sealed(
    "table-place", "8.3", "a part table with a wrong place", {"hints:table": put(2, encode_column([0, 1, 1]))}, "end"
)
sealed(
    "table-part-0",
    "8.3",
    "a part of length 0",
    {"logical:table": put(3, encode_column([3, 4, 0, 57, 6]))},
    "FEND:0",
    browse="block",
)
sealed(
    "table-hole-late",
    "8.3",
    "a hole with a number out of range",
    {"logical:table": put(5, encode_column([2, 3]))},
    "FEND:0",
    browse="block",
)
sealed(
    "table-ids-missing",
    "8.3",
    "a part table with an id too few",
    {"logical:table": edit(4, lambda ids: ids[32:])},
    "FEND:0",
    browse="block",
)
sealed(
    "table-holes",
    "8.3",
    "two neighbouring holes",
    {"logical:table": lambda t: {**t, 3: encode_column([3, 4, 50, 3, 4, 6]), 5: encode_column([2, 1, 2])}},
    "FEND:0",
    browse="block",
)
sealed(
    "table-wrong-type",
    "8.3",
    "FEND with a directory's node",
    {"body:FEND:0": lambda _: _leaf_bytes()},
    "FEND:0",
    browse="block",
)
sealed(
    "table-sub-id",
    "8.3",
    "a wrong id of a sub-table",
    {"logical:table": edit(4, flip)},
    "end",
    base=sub_tables,
    browse="block",
)
sealed(
    "table-sub-place",
    "8.3",
    "a wrong place of a sub-table",
    {"hints:table": put(2, encode_column([0, 1, 1]))},
    "end",
    base=sub_tables,
    browse="block",
)
sealed(
    "table-sub-length",
    "8.3",
    "a sub-table that covers another length",
    {"logical:table": edit(3, lambda c: bytes([c[0] + 1, c[1] - 1, c[2]]))},
    "end",
    base=sub_tables,
    browse="block",
)
sealed(
    "table-unknown-type",
    "8",
    "FEND with a node of unknown type",
    {"logical:table": put(1, 77)},
    "FEND:0",
    "unsupported",
    browse="unsupported",
)


def _leaf_bytes() -> bytes:
    return nodes.join_node(nodes.directory_record([]), nodes.directory_hints(b""))


# --- nodes ---------------------------------------------------------------------------------------


def node(name: str, clause: str, description: str, hooks: dict[str, Hook], **more: Any) -> None:
    """A node that does not obey section 8 by itself: found when its block is taken."""
    more.setdefault("stop", "end")  # nothing is released behind TREE anyway
    sealed(
        name,
        clause,
        description,
        hooks,
        more.pop("stop"),
        more.pop("failure", "block"),
        browse=more.pop("browse", "block"),
        **more,
    )


def names(change: Hook) -> dict[str, Hook]:
    """Change the names of the root."""
    return {"logical:": edit(3, change)}


node("node-name-dotdot", "8.1", "a name that is two dots", {"logical:sub": put(3, b"..")})
node("node-name-dot", "8.1", "a name that is a dot", {"logical:sub": put(3, b".")})
node("node-name-slash", "8.1", "a name with a slash", {"logical:sub": put(3, b"../../etc/passwd")})
node("node-name-empty", "8.1", "an empty name", {"logical:sub": put(3, b"")})
node("node-name-long", "14", "a name of 65,536 bytes", {"logical:sub": put(3, b"n" * 65_536)})
node("node-names-unsorted", "8.1", "names out of order", names(lambda n: n.replace(b"link", b"zink")))
node("node-names-doubled", "8.1", "a name that stands twice", names(lambda n: n.replace(b"link", b"hello")))
node("node-names-count", "8.1", "a name more than the count says", names(lambda n: n + b"\0zz"))
node("node-kind", "8.1", "an entry of kind 8", {"logical:": edit(4, lambda k: k[:2] + b"\x08" + k[3:])})
node("node-mode", "8.1", "a mode above 0o7777", {"logical:sub": put(5, b"\x00\x10")})
node("node-modes-length", "8.1", "modes of one entry too many", {"logical:sub": put(5, b"\xa4\x01\xa4\x01")})
node("node-times-length", "8.1", "a modification time too few", {"logical:": put(6, encode_deltas([1, 2, 3]))})
node("node-varint", "1", "a size that is not in its shortest form", {"logical:sub": put(9, b"\xf8\x80\x00")})
node("node-varint-65", "1", "a size of 2^64", {"logical:sub": put(9, b"\x80" * 9 + b"\x02")})
node(
    "node-owners-order",
    "8.1",
    "owners that are not in order of first use",
    {"logical:": lambda r: {**r, 7: r[7][::-1], 8: bytes(1 - x for x in r[8])}},
)
node("node-owners-doubled", "8.1", "an owner that stands twice", {"logical:": lambda r: {**r, 7: [r[7][0], r[7][0]]}})
node("node-owners-column", "8.1", "a column of owners where there is one only", {"logical:sub": put(8, b"\x00")})
node("node-owner-unused", "8.1", "an owner that no entry uses", {"logical:": edit(7, lambda o: [*o, [7, 7, b"", b""]])})
node("node-sizes-missing", "8.1", "no sizes though there are files", {"logical:": drop(9)})
node("node-ids-missing", "8.1", "a content id too few", {"logical:": edit(10, lambda ids: ids[32:])})
node("node-targets", "8.1", "two targets of one symlink", {"logical:": put(12, [b"a", b"b"])})
node("node-devices", "8.1", "a device's numbers without a device", {"logical:": put(13, [[1, 2]])})
node("node-marks-order", "8.1", "marks out of order", {"logical:": put(16, [[1, 1], [0, 4]])})
node("node-marks-0", "8.1", "marks of 0", {"logical:": put(16, [[0, 0]])})
node("node-marks-number", "8.1", "marks of an entry that is not there", {"logical:": put(16, [[4, 1]])})
node("node-hints-missing", "8.1", "no place of a content", {"hints:sub": lambda h: {7: h[7]}})
node("node-path-missing", "8.1", "no path", {"hints:sub": drop(7)})
node(
    "node-length",
    "8",
    "a logical record longer than the node",
    {"pieces": lambda p: [b"\xff\xff\xff\x7f" + p[0][4:], p[1]]},
)
node(
    "node-partial-ids",
    "8.1",
    "a partial directory with content ids",
    {"logical:partial": put(10, bytes(32))},
    base=partial,
    stop="PACK:1",
)
node(
    "inner-empty",
    "8.2",
    "an inner node that counts no entries below a child",
    {"logical:inner 0": put(4, encode_column([0, 4]))},
    base=inner,
)
node(
    "inner-count",
    "8.2",
    "an inner node that counts wrongly",
    {"logical:inner 0": put(4, encode_column([1, 3]))},
    base=inner,
)
node(
    "inner-first-name",
    "8.2",
    "an inner node with another first name of a child",
    {"logical:inner 0": edit(3, lambda n: n.replace(b"file 2", b"file 1x"))},
    base=inner,
)
node(
    "inner-child-id", "8.2", "an inner node with a wrong id of a child", {"logical:inner 2": edit(5, flip)}, base=inner
)


def _overlap(m: Maker) -> Maker:
    """Two leaves whose names run into each other."""
    places = m.pack(b"a", b"b", b"c", b"d")
    entries = [file(name, m, name, places[n]) for n, name in enumerate((b"a", b"b", b"c", b"d"))]
    m.note(b"", entries)
    leaves = [m.leaf(b"", [entries[0], entries[2]]), m.leaf(b"", [entries[1], entries[3]])]
    tree = m.tree(*(x for x, _ in leaves))
    top = m.inner(b"", [InnerNode(b"a", 2, leaves[0][1], tree, 0), InnerNode(b"b", 2, leaves[1][1], tree, 1)])
    m.place(b"", m.tree(top[0]), 0)
    m.finish((top[1], tree + 1, 0))
    return m


def _deep(m: Maker) -> Maker:
    """Nine inner nodes on top of each other."""
    m.note(b"", [entry := Entry(b"x", Kind.FIFO)])
    pieces = [m.leaf(b"", [entry])]
    for level in range(9):
        pieces.append(m.inner(b"", [InnerNode(b"x", 1, pieces[-1][1], 0, level)]))
    m.tree(*(x for x, _ in pieces))
    m.place(b"", 0, 9)
    m.finish((pieces[-1][1], 0, 9))
    return m


node("inner-overlap", "8.2", "names of a child run into the next child's", {}, base=_overlap)
node("limit-inner", "14", "inner nodes nine deep", {}, base=_deep, failure="limit", browse="limit")
node(
    "limit-node",
    "14",
    "a node that says it has 65,537 entries",
    {"logical:sub": put(2, 65_537)},
    failure="limit",
    browse="limit",
)
sealed(
    "limit-parts",
    "14",
    "a part table of 65,537 parts",
    {"logical:table": lambda t: {**t, 3: b"\x01" * 65_537}},
    "FEND:0",
    "limit",
    browse="limit",
)
node(
    "node-child-id", "8", "a wrong id of a child", {"entries": lambda e: [*e[:3], _with(e[3], child=flip(e[3].child))]}
)
node(
    "node-child-place", "8", "a child's place that is no node's", {"entries": lambda e: [*e[:3], _with(e[3], piece=5)]}
)
node(
    "node-child-itself", "5", "a directory that is its own child", {"entries": lambda e: [*e[:3], _with(e[3], piece=1)]}
)
node("node-child-block", "8", "a child's place in a PACK", {"entries": lambda e: [*e[:3], _with(e[3], block=2)]})
node(
    "node-content-place",
    "8",
    "a content's place that is no piece's",
    {"entries": lambda e: [e[0], _with(e[1], piece=2), *e[2:]]},
    browse="",
)
node(
    "node-content-block",
    "8",
    "a content's place in a block behind the node",
    {"entries": lambda e: [e[0], _with(e[1], block=99), *e[2:]]},
)
node(
    "node-content-trex",
    "8",
    "a content's place in a TREX",
    {"entries": lambda e: [e[0], _with(e[1], block=5), *e[2:]]},
    browse="",
)
node(
    "node-content-id",
    "8",
    "a wrong content id",
    {"entries": lambda e: [e[0], _with(e[1], content_id=flip(e[1].content_id)), *e[2:]]},
    browse="",
)
node(
    "node-content-other",
    "8",
    "the id of one content at the place of another",
    {"entries": lambda e: [e[0], _with(e[1], piece=1), *e[2:]]},
    browse="",
)
node(
    "node-size",
    "8",
    "a size that is not the content's",
    {"entries": lambda e: [e[0], _with(e[1], size=14), *e[2:]]},
    browse="",
)
node(
    "node-stream-size",
    "8",
    "a size that is not the stream's",
    {"entries": lambda e: [_with(e[0], size=71), *e[1:]]},
    browse="",
)
node(
    "node-stream-piece",
    "8.1",
    "a piece other than 0 of a FEND",
    {"entries": lambda e: [_with(e[0], piece=1), *e[1:]]},
    browse="",
)
node(
    "node-trex-id",
    "8",
    "a wrong id of attributes",
    {"entries": lambda e: [e[0], _with(e[1], xattr_ref=(bytes(32), *e[1].xattr_ref[1:])), *e[2:]]},
    browse="",
)
node(
    "node-trex-place",
    "8",
    "a wrong place of attributes",
    {"entries": lambda e: [e[0], _with(e[1], xattr_ref=(*e[1].xattr_ref[:2], 1)), *e[2:]]},
    browse="",
)
node("node-path", "8", "a path that is not the directory's", {"hints:sub": put(7, b"bus")})
node("node-path-root", "8", "a path of the root", {"hints:": put(7, b"root")})


def _shared(m: Maker) -> Maker:
    """Two directories with one node."""
    below, one = m.directory(b"a", [Entry(b"fifo", Kind.FIFO)])
    m.note(b"b", [Entry(b"fifo", Kind.FIFO)])
    tree = len(m.blocks)
    root = m.directory(b"", [folder(b"a", one, (tree, 0)), folder(b"b", one, (tree, 0))])
    m.tree(below, root[0])
    m.place(b"a", tree, 0)
    m.place(b"", tree, 1)
    m.finish((root[1], tree, 1))
    return m


def _forward(m: Maker) -> Maker:
    """A node before what it refers to."""
    below = m.directory(b"a", [Entry(b"fifo", Kind.FIFO)])
    root = m.directory(b"", [folder(b"a", below[1], (0, 1))])
    m.tree(root[0], below[0])
    m.place(b"a", 0, 1)
    m.place(b"", 0, 0)
    m.finish((root[1], 0, 0))
    return m


def _orphan(m: Maker) -> Maker:
    """A directory that nothing refers to; the path look-up lists it."""
    orphan = m.leaf(b"orphan", [])
    root = m.directory(b"", [])
    m.tree(orphan[0], root[0])
    m.place(b"orphan", 0, 0)
    m.place(b"", 0, 1)
    m.finish((root[1], 0, 1))
    return m


def _strange(m: Maker) -> Maker:
    """A directory's node is of a type that is not known."""
    strange = m.node("strange", {1: 9}, {7: b"a"})
    root = m.directory(b"", [folder(b"a", strange[1], (0, 0))])
    m.tree(strange[0], root[0])
    m.place(b"a", 0, 0)
    m.place(b"", 0, 1)
    m.finish((root[1], 0, 1))
    return m


node("node-orphan", "8", "a directory's node that nothing refers to, but the path look-up lists", {}, base=_orphan)
node(
    "node-orphan-unlisted",
    "8",
    "a directory's node that nothing refers to",
    {"paths": lambda r: [x for x in r if x[2]]},
    base=_orphan,
)
node("node-shared", "8", "two directories with one node", {}, base=_shared)
node("node-forward", "5", "a node before what it refers to", {}, base=_forward)
node(
    "unsupported-node",
    "8",
    "a reference to a node of unknown type",
    {},
    base=_strange,
    failure="unsupported",
    browse="unsupported",
)
sealed(
    "attributes-unsorted",
    "5.4",
    "attributes out of order",
    {"attributes": lambda a: cbor.dumps(cbor2.loads(a)[::-1])},
    "TREX:0",
)
sealed("attributes-empty", "5.4", "a set of no attributes", {"attributes": lambda _: cbor.dumps([])}, "TREX:0")
sealed(
    "checkpoint-first", "5.5", "a checkpoint that begins later", {"record:ckpt:0": put(16, 1)}, "ckpt:0", browse="block"
)
sealed(
    "checkpoint-previous",
    "5.5",
    "the first checkpoint with a previous one",
    {"record:ckpt:0": put(18, 0)},
    "ckpt:0",
    browse="block",
)
sealed(
    "checkpoint-itself",
    "5.5",
    "a checkpoint that lists itself",
    {
        "record:ckpt:0": put(17, 7),
        "body:ckpt:0": lambda b: cbor.dumps({1: cbor2.loads(b)[1] + b"ckpt", 2: cbor2.loads(b)[2] + b"\x01"}),
    },
    "ckpt:0",
    browse="block",
)
sealed(
    "checkpoint-column",
    "5.5",
    "a checkpoint with a type too few",
    {"body:ckpt:0": lambda b: cbor.dumps({**cbor2.loads(b), 1: cbor2.loads(b)[1][4:]})},
    "ckpt:0",
    browse="block",
)
sealed(
    "checkpoint-length",
    "5.5",
    "a checkpoint with a wrong length of a block",
    {"body:ckpt:0": lambda b: cbor.dumps({**cbor2.loads(b), 2: encode_column([1] * 6)})},
    "ckpt:0",
    browse="block",
)

# --- index ---------------------------------------------------------------------------------------


def index(name: str, clause: str, description: str, hooks: dict[str, Hook], **more: Any) -> None:
    """A fault of the index."""
    browse = more.pop("browse", "index")
    sealed(name, clause, description, hooks, "end", more.pop("failure", "index"), browse=browse, **more)


def swap(rows: list[Any]) -> list[Any]:
    """The first two rows change places."""
    return [rows[1], rows[0], *rows[2:]]


index("index-row-missing", "9", "a row of the content look-up is missing", {"look-up": lambda r: r[1:]}, browse="")
index(
    "index-row-extra",
    "9",
    "a row too many in the content look-up",
    {"look-up": lambda r: sorted([*r, (bytes(8), 2, 0)])},
    browse="",
)
index(
    "index-row-wrong",
    "9",
    "a wrong prefix in the content look-up",
    {"look-up": row(0, lambda x: (bytes(8), *x[1:]))},
    browse="",
)
index(
    "index-row-piece",
    "9",
    "a wrong piece in the content look-up",
    {"look-up": lambda r: [(x[0], x[1], 9 if x[1:] == (2, 1) else x[2]) for x in r]},
    browse="",
)
index("index-unsorted", "9", "the content look-up is not sorted", {"look-up": swap})
index("index-unsorted-leaves", "9", "leaves of the content look-up are not in order", {"look-up": swap}, leaf_entries=1)
index("index-path-missing", "9", "a row of the path look-up is missing", {"paths": lambda r: r[1:]})
index("index-path-wrong", "9", "a wrong hash in the path look-up", {"paths": row(0, lambda x: (bytes(16), *x[1:]))})
index(
    "index-path-place", "9", "a wrong place in the path look-up", {"paths": lambda r: [(x[0], 7, 1 - x[2]) for x in r]}
)
index("index-path-unsorted", "9", "the path look-up is not sorted", {"paths": swap})
index(
    "index-path-twice",
    "9",
    "a hash of the path look-up stands twice",
    {"paths": lambda r: [r[0], (r[0][0], 99, 0), *r[1:]]},
)
index(
    "index-table-hash",
    "9",
    "a wrong hash in the block table",
    {"block-table": row(2, lambda x: (x[0], flip(x[1]), x[2]))},
)
index("index-table-type", "9", "a wrong type in the block table", {"block-table": row(2, lambda x: (b"FCNT", *x[1:]))})
index(
    "index-table-length", "9", "wrong lengths in the block table", {"block-table": row(2, lambda x: (*x[:2], x[2] + 1))}
)
index("index-table-missing", "9", "a block is missing in the block table", {"block-table": lambda r: r[:-1]})
index("index-table-first", "9", "a block table that begins later", {"record:INDX:2": put(18, 1)})
index("index-table-offset", "9", "a block table with another offset", {"record:INDX:2": edit(19, lambda x: x + 1)})
index("index-leaf-count", "9", "a leaf shorter than its count", {"record:INDX:0": put(17, 60)})
index("index-leaf-behind", "9", "a byte behind a leaf's columns", {"body:INDX:0": lambda b: b + b"\x00"})
index("index-leaf-count-missing", "9", "a leaf without its count", {"record:INDX:0": drop(17)})
index("index-leaf-keys", "9", "a look-up leaf with key 18", {"record:INDX:0": put(18, 0)})
index("index-kind", "9", "index kind 5", {"record:INDX:0": put(16, 5)}, failure="block", browse="block")
index("index-root-hash", "9", "a wrong hash of a leaf in the root", {"root": edit(5, flip)})
index(
    "index-root-lengths",
    "9",
    "wrong lengths of leaves in the root",
    {"root": put(4, encode_column([1, 2, 3]))},
)
index("index-root-keys", "9", "a wrong first key in the root", {"root": edit(6, flip)})
index("index-root-counts", "9", "wrong counts of entries in the root", {"root": put(7, encode_column([6, 2, 9]))})
index(
    "index-root-kinds",
    "9",
    "wrong kinds of leaves in the root",
    {"root": lambda r: {**r, 3: b"\x01\x01\x03", 6: r[6][:8] + r[6][8:16] + r[6][24:]}},
)
index("index-root-first", "9", "a wrong number of the first INDX block", {"root": edit(1, lambda x: x + 1)})
index("index-root-offset", "9", "a wrong offset of the first INDX block", {"root": edit(2, lambda x: x + 1)})
index("index-root-form", "1.1", "a root with its last key twice", {"body:INDX:3": lambda b: doubled(cbor2.loads(b))})
index("index-root-missing", "9", "a root without the root directory", {"root": drop(8)})
index(
    "index-root-directory", "9", "a wrong id of the root directory", {"root": edit(8, lambda x: [flip(x[0]), *x[1:]])}
)
index("index-root-place", "9", "a wrong place of the root directory", {"root": edit(8, lambda x: [*x[:2], 0])})
index("index-totals", "9", "a wrong number of entries", {"root": edit(9, lambda x: [x[0] + 1, x[1]])})
index("index-totals-bytes", "9", "a wrong number of bytes", {"root": edit(9, lambda x: [x[0], x[1] + 1])})

# --- footer and tail -----------------------------------------------------------------------------


def foot(name: str, description: str, hooks: dict[str, Hook], failure: str = "index", **more: Any) -> None:
    """A fault of the footer or the tail, which every reader finds."""
    more.setdefault("browse", failure)
    bad(name, failure, failure, "end", more.pop("clause", "10"), description, hooks, **more)


def on_foot(number: int, change: Hook) -> dict[str, Hook]:
    """Change the footer's record."""
    return {"record:FOOT:0": edit(number, change)}


foot("foot-offset", "a wrong offset of the footer", on_foot(16, lambda x: x + 1))
foot("foot-count", "a wrong number of blocks", on_foot(17, lambda x: x + 1))
foot("foot-root", "a wrong hash of the index root", on_foot(18, lambda x: [*x[:3], flip(x[3])]))
foot("foot-root-place", "a wrong offset of the index root", on_foot(18, lambda x: [x[0], x[1] - 1, *x[2:]]))
foot("foot-chain", "a wrong chain", on_foot(19, flip))
foot("foot-header", "a copy of the header that differs", on_foot(20, lambda x: flip(x, 60)))
foot("foot-key-1", "a footer with key 1", {"record:FOOT:0": put(1, 0)})
foot("foot-key-missing", "a footer without its chain", {"record:FOOT:0": drop(19)})
foot("foot-form", "a footer's record with a key twice", {"record:FOOT:0": doubled}, clause="1.1")
foot("foot-padding", "a footer's header with bytes behind its record", {"header_plain:FOOT:0": lambda p: p + b"\0"})
foot("foot-body", "a footer's body of 63 bytes", {"foot_macs": lambda m: m[:-1]})
foot("foot-plain-macs", "MACs in the footer of a plain archive", {"foot_macs": flip}, suite=0, browse="")
bad("foot-mac-i", "index", "success", "end", "10", "a wrong FMAC_I", {"foot_macs": flip}, browse="index")
bad(
    "foot-mac-s",
    "index",
    "success",
    "end",
    "10",
    "a footer made with I alone: FMAC_S is wrong",
    {"foot_macs": lambda m: flip(m, 32)},
    browse="success",
)
foot("tail-offset", "a wrong offset in the tail", {"tail_numbers": flip})
foot("tail-length", "a wrong length in the tail", {"tail_numbers": lambda n: flip(n, 8)})
foot("tail-total", "a wrong total in the tail", {"tail_numbers": lambda n: flip(n, 16)})
foot("tail-hash", "a wrong hash in the tail", {"tail": lambda t: flip(t, 24)})
foot("tail-magic", "a wrong end magic", {"tail": lambda t: flip(t, -1)})

# --- cut off, continued --------------------------------------------------------------------------


def cut(name: str, description: str, where: Callable[[Maker, bytes], int], stop: str) -> None:
    """An archive that ends early."""

    def build() -> Vector:
        maker = small(Maker(name))
        end = where(maker, maker.data)
        right = "read" if end >= len(maker.header) else None
        others = [Other("truncated", [BROWSER], right="browse" if right else None)]
        return Vector(
            description,
            "truncated",
            "11",
            [maker],
            "truncated",
            "truncated",
            right=right,
            stop=stop,
            others=others,
            change=lambda d: d[:end],
        )

    VECTORS[name] = build


cut("truncated-empty", "no bytes at all", lambda *_: 0, "start")
cut("truncated-magic", "five bytes of the magic", lambda *_: 5, "start")
cut("truncated-preamble", "ends in the preamble", lambda *_: 47, "start")
cut("truncated-header", "ends in the header", lambda *_: 200, "start")
cut("truncated-before-block", "ends behind the header", lambda m, _: len(m.header), "start")
cut("truncated-prefix", "ends in a block's prefix", lambda m, _: m.blocks[2].offset + 51, "PACK:0")
cut("truncated-block", "ends in a block", lambda m, _: m.blocks[3].offset - 1, "PACK:0")
cut("truncated-index", "ends before the index", lambda m, _: m.blocks[8].offset, "end")
cut("truncated-before-foot", "ends before the footer", lambda m, _: m.blocks[-1].offset, "end")
cut("truncated-in-foot", "ends in the footer", lambda m, _: m.blocks[-1].offset + 100, "end")
cut("truncated-before-tail", "ends before the tail", lambda _, d: len(d) - 64, "end")
cut("truncated-tail", "ends in the tail", lambda _, d: len(d) - 1, "end")


def behind(name: str, failure: str, description: str, junk: bytes) -> None:
    """Something behind the tail."""

    def build() -> Vector:
        maker = small(Maker(name))
        others = [Other(failure, [BROWSER], right="browse")]
        return Vector(
            description,
            failure,
            "11",
            [maker],
            failure,
            failure,
            right="read",
            others=others,
            change=lambda d: d + junk,
        )

    VECTORS[name] = build


behind("header-junk", "header", "junk behind the tail", b"junk")
behind("header-zero", "header", "one zero byte behind the tail", b"\0")
behind(
    "truncated-second", "truncated", "the beginning of another preamble behind the tail", bytes.fromhex("89525A4E0D")
)


def _member(
    name: str, expected: str, description: str, broken: Callable[[str], Maker], keyless: str, **more: Any
) -> None:
    def build() -> Vector:
        makers = [small(Maker(f"{name} 0")), broken(f"{name} 1")]
        return Vector(description, expected, "2", makers, expected, keyless, **more)

    VECTORS[name] = build


_member(
    "joined-stranger",
    "no-recipient",
    "a joined object with a member for somebody else",
    lambda name: empty(Maker(name, recipients=[(1, STRANGER)])),
    "success",
    right=None,
    stop="start",
)
_member(
    "joined-damaged",
    "block",
    "a joined object whose second member is damaged",
    lambda name: small(Maker(name, hooks={"whole:PACK:0": flip})),
    "block",
    stop="PACK:0",
)


def _joined(name: str, description: str, hooks: dict[str, Hook], clause: str = "5.6", failure: str = "block") -> None:
    def build() -> Vector:
        members = [small(Maker(f"{name} 0")), empty(Maker(f"{name} 1"))]
        return Vector(
            description, failure, clause, [*members, directory_of(f"{name} 2", members, hooks)], failure, failure
        )

    VECTORS[name] = build


_joined("joined-order", "a directory whose rows are not ascending", {"members": lambda r: r[::-1]})
_joined("joined-form", "a directory with an id of 15 bytes", {"members": row(0, lambda x: [x[0][:15], *x[1:]])})


def _no_directory() -> Vector:
    m = Maker("joined-no-directory", suite=0, kind=4, codec="stored")
    m.block("xtst", {})
    m.finish()
    return Vector("a directory archive without its DIRY", "block", "5", [m], "block", "block", identities=[])


VECTORS["joined-no-directory"] = _no_directory


def _two_directories() -> Vector:
    m = Maker("joined-two-directories", suite=0, kind=4, codec="stored")
    m.block("DIRY", {}, cbor.dumps({1: []}))
    m.block("DIRY", {}, cbor.dumps({1: []}))
    m.finish()
    return Vector("a directory archive with two DIRY", "block", "5", [m], "block", "block", identities=[])


VECTORS["joined-two-directories"] = _two_directories

# --- signatures ----------------------------------------------------------------------------------


def signature(name: str, description: str, hooks: dict[str, Hook], **more: Any) -> None:
    """A signature that no reader accepts."""
    more.setdefault("signed", True)
    foot(name, description, hooks, "signature", base=empty, **more)


def _scalar() -> int:
    raw = bytearray(hashlib.sha512(SIGNER).digest()[:32])
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return int.from_bytes(raw, "little")


def _small_r(value: tuple[bytes, bytes]) -> bytes:
    """A signature with R the neutral point, for which the equation holds."""
    challenge = hashlib.sha512(IDENTITY + crypto.ed25519_public(SIGNER) + value[1]).digest()
    scalar = int.from_bytes(challenge, "little") * _scalar() % ORDER
    return IDENTITY + scalar.to_bytes(32, "little")


def _high_s(value: tuple[bytes, bytes]) -> bytes:
    scalar = int.from_bytes(value[0][32:], "little") + ORDER
    return value[0][:32] + scalar.to_bytes(32, "little")


signature("signature-flipped", "a bit of the signature is turned", {"signature": lambda v: flip(v[0], 40)})
signature("signature-missing", "a signer, but no signature", {"signature": lambda _: b""})
signature("signature-unexpected", "a signature, but no signer", {"signature": lambda _: bytes(64)}, signed=False)
signature("signature-high-s", "S is not reduced", {"signature": _high_s})
signature("signature-small-r", "R is of small order, and the equation holds", {"signature": _small_r})
signature(
    "signature-small-key",
    "the signer is a point of small order, and the equation holds",
    {"header": put(10, IDENTITY), "signature": lambda _: BASE + b"\x01" + bytes(31)},
)
signature(
    "signature-by-another",
    "a good signature by another key than the header names",
    {"signature": lambda v: crypto.sign(STRANGER, v[1])},
)
_demand = crypto.ed25519_public(STRANGER)
for _name, _signed in (("signature-demanded", True), ("signature-demanded-none", False)):
    bad(
        _name,
        "signature",
        "success",
        "end",
        "10",
        "another signer is demanded" if _signed else "a signer is demanded, and there is none",
        base=empty,
        signed=_signed,
        vector={"verify_key": _demand},
    )

__all__ = ["VECTORS"]
