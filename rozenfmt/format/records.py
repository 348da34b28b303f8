"""One frozen dataclass for each on-disk record, fields in wire order.

The field's declaration gives key, form and presence; ``encode`` and ``decode`` serve them
all.  Unknown keys are kept in ``extra`` and written back (format.md, section 1.1).  This
module knows nothing of frames, keys or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

from rozenfmt.errors import ArchiveError, BlockError, HeaderError, IndexDamaged, LimitError

from . import cbor
from .limits import (
    MAX_BUCKET,
    MAX_CREATOR,
    MAX_DECODED,
    MAX_LEAF_ENTRIES,
    MAX_MEDIA_TYPE,
    MAX_NAME,
    MAX_STANZAS,
    MAX_U64,
)
from .registry import FEATURE_VOLUMES, IndexKind, Kind, Suite

__all__ = [
    "BlockRecord",
    "CheckpointBody",
    "CheckpointRecord",
    "DirectoryBody",
    "FootRecord",
    "HeaderRecord",
    "IndexRecord",
    "PiecesRecord",
    "RootBody",
    "StreamContent",
    "StreamEnd",
    "StreamStart",
    "decode",
    "encode",
]

Form = Callable[[Any], Any]
R = TypeVar("R")


class _Malformed(Exception):
    """A value has not the form its field prescribes; turned into an archive error by ``decode``."""


class _TooMuch(Exception):
    """A value is over a limit of the format."""


def uint(low: int = 0, high: int = MAX_U64, limit: int = MAX_U64) -> Form:
    def form(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _Malformed
        if value > limit:
            raise _TooMuch
        return value

    return form


def bytes_(size: int | None = None, limit: int | None = None, *, multiple: int = 1) -> Form:
    def form(value: Any) -> bytes:
        if type(value) is not bytes or (size is not None and len(value) != size) or len(value) % multiple:
            raise _Malformed
        if limit is not None and len(value) > limit:
            raise _TooMuch
        return value

    return form


def text(limit: int) -> Form:
    def form(value: Any) -> str:
        if type(value) is not str:
            raise _Malformed
        if len(value.encode()) > limit:
            raise _TooMuch
        return value

    return form


def rows(*forms: Form, at_least: int = 0, limit: int | None = None) -> Form:
    """An array of rows, each an array with one value for each form."""
    one = row(*forms)

    def form(value: Any) -> tuple[tuple[Any, ...], ...]:
        if type(value) not in (list, tuple) or len(value) < at_least:
            raise _Malformed
        if limit is not None and len(value) > limit:
            raise _TooMuch
        return tuple(one(item) for item in value)

    return form


def row(*forms: Form) -> Form:
    def form(value: Any) -> tuple[Any, ...]:
        if type(value) not in (list, tuple) or len(value) != len(forms):
            raise _Malformed
        return tuple(one(item) for one, item in zip(forms, value, strict=True))

    return form


def items(form_: Form, *, limit: int | None = None) -> Form:
    """A non-empty array of one form."""

    def form(value: Any) -> tuple[Any, ...]:
        if type(value) not in (list, tuple) or not value:
            raise _Malformed
        if limit is not None and len(value) > limit:
            raise _TooMuch
        return tuple(form_(item) for item in value)

    return form


def texts(limit: int) -> Form:
    """An array of texts, which may be empty."""

    def form(value: Any) -> tuple[str, ...]:
        if type(value) not in (list, tuple):
            raise _Malformed
        return tuple(text(limit)(item) for item in value)

    return form


def ascending_rows(second: Form) -> Form:
    """A non-empty array of ``[number, value]`` in ascending order of number."""
    form_rows = rows(uint(), second, at_least=1)

    def form(value: Any) -> tuple[tuple[int, Any], ...]:
        found: tuple[tuple[int, Any], ...] = form_rows(value)
        if any(a[0] >= b[0] for a, b in pairwise(found)):
            raise _Malformed
        return found

    return form


def ascending(value: Any) -> tuple[int, ...]:
    if type(value) not in (list, tuple):
        raise _Malformed
    numbers = tuple(uint()(item) for item in value)
    if any(a >= b for a, b in pairwise(numbers)):
        raise _Malformed
    return numbers


def key(number: int, form: Form, *, optional: bool = False) -> Any:
    metadata = {"key": number, "form": form}
    return field(default=None, metadata=metadata) if optional else field(metadata=metadata)


def _declared(cls: Any) -> tuple[tuple[int, str, Form, bool], ...]:
    """Key, attribute, form and presence of each field, in wire order."""
    return tuple(
        (f.metadata["key"], f.name, f.metadata["form"], f.default is MISSING)
        for f in fields(cls)
        if "key" in f.metadata
    )


_wire: Callable[[Any], tuple[tuple[int, str, Form, bool], ...]] = cache(_declared)


def encode(record: Any) -> bytes:
    """Canonical CBOR of a record."""
    values = dict(record.extra)
    for key, name, _, _ in _wire(type(record)):
        value = getattr(record, name)
        if value is not None:
            values[key] = value
    return cbor.dumps(values)


def decode(cls: type[R], data: bytes, error: type[ArchiveError] = BlockError, clause: str = "4.4") -> R:
    """Decode and validate one record that fills ``data``.

    Args:
        cls: The record's dataclass.
        data: Canonical CBOR.
        error: Error class for damage in this place.
        clause: Section of the specification to name.

    Raises:
        ArchiveError: ``error`` for damage, ``LimitError`` where a limit is exceeded.
    """
    try:
        values = cbor.loads(data)
    except BlockError as damage:
        raise error(damage.message, clause="1.1") from damage
    if type(values) is not dict:
        msg = f"{cls.__name__} is not a map"
        raise error(msg, clause=clause)
    return take(cls, values, error, clause)


def take(cls: type[R], values: dict[int, Any], error: type[ArchiveError] = BlockError, clause: str = "4.4") -> R:
    """Validate a record whose CBOR was decoded already; takes the values out of ``values``, errors as ``decode``."""
    found: dict[str, Any] = {}
    for key, name, form, required in _wire(cls):
        if key in values:
            try:
                found[name] = form(values.pop(key))
            except _Malformed:
                msg = f"{cls.__name__}.{name} (key {key}) has a wrong form"
                raise error(msg, clause=clause) from None
            except _TooMuch:
                msg = f"{cls.__name__}.{name} (key {key}) is over the limit"
                raise LimitError(msg, clause="14") from None
        elif required:
            msg = f"{cls.__name__}.{name} (key {key}) is missing"
            raise error(msg, clause=clause)
    make: Callable[..., R] = cls
    return make(**found, extra=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderRecord:
    """The header (format.md, section 3)."""

    archive_id: bytes = key(1, bytes_(16))
    kind: int = key(2, uint(1, 4))
    suite: int = key(3, uint())
    features: tuple[int, ...] = key(4, ascending)
    padding: tuple[int, int, int] = key(5, row(*(uint(1, MAX_BUCKET),) * 3))
    creator: str = key(6, text(MAX_CREATOR))
    commit_secret: bytes | None = key(7, bytes_(32), optional=True)
    commit_index: bytes | None = key(8, bytes_(32), optional=True)
    stanzas: tuple[tuple[int, int, bytes], ...] | None = key(
        9, rows(uint(), uint(), bytes_(), at_least=1, limit=MAX_STANZAS), optional=True
    )
    signer: bytes | None = key(10, bytes_(32), optional=True)
    id_key: int = key(11, uint())
    volume_set: bytes | None = key(12, bytes_(16), optional=True)
    volume: int | None = key(13, uint(), optional=True)
    extra: dict[int, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Presence rules across fields; unknown suites and features are the caller's to refuse."""
        sealed = self.suite != Suite.PLAIN
        for name in ("commit_secret", "commit_index", "stanzas"):
            if (getattr(self, name) is not None) != sealed:
                msg = f"header: {name} must be there exactly if the archive is encrypted"
                raise HeaderError(msg, clause="3")
        if not sealed and self.padding != (1, 1, 1):
            msg = "header: a plain archive has no padding"
            raise HeaderError(msg, clause="3")
        volumes = self.volume_set is not None or self.volume is not None
        if volumes and FEATURE_VOLUMES not in self.features:
            msg = "header: volume fields without their feature"
            raise HeaderError(msg, clause="3")
        if self.kind == Kind.DIRECTORY and sealed:
            msg = "header: a directory archive is never encrypted"
            raise HeaderError(msg, clause="5")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRecord:
    """Keys that every block record may have (format.md, section 4.4)."""

    codec: int | None = key(1, uint(), optional=True)
    size: int | None = key(2, uint(1, limit=MAX_DECODED), optional=True)
    encoded: int | None = key(3, uint(1), optional=True)
    content_hash: bytes | None = key(4, bytes_(32), optional=True)
    extra: dict[int, Any] = field(default_factory=dict)

    def check_body(self, *, present: bool) -> None:
        """Keys 1–4 are there exactly if there is a body."""
        for value in (self.codec, self.size, self.encoded, self.content_hash):
            if (value is not None) != present:
                msg = "a block record and its body disagree"
                raise BlockError(msg, clause="4.4")


@dataclass(frozen=True, slots=True, kw_only=True)
class PiecesRecord(BlockRecord):
    """``PACK``, ``TREE`` and ``TREX`` (format.md, sections 4.5, 5.2 to 5.4)."""

    lengths: bytes = key(16, bytes_())


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStart(BlockRecord):
    """``FHDR`` (format.md, section 5.1)."""

    stream: int = key(16, uint())
    name: bytes | None = key(17, bytes_(limit=MAX_NAME), optional=True)
    hint_size: int | None = key(18, uint(), optional=True)
    media_type: str | None = key(19, text(MAX_MEDIA_TYPE), optional=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamContent(BlockRecord):
    """``FCNT`` (format.md, section 5.1)."""

    lengths: bytes = key(16, bytes_())
    stream: int = key(17, uint())
    number: int = key(18, uint())
    offset: int = key(19, uint())


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnd(BlockRecord):
    """``FEND`` (format.md, section 5.1)."""

    stream: int = key(16, uint())
    length: int = key(17, uint(1))
    blocks: int = key(18, uint())
    content_id: bytes = key(19, bytes_(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord(BlockRecord):
    """``ckpt`` (format.md, section 5.5)."""

    first: int = key(16, uint())
    count: int = key(17, uint())
    previous: int | None = key(18, uint(), optional=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointBody:
    """Body of ``ckpt``."""

    types: bytes = key(1, bytes_(multiple=4))
    lengths: bytes = key(2, bytes_())
    extra: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRecord(BlockRecord):
    """``INDX`` (format.md, section 9)."""

    kind: int = key(16, uint(1, 4))
    count: int | None = key(17, uint(1, limit=MAX_LEAF_ENTRIES), optional=True)
    first: int | None = key(18, uint(), optional=True)
    offset: int | None = key(19, uint(), optional=True)

    def check(self) -> None:
        """Presence rules by kind."""
        leaf, table = self.kind != IndexKind.ROOT, self.kind == IndexKind.TABLE
        if (self.count is not None) != leaf or not (self.first is not None) == (self.offset is not None) == table:
            msg = "an index record has keys that do not go with its kind"
            raise IndexDamaged(msg, clause="9")


@dataclass(frozen=True, slots=True, kw_only=True)
class RootBody:
    """Body of the index root (format.md, section 9)."""

    first: int = key(1, uint())
    offset: int = key(2, uint())
    kinds: bytes = key(3, bytes_())
    lengths: bytes = key(4, bytes_())
    hashes: bytes = key(5, bytes_(multiple=32))
    first_keys: bytes = key(6, bytes_())
    counts: bytes = key(7, bytes_())
    root: tuple[bytes, int, int] | None = key(8, row(bytes_(32), uint(), uint()), optional=True)
    totals: tuple[int, int] | None = key(9, row(uint(), uint()), optional=True)
    extra: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FootRecord:
    """``FOOT`` (format.md, section 10)."""

    offset: int = key(16, uint())
    blocks: int = key(17, uint())
    root: tuple[int, int, int, bytes] = key(18, row(uint(), uint(), uint(), bytes_(32)))
    chain: bytes = key(19, bytes_(32))
    header: bytes = key(20, bytes_())
    extra: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryBody:
    """Body of ``DIRY`` (format.md, section 5.6)."""

    members: tuple[tuple[bytes, int, int], ...] = key(1, rows(bytes_(16), uint(), uint()))
    extra: dict[int, Any] = field(default_factory=dict)
