"""Sphinx: everything is built from this checkout, without network."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import rozenfmt  # noqa: E402 - found by the path above

project = "rozenfmt"
copyright = "the authors of rozenfmt"  # noqa: A001 - Sphinx' name for it
version = release = rozenfmt.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "code_pages",
]
exclude_patterns = ["_build", "explanation/speed"]  # the latter is included in speed.md
html_theme = "furo"
html_title = f"rozenfmt {release}"
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# The specification's diagrams are Mermaid, which renders where the repository is hosted; here they are text.
myst_fence_as_directive = ["mermaid"]
suppress_warnings = [
    "myst.xref_missing",  # links of included pages to files that are no pages here; a test follows them in the sources
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# Not ours, so not described here.
nitpick_ignore_regex = [
    (r"py:.*", r"(os|io|logging|datetime|enum|collections\.abc|typing|types|pathlib|contextlib)(\..*)?"),
    (r"py:.*", r"(bool|bytes|bytearray|memoryview|dict|float|int|list|object|str|tuple|Exception|None)"),
    (r"py:.*", r"(PathLike|IO|Any|Callable|Iterable|Iterator|Sequence|Literal|BufferedReader|TracebackType|Self)"),
    # Internal: a user gets them from the library and never makes one.
    (r"py:.*", r"(rozenfmt\..*\.)?(ArchiveSource|Compression|Entropy|Entry|HeaderRecord|Keys|StanzaType|Upload)"),
    (r"py:.*", r"(rozenfmt\..*\.)?(Modes|Reference|Reread|Sources|TreeReader)"),
    (r"py:.*", r"list\[tuple\[int"),
]
