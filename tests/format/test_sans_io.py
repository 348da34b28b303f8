"""The core does no I/O, and no room of the house reaches into a room above it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rozenfmt

PACKAGE = Path(rozenfmt.__file__).parent
FORBIDDEN = {
    "asyncio",
    "concurrent",
    "datetime",
    "fsspec",
    "io",
    "locale",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "shutil",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib",
}
# Compressor contexts are kept for each thread; see codecs.py.
ALLOWED = {("codecs.py", "threading")}
BUILTINS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}

ROOMS = ["errors", "events", "format", "keys", "storage", "tree", "archive", "vault", "testing", "cli", "__main__"]
LEVEL = {
    "errors": 0,
    "events": 0,
    "display": 0,
    "adapters": 1,
    "cli": 8,
    "__main__": 8,
    **{name: 1 + i for i, name in enumerate(ROOMS[2:9])},
}


def modules(under: Path) -> list[Path]:
    return sorted(path for path in under.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in it."""
    package = ["rozenfmt", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(PACKAGE / "format"), ids=lambda path: path.name)
def test_the_core_imports_nothing_that_does_io(path: Path) -> None:
    found = {name.split(".")[0] for name in imports(path)} & FORBIDDEN
    assert {name for name in found if (path.name, name) not in ALLOWED} == set()


@pytest.mark.parametrize("path", modules(PACKAGE / "format"), ids=lambda path: path.name)
def test_the_core_calls_nothing_that_does_io(path: Path) -> None:
    tree = ast.parse(path.read_bytes())
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert (called - defined) & BUILTINS == set()


def test_the_exception_for_threads_is_thread_local_data_only() -> None:
    tree = ast.parse((PACKAGE / "format" / "codecs.py").read_bytes())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "threading"
    }
    assert used == {"local"}


def test_importing_the_core_loads_no_heavy_module() -> None:
    names = sorted(f"rozenfmt.format.{path.stem}" for path in modules(PACKAGE / "format") if path.stem != "__init__")
    code = f"import sys; {'; '.join(f'import {name}' for name in names)}; print(*sorted(sys.modules))"
    plain = {key: value for key, value in os.environ.items() if not key.startswith("COV")}  # coverage imports much
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=plain)
    loaded = done.stdout.split()
    heavy = {"asyncio", "fsspec", "sqlite3", "rich", "click", "nacl", "zstandard", "lz4", "cryptography", "socket"}
    assert heavy & set(loaded) == set()
    assert [
        name for name in loaded if name.startswith("rozenfmt.") and name.split(".")[1] not in ("format", "errors")
    ] == []


@pytest.mark.parametrize("path", modules(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms(path: Path) -> None:
    """A module imports from its own room and from rooms below."""
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return  # the public names come from everywhere
    assert room in LEVEL
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "rozenfmt" and len(parts) > 1 and parts[1] in LEVEL and parts[1] != room:
            assert LEVEL[parts[1]] < LEVEL[room] or {parts[1], room} <= {"cli", "__main__"}, name
