"""Vaults: editions, keys, hosts; honest ones and those that no honest program makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from rozenfmt.errors import NoMatchingKey
from rozenfmt.format import crypto, records
from rozenfmt.format.registry import Right, Suite
from rozenfmt.keys import Identity, Recipient
from rozenfmt.vault import editing, editions, keyring
from rozenfmt.vault.editions import BrowseBox, Edition, ReadBox, merge, parse_edition
from rozenfmt.vault.keyring import Keyring, open_keyring

NOW: Final = 1_790_000_000_000_000_000


class Dice:
    """Entropy that is the same in every run."""

    def __init__(self, seed: int = 0) -> None:
        self._state = crypto.digest(b"dice", seed.to_bytes(8, "little"))

    def __call__(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            self._state = crypto.digest(self._state)
            out += self._state[:16]
        return out[:size]


def identity(number: int) -> Identity:
    return Identity(crypto.digest(b"identity", bytes([number])))


OWNER: Final = identity(0)
READER: Final = identity(1)
BROWSER: Final = identity(2)
STRANGER: Final = identity(3)
CAROL: Final = identity(4)
DAVE: Final = identity(5)


def first(seed: int = 0, *, recipients: tuple[Recipient, ...] = (), browsers: tuple[Recipient, ...] = ()) -> Edition:
    raw = editing.first_edition(OWNER, recipients=recipients, browsers=browsers, entropy=Dice(seed), now_ns=NOW)
    return parse_edition(raw)


def opened(*of: Edition, by: Identity = OWNER) -> Keyring:
    return open_keyring(merge(of), [by])


def after(*of: Edition, seed: int = 1, **changes: Any) -> Edition:
    """The edition that the owner makes next."""
    return parse_edition(editing.next_edition(opened(*of), OWNER, entropy=Dice(seed), now_ns=NOW, **changes))


def sign(body: bytes, *, by: Identity = OWNER, vault_id: bytes, label: bytes = editions.SIGNATURE_LABEL) -> bytes:
    """An object of any record, with a valid signature."""
    return editions.build_signed(editions.MAGIC, label, by, vault_id, body)


def altered(edition: Edition, *, by: Identity = OWNER, **changes: Any) -> bytes:
    """The edition with other fields, signed, and not checked by anybody."""
    record = replace(edition.record, **changes)
    return sign(records.encode(record), by=by, vault_id=record.vault_id)


def reboxed(edition: Edition, who: Identity, change: Callable[[Any], Any]) -> Edition:
    """The edition with something else in the box that ``who`` opens, signed by the owner."""
    for right, body in edition.record.stanzas:
        info = keyring.place(keyring.STANZA_INFO, Right(right), edition.vault_id, edition.number)
        aad = keyring.place(keyring.BOX_AAD, Right(right), edition.vault_id, edition.number)
        try:
            key = crypto.hpke_open(who._x25519, info, body)
        except NoMatchingKey:
            continue
        name, kind = ("read_box", ReadBox) if right == Right.READ else ("browse_box", BrowseBox)
        plain = crypto.unseal(Suite.XCHACHA20_POLY1305, key, getattr(edition.record, name), aad)
        changed = change(records.decode(kind, plain))
        new = changed if type(changed) is bytes else records.encode(changed)
        box = b"".join(crypto.seal(Suite.XCHACHA20_POLY1305, key, bytes(24), new, aad))
        fields: dict[str, Any] = {name: box}
        return parse_edition(altered(edition, **fields))
    raise AssertionError
