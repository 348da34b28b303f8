"""Objects of a bucket as files: keys with slashes are paths, what ends before a slash is a directory.

Requests go through this library's own storage of S3, so that listings are not cached, keys are what the
server says, and each GET tells the version that it gave.
"""

from __future__ import annotations

import errno
import stat as st
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rozenfmt.errors import StorageError
from rozenfmt.storage.s3 import S3Storage
from rozenfmt.storage.s3_errors import FORBIDDEN, NOT_FOUND, IntegrityError, code_of, explain, is_transient

from .remote_files import DIRECTORY_MODE, FILE_MODE, Found, RemoteFiles, time_ns

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Coroutine, Mapping

    from rozenfmt.storage.retry import RetryPolicy

T = TypeVar("T")

__all__ = ["S3Files"]

_CONNECTIONS: Final = 12


class S3Files(RemoteFiles):
    """A bucket, or a folder of it.

    Args:
        url: ``s3://bucket/folder``.
        options: Of ``s3fs.S3FileSystem``.
        retry: How long requests are tried.

    Raises:
        UsageError: The options do not fit.
        StorageError: The package ``s3fs`` is missing.
    """

    connections = _CONNECTIONS

    def __init__(self, url: str, options: Mapping[str, Any], retry: RetryPolicy | None = None) -> None:
        super().__init__(url, options, retry)
        self._storage = S3Storage(url, options, retry=self.retries.policy, parallel=_CONNECTIONS)
        self.retries = self._storage.retry  # requests are tried again there
        self.root = self._storage.folder.rstrip("/")

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = self._storage.submit(work)
        try:
            found: T = future.result()
        finally:
            future.cancel()
        return found

    def _passing(self, error: BaseException) -> bool:  # noqa: ARG002 - was tried again below, where it is known
        return False

    def explained(self, error: Exception) -> OSError:
        """An error of the server as one of ours."""
        if isinstance(error, StorageError):
            return OSError(errno.EINVAL, str(error))
        code, status = code_of(error)
        if isinstance(error, FileNotFoundError) and not status:
            return error
        if status == NOT_FOUND and code != "NoSuchBucket":
            return FileNotFoundError(errno.ENOENT, "it is not there")
        where = self._storage.where(None)
        text = str(explain(error, action="read", where=where, permission="s3:GetObject, s3:ListBucket", name=None))
        if status == FORBIDDEN:
            return PermissionError(errno.EACCES, text)
        if is_transient(error) or isinstance(error, IntegrityError):
            return OSError(errno.EIO, text)
        return OSError(errno.EINVAL, text)

    async def _page(self, **arguments: Any) -> Any:
        return await self._storage.request("list_objects_v2", Bucket=self._storage.bucket, **arguments)

    def _list(self, path: str) -> list[Found]:
        prefix = path + "/" if path else ""
        found: list[Found] = []
        token: dict[str, str] = {}
        while True:
            page = self._run(self._page(Prefix=prefix, Delimiter="/", **token))
            for item in page.get("Contents", ()):
                key = item["Key"]
                if key == prefix and not item["Size"]:
                    continue  # consoles mark folders by such empty objects
                found.append(_object(key, key[len(prefix) :], item["Size"], item.get("ETag"), item.get("LastModified")))
            for item in page.get("CommonPrefixes", ()):
                name = item["Prefix"][len(prefix) : -1]
                found.append(Found(name.encode(), st.S_IFDIR | DIRECTORY_MODE, 0))
            if not page.get("IsTruncated"):
                return found
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _look(self, path: str) -> Found:
        if path:
            listed = self._run(self._storage.listed(path))
            if listed is not None:
                return _object(path, "", listed.size, listed.etag, listed.modified)
        page = self._run(self._page(Prefix=path + "/" if path else "", MaxKeys=1))
        if path and not page.get("Contents"):
            raise FileNotFoundError(errno.ENOENT, "it is not there")
        return Found(b"", st.S_IFDIR | DIRECTORY_MODE, 0)

    def _read(self, path: str, start: int, end: int) -> bytes:
        return self._run(self._storage.get_range(path, start, end - start)).data if start < end else b""

    def _fetch(self, path: str, size: int) -> tuple[bytes, Found]:
        if not size:
            return b"", Found(b"", st.S_IFREG | FILE_MODE, 0)  # there is nothing in it that could be another version
        # An object is replaced at once, or not at all: what the answer says is true of the bytes it carries.
        got = self._run(self._storage.get_range(path, 0, size))
        if not got.etag:
            return got.data, self._look(path)
        return got.data, _object(path, "", got.total, got.etag, None)

    def _close(self) -> None:
        self._storage.interrupt()
        self._storage.close()


def _object(key: str, name: str, size: int, etag: str | None, modified: dt.datetime | None) -> Found:
    version = b"etag=" + etag.strip('"').encode() if etag else b""
    return Found(
        name.encode(),
        st.S_IFREG | FILE_MODE,
        size,
        time_ns(modified),
        version,
        dated=modified is not None,
        path=key if "/" in name else None,
    )
