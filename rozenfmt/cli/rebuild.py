"""``rozenfmt rebuild-cache``."""

from __future__ import annotations

import click

import rozenfmt as rz

from .access import HOST_KEY_VARIABLE, Access, access, find_host_key, vault_fields
from .options import command
from .output import Exit, Output, count, duration, problem_fields, size
from .progress import progress_bar

__all__ = ["add_commands"]


def add_commands(root: click.Group) -> None:
    """Add this module's commands."""

    @command(root, "rebuild-cache")
    @click.option(
        "--host-key",
        metavar="FILE",
        help=f"The host's key; else ${HOST_KEY_VARIABLE}, else the one saved for this vault.",
    )
    @access()
    @click.argument("location", metavar="VAULT")
    def rebuild_cache(out: Output, *, access: Access, location: str, host_key: str | None) -> int:
        """Make this machine's cache anew from the vault. A key that may browse suffices.

        Without its cache a machine reads everything again once, and stores again what it cannot recognise.
        After this it stores nothing twice; files are read once more, since a vault does not know how they
        were found. Nothing in the vault is changed.

        \b
        Example:
          rozenfmt rebuild-cache s3://bucket/vault -i me.key
        """
        out.after_interrupt = "the cache is empty; run it again, or let the next backup read everything"
        host = find_host_key(location, host_key, access.connection)
        with access.open(out, location, host=host) as vault:
            with progress_bar(out) as progress:
                result: rz.RebuildResult = vault.rebuild_catalog(progress)
            entries = count(result.entries, "entry", "entries")
            out.summary(
                f"read {count(result.snapshots, 'snapshot')} ({size(result.bytes)} in "
                f"{count(result.requests, 'request')}, {duration(result.seconds)})",
                f"{count(result.sets, 'set')} with {entries}; {count(result.pieces, 'content')} known to be stored",
            )
            out.problems(result.problems, len(result.problems))
            return out.document(
                Exit.INCOMPLETE if result.problems else Exit.DONE,
                {
                    **vault_fields(vault),
                    "host_id": host.host_id.hex(),
                    "snapshots": result.snapshots,
                    "sets": result.sets,
                    "entries": result.entries,
                    "pieces": result.pieces,
                    "requests": result.requests,
                    "bytes": result.bytes,
                    "seconds": round(result.seconds, 3),
                    **problem_fields(result.problems, len(result.problems)),
                },
            )
