"""``rozenfmt probe`` from outside."""

from __future__ import annotations

import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .helpers import run
from .site import Site

QUICK = ("--bytes", "64KiB")
NOWHERE = "http://127.0.0.1:9"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_folder(tmp_path: Path) -> None:
    done = run("probe", "new", *QUICK, cwd=tmp_path)
    for word in ("reach", "list_after_write", "fsync", "delete_data", "clock", "free"):
        assert word in done.out
    assert "suffice for: host, reader, owner, maintenance" in done.out
    assert list(tmp_path.iterdir()) == []
    assert run("probe", "new", *QUICK, "-q", cwd=tmp_path).out == ""


def test_a_vault_keeps_the_report(site: Site) -> None:
    assert site.run("probe", "v", "--recorded", code=1).out == ""
    before = files(site.path / "v")
    made = site.run("probe", "v", *QUICK, "--record", "--json").document
    (stored,) = set(files(site.path / "v")) - set(before)
    assert made["command"] == "probe"
    assert made["status"] == "done"
    assert made["recorded"] == str(stored.relative_to(site.path / "v"))
    assert made["host_id"] == site.host.host_id.hex(), "the key that is saved for this machine"
    assert {"name": "put", "result": "yes"}.items() <= next(
        one for one in made["abilities"] if one["name"] == "put"
    ).items()
    shown = site.run("probe", "v", "--recorded", "--json").document
    assert shown == made
    assert made["recorded"] in site.run("probe", "v", "--recorded").out
    # What others put there cannot move the cursor.
    stored.write_text(
        stored.read_text().replace("local", "local", 1).replace('"detail": "at once"', '"detail": "\\u001b[2J"')
    )
    assert "\x1b" not in site.run("probe", "v", "--recorded").out
    assert site.run("verify", "v", "-i", "me.key").err == ""


def test_exit_codes(site: Site) -> None:
    missing = site.run("probe", "no/folder", "--json", code=1).document
    assert missing["status"] == "failed"
    assert next(one for one in missing["abilities"] if one["name"] == "reach")["result"] == "no"
    unreached = ("-o", f"endpoint_url={NOWHERE}", "-o", "key=whoever", "-o", "secret=whatever")
    assert "whatever" not in site.run("probe", "s3://bucket/vault", *unreached, code=1).out
    assert site.run("probe", "http://127.0.0.1:9/vault", "--json", code=1).document["status"] == "failed"
    (site.path / "served").mkdir()
    serve = partial(SimpleHTTPRequestHandler, directory=str(site.path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        needs = site.run("probe", url, "--role", "host", "--json", code=4).document
        server.shutdown()
    assert needs["status"] == "differences"
    assert "put" in needs["missing"]
    for wrong in (("--host", "nobody"), ("--record", "--recorded")):
        site.run("probe", "v", *wrong, code=2)


def test_policies_need_no_network(site: Site) -> None:
    everything = run("probe", "s3://shop/vault", "--policies").out
    for word in ("# host", "# maintenance", "arn:aws:s3:::shop/vault/data/HOSTID/*", "Backblaze", "AbortIncomplete"):
        assert word in everything
    host_id = site.host.host_id.hex()
    for host in (host_id, site.key_file):
        alone = site.run("probe", "s3://shop/vault", "--policies", "--role", "host", "--host", host).out
        policy: dict[str, Any] = json.loads(alone)
        assert f"arn:aws:s3:::shop/vault/data/{host_id}/*" in policy["Statement"][2]["Resource"]
    document = run("probe", "s3://shop/vault", "--policies", "--json").document
    assert set(document["policies"]) == {"host", "reader", "owner", "maintenance"}
    assert document["lifecycle"]["Rules"]
    assert "Azure" in run("probe", "abfs://shop/vault", "--policies").out
    run("probe", "abfs://shop/vault", "--policies", "--role", "host", code=2)


@pytest.mark.parametrize("role", ["reader", "owner"])
def test_people_look_in_their_own_place(site: Site, role: str) -> None:
    shutil.rmtree(site.path / "config")
    done = site.run("probe", "v", *QUICK, "--role", role, "--record", "--json").document
    assert done["host_id"] == ""
    assert done["missing"] == []
    assert done["recorded"].startswith("probe/people/")
