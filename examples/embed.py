#!/usr/bin/env python3
"""rozenfmt inside another program: progress and problems go to the standard ``logging``.

    python examples/embed.py [DIRECTORY [ARCHIVE]]

Archives a directory (by default the one this file is in) and reads it back, as a service would:
nothing is printed but log records, and every failure ends in one of three ``except`` branches.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import rozenfmt as rz

log = logging.getLogger("backup")


def backup(source: Path, location: Path, recipient: rz.Recipient) -> rz.CreateResult:
    """Write one archive; it appears when it is complete, or not at all."""
    with rz.create(location, recipients=[recipient], progress=rz.LogEvents(log)) as archive:
        archive.add_tree(source, skip_caches=True)
        archive.add("manifest.txt", f"made from {source}\n".encode())
    result = archive.result
    log.info(
        "%s: %d entries, %d bytes in %d, %.1f s",
        location,
        result.entries,
        result.content_bytes,
        result.stored_bytes,
        result.seconds,
    )
    return result


def verify(location: Path, identity: rz.Identity) -> int:
    """Check everything that a key can check, then read one file; returns the number of files."""
    report = rz.check(location, identities=[identity], progress=rz.LogEvents(log))
    log.info("%s: %d blocks are good, level %s", location, report.blocks, report.level)
    with rz.open(location, identities=[identity]) as archive:
        log.info("manifest: %s", archive.read("manifest.txt").decode().strip())
        return sum(entry.kind is rz.Kind.FILE for entry in archive)


def main() -> int:
    """Back up, verify, and turn what may fail into exit codes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stdout)
    source = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        location = Path(sys.argv[2] if len(sys.argv) > 2 else Path(scratch, "embedded.rzn"))
        # A real service keeps only the recipient; the identity that reads lives somewhere else.
        identity = rz.Identity.generate()
        try:
            result = backup(source, location, identity.recipient)
            files = verify(location, identity)
        except rz.UsageError as error:
            log.error("called wrongly: %s", error)  # noqa: TRY400 - the message says it all
            return 2
        except rz.ArchiveError as error:
            log.critical("the archive is damaged (%s): %s", error.failure_class, error)
            return 1
        except rz.RozenError as error:  # storage, source, or a name that is taken
            log.error("failed, nothing is left behind: %s", error)  # noqa: TRY400 - likewise
            return 1
    log.info("%d files can be read back", files)
    return 3 if result.problem_count else 0


if __name__ == "__main__":
    sys.exit(main())
