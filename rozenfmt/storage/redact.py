"""Keeping secrets out of messages.

Back-ends put URLs, and sometimes the options they were given, into their exceptions.  What this
library says about a failure passes through a ``Redactor`` first, and an exception whose own text
holds a secret is not chained, since a traceback would print it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Redactor", "server_of"]

_MASK = "***"
_USERINFO = re.compile(r"(://)[^/@\s]*@")
# Signatures travel in queries: presigned URLs, shared access signatures.
_QUERY = re.compile(r"(\bhttps?://[^\s?'\"]*|[^\s?'\"]*)\?[^\s'\"]*=[^\s'\"]*")
# Shorter values ("us", "22", "true") would mask ordinary words and protect nothing.
_MIN_SECRET = 6
# Values that name places, not secrets; masking them would only make messages useless.
_PLAIN_OPTIONS = frozenset({"endpoint_url", "host", "hostname", "region_name", "username", "base_url", "bucket"})

_SERVER_OPTIONS = ("endpoint_url", "base_url", "host", "port", "account_name")


class Redactor:
    """Masks the secrets of one storage.

    Args:
        url: The address as the user gave it, which may hold a password or a signature.
        options: The options as the user gave them.

    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        found = set(_secrets(options or {}))
        match = re.search(r"://([^/@\s]*)@", url)
        if match:
            found.add(match[1].partition(":")[2])
        # Longest first, so that a secret that contains another is masked whole.
        self._secrets = sorted((s for s in found if len(s) >= _MIN_SECRET), key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text without known secrets, passwords in URLs and queries."""
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        text = _USERINFO.sub(rf"\1{_MASK}@", text)
        return _QUERY.sub(rf"\1?{_MASK}", text)

    def cause(self, error: BaseException) -> BaseException | None:
        """The error if its whole chain may be shown as a cause, else None."""
        step: BaseException | None = error
        seen: set[int] = set()
        while step is not None and id(step) not in seen:
            seen.add(id(step))
            shown = f"{step} {step.args!r}"
            if self.text(shown) != shown:
                return None
            step = step.__cause__ or step.__context__
        return error


def server_of(options: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Which server options name, where the address alone does not: the same address may be two places."""
    return tuple(str((options or {}).get(key, "")).rstrip("/") for key in _SERVER_OPTIONS)


def _secrets(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, str):
        if name not in _PLAIN_OPTIONS:
            yield value
    elif isinstance(value, bytes):
        yield value.decode("latin-1")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secrets(item, str(key))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _secrets(item, name)
