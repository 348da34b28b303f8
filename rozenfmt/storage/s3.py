"""Objects in a bucket of S3 or of a compatible server.

Requests go through ``S3FileSystem.call_s3``, that is through the client, the credentials and the
options of s3fs, but never through its file objects, its caches or its retries.  They run on the
event loop that fsspec keeps in a thread of its own, so calling from a running event loop works
(and blocks it, as any other call that is not awaited).

Sizes of own uploads are checked with ListObjectsV2: a host that only backs up needs no permission
to read, and S3 counts HEAD as a read.
"""

from __future__ import annotations

import asyncio
import os
import re
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from rozenfmt.errors import RozenError, StorageError, UsageError
from rozenfmt.storage.base import Leftover, ObjectInfo
from rozenfmt.storage.redact import Redactor, server_of
from rozenfmt.storage.retry import Retries, RetryPolicy, acall
from rozenfmt.storage.s3_body import Body, read_body, sent
from rozenfmt.storage.s3_errors import FORBIDDEN, IntegrityError, code_of, describe, explain, is_throttle, is_transient
from rozenfmt.storage.throttle import Limiter
from rozenfmt.storage.upload import check_name, check_range

if TYPE_CHECKING:
    import datetime as dt
    import threading
    from collections.abc import Awaitable, Coroutine, Iterator

    from rozenfmt.storage.bandwidth import Bandwidth, Pace
    from rozenfmt.storage.base import UploadState
    from rozenfmt.storage.network import Failure
    from rozenfmt.storage.s3_upload import S3Upload

__all__ = ["Listed", "S3Storage"]

T = TypeVar("T")

_STREAM_PIECE: Final = 8 << 20
_STREAM_PIECE_SMALLEST: Final = 256 << 10
_STREAM_SECONDS: Final = 1
_STREAM_AHEAD: Final = 2
_KEY_MAX: Final = 1024
_READ_TIMEOUT: Final = 60
_CONNECT_TIMEOUT: Final = 20
_LISTEN: Final = 0.25
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_NOT_SATISFIABLE: Final = 416
_NO_SUFFIX_RANGES: Final = frozenset({400, 501})
# Only Amazon is known to honour If-None-Match in every region.
_AMAZON: Final = re.compile(r"https?://(?:[^/@]+\.)?amazonaws\.com(?:\.cn)?(?::\d+)?(?:/.*)?", re.IGNORECASE)
_ACTIONS: Final = {
    "abort_multipart_upload": "abort the upload of",
    "complete_multipart_upload": "finish",
    "create_multipart_upload": "begin",
    "delete_object": "delete",
    "get_object": "read",
    "head_object": "read the size of",
    "list_multipart_uploads": "list the unfinished uploads in",
    "list_objects_v2": "list",
    "list_parts": "list the parts of",
    "put_object": "write",
    "upload_part": "write part {PartNumber} of",
}

# What the task at hand last asked of the server.
_asked: ContextVar[tuple[str, Mapping[str, Any]]] = ContextVar("asked")


class Listed(NamedTuple):
    """An object as ListObjectsV2 shows it; the ETag is without quotes and may be empty."""

    size: int
    etag: str
    modified: dt.datetime | None


class Ranged(NamedTuple):
    """The answer to a ranged GET: where the bytes begin, the object's size and ETag, the bytes."""

    start: int
    total: int
    etag: str
    data: bytes


class S3Storage:
    """A bucket, or a folder of it.

    Not usable after a fork: build a new one in the child, or use threads.

    Args:
        url: ``s3://bucket`` or ``s3://bucket/folder``.
        options: Options of ``s3fs.S3FileSystem``.
        retry: How long a request is tried.
        parallel: Parts of one upload in flight, at most; each is held in memory until accepted.
        bandwidth: Limits of what goes up and comes down.

    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        *,
        retry: RetryPolicy | None = None,
        parallel: int = 3,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        if parallel < 1:
            msg = "at least one part must be in flight"
            raise UsageError(msg)
        self.redactor = Redactor(url, options)
        self.retry = Retries(retry, self._describe)
        self.server = server_of(options)
        self.parallel = parallel
        self.limiter = Limiter()
        self._sending: Pace | None = None if bandwidth is None else bandwidth.sending
        self._receiving: Pace | None = None if bandwidth is None else bandwidth.receiving
        self._running: weakref.WeakSet[Any] = weakref.WeakSet()
        self._pid = os.getpid()
        self._stall: float | None = _READ_TIMEOUT
        self._fs = self._connect(options)
        self.bucket, self.folder = self._split(url)
        self.url = f"s3://{self.bucket}/{self.folder}".rstrip("/")
        # Whether If-None-Match is known to be honoured: at AWS from the first request on; elsewhere None
        # (unknown) until the server refuses something because of it, or False once it refuses the header.
        self.conditional: bool | None = None
        self._endpoint: str | None = None
        self._part_rate: float | None = None  # bytes per second of one connection, as parts showed
        # Whether parts are answered with the MD5 of what arrived: then this is compared, and the header that would
        # have the server compare it is left out, since hashing twice is the half of what some servers do for a part.
        # Only without TLS, in one's own network: elsewhere the line is slower.
        self.answers_md5: bool | None = None
        # Whether a part that is sent again with other bytes replaces the first one; None until it was tried.
        self.replaces_parts: bool | None = None

    def size(self, name: str) -> int:
        """Size of an object in bytes; ``StorageError`` if there is none."""
        key = self.key(name)
        return self.run(self._size(key, name), action="read the size of", name=name, permission="s3:GetObject")

    def read(self, name: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``; ``StorageError`` if there are fewer."""
        check_range(start, length)
        key = self.key(name)
        if length == 0:
            self._require_size(name, start, self.size(name))
            return b""
        got = self._get(key, name, start, length)
        if len(got.data) < length:
            self._require_size(name, start + length, got.total)
        return got.data

    def read_suffix(self, name: str, length: int) -> tuple[int, bytes]:
        """The object's size and its last ``length`` bytes, by one request where the server can."""
        check_range(0, length)
        key = self.key(name)
        if length:
            got = self.run(self._get_suffix(key, length), action="read", name=name, permission="s3:GetObject")
            if got is not None:
                return got.total, got.data
        # Empty objects have no range that could be asked for, and some servers know no suffixes.
        size = self.size(name)
        length = min(length, size)
        return size, self.read(name, size - length, length) if length else b""

    def stream(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end`` in pieces of 8 MiB, with two requests in flight."""
        check_range(start, None if end is None else end - start)
        return self._stream(self.key(name), name, start, end)

    def create(
        self,
        name: str,
        *,
        overwrite: bool = False,
        part_size: int | None = None,
        expected_size: int | None = None,
    ) -> S3Upload:
        """Begin an object; nothing is sent before the first part is full.

        Args:
            name: Name of the object.
            overwrite: Whether an existing object is replaced.
            part_size: Bytes of each part but the last, 5 MiB to 5 GiB; None chooses: 8 MiB; 6 MiB where up to
                40 GiB are expected, and 5 MiB if parts went slowly before; more where ``expected_size``
                needs more for 10,000 parts.
            expected_size: Bytes that will be written, as far as known.

        Raises:
            UsageError: ``part_size`` is out of range.

        """
        from rozenfmt.storage.s3_upload import S3Upload, choose_part_size

        self.check_process()
        size = choose_part_size(part_size, expected_size, self._part_rate)
        return S3Upload(self, name, self.key(name), overwrite=overwrite, part_size=size)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose name starts with ``prefix``, in the order of the server, which is by name."""
        token: dict[str, str] = {}
        while True:
            page = self.run(
                self.request("list_objects_v2", Bucket=self.bucket, Prefix=self.folder + prefix, **token),
                action="list",
                name=None,
                permission="s3:ListBucket",
            )
            for item in page.get("Contents", ()):
                name = item["Key"][len(self.folder) :]
                # Consoles mark folders by empty objects whose key ends with a slash.
                if name and not name.endswith("/"):
                    yield ObjectInfo(name, item["Size"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, name: str) -> None:
        """Remove an object; ``StorageError`` if there is none."""
        self.run(self._delete(self.key(name), name), action="delete", name=name, permission="s3:DeleteObject")

    def resume(self, state: UploadState) -> S3Upload | None:
        """Go on with an unfinished upload, of which every part up to the mark must be there as it was sent."""
        from rozenfmt.storage.s3_upload import S3Upload

        upload = S3Upload.resumed(self, self.key(state.name), state)
        work = upload.find_parts()
        found = self.run(work, action="look at the parts of", name=state.name, permission="s3:ListMultipartUploadParts")
        return upload if found else None

    def leftovers(self, prefix: str) -> Iterator[Leftover]:
        """Unfinished uploads of objects whose name starts with ``prefix``, by ListMultipartUploads."""
        token: dict[str, str] = {}
        while True:
            page = self.run(
                self._unfinished(prefix, token),
                action="list the unfinished uploads in",
                name=None,
                permission="s3:ListBucketMultipartUploads",
            )
            for item in page.get("Uploads", ()):
                begun = item.get("Initiated")
                when = 0 if begun is None else int(begun.timestamp() * 1e9)
                if item["Key"].startswith(self.folder + prefix):
                    yield Leftover(item["Key"][len(self.folder) :], item["UploadId"], when)
            if not page.get("IsTruncated"):
                return
            token = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}

    def remove_leftover(self, leftover: Leftover) -> None:
        """Abort an unfinished upload; other uploads are left alone."""
        from rozenfmt.storage.s3_upload import abort

        self.run(
            abort(self, self.key(leftover.name), leftover.upload, check=False),
            action=f"abort the upload {leftover.upload} of",
            name=leftover.name,
            permission="s3:AbortMultipartUpload",
        )

    def close(self) -> None:
        """Close the connections; they are opened again when they are needed."""
        if self._pid == os.getpid():
            self.run(self._close(), action="close", name=None, permission="")

    # The rest serves this module, s3_upload, and sources that are buckets.

    def key(self, name: str) -> str:
        """Key of an object in the bucket."""
        key = self.folder + check_name(name)
        try:
            encoded = key.encode()
        except UnicodeEncodeError:
            msg = f"{name!r} is not valid UTF-8, as names in S3 must be; choose another name"
            raise UsageError(msg) from None
        if len(encoded) > _KEY_MAX:
            msg = f"the key of {name!r} has {len(encoded)} bytes; S3 allows {_KEY_MAX}: choose a shorter name"
            raise UsageError(msg)
        return key

    def where(self, name: str | None) -> str:
        """How messages call an object, or the folder."""
        return f"{self.url}/{name}" if name is not None else self.url

    def check_process(self) -> None:
        """Refuse to run in a child: the thread of the event loop did not survive the fork."""
        if os.getpid() != self._pid:
            msg = (
                f"{self.url} was opened before a fork and cannot be used in the child process; "
                "open the storage again there, or use threads"
            )
            raise UsageError(msg)

    def submit(self, work: Coroutine[Any, Any, T]) -> Any:
        """Start work on the loop's thread; returns a ``concurrent.futures.Future``."""
        try:
            self.check_process()
            self._check_thread()
        except UsageError:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, self._fs.loop)

    def run(self, work: Coroutine[Any, Any, T], *, action: str, name: str | None, permission: str) -> T:
        """``submit`` and ``wait``."""
        future = self.submit(work)
        self._running.add(future)
        result: T = self.wait(future, action=action, name=name, permission=permission)
        return result

    def wait(self, future: Any, *, action: str, name: str | None, permission: str) -> Any:
        """Wait for work, and turn what it raises into an error that says what to do.

        An interrupt cancels the request in flight, and leaves seconds for those that clean up.
        """
        from concurrent.futures import CancelledError

        try:
            self._listen(future)
            return future.result()
        except CancelledError:
            msg = f"cannot {action} {self.redactor.text(self.where(name))}: interrupted"
            raise StorageError(msg, object=name) from None
        except RozenError:
            raise
        except Exception as error:  # noqa: BLE001 - botocore, aiohttp and s3fs have no common root
            raise self.explained(error, action=action, name=name, permission=permission) from (
                self.redactor.cause(error)
            )
        except BaseException:
            self.retry.interrupt()
            raise
        finally:
            future.cancel()

    def wait_for_slot(self, slots: threading.Semaphore) -> None:
        """Wait until fewer parts are in flight; what is tried again meanwhile is told."""
        try:
            while not slots.acquire(timeout=_LISTEN):
                self.retry.deliver()
        except BaseException:
            self.retry.interrupt()
            raise

    def interrupt(self) -> None:
        """The user wants to stop: end what other threads wait for."""
        self.retry.interrupt()
        for future in list(self._running):
            future.cancel()

    def _listen(self, future: Any) -> None:
        """Wait for work, and hand over what is told of retries meanwhile."""
        from concurrent.futures import wait

        while self.retry.listened and not future.done():
            wait([future], timeout=_LISTEN)
            self.retry.deliver()

    def explained(self, error: Exception, *, action: str, name: str | None, permission: str) -> StorageError:
        """The error for the user."""
        return explain(
            error, action=action, where=self.redactor.text(self.where(name)), permission=permission, name=name
        )

    async def request(self, method: str, **arguments: Any) -> Any:
        """One request of the S3 API, tried again while its failures are transient."""

        async def once() -> Any:
            return await self.send(method, arguments)

        return await acall(self.retry, once, is_transient)

    async def send(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """One attempt.  The only place where requests leave; tests put their faults here."""
        # Without the body: timers keep the context of a request for a while, and with it all that is in here.
        _asked.set((method, {key: value for key, value in arguments.items() if key != "Body"}))
        async with self.limiter:
            try:
                await self._find_endpoint()
                answer = await self._send(method, dict(arguments))
            except Exception as error:
                if is_throttle(error):
                    self.limiter.throttled()
                raise
            self.limiter.succeeded()
            return answer

    async def _send(self, method: str, arguments: dict[str, Any]) -> Any:
        call = self._fs._call_s3  # noqa: SLF001 - the awaitable of call_s3
        body = arguments.pop("Body", None)
        if body is None:
            return await call(method, **arguments)
        if not body:
            # Not a file: with those botocore asks the server to continue, which some do not answer for nothing.
            return await call(method, **arguments, Body=b"")

        def request(body: Any) -> Awaitable[object]:
            sending: Awaitable[object] = call(method, **arguments, Body=body)
            return sending

        body = body if isinstance(body, Body) else Body([body])
        return await sent(request, body, pace=self._sending, stall=self._stall, alive=self.retry.alive)

    async def _find_endpoint(self) -> None:
        """Where requests really go: the environment and profiles say it as well as options."""
        if self._endpoint is None:
            client = await self._fs.set_session()
            self._endpoint = str(client.meta.endpoint_url)
            if _AMAZON.fullmatch(self._endpoint):
                self.conditional = True if self.conditional is None else self.conditional
                self.replaces_parts = True

    def _describe(self, error: Exception) -> Failure:
        method, arguments = _asked.get(("", {}))
        action = _ACTIONS.get(method, method.replace("_", " ") or "reach").format_map(arguments)
        key = arguments.get("Key") or arguments.get("Prefix") or ""
        return describe(error, action=action, where=self.redactor.text(f"s3://{self.bucket}/{key}"))

    async def get_range(self, key: str, start: int, length: int) -> Ranged:
        """The bytes of a range; fewer only if the object ends before (then ``total`` says where)."""

        async def once() -> Ranged:
            last = start + length - 1
            try:
                answer = await self.send(
                    "get_object", {"Bucket": self.bucket, "Key": key, "Range": f"bytes={start}-{last}"}
                )
            except Exception as error:
                if code_of(error)[1] != _NOT_SATISFIABLE:
                    raise
                total = int((await self.request("head_object", Bucket=self.bucket, Key=key))["ContentLength"])
                return Ranged(start, total, "", b"")
            return await self._body(answer, start, length)

        return await acall(self.retry, once, is_transient)

    def saw_md5(self, found: bool) -> None:  # noqa: FBT001 - the one thing that was seen
        """Whether a part was answered with the MD5 of what arrived; once it was not, it is never counted on."""
        if not found:
            self.answers_md5 = False
        elif self.answers_md5 is None and (self._endpoint or "").startswith("http:"):
            self.answers_md5 = True

    def part_took(self, size: int, seconds: float) -> None:
        """A part was accepted after so many seconds: the next uploads choose their parts by it."""
        rate = size / max(seconds, 1e-6)
        self._part_rate = rate if self._part_rate is None else 0.8 * self._part_rate + 0.2 * rate

    async def listed(self, key: str) -> Listed | None:
        """What a listing says about one key, or None if it is not there."""
        # The key itself sorts before all others that begin with it.
        page = await self.request("list_objects_v2", Bucket=self.bucket, Prefix=key, MaxKeys=1)
        for item in page.get("Contents", ()):
            if item["Key"] == key:
                return Listed(item["Size"], str(item.get("ETag", "")).strip('"'), item.get("LastModified"))
        return None

    def _connect(self, options: Mapping[str, Any] | None) -> Any:
        try:
            import s3fs  # type: ignore[import-untyped]
        except ImportError as error:
            msg = "S3 needs the package s3fs, which is not installed: pip install 'rozenfmt[s3]'"
            raise StorageError(msg, fatal=True) from error

        options = dict(options or {})
        config = {
            "max_pool_connections": max(10, 2 * self.parallel),
            "connect_timeout": _CONNECT_TIMEOUT,
            "read_timeout": _READ_TIMEOUT,
            # Checksum trailers end up inside the objects of some compatible servers; parts carry
            # Content-MD5 instead, which all of them know.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            # This library's own attempts are not to be multiplied.
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            **options.pop("config_kwargs", {}),
        }
        # Bodies are bound by Content-MD5, which is signed.  Where there is no TLS botocore would compute
        # their SHA-256 as well, on the event loop, where everything else then waits.
        config["s3"] = {"payload_signing_enabled": False, **(config.get("s3") or {})}
        self._stall = config["read_timeout"] or None
        # A cached listing or a shared instance would show what was there before.
        options.update(use_listings_cache=False, skip_instance_cache=True, asynchronous=False)
        try:
            fs = s3fs.S3FileSystem(config_kwargs=config, **options)
        except (KeyError, TypeError, ValueError) as error:
            msg = self.redactor.text(f"storage_options are not understood: {error}")
            raise UsageError(msg) from self.redactor.cause(error)
        fs.retries = 1
        return fs

    def _split(self, url: str) -> tuple[str, str]:
        path = url.partition("://")[2].strip("/")
        if path.startswith("arn:"):
            bucket, folder, _version = self._fs.split_path(path)
        else:
            bucket, _, folder = path.partition("/")
        if not bucket:
            msg = f"{url!r} names no bucket; write s3://BUCKET/FOLDER"
            raise UsageError(msg)
        return bucket, folder.rstrip("/") + "/" if folder else ""

    def _check_thread(self) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return
        if running is self._fs.loop:
            msg = "storage cannot be used on fsspec's own event loop, which would wait for itself"
            raise UsageError(msg)

    def _get(self, key: str, name: str, start: int, length: int) -> Ranged:
        return self.run(self.get_range(key, start, length), action="read", name=name, permission="s3:GetObject")

    def _require_size(self, name: str, wanted: int, size: int) -> None:
        if wanted > size:
            msg = f"{self.where(name)} ends at byte {size}, before byte {wanted} that was asked for"
            raise StorageError(msg, object=name, fatal=True)

    def _stream(self, key: str, name: str, start: int, end: int | None) -> Iterator[bytes]:
        if end is None:
            size = self.size(name)
            end = max(start, size)
            self._require_size(name, end, size)
        elif start == end:
            self._require_size(name, end, self.size(name))
        etag = ""
        ahead: list[tuple[int, Any]] = []
        asked = start
        try:
            while ahead or asked < end:
                while asked < end and len(ahead) < _STREAM_AHEAD:
                    length = min(self._stream_piece(), end - asked)
                    ahead.append((length, self.submit(self.get_range(key, asked, length))))
                    asked += length
                length, future = ahead.pop(0)
                got = self.wait(future, action="read", name=name, permission="s3:GetObject")
                if len(got.data) < length:
                    self._require_size(name, got.start + length, got.total)
                if etag and got.etag != etag:
                    msg = f"{self.where(name)} was replaced while it was read; read it again from the start"
                    raise StorageError(msg, object=name)
                etag = got.etag
                yield got.data
        finally:
            for _length, future in ahead:
                future.cancel()

    async def _unfinished(self, prefix: str, token: Mapping[str, str]) -> Any:
        try:
            return await self.request(
                "list_multipart_uploads", Bucket=self.bucket, Prefix=self.folder + prefix, **token
            )
        except Exception as error:
            # What rclone's server answers for a bucket in which no upload was begun since it was started.
            if code_of(error)[0] == "NoSuchUpload":
                return {}
            raise

    async def _size(self, key: str, name: str) -> int:
        try:
            answer = await self.request("head_object", Bucket=self.bucket, Key=key)
        except Exception as error:
            if code_of(error)[1] != FORBIDDEN:
                raise
            # Credentials that may only write and list are a recommended set-up.
            found = await self.listed(key)
            if found is None:
                msg = f"there is no object {self.where(name)}; check the name"
                raise StorageError(msg, object=name, fatal=True) from None
            return found.size
        return int(answer["ContentLength"])

    async def _get_suffix(self, key: str, length: int) -> Ranged | None:
        """The last bytes, or None if the server cannot say."""

        async def once() -> Ranged | None:
            try:
                answer = await self.send("get_object", {"Bucket": self.bucket, "Key": key, "Range": f"bytes=-{length}"})
            except Exception as error:
                status = code_of(error)[1]
                if status == _NOT_SATISFIABLE or status in _NO_SUFFIX_RANGES:
                    return None
                raise
            announced = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
            if announced is None:
                # The whole object, since the server ignores ranges, or since it is not longer.
                total = int(answer["ContentLength"])
                start, wanted = 0, total
            else:
                start, total = int(announced[1]), int(announced[3])
                wanted = min(length, total)
            if wanted > length or start + wanted != total:
                answer["Body"].close()
                return None
            return await self._body(answer, start, wanted)

        return await acall(self.retry, once, is_transient)

    async def _body(self, answer: Mapping[str, Any], start: int, length: int) -> Ranged:
        """Read the answer to a ranged GET, after making sure that it is the range asked for."""
        body = answer["Body"]
        announced = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
        size = int(answer["ContentLength"])
        if announced is None:
            begins, total = 0, size
        else:
            begins, total = int(announced[1]), int(announced[3])
        if begins != start or size > length:
            # Not read: it may be a terabyte.
            body.close()
            msg = "the server ignores ranges, without which no archive can be read; use another server or copy it"
            raise StorageError(msg, fatal=True)
        async with body as opened:
            if self._receiving is None:
                data = await opened.read()
            else:
                data = await read_body(opened.read, self._receiving, self.retry.alive)
        if len(data) != size or start + len(data) < min(start + length, total):
            msg = f"{len(data)} bytes arrived where {size} were announced"
            raise IntegrityError(msg)
        return Ranged(begins, total, str(answer.get("ETag", "")), data)

    def _stream_piece(self) -> int:
        """Bytes of one request of a stream; fewer where they come slowly, since a failure loses all of them."""
        rate = None if self._receiving is None else self._receiving.rate
        if rate is None:
            return _STREAM_PIECE
        return max(_STREAM_PIECE_SMALLEST, min(_STREAM_PIECE, int(rate * _STREAM_SECONDS)))

    async def _delete(self, key: str, name: str) -> None:
        # The request succeeds for what is not there, too.
        if await self.listed(key) is None:
            msg = f"there is no object {self.where(name)} to delete; check the name"
            raise StorageError(msg, object=name, fatal=True)
        await self.request("delete_object", Bucket=self.bucket, Key=key)

    async def _close(self) -> None:
        client, self._fs._s3 = self._fs._s3, None  # noqa: SLF001 - s3fs closes at collection only
        if client is not None:
            await client.__aexit__(None, None, None)
