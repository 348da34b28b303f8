"""Fewer requests at a time for a server that asks for it.

Additive increase, multiplicative decrease, as congestion control does it: a refusal halves the
number of requests that may be under way, a run of successes raises it by one.  Requests that were
sent together are refused together, so only one halving counts in a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Limiter"]

_ROUND: Final = 1.0
# Nobody has so many requests under way.
_NO_LIMIT: Final = 256


class Limiter:
    """How many requests may be under way; a context manager around each.  Used on one event loop only.

    Args:
        clock: Seconds that only grow.

    Attributes:
        limit: The number; None until the first refusal, and again once it has grown large.
        active: How many are under way.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit: int | None = None
        self.active = 0
        self._clock = clock
        self._halved_at: float | None = None
        self._successes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> Self:
        if not self._full() and not self._waiting:
            self.active += 1
            return self
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled():
                await self.__aexit__(None, None, None)  # its turn came at the same moment
            else:
                self._waiting.remove(place)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.active -= 1
        self._wake()

    def throttled(self) -> None:
        """The server refused a request because there are too many."""
        now = self._clock()
        self._successes = 0
        if self._halved_at is None or now - self._halved_at >= _ROUND:
            self._halved_at = now
            # What was allowed may be far above what was used.
            used = self.active if self.limit is None else min(self.limit, self.active)
            self.limit = max(1, used // 2)

    def succeeded(self) -> None:
        """The server took a request."""
        if self.limit is None:
            return
        self._successes += 1
        if self._successes >= self.limit:
            self._successes = 0
            self.limit = self.limit + 1 if self.limit < _NO_LIMIT else None
            self._wake()

    def _full(self) -> bool:
        return self.limit is not None and self.active >= self.limit

    def _wake(self) -> None:
        while self._waiting and not self._full():
            place = self._waiting.popleft()
            if not place.done():
                self.active += 1  # in the name of the one who waited, so that nobody comes between
                place.set_result(None)
