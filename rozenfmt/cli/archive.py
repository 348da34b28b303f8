"""``rozenfmt archive create|list|extract|cat``."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

import rozenfmt as rz

from .keyfiles import ask_passphrase, read_passphrase, recipients_from, signing_key_from
from .options import Reading, byte_size, command, reading, storage
from .output import (
    Exit,
    Output,
    count,
    duration,
    problem_fields,
    ratio,
    safe,
    shown_location,
    size,
    text_fields,
)
from .progress import progress_bar

if TYPE_CHECKING:
    from rozenfmt.archive.writer import ArchiveWriter

__all__ = ["OVERWRITE", "add_commands", "entry_fields", "entry_line", "entry_name", "extracted"]

OVERWRITE: Final = click.Choice(["never", "if-changed", "always"])
_CIPHERS: Final = click.Choice(["xchacha20-poly1305", "xaes-256-gcm"])
_COPY: Final = 1024 * 1024
_GLOB: Final = str.maketrans({char: f"\\{char}" for char in "\\*?[]!# "})


def add_commands(group: click.Group) -> None:
    """Add this module's commands."""
    _add_create(group)
    _add_list(group)
    _add_extract(group)
    _add_cat(group)


# --- create -------------------------------------------------------------------------------------


def _add_create(group: click.Group) -> None:
    @command(group, "create")
    @click.option(
        "-r",
        "--recipient",
        multiple=True,
        metavar="RECIPIENT",
        help="Who may read: rzr1…, a file of such lines, or a key file (of which the public half is used). Repeatable.",
    )
    @click.option("-p", "--passphrase", is_flag=True, help="Encrypt with a passphrase; it is asked for twice.")
    @click.option("--passphrase-file", metavar="FILE", help="Encrypt with the passphrase in FILE (- for stdin).")
    @click.option("--plain", is_flag=True, help="Do not encrypt.")
    @click.option(
        "--browse",
        multiple=True,
        metavar="RECIPIENT",
        help="Who may see names and sizes, but no contents. Repeatable.",
    )
    @click.option("--sign", metavar="KEYFILE", help="Sign with this key (keygen --sign).")
    @click.option("--sign-passphrase-file", metavar="FILE", help="The passphrase of a locked KEYFILE.")
    @click.option(
        "--compression",
        default="zstd:3",
        show_default=True,
        metavar="METHOD",
        help="zstd:1 … zstd:19, lz4, lz4:LEVEL or none.",
    )
    @click.option("--cipher", type=_CIPHERS, default="xchacha20-poly1305", show_default=True)
    @click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Leave out what matches (gitignore syntax). Repeatable.",
    )
    @click.option("--exclude-from", multiple=True, metavar="FILE", help="File of such patterns. Repeatable.")
    @click.option("--one-file-system", is_flag=True, help="Do not cross mount points.")
    @click.option("--skip-caches", is_flag=True, help="Leave out directories that hold a CACHEDIR.TAG.")
    @click.option("--name", metavar="NAME", help="Store the one PATH under this name; needed for standard input.")
    @click.option("--overwrite", is_flag=True, help="Replace OUT once the new archive is complete.")
    @click.option(
        "--part-size",
        type=byte_size,
        metavar="SIZE",
        help="Part of an upload, e.g. 64MiB; needed for more than about 80 GiB.",
    )
    @click.option("--workers", type=click.IntRange(min=1), help="Threads; by default one for each processor.")
    @storage
    @click.argument("location", metavar="OUT")
    @click.argument("paths", metavar="PATH...", nargs=-1, required=True)
    def create(out: Output, **given: Any) -> int:
        """Write an archive of files and directories.

        Every PATH is stored under its own base name, with all that is below it; - stores standard
        input under --name. OUT is a path or a URL. It appears when it is complete: after an error or
        an interruption nothing is left. OUT itself is never stored.

        Exit code 3 says that the archive is written, but something could not be read.

        \b
        Examples:
          rozenfmt archive create -r me.key photos.rzn ~/photos
          rozenfmt archive create -r rzr1… -r friend.txt --sign sign.key s3://bucket/photos.rzn ~/photos
          rozenfmt archive create -p --exclude '*.tmp' notes.rzn notes
          pg_dump shop | rozenfmt archive create -r me.key --name shop.sql shop.rzn -
        """
        return _create(out, **given)


def _create(
    out: Output,
    *,
    location: str,
    paths: tuple[str, ...],
    sign: str | None,
    sign_passphrase_file: str | None,
    browse: tuple[str, ...],
    name: str | None,
    exclude: tuple[str, ...],
    exclude_from: tuple[str, ...],
    one_file_system: bool,
    skip_caches: bool,
    recipient: tuple[str, ...],
    passphrase: bool,
    passphrase_file: str | None,
    plain: bool,
    connection: dict[str, Any],
    **options: Any,
) -> int:
    names = _stored_names(paths, name)
    recipients = _recipients(recipient, browse, passphrase=passphrase, passphrase_file=passphrase_file, plain=plain)
    signer = signing_key_from(sign, sign_passphrase_file) if sign is not None else None
    browsers = recipients_from(browse)
    out.after_interrupt = "nothing was written"
    with (
        progress_bar(out) as progress,
        rz.create(
            location,
            recipients=recipients,
            browsers=browsers,
            signer=signer,
            plain=plain,
            progress=progress,
            **connection,
            **options,
        ) as writer,
    ):
        for path, stored in zip(paths, names, strict=True):
            if path == "-":
                writer.add(stored, sys.stdin.buffer)
                continue
            writer.add_tree(
                path,
                name=stored,
                exclude=(*exclude, *_itself(path, location)),
                exclude_from=exclude_from,
                one_file_system=one_file_system,
                skip_caches=skip_caches,
            )
    out.after_interrupt = "the archive is complete"
    return _created(out, location, writer)


def _stored_names(paths: Sequence[str], name: str | None) -> list[bytes]:
    """Names in the archive's root; refuses before any work what would fail after hours of it."""
    if name is not None and len(paths) > 1:
        msg = "--name is for a single PATH"
        raise rz.UsageError(msg)
    names: list[bytes] = []
    for path in paths:
        if path == "-":
            if name is None:
                msg = "standard input needs a name to be stored under: give --name"
                raise rz.UsageError(msg)
        else:
            try:
                os.lstat(path)
            except OSError as error:
                msg = f"cannot read {path}: {error.strerror}"
                raise rz.SourceError(msg) from error
        stored = os.fsencode(name) if name is not None else os.path.basename(os.path.abspath(os.fsencode(path)))
        if stored in names:
            msg = f"two of the paths have the name {os.fsdecode(stored)}: archive the directory that holds both"
            raise rz.UsageError(msg)
        names.append(stored or b"root")
    return names


def _recipients(
    given: tuple[str, ...],
    browse: tuple[str, ...],
    *,
    passphrase: bool,
    passphrase_file: str | None,
    plain: bool,
) -> list[rz.Recipient | rz.Passphrase]:
    by_passphrase = passphrase or passphrase_file is not None
    if sum((bool(given), by_passphrase, plain)) != 1:
        msg = "say who may read: at least one -r RECIPIENT, or a passphrase (-p), or --plain; one of the three"
        raise rz.UsageError(msg)
    if browse and not given:
        msg = "--browse goes with -r RECIPIENT"
        raise rz.UsageError(msg)
    if passphrase_file is not None:
        return [rz.Passphrase(read_passphrase(passphrase_file))]
    if passphrase:
        return [rz.Passphrase(ask_passphrase("New passphrase", twice=True))]
    return [*recipients_from(given)]


def _itself(path: str, location: str) -> list[str]:
    """Patterns that leave the archive out of itself, where it is written below what it stores."""
    if "://" in location:
        return []
    folder, name = os.path.split(os.path.abspath(location))
    source, folder = os.path.realpath(path), os.path.realpath(folder)
    inside = os.path.relpath(folder, source)
    if inside == os.pardir or inside.startswith(os.pardir + os.sep):
        return []
    below = "" if inside == os.curdir else inside.replace(os.sep, "/").translate(_GLOB) + "/"
    name = name.translate(_GLOB)
    return [f"/{below}{name}", f"/{below}.{name}.rozen-*.partial"]


def _created(out: Output, location: str, writer: ArchiveWriter) -> int:
    result = writer.result
    status = Exit.INCOMPLETE if result.problem_count else Exit.DONE
    rate = result.content_bytes / max(result.seconds, 1e-3)
    entries = count(result.entries, "entry", "entries")
    out.summary(
        f"{shown_location(location)}: {entries}, {size(result.content_bytes)} "
        f"stored in {size(result.stored_bytes)}{ratio(result.stored_bytes, result.content_bytes)}, "
        f"{duration(result.seconds)}, {size(rate)}/s"
    )
    out.detail(f"archive {result.archive_id.hex()}")
    out.problems(result.problems, result.problem_count)
    return out.document(
        status,
        {
            **text_fields("location", shown_location(location)),
            "archive_id": result.archive_id.hex(),
            "entries": result.entries,
            "content_bytes": result.content_bytes,
            "stored_bytes": result.stored_bytes,
            "seconds": round(result.seconds, 3),
            **problem_fields(result.problems, result.problem_count),
        },
    )


# --- list ---------------------------------------------------------------------------------------


def _add_list(group: click.Group) -> None:
    @command(group, "list")
    @click.option("-l", "--long", is_flag=True, help="Mode, owner, size, time and link target too.")
    @click.option("-0", "--null", is_flag=True, help="Names as they are, each ended by NUL, for xargs -0.")
    @reading()
    @click.argument("location", metavar="ARCHIVE")
    @click.argument("paths", metavar="[PATH]...", nargs=-1)
    def list_(out: Output, *, reading: Reading, location: str, paths: tuple[str, ...], long: bool, null: bool) -> int:
        """List an archive, or what is at and below a PATH in it.

        A directory's name ends in /. Control characters, bytes that are not UTF-8 and backslashes are
        shown escaped; -0 and --json give names exactly. --json prints JSON Lines: one object for
        each entry. A key with the browse right suffices.

        \b
        Examples:
          rozenfmt archive list -i me.key photos.rzn
          rozenfmt archive list -i me.key --long photos.rzn photos/2019
          rozenfmt archive list -i me.key --json photos.rzn | jq -r .path
        """
        if null and (long or out.json):
            msg = "--null goes neither with --long nor with --json"
            raise rz.UsageError(msg)
        archive = reading.open(location)
        starts = [archive.entry(path).path_bytes for path in paths] or [b""]
        for start in starts:
            for entry in archive.walk(start):
                if out.json:
                    out.record(entry_fields(entry))
                elif null:
                    sys.stdout.buffer.write(entry.path_bytes + b"\0")
                else:
                    out.line(entry_line(entry) if long else entry_name(entry))
        return Exit.DONE


def entry_name(entry: rz.ArchiveEntry) -> str:
    """Its path; of a directory with a slash behind."""
    return safe(entry.path_bytes) + ("/" if entry.kind is rz.Kind.DIRECTORY else "")


_TYPES: Final = {
    "FILE": stat.S_IFREG,
    "DIRECTORY": stat.S_IFDIR,
    "SYMLINK": stat.S_IFLNK,
    "FIFO": stat.S_IFIFO,
    "SOCKET": stat.S_IFSOCK,
    "CHARACTER_DEVICE": stat.S_IFCHR,
    "BLOCK_DEVICE": stat.S_IFBLK,
}


def entry_line(entry: rz.ArchiveEntry) -> str:
    """A line as of ``ls -l``."""
    mode = stat.filemode(_TYPES.get(entry.kind.name, 0) | entry.mode)
    owner = f"{safe(entry.user) or entry.uid}/{safe(entry.group) or entry.gid}"
    amount = f"{entry.device[0]},{entry.device[1]}" if entry.device else str(entry.size)
    target = f" -> {safe(entry.target)}" if entry.target else ""
    marks = " (changed while stored)" if entry.changed else " (unreadable when stored)" if entry.unreadable else ""
    return f"{mode} {owner:<17} {amount:>12} {_time(entry.mtime_ns)} {entry_name(entry)}{target}{marks}"


def _time(nanoseconds: int) -> str:
    try:
        return datetime.fromtimestamp(nanoseconds // 10**9).astimezone().strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return f"{nanoseconds // 10**9:>15} s"


def entry_fields(entry: rz.ArchiveEntry) -> dict[str, Any]:
    """An entry, for JSON."""
    fields: dict[str, Any] = {
        **text_fields("path", entry.path_bytes),
        "kind": entry.kind.name.lower(),
        "size": entry.size,
        "mode": f"{entry.mode:04o}",
        "mtime_ns": entry.mtime_ns,
        "uid": entry.uid,
        "gid": entry.gid,
        **text_fields("user", entry.user),
        **text_fields("group", entry.group),
    }
    if entry.target:
        fields |= text_fields("target", entry.target)
    if entry.device is not None:
        fields["device"] = list(entry.device)
    if entry.link_group is not None:
        fields["link_group"] = entry.link_group.hex()
    if entry.content_id is not None:
        fields["content_id"] = entry.content_id.hex()
    if entry.changed:
        fields["changed"] = True
    if entry.unreadable:
        fields["unreadable"] = True
    return fields


# --- extract and cat ----------------------------------------------------------------------------


def _add_extract(group: click.Group) -> None:
    @command(group, "extract")
    @click.option(
        "--overwrite",
        type=OVERWRITE,
        default="never",
        show_default=True,
        help="What to do with files that stand in DEST.",
    )
    @click.option("--owners/--no-owners", default=None, help="Restore owners; by default only as root.")
    @click.option("--numeric-owners", is_flag=True, help="Owners by number, not by name first.")
    @click.option("--no-xattrs", is_flag=True, help="Leave out extended attributes and ACLs.")
    @click.option("--workers", type=click.IntRange(min=1), help="Threads; by default one for each processor.")
    @reading()
    @click.argument("location", metavar="ARCHIVE")
    @click.argument("destination", metavar="DEST")
    @click.argument("paths", metavar="[PATH]...", nargs=-1)
    def extract(
        out: Output,
        *,
        reading: Reading,
        location: str,
        destination: str,
        paths: tuple[str, ...],
        no_xattrs: bool,
        **options: Any,
    ) -> int:
        """Restore an archive, or the PATHs in it, below the directory DEST.

        DEST is made if it is missing; nothing is ever written outside of it. Exit code 3 says that
        something was not restored, or that something else stands in its place.

        \b
        Examples:
          rozenfmt archive extract -i me.key photos.rzn restored
          rozenfmt archive extract -i me.key photos.rzn restored photos/2019
          rozenfmt archive extract -i me.key --overwrite if-changed s3://bucket/photos.rzn /
        """
        archive = reading.open(location)
        out.after_interrupt = "what was restored before stays"
        try:
            with progress_bar(out) as progress:
                result = archive.extract(destination, paths=paths, xattrs=not no_xattrs, progress=progress, **options)
        except (rz.BlockError, rz.IndexDamaged):
            out.note("rozenfmt: what was restored before stays; 'rozenfmt archive salvage' restores all that is whole")
            raise
        status = Exit.INCOMPLETE if result.problem_count else Exit.DONE
        rate = result.bytes / max(result.seconds, 1e-3)
        out.summary(
            f"{safe(destination)}: {extracted(result.files, result.directories, result.bytes)}, "
            f"{duration(result.seconds)}, {size(rate)}/s"
        )
        if result.skipped:
            out.summary(f"{count(result.skipped, 'entry', 'entries')} left alone, since they stand there already")
        out.problems(result.problems, result.problem_count)
        return out.document(
            status,
            {
                **text_fields("destination", destination),
                "files": result.files,
                "directories": result.directories,
                "bytes": result.bytes,
                "skipped": result.skipped,
                "seconds": round(result.seconds, 3),
                **problem_fields(result.problems, result.problem_count),
            },
        )


def extracted(files: int, directories: int, number: int) -> str:
    """What was restored, in words."""
    return f"{count(files, 'file')}, {count(directories, 'directory', 'directories')}, {size(number)}"


def _add_cat(group: click.Group) -> None:
    @command(group, "cat")
    @reading()
    @click.argument("location", metavar="ARCHIVE")
    @click.argument("path", metavar="PATH")
    def cat(out: Output, *, reading: Reading, location: str, path: str) -> int:
        """Write a file's content to standard output.

        Every part is verified before it is written; if a later part is damaged, what was written
        before it is right, and the exit code is 1.

        \b
        Examples:
          rozenfmt archive cat -i me.key notes.rzn notes/today.txt
          rozenfmt archive cat -i me.key shop.rzn shop.sql | psql shop
        """
        if out.json:
            msg = "cat writes contents; --json has no meaning for it"
            raise rz.UsageError(msg)
        with reading.open(location).open(path) as file:
            sys.stdout.flush()
            shutil.copyfileobj(file, sys.stdout.buffer, _COPY)
        return Exit.DONE
