"""Asks on the terminal what to do about a file of a write-once set whose content has changed."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import click

from rozenfmt.display import safe, size

from .output import text_fields, when

if TYPE_CHECKING:
    import rozenfmt as rz
    from rozenfmt.adapters import ProgressBar

__all__ = ["ANSWERED", "Asker", "can_ask", "conflict_fields", "conflict_line"]

# Letter, answer, what it does; a capital letter answers for all that follow.
_ANSWERS: Final[tuple[tuple[str, rz.ConflictAnswer, str], ...]] = (
    ("a", "accept", "store the new content as a new version"),
    ("k", "keep-both", "store the new content, and the old one beside it"),
    ("r", "restore", "put the old content back here; the file is first renamed aside"),
    ("s", "skip", "leave the old content in the snapshot, and the file here as it is"),
    ("f", "fail", "end now, and store nothing"),
)
ANSWERED: Final = {
    "withhold": "the snapshot keeps what was stored before",
    "skip": "skipped: the snapshot keeps what was stored before",
    "accept": "the new content was stored",
    "keep-both": "both were stored",
    "restore": "the old content was put back",
}


def can_ask() -> bool:
    """Whether somebody sits there who can answer."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


class Asker:
    """Answers conflicts by asking, while the progress bar is away.

    Args:
        bar: The bar, if there is one.
    """

    def __init__(self, bar: ProgressBar | None) -> None:
        self._bar = bar
        self._explained = False

    def __call__(self, conflict: rz.Conflict) -> rz.ConflictAnswer:
        """Ask until there is an answer; raises ``click.Abort`` at the end of the input."""
        offered = {key: answer for key, answer, _ in _ANSWERS if answer != "restore" or conflict.can_restore}
        with self._bar.paused() if self._bar is not None else nullcontext():
            self._show(conflict)
            while True:
                sys.stderr.write(f"  {'/'.join(offered)}, capital for all that follow, ? for help: ")
                sys.stderr.flush()
                line = sys.stdin.readline()
                if not line:
                    raise click.Abort
                given = line.strip()
                answer = offered.get(given.lower()) if len(given) == 1 else None
                if answer is None:
                    answer = next((one for one in offered.values() if one == given), None)
                if answer is not None:
                    conflict.for_all = given.isupper()
                    return answer
                self._explain(conflict)

    def _show(self, conflict: rz.Conflict) -> None:
        old, new = when(conflict.old_mtime_ns), when(conflict.new_mtime_ns)
        sys.stderr.write(
            f"{safe(conflict.path)}: the content has changed, and the set is write-once\n"
            f"  stored  {old}  {size(conflict.old_size)} ({conflict.old_size:,} bytes)\n"
            f"  now     {new}  {size(conflict.new_size)} ({conflict.new_size:,} bytes)\n"
        )
        if not self._explained:
            self._explain(conflict)
            self._explained = True

    @staticmethod
    def _explain(conflict: rz.Conflict) -> None:
        for key, answer, text in _ANSWERS:
            if answer != "restore" or conflict.can_restore:
                sys.stderr.write(f"    {key}  {answer:<10} {text}\n")


def conflict_line(conflict: rz.Conflict) -> str:
    """A conflict, for a person."""
    sizes = f"{size(conflict.old_size)} of {when(conflict.old_mtime_ns)}"
    now = f"{size(conflict.new_size)} of {when(conflict.new_mtime_ns)}"
    return f"{safe(conflict.path)}: {sizes} is now {now}; {ANSWERED.get(conflict.answer, conflict.answer)}"


def conflict_fields(conflict: rz.Conflict) -> dict[str, Any]:
    """A conflict, for JSON."""
    return {
        **text_fields("path", conflict.path),
        **text_fields("local_path", conflict.local_path),
        "old_size": conflict.old_size,
        "new_size": conflict.new_size,
        "old_mtime_ns": conflict.old_mtime_ns,
        "new_mtime_ns": conflict.new_mtime_ns,
        "old_id": conflict.old_id.hex(),
        "new_id": conflict.new_id.hex(),
        "answer": conflict.answer,
    }
