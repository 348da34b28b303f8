"""Makes archives for the vectors, legitimate or with one thing wrong.

Everything that ends up in an archive passes a *hook* first: a function that a scenario gives for a name like
``record:PACK:0``.  What follows the hook (hashes, MACs, signature, index) is made by a writer who holds the keys, so
that the change is the only fault.  All random bytes come from one BLAKE3 stream, seeded by the scenario's name.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cbor2
from blake3 import blake3

from rozenfmt.format import cbor, crypto, nodes
from rozenfmt.format.crypto import Argon2Cost, Keys
from rozenfmt.format.nodes import Entry, InnerNode, Kind
from rozenfmt.format.registry import Codec, Suite
from rozenfmt.format.varint import encode_column, encode_deltas

MAGIC: Final = bytes.fromhex("89525A4E0D0A1A0A")
SYNC: Final = bytes.fromhex("F5727A9CE107B35A")
END_MAGIC: Final = bytes.fromhex("0A1A0A0D4E5A5289")
INPUTS: Final = Path(__file__).parent / "inputs" / "encoded.json"

# What the registry says, kept apart from the library's table.
UNDER: Final = {
    **dict.fromkeys(("FHDR", "FEND", "TREE", "INDX", "ckpt", "SNAP", "XREF"), "I"),
    **dict.fromkeys(("FCNT", "PACK", "TREX"), "C"),
}

Hook = Callable[[Any], Any]
Place = tuple[int, int]


def key(role: str) -> bytes:
    """32 fixed bytes for a role."""
    return blake3(f"rozenfmt vector: {role}".encode()).digest()


READER: Final = key("reader")
BROWSER: Final = key("browser")
STRANGER: Final = key("stranger")
SIGNER: Final = key("signer")
HOST_ID_KEY: Final = key("id key of a host")


class Random:
    """A BLAKE3 stream."""

    def __init__(self, seed: str) -> None:
        self._hasher = blake3(seed.encode())
        self._at = 0

    def __call__(self, size: int) -> bytes:
        """The next bytes."""
        self._at += size
        return self._hasher.digest(size, seek=self._at - size)


class Inputs:
    """Encoded bodies, since another version of zstd or lz4 may encode otherwise."""

    def __init__(self) -> None:
        self._known: dict[str, str] = json.loads(INPUTS.read_text()) if INPUTS.exists() else {}
        self._used: dict[str, str] = {}
        self.may_add = False

    def encode(self, how: str, body: bytes) -> bytes:
        """A body encoded by ``zstd``, ``zstd-checksum`` or ``lz4``, as it was the first time."""
        name = f"{how}:{crypto.digest(body).hex()}"
        if name not in self._known:
            if not self.may_add:
                msg = f"{INPUTS.name} lacks {name}: run without --check first"
                raise KeyError(msg)
            self._known[name] = base64.b64encode(_encode(how, body)).decode()
        self._used[name] = self._known[name]
        return base64.b64decode(self._known[name])

    def save(self) -> None:
        """Keep what was used."""
        INPUTS.parent.mkdir(exist_ok=True)
        INPUTS.write_text(json.dumps(dict(sorted(self._used.items())), indent=0) + "\n")


def _encode(how: str, body: bytes) -> bytes:
    import lz4.block  # type: ignore[import-untyped]
    import zstandard

    if how == "lz4":
        return bytes(lz4.block.compress(body, store_size=False))
    return zstandard.ZstdCompressor(level=3, write_checksum=how == "zstd-checksum").compress(body)


INPUT: Final = Inputs()


@dataclass(frozen=True)
class Block:
    """A block as it was written."""

    tag: str
    type: str
    sequence: int
    offset: int
    frame: bytes
    record: Any
    body: bytes

    @property
    def whole(self) -> bytes:
        """Its whole hash."""
        return self.frame[-32:]


@dataclass
class Listed:
    """An entry as it should be read."""

    path: bytes
    entry: Entry
    content: bytes | None


@dataclass
class Stream:
    """A stream that is being written."""

    number: int
    blocks: int = 0
    end: int = 0
    parts: list[tuple[int, int, bytes, Place]] = field(default_factory=list)  # offset, length, id, place
    content: bytearray = field(default_factory=bytearray)


class Maker:
    """One archive.

    Args:
        name: Seeds all random bytes.
        suite: Number of the suite.
        kind: Kind of archive.
        padding: Padding rule, in suites 1 and 2.
        codec: What bodies are encoded with: ``stored``, ``zstd`` or ``lz4``.
        recipients: Right and X25519 private key of each stanza.
        passphrase: Locks the archive instead.
        signed: Sign.
        seed: Ed25519 seed to sign with.
        id_key: Key of the content ids, if they are made with that of a host (id-key number 1).
        leaf_entries: Entries in an index leaf, at most.
        hooks: What to change.
        grease: Unknown keys in every record.
    """

    def __init__(
        self,
        name: str,
        *,
        suite: int = 1,
        kind: int = 3,
        padding: tuple[int, int, int] = (64, 128, 64),
        codec: str = "zstd",
        recipients: Sequence[tuple[int, bytes]] = ((1, READER), (2, BROWSER)),
        passphrase: str | None = None,
        signed: bool = False,
        seed: bytes = SIGNER,
        id_key: bytes | None = None,
        leaf_entries: int = 1000,
        hooks: dict[str, Hook] | None = None,
        grease: bool = False,
    ) -> None:
        self.name = name
        self.suite = suite
        self.kind = kind
        self.codec = codec
        self.signed = signed
        self.seed = seed
        self.id_key = id_key
        self.hooks = dict(hooks or {})
        self.grease = grease
        self.leaf_entries = leaf_entries
        self.random = Random(name)
        self.archive_id = self.random(16)
        self.secret = self.random(32) if suite else bytes(32)
        self.keys = Keys.from_secret(Suite(suite), self.archive_id, self.secret)
        self.padding = padding if suite else (1, 1, 1)
        self.blocks: list[Block] = []
        self.counts: dict[str, int] = {}
        self.rows: list[tuple[bytes, int, int]] = []
        self.paths: list[tuple[bytes, int, int]] = []
        self.streams = 0
        self.listed: list[Listed] = []
        self.contents: dict[bytes, bytes] = {}
        self.released: list[tuple[int, bytes]] = []
        self.checkpointed: tuple[int, int | None] = (0, None)
        self.root: list[Any] | None = None
        self.data = b""
        self.header_record: dict[int, Any] = {}
        self.header = self._header(recipients, passphrase)
        self.end = len(self.header)

    def hook(self, name: str, value: Any) -> Any:
        """The value, changed if the scenario says so."""
        return self.hooks[name](value) if name in self.hooks else value

    def ident(self, content: bytes) -> bytes:
        """A content id."""
        id_key = self.id_key or self.keys.id_key
        assert id_key is not None
        return crypto.content_id(id_key, crypto.digest(content), len(content))

    # --- header ---------------------------------------------------------------------------------

    def _header(self, recipients: Sequence[tuple[int, bytes]], passphrase: str | None) -> bytes:
        record: dict[int, Any] = {
            1: self.archive_id,
            2: self.kind,
            3: self.suite,
            4: [],
            5: list(self.padding),
            6: "rozenfmt vectors",
            11: 0 if self.id_key is None else 1,
        }
        if self.suite:
            record[7] = self.keys.commitment_to_secret()
            record[8] = self.keys.commitment_to_index_key()
            record[9] = self.hook("stanzas", self._stanzas(recipients, passphrase))
        if self.signed:
            record[10] = crypto.ed25519_public(self.seed)
        if self.grease:
            record |= {1000: b"grease", 1001: [{1: "x"}, -1]}
        record = self.hook("header", record)
        raw = record if isinstance(record, bytes) else cbor.dumps(record)
        self.header_record = record if isinstance(record, dict) else {}
        lead = self.hook("lead", MAGIC + struct.pack("<HHI", 0, 1, len(raw)))
        macs = bytes(64)
        if self.suite:
            assert self.keys.header_mac_secret is not None
            macs = crypto.mac(self.keys.header_mac_index, lead, raw) + crypto.mac(
                self.keys.header_mac_secret, lead, raw
            )
        macs = self.hook("header_macs", macs)
        self.digest = self.hook("header_digest", crypto.digest(lead, raw, macs))
        return bytes(lead + self.digest + raw + macs)

    def _stanzas(self, recipients: Sequence[tuple[int, bytes]], passphrase: str | None) -> list[Any]:
        stanzas: list[Any] = []
        if self.grease:
            stanzas.append([1000, 3, b"a stanza of a type that nobody knows"])
        for right, private in recipients if passphrase is None else ():
            stanzas.append([1, right, self.stanza(right, private)])
        if passphrase is not None:
            stanzas.append([2, 1, self.passphrase_stanza(passphrase)])
        return stanzas

    def stanza(self, right: int, private: bytes, secret: bytes | None = None) -> bytes:
        """Body of a stanza of type 1."""
        own = self.secret if right == 1 else self.keys.index_key
        info = crypto.stanza_info(right, self.archive_id)
        return crypto.hpke_seal(crypto.x25519_public(private), info, secret or own, self.random)

    def passphrase_stanza(self, passphrase: str) -> bytes:
        """Body of a stanza of type 2, as cheap as it may be."""
        return crypto.passphrase_seal(passphrase, 1, self.archive_id, self.secret, Argon2Cost(1, 8), self.random)

    # --- blocks ---------------------------------------------------------------------------------

    def block(
        self,
        kind: str,
        record: dict[int, Any],
        body: bytes = b"",
        *,
        codec: str | None = None,
        foot: Callable[[bytes], bytes] | None = None,
    ) -> Block:
        """Append a block."""
        nth = self.counts.get(kind, 0)
        self.counts[kind] = nth + 1
        tag = f"{kind}:{nth}"
        under = UNDER.get(kind, "") if self.suite else ""
        sealed = bool(under)
        encoded = b""
        body = self.hook(f"body:{tag}", body)
        if body and foot is None:
            number, encoded = self.hook(f"encoded:{tag}", self._encoded(body, codec or self.codec))
            record = {1: number, 2: len(body), 3: len(encoded), 4: crypto.digest(body), **record}
        if self.grease:
            record = {**record, 1234: [b"grease", "grease", -5, {0: {7: 1}}]}
        record = self.hook(f"record:{tag}", record)
        raw = record if isinstance(record, bytes) else cbor.dumps(record)
        bucket = self.padding[1 if kind in ("PACK", "FCNT") else 2] if sealed else 1
        plain = _pad(struct.pack("<I", len(raw)) + raw, self.padding[0] if sealed else 1)
        plain = self.hook(f"header_plain:{tag}", plain)
        body_plain = self.hook(f"body_plain:{tag}", _pad(encoded, bucket))
        if foot is not None:
            body_plain = foot(bytes(32))
        extra = 40 if sealed else 0
        prefix = {
            "sync": SYNC,
            "type": kind.encode(),
            "flags": 1 if under == "I" else 0,
            "id": self.archive_id,
            "sequence": len(self.blocks),
            "a": len(plain) + extra,
            "b": len(body_plain) + extra if body_plain else 0,
        }
        prefix = self.hook(f"prefix:{tag}", prefix)
        lead = struct.pack("<8s4sI16sQIQ", *prefix.values())
        seal_key = self.keys.seal_index if under == "I" else self.keys.seal_content or b""
        section = self._seal(seal_key, plain, crypto.AAD_BLOCK_HEADER + lead) if sealed else plain
        section = self.hook(f"header_section:{tag}", section)
        header_hash = self.hook(f"header_hash:{tag}", crypto.digest(lead, section))
        if foot is not None:
            body_section = foot(header_hash)
        elif sealed and body_plain:
            body_section = self._seal(seal_key, body_plain, crypto.AAD_BLOCK_BODY + header_hash)
        else:
            body_section = body_plain
        body_section = self.hook(f"body_section:{tag}", body_section)
        mac = b""
        if prefix["flags"] & 1:
            assert self.keys.block_mac is not None
            mac = self.hook(f"mac:{tag}", crypto.mac(self.keys.block_mac, header_hash, body_section))
        frame = lead + section + header_hash + body_section + mac
        frame += self.hook(f"whole:{tag}", crypto.digest(frame))
        frame = self.hook(f"frame:{tag}", frame)
        block = Block(tag, kind, len(self.blocks), self.end, frame, record, body)
        self.blocks.append(block)
        self.end += len(frame)
        if kind in ("PACK", "FCNT"):
            self.released.append((block.sequence, body))
        return block

    def _encoded(self, body: bytes, codec: str) -> tuple[int, bytes]:
        if codec != "stored":
            encoded = INPUT.encode(codec, body)
            if len(encoded) < len(body):
                return int(Codec.LZ4 if codec == "lz4" else Codec.ZSTD), encoded
        return int(Codec.STORED), body

    def _seal(self, seal_key: bytes, plain: bytes, aad: bytes) -> bytes:
        return b"".join(crypto.seal(Suite(self.suite), seal_key, self.random(24), plain, aad))

    # --- contents -------------------------------------------------------------------------------

    def pack(self, *contents: bytes) -> list[Place]:
        """A block of small contents; their places."""
        block = self.block("PACK", {16: encode_column([len(x) for x in contents])}, b"".join(contents))
        places = [(block.sequence, number) for number in range(len(contents))]
        for content, place in zip(contents, places, strict=True):
            self.contents[self.ident(content)] = content
            self.rows.append((self.ident(content)[:8], *place))
        return places

    def stream(self, hint: bytes | None = None, size: int | None = None, media_type: str | None = None) -> Stream:
        """``FHDR``."""
        record = {16: self.streams, 17: hint, 18: size, 19: media_type}
        self.block("FHDR", {k: v for k, v in record.items() if v is not None})
        self.streams += 1
        return Stream(self.streams - 1)

    def write(self, stream: Stream, *pieces: bytes, hole: int = 0, codec: str | None = None) -> None:
        """``FCNT``, after a hole."""
        offset = stream.end + hole
        record = {16: encode_column([len(x) for x in pieces]), 17: stream.number, 18: stream.blocks, 19: offset}
        block = self.block("FCNT", record, b"".join(pieces), codec=codec)
        stream.content += bytes(hole)
        for number, piece in enumerate(pieces):
            one, place = self.ident(piece), (block.sequence, number)
            self.rows.append((one[:8], *place))
            stream.parts.append((len(stream.content), len(piece), one, place))
            stream.content += piece
        stream.blocks += 1
        stream.end = len(stream.content)

    def parts(self, stream: Stream, hole: int) -> list[nodes.Part]:
        """The parts of a stream that ends with a hole."""
        found: list[nodes.Part] = []
        at = 0
        for offset, length, one, place in stream.parts:
            if offset > at:
                found.append(nodes.Part(at, offset - at, None, 0, 0))
            found.append(nodes.Part(offset, length, one, *place))
            at = offset + length
        if hole:
            found.append(nodes.Part(at, hole, None, 0, 0))
        return found

    def close(self, stream: Stream, *, hole: int = 0, tables: Iterable[int] = ()) -> Place:
        """``FEND``; ``tables`` are numbers of parts for sub-tables."""
        parts = self.parts(stream, hole)
        content = bytes(stream.content) + bytes(hole)
        if tables:
            subs, groups = [], []
            for count in tables:
                groups.append(parts[:count])
                subs.append(self.node("sub", *_split(nodes.part_leaf(parts[:count]))))
                parts = parts[count:]
            assert not parts
            block = self.tree(*(node for node, _ in subs))
            offset, parts = 0, []
            for number, (group, (_, one)) in enumerate(zip(groups, subs, strict=True)):
                length = sum(part.length for part in group)
                parts.append(nodes.Part(offset, length, one, block, number))
                offset += length
            table = self.node("table", *_split(nodes.part_inner(parts)))[0]
        else:
            table = self.node("table", *_split(nodes.part_leaf(parts)))[0]
        one = self.hook("stream_id", self.ident(content))
        record = {16: stream.number, 17: len(content), 18: stream.blocks, 19: one}
        block_ = self.block("FEND", record, table)
        self.contents[one] = content
        self.rows.append((one[:8], block_.sequence, 0))
        return block_.sequence, 0

    def attributes(self, *sets: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, int, int]]:
        """``TREX``; ids and places."""
        pieces = [self.hook("attributes", cbor.dumps([list(pair) for pair in pairs])) for pairs in sets]
        block = self.block("TREX", {16: encode_column([len(x) for x in pieces])}, b"".join(pieces))
        return [(self.ident(piece), block.sequence, number) for number, piece in enumerate(pieces)]

    # --- nodes ----------------------------------------------------------------------------------

    def node(self, name: str, logical: dict[int, Any], hints: dict[int, Any]) -> tuple[bytes, bytes]:
        """A node, as stored, and its id."""
        logical, hints = self.hook(f"logical:{name}", logical), self.hook(f"hints:{name}", hints)
        if self.grease:
            logical, hints = {**logical, 1999: b"grease"}, {**hints, 1999: b"grease"}
        raw = logical if isinstance(logical, bytes) else cbor.dumps(logical)
        return nodes.join_node(raw, cbor.dumps(hints)), crypto.digest(raw)

    def tree(self, *pieces: bytes) -> int:
        """``TREE``; its number."""
        return self.block("TREE", {16: encode_column([len(x) for x in pieces])}, b"".join(pieces)).sequence

    def leaf(
        self, path: bytes, entries: Sequence[Entry], *, partial: bool = False, name: str = ""
    ) -> tuple[bytes, bytes]:
        """A directory leaf; hooks by ``name``, by default the path."""
        logical = cbor2.loads(nodes.directory_record(entries, partial=partial))
        if self.kind == 2:
            return self.node(name or path.decode(), logical, vault_hints(entries))
        content = [(e.block, e.piece) for e in entries if e.has_content]
        children = [] if partial else [(e.block, e.piece) for e in entries if e.kind == Kind.DIRECTORY]
        attributes = [] if partial else [e.xattr_ref[1:] for e in entries if e.xattr_ref is not None]
        hints = cbor2.loads(nodes.directory_hints(path, content, children, attributes))
        return self.node(name or path.decode(), logical, hints)

    def inner(self, path: bytes, children: Sequence[InnerNode], name: str = "inner") -> tuple[bytes, bytes]:
        """A directory inner node."""
        logical = cbor2.loads(nodes.inner_record(children))
        hints = cbor2.loads(
            nodes.vault_hints([(c.archive, c.block, c.piece) for c in children])
            if self.kind == 2
            else nodes.directory_hints(path, [(c.block, c.piece) for c in children])
        )
        return self.node(name, logical, hints)

    def table(self, parts: Sequence[nodes.Part], name: str = "table", *, inner: bool = False) -> tuple[bytes, bytes]:
        """A part table as a node of its own."""
        make = nodes.part_inner if inner else nodes.part_leaf
        return self.node(name, *_split(make(parts, vault=True)))

    def directory(self, path: bytes, entries: Sequence[Entry]) -> tuple[bytes, bytes]:
        """A whole directory as one leaf, listed."""
        entries = sorted(entries, key=lambda e: e.name)
        self.note(path, entries)
        return self.leaf(path, entries)

    def note(self, path: bytes, entries: Iterable[Entry]) -> None:
        """Note entries for the sidecar."""
        for entry in entries:
            joined = path + b"/" + entry.name if path else entry.name
            content = self.contents.get(entry.content_id or b"", b"") if entry.kind == Kind.FILE else None
            self.listed.append(Listed(joined, entry, None if entry.marks & 2 else content))

    def place(self, path: bytes, block: int, piece: int) -> None:
        """Note where a directory's topmost node is."""
        self.paths.append((crypto.mac(self.keys.path_key, path)[:16], block, piece))

    def checkpoint(self) -> None:
        """``ckpt``."""
        first, previous = self.checkpointed
        listed = self.blocks[first:]
        record: dict[int, Any] = {16: first, 17: len(listed)}
        if previous is not None:
            record[18] = previous
        body = cbor.dumps(
            {1: b"".join(b.type.encode() for b in listed), 2: encode_column([len(b.frame) for b in listed])}
        )
        block = self.block("ckpt", record, body if listed else b"")
        self.checkpointed = (first + len(listed), block.offset)

    # --- metadata archives of a vault -----------------------------------------------------------

    def keyring(self, *editions: bytes) -> Block:
        """``keyr``."""
        return self.block("keyr", {}, self._map("keyring", {1: list(editions)}), codec="stored")

    def references(self, rows: Sequence[tuple[bytes, int, int, int]]) -> Block:
        """``XREF`` of rows of archive id, kind, length and live bytes."""
        record = {
            1: b"".join(row[0] for row in rows),
            2: bytes(row[1] for row in rows),
            3: encode_column([row[2] for row in rows]),
            4: encode_column([row[3] for row in rows]),
        }
        return self.block("XREF", {}, self._map("references", record))

    def snapshot(self, record: dict[int, Any]) -> Block:
        """``SNAP``."""
        return self.block("SNAP", {}, self._map("snapshot", record))

    def _map(self, name: str, record: dict[int, Any]) -> bytes:
        if self.grease:
            record = {**record, 1000: ["grease", {1: b"grease"}]}
        record = self.hook(name, record)
        return record if isinstance(record, bytes) else cbor.dumps(record)

    # --- end ------------------------------------------------------------------------------------

    def finish(self, root: tuple[bytes, int, int] | None = None) -> bytes:
        """Index, footer and tail; the whole archive."""
        own = list(self.blocks)
        groups: list[tuple[int, bytes, int]] = []
        for number, hook, rows in ((1, "look-up", sorted(self.rows)), (2, "paths", sorted(self.paths))):
            for part in self._groups(self.hook(hook, rows)):
                body = b"".join(row[0] for row in part)
                body += encode_column([row[1] for row in part]) + encode_column([row[2] for row in part])
                self.block("INDX", {16: number, 17: len(part)}, body)
                groups.append((number, part[0][0], len(part)))
        table = self.hook("block-table", [(b.type.encode(), b.whole, len(b.frame)) for b in own])
        first, offset = 0, len(self.header)
        for part in self._groups(table):
            body = b"".join(row[0] for row in part) + b"".join(row[1] for row in part)
            body += encode_column([row[2] for row in part])
            self.block("INDX", {16: 3, 17: len(part), 18: first, 19: offset}, body)
            groups.append((3, first.to_bytes(8, "big"), len(part)))
            first, offset = first + len(part), offset + sum(row[2] for row in part)
        leaves = self.blocks[len(own) :]
        record: dict[int, Any] = {
            1: len(own),
            2: leaves[0].offset if leaves else self.end,
            3: bytes(group[0] for group in groups),
            4: encode_column([len(leaf.frame) for leaf in leaves]),
            5: b"".join(leaf.whole for leaf in leaves),
            6: b"".join(group[1] for group in groups),
            7: encode_column([group[2] for group in groups]),
        }
        if self.kind == 3:
            assert root is not None
            size = sum(x.entry.size for x in self.listed if x.entry.has_content)
            record |= {8: list(root), 9: [len(self.listed), size]}
        if self.grease:
            record[1500] = "grease"
        self.block("INDX", {16: 4}, cbor.dumps(self.hook("root", record)))
        self.foot()
        return self.data

    def _groups(self, rows: list[Any]) -> list[list[Any]]:
        return [rows[at : at + self.leaf_entries] for at in range(0, len(rows), self.leaf_entries)]

    def foot(self) -> None:
        """``FOOT`` and tail."""
        chain = self.digest
        for block in self.blocks:
            chain = crypto.digest(chain, block.whole)
        last = self.blocks[-1]
        record = {
            16: self.end,
            17: len(self.blocks),
            18: [last.sequence, last.offset, len(last.frame), last.whole],
            19: chain,
            20: self.header,
        }
        foot = self.block("FOOT", record, foot=self._foot_body)
        numbers = struct.pack("<QQQ", foot.offset, len(foot.frame), foot.offset + len(foot.frame) + 64)
        numbers = self.hook("tail_numbers", numbers)
        tail = self.hook("tail", numbers + crypto.digest(numbers, self.digest) + END_MAGIC)
        parts = [self.header, *(block.frame for block in self.blocks), tail]
        self.data = b"".join(self.hook("parts", parts))

    def _foot_body(self, header_hash: bytes) -> bytes:
        macs = bytes(64)
        if self.suite:
            assert self.keys.foot_mac_secret is not None
            macs = crypto.mac(self.keys.foot_mac_index, header_hash) + crypto.mac(
                self.keys.foot_mac_secret, header_hash
            )
        macs = self.hook("foot_macs", macs)
        signature = crypto.sign(self.seed, self.signed_message(header_hash)) if self.signed else b""
        if "signature" in self.hooks:
            signature = self.hooks["signature"]((signature, self.signed_message(header_hash)))
        return bytes(macs + signature)

    def signed_message(self, header_hash: bytes) -> bytes:
        """What a signature covers."""
        return b"".join((crypto.SIGNATURE_LABEL, self.archive_id, self.digest, header_hash))

    def bodies(self, stop: str) -> list[bytes]:
        """Bodies that a reader releases before it stops: at ``start``, at a block's tag, or at the ``end``."""
        if stop == "start":
            return []
        before = len(self.blocks)
        if stop != "end":
            before = next(block.sequence for block in self.blocks if block.tag == stop)
        return [body for sequence, body in self.released if sequence < before]


def vault_hints(entries: Sequence[Entry]) -> dict[int, Any]:
    """Hints of a directory leaf of a metadata archive."""
    content = [(e.archive, e.block, e.piece) for e in entries if e.has_content]
    children = [(e.archive, e.block, e.piece) for e in entries if e.kind == Kind.DIRECTORY]
    attributes = [(e.xattr_archive, *e.xattr_ref[1:]) for e in entries if e.xattr_ref is not None]
    found: dict[int, Any] = cbor2.loads(nodes.vault_hints(content, children, attributes))
    return found


def _pad(plain: bytes, bucket: int) -> bytes:
    return plain + bytes(-len(plain) % bucket)


def _split(node: bytes) -> tuple[dict[int, Any], dict[int, Any]]:
    split = 4 + int.from_bytes(node[:4], "little")
    return cbor2.loads(node[4:split]), cbor2.loads(node[split:])


__all__ = ["Block", "Listed", "Maker", "Random", "Stream", "encode_deltas", "key"]
