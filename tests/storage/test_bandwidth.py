"""Limits of bandwidth: the pace itself, and that every byte keeps to it."""

from __future__ import annotations

import asyncio
import itertools
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import rozenfmt as rz
from rozenfmt.errors import StorageError, UsageError
from rozenfmt.storage import open_storage
from rozenfmt.storage.bandwidth import Pace
from rozenfmt.storage.local import LocalStorage
from rozenfmt.testing.servers import rclone_server
from rozenfmt.testing.storage import pattern

if TYPE_CHECKING:
    from rozenfmt.storage.base import Storage
    from rozenfmt.testing.servers import Server

MIB = 1 << 20
PART = 5 * MIB


class Clock:
    """A clock that only moves when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def move(self, pace: Pace, count: int, piece: int) -> None:
        """Move ``count`` bytes in pieces."""
        while count:
            size = min(count, piece)
            while wait := pace.ask(size):
                assert 0 < wait <= 0.25
                self.now += wait
            count -= size


@pytest.mark.parametrize("rate", [1_000, 100_000, 50_000_000])
@pytest.mark.parametrize("piece", [1 << 10, 1 << 18])
def test_pace(rate: int, piece: int) -> None:
    clock = Clock()
    pace = Pace(rate, clock)
    clock.move(pace, 100 * piece, piece)
    # The last piece is paid by whoever comes next, and a tenth of a second is free.
    assert 99 * piece / rate - 0.2 <= clock.now <= 100 * piece / rate + 0.2


def test_idle_time_is_not_saved_up() -> None:
    clock = Clock()
    pace = Pace(1000, clock)
    clock.now = 3600
    clock.move(pace, 10_000, 100)
    assert clock.now - 3600 > 9


def test_two_share_a_pace() -> None:
    clock = Clock()
    pace = Pace(1000, clock)
    for _ in range(10):
        clock.move(pace, 500, 50)
        clock.move(pace, 500, 50)
    assert clock.now == pytest.approx(10, abs=0.3)


def test_changes_take_effect_at_once() -> None:
    clock = Clock()
    pace = Pace(10_000_000, clock)
    assert pace.ask(1 << 20) == 0
    pace.rate = 10
    assert pace.ask(1) == 0  # not a day later
    assert pace.ask(1) > 0
    pace.rate = None
    assert pace.ask(1 << 40) == 0
    assert pace.ask(1 << 40) == 0


@pytest.mark.parametrize("rate", [0, -1, float("nan"), "fast", True])
def test_limits_are_positive_numbers(rate: Any) -> None:
    with pytest.raises(UsageError):
        rz.Bandwidth(up=rate)
    limits = rz.Bandwidth()
    with pytest.raises(UsageError):
        limits.down = rate
    assert limits.down is None


def test_limits_can_be_read_and_lifted() -> None:
    limits = rz.Bandwidth(up=1000, down=2000)
    assert (limits.up, limits.down) == (1000, 2000)
    limits.up = float("inf")
    limits.down = None
    assert repr(limits) == repr(rz.Bandwidth())


@pytest.mark.parametrize("rate", [None, 1, 1000, 1 << 20, 1 << 40])
def test_pieces_suit_the_rate(rate: float | None) -> None:
    assert 1 << 10 <= Pace(rate).piece() <= 256 << 10
    assert Pace(rate).piece(4 << 20) <= 4 << 20


def test_waits_end_when_the_limit_is_lifted() -> None:
    pace = Pace(1)
    pace.take(1000)
    thread = threading.Thread(target=pace.take, args=(1000,), daemon=True)
    thread.start()
    pace.rate = None
    thread.join(20)
    assert not thread.is_alive()


def test_waits_of_coroutines_leave_the_loop_free() -> None:
    async def main() -> int:
        pace = Pace(1)
        turns = itertools.count()
        await pace.atake(1000)

        async def lift() -> None:
            for _ in range(5):
                next(turns)
                await asyncio.sleep(0)
            pace.rate = None

        await asyncio.gather(pace.atake(1000, lambda: None), lift())
        return next(turns)

    assert asyncio.run(main()) == 5


# Storages


class Counted(rz.Bandwidth):
    """Limits that nobody notices, and what was asked of them."""

    def __init__(self) -> None:
        super().__init__(up=1 << 40, down=1 << 40)
        self.asked: dict[str, list[int]] = {"sending": [], "receiving": []}
        for name, sizes in self.asked.items():
            pace = getattr(self, name)
            pace.ask = self._counting(pace, sizes)

    @staticmethod
    def _counting(pace: Pace, sizes: list[int]) -> Any:
        ask, lock = pace.ask, threading.Lock()

        def counting(count: int) -> float:
            wait = ask(count)
            if not wait:
                with lock:
                    sizes.append(count)
            return wait

        return counting


def storages(request: pytest.FixtureRequest, kind: str, limits: rz.Bandwidth) -> Storage:
    """A folder of its own."""
    folder = uuid.uuid4().hex
    if kind == "local":
        return open_storage(request.getfixturevalue("tmp_path") / folder, bandwidth=limits)
    if kind == "memory":
        return open_storage(f"memory://{folder}", bandwidth=limits)
    if kind in {"sftp", "webdav"}:
        server: Server = request.getfixturevalue("other")
    else:
        server = request.getfixturevalue(f"{kind}_s3")
    return open_storage(f"{server.url}/{folder}", server.storage_options, bandwidth=limits)


@pytest.fixture
def other(request: pytest.FixtureRequest) -> Any:
    with rclone_server(request.node.callspec.params["kind"]) as server:
        yield server


@pytest.mark.parametrize("kind", ["local", "memory", "sftp", "webdav", "moto", "rclone"])
def test_every_byte_keeps_to_the_pace(request: pytest.FixtureRequest, kind: str) -> None:
    limits = Counted()
    storage = storages(request, kind, limits)
    # paramiko waits for each answer.
    data = pattern((MIB if kind == "sftp" else 2 * PART) + 12_345)
    upload = storage.create("a", part_size=PART)
    for start in range(0, len(data), 3 * MIB):
        upload.write(memoryview(data)[start : start + 3 * MIB])
    upload.commit()
    up, down = limits.asked["sending"], limits.asked["receiving"]
    assert sum(up) == len(data)
    assert max(up) <= 256 << 10
    assert down == []
    assert b"".join(storage.stream("a")) == data
    assert sum(down) == len(data)
    assert storage.read("a", 5, 1000) == data[5:1005]
    assert storage.read_suffix("a", 10) == (len(data), data[-10:])
    assert sum(down) == len(data) + 1010
    assert sum(up) == len(data)
    assert [info.size for info in storage.list()] == [len(data)]
    storage.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["local", "memory", "moto", "rclone"])
def test_slow_transfers_are_whole(request: pytest.FixtureRequest, kind: str) -> None:
    limits = rz.Bandwidth(up=200_000, down=200_000)
    storage = storages(request, kind, limits)
    data = pattern(100_000)
    upload = storage.create("a")
    upload.write(data)
    upload.commit()
    assert storage.read("a", 0, len(data)) == data
    assert b"".join(storage.stream("a", 1)) == data[1:]
    storage.close()  # type: ignore[attr-defined]


def test_one_object_limits_several_storages(tmp_path: Path) -> None:
    limits = Counted()
    for name in ("a", "b"):
        with rz.create(tmp_path / f"{name}.rzn", plain=True, bandwidth=limits) as archive:
            archive.add("x", pattern(MIB))
    stored = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert sum(limits.asked["sending"]) == stored
    rz.check(tmp_path / "a.rzn", bandwidth=limits)
    assert sum(limits.asked["receiving"]) >= stored // 2
    with rz.open(tmp_path / "b.rzn", bandwidth=limits) as archive_read:
        assert archive_read.read("x") == pattern(MIB)
    assert sum(limits.asked["receiving"]) > stored


def test_vaults_keep_to_the_pace(tmp_path: Path) -> None:
    limits = Counted()
    me = rz.Identity.generate()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(pattern(MIB))
    with rz.Vault.init(tmp_path / "vault", owner=me, bandwidth=limits, cache_dir=tmp_path / "cache") as vault:
        host = vault.enrol("host")
    with rz.Vault.open(tmp_path / "vault", host=host, bandwidth=limits, cache_dir=tmp_path / "cache") as vault:
        vault.backup([tmp_path / "tree"])
    assert sum(limits.asked["sending"]) > MIB
    with rz.Vault.open(tmp_path / "vault", identities=[me], bandwidth=limits) as vault:
        vault.restore("latest", tmp_path / "out")
    assert (tmp_path / "out" / "tree" / "a").read_bytes() == pattern(MIB)
    assert sum(limits.asked["receiving"]) > MIB


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_interrupt_ends_slow_work_of_threads(request: pytest.FixtureRequest, kind: str) -> None:
    limits = rz.Bandwidth()
    storage: Any = storages(request, kind, limits)
    upload = storage.create("a")
    upload.write(bytes(MIB))
    upload.commit()
    limits.down = 1
    ended: list[Exception] = []

    def work() -> None:
        try:
            storage.read("a", 0, MIB)
        except StorageError as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        storage.interrupt()  # until it waits, there is nothing to end
        thread.join(0.05)
    assert len(ended) == 1


def test_no_limits_no_layer(tmp_path: Path) -> None:
    assert type(open_storage(tmp_path)) is LocalStorage
