"""What a person holds: identities, recipients, passphrases, signing keys.

An identity is one 32-byte seed.  From it come an X25519 key that reads and an Ed25519 key
that owns; the recipient is the public half of both.  Text forms are one line, lower case,
with a prefix to grep for and a checksum against typing errors::

    rzr1…  recipient       rzi1…  identity (secret)       rzp1…  identity behind a passphrase
    rzv1…  verify key      rzs1…  signing key (secret)    rzq1…  signing key behind a passphrase

After the prefix stands RFC 4648 base32 in lower case, without padding, of the payload and
the first four bytes of ``BLAKE3(prefix ‖ payload)``.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self

from rozenfmt.errors import NoMatchingKey, UsageError, WrongPassphrase
from rozenfmt.format import crypto
from rozenfmt.format.crypto import ARGON2_READER_LIMIT, Argon2Cost, Entropy
from rozenfmt.format.registry import Right, StanzaType

__all__ = ["Identity", "Passphrase", "Recipient", "SigningKey", "VerifyKey"]

_CHECKSUM: Final = 4
_FILE_AAD: Final = b"rozenfmt v0 key file"


def _encode(prefix: str, payload: bytes) -> str:
    checksum = crypto.digest(prefix.encode(), payload)[:_CHECKSUM]
    return prefix + base64.b32encode(payload + checksum).decode().lower().rstrip("=")


def _decode(prefix: str, text: str, what: str) -> bytes:
    text = text.strip()
    if not text.startswith(prefix):
        msg = f"this is not {what}: it should begin with {prefix}"
        raise UsageError(msg)
    body = text[len(prefix) :].upper()
    try:
        data = base64.b32decode(body + "=" * (-len(body) % 8))
    except (binascii.Error, ValueError):
        data = b""
    payload, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
    if not data or _encode(prefix, payload) != text or crypto.digest(prefix.encode(), payload)[:_CHECKSUM] != checksum:
        msg = f"{what} is mistyped or cut off: its checksum is wrong"
        raise UsageError(msg)
    return payload


@dataclass(frozen=True, slots=True)
class Recipient:
    """The public half of an identity: whom an archive is encrypted to.

    Attributes:
        x25519: 32 bytes, encrypts.
        ed25519: 32 bytes, verifies what the identity signs as owner of a vault.
    """

    x25519: bytes
    ed25519: bytes

    _PREFIX: ClassVar[str] = "rzr1"
    stanza_type: ClassVar[StanzaType] = StanzaType.X25519

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the one-line form.

        Raises:
            UsageError: It is something else, or its checksum is wrong.
        """
        payload = _decode(cls._PREFIX, text, "a recipient")
        if len(payload) != 64:
            msg = "a recipient has another length"
            raise UsageError(msg)
        return cls(payload[:32], payload[32:])

    def __str__(self) -> str:
        return _encode(self._PREFIX, self.x25519 + self.ed25519)

    def wrap(self, right: Right, archive_id: bytes, secret: bytes, entropy: Entropy) -> bytes:
        """Body of a stanza of type 1 (format.md, section 7)."""
        return crypto.hpke_seal(self.x25519, crypto.stanza_info(right, archive_id), secret, entropy)


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """The public half of a signing key: proves who wrote an archive."""

    ed25519: bytes

    _PREFIX: ClassVar[str] = "rzv1"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the one-line form; ``UsageError`` if it is something else or mistyped."""
        payload = _decode(cls._PREFIX, text, "a verify key")
        if len(payload) != 32:
            msg = "a verify key has another length"
            raise UsageError(msg)
        return cls(payload)

    def __str__(self) -> str:
        return _encode(self._PREFIX, self.ed25519)


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """A person's key: one seed, an X25519 key that reads, an Ed25519 key that owns.

    Args:
        seed: 32 secret bytes; use ``generate`` for new ones.
    """

    seed: bytes = field(repr=False)

    _PREFIX: ClassVar[str] = "rzi1"
    _LOCKED_PREFIX: ClassVar[str] = "rzp1"
    stanza_type: ClassVar[StanzaType] = StanzaType.X25519

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            msg = "an identity's seed has 32 bytes"
            raise UsageError(msg)

    @classmethod
    def generate(cls, *, entropy: Entropy = os.urandom) -> Self:
        """A new identity."""
        return cls(entropy(32))

    @property
    def _x25519(self) -> bytes:
        return crypto.derive("identity x25519", self.seed)

    @property
    def _ed25519_seed(self) -> bytes:
        return crypto.derive("identity ed25519", self.seed)

    @property
    def recipient(self) -> Recipient:
        """The public half."""
        return Recipient(crypto.x25519_public(self._x25519), crypto.ed25519_public(self._ed25519_seed))

    def unwrap(self, right: int, archive_id: bytes, body: bytes) -> bytes:
        """Open a stanza of type 1; ``NoMatchingKey`` if it is for somebody else."""
        return crypto.hpke_open(self._x25519, crypto.stanza_info(right, archive_id), body)

    def save(self, path: str | os.PathLike[str], passphrase: str | None = None) -> None:
        """Write a key file, mode 0600; an existing file is never overwritten.

        Args:
            path: Where to.
            passphrase: Locks the file by Argon2id (256 MiB, three passes) if given.

        Raises:
            UsageError: The file exists or cannot be written.
        """
        note = "# rozenfmt identity. Keep it secret; whoever has it reads your archives.\n"
        note += f"# recipient: {self.recipient}\n"
        _save(path, note, self.seed, (self._PREFIX, self._LOCKED_PREFIX), passphrase)

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: str | None = None) -> Self:
        """Read a key file.

        Raises:
            UsageError: It cannot be read, holds something else, or needs a passphrase.
            WrongPassphrase: The passphrase is another.
        """
        return cls(_load(path, (cls._PREFIX, cls._LOCKED_PREFIX), "an identity", passphrase))

    @classmethod
    def parse(cls, text: str, passphrase: str | None = None) -> Self:
        """Read a key file's text, or its one line alone; errors as ``load``."""
        return cls(_parse(text, "the text given", (cls._PREFIX, cls._LOCKED_PREFIX), "an identity", passphrase))

    def __repr__(self) -> str:
        return f"Identity(recipient={str(self.recipient)[:16]}…)"


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """An Ed25519 key with which a writer signs archives.

    Args:
        seed: 32 secret bytes; use ``generate`` for new ones.
    """

    seed: bytes = field(repr=False)

    _PREFIX: ClassVar[str] = "rzs1"
    _LOCKED_PREFIX: ClassVar[str] = "rzq1"

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            msg = "a signing key's seed has 32 bytes"
            raise UsageError(msg)

    @classmethod
    def generate(cls, *, entropy: Entropy = os.urandom) -> Self:
        """A new signing key."""
        return cls(entropy(32))

    @property
    def verify_key(self) -> VerifyKey:
        """The public half."""
        return VerifyKey(crypto.ed25519_public(self.seed))

    def save(self, path: str | os.PathLike[str], passphrase: str | None = None) -> None:
        """Write a key file as ``Identity.save`` does."""
        note = "# rozenfmt signing key. Keep it secret; whoever has it signs as you.\n"
        note += f"# verify key: {self.verify_key}\n"
        _save(path, note, self.seed, (self._PREFIX, self._LOCKED_PREFIX), passphrase)

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: str | None = None) -> Self:
        """Read a key file as ``Identity.load`` does."""
        return cls(_load(path, (cls._PREFIX, cls._LOCKED_PREFIX), "a signing key", passphrase))

    @classmethod
    def parse(cls, text: str, passphrase: str | None = None) -> Self:
        """Read a key file's text, or its one line alone; errors as ``load``."""
        return cls(_parse(text, "the text given", (cls._PREFIX, cls._LOCKED_PREFIX), "a signing key", passphrase))

    def __repr__(self) -> str:
        return f"SigningKey(verify_key={str(self.verify_key)[:16]}…)"


@dataclass(frozen=True, slots=True, repr=False)
class Passphrase:
    """A passphrase, as recipient and as identity (Argon2id; format.md, section 7).

    An archive locked by a passphrase has no other recipient.

    Args:
        passphrase: The words; normalised to Unicode NFC.
        cost: What writing spends: passes, and KiB of memory. By default 3 over 256 MiB.
        limit: What reading may spend at most; an archive that demands more is refused.
    """

    passphrase: str = field(repr=False)
    cost: Argon2Cost = field(default_factory=Argon2Cost, kw_only=True)
    limit: Argon2Cost = field(default=ARGON2_READER_LIMIT, kw_only=True)

    stanza_type: ClassVar[StanzaType] = StanzaType.PASSPHRASE

    def __post_init__(self) -> None:
        if not self.passphrase:
            msg = "an empty passphrase protects nothing"
            raise UsageError(msg)

    def wrap(self, right: Right, archive_id: bytes, secret: bytes, entropy: Entropy) -> bytes:
        """Body of a stanza of type 2."""
        self.cost.check(ARGON2_READER_LIMIT)
        return crypto.passphrase_seal(self.passphrase, right, archive_id, secret, self.cost, entropy)

    def unwrap(self, right: int, archive_id: bytes, body: bytes) -> bytes:
        """Open a stanza of type 2; ``NoMatchingKey`` for another passphrase, ``LimitError`` if it is too dear."""
        return crypto.passphrase_open(self.passphrase, right, archive_id, body, self.limit)

    def __repr__(self) -> str:
        return "Passphrase(…)"


def _save(
    path: str | os.PathLike[str], note: str, seed: bytes, prefixes: tuple[str, str], passphrase: str | None
) -> None:
    if passphrase is None:
        line = _encode(prefixes[0], seed)
    else:
        context = _file_context(prefixes[1])
        line = _encode(
            prefixes[1], crypto.passphrase_seal(passphrase, Right.READ, context, seed, Argon2Cost(), os.urandom)
        )
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    except FileExistsError:
        msg = f"{os.fspath(path)} exists; a key file is never overwritten. Choose another name"
        raise UsageError(msg) from None
    except OSError as error:
        msg = f"cannot write the key file {os.fspath(path)}: {error.strerror}"
        raise UsageError(msg) from error
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(note + line + "\n")
        file.flush()
        os.fsync(fd)


def _load(path: str | os.PathLike[str], prefixes: tuple[str, str], what: str, passphrase: str | None) -> bytes:
    try:
        text = Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        msg = f"cannot read the key file {os.fspath(path)}: {reason}"
        raise UsageError(msg) from error
    return _parse(text, os.fspath(path), prefixes, what, passphrase)


def _parse(text: str, where: str, prefixes: tuple[str, str], what: str, passphrase: str | None) -> bytes:
    """The seed in a key file's text."""
    keys = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    if len(keys) != 1 or not keys[0].startswith(prefixes):
        msg = f"{where} does not hold {what}"
        raise UsageError(msg)
    if keys[0].startswith(prefixes[0]):
        return _decode(prefixes[0], keys[0], what)
    if passphrase is None:
        msg = f"{where} is locked by a passphrase; give it"
        raise UsageError(msg)
    body = _decode(prefixes[1], keys[0], what)
    if len(body) != 96:
        msg = f"{where} does not hold {what}"
        raise UsageError(msg)
    try:
        return crypto.passphrase_open(passphrase, Right.READ, _file_context(prefixes[1]), body, ARGON2_READER_LIMIT)
    except NoMatchingKey:
        msg = f"the passphrase does not open {where}"
        raise WrongPassphrase(msg) from None


def _file_context(prefix: str) -> bytes:
    """Stands where an archive id would: a key file's box opens as nothing else."""
    return crypto.digest(_FILE_AAD, prefix.encode())[:16]
