"""``python -m rozenfmt.testing.storage URL``: the conformance suite over any storage, by one command."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

__all__ = ["main"]

_MODULE: Final = """
from rozenfmt.testing.run import chosen

TestStorage = chosen()
"""
_PART: Final = 5 << 20
_settings: dict[str, Any] = {}


def main(arguments: list[str] | None = None) -> int:
    """Run the suite; returns the exit code of pytest, 0 if everything passed.

    Args:
        arguments: Of the command line; None for those of this process.

    """
    parser = argparse.ArgumentParser(
        prog="python -m rozenfmt.testing.storage",
        description="Run the conformance suite for storages in new folders below URL, and remove what it writes.",
        epilog="Everything after -- goes to pytest, for example: -- -x -k names",
    )
    parser.add_argument("url", metavar="URL", help="a folder that may be written to; a local path works as well")
    parser.add_argument(
        *("-o", "--option", "--storage-option"),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option for the storage (fsspec); VALUE may be JSON; repeatable; others see it: no secrets",
    )
    parser.add_argument("--storage-options-file", metavar="FILE", help="JSON object of such options")
    parser.add_argument("--part-size", type=int, metavar="BYTES", help="of multipart uploads; 5 MiB for s3://")
    parser.add_argument("--many", type=int, metavar="N", help="objects in one folder (1100)")
    parser.add_argument(
        "--not-exclusive", action="store_true", help="of two writers of one name at the same time, both may win"
    )
    words = sys.argv[1:] if arguments is None else arguments
    cut = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:cut])
    try:
        import pytest
    except ImportError:
        parser.error("the suite is made of tests of pytest, which is not installed: pip install pytest")
    options: dict[str, Any] = {}
    if given.storage_options_file is not None:
        options = json.loads(Path(given.storage_options_file).read_text(encoding="utf-8"))
    for pair in given.option:
        key, equals, value = pair.partition("=")
        if not equals:
            parser.error("an option is written KEY=VALUE")
        options[key] = _value(value)
    part_size = given.part_size or (_PART if given.url.startswith(("s3://", "s3a://")) else None)
    url = given.url if "://" in given.url else os.path.abspath(given.url)
    _settings.update(url=url, storage_options=options, part_size=part_size, exclusive=not given.not_exclusive)
    if given.many is not None:
        _settings["many"] = given.many
    if "://" not in url:
        os.makedirs(url, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rozen-suite-") as place:
        module = Path(place, "test_storage.py")
        module.write_text(_MODULE, encoding="utf-8")
        pytest.register_assert_rewrite("rozenfmt.testing.storage")
        own = ["-p", "no:cacheprovider", "--rootdir", place, "-c", os.devnull, "-q", "--tb=short"]
        return int(pytest.main([*own, str(module), *words[cut + 1 :]]))


def chosen() -> type:
    """The suite with what the command line says."""
    from rozenfmt.testing.storage import StorageSuite

    return type("TestStorage", (StorageSuite,), dict(_settings))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
