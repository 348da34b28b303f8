"""What the answers of an S3 server mean: worth another attempt or not, and what to tell the user.

The errors arrive as botocore's ``ClientError``, or as the ``OSError`` that s3fs makes of it and
chains to it; the code in the response is what counts.  Texts of servers are not repeated: some
quote the request.
"""

from __future__ import annotations

import time
from typing import Any, Final

from rozenfmt.errors import StorageError
from rozenfmt.storage.network import Failure, chain, is_certificate, is_network, retry_after, words

__all__ = [
    "FORBIDDEN",
    "NOT_FOUND",
    "IntegrityError",
    "code_of",
    "describe",
    "explain",
    "is_throttle",
    "is_transient",
]


class IntegrityError(Exception):
    """The server holds other bytes than those that were sent, or sent fewer than it announced."""


# ServiceUnavailable is what S3 says when it wants fewer requests but has no time for SlowDown.
_THROTTLE_CODES: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "Throttled",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
    }
)
_TRANSIENT_CODES: Final = _THROTTLE_CODES | {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "XAmzContentSHA256Mismatch",
}
_THROTTLE_STATUS: Final = frozenset({429, 503})
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
_TRANSIENT_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

# Exceptions of botocore by name: importing them here would cost what its lazy import saves.
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
_FULL: Final = "the server's disks are full; free some space"
_QUOTA: Final = "the quota is used up; free some space, or raise it"
_EXPIRED: Final = "the session token has expired; get a new one"
_ADVICE: Final[dict[str, str]] = {
    "AccountProblem": "there is a problem with the account; ask the provider",
    "AllAccessDisabled": "the provider has disabled all access to it; ask the provider",
    "AuthorizationHeaderMalformed": "check the region in client_kwargs",
    "EntityTooLarge": "the object is larger than the server allows; split the data",
    "EntityTooSmall": "the server wants larger parts; pass a larger part_size",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
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
    "NotSignedUp": "the account is not signed up for this service; ask the provider",
    "QuotaExceeded": _QUOTA,
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "ServiceQuotaExceeded": _QUOTA,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "TokenRefreshRequired": _EXPIRED,
    "XMinioAdminBucketQuotaExceeded": _QUOTA,
    "XMinioStorageFull": _FULL,
}
_ADVICE_STATUS: Final[dict[int, str]] = {
    401: _CREDENTIALS,
    NOT_FOUND: "there is no such object or bucket; check the name and the URL",
    405: "the server does not know or does not allow this request; check the URL and the object's retention",
    507: _FULL,
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
    return is_network(error)


def is_throttle(error: BaseException) -> bool:
    """Whether the server asks for fewer requests."""
    code, status = code_of(error)
    return code in _THROTTLE_CODES or (status in _THROTTLE_STATUS and code not in _ADVICE)


def describe(error: Exception, *, action: str, where: str) -> Failure:
    """What a failure says to those who decide about another attempt."""
    code, status = code_of(error)
    return Failure(
        str(error) if isinstance(error, IntegrityError) else _answer(code, status) or words(error),
        answered=bool(code or status) or isinstance(error, IntegrityError),
        throttled=is_throttle(error),
        retry_after=retry_after(_headers(error).get("retry-after"), time.time()),
        action=action,
        where=where,
    )


def _answer(code: str, status: int) -> str:
    return " ".join(filter(None, [code if not code.isdigit() else "", f"HTTP {status}" if status else ""]))


def _headers(error: BaseException) -> dict[str, str]:
    for step in chain(error):
        response: Any = getattr(step, "response", None)
        if isinstance(response, dict):
            headers: dict[str, str] = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            return headers
    return {}


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
    reason = _answer(code, status)
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
    elif is_certificate(error):
        reason = words(error)
        advice = "check the address, and that this machine trusts who signed it (AWS_CA_BUNDLE)"
    elif transient:
        reason = reason or words(error)
        advice = "it kept failing; check the network and the endpoint, then try again"
    else:
        reason = reason or type(error).__name__
        advice = "see the cause"
    return StorageError(f"cannot {action} {where}: {reason}; {advice}", object=name, fatal=not transient)
