"""Codecs: what was stored comes back; bombs and liars are refused without the memory they ask for."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import lz4.block  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from rozenfmt.errors import ArchiveError, BlockError, UnsupportedError, UsageError
from rozenfmt.format import codecs
from rozenfmt.format.codecs import Compression
from rozenfmt.format.registry import Codec

TEXT = b"the quick brown fox jumps over the lazy dog. " * 200
PACKED = {
    Codec.ZSTD: zstandard.ZstdCompressor().compress(TEXT),
    Codec.LZ4: lz4.block.compress(TEXT, store_size=False),
}


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """Python's own allocations stay below ``limit``; decoded bodies are among them."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@settings(max_examples=60)
@given(
    st.binary(min_size=1, max_size=2_000)
    | st.builds(bytes.__mul__, st.binary(min_size=1, max_size=9), st.integers(1, 9_000)),
    st.sampled_from(["none", "zstd", "zstd:1", "zstd:19", "lz4", "lz4:9", "lz4:12"]),
)
def test_round_trip(data: bytes, form: str) -> None:
    codec, encoded = codecs.encode(data, Compression.parse(form))
    assert codecs.decode(codec, bytes(encoded), len(data)) == data
    assert codecs.decode(codec, memoryview(bytes(encoded)), len(data)) == data
    assert len(encoded) < len(data) or codec is Codec.STORED


def test_the_whole_range_of_sizes() -> None:
    for size in (1, 16_777_215, 16_777_216):
        for form in ("zstd", "lz4"):
            data = b"\x07" * size
            codec, encoded = codecs.encode(data, Compression.parse(form))
            assert codecs.decode(codec, encoded, size) == data


def test_incompressible_bodies_are_stored() -> None:
    import hashlib

    for size in (10, 1_000, 400_000):
        data = hashlib.shake_128(b"").digest(size)
        assert codecs.encode(data, Compression())[0] is Codec.STORED


@pytest.mark.parametrize(
    "text", ["", "zstd:0", "zstd:20", "zstd:-1", "lz4:13", "none:1", "gzip", "zstd:x", "zstd:²", "lz4: 1"]
)
def test_unknown_compressions(text: str) -> None:
    with pytest.raises(UsageError):
        Compression.parse(text)


def test_stored_bodies_have_their_size() -> None:
    assert codecs.decode(0, b"abc", 3) == b"abc"
    for size in (2, 4):
        with pytest.raises(BlockError):
            codecs.decode(0, b"abc", size)


@pytest.mark.parametrize("codec", [3, 4, 99, 2**64 - 1])
def test_unknown_codecs(codec: int) -> None:
    with pytest.raises(UnsupportedError):
        codecs.decode(codec, b"abc", 3)


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.LZ4])
@pytest.mark.parametrize("difference", [-1, 1, -100, 100, 1_000_000])
def test_other_sizes_than_recorded(codec: Codec, difference: int) -> None:
    assert codecs.decode(codec, PACKED[codec], len(TEXT)) == TEXT
    with memory_below(1 << 20), pytest.raises(BlockError):
        codecs.decode(codec, PACKED[codec], len(TEXT) + difference)


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.LZ4])
def test_cut_off_and_trailing_data(codec: Codec) -> None:
    packed = PACKED[codec]
    for length in range(len(packed)):
        with pytest.raises(BlockError):
            codecs.decode(codec, packed[:length], len(TEXT))
    for junk in (b"\0", packed, b"\x28\xb5\x2f\xfd"):
        with pytest.raises(BlockError):
            codecs.decode(codec, packed + junk, len(TEXT))


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.LZ4])
@settings(max_examples=150)
@given(data=st.data())
def test_damage_raises_block_errors_only(codec: Codec, data: st.DataObject) -> None:
    changed = bytearray(PACKED[codec])
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = codecs.decode(codec, bytes(changed), len(TEXT))
    except BlockError:
        return
    assert len(found) == len(TEXT)


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.LZ4])
@given(data=st.binary(max_size=200), size=st.integers(1, 1 << 24))
def test_arbitrary_bytes_raise_block_errors_only(codec: Codec, data: bytes, size: int) -> None:
    try:
        found = codecs.decode(codec, data, size)
    except ArchiveError:
        return
    assert len(found) == size


def _frame(size: int, *, window_log: int | None = None, single: bool = True, field: int = 3) -> bytes:
    """The head of a zstd frame that claims ``size``, then one raw block of nothing."""
    descriptor = field << 6 | (0x20 if single else 0)
    window = b"" if single else bytes([((window_log or 20) - 10) << 3])
    width = {0: 1 if single else 0, 1: 2, 2: 4, 3: 8}[field]
    content = (size - (256 if field == 1 else 0)).to_bytes(width, "little") if width else b""
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + window + content + b"\x01\x00\x00"


def test_zstd_frames_that_claim_too_much() -> None:
    for claim in (10 * 2**30, 2**40, 2**63, 2**64 - 3):
        with memory_below(1 << 20), pytest.raises(BlockError):
            codecs.decode(1, _frame(claim), 1_000)


def test_zstd_frames_without_content_size() -> None:
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    assert zstandard.get_frame_parameters(packed).content_size not in (0, len(TEXT))
    with pytest.raises(BlockError):
        codecs.decode(1, packed, len(TEXT))
    with pytest.raises(BlockError):
        codecs.decode(1, _frame(0, single=False, field=0), 1_000)


def test_a_frame_that_lies_about_its_size() -> None:
    body = PACKED[Codec.ZSTD]
    parameters = zstandard.get_frame_parameters(body)
    assert parameters.content_size == len(TEXT)
    at = body.index((len(TEXT) - 256).to_bytes(2, "little"))
    for claim in (len(TEXT) - 1, len(TEXT) + 1, 300):
        lie = body[:at] + (claim - 256).to_bytes(2, "little") + body[at + 2 :]
        assert zstandard.get_frame_parameters(lie).content_size == claim
        with pytest.raises(BlockError):
            codecs.decode(1, lie, claim)


def test_several_and_skippable_frames() -> None:
    half = len(TEXT) // 2
    one, two = (zstandard.ZstdCompressor().compress(part) for part in (TEXT[:half], TEXT[half:]))
    skip = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    for packed in (one + two, skip + PACKED[Codec.ZSTD], PACKED[Codec.ZSTD] + skip, skip):
        with pytest.raises(BlockError):
            codecs.decode(1, packed, len(TEXT))
        with pytest.raises(BlockError):
            codecs.decode(1, packed, half)


def test_zstd_windows_over_16_mib() -> None:
    for log, fits in ((24, True), (25, False), (27, False), (31, False)):
        parameters = zstandard.ZstdCompressionParameters(window_log=log, write_content_size=1)
        stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=-1)
        packed = stream.compress(TEXT) + stream.flush()
        assert zstandard.get_frame_parameters(packed).window_size == 1 << log
        # The same frame with a content size: four bytes after the window descriptor.
        packed = packed[:4] + bytes([packed[4] | 2 << 6]) + packed[5:6] + len(TEXT).to_bytes(4, "little") + packed[6:]
        if fits:
            assert codecs.decode(1, packed, len(TEXT)) == TEXT
        else:
            with memory_below(1 << 20), pytest.raises(BlockError):
                codecs.decode(1, packed, len(TEXT))


def test_zstd_with_a_dictionary() -> None:
    dictionary = zstandard.ZstdCompressionDict(
        b"\x37\xa4\x30\xec" + TEXT[:500], dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
    packed = zstandard.ZstdCompressor(dict_data=dictionary).compress(TEXT[:900])
    with contextlib.suppress(BlockError):
        assert codecs.decode(1, packed, 900) != TEXT[:900]


def test_zstd_bomb_inside_a_right_claim() -> None:
    """A body that unpacks to 16 MiB for a record of less, in every way of saying so."""
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 24))
    for size in (100_000, (1 << 24) - 1):
        with memory_below(1 << 20), pytest.raises(BlockError):
            codecs.decode(1, bomb, size)


def test_lz4_claims() -> None:
    bomb = lz4.block.compress(bytes(1 << 24), store_size=False)
    with memory_below(1 << 20), pytest.raises(BlockError):
        codecs.decode(2, bomb, 100_000)
    with memory_below(1 << 20), pytest.raises(BlockError):
        codecs.decode(2, b"\x1f\x00\x01\x00", 1 << 24)  # four bytes cannot make 16 MiB
    for data in (b"\xf0", b"\xf0\xff\xff\xff", b"\x0f\x00\x00", b"\x10a\x00\x00", b"\x10a\xff\xff"):
        with pytest.raises(BlockError):
            codecs.decode(2, data, 100)


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.LZ4])
def test_encoded_bodies_are_smaller(codec: Codec) -> None:
    data = b"abc"
    packed = zstandard.ZstdCompressor().compress(data) if codec is Codec.ZSTD else b"\x30abc"
    with pytest.raises(BlockError):
        codecs.decode(codec, packed, len(data))
