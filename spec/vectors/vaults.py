"""Golden vaults: folders of objects, and what a reader must make of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from blake3 import blake3

from rozenfmt.format import crypto
from rozenfmt.format.nodes import Kind
from spec.vectors.maker import Maker
from spec.vectors.vaultmaker import (
    ACTIVE,
    BROWSE,
    PRESENT,
    READ,
    REMOVED,
    RETIRED,
    Edition,
    Host,
    Person,
    Seen,
    VaultMaker,
    Written,
    big,
    file,
    folder,
    special,
)

VAULTS: dict[str, Callable[[], VaultMaker]] = {}
TEXT = b"To be read by people who have never heard of us. " * 8
ALICE, MALLORY = Person("alice"), Person("mallory")


def noise(name: str, size: int) -> bytes:
    """Bytes that do not compress."""
    return blake3(name.encode()).digest(size)


def vault(name: str, description: str) -> Callable[[Callable[[VaultMaker], None]], None]:
    """Register a scenario, which fills a vault."""

    def register(fill: Callable[[VaultMaker], None]) -> None:
        def build() -> VaultMaker:
            made = VaultMaker(name, description, ALICE)
            fill(made)
            return made

        VAULTS[name] = build

    return register


def begin(v: VaultMaker, *hosts: str) -> tuple[Edition, list[Host]]:
    """A first edition by the owner, and a second one with hosts."""
    one = v.edition([], epochs=[v.epoch(1)], people={ALICE: (READ, PRESENT, "Alice")})
    if not hosts:
        return one, []
    made = [v.host(name) for name in hosts]
    return v.edition([one], hosts={host: (host.name, ACTIVE) for host in made}), made


# --- people, epochs, sharing ---------------------------------------------------------------------


@vault("people", "two hosts, two epochs, editions made at the same time; snapshots that share nodes and contents")
def _people(v: VaultMaker) -> None:
    bob, carol, dave = v.person("bob"), v.person("carol"), v.person("dave")
    one, _ = begin(v)
    first = one.epochs[0]
    laptop, server, old = v.host("laptop"), v.host("server"), v.host("old")
    two = v.edition(
        [one],
        hosts={laptop: ("laptop", ACTIVE), old: ("old laptop", RETIRED)},
        people={bob: (BROWSE, PRESENT, "Bob, who browses")},
    )
    left = v.edition([two], hosts={server: ("server", ACTIVE)})
    right = v.edition([two], people={carol: (READ, PRESENT, "Carol")})
    home = _home(v, laptop, first, [left, right])
    four = v.edition([left, right], epochs=[v.epoch(2)], people={carol: (READ, REMOVED, "Carol")})
    second = four.epochs[-1]
    _home_again(v, laptop, second, [four], home)
    v.data(server, "dump", second, [noise("dump", 900)], [b"[settings]\n"], suite=2)
    dump = {
        b"db.sql": file(noise("dump", 900), mode=0o600),
        b"etc": folder({b"app.ini": file(b"[settings]\n"), b"same": file(b"[settings]\n")}),
    }
    sources = [(b"db.sql", b"pg_dump shop", 2), (b"etc", b"s3://bucket/etc", 3)]
    options = {"suite": 2}
    v.snapshot(
        server, "1", second, folder(dump), [four], sequence=1, set_name="nightly", sources=sources, options=options
    )
    five = v.edition([four], people={dave: (BROWSE, PRESENT, "Dave")})
    six = v.edition([four], hosts={server: ("storage box", ACTIVE)})
    heads = sorted(x.digest.hex() for x in (five, six))
    v.opening(ALICE, right="read", heads=heads)
    v.opening(bob, right="browse", heads=heads)
    v.opening(dave, right="browse", heads=heads)
    v.opening(carol, expected="no-recipient")
    v.opening(MALLORY, expected="no-recipient")
    v.opening(ALICE, owner=MALLORY.recipient.hex(), expected="header")
    v.opening(ALICE, right="read", pin=[5, heads])
    v.opening(ALICE, right="read", pin=[4, [four.digest.hex()]])
    v.opening(ALICE, right="read", pin=[1, [one.digest.hex()]])
    v.opening(ALICE, expected="signature", pin=[6, []])
    v.opening(ALICE, expected="signature", pin=[5, [crypto.digest(b"an edition that is hidden").hex()]])


def _home(v: VaultMaker, laptop: Host, epoch: Any, keyring: list[Edition]) -> Written:
    chunks = [noise(f"chunk {n}", 400 + 10 * n) for n in range(6)]
    v.data(laptop, "1", epoch, chunks[:3], chunks[3:], [TEXT, b"hello, world\n", b"1"])
    v.data(laptop, "2", epoch, [noise("photo", 1_500), TEXT + TEXT], arena=True)
    disk = big(chunks[0], chunks[1], 100_000, chunks[2], attributes=[(b"user.image", b"raw")])
    log = big(chunks[3], 5_000, chunks[4], chunks[5], chunks[3], 77, tables=(2, 2, 2))
    group = v.random(16)
    many = {b"file %02d" % n: file(b"1" if n % 2 else b"") for n in range(12)}
    tree = folder(
        {
            b"docs": folder(
                {
                    b"caf\xe9 \xff": file(TEXT, attributes=[(b"security.x", b"\0\xff"), (b"user.a", b"1")]),
                    b"empty": file(),
                    b"line\nbreak": file(b"hello, world\n", mode=0o4711, uid=0, gid=0, user=b"root", group=b""),
                    b"none": folder({}),
                },
                attributes=[(b"user.a", b"1")],
            ),
            b"images": folder({b"disk.img": disk, b"log": log, b"photo": file(noise("photo", 1_500))}),
            b"links": folder(
                {
                    b"a": file(b"1", link_group=group),
                    b"b": file(b"1", link_group=group),
                    b"fifo": special(Kind.FIFO, mode=0o600),
                    b"soft": special(Kind.SYMLINK, target=b"../docs/\xff", mode=0o777, mtime_ns=-1),
                    b"tty": special(Kind.CHARACTER_DEVICE, device=(4, 2**32)),
                }
            ),
            b"many": folder(many, split=(b"file 05", b"file 09")),
        }
    )
    return v.snapshot(laptop, "1", epoch, folder({b"home": tree}), keyring, sequence=1, set_name="home")


def _home_again(v: VaultMaker, laptop: Host, epoch: Any, keyring: list[Edition], home: Written) -> Written:
    """The documents moved, the image has a copy and another end, one of many files changed."""
    v.data(laptop, "3", epoch, [b"a new text\n", noise("tail", 333)])
    before = next(seen.item for seen in home.seen if seen.path == b"home")
    docs, images = before.children[b"docs"], before.children[b"images"]
    disk = images.children[b"disk.img"]
    changed = big(*disk.parts, noise("tail", 333))
    many = before.children[b"many"]
    photo = file(noise("photo", 1_500), mode=0o600)
    tree = folder(
        {
            b"images": folder(
                {
                    **images.children,
                    b"copy.img": disk,
                    b"disk.img": changed,
                    b"photo": photo,
                    b"new": file(b"a new text\n"),
                }
            ),
            b"links": before.children[b"links"],
            b"many": folder({**many.children, b"file 11": file(b"hello, world\n")}, split=many.split),
            b"papers": folder({b"2026": docs}),
        }
    )
    return v.snapshot(
        laptop,
        "2",
        epoch,
        folder({b"home": tree}),
        keyring,
        sequence=2,
        set_name="home",
        parent=home,
        moves=[(b"home/docs", b"home/papers/2026", 2)],
        tags=["holiday", "\uffff", "\U00010000"],
    )


# --- WORM ----------------------------------------------------------------------------------------


@vault("worm", "a set in WORM mode: conflicts and their answers, deletions, problems, nothing new, a lost memory")
def _worm(v: VaultMaker) -> None:
    two, (host,) = begin(v, "archive")
    epoch = two.epochs[0]
    scans = {b"%d.tif" % n: noise(f"scan {n}", 300 + n) for n in range(1, 7)}
    v.data(host, "1", epoch, list(scans.values()))
    tree = folder({name: file(content) for name, content in scans.items()})
    common: dict[str, Any] = {"set_name": "scans", "mode": 2}
    one = v.snapshot(host, "1", epoch, folder({b"scans": tree}), [two], sequence=1, **common)
    # 1 withheld, 2 put back, 3 accepted, 4 kept beside the new one, 5 deleted, 6 skipped; 7 unreadable, 8 new.
    v.data(host, "2", epoch, [b"another 3", b"another 4", b"the eighth"])
    kept = crypto.content_id(host.id_key, crypto.digest(scans[b"4.tif"]), len(scans[b"4.tif"]))
    beside = b"4.tif.~" + kept[:4].hex().encode()
    tree = folder(
        {
            b"1.tif": file(scans[b"1.tif"], marks=8),
            b"2.tif": file(scans[b"2.tif"], mode=0o600),
            b"3.tif": file(b"another 3"),
            b"4.tif": file(b"another 4"),
            beside: file(scans[b"4.tif"], marks=16),
            b"6.tif": file(scans[b"6.tif"], marks=8),
            b"7.tif": special(Kind.FILE, size=77, marks=2),
            b"8.tif": file(b"the eighth", marks=1),
        }
    )
    told = {
        "deleted": [b"scans/5.tif"],
        "conflicts": [(b"scans/%d.tif" % n, answer) for n, answer in ((1, 1), (2, 2), (3, 3), (4, 4), (6, 5))],
        "problems": [
            (b"scans/7.tif", "unreadable", "Input/output error"),
            (b"scans/8.tif", "changed", "it changed while it was read, \u00bbtwice\u00ab"),
        ],
    }
    whole = folder({b"scans": tree})
    second = v.snapshot(host, "2", epoch, whole, [two], sequence=2, parent=one, flags=2, **common, **told)
    v.snapshot(host, "3", epoch, whole, [two], sequence=3, parent=second, flags=1, **common)
    host.forget()
    v.data(host, "4", epoch, [*scans.values(), b"another 3", b"another 4", b"the eighth"])
    v.snapshot(host, "4", epoch, whole, [two], sequence=4, state=3, **common)
    # A fork: made by a copy of the host at the same time, of the same number.
    fork = v.snapshot(host, "4b", epoch, folder({b"scans": folder({})}), [two], sequence=4, state=3, **common)
    assert fork.record[7] == v.snapshots[-2].record[7]
    v.snapshot(host, "other", epoch, folder({b"scans": folder({})}), [two], sequence=5, set_name="scans of others")
    v.opening(ALICE, right="read", heads=[two.digest.hex()])


# --- damage --------------------------------------------------------------------------------------


def flipped(data: bytes, at: int) -> bytes:
    """One bit turned."""
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def name_of(v: VaultMaker, archive_id: bytes) -> str:
    """The object of an archive."""
    return next(name for name in v.objects if archive_id.hex() in name)


@vault(
    "damaged", "objects that are missing, cut off, flipped, forged, exchanged or renamed, and what can still be read"
)
def _damaged(v: VaultMaker) -> None:
    two, (host, other) = begin(v, "laptop", "intruder")
    epoch = two.epochs[0]
    words = ("missing", "forged", "flipped", "length", "cut", "exchanged", "plain", "kind", "ids", "good")
    contents = {word: f"what lies in the archive that is {word:10}\n".encode() for word in words}
    made: dict[str, Maker] = {}
    for word in words:
        special_ones: dict[str, dict[str, Any]] = {
            "forged": {"seed": other.seed},
            "plain": {"suite": 0},
            "ids": {"id_key": None},
        }
        more = special_ones.get(word, {})
        made[word] = v.data(host, word, epoch, [contents[word], b"beside " + contents[word]], codec="stored", **more)
    one = v.snapshot(
        host,
        "0",
        epoch,
        folder(
            {b"old": folder({b"good": file(contents["good"])}), b"shared": folder({b"x": file(contents["missing"])})}
        ),
        [two],
        sequence=1,
        set_name="home",
    )
    lost = v.data(host, "below", epoch, [b"a content of the snapshot that is gone"])
    gone = v.snapshot(
        host,
        "gone",
        epoch,
        folder(
            {
                b"gone": folder(
                    {b"a": file(b"a content of the snapshot that is gone")},
                    attributes=[(b"user.where", b"in the gone one")],
                ),
                b"split": folder({b"a": file(b""), b"m": file(b""), b"z": file(b"")}, split=(b"m",)),
            }
        ),
        [two],
        sequence=2,
        set_name="home",
        parent=one,
    )
    wrong = b"a content with the id of another one "
    v.data(host, "wrong", epoch, [wrong[::-1], b"0" * 9])
    host.contents[wrong] = host.contents[wrong[::-1]]
    v.wrong[host.contents[wrong]] = "block"
    nearly = big(contents["good"], 4_096, contents["missing"])
    files = {word.encode(): file(content) for word, content in contents.items()}
    extra = {
        b"in parts": nearly,
        b"wrong": file(wrong),
        b"with attributes": file(contents["good"], attributes=[(b"user.where", b"in the gone one")]),
    }
    gone_folder = next(seen.item for seen in gone.seen if seen.path == b"gone")
    shared = next(seen.item for seen in one.seen if seen.path == b"shared")
    tree = folder(
        {
            b"files": folder({**files, **extra}),
            b"gone": gone_folder,
            b"shared": shared,
            b"split": folder({b"a": file(contents["good"]), b"m": file(b""), b"z": file(b"")}, split=(b"m",)),
        }
    )
    length = made["length"].archive_id
    hooks = {"rows": lambda rows: [(*row[:2], row[2] - (row[0] == length), row[3]) for row in rows]}
    v.snapshot(host, "3", epoch, tree, [two], sequence=3, set_name="home", parent=gone, options={"hooks": hooks})
    v.objects[name_of(v, made["flipped"].archive_id)] = flipped(
        made["flipped"].data, made["flipped"].blocks[0].offset + 200
    )
    v.objects[name_of(v, made["cut"].archive_id)] = made["cut"].data[:-100]
    v.objects[name_of(v, made["exchanged"].archive_id)] = made["good"].data
    foreign = v.maker(host, "kind", 3, epoch)
    foreign_node, one_id = foreign.directory(b"", [])
    foreign.place(b"", foreign.tree(foreign_node), 0)
    foreign.finish((one_id, 0, 0))
    v.objects[name_of(v, made["kind"].archive_id)] = foreign.data
    for word in ("missing",):
        del v.objects[name_of(v, made[word].archive_id)]
    del v.objects[gone.object]
    v.snapshots.remove(gone)
    v.damaged |= {
        made["missing"].archive_id: "missing",
        made["forged"].archive_id: "signature",
        made["flipped"].archive_id: "block",
        made["length"].archive_id: "block",
        made["cut"].archive_id: "truncated",
        made["exchanged"].archive_id: "block",
        made["plain"].archive_id: "block",
        made["kind"].archive_id: "truncated" if len(foreign.data) < len(made["kind"].data) else "block",
        made["ids"].archive_id: "block",
        gone.archive_id: "missing",
    }
    v.warnings[v.snapshots[-1].object] = ["parent"]
    v.tombstone(host, gone.archive_id, gone.foot, "it took too much space")
    v.tombstone(host, made["missing"].archive_id, made["missing"].blocks[-1].whole, "says an intruder", by=MALLORY)
    v.tombstone(host, lost.archive_id, bytes(32), "premature")
    v.opening(ALICE, right="read", heads=[two.digest.hex()])


@vault("spoilt", "editions, metadata archives and names that are refused, and snapshots that are not what they say")
def _spoilt(v: VaultMaker) -> None:
    two, (host, other) = begin(v, "laptop", "intruder")
    _spoilt_editions(v, two)
    _spoilt_snapshots(v, two, host, other)
    v.objects["README"] = b"not an object of a vault\n"
    v.refused["README"] = "name"
    for name in (
        "meta/readme.txt",
        f"data/{'0' * 31}/x.rzn",
        f"meta/{'A' * 32}/0000000001-{'a' * 32}.rzn",
        "editions/1-0",
    ):
        v.objects[name] = b"likewise"
        v.refused[name] = "name"
    v.opening(ALICE, right="read", heads=[two.digest.hex()])


def _spoilt_editions(v: VaultMaker, two: Edition) -> None:
    """Editions that are refused; the vault opens with the others."""
    more: dict[str, Any] = {"people": {MALLORY: (READ, PRESENT, "Mallory")}}
    v.edition([two], owner=MALLORY, **more)
    v.refuse("signature")
    v.edition([two], hooks={"record": lambda r: {**r, 6: MALLORY.recipient}}, **more)
    v.refuse("signature")
    for change in (lambda s: flipped(s, 5), lambda s: s[:32] + bytes(32), lambda s: bytes([1] + [0] * 31) + s[32:]):
        v.edition([two], hooks={"signature": change}, **more)
        v.refuse("signature")
    for raw in (
        lambda r: b"\x89RZN" + r[4:],
        lambda r: r[:-1],
        lambda r: r + b"\0",
        lambda r: r[:8],
        lambda r: r[:8] + bytes(4) + r[-64:],
    ):
        v.edition([two], hooks={"raw": raw}, **more)
        v.refuse("header")
    v.edition([two], hooks={"raw": lambda r: r[:8] + b"\x01\x00\x10\x00" + r[12:]}, **more)
    v.refuse("limit")
    for change in (
        lambda r: {**r, 1: r[1][:15]},
        lambda r: {**r, 2: [0]},
        lambda r: {**r, 3: [2, 1]},
        lambda r: {**r, 4: 1},
        lambda r: {**r, 5: []},
        lambda r: {**r, 5: [b"\xff" * 32, *r[5]]},
        lambda r: {**r, 7: []},
        lambda r: {**r, 7: [*r[7], r[7][0]]},
        lambda r: {**r, 7: [*r[7], [2, *r[7][0][1:]]]},
        lambda r: {**r, 7: [[0, *r[7][0][1:]]]},
        lambda r: {**r, 8: [*r[8][1:], r[8][0]]},
        lambda r: {**r, 8: [[*r[8][0][:2], 3], r[8][1]]},
        lambda r: {**r, 9: []},
        lambda r: {**r, 9: [[3, r[9][0][1]]]},
        lambda r: {**r, 9: [[1, r[9][0][1][:-1]]]},
        lambda r: {k: x for k, x in r.items() if k != 10},
        lambda r: {k: x for k, x in r.items() if k != 12},
    ):
        v.edition([two], hooks={"record": change}, **more)
        v.refuse("header")


def _spoilt_snapshots(v: VaultMaker, two: Edition, host: Host, other: Host) -> None:
    """Metadata archives that are refused, and snapshots that are not what they say."""
    epoch = two.epochs[0]
    keyring = [replace(two, raw=b"no edition: nobody looks at it")]
    number = 10

    def make(name: str, failure: str = "block", by: Host = host, **more: Any) -> Written:
        nonlocal number
        number += 1
        by.forget()
        made = v.snapshot(
            by, name, epoch, folder({b"x": file()}), keyring, sequence=number, set_name=name, heads=[], **more
        )
        if failure:
            v.snapshots.remove(made)
            v.refused[made.object] = failure
        return made

    make("signed by another host", "signature", options={"seed": other.seed})
    make("not signed", "signature", options={"signed": False})
    make("renamed", named=99)
    make("of another vault", record={1: bytes(16)})
    make("of another host", record={2: other.host_id})
    make("plain", options={"suite": 0})
    make("with ids of its own", options={"hooks": {"header": lambda r: {**r, 11: 0}}})
    make("for nobody", "no-recipient", options={"recipients": ((READ, MALLORY.x25519), (BROWSE, MALLORY.x25519))})
    stranger = make(
        "of a host that is not listed", "signature", by=Host("stranger", v.random(16), v.random(32), v.random(32))
    )
    assert stranger.object in v.refused
    cut = make("cut off", "index")
    v.objects[cut.object] = v.objects[cut.object][:-30]
    short = make("nothing", "truncated")
    v.objects[short.object] = v.objects[short.object][:40]
    bad = make("flipped", "block")
    snap = next(block for block in bad.maker.blocks if block.type == "SNAP")
    v.objects[bad.object] = flipped(v.objects[bad.object], snap.offset + 150)
    moved = make("in the place of another one")
    name = moved.object.replace(moved.archive_id.hex(), v.random(16).hex())
    v.objects[name] = v.objects.pop(moved.object)
    v.refused[name] = v.refused.pop(moved.object)
    data = v.data(host, "in the place of a snapshot", epoch, [b"content"])
    name = f"meta/{host.host_id.hex()}/{77:010d}-{data.archive_id.hex()}.rzn"
    v.objects[name] = data.data
    v.refused[name] = "block"
    # What can be listed, and does not hold what it says.
    few = make("with more entries than it says", "", record={11: [0, 0]})
    v.walks[few.object] = "block"
    root = make("with another root", "", record={10: [bytes(32), 0, 2, 0]})
    v.lost[root.object] = {b"": "block"}
    beyond = make("with a root at a piece that is not there", "", record={10: [bytes(32), 0, 1, 900]})
    v.lost[beyond.object] = {b"": "block"}
    withheld = make("whose heads are not there", "", record={7: bytes([7]) * 16})
    v.warnings[withheld.object] = ["heads"]
    orphan = make("whose parent is not there", "", record={6: [bytes(16), bytes(32)], 19: 2})
    v.warnings[orphan.object] = ["parent"]
    _unlisted(v, two, host, keyring)


def _unlisted(v: VaultMaker, two: Edition, host: Host, keyring: list[Edition]) -> None:
    """A snapshot whose XREF lacks an archive that a node of another archive refers to."""
    epoch = two.epochs[0]
    v.data(host, "unlisted", epoch, [b"what is not listed"])
    inside = folder({b"x": file(b"what is not listed")})
    v.snapshot(host, "lists", epoch, folder({b"inside": inside}), keyring, sequence=50, set_name="lists", heads=[])
    options = {"hooks": {"rows": lambda rows: [row for row in rows if row[1] == 2]}}
    tree = folder({b"inside": inside, b"y": file()})
    made = v.snapshot(host, "omits", epoch, tree, keyring, sequence=51, set_name="omits", heads=[], options=options)
    v.lost[made.object] = {b"inside": "block"}


# --- vaults that do not open ---------------------------------------------------------------------


def closed(name: str, expected: str, description: str) -> Callable[[Callable[[VaultMaker, Edition], Any]], None]:
    """A vault of a few editions that its owner cannot open."""

    def register(fill: Callable[[VaultMaker, Edition], Any]) -> None:
        def build(v: VaultMaker) -> None:
            fill(v, begin(v, "host")[0])
            v.opening(ALICE, expected=expected)

        vault(f"edition-{name}", description)(build)

    return register


def boxed(name: str, expected: str, description: str, box: str, change: Callable[[Any], Any]) -> None:
    """A contradiction inside a box."""
    closed(name, expected, description)(lambda v, two: v.edition([two], hooks={box: change}))


closed("feature", "unsupported", "the newest edition needs a feature that is not known")(
    lambda v, two: v.edition([two], hooks={"record": lambda r: {**r, 3: [7]}})
)
closed("version", "unsupported", "the newest edition is of another version, and of a form that nobody knows")(
    lambda v, two: v.edition([two], hooks={"record": lambda r: {**{k: r[k] for k in (1, 3, 6)}, 2: [1, 0], 4: "new"}})
)
boxed(
    "key",
    "key",
    "a private key that does not give its public key",
    "read box",
    lambda b: {**b, 1: [[b[1][0][0], bytes(32), b[1][0][2]]]},
)
boxed("key-browse", "key", "likewise, of browsing", "read box", lambda b: {**b, 1: [[*b[1][0][:2], bytes(32)]]})
boxed("box-host", "key", "a box without a host", "read box", lambda b: {**b, 2: []})
boxed("box-epoch", "key", "a box with an epoch twice", "read box", lambda b: {**b, 1: b[1] * 2})
boxed("box-owner", "key", "a box without its owner", "read box", lambda b: {**b, 3: []})
boxed("box-owner-removed", "key", "an owner who is removed", "read box", lambda b: {**b, 3: [[*b[3][0][:2], 2, ""]]})
boxed("box-order", "key", "people out of order", "read box", lambda b: {**b, 3: [[b"\xff" * 64, 1, 1, ""], *b[3]]})
boxed("box-form", "key", "a box that is no map", "read box", lambda _: [])
boxed("box-label", "limit", "a label of 256 bytes", "read box", lambda b: {**b, 2: [[*b[2][0][:2], "x" * 256]]})
closed("box-moved", "key", "the box of another edition")(
    lambda v, two: v.edition([two], hooks={"record": lambda r: {**r, 10: r[11]}})
)
closed("heads-host", "header", "two heads with different keys of one host")(lambda v, two: _heads(v, two, seed=True))
closed("heads-id-key", "key", "two heads with different id keys of one host")(lambda v, two: _heads(v, two, seed=False))


def _heads(v: VaultMaker, two: Edition, *, seed: bool) -> None:
    new = v.host("new")
    twin = Host("new", new.host_id, v.random(32) if seed else new.seed, new.id_key if seed else v.random(32))
    v.edition([two], hosts={new: ("new", ACTIVE)})
    v.edition([two], hosts={twin: ("new", ACTIVE)})


@closed("heads-epoch", "header", "two heads with different keys of one epoch")
def _heads_epoch(v: VaultMaker, two: Edition) -> None:
    one = v.epoch(2)
    v.edition([two], epochs=[one])
    v.edition([two], epochs=[one._replace(read=v.random(32))])


@vault("edition-missing", "a parent that is missing; two heads of different rights; a person who was removed in one")
def _missing(v: VaultMaker) -> None:
    bob, carol = v.person("bob"), v.person("carol")
    two, (host,) = begin(v, "host")
    three = v.edition([two], people={bob: (BROWSE, PRESENT, "Bob")}, stored=False)
    v.edition([three], people={bob: (READ, PRESENT, "Robert"), carol: (READ, PRESENT, "Carol")})
    four = v.edition([three], hosts={host: ("a host that is retired", RETIRED)}, people={bob: (BROWSE, REMOVED, "Bob")})
    v.edition([four], people={carol: (BROWSE, REMOVED, "")})
    v.opening(ALICE, right="read", missing=[three.digest.hex()])
    v.opening(bob, right="read", missing=[three.digest.hex()])
    v.opening(carol, right="read", missing=[three.digest.hex()])
    v.opening(ALICE, right="read", pin=[3, [three.digest.hex()]], missing=[three.digest.hex()])


@vault("two-vaults", "editions of two vaults of one owner in one folder")
def _two_vaults(v: VaultMaker) -> None:
    begin(v)
    mine, v.vault_id = v.vault_id, v.random(16)
    begin(v)
    v.opening(ALICE, expected="signature")
    v.opening(ALICE, right="read", vault_id=mine.hex())
    v.vault_id = mine


# --- sidecars ------------------------------------------------------------------------------------


def entry(v: VaultMaker, seen: Seen) -> dict[str, Any]:
    """An entry as it should be read."""
    e = seen.entry
    return {
        "path": seen.path.hex(),
        "printable": seen.path.decode(errors="backslashreplace"),
        "kind": int(e.kind),
        "mode": e.mode,
        "uid": e.uid,
        "gid": e.gid,
        "user": e.user.hex(),
        "group": e.group.hex(),
        "mtime_ns": e.mtime_ns,
        "size": e.size if e.kind is Kind.FILE else None,
        "target": e.target.hex() if e.kind is Kind.SYMLINK else None,
        "device": list(e.device) if e.device is not None else None,
        "link_group": e.link_group.hex() if e.link_group is not None else None,
        "marks": e.marks,
        "content_id": e.content_id.hex() if e.content_id is not None else None,
        "blake3": crypto.digest(seen.item.content).hex() if seen.item.content is not None else None,
        "content": v.failure(seen.content) if e.kind is Kind.FILE and not e.marks & 2 else None,
        "xattrs": [[name.hex(), value.hex()] for name, value in seen.item.attributes],
        "attributes": v.failure(seen.attributes),
    }


def snapshot(v: VaultMaker, one: Written) -> dict[str, Any]:
    """A snapshot as it should be read."""
    r = one.record
    seen, lost = v.expected(one)
    return {
        "object": one.object,
        "archive_id": one.archive_id.hex(),
        "host_id": r[2].hex(),
        "label": r[3],
        "set": r[4],
        "sequence": r[5],
        "parent": [item.hex() for item in r[6]] if 6 in r else None,
        "heads": [r[7][at : at + 16].hex() for at in range(0, len(r[7]), 16)],
        "mode": r[8],
        "times": r[9],
        "totals": r[11],
        "sources": [[name.hex(), origin.hex(), kind] for name, origin, kind in r[12]],
        "tags": r[13],
        "counts": r[14],
        "moves": [[old.hex(), new.hex(), kind] for old, new, kind in r.get(15, [])],
        "deletions": [path.hex() for path in r.get(16, [])],
        "problems": [[path.hex(), word, text] for path, word, text in r.get(17, [])],
        "conflicts": [[path.hex(), answer] for path, answer in r.get(18, [])],
        "parent_state": r[19],
        "flags": r[20],
        "references": [[row[0].hex(), *row[1:]] for row in one.references],
        "warnings": v.warnings.get(one.object, []),
        "walk": v.walks.get(one.object, "success"),
        "entries": [entry(v, x) for x in sorted(seen, key=lambda x: x.path)] if one.object not in v.walks else [],
        "lost": {path.hex(): failure for path, failure in sorted(lost.items())},
    }


def sidecar(v: VaultMaker) -> dict[str, Any]:
    """The description of one vault."""
    people = {**v.people, "mallory": MALLORY}
    used = [name for name in people if any(name in row["people"] for row in v.openings)]
    return {
        "name": v.name,
        "description": v.description,
        "vault_id": v.vault_id.hex(),
        "owner": v.owner.recipient.hex(),
        "people": {
            name: {"seed": one.seed.hex(), "x25519": one.x25519.hex(), "recipient": one.recipient.hex()}
            for name, one in people.items()
            if name in used
        },
        "openings": v.openings,
        "refused": dict(sorted(v.refused.items())),
        "tombstones": dict(sorted(v.tombstones.items())),
        "snapshots": [snapshot(v, one) for one in sorted(v.snapshots, key=lambda x: x.object)],
    }


__all__ = ["VAULTS", "sidecar"]
