"""Backing up by the command line: what is stored, what is said, and what is asked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rozenfmt as rz
from rozenfmt.testing.sftp import PASSWORD, sftp_server

from .helpers import SECONDS, environment
from .site import Site
from .test_process import INTERRUPTIBLE

COUNTS = {"new", "changed", "metadata", "moved", "deleted", "unchanged"}


def content(site: Site, path: str, which: str = "latest:photos") -> bytes:
    return site.vault().snapshot(which).read(path)


def test_backup_says_what_it_did(site: Site) -> None:
    result = site.backup()
    (snapshot,) = site.vault().snapshots()
    first, second, third = result.out.splitlines()
    assert first == f"snapshot {snapshot.id} of photos: 6 entries, 49.8 KiB"
    assert second.strip() == "4 new, 0 changed, 0 with new metadata, 0 moved, 0 deleted, 0 unchanged"
    assert re.fullmatch(r"read 49\.8 KiB, stored [0-9.]+ KiB, [0-9.]+ s", third.strip())
    assert result.err == ""
    assert site.backup("-q").out == ""
    assert ", unchanged\n" in site.backup().out


def test_backup_takes_no_private_key(site: Site) -> None:
    for file in site.path.glob("*.key"):
        file.unlink()
    site.backup()


def test_moves_and_deletions(site: Site) -> None:
    site.backup()
    (site.source / "2019").rename(site.source / "old\x1b[31m")
    (site.source / "notes.txt").unlink()
    result = site.backup("-v")
    assert "  moved    photos/2019 -> photos/old\\x1b[31m/\n" in result.out
    assert "  deleted  photos/notes.txt\n" in result.out
    assert "1 moved, 1 deleted" in result.out


def test_json(site: Site) -> None:
    document = site.backup("--json").document
    assert set(document) == {
        *("command", "status", "vault", "vault_id", "warnings", "snapshot_id", "set", "sequence", "mode", "unchanged"),
        *("complete", "entries", "directories", "content_bytes", "read_bytes", "stored_bytes", "counts", "archives"),
        "resumed_bytes",
        *("moves", "deletions", "conflicts", "notes", "seconds", "problem_count", "problems", "leans_on"),
    }
    assert document["leans_on"] == {"metadata": 0, "data": 1}
    assert (document["command"], document["status"], document["complete"]) == ("backup", "done", True)
    assert set(document["counts"]) == COUNTS
    assert document["vault_id"] == site.host.vault_id.hex()
    assert {one["object"].partition("/")[0] for one in document["archives"]} == {"arena", "meta"}
    assert sum(one["bytes"] for one in document["archives"]) == document["stored_bytes"]
    (site.source / "2019").rename(site.source / "2020")
    (site.source / "notes.txt").unlink()
    document = site.backup("--json").document
    assert document["moves"] == [{"old": "photos/2019", "new": "photos/2020", "directory": True}]
    assert document["deletions"] == [{"path": "photos/notes.txt"}]


def test_options(site: Site) -> None:
    site.put("x.tmp", b"not wanted")
    site.put("y.bak", b"not wanted")
    site.put("cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n")
    site.put("cache/z", b"not wanted")
    (site.path / "patterns").write_text("*.bak\n")
    site.run(
        *(
            "backup",
            "v",
            "pictures=photos",
            "notes=photos/notes.txt",
            "--exclude",
            "*.tmp",
            "--exclude-from",
            "patterns",
        ),
        *("--skip-caches", "--one-file-system", "--tag", "b", "--tag", "a", "--compression", "lz4", "--workers", "1"),
        *("--cipher", "xaes-256-gcm", "--data-size", "1MiB", "--reread", "all", "--no-decode-check"),
    )
    (snapshot,) = site.vault().snapshots()
    assert snapshot.name == f"{site.source}:{site.source / 'notes.txt'}"
    assert snapshot.tags == ("a", "b")
    found = [entry.path for entry in snapshot if entry.kind is rz.Kind.FILE]
    pictures = ["2019/a.jpg", "2019/b.jpg", "cache/CACHEDIR.TAG", "notes.txt"]
    assert found == ["notes", *(f"pictures/{name}" for name in pictures)]


def test_a_source_with_an_equals_sign(site: Site) -> None:
    (site.path / "a=b").mkdir()
    (site.path / "a=b" / "x").write_text("x")
    site.run("backup", "v", "a=b", "--name", "s")
    assert content(site, "a=b/x", "latest:s") == b"x"


def test_standard_output_of_a_command(site: Site) -> None:
    dump = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "-v", "--json", "--", "-i"]
    result = site.run("backup", "v", "photos", "--name", "shop", "--stdin-from-command", "shop.sql", "--", *dump)
    assert "2 sets" not in result.out
    assert content(site, "shop.sql", "latest:shop") == b"['-v', '--json', '--', '-i']\n"
    assert content(site, "photos/notes.txt", "latest:shop") == b"cold lake\n" * 100
    failed = site.run(
        *("backup", "v", "--stdin-from-command", "shop.sql", "--", sys.executable, "-c", "import sys; sys.exit(3)"),
        code=1,
    )
    assert "exited with 3" in failed.err
    assert len(site.vault().snapshots()) == 1
    assert "followed by the command" in site.run("backup", "v", "--stdin-from-command", "x", "photos", code=2).err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["photos", "--mode", "sometimes"],
        ["photos", "--on-conflict", "accept"],
        ["photos", "--mode", "worm", "--on-conflict", "ask"],
        ["photos", "--mode", "worm", "--on-conflict", "restore"],
        ["photos", "--compression", "zip"],
        ["photos", "--host-key", "missing.host"],
        ["photos", "--host-key", "me.key"],
        ["photos", "photos"],
        ["photos", "--name", ""],
        ["photos", "--tag", "x" * 5000],
        ["photos", "--tag", os.fsdecode(b"\xff")],
    ],
)
def test_wrong_usage(site: Site, arguments: list[str]) -> None:
    result = site.run("backup", "v", *arguments, code=2)
    assert "rozenfmt: error: " in result.err
    assert site.vault().snapshots() == []


def test_sources_that_are_gone(site: Site) -> None:
    assert "missing" in site.run("backup", "v", "missing", code=1).err
    site.backup()
    for file in sorted(site.source.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
    assert "is its disk mounted?" in site.backup(code=1).err
    assert len(site.vault().snapshots()) == 1
    site.backup("--allow-empty")


def test_what_cannot_be_read(site: Site) -> None:
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs a file that even root cannot read")
    result = site.run("backup", "v", "photos", "/proc/self/mem", "--name", "s", code=3)
    assert "rozenfmt: 1 problem:\n  unreadable: mem: " in result.err
    document = site.run("backup", "v", "photos", "/proc/self/mem", "--name", "s", "--json", code=3).document
    assert (document["status"], document["complete"], document["problem_count"]) == ("incomplete", False, 1)
    assert len(site.vault().snapshots()) == 2


# --- the host's key and cache -------------------------------------------------------------------


def test_no_host_key(site: Site) -> None:
    elsewhere = site.path / "elsewhere.host"
    site.key_file.rename(elsewhere)
    missing = site.backup(code=2).err
    assert str(site.key_file) in missing
    assert "rozenfmt enrol v" in missing
    site.backup("--host-key", "elsewhere.host")
    site.run("backup", "v", "photos", env={"ROZENFMT_HOST_KEY": str(elsewhere)})


def test_the_host_key_of_another_vault(site: Site, tmp_path: Path) -> None:
    with rz.Vault.init(tmp_path / "w", owner=site.me) as vault:
        vault.enrol("laptop").save(tmp_path / "other.host")
    assert "rozenfmt: error: " in site.backup("--host-key", "other.host", code=1).err
    assert site.vault().snapshots() == []


def test_editions_of_another_vault_beside(site: Site, tmp_path: Path) -> None:
    with rz.Vault.init(tmp_path / "w", owner=rz.Identity.generate()):
        pass
    (edition,) = (tmp_path / "w" / "editions").iterdir()
    edition.rename(site.path / "v" / "editions" / f"00000001-{'0' * 16}")
    assert "passed over" in site.backup().err


def test_a_lost_cache(site: Site) -> None:
    site.backup()
    for file in (site.path / "cache" / site.host.vault_id.hex()).iterdir():
        file.unlink()
    result = site.backup()
    assert "rozenfmt: note: the host's memory of earlier backups was lost" in result.err
    assert "4 new" in result.out
    assert len(site.backup("--json").document["notes"]) == 0


# --- conflicts ----------------------------------------------------------------------------------


@pytest.fixture
def changed(site: Site) -> Site:
    """A write-once set of which two files have changed."""
    site.backup("--mode", "worm")
    site.put("notes.txt", b"warm lake\n" * 200, mtime=1_600_000_000)
    site.put("2019/a.jpg", b"scrambled", mtime=1_600_000_000)
    return site


def test_conflicts_are_listed(changed: Site) -> None:
    before = content(changed, "photos/notes.txt")
    changed.put("new.txt", b"new")
    result = changed.backup("--mode", "worm", code=3)
    assert "the content of 2 files of this write-once set has changed:\n" in result.err
    assert "  photos/notes.txt: 1000 B of 2020-01-01" in result.err
    assert "is now 2.0 KiB of 2020-09-13" in result.err
    assert "--on-conflict" in result.err
    assert "1 new" in result.out
    assert content(changed, "photos/notes.txt") == before
    assert content(changed, "photos/new.txt") == b"new"


def test_conflicts_in_json(changed: Site) -> None:
    document = changed.backup("--mode", "worm", "--json", code=3).document
    assert (document["status"], document["complete"]) == ("incomplete", False)
    first, second = document["conflicts"]
    assert set(first) == {
        *("path", "local_path", "old_size", "new_size", "old_mtime_ns", "new_mtime_ns", "old_id", "new_id", "answer")
    }
    assert (first["path"], second["path"]) == ("photos/2019/a.jpg", "photos/notes.txt")
    assert first["local_path"] == str(changed.source / "2019" / "a.jpg")
    assert (second["old_size"], second["new_size"], second["answer"]) == (1000, 2000, "withhold")


@pytest.mark.parametrize(
    ("answer", "code", "stored"),
    [
        ("accept", 0, b"warm lake\n" * 200),
        ("keep-both", 0, b"warm lake\n" * 200),
        ("skip", 3, b"cold lake\n" * 100),
        ("fail", 1, b"cold lake\n" * 100),
    ],
)
def test_one_answer_for_all(changed: Site, answer: str, code: int, stored: bytes) -> None:
    changed.backup("--mode", "worm", "--on-conflict", answer, code=code)
    assert content(changed, "photos/notes.txt") == stored
    assert len(changed.vault().snapshots()) == (1 if answer == "fail" else 2)
    if answer == "keep-both":
        names = [entry.name for entry in changed.vault().snapshot("latest").listdir("photos")]
        assert len([name for name in names if name.startswith("notes.txt.~")]) == 1


def test_restoring_as_an_answer(changed: Site) -> None:
    changed.backup("--mode", "worm", "--on-conflict", "restore", "-i", "me.key")
    assert (changed.source / "notes.txt").read_bytes() == b"cold lake\n" * 100
    (aside,) = changed.source.glob("notes.txt.local-*")
    assert aside.read_bytes() == b"warm lake\n" * 200


def test_conflicts_are_asked_about_on_a_terminal(changed: Site) -> None:
    terminal = changed.terminal("backup", "v", "photos", "--name", "photos", "--mode", "worm")
    terminal.expect("a/k/s/f, capital for all that follow, ? for help: ")
    assert "photos/2019/a.jpg: the content has changed, and the set is write-once" in terminal.text.decode()
    assert "9 B (9 bytes)" in terminal.text.decode()
    assert "2020-01-01" in terminal.text.decode()
    terminal.send("x\n")  # no answer
    terminal.expect("? for help: ", seen=2)
    terminal.send("r\n")  # not offered
    terminal.expect("? for help: ", seen=3)
    terminal.send("skip\n")
    terminal.expect("photos/notes.txt: the content has changed")
    terminal.expect("? for help: ", seen=4)
    terminal.send("a\n")
    code, text = terminal.finish()
    assert code == 3
    assert "skipped: the snapshot keeps what was stored before" in text
    assert content(changed, "photos/2019/a.jpg") != b"scrambled"
    assert content(changed, "photos/notes.txt") == b"warm lake\n" * 200


def test_an_answer_for_all_that_follow(changed: Site) -> None:
    terminal = changed.terminal("backup", "v", "photos", "--name", "photos", "--mode", "worm", "-i", "me.key")
    terminal.expect("a/k/r/s/f, capital for all that follow")
    terminal.send("R\n")
    code, text = terminal.finish()
    assert code == 0
    assert text.count("? for help: ") == 1
    assert len(list(changed.source.rglob("*.local-*"))) == 2


@pytest.mark.parametrize("typed", ["\x04", "\x03"])
def test_no_answer(changed: Site, typed: str) -> None:
    terminal = changed.terminal("backup", "v", "photos", "--name", "photos", "--mode", "worm")
    terminal.expect("? for help: ")
    terminal.send(typed)
    code, text = terminal.finish()
    assert code == 1
    assert "interrupted; nothing was committed: every snapshot before is as it was" in text
    assert len(changed.vault().snapshots()) == 1


def test_nothing_is_asked_where_nobody_can_answer(changed: Site) -> None:
    terminal = changed.terminal("backup", "v", "photos", "--name", "photos", "--mode", "worm", "--json")
    code, text = terminal.finish()
    assert code == 3
    assert "? for help" not in text


# --- interruptions ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(site: Site, number: signal.Signals) -> None:
    site.backup()
    before = sorted(site.path.glob("v/*/*/*"))
    dump = "head -c 3000000 /dev/urandom; touch started; exec sleep 60"
    process = subprocess.Popen(
        [
            *(*INTERRUPTIBLE, "backup", "v", "photos", "--name", "photos"),
            *("--stdin-from-command", "dump", "--", "sh", "-c", dump),
        ],
        cwd=site.path,
        env=environment(site.env, measured=False),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + SECONDS
    while not (site.path / "started").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert out == b""
    assert err.startswith(b"rozenfmt: error: interrupted; nothing was committed: every snapshot before is as it was")
    assert sorted(site.path.glob("v/*/*/*")) == before
    assert ", unchanged\n" in site.backup().out


def test_backup_of_what_is_elsewhere(site: Site, tmp_path: Path) -> None:
    served = tmp_path / "served"
    (served / "www").mkdir(parents=True)
    (served / "www" / "index").write_text("hello")
    with sftp_server(served) as server:
        options = ["--source-options-file", "login.json", "--source-option", "host_key_policy=auto_add"]
        (site.path / "login.json").write_text(
            json.dumps({name: value for name, value in server.options.items() if name != "host_key_policy"})
        )
        (site.path / "login.json").chmod(0o600)
        found = site.run("backup", "v", f"{server.url}/www", "--name", "www", *options, "--json").document
        assert found["counts"]["new"] == 1
        assert found["complete"]
        site.run("backup", "v", f"other={server.url}/www", "--name", "other", *options)
        missing = site.run("backup", "v", f"{server.url}/none", *options, code=1)
        assert PASSWORD not in missing.err
        assert "none" in missing.err
        by_url = f'{server.url}={{"no_such_option": 1}}'
        site.run("backup", "v", f"{server.url}/www", *options, "--source-option", by_url, code=2)
    assert content(site, "www/index", "latest:www") == b"hello"
    assert content(site, "other/index", "latest:other") == b"hello"
    shown = site.run("snapshots", "v", "-i", "me.key", "-v").out
    assert f"from other {server.url.replace('somebody@', '')}/www" in shown
