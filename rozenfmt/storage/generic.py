"""Objects in any other file system of fsspec: memory, SFTP, WebDAV, and so on.

fsspec has no notion of an upload that can be taken back: its file objects publish when they are
closed, left or collected.  So everything is written under a temporary name in the same folder, and
moved when it is whole; whatever a file object does by itself, it does to the temporary name.

What cannot be promised here: a move is a copy followed by a deletion in some back-ends, and where
the back-end has no exclusive move, two writers in different processes may both succeed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.errors import ConflictError, StorageError, UsageError
from rozenfmt.storage.base import Leftover, ObjectInfo
from rozenfmt.storage.generic_errors import advice, describe, is_final, is_transient
from rozenfmt.storage.redact import Redactor, server_of
from rozenfmt.storage.retry import Retries, RetryPolicy, call
from rozenfmt.storage.upload import BaseUpload, check_name, check_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import TypeVar

    from rozenfmt.storage.bandwidth import Bandwidth, Pace
    from rozenfmt.storage.base import UploadState

    T = TypeVar("T")

__all__ = ["GenericStorage"]

_STREAM_PIECE: Final = 4 << 20
_PARTIAL: Final = re.compile(r"(?P<name>.*)\.partial-[0-9a-f]{12}", re.DOTALL)
_MAGIC: Final = re.compile(r"[*?\[\]{}]")
_NAME_MAX: Final = 255

# Seconds that a connection of SFTP may be silent; by itself it waits for ever.
_SILENCE: Final = 60.0

# Makes "look, then move" one step among the threads of this process; for memory:// that is all
# there is.  One lock for all folders: it is held for a moves's time only.
_publishing = threading.Lock()


class GenericStorage:
    """A folder of an fsspec file system.

    Not usable after a fork: build a new one in the child, or use threads.

    Args:
        url: URL of the folder.
        options: Options of the file system.
        retry: How long connecting, reading and listing are tried.
        bandwidth: Limits of what goes up and comes down.  A back-end that collects what it is given
            before it sends it does so at its own speed; over time the limit holds.

    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        *,
        retry: RetryPolicy | None = None,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        self.redactor = Redactor(url, options)
        self.retry = Retries(retry, describe)
        self.sending: Pace | None = None if bandwidth is None else bandwidth.sending
        self._receiving: Pace | None = None if bandwidth is None else bandwidth.receiving
        self._broken = False
        self.server = server_of(options)
        self.url = self.redactor.text(url)
        self._pid = os.getpid()
        self.fs, root = self._connect(url, options)
        if not hasattr(self.fs, "_connect"):
            # It has not asked its server for anything yet.
            self.retry = Retries(retry, describe)
        self._set_up()
        # Connections of the file systems that are not asynchronous are not to be shared by threads:
        # with that of SFTP, one thread takes the answer of another, which then waits for ever.
        self._alone: AbstractContextManager[Any] = contextlib.nullcontext() if self.fs.async_impl else threading.RLock()
        # The listings of a file system begin all its paths with its root marker, or none.
        self._root = root.rstrip("/") + "/" if root.rstrip("/") else root or self.fs.root_marker

    def size(self, name: str) -> int:
        """Size of an object in bytes; ``StorageError`` if there is none."""
        path = self.path(name)
        return self._again("read the size of", name, lambda: self.info(path))

    def read(self, name: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``; ``StorageError`` if there are fewer."""
        check_range(start, length)
        path = self.path(name)
        if length == 0:
            # Some file systems take an empty range for a range without an end.
            self._require_size(name, start, self.size(name))
            return b""
        data = self._read(path, name, start, start + length)
        if len(data) != length:
            self._require_size(name, start + length, self.size(name))
            msg = f"{self._where(name)} gave {len(data)} bytes where {length} were asked for; try again"
            raise StorageError(msg, object=name)
        return data

    def read_suffix(self, name: str, length: int) -> tuple[int, bytes]:
        """The object's size and its last ``length`` bytes, by two requests."""
        check_range(0, length)
        size = self.size(name)
        length = min(length, size)
        return size, self.read(name, size - length, length) if length else b""

    def stream(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end`` in pieces of 4 MiB."""
        check_range(start, None if end is None else end - start)
        check_name(name)
        return self._stream(name, start, end)

    def create(
        self,
        name: str,
        *,
        overwrite: bool = False,
        part_size: int | None = None,  # noqa: ARG002 - the file system chooses its own
        expected_size: int | None = None,  # noqa: ARG002 - see part_size
    ) -> GenericUpload:
        """Begin an object; folders in its name are made.

        Raises:
            ConflictError: ``overwrite`` is False and the object exists already.
            StorageError: The back-end failed.

        """
        path = self.path(name)
        # The race is decided at commit; this saves writing what cannot be committed.
        if not overwrite and self._again("look for", name, lambda: self.exists(path)):
            raise self.conflict(name)
        return GenericUpload(self, name, path, overwrite=overwrite)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects sorted by name; a missing folder is empty."""
        folder = self._root + prefix.rpartition("/")[0]
        found = self._again("list", None, lambda: self._find(folder))
        for path in sorted(found):
            name = path[len(self._root) :]
            last = name.rpartition("/")[2]
            if name.startswith(prefix) and not _PARTIAL.fullmatch(last):
                yield ObjectInfo(name, found[path])

    def delete(self, name: str) -> None:
        """Remove an object; ``StorageError`` if there is none."""
        path = self.path(name)
        # Not repeated: after a lost answer, a second attempt could not tell what it finds.
        with self.explained("delete", name):
            self.info(path)
            self.fs.rm_file(path)

    def resume(self, state: UploadState) -> None:  # noqa: ARG002 - fsspec cannot go on with a file that is not whole
        """Nothing can be gone on with."""
        return

    def leftovers(self, prefix: str) -> Iterator[Leftover]:
        """Unfinished uploads of objects whose name starts with ``prefix``; long names come shortened."""
        folder = self._root + prefix.rpartition("/")[0]
        for path in sorted(self._again("list", None, lambda: self._find(folder))):
            name = path[len(self._root) :]
            match = _PARTIAL.fullmatch(name)
            if match is not None and name.startswith(prefix):
                yield Leftover(match["name"], name)

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove the file of an unfinished upload."""
        if not _PARTIAL.fullmatch(leftover.upload):
            msg = f"{self._where(leftover.upload)} is no unfinished upload; it is left alone"
            raise StorageError(msg, object=leftover.name, fatal=True)
        path = self.path(leftover.upload)
        with self.explained("remove", leftover.name):
            if self.exists(path):
                self.fs.rm_file(path)

    def close(self) -> None:
        """Close the connection, as far as the file system lets others do it; use nothing afterwards."""
        # fsspec has no common way; SFTP keeps a client, and WebDAV one inside another.
        client = getattr(self.fs, "client", None)
        for owner in (self.fs, client, getattr(client, "http", None)):
            close = getattr(owner, "close", None)
            if close is not None and os.getpid() == self._pid:
                with self.explained("close", None):
                    close()
                return

    def interrupt(self) -> None:
        """The user wants to stop: end what other threads wait for."""
        self.retry.interrupt()

    # The rest serves GenericUpload.

    def path(self, name: str) -> str:
        """Path of an object in the file system."""
        if os.getpid() != self._pid:
            msg = (
                f"{self.url} was opened before a fork and cannot be used in the child process; "
                "open the storage again there, or use threads"
            )
            raise UsageError(msg)
        return self._root + check_name(name)

    def info(self, path: str) -> int:
        """Size of a file; raises what the file system raises."""
        # fsspec caches listings unless asked not to, and not every file system takes the option.
        self.fs.invalidate_cache()
        info = self.fs.info(path)
        if info["type"] == "directory":
            raise IsADirectoryError(path)
        if info.get("size") is None:
            msg = f"{self.redactor.text(path)} has no size that the back-end could tell"
            raise StorageError(msg, fatal=True)
        return int(info["size"])

    def exists(self, path: str) -> bool:
        """Whether there is anything; raises for failures, which ``fs.exists`` takes for absence."""
        self.fs.invalidate_cache()
        try:
            self.fs.info(path)
        except FileNotFoundError:
            return False
        return True

    def conflict(self, name: str) -> ConflictError:
        """The error for an object that exists."""
        return ConflictError(f"{self._where(name)} exists; choose another name, or ask for overwriting")

    @contextlib.contextmanager
    def explained(self, action: str, name: str | None) -> Iterator[None]:
        """One step of work: alone where it has to be, its errors turned into one that says what to do."""
        try:
            with self._alone:
                yield
        except (StorageError, ConflictError, UsageError):
            raise
        except Exception as error:  # noqa: BLE001 - back-ends raise what they like
            raise self._explain(error, action, name) from self.redactor.cause(error)

    def _connect(self, url: str, options: Mapping[str, Any] | None) -> tuple[Any, str]:
        import fsspec  # type: ignore[import-untyped]

        options = dict(options or {})
        if isinstance(options.get("auth"), list):
            # User and password for WebDAV and HTTP: a tuple is demanded, which JSON has not.
            options["auth"] = tuple(options["auth"])
        try:
            # An instance shared with others would share their caches and connections.
            fs, root = call(
                self.retry,
                lambda: fsspec.url_to_fs(url, skip_instance_cache=True, **options),
                is_transient,
                action="open",
                where=self.url,
            )
        except ImportError as error:
            msg = f"{self.url} needs a package that is not installed: {error}"
            raise StorageError(self.redactor.text(msg), fatal=True) from self.redactor.cause(error)
        except (TypeError, ValueError) as error:
            msg = f"the address {self.url} or its storage_options are not understood: {error}"
            raise UsageError(self.redactor.text(msg)) from self.redactor.cause(error)
        except Exception as error:  # noqa: BLE001 - back-ends raise what they like
            raise self._explain(error, "open", None) from self.redactor.cause(error)
        _send_at_once(fs)
        return fs, str(root)

    def _again(self, action: str, name: str | None, fn: Callable[[], T]) -> T:
        """Work that may be repeated, until it succeeds; others may work in between."""

        def once() -> T:
            with self._alone:
                if self._broken:
                    self._reconnect()
                try:
                    return fn()
                except Exception as error:
                    self._broken = is_transient(error)
                    raise

        try:
            return call(self.retry, once, is_transient, action=action, where=self._where(name))
        except (StorageError, ConflictError, UsageError):
            raise
        except Exception as error:  # noqa: BLE001 - back-ends raise what they like
            raise self._explain(error, action, name) from self.redactor.cause(error)
        except BaseException:
            self.retry.interrupt()
            raise

    def _reconnect(self) -> None:
        """Make a new connection where the file system keeps one of its own, as SFTP, FTP and SMB do."""
        connect = getattr(self.fs, "_connect", None)
        if connect is not None and not self.fs.async_impl:
            with contextlib.suppress(Exception):
                # It is broken already; what it says about that is of no interest.
                self.fs.client.close()
            connect()
            self._set_up()
        self._broken = False

    def _set_up(self) -> None:
        """What the file system's own options do not offer."""
        channel = getattr(getattr(self.fs, "ftp", None), "get_channel", None)
        if channel is not None:
            channel().settimeout(_SILENCE)
        # The attempts of webdav4 would multiply ours.
        if hasattr(getattr(self.fs, "client", None), "with_retry"):
            self.fs.client.with_retry = _once

    def check_interrupt(self) -> Callable[[], None]:
        """What raises once ``interrupt`` was called."""
        before = self.retry.interrupts

        def check() -> None:
            if self.retry.interrupts != before:
                msg = f"work on {self.url} was interrupted"
                raise StorageError(msg)

        return check

    def _read(self, path: str, name: str, start: int, end: int) -> bytes:
        """The bytes of a range, in pieces where the pace is limited."""
        if self._receiving is None:
            return self._again("read", name, lambda: self._cat(path, start, end))
        check = self.check_interrupt()
        parts = bytearray()
        while start < end:
            stop = min(end, start + self._receiving.piece(_STREAM_PIECE))
            piece = self._again("read", name, lambda start=start, stop=stop: self._cat(path, start, stop))  # type: ignore[misc]
            parts += piece
            if len(piece) != stop - start:
                break
            self._receiving.take(len(piece), check)
            start = stop
        return bytes(parts)

    def _cat(self, path: str, start: int, end: int) -> bytes:
        # cat_file, since cat() would take the name for a pattern.
        data = self.fs.cat_file(path, start=start, end=end)
        return data if isinstance(data, bytes) else bytes(data)

    def _find(self, folder: str) -> dict[str, int]:
        self.fs.invalidate_cache()
        try:
            found = self.fs.find(folder, detail=True, **self._find_options())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError:
            # SFTP has no word for it.
            if self._is_file(folder):
                return {}
            raise
        return {
            path: int(info["size"])
            for path, info in found.items()
            # Asked for a folder that is a file, find() returns that file, without a type.
            if info.get("type", "directory") != "directory" and path.startswith(self._root)
        }

    def _is_file(self, path: str) -> bool:
        try:
            return bool(self.fs.info(path)["type"] == "file")
        except Exception:  # noqa: BLE001 - what went wrong first is what matters
            return False

    def _find_options(self) -> dict[str, str]:
        """What keeps fsspec's own ``find`` from taking a folder that cannot be listed for an empty one."""
        from fsspec import AbstractFileSystem
        from fsspec.asyn import AsyncFileSystem  # type: ignore[import-untyped]

        kind = type(self.fs)
        walks = kind._find is AsyncFileSystem._find if self.fs.async_impl else kind.find is AbstractFileSystem.find  # noqa: SLF001
        return {"on_error": "raise"} if walks else {}

    def _stream(self, name: str, start: int, end: int | None) -> Iterator[bytes]:
        if end is None or start == end:
            size = self.size(name)
            end = max(start, size) if end is None else end
            self._require_size(name, end, size)
        while start < end:
            length = min(_STREAM_PIECE, end - start)
            yield self.read(name, start, length)
            start += length

    def _require_size(self, name: str, wanted: int, size: int) -> None:
        if wanted > size:
            msg = f"{self._where(name)} ends at byte {size}, before byte {wanted} that was asked for"
            raise StorageError(msg, object=name, fatal=True)

    def _where(self, name: str | None) -> str:
        return self.redactor.text(f"{self.url.rstrip('/')}/{name}" if name is not None else self.url)

    def _explain(self, error: Exception, action: str, name: str | None) -> StorageError:
        where = self._where(name)
        reason = type(error).__name__
        detail = self.redactor.text(str(error))
        said = f"{reason} ({detail})" if detail else reason
        msg = f"cannot {action} {where}: {said}; {advice(error)}"
        return StorageError(msg, object=name, fatal=is_final(error))


class GenericUpload(BaseUpload):
    """A file on its way, under a temporary name.

    Args:
        storage: The folder.
        name: Name of the object.
        path: Path of its file in the file system.
        overwrite: Whether an existing file is replaced.

    """

    def __init__(self, storage: GenericStorage, name: str, path: str, *, overwrite: bool) -> None:
        super().__init__(name)
        self._storage = storage
        self._path = path
        self._overwrite = overwrite
        self._partial = _partial_path(path)
        self._moved = False
        if storage.sending is not None:
            pace, check = storage.sending, storage.check_interrupt()
            self.paced = lambda data: pace.slices(data, check)
        with storage.explained("create", name):
            folder = path.rpartition("/")[0]
            if folder:
                storage.fs.makedirs(folder, exist_ok=True)
            self._file: Any = storage.fs.open(self._partial, "wb")

    @property
    def leftover(self) -> Leftover:
        """The file with the temporary name."""
        folder, slash, _ = self.name.rpartition("/")
        return Leftover(self.name, folder + slash + self._partial.rpartition("/")[2])

    def _write(self, data: bytes | memoryview) -> None:
        with self._storage.explained("write", self.name):
            view = memoryview(data)
            while view:
                # Some raw files of fsspec return None, some the number of bytes they took.
                taken = self._file.write(view)
                view = view[len(view) if taken is None else taken :]

    def _commit(self) -> ObjectInfo:
        storage = self._storage
        with storage.explained("finish", self.name):
            file, self._file = self._file, None
            try:
                file.close()
            except BaseException:
                _defuse(file)
                raise
            self._compare(self._partial)
            with _publishing:
                existed = storage.exists(self._path)
                if existed and not self._overwrite:
                    raise storage.conflict(self.name)
                try:
                    _move(storage.fs, self._partial, self._path, replace=existed)
                except Exception as error:  # noqa: BLE001 - back-ends raise what they like
                    self._settle(error, existed=existed)
                self._moved = True
            self._compare(self._path)
        return ObjectInfo(self.name, self.written)

    def _settle(self, error: Exception, *, existed: bool) -> None:
        """After a move that failed: return if it had succeeded all the same, else clean up and raise.

        Its answer may have been lost, it may be a copy that broke off, and another process may have
        been faster.  Nothing is removed that is not known to be ours.
        """
        fs = self._storage.fs
        with contextlib.suppress(Exception):
            # The error that led here is the one to be told; this is what can be done about it.
            size = self._storage.info(self._path)
            left = self._storage.exists(self._partial)
            ours = self._begins_alike(size) if left else size == self.written
            if ours and size == self.written:
                if left:
                    fs.rm_file(self._partial)
                return
            if ours and not existed:
                fs.rm_file(self._path)
        if _exists_already(error) and not self._overwrite:
            raise self._storage.conflict(self.name) from error
        raise error

    def _begins_alike(self, size: int) -> bool:
        """Whether what stands at our place is the beginning of what was written."""
        if size > self.written:
            return False
        pieces = ((start, min(start + _STREAM_PIECE, size)) for start in range(0, size, _STREAM_PIECE))
        cat = self._storage.fs.cat_file
        return all(
            cat(self._path, start=start, end=end) == cat(self._partial, start=start, end=end) for start, end in pieces
        )

    def _discard(self) -> None:
        storage = self._storage
        file, self._file = self._file, None
        with storage.explained("discard", self.name):
            if file is not None:
                _defuse(file)
            if not self._moved and storage.exists(self._partial):
                storage.fs.rm_file(self._partial)

    def _compare(self, path: str) -> None:
        stored = self._storage.info(path)
        if stored != self.written:
            msg = (
                f"{self._storage.redactor.text(path)} has {stored} bytes where {self.written} were written; "
                "write it again, and do not trust this back-end before the cause is found"
            )
            raise StorageError(msg, object=self.name)


def _defuse(file: Any) -> None:
    """End a file object without letting it finish its upload.

    Buffered files of fsspec send their last block, or the whole object, when they are closed, and
    they close themselves when they are collected.
    """
    with contextlib.suppress(Exception):
        # Not every back-end implements it, and what it leaves has a temporary name.
        file.discard()
    from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

    if isinstance(file, AbstractBufferedFile):
        file.closed = True
    elif not file.closed:
        with contextlib.suppress(Exception):
            # The file is removed next; what it says about its last bytes is of no interest.
            file.close()


def _move(fs: Any, source: str, target: str, *, replace: bool) -> None:
    """Give a whole file its final name, by a rename if the file system has one."""
    from fsspec import AbstractFileSystem

    # The inherited mv() takes names for patterns, and so do some that call it in the end.
    copies = type(fs).cp_file is not AbstractFileSystem.cp_file
    renames = type(fs).mv is not AbstractFileSystem.mv and not (copies and _MAGIC.search(source))

    def move() -> None:
        if renames:
            fs.mv(source, target)
        else:
            fs.cp_file(source, target)
            fs.rm_file(source)

    try:
        move()
    except Exception as error:
        if not (replace and _exists_already(error)):
            raise
        # A back-end that never replaces (WebDAV): for a moment there is neither the old nor the new.
        fs.rm_file(target)
        move()


def _exists_already(error: Exception) -> bool:
    return isinstance(error, FileExistsError) or "AlreadyExists" in type(error).__name__


def _partial_path(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    ending = f".partial-{secrets.token_hex(6)}"
    # The limit counts bytes, and a name of full length is legal; half a character is dropped.
    head = name.encode("utf-8", "surrogateescape")[: _NAME_MAX - len(ending)]
    return folder + slash + head.decode("utf-8", "ignore") + ending


def _send_at_once(fs: Any) -> None:
    """Switch Nagle's algorithm off for SFTP, which waits for an answer after every 32 KiB.

    paramiko leaves it on, and with the other side's delayed acknowledgements each write then takes
    40 ms: less than a megabyte per second, on any network.
    """
    transport = getattr(getattr(fs, "client", None), "get_transport", None)
    connection = getattr(transport(), "sock", None) if callable(transport) else None
    if isinstance(connection, socket.socket) and connection.family in {socket.AF_INET, socket.AF_INET6}:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _once(attempt: Callable[[], T]) -> T:
    return attempt()
