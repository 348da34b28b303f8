"""A port before a server, for faults of the network on the way to it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import replace

from rozenfmt.testing.servers import Server


class Relay:
    """A port before a server, which answers the next connections by itself if it is told to.

    Args:
        target: Host and port of the server; empty if there is none.
        port: Where it listens; 0 for any free port.

    Attributes:
        script: What to do with each of the next connections.
        taken: How many connections there were.

    """

    def __init__(self, target: str = "", port: int = 0) -> None:
        self.target = target
        self.script: list[Callable[[socket.socket], None]] = []
        self.taken = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def of(self, server: Server) -> Server:
        """The server, seen through this port."""
        self.target = server.endpoint
        options = {
            key: value.replace(server.endpoint, self.address) if isinstance(value, str) else value
            for key, value in server.storage_options.items()
        }
        return replace(
            server,
            url=server.url.replace(server.endpoint, self.address),
            storage_options=options,
            endpoint=self.address,
        )

    def cut(self) -> None:
        """Cut all connections."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # A listener that another thread waits for is freed by the shutdown only.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.taken += 1
            act = self.script.pop(0) if self.script else self._relay
            threading.Thread(target=self._serve, args=(act, connection), daemon=True).start()

    def _serve(self, act: Callable[[socket.socket], None], connection: socket.socket) -> None:
        self._open.add(connection)
        with connection, contextlib.suppress(OSError):
            act(connection)
        self._open.discard(connection)

    def _relay(self, connection: socket.socket) -> None:
        host, _, port = self.target.partition(":")
        with socket.create_connection((host, int(port))) as server:
            back = threading.Thread(target=_copy, args=(server, connection), daemon=True)
            back.start()
            _copy(connection, server)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(1 << 16)
        if not data:
            break
        head += data
    return head


def answering(status: int, code: str = "", **headers: str) -> Callable[[socket.socket], None]:
    """Read the head of a request, and answer with an error."""

    def act(connection: socket.socket) -> None:
        head = _head(connection)
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode() if code else b""
        lines = [f"HTTP/1.1 {status} no", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        body = b"" if head.startswith(b"HEAD") else body
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    return act


def resetting(connection: socket.socket) -> None:
    """Read the head of a request, and reset the connection."""
    _head(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def dropping(connection: socket.socket) -> None:
    """Read the head of a request, and close."""
    _head(connection)


def cutting(connection: socket.socket) -> None:
    """Take part of a body, and reset the connection."""
    _head(connection)
    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    got = 0
    while got < 100_000:
        got += len(connection.recv(1 << 16)) or 100_000
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def swallowing(connection: socket.socket) -> None:
    """Ask for the body and read none of it, nor answer."""
    _head(connection)
    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    threading.Event().wait()
