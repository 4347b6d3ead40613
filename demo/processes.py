"""Child processes that never outlive the demo: ended with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[1]
START_WITHIN_S = 30.0
STOP_WITHIN_S = 10.0


class ChildFailedError(Exception):
    """A process of the demo did not start, or ended by itself."""


class Child:
    """A Python module in a process of its own, which prints its URL when it is ready.

    It has its own session, so that Ctrl-C reaches the demo only, and ends when its standard input does: a demo that
    is killed closes that too.

    Args:
        module: dotted name.
        arguments: its command line.
        environment: its environment; by default that of this process.
        inherited: file descriptors that it takes over.

    Attributes:
        url: what it printed.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: dict[str, str] | None = None,
        *,
        inherited: Sequence[int] = (),
    ) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=inherited,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        too_long = threading.Timer(START_WITHIN_S, self._process.kill)
        too_long.start()
        try:
            self.url = self._process.stdout.readline().strip()
        except BaseException:  # Ctrl-C, most likely
            self.kill()
            raise
        finally:
            too_long.cancel()
        if not self.url:
            self.kill()
            raise ChildFailedError(f"{module} did not start (exit code {self._process.returncode}); see above")

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def check(self) -> None:
        """Make sure that it is alive.

        Raises:
            ChildFailedError: it ended.
        """
        code = self._process.poll()
        if code is not None:
            raise ChildFailedError(f"{self._module} ended by itself (exit code {code}); see above")

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._close()

    def stop(self) -> None:
        """SIGTERM; SIGKILL if that does not help. Idempotent."""
        self._process.terminate()
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def without_proxy() -> dict[str, str]:
    """Environment variables that keep requests among our own processes away from a proxy."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    hosts = ",".join(filter(None, [given, "127.0.0.1"]))
    return {"no_proxy": hosts, "NO_PROXY": hosts}


def end_with_parent() -> None:
    """In a child: end, as by SIGTERM, when the parent closes our standard input or dies."""
    threading.Thread(target=_wait_for_the_end, name="end-with-parent", daemon=True).start()


def _wait_for_the_end() -> None:
    while os.read(0, 1):  # not sys.stdin: its lock, held here, would disturb the interpreter's shutdown
        pass
    os.kill(os.getpid(), signal.SIGTERM)
