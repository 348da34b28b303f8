"""Sources that are URLs: their names, their options, and what must not be told of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.errors import UsageError
from rozenfmt.storage.location import is_url
from rozenfmt.storage.redact import Redactor, server_of
from rozenfmt.tree.remote_files import origin_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rozenfmt.storage.base import Storage

__all__ = ["Remote", "checked_options", "options_among", "pattern_of_vault", "remote_of"]

_URL: Final = re.compile(r"(?:[A-Za-z0-9+._-]+::)*(?P<scheme>[A-Za-z][A-Za-z0-9+._-]*)://(?P<rest>.*)", re.DOTALL)
_LOGIN_SCHEMES: Final = frozenset({"ftp", "sftp", "smb", "ssh"})
_SAME_SCHEMES: Final = {"ssh": "sftp", "s3a": "s3", "dav": "webdav"}


@dataclass(frozen=True, slots=True)
class Remote:
    """A URL to be backed up.

    Attributes:
        url: As it was given; it may hold a password.
        options: Of its file system.
        origin: What is stored and told of it.
    """

    url: str = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)
    origin: str

    @property
    def base_name(self) -> bytes:
        """Last component of its path; else the bucket or the host."""
        match = _URL.match(self.origin)
        assert match is not None
        place = match["rest"].partition("::")[0].rstrip("/")
        last = place.rpartition("/")[2]
        if "/" not in place:
            last = re.sub(r":[0-9]+$", "", last)
        return last.encode("utf-8", "surrogateescape") or b"root"

    @property
    def open_url(self) -> str | None:
        """The URL, if it holds nothing secret and may be written down; who logs in is no secret, but a token is."""
        before, at, after = self.url.partition("@")
        scheme, slashes, user = before.partition("://")
        named = at and ":" not in user and "/" not in user and scheme.lower() in _LOGIN_SCHEMES
        bare = scheme + slashes + after if named else self.url
        return self.url if bare == self.origin else None


def checked_options(source_options: Mapping[str, Any] | None, urls: Iterable[str]) -> Mapping[str, Any]:
    """Options of sources, if they can mean something.

    Raises:
        UsageError: They are no mapping, or name a URL that no source has.
    """
    options = source_options or {}
    if not isinstance(options, Mapping):
        msg = "source_options is a mapping: of options, or of URLs to options"
        raise UsageError(msg)
    given = list(urls)
    if options and not given:
        msg = "source_options are for sources that are URLs, and there is none"
        raise UsageError(msg)
    for key, value in options.items():
        if "://" not in key:
            continue
        if not isinstance(value, Mapping):
            msg = f"source_options: what stands for {origin_of(key)!r} is no mapping of options"
            raise UsageError(msg)
        if not any(_is_below(url, key) for url in given):
            msg = f"source_options: no source is {origin_of(key)!r} or below"
            raise UsageError(msg)
    return options


def options_among(source_options: Mapping[str, Any] | None, urls: Iterable[str]) -> Mapping[str, Any] | None:
    """Of options for several backups, those that can mean something to one of them."""
    given = list(urls)
    if not given or not isinstance(source_options, Mapping):
        return source_options if given else None
    return {
        key: value
        for key, value in source_options.items()
        if "://" not in key or any(_is_below(url, key) for url in given)
    }


def remote_of(url: str, source_options: Mapping[str, Any]) -> Remote:
    """A source, with the options that are for it: those for all, and above them those of its URL's beginnings."""
    options = {key: value for key, value in source_options.items() if "://" not in key}
    for key in sorted((key for key in source_options if "://" in key), key=len):
        if _is_below(url, key):
            options.update(source_options[key])
    return Remote(url, options, Redactor(url, options).text(origin_of(url)))


def _is_below(url: str, prefix: str) -> bool:
    """Whether a URL begins with another one, by whole components; who logs in is of no account."""
    one, other = origin_of(url), origin_of(prefix)
    return one.rstrip("/") == other.rstrip("/") or one.startswith(other if other.endswith("/") else other + "/")


def pattern_of_vault(storage: Storage, remote: Remote) -> str | None:
    """Pattern of the vault, if it lies below a source.

    Raises:
        UsageError: It is the source.
    """
    vault = getattr(storage, "url", "")
    if not is_url(vault) or getattr(storage, "server", None) != server_of(remote.options):
        return None
    base, own = _normal(remote.origin), _normal(origin_of(vault))
    if base == own:
        msg = f"{remote.origin} is the vault itself; it cannot be a source"
        raise UsageError(msg)
    if not own.startswith(base + "/"):
        return None
    return "/" + "".join("\\" + c if c in "\\*?[]!# " else c for c in own[len(base) + 1 :]) + "/"


def _normal(url: str) -> str:
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    return f"{_SAME_SCHEMES.get(scheme, scheme)}://{rest.strip('/')}"
