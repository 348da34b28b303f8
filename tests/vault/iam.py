"""Policies as AWS evaluates them, in front of a server that lets everybody do everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from rozenfmt.storage.s3 import S3Storage

ACTIONS = {
    "list_objects_v2": "s3:ListBucket",
    "list_object_versions": "s3:ListBucketVersions",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
    "get_bucket_versioning": "s3:GetBucketVersioning",
    "get_object_lock_configuration": "s3:GetBucketObjectLockConfiguration",
    "get_bucket_lifecycle_configuration": "s3:GetLifecycleConfiguration",
    "get_public_access_block": "s3:GetBucketPublicAccessBlock",
    "get_object": "s3:GetObject",
    "head_object": "s3:GetObject",
    "put_object": "s3:PutObject",
    "copy_object": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "upload_part": "s3:PutObject",
    "upload_part_copy": "s3:PutObject",
    "complete_multipart_upload": "s3:PutObject",
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "list_parts": "s3:ListMultipartUploadParts",
    "delete_object": "s3:DeleteObject",
}
# What makes an object, and not a part of one.
CREATING = {"put_object", "copy_object", "complete_multipart_upload"}


class Guard:
    """Decides about requests, and takes note of them.

    Args:
        allow: The policy of whoever makes the requests.
        bucket: The policy of the bucket, which may deny.
    """

    def __init__(self, allow: dict[str, Any], bucket: dict[str, Any] | None = None) -> None:
        self._statements = [*allow["Statement"], *(bucket or {"Statement": []})["Statement"]]
        self.refused: list[tuple[str, str]] = []
        self.allowed: list[tuple[str, str]] = []

    def permits(self, method: str, arguments: dict[str, Any]) -> bool:
        """Whether all actions of a request are allowed."""
        asked = [(ACTIONS[method], arguments.get("Key"))]
        if "VersionId" in arguments:
            asked = [("s3:DeleteObjectVersion", arguments["Key"])]
        if "CopySource" in arguments:
            asked.append(("s3:GetObject", arguments["CopySource"]["Key"]))
        context = {"s3:prefix": arguments.get("Prefix"), "s3:if-none-match": arguments.get("IfNoneMatch")}
        context["s3:ObjectCreationOperation"] = str(method in CREATING).lower()
        return all(self._decide(action, arguments["Bucket"], key, context) for action, key in asked)

    def _decide(self, action: str, bucket: str, key: str | None, context: dict[str, str | None]) -> bool:
        resource = f"arn:aws:s3:::{bucket}" + (f"/{key}" if key is not None else "")
        effects = {
            one["Effect"]
            for one in self._statements
            if any(like(action, pattern) for pattern in listed(one["Action"]))
            and any(like(resource, pattern) for pattern in listed(one["Resource"]))
            and holds(one.get("Condition", {}), context)
        }
        return effects == {"Allow"}


def like(value: str, pattern: str) -> bool:
    """As IAM has it: ``*`` and ``?``, nothing else."""
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(char, re.escape(char)) for char in pattern), value, re.DOTALL) is not None


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def holds(conditions: dict[str, dict[str, Any]], context: dict[str, str | None]) -> bool:
    def one(operator: str, key: str, wanted: Any) -> bool:
        value = context[key]
        if operator == "Null":
            return (value is None) is (wanted == "true")
        if operator == "Bool":
            return value == str(wanted)
        assert operator == "StringLike"
        return value is not None and any(like(value, pattern) for pattern in listed(wanted))

    return all(one(operator, key, wanted) for operator, rows in conditions.items() for key, wanted in rows.items())


@contextmanager
def guarded(monkeypatch: pytest.MonkeyPatch, guard: Guard) -> Iterator[Guard]:
    """While the block runs, every request to S3 goes past the guard."""
    send = S3Storage.send

    async def decide(self: S3Storage, method: str, arguments: Any) -> Any:
        where = str(arguments.get("Key", arguments.get("Prefix", "")))
        if guard.permits(method, dict(arguments)):
            guard.allowed.append((method, where))
            try:
                return await send(self, method, arguments)
            except FileNotFoundError:
                # Whether a key is there is told to those only who may list without giving a prefix.
                if method != "get_object" or guard.permits("list_objects_v2", {"Bucket": arguments["Bucket"]}):
                    raise
        guard.refused.append((method, where))
        answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(answer, method)

    with monkeypatch.context() as patch:
        patch.setattr(S3Storage, "send", decide)
        yield guard
