"""Refuses what an orchestrator does to the world while it runs, by the interpreter's audit events.

For tests and `durably dev`: production does not pay for it. Clocks and random numbers raise no audit event; replays
find those.
"""

from __future__ import annotations

import linecache
import sys
from asyncio import _get_running_loop  # pyright: ignore[reportPrivateUsage]  # the other one raises outside a loop
from types import FrameType
from typing import Any

from durably.core.commands import CallSite
from durably.core.errors import NotDurableError
from durably.core.loop import OrchestratorLoop
from durably.core.sites import frame_at
from durably.lint.project import EVERY_CODE, suppressed
from durably.lint.rules import FILES, NETWORK, PROCESSES, SLEEP, THREADS, Rule

_EVENTS: dict[Rule, str] = {
    FILES: "open os.listdir os.scandir os.mkdir os.remove os.rename os.rmdir os.link os.symlink os.truncate",
    NETWORK: "socket.connect socket.bind socket.getaddrinfo socket.gethostbyname socket.sendto urllib.Request "
    "sqlite3.connect",
    PROCESSES: "subprocess.Popen os.system os.posix_spawn os.fork os.forkpty os.exec os.spawn os.startfile os.kill",
    THREADS: "_thread.start_new_thread _thread.start_joinable_thread",  # Python 3.12
    SLEEP: "time.sleep",  # Python 3.13
}
_RULES = {event: rule for rule, events in _EVENTS.items() for event in events.split()}
# imports, tracebacks and finalizers; logs and debuggers, whose files are not the program's
_HARMLESS = frozenset({"importlib", "inspect", "linecache", "traceback", "warnings", "weakref"}) | frozenset(
    {"bdb", "coverage", "debugpy", "logging", "pdb", "pydevd", "_pydevd_bundle"}
)
_LIBRARY = sys.stdlib_module_names | {"durably", ""}
_LOOP = "durably.core.loop"  # beyond it there is who runs the orchestrator
_installed: list[bool] = []


def refuse_io() -> None:
    """From now on, in this process; an audit hook cannot be taken away."""
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_hook)


def _hook(
    event: str,
    arguments: tuple[Any, ...],
    # kept here, because the module's own names are gone while the interpreter shuts down
    rules: dict[str, Rule] = _RULES,
    running_loop: Any = _get_running_loop,
) -> None:
    rule = rules.get(event)
    if rule is None:
        return
    loop = running_loop()
    if loop is None or not isinstance(loop, OrchestratorLoop):
        return
    frame = _at_fault(frame_at(1))
    if frame is not None and not (event == "open" and "zoneinfo" in str(arguments[0])):
        codes = suppressed(linecache.getline(frame.f_code.co_filename, frame.f_lineno, frame.f_globals))
        if codes != EVERY_CODE and rule.code not in codes:
            raise NotDurableError(
                f"{event} at {CallSite(frame.f_code, frame.f_lineno)} {rule.problem}. {rule.remedy} "
                f"`# noqa: {rule.code}` lets the line through."
            )


def _at_fault(frame: FrameType | None) -> FrameType | None:
    """Where the program asked for it, in its own code rather than a library's; None if something harmless did."""
    found: FrameType | None = None
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        root = module.partition(".")[0]
        if root in _HARMLESS or (found is None and root == "durably"):
            return None
        if module == _LOOP:
            break
        if root not in _LIBRARY and (found is None or _is_installed(found)):
            found = frame
        frame = frame.f_back
    return found


def _is_installed(frame: FrameType) -> bool:
    return "site-packages" in frame.f_code.co_filename
