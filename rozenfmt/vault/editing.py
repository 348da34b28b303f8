"""Making editions, as the vault's owner: people, hosts, epochs (vault.md, section 3).

Nothing is stored here: ``loading.store_edition`` does.  Secrets pass through, and are never shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rozenfmt.errors import HeaderError, UsageError
from rozenfmt.format import crypto, records
from rozenfmt.format.crypto import Entropy
from rozenfmt.format.registry import Right, Suite
from rozenfmt.keys import Identity, Recipient, SigningKey
from rozenfmt.vault import editions as ed
from rozenfmt.vault.editions import BrowseBox, EditionRecord, Epoch, HostRow, HostState, PersonState, ReadBox
from rozenfmt.vault.hostkey import HostKey, check_label
from rozenfmt.vault.keyring import BOX_AAD, STANZA_INFO, Keyring, Person, person_key, place

__all__ = ["enrol", "first_edition", "next_edition"]


@dataclass(frozen=True, slots=True, repr=False)
class _Secrets:
    """Everything that a new edition says, boxes included; secret."""

    epochs: dict[Epoch, tuple[bytes, bytes]]
    hosts: dict[bytes, tuple[HostRow, bytes, str]]
    people: dict[Recipient, Person]


def first_edition(
    owner: Identity,
    *,
    recipients: Iterable[Recipient] = (),
    browsers: Iterable[Recipient] = (),
    entropy: Entropy = os.urandom,
    now_ns: int,
) -> bytes:
    """Make a vault: its first edition.

    Args:
        owner: Owns the vault, and may read.
        recipients: Who else may read.
        browsers: Who may see names and sizes, and no contents.
        entropy: Where random bytes come from.
        now_ns: Nanoseconds since 1970-01-01 UTC.

    Raises:
        UsageError: Somebody is named twice, a key is unusable, or there are too many people.
    """
    vault_id = entropy(16)
    secrets = _Secrets({}, {}, {owner.recipient: Person(owner.recipient)})
    _new_epoch(secrets, entropy)
    for recipient in recipients:
        _add_person(secrets, Person(recipient, Right.READ))
    for recipient in browsers:
        _add_person(secrets, Person(recipient, Right.BROWSE))
    return _build(owner, secrets, vault_id=vault_id, entropy=entropy, now_ns=now_ns)


def next_edition(
    keyring: Keyring,
    owner: Identity,
    *,
    add_people: Iterable[Person] = (),
    remove_people: Iterable[Recipient] = (),
    add_hosts: Iterable[tuple[HostRow, bytes, str]] = (),
    retire_hosts: Iterable[bytes] = (),
    new_epoch: bool = False,
    entropy: Entropy = os.urandom,
    now_ns: int,
) -> bytes:
    """Make the edition that replaces all heads of a view.

    Whoever is removed keeps the keys of the epochs until then, and with them the archives; so a
    removal begins a new epoch.  So does joining heads if a person who was removed in one of them
    was given the current epoch by another.

    Args:
        keyring: The view, opened by the owner.
        owner: Signs.
        add_people: Who comes, or gets the right to read in place of that to browse.
        remove_people: Who goes, for good.
        add_hosts: Hosts, their id keys and their labels.
        retire_hosts: Host ids; what they stored stays readable.
        new_epoch: Begin a new epoch without other reason.
        entropy: Where random bytes come from.
        now_ns: Nanoseconds since 1970-01-01 UTC.

    Raises:
        UsageError: Nothing would change, a change is impossible, or the keyring is not the owner's.
    """
    view = keyring.view
    _check_owner(keyring, owner)
    add_people, remove_people = tuple(add_people), tuple(remove_people)
    add_hosts, retire_hosts = tuple(add_hosts), tuple(retire_hosts)
    if not (add_people or remove_people or add_hosts or retire_hosts or new_epoch or len(view.heads) > 1):
        msg = "an edition that changes nothing is not made"
        raise UsageError(msg)
    secrets = _gather(keyring)
    if _exposed(keyring) or remove_people or new_epoch:
        _new_epoch(secrets, entropy)
    # Removed first: whoever is removed and added in one call is refused by _add_person.
    for recipient in remove_people:
        _remove_person(secrets, recipient, owner.recipient)
    for person in add_people:
        _add_person(secrets, person)
    for row, id_key, label in add_hosts:
        _add_host(secrets, row, id_key, label)
    for host_id in retire_hosts:
        _retire_host(secrets, host_id)
    return _build(
        owner,
        secrets,
        vault_id=view.vault_id,
        parents=view.digests,
        number=1 + view.number,
        entropy=entropy,
        now_ns=now_ns,
    )


def enrol(
    keyring: Keyring, owner: Identity, label: str, *, entropy: Entropy = os.urandom, now_ns: int
) -> tuple[bytes, HostKey]:
    """Make a host, and the edition that has it.

    Store the edition before the host key is used; the host key exists nowhere else.

    Args:
        keyring: The view, opened by the owner.
        owner: Signs.
        label: What people call the host, at most 255 bytes.
        entropy: Where random bytes come from.
        now_ns: Nanoseconds since 1970-01-01 UTC.

    Returns:
        The edition, and the host's key, which expects this edition.

    Raises:
        UsageError: The label is impossible, or the keyring is not the owner's.
    """
    host_id, id_key, chunker_key = entropy(16), entropy(32), entropy(32)
    signing = SigningKey(entropy(32))
    row = HostRow(host_id, signing.verify_key.ed25519)
    raw = next_edition(keyring, owner, add_hosts=[(row, id_key, label)], entropy=entropy, now_ns=now_ns)
    key = HostKey(
        vault_id=keyring.view.vault_id,
        host_id=host_id,
        label=label,
        owner=owner.recipient,
        id_key=id_key,
        chunker_key=chunker_key,
        signing=signing,
        pin_number=1 + keyring.view.number,
        pin_digests=(crypto.digest(raw),),
    )
    return raw, key


def _check_owner(keyring: Keyring, owner: Identity) -> None:
    if owner.recipient != keyring.view.owner:
        msg = "only the owner makes editions of a vault, and this identity is not the owner's"
        raise UsageError(msg)
    if len(keyring._opened) < len(keyring.view.heads) or any(one.right is not Right.READ for one in keyring._opened):  # noqa: SLF001 - same module
        msg = "this keyring does not hold all of the vault's keys; open it with the owner's identity"
        raise UsageError(msg)


def _gather(keyring: Keyring) -> _Secrets:
    """All rows of all heads, with their secrets."""
    private = {(key.epoch_id, key.right): key._private for key in keyring.unwrappers}  # noqa: SLF001 - same module
    view = keyring.view
    return _Secrets(
        epochs={epoch: (private[epoch.id, Right.READ], private[epoch.id, Right.BROWSE]) for epoch in view.epochs},
        hosts={
            host_id: (row, keyring._id_keys[host_id], keyring.label(host_id))  # noqa: SLF001 - same module
            for host_id, row in view.hosts.items()
        },
        people={person.recipient: person for person in keyring.people},
    )


def _exposed(keyring: Keyring) -> bool:
    """Whether a head gave the current epoch to somebody whom another one removed."""
    removed = {person.recipient for person in keyring.people if person.state is PersonState.REMOVED}
    current = keyring.view.current_epoch.id
    return any(
        person.state is PersonState.PRESENT and person.recipient in removed
        for one in keyring._opened  # noqa: SLF001 - same module
        if current in one.epochs
        for person in one.people
    )


def _new_epoch(secrets: _Secrets, entropy: Entropy) -> None:
    number = 1 + max((epoch.number for epoch in secrets.epochs), default=0)
    id_, read, browse = entropy(8), entropy(32), entropy(32)
    secrets.epochs[Epoch(number, id_, crypto.x25519_public(read), crypto.x25519_public(browse))] = (read, browse)


def _add_person(secrets: _Secrets, person: Person) -> None:
    check_label(person.label)
    there = secrets.people.get(person.recipient)
    name = f"{str(person.recipient)[:16]}…"
    if person.state is not PersonState.PRESENT:
        msg = f"{name} cannot be added as removed; name removed people in remove_people="
        raise UsageError(msg)
    if there is None:
        # Removal goes by recipient; it would miss the same key in other company.
        if any(person.recipient.x25519 == other.x25519 for other in secrets.people):
            msg = f"{name} has the X25519 key of another person of this vault; check the recipient"
            raise UsageError(msg)
    elif there.state is PersonState.REMOVED:
        msg = f"{name} was removed from this vault, and a removal holds for good; the person needs a new identity"
        raise UsageError(msg)
    elif there.right <= person.right:
        has = "read" if there.right is Right.READ else "browse"
        msg = f"{name} has the right to {has} already; to lessen a right, remove the person and add a new identity"
        raise UsageError(msg)
    secrets.people[person.recipient] = replace(person, label=person.label or (there.label if there else ""))


def _remove_person(secrets: _Secrets, recipient: Recipient, owner: Recipient) -> None:
    there = secrets.people.get(recipient)
    if recipient == owner:
        msg = "the owner cannot be removed from a vault; to change hands, make a new vault"
        raise UsageError(msg)
    if there is None or there.state is PersonState.REMOVED:
        msg = f"{str(recipient)[:16]}… is not among the people of this vault"
        raise UsageError(msg)
    secrets.people[recipient] = replace(there, state=PersonState.REMOVED)


def _add_host(secrets: _Secrets, row: HostRow, id_key: bytes, label: str) -> None:
    check_label(label)
    if len(row.host_id) != 16 or len(row.verify_key) != 32 or len(id_key) != 32:
        msg = "a host's id, verify key or id key has another length"
        raise UsageError(msg)
    for other, _, _ in secrets.hosts.values():
        # With one key, each of two hosts could write in the other's name.
        if other.host_id == row.host_id or other.verify_key == row.verify_key:
            msg = f"the vault has a host of this id or verify key already: {other.host_id.hex()}"
            raise UsageError(msg)
    secrets.hosts[row.host_id] = (row, id_key, label)


def _retire_host(secrets: _Secrets, host_id: bytes) -> None:
    there = secrets.hosts.get(host_id)
    if there is None or there[0].state is HostState.RETIRED:
        msg = f"the vault has no active host {host_id.hex()}"
        raise UsageError(msg)
    secrets.hosts[host_id] = (replace(there[0], state=HostState.RETIRED), *there[1:])


def _build(
    owner: Identity,
    secrets: _Secrets,
    *,
    vault_id: bytes,
    parents: tuple[bytes, ...] = (),
    number: int = 1,
    entropy: Entropy,
    now_ns: int,
) -> bytes:
    by_id = sorted(secrets.epochs.items(), key=lambda item: item[0].id)
    hosts = [secrets.hosts[host_id] for host_id in sorted(secrets.hosts)]
    people = sorted(secrets.people.values(), key=person_key)
    read_box = ReadBox(
        epochs=tuple((epoch.id, read, browse) for epoch, (read, browse) in by_id),
        hosts=tuple((row.host_id, id_key, label) for row, id_key, label in hosts),
        people=tuple((person_key(one), int(one.right), int(one.state), one.label) for one in people),
    )
    browse_box = BrowseBox(
        epochs=tuple((epoch.id, browse) for epoch, (_, browse) in by_id),
        hosts=tuple((row.host_id, label) for row, _, label in hosts),
    )
    keys = {Right.READ: entropy(32), Right.BROWSE: entropy(32)}

    def box(right: Right, plain: ReadBox | BrowseBox) -> bytes:
        aad = place(BOX_AAD, right, vault_id, number)
        nonce = entropy(crypto.NONCE_SIZE)
        return b"".join(crypto.seal(Suite.XCHACHA20_POLY1305, keys[right], nonce, records.encode(plain), aad))

    def stanza(person: Person) -> tuple[int, bytes]:
        info = place(STANZA_INFO, person.right, vault_id, number)
        try:
            return int(person.right), crypto.hpke_seal(person.recipient.x25519, info, keys[person.right], entropy)
        except HeaderError:
            msg = f"{str(person.recipient)[:16]}… is not a usable key: it is of small order"
            raise UsageError(msg) from None

    record = EditionRecord(
        vault_id=vault_id,
        version=ed.VERSION,
        features=(),
        number=number,
        parents=parents,
        owner=person_key(Person(owner.recipient)),
        epochs=tuple(
            (epoch.number, epoch.id, epoch.read_public, epoch.browse_public)
            for epoch in sorted(secrets.epochs, key=lambda epoch: (epoch.number, epoch.id))
        ),
        hosts=tuple((row.host_id, row.verify_key, int(row.state)) for row, _, _ in hosts),
        read_box=box(Right.READ, read_box),
        browse_box=box(Right.BROWSE, browse_box),
        stanzas=tuple(stanza(person) for person in people if person.state is PersonState.PRESENT),
        made=now_ns,
    )
    return ed.build_edition(owner, record)
