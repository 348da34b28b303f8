"""Archives that a legitimate key holder made with ill intent.

Check finds the lie, reading raises only ArchiveError, nothing is written outside of the destination, nothing
spins, and memory stays bounded.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import rozenfmt as rz
from rozenfmt.archive.source import ObjectReader
from rozenfmt.format import cbor, crypto, nodes
from rozenfmt.format.nodes import Entry, InnerNode, Part
from rozenfmt.storage.local import LocalStorage

from .helpers import MIB, Crafter, files_below, noise

Make = Callable[[Crafter], bytes]


def refused(path: Path, out: Path, me: rz.Identity, *, reads: bool = True) -> None:
    """Check with the key finds it; whatever is read is refused or harmless, and stays inside."""
    with pytest.raises(rz.ArchiveError):
        rz.check(path, identities=[me])
    rz.check(path)  # all hashes are right
    try:
        with rz.open(path, identities=[me]) as archive:
            entries = list(islice(archive, 10_000))
            for entry in entries:
                if entry.kind is rz.Kind.FILE and entry.size < 100 * MIB:
                    with pytest.raises(rz.ArchiveError) if reads else _harmless():
                        archive.read(entry.path)
    except rz.ArchiveError:
        pass
    try:
        with rz.open(path, identities=[me]) as archive:
            archive.extract(out / "inside")
    except rz.ArchiveError:
        pass
    rz.salvage(path, out / "saved", identities=[me])
    assert sorted(os.listdir(out)) in (["inside", "saved"], ["saved"])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rozenfmt")]


class _harmless:  # noqa: N801 -- a context manager
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        return kind is None or issubclass(kind, (rz.ArchiveError, rz.UsageError))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def _raw(names: list[bytes], **more: Any) -> dict[int, Any]:
    count = len(names)
    return {
        1: 1,
        2: count,
        3: b"\0".join(names),
        4: b"\x04" * count,
        5: b"\xa4\x01" * count,
        6: bytes(count),
        7: [[0, 0, b"", b""]],
        **{int(key[1:]): value for key, value in more.items()},
    }


@pytest.mark.parametrize(
    "names",
    [
        [b".."],
        [b"."],
        [b"/etc"],
        [b"a/b"],
        [b"../../x"],
        [b"a", b"a"],
        [b"b", b"a"],
        [b""],
        [b"x" * 65_536],
        [b"a", b""],
    ],
    ids=str,
)
def test_names(tmp_path: Path, out: Path, me: rz.Identity, names: list[bytes]) -> None:
    crafter = Crafter(me.recipient)
    root = crafter.node(b"", cbor.dumps(_raw(names)), nodes.directory_hints(b""))
    (tmp_path / "a").write_bytes(crafter.finish(root, (len(names), 0)))
    refused(tmp_path / "a", out, me)
    assert not list((out / "saved").iterdir())


def _columns() -> dict[str, dict[str, Any]]:
    return {
        "count": {"k2": 7},
        "huge count": {"k2": 2**62},
        "kinds": {"k4": b"\x09\x04"},
        "short kinds": {"k4": b"\x04"},
        "modes": {"k5": b"\xff\xff\xff\xff"},
        "times": {"k6": b"\x80"},
        "owners": {"k7": [[2**40, 0, b"", b""]]},
        "owner numbers": {"k7": [[0, 0, b"", b""], [1, 1, b"", b""]], "k8": b"\x05\x05"},
        "sizes of none": {"k9": b"\x01"},
        "link of none": {"k14": [[9, bytes(16)]]},
        "xattr of none": {"k15": [[0, bytes(32)]]},
    }


@pytest.mark.parametrize("case", sorted(_columns()))
def test_columns(tmp_path: Path, out: Path, me: rz.Identity, case: str) -> None:
    crafter = Crafter(me.recipient)
    root = crafter.node(b"", cbor.dumps(_raw([b"a", b"b"], **_columns()[case])), nodes.directory_hints(b""))
    (tmp_path / "a").write_bytes(crafter.finish(root, (2, 0)))
    refused(tmp_path / "a", out, me)


def test_symlink_and_what_goes_through_it(tmp_path: Path, me: rz.Identity) -> None:
    """A link out of the destination, and a directory of the same name in another node: nothing leaves."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for shape in ("twice", "leaves", "case"):
        crafter = Crafter(me.recipient)
        evil = crafter.file(b"evil", b"planted")
        below = crafter.directory(b"x", [evil])
        link = Entry(b"x", rz.Kind.SYMLINK, 0o777, target=os.fsencode(outside))
        folder = replace(below, name=b"x")
        if shape == "twice":  # one leaf, two entries of one name
            logical = nodes.directory_record([link, folder])
            root = crafter.directory(b"", [link, folder], logical=logical)
        elif shape == "leaves":  # two leaves below an inner node
            one = crafter.directory(b"", [link], listed=False)
            two = crafter.directory(b"", [folder], listed=False)
            assert one.child is not None
            assert two.child is not None
            children = [InnerNode(b"x", 1, one.child, one.block, 0), InnerNode(b"y", 1, two.child, two.block, 0)]
            root = crafter.node(
                b"",
                nodes.inner_record(children),
                nodes.directory_hints(b"", [(c.block, c.piece) for c in children]),
            )
        else:
            root = crafter.directory(b"", [replace(link, name=b"X"), folder])
        path = tmp_path / shape
        path.write_bytes(crafter.finish(root, (3, 7)))
        for number, work in enumerate((_extract, _salvage)):
            work(path, tmp_path / f"{shape}-{number}", me)
            assert not list(outside.iterdir())
        if shape != "case":
            with pytest.raises(rz.ArchiveError):
                rz.check(path, identities=[me])


def _extract(path: Path, out: Path, me: rz.Identity) -> None:
    try:
        with rz.open(path, identities=[me]) as archive:
            archive.extract(out)
    except rz.ArchiveError:
        pass


def _salvage(path: Path, out: Path, me: rz.Identity) -> None:
    rz.salvage(path, out, identities=[me])


def test_salvage_stays_inside_whatever_paths_hints_name(tmp_path: Path, out: Path, me: rz.Identity) -> None:
    crafter = Crafter(me.recipient)
    for number, path in enumerate((b"../outside", b"/abs", b"a/../../b", b"a//b", b"./c", b"\0", b"d/" * 150, b"..")):
        crafter.directory(path, [crafter.file(b"evil%d" % number, b"planted %d" % number)], listed=False)
    root = crafter.directory(b"", [])
    (tmp_path / "a").write_bytes(crafter.finish(root))
    refused(tmp_path / "a", out, me)
    assert all(path.is_relative_to(out / "saved") for _, path in files_below(out))
    assert sorted(os.listdir(tmp_path)) == ["a", "out"]


# --- Trees without end --------------------------------------------------------------------------


def _bomb(crafter: Crafter, depth: int = 40, *, hints: bool = False) -> bytes:
    """2^depth entries: each directory names the next one twice."""
    leaf = crafter.file(b"leaf", b"x")
    path = b"/".join([b"a"] * depth)
    below = crafter.directory(path, [leaf])
    for level in range(depth - 1, -1, -1):
        path = b"/".join([b"a"] * level)
        entries = [replace(below, name=b"a"), replace(below, name=b"b")]
        below = crafter.directory(path if not hints or level == 0 else b"", entries, listed=level == 0 or not hints)
    return crafter.finish(below, (2 * depth + 1, 1))


@pytest.mark.parametrize("hints", [False, True])
def test_shared_nodes_end(tmp_path: Path, out: Path, me: rz.Identity, *, hints: bool) -> None:
    """A tree of 2^40 entries in 40 nodes is refused as soon as a node is met again."""
    (tmp_path / "a").write_bytes(_bomb(Crafter(me.recipient), hints=hints))
    refused(tmp_path / "a", out, me, reads=False)
    with rz.open(tmp_path / "a", identities=[me]) as archive, pytest.raises(rz.ArchiveError):
        assert sum(1 for _ in islice(archive, 10_000)) < 100
    assert sum(1 for _ in (out / "saved").rglob("*")) < 100


@pytest.mark.parametrize("empty", [True, False])
def test_inner_nodes_without_end(tmp_path: Path, out: Path, me: rz.Identity, *, empty: bool) -> None:
    """Eight levels of inner nodes that name one leaf a hundred times each."""
    crafter = Crafter(me.recipient)
    entries = [] if empty else [Entry(b"n", rz.Kind.FIFO, 0o600)]
    below = crafter.directory(b"", entries, listed=False)
    for level in range(8):
        assert below.child is not None
        children = [InnerNode(b"n%03d" % n if n else b"n", 1, below.child, below.block, 0) for n in range(100)]
        below = crafter.node(
            b"",
            nodes.inner_record(children),
            nodes.directory_hints(b"", [(c.block, 0) for c in children]),
            listed=level == 7,
        )
    (tmp_path / "a").write_bytes(crafter.finish(below, (100**8, 0)))
    refused(tmp_path / "a", out, me)


def test_inner_nodes_too_deep(tmp_path: Path, out: Path, me: rz.Identity) -> None:
    crafter = Crafter(me.recipient)
    below = crafter.directory(b"", [Entry(b"n", rz.Kind.FIFO, 0o600)], listed=False)
    for level in range(12):
        assert below.child is not None
        child = InnerNode(b"n", 1, below.child, below.block, 0)
        below = crafter.node(
            b"", nodes.inner_record([child]), nodes.directory_hints(b"", [(child.block, 0)]), listed=level == 11
        )
    (tmp_path / "a").write_bytes(crafter.finish(below, (1, 0)))
    with rz.open(tmp_path / "a", identities=[me]) as archive, pytest.raises(rz.ArchiveError):
        list(archive)
    _extract(tmp_path / "a", out, me)


# --- Contents -----------------------------------------------------------------------------------


def _file(crafter: Crafter, sequence: int, content_id: bytes, size: int, piece: int = 0) -> bytes:
    entry = Entry(b"f", rz.Kind.FILE, 0o644, size=size, content_id=content_id, block=sequence, piece=piece)
    return crafter.finish(crafter.directory(b"", [entry]), (1, size))


def _hole(crafter: Crafter, length: int) -> bytes:
    fake = crafter.id(b"whatever")
    sequence = crafter.stream([b"start"], length, fake, lambda first: nodes.part_leaf(
        [Part(0, 5, crafter.id(b"start"), first, 0), Part(5, length - 5, None, 0, 0)]
    ))  # fmt: skip
    return _file(crafter, sequence, fake, length)


@pytest.mark.parametrize("length", [2**62, 2**63 - 1, 2**64 - 1])
def test_holes_without_end(tmp_path: Path, out: Path, me: rz.Identity, length: int) -> None:
    """A few bytes that claim exabytes of zeros: nobody hashes them, holds them or writes them."""
    (tmp_path / "a").write_bytes(_hole(Crafter(me.recipient), length))
    refused(tmp_path / "a", out, me)
    with rz.open(tmp_path / "a", identities=[me]) as archive:
        with pytest.raises((rz.UsageError, rz.ArchiveError)):
            archive.read("f")
        with archive.open("f") as file:
            assert file.read(6) == b"start\0"
            file.seek(length - 10) if length < 2**63 else None
            if length < 2**63:
                assert file.read() == bytes(10)
    stored = sum(os.stat(path).st_blocks * 512 for _, path in files_below(out))
    assert stored < MIB


def _wrong_places() -> dict[str, Make]:
    """Contents said to be where they are not, or to be what they are not."""

    def table(parts: list[Part]) -> Callable[[int], bytes]:
        return lambda _: nodes.part_leaf(parts)

    def wrong_block(crafter: Crafter) -> bytes:
        crafter.file(b"other", b"other content")
        return _file(crafter, 0, crafter.id(b"right content"), 13)

    def wrong_piece(crafter: Crafter) -> bytes:
        sequence = crafter.pieces(b"PACK", [b"one", b"two"])
        return _file(crafter, sequence, crafter.id(b"one"), 3, piece=1)

    def no_piece(crafter: Crafter) -> bytes:
        sequence = crafter.pieces(b"PACK", [b"one", b"two"])
        return _file(crafter, sequence, crafter.id(b"one"), 3, piece=70_000)

    def no_block(crafter: Crafter) -> bytes:
        crafter.file(b"other", b"other content")
        return _file(crafter, 2**63, crafter.id(b"other content"), 13)

    def own_tree(crafter: Crafter) -> bytes:
        return _file(crafter, 0, crafter.id(b"x"), 1)

    def size_more(crafter: Crafter) -> bytes:
        sequence = crafter.pieces(b"PACK", [b"one"])
        return _file(crafter, sequence, crafter.id(b"one"), 4)

    def size_less(crafter: Crafter) -> bytes:
        sequence = crafter.pieces(b"PACK", [b"one"])
        return _file(crafter, sequence, crafter.id(b"one"), 2)

    def other_end(crafter: Crafter) -> bytes:
        one, two = noise(70_000, 1), noise(70_000, 2)
        places = []
        for data in (one, two):

            def whole(first: int, data: bytes = data) -> bytes:
                return nodes.part_leaf([Part(0, 70_000, crafter.id(data), first, 0)])

            places.append(crafter.stream([data], 70_000, crafter.id(data), whole))
        return _file(crafter, places[1], crafter.id(one), 70_000)

    def stream(change: Callable[[Crafter, int, bytes], tuple[list[Part], int, bytes]]) -> Make:
        def make(crafter: Crafter) -> bytes:
            data = noise(70_000, 1)
            crafter.file(b"pack", data[:40_000])
            length, content_id = 70_000, crafter.id(data)
            made = change(crafter, crafter.encoder.next_sequence + 1, data)
            length, content_id = made[1], made[2]
            sequence = crafter.stream([data[:40_000], data[40_000:]], length, content_id, table(made[0]))
            return _file(crafter, sequence, content_id, length)

        return make

    def parts(crafter: Crafter, first: int, data: bytes) -> list[Part]:
        return [
            Part(0, 40_000, crafter.id(data[:40_000]), first, 0),
            Part(40_000, 30_000, crafter.id(data[40_000:]), first + 1, 0),
        ]

    return {
        "wrong block": wrong_block,
        "wrong piece": wrong_piece,
        "no such piece": no_piece,
        "no such block": no_block,
        "own tree": own_tree,
        "size too big": size_more,
        "size too small": size_less,
        "another end": other_end,
        "parts swapped": stream(lambda c, f, d: (
            [replace(p, offset=0) for p in parts(c, f, d)[::-1]], 70_000, c.id(d))),
        "part in a pack": stream(lambda c, f, d: (
            [Part(0, 40_000, c.id(d[:40_000]), 0, 0), parts(c, f, d)[1]], 70_000, c.id(d))),
        "part elsewhere": stream(lambda c, f, d: (
            [parts(c, f, d)[0], replace(parts(c, f, d)[1], block=2**60)], 70_000, c.id(d))),
        "part missing": stream(lambda c, f, d: (
            [parts(c, f, d)[0], Part(40_000, 30_000, None, 0, 0)], 70_000, c.id(d))),
        "whole id wrong": stream(lambda c, f, d: (parts(c, f, d), 70_000, c.id(b"no"))),
        "table too short": stream(lambda c, f, d: (parts(c, f, d)[:1], 70_000, c.id(d))),
        "table wraps": stream(lambda c, f, d: (
            [*parts(c, f, d), Part(70_000, 2**64 - 70_000, None, 0, 0)], 70_000, c.id(d))),
    }  # fmt: skip


@pytest.mark.parametrize("case", sorted(_wrong_places()))
def test_wrong_places(tmp_path: Path, out: Path, me: rz.Identity, case: str) -> None:
    try:
        data = _wrong_places()[case](Crafter(me.recipient))
    except (ValueError, rz.UsageError) as error:
        pytest.skip(f"cannot even be written: {error}")
    (tmp_path / "a").write_bytes(data)
    refused(tmp_path / "a", out, me, reads=case not in ("whole id wrong", "part missing", "parts swapped"))
    for name, path in files_below(out):
        if name.endswith("/f"):  # what has the id that the directory says is right, whatever tables say
            assert case in ("whole id wrong", "part missing", "parts swapped") or path.read_bytes() == noise(70_000, 1)


def _sub_tables(crafter: Crafter, leaf: list[Part], *, change: Callable[[Part], Part] = lambda part: part) -> bytes:
    inner = nodes.part_leaf(leaf)
    sequence = crafter.pieces(b"TREE", [inner])
    length = sum(part.length for part in leaf)
    part = change(Part(0, length, crypto.digest(inner[4 : 4 + int.from_bytes(inner[:4], "little")]), sequence, 0))
    fake = crafter.id(b"?")
    end = crafter.stream([b"x"], part.length, fake, lambda _: nodes.part_inner([part]))
    return _file(crafter, end, fake, part.length)


@pytest.mark.parametrize(
    "change",
    [
        lambda part: replace(part, block=0),
        lambda part: replace(part, piece=5),
        lambda part: replace(part, id=bytes(32)),
        lambda part: replace(part, length=part.length + 1),
        lambda part: part,
    ],
)
def test_wrong_sub_tables(tmp_path: Path, out: Path, me: rz.Identity, change: Callable[[Part], Part]) -> None:
    crafter = Crafter(me.recipient)
    crafter.file(b"pack", b"data")
    leaf = [Part(0, 1, crafter.id(b"y"), 0, 0), Part(1, 99, None, 0, 0)]
    (tmp_path / "a").write_bytes(_sub_tables(crafter, leaf, change=change))
    refused(tmp_path / "a", out, me)


# --- Index --------------------------------------------------------------------------------------


def _honest(crafter: Crafter) -> tuple[Entry, tuple[int, int]]:
    file = crafter.file(b"f", b"content")
    below = crafter.directory(b"d", [replace(file, name=b"g")])
    return crafter.directory(b"", [below_named(below, b"d"), file]), (3, 14)


def below_named(entry: Entry, name: bytes) -> Entry:
    return replace(entry, name=name)


def test_crafted_but_honest(tmp_path: Path, me: rz.Identity) -> None:
    """The crafter itself makes archives that are right."""
    crafter = Crafter(me.recipient)
    root, totals = _honest(crafter)
    (tmp_path / "a").write_bytes(crafter.finish(root, totals))
    rz.check(tmp_path / "a", identities=[me])
    with rz.open(tmp_path / "a", identities=[me]) as archive:
        assert [entry.path for entry in archive] == ["d", "d/g", "f"]
        assert archive.read("d/g") == b"content"


@pytest.mark.parametrize("totals", [(2, 14), (4, 14), (3, 13), (3, 2**62), (2**62, 14), (0, 0)])
def test_wrong_totals(tmp_path: Path, out: Path, me: rz.Identity, totals: tuple[int, int]) -> None:
    crafter = Crafter(me.recipient)
    root, _ = _honest(crafter)
    (tmp_path / "a").write_bytes(crafter.finish(root, totals))
    refused(tmp_path / "a", out, me, reads=False)


def _index_lies() -> dict[str, Callable[[Crafter], None]]:
    return {
        "extra content": lambda c: c.encoder.index.add_content([b"\xab" * 32], 0),
        "extra path": lambda c: c.encoder.index.add_path(b"\xab" * 16, 0, 0),
        "path of a pack": lambda c: c.encoder.index.add_path(crypto.mac(c.keys.path_key, b"e")[:16], 0, 0),
        "path twice": lambda c: c.encoder.index.add_path(crypto.mac(c.keys.path_key, b"d")[:16], 2, 0),
        "path to nowhere": lambda c: c.encoder.index.add_path(crypto.mac(c.keys.path_key, b"e")[:16], 2**60, 9),
    }


@pytest.mark.parametrize("case", sorted(_index_lies()))
def test_index_lies(tmp_path: Path, out: Path, me: rz.Identity, case: str) -> None:
    crafter = Crafter(me.recipient)
    root, totals = _honest(crafter)
    _index_lies()[case](crafter)
    (tmp_path / "a").write_bytes(crafter.finish(root, totals))
    refused(tmp_path / "a", out, me, reads=False)
    with rz.open(tmp_path / "a", identities=[me]) as archive:
        for name in ("e/f", "d/g", "d/none"):
            try:
                assert archive.read(name) == b"content"
            except (rz.ArchiveError, rz.UsageError):
                continue


def test_missing_look_ups(tmp_path: Path, out: Path, me: rz.Identity) -> None:
    crafter = Crafter(me.recipient)
    sequence = crafter.pieces(b"PACK", [b"content"], listed=False)
    file = Entry(b"f", rz.Kind.FILE, 0o644, size=7, content_id=crafter.id(b"content"), block=sequence)
    root = crafter.directory(b"", [file], listed=False)
    (tmp_path / "a").write_bytes(crafter.finish(root, (1, 7)))
    refused(tmp_path / "a", out, me, reads=False)


def test_path_hint_of_another_directory(tmp_path: Path, out: Path, me: rz.Identity) -> None:
    """Two directories whose nodes exchanged their paths."""
    crafter = Crafter(me.recipient)
    one = crafter.directory(b"two", [crafter.file(b"f", b"of one")])
    two = crafter.directory(b"one", [crafter.file(b"f", b"of two")])
    root = crafter.directory(b"", [below_named(one, b"one"), below_named(two, b"two")])
    (tmp_path / "a").write_bytes(crafter.finish(root, (4, 12)))
    refused(tmp_path / "a", out, me, reads=False)


def test_block_table_that_claims_huge_blocks(tmp_path: Path, me: rz.Identity) -> None:
    """A length in the index is compared with the limit before so much is read."""
    crafter = Crafter(me.recipient)
    root, totals = _honest(crafter)
    table = crafter.encoder.index._table
    table[0] = table[0][:36] + (2**30).to_bytes(8, "little")
    data = crafter.finish(root, totals)
    (tmp_path / "a").write_bytes(data)
    with rz.open(tmp_path / "a", identities=[me]) as archive, pytest.raises(rz.ArchiveError):
        archive.read("f")


def test_no_read_is_longer_than_a_block(tmp_path: Path) -> None:
    """Where the object is big enough for what a lying index claims."""
    with open(tmp_path / "big", "wb") as file:
        file.truncate(1 << 31)
    reader = ObjectReader(LocalStorage(str(tmp_path)), "big", "big")
    with pytest.raises(rz.LimitError):
        reader.read(0, 1 << 30)
    assert reader.requests == 1


# --- Memory -------------------------------------------------------------------------------------


def _in_child(script: str, *arguments: str, limit: int) -> int:
    """Run a script; returns by how many bytes its peak memory grew. Fails if it grew over ``limit``."""
    code = textwrap.dedent(script)
    prelude = (
        "import sys\n"
        "def peak(): return 1024 * next(int(l.split()[1]) for l in open('/proc/self/status') if l[:6] == 'VmHWM:')\n"
        "import rozenfmt as rz, rozenfmt.archive.check, rozenfmt.archive.salvage, rozenfmt.archive.extract\n"
        "import rozenfmt.tree.restore, nacl.bindings, zstandard, lz4.block\n"
        "before = peak()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + code + "\nprint(peak() - before)\n", *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (60, 60)),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    grown = int(done.stdout.split()[-1])
    assert grown < limit, f"{grown / MIB:.0f} MiB"
    return grown


READ_ALL = """
from itertools import islice
me = rz.Identity(bytes.fromhex(sys.argv[2]))
for work in (
    lambda: rz.check(sys.argv[1], identities=[me], workers=2),
    lambda: [len(a.read(e.path)) for a in [rz.open(sys.argv[1], identities=[me])] for e in islice(a, 100) if e.size],
    lambda: [a.xattrs(e) for a in [rz.open(sys.argv[1], identities=[me])] for e in islice(a, 100)],
    lambda: rz.open(sys.argv[1], identities=[me]).extract(sys.argv[3] + "/x", workers=2),
    lambda: rz.salvage(sys.argv[1], sys.argv[3] + "/s", identities=[me]),
):
    try:
        work()
    except (rz.ArchiveError, rz.UsageError):
        pass
"""


def _bombs() -> dict[str, Make]:
    def zeros(crafter: Crafter) -> bytes:
        """16 MiB of zeros in each of 20 blocks of a few hundred bytes."""
        entries = []
        for number in range(20):
            data = bytes([number]) * (16 * MIB)
            entries.append(replace(crafter.file(b"f%02d" % number, data)))
        return crafter.finish(crafter.directory(b"", entries), (20, 320 * MIB))

    def attributes(crafter: Crafter) -> bytes:
        """A set of attributes of 15 MiB, and one of a million names, used by many entries."""
        big = cbor.dumps([[b"user.big", bytes(15 * MIB)]])
        many = cbor.dumps([[b"u%07d" % n, b""] for n in range(30_000)])
        entries = []
        for number, data in enumerate((big, many)):
            sequence = crafter.pieces(b"TREX", [data])
            entries += [
                Entry(b"%d-%d" % (number, n), rz.Kind.FIFO, 0o600, xattr_ref=(crafter.id(data), sequence, 0))
                for n in range(2)
            ]
        return crafter.finish(crafter.directory(b"", entries), (4, 0))

    def parts(crafter: Crafter) -> bytes:
        """A part table of eight million parts in a small block."""
        count = 4_000_000
        logical = cbor.dumps({1: 3, 2: count, 3: b"\1" * count, 5: b"\0" + b"\1" * (count - 1)})
        table = nodes.join_node(logical, nodes.directory_hints(None))
        fake = crafter.id(b"?")
        sequence = crafter.stream([], count, fake, lambda _: table)
        return _file(crafter, sequence, fake, count)

    def entries(crafter: Crafter) -> bytes:
        """A directory of a million entries in one node."""
        count = 1_000_000
        names = [b"%06x" % n for n in range(count)]
        root = crafter.node(b"", cbor.dumps(_raw(names)), nodes.directory_hints(b""))
        return crafter.finish(root, (count, 0))

    def tables(crafter: Crafter) -> bytes:
        """Sub-tables that nothing refers to."""
        count = 1_000_000
        for _ in range(3):
            logical = cbor.dumps({1: 3, 2: count, 3: b"\1" * count, 5: b"\0" + b"\1" * (count - 1)})
            crafter.pieces(b"TREE", [nodes.join_node(logical, nodes.directory_hints(None))])
        return crafter.finish(crafter.directory(b"", []), (0, 0))

    return {"zeros": zeros, "attributes": attributes, "parts": parts, "entries": entries, "tables": tables}


LIMITS = {"zeros": 250, "attributes": 600, "parts": 400, "entries": 400, "tables": 400}


@pytest.mark.parametrize("case", sorted(_bombs()))
def test_bombs(tmp_path: Path, out: Path, me: rz.Identity, case: str) -> None:
    data = _bombs()[case](Crafter(me.recipient))
    assert len(data) < 20 * MIB
    (tmp_path / "a").write_bytes(data)
    _in_child(READ_ALL, str(tmp_path / "a"), me.seed.hex(), str(out), limit=LIMITS[case] * MIB)
