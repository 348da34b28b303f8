"""Body codecs (format.md, section 4.4): stored, zstd, lz4.

The declared size is a hard cap, checked against the frame's own before memory is taken.
Compressor contexts are kept for each thread: building one costs more than a small block.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rozenfmt.errors import BlockError, UnsupportedError, UsageError

from .limits import MAX_ZSTD_WINDOW
from .registry import Codec

if TYPE_CHECKING:
    import zstandard

__all__ = ["Compression", "decode", "encode"]

_SAMPLE = 16_384
_LZ4_MAX_RATIO = 255
_local = threading.local()


@dataclass(frozen=True, slots=True)
class Compression:
    """How bodies are compressed: a codec and its level.

    Attributes:
        codec: The codec to try; what does not shrink is stored.
        level: zstd 1 … 19 (windows stay within 16 MiB); lz4 0 … 12, above 2 meaning the high-compression form.
    """

    codec: Codec = Codec.ZSTD
    level: int = 3

    @classmethod
    def metadata(cls) -> Compression:
        """For nodes and index, which are small and are read often: a higher level is nearly free."""
        return cls(Codec.ZSTD, 9)

    @classmethod
    def parse(cls, text: str) -> Compression:
        """Read ``none``, ``zstd``, ``zstd:LEVEL``, ``lz4`` or ``lz4:LEVEL``.

        Raises:
            UsageError: Anything else, or a level out of range.
        """
        name, _, level = text.partition(":")
        allowed = {
            "none": (Codec.STORED, 0, 0, 0),
            "zstd": (Codec.ZSTD, 3, 1, 19),
            "lz4": (Codec.LZ4, 0, 0, 12),
        }
        if name not in allowed:
            msg = f"unknown compression {text!r}: use none, zstd:1…19 or lz4:0…12"
            raise UsageError(msg)
        codec, default, low, high = allowed[name]
        if level and not (level.isdecimal() and level.isascii() and low <= int(level) <= high):
            msg = f"compression level in {text!r} is not between {low} and {high}"
            raise UsageError(msg)
        return cls(codec, int(level) if level else default)


def encode(
    data: bytes | bytearray | memoryview, compression: Compression
) -> tuple[Codec, bytes | bytearray | memoryview]:
    """Compress a body, or store it if it does not shrink.

    Incompressible data is recognised by three samples before the whole is tried.
    """
    if compression.codec is Codec.STORED or _looks_incompressible(data):
        return Codec.STORED, data
    if compression.codec is Codec.ZSTD:
        packed = _compressor(compression.level).compress(data)
    else:
        packed = _lz4_compress(data, compression.level)
    return (compression.codec, packed) if len(packed) < len(data) else (Codec.STORED, data)


def decode(codec: int, data: bytes | bytearray | memoryview, size: int) -> bytes:
    """Decode a body of exactly ``size`` bytes.

    Raises:
        BlockError: The encoded form is damaged or gives another size.
        UnsupportedError: The codec is not known.
    """
    if codec == Codec.STORED:
        if len(data) != size:
            msg = "a stored body has another length than its record says"
            raise BlockError(msg, clause="4.4")
        return bytes(data)
    if codec not in (Codec.ZSTD, Codec.LZ4):
        msg = f"codec {codec} is not known to this version; a newer one may read it"
        raise UnsupportedError(msg, clause="4.4")
    if len(data) >= size:
        msg = "an encoded body is not smaller than the decoded one"
        raise BlockError(msg, clause="4.4")
    body = _zstd_decode(data, size) if codec == Codec.ZSTD else _lz4_decode(data, size)
    if len(body) != size:
        msg = "a body decodes to another length than its record says"
        raise BlockError(msg, clause="4.4")
    return body


def _looks_incompressible(data: bytes | bytearray | memoryview) -> bool:
    """Judge by samples from start, middle and end; small bodies are simply tried."""
    size = len(data)
    if size < 16 * _SAMPLE:
        return False
    view = memoryview(data)
    middle = size // 2
    sample = b"".join((view[:_SAMPLE], view[middle : middle + _SAMPLE], view[-_SAMPLE:]))
    return len(_compressor(1).compress(sample)) > len(sample) * 0.985


def _compressor(level: int) -> zstandard.ZstdCompressor:
    cache: dict[int, zstandard.ZstdCompressor] | None = getattr(_local, "compressors", None)
    if cache is None:
        cache = _local.compressors = {}
    if level not in cache:
        import zstandard

        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, write_content_size=True, write_checksum=False, write_dict_id=False
        )
        cache[level] = zstandard.ZstdCompressor(compression_params=parameters)
    return cache[level]


def _zstd_decode(data: bytes | bytearray | memoryview, size: int) -> bytes:
    import zstandard

    decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)
    try:
        frame = zstandard.get_frame_parameters(data)
        # python-zstandard allocates what the frame claims, so the claim is checked first.
        if bytes(data[:4]) != zstandard.FRAME_HEADER or frame.content_size != size or frame.dict_id:
            msg = "a zstd frame contradicts its record"
            raise BlockError(msg, clause="4.4")
        if frame.window_size > MAX_ZSTD_WINDOW:
            msg = "a zstd window is over 16 MiB"
            raise BlockError(msg, clause="4.4")
        return decompressor.decompress(data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        msg = f"a zstd frame is damaged: {error}"
        raise BlockError(msg, clause="4.4") from error


def _lz4_compress(data: bytes | bytearray | memoryview, level: int) -> bytes:
    import lz4.block  # type: ignore[import-untyped]

    if level > 2:
        packed = lz4.block.compress(data, mode="high_compression", compression=level, store_size=False)
    else:
        packed = lz4.block.compress(data, store_size=False)
    return bytes(packed)


def _lz4_decode(data: bytes | bytearray | memoryview, size: int) -> bytes:
    import lz4.block

    if size > len(data) * _LZ4_MAX_RATIO + 16:  # a byte of an lz4 block makes at most 255
        msg = "an lz4 block cannot decode to what its record says"
        raise BlockError(msg, clause="4.4")
    try:
        return bytes(lz4.block.decompress(data, uncompressed_size=size))
    except (lz4.block.LZ4BlockError, ValueError) as error:
        msg = f"an lz4 block is damaged: {error}"
        raise BlockError(msg, clause="4.4") from error
