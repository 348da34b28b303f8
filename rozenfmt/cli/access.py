"""How a command comes into a vault: the keys of people and of hosts, and where both are kept."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

import rozenfmt as rz

from .keyfiles import people_from, recipients_from
from .options import storage_named
from .output import Output, message, shown_location, text_fields

__all__ = [
    "HOST_KEY_VARIABLE",
    "Access",
    "access",
    "cache_dir",
    "find_host_key",
    "host_key_file",
    "one_recipient",
    "opened",
    "vault_fields",
]

Command = TypeVar("Command", bound=Callable[..., Any])

HOST_KEY_VARIABLE: Final = "ROZENFMT_HOST_KEY"
_CONFIG_VARIABLE: Final = "ROZENFMT_CONFIG_DIR"
_CACHE_VARIABLE: Final = "ROZENFMT_CACHE_DIR"


# --- people -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Access:
    """How a person comes into a vault.

    Attributes:
        identities: The person's keys.
        owner: The vault's owner, if that is somebody else.
        connection: Keyword arguments for what opens a storage.
    """

    identities: tuple[rz.Identity, ...]
    owner: rz.Recipient | None
    connection: dict[str, Any]

    @contextmanager
    def open(self, out: Output, location: str, *, host: rz.HostKey | None = None) -> Iterator[rz.Vault]:
        """Open a vault so, and say what was found wrong with it."""
        if not self.identities:
            msg = "this takes the key of a person who may read the vault: give -i FILE, or set ROZENFMT_IDENTITY"
            raise rz.UsageError(msg)
        with opened(out, location, self.identities, self.owner, self.connection, host=host) as vault:
            yield vault


@contextmanager
def opened(
    out: Output,
    location: str,
    identities: tuple[rz.Identity, ...],
    owner: rz.Recipient | None,
    connection: dict[str, Any],
    *,
    host: rz.HostKey | None = None,
) -> Iterator[rz.Vault]:
    """Open a vault, and say what was found wrong with it."""
    with rz.Vault.open(
        location,
        host=host,
        identities=identities,
        owner=owner,
        **connection,
        cache_dir=cache_dir(),
    ) as vault:
        try:
            yield vault
        finally:
            out.warnings(vault.problems)


def access(*, owner: bool = False, output: bool = False) -> Callable[[Command], Command]:
    """Options for coming in as a person, given to the command as one ``access``.

    Args:
        owner: Only the vault's owner has any business here, so ``--owner`` is not offered.
        output: The command needs ``-o`` for itself.
    """
    names = ("--storage-option",) if output else ("-o", "--storage-option")

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def call(
            *args: Any,
            identity: tuple[str, ...],
            passphrase: bool,
            passphrase_file: str | None,
            connection: dict[str, Any],
            whose: str | None = None,
            **rest: Any,
        ) -> Any:
            how = Access(
                identities=people_from(identity, ask=passphrase, passphrase_file=passphrase_file),
                owner=one_recipient(whose) if whose is not None else None,
                connection=connection,
            )
            return function(*args, access=how, **rest)

        wrapped: Callable[..., Any] = storage_named(*names)(call)
        if not owner:
            wrapped = click.option(
                "--owner",
                "whose",
                metavar="RECIPIENT",
                help="The vault's owner, where the key is not the owner's: rzr1…, or a file that holds it.",
            )(wrapped)
        return person_options(wrapped)  # type: ignore[return-value]

    return decorate


def person_options(function: Command) -> Command:
    """``-i``, ``-p`` and ``--passphrase-file`` for a person's keys."""
    for option in (
        click.option(
            "--passphrase-file",
            metavar="FILE",
            help="Read the passphrase of a locked key file from FILE (one line; - for standard input).",
        ),
        click.option("-p", "--passphrase", is_flag=True, help="Ask for it first; else it is asked for when needed."),
        click.option(
            "-i",
            "--identity",
            multiple=True,
            metavar="FILE",
            help="Key file of a person. Repeatable; else $ROZENFMT_IDENTITY.",
        ),
    ):
        function = option(function)
    return function


def one_recipient(given: str) -> rz.Recipient:
    """A single recipient, as text or in a file."""
    found = recipients_from([given])
    if len(found) != 1:
        msg = f"{given} holds {len(found)} recipients; give one"
        raise rz.UsageError(msg)
    return found[0]


# --- hosts --------------------------------------------------------------------------------------


def cache_dir() -> str | None:
    """Where hosts keep their caches, if the environment says so."""
    return os.environ.get(_CACHE_VARIABLE) or None


def host_key_file(vault_id: bytes) -> str:
    """Where this user keeps the host key for a vault."""
    folder = os.environ.get(_CONFIG_VARIABLE)
    if not folder:
        from platformdirs import user_config_dir

        folder = user_config_dir("rozenfmt")
    return os.path.join(folder, "hosts", f"{vault_id.hex()}.host")


def find_host_key(location: str, given: str | None, connection: dict[str, Any]) -> rz.HostKey:
    """The host key to back up with: the one given, or the one that was saved for this vault."""
    given = given or os.environ.get(HOST_KEY_VARIABLE)
    if given:
        return rz.HostKey.load(given)
    # Editions are public and not trusted here: an id only picks a key, and the key decides whether they count.
    missing = ""
    with closing(rz.Vault.identify(location, **connection)) as found:
        for vault_id in found:
            file = host_key_file(vault_id)
            if os.path.lexists(file):
                return rz.HostKey.load(file)
            missing = missing or file
    shown = shown_location(location)
    msg = (
        f"no host key for this vault: there is no {missing}. Have the vault's owner make one, "
        f"'rozenfmt enrol {shown} -i OWNER.key LABEL -o FILE', and save it under this name, or give --host-key FILE"
    )
    raise rz.UsageError(msg)


# --- output -------------------------------------------------------------------------------------


def vault_fields(vault: rz.Vault) -> dict[str, Any]:
    """What every JSON document about a vault begins with."""
    return {
        **text_fields("vault", vault.url),
        "vault_id": vault.vault_id.hex(),
        "warnings": [message(text) for text in vault.problems],
    }
