"""Makes vaults for the vectors: editions, data archives, snapshots (spec/vault.md), legitimate or with faults.

It goes by what a writer does: what was stored before is referred to, by id; nothing is ever changed afterwards, but by
scenarios that damage it. All randomness comes from the vault's name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final, NamedTuple

from rozenfmt.format import cbor, crypto, nodes
from rozenfmt.format.nodes import Entry, InnerNode, Kind, Part
from rozenfmt.format.registry import Suite
from spec.vectors.maker import Hook, Maker, Random

EDITION_MAGIC: Final = bytes.fromhex("89525A450D0A1A0A")
TOMBSTONE_MAGIC: Final = bytes.fromhex("89525A470D0A1A0A")
TIME: Final = 1_790_000_000_000_000_000
READ, BROWSE = 1, 2
PRESENT, REMOVED = 1, 2
ACTIVE, RETIRED = 1, 2


class Person:
    """Somebody with keys.

    Args:
        name: Seeds them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.seed = Random(f"person {name}")(32)
        self.x25519 = crypto.derive("identity x25519", self.seed)  # as the library's identities do
        self.ed25519 = crypto.derive("identity ed25519", self.seed)
        self.recipient = crypto.x25519_public(self.x25519) + crypto.ed25519_public(self.ed25519)


class Loc(NamedTuple):
    """A piece of an archive."""

    archive: bytes
    block: int
    piece: int
    length: int


class Epoch(NamedTuple):
    """Private keys of an epoch."""

    number: int
    id: bytes
    read: bytes
    browse: bytes


@dataclass(eq=False)
class Host:
    """A host, and what it remembers: where contents, nodes and attributes are."""

    name: str
    host_id: bytes
    seed: bytes
    id_key: bytes
    contents: dict[bytes, Loc] = field(default_factory=dict)
    nodes: dict[bytes, Loc] = field(default_factory=dict)
    attributes: dict[bytes, Loc] = field(default_factory=dict)

    def forget(self) -> None:
        """Lose the memory."""
        self.contents, self.nodes, self.attributes = {}, {}, {}


@dataclass(frozen=True)
class Edition:
    """An edition as it was written."""

    raw: bytes
    digest: bytes
    number: int
    epochs: tuple[Epoch, ...]
    hosts: Mapping[Host, tuple[str, int]]
    people: Mapping[Person, tuple[int, int, str]]


@dataclass(eq=False)
class Item:
    """An entry of a directory, with what belongs to it."""

    kind: Kind
    content: bytes | None = None
    parts: Sequence[bytes | int] = ()  # contents, and lengths of holes
    tables: Sequence[int] = ()  # parts in each sub-table
    children: dict[bytes, Item] = field(default_factory=dict)
    split: Sequence[bytes] = ()  # first names of the further leaves below an inner node
    attributes: Sequence[tuple[bytes, bytes]] = ()
    more: dict[str, Any] = field(default_factory=dict)  # other fields of the entry


def file(content: bytes = b"", **more: Any) -> Item:
    """A file that is one piece."""
    return Item(Kind.FILE, content, attributes=more.pop("attributes", ()), more=more)


def big(*parts: bytes | int, tables: Sequence[int] = (), **more: Any) -> Item:
    """A file in parts; numbers are holes."""
    content = b"".join(bytes(part) if isinstance(part, int) else part for part in parts)
    marks = 4 if any(isinstance(part, int) for part in parts) else 0
    return Item(Kind.FILE, content, parts, tables, attributes=more.pop("attributes", ()), more={"marks": marks, **more})


def folder(children: dict[bytes, Item], **more: Any) -> Item:
    """A directory."""
    return Item(
        Kind.DIRECTORY,
        children=children,
        split=more.pop("split", ()),
        attributes=more.pop("attributes", ()),
        more={"mode": 0o755, **more},
    )


def special(kind: Kind, **more: Any) -> Item:
    """A symlink and the like."""
    return Item(kind, attributes=more.pop("attributes", ()), more=more)


@dataclass
class Seen:
    """An entry of a snapshot, and what a reader needs for it."""

    path: bytes
    entry: Entry
    item: Item
    content: tuple[Loc, ...] = ()
    attributes: tuple[Loc, ...] = ()


@dataclass
class Written:
    """A snapshot as it was written."""

    object: str
    archive_id: bytes
    host: Host
    record: dict[int, Any]
    references: list[tuple[bytes, int, int, int]]
    foot: bytes
    seen: list[Seen]
    directories: dict[bytes, list[tuple[Loc, bytes | None]]]  # nodes of each directory, and the leaf's first name
    maker: Maker


class VaultMaker:
    """One vault.

    Args:
        name: Of the vector.
        description: What it is about.
        owner: Who owns it.
    """

    def __init__(self, name: str, description: str, owner: Person) -> None:
        self.name = name
        self.description = description
        self.owner = owner
        self.random = Random(f"vault {name}")
        self.vault_id = self.random(16)
        self.objects: dict[str, bytes] = {}
        self.kinds: dict[bytes, int] = {}
        self.lengths: dict[bytes, int] = {}
        self.below: dict[Loc, frozenset[Loc]] = {}
        self.hosts: dict[str, Host] = {}
        self.people: dict[str, Person] = {owner.name: owner}
        self.snapshots: list[Written] = []
        self.clock = TIME
        # What a reader must find.
        self.openings: list[dict[str, Any]] = []
        self.refused: dict[str, str] = {}
        self.damaged: dict[bytes, str] = {}  # archives
        self.wrong: dict[Loc, str] = {}  # pieces
        self.lost: dict[str, dict[bytes, str]] = {}  # directories, by object; besides those that damage explains
        self.walks: dict[str, str] = {}
        self.warnings: dict[str, list[str]] = {}
        self.tombstones: dict[str, str] = {}

    def time(self) -> int:
        """A second later."""
        self.clock += 1_000_000_000
        return self.clock

    # --- editions -------------------------------------------------------------------------------

    def host(self, name: str) -> Host:
        """A new host."""
        self.hosts[name] = Host(name, self.random(16), self.random(32), self.random(32))
        return self.hosts[name]

    def person(self, name: str) -> Person:
        """A person."""
        return self.people.setdefault(name, Person(name))

    def epoch(self, number: int) -> Epoch:
        """A new epoch."""
        return Epoch(number, self.random(8), self.random(32), self.random(32))

    def edition(
        self,
        parents: Sequence[Edition],
        *,
        epochs: Sequence[Epoch] = (),
        hosts: Mapping[Host, tuple[str, int]] | None = None,
        people: Mapping[Person, tuple[int, int, str]] | None = None,
        owner: Person | None = None,
        hooks: dict[str, Hook] | None = None,
        stored: bool = True,
    ) -> Edition:
        """The next edition: rows of the parents, and these.

        Args:
            parents: Editions that it replaces.
            epochs: New ones.
            hosts: New rows, or changed ones: label and state.
            people: Likewise: right, state and label.
            owner: Somebody else.
            hooks: Changes of ``record``, ``read box``, ``browse box``, ``signature`` and ``raw``.
            stored: Whether it becomes an object.
        """
        owner = owner or self.owner
        hook = (hooks or {}).get
        all_epochs = tuple(sorted({*(e for one in parents for e in one.epochs), *epochs}))
        all_hosts = {**{k: v for one in parents for k, v in one.hosts.items()}, **(hosts or {})}
        all_people = {**{k: v for one in parents for k, v in one.people.items()}, **(people or {})}
        number = 1 + max((one.number for one in parents), default=0)
        keys = {READ: self.random(32), BROWSE: self.random(32)}
        by_id = sorted(all_epochs, key=lambda e: e.id)
        rows = sorted((host.host_id, host.id_key, label) for host, (label, _) in all_hosts.items())
        boxes = {
            READ: {
                1: [[e.id, e.read, e.browse] for e in by_id],
                2: [list(row) for row in rows],
                3: [[who.recipient, *row] for who, row in sorted(all_people.items(), key=lambda x: x[0].recipient)],
            },
            BROWSE: {1: [[e.id, e.browse] for e in by_id], 2: [[row[0], row[2]] for row in rows]},
        }
        sealed = {}
        for right, name in ((READ, "read box"), (BROWSE, "browse box")):
            plain = cbor.dumps((hook(name) or _same)(boxes[right]))
            aad = b"rozenfmt v0 edition box" + self._place(right, number)
            sealed[right] = b"".join(crypto.seal(Suite(1), keys[right], self.random(24), plain, aad))
        stanzas = []
        for who, (right, state, _) in sorted(all_people.items(), key=lambda x: x[0].name):
            if state == PRESENT:
                info = b"rozenfmt v0 edition stanza" + self._place(right, number)
                stanzas.append([right, crypto.hpke_seal(who.recipient[:32], info, keys[right], self.random)])
        record = {
            1: self.vault_id,
            2: [0, 1],
            3: [],
            4: number,
            5: sorted(one.digest for one in parents),
            6: owner.recipient,
            7: [[e.number, e.id, crypto.x25519_public(e.read), crypto.x25519_public(e.browse)] for e in all_epochs],
            8: [
                [host.host_id, crypto.ed25519_public(host.seed), state]
                for host, (_, state) in sorted(all_hosts.items(), key=lambda x: x[0].host_id)
            ],
            9: stanzas,
            10: sealed[READ],
            11: sealed[BROWSE],
            12: self.time(),
        }
        record = (hook("record") or _same)(record)
        body = cbor.dumps(record)
        signature = crypto.sign(owner.ed25519, b"rozenfmt v0 edition" + record[1] + crypto.digest(body))
        signature = (hook("signature") or _same)(signature)
        raw = EDITION_MAGIC + struct.pack("<I", len(body)) + body + signature
        raw = (hook("raw") or _same)(raw)
        if stored:
            self.objects[f"editions/{number:08d}-{self.random(8).hex()}"] = raw
        return Edition(raw, crypto.digest(raw), number, all_epochs, all_hosts, all_people)

    def refuse(self, failure: str) -> None:
        """Readers refuse the object that was stored last."""
        self.refused[list(self.objects)[-1]] = failure

    def _place(self, right: int, number: int) -> bytes:
        return bytes([right]) + self.vault_id + number.to_bytes(8, "little")

    def tombstone(self, host: Host, archive_id: bytes, foot: bytes, why: str, *, by: Person | None = None) -> None:
        """The owner's word, or somebody else's, that an archive was deleted."""
        body = cbor.dumps({1: self.vault_id, 2: host.host_id, 3: archive_id, 4: foot, 5: self.time(), 6: why})
        message = b"rozenfmt v0 tombstone" + self.vault_id + crypto.digest(body)
        signature = crypto.sign((by or self.owner).ed25519, message)
        name = f"gone/{host.host_id.hex()}/{archive_id.hex()}"
        self.objects[name] = TOMBSTONE_MAGIC + struct.pack("<I", len(body)) + body + signature
        self.tombstones[name] = "success" if by is None else "signature"

    def opening(self, *people: Person, expected: str = "success", **more: Any) -> None:
        """How the vault opens for somebody."""
        self.openings.append({"people": [one.name for one in people], "expected": expected, **more})

    # --- archives -------------------------------------------------------------------------------

    def maker(self, host: Host, name: str, kind: int, epoch: Epoch, **more: Any) -> Maker:
        """An archive of the vault."""
        options: dict[str, Any] = {
            "kind": kind,
            "id_key": host.id_key,
            "signed": True,
            "seed": host.seed,
            "recipients": ((READ, epoch.read), (BROWSE, epoch.browse)),
            "padding": (16, 32, 16),
            **more,
        }
        return Maker(f"vault {self.name}, {host.name}, {kind}, {name}", **options)

    def data(
        self, host: Host, name: str, epoch: Epoch, *packs: Sequence[bytes], arena: bool = False, **more: Any
    ) -> Maker:
        """A data archive with these contents, a ``PACK`` for each row."""
        m = self.maker(host, name, 1, epoch, **more)
        for pack in packs:
            for content, place in zip(pack, m.pack(*pack), strict=True):
                loc = Loc(m.archive_id, *place, len(content))
                host.contents[content] = loc
                self.below[loc] = frozenset({loc})
        m.checkpoint()
        m.finish()
        where = "arena" if arena else "data"
        self.objects[f"{where}/{host.host_id.hex()}/{m.archive_id.hex()}.rzn"] = m.data
        self.kinds[m.archive_id], self.lengths[m.archive_id] = 1, len(m.data)
        return m

    def snapshot(
        self, host: Host, name: str, epoch: Epoch, tree: Item, keyring: Iterable[Edition], **more: Any
    ) -> Written:
        """A snapshot; see ``Snapshot``."""
        return Snapshot(self, host, name, epoch, more.pop("options", {})).write(tree, keyring, **more)

    # --- what a reader must find ----------------------------------------------------------------

    def failure(self, locs: Iterable[Loc]) -> str:
        """What comes of reading these pieces."""
        for loc in sorted(locs):
            if loc.archive in self.damaged or loc in self.wrong:
                return self.damaged.get(loc.archive) or self.wrong[loc]
        return "success"

    def expected(self, one: Written) -> tuple[list[Seen], dict[bytes, str]]:
        """Entries that a walk gives, and directories that are lost in part or as a whole."""
        lost = dict(self.lost.get(one.object, {}))
        gone: list[tuple[bytes, bytes, bytes | None]] = [(path, b"", None) for path in lost]
        for path, rows in one.directories.items():
            for number, (loc, first) in enumerate(rows):
                failure = self.failure([loc])
                if failure != "success":
                    lost[path] = failure
                    following = rows[number + 1][1] if first is not None and number + 1 < len(rows) else None
                    gone.append((path, first or b"", following))
        found = []
        hidden: set[bytes] = set()
        for seen in one.seen:
            parent, _, name = seen.path.rpartition(b"/")
            away = any(path == parent and first <= name and (end is None or name < end) for path, first, end in gone)
            if away or parent in hidden:
                hidden.add(seen.path)
            else:
                found.append(seen)
        return found, {path: failure for path, failure in lost.items() if path not in hidden}


class Snapshot:
    """A snapshot that is being written."""

    def __init__(self, vault: VaultMaker, host: Host, name: str, epoch: Epoch, options: dict[str, Any]) -> None:
        self.vault = vault
        self.host = host
        self.m = vault.maker(host, name, 2, epoch, **options)
        self.numbers: list[bytes] = []
        self.pending: list[bytes] = []
        self.seen: list[Seen] = []
        self.directories: dict[bytes, list[tuple[Loc, bytes | None]]] = {}

    def number(self, loc: Loc) -> int:
        """Archive number."""
        if loc.archive == self.m.archive_id:
            return 0
        if loc.archive not in self.numbers:
            self.numbers.append(loc.archive)
        return 1 + self.numbers.index(loc.archive)

    def place(self, node: bytes, below: Iterable[Loc]) -> Loc:
        """Put a node into a ``TREE`` block."""
        loc = Loc(self.m.archive_id, len(self.m.blocks), len(self.pending), len(node))
        self.vault.below[loc] = frozenset(one for x in below for one in self.vault.below[x]) | {loc}
        self.pending.append(node)
        if len(self.pending) == 4:
            self.flush()
        return loc

    def flush(self) -> None:
        """Write the block."""
        if self.pending:
            self.m.tree(*self.pending)
            self.pending = []

    def known(self, ident: bytes, make: Callable[[], tuple[bytes, list[Loc]]]) -> Loc:
        """Where a node of this id is; stored now, if it is not yet."""
        if ident not in self.host.nodes:
            node, below = make()
            self.host.nodes[ident] = self.place(node, below)
        return self.host.nodes[ident]

    # --- contents -------------------------------------------------------------------------------

    def content(self, item: Item) -> Loc:
        """Where a content is."""
        if not item.parts:
            assert item.content is not None
            return self.host.contents[item.content]
        rows: list[tuple[int, Loc | None, bytes | None]] = []
        for part in item.parts:
            if isinstance(part, int):
                rows.append((part, None, None))
            else:
                rows.append((len(part), self.host.contents[part], self.m.ident(part)))
        if not item.tables:
            return self.table(rows)[1]
        above = []
        for count in item.tables:
            ident, loc = self.table(rows[:count])
            above.append((sum(row[0] for row in rows[:count]), loc, ident))
            rows = rows[count:]
        return self.table(above, inner=True)[1]

    def table(self, rows: Sequence[tuple[int, Loc | None, bytes | None]], *, inner: bool = False) -> tuple[bytes, Loc]:
        """A part table."""

        def build() -> tuple[bytes, bytes]:
            parts = [
                Part(0, length, ident, loc.block, loc.piece, self.number(loc)) if loc else Part(0, length, None, 0, 0)
                for length, loc, ident in rows
            ]
            return self.m.table(parts, inner=inner)

        before = list(self.numbers)
        ident = build()[1]
        if ident in self.host.nodes:
            self.numbers = before  # nothing is referred to but the table
        return ident, self.known(ident, lambda: (build()[0], [loc for _, loc, _ in rows if loc is not None]))

    def attributes(self, item: Item) -> None:
        """Write the attributes below an item that are not stored yet."""
        fresh: list[Sequence[tuple[bytes, bytes]]] = []
        todo = [item]
        while todo:
            one = todo.pop()
            todo += one.children.values()
            raw = _attributes(one)
            if raw and raw not in self.host.attributes and one.attributes not in fresh:
                fresh.append(one.attributes)
        if fresh:
            for pairs, (_, block, piece) in zip(fresh, self.m.attributes(*fresh), strict=True):
                raw = cbor.dumps([list(pair) for pair in pairs])
                loc = self.host.attributes[raw] = Loc(self.m.archive_id, block, piece, len(raw))
                self.vault.below[loc] = frozenset({loc})

    # --- directories ----------------------------------------------------------------------------

    def entry(self, name: bytes, item: Item, path: bytes) -> tuple[Entry, list[Loc]]:
        """An entry without archive numbers, and what it refers to: content or node first, then attributes."""
        values = {"mode": 0o644, "uid": 1000, "gid": 100, "user": b"me", "group": b"users", "mtime_ns": TIME}
        entry = Entry(name, item.kind, **{**values, **item.more})
        seen = Seen(path, entry, item)
        self.seen.append(seen)
        below = []
        if item.kind is Kind.FILE and item.content is not None:
            entry.size = len(item.content)
        if entry.has_content:
            assert item.content is not None
            entry.content_id = self.m.ident(item.content)
            below.append(self.content(item))
            seen.content = tuple(sorted(self.vault.below[below[0]]))
        elif item.kind is Kind.DIRECTORY:
            entry.child, loc = self.directory(path, item)
            below.append(loc)
        if below:
            entry.block, entry.piece = below[0].block, below[0].piece
        if item.attributes:
            raw = _attributes(item)
            loc = self.host.attributes[raw]
            below.append(loc)
            seen.attributes = (loc,)
            entry.xattr_ref = (self.m.ident(raw), loc.block, loc.piece)
        return entry, below

    def directory(self, path: bytes, item: Item) -> tuple[bytes, Loc]:
        """Store a directory, if its node is not stored yet."""
        rows = [
            self.entry(name, child, path + b"/" + name if path else name)
            for name, child in sorted(item.children.items())
        ]
        cuts = [0, *(next(n for n, row in enumerate(rows) if row[0].name == first) for first in item.split), len(rows)]
        nodes_ = self.directories[path] = []
        children = []
        for start, end in pairwise(cuts):
            ident, loc = self.leaf(rows[start:end])
            first = rows[start][0].name if rows else b""
            nodes_.append((loc, first if item.split else None))
            children.append((first, end - start, ident, loc))
        if not item.split:
            return children[0][2], children[0][3]

        def build(*, final: bool) -> tuple[bytes, bytes]:
            found = [
                InnerNode(first, count, one, loc.block, loc.piece, self.number(loc) if final else 0)
                for first, count, one, loc in children
            ]
            return self.m.inner(b"", found)

        ident = build(final=False)[1]
        loc = self.known(ident, lambda: (build(final=True)[0], [child[3] for child in children]))
        nodes_.insert(0, (loc, None))
        return ident, loc

    def leaf(self, rows: Sequence[tuple[Entry, list[Loc]]]) -> tuple[bytes, Loc]:
        """Store a leaf."""
        entries = [row[0] for row in rows]
        ident = crypto.digest(nodes.directory_record(entries))

        def make() -> tuple[bytes, list[Loc]]:
            for entry, below in rows:
                if entry.has_content or entry.child is not None:
                    entry.archive = self.number(below[0])
                if entry.xattr_ref is not None:
                    entry.xattr_archive = self.number(below[-1])
            return self.m.leaf(b"", entries, name="leaf")[0], [loc for _, below in rows for loc in below]

        return ident, self.known(ident, make)

    # --- the whole ------------------------------------------------------------------------------

    def write(
        self,
        tree: Item,
        keyring: Iterable[Edition],
        *,
        sequence: int,
        set_name: str,
        mode: int = 1,
        parent: Written | None = None,
        heads: Sequence[bytes] | None = None,
        state: int | None = None,
        moves: Sequence[tuple[bytes, bytes, int]] = (),
        deleted: Sequence[bytes] = (),
        problems: Sequence[tuple[bytes, str, str]] = (),
        conflicts: Sequence[tuple[bytes, int]] = (),
        tags: Sequence[str] = (),
        flags: int = 0,
        label: str = "",
        record: dict[int, Any] | None = None,
        sources: Sequence[tuple[bytes, bytes, int]] = (),
        named: int | None = None,
    ) -> Written:
        """Write everything, and make it an object of the vault.

        ``record`` changes keys of ``SNAP``, ``named`` the sequence number in the name.
        """
        vault, m, host = self.vault, self.m, self.host
        begun = vault.time()
        m.keyring(*(one.raw for one in keyring))
        self.attributes(tree)
        ident, root = self.directory(b"", tree)
        self.flush()
        number = self.number(root)
        live: dict[bytes, int] = dict.fromkeys(self.numbers, 0)
        for loc in sorted(vault.below[root]):
            if loc.archive != m.archive_id:
                live[loc.archive] = live.get(loc.archive, 0) + loc.length
        references = [(one, vault.kinds[one], vault.lengths[one], count) for one, count in live.items()]
        references = m.hook("rows", references)
        m.references(references)
        if state is None:
            state = 1 if parent is None else 2
        before = [one.archive_id for one in vault.snapshots if one.host is host and one.record[5] == sequence - 1]
        values = {
            1: vault.vault_id,
            2: host.host_id,
            3: label or host.name,
            4: set_name,
            5: sequence,
            6: [parent.archive_id, parent.foot] if parent is not None and state == 2 else None,
            7: b"".join(sorted(before if heads is None else heads)),
            8: mode,
            9: [begun, vault.time()],
            10: [ident, number, root.block, root.piece],
            11: [len(self.seen), sum(x.entry.size for x in self.seen if x.entry.has_content)],
            12: [list(row) for row in sources] or [[name, b"/srv/" + name, 1] for name in sorted(tree.children)],
            13: sorted(tags),
            14: self.counts(parent if state == 2 else None, moves, deleted, problems, conflicts),
            15: [list(row) for row in moves] or None,
            16: list(deleted) or None,
            17: [list(row) for row in problems] or None,
            18: [list(row) for row in conflicts] or None,
            19: state,
            20: flags,
            **(record or {}),
        }
        values = {key: value for key, value in values.items() if value is not None}
        m.snapshot(values)
        m.finish()
        name = f"meta/{host.host_id.hex()}/{named or sequence:010d}-{m.archive_id.hex()}.rzn"
        vault.objects[name] = m.data
        vault.kinds[m.archive_id], vault.lengths[m.archive_id] = 2, len(m.data)
        foot = m.blocks[-1].whole
        written = Written(name, m.archive_id, host, values, references, foot, self.seen, self.directories, m)
        vault.snapshots.append(written)
        return written

    def counts(
        self,
        parent: Written | None,
        moves: Sequence[tuple[bytes, bytes, int]],
        deleted: Sequence[bytes],
        problems: Sequence[tuple[bytes, str, str]],
        conflicts: Sequence[tuple[bytes, int]],
    ) -> list[int]:
        """Key 14."""
        before = {one.path: one.entry for one in parent.seen} if parent is not None else {}
        new = changed = metadata = unchanged = directories = 0
        for one in self.seen:
            if one.entry.kind is Kind.DIRECTORY:
                directories += 1
                continue
            path = one.path
            for old, now, _ in moves:
                if path == now or path.startswith(now + b"/"):
                    path = old + path[len(now) :]
            entry = before.get(path)
            if entry is None:
                new += 1
            elif (entry.kind, entry.size, entry.content_id) != (one.entry.kind, one.entry.size, one.entry.content_id):
                changed += 1
            elif _facts(entry) != _facts(one.entry):
                metadata += 1
            else:
                unchanged += 1
        return [
            new, changed, metadata, len(moves), len(deleted), unchanged, len(problems), len(conflicts), directories
        ]  # fmt: skip


def _facts(entry: Entry) -> Entry:
    """An entry without where things are, and without its name."""
    ref = entry.xattr_ref
    return replace(
        entry, name=b"", block=0, piece=0, archive=0, xattr_archive=0, xattr_ref=(ref[0], 0, 0) if ref else None
    )


def _attributes(item: Item) -> bytes:
    return cbor.dumps([list(pair) for pair in item.attributes]) if item.attributes else b""


def _same(value: Any) -> Any:
    return value
