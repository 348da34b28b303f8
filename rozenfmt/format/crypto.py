"""The only module that touches cipher primitives (format.md, sections 4.2, 6, 7 and 10).

It knows keys, nonces and bytes; it knows nothing of blocks, records or files.  Entropy is
an argument everywhere.  Failures raise; nothing returns a bool that could be ignored.

Bindings: PyNaCl for X25519, Ed25519, Argon2id and short sections; ``cryptography`` for AES, since
PyNaCl refuses AES on processors without it, and for long sections under XChaCha20-Poly1305, which
its OpenSSL seals three times as fast as libsodium.  Both are imported where they are used.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from rozenfmt.errors import BlockError, HeaderError, KeyFailure, LimitError, NoMatchingKey, SignatureError

from .limits import ARGON2_MAX_KIB, ARGON2_MAX_PASSES, ARGON2_MIN_KIB
from .registry import Right, Seal, Suite

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

__all__ = [
    "Argon2Cost",
    "Entropy",
    "Keys",
    "content_id",
    "digest",
    "hpke_open",
    "hpke_seal",
    "mac",
    "passphrase_open",
    "passphrase_seal",
    "sign",
    "verify_signature",
]

Entropy = Callable[[int], bytes]

CONTEXT: Final = "rozenfmt v0 2026-11 "
NONCE_SIZE: Final = 24
SEAL_OVERHEAD: Final = 40

# A header is bound to the whole prefix: archive, type, sequence, flags and both lengths.  So a
# sealed block cannot be moved, renumbered, retyped, or joined to another archive.
AAD_BLOCK_HEADER: Final = b"rozenfmt v0 block header"
# A body is bound to the header hash, and so to the stored header before it and to the prefix.
AAD_BLOCK_BODY: Final = b"rozenfmt v0 block body"
# A stanza is bound to the right it gives and to its archive: it cannot be moved to another one,
# and a browse stanza cannot be passed off as a read stanza.
STANZA_INFO: Final = b"rozenfmt v0 stanza"
PASSPHRASE_AAD: Final = b"rozenfmt v0 passphrase"
# A signature is bound to the header (recipients included) and, by FOOT's header hash, to the index
# root, the chain over all blocks, their number and their length.
SIGNATURE_LABEL: Final = b"rozenfmt v0 signature"


def digest(*parts: bytes | bytearray | memoryview) -> bytes:
    """BLAKE3-256 of the parts joined."""
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def mac(key: bytes, *parts: bytes | bytearray | memoryview) -> bytes:
    """Keyed BLAKE3-256 of the parts joined."""
    hasher = blake3(key=key)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def derive(label: str, material: bytes) -> bytes:
    """``KDF(label, material)`` of the specification."""
    return blake3(material, derive_key_context=CONTEXT + label).digest()


def content_id(id_key: bytes, content_digest: bytes, length: int) -> bytes:
    """Content id from the plain digest and the length (format.md, section 6.2)."""
    return blake3(content_digest + length.to_bytes(8, "little"), key=id_key).digest()


def equal(a: bytes, b: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(a, b)


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """What a reader or writer of one archive holds; ``secret`` is None with the browse right.

    Never shown by ``repr``.
    """

    suite: Suite
    archive_id: bytes
    secret: bytes | None
    index_key: bytes
    seal_index: bytes
    seal_content: bytes | None
    header_mac_index: bytes
    header_mac_secret: bytes | None
    foot_mac_index: bytes
    foot_mac_secret: bytes | None
    block_mac: bytes | None
    id_key: bytes | None
    path_key: bytes

    @classmethod
    def from_secret(cls, suite: Suite, archive_id: bytes, secret: bytes) -> Keys:
        """All keys of an archive, from the archive secret S."""
        index_key = derive("index key I", secret)
        return cls(
            suite=suite,
            archive_id=archive_id,
            secret=secret,
            index_key=index_key,
            seal_index=derive("seal I", index_key),
            seal_content=derive("seal C", derive("content key C", secret)),
            header_mac_index=derive("header mac I", index_key),
            header_mac_secret=derive("header mac S", secret),
            foot_mac_index=derive("foot mac I", index_key),
            foot_mac_secret=derive("foot mac S", secret),
            block_mac=derive("block mac S", secret),
            id_key=derive("content id", secret),
            path_key=derive("path", index_key),
        )

    @classmethod
    def from_index_key(cls, suite: Suite, archive_id: bytes, index_key: bytes) -> Keys:
        """The keys that go with the browse right, from I."""
        return cls(
            suite=suite,
            archive_id=archive_id,
            secret=None,
            index_key=index_key,
            seal_index=derive("seal I", index_key),
            seal_content=None,
            header_mac_index=derive("header mac I", index_key),
            header_mac_secret=None,
            foot_mac_index=derive("foot mac I", index_key),
            foot_mac_secret=None,
            block_mac=None,
            id_key=None,
            path_key=derive("path", index_key),
        )

    @property
    def right(self) -> Right:
        """The right these keys give."""
        return Right.BROWSE if self.secret is None else Right.READ

    def seal_key(self, seal: Seal) -> bytes | None:
        """Key for a type sealed under ``seal``; None if these keys do not give it."""
        return self.seal_index if seal is Seal.INDEX else self.seal_content

    def commitment_to_secret(self) -> bytes | None:
        """``KDF("commit S", S ‖ archive id)``, or None with the browse right."""
        return None if self.secret is None else derive("commit S", self.secret + self.archive_id)

    def commitment_to_index_key(self) -> bytes:
        """``KDF("commit I", I ‖ archive id)``."""
        return derive("commit I", self.index_key + self.archive_id)

    def __repr__(self) -> str:
        return f"Keys(archive_id={self.archive_id.hex()}, right={self.right.name})"


# --- AEAD ---------------------------------------------------------------------------------------


def seal(
    suite: Suite, key: bytes, nonce: bytes, plaintext: bytes | bytearray | memoryview, aad: bytes
) -> tuple[bytes, bytes]:
    """Seal one section; returns nonce and ciphertext with tag, to be stored in this order."""
    if suite is Suite.XCHACHA20_POLY1305 and len(plaintext) < _LONG:
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

        return nonce, crypto_aead_xchacha20poly1305_ietf_encrypt(bytes(plaintext), aad, nonce, key)
    aead, rest = _under_subkey(suite, key, nonce)
    return nonce, aead.encrypt(rest, plaintext, aad)


def unseal(suite: Suite, key: bytes, section: bytes | memoryview, aad: bytes) -> bytes:
    """Open one section ``nonce ‖ ciphertext ‖ tag``.

    Raises:
        BlockError: It is too short, or was not sealed with this key for this place.
    """
    if len(section) < SEAL_OVERHEAD:
        msg = "a sealed section is too short"
        raise BlockError(msg, clause="4.2")
    return unseal_parts(suite, key, bytes(section[:NONCE_SIZE]), memoryview(section)[NONCE_SIZE:], aad)


def unseal_parts(suite: Suite, key: bytes, nonce: bytes, sealed: bytes | memoryview, aad: bytes) -> bytes:
    """Open what ``seal`` returned.

    Raises:
        BlockError: It was not sealed with this key for this place.
    """
    if suite is Suite.XCHACHA20_POLY1305 and len(sealed) < _LONG:
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
        from nacl.exceptions import CryptoError

        try:
            return crypto_aead_xchacha20poly1305_ietf_decrypt(bytes(sealed), aad, nonce, key)
        except CryptoError as error:
            raise BlockError(_FORGED, clause="4.2") from error
    from cryptography.exceptions import InvalidTag

    aead, rest = _under_subkey(suite, key, nonce)
    try:
        return aead.decrypt(rest, sealed, aad)
    except InvalidTag as error:
        raise BlockError(_FORGED, clause="4.2") from error


_FORGED = "a sealed section does not open: it was changed, moved or forged"
# From this on, deriving a subkey in Python costs less than libsodium's slower ChaCha20.
_LONG: Final = 1 << 16


def _under_subkey(suite: Suite, key: bytes, nonce: bytes) -> tuple[ChaCha20Poly1305 | AESGCM, bytes]:
    """The AEAD with the 96-bit nonce that an extended nonce comes down to, and that nonce."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

    if suite is Suite.XCHACHA20_POLY1305:
        return ChaCha20Poly1305(_hchacha20(key, nonce[:16])), bytes(4) + nonce[16:]
    return AESGCM(_xaes_key(key, nonce[:12])), nonce[12:]


def _hchacha20(key: bytes, nonce: bytes) -> bytes:
    """HChaCha20 (draft-irtf-cfrg-xchacha-03, section 2.2) of a key and 16 bytes.

    It is ChaCha20's block function without its last step, which adds the words it began with.  Its
    output is the first and the last four words, and what they began with is public: the constant,
    and the 16 bytes in the place of counter and nonce.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    block = Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    words = struct.unpack("<4I32x4I", block)
    began = struct.unpack("<8I", b"expand 32-byte k" + nonce)
    return struct.pack("<8I", *((word - first) & 0xFFFFFFFF for word, first in zip(words, began, strict=True)))


def _xaes_key(key: bytes, nonce: bytes) -> bytes:
    """Derive the subkey of XAES-256-GCM (c2sp.org/XAES-256-GCM) from half a nonce."""
    aes, subkey = _xaes_context(key)
    blocks = b"".join(
        (int.from_bytes(b"\x00" + bytes([i]) + b"X\x00" + nonce, "big") ^ subkey).to_bytes(16, "big") for i in (1, 2)
    )
    return aes(blocks)


@lru_cache(maxsize=16)
def _xaes_context(key: bytes) -> tuple[Callable[[bytes], bytes], int]:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    # Single blocks under a key that only ever encrypts distinct inputs: ECB is the raw block cipher.
    cipher = Cipher(algorithms.AES256(key), modes.ECB())  # noqa: S305

    def aes(blocks: bytes) -> bytes:
        return cipher.encryptor().update(blocks)

    doubled = int.from_bytes(aes(bytes(16)), "big") << 1
    if doubled >> 128:
        doubled ^= (1 << 128) | 0x87
    return aes, doubled


# --- Stanzas ------------------------------------------------------------------------------------


def stanza_info(right: int, archive_id: bytes) -> bytes:
    """HPKE's ``info`` for a stanza of type 1."""
    return STANZA_INFO + bytes([right]) + archive_id


def x25519_public(private: bytes) -> bytes:
    """Public half of an X25519 key."""
    from nacl.bindings import crypto_scalarmult_base

    return crypto_scalarmult_base(private)


def _x25519(private: bytes, public: bytes) -> bytes:
    from nacl.bindings import crypto_scalarmult
    from nacl.exceptions import RuntimeError as SodiumError

    try:
        return crypto_scalarmult(private, public)
    except SodiumError as error:  # libsodium refuses an all-zero result
        msg = "a public key of small order"
        raise HeaderError(msg, clause="7") from error


def _hkdf_extract(salt: bytes, material: bytes) -> bytes:
    return hmac.digest(salt, material, hashlib.sha256)


def _hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    out = block = b""
    counter = 1
    while len(out) < length:
        block = hmac.digest(key, block + info + bytes([counter]), hashlib.sha256)
        out += block
        counter += 1
    return out[:length]


_KEM = b"KEM\x00\x20"
_HPKE = b"HPKE\x00\x20\x00\x01\x00\x03"


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    return _hkdf_extract(salt, b"HPKE-v1" + suite + label + material)


def _labeled_expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return _hkdf_expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


def _hpke_key(shared: bytes, context: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and base nonce of a base-mode context (RFC 9180, sections 4.1 and 5.1)."""
    prk = _labeled_extract(_KEM, b"", b"eae_prk", shared)
    secret = _labeled_expand(_KEM, prk, b"shared_secret", context, 32)
    schedule = (
        b"\x00" + _labeled_extract(_HPKE, b"", b"psk_id_hash", b"") + _labeled_extract(_HPKE, b"", b"info_hash", info)
    )
    secret = _labeled_extract(_HPKE, secret, b"secret", b"")
    return _labeled_expand(_HPKE, secret, b"key", schedule, 32), _labeled_expand(
        _HPKE, secret, b"base_nonce", schedule, 12
    )


def hpke_seal(public: bytes, info: bytes, plaintext: bytes, entropy: Entropy, aad: bytes = b"") -> bytes:
    """Single-shot base-mode HPKE (RFC 9180, section 6.1): ``enc ‖ ciphertext ‖ tag``.

    The ephemeral key is 32 bytes of ``entropy``; the ``cryptography`` package's HPKE takes its
    own, which would leave vectors without fixed bytes, and is used to cross-check in the tests.
    """
    from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt

    ephemeral = entropy(32)
    enc = x25519_public(ephemeral)
    key, nonce = _hpke_key(_x25519(ephemeral, public), enc + public, info)
    return enc + crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, aad, nonce, key)


def hpke_open(private: bytes, info: bytes, sealed: bytes, aad: bytes = b"") -> bytes:
    """Open what ``hpke_seal`` made.

    Raises:
        NoMatchingKey: It was sealed to another key or for another purpose.
        HeaderError: The sender's key is of small order.
    """
    from nacl.bindings import crypto_aead_chacha20poly1305_ietf_decrypt
    from nacl.exceptions import CryptoError

    enc, ciphertext = sealed[:32], sealed[32:]
    key, nonce = _hpke_key(_x25519(private, enc), enc + x25519_public(private), info)
    try:
        return crypto_aead_chacha20poly1305_ietf_decrypt(ciphertext, aad, nonce, key)
    except CryptoError as error:
        msg = "this stanza is for another key"
        raise NoMatchingKey(msg, clause="7") from error


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """Cost of a passphrase: passes, and memory in KiB (RFC 9106; one lane)."""

    passes: int = 3
    kib: int = 262_144

    def check(self, limit: Argon2Cost) -> None:
        """Refuse costs out of the format's bounds or above ``limit``, before anything is computed."""
        passes = min(limit.passes, ARGON2_MAX_PASSES)
        kib = min(limit.kib, ARGON2_MAX_KIB)
        if not (1 <= self.passes <= passes and ARGON2_MIN_KIB <= self.kib <= kib):
            msg = (
                f"opening by passphrase would take {self.passes} passes over {self.kib} KiB; "
                f"this reader allows {passes} over {kib} KiB"
            )
            raise LimitError(msg, clause="7")


ARGON2_READER_LIMIT: Final = Argon2Cost(ARGON2_MAX_PASSES, ARGON2_MAX_KIB)


def argon2id(passphrase: str, salt: bytes, cost: Argon2Cost) -> bytes:
    """32 bytes of Argon2id 0x13 over the passphrase in NFC (RFC 9106)."""
    from nacl.bindings import crypto_pwhash_alg, crypto_pwhash_ALG_ARGON2ID13

    secret = unicodedata.normalize("NFC", passphrase).encode()
    return crypto_pwhash_alg(32, secret, salt, cost.passes, cost.kib * 1024, crypto_pwhash_ALG_ARGON2ID13)


def passphrase_seal(
    passphrase: str, right: int, archive_id: bytes, secret: bytes, cost: Argon2Cost, entropy: Entropy
) -> bytes:
    """Body of a type 2 stanza (format.md, section 7)."""
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

    salt, nonce = entropy(16), entropy(NONCE_SIZE)
    lead = salt + cost.passes.to_bytes(4, "little") + cost.kib.to_bytes(4, "little")
    aad = PASSPHRASE_AAD + bytes([right]) + archive_id + lead
    key = argon2id(passphrase, salt, cost)
    return lead + nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(secret, aad, nonce, key)


def passphrase_cost(body: bytes) -> Argon2Cost:
    """Cost that a type 2 stanza claims."""
    return Argon2Cost(int.from_bytes(body[16:20], "little"), int.from_bytes(body[20:24], "little"))


def passphrase_open(passphrase: str, right: int, archive_id: bytes, body: bytes, limit: Argon2Cost) -> bytes:
    """Open a type 2 stanza.

    Raises:
        LimitError: It claims a cost out of bounds.
        NoMatchingKey: The passphrase is another.
    """
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
    from nacl.exceptions import CryptoError

    cost = passphrase_cost(body)
    cost.check(limit)
    aad = PASSPHRASE_AAD + bytes([right]) + archive_id + body[:24]
    key = argon2id(passphrase, body[:16], cost)
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(body[48:], aad, body[24:48], key)
    except CryptoError as error:
        msg = "the passphrase is another"
        raise NoMatchingKey(msg, clause="7") from error


# --- Header keys --------------------------------------------------------------------------------


def check_commitments(keys: Keys, commit_secret: bytes, commit_index: bytes) -> None:
    """Compare what was unwrapped with the header's commitments, before anything is opened.

    AEAD ciphertexts can be made to open under two keys; the commitments pin the one.

    Raises:
        KeyFailure: They differ.
    """
    own = keys.commitment_to_secret()
    if (own is not None and not equal(own, commit_secret)) or not equal(keys.commitment_to_index_key(), commit_index):
        msg = "the key that was unwrapped is not the one the header commits to: the header was tampered with"
        raise KeyFailure(msg, clause="6.1")


# --- Signatures ---------------------------------------------------------------------------------

_P = 2**255 - 19
# y coordinates of the eight points whose order divides 8, sign of x aside.
_Y8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})
_ORDER = 2**252 + 27742317777372353535851937790883648493


def sign(seed: bytes, message: bytes) -> bytes:
    """Ed25519 signature (RFC 8032) with a 32-byte seed."""
    from nacl.signing import SigningKey

    return SigningKey(seed).sign(message).signature


def ed25519_public(seed: bytes) -> bytes:
    """Public half of an Ed25519 seed."""
    from nacl.signing import SigningKey

    return bytes(SigningKey(seed).verify_key)


def verify_signature(public: bytes, message: bytes, signature: bytes) -> None:
    """Verify strictly: libraries disagree on the edges, readers of one format must not.

    Raises:
        SignatureError: S is not below the group order, A or R is not canonical or of small
            order, or the equation does not hold.
    """
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    if len(signature) != 64 or int.from_bytes(signature[32:], "little") >= _ORDER:
        msg = "the signature is not in canonical form"
        raise SignatureError(msg, clause="10")
    for point in (public, signature[:32]):
        encoded = int.from_bytes(point, "little")
        y = encoded & ((1 << 255) - 1)
        if y >= _P or y in _SMALL_ORDER_Y:
            msg = "the signature uses a point that is not canonical or of small order"
            raise SignatureError(msg, clause="10")
    try:
        VerifyKey(public).verify(message, signature)
    except BadSignatureError as error:
        msg = "the signature does not verify: the archive was changed, or written by somebody else"
        raise SignatureError(msg, clause="10") from error
