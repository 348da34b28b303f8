"""Ready-made takers of events: standard logging, and a progress bar on a terminal.

Give one as ``progress=``.  What is not on everybody's machine or path is imported when it is used.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rozenfmt.display import count, safe, size
from rozenfmt.events import Event, Problem, Progress, Retry

__all__ = ["LogEvents", "ProgressBar", "progress_bar"]


# The loggers that get what the storage logs.
_HEARD = frozenset({"root", "rozenfmt", "rozenfmt.storage"})


def retry_line(event: Retry) -> str:
    """A retry, on one line for a person."""
    return safe(
        f"cannot {event.action} {event.where}: {event.reason}; attempt {event.attempt + 1} in {event.wait:.0f} s",
        backslash=False,
    )


class LogEvents:
    """A progress callback that writes log records: problems at once as warnings, progress now and then.

    Retries are logged without it, by the logger ``rozenfmt.storage``; a logger that does not hear of them
    there gets them here, as warnings.

    Args:
        logger: Where they go; by default the logger ``rozenfmt``.
        every: Seconds between two records about progress.
    """

    def __init__(self, logger: logging.Logger | None = None, *, every: float = 5.0) -> None:
        self._logger = logger if logger is not None else logging.getLogger("rozenfmt")
        self._every = every
        self._next = time.monotonic() + every

    def __call__(self, event: Event) -> None:
        """Take one event, on the thread that does the work."""
        if isinstance(event, Problem):
            self._logger.warning("%s: %s: %s", event.what, safe(event.path), event.detail)
        elif isinstance(event, Retry):
            if self._logger.name not in _HEARD:
                self._logger.warning("%s", retry_line(event))
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            self._logger.info(
                "%s: %d entries, %d bytes, %d stored",
                event.operation,
                event.files,
                event.bytes_done,
                event.bytes_stored,
            )


class ProgressBar:
    """A progress callback that draws on a terminal; made by ``progress_bar``.

    Attributes:
        retries: Whether it shows retries.
    """

    def __init__(self, bar: Any) -> None:
        self.retries = True
        self._bar = bar
        self._task = bar.add_task("", total=None, amount="", path="")

    def __call__(self, event: Event) -> None:
        """Take one event, on the thread that does the work."""
        if isinstance(event, Progress):
            amount = f"{count(event.files, 'entry', 'entries')}  {size(event.bytes_done)}"
            if event.bytes_stored:
                amount += f" → {size(event.bytes_stored)}"
            total = event.bytes_total
            done = min(event.bytes_done, total) if total else event.bytes_done
            self._bar.update(self._task, total=total or None, completed=done, amount=amount, path=safe(event.path))
        elif isinstance(event, Retry) and self.retries:
            self.note(retry_line(event))

    def note(self, text: str) -> None:
        """Show a line that stays, above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away while the block runs, to ask something."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()


@contextmanager
def progress_bar() -> Iterator[ProgressBar | None]:
    """Show a progress bar on standard error while the block runs.

    Yields:
        The callback to give as ``progress=``; None if standard error is no terminal.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    path_column = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    # NO_COLOR is respected by the console; what it prints goes with the bar when that ends.
    with Bar(
        BarColumn(bar_width=24),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[path]}", markup=False, table_column=path_column),
        console=Console(stderr=True, highlight=False),
        transient=True,
        expand=True,
        refresh_per_second=5,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        yield ProgressBar(bar)
