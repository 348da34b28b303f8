"""Backups that were interrupted: what is left of them, going on with them, and giving them up."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.errors import UsageError

from . import layout
from .journal import Journal
from .results import Command

if TYPE_CHECKING:
    from rozenfmt.storage.base import Leftover, Storage

    from .backup import Source

__all__ = ["Interrupted", "arguments_of", "discard", "find", "leftovers", "request_of"]

_LOCAL: Final = 0
_COMMAND: Final = 1
_REMOTE: Final = 2


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A backup that did not come to its end: the machine or the network failed, or somebody stopped it.

    Attributes:
        set_name: The set that it makes a snapshot of.
        mode: ``snapshot`` or ``worm``.
        sources: Its sources, by local path; the output of a command by the command.
        begun: When it began.
        archives: Objects whose upload can be gone on with: name, and bytes of it that are stored.
    """

    set_name: str
    mode: str
    sources: tuple[bytes, ...]
    begun: dt.datetime
    archives: tuple[tuple[str, int], ...]

    @property
    def stored_bytes(self) -> int:
        """Bytes that need not be sent again."""
        return sum(size for _, size in self.archives)


def request_of(sources: Sequence[Source], options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``Vault.backup`` in a form that can be written down.

    Args:
        sources: As they were parsed.
        options: All others: numbers, texts and lists of them.
    """
    rows = []
    for one in sources:
        if one.command is not None:
            rows.append([_COMMAND, one.name, one.path, [os.fsencode(word) for word in one.command.arguments]])
        elif one.remote is not None:
            url = one.remote.open_url
            rows.append([_REMOTE, one.name, one.path, None if url is None else os.fsencode(url)])
        else:
            rows.append([_LOCAL, one.name, one.path, None])
    return {**options, "sources": rows}


def arguments_of(request: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The reverse of ``request_of``: sources, and all other arguments.

    Raises:
        UsageError: The URL of a source holds a secret, which was not written down.
    """
    options = dict(request)
    sources: list[Any] = []
    for kind, name, path, more in options.pop("sources"):
        if kind == _COMMAND:
            sources.append(Command(os.fsdecode(name), [os.fsdecode(word) for word in more]))
        elif kind == _LOCAL:
            sources.append((name, path))
        elif more is None:
            msg = (
                f"the address of the source {os.fsdecode(path)} holds a secret, which is not kept: run the backup of "
                f"the set {request['name']!r} again with it; it goes on with what was uploaded"
            )
            raise UsageError(msg)
        else:
            sources.append((name, os.fsdecode(more)))
    return sources, options


def find(folder: str, host_id: bytes) -> list[tuple[Interrupted, dict[str, Any]]]:
    """Interrupted backups of a host, with their arguments, oldest first.

    Args:
        folder: Where the host's cache is.
        host_id: The host.
    """
    found = []
    for journal in Journal.abandoned(folder, host_id):
        with closing(journal):
            left = journal.remains()
        request = left.request
        begun = dt.datetime.fromtimestamp(left.begun_ns / 1e9, dt.UTC)
        sources = tuple(row[2] for row in request.get("sources", ()))
        one = Interrupted(request["name"], request.get("mode", "snapshot"), sources, begun, left.archives)
        found.append((one, request))
    return sorted(found, key=lambda pair: pair[0].begun)


def discard(storage: Storage, folder: str, host_id: bytes, set_name: str | None) -> int:
    """Give interrupted backups up: remove what they left in the storage, and their journals.

    Args:
        storage: The vault's folder.
        folder: Where the host's cache is.
        host_id: The host.
        set_name: Only those of this set.

    Returns:
        How many there were.

    Raises:
        StorageError: Something could not be removed; it is still known.
    """
    count = 0
    for journal in Journal.abandoned(folder, host_id):
        with closing(journal):
            if set_name is not None and journal.set_name != set_name:
                continue
            for saved in journal.saved():
                upload = storage.resume(saved.upload)
                if upload is not None:
                    upload.discard()
                journal.drop(saved.under.archive_id)
            for one, leftover in journal.unsaved():
                storage.remove_leftover(leftover)
                journal.drop(one)
            journal.remove()
            count += 1
    return count


def leftovers(storage: Storage, folder: str, host_id: bytes) -> Iterator[Leftover]:
    """Unfinished uploads of a host that no journal knows of.

    Those of a backup that is under way are among them.
    """
    known: set[str] = set()
    for journal in Journal.abandoned(folder, host_id):
        with closing(journal):
            known |= journal.remains().names
    for prefix in (layout.DATA, layout.ARENA, layout.META):
        for leftover in storage.leftovers(f"{prefix}{host_id.hex()}/"):
            if leftover.name not in known:
                yield leftover
