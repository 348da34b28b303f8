"""Finding a vault's editions in its storage, and putting new ones there.

What stands in the storage is believed only with the owner's signature; what is passed over is told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from rozenfmt.archive.workers import in_threads
from rozenfmt.errors import (
    ArchiveError,
    HeaderError,
    LimitError,
    SignatureError,
    StorageError,
    UnsupportedError,
    UsageError,
)
from rozenfmt.format import crypto
from rozenfmt.format.crypto import Entropy
from rozenfmt.keys import Identity, Recipient
from rozenfmt.storage.base import ObjectInfo, Storage
from rozenfmt.vault import editions as ed
from rozenfmt.vault.editions import Edition, EditionView
from rozenfmt.vault.layout import EDITIONS, edition_name, parse_edition_name

__all__ = ["load_view", "store_edition", "stored_digests"]

_READERS: Final = 8
_FEW: Final = 4


def load_view(
    storage: Storage,
    *,
    owner: Recipient | None,
    identities: Iterable[Identity] = (),
    pin: tuple[int, tuple[bytes, ...]] | None = None,
    vault_id: bytes | None = None,
    report: Callable[[str], None] | None = None,
    copies: Callable[[], Iterable[bytes]] | None = None,
    ask_copies: bool = False,
) -> EditionView:
    """Read all editions of a vault.

    Args:
        storage: The vault's folder.
        owner: Whose vault it must be; None if it must be that of one of the identities.
        identities: Keys of the person who reads; looked at only if ``owner`` is None.
        pin: Highest number and digests of the heads that were seen before.
        vault_id: The vault that it must be; None for any of the owner.
        report: Is told, in words, of everything that is passed over or missing.
        copies: Gives editions from elsewhere, for when some in the storage are damaged, hidden or lost.
        ask_copies: Ask for them although nothing shows that any is.

    Raises:
        StorageError: There is no vault here, or the storage fails.
        HeaderError: There is no valid edition, or two contradict each other.
        SignatureError: The view was rolled back, or there are editions of several vaults.
        UnsupportedError: The owner has signed an edition that this version does not understand.
        UsageError: Nobody said who the owner is.
    """
    owners = frozenset({owner} if owner is not None else {identity.recipient for identity in identities})
    if not owners:
        msg = "say whose vault this is: ask its owner for the recipient (rzr1…), and pass it as owner= (--owner)"
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
    asked = copies is not None and (ask_copies or bool(refused) or not found)
    if copies is not None and asked:
        found += _from_copies(copies(), found, owners, vault_id, say)
    if not found and not infos:
        raise _no_vault(storage)
    if not found:
        raise _nothing(refused, asked=owner is not None)
    view = ed.merge(found)
    if pin is not None and copies is not None and not asked and not _fits(view, pin):
        found += _from_copies(copies(), found, owners, vault_id, say)
        view = ed.merge(found)
    if view.missing_parents:
        digests = ", ".join(digest.hex() for digest in view.missing_parents)
        say(f"editions that others replace are missing, which does no harm; their digests: {digests}")
    if pin is not None:
        view.check_pin(*pin)
    return view


def _fits(view: EditionView, pin: tuple[int, tuple[bytes, ...]]) -> bool:
    try:
        view.check_pin(*pin)
    except SignatureError:
        return False
    return True


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
    return in_threads(storage, read, infos, workers=_READERS, name="editions")


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
            "pass it as owner= (on the command line --owner)"
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
