"""``rozenfmt.Vault``: many backups over time, in one folder of some storage."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from rozenfmt.archive.opening import close_storage, retries_told
from rozenfmt.errors import ArchiveError, ConflictError, HeaderError, NoMatchingKey, StorageError, UsageError
from rozenfmt.events import ProgressCallback
from rozenfmt.format.codecs import Compression
from rozenfmt.format.registry import Right, Suite
from rozenfmt.format.snapshots import Mode
from rozenfmt.keys import Identity, Recipient

from . import editing, loading
from .arguments import (
    all_patterns,
    aside_name,
    checked_set_name,
    checked_tags,
    default_cache_dir,
    pattern_inside,
)
from .editions import HostState
from .hostkey import HostKey
from .keyring import Keyring, Person, open_keyring
from .recovery import edition_copies

if TYPE_CHECKING:
    from datetime import datetime

    from rozenfmt.storage.abilities import ProbeReport
    from rozenfmt.storage.bandwidth import Bandwidth
    from rozenfmt.storage.base import Leftover, Storage
    from rozenfmt.storage.retry import RetryPolicy
    from rozenfmt.tree.excludes import Excludes

    from .archives import Archives
    from .backup import Source
    from .capture import Reread
    from .diff import SnapshotDiff
    from .editions import EditionView
    from .interrupted import Interrupted
    from .rebuild import RebuildResult
    from .restore import RestorePlan, RestoreResult
    from .results import BackupResult, OnConflict, Sources
    from .snapshot import Snapshot
    from .verify import VerifyReport

__all__ = ["Vault"]

_SUITES: Final = {"xchacha20-poly1305": Suite.XCHACHA20_POLY1305, "xaes-256-gcm": Suite.XAES_256_GCM}
_PIN: Final = "pin"

Modes = Literal["snapshot", "worm"]


class Vault:
    """A vault that was opened by ``Vault.open`` or made by ``Vault.init``.

    With a host key it backs up and reads nothing back; with an identity it reads.  Both may be given.

    Attributes:
        url: Where it is, without secrets.
        host: The host key at hand, or None.
        problems: What was found wrong, in words: editions and snapshots that were passed over, gaps.
    """

    def __init__(
        self,
        storage: Storage,
        view: EditionView,
        *,
        host: HostKey | None = None,
        identities: Sequence[Identity] = (),
        cache_dir: str | os.PathLike[str] | None = None,
        problems: list[str] | None = None,
    ) -> None:
        self.host = host
        self.problems = problems if problems is not None else []
        self._storage = storage
        self._view = view
        self._identities = tuple(identities)
        self._keyring = open_keyring(view, identities) if identities else None
        self._cache_dir = os.fspath(cache_dir) if cache_dir is not None else None
        self._archives: Archives | None = None
        self._snapshots: list[Snapshot] | None = None
        self._resources = ExitStack()
        self._resources.callback(close_storage, storage)

    # --- beginning ------------------------------------------------------------------------------

    @classmethod
    def init(
        cls,
        location: str | os.PathLike[str],
        *,
        owner: Identity,
        recipients: Iterable[Recipient] = (),
        browsers: Iterable[Recipient] = (),
        storage_options: dict[str, Any] | None = None,
        retry: RetryPolicy | None = None,
        bandwidth: Bandwidth | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Make a vault in an empty folder, and open it.

        Args:
            location: Path or URL of the folder.
            owner: The person who owns it: its signature is the root of trust.
            recipients: More people who may read everything.
            browsers: People who may see names and sizes only.
            storage_options: For fsspec: credentials, endpoint and the like.
            retry: How long failed requests to the storage are made again; None for the defaults.
            bandwidth: Limits of what goes to the storage and comes from it.
            cache_dir: Where a host keeps its cache; below the user's cache directory by default.

        Raises:
            ConflictError: There is a vault already.
            StorageError: The storage refuses.

        Specification: vault.md, section 3.
        """
        from rozenfmt.storage import open_storage

        from . import layout

        storage = open_storage(location, storage_options, retry=retry, bandwidth=bandwidth)
        with ExitStack() as stack:
            stack.callback(close_storage, storage)
            if next(iter(storage.list(layout.EDITIONS)), None) is not None:
                msg = f"there is a vault at {storage.url} already; open it, or choose another folder"
                raise ConflictError(msg)
            raw = editing.first_edition(owner, recipients=recipients, browsers=browsers, now_ns=time.time_ns())
            loading.store_edition(storage, raw)
            stack.pop_all()
        vault = cls._open(storage, host=None, identities=(owner,), owner=owner.recipient, cache_dir=cache_dir)
        assert isinstance(vault, cls)
        return vault

    @classmethod
    def open(
        cls,
        location: str | os.PathLike[str],
        *,
        host: HostKey | None = None,
        identities: Iterable[Identity] = (),
        owner: Recipient | None = None,
        storage_options: dict[str, Any] | None = None,
        retry: RetryPolicy | None = None,
        bandwidth: Bandwidth | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Open a vault: as a host to back up, as a person to read, or both.

        Args:
            location: Path or URL of the folder.
            host: The host's key; it names the owner itself.
            identities: Keys of people who may read or browse.
            owner: The vault's owner, if none of the identities is.
            storage_options: For fsspec: credentials, endpoint and the like.
            retry: How long failed requests to the storage are made again; None for the defaults.
            bandwidth: Limits of what goes to the storage and comes from it.
            cache_dir: Where a host keeps its cache; below the user's cache directory by default.

        Raises:
            UsageError: No key was given, or the owner is not known.
            NoMatchingKey: None of the identities has a right to this vault.
            SignatureError: It is another owner's, is not what the host key is for, or was rolled back.
            StorageError: There is no vault, or the storage fails.

        Specification: vault.md, sections 3.3 and 6.
        """
        from rozenfmt.storage import open_storage

        people = tuple(identities)
        if host is None and not people:
            msg = "give a host key to back up, or an identity to read"
            raise UsageError(msg)
        storage = open_storage(location, storage_options, retry=retry, bandwidth=bandwidth)
        return cls._open(storage, host=host, identities=people, owner=owner, cache_dir=cache_dir)

    @classmethod
    def _open(
        cls,
        storage: Storage,
        *,
        host: HostKey | None,
        identities: tuple[Identity, ...],
        owner: Recipient | None,
        cache_dir: str | os.PathLike[str] | None,
    ) -> Self:
        problems: list[str] = []
        with ExitStack() as stack:
            stack.callback(close_storage, storage)
            if host is not None and owner is not None and owner != host.owner:
                msg = "the host key is of a vault of another owner"
                raise UsageError(msg)
            load = partial(
                loading.load_view,
                storage,
                owner=owner or (host.owner if host is not None else None),
                identities=identities,
                pin=(host.pin_number, host.pin_digests) if host is not None else None,
                vault_id=host.vault_id if host is not None else None,
                report=problems.append,
                copies=(lambda: edition_copies(storage, problems.append)) if identities else None,
            )
            make = partial(cls, storage, host=host, identities=identities, cache_dir=cache_dir, problems=problems)
            try:
                vault = make(load())
            except NoMatchingKey:  # unless the edition that lets this person in was lost
                vault = make(load(ask_copies=True))
            stack.pop_all()
        return vault

    @staticmethod
    def identify(
        location: str | os.PathLike[str],
        *,
        storage_options: dict[str, Any] | None = None,
        retry: RetryPolicy | None = None,
        bandwidth: Bandwidth | None = None,
    ) -> Generator[bytes, None, None]:
        """Ids of the vaults that the editions in a folder name; nothing is trusted, and no key is needed.

        A host finds its key by the id; ``open`` then holds the vault against the key.

        Args:
            location: Path or URL of the folder.
            storage_options: For fsspec: credentials, endpoint and the like.
            retry: How long failed requests to the storage are made again; None for the defaults.
            bandwidth: Limits of what goes to the storage and comes from it.

        Yields:
            Each id of 16 bytes once; one request for each edition that is looked at. There is one
            id, unless somebody put editions of another vault there.

        Raises:
            StorageError: There is no vault, or the storage fails.
        """
        from rozenfmt.storage import open_storage

        storage = open_storage(location, storage_options, retry=retry, bandwidth=bandwidth)
        try:
            yield from _vault_ids(storage)
        finally:
            close_storage(storage)

    # --- about ----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it is."""
        return self._storage.url

    @property
    def vault_id(self) -> bytes:
        """16 bytes that name the vault."""
        return self._view.vault_id

    @property
    def owner(self) -> Recipient:
        """Its owner."""
        return self._view.owner

    @property
    def right(self) -> Right | None:
        """What the identities at hand allow; None with a host key alone."""
        return None if self._keyring is None else self._keyring.right

    @property
    def hosts(self) -> dict[str, str]:
        """Labels of the hosts by id, in hexadecimal; ids alone stand for labels without an identity."""
        return {one.hex(): self._label(one) for one in self._view.hosts}

    @property
    def retired(self) -> frozenset[str]:
        """Ids of those hosts that were retired."""
        return frozenset(one.hex() for one, row in self._view.hosts.items() if row.state is HostState.RETIRED)

    @property
    def people(self) -> list[Person]:
        """Who may read or browse, and who was removed; empty with a host key or a browse key alone."""
        return [] if self._keyring is None else list(self._keyring.people)

    def _label(self, host_id: bytes) -> str:
        if self._keyring is not None:
            return self._keyring.label(host_id)
        return self.host.label if self.host is not None and self.host.host_id == host_id else host_id.hex()

    # --- the owner ------------------------------------------------------------------------------

    def enrol(self, label: str) -> HostKey:
        """Make a key for a host, and put the host on the vault's list.

        Args:
            label: A name for people, of at most 255 bytes; kept secret from the storage.

        Returns:
            The host's key: save it on that host, and nowhere else.

        Raises:
            UsageError: The owner's identity is not at hand.
        """
        keyring, owner = self._owning()
        raw, host = editing.enrol(keyring, owner, label, now_ns=time.time_ns())
        self._publish(raw)
        return replace(host, pin_number=self._view.number, pin_digests=self._view.digests)

    def grant(self, recipient: Recipient, right: Literal["read", "browse"] = "read", *, label: str = "") -> None:
        """Give a person a right, to all that is stored and will be; no archive is rewritten.

        Args:
            recipient: The person's public key.
            right: ``read`` everything, or ``browse`` names and sizes.
            label: A name for the owner's list.

        Raises:
            UsageError: The owner's identity is not at hand, or the person has the right already.
        """
        keyring, owner = self._owning()
        person = Person(recipient, Right[right.upper()], label=label)
        self._publish(editing.next_edition(keyring, owner, add_people=[person], now_ns=time.time_ns()))

    def revoke(self, recipient: Recipient) -> None:
        """Take a person off the list, and begin a new epoch.

        What is stored from now on is closed to them.  What was stored before is not: they had its keys.

        Raises:
            UsageError: The owner's identity is not at hand, or there is no such person.
        """
        keyring, owner = self._owning()
        self._publish(editing.next_edition(keyring, owner, remove_people=[recipient], now_ns=time.time_ns()))

    def retire(self, host_id: str) -> None:
        """Take a host off the list: it can back up no more; what it stored stays readable.

        Args:
            host_id: Its id in hexadecimal, as ``hosts`` has it.
        """
        keyring, owner = self._owning()
        one = bytes.fromhex(host_id)
        self._publish(editing.next_edition(keyring, owner, retire_hosts=[one], now_ns=time.time_ns()))

    def repair_editions(self) -> int:
        """Store editions again that are damaged or lost, from their copies in metadata archives.

        Returns:
            How many were stored.

        Raises:
            UsageError: The owner's identity is not at hand.
        """
        self._owning()
        stored = 0
        there = loading.stored_digests(self._storage)
        for head in self._view.heads:
            if head.digest not in there:
                loading.store_edition(self._storage, head.raw)
                stored += 1
        self.refresh()
        return stored

    def _owning(self) -> tuple[Keyring, Identity]:
        owner = next((one for one in self._identities if one.recipient == self._view.owner), None)
        if owner is None or self._keyring is None:
            msg = "only the vault's owner can do this: give the owner's identity"
            raise UsageError(msg)
        return self._keyring, owner

    def _publish(self, raw: bytes) -> None:
        loading.store_edition(self._storage, raw)
        self.refresh()

    def refresh(self, *, ask_copies: bool = False) -> None:
        """Read editions and snapshots again.

        Args:
            ask_copies: Look for editions in metadata archives too, although none seems to be missing.
        """
        self.problems.clear()
        self._view = loading.load_view(
            self._storage,
            owner=self._view.owner,
            identities=self._identities,
            pin=(self._view.number, self._view.digests),
            vault_id=self._view.vault_id,
            report=self.problems.append,
            copies=(lambda: edition_copies(self._storage, self.problems.append)) if self._identities else None,
            ask_copies=ask_copies,
        )
        if self._identities:
            self._keyring = open_keyring(self._view, self._identities)
        self._archives = None
        self._snapshots = None

    # --- backing up -----------------------------------------------------------------------------

    def backup(
        self,
        sources: Sources,
        *,
        mode: Modes = "snapshot",
        name: str | None = None,
        source_options: Mapping[str, Any] | None = None,
        exclude: Iterable[str] = (),
        exclude_from: Iterable[str | os.PathLike[str]] = (),
        one_file_system: bool = False,
        skip_caches: bool = False,
        tags: Iterable[str] = (),
        on_conflict: OnConflict | None = None,
        reread: Reread = "none",
        allow_empty: bool = False,
        compression: str = "zstd:3",
        cipher: Literal["xchacha20-poly1305", "xaes-256-gcm"] = "xchacha20-poly1305",
        data_size: int = 1 << 30,
        decode_check: bool = True,
        workers: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> BackupResult:
        """Back up into a new snapshot.  Commits at the end, or leaves no snapshot.

        Args:
            sources: Paths, URLs of anything that fsspec reads (``sftp://host/dir``, ``s3://bucket/photos``),
                ``(name, path or URL)`` pairs, and ``Command`` objects; or one of these. Each is stored under its
                base name (of a URL without a path, its host or bucket) or the name given. ``bytes`` and
                ``os.PathLike`` are always local paths.
            mode: ``snapshot`` (what is there now) or ``worm`` (what was stored once is not to change).
            name: The set that the snapshot belongs to; by default its sources' absolute paths.
            source_options: For fsspec, of the sources that are URLs: credentials, endpoint and the like. What stands
                under a URL is for the sources there and below, everything else for all:
                ``{"username": "me", "s3://bucket": {"endpoint_url": "https://…"}}``. Not stored.
            exclude: Patterns in gitignore syntax, relative to each source.
            exclude_from: Files of such patterns.
            one_file_system: Do not cross mount points; of no effect on URLs.
            skip_caches: Leave out what lies beside a ``CACHEDIR.TAG``.
            tags: Texts to find the snapshot by.
            on_conflict: WORM: what to do about files whose content changed: ``restore``, ``accept``, ``keep-both``,
                ``skip`` or ``fail``, or a callable that is given each ``Conflict`` and returns one of these.
            reread: Read files although nothing about them changed: ``none``, a ``sample``, or ``all``.
            allow_empty: A source that is missing or empty now is meant to be so.
            compression: ``zstd:1`` … ``zstd:19``, ``lz4``, ``lz4:LEVEL`` or ``none``.
            cipher: ``xchacha20-poly1305`` or ``xaes-256-gcm``.
            data_size: Bytes after which a data archive is complete.
            decode_check: Open and decode each block again before it is stored.
            workers: Threads that compress and encrypt; by default one for each processor.
            progress: Called with ``Progress`` and ``Problem`` events.

        Returns:
            What was done. ``complete`` is False if something could not be captured.

        Raises:
            UsageError: There is no host key, or the arguments contradict each other.
            SourceError: A source cannot be read, has become empty, or a command failed. Nothing was committed.
            ConflictError: WORM: contents changed and nobody said what to do. All else is backed up; see ``result``.
            StorageError: The storage failed. Nothing was committed.

        Specification: vault.md, section 7.
        """
        from .backup import Job, parse_sources, run
        from .catalog import Catalog
        from .interrupted import request_of

        host = self._require_host()
        parsed = parse_sources(sources, source_options)
        if cipher not in _SUITES:
            msg = f"unknown cipher {cipher!r}: use {' or '.join(_SUITES)}"
            raise UsageError(msg)
        if mode not in ("snapshot", "worm"):
            msg = f"unknown mode {mode!r}: use snapshot or worm"
            raise UsageError(msg)
        if mode == "worm" and any(source.command is not None for source in parsed):
            msg = "the output of a command is another one each time: back it up in snapshot mode"
            raise UsageError(msg)
        patterns = all_patterns(exclude, exclude_from)
        set_name = name if name is not None else ":".join(sorted(os.fsdecode(source.path) for source in parsed))
        tags = checked_tags(tags)
        job = Job(
            sources=parsed,
            set_name=checked_set_name(set_name),
            mode=Mode[mode.upper()],
            excludes=lambda source: self._excludes(patterns, source),
            tags=tags,
            one_file_system=one_file_system,
            skip_caches=skip_caches,
            allow_empty=allow_empty,
            reread=reread,
            on_conflict=on_conflict,
            compression=Compression.parse(compression),
            suite=_SUITES[cipher],
            data_size=data_size,
            workers=workers or 0,
            decode_check=decode_check,
            request=request_of(
                parsed,
                {
                    "mode": mode,
                    "exclude": patterns,
                    "one_file_system": one_file_system,
                    "skip_caches": skip_caches,
                    "tags": list(tags),
                    "on_conflict": on_conflict if isinstance(on_conflict, str) else None,
                    "reread": reread,
                    "allow_empty": allow_empty,
                    "compression": compression,
                    "cipher": cipher,
                    "data_size": data_size,
                    "decode_check": decode_check,
                    "workers": workers,
                },
            ),
            restore=self._put_back if self.right is Right.READ else None,
            progress=progress,
        )
        with Catalog(self._catalog_path(host), vault_id=host.vault_id, host_id=host.host_id) as catalog:
            self._check_pin(catalog)
            with retries_told(self._storage, progress):
                result = run(self._storage, self._view, host, catalog, job)
        self._archives = None
        self._snapshots = None
        return result

    def interrupted(self) -> list[Interrupted]:
        """Backups of this host, on this machine, that did not come to their end, the oldest first.

        The next backup of the same set goes on with them, and so does ``resume``.

        Specification: vault.md, section 7.3.
        """
        from .interrupted import find

        return [one for one, _ in find(self._cache_folder(), self._require_host().host_id)]

    def resume(
        self,
        name: str | None = None,
        *,
        on_conflict: OnConflict | None = None,
        source_options: Mapping[str, Any] | None = None,
        progress: ProgressCallback | None = None,
    ) -> list[BackupResult]:
        """Finish interrupted backups: run them again with their own arguments.

        Uploads go on where they ended; files are read again to find out what is stored already.

        Args:
            name: Only those of this set.
            on_conflict: As for ``backup``, where that was a callable; else what it was.
            source_options: As for ``backup``: they may hold secrets, and are not kept.
            progress: Called with events.

        Returns:
            What was done, the oldest first.

        Raises:
            RozenError: As ``backup`` does; what was not finished stays interrupted.
        """
        from rozenfmt.storage.location import is_url

        from .interrupted import arguments_of, find
        from .remotes import options_among

        done = []
        for one, request in find(self._cache_folder(), self._require_host().host_id):
            if name is None or one.set_name == name:
                sources, options = arguments_of(request)
                options["on_conflict"] = options["on_conflict"] or on_conflict
                urls = [source[1] for source in sources if isinstance(source, tuple) and is_url(source[1])]
                given = options_among(source_options, urls)
                done.append(self.backup(sources, source_options=given, progress=progress, **options))
        return done

    def discard_interrupted(self, name: str | None = None) -> int:
        """Give interrupted backups up, and remove what they left in the storage.

        Args:
            name: Only those of this set.

        Returns:
            How many there were.

        Raises:
            StorageError: Something could not be removed.
        """
        from .interrupted import discard

        return discard(self._storage, self._cache_folder(), self._require_host().host_id, name)

    def leftovers(self) -> list[Leftover]:
        """Unfinished uploads below this host's own prefixes that nothing on this machine knows of.

        They are of a run whose journal was lost, or of one that is under way elsewhere with the same key.
        Nothing else is looked at; uploads of others are never touched.

        Raises:
            StorageError: They cannot be listed: S3 wants ``s3:ListBucketMultipartUploads`` for it.
        """
        from .interrupted import leftovers

        return list(leftovers(self._storage, self._cache_folder(), self._require_host().host_id))

    def remove_leftovers(self) -> int:
        """Remove what ``leftovers`` finds.

        Returns:
            How many there were.

        Raises:
            UsageError: A backup of this host is under way on this machine: they may be its.
            StorageError: One could not be removed.
        """
        from .journal import Journal

        if Journal.any_in_use(self._cache_folder(), self._require_host().host_id):
            msg = "a backup of this host is under way: wait for its end, else its uploads would be removed"
            raise UsageError(msg)
        found = self.leftovers()
        for leftover in found:
            self._storage.remove_leftover(leftover)
        return len(found)

    def _require_host(self) -> HostKey:
        if self.host is None:
            msg = "backing up takes a host key: enrol this machine, and open the vault with host="
            raise UsageError(msg)
        return self.host

    def _cache_folder(self) -> str:
        folder = self._cache_dir if self._cache_dir is not None else default_cache_dir()
        return os.path.join(folder, self.vault_id.hex())

    def _catalog_path(self, host: HostKey) -> str:
        return os.path.join(self._cache_folder(), f"{host.host_id.hex()}.sqlite")

    def _check_pin(self, catalog: Any) -> None:
        """Refuse editions older than those that this host has used before (vault.md, section 3.3)."""
        pin = catalog.recall(_PIN)
        if pin is not None:
            digests = tuple(pin[at : at + 32] for at in range(8, len(pin), 32))
            self._view.check_pin(int.from_bytes(pin[:8], "little"), digests)

    def _excludes(self, patterns: list[str | bytes], source: Source) -> Excludes | None:
        """The user's patterns, and vault and cache themselves where they lie inside of a source."""
        from rozenfmt.tree.excludes import Excludes

        found = [*patterns]
        if source.remote is not None:
            from .remotes import pattern_of_vault

            own = pattern_of_vault(self._storage, source.remote)
            found += [own] if own is not None else []
        for folder in (getattr(self._storage, "root", None), self._cache_folder()):
            own = pattern_inside(folder, source) if folder is not None else None
            if own is not None:
                found.append(own)
        return Excludes(found) if found else None

    def _put_back(self, parent: bytes, path: bytes, local: bytes) -> None:
        """WORM: rename a local file aside and put the content of an earlier snapshot in its place."""
        import tempfile

        aside = aside_name(local)
        snapshot = self.snapshot(parent.hex())
        with tempfile.TemporaryDirectory(prefix=".rozenfmt-", dir=os.path.dirname(os.fsdecode(local))) as folder:
            self.restore(snapshot, folder, paths=[path])
            restored = os.path.join(os.fsencode(folder), path)
            os.rename(local, aside)
            os.rename(restored, local)

    # --- reading --------------------------------------------------------------------------------

    def _reading(self) -> Archives:
        from .archives import Archives

        if self._keyring is None:
            msg = "a host key cannot read: give the identity of a person who may"
            raise NoMatchingKey(msg, object=self.url)
        if self._archives is None:
            self._archives = Archives(self._storage, self._keyring)
        return self._archives

    def snapshots(self, *, host: str | None = None, name: str | None = None) -> list[Snapshot]:
        """Snapshots, each set's oldest first.

        What is damaged or forged is left out and told in ``problems``.

        Args:
            host: Only those of the host with this label or id.
            name: Only those of this set.

        Raises:
            NoMatchingKey: Only a host key is at hand.
        """
        if self._snapshots is None:
            found = self._reading().snapshots()
            if any(problem.what == "signature" for problem in found.problems):
                # Of a host that the editions do not have: the one that enrolled it may be lost.
                self.refresh(ask_copies=True)
                found = self._reading().snapshots()
            self._snapshots = list(found.snapshots)
            self.problems += map(str, found.problems)
        return [
            one
            for one in self._snapshots
            if (host is None or host in (one.host, one.host_id.hex())) and (name is None or one.name == name)
        ]

    def snapshot(self, which: str, *, before: datetime | None = None) -> Snapshot:
        """One snapshot.

        Args:
            which: Its id, a unique beginning of it, ``latest``, ``latest:SET`` or ``latest:SET@HOST``.
            before: Look only at snapshots begun before this time.

        Raises:
            UsageError: There is none, or several sets match.
        """
        from .selection import select

        return select(self.snapshots(), which, before=before)

    def _one(self, snapshot: Snapshot | str) -> Snapshot:
        return self.snapshot(snapshot) if isinstance(snapshot, str) else snapshot

    def restore(
        self,
        snapshot: Snapshot | str,
        destination: str | bytes | os.PathLike[str],
        *,
        paths: Iterable[str | bytes] = (),
        patterns: Iterable[str] = (),
        overwrite: Literal["never", "if-changed", "always"] = "never",
        owners: bool | None = None,
        numeric_owners: bool = False,
        xattrs: bool = True,
        dry_run: bool = False,
        workers: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> RestoreResult | RestorePlan:
        """Restore a snapshot below a directory.  Nothing can be written outside of it.

        Args:
            snapshot: The snapshot, or how ``snapshot`` finds it.
            destination: Directory, made if missing.
            paths: What to restore, with all below; everything by default.
            patterns: Restore only what matches one of these (gitignore syntax).
            overwrite: What to do with files that stand there.
            owners: Restore owners; by default only as root.
            numeric_owners: By number, not by name first.
            xattrs: Restore extended attributes and ACLs.
            dry_run: Restore nothing, and say what would be read.
            workers: Threads that fetch and open blocks.
            progress: Called with events.

        Returns:
            What was restored and what was not; with ``dry_run``, the plan.

        Raises:
            NoMatchingKey: The keys at hand cannot read contents.
            UsageError: A path is not in the snapshot.
            StorageError: The destination is full or cannot be written.
        """
        from .restore import restore

        with retries_told(self._storage, progress):
            return restore(
                self._one(snapshot),
                destination,
                paths=paths,
                patterns=patterns,
                overwrite=overwrite,
                owners=owners,
                numeric_owners=numeric_owners,
                xattrs=xattrs,
                dry_run=dry_run,
                workers=workers,
                progress=progress,
            )

    def verify(
        self,
        snapshot: Snapshot | str | None = None,
        *,
        level: Literal["present", "hashes", "opened", "contents"] = "present",
        against: str | os.PathLike[str] | None = None,
        sample: float | None = None,
        exclude: Iterable[str] = (),
        workers: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> VerifyReport:
        """Verify what is stored, or a local tree against a snapshot.

        Args:
            snapshot: One snapshot; everything in the vault if None.
            level: ``present`` (every archive is there, by a listing), ``hashes`` (every stored byte),
                ``opened`` (everything opens with the key), ``contents`` (every content has its id).
            against: A local directory: compare it with the snapshot, without reading data archives.
            sample: Share of the archives or files to look at, 0 to 1, chosen anew each time.
            exclude: Patterns in gitignore syntax, with ``against``.
            workers: Threads.
            progress: Called with events.

        Returns:
            What was looked at and what is wrong; false-like fields if all is well.
        """
        from .verify import verify

        with retries_told(self._storage, progress):
            return verify(
                self._reading(),
                [] if snapshot is None else [self._one(snapshot)],  # those that are there then
                whole=snapshot is None,
                problems=self.problems,
                level=level,
                against=against,
                sample=sample,
                exclude=exclude,
                workers=workers,
                progress=progress,
            )

    def diff(self, older: Snapshot | str, newer: Snapshot | str) -> SnapshotDiff:
        """What changed between two snapshots: new, changed, metadata, moved, deleted."""
        from .diff import diff

        return diff(self._one(older), self._one(newer))

    # --- the storage ----------------------------------------------------------------------------

    def probe(self, *, transfer: int = 8 << 20, record: bool = False) -> ProbeReport:
        """Find out what the storage can do, and what the credentials at hand may do there.

        With a host key it looks in the host's places; see ``rozenfmt.probe``.

        Args:
            transfer: Bytes to send, and to receive, for measuring.
            record: Store the report in the vault.

        Raises:
            StorageError: The storage fails in a way that ends the probe.

        Specification: vault.md, section 10.
        """
        from .probing import probe_vault

        return probe_vault(self._storage, host=self.host, transfer=transfer, record=record)

    def last_probe(self) -> ProbeReport | None:
        """The last report that a probe stored in the vault: a hint, which anybody may have written."""
        from .probing import last_report

        return last_report(self._storage, host=self.host if self._keyring is None else None)

    def rebuild_catalog(self, progress: ProgressCallback | None = None) -> RebuildResult:
        """Make the host's cache anew from its metadata archives.  Takes the host key and an identity.

        Returns:
            What was read: snapshots, requests, bytes, seconds.
        """
        from .catalog import Catalog
        from .rebuild import rebuild

        host = self._require_host()
        with (
            Catalog(self._catalog_path(host), vault_id=host.vault_id, host_id=host.host_id) as catalog,
            retries_told(self._storage, progress),
        ):
            return rebuild(catalog, self._reading(), self.snapshots(host=host.host_id.hex()), progress)

    # --- end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections to the storage."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Vault({self.url!r})"


def _vault_ids(storage: Storage) -> Iterator[bytes]:
    from rozenfmt.format import records

    from . import editions, layout

    seen: set[bytes] = set()
    unread: ArchiveError | StorageError | None = None
    for info in storage.list(layout.EDITIONS):
        if layout.parse_edition_name(info.name) is None or info.size > editions.MAX_OBJECT:
            continue
        try:
            raw = storage.read(info.name, 0, info.size)
            body, _ = editions.split_signed(raw, editions.MAGIC, "an edition of a vault", "vault 3.1")
            found = records.decode(editions.EditionEnvelope, body, HeaderError, "vault 3.1").vault_id
        except (ArchiveError, StorageError) as error:
            unread = error
            continue
        if found not in seen:
            seen.add(found)
            yield found
    if seen:
        return
    if unread is not None:
        raise unread
    msg = (
        f"no vault here: {storage.url} has no object in {layout.EDITIONS}. Check the address, or make a vault with "
        "`rozenfmt init`"
    )
    raise StorageError(msg, object=layout.EDITIONS, fatal=True)
