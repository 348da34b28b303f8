"""``rozenfmt restore``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

import rozenfmt as rz

from .access import Access, access, vault_fields
from .archive import OVERWRITE, extracted
from .options import command
from .output import Exit, Output, count, duration, problem_fields, safe, size, text_fields
from .progress import progress_bar
from .snapshots import before_option

__all__ = ["add_commands"]


def add_commands(root: click.Group) -> None:
    """Add this module's commands."""
    _add_restore(root)


# --- restore ------------------------------------------------------------------------------------


def _add_restore(root: click.Group) -> None:
    @command(root, "restore")
    @click.option(
        "--pattern",
        "patterns",
        multiple=True,
        metavar="PATTERN",
        help="Only what matches (gitignore syntax), with all below. Repeatable.",
    )
    @click.option(
        "--overwrite",
        type=OVERWRITE,
        default="never",
        show_default=True,
        help="What to do with files that stand in DEST.",
    )
    @click.option("--dry-run", is_flag=True, help="Restore nothing; say what would be read, and from which objects.")
    @before_option
    @click.option("--owners/--no-owners", default=None, help="Restore owners; by default only as root.")
    @click.option("--numeric-owners", is_flag=True, help="Owners by number, not by name first.")
    @click.option("--no-xattrs", is_flag=True, help="Leave out extended attributes and ACLs.")
    @click.option("--workers", type=click.IntRange(min=1), help="Threads; by default one for each processor.")
    @access()
    @click.argument("location", metavar="VAULT")
    @click.argument("which", metavar="SNAP")
    @click.argument("destination", metavar="DEST")
    @click.argument("paths", metavar="[PATH]...", nargs=-1)
    def restore(
        out: Output,
        *,
        access: Access,
        location: str,
        which: str,
        destination: str,
        before: datetime | None,
        no_xattrs: bool,
        **options: Any,
    ) -> int:
        """Restore a snapshot, or the PATHs in it, below the directory DEST.

        SNAP is an id, a beginning of one, latest, latest:SET or latest:SET@HOST; with --before the latest
        of that time. DEST is made if it is missing; nothing is ever written outside of it. Run again
        after an interruption, it goes on where it stopped.

        Exit code 3 says that something was not restored, or that something else stands in its place.

        \b
        Examples:
          rozenfmt restore s3://bucket/vault latest:photos restored -i me.key
          rozenfmt restore s3://bucket/vault latest:photos restored photos/2019 --pattern '*.jpg' -i me.key
          rozenfmt restore s3://bucket/vault latest:etc@laptop old --before 2024-12-31 -i me.key
        """
        out.after_interrupt = "what was restored before stays; the same command goes on where it stopped"
        with access.open(out, location) as vault:
            snapshot = vault.snapshot(which, before=before)
            with progress_bar(out) as progress:
                result = vault.restore(snapshot, destination, xattrs=not no_xattrs, progress=progress, **options)
            about = {**vault_fields(vault), "snapshot_id": snapshot.id, **text_fields("destination", destination)}
            if isinstance(result, rz.RestorePlan):
                return _planned(out, result, about)
            return _restored(out, destination, result, about)


def _restored(out: Output, destination: str, result: rz.RestoreResult, about: dict[str, Any]) -> int:
    rate = result.bytes / max(result.seconds, 1e-3)
    out.summary(
        f"{safe(destination)}: {extracted(result.files, result.directories, result.bytes)}; "
        f"read {size(result.read_bytes)}, {duration(result.seconds)}, {size(rate)}/s"
    )
    if result.skipped:
        out.summary(f"{count(result.skipped, 'entry', 'entries')} left alone, since they stand there already")
    if result.lost and not out.json:
        out.note(f"rozenfmt: {count(result.lost, 'path')} lost: the vault does not have all that they need")
    out.problems(result.problems, result.problem_count)
    return out.document(
        Exit.INCOMPLETE if result.problem_count else Exit.DONE,
        {
            **about,
            "files": result.files,
            "directories": result.directories,
            "bytes": result.bytes,
            "read_bytes": result.read_bytes,
            "skipped": result.skipped,
            "lost": result.lost,
            "seconds": round(result.seconds, 3),
            **problem_fields(result.problems, result.problem_count),
        },
    )


def _planned(out: Output, plan: rz.RestorePlan, about: dict[str, Any]) -> int:
    out.summary(
        f"would restore {extracted(plan.files, plan.directories, plan.bytes)}; would read {size(plan.read_bytes)} "
        f"in {count(plan.requests, 'request')} from {count(len(plan.archives), 'data archive')}:"
    )
    for one in plan.archives:
        if not out.json:
            exact = "" if one.exact else "  (not readable now: thaw it first)"
            out.line(f"{one.object}  {size(one.bytes)} of {size(one.length)}{exact}")
    out.problems(plan.problems, plan.lost)
    return out.document(
        Exit.INCOMPLETE if plan.lost else Exit.DONE,
        {
            **about,
            "dry_run": True,
            "files": plan.files,
            "directories": plan.directories,
            "bytes": plan.bytes,
            "read_bytes": plan.read_bytes,
            "requests": plan.requests,
            "lost": plan.lost,
            "archives": [
                {
                    "object": one.object,
                    "archive_id": one.archive_id.hex(),
                    "length": one.length,
                    "blocks": one.blocks,
                    "requests": one.requests,
                    "bytes": one.bytes,
                    "exact": one.exact,
                }
                for one in plan.archives
            ],
            **problem_fields(plan.problems, plan.lost),
        },
    )
