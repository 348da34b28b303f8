"""``rozenfmt init|enrol|hosts|retire|grant|revoke|people``: what a vault's owner does."""

from __future__ import annotations

import os
import socket
from typing import Any

import click

import rozenfmt as rz

from .access import Access, access, cache_dir, host_key_file, one_recipient, vault_fields
from .keyfiles import recipients_from
from .options import command
from .output import Exit, Output, count, safe, shown_location, text_fields

__all__ = ["add_commands"]


def add_commands(root: click.Group) -> None:
    """Add this module's commands."""
    _add_init(root)
    _add_enrol(root)
    _add_hosts(root)
    _add_retire(root)
    _add_grant(root)
    _add_revoke(root)
    _add_people(root)
    _add_repair(root)


# --- init ---------------------------------------------------------------------------------------


def _add_init(root: click.Group) -> None:
    @command(root, "init")
    @click.option(
        "--recipient",
        multiple=True,
        metavar="RECIPIENT",
        help="Who else may read everything: rzr1…, or a file that holds it. Repeatable.",
    )
    @click.option("--browser", multiple=True, metavar="RECIPIENT", help="Who may see names and sizes only. Repeatable.")
    @click.option("--label", metavar="NAME", help="What to call this machine; by default its host name.")
    @click.option("--no-enrol", is_flag=True, help="Do not enrol this machine.")
    @access(owner=True)
    @click.argument("location", metavar="VAULT")
    def init(
        out: Output,
        *,
        access: Access,
        location: str,
        recipient: tuple[str, ...],
        browser: tuple[str, ...],
        label: str | None,
        no_enrol: bool,
    ) -> int:
        """Make a vault in an empty folder, owned by the key given, and enrol this machine.

        VAULT is a path or a URL: backups/home, s3://bucket/home. The machine gets a host key, saved
        in the user's configuration: with it alone "backup" works. It reads nothing back. So the
        owner's key is not needed on this machine any more.

        \b
        Examples:
          rozenfmt init /mnt/disk/vault -i me.key
          rozenfmt init s3://bucket/vault -i me.key --recipient rzr1… --browser clerk.txt
          rozenfmt init s3://bucket/vault -i me.key --no-enrol
        """
        if len(access.identities) != 1:
            msg = "a vault has one owner: give one key file (-i FILE, or ROZENFMT_IDENTITY); rozenfmt keygen makes one"
            raise rz.UsageError(msg)
        if label is not None and no_enrol:
            msg = "--label names this machine, which --no-enrol leaves out; give one of them"
            raise rz.UsageError(msg)
        recipients, browsers = recipients_from(recipient), recipients_from(browser)
        label = label if label is not None else socket.gethostname()
        if not no_enrol:
            # All that can fail for reasons of this machine comes before the vault is there.
            from rozenfmt.vault.hostkey import check_label

            check_label(label)
            _prepare(host_key_file(bytes(16)))
        out.after_interrupt = "there may be a vault already, without a host"
        with rz.Vault.init(
            location,
            owner=access.identities[0],
            recipients=recipients,
            browsers=browsers,
            **access.connection,
            cache_dir=cache_dir(),
        ) as vault:
            host = file = None
            if not no_enrol:
                file = host_key_file(vault.vault_id)
                host = vault.enrol(label)
                host.save(file)
            return _made(out, vault, host, file)


def _prepare(file: str) -> None:
    """Make the folder for host keys, before anything else is done."""
    folder = os.path.dirname(file)
    try:
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chmod(folder, 0o700)
    except OSError as error:
        msg = f"cannot make {folder}, where the host key would be saved: {error.strerror}"
        raise rz.UsageError(msg) from error


def _made(out: Output, vault: rz.Vault, host: rz.HostKey | None, file: str | None) -> int:
    out.summary(f"made the vault {shown_location(vault.url)}, id {vault.vault_id.hex()}", f"owner {vault.owner}")
    if host is not None and file is not None:
        out.summary(
            f"this machine is its host {safe(host.label)}; its key, for backing up only, is {safe(file)}",
            "The owner's key is not needed here any more. Keep it elsewhere, in two places: nothing can be "
            "restored without it.",
        )
    else:
        out.summary("it has no hosts yet: rozenfmt enrol")
    return out.document(
        Exit.DONE,
        {
            **vault_fields(vault),
            "owner": str(vault.owner),
            "host": None if host is None else _host_fields(host, file or ""),
        },
    )


def _host_fields(host: rz.HostKey, file: str) -> dict[str, Any]:
    return {"id": host.host_id.hex(), **text_fields("label", host.label), **text_fields("file", file)}


# --- hosts --------------------------------------------------------------------------------------


def _add_enrol(root: click.Group) -> None:
    @command(root, "enrol")
    @click.option("-o", "--output", metavar="FILE", help="Where to save the host's key; by default for this machine.")
    @access(owner=True, output=True)
    @click.argument("location", metavar="VAULT")
    @click.argument("label", metavar="LABEL")
    def enrol(out: Output, *, access: Access, location: str, label: str, output: str | None) -> int:
        """Make a key for a machine, so that it can back up into the vault.

        LABEL is what to call the machine; it is hidden from the storage. Take FILE there, and keep no
        copy. Without -o it is saved in this user's configuration, as "init" does.

        \b
        Examples:
          rozenfmt enrol s3://bucket/vault -i me.key laptop -o laptop.host
          rozenfmt backup s3://bucket/vault --host-key laptop.host ~/photos
        """
        if output is not None and os.path.lexists(output):
            msg = f"{output} exists; a key file is never overwritten. Choose another name"
            raise rz.UsageError(msg)
        with access.open(out, location) as vault:
            file = output
            if file is None:
                file = host_key_file(vault.vault_id)
                _prepare(file)
                if os.path.lexists(file):
                    msg = f"this machine is enrolled already: its key is {file}. For another machine give -o FILE"
                    raise rz.UsageError(msg)
            host = vault.enrol(label)
            host.save(file)
            out.summary(f"host {safe(host.label)}, id {host.host_id.hex()}: its key is {safe(file)}")
            if output is not None:
                home = os.path.join("~", ".config", "rozenfmt", "hosts", f"{vault.vault_id.hex()}.host")
                out.summary(
                    f"On that machine save it as {home}, or give it by --host-key; keep no copy here.",
                )
            return out.document(Exit.DONE, {**vault_fields(vault), "host": _host_fields(host, file)})


def _add_hosts(root: click.Group) -> None:
    @command(root, "hosts")
    @access()
    @click.argument("location", metavar="VAULT")
    def hosts(out: Output, *, access: Access, location: str) -> int:
        """List the machines that may back up, and those that were retired.

        \b
        Example:
          rozenfmt hosts s3://bucket/vault -i me.key
        """
        with access.open(out, location) as vault:
            rows = sorted(vault.hosts.items(), key=lambda row: (row[1], row[0]))
            retired = vault.retired
            if not out.json:
                for host_id, label in rows:
                    out.line(f"{host_id}  {safe(label)}{'  (retired)' if host_id in retired else ''}")
            listed = [
                {"id": host_id, **text_fields("label", label), "retired": host_id in retired} for host_id, label in rows
            ]
            return out.document(Exit.DONE, {**vault_fields(vault), "hosts": listed})


def _add_retire(root: click.Group) -> None:
    @command(root, "retire")
    @access(owner=True)
    @click.argument("location", metavar="VAULT")
    @click.argument("which", metavar="HOST")
    def retire(out: Output, *, access: Access, location: str, which: str) -> int:
        """Take a machine off the list: it can back up no more. What it stored stays readable.

        HOST is its label, its id, or a beginning of the id that no other has. This cannot be undone; a
        machine that comes back is enrolled anew.

        \b
        Example:
          rozenfmt retire s3://bucket/vault -i me.key laptop
        """
        with access.open(out, location) as vault:
            host_id = _find_host(vault, which)
            label = vault.hosts[host_id]
            vault.retire(host_id)
            out.summary(f"retired {safe(label)}, id {host_id}; what it stored stays readable")
            host = {"id": host_id, **text_fields("label", label), "retired": True}
            return out.document(Exit.DONE, {**vault_fields(vault), "host": host})


def _find_host(vault: rz.Vault, which: str) -> str:
    active = {host_id: label for host_id, label in vault.hosts.items() if host_id not in vault.retired}
    found = [host_id for host_id, label in active.items() if label == which]
    if not found and which:
        found = [host_id for host_id in active if host_id.startswith(which.lower())]
    if len(found) == 1:
        return found[0]
    many = "several active hosts are" if found else "no active host is"
    msg = f"{many} called {which!r}, or have an id that begins so; 'rozenfmt hosts' lists them"
    raise rz.UsageError(msg)


# --- people -------------------------------------------------------------------------------------


def _add_grant(root: click.Group) -> None:
    @command(root, "grant")
    @click.option("--browse", is_flag=True, help="Names and sizes only, no contents.")
    @click.option("--label", default="", metavar="NAME", help="What to call the person in the owner's list.")
    @access(owner=True)
    @click.argument("location", metavar="VAULT")
    @click.argument("person", metavar="RECIPIENT")
    def grant(out: Output, *, access: Access, location: str, person: str, browse: bool, label: str) -> int:
        """Let a person read everything in the vault, or browse it; no archive is rewritten.

        The right holds for what is stored already and for what will be. RECIPIENT is the public half
        of the person's own key, rzr1… or a file. The person needs to be told the owner's recipient.

        \b
        Examples:
          rozenfmt grant s3://bucket/vault -i me.key rzr1… --label Ada
          rozenfmt grant s3://bucket/vault -i me.key clerk.txt --browse
        """
        recipient = one_recipient(person)
        with access.open(out, location) as vault:
            vault.grant(recipient, "browse" if browse else "read", label=label)
            may = "browse names and sizes" if browse else "read everything"
            out.summary(
                f"{safe(label) or str(recipient)[:20] + '…'} may {may} in {shown_location(vault.url)}",
                f"who reads with that key gives --owner {vault.owner}",
            )
            fields = {"recipient": str(recipient), "right": "browse" if browse else "read", "label": label}
            return out.document(Exit.DONE, {**vault_fields(vault), "owner": str(vault.owner), "person": fields})


def _add_revoke(root: click.Group) -> None:
    @command(root, "revoke")
    @access(owner=True)
    @click.argument("location", metavar="VAULT")
    @click.argument("person", metavar="RECIPIENT")
    def revoke(out: Output, *, access: Access, location: str, person: str) -> int:
        """Take a person off the list: what is stored from now on is closed to them.

        What was stored before is not: they had its keys, and can open whatever copies they can get.
        RECIPIENT is as for "grant", or the person's label. This holds for good.

        \b
        Example:
          rozenfmt revoke s3://bucket/vault -i me.key Ada
        """
        with access.open(out, location) as vault:
            recipient = _find_person(vault, person)
            vault.revoke(recipient)
            out.summary(
                f"{str(recipient)[:20]}… was taken off the list; what is stored from now on is closed to them",
                "They keep the keys of what was stored before: take away their access to the storage, too.",
            )
            return out.document(Exit.DONE, {**vault_fields(vault), "recipient": str(recipient)})


def _find_person(vault: rz.Vault, which: str) -> rz.Recipient:
    named = [one.recipient for one in vault.people if one.label == which and one.state is rz.PersonState.PRESENT]
    if not which or not named:
        return one_recipient(which)
    if len(named) > 1:
        msg = f"{len(named)} people have the label {which!r}; give the recipient (rozenfmt people lists them)"
        raise rz.UsageError(msg)
    return named[0]


def _add_people(root: click.Group) -> None:
    @command(root, "people")
    @access()
    @click.argument("location", metavar="VAULT")
    def people(out: Output, *, access: Access, location: str) -> int:
        """List who may read or browse the vault, and who was taken off the list.

        A key that may only browse cannot see this list.

        \b
        Example:
          rozenfmt people s3://bucket/vault -i me.key
        """
        with access.open(out, location) as vault:
            if vault.right is not rz.Right.READ:
                msg = "a key that may only browse cannot see the list of people; give one that reads"
                raise rz.NoMatchingKey(msg)
            listed = []
            for one in vault.people:
                right = one.right.name.lower()
                removed = one.state is rz.PersonState.REMOVED
                owner = one.recipient == vault.owner
                marks = "  (owner)" if owner else "  (removed)" if removed else ""
                if not out.json:
                    out.line(f"{one.recipient}  {right:<6}  {safe(one.label)}{marks}".rstrip())
                listed.append(
                    {
                        "recipient": str(one.recipient),
                        "right": right,
                        **text_fields("label", one.label),
                        "owner": owner,
                        "removed": removed,
                    }
                )
            return out.document(Exit.DONE, {**vault_fields(vault), "people": listed})


# --- editions -----------------------------------------------------------------------------------


def _add_repair(root: click.Group) -> None:
    @command(root, "repair-editions")
    @access(owner=True)
    @click.argument("location", metavar="VAULT")
    def repair_editions(out: Output, *, access: Access, location: str) -> int:
        """Store editions again that are damaged or lost: the list of keys, hosts and people.

        Every metadata archive carries a copy of them. Readers use these by themselves and say so; hosts
        cannot, and back up again after this.

        \b
        Example:
          rozenfmt repair-editions s3://bucket/vault -i me.key
        """
        with access.open(out, location) as vault:
            stored = vault.repair_editions()
            out.summary(f"{count(stored, 'edition')} stored again" if stored else "nothing to repair")
            return out.document(Exit.DONE, {**vault_fields(vault), "stored": stored})
