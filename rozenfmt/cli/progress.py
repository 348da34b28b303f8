"""The library's progress bar, where a command is to show one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rozenfmt import adapters

if TYPE_CHECKING:
    from .output import Output

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(output: Output) -> Iterator[adapters.ProgressBar | None]:
    """Show a bar while the block runs; gives the callback that feeds it, or None if there is none."""
    if output.quiet or output.json:
        yield None
        return
    with adapters.progress_bar() as show:
        yield show
