"""What a person sees while a command works: the library's progress bar, and retries."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rozenfmt import adapters

from .output import message

if TYPE_CHECKING:
    from .output import Output

__all__ = ["progress_bar", "retries_shown"]


@contextmanager
def progress_bar(output: Output) -> Iterator[adapters.ProgressBar | None]:
    """Show a bar while the block runs; gives the callback that feeds it, or None if there is none."""
    if output.quiet or output.json:
        yield None
        return
    with adapters.progress_bar() as show:
        if show is not None:
            # All commands show them, also where no operation hands them to the bar: see retries_shown.
            show.retries = False
        output.bar = show
        try:
            yield show
        finally:
            output.bar = None


class _Notes(logging.Handler):
    """Shows what the storage logs, one line each."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record; on the thread that noticed it."""
        line = f"rozenfmt: {message(record.getMessage())}"
        bar = self._output.bar
        if bar is not None:
            bar.note(line)
        else:
            self._output.note(line)


@contextmanager
def retries_shown(output: Output) -> Iterator[None]:
    """Show on a terminal, while the block runs, that requests to the storage are made again."""
    if output.quiet or output.json or not sys.stderr.isatty():
        yield
        return
    logger, handler = logging.getLogger("rozenfmt.storage"), _Notes(output)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
