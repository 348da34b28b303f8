"""Verifying by the command line: what is stored, and a directory against its snapshot."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from .site import Site

FIELDS = {
    *("command", "status", "vault", "vault_id", "warnings", "snapshot_id", "level", "sample", "ok", "snapshots"),
    *("archives", "read", "blocks", "bytes", "requests", "entries", "contents", "content_bytes", "missing"),
    *("damage_count", "damages", "lost_count", "lost", "notes", "different_count", "different", "restorable"),
    *("unconfirmed", "seconds", "problem_count", "problems"),
}


@pytest.fixture
def stored(site: Site) -> Site:
    site.backup()
    return site


@pytest.mark.parametrize("level", ["present", "hashes", "opened", "contents"])
@pytest.mark.parametrize("which", [[], ["latest:photos"]])
def test_all_is_well(stored: Site, level: str, which: list[str]) -> None:
    result = stored.run("verify", "v", *which, "--level", level, "-i", "me.key")
    lines = result.out.splitlines()
    assert lines[0].startswith("to read: ") is (level != "present"), "said before it is read"
    assert ": good: " in lines[level != "present"]
    assert "1 snapshot, 2 archives" in result.out
    assert result.err == ""
    document = stored.run("verify", "v", *which, "--level", level, "-i", "me.key", "--json").document
    assert set(document) == FIELDS
    assert (document["status"], document["ok"], document["level"]) == ("done", True, level)
    assert (document["snapshot_id"] is None) == (not which)
    assert (document["contents"] > 0) is (level == "contents")


def test_a_sample(stored: Site) -> None:
    result = stored.run("verify", "v", "--level", "contents", "--sample", "50%", "-i", "me.key")
    assert "of a sample of 50 %" in result.out
    document = stored.run("verify", "v", "--sample", "0.5", "--level", "hashes", "-i", "me.key", "--json").document
    assert document["sample"] == 0.5
    for wrong in ("0", "101%", "much"):
        assert "is not a share" in stored.run("verify", "v", "--sample", wrong, "-i", "me.key", code=2).err


def archive_of(site: Site) -> Path:
    (archive,) = (site.path / "v" / "arena").rglob("*.rzn")
    return archive


def test_something_is_missing(stored: Site) -> None:
    archive = archive_of(stored)
    archive.unlink()
    result = stored.run("verify", "v", "-i", "me.key", code=1)
    assert "rozenfmt: error: 1 object missing:\n" in result.err
    assert archive.stem in result.err
    assert "rozenfmt: error: 3 paths lost by it:\n" in result.err
    assert "photos/notes.txt: missing" in result.err
    assert "not all is well" in result.out
    document = stored.run("verify", "v", "latest", "-i", "me.key", "--json", code=1).document
    assert (document["status"], document["ok"]) == ("failed", False)
    assert len(document["missing"]) == 1
    assert {one["path"] for one in document["lost"]} == {"photos/2019/a.jpg", "photos/2019/b.jpg", "photos/notes.txt"}
    assert set(document["lost"][0]) == {"snapshot", "path", "what", "object", "detail"}


def test_something_is_damaged(stored: Site) -> None:
    archive = archive_of(stored)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    stored.run("verify", "v", "-i", "me.key")  # it is there
    result = stored.run("verify", "v", "--level", "hashes", "-i", "me.key", code=1)
    assert "damaged:\n" in result.err
    assert archive.name in result.err
    document = stored.run("verify", "v", "--level", "contents", "-i", "me.key", "--json", code=1).document
    assert document["damage_count"] > 0
    assert set(document["damages"][0]) == {"object", "offset", "block", "failure_class", "message"}
    assert document["lost_count"] > 0


# --- a directory --------------------------------------------------------------------------------


def test_a_directory_as_it_was(stored: Site) -> None:
    result = stored.run("verify", "v", "latest:photos", "--against", "photos", "-i", "me.key")
    assert "photos: no difference from the snapshot of photos" in result.out


def test_a_directory_that_differs_can_be_brought_back(stored: Site) -> None:
    before = {path: path.read_bytes() for path in stored.source.rglob("*.*") if path.is_file()}
    stored.put("notes.txt", b"warm lake\n" * 100)  # of the same size and time
    (stored.source / "2019" / "a.jpg").unlink()
    stored.put("new.txt", b"new")
    result = stored.run("verify", "v", "latest:photos", "--against", "photos", "-i", "me.key", code=4)
    assert "photos/notes.txt (content" in result.out
    assert "photos/2019/a.jpg" in result.out
    document = stored.run(
        "verify", "v", "latest:photos", "--against", "photos", "-i", "me.key", "--json", code=4
    ).document
    assert (document["status"], document["ok"]) == ("differences", False)
    assert {"path": "photos/notes.txt"} in document["restorable"]
    assert document["different_count"] == len(document["different"])

    (shown,) = [line for line in result.out.splitlines() if line.startswith("to bring back")]
    words = shlex.split(shown.partition(": ")[2])
    assert words[:2] == ["rozenfmt", "restore"]
    stored.run(*words[1:], "-i", "me.key")
    assert {path: path.read_bytes() for path in before} == before
    assert (stored.source / "new.txt").read_bytes() == b"new"


def test_a_browse_key_verifies(stored: Site) -> None:
    stored.run("grant", "v", "-i", "me.key", "clerk.key", "--browse")
    browse = ("-i", "clerk.key", "--owner", "me.key")
    stored.run("verify", "v", "--level", "opened", *browse)
    assert "may browse" in stored.run("verify", "v", "--level", "contents", *browse, code=1).err
    stored.put("2019/a.jpg", b"another size")
    stored.run("verify", "v", "latest:photos", "--against", "photos", *browse, code=4)


@pytest.mark.parametrize("arguments", [["--against", "photos"], ["--before", "2020-01-01"], ["--level", "hope"]])
def test_wrong_usage(stored: Site, arguments: list[str]) -> None:
    assert "rozenfmt: error: " in stored.run("verify", "v", *arguments, "-i", "me.key", code=2).err


def test_restorable_names_that_cannot_be_typed(stored: Site) -> None:
    hostile = stored.source / "evil\x1b[31m"
    hostile.write_bytes(b"x")
    stored.backup()
    hostile.unlink()
    result = stored.run("verify", "v", "latest:photos", "--against", "photos", "-i", "me.key", code=4)
    assert "\x1b" not in result.out
    assert "to bring back" not in result.out
