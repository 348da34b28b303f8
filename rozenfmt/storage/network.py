"""What a failure of the network means, whichever library brings it.

Every library wraps the errors of sockets in its own: botocore those of aiohttp, webdav4 those of
httpx and httpcore, paramiko its own.  What happened stands at the end of the chain.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Failure", "chain", "is_certificate", "is_network", "retry_after", "words"]

# Exceptions by name: importing their libraries, and ssl, would cost what lazy imports save.
_NETWORK_TYPES: Final = frozenset(
    {
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",
        "ConnectTimeoutError",  # botocore
        "ConnectionClosedError",
        "EndpointConnectionError",
        "FSTimeoutError",  # fsspec
        "HTTPClientError",
        "IncompleteReadError",
        "NoValidConnectionsError",  # paramiko
        "ProxyConnectionError",
        "ReadTimeoutError",
        "ResponseParserError",
        "ResponseStreamingError",
        "SSLError",
        "TransportError",  # httpx
        "gaierror",  # socket
    }
)
_UNREACHABLE: Final = {
    errno.ENETUNREACH: "the network cannot be reached",
    errno.ENETDOWN: "the network is down",
    errno.EHOSTUNREACH: "the host cannot be reached",
    errno.EHOSTDOWN: "the host is down",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What one failed attempt says to those who decide about the next.

    Attributes:
        reason: In words, without secrets.
        answered: Whether the server answered at all.
        throttled: Whether it asks for fewer requests.
        retry_after: Seconds that it asks to wait, if it says so.
        action: What was tried, to follow "cannot"; empty if the caller knows it.
        where: The object or folder, without secrets; likewise.

    """

    reason: str = ""
    answered: bool = False
    throttled: bool = False
    retry_after: float | None = None
    action: str = ""
    where: str = ""


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it, each once."""
    step: BaseException | None = error
    seen: set[int] = set()
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        # paramiko keeps what happened at each address of a host.
        attempts = getattr(step, "errors", None)
        if isinstance(attempts, dict) and isinstance(step, OSError):
            yield from (one for one in attempts.values() if isinstance(one, OSError))
        step = step.__cause__ or step.__context__


def is_certificate(error: BaseException) -> bool:
    """Whether the server's certificate was refused, which no repetition changes."""
    return any("SSLCertVerificationError" in _names(step) for step in chain(error))


def is_network(error: BaseException) -> bool:
    """Whether it was the network, or a server that broke off."""
    if not isinstance(error, Exception) or is_certificate(error):
        return False
    if isinstance(error, (ConnectionError, TimeoutError, EOFError)):
        return True
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return True
    return bool(_names(error) & _NETWORK_TYPES)


def words(error: BaseException) -> str:
    """What happened, for a person; the name of the error where there is nothing better."""
    for step in chain(error):
        found = _words(step)
        if found:
            return found
    return type(error).__name__


def _words(step: BaseException) -> str:
    names = _names(step)
    if "gaierror" in names:
        return "the name of the host cannot be resolved"
    if "SSLCertVerificationError" in names:
        why = getattr(step, "verify_message", "")  # aiohttp's class of this family has none
        return f"the certificate of the server is refused ({why})" if why else ""
    if "SSLError" in names and isinstance(step, OSError):
        reason = getattr(step, "reason", "")
        return f"TLS fails ({reason})" if reason else ""
    if isinstance(step, ConnectionRefusedError):
        return "the connection is refused"
    if isinstance(step, ConnectionError) and type(step).__module__ == "builtins":
        return "the connection was cut"
    if isinstance(step, TimeoutError) or "Timeout" in type(step).__name__:
        return "no answer in time"
    return _UNREACHABLE.get(getattr(step, "errno", None) or 0, "")


def _names(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def retry_after(value: object, now: float) -> float | None:
    """Seconds from a ``Retry-After`` header, which holds seconds or a date; None if it holds neither.

    Args:
        value: The header.
        now: Seconds since 1970.

    """
    text = str(value or "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None
