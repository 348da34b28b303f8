"""``python -m rozenfmt``, and the script ``rozenfmt``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line on ``sys.argv`` and leave with its exit code."""
    try:
        from rozenfmt.cli.main import run
    except KeyboardInterrupt:
        sys.exit(1)
    sys.exit(run())


if __name__ == "__main__":
    main()
