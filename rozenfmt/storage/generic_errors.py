"""What the failures of fsspec's file systems mean: worth another attempt or not, and what to tell the user.

They have no common root: paramiko and webdav4 have trees of their own, others raise what their HTTP
library raises.  So they are recognised by what they carry, an ``errno`` or an HTTP status, and by
name where there is nothing else; importing their libraries would cost what lazy imports save.
"""

from __future__ import annotations

import errno
import time
from typing import Any, Final

from rozenfmt.storage.network import Failure, chain, is_certificate, is_network, retry_after, words

__all__ = ["advice", "describe", "is_final", "is_transient"]

_FINAL_TYPES: Final = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
_FINAL_ERRNO: Final = {
    errno.EDQUOT: "the quota is used up; free some space",
    errno.EFBIG: "the file is larger than the back-end allows",
    errno.EINVAL: "the back-end does not accept this; check the name and the URL",
    errno.ENAMETOOLONG: "the name is too long for the back-end; choose a shorter one",
    errno.ENOSPC: "the back-end's disk is full; free some space",
    errno.EROFS: "the back-end is read-only",
}
# Classes of paramiko and webdav4.
_FULL: Final = "the server's disk is full or the quota used up; free some space"
_LOGIN: Final = "the server refuses the login; check the user name, the password and the key"
_FINAL_NAMES: Final = {
    "AuthenticationException": _LOGIN,
    "BadHostKeyException": "the server's key is another one than before; make sure that it is the right server",
    "ForbiddenOperation": "access is denied; check the credentials and what they may do",
    "InsufficientStorage": _FULL,
    "PasswordRequiredException": "the private key is locked; give its passphrase in storage_options",
    "ResourceConflict": "the folder above it is missing; check the URL",
}
_FINAL_STATUS: Final = {
    401: _LOGIN,
    403: "access is denied; check the credentials and what they may do",
    404: "there is no such object or folder; check the name and the URL",
    405: "the server does not allow this request here; check the URL",
    507: _FULL,
}
# SSHException covers everything that goes wrong on an SSH connection; EOFError is its end.
_TRANSIENT_NAMES: Final = frozenset({"BadGatewayError", "ResourceLocked", "SSHException", "SFTPError"})
_TRANSIENT_STATUS: Final = frozenset({408, 423, 425, 429, 500, 502, 503, 504, 509})
_THROTTLE_STATUS: Final = frozenset({429, 503, 509})
# What an SFTP server says without a reason; it will say so again.
_FINAL_WORDS: Final = frozenset({"Failure", "Bad message", "Operation unsupported"})
_UNKNOWN_HOST: Final = "known_hosts"


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    if not isinstance(error, Exception) or is_final(error):
        return False
    return is_network(error) or isinstance(error, OSError) or _judged_by_answer(error)


def _judged_by_answer(error: Exception) -> bool:
    return _status(error) in _TRANSIENT_STATUS or bool(_names(error) & _TRANSIENT_NAMES)


def is_final(error: Exception) -> bool:
    """Whether no repetition changes it."""
    if isinstance(error, _FINAL_TYPES) or is_certificate(error) or _names(error) & _FINAL_NAMES.keys():
        return True
    status = _status(error)
    if status:
        return status not in _TRANSIENT_STATUS
    if isinstance(error, OSError):
        return error.errno in _FINAL_ERRNO or (error.errno is None and str(error) in _FINAL_WORDS)
    return _is_unknown_host(error)


def describe(error: Exception) -> Failure:
    """What a failure says to those who decide about another attempt."""
    status = _status(error)
    # Of what is not known, it is not known that it was the network.
    silent = is_network(error) or "SSHException" in _names(error)
    headers: Any = next((step.response.headers for step in chain(error) if _has_headers(step)), {})  # type: ignore[attr-defined]
    return Failure(
        f"HTTP {status}" if status else words(error),
        answered=bool(status) or is_final(error) or not silent,
        throttled=status in _THROTTLE_STATUS,
        retry_after=retry_after(headers.get("retry-after"), time.time()),
    )


def advice(error: Exception) -> str:
    """What to do about it."""
    if isinstance(error, FileNotFoundError):
        return _FINAL_STATUS[404]
    if isinstance(error, PermissionError):
        return _FINAL_STATUS[403]
    if isinstance(error, IsADirectoryError):
        return "it is a folder, not an object; choose another name"
    if is_certificate(error):
        return "check the address, and that this machine trusts who signed the server's certificate"
    if _is_unknown_host(error):
        return "make sure that it is the right server, and add its key to known_hosts"
    for name in _names(error) & _FINAL_NAMES.keys():
        return _FINAL_NAMES[name]
    found = _FINAL_STATUS.get(_status(error))
    if found is None and isinstance(error, OSError):
        found = _FINAL_ERRNO.get(error.errno or 0)
    if found is None and is_transient(error):
        found = "it kept failing; check the address and the network, then try again"
    return found or "check the connection and the credentials, then try again"


def _names(error: Exception) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _status(error: Exception) -> int:
    """Status of the HTTP answer, as the libraries carry it; 0 if there was none."""
    for step in chain(error):
        for holder in (step, getattr(step, "response", None)):
            for name in ("status_code", "status", "code"):
                value = getattr(holder, name, None)
                if isinstance(value, int) and 400 <= value < 600:
                    return int(value)
    return 0


def _has_headers(error: BaseException) -> bool:
    return hasattr(getattr(getattr(error, "response", None), "headers", None), "get")


def _is_unknown_host(error: Exception) -> bool:
    return "SSHException" in _names(error) and _UNKNOWN_HOST in str(error)
