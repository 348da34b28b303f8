"""Keys and passphrases from files and from the terminal; never from an argument.

Nothing here prints what it reads: a file given by mistake may hold a secret.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import rozenfmt as rz

__all__ = [
    "ask_passphrase",
    "identities_from",
    "people_from",
    "read_passphrase",
    "read_small",
    "recipients_from",
    "refuse_secrets",
    "signing_key_from",
    "verify_key_from",
]

Key = TypeVar("Key", "rz.Identity", "rz.SigningKey")

_LIMIT: Final = 64 * 1024
_SECRET: Final = re.compile(r"rz[hipsq]1[a-z2-7]{20,}")
_LOCKED: Final = ("rzp1", "rzq1")


def refuse_secrets(arguments: Iterable[str]) -> None:
    """Refuse a secret key among the arguments, without repeating it."""
    if any(_SECRET.search(argument) for argument in arguments):
        msg = (
            "a secret key stands on the command line, where every user of this machine can see it; "
            "put it into a file of mode 0600 and give the file's name"
        )
        raise rz.UsageError(msg)


def read_small(path: str, what: str) -> str:
    """Text of a small file, or of standard input for ``-``."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(_LIMIT + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(_LIMIT + 1)
    except OSError as error:
        msg = f"cannot read {what} from {path}: {error.strerror}"
        raise rz.UsageError(msg) from error
    if len(data) > _LIMIT:
        msg = f"{path} is too long to hold {what}"
        raise rz.UsageError(msg)
    try:
        return data.decode()
    except UnicodeDecodeError:
        msg = f"{path} does not hold {what}: it is not UTF-8 text"
        raise rz.UsageError(msg) from None


# --- passphrases --------------------------------------------------------------------------------


def read_passphrase(path: str) -> str:
    """The passphrase in a file: its one line."""
    lines = read_small(path, "a passphrase").splitlines()
    if len(lines) != 1 or not lines[0]:
        msg = f"{path} should hold one line, the passphrase; it holds {len(lines)}"
        raise rz.UsageError(msg)
    return lines[0]


def ask_passphrase(prompt: str, *, twice: bool = False) -> str:
    """Ask on the terminal, without echo."""
    import getpass

    if os.name == "posix":
        try:
            os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        except OSError:
            msg = "there is no terminal to ask for the passphrase; use --passphrase-file"
            raise rz.UsageError(msg) from None
    with warnings.catch_warnings():
        # Without a terminal that can hide it, getpass would echo.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            given = getpass.getpass(f"{prompt}: ")
            if not given:
                msg = "an empty passphrase protects nothing"
                raise rz.UsageError(msg)
            if twice and getpass.getpass(f"{prompt}, again: ") != given:
                msg = "the two passphrases differ"
                raise rz.UsageError(msg)
        except (getpass.GetPassWarning, EOFError):
            msg = "no passphrase was given; without a terminal use --passphrase-file"
            raise rz.UsageError(msg) from None
    return given


# --- secret keys --------------------------------------------------------------------------------


def identities_from(
    files: Sequence[str], *, ask: bool, passphrase_file: str | None
) -> tuple[rz.Identity | rz.Passphrase, ...]:
    """What to read with: key files, a passphrase, or the key file of the environment."""
    given: str | None = None
    if passphrase_file is not None:
        given = read_passphrase(passphrase_file)
    elif ask:
        given = ask_passphrase("Passphrase")
    elif not files and os.environ.get("ROZENFMT_IDENTITY"):
        files = (os.environ["ROZENFMT_IDENTITY"],)
    keys: list[rz.Identity | rz.Passphrase] = [_load(rz.Identity.load, file, given) for file in files]
    if given is not None:
        keys.append(rz.Passphrase(given))
    return tuple(keys)


def people_from(files: Sequence[str], *, ask: bool, passphrase_file: str | None) -> tuple[rz.Identity, ...]:
    """Keys of people, by default the one that the environment names; a passphrase is for their files only."""
    given: str | None = None
    if passphrase_file is not None:
        given = read_passphrase(passphrase_file)
    elif ask:
        given = ask_passphrase("Passphrase")
    if not files and os.environ.get("ROZENFMT_IDENTITY"):
        files = (os.environ["ROZENFMT_IDENTITY"],)
    return tuple(_load(rz.Identity.load, file, given) for file in files)


def signing_key_from(file: str, passphrase_file: str | None) -> rz.SigningKey:
    """A key to sign with."""
    given = read_passphrase(passphrase_file) if passphrase_file is not None else None
    return _load(rz.SigningKey.load, file, given)


def _load(load: Callable[[str, str | None], Key], file: str, passphrase: str | None) -> Key:
    try:
        return load(file, None)
    except rz.UsageError:
        if not any(line.startswith(_LOCKED) for line in _lines(file)):
            raise
    return load(file, passphrase if passphrase is not None else ask_passphrase(f"Passphrase of {file!r}"))


def _lines(file: str) -> list[str]:
    try:
        return [line.strip() for line in read_small(file, "a key").splitlines()]
    except rz.UsageError:
        return []


# --- public keys --------------------------------------------------------------------------------


def recipients_from(given: Iterable[str]) -> list[rz.Recipient]:
    """Recipients as they are given: in one line of text, or in files."""
    return [rz.Recipient.parse(text) for one in given for text in _public(one, "rzr1", "recipient", "rzi1 rzp1")]


def verify_key_from(given: str) -> rz.VerifyKey:
    """A verify key as it is given: in one line of text, or in a file."""
    found = _public(given, "rzv1", "verify key", "rzs1 rzq1")
    if len(found) != 1:
        msg = f"{given} holds {len(found)} verify keys; give one"
        raise rz.UsageError(msg)
    return rz.VerifyKey.parse(found[0])


def _public(given: str, prefix: str, what: str, secret: str) -> list[str]:
    """The public keys in an argument.

    A key file that holds the secret half names the public one in a comment; only that is read.
    """
    if given.startswith(prefix) and not os.path.lexists(given):
        return [given]
    listed, noted, has_secret = [], [], False
    for raw in read_small(given, f"a {what}").splitlines():
        line = raw.strip()
        if line.startswith(f"# {what}: {prefix}"):
            noted.append(line.partition(": ")[2])
        elif line.startswith(prefix):
            listed.append(line)
        elif line.startswith(tuple(secret.split())):
            has_secret = True
        elif line and not line.startswith("#"):
            msg = f"{given} holds something else than a {what} ({prefix}…)"
            raise rz.UsageError(msg)
    found = listed or (noted if has_secret else [])
    if not found:
        msg = f"{given} holds no {what} ({prefix}…)"
        raise rz.UsageError(msg)
    return found
