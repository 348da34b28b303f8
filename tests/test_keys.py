"""Keys as a person holds them: text forms, files, wrapping; no secret in what is shown."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rozenfmt as rz
from rozenfmt.format.crypto import Argon2Cost
from rozenfmt.format.registry import Right
from rozenfmt.keys import VerifyKey

SEED = bytes(range(32))
CHEAP = Argon2Cost(1, 8)


def test_one_seed_always_gives_the_same_keys() -> None:
    # Written down so that a change of the derivation cannot go unnoticed: it would lock everybody out.
    assert str(rz.Identity(SEED).recipient) == EXPECTED_RECIPIENT
    assert str(rz.SigningKey(SEED).verify_key) == EXPECTED_VERIFY_KEY


EXPECTED_RECIPIENT = (
    "rzr137r6k3ujwhmnwq6hsqoriwajas2hh2xvvvbosgeacbarenzoaqeoagzhttchkekoeelgcab6cj2nzdcawvk2mrwt6tks4tjrd2taignsstv74"
)
EXPECTED_VERIFY_KEY = "rzv1aoqqpp7tzyil4hlq3umoos6atft6jvrqtosq2xy53sdgiesvgg4p7dix6m"


@given(st.binary(min_size=32, max_size=32))
def test_text_forms_come_back(seed: bytes) -> None:
    recipient = rz.Identity(seed).recipient
    assert rz.Recipient.parse(str(recipient)) == recipient
    assert rz.Recipient.parse(f"  {recipient}\n") == recipient
    verify = rz.SigningKey(seed).verify_key
    assert VerifyKey.parse(str(verify)) == verify
    assert str(recipient).isascii()
    assert str(recipient) == str(recipient).lower()


@given(st.data())
def test_a_typing_error_is_noticed(data: st.DataObject) -> None:
    text = str(rz.Identity(SEED).recipient)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567").filter(lambda c: c != text[at]))
    with pytest.raises(rz.UsageError):
        rz.Recipient.parse(text[:at] + other + text[at + 1 :])
    with pytest.raises(rz.UsageError):
        rz.Recipient.parse(text[:at])


@pytest.mark.parametrize("text", ["", "rzr1", "rzr1!!!!", "rzr1é", "rzv1" + "a" * 60, "age1abc", "RZR1ABC"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(rz.UsageError):
        rz.Recipient.parse(text)


@pytest.mark.parametrize("kind", [rz.Identity, rz.SigningKey])
def test_files(kind: type[rz.Identity | rz.SigningKey], tmp_path: Path) -> None:
    key = kind(SEED)
    path = tmp_path / "my.key"
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kind.load(path) == key
    assert kind.parse(path.read_text()) == key
    with pytest.raises(rz.UsageError):
        key.save(path)  # never overwritten
    with pytest.raises(rz.UsageError):
        key.save(tmp_path / "no-such-folder" / "my.key")


@pytest.mark.parametrize("kind", [rz.Identity, rz.SigningKey])
def test_locked_files(kind: type[rz.Identity | rz.SigningKey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rozenfmt.keys.Argon2Cost", lambda: CHEAP)
    key = kind(SEED)
    path = tmp_path / "my.key"
    key.save(path, passphrase="correct horse")
    assert kind.load(path, "correct horse") == key
    with pytest.raises(rz.UsageError):
        kind.load(path)
    with pytest.raises(rz.WrongPassphrase):
        kind.load(path, "wrong horse")


def test_a_locked_identity_is_no_signing_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rozenfmt.keys.Argon2Cost", lambda: CHEAP)
    rz.Identity(SEED).save(tmp_path / "me", passphrase="x")
    rz.Identity(SEED).save(tmp_path / "plain")
    for name in ("me", "plain"):
        with pytest.raises(rz.UsageError):
            rz.SigningKey.load(tmp_path / name, "x")


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"rzi1abc\nrzi1abc\n", b"\xff\xfe", b"rzi1" + b"a" * 40])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(rz.UsageError):
        rz.Identity.load(path)
    with pytest.raises(rz.UsageError):
        rz.Identity.load(tmp_path / "missing")


def test_nothing_secret_is_shown() -> None:
    phrase = rz.Passphrase("correct horse")
    for shown in (repr(rz.Identity(SEED)), repr(rz.SigningKey(SEED)), repr(phrase), str(phrase)):
        assert SEED.hex() not in shown
        assert "correct" not in shown
        assert "\\x00\\x01" not in shown


def test_seeds_have_32_bytes_and_passphrases_some() -> None:
    for make in (rz.Identity, rz.SigningKey):
        with pytest.raises(rz.UsageError):
            make(bytes(31))
    with pytest.raises(rz.UsageError):
        rz.Passphrase("")


def test_generated_keys_differ() -> None:
    assert rz.Identity.generate() != rz.Identity.generate()
    assert rz.SigningKey.generate() != rz.SigningKey.generate()


def test_wrapping_is_bound_to_right_and_archive() -> None:
    me, secret, archive = rz.Identity(SEED), bytes(32), bytes(16)
    for key in (me.recipient, rz.Passphrase("words", cost=CHEAP)):
        opener = me if key is me.recipient or isinstance(key, rz.Recipient) else key
        body = key.wrap(Right.READ, archive, secret, os.urandom)
        assert opener.unwrap(Right.READ, archive, body) == secret
        with pytest.raises(rz.NoMatchingKey):
            opener.unwrap(Right.BROWSE, archive, body)
        with pytest.raises(rz.NoMatchingKey):
            opener.unwrap(Right.READ, b"\1" * 16, body)


def test_passphrases_are_normalised() -> None:
    composed, decomposed = rz.Passphrase("caf\u00e9", cost=CHEAP), rz.Passphrase("cafe\u0301", cost=CHEAP)
    body = composed.wrap(Right.READ, bytes(16), bytes(32), os.urandom)
    assert decomposed.unwrap(Right.READ, bytes(16), body) == bytes(32)


def test_what_a_passphrase_may_cost_is_bounded() -> None:
    dear = rz.Passphrase("words", cost=Argon2Cost(17, 8))
    with pytest.raises(rz.LimitError):
        dear.wrap(Right.READ, bytes(16), bytes(32), os.urandom)
    body = rz.Passphrase("words", cost=Argon2Cost(2, 64)).wrap(Right.READ, bytes(16), bytes(32), os.urandom)
    with pytest.raises(rz.LimitError):
        rz.Passphrase("words", limit=CHEAP).unwrap(Right.READ, bytes(16), body)
