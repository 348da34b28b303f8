"""Writing one object to S3: explicit parts, and a commit that knows what it did.

An object of one part or less is a single PutObject; a larger one is a multipart upload, invisible
until CompleteMultipartUpload.  All parts but the last have one size, which some servers demand.
Parts are numbered before they are sent and sent again under the same number, so no retry can
store bytes twice.  A part is sent only while the oldest unaccepted one is near, so that little is
lost when the upload has to go on from an earlier mark.

After a crash the upload goes on with the next part after those that ListParts shows as they were
sent; a part that was sent beyond the mark is replaced under its number.  The unfinished uploads of
others are never aborted.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import re
import threading
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rozenfmt.errors import ConflictError, StorageError, UsageError
from rozenfmt.storage.base import Leftover, Mark, ObjectInfo
from rozenfmt.storage.retry import acall
from rozenfmt.storage.s3_body import Body
from rozenfmt.storage.s3_errors import FORBIDDEN, NOT_FOUND, IntegrityError, code_of, is_transient
from rozenfmt.storage.upload import BaseUpload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rozenfmt.storage.base import UploadState
    from rozenfmt.storage.s3 import Listed, S3Storage

__all__ = ["S3Upload", "abort", "choose_part_size"]

MIN_PART: Final = 5 << 20
MAX_PART: Final = 5 << 30
MAX_PARTS: Final = 10_000
DEFAULT_PART: Final = 8 << 20
# With this, up to 40 GiB need less than 7,000 parts; little memory, little to send again.
SMALL_PART: Final = 6 << 20
SMALL_UP_TO: Final = 40 << 30
# Parts of a slow line are as small as they may be: less is lost with one that fails.
SLOW: Final = 1 << 20
_MIB: Final = 1 << 20

_MD5: Final = re.compile(r"[0-9a-f]{32}")
_MD5_OF_PARTS: Final = re.compile(r"[0-9a-f]{32}-[0-9]+")
_PRECONDITION_FAILED: Final = 412
# What servers answer to a request that they do not know.
_NOT_KNOWN: Final = frozenset({405, 501})
# What servers answer that insist on Content-MD5: for objects that are to be locked, for example.
_MD5_WANTED: Final = frozenset({"InvalidRequest", "InvalidDigest", "MissingContentMD5"})
# What servers answer that know the header If-None-Match for GET only.
_HEADER_REFUSED: Final = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest"})


def choose_part_size(part_size: int | None, expected_size: int | None, rate: float | None = None) -> int:
    """Bytes of each part but the last.

    Args:
        part_size: What the caller wants, 5 MiB to 5 GiB; None to choose.
        expected_size: Bytes that will be written, if known.
        rate: Bytes per second that earlier parts took, each; None if there were none.

    Raises:
        UsageError: ``part_size`` is out of range.
        StorageError: ``expected_size`` needs more than 10,000 parts of that size.

    """
    expected = expected_size or 0
    if part_size is None:
        needed = -(-expected // MAX_PARTS)
        usual = SMALL_PART if expected_size is not None and expected <= SMALL_UP_TO else DEFAULT_PART
        if rate is not None and rate < SLOW and usual == SMALL_PART:
            usual = MIN_PART
        part_size = max(usual, -(-needed // _MIB) * _MIB)
        if part_size > MAX_PART:
            msg = f"{expected} bytes exceed the largest object of S3; write several objects"
            raise StorageError(msg, fatal=True)
    elif not MIN_PART <= part_size <= MAX_PART:
        msg = f"part_size is {part_size} bytes, but S3 wants parts of 5 MiB to 5 GiB"
        raise UsageError(msg)
    if expected > part_size * MAX_PARTS:
        raise _too_many_parts(part_size, MAX_PARTS, None)
    return part_size


class S3Upload(BaseUpload):
    """One object on its way to S3.

    Args:
        storage: The bucket.
        name: Name of the object.
        key: Its key in the bucket.
        overwrite: Whether an existing object is replaced.
        part_size: Bytes of each part but the last.
        written: Bytes that are there already, if it is resumed.

    """

    max_parts: ClassVar[int] = MAX_PARTS

    def __init__(
        self, storage: S3Storage, name: str, key: str, *, overwrite: bool, part_size: int, written: int = 0
    ) -> None:
        super().__init__(name, written)
        self._storage = storage
        self._key = key
        self._overwrite = overwrite
        self._part_size = part_size
        self._buffer = _Buffer()
        self._upload_id: str | None = None
        self._began: dt.datetime | None = None
        self._slots = threading.BoundedSemaphore(storage.parallel)
        self._sealed = 0  # parts handed over so far
        self._digests: dict[int, bytes] = {}
        self._in_flight: dict[int, Any] = {}
        self._etags: dict[int, str] = {}
        self._listed: dict[int, tuple[str, int]] = {}  # parts that were there when it was resumed
        self._is_listed = True  # whether that could be found out

    @classmethod
    def resumed(cls, storage: S3Storage, key: str, state: UploadState) -> S3Upload:
        """An upload as its state says; whether the server still has it is for ``find_parts`` to see."""
        details = state.details
        upload = cls(
            storage, state.name, key, overwrite=False, part_size=details["part_size"], written=state.mark.offset
        )
        upload._upload_id = details["upload"]
        if details["began"]:
            upload._began = dt.datetime.fromtimestamp(details["began"], dt.UTC)
        for number, (digest, etag) in enumerate(details["parts"], 1):
            upload._sealed = number
            upload._digests[number] = digest
            upload._etags[number] = etag
        upload._buffer.add(state.mark.tail)
        return upload

    async def find_parts(self) -> bool:
        """Whether the server has every accepted part as it was sent.

        Where listing parts is not allowed or not known, they are believed; completing would fail without them.
        """
        storage = self._storage
        arguments = {"Bucket": storage.bucket, "Key": self._key, "UploadId": self._upload_id}
        found = self._listed
        while True:
            try:
                page = await storage.request("list_parts", **arguments)
            except Exception as error:
                code, status = code_of(error)
                if code == "NoSuchUpload" or status == NOT_FOUND:
                    return False
                if status == FORBIDDEN or status in _NOT_KNOWN:
                    self._is_listed = False
                    return True
                raise
            for item in page.get("Parts", ()):
                found[item["PartNumber"]] = (str(item["ETag"]).strip('"'), item["Size"])
            if not page.get("IsTruncated"):
                break
            arguments["PartNumberMarker"] = page["NextPartNumberMarker"]
        return all(found.get(number) == (etag.strip('"'), self._part_size) for number, etag in self._etags.items())

    def _write(self, data: bytes | memoryview) -> None:
        # Bytes cannot change any more, and are kept as they are; of anything else a copy is made.
        view = memoryview(data if isinstance(data, bytes) else bytes(data))
        while view:
            # The first full part waits for one more byte: without it, there is one request to make.
            if self._buffer.size == self._part_size:
                self._seal()
            room = self._part_size - self._buffer.size
            self._buffer.add(view[:room])
            view = view[room:]
            if self._upload_id is not None and self._buffer.size == self._part_size:
                self._seal()

    def _commit(self) -> ObjectInfo:
        if self._upload_id is None:
            work = self._put_whole(self._buffer.take())
        else:
            if self._buffer.size:
                self._seal()
            self._collect(finish=True)
            work = self._complete()
        self._storage.run(work, action="finish", name=self.name, permission="s3:PutObject and s3:ListBucket")
        return ObjectInfo(self.name, self.written)

    def _discard(self) -> None:
        interrupted = [future for future in self._in_flight.values() if future.cancel()]
        self._in_flight.clear()
        self._buffer = _Buffer()
        if self._upload_id is not None:
            self._storage.run(
                abort(self._storage, self._key, self._upload_id, check=bool(interrupted)),
                action=f"abort the upload {self._upload_id} of",
                name=self.name,
                permission="s3:AbortMultipartUpload",
            )
            self._upload_id = None

    @property
    def leftover(self) -> Leftover | None:
        """The multipart upload, once it was begun."""
        return None if self._upload_id is None else Leftover(self.name, self._upload_id)

    @property
    def unsent(self) -> int:
        """Bytes for a part that is not full yet."""
        return self._buffer.size

    def _mark(self) -> Mark | None:
        # What was not begun costs nothing to begin again.
        return None if self._upload_id is None else Mark(self.written, b"".join(self._buffer.body()))

    def _details(self, mark: Mark) -> dict[str, Any] | None:
        for number, future in list(self._in_flight.items()):
            # One that failed is told by the next write.
            if future.done() and not future.cancelled() and future.exception() is None:
                self._accept(number)
        parts = (mark.offset - len(mark.tail)) // self._part_size
        if any(number <= parts for number in self._in_flight):
            return None
        return {
            "upload": self._upload_id,
            "part_size": self._part_size,
            "began": None if self._began is None else self._began.timestamp(),
            "parts": [[self._digests[number], self._etags[number]] for number in range(1, parts + 1)],
        }

    @property
    def replaces_parts(self) -> bool:
        """Whether the server lets a part be sent again with other bytes; tried once for a storage."""
        work = find_out_replacing(self._storage, self._key)
        return bool(self._storage.run(work, action="begin", name=self.name, permission="s3:PutObject"))

    def can_go_on(self) -> bool:
        """Whether all parts that the server has are either known, or can be replaced."""
        known = set(range(1, self._sealed + 1))
        last = self._buffer.body()  # a part that is not full may have been the last one
        if self._listed.get(self._sealed + 1) == (last.md5().hex(), len(last)):
            known.add(self._sealed + 1)
        return (self._is_listed and self._listed.keys() <= known) or self.replaces_parts

    def _suspend(self) -> None:
        for future in self._in_flight.values():
            future.cancel()
        self._in_flight.clear()
        self._buffer = _Buffer()

    def _seal(self) -> None:
        """Hand the buffer over as the next part; waits while enough parts are in flight."""
        number = self._sealed + 1
        if number > self.max_parts:
            raise _too_many_parts(self._part_size, self.max_parts, self.name)
        if self._upload_id is None:
            self._upload_id = self._storage.run(
                self._begin(), action="begin", name=self.name, permission="s3:PutObject and s3:ListBucket"
            )
        body = self._buffer.take()
        if number in self._listed and self._is_there(number, body):
            return
        self._storage.wait_for_slot(self._slots)
        oldest = min(self._in_flight, default=number)
        if number - oldest >= self._storage.parallel:
            self._accept(oldest)
        self._collect()
        # The work must not refer to the upload: one that is dropped is to be collected.
        work = _put_part(self._storage, self._key, self._upload_id, number=number, body=body)
        future = self._storage.submit(work)
        slots = self._slots
        future.add_done_callback(lambda _done: slots.release())
        self._sealed = number
        self._in_flight[number] = future

    def _is_there(self, number: int, body: Body) -> bool:
        """Whether the server has a part from before, as it would be sent now."""
        digest = body.md5()
        if self._listed[number] != (digest.hex(), len(body)):
            return False
        self._sealed = number
        self._digests[number] = digest
        self._etags[number] = f'"{digest.hex()}"'
        return True

    def _collect(self, *, finish: bool = False) -> None:
        """Take in parts that were accepted; the first failure is raised."""
        for number, future in list(self._in_flight.items()):
            if finish or future.done():
                self._accept(number)

    def _accept(self, number: int) -> None:
        self._etags[number], self._digests[number] = self._storage.wait(
            self._in_flight[number], action=f"write part {number} of", name=self.name, permission="s3:PutObject"
        )
        del self._in_flight[number]

    async def _begin(self) -> str:
        # The race is decided at commit; this saves sending terabytes that cannot be committed.
        await self._refuse_existing()
        answer = await self._storage.request("create_multipart_upload", Bucket=self._storage.bucket, Key=self._key)
        self._began = _server_time(answer)
        return str(answer["UploadId"])

    async def _put_whole(self, body: Body) -> None:
        digest = body.md5()
        self._digests[1] = digest
        arguments = {
            "Bucket": self._storage.bucket,
            "Key": self._key,
            "ContentMD5": base64.b64encode(digest).decode(),
        }
        await self._publish("put_object", arguments, digest.hex(), body=body)

    async def _complete(self) -> None:
        digests = hashlib.md5(b"".join(digest for _, digest in sorted(self._digests.items())), usedforsecurity=False)
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(self._etags.items())]
        arguments = {
            "Bucket": self._storage.bucket,
            "Key": self._key,
            "UploadId": self._upload_id,
            "MultipartUpload": {"Parts": parts},
        }
        await self._publish("complete_multipart_upload", arguments, f"{digests.hexdigest()}-{len(parts)}")

    async def _publish(
        self, method: str, arguments: dict[str, Any], expected: str, *, body: Body | None = None
    ) -> None:
        """The request that makes the object visible, and whatever it takes to know that it did.

        A lost answer makes the second attempt fail because of the first one: with NoSuchUpload, or
        with the precondition.  So the object itself is asked for before a failure is believed.
        """
        storage = self._storage
        if not self._overwrite:
            # Servers that ignore If-None-Match say nothing; at the others one request decides.
            if storage.conditional is not True:
                await self._refuse_existing()
            if storage.conditional is not False:
                arguments["IfNoneMatch"] = "*"
        attempts, torn = 0, False

        async def once() -> str:
            nonlocal attempts, torn
            attempts += 1
            try:
                return await self._send(method, arguments, body)
            except Exception as error:
                if isinstance(error, IntegrityError):
                    # It was accepted, so what stands there now is ours, and is to be replaced.
                    torn = True
                    arguments.pop("IfNoneMatch", None)
                elif await self._done_before(error, expected, first=attempts == 1):
                    return ""
                raise

        try:
            etag = await acall(storage.retry, once, is_transient)
        except Exception as error:
            if not is_transient(error) or not await self._arrived(expected):
                if torn:
                    await storage.request("delete_object", Bucket=storage.bucket, Key=self._key)
                raise
            etag = ""
        await self._verify(expected, etag)

    async def _done_before(self, error: Exception, expected: str, *, first: bool) -> bool:
        """Whether a refusal only means that an earlier attempt had succeeded.

        Raises:
            ConflictError: It means that the object of somebody else stands there.

        """
        code, status = code_of(error)
        if status == _PRECONDITION_FAILED or code == "PreconditionFailed":
            self._storage.conditional = True
            # The HTTP client repeats a PUT by itself when a connection that was kept turns out to be
            # broken, so even the first refusal may be due to ourselves.
            if await self._arrived(expected, surely=first):
                return True
            raise self._conflict() from None
        if code == "NoSuchUpload":
            if await self._arrived(expected):
                return True
            await self._refuse_existing()
        return False

    async def _send(self, method: str, arguments: dict[str, Any], body: Body | None) -> str:
        """One attempt; once more without the condition if the server refuses the header itself."""
        storage = self._storage

        if body is not None:
            arguments["Body"] = body
        try:
            answer = await storage.send(method, arguments)
        except Exception as error:
            refused = "IfNoneMatch" in arguments and code_of(error)[0] in _HEADER_REFUSED
            if not refused or storage.conditional is True:
                raise
            del arguments["IfNoneMatch"]
            answer = await storage.send(method, arguments)
            storage.conditional = False
        etag = _etag(answer)
        if body is not None:
            _compare_md5(answer, self._digests[1], "the object")
        return etag

    async def _verify(self, expected: str, etag: str) -> None:
        """Compare what a listing shows with what was sent."""
        storage = self._storage

        async def once() -> Listed:
            found = await storage.listed(self._key)
            if found is None:
                # Compatible servers may list late.
                msg = "the object was accepted, but no listing shows it"
                raise IntegrityError(msg)
            return found

        found = await acall(storage.retry, once, is_transient)
        ours = found.etag in {expected, etag}
        # Where the server makes its ETags of MD5, one of the same form tells that it is not ours.
        form = _MD5 if self._upload_id is None else _MD5_OF_PARTS
        faithful = etag == expected or self._is_md5_server()
        others = not ours and faithful and form.fullmatch(found.etag) is not None
        where = storage.redactor.text(storage.where(self.name))
        if others or (found.size != self.written and not ours):
            msg = f"{where} was written by somebody else at the same time; find out who, or choose another name"
            raise ConflictError(msg)
        if found.size != self.written:
            await storage.request("delete_object", Bucket=storage.bucket, Key=self._key)
            msg = (
                f"{where} had {found.size} bytes where {self.written} were written, and was deleted; "
                "write it again, and do not trust this server before the cause is found"
            )
            raise StorageError(msg, object=self.name)

    async def _arrived(self, expected: str, *, surely: bool = False) -> bool:
        """Whether the object under our key is what was sent, although no answer said so.

        With ``surely``, only if its ETag says that it has the same contents.
        """
        found = await self._storage.listed(self._key)
        if found is None or found.size != self.written:
            return False
        if found.etag == expected or surely:
            return found.etag == expected
        if self._is_md5_server() and _MD5_OF_PARTS.fullmatch(found.etag):
            return False
        # The ETag says nothing (KMS; rclone lists the MD5 of the whole, which nobody computed).  An
        # object of the right size that appeared after this upload began, by the clock of the
        # server, is taken for ours.
        return None not in (self._began, found.modified) and found.modified >= self._began  # type: ignore[operator]

    def _is_md5_server(self) -> bool:
        """Whether all parts came back with their MD5 as ETag, so that the whole one means something."""
        return bool(self._etags) and all(
            etag.strip('"') == self._digests[number].hex() for number, etag in self._etags.items()
        )

    async def _refuse_existing(self) -> None:
        if not self._overwrite and await self._storage.listed(self._key) is not None:
            raise self._conflict()

    def _conflict(self) -> ConflictError:
        where = self._storage.redactor.text(self._storage.where(self.name))
        return ConflictError(f"{where} exists; choose another name, or ask for overwriting")


async def find_out_replacing(storage: S3Storage, key: str) -> bool:
    """Whether a part that is sent again with other bytes replaces the first one; tried with two bytes, once.

    Some servers pass parts on as they come, and cannot take one back.
    """
    if storage.replaces_parts is None:
        upload = {"Bucket": storage.bucket, "Key": key}
        upload["UploadId"] = (await storage.request("create_multipart_upload", **upload))["UploadId"]
        try:
            await storage.request("upload_part", **upload, PartNumber=1, Body=b"1")
            await storage.send("upload_part", {**upload, "PartNumber": 1, "Body": b"2"})
        except Exception:  # noqa: BLE001 - whatever the reason: not to rely on it is always right
            storage.replaces_parts = False
        else:
            storage.replaces_parts = True
        await _abandon(storage, key, upload["UploadId"])
    return storage.replaces_parts


async def _abandon(storage: S3Storage, key: str, upload_id: str) -> None:
    """Abort an upload of a byte; where that is not allowed or not known, the byte is not worth an error."""
    try:
        await abort(storage, key, upload_id, check=False)
    except Exception as error:
        if code_of(error)[1] not in {FORBIDDEN, *_NOT_KNOWN}:
            raise


async def abort(storage: S3Storage, key: str, upload_id: str, *, check: bool) -> None:
    """Abort an upload; nothing happens if it is gone.

    Args:
        storage: The bucket.
        key: Key of the object.
        upload_id: The upload.
        check: Make sure that no part arrived after that.

    """
    arguments = {"Bucket": storage.bucket, "Key": key, "UploadId": upload_id}

    async def once() -> None:
        with contextlib.suppress(_Gone):
            await _gone(storage, "abort_multipart_upload", arguments)
            if check:
                await _gone(storage, "list_parts", arguments)
                msg = "parts are left after the upload was aborted"
                raise IntegrityError(msg)

    await acall(storage.retry, once, is_transient)


class _Buffer:
    """Bytes for the next part: pieces that were given, never put together."""

    def __init__(self) -> None:
        self._pieces: list[bytes | memoryview] = []
        self.size = 0

    def add(self, piece: bytes | memoryview) -> None:
        """Take a piece, which must not change any more."""
        self._pieces.append(piece)
        self.size += len(piece)

    def body(self) -> Body:
        """What is in it."""
        return Body(self._pieces)

    def take(self) -> Body:
        """What is in it; it is empty afterwards."""
        body = self.body()
        self._pieces.clear()
        self.size = 0
        return body


class _Gone(Exception):  # noqa: N818 - not an error
    """There is no such upload (any more)."""


async def _gone(storage: S3Storage, method: str, arguments: Mapping[str, Any]) -> None:
    try:
        await storage.send(method, arguments)
    except Exception as error:
        code, status = code_of(error)
        # Listing parts is a permission of its own, and not known everywhere; then the abort has to be believed.
        denied = method == "list_parts" and (status == FORBIDDEN or status in _NOT_KNOWN)
        if denied or code == "NoSuchUpload" or status == NOT_FOUND:
            raise _Gone from None
        raise


async def _put_part(storage: S3Storage, key: str, upload_id: str, *, number: int, body: Body) -> tuple[str, bytes]:
    """Send one part until it is accepted; returns its ETag and MD5."""
    # In a thread: it takes longer than all else that is done with these bytes.
    digest = await asyncio.to_thread(body.md5)

    arguments = {"Bucket": storage.bucket, "Key": key, "UploadId": upload_id, "PartNumber": number}
    torn = False

    async def once() -> str:
        nonlocal torn
        started = time.monotonic()
        checked = {"ContentMD5": base64.b64encode(digest).decode()}
        try:
            more = {} if storage.answers_md5 else checked
            answer = await storage.send("upload_part", {**arguments, **more, "Body": body})
        except Exception as error:
            if not storage.answers_md5 or code_of(error)[0] not in _MD5_WANTED:
                raise
            storage.answers_md5 = False
            answer = await storage.send("upload_part", {**arguments, **checked, "Body": body})
        storage.saw_md5(_etag(answer) == digest.hex())
        torn = True
        _compare_md5(answer, digest, f"part {number}")
        storage.part_took(len(body), time.monotonic() - started)
        return str(answer["ETag"])

    try:
        return await acall(storage.retry, once, is_transient), digest
    except Exception as error:
        why = _refused_part(error, number, torn=torn)
        if why is None:
            raise
        where = storage.redactor.text(f"s3://{storage.bucket}/{key}")
        msg = f"cannot write part {number} of {where}: {why}"
        raise StorageError(msg, fatal=not torn) from storage.redactor.cause(error)


def _refused_part(error: Exception, number: int, *, torn: bool) -> str | None:
    """What a refusal means that says something else; ``torn`` if the part had arrived otherwise than it was sent."""
    code, status = code_of(error)
    if torn and status in _NOT_KNOWN:
        return (
            "it arrived differently than it was sent, and this server cannot replace a part; run it again, which "
            "begins this object again, and find out what changes bytes on the way"
        )
    # Some servers take fewer parts than Amazon.  Nothing else is different about this one.
    if number > 1 and code == "InvalidArgument":
        return (
            f"the server refuses it, and seems to take {number - 1} parts of an upload at most; "
            "pass a larger part_size, or for a vault a smaller data_size"
        )
    return None


def _compare_md5(answer: Mapping[str, Any], digest: bytes, what: str) -> None:
    etag = _etag(answer)
    encrypted = "kms" in str(answer.get("ServerSideEncryption", "")) or "SSECustomerAlgorithm" in answer
    if not encrypted and _MD5.fullmatch(etag) and etag != digest.hex():
        msg = f"the server stored {what} with another MD5 than was sent"
        raise IntegrityError(msg)


def _etag(answer: Mapping[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"')


def _server_time(answer: Mapping[str, Any]) -> dt.datetime | None:
    """The Date header: only the server's clock can be compared with its listings."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not date:
        return None
    try:
        return parsedate_to_datetime(date)
    except ValueError:
        return None


def _too_many_parts(part_size: int, parts: int, name: str | None) -> StorageError:
    msg = (
        f"an upload has {parts} parts at most, which at {part_size} bytes each is too little here; "
        f"pass a larger part_size (up to 5 GiB), or expected_size"
    )
    return StorageError(msg, object=name, fatal=True)
