"""The golden vaults of the specification, read by the library and by the second reader."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

import rozenfmt as rz
from rozenfmt.errors import ArchiveError
from rozenfmt.format.nodes import Kind
from rozenfmt.keys import Identity, Recipient
from rozenfmt.storage import open_storage
from rozenfmt.vault.archives import Archives
from rozenfmt.vault.keyring import Keyring, open_keyring
from rozenfmt.vault.loading import load_view
from rozenfmt.vault.snapshot import Snapshot
from rozenfmt.vault.tombstones import parse_tombstone
from tests.second_reader import reader
from tests.second_reader import vault as second
from tests.second_reader.model import DIRECTORY, FILE, SpecError

FOLDER = Path(__file__).parents[2] / "spec" / "vectors" / "vaults"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
FIELDS = ("kind", "mode", "uid", "gid", "mtime_ns", "marks", "user", "group", "target", "link_group", "content_id")
OPENINGS = [
    pytest.param(name, number, id=f"{name}-{number}")
    for name in NAMES
    for number in range(len(json.loads((FOLDER / f"{name}.json").read_text())["openings"]))
]


@cache
def load(name: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    return second.read_folder(FOLDER / name), json.loads((FOLDER / f"{name}.json").read_text())


def hexed(value: Any) -> Any:
    """Bytes as hexadecimal, tuples as lists, all the way down."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [hexed(item) for item in value]
    return int(value) if isinstance(value, int) else value


def pin_of(opening: dict[str, Any]) -> tuple[int, list[bytes]] | None:
    pin = opening.get("pin")
    return (pin[0], [bytes.fromhex(digest) for digest in pin[1]]) if pin is not None else None


def entry_row(path: bytes, entry: Any, *, device: Any) -> dict[str, Any]:
    """What an entry says, in the form of the sidecars."""
    row = {name: hexed(getattr(entry, name)) for name in FIELDS}
    row["size"] = entry.size if entry.kind == FILE else None
    row["target"] = row["target"] if entry.kind == Kind.SYMLINK else None
    return {"path": path.hex(), **row, "device": hexed(device)}


def told_row(told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in ("path", "size", "device", *FIELDS)}


def attempt(read: Callable[[], Any]) -> tuple[str, Any]:
    """Class of the failure, and what was read."""
    try:
        return "success", read()
    except (SpecError, ArchiveError) as error:
        return error.failure_class, None


def check(told: dict[str, Any], right: str, content: Callable[[], bytes], xattrs: Callable[[], Any]) -> None:
    """Content and attributes of an entry, by either reader."""
    if told["content"] is not None and (right == "read" or told["size"]):
        failure, found = attempt(content)
        expected = told["content"] if right == "read" else "no-recipient"
        assert failure == expected, told["printable"]
        assert found is None or blake3(found).hexdigest() == told["blake3"]
    failure, found = attempt(xattrs)
    assert failure == (told["attributes"] if right == "read" or not told["xattrs"] else "no-recipient")
    assert found is None or hexed(found) == told["xattrs"]


# --- the second reader ---------------------------------------------------------------------------


def open_second(name: str, opening: dict[str, Any]) -> second.Vault:
    objects, told = load(name)
    vault_id = opening.get("vault_id")
    return second.Vault(
        objects,
        x25519_private=[bytes.fromhex(told["people"][who]["x25519"]) for who in opening["people"]],
        owner=bytes.fromhex(opening.get("owner") or told["owner"]),
        vault_id=bytes.fromhex(vault_id) if vault_id is not None else None,
        pin=pin_of(opening),
    )


@pytest.mark.parametrize(("name", "number"), OPENINGS)
def test_the_second_reader(name: str, number: int) -> None:
    told = load(name)[1]
    opening = told["openings"][number]
    if opening["expected"] != "success":
        with pytest.raises(SpecError) as caught:
            open_second(name, opening)
        assert caught.value.failure_class == opening["expected"]
        return
    vault = open_second(name, opening)
    assert {1: "read", 2: "browse"}[vault.keyring.right] == opening["right"]
    if "heads" in opening:
        assert [head.digest.hex() for head in vault.view.heads] == opening["heads"]
    assert hexed(sorted(vault.view.missing)) == opening.get("missing", [])
    if "vault_id" in opening:
        assert vault.view.vault_id.hex() == opening["vault_id"]
        return
    refused = {key: value for key, value in told["refused"].items() if opening["right"] == "read" or value != "key"}
    assert vault.refused == refused
    assert sorted(vault.snapshots) == [one["object"] for one in told["snapshots"]]
    for one in told["snapshots"]:
        compare_second(vault, vault.snapshots[one["object"]], one, opening["right"])


def compare_second(vault: second.Vault, listed: second.Listed, told: dict[str, Any], right: str) -> None:
    snap = listed.snapshot
    assert (listed.archive_id.hex(), snap.host_id.hex(), snap.label) == (
        told["archive_id"],
        told["host_id"],
        told["label"],
    )
    names = ("sequence", "parent", "heads", "mode", "times", "totals", "sources", "tags", "counts", "moves")
    for name in (*names, "deletions", "problems", "conflicts", "parent_state", "flags"):
        assert hexed(getattr(snap, name)) == told[name], name
    assert snap.set_name == told["set"]
    assert [hexed(row) for row in listed.references] == told["references"]
    assert listed.warnings == told["warnings"]
    if told["walk"] != "success":
        with pytest.raises(SpecError) as caught:
            list(vault.walk(listed))
        assert caught.value.failure_class == told["walk"]
        return
    walked = list(vault.walk(listed))
    lost = {one.path.hex(): one.error.failure_class for one in walked if one.error is not None}
    assert lost == told["lost"]
    found = sorted((one for one in walked if one.entry is not None), key=lambda one: one.path)
    assert [one.path.hex() for one in found] == [entry["path"] for entry in told["entries"]]
    for one, entry in zip(found, told["entries"], strict=True):
        assert one.entry is not None
        assert entry_row(one.path, one.entry, device=one.entry.device) == told_row(entry)
        check_second(vault, listed, one, entry, right)


def check_second(
    vault: second.Vault, listed: second.Listed, one: second.Found, told: dict[str, Any], right: str
) -> None:
    """Content and attributes."""
    check(told, right, lambda: vault.content(listed, one), lambda: vault.xattrs(listed, one))


@pytest.mark.parametrize("name", NAMES)
def test_tombstones(name: str) -> None:
    objects, told = load(name)
    opening = told["openings"][0]
    assert {one for one in objects if one.startswith("gone/")} == set(told["tombstones"])
    for object_name, expected in told["tombstones"].items():
        host_id, archive_id = (bytes.fromhex(part) for part in object_name.split("/")[1:])
        vault = open_second(name, opening)
        recipient = bytes.fromhex(told["owner"])
        owner = Recipient(recipient[:32], recipient[32:])
        if expected == "success":
            row = vault.tombstone(host_id, archive_id)
            read = parse_tombstone(objects[object_name], owner, vault_id=vault.view.vault_id, name=object_name)
            assert row == (read.foot_hash, read.made_ns, read.why)
        else:
            with pytest.raises(SpecError) as caught:
                vault.tombstone(host_id, archive_id)
            with pytest.raises(ArchiveError) as refused:
                parse_tombstone(objects[object_name], owner, name=object_name)
            assert caught.value.failure_class == refused.value.failure_class == expected


# --- the library ---------------------------------------------------------------------------------


def identities(told: dict[str, Any], opening: dict[str, Any]) -> list[Identity]:
    return [Identity(bytes.fromhex(told["people"][who]["seed"])) for who in opening["people"]]


def open_library(name: str, opening: dict[str, Any]) -> tuple[Archives, Keyring]:
    told = load(name)[1]
    recipient = bytes.fromhex(opening.get("owner") or told["owner"])
    storage = open_storage(FOLDER / name)
    pin = pin_of(opening)
    view = load_view(
        storage,
        owner=Recipient(recipient[:32], recipient[32:]),
        pin=(pin[0], tuple(pin[1])) if pin is not None else None,
        vault_id=bytes.fromhex(opening["vault_id"]) if "vault_id" in opening else None,
    )
    keyring = open_keyring(view, identities(told, opening))
    return Archives(storage, keyring), keyring


@pytest.mark.parametrize(("name", "number"), OPENINGS)
def test_the_library(name: str, number: int) -> None:
    told = load(name)[1]
    opening = told["openings"][number]
    if opening["expected"] != "success":
        with pytest.raises(ArchiveError) as caught:
            open_library(name, opening)
        assert caught.value.failure_class == opening["expected"]
        return
    archives, keyring = open_library(name, opening)
    assert keyring.right.name.lower() == opening["right"]
    if "heads" in opening:
        assert hexed(keyring.view.digests) == opening["heads"]
    assert hexed(keyring.view.missing_parents) == opening.get("missing", [])
    if "vault_id" in opening:
        assert keyring.view.vault_id.hex() == opening["vault_id"]
        return
    found = archives.snapshots()
    problems: dict[str, set[str]] = {}
    for problem in found.problems:
        problems.setdefault(problem.object, set()).add(problem.what)
    wanted = {key: {value} for key, value in told["refused"].items() if key.startswith(("meta/", "data/"))}
    wanted |= {one["object"]: set(one["warnings"]) for one in told["snapshots"] if one["warnings"]}
    assert problems == wanted
    assert sorted(one.object for one in found) == [one["object"] for one in told["snapshots"]]
    snapshots = {one.object: one for one in found}
    for one in told["snapshots"]:
        compare_library(snapshots[one["object"]], one, opening["right"])


def compare_library(snap: Snapshot, told: dict[str, Any], right: str) -> None:
    assert (snap.id, snap.host_id.hex(), snap.name) == (told["archive_id"], told["host_id"], told["set"])
    assert (snap.sequence, snap.mode) == (told["sequence"], {1: "snapshot", 2: "worm"}[told["mode"]])
    assert ([hexed(snap.parent), hexed(snap.parent_foot)] if snap.parent is not None else None) == told["parent"]
    assert [hexed(snap.heads), int(snap.parent_state)] == [told["heads"], told["parent_state"]]
    assert [snap.started_ns, snap.finished_ns] == told["times"]
    assert [[hexed(one.name), hexed(one.origin), int(one.kind)] for one in snap.sources] == told["sources"]
    assert list(snap.tags) == told["tags"]
    counts = snap.counts
    names = ("new", "changed", "metadata", "moved", "deleted", "unchanged", "problems", "conflicts", "directories")
    assert [getattr(counts, name) for name in names] == told["counts"]
    assert [hexed(snap.moves), hexed(snap.deleted)] == [told["moves"], told["deletions"]]
    assert [hexed(snap.problems), hexed(snap.conflicts)] == [told["problems"], told["conflicts"]]
    assert (snap.unchanged, snap.incomplete) == (bool(told["flags"] & 1), bool(told["flags"] & 2))
    assert [snap.entry_count, snap.content_bytes] == told["totals"]
    rows = [[one.archive_id.hex(), one.kind, one.length, one.live] for one in snap.references]
    assert rows == told["references"]
    lost: dict[str, str] = {}

    def note(path: bytes, error: Any) -> None:
        lost[path.hex()] = error.failure_class

    if told["walk"] != "success":
        with pytest.raises(ArchiveError) as caught:
            list(snap.walk())
        assert caught.value.failure_class == told["walk"]
        return
    found = sorted(snap.walk(lost=note), key=lambda one: one.path_bytes)
    assert lost == told["lost"]
    assert [one.path_bytes.hex() for one in found] == [entry["path"] for entry in told["entries"]]
    for one, entry in zip(found, told["entries"], strict=True):
        assert entry_row(one.path_bytes, one.raw, device=one.raw.device) == told_row(entry)
        check_library(snap, one, entry, right)


def check_library(snap: Snapshot, one: Any, told: dict[str, Any], right: str) -> None:
    """Content and attributes."""
    check(told, right, lambda: snap.read(one.path_bytes), lambda: snap.xattrs(one))


def test_the_public_way(tmp_path: Path) -> None:
    """``rz.Vault`` opens them too, and what it restores is what the sidecar says."""
    told = load("people")[1]
    seed = bytes.fromhex(told["people"]["alice"]["seed"])
    with rz.Vault.open(FOLDER / "people", identities=[rz.Identity(seed)]) as vault:
        latest = vault.snapshot("latest:home")
        assert latest.id == next(one["archive_id"] for one in told["snapshots"] if one["counts"][3])
        vault.restore(latest, tmp_path / "out")
    (entries,) = [one["entries"] for one in told["snapshots"] if one["archive_id"] == latest.id]
    for entry in entries:
        path = tmp_path / "out" / bytes.fromhex(entry["path"]).decode(errors="surrogateescape")
        if entry["kind"] == FILE:
            assert blake3(path.read_bytes()).hexdigest() == entry["blake3"]
        elif entry["kind"] == DIRECTORY:
            assert path.is_dir()
    assert not (tmp_path / "out" / "home" / "docs").exists()


def test_what_the_library_writes(tmp_path: Path) -> None:
    """The second reader understands vaults that the library makes."""
    source, location = tmp_path / "source", tmp_path / "vault"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "many").mkdir()
    (source / "empty").mkdir()
    for n in range(40):
        (source / "many" / f"file {n}").write_bytes(b"%d" % n * n)
    (source / "deep" / "er" / "big").write_bytes(blake3(b"big").digest(3_000_000))
    with (source / "deep" / "sparse").open("wb") as sparse:
        sparse.write(b"begin" * 1_000)
        sparse.seek(9_000_000)
        sparse.write(b"end")
        sparse.truncate(12_000_000)
    (source / "link").symlink_to("deep/\udcff")
    attributes = [(b"user.a", b"1")]
    try:
        os.setxattr(source / "deep", "user.a", b"1")
    except (AttributeError, OSError):  # another system, or a file system without them
        attributes = []
    alice, bob = Identity(bytes(32)), Identity(bytes([1]) * 32)
    owner = rz.Vault.init(location, owner=alice, cache_dir=tmp_path / "cache")
    key = owner.enrol("laptop")
    owner.grant(bob.recipient, "browse")
    trees = []
    for number in range(3):
        with rz.Vault.open(location, host=key, cache_dir=tmp_path / "cache") as vault:
            vault.backup([source], name="set", mode="worm" if number == 2 else "snapshot")
        trees.append(on_disk(source))
        if number == 0:
            (source / "deep" / "er").rename(source / "moved")
            (source / "many" / "file 7").write_bytes(b"new")
    objects = second.read_folder(location)
    recipient = alice.recipient.x25519 + alice.recipient.ed25519
    for who, right in ((alice, 1), (bob, 2)):
        vault_ = second.Vault(objects, x25519_private=[who._x25519], owner=recipient)
        assert vault_.refused == {}
        assert vault_.keyring.right == right
        assert [one.warnings for one in vault_.snapshots.values()] == [[], [], []]
        for name, raw in objects.items():
            if name.endswith(".rzn"):  # a complete check of each archive for itself
                ids = vault_.keyring.id_keys.get(key.host_id)
                verify = key.signing.verify_key.ed25519
                reader.read(raw, x25519_private=vault_.keyring.private, verify_key=verify, id_key=ids)
        for listed, wanted in zip(vault_.snapshots.values(), trees, strict=True):
            found = {one.path: one for one in vault_.walk(listed)}
            assert all(one.error is None for one in found.values())
            assert found.keys() == wanted.keys()
            assert listed.snapshot.totals[0] == len(found)
            for path, content in wanted.items():
                if content is not None and right == 1:
                    assert vault_.content(listed, found[path]) == content
            if right == 1:
                assert vault_.xattrs(listed, found[b"source/deep"]) == attributes


def on_disk(source: Path) -> dict[bytes, bytes | None]:
    """Paths, and contents of files."""
    found: dict[bytes, bytes | None] = {b"source": None}
    for path in source.rglob("*"):
        name = b"source/" + os.fsencode(path.relative_to(source))
        found[name] = path.read_bytes() if path.is_file() and not path.is_symlink() else None
    return found


def test_a_flip_in_any_object() -> None:
    """Whatever object is changed, no reader gives a content other than the right one."""
    objects, told = load("worm")
    right = {entry["blake3"] for one in told["snapshots"] for entry in one["entries"] if entry["blake3"] is not None}
    owner = bytes.fromhex(told["owner"])
    private = [bytes.fromhex(told["people"]["alice"]["x25519"])]
    for number, (name, data) in enumerate(sorted(objects.items())):
        at = (number * 1_237 + 100) % len(data)
        changed = {**objects, name: data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]}
        try:
            vault = second.Vault(changed, x25519_private=private, owner=owner)
        except SpecError:
            assert name.startswith("editions/")
            continue
        for listed in vault.snapshots.values():
            for found in vault.walk(listed):
                if found.entry is not None and found.entry.kind == FILE and not found.entry.marks & 2:
                    try:
                        content = vault.content(listed, found)
                    except SpecError:
                        continue
                    assert blake3(content).hexdigest() in right
