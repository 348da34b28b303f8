"""What a vault's owner does: making it, hosts, people."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import rozenfmt as rz

from .helpers import run
from .site import Site

ABOUT = {"command", "status", "vault", "vault_id", "warnings"}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"ROZENFMT_CONFIG_DIR": str(tmp_path / "config"), "ROZENFMT_CACHE_DIR": str(tmp_path / "cache")}


@pytest.fixture
def me(tmp_path: Path) -> rz.Identity:
    found = rz.Identity.generate()
    found.save(tmp_path / "me.key")
    return found


# --- init ---------------------------------------------------------------------------------------


def test_init_makes_a_vault_and_enrols_this_machine(tmp_path: Path, env: dict[str, str], me: rz.Identity) -> None:
    result = run("init", "v", "-i", "me.key", "--label", "attic", cwd=tmp_path, env=env)
    with rz.Vault.open(tmp_path / "v", identities=[me]) as vault:
        file = tmp_path / "config" / "hosts" / f"{vault.vault_id.hex()}.host"
        assert list(vault.hosts.values()) == ["attic"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert str(file) in result.out
    assert vault.vault_id.hex() in result.out
    assert "not needed here any more" in result.out
    assert rz.HostKey.load(file).to_text() not in result.out + result.err

    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_text("a")
    (tmp_path / "me.key").rename(tmp_path / "elsewhere")
    run("backup", "v", "src", cwd=tmp_path, env=env)


def test_init_json(tmp_path: Path, env: dict[str, str], me: rz.Identity) -> None:
    document = run("init", "v", "-i", "me.key", "--json", cwd=tmp_path, env=env).document
    assert set(document) == {*ABOUT, "owner", "host"}
    assert document["owner"] == str(me.recipient)
    assert set(document["host"]) == {"id", "label", "file"}
    assert Path(document["host"]["file"]).exists()
    other = run("init", "w", "-i", "me.key", "--no-enrol", "--json", cwd=tmp_path, env=env).document
    assert other["host"] is None
    assert len(list((tmp_path / "config" / "hosts").iterdir())) == 1


def test_init_with_more_people(tmp_path: Path, env: dict[str, str], me: rz.Identity) -> None:
    ada, clerk = rz.Identity.generate(), rz.Identity.generate()
    (tmp_path / "clerk.txt").write_text(f"{clerk.recipient}\n")
    people = ("--recipient", str(ada.recipient), "--browser", "clerk.txt")
    run("init", "v", "-i", "me.key", *people, cwd=tmp_path, env=env)
    for identity, right in ((ada, rz.Right.READ), (clerk, rz.Right.BROWSE)):
        with rz.Vault.open(tmp_path / "v", identities=[identity], owner=me.recipient) as vault:
            assert vault.right is right


def test_init_where_a_vault_is(site: Site) -> None:
    before = sorted((site.path / "v" / "editions").iterdir())
    result = site.run("init", "v", "-i", "me.key", code=1)
    assert "there is a vault at v already" in result.err
    assert sorted((site.path / "v" / "editions").iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [[], ["-i", "me.key", "-i", "other.key"], ["-i", "me.key", "--no-enrol", "--label", "x"], ["-i", "missing.key"]],
)
def test_init_wrong_usage(tmp_path: Path, env: dict[str, str], me: rz.Identity, arguments: list[str]) -> None:
    rz.Identity.generate().save(tmp_path / "other.key")
    result = run("init", "v", *arguments, cwd=tmp_path, env=env, code=2)
    assert "rozenfmt: error: " in result.err
    assert not (tmp_path / "v").exists()


def test_init_where_the_host_key_cannot_be_saved(tmp_path: Path, env: dict[str, str], me: rz.Identity) -> None:
    (tmp_path / "config").write_text("in the way")
    result = run("init", "v", "-i", "me.key", cwd=tmp_path, env=env, code=2)
    assert "where the host key would be saved" in result.err
    assert not (tmp_path / "v").exists()
    assert "255 bytes" in run("init", "v", "-i", "me.key", "--label", "x" * 256, cwd=tmp_path, env=env, code=2).err
    assert not (tmp_path / "v").exists()


def test_init_with_a_locked_key(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "words").write_text("correct horse\n")
    run("keygen", "-o", "locked.key", "--passphrase-file", "words", cwd=tmp_path)
    unasked = run("init", "v", "-i", "locked.key", cwd=tmp_path, env=env, code=2)
    assert "--passphrase-file" in unasked.err
    init = ("init", "v", "--passphrase-file")
    wrong = run(*init, "-", cwd=tmp_path, env={**env, "ROZENFMT_IDENTITY": "locked.key"}, stdin=b"wrong\n", code=1)
    assert "the passphrase does not open locked.key" in wrong.err
    assert not (tmp_path / "v").exists()
    run(*init, "words", cwd=tmp_path, env={**env, "ROZENFMT_IDENTITY": "locked.key"})


# --- hosts --------------------------------------------------------------------------------------


def test_enrol_another_machine(site: Site) -> None:
    result = site.run("enrol", "v", "-i", "me.key", "server", "-o", "server.host")
    host = rz.HostKey.load(site.path / "server.host")
    assert host.label == "server"
    assert f"{host.vault_id.hex()}.host" in result.out
    assert host.to_text() not in result.out
    listed = site.run("hosts", "v", "-i", "me.key").out
    assert listed == f"{site.host.host_id.hex()}  laptop\n{host.host_id.hex()}  server\n"
    done = site.run("backup", "v", "photos", "--host-key", "server.host", "--json").document
    assert site.vault().snapshot(done["snapshot_id"]).host == "server"
    again = site.run("enrol", "v", "-i", "me.key", "server", "-o", "server.host", code=2)
    assert "never overwritten" in again.err
    assert len(site.vault().hosts) == 2


def test_enrol_this_machine(site: Site) -> None:
    assert "enrolled already" in site.run("enrol", "v", "-i", "me.key", "laptop", code=2).err
    assert len(site.vault().hosts) == 1
    site.key_file.unlink()
    document = site.run("enrol", "v", "-i", "me.key", "laptop", "--json").document
    assert set(document) == {*ABOUT, "host"}
    assert document["host"]["file"] == str(site.key_file)
    site.backup()


def test_retire(site: Site) -> None:
    site.backup()
    site.run("enrol", "v", "-i", "me.key", "laptop", "-o", "second.host")
    assert "several active hosts" in site.run("retire", "v", "-i", "me.key", "laptop", code=2).err
    assert "no active host" in site.run("retire", "v", "-i", "me.key", "nobody", code=2).err
    assert "no active host" in site.run("retire", "v", "-i", "me.key", "", code=2).err
    document = site.run("retire", "v", "-i", "me.key", site.host.host_id.hex()[:8], "--json").document
    assert document["host"] == {"id": site.host.host_id.hex(), "label": "laptop", "retired": True}
    assert "retired" in site.backup(code=1).err
    hosts = site.run("hosts", "v", "-i", "me.key", "--json").document["hosts"]
    assert {(one["id"], one["retired"]) for one in hosts} == {
        (site.host.host_id.hex(), True),
        (rz.HostKey.load(site.path / "second.host").host_id.hex(), False),
    }
    assert len(site.vault().snapshots()) == 1
    site.run("retire", "v", "-i", "me.key", "laptop")  # of those that are left, there is one of this name


def test_only_the_owner(site: Site) -> None:
    site.run("grant", "v", "-i", "me.key", "ada.key")
    for arguments in (["enrol", "v", "x", "-o", "x.host"], ["retire", "v", "laptop"], ["grant", "v", "clerk.key"]):
        assert "owner" in site.run(*arguments, "-i", "ada.key", code=2).err
    assert not (site.path / "x.host").exists()


# --- people -------------------------------------------------------------------------------------


def test_grant_and_revoke(site: Site) -> None:
    site.backup()
    ada = rz.Identity.load(site.path / "ada.key").recipient
    granted = site.run("grant", "v", "-i", "me.key", str(ada), "--label", "Ada")
    assert f"--owner {site.me.recipient}" in granted.out
    assert "Ada may read everything" in granted.out
    document = site.run("grant", "v", "-i", "me.key", "clerk.key", "--browse", "--json").document
    assert set(document) == {*ABOUT, "owner", "person"}
    assert document["person"]["right"] == "browse"
    twice = site.run("grant", "v", "-i", "me.key", "ada.key", code=2)
    assert "already" in twice.err

    people = site.run("people", "v", "-i", "ada.key", "--owner", "me.key", "--json").document["people"]
    assert {(one["recipient"], one["right"], one["label"], one["owner"], one["removed"]) for one in people} == {
        (str(site.me.recipient), "read", "", True, False),
        (str(ada), "read", "Ada", False, False),
        (document["person"]["recipient"], "browse", "", False, False),
    }
    assert "may only browse" in site.run("people", "v", "-i", "clerk.key", "--owner", "me.key", code=1).err

    said = site.run("revoke", "v", "-i", "me.key", "Ada").out
    assert "keep the keys of what was stored before" in said
    assert "Ada  (removed)" in site.run("people", "v", "-i", "me.key").out
    assert site.run("snapshots", "v", "-i", "ada.key", "--owner", "me.key", code=1).err.startswith("rozenfmt: error: ")
    site.run("revoke", "v", "-i", "me.key", "clerk.key", "--json")
    assert "not among the people" in site.run("revoke", "v", "-i", "me.key", rz_recipient(), code=2).err
    assert "owner cannot be removed" in site.run("revoke", "v", "-i", "me.key", "me.key", code=2).err


def rz_recipient() -> str:
    return str(rz.Identity.generate().recipient)


def test_revoking_by_an_ambiguous_label(site: Site) -> None:
    for name in ("ada", "clerk"):
        site.run("grant", "v", "-i", "me.key", f"{name}.key", "--label", "twin")
    assert "2 people have the label" in site.run("revoke", "v", "-i", "me.key", "twin", code=2).err


def test_two_recipients_at_once(site: Site) -> None:
    (site.path / "two").write_text(f"{rz_recipient()}\n{rz_recipient()}\n")
    assert "holds 2 recipients" in site.run("grant", "v", "-i", "me.key", "two", code=2).err


# --- keys that do not fit -----------------------------------------------------------------------


def test_a_host_key_is_a_secret(site: Site) -> None:
    secret = site.host.to_text()
    refused = site.run("grant", "v", "-i", "me.key", secret, code=2)
    assert "secret key stands on the command line" in refused.err
    assert secret not in refused.err
    file = site.run("grant", "v", "-i", "me.key", site.key_file, code=2)
    assert secret not in file.err


def test_no_key(site: Site) -> None:
    assert "ROZENFMT_IDENTITY" in site.run("hosts", "v", code=2).err
    site.run("hosts", "v", env={"ROZENFMT_IDENTITY": "me.key"})


def test_a_key_of_somebody_else(site: Site) -> None:
    unknown = site.run("hosts", "v", "-i", "ada.key", code=2).err
    assert "owned" in unknown
    assert "ask its owner" in site.run("hosts", "v", "-i", "ada.key", "--owner", "me.key", code=1).err
    stranger = site.run("hosts", "v", "-i", "ada.key", "--owner", "ada.key", code=1).err
    assert "another owner" in stranger


@pytest.mark.parametrize("command", [["hosts", "w", "-i", "me.key"], ["backup", "w", "photos"]])
def test_no_vault(site: Site, command: list[str]) -> None:
    result = site.run(*command, code=1)
    assert "no vault here" in result.err
    assert not (site.path / "w").exists()


def test_what_is_passed_over_is_said(site: Site) -> None:
    (site.path / "v" / "editions" / "00000009-0123456789abcdef").write_bytes(os.urandom(100))
    result = site.run("hosts", "v", "-i", "me.key")
    assert "rozenfmt: warning: passed over editions/00000009-0123456789abcdef" in result.err
    document = site.run("hosts", "v", "-i", "me.key", "--json").document
    assert len(document["warnings"]) == 1
    site.backup()


def test_lost_editions(site: Site) -> None:
    site.backup()
    for file in (site.path / "v" / "editions").iterdir():
        file.unlink()
    assert "no vault here" in site.backup(code=1).err
    lost = site.run("snapshots", "v", "-i", "me.key")
    assert "a copy in a metadata archive is used" in lost.err
    assert "photos" in lost.out
    assert site.run("repair-editions", "v", "-i", "me.key").out == "1 edition stored again\n"
    site.backup()
    assert site.run("repair-editions", "v", "-i", "me.key", "--json").document["stored"] == 0
