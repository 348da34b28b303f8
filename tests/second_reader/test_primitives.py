"""The second reader's own primitives against published vectors and the strictness rules of section 1."""

from __future__ import annotations

import lz4.block  # type: ignore[import-untyped]
import pytest
import zstandard
from blake3 import blake3
from Crypto.Cipher import ChaCha20_Poly1305
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from . import primitives as p
from .primitives import Malformed

NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"


@pytest.mark.parametrize(
    ("key", "ad", "sealed"),
    [
        (b"\x01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\x03" * 32, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_xaes_vectors(key: bytes, ad: bytes, sealed: str) -> None:
    assert p.xaes_seal(key, NONCE, b"XAES-256-GCM", ad).hex() == sealed
    assert p.xaes_open(key, NONCE, bytes.fromhex(sealed), ad) == b"XAES-256-GCM"
    with pytest.raises(Malformed):
        p.xaes_open(key, NONCE, bytes.fromhex(sealed), ad + b"x")
    assert p.open_section(2, key, NONCE + bytes.fromhex(sealed), ad) == b"XAES-256-GCM"


def test_xchacha_vector() -> None:
    """draft-irtf-cfrg-xchacha-03, appendix A.3.1."""
    key = bytes(range(0x80, 0xA0))
    nonce = bytes(range(0x40, 0x58))
    ad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    plain = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    cipher = ChaCha20_Poly1305.new(key=key, nonce=nonce)
    cipher.update(ad)
    sealed, tag = cipher.encrypt_and_digest(plain)
    assert sealed[:16].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert tag.hex() == "c0875924c1c7987947deafd8780acf49"
    assert p.xchacha_open(key, nonce, sealed + tag, ad) == plain
    with pytest.raises(Malformed):
        p.open_section(1, key, bytes(39), b"")


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**64 - 1, "ffffffffffffffffff01")],
)
def test_varint(number: int, encoded: str) -> None:
    raw = bytes.fromhex(encoded)
    assert p.varint(raw, 0) == (number, len(raw))
    assert p.column(raw + raw) == [number, number]


@pytest.mark.parametrize(
    "encoded", ["", "80", "8000", "ff00", "ffffffffffffffffff02", "80808080808080808080", "ff" * 11]
)
def test_varint_refusals(encoded: str) -> None:
    with pytest.raises(Malformed):
        p.varint(bytes.fromhex(encoded), 0)


def test_delta_columns() -> None:
    assert [p.signed(n) for n in (0, 1, 2, 3, 2**64 - 2, 2**64 - 1)] == [0, -1, 1, -2, 2**63 - 1, -(2**63)]
    assert p.delta_column(bytes([10, 1, 4]), 3, as_signed=False) == [5, 4, 6]
    assert p.delta_column(b"\x01", 1, as_signed=True) == [-1]
    assert p.delta_column(b"\x01", 1, as_signed=False) == [2**64 - 1]
    with pytest.raises(Malformed):
        p.delta_column(b"\x01\x01", 1, as_signed=False)


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("00", 0),
        ("17", 23),
        ("1818", 24),
        ("1b00000001000000" + "00", 2**32),
        ("1bffffffffffffffff", 2**64 - 1),
        ("20", -1),
        ("3bffffffffffffffff", -(2**64)),
        ("4101", b"\x01"),
        ("62c3a9", "é"),
        ("8201a0", [1, {}]),
        ("a201000240", {1: 0, 2: b""}),
        ("81" * 8 + "00", [[[[[[[[0]]]]]]]]),
    ],
)
def test_cbor(encoded: str, value: p.Value) -> None:
    assert p.cbor(bytes.fromhex(encoded)) == value


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "1817",  # not the shortest form
        "1900ff",
        "1a0000ffff",
        "1b00000000ffffffff",
        "580100",
        "7800",
        "9800",
        "b800",
        "1c",  # reserved
        "5f4100ff",  # indefinite
        "9fff",
        "bfff",
        "c000",  # tag
        "f4",  # simple values and floats
        "f6",
        "f7",
        "f93c00",
        "0000",  # something follows
        "4201",  # cut off
        "8101" + "00",
        "81",
        "a101",
        "a2010101" + "02",  # key twice
        "a202000100",  # keys not ascending
        "a12000",  # negative key
        "a1410000",  # key is a byte string
        "62c328",  # not UTF-8
        "63eda080",  # surrogate
        "81" * 9 + "00",  # too deep
        "81" * 8 + "80",
        "9bffffffffffffffff",
    ],
)
def test_cbor_refusals(encoded: str) -> None:
    with pytest.raises(Malformed):
        p.cbor(bytes.fromhex(encoded))


def test_kdf_labels() -> None:
    context = "rozenfmt v0 2026-11 "
    for label in ("header mac I", "commit S", "seal C", "block mac S"):
        assert p.kdf(label, b"x") == blake3(b"x", derive_key_context=context + label).digest()
    assert len({p.kdf(label, b"") for label in ("seal I", "seal C", "path")}) == 3
    assert p.h(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    # BLAKE3's published vectors: input length 0, key and context of test_vectors.json.
    assert p.mac(b"whats the Elvish word for friend", b"").hex().startswith("92b2b75604ed3c761f9d6f62392c8a92")
    assert (
        blake3(b"", derive_key_context="BLAKE3 2019-12-27 16:29:52 test vectors context")
        .hexdigest()
        .startswith("2cc39783c223154fea8dfb7c1b1660f2")
    )


def test_argon2id_is_that_of_rfc_9106() -> None:
    """Parameters of the specification; the value is that of the reference implementation's test.c for version 0x13,
    t = 2, m = 2^16 KiB, p = 1, "password", "somesalt"."""
    key = p.argon2id(b"password", b"somesalt", 2, 1 << 16)
    assert key.hex() == "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"


def test_low_order_x25519() -> None:
    one = (1).to_bytes(32, "little")
    eight = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
    minus_one = (2**255 - 20).to_bytes(32, "little")
    assert all(p.low_order(point) for point in (bytes(32), one, eight, minus_one))
    assert not p.low_order(X25519PrivateKey.generate().public_key().public_bytes_raw())


def _add(left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
    q = p.P25519
    d = -121665 * pow(121666, -1, q) % q
    (x1, y1), (x2, y2) = left, right
    k = d * x1 * x2 * y1 * y2 % q
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, -1, q) % q,
        (y1 * y2 + x1 * x2) * pow(1 - k, -1, q) % q,
    )


def test_small_order_points_are_all_listed() -> None:
    """The eight points of the torsion group, made from one of order eight."""
    q = p.P25519
    d = -121665 * pow(121666, -1, q) % q
    y = p._Y8
    square = (y * y - 1) * pow(d * y * y + 1, -1, q) % q
    x = pow(square, (q + 3) // 8, q)
    if x * x % q != square:
        x = x * pow(2, (q - 1) // 4, q) % q
    assert x * x % q == square
    points = [(0, 1)]
    for _ in range(7):
        points.append(_add(points[-1], (x, y)))
    assert len(set(points)) == 8 and _add(points[-1], (x, y)) == (0, 1)
    assert {point[1] for point in points} == p.SMALL_ORDER_Y


def test_ed25519_strictness() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public, message = private.public_key().public_bytes_raw(), b"message"
    signature = private.sign(message)
    assert p.ed25519_strict(public, signature, message)
    assert not p.ed25519_strict(public, signature, b"other")
    assert not p.ed25519_strict(public, signature[:-1], message)
    big = int.from_bytes(signature[32:], "little") + p.GROUP_ORDER
    assert not p.ed25519_strict(public, signature[:32] + big.to_bytes(32, "little"), message)
    # A = identity, R = identity, S = 0 satisfies the equation for every message.
    identity = (1).to_bytes(32, "little")
    assert not p.ed25519_strict(identity, identity + bytes(32), message)
    # The same points in encodings that are not canonical.
    loose = (p.P25519 + 1).to_bytes(32, "little")
    assert not p.ed25519_strict(loose, loose + bytes(32), message)
    signed_identity = bytes([1]) + bytes(30) + b"\x80"
    assert not p.ed25519_strict(signed_identity, signed_identity + bytes(32), message)


@pytest.mark.parametrize("body", [b"a" * 100, b"ab" * 5000, bytes(range(256)) * 9 + b"x" * 40, b"abc"])
def test_lz4(body: bytes) -> None:
    encoded = lz4.block.compress(body, store_size=False)
    assert p.lz4_decode(encoded, len(body)) == body
    for wrong in (len(body) - 1, len(body) + 1):
        with pytest.raises(Malformed):
            p.lz4_decode(encoded, wrong)
    with pytest.raises(Malformed):
        p.lz4_decode(encoded[:-1], len(body))
    with pytest.raises(Malformed):
        p.lz4_decode(encoded + b"\0", len(body))


def test_zstd() -> None:
    body = b"ab" * 5000
    frame = zstandard.ZstdCompressor().compress(body)
    assert p.zstd_decode(frame, len(body)) == body
    without_size = zstandard.ZstdCompressor(write_content_size=False).compress(body)
    skippable = b"\x50\x2a\x4d\x18\0\0\0\0"
    for wrong in (
        without_size,
        frame + frame,
        frame + b"\0",
        frame + skippable,
        skippable + frame,
        frame[:-1],
    ):
        with pytest.raises(Malformed):
            p.zstd_decode(wrong, len(body))
    with pytest.raises(Malformed):
        p.zstd_decode(frame, len(body) - 1)
