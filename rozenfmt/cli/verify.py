"""``rozenfmt verify``."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import nullcontext
from datetime import datetime
from typing import Any, Final

import click

import rozenfmt as rz
from rozenfmt.adapters import ProgressBar

from .access import Access, access, vault_fields
from .options import command
from .output import (
    Exit,
    Output,
    count,
    duration,
    message,
    problem_fields,
    safe,
    shown_location,
    size,
    text_fields,
)
from .progress import progress_bar
from .snapshots import before_option

__all__ = ["add_commands", "share"]

_LEVELS: Final = {
    "present": "every archive is there, by a listing",
    "hashes": "every stored byte is as it was written",
    "opened": "everything opens with this key",
    "contents": "every content is the one that was stored",
}
_SHOWN: Final = 20
_PATHS: Final = 8


def share(value: str) -> float:
    """A share: 5%, or 0.05."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(%?)", value.strip())
    found = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < found <= 1:
        msg = f"{value!r} is not a share; write for example 5%"
        raise click.BadParameter(msg)
    return found


def add_commands(root: click.Group) -> None:
    """Add this module's commands."""

    @command(root, "verify")
    @click.option(
        "--level",
        type=click.Choice(list(_LEVELS)),
        default="present",
        show_default=True,
        help="; ".join(f"{level}: {text}" for level, text in _LEVELS.items()) + ". Each includes those before.",
    )
    @click.option("--against", metavar="DIR", help="Compare this directory with SNAP, too; reads no data archives.")
    @click.option("--sample", type=share, metavar="SHARE", help="Look at a share only, chosen anew each time: 5%.")
    @click.option(
        "--exclude", multiple=True, metavar="PATTERN", help="Leave out of DIR (gitignore syntax). Repeatable."
    )
    @click.option("--workers", type=click.IntRange(min=1), help="Threads; by default one for each processor.")
    @before_option
    @access()
    @click.argument("location", metavar="VAULT")
    @click.argument("which", metavar="[SNAP]", required=False)
    def verify(
        out: Output,
        *,
        access: Access,
        location: str,
        which: str | None,
        before: datetime | None,
        against: str | None,
        **options: Any,
    ) -> int:
        """Verify what is stored: everything in the vault, or what one snapshot needs.

        With --against also whether a directory still is as in the snapshot; how to bring back what differs
        is shown. A key that may browse suffices for all levels but contents.

        Exit code 1 says that something stored is damaged or missing; 4 that the directory differs.

        \b
        Examples:
          rozenfmt verify s3://bucket/vault -i me.key
          rozenfmt verify s3://bucket/vault -i me.key --level contents --sample 5%
          rozenfmt verify s3://bucket/vault latest:photos --against ~/photos -i clerk.key --owner rzr1…
        """
        if which is None and (against is not None or before is not None):
            msg = "say of which SNAP, for example latest:SET"
            raise rz.UsageError(msg)
        with access.open(out, location) as vault:
            snapshot = vault.snapshot(which, before=before) if which is not None else None
            with progress_bar(out) as bar:
                report = vault.verify(snapshot, against=against, progress=_Announcing(out, bar), **options)
            _show(out, vault, snapshot, against, report)
            status = _status(report)
            fields = _fields(snapshot, report) if out.json else {}
            return out.document(status, {**vault_fields(vault), **fields})


class _Announcing:
    """Says how much will be read before it is; then feeds the bar, if there is one."""

    def __init__(self, out: Output, bar: ProgressBar | None) -> None:
        self._out = out
        self._bar = bar

    def __call__(self, event: rz.Event) -> None:
        first = isinstance(event, rz.Progress) and (event.operation, event.files, event.bytes_done) == ("verify", 0, 0)
        if first and isinstance(event, rz.Progress) and event.bytes_total:
            with self._bar.paused() if self._bar is not None else nullcontext():
                self._out.summary(f"to read: {size(event.bytes_total)}")
        if self._bar is not None:
            self._bar(event)


def _status(report: rz.VerifyReport) -> Exit:
    if report.missing or report.damage_count or report.lost_count:
        return Exit.FAILED
    if report.different_count:
        return Exit.DIFFERENCES
    return Exit.INCOMPLETE if report.problems else Exit.DONE


# --- for a person -------------------------------------------------------------------------------


def _show(
    out: Output, vault: rz.Vault, snapshot: rz.Snapshot | None, against: str | None, report: rz.VerifyReport
) -> None:
    if out.json:
        return
    _show_damage(out, report)
    out.warnings(text for text in report.warnings if text not in vault.problems)
    if against is not None and snapshot is not None:
        _show_differences(out, vault, snapshot, against, report)
    out.problems(report.problems, len(report.problems))
    bad = report.missing or report.damage_count or report.lost_count
    share = f" of a sample of {100 * report.sample:g} %" if report.sample is not None else ""
    what = snapshot.id if snapshot is not None else shown_location(vault.url)
    verdict = "not all is well; see above" if bad else f"good: {_LEVELS[report.level]}{share}"
    looked = [count(report.snapshots, "snapshot"), count(report.archives, "archive")]
    if report.bytes:
        looked.append(size(report.bytes))
    if report.contents:
        looked.append(f"{count(report.contents, 'content')} of {size(report.content_bytes)}")
    out.summary(f"{what}: {verdict}", f"  {', '.join(looked)}, {duration(report.seconds)}")


def _show_damage(out: Output, report: rz.VerifyReport) -> None:
    shown = None if out.verbose else _SHOWN
    if report.missing:
        out.note(f"rozenfmt: error: {count(len(report.missing), 'object')} missing:")
        _listed(out, [safe(name) for name in report.missing], len(report.missing), shown)
    if report.damage_count:
        out.note(f"rozenfmt: error: {count(report.damage_count, 'place')} damaged:")
        lines = []
        for one in report.damages:
            block = "" if one.block is None else f", block {one.block}"
            lines.append(f"{safe(one.object)}: offset {one.offset}{block}: {one.failure_class}: {message(one.message)}")
        _listed(out, lines, report.damage_count, shown)
    if report.lost_count:
        out.note(f"rozenfmt: error: {count(report.lost_count, 'path')} lost by it:")
        lost = [f"{one.snapshot[:12]}: {safe(one.path) or 'all of it'}: {one.what}" for one in report.lost]
        _listed(out, lost, report.lost_count, shown)


def _listed(out: Output, lines: list[str], total: int, shown: int | None) -> None:
    for line in lines[:shown]:
        out.note(f"  {line}")
    if total > len(lines[:shown]):
        out.note(f"  … and {total - len(lines[:shown]):,} more{'' if out.verbose else ' (-v shows all that are kept)'}")


def _show_differences(
    out: Output, vault: rz.Vault, snapshot: rz.Snapshot, against: str, report: rz.VerifyReport
) -> None:
    if not out.quiet:
        for change in report.different if out.verbose else report.different[: 10 * _SHOWN]:
            details = f" ({safe(', '.join(change.details))})" if change.details else ""
            out.line(f"{safe(change.what):<8}  {safe(change.path)}{details}")
    hidden = report.different_count - (len(report.different) if out.verbose else 10 * _SHOWN)
    if hidden > 0:
        out.summary(f"… and {hidden:,} more{'' if out.verbose else ' (-v shows all that are kept)'}")
    differences = count(report.different_count, "difference") if report.different_count else "no difference"
    out.summary(f"{safe(against)}: {differences} from the snapshot of {snapshot.name}")
    if report.unconfirmed:
        out.summary(
            f"{count(report.unconfirmed, 'file')} of the same size and time were not compared: "
            "that takes a key that reads"
        )
    paths = report.restorable_paths[: _PATHS + 1]
    if paths:
        # A snapshot's paths begin with the source's name, which is the directory's.
        place = os.path.dirname(os.path.abspath(against))
        words = ["rozenfmt", "restore", shown_location(vault.url), snapshot.id[:12], place, "--overwrite", "always"]
        listed = [path.decode("utf-8", "surrogateescape") for path in paths[:_PATHS]]
        more = " …" if len(paths) > _PATHS else ""
        if all(path.isprintable() for path in listed):
            out.summary(
                f"to bring back what the snapshot has: {safe(shlex.join([*words, *listed]), backslash=False)}{more}"
            )


# --- for programs -------------------------------------------------------------------------------


def _fields(snapshot: rz.Snapshot | None, report: rz.VerifyReport) -> dict[str, Any]:
    return {
        "snapshot_id": snapshot.id if snapshot is not None else None,
        "level": report.level,
        "sample": report.sample,
        "ok": report.ok,
        "snapshots": report.snapshots,
        "archives": report.archives,
        "read": report.read,
        "blocks": report.blocks,
        "bytes": report.bytes,
        "requests": report.requests,
        "entries": report.entries,
        "contents": report.contents,
        "content_bytes": report.content_bytes,
        "missing": report.missing,
        "damage_count": report.damage_count,
        "damages": [
            {
                "object": one.object,
                "offset": one.offset,
                "block": one.block,
                "failure_class": one.failure_class,
                "message": message(one.message),
            }
            for one in report.damages
        ],
        "lost_count": report.lost_count,
        "lost": [
            {
                "snapshot": one.snapshot,
                **text_fields("path", one.path),
                "what": one.what,
                "object": one.object,
                "detail": message(one.detail),
            }
            for one in report.lost
        ],
        "notes": [message(text) for text in report.warnings],
        "different_count": report.different_count,
        "different": [
            {**text_fields("path", one.path), "what": one.what, "details": list(one.details)}
            for one in report.different
        ],
        "restorable": [text_fields("path", path) for path in report.restorable_paths],
        "unconfirmed": report.unconfirmed,
        "seconds": round(report.seconds, 3),
        **problem_fields(report.problems, len(report.problems)),
    }
