"""What the storage must allow whom: policies for each role, from a vault's address alone.

The documentation shows these same policies (a test compares), and a test holds every request that the
roles make against them.  Nothing here asks the storage.
"""

from __future__ import annotations

from typing import Any, Final

from rozenfmt.errors import UsageError

from . import layout

__all__ = ["ELSEWHERE", "PLACEHOLDER", "RECOMMENDED", "ROLE_WORDS", "bucket_of", "bucket_policy", "lifecycle", "policy"]

PLACEHOLDER: Final = "HOSTID"
_ARN: Final = "arn:aws:s3:::"
_VERSION: Final = "2012-10-17"
_ABORT_DAYS: Final = 7

ROLE_WORDS: Final = {
    "host": "backs up; reads nothing but editions, deletes nothing",
    "reader": "lists and reads everything: restores, browses, verifies",
    "owner": "does what a reader does, and puts editions",
    "maintenance": "deletes what is obsolete, and finds unfinished uploads; nothing in the library needs it yet",
}


def bucket_of(url: str) -> tuple[str, str]:
    """Bucket and folder (empty, or with a slash at its end) of an address in S3.

    Raises:
        UsageError: It is no such address.
    """
    scheme, separator, path = url.partition("://")
    if not separator or scheme.lower() not in {"s3", "s3a"}:
        msg = f"{url!r} is no address in S3: policies in JSON are for s3://BUCKET/FOLDER"
        raise UsageError(msg)
    bucket, _, folder = path.strip("/").partition("/")
    if not bucket:
        msg = f"{url!r} names no bucket; write s3://BUCKET/FOLDER"
        raise UsageError(msg)
    return bucket, f"{folder}/" if folder else ""


def policy(role: str, url: str, host_id: str = PLACEHOLDER) -> dict[str, Any]:
    """The policy of a role, for IAM of AWS and for MinIO.

    Args:
        role: ``host``, ``reader``, ``owner`` or ``maintenance``.
        url: The vault's address, ``s3://BUCKET/FOLDER``.
        host_id: Of a host: its id in hexadecimal.

    Raises:
        UsageError: There is no such role, or the address is not in S3.
    """
    bucket, folder = bucket_of(url)
    makers = {"host": _host, "reader": _reader, "owner": _owner, "maintenance": _maintenance}
    if role not in makers:
        msg = f"unknown role {role!r}: use {', '.join(makers)}"
        raise UsageError(msg)
    return {"Version": _VERSION, "Statement": makers[role](bucket, folder, host_id)}


def _host(bucket: str, folder: str, host_id: str) -> list[dict[str, Any]]:
    own = [f"{folder}{place}{host_id}/*" for place in (layout.META, layout.DATA, layout.ARENA, layout.PROBE)]
    listed = [f"{folder}{layout.EDITIONS}*", *own, f"{folder}{layout.GONE}{host_id}/*"]
    return [
        _list(bucket, listed),
        _allow("s3:GetObject", f"{_ARN}{bucket}/{folder}{layout.EDITIONS}*"),
        _allow(
            ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
            [f"{_ARN}{bucket}/{prefix}" for prefix in own],
        ),
    ]


def _reader(bucket: str, folder: str, _host_id: str) -> list[dict[str, Any]]:
    return [_list(bucket, f"{folder}*"), _allow("s3:GetObject", f"{_ARN}{bucket}/{folder}*")]


def _owner(bucket: str, folder: str, host_id: str) -> list[dict[str, Any]]:
    places = [f"{folder}{layout.EDITIONS}*", f"{folder}{layout.probe_place(None)}*"]
    return [
        *_reader(bucket, folder, host_id),
        _allow(["s3:PutObject", "s3:AbortMultipartUpload"], [f"{_ARN}{bucket}/{place}" for place in places]),
    ]


def _maintenance(bucket: str, folder: str, host_id: str) -> list[dict[str, Any]]:
    places = [layout.META, layout.DATA, layout.ARENA, layout.PROBE]
    return [
        *_reader(bucket, folder, host_id),
        _allow("s3:ListBucketMultipartUploads", f"{_ARN}{bucket}"),
        _allow(
            ["s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
            [f"{_ARN}{bucket}/{folder}{place}*" for place in places],
        ),
        _allow("s3:PutObject", f"{_ARN}{bucket}/{folder}{layout.GONE}*"),
    ]


def _list(bucket: str, prefixes: str | list[str]) -> dict[str, Any]:
    found = _allow("s3:ListBucket", f"{_ARN}{bucket}")
    return {**found, "Condition": {"StringLike": {"s3:prefix": prefixes}}}


def _allow(actions: str | list[str], resources: str | list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}


def bucket_policy(url: str) -> dict[str, Any]:
    """The policy of the bucket that lets nobody overwrite anything in the vault (AWS)."""
    bucket, folder = bucket_of(url)
    return {
        "Version": _VERSION,
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:PutObject",
                "Resource": f"{_ARN}{bucket}/{folder}*",
                "Condition": {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}},
            }
        ],
    }


def lifecycle(url: str, *, days: int = _ABORT_DAYS) -> dict[str, Any]:
    """The rule of the bucket that aborts uploads which nobody finishes.

    Args:
        url: The vault's address.
        days: After which they are aborted; an upload that rests longer cannot be resumed.
    """
    _, folder = bucket_of(url)
    return {
        "Rules": [
            {
                "ID": "abort-unfinished-uploads",
                "Status": "Enabled",
                "Filter": {"Prefix": folder},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
            }
        ]
    }


RECOMMENDED: Final = {
    "Versioning, or Object Lock": (
        "A right to put is a right to overwrite, unless the bucket says otherwise. With versions, what was overwritten "
        "or deleted is still there; with Object Lock it cannot be deleted before its time, by nobody in compliance "
        "mode. Versions of what was deleted cost as before; let a rule remove noncurrent versions after some months."
    ),
    "A rule that aborts unfinished uploads after a week": (
        "A machine that is switched off leaves the parts of its upload, which cost and which no listing shows. "
        "The rule ends the chance to resume that upload, not the backup: the next one sends it again."
    ),
    "Rules that name data/ only": (
        "A rule that moves objects to a cold class, or deletes them, must name no other folder. Without meta/ and "
        "editions/ nothing can be listed, planned or verified; what is in arena/ is small, and is to be joined."
    ),
    "Public access blocked": (
        "The vault is encrypted, but sizes, times and names of hosts' folders are not for everybody."
    ),
}
"""Settings of a bucket, each with its reason."""

ELSEWHERE: Final = {
    "MinIO": (
        "The same JSON: mc admin policy create ALIAS NAME FILE, then mc admin policy attach ALIAS NAME --user USER. "
        "The policy of the bucket uses conditions that MinIO does not have; use versioning or object locking."
    ),
    "Backblaze B2": (
        "An application key has a set of capabilities for one name prefix, so a host cannot have two prefixes: give "
        "it the vault's folder with listBuckets, listFiles, readFiles and writeFiles (and listAllBucketNames for the "
        "S3 interface), without deleteFiles. It can read the other hosts' archives, which are encrypted, and can hide "
        "files, which can be undone; it cannot remove versions. A reader: the same without writeFiles. Maintenance: "
        "with deleteFiles. B2 keeps versions always; Object Lock is a setting of the bucket."
    ),
    "Cloudflare R2": (
        "A token has Object Read & Write or Object Read only, for whole buckets; writing includes deleting, and there "
        "is no right to write only. Give each vault a bucket of its own, readers a token that reads only, and protect "
        "the bucket against its writers by a bucket lock rule (retention by prefix: meta/, data/, editions/). "
        "Temporary credentials can be narrowed to prefixes."
    ),
    "Google Cloud Storage": (
        "By its S3 interface (s3://, endpoint_url=https://storage.googleapis.com, an HMAC key of a service account for "
        "each role). Host: roles/storage.objectCreator on the vault's folder, and a role of its own with "
        "storage.objects.list and storage.multipartUploads.listParts. Creating does not include overwriting there: "
        "that takes storage.objects.delete, which a host does not get. Editions: storage.objects.get, by a condition "
        "on the object's name or a managed folder. Reader: roles/storage.objectViewer. Maintenance: "
        "roles/storage.objectUser. By gcs:// a host needs storage.objects.delete too, since what it writes is moved to "
        "its name."
    ),
    "Azure Blob Storage": (
        "A shared access signature for the container, or for a directory where the account has a hierarchical "
        "namespace. Host: create and list (sp=cl), and read for editions/. By abfs:// what is written is moved to its "
        "name, so a host needs write and delete as well: protect the container by immutable storage with versions, or "
        "soft delete. Reader: read and list (sp=rl). Maintenance: with delete (sp=rld)."
    ),
    "SFTP, WebDAV, a disk": (
        "Who can write can usually delete. Serve the folder by something that forbids it, or take snapshots of the "
        "file system below it."
    ),
}
"""What stands for the policies at other providers."""
