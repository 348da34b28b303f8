"""``rozenfmt resume``."""

from __future__ import annotations

import datetime as dt
from typing import Any

import click

import rozenfmt as rz

from .access import HOST_KEY_VARIABLE, find_host_key, opened, vault_fields
from .backup import NOTHING_COMMITTED, finished
from .options import command, source_options, storage
from .output import Exit, Output, count, message, safe, size, text_fields, when
from .progress import progress_bar

__all__ = ["add_commands"]


def add_commands(root: click.Group) -> None:
    """Add this module's commands."""

    @command(root, "resume")
    @click.option("--name", metavar="SET", help="Only backups of this set.")
    @click.option("--list", "listing", is_flag=True, help="Only say what there is.")
    @click.option("--discard", is_flag=True, help="Give them up, and remove what they left in the storage.")
    @click.option(
        "--leftovers",
        is_flag=True,
        help="With --list or --discard: also uploads of this machine that nothing here knows of.",
    )
    @click.option(
        "--host-key",
        metavar="FILE",
        help=f"The host's key; else ${HOST_KEY_VARIABLE}, else the one saved for this vault.",
    )
    @source_options
    @storage
    @click.argument("location", metavar="VAULT")
    def resume(out: Output, **given: Any) -> int:
        """Finish backups of this machine that were interrupted: by a crash, a lost network, or Ctrl-C.

        Each is run again with its own arguments. What was uploaded stays and is gone on with; files are
        read again to find out what is there already. The next backup of the same set does so too.

        If this machine's cache was lost, unfinished uploads are not recognised any more: --leftovers finds
        them in the storage, below the prefixes of this machine only, and --discard removes them.

        \b
        Examples:
          rozenfmt resume s3://bucket/vault
          rozenfmt resume s3://bucket/vault --list --leftovers
        """
        return _resume(out, **given)


def _resume(
    out: Output,
    *,
    location: str,
    name: str | None,
    listing: bool,
    discard: bool,
    leftovers: bool,
    host_key: str | None,
    connection: dict[str, Any],
    **options: Any,
) -> int:
    if listing and discard:
        msg = "--list and --discard exclude each other"
        raise rz.UsageError(msg)
    if leftovers and not (listing or discard):
        msg = "--leftovers goes with --list or --discard"
        raise rz.UsageError(msg)
    host = find_host_key(location, host_key, connection)
    with opened(out, location, (), None, connection, host=host) as vault:
        found = [one for one in vault.interrupted() if name is None or one.set_name == name]
        left = vault.leftovers() if leftovers else []
        fields = {
            **vault_fields(vault),
            "interrupted": [_interrupted(one) for one in found],
            "leftovers": [_leftover(one) for one in left],
        }
        if listing:
            _show(out, found, left)
            return out.document(Exit.DONE, fields)
        if discard:
            given_up = vault.discard_interrupted(name)
            removed = vault.remove_leftovers() if leftovers else 0
            out.summary(f"gave up {count(given_up, 'interrupted backup')}, removed {count(removed, 'other upload')}")
            return out.document(Exit.DONE, {**fields, "discarded": given_up, "removed": removed})
        out.after_interrupt = NOTHING_COMMITTED
        if not found:
            out.summary("nothing was interrupted")
            return out.document(Exit.DONE, {**fields, "results": []})
        return _finish(out, vault, name, options, fields)


def _finish(out: Output, vault: rz.Vault, name: str | None, options: dict[str, Any], fields: dict[str, Any]) -> int:
    try:
        with progress_bar(out) as progress:
            results = vault.resume(name, progress=progress, **options)
    except rz.ConflictError as error:
        if not isinstance(error.result, rz.BackupResult):
            raise
        results = [error.result]
    done = [finished(out, result) for result in results]
    status = max((one for one, _ in done), default=Exit.DONE)
    return out.document(status, {**fields, "results": [one for _, one in done]})


def _show(out: Output, found: list[rz.Interrupted], left: list[rz.Leftover]) -> None:
    for one in found:
        sources = ", ".join(safe(source) for source in one.sources)
        out.summary(
            f"{safe(one.set_name)}: begun {_time(one.begun)}, {size(one.stored_bytes)} stored in "
            f"{count(len(one.archives), 'archive')} under way ({sources})"
        )
    for other in left:
        begun = f", begun {when(other.begun_ns)}" if other.begun_ns else ""
        out.summary(f"an upload that nothing here knows of: {message(other.name)}{begun}")
    if not found and not left:
        out.summary("nothing was interrupted")


def _time(moment: dt.datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _interrupted(one: rz.Interrupted) -> dict[str, Any]:
    return {
        **text_fields("set", one.set_name),
        "mode": one.mode,
        "sources": [text_fields("path", source) for source in one.sources],
        "begun": one.begun.isoformat(),
        "stored_bytes": one.stored_bytes,
        "archives": [{"object": name, "bytes": stored} for name, stored in one.archives],
    }


def _leftover(one: rz.Leftover) -> dict[str, Any]:
    return {**text_fields("object", one.name), "upload": one.upload, "begun_ns": one.begun_ns}
