"""What a storage can be found to do: the list of abilities, and the report of a probe.

The list is the only place that says which abilities there are, in which kinds of storage, what each
is needed for and what follows where it is missing.  The probes fill in results; nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from rozenfmt.errors import UsageError

__all__ = ["ROLES", "Ability", "AbilityResult", "Findings", "ProbeReport", "known"]

_LONGEST: Final = 1000


class AbilityResult(StrEnum):
    """What a probe found.

    ``IGNORED``: the storage accepts the request and does not do what it says.  ``NOT_ALLOWED``: these
    credentials may not; others may.  ``UNKNOWN``: it could not be found out.
    """

    YES = "yes"
    NO = "no"
    IGNORED = "ignored"
    NOT_ALLOWED = "not allowed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing that a storage can do, or that these credentials may do.

    Attributes:
        name: A short word, the same in all versions.
        result: What was found.
        needed_for: What it is good for.
        consequence: What follows where it is missing; for those of which less is better (``delete_data``
            on a machine that backs up, ``overwrite``), what follows where it is there.
        detail: What was seen, in words.
    """

    name: str
    result: AbilityResult
    needed_for: str
    consequence: str
    detail: str = ""


class _Known(NamedTuple):
    kinds: str
    needed_for: str
    consequence: str


_ALL: Final = "s3 local fsspec"

_KNOWN: Final[dict[str, _Known]] = {
    "reach": _Known(_ALL, "everything", "nothing works here: address, network or credentials are wrong"),
    "list": _Known(_ALL, "backing up and reading", "neither works: both begin with a listing"),
    "put": _Known(_ALL, "backing up", "nothing can be stored by these credentials, or not where probes write"),
    "list_after_write": _Known(_ALL, "committing a snapshot", "a backup waits for its archives to be listed, or fails"),
    "read": _Known(_ALL, "restoring", "these credentials read nothing, or the storage ignores ranges"),
    "suffix": _Known(_ALL, "opening an archive by one request", "one more request for each archive that is opened"),
    "read_after_write": _Known(_ALL, "verifying right after a backup", "what was just written may seem to be missing"),
    "intact": _Known(_ALL, "everything", "objects are not the bytes that were sent: do not use this storage"),
    "hidden": _Known(_ALL, "never showing half an object", "readers may meet archives that are being written"),
    "no_overwrite": _Known(
        _ALL,
        "the first of two writers of one name to stay",
        "who overwrites is found out afterwards, by a listing; names in a vault are random and do not clash",
    ),
    "overwrite": _Known(
        _ALL,
        "nothing: a vault never overwrites",
        "whoever has these credentials can replace what is stored, unless versions or locks keep it",
    ),
    "delete": _Known(_ALL, "removing what a probe leaves", "a few small objects below probe/ stay; they harm nobody"),
    "odd_names": _Known(_ALL, "single archives of such names", "choose plain names; a vault has no others"),
    "put_data": _Known(_ALL, "backing up", "no snapshot can be stored by these credentials"),
    "put_editions": _Known(_ALL, "changes of hosts and people by the owner", "these are not the owner's credentials"),
    "read_editions": _Known(_ALL, "all roles", "nobody gets into the vault: everybody begins with the editions"),
    "read_data": _Known(_ALL, "restoring", "these credentials restore nothing; a machine that backs up need not"),
    "delete_data": _Known(
        _ALL, "pruning", "whoever has these credentials can delete backups; a machine that backs up need not"
    ),
    # Of S3.
    "multipart": _Known("s3", "archives of more than one part", "nothing bigger than a part can be stored"),
    "list_parts": _Known(
        "s3",
        "seeing what is there before an upload is resumed",
        "what this machine noted is believed; if parts were lost the upload fails at its end, and begins anew",
    ),
    "replace_part": _Known(
        "s3",
        "resuming an upload without a copy on this disk",
        "what follows the last mark of an upload is kept on this machine's disk until it is stored",
    ),
    "abort": _Known("s3", "removing an upload that failed", "its parts cost until a rule of the bucket aborts it"),
    "list_uploads": _Known("s3", "finding uploads whose journal is lost", "a rule of the bucket must abort them"),
    "conditional_complete": _Known("s3", "likewise no_overwrite, for archives in parts", "as for no_overwrite"),
    "etag_md5": _Known("s3", "knowing an own upload by its ETag", "a lost answer is made up for by size and time"),
    "part_copy": _Known("s3", "joining archives inside of the storage", "joining downloads and uploads them"),
    "part_copy_range": _Known("s3", "cutting archives inside of the storage", "cutting downloads and uploads them"),
    "copy": _Known("s3", "changing storage classes", "a class is changed by rules of the bucket only"),
    "versioning": _Known(
        "s3", "getting back what was overwritten or deleted", "nothing brings back what is overwritten or deleted"
    ),
    "object_lock": _Known("s3", "keeping objects against everybody", "who may delete may do so at any time"),
    "retention": _Known("s3", "a retention for each object", "only the bucket's own retention holds"),
    "abort_rule": _Known(
        "s3", "removing the parts of uploads that nobody finishes", "they cost until somebody aborts them"
    ),
    "private": _Known("s3", "staying private", "a mistake in a policy may publish the bucket"),
    # Of folders.
    "fsync": _Known("local", "surviving a power cut", "what was written last may be lost"),
    "rename": _Known(
        "local fsspec", "publishing an object in one step", "a move is a copy: slower, and half an object may be seen"
    ),
    "hard_links": _Known("local", "publishing without replacing anything", "another way is used, where there is one"),
    "case": _Known("local", "names that differ in case only", "none for vaults, whose names are lower case"),
}

ROLES: Final[dict[str, tuple[str, ...]]] = {
    "host": ("reach", "list", "put", "list_after_write", "intact", "multipart", "read_editions", "put_data"),
    "reader": ("reach", "list", "read", "read_editions", "read_data"),
    "owner": ("reach", "list", "read", "read_editions", "put_editions"),
    "maintenance": ("reach", "list", "read", "read_editions", "read_data", "delete_data"),
}
"""Which abilities each role needs; of those, what the kind of storage has."""


def known(kind: str) -> dict[str, _Known]:
    """The abilities that are looked for in a kind of storage, in the order of reports."""
    return {name: row for name, row in _KNOWN.items() if kind in row.kinds.split()}


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a probe of a storage found.

    Attributes:
        url: The folder that was probed, without secrets.
        kind: ``s3``, ``local`` or ``fsspec``.
        host_id: Whose places it looked at, in hexadecimal; empty if nobody's in particular.
        when: Begin of the probe, nanoseconds since 1970-01-01 UTC by this machine's clock.
        version: Of the library.
        abilities: All that were looked for.
        warnings: What should be changed, in words: rules of the bucket that would break something, clocks.
        leftovers: Objects that the probe had to leave, relative to the folder.
        facts: What else is known: ``storage_class``, ``file_system``, ``free`` (bytes) and the like.
        latency: Seconds of a small request, the median of a few; None if not measured.
        upload_rate: Bytes per second up; None if not measured.
        download_rate: Bytes per second down; None if not measured.
        clock_difference: Seconds by which the storage's clock is ahead of this machine's; to about a second.
        bytes_sent: Bytes of objects sent.
        bytes_received: Bytes of objects received.
        recorded: Name of the object that holds this report in the vault, if it was stored.
        seconds: How long it took.
    """

    url: str
    kind: str
    host_id: str
    when: int
    version: str
    abilities: tuple[Ability, ...]
    warnings: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    facts: Mapping[str, str | int] = field(default_factory=dict)
    latency: float | None = None
    upload_rate: float | None = None
    download_rate: float | None = None
    clock_difference: float | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    seconds: float = 0.0
    recorded: str = ""

    def __getitem__(self, name: str) -> Ability:
        """One ability by its name; ``KeyError`` if this kind of storage has none of that name."""
        for one in self.abilities:
            if one.name == name:
                return one
        raise KeyError(name)

    @property
    def reached(self) -> bool:
        """Whether the storage answered and took the credentials."""
        return self["reach"].result is AbilityResult.YES

    def missing(self, role: str) -> tuple[Ability, ...]:
        """What a role needs and was not found to work.

        Args:
            role: ``host`` (backs up), ``reader``, ``owner`` or ``maintenance`` (deletes what is obsolete).

        Raises:
            UsageError: There is no such role.
        """
        if role not in ROLES:
            msg = f"unknown role {role!r}: use {', '.join(ROLES)}"
            raise UsageError(msg)
        return tuple(one for one in self.abilities if one.name in ROLES[role] and one.result is not AbilityResult.YES)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles for which these credentials suffice here."""
        return tuple(role for role in ROLES if not self.missing(role))

    def as_dict(self) -> dict[str, Any]:
        """All of it as values for JSON; ``from_dict`` takes it back."""
        fields = {name: getattr(self, name) for name in _SCALARS}
        rows = [
            {
                "name": one.name,
                "result": str(one.result),
                "needed_for": one.needed_for,
                "consequence": one.consequence,
                "detail": one.detail,
            }
            for one in self.abilities
        ]
        lists = {"warnings": list(self.warnings), "leftovers": list(self.leftovers), "facts": dict(self.facts)}
        return {**fields, "roles": list(self.roles), "abilities": rows, **lists}

    @classmethod
    def from_dict(cls, values: Any) -> ProbeReport:
        """From what ``as_dict`` gave; nothing about it is believed but its form.

        Raises:
            ValueError: It is not of that form.
        """
        if not isinstance(values, dict):
            msg = "a report is an object"
            raise ValueError(msg)  # noqa: TRY004 - one error for every wrong form
        fields = {name: _typed(values.get(name), kind) for name, kind in _SCALARS.items()}
        if fields["kind"] not in _ALL.split():
            msg = f"{fields['kind']!r} is no kind of storage"
            raise ValueError(msg)
        abilities = tuple(_ability(row) for row in _typed(values.get("abilities"), (list,)))
        if not any(one.name == "reach" for one in abilities):
            msg = "a report says at least whether the storage was reached"
            raise ValueError(msg)
        facts = _typed(values.get("facts"), (dict,))
        return cls(
            **fields,
            abilities=abilities,
            warnings=tuple(_typed(text, (str,)) for text in _typed(values.get("warnings"), (list,))),
            leftovers=tuple(_typed(text, (str,)) for text in _typed(values.get("leftovers"), (list,))),
            facts={_typed(name, (str,)): _typed(value, (str, int)) for name, value in facts.items()},
        )


_NUMBER: Final = (int, float, type(None))
_SCALARS: Final[dict[str, tuple[type, ...]]] = {
    "url": (str,),
    "kind": (str,),
    "host_id": (str,),
    "when": (int,),
    "version": (str,),
    "latency": _NUMBER,
    "upload_rate": _NUMBER,
    "download_rate": _NUMBER,
    "clock_difference": _NUMBER,
    "bytes_sent": (int,),
    "bytes_received": (int,),
    "seconds": (int, float),
    "recorded": (str,),
}


def _typed(value: Any, kinds: tuple[type, ...]) -> Any:
    if not isinstance(value, kinds) or isinstance(value, bool):
        msg = f"{type(value).__name__} stands where {kinds[0].__name__} should"
        raise ValueError(msg)  # noqa: TRY004 - one error for every wrong form
    return value


def _ability(row: Any) -> Ability:
    texts = {name: _typed(_typed(row, (dict,)).get(name), (str,)) for name in Ability.__slots__}
    return Ability(**{**texts, "result": AbilityResult(texts["result"])})


class Findings:
    """What a probe has found so far.

    Args:
        kind: Of the storage; all its abilities are unknown at first.

    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.warnings: list[str] = []
        self.leftovers: list[str] = []
        self.facts: dict[str, str | int] = {}
        self.latency: float | None = None
        self.upload_rate: float | None = None
        self.download_rate: float | None = None
        self.clock_difference: float | None = None
        self.bytes_sent = 0
        self.bytes_received = 0
        self._known = known(kind)
        self._results = dict.fromkeys(self._known, (AbilityResult.UNKNOWN, "not tried"))

    def note(self, name: str, result: AbilityResult, detail: str = "") -> None:
        """What was found about an ability; what kinds of storage do not have is passed over."""
        if name in self._known:
            self._results[name] = (result, detail[:_LONGEST])

    def result(self, name: str) -> AbilityResult:
        """What was found so far."""
        return self._results[name][0]

    def yes(self, name: str) -> bool:
        """Whether it works."""
        return self._results[name][0] is AbilityResult.YES

    def abilities(self) -> tuple[Ability, ...]:
        """All of them."""
        return tuple(
            Ability(name, result, row.needed_for, row.consequence, detail)
            for (name, row), (result, detail) in zip(self._known.items(), self._results.values(), strict=True)
        )
