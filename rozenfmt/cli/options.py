"""Options that several commands share, and what their values mean."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

import rozenfmt as rz

from .keyfiles import identities_from, read_small, verify_key_from
from .output import Output
from .progress import retries_shown

__all__ = [
    "Reading",
    "State",
    "byte_size",
    "command",
    "key_options",
    "options_from",
    "reading",
    "source_options",
    "storage",
    "storage_named",
]

Command = TypeVar("Command", bound=Callable[..., Any])

_COMMON: Final = 4
_TIME: Final = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[smh]?)", re.IGNORECASE)
_SIZE: Final = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[KMGT]?)(?P<suffix>i?B)?", re.IGNORECASE)


@dataclass(slots=True)
class State:
    """What the outermost frame must know of the command that runs."""

    output: Output
    debug: bool = False


def byte_size(value: str) -> int:
    """A number of bytes: 1048576; 64M and 64MiB by 1024; 64MB by 1000."""
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        msg = f"{value!r} is not a size; write for example 64MiB"
        raise click.BadParameter(msg)
    base = 1000 if match["suffix"] and match["suffix"].upper() == "B" and match["unit"] else 1024
    power = " KMGT".index(match["unit"].upper() or " ")
    return int(float(match["number"]) * base**power)


def rate(value: str) -> float:
    """Bytes per second: 500 is 500 KiB; with a unit it is what ``byte_size`` says."""
    text = value.strip()
    bytes_a_second = float(byte_size(text + "K" if text[-1:].isdigit() else text))
    if not bytes_a_second:
        msg = "a limit of 0 would never end; leave the option out for no limit"
        raise click.BadParameter(msg)
    return bytes_a_second


def seconds(value: str) -> float:
    """A time span: 90, 90s, 10m, 2h."""
    match = _TIME.fullmatch(value.strip())
    if match is None:
        msg = f"{value!r} is not a time span; write for example 90s, 10m or 2h"
        raise click.BadParameter(msg)
    return float(match["number"]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match["unit"].lower()]


def member_name(value: str) -> bytes | int:
    """An archive of a joined object, by its number or its id."""
    if re.fullmatch(r"[0-9a-fA-F]{32}", value):
        return bytes.fromhex(value)
    if re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    msg = f"{value!r} is neither a number nor an id of 32 hexadecimal digits"
    raise click.BadParameter(msg)


def command(
    group: click.Group, name: str, cls: type[click.Command] = click.Command
) -> Callable[[Callable[..., int]], click.Command]:
    """A command of ``group`` with the options that every command has; it is called with an ``Output``."""

    def decorate(function: Callable[..., int]) -> click.Command:
        @functools.wraps(function)
        def call(*, quiet: bool, verbose: bool, as_json: bool, debug: bool, **arguments: Any) -> int:
            context = click.get_current_context()
            state = context.find_object(State)
            assert state is not None
            state.debug = debug
            state.output = Output(
                command=context.command_path.removeprefix("rozenfmt "),
                quiet=quiet,
                verbose=verbose,
                json=as_json,
            )
            with retries_shown(state.output):
                return function(state.output, **arguments)

        for option in (
            click.option("--debug", is_flag=True, help="Show a traceback if something fails."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output."),
            click.option("-v", "--verbose", is_flag=True, help="More details; every problem."),
            click.option("-q", "--quiet", is_flag=True, help="Only problems and errors."),
        ):
            call = option(call)
        made = group.command(name, cls=cls)(call)
        made.params = made.params[_COMMON:] + made.params[:_COMMON]  # a command's own options come first
        return made

    return decorate


def key_options(function: Command) -> Command:
    """``-i``, ``-p`` and ``--passphrase-file`` for reading."""
    for option in (
        click.option(
            "--passphrase-file",
            metavar="FILE",
            help="Read the passphrase from FILE (one line; - for standard input).",
        ),
        click.option(
            "-p",
            "--passphrase",
            is_flag=True,
            help="Ask for the passphrase of the archive, or of the key files given by -i.",
        ),
        click.option(
            "-i",
            "--identity",
            multiple=True,
            metavar="FILE",
            help="Key file to read with. Repeatable; else, and without a passphrase, $ROZENFMT_IDENTITY.",
        ),
    ):
        function = option(function)
    return function


def storage(function: Command) -> Command:
    """All that concerns the storage, given to the command as ``connection``: keyword arguments for the library."""
    return storage_named("-o", "--storage-option")(function)


def storage_named(*names: str) -> Callable[[Command], Command]:
    """Likewise, with other names of the first option."""

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def call(
            *args: Any,
            storage_option: tuple[str, ...],
            storage_options_file: str | None,
            retry_for: float | None,
            limit_upload: float | None,
            limit_download: float | None,
            **rest: Any,
        ) -> Any:
            connection = {
                "storage_options": options_from(storage_option, storage_options_file, "storage option"),
                "retry": None if retry_for is None else _retry(retry_for),
                "bandwidth": None
                if limit_upload is limit_download is None
                else rz.Bandwidth(up=limit_upload, down=limit_download),
            }
            return function(*args, connection=connection, **rest)

        wrapped: Callable[..., Any] = call
        for option in (
            click.option(
                "--limit-download", type=rate, metavar="RATE", help="Receive at most RATE from the storage; likewise."
            ),
            click.option(
                "--limit-upload",
                type=rate,
                metavar="RATE",
                help="Send at most RATE a second to the storage: a number of KiB, or with a unit such as 2MiB.",
            ),
            click.option(
                "--retry-for",
                type=seconds,
                metavar="TIME",
                help="Try again for so long while the storage fails: 90s, 10m or 2h. By default 5 minutes for one "
                "request, and seconds for an address that never answered; 0 tries once.",
            ),
            click.option(
                "--storage-options-file",
                metavar="FILE",
                help="JSON object of such options; for secrets that no environment variable or profile gives.",
            ),
            click.option(
                *names,
                "storage_option",
                multiple=True,
                metavar="KEY=VALUE",
                help="Option for the storage (fsspec); VALUE may be JSON. Repeatable. Others see it: no secrets.",
            ),
        ):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[return-value]

    return decorate


def _retry(seconds: float) -> rz.RetryPolicy:
    return rz.RetryPolicy(per_request=seconds, budget=seconds, first_contact=seconds)


def source_options(function: Command) -> Command:
    """Options for sources that are URLs, given to the command as one ``source_options``."""

    @functools.wraps(function)
    def call(*args: Any, source_option: tuple[str, ...], source_options_file: str | None, **rest: Any) -> Any:
        options = options_from(source_option, source_options_file, "source option")
        return function(*args, source_options=options, **rest)

    file = click.option("--source-options-file", metavar="FILE", help="JSON object of such options, for secrets.")
    pair = click.option(
        "--source-option",
        multiple=True,
        metavar="KEY=VALUE",
        help="Option for sources that are URLs (fsspec); as -o. For those at or below one: URL=JSON. Repeatable.",
    )
    return pair(file(call))  # type: ignore[return-value]


def options_from(pairs: tuple[str, ...], file: str | None, what: str) -> dict[str, Any] | None:
    """Options of fsspec from pairs ``KEY=VALUE`` and a JSON file; None if there are none."""
    options: dict[str, Any] = {}
    if file is not None:
        try:
            options = json.loads(read_small(file, f"the {what}s"))
        except ValueError:
            options = []  # type: ignore[assignment]
        if not isinstance(options, dict):
            msg = f"{file} does not hold a JSON object of {what}s"
            raise rz.UsageError(msg)
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            msg = f"a {what} is written KEY=VALUE"
            raise rz.UsageError(msg)
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options or None


@dataclass(frozen=True, slots=True)
class Reading:
    """How an archive is to be read.

    Attributes:
        identities: Keys and passphrases to try.
        verify_key: The writer that must have signed it.
        allow_plain: Whether it may be unencrypted although a key is at hand.
        member: Which archive of a joined object.
        connection: Keyword arguments for what opens a storage.
    """

    identities: tuple[rz.Identity | rz.Passphrase, ...]
    verify_key: rz.VerifyKey | None
    allow_plain: bool
    member: bytes | int | None
    connection: dict[str, Any]

    def open(self, location: str) -> rz.Archive:
        """Open an archive so."""
        return rz.open(
            location,
            identities=self.identities,
            verify_key=self.verify_key,
            allow_plain=self.allow_plain,
            member=self.member,
            **self.connection,
        )


def reading(*, verify: bool = True, member: bool = True) -> Callable[[Command], Command]:
    """All options for reading, given to the command as one ``reading``.

    Args:
        verify: Offer ``--verify-key``.
        member: Offer ``--member``.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def call(
            *args: Any,
            identity: tuple[str, ...],
            passphrase: bool,
            passphrase_file: str | None,
            allow_plain: bool,
            connection: dict[str, Any],
            verify_key: str | None = None,
            which: bytes | int | None = None,
            **rest: Any,
        ) -> Any:
            how = Reading(
                verify_key=verify_key_from(verify_key) if verify_key is not None else None,
                identities=identities_from(identity, ask=passphrase, passphrase_file=passphrase_file),
                allow_plain=allow_plain,
                member=which,
                connection=connection,
            )
            return function(*args, reading=how, **rest)

        wrapped: Callable[..., Any] = storage(call)
        if member:
            wrapped = click.option(
                "--member",
                "which",
                type=member_name,
                metavar="NUMBER|ID",
                help="In a joined object: the archive's number from 0, or its id.",
            )(wrapped)
        wrapped = click.option(
            "--allow-plain",
            is_flag=True,
            help="Accept an archive without encryption although a key is given.",
        )(wrapped)
        if verify:
            wrapped = click.option(
                "--verify-key",
                metavar="KEY",
                help="Demand the signature of this writer: rzv1…, or a file that holds it.",
            )(wrapped)
        return key_options(wrapped)  # type: ignore[return-value]

    return decorate
