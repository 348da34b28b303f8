"""``rozenfmt keygen``."""

from __future__ import annotations

import os

import click

import rozenfmt as rz

from .keyfiles import ask_passphrase, read_passphrase
from .options import command
from .output import Exit, Output, text_fields

__all__ = ["add_commands"]


def add_commands(root: click.Group) -> None:
    """Add this module's commands."""

    @command(root, "keygen")
    @click.option("-o", "--output", required=True, metavar="FILE", help="Where to save the key; mode 0600.")
    @click.option("--sign", is_flag=True, help="Make a signing key instead of an identity.")
    @click.option("-p", "--passphrase", is_flag=True, help="Lock the file; the passphrase is asked for twice.")
    @click.option("--passphrase-file", metavar="FILE", help="Lock the file with the passphrase in FILE (- for stdin).")
    def keygen(out: Output, *, output: str, sign: bool, passphrase: bool, passphrase_file: str | None) -> int:
        """Make a key, save it, and print its public half.

        What is printed is the recipient, for others to encrypt to; of a signing key, the verify key.
        The file is the only copy of the secret: keep one more in a safe place. It is never overwritten.

        \b
        Examples:
          rozenfmt keygen -o me.key
          rozenfmt keygen -o me.key --passphrase
          rozenfmt keygen -o sign.key --sign
        """
        if os.path.lexists(output):
            msg = f"{output} exists; a key file is never overwritten. Choose another name"
            raise rz.UsageError(msg)
        lock = None
        if passphrase_file is not None:
            lock = read_passphrase(passphrase_file)
        elif passphrase:
            lock = ask_passphrase(f"Passphrase for {output!r}", twice=True)
        key = rz.SigningKey.generate() if sign else rz.Identity.generate()
        key.save(output, lock)
        kind, public = (
            ("verify_key", key.verify_key) if isinstance(key, rz.SigningKey) else ("recipient", key.recipient)
        )
        if out.json:
            return out.document(Exit.DONE, {**text_fields("file", output), kind: str(public)})
        out.line(str(public))
        return Exit.DONE
