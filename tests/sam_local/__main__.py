"""`make sam-local`: every function with its events, and a callback, through `sam local`. Needs Debian or one of its
kind, and root; prepares the rest itself, and removes it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from tests.cloud.deployment import Deployment, DeploymentError
from tests.cloud.emulator import LOOPBACK, ROOT, Emulator, EmulatorError, free_port
from tests.cloud.stack import Stack
from tests.cloud.transmit import TransmitService
from tests.sam_local.expected import EVENTS, Check, gaps
from tests.sam_local.image import ARCHITECTURE, file_system, image
from tests.sam_local.local import SamLocal
from tests.sam_local.machine import Engine, MachineError, engine, say
from tests.sam_local.story import Story

WITHIN_S = 1800


class Report:
    """A line for each thing tried."""

    def __init__(self) -> None:
        self.tried = 0
        self.failed = 0

    def note(self, name: str, attempt: Callable[[], str]) -> None:
        """Try it, whatever happened to the others."""
        began = time.monotonic()
        self.tried += 1
        try:
            mark, told = "ok", attempt()
        except Exception as error:  # reported; the next one may well work
            self.failed += 1
            mark, told = "FAILED", "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
        print(f"{mark:7} {name:20} {time.monotonic() - began:6.1f} s  {told}", flush=True)


class SamLocalStack(Deployment):
    """Built for containers; nothing in the small cloud takes its messages away."""

    platform = ARCHITECTURE

    def bring_up(self) -> None:
        super().bring_up()
        functions = self.client("lambda")
        for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
            functions.delete_event_source_mapping(UUID=mapping["UUID"])


def main() -> int:
    """Prepare, try everything, tell."""
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        say(
            "make sam-local: needs root on Debian or one of its kind: it starts a container engine, and makes an image."
        )
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(WITHIN_S)
    began = time.monotonic()
    report = Report()
    try:
        with ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="durably-sam-local-")))
            running = stack.enter_context(engine())
            _try_all(stack, running, work, report)
    except KeyboardInterrupt:
        return 130
    except (DeploymentError, EmulatorError, MachineError) as error:
        say(f"make sam-local: {error}")
        return 1
    passed, seconds = report.tried - report.failed, time.monotonic() - began
    print(f"sam-local: {passed} of {report.tried} passed, {report.failed} failed, in {seconds:.0f} s")
    return 1 if report.failed else 0


def _try_all(stack: ExitStack, running: Engine, work: Path, report: Report) -> None:
    files = file_system()
    say(f"{'an engine of its own' if running.ours else 'the engine that runs here'}; {files.image} ...")
    stack.enter_context(image(running, files))
    say("a small cloud; sam build, sam deploy ...")
    emulator = stack.enter_context(Emulator(work, host=running.gateway))
    service = stack.enter_context(TransmitService(running.gateway))
    port = free_port()
    parameters = {"Runtime": files.runtime, "RoutingServiceUrl": service.url}
    parameters["CallbackUrl"] = f"http://{LOOPBACK}:{port}"
    deployment = SamLocalStack(emulator, ROOT, "local", work, **parameters)
    deployment.bring_up()
    local = SamLocal(deployment, running, port)
    untried = gaps(local.functions)
    if untried:
        raise MachineError(f"tests/sam_local/expected.py, template.yaml and events/ differ: {untried}")
    for function, events in EVENTS.items():
        report.note(function, partial(_invoke, local, function, events))
    report.note("start-api, callback", Story(Stack(deployment), local, service).tell)


def _invoke(local: SamLocal, function: str, events: dict[str, Check]) -> str:
    for name, check in events.items():
        answer: Any = local.invoke(function, json.loads((ROOT / "events" / f"{name}.json").read_text()))
        if not check(answer):
            raise MachineError(f"events/{name}.json was answered with {answer}")
    return ", ".join(events)


def _give_up(*_: object) -> NoReturn:
    sys.exit(f"make sam-local: took more than {WITHIN_S} s")


if __name__ == "__main__":
    sys.exit(main())
