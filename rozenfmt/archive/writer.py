"""``rozenfmt.create``: one self-contained archive, written strictly forward.

The archive is an upload that is committed or discarded explicitly: whatever goes wrong, an
exception, Ctrl-C, a full disk or a killed process, nothing that looks finished is left.
"""

from __future__ import annotations

import io
import os
import stat as st
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Self

from rozenfmt.errors import SourceError, StorageError, UsageError
from rozenfmt.events import Problem, Progress, ProgressCallback
from rozenfmt.format.codecs import Compression
from rozenfmt.format.crypto import Keys
from rozenfmt.format.encoder import Encoder
from rozenfmt.format.header import build_header
from rozenfmt.format.index import IndexBuilder
from rozenfmt.format.nodes import Entry, Kind
from rozenfmt.format.records import HeaderRecord
from rozenfmt.format.registry import Kind as ArchiveKind
from rozenfmt.format.registry import Right, Suite
from rozenfmt.keys import Passphrase, Recipient, SigningKey
from rozenfmt.storage.bandwidth import Bandwidth
from rozenfmt.storage.retry import RetryPolicy

from .opening import opened, retries_told
from .pipeline import Pipeline, default_workers
from .treewriter import OpenDirectory, TreeWriter

if TYPE_CHECKING:
    from rozenfmt.format.blocks import SealedBlock
    from rozenfmt.storage.base import Upload
    from rozenfmt.tree.content import FileReader
    from rozenfmt.tree.scan import Scanner

__all__ = ["ArchiveWriter", "CreateResult", "TempRuns", "create"]

Cipher = Literal["xchacha20-poly1305", "xaes-256-gcm"]
Source = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]

_SUITES: Final = {"xchacha20-poly1305": Suite.XCHACHA20_POLY1305, "xaes-256-gcm": Suite.XAES_256_GCM}
_PADDING: Final = (1024, 2048, 1024)
_SMALL: Final = 4 * 1024 * 1024
_PROGRESS_SECONDS: Final = 0.1


@dataclass(slots=True)
class CreateResult:
    """What was written.

    Attributes:
        archive_id: 16 bytes that name the archive.
        entries: Entries stored, directories included.
        content_bytes: Bytes of content in them.
        stored_bytes: Length of the archive; 0 before it is committed.
        problems: What could not be captured, in order (the first 10,000).
        problem_count: How many there were.
        seconds: Time from ``create`` to the commit.
    """

    archive_id: bytes
    entries: int = 0
    content_bytes: int = 0
    stored_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    seconds: float = 0.0


class TempRuns:
    """Sorted index runs in an unnamed temporary file (see ``format.index``)."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, int]] = []
        self._end = 0

    def append(self, run: bytes) -> int:
        """Keep a run; returns its handle."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="rozenfmt-")  # noqa: SIM115
            self._file.seek(self._end)
            self._file.write(run)
            self._file.flush()
        except OSError as error:
            msg = f"cannot write the index to a temporary file in {tempfile.gettempdir()}: {error.strerror}; set TMPDIR"
            raise StorageError(msg) from error
        self._runs.append((self._end, len(run)))
        self._end += len(run)
        return len(self._runs) - 1

    def read(self, handle: int, start: int, length: int) -> bytes:
        """Part of a run."""
        at, size = self._runs[handle]
        assert self._file is not None
        self._file.seek(at + start)
        return self._file.read(max(0, min(length, size - start)))

    def size(self, handle: int) -> int:
        """Length of a run in bytes."""
        return self._runs[handle][1]

    def close(self) -> None:
        """Drop everything."""
        if self._file is not None:
            self._file.close()


def create(
    location: str | os.PathLike[str],
    *,
    recipients: Iterable[Recipient | Passphrase] = (),
    browsers: Iterable[Recipient] = (),
    signer: SigningKey | None = None,
    compression: str = "zstd:3",
    cipher: Cipher = "xchacha20-poly1305",
    plain: bool = False,
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
    part_size: int | None = None,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> ArchiveWriter:
    """Begin a self-contained archive.

    Use it as a context manager: it commits on success and discards on any exception.

    Args:
        location: Path or URL of the archive, in any storage that fsspec knows.
        recipients: Who may read: recipients, or one passphrase alone.
        browsers: Who may see names and sizes, but no contents.
        signer: Signs the archive, so that readers can demand this writer.
        compression: ``zstd:1`` … ``zstd:19``, ``lz4``, ``lz4:LEVEL`` or ``none``.
        cipher: ``xchacha20-poly1305`` or ``xaes-256-gcm``.
        plain: Write without encryption; must be said, and excludes recipients.
        overwrite: Replace an archive of this name, once the new one is complete.
        storage_options: For fsspec: credentials, endpoint and the like.
        retry: How long failed requests to the storage are made again; None for the defaults.
        bandwidth: Limits of what goes to the storage and comes from it.
        part_size: Bytes of each part of a multipart upload; needed for more than about 80 GiB of unknown length.
        workers: Threads that compress and encrypt; by default one for each processor.
        progress: Called with ``Progress`` and ``Problem`` events, on the caller's thread.

    Raises:
        UsageError: The arguments contradict each other.
        ConflictError: The archive exists and ``overwrite`` is False.
        StorageError: The storage refuses.

    Specification: format.md, sections 2 to 10.
    """
    wanted = Compression.parse(compression)
    record, keys = _header(tuple(recipients), tuple(browsers), signer, cipher, plain=plain)
    with ExitStack() as stack:
        storage, name = stack.enter_context(opened(location, storage_options, retry, bandwidth))
        stack.enter_context(retries_told(storage, progress))
        upload = storage.create(name, overwrite=overwrite, part_size=part_size)
        stack.callback(upload.discard)  # of no effect once it is committed
        writer = ArchiveWriter(
            upload, record, keys, signer=signer, compression=wanted, workers=workers, progress=progress
        )
        writer.keep_open(stack.pop_all())
        return writer


def _header(
    recipients: Sequence[Recipient | Passphrase],
    browsers: Sequence[Recipient],
    signer: SigningKey | None,
    cipher: Cipher,
    *,
    plain: bool,
) -> tuple[HeaderRecord, Keys | None]:
    """Header record and keys of a new archive."""
    from rozenfmt import __version__

    if cipher not in _SUITES:
        msg = f"unknown cipher {cipher!r}: use {' or '.join(_SUITES)}"
        raise UsageError(msg)
    if plain == bool(recipients or browsers):
        msg = "name at least one recipient, or say plain=True for an archive without encryption, not both"
        raise UsageError(msg)
    if any(isinstance(r, Passphrase) for r in recipients) and len(recipients) + len(browsers) > 1:
        msg = "a passphrase stands alone: an archive with one has no other recipient"
        raise UsageError(msg)
    suite = Suite.PLAIN if plain else _SUITES[cipher]
    archive_id = os.urandom(16)
    common: dict[str, Any] = {
        "archive_id": archive_id,
        "kind": int(ArchiveKind.SELF_CONTAINED),
        "suite": int(suite),
        "features": (),
        "creator": f"rozenfmt {__version__}",
        "signer": signer.verify_key.ed25519 if signer is not None else None,
        "id_key": 0,
    }
    if plain:
        return HeaderRecord(padding=(1, 1, 1), **common), None
    keys = Keys.from_secret(suite, archive_id, os.urandom(32))
    assert keys.secret is not None
    stanzas = [
        (int(r.stanza_type), int(right), r.wrap(right, archive_id, secret, os.urandom))
        for right, secret, group in (
            (Right.READ, keys.secret, recipients),
            (Right.BROWSE, keys.index_key, browsers),
        )
        for r in group
    ]
    return HeaderRecord(
        padding=_PADDING,
        commit_secret=keys.commitment_to_secret(),
        commit_index=keys.commitment_to_index_key(),
        stanzas=tuple(stanzas),
        **common,
    ), keys


class ArchiveWriter:
    """An archive that is being written; made by ``create``.

    Attributes:
        result: What was written so far.
    """

    def __init__(
        self,
        upload: Upload,
        record: HeaderRecord,
        keys: Keys | None,
        *,
        signer: SigningKey | None,
        compression: Compression,
        workers: int | None,
        progress: ProgressCallback | None,
    ) -> None:
        self.result = CreateResult(record.archive_id)
        self._upload = upload
        self._progress = progress
        self._started = time.monotonic()
        self._reported = self._started
        self._runs = TempRuns()
        self._open = True
        self._resources = ExitStack()
        self._failed = False
        self._encoder = Encoder(
            build_header(record, keys),
            keys,
            entropy=os.urandom,
            signer_seed=signer.seed if signer is not None else None,
            index=IndexBuilder(self._runs),
        )
        tree_keys = keys or Keys.from_secret(Suite.PLAIN, record.archive_id, bytes(32))
        assert tree_keys.id_key is not None
        self._pipeline = Pipeline(self._encoder, self._write, workers=workers or default_workers())
        self._tree = TreeWriter(
            self._encoder,
            self._pipeline,
            id_key=tree_keys.id_key,
            path_key=tree_keys.path_key,
            compression=compression,
            report=self._report,
        )
        self._upload.write(self._encoder.begin())

    def _write(self, block: SealedBlock) -> None:
        for buffer in block.buffers:
            self._upload.write(buffer)

    @property
    def archive_id(self) -> bytes:
        """16 bytes that name the archive."""
        return self.result.archive_id

    # --- adding ---------------------------------------------------------------------------------

    def add_tree(
        self,
        path: str | bytes | os.PathLike[str],
        *,
        name: str | bytes | None = None,
        exclude: Iterable[str] = (),
        exclude_from: Iterable[str | os.PathLike[str]] = (),
        one_file_system: bool = False,
        skip_caches: bool = False,
    ) -> None:
        """Store a directory with all that is below it, or a single file.

        It is stored under its own base name, or under ``name``.  Captured are names as bytes, times
        in nanoseconds, modes, owners, symlinks, hard links, sparse files, devices, fifos, extended
        attributes and ACLs.  What cannot be captured is reported in ``result.problems``.

        Args:
            path: The source.
            name: Name to store it under, in the archive's root.
            exclude: Patterns in gitignore syntax, relative to the source.
            exclude_from: Files of such patterns.
            one_file_system: Do not cross mount points.
            skip_caches: Leave out what lies beside a ``CACHEDIR.TAG``.

        Raises:
            UsageError: The name is taken.
            SourceError: The source itself cannot be read.
        """
        from rozenfmt.tree.excludes import Excludes, read_patterns
        from rozenfmt.tree.scan import Scanner

        self._require_open()
        root = os.path.abspath(os.fsencode(path))
        stored = os.fsencode(name) if name is not None else os.path.basename(root) or b"root"
        _check_name(stored)
        if stored in self._tree.root.names or stored in self._tree.others:
            msg = f"{os.fsdecode(stored)!r} is in the archive already; give another name="
            raise UsageError(msg)
        patterns: list[str | bytes] = [*exclude]
        for file in exclude_from:
            patterns.extend(read_patterns(file))
        scanner = Scanner(
            root,
            excludes=Excludes(patterns) if patterns else None,
            one_file_system=one_file_system,
            skip_caches=skip_caches,
            report=self._report,
            name=stored,
        )
        before = self._tree.entries
        sink = _Sink(self, scanner)
        try:
            scanner.run(sink)
        except SourceError:
            # Nothing was taken yet if the source itself is at fault; half a tree must not be committed.
            self._failed = self._tree.entries != before or len(self._tree.stack) > 1
            raise
        except BaseException:
            self._failed = True
            raise

    def add(
        self,
        path: str | bytes,
        source: Source,
        *,
        mode: int = 0o644,
        mtime_ns: int | None = None,
    ) -> Entry:
        """Store one content under a path of its own.

        Args:
            path: Where in the archive, names joined by ``/``; directories are made as needed.
            source: The bytes themselves, a path of a file to read, or a binary stream that is read to its end.
            mode: Permission bits, unless ``source`` is a path.
            mtime_ns: Modification time in nanoseconds since 1970; now by default, the file's own for a path.

        Returns:
            The entry as stored.

        Raises:
            UsageError: The name is taken, or lies in a directory that is already complete.
            SourceError: The source cannot be read.
        """
        self._require_open()
        names = os.fsencode(path).strip(b"/").split(b"/")
        for one in names:
            _check_name(one)
        directory = self._directory(names[:-1])
        if names[-1] in directory.names:
            msg = f"{os.fsdecode(path)!r} is in the archive already"
            raise UsageError(msg)
        now = time.time_ns() if mtime_ns is None else mtime_ns
        entry = Entry(names[-1], Kind.FILE, mode & 0o7777, os.getuid(), os.getgid(), mtime_ns=now)
        full = b"/".join(names)
        try:
            if isinstance(source, (str, os.PathLike)):
                self._add_file(entry, source, full, keep_time=mtime_ns is None)
            elif isinstance(source, (bytes, bytearray, memoryview)):
                self._store(entry, io.BytesIO(source), full)
            else:
                self._store(entry, source, full)
            self._tree.add(directory, entry)
        except (UsageError, SourceError):
            raise  # nothing was taken: a stream that was begun is given up
        except BaseException:
            self._failed = True
            raise
        self._tick(full)
        return replace(entry, block=0, piece=0)

    def _add_file(self, entry: Entry, path: str | os.PathLike[str], full: bytes, *, keep_time: bool) -> None:
        try:
            with open(path, "rb") as file:
                stat = os.fstat(file.fileno())
                if not st.S_ISREG(stat.st_mode):
                    msg = f"{os.fspath(path)!r} is not a regular file; add_tree takes directories"
                    raise UsageError(msg)
                entry.mode, entry.uid, entry.gid = st.S_IMODE(stat.st_mode), stat.st_uid, stat.st_gid
                if keep_time:
                    entry.mtime_ns = stat.st_mtime_ns
                self._store(entry, file, full)
        except OSError as error:
            msg = f"cannot read {os.fspath(path)!r}: {error.strerror or error}"
            raise SourceError(msg) from error

    def _store(self, entry: Entry, file: IO[bytes], full: bytes) -> None:
        first = _read_full(file, _SMALL + 1)
        if len(first) <= _SMALL:
            self._tree.small(entry, first)
            return
        self._tree.stream(entry, _chunks(first, file), full)

    def _directory(self, names: Sequence[bytes]) -> OpenDirectory:
        """The open directory of these names, made if need be."""
        directory = self._tree.root
        for depth in range(1, len(names) + 1):
            path = b"/".join(names[:depth])
            found = self._tree.others.get(path)
            if found is None:
                if names[depth - 1] in directory.names:
                    msg = f"{os.fsdecode(path)!r} is complete, or no directory: nothing can be added below it"
                    raise UsageError(msg)
                entry = Entry(
                    names[depth - 1], Kind.DIRECTORY, 0o755, os.getuid(), os.getgid(), mtime_ns=time.time_ns()
                )
                self._tree.add(directory, entry)
                found = self._tree.others[path] = OpenDirectory(path, entry, ordered=False)
            directory = found
        return directory

    # --- end ------------------------------------------------------------------------------------

    def commit(self) -> CreateResult:
        """Write index and footer and make the archive visible.

        Raises:
            StorageError: It could not be made visible; then nothing is left.
        """
        self._require_open()
        self._open = False
        try:
            root = self._tree.finish()
            self._pipeline.drain()
            totals = (self._tree.entries, self._tree.content_bytes)
            for buffer in self._encoder.finish(root=root, totals=totals):
                self._upload.write(buffer)
            self._upload.commit()
        except BaseException:
            self._give_up()
            raise
        self._close()
        self._resources.close()
        self.result.entries, self.result.content_bytes = totals
        self.result.stored_bytes = self._encoder.offset
        self.result.seconds = time.monotonic() - self._started
        self._emit(b"")
        return self.result

    def discard(self) -> None:
        """Give the archive up and remove every trace; harmless after ``commit`` or when called again."""
        if self._open:
            self._open = False
            self._give_up()

    def _give_up(self) -> None:
        try:
            self._close()
        finally:
            try:
                self._upload.discard()
            finally:
                self._resources.close()

    def _close(self) -> None:
        self._pipeline.close()
        self._runs.close()

    def keep_open(self, resources: ExitStack) -> None:
        """Take over what is to be given back at the end; internal."""
        self._resources = resources

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = self._open and self._failed
        if kind is None and self._open and not failed:
            self.commit()
            return
        self.discard()
        if kind is None and failed:
            msg = "adding to this archive failed half-way; nothing was written"
            raise UsageError(msg)

    def _require_open(self) -> None:
        if not self._open or self._failed:
            msg = "this archive is closed, or has failed"
            raise UsageError(msg)

    # --- events ---------------------------------------------------------------------------------

    def _report(self, problem: Problem) -> None:
        self.result.problem_count += 1
        if len(self.result.problems) < 10_000:
            self.result.problems.append(problem)
        if self._progress is not None:
            self._progress(problem)

    def _tick(self, path: bytes) -> None:
        if self._progress is not None:
            now = time.monotonic()
            if now - self._reported >= _PROGRESS_SECONDS:
                self._reported = now
                self._emit(path)

    def _emit(self, path: bytes) -> None:
        if self._progress is not None:
            tree = self._tree
            self._progress(Progress("create", tree.entries, tree.content_bytes, self._encoder.offset, None, path))


class _Sink:
    """Takes what the scanner finds into the tree writer."""

    def __init__(self, writer: ArchiveWriter, scanner: Scanner) -> None:
        self._writer = writer
        self._scanner = scanner
        self._tree = writer._tree  # noqa: SLF001
        self._stack = self._tree.stack
        self._count = 0
        self._own_file = getattr(writer._upload, "identity", None)  # noqa: SLF001

    def _is_archive_itself(self) -> bool:
        """Whether the file at hand is the archive that is being written, inside its own source."""
        if self._own_file is None:
            return False
        stat = self._scanner.stat
        return bool((stat.st_dev, stat.st_ino) == self._own_file)

    def _tick(self, entry: Entry) -> None:
        self._count += 1
        if not self._count & 63:
            self._writer._tick(_join(self._stack[-1].path, entry.name))  # noqa: SLF001

    def enter(self, entry: Entry) -> None:
        parent = self._stack[-1].path
        self._stack.append(OpenDirectory(_join(parent, entry.name), entry, ordered=True))

    def leave(self, entry: Entry) -> None:
        directory = self._stack.pop()
        entry.child, entry.block = self._tree.complete(directory)
        self._tree.add(self._stack[-1], entry)

    def small(self, entry: Entry, data: bytes) -> None:
        if self._is_archive_itself():
            return
        self._tree.small(entry, data)
        self._tree.add(self._stack[-1], entry)
        self._tick(entry)

    def stream(self, entry: Entry, reader: FileReader) -> None:
        if self._is_archive_itself():
            return
        name = _join(self._stack[-1].path, entry.name)
        self._tree.stream(entry, self._chunks(reader, name), name)
        final = reader.finish()
        # What the reader found out at the end (marks, times) goes with what was stored.
        final.name = entry.name
        final.size, final.content_id = entry.size, entry.content_id
        final.block, final.piece = entry.block, entry.piece
        self._tree.add(self._stack[-1], final)

    def _chunks(self, reader: FileReader, name: bytes) -> Iterator[bytes | int]:
        for chunk in reader:
            yield chunk if isinstance(chunk, bytes) else chunk.length
            self._writer._tick(name)  # noqa: SLF001

    def link(self, entry: Entry) -> None:
        self._tree.link(entry)
        self._tree.add(self._stack[-1], entry)

    def other(self, entry: Entry) -> None:
        self._tree.add(self._stack[-1], entry)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _check_name(name: bytes) -> None:
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > 65_535:
        msg = f"{os.fsdecode(name)!r} is not a name that a file can have"
        raise UsageError(msg)


def _read_full(file: IO[bytes], size: int) -> bytes:
    """Read ``size`` bytes, or all that is there."""
    parts = []
    while size > 0:
        try:
            part = file.read(size)
        except OSError as error:
            msg = f"the source cannot be read: {error.strerror or error}"
            raise SourceError(msg) from error
        if part is None:
            msg = "the source has no data ready and does not wait; give a blocking stream"
            raise SourceError(msg)
        if not isinstance(part, (bytes, bytearray, memoryview)):
            msg = "the source gives text; open it in binary mode"
            raise UsageError(msg)
        if not part:
            break
        parts.append(bytes(part))
        size -= len(part)
    return b"".join(parts)


def _chunks(first: bytes, file: IO[bytes]) -> Iterator[bytes]:
    view = memoryview(first)
    yield bytes(view[:_SMALL])
    rest = bytes(view[_SMALL:])
    while chunk := rest + _read_full(file, _SMALL - len(rest)):
        rest = b""
        yield chunk
