"""Bodies of `SNAP`, `XREF` and `keyr`, and what a metadata archive's nodes may refer to (spec/vault.md, section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from . import model as m
from . import primitives as p
from .model import Location, refuse
from .primitives import Malformed, Map, need, present

DATA, METADATA = 1, 2
MAX_ROWS = 16_384
MAX_EDITIONS = 64


class Reference(NamedTuple):
    """A row of `XREF`."""

    archive_id: bytes
    kind: int
    length: int
    live: int


@dataclass
class Snapshot:
    """A `SNAP`."""

    vault_id: bytes
    host_id: bytes
    label: str
    set_name: str
    sequence: int
    parent: tuple[bytes, bytes] | None
    heads: list[bytes]
    mode: int
    times: list[int]
    root_id: bytes
    root_archive: int
    root_at: Location
    totals: tuple[int, int]
    sources: list[tuple[bytes, bytes, int]]
    tags: list[str]
    counts: list[int]
    moves: list[tuple[bytes, bytes, int]]
    deletions: list[bytes]
    problems: list[tuple[bytes, str, str]]
    conflicts: list[tuple[bytes, int]]
    parent_state: int
    flags: int


def parse_references(body: bytes, own_id: bytes) -> list[Reference]:
    """Section 5.2."""
    record = p.cbor_map(body)
    kinds = p.is_bytes(need(record, 2))
    ids = m.split(p.is_bytes(need(record, 1)), 16, len(kinds))
    lengths = p.column(p.is_bytes(need(record, 3)), len(kinds))
    live = p.column(p.is_bytes(need(record, 4)), len(kinds))
    if any(kind not in (DATA, METADATA) for kind in kinds):
        raise Malformed("reference to an archive of another kind")
    if len(set(ids)) != len(ids) or own_id in ids:
        raise Malformed("archive that is referred to twice, or the archive itself")
    return [Reference(*row) for row in zip(ids, kinds, lengths, live, strict=True)]


def _text(value: p.Value, most: int) -> str:
    text = p.is_text(value)
    if len(text.encode()) > most:
        refuse("limit", "vault 5.3", f"text of more than {most} bytes")
    return text


def _rows(record: Map, key: int) -> list[p.Value]:
    """The rows of a key that is there only if there are any."""
    if key not in record:
        return []
    rows = p.is_array(record[key])
    if not rows:
        raise Malformed(f"key {key} is empty")
    if len(rows) > MAX_ROWS:
        refuse("limit", "vault 5.3", f"key {key} has {len(rows)} rows")
    return rows


def parse_snapshot(body: bytes) -> Snapshot:
    """Section 5.3."""
    record = p.cbor_map(body)
    joined = p.is_bytes(need(record, 7))
    heads = m.split(joined, 16, len(joined) // 16)
    tags = [_text(tag, 4_096) for tag in p.is_array(need(record, 13))]
    if not p.ascending(heads) or not p.ascending([tag.encode() for tag in tags]):
        raise Malformed("heads or tags are not ascending")
    set_name = _text(need(record, 4), 4_096)
    if not set_name:
        raise Malformed("set without a name")
    parent_state = p.is_uint(need(record, 19), 1, 3)
    parent = None
    if present(record, 6, parent_state == 2):
        archive_id, foot = p.is_array(record[6], 2)
        parent = (p.is_bytes(archive_id, 16), p.is_bytes(foot, 32))
    root_id, number, block, piece = p.is_array(need(record, 10), 4)
    entries, size = p.is_array(need(record, 11), 2)
    sources = []
    for row in p.is_array(need(record, 12)):
        name, origin, kind = p.is_array(row, 3)
        if len(p.is_bytes(name)) > m.MAX_NAME:
            refuse("limit", "vault 5.3", "name of a source is too long")
        sources.append((p.is_bytes(name), p.is_bytes(origin), p.is_uint(kind, 1, 3)))
    moves = []
    for row in _rows(record, 15):
        old, new, kind = p.is_array(row, 3)
        moves.append((p.is_bytes(old), p.is_bytes(new), p.is_uint(kind, 1, 7)))
    problems = []
    for row in _rows(record, 17):
        path, word, text = p.is_array(row, 3)
        problems.append((p.is_bytes(path), _text(word, 64), _text(text, 4_096)))
    conflicts = []
    for row in _rows(record, 18):
        path, answer = p.is_array(row, 2)
        conflicts.append((p.is_bytes(path), p.is_uint(answer, 1, 5)))
    return Snapshot(
        vault_id=p.is_bytes(need(record, 1), 16),
        host_id=p.is_bytes(need(record, 2), 16),
        label=_text(need(record, 3), 255),
        set_name=set_name,
        sequence=p.is_uint(need(record, 5), 1),
        parent=parent,
        heads=heads,
        mode=p.is_uint(need(record, 8), 1, 2),
        times=[p.is_uint(time) for time in p.is_array(need(record, 9), 2)],
        root_id=p.is_bytes(root_id, 32),
        root_archive=p.is_uint(number),
        root_at=(p.is_uint(block), p.is_uint(piece)),
        totals=(p.is_uint(entries), p.is_uint(size)),
        sources=sources,
        tags=tags,
        counts=[p.is_uint(count) for count in p.is_array(need(record, 14), 9)],
        moves=moves,
        deletions=[p.is_bytes(path) for path in _rows(record, 16)],
        problems=problems,
        conflicts=conflicts,
        parent_state=parent_state,
        flags=p.is_uint(need(record, 20)),
    )


def parse_keyring(body: bytes) -> list[bytes]:
    """Section 5.4."""
    editions = [p.is_bytes(one) for one in p.is_array(need(p.cbor_map(body), 1))]
    if not editions:
        raise Malformed("no editions")
    if len(editions) > MAX_EDITIONS:
        refuse("limit", "vault 5.4", f"{len(editions)} editions")
    return editions


# ---------------------------------------------------------------- what one metadata archive says of itself


class Wanted(NamedTuple):
    """A reference of a node: what it is, where, and of which id."""

    what: str  # "directory", "content", "attributes", "sub-table" or "part"
    id: bytes | None
    archive: int
    at: Location


def wanted(node: m.Node) -> list[Wanted]:
    """What a node refers to."""
    what = node.what
    if isinstance(what, m.Leaf):
        found = []
        for entry in what.entries:
            if entry.content_at is not None:
                found.append(Wanted("content", None, entry.content_in, entry.content_at))
            if entry.node_at is not None:
                found.append(Wanted("directory", entry.node_id, entry.node_in, entry.node_at))
            if entry.xattr_at is not None:
                found.append(Wanted("attributes", entry.xattr_id, entry.xattr_in, entry.xattr_at))
        return found
    if isinstance(what, m.Inner):
        rows = zip(what.ids, what.archives, what.places, strict=True)
        return [Wanted("directory", one, number, at) for one, number, at in rows]
    if isinstance(what, m.PartLeaf):
        return [Wanted("part", x.id, x.archive, x.at) for x in what.parts if x.at is not None]
    if isinstance(what, m.PartInner):
        rows = zip(what.ids, what.archives, what.places, strict=True)
        return [Wanted("sub-table", one, number, at) for one, number, at in rows]
    return []


@dataclass
class Metadata:
    """An archive of kind 2 while it is read in a row."""

    own_id: bytes
    state: str = "nodes"
    keyrings: int = 0
    references: list[Reference] = field(default_factory=list)
    snapshot: Snapshot | None = None
    editions: list[bytes] = field(default_factory=list)
    refers: list[tuple[Location, Wanted]] = field(default_factory=list)  # by whom, what

    def order(self, kind: bytes) -> None:
        """The grammar of section 5, as far as the types alone tell."""
        steps = {
            b"TREE": ("nodes", "nodes"),
            b"TREX": ("nodes", "nodes"),
            b"XREF": ("nodes", "references"),
            b"SNAP": ("references", "snapshot"),
        }
        if kind == b"INDX":
            if self.state != "snapshot" or not self.keyrings:
                refuse("block", "vault 5", "INDX where XREF, SNAP or keyr is still missing")
        elif kind == b"keyr":
            self.keyrings += 1
        elif kind in steps:
            before, after = steps[kind]
            if self.state != before:
                refuse("block", "vault 5", f"{kind.decode()} behind {self.state}")
            self.state = after

    def take(self, kind: bytes, seq: int, block: m.Block, nodes: list[m.Node]) -> None:
        """Step (k)."""
        if kind == b"TREE":
            for number, node in enumerate(nodes):
                for one in wanted(node):
                    if one.what == "part" and one.archive == 0:
                        raise Malformed("a part in the metadata archive itself")
                    self.refers.append(((seq, number), one))
        elif kind == b"XREF":
            self.references = parse_references(block.body, self.own_id)
            for _, one in self.refers:
                self.reachable(one)
        elif kind == b"SNAP":
            self.snapshot = parse_snapshot(block.body)
            root = Wanted("directory", self.snapshot.root_id, self.snapshot.root_archive, self.snapshot.root_at)
            self.reachable(root)
            self.refers.append(((seq, 0), root))
        elif kind == b"keyr":
            self.editions += parse_keyring(block.body)

    def reachable(self, one: Wanted) -> None:
        if one.archive > len(self.references):
            raise Malformed(f"archive number {one.archive} of {len(self.references)}")
        if one.archive and one.what != "content":
            kind = self.references[one.archive - 1].kind
            if kind != (DATA if one.what == "part" else METADATA):
                raise Malformed(f"{one.what} in an archive of kind {kind}")

    def complete(self, nodes: dict[Location, m.Node], attributes: dict[Location, bytes | None] | None) -> None:
        """The complete check: what lies in the same archive. `attributes`: ids, None where the key is not at hand."""
        for by, one in self.refers:
            if one.archive != 0:
                continue
            if one.at >= by:
                refuse("block", "5", f"what {by} refers to does not stand before it")
            if one.what == "attributes":
                if attributes is not None and (one.at not in attributes or attributes[one.at] not in (None, one.id)):
                    refuse("block", "vault 5.1", f"no attributes of that id at {one.at}")
                continue
            node = nodes.get(one.at)
            if node is None or (one.id is not None and node.id != one.id):
                refuse("block", "vault 5.1", f"no node of that id at {one.at}")
            if node.what is None:
                refuse("unsupported", "8", f"node of type {node.type} is referred to")
            fits = {"directory": (1, 2), "content": (3, 4), "sub-table": (3,)}[one.what]
            if node.type not in fits:
                refuse("block", "vault 5.1", f"node of type {node.type} where a {one.what} belongs")
