"""Host keys: what the owner takes to a host; text, file, and nothing secret shown."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rozenfmt.errors import UsageError
from rozenfmt.format import cbor, crypto
from rozenfmt.keys import SigningKey, _decode, _encode
from rozenfmt.vault.hostkey import HostKey

from . import OWNER

KEY = HostKey(
    vault_id=bytes(range(16)),
    host_id=bytes(range(16, 32)),
    label="laptop",
    owner=OWNER.recipient,
    id_key=crypto.digest(b"id key"),
    chunker_key=crypto.digest(b"chunker key"),
    signing=SigningKey(crypto.digest(b"signing key")),
    pin_number=7,
    pin_digests=(bytes(32), b"\x01" * 32),
)


def payload() -> dict[int, Any]:
    found = cbor.loads(_decode("rzh1", KEY.to_text(), "a host key"))
    assert isinstance(found, dict)
    return found


@given(
    st.text(max_size=60),
    st.integers(1, 2**64 - 1),
    st.sets(st.binary(min_size=32, max_size=32), min_size=1, max_size=4),
)
def test_the_text_comes_back(label: str, number: int, digests: set[bytes]) -> None:
    key = replace(KEY, label=label, pin_number=number, pin_digests=tuple(sorted(digests)))
    assert HostKey.parse(key.to_text()) == key
    assert HostKey.parse(f"# a comment\n\n  {key.to_text()}  \n") == key
    assert key.to_text().startswith("rzh1") and key.to_text().isascii() and "\n" not in key.to_text()


@given(st.data())
def test_a_typing_error_is_noticed(data: st.DataObject) -> None:
    text = KEY.to_text()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567").filter(lambda c: c != text[at]))
    for wrong in (text[:at] + other + text[at + 1 :], text[:at], text[:at] + text[at + 1 :]):
        with pytest.raises(UsageError):
            HostKey.parse(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {1: bytes(15)},
        {2: "text"},
        {3: "x" * 256},
        {3: b"bytes"},
        {4: bytes(63)},
        {5: b""},
        {7: bytes(33)},
        {8: 0},
        {8: -1},
        {9: b""},
        {9: bytes(31)},
        {9: bytes(64)},
        {9: b"\x01" * 32 + bytes(32)},
        {10: 1},
    ],
    ids=str,
)
def test_malformed_ones_are_refused(change: dict[int, Any]) -> None:
    with pytest.raises(UsageError):
        HostKey.parse(_encode("rzh1", cbor.dumps(payload() | change)))


@pytest.mark.parametrize("missing", range(1, 10))
def test_all_fields_are_needed(missing: int) -> None:
    values = payload()
    del values[missing]
    with pytest.raises(UsageError):
        HostKey.parse(_encode("rzh1", cbor.dumps(values)))


def test_other_payloads_are_refused() -> None:
    for wrong in (b"", b"\xa0", b"\x01", cbor.dumps(payload()) + b"\0"):
        with pytest.raises(UsageError):
            HostKey.parse(_encode("rzh1", wrong))
    for text in ("", "# nothing", OWNER.recipient.__str__(), KEY.to_text() + "\n" + KEY.to_text()):
        with pytest.raises(UsageError):
            HostKey.parse(text)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "host.key"
    KEY.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert HostKey.load(path) == KEY
    text = path.read_text()
    assert HostKey.parse(text) == KEY
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert "Keep it secret" in comments[0] and "laptop" in text and KEY.vault_id.hex() in text
    with pytest.raises(UsageError, match="never overwritten"):
        replace(KEY, label="other").save(path)
    assert HostKey.load(path) == KEY
    with pytest.raises(UsageError):
        KEY.save(tmp_path / "no-such-folder" / "host.key")
    with pytest.raises(UsageError):
        HostKey.load(tmp_path / "nothing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError):
        HostKey.load(tmp_path / "binary")


@pytest.mark.parametrize("label", ["büro", "a\nrzh1abc", "a\rrzh1abc", "a\u2028rzh1abc", "\x1b[2J", "", "back\\slash"])
def test_any_label_makes_a_file_that_comes_back(label: str, tmp_path: Path) -> None:
    key = replace(KEY, label=label)
    key.save(tmp_path / "host.key")
    assert HostKey.load(tmp_path / "host.key") == key


def test_impossible_ones_are_not_made() -> None:
    wrong: list[dict[str, Any]] = [
        {"label": "x" * 256},
        {"label": "\udce9"},
        {"vault_id": b""},
        {"host_id": bytes(15)},
        {"id_key": bytes(31)},
        {"chunker_key": bytes(33)},
        {"pin_number": 0},
        {"pin_digests": ()},
        {"pin_digests": (b"short",)},
    ]
    for change in wrong:
        with pytest.raises(UsageError):
            replace(KEY, **change)


def test_nothing_secret_is_shown() -> None:
    for shown in (repr(KEY), str(KEY), f"{KEY}"):
        assert "laptop" in shown
        for secret in (KEY.id_key, KEY.chunker_key, KEY.signing.seed):
            assert secret.hex() not in shown and repr(secret)[2:-1] not in shown
        assert "rzh1" not in shown


def test_the_seed_for_cutting_files_is_written_down() -> None:
    # It must never change: all files would be cut elsewhere, and stored again.
    assert KEY.chunker_seed == int.from_bytes(crypto.derive("chunker", KEY.chunker_key)[:8], "little")
    assert KEY.chunker_seed == EXPECTED_SEED
    assert replace(KEY, chunker_key=bytes(32)).chunker_seed != KEY.chunker_seed


EXPECTED_SEED = 16403300071582264384
