"""Taking leaves over whole gives the same snapshot as looking at each of their entries."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from rozenfmt.vault import nodewriter, takeover
from rozenfmt.vault.results import BackupResult
from rozenfmt.vault.takeover import TakeOver

from .site import Site, write
from .test_killed import noise

pytestmark = pytest.mark.usefixtures("untimed")


@pytest.fixture
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves of few entries, and few of them below a node: what takes thousands of files otherwise."""
    monkeypatch.setattr(nodewriter, "leaf_ends", lambda count, _bytes, name: count >= 7 or name[-1] % 4 == 0)
    monkeypatch.setattr(nodewriter, "CHILDREN_MOST", 5)


def twins(site: Site) -> Site:
    """A copy of the vault and of the host's memory of it."""
    other = Site.__new__(Site)
    other.__dict__.update(site.__dict__)
    other.url, other.cache = site.url + " twin", site.root / "cache twin"
    for folder in (Path(other.url), other.cache):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(site.url, other.url)
    shutil.copytree(site.cache, other.cache)
    return other


def outcome(site: Site, done: BackupResult) -> dict[str, Any]:
    """What must not depend on how unchanged files are recognised."""
    with site.reader() as vault:
        snapshot = vault.snapshot(done.snapshot_id)
        entries = [
            (e.path, e.kind, e.mode, e.mtime_ns, e.size, e.content_id, e.target, e.raw.link_group is None)
            for e in snapshot.walk()
        ]
        report = vault.verify(snapshot, level="contents")
        assert report.ok, report
        rows = sorted((row.kind, row.archive_id, row.length, row.live) for row in snapshot.references)
    return {
        "counts": (done.new, done.changed, done.metadata, done.same, done.entries, done.directories),
        "bytes": done.content_bytes,
        "moves": sorted(map(repr, done.moves)),
        "root": snapshot.root_place()[0] if not tree_has_groups(entries) else b"",
        "entries": entries,
        "references": [row for row in rows if row[1] in site.before],  # type: ignore[attr-defined]
    }


def tree_has_groups(entries: list[tuple[Any, ...]]) -> bool:
    """Whether there are hard links: their groups are random."""
    return not all(entry[-1] for entry in entries)


class Tree:
    """A source tree that changes by chance."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.chance = random.Random(seed)
        self.number = 0
        for _ in range(40):
            self.new_file()
        for _ in range(6):
            self.new_directory()
        self.link()
        write(self.root / "big", noise(1_300_000, seed))

    def folders(self) -> list[Path]:
        return [self.root, *sorted(path for path in self.root.rglob("*") if path.is_dir() and not path.is_symlink())]

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())

    def name(self) -> str:
        self.number += 1
        return f"{self.chance.choice('abcdefghijk')}{self.number}"

    def folder(self) -> Path:
        return self.chance.choice(self.folders())

    def new_file(self) -> None:
        write(self.folder() / self.name(), self.chance.randbytes(self.chance.choice([0, 5, 3000])))

    def new_directory(self) -> None:
        below = self.folder() / self.name()
        below.mkdir()
        for _ in range(self.chance.choice([0, 1, 9])):
            write(below / self.name(), self.chance.randbytes(9))

    def link(self) -> None:
        (self.folder() / self.name()).symlink_to(f"target {self.chance.random()}")

    def hard_link(self) -> None:
        (self.folder() / self.name()).hardlink_to(self.chance.choice(self.files()))

    def change(self) -> None:
        with self.chance.choice(self.files()).open("ab") as file:
            file.write(b"more")

    def touch(self) -> None:
        at = self.chance.randrange(1 << 50)
        os.utime(self.chance.choice([*self.folders()[1:], *self.files()]), ns=(at, at))

    def chmod(self) -> None:
        self.chance.choice([*self.folders(), *self.files()]).chmod(self.chance.choice([0o755, 0o700, 0o711]))

    def delete(self) -> None:
        self.chance.choice(self.files()).unlink()

    def delete_directory(self) -> None:
        for path in self.folders()[1:2]:
            shutil.rmtree(path)

    def rename(self) -> None:
        path = self.chance.choice([*self.files(), *self.folders()[1:]])
        path.rename(path.parent / self.name())

    def relink(self) -> None:
        for path in sorted(self.root.rglob("*")):
            if path.is_symlink():
                path.unlink()
                path.symlink_to(f"other {self.chance.random()}")
                return

    def step(self) -> None:
        steps = [self.new_file, self.new_directory, self.link, self.hard_link, self.change, self.touch, self.chmod]
        steps += [self.delete, self.delete_directory, self.rename, self.relink]
        self.chance.choice(steps)()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """First names of the leaves that were taken over whole."""
    found: list[bytes] = []
    take = TakeOver.take

    def taking(self: TakeOver, run: takeover.Run, *rest: Any) -> None:
        found.append(run.leaf.first)
        take(self, run, *rest)

    monkeypatch.setattr(TakeOver, "take", taking)
    return found


@pytest.mark.usefixtures("small_leaves")
@pytest.mark.parametrize("seed", range(6))
def test_as_if_each_entry_were_looked_at(
    seed: int, site: Site, taken: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Tree(site.source, seed)
    site.backup()
    for round_ in range(4):
        for _ in range(round_ * 2):
            tree.step()
        other = twins(site)
        before = {bytes.fromhex(path.stem[-32:]) for path in site.objects() if path.suffix == ".rzn"}
        site.before = other.before = before  # type: ignore[attr-defined]
        taken.clear()
        one = outcome(site, site.backup())
        assert taken or round_
        with monkeypatch.context() as patched:
            patched.setattr(TakeOver, "run", lambda *_: None)
            assert outcome(other, other.backup()) == one


@pytest.mark.usefixtures("small_leaves")
def test_nothing_is_written_for_what_has_not_changed(site: Site, taken: list[bytes]) -> None:
    Tree(site.source, 1)
    site.backup()
    done = site.backup()
    with site.reader() as vault:
        snapshot = vault.snapshot(done.snapshot_id)
        assert snapshot.parent is not None
        assert snapshot.root_place()[0] == vault.snapshot(snapshot.parent.hex()).root_place()[0]
        assert snapshot.root_place()[1]  # in another archive
    assert len(taken) > 10
    assert done.same + done.directories == done.entries


def test_a_leaf_whose_archive_is_gone_is_not_taken_over(site: Site, taken: list[bytes]) -> None:
    write(site.source / "a", b"content" * 1000)
    write(site.source / "below/b", b"other" * 1000)
    site.backup()
    for path in site.objects("arena"):
        path.unlink()
    done = site.backup()
    assert not taken
    site.check(done.snapshot_id)


def test_reading_everything_again_looks_into_every_leaf(site: Site, taken: list[bytes]) -> None:
    write(site.source / "a", b"content")
    site.backup()
    site.backup(reread="all")
    assert not taken
    site.backup()
    assert taken
