"""Trees to back up: copied or generated, then changed as people change theirs.

Each function that touches a tree runs in a process of its own (see ``measuring``):

    python -m tests.benchmarks.trees make photos WHERE --scale 0.1

What is generated depends on nothing but the kind and the scale.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from .measuring import apart

__all__ = ["GENERATED", "Shape", "Tree", "write_small_files"]

_REGION: Final = 8_000_000
_COPIED: Final = 4 << 20
_MOVED: Final = "moved away"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a tree looks like.

    Attributes:
        files: Regular files.
        directories: Directories, without the tree's own.
        bytes: Bytes in the files.
        folder: The folder that ``move`` renames, below the tree; None if there is none.
        file: A file in the middle of the rest, below the tree; None if there is none.
    """

    files: int
    directories: int
    bytes: int
    folder: str | None
    file: str | None


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree that can be made.

    Attributes:
        name: What to call it.
        kind: One of ``GENERATED``, or ``copy``.
        source: What to copy.
        scale: Which part of it to make.
    """

    name: str
    kind: str
    source: str
    scale: float

    @classmethod
    def parse(cls, text: str, scale: float) -> Tree:
        """From ``NAME=DIR`` or the name of a generated tree."""
        name, given, source = text.partition("=")
        if not given and name not in GENERATED:
            raise SystemExit(f"there is no tree {name!r}: name a folder (NAME=DIR), or one of {', '.join(GENERATED)}")
        return cls(name, "copy" if given else name, source, scale)

    def make(self, where: Path) -> Shape:
        """Make it anew."""
        return self._apart("make", where, "--source", self.source, "--scale", str(self.scale))

    def change(self, where: Path) -> Shape:
        """Change 1 % of it."""
        return self._apart("change", where)

    def move(self, where: Path) -> Shape:
        """Rename a folder."""
        return self._apart("move", where)

    def look(self, where: Path) -> Shape:
        """Look at it, or at a copy."""
        return self._apart("look", where)

    def _apart(self, action: str, where: Path, *options: str) -> Shape:
        return Shape(**apart("trees", action, self.kind, where, *options))


# --- making -----------------------------------------------------------------------------------------


def write_photos(where: Path, scale: float) -> None:
    """360 files of random bytes, 3.5 to 7 MB each, in 12 folders."""
    chance = random.Random(1)
    for number in range(max(24, round(360 * scale))):
        path = where / f"{2010 + number % 12}" / f"IMG_{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(3_500_000, 7_000_000)))


def write_image(where: Path, scale: float) -> None:
    """A disk image of 2.4 GB, random and repeated regions of 8 MB in turn; and a note in another folder."""
    chance = random.Random(2)
    (where / "disks").mkdir(parents=True)
    (where / "notes").mkdir()
    (where / "notes" / "disk.txt").write_text("The disk of the machine in the cellar.\n", encoding="utf-8")
    with (where / "disks" / "disk.img").open("wb") as file:
        for number in range(max(4, round(300 * scale))):
            file.write(chance.randbytes(_REGION) if number % 2 else (b"%08d" % number) * (_REGION // 8))


def write_sparse(where: Path, scale: float) -> None:
    """A disk image of 1 GB in which a random MB stands at every 100 MB, and nothing between; and a note."""
    chance = random.Random(4)
    (where / "disks").mkdir(parents=True)
    (where / "notes").mkdir()
    (where / "notes" / "disk.txt").write_text("The disk of the machine in the attic.\n", encoding="utf-8")
    with (where / "disks" / "disk.img").open("wb") as file:
        size = max(2_000_000, round(1e9 * scale))
        for start in range(0, size, 100_000_000):
            file.seek(start)
            file.write(chance.randbytes(1_000_000))
        file.truncate(size)


class Words:
    """Text that compresses about as prose does."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        letters = "etaoinshrdlucmfwypvbgk"
        self._words = ["".join(self._chance.choices(letters, k=self._chance.randint(2, 9))) for _ in range(4096)]
        self._weights = list(accumulate(1 / (number + 3) for number in range(4096)))

    def text(self, most: int) -> bytes:
        """Up to ``most`` bytes, any number of them equally likely."""
        size = self._chance.randint(0, most)
        words = self._chance.choices(self._words, cum_weights=self._weights, k=size // 5 + 1)
        return " ".join(words).encode()[:size]


def write_small_files(where: Path, count: int, most: int) -> None:
    """So many files of up to ``most`` bytes of text, a hundred in each folder, a hundred folders in each of those."""
    words = Words(count)
    for number in range(count):
        folder = where / f"{number // 10_000:03}" / f"{number // 100 % 100:02}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        _write(folder / f"{number:07}.txt", words.text(most))


def write_tiny(where: Path, scale: float) -> None:
    """100,000 files of up to 2 kB."""
    write_small_files(where, max(200, round(100_000 * scale)), 2_000)


def write_million(where: Path, scale: float) -> None:
    """A million files of up to 400 bytes."""
    write_small_files(where, max(20, round(1_000_000 * scale)), 400)


def write_deep(where: Path, scale: float) -> None:
    """A folder of 20,000 files, 5,000 folders of one file each, and 400 folders inside each other."""
    words = Words(3)
    (where / "broad").mkdir(parents=True)
    for number in range(max(20, round(20_000 * scale))):
        _write(where / "broad" / f"{number:05}.txt", words.text(2_000))
    for number in range(max(5, round(5_000 * scale))):
        folder = where / "many" / f"{number:04}"
        folder.mkdir(parents=True)
        _write(folder / "only.txt", words.text(2_000))
    folder = where / "nested"
    folder.mkdir()
    for number in range(max(10, round(400 * scale))):
        folder = folder / f"{number:03}"
        folder.mkdir()
        for name in ("a", "b", "c"):
            _write(folder / name, words.text(2_000))


def copy_tree(source: str, where: Path, scale: float) -> None:
    """Copy a tree with its times; a part of it is so many of its folders, evenly over all, with the files in them."""
    seen = 0

    def left_out(folder: str, names: list[str]) -> set[str]:
        nonlocal seen
        seen += 1
        if int(seen * scale) > int((seen - 1) * scale):
            return set()
        paths = {name: os.path.join(folder, name) for name in names}
        return {name for name, path in paths.items() if os.path.islink(path) or not os.path.isdir(path)}

    shutil.copytree(source, where, symlinks=True, ignore=left_out if scale < 1 else None)
    if scale < 1:  # as many folders for each file as there were
        for folder, _, _ in os.walk(where, topdown=False):
            if not os.listdir(folder):
                os.rmdir(folder)


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(data)


GENERATED: Final[dict[str, Callable[[Path, float], None]]] = {
    "photos": write_photos,
    "image": write_image,
    "tiny": write_tiny,
    "deep": write_deep,
    "million": write_million,
    "sparse": write_sparse,
}


# --- looking and changing -----------------------------------------------------------------------------


def describe(tree: Path) -> Shape:
    """Look at all of a tree."""
    folder = _folder_to_move(tree)
    directories = total = 0
    files: list[str] = []
    for here, below, names in os.walk(tree):
        directories += len(below)
        for name in names:
            path = os.path.join(here, name)
            if not os.path.islink(path):
                total += os.lstat(path).st_size
                files.append(path)
    rest = sorted(path for path in files if folder is None or not path.startswith(os.path.join(folder, "")))
    file = os.path.relpath(rest[len(rest) // 2], tree) if rest else None
    return Shape(len(files), directories, total, os.path.relpath(folder, tree) if folder else None, file)


def _folder_to_move(tree: Path) -> Path | None:
    """The first of several folders that lie beside each other or beside files."""
    here = tree
    while True:
        items = sorted(here.iterdir())
        folders = [path for path in items if path.is_dir() and not path.is_symlink() and path.name != _MOVED]
        if len(items) == 1 and folders:
            here = folders[0]
        else:
            return folders[0] if folders else None


def append(tree: Path) -> None:
    """Append a line to 1 % of the files."""
    chance = random.Random(3)
    files = sorted(
        path
        for here, _, names in os.walk(tree)
        for path in (os.path.join(here, name) for name in names)
        if not os.path.islink(path)
    )
    for path in chance.sample(files, max(1, len(files) // 100)):
        with open(path, "ab") as file:
            file.write(b"changed %d\n" % chance.getrandbits(40))


def edit_image(tree: Path) -> None:
    """Overwrite 1 % of a disk image in 24 places, and insert bytes in front."""
    chance = random.Random(3)
    image = tree / "disks" / "disk.img"
    edited = image.with_suffix(".new")
    with image.open("rb") as old, edited.open("wb") as new:
        new.write(b"inserted in front")
        shutil.copyfileobj(old, new, _COPIED)
        size = new.tell()
        for _ in range(24):
            new.seek(chance.randrange(size - size // 2400))
            new.write(chance.randbytes(size // 2400))
    edited.replace(image)


def move(tree: Path) -> None:
    """Rename the folder that ``describe`` names, if there is one."""
    folder = _folder_to_move(tree)
    if folder is not None:
        folder.rename(folder.with_name(_MOVED))


def main() -> None:
    """Do one thing to a tree and print the shape that it has afterwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["make", "change", "move", "look"])
    parser.add_argument("kind", choices=["copy", *GENERATED])
    parser.add_argument("where", type=Path)
    parser.add_argument("--source", default="")
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    making: Any = partial(copy_tree, given.source) if given.kind == "copy" else GENERATED[given.kind]
    if given.action == "make":
        making(given.where, given.scale)
    elif given.action == "move":
        move(given.where)
    elif given.action == "change":
        (edit_image if given.kind == "image" else append)(given.where)
    print(json.dumps(asdict(describe(given.where))))


if __name__ == "__main__":
    main()
