"""Files of a server by SFTP.

The connection is that of paramiko, with the options of fsspec's file system of this name; but the requests are
made here.  So names may be any bytes, modes and symlinks are seen, and many requests are under way at once.

Unlike fsspec's, a host whose key is not known is refused: what is backed up is worth to be read from the right one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat as st
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.errors import SourceError, UsageError

from .remote_files import Found, RemoteFiles, is_passing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rozenfmt.storage.retry import RetryPolicy

__all__ = ["SftpFiles"]

_TIMEOUT: Final = 60.0
_CONNECT_TIMEOUT: Final = 30.0
_KEEP_ALIVE: Final = 30
_PIECE: Final = 32_768  # the longest answer that every server gives
_AHEAD: Final = 32  # requests under way for one file or directory
_CONNECTIONS: Final = 16
_POLICIES: Final = {"auto_add": "AutoAddPolicy", "warning": "WarningPolicy", "reject": "RejectPolicy"}


class SftpFiles(RemoteFiles):
    """A server by SFTP: one connection with one channel, on which the requests of all threads are under way.

    Args:
        url: ``sftp://user@host:port/path``; the path is absolute.
        options: ``username``, ``password``, ``port``, ``key_filename`` and whatever ``paramiko.SSHClient.connect``
            takes; ``host_key_policy``, by default ``reject``: ``auto_add`` trusts whoever answers.
        retry: How long requests are tried.

    Raises:
        UsageError: The options do not fit.
        OSError: There is no connection.
        SourceError: The host's key is not known, or the login is refused.
    """

    connections = _CONNECTIONS

    def __init__(self, url: str, options: Mapping[str, Any], retry: RetryPolicy | None = None) -> None:
        super().__init__(url, options, retry)
        try:
            import paramiko  # type: ignore[import-untyped]
            from fsspec.utils import infer_storage_options  # type: ignore[import-untyped]
        except ImportError as error:
            msg = "SFTP needs the package paramiko, which is not installed: pip install 'rozenfmt[sftp]'"
            raise SourceError(msg) from error
        told = infer_storage_options(url)
        self.root = str(told.pop("path", "")).rstrip("/") or "/"
        told.pop("protocol", None)
        self._options = {**told, **options}
        for of_fsspec in ("temppath", "skip_instance_cache", "use_listings_cache"):
            self._options.pop(of_fsspec, None)
        self._paramiko = paramiko
        self._lock = threading.Lock()
        self._client: Any = None
        self._open: _Channel | None = None
        self._again(lambda: self._channel)

    # --- the connection -------------------------------------------------------------------------

    def _connected(self) -> Any:
        options = dict(self._options)
        policy = options.pop("host_key_policy", "reject")
        host = options.pop("host", None)
        if not host:
            msg = "an address of SFTP is written sftp://USER@HOST/PATH"
            raise UsageError(msg)
        client = self._paramiko.SSHClient()
        if isinstance(policy, str):
            if policy not in _POLICIES:
                msg = f"host_key_policy is one of {', '.join(_POLICIES)}"
                raise UsageError(msg)
            policy = getattr(self._paramiko, _POLICIES[policy])
        client.load_system_host_keys()
        client.set_missing_host_key_policy(policy)
        timeouts = dict.fromkeys(("timeout", "banner_timeout", "auth_timeout"), _CONNECT_TIMEOUT)
        try:
            client.connect(host, **{**timeouts, **options})
            transport = client.get_transport()
            transport.set_keepalive(_KEEP_ALIVE)
            if isinstance(transport.sock, socket.socket):  # small requests are not to wait for each other
                transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException as error:
            client.close()
            self._refuse(error, host)
            raise
        return client

    def _refuse(self, error: BaseException, host: str) -> None:
        """Say what can be done about a refusal that no repetition changes."""
        cause = self.redactor.cause(error)
        if isinstance(error, self._paramiko.BadHostKeyException):
            msg = (
                f"the key of the host {host} is another one than in ~/.ssh/known_hosts: somebody may stand in between; "
                "if the host got a new key, put that there"
            )
            raise SourceError(msg) from cause
        if isinstance(error, self._paramiko.AuthenticationException):
            msg = f"the host {host} refuses the login: check the user, and the password or key (source_options)"
            raise SourceError(msg) from cause
        if isinstance(error, self._paramiko.SSHException) and "not found in known_hosts" in str(error):
            msg = (
                f"the key of the host {host} is not in ~/.ssh/known_hosts: connect once with ssh and compare it, or "
                "give the option host_key_policy=auto_add, which trusts whoever answers"
            )
            raise SourceError(msg) from cause
        if isinstance(error, (TypeError, ValueError)):
            msg = f"the options (source_options) are not understood: {self.redactor.text(str(error))}"
            raise UsageError(msg) from cause

    @property
    def _channel(self) -> _Channel:
        """The channel; connects again if the connection is lost."""
        with self._lock:
            if self._open is None or self._open.error is not None:
                if self._client is not None:
                    self._client.close()
                if self._closing:
                    raise OSError(errno.ESHUTDOWN, "the connection was closed")
                self._client = self._connected()
                self._open = _Channel(self._client.open_sftp())
            return self._open

    def _passing(self, error: BaseException) -> bool:
        if isinstance(error, OSError) and error.errno is None and type(error) is OSError:
            return False  # the server's own answer: it failed, and says no more
        return is_passing(error) or isinstance(error, self._paramiko.SSHException)

    def _close(self) -> None:
        # The lock is not waited for: whoever holds it may be connecting, and that takes as long as it takes.
        if self._client is not None:
            self._client.close()

    # --- requests -------------------------------------------------------------------------------

    def _list(self, path: str) -> list[Found]:
        return [
            _found(name, attributes)
            for name, attributes in self._channel.list(os.fsencode(path))
            if name not in (b".", b"..")
        ]

    def _look(self, path: str) -> Found:
        return _found(b"", self._channel.look(os.fsencode(path)))

    def _read(self, path: str, start: int, end: int) -> bytes:
        channel = self._channel
        with channel.opened(os.fsencode(path)) as handle:
            return channel.read(handle, start, end)

    def _fetch(self, path: str, size: int) -> tuple[bytes, Found]:
        channel = self._channel
        with channel.opened(os.fsencode(path)) as handle:
            data = channel.read(handle, 0, size)
            return data, _found(b"", channel.look_again(handle))

    def _target(self, path: str) -> bytes:
        return self._channel.target(os.fsencode(path))


def _found(name: bytes, attributes: Any) -> Found:
    mode, mtime = attributes.st_mode, attributes.st_mtime
    return Found(
        name,
        st.S_IFREG | 0o644 if mode is None else mode,
        attributes.st_size,
        None if mtime is None else mtime * 1_000_000_000,
        b"",
        attributes.st_uid,
        attributes.st_gid,
        dated=mtime is not None,
    )


def _lost() -> ConnectionError:
    return ConnectionError(errno.ECONNRESET, "the connection was lost")


class _Channel:
    """Requests on one channel, of which many may be under way; answers come in any order.

    paramiko's own calls wait for each answer, serve one thread, and take names for UTF-8.

    Attributes:
        error: Why there will be no more answers; None while there will.
    """

    def __init__(self, sftp: Any) -> None:
        from paramiko import sftp as numbers
        from paramiko.sftp_attr import SFTPAttributes  # type: ignore[import-untyped]

        self._sftp = sftp
        self._numbers = numbers
        self._attributes = SFTPAttributes
        self._answers: dict[int, tuple[int, Any]] = {}
        self._unwanted: set[int] = set()
        self._arrived = threading.Condition()
        self._sending = threading.Lock()
        self.error: BaseException | None = None
        threading.Thread(target=self._receive, name="rozenfmt-sftp", daemon=True).start()

    def _receive(self) -> None:
        """Take answers for as long as the connection lasts."""
        try:
            while True:
                self._sftp._read_response()  # noqa: SLF001 - see the class
        except BaseException as error:  # noqa: BLE001 - for whoever waits
            with self._arrived:
                self.error = error
                self._arrived.notify_all()

    def _async_response(self, kind: int, message: Any, number: int) -> None:
        """Called by paramiko with each answer."""
        with self._arrived:
            if number in self._unwanted:
                self._unwanted.remove(number)
            else:
                self._answers[number] = kind, message
                self._arrived.notify_all()

    def _ask(self, kind: int, *arguments: Any) -> int:
        with self._sending:
            try:
                number: int = self._sftp._async_request(self, kind, *arguments)  # noqa: SLF001
            except (OSError, EOFError) as error:
                self.error = self.error or error
                raise _lost() from error
        return number

    def _answer(self, number: int, wanted: int) -> Any:
        """The answer to a request; raises the server's error, or ``EOFError`` at an end."""
        with self._arrived:
            while number not in self._answers:
                if self.error is not None:
                    raise _lost() from self.error
                if not self._arrived.wait(_TIMEOUT):
                    self.error = TimeoutError(f"no answer for {_TIMEOUT:.0f} seconds")
                    raise self.error
            kind, message = self._answers.pop(number)
        if kind == self._numbers.CMD_STATUS:
            self._sftp._convert_status(message)  # noqa: SLF001
        if kind != wanted:
            raise OSError(errno.EIO, "the server answers another question")
        return message

    def _drop(self, numbers: Iterable[int]) -> None:
        """Wait for no answer to these requests, nor keep it when it comes."""
        with self._arrived:
            for number in numbers:
                if self._answers.pop(number, None) is None:
                    self._unwanted.add(number)

    @contextlib.contextmanager
    def opened(self, path: bytes, *, directory: bool = False) -> Iterator[bytes]:
        """A handle of a file or directory."""
        numbers = self._numbers
        if directory:
            asked = self._ask(numbers.CMD_OPENDIR, path)
        else:
            asked = self._ask(numbers.CMD_OPEN, path, numbers.SFTP_FLAG_READ, self._attributes())
        handle: bytes = self._answer(asked, numbers.CMD_HANDLE).get_string()
        try:
            yield handle
        finally:
            if self.error is None:
                self._drop([self._ask(numbers.CMD_CLOSE, handle)])

    def list(self, path: bytes) -> list[tuple[bytes, Any]]:
        """Names and attributes of what is in a directory."""
        numbers = self._numbers
        found: list[tuple[bytes, Any]] = []
        waiting: deque[int] = deque()
        with self.opened(path, directory=True) as handle:
            ahead = 2  # most directories take two requests: one for their entries, one for their end
            while True:
                while len(waiting) < ahead:
                    waiting.append(self._ask(numbers.CMD_READDIR, handle))
                try:
                    message = self._answer(waiting.popleft(), numbers.CMD_NAME)
                except EOFError:
                    self._drop(waiting)
                    return found
                for _ in range(message.get_int()):
                    name = message.get_string()
                    message.get_string()  # the line of ls: for people only
                    found.append((name, self._attributes._from_msg(message)))  # noqa: SLF001
                ahead = min(2 * ahead, _AHEAD)

    def look(self, path: bytes) -> Any:
        """Attributes of what is at a path."""
        numbers = self._numbers
        return self._attributes._from_msg(  # noqa: SLF001
            self._answer(self._ask(numbers.CMD_LSTAT, path), numbers.CMD_ATTRS)
        )

    def look_again(self, handle: bytes) -> Any:
        """Attributes of an open file."""
        numbers = self._numbers
        return self._attributes._from_msg(  # noqa: SLF001
            self._answer(self._ask(numbers.CMD_FSTAT, handle), numbers.CMD_ATTRS)
        )

    def target(self, path: bytes) -> bytes:
        """Target of a symlink."""
        message = self._answer(self._ask(self._numbers.CMD_READLINK, path), self._numbers.CMD_NAME)
        if message.get_int() != 1:
            raise OSError(errno.EIO, "the server does not tell where the link leads")
        found: bytes = message.get_string()
        return found

    def read(self, handle: bytes, start: int, end: int) -> bytes:
        """The bytes from ``start`` to ``end``; fewer if the file ends before."""
        pieces: list[bytes] = []
        taken = 0
        waiting: deque[tuple[int, int]] = deque()  # number and length of each request
        asked = start
        try:
            while waiting or asked < end:
                while asked < end and len(waiting) < _AHEAD:
                    length = min(_PIECE, end - asked)
                    waiting.append((self._ask_bytes(handle, asked, length), length))
                    asked += length
                number, length = waiting.popleft()
                try:
                    piece = self._answer(number, self._numbers.CMD_DATA).get_string()
                except EOFError:
                    break
                pieces.append(piece)
                taken += len(piece)
                if len(piece) < length:  # a server may give less: go on from there
                    if not piece:
                        break
                    self._drop(number for number, _ in waiting)
                    waiting.clear()
                    asked = start + taken
        finally:
            self._drop(number for number, _ in waiting)
        return b"".join(pieces)

    def _ask_bytes(self, handle: bytes, start: int, length: int) -> int:
        from paramiko.sftp import int64  # type: ignore[import-untyped]

        return self._ask(self._numbers.CMD_READ, handle, int64(start), length)
