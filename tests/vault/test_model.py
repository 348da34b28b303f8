"""Anything that people do to files, in any order, between backups of any kind: every snapshot stays what it was."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import stat as st
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from blake3 import blake3
from hypothesis import settings
from hypothesis import strategies as s
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import rozenfmt as rz
from rozenfmt.errors import ConflictError
from rozenfmt.vault import capture
from rozenfmt.vault.results import BackupResult, Conflict
from rozenfmt.vault.vault import Vault

from .site import SETTLED
from .trees import Fact, differences, restored, tree

NAMES = [
    *(b"a", b"b", b"c", b"d", b"A", b"D", b"e.txt", b"f"),
    *(b"\xff\xfe", b"new\nline", b"[*]?", b"-rf", b"trailing ", b"n" * 200, "Ä é".encode()),
]
SIZES = [0, 1, 9, 5_000, 5_001, 70_000, 70_001, 300_000, 1_048_577, 2_000_000]
ANSWERS = ["skip", "accept", "keep-both", "restore", None]
KEPT = re.compile(rb"\.~([0-9a-f]{8})?\Z")

indexes = s.integers(0, 1_000)
names = s.sampled_from(NAMES)
seeds = s.integers(0, 3)
sizes = s.sampled_from(SIZES)

Tree = dict[bytes, Fact]


def content(seed: int, size: int) -> bytes:
    return blake3(b"%d" % seed).digest(size)


@dataclass
class Memory:
    """What a host's catalog remembers: the last snapshot of each set, apart from earlier versions kept beside."""

    last: dict[str, Tree] = field(default_factory=dict)
    kept: dict[str, Tree] = field(default_factory=dict)

    def copy(self) -> Memory:
        return Memory(dict(self.last), dict(self.kept))


class Life(RuleBasedStateMachine):
    """One vault, two hosts, two sources, three sets and their snapshots."""

    racy_ns: ClassVar[int] = -(1 << 62)

    @initialize()
    def begin(self) -> None:
        self.stack = contextlib.ExitStack()
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(capture, "_RACY_NS", self.racy_ns)
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.root = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.fast = Path(self.stack.enter_context(tempfile.TemporaryDirectory(dir=memory)))
        self.url = str(self.fast / "vault")
        self.me = rz.Identity.generate()
        with Vault.init(self.url, owner=self.me) as vault:
            self.hosts = [vault.enrol("first"), vault.enrol("second")]
        self.sources = {b"home": self.root / "home", b"other": self.root / "other"}
        for path in self.sources.values():
            path.mkdir()
            (path / "anchor").write_bytes(b"so that it is never empty")
        self.memories = [Memory(), Memory()]
        self.older: Memory | None = None
        self.snapshots: dict[str, tuple[Tree, bool]] = {}
        self.objects: dict[str, tuple[int, int, int]] = {}
        self.clock = 0
        self.holes = False

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    # --- what people do to files ----------------------------------------------------------------

    def paths(self, wanted: Callable[[str], bool] = lambda path: True) -> list[str]:
        found = [
            os.path.join(folder, name)
            for source in self.sources.values()
            for folder, folders, files in os.walk(source)
            for name in [*folders, *files]
        ]
        return sorted(path for path in found if wanted(path))

    def one(self, index: int, wanted: Callable[[str], bool] = lambda path: True) -> str | None:
        found = self.paths(wanted)
        return found[index % len(found)] if found else None

    def file(self, index: int) -> str | None:
        return self.one(index, lambda path: st.S_ISREG(os.lstat(path).st_mode))

    def folder(self, index: int) -> str:
        found = [str(path) for path in self.sources.values()] + self.paths(
            lambda path: os.path.isdir(path) and not os.path.islink(path) and len(path) < 1_500
        )
        return found[index % len(found)]

    def place(self, index: int, name: bytes) -> str:
        return os.path.join(self.folder(index), os.fsdecode(name))

    @rule(where=indexes, name=names, seed=seeds, size=sizes)
    def write(self, where: int, name: bytes, seed: int, size: int) -> None:
        path = self.place(where, name)
        if not os.path.isdir(path) or os.path.islink(path):
            with contextlib.suppress(FileNotFoundError):
                if not os.path.isfile(path) or os.path.islink(path):
                    os.unlink(path)
            Path(path).write_bytes(content(seed, size))

    @rule(which=indexes, seed=seeds, size=sizes)
    def append(self, which: int, seed: int, size: int) -> None:
        if path := self.file(which):
            with open(path, "ab") as file:
                file.write(content(seed, size))

    @rule(which=indexes, share=s.integers(0, 4))
    def truncate(self, which: int, share: int) -> None:
        if path := self.file(which):
            os.truncate(path, os.path.getsize(path) * share // 4)

    @rule(which=indexes, share=s.integers(0, 3), seed=seeds)
    def patch(self, which: int, share: int, seed: int) -> None:
        if path := self.file(which):
            with open(path, "r+b") as file:
                file.seek(os.path.getsize(path) * share // 4)
                file.write(content(seed, 3_000))

    @rule(where=indexes, name=names, seed=seeds, hole=s.sampled_from([70_000, 1_100_000]))
    def sparse(self, where: int, name: bytes, seed: int, hole: int) -> None:
        path = self.place(where, name)
        if not os.path.lexists(path):
            self.holes = True
            with open(path, "wb") as file:
                file.seek(hole)
                file.write(content(seed, 9_000))
            os.truncate(path, hole * 2)

    @rule(where=indexes, name=names)
    def make_folder(self, where: int, name: bytes) -> None:
        path = self.place(where, name)
        if not os.path.lexists(path):
            os.mkdir(path)

    @rule(where=indexes, name=names, to=names)
    def symlink(self, where: int, name: bytes, to: bytes) -> None:
        path = self.place(where, name)
        if not os.path.lexists(path):
            os.symlink(os.fsdecode(to), path)

    @rule(where=indexes, name=names)
    def pipe(self, where: int, name: bytes) -> None:
        path = self.place(where, name)
        if not os.path.lexists(path):
            os.mkfifo(path)

    @rule(which=indexes)
    def delete(self, which: int) -> None:
        path = self.one(which, lambda path: not path.endswith("anchor"))
        if path is not None:
            self.remove(path)

    @staticmethod
    def remove(path: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    @rule(which=indexes, where=indexes, name=names)
    def rename(self, which: int, where: int, name: bytes) -> None:
        path, target = self.one(which), self.place(where, name)
        if path is not None and not path.endswith("anchor"):
            with contextlib.suppress(OSError):  # into itself, over a directory that is not empty, and so on
                os.rename(path, target)

    @rule(which=indexes, other=indexes)
    def swap(self, which: int, other: int) -> None:
        one, two = self.one(which), self.one(other)
        if one and two and one != two and not (one + "/").startswith(two + "/") and not two.startswith(one + "/"):
            aside = str(self.root / "aside")
            os.rename(one, aside)
            os.rename(two, one)
            os.rename(aside, two)

    @rule(which=indexes)
    def change_case(self, which: int) -> None:
        path = self.one(which, lambda path: not path.endswith("anchor"))
        if path is not None:
            head, tail = os.path.split(path)
            with contextlib.suppress(OSError):
                os.rename(path, os.path.join(head, tail.swapcase()))

    @rule(which=indexes, other=indexes)
    def into_sibling(self, which: int, other: int) -> None:
        one, two = self.folder(which), self.folder(other)
        if one not in map(str, self.sources.values()):
            with contextlib.suppress(OSError):
                os.rename(one, os.path.join(two, os.path.basename(one)))

    @rule(which=indexes, name=names)
    def new_folder_for_the_same(self, which: int, name: bytes) -> None:
        """Make a directory, and move everything there from another, which is removed or not."""
        old = self.folder(which)
        new = os.path.join(os.path.dirname(old), os.fsdecode(name))
        if old in map(str, self.sources.values()) or os.path.lexists(new):
            return
        os.mkdir(new)
        for child in os.listdir(old):
            os.rename(os.path.join(old, child), os.path.join(new, child))
        stat = os.stat(old)
        os.rmdir(old)
        os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    @rule(which=indexes, name=names, back=s.booleans())
    def folder_anew_under_its_name(self, which: int, name: bytes, back: bool) -> None:
        """Rename a directory and make another one of that name, with what was in it or empty."""
        old = self.folder(which)
        new = os.path.join(os.path.dirname(old), os.fsdecode(name))
        if old in map(str, self.sources.values()) or os.path.lexists(new):
            return
        os.rename(old, new)
        os.mkdir(old)
        for child in os.listdir(new) if back else ():
            os.rename(os.path.join(new, child), os.path.join(old, child))

    @rule(which=indexes, where=indexes, name=names, remove=s.booleans())
    def copy(self, which: int, where: int, name: bytes, remove: bool) -> None:
        path, target = self.one(which), self.place(where, name)
        if path is None or os.path.lexists(target) or (target + "/").startswith(path + "/"):
            return
        if os.path.isdir(path) and not os.path.islink(path):
            inside = [os.lstat(one) for one in self.paths() if one.startswith(path + "/")]
            if any(st.S_ISFIFO(one.st_mode) for one in inside) or sum(one.st_size for one in inside) > 3_000_000:
                return
            shutil.copytree(path, target, symlinks=True)
        elif st.S_ISREG(os.lstat(path).st_mode):
            shutil.copy2(path, target)
        else:
            return
        if remove and not path.endswith("anchor"):
            self.remove(path)

    @rule(which=indexes, seed=seeds)
    def other_kind(self, which: int, seed: int) -> None:
        path = self.one(which, lambda path: not path.endswith("anchor"))
        if path is None:
            return
        directory = os.path.isdir(path) and not os.path.islink(path)
        self.remove(path)
        if directory:
            Path(path).write_bytes(content(seed, 9))
        else:
            os.mkdir(path)
            Path(path, "inside").write_bytes(content(seed, 5_000))

    @rule(which=indexes, where=indexes, name=names, over=s.booleans())
    def hard_link(self, which: int, where: int, name: bytes, over: bool) -> None:
        path, target = self.file(which), self.place(where, name)
        if path is None or path == target:
            return
        if over and os.path.isfile(target) and not os.path.islink(target):
            os.unlink(target)
        with contextlib.suppress(FileExistsError):
            os.link(path, target)

    @rule(which=indexes)
    def break_link(self, which: int) -> None:
        path = self.one(which, lambda path: st.S_ISREG(os.lstat(path).st_mode) and os.lstat(path).st_nlink > 1)
        if path is not None:
            shutil.copy2(path, path + "~")
            os.rename(path + "~", path)

    @rule(which=indexes, mode=s.sampled_from([0o600, 0o644, 0o755, 0o4711]))
    def chmod(self, which: int, mode: int) -> None:
        path = self.one(which, lambda path: not os.path.islink(path))
        if path is not None:
            os.chmod(path, mode)

    @rule(which=indexes)
    def utime(self, which: int) -> None:
        """Each time is given once: what was moved with size and time as before is taken for the same."""
        if path := self.one(which):
            self.clock += 1
            time = SETTLED + self.clock * 1_000_000_007
            os.utime(path, ns=(time, time), follow_symlinks=False)

    @rule(which=indexes, name=s.sampled_from(["user.a", "user.b"]), seed=seeds)
    def xattr(self, which: int, name: str, seed: int) -> None:
        path = self.one(which, lambda path: st.S_ISREG(os.lstat(path).st_mode) or os.path.isdir(path))
        if path is not None and not os.path.islink(path):
            if seed:
                os.setxattr(path, name, content(seed, 20))
            else:
                with contextlib.suppress(OSError):
                    os.removexattr(path, name)

    # --- backups --------------------------------------------------------------------------------

    def cache(self, host: int) -> Path:
        return self.fast / f"cache{host}"

    def backup(self, host: int, name: str, *, both: bool = True, **options: Any) -> BackupResult:
        people = [self.me] if options.pop("reading", False) else []
        sources = list(self.sources.items())[: 2 if both else 1]
        with Vault.open(self.url, host=self.hosts[host], cache_dir=self.cache(host), identities=people) as vault:
            return vault.backup(sources, name=name, workers=1, data_size=3_000_000, **options)

    def now(self, *, both: bool = True) -> Tree:
        return tree(dict(list(self.sources.items())[: 2 if both else 1]))

    @rule(host=s.sampled_from([0, 0, 1]), name=s.sampled_from(["one", "two"]), both=s.booleans())
    def snapshot(self, host: int, name: str, both: bool) -> None:
        self.take(host, name, both=both)

    def take(self, host: int, name: str, *, both: bool) -> None:
        memory, now = self.memories[host], self.now(both=both)
        before = memory.last.get(name)
        done = self.backup(host, name, both=both)
        self.keep(done, now)
        if before is not None:
            self.judge(done, before, now)
        else:
            count = sum(not fact.directory for fact in now.values())
            assert (done.new, done.changed + done.metadata + done.same) == (count, 0)
            assert not done.moves and not done.deletions
        memory.last[name] = now
        memory.kept.pop(name, None)
        again = self.backup(host, name, both=both)
        assert again.unchanged
        self.snapshots[again.snapshot_id] = (now, False)  # one of those that are restored some time
        if self.racy_ns < 0:
            assert again.same == sum(not fact.directory for fact in now.values())
            # Of a content that stands with holes and without, the catalog knows one way only.
            assert again.read_bytes == 0 or self.holes

    def judge(self, done: BackupResult, before: Tree, now: Tree) -> None:
        """Hold what the result tells against what the trees were."""
        moved = [move for move in done.moves if not move.directory]
        # Every entry other than a directory is new, changed, of other metadata, the same, or moved by itself.
        counted = done.new + done.changed + done.metadata + done.same + len(moved)
        assert counted == sum(not fact.directory for fact in now.values())
        assert min(done.new, done.changed, done.metadata, done.same, done.moved, done.deleted) >= 0
        gone = {path for path, fact in before.items() if path not in now or now[path].kind != fact.kind}
        fresh = {path for path, fact in now.items() if path not in before or before[path].kind != fact.kind}
        told = [move.old for move in done.moves] + done.deletions
        assert len(told) == len(set(told))
        assert set(told) <= gone
        assert (done.moved, done.deleted) == (len(done.moves), len(done.deletions))
        came = [move.new for move in done.moves]
        assert len(came) == len(set(came))
        assert set(came) <= fresh
        for path in gone:
            assert any(path == one or path.startswith(one + b"/") for one in told), path
        for move in moved:
            assert before[move.old].same_content(now[move.new]), move
        changed = sum(
            not before[path].same_content(fact)
            for path, fact in now.items()
            if path not in fresh and not fact.directory
        )
        moves_directory = any(move.directory for move in done.moves)
        assert done.changed >= changed if moves_directory else done.changed == changed
        assert done.entries == len(now)
        assert done.directories == sum(fact.directory for fact in now.values())

    @rule(answers=s.lists(s.sampled_from(ANSWERS), min_size=1, max_size=4))
    def worm(self, answers: list[str | None]) -> None:
        self.write_once(answers)

    def write_once(self, answers: list[str | None]) -> None:
        memory, now = self.memories[0], self.now()
        before, kept = memory.last.get("worm"), dict(memory.kept.get("worm", {}))
        asked: dict[bytes, str] = {}
        policy = answers[0]

        def answer(conflict: Conflict) -> Any:
            asked[conflict.path] = answers[len(asked) % len(answers)] or "skip"
            return asked[conflict.path]

        try:
            done = self.backup(0, "worm", mode="worm", on_conflict=None if policy is None else answer, reading=True)
        except ConflictError as error:
            assert policy is None
            done = error.result
            asked = {conflict.path: "withhold" for conflict in done.conflicts}
        wanted, beside = dict(now), dict[bytes, Fact]()
        questions = set()
        for path, fact in now.items():
            was = (before or {}).get(path)
            if was is not None and was.file and fact.file and not was.same_content(fact):
                questions.add(path)
        directories = any(move.directory for move in done.moves)
        assert asked.keys() >= questions if directories else asked.keys() == questions
        for path in asked.keys() - questions:  # in a directory that was moved
            was = next(
                before[move.old + path.removeprefix(move.new)]
                for move in done.moves
                if before is not None and move.directory and path.startswith(move.new + b"/")
            )
            assert not was.same_content(now[path])
            before = {**(before or {}), path: was}
        for path, word in asked.items():
            assert before is not None
            if word in ("withhold", "skip", "restore"):
                wanted[path] = before[path]
            elif word == "keep-both" and before[path].size:
                beside[path + b".~" + self.short_id(before[path])] = before[path]
            elif word == "keep-both":
                beside[path + b".~"] = before[path]
        for path, fact in kept.items():
            folder = path.rpartition(b"/")[0]
            if folder in now and now[folder].directory and before is not None and folder in before:
                beside[path] = fact
        for path, word in asked.items():
            if word == "restore":
                assert before is not None
                local = self.local(path)
                assert tree({path: local})[path].alone() == before[path].alone()
                for aside in list(local.parent.glob(glob.escape(local.name) + ".local-*")):
                    self.clock += 1  # a second one may come within the second that its name tells
                    aside.rename(local.with_name(f"aside {self.clock}"))
        got = self.keep(done, wanted, worm=True, beside=beside)
        memory.last["worm"] = {path: fact for path, fact in got.items() if not KEPT.search(path)}
        memory.kept["worm"] = {path: fact for path, fact in got.items() if KEPT.search(path)}

    def local(self, path: bytes) -> Path:
        name, _, rest = path.partition(b"/")
        return self.sources[name] / os.fsdecode(rest)

    def short_id(self, fact: Fact) -> bytes:
        one = blake3(fact.content + fact.size.to_bytes(8, "little"), key=self.hosts[0].id_key).hexdigest()
        return one[:8].encode()

    @rule()
    def another_snapshot(self) -> None:
        """Most snapshots are of the same set as the one before."""
        self.take(0, "one", both=True)

    @rule(answer=s.sampled_from(ANSWERS))
    def another_worm(self, answer: str | None) -> None:
        self.write_once([answer])

    # --- the cache ------------------------------------------------------------------------------

    @rule(host=s.sampled_from([0, 1]))
    def lose_the_cache(self, host: int) -> None:
        shutil.rmtree(self.cache(host), ignore_errors=True)
        self.memories[host] = Memory()

    @precondition(lambda self: self.cache(0).exists())
    @rule()
    def copy_the_cache(self) -> None:
        shutil.rmtree(self.fast / "older", ignore_errors=True)
        shutil.copytree(self.cache(0), self.fast / "older")
        self.older = self.memories[0].copy()

    @precondition(lambda self: self.older is not None)
    @rule()
    def set_the_cache_back(self) -> None:
        shutil.rmtree(self.cache(0), ignore_errors=True)
        shutil.copytree(self.fast / "older", self.cache(0))
        assert self.older is not None
        self.memories[0] = self.older.copy()

    # --- what must hold -------------------------------------------------------------------------

    def keep(self, done: BackupResult, wanted: Tree, *, worm: bool = False, beside: Tree | None = None) -> Tree:
        """A new snapshot is what it should be; from now on it must stay so."""
        assert not done.problems
        got = self.read(done.snapshot_id)
        if worm:
            got = {path: fact.alone() for path, fact in got.items()}
            main = {path: fact for path, fact in got.items() if not KEPT.search(path)}
            wrong = differences({path: fact.alone() for path, fact in wanted.items()}, main)
            assert not wrong, wrong
            assert not differences(
                {path: fact.alone() for path, fact in (beside or {}).items()},
                {path: fact for path, fact in got.items() if path in (beside or {})},
            )
        else:
            assert not differences(wanted, got)
        assert len(got) == done.entries
        self.snapshots[done.snapshot_id] = (got, worm)
        return got

    def read(self, snapshot_id: str) -> Tree:
        with tempfile.TemporaryDirectory(dir=self.root) as folder, Vault.open(self.url, identities=[self.me]) as vault:
            result = vault.restore(snapshot_id, folder, workers=1)
            assert not result.problems
            return restored(Path(folder))

    @precondition(lambda self: self.snapshots)
    @rule(which=indexes)
    def any_snapshot(self, which: int) -> None:
        found = sorted(self.snapshots)
        one = found[which % len(found)]
        wanted, worm = self.snapshots[one]
        got = self.read(one)
        assert not differences(wanted, {path: fact.alone() for path, fact in got.items()} if worm else got)

    @invariant()
    def nothing_stored_is_touched(self) -> None:
        if not hasattr(self, "objects"):
            return
        now = {}
        for folder, _, files in os.walk(self.url):
            for name in files:
                stat = os.stat(os.path.join(folder, name))
                now[os.path.join(folder, name)] = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        assert self.objects.items() <= now.items()
        self.objects = now


class LifeInRealTime(Life):
    """Everything is written just before it is backed up: no time is trusted, and what is read proves itself."""

    racy_ns = 2_000_000_000


def _run(machine: type[Life], share: float) -> None:
    examples = max(5, int(settings().max_examples * share))
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=50))


def test_any_life_of_files() -> None:
    _run(Life, 0.3)


def test_any_life_of_files_in_real_time() -> None:
    _run(LifeInRealTime, 0.1)


@pytest.mark.slow
def test_many_lives_of_files() -> None:
    _run(Life, 10)
