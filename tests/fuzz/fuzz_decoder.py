"""Fuzz everything that reads hostile bytes: only archive errors may come out.

Run as ``python tests/fuzz/fuzz_decoder.py -runs=N CORPUS``.  An empty or missing corpus directory
is filled with small archives of each suite, nodes and records first.  The first byte of an input chooses
what reads the rest; archives are read with fixed keys, and the hashes that need no key are made right again
for half of the inputs, so that the deep checks are reached.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rozenfmt.errors import ArchiveError
from rozenfmt.format import cbor, codecs, crypto, decoder, frame, header, nodes, records, snapshots, varint
from rozenfmt.format.registry import Suite
from tests.format.helpers import a_snapshot, browse_keys, read, released, small_archive, tree_node, with_keys

SUITES = tuple(Suite)
RECORDS = (
    records.HeaderRecord,
    records.BlockRecord,
    records.PiecesRecord,
    records.StreamStart,
    records.StreamContent,
    records.StreamEnd,
    records.CheckpointRecord,
    records.CheckpointBody,
    records.IndexRecord,
    records.RootBody,
    records.FootRecord,
    records.DirectoryBody,
    nodes.DirectoryRecord,
    nodes.InnerRecord,
    nodes.PartsRecord,
    nodes.HintsRecord,
    snapshots.SnapshotBody,
    snapshots.CrossReferences,
    snapshots.KeyringBody,
)


def repair(data: bytes) -> bytes:
    """Make the hashes that need no key right, as far as frames can be told."""
    out = bytearray(data)
    try:
        at = header.header_section_length(out[:48])
        out[16:48] = crypto.digest(out[:16], out[48:at])
        archive_id = header.parse_header(bytes(out)).archive_id
        sequence = 0
        while True:
            prefix = frame.parse_prefix(bytes(out[at : at + frame.PREFIX_SIZE]), archive_id, sequence)
            end = at + prefix.frame_length
            if end > len(out):
                break
            head = at + frame.PREFIX_SIZE + prefix.header_length
            out[head : head + 32] = crypto.digest(out[at:head])
            out[end - 32 : end] = crypto.digest(out[at : end - 32])
            at, sequence = end, sequence + 1
    except Exception:  # noqa: BLE001 -- this is the fuzzer's own parser; what it cannot follow stays as it is
        pass
    return bytes(out)


def read_archive(choice: int, data: bytes) -> None:
    """Read with each right; what comes out is what went in, or nothing."""
    small = small_archive(SUITES[choice % 3])
    keys = (small.keys, browse_keys(small.keys), None)[choice // 3 % 3]
    if choice // 9 % 2:
        data = repair(data)
    choose = with_keys(keys)
    events, error = read(data, choose)  # anything but an ArchiveError escapes from here
    heads = [event.header for event in events if isinstance(event, decoder.HeaderEvent)]
    if all(head.suite is not Suite.PLAIN for head in heads):  # anybody can write a plain archive
        known = released(read(small.data, choose)[0])
        assert released(events) == known[: len(released(events))]
    split, other = read([data[:7], data[7:300], data[300:]], choose)
    assert len(split) == len(events)
    assert type(other) is type(error)


def read_node(_: int, data: bytes) -> None:
    """A node that is accepted gives the same id again."""
    node = decoder.check_node(nodes.Node.decode(data))
    if node.type in (nodes.NodeType.DIRECTORY, nodes.NodeType.PARTIAL):
        logical = nodes.directory_record(node.entries(), partial=node.type == nodes.NodeType.PARTIAL)
        assert node.record.extra or crypto.digest(logical) == node.id


def read_vault_node(_: int, data: bytes) -> None:
    """Likewise with the hints of a vault."""
    node = decoder.check_node(nodes.Node.decode(data), vault=True)
    if node.type == nodes.NodeType.DIRECTORY:
        assert node.record.extra or crypto.digest(nodes.directory_record(node.entries(vault=True))) == node.id


def read_snapshot(choice: int, data: bytes) -> None:
    """Bodies of ``SNAP`` and ``XREF``, with the rules across their fields."""
    if choice % 2:
        assert records.encode(snapshots.SnapshotBody.decode(data)) == data
    else:
        assert len(snapshots.CrossReferences.decode(data, bytes(16))) < len(data)


def read_cbor(_: int, data: bytes) -> None:
    """What is accepted has one encoding."""
    assert cbor.dumps(cbor.loads(data)) == data


def read_record(choice: int, data: bytes) -> None:
    """What is accepted is written back as it was."""
    cls: Any = RECORDS[choice % len(RECORDS)]
    assert records.encode(records.decode(cls, data)) == data


def read_header(_: int, data: bytes) -> None:
    """A header with its digest made right."""
    length = header.header_section_length(data)
    if len(data) >= length:
        data = data[:16] + crypto.digest(data[:16], data[48:length]) + data[48:]
    found = header.parse_header(data)
    assert records.encode(found.record) == found.section[48:-64]


def read_body(choice: int, data: bytes) -> None:
    """A body of some codec."""
    size = int.from_bytes(data[:3], "little") or 1
    assert len(codecs.decode(choice % 4, data[3:], size)) == size


def read_column(choice: int, data: bytes) -> None:
    """A column of numbers."""
    assert varint.encode_column(varint.decode_column(data, choice)) == data


def read_attributes(_: int, data: bytes) -> None:
    """Extended attributes."""
    rows = decoder.decode_attributes(data)
    assert cbor.dumps([list(row) for row in rows]) == data


READERS: Sequence[Callable[[int, bytes], None]] = (
    read_archive,
    read_node,
    read_cbor,
    read_record,
    read_header,
    read_body,
    read_column,
    read_attributes,
    read_vault_node,
    read_snapshot,
)


def test_one_input(data: bytes) -> None:
    """The fuzzer's entry: two bytes of choice, then the input."""
    if len(data) < 2:
        return
    with contextlib.suppress(ArchiveError):
        READERS[data[0] % len(READERS)](data[1], data[2:])


test_one_input.__test__ = False  # type: ignore[attr-defined]  # pytest runs it through test_corpus.py


def seeds() -> list[bytes]:
    """Small inputs of every kind, all valid."""
    found = []
    for suite in SUITES:
        for grease in (False, True):
            data = small_archive(suite, grease=grease).data
            found += [bytes([0, suite + 3 * right + 9 * fixed]) + data for right in range(3) for fixed in range(2)]
        section = small_archive(suite).header.section
        found += [b"\4\0" + section, b"\3\0" + section[48:-64]]
    entries = [
        nodes.Entry(b"a", nodes.Kind.FILE, size=3, content_id=bytes(32), marks=1),
        nodes.Entry(b"b", nodes.Kind.DIRECTORY, uid=5, child=bytes(32)),
        nodes.Entry(b"c", nodes.Kind.SYMLINK, target=b"t", mtime_ns=-1),
        nodes.Entry(b"d", nodes.Kind.BLOCK_DEVICE, device=(1, 2), xattr_ref=(bytes(32), 1, 2)),
        nodes.Entry(b"e", nodes.Kind.FILE, link_group=bytes(16)),
    ]
    node = tree_node(b"p", entries)
    child = nodes.InnerNode(b"a", 1, bytes(32), 0, 0)
    parts = [nodes.Part(0, 5, bytes(32), 1, 2), nodes.Part(5, 9, None, 0, 0)]
    tables = [
        nodes.join_node(nodes.inner_record([child]), nodes.directory_hints(b"", [(0, 0)])),
        nodes.part_leaf(parts),
        nodes.part_inner(parts[:1]),
    ]
    found += [b"\1\0" + one for one in (node, *tables)]
    found += [b"\2\0" + node[4 : 4 + int.from_bytes(node[:4], "little")]]
    places = [(0, 3, 1), (2, 4, 5)]
    found.append(b"\x08\0" + nodes.join_node(nodes.directory_record(entries), nodes.vault_hints(*[places[:1]] * 3)))
    found.append(b"\x08\0" + nodes.part_leaf(parts, vault=True))
    references = [snapshots.Reference(bytes([n]) * 16, n, 9, 5) for n in (1, 2)]
    found.append(b"\x09\0" + records.encode(snapshots.CrossReferences.of(references)))
    found.append(b"\x09\1" + records.encode(a_snapshot()))
    for codec, form in ((0, "none"), (1, "zstd"), (2, "lz4")):
        body = codecs.encode(b"abc" * 100, codecs.Compression.parse(form))[1]
        found.append(bytes([5, codec]) + (300).to_bytes(3, "little") + bytes(body))
    found.append(b"\6\3" + varint.encode_column([1, 2**40, 300]))
    found.append(b"\7\0" + cbor.dumps([[b"user.a", b"1"], [b"user.b", b""]]))
    return found


def fill(corpus: Path) -> None:
    """Write the seeds, if there is nothing yet."""
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for seed in seeds():
            (corpus / crypto.digest(seed).hex()[:16]).write_bytes(seed)


def main() -> None:
    """Run under atheris."""
    import atheris  # type: ignore[import-untyped]

    directories = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    if directories:
        fill(directories[0])
        if not any(path.stat().st_size > 2 for path in directories[0].iterdir()):
            sys.exit("the corpus is empty")
    else:
        sys.exit("usage: fuzz_decoder.py [-runs=N] CORPUS")
    atheris.instrument_all()
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
