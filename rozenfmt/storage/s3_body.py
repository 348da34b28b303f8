"""The body of a request, on its way: paced, and watched for standstill.

While a body is sent, neither botocore nor aiohttp has a time limit: their read timeout begins when
the last byte is out.  A connection that died then would be noticed by the kernel after a quarter of
an hour, and a server that never answers to ``Expect: 100-continue`` never.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from rozenfmt.storage.bandwidth import Pace

__all__ = ["Body", "SentBody", "read_body", "sent"]

# Answers come in this time at least once the body is out; aiohttp's own limit comes first.
_GRACE: Final = 5.0
_PIECE: Final = 256 << 10
# So many bytes go into the kernel's buffers even if the other end is dead.
_BUFFERED: Final = 1 << 20


class Body:
    """Bytes that lie in several buffers, none of which changes any more: a part of an upload, never put together.

    Args:
        buffers: The bytes, in their order.

    """

    def __init__(self, buffers: Iterable[bytes | memoryview]) -> None:
        self._buffers = [memoryview(buffer) for buffer in buffers]
        self._length = sum(map(len, self._buffers))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self._buffers)

    def cut(self, start: int, end: int) -> bytes | memoryview:
        """The bytes from ``start`` to ``end``; a copy only where they lie in more than one buffer."""
        found: list[memoryview] = []
        at = 0
        for buffer in self._buffers:
            if at + len(buffer) > start and at < end:
                found.append(buffer[max(0, start - at) : end - at])
            at += len(buffer)
        return found[0] if len(found) == 1 else b"".join(found)

    def md5(self) -> bytes:
        """Their MD5, which S3 compares and answers with."""
        digest = hashlib.md5(usedforsecurity=False)
        for buffer in self._buffers:
            digest.update(buffer)
        return digest.digest()


class SentBody:
    """Bytes to send: a file for what signs requests, an asynchronous iterable for what sends them.

    Not an ``io.IOBase``: aiohttp would read that in a thread, which cannot be paced without blocking
    one.  Each iteration begins at the beginning, so a request may be repeated.

    Args:
        body: The bytes.
        pace: The limit for what is sent; None for none.
        moving: Called with the bytes that the connection took, and with 0 while waiting for the pace.

    """

    def __init__(self, body: Body, pace: Pace | None, moving: Callable[[int], None]) -> None:
        self._body = body
        self._at = 0
        self._pace = pace
        self._moving = moving

    def read(self, size: int | None = -1) -> bytes:
        """Read like a file."""
        end = len(self._body) if size is None or size < 0 else min(self._at + size, len(self._body))
        piece = bytes(self._body.cut(self._at, end))
        self._at = max(self._at, end)
        self._moving(len(piece))
        return piece

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek like a file."""
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._body)}[whence]
        self._at = begin + offset
        return self._at

    def tell(self) -> int:
        """The position of ``read``."""
        return self._at

    def __aiter__(self) -> _Pieces:
        return _Pieces(self._body, self._pace, self._moving)


class _Pieces:
    def __init__(self, body: Body, pace: Pace | None, moving: Callable[[int], None]) -> None:
        self._body = body
        self._at = 0
        self._pace = pace
        self._moving = moving
        self._out = 0

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes | memoryview:
        # Asked for the next piece: the connection took the last one.
        self._moving(self._out)
        if self._at == len(self._body):
            raise StopAsyncIteration
        size = _PIECE if self._pace is None else self._pace.piece()
        piece = self._body.cut(self._at, self._at + size)
        if self._pace is not None:
            await self._pace.atake(len(piece), self._wait)
            self._wait()
        self._out = len(piece)
        self._at += len(piece)
        return piece

    def _wait(self) -> None:
        self._moving(0)


async def sent(
    request: Callable[[SentBody], Awaitable[object]],
    body: Body,
    *,
    pace: Pace | None,
    stall: float | None,
    alive: Callable[[], None],
) -> object:
    """Make a request with a body.

    Args:
        request: Sends it.
        body: Its bytes.
        pace: The limit for what is sent; None for none.
        stall: Seconds without any movement after which it fails; None for no limit.
        alive: Called when more is out than fits into buffers, and with each further piece.

    Raises:
        TimeoutError: Nothing moved for so long.

    """
    loop = asyncio.get_running_loop()
    out = 0
    limit = None if stall is None else stall + _GRACE
    async with asyncio.timeout(limit) as watch:

        def moving(count: int) -> None:
            nonlocal out
            out += count
            # An early answer ends the request while the body is still asked for its next piece.
            if limit is not None and not over and not watch.expired():
                watch.reschedule(loop.time() + limit)
            if out > _BUFFERED:
                alive()

        over = False
        try:
            return await request(SentBody(body, pace, moving))
        finally:
            over = True


async def read_body(read: Callable[[int], Awaitable[bytes]], pace: Pace, alive: Callable[[], None]) -> bytes:
    """Read an answer at the pace that is set; TCP slows down the server."""
    parts = bytearray()
    while piece := await read(pace.piece()):
        parts += piece
        alive()
        await pace.atake(len(piece))
    return bytes(parts)
