"""What is particular to S3: parts, conditions, lost answers, permissions, processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
import traceback
import uuid
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from rozenfmt.errors import ConflictError, StorageError, UsageError
from rozenfmt.storage import ObjectInfo, RetryPolicy
from rozenfmt.storage.s3 import S3Storage
from rozenfmt.storage.s3_body import Body, SentBody
from rozenfmt.storage.s3_errors import code_of, explain, is_transient
from rozenfmt.storage.s3_upload import S3Upload, abort, choose_part_size
from rozenfmt.testing.servers import rclone_server
from rozenfmt.testing.storage import pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rozenfmt.testing.servers import Server

MIB = 1 << 20
PART = 5 * MIB
QUICK = RetryPolicy(attempts=3, budget=5.0, first_wait=0.01, longest_wait=0.05)

KILLED = """
import sys
from rozenfmt.storage.s3 import S3Storage
options = dict(key=sys.argv[3], secret=sys.argv[4], endpoint_url=sys.argv[2])
upload = S3Storage(sys.argv[1], options).create("victim", part_size=5 << 20)
upload.write(bytes(11 << 20))
print("written", flush=True)
sys.stdin.read()
"""


def refusal(code: str, status: int) -> Exception:
    """What botocore raises for an answer of a server."""
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error: Exception = ClientError(answer, "Operation")
    return error


class Faulty(S3Storage):
    """Counts requests, and fails as it is told."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sent: list[str] = []
        self.page = 0
        self.arguments: list[Mapping[str, Any]] = []
        self.before: dict[str, list[Exception | None]] = {}
        self.after: dict[str, list[Exception | None]] = {}
        self.ask: dict[str, Callable[[Mapping[str, Any]], None]] = {}
        self.change: dict[str, Callable[[dict[str, Any]], None]] = {}

    async def send(self, method: str, arguments: Mapping[str, Any]) -> Any:
        self.sent.append(method)
        self.arguments.append(dict(arguments))
        self._fail(self.before, method)
        if method in self.ask:
            self.ask[method](arguments)
        if method == "list_objects_v2" and self.page:
            arguments = {"MaxKeys": self.page, **arguments}
        answer = await super().send(method, arguments)
        if method in self.change:
            self.change[method](answer)
        self._fail(self.after, method)
        return answer

    def count(self, method: str) -> int:
        return self.sent.count(method)

    @staticmethod
    def _fail(script: dict[str, list[Exception | None]], method: str) -> None:
        error = script[method].pop(0) if script.get(method) else None
        if error is not None:
            raise error


@pytest.fixture(params=["moto", "rclone"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(f"{request.param}_s3")
    return found


@pytest.fixture
def storage(server: Server) -> Iterator[Faulty]:
    made = Faulty(f"{server.url}/{uuid.uuid4().hex}", server.storage_options, retry=QUICK)
    yield made
    made.close()


@pytest.fixture
def moto(moto_s3: Server) -> Iterator[Faulty]:
    made = Faulty(f"{moto_s3.url}/{uuid.uuid4().hex}", moto_s3.storage_options, retry=QUICK)
    yield made
    made.close()


# Refusals of ListParts: a permission of its own, and a request that not all servers know.
UNLISTED = [("AccessDenied", 403), ("MethodNotAllowed", 405), ("NotImplemented", 501)]


def request(storage: S3Storage, method: str, **arguments: Any) -> Any:
    return storage.submit(storage.request(method, Bucket=storage.bucket, **arguments)).result()


def put(storage: S3Storage, name: str, data: bytes, *, overwrite: bool = False) -> ObjectInfo:
    upload = storage.create(name, overwrite=overwrite, part_size=PART)
    upload.write(data)
    return upload.commit()


def unfinished(storage: S3Storage) -> list[str]:
    """Names of unfinished uploads, in this storage's folder."""
    return [found.name for found in storage.leftovers("")]


# Parts


@pytest.mark.parametrize(
    ("part_size", "expected", "chosen"),
    [
        (None, None, 8 * MIB),
        (None, 1 << 30, 6 * MIB),
        (None, 40 << 30, 6 * MIB),
        (None, (40 << 30) + 1, 8 * MIB),
        (None, 10_000 * 8 * MIB, 8 * MIB),
        (None, 10_000 * 8 * MIB + 1, 9 * MIB),
        (None, 5 << 40, 525 * MIB),
        (5 * MIB, None, 5 * MIB),
        (5 << 30, None, 5 << 30),
        (5 * MIB, 10_000 * 5 * MIB, 5 * MIB),
    ],
)
def test_part_size(part_size: int | None, expected: int | None, chosen: int) -> None:
    assert choose_part_size(part_size, expected) == chosen
    assert chosen * 10_000 >= (expected or 0)


@pytest.mark.parametrize(
    ("rate", "expected", "chosen"), [(1e5, 1 << 30, 5), (1e8, 1 << 30, 6), (1e5, None, 8), (1e5, 10_000 * 9 * MIB, 9)]
)
def test_part_size_on_a_slow_line(rate: float, expected: int | None, chosen: int) -> None:
    assert choose_part_size(None, expected, rate) == chosen * MIB


@pytest.mark.parametrize("part_size", [0, 1, 5 * MIB - 1, (5 << 30) + 1])
def test_part_size_out_of_range(part_size: int) -> None:
    with pytest.raises(UsageError):
        choose_part_size(part_size, None)


@pytest.mark.parametrize(("part_size", "expected"), [(5 * MIB, 10_000 * 5 * MIB + 1), (None, 10_000 * (5 << 30) + 1)])
def test_expected_size_out_of_range(part_size: int | None, expected: int) -> None:
    with pytest.raises(StorageError):
        choose_part_size(part_size, expected)


def test_too_many_parts(moto: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3Upload, "max_parts", 2)
    assert put(moto, "fits", bytes(2 * PART)).size == 2 * PART
    upload = moto.create("a", part_size=PART)
    with pytest.raises(StorageError, match="part_size") as caught:
        upload.write(bytes(2 * PART + 1))
        upload.commit()
    assert caught.value.fatal
    upload.discard()
    assert unfinished(moto) == []
    assert [info.name for info in moto.list()] == ["fits"]


def test_a_server_that_takes_fewer_parts(storage: Faulty) -> None:
    def few(arguments: Mapping[str, Any]) -> None:
        if arguments["PartNumber"] > 2:
            raise refusal("InvalidArgument", 400)

    storage.ask["upload_part"] = few
    assert put(storage, "fits", bytes(2 * PART)).size == 2 * PART
    upload = storage.create("a", part_size=PART)
    with pytest.raises(StorageError, match=r"take 2 parts .* smaller data_size") as caught:
        upload.write(bytes(2 * PART + 1))
        upload.commit(keep=True)
    assert caught.value.fatal
    upload.discard()
    assert unfinished(storage) == []


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART])
def test_one_part_is_one_request(storage: Faulty, size: int) -> None:
    put(storage, "a", bytes(size))
    assert storage.count("put_object") == 1
    assert storage.count("create_multipart_upload") == 0


@pytest.mark.parametrize(("size", "sizes"), [(PART + 1, [PART, 1]), (2 * PART, [PART, PART])])
def test_parts_have_one_size(storage: Faulty, size: int, sizes: list[int]) -> None:
    put(storage, "a", pattern(size))
    sent = [
        (arguments["PartNumber"], len(arguments["Body"]))
        for method, arguments in zip(storage.sent, storage.arguments, strict=True)
        if method == "upload_part"
    ]
    assert sorted(sent) == list(enumerate(sizes, start=1))
    assert "list_multipart_uploads" not in storage.sent
    assert "head_object" not in storage.sent


def checked_parts(storage: Faulty) -> list[bool]:
    """Whether each part carried a checksum for the server to compare."""
    return [
        "ContentMD5" in arguments
        for method, arguments in zip(storage.sent, storage.arguments, strict=True)
        if method == "upload_part"
    ]


def write_in_turn(storage: Faulty) -> None:
    """Three parts, each accepted before the next one is sent."""
    storage.parallel = 1
    put(storage, "a", pattern(2 * PART + 1))


def test_parts_that_are_answered_with_their_md5_carry_none(moto: Faulty) -> None:
    write_in_turn(moto)
    assert checked_parts(moto) == [True, False, False]


@pytest.mark.parametrize("etag", ["not-an-md5", "0" * 32])
def test_parts_that_are_answered_with_something_else_carry_their_md5(moto: Faulty, etag: str) -> None:
    real: dict[int, str] = {}

    def encrypted(answer: dict[str, Any]) -> None:
        # As with KMS: what looks like an MD5 is none.
        real[len(real) + 1] = answer["ETag"]
        answer.update(ETag=f'"{etag}"', ServerSideEncryption="aws:kms")

    def honest(arguments: Mapping[str, Any]) -> None:
        for part in arguments["MultipartUpload"]["Parts"]:
            part["ETag"] = real[part["PartNumber"]]

    moto.change["upload_part"] = encrypted
    moto.ask["complete_multipart_upload"] = honest
    write_in_turn(moto)
    assert checked_parts(moto) == [True, True, True]


def test_a_server_that_wants_checksums_gets_them(moto: Faulty) -> None:
    moto.before["upload_part"] = [None, refusal("InvalidRequest", 400)]
    write_in_turn(moto)
    assert checked_parts(moto) == [True, False, True, True]
    assert b"".join(moto.stream("a")) == pattern(2 * PART + 1)


def test_a_part_that_arrived_differently_is_sent_again(moto: Faulty) -> None:
    wrong = [False, True]

    def other(answer: dict[str, Any]) -> None:
        if wrong and wrong.pop(0):
            answer["ETag"] = f'"{"0" * 32}"'

    moto.change["upload_part"] = other
    write_in_turn(moto)
    assert len(checked_parts(moto)) == 4
    assert b"".join(moto.stream("a")) == pattern(2 * PART + 1)


def test_a_body_is_cut_across_buffers() -> None:
    data = pattern(1000)
    body = Body([data[:1], data[1:1], data[1:400], memoryview(data)[400:]])
    assert len(body) == 1000
    for start, end in [(0, 0), (0, 1), (0, 2), (1, 400), (399, 401), (0, 1000), (990, 2000), (1000, 1001)]:
        assert bytes(body.cut(start, end)) == data[start:end]
    assert isinstance(body.cut(400, 1000), memoryview)
    assert body.md5() == hashlib.md5(data, usedforsecurity=False).digest()
    file = SentBody(body, None, lambda _count: None)
    assert [file.read(7), file.tell(), file.seek(-3, 2), file.read(), file.read()] == [data[:7], 7, 997, data[-3:], b""]
    assert [file.seek(0), file.read(None), file.tell(), file.seek(-1000, 1)] == [0, data, 1000, 0]


def test_parts_that_were_accepted_are_let_go(moto_s3: Server) -> None:
    class Watched(S3Storage):
        sent: ClassVar[list[weakref.ref[Body]]] = []
        alive = 0

        async def send(self, method: str, arguments: Mapping[str, Any]) -> Any:
            if method == "upload_part":
                self.sent.append(weakref.ref(arguments["Body"]))
                self.alive = max(self.alive, sum(one() is not None for one in self.sent))
            return await super().send(method, arguments)

    storage = Watched(f"{moto_s3.url}/{uuid.uuid4().hex}", moto_s3.storage_options)
    put(storage, "a", bytes(10 * PART))
    assert len(storage.sent) == 10
    assert storage.alive <= storage.parallel + 1
    storage.close()


def test_nothing_is_unfinished_where_nothing_was_begun() -> None:
    with rclone_server() as server:
        storage = S3Storage(f"{server.url}/new", server.storage_options)
        assert list(storage.leftovers("")) == []
        storage.close()


def test_parts_in_flight_are_bounded(moto_s3: Server) -> None:
    class Slow(Faulty):
        now = 0
        most = 0

        async def send(self, method: str, arguments: Mapping[str, Any]) -> Any:
            if method != "upload_part":
                return await super().send(method, arguments)
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.02)
            try:
                return await super().send(method, arguments)
            finally:
                self.now -= 1

    slow = Slow(f"{moto_s3.url}/{uuid.uuid4().hex}", moto_s3.storage_options, retry=QUICK, parallel=2)
    try:
        put(slow, "a", bytes(6 * PART))
        assert slow.most == 2
    finally:
        slow.close()


# Failures of parts


def test_parts_are_sent_again_under_their_number(storage: Faulty) -> None:
    # One part may get all of the failures.
    storage.retry.policy = RetryPolicy(attempts=6, budget=5.0, first_wait=0.01, longest_wait=0.05)
    data = pattern(3 * PART)
    storage.before["upload_part"] = [ConnectionError(), None, refusal("SlowDown", 503)]
    storage.after["upload_part"] = [None, ConnectionError(), None, refusal("InternalError", 500)]
    put(storage, "a", data)
    assert storage.count("upload_part") > 3
    assert b"".join(storage.stream("a")) == data


def test_corrupted_part_is_sent_again(storage: Faulty) -> None:
    answers: list[dict[str, Any]] = []

    def corrupt(answer: dict[str, Any]) -> None:
        answers.append(answer)
        if len(answers) == 1:
            answer["ETag"] = '"' + "0" * 32 + '"'

    storage.change["upload_part"] = corrupt
    data = pattern(2 * PART)
    put(storage, "a", data)
    assert len(answers) == 3
    assert b"".join(storage.stream("a")) == data


def test_wrong_md5_is_refused_by_the_server(rclone_s3: Server) -> None:
    # The promise that Content-MD5 makes; moto ignores the header.
    storage = Faulty(f"{rclone_s3.url}/{uuid.uuid4().hex}", rclone_s3.storage_options, retry=QUICK)

    async def lie() -> None:
        digest = "AAAAAAAAAAAAAAAAAAAAAA=="
        arguments = {"Bucket": storage.bucket, "Key": storage.key("a"), "Body": b"x", "ContentMD5": digest}
        await storage.send("put_object", arguments)

    try:
        with pytest.raises(StorageError):
            storage.run(lie(), action="write", name="a", permission="")
        assert list(storage.list()) == []
    finally:
        storage.close()


def test_failure_of_a_part_is_terminal(storage: Faulty) -> None:
    storage.before["upload_part"] = [refusal("AccessDenied", 403)]
    upload = storage.create("a", part_size=PART)
    with pytest.raises(StorageError) as caught:
        upload.write(bytes(PART + 1))
        upload.commit()
    assert caught.value.fatal
    with pytest.raises(UsageError):
        upload.commit()
    upload.discard()
    assert storage.count("complete_multipart_upload") == 0
    assert list(storage.list()) == []
    assert unfinished(storage) == []


def test_failure_is_raised_by_a_later_write(storage: Faulty) -> None:
    storage.before["upload_part"] = [refusal("AccessDenied", 403)]
    upload = storage.create("a", part_size=PART)

    def write_on() -> None:
        for _ in range(20):
            upload.write(bytes(PART))

    with pytest.raises(StorageError):
        write_on()
    with pytest.raises(UsageError):
        upload.write(b"x")
    upload.discard()
    assert unfinished(storage) == []


def test_discard_aborts_own_upload_only(storage: Faulty) -> None:
    other = storage.create("other", part_size=PART)
    other.write(bytes(PART + 1))
    upload = storage.create("a", part_size=PART)
    upload.write(bytes(2 * PART + 1))
    upload.discard()
    assert unfinished(storage) == ["other"]
    other.commit()
    assert [info.name for info in storage.list()] == ["other"]


def test_discard_that_failed_can_be_repeated(storage: Faulty) -> None:
    upload = storage.create("a", part_size=PART)
    upload.write(bytes(PART + 1))
    storage.before["abort_multipart_upload"] = [refusal("AccessDenied", 403)]
    with pytest.raises(StorageError):
        upload.discard()
    upload.discard()
    assert unfinished(storage) == []


@pytest.mark.parametrize("error", UNLISTED)
def test_parts_that_are_left_by_an_abort_cannot_be_listed(storage: Faulty, error: tuple[str, int]) -> None:
    upload = storage.create("a", part_size=PART)
    upload.write(bytes(PART + 1))
    assert upload.leftover is not None
    storage.before["list_parts"] = [refusal(*error)]
    work = abort(storage, storage.key("a"), upload.leftover.upload, check=True)
    storage.run(work, action="abort", name="a", permission="")
    assert storage.count("list_parts") == 1
    assert unfinished(storage) == []


@pytest.mark.parametrize("error", UNLISTED)
def test_resuming_where_parts_cannot_be_listed(storage: Faulty, server: Server, error: tuple[str, int]) -> None:
    """What was noted is believed; what may be there beyond that has to be replaced, where the server can."""
    data = pattern(3 * PART, seed=1)
    upload = storage.create("a", part_size=PART)
    upload.write(data[: PART + 1])
    mark = upload.mark()
    assert mark is not None
    upload.write(bytes(PART))  # part 2 is to be another one
    state = None
    while state is None:
        state = upload.state_at(mark)
        time.sleep(0.01)
    while len(request(storage, "list_parts", Key=storage.key("a"), UploadId=state.details["upload"])["Parts"]) < 2:
        time.sleep(0.01)
    upload.suspend()
    storage.before["list_parts"] = [refusal(*error)]
    again = storage.resume(state)
    assert again is not None
    assert not storage.before["list_parts"]
    assert again.can_go_on() is again.replaces_parts
    if again.replaces_parts:
        again.write(data[PART + 1 :])
        again.commit()
        assert b"".join(storage.stream("a")) == data
    else:
        again.discard()
    assert unfinished(storage) == []


def test_collection_of_an_upload_keeps_no_reference(storage: Faulty) -> None:
    upload = storage.create("a", part_size=PART)
    upload.write(bytes(2 * PART + 1))
    dropped = weakref.ref(upload)
    del upload
    assert dropped() is None
    assert list(storage.list()) == []


# Lost answers


@pytest.mark.parametrize("size", [10, PART + 1])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("losses", [1, 3])
def test_lost_answer_to_the_last_request(storage: Faulty, size: int, losses: int, *, overwrite: bool) -> None:
    lost: list[Exception | None] = [ConnectionError()] * losses
    storage.after["put_object"] = list(lost)
    storage.after["complete_multipart_upload"] = list(lost)
    data = pattern(size)
    assert put(storage, "a", data, overwrite=overwrite) == ObjectInfo("a", size)
    assert b"".join(storage.stream("a")) == data
    assert unfinished(storage) == []


@pytest.mark.parametrize("error", [refusal("InternalError", 200), refusal("SlowDown", 503)])
def test_failed_completion_is_repeated(storage: Faulty, error: Exception) -> None:
    storage.before["complete_multipart_upload"] = [error]
    assert put(storage, "a", bytes(PART + 1)).size == PART + 1
    assert storage.count("complete_multipart_upload") == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_upload_that_vanished(storage: Faulty, server: Server, *, overwrite: bool) -> None:
    if overwrite:
        put(storage, "a", pattern(PART + 1, seed=1))
    upload = storage.create("a", overwrite=overwrite, part_size=PART)
    upload.write(bytes(PART + 1))
    storage.before["complete_multipart_upload"] = [refusal("NoSuchUpload", 404)]
    if overwrite and server.folder is not None:
        pytest.skip("rclone's ETags do not tell an older object of the same second and size from ours")
    with pytest.raises(StorageError):
        upload.commit()
    assert [info.name for info in storage.list()] == (["a"] if overwrite else [])
    assert unfinished(storage) == []


def test_somebody_else_won_while_the_answer_was_lost(moto: Faulty) -> None:
    upload = moto.create("a", part_size=PART)
    upload.write(pattern(PART + 1, seed=1))
    put(moto, "b", b"")
    put(moto, "a", pattern(PART + 1, seed=2))
    moto.before["complete_multipart_upload"] = [refusal("NoSuchUpload", 404)]
    moto.conditional = True
    with pytest.raises(ConflictError):
        upload.commit()
    assert b"".join(moto.stream("a")) == pattern(PART + 1, seed=2)


# Conditions


@pytest.mark.parametrize("size", [10, PART + 1])
def test_condition_decides_where_it_is_known(moto: Faulty, size: int) -> None:
    moto.conditional = True
    upload = moto.create("a", part_size=PART)
    upload.write(bytes(size))
    put(moto, "a", b"faster")
    moto.sent.clear()
    with pytest.raises(ConflictError):
        upload.commit()
    assert moto.sent[0] in {"put_object", "upload_part"}
    assert moto.read("a", 0, 6) == b"faster"


@pytest.mark.parametrize("size", [10, PART + 1])
def test_servers_that_refuse_the_condition(storage: Faulty, size: int) -> None:
    storage.before["put_object"] = [refusal("NotImplemented", 501)]
    storage.before["complete_multipart_upload"] = [refusal("NotImplemented", 501)]
    put(storage, "a", bytes(size))
    assert storage.conditional is False
    with pytest.raises(ConflictError):
        put(storage, "a", bytes(size))
    put(storage, "b", bytes(size))
    assert [name for name in storage.arguments[-2] if name == "IfNoneMatch"] == []


# Verification


@pytest.mark.parametrize("size", [100, PART + 100])
def test_truncated_object_is_noticed_and_removed(moto: Faulty, size: int) -> None:
    calls = 0

    def shrink(answer: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        for item in answer.get("Contents", ()):
            item["Size"] -= 1

    moto.change["list_objects_v2"] = shrink
    with pytest.raises(StorageError):
        put(moto, "a", pattern(size))
    assert calls > 0
    moto.change.clear()
    assert list(moto.list()) == []


def test_object_of_another_writer_is_not_removed(moto: Faulty) -> None:
    upload = moto.create("a", overwrite=True, part_size=PART)
    upload.write(b"mine")
    stamp = hashlib.md5(b"theirs", usedforsecurity=False).hexdigest()

    def replace(answer: dict[str, Any]) -> None:
        for item in answer.get("Contents", ()):
            item.update(Size=6, ETag=f'"{stamp}"')

    moto.change["list_objects_v2"] = replace
    with pytest.raises(ConflictError):
        upload.commit()
    assert moto.count("delete_object") == 0


def test_object_that_is_listed_late(moto: Faulty) -> None:
    moto.conditional = True
    calls = 0

    def late(answer: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            answer.pop("Contents", None)

    moto.change["list_objects_v2"] = late
    put(moto, "a", b"x")
    assert calls == 2


# Reading


def test_requests_of_a_read(storage: Faulty) -> None:
    data = pattern(1000)
    put(storage, "a", data)
    storage.sent.clear()
    storage.read("a", 10, 20)
    storage.read_suffix("a", 100)
    assert storage.sent == ["get_object", "get_object"]


def test_reading_is_repeated(storage: Faulty) -> None:
    data = pattern(20 * MIB)
    put(storage, "a", data)
    storage.before["get_object"] = [ConnectionError(), refusal("SlowDown", 503)]
    assert b"".join(storage.stream("a")) == data
    storage.before["get_object"] = [TimeoutError()]
    assert storage.read("a", 5, 10) == data[5:15]
    storage.before["get_object"] = [TimeoutError()]
    assert storage.read_suffix("a", 10) == (len(data), data[-10:])


def test_servers_without_ranges(moto: Faulty) -> None:
    put(moto, "a", pattern(1000))

    class Whole(Faulty):
        async def send(self, method: str, arguments: Mapping[str, Any]) -> Any:
            return await super().send(method, {k: v for k, v in arguments.items() if k != "Range"})

    whole = Whole(moto.url, None, retry=QUICK)
    whole._fs, fs = moto._fs, whole._fs
    assert fs is not None
    assert whole.read("a", 0, 1000) == pattern(1000)
    with pytest.raises(StorageError):
        whole.read("a", 10, 20)
    with pytest.raises(StorageError):
        whole.read_suffix("a", 20)


def test_replacement_while_streaming_is_noticed(moto: Faulty) -> None:
    put(moto, "a", pattern(25 * MIB, seed=1))
    pieces = moto.stream("a")
    next(pieces)
    put(moto, "a", pattern(25 * MIB, seed=2), overwrite=True)
    with pytest.raises(StorageError):
        list(pieces)


def test_long_listings(storage: Faulty) -> None:
    names = [f"n/{number}" for number in range(8)]
    for name in reversed(names):
        put(storage, name, b"")
    storage.sent.clear()
    storage.page = 3
    assert [info.name for info in storage.list("n/")] == names
    assert storage.count("list_objects_v2") == 3


def test_folder_markers_are_no_objects(moto: Faulty) -> None:
    async def mark() -> None:
        for key in (moto.key("x")[:-1], moto.key("x") + "/"):
            await S3Storage.send(moto, "put_object", {"Bucket": moto.bucket, "Key": key, "Body": b""})

    moto.run(mark(), action="mark", name=None, permission="")
    put(moto, "x/a", b"1")
    assert list(moto.list()) == [ObjectInfo("x/a", 1)]


# Errors


def test_size_without_permission_to_read(storage: Faulty) -> None:
    put(storage, "a", b"123")
    storage.before["head_object"] = [refusal("403", 403), refusal("403", 403)]
    assert storage.size("a") == 3
    with pytest.raises(StorageError):
        storage.size("b")


@pytest.mark.parametrize(
    ("code", "status", "transient"),
    [
        ("AccessDenied", 403, False),
        ("403", 403, False),
        ("InvalidAccessKeyId", 403, False),
        ("SignatureDoesNotMatch", 403, False),
        ("NoSuchBucket", 404, False),
        ("NoSuchKey", 404, False),
        ("InvalidObjectState", 403, False),
        ("NotImplemented", 501, False),
        ("InternalError", 500, True),
        ("InternalError", 200, True),
        ("SlowDown", 503, True),
        ("503", 503, True),
        ("RequestTimeout", 400, True),
        ("BadDigest", 400, True),
        ("", 429, True),
    ],
)
def test_classification(code: str, status: int, *, transient: bool) -> None:
    error = refusal(code, status)
    assert is_transient(error) is transient
    wrapped = OSError("translated")
    wrapped.__cause__ = error
    assert is_transient(wrapped) is transient
    assert code_of(wrapped) == (code, status)
    told = explain(error, action="read", where="s3://b/k", permission="s3:GetObject", name="k")
    assert told.fatal is not transient
    assert "s3://b/k" in str(told)


def test_no_such_bucket(moto_s3: Server) -> None:
    storage = Faulty("s3://no-such-bucket/x", moto_s3.storage_options, retry=QUICK)
    try:
        with pytest.raises(StorageError, match="bucket") as caught:
            list(storage.list())
        assert caught.value.fatal
        with pytest.raises(StorageError):
            put(storage, "a", b"x")
        assert storage.count("list_objects_v2") == 2
    finally:
        storage.close()


def test_wrong_secret_fails_at_once_and_is_not_told(rclone_s3: Server) -> None:
    options = {**rclone_s3.storage_options, "secret": "a-very-wrong-secret"}
    storage = Faulty(rclone_s3.url, options, retry=QUICK)
    try:
        with pytest.raises(StorageError) as caught:
            storage.size("a")
        assert caught.value.fatal
        assert storage.count("head_object") == 1
        text = "".join(traceback.format_exception(caught.value))
        assert "a-very-wrong-secret" not in text
        assert rclone_s3.storage_options["key"] not in text
    finally:
        storage.close()


def test_nobody_answers() -> None:
    options = {"key": "some-key", "secret": "some-secret", "endpoint_url": "http://127.0.0.1:1"}
    storage = Faulty("s3://bucket/x", options, retry=QUICK)
    try:
        with pytest.raises(StorageError) as caught:
            storage.size("a")
        assert not caught.value.fatal
        assert storage.count("head_object") == QUICK.attempts
    finally:
        storage.close()


# Processes, threads, loops


def test_killed_writer_leaves_nothing_visible(storage: Faulty, server: Server) -> None:
    options = server.storage_options
    command = [
        *(sys.executable, "-c", KILLED, storage.url),
        *(options["endpoint_url"], options["key"], options["secret"]),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert list(storage.list()) == []
    with pytest.raises(StorageError):
        storage.size("victim")
    put(storage, "victim", b"again")
    assert list(storage.list()) == [ObjectInfo("victim", 5)]


def test_inside_a_running_loop(storage: Faulty) -> None:
    async def main() -> bytes:
        put(storage, "a", pattern(PART + 1))
        return b"".join(storage.stream("a"))

    assert asyncio.run(main()) == pattern(PART + 1)


def test_on_the_loop_of_fsspec(moto: Faulty) -> None:
    async def main() -> int:
        return moto.size("a")

    with pytest.raises(UsageError):
        moto.run(main(), action="read", name="a", permission="")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork(moto: Faulty) -> None:
    put(moto, "a", b"x")
    child = os.fork()
    if child == 0:
        # Only the exit status leaves the child: pytest must not run in it.
        status = 1
        try:
            moto.size("a")
        except UsageError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert moto.size("a") == 1


def test_use_after_close(moto: Faulty) -> None:
    put(moto, "a", b"x")
    moto.close()
    moto.close()
    assert moto.size("a") == 1


@pytest.mark.parametrize("name", ["latin-\udce9", "n" * 1024])
def test_names_that_s3_cannot_hold(moto: Faulty, name: str) -> None:
    with pytest.raises(UsageError):
        moto.create(name)
    assert moto.sent == []
