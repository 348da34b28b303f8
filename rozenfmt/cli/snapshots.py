"""``rozenfmt snapshots|ls|cat|diff``: looking into a vault."""

from __future__ import annotations

import shutil
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

import rozenfmt as rz

from .access import Access, access, vault_fields
from .archive import entry_fields, entry_line, entry_name
from .options import command
from .output import Exit, Output, count, message, safe, size, text_fields, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["add_commands", "before_option", "point_in_time", "snapshot_fields"]

_COPY: Final = 1024 * 1024
_COUNTS: Final = ("new", "changed", "metadata", "moved", "deleted", "unchanged", "problems", "conflicts", "directories")
_SHORT_ID: Final = 12


def add_commands(root: click.Group) -> None:
    """Add this module's commands."""
    _add_snapshots(root)
    _add_ls(root)
    _add_cat(root)
    _add_diff(root)


# --- what several commands need -----------------------------------------------------------------


def point_in_time(value: str) -> datetime:
    """A date, or date and time, in the local time zone unless it names another one."""
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        msg = f"{value!r} is no point in time; write 2024-12-31, or 2024-12-31T18:00"
        raise click.BadParameter(msg) from None
    return found if found.tzinfo is not None else found.astimezone()


def before_option(function: Any) -> Any:
    """``--before``."""
    return click.option(
        "--before",
        type=point_in_time,
        metavar="TIME",
        help="Only snapshots begun by then: 2024-12-31, or 2024-12-31T18:00; by the hosts' clocks.",
    )(function)


def snapshot_fields(one: rz.Snapshot) -> dict[str, Any]:
    """A snapshot, for JSON."""
    return {
        "id": one.id,
        **text_fields("set", one.name),
        **text_fields("host", one.host),
        "host_id": one.host_id.hex(),
        "sequence": one.sequence,
        "mode": one.mode,
        "started_ns": one.started_ns,
        "finished_ns": one.finished_ns,
        "entries": one.entry_count,
        "content_bytes": one.content_bytes,
        "stored_bytes": one.stored_bytes,
        "unchanged": one.unchanged,
        "incomplete": one.incomplete,
        "parent": one.parent.hex() if one.parent is not None else None,
        "tags": list(one.tags),
        "sources": [
            {
                **text_fields("name", source.name),
                **text_fields("origin", source.origin),
                "kind": source.kind.name.lower(),
            }
            for source in one.sources
        ],
        "counts": {name: getattr(one.counts, name) for name in _COUNTS},
    }


# --- snapshots ----------------------------------------------------------------------------------


def _add_snapshots(root: click.Group) -> None:
    @command(root, "snapshots")
    @click.option("--host", metavar="HOST", help="Only those of this host: its label or its id.")
    @click.option("--name", metavar="SET", help="Only those of this set.")
    @access()
    @click.argument("location", metavar="VAULT")
    def snapshots(out: Output, *, access: Access, location: str, host: str | None, name: str | None) -> int:
        """List snapshots, each set's oldest first. A key that may browse suffices.

        Times are those of the hosts' clocks; the order is that of their sequence numbers. With -v
        sources and tags are shown, too.

        \b
        Examples:
          rozenfmt snapshots s3://bucket/vault -i me.key
          rozenfmt snapshots s3://bucket/vault -i me.key --name photos --json | jq '.snapshots[-1].id'
        """
        with access.open(out, location) as vault:
            found = vault.snapshots(host=host, name=name)
            if not out.json:
                for line in _table(found, verbose=out.verbose):
                    out.line(line)
            fields = [snapshot_fields(one) for one in found]
            return out.document(Exit.DONE, {**vault_fields(vault), "snapshots": fields})


def _table(found: list[rz.Snapshot], *, verbose: bool) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("ID", "TIME", "HOST", "SET", "MODE", "ENTRIES", "SIZE", "CHANGES")]
    for one in found:
        about = (one.id[:_SHORT_ID], when(one.started_ns), safe(one.host), safe(one.name), one.mode)
        rows.append((*about, f"{one.entry_count:,}", size(one.content_bytes), _changes(one)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [
            cell.rjust(width) if column in (5, 6) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
        if verbose and number:
            one = found[number - 1]
            yield f"    id {one.id}, number {one.sequence}, metadata {size(one.stored_bytes)}"
            for source in one.sources:
                yield f"    {safe(source.name)} from {source.kind.name.lower()} {safe(source.origin)}"
            if one.tags:
                yield f"    tags {', '.join(map(safe, one.tags))}"


def _changes(one: rz.Snapshot) -> str:
    """What changed since the snapshot before, as far as there is something to say."""
    if one.unchanged:
        return "unchanged"
    words = [f"{getattr(one.counts, name):,} {name}" for name in _COUNTS[:5] if getattr(one.counts, name)]
    words += [count(one.counts.conflicts, "conflict")] if one.counts.conflicts else []
    words += [f"INCOMPLETE: {count(one.counts.problems, 'problem')}"] if one.incomplete else []
    return ", ".join(words)


# --- ls -----------------------------------------------------------------------------------------


def _add_ls(root: click.Group) -> None:
    @command(root, "ls")
    @click.option("-l", "--long", is_flag=True, help="Mode, owner, size, time and link target too.")
    @click.option("-R", "--recursive", is_flag=True, help="All that is below, too.")
    @click.option("-0", "--null", is_flag=True, help="Names as they are, each ended by NUL, for xargs -0.")
    @before_option
    @access()
    @click.argument("location", metavar="VAULT")
    @click.argument("which", metavar="SNAP")
    @click.argument("path", metavar="[PATH]", required=False, default="")
    def ls(
        out: Output,
        *,
        access: Access,
        location: str,
        which: str,
        path: str,
        long: bool,
        recursive: bool,
        null: bool,
        before: datetime | None,
    ) -> int:
        """List a directory of a snapshot, the root by default. A key that may browse suffices.

        SNAP is an id, a beginning of one, latest, latest:SET or latest:SET@HOST. A directory's name ends
        in /. Control characters, bytes that are not UTF-8 and backslashes are shown escaped; -0 and --json
        give names exactly. --json prints JSON Lines: one object for each entry.

        \b
        Examples:
          rozenfmt ls s3://bucket/vault latest:photos -i me.key
          rozenfmt ls s3://bucket/vault 7652028f photos/2019 -l -i clerk.key --owner rzr1…
        """
        if null and (long or out.json):
            msg = "--null goes neither with --long nor with --json"
            raise rz.UsageError(msg)
        lost: list[tuple[bytes, str]] = []
        with access.open(out, location) as vault:
            snapshot = vault.snapshot(which, before=before)
            for entry in _listed(snapshot, path, lost, recursive=recursive):
                if out.json:
                    out.record(entry_fields(entry))
                elif null:
                    sys.stdout.buffer.write(entry.path_bytes + b"\0")
                else:
                    out.line(entry_line(entry) if long else entry_name(entry))
        for directory, why in lost:
            out.note(f"rozenfmt: not all of {safe(directory) or 'the root'} can be listed: {message(why)}")
        return Exit.INCOMPLETE if lost else Exit.DONE


def _listed(
    snapshot: rz.Snapshot, path: str, lost: list[tuple[bytes, str]], *, recursive: bool
) -> Iterable[rz.ArchiveEntry]:
    if recursive:
        return snapshot.walk(path, lost=lambda directory, error: lost.append((directory, str(error))))
    if path.strip("/"):
        entry = snapshot.entry(path)
        if entry.kind is not rz.Kind.DIRECTORY:
            return [entry]
    return snapshot.listdir(path)


# --- cat ----------------------------------------------------------------------------------------


def _add_cat(root: click.Group) -> None:
    @command(root, "cat")
    @before_option
    @access()
    @click.argument("location", metavar="VAULT")
    @click.argument("which", metavar="SNAP")
    @click.argument("path", metavar="PATH")
    def cat(out: Output, *, access: Access, location: str, which: str, path: str, before: datetime | None) -> int:
        """Write the content of a file in a snapshot to standard output.

        Every part is verified before it is written; if a later part is damaged, what was written
        before it is right, and the exit code is 1.

        \b
        Examples:
          rozenfmt cat s3://bucket/vault latest:etc etc/fstab -i me.key
          rozenfmt cat s3://bucket/vault latest:shop shop.sql -i me.key | psql shop
        """
        if out.json:
            msg = "cat writes contents; --json has no meaning for it"
            raise rz.UsageError(msg)
        with access.open(out, location) as vault, vault.snapshot(which, before=before).open(path) as file:
            sys.stdout.flush()
            shutil.copyfileobj(file, sys.stdout.buffer, _COPY)
        return Exit.DONE


# --- diff ---------------------------------------------------------------------------------------


def _add_diff(root: click.Group) -> None:
    @command(root, "diff")
    @access()
    @click.argument("location", metavar="VAULT")
    @click.argument("older", metavar="OLDER")
    @click.argument("newer", metavar="NEWER")
    def diff(out: Output, *, access: Access, location: str, older: str, newer: str) -> int:
        """Show what changed between two snapshots; exit code 4 says that something did.

        No contents are read: a key that may browse suffices. Both are given as to "ls".

        \b
        Example:
          rozenfmt diff s3://bucket/vault 34da64be latest:photos -i me.key
        """
        with access.open(out, location) as vault:
            found = vault.diff(older, newer)
            if not (out.json or out.quiet):
                for change in found:
                    details = f" ({safe(', '.join(change.details))})" if change.details else ""
                    old = f"{safe(change.old_path)} -> " if change.old_path is not None else ""
                    slash = "/" if change.kind is rz.Kind.DIRECTORY else ""
                    out.line(f"{change.what:<8}  {old}{safe(change.path)}{slash}{details}")
            words = ", ".join(f"{number:,} {what}" for what, number in found.counts.items() if number)
            out.summary(f"{found.older[:_SHORT_ID]} to {found.newer[:_SHORT_ID]}: {words or 'no differences'}")
            if found.unconfirmed:
                out.summary(
                    f"{count(found.unconfirmed, 'file')} of two hosts have the same size and time, and are taken for "
                    "the same; only reading them would prove it"
                )
            if not out.json:  # the list may be long
                return Exit.DIFFERENCES if found else Exit.DONE
            return out.document(
                Exit.DIFFERENCES if found else Exit.DONE,
                {
                    **vault_fields(vault),
                    "older": found.older,
                    "newer": found.newer,
                    "counts": found.counts,
                    "unconfirmed": found.unconfirmed,
                    "changes": [_change_fields(change) for change in found],
                },
            )


def _change_fields(change: rz.SnapshotChange) -> dict[str, Any]:
    fields: dict[str, Any] = {
        **text_fields("path", change.path),
        "what": change.what,
        "kind": change.kind.name.lower(),
        "details": list(change.details),
    }
    if change.old_path is not None:
        fields |= text_fields("old_path", change.old_path)
    return fields
