#!/usr/bin/env python3
"""The main job from beginning to end, on a machine that has nothing but Python.

    python3 examples/first_vault.py [DIRECTORY] [-o FOLDER]

Makes a virtual environment, installs rozenfmt into it, and then, for a copy of a real directory:
makes a key and a vault, backs up as a host that can read nothing back, changes the copy, backs up
again, shows the differences, verifies, restores, and compares what was restored with the copy.
Vault and keys stay in FOLDER; the copies do not.
Exit codes: 0 all is well · 1 failed · 3 something could not be read · 4 the restored copy differs.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import rozenfmt as rz

PROJECT = Path(__file__).resolve().parent.parent
ENVIRONMENT = PROJECT / ".venv-demo"
LISTED = 5
CHUNK = 1024


def install() -> None:
    """Make sure that rozenfmt can be imported; if not, install it and start again with it."""
    if importlib.util.find_spec("rozenfmt") is not None:
        return
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if Path(sys.prefix) == ENVIRONMENT:
        sys.exit(f"the environment {ENVIRONMENT} does not work; remove it and try again")
    if not python.exists():
        say("environment", f"making {ENVIRONMENT}")
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    if subprocess.run([python, "-c", "import rozenfmt"], check=False, capture_output=True, cwd="/").returncode:
        say("install", "rozenfmt and what it needs, by pip")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", str(PROJECT)]
        if subprocess.run(pip, check=False).returncode:
            sys.exit("pip could not install it; its messages above say why")
    sys.stdout.flush()
    again = [str(python), str(Path(__file__).resolve()), *sys.argv[1:]]
    if os.name == "nt":
        sys.exit(subprocess.run(again, check=False).returncode)
    os.execv(python, again)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all steps; returns the exit code."""
    standard_library = Path(sysconfig.get_path("stdlib"))
    parser = argparse.ArgumentParser(description="Back a directory up twice, verify, restore and compare it.")
    parser.add_argument(
        "directory", nargs="?", type=Path, help=f"what to back up (default: Python's own library, {standard_library})"
    )
    parser.add_argument("-o", "--output", type=Path, help="new folder for vault and keys (default: ./rozenfmt-demo)")
    options = parser.parse_args(arguments)
    source = (options.directory or standard_library).expanduser().resolve()
    # What was installed beside the library, or compiled from it, is not part of it.
    leave_out = [] if options.directory else ["__pycache__", "site-packages", "dist-packages"]
    if not source.is_dir():
        parser.error(f"{source} is not a directory")
    if (options.output or Path()).resolve().is_relative_to(source):
        parser.error(f"the vault would lie inside of {source}; start elsewhere, or give -o FOLDER")
    install()

    import rozenfmt as rz

    try:
        folder = new_folder(options.output)
        # Beside the vault, not in /tmp: that may be small.
        with tempfile.TemporaryDirectory(dir=folder, prefix="copies-") as place:
            copy = Path(place, source.name or "root")
            say("copy", f"of {source}, so that it can be changed")
            shutil.copytree(source, copy, symlinks=True, ignore=shutil.ignore_patterns(*leave_out))
            return run(copy, folder, Path(place, "restored"))
    except (rz.RozenError, OSError) as error:  # copytree's own error is an OSError
        sys.stderr.write(f"failed: {error}\n")
        return 1


def run(copy: Path, folder: Path, restored: Path) -> int:
    """Keys, vault, two backups, differences, verification, restore, comparison."""
    import rozenfmt as rz

    location, name = folder / "vault", copy.name
    me = rz.Identity.generate()
    me.save(folder / "me.key")
    say("key", f"{folder / 'me.key'}, for the recipient {str(me.recipient)[:20]}…")
    with rz.Vault.init(location, owner=me) as vault:
        host = vault.enrol("this machine")
    host.save(folder / "this-machine.host")
    say("vault", f"{location}; this machine got a key of its own, which reads nothing")

    # From here on as a host: the owner's key is not used to back up.
    with rz.Vault.open(location, host=host, cache_dir=folder / "cache") as vault:
        first = vault.backup([copy], name=name)
        say(
            "backup",
            f"{first.entries:,} entries, {size(first.content_bytes)} stored in {size(first.stored_bytes)} "
            f"({share(first.stored_bytes, first.content_bytes)}), {speed(first.content_bytes, first.seconds)}",
        )
        problems(first.problems, first.problem_count)
        for change in change_something(copy):
            say("change", change)
        second = vault.backup([copy], name=name)
        say(
            "backup",
            f"{second.new} new, {second.changed} changed, {second.moved} moved, {second.deleted} deleted, "
            f"{second.same:,} unchanged; {size(second.stored_bytes)} stored, {second.seconds:.2f} s",
        )

    with rz.Vault.open(location, identities=[me]) as vault:
        code = look(vault, first, second) or restore(vault, second, copy, restored)
    say("left here", f"{location}\n{'':12}{folder / 'me.key'}   whoever has it can read the vault")
    return code or (3 if first.problem_count or second.problem_count else 0)


def look(vault: rz.Vault, first: rz.BackupResult, second: rz.BackupResult) -> int:
    """What differs between the two snapshots, and whether all that is stored is right."""
    difference = vault.diff(first.snapshot_id, second.snapshot_id)
    say("diff", ", ".join(f"{number} {what}" for what, number in difference.counts.items()))
    for change in itertools.islice(difference, LISTED):
        old = f"{os.fsdecode(change.old_path)!r} -> " if change.old_path is not None else ""
        print(f"{'':12}{change.what:<9}{old}{os.fsdecode(change.path)!r}")
    report = vault.verify(level="contents")
    say(
        "verify",
        f"{report.snapshots} snapshots, {report.contents:,} contents, {size(report.content_bytes)}: "
        f"{'all are what was stored' if report.ok else 'DAMAGED'}, {speed(report.content_bytes, report.seconds)}",
    )
    return 0 if report.ok else 1


def restore(vault: rz.Vault, done: rz.BackupResult, copy: Path, place: Path) -> int:
    """Restore the second snapshot, and compare it with the copy."""
    import rozenfmt as rz

    result = vault.restore(done.snapshot_id, place)
    assert isinstance(result, rz.RestoreResult)
    say(
        "restore",
        f"{result.files:,} files, {result.directories:,} directories, {size(result.bytes)}, "
        f"{speed(result.bytes, result.seconds)}",
    )
    problems(result.problems, result.problem_count)
    difference = rz.compare(copy, place / copy.name)
    say("compare", f"{difference.files:,} entries, {size(difference.bytes)} byte by byte: {difference.count:,} differ")
    for change in difference.changes[:LISTED]:
        print(f"{'':12}{change.what}: {os.fsdecode(change.path)!r} {' '.join(change.details)}")
    if difference:
        return 4
    return 3 if result.problem_count or difference.problem_count else 0


def change_something(copy: Path) -> list[str]:
    """A new file, a changed one, a renamed directory, a deleted file; as far as there is something to change."""
    done = []
    files = sorted(path for path in copy.iterdir() if path.is_file() and not path.is_symlink())
    folders = sorted(path for path in copy.iterdir() if path.is_dir() and not path.is_symlink() and any(path.iterdir()))
    if len(files) > 1:
        files[-1].unlink()
        done.append(f"deleted {files[-1].name}")
    if files:
        files[0].chmod(files[0].stat().st_mode | 0o200)
        with files[0].open("ab") as file:
            file.write(b"\n# one more line\n")
        done.append(f"added a line to {files[0].name}")
    if folders:
        folders[0].rename(copy / f"{folders[0].name}-renamed")
        done.append(f"renamed the directory {folders[0].name}")
    (copy / "rozenfmt-was-here.txt").write_text("The lake was cold.\n", encoding="utf-8")
    return [*done, "wrote rozenfmt-was-here.txt"]


def new_folder(wanted: Path | None) -> Path:
    """A folder that was not there before: neither keys nor vaults are ever overwritten."""
    if wanted is not None:
        wanted.mkdir(parents=True)
        return wanted.resolve()
    for number in itertools.count(1):
        folder = Path("rozenfmt-demo" if number == 1 else f"rozenfmt-demo-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        break
    return folder.resolve()


def say(step: str, text: str) -> None:
    """One line about a step."""
    print(f"{step:<12}{text}", flush=True)


def problems(found: Sequence[object], count: int) -> None:
    """What could not be read or restored."""
    for problem in found[:LISTED]:
        print(f"{'':12}problem: {problem}")
    if count > LISTED:
        print(f"{'':12}… {count:,} problems in all")


def size(number: float) -> str:
    """Bytes in human units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < CHUNK:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= CHUNK
    return f"{number:.1f} TiB"


def share(part: int, whole: int) -> str:
    """One size as a percentage of another."""
    return f"{100 * part / whole:.1f} %" if whole else "empty"


def speed(number: int, seconds: float) -> str:
    """Bytes in a second."""
    return f"{seconds:.2f} s, {size(number / max(seconds, 1e-6))}/s"


if __name__ == "__main__":
    sys.exit(main())
