"""The second reader, which knows the specification only, against the vectors and against a real archive."""

from __future__ import annotations

import os
import random
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

import rozenfmt as rz

from ..second_reader import model, reader  # noqa: TID252
from ..second_reader.snapshots import Metadata  # noqa: TID252
from .harness import Keyring, cases, load, names

POSITIVE = [name for name in names() if load(name)[1]["expected"] == "success"]


def second(data: bytes, keyring: Keyring) -> tuple[str, reader.Result]:
    try:
        return "success", reader.read(
            data,
            x25519_private=keyring.private,
            passphrases=keyring.passphrases,
            verify_key=keyring.verify_key,
            allow_plain=keyring.allow_plain,
        )
    except model.SpecError as error:
        return error.failure_class, error.result


@pytest.mark.parametrize("name", names())
def test_agrees(name: str) -> None:
    data, sidecar = load(name)
    for keyring, expected, released, right in cases(sidecar):
        failure, result = second(data, keyring)
        assert failure == expected, (name, keyring)
        assert sum(archive.released_bytes for archive in result.archives) == released["bytes"]
        if len(result.archives) == 1:
            assert result.archives[0].released.hex() == released["blake3"]
        if right is not None:
            rights = {a.right for a in result.archives if a.header is not None and a.header.suite != 0}
            assert rights <= {right, None}
        if expected == "success" and "archives" in sidecar:
            for archive, told in zip(result.archives, sidecar["archives"], strict=True):
                compare(archive, told)


def compare(archive: reader.Archive, told: dict[str, Any]) -> None:
    """Header, blocks, entries and contents are those of the sidecar."""
    header = archive.header
    assert header is not None
    assert (archive.offset, header.archive_id.hex(), header.kind, header.suite) == tuple(
        told[field] for field in ("offset", "archive_id", "kind", "suite")
    )
    assert (list(header.padding), header.creator) == (told["padding"], told["creator"])
    assert (header.signer.hex() if header.signer is not None else None) == told["signer"]
    assert [[stanza.type, stanza.right] for stanza in header.stanzas] == told["stanzas"]
    assert archive.blocks == [(b["type"], b["sequence"], b["length"]) for b in told["blocks"]]
    if archive.right is not None and archive.metadata is not None:
        compare_snapshot(archive.metadata, {b["type"]: b["map"] for b in told["blocks"] if "map" in b})
    if archive.right is None or header.kind != 3:
        return
    assert [entry.path.hex() for entry in archive.tree] == [one["path"] for one in told["entries"]]
    for entry, one in zip(archive.tree, told["entries"], strict=True):
        for field in ("kind", "mode", "uid", "gid", "mtime_ns", "size", "marks"):
            assert getattr(entry, field) == one[field]
        for field in ("user", "group", "target", "link_group", "content_id"):
            value = getattr(entry, field)
            assert (value.hex() if value is not None else None) == one[field]
        assert (list(entry.device) if entry.device is not None else None) == one["device"]
        if archive.right == "read":
            assert [[n.hex(), v.hex()] for n, v in entry.xattrs or []] == one["xattrs"]
            if one["blake3"] is not None:
                assert blake3(archive.contents(entry.path)).hexdigest() == one["blake3"]


def compare_snapshot(found: Metadata, told: dict[str, Any]) -> None:
    """SNAP, XREF and the last keyr are those of the sidecar."""
    snap, keys = found.snapshot, told["SNAP"]
    assert snap is not None
    assert [f"h'{one.hex()}'" for one in found.editions] == told["keyr"]["1"]
    assert "".join(one.archive_id.hex() for one in found.references) == told["XREF"]["1"][2:-1]
    assert bytes(one.kind for one in found.references).hex() == told["XREF"]["2"][2:-1]
    assert [f"h'{snap.vault_id.hex()}'", f"h'{snap.host_id.hex()}'"] == [keys["1"], keys["2"]]
    assert [f'"{snap.label}"', f'"{snap.set_name}"', snap.sequence] == [keys["3"], keys["4"], keys["5"]]
    assert ([f"h'{one.hex()}'" for one in snap.parent] if snap.parent is not None else None) == keys.get("6")
    assert "".join(one.hex() for one in snap.heads) == keys["7"][2:-1]
    root = [f"h'{snap.root_id.hex()}'", snap.root_archive, *snap.root_at]
    assert [snap.mode, snap.times, root, list(snap.totals)] == [keys[key] for key in ("8", "9", "10", "11")]
    assert [f'"{tag}"' for tag in snap.tags] == keys["13"]
    assert [snap.counts, snap.parent_state, snap.flags] == [keys[key] for key in ("14", "19", "20")]
    rows = [[f"h'{old.hex()}'", f"h'{new.hex()}'", kind] for old, new, kind in snap.moves]
    assert rows == keys.get("15", [])
    assert [f"h'{path.hex()}'" for path in snap.deletions] == keys.get("16", [])
    assert [[f"h'{path.hex()}'", f'"{word}"', f'"{text}"'] for path, word, text in snap.problems] == keys.get("17", [])
    assert [[f"h'{path.hex()}'", answer] for path, answer in snap.conflicts] == keys.get("18", [])


@pytest.mark.parametrize("name", ["data", "data-ids-unchecked", "data-look-up-place", "metadata"])
def test_with_the_id_key_of_the_host(name: str) -> None:
    data, sidecar = load(name)
    told = load(name if sidecar["expected"] == "success" else "data")[1]["archives"][0]
    keyring = Keyring.of(sidecar)
    key = bytes.fromhex(told["id_key"])
    if name in ("data", "metadata"):
        reader.read(data, x25519_private=keyring.private, id_key=key)
    else:
        with pytest.raises(model.SpecError) as caught:
            reader.read(data, x25519_private=keyring.private, id_key=key)
        assert caught.value.failure_class == "index"
    with pytest.raises(model.SpecError):
        reader.read(data, x25519_private=keyring.private, id_key=bytes(32))


@pytest.mark.parametrize("name", POSITIVE)
def test_reads_at_random(name: str) -> None:
    data, sidecar = load(name)
    keyring = Keyring.of(sidecar)
    for told in sidecar["archives"]:
        if told["kind"] != 3 or (sidecar["right"] != "read" and told["suite"] != 0):
            continue
        part = data[: told["offset"] + told["length"]]  # the last archive of what precedes
        for one in told["entries"]:
            if one["blake3"] is not None:
                content, _ = reader.open_random(
                    part,
                    bytes.fromhex(one["path"]),
                    x25519_private=keyring.private,
                    passphrases=keyring.passphrases,
                    verify_key=keyring.verify_key,
                    allow_plain=True,
                )
                assert blake3(content).hexdigest() == one["blake3"]


@pytest.mark.parametrize("name", ["small", "tree-2-zstd-signed", "checkpoints", "inner", "sub-tables", "streams"])
def test_salvages(name: str) -> None:
    """Of a cut archive, what comes back under its own name is what it was; whole, everything comes back."""
    data, sidecar = load(name)
    private = Keyring.of(sidecar).private
    told = sidecar["archives"][0]
    whole = {bytes.fromhex(e["path"]): e["blake3"] for e in told["entries"] if e["blake3"] is not None}
    starts = [block["offset"] for block in told["blocks"]]
    for end in [len(data), *starts[1:], *(start + 60 for start in starts)]:
        found = reader.salvage(data[:end], x25519_private=private)
        for path, content in found.items():
            if not path.startswith(b"lost+found/"):
                assert blake3(content).hexdigest() == whole[path]
        if end == len(data):
            assert {path for path in found if not path.startswith(b"lost+found/")} == set(whole)


@pytest.mark.parametrize("name", [name for name in POSITIVE if len(load(name)[0]) < 8_192])
def test_refuses_damage(name: str) -> None:
    data, sidecar = load(name)
    keyring = Keyring.of(sidecar)
    ends = {archive["offset"] for archive in sidecar["archives"]}
    chance = random.Random(name)
    for at in chance.sample(range(len(data)), 10):
        assert second(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :], keyring)[0] != "success"
        if at not in ends - {0}:
            assert second(data[:at], keyring)[0] != "success"


# --- a real archive ------------------------------------------------------------------------------


def awkward(root: bytes) -> None:
    """Entries that a library of source files does not have."""
    os.mkdir(root)
    for name, content in ((b"empty", b""), (b"\xff\xfe not utf-8", b"x"), (b"line\nbreak", b"y" * 5000)):
        with open(root + b"/" + name, "wb") as file:
            file.write(content)
    os.symlink(b"nowhere/\xff", root + b"/link")
    os.link(root + b"/line\nbreak", root + b"/hard")
    os.mkfifo(root + b"/fifo", 0o600)
    with open(root + b"/sparse", "wb") as file:
        file.seek(9_000_000)
        file.write(b"end")
        file.truncate(12_000_000)
    with open(root + b"/big", "wb") as file:
        file.write(blake3(b"big").digest(9_000_001))
    os.mkdir(root + b"/deep")
    os.mkdir(root + b"/deep/empty")
    here = os.getcwd()
    os.chdir(root)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(b"socket")
    finally:
        os.chdir(here)


def real(source: bytes, path: Path, **options: Any) -> None:
    identity = rz.Identity(bytes(range(32)))
    with rz.create(path, recipients=[identity.recipient], **options) as archive:
        archive.add_tree(source)
    result = reader.read(path.read_bytes(), x25519_private=[identity._x25519])
    tree = {entry.path: entry for entry in result.archives[0].tree}
    top = next(p for p in tree if p.rpartition(b"/")[2] == os.path.basename(source))
    seen = {top}
    for directory, folders, files in os.walk(source):
        for name in folders + files:
            full = directory + b"/" + name
            stored = top + full[len(source) :]
            seen.add(stored)
            check(full, tree[stored], result.archives[0], stored)
    assert seen >= {p for p in tree if p.startswith(top)}


def check(full: bytes, entry: model.Entry, archive: reader.Archive, stored: bytes) -> None:
    info = os.lstat(full)
    assert (entry.mode, entry.uid, entry.gid) == (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
    assert entry.mtime_ns == info.st_mtime_ns
    if stat.S_ISREG(info.st_mode):
        with open(full, "rb") as file:
            assert archive.contents(stored) == file.read()
        assert (entry.link_group is not None) == (info.st_nlink > 1)
    elif stat.S_ISLNK(info.st_mode):
        assert entry.target == os.readlink(full)
    else:
        kinds = {stat.S_IFDIR: 2, stat.S_IFIFO: 4, stat.S_IFSOCK: 7}
        assert entry.kind == kinds[stat.S_IFMT(info.st_mode)]


@pytest.mark.parametrize("options", [{}, {"cipher": "xaes-256-gcm", "compression": "lz4"}])
def test_a_real_archive(tmp_path: Path, options: dict[str, Any]) -> None:
    root = os.fsencode(tmp_path / "tree")
    awkward(root)
    real(root, tmp_path / "archive", **options)


@pytest.mark.slow
def test_a_big_archive(tmp_path: Path) -> None:
    source = os.environ.get("ROZENFMT_TREE") or os.fspath(Path(os.__file__).parent / "encodings")
    real(os.fsencode(source), tmp_path / "archive")
