"""How many bytes a second may go up and come down.

A token bucket that is drawn on before bytes are sent, and after they were received.  It holds a
tenth of a second, and pieces are small, so the flow is even.  Whoever has to wait naps for a quarter
of a second at most and asks again: a limit that is changed or lifted takes effect at once, and an
interrupt is not kept waiting.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Final

from rozenfmt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Bandwidth", "Pace"]

_BURST: Final = 0.1
_NAP: Final = 0.25
_WINK: Final = 0.001
_SMALLEST: Final = 1 << 10
_LARGEST: Final = 256 << 10


class Pace:
    """One direction.  Safe to use from several threads and from event loops.

    Args:
        rate: Bytes per second; None for no limit.
        clock: Seconds that only grow.

    """

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._rate = _checked(rate)
        self._tokens = 0.0
        self._at = clock()

    @property
    def rate(self) -> float | None:
        """Bytes per second."""
        return self._rate

    @rate.setter
    def rate(self, rate: float | None) -> None:
        with self._lock:
            self._rate = _checked(rate)
            # What was taken at the old rate would take for ever to pay back at a much lower one.
            self._tokens = 0.0
            self._at = self._clock()

    def piece(self, largest: int = _LARGEST) -> int:
        """How many bytes to move at a time, for an even flow."""
        rate = self._rate
        return largest if rate is None else max(_SMALLEST, min(largest, int(rate * _BURST)))

    def ask(self, count: int) -> float:
        """Take ``count`` bytes and return 0, or return the seconds after which to ask again."""
        with self._lock:
            now = self._clock()
            if self._rate is None:
                return 0.0
            self._tokens = min(self._rate * _BURST, self._tokens + (now - self._at) * self._rate)
            self._at = now
            # A piece may be larger than what is there: then the next one waits for it.
            if self._tokens >= 0:
                self._tokens -= count
                return 0.0
            return min(_NAP, max(_WINK, -self._tokens / self._rate))

    def take(self, count: int, check: Callable[[], None] | None = None) -> None:
        """Wait in this thread until ``count`` bytes may be moved.

        Args:
            count: Bytes.
            check: Called before each nap; raises to end the wait.

        """
        while wait := self.ask(count):
            if check is not None:
                check()
            time.sleep(wait)

    async def atake(self, count: int, napping: Callable[[], None] | None = None) -> None:
        """``take`` for coroutines; ``napping`` is called before each nap."""
        import asyncio

        while wait := self.ask(count):
            if napping is not None:
                napping()
            await asyncio.sleep(wait)

    def slices(self, data: memoryview, check: Callable[[], None] | None = None) -> Iterator[memoryview]:
        """Pieces of ``data``, each when its time has come."""
        while data:
            size = self.piece()
            piece, data = data[:size], data[size:]
            self.take(len(piece), check)
            yield piece


class Bandwidth:
    """Limits of the bytes that go to a storage and come from it.

    One object may be shared by several storages, which then share the limits.  Both attributes may
    be set at any time and from any thread; that takes effect within a second.

    Args:
        up: Bytes per second that are sent at most; None for no limit.
        down: Bytes per second that are received at most; None for no limit.

    Raises:
        UsageError: A limit is not a positive number.
    """

    __slots__ = ("receiving", "sending")

    def __init__(self, up: float | None = None, down: float | None = None) -> None:
        self.sending = Pace(up)
        self.receiving = Pace(down)

    @property
    def up(self) -> float | None:
        """Bytes per second that are sent at most; None for no limit."""
        return self.sending.rate

    @up.setter
    def up(self, rate: float | None) -> None:
        self.sending.rate = rate

    @property
    def down(self) -> float | None:
        """Bytes per second that are received at most; None for no limit."""
        return self.receiving.rate

    @down.setter
    def down(self, rate: float | None) -> None:
        self.receiving.rate = rate

    def __repr__(self) -> str:
        return f"Bandwidth(up={self.up!r}, down={self.down!r})"


def _checked(rate: float | None) -> float | None:
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not rate > 0:
        msg = f"a bandwidth is a positive number of bytes per second, or None for no limit, not {rate!r}"
        raise UsageError(msg)
    return None if math.isinf(rate) else float(rate)
