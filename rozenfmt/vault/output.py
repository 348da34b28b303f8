"""One archive of a vault on its way into the storage: header for an epoch, encoder, pipeline, upload."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from rozenfmt.archive.pipeline import Pipeline, default_workers
from rozenfmt.archive.writer import TempRuns
from rozenfmt.errors import StorageError
from rozenfmt.format import crypto
from rozenfmt.format.crypto import Keys
from rozenfmt.format.encoder import Encoder
from rozenfmt.format.header import build_header
from rozenfmt.format.index import IndexBuilder
from rozenfmt.format.records import HeaderRecord
from rozenfmt.format.registry import Kind, Right, StanzaType, Suite

if TYPE_CHECKING:
    from rozenfmt.format.blocks import Draft
    from rozenfmt.storage.base import Storage

    from .editions import Epoch
    from .hostkey import HostKey

__all__ = ["HOST_ID_KEY", "PADDING", "ArchiveOutput", "Sealing"]

HOST_ID_KEY: Final = 1
PADDING: Final = (1024, 2048, 1024)


@dataclass(frozen=True, slots=True)
class Sealing:
    """How a run seals its archives.

    Attributes:
        host: Signs them and makes their content ids.
        epoch: To whose keys they are wrapped.
        suite: The AEAD.
        workers: Threads that compress and seal; 0 for one for each processor.
        decode_check: Open every sealed block again before it is written.
    """

    host: HostKey
    epoch: Epoch
    suite: Suite = Suite.XCHACHA20_POLY1305
    workers: int = 0
    decode_check: bool = True


class ArchiveOutput:
    """An archive that is being written; nothing of it is visible before ``finish`` returns.

    Args:
        storage: The vault's folder.
        name: Of the object.
        archive_id: 16 random bytes.
        kind: Data or metadata.
        sealing: Keys and ways.
        expected_size: Bytes that it will have, as far as known.

    Attributes:
        archive_id: As given.
        name: As given.
        length: Total length in bytes, once it is finished.
        foot_hash: Whole hash of ``FOOT``, once it is finished.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        archive_id: bytes,
        kind: Kind,
        sealing: Sealing,
        *,
        expected_size: int | None = None,
    ) -> None:
        self.archive_id = archive_id
        self.name = name
        self.length = 0
        self.foot_hash = b""
        record, keys = _header(archive_id, kind, sealing)
        self._runs = TempRuns()
        self.encoder = Encoder(
            build_header(record, keys),
            keys,
            entropy=os.urandom,
            signer_seed=sealing.host.signing.seed,
            index=IndexBuilder(self._runs),
        )
        self._upload = storage.create(name, expected_size=expected_size)
        try:
            self._pipeline = Pipeline(
                self.encoder,
                self._upload.write,
                workers=sealing.workers or default_workers(),
                decode_check=sealing.decode_check,
            )
            self._upload.write(self.encoder.begin())
        except BaseException:
            self._upload.discard()
            raise

    @property
    def stored(self) -> int:
        """Bytes that were given out so far."""
        return self.encoder.offset

    def submit(self, draft: Draft) -> int:
        """Number a draft and have it sealed and written; waits while too many are under way."""
        return self._pipeline.submit(draft)

    def drain(self) -> None:
        """Wait until everything submitted is written."""
        self._pipeline.drain()

    def close_blocks(self) -> Iterator[bytes]:
        """Index, footer and tail, after the last block."""
        self._pipeline.drain()
        yield from self.encoder.finish()

    def finish(self) -> None:
        """Write index and footer, and make the archive visible.

        Raises:
            StorageError: It could not be stored; nothing is left of it.
        """
        try:
            for buffer in self.close_blocks():
                self._upload.write(buffer)
            self._upload.commit()
        except BaseException:
            self.discard()
            raise
        self.length = self.encoder.offset
        assert self.encoder.foot_hash is not None
        self.foot_hash = self.encoder.foot_hash
        self._close()

    def discard(self) -> None:
        """Give it up; harmless when it is finished, or called again."""
        self._close()
        with suppress(StorageError):  # what went wrong before is what matters; leftovers harm nobody
            self._upload.discard()

    def _close(self) -> None:
        self._pipeline.close()
        self._runs.close()


def _header(archive_id: bytes, kind: Kind, sealing: Sealing) -> tuple[HeaderRecord, Keys]:
    """Header and keys of a new archive (vault.md, section 2)."""
    from rozenfmt import __version__

    keys = Keys.from_secret(sealing.suite, archive_id, os.urandom(32))
    assert keys.secret is not None
    wraps = (
        (Right.READ, keys.secret, sealing.epoch.read_public),
        (Right.BROWSE, keys.index_key, sealing.epoch.browse_public),
    )
    stanzas = tuple(
        (
            int(StanzaType.X25519),
            int(right),
            crypto.hpke_seal(public, crypto.stanza_info(right, archive_id), secret, os.urandom),
        )
        for right, secret, public in wraps
    )
    record = HeaderRecord(
        archive_id=archive_id,
        kind=int(kind),
        suite=int(sealing.suite),
        features=(),
        padding=PADDING,
        creator=f"rozenfmt {__version__}",
        commit_secret=keys.commitment_to_secret(),
        commit_index=keys.commitment_to_index_key(),
        stanzas=stanzas,
        signer=sealing.host.signing.verify_key.ed25519,
        id_key=HOST_ID_KEY,
    )
    return record, replace(keys, id_key=sealing.host.id_key)
