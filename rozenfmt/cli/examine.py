"""``rozenfmt archive check|inspect|salvage|compare|join|members``."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Final

import click

import rozenfmt as rz

from .archive import OVERWRITE, extracted
from .options import Reading, command, reading, storage
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

__all__ = ["add_commands"]

_LEVELS: Final = {
    "stored": "every stored byte; contents only with a key",
    "browse": "every stored byte, names and structure; contents only with a key that reads",
    "contents": "every stored byte, names, structure and contents",
}
_DAMAGES_SHOWN: Final = 20


def add_commands(group: click.Group) -> None:
    """Add this module's commands."""
    _add_check(group)
    _add_inspect(group)
    _add_salvage(group)
    _add_compare(group)
    _add_join(group)
    _add_members(group)


# --- check --------------------------------------------------------------------------------------


def _add_check(group: click.Group) -> None:
    @command(group, "check")
    @click.option("--workers", type=click.IntRange(min=1), help="Threads; by default one for each processor.")
    @reading(member=False)
    @click.argument("locations", metavar="ARCHIVE...", nargs=-1, required=True)
    def check(out: Output, *, reading: Reading, locations: tuple[str, ...], workers: int | None) -> int:
        """Check archives from their first byte to their last.

        Without a key: that every stored byte is as it was written, that it is complete, and that its
        signature is right. With a key also: that all opens, that every content is the one that was
        stored, and that directories and index agree. Exit code 1 says that one is damaged; the others
        are checked all the same. --json prints one object for each.

        \b
        Examples:
          rozenfmt archive check photos.rzn
          rozenfmt archive check -i me.key --verify-key rzv1… s3://bucket/photos.rzn
          find /backups/vault -name '*.rzn' -print0 | xargs -0 rozenfmt archive check -q
        """
        status = Exit.DONE
        for location in locations:
            good, report = _check(out, reading, location, workers)
            out.document(Exit.DONE if good else Exit.FAILED, _check_fields(report, location))
            status = status if good else Exit.FAILED
        return status


def _check(out: Output, reading: Reading, location: str, workers: int | None) -> tuple[bool, rz.CheckReport]:
    """Check one and tell what was found."""
    try:
        with progress_bar(out) as progress:
            report = rz.check(
                location,
                identities=reading.identities,
                verify_key=reading.verify_key,
                allow_plain=reading.allow_plain,
                **reading.connection,
                workers=workers,
                progress=progress,
            )
    except (rz.NoMatchingKey, rz.SignatureError, rz.UnsupportedError):
        raise  # about keys, trust or this reader, not about damage
    except rz.ArchiveError as error:
        if not isinstance(error.report, rz.CheckReport):
            raise
        _show_damage(out, location, error, error.report)
        return False, error.report
    out.summary(
        f"{shown_location(location)}: good; checked {_LEVELS[report.level]}",
        f"{count(report.blocks, 'block')}, {size(report.bytes)}, {duration(report.seconds)}",
    )
    if report.level != "stored":
        entries = count(report.entries, "entry", "entries")
        out.summary(f"{entries}, {size(report.content_bytes)} of content")
    for signer in report.signers:
        out.summary(f"signed by {rz.VerifyKey(signer)}")
    return True, report


def _show_damage(out: Output, location: str, error: rz.ArchiveError, report: rz.CheckReport) -> None:
    out.note(f"rozenfmt: error: {shown_location(location)} is damaged: {message(error.message)}")
    if not out.json:
        damages = report.damages if out.verbose else report.damages[:_DAMAGES_SHOWN]
        for damage in damages:
            block = "" if damage.block is None else f", block {damage.block}"
            out.note(f"  offset {damage.offset}{block}: {damage.failure_class}: {message(damage.message)}")
        if len(report.damages) > len(damages):
            out.note(f"  … and {len(report.damages) - len(damages):,} more (-v shows all)")


def _check_fields(report: rz.CheckReport, location: str) -> dict[str, Any]:
    return {
        **text_fields("object", shown_location(location)),
        "level": report.level,
        "archives": report.archives,
        "blocks": report.blocks,
        "bytes": report.bytes,
        "entries": report.entries,
        "content_bytes": report.content_bytes,
        "signers": [str(rz.VerifyKey(signer)) for signer in report.signers],
        "seconds": round(report.seconds, 3),
        "damages": [
            {
                "offset": damage.offset,
                "block": damage.block,
                "failure_class": damage.failure_class,
                "message": message(damage.message),
            }
            for damage in report.damages
        ],
    }


# --- inspect ------------------------------------------------------------------------------------


def _add_inspect(group: click.Group) -> None:
    @command(group, "inspect")
    @reading(verify=False, member=False)
    @click.argument("location", metavar="ARCHIVE")
    def inspect(out: Output, *, reading: Reading, location: str) -> int:
        """Show an archive's header and blocks; with a key also what the blocks hold.

        The hashes of all blocks are verified on the way. --json prints JSON Lines: an object with
        "type": "archive" for each header, then one with "type": "block" for each block.

        \b
        Examples:
          rozenfmt archive inspect photos.rzn
          rozenfmt archive inspect -i me.key --json photos.rzn
        """
        found = rz.inspect(
            location,
            identities=reading.identities,
            # Only structure is shown, and whether it is encrypted.
            allow_plain=True,
            **reading.connection,
        )
        for item in found:
            if isinstance(item, rz.Inspection):
                fields = _header_fields(item)
                if out.json:
                    out.record({"type": "archive", **fields})
                else:
                    _show_header(out, fields)
            elif out.json:
                out.record({"type": "block", **_block_fields(item)})
            else:
                details = " ".join(f"{key}={_detail(value)}" for key, value in item.details.items())
                start = f"{item.sequence:>8}  {safe(item.type)}  {item.offset:>14}  {item.length:>10}"
                out.line(f"{start}  {details}".rstrip())
        return Exit.DONE


def _header_fields(item: rz.Inspection) -> dict[str, Any]:
    from rozenfmt.format.registry import Kind, StanzaType, Suite

    def name(enum: Any, number: int) -> str:
        try:
            return str(enum(number).name).lower().replace("_", "-")
        except ValueError:
            return f"unknown-{number}"

    recipients = [{"kind": name(StanzaType, kind), "right": name(rz.Right, right)} for kind, right in item.recipients]
    return {
        "archive_id": item.archive_id.hex(),
        "base": item.base,
        "kind": name(Kind, item.kind),
        "suite": name(Suite, item.suite),
        **text_fields("creator", item.creator),
        "recipients": recipients,
        "signer": str(rz.VerifyKey(item.signer)) if item.signer is not None else None,
        "right": name(rz.Right, item.right) if item.right is not None else None,
        "header_length": item.header_length,
    }


def _show_header(out: Output, fields: dict[str, Any]) -> None:
    recipients = ", ".join(f"{r['kind']} ({r['right']})" for r in fields["recipients"]) or "none"
    out.line(f"archive     {fields['archive_id']}")
    out.line(f"at          {fields['base']}; header of {fields['header_length']} bytes")
    out.line(f"kind        {fields['kind']}, {fields['suite']}, by {safe(fields['creator'])}")
    out.line(f"recipients  {recipients}")
    out.line(f"signer      {fields['signer'] or 'none'}")
    out.line(f"key         {fields['right'] or 'none given'}")
    out.line(f"{'NUMBER':>8}  TYPE  {'OFFSET':>14}  {'LENGTH':>10}  DETAILS")


def _block_fields(item: rz.BlockInfo) -> dict[str, Any]:
    return {
        "sequence": item.sequence,
        **text_fields("block_type", item.type),
        "flags": item.flags,
        "offset": item.offset,
        "length": item.length,
        "header_length": item.header_length,
        "body_length": item.body_length,
        "details": item.details,
    }


def _detail(value: object) -> str:
    if isinstance(value, list):
        return str(len(value))
    return safe(value) if isinstance(value, str) else str(value)


# --- salvage ------------------------------------------------------------------------------------


def _add_salvage(group: click.Group) -> None:
    @command(group, "salvage")
    @click.option(
        "--overwrite",
        type=OVERWRITE,
        default="never",
        show_default=True,
        help="What to do with files that stand in DEST.",
    )
    @click.option("--number", "member", type=click.IntRange(min=0), default=0, help="Which archive of a joined object.")
    @reading(verify=False, member=False)
    @click.argument("location", metavar="ARCHIVE")
    @click.argument("destination", metavar="DEST")
    def salvage(out: Output, *, reading: Reading, location: str, destination: str, **options: Any) -> int:
        """Restore what is left of a damaged or cut-off archive below the directory DEST.

        Nothing is restored that does not verify. Contents whose names are lost go to lost+found.
        Exit code 3 says that something is missing, or may be.

        \b
        Example:
          rozenfmt archive salvage -i me.key cut-off.rzn rescued
        """
        out.after_interrupt = "what was restored before stays"
        with progress_bar(out) as progress:
            report = rz.salvage(
                location,
                destination,
                identities=reading.identities,
                allow_plain=reading.allow_plain,
                **reading.connection,
                progress=progress,
                **options,
            )
        whole = report.terminated and not (report.missing or report.damaged_bytes or report.problem_count)
        _salvaged(out, destination, report, whole=whole)
        return out.document(
            Exit.DONE if whole else Exit.INCOMPLETE,
            {
                **text_fields("object", shown_location(location)),
                **text_fields("destination", destination),
                "archive_id": report.archive_id.hex(),
                "terminated": report.terminated,
                "header_from": report.header_from,
                "blocks": report.blocks,
                "missing": [list(span) for span in report.missing],
                "damaged_bytes": report.damaged_bytes,
                "files": report.files,
                "directories": report.directories,
                "bytes": report.bytes,
                "lost_found": report.lost_found,
                "seconds": round(report.seconds, 3),
                **problem_fields(report.problems, report.problem_count),
            },
        )


def _salvaged(out: Output, destination: str, report: rz.SalvageReport, *, whole: bool) -> None:
    saved = extracted(report.files, report.directories, report.bytes)
    out.summary(f"{safe(destination)}: {saved}, {duration(report.seconds)}")
    if report.lost_found:
        out.summary(f"{count(report.lost_found, 'content')} without a name in lost+found")
    if whole:
        out.summary("nothing is missing")
    elif not report.terminated:
        out.summary("the archive has no footer: it was cut off, and how much is missing cannot be known")
    if report.missing:
        lost = sum(last - first + 1 for first, last in report.missing)
        spans = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in report.missing[:10])
        more = ", …" if len(report.missing) > 10 else ""
        out.summary(f"{count(lost, 'block')} missing: {spans}{more}")
    if report.damaged_bytes:
        out.summary(f"{size(report.damaged_bytes)} belong to no valid block")
    out.problems(report.problems, report.problem_count)


# --- compare ------------------------------------------------------------------------------------


def _add_compare(group: click.Group) -> None:
    @command(group, "compare")
    @click.option("--no-contents", is_flag=True, help="Compare names, sizes and metadata only.")
    @click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out of a directory. Repeatable.")
    @reading()
    @click.argument("location", metavar="ARCHIVE")
    @click.argument("other", metavar="DIR_OR_ARCHIVE")
    def compare(
        out: Output,
        *,
        reading: Reading,
        location: str,
        other: str,
        no_contents: bool,
        exclude: tuple[str, ...],
    ) -> int:
        """Show what differs between an archive and a directory, or another archive.

        A directory stands for what "create" would have stored of it, under its base name. "added"
        is only in the second, "removed" only in the first. Exit code 4 says that something differs, 3
        that nothing does but not all could be read. Keys and --storage-option are for both; --member
        is for the first archive.

        \b
        Examples:
          rozenfmt archive compare -i me.key photos.rzn ~/photos
          rozenfmt archive compare -i me.key --no-contents old.rzn new.rzn
        """
        first, second = _side(location, reading), _side(other, replace(reading, member=None))
        with progress_bar(out) as progress:
            difference = rz.compare(first, second, contents=not no_contents, exclude=exclude, progress=progress)
        if not (out.json or out.quiet):
            for change in difference.changes:
                details = f" ({safe(', '.join(change.details))})" if change.details else ""
                out.line(f"{safe(change.what):<8}  {safe(change.path)}{details}")
        out.summary(
            f"{count(difference.count, 'difference')} in {count(difference.files, 'entry', 'entries')}, "
            f"{size(difference.bytes)} of content compared, {duration(difference.seconds)}"
        )
        out.problems(difference.problems, difference.problem_count)
        status = Exit.INCOMPLETE if difference.problem_count else Exit.DONE
        return out.document(
            Exit.DIFFERENCES if difference else status,
            {
                "count": difference.count,
                "files": difference.files,
                "bytes": difference.bytes,
                "seconds": round(difference.seconds, 3),
                "changes": [
                    {**text_fields("path", c.path), "what": c.what, "details": list(c.details)}
                    for c in difference.changes
                ],
                **problem_fields(difference.problems, difference.problem_count),
            },
        )


def _side(location: str, how: Reading) -> str | rz.Archive:
    """A directory's path, or an archive opened."""
    if "://" in location:
        return how.open(location)
    return (
        location
        if os.path.isdir(location)
        else replace(how, connection={**how.connection, "storage_options": None}).open(location)
    )


# --- joined objects -----------------------------------------------------------------------------


def _add_join(group: click.Group) -> None:
    @command(group, "join")
    @click.option("--overwrite", is_flag=True, help="Replace OUT once the new object is complete.")
    @storage
    @click.argument("location", metavar="OUT")
    @click.argument("archives", metavar="ARCHIVE...", nargs=-1, required=True)
    def join(
        out: Output,
        *,
        location: str,
        archives: tuple[str, ...],
        overwrite: bool,
        connection: dict[str, Any],
    ) -> int:
        """Join archives into one object, each readable with its own key; needs no key.

        \b
        Example:
          rozenfmt archive join year.rzn january.rzn february.rzn
        """
        out.after_interrupt = "nothing was written"
        members = rz.join(location, archives, overwrite=overwrite, **connection)
        out.after_interrupt = "the object is complete"
        return _show_members(out, location, members)


def _add_members(group: click.Group) -> None:
    @command(group, "members")
    @storage
    @click.argument("location", metavar="ARCHIVE")
    def members(out: Output, *, location: str, connection: dict[str, Any]) -> int:
        """List the archives in an object; needs no key.

        Numbers and ids are what --member takes.

        \b
        Example:
          rozenfmt archive members year.rzn
        """
        found = rz.members(location, **connection)
        if not out.json:
            out.quiet = False  # the list is the result, not a summary
        return _show_members(out, location, found)


def _show_members(out: Output, location: str, members: list[rz.Member]) -> int:
    fields = []
    number = 0
    for member in members:
        kind = member.kind.name.lower().replace("_", "-")
        own = None if kind == "directory" else number
        number += own is not None
        shown = "-" if own is None else own
        out.summary(f"{shown:>6}  {member.archive_id.hex()}  {kind:<14} {member.offset:>16}  {size(member.length)}")
        fields.append(
            {
                "number": own,
                "archive_id": member.archive_id.hex(),
                "kind": kind,
                "offset": member.offset,
                "length": member.length,
            }
        )
    return out.document(Exit.DONE, {**text_fields("object", shown_location(location)), "members": fields})
