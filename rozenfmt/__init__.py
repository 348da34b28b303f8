"""rozenfmt: encrypted, self-describing backup archives that outlive the program that wrote them.

Everything public is here; all else is internal.  What is heavy is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rozenfmt.adapters import LogEvents, ProgressBar, progress_bar
    from rozenfmt.archive.check import CheckReport, Damage, check
    from rozenfmt.archive.compare import Change, Difference, compare
    from rozenfmt.archive.extract import ExtractResult
    from rozenfmt.archive.inspection import BlockInfo, Inspection, inspect
    from rozenfmt.archive.join import join
    from rozenfmt.archive.reader import Archive, ArchiveEntry, members
    from rozenfmt.archive.reader import open_archive as open
    from rozenfmt.archive.salvage import SalvageReport, salvage
    from rozenfmt.archive.source import Member
    from rozenfmt.archive.writer import ArchiveWriter, CreateResult, create
    from rozenfmt.errors import (
        ArchiveError,
        BlockError,
        ConflictError,
        HeaderError,
        IndexDamaged,
        KeyFailure,
        LimitError,
        MissingArchive,
        NoMatchingKey,
        RozenError,
        SignatureError,
        SourceError,
        StorageError,
        TruncatedError,
        UnsupportedError,
        UsageError,
        WrongPassphrase,
    )
    from rozenfmt.events import Event, Problem, Progress, ProgressCallback, Retry
    from rozenfmt.format.crypto import Argon2Cost
    from rozenfmt.format.nodes import Kind
    from rozenfmt.format.registry import Right
    from rozenfmt.format.snapshots import SourceKind
    from rozenfmt.keys import Identity, Passphrase, Recipient, SigningKey, VerifyKey
    from rozenfmt.storage.abilities import Ability, AbilityResult, ProbeReport
    from rozenfmt.storage.bandwidth import Bandwidth
    from rozenfmt.storage.base import Leftover
    from rozenfmt.storage.retry import RetryPolicy
    from rozenfmt.vault.diff import SnapshotChange, SnapshotDiff
    from rozenfmt.vault.editions import PersonState
    from rozenfmt.vault.findings import Lost, VerifyReport
    from rozenfmt.vault.hostkey import HostKey
    from rozenfmt.vault.interrupted import Interrupted
    from rozenfmt.vault.keyring import Person
    from rozenfmt.vault.probing import last_probe, probe
    from rozenfmt.vault.rebuild import RebuildResult
    from rozenfmt.vault.restore import PlannedArchive, RestorePlan, RestoreResult
    from rozenfmt.vault.results import BackupResult, Command, Conflict, ConflictAnswer, Move, OnConflict
    from rozenfmt.vault.snapshot import Counts, Snapshot, SnapshotSource
    from rozenfmt.vault.vault import Vault

_HOMES: Final = {
    "rozenfmt.adapters": ("LogEvents", "ProgressBar", "progress_bar"),
    "rozenfmt.archive.check": ("CheckReport", "Damage", "check"),
    "rozenfmt.archive.compare": ("Change", "Difference", "compare"),
    "rozenfmt.archive.extract": ("ExtractResult",),
    "rozenfmt.archive.inspection": ("BlockInfo", "Inspection", "inspect"),
    "rozenfmt.archive.join": ("join",),
    "rozenfmt.archive.reader": ("Archive", "ArchiveEntry", "members"),
    "rozenfmt.archive.salvage": ("SalvageReport", "salvage"),
    "rozenfmt.archive.source": ("Member",),
    "rozenfmt.archive.writer": ("ArchiveWriter", "CreateResult", "create"),
    "rozenfmt.errors": (
        "ArchiveError",
        "BlockError",
        "ConflictError",
        "HeaderError",
        "IndexDamaged",
        "KeyFailure",
        "LimitError",
        "MissingArchive",
        "NoMatchingKey",
        "RozenError",
        "SignatureError",
        "SourceError",
        "StorageError",
        "TruncatedError",
        "UnsupportedError",
        "UsageError",
        "WrongPassphrase",
    ),
    "rozenfmt.events": ("Event", "Problem", "Progress", "ProgressCallback", "Retry"),
    "rozenfmt.format.crypto": ("Argon2Cost",),
    "rozenfmt.format.nodes": ("Kind",),
    "rozenfmt.format.registry": ("Right",),
    "rozenfmt.format.snapshots": ("SourceKind",),
    "rozenfmt.keys": ("Identity", "Passphrase", "Recipient", "SigningKey", "VerifyKey"),
    "rozenfmt.storage.bandwidth": ("Bandwidth",),
    "rozenfmt.storage.abilities": ("Ability", "AbilityResult", "ProbeReport"),
    "rozenfmt.storage.base": ("Leftover",),
    "rozenfmt.storage.retry": ("RetryPolicy",),
    "rozenfmt.vault.editions": ("PersonState",),
    "rozenfmt.vault.diff": ("SnapshotChange", "SnapshotDiff"),
    "rozenfmt.vault.findings": ("Lost", "VerifyReport"),
    "rozenfmt.vault.hostkey": ("HostKey",),
    "rozenfmt.vault.interrupted": ("Interrupted",),
    "rozenfmt.vault.keyring": ("Person",),
    "rozenfmt.vault.probing": ("last_probe", "probe"),
    "rozenfmt.vault.rebuild": ("RebuildResult",),
    "rozenfmt.vault.restore": ("PlannedArchive", "RestorePlan", "RestoreResult"),
    "rozenfmt.vault.results": ("BackupResult", "Command", "Conflict", "ConflictAnswer", "Move", "OnConflict"),
    "rozenfmt.vault.snapshot": ("Counts", "Snapshot", "SnapshotSource"),
    "rozenfmt.vault.vault": ("Vault",),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Ability",
    "AbilityResult",
    "Archive",
    "ArchiveEntry",
    "ArchiveError",
    "ArchiveWriter",
    "Argon2Cost",
    "BackupResult",
    "Bandwidth",
    "BlockError",
    "BlockInfo",
    "Change",
    "CheckReport",
    "Command",
    "Conflict",
    "ConflictAnswer",
    "ConflictError",
    "Counts",
    "CreateResult",
    "Damage",
    "Difference",
    "Event",
    "ExtractResult",
    "HeaderError",
    "HostKey",
    "Identity",
    "IndexDamaged",
    "Inspection",
    "Interrupted",
    "KeyFailure",
    "Kind",
    "Leftover",
    "LimitError",
    "LogEvents",
    "Lost",
    "Member",
    "MissingArchive",
    "Move",
    "NoMatchingKey",
    "OnConflict",
    "Passphrase",
    "Person",
    "PersonState",
    "PlannedArchive",
    "ProbeReport",
    "Problem",
    "Progress",
    "ProgressBar",
    "ProgressCallback",
    "RebuildResult",
    "Recipient",
    "RestorePlan",
    "RestoreResult",
    "Retry",
    "RetryPolicy",
    "Right",
    "RozenError",
    "SalvageReport",
    "SignatureError",
    "SigningKey",
    "Snapshot",
    "SnapshotChange",
    "SnapshotDiff",
    "SnapshotSource",
    "SourceError",
    "SourceKind",
    "StorageError",
    "TruncatedError",
    "UnsupportedError",
    "UsageError",
    "Vault",
    "VerifyKey",
    "VerifyReport",
    "WrongPassphrase",
    "__version__",
    "check",
    "compare",
    "create",
    "inspect",
    "join",
    "last_probe",
    "members",
    "open",
    "probe",
    "progress_bar",
    "salvage",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "open":
        value = importlib.import_module("rozenfmt.archive.reader").open_archive
    elif name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    else:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
