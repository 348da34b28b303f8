"""The second reader of vaults (spec/vault.md): editions, snapshots, trees across archives, contents.

vault = Vault(objects, x25519_private=[...], owner=recipient)      # objects: bytes by name; SpecError if it stays shut
vault.snapshots, vault.refused                                     # by name of the object
for found in vault.walk(snapshot): ...                             # entries, and directories that are lost
vault.content(snapshot, found.entry)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from . import model as m
from . import primitives as p
from . import snapshots as s
from .model import Identities, SpecError, place, refuse
from .primitives import Malformed, Map, need
from .reader import RandomAccess

EDITION_MAGIC = bytes.fromhex("89525A450D0A1A0A")
TOMBSTONE_MAGIC = bytes.fromhex("89525A470D0A1A0A")
MAX_RECORD = 1_048_576
MAX_LABEL = 255

ID = "([0-9a-f]{32})"
NAMES = {
    "editions": re.compile("editions/([0-9]{8,})-([0-9a-f]{16})"),
    "meta": re.compile(f"meta/{ID}/([0-9]{{10,}})-{ID}[.]rzn"),
    "data": re.compile(f"data/{ID}/{ID}[.]rzn"),
    "arena": re.compile(f"arena/{ID}/{ID}[.]rzn"),
    "gone": re.compile(f"gone/{ID}/{ID}"),
}


def read_folder(path: Path) -> dict[str, bytes]:
    """All objects of a vault in a folder."""
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}


# ---------------------------------------------------------------- editions (section 3)


class Epoch(NamedTuple):
    number: int
    id: bytes
    read_public: bytes
    browse_public: bytes


class Host(NamedTuple):
    verify_key: bytes
    state: int


@dataclass
class Edition:
    digest: bytes
    vault_id: bytes
    number: int
    parents: list[bytes]
    owner: bytes
    epochs: list[Epoch]
    hosts: dict[bytes, Host]
    stanzas: list[tuple[int, bytes]]
    read_box: bytes
    browse_box: bytes
    made: int


def split_signed(raw: bytes, magic: bytes) -> tuple[bytes, bytes]:
    """Record and signature of an edition or a tombstone."""
    if raw[:8] != magic or len(raw) < 12:
        refuse("header", "vault 3.1", "wrong magic")
    n = int.from_bytes(raw[8:12], "little")
    if n > MAX_RECORD:
        refuse("limit", "vault 3.1", f"record of {n} bytes")
    if n == 0 or len(raw) != 12 + n + 64:
        refuse("header", "vault 3.1", "object of another length")
    return raw[12 : 12 + n], raw[12 + n :]


def parse_edition(raw: bytes, owner: bytes, vault_id: bytes | None = None) -> Edition:
    """In the order of section 3.1: form of keys 1, 2, 3, 6; owner and vault; signature; version; the rest."""
    body, signature = split_signed(raw, EDITION_MAGIC)
    with place("header", "vault 3.1"):
        record = p.cbor_map(body)
        own_vault = p.is_bytes(need(record, 1), 16)
        version = [p.is_uint(number) for number in p.is_array(need(record, 2), 2)]
        features = [p.is_uint(number) for number in p.is_array(need(record, 3))]
        if not p.ascending(features):
            raise Malformed("features are not ascending")
        named = p.is_bytes(need(record, 6), 64)
    if named != owner:
        refuse("signature", "vault 3.3", "edition of another owner")
    if vault_id is not None and own_vault != vault_id:
        refuse("signature", "vault 3.3", "edition of another vault")
    if not p.ed25519_strict(owner[32:], signature, b"rozenfmt v0 edition" + own_vault + p.h(body)):
        refuse("signature", "vault 3.3", "wrong signature")
    if version != [0, 1] or features:
        refuse("unsupported", "vault 3.3", f"version {version}, features {features}")
    with place("header", "vault 3.1"):
        return _edition(record, p.h(raw), own_vault, owner)


def _edition(record: Map, digest: bytes, vault_id: bytes, owner: bytes) -> Edition:
    parents = [p.is_bytes(parent, 32) for parent in p.is_array(need(record, 5))]
    number = p.is_uint(need(record, 4), 1)
    if not p.ascending(parents) or (number == 1) != (not parents):
        raise Malformed("parents are not ascending, or contradict the number")
    epochs = []
    for row in p.is_array(need(record, 7)):
        n, epoch_id, read, browse = p.is_array(row, 4)
        epochs.append(Epoch(p.is_uint(n, 1), p.is_bytes(epoch_id, 8), p.is_bytes(read, 32), p.is_bytes(browse, 32)))
    keys = [epoch[:2] for epoch in epochs]
    if not epochs or not p.ascending(keys) or len({epoch.id for epoch in epochs}) != len(epochs):
        raise Malformed("epochs are missing, twice, or not ascending")
    hosts: dict[bytes, Host] = {}
    ids = []
    for row in p.is_array(need(record, 8)):
        host_id, verify_key, state = p.is_array(row, 3)
        ids.append(p.is_bytes(host_id, 16))
        hosts[ids[-1]] = Host(p.is_bytes(verify_key, 32), p.is_uint(state, 1, 2))
    if not p.ascending(ids):
        raise Malformed("hosts are not ascending")
    stanzas = []
    for row in p.is_array(need(record, 9)):
        right, wrapped = p.is_array(row, 2)
        stanzas.append((p.is_uint(right, 1, 2), p.is_bytes(wrapped, 80)))
    if not stanzas:
        raise Malformed("no stanzas")
    boxes = p.is_bytes(need(record, 10)), p.is_bytes(need(record, 11))
    made = p.is_uint(need(record, 12))
    return Edition(digest, vault_id, number, parents, owner, epochs, hosts, stanzas, *boxes, made)


@dataclass
class Box:
    """An opened read box or browse box."""

    right: int
    epochs: dict[bytes, tuple[bytes | None, bytes]]  # read and browse private key
    hosts: dict[bytes, tuple[bytes | None, str]]  # id key and label
    people: list[tuple[bytes, int, int, str]]


def open_box(edition: Edition, private: Sequence[bytes]) -> Box | None:
    for wanted in (1, 2):
        suffix = bytes([wanted]) + edition.vault_id + edition.number.to_bytes(8, "little")
        for right, wrapped in edition.stanzas:
            if right != wanted:
                continue
            if private and p.low_order(wrapped[:32]):
                refuse("header", "vault 3.2", "public key gives an all-zero shared secret")
            for one in private:
                key = p.hpke_open(one, b"rozenfmt v0 edition stanza" + suffix, wrapped)
                if key is not None:
                    sealed = edition.read_box if wanted == 1 else edition.browse_box
                    with place("key", "vault 3.2"):
                        plain = p.open_section(1, key, sealed, b"rozenfmt v0 edition box" + suffix)
                        return _box(edition, wanted, p.cbor_map(plain))
    return None


def _label(value: p.Value) -> str:
    label = p.is_text(value)
    if len(label.encode()) > MAX_LABEL:
        refuse("limit", "vault 3.2", "label is too long")
    return label


def _box(edition: Edition, right: int, record: Map) -> Box:
    box = Box(right, {}, {}, [])
    epoch_ids, host_ids = [], []
    for row in p.is_array(need(record, 1)):
        items = p.is_array(row, 4 - right)
        epoch_ids.append(p.is_bytes(items[0], 8))
        read = p.is_bytes(items[1], 32) if right == 1 else None
        box.epochs[epoch_ids[-1]] = (read, p.is_bytes(items[-1], 32))
    for row in p.is_array(need(record, 2)):
        items = p.is_array(row, 4 - right)
        host_ids.append(p.is_bytes(items[0], 16))
        id_key = p.is_bytes(items[1], 32) if right == 1 else None
        box.hosts[host_ids[-1]] = (id_key, _label(items[-1]))
    if epoch_ids != sorted(epoch.id for epoch in edition.epochs) or host_ids != sorted(edition.hosts):
        raise Malformed("a box has other epochs or hosts than the record")
    for epoch in edition.epochs:
        read, browse = box.epochs[epoch.id]
        pairs = [(browse, epoch.browse_public)] + ([(read, epoch.read_public)] if read is not None else [])
        if any(p.x25519_public(private) != public for private, public in pairs):
            raise Malformed("a private key that does not give its public key")
    if right == 1:
        for row in p.is_array(need(record, 3)):
            recipient, its_right, state, label = p.is_array(row, 4)
            person = (p.is_bytes(recipient, 64), p.is_uint(its_right, 1, 2), p.is_uint(state, 1, 2), _label(label))
            box.people.append(person)
        if not p.ascending([person[0] for person in box.people]):
            raise Malformed("people are not ascending")
        if not any(person[:3] == (edition.owner, 1, 1) for person in box.people):
            raise Malformed("the owner is not among the people")
    return box


@dataclass
class View:
    """The union of the heads (section 3.3)."""

    vault_id: bytes
    heads: list[Edition]  # ascending by digest
    epochs: list[Epoch]
    hosts: dict[bytes, Host]
    known: set[bytes]  # digests of heads and ancestors
    missing: set[bytes]

    @property
    def number(self) -> int:
        return max(head.number for head in self.heads)


def merge(editions: Iterable[Edition]) -> View:
    found = {edition.digest: edition for edition in editions}
    if not found:
        refuse("header", "vault 3.3", "no valid edition")
    if len({edition.vault_id for edition in found.values()}) > 1:
        refuse("signature", "vault 3.3", "editions of several vaults")
    parents = {parent for edition in found.values() for parent in edition.parents}
    heads = [found[digest] for digest in sorted(found.keys() - parents)]
    epochs: dict[bytes, Epoch] = {}
    hosts: dict[bytes, Host] = {}
    for head in heads:
        for epoch in head.epochs:
            if epochs.setdefault(epoch.id, epoch) != epoch:
                refuse("header", "vault 3.3", "two heads contradict each other about an epoch")
        for host_id, host in head.hosts.items():
            other = hosts.get(host_id, host)
            if other.verify_key != host.verify_key:
                refuse("header", "vault 3.3", "two heads contradict each other about a host")
            hosts[host_id] = Host(host.verify_key, max(host.state, other.state))
    return View(
        heads[0].vault_id, heads, sorted(epochs.values()), hosts, found.keys() | parents, parents - found.keys()
    )


@dataclass
class Keyring:
    """The boxes of the heads that open, together."""

    right: int
    private: list[bytes]  # of all epochs
    id_keys: dict[bytes, bytes] = field(default_factory=dict)
    labels: dict[bytes, str] = field(default_factory=dict)
    people: dict[bytes, tuple[int, int, str]] = field(default_factory=dict)


def open_keyring(view: View, private: Sequence[bytes]) -> Keyring:
    boxes = [(head, open_box(head, private)) for head in view.heads]
    opened = [(head, box) for head, box in boxes if box is not None]
    if not opened:
        refuse("no-recipient", "vault 3.2", "no stanza opens")
    keyring = Keyring(min(box.right for _, box in opened), [])
    opened.sort(key=lambda row: (row[0].number, row[0].digest))  # the last label counts
    for _, box in opened:
        for pair in box.epochs.values():
            keyring.private += [key for key in pair if key is not None and key not in keyring.private]
        for host_id, (id_key, label) in box.hosts.items():
            keyring.labels[host_id] = label
            if id_key is not None and keyring.id_keys.setdefault(host_id, id_key) != id_key:
                refuse("key", "vault 3.3", "two heads contradict each other about an id key")
        for recipient, right, state, label in box.people:
            other = keyring.people.get(recipient, (right, state, label))
            keyring.people[recipient] = (min(right, other[0]), max(state, other[1]), label)
    return keyring


# ---------------------------------------------------------------- archives and snapshots (section 6)


class Ref(NamedTuple):
    """A reference to a node: the archive that has the reference, archive number, place, id."""

    within: bytes
    number: int
    at: m.Location
    id: bytes | None


class Found(NamedTuple):
    """What a walk meets: an entry, or the path of a directory that is lost in part or as a whole, and why."""

    path: bytes
    entry: m.Entry | None
    within: bytes  # the archive whose node has the entry
    error: SpecError | None = None


@dataclass
class Listed:
    """A snapshot that can be read."""

    object: str
    archive_id: bytes
    snapshot: s.Snapshot
    references: list[s.Reference]
    warnings: list[str] = field(default_factory=list)


class Vault:
    """Raises SpecError if the vault does not open with these keys.

    `pin`: highest number and digests of the heads that were in use before.
    """

    def __init__(
        self,
        objects: Mapping[str, bytes],
        *,
        x25519_private: Sequence[bytes],
        owner: bytes,
        vault_id: bytes | None = None,
        pin: tuple[int, list[bytes]] | None = None,
    ) -> None:
        self.objects = objects
        self.refused: dict[str, str] = {}  # name or class of failure, by object
        names = {name: self._kind(name) for name in objects}
        editions = []
        for name, raw in objects.items():
            if names[name] == "editions":
                try:
                    editions.append(parse_edition(raw, owner, vault_id))
                except SpecError as error:
                    if error.failure_class == "unsupported":
                        raise
                    self.refused[name] = error.failure_class
        self.owner = owner
        self.view = merge(editions)
        if pin is not None and (self.view.number < pin[0] or not set(pin[1]) <= self.view.known):
            refuse("signature", "vault 3.3", "rolled back")
        self.keyring = open_keyring(self.view, x25519_private)
        self.opened: dict[tuple[bytes, bytes], RandomAccess | SpecError] = {}
        self.snapshots: dict[str, Listed] = {}
        for name in objects:
            if names[name] == "meta":
                try:
                    self.snapshots[name] = self._snapshot(name)
                except SpecError as error:
                    self.refused[name] = error.failure_class
        self._gaps()

    def _kind(self, name: str) -> str:
        for kind, form in NAMES.items():
            match = form.fullmatch(name)
            if match is not None:
                width = {"editions": 8, "meta": 10}.get(kind, 0)
                number = match[1] if kind == "editions" else match[2] if kind == "meta" else ""
                if not width or (int(number) > 0 and len(number) == max(width, len(str(int(number))))):
                    return kind
        self.refused[name] = "name"
        return ""

    def _snapshot(self, name: str) -> Listed:
        match = NAMES["meta"].fullmatch(name)
        assert match is not None
        host_id, sequence, archive_id = bytes.fromhex(match[1]), int(match[2]), bytes.fromhex(match[3])
        archive = self._open(name, host_id, archive_id, s.METADATA)
        with place("block", "vault 5"):
            snapshot = s.parse_snapshot(archive.listed(archive.sequence_of(b"SNAP"), b"SNAP")[1].body)
            references = s.parse_references(archive.listed(archive.sequence_of(b"XREF"), b"XREF")[1].body, archive_id)
        if (snapshot.vault_id, snapshot.host_id, snapshot.sequence) != (self.view.vault_id, host_id, sequence):
            refuse("block", "vault 6", "SNAP contradicts its name or the vault")
        return Listed(name, archive_id, snapshot, references)

    def _open(self, name: str, host_id: bytes, archive_id: bytes, kind: int, length: int | None = None) -> RandomAccess:
        """Items 2 and 4."""
        host = self.view.hosts.get(host_id)
        if host is None:
            refuse("signature", "vault 6", "no such host")
        data = self.objects[name]
        if length is not None and len(data) != length:
            refuse("truncated" if len(data) < length else "block", "vault 6", "archive of another length")
        identities = Identities(
            list(self.keyring.private), [], host.verify_key, True, self.keyring.id_keys.get(host_id)
        )
        archive = RandomAccess(len(data), lambda start, size: data[start : start + size])
        archive.open(identities)
        header = archive.header
        if (header.archive_id, header.kind, header.id_key_number) != (archive_id, kind, 1) or header.suite not in (
            1,
            2,
        ):
            refuse("block", "vault 6", "archive contradicts its name, or has no place in a vault")
        if archive.base != 0:
            refuse("block", "vault 6", "something stands before the archive")
        return archive

    def archive(self, host_id: bytes, archive_id: bytes, kind: int, length: int) -> RandomAccess:
        """An archive that something refers to."""
        key = (host_id, archive_id)
        if key not in self.opened:
            try:
                self.opened[key] = self._open(self._find(host_id, archive_id, kind), host_id, archive_id, kind, length)
            except SpecError as error:
                self.opened[key] = error
        found = self.opened[key]
        if isinstance(found, SpecError):
            raise found
        return found

    def _find(self, host_id: bytes, archive_id: bytes, kind: int) -> str:
        if kind == s.DATA:
            names = [f"{folder}/{host_id.hex()}/{archive_id.hex()}.rzn" for folder in ("data", "arena")]
            names = [name for name in names if name in self.objects]
        else:
            end = f"-{archive_id.hex()}.rzn"
            names = [x for x in self.objects if x.startswith(f"meta/{host_id.hex()}/") and x.endswith(end)]
        if not names:
            refuse("missing", "vault 6", f"archive {archive_id.hex()} is not there")
        return names[0]

    def _gaps(self) -> None:
        """Item 6."""
        for listed in self.snapshots.values():
            host = listed.snapshot.host_id

            def there(archive_id: bytes, host: bytes = host) -> bool:
                end = f"-{archive_id.hex()}.rzn"
                return any(x.startswith(f"meta/{host.hex()}/") and x.endswith(end) for x in self.objects)

            parent = listed.snapshot.parent
            if parent is not None and not there(parent[0]):
                listed.warnings.append("parent")
            if any(
                not there(head) and f"gone/{host.hex()}/{head.hex()}" not in self.objects
                for head in listed.snapshot.heads
            ):
                listed.warnings.append("heads")

    def tombstone(self, host_id: bytes, archive_id: bytes) -> tuple[bytes, int, str]:
        """Section 8: hash of FOOT, when, why."""
        body, signature = split_signed(self.objects[f"gone/{host_id.hex()}/{archive_id.hex()}"], TOMBSTONE_MAGIC)
        with place("header", "vault 8"):
            record = p.cbor_map(body)
            vault_id = p.is_bytes(need(record, 1), 16)
            about = (p.is_bytes(need(record, 2), 16), p.is_bytes(need(record, 3), 16))
            told = (p.is_bytes(need(record, 4), 32), p.is_uint(need(record, 5)), _label(need(record, 6)))
        if not p.ed25519_strict(self.owner[32:], signature, b"rozenfmt v0 tombstone" + vault_id + p.h(body)):
            refuse("signature", "vault 8", "wrong signature")
        if vault_id != self.view.vault_id or about != (host_id, archive_id):
            refuse("signature", "vault 8", "tombstone of something else")
        return told

    # -- trees

    def _source(self, listed: Listed, within: bytes, number: int) -> tuple[bytes, int, RandomAccess]:
        """The archive of a number in another archive: id, kind, and the archive."""
        host_id = listed.snapshot.host_id
        if within == listed.archive_id:
            rows = listed.references
        else:
            here = self._listed_archive(listed, within)
            with place("block", "vault 5.2"):
                rows = s.parse_references(here.listed(here.sequence_of(b"XREF"), b"XREF")[1].body, within)
        if number == 0:
            return within, s.METADATA, self._listed_archive(listed, within)
        if number > len(rows):
            refuse("block", "vault 5.1", f"archive number {number} of {len(rows)}")
        row = rows[number - 1]
        if row[:3] not in [one[:3] for one in listed.references]:
            refuse("block", "vault 5.2", "archive that the snapshot does not list")
        return row.archive_id, row.kind, self.archive(host_id, row.archive_id, row.kind, row.length)

    def _listed_archive(self, listed: Listed, archive_id: bytes) -> RandomAccess:
        host_id = listed.snapshot.host_id
        if archive_id == listed.archive_id:
            return self.archive(host_id, archive_id, s.METADATA, len(self.objects[listed.object]))
        row = next(row for row in listed.references if row.archive_id == archive_id)
        return self.archive(host_id, archive_id, row.kind, row.length)

    def _node(self, listed: Listed, ref: Ref) -> tuple[bytes, m.Node]:
        archive_id, kind, archive = self._source(listed, ref.within, ref.number)
        if kind != s.METADATA:
            refuse("block", "vault 5.1", "a node in a data archive")
        return archive_id, archive.node(ref.id, ref.at)

    def walk(self, listed: Listed) -> Iterator[Found]:
        """All entries; SpecError if there are more than the snapshot says."""
        snap = listed.snapshot
        count = 0
        todo = [(b"", Ref(listed.archive_id, snap.root_archive, snap.root_at, snap.root_id))]
        while todo:
            path, ref = todo.pop()
            for found in self._directory(listed, path, ref, 0):
                yield found
                entry = found.entry
                if entry is None:
                    continue
                count += 1
                if count > snap.totals[0]:
                    refuse("block", "vault 6", "more entries than the snapshot says")
                if entry.kind == m.DIRECTORY:
                    assert entry.node_id is not None and entry.node_at is not None
                    todo.append((found.path, Ref(found.within, entry.node_in, entry.node_at, entry.node_id)))

    def _directory(self, listed: Listed, path: bytes, ref: Ref, depth: int) -> Iterator[Found]:
        try:
            archive_id, node = self._node(listed, ref)
            if isinstance(node.what, m.Leaf):
                used = [x for e in node.what.entries for x in (e.content_in, e.node_in, e.xattr_in)]
                self._all_listed(listed, archive_id, used)
            elif isinstance(node.what, m.Inner):
                self._all_listed(listed, archive_id, node.what.archives)
            else:
                refuse("block", "vault 5.1", "node of another type where a directory belongs")
            if depth > m.MAX_INNER_DEPTH:
                refuse("limit", "8.2", "inner nodes are nested too deeply")
        except SpecError as error:
            yield Found(path, None, ref.within, error)
            return
        if isinstance(node.what, m.Leaf):
            for entry in node.what.entries:
                yield Found(path + b"/" + entry.name if path else entry.name, entry, archive_id)
            return
        assert isinstance(node.what, m.Inner)
        rows = zip(node.what.ids, node.what.archives, node.what.places, strict=True)
        for child, (child_id, child_in, child_at) in enumerate(rows):
            below_ref = Ref(archive_id, child_in, child_at, child_id)
            names = []
            lost = False
            for found in self._directory(listed, path, below_ref, depth + 1):
                lost |= found.entry is None
                names += [found.entry.name] if found.entry is not None else []
                yield found
            if not lost:
                last = child + 1 == len(node.what.firsts)
                below = last or (names and names[-1] < node.what.firsts[child + 1])
                if len(names) != node.what.counts[child] or names[0] != node.what.firsts[child] or not below:
                    refuse("block", "8.2", "inner node contradicts its child")

    def _all_listed(self, listed: Listed, within: bytes, numbers: list[int]) -> None:
        """Whether the snapshot lists all archives of these numbers; they need not be there."""
        for number in set(numbers) - {0}:
            try:
                self._source(listed, within, number)
            except SpecError as error:
                if error.clause in ("vault 5.1", "vault 5.2"):
                    raise

    def xattrs(self, listed: Listed, found: Found) -> list[tuple[bytes, bytes]]:
        entry = found.entry
        if entry is None or entry.xattr_at is None:
            return []
        _, kind, archive = self._source(listed, found.within, entry.xattr_in)
        if kind != s.METADATA:
            refuse("block", "vault 5.1", "attributes in a data archive")
        piece = archive.piece(entry.xattr_at, b"TREX")
        self._check(archive, piece, entry.xattr_id)
        with place("block", "5.4"):
            return m.parse_xattrs(piece)

    def _check(self, archive: RandomAccess, content: bytes, one: bytes | None) -> None:
        assert archive.keys is not None
        if archive.keys.id_key is None:
            refuse("no-recipient", "vault 3.2", "ids need the read right")
        if archive.keys.content_id(content) != one:
            refuse("block", "6.2", "content of another id")

    def content(self, listed: Listed, found: Found) -> bytes:
        """The content of a file."""
        entry = found.entry
        assert entry is not None and entry.kind == m.FILE and not entry.marks & m.UNREADABLE
        if not entry.size:
            return b""
        assert entry.content_at is not None
        archive_id, kind, archive = self._source(listed, found.within, entry.content_in)
        if kind == s.DATA:
            content = archive.piece(entry.content_at, b"PACK")
        else:
            if self.keyring.right != 1:
                refuse("no-recipient", "vault 3.2", "contents need the read right")
            content = b"".join(self._parts(listed, archive_id, archive.node(None, entry.content_at), entry.size))
        if len(content) != entry.size:
            refuse("block", "8.1", "content of another length")
        self._check(archive, content, entry.content_id)
        return content

    def _parts(self, listed: Listed, within: bytes, node: m.Node, total: int) -> Iterator[bytes]:
        table = node.what
        if not isinstance(table, (m.PartLeaf, m.PartInner)) or table.total != total:
            refuse("block", "8.3", "no part table of this length")
        if isinstance(table, m.PartInner):
            rows = zip(table.lengths, table.ids, table.archives, table.places, strict=True)
            for length, one, number, at in rows:
                archive_id, below = self._node(listed, Ref(within, number, at, one))
                if not isinstance(below.what, m.PartLeaf):
                    refuse("block", "8.3", "sub-table of another type")
                yield from self._parts(listed, archive_id, below, length)
            return
        for part in table.parts:
            if part.at is None:
                yield bytes(part.length)
                continue
            _, kind, archive = self._source(listed, within, part.archive)
            if kind != s.DATA:
                refuse("block", "vault 5.1", "part in a metadata archive")
            piece = archive.piece(part.at, b"PACK")
            if len(piece) != part.length:
                refuse("block", "8.3", "part of another length")
            self._check(archive, piece, part.id)
            yield piece
