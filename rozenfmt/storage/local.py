"""Objects as files of a local folder.

An upload is a hidden file beside its destination, published in one step: by a hard link, which
never replaces anything, or by a rename, which does.  Names may hold any byte but NUL and ``/``;
Python's surrogate escapes carry those that are not UTF-8.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import stat
import sys
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.errors import ConflictError, StorageError
from rozenfmt.storage.background import BackgroundWriter
from rozenfmt.storage.base import Leftover, Mark, ObjectInfo
from rozenfmt.storage.upload import BaseUpload, check_name, check_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rozenfmt.storage.base import UploadState

__all__ = ["LocalStorage"]

_STREAM_PIECE: Final = 4 << 20
_AHEAD: Final = 4
_NAME_MAX: Final = 255
_PARTIAL: Final = re.compile(r"\.(?P<name>.*)\.rozen-[0-9a-f]{8}\.partial", re.DOTALL)

_ADVICE: Final[dict[int, str]] = {
    errno.ENOSPC: "the file system is full; free some space and try again",
    errno.EDQUOT: "the quota is used up; free some space and try again",
    errno.EFBIG: "the file exceeds the largest size allowed; raise the limit (ulimit -f) or split the data",
    errno.EACCES: "permission denied; check the owner and mode of the file and of its folders",
    errno.EPERM: "not permitted; check the owner, the mode and the attributes of the file",
    errno.EROFS: "the file system is read-only; mount it for writing",
    errno.ENOENT: "there is no such file or folder; check the spelling, and that the disk is mounted",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place",
    errno.EISDIR: "it is a folder, not an object; choose another name",
    errno.ENAMETOOLONG: "the name is too long for the file system; choose a shorter one",
    errno.EILSEQ: "the file system does not accept this name; choose another one",
    errno.ELOOP: "too many symbolic links; check the folder",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.EIO: "the device reported an error; check the disk before trying again",
    errno.ESTALE: "the network file system lost the file; mount it again",
}
# What link(2) answers where hard links are unknown (FAT), switched off, or used up.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_NO_NOREPLACE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
# What fsync answers for a directory where the file system keeps no order that could be asked for;
# EACCES is for folders that may be written to but not read, which suit hosts that only back up.
_NO_DIR_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES})

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1


class LocalStorage:
    """A local folder.

    Args:
        root: Path of the folder.
        make_root: Whether writing may create the folder itself; its parent must exist.

    """

    def __init__(self, root: str, *, make_root: bool = True) -> None:
        self.url = root
        self._root = os.path.abspath(root)
        self._make_root = make_root

    @property
    def root(self) -> str:
        """Absolute path of the folder."""
        return self._root

    def size(self, name: str) -> int:
        """Size of an object in bytes; ``StorageError`` if there is none."""
        path = self._path(name)
        with _explained("read the size of", path, name):
            status = os.stat(path)
        _require_file(status, path, name)
        return status.st_size

    def read(self, name: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``; ``StorageError`` if there are fewer."""
        check_range(start, length)
        path = self._path(name)
        with _opened(path, name) as (fd, status), _explained("read", path, name):
            # Refused before reading: a buffer of the length asked for would be allocated.
            if start + length > status.st_size:
                raise _too_short(path, name, start + length, status.st_size)
            return _pread(fd, start, length, path, name)

    def read_suffix(self, name: str, length: int) -> tuple[int, bytes]:
        """The object's size and its last ``length`` bytes."""
        check_range(0, length)
        path = self._path(name)
        with _opened(path, name) as (fd, status), _explained("read", path, name):
            length = min(length, status.st_size)
            return status.st_size, _pread(fd, status.st_size - length, length, path, name)

    def stream(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end`` in pieces of 4 MiB, read ahead by the kernel."""
        check_range(start, None if end is None else end - start)
        return self._stream(self._path(name), name, start, end)

    def create(
        self,
        name: str,
        *,
        overwrite: bool = False,
        part_size: int | None = None,  # noqa: ARG002 - files have no parts
        expected_size: int | None = None,  # noqa: ARG002 - an estimate reserves nothing
    ) -> LocalUpload:
        """Begin an object; folders in its name are made.

        Raises:
            ConflictError: ``overwrite`` is False and the object exists already.
            StorageError: The folder is missing or cannot be written to.

        """
        path = self._path(name)
        # The race is decided at commit; this saves writing what cannot be committed.
        if not overwrite and os.path.lexists(path):
            raise _exists(path, name)
        with _explained("create", path, name):
            self._make_folders(os.path.dirname(path))
            return LocalUpload(name, path, overwrite=overwrite)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects sorted by name; symbolic links are followed, a missing folder is empty."""
        return self._walk(self._root, "", prefix, ())

    def delete(self, name: str) -> None:
        """Remove an object; ``StorageError`` if there is none."""
        path = self._path(name)
        with _explained("delete", path, name):
            os.unlink(path)
            _sync_folder(os.path.dirname(path))

    def resume(self, state: UploadState) -> LocalUpload | None:
        """Go on with an unfinished upload; None if its file is gone, or too short."""
        path = self._path(state.name)
        partial = os.path.join(os.path.dirname(path), os.path.basename(state.details["partial"]))
        if not _PARTIAL.fullmatch(os.path.basename(partial)):
            return None
        with _explained("open", partial, state.name):
            try:
                return LocalUpload(state.name, path, overwrite=False, resumed=(partial, state.mark.offset))
            except (FileNotFoundError, _OtherFileError):
                return None

    def leftovers(self, prefix: str) -> Iterator[Leftover]:
        """Unfinished uploads of objects whose name starts with ``prefix``; long names come shortened."""
        for info in self._walk(self._root, "", prefix.rpartition("/")[0], (), partial=True):
            folder, slash, file = info.name.rpartition("/")
            match = _PARTIAL.fullmatch(file)
            if match is not None and (folder + slash + match["name"]).startswith(prefix):
                path = self._path(info.name)
                with _explained("look at", path, info.name):
                    begun = os.lstat(path).st_mtime_ns
                yield Leftover(folder + slash + match["name"], info.name, begun)

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove the file of an unfinished upload."""
        path = self._path(leftover.upload)
        if not _PARTIAL.fullmatch(os.path.basename(path)):
            msg = f"{path!r} is no unfinished upload; it is left alone"
            raise StorageError(msg, object=leftover.name, fatal=True)
        with _explained("remove", path, leftover.name):
            try:
                os.unlink(path)
            except FileNotFoundError:
                return

    def close(self) -> None:
        """Do nothing; a folder holds nothing open."""

    def _path(self, name: str) -> str:
        return os.path.join(self._root, *check_name(name).split("/"))

    def _make_folders(self, folder: str) -> None:
        missing = []
        while not os.path.isdir(folder):
            if folder == self._root and not self._make_root:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
            missing.append(folder)
            if folder == self._root:
                break
            folder = os.path.dirname(folder)
        for path in reversed(missing):
            try:
                os.mkdir(path)
            except FileExistsError:
                # Another writer was faster; if it is not a folder, opening the file will say so.
                continue
            _sync_folder(os.path.dirname(path))

    def _stream(self, path: str, name: str, start: int, end: int | None) -> Iterator[bytes]:
        with _opened(path, name) as (fd, status):
            if end is None:
                end = max(start, status.st_size)
            if max(start, end) > status.st_size:
                raise _too_short(path, name, end, status.st_size)
            _advise(fd, start, end - start, "POSIX_FADV_SEQUENTIAL")
            while start < end:
                piece = min(self._stream_piece(), end - start)
                _advise(fd, start + piece, min(_AHEAD * piece, end - start - piece), "POSIX_FADV_WILLNEED")
                with _explained("read", path, name):
                    data = _pread(fd, start, piece, path, name)
                yield data
                start += piece

    def _stream_piece(self) -> int:
        """Bytes that are read at a time."""
        return _STREAM_PIECE

    def _walk(
        self,
        folder: str,
        inside: str,
        prefix: str,
        ancestors: tuple[tuple[int, int], ...],
        *,
        partial: bool = False,
    ) -> Iterator[ObjectInfo]:
        with _explained("list", folder, inside or None):
            try:
                status = os.stat(folder)
            except FileNotFoundError:
                return
            identity = (status.st_dev, status.st_ino)
            if identity in ancestors:
                return
            found: list[tuple[str, int | None]] = []
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = inside + entry.name
                    folder_name = name + "/"
                    if _is_folder(entry):
                        if folder_name.startswith(prefix) or prefix.startswith(folder_name):
                            # The slash gives a folder the place its objects have among all names.
                            found.append((folder_name, None))
                    elif name.startswith(prefix) and (_PARTIAL.fullmatch(entry.name) is not None) is partial:
                        size = _size_of_entry(entry)
                        if size is not None:
                            found.append((name, size))
        for name, size in sorted(found):
            if size is None:
                below = os.path.join(folder, name[len(inside) : -1])
                yield from self._walk(below, name, prefix, (*ancestors, identity), partial=partial)
            else:
                yield ObjectInfo(name, size)


class LocalUpload(BaseUpload):
    """A file on its way.

    The file has the mode that the umask gives from the beginning: what is written is meant to be
    stored as it is, and a later chmod would ignore the default ACLs of the folder.

    Args:
        name: Name of the object.
        path: Absolute path of its file.
        overwrite: Whether an existing file is replaced.
        resumed: Path of the hidden file and bytes in it, to go on with one.

    """

    def __init__(self, name: str, path: str, *, overwrite: bool, resumed: tuple[str, int] | None = None) -> None:
        super().__init__(name, 0 if resumed is None else resumed[1])
        self._path = path
        self._overwrite = overwrite
        self._partial = _partial_path(path) if resumed is None else resumed[0]
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        flags |= os.O_CREAT | os.O_EXCL if resumed is None else getattr(os, "O_NOFOLLOW", 0)
        self._fd: int | None = os.open(self._partial, flags, 0o666)
        self._writer = BackgroundWriter(self._fd)
        status = os.fstat(self._fd)
        self.identity = (status.st_dev, status.st_ino)  # by which a scan of the same folder knows to leave it out
        if resumed is not None:
            if not stat.S_ISREG(status.st_mode) or status.st_size < self.written:
                raise _OtherFileError(errno.ESTALE, os.strerror(errno.ESTALE), self._partial)
            os.ftruncate(self._fd, self.written)
            os.lseek(self._fd, self.written, os.SEEK_SET)

    def __del__(self) -> None:
        # Gives the descriptor back, and nothing else: collection neither commits nor discards.
        if hasattr(self, "_writer"):  # else there is no descriptor
            self._close()

    def _write(self, data: bytes | memoryview) -> None:
        with _explained("write", self._path, self.name):
            self._descriptor()
            self._writer.write(data)

    def _commit(self) -> ObjectInfo:
        with _explained("finish", self._path, self.name):
            fd = self._descriptor()
            self._writer.settle()
            os.fsync(fd)
            stored = os.fstat(fd).st_size
            if stored != self.written:
                msg = (
                    f"{self._path!r} holds {stored} bytes where {self.written} were written; "
                    "nothing was published: check the disk, then write it again"
                )
                raise StorageError(msg, object=self.name)
            # Network file systems and quotas report at close what they swallowed before.
            self._close()
            try:
                _publish(self._partial, self._path, overwrite=self._overwrite)
            except FileExistsError:
                raise _exists(self._path, self.name) from None
            _sync_folder(os.path.dirname(self._path))
        return ObjectInfo(self.name, stored)

    def _discard(self) -> None:
        with _explained("discard", self._partial, self.name):
            self._close()
            try:
                os.unlink(self._partial)
            except FileNotFoundError:
                # Published by a rename before the failure, or discarded in part before.
                return

    @property
    def leftover(self) -> Leftover:
        """The hidden file."""
        folder, slash, _ = self.name.rpartition("/")
        return Leftover(self.name, folder + slash + os.path.basename(self._partial))

    def _mark(self) -> Mark | None:
        return Mark(self.written)

    def _details(self, mark: Mark) -> dict[str, Any] | None:  # noqa: ARG002 - everything written is there
        with _explained("write", self._path, self.name):
            fd = self._descriptor()
            self._writer.settle()
            os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)
        return {"partial": os.path.basename(self._partial)}

    def _suspend(self) -> None:
        self._close()

    def _descriptor(self) -> int:
        if self._fd is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._partial)
        return self._fd

    def _close(self) -> None:
        if self._fd is None:
            return
        # An interrupt while waiting leaves the descriptor open, to be closed by the next call: not while it is
        # being written to, since its number may soon be another file's.
        self._writer.stop()
        fd, self._fd = self._fd, None
        os.close(fd)


class _OtherFileError(OSError):
    """The hidden file is not the one that was left, or lost its end in a power cut."""


def _partial_path(path: str) -> str:
    folder, name = os.path.split(path)
    ending = f".rozen-{secrets.token_hex(4)}.partial"
    # The limit counts bytes, and a name of full length is legal.
    head = os.fsencode(name)[: _NAME_MAX - 1 - len(ending)]
    return os.path.join(folder, "." + os.fsdecode(head) + ending)


def _publish(partial: str, path: str, *, overwrite: bool) -> None:
    """Give a finished file its name in one step."""
    if overwrite:
        os.replace(partial, path)
        return
    if os.name == "nt":
        # There, rename never replaces.
        os.rename(partial, path)
        return
    try:
        os.link(partial, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        os.unlink(partial)
        return
    _rename_no_replace(partial, path)


def _rename_no_replace(partial: str, path: str) -> None:
    """Rename where hard links do not exist, without replacing anything."""
    rename = _renameat2()
    if rename is not None:
        source, target = os.fsencode(partial), os.fsencode(path)
        if rename(_AT_FDCWD, source, _AT_FDCWD, target, _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _NO_NOREPLACE:
            raise OSError(code, os.strerror(code), partial, None, path)
    # Neither links nor renameat2: reserving the name first is the best that is left.  The empty
    # file is visible for a moment, but no two writers can both believe that they won.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    os.replace(partial, path)


@lru_cache(maxsize=1)
def _renameat2() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
        function.restype = ctypes.c_int
    return function


def _sync_folder(folder: str) -> None:
    """Make names durable; without it a power cut may take a published file back."""
    if os.name == "nt":
        return
    fd = None
    try:
        fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_DIR_SYNC:
            raise
    finally:
        if fd is not None:
            os.close(fd)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        # A link that leads to itself leads to no object.
        if error.errno != errno.ELOOP:
            raise
        return False


def _size_of_entry(entry: os.DirEntry[str]) -> int | None:
    """Size of a regular file or of what a link leads to; None for anything else."""
    try:
        status = entry.stat()
    except OSError as error:
        # A link that dangles or leads to itself, or a file removed since the folder was read.
        if error.errno not in {errno.ENOENT, errno.ELOOP}:
            raise
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _pread(fd: int, start: int, length: int, path: str, name: str) -> bytes:
    if length == 0:
        return b""
    data = os.pread(fd, length, start)
    if len(data) == length:
        return data
    pieces = [data]
    done = len(data)
    # One call returns 2 GiB at most, and network file systems may return less at any time.
    while data and done < length:
        data = os.pread(fd, length - done, start + done)
        pieces.append(data)
        done += len(data)
    if done < length:
        raise _too_short(path, name, start + length, start + done)
    return b"".join(pieces)


def _advise(fd: int, start: int, length: int, advice: str) -> None:
    if length > 0 and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, start, length, getattr(os, advice))


def _require_file(status: os.stat_result, path: str, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        msg = f"{path!r} is not a regular file; choose another name"
        raise StorageError(msg, object=name, fatal=True)


def _too_short(path: str, name: str, wanted: int, size: int) -> StorageError:
    msg = f"{path!r} ends at byte {size}, before byte {wanted} that was asked for; it may be truncated"
    return StorageError(msg, object=name, fatal=True)


def _exists(path: str, name: str) -> ConflictError:
    msg = f"{path!r} exists ({name!r} was to be created); choose another name, or ask for overwriting"
    return ConflictError(msg)


@contextmanager
def _opened(path: str, name: str) -> Iterator[tuple[int, os.stat_result]]:
    with _explained("open", path, name):
        # O_NONBLOCK: opening a FIFO under the object's name must not wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        fd = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(fd)
        _require_file(status, path, name)
        yield fd, status
    finally:
        os.close(fd)


@contextmanager
def _explained(action: str, path: str, name: str | None) -> Iterator[None]:
    """Turn what the system says into an error that says what to do."""
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        advice = _ADVICE.get(code, "see the cause, and try again")
        reason = error.strerror or type(error).__name__
        msg = f"cannot {action} {path!r}: {reason}; {advice}"
        fatal = code not in {errno.EIO, errno.ESTALE, errno.EINTR, errno.EAGAIN}
        raise StorageError(msg, object=name, fatal=fatal) from error
