"""Primitives against published vectors and independent implementations; forgeries refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import nacl.bindings
import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM
from cryptography.hazmat.primitives.hpke import Suite as HpkeSuite
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given, settings
from hypothesis import strategies as st

from rozenfmt.errors import BlockError, HeaderError, KeyFailure, LimitError, NoMatchingKey, SignatureError
from rozenfmt.format import crypto
from rozenfmt.format.crypto import Argon2Cost, Keys
from rozenfmt.format.registry import Right, Seal, Suite

from .helpers import Stream, make_keys

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
SEALED = [Suite.XCHACHA20_POLY1305, Suite.XAES_256_GCM]


# --- AEADs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "aad", "expected"),
    [
        (b"\x01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\x03" * 32, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_xaes_vectors(key: bytes, aad: bytes, expected: str) -> None:
    nonce, sealed = crypto.seal(Suite.XAES_256_GCM, key, b"ABCDEFGHIJKLMNOPQRSTUVWX", b"XAES-256-GCM", aad)
    assert sealed.hex() == expected
    assert crypto.unseal(Suite.XAES_256_GCM, key, nonce + sealed, aad) == b"XAES-256-GCM"


def test_xaes_accumulated() -> None:
    """10,000 random cases at once, as c2sp.org/XAES-256-GCM gives them."""
    # hashlib's SHAKE gives all output at once: at most 568 bytes for each iteration.
    iterations = 10_000
    random = memoryview(hashlib.shake_128(b"").digest(iterations * 568))
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        return bytes(random[at - size : at])

    digest = hashlib.shake_128()
    for _ in range(iterations):
        key, nonce = take(32), take(24)
        plaintext = take(take(1)[0])
        aad = take(take(1)[0])
        _, sealed = crypto.seal(Suite.XAES_256_GCM, key, nonce, plaintext, aad)
        assert crypto.unseal(Suite.XAES_256_GCM, key, nonce + sealed, aad) == plaintext
        digest.update(sealed)
    assert digest.hexdigest(32) == "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"


def test_xchacha_vector() -> None:
    """draft-irtf-cfrg-xchacha-03, appendix A.3.1."""
    plaintext = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    aad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    key = bytes(range(0x80, 0xA0))
    nonce = bytes(range(0x40, 0x58))
    expected = (
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
        "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
        "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
    )
    _, sealed = crypto.seal(Suite.XCHACHA20_POLY1305, key, nonce, plaintext, aad)
    assert sealed.hex() == expected
    assert crypto.unseal(Suite.XCHACHA20_POLY1305, key, nonce + sealed, aad) == plaintext


def test_hchacha_vector() -> None:
    """draft-irtf-cfrg-xchacha-03, section 2.2.1."""
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    expected = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert crypto._hchacha20(bytes(range(32)), nonce).hex() == expected


@settings(max_examples=20)
@given(
    key=st.binary(min_size=32, max_size=32),
    nonce=st.binary(min_size=24, max_size=24),
    aad=st.binary(max_size=80),
    size=st.sampled_from([-100, -40, -1, 0, 1, 63, 200_000]).map(lambda more: crypto._LONG + more),
)
def test_long_sections_agree_with_an_independent_implementation(
    key: bytes, nonce: bytes, aad: bytes, size: int
) -> None:
    plaintext = (key * (size // 32 + 1))[:size]
    expected = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, aad, nonce, key)
    assert crypto.seal(Suite.XCHACHA20_POLY1305, key, nonce, plaintext, aad) == (nonce, expected)
    section = memoryview(nonce + expected)
    assert crypto.unseal(Suite.XCHACHA20_POLY1305, key, section, aad) == plaintext
    for changed in (0, 23, 24, 24 + size // 2, len(section) - 1):
        other = bytearray(section)
        other[changed] ^= 1
        with pytest.raises(BlockError):
            crypto.unseal(Suite.XCHACHA20_POLY1305, key, bytes(other), aad)
    with pytest.raises(BlockError):
        crypto.unseal(Suite.XCHACHA20_POLY1305, key, section, aad + b"0")


@pytest.mark.parametrize("suite", SEALED)
def test_every_changed_input_is_refused(suite: Suite) -> None:
    key, nonce, plaintext, aad = b"k" * 32, b"n" * 24, b"some plaintext", b"associated"
    section = b"".join(crypto.seal(suite, key, nonce, plaintext, aad))
    assert len(section) == len(plaintext) + crypto.SEAL_OVERHEAD
    for bit in range(8 * len(section)):
        changed = bytearray(section)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BlockError):
            crypto.unseal(suite, key, bytes(changed), aad)
    for length in range(len(section)):
        with pytest.raises(BlockError):
            crypto.unseal(suite, key, section[:length], aad)
    with pytest.raises(BlockError):
        crypto.unseal(suite, key, section + b"\0", aad)
    for wrong in (b"", aad + b"\0", b"Associated"):
        with pytest.raises(BlockError):
            crypto.unseal(suite, key, section, wrong)
    with pytest.raises(BlockError):
        crypto.unseal(suite, b"K" * 32, section, aad)
    other = SEALED[1 - SEALED.index(suite)]
    with pytest.raises(BlockError):
        crypto.unseal(other, key, section, aad)


@settings(max_examples=30)
@given(key=st.binary(min_size=32, max_size=32), plaintext=st.binary(max_size=300), aad=st.binary(max_size=80))
def test_seal_round_trip(key: bytes, plaintext: bytes, aad: bytes) -> None:
    for suite in SEALED:
        section = b"".join(crypto.seal(suite, key, crypto.digest(key)[:24], bytearray(plaintext), aad))
        assert crypto.unseal(suite, key, memoryview(section), aad) == plaintext


# --- HPKE ---------------------------------------------------------------------------------------

INFO = b"Ode on a Grecian Urn"
PLAINTEXT = b"Beauty is truth, truth beauty"
SK_E = bytes.fromhex("f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600")
SK_R = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
PK_R = bytes.fromhex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
ENC = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
SEALED_TEXT = bytes.fromhex(
    "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
)
HPKE = HpkeSuite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def test_hpke_vector() -> None:
    """RFC 9180, appendix A.2.1, sequence number 0."""
    assert crypto.x25519_public(SK_R) == PK_R
    sealed = crypto.hpke_seal(PK_R, INFO, PLAINTEXT, lambda size: SK_E[:size], b"Count-0")
    assert sealed == ENC + SEALED_TEXT
    assert crypto.hpke_open(SK_R, INFO, ENC + SEALED_TEXT, b"Count-0") == PLAINTEXT


@settings(max_examples=20)
@given(private=st.binary(min_size=32, max_size=32), info=st.binary(max_size=60), plaintext=st.binary(max_size=60))
def test_hpke_agrees_with_an_independent_implementation(private: bytes, info: bytes, plaintext: bytes) -> None:
    theirs = x25519.X25519PrivateKey.from_private_bytes(private)
    public = theirs.public_key().public_bytes_raw()
    assert public == crypto.x25519_public(private)
    assert crypto.hpke_open(private, info, HPKE.encrypt(plaintext, theirs.public_key(), info)) == plaintext
    assert HPKE.decrypt(crypto.hpke_seal(public, info, plaintext, Stream(info)), theirs, info) == plaintext


def test_hpke_refuses_what_was_changed_or_is_for_others() -> None:
    sealed = crypto.hpke_seal(PK_R, INFO, b"s" * 32, Stream())
    assert len(sealed) == 80
    assert crypto.hpke_open(SK_R, INFO, sealed) == b"s" * 32
    for number in range(80):
        changed = bytearray(sealed)
        changed[number] ^= 0x40
        with pytest.raises(NoMatchingKey):
            crypto.hpke_open(SK_R, INFO, bytes(changed))
    for private, info, aad in ((SK_E, INFO, b""), (SK_R, INFO + b"x", b""), (SK_R, INFO, b"x")):
        with pytest.raises(NoMatchingKey):
            crypto.hpke_open(private, info, sealed, aad)


def _small_order_u() -> list[bytes]:
    """u coordinates of small order on curve and twist, and their non-canonical forms."""
    other = int.from_bytes(bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), "little")
    more = int.from_bytes(bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"), "little")
    return [value.to_bytes(32, "little") for value in (0, 1, other, more, P - 1, P, P + 1)]


@pytest.mark.parametrize("public", _small_order_u(), ids=lambda value: value.hex()[:8])
def test_all_zero_shared_secrets_are_refused(public: bytes) -> None:
    with pytest.raises(HeaderError):
        crypto.hpke_open(SK_R, INFO, public + bytes(48))
    with pytest.raises(HeaderError):
        crypto.hpke_seal(public, INFO, bytes(32), Stream())


# --- Passphrases --------------------------------------------------------------------------------


@pytest.mark.parametrize(("passes", "kib"), [(1, 8), (3, 64), (2, 1_024)])
def test_argon2id_agrees_with_an_independent_implementation(passes: int, kib: int) -> None:
    salt = bytes(range(16))
    expected = Argon2id(salt=salt, length=32, iterations=passes, lanes=1, memory_cost=kib).derive("pa\u00df".encode())
    assert crypto.argon2id("pa\u00df", salt, Argon2Cost(passes, kib)) == expected


def test_passphrases_are_normalised() -> None:
    cost = Argon2Cost(1, 8)
    assert crypto.argon2id("e\u0301", bytes(16), cost) == crypto.argon2id("\u00e9", bytes(16), cost)
    assert crypto.argon2id("e", bytes(16), cost) != crypto.argon2id("\u00e9", bytes(16), cost)


def test_passphrase_round_trip_and_refusals() -> None:
    cost, archive_id = Argon2Cost(1, 8), b"i" * 16
    body = crypto.passphrase_seal("correct horse", 1, archive_id, b"s" * 32, cost, Stream())
    assert len(body) == 96
    assert crypto.passphrase_cost(body) == cost

    def unlock(passphrase: str, right: int, archive: bytes, data: bytes) -> bytes:
        return crypto.passphrase_open(passphrase, right, archive, data, crypto.ARGON2_READER_LIMIT)

    assert unlock("correct horse", 1, archive_id, body) == b"s" * 32
    for passphrase, right, archive in (("wrong", 1, archive_id), ("correct horse", 2, archive_id)):
        with pytest.raises(NoMatchingKey):
            unlock(passphrase, right, archive, body)
    with pytest.raises(NoMatchingKey):
        unlock("correct horse", 1, b"j" * 16, body)
    for number in [*range(16), *range(24, 96)]:
        changed = bytearray(body)
        changed[number] ^= 1
        with pytest.raises(NoMatchingKey):
            unlock("correct horse", 1, archive_id, bytes(changed))


@pytest.mark.parametrize(
    ("passes", "kib"), [(0, 8), (17, 8), (1, 7), (1, 0), (1, 1_048_577), (2**32 - 1, 8), (1, 2**32 - 1)]
)
def test_costs_out_of_bounds_are_refused_before_anything_is_computed(passes: int, kib: int) -> None:
    body = bytes(16) + passes.to_bytes(4, "little") + kib.to_bytes(4, "little") + bytes(72)
    with pytest.raises(LimitError):
        crypto.passphrase_open("x", 1, bytes(16), body, crypto.ARGON2_READER_LIMIT)


def test_a_reader_may_set_lower_bounds_but_no_higher_ones() -> None:
    with pytest.raises(LimitError):
        Argon2Cost(2, 64).check(Argon2Cost(1, 64))
    with pytest.raises(LimitError):
        Argon2Cost(1, 65).check(Argon2Cost(1, 64))
    with pytest.raises(LimitError):
        Argon2Cost(17, 64).check(Argon2Cost(99, 99))
    Argon2Cost(1, 64).check(Argon2Cost(1, 64))


# --- Derivation ---------------------------------------------------------------------------------


def test_keys_of_both_rights_agree_and_are_all_different() -> None:
    keys = make_keys(Suite.XAES_256_GCM)
    browse = Keys.from_index_key(keys.suite, keys.archive_id, keys.index_key)
    assert keys.right is Right.READ
    assert browse.right is Right.BROWSE
    shared = ("index_key", "seal_index", "header_mac_index", "foot_mac_index", "path_key")
    private = ("secret", "seal_content", "header_mac_secret", "foot_mac_secret", "block_mac", "id_key")
    for name in shared:
        assert getattr(keys, name) == getattr(browse, name)
    for name in private:
        assert getattr(browse, name) is None
    assert len({getattr(keys, name) for name in shared + private}) == len(shared + private)
    assert browse.seal_key(Seal.CONTENT) is None
    assert browse.commitment_to_secret() is None
    assert browse.commitment_to_index_key() == keys.commitment_to_index_key()
    assert keys.secret is not None
    for shown in (repr(keys), str(keys), f"{browse}"):
        assert keys.secret.hex() not in shown
        assert repr(keys.secret)[2:-1] not in shown


def test_derivation_is_that_of_the_specification() -> None:
    from blake3 import blake3

    secret, archive_id = b"s" * 32, b"a" * 16
    keys = Keys.from_secret(Suite.XCHACHA20_POLY1305, archive_id, secret)

    def kdf(label: str, material: bytes) -> bytes:
        return blake3(material, derive_key_context="rozenfmt v0 2026-11 " + label).digest()

    index = kdf("index key I", secret)
    assert keys.index_key == index
    assert keys.seal_index == kdf("seal I", index)
    assert keys.seal_content == kdf("seal C", kdf("content key C", secret))
    assert keys.id_key == kdf("content id", secret)
    assert keys.path_key == kdf("path", index)
    assert keys.header_mac_index == kdf("header mac I", index)
    assert keys.header_mac_secret == kdf("header mac S", secret)
    assert keys.foot_mac_index == kdf("foot mac I", index)
    assert keys.foot_mac_secret == kdf("foot mac S", secret)
    assert keys.block_mac == kdf("block mac S", secret)
    assert keys.commitment_to_secret() == kdf("commit S", secret + archive_id)
    assert keys.commitment_to_index_key() == kdf("commit I", index + archive_id)
    content = b"content"
    expected = blake3(blake3(content).digest() + (7).to_bytes(8, "little"), key=keys.id_key).digest()
    assert crypto.content_id(keys.id_key, crypto.digest(content), 7) == expected


def test_commitments() -> None:
    keys = make_keys(Suite.XCHACHA20_POLY1305)
    secret, index = keys.commitment_to_secret(), keys.commitment_to_index_key()
    assert secret is not None
    crypto.check_commitments(keys, secret, index)
    browse = Keys.from_index_key(keys.suite, keys.archive_id, keys.index_key)
    crypto.check_commitments(browse, bytes(32), index)  # a holder of I cannot check the other one
    for wrong_secret, wrong_index in ((bytes(32), index), (secret, bytes(32)), (index, secret)):
        with pytest.raises(KeyFailure):
            crypto.check_commitments(keys, wrong_secret, wrong_index)
    with pytest.raises(KeyFailure):
        crypto.check_commitments(browse, secret, bytes(32))
    with pytest.raises(KeyFailure):
        crypto.check_commitments(replace(keys, archive_id=bytes(16)), secret, index)


# --- Signatures ---------------------------------------------------------------------------------

RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_ed25519_vectors(seed: str, public: str, message: str, signature: str) -> None:
    """RFC 8032, section 7.1."""
    assert crypto.ed25519_public(bytes.fromhex(seed)).hex() == public
    assert crypto.sign(bytes.fromhex(seed), bytes.fromhex(message)).hex() == signature
    crypto.verify_signature(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))


def _signed() -> tuple[bytes, bytes, bytes]:
    seed = b"x" * 32
    return crypto.ed25519_public(seed), b"message", crypto.sign(seed, b"message")


def test_every_changed_signature_is_refused() -> None:
    public, message, signature = _signed()
    for bit in range(512):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError):
            crypto.verify_signature(public, message, bytes(changed))
    for bit in range(256):
        changed = bytearray(public)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError):
            crypto.verify_signature(bytes(changed), message, signature)
    for wrong in (signature[:-1], signature + b"\0", b""):
        with pytest.raises(SignatureError):
            crypto.verify_signature(public, message, wrong)
    with pytest.raises(SignatureError):
        crypto.verify_signature(public, b"Message", signature)


def test_malleable_scalars_are_refused() -> None:
    public, message, signature = _signed()
    scalar = int.from_bytes(signature[32:], "little")
    while (scalar := scalar + ORDER) < 2**256:
        with pytest.raises(SignatureError):
            crypto.verify_signature(public, message, signature[:32] + scalar.to_bytes(32, "little"))


def _bad_points() -> list[bytes]:
    """The eight points of small order, then every encoding that is not canonical."""
    y8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
    ys = (0, 1, P - 1, y8, P - y8, *range(P, 2**255))
    return [(y | sign << 255).to_bytes(32, "little") for y in ys for sign in (0, 1)]


@pytest.mark.parametrize("point", _bad_points(), ids=lambda value: value.hex()[:6] + value.hex()[-2:])
def test_small_order_and_non_canonical_points_are_refused(point: bytes) -> None:
    public, message, signature = _signed()
    with pytest.raises(SignatureError):
        crypto.verify_signature(point, message, signature)
    with pytest.raises(SignatureError):
        crypto.verify_signature(public, message, point + signature[32:])
    # With A of small order, R = A and S = 0 satisfies the equation for one message in eight.
    for number in range(32):
        with pytest.raises(SignatureError):
            crypto.verify_signature(point, b"%d" % number, point + bytes(32))


def test_eight_points_really_have_small_order() -> None:
    """The list above is what it says: each canonical point there, times eight, is the neutral element."""
    d = -121665 * pow(121666, -1, P) % P

    def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        product = d * a[0] * b[0] * a[1] * b[1] % P
        x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, P) % P
        y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P) % P
        return x, y

    found = 0
    for encoding in _bad_points()[:10]:
        y = int.from_bytes(encoding, "little") & (1 << 255) - 1
        square = (y * y - 1) * pow(d * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        if x * x % P != square:
            x = x * pow(2, (P - 1) // 4, P) % P
        assert x * x % P == square
        sign = encoding[31] >> 7
        if x == 0 and sign:
            continue  # no such encoding in canonical form
        point = (x if x & 1 == sign else P - x, y)
        found += 1
        for _ in range(3):
            point = add(point, point)
        assert point == (0, 1)
    assert found == 8
