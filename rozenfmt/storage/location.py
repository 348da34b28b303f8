"""From a URL or a path to the back-end that serves it.

Strings of the form ``scheme://…`` are URLs, as fsspec writes them: nothing in them is
percent-decoded, ``file://`` included.  Everything else is a local path; ``bytes`` and
``os.PathLike`` always are, so a path that looks like a URL can still be given.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from rozenfmt.errors import UsageError
from rozenfmt.storage.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rozenfmt.storage.bandwidth import Bandwidth
    from rozenfmt.storage.base import Storage
    from rozenfmt.storage.retry import RetryPolicy

__all__ = ["Location", "is_url", "local_path", "open_storage", "resolve"]

Location = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# Chained addresses (``simplecache::s3://…``) are URLs as well; fsspec takes them apart.
_URL = re.compile(r"(?:[A-Za-z0-9+._-]+::)*(?P<scheme>[A-Za-z][A-Za-z0-9+._-]*)://", re.DOTALL)
_LOCAL_SCHEMES = frozenset({"file", "local"})
_S3_SCHEMES = frozenset({"s3", "s3a"})
_HTTP_SCHEMES = frozenset({"http", "https"})


def open_storage(
    url: Location,
    storage_options: Mapping[str, Any] | None = None,
    *,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
) -> Storage:
    """Open a folder.

    Args:
        url: URL or local path of the folder.  A local folder that does not exist is made when the
            first object is written to it, if its parent exists.
        storage_options: Options for the fsspec file system (credentials, endpoint, …).
        retry: How long to try again; None for the defaults.  Of no meaning for a local folder.
        bandwidth: Limits of what goes up and comes down.

    Raises:
        UsageError: The address is empty, or options were given for a local folder.
        StorageError: The back-end is not installed, or cannot be set up.

    """
    scheme, address = _classify(url)
    if not address:
        msg = "an empty string is not the address of a folder"
        raise UsageError(msg)
    return _open(scheme, address, storage_options, retry=retry, bandwidth=bandwidth, make_root=True)


def resolve(
    url: Location,
    storage_options: Mapping[str, Any] | None = None,
    *,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
) -> tuple[Storage, str]:
    """Split the address of one object into its folder's storage and its name.

    Args:
        url: URL or local path of the object.  A local folder that does not exist is not made: it
            is more likely a misspelling, or a disk that is not mounted.
        storage_options: Options for the fsspec file system (credentials, endpoint, …).
        retry: How long to try again; None for the defaults.  Of no meaning for a local folder.
        bandwidth: Limits of what goes up and comes down.

    Raises:
        UsageError: The address names a folder or a bucket only, or options were given for a local path.
        StorageError: The back-end is not installed, or cannot be set up.

    """
    scheme, address = _classify(url)
    if scheme is None or scheme in _LOCAL_SCHEMES:
        folder, name = os.path.split(address)
        folder = folder or os.curdir
    else:
        start = address.index("://") + 3
        # The query of an HTTP address may hold slashes, in signatures for example.
        end = address.find("?", start) if scheme in _HTTP_SCHEMES else -1
        cut = max(address.rfind("/", start, end if end >= 0 else len(address)) + 1, start)
        folder, name = address[:cut], address[cut:]
        if scheme in _S3_SCHEMES and cut == start:
            name = ""
    if name in {"", os.curdir, os.pardir}:
        shown = Redactor(address, storage_options).text(address)
        msg = f"{shown!r} names no object; add the object's name after the last slash"
        raise UsageError(msg)
    return _open(scheme, folder, storage_options, retry=retry, bandwidth=bandwidth, make_root=False), name


def is_url(address: object) -> bool:
    """Whether an address is that of another machine's files, or of memory: not of a local path."""
    return isinstance(address, str) and _classify(address)[0] not in {None, *_LOCAL_SCHEMES}


def local_path(address: Location) -> str:
    """The path in an address that is not ``is_url``."""
    return _classify(address)[1]


def _classify(url: Location) -> tuple[str | None, str]:
    """Scheme in lower case (None for a local path), and the address as a string."""
    if isinstance(url, str):
        match = _URL.match(url)
        if match is None:
            return None, url
        scheme = match["scheme"].lower()
        if "::" in match[0]:
            return "chained", url
        if scheme in _LOCAL_SCHEMES:
            return scheme, url[match.end() :]
        return scheme, url
    if isinstance(url, (bytes, os.PathLike)):
        return None, os.fsdecode(url)
    msg = f"an address is a str, bytes or os.PathLike, not {type(url).__name__}"
    raise UsageError(msg)


def _open(
    scheme: str | None,
    address: str,
    options: Mapping[str, Any] | None,
    *,
    retry: RetryPolicy | None,
    bandwidth: Bandwidth | None,
    make_root: bool,
) -> Storage:
    if scheme is None or scheme in _LOCAL_SCHEMES:
        if options:
            msg = "storage_options have no meaning for a local path; leave them out"
            raise UsageError(msg)
        if bandwidth is not None:
            from rozenfmt.storage.paced import PacedLocalStorage

            return PacedLocalStorage(address, make_root=make_root, bandwidth=bandwidth)
        from rozenfmt.storage.local import LocalStorage

        return LocalStorage(address, make_root=make_root)
    if scheme in _S3_SCHEMES:
        from rozenfmt.storage.s3 import S3Storage

        return S3Storage(address, options, retry=retry, bandwidth=bandwidth)
    from rozenfmt.storage.generic import GenericStorage

    return GenericStorage(address, options, retry=retry, bandwidth=bandwidth)
