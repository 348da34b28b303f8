"""Files of a WebDAV server.

The file system of the package ``webdav4`` takes a path with ``%41`` in it for another one, and refuses ``?``; so it is
given them encoded.  It cannot open those, and asks three times before it reads: ranges are read by its HTTP client.
"""

from __future__ import annotations

import errno
import re
from typing import Any, Final
from urllib.parse import quote

from .remote_files import FsspecFiles

__all__ = ["WebdavFiles"]

_PARTIAL: Final = 206
_NOT_SATISFIABLE: Final = 416
_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class WebdavFiles(FsspecFiles):
    """A folder of a WebDAV server; the arguments are those of ``FsspecFiles``."""

    def _address(self, path: str) -> str:
        return quote(path, errors="surrogateescape")

    def _read(self, path: str, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        client = self._fs.client
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        with client.http.stream("GET", client.join_url(self._address(path)), headers=headers) as answer:
            if answer.status_code == _NOT_SATISFIABLE:
                return b""  # the file ends before
            answer.raise_for_status()
            return self._taken(answer, start, end - start)

    @staticmethod
    def _taken(answer: Any, start: int, length: int) -> bytes:
        """The bytes of an answer: it may be the whole file, which may be long."""
        told = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if start and (answer.status_code != _PARTIAL or told is None or int(told[1]) != start):
            msg = "the server ignores ranges, without which big files cannot be read"
            raise OSError(errno.ENOTSUP, msg)
        pieces, left = [], length
        for piece in answer.iter_raw():
            pieces.append(piece[:left])
            left -= len(pieces[-1])
            if not left:
                break
        return b"".join(pieces)
