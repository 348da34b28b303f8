"""The process: help, signals, pipes, terminals, and failures that nobody foresaw."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rozenfmt as rz

from .conftest import World
from .helpers import COMMAND, SECONDS, Terminal, environment, run

OWNER = ["init", "enrol", "hosts", "retire", "grant", "revoke", "people", "repair-editions"]
VAULT = [*OWNER, "backup", "resume", "snapshots", "ls", "cat", "diff", "restore", "verify", "rebuild-cache"]
COMMANDS = ["create", "list", "extract", "cat", "check", "inspect", "salvage", "compare", "join", "members"]


@pytest.mark.parametrize(
    "command", [[], ["archive"], ["keygen"], *([name] for name in VAULT), *(["archive", name] for name in COMMANDS)]
)
def test_help(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.out.startswith(f"Usage: rozenfmt {' '.join(command)}".rstrip())
    if command != ["archive"]:
        assert f"  rozenfmt {' '.join(command)}".rstrip() in result.out.partition("\n")[2]
    if not command:
        assert "Exit codes:" in result.out


def test_version() -> None:
    assert run("--version").out == f"rozenfmt {rz.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["archive"], ["nonsense"], ["archive", "nonsense"], ["keygen"], ["--no"]])
def test_usage_errors(arguments: list[str]) -> None:
    result = run(*arguments, code=2)
    assert result.out == ""
    assert "Usage: rozenfmt" in result.err


def test_usage_error_in_json() -> None:
    document = run("archive", "create", "--json", "x", code=2).document
    assert document["status"] == "usage"
    assert document["error"]["exit_code"] == 2


def test_help_imports_little() -> None:
    code = (
        "import sys; from rozenfmt.cli.main import run; run(['backup', '-h']); run(['archive', 'create', '-h']);"
        "heavy = {'rich', 'fsspec', 'cryptography', 'asyncio', 'zstandard', 'nacl'};"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=SECONDS)
    assert done.stdout.splitlines()[-1] == b"[]"


def test_import_of_the_library_does_not_import_click() -> None:
    code = "import rozenfmt as r, sys; r.create; r.open; assert not {'click', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=SECONDS)


# --- signals ------------------------------------------------------------------------------------

# Whoever runs the tests in the background may have SIGINT ignored, which the command line respects.
INTERRUPTIBLE = [
    sys.executable,
    "-c",
    "import signal as s; s.signal(s.SIGINT, s.default_int_handler); from rozenfmt.__main__ import main; main()",
]


def interrupted(process: subprocess.Popen[bytes], number: signal.Signals, folder: Path) -> str:
    """Send a signal once the archive is being written; returns what was said."""
    end = time.monotonic() + SECONDS
    while not any(file.stat().st_size for file in folder.iterdir()):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.2)  # well into the work
    process.send_signal(number)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    return err.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_while_waiting_for_input(tmp_path: Path, world: World, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*INTERRUPTIBLE, "archive", "create", "-r", world.recipient, "--name", "x", tmp_path / "x.rzn", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(measured=False),
    )
    assert interrupted(process, number, tmp_path) == "rozenfmt: error: interrupted; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_compressing(tmp_path: Path, world: World, number: signal.Signals) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1 << 20) * 48)
    folder = tmp_path / "out"
    folder.mkdir()
    create = ("archive", "create", "-r", world.recipient, "--compression", "zstd:19", "--json")
    process = subprocess.Popen(
        [*INTERRUPTIBLE, *create, str(folder / "x.rzn"), str(big)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(measured=False),
    )
    assert "nothing was written" in interrupted(process, number, folder)
    assert list(folder.iterdir()) == []


def test_an_interruption_leaves_the_old_archive(tmp_path: Path, world: World) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    old = folder / "x.rzn"
    old.write_bytes(b"old")
    process = subprocess.Popen(
        [*INTERRUPTIBLE, "archive", "create", "-r", world.recipient, "--overwrite", "--name", "x", str(old), "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(measured=False),
    )
    assert process.stdin is not None
    end = time.monotonic() + SECONDS
    while len(list(folder.iterdir())) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    interrupted(process, signal.SIGTERM, folder)
    assert [file.read_bytes() for file in folder.iterdir()] == [b"old"]


def test_the_second_signal_exits_at_once() -> None:
    code = """
import sys, time
from rozenfmt.cli import main
with main._signals():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("cleaning", flush=True)
        time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == b"cleaning\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 1
    process.stdout.close()


def test_ignored_signals_stay_ignored(tmp_path: Path, world: World) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(
        [*INTERRUPTIBLE, "archive", "create", "-r", world.recipient, "--name", "x", str(tmp_path / "x.rzn"), "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(measured=False),
        preexec_fn=ignore,  # noqa: PLW1509 - as nohup does
    )
    end = time.monotonic() + SECONDS
    while not list(tmp_path.iterdir()):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(b"data", timeout=SECONDS)
    assert (process.returncode, err) == (0, b"")


# --- pipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["list", "-i", "me.key", "many.rzn"], ["cat", "-i", "me.key", "a.rzn", "tree/sub/big"]]
)
def test_a_closed_pipe_is_silent(tmp_path: Path, world: World, arguments: list[str]) -> None:
    many = world.path / "many.rzn"
    if not many.exists():
        for number in range(2000):
            (tmp_path / f"{number:0100}").touch()
        run("archive", "create", "-r", world.recipient, many, tmp_path)
    for unbuffered in ("", "1"):
        process = subprocess.Popen(
            [*COMMAND, "archive", *arguments],
            cwd=world.path,
            env=environment({"PYTHONUNBUFFERED": unbuffered}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(SECONDS) == 1
        process.stderr.close()


def test_a_slow_pipe_gets_everything(world: World) -> None:
    for unbuffered in ("", "1"):
        process = subprocess.Popen(
            [*COMMAND, "archive", "cat", "-i", "me.key", "a.rzn", "tree/sub/big"],
            cwd=world.path,
            env=environment({"PYTHONUNBUFFERED": unbuffered}),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        time.sleep(0.5)
        data = process.stdout.read()
        process.stdout.close()
        assert process.wait(SECONDS) == 0
        assert data == (world.tree / "sub" / "big").read_bytes()


def test_a_full_disk_behind_standard_output(world: World) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    for arguments in (["list", "-i", "me.key", "a.rzn"], ["cat", "-i", "me.key", "a.rzn", "tree/sub/big"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [*COMMAND, "archive", *arguments],
                cwd=world.path,
                env=environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
                timeout=SECONDS,
            )
        assert done.returncode == 1
        assert done.stderr.startswith(b"rozenfmt: error: ")
        assert b"No space left" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_closed_standard_output(world: World) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "archive", "list", "-i", "me.key", "a.rzn"],
        cwd=world.path,
        env=environment(),
        stderr=subprocess.PIPE,
        check=False,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, b"")


# --- terminals ----------------------------------------------------------------------------------

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def test_progress_on_a_terminal(tmp_path: Path, world: World) -> None:
    big = tmp_path / "big\x1b[31m"
    big.write_bytes(os.urandom(1 << 20) * 40)
    create = ("archive", "create", "-r", world.recipient, "--compression", "zstd:12")
    for env, extra, bar in (({}, (), True), ({"NO_COLOR": "1"}, (), True), ({}, ("-q",), False)):
        terminal = Terminal(*create, *extra, "--overwrite", "x.rzn", big, cwd=tmp_path, env=env)
        code, text = terminal.finish()
        assert code == 0
        assert ("\x1b[?25l" in text) is bar  # the cursor is hidden, and comes back
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h")
        assert ("x.rzn: 1 entry" in text) is bar
        assert "\x1b[31m" not in text or not env
        if env:
            assert not re.search(r"\x1b\[(?:[0-9;]*;)?[349][0-9]", text)


def test_no_bar_where_it_would_disturb(tmp_path: Path, world: World) -> None:
    create = ("archive", "create", "-r", world.recipient, "--overwrite", "x.rzn", world.tree)
    terminal = Terminal(*create, "--json", cwd=tmp_path)
    assert "\x1b" not in terminal.finish()[1]
    terminal = Terminal(*create, cwd=tmp_path, env={"TERM": "dumb"})
    assert "\x1b" not in terminal.finish()[1]


def test_hostile_names_on_a_terminal(world: World) -> None:
    for arguments in (["list", "a.rzn"], ["list", "-l", "a.rzn"], ["list", "a.rzn", "x\x1b[31m"]):
        terminal = Terminal("archive", *arguments, "-i", "me.key", cwd=world.path)
        code, text = terminal.finish()
        assert code == (2 if "x\x1b[31m" in arguments else 0)
        assert "\x1b" not in text


# --- the unforeseen -----------------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
def test_unexpected_errors(debug: bool) -> None:
    code = """
import sys, rozenfmt
from rozenfmt.cli.main import run
def broken(*args, **kwargs):
    raise ZeroDivisionError("oh \\x1b no, rzi1" + "a" * 40)
rozenfmt.members = broken
sys.exit(run(["archive", "members", "x"] + sys.argv[1:]))
"""
    arguments = [sys.executable, "-c", code, *(["--debug"] if debug else [])]
    done = subprocess.run(arguments, capture_output=True, check=False, timeout=SECONDS)
    assert done.returncode == 1
    err = done.stderr.decode()
    assert ("Traceback" in err) is debug
    assert ("--debug" in err) is not debug
    assert "unexpected ZeroDivisionError" in err
    assert "\x1b" not in err
    assert "rzi1" not in err


def test_the_script_is_installed(world: World) -> None:
    script = Path(sys.executable).with_name("rozenfmt")
    if not script.exists():
        pytest.skip("rozenfmt is not installed as a script")
    done = subprocess.run([script, "--version"], capture_output=True, check=True, timeout=SECONDS)
    assert done.stdout.startswith(b"rozenfmt ")
