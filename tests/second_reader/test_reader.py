"""The second reader against archives of a small writer that is made here, from the specification as well.

It shows that the reader agrees with itself, not that it agrees with the main library; the vectors do that.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

import lz4.block  # type: ignore[import-untyped]
import pytest
import zstandard
from Crypto.Cipher import ChaCha20_Poly1305
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from . import model as m
from . import primitives as p
from .reader import open_random, read, salvage

PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
BROWSER = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
PLAIN = m.Identities(allow_plain=True)


def enc(value: p.Value) -> bytes:
    def head(major: int, number: int) -> bytes:
        if number < 24:
            return bytes([major << 5 | number])
        size = next(n for n in range(4) if number < 1 << (8 << n))
        return bytes([major << 5 | 24 + size]) + number.to_bytes(1 << size, "big")

    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(enc, value))
    return head(5, len(value)) + b"".join(enc(k) + enc(value[k]) for k in sorted(value))


def var(*numbers: int) -> bytes:
    out = bytearray()
    for number in numbers:
        rest = number
        while rest > 127:
            out.append(rest & 127 | 128)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def deltas(*numbers: int) -> bytes:
    out, last = [], 0
    for number in numbers:
        out.append(2 * (number - last) if number >= last else -2 * (number - last) - 1)
        last = number
    return var(*out)


class Writer:
    """Hooks: `mangle_record` and `mangle_body` may change what a block says before it is sealed."""

    def __init__(self, suite: int, *, signed: bool = True, kind: int = 3, passphrase: str | None = None) -> None:
        self.suite, self.signed = suite, signed
        self.s = bytes(32) if suite == 0 else os.urandom(32)
        self.id = os.urandom(16)
        self.keys = m.Keys(1, self.s)
        self.padding = (1, 1, 1) if suite == 0 else (32, 64, 16)
        record: p.Map = {
            1: self.id,
            2: kind,
            3: suite,
            4: [],
            5: list(self.padding),
            6: "test",
            11: 0,
            1000: [],
        }
        if suite:
            record[7] = p.kdf("commit S", self.s + self.id)
            record[8] = p.kdf("commit I", self.keys.i + self.id)
            wraps = [(1, PRIVATE, self.s), (2, BROWSER, self.keys.i)]
            stanzas: list[p.Value] = [[1000, 7, b"unknown"]]
            for right, private, key in wraps:
                info = b"rozenfmt v0 stanza" + bytes([right]) + self.id
                stanzas.append([1, right, p._HPKE.encrypt(key, private.public_key(), info)])
            if passphrase is not None:
                stanzas = [[2, 1, self.passphrase_stanza(passphrase)]]
            record[9] = stanzas
        if signed:
            record[10] = SIGNER.public_key().public_bytes_raw()
        raw = enc(record)
        start = m.MAGIC + struct.pack("<HHI", 0, 1, len(raw))
        macs = bytes(64)
        if suite:
            macs = p.mac(p.kdf("header mac I", self.keys.i), start + raw)
            macs += p.mac(p.kdf("header mac S", self.s), start + raw)
        self.digest = self.chain = p.h(start + raw + macs)
        self.section = self.out = start + self.digest + raw + macs
        self.blocks: list[tuple[bytes, int, int, bytes]] = []  # type, offset, length, whole hash

    def passphrase_stanza(self, passphrase: str) -> bytes:
        front = os.urandom(16) + struct.pack("<II", 1, 8)
        nonce = os.urandom(24)
        cipher = ChaCha20_Poly1305.new(key=p.argon2id(passphrase.encode(), front[:16], 1, 8), nonce=nonce)
        cipher.update(b"rozenfmt v0 passphrase\x01" + self.id + front)
        sealed, tag = cipher.encrypt_and_digest(self.s)
        return front + nonce + sealed + tag

    def seal(self, key: bytes, plain: bytes, bucket: int, ad: bytes) -> bytes:
        plain += bytes(-len(plain) % bucket)
        nonce = os.urandom(24)
        if self.suite == 2:
            return nonce + p.xaes_seal(key, nonce, plain, ad)
        cipher = ChaCha20_Poly1305.new(key=key, nonce=nonce)
        cipher.update(ad)
        sealed, tag = cipher.encrypt_and_digest(plain)
        return nonce + sealed + tag

    def mangle_record(self, kind: bytes, record: p.Map) -> p.Map:
        return record

    def mangle_body(self, kind: bytes, record: p.Map, body: bytes) -> bytes:
        return body

    def block(self, kind: bytes, record: p.Map, body: bytes | None = None, codec: int = 0, raw: bytes = b"") -> int:
        under = m.TYPES[kind].under if kind in m.TYPES else ""
        sealed = self.suite != 0 and under != ""
        encoded = b""
        if body is not None:
            body = self.mangle_body(kind, record, body)
            encoded = body
            if codec == 1:
                encoded = zstandard.ZstdCompressor().compress(body)
            if codec == 2:
                encoded = lz4.block.compress(body, store_size=False)
            record = {**record, 1: codec, 2: len(body), 3: len(encoded), 4: p.h(body)}
        plain = enc(self.mangle_record(kind, record))
        plain = struct.pack("<I", len(plain)) + plain
        h_bucket, p_bucket, o_bucket = self.padding
        bucket = p_bucket if kind in (b"PACK", b"FCNT") else o_bucket
        a, b = len(plain), len(encoded or raw)
        if kind == b"FOOT":
            b = 128 if self.signed else 64
        if sealed:
            a += -a % h_bucket + 40
            b += -b % bucket + 40 if body is not None else 0
        flag = int(self.suite != 0 and under == "I")
        prefix = struct.pack("<8s4sI16sQIQ", m.SYNC, kind, flag, self.id, len(self.blocks), a, b)
        key = self.keys.seal_i if under == "I" else self.keys.seal_c or b""
        header = self.seal(key, plain, h_bucket, b"rozenfmt v0 block header" + prefix) if sealed else plain
        hash_ = p.h(prefix + header)
        self.header_hash = hash_
        section = encoded or raw
        if sealed and body is not None:
            section = self.seal(key, encoded, bucket, b"rozenfmt v0 block body" + hash_)
        if kind == b"FOOT":
            section = self.foot_body(hash_)
        whole = prefix + header + hash_ + section
        if flag:
            whole += p.mac(p.kdf("block mac S", self.s), hash_ + section)
        whole += p.h(whole)
        self.blocks.append((kind, len(self.out), len(whole), whole[-32:]))
        self.out += whole
        if kind != b"FOOT":
            self.chain = p.h(self.chain + whole[-32:])
        return len(self.blocks) - 1

    def foot_body(self, hash_: bytes) -> bytes:
        body = bytes(64)
        if self.suite:
            body = p.mac(p.kdf("foot mac I", self.keys.i), hash_) + p.mac(p.kdf("foot mac S", self.s), hash_)
        if self.signed:
            body += SIGNER.sign(b"rozenfmt v0 signature" + self.id + self.digest + hash_)
        return body

    def finish(self, rows: list[tuple[bytes, int, int]], paths: dict[bytes, m.Location], root: p.Map) -> bytes:
        first = len(self.blocks)
        listed = list(self.blocks)
        leaves: list[tuple[int, bytes, int]] = []
        if rows:
            rows.sort()
            body = b"".join(row[0] for row in rows) + var(*(row[1] for row in rows)) + var(*(row[2] for row in rows))
            leaves.append((1, rows[0][0], len(rows)))
            self.block(b"INDX", {16: 1, 17: len(rows)}, body)
        if paths:
            found = sorted((p.mac(self.keys.path_key, path)[:16], *at) for path, at in paths.items())
            body = b"".join(row[0] for row in found) + var(*(r[1] for r in found)) + var(*(r[2] for r in found))
            leaves.append((2, found[0][0], len(found)))
            self.block(b"INDX", {16: 2, 17: len(found)}, body)
        for start in range(0, len(listed), 5):  # more than one leaf
            part = listed[start : start + 5]
            body = b"".join(x[0] for x in part) + b"".join(x[3] for x in part) + var(*(x[2] for x in part))
            leaves.append((3, start.to_bytes(8, "big"), len(part)))
            self.block(b"INDX", {16: 3, 17: len(part), 18: start, 19: part[0][1]}, body)
        offset = self.blocks[first][1]
        record: p.Map = {
            1: first,
            2: offset,
            3: bytes(leaf[0] for leaf in leaves),
            4: var(*(x[2] for x in self.blocks[first:])),
            5: b"".join(x[3] for x in self.blocks[first:]),
            6: b"".join(leaf[1] for leaf in leaves),
            7: var(*(leaf[2] for leaf in leaves)),
            **root,
        }
        self.block(b"INDX", {16: 4}, enc(record))
        _, at, length, whole = self.blocks[-1]
        seq = len(self.blocks)
        foot: p.Map = {
            16: len(self.out),
            17: seq,
            18: [seq - 1, at, length, whole],
            19: self.chain,
            20: self.section,
        }
        self.block(b"FOOT", foot)
        _, at, length, _ = self.blocks[-1]
        numbers = struct.pack("<QQQ", at, length, at + length + 64)
        self.out += numbers + p.h(numbers + self.digest) + m.END_MAGIC
        return self.out


def node(logical: p.Map, hints: p.Map) -> tuple[bytes, bytes]:
    raw = enc(logical)
    return struct.pack("<I", len(raw)) + raw + enc(hints), p.h(raw)


def directory(
    kinds: list[tuple[bytes, int]], path: bytes, more: p.Map, hints: p.Map, kind: int = 1
) -> tuple[bytes, bytes]:
    n = len(kinds)
    logical: p.Map = {
        1: kind,
        2: n,
        3: b"\0".join(name for name, _ in kinds),
        4: bytes(k for _, k in kinds),
        5: struct.pack("<H", 0o644) * n,
        6: deltas(*(10**18 - number * 10**9 for number in range(n))),
        **({7: [[1000, 100, b"user", b""]]} if n else {}),
        **more,
    }
    return node(logical, {7: path, **hints})


FILES = {
    b"a": b"alpha " * 40,
    b"d/big": b"x" * 3000 + bytes(5000) + b"y" * 2000,
    b"d/small": b"small",
    b"empty": b"",
}


def write(w: Writer, *, finish: bool = True, filler: int = 9) -> bytes:
    """A root with `a`, `d/`, `empty`, a link and a device; `d` of two leaves below an inner node."""
    ident = w.keys.content_id
    rows = []
    w.block(b"FHDR", {16: 0, 17: b"d/big", 18: 10000, 19: "text/plain"})
    first = [b"x" * 1000, b"x" * 2000]
    rows += [(ident(x)[:8], 1, n) for n, x in enumerate(first)]
    w.block(b"FCNT", {16: var(1000, 2000), 17: 0, 18: 0, 19: 0}, b"".join(first), 1)
    pack = [FILES[b"a"], FILES[b"d/small"]]
    w.block(b"PACK", {16: var(240, 5)}, b"".join(pack), 2)
    rows += [(ident(x)[:8], 2, n) for n, x in enumerate(pack)]
    if w.suite != 2:
        w.block(b"xtra", {}, raw=bytes(filler))
    else:
        w.block(b"prty", {}, raw=b"parity")
    listed = w.blocks[:4]
    lengths = var(*(x[2] for x in listed))
    w.block(b"ckpt", {16: 0, 17: 4}, enc({1: b"".join(x[0] for x in listed), 2: lengths}))
    w.block(b"FCNT", {16: var(2000), 17: 0, 18: 1, 19: 8000}, b"y" * 2000)
    rows.append((ident(b"y" * 2000)[:8], 5, 0))
    parts = [ident(first[0]), ident(first[1]), ident(b"y" * 2000)]
    sub1, sub1_id = node(
        {1: 3, 2: 8000, 3: var(1000, 2000, 5000), 4: parts[0] + parts[1], 5: var(2)},
        {1: deltas(1, 1), 2: var(0, 1)},
    )
    sub2, sub2_id = node({1: 3, 2: 2000, 3: var(2000), 4: parts[2]}, {1: deltas(5), 2: var(0)})
    w.block(b"TREE", {16: var(len(sub1), len(sub2))}, sub1 + sub2)
    table, _ = node({1: 4, 2: 10000, 3: var(8000, 2000), 4: sub1_id + sub2_id}, {1: deltas(6, 6), 2: var(0, 1)})
    big_id = ident(FILES[b"d/big"])
    w.block(b"FEND", {16: 0, 17: 10000, 18: 2, 19: big_id}, table)
    rows.append((big_id[:8], 7, 0))
    xattrs = enc([[b"user.a", b"1"], [b"user.b", b""]])
    w.block(b"TREX", {16: var(len(xattrs))}, xattrs)
    partial, _ = directory([(b"small", 1)], b"d", {9: var(5)}, {1: deltas(2), 2: var(1)}, kind=5)
    leaf1, leaf1_id = directory(
        [(b"big", 1)], b"d", {9: var(10000), 10: big_id, 16: [[0, 4]]}, {1: deltas(7), 2: var(0)}
    )
    leaf2, leaf2_id = directory([(b"small", 1)], b"d", {9: var(5), 10: ident(b"small")}, {1: deltas(2), 2: var(1)})
    pieces = [partial, leaf1, leaf2]
    w.block(b"TREE", {16: var(*map(len, pieces))}, b"".join(pieces), 0)
    inner, inner_id = node(
        {1: 2, 2: 2, 3: b"big\0small", 4: var(1, 1), 5: leaf1_id + leaf2_id},
        {1: deltas(9, 9), 2: var(1, 2), 7: b"d"},
    )
    more: p.Map = {
        9: var(240, 0),
        10: ident(FILES[b"a"]),
        11: inner_id,
        12: [b"a"],
        13: [[1, 3]],
        14: [[0, bytes(16)]],
        15: [[0, ident(xattrs)]],
    }
    hints: p.Map = {1: deltas(2), 2: var(0), 3: deltas(10), 4: var(0), 5: deltas(8), 6: var(0)}
    top, top_id = directory([(b"a", 1), (b"d", 2), (b"empty", 1), (b"link", 3), (b"null", 5)], b"", more, hints)
    w.block(b"TREE", {16: var(len(inner), len(top))}, inner + top)
    if not finish:
        return w.out
    return w.finish(rows, {b"": (10, 1), b"d": (10, 0)}, {8: [top_id, 10, 1], 9: [7, 10245]})


def write_directory(member: bytes) -> bytes:
    w = Writer(0, signed=False, kind=4)
    w.block(b"DIRY", {}, enc({1: [[w.id, 0, len(member)]]}))
    return w.finish([], {}, {})


KEY = PRIVATE.private_bytes_raw()


@pytest.mark.parametrize("suite", [0, 1, 2])
@pytest.mark.parametrize("signed", [False, True])
def test_reads_everything(suite: int, signed: bool) -> None:
    data = write(Writer(suite, signed=signed))
    for size in (1, 2):
        result = read(data * size, x25519_private=[KEY], allow_plain=True)
        assert len(result.archives) == size
        archive = result.archives[-1]
        assert archive.right == "read" and archive.terminated
        assert archive.signature == ("valid" if signed else "none")
        assert {e.path for e in archive.tree} == {*FILES, b"d", b"link", b"null"}
        assert {path: archive.contents(path) for path in FILES} == FILES
        entry = archive.tree[0]
        assert (entry.mtime_ns, entry.user, entry.xattrs) == (
            10**18,
            b"user",
            [(b"user.a", b"1"), (b"user.b", b"")],
        )
        assert archive.released_bytes == 5245
    joined = data + write_directory(data)
    if suite:
        assert [a.right for a in read(joined, x25519_private=[KEY]).archives] == ["read", "read"]
        keyless = read(joined).archives
        assert [a.right for a in keyless] == [None, "read"] and keyless[0].tree == []
        browsed = read(data, x25519_private=[BROWSER.private_bytes_raw()]).archives[0]
        assert browsed.right == "browse" and len(browsed.tree) == 7 and browsed.released_bytes == 0
    for path, content in FILES.items():
        found, reads = open_random(data + data, path, x25519_private=[KEY], allow_plain=True)
        assert (found, reads) == (content, 1)
    assert salvage(data, x25519_private=[KEY], allow_plain=True) == FILES


@pytest.mark.parametrize("suite", [1, 2])
def test_random_access_counts_reads(suite: int) -> None:
    w = Writer(suite)
    if suite == 2:
        w.mangle_record = lambda kind, record: {**record, 1000: bytes(400_000)} if kind == b"ckpt" else record  # type: ignore[method-assign]
    data = write(w, filler=400_000)
    for path, expected in ((b"a", 2), (b"d/big", 2), (b"empty", 1)):
        assert open_random(data, path, x25519_private=[KEY]) == (FILES[path], expected)
    with pytest.raises(KeyError):
        open_random(data, b"d/nothing", x25519_private=[KEY])


def test_passphrase_and_identities() -> None:
    data = write(Writer(1, passphrase="é"))
    assert read(data, passphrases=["wrong", "e\u0301"]).archives[0].right == "read"
    for keys, words, failure in (([], ["wrong"], "no-recipient"), ([KEY], [], "no-recipient")):
        assert fails(data, x25519_private=keys, passphrases=words) == failure
    assert fails(write(Writer(0)), x25519_private=[KEY]) == "unsupported"
    assert fails(write(Writer(1, signed=False)), verify_key=bytes(32)) == "signature"
    assert fails(write(Writer(1)), verify_key=bytes(32)) == "signature"


def fails(data: bytes, **keys: object) -> str:
    with pytest.raises(m.SpecError) as caught:
        read(data, **keys)  # type: ignore[arg-type]
    assert caught.value.result is not None and caught.value.offset is not None
    return caught.value.failure_class


def test_every_cut_is_truncated_and_no_flip_passes() -> None:
    data = write(Writer(1))
    for end in range(0, len(data), 7):
        assert fails(data[:end], x25519_private=[KEY]) == "truncated"
    for at in range(0, len(data), 5):
        bad = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
        fails(bad, x25519_private=[KEY])
        fails(bad)
    assert fails(data + b"x") == "header" and fails(data + data[:4]) == "truncated"


def test_salvage_of_damaged_archives() -> None:
    w = Writer(1)
    data = write(w)
    _, at, length, _ = w.blocks[2]
    assert salvage(data[:at] + bytes(length) + data[at + length :], x25519_private=[KEY]) == {
        b"d/big": FILES[b"d/big"],
        b"empty": b"",
    }
    assert salvage(b"junk" + data[200:], x25519_private=[KEY]) == FILES
    _, at, _, _ = w.blocks[9]
    lost = salvage(data[:at], x25519_private=[KEY])
    assert sorted(lost.values()) == sorted([FILES[b"a"], FILES[b"d/small"], FILES[b"d/big"]])
    assert all(path.startswith(b"lost+found/") for path in lost)
    # With the partial node (of the TREE block 9) the names in it come back.
    _, at, _, _ = w.blocks[10]
    assert salvage(data[:at], x25519_private=[KEY])[b"d/small"] == b"small"


def change(kind: bytes, key: int, value: p.Value | None, nth: int = 0) -> type[Writer]:
    class Changed(Writer):
        count = -1

        def mangle_record(self, found: bytes, record: p.Map) -> p.Map:
            if found == kind:
                self.count += 1
                if self.count == nth:
                    record = {k: v for k, v in record.items() if k != key}
                    if value is not None:
                        record[key] = value
            return record

    return Changed


@pytest.mark.parametrize(
    ("made", "failure"),
    [
        (change(b"FHDR", 16, 1), "block"),
        (change(b"FHDR", 16, None), "block"),
        (change(b"FHDR", 17, b"x" * 65_536), "limit"),
        (change(b"FHDR", 1, 0), "block"),
        (change(b"FCNT", 17, 1), "block"),
        (change(b"FCNT", 18, 1), "block"),
        (change(b"FCNT", 19, 2999, 1), "block"),
        (change(b"FCNT", 19, 8001, 1), "block"),
        (change(b"PACK", 1, 9), "unsupported"),
        (change(b"PACK", 2, m.MAX_BODY + 1), "limit"),
        (change(b"PACK", 4, bytes(32)), "block"),
        (change(b"PACK", 16, var(240, 4)), "block"),
        (change(b"PACK", 16, var(240, 5, 0)), "block"),
        (change(b"PACK", 16, var(241, 4)), "index"),
        (change(b"FEND", 17, 10001), "block"),
        (change(b"FEND", 18, 3), "block"),
        (change(b"FEND", 19, bytes(32)), "index"),
        (change(b"ckpt", 18, 0), "block"),
        (change(b"ckpt", 17, 3), "block"),
        (change(b"INDX", 17, 5), "index"),
        (change(b"INDX", 16, 5), "block"),
        (change(b"INDX", 18, 1, 2), "index"),
        (change(b"INDX", 16, None, 4), "block"),
        (change(b"FOOT", 17, 0), "index"),
        (change(b"FOOT", 19, bytes(32)), "index"),
        (change(b"FOOT", 20, b""), "index"),
        (change(b"FOOT", 1, 0), "index"),
    ],
)
@pytest.mark.parametrize("suite", [0, 1])
def test_changed_records(made: Callable[[int], Writer], failure: str, suite: int) -> None:
    assert fails(write(made(suite)), x25519_private=[KEY], allow_plain=True) == failure


@pytest.mark.parametrize("kind", [b"TREE", b"TREX", b"FEND", b"INDX"])
def test_no_change_of_a_body_escapes_or_crashes(kind: bytes) -> None:
    """Every byte of every such body, changed by somebody who holds S."""
    wanted = [-1, 0]

    class Changed(Writer):
        def mangle_body(self, found: bytes, record: p.Map, body: bytes) -> bytes:
            if found == kind and wanted[0] >= 0:
                if wanted[0] < len(body):
                    at = wanted[0]
                    body = body[:at] + bytes([body[at] ^ 1 << wanted[1]]) + body[at + 1 :]
                wanted[0] -= len(body)
            return body

    total = 0
    passed = 0
    while True:
        wanted[:] = [total, total % 8]
        data = write(Changed(0))
        if wanted[0] >= 0:
            break
        total += 1
        try:
            read(data)
        except m.SpecError as error:
            assert error.failure_class in ("block", "index", "limit", "unsupported")  # noqa: PT017
        else:
            passed += 1
    assert total >= 20
    assert passed < total // 5, "only hints and facts that nothing else repeats may change"


def test_unterminated() -> None:
    w = Writer(1)
    assert fails(write(w, finish=False), x25519_private=[KEY]) == "truncated"
    w.block(b"FOOT", {})
    assert fails(w.out, x25519_private=[KEY]) == "block"
