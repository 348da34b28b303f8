"""Several processes of one host, and several hosts, into one vault at once: no locks, nothing lost."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rozenfmt.vault import backup, capture
from rozenfmt.vault.catalog import Catalog, Leaf

from .runs import Nursery, job, nursery, what_it_restores
from .site import Site, write
from .test_killed import noise
from .trees import Fact, differences, tree


@pytest.fixture
def crowd() -> Iterator[tuple[Site, Nursery]]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder, nursery(Path(folder)) as runs:
        yield Site(Path(folder)), runs


def fill(folder: Path, number: int) -> None:
    for at in range(12):
        write(folder / f"dir{at % 3}/{at}", noise(30_000, at))  # the same in all
        write(folder / f"own{at % 2}/{at}", noise(40_000, (number, at)))
    write(folder / "big", noise(3_000_000, number % 2))
    for at in range(1_500):
        (folder / f"many {at:05}").touch()


@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_at_once(crowd: tuple[Site, Nursery], rounds: int) -> None:
    site, runs = crowd
    with site.reader() as vault:
        other = vault.enrol("other")
    sources = [site.root / f"tree{number}" for number in range(4)]
    for number, source in enumerate(sources):
        fill(source, number)
    jobs = [  # two of the same set, another set, and another host
        (site.host, "one", sources[0]),
        (site.host, "one", sources[0]),
        (site.host, "two", sources[1]),
        (other, "one", sources[2]),
        (other, "two", sources[3]),
    ]
    wanted: dict[str, dict[bytes, Fact]] = {}
    for number in range(rounds):
        for source in sources:
            write(source / f"dir1/round {number}", noise(500_000, (number, source.name)))
            write(source / "changing", noise(400_000, (number, source.name)))
            write(source / f"many {number:05}", f"{number}")
            (source / f"many {number + 700:05}").unlink()
        trees = [tree({source.name.encode(): source}) for _, _, source in jobs]
        answers = runs.run(
            [job(site.url, host, site.cache, [source], name=name, data_size=600_000) for host, name, source in jobs]
        )
        for answer, now in zip(answers, trees, strict=True):
            assert "snapshot" in answer, answer.get("error", answer)
            wanted[answer["snapshot"]] = now
    assert len(wanted) == rounds * len(jobs)
    with site.reader() as vault, tempfile.TemporaryDirectory(dir=site.root) as folder:
        assert {snapshot.id for snapshot in vault.snapshots()} == wanted.keys()
        assert not vault.problems
        for one, then in wanted.items():
            assert not differences(then, what_it_restores(vault, one, Path(folder, one)))
    # Alone again, every set finds what it had, and nothing is read.
    for host, name, source in jobs[1:]:
        before = site.backup(source, host=host, name=name)
        again = site.backup(source, host=host, name=name)
        assert (before.new, before.deleted) == (0, 0)
        assert again.unchanged


def test_all_begin_with_no_cache(crowd: tuple[Site, Nursery]) -> None:
    """Each may be the one that makes the file."""
    site, runs = crowd
    write(site.source / "file", "content")
    for _ in range(12):
        shutil.rmtree(site.cache, ignore_errors=True)
        for answer in runs.run([job(site.url, site.host, site.cache, [site.source], name="all")] * 5):
            assert "snapshot" in answer, answer.get("error", answer)
            assert not any("damaged" in note for note in answer["notes"])


def test_the_same_sequence_number_twice(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that list before either commits."""
    monkeypatch.setattr(capture, "_RACY_NS", -(1 << 62))
    write(site.source / "file", "first")
    site.backup()
    confirm = backup._Run._confirm
    inner: list[str] = []

    def slow(self: backup._Run, *arguments: object) -> object:
        if not inner:
            inner.append("")
            write(site.source / "file", "second")
            write(site.source / "later", "later")
            inner[0] = site.backup().snapshot_id
        return confirm(self, *arguments)  # type: ignore[arg-type]

    write(site.source / "mine", "mine")
    monkeypatch.setattr(backup._Run, "_confirm", slow)
    done = site.backup()
    monkeypatch.undo()
    monkeypatch.setattr(capture, "_RACY_NS", -(1 << 62))
    with site.reader() as vault:
        snapshots = {snapshot.id: snapshot for snapshot in vault.snapshots()}
        assert len(snapshots) == 3
        assert not vault.problems
        one, two = snapshots[done.snapshot_id], snapshots[inner[0]]
        assert (one.sequence, two.sequence) == (2, 2)
        assert one.heads == two.heads
        latest = vault.snapshot("latest:all")
        assert latest.archive_id == max(one.archive_id, two.archive_id)
        assert one.read("source/file") == b"first"
        assert two.read("source/file") == b"second"
        assert {entry.path for entry in one} == {"source", "source/file", "source/mine"}
        assert {entry.path for entry in two} == {"source", "source/file", "source/mine", "source/later"}
    third = site.backup()
    assert third.sequence == 3
    site.check(third.snapshot_id)
    with site.reader() as vault:
        assert set(vault.snapshot(third.snapshot_id).heads) == {one.archive_id, two.archive_id}
    assert (third.new, third.deleted) == (0, 0)


def test_two_of_one_set_leave_the_leaves_of_one(tmp_path: Path) -> None:
    """Differences from a snapshot are nothing to add to those of another one."""
    keys = {"vault_id": bytes(16), "host_id": bytes(16)}
    with Catalog(str(tmp_path / "c"), **keys) as one, Catalog(str(tmp_path / "c"), **keys) as two:
        before = one.set_state("set")
        for catalog, firsts in ((one, b"am"), (two, b"hz")):
            number = catalog.archive_number(firsts * 8, 2)
            for first in firsts:
                catalog.add_leaves([(b"dir", Leaf(bytes([first]), b"", b"node"))])
            after = catalog.set_state("set").__class__(before.number, firsts * 8, firsts * 16, 5, None, 0, 0, 0)
            catalog.complete_snapshot(after, number=number, length=9, mode=1, known={}, before=before)
        assert [leaf.first for leaf in one.leaves(before.number, b"dir")] == [b"a", b"m"]
        assert one.set_state("set").snapshot == b"am" * 8
        assert {row[0] for row in one.archives().values()} == {b"am" * 8, b"hz" * 8}
