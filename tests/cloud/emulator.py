"""ministack as a process of its own, and everything it started ended with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]
MINISTACK = ROOT / ".venv-cloud" / "bin" / "ministack"
REGION = "us-east-1"
LOOPBACK = "127.0.0.1"
MEMORY = Path("/dev/shm")  # Linux only
ENOUGH_BYTES = 4 * 1024**3
START_WITHIN_S = 60.0
STOP_WITHIN_S = 10.0

# ministack takes this key for the account's root, whom it allows everything.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}


class EmulatorError(Exception):
    """The emulator did not start."""


def surroundings() -> dict[str, str]:
    """The environment of child processes: this one's, without its AWS account and its Python."""
    aside = ("AWS_", "DURABLY_", "PYTHON", "PYTEST")
    return {name: value for name, value in os.environ.items() if not name.startswith(aside)}


def free_port(host: str = LOOPBACK) -> int:
    """A port of an address of this machine that nobody holds now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Emulator:
    """A small AWS that checks every call against IAM and records it.

    Attributes:
        url: of all its services.
        log: what it and its Lambda functions wrote.
    """

    def __init__(self, directory: Path, port: int | None = None, host: str = LOOPBACK) -> None:
        if not MINISTACK.exists():
            raise EmulatorError(f"There is no {MINISTACK}. `make cloud-test` and `make cloud` install it.")
        self.port = port or free_port(host)
        self.url = f"http://{host}:{self.port}"
        self.log = directory / "ministack.log"
        # it unpacks and removes thousands of files while others wait for it: in memory, where there is enough
        memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES
        self._unpacked = tempfile.TemporaryDirectory(prefix="ministack-", dir=MEMORY if memory else directory)
        temporary = self._unpacked.name
        environment = surroundings() | CREDENTIALS
        environment |= {
            "AUTH": "true",  # check IAM policies, of roles too
            "CLOUDTRAIL_RECORDING": "1",
            "CLOUDTRAIL_MAX_EVENTS": "1000000",
            "BIND_HOST": host,
            "GATEWAY_PORT": str(self.port),
            "TMPDIR": temporary,
        }
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [MINISTACK], cwd=temporary, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    @property
    def running(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.poll() is None

    def functions(self, name: str) -> list[int]:
        """Process ids of the execution environments of a Lambda function."""
        found: list[int] = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                variables = (directory / "environ").read_bytes().split(b"\0")
                session = os.getsid(int(directory.name))
            except (OSError, ValueError):
                continue
            if session == self._process.pid and f"AWS_LAMBDA_FUNCTION_NAME={name}".encode() in variables:
                found.append(int(directory.name))
        return found

    def stop(self) -> None:
        """End it and all functions. Idempotent."""
        for end in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, end)
                self._process.wait(STOP_WITHIN_S)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self._unpacked.cleanup()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline and self.running:
            try:
                with urlopen(f"{self.url}/_ministack/health", timeout=5):
                    return
            except (URLError, OSError):
                time.sleep(0.1)
        raise EmulatorError(f"ministack did not answer at {self.url}; its log:\n{self.log.read_text()[-2000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
