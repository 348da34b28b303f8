"""``rozenfmt probe``: what a storage can do, and what it should allow whom."""

from __future__ import annotations

import json
import os
from typing import Any, Final

import click

import rozenfmt as rz

from .access import HOST_KEY_VARIABLE, host_key_file
from .options import byte_size, command, storage
from .output import Exit, Output, message, safe, shown_location, size, text_fields, when

__all__ = ["add_commands"]

_ROLES: Final = ("host", "reader", "owner", "maintenance")
# Of these, less is better: what follows is told where they are there.
_UNWANTED: Final = frozenset({"overwrite", "delete_data"})
_SIZES: Final = frozenset({"free", "largest_file"})
_S3: Final = ("s3://", "s3a://")


def add_commands(root: click.Group) -> None:
    """Add this module's commands."""

    @command(root, "probe")
    @click.option(
        "--role",
        type=click.Choice(_ROLES),
        help="Whose credentials these are: host (backs up), reader, owner, or maintenance (deletes what is obsolete).",
    )
    @click.option(
        "--host",
        metavar="HOST",
        help="Host in whose places to look: its id, or its host key file; by default the key of this machine, if any.",
    )
    @click.option(
        "--bytes",
        "transfer",
        type=byte_size,
        default="8MiB",
        show_default=True,
        metavar="SIZE",
        help="How much to send, and to receive, for measuring.",
    )
    @click.option("--record", is_flag=True, help="Store what was found in the vault.")
    @click.option("--recorded", is_flag=True, help="Show what was stored last, and try nothing.")
    @click.option("--policies", is_flag=True, help="Print what to allow each role, and try nothing; asks no server.")
    @storage
    @click.argument("location", metavar="VAULT")
    def probe(
        out: Output,
        *,
        location: str,
        role: str | None,
        host: str | None,
        transfer: int,
        record: bool,
        recorded: bool,
        policies: bool,
        connection: dict[str, Any],
    ) -> int:
        """Find out what a storage can do, and what these credentials may do there, by trying.

        VAULT is the folder of a vault, or of one that is to be. No key is needed. Everything is written
        below probe/ in it, and removed again; where deleting is not allowed a few small objects stay
        there, which harm nobody. Of a vault nothing is read but a byte here and there.

        Exit code 4 says that something is missing which the role needs, or without --role that the
        credentials suffice for no role; 1 that the storage cannot be reached with them.

        \b
        Examples:
          rozenfmt probe s3://bucket/vault
          rozenfmt probe s3://bucket/vault --role host --host laptop.host --record
          rozenfmt probe s3://bucket/vault --recorded
          rozenfmt probe s3://bucket/vault --policies --role host --host 1f0c… > host.json
        """
        if record + recorded + policies > 1:
            msg = "--record, --recorded and --policies exclude each other"
            raise rz.UsageError(msg)
        if policies:
            return _policies(out, location, role, host)
        key = _host(location, host, role, connection)
        if recorded:
            found = rz.last_probe(location, **connection, host=key if host else None)
            if found is None:
                msg = "no report of a probe is stored there; 'rozenfmt probe --record' stores one"
                raise rz.StorageError(msg, fatal=True)
            return _show(out, found, role, recorded=True)
        out.after_interrupt = "what was written below probe/ was removed, as far as that is allowed"
        report = rz.probe(location, **connection, host=key, transfer=transfer, record=record)
        status = _show(out, report, role)
        return Exit.INCOMPLETE if status is Exit.DONE and record and not report.recorded else status


def _host(location: str, given: str | None, role: str | None, connection: dict[str, Any]) -> rz.HostKey | str | None:
    """The host to look for: the one given, or this machine, if it has a key for the vault."""
    if given is not None:
        return rz.HostKey.load(given) if os.path.lexists(given) else given.lower()
    if role not in {None, "host"}:
        return None
    file = os.environ.get(HOST_KEY_VARIABLE)
    if file:
        return rz.HostKey.load(file)
    folder = os.path.dirname(host_key_file(bytes(16)))
    if not os.path.isdir(folder):
        return None
    from rozenfmt.vault.probing import vaults_in

    files = (host_key_file(vault_id) for vault_id in vaults_in(location, **connection))
    found = next((file for file in files if os.path.lexists(file)), None)
    return rz.HostKey.load(found) if found is not None else None


# --- what was found -----------------------------------------------------------------------------


def _status(report: rz.ProbeReport, role: str | None) -> Exit:
    if not report.reached:
        return Exit.FAILED
    if role is not None:
        return Exit.DIFFERENCES if report.missing(role) else Exit.DONE
    # Maintenance needs more than a reader does, and is for later.
    return Exit.DONE if set(report.roles) - {"maintenance"} else Exit.DIFFERENCES


def _show(out: Output, report: rz.ProbeReport, role: str | None, *, recorded: bool = False) -> Exit:
    status = _status(report, role)
    missing = report.missing(role) if role is not None else ()
    if not out.json and not (out.quiet and status is Exit.DONE):
        about = f", {when(report.when)}" if recorded else ""
        host = f", host {safe(report.host_id)}" if report.host_id else ""
        out.line(f"{shown_location(report.url)}: {report.kind}{host}{about}")
        for one in report.abilities:
            if report.reached or one.name == "reach":
                _show_ability(out, one)
        _show_numbers(out, report)
        _show_end(out, report, role, missing)
    fields = {**report.as_dict(), "role": role, "missing": [one.name for one in missing]}
    return out.document(status, {**text_fields("vault", report.url), **fields})


def _show_ability(out: Output, one: rz.Ability) -> None:
    out.line(f"  {safe(one.name):<20}  {one.result:<11}  {message(one.detail)}".rstrip())
    there = one.result == rz.AbilityResult.YES
    if one.name in _UNWANTED:
        told = message(one.consequence) if there or out.verbose else ""
    else:
        told = f"for {message(one.needed_for)}; without it: {message(one.consequence)}"
        told = told if not there or out.verbose else ""
    if told:
        out.line(f"{'':37}{told}")


def _show_numbers(out: Output, report: rz.ProbeReport) -> None:
    numbers = []
    if report.latency is not None:
        numbers.append(f"a small request takes {1000 * report.latency:.1f} ms")
    if report.upload_rate is not None:
        numbers.append(f"up {size(report.upload_rate)}/s")
    if report.download_rate is not None:
        numbers.append(f"down {size(report.download_rate)}/s")
    if report.clock_difference is not None:
        numbers.append(f"clock {report.clock_difference:+.1f} s")
    if numbers:
        sent, received = size(report.bytes_sent), size(report.bytes_received)
        out.line(f"{', '.join(numbers)}; sent {sent}, received {received} in {report.seconds:.1f} s")
    facts = []
    for name, value in report.facts.items():
        shown = size(value) if name in _SIZES and isinstance(value, int) else safe(str(value))
        facts.append(f"{safe(name).replace('_', ' ')} {shown}")
    if facts:
        out.line(", ".join(facts))


def _show_end(out: Output, report: rz.ProbeReport, role: str | None, missing: tuple[rz.Ability, ...]) -> None:
    out.warnings(report.warnings)
    if report.leftovers:
        out.line("left behind, since these credentials may not remove it; it harms nobody:")
        for name in report.leftovers:
            out.line(f"  {safe(name)}")
    if report.recorded:
        out.line(f"recorded as {safe(report.recorded)}")
    if not report.reached:
        return
    if role is None:
        out.line(f"these credentials suffice for: {', '.join(report.roles) or 'no role'}")
    elif missing:
        out.note(f"rozenfmt: error: the role {role} needs what is missing: {', '.join(one.name for one in missing)}")
    else:
        out.line(f"all that the role {role} needs works")


# --- policies -----------------------------------------------------------------------------------


def _policies(out: Output, location: str, role: str | None, host: str | None) -> Exit:
    from rozenfmt.vault import roles

    host_id = _host_id(host)
    if not location.lower().startswith(_S3):
        if role is not None:
            msg = (
                "policies in JSON are for s3://BUCKET/FOLDER; without --role it is said what stands for them elsewhere"
            )
            raise rz.UsageError(msg)
        _show_texts(out, roles)
        return out.document(Exit.DONE, {"elsewhere": roles.ELSEWHERE, "recommended": roles.RECOMMENDED})
    found = {one: roles.policy(one, location, host_id) for one in ([role] if role else _ROLES)}
    bucket = {"bucket_policy": roles.bucket_policy(location), "lifecycle": roles.lifecycle(location)}
    if not out.json:
        for one, document in found.items():
            if role is None:
                out.line(f"# {one}: {roles.ROLE_WORDS[one]}")
            out.line(json.dumps(document, indent=2))
        if role is None:
            out.line("# bucket policy: nothing is overwritten (AWS)")
            out.line(json.dumps(bucket["bucket_policy"], indent=2))
            out.line("# lifecycle of the bucket")
            out.line(json.dumps(bucket["lifecycle"], indent=2))
            _show_texts(out, roles)
    texts = {"elsewhere": roles.ELSEWHERE, "recommended": roles.RECOMMENDED}
    return out.document(Exit.DONE, {"policies": found, **bucket, **texts})


def _host_id(given: str | None) -> str:
    from rozenfmt.vault.roles import PLACEHOLDER

    given = given or os.environ.get(HOST_KEY_VARIABLE)
    if not given:
        return PLACEHOLDER
    if os.path.lexists(given):
        return rz.HostKey.load(given).host_id.hex()
    try:
        right = len(bytes.fromhex(given)) == 16
    except ValueError:
        right = False
    if not right:
        msg = f"{given!r} is neither a host key file nor an id of 32 hexadecimal digits; 'rozenfmt hosts' lists them"
        raise rz.UsageError(msg)
    return given.lower()


def _show_texts(out: Output, roles: Any) -> None:
    if out.json:
        return
    for heading, texts in (("settings of the bucket", roles.RECOMMENDED), ("elsewhere", roles.ELSEWHERE)):
        out.line(f"# {heading}")
        for title, text in texts.items():
            out.line(click.wrap_text(f"{title}: {text}", 100, subsequent_indent="  "))
