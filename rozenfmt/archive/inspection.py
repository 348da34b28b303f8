"""``rozenfmt.inspect``: the block structure of an object, without a key and with one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rozenfmt.format import header as header_module
from rozenfmt.format.blocks import Block, Opener
from rozenfmt.format.decoder import Grammar, RawBlock, RawHeader, Splitter, open_raw, opener_for
from rozenfmt.format.nodes import Node
from rozenfmt.format.registry import IndexKind
from rozenfmt.keys import Identity, Passphrase

from .opening import opened

if TYPE_CHECKING:
    from rozenfmt.storage.bandwidth import Bandwidth
    from rozenfmt.storage.retry import RetryPolicy

__all__ = ["BlockInfo", "Inspection", "inspect"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """The header of one archive in an object.

    Attributes:
        base: Where the archive begins in the object.
        archive_id: Its id.
        kind, suite: Numbers of ``spec/registry.md``.
        creator: The program that wrote it.
        recipients: Stanza type and right of each recipient; whose they are cannot be seen.
        signer: Ed25519 key of the writer, if it is signed.
        right: What the keys given allow; None without one.
        header_length: Bytes of the header section.
    """

    base: int
    archive_id: bytes
    kind: int
    suite: int
    creator: str
    recipients: tuple[tuple[int, int], ...]
    signer: bytes | None
    right: int | None
    header_length: int


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """One block.

    Attributes:
        sequence, type, flags: As stored.
        offset: From the archive's preamble, in bytes.
        length, header_length, body_length: Stored lengths in bytes.
        details: What the key at hand shows of its record, or empty.
    """

    sequence: int
    type: str
    flags: int
    offset: int
    length: int
    header_length: int
    body_length: int
    details: dict[str, Any]


def inspect(
    location: str | os.PathLike[str],
    *,
    identities: Iterable[Identity | Passphrase] = (),
    allow_plain: bool = True,
    storage_options: dict[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
) -> Iterator[Inspection | BlockInfo]:
    """Go through an object and show its structure; every block's hashes are verified on the way.

    Args:
        location: Path or URL.
        identities: Show more with these.
        allow_plain: Accept archives without encryption.
        storage_options: For fsspec.
        retry: How long failed requests to the storage are made again; None for the defaults.
        bandwidth: Limits of what goes to the storage and comes from it.

    Yields:
        An ``Inspection`` for each archive, then its blocks.

    Raises:
        ArchiveError: Where the structure breaks; what came before stays valid.
    """
    splitter = Splitter()
    keys_given = tuple(identities)
    opener: Opener | None = None
    grammar: Grammar | None = None

    def items() -> Iterator[Any]:
        with opened(location, storage_options, retry, bandwidth) as (storage, name):
            for chunk in storage.stream(name):
                splitter.feed(chunk)
                yield from splitter
        splitter.close()
        yield from splitter

    for item in items():
        if isinstance(item, RawHeader):
            keys = header_module.unlock(item.header, keys_given, allow_plain=allow_plain)
            opener = opener_for(item.header, keys)
            grammar = Grammar(item.header, keys)
            record = item.header.record
            yield Inspection(
                base=item.base,
                archive_id=record.archive_id,
                kind=record.kind,
                suite=record.suite,
                creator=record.creator,
                recipients=tuple((kind, right) for kind, right, _ in record.stanzas or ()),
                signer=record.signer,
                right=int(keys.right) if keys is not None else None,
                header_length=len(item.header.section),
            )
        elif isinstance(item, RawBlock):
            assert opener is not None
            assert grammar is not None
            block = open_raw(item, opener)
            yield _info(item, block, grammar.accept(block, item.offset))
        else:
            assert grammar is not None
            grammar.accept_tail(item.data, item.offset)


def _info(item: RawBlock, block: Block, found: Any) -> BlockInfo:
    prefix = item.prefix
    return BlockInfo(
        sequence=prefix.sequence,
        type=prefix.type.decode("ascii", "replace"),
        flags=prefix.flags,
        offset=item.offset,
        length=prefix.frame_length,
        header_length=prefix.header_length,
        body_length=prefix.body_length,
        details=_details(block, found) if block.opened else {},
    )


def _details(block: Block, found: Any) -> dict[str, Any]:
    """The record's numbers in words; no contents."""
    record, details = block.record, {}
    if getattr(record, "size", None) is not None:
        details = {"codec": record.codec, "decoded": record.size, "encoded": record.encoded}
    if block.type in (b"PACK", b"FCNT", b"TREE", b"TREX"):
        details["pieces"] = sum(byte < 0x80 for byte in record.lengths)
    for name in ("stream", "number", "offset", "length", "blocks", "count", "first", "previous"):
        value = getattr(record, name, None)
        if isinstance(value, int):
            details[name] = value
    if block.type == b"FHDR" and record.name is not None:
        details["name"] = record.name.decode("utf-8", "backslashreplace")
    if block.type == b"INDX":
        details["index"] = IndexKind(record.kind).name.lower()
    if block.type == b"TREE":
        details["nodes"] = [_node(node) for node in found]
    return details


def _node(node: Node) -> dict[str, Any]:
    path = None if node.path is None else node.path.decode("utf-8", "backslashreplace")
    return {"type": node.type, "path": path, "entries": getattr(node.record, "count", None)}
