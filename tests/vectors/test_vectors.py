"""The library against the conformance vectors."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

import rozenfmt as rz
from rozenfmt.errors import ArchiveError
from rozenfmt.format import records
from rozenfmt.format.decoder import decode_attributes
from rozenfmt.format.snapshots import CrossReferences, SnapshotBody

from .harness import FOLDER, Keyring, Outcome, cases, library, load, names

CLASSES = {"header", "no-recipient", "key", "block", "index", "truncated", "limit", "unsupported", "signature"}
POSITIVE = [name for name in names() if load(name)[1]["expected"] == "success"]
FIELDS = ("kind", "mode", "uid", "gid", "user", "group", "mtime_ns", "size", "target", "device", "link_group", "marks")


@pytest.mark.parametrize("name", names())
def test_agrees(name: str) -> None:
    data, sidecar = load(name)
    for keyring, expected, released, right in cases(sidecar):
        out = library(data, keyring)
        assert out.failure == expected, (name, keyring, out.error)
        assert out.digest() == released
        if right is not None:
            assert out.right == right
        if expected == "success" and "archives" in sidecar:
            compare(out, sidecar, keyring)


def compare(out: Outcome, sidecar: dict[str, Any], keyring: Keyring) -> None:
    """Headers, blocks and records are those of the sidecar."""
    assert len(out.archives) == len(sidecar["archives"])
    for found, told in zip(out.archives, sidecar["archives"], strict=True):
        record = found["header"].record
        assert (found["offset"], record.archive_id.hex()) == (told["offset"], told["archive_id"])
        assert (record.kind, record.suite, list(record.padding)) == (told["kind"], told["suite"], told["padding"])
        assert (record.signer.hex() if record.signer is not None else None) == told["signer"]
        assert [list(row[:2]) for row in record.stanzas or ()] == told["stanzas"]
        rows = [(b.type.decode(), b.sequence, offset, b.length) for b, offset, _ in found["blocks"]]
        assert rows == [(b["type"], b["sequence"], b["offset"], b["length"]) for b in told["blocks"]]
        for (block, _, _), one in zip(found["blocks"], told["blocks"], strict=True):
            if block.opened and block.type != b"FOOT":
                assert (blake3(block.body).hexdigest() if block.body else None) == one["body"]
        for block, _, what in found["blocks"]:
            if isinstance(what, SnapshotBody):
                assert records.encode(what) == block.body
            elif block.type == b"XREF" and block.opened and not records.decode(CrossReferences, block.body).extra:
                assert records.encode(CrossReferences.of(what)) == block.body


def printable(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", POSITIVE)
def test_reads_at_random(name: str, tmp_path: Path) -> None:
    """Entries and contents, by way of the index, of archives that stand alone or last."""
    data, sidecar = load(name)
    kinds = [archive["kind"] for archive in sidecar["archives"]]
    for archive in sidecar["archives"]:
        if archive["kind"] != 3:
            continue
        path = tmp_path / archive["archive_id"]
        path.write_bytes(data[archive["offset"] : archive["offset"] + archive["length"]])
        for keyring, expected, _, right in cases(sidecar):
            if expected == "success" and (right is not None or archive["suite"] == 0):
                read_one(path, keyring, archive, right="read" if archive["suite"] == 0 else right)
    assert set(kinds) <= {1, 2, 3, 4}


def read_one(path: Path, keyring: Keyring, told: dict[str, Any], *, right: str | None) -> None:
    identities: Any = keyring.identities()
    allow = keyring.allow_plain or not identities
    with rz.open(path, identities=identities, allow_plain=allow) as archive:
        found = sorted(entry.path_bytes.hex() for entry in archive.walk())
        assert found == sorted(one["path"] for one in told["entries"])
        for one in told["entries"]:
            entry = archive.entry(bytes.fromhex(one["path"]))
            raw = entry.raw
            for field in FIELDS:
                value = printable(getattr(raw, field))
                if not value and one[field] is None:
                    continue
                assert value == one[field], (one["printable"], field)
            if right != "read":
                continue
            assert [[n.hex(), v.hex()] for n, v in archive.xattrs(entry)] == one["xattrs"]
            if one["blake3"] is not None:
                assert blake3(archive.read(bytes.fromhex(one["path"]))).hexdigest() == one["blake3"]


@pytest.mark.parametrize("name", POSITIVE)
def test_check(name: str, tmp_path: Path) -> None:
    """The public function agrees with what the harness does in memory."""
    data, sidecar = load(name)
    path = tmp_path / "archive"
    path.write_bytes(data)
    keyring = Keyring.of(sidecar)
    identities: Any = keyring.identities()
    report = rz.check(path, identities=identities, allow_plain=keyring.allow_plain)
    assert report.archives == len(sidecar["archives"])
    assert not report.damages
    assert rz.check(path).archives == len(sidecar["archives"])


@pytest.mark.parametrize("name", [name for name in names() if name not in POSITIVE][::7])
def test_check_refuses(name: str, tmp_path: Path) -> None:
    data, sidecar = load(name)
    path = tmp_path / "archive"
    path.write_bytes(data)
    keyring = Keyring.of(sidecar)
    identities: Any = keyring.identities()
    with pytest.raises(ArchiveError) as caught:
        rz.check(path, identities=identities, allow_plain=keyring.allow_plain)
    assert caught.value.failure_class == sidecar["expected"]


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX systems")
def test_extracts(tmp_path: Path) -> None:
    data, sidecar = load("tree-1-stored")
    source, target = tmp_path / "archive", tmp_path / "out"
    source.write_bytes(data)
    identities: Any = Keyring.of(sidecar).identities()
    with rz.open(source, identities=identities) as archive:
        archive.extract(target, owners=False)
    for one in sidecar["archives"][0]["entries"]:
        path = os.fsencode(target) + b"/" + bytes.fromhex(one["path"])
        if one["blake3"] is not None:
            with open(path, "rb") as file:
                assert blake3(file.read()).hexdigest() == one["blake3"]


def test_every_class_and_every_type() -> None:
    seen = Counter(load(name)[1]["expected"] for name in names())
    assert set(seen) == CLASSES | {"success"}
    types = {block["type"] for n in POSITIVE for a in load(n)[1]["archives"] for block in a["blocks"]}
    assert types >= {"FHDR", "FCNT", "FEND", "PACK", "TREE", "TREX", "INDX", "FOOT", "DIRY", "ckpt", "prty"}
    assert types >= {"SNAP", "XREF", "keyr"}


def test_attributes_of_sidecars() -> None:
    """The sidecars' attributes come out of the archives' own TREX blocks."""
    data, sidecar = load("small")
    out = library(data, Keyring.of(sidecar))
    (trex,) = [block for block, _, _ in out.archives[0]["blocks"] if block.type == b"TREX"]
    assert decode_attributes(trex.body) == ((b"user.a", b"1"), (b"user.b", b""))


def test_generated() -> None:
    program = FOLDER / "generate.py"
    done = subprocess.run([sys.executable, str(program), "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


# --- damage --------------------------------------------------------------------------------------


def refused(data: bytes, keyring: Keyring, whole: bytes) -> None:
    out = library(data, keyring)
    assert out.failure != "success"
    assert bytes(out.released) == whole[: len(out.released)]


def damage(name: str, flips: int, cuts: int) -> None:
    """Turn one bit of so many bytes, and cut at so many places; with keys and without."""
    data, sidecar = load(name)
    chance = random.Random(name)
    for keyring, expected, _, _ in cases(sidecar)[:2]:
        whole = bytes(library(data, keyring).released)
        for at in chance.sample(range(len(data)), min(len(data), flips)):
            refused(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :], keyring, whole)
        ends = {archive["offset"] for archive in sidecar.get("archives", ())} - {
            0
        }  # a joined object cut there is whole
        if expected != "success" and sidecar["clause"] == "11":
            cuts = 0  # it is cut off already, or has something behind it
        for end in chance.sample(range(len(data)), min(len(data), cuts)):
            if end not in ends:
                refused(data[:end], keyring, whole)


SMALL = [name for name in POSITIVE if len(load(name)[0]) < 8_192]


@pytest.mark.parametrize("name", POSITIVE)
def test_samples_of_damage(name: str) -> None:
    damage(name, 12, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_much_damage(name: str) -> None:
    """Every byte of the smallest archives, of others every second or third."""
    size = len(load(name)[0])
    damage(name, size if size < 3_000 else 2_000, size if size < 3_000 else 800)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if name not in POSITIVE and len(load(name)[0]) < 8_192])
def test_damage_of_negatives(name: str) -> None:
    damage(name, 20, 5)
