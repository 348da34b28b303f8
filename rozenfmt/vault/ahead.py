"""What comes next is made on a thread of its own while the consumer works."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, wait
from typing import Final, TypeVar

__all__ = ["ahead"]

T = TypeVar("T")
_MOST: Final = 1


class _Shared:
    """Between producer and consumer: what is ready, and whether there will be more."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.ready: deque[object] = deque()
        self.ended = False
        self.stopped = False


def ahead(items: Iterable[T], pool: Executor, *, most: int = _MOST) -> Iterator[T]:
    """The same items in the same order, made on another thread.

    What the iteration raises there is raised here.  A consumer that stops early waits for the item
    that is being made; so nothing is under way any more when this iterator is closed.

    Args:
        items: Iterated on the other thread alone.
        pool: Gives the thread.
        most: How many may be ready before the consumer takes them.
    """
    shared = _Shared()
    producer = pool.submit(_produce, iter(items), shared, most)
    try:
        while True:
            with shared.changed:
                while not shared.ready and not shared.ended:
                    shared.changed.wait()
                if not shared.ready:
                    break
                item = shared.ready.popleft()
                shared.changed.notify()
            yield item  # type: ignore[misc]
            del item
    finally:
        with shared.changed:
            shared.stopped = True
            shared.changed.notify()
        wait((producer,))
    producer.result()


def _produce(items: Iterator[T], shared: _Shared, most: int) -> None:
    try:
        for item in items:
            with shared.changed:
                shared.ready.append(item)
                shared.changed.notify()
                del item
                while len(shared.ready) >= most and not shared.stopped:
                    shared.changed.wait()
                if shared.stopped:
                    break
    finally:
        with shared.changed:
            shared.ended = True
            shared.changed.notify()
