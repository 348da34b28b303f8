"""Checking, inspecting, salvaging, comparing and joining."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import World
from .helpers import run


@pytest.fixture
def damaged(tmp_path: Path, world: World) -> Path:
    """The archive with a byte of its contents changed."""
    data = bytearray((world.path / "a.rzn").read_bytes())
    data[150_000] ^= 1
    file = tmp_path / "damaged.rzn"
    file.write_bytes(data)
    return file


def test_check_without_a_key(world: World) -> None:
    result = run("archive", "check", "a.rzn", cwd=world.path)
    assert result.out.startswith("a.rzn: good; checked every stored byte; contents only with a key\n")
    assert world.verify_key in result.out


def test_check_json(world: World) -> None:
    document = run("archive", "check", "-i", "me.key", "--json", "a.rzn", cwd=world.path).document
    assert document["command"] == "archive check"
    assert document["status"] == "done"
    assert document["level"] == "contents"
    assert document["entries"] == 6
    assert document["signers"] == [world.verify_key]
    assert document["damages"] == []
    browse = run("archive", "check", "-i", "other.key", "--json", "a.rzn", cwd=world.path).document
    assert browse["level"] == "browse"


def test_check_finds_damage(damaged: Path, world: World) -> None:
    for key in ((), ("-i", world.path / "me.key")):
        result = run("archive", "check", *key, damaged, code=1)
        assert "is damaged" in result.err
        assert "  offset " in result.err
        document = run("archive", "check", *key, "--json", damaged, code=1).document
        assert document["status"] == "failed"
        assert document["damages"][0]["failure_class"] == "block"


def test_damage_leads_to_salvage(damaged: Path, world: World, tmp_path: Path) -> None:
    result = run("archive", "extract", "-i", world.path / "me.key", damaged, tmp_path / "out", code=1)
    assert "rozenfmt archive salvage" in result.err
    assert "rozenfmt: error: " in result.err


def test_check_demands_a_signature(world: World, tmp_path: Path) -> None:
    run("archive", "check", "--verify-key", "sign.key", "a.rzn", cwd=world.path)
    run("keygen", "--sign", "-o", tmp_path / "s.key")
    run("archive", "check", "--verify-key", tmp_path / "s.key", "a.rzn", cwd=world.path, code=1)


def test_inspect(world: World) -> None:
    without = run("archive", "inspect", "a.rzn", cwd=world.path).out
    assert "x25519 (read), x25519 (browse)" in without
    assert "none given" in without
    assert "FOOT" in without
    records = run("archive", "inspect", "-i", "me.key", "--json", "a.rzn", cwd=world.path).records
    assert records[0]["type"] == "archive"
    assert records[0]["right"] == "read"
    assert records[0]["signer"] == world.verify_key
    assert {r["type"] for r in records[1:]} == {"block"}
    assert [r["sequence"] for r in records[1:]] == list(range(len(records) - 1))


def test_inspect_shows_what_precedes_the_damage(damaged: Path) -> None:
    result = run("archive", "inspect", "--json", damaged, code=1)
    assert result.records[0]["type"] == "archive"
    assert result.records[-1]["error"]["failure_class"] == "block"


def test_salvage(tmp_path: Path, world: World, damaged: Path) -> None:
    key = world.path / "me.key"
    whole = run("archive", "salvage", "-i", key, world.path / "a.rzn", tmp_path / "whole")
    assert "nothing is missing" in whole.out
    run("archive", "compare", "-i", key, world.path / "a.rzn", tmp_path / "whole" / "tree")
    document = run("archive", "salvage", "-i", key, "--json", damaged, tmp_path / "part", code=3).document
    assert document["status"] == "incomplete"
    assert document["terminated"] is True
    assert document["missing"]
    cut = tmp_path / "cut.rzn"
    cut.write_bytes((world.path / "a.rzn").read_bytes()[:-2000])
    text = run("archive", "salvage", "-i", key, cut, tmp_path / "cut", code=3).out
    assert "cut off" in text
    assert (tmp_path / "cut" / "tree" / "a.txt").read_text() == "hello\n"


def test_compare(tmp_path: Path, world: World) -> None:
    key = ("-i", world.path / "me.key")
    tree = tmp_path / "tree"
    shutil.copytree(world.tree, tree, symlinks=True, ignore=shutil.ignore_patterns("*.tmp"))
    compare = ("archive", "compare", *key, world.path / "a.rzn")
    (tree / "a.txt").write_text("HELLO\n")
    (tree / "new").touch()
    (tree / "link").unlink()
    result = run(*compare, tree, code=4)
    for line in ("content   tree/a.txt", "added     tree/new", "removed   tree/link"):
        assert line in result.out
    document = run(*compare, "--json", tree, code=4).document
    assert document["status"] == "differences"
    assert document["count"] == len(document["changes"]) >= 3
    assert run(*compare, "-q", tree, code=4).out == ""
    assert "content   " not in run(*compare, "--no-contents", "--exclude", "new", tree, code=4).out
    run(*compare, world.tree, "--exclude", "*.tmp")
    run(*compare, world.tree, code=4)


def test_compare_archives(tmp_path: Path, world: World) -> None:
    key = ("-i", world.path / "me.key")
    create = ("archive", "create", "-r", world.recipient, tmp_path / "b.rzn", world.tree)
    run(*create, "--exclude", "*.tmp")
    run("archive", "compare", *key, world.path / "a.rzn", tmp_path / "b.rzn")
    run(*create, "--overwrite")
    result = run("archive", "compare", *key, world.path / "a.rzn", tmp_path / "b.rzn", code=4)
    assert "added     tree/skip.tmp\n" in result.out


def test_join_and_members(tmp_path: Path, world: World) -> None:
    run("archive", "create", "-r", world.recipient, "b.rzn", world.tree / "sub", cwd=tmp_path)
    first = world.path / "a.rzn"
    document = run("archive", "join", "--json", "j.rzn", first, "b.rzn", cwd=tmp_path).document
    assert [member["number"] for member in document["members"]] == [0, 1, None]
    listed = run("archive", "members", "--json", "j.rzn", cwd=tmp_path).document["members"]
    assert listed == document["members"]
    assert listed[1]["archive_id"] in run("archive", "members", "-q", "j.rzn", cwd=tmp_path).out
    key = ("-i", world.path / "me.key")
    for member in ("1", listed[1]["archive_id"]):
        lst = run("archive", "list", *key, "--member", member, "j.rzn", cwd=tmp_path)
        assert lst.out == "sub/\nsub/big\n"
    run("archive", "check", *key, "j.rzn", cwd=tmp_path)
    assert "2" in run("archive", "list", *key, "--member", "2", "j.rzn", cwd=tmp_path, code=2).err
    for member in ((), ("--member", "x")):
        run("archive", "list", *key, *member, "j.rzn", cwd=tmp_path, code=2)
    run("archive", "join", "j.rzn", first, cwd=tmp_path, code=1)
    run("archive", "join", "--overwrite", "j.rzn", first, cwd=tmp_path)
    run("archive", "join", "k.rzn", first, first, cwd=tmp_path, code=2)
    assert not (tmp_path / "k.rzn").exists()
