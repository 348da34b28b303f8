"""What a host of a vault holds: enough to write backups, nothing that reads them.

The owner makes a host key once, by ``keyring.enrol``, and takes it to the host.  It names the
vault and its owner, so that a host trusts editions of this owner only, and the editions that
were known when it was made, so that none of them can be taken back.  This module knows texts
and files of host keys; it must not know editions, archives or storage.

Text form: ``rzh1`` and the encoding of ``keys.py``, over a canonical CBOR map.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from rozenfmt.errors import ArchiveError, UsageError
from rozenfmt.format import crypto, records
from rozenfmt.format.records import bytes_, key, text, uint

# Key files of all kinds are written, read and spelled in one place.
from rozenfmt.keys import Recipient, SigningKey, _decode, _encode, _load, _parse, _save

__all__ = ["MAX_LABEL", "HostKey", "check_label"]

MAX_LABEL: Final = 255


def check_label(label: str) -> str:
    """The label as it is.

    Raises:
        UsageError: It is no Unicode text, or longer than 255 bytes.
    """
    try:
        size = len(label.encode())
    except UnicodeEncodeError:
        msg = "a label is a Unicode text; this one holds something else"
        raise UsageError(msg) from None
    if size > MAX_LABEL:
        msg = f"a label has at most {MAX_LABEL} bytes; this one has {size}. Choose a shorter one"
        raise UsageError(msg)
    return label


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _HostKeyRecord:
    vault_id: bytes = key(1, bytes_(16))
    host_id: bytes = key(2, bytes_(16))
    label: str = key(3, text(MAX_LABEL))
    owner: bytes = key(4, bytes_(64))
    id_key: bytes = key(5, bytes_(32))
    chunker_key: bytes = key(6, bytes_(32))
    seed: bytes = key(7, bytes_(32))
    pin_number: int = key(8, uint(1))
    pin_digests: bytes = key(9, bytes_(multiple=32))
    extra: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class HostKey:
    """A host's keys, and whom it trusts.

    Attributes:
        vault_id: 16 bytes.
        host_id: 16 bytes; names the host's objects.
        label: The host's name, as people call it.
        owner: Whose editions count.
        id_key: 32 secret bytes; content ids are made with it.
        chunker_key: 32 secret bytes; where files are cut depends on it.
        signing: Signs the host's archives.
        pin_number: Highest number of the editions that were known when the key was made.
        pin_digests: Digests of the heads at that time, ascending.
    """

    vault_id: bytes
    host_id: bytes
    label: str
    owner: Recipient
    id_key: bytes
    chunker_key: bytes
    signing: SigningKey
    pin_number: int
    pin_digests: tuple[bytes, ...]

    _PREFIX: ClassVar[str] = "rzh1"
    _WHAT: ClassVar[str] = "a host key"

    def __post_init__(self) -> None:
        check_label(self.label)
        sizes = [(self.vault_id, 16), (self.host_id, 16), (self.id_key, 32), (self.chunker_key, 32)]
        sizes += [(digest, 32) for digest in self.pin_digests]
        if any(len(value) != size for value, size in sizes) or self.pin_number < 1 or not self.pin_digests:
            msg = "a field of a host key has another length, or is missing"
            raise UsageError(msg)
        if list(self.pin_digests) != sorted(set(self.pin_digests)):
            msg = "a host key's editions are not in ascending order"
            raise UsageError(msg)

    @property
    def chunker_seed(self) -> int:
        """64 bits that decide where files are cut."""
        return int.from_bytes(crypto.derive("chunker", self.chunker_key)[:8], "little")

    def to_text(self) -> str:
        """The one-line form; secret."""
        record = _HostKeyRecord(
            vault_id=self.vault_id,
            host_id=self.host_id,
            label=self.label,
            owner=self.owner.x25519 + self.owner.ed25519,
            id_key=self.id_key,
            chunker_key=self.chunker_key,
            seed=self.signing.seed,
            pin_number=self.pin_number,
            pin_digests=b"".join(self.pin_digests),
        )
        return _encode(self._PREFIX, records.encode(record))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a host key file's text, or its one line alone.

        Raises:
            UsageError: It is something else, mistyped, cut off, or of a form that this version does not know.
        """
        return cls._from_payload(_parse(text, "the text given", (cls._PREFIX, cls._PREFIX), cls._WHAT, None))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a key file, mode 0600, durably; an existing file is never overwritten.

        Raises:
            UsageError: The file exists or cannot be written.
        """
        # A label may hold anything; in a comment it must not begin a new line.
        label = self.label.encode("unicode_escape").decode("ascii")
        note = "# rozenfmt host key. Keep it secret; whoever has it backs up in this host's name. It reads no backup.\n"
        note += f"# host: {label}\n# vault: {self.vault_id.hex()}\n"
        _save(path, note, _decode(self._PREFIX, self.to_text(), self._WHAT), (self._PREFIX, self._PREFIX), None)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a key file.

        Raises:
            UsageError: It cannot be read, or holds something else.
        """
        return cls._from_payload(_load(path, (cls._PREFIX, cls._PREFIX), cls._WHAT, None))

    @classmethod
    def _from_payload(cls, payload: bytes) -> Self:
        try:
            record = records.decode(_HostKeyRecord, payload)
        except ArchiveError:
            msg = "the host key has a form that this version does not know; have the owner enrol the host again"
            raise UsageError(msg) from None
        # A key that is not known would be lost when the host key is saved again.
        if record.extra:
            msg = "the host key was made by a newer version of rozenfmt; install that version"
            raise UsageError(msg)
        return cls(
            vault_id=record.vault_id,
            host_id=record.host_id,
            label=record.label,
            owner=Recipient(record.owner[:32], record.owner[32:]),
            id_key=record.id_key,
            chunker_key=record.chunker_key,
            signing=SigningKey(record.seed),
            pin_number=record.pin_number,
            pin_digests=tuple(record.pin_digests[i : i + 32] for i in range(0, len(record.pin_digests), 32)),
        )

    def __repr__(self) -> str:
        return f"HostKey(vault_id={self.vault_id.hex()}, host_id={self.host_id.hex()}, label={self.label!r})"
