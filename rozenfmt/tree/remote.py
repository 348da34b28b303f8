"""Walking and capturing a tree on a remote file system: SFTP, S3, WebDAV and whatever else fsspec reaches.

One pass, depth first, names in bytewise order, to the same sinks as a local walk.  Requests cost their way there
and back, so small files and the next directories' listings are asked for ahead, by a few threads and within a
bound of memory; they are delivered in order all the same.

What the file system does not tell is put in: modes 0644 and 0755, this process's user and group, the time 0.
"""

from __future__ import annotations

import os
import stat as st
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from rozenfmt.errors import SourceError, StorageError
from rozenfmt.events import Problem
from rozenfmt.format.limits import MAX_NAME
from rozenfmt.format.nodes import Entry, Kind, Mark
from rozenfmt.storage.redact import server_of

from .content import CHUNK_SIZE, READ_TRIES, FileReader, Hole
from .remote_files import Found, FsspecFiles, RemoteFiles, origin_of, same
from .remote_pool import Pool
from .scan import SMALL_LIMIT, Known, Sink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from rozenfmt.events import ProgressCallback
    from rozenfmt.storage.retry import RetryPolicy

    from .excludes import Excludes

__all__ = ["KnownAhead", "RemoteScanner", "connect"]

_BYTES_AHEAD: Final = 32 << 20
_RANGES_AHEAD: Final = 4
_LISTINGS_AHEAD: Final = 8
_LISTINGS_HELD: Final = 32  # by all directories that the walk is in; but each may hold two
_LISTING_LIMIT: Final = 4_000  # longer ones are not kept for later
_JOIN_SECONDS: Final = 5.0
_TAG_NAME: Final = b"CACHEDIR.TAG"
_TAG: Final = b"Signature: 8a477f597d28d172789f06886806bc55"
_KINDS: Final = {
    st.S_IFREG: Kind.FILE,
    st.S_IFDIR: Kind.DIRECTORY,
    st.S_IFLNK: Kind.SYMLINK,
    st.S_IFIFO: Kind.FIFO,
    st.S_IFSOCK: Kind.SOCKET,
}


class KnownAhead(Known, Protocol):
    """A ``Known`` that can also be asked in advance."""

    def ahead(self) -> Callable[[bytes, os.stat_result], bool]:
        """Of the directory that was just entered: what tells by name and stat whether a file will be read.

        It is asked in order of name, and may be wrong.
        """


def connect(url: str, options: Mapping[str, Any], retry: RetryPolicy | None = None) -> RemoteFiles:
    """Reach a file system.

    Raises:
        UsageError: The URL or the options are not understood.
        SourceError, StorageError, OSError: It cannot be reached.
    """
    scheme = url.partition("://")[0].lower()
    if scheme in ("sftp", "ssh"):
        from .remote_sftp import SftpFiles

        return SftpFiles(url, options, retry)
    if scheme in ("s3", "s3a"):
        from .remote_s3 import S3Files

        return S3Files(url, options, retry)
    if scheme in ("webdav", "dav"):
        from .remote_webdav import WebdavFiles

        return WebdavFiles(url, options, retry)
    return FsspecFiles(url, options, retry)


@dataclass(slots=True)
class _Loaded:
    """A small file, or a symlink's target.

    Attributes:
        found: As it was when this was read.
        data: None if the file is too big by now, or of another kind.
        looked_ns: When ``found`` was seen.
        torn: It changed each time it was read.
    """

    found: Found
    data: bytes | None
    looked_ns: int
    torn: bool = False


@dataclass(slots=True)
class _Frame:
    """A directory that the walk is in.

    Attributes:
        path: In the file system.
        inside: Relative to the root, for excludes; ends with a slash, but for the root.
        items: What is in it, in order of name.
        looked_ns: When that was listed.
        wanted: Whether a file will have to be read.
        at: The next item.
        files_at: The first item that may be asked for ahead as a file.
        listings_at: Likewise, as a directory.
        files: What was asked for, by item.
        listings: Likewise.
    """

    entry: Entry
    path: str
    inside: str
    items: list[Found]
    looked_ns: int
    wanted: Callable[[bytes, os.stat_result], bool]
    at: int = 0
    files_at: int = 0
    listings_at: int = 0
    files: dict[int, tuple[int, Future[_Loaded]]] = field(default_factory=dict)
    listings: dict[int, Future[tuple[list[Found], int] | None]] = field(default_factory=dict)


class RemoteScanner:
    """Walks one remote source.

    Args:
        url: Of a directory or a file.
        options: Of its file system.
        report: Given each ``Problem``: ``unreadable``, ``vanished``, ``changed``, ``name``, ``unsupported``.
        name: Name of the root's entry.
        excludes: Patterns relative to the root.
        skip_caches: Of a directory with a valid ``CACHEDIR.TAG``, capture itself and the tag only.
        small_limit: Files up to so many bytes are read whole.
        known: What is remembered of earlier walks.
        retry: How long requests are tried.
        progress: Told of each ``Retry``.

    Attributes:
        stat: Of the entry that the sink is given now: see ``Found.stat``.
        missing: The root is not there.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        *,
        report: Callable[[Problem], None],
        name: bytes,
        excludes: Excludes | None = None,
        skip_caches: bool = False,
        small_limit: int = SMALL_LIMIT,
        known: KnownAhead | None = None,
        retry: RetryPolicy | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        self._retry = retry
        self._progress = progress
        self._url = url
        self._options = options
        self._report = report
        self._name = name
        self._excludes = excludes
        self._skip_caches = skip_caches
        self._small_limit = small_limit
        self._known = known
        self._shown = origin_of(url)
        # What two sources differ by, though all else of two files be the same.
        self._source = os.fsencode("\0".join([self._shown, *server_of(options)]))
        self._frames: list[_Frame] = []
        self._held = 0
        self._listings = 0
        self._files: RemoteFiles
        self._pool: Pool
        self._ranges: Pool
        self._sink: Sink
        self.stat: os.stat_result
        self.missing = False

    def run(self, sink: Sink) -> None:
        """Deliver everything to ``sink``.

        Raises:
            SourceError: The source cannot be reached, or not any more.
            UsageError: The URL or the options are not understood.
        """
        self._sink = sink
        try:
            self._files = connect(self._url, self._options, self._retry)
        except (OSError, SourceError, StorageError) as error:
            raise self._unreachable(error) from error
        self._pool = Pool(self._files.connections)
        # Big pieces have threads of their own: a thread that held one keeps the memory.
        self._ranges = Pool(_RANGES_AHEAD)
        try:
            with self._files.retries.reported_to(self._progress):
                self._begin()
                self._loop()
        finally:
            for pool in (self._pool, self._ranges):
                pool.close()
            self._files.close()
            for pool in (self._pool, self._ranges):
                pool.join(_JOIN_SECONDS)

    def _unreachable(self, error: Exception) -> SourceError:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        unreachable = SourceError(f"Cannot read the source {self._shown!r}: {reason}")
        unreachable.passing = isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError))
        return unreachable

    def _begin(self) -> None:
        """Deliver the root; if it is a directory, the walk is in it afterwards."""
        path, looked_ns = self._files.root, time.time_ns()
        try:
            root = self._files.look(path)
            if root.is_directory:
                items, looked_ns = self._listed(path)
        except OSError as error:
            self.missing = isinstance(error, FileNotFoundError)
            raise self._unreachable(error) from error
        root.name = self._name
        if root.is_directory:
            self._enter(root, path, items, looked_ns)
        else:
            self._one(root, path, looked_ns, None)

    def _loop(self) -> None:
        frames = self._frames
        while frames:
            self._files.retries.deliver()
            frame = frames[-1]
            if frame.at == len(frame.items):
                frames.pop()
                self._sink.leave(frame.entry)
                continue
            self._look_ahead(frame)
            at = frame.at
            frame.at += 1
            item = frame.items[at]
            path = _path(frame.path, item)
            if item.is_directory:
                listing = frame.listings.pop(at, None)
                self._listings -= listing is not None
                self._directory(item, path, listing)
                continue
            size, future = frame.files.pop(at, (0, None))
            self._held -= size
            self._one(item, path, frame.looked_ns, future)

    # --- ahead ----------------------------------------------------------------------------------

    def _look_ahead(self, frame: _Frame) -> None:
        """Ask for what comes next in this directory, as far as threads and memory go."""
        items = frame.items
        at = max(frame.files_at, frame.at)
        most = 2 * self._files.connections
        # Not beyond the next directory: what is below it comes first, and may take long.
        while at < len(items) and len(frame.files) < most and self._held < _BYTES_AHEAD and not items[at].is_directory:
            item = items[at]
            if self._is_wanted(frame, item):
                size = item.size or 0
                self._held += size
                load = partial(self._load, item, _path(frame.path, item), frame.looked_ns)
                frame.files[at] = size, self._pool.submit(load)
            at += 1
        frame.files_at = at
        at = max(frame.listings_at, frame.at)
        while at < len(items) and (
            len(frame.listings) < 2 or (len(frame.listings) < _LISTINGS_AHEAD and self._listings < _LISTINGS_HELD)
        ):
            if items[at].is_directory:
                self._listings += 1
                frame.listings[at] = self._pool.submit(partial(self._listed_ahead, _path(frame.path, items[at])))
            at += 1
        frame.listings_at = at

    def _is_wanted(self, frame: _Frame, item: Found) -> bool:
        if st.S_ISLNK(item.mode):
            return item.target is None
        if not item.is_file or (item.size is not None and item.size > self._small_limit):
            return False
        return frame.wanted(item.name, item.stat(self._source, frame.looked_ns))

    def _listed(self, path: str) -> tuple[list[Found], int]:
        """What is in a directory, and when that was seen."""
        looked_ns = time.time_ns()
        items = self._files.listing(path)
        # Of a file and a directory of one name, as object stores may have them, the directory comes first.
        items.sort(key=lambda found: (found.name, not found.is_directory))
        return items, looked_ns

    def _listed_ahead(self, path: str) -> tuple[list[Found], int] | None:
        items, looked_ns = self._listed(path)
        return (items, looked_ns) if len(items) <= _LISTING_LIMIT else None

    def _load(self, found: Found, path: str, looked_ns: int) -> _Loaded:
        """Read what is small, until it holds still.  Runs on any thread."""
        if st.S_ISLNK(found.mode):
            target = self._files.target(path) if found.target is None else found.target
            return _Loaded(found, target, looked_ns)
        data = b""
        for attempt in range(READ_TRIES):
            if attempt or found.size is None:
                looked_ns = time.time_ns()
                found = replace(self._files.look(path), name=found.name)
            if found.size is None and found.is_file:
                raise OSError(None, "the file system does not tell its size")
            if not found.is_file or found.size is None or found.size > self._small_limit:
                return _Loaded(found, None, looked_ns)
            data, after = self._files.fetch(path, found.size)
            if len(data) == found.size and after.is_file and same(found, after):
                return _Loaded(found, data, looked_ns)
        return _Loaded(found, data, looked_ns, torn=True)

    # --- entries --------------------------------------------------------------------------------

    def _entry(self, found: Found) -> Entry:
        uid, gid = found.owner
        kind = _KINDS[st.S_IFMT(found.mode)]
        size = (found.size or 0) if kind is Kind.FILE else 0
        mode = st.S_IMODE(found.mode)
        return Entry(found.name, kind, mode, uid, gid, found.user, found.group, found.mtime_ns or 0, size)

    def _one(self, item: Found, path: str, looked_ns: int, future: Future[_Loaded] | None) -> None:
        """Deliver anything but a directory."""
        self.stat = item.stat(self._source, looked_ns)
        if st.S_IFMT(item.mode) not in _KINDS:
            self._problem(item.name, "unsupported", "the file system does not tell enough about what this is")
            return
        if item.is_file and self._known is not None:
            if self._known.same(item.name, self.stat):
                return
            entry = self._known.unchanged(item.name, self.stat)
            if entry is not None:
                self._known.taken(entry)
                return
        if not item.is_file and not st.S_ISLNK(item.mode):
            self._sink.other(self._entry(item))
            return
        try:
            if future is None and item.is_file and (item.size or 0) > self._small_limit:
                loaded = _Loaded(item, None, looked_ns)
            else:
                loaded = future.result() if future is not None else self._load(item, path, looked_ns)
        except OSError as error:
            self._unread(item, error)
            return
        self._deliver(loaded, path)

    def _deliver(self, loaded: _Loaded, path: str) -> None:
        found, data = loaded.found, loaded.data
        if st.S_ISLNK(found.mode) and data is not None:
            entry = self._entry(found)
            entry.target = data
            self._sink.other(entry)
        elif not found.is_file:
            self._problem(found.name, "changed", "it was replaced while it was read: no content is captured")
        elif data is None:
            self._stream(found, path, loaded.looked_ns)
        else:
            self.stat = found.stat(self._source, loaded.looked_ns)
            entry = self._entry(found)
            entry.size = len(data)
            if loaded.torn:
                entry.marks |= Mark.CHANGED
                self._problem(found.name, "changed", "the file changed each time while it was read")
            self._sink.small(entry, data)

    def _stream(self, found: Found, path: str, looked_ns: int) -> None:
        """Deliver a big file."""
        try:
            now_ns = time.time_ns()
            now = replace(self._files.look(path), name=found.name)
        except OSError as error:
            self._unread(found, error)
            return
        if not now.is_file:
            self._problem(found.name, "changed", "it was replaced while it was read: no content is captured")
            return
        if now.size is None:
            self._unread(found, OSError(None, "the file system does not tell its size"))
            return
        if not same(found, now):
            found, looked_ns = now, now_ns
        self.stat = found.stat(self._source, looked_ns)
        entry = self._entry(found)
        entry.size = now.size
        # Looks are compared with looks: what a listing tells may be less.
        reader = FileReader(_RemoteFile(self, path), entry, now.stat(self._source, 0))
        self._sink.stream(entry, reader)
        marks = reader.finish().marks
        if reader.error is not None:
            self._explain(found.name, reader.error)
        elif marks & Mark.CHANGED:
            self._problem(found.name, "changed", "the file changed while it was read")

    def chunks(self, path: str, size: int) -> Iterator[bytes]:
        """A file's first ``size`` bytes, with a few ranges under way."""
        waiting: deque[tuple[int, Future[bytes]]] = deque()
        asked = 0
        try:
            while waiting or asked < size:
                while asked < size and len(waiting) < _RANGES_AHEAD:
                    end = min(asked + CHUNK_SIZE, size)
                    waiting.append((end - asked, self._ranges.submit(partial(self._files.read, path, asked, end))))
                    asked = end
                length, future = waiting.popleft()
                data = future.result()
                if data:
                    yield data
                if len(data) < length:
                    return  # the file ends before, and the look that follows will say so
        finally:
            for _, future in waiting:
                future.cancel()

    def look(self, path: str) -> os.stat_result:
        """The state of a file, to be compared with others of these."""
        return self._files.look(path).stat(self._source, 0)

    def _directory(self, item: Found, path: str, listing: Future[tuple[list[Found], int] | None] | None) -> None:
        """Deliver a directory and go into it."""
        try:
            listed = listing.result() if listing is not None else None
            items, looked_ns = listed if listed is not None else self._listed(path)
        except FileNotFoundError as error:
            self._explain(item.name, error)
        except OSError as error:
            self._enter(item, path, [], 0, error)
        else:
            self._enter(item, path, items, looked_ns)

    def _enter(self, item: Found, path: str, items: list[Found], looked_ns: int, error: OSError | None = None) -> None:
        self.stat = item.stat(self._source, looked_ns)
        entry = self._entry(item)
        inside = f"{self._frames[-1].inside}{os.fsdecode(item.name)}/" if self._frames else ""
        self._sink.enter(entry)
        wanted = self._known.ahead() if self._known is not None else _always
        frame = _Frame(entry, path, inside, [], looked_ns, wanted)
        if error is not None:
            entry.marks |= Mark.UNREADABLE
            self._explain(entry.name, error)
        self._frames.append(frame)
        frame.items = self._selected(items, inside, path)

    def _selected(self, items: list[Found], inside: str, path: str) -> list[Found]:
        """What is to be delivered of a directory: not what has an impossible name, or is left out."""
        if self._skip_caches and self._is_cache(items, path):
            items = [found for found in items if found.name == _TAG_NAME]
        excluded = self._excludes.excluded if self._excludes is not None else None
        selected: list[Found] = []
        for found in items:
            wrong = _wrong_name(found.name)
            if wrong is None and selected and selected[-1].name == found.name:
                wrong = "something else of this name was taken"
            if wrong is not None:
                self._problem(found.name, "name", f"{wrong}: this is not in the snapshot")
            elif excluded is None or not excluded(inside + os.fsdecode(found.name), directory=found.is_directory):
                selected.append(found)
        return selected

    def _is_cache(self, items: list[Found], path: str) -> bool:
        tag = next((found for found in items if found.name == _TAG_NAME and found.is_file), None)
        if tag is None or (tag.size is not None and tag.size < len(_TAG)):
            return False
        try:
            return self._files.read(_path(path, tag), 0, len(_TAG)) == _TAG
        except OSError:
            return False  # the tag itself is an entry then, and its failure is reported there

    # --- what goes wrong ------------------------------------------------------------------------

    def _unread(self, item: Found, error: OSError) -> None:
        """A file or a link cannot be read."""
        self._explain(item.name, error)
        if not isinstance(error, FileNotFoundError) and item.is_file:
            entry = self._entry(item)
            entry.marks |= Mark.UNREADABLE
            self._sink.other(entry)

    def _explain(self, name: bytes, error: OSError) -> None:
        """Report an error, unless the whole source is gone: then nothing that follows would be true."""
        try:
            self._files.look(self._files.root)
        except OSError as gone:
            raise self._unreachable(gone) from gone
        what = "vanished" if isinstance(error, FileNotFoundError) else "unreadable"
        self._problem(name, what, error.strerror or str(error))

    def _problem(self, name: bytes, what: str, detail: str) -> None:
        self._report(Problem(b"/".join([*(frame.entry.name for frame in self._frames), name]), what, detail))


class _RemoteFile:
    """One big file, for a ``FileReader``."""

    def __init__(self, scanner: RemoteScanner, path: str) -> None:
        self._scanner = scanner
        self._path = path

    def chunks(self, size: int, *, sparse: bool) -> Iterator[bytes | Hole]:  # noqa: ARG002 - nobody tells of holes
        """See ``RemoteScanner.chunks``."""
        return self._scanner.chunks(self._path, size)

    def look(self) -> os.stat_result:
        """See ``RemoteScanner.look``."""
        return self._scanner.look(self._path)


def _always(name: bytes, stat: os.stat_result) -> bool:  # noqa: ARG001
    return True


def _path(directory: str, item: Found) -> str:
    if item.path is not None:
        return item.path
    name = os.fsdecode(item.name)
    return f"{directory.rstrip('/')}/{name}" if directory else name


def _wrong_name(name: bytes) -> str | None:
    """Why no file can have a name; None if one can."""
    if not name:
        return "its key has an empty component"
    if name in (b".", b".."):
        return "its name means another directory"
    if b"/" in name or b"\0" in name:
        return "its name has a slash or a NUL"
    if len(name) > MAX_NAME:
        return f"its name is longer than {MAX_NAME:,} bytes"
    return None
