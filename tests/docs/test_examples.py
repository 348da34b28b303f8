"""The programs in examples/ run as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rozenfmt as rz
from rozenfmt.testing.servers import Server

from .helpers import ROOT, environment

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def example(name: str, *arguments: str | Path, place: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "examples" / name, *arguments]
    return subprocess.run(
        command,
        cwd=place,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "2019").mkdir(parents=True)
    (folder / "2019" / "IMG_0001.jpg").write_bytes(os.urandom(100_000))
    (folder / "notes.txt").write_text("cold lake\n" * 1000)
    (folder / "latest").symlink_to("2019")
    return folder


def test_no_example_is_forgotten() -> None:
    assert {path.name for path in EXAMPLES} == {"first_vault.py", "first_archive.py", "embed.py", "backup_to_s3.py"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_programs(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/env python3\n")


def test_first_vault(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    for number, folder in enumerate(("rozenfmt-demo", "rozenfmt-demo-2")):
        done = example("first_vault.py", source, place=place)
        assert done.returncode == 0, done.stdout + done.stderr
        for step in ("copy", "key", "vault", "backup", "change", "diff", "verify", "restore", "compare", "left here"):
            assert f"\n{step} " in "\n" + done.stdout
        assert "1 new, 1 changed, 1 moved, 0 deleted" in done.stdout
        assert sorted(os.listdir(place / folder)) == ["cache", "me.key", "this-machine.host", "vault"]
        me = rz.Identity.load(place / folder / "me.key")
        with rz.Vault.open(place / folder / "vault", identities=[me]) as vault:
            assert len(vault.snapshots()) == 2
        assert len(list(place.iterdir())) == number + 1
    assert (source / "notes.txt").read_text() == "cold lake\n" * 1000, "only a copy is changed"


def test_first_vault_inside_of_its_source(source: Path) -> None:
    done = example("first_vault.py", source, place=source / "2019")
    assert done.returncode == 2
    assert os.listdir(source / "2019") == ["IMG_0001.jpg"]


def test_first_archive(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    for number, folder in enumerate(("rozenfmt-demo", "rozenfmt-demo-2")):
        done = example("first_archive.py", source, place=place)
        assert done.returncode == 0, done.stdout + done.stderr
        for step in ("key", "archive", "check", "list", "extract", "compare", "left here"):
            assert f"\n{step} " in "\n" + done.stdout
        assert sorted(os.listdir(place / folder)) == ["me.key", "photos.rzn"]
        me = rz.Identity.load(place / folder / "me.key")
        with rz.open(place / folder / "photos.rzn", identities=[me]) as archive:
            assert archive.entry_count == 5
            assert archive.read("photos/notes.txt") == (source / "notes.txt").read_bytes()
        assert len(list(place.iterdir())) == number + 1


def test_first_archive_of_nothing(tmp_path: Path) -> None:
    done = example("first_archive.py", tmp_path / "missing", place=tmp_path)
    assert done.returncode == 2
    assert not list(tmp_path.iterdir())


def test_embed(source: Path, tmp_path: Path) -> None:
    done = example("embed.py", source, tmp_path / "out.rzn", place=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "level contents" in done.stdout
    assert "3 files can be read back" in done.stdout
    assert rz.check(tmp_path / "out.rzn").archives == 1
    again = example("embed.py", source, tmp_path / "out.rzn", place=tmp_path)
    assert again.returncode == 1, "it stands there already"


def test_embed_without_arguments(tmp_path: Path) -> None:
    done = example("embed.py", place=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_backup_to_s3(source: Path, tmp_path: Path, s3: Server) -> None:
    me = rz.Identity.generate()
    me.save(tmp_path / "me.key")
    env = {
        "BACKUP_URL": "s3://bucket/example",
        "BACKUP_RECIPIENT": str(me.recipient),
        "BACKUP_ENDPOINT": s3.storage_options["endpoint_url"],
        "AWS_ACCESS_KEY_ID": s3.storage_options["key"],
        "AWS_SECRET_ACCESS_KEY": s3.storage_options["secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    done = example("backup_to_s3.py", source, place=tmp_path, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("checked: stored")
    target = done.stdout.partition(": ")[0]
    with rz.open(target, identities=[me], storage_options=s3.storage_options) as archive:
        assert archive.read("photos/notes.txt") == (source / "notes.txt").read_bytes()

    done = example("backup_to_s3.py", source / "2019", place=tmp_path, **env, BACKUP_IDENTITY=str(tmp_path / "me.key"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("checked: contents")

    done = example("backup_to_s3.py", source, place=tmp_path, **{**env, "BACKUP_URL": "s3://no-such-bucket/x"})
    assert done.returncode == 1
    assert "no-such-bucket" in done.stderr


def test_backup_to_s3_without_settings(source: Path, tmp_path: Path) -> None:
    done = example("backup_to_s3.py", source, place=tmp_path)
    assert done.returncode == 2
    assert "BACKUP_URL" in done.stderr
