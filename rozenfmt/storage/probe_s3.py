"""What a bucket of S3, or of a server that speaks it, can be found to do.

Requests are made one by one and not through the library's uploads, since an upload works around what
a server lacks; only what measures and compares bytes goes the library's own way.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import os
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.errors import RozenError, StorageError
from rozenfmt.storage.abilities import AbilityResult, Findings
from rozenfmt.storage.lifecycle import COLD, abort_days, warnings_of
from rozenfmt.storage.probe import SMALL, CommonProbe, Plan, Question, timed, words, work_and_tidy
from rozenfmt.storage.s3_errors import FORBIDDEN, NOT_FOUND, code_of

if TYPE_CHECKING:
    from rozenfmt.storage.s3 import S3Storage

__all__ = ["S3Probe"]

YES, NO, IGNORED, NOT_ALLOWED, UNKNOWN = AbilityResult

_PART: Final = 5 << 20
_PARALLEL: Final = 4
_RETAINED_SECONDS: Final = 120

# Refusals that say who is asking, not what is asked for.
_CREDENTIALS: Final = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
_NOT_THERE: Final = frozenset(
    {
        "NoSuchLifecycleConfiguration",
        "NoSuchPublicAccessBlockConfiguration",
        "ObjectLockConfigurationNotFoundError",
    }
)
_HEADER_REFUSED: Final = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest"})
_NOT_IMPLEMENTED: Final = frozenset({405, 501})


def _denied(error: BaseException) -> bool:
    step: BaseException | None = error
    while step is not None:
        code, status = code_of(step)
        if status:
            return status == FORBIDDEN and code != "InvalidObjectState"
        step = step.__context__
    return False


def _outcome(error: BaseException) -> tuple[AbilityResult, str]:
    """What a refusal of a request says about the ability; texts of servers are not repeated."""
    code, status = code_of(error)
    said = words([code if not code.isdigit() else "", f"HTTP {status}" if status else type(error).__name__])
    if _denied(error):
        return NOT_ALLOWED, said
    if status in _NOT_IMPLEMENTED or code in {"NotImplemented", "MethodNotAllowed"}:
        return NO, said
    return UNKNOWN, said


class S3Probe(CommonProbe):
    """A probe of one bucket.

    Args:
        storage: The folder.
        plan: What to try, and where.
        findings: Where results go.
    """

    def __init__(self, storage: S3Storage, plan: Plan, findings: Findings) -> None:
        super().__init__(storage, plan, findings, _denied)
        self._s3 = storage
        self._folder = storage.key("x")[:-1]
        self._uploads: dict[str, str] = {}
        self._markers: list[tuple[str, str]] = []
        # Whether what is made can be removed without a trace; until that is known, little is made.
        self._clean = False
        self._done = False

    def run(self) -> None:
        """Find out, and tidy up."""
        if not self._reach():
            return
        work_and_tidy(self._find_out, self._tidy)

    def _find_out(self) -> None:
        self._settings()
        self._objects()
        self._rights()
        self._done = True

    # --- requests -------------------------------------------------------------------------------

    def _ask(self, method: str, **arguments: Any) -> Any:
        """One request; raises what the back-end raises."""
        future = self._s3.submit(self._s3.request(method, Bucket=self._s3.bucket, **arguments))
        try:
            return future.result()
        finally:
            future.cancel()

    def _try(self, ability: str, work: Callable[[], tuple[AbilityResult, str]]) -> AbilityResult:
        """Note what comes of some requests."""
        try:
            result, detail = work()
        except RozenError:
            raise
        except Exception as error:  # noqa: BLE001 - botocore, aiohttp and s3fs have no common root
            result, detail = _outcome(error)
        self.findings.note(ability, result, detail)
        return result

    def _key(self, name: str) -> str:
        return self._s3.key(self.name(name))

    def _put(self, key: str, data: bytes, **arguments: Any) -> Any:
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        answer = self._ask("put_object", Key=key, Body=data, ContentMD5=md5, **arguments)
        self.findings.bytes_sent += len(data)
        return answer

    def _begin(self, key: str) -> str:
        upload_id = str(self._ask("create_multipart_upload", Key=key)["UploadId"])
        self._uploads[upload_id] = key
        return upload_id

    def _part(self, key: str, upload_id: str, data: bytes) -> str:
        answer = self._ask("upload_part", Key=key, UploadId=upload_id, PartNumber=1, Body=data)
        self.findings.bytes_sent += len(data)
        return str(answer["ETag"])

    def _complete(self, key: str, upload_id: str, etag: str, **arguments: Any) -> Any:
        parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        answer = self._ask("complete_multipart_upload", Key=key, UploadId=upload_id, MultipartUpload=parts, **arguments)
        self._uploads.pop(upload_id, None)
        return answer

    def _abort(self, upload_id: str) -> None:
        self._ask("abort_multipart_upload", Key=self._uploads[upload_id], UploadId=upload_id)
        self._uploads.pop(upload_id, None)

    def _found(self, key: str) -> dict[str, Any] | None:
        """What a listing says about a key."""
        for item in self._ask("list_objects_v2", Prefix=key, MaxKeys=1).get("Contents", ()):
            if item["Key"] == key:
                return dict(item)
        return None

    # --- the way there --------------------------------------------------------------------------

    def _reach(self) -> bool:
        findings, prefix = self.findings, self._folder + self.plan.scratch
        try:
            answer = self._ask("list_objects_v2", Prefix=prefix, MaxKeys=1)
        except RozenError:
            raise
        except Exception as error:  # noqa: BLE001 - botocore, aiohttp and s3fs have no common root
            code, status = code_of(error)
            if status == FORBIDDEN and code not in _CREDENTIALS:
                # Some servers say no more than this to wrong credentials, too; then nothing else works.
                findings.note("reach", YES, "the server answers")
                findings.note("list", *_outcome(error))
                return True
            told = self._s3.explained(error, action="list", name=None, permission="s3:ListBucket")
            findings.note("reach", NO, str(told))
            return False
        headers = answer["ResponseMetadata"].get("HTTPHeaders", {})
        for name, header in (("server", "server"), ("region", "x-amz-bucket-region")):
            if headers.get(header):
                findings.facts[name] = str(headers[header])[:200]
        findings.note("reach", YES, "the server answers and takes the credentials")
        findings.note("list", YES)
        clocks: list[float] = []

        def request() -> None:
            before = time.time()
            date = self._ask("list_objects_v2", Prefix=prefix, MaxKeys=1)["ResponseMetadata"]["HTTPHeaders"].get("date")
            if date:
                # The header has whole seconds: half of one is what is left out on average.
                clocks.append(parsedate_to_datetime(date).timestamp() + 0.5 - (before + time.time()) / 2)

        self.take_latency(request)
        if clocks:
            findings.clock_difference = round(sorted(clocks)[len(clocks) // 2], 1)
        return True

    # --- the bucket -----------------------------------------------------------------------------

    def _settings(self) -> None:
        self._try("versioning", self._versioning)
        self._try("object_lock", self._object_lock)
        self._try("abort_rule", self._lifecycle)
        self._try("private", self._private)

    def _versioning(self) -> tuple[AbilityResult, str]:
        status = self._ask("get_bucket_versioning").get("Status")
        return (YES, "") if status == "Enabled" else (NO, "suspended" if status else "never enabled")

    def _object_lock(self) -> tuple[AbilityResult, str]:
        try:
            found = self._ask("get_object_lock_configuration").get("ObjectLockConfiguration", {})
        except Exception as error:
            if code_of(error)[0] in _NOT_THERE or code_of(error)[1] == NOT_FOUND:
                return NO, "not enabled for this bucket"
            raise
        if found.get("ObjectLockEnabled") != "Enabled":
            return NO, "not enabled for this bucket"
        default = found.get("Rule", {}).get("DefaultRetention")
        if not default:
            return YES, "no default retention"
        span = f"{default['Years']} years" if default.get("Years") else f"{default.get('Days')} days"
        return YES, f"by default {default.get('Mode', '').lower()} for {span}"

    def _lifecycle(self) -> tuple[AbilityResult, str]:
        try:
            rules = self._ask("get_bucket_lifecycle_configuration").get("Rules")
        except Exception as error:
            if code_of(error)[0] in _NOT_THERE:
                return NO, "the bucket has no rules"
            raise
        if rules is None:
            return UNKNOWN, "the server answers without saying anything"
        self.findings.warnings += warnings_of(rules, self._folder, warm=self.plan.warm, kept=self.plan.kept)
        days = abort_days(rules, self._folder)
        return (NO, "no rule aborts unfinished uploads") if days is None else (YES, f"after {days} days")

    def _private(self) -> tuple[AbilityResult, str]:
        try:
            found = self._ask("get_public_access_block").get("PublicAccessBlockConfiguration", {})
        except Exception as error:
            if code_of(error)[0] in _NOT_THERE:
                return NO, "public access is not blocked for the bucket (it may be for the account)"
            raise
        if not found:
            return UNKNOWN, "the server answers without saying anything"
        off = [name for name, value in found.items() if not value]
        return (NO, f"off: {', '.join(sorted(off))}") if off else (YES, "")

    # --- objects --------------------------------------------------------------------------------

    def _objects(self) -> None:
        key, data = self._key("small"), os.urandom(SMALL)
        if self._try("put", lambda: self._put_first(key, data)) is not YES:
            self.read_existing()
            return
        self._try("list_after_write", lambda: self._list_after_write(key, data))
        self.read_small(self.plan.scratch + "small", data)
        if self.findings.result("read") is NOT_ALLOWED and self.findings.yes("etag_md5"):
            self.findings.note("intact", YES, "by its MD5, which the server computed")
        self._try("overwrite", lambda: self._overwrite(key, data))
        self._try("delete", lambda: self._delete_first(key))
        self._multipart()
        self._copies()
        self.odd()
        if self.findings.yes("object_lock"):
            self._try("retention", self._retention)
        elif self.findings.result("object_lock") is NO:
            self.findings.note("retention", NO, "it takes object lock")
        if self._clean:
            self.measure(self.name("large"), part_size=_PART)
        else:
            self._measure_parts()
        self._range_copy()

    def _put_first(self, key: str, data: bytes) -> tuple[AbilityResult, str]:
        findings = self.findings
        try:
            answer = self._put(key, data, IfNoneMatch="*")
        except Exception as error:
            if code_of(error)[0] not in _HEADER_REFUSED:
                raise
            findings.note("no_overwrite", NO, f"the header If-None-Match is refused: {_outcome(error)[1]}")
            answer = self._put(key, data)
        else:
            self._try("no_overwrite", lambda: self._put_again(key, data))
        etag = str(answer.get("ETag", "")).strip('"')
        same = etag == hashlib.md5(data, usedforsecurity=False).hexdigest()
        findings.note("etag_md5", YES if same else NO, "" if same else "of one part; something else stands there")
        if answer.get("ServerSideEncryption"):
            findings.facts["encryption"] = str(answer["ServerSideEncryption"])
        return YES, ""

    def _put_again(self, key: str, data: bytes) -> tuple[AbilityResult, str]:
        try:
            self._put(key, data, IfNoneMatch="*")
        except Exception as error:
            code, status = code_of(error)
            if status == 412 or code == "PreconditionFailed":
                return YES, "If-None-Match is honoured"
            raise
        return IGNORED, "If-None-Match is accepted, and the object replaced"

    def _list_after_write(self, key: str, data: bytes) -> tuple[AbilityResult, str]:
        for attempt in range(4):
            found = self._found(key)
            if found is not None:
                kept = str(found.get("StorageClass") or "STANDARD")
                self.findings.facts["storage_class"] = kept
                if kept in COLD:
                    self.findings.warnings.append(
                        f"what is written goes to {kept} at once, where nothing can be read before it is thawed: only "
                        "data/ may go there, by a rule of the bucket"
                    )
                right = found["Size"] == len(data)
                return (YES if right else NO), f"after {attempt} s" if attempt else "at once"
            time.sleep(1)
        return NO, "not listed after some seconds"

    def _overwrite(self, key: str, data: bytes) -> tuple[AbilityResult, str]:
        self._put(key, data)
        return YES, "the version before is kept" if self.findings.yes("versioning") else "the object before is gone"

    def _delete_first(self, key: str) -> tuple[AbilityResult, str]:
        self._ask("delete_object", Key=key)
        if self._found(key) is not None:
            return IGNORED, "accepted, and still listed"
        left = self._remove_versions(key)
        self._clean = not left
        return YES, "earlier versions stay: these credentials may not delete versions" if left else ""

    def _remove_versions(self, prefix: str) -> bool:
        """Remove versions and markers below a prefix; whether there may be any left."""
        try:
            page = self._ask("list_object_versions", Prefix=prefix)
            for item in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                self._ask("delete_object", Key=item["Key"], VersionId=item["VersionId"])
        except Exception as error:  # noqa: BLE001 - botocore, aiohttp and s3fs have no common root
            # Servers without versions need not know the request.
            return _denied(error) and self.findings.result("versioning") is not NO
        return bool(page.get("IsTruncated"))

    def _multipart(self) -> None:
        key, data = self._key("parts"), os.urandom(SMALL)
        if self._try("multipart", lambda: self._upload(key, data)) is YES:
            self._try("conditional_complete", lambda: self._complete_again(key, data))
        self._try("abort", lambda: self._aborted(self._key("aborted"), data))

    def _upload(self, key: str, data: bytes) -> tuple[AbilityResult, str]:
        upload_id = self._begin(key)
        etag = self._part(key, upload_id, data)
        hidden = self._found(key) is None
        self.findings.note("hidden", YES if hidden else NO, "" if hidden else "a listing shows an unfinished upload")
        self._try("list_parts", lambda: self._list_parts(key, upload_id, data))
        self._try("list_uploads", lambda: self._list_uploads(key, upload_id))
        try:
            self._complete(key, upload_id, etag, IfNoneMatch="*")
        except Exception as error:
            if code_of(error)[0] not in _HEADER_REFUSED:
                raise
            self._complete(key, upload_id, etag)
            self.findings.note("conditional_complete", NO, f"the header is refused: {_outcome(error)[1]}")
        found = self._found(key)
        if found is None or found["Size"] != len(data):
            return NO, "completed, and the object is not what was sent"
        return YES, ""

    def _list_parts(self, key: str, upload_id: str, data: bytes) -> tuple[AbilityResult, str]:
        parts = self._ask("list_parts", Key=key, UploadId=upload_id).get("Parts", [])
        right = [(part["PartNumber"], part["Size"]) for part in parts] == [(1, len(data))]
        return (YES, "") if right else (NO, "it does not show the part that was sent")

    def _list_uploads(self, key: str, upload_id: str) -> tuple[AbilityResult, str]:
        found = self._ask("list_multipart_uploads", Prefix=key).get("Uploads", [])
        right = upload_id in {one["UploadId"] for one in found}
        return (YES, "") if right else (NO, "it does not show the upload that was begun")

    def _complete_again(self, key: str, data: bytes) -> tuple[AbilityResult, str]:
        if self.findings.result("conditional_complete") is NO:
            return NO, "the header is refused"
        upload_id = self._begin(key)
        etag = self._part(key, upload_id, data)
        try:
            self._complete(key, upload_id, etag, IfNoneMatch="*")
        except Exception as error:
            code, status = code_of(error)
            if status == 412 or code == "PreconditionFailed":
                return YES, "If-None-Match is honoured"
            raise
        return IGNORED, "If-None-Match is accepted, and the object replaced"

    def _replace_part(self, key: str, upload_id: str, data: bytes) -> tuple[AbilityResult, str]:
        less = data[: len(data) // 2]
        if not self.findings.yes("list_parts"):
            return self._replaced(self._key("replaced"), data, less)
        self._part(key, upload_id, less)
        sizes = [part["Size"] for part in self._ask("list_parts", Key=key, UploadId=upload_id).get("Parts", [])]
        return (YES, "") if sizes == [len(less)] else (IGNORED, f"ListParts says {sizes} afterwards")

    def _replaced(self, key: str, data: bytes, less: bytes) -> tuple[AbilityResult, str]:
        """Where parts cannot be listed, the object shows which one it is made of."""
        upload_id = self._begin(key)
        self._part(key, upload_id, data)
        self._complete(key, upload_id, self._part(key, upload_id, less))
        size = (self._found(key) or {}).get("Size")
        return (YES, "") if size == len(less) else (IGNORED, f"the object has {size} bytes afterwards")

    def _aborted(self, key: str, data: bytes) -> tuple[AbilityResult, str]:
        upload_id = self._begin(key)
        self._part(key, upload_id, data)
        self._try("replace_part", lambda: self._replace_part(key, upload_id, data))
        self._abort(upload_id)
        try:
            left = self._ask("list_parts", Key=key, UploadId=upload_id).get("Parts", [])
        except Exception as error:
            if _denied(error) or _outcome(error)[0] is NO:
                return YES, "whether parts are left cannot be seen"
            if code_of(error)[0] != "NoSuchUpload" and code_of(error)[1] != NOT_FOUND:
                raise
            left = []
        return (IGNORED, "accepted, and parts are still listed") if left else (YES, "")

    # --- copies ---------------------------------------------------------------------------------

    def _copies(self) -> None:
        if not self.findings.yes("multipart"):
            return
        source = {"Bucket": self._s3.bucket, "Key": self._s3.key(self.plan.scratch + "parts")}
        self._try("copy", lambda: self._copy(source))
        self._try("part_copy", lambda: self._part_copy(source, SMALL))

    def _copy(self, source: dict[str, str]) -> tuple[AbilityResult, str]:
        key = self._key("copy")
        self._ask("copy_object", Key=key, CopySource=source)
        found = self._found(key)
        return (YES, "") if found is not None and found["Size"] == SMALL else (NO, "the copy is not listed")

    def _part_copy(self, source: dict[str, str], size: int, **arguments: Any) -> tuple[AbilityResult, str]:
        key = self._key("copied")
        upload_id = self._begin(key)
        try:
            answer = self._ask(
                "upload_part_copy", Key=key, UploadId=upload_id, PartNumber=1, CopySource=source, **arguments
            )
            etag = answer.get("CopyPartResult", {}).get("ETag")
            sizes: list[int] | None = None
            with contextlib.suppress(Exception):  # a permission of its own, and not what is looked for here
                parts = self._ask("list_parts", Key=key, UploadId=upload_id).get("Parts", [])
                sizes = [part["Size"] for part in parts]
        finally:
            with contextlib.suppress(Exception):  # what cannot be aborted now is told in the end
                self._abort(upload_id)
        if sizes is not None and sizes != [size]:
            return IGNORED, f"{size} bytes were to be copied, and ListParts says {sizes}"
        return YES, "" if etag else "without an ETag in the answer: ListParts has it"

    def _range_copy(self) -> None:
        findings = self.findings
        if findings.result("part_copy") in {NO, NOT_ALLOWED}:
            findings.note("part_copy_range", findings.result("part_copy"), "as part_copy")
        elif not self._clean or findings.upload_rate is None or self.plan.transfer <= _PART:
            findings.note("part_copy_range", UNKNOWN, "it takes an object of more than 5 MiB, which could stay")
        else:
            source = {"Bucket": self._s3.bucket, "Key": self._s3.key(self.plan.scratch + "large")}
            span = f"bytes=0-{_PART - 1}"
            self._try("part_copy_range", lambda: self._part_copy(source, _PART, CopySourceRange=span))

    # --- more -----------------------------------------------------------------------------------

    def _retention(self) -> tuple[AbilityResult, str]:
        key, data = self._key("retained"), os.urandom(SMALL)
        ahead = self.findings.clock_difference or 0.0
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=ahead + _RETAINED_SECONDS)
        self._put(key, data, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until, IfNoneMatch="*")
        return YES, "governance"

    def _measure_parts(self) -> None:
        """The rate of parts that are aborted: where objects would stay, nothing of this does."""
        findings = self.findings
        if not (findings.yes("multipart") and findings.yes("abort")):
            return
        key = self._key("measured")
        upload_id = self._begin(key)
        pieces = [os.urandom(self.plan.transfer // _PARALLEL) for _ in range(_PARALLEL)]

        def send() -> None:
            place = {"Bucket": self._s3.bucket, "Key": key, "UploadId": upload_id}
            futures = [
                self._s3.submit(self._s3.request("upload_part", **place, PartNumber=number, Body=piece))
                for number, piece in enumerate(pieces, 1)
            ]
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()

        with contextlib.suppress(OSError):  # a rate that cannot be measured is none; what failed shows elsewhere
            seconds, _ = timed(send)
            findings.upload_rate = sum(map(len, pieces)) / seconds
            findings.bytes_sent += sum(map(len, pieces))

    def _rights(self) -> None:
        for question in self.plan.questions:
            act = {"get": self._may_get, "put": self._may_put, "delete": self._may_delete}[question.action]
            self._try(question.ability, lambda act=act, question=question: act(question))  # type: ignore[misc]

    def _may_get(self, question: Question) -> tuple[AbilityResult, str]:
        """By an object that is there: one that is not is denied where listing depends on a prefix."""
        name, there = question.name, False
        for prefix in question.beside:
            with contextlib.suppress(StorageError):
                info = next((one for one in self.storage.list(prefix) if one.size), None)
                if info is not None:
                    name, there = info.name, True
                    break
        try:
            self._get_byte(self._s3.key(name))
        except Exception as error:
            code, status = code_of(error)
            if code == "InvalidObjectState":
                return YES, "what is there is in a cold class: it must be thawed first"
            if status == NOT_FOUND:
                return YES, "nothing is there yet"
            if _denied(error) and not there:
                return UNKNOWN, "nothing is there to try it with"
            raise
        return YES, f"one byte of {name}"

    def _get_byte(self, key: str) -> None:
        async def get() -> None:
            answer = await self._s3.request("get_object", Bucket=self._s3.bucket, Key=key, Range="bytes=0-0")
            # Not read: a server that ignores ranges sends all of it.  On the loop's thread, whose it is.
            answer["Body"].close()

        future = self._s3.submit(get())
        try:
            future.result()
        finally:
            future.cancel()

    def _may_put(self, question: Question) -> tuple[AbilityResult, str]:
        upload_id = self._begin(self._s3.key(question.name))
        with contextlib.suppress(OSError):  # tried again in the end, and told then
            self._abort(upload_id)
        return YES, "an upload could be begun"

    def _may_delete(self, question: Question) -> tuple[AbilityResult, str]:
        key = self._s3.key(question.name)
        answer = self._ask("delete_object", Key=key)
        if answer.get("DeleteMarker") and answer.get("VersionId"):
            self._markers.append((key, str(answer["VersionId"])))
            return YES, "hides it: versions stay until they are deleted by their ids"
        return YES, ""

    # --- tidying --------------------------------------------------------------------------------

    def _tidy(self) -> None:
        """Remove what there is; all of it lies in one random place, or is an upload of our own."""
        if not self._done:
            self._find_uploads()
        start = len(self._folder)
        left = [
            f"{key[start:]} (unfinished upload)"
            for upload_id, key in self._uploads.items()
            if not self._removed("abort_multipart_upload", Key=key, UploadId=upload_id)
        ]
        left += [
            f"{key[start:]} (delete marker)"
            for key, version in self._markers
            if not self._removed("delete_object", Key=key, VersionId=version)
        ]
        if self.made:
            left += self._remove_objects()
        self.findings.leftovers += left

    def _find_uploads(self) -> None:
        """After an interrupt there may be one whose id never arrived."""
        asked = [question.name for question in self.plan.questions if question.action == "put"]
        with contextlib.suppress(Exception):  # not everybody may list uploads
            for name in (self.plan.scratch, *asked):
                page = self._ask("list_multipart_uploads", Prefix=self._folder + name)
                self._uploads |= {one["UploadId"]: one["Key"] for one in page.get("Uploads", ())}

    def _remove_objects(self) -> list[str]:
        prefix = self._folder + self.plan.scratch
        names = list(self.made)
        if self.findings.result("delete") is not NOT_ALLOWED:
            names = [name for name in names if not self._removed("delete_object", Key=self._s3.key(name))]
        try:
            page = self._ask("list_objects_v2", Prefix=prefix)
            left = [item["Key"][len(self._folder) :] for item in page.get("Contents", ())]
        except Exception:  # noqa: BLE001 - where nothing may be listed, it is told what may be there
            left = names
        if not left and self._versions_may_stay(prefix):
            left = [f"{self.plan.scratch}* (earlier versions)"]
        return left

    def _versions_may_stay(self, prefix: str) -> bool:
        if self.findings.result("versioning") is NO:
            return False
        try:
            page = self._ask("list_object_versions", Prefix=prefix)
        except Exception:  # noqa: BLE001 - unknown to the server, or not allowed
            return self.findings.yes("versioning")
        rows = (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
        left = [item for item in rows if not self._version_removed(item["Key"], item["VersionId"])]
        return bool(left) or bool(page.get("IsTruncated"))

    def _version_removed(self, key: str, version: str) -> bool:
        one = {"Key": key, "VersionId": version}
        return self._removed("delete_object", **one) or self._removed(
            "delete_object", **one, BypassGovernanceRetention=True
        )

    def _removed(self, method: str, **arguments: Any) -> bool:
        try:
            self._ask(method, **arguments)
        except Exception as error:  # noqa: BLE001 - what stays is told
            return code_of(error)[1] == NOT_FOUND
        return True
