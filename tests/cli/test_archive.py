"""Creating, listing and restoring."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

import rozenfmt as rz

from .conftest import HOSTILE, World
from .helpers import run

NAMES = ["tree", "tree/a.txt", "tree/link", "tree/sub", "tree/sub/big"]


def paths(world: World, *arguments: str | Path, cwd: Path | None = None) -> list[str]:
    """Paths in an archive, but for the hostile one."""
    key = world.path / "me.key"
    result = run("archive", "list", "--json", "-i", key, *arguments, cwd=cwd or world.path)
    return [record["path"] for record in result.records if "path_base64" not in record]


def test_create_says_what_it_did(tmp_path: Path, world: World) -> None:
    result = run("archive", "create", "-r", world.recipient, "x.rzn", world.tree, "-v", cwd=tmp_path)
    assert result.out.startswith("x.rzn: 7 entries, 293.0 KiB stored in ")
    assert "\narchive " in result.out
    assert result.err == ""
    assert run("archive", "create", "-q", "-r", world.recipient, "y.rzn", world.tree, cwd=tmp_path).out == ""


def test_create_json(tmp_path: Path, world: World) -> None:
    result = run("archive", "create", "--json", "-r", world.recipient, "x.rzn", world.tree, cwd=tmp_path)
    document = result.document
    assert set(document) == {
        *("command", "status", "location", "archive_id", "entries", "content_bytes", "stored_bytes"),
        *("seconds", "problem_count", "problems"),
    }
    assert document["command"] == "archive create"
    assert document["status"] == "done"
    assert document["stored_bytes"] == (tmp_path / "x.rzn").stat().st_size
    with rz.open(tmp_path / "x.rzn", identities=[rz.Identity.load(world.path / "me.key")]) as archive:
        assert archive.archive_id.hex() == document["archive_id"]
        assert archive.entry_count == document["entries"] == 7


def test_create_with_options(tmp_path: Path, world: World) -> None:
    (tmp_path / "patterns").write_text("big\n")
    run(
        *("archive", "create", "-r", world.recipient, "--compression", "lz4", "--cipher", "xaes-256-gcm"),
        *("--exclude", "*.tmp", "--exclude", "evil*", "--exclude-from", "patterns", "--one-file-system"),
        *(
            "--skip-caches",
            "--part-size",
            "64MiB",
            "--workers",
            "1",
            "--name",
            "renamed",
            "x.rzn",
            world.tree,
        ),
        cwd=tmp_path,
    )
    assert paths(world, "x.rzn", cwd=tmp_path) == ["renamed", "renamed/a.txt", "renamed/link", "renamed/sub"]
    assert "xaes-256-gcm" in run("archive", "inspect", "x.rzn", cwd=tmp_path).out


def test_create_from_standard_input(tmp_path: Path, world: World) -> None:
    data = os.urandom(5_000_000)
    create = ("archive", "create", "-r", world.recipient)
    run(*create, "--name", "dump.sql", "x.rzn", "-", cwd=tmp_path, stdin=data)
    assert run("archive", "cat", "-i", world.path / "me.key", "x.rzn", "dump.sql", cwd=tmp_path).stdout == data
    assert "--name" in run(*create, "y.rzn", "-", cwd=tmp_path, code=2).err


@pytest.mark.parametrize("source", [".", "..", "a[b]*"])
def test_an_archive_does_not_hold_itself(tmp_path: Path, world: World, source: str) -> None:
    inner = tmp_path / "a[b]*"
    inner.mkdir()
    (inner / "keep").write_text("x")
    cwd = tmp_path if source == "a[b]*" else inner
    out = inner / "!out #1.rzn"
    for _ in range(2):
        run("archive", "create", "--overwrite", "-r", world.recipient, out, source, cwd=cwd)
        assert [path for path in paths(world, out) if path.endswith(("rzn", "partial"))] == []
    assert len(paths(world, out)) == (3 if source == ".." else 2)


def test_existing_output_is_kept(tmp_path: Path, world: World) -> None:
    out = tmp_path / "x.rzn"
    out.write_bytes(b"precious")
    create = ("archive", "create", "-r", world.recipient)
    assert "exists" in run(*create, out, world.tree, code=1).err
    assert out.read_bytes() == b"precious"
    run(*create, "--overwrite", out, world.tree)
    run("archive", "check", out)


def test_several_are_checked_and_one_of_them_is_damaged(tmp_path: Path, world: World) -> None:
    names = [tmp_path / f"{number}.rzn" for number in range(3)]
    for name in names:
        run("archive", "create", "-r", world.recipient, name, world.tree)
    assert len(run("archive", "check", "--json", *names).stdout.splitlines()) == 3
    data = bytearray(names[1].read_bytes())
    data[len(data) // 2] ^= 1
    names[1].write_bytes(data)
    result = run("archive", "check", "--json", *names, code=1)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["status"] for one in found] == ["done", "failed", "done"]
    assert [bool(one["damages"]) for one in found] == [False, True, False]
    assert os.fsdecode(names[1]) in result.err
    run("archive", "check", code=2)


def test_missing_sources_leave_nothing(tmp_path: Path, world: World) -> None:
    create = ("archive", "create", "-r", world.recipient, "x.rzn")
    assert "missing" in run(*create, world.tree, "missing", cwd=tmp_path, code=1).err
    run(*create, world.tree, world.path / "sub" / ".." / "tree", cwd=tmp_path, code=1)
    assert "name" in run(*create, world.tree, world.tree, cwd=tmp_path, code=2).err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_is_reported(tmp_path: Path, world: World) -> None:
    unreadable = "/proc/self/mem"
    if not Path(unreadable).exists():
        pytest.skip("needs a file that even root cannot read")
    create = ("archive", "create", "-r", world.recipient)
    result = run(*create, "x.rzn", unreadable, cwd=tmp_path, code=3)
    assert "rozenfmt: 1 problem:\n  unreadable: " in result.err
    document = run(*create, "--json", "y.rzn", unreadable, cwd=tmp_path, code=3).document
    assert document["status"] == "incomplete"
    assert document["problem_count"] == 1
    assert document["problems"][0]["what"] == "unreadable"
    assert document["problems"][0]["path"].endswith("mem")
    run("archive", "check", "-i", world.path / "me.key", "x.rzn", cwd=tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("-r", "me.key", "--plain"),
        ("--plain", "--browse", "me.key"),
        ("-r", "missing"),
        ("-r", "me.key", "--compression", "zip"),
        ("-r", "me.key", "--cipher", "rot13"),
        ("-r", "me.key", "--part-size", "big"),
        ("-r", "me.key", "--workers", "0"),
        ("-r", "me.key", "--sign", "me.key"),
        ("-r", "me.key", "-o", "novalue"),
        ("-r", "me.key", "-o", "key=value"),
        ("-r", "me.key", "--storage-options-file", "me.key"),
    ],
)
def test_wrong_usage(tmp_path: Path, world: World, arguments: tuple[str, ...]) -> None:
    out = tmp_path / "x.rzn"
    result = run("archive", "create", *arguments, out, world.tree, cwd=world.path, code=2)
    assert "rozenfmt: error: " in result.err
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


def test_storage_options(tmp_path: Path, world: World) -> None:
    (tmp_path / "options").write_text('{"secret": "hunter22"}')
    create = ("archive", "create", "-r", world.recipient, "--storage-options-file", "options")
    result = run(*create, "-o", 'more={"a": 1}', "memory://x/y.rzn", world.tree, cwd=tmp_path)
    assert "hunter22" not in result.out + result.err


def test_no_password_of_a_url_is_shown(tmp_path: Path, world: World) -> None:
    for arguments in (["create", "--plain"], ["list"], ["check"], ["members"]):
        more = [world.tree] if "create" in arguments else []
        result = run("archive", *arguments, "--json", "nosuch://me:hunter22@host/x.rzn", *more, cwd=tmp_path, code=None)
        assert result.code in {1, 2}
        assert "hunter22" not in result.out + result.err


# --- list ---------------------------------------------------------------------------------------


def test_list_shows_nothing_that_moves_a_terminal(world: World) -> None:
    for option in ("--quiet", "--long"):
        result = run("archive", "list", "-i", "me.key", option, "a.rzn", cwd=world.path)
        assert not set(result.out) & {"\x1b", "\x9b", "\udcff", "\xff"}
        assert "tree/evil\\x1b[31m\\n\\xff\\\\\\u009b\n" in result.out
        assert len(result.out.splitlines()) == 6


def test_list_json(world: World) -> None:
    result = run("archive", "list", "-i", "me.key", "--json", "a.rzn", cwd=world.path)
    assert result.stdout.isascii()
    assert b"\x1b" not in result.stdout
    records = result.records
    assert [r["path"] for r in records if "path_base64" not in r] == NAMES
    (hostile,) = [r for r in records if "path_base64" in r]
    assert base64.b64decode(hostile["path_base64"]) == b"tree/" + HOSTILE
    assert hostile["path"].startswith("tree/evil\x1b[31m\n\\xff")
    kinds = {r["path"]: r["kind"] for r in records}
    assert (kinds["tree"], kinds["tree/link"], kinds["tree/a.txt"]) == ("directory", "symlink", "file")
    entry = next(r for r in records if r["path"] == "tree/a.txt")
    stat = (world.tree / "a.txt").stat()
    assert entry["size"] == 6
    assert entry["mtime_ns"] == stat.st_mtime_ns
    assert entry["mode"] == f"{stat.st_mode & 0o7777:04o}"
    assert len(bytes.fromhex(entry["content_id"])) == 32


def test_list_null(world: World) -> None:
    result = run("archive", "list", "-i", "me.key", "-0", "a.rzn", cwd=world.path)
    assert result.stdout.split(b"\0")[2] == b"tree/" + HOSTILE
    run("archive", "list", "-i", "me.key", "-0", "--json", "a.rzn", cwd=world.path, code=2)


def test_list_below_a_path(world: World) -> None:
    assert paths(world, "a.rzn", "tree/sub/") == ["tree/sub", "tree/sub/big"]
    long = run("archive", "list", "-i", "me.key", "-l", "a.rzn", "tree/link", cwd=world.path).out
    assert long.startswith("l")
    assert long.endswith("tree/link -> a.txt\n")
    assert "missing" in run("archive", "list", "-i", "me.key", "a.rzn", "missing", cwd=world.path, code=2).err


def test_browsing_is_not_reading(world: World) -> None:
    assert "tree/a.txt\n" in run("archive", "list", "-i", "other.key", "a.rzn", cwd=world.path).out
    assert run("archive", "cat", "-i", "other.key", "a.rzn", "tree/a.txt", cwd=world.path, code=1).out == ""


# --- extract and cat ----------------------------------------------------------------------------


def test_extract_gives_back_what_was_stored(tmp_path: Path, world: World) -> None:
    result = run("archive", "extract", "-i", world.path / "me.key", world.path / "a.rzn", "out", cwd=tmp_path)
    assert result.out.startswith("out: 4 files, 2 directories, 293.0 KiB")
    restored = tmp_path / "out" / "tree"
    assert (restored / "sub" / "big").read_bytes() == (world.tree / "sub" / "big").read_bytes()
    assert os.readlink(restored / "link") == "a.txt"
    assert os.path.exists(os.fsencode(restored) + b"/" + HOSTILE)
    compare = ("archive", "compare", "-i", world.path / "me.key", world.path / "a.rzn")
    run(*compare, restored)


def test_extract_paths_and_overwrite(tmp_path: Path, world: World) -> None:
    extract = ("archive", "extract", "-i", world.path / "me.key", "--json", world.path / "a.rzn", tmp_path)
    document = run(*extract, "tree/a.txt").document
    assert (document["files"], document["directories"], document["skipped"]) == (1, 1, 0)
    file = tmp_path / "tree" / "a.txt"
    assert run(*extract, "tree/a.txt").document["skipped"] == 1
    file.write_text("mine")
    document = run(*extract, "tree/a.txt", code=3).document
    assert document["status"] == "incomplete"
    assert document["problems"] == [
        {"path": "tree/a.txt", "what": "exists", "detail": document["problems"][0]["detail"]}
    ]
    assert file.read_text() == "mine"
    run(*extract, "tree/a.txt", "--overwrite", "if-changed", "--no-xattrs", "--numeric-owners", "--no-owners")
    assert file.read_text() == "hello\n"
    run(*extract, "missing", code=2)
    run(*extract, "--overwrite", "perhaps", code=2)


def test_extract_two_paths_of_one_directory(tmp_path: Path, world: World) -> None:
    extract = ("archive", "extract", "-i", world.path / "me.key", world.path / "a.rzn", tmp_path)
    run(*extract, "tree/a.txt", "tree/sub")
    assert (tmp_path / "tree" / "sub" / "big").exists()


def test_cat(world: World) -> None:
    cat = ("archive", "cat", "-i", "me.key", "a.rzn")
    assert run(*cat, "tree/sub/big", cwd=world.path).stdout == (world.tree / "sub" / "big").read_bytes()
    for path in ("tree", "tree/link", "missing"):
        assert run(*cat, path, cwd=world.path, code=2).out == ""
    run(*cat, "tree/a.txt", "--json", cwd=world.path, code=2)


# --- trust --------------------------------------------------------------------------------------


def test_wrong_key(world: World, tmp_path: Path) -> None:
    run("keygen", "-o", "stranger.key", cwd=tmp_path)
    result = run("archive", "list", "--json", "-i", tmp_path / "stranger.key", "a.rzn", cwd=world.path, code=1)
    assert result.err.count("\n") == 1
    assert result.err.startswith("rozenfmt: error: none of the keys given opens this archive")
    error = result.document["error"]
    assert (error["type"], error["failure_class"], error["exit_code"]) == ("NoMatchingKey", "no-recipient", 1)
    assert run("archive", "list", "a.rzn", cwd=world.path, code=2).out == ""
    assert "no such" in run("archive", "list", "-i", "nokey", "a.rzn", cwd=world.path, code=2).err.lower()


def test_plain_archives_are_read_with_a_key_only_on_demand(world: World) -> None:
    assert "tree/a.txt\n" in run("archive", "list", "plain.rzn", cwd=world.path).out
    run("archive", "list", "-i", "me.key", "plain.rzn", cwd=world.path, code=1)
    run("archive", "list", "-i", "me.key", "--allow-plain", "plain.rzn", cwd=world.path)


def test_verify_key(world: World, tmp_path: Path) -> None:
    lst = ("archive", "list", "-i", "me.key", "a.rzn", "--verify-key")
    run(*lst, world.verify_key, cwd=world.path)
    other = run("keygen", "--sign", "-o", tmp_path / "s.key").out.strip()
    assert run(*lst, other, cwd=world.path, code=1).out == ""
    run(*lst, other[:-1], cwd=world.path, code=2)


def test_missing_and_foreign_files(tmp_path: Path, world: World) -> None:
    (tmp_path / "text").write_text("just text, and long enough to hold a tail\n" * 9)
    (tmp_path / "empty").touch()
    cases = [("list", name) for name in ("missing", "text", "empty", ".")]
    cases += [(command, "text") for command in ("check", "inspect", "members")]
    for command, name in cases:
        result = run("archive", command, tmp_path / name, code=None)
        assert result.code in {1, 2}, (name, command)
        assert result.err.startswith("rozenfmt: error: ")
