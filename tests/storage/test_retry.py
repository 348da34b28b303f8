"""The retry seam, throttling, and the states of an upload."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from rozenfmt.errors import StorageError, UsageError
from rozenfmt.events import Retry
from rozenfmt.storage import ObjectInfo
from rozenfmt.storage.network import Failure, retry_after
from rozenfmt.storage.retry import Retries, RetryPolicy, acall, call
from rozenfmt.storage.throttle import Limiter
from rozenfmt.storage.upload import TRANSITIONS, BaseUpload, Event, State

QUICK = RetryPolicy(attempts=4, budget=5.0, first_wait=0.0, longest_wait=0.0)


class Flaky:
    """Fails a number of times."""

    def __init__(self, failures: int, error: BaseException) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.calls

    async def later(self) -> int:
        return self()


def transient(error: BaseException) -> bool:
    return isinstance(error, ConnectionError)


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_transient_failures_are_repeated(failures: int) -> None:
    assert call(QUICK, Flaky(failures, ConnectionError()), transient) == failures + 1
    assert asyncio.run(acall(QUICK, Flaky(failures, ConnectionError()).later, transient)) == failures + 1


def test_attempts_end() -> None:
    flaky = Flaky(9, ConnectionError("last"))
    with pytest.raises(ConnectionError):
        call(QUICK, flaky, transient)
    assert flaky.calls == QUICK.attempts


@pytest.mark.parametrize("policy", [RetryPolicy(per_request=0), RetryPolicy(budget=0), RetryPolicy(attempts=1)])
def test_a_single_attempt(policy: RetryPolicy) -> None:
    flaky = Flaky(9, ConnectionError())
    with pytest.raises(ConnectionError):
        call(policy, flaky, transient)
    assert flaky.calls == 1


@pytest.mark.parametrize("error", [PermissionError(), KeyboardInterrupt(), ValueError()])
def test_other_failures_are_final(error: BaseException) -> None:
    flaky = Flaky(1, error)
    with pytest.raises(type(error)):
        call(QUICK, flaky, transient)
    assert flaky.calls == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"attempts": 0},
        {"budget": -1.0},
        {"per_request": -1.0},
        {"first_contact": -1.0},
        {"first_wait": -1.0},
        {"longest_wait": float("nan")},
    ],
)
def test_policies_are_checked(arguments: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        RetryPolicy(**arguments)  # type: ignore[arg-type]


# Time


class Site:
    """A storage, its requests and its clock; attempts and waits take the time that they say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, policy: RetryPolicy | None = None, **failure: Any) -> None:
        # The longest wait that chance allows.
        monkeypatch.setattr("random.uniform", lambda _low, high: high)
        self.now = 1000.0
        self.waits: list[float] = []
        self.failure = {"answered": True, **failure}
        self.retries = Retries(policy, lambda _error: Failure(**self.failure), clock=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def fail(self, *, takes: float = 0.0, alive: bool = False) -> int:
        """Make a request that never succeeds; returns how many attempts it was given."""
        flaky = Flaky(10**6, ConnectionError())

        def attempt() -> int:
            self.now += takes
            if alive:
                self.retries.alive()
            return flaky()

        with pytest.raises(ConnectionError):
            call(self.retries, attempt, transient)
        return flaky.calls

    def succeed(self) -> None:
        call(self.retries, Flaky(0, ConnectionError()), transient)


def test_waits_grow_until_the_time_of_a_request_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch)
    site.fail()
    assert site.waits[:8] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert max(site.waits) == 30
    assert sum(site.waits) == 300


def test_waits_are_random() -> None:
    waits: list[float] = []
    retries = Retries(RetryPolicy(attempts=50, longest_wait=4), sleep=waits.append)
    with pytest.raises(ConnectionError):
        call(retries, Flaky(99, ConnectionError()), transient)
    assert all(0 <= wait <= 4 for wait in waits)
    assert len(set(waits)) > 40


def test_requests_share_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch)
    site.fail()
    site.fail()
    assert site.now == 1600
    assert site.fail() == 1
    site.succeed()
    assert site.fail() > 5


def test_budget_of_concurrent_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch, RetryPolicy(per_request=100, budget=150))

    def nested() -> int:
        site.fail()  # two requests, of which one fails while the other does
        raise ConnectionError

    with pytest.raises(ConnectionError):
        call(site.retries, nested, transient)
    assert site.now == 1150


def test_an_address_that_never_answered_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch, answered=False)
    site.fail()
    assert site.now == 1015
    site.now += 3600
    site.succeed()
    site.fail()
    assert site.now == 1015 + 3600 + 300


def test_a_refusal_is_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch)
    with pytest.raises(PermissionError):
        call(site.retries, Flaky(1, PermissionError()), transient)
    site.failure["answered"] = False
    site.fail()
    assert site.now == 1300


def test_slow_attempts_are_repeated_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Site(monkeypatch, RetryPolicy(budget=10_000)).fail(takes=400) == 3


def test_bytes_that_move_refill_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = RetryPolicy(per_request=5000, budget=1000)
    assert Site(monkeypatch, policy).fail(takes=900) < 4
    assert Site(monkeypatch, policy).fail(takes=900, alive=True) > 4


def test_failures_of_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch)
    site.fail()
    site.fail()
    assert site.fail() == 1
    site.now += 61
    assert site.fail() > 5


def test_the_server_says_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch, retry_after=100.0)
    site.fail()
    assert site.waits[0] == 100.5
    assert sum(site.waits) <= 300
    assert Site(monkeypatch, retry_after=301.0).fail() == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 5 ", 5.0),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        (None, None),
    ],
)
def test_retry_after_header(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, now=100.0) == seconds


# Interrupts


def test_interrupt_ends_waits_of_other_threads() -> None:
    retries = Retries(RetryPolicy(first_wait=1000, longest_wait=1000, first_contact=1000))
    waiting = threading.Event()
    ended: list[BaseException] = []

    def work() -> None:
        def attempt() -> None:
            waiting.set()
            raise ConnectionError

        try:
            call(retries, attempt, transient)
        except ConnectionError as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert waiting.wait(10)
    while not ended and thread.is_alive():
        retries.interrupt()  # until it waits, there is nothing to end
        thread.join(0.05)
    assert len(ended) == 1


def test_after_an_interrupt_nothing_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch)
    site.retries.interrupt()
    site.fail()
    assert site.now == 1003
    site.fail()  # as always, for whoever goes on
    assert site.now > 1100


def test_after_an_interrupt_no_attempt_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rozenfmt.storage.retry._HURRY", 0.05)
    retries = Retries()
    retries.interrupt()

    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(acall(retries, hang, lambda error: isinstance(error, TimeoutError)))


# Reports


def test_retries_are_told_and_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(monkeypatch, RetryPolicy(attempts=3), reason="SlowDown HTTP 503", throttled=True)
    told: list[Retry] = []
    with pytest.raises(ConnectionError), site.retries.reported_to(told.append):
        call(site.retries, Flaky(9, ConnectionError()), transient, action="read", where="s3://b/a")
    assert told == [
        Retry("read", "s3://b/a", 1, 0.5, "SlowDown HTTP 503", throttled=True),
        Retry("read", "s3://b/a", 2, 1.0, "SlowDown HTTP 503", throttled=True),
    ]
    assert [(record.name, record.levelname) for record in caplog.records] == [("rozenfmt.storage", "WARNING")] * 2
    with pytest.raises(ConnectionError):
        call(site.retries, Flaky(9, ConnectionError()), transient)
    assert len(told) == 2


def test_reports_of_the_inner_operation_go_to_its_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch, RetryPolicy(attempts=2))
    outer: list[Retry] = []
    inner: list[Retry] = []
    with site.retries.reported_to(outer.append):
        with site.retries.reported_to(inner.append):
            site.fail()
        with site.retries.reported_to(None):
            site.fail()
    assert (len(inner), len(outer)) == (1, 1)


# Throttling


class Parallel:
    """Requests that take a turn of the loop, and how many of them there were at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.limiter = Limiter(lambda: self.now)
        self.most = 0

    async def request(self, outcome: str = "taken") -> None:
        async with self.limiter:
            self.most = max(self.most, self.limiter.active)
            await asyncio.sleep(0)
            if outcome == "refused":
                self.limiter.throttled()
            else:
                self.limiter.succeeded()

    async def many(self, count: int, outcome: str = "taken") -> int:
        self.most = 0
        await asyncio.gather(*(self.request(outcome) for _ in range(count)))
        return self.most


def test_throttling_halves_what_is_under_way() -> None:
    async def main() -> None:
        site = Parallel()
        assert await site.many(16) == 16
        await site.many(16, "refused")  # sent together, refused together: one reason to slow down
        assert site.limiter.limit == 8
        assert await site.many(7) == 7
        for limit in (4, 2, 1, 1):
            site.now += 1
            await site.many(site.limiter.limit or 0, "refused")
            assert site.limiter.limit == limit
        assert await site.many(1) == 1

    asyncio.run(main())


def test_successes_raise_the_limit_again() -> None:
    async def main() -> None:
        site = Parallel()
        await site.many(2, "refused")
        assert site.limiter.limit == 1
        for _ in range(10):
            await site.many(10)
        assert (site.limiter.limit or 0) > 5
        for _ in range(4000):
            await site.many(10)
        assert site.limiter.limit is None

    asyncio.run(main())


def test_cancelled_requests_give_their_place_back() -> None:
    async def main() -> None:
        site = Parallel()
        await site.many(2, "refused")
        async with site.limiter:
            waiting = [asyncio.ensure_future(site.request()) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await asyncio.sleep(0)
        waiting[1].cancel()  # its turn has come, and it does not know yet
        assert len(await asyncio.gather(*waiting, return_exceptions=True)) == 3
        assert site.limiter.active == 0
        await asyncio.wait_for(site.request(), 10)

    asyncio.run(main())


# States of an upload


class Scripted(BaseUpload):
    """An upload whose hooks fail on demand."""

    def __init__(self, fails: frozenset[str] = frozenset()) -> None:
        super().__init__("scripted")
        self.fails = fails
        self.calls: list[str] = []

    def hook(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise StorageError(name)

    def _write(self, data: bytes | memoryview) -> None:
        self.hook("write")
        assert len(data)

    def _commit(self) -> ObjectInfo:
        self.hook("commit")
        return ObjectInfo(self.name, self.written)

    def _discard(self) -> None:
        self.hook("discard")

    def _suspend(self) -> None:
        self.hook("suspend")


def reach(state: State) -> Scripted:
    upload = Scripted(frozenset({"write"}) if state is State.FAILED else frozenset())
    if state is State.COMMITTED:
        upload.commit()
    elif state is State.DISCARDED:
        upload.discard()
    elif state is State.SUSPENDED:
        upload.suspend()
    elif state is State.FAILED:
        with pytest.raises(StorageError):
            upload.write(b"x")
    assert upload.state is state
    upload.calls.clear()
    return upload


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(State, [event for event in Event if event is not Event.FAIL]))
)
def test_transitions(state: State, event: Event) -> None:
    upload = reach(state)
    upload.fails = frozenset()
    act: dict[Event, Callable[[], object]] = {
        Event.WRITE: lambda: upload.write(b"x"),
        Event.COMMIT: upload.commit,
        Event.DISCARD: upload.discard,
        Event.SUSPEND: upload.suspend,
    }
    after = TRANSITIONS.get((state, event))
    if after is None:
        with pytest.raises(UsageError):
            act[event]()
        assert upload.calls == []
        assert upload.state is state
    else:
        act[event]()
        assert upload.state is after
        assert upload.calls == ([] if state not in {State.OPEN, State.FAILED} else [event.name.lower()])


def test_failed_commit_discards() -> None:
    upload = Scripted(frozenset({"commit"}))
    with pytest.raises(StorageError):
        upload.commit()
    assert upload.calls == ["commit", "discard"]
    assert upload.state is State.DISCARDED


def test_failed_commit_may_be_suspended() -> None:
    upload = Scripted(frozenset({"commit"}))
    with pytest.raises(StorageError):
        upload.commit(keep=True)
    upload.suspend()
    assert upload.calls == ["commit", "suspend"]


def test_second_failure_does_not_hide_the_first() -> None:
    upload = Scripted(frozenset({"commit", "discard"}))
    with pytest.raises(StorageError) as caught:
        upload.commit()
    assert "commit" in str(caught.value)
    assert "discard" in str(caught.value)
    assert upload.state is State.FAILED
    upload.fails = frozenset()
    upload.discard()
    assert upload.calls == ["commit", "discard", "discard"]
