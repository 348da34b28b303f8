"""Making keys, and giving keys and passphrases to commands."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

import rozenfmt as rz

from .conftest import World
from .helpers import Terminal, run

WORDS = "correct horse"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    file = tmp_path / "words"
    file.write_text(WORDS + "\n")
    return file


def test_keygen_prints_the_recipient_and_keeps_the_secret(tmp_path: Path) -> None:
    result = run("keygen", "-o", "me.key", cwd=tmp_path)
    key = tmp_path / "me.key"
    assert result.out == f"{rz.Identity.load(key).recipient}\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    secret = key.read_text().splitlines()[-1]
    assert secret.startswith("rzi1")
    assert secret not in result.out + result.err


def test_keygen_json(tmp_path: Path) -> None:
    document = run("keygen", "-o", "s.key", "--sign", "--json", cwd=tmp_path).document
    assert document == {
        "command": "keygen",
        "status": "done",
        "file": "s.key",
        "verify_key": str(rz.SigningKey.load(tmp_path / "s.key").verify_key),
    }


def test_keygen_overwrites_nothing(world: World) -> None:
    before = (world.path / "me.key").read_bytes()
    assert "exists" in run("keygen", "-o", "me.key", cwd=world.path, code=2).err
    assert (world.path / "me.key").read_bytes() == before


def test_locked_key_with_the_passphrase_in_a_file(tmp_path: Path, world: World, words: Path) -> None:
    run("keygen", "-o", "locked.key", "--passphrase-file", words, cwd=tmp_path)
    assert "rzp1" in (tmp_path / "locked.key").read_text()
    run("archive", "create", "-r", "locked.key", "x.rzn", world.tree / "sub", cwd=tmp_path)
    listed = run("archive", "list", "-i", "locked.key", "--passphrase-file", words, "x.rzn", cwd=tmp_path)
    assert listed.out == "sub/\nsub/big\n"
    wrong = run(
        *("archive", "list", "-i", "locked.key", "--passphrase-file", "-", "x.rzn"),
        cwd=tmp_path,
        stdin=b"wrong\n",
        code=1,
    )
    assert "passphrase" in wrong.err
    unasked = run("archive", "list", "-i", "locked.key", "x.rzn", cwd=tmp_path, code=2)
    assert "--passphrase-file" in unasked.err


def test_passphrase_from_a_file(tmp_path: Path, world: World, words: Path) -> None:
    run("archive", "create", "--passphrase-file", words, "x.rzn", world.tree / "a.txt", cwd=tmp_path)
    cat = run("archive", "cat", "--passphrase-file", words, "x.rzn", "a.txt", cwd=tmp_path)
    assert cat.stdout == b"hello\n"
    wrong = run("archive", "cat", "--passphrase-file", "-", "x.rzn", "a.txt", cwd=tmp_path, stdin=b"no", code=1)
    assert wrong.stdout == b""
    assert "passphrase" in wrong.err


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"\xff\xfe"])
def test_passphrase_file_holds_one_line(tmp_path: Path, world: World, content: bytes) -> None:
    result = run(
        *("archive", "create", "--passphrase-file", "-", "x.rzn", world.tree),
        cwd=tmp_path,
        stdin=content,
        code=2,
    )
    assert "two" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_passphrase_on_a_terminal(tmp_path: Path, world: World) -> None:
    create = Terminal("archive", "create", "-p", "x.rzn", world.tree / "a.txt", cwd=tmp_path)
    create.expect("New passphrase: ")
    create.send(WORDS + "\n")
    create.expect("New passphrase, again: ")
    create.send(WORDS + "\n")
    code, text = create.finish()
    assert code == 0
    assert "x.rzn: 1 entry" in text
    cat = Terminal("archive", "cat", "-p", "x.rzn", "a.txt", cwd=tmp_path)
    cat.expect("Passphrase: ")
    cat.send(WORDS + "\n")
    code, shown = cat.finish()
    assert code == 0
    assert "hello" in shown
    assert "correct" not in text + shown


def test_passphrases_that_differ(tmp_path: Path, world: World) -> None:
    create = Terminal("archive", "create", "-p", "x.rzn", world.tree, cwd=tmp_path)
    create.expect("New passphrase: ")
    create.send("one\n")
    create.expect("again: ")
    create.send("two\n")
    code, text = create.finish()
    assert code == 2
    assert "differ" in text
    assert list(tmp_path.iterdir()) == []


def test_interrupted_at_the_prompt(tmp_path: Path, world: World) -> None:
    create = Terminal("archive", "create", "-p", "x.rzn", world.tree, cwd=tmp_path)
    create.expect("New passphrase: ")
    create.send("\x03")
    code, text = create.finish()
    assert code == 1
    assert "rozenfmt: error: interrupted" in text


def test_without_a_terminal_nothing_is_asked(tmp_path: Path, world: World) -> None:
    result = run("archive", "create", "-p", "x.rzn", world.tree, cwd=tmp_path, stdin=b"secret\n", code=2)
    assert "--passphrase-file" in result.err


def test_identity_of_the_environment(world: World) -> None:
    env = {"ROZENFMT_IDENTITY": str(world.path / "me.key")}
    assert run("archive", "cat", "a.rzn", "tree/a.txt", cwd=world.path, env=env).stdout == b"hello\n"
    # What is said outweighs it.
    env = {"ROZENFMT_IDENTITY": str(world.path / "missing.key")}
    run("archive", "cat", "-i", "me.key", "a.rzn", "tree/a.txt", cwd=world.path, env=env)
    assert "missing.key" in run("archive", "list", "a.rzn", cwd=world.path, env=env, code=2).err


def test_several_identities(world: World) -> None:
    run("archive", "cat", "-i", "other.key", "-i", "me.key", "a.rzn", "tree/a.txt", cwd=world.path)


def test_recipients_from_files(tmp_path: Path, world: World) -> None:
    file = tmp_path / "friends"
    file.write_text(f"# friends\n\n{world.recipient}\n{rz.Identity.generate().recipient}\n")
    run("archive", "create", "-r", file, "x.rzn", world.tree / "sub", cwd=tmp_path)
    run("archive", "check", "-i", world.path / "me.key", "x.rzn", cwd=tmp_path)
    assert run("archive", "inspect", "x.rzn", cwd=tmp_path).out.count("x25519 (read)") == 2


@pytest.mark.parametrize("content", ["", "# recipient: rzr1aaaa\n", "my diary\n", "rzr1aaaa\n", "rzs1abc\n"])
def test_what_is_no_recipient_is_refused_and_not_repeated(tmp_path: Path, world: World, content: str) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    result = run("archive", "create", "-r", file, "x.rzn", world.tree, cwd=tmp_path, code=2)
    assert "diary" not in result.err
    assert "abc" not in result.err


def test_a_secret_among_the_arguments_is_refused_and_not_repeated(tmp_path: Path, world: World) -> None:
    secret = (world.path / "me.key").read_text().splitlines()[-1]
    for arguments in (["-r", secret, "x.rzn", "."], [f"--recipient={secret}"], [f"--unknown={secret}"]):
        result = run("archive", "create", *arguments, cwd=tmp_path, code=2)
        assert "secret key" in result.err
        assert secret[4:20] not in result.err


def test_locked_signing_key(tmp_path: Path, world: World, words: Path) -> None:
    verify_key = run("keygen", "--sign", "-o", "s.key", "--passphrase-file", words, cwd=tmp_path).out.strip()
    create = ("archive", "create", "-r", world.recipient, "--sign", "s.key")
    run(*create, "--sign-passphrase-file", words, "x.rzn", world.tree / "sub", cwd=tmp_path)
    for key in (verify_key, "s.key"):
        run("archive", "check", "--verify-key", key, "x.rzn", cwd=tmp_path)
