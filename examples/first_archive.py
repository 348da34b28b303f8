#!/usr/bin/env python3
"""The main job from beginning to end, on a machine that has nothing but Python.

    python3 examples/first_archive.py [DIRECTORY] [-o FOLDER]

Makes a virtual environment, installs rozenfmt into it, and then, for a real directory: makes a
key, writes an encrypted archive, checks it without the key, lists it, restores it, and compares
what was restored with the original.  Archive and key stay in FOLDER; the restored copy does not.
Exit codes: 0 all is well · 1 failed · 3 something could not be read · 4 the copy differs.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    parser = argparse.ArgumentParser(description="Archive a directory, check, list, restore and compare it.")
    parser.add_argument(
        "directory", nargs="?", type=Path, help=f"what to archive (default: Python's own library, {standard_library})"
    )
    parser.add_argument("-o", "--output", type=Path, help="new folder for archive and key (default: ./rozenfmt-demo)")
    options = parser.parse_args(arguments)
    source = (options.directory or standard_library).expanduser().resolve()
    # Compiled modules may be written while this runs; what was installed beside the library is not part of it.
    exclude = [] if options.directory else ["__pycache__/", "site-packages/", "dist-packages/"]
    if not source.is_dir():
        parser.error(f"{source} is not a directory")
    install()

    import rozenfmt as rz

    try:
        folder = new_folder(options.output)
        return run(source, folder, exclude)
    except (rz.RozenError, OSError) as error:
        sys.stderr.write(f"failed: {error}\n")
        return 1


def run(source: Path, folder: Path, exclude: Sequence[str]) -> int:
    """Key, archive, check, list, extract, compare."""
    import rozenfmt as rz

    archive_file, key_file = folder / f"{source.name or 'root'}.rzn", folder / "me.key"

    me = rz.Identity.generate()
    me.save(key_file)
    say("key", f"{key_file}, for the recipient {str(me.recipient)[:20]}…")

    with rz.create(archive_file, recipients=[me.recipient]) as writer:
        writer.add_tree(source, exclude=exclude)
    made = writer.result
    say(
        "archive",
        f"{source}: {made.entries:,} entries, {size(made.content_bytes)} stored in {size(made.stored_bytes)} "
        f"({share(made.stored_bytes, made.content_bytes)}), {speed(made.content_bytes, made.seconds)}",
    )
    problems(made.problems, made.problem_count)

    checked = rz.check(archive_file)
    say("check", f"without a key: all {size(checked.bytes)} are as written, {speed(checked.bytes, checked.seconds)}")

    with rz.open(archive_file, identities=[me]) as archive:
        say("list", f"{archive.entry_count:,} entries; the first {LISTED}:")
        for entry in itertools.islice(archive, LISTED):
            print(f"{'':12}{entry.size:>12,}  {entry.path!r}")

        # Beside the archive, not in /tmp: that may be small.
        with tempfile.TemporaryDirectory(dir=folder, prefix="restored-") as place:
            done = archive.extract(place)
            say(
                "extract",
                f"{done.files:,} files, {done.directories:,} directories, {size(done.bytes)}, "
                f"{speed(done.bytes, done.seconds)}",
            )
            problems(done.problems, done.problem_count)
            difference = rz.compare(source, Path(place, source.name or "root"), exclude=exclude)

    given_away = [change for change in difference.changes if change.details == ("owner",)]
    others = [change for change in difference.changes if change.details != ("owner",)]
    say("compare", f"{difference.files:,} entries, {size(difference.bytes)} byte by byte: {len(others):,} differ")
    if given_away:
        print(f"{'':12}{len(given_away):,} belong to you now: only root can give files to others")
    for change in others[:LISTED]:
        print(f"{'':12}{change.what}: {os.fsdecode(change.path)!r} {' '.join(change.details)}")
    say("left here", f"{archive_file}\n{'':12}{key_file}   whoever has it can read the archive")
    if others:
        return 4
    return 3 if made.problem_count or done.problem_count or difference.problem_count else 0


def new_folder(wanted: Path | None) -> Path:
    """A folder that was not there before: neither keys nor archives are ever overwritten."""
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
