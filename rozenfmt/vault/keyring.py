"""What a person can do with a vault's editions: open their boxes, and as owner make the next one.

``open_keyring`` turns a view and identities into keys that open archives, ``load_view`` finds the
view in a storage, and ``first_edition``, ``next_edition`` and ``enrol`` make editions without
storing them (``store_edition`` does).  This module holds private keys of epochs and ids; it must
not know archives, and whatever it shows names no secret.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from rozenfmt.display import count
from rozenfmt.errors import (
    ArchiveError,
    BlockError,
    HeaderError,
    KeyFailure,
    LimitError,
    NoMatchingKey,
    StorageError,
    UnsupportedError,
    UsageError,
)
from rozenfmt.format import crypto, records
from rozenfmt.format.crypto import Entropy
from rozenfmt.format.registry import Right, StanzaType, Suite
from rozenfmt.keys import Identity, Recipient, SigningKey
from rozenfmt.storage.base import ObjectInfo, Storage
from rozenfmt.vault import editions as ed
from rozenfmt.vault.editions import (
    BrowseBox,
    Edition,
    EditionRecord,
    EditionView,
    Epoch,
    HostRow,
    HostState,
    PersonState,
    ReadBox,
)
from rozenfmt.vault.hostkey import HostKey, check_label
from rozenfmt.vault.layout import EDITIONS, edition_name, parse_edition_name

__all__ = [
    "EpochKey",
    "Keyring",
    "Person",
    "enrol",
    "first_edition",
    "load_view",
    "next_edition",
    "open_keyring",
    "store_edition",
]

# Bound to the right, the vault and the edition's number: a browse stanza cannot be passed off as a
# read stanza, nor can a box be carried into another edition.
_STANZA_INFO: Final = b"rozenfmt v0 edition stanza"
_BOX_AAD: Final = b"rozenfmt v0 edition box"
_READERS: Final = 8
_FEW: Final = 4


def _place(label: bytes, right: Right, vault_id: bytes, number: int) -> bytes:
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
class _Opened:
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
    _opened: tuple[_Opened, ...] = field(repr=False)

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


def _keyring(view: EditionView, opened: tuple[_Opened, ...]) -> Keyring:
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
        people=sorted(people.values(), key=_person_key),
        _id_keys=id_keys,
        _labels=labels,
        _opened=opened,
    )


def _person_key(person: Person) -> bytes:
    return person.recipient.x25519 + person.recipient.ed25519


def _open_head(head: Edition, privates: Sequence[bytes]) -> _Opened | None:
    for wanted in (Right.READ, Right.BROWSE):
        info = _place(_STANZA_INFO, wanted, head.vault_id, head.number)
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
        return crypto.unseal(
            Suite.XCHACHA20_POLY1305, box_key, box, _place(_BOX_AAD, right, head.vault_id, head.number)
        )
    except BlockError as error:
        raise _contradicts(head, "its box does not open with the key that the stanza wraps") from error


def _open_read_box(head: Edition, box_key: bytes) -> _Opened:
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
    opened = _Opened(
        head=head,
        right=Right.READ,
        epochs={id_: (read, browse) for id_, read, browse in box.epochs},
        hosts={id_: (id_key, label) for id_, id_key, label in box.hosts},
        people=people,
    )
    return _checked(opened, [row[0] for row in box.epochs], [row[0] for row in box.hosts])


def _open_browse_box(head: Edition, box_key: bytes) -> _Opened:
    plain = _unseal(head, Right.BROWSE, box_key, head.record.browse_box)
    box = records.decode(BrowseBox, plain, KeyFailure, "vault 3.2")
    opened = _Opened(
        head=head,
        right=Right.BROWSE,
        epochs={id_: (None, browse) for id_, browse in box.epochs},
        hosts={id_: (None, label) for id_, label in box.hosts},
        people=(),
    )
    return _checked(opened, [row[0] for row in box.epochs], [row[0] for row in box.hosts])


def _checked(opened: _Opened, epoch_ids: list[bytes], host_ids: list[bytes]) -> _Opened:
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


# --- Storage ------------------------------------------------------------------------------------


def load_view(
    storage: Storage,
    *,
    owner: Recipient | None,
    identities: Iterable[Identity] = (),
    pin: tuple[int, tuple[bytes, ...]] | None = None,
    vault_id: bytes | None = None,
    report: Callable[[str], None] | None = None,
    copies: Callable[[], Iterable[bytes]] | None = None,
) -> EditionView:
    """Read all editions of a vault.

    Args:
        storage: The vault's folder.
        owner: Whose vault it must be; None if it must be that of one of the identities.
        identities: Keys of the person who reads; looked at only if ``owner`` is None.
        pin: Highest number and digests of the heads that were seen before.
        vault_id: The vault that it must be; None for any of the owner.
        report: Is told, in words, of everything that is passed over or missing.
        copies: Gives editions from elsewhere, for when some in the storage are damaged, or all are lost.

    Raises:
        StorageError: There is no vault here, or the storage fails.
        HeaderError: There is no valid edition, or two contradict each other.
        SignatureError: The view was rolled back, or there are editions of several vaults.
        UnsupportedError: The owner has signed an edition that this version does not understand.
        UsageError: Nobody said who the owner is.
    """
    owners = frozenset({owner} if owner is not None else {identity.recipient for identity in identities})
    if not owners:
        msg = "say whose vault this is: ask its owner for the recipient (rzr1…), and pass it as owner="
        raise UsageError(msg)
    say = report if report is not None else _silent
    found: list[Edition] = []
    refused: list[ArchiveError | StorageError] = []
    infos = _list(storage, say, needed=copies is None)
    for info, result in zip(infos, _read_all(storage, infos, owners, vault_id), strict=True):
        if isinstance(result, Edition):
            found.append(result)
            _check_name(info.name, result, say)
            continue
        if isinstance(result, UnsupportedError):
            # The owner signed it.  Passing it over would bring back what it replaced: a removed
            # person, a retired host.
            raise result
        # Whoever may write to the storage may spoil or add editions; that stops nobody.
        refused.append(result)
        say(f"passed over {info.name}: {result}")
    if copies is not None and (refused or not found):
        found += _from_copies(copies(), found, owners, vault_id, say)
    if not found and not infos:
        raise _no_vault(storage)
    if not found:
        raise _nothing(refused, asked=owner is not None)
    view = ed.merge(found)
    if view.missing_parents:
        digests = ", ".join(digest.hex() for digest in view.missing_parents)
        say(f"editions that others replace are missing, which does no harm; their digests: {digests}")
    if pin is not None:
        view.check_pin(*pin)
    return view


def _silent(text: str) -> None:
    """Report to nobody."""


def _from_copies(
    copies: Iterable[bytes],
    known: Sequence[Edition],
    owners: frozenset[Recipient],
    vault_id: bytes | None,
    say: Callable[[str], None],
) -> list[Edition]:
    """Valid editions among the copies that are not known yet."""
    found: dict[bytes, Edition] = {}
    digests = {edition.digest for edition in known}
    for raw in dict.fromkeys(copies):
        try:
            edition = ed.parse_edition(raw, owner=owners, vault_id=vault_id, name="a keyr block")
        except UnsupportedError:
            raise
        except ArchiveError as error:
            say(f"passed over a copy of an edition: {error}")
            continue
        if edition.digest not in digests:
            found[edition.digest] = edition
            say(f"edition {edition.number} is missing or damaged in {EDITIONS}: a copy in a metadata archive is used")
    return list(found.values())


def _no_vault(storage: Storage) -> StorageError:
    msg = (
        f"no vault here: {storage.url} has no object in {EDITIONS}. Check the address, or make a vault with "
        "`rozenfmt init`"
    )
    return StorageError(msg, object=EDITIONS, fatal=True)


def _list(storage: Storage, say: Callable[[str], None], *, needed: bool) -> list[ObjectInfo]:
    infos = []
    empty = True
    for info in storage.list(EDITIONS):
        empty = False
        if parse_edition_name(info.name) is None:
            say(f"ignored {info.name}: not the name of an edition")
        else:
            infos.append(info)
    if empty and needed:
        raise _no_vault(storage)
    return infos


def _read_all(
    storage: Storage, infos: Sequence[ObjectInfo], owners: frozenset[Recipient], vault_id: bytes | None
) -> list[Edition | ArchiveError | StorageError]:
    def read(info: ObjectInfo) -> Edition | ArchiveError | StorageError:
        try:
            return _read(storage, info, owners, vault_id)
        except (ArchiveError, StorageError) as error:
            return error

    if len(infos) <= _FEW:
        return [read(info) for info in infos]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(_READERS, len(infos)), thread_name_prefix="rozenfmt-editions") as pool:
        return list(pool.map(read, infos))


def _read(storage: Storage, info: ObjectInfo, owners: frozenset[Recipient], vault_id: bytes | None) -> Edition:
    if info.size > ed.MAX_OBJECT:
        msg = f"an edition has at most {ed.MAX_OBJECT} bytes, this object has {info.size}"
        raise LimitError(msg, object=info.name, clause="vault 3.1")
    raw = storage.read(info.name, 0, info.size)
    return ed.parse_edition(raw, owner=owners, vault_id=vault_id, name=info.name)


def _check_name(name: str, edition: Edition, say: Callable[[str], None]) -> None:
    named = parse_edition_name(name)
    if named is None or named[0] != edition.number:
        say(f"{name} holds edition {edition.number}; it was renamed, which does no harm")


def _nothing(
    refused: Sequence[ArchiveError | StorageError], *, asked: bool
) -> ArchiveError | StorageError | UsageError:
    """Why no edition counts."""
    if not asked and any(isinstance(error, ed.OtherOwnerError) for error in refused):
        msg = (
            "this vault is not owned by any of the identities given: ask its owner for the recipient (rzr1…), and "
            "pass it as owner="
        )
        return UsageError(msg)
    failed = [error for error in refused if isinstance(error, StorageError)]
    if failed and len(failed) == len(refused):
        return failed[0]
    why = f"; of the first one: {refused[0]}" if refused else ""
    msg = (
        f"no object in {EDITIONS} is a valid edition of this vault, so it cannot be opened; nor is a copy in a "
        f"metadata archive that could be read{why}"
    )
    return HeaderError(msg, object=EDITIONS, clause="vault 3.3")


def stored_digests(storage: Storage) -> set[bytes]:
    """Digests of all objects that stand where editions do, whatever they are."""
    infos = _list(storage, _silent, needed=False)
    return {crypto.digest(storage.read(info.name, 0, info.size)) for info in infos if info.size <= ed.MAX_OBJECT}


def store_edition(storage: Storage, raw: bytes, *, entropy: Entropy = os.urandom) -> str:
    """Store an edition, as a new object.

    Returns:
        Its name.

    Raises:
        ArchiveError: It is not a valid edition.
        ConflictError: An object of the same random name is there.
        StorageError: The storage fails.
    """
    name = edition_name(ed.parse_edition(raw).number, entropy(8))
    upload = storage.create(name, overwrite=False, expected_size=len(raw))
    try:
        upload.write(raw)
        upload.commit()
    except BaseException:
        upload.discard()
        raise
    return name


# --- Making editions ----------------------------------------------------------------------------


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
    people = sorted(secrets.people.values(), key=_person_key)
    read_box = ReadBox(
        epochs=tuple((epoch.id, read, browse) for epoch, (read, browse) in by_id),
        hosts=tuple((row.host_id, id_key, label) for row, id_key, label in hosts),
        people=tuple((_person_key(one), int(one.right), int(one.state), one.label) for one in people),
    )
    browse_box = BrowseBox(
        epochs=tuple((epoch.id, browse) for epoch, (_, browse) in by_id),
        hosts=tuple((row.host_id, label) for row, _, label in hosts),
    )
    keys = {Right.READ: entropy(32), Right.BROWSE: entropy(32)}

    def box(right: Right, plain: ReadBox | BrowseBox) -> bytes:
        aad = _place(_BOX_AAD, right, vault_id, number)
        nonce = entropy(crypto.NONCE_SIZE)
        return b"".join(crypto.seal(Suite.XCHACHA20_POLY1305, keys[right], nonce, records.encode(plain), aad))

    def stanza(person: Person) -> tuple[int, bytes]:
        info = _place(_STANZA_INFO, person.right, vault_id, number)
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
        owner=_person_key(Person(owner.recipient)),
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
