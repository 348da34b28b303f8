"""A block that does not give back what it was made of is noticed before it is stored."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import zstandard

from rozenfmt.archive.pipeline import Pipeline
from rozenfmt.errors import BlockError
from rozenfmt.format import codecs
from rozenfmt.format.blocks import Draft, SealedBlock, Slot
from rozenfmt.format.builders import PiecesBuilder, StreamBuilder
from rozenfmt.format.codecs import Compression
from rozenfmt.format.recheck import gives_back
from rozenfmt.format.registry import Codec, Suite

from .helpers import Stream, make_encoder, make_header, make_keys

SUITES = list(Suite)
LONG = b"".join(number.to_bytes(4, "little") for number in range(30_000))


def drafts() -> list[Draft]:
    found = []
    for block_type, body in ((b"PACK", b"content " * 500), (b"PACK", LONG), (b"TREE", b"node"), (b"TREX", LONG)):
        for compression in ("none", "zstd:3", "lz4"):
            builder = PiecesBuilder(block_type, compression=Compression.parse(compression))
            builder.add(body)
            builder.add(b"and another piece")
            found.append(builder.seal())
    stream = StreamBuilder(0)
    found.append(stream.start(name=b"stream"))
    return found


def slot_of(suite: Suite) -> Slot:
    keys = None if suite is Suite.PLAIN else make_keys(suite)
    padding = (1, 1, 1) if keys is None else (32, 16, 8)
    return Slot(suite, make_keys(suite).archive_id, padding, keys, 5)


@pytest.mark.parametrize("suite", SUITES)
def test_what_is_sound_gives_back_its_draft(suite: Suite) -> None:
    slot = slot_of(suite)
    for draft in drafts():
        assert gives_back(draft, draft.seal(slot, Stream(b"entropy")), slot)


@pytest.mark.parametrize("suite", SUITES)
def test_a_bit_that_flips_after_sealing_is_noticed(suite: Suite) -> None:
    slot = slot_of(suite)
    for draft in drafts():
        block = draft.seal(slot, Stream(b"entropy"))
        for number, buffer in enumerate(block.buffers[:-1]):
            for at in {0, len(buffer) // 2, len(buffer) - 1}:
                changed = bytearray(buffer)
                changed[at] ^= 4
                buffers = (*block.buffers[:number], bytes(changed), *block.buffers[number + 1 :])
                assert not gives_back(draft, replace(block, buffers=buffers), slot)


@pytest.mark.parametrize("suite", SUITES)
def test_a_body_that_was_not_what_was_sealed_is_noticed(suite: Suite) -> None:
    slot = slot_of(suite)
    for draft in drafts():
        if draft.body:
            block = draft.seal(slot, Stream(b"entropy"))
            other = bytearray(draft.body)
            other[len(other) // 2] ^= 1
            assert not gives_back(replace(draft, body=bytes(other), padded=b""), block, slot)
            assert not gives_back(replace(draft, body=bytes(draft.body) + b"0", padded=b""), block, slot)


@pytest.mark.parametrize("fault", ["other data", "cut short", "no frame"])
def test_an_encoder_at_fault_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(data: bytes, compression: Compression) -> tuple[Codec, bytes]:
        wrong = {
            "other data": zstandard.compress(bytes(data)[::-1]),
            "cut short": zstandard.compress(bytes(data))[:-3],
            "no frame": b"nonsense",
        }
        return Codec.ZSTD, wrong[fault]

    monkeypatch.setattr(codecs, "encode", encode)
    header, keys = make_header()
    written: list[SealedBlock] = []
    builder = PiecesBuilder(b"PACK")
    builder.add(LONG)
    draft = builder.seal()
    for check in (True, False):
        encoder = make_encoder(header, keys)
        encoder.begin()
        pipeline = Pipeline(encoder, written.append, workers=1, decode_check=check)
        try:
            with pytest.raises(BlockError) if check else nullcontext():
                pipeline.submit(draft)
                pipeline.drain()
        finally:
            pipeline.close()
        assert len(written) == (0 if check else 1)
