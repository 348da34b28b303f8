#!/usr/bin/env python3
"""One encrypted archive of a directory into a bucket of S3, or of any server that speaks it.

    python examples/backup_to_s3.py DIRECTORY

The environment says where to:

    BACKUP_URL         s3://bucket/prefix
    BACKUP_RECIPIENT   rzr1…, the public half of the key that shall read (`rozenfmt keygen`)
    BACKUP_ENDPOINT    address of the server, if it is not Amazon's
    BACKUP_IDENTITY    optional: a key file, for a complete check after the upload
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION, AWS_PROFILE … as everywhere

Fit for cron: no key that reads is needed on this machine, one line is printed, and the exit code
says how it went: 0 done · 1 failed, nothing is left in the bucket · 2 wrong usage · 3 done, but
something could not be read.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rozenfmt as rz


def main() -> int:
    """Upload, check, report."""
    url, recipient = os.environ.get("BACKUP_URL", ""), os.environ.get("BACKUP_RECIPIENT", "")
    if len(sys.argv) != 2 or not url or not recipient:
        sys.stderr.write(__doc__ or "")
        return 2
    source = Path(sys.argv[1]).resolve()
    # Given here, not by AWS_ENDPOINT_URL: the library then knows that this may be a server with a dialect.
    endpoint = os.environ.get("BACKUP_ENDPOINT")
    options: dict[str, Any] = {"endpoint_url": endpoint} if endpoint else {}
    target = f"{url.rstrip('/')}/{source.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.rzn"
    try:
        result = backup(source, target, rz.Recipient.parse(recipient), options)
        level = check(target, options)
    except rz.RozenError as error:
        sys.stderr.write(f"{target}: {error}\n")
        return 2 if isinstance(error, rz.UsageError) else 1
    for problem in result.problems:
        sys.stderr.write(f"{problem.what}: {os.fsdecode(problem.path)!r}: {problem.detail}\n")
    print(
        f"{target}: {result.entries} entries, {result.content_bytes} bytes stored in {result.stored_bytes}, "
        f"{result.seconds:.1f} s; checked: {level}"
    )
    return 3 if result.problem_count else 0


def backup(source: Path, target: str, recipient: rz.Recipient, options: dict[str, Any]) -> rz.CreateResult:
    """Write the archive; requests that fail for a passing reason are tried again."""
    with rz.create(target, recipients=[recipient], storage_options=options) as archive:
        archive.add_tree(source, one_file_system=True, skip_caches=True)
    return archive.result


def check(target: str, options: dict[str, Any]) -> str:
    """Read back what the storage holds: all stored bytes, and all contents if there is a key."""
    key = os.environ.get("BACKUP_IDENTITY")
    identities = [rz.Identity.load(key)] if key else []
    return rz.check(target, identities=identities, storage_options=options).level


if __name__ == "__main__":
    sys.exit(main())
