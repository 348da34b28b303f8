"""Cut, flipped, zeroed, swapped, joined: either the right bytes, or our own error; salvage writes nothing wrong."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import rozenfmt as rz
from rozenfmt.archive import treewriter
from rozenfmt.archive.pipeline import Pipeline

from .helpers import (
    KIB,
    MIB,
    assert_only_right,
    blocks_of,
    drained,
    header_of,
    many_files,
    noise,
    threads,
    write_archive,
)


@dataclass
class Medium:
    """An archive with packs, streams, holes, attributes, checkpoints and links."""

    data: bytes
    contents: dict[str, bytes]
    names: list[str]
    me: rz.Identity


@pytest.fixture(scope="module", params=["sealed", "plain"])
def medium(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Medium:
    place = tmp_path_factory.mktemp("medium")
    me = rz.Identity.generate()
    contents = many_files(place / "src", 160, size=60_000, big=[4 * MIB + 70_000])
    os.link(place / "src/d0/f0000", place / "src/linked")
    os.setxattr(place / "src/d1/f0001", "user.x", b"y" * 500)
    with open(place / "src/sparse", "wb") as file:
        file.truncate(3 * MIB)
        file.seek(MIB)
        file.write(b"middle")
    contents["src/linked"] = contents["src/d0/f0000"]
    contents["src/sparse"] = (place / "src/sparse").read_bytes()
    patch = pytest.MonkeyPatch()
    patch.setattr(treewriter, "_CHECKPOINT_BYTES", 300 * KIB)
    patch.setattr(Pipeline, "submit", drained(Pipeline.submit))
    plain = request.param == "plain"
    with rz.create(place / "a", recipients=[] if plain else [me.recipient], plain=plain, compression="none") as writer:
        writer.add_tree(place / "src")
    patch.undo()
    names = [entry.path for entry in rz.open(place / "a", identities=[] if plain else [me])]
    return Medium((place / "a").read_bytes(), contents, names, me)


def keys_of(medium: Medium) -> list[rz.Identity]:
    return [] if header_of(medium.data).suite == 0 else [medium.me]


def probe(path: Path, medium: Medium, *, sample: int = 6) -> bool:
    """Open, list and read: right bytes or ArchiveError. Returns whether everything was right."""
    right = True
    try:
        archive = rz.open(path, identities=keys_of(medium))
    except rz.ArchiveError:
        return False
    with archive:
        try:
            assert [entry.path for entry in archive] == medium.names
        except rz.ArchiveError:
            right = False
        for name in random.Random(1).sample(sorted(medium.contents), sample):
            try:
                assert archive.read(name) == medium.contents[name]
            except rz.ArchiveError:
                right = False
    return right


def checks(path: Path, medium: Medium) -> None:
    """A check, with and without a key, finds the damage."""
    for identities in ([], keys_of(medium)):
        with pytest.raises(rz.ArchiveError) as caught:
            rz.check(path, identities=identities)
        assert caught.value.report.damages
    assert not threads()


def extracts(path: Path, out: Path, medium: Medium) -> None:
    try:
        with rz.open(path, identities=keys_of(medium)) as archive:
            archive.extract(out)
    except rz.ArchiveError:
        pass
    if out.exists():
        assert not list(out.rglob(".rozenfmt-*"))
        assert_only_right(out, medium.contents)
    assert not threads()


def salvages(path: Path, out: Path, medium: Medium) -> dict[str, bytes]:
    try:
        rz.salvage(path, out, identities=keys_of(medium))
    except (rz.ArchiveError, rz.UsageError):
        assert not out.exists() or not list(out.iterdir())
        return {}
    return assert_only_right(out, medium.contents)


def test_whole_archive_is_right(tmp_path: Path, medium: Medium) -> None:
    path = tmp_path / "a"
    path.write_bytes(medium.data)
    assert probe(path, medium)
    for number in range(2):
        report = rz.check(path, identities=keys_of(medium) * number)
        assert report.blocks == len(blocks_of(medium.data))
    out = tmp_path / "out"
    report_ = rz.salvage(path, out, identities=keys_of(medium))
    assert (report_.terminated, report_.missing, report_.damaged_bytes, report_.problem_count) == (True, [], 0, 0)
    assert report_.lost_found == 0
    assert assert_only_right(out, medium.contents) == medium.contents
    with rz.open(path, identities=keys_of(medium)) as archive:
        assert not rz.compare(archive, out / "src")


def test_truncations(tmp_path: Path, medium: Medium) -> None:
    """Sampled, and at all boundaries of blocks."""
    data = medium.data
    path = tmp_path / "a"
    chosen = random.Random(3)
    ends = [block.offset + len(block.data) for block in blocks_of(data)]
    lengths = {0, 1, 7, 8, 47, 48, len(data) - 1, len(data) - 63, len(data) - 64, len(data) - 65}
    lengths |= {chosen.randrange(len(data)) for _ in range(25)}
    lengths |= {at + step for at in chosen.sample(ends, 8) for step in (-1, 0, 1, 60)}
    for number, length in enumerate(sorted(at for at in lengths if 0 <= at < len(data))):
        path.write_bytes(data[:length])
        assert not probe(path, medium)
        if number % 4 == 0:
            checks(path, medium)
            salvages(path, tmp_path / f"out{number}", medium)


def test_flips(tmp_path: Path, medium: Medium) -> None:
    data = medium.data
    path = tmp_path / "a"
    chosen = random.Random(4)
    blocks = blocks_of(data)
    places = [chosen.randrange(len(data)) for _ in range(14)]
    places += [block.offset + chosen.randrange(min(len(block.data), 2000)) for block in chosen.sample(blocks, 8)]
    places += [len(data) - 1 - chosen.randrange(3000) for _ in range(12)]
    places += [chosen.randrange(300) for _ in range(6)]
    for number, at in enumerate(places):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << chosen.randrange(8)]) + data[at + 1 :])
        probe(path, medium)
        if number % 2 == 0:
            checks(path, medium)
        if number % 4 == 0:
            extracts(path, tmp_path / f"out{number}", medium)
        if number % 4 == 1:
            good = salvages(path, tmp_path / f"saved{number}", medium)
            assert len(good) >= 1  # one flip spoils one block, in one pack at most all small files


@pytest.mark.parametrize("plain", [True, False])
def test_every_byte_of_a_tiny_archive(me: rz.Identity, *, plain: bool) -> None:
    """Every prefix and every one-byte flip; of the sealed one, which is bigger, every eleventh."""
    step, keys = (1, []) if plain else (11, [me])
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        path = Path(place, "a")
        with rz.create(path, recipients=[] if plain else [me.recipient], plain=plain) as writer:
            writer.add("x", b"tiny")
        data = path.read_bytes()
        for length in range(0, len(data), step):
            path.write_bytes(data[:length])
            with pytest.raises(rz.ArchiveError):
                rz.open(path, identities=keys)
            if length % 4 == 0:
                with pytest.raises(rz.ArchiveError):
                    rz.check(path, identities=keys, workers=1)
        for at in range(0, len(data), step):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            try:
                with rz.open(path, identities=keys) as archive:
                    assert [entry.path for entry in archive] == ["x"]
                    assert archive.read("x") == b"tiny"
            except rz.ArchiveError:
                pass
            if at % 2 == 0:
                with pytest.raises(rz.ArchiveError):
                    rz.check(path, identities=keys, workers=1)


def rebuilt(medium: Medium, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    blocks = [block.data for block in blocks_of(medium.data)]
    return header_of(medium.data).section + b"".join(change(blocks)) + medium.data[-64:]


def test_blocks_swapped_doubled_removed(tmp_path: Path, medium: Medium) -> None:
    path = tmp_path / "a"
    count = len(blocks_of(medium.data))
    changes: list[Callable[[list[bytes]], list[bytes]]] = [
        lambda b: [b[1], b[0], *b[2:]],
        lambda b: [*b[:3], b[2], *b[3:]],
        lambda b: [*b[:2], *b[3:]],
        lambda b: b[1:],
        lambda b: b[:-1],
        lambda b: [*b[: count // 2], *b[: count // 2 : -1][::-1]],
        lambda b: [*b, b[-1]],
        lambda b: b[::-1],
    ]
    for number, change in enumerate(changes):
        path.write_bytes(rebuilt(medium, change))
        probe(path, medium)
        checks(path, medium)
        extracts(path, tmp_path / f"out{number}", medium)
        good = salvages(path, tmp_path / f"saved{number}", medium)
        if number in (0, 1, 6, 7):  # nothing is missing, whatever the order
            assert good == medium.contents


def test_front_and_back_zeroed(tmp_path: Path, medium: Medium) -> None:
    data, path = medium.data, tmp_path / "a"
    path.write_bytes(bytes(64 * KIB) + data[64 * KIB :])
    with rz.open(path, identities=keys_of(medium)) as archive:
        assert archive.read("src/d6/f0041") == medium.contents["src/d6/f0041"]
    checks(path, medium)
    saved = salvages(path, tmp_path / "saved-front", medium)
    assert saved
    path.write_bytes(data[: -64 * KIB] + bytes(64 * KIB))
    with pytest.raises(rz.ArchiveError):
        rz.open(path, identities=keys_of(medium))
    checks(path, medium)
    saved = salvages(path, tmp_path / "saved-back", medium)
    assert len(saved) >= 100
    path.write_bytes(bytes(64 * KIB) + data[64 * KIB : -64 * KIB] + bytes(64 * KIB))
    with pytest.raises(rz.HeaderError):
        rz.salvage(path, tmp_path / "saved-none", identities=keys_of(medium))


def test_junk_before_the_archive(tmp_path: Path, medium: Medium) -> None:
    """A header far from where it should be is found, with or without the other copy."""
    path = tmp_path / "a"
    junk = noise(MIB + 77)
    path.write_bytes(junk + medium.data)
    assert salvages(path, tmp_path / "one", medium) == medium.contents
    foot = blocks_of(medium.data)[-1]
    path.write_bytes(junk + medium.data[: foot.offset])
    assert salvages(path, tmp_path / "two", medium) == medium.contents


@pytest.mark.parametrize("part", [0.35, 0.6, 0.9, 0.98])
def test_cut_in_the_middle_keeps_names(tmp_path: Path, medium: Medium, part: float) -> None:
    """Checkpoints name what is complete."""
    path = tmp_path / "a"
    length = int(len(medium.data) * part)
    path.write_bytes(medium.data[:length])
    good = salvages(path, tmp_path / "out", medium)
    assert len(good) >= {0.35: 0, 0.6: 1, 0.9: 1, 0.98: 100}[part]


def test_big_files_only_keep_their_names(tmp_path: Path, me: rz.Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams never fill a pack: checkpoints come all the same, and the names with them."""
    monkeypatch.setattr(treewriter, "_CHECKPOINT_BYTES", 6 * MIB)
    monkeypatch.setattr(Pipeline, "submit", drained(Pipeline.submit))
    contents = many_files(tmp_path / "src", 0, big=[5 * MIB] * 8)
    write_archive(tmp_path / "a", me.recipient, tmp_path / "src", compression="none", workers=1)
    data = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(data[: 33 * MIB])
    report = rz.salvage(tmp_path / "a", tmp_path / "out", identities=[me])
    assert not report.terminated
    good = assert_only_right(tmp_path / "out", contents)
    assert len(good) >= 4


def test_lost_part_of_a_file_that_only_a_checkpoint_names(
    tmp_path: Path, me: rz.Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros never pass for content, not even where no id is at hand but the stream's own."""
    monkeypatch.setattr(treewriter, "_CHECKPOINT_BYTES", 6 * MIB)
    monkeypatch.setattr(Pipeline, "submit", drained(Pipeline.submit))
    contents = many_files(tmp_path / "src", 3, big=[9 * MIB] * 3)
    write_archive(tmp_path / "a", me.recipient, tmp_path / "src", compression="none", workers=1)
    data = (tmp_path / "a").read_bytes()
    blocks = blocks_of(data)
    cut = next(block for block in blocks if block.type == b"INDX").offset
    trees = [block for block in blocks if block.type == b"TREE"]
    lost = [block for block in blocks if block.type == b"FCNT"][1]  # the middle of the first
    for gone in (lost, trees[-1]):
        data = data[: gone.offset + 200] + bytes(100) + data[gone.offset + 300 :]
    (tmp_path / "a").write_bytes(data[:cut])
    report = rz.salvage(tmp_path / "a", tmp_path / "out", identities=[me])
    good = assert_only_right(tmp_path / "out", contents)
    assert "src/big0" not in good
    assert report.problem_count >= 1
    incomplete = list((tmp_path / "out").rglob("*.incomplete"))
    assert incomplete
    saved = incomplete[0].read_bytes()
    assert len(saved) == 9 * MIB
    assert saved[: 4 * MIB] == contents["src/big0"][: 4 * MIB]
    assert saved[4 * MIB : 8 * MIB] == bytes(4 * MIB)


# --- Joined objects -----------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path, me: rz.Identity) -> list[Path]:
    paths = []
    for number in range(3):
        many_files(tmp_path / f"tree{number}", 10 + number, big=[5 * MIB] if number == 1 else [])
        paths.append(write_archive(tmp_path / f"m{number}", me.recipient, tmp_path / f"tree{number}"))
    return paths


def test_concatenated(tmp_path: Path, three: list[Path], me: rz.Identity) -> None:
    path = tmp_path / "cat"
    path.write_bytes(b"".join(one.read_bytes() for one in three))
    found = rz.members(path)
    assert [one.length for one in found] == [one.stat().st_size for one in three]
    assert rz.check(path, identities=[me]).archives == 3
    with pytest.raises(rz.UsageError):
        rz.open(path, identities=[me])
    for wrong in (3, -1, b"\0" * 16):
        with pytest.raises(rz.UsageError):
            rz.open(path, identities=[me], member=wrong)
    for number, one in enumerate(found):
        for member in (number, one.archive_id):
            with rz.open(path, identities=[me], member=member) as archive:
                assert archive.archive_id == one.archive_id
                assert not rz.compare(archive, tmp_path / f"tree{number}")
        report = rz.salvage(path, tmp_path / f"saved{number}", identities=[me], member=number)
        assert report.archive_id == one.archive_id
        assert not rz.compare(tmp_path / f"tree{number}", tmp_path / f"saved{number}/tree{number}")


def test_join(tmp_path: Path, three: list[Path], me: rz.Identity) -> None:
    first = rz.join(tmp_path / "two", three[:2])
    assert [one.kind.name for one in first] == ["SELF_CONTAINED", "SELF_CONTAINED", "DIRECTORY"]
    assert rz.members(tmp_path / "two") == first
    rz.join(tmp_path / "all", [tmp_path / "two", three[2]])
    found = rz.members(tmp_path / "all")
    assert [one.kind.name for one in found] == ["SELF_CONTAINED"] * 3 + ["DIRECTORY"]
    assert rz.check(tmp_path / "all", identities=[me]).archives == 4
    assert rz.check(tmp_path / "all").archives == 4
    for number in range(3):
        with rz.open(tmp_path / "all", identities=[me], member=number) as archive:
            assert not rz.compare(archive, tmp_path / f"tree{number}")
    rz.join(tmp_path / "single", [three[0]])
    with rz.open(tmp_path / "single", identities=[me]) as archive:
        assert not rz.compare(archive, tmp_path / "tree0")
    for wrong in ([], [three[0], three[0]], [three[0], tmp_path / "all"]):
        with pytest.raises(rz.UsageError):
            rz.join(tmp_path / "x", wrong)
    with pytest.raises(rz.ConflictError):
        rz.join(three[0], [three[1]])
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    with pytest.raises(rz.ArchiveError):
        rz.join(tmp_path / "x", [three[0], tmp_path / "junk"])
    assert not (tmp_path / "x").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]


def test_one_member_damaged(tmp_path: Path, three: list[Path], me: rz.Identity) -> None:
    path = tmp_path / "all"
    found = rz.join(path, three)
    data = path.read_bytes()
    middle = found[1]
    at = middle.offset + middle.length // 2
    path.write_bytes(data[:at] + bytes(500) + data[at + 500 :])
    for number in (0, 2):
        with rz.open(path, identities=[me], member=number) as archive:
            assert not rz.compare(archive, tmp_path / f"tree{number}")
    with rz.open(path, identities=[me], member=1) as archive, pytest.raises(rz.ArchiveError):
        archive.extract(tmp_path / "out")
    with pytest.raises(rz.ArchiveError):
        rz.check(path, identities=[me])
    for number in (0, 2):
        report = rz.salvage(path, tmp_path / f"saved{number}", identities=[me], member=number)
        assert report.problem_count == 0
        assert not rz.compare(tmp_path / f"tree{number}", tmp_path / f"saved{number}/tree{number}")
    # The tail of the one in the middle: the last is still there, the first by salvage.
    end = middle.offset + middle.length
    path.write_bytes(data[: end - 64] + bytes(64) + data[end:])
    with pytest.raises(rz.ArchiveError):
        rz.check(path, identities=[me])
    for number in range(3):
        report = rz.salvage(path, tmp_path / f"again{number}", identities=[me], member=number)
        assert report.problem_count == 0
        assert not rz.compare(tmp_path / f"tree{number}", tmp_path / f"again{number}/tree{number}")


@pytest.mark.parametrize("size", [1, 63, 64, 5000, 300_000])
def test_junk_appended(tmp_path: Path, three: list[Path], me: rz.Identity, size: int) -> None:
    path = three[0]
    data = path.read_bytes()
    for junk in (bytes(size), noise(size), (data * 2)[-size - 1 : -1]):
        path.write_bytes(data + junk)
        with pytest.raises(rz.ArchiveError):
            rz.open(path, identities=[me])
        with pytest.raises(rz.ArchiveError):
            rz.check(path, identities=[me])
        with pytest.raises(rz.ArchiveError):
            rz.members(path)
    report = rz.salvage(path, tmp_path / "out", identities=[me])
    assert report.problem_count == 0
    assert not rz.compare(tmp_path / "tree0", tmp_path / "out/tree0")


def test_one_flip_is_one_damage(tmp_path: Path, three: list[Path], me: rz.Identity) -> None:
    """The report of a check names what is damaged and no more."""
    path = three[1]
    data = path.read_bytes()
    blocks = [block for block in blocks_of(data) if block.type == b"PACK"]
    at = blocks[0].offset + 500
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    for identities in ([], [me]):
        with pytest.raises(rz.BlockError) as caught:
            rz.check(path, identities=identities)
        assert [damage.offset for damage in caught.value.report.damages] == [blocks[0].offset]


def test_not_archives(tmp_path: Path, me: rz.Identity) -> None:
    for number, data in enumerate((b"", b"\0", b"junk" * 100_000, noise(300_000), b"\x89RZN\r\n\x1a\n" + bytes(500))):
        path = tmp_path / str(number)
        path.write_bytes(data)
        for refused in (
            lambda path=path: rz.open(path, identities=[me]),
            lambda path=path: rz.check(path, identities=[me]),
            lambda path=path: rz.check(path),
            lambda path=path: rz.salvage(path, tmp_path / "out", identities=[me]),
        ):
            with pytest.raises(rz.ArchiveError):
                refused()
    for refused_ in (rz.open, rz.check, rz.members):
        with pytest.raises(rz.StorageError):
            refused_(tmp_path / "missing")
        with pytest.raises(rz.StorageError):
            refused_(tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_member_is_found_by_its_id_behind_one_with_a_damaged_tail(tmp_path: Path) -> None:
    me = rz.Identity.generate()
    paths, ids = [], []
    for number in range(3):
        paths.append(tmp_path / f"{number}.rzn")
        with rz.create(paths[-1], recipients=[me.recipient]) as archive:
            archive.add("name", f"content {number}".encode())
        ids.append(archive.archive_id)
    joined = tmp_path / "joined.rzn"
    members = rz.join(joined, paths)
    data = bytearray(joined.read_bytes())
    data[members[2].offset - 20] ^= 1  # in the tail of the second member
    joined.write_bytes(data)
    assert rz.open(joined, identities=[me], member=ids[2]).read("name") == b"content 2"
    assert rz.open(joined, identities=[me], member=ids[0]).read("name") == b"content 0"
    with pytest.raises(rz.ArchiveError):
        rz.open(joined, identities=[me], member=ids[1])
    with pytest.raises(rz.ArchiveError):
        rz.open(joined, identities=[me], member=bytes(16))
