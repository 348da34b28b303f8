"""A loopback proxy that breaks things on purpose, in front of a real storage server.

It stands between a storage and its server, forwards requests as they are, and by a plan does what
networks and servers do on bad days: connections break before, within and after a request, answers
are errors, come late, short or never, and are lost after the server has acted.  It also counts what
went through, and can be as slow as a given number of bytes per second::

    with rclone_server() as server, fault_proxy(server, Faults(rate=0.05, seed=7)) as proxy:
        storage = open_storage(proxy.server.url, proxy.server.storage_options)
        ...
        print(proxy.bytes_up, proxy.faults)

HTTP is understood request by request.  Requests are signed with the address of the proxy in their
Host header, which is forwarded unchanged, so that the signature still fits at the server.  SFTP is
encrypted: there, the pieces of the stream are what faults happen to.

The proxy runs on an event loop in a thread of its own, which ends with the ``with`` block.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.errors import UsageError
from rozenfmt.testing.wire import AT_END, Head, content_of, error_answer, operation_of, read_head, read_pieces

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Callable, Iterator

    from rozenfmt.testing.servers import Server

__all__ = ["HTTP_KINDS", "TCP_KINDS", "Faults", "Handled", "Proxy", "Request", "fault_proxy"]

HTTP_KINDS: Final[dict[str, str]] = {
    "drop": "the connection breaks before the request is forwarded",
    "cut-request": "the connection breaks within the body of the request, which the server gets in part",
    "short-request": "the body of a PUT reaches the server shortened, and nothing tells it so",
    "cut-response": "the connection breaks within the body of the answer",
    "short-response": "the answer to a GET is shorter than the server's, and well formed",
    "lose-response": "the server acts, and the connection breaks before its answer arrives",
    "late-error": "the server acts, and the answer is 500 all the same",
    "500": "answered with 500 InternalError, not forwarded",
    "503": "answered with 503 SlowDown, not forwarded",
    "429": "answered with 429 TooManyRequests, not forwarded",
    "error-in-200": "CompleteMultipartUpload and copies are answered with 200 and an error in the body, not forwarded",
    "delay": "forwarded after a short while",
    "stall": "the answer stops half-way, and after a long while the connection breaks",
}
TCP_KINDS: Final[dict[str, str]] = {
    "drop": "the connection breaks before a piece of the stream",
    "cut-request": "the connection breaks within a piece",
    "delay": "a piece is forwarded after a short while",
    "stall": "nothing moves for a long while, and then the connection breaks",
}

_ERRORS: Final = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "429": (429, "TooManyRequests"),
    "late-error": (500, "InternalError"),
    "error-in-200": (200, "InternalError"),
}
_COPIES: Final = frozenset({"CompleteMultipartUpload", "CopyObject", "UploadPartCopy"})
_HTTP_SCHEMES: Final = frozenset({"s3", "webdav", "http"})
_PIECE: Final = 64 << 10
_RECEIVE_BUFFER: Final = 256 << 10
_PATIENCE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a plan decides about.

    Attributes:
        number: Counted from 0, in the order of arrival.
        operation: Name of the request in the API of S3 (``UploadPart``); its method for other HTTP;
            ``up`` or ``down`` for a piece of a TCP stream.
        target: Path and query as they were sent; empty for TCP.
        length: Bytes of its body as far as announced.

    """

    number: int
    operation: str
    target: str
    length: int


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a request.

    Attributes:
        request: The request.
        fault: What was done to it, a key of ``HTTP_KINDS`` or ``TCP_KINDS``; empty for nothing.
        status: Status of the server's answer, or of the one that was made up; 0 if there was none.
        up: Bytes of its body that the client sent.
        down: Bytes of the answer's body that were passed on.

    """

    request: Request
    fault: str
    status: int
    up: int
    down: int


@dataclass
class Faults:
    """A plan: some requests fail, at random, in the same way for the same seed and order of requests.

    Args:
        rate: Probability of a fault, 0 to 1.
        seed: Another seed gives other faults.
        kinds: Which faults; None for all of HTTP.  One that does not apply to a request does nothing.
        operations: Only requests with these names; None for all.
        in_a_row: Most faults one after the other for the same operation and target, so that a
            client with more attempts than that must succeed; None for no limit.

    Raises:
        UsageError: A kind is not known, or ``rate`` is no probability.

    """

    rate: float = 0.05
    seed: int = 0
    kinds: frozenset[str] | set[str] | None = None
    operations: frozenset[str] | set[str] | None = None
    in_a_row: int | None = None
    _row: Counter[tuple[str, str]] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse plans that would do nothing by mistake."""
        unknown = set(self.kinds or ()) - HTTP_KINDS.keys() - TCP_KINDS.keys()
        if unknown or not 0 <= self.rate <= 1:
            msg = f"a plan has a rate from 0 to 1 and kinds out of {sorted(HTTP_KINDS)}, not {self.rate}, {unknown}"
            raise UsageError(msg)

    def __call__(self, request: Request) -> str:
        """What happens to a request: a kind, or the empty string."""
        if self.operations is not None and request.operation not in self.operations:
            return ""
        dice = random.Random(f"{self.seed}/{request.number}")  # noqa: S311 - not for secrets
        kind = dice.choice(sorted(self.kinds or HTTP_KINDS))
        which = (request.operation, request.target)
        if dice.random() >= self.rate or (self.in_a_row is not None and self._row[which] >= self.in_a_row):
            self._row.pop(which, None)
            return ""
        self._row[which] += 1
        return kind


class Proxy:
    """A proxy that runs; made by ``fault_proxy``.

    Attributes:
        server: The server as it is seen through the proxy.
        plan: What decides about each request; may be set while the proxy runs, None for no faults.
        rate: Bytes per second in each direction, for all connections together; None for no limit.
        log: What became of each request that has ended.

    """

    def __init__(
        self,
        server: Server,
        plan: Callable[[Request], str] | None,
        *,
        rate: float | None,
        delay: float,
        stall: float,
    ) -> None:
        self.plan = plan
        self.rate = rate
        self.log: list[Handled] = []
        self.delay = delay
        self.stall = stall
        self._upstream = server
        self._scheme = server.url.partition("://")[0]
        self._number = 0
        self._free = {"up": 0.0, "down": 0.0}
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.BaseTransport] = set()
        self._listener = socket.socket()
        # Small, so that what waits in the kernel does not count as sent for long.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._listener.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.server = replace(
            server,
            url=server.url.replace(server.endpoint, endpoint),
            storage_options=_readdressed(server.storage_options, server.endpoint, endpoint),
            endpoint=endpoint,
        )

    @property
    def bytes_up(self) -> int:
        """Bytes of bodies that the client has sent, those of failed requests included."""
        return sum(self.up.values())

    @property
    def bytes_down(self) -> int:
        """Bytes of bodies that were passed on to the client."""
        return sum(self.down.values())

    @property
    def up(self) -> Counter[str]:
        """``bytes_up`` by operation."""
        return _summed((done.request.operation, done.up) for done in tuple(self.log))

    @property
    def down(self) -> Counter[str]:
        """``bytes_down`` by operation."""
        return _summed((done.request.operation, done.down) for done in tuple(self.log))

    @property
    def requests(self) -> Counter[str]:
        """Number of requests by operation."""
        return _summed((done.request.operation, 1) for done in tuple(self.log))

    @property
    def faults(self) -> Counter[str]:
        """Number of faults by kind."""
        return _summed((done.fault, 1) for done in tuple(self.log) if done.fault)

    # The thread

    def run(self, started: threading.Event) -> None:
        """Serve until ``stop``."""
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, sock=self._listener, limit=1 << 20))
        started.set()
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._end())
            server.close()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _end(self) -> None:
        # Not by closing the server, which breaks connections that are being accepted without closing them.
        self._loop.remove_reader(self._listener.fileno())
        # What was accepted before becomes a task in one of the next rounds, and what was aborted closes in them.
        for _ in range(5):
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for transport in self._transports:
                transport.close()
            await asyncio.sleep(0)

    def stop(self) -> None:
        """End all connections and the loop; to be called from another thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection: _Connection | None = None
        try:
            connection = _Connection(self, reader, writer, *await self.upstream())
            await (connection.http() if self._scheme in _HTTP_SCHEMES else connection.tcp())
        except (ConnectionError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # One side is gone, so the other one is told below.
        except asyncio.CancelledError:
            # The proxy stops; a task that ends as cancelled would be reported as lost.
            pass
        finally:
            _reset(writer)
            if connection is not None:
                connection.close()
            self._tasks.discard(task)

    async def upstream(self) -> tuple[StreamReader, StreamWriter]:
        """A new connection to the server."""
        host, _, port = self._upstream.endpoint.rpartition(":")
        reader = asyncio.StreamReader(limit=1 << 20)
        protocol = _Upstream(reader, self._transports)
        transport, _protocol = await self._loop.create_connection(lambda: protocol, host, int(port))
        return reader, asyncio.StreamWriter(transport, protocol, reader, self._loop)

    def decide(self, operation: str, target: str, length: int) -> tuple[Request, str]:
        """Count a request and ask the plan about it."""
        request = Request(self._number, operation, target, length)
        self._number += 1
        plan = self.plan
        return request, plan(request) if plan is not None else ""

    async def pace(self, direction: str, size: int) -> None:
        """Wait until so many bytes may pass."""
        if self.rate is None:
            return
        now = self._loop.time()
        begin = max(now, self._free[direction])
        self._free[direction] = begin + size / self.rate
        # Waits of less than a tick would be rounded up, so they are saved up.
        if begin - now > 0.002:
            await asyncio.sleep(begin - now)

    def operation(self, head: Head) -> str:
        """Name of a request."""
        return operation_of(head) if self._scheme == "s3" else head.first[0]


class _Upstream(asyncio.StreamReaderProtocol):
    """Remembers its transport, which is lost where ``create_connection`` is cancelled as it returns."""

    def __init__(self, reader: StreamReader, transports: set[asyncio.BaseTransport]) -> None:
        super().__init__(reader)
        self._all = transports
        self._own: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._own = transport
        self._all.add(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._own is not None:
            self._all.discard(self._own)
        super().connection_lost(exc)


class _Connection:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(
        self, proxy: Proxy, reader: StreamReader, writer: StreamWriter, answers: StreamReader, others: StreamWriter
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._answers = answers
        self._others = others
        self._up = 0
        self._down = 0

    def close(self) -> None:
        """End the connection to the server."""
        _reset(self._others)

    # HTTP

    async def http(self) -> None:
        """Request by request, until one side ends the connection or a fault does."""
        while True:
            head = await read_head(self._reader)
            if head is None:
                return
            length = content_of(head)
            operation = self._proxy.operation(head)
            request, fault = self._proxy.decide(operation, head.first[1], max(length or 0, 0))
            if self._answers.at_eof():
                # The server has ended a connection that was idle, which is its right.
                _reset(self._others)
                self._answers, self._others = await self._proxy.upstream()
            if not self._applies(fault, head, operation):
                fault = ""
            self._up = self._down = 0
            status = 0
            try:
                status, again = await self._exchange(head, fault)
            finally:
                self._proxy.log.append(Handled(request, fault, status, self._up, self._down))
            if not again:
                if fault in {"", "delay", "short-request", "short-response", "late-error"}:
                    # The server wants the connection to end; a reset could overtake the answer.
                    self._writer.close()
                    await self._writer.wait_closed()
                return

    @staticmethod
    def _applies(fault: str, head: Head, operation: str) -> bool:
        length = content_of(head)
        if fault in {"cut-request", "short-request"}:
            return length is not None and length > 0 and (fault == "cut-request" or head.first[0] == "PUT")
        if fault == "short-response":
            return head.first[0] == "GET"
        return fault != "error-in-200" or operation in _COPIES

    async def _exchange(self, head: Head, fault: str) -> tuple[int, bool]:
        """Returns the status of the answer, and whether the connection can be used again."""
        if fault == "drop":
            return 0, False
        if fault == "delay":
            await asyncio.sleep(self._proxy.delay)
        if fault in _ERRORS and fault != "late-error":
            await self._swallow(head)
            return await self._invent(head, fault)
        sending = asyncio.ensure_future(self._forward_request(head, fault))
        try:
            status, again = await self._forward_answer(head, fault, sending)
            if again and not sending.done():
                # The server answered before it had everything; whoever still sends may finish.
                await asyncio.wait([sending], timeout=_PATIENCE if self._up else 0.1)
                again = sending.done()
            if again:
                again = sending.result()
            return status, again
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _forward_request(self, head: Head, fault: str) -> bool:
        """Returns whether it was forwarded as it was."""
        length = content_of(head)
        limit = None
        if fault in {"cut-request", "short-request"}:
            assert length is not None
            limit = length // 2
        self._others.write(head.replaced_length(limit) if fault == "short-request" else head.raw)
        passed = 0
        async for piece in read_pieces(self._reader, length, _PIECE):
            await self._proxy.pace("up", len(piece.data))
            self._up += piece.size
            room = len(piece.data) if limit is None else max(0, min(len(piece.data), limit - passed))
            if room:
                self._others.write(piece.data[:room])
                await self._others.drain()
            passed += room
            if fault == "cut-request" and passed == limit:
                _reset(self._others)
                _reset(self._writer)
                return False
        await self._others.drain()
        return fault != "short-request"

    async def _forward_answer(self, head: Head, fault: str, sending: asyncio.Future[bool]) -> tuple[int, bool]:
        while True:
            answer = await self._answer_head(sending)
            if answer is None:
                return 0, False
            status = int(answer.first[1])
            if status >= 200:
                break
            # 100 Continue: the client waits for it with its body.
            self._writer.write(answer.raw)
        # The answer to a HEAD announces a length without having one.
        none = head.first[0] == "HEAD" or status in {204, 304}
        length = 0 if none else content_of(answer, request=False)
        if fault in {"lose-response", "late-error", "short-response"}:
            body = b"".join([piece.data async for piece in read_pieces(self._answers, length, _PIECE) if piece.size])
            if fault == "lose-response":
                return status, False
            if fault == "late-error":
                await asyncio.wait([sending])
                status, _again = await self._invent(head, fault)
                return status, answer.stays
            body = body[: len(body) // 2]
            self._writer.write(answer.replaced_length(len(body)) + body)
            self._down += len(body)
            await self._writer.drain()
            return status, answer.stays and length != AT_END
        cut = fault in {"cut-response", "stall"}
        if cut and not length:
            # Without a body, the head is what can be cut.
            self._writer.write(answer.raw[: len(answer.raw) // 2])
            await self._break(fault)
            return status, False
        self._writer.write(answer.raw)
        async for piece in read_pieces(self._answers, length, _PIECE):
            await self._proxy.pace("down", len(piece.data))
            self._writer.write(piece.data[: len(piece.data) // 2] if cut else piece.data)
            self._down += piece.size // 2 if cut else piece.size
            await self._writer.drain()
            if cut:
                await self._break(fault)
                return status, False
        await self._writer.drain()
        return status, answer.stays and length != AT_END

    async def _answer_head(self, sending: asyncio.Future[bool]) -> Head | None:
        """The next head of the server, unless sending the request failed, or was to fail, before."""
        waiting: asyncio.Future[Head | None] = asyncio.ensure_future(read_head(self._answers))
        try:
            while not waiting.done():
                await asyncio.wait({waiting, sending}, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
                if sending.done() and not waiting.done():
                    # A server that refuses a request may say why before it has read it.
                    failed = sending.exception() is not None
                    await asyncio.wait([waiting], timeout=1 if failed else None)
                    if not waiting.done():
                        return None
            return waiting.result()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _swallow(self, head: Head) -> None:
        """Take a body that nobody else will take."""
        if head.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        async for piece in read_pieces(self._reader, content_of(head), _PIECE):
            await self._proxy.pace("up", len(piece.data))
            self._up += piece.size

    async def _invent(self, head: Head, fault: str) -> tuple[int, bool]:
        status, code = _ERRORS[fault]
        self._writer.write(error_answer(status, code, body=head.first[0] != "HEAD"))
        await self._writer.drain()
        return status, True

    async def _break(self, fault: str) -> None:
        await self._writer.drain()
        if fault == "stall":
            await asyncio.sleep(self._proxy.stall)
        else:
            # What was written is to arrive; a reset could overtake it.
            self._writer.close()
            await asyncio.sleep(0.02)

    # TCP

    async def tcp(self) -> None:
        """Piece by piece in both directions, until one side ends the connection or a fault does."""
        both = [
            asyncio.ensure_future(self._pump("up", self._reader, self._others)),
            asyncio.ensure_future(self._pump("down", self._answers, self._writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _pump(self, direction: str, reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(_PIECE):
            request, fault = self._proxy.decide(direction, "", len(data))
            fault = fault if fault in TCP_KINDS else ""
            await self._proxy.pace(direction, len(data))
            if fault == "delay":
                await asyncio.sleep(self._proxy.delay)
            if fault == "stall":
                await asyncio.sleep(self._proxy.stall)
            passed = {"cut-request": len(data) // 2, "drop": 0, "stall": 0}.get(fault, len(data))
            writer.write(data[:passed])
            sizes = (passed, 0) if direction == "up" else (0, passed)
            self._proxy.log.append(Handled(request, fault, 0, *sizes))
            await writer.drain()
            if fault not in {"", "delay"}:
                return


@contextmanager
def fault_proxy(
    server: Server,
    plan: Callable[[Request], str] | None = None,
    *,
    rate: float | None = None,
    delay: float = 0.05,
    stall: float = 5.0,
) -> Iterator[Proxy]:
    """A proxy in front of a server, for as long as the block lasts.

    Args:
        server: The server.
        plan: Called with each ``Request``, on the proxy's thread; returns what happens to it, a key
            of ``HTTP_KINDS`` (of ``TCP_KINDS`` for SFTP), or the empty string.  None for no faults.
        rate: Bytes per second in each direction, for all connections together; None for no limit.
        delay: Seconds that a ``delay`` takes.
        stall: Seconds that a ``stall`` takes.

    Raises:
        UsageError: ``rate`` is not positive.

    """
    if rate is not None and rate <= 0:
        msg = f"{rate} bytes per second would never end"
        raise UsageError(msg)
    proxy = Proxy(server, plan, rate=rate, delay=delay, stall=stall)
    started = threading.Event()
    thread = threading.Thread(target=proxy.run, args=(started,), name="rozen-proxy", daemon=True)
    thread.start()
    try:
        started.wait()
        yield proxy
    finally:
        proxy.stop()
        thread.join()


def _reset(writer: StreamWriter) -> None:
    """Break a connection so that the other side notices at once."""
    raw = writer.get_extra_info("socket")
    if raw is not None and not writer.is_closing():
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _readdressed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, dict):
        return {key: _readdressed(item, old, new) for key, item in value.items()}
    return value


def _summed(pairs: Iterator[tuple[str, int]] | Any) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, number in pairs:
        counts[name] += number
    return counts
