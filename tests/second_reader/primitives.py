"""Primitives of the second reader: hashes, AEADs, HPKE, Ed25519, varints, strict CBOR, zstd and lz4 decoding.

Bindings differ on purpose from those of the main library. `Malformed` carries no failure class: the place where the
bytes stand decides (section 1.1), so the reader turns it into a `SpecError`.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import zstandard
from blake3 import blake3
from Crypto.Cipher import AES, ChaCha20_Poly1305
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

Value: TypeAlias = "int | bytes | str | list[Value] | dict[int, Value]"
Map: TypeAlias = "dict[int, Value]"

U64 = 1 << 64
MAX_DEPTH = 8
MAX_WINDOW = 16 * 1024 * 1024


class Malformed(Exception):
    """Bytes that break a rule of the encoding."""


# ---------------------------------------------------------------- hashes (section 1)


def h(data: bytes) -> bytes:
    return blake3(data).digest()


def mac(key: bytes, data: bytes) -> bytes:
    return blake3(data, key=key).digest()


def kdf(label: str, material: bytes) -> bytes:
    return blake3(material, derive_key_context="rozenfmt v0 2026-11 " + label).digest()


def same(left: bytes, right: bytes) -> bool:
    return hmac.compare_digest(left, right)


# ---------------------------------------------------------------- AEADs (section 6.3)


def xchacha_open(key: bytes, nonce: bytes, sealed: bytes, ad: bytes) -> bytes:
    """Raises Malformed if the tag does not fit."""
    cipher = ChaCha20_Poly1305.new(key=key, nonce=nonce)
    cipher.update(ad)
    try:
        return cipher.decrypt_and_verify(sealed[:-16], sealed[-16:])
    except ValueError as error:
        raise Malformed("tag does not verify") from error


def xaes_key(key: bytes, nonce: bytes) -> bytes:
    """The derived AES-256-GCM key of c2sp.org/XAES-256-GCM (one-block-pair CMAC)."""
    ecb = AES.new(key, AES.MODE_ECB)
    whole = int.from_bytes(ecb.encrypt(bytes(16)), "big")
    k1 = (whole << 1) & ((1 << 128) - 1)
    if whole >> 127:
        k1 ^= 0x87
    derived = b""
    for counter in (1, 2):
        block = bytes([0, counter]) + b"X\x00" + nonce[:12]
        derived += ecb.encrypt((int.from_bytes(block, "big") ^ k1).to_bytes(16, "big"))
    return derived


def xaes_seal(key: bytes, nonce: bytes, plain: bytes, ad: bytes) -> bytes:
    cipher = AES.new(xaes_key(key, nonce), AES.MODE_GCM, nonce=nonce[12:])
    cipher.update(ad)
    sealed, tag = cipher.encrypt_and_digest(plain)
    return sealed + tag


def xaes_open(key: bytes, nonce: bytes, sealed: bytes, ad: bytes) -> bytes:
    cipher = AES.new(xaes_key(key, nonce), AES.MODE_GCM, nonce=nonce[12:])
    cipher.update(ad)
    try:
        return cipher.decrypt_and_verify(sealed[:-16], sealed[-16:])
    except ValueError as error:
        raise Malformed("tag does not verify") from error


def open_section(suite: int, key: bytes, section: bytes, ad: bytes) -> bytes:
    """`nonce (24) || ciphertext || tag (16)`."""
    if len(section) < 40:
        raise Malformed("sealed section is shorter than nonce and tag")
    opener = xchacha_open if suite == 1 else xaes_open
    return opener(key, section[:24], section[24:], ad)


# ---------------------------------------------------------------- stanzas (section 7)

_HPKE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_PROBE = X25519PrivateKey.from_private_bytes(bytes([8]) * 32)


def low_order(public: bytes) -> bool:
    """True if X25519 with this public key gives all zeros. A clamped scalar is a multiple of the cofactor and never of
    a large prime order, so that the answer is the same for every private key."""
    try:
        _PROBE.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return True
    return False


def x25519_public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def hpke_open(private: bytes, info: bytes, body: bytes) -> bytes | None:
    try:
        return _HPKE.decrypt(body, X25519PrivateKey.from_private_bytes(private), info=info)
    except (InvalidTag, ValueError):
        return None


def argon2id(passphrase: bytes, salt: bytes, t: int, m: int) -> bytes:
    return Argon2id(salt=salt, length=32, iterations=t, lanes=1, memory_cost=m).derive(passphrase)


# ---------------------------------------------------------------- Ed25519, strict (section 10)

P25519 = 2**255 - 19
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
_Y8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
SMALL_ORDER_Y = frozenset({0, 1, P25519 - 1, _Y8, P25519 - _Y8})


def ed25519_strict(public: bytes, signature: bytes, message: bytes) -> bool:
    if len(public) != 32 or len(signature) != 64:
        return False
    if int.from_bytes(signature[32:], "little") >= GROUP_ORDER:
        return False
    for point in (public, signature[:32]):
        y = int.from_bytes(point, "little") & (2**255 - 1)
        # The other non-canonical encodings, x = 0 with the sign bit, have y = 1 or y = -1: of small order.
        if y >= P25519 or y in SMALL_ORDER_Y:
            return False
    try:
        # OpenSSL compares the encoding of [S]B - [k]A with R: without cofactor.
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


# ---------------------------------------------------------------- varints and columns (section 1)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and the offset behind it."""
    number = shift = 0
    while True:
        if at >= len(data):
            raise Malformed("varint is cut off")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
        if shift >= 70:
            raise Malformed("varint is too long")
    if byte == 0 and shift > 7:
        raise Malformed("varint is not in its shortest form")
    if number >= U64:
        raise Malformed("varint of 2^64 or more")
    return number, at


def varints(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    numbers = []
    for _ in range(count):
        number, at = varint(data, at)
        numbers.append(number)
    return numbers, at


def column(data: bytes, count: int | None = None) -> list[int]:
    """A column that fills its byte string exactly; with `count`, of so many numbers."""
    numbers = []
    at = 0
    while at < len(data):
        number, at = varint(data, at)
        numbers.append(number)
    if count is not None and len(numbers) != count:
        raise Malformed(f"column of {len(numbers)} numbers where {count} belong")
    return numbers


def signed(number: int) -> int:
    return number // 2 if number % 2 == 0 else -(number + 1) // 2


def delta_column(data: bytes, count: int, *, as_signed: bool) -> list[int]:
    numbers = []
    current = 0
    for raw in column(data, count):
        current = (current + signed(raw)) % U64
        numbers.append(current - U64 if as_signed and current >= U64 // 2 else current)
    return numbers


def ascending(items: Sequence[Any]) -> bool:
    """Strictly, so that nothing stands twice."""
    return all(left < right for left, right in pairwise(items))


# ---------------------------------------------------------------- CBOR (section 1.1)


def cbor(data: bytes) -> Value:
    """The one item that `data` is."""
    value, at = _item(data, 0, 0)
    if at != len(data):
        raise Malformed("bytes behind the outermost CBOR item")
    return value


def cbor_map(data: bytes) -> Map:
    value = cbor(data)
    if not isinstance(value, dict):
        raise Malformed("CBOR item is not a map")
    return value


def _take(data: bytes, at: int, count: int) -> bytes:
    if count > len(data) - at:
        raise Malformed("CBOR is cut off")
    return data[at : at + count]


def _item(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    initial = _take(data, at, 1)[0]
    at += 1
    major, short = initial >> 5, initial & 31
    if major >= 6:
        raise Malformed("CBOR tag, float or simple value")
    if short < 24:
        argument = short
    elif short <= 27:
        size = 1 << (short - 24)
        argument = int.from_bytes(_take(data, at, size), "big")
        at += size
        if argument < (24, 1 << 8, 1 << 16, 1 << 32)[short - 24]:
            raise Malformed("CBOR number is not in its shortest form")
    else:
        raise Malformed("CBOR reserved or indefinite length")
    if major == 0:
        return argument, at
    if major == 1:
        return -1 - argument, at
    if major in (2, 3):
        raw = _take(data, at, argument)
        at += argument
        if major == 2:
            return raw, at
        try:
            return raw.decode("utf-8"), at
        except UnicodeDecodeError as error:
            raise Malformed("CBOR text is not UTF-8") from error
    depth += 1
    if depth > MAX_DEPTH:
        raise Malformed("CBOR is nested too deeply")
    if major == 4:
        items: list[Value] = []
        for _ in range(argument):
            item, at = _item(data, at, depth)
            items.append(item)
        return items, at
    pairs: dict[int, Value] = {}
    last = -1
    for _ in range(argument):
        key, at = _item(data, at, depth)
        if not isinstance(key, int) or key < 0:
            raise Malformed("CBOR map key is not an unsigned integer")
        if key <= last:
            raise Malformed("CBOR map keys are not ascending")
        last = key
        pairs[key], at = _item(data, at, depth)
    return pairs, at


def is_uint(value: Value, low: int = 0, high: int = U64 - 1) -> int:
    if not isinstance(value, int) or not low <= value <= high:
        raise Malformed(f"not an integer from {low} to {high}")
    return value


def is_bytes(value: Value, size: int | None = None) -> bytes:
    if not isinstance(value, bytes) or (size is not None and len(value) != size):
        raise Malformed("not a byte string" + ("" if size is None else f" of {size} bytes"))
    return value


def is_array(value: Value, size: int | None = None) -> list[Value]:
    if not isinstance(value, list) or (size is not None and len(value) != size):
        raise Malformed("not an array" + ("" if size is None else f" of {size} items"))
    return value


def is_text(value: Value) -> str:
    if not isinstance(value, str):
        raise Malformed("not a text")
    return value


def need(record: Map, key: int) -> Value:
    if key not in record:
        raise Malformed(f"key {key} is missing")
    return record[key]


def present(record: Map, key: int, expected: bool) -> bool:
    """Enforces a presence rule."""
    if (key in record) != expected:
        raise Malformed(f"key {key} is {'missing' if expected else 'there, where it must be absent'}")
    return expected


# ---------------------------------------------------------------- codecs (section 4.4)


def zstd_decode(encoded: bytes, d: int) -> bytes:
    """Exactly one frame with content size d, no dictionary, window at most 16 MiB."""
    if encoded[:4] != b"\x28\xb5\x2f\xfd":
        raise Malformed("not a zstd frame")
    try:
        parameters = zstandard.get_frame_parameters(encoded)
        # Bits 7-6 and 5 of the descriptor both clear: no content size field (RFC 8878, 3.1.1.1.1).
        if parameters.content_size != d or not encoded[4] & 0xE0:
            raise Malformed("zstd frame does not state the right content size")
        if parameters.dict_id != 0 or parameters.window_size > MAX_WINDOW:
            raise Malformed("zstd frame wants a dictionary or too big a window")
        body = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompress(
            encoded, max_output_size=d, read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise Malformed(f"zstd: {error}") from error
    if len(body) != d:
        raise Malformed("zstd frame decodes to another length")
    return body


def lz4_decode(encoded: bytes, d: int) -> bytes:
    """One raw block with the format's own end conditions: the last five bytes are literals, and the last match begins
    at least twelve bytes before the end."""
    out = bytearray()
    at = 0

    def extended(length: int) -> int:
        nonlocal at
        if length == 15:
            while True:
                if at >= len(encoded):
                    raise Malformed("lz4: length is cut off")
                byte = encoded[at]
                at += 1
                length += byte
                if byte != 255:
                    break
        return length

    while True:
        if at >= len(encoded):
            raise Malformed("lz4: block is cut off")
        token = encoded[at]
        at += 1
        literals = extended(token >> 4)
        if literals > len(encoded) - at or literals > d - len(out):
            raise Malformed("lz4: literals run over the end")
        out += encoded[at : at + literals]
        at += literals
        if at == len(encoded):
            break
        if len(encoded) - at < 2:
            raise Malformed("lz4: offset is cut off")
        distance = int.from_bytes(encoded[at : at + 2], "little")
        at += 2
        length = extended(token & 15) + 4
        if not 1 <= distance <= len(out):
            raise Malformed("lz4: offset before the beginning")
        if d - len(out) < 12 or length > d - len(out) - 5:
            raise Malformed("lz4: match too near the end")
        while length > 0:
            piece = out[-distance:][:length]
            out += piece
            length -= len(piece)
    if len(out) != d:
        raise Malformed("lz4: block decodes to another length")
    return bytes(out)
