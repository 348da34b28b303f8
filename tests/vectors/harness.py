"""Reading the vectors: sidecars, and both readers' complete checks of bytes in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from blake3 import blake3

from rozenfmt.archive.verify import ContentVerifier
from rozenfmt.errors import ArchiveError
from rozenfmt.format import crypto
from rozenfmt.format.crypto import Argon2Cost
from rozenfmt.format.decoder import BlockEvent, Decoder, EndEvent, HeaderEvent
from rozenfmt.format.header import Header, unlock
from rozenfmt.format.index import MemoryRuns
from rozenfmt.format.registry import StanzaType
from rozenfmt.keys import Passphrase

FOLDER = Path(__file__).parents[2] / "spec" / "vectors"


@cache
def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@cache
def load(name: str) -> tuple[bytes, dict[str, Any]]:
    return (FOLDER / f"{name}.rzn").read_bytes(), json.loads((FOLDER / f"{name}.json").read_text())


@dataclass(frozen=True)
class PrivateKey:
    """An X25519 private key as an identity of the library."""

    private: bytes
    stanza_type: StanzaType = StanzaType.X25519

    def unwrap(self, right: int, archive_id: bytes, body: bytes) -> bytes:
        return crypto.hpke_open(self.private, crypto.stanza_info(right, archive_id), body)


@dataclass(frozen=True)
class Keyring:
    """What a reader is given."""

    private: tuple[bytes, ...] = ()
    passphrases: tuple[str, ...] = ()
    verify_key: bytes | None = None
    allow_plain: bool = False

    @classmethod
    def of(cls, row: dict[str, Any]) -> Keyring:
        key = row["verify_key"]
        return cls(
            tuple(map(bytes.fromhex, row["identities"])),
            tuple(row["passphrases"]),
            bytes.fromhex(key) if key is not None else None,
            row["allow_plain"],
        )

    def identities(self) -> Sequence[PrivateKey | Passphrase]:
        return [
            *map(PrivateKey, self.private),
            *(Passphrase(words, cost=Argon2Cost(1, 8)) for words in self.passphrases),
        ]


@dataclass
class Outcome:
    """What a complete check made of an object."""

    failure: str = "success"
    right: str | None = None
    released: bytearray = field(default_factory=bytearray)
    archives: list[dict[str, Any]] = field(default_factory=list)
    error: Exception | None = None

    def digest(self) -> dict[str, Any]:
        return {"bytes": len(self.released), "blake3": blake3(self.released).hexdigest()}


def cases(sidecar: dict[str, Any]) -> list[tuple[Keyring, str, dict[str, Any], Any]]:
    """Keys, expected class, expected release and expected right: with the keys, without, with others."""
    rows = [(Keyring.of(sidecar), sidecar["expected"], sidecar["released"], sidecar["right"])]
    rows.append((Keyring(), sidecar["expected_keyless"], sidecar["released_keyless"], None))
    rows += [(Keyring.of(row), row["expected"], row["released"], row["right"]) for row in sidecar["others"]]
    return rows


def library(data: bytes, keyring: Keyring) -> Outcome:
    """The library's complete check, in memory: decoder and verifier as ``rozenfmt.check`` joins them."""
    out = Outcome()
    verifier: ContentVerifier | None = None
    choose = partial(unlock, identities=keyring.identities(), allow_plain=keyring.allow_plain)
    decoder = Decoder(choose, keyring.verify_key)

    def take(event: HeaderEvent | BlockEvent | EndEvent) -> None:
        nonlocal verifier
        if isinstance(event, HeaderEvent):
            keys = event.keys
            verifier = None if keys is None else ContentVerifier(keys, MemoryRuns(), event.header.kind)
            if keys is not None and event.header.suite != 0:
                out.right = "read" if keys.secret is not None else "browse"
            elif keys is not None and out.right is None:
                out.right = "read"
            out.archives.append({"header": event.header, "blocks": [], "offset": event.base})
        elif isinstance(event, BlockEvent):
            block = event.block
            out.archives[-1]["blocks"].append((block, event.offset, event.found))
            if verifier is not None:
                verifier.take(block, event.offset, event.found, verifier.ids(block))
            if block.type in (b"PACK", b"FCNT") and block.opened:
                out.released.extend(block.body)
        elif verifier is not None:
            verifier.finish()

    decoder._splitter.feed(data)  # feed() and close() keep the events before an error to themselves
    decoder._splitter.close()
    try:
        for event in decoder.events():
            take(event)
    except ArchiveError as error:
        out.failure, out.error = error.failure_class, error
    return out


__all__ = ["FOLDER", "Header", "Keyring", "Outcome", "PrivateKey", "cases", "library", "load", "names"]
