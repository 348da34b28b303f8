"""A local folder, perhaps on a network file system, at a limited pace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rozenfmt.errors import StorageError
from rozenfmt.storage.local import LocalStorage, LocalUpload
from rozenfmt.storage.upload import check_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rozenfmt.storage.bandwidth import Bandwidth
    from rozenfmt.storage.base import UploadState

__all__ = ["PacedLocalStorage"]


class PacedLocalStorage(LocalStorage):
    """A local folder that is written to and read from at a limited pace.

    Args:
        root: Path of the folder.
        make_root: Whether writing may create the folder itself; its parent must exist.
        bandwidth: The limits.

    """

    def __init__(self, root: str, *, make_root: bool = True, bandwidth: Bandwidth) -> None:
        super().__init__(root, make_root=make_root)
        self._bandwidth = bandwidth
        self._interrupts = 0

    def interrupt(self) -> None:
        """The user wants to stop: end what other threads wait for."""
        self._interrupts += 1

    def read(self, name: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``; ``StorageError`` if there are fewer."""
        check_range(start, length)
        if length == 0:
            return super().read(name, start, length)
        return b"".join(self.stream(name, start, start + length))

    def read_suffix(self, name: str, length: int) -> tuple[int, bytes]:
        """The object's size and its last ``length`` bytes."""
        check_range(0, length)
        size = self.size(name)
        length = min(length, size)
        return size, self.read(name, size - length, length)

    def stream(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end`` in pieces of up to 4 MiB, smaller where they come slowly."""
        return self._paced(super().stream(name, start, end))

    def create(
        self,
        name: str,
        *,
        overwrite: bool = False,
        part_size: int | None = None,
        expected_size: int | None = None,
    ) -> LocalUpload:
        """Begin an object, as ``LocalStorage`` does."""
        upload = super().create(name, overwrite=overwrite, part_size=part_size, expected_size=expected_size)
        self._slow_down(upload)
        return upload

    def resume(self, state: UploadState) -> LocalUpload | None:
        """Go on with an unfinished upload; None if its file is gone, or too short."""
        upload = super().resume(state)
        if upload is not None:
            self._slow_down(upload)
        return upload

    def _slow_down(self, upload: LocalUpload) -> None:
        pace, check = self._bandwidth.sending, self._check()
        upload.paced = lambda data: pace.slices(data, check)

    def _stream_piece(self) -> int:
        return self._bandwidth.receiving.piece(super()._stream_piece())

    def _paced(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        check = self._check()
        for piece in pieces:
            self._bandwidth.receiving.take(len(piece), check)
            yield piece

    def _check(self) -> Callable[[], None]:
        before = self._interrupts

        def check() -> None:
            if self._interrupts != before:
                msg = f"work on {self.url} was interrupted"
                raise StorageError(msg)

        return check
