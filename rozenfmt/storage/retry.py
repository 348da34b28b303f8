"""Trying again: the one seam through which every repeated request goes.

The back-ends' own retries give up after about two seconds and are switched off where that is
possible, so that attempts do not multiply.  A request is repeated only if it is idempotent or
its repetition is recognised (an S3 part has a number, and a later one replaces it).

Time decides when to give up, in three ways.  One request is tried for some minutes.  All requests of
a storage together may fail for some minutes without one that succeeds: so a network that is gone
ends the work after minutes, not after minutes for each of a thousand parts.  And a storage that has
never answered is given seconds only, since its address is probably wrong.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from rozenfmt.errors import UsageError
from rozenfmt.events import Retry
from rozenfmt.storage.network import Failure, words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["Retries", "RetryPolicy", "acall", "call"]

T = TypeVar("T")

# A single attempt may take as long as all attempts should, on a slow line: these are always made.
_ALWAYS: Final = 3
# Nobody tried for so many seconds: what failed before says nothing about the network of today.
_FORGET: Final = 60.0
# After an interrupt, what cleans up has so many seconds.
_HURRY: Final = 3.0
_DOUBLINGS: Final = 16

_logger = logging.getLogger("rozenfmt.storage")
# Without a handler, Python prints warnings to standard error, which belongs to the program.
logging.getLogger("rozenfmt").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long requests to a storage are tried again, when they fail for a passing reason.

    Between two attempts there is a random wait of up to ``first_wait`` seconds, doubled for each
    further one up to ``longest_wait``, or as long as the server asks for (``Retry-After``).

    Args:
        per_request: Seconds after its first failure for which one request is tried; 0 for a single attempt.
        budget: Seconds that a storage may go on without any success, over all its requests.
        first_contact: The same, before it has answered for the first time: its address may be wrong.
        first_wait: Upper bound of the first wait, in seconds.
        longest_wait: Upper bound of every wait, in seconds.
        attempts: Most attempts for one request; None for as many as the time allows.

    Raises:
        UsageError: A time is negative, or there is no attempt at all.
    """

    per_request: float = 300.0
    budget: float = 600.0
    first_contact: float = 15.0
    first_wait: float = 0.5
    longest_wait: float = 30.0
    attempts: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would never try, or wait backwards."""
        times = (self.per_request, self.budget, self.first_contact, self.first_wait, self.longest_wait)
        if not all(time >= 0 for time in times) or (self.attempts is not None and self.attempts < 1):
            msg = "a RetryPolicy has no negative times, and one attempt or more"
            raise UsageError(msg)


class Retries:
    """What the requests of one storage know of each other's failures.  Safe to use from several threads.

    Args:
        policy: How long to try.
        describe: What a failure means.
        clock: Seconds that only grow.
        sleep: Waits in the thread that calls; None for a wait that ``interrupt`` ends.

    """

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        describe: Callable[[Exception], Failure] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.policy = policy or RetryPolicy()
        self.clock = clock
        # Who cannot tell an answer from silence is taken to have the right address.
        self._describe = describe or (lambda error: Failure(words(error), answered=True))
        self._sleep = sleep
        self._changed = threading.Condition()
        self._failing_since: float | None = None
        self._failing = 0
        self._quiet_since = 0.0
        self._contacted = False
        self._hurry_until = -math.inf
        self.interrupts = 0
        self._listener: Callable[[Retry], None] | None = None
        self._events: deque[Retry] = deque()
        self._delivering = threading.Lock()

    # --- what happens ---------------------------------------------------------------------------

    def succeeded(self) -> None:
        """A request was answered, be it by a refusal: the network works."""
        if self._failing_since is not None or not self._contacted:
            with self._changed:
                self._failing_since = None
                self._contacted = True

    def alive(self) -> None:
        """Bytes move: the time without success begins anew, for an upload of many minutes."""
        with self._changed:
            if self._failing_since is not None:
                self._failing_since = self.clock()

    def interrupt(self) -> None:
        """The user wants to stop: waits in other threads end, and what cleans up has seconds only."""
        with self._changed:
            self.interrupts += 1
            self._hurry_until = self.clock() + _HURRY
            self._changed.notify_all()

    def deadline(self) -> float | None:
        """Until when, by the clock, a request that begins now must be done; None if it has time."""
        return self._hurry_until if self.clock() < self._hurry_until else None

    # --- who listens ----------------------------------------------------------------------------

    @contextmanager
    def reported_to(self, listener: Callable[[Retry], None] | None) -> Iterator[None]:
        """Tell of retries while the block runs, on a thread that waits for the storage."""
        before, self._listener = self._listener, listener or self._listener
        try:
            yield
        finally:
            self.deliver()
            self._listener = before

    @property
    def listened(self) -> bool:
        """Whether anybody wants to hear of retries."""
        return self._listener is not None

    def deliver(self) -> None:
        """Hand over what happened since the last time; one thread at a time."""
        while self._events and self._delivering.acquire(blocking=False):
            try:
                event = self._events.popleft()
                if self._listener is not None:
                    self._listener(event)
            except IndexError:  # another thread was faster
                return
            finally:
                self._delivering.release()

    # --- for call and acall -----------------------------------------------------------------------

    def failed(self, first: bool, error: Exception) -> tuple[float, float, Failure]:  # noqa: FBT001 - internal
        """Note a failed attempt: what it means, when it was, and the seconds that all requests have left."""
        failure = self._describe(error)
        with self._changed:
            now = self.clock()
            if first:
                if not self._failing and now - self._quiet_since > _FORGET:
                    self._failing_since = None
                self._failing += 1
            self._contacted = self._contacted or failure.answered
            if self._failing_since is None:
                self._failing_since = now
            # What the server's answer says is believed, also by those who never heard of it before.
            limit = self.policy.budget if self._contacted else min(self.policy.budget, self.policy.first_contact)
            left = limit - (now - self._failing_since)
        return now, left, failure

    def ended(self) -> None:
        """A request that had failed is tried no more."""
        with self._changed:
            self._failing -= 1
            self._quiet_since = self.clock()

    def answered(self, error: Exception) -> None:
        """Note a failure that is final."""
        if self._describe(error).answered:
            self.succeeded()

    def report(self, event: Retry) -> None:
        """Tell of a retry: the log at once, the listener when somebody waits."""
        _logger.warning(
            "cannot %s %s: %s; attempt %d follows in %.1f s",
            event.action,
            event.where,
            event.reason,
            event.attempt + 1,
            event.wait,
        )
        if self._listener is not None:
            self._events.append(event)

    def pause(self, seconds: float) -> bool:
        """Wait in this thread; False if ``interrupt`` ended it."""
        if self._sleep is not None:
            self._sleep(seconds)
            return True
        with self._changed:
            before = self.interrupts
            return not self._changed.wait_for(lambda: self.interrupts != before, seconds)


class _Trial:
    """One request, from its first attempt to its last."""

    def __init__(self, retries: Retries, action: str, where: str) -> None:
        self._retries = retries
        self._action = action
        self._where = where
        self._attempt = 0
        self._since = 0.0
        self.deadline = retries.deadline()

    def wait_after(self, error: Exception) -> float | None:
        """Seconds until the next attempt; None to give up."""
        retries, policy = self._retries, self._retries.policy
        self._attempt += 1
        now, left, failure = retries.failed(self._attempt == 1, error)
        if self._attempt == 1:
            self._since = now
        if self._attempt >= _ALWAYS or policy.per_request == 0:
            left = min(left, policy.per_request - (now - self._since))
        if self.deadline is not None:
            left = min(left, self.deadline - now)
        if left <= 0 or self._attempt == policy.attempts:
            return None
        bound = min(policy.longest_wait, policy.first_wait * 2 ** min(self._attempt - 1, _DOUBLINGS))
        wait = random.uniform(0, bound)  # noqa: S311 - spreads requests
        if failure.retry_after is not None:
            if failure.retry_after > min(left, policy.per_request):
                return None
            wait += failure.retry_after
        wait = min(wait, left)
        action, where = self._action or failure.action or "reach", self._where or failure.where or "the storage"
        retries.report(Retry(action, where, self._attempt, wait, failure.reason, throttled=failure.throttled))
        return wait

    def over(self) -> None:
        if self._attempt:
            self._retries.ended()


def call(
    retry: RetryPolicy | Retries,
    fn: Callable[[], T],
    is_transient: Callable[[BaseException], bool],
    *,
    action: str = "",
    where: str = "",
) -> T:
    """Call ``fn`` until it succeeds, fails for good, or time is up; the last error is raised.

    Args:
        retry: How long; ``Retries`` to share the budget with other requests.
        fn: One attempt.
        is_transient: Whether an error may be gone a moment later.
        action: What is done, for reports, to follow "cannot".
        where: The object concerned, without secrets.

    """
    retries = retry if isinstance(retry, Retries) else Retries(retry)
    trial = _Trial(retries, action, where)
    try:
        while True:
            try:
                result = fn()
            except Exception as error:
                if not is_transient(error):
                    retries.answered(error)
                    raise
                wait = trial.wait_after(error)
                if wait is None:
                    raise
                retries.deliver()
                if not retries.pause(wait):
                    raise
            else:
                retries.succeeded()
                return result
    finally:
        trial.over()


async def acall(
    retry: RetryPolicy | Retries,
    fn: Callable[[], Awaitable[T]],
    is_transient: Callable[[BaseException], bool],
    *,
    action: str = "",
    where: str = "",
) -> T:
    """``call`` for coroutines: the waits leave the event loop free, and can be cancelled."""
    import asyncio

    retries = retry if isinstance(retry, Retries) else Retries(retry)
    trial = _Trial(retries, action, where)
    try:
        while True:
            seconds = None if trial.deadline is None else max(0.0, trial.deadline - retries.clock())
            try:
                async with asyncio.timeout(seconds):
                    result = await fn()
            except Exception as error:
                if not is_transient(error):
                    retries.answered(error)
                    raise
                wait = trial.wait_after(error)
                if wait is None:
                    raise
            else:
                retries.succeeded()
                return result
            await asyncio.sleep(wait)
    finally:
        trial.over()
