"""Writes the conformance vectors, or compares them with ``--check``.

    python spec/vectors/generate.py [--check]

Each vector is an object, ``NAME.rzn``, and what a reader must make of it, ``NAME.json``; vaults are folders below
``vaults/`` with a file beside them. README.md explains the keys.
All randomness is fixed, and encoded bodies are stored inputs, so that every run gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cbor2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rozenfmt.format import crypto
from spec.vectors import vaults
from spec.vectors.kinds import VECTORS
from spec.vectors.maker import INPUT, Block, Listed, Maker
from spec.vectors.positive import Other, Vector

HERE = Path(__file__).parent


def notation(value: Any) -> Any:
    """A CBOR value as JSON: byte strings as ``h'…'``, texts in double quotes."""
    if isinstance(value, bytes):
        return f"h'{value.hex()}'"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return {str(k): notation(v) for k, v in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [notation(item) for item in value]
    return value


def released(bodies: Iterable[bytes]) -> dict[str, Any]:
    """Number of bytes and digest of what a reader releases."""
    joined = b"".join(bodies)
    return {"bytes": len(joined), "blake3": crypto.digest(joined).hex()}


def entry(listed: Listed) -> dict[str, Any]:
    """An entry as it should be read."""
    e = listed.entry
    found: dict[str, Any] = {
        "path": listed.path.hex(),
        "printable": listed.path.decode(errors="backslashreplace"),
        "kind": int(e.kind),
        "mode": e.mode,
        "uid": e.uid,
        "gid": e.gid,
        "user": e.user.hex(),
        "group": e.group.hex(),
        "mtime_ns": e.mtime_ns,
        "size": e.size if e.kind == 1 else None,
        "target": e.target.hex() if e.kind == 3 else None,
        "device": list(e.device) if e.device is not None else None,
        "link_group": e.link_group.hex() if e.link_group is not None else None,
        "xattrs": e.xattr_ref is not None,
        "marks": e.marks,
        "content_id": e.content_id.hex() if e.has_content and e.content_id is not None else None,
        "blake3": crypto.digest(listed.content).hex() if listed.content is not None else None,
    }
    return found


def block(one: Block) -> dict[str, Any]:
    """A block as it is stored."""
    return {
        "type": one.type,
        "sequence": one.sequence,
        "offset": one.offset,
        "length": len(one.frame),
        "record": notation(one.record),
        "body": crypto.digest(one.body).hex() if one.body else None,
        **({"map": notation(cbor2.loads(one.body))} if one.type in ("SNAP", "XREF", "keyr") else {}),
    }


def archive(maker: Maker, offset: int, attributes: dict[bytes, list[Any]]) -> dict[str, Any]:
    """What is known of one archive."""
    entries = []
    for listed in sorted(maker.listed, key=lambda x: x.path):
        found = entry(listed)
        ref = listed.entry.xattr_ref
        found["xattrs"] = attributes[ref[0]] if ref is not None else []
        entries.append(found)
    return {
        "offset": offset,
        "length": len(maker.data),
        "archive_id": maker.archive_id.hex(),
        "kind": maker.kind,
        "suite": maker.suite,
        "padding": list(maker.padding),
        "creator": "rozenfmt vectors",
        "signer": maker.header_record[10].hex() if 10 in maker.header_record else None,
        "stanzas": [row[:2] for row in maker.header_record.get(9, [])],
        "header": notation(maker.header_record),
        "secret": maker.secret.hex(),
        "id_key": maker.id_key.hex() if maker.id_key is not None else None,
        "blocks": [block(one) for one in maker.blocks],
        "entries": entries,
    }


def attribute_sets(maker: Maker) -> dict[bytes, list[Any]]:
    """Attributes by the id of their piece."""
    from rozenfmt.format.varint import decode_column

    found: dict[bytes, list[Any]] = {}
    for one in maker.blocks:
        if one.type == "TREX":
            column = one.record[16]
            at = 0
            for length in decode_column(column, sum(byte < 0x80 for byte in column)):
                piece = one.body[at : at + length]
                found[maker.ident(piece)] = [[n.hex(), v.hex()] for n, v in cbor2.loads(piece)]
                at += length
    return found


def other(vector: Vector, one: Other) -> dict[str, Any]:
    """Another set of keys."""
    return {
        "identities": [x.hex() for x in one.identities],
        "passphrases": one.passphrases,
        "verify_key": one.verify_key.hex() if one.verify_key is not None else None,
        "allow_plain": one.allow_plain,
        "right": one.right,
        "expected": one.expected,
        "released": released(bodies(vector, one.stop, one.right, one.archives)),
    }


def bodies(vector: Vector, stop: str, right: str | None, archives: int | None = None) -> list[bytes]:
    """Bodies released by a reader that stops in the last archive, with this right where it is not plain."""
    found: list[bytes] = []
    for maker in vector.makers[:archives]:
        last = maker is vector.makers[-1]
        if maker.suite == 0 or right == "read" or (not last and right is None and stop == "start"):
            found += maker.bodies(stop if last else "end")
    return found


def sidecar(name: str, vector: Vector) -> dict[str, Any]:
    """The description of one vector."""
    keyless = [
        body
        for maker in vector.makers
        if maker.suite == 0
        for body in maker.bodies(vector.stop_keyless if maker is vector.makers[-1] else "end")
    ]
    found: dict[str, Any] = {
        "name": name,
        "description": vector.description,
        "feature": vector.feature,
        "clause": vector.clause,
        "identities": [one.hex() for one in vector.identities],
        "passphrases": vector.passphrases,
        "verify_key": vector.verify_key.hex() if vector.verify_key is not None else None,
        "allow_plain": vector.allow_plain,
        "expected": vector.expected,
        "expected_keyless": vector.keyless,
        "right": vector.right,
        "released": released(bodies(vector, vector.stop, vector.right)),
        "released_keyless": released(keyless),
        "others": [other(vector, one) for one in vector.others],
    }
    if vector.expected == "success":
        found["archives"] = []
        offset = 0
        for maker in vector.makers:
            found["archives"].append(archive(maker, offset, attribute_sets(maker)))
            offset += len(maker.data)
    return found


def files() -> dict[str, bytes]:
    """All files, by name."""
    found = {}
    for name, build in VECTORS.items():
        vector = build()
        found[f"{name}.rzn"] = vector.data
        found[f"{name}.json"] = _json(sidecar(name, vector))
    for name, build_vault in vaults.VAULTS.items():
        vault = build_vault()
        found[f"vaults/{name}.json"] = _json(vaults.sidecar(vault))
        for path, data in vault.objects.items():
            found[f"vaults/{name}/{path}"] = data
    return found


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def stored() -> dict[str, bytes]:
    """What is there."""
    paths = [path for path in HERE.iterdir() if path.suffix in (".rzn", ".json")]
    paths += [path for path in (HERE / "vaults").rglob("*") if path.is_file()]
    return {path.relative_to(HERE).as_posix(): path.read_bytes() for path in paths}


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description="Write the conformance vectors.")
    parser.add_argument("--check", action="store_true", help="compare with what is there, and write nothing")
    check = parser.parse_args().check
    INPUT.may_add = not check
    made = files()
    there = stored()
    if not check:
        for name in there.keys() - made.keys():
            (HERE / name).unlink()
        for name, data in made.items():
            if there.get(name) != data:
                (HERE / name).parent.mkdir(parents=True, exist_ok=True)
                (HERE / name).write_bytes(data)
        INPUT.save()
        print(f"{len(VECTORS)} vectors, {len(vaults.VAULTS)} vaults, {sum(map(len, made.values()))} bytes")
        return 0
    differences = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    for name in differences:
        what = "is missing" if name not in there else "is not made any more" if name not in made else "differs"
        print(f"{name} {what}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
