"""Editions of a vault: who owns it, which keys archives are encrypted to, which hosts write (vault.md, section 3).

Bytes in, records out, and the one view that several editions add up to.  This module verifies
signatures, and must not know private keys of persons (``keyring`` does), storage or names of
objects; a caller's name for the bytes is repeated in errors, never looked into.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import Any, Final

from rozenfmt.errors import ArchiveError, HeaderError, LimitError, SignatureError, UnsupportedError, UsageError
from rozenfmt.format import crypto, records
from rozenfmt.format.records import ascending, bytes_, key, row, rows, text, uint
from rozenfmt.keys import Identity, Recipient

__all__ = [
    "MAX_OBJECT",
    "VERSION",
    "BrowseBox",
    "Edition",
    "EditionRecord",
    "EditionView",
    "Epoch",
    "HostRow",
    "HostState",
    "OtherOwnerError",
    "PersonState",
    "ReadBox",
    "build_edition",
    "merge",
    "parse_edition",
]

MAGIC: Final = bytes.fromhex("89525A450D0A1A0A")
VERSION: Final = (0, 1)
# Bound to the vault: an edition of one vault cannot be passed off as one of another vault of the
# same owner.  The label keeps it apart from everything else that the owner signs.
SIGNATURE_LABEL: Final = b"rozenfmt v0 edition"

MAX_RECORD: Final = 1_048_576
_LEAD: Final = struct.Struct("<8sI")
_SIGNATURE: Final = 64
MAX_OBJECT: Final = _LEAD.size + MAX_RECORD + _SIGNATURE
_LABEL: Final = 255


class OtherOwnerError(SignatureError):
    """An edition names another owner than those asked for; nothing else of it was looked at."""


class HostState(IntEnum):
    """States of a host; of two, the higher one counts."""

    ACTIVE = 1
    RETIRED = 2


class PersonState(IntEnum):
    """States of a person; of two, the higher one counts."""

    PRESENT = 1
    REMOVED = 2


@dataclass(frozen=True, slots=True)
class Epoch:
    """The two public keys that archives are encrypted to for a while."""

    number: int
    id: bytes
    read_public: bytes
    browse_public: bytes


@dataclass(frozen=True, slots=True)
class HostRow:
    """A host as the owner has signed it."""

    host_id: bytes
    verify_key: bytes
    state: HostState = HostState.ACTIVE


# --- Records ------------------------------------------------------------------------------------


def _digests(value: Any) -> tuple[bytes, ...]:
    """An array of digests, which may be empty."""
    found: tuple[bytes, ...] = row(*[bytes_(32)] * (len(value) if type(value) in (list, tuple) else 0))(value)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class EditionEnvelope:
    """The keys that every version of the record has: enough to verify the signature."""

    vault_id: bytes = key(1, bytes_(16))
    version: tuple[int, int] = key(2, row(uint(), uint()))
    features: tuple[int, ...] = key(3, ascending)
    owner: bytes = key(6, bytes_(64))
    extra: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditionRecord(EditionEnvelope):
    """The record of an edition (vault.md, section 3.1)."""

    number: int = key(4, uint(1))
    parents: tuple[bytes, ...] = key(5, _digests)
    epochs: tuple[tuple[int, bytes, bytes, bytes], ...] = key(
        7, rows(uint(1), bytes_(8), bytes_(32), bytes_(32), at_least=1)
    )
    hosts: tuple[tuple[bytes, bytes, int], ...] = key(8, rows(bytes_(16), bytes_(32), uint(1, 2)))
    stanzas: tuple[tuple[int, bytes], ...] = key(9, rows(uint(1, 2), bytes_(80), at_least=1))
    read_box: bytes = key(10, bytes_())
    browse_box: bytes = key(11, bytes_())
    made: int = key(12, uint())

    def check(self) -> None:
        """Rules across fields.

        Raises:
            HeaderError: The record breaks one.
        """
        epochs = [(number, id_) for number, id_, _, _ in self.epochs]
        hosts = [host_id for host_id, _, _ in self.hosts]
        rules = (
            (_is_ascending(self.parents), "its parents are not in ascending order"),
            ((self.number == 1) == (not self.parents), "its number and its parents contradict each other"),
            (_is_ascending(epochs), "its epochs are not in ascending order"),
            (len({id_ for _, id_ in epochs}) == len(epochs), "it has two epochs of one id"),
            (_is_ascending(hosts), "its hosts are not in ascending order"),
        )
        for holds, words in rules:
            if not holds:
                msg = f"this edition is malformed: {words}"
                raise HeaderError(msg, clause="vault 3.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBox:
    """Plaintext of the read box (vault.md, section 3.2); secret."""

    epochs: tuple[tuple[bytes, bytes, bytes], ...] = key(1, rows(bytes_(8), bytes_(32), bytes_(32)))
    hosts: tuple[tuple[bytes, bytes, str], ...] = key(2, rows(bytes_(16), bytes_(32), text(_LABEL)))
    people: tuple[tuple[bytes, int, int, str], ...] = key(3, rows(bytes_(64), uint(1, 2), uint(1, 2), text(_LABEL)))
    extra: dict[int, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "ReadBox(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowseBox:
    """Plaintext of the browse box (vault.md, section 3.2); secret."""

    epochs: tuple[tuple[bytes, bytes], ...] = key(1, rows(bytes_(8), bytes_(32)))
    hosts: tuple[tuple[bytes, str], ...] = key(2, rows(bytes_(16), text(_LABEL)))
    extra: dict[int, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "BrowseBox(…)"


def _is_ascending(values: Iterable[Any]) -> bool:
    return all(a < b for a, b in pairwise(values))


# --- Signed objects -----------------------------------------------------------------------------


def build_signed(magic: bytes, label: bytes, owner: Identity, vault_id: bytes, body: bytes) -> bytes:
    """``magic ‖ u32 n ‖ record ‖ signature``: the form of editions and tombstones.

    Raises:
        UsageError: The record is too long.
    """
    if len(body) > MAX_RECORD:
        msg = f"a record of {len(body)} bytes is over {MAX_RECORD}: there are too many people or hosts"
        raise UsageError(msg)
    # The key for signing is derived inside of an identity, which has no method for it.
    signature = crypto.sign(owner._ed25519_seed, label + vault_id + crypto.digest(body))  # noqa: SLF001
    return _LEAD.pack(magic, len(body)) + body + signature


def split_signed(raw: bytes, magic: bytes, what: str, clause: str) -> tuple[bytes, bytes]:
    """Record and signature.

    Raises:
        HeaderError: It is something else, or of another length than it says.
        LimitError: The record is too long.
    """
    if len(raw) < _LEAD.size or raw[:8] != magic:
        msg = f"this is not {what}"
        raise HeaderError(msg, offset=0, clause=clause)
    length = _LEAD.unpack_from(raw)[1]
    if length > MAX_RECORD:
        msg = f"{what} claims a record of {length} bytes"
        raise LimitError(msg, offset=8, clause=clause)
    if length == 0 or len(raw) != _LEAD.size + length + _SIGNATURE:
        msg = f"{what} is cut off, or something follows it; fetch another copy of it"
        raise HeaderError(msg, offset=8, clause=clause)
    return raw[_LEAD.size : -_SIGNATURE], raw[-_SIGNATURE:]


def verify_signed(label: bytes, owner: Recipient, vault_id: bytes, body: bytes, signature: bytes, what: str) -> None:
    """Verify the owner's signature.

    Raises:
        SignatureError: It is malformed, or by somebody else, or the record was changed.
    """
    try:
        crypto.verify_signature(owner.ed25519, label + vault_id + crypto.digest(body), signature)
    except SignatureError as error:
        msg = f"{what} has no valid signature of the vault's owner: it was changed, or somebody else wrote it"
        raise SignatureError(msg, clause="10") from error


# --- One edition --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class Edition:
    """An edition whose signature was verified.

    Attributes:
        record: What it says.
        raw: The whole object.
        digest: ``H`` of the whole object.
    """

    record: EditionRecord
    raw: bytes
    digest: bytes

    @property
    def vault_id(self) -> bytes:
        """16 bytes."""
        return self.record.vault_id

    @property
    def owner(self) -> Recipient:
        """Who signed it."""
        return Recipient(self.record.owner[:32], self.record.owner[32:])

    @property
    def number(self) -> int:
        """Its number, from 1."""
        return self.record.number

    @property
    def parents(self) -> tuple[bytes, ...]:
        """Digests of the editions that it replaces."""
        return self.record.parents

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """Its epochs, ascending by number, then id."""
        return tuple(Epoch(*values) for values in self.record.epochs)

    @property
    def hosts(self) -> tuple[HostRow, ...]:
        """Its hosts, ascending by host id."""
        return tuple(HostRow(host_id, public, HostState(state)) for host_id, public, state in self.record.hosts)

    def __repr__(self) -> str:
        return f"Edition(number={self.number}, digest={self.digest.hex()[:16]}…, vault_id={self.vault_id.hex()})"


def build_edition(owner: Identity, record: EditionRecord) -> bytes:
    """Sign an edition.

    Args:
        owner: The vault's owner, whom the record names.
        record: What it says; boxes and stanzas included.

    Raises:
        UsageError: Readers would refuse the result.
    """
    raw = build_signed(MAGIC, SIGNATURE_LABEL, owner, record.vault_id, records.encode(record))
    try:
        # An edition cannot be taken back, so it is read once before anybody else does.
        parse_edition(raw, owner=owner.recipient, vault_id=record.vault_id)
    except ArchiveError as error:
        msg = f"this edition cannot be made: {error.message}"
        raise UsageError(msg) from error
    return raw


def parse_edition(
    raw: bytes,
    *,
    owner: Recipient | frozenset[Recipient] | None = None,
    vault_id: bytes | None = None,
    name: str | None = None,
) -> Edition:
    """Read an edition and verify it.

    The signature comes before all that may differ between versions.  So ``UnsupportedError`` is
    the word of an owner, and never of somebody who only spoils objects.

    Args:
        raw: The whole object.
        owner: Whose edition it must be, or of one of whom; None for the owner it names, who may be anybody.
        vault_id: The vault that it must be of; None for any.
        name: What the object is called in errors.

    Raises:
        HeaderError: It is malformed.
        LimitError: It is too long.
        SignatureError: It is of another owner or vault, or not signed by the owner that it names.
        UnsupportedError: It is signed, and of a version or with a feature that is not known here.
    """
    try:
        return _parse_edition(bytes(raw), frozenset({owner}) if isinstance(owner, Recipient) else owner, vault_id)
    except ArchiveError as error:
        error.object = error.object or name
        raise


def _parse_edition(raw: bytes, owners: frozenset[Recipient] | None, vault_id: bytes | None) -> Edition:
    body, signature = split_signed(raw, MAGIC, "an edition of a vault", "vault 3.1")
    envelope = records.decode(EditionEnvelope, body, HeaderError, "vault 3.1")
    named = Recipient(envelope.owner[:32], envelope.owner[32:])
    if owners is not None and named not in owners:
        msg = "this edition is of another owner than the one given; do not use what it says"
        raise OtherOwnerError(msg, clause="vault 3.3")
    if vault_id is not None and envelope.vault_id != vault_id:
        msg = f"this edition is of another vault, {envelope.vault_id.hex()} instead of {vault_id.hex()}"
        raise SignatureError(msg, clause="vault 3.3")
    verify_signed(SIGNATURE_LABEL, named, envelope.vault_id, body, signature, "this edition")
    if envelope.version != VERSION:
        major, minor = envelope.version
        msg = f"the vault is of version {major}.{minor}; this version of rozenfmt knows {VERSION[0]}.{VERSION[1]} only"
        raise UnsupportedError(msg, clause="vault 3.3")
    if envelope.features:
        msg = f"the vault needs features {list(envelope.features)} that this version of rozenfmt does not have"
        raise UnsupportedError(msg, clause="vault 3.3")
    record = records.decode(EditionRecord, body, HeaderError, "vault 3.1")
    record.check()
    return Edition(record, raw, crypto.digest(raw))


# --- All editions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class EditionView:
    """What all valid editions of a vault say together (vault.md, section 3.3).

    Attributes:
        vault_id: 16 bytes.
        owner: The vault's owner.
        heads: The editions that no other one replaces, ascending by digest.
        epochs: Rows of all heads, ascending by number, then id.
        hosts: Rows of all heads by host id, ascending.
        all_digests: Digests of all valid editions, ascending.
        missing_parents: Digests of editions that others replace, and that are not there; ascending.
    """

    vault_id: bytes
    owner: Recipient
    heads: tuple[Edition, ...]
    epochs: tuple[Epoch, ...]
    hosts: Mapping[bytes, HostRow]
    all_digests: tuple[bytes, ...]
    missing_parents: tuple[bytes, ...]

    @property
    def number(self) -> int:
        """The highest number."""
        return max(head.number for head in self.heads)

    @property
    def digests(self) -> tuple[bytes, ...]:
        """Digests of the heads, ascending."""
        return tuple(head.digest for head in self.heads)

    @property
    def raw_heads(self) -> tuple[bytes, ...]:
        """The heads as objects, in the order of ``digests``."""
        return tuple(head.raw for head in self.heads)

    @property
    def current_epoch(self) -> Epoch:
        """The epoch that new archives are encrypted to."""
        return self.epochs[-1]

    def check_pin(self, number: int, digests: Iterable[bytes]) -> None:
        """Hold the view against what was known before.

        Args:
            number: Highest number at that time.
            digests: Digests of the heads at that time.

        Raises:
            SignatureError: Something that was known is not there any more, nor is anything that replaced it.
        """
        if self.number < number:
            msg = (
                f"the vault's editions were rolled back: number {number} was seen before, now the highest is "
                f"{self.number}. Somebody, or a restored storage, hides the newer ones; bring them back"
            )
            raise SignatureError(msg, clause="vault 3.3")
        # Every edition at hand is a head or the ancestor of one, and so is every parent, be it there or not.
        known = {*self.all_digests, *self.missing_parents}
        for digest in digests:
            if digest not in known:
                msg = (
                    f"the vault's editions were rolled back: the edition with digest {digest.hex()} was in use, and is "
                    "neither there nor replaced by one that is. Somebody, or a restored storage, hides it; restore it"
                )
                raise SignatureError(msg, clause="vault 3.3")

    def host(self, host_id: bytes) -> HostRow:
        """The row of a host.

        Raises:
            SignatureError: The owner has signed no such host.
        """
        found = self.hosts.get(host_id)
        if found is None:
            msg = f"the owner of the vault has enrolled no host {host_id.hex()}; do not use what is stored in its name"
            raise SignatureError(msg, clause="vault 6")
        return found

    def __repr__(self) -> str:
        return f"EditionView(vault_id={self.vault_id.hex()}, number={self.number}, heads={len(self.heads)})"


def merge(editions: Iterable[Edition]) -> EditionView:
    """The view of several editions; order and repetition do not matter.

    Raises:
        HeaderError: There is none, or two of them contradict each other.
        SignatureError: They are of several owners or vaults.
    """
    valid = {edition.digest: edition for edition in editions}
    if not valid:
        msg = "the vault has no valid edition, so it cannot be opened; a keyr block of a metadata archive has copies"
        raise HeaderError(msg, clause="vault 3.3")
    if len({(edition.vault_id, edition.record.owner) for edition in valid.values()}) > 1:
        vaults = ", ".join(sorted({edition.vault_id.hex() for edition in valid.values()}))
        msg = f"editions of several vaults or owners stand in one folder; say which one counts. Vaults: {vaults}"
        raise SignatureError(msg, clause="vault 3.3")
    parents = {parent for edition in valid.values() for parent in edition.parents}
    heads = tuple(valid[digest] for digest in sorted(valid.keys() - parents))
    epochs: dict[bytes, Epoch] = {}
    hosts: dict[bytes, HostRow] = {}
    for head in heads:
        for epoch in head.epochs:
            if epochs.setdefault(epoch.id, epoch) != epoch:
                raise _contradiction("epoch", epoch.id)
        for host in head.hosts:
            other = hosts.setdefault(host.host_id, host)
            if other.verify_key != host.verify_key:
                raise _contradiction("host", host.host_id)
            if host.state > other.state:
                hosts[host.host_id] = host
    return EditionView(
        vault_id=heads[0].vault_id,
        owner=heads[0].owner,
        heads=heads,
        epochs=tuple(sorted(epochs.values(), key=lambda epoch: (epoch.number, epoch.id))),
        hosts=dict(sorted(hosts.items())),
        all_digests=tuple(sorted(valid)),
        missing_parents=tuple(sorted(parents - valid.keys())),
    )


def _contradiction(what: str, id_: bytes) -> HeaderError:
    msg = f"two editions that the owner signed contradict each other about {what} {id_.hex()}; do not use this vault"
    return HeaderError(msg, clause="vault 3.3")
