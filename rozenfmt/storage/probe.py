"""Finding out what a storage can do, and what these credentials may do there, by trying.

Everything is tried below one scratch folder of a random name.  What is made there is removed, also
after an error or an interrupt, as far as the credentials allow; what had to stay is told.  Rights in
other places are asked for by names that do not exist, so that nothing there is read or changed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from rozenfmt.errors import ConflictError, StorageError, UsageError
from rozenfmt.storage.abilities import AbilityResult, Findings, ProbeReport

if TYPE_CHECKING:
    from rozenfmt.storage.base import Storage

__all__ = ["DEFAULT_TRANSFER", "Plan", "Question", "probe_storage", "timed"]

DEFAULT_TRANSFER: Final = 8 << 20
_LEAST: Final = 64 << 10
_MOST: Final = 1 << 30
_CLOCK_WARNING: Final = 60.0  # seconds; S3 refuses requests from 15 minutes on
SMALL: Final = 1024
ODD: Final = "odd [name] a*b?c+d%20é 'x'"


@dataclass(frozen=True, slots=True)
class Question:
    """May these credentials do that in that place?

    Attributes:
        ability: Where the answer is noted.
        action: What is asked for.
        name: An object that does not exist.
        beside: For ``get``: prefixes where there may be one, under the same right.
    """

    ability: str
    action: Literal["get", "put", "delete"]
    name: str
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a probe is to do.

    Attributes:
        scratch: Prefix, with a slash at its end, below which nobody else writes.
        questions: Rights to ask for elsewhere.
        warm: Prefixes that must stay readable at once, for judging rules of the bucket.
        kept: Prefixes below which nothing may be deleted by a rule of the bucket.
        transfer: Bytes that measuring sends, and receives.
        existing: Prefixes where there may be objects to read, if none may be written; to measure, the last come first.
    """

    scratch: str
    questions: Sequence[Question] = ()
    warm: Sequence[str] = ()
    kept: Sequence[str] = ()
    transfer: int = DEFAULT_TRANSFER
    existing: Sequence[str] = ()


class _Probe(Protocol):
    def run(self) -> None:
        """Find out, and tidy up."""


def probe_storage(storage: Storage, plan: Plan, *, host_id: str = "") -> ProbeReport:
    """Find out what a storage can do.

    Args:
        storage: The folder.
        plan: What to try, and where.
        host_id: For the report.

    Returns:
        What was found; also if the storage could not be reached.

    Raises:
        UsageError: ``transfer`` is out of bounds, or the storage cannot be used here (after a fork).
    """
    from rozenfmt import __version__

    if not _LEAST <= plan.transfer <= _MOST:
        msg = f"measuring takes 64 KiB to 1 GiB, not {plan.transfer} bytes"
        raise UsageError(msg)
    when, started = time.time_ns(), time.monotonic()
    findings, probe = _probe_for(storage, plan)
    probe.run()
    clock = findings.clock_difference
    if clock is not None and abs(clock) > _CLOCK_WARNING:
        findings.warnings.append(
            f"the storage's clock is {abs(clock):.0f} seconds {'ahead of' if clock > 0 else 'behind'} this machine's: "
            "set the one that is wrong; S3 refuses requests when it is 15 minutes"
        )
    return ProbeReport(
        url=storage.url,
        kind=findings.kind,
        host_id=host_id,
        when=when,
        version=__version__,
        abilities=findings.abilities(),
        warnings=tuple(findings.warnings),
        leftovers=tuple(findings.leftovers),
        facts=findings.facts,
        latency=findings.latency,
        upload_rate=findings.upload_rate,
        download_rate=findings.download_rate,
        clock_difference=clock,
        bytes_sent=findings.bytes_sent,
        bytes_received=findings.bytes_received,
        seconds=round(time.monotonic() - started, 3),
    )


def _probe_for(storage: Storage, plan: Plan) -> tuple[Findings, _Probe]:
    from rozenfmt.storage.local import LocalStorage

    # By the module's name: importing a back-end that is not in use may need packages that are not there.
    if type(storage).__module__ == "rozenfmt.storage.s3":
        from rozenfmt.storage.probe_s3 import S3Probe

        findings = Findings("s3")
        return findings, S3Probe(storage, plan, findings)  # type: ignore[arg-type]
    if isinstance(storage, LocalStorage):
        from rozenfmt.storage.probe_files import LocalProbe

        findings = Findings("local")
        return findings, LocalProbe(storage, plan, findings)
    from rozenfmt.storage.probe_files import GenericProbe

    findings = Findings("fsspec")
    return findings, GenericProbe(storage, plan, findings)


class CommonProbe:
    """What is tried by the methods that every storage has.

    Args:
        storage: The folder.
        plan: What to try, and where.
        findings: Where results go.
        denied: Whether an error says that these credentials may not.
    """

    def __init__(
        self, storage: Storage, plan: Plan, findings: Findings, denied: Callable[[BaseException], bool]
    ) -> None:
        self.storage = storage
        self.plan = plan
        self.findings = findings
        self._denied = denied
        self.made: dict[str, None] = {}

    def refused(self, error: BaseException) -> AbilityResult:
        """What an error of a request that should work means."""
        return AbilityResult.NOT_ALLOWED if self._denied(error) else AbilityResult.NO

    def name(self, name: str) -> str:
        """A name below the scratch folder, which is removed in the end."""
        full = self.plan.scratch + name
        self.made[full] = None
        return full

    def write(self, name: str, data: bytes, *, overwrite: bool = False, **options: Any) -> None:
        """Write an object as the library does."""
        upload = self.storage.create(name, overwrite=overwrite, expected_size=len(data), **options)
        try:
            upload.write(data)
            upload.commit()
        finally:
            upload.discard()
        self.findings.bytes_sent += len(data)

    def read_small(self, name: str, data: bytes) -> None:
        """Ranges, suffixes and whole contents of an object."""
        findings, storage = self.findings, self.storage
        try:
            part = storage.read(name, 10, 100)
            whole = storage.read(name, 0, len(data))
        except StorageError as error:
            findings.note("read", self.refused(error), str(error))
            findings.note("suffix", self.refused(error))
            if findings.result("read") is AbilityResult.NOT_ALLOWED:
                findings.note("read_after_write", AbilityResult.NOT_ALLOWED)
            return
        findings.bytes_received += 100 + len(data)
        findings.note("read", _yes(part == data[10:110]), "a range, and the whole")
        findings.note("read_after_write", AbilityResult.YES, "at once")
        if whole != data:
            findings.note("intact", AbilityResult.NO, f"{len(data)} bytes were sent, and others came back")
        else:
            findings.note("intact", AbilityResult.YES, f"{len(data)} bytes came back as they were sent")
        try:
            size, tail = storage.read_suffix(name, 100)
        except StorageError as error:
            findings.note("suffix", self.refused(error), str(error))
            return
        findings.bytes_received += len(tail)
        if (size, tail) != (len(data), data[-100:]):
            findings.note("suffix", AbilityResult.NO, "other bytes came back")
        elif findings.kind == "fsspec":
            findings.note("suffix", AbilityResult.NO, "by two requests")
        else:
            findings.note("suffix", AbilityResult.YES)

    def listed(self, name: str) -> int | None:
        """Size of an object as a listing shows it."""
        return {info.name: info.size for info in self.storage.list(name)}.get(name)

    def no_overwrite(self, name: str) -> None:
        """Two writers of one name: the second must not win."""
        findings = self.findings
        uploads = []
        try:
            for _ in range(2):
                upload = self.storage.create(name)
                uploads.append(upload)
                upload.write(os.urandom(SMALL))
            if self.listed(name) is None:
                findings.note("hidden", AbilityResult.YES, "while it is written, no listing shows it")
            else:
                findings.note("hidden", AbilityResult.NO, "a listing shows what is being written")
            uploads[0].commit()
            findings.bytes_sent += SMALL
            uploads[1].commit()
            findings.note("no_overwrite", AbilityResult.IGNORED, "the second writer replaced the first one's object")
        except ConflictError:
            findings.note("no_overwrite", AbilityResult.YES, "the second of two writers was refused")
        except StorageError as error:
            findings.note("no_overwrite", AbilityResult.UNKNOWN, str(error))
        finally:
            for upload in uploads:
                upload.discard()

    def odd(self) -> None:
        """A name that some storages change or refuse."""
        name = self.name(ODD)
        try:
            self.write(name, b"odd")
            there = self.listed(name) == 3
        except StorageError as error:
            self.findings.note("odd_names", self.refused(error), str(error))
        else:
            self.findings.note("odd_names", _yes(there), f"{ODD!r}" if there else "it is listed by another name")

    def measure(self, name: str, *, before_reading: Callable[[], None] | None = None, **options: Any) -> None:
        """An object of the size that was asked for, up and down, and compared."""
        findings, data = self.findings, os.urandom(self.plan.transfer)
        try:
            seconds, _ = timed(lambda: self.write(name, data, **options))
        except StorageError as error:
            findings.note("intact", AbilityResult.UNKNOWN, f"an object of {len(data)} bytes was refused: {error}")
            return
        findings.upload_rate = len(data) / seconds
        if not findings.yes("read"):
            return
        if before_reading is not None:
            before_reading()
        seconds, pieces = timed(lambda: list(self.storage.stream(name)))
        findings.download_rate = len(data) / seconds
        findings.bytes_received += sum(map(len, pieces))
        if b"".join(pieces) != data:
            findings.note("intact", AbilityResult.NO, f"{len(data)} bytes were sent, and others came back")
        else:
            findings.note("intact", AbilityResult.YES, f"{len(data)} bytes came back as they were sent")

    def read_existing(self) -> None:
        """Where nothing may be written: whether something that is there can be read."""
        findings, storage = self.findings, self.storage
        for prefix in self.plan.existing:
            try:
                info = next((one for one in storage.list(prefix) if one.size), None)
                if info is None:
                    continue
                length = min(info.size, 100)
                head = storage.read(info.name, 0, length)
                size, tail = storage.read_suffix(info.name, length)
            except StorageError as error:
                findings.note("read", self.refused(error), str(error))
                continue
            findings.bytes_received += len(head) + len(tail)
            findings.note("read", AbilityResult.YES, f"a range of {info.name}")
            findings.note("suffix", _yes(size == info.size and len(tail) == length))
            self._rate_existing()
            return
        if findings.result("read") is AbilityResult.UNKNOWN:
            findings.note("read", AbilityResult.UNKNOWN, "nothing may be written, and nothing is there to be read")

    def _rate_existing(self) -> None:
        """The rate of a part of something big that is there."""
        for prefix in reversed(self.plan.existing):
            # Cold objects are refused, and there is no rate then.
            with contextlib.suppress(StorageError):
                rows = islice(self.storage.list(prefix), 100)
                info = next((one for one in rows if one.size >= _LEAST), None)
                if info is None:
                    continue
                end = min(info.size, self.plan.transfer)
                pieces = self.storage.stream(info.name, 0, end)
                seconds, got = timed(lambda pieces=pieces: sum(map(len, pieces)))  # type: ignore[misc]
                self.findings.download_rate = got / seconds
                self.findings.bytes_received += got
                return

    def take_latency(self, request: Callable[[], object], times: int = 5) -> None:
        """Median of a few small requests."""
        taken = sorted(timed(request)[0] for _ in range(times))
        self.findings.latency = taken[times // 2]


def work_and_tidy(work: Callable[[], None], tidy: Callable[[], None]) -> None:
    """Work, then tidy up, whatever happens; an interrupt of the tidying is obeyed after it."""
    try:
        work()
    finally:
        try:
            tidy()
        except KeyboardInterrupt:
            tidy()
            raise


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, never 0, and the result."""
    started = time.perf_counter()
    result = work()
    return max(time.perf_counter() - started, 1e-6), result


def _yes(value: bool) -> AbilityResult:  # noqa: FBT001 - a fact, not an option
    return AbilityResult.YES if value else AbilityResult.NO


def words(texts: Iterable[str]) -> str:
    """Parts of a detail that say something."""
    return "; ".join(filter(None, texts))
