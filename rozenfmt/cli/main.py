"""The outermost frame: arguments in, an exit code out, and one clear message for every failure."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final, TextIO

import click

import rozenfmt as rz

from . import archive, backup, examine, keys, owner, probe, rebuild, restore, resume, snapshots, verify
from .keyfiles import refuse_secrets
from .options import State
from .output import Exit, Output, message, text_fields

__all__ = ["run"]

_EPILOG: Final = """\b
Exit codes:
  0  done
  1  failed, or interrupted
  2  wrong usage
  3  done, but incomplete: problems were reported
  4  differences found; of "probe": something that is needed is missing

\b
Environment:
  ROZENFMT_IDENTITY    key file to read with, where no -i is given
  ROZENFMT_HOST_KEY    host key to back up with, where no --host-key is given
  ROZENFMT_CONFIG_DIR  where host keys are saved; by default in the user's configuration
  ROZENFMT_CACHE_DIR   where hosts keep their caches; by default in the user's cache
  NO_COLOR             no colours
"""


class _InOrder(click.Group):
    """Lists its commands as they were added: in the order in which a person meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names of the commands."""
        return list(self.commands)


@click.group(
    cls=_InOrder,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=_EPILOG,
)
@click.version_option(rz.__version__, prog_name="rozenfmt", message="%(prog)s %(version)s")
def root() -> None:
    """Encrypted backups that outlive the program that wrote them.

    A VAULT holds many backups of one or more machines, in a folder of any storage that fsspec knows:
    a path, or a URL such as s3://bucket/vault. An archive is a single file; see "archive".

    \b
    Begin so:
      rozenfmt keygen -o me.key
      rozenfmt init /mnt/disk/vault -i me.key
      rozenfmt backup /mnt/disk/vault ~/photos --name photos
      rozenfmt restore /mnt/disk/vault latest:photos restored -i me.key
    """


@root.group("archive", cls=_InOrder, no_args_is_help=False)
def archive_group() -> None:
    """Write, read and examine single archives.

    An ARCHIVE is a path, or a URL of any storage that fsspec knows: s3://bucket/photos.rzn.
    """


for module in (keys, owner, backup, resume, snapshots, restore, verify, rebuild, probe):
    module.add_commands(root)
archive.add_commands(archive_group)
examine.add_commands(archive_group)
root.add_command(root.commands.pop("archive"))  # last

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Without the program's name; those of the process by default.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    state = State(Output(json="--json" in given), debug="--debug" in given)
    _prepare_streams()
    _keep_memory()
    _collect_seldom()
    with _signals():
        try:
            code = _guarded(given, state)
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            _silence(sys.stdout)
            return _failed(state, error, "interrupted")
        except BrokenPipeError as error:
            return _broken_pipe(state, error)
        except OSError as error:
            _silence(sys.stdout)
            return _failed(state, error, f"cannot write to standard output: {error.strerror}")
    return code


def _broken_pipe(state: State, error: BrokenPipeError) -> int:
    """Whoever read our output has seen enough; any other broken pipe is a failure."""
    if not _reader_gone(sys.stdout):
        return _failed(state, error, error)
    _silence(sys.stdout)
    return Exit.FAILED


def _reader_gone(stream: TextIO) -> bool:
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(stream, 0)  # errors and hang-ups are told without being asked for
    return bool(poll.poll(0))


def _guarded(arguments: list[str], state: State) -> int:
    """Run a command and turn whatever it raises into a message and an exit code."""
    try:
        refuse_secrets(arguments)
        with root.make_context("rozenfmt", arguments, obj=state) as context:
            return int(root.invoke(context) or 0)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            path = error.ctx.command_path
            state.output.command = state.output.command or path.removeprefix("rozenfmt").strip()
            group = isinstance(error.ctx.command, click.Group)
            sys.stderr.write(error.ctx.get_help() if group else f"{error.ctx.get_usage()}\nTry '{path} --help'.")
            sys.stderr.write("\n")
        return _failed(state, error, error.format_message(), Exit.USAGE)
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - the last line of defence
        return _failed(state, error, _words(state, error), _code(error))


def _code(error: BaseException) -> Exit:
    return Exit.USAGE if isinstance(error, rz.UsageError) else Exit.FAILED


def _words(state: State, error: BaseException) -> str:
    """What to say of an error that is not click's."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        after = state.output.after_interrupt
        return f"interrupted; {after}" if after else "interrupted"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, (rz.RozenError, OSError)):
        return str(error)
    note = f"unexpected {type(error).__name__}: {error}. This is a bug: please report it"
    return note if state.debug else f"{note}, with what --debug shows"


def _failed(state: State, error: BaseException, text: object, code: Exit = Exit.FAILED) -> int:
    """Say what failed, on standard error and, with ``--json``, in a document."""
    if state.debug and not isinstance(error, (click.ClickException, KeyboardInterrupt)):
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            sys.stderr.write(message(line) + "\n")
    line = message(text)
    with suppress(OSError):
        state.output.note(f"rozenfmt: error: {line}")
    if state.output.json:
        details: dict[str, Any] = {"type": type(error).__name__, "message": line, "exit_code": int(code)}
        if isinstance(error, rz.ArchiveError):
            details |= {"failure_class": error.failure_class, "offset": error.offset, "block": error.block}
            details |= {"clause": error.clause, **text_fields("object", error.object or "")}
        with suppress(OSError):
            state.output.document(code, {"error": details})
            sys.stdout.flush()
    return code


# --- the process --------------------------------------------------------------------------------


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP are like Ctrl-C; the second signal exits at once."""
    seen = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            if sys.stderr is not None and sys.stderr.isatty():
                os.write(2, b"\x1b[?25h")  # a progress bar may have hidden the cursor
            os._exit(Exit.FAILED)
        seen = True
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # Who started this may have it ignored, as nohup does.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(ValueError):  # not on the main thread
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _collect_seldom() -> None:
    """Look for cycles less often: of many small objects that live on, hardly any are in one.

    It concerns the whole process, so only a program does it (measured: a tenth of a first backup's time).
    """
    import gc

    gc.set_threshold(100_000, 20, 100)


def _keep_memory() -> None:
    """Have glibc keep freed blocks instead of giving them back to the kernel one by one.

    Blocks of a few MiB come and go all the time.  By default each is mapped anew, and the page
    faults cost more than encrypting incompressible data does (measured: 7 s against 1.5 s of system
    time for 1.9 GB).  Parts of uploads are bigger and fewer: they are given back.  It concerns the
    whole process, so only a program does it, not the library.
    """
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; others have none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 5 * 1024 * 1024)
        mallopt(_M_TRIM_THRESHOLD, 128 * 1024 * 1024)
        mallopt(_M_ARENA_MAX, 1)  # else each thread keeps freed blocks for itself


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
            continue
        if isinstance(getattr(stream, "buffer", None), io.RawIOBase):
            # With PYTHONUNBUFFERED the stream writes what fits into a pipe, and drops the rest.
            encoding, at_once = stream.encoding, stream.isatty() or name == "stderr"
            stream = io.TextIOWrapper(io.BufferedWriter(stream.detach()), encoding, line_buffering=at_once)
            setattr(sys, name, stream)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _silence(stream: TextIO) -> None:
    """Keep the interpreter from complaining about what it cannot flush at its end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
