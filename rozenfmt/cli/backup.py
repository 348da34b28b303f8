"""``rozenfmt backup``."""

from __future__ import annotations

import os
from typing import Any, Final

import click

import rozenfmt as rz

from .access import HOST_KEY_VARIABLE, find_host_key, opened, vault_fields
from .conflicts import Asker, can_ask, conflict_fields, conflict_line
from .keyfiles import people_from
from .options import byte_size, command, source_options, storage
from .output import Exit, Output, count, duration, message, problem_fields, safe, size, text_fields
from .progress import progress_bar

__all__ = ["NOTHING_COMMITTED", "add_commands", "counted", "finished"]

NOTHING_COMMITTED: Final = (
    "nothing was committed: every snapshot before is as it was. `rozenfmt resume`, or the next backup of this set, "
    "goes on with what was uploaded"
)
_CIPHERS: Final = click.Choice(["xchacha20-poly1305", "xaes-256-gcm"])
_ON_CONFLICT: Final = click.Choice(["ask", "restore", "accept", "keep-both", "skip", "fail"])
_COMMAND_OPTION: Final = "--stdin-from-command"
_COMMAND_KEY: Final = "rozenfmt.cli.backup.command"
_SHOWN: Final = 20
_LONGEST_TAG: Final = 4_096


class _Backup(click.Command):
    """What follows ``--`` after ``--stdin-from-command`` is a command, with options of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the command away from the arguments."""
        if "--" in args:
            at = args.index("--")
            if any(one == _COMMAND_OPTION or one.startswith(_COMMAND_OPTION + "=") for one in args[:at]):
                ctx.meta[_COMMAND_KEY] = args[at + 1 :]
                args = args[:at]
        return super().parse_args(ctx, args)


def add_commands(root: click.Group) -> None:
    """Add this module's commands."""

    @command(root, "backup", cls=_Backup)
    @click.option("--name", metavar="SET", help="The set it belongs to; by default the sources' absolute paths.")
    @click.option(
        "--mode",
        type=click.Choice(["snapshot", "worm"]),
        default="snapshot",
        show_default=True,
        help="What is there now; or write-once: what was stored is not to change.",
    )
    @click.option(
        "--exclude", multiple=True, metavar="PATTERN", help="Leave out what matches (gitignore syntax). Repeatable."
    )
    @click.option("--exclude-from", multiple=True, metavar="FILE", help="File of such patterns. Repeatable.")
    @click.option("--one-file-system", is_flag=True, help="Do not cross mount points.")
    @click.option("--skip-caches", is_flag=True, help="Leave out directories that hold a CACHEDIR.TAG.")
    @click.option("--tag", "tags", multiple=True, metavar="TEXT", help="Text to find the snapshot by. Repeatable.")
    @click.option(
        "--on-conflict",
        type=_ON_CONFLICT,
        help="Write-once: what to do about changed contents. By default asked on a terminal; else the snapshot keeps "
        "what was stored before, and the exit code is 3.",
    )
    @click.option(
        "--reread",
        type=click.Choice(["none", "sample", "all"]),
        default="none",
        show_default=True,
        help="Read files although size, times and inode are as before.",
    )
    @click.option("--allow-empty", is_flag=True, help="A source that is missing or empty now is meant to be so.")
    @click.option(
        "--host-key",
        metavar="FILE",
        help=f"The host's key; else ${HOST_KEY_VARIABLE}, else the one saved for this vault.",
    )
    @click.option(
        "-i", "--identity", multiple=True, metavar="FILE", help="A key that reads; only for --on-conflict restore."
    )
    @click.option("--passphrase-file", metavar="FILE", help="The passphrase of a locked key file (- for stdin).")
    @click.option(
        "--compression", default="zstd:3", show_default=True, metavar="METHOD", help="zstd:1 … zstd:19, lz4 or none."
    )
    @click.option("--cipher", type=_CIPHERS, default="xchacha20-poly1305", show_default=True)
    @click.option(
        "--data-size", type=byte_size, default="1GiB", show_default=True, metavar="SIZE", help="Of data archives."
    )
    @click.option("--no-decode-check", is_flag=True, help="Do not open and decode each block again before it is sent.")
    @click.option("--workers", type=click.IntRange(min=1), help="Threads; by default one for each processor.")
    @click.option(
        _COMMAND_OPTION,
        "stdin_name",
        metavar="NAME",
        help="Store the output of the command after -- as the file NAME, if it exits with 0.",
    )
    @source_options
    @storage
    @click.argument("location", metavar="VAULT")
    @click.argument("sources", metavar="[SOURCE]... [-- COMMAND...]", nargs=-1)
    def backup(out: Output, **given: Any) -> int:
        """Back up files and directories, or the output of a command, into a new snapshot.

        Every SOURCE is a path, or a URL of files elsewhere: sftp://, s3://, webdav:// and whatever fsspec reads.
        It is stored under its base name, or as NAME if it is written NAME=SOURCE. What has not
        changed since the set's last snapshot is neither read nor stored again. The host's key suffices.
        The snapshot appears at the end, whole: an interruption leaves none. The next backup of the same
        set, or `rozenfmt resume`, goes on with what was uploaded.

        Exit code 3 says that the snapshot is there, but something could not be read, or changed contents of
        a write-once set were left as they were stored.

        \b
        Examples:
          rozenfmt backup s3://bucket/vault ~/photos --mode worm --name photos
          rozenfmt backup s3://bucket/vault /etc srv=/srv/www --exclude '*.tmp' --tag nightly
          rozenfmt backup s3://bucket/vault sftp://me@server/srv/www --name www
          rozenfmt backup s3://bucket/vault --stdin-from-command shop.sql -- pg_dump --clean shop
        """
        return _backup(out, **given)


def _backup(
    out: Output,
    *,
    location: str,
    sources: tuple[str, ...],
    stdin_name: str | None,
    host_key: str | None,
    identity: tuple[str, ...],
    passphrase_file: str | None,
    on_conflict: str | None,
    no_decode_check: bool,
    connection: dict[str, Any],
    **options: Any,
) -> int:
    wanted = _sources(sources, stdin_name)
    _check_tags(options["tags"])
    asking = _asks(out, on_conflict, worm=options["mode"] == "worm")
    if on_conflict == "restore" and not identity:
        msg = "--on-conflict restore takes a key that reads: give -i FILE"
        raise rz.UsageError(msg)
    # Not from the environment: whoever backs up should not be asked for the passphrase of a key that is not needed.
    people = people_from(identity, ask=False, passphrase_file=passphrase_file) if identity else ()
    host = find_host_key(location, host_key, connection)
    out.after_interrupt = NOTHING_COMMITTED
    with opened(out, location, people, None, connection, host=host) as vault:
        try:
            with progress_bar(out) as progress:
                answer: Any = Asker(progress) if asking else on_conflict
                result = vault.backup(
                    wanted, on_conflict=answer, decode_check=not no_decode_check, progress=progress, **options
                )
        except rz.ConflictError as error:
            if not isinstance(error.result, rz.BackupResult):
                raise
            result = error.result
        out.after_interrupt = "the snapshot is complete"
        return _done(out, vault, result)


def _sources(given: tuple[str, ...], stdin_name: str | None) -> list[str | tuple[str, str] | rz.Command]:
    """What to back up; refuses before any work what nobody can have meant."""
    wanted: list[str | tuple[str, str] | rz.Command] = []
    for source in given:
        name, equals, path = source.partition("=")
        if equals and name and path and "/" not in name and not os.path.lexists(source):
            wanted.append((name, path))
        else:
            wanted.append(source)
    if stdin_name is not None:
        words = click.get_current_context().meta.get(_COMMAND_KEY, [])
        if not words:
            msg = f"{_COMMAND_OPTION} NAME is followed by the command: {_COMMAND_OPTION} NAME -- COMMAND…"
            raise rz.UsageError(msg)
        wanted.append(rz.Command(stdin_name, words))
    if not wanted:
        msg = "there is nothing to back up: name at least one SOURCE"
        raise rz.UsageError(msg)
    return wanted


def _check_tags(tags: tuple[str, ...]) -> None:
    for tag in tags:
        if len(tag.encode("utf-8", "surrogateescape")) > _LONGEST_TAG or any(
            "\ud800" <= char <= "\udfff" for char in tag
        ):
            msg = f"a tag is a text in UTF-8 of at most {_LONGEST_TAG:,} bytes"
            raise rz.UsageError(msg)


def _asks(out: Output, on_conflict: str | None, *, worm: bool) -> bool:
    if on_conflict is not None and not worm:
        msg = "--on-conflict is for write-once sets: give --mode worm"
        raise rz.UsageError(msg)
    if on_conflict == "ask" and not can_ask():
        msg = "there is no terminal to ask on: choose another --on-conflict"
        raise rz.UsageError(msg)
    return worm and (on_conflict == "ask" or (on_conflict is None and not out.json and can_ask()))


# --- what was done ------------------------------------------------------------------------------


def _done(out: Output, vault: rz.Vault, result: rz.BackupResult) -> int:
    status, fields = finished(out, result)
    return out.document(status, {**vault_fields(vault), **fields})


def finished(out: Output, result: rz.BackupResult) -> tuple[Exit, dict[str, Any]]:
    """Say what a backup did; returns the exit code and what JSON says of it."""
    _summary(out, result)
    for note in result.notes:
        if not out.json:
            out.note(f"rozenfmt: note: {message(note)}")
    _conflicts(out, result)
    out.problems(result.problems, result.problem_count)
    return Exit.DONE if result.complete else Exit.INCOMPLETE, _fields(result)


def _summary(out: Output, result: rz.BackupResult) -> None:
    entries = count(result.entries, "entry", "entries")
    same = ", unchanged" if result.unchanged else ""
    out.summary(
        f"snapshot {result.snapshot_id} of {safe(result.set_name)}: {entries}, {size(result.content_bytes)}{same}",
        f"  {counted(result, result.same)}",
        f"  read {size(result.read_bytes)}, stored {size(result.stored_bytes)}, {duration(result.seconds)}",
    )
    if result.resumed_bytes:
        out.summary(f"  went on with an interrupted backup, which had stored {size(result.resumed_bytes)}")
    metadata, data = result.leans_on
    out.detail(f"  refers to {count(data, 'data archive')} and {count(metadata, 'earlier metadata archive')}")
    for move in result.moves:
        out.detail(f"  moved    {safe(move.old)} -> {safe(move.new)}{'/' if move.directory else ''}")
    for path in result.deletions:
        out.detail(f"  deleted  {safe(path)}")


def counted(counts: Any, unchanged: int) -> str:
    """What changed since the snapshot before, in words."""
    return (
        f"{counts.new:,} new, {counts.changed:,} changed, {counts.metadata:,} with new metadata, "
        f"{counts.moved:,} moved, {counts.deleted:,} deleted, {unchanged:,} unchanged"
    )


def _conflicts(out: Output, result: rz.BackupResult) -> None:
    if out.json:
        return
    left = [one for one in result.conflicts if one.answer in ("withhold", "skip")]
    if left:
        out.note(f"rozenfmt: the content of {count(len(left), 'file')} of this write-once set has changed:")
        for conflict in left if out.verbose else left[:_SHOWN]:
            out.note(f"  {conflict_line(conflict)}")
        if len(left) > _SHOWN and not out.verbose:
            out.note(f"  … and {len(left) - _SHOWN:,} more (-v shows all)")
        if any(one.answer == "withhold" for one in left):
            out.note("  say what to do with --on-conflict, or run it on a terminal to be asked about each")
    for conflict in result.conflicts:
        if conflict not in left:
            out.detail(f"  conflict {conflict_line(conflict)}")


def _fields(result: rz.BackupResult) -> dict[str, Any]:
    return {
        "snapshot_id": result.snapshot_id,
        **text_fields("set", result.set_name),
        "sequence": result.sequence,
        "mode": result.mode,
        "unchanged": result.unchanged,
        "leans_on": {"metadata": result.leans_on[0], "data": result.leans_on[1]},
        "complete": result.complete,
        "entries": result.entries,
        "directories": result.directories,
        "content_bytes": result.content_bytes,
        "read_bytes": result.read_bytes,
        "stored_bytes": result.stored_bytes,
        "resumed_bytes": result.resumed_bytes,
        "counts": {
            "new": result.new,
            "changed": result.changed,
            "metadata": result.metadata,
            "moved": result.moved,
            "deleted": result.deleted,
            "unchanged": result.same,
        },
        "archives": [{"object": name, "bytes": length} for name, length in result.archives],
        "moves": [
            {**text_fields("old", one.old), **text_fields("new", one.new), "directory": one.directory}
            for one in result.moves
        ],
        "deletions": _paths(result.deletions),
        "conflicts": [conflict_fields(one) for one in result.conflicts],
        "notes": [message(note) for note in result.notes],
        "seconds": round(result.seconds, 3),
        **problem_fields(result.problems, result.problem_count),
    }


def _paths(paths: list[bytes]) -> list[dict[str, str]]:
    return [text_fields("path", path) for path in paths]
