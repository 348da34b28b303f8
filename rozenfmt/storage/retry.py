"""Trying again: the one seam through which every repeated request goes.

The back-ends' own retries give up after about two seconds and are switched off where that is
possible, so that attempts do not multiply.  A request is repeated only if it is idempotent or
its repetition is recognised (an S3 part has a number, and a later one replaces it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rozenfmt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["RetryPolicy", "acall", "call"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long one request is tried.

    Args:
        attempts: Most attempts in all, 1 or more.
        budget: Seconds after which no further attempt begins.
        first_wait: Seconds before the second attempt; doubled for each further one, plus jitter.
        longest_wait: Upper bound of one wait in seconds.

    """

    attempts: int = 5
    budget: float = 30.0
    first_wait: float = 0.5
    longest_wait: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what would never try, or wait backwards."""
        if self.attempts < 1 or min(self.budget, self.first_wait, self.longest_wait) < 0:
            msg = "a RetryPolicy has one attempt or more, and no negative times"
            raise UsageError(msg)


def call(policy: RetryPolicy, fn: Callable[[], T], is_transient: Callable[[BaseException], bool]) -> T:
    """Call ``fn`` until it succeeds, fails for good, or the policy is used up; the last error is raised."""
    from tenacity import Retrying

    return Retrying(**_controls(policy, is_transient))(fn)


async def acall(
    policy: RetryPolicy, fn: Callable[[], Awaitable[T]], is_transient: Callable[[BaseException], bool]
) -> T:
    """``call`` for coroutines: the waits leave the event loop free, and can be cancelled."""
    from tenacity import AsyncRetrying

    return await AsyncRetrying(**_controls(policy, is_transient))(fn)


def _controls(policy: RetryPolicy, is_transient: Callable[[BaseException], bool]) -> dict[str, Any]:
    from tenacity import (
        retry_if_exception,
        stop_after_attempt,
        stop_before_delay,
        wait_exponential,
        wait_random,
    )

    return {
        "stop": stop_after_attempt(policy.attempts) | stop_before_delay(policy.budget),
        "wait": wait_exponential(multiplier=policy.first_wait, max=policy.longest_wait)
        + wait_random(0, policy.first_wait),
        "retry": retry_if_exception(is_transient),
        "reraise": True,
    }
