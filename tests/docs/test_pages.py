"""The code in README and documentation does what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import rozenfmt
from rozenfmt.testing.servers import Server
from rozenfmt.vault import roles

from .helpers import PAGES, ROOT, blocks, environment, run

RUNNABLE = [page for page in PAGES if any(block.language in {"sh", "python"} for block in blocks(page))]


def test_there_is_something_to_run() -> None:
    assert ROOT / "README.md" in RUNNABLE
    assert len(RUNNABLE) >= 8


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_code_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    # Blocks in Python run in this process: they must not find the tester's own keys and caches.
    env, replace = environment(HOME=str(tmp_path)), {}
    if "s3://" in page.read_text(encoding="utf-8"):
        server: Server = request.getfixturevalue("s3")
        options = server.storage_options
        env |= {
            "AWS_ACCESS_KEY_ID": options["key"],
            "AWS_SECRET_ACCESS_KEY": options["secret"],
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        replace = {
            "https://s3.example.org": options["endpoint_url"],
            "s3://bucket/": f"s3://bucket/{page.stem}/",
            "AKIDEXAMPLE": options["key"],
            "SECRETEXAMPLE": options["secret"],
        }
    for name in os.environ.keys() - env.keys():
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    run(page, tmp_path, env, replace)


@pytest.mark.parametrize("name", ["try", "test"])
def test_ci_runs_the_commands_of_the_readme(name: str) -> None:
    (told,) = [block.code for block in blocks(ROOT / "README.md") if block.notes.get("command") == name]
    done = subprocess.run([ROOT / ".ci" / "run", "--show", name], capture_output=True, text=True, check=True)
    assert done.stdout == told
    assert told.count("\n") == 1, "one command"


def test_links_between_files_lead_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_policies_are_json() -> None:
    found = [block for page in PAGES for block in blocks(page) if block.language == "json"]
    assert len(found) >= 4
    for block in found:
        assert {"Statement", "Rules"} & json.loads(block.code).keys()


def test_policies_are_those_that_are_printed() -> None:
    url = "s3://BUCKET/vault"
    page = ROOT / "docs" / "howto" / "hosts.md"
    shown = [json.loads(block.code) for block in blocks(page) if block.language == "json"]
    printed = [roles.policy(role, url) for role in roles.ROLE_WORDS]
    assert shown == [*printed, roles.bucket_policy(url), roles.lifecycle(url)]


def test_permissions_are_those_that_are_printed() -> None:
    text = (ROOT / "docs" / "howto" / "permissions.md").read_text(encoding="utf-8")
    page = " ".join(text.split())
    for title, words in {**roles.ELSEWHERE, **roles.RECOMMENDED}.items():
        assert f"## {title} {words}" in page or f"**{title}.** {words}" in page, title


def test_every_public_name_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\.\. auto\w+:: rozenfmt\.(\w+)$", reference, flags=re.MULTILINE)
    assert sorted(shown) == sorted(set(rozenfmt.__all__) - {"__version__"})


def test_the_changelog_tells_library_and_format_apart() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    library, _, archive_format = text.partition("\n## Format\n")
    for part in (library.partition("\n## Library\n")[2], archive_format):
        versions = re.findall(r"^### \[(.+?)\]", part, flags=re.MULTILINE)
        assert versions[0] == "Unreleased"
