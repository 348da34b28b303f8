"""Each object in turn removed, emptied, cut off or damaged: what does not need it comes back, the rest is named."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import rozenfmt as rz
from rozenfmt.errors import RozenError, SignatureError
from rozenfmt.vault import capture
from rozenfmt.vault.vault import Vault

from .site import Site, write
from .test_killed import noise
from .trees import Fact, restored, tree

Harm = Callable[[Path], object]


def cut(share: float) -> Harm:
    def harm(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return harm


def flip(share: float, bit: int = 3) -> Harm:
    def harm(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[min(int(len(data) * share), len(data) - 1)] ^= 1 << bit
        path.write_bytes(data)

    return harm


def tail(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


HARMS: dict[str, Harm] = {
    "removed": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "first byte only": lambda path: path.write_bytes(path.read_bytes()[:1]),
    "cut at a third": cut(0.3),
    "cut at four fifths": cut(0.8),
    "last byte gone": tail,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "flip in the magic": flip(0),
    "flip in the header": flip(0.02),
    "flip in the middle": flip(0.5),
    "flip near the end": flip(0.97),
    "flip in the tail": flip(1),
}


@dataclass
class Stored:
    """Two hosts, five snapshots that share data; ``wanted`` by id."""

    site: Site
    wanted: dict[str, dict[bytes, Fact]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def stored() -> Iterator[Stored]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture, "_RACY_NS", -(1 << 62))
        site = Site(Path(folder))
        with site.reader() as vault:
            other = vault.enrol("other")
        one = Stored(site)
        source = site.source
        for number in range(6):
            write(source / f"dir{number % 2}/file {number}", noise(60_000, number))
        write(source / "image", noise(2_500_000))
        write(source / "dir0/below/deep", "deep")

        def backup(**options: object) -> None:
            done = site.backup(data_size=700_000, **options)
            one.wanted[done.snapshot_id] = tree({b"source": source})

        backup()
        write(source / "dir0/file 0", noise(60_000, "changed"))
        (source / "link").symlink_to("image")
        backup()
        backup(host=other)
        image = bytearray(noise(2_500_000))
        image[1_000_000:1_000_010] = bytes(10)
        write(source / "image", bytes(image))
        (source / "dir1").rename(source / "moved")
        backup()
        write(source / "new", "new")
        backup(host=other)
        yield one


@pytest.fixture
def vault(stored: Stored, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(stored.site.url, tmp_path / "vault")
    return tmp_path / "vault"  # type: ignore[return-value]


def restore_all(stored: Stored, url: Path, out: Path) -> tuple[int, int, list[str]]:
    """Restore what can be; returns whole snapshots, lost paths, and what was told. Nothing may be wrong in silence."""
    out.mkdir()
    whole = lost = 0
    told: list[str] = []
    with Vault.open(url, identities=[stored.site.me]) as vault:
        found = {snapshot.id: snapshot for snapshot in vault.snapshots()}
        told += vault.problems
        assert found.keys() <= stored.wanted.keys()
        for one in stored.wanted.keys() - found.keys():
            assert any(one in problem for problem in vault.problems) or not list(url.glob(f"meta/*/*{one}*")), one
        for one, snapshot in found.items():
            result = vault.restore(snapshot, out / one, workers=1)
            assert isinstance(result, rz.RestoreResult)
            got, wanted = restored(out / one), stored.wanted[one]
            named = {problem.path for problem in result.problems}
            told += [problem.detail for problem in result.problems]
            assert result.lost == len(result.problems) == result.problem_count
            for path, fact in wanted.items():
                if got.get(path) == fact:
                    continue
                if path in got and fact.directory:
                    continue  # made, and not all that was in it
                assert path not in got, path
                above = {path[:at] for at in range(len(path) + 1) if path[at : at + 1] in (b"/", b"")}
                assert (above | {b""}) & named, (path, result.problems)
                lost += 1
            assert got.keys() <= wanted.keys()
            whole += not result.problems
    return whole, lost, told


def test_nothing_lost(stored: Stored, vault: Path, tmp_path: Path) -> None:
    assert restore_all(stored, vault, tmp_path / "out") == (5, 0, [])


def lean_on(stored: Stored) -> dict[str, set[str]]:
    """For each object, the snapshots that depend on it."""
    found: dict[str, set[str]] = {}
    with stored.site.reader() as vault:
        for snapshot in vault.snapshots():
            for number in range(len(snapshot.references) + 1):
                found.setdefault(snapshot.object_name(number), set()).add(snapshot.id)
    return found


@pytest.mark.parametrize("harm", HARMS)
def test_each_object_in_turn(stored: Stored, vault: Path, tmp_path: Path, harm: str) -> None:
    dependents = lean_on(stored)
    objects = sorted(path for path in vault.rglob("*") if path.is_file() and "editions" not in path.parts)
    assert len(objects) >= 12
    for number, path in enumerate(objects):
        name = str(path.relative_to(vault))
        raw = path.read_bytes()
        HARMS[harm](path)
        whole, lost, told = restore_all(stored, vault, tmp_path / f"out{number}")
        path.write_bytes(raw)
        shutil.rmtree(tmp_path / f"out{number}")
        # Whatever does not depend on the object is whole; and of what does, something may be lost and is named.
        assert whole >= len(stored.wanted) - len(dependents.get(name, ())), name
        if lost:
            assert any(path.stem[-32:] in text for text in told), (name, told)
        if harm in ("removed", "emptied", "zeros", "first byte only", "cut at a third"):
            assert lost or whole < len(stored.wanted), name


@pytest.mark.parametrize("harm", HARMS)
def test_each_edition_in_turn(stored: Stored, vault: Path, tmp_path: Path, harm: str) -> None:
    for number, path in enumerate(sorted((vault / "editions").iterdir())):
        raw = path.read_bytes()
        HARMS[harm](path)
        whole, lost, told = restore_all(stored, vault, tmp_path / f"out{number}")
        assert lost == 0
        if whole < 5:  # without the newest one, and without a trace of it, a host is one that nobody enrolled
            assert (harm, number, whole) == ("removed", 2, 3)
            assert sum("enrolled" in text for text in told) == 2
        path.write_bytes(raw)
        shutil.rmtree(tmp_path / f"out{number}")


@pytest.mark.parametrize("harm", ["removed", "emptied", "zeros", "flip in the middle"])
def test_all_editions_lost(stored: Stored, vault: Path, tmp_path: Path, harm: str) -> None:
    """The copies in metadata archives are enough (vault.md, section 3.3)."""
    for path in (vault / "editions").iterdir():
        HARMS[harm](path)
    whole, lost, told = restore_all(stored, vault, tmp_path / "out")
    assert (whole, lost) == (5, 0)
    assert told
    # A host believes no copies: it would have to read what it may not.
    with pytest.raises(RozenError):
        Vault.open(vault, host=stored.site.host, cache_dir=tmp_path / "cache").close()


def test_the_newest_edition_lost(stored: Stored, vault: Path, tmp_path: Path) -> None:
    """A host that knew it refuses the older ones."""
    max((vault / "editions").iterdir()).unlink()
    shutil.copytree(stored.site.cache, tmp_path / "cache")
    with pytest.raises(SignatureError), Vault.open(vault, host=stored.site.host, cache_dir=tmp_path / "cache") as one:
        one.backup([stored.site.source], name="all")


def test_the_next_backup_stores_again_what_is_lost(stored: Stored, vault: Path, tmp_path: Path) -> None:
    """Of the archives that are missing or shorter; a host cannot see more."""
    host = stored.site.host
    for number, harm in enumerate(("removed", "cut at a third", "emptied")):
        paths = [path for path in vault.rglob("*.rzn") if path.parent.name == host.host_id.hex()]
        HARMS[harm](sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest())[number])
        shutil.copytree(stored.site.cache, tmp_path / f"cache{number}")
        with Vault.open(vault, host=host, cache_dir=tmp_path / f"cache{number}") as one:
            done = one.backup([stored.site.source], name="all")
        assert any("not in the vault any more" in note for note in done.notes)
        with Vault.open(vault, identities=[stored.site.me]) as one:
            result = one.restore(done.snapshot_id, tmp_path / f"again{number}")
            assert isinstance(result, rz.RestoreResult)
            assert not result.problems
        assert restored(tmp_path / f"again{number}") == tree({b"source": stored.site.source})


def test_a_tombstone_that_somebody_made_up(stored: Stored, vault: Path, tmp_path: Path) -> None:
    """It makes a writer store things again, and a reader says that it is not to be believed."""
    lost = next(path for path in sorted((vault / "arena").rglob("*.rzn")))
    lost.unlink()
    write(vault / "gone" / lost.parent.name / lost.stem, b"nonsense")
    whole, count, told = restore_all(stored, vault, tmp_path / "out")
    assert whole < 5 and count
    assert any("not to be believed" in text for text in told)
