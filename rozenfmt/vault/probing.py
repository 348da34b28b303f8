"""``rozenfmt.probe``: what the storage of a vault can do, tried with the rights of whoever asks.

Reports may be kept in the vault.  They are hints: anybody who may write below ``probe/`` can put
there what he likes, so nothing is decided by them but what a person is shown.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.archive.opening import close_storage
from rozenfmt.errors import ArchiveError, ConflictError, StorageError, UsageError
from rozenfmt.storage.abilities import ProbeReport
from rozenfmt.storage.probe import DEFAULT_TRANSFER, Plan, Question, probe_storage
from rozenfmt.storage.retry import RetryPolicy

from . import layout
from .hostkey import HostKey

if TYPE_CHECKING:
    from rozenfmt.storage.bandwidth import Bandwidth
    from rozenfmt.storage.base import Storage

__all__ = ["last_probe", "last_report", "probe", "probe_vault", "vaults_in"]

_FORM: Final = "rozenfmt probe 1"
_LARGEST: Final = 64 << 10
_LOOK_AT: Final = 8
# Who asks what a storage can do does not want to wait for what it cannot.
_RETRY: Final = RetryPolicy(attempts=3, budget=10.0, first_wait=0.2, longest_wait=2.0)


def probe(
    location: str | os.PathLike[str],
    *,
    storage_options: dict[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
    host: HostKey | str | None = None,
    transfer: int = DEFAULT_TRANSFER,
    record: bool = False,
) -> ProbeReport:
    """Find out what a storage can do, and what these credentials may do there, by trying.

    Nothing of a vault is read but a byte here and there, nothing is changed, and no key is needed.
    Everything is written below ``probe/`` and removed again, where that is allowed; small objects may
    stay where it is not.  It takes about 80 requests.

    Args:
        location: Path or URL of the folder: of a vault, or of one that is to be.
        storage_options: For fsspec: credentials, endpoint and the like.
        retry: How long failed requests to the storage are made again; None for the defaults.
        bandwidth: Limits of what goes to the storage and comes from it.
        host: Key or id (32 hexadecimal digits) of the host in whose places to look, since its
            credentials may allow no others.
        transfer: Bytes to send, and to receive, for measuring: 64 KiB to 1 GiB.
        record: Store the report in the vault.

    Returns:
        What was found. A storage that cannot be reached is a finding, too.

    Raises:
        UsageError: The address, the options or an argument make no sense.
        StorageError: The back-end is not installed, or fails in a way that ends the probe.

    Specification: vault.md, section 10.
    """
    from rozenfmt.storage import open_storage

    storage = open_storage(location, storage_options, retry=retry or _RETRY, bandwidth=bandwidth)
    try:
        return probe_vault(storage, host=host, transfer=transfer, record=record)
    finally:
        close_storage(storage)


def last_probe(
    location: str | os.PathLike[str],
    *,
    storage_options: dict[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
    host: HostKey | str | None = None,
) -> ProbeReport | None:
    """The last report that ``probe`` stored in a vault; a hint, which anybody may have written.

    Args:
        location: Path or URL of the vault.
        storage_options: For fsspec: credentials, endpoint and the like.
        retry: How long failed requests to the storage are made again; None for the defaults.
        bandwidth: Limits of what goes to the storage and comes from it.
        host: Key or id of a host: only what its probes stored.

    Returns:
        The report, or None if there is none that can be read.

    Raises:
        StorageError: The storage cannot be listed.

    Specification: vault.md, section 10.
    """
    from rozenfmt.storage import open_storage

    storage = open_storage(location, storage_options, retry=retry, bandwidth=bandwidth)
    try:
        return last_report(storage, host=host)
    finally:
        close_storage(storage)


def vaults_in(
    location: str | os.PathLike[str],
    *,
    storage_options: dict[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    bandwidth: Bandwidth | None = None,
) -> list[bytes]:
    """Ids of the vaults whose editions stand in a folder, as far as they can be read without waiting long."""
    from rozenfmt.storage import open_storage

    # What ``Vault.identify`` gives, which tries for as long as a backup would.
    from .vault import _vault_ids

    storage = open_storage(location, storage_options, retry=retry or _RETRY, bandwidth=bandwidth)
    try:
        return list(_vault_ids(storage))
    except (StorageError, ArchiveError):
        return []
    finally:
        close_storage(storage)


def probe_vault(
    storage: Storage, *, host: HostKey | str | None = None, transfer: int = DEFAULT_TRANSFER, record: bool = False
) -> ProbeReport:
    """As ``probe``, in a folder that is open."""
    host_id = _host_id(host)
    shown = host_id.hex() if host_id is not None else ""
    report = probe_storage(storage, _plan(host_id, transfer), host_id=shown)
    return _recorded(storage, report, host_id) if record else report


def last_report(storage: Storage, *, host: HostKey | str | None = None) -> ProbeReport | None:
    """As ``last_probe``, in a folder that is open."""
    host_id = _host_id(host)
    place = layout.PROBE if host_id is None else layout.probe_place(host_id)
    found = [
        (when, info.name)
        for info in storage.list(place)
        if info.size <= _LARGEST and (when := layout.parse_probe_name(info.name)) is not None
    ]
    names = [name for _, name in sorted(found, reverse=True)]
    # Whoever may write there may put any number of others beside it.
    return next(_reports(storage, names[:_LOOK_AT]), None)


def _host_id(host: HostKey | str | None) -> bytes | None:
    if host is None:
        return None
    if isinstance(host, HostKey):
        return host.host_id
    try:
        found = bytes.fromhex(host)
    except ValueError:
        found = b""
    if len(found) != layout.ID_SIZE:
        msg = f"{host!r} is not the id of a host, which has 32 hexadecimal digits; 'rozenfmt hosts' lists them"
        raise UsageError(msg)
    return found


def _plan(host_id: bytes | None, transfer: int) -> Plan:
    random = os.urandom(layout.ID_SIZE)
    absent = layout.data_name(host_id or bytes(layout.ID_SIZE), random, arena=False)
    # People may look at any host's archives, a host at its own; small vaults have no other data than in arena/.
    whose = f"{host_id.hex()}/" if host_id is not None else ""
    archives = tuple(place + whose for place in (layout.DATA, layout.ARENA, layout.META))
    edition = layout.edition_name(1, random[:8])
    everything = (layout.EDITIONS, layout.META, layout.DATA, layout.ARENA, layout.GONE)
    return Plan(
        scratch=f"{layout.probe_place(host_id)}tmp-{random.hex()}/",
        questions=(
            Question("read_editions", "get", edition, (layout.EDITIONS,)),
            Question("put_editions", "put", edition),
            Question("put_data", "put", absent),
            Question("read_data", "get", absent, archives),
            Question("delete_data", "delete", absent),
        ),
        warm=(layout.EDITIONS, layout.META, layout.ARENA, layout.GONE),
        kept=everything,
        transfer=transfer,
        existing=(layout.EDITIONS, layout.META, layout.ARENA, layout.DATA),
    )


def _recorded(storage: Storage, report: ProbeReport, host_id: bytes | None) -> ProbeReport:
    """Store a report; that it cannot be stored is no reason to lose it."""
    name = layout.probe_name(host_id, max(report.when // 10**9, 1), os.urandom(8))
    named = replace(report, recorded=name)
    raw = json.dumps({"form": _FORM, **named.as_dict()}, ensure_ascii=False, indent=1).encode(
        "utf-8", "backslashreplace"
    )
    if not report.reached:
        return report
    try:
        upload = storage.create(name, expected_size=len(raw))
        try:
            upload.write(raw)
            upload.commit()
        finally:
            upload.discard()
    except (StorageError, ConflictError) as error:
        return replace(report, warnings=(*report.warnings, f"the report was not stored in the vault: {error}"))
    return named


def _reports(storage: Storage, names: list[str]) -> Iterator[ProbeReport]:
    for name in names:
        size, raw = storage.read_suffix(name, _LARGEST)
        try:
            values = json.loads(raw)
            if size == len(raw) and isinstance(values, dict) and values.get("form") == _FORM:
                yield ProbeReport.from_dict(values)
        except (ValueError, RecursionError):
            continue  # no report, whoever put it there
