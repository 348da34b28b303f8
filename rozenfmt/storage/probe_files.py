"""What a local folder, or a folder of any file system of fsspec, can be found to do."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from rozenfmt.errors import RozenError, StorageError
from rozenfmt.storage.abilities import AbilityResult, Findings
from rozenfmt.storage.probe import SMALL, CommonProbe, Plan, timed, work_and_tidy

if TYPE_CHECKING:
    from rozenfmt.storage.base import Storage
    from rozenfmt.storage.local import LocalStorage

__all__ = ["GenericProbe", "LocalProbe", "mount_of"]

YES, NO, _IGNORED, NOT_ALLOWED, UNKNOWN = AbilityResult

_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FAT: Final = frozenset({"vfat", "msdos"})
_FAT_LARGEST: Final = (4 << 30) - 1
_ESCAPES: Final = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


def _denied(error: BaseException) -> bool:
    step: BaseException | None = error
    while step is not None:
        if isinstance(step, PermissionError) or (isinstance(step, OSError) and step.errno in _DENIED):
            return True
        step = step.__cause__ or step.__context__
    return False


class _FilesProbe(CommonProbe):
    """What both kinds of folders have in common."""

    def __init__(self, storage: Storage, plan: Plan, findings: Findings) -> None:
        super().__init__(storage, plan, findings, _denied)

    def run(self) -> None:
        """Find out, and tidy up."""
        findings = self.findings
        try:
            next(iter(self.storage.list(self.plan.scratch)), None)
        except StorageError as error:
            findings.note("reach", YES if _denied(error) else NO, str(error))
            findings.note("list", self.refused(error), str(error))
            if not _denied(error):
                return
        else:
            findings.note("reach", YES)
            findings.note("list", YES)
        work_and_tidy(self._objects, self._tidy)

    def _objects(self) -> None:
        findings = self.findings
        name, data = self.name("small"), os.urandom(SMALL)
        try:
            self.write(name, data)
        except StorageError as error:
            findings.note("put", self.refused(error), str(error))
            self.read_existing()
            self._rights()
            return
        findings.note("put", YES)
        there = self.listed(name) == len(data)
        findings.note("list_after_write", YES if there else NO, "at once" if there else "not listed at once")
        self.read_small(name, data)
        self.take_latency(lambda: self.storage.size(name))
        self._delete(name)
        self.no_overwrite(self.name("twice"))
        self._overwrite(self.name("again"))
        self.odd()
        self._special()
        self.measure(self.name("large"))
        self._rights()

    def _delete(self, name: str) -> None:
        try:
            self.storage.delete(name)
            gone = self.listed(name) is None
        except StorageError as error:
            self.findings.note("delete", self.refused(error), str(error))
        else:
            self.findings.note("delete", YES if gone else _IGNORED, "" if gone else "accepted, and still listed")
        if self.findings.yes("delete"):
            self.made.pop(name)

    def _overwrite(self, name: str) -> None:
        try:
            self.write(name, b"before")
            self.write(name, b"after", overwrite=True)
        except StorageError as error:
            self.findings.note("overwrite", self.refused(error), str(error))
        else:
            self.findings.note("overwrite", YES, "the object before is gone")

    def _rights(self) -> None:
        """Rights of folders: as below the scratch folder, unless the kind of storage knows better."""
        answers = {"put": "put", "get": "read", "delete": "delete"}
        for question in self.plan.questions:
            same = self.findings.result(answers[question.action])
            self.findings.note(question.ability, same, "as where the probe wrote")

    def _special(self) -> None:
        """What only this kind of storage has."""

    def _tidy(self) -> None:
        for name in self.made:
            # What is not there was never made, or is removed already; what stays is listed next.
            with contextlib.suppress(StorageError):
                self.storage.delete(name)
        with contextlib.suppress(StorageError, AttributeError):  # storages of others may know no such thing
            for one in list(self.storage.leftovers(self.plan.scratch)):
                self.storage.remove_leftover(one)
        with contextlib.suppress(StorageError):
            self.findings.leftovers += [info.name for info in self.storage.list(self.plan.scratch)]


class LocalProbe(_FilesProbe):
    """A probe of a local folder.

    Args:
        storage: The folder.
        plan: What to try, and where.
        findings: Where results go.
    """

    def __init__(self, storage: LocalStorage, plan: Plan, findings: Findings) -> None:
        super().__init__(storage, plan, findings)
        self._root = storage.root
        self._scratch = os.path.join(self._root, *plan.scratch.strip("/").split("/"))
        self._missing = self._not_there()

    def run(self) -> None:
        """Find out, and tidy up."""
        parent = os.path.dirname(self._root)
        if not os.path.isdir(self._root) and (os.path.lexists(self._root) or not os.path.isdir(parent)):
            what = "is not a folder" if os.path.lexists(self._root) else f"cannot be made: there is no {parent!r}"
            self.findings.note("reach", NO, f"{self._root!r} {what}; check the path, and that the disk is mounted")
            return
        self._facts()
        super().run()

    def _not_there(self) -> list[str]:
        """Folders that the probe will have to make, the innermost first."""
        found, path = [], self._scratch
        while not os.path.lexists(path) and len(path) >= len(self._root):
            found.append(path)
            path = os.path.dirname(path)
        return found

    def _facts(self) -> None:
        facts, place = self.findings.facts, self._root if os.path.isdir(self._root) else os.path.dirname(self._root)
        kind, options = mount_of(place)
        if kind:
            facts["file_system"] = kind
        if "ro" in options.split(","):
            self.findings.warnings.append("the file system is mounted read-only: nothing can be stored there")
        with contextlib.suppress(OSError, AttributeError):  # not on every system
            status = os.statvfs(place)
            facts["free"] = status.f_bavail * status.f_frsize
            if status.f_files:
                facts["free_files"] = status.f_favail
        with contextlib.suppress(OSError, ValueError, AttributeError):  # not on every system
            facts["longest_name"] = os.pathconf(place, "PC_NAME_MAX")
        largest = self._largest(kind)
        if largest is not None:
            facts["largest_file"] = largest
        if os.path.isdir(self._root):
            facts["mode"] = stat.filemode(os.stat(self._root).st_mode)

    @staticmethod
    def _largest(kind: str) -> int | None:
        """The largest file in bytes, where it is small enough to matter (pathconf's answer is a guess)."""
        limits = [_FAT_LARGEST] if kind in _FAT else []
        with contextlib.suppress(ImportError):
            import resource

            soft = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            if soft != resource.RLIM_INFINITY:
                limits.append(soft)
        return min(limits, default=None)

    def _special(self) -> None:
        findings = self.findings
        one, two = (os.path.join(self._scratch, name) for name in ("Case", "case"))
        try:
            self._fsync(one)
            differs = not os.path.lexists(two)
            findings.note("case", YES if differs else NO, "" if differs else "Case and case are one file here")
            # On network file systems this is the server's clock.
            findings.clock_difference = round(os.stat(one).st_mtime - time.time(), 1)
            self._try("rename", lambda: os.replace(one, one + ".new"))
            os.replace(one + ".new", one)
            self._try("hard_links", lambda: os.link(one, one + ".link"))
        except OSError as error:
            findings.warnings.append(f"the folder was not looked at further: {error.strerror}")
        finally:
            for path in (one, one + ".new", one + ".link"):
                with contextlib.suppress(OSError):  # not made, or not to be removed: then it is listed
                    os.unlink(path)

    def _fsync(self, path: str) -> None:
        """Of a file, timed, and of its folder."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, b"x")
            try:
                seconds, _ = timed(lambda: os.fsync(fd))
            except OSError as error:
                self.findings.note("fsync", NO, f"of a file: {error.strerror}")
                return
        finally:
            os.close(fd)
        try:
            folder = os.open(self._scratch, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            self.findings.note("fsync", NO, f"of files, not of folders: {error.strerror}")
        else:
            self.findings.note("fsync", YES, f"of files and folders; {1000 * seconds:.1f} ms")

    def _try(self, ability: str, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            self.findings.note(ability, NOT_ALLOWED if error.errno == errno.EACCES else NO, error.strerror or "")
        else:
            self.findings.note(ability, YES)

    def measure(self, name: str, **options: Any) -> None:
        """As for all; what was written is read from the disk, where the system lets go of its cache."""

        def forget() -> None:
            if hasattr(os, "posix_fadvise"):
                fd = os.open(os.path.join(self._root, *name.split("/")), os.O_RDONLY)
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(fd)

        free = self.findings.facts.get("free")
        if isinstance(free, int) and free < 2 * self.plan.transfer:
            self.findings.warnings.append(f"only {free} bytes are free: nothing was measured")
            return
        super().measure(name, before_reading=forget, **options)

    def _rights(self) -> None:
        super()._rights()
        modes = {"get": os.R_OK | os.X_OK, "put": os.W_OK | os.X_OK, "delete": os.W_OK | os.X_OK}
        for question in self.plan.questions:
            folder = os.path.dirname(os.path.join(self._root, *question.name.split("/")))
            if os.path.isdir(folder) and not os.access(folder, modes[question.action]):
                shown = os.path.relpath(folder, self._root)
                self.findings.note(question.ability, NOT_ALLOWED, f"by the owner and mode of {shown!r}")

    def _tidy(self) -> None:
        super()._tidy()
        for path in self._missing:
            # One that somebody else uses by now is not empty.
            with contextlib.suppress(OSError):
                os.rmdir(path)


class GenericProbe(_FilesProbe):
    """A probe of a folder of any other file system.

    Args:
        storage: A ``GenericStorage``, or another storage with its methods only.
        plan: What to try, and where.
        findings: Where results go.
    """

    def _special(self) -> None:
        from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

        fs: Any = getattr(self.storage, "fs", None)
        path: Callable[[str], str] | None = getattr(self.storage, "path", None)
        if fs is None or path is None:
            return
        self.findings.facts["file_system"] = str(fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0])
        renames = type(fs).mv is not AbstractFileSystem.mv
        name, new = self.name("moved"), self.name("moved-too")
        try:
            self.write(name, b"moved")
            fs.mv(path(name), path(new))
            moved = (self.listed(name), self.listed(new)) == (None, 5)
            replaces = self._replaces(fs, path(name), path(new))
        except RozenError:
            raise
        except Exception as error:  # noqa: BLE001 - back-ends raise what they like
            self.findings.note("rename", UNKNOWN, f"a move failed: {type(error).__name__}")
        else:
            how = "the file system has a move of its own" if renames else "a copy, then a deletion"
            how += ", which replaces what is there" if replaces else ", which does not replace what is there"
            self.findings.note("rename", YES if renames and moved else NO, how if moved else "nothing was moved")
        with contextlib.suppress(Exception):  # few file systems say it, and it is only good to know
            self.write(new, b"x", overwrite=True)
            changed = fs.modified(path(new))
            if changed.tzinfo is not None:
                self.findings.clock_difference = round(changed.timestamp() - time.time(), 1)

    def _replaces(self, fs: Any, source: str, target: str) -> bool:
        """Whether a move replaces what stands at its target."""
        self.write(self.plan.scratch + "moved", b"again!")
        try:
            fs.mv(source, target)
        except Exception:  # noqa: BLE001 - back-ends raise what they like
            return False
        return self.listed(self.plan.scratch + "moved-too") == 6

    def no_overwrite(self, name: str) -> None:
        """As for all; what was found holds for one process."""
        super().no_overwrite(name)
        if self.findings.yes("no_overwrite"):
            told = "the second of two writers of one process was refused; of two processes both may succeed"
            self.findings.note("no_overwrite", YES, told)

    def _tidy(self) -> None:
        super()._tidy()
        fs: Any = getattr(self.storage, "fs", None)
        path: Callable[[str], str] | None = getattr(self.storage, "path", None)
        if fs is None or path is None or self.findings.leftovers:
            return
        with contextlib.suppress(Exception):  # an empty folder of a random name harms nobody
            fs.rmdir(path(self.plan.scratch.rstrip("/")))


def mount_of(path: str) -> tuple[str, str]:
    """Type and options of the file system at a path; empty where the system does not tell.

    Args:
        path: What exists.
    """
    if not sys.platform.startswith("linux"):
        return "", ""
    wanted = os.stat(path).st_dev
    number = f"{os.major(wanted)}:{os.minor(wanted)}"
    real, best = os.path.realpath(path) + "/", ("", "", "")
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            for line in table:
                fields, _, rest = line.partition(" - ")
                one = fields.split(" ")
                where = one[4]
                for escaped, char in _ESCAPES.items():
                    where = where.replace(escaped, char)
                # Some file systems (btrfs) give stat another device than the table; then the path decides.
                inside = real.startswith(where.rstrip("/") + "/")
                if inside and (len(where), one[2] == number) >= (len(best[0]), False):
                    best = (where, rest.split(" ")[0], one[5])
    except (OSError, IndexError):
        return "", ""
    return best[1], best[2]
