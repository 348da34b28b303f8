"""Restoring entries below one destination, and nowhere else.

Whatever an archive names and whatever already stands in the destination: directories are opened one
component at a time, relative to a descriptor and never through a symlink; files are made under a temporary
name of this run and renamed without replacing; metadata is set through the descriptor that was written. So
there is no path that a planted link could bend.

Directories are *handles*. ``enter`` returns one, and everything that creates an entry takes ``parent=``. Who
restores in tree order leaves it out and calls ``leave``; who restores in storage order makes the directories
first, keeps the handles, writes in any order, and lets ``finish`` set the metadata of the directories from
the leaves up. Handles hold no descriptor: a bounded number is open, and one that is opened again is
compared with the device and inode that it had.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat as st
from typing import TYPE_CHECKING, Literal, Self

from rozenfmt.errors import UsageError
from rozenfmt.events import Problem
from rozenfmt.format.nodes import Entry, Kind, Mark
from rozenfmt.tree.attributes import Attributes, drop_inherited_acls
from rozenfmt.tree.content import Hole
from rozenfmt.tree.directories import Directories, Directory, valid_name
from rozenfmt.tree.platform import EXHAUSTED, OPEN_NODE, descriptor_path, rename_new

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

__all__ = ["Directory", "FileWriter", "Overwrite", "Restorer"]

Overwrite = Literal["never", "if-changed", "always"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = {
    Kind.FIFO: st.S_IFIFO,
    Kind.CHARACTER_DEVICE: st.S_IFCHR,
    Kind.BLOCK_DEVICE: st.S_IFBLK,
}
_KIND_BITS = {Kind.FILE: st.S_IFREG, Kind.SYMLINK: st.S_IFLNK, Kind.SOCKET: st.S_IFSOCK, **_SPECIAL}
# What a system call says to arguments it cannot take, beside OSError: NUL bytes, numbers out of range.
_REFUSED = (OSError, ValueError, OverflowError)


class Restorer:
    """Creates entries below a destination.

    Args:
        destination: Directory to restore into, made if it is missing (its parent must exist). It is the
            caller's and trusted: it may be reached through symlinks, and its own metadata is left alone.
        report: Given each ``Problem``: ``name``, ``exists``, ``owner``, ``mode``, ``times``, ``xattr``,
            ``device``, ``unsupported``, ``unreadable``, ``unwritable``.
        overwrite: What to do where something stands already. ``never`` keeps it; ``if-changed`` replaces what
            differs in kind, size, time or mode; ``always`` replaces. Directories are merged, never replaced.
        owners: Restore owners; by default only if run as root.
        numeric_owners: Take owners by number, not by name first.
        xattrs: Restore extended attributes and ACLs.
        devices: Restore device nodes; by default only if run as root.

    Attributes:
        files: Files and other entries restored, links included.
        directories: Directories made or entered.
        bytes: Content bytes written, holes included.
        skipped: Entries left alone because they stand already.
        problems: Problems reported.

    Raises:
        OSError: By the constructor, if the destination cannot be made or opened; by any method, if the disk
            is full, read-only, or the machine out of descriptors: it would befall every entry.
    """

    def __init__(
        self,
        destination: str | bytes | os.PathLike[str],
        *,
        report: Callable[[Problem], None],
        overwrite: Overwrite = "never",
        owners: bool | None = None,
        numeric_owners: bool = False,
        xattrs: bool = True,
        devices: bool | None = None,
    ) -> None:
        if overwrite not in ("never", "if-changed", "always"):
            message = f"overwrite={overwrite!r}: choose never, if-changed or always"
            raise UsageError(message)
        root = os.geteuid() == 0
        self._report = report
        self._overwrite = overwrite
        self._devices = root if devices is None else devices
        self._attributes = Attributes(owners=root if owners is None else owners, numeric=numeric_owners, xattrs=xattrs)
        self._temporary = b".rozenfmt-%s-" % secrets.token_hex(6).encode()
        self._count = 0
        self._tree = Directories(os.fsencode(destination))
        self._current = self._tree.root
        self.files = 0
        self.directories = 0
        self.bytes = 0
        self.skipped = 0
        self.problems = 0

    @property
    def root(self) -> Directory:
        """The destination itself."""
        return self._tree.root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.close()

    def enter(self, entry: Entry, parent: Directory | None = None) -> Directory | None:
        """Make a directory, or enter one that stands already, and make it the current one.

        Args:
            entry: The directory.
            parent: Where; by default the current directory.

        Returns:
            Its handle; None if it cannot be: skip everything below it and do not ``leave`` it.
        """
        parent = parent or self._current
        if not valid_name(entry.name):
            self._problem(parent, entry.name, "name", "not a file name")
            return None
        try:
            directory = self._tree.make(parent, entry)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                self._problem(parent, entry.name, "exists", "it stands there and is no directory")
            else:
                self._refused(parent, entry.name, error)
            return None
        self.directories += 1
        self._current = directory
        return directory

    def leave(self, directory: Directory | None = None) -> None:
        """A directory is complete: set its metadata, once all directories in it are complete too.

        Args:
            directory: By default the current one, whose parent becomes the current one.

        Raises:
            UsageError: For the destination itself, or a directory left before.
        """
        directory = directory or self._current
        if directory is self._current and directory.parent is not None:
            self._current = directory.parent
        for complete in self._tree.complete(directory):
            self._finish_directory(complete)

    def wanted(self, entry: Entry, parent: Directory | None = None) -> bool:
        """Whether an entry (not a directory) would be restored now; otherwise it is counted as skipped.

        The methods that restore ask themselves; call this to save reading a content.
        """
        parent = parent or self._current
        if not valid_name(entry.name):
            self._problem(parent, entry.name, "name", "not a file name")
            return False
        if not parent.before or entry.name not in parent.before:
            return True
        try:
            stat = os.stat(entry.name, dir_fd=self._tree.descriptor(parent), follow_symlinks=False)
        except FileNotFoundError:
            parent.before.discard(entry.name)
            return True
        except OSError as error:
            self._problem(parent, entry.name, "unwritable", error)
            return False
        same = self._overwrite != "always" and _same(stat, entry)
        if same or self._overwrite == "never" or st.S_ISDIR(stat.st_mode):
            self.skipped += 1
            if not same:
                self._problem(parent, entry.name, "exists", "something else stands there and is kept")
            return False
        return True

    def small(self, entry: Entry, data: bytes | memoryview, parent: Directory | None = None) -> bool:
        """Restore a regular file whose content is at hand.

        Returns:
            Whether it was restored.
        """
        parent = parent or self._current
        if (parent.before or not valid_name(entry.name)) and not self.wanted(entry, parent):
            return False
        temporary = self._next_temporary()
        try:
            directory = self._tree.descriptor(parent)
            fd = os.open(temporary, _CREATE, 0o600, dir_fd=directory)
            try:
                try:
                    if data:
                        written = os.write(fd, data)
                        if written < len(data):
                            _write_all(fd, memoryview(data)[written:])
                    self._set(fd, entry, parent)
                finally:
                    os.close(fd)
                self._publish(directory, temporary, entry.name, parent)
            except BaseException:
                self._discard(temporary, directory, parent)
                raise
        except _REFUSED as error:
            self._refused(parent, entry.name, error)
            return False
        self.files += 1
        self.bytes += len(data)
        return True

    def open(self, entry: Entry, parent: Directory | None = None) -> FileWriter | None:
        """Begin a regular file that is written piece by piece; several may be open at once.

        Returns:
            None if it is not to be restored, or cannot be.
        """
        parent = parent or self._current
        if not self.wanted(entry, parent):
            return None
        temporary = self._next_temporary()
        try:
            fd = os.open(temporary, _CREATE, 0o600, dir_fd=self._tree.descriptor(parent))
        except _REFUSED as error:
            self._refused(parent, entry.name, error)
            return None
        return FileWriter(self, fd, temporary, entry, parent)

    def stream(
        self, entry: Entry, chunks: Iterable[bytes | memoryview | Hole], parent: Directory | None = None
    ) -> bool:
        """Restore a regular file from its pieces; holes are left as holes.

        What the iterator raises is passed on after the unfinished file was removed.

        Returns:
            Whether it was restored.
        """
        writer = self.open(entry, parent)
        if writer is None:
            return False
        try:
            for chunk in chunks:
                if not writer.write(chunk):
                    return False
            return writer.commit()
        finally:
            writer.abort()

    def link(self, entry: Entry, first: tuple[bytes, ...], parent: Directory | None = None) -> bool:
        """Restore another name of a file that was restored before.

        Args:
            entry: The new name.
            first: Path of the restored member: components relative to the destination.
            parent: Directory of the new name; by default the current one.

        Returns:
            False if it cannot be linked, or the name is kept as it stands: where that was not so by
            ``wanted``, restore the content instead.
        """
        parent = parent or self._current
        if not self.wanted(entry, parent):
            return False
        source = -1
        try:
            if not first or not all(map(valid_name, first)):
                return self._false(parent, entry.name, "name", "the first name of the hard link is not a path")
            source = self._tree.resolve(first[:-1])
            stat = os.stat(first[-1], dir_fd=source, follow_symlinks=False)
            if not _same(stat, entry, with_mode=False):
                detail = "the first name of the hard link is another file"
                return self._false(parent, entry.name, "exists", detail)
            self._link(source, first[-1], entry.name, parent)
        except _REFUSED as error:
            self._refused(parent, entry.name, error)
            return False
        finally:
            if source >= 0:
                os.close(source)
        self.files += 1
        return True

    def other(self, entry: Entry, parent: Directory | None = None) -> bool:
        """Restore a symlink, fifo or device; sockets and unreadable files are reported.

        Returns:
            Whether it was restored.
        """
        parent = parent or self._current
        is_device = entry.kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)
        if entry.kind is Kind.FILE or entry.marks & Mark.UNREADABLE:
            return self._false(parent, entry.name, "unreadable", "its content was never captured")
        if entry.kind is Kind.SOCKET:
            return self._false(parent, entry.name, "unsupported", "a socket is made by whoever listens on it")
        if is_device and (entry.device is None or not self._devices):
            return self._false(parent, entry.name, "device", "device nodes are restored by root, or if asked for")
        if entry.kind is Kind.DIRECTORY:
            message = "A directory is restored by enter()"
            raise UsageError(message)
        if not self.wanted(entry, parent):
            return False
        temporary = self._next_temporary()
        try:
            directory = self._tree.descriptor(parent)
            try:
                self._make_special(directory, temporary, entry, parent)
                self._publish(directory, temporary, entry.name, parent)
            except BaseException:
                self._discard(temporary, directory, parent)
                raise
        except _REFUSED as error:
            self._refused(parent, entry.name, error, what="device" if is_device else "unwritable")
            return False
        self.files += 1
        return True

    def finish(self) -> None:
        """Set the metadata of all directories that are not complete yet, leaves first, and close."""
        try:
            for directory in self._tree.remaining():
                self._finish_directory(directory)
        finally:
            self.close()

    def close(self) -> None:
        """Close without setting the metadata of directories: they stay open to their owner only."""
        self._tree.close()

    # -- the steps

    def _next_temporary(self) -> bytes:
        self._count += 1
        return self._temporary + b"%x" % self._count

    def _set(self, fd: int, entry: Entry, parent: Directory) -> None:
        if parent.inherits:
            drop_inherited_acls(fd, directory=False)

        def failed(what: str, detail: str) -> None:
            self._problem(parent, entry.name, what, detail)

        self._attributes.apply(fd, entry, failed)

    def _publish(self, directory: int, temporary: bytes, name: bytes, parent: Directory) -> None:
        """Give a finished entry its name. Only what stood there before this run is ever replaced."""
        if parent.before and name in parent.before:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            parent.before.discard(name)
        else:
            rename_new(directory, temporary, name)

    def _link(self, source: int, first: bytes, name: bytes, parent: Directory) -> None:
        directory = self._tree.descriptor(parent)
        if not (parent.before and name in parent.before):
            os.link(first, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
            return
        temporary = self._next_temporary()
        os.link(first, temporary, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        try:
            self._publish(directory, temporary, name, parent)
        finally:
            self._discard(temporary, directory, parent)  # renaming onto another link of the same file does nothing

    def _make_special(self, directory: int, temporary: bytes, entry: Entry, parent: Directory) -> None:
        if entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, temporary, dir_fd=directory)
        else:
            major, minor = entry.device or (0, 0)
            mode = 0o600 | _SPECIAL[entry.kind]
            os.mknod(temporary, mode, os.makedev(major, minor), dir_fd=directory)
        fd = os.open(temporary, OPEN_NODE, dir_fd=directory)
        try:
            stat = os.fstat(fd)
            # Metadata goes to what was just made: not to another file that was moved to its name.
            if st.S_IFMT(stat.st_mode) != _KIND_BITS[entry.kind] or stat.st_nlink != 1:
                raise OSError(errno.ESTALE, "somebody else replaced it while it was made")

            def failed(what: str, detail: str) -> None:
                self._problem(parent, entry.name, what, detail)

            self._attributes.apply(descriptor_path(fd), entry, failed)
        finally:
            os.close(fd)

    def _finish_directory(self, directory: Directory) -> None:
        entry, parent = directory.entry, directory.parent
        if entry is None or parent is None:
            return  # the destination itself

        def failed(what: str, detail: str) -> None:
            self._problem(parent, entry.name, what, detail)

        try:
            self._attributes.apply(self._tree.descriptor(directory), entry, failed)
        except OSError as error:
            self._problem(parent, entry.name, "mode", error)
        self._tree.forget(directory)

    def _commit(self, writer: FileWriter) -> bool:
        """Finish a file written piece by piece; the caller closes it."""
        entry, parent = writer.entry, writer.parent
        try:
            os.ftruncate(writer.fd, writer.size)  # a hole at the end is only made by this
            self._set(writer.fd, entry, parent)
            directory = self._tree.descriptor(parent)
            self._publish(directory, writer.temporary, entry.name, parent)
        except _REFUSED as error:
            self._refused(parent, entry.name, error)
            return False
        self.files += 1
        self.bytes += writer.size
        return True

    def _drop(self, writer: FileWriter) -> None:
        try:
            directory = self._tree.descriptor(writer.parent)
        except OSError as error:
            self._problem(writer.parent, writer.temporary, "unwritable", error)
        else:
            self._discard(writer.temporary, directory, writer.parent)

    def _discard(self, temporary: bytes, directory: int, parent: Directory) -> None:
        """Remove a temporary name if it is still there."""
        try:
            os.unlink(temporary, dir_fd=directory)
        except FileNotFoundError:
            return
        except OSError as error:
            self._problem(parent, temporary, "unwritable", error)

    # -- reports

    def _problem(self, parent: Directory, name: bytes, what: str, detail: str | BaseException) -> None:
        if isinstance(detail, OSError):
            if detail.errno in EXHAUSTED:
                raise detail
            detail = detail.strerror or str(detail)
        self.problems += 1
        self._report(Problem(parent.path(name), what, str(detail)))

    def _false(self, parent: Directory, name: bytes, what: str, detail: str) -> bool:
        self._problem(parent, name, what, detail)
        return False

    def _refused(self, parent: Directory, name: bytes, error: BaseException, *, what: str = "unwritable") -> None:
        if isinstance(error, FileExistsError):
            self._problem(parent, name, "name", _COLLISION)
        elif isinstance(error, OSError) and error.errno in (errno.EISDIR, errno.ENOTEMPTY):
            self._problem(parent, name, "exists", "a directory stands there and is kept")
        elif isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
            self._problem(parent, name, "name", error)
        else:
            self._problem(parent, name, what, error)


_COLLISION = (
    "another entry ended at this name: a twin in the archive, or one that differs only in case or Unicode "
    "form on a file system that does not tell them apart"
)


class FileWriter:
    """A regular file being restored piece by piece, under a temporary name until ``commit``."""

    __slots__ = ("_open", "_restorer", "entry", "fd", "parent", "size", "temporary")

    def __init__(self, restorer: Restorer, fd: int, temporary: bytes, entry: Entry, parent: Directory) -> None:
        self._restorer = restorer
        self._open = True
        self.fd = fd
        self.temporary = temporary
        self.entry = entry
        self.parent = parent
        self.size = 0

    def write(self, chunk: bytes | memoryview | Hole) -> bool:
        """Add content.

        Returns:
            False if it could not be written: the file was reported and removed.
        """
        if not self._open:
            return False
        try:
            if isinstance(chunk, Hole):
                os.lseek(self.fd, self.size + chunk.length, os.SEEK_SET)
                self.size += chunk.length
            else:
                _write_all(self.fd, memoryview(chunk))
                self.size += len(chunk)
        except _REFUSED as error:
            self.abort()
            self._restorer._refused(self.parent, self.entry.name, error)  # noqa: SLF001
            return False
        return True

    def commit(self, entry: Entry | None = None) -> bool:
        """Set metadata and give the file its name.

        Args:
            entry: What is known about it in the end, if that differs; its name is not looked at.

        Returns:
            Whether it stands.
        """
        if not self._open:
            return False
        if entry is not None:
            entry.name = self.entry.name
            self.entry = entry
        done = False
        try:
            done = self._restorer._commit(self)  # noqa: SLF001
        finally:
            if done:
                self._open = False
                os.close(self.fd)
            else:
                self.abort()
        return done

    def abort(self) -> None:
        """Remove the unfinished file; nothing if it was committed or aborted."""
        if self._open:
            self._open = False
            os.close(self.fd)
            self._restorer._drop(self)  # noqa: SLF001


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]


def _same(stat: os.stat_result, entry: Entry, *, with_mode: bool = True) -> bool:
    """Whether what stands there looks like the entry: as restored by this run or an interrupted one."""
    return (
        st.S_IFMT(stat.st_mode) == _KIND_BITS.get(entry.kind)
        and stat.st_mtime_ns == entry.mtime_ns
        and (not with_mode or entry.kind is Kind.SYMLINK or st.S_IMODE(stat.st_mode) == entry.mode)
        and (entry.kind is not Kind.FILE or stat.st_size == entry.size)
    )
