"""Looking into a vault and restoring, by the command line."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

import rozenfmt as rz

from .site import Site

HOSTILE = b"evil\x1b[31m\n\xff"
ABOUT = {"command", "status", "vault", "vault_id", "warnings"}


@pytest.fixture
def two(site: Site) -> Site:
    """Two snapshots of ``photos``, and a person who may browse."""
    site.backup("--tag", "first")
    (site.source / "2019").rename(site.source / "old")
    (site.source / "notes.txt").unlink()
    site.put("new.txt", b"new")
    Path(os.fsdecode(os.fsencode(site.source) + b"/" + HOSTILE)).touch()
    site.backup()
    with site.vault() as vault:
        vault.grant(rz.Identity.load(site.path / "clerk.key").recipient, "browse")
    return site


def ids(site: Site) -> list[str]:
    with site.vault() as vault:
        return [one.id for one in vault.snapshots()]


BROWSE = ("-i", "clerk.key", "--owner", "me.key")


# --- snapshots ----------------------------------------------------------------------------------


def test_snapshots(two: Site) -> None:
    result = two.run("snapshots", "v", "-i", "me.key")
    head, first, second = result.out.splitlines()
    assert head.split() == ["ID", "TIME", "HOST", "SET", "MODE", "ENTRIES", "SIZE", "CHANGES"]
    assert [first.split()[0], second.split()[0]] == [one[:12] for one in ids(two)]
    assert first.split()[3:6] == ["laptop", "photos", "snapshot"]
    assert first.endswith("4 new")
    assert second.endswith("2 new, 1 moved, 1 deleted")
    assert "tags first" in two.run("snapshots", "v", "-i", "me.key", "-v").out
    assert f"photos from local {two.source}" in two.run("snapshots", "v", *BROWSE, "-v").out
    two.run("backup", "v", "photos", "--name", "other")
    two.backup()
    assert "unchanged" in two.run("snapshots", "v", "-i", "me.key", "--name", "photos").out
    assert len(two.run("snapshots", "v", "-i", "me.key", "--name", "other").out.splitlines()) == 2
    assert len(two.run("snapshots", "v", "-i", "me.key", "--host", "laptop").out.splitlines()) == 5
    assert len(two.run("snapshots", "v", "-i", "me.key", "--host", "nobody").out.splitlines()) == 1


def test_snapshots_json(two: Site) -> None:
    document = two.run("snapshots", "v", *BROWSE, "--json").document
    assert set(document) == {*ABOUT, "snapshots"}
    first, second = document["snapshots"]
    assert set(first) == {
        *("id", "set", "host", "host_id", "sequence", "mode", "started_ns", "finished_ns", "entries", "content_bytes"),
        *("stored_bytes", "unchanged", "incomplete", "parent", "tags", "sources", "counts"),
    }
    assert (first["parent"], second["parent"]) == (None, first["id"])
    assert first["sources"] == [{"name": "photos", "origin": str(two.source), "kind": "local"}]
    assert second["counts"]["moved"] == 1
    assert first["tags"] == ["first"]


def test_a_damaged_snapshot_hides_no_other(two: Site) -> None:
    first, second = sorted((two.path / "v" / "meta").rglob("*.rzn"))
    first.write_bytes(b"x" * first.stat().st_size)
    result = two.run("snapshots", "v", "-i", "me.key")
    assert len(result.out.splitlines()) == 2
    assert f"rozenfmt: warning: meta/{first.parent.name}/{first.name}" in result.err
    assert two.run("snapshots", "v", "-i", "me.key", "--json").document["warnings"]
    second.unlink()
    assert "no snapshot" in two.run("ls", "v", "latest", "-i", "me.key", code=2).err


# --- ls and cat ---------------------------------------------------------------------------------


def test_ls(two: Site) -> None:
    assert two.run("ls", "v", "latest", "-i", "me.key").out == "photos/\n"
    listed = two.run("ls", "v", "latest:photos", "photos", *BROWSE).out
    assert listed.splitlines() == ["photos/evil\\x1b[31m\\n\\xff", "photos/latest", "photos/new.txt", "photos/old/"]
    assert two.run("ls", "v", "latest:photos@laptop", "photos/new.txt", *BROWSE).out == "photos/new.txt\n"
    tree = two.run("ls", "v", ids(two)[0][:8], "-R", *BROWSE).out
    assert tree.splitlines() == [
        *("photos/", "photos/2019/", "photos/2019/a.jpg", "photos/2019/b.jpg", "photos/latest", "photos/notes.txt")
    ]
    assert two.run("ls", "v", "latest", "photos/old", "-lR", *BROWSE).out.count("\n") == 3
    assert "-> 2019" in two.run("ls", "v", "latest", "photos", "-l", *BROWSE).out
    exact = two.run("ls", "v", "latest", "photos", "-0", *BROWSE).stdout.split(b"\0")
    assert exact[0] == b"photos/" + HOSTILE
    records = two.run("ls", "v", "latest", "photos", "--json", *BROWSE).records
    assert base64.b64decode(records[0]["path_base64"]) == exact[0]
    assert records[2]["size"] == 3


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["latest:other"], ["ff"], ["latest", "photos/none"], ["latest", "-0", "--json"]]
)
def test_ls_wrong_usage(two: Site, arguments: list[str]) -> None:
    result = two.run("ls", "v", *arguments, "-i", "me.key", code=2)
    assert "rozenfmt: error: " in result.err
    assert result.stdout == b"" or "--json" in arguments


def test_cat(two: Site) -> None:
    assert two.run("cat", "v", ids(two)[0], "photos/notes.txt", "-i", "me.key").stdout == b"cold lake\n" * 100
    assert "may browse" in two.run("cat", "v", "latest", "photos/new.txt", *BROWSE, code=1).err
    assert two.run("cat", "v", "latest", "photos", "-i", "me.key", code=2).stdout == b""
    two.run("cat", "v", "latest", "photos/new.txt", "-i", "me.key", "--json", code=2)


def test_before(two: Site) -> None:
    assert "no snapshot" in two.run("ls", "v", "latest", "-i", "me.key", "--before", "2020-01-01", code=2).err
    two.run("ls", "v", "latest", "-i", "me.key", "--before", "2999-01-01T12:00")
    assert "point in time" in two.run("ls", "v", "latest", "-i", "me.key", "--before", "soon", code=2).err


# --- diff ---------------------------------------------------------------------------------------


def test_diff(two: Site) -> None:
    older, newer = ids(two)
    result = two.run("diff", "v", older, newer, *BROWSE, code=4)
    assert "moved     photos/2019 -> photos/old/\n" in result.out
    assert "deleted   photos/notes.txt\n" in result.out
    assert "new       photos/evil\\x1b[31m\\n\\xff\n" in result.out
    assert result.out.splitlines()[-1].startswith(f"{older[:12]} to {newer[:12]}: 2 new, ")
    assert "no differences" in two.run("diff", "v", newer, "latest", *BROWSE).out
    assert two.run("diff", "v", newer, "latest", "-q", *BROWSE).out == ""


def test_diff_json(two: Site) -> None:
    older, newer = ids(two)
    document = two.run("diff", "v", older, newer, "--json", "-i", "me.key", code=4).document
    assert set(document) == {*ABOUT, "older", "newer", "counts", "unconfirmed", "changes"}
    assert document["status"] == "differences"
    (moved,) = [one for one in document["changes"] if one["what"] == "moved"]
    assert moved == {
        "path": "photos/old",
        "what": "moved",
        "kind": "directory",
        "details": [],
        "old_path": "photos/2019",
    }
    same = two.run("diff", "v", older, older, "--json", "-i", "me.key").document
    assert (same["status"], same["changes"]) == ("done", [])


# --- restore ------------------------------------------------------------------------------------


def test_restore(two: Site) -> None:
    result = two.run("restore", "v", "latest:photos", "out", "-i", "me.key")
    assert result.out.startswith("out: 5 files, 2 directories, 48.8 KiB; read ")
    assert not rz.compare(two.source, two.path / "out" / "photos").changes
    again = two.run("restore", "v", "latest:photos", "out", "-i", "me.key")
    assert "left alone, since they stand there already" in again.out
    two.run("restore", "v", ids(two)[0], "part", "photos/2019", "--pattern", "a.*", "-i", "me.key")
    assert [file.name for file in (two.path / "part").rglob("*.jpg")] == ["a.jpg"]


def test_restore_json(two: Site) -> None:
    document = two.run("restore", "v", "latest:photos", "out", "--json", "-i", "me.key").document
    assert set(document) == {
        *(*ABOUT, "snapshot_id", "destination", "files", "directories", "bytes", "read_bytes", "skipped", "lost"),
        *("seconds", "problem_count", "problems"),
    }
    assert (document["files"], document["bytes"]) == (5, 50_003)


def test_a_browse_key_restores_nothing(two: Site) -> None:
    result = two.run("restore", "v", "latest:photos", "out", *BROWSE, code=1)
    assert "may browse names and sizes, not read contents" in result.err
    assert not (two.path / "out").exists()
    plan = two.run("restore", "v", "latest:photos", "out", "--dry-run", *BROWSE)
    assert plan.out.startswith("would restore 5 files, ")


def test_dry_run(two: Site) -> None:
    document = two.run("restore", "v", "latest:photos", "out", "--dry-run", "--json", "-i", "me.key").document
    assert set(document) == {
        *(*ABOUT, "snapshot_id", "destination", "dry_run", "files", "directories", "bytes", "read_bytes", "requests"),
        *("lost", "archives", "problem_count", "problems"),
    }
    assert {one["object"].partition("/")[0] for one in document["archives"]} == {"arena"}
    assert not (two.path / "out").exists()


def test_restore_what_is_left(two: Site) -> None:
    archives = sorted((two.path / "v" / "arena").rglob("*.rzn"), key=lambda file: file.stat().st_size)
    archives[-1].unlink()
    result = two.run("restore", "v", "latest:photos", "out", "-i", "me.key", code=3)
    assert "2 paths lost" in result.err
    assert archives[-1].stem in result.err
    assert (two.path / "out" / "photos" / "new.txt").read_bytes() == b"new"
    document = two.run("restore", "v", "latest:photos", "w", "--json", "-i", "me.key", code=3).document
    assert (document["status"], document["lost"], document["problem_count"]) == ("incomplete", 2, 2)
    plan = two.run("restore", "v", "latest:photos", "w", "--dry-run", "--json", "-i", "me.key", code=3).document
    assert plan["lost"] == 2


def test_the_host_key_reads_nothing(two: Site) -> None:
    assert "-i FILE" in two.run("snapshots", "v", code=2).err
    wrong = two.run("snapshots", "v", "-i", two.key_file, code=2)
    assert "does not hold an identity" in wrong.err
