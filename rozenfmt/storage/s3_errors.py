"""What the answers of an S3 server mean: worth another attempt or not, and what to tell the user.

The errors arrive as botocore's ``ClientError``, or as the ``OSError`` that s3fs makes of it and
chains to it; the code in the response is what counts.  Texts of servers are not repeated: some
quote the request.
"""

from __future__ import annotations

from typing import Any, Final

from rozenfmt.errors import StorageError

__all__ = ["FORBIDDEN", "NOT_FOUND", "IntegrityError", "code_of", "explain", "is_transient"]


class IntegrityError(Exception):
    """The server holds other bytes than those that were sent, or sent fewer than it announced."""


_TRANSIENT_CODES: Final = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
        "XAmzContentSHA256Mismatch",
    }
)
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
_TRANSIENT_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

# Exceptions of botocore, aiohttp and s3fs by name: importing them here would cost what the lazy
# import of the back-end saves.
_TRANSIENT_TYPES: Final = frozenset(
    {
        "ClientPayloadError",
        "ClientOSError",
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "EndpointConnectionError",
        "HTTPClientError",
        "IncompleteReadError",
        "ReadTimeoutError",
        "ResponseParserError",
        "ResponseStreamingError",
        "ServerDisconnectedError",
        "ServerTimeoutError",
    }
)
_CREDENTIAL_TYPES: Final = frozenset(
    {
        "CredentialRetrievalError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "SSOTokenLoadError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    }
)

_CREDENTIALS: Final = "check the access key, the secret and the session token"
_ADVICE: Final[dict[str, str]] = {
    "AuthorizationHeaderMalformed": "check the region in client_kwargs",
    "EntityTooLarge": "the object is larger than the server allows; split the data",
    "EntityTooSmall": "the server wants larger parts; pass a larger part_size",
    "ExpiredToken": "the session token has expired; get a new one",
    "InvalidAccessKeyId": _CREDENTIALS,
    "InvalidBucketName": "the name of the bucket is not valid; correct the URL",
    "InvalidObjectState": "the object is in cold storage; restore (thaw) it first",
    "InvalidToken": _CREDENTIALS,
    "KeyTooLongError": "the name is too long for S3; choose a shorter one",
    "NoSuchBucket": "the bucket does not exist; create it, or correct the URL",
    "NoSuchKey": "there is no such object; check the name",
    "NoSuchUpload": "the unfinished upload is gone (aborted by somebody or a lifecycle rule); begin again",
    "NotImplemented": "the server does not implement this request; another provider or version is needed",
    "PermanentRedirect": "the bucket lives in another region; set region_name in client_kwargs",
    "QuotaExceeded": "the quota of the bucket is used up; free some space",
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "SignatureDoesNotMatch": _CREDENTIALS,
    "XMinioStorageFull": "the server's disks are full; free some space",
}
_ADVICE_STATUS: Final[dict[int, str]] = {
    401: _CREDENTIALS,
    NOT_FOUND: "there is no such object or bucket; check the name and the URL",
    405: "the server does not allow this request here; check the URL and the object's retention",
    507: "the server's disks are full; free some space",
}


def code_of(error: BaseException) -> tuple[str, int]:
    """Code and HTTP status of the server's answer; ``("", 0)`` if there was none."""
    step: BaseException | None = error
    while step is not None:
        response: Any = getattr(step, "response", None)
        if isinstance(response, dict):
            code = str(response.get("Error", {}).get("Code", ""))
            status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
            if not status and code.isdigit():
                status = int(code)
            return code, status
        step = step.__cause__
    return "", 0


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, IntegrityError):
        return True
    if not isinstance(error, Exception):
        return False
    code, status = code_of(error)
    if code or status:
        # A few servers answer 200 or 500 with a code that no repetition changes.
        return code in _TRANSIENT_CODES or (status in _TRANSIENT_STATUS and code not in _ADVICE)
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & _TRANSIENT_TYPES) or "FSTimeoutError" in names


def explain(error: Exception, *, action: str, where: str, permission: str, name: str | None) -> StorageError:
    """Say what failed, where, and what to do.

    Args:
        error: What s3fs or botocore raised, after all attempts.
        action: What was tried, to follow "cannot".
        where: The object or folder, without secrets.
        permission: The S3 permission that the action needs.
        name: Name of the object within its storage.

    """
    code, status = code_of(error)
    transient = is_transient(error)
    reason = " ".join(filter(None, [code if not code.isdigit() else "", f"HTTP {status}" if status else ""]))
    if isinstance(error, IntegrityError):
        reason = str(error)
        advice = "the network or the server changes data; do not trust it before the cause is found"
    elif type(error).__name__ in _CREDENTIAL_TYPES:
        reason = type(error).__name__
        advice = "no usable credentials were found; pass key and secret in storage_options, or set up a profile"
    elif code in _ADVICE:
        advice = _ADVICE[code]
    elif status == FORBIDDEN:
        advice = f"access is denied; grant {permission} to these credentials, or use others"
    elif status in _ADVICE_STATUS:
        advice = _ADVICE_STATUS[status]
    elif transient:
        reason = reason or type(error).__name__
        advice = "it kept failing after several attempts; check the network and the endpoint, then try again"
    else:
        reason = reason or type(error).__name__
        advice = "see the cause"
    return StorageError(f"cannot {action} {where}: {reason}; {advice}", object=name, fatal=not transient)
