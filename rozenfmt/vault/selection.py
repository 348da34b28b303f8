"""Which snapshot a person means: an id, the beginning of one, or the latest of a set.

Order within a set is by sequence number and archive id (vault.md, section 6, item 6); clocks decide
only what came before a point in time, since that is what was asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from string import hexdigits
from typing import TYPE_CHECKING, Final

from rozenfmt.errors import UsageError

if TYPE_CHECKING:
    from .snapshot import Snapshot

__all__ = ["latest", "select"]

_LATEST: Final = "latest"
_LEAST: Final = 4
_SHOWN: Final = 10


def select(snapshots: Iterable[Snapshot], text: str, *, before: datetime | None = None) -> Snapshot:
    """The one snapshot that a text means.

    Args:
        snapshots: Those to choose from.
        text: An id, a beginning of one with at least 4 digits that no other has, ``latest``, ``latest:SET``
            or ``latest:SET@HOST``.  A set's name may have ``@`` in it: what follows the last one is a host
            only if it is the label, or the id, of one.
        before: Only those that began at or before this point in time, with its time zone.

    Raises:
        UsageError: It means none or several; the message says which.
    """
    found = list(snapshots)
    if before is not None:
        if before.tzinfo is None:
            msg = "say in which time zone: before= is a datetime with tzinfo"
            raise UsageError(msg)
        found = [one for one in found if one.time <= before]
    if text == _LATEST or text.startswith(_LATEST + ":"):
        wanted = text[len(_LATEST) + 1 :] if text != _LATEST else None
        return _latest(found, wanted, when="" if before is None else f" that began by {before.isoformat()}")
    return _by_id(found, text)


def latest(snapshots: Iterable[Snapshot]) -> Snapshot | None:
    """The latest snapshot of one set of one host: by sequence number, then by archive id."""
    return max(snapshots, key=lambda one: (one.sequence, one.archive_id), default=None)


def _latest(snapshots: Sequence[Snapshot], wanted: str | None, *, when: str) -> Snapshot:
    found = list(snapshots) if wanted is None else _of_set(snapshots, wanted)
    sets: dict[tuple[bytes, str], str] = {(one.host_id, one.name): _shown(one) for one in found}
    if len(sets) > 1:
        hosts = {one.host_id for one in found}
        names = sorted(sets.values())
        how = "latest:SET@HOST" if len(hosts) > 1 else "latest:SET"
        msg = f"{len(names)} sets match: {_list(names)}; say which one, as {how}"
        raise UsageError(msg)
    one = latest(found)
    if one is None:
        what = "" if wanted is None else f" of {wanted!r}"
        known = sorted({_shown(one) for one in snapshots})
        there = f"; there is {_list(known)}" if known else ""
        msg = f"there is no snapshot{what}{when}{there}"
        raise UsageError(msg)
    return one


def _of_set(snapshots: Sequence[Snapshot], wanted: str) -> list[Snapshot]:
    name, _, host = wanted.rpartition("@")
    if name and any(host in (one.host, one.host_id.hex()) for one in snapshots):
        found = [one for one in snapshots if one.name == name and host in (one.host, one.host_id.hex())]
        # A set may be called like a set and a host; its full name then means it, if nothing else fits.
        if found:
            return found
    return [one for one in snapshots if one.name == wanted]


def _shown(one: Snapshot) -> str:
    return f"{one.name}@{one.host}"


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _by_id(snapshots: Sequence[Snapshot], text: str) -> Snapshot:
    digits = text.lower()
    if len(digits) < _LEAST or not set(digits) <= set(hexdigits):
        msg = f"{text!r} is no id of a snapshot: give at least {_LEAST} digits of it, latest, or latest:SET"
        raise UsageError(msg)
    found = {one.archive_id: one for one in snapshots if one.id.startswith(digits)}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        msg = f"there is no snapshot whose id begins with {digits}"
        raise UsageError(msg)
    msg = f"{len(found)} snapshots begin with {digits}: {_list([one.id for one in found.values()])}; give more digits"
    raise UsageError(msg)
