"""Vaults written block by block: with all keys, and without any scruples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rozenfmt as rz
from rozenfmt.format import cbor, crypto, nodes, records
from rozenfmt.format.blocks import Draft
from rozenfmt.format.builders import PiecesBuilder
from rozenfmt.format.codecs import Compression
from rozenfmt.format.crypto import Keys
from rozenfmt.format.encoder import Encoder
from rozenfmt.format.header import build_header
from rozenfmt.format.nodes import Entry, InnerNode, Part
from rozenfmt.format.records import BlockRecord, HeaderRecord
from rozenfmt.format.registry import Codec, Kind, Right, Suite
from rozenfmt.format.snapshots import CrossReferences, KeyringBody, Reference, SnapshotBody
from rozenfmt.keys import SigningKey
from rozenfmt.storage.local import LocalStorage
from rozenfmt.vault import editing, layout, loading
from rozenfmt.vault.archives import Archives
from rozenfmt.vault.hostkey import HostKey
from rozenfmt.vault.keyring import Keyring, open_keyring
from rozenfmt.vault.snapshot import Snapshot

NOW = 1_700_000_000_000_000_000
STORED = Compression(Codec.STORED)
CONTENT, CHILDREN = 16, 2


class CraftedVault:
    """A vault in a local folder, with an owner and a host."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.storage = LocalStorage(str(root))
        self.owner = rz.Identity.generate()
        self.friend = rz.Identity.generate()
        raw = editing.first_edition(self.owner, browsers=[self.friend.recipient], now_ns=NOW)
        loading.store_edition(self.storage, raw)
        self.host = self.enrol("laptop")

    def enrol(self, label: str) -> HostKey:
        raw, host = editing.enrol(self.keyring(), self.owner, label, now_ns=NOW)
        loading.store_edition(self.storage, raw)
        return host

    def keyring(self, identity: rz.Identity | None = None) -> Keyring:
        view = loading.load_view(self.storage, owner=self.owner.recipient)
        return open_keyring(view, [identity or self.owner])

    def archives(self, identity: rz.Identity | None = None) -> Archives:
        return Archives(self.storage, self.keyring(identity))

    def snapshot(self, identity: rz.Identity | None = None, number: int = -1) -> Snapshot:
        """The last snapshot, by a reader that has read nothing yet."""
        found = self.archives(identity).snapshots()
        assert not found.problems, found.problems
        return found.snapshots[number]

    def data(self, **options: Any) -> CraftedArchive:
        return CraftedArchive(self, Kind.DATA, **options)

    def meta(self, **options: Any) -> CraftedArchive:
        return CraftedArchive(self, Kind.METADATA, **options)

    def path(self, name: str) -> Path:
        return self.root / name


@dataclass
class CraftedArchive:
    """An archive that tells the truth unless it is told otherwise."""

    vault: CraftedVault
    kind: Kind
    host: HostKey = None  # type: ignore[assignment]
    signer: SigningKey | None = None
    id_key_number: int = 1
    suite: Suite = Suite.XCHACHA20_POLY1305
    arena: bool = False
    sequence: int = 1
    archive_id: bytes = field(default_factory=lambda: os.urandom(16))

    def __post_init__(self) -> None:
        self.host = self.host or self.vault.host
        self.name = ""
        self.length = 0
        self.out: list[bytes] = []
        self.others: list[CraftedArchive | Reference] = []
        plain = self.suite is Suite.PLAIN
        secret = bytes(32) if plain else os.urandom(32)
        keyed = Keys.from_secret(self.suite, self.archive_id, secret)
        self.keys = replace(keyed, id_key=self.host.id_key)
        signer = self.signer or self.host.signing
        common: dict[str, Any] = {
            "archive_id": self.archive_id,
            "kind": int(self.kind),
            "suite": int(self.suite),
            "features": (),
            "creator": "crafted",
            "id_key": self.id_key_number,
            "signer": signer.verify_key.ed25519,
        }
        if plain:
            record = HeaderRecord(padding=(1, 1, 1), **common)
        else:
            epoch = self.vault.keyring().view.current_epoch
            pairs = ((Right.READ, secret, epoch.read_public), (Right.BROWSE, keyed.index_key, epoch.browse_public))
            stanzas = tuple(
                (1, int(right), crypto.hpke_seal(to, crypto.stanza_info(right, self.archive_id), what, os.urandom))
                for right, what, to in pairs
            )
            record = HeaderRecord(
                padding=(64, 64, 64),
                commit_secret=keyed.commitment_to_secret(),
                commit_index=keyed.commitment_to_index_key(),
                stanzas=stanzas,
                **common,
            )
        used = None if plain else self.keys
        self.encoder = Encoder(build_header(record, used), used, entropy=os.urandom, signer_seed=signer.seed)
        self.out.append(self.encoder.begin())

    # --- blocks ---------------------------------------------------------------------------------

    def id(self, data: bytes) -> bytes:
        return crypto.content_id(self.host.id_key, crypto.digest(data), len(data))

    def block(self, draft: Draft) -> int:
        sealed = self.encoder.write(draft)
        self.out += sealed.buffers
        return sealed.sequence

    def pieces(self, block_type: bytes, pieces: Sequence[bytes]) -> int:
        builder = PiecesBuilder(block_type, target=16 << 20, compression=STORED if block_type == b"PACK" else None)
        for piece in pieces:
            builder.add(piece)
        sequence = self.block(builder.seal())
        if block_type == b"PACK":
            self.encoder.index.add_content([self.id(piece) for piece in pieces], sequence)
        return sequence

    def finish(self, name: str | None = None) -> CraftedArchive:
        """Close the archive and store it, under the name that it should have by default."""
        self.out += self.encoder.finish()
        raw = b"".join(self.out)
        self.length = len(raw)
        self.name = name or self.own_name
        path = self.vault.path(self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return self

    @property
    def own_name(self) -> str:
        if self.kind is Kind.METADATA:
            return layout.meta_name(self.host.host_id, self.sequence, self.archive_id)
        return layout.data_name(self.host.host_id, self.archive_id, arena=self.arena)

    @property
    def stored(self) -> Path:
        return self.vault.path(self.name)

    # --- trees ----------------------------------------------------------------------------------

    def number(self, other: CraftedArchive | Reference) -> int:
        """The number of another archive in this one."""
        if other is self:
            return 0
        if other not in self.others:
            self.others.append(other)
        return self.others.index(other) + 1

    def file(self, name: str, data: bytes, where: CraftedArchive, **facts: Any) -> Entry:
        """A file in a pack of its own in another archive."""
        return self.packed([(name, data)], where, **facts)[0]

    def packed(self, files: Sequence[tuple[str, bytes]], where: CraftedArchive, **facts: Any) -> list[Entry]:
        """Files that share a pack."""
        sequence = where.pieces(b"PACK", [data for _, data in files])
        return [
            _file(name, len(data), self.id(data), (self.number(where), sequence, number), **facts)
            for number, (name, data) in enumerate(files)
        ]

    def parts(self, chunks: Sequence[bytes | int], where: CraftedArchive, *, together: int = 1) -> list[Part]:
        """Parts of a content; an integer is a hole. So many of them share a pack."""
        found: list[Part] = []
        waiting: list[tuple[int, bytes]] = []
        offset = 0

        def flush() -> None:
            sequence = where.pieces(b"PACK", [data for _, data in waiting])
            for piece, (at, data) in enumerate(waiting):
                found.append(Part(at, len(data), self.id(data), sequence, piece, self.number(where)))
            waiting.clear()

        for chunk in chunks:
            if isinstance(chunk, int):
                found.append(Part(offset, chunk, None, 0, 0))
                offset += chunk
                continue
            waiting.append((offset, chunk))
            offset += len(chunk)
            if len(waiting) == together:
                flush()
        if waiting:
            flush()
        return sorted(found, key=lambda part: part.offset)

    def table(self, parts: Sequence[Part], *, leaves: int = 0) -> tuple[int, int]:
        """A part table, with sub-tables of so many parts; block and piece."""
        if not leaves:
            return self.pieces(b"TREE", [nodes.part_leaf(parts, vault=True)]), 0
        tables = []
        for at in range(0, len(parts), leaves):
            rows = parts[at : at + leaves]
            node = nodes.part_leaf(rows, vault=True)
            one = crypto.digest(node[4 : 4 + int.from_bytes(node[:4], "little")])
            length = sum(part.length for part in rows)
            tables.append(Part(rows[0].offset, length, one, self.pieces(b"TREE", [node]), 0, 0))
        return self.pieces(b"TREE", [nodes.part_inner(tables, vault=True)]), 0

    def chunked(
        self,
        name: str,
        chunks: Sequence[bytes | int],
        where: CraftedArchive,
        *,
        leaves: int = 0,
        together: int = 1,
        **facts: Any,
    ) -> Entry:
        """A file in parts."""
        whole = b"".join(bytes(chunk) if isinstance(chunk, int) else chunk for chunk in chunks)
        block, piece = self.table(self.parts(chunks, where, together=together), leaves=leaves)
        return _file(name, len(whole), self.id(whole), (0, block, piece), **facts)

    def attributes(self, entry: Entry, xattrs: Sequence[tuple[bytes, bytes]]) -> Entry:
        data = cbor.dumps([list(row) for row in xattrs])
        return replace(entry, xattr_ref=(self.id(data), self.pieces(b"TREX", [data]), 0))

    def directory(self, name: str, entries: Sequence[Entry], *, node: bytes | None = None, **facts: Any) -> Entry:
        """A directory with one leaf."""
        entries = sorted(entries, key=lambda entry: entry.name)
        logical = nodes.directory_record(entries)
        sequence = self.pieces(b"TREE", [node or nodes.join_node(logical, hints(entries))])
        return _directory(name, crypto.digest(logical), sequence, **facts)

    def inner(self, name: str, children: Sequence[InnerNode], **facts: Any) -> Entry:
        """A directory of several nodes."""
        logical = nodes.inner_record(children)
        node = nodes.join_node(logical, nodes.vault_hints([(one.archive, one.block, one.piece) for one in children]))
        return _directory(name, crypto.digest(logical), self.pieces(b"TREE", [node]), **facts)

    def big_directory(self, name: str, entries: Sequence[Entry], leaf: int) -> Entry:
        """A directory of leaves of so many entries each."""
        children = []
        for at in range(0, len(entries), leaf):
            below = self.directory("leaf", entries[at : at + leaf])
            assert below.child is not None
            count = len(entries[at : at + leaf])
            children.append(InnerNode(entries[at].name, count, below.child, below.block, 0, 0))
        return self.inner(name, children)

    # --- snapshots ------------------------------------------------------------------------------

    def snap(
        self, root: Entry, totals: tuple[int, int], *, stored_as: str | None = None, **changes: Any
    ) -> CraftedArchive:
        """Write what makes it a snapshot, and store it."""
        self.last_blocks(root, totals, **changes)
        return self.finish(stored_as)

    def last_blocks(self, root: Entry, totals: tuple[int, int], **changes: Any) -> None:
        self.keyring()
        self.cross_references()
        self.record(root, totals, **changes)

    def keyring(self) -> None:
        heads = self.vault.keyring().view.raw_heads
        self.block(Draft(b"keyr", BlockRecord(), records.encode(KeyringBody(editions=heads))))

    def cross_references(self) -> None:
        body = CrossReferences.of([one if isinstance(one, Reference) else one.reference for one in self.others])
        self.block(Draft(b"XREF", BlockRecord(), records.encode(body)))

    @property
    def reference(self) -> Reference:
        assert self.length, "finish it first"
        return Reference(self.archive_id, int(self.kind), self.length, 0)

    def record(self, root: Entry, totals: tuple[int, int], **changes: Any) -> None:
        assert root.child is not None
        values: dict[str, Any] = {
            "vault_id": self.host.vault_id,
            "host_id": self.host.host_id,
            "label": self.host.label,
            "set_name": "photos",
            "sequence": self.sequence,
            "heads": b"",
            "mode": 1,
            "times": (NOW + self.sequence, NOW + self.sequence + 1),
            "root": (root.child, root.archive, root.block, root.piece),
            "totals": totals,
            "sources": ((b"photos", b"/home/me/photos", 1),),
            "tags": (),
            "counts": (0,) * 9,
            "parent_state": 1,
            "flags": 0,
        }
        body = SnapshotBody(**{**values, **changes})
        self.block(Draft(b"SNAP", BlockRecord(), records.encode(body)))


def hints(entries: Sequence[Entry]) -> bytes:
    return nodes.vault_hints(
        [(e.archive, e.block, e.piece) for e in entries if e.has_content],
        [(e.archive, e.block, e.piece) for e in entries if e.kind is rz.Kind.DIRECTORY],
        [(e.xattr_archive, *e.xattr_ref[1:]) for e in entries if e.xattr_ref is not None],
    )


def _file(name: str, size: int, content_id: bytes, place: tuple[int, int, int], **facts: Any) -> Entry:
    archive, block, piece = place
    common: dict[str, Any] = {"mode": 0o644, "mtime_ns": NOW, **facts}
    return Entry(
        name.encode(),
        rz.Kind.FILE,
        size=size,
        content_id=content_id,
        archive=archive,
        block=block,
        piece=piece,
        **common,
    )


def _directory(name: str, child: bytes, block: int, **facts: Any) -> Entry:
    common: dict[str, Any] = {"mode": 0o755, "mtime_ns": NOW, **facts}
    return Entry(name.encode(), rz.Kind.DIRECTORY, child=child, block=block, **common)


def fifo(name: str) -> Entry:
    return Entry(name.encode(), rz.Kind.FIFO, 0o600, mtime_ns=NOW)
