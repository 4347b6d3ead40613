"""`durably dev`: a supervisor that restarts a worker process whenever the worker's code changes.

The supervisor imports no user code, so none can hang or end it. Worker and supervisor share exit codes, and a file in
which the worker says what it imported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from durably.cli.arguments import DEFAULT_SOURCES, Options
from durably.core.errors import ConfigurationError

SUPERVISOR = "DURABLY_SUPERVISOR"  # in the worker's environment: the supervisor's process id
IMPORTED = "DURABLY_IMPORTED"  # the file for what the worker imported
UNUSABLE_CODE = 3  # a worker's exit code: nothing runs before a file changes

_POLL_S = 0.3
_SETTLE_S = 0.1
_CRASH_PAUSE_S = 1.0
_SLOW_S = 5.0

Stamps = dict[Path, tuple[int, int]]


def dev(options: Options) -> int:
    """`durably dev`."""
    options.paths = options.paths or [name for name in DEFAULT_SOURCES if Path(name).is_dir()]
    if not options.paths:
        raise ConfigurationError(
            "What is to run? There is no orchestrators/ and no activities/ here. Name folders or .py files: "
            "durably dev hello.py"
        )
    if not options.reload or SUPERVISOR in os.environ:
        from durably.cli.worker import work

        return work(options)
    for path in options.paths:
        if not Path(path).exists():
            raise ConfigurationError(f"{path} does not exist. Name folders or .py files with your definitions.")
    with tempfile.TemporaryDirectory(prefix="durably-dev-") as directory:
        imported = Path(directory) / "imported"
        supervisor = _Supervisor(_worker_command(options), Watch(options.paths, imported), imported, options.grace)
        for number in _ENDING_SIGNALS:
            signal.signal(number, supervisor.end)
        return supervisor.run()


_ENDING_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]


class Watch:
    """The Python files under the paths given, and those that the worker imported from elsewhere.

    Args:
        paths: folders and files.
        imported: the file in which the worker lists the others, one a line.
    """

    def __init__(self, paths: Iterable[str], imported: Path) -> None:
        self._paths = list(paths)
        self._imported = imported
        self._seen: Stamps = {}

    def begin(self) -> None:
        """From now on, what differs from now has changed."""
        self._imported.unlink(missing_ok=True)
        self._seen = self._stamps(self._given())

    def changed(self) -> list[Path]:
        """The files that were written, made or removed since `begin`."""
        stamps = self._stamps({*self._given(), *self._elsewhere()})
        for path in self._elsewhere():
            if path in stamps:
                self._seen.setdefault(path, stamps[path])
        return sorted(path for path in {*stamps, *self._seen} if stamps.get(path) != self._seen.get(path))

    def settle(self) -> None:
        """Wait until nothing has changed for a moment: editors and version control write many files."""
        before: Stamps | None = None
        while (now := self._stamps(self._given())) != before:
            before = now
            time.sleep(_SETTLE_S)

    def _given(self) -> set[Path]:
        from durably.embedded.discovery import python_files

        files: set[Path] = set()
        for path in self._paths:
            with contextlib.suppress(ConfigurationError, OSError):  # it may be gone for a moment
                files.update(python_files(path))
        return files

    def _elsewhere(self) -> set[Path]:
        with contextlib.suppress(OSError):
            return {Path(line) for line in self._imported.read_text(encoding="utf-8").splitlines()}
        return set()

    @staticmethod
    def _stamps(files: Iterable[Path]) -> Stamps:
        stamps: Stamps = {}
        for path in files:
            with contextlib.suppress(OSError):
                found = path.stat()
                stamps[path] = (found.st_mtime_ns, found.st_size)
        return stamps


class _Supervisor:
    def __init__(self, command: list[str], watch: Watch, imported: Path, grace_s: float) -> None:
        self._command = command
        self._watch = watch
        self._environment = {
            **os.environ,
            SUPERVISOR: str(os.getpid()),
            IMPORTED: str(imported),
            "PYTHONUNBUFFERED": "1",
        }
        self._kill_after_s = grace_s + _SLOW_S
        self._worker: subprocess.Popen[bytes] | None = None
        self._signals = 0

    def run(self) -> int:
        """Until told to end. The exit code."""
        first = True
        while not self._ending():
            self._watch.begin()
            self._worker = self._spawn()
            if self._ending():  # while it was started
                self._signal_worker()
            code = self._attend(self._worker)
            if self._ending():
                break
            if code is None:  # ended for a reload
                continue
            if code == 0 or (first and code == 1):
                return code
            first = False
            if code in (1, UNUSABLE_CODE):
                say("waiting for a change")
                self._await_change()
            else:
                say(f"the worker {_how(code)}; starting another one, which resumes what it left")
                time.sleep(_CRASH_PAUSE_S)
        return 0 if self._signals < 2 else 130

    def end(self, *_: object) -> None:
        """A signal came. The first one asks the worker to finish, the second one does not wait for it."""
        self._signals += 1
        self._signal_worker()

    def _ending(self) -> bool:
        return self._signals > 0

    def _spawn(self) -> subprocess.Popen[bytes]:
        # a group of its own: Ctrl-C in a terminal signals this process, which alone tells the worker
        return subprocess.Popen(self._command, env=self._environment, process_group=0 if os.name == "posix" else None)

    def _signal_worker(self) -> None:
        worker = self._worker
        if worker is not None and worker.poll() is None:
            if self._signals > 1:
                worker.kill()
            else:
                worker.terminate()

    def _attend(self, worker: subprocess.Popen[bytes]) -> int | None:
        """Wait for the worker's end; its exit code, None if it was ended because code changed."""
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return worker.wait(_POLL_S)
            changed = [] if self._ending() else self._watch.changed()
            if changed:
                self._reload(worker, changed)
                return None

    def _reload(self, worker: subprocess.Popen[bytes], changed: list[Path]) -> None:
        say(f"{_named(changed)} changed, reloading")
        self._watch.settle()
        worker.terminate()
        try:
            worker.wait(self._kill_after_s)
        except subprocess.TimeoutExpired:
            say("the worker does not end; it is killed, and what it ran will run again")
            worker.kill()
            worker.wait()

    def _await_change(self) -> None:
        while not self._ending():
            time.sleep(_POLL_S)
            changed = self._watch.changed()
            if changed:
                say(f"{_named(changed)} changed, trying again")
                self._watch.settle()
                return


def say(text: str) -> None:
    """A line about the process itself, on standard error like the logs."""
    print(f"durably: {text}", file=sys.stderr, flush=True)


def _worker_command(options: Options) -> list[str]:
    # -P: the folder it is started in must not hide the standard library's modules
    command = [sys.executable, "-P", "-m", "durably.cli", "dev", "--no-reload", "--db", options.db]
    command += ["--host", options.host, "--port", str(options.port or _free_port(options.host))]
    command += ["--grace", str(options.grace), "--log-level", options.log_level]
    if options.callback_url is not None:
        command += ["--callback-url", options.callback_url]
    return [*command, "--", *options.paths]


def _free_port(host: str) -> int:
    """A port to keep across reloads."""
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise ConfigurationError(f"No port can be opened on {host}: {error}. Choose another --host.") from error
        port: int = probe.getsockname()[1]
        return port


def _named(files: list[Path]) -> str:
    name = str(files[0])
    with contextlib.suppress(ValueError):
        name = str(files[0].relative_to(Path.cwd()))
    return name if len(files) == 1 else f"{name} and {len(files) - 1} more"


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
