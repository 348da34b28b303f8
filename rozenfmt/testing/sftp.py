"""A server of SFTP over a local folder that keeps what rclone's does not: modes, owners, symlinks, any name.

For tests, which it runs in a thread of, so that they can change a file just when it is read.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import paramiko  # type: ignore[import-untyped]

__all__ = ["PASSWORD", "USER", "Seen", "SftpServer", "sftp_server"]

USER: Final = "somebody"
PASSWORD: Final = "secret-password"  # noqa: S105 - for a server that lives as long as a test


@dataclass
class Seen:
    """What a server was asked.

    Attributes:
        opened: Paths of files, in order.
        read: Bytes of contents that were given.
        connections: How many there were.
        on_read: Called with path and offset before each read.
        most: Bytes that one answer gives at most.
        transports: The connections themselves.
        refuse: No further connection is taken.
    """

    opened: list[bytes] = field(default_factory=list)
    read: int = 0
    connections: int = 0
    on_read: Callable[[bytes, int], None] | None = None
    most: int = 1 << 20
    transports: list[Any] = field(default_factory=list)
    refuse: bool = False


@dataclass
class SftpServer:
    """A server that runs: its address, the options to log in, and what it was asked."""

    url: str
    options: dict[str, Any]
    seen: Seen


def _code(error: OSError) -> int:
    found: int = paramiko.SFTPServer.convert_errno(error.errno)
    return found


class _Login(paramiko.ServerInterface):  # type: ignore[misc]
    def check_auth_password(self, username: str, password: str) -> int:
        right = (username, password) == (USER, PASSWORD)
        return int(paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return int(paramiko.OPEN_SUCCEEDED)


class _Bytes(paramiko.SFTPServer):  # type: ignore[misc]
    """Paths are bytes on the wire, whatever paramiko's server takes them for."""

    def _process(self, t: int, request_number: int, msg: Any) -> None:
        msg.get_text = lambda: os.fsdecode(msg.get_string())
        super()._process(t, request_number, msg)


class _Handle(paramiko.SFTPHandle):  # type: ignore[misc]
    def __init__(self, path: bytes, seen: Seen) -> None:
        super().__init__()
        self._path, self._seen = path, seen
        self._fd = os.open(path, os.O_RDONLY)

    def read(self, offset: int, length: int) -> bytes:
        if self._seen.on_read is not None:
            self._seen.on_read(self._path, offset)
        data = os.pread(self._fd, min(length, self._seen.most), offset)
        self._seen.read += len(data)
        return data

    def stat(self) -> Any:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self._fd))

    def close(self) -> None:
        super().close()
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd = -1


class _Folder(paramiko.SFTPServerInterface):  # type: ignore[misc]
    def __init__(self, server: Any, root: bytes, seen: Seen) -> None:
        super().__init__(server)
        self._root, self._seen = root, seen

    def _path(self, path: str) -> bytes:
        return self._root + os.path.normpath(b"/" + os.fsencode(path).lstrip(b"/"))

    def list_folder(self, path: str) -> Any:
        try:
            where = self._path(path)
            return [
                paramiko.SFTPAttributes.from_stat(os.lstat(os.path.join(where, name)), name)
                for name in os.listdir(where)
            ]
        except OSError as error:
            return _code(error)

    def lstat(self, path: str) -> Any:
        try:
            return paramiko.SFTPAttributes.from_stat(os.lstat(self._path(path)))
        except OSError as error:
            return _code(error)

    def open(self, path: str, flags: int, attr: Any) -> Any:  # noqa: ARG002
        try:
            handle = _Handle(self._path(path), self._seen)
        except OSError as error:
            return _code(error)
        self._seen.opened.append(os.fsencode(path))
        return handle

    def readlink(self, path: str) -> Any:
        try:
            return os.readlink(self._path(path))
        except OSError as error:
            return _code(error)


@contextlib.contextmanager
def sftp_server(folder: Path) -> Iterator[SftpServer]:
    """Serve a folder, as ``/``."""
    seen = Seen()
    key = paramiko.ECDSAKey.generate()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed: the test is over
            if seen.refuse:
                connection.close()
                continue
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", _Bytes, _Folder, os.fsencode(folder), seen)
            seen.connections += 1
            seen.transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):  # who asks for the key only
                transport.start_server(server=_Login())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    login = {"look_for_keys": False, "allow_agent": False, "host_key_policy": "auto_add", "password": PASSWORD}
    try:
        yield SftpServer(f"sftp://{USER}@127.0.0.1:{port}", login, seen)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for transport in seen.transports:
            transport.close()
        thread.join(10)
