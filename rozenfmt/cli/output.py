"""What the command line says: safe for a terminal, or JSON for programs.

Names in an archive are whatever somebody put there.  On a terminal no control character, no
direction override and no byte that is not UTF-8 is printed as it is; in JSON a name is text,
and beside a name that is not UTF-8 stands ``…_base64`` with the exact bytes.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.display import count, safe, size

if TYPE_CHECKING:
    import rozenfmt as rz
    from rozenfmt.adapters import ProgressBar

__all__ = [
    "Exit",
    "Output",
    "count",
    "duration",
    "message",
    "problem_fields",
    "ratio",
    "safe",
    "shown_location",
    "size",
    "text_fields",
    "when",
]

_SECRET: Final = re.compile(r"rz[hipsq]1[a-z2-7]{20,}")
_PROBLEMS_SHOWN: Final = 20


class Exit(IntEnum):
    """Exit codes; they are part of the interface."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INCOMPLETE = 3
    DIFFERENCES = 4


def message(value: object) -> str:
    """An error's text, on one line and without what looks like a secret key."""
    return _SECRET.sub("***", safe(str(value), backslash=False))


def shown_location(location: str) -> str:
    """A location without passwords and signatures, for a person to see."""
    if "://" in location:
        from rozenfmt.storage.redact import Redactor

        location = Redactor(location).text(location)
    return safe(location, backslash=False)


def text_fields(name: str, value: str | bytes) -> dict[str, str]:
    """A name for JSON: as text, with its bytes in base64 where they are not UTF-8."""
    data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {
            name: data.decode("utf-8", "backslashreplace"),
            f"{name}_base64": base64.b64encode(data).decode(),
        }


def when(nanoseconds: int) -> str:
    """A point in time, in the local time zone, for a person."""
    try:
        return datetime.fromtimestamp(nanoseconds // 10**9).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{nanoseconds // 10**9} s"


def duration(seconds: float) -> str:
    """A time span for a person."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def ratio(part: int, whole: int) -> str:
    """One size as a percentage of another, in brackets; empty where that says nothing."""
    return f" ({100 * part / whole:.1f} %)" if part < whole else ""


@dataclass(slots=True)
class Output:
    """Where a command's results, notes and problems go.

    Attributes:
        command: The command, as the user types it.
        quiet: No summary and no progress; errors and problems are still shown.
        verbose: More details, and every problem.
        json: Results as JSON on standard output.
        after_interrupt: What an interruption leaves behind, for the message.
        bar: The progress bar that is shown now, or None.
    """

    command: str = ""
    quiet: bool = False
    verbose: bool = False
    json: bool = False
    after_interrupt: str = ""
    bar: ProgressBar | None = None

    def line(self, text: str) -> None:
        """A line of the result, on standard output."""
        sys.stdout.write(text + "\n")

    def summary(self, *lines: str) -> None:
        """Lines for a person about what was done; not with ``--quiet`` or ``--json``."""
        if not self.quiet and not self.json:
            for text in lines:
                self.line(text)

    def detail(self, *lines: str) -> None:
        """Lines that only ``--verbose`` shows."""
        if self.verbose:
            self.summary(*lines)

    def note(self, text: str) -> None:
        """A line on standard error."""
        with suppress(OSError):  # it comes again when the command ends
            sys.stdout.flush()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def record(self, fields: dict[str, Any]) -> None:
        """One JSON object on a line of its own."""
        # DEL is the one control character that JSON leaves as it is.
        self.line(json.dumps(fields).replace("\x7f", "\\u007f"))

    def document(self, status: Exit, fields: dict[str, Any]) -> Exit:
        """The command's JSON document, if one is wanted; returns the status."""
        if self.json:
            self.record({"command": self.command, "status": status.name.lower(), **fields})
        return status

    def warnings(self, texts: Iterable[str]) -> None:
        """What is not as it should be, and does not keep the command from its work."""
        if not self.json:
            for text in texts:
                self.note(f"rozenfmt: warning: {message(text)}")

    def problems(self, problems: Sequence[rz.Problem], total: int) -> None:
        """What could not be done, on standard error."""
        if not total or self.json:
            return
        shown = problems if self.verbose else problems[:_PROBLEMS_SHOWN]
        self.note(f"rozenfmt: {count(total, 'problem')}:")
        for problem in shown:
            self.note(f"  {problem.what}: {safe(problem.path) or '.'}: {message(problem.detail)}")
        if total > len(shown):
            hint = "" if self.verbose else " (-v shows all that are kept)"
            self.note(f"  … and {total - len(shown):,} more{hint}")


def problem_fields(problems: Iterable[rz.Problem], total: int) -> dict[str, Any]:
    """Problems for JSON."""
    listed = [{**text_fields("path", p.path), "what": p.what, **text_fields("detail", p.detail)} for p in problems]
    return {"problem_count": total, "problems": listed}
