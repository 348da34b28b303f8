"""Blocks of code in Markdown pages, and how they are run.

A page's blocks run in order, in one empty directory; those in Python share one namespace.
``sh`` and ``python`` are run; ``text``, ``console`` and the like are not.  A comment on the line
before a block can say more:

    <!-- before: COMMAND -->   run this first; the reader is supposed to have what it makes
    <!-- exit: N -->           the block ends with this exit code
    <!-- not run: REASON -->
    <!-- command: NAME -->     ``.ci/run`` runs it
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]

_BLOCK: Final = re.compile(
    r"(?P<notes>(?:^<!-- [^\n]* -->\n)*)^```(?P<language>[\w{}-]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_NOTE: Final = re.compile(r"<!-- (?P<name>before|exit|not run|command): (?P<value>.*) -->")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: What stands after the fence.
        code: Its lines.
        line: Number of its first line of code in the page.
        notes: What the comments before it say.
    """

    language: str
    code: str
    line: int
    notes: Mapping[str, str]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        notes = {note["name"]: note["value"] for note in _NOTE.finditer(match["notes"])}
        yield Block(match["language"], match["code"], text.count("\n", 0, match.start("code")) + 1, notes)


def environment(**more: str) -> dict[str, str]:
    """Of the process, with the programs that belong to this interpreter first, and no keys of the user."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ROZENFMT_", "COV_", "XDG_"))
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return {**kept, "PATH": path, "TERM": "dumb", **more}


def run(page: Path, place: Path, env: Mapping[str, str], replace: Mapping[str, str]) -> int:
    """Run the blocks of a page; returns how many there were."""
    names: dict[str, object] = {"__name__": "page"}
    count = 0
    for block in blocks(page):
        if block.language not in {"sh", "python"} or {"not run", "command"} & block.notes.keys():
            continue
        code, before = block.code, block.notes.get("before")
        for old, new in replace.items():
            code = code.replace(old, new)
            before = before.replace(old, new) if before is not None else None
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if before is not None:
            shell(before, place, env, where)
        if block.language == "sh":
            shell(code, place, env, where, expected=int(block.notes.get("exit", "0")))
        else:
            exec(compile("\n" * (block.line - 1) + code, str(page), "exec"), names)
        count += 1
    return count


def shell(code: str, place: Path, env: Mapping[str, str], where: str, *, expected: int = 0) -> str:
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", code],
        cwd=place,
        env={**env, "HOME": str(place)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected, f"{where}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
