"""Items made on another thread come out as they would on this one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rozenfmt.vault.ahead import ahead


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as found:
        yield found


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_same_items_in_the_same_order(count: int, pool: ThreadPoolExecutor) -> None:
    for most in (1, 2, 7):
        assert list(ahead(range(count), pool, most=most)) == list(range(count))


def test_no_more_is_made_than_may_wait(pool: ThreadPoolExecutor) -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    for number in ahead(items(), pool, most=3):
        assert len(made) <= number + 5  # the one at hand, three that wait, one that is being made


def test_what_goes_wrong_there_is_raised_here(pool: ThreadPoolExecutor) -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError

    found = ahead(items(), pool)
    assert (next(found), next(found)) == (1, 2)
    with pytest.raises(KeyError):
        next(found)
    assert list(ahead("ab", pool)) == ["a", "b"]


def test_a_consumer_may_stop(pool: ThreadPoolExecutor) -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.set()

    produced = items()
    taken = ahead(produced, pool)
    assert next(taken) == 0
    taken.close()  # type: ignore[attr-defined]
    produced.close()  # type: ignore[attr-defined]
    assert closed.is_set()
    assert list(ahead("ab", pool)) == ["a", "b"]
