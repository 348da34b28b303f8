"""A progress bar on standard error, where that is a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .output import count, safe, size

if TYPE_CHECKING:
    import rozenfmt as rz

    from .output import Output

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(output: Output) -> Iterator[rz.ProgressCallback | None]:
    """Show a bar while the block runs; gives the callback that feeds it, or None if there is none."""
    if output.quiet or output.json or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    import rozenfmt as rz

    path_column = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    # NO_COLOR is respected by the console; what it prints goes with the bar when that ends.
    with Progress(
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
        task = bar.add_task("", total=None, amount="", path="")

        def show(event: rz.Event) -> None:
            if isinstance(event, rz.Progress):
                amount = f"{count(event.files, 'entry', 'entries')}  {size(event.bytes_done)}"
                if event.bytes_stored:
                    amount += f" → {size(event.bytes_stored)}"
                total = event.bytes_total
                done = min(event.bytes_done, total) if total else event.bytes_done
                bar.update(task, total=total or None, completed=done, amount=amount, path=safe(event.path))

        yield show
