"""Files of a remote file system, as a walk wants them: listings, looks, ranges, and errors of one family.

Every file system says what it knows in words of its own; here that becomes a ``Found``.  Requests that
fail for a passing reason are tried again; what still fails is an ``OSError`` whose text holds no secret.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import hashlib
import math
import os
import re
import stat as st
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rozenfmt.errors import SourceError, UsageError
from rozenfmt.storage.network import Failure, retry_after, words
from rozenfmt.storage.redact import Redactor
from rozenfmt.storage.retry import Retries, RetryPolicy, call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["NEVER", "RETRY", "Found", "FsspecFiles", "RemoteFiles", "found_of", "origin_of", "same", "time_ns"]

T = TypeVar("T")

RETRY = RetryPolicy()
"""How long requests to a source are tried, if nothing else is said."""

NEVER: Final = (1 << 63) - 1
"""A change time that no clock reaches: what has it counts as having just been written, and is read each time."""

FILE_MODE: Final = 0o644
DIRECTORY_MODE: Final = 0o755

# Clocks of servers that do not tell versions apart are believed up to so much.
_SKEW_NS: Final = 60_000_000_000

# Names in lower case, letters and digits only; the first that is there counts.
_MODIFIED: Final = (
    *("mtime", "lastmodified", "modified", "modifiedtime", "modificationtime", "lastwritetime", "modify"),
    *("servermodified", "modifiedat", "updated"),
)
_CREATED: Final = ("created", "ctime", "timecreated", "creationtime")
_VERSIONS: Final = frozenset(
    {
        *("etag", "versionid", "generation", "md5", "md5hash", "md5checksum", "contentmd5", "crc32c", "checksum"),
        *("contenthash", "sha", "sha1", "sha256", "hash", "blobid", "rev", "inode", "ino"),
    }
)
_WORD: Final = re.compile(r"[^a-z0-9]")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FTP_TIME: Final = re.compile(r"(\d{14})(?:\.(\d{1,6}))?")
_SCALES: Final = ((10**17, 1), (10**14, 1_000), (10**11, 1_000_000))  # numbers beyond: in ns, µs, ms
_SECOND: Final = 1_000_000_000
_LATEST: Final = 1e30

_DENIED: Final = frozenset({401, 403})
_ABSENT: Final = frozenset({404, 410})
_THROTTLED: Final = frozenset({429, 503})
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_FINAL: Final = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
# Roots of the families of exceptions that HTTP libraries have beside OSError, by name: not imported for this.
_PASSING_TYPES: Final = frozenset({"TransportError", "ClientConnectionError", "ClientPayloadError", "HTTPClientError"})
_CONNECTIONS: Final = 4
_USERINFO: Final = re.compile(r"(?<=://)[^/]*@")
_HTTP_QUERY: Final = re.compile(r"\?.*", re.DOTALL)


def origin_of(url: str) -> str:
    """A URL without what may be secret: user, password and, of HTTP, the query."""
    shown = _USERINFO.sub("", url)
    return _HTTP_QUERY.sub("", shown) if re.match(r"https?://", shown, re.IGNORECASE) else shown


@dataclass(slots=True)
class Found:
    """What a listing or a look says about an entry.

    Attributes:
        name: Its last component, as it was told: nothing is checked.
        mode: Kind and permissions, as ``st_mode``; defaults where they are not told.
        size: In bytes; None if it is not told.
        mtime_ns: Modification time; None if it is not told.
        version: What else tells this content from another one: lines of ``key=value``, sorted.
        uid: Owner.
        gid: Group.
        user: Owner's name, empty if it is not told.
        group: Group's name, empty if it is not told.
        dated: ``mtime_ns`` is the time of the last change, not of creation.
        path: Where it is in the file system, if that is not the directory's path and the name.
        target: Of a symlink, if the listing tells it.
    """

    name: bytes
    mode: int
    size: int | None
    mtime_ns: int | None = None
    version: bytes = b""
    uid: int | None = None
    gid: int | None = None
    user: bytes = b""
    group: bytes = b""
    dated: bool = False
    path: str | None = None
    target: bytes | None = None

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return st.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return st.S_ISREG(self.mode)

    def stat(self, source: bytes, looked_ns: int) -> os.stat_result:
        """As a ``stat_result``, whose inode number stands for the version, and whose change time is of no meaning.

        Args:
            source: What names the whole source: the same file elsewhere is another one.
            looked_ns: When this was seen.  What changed so shortly before that another change could have
                the same time gets the change time ``NEVER``, and so does what tells no change at all.
        """
        mtime_ns = max(-NEVER, min(self.mtime_ns or 0, NEVER))
        inode = 0
        if not self.is_directory:
            facts = b"%b\0%b\0%d %d %d" % (source, self.version, self.mode, self.uid or 0, self.gid or 0)
            inode = int.from_bytes(hashlib.blake2b(facts, digest_size=8).digest(), "little") or 1
        sure = bool(self.version) or (self.dated and mtime_ns < looked_ns - _SKEW_NS)
        uid, gid = self.owner
        return os.stat_result(
            (self.mode, inode, 0, 1, uid, gid, self.size or 0, 0, mtime_ns // _SECOND, 0),
            {"st_mtime_ns": mtime_ns, "st_ctime_ns": 0 if sure else NEVER},
        )

    @property
    def owner(self) -> tuple[int, int]:
        """Owner and group; where they are not told, those of this process."""
        return (
            os.getuid() if self.uid is None else self.uid,
            os.getgid() if self.gid is None else self.gid,
        )


def same(one: Found, other: Found) -> bool:
    """Whether two looks saw the same content, as far as both tell."""
    if one.size is not None and other.size is not None and one.size != other.size:
        return False
    if one.mtime_ns is not None and other.mtime_ns is not None and one.dated and other.dated:
        step = 1
        if not one.mtime_ns % _SECOND or not other.mtime_ns % _SECOND:
            step = _SECOND  # one of the two answers knows whole seconds only
        if one.mtime_ns // step != other.mtime_ns // step:
            return False
    if one.version == other.version:
        return True
    mine, theirs = (dict(line.split(b"=", 1) for line in v.split(b"\n") if line) for v in (one.version, other.version))
    return all(mine[key] == theirs[key] for key in mine.keys() & theirs.keys())


def time_ns(value: Any) -> int | None:
    """Nanoseconds since 1970 from what file systems give as a time; None if it is none.

    Times without a zone are in UTC.  Numbers are seconds, or such fractions that they fall into our times.
    """
    if isinstance(value, str):
        value = _parsed(value.strip())
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=dt.UTC)
        since: dt.timedelta = value - _EPOCH
        return since // dt.timedelta(microseconds=1) * 1_000
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LATEST:
        return None
    for least, scale in _SCALES:
        if abs(value) >= least:
            return int(value) * scale
    return math.floor(value) * _SECOND + round(value % 1 * 1_000_000) * 1_000


def _parsed(text: str) -> dt.datetime | float | None:
    ftp = _FTP_TIME.fullmatch(text)
    with contextlib.suppress(ValueError, TypeError):
        if ftp is not None:
            micro = int((ftp[2] or "0").ljust(6, "0"))
            return dt.datetime.strptime(ftp[1], "%Y%m%d%H%M%S").replace(microsecond=micro, tzinfo=dt.UTC)
        if re.fullmatch(r"-?\d+(\.\d+)?", text):
            return float(text) if "." in text else int(text)
        return dt.datetime.fromisoformat(text)
    with contextlib.suppress(ValueError, TypeError):
        return parsedate_to_datetime(text)
    return None


def found_of(info: Mapping[str, Any], name: bytes) -> Found:
    """From an entry of fsspec's ``ls`` or ``info``."""
    told = {_WORD.sub("", key.lower()): value for key, value in info.items() if value is not None}
    mtime_ns, dated = _time_in(told, _MODIFIED), True
    if mtime_ns is None:
        mtime_ns, dated = _time_in(told, _CREATED), False
    versions = sorted(
        f"{key}={value}".encode("utf-8", "backslashreplace").replace(b"\n", b" ")
        for key, value in told.items()
        if key in _VERSIONS and isinstance(value, (str, int)) and value != ""
    )
    size, target = told.get("size"), told.get("destination")
    kind = _kind(told)
    mode = told.get("mode")
    permissions = st.S_IMODE(mode) if isinstance(mode, int) else DIRECTORY_MODE if kind == st.S_IFDIR else FILE_MODE
    return Found(
        name,
        kind | permissions,
        int(size) if isinstance(size, (int, float)) else None,
        mtime_ns,
        b"\n".join(versions),
        _number_in(told, "uid"),
        _number_in(told, "gid"),
        _name_in(told, ("owner", "user")),
        _name_in(told, ("group",)),
        dated=dated and mtime_ns is not None,
        target=os.fsencode(target) if kind == st.S_IFLNK and isinstance(target, (str, bytes)) and target else None,
    )


def _kind(told: Mapping[str, Any]) -> int:
    if told.get("islink") and told.get("destination"):
        return st.S_IFLNK
    return {"directory": st.S_IFDIR, "dir": st.S_IFDIR, "file": st.S_IFREG, "link": st.S_IFLNK}.get(
        str(told.get("type")).lower(), 0
    )


def _time_in(told: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((found for key in keys if (found := time_ns(told.get(key))) is not None), None)


def _number_in(told: Mapping[str, Any], key: str) -> int | None:
    value = told.get(key)
    return value if isinstance(value, int) else None


def _name_in(told: Mapping[str, Any], keys: tuple[str, ...]) -> bytes:
    return next((value.encode() for key in keys if isinstance(value := told.get(key), str)), b"")


class RemoteFiles(ABC):
    """A file system, seen from one source.  Its methods are called from several threads.

    They raise ``OSError``: ``FileNotFoundError`` for what is not there, ``PermissionError`` for what is denied.

    Args:
        url: As the user gave it.
        options: Likewise.
        retry: How long requests are tried.

    Attributes:
        retries: What they know of each other's failures.
        root: Path of the source in the file system.
        connections: Requests that may be under way at once.
        redactor: Takes secrets out of texts.
        where: The source, for people.
    """

    connections: int = _CONNECTIONS

    def __init__(self, url: str, options: Mapping[str, Any], retry: RetryPolicy | None = None) -> None:
        self.redactor = Redactor(url, options)
        self.where = self.redactor.text(origin_of(url))
        self.retries = Retries(retry or RETRY, self._failure)
        self.root: str
        self._closing = False

    def listing(self, path: str) -> list[Found]:
        """What is in a directory, in any order."""
        return self._again(lambda: self._list(path))

    def look(self, path: str) -> Found:
        """What is at a path, symlinks not followed; its name may be anything."""
        return self._again(lambda: self._look(path))

    def read(self, path: str, start: int, end: int) -> bytes:
        """The bytes from ``start`` to ``end``; fewer if the file ends before."""
        return self._again(lambda: self._read(path, start, end))

    def fetch(self, path: str, size: int) -> tuple[bytes, Found]:
        """The first ``size`` bytes of a file, and a look at it that is not older than they are."""
        return self._again(lambda: self._fetch(path, size))

    def target(self, path: str) -> bytes:
        """Target of a symlink."""
        return self._again(lambda: self._target(path))

    def close(self) -> None:
        """End the connections; requests under way fail, and are not tried again."""
        self._closing = True
        self.retries.interrupt()
        self._close()

    @abstractmethod
    def _list(self, path: str) -> list[Found]: ...

    @abstractmethod
    def _look(self, path: str) -> Found: ...

    @abstractmethod
    def _read(self, path: str, start: int, end: int) -> bytes: ...

    @abstractmethod
    def _close(self) -> None: ...

    def _fetch(self, path: str, size: int) -> tuple[bytes, Found]:
        return (self._read(path, 0, size) if size else b""), self._look(path)

    def _target(self, path: str) -> bytes:  # noqa: ARG002
        raise OSError(errno.ENOTSUP, "this file system does not tell where links lead")

    def _reset(self, error: BaseException) -> None:  # noqa: B027 - most have nothing to do
        """A request failed for a passing reason: make ready for the next attempt."""

    def _passing(self, error: BaseException) -> bool:
        return is_passing(error)

    def _failure(self, error: Exception) -> Failure:
        """What a failed attempt says about the next one."""
        headers = getattr(getattr(error, "response", None), "headers", None) or {}
        status = status_of(error)
        return Failure(
            words(error),
            answered=bool(status) or isinstance(error, _FINAL),
            throttled=status in _THROTTLED,
            retry_after=retry_after(headers.get("Retry-After"), time.time()) if status in _THROTTLED else None,
            action="read",
            where=self.where,
        )

    def _again(self, work: Callable[[], T]) -> T:
        def passing(error: BaseException) -> bool:
            if self._closing or not self._passing(error):
                return False
            self._reset(error)
            return True

        try:
            return call(self.retries, work, passing)
        except (SourceError, UsageError):
            raise
        except Exception as error:  # noqa: BLE001 - back-ends raise what they like
            raise self.explained(error) from self.redactor.cause(error)

    def explained(self, error: Exception) -> OSError:
        """An error of the back-end as one of ours, without secrets."""
        status = status_of(error)
        if isinstance(error, FileNotFoundError) or status in _ABSENT:
            return FileNotFoundError(errno.ENOENT, "it is not there")
        if isinstance(error, PermissionError) or status in _DENIED:
            return PermissionError(errno.EACCES, "access is denied")
        if isinstance(error, (NotADirectoryError, IsADirectoryError)):
            return type(error)(error.errno or errno.EISDIR, "it is of another kind now")
        text = self.redactor.text(str(error))
        reason = type(error).__name__
        return OSError(error.errno if isinstance(error, OSError) else None, f"{reason}: {text}" if text else reason)


def status_of(error: BaseException) -> int:
    """The HTTP status in an error of one of the libraries that file systems use; 0 if there is none."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
    return 0


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    status = status_of(error)
    if status:
        return status in _PASSING
    if isinstance(error, _FINAL) or not isinstance(error, Exception):
        return False
    if isinstance(error, (OSError, EOFError)) or "Timeout" in type(error).__name__:
        return True
    return bool({cls.__name__ for cls in type(error).__mro__} & _PASSING_TYPES)


class FsspecFiles(RemoteFiles):
    """Any file system of fsspec.

    File systems that are not asynchronous are not to be shared by threads: each thread has one of its own.

    Raises:
        UsageError: fsspec knows no such URL, or the options do not fit.
        SourceError: A package is missing, or there is no connection.
    """

    def __init__(self, url: str, options: Mapping[str, Any], retry: RetryPolicy | None = None) -> None:
        super().__init__(url, options, retry)
        self._url, self._options = url, dict(options)
        self._own = threading.local()
        self._all: list[Any] = []
        self._first, self.root = self._connected()
        self._shared = bool(getattr(self._first, "async_impl", False))
        self._own.fs = self._first

    def _connected(self) -> tuple[Any, str]:
        try:
            import fsspec  # type: ignore[import-untyped]

            fs, root = fsspec.url_to_fs(self._url, skip_instance_cache=True, **self._options)
        except ImportError as error:
            msg = f"this needs a package that is not installed: {self.redactor.text(str(error))}"
            raise SourceError(msg) from self.redactor.cause(error)
        except (TypeError, ValueError) as error:
            msg = f"its address or its options (source_options) are not understood: {self.redactor.text(str(error))}"
            raise UsageError(msg) from self.redactor.cause(error)
        # What was listed once is not believed again.  The option of this name is not taken by all.
        with contextlib.suppress(AttributeError):
            fs.dircache.use_listings_cache = False
        self._all.append(fs)
        return fs, str(root)

    @property
    def _fs(self) -> Any:
        if self._shared:
            return self._first
        fs = getattr(self._own, "fs", None)
        if fs is None:
            fs = self._own.fs = self._connected()[0]
        return fs

    def _address(self, path: str) -> str:
        """How the file system wants to be told of a path that it listed."""
        return path

    def _reset(self, error: BaseException) -> None:
        if not self._shared and not status_of(error):
            self._own.fs = None  # its connection may be broken

    def _list(self, path: str) -> list[Found]:
        fs = self._fs
        fs.invalidate_cache()
        inside = path.rstrip("/") + "/" if path.strip("/") else ""
        found = []
        for info in fs.ls(self._address(path), detail=True):
            where = str(info["name"])
            if where in (path, path.rstrip("/")):
                if info.get("type") == "directory" or not info.get("size"):
                    continue  # the directory itself, or the empty object that marks it
                raise NotADirectoryError(path)
            rest = where.removeprefix(inside) if inside else where.lstrip("/")
            if info.get("type") == "directory" and rest.endswith("/") and rest != "/":
                rest = rest[:-1]
            one = found_of(info, os.fsencode(rest))
            if where != inside + rest:
                one.path = where
            found.append(one)
        return found

    def _look(self, path: str) -> Found:
        fs = self._fs
        fs.invalidate_cache()
        return found_of(fs.info(self._address(path)), b"")

    def _read(self, path: str, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        # cat_file, since cat() would take the name for a pattern.
        data = self._fs.cat_file(path, start=start, end=end)
        if len(data) > end - start:
            msg = "the server ignores ranges, and gave more than was asked for"
            raise OSError(errno.ENOTSUP, msg)
        return data if isinstance(data, bytes) else bytes(data)

    def _close(self) -> None:
        for fs in self._all:
            # fsspec has no common way; WebDAV keeps a client inside another.
            client = getattr(fs, "client", None)
            for owner in (fs, client, getattr(client, "http", None)):
                close = getattr(owner, "close", None)
                if callable(close):
                    with contextlib.suppress(Exception):  # it was read from, and nothing more is wanted of it
                        close()
                    break
