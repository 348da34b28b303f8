"""What pages take from the code, so that they cannot differ from it.

- ``{command-line}``: every command with its ``--help``.
- ``{rooms}``: the packages of the library and their imports, as a drawing.
- ``{failure-classes}``: the errors that carry one.
- ``{mermaid}``: a diagram as text.

References to where a public name is defined lead to where it is described.
"""

from __future__ import annotations

import ast
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

import rozenfmt
from rozenfmt.errors import ArchiveError

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

LIBRARY: Final = Path(rozenfmt.__file__).parent
# From the top of the house to the ground.
ROOMS: Final = ["cli", "vault", "archive", "tree", "format", "storage"]
ABOUT: Final = {
    "cli": "arguments in, exit codes out",
    "vault": "many archives: keyring, backup, restore, verify",
    "archive": "one archive: create, open, check, salvage, join",
    "tree": "the file system: walk, capture, restore",
    "format": "bytes in, records out; no I/O",
    "storage": "objects in local files, S3, fsspec",
}
SEVERAL: Final = re.compile(r"(\s+)(\w+(?:, \w+)+): (.+)")


class CommandLine(SphinxDirective):
    """Every command, as it describes itself."""

    def run(self) -> list[nodes.Node]:
        """Make the nodes."""
        from rozenfmt.cli.main import root

        return list(self._sections(root, "rozenfmt", None))

    def _sections(self, command: click.Command, name: str, parent: click.Context | None) -> Any:
        settings = {**command.context_settings, "terminal_width": 96, "max_content_width": 96}
        context = click.Context(command, info_name=name, parent=parent, **settings)
        title = context.command_path
        section = nodes.section(ids=[nodes.make_id(title)], names=[nodes.fully_normalize_name(title)])
        section += nodes.title(text=title)
        text = command.get_help(context)
        section += nodes.literal_block(text, text, language="text")
        yield section
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                found = command.get_command(context, below)
                assert found is not None
                yield from self._sections(found, below, context)


class Rooms(Directive):
    """A drawing of the library's rooms, from the imports in its modules."""

    def run(self) -> list[nodes.Node]:
        """Make the nodes."""
        return [nodes.raw("", drawing(imports()), format="html")]


def imports() -> dict[str, set[str]]:
    """Which room imports from which."""
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for room in ROOMS:
        for module in (LIBRARY / room).glob("**/*.py"):
            for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                elif isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                for name in names:
                    parts = name.split(".")
                    if parts[0] == "rozenfmt" and len(parts) > 1 and parts[1] in found and parts[1] != room:
                        found[room].add(parts[1])
    return found


def drawing(edges: dict[str, set[str]]) -> str:
    """SVG: one box a room, an arc for each import."""
    width, height, gap, left = 330, 46, 26, 10
    top = {room: 10 + number * (height + gap) for number, room in enumerate(ROOMS)}
    lines = [
        f'<svg viewBox="0 0 560 {10 + len(ROOMS) * (height + gap)}" role="img" style="max-width: 36rem"',
        ' font-family="sans-serif" font-size="13" fill="none" stroke="currentColor">',
        "<title>Rooms of the library and what each imports</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
        '<path d="M0 0 8 4 0 8z" fill="currentColor" stroke="none"/></marker></defs>',
    ]
    for room in ROOMS:
        y = top[room]
        lines += [
            f'<rect x="{left}" y="{y}" width="{width}" height="{height}" rx="6"/>',
            f'<text x="{left + 12}" y="{y + 19}" fill="currentColor" stroke="none" font-weight="bold">{room}</text>',
            f'<text x="{left + 12}" y="{y + 36}" fill="currentColor" stroke="none">{escape(ABOUT[room])}</text>',
        ]
    x = left + width
    for room in ROOMS:
        for target in sorted(edges[room], key=ROOMS.index):
            steps = ROOMS.index(target) - ROOMS.index(room)
            start, end = top[room] + height - 8 - 3 * abs(steps), top[target] + 8 + 3 * abs(steps)
            bend = x + 26 + 38 * abs(steps)
            lines.append(f'<path d="M{x} {start} C{bend} {start} {bend} {end} {x + 2} {end}" marker-end="url(#tip)"/>')
    return "\n".join([*lines, "</svg>"])


class FailureClasses(SphinxDirective):
    """A table of the errors that carry a failure class."""

    def run(self) -> list[nodes.Node]:
        """Make the nodes."""
        rows = ["| class | exception | meaning |", "|---|---|---|"]
        for error in ArchiveError.__subclasses__():
            if error.__name__ in rozenfmt.__all__:
                meaning = " ".join((error.__doc__ or "").split())
                rows.append(f"| `{error.failure_class}` | {{py:exc}}`rozenfmt.{error.__name__}` | {meaning} |")
        holder = nodes.container()
        self.state.nested_parse(StringList(rows, "rozenfmt.errors"), 0, holder)
        return holder.children


class Mermaid(Directive):
    """A diagram as text."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Make the nodes."""
        text = "\n".join(self.content)
        return [nodes.literal_block(text, text, language="text")]


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element) -> nodes.Element | None:
    """Lead ``rozenfmt.archive.reader.Archive`` or plain ``Archive`` to ``rozenfmt.Archive``."""
    name = str(node.get("reftarget", "")).rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in rozenfmt.__all__ or node["reftarget"] == f"rozenfmt.{name}":
        return None
    domain = env.domains["py"]
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", f"rozenfmt.{name}", node, contnode)


def tidy(_app: Sphinx, what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Say in Napoleon's way what docstrings say in ours; runs before Napoleon."""
    if what == "property" and lines:  # else what stands before the colon is taken for a type
        lines[0] = lines[0].replace(": ", "; ")
    for number in range(len(lines) - 1, -1, -1):  # "a, b: text" is about both
        match = SEVERAL.fullmatch(lines[number])
        if match:
            indent, names, text = match.groups()
            lines[number : number + 1] = [f"{indent}{one}: {text}" for one in names.split(", ")]


def skip(_app: Sphinx, _what: str, _name: str, obj: object, _skip: object, _options: object) -> bool | None:
    """Leave out what says of itself that it is internal."""
    first = (getattr(obj, "__doc__", None) or "").strip().partition("\n")[0]
    return True if first.endswith("; internal.") else None


def shorten(
    _app: Sphinx, what: str, _name: str, obj: object, _options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    """Show no constructor of what the library makes and a user only reads."""
    if not signature:
        return None
    text = obj.__doc__ or ""
    made = "; made by" in text or ("Attributes:" in text and "Args:" not in text)
    inherited = what == "exception" and "Args:" not in text
    return ("", None) if (what == "class" and made) or inherited else (signature, returns)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register all of it."""
    app.add_directive("command-line", CommandLine)
    app.add_directive("rooms", Rooms)
    app.add_directive("failure-classes", FailureClasses)
    app.add_directive("mermaid", Mermaid)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", tidy, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
