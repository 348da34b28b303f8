"""As much of HTTP/1.1 as a proxy needs: heads, the lengths of bodies, and the names of S3's requests."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from asyncio import StreamReader
    from collections.abc import AsyncIterator

__all__ = [
    "AT_END",
    "CHUNKED",
    "Head",
    "Piece",
    "content_of",
    "error_answer",
    "operation_of",
    "read_head",
    "read_pieces",
]

CHUNKED: Final = -1
"""A body in chunks that say their lengths."""
AT_END: Final = -2
"""A body that ends with the connection."""

_LENGTH: Final = re.compile(rb"(?im)^(?:content-length|transfer-encoding):[^\r\n]*")
_REASONS: Final = {200: "OK", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Slow Down"}


class Head(NamedTuple):
    """The head of a request or an answer.

    Attributes:
        raw: All of it, the empty line included.
        first: The words of its first line: method and target, or version and status.
        headers: By name in lower case.

    """

    raw: bytes
    first: tuple[str, str]
    headers: dict[str, str]

    @property
    def stays(self) -> bool:
        """Whether the connection can be used again."""
        connection = self.headers.get("connection", "").lower()
        return connection == "keep-alive" if self.first[0] == "HTTP/1.0" else connection != "close"

    def replaced_length(self, length: int | None) -> bytes:
        """The same head, announcing another length."""
        return _LENGTH.sub(b"Content-Length: %d" % (length or 0), self.raw)


class Piece(NamedTuple):
    """Some bytes as they are on the wire, and how many of them belong to the content."""

    data: bytes
    size: int


async def read_head(reader: StreamReader) -> Head | None:
    """The next head, or None if the other side has ended the connection between two messages."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    lines = raw.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return Head(raw, (words[0], words[1]), headers)


def content_of(head: Head, *, request: bool = True) -> int | None:
    """Length of a body: a number, ``CHUNKED`` or ``AT_END``; None for a request without one."""
    if "chunked" in head.headers.get("transfer-encoding", "").lower():
        return CHUNKED
    if "content-length" in head.headers:
        return int(head.headers["content-length"])
    return None if request else AT_END


async def read_pieces(reader: StreamReader, length: int | None, size: int) -> AsyncIterator[Piece]:
    """The bytes of a body as they are on the wire, in pieces of ``size`` bytes at most."""
    if length == CHUNKED:
        while True:
            line = await reader.readuntil(b"\r\n")
            yield Piece(line, 0)
            left = int(line.split(b";")[0], 16)
            if not left:
                break
            async for piece in _exactly(reader, left, size):
                yield piece
            yield Piece(await reader.readexactly(2), 0)
        while True:  # Trailers, up to an empty line.
            line = await reader.readuntil(b"\r\n")
            yield Piece(line, 0)
            if line == b"\r\n":
                return
    if length == AT_END:
        while data := await reader.read(size):
            yield Piece(data, len(data))
        return
    async for piece in _exactly(reader, length or 0, size):
        yield piece


async def _exactly(reader: StreamReader, length: int, size: int) -> AsyncIterator[Piece]:
    while length:
        data = await reader.read(min(size, length))
        if not data:
            raise asyncio.IncompleteReadError(b"", length)
        length -= len(data)
        yield Piece(data, len(data))


def error_answer(status: int, code: str, *, body: bool) -> bytes:
    """An error as servers of S3 answer it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>on purpose</Message></Error>'
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    return (head + text * body).encode()


def operation_of(head: Head) -> str:
    """Name of a request in the API of S3."""
    method, target = head.first
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    copies = "x-amz-copy-source" in head.headers
    whole = "/" not in parts.path.strip("/")  # of a bucket, at an address of the form /bucket/key
    if "uploadId" in query:
        part = "UploadPartCopy" if copies else "UploadPart"
        return {
            "PUT": part,
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
            "GET": "ListParts",
        }.get(method, method)
    if "uploads" in query:
        return "CreateMultipartUpload" if method == "POST" else "ListMultipartUploads"
    if method == "POST" and "delete" in query:
        return "DeleteObjects"
    if whole:
        names = {"GET": "ListObjectsV2" if "list-type" in query else "GetBucket", "PUT": "CreateBucket"}
        return names.get(method, f"{method.title()}Bucket")
    return {
        "PUT": "CopyObject" if copies else "PutObject",
        "GET": "GetObject",
        "HEAD": "HeadObject",
        "DELETE": "DeleteObject",
    }.get(method, method)
