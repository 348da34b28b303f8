"""The retry seam, and the states of an upload."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from rozenfmt.errors import StorageError, UsageError
from rozenfmt.storage import ObjectInfo
from rozenfmt.storage.retry import RetryPolicy, acall, call
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


def test_budget_ends() -> None:
    flaky = Flaky(9, ConnectionError())
    with pytest.raises(ConnectionError):
        call(RetryPolicy(attempts=9, budget=0.0, first_wait=5.0), flaky, transient)
    assert flaky.calls == 1


@pytest.mark.parametrize("error", [PermissionError(), KeyboardInterrupt(), ValueError()])
def test_other_failures_are_final(error: BaseException) -> None:
    flaky = Flaky(1, error)
    with pytest.raises(type(error)):
        call(QUICK, flaky, transient)
    assert flaky.calls == 1


@pytest.mark.parametrize("arguments", [{"attempts": 0}, {"budget": -1.0}, {"first_wait": -1.0}])
def test_policies_are_checked(arguments: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        RetryPolicy(**arguments)  # type: ignore[arg-type]


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
