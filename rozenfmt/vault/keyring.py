"""What a person can do with a vault's editions: open their boxes.

``open_keyring`` turns a view and identities into keys that open archives.  This module holds private
keys of epochs and ids; it must not know archives or storage, and whatever it shows names no secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from rozenfmt.display import count
from rozenfmt.errors import (
    BlockError,
    KeyFailure,
    NoMatchingKey,
)
from rozenfmt.format import crypto, records
from rozenfmt.format.registry import Right, StanzaType, Suite
from rozenfmt.keys import Identity, Recipient
from rozenfmt.vault.editions import (
    BrowseBox,
    Edition,
    EditionView,
    PersonState,
    ReadBox,
)

__all__ = [
    "BOX_AAD",
    "STANZA_INFO",
    "EpochKey",
    "Keyring",
    "OpenedHead",
    "Person",
    "open_keyring",
    "person_key",
    "place",
]

# Bound to the right, the vault and the edition's number: a browse stanza cannot be passed off as a
# read stanza, nor can a box be carried into another edition.
STANZA_INFO: Final = b"rozenfmt v0 edition stanza"
BOX_AAD: Final = b"rozenfmt v0 edition box"


def place(label: bytes, right: Right, vault_id: bytes, number: int) -> bytes:
    """What a stanza or box is bound to: label, right, vault, and number of the edition."""
    return label + bytes([right]) + vault_id + number.to_bytes(8, "little")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may read or browse a vault.

    Attributes:
        recipient: The person's public key.
        right: To read, or to browse.
        state: Whether the person is still there.
        label: What the owner calls the person, at most 255 bytes.
    """

    recipient: Recipient
    right: Right = Right.READ
    state: PersonState = PersonState.PRESENT
    label: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class EpochKey:
    """A private key of an epoch: opens the archives' stanzas of one right, and no others.

    Attributes:
        epoch_id: Of which epoch.
        right: The right whose stanzas it opens.
    """

    epoch_id: bytes
    right: Right
    _private: bytes = field(repr=False)

    stanza_type: ClassVar[StanzaType] = StanzaType.X25519

    def unwrap(self, right: int, archive_id: bytes, body: bytes) -> bytes:
        """Open a stanza of type 1.

        Raises:
            NoMatchingKey: It is for another epoch, or gives another right.
            HeaderError: The sender's key is of small order.
        """
        if right != self.right:
            msg = f"this key of an epoch opens stanzas of right {self.right:d} only"
            raise NoMatchingKey(msg, clause="vault 2")
        return crypto.hpke_open(self._private, crypto.stanza_info(right, archive_id), body)

    def __repr__(self) -> str:
        return f"EpochKey(epoch_id={self.epoch_id.hex()}, right={self.right.name})"


@dataclass(frozen=True, slots=True, repr=False)
class OpenedHead:
    """What one head's box holds; secret."""

    head: Edition
    right: Right
    epochs: Mapping[bytes, tuple[bytes | None, bytes]]
    hosts: Mapping[bytes, tuple[bytes | None, str]]
    people: tuple[Person, ...]


# --- Opening ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """A view, opened by somebody's identities.

    Of several heads some may not open, since somebody was added in one of them only; then what
    only those hold is not there, until the owner makes the next edition.

    Attributes:
        view: What was opened.
        right: The best right that the identities have.
        unwrappers: Keys of all epochs, the newest first; with the right to read both kinds.
        people: All persons, with the right to read only; ascending by recipient.
    """

    view: EditionView
    right: Right
    unwrappers: tuple[EpochKey, ...]
    people: list[Person]
    _id_keys: Mapping[bytes, bytes] = field(repr=False)
    _labels: Mapping[bytes, str] = field(repr=False)
    _opened: tuple[OpenedHead, ...] = field(repr=False)

    def id_key(self, host_id: bytes) -> bytes | None:
        """The key of a host's content ids, or None where only the right to browse is at hand.

        Raises:
            SignatureError: The owner has signed no such host.
        """
        self.view.host(host_id)
        return self._id_keys.get(host_id)

    def label(self, host_id: bytes) -> str:
        """What people call a host; its id where the identities open no edition that says so.

        Raises:
            SignatureError: The owner has signed no such host.
        """
        self.view.host(host_id)
        return self._labels.get(host_id, host_id.hex())

    def __repr__(self) -> str:
        return f"Keyring(vault_id={self.view.vault_id.hex()}, number={self.view.number}, right={self.right.name})"


def open_keyring(view: EditionView, identities: Iterable[Identity]) -> Keyring:
    """Open the boxes of all heads that one of the identities opens.

    Raises:
        NoMatchingKey: None opens.
        KeyFailure: A box does not open with its key, is malformed, or contradicts what was signed.
        HeaderError: A stanza's key is of small order.
        LimitError: A label is too long.
    """
    # Deriving costs; a vault of many people has many stanzas to try.
    privates = [identity._x25519 for identity in identities]  # noqa: SLF001 - opens another stanza than an archive's
    found = [_open_head(head, privates) for head in view.heads]
    opened = tuple(one for one in found if one is not None)
    if not opened:
        stanzas = [right for head in view.heads for right, _ in head.record.stanzas]
        msg = (
            f"none of the keys given opens this vault. It has {count(stanzas.count(Right.READ), 'stanza')} to read and "
            f"{stanzas.count(Right.BROWSE)} to browse; ask its owner to add you, or give another key"
        )
        raise NoMatchingKey(msg, clause="vault 3.2")
    return _keyring(view, opened)


def _keyring(view: EditionView, opened: tuple[OpenedHead, ...]) -> Keyring:
    unwrappers: list[EpochKey] = []
    for epoch in reversed(view.epochs):
        pairs = [one.epochs[epoch.id] for one in opened if epoch.id in one.epochs]
        read = next((read for read, _ in pairs if read is not None), None)
        if read is not None:
            unwrappers.append(EpochKey(epoch.id, Right.READ, read))
        if pairs:
            unwrappers.append(EpochKey(epoch.id, Right.BROWSE, pairs[0][1]))
    id_keys: dict[bytes, bytes] = {}
    labels: dict[bytes, str] = {}
    people: dict[Recipient, Person] = {}
    # Of labels the one of the higher number counts, then of the higher digest: the last one here.
    for one in sorted(opened, key=lambda one: (one.head.number, one.head.digest)):
        for host_id, (id_key, label) in one.hosts.items():
            labels[host_id] = label
            if id_key is not None and not crypto.equal(id_keys.setdefault(host_id, id_key), id_key):
                msg = f"two editions have different id keys for host {host_id.hex()}; do not use this vault"
                raise KeyFailure(msg, clause="vault 3.3")
        for person in one.people:
            other = people.get(person.recipient, person)
            people[person.recipient] = replace(
                person, right=min(person.right, other.right), state=max(person.state, other.state)
            )
    return Keyring(
        view=view,
        right=min(one.right for one in opened),
        unwrappers=tuple(unwrappers),
        people=sorted(people.values(), key=person_key),
        _id_keys=id_keys,
        _labels=labels,
        _opened=opened,
    )


def person_key(person: Person) -> bytes:
    """What people are sorted by in an edition."""
    return person.recipient.x25519 + person.recipient.ed25519


def _open_head(head: Edition, privates: Sequence[bytes]) -> OpenedHead | None:
    for wanted in (Right.READ, Right.BROWSE):
        info = place(STANZA_INFO, wanted, head.vault_id, head.number)
        for right, body in head.record.stanzas:
            if right != wanted:
                continue
            for private in privates:
                try:
                    box_key = crypto.hpke_open(private, info, body)
                except NoMatchingKey:
                    continue
                # The first stanza that opens decides, as in an archive's header.
                return _open_read_box(head, box_key) if wanted is Right.READ else _open_browse_box(head, box_key)
    return None


def _unseal(head: Edition, right: Right, box_key: bytes, box: bytes) -> bytes:
    try:
        return crypto.unseal(Suite.XCHACHA20_POLY1305, box_key, box, place(BOX_AAD, right, head.vault_id, head.number))
    except BlockError as error:
        raise _contradicts(head, "its box does not open with the key that the stanza wraps") from error


def _open_read_box(head: Edition, box_key: bytes) -> OpenedHead:
    plain = _unseal(head, Right.READ, box_key, head.record.read_box)
    box = records.decode(ReadBox, plain, KeyFailure, "vault 3.2")
    people = tuple(
        Person(Recipient(recipient[:32], recipient[32:]), Right(right), PersonState(state), label)
        for recipient, right, state, label in box.people
    )
    _check_ids(head, "people", [row[0] for row in box.people], sorted({row[0] for row in box.people}))
    if not any(
        person.recipient == head.owner and person.right is Right.READ and person.state is PersonState.PRESENT
        for person in people
    ):
        raise _contradicts(head, "the owner is not among its people")
    opened = OpenedHead(
        head=head,
        right=Right.READ,
        epochs={id_: (read, browse) for id_, read, browse in box.epochs},
        hosts={id_: (id_key, label) for id_, id_key, label in box.hosts},
        people=people,
    )
    return _checked(opened, [row[0] for row in box.epochs], [row[0] for row in box.hosts])


def _open_browse_box(head: Edition, box_key: bytes) -> OpenedHead:
    plain = _unseal(head, Right.BROWSE, box_key, head.record.browse_box)
    box = records.decode(BrowseBox, plain, KeyFailure, "vault 3.2")
    opened = OpenedHead(
        head=head,
        right=Right.BROWSE,
        epochs={id_: (None, browse) for id_, browse in box.epochs},
        hosts={id_: (None, label) for id_, label in box.hosts},
        people=(),
    )
    return _checked(opened, [row[0] for row in box.epochs], [row[0] for row in box.hosts])


def _checked(opened: OpenedHead, epoch_ids: list[bytes], host_ids: list[bytes]) -> OpenedHead:
    """Hold a box against the record that the owner signed."""
    head = opened.head
    _check_ids(head, "epochs", epoch_ids, sorted(epoch.id for epoch in head.epochs))
    _check_ids(head, "hosts", host_ids, sorted(host.host_id for host in head.hosts))
    for epoch in head.epochs:
        read, browse = opened.epochs[epoch.id]
        right = crypto.equal(crypto.x25519_public(browse), epoch.browse_public)
        if read is not None:
            right &= crypto.equal(crypto.x25519_public(read), epoch.read_public)
        if not right:
            raise _contradicts(head, f"a private key of epoch {epoch.number} does not give its public key")
    return opened


def _check_ids(head: Edition, what: str, found: list[bytes], expected: list[bytes]) -> None:
    if found != expected:
        raise _contradicts(head, f"its box has other {what} than its record, one of them twice, or another order")


def _contradicts(head: Edition, words: str) -> KeyFailure:
    msg = f"edition {head.number} with digest {head.digest.hex()} contradicts itself: {words}; do not use it"
    return KeyFailure(msg, clause="vault 3.2")
