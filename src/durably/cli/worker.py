"""The process of `durably dev` that imports the user's code and runs it."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import threading
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from durably.api.registry import Registry
from durably.cli.arguments import DATABASE, DEFAULT_DATABASE, Options
from durably.cli.dev import IMPORTED, SUPERVISOR, UNUSABLE_CODE, say
from durably.cli.examples import example_input
from durably.codec.payloads import PydanticCodec
from durably.core.errors import DefinitionError
from durably.embedded import discovery
from durably.embedded.discovery import Definitions, ImportFailedError, discover, imported_files
from durably.embedded.service import Embedded
from durably.testing.guard import refuse_io

_POLL_S = 0.5


def work(options: Options) -> int:
    """Run until told to end."""
    _log(options.log_level)
    # a file edited twice within a second would otherwise be taken from its compiled form
    sys.dont_write_bytecode = True
    refuse_io()
    try:
        found = discover(options.paths)
        if not found.orchestrators and not found.activities:
            raise DefinitionError(
                f"There is no @orchestrator and no @activity at the top level of any module in "
                f"{', '.join(options.paths)}."
            )
        runtime = Embedded(
            options.db,
            orchestrators=found.orchestrators,
            activities=found.activities,
            http=(options.host, options.port),
            callback_url=options.callback_url,
        )
    except DefinitionError as error:
        _print_unusable(error)
        return UNUSABLE_CODE
    finally:
        _tell_supervisor()
    told_to_end = _told_to_end()
    runtime.start()
    _introduce(runtime, found, options)
    supervisor = os.environ.get(SUPERVISOR)
    while not told_to_end.wait(_POLL_S):
        if supervisor is not None and str(os.getppid()) != supervisor:
            say("the supervisor is gone, ending")
            break
    runtime.stop(options.grace)
    return 0


def _told_to_end() -> threading.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once, which loses nothing either."""
    told = threading.Event()

    def end(*_: object) -> None:
        if told.is_set():
            os._exit(130)
        told.set()
        say("finishing what runs")

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    return told


def _tell_supervisor() -> None:
    file = os.environ.get(IMPORTED)
    if file is None:
        return
    whole = Path(f"{file}.new")
    whole.write_text("".join(f"{path}\n" for path in imported_files()), encoding="utf-8")
    whole.replace(file)


# --- what is printed -----------------------------------------------------------------------------------------


def _introduce(runtime: Embedded, found: Definitions, options: Options) -> None:
    print(f"durably serves {options.db}; callbacks arrive at {runtime.url}")
    for kind, names in (
        ("orchestrators", [definition.name for definition in found.orchestrators]),
        ("activities", [definition.name for definition in found.activities]),
    ):
        print(f"  {kind:<14} {', '.join(sorted(names)) or 'none'}")
    if found.orchestrators:
        print(f"  {'try':<14} {_example(found, options)}")
    sys.stdout.flush()


def _example(found: Definitions, options: Options) -> str:
    """A command that starts something, as it can be typed in the same directory."""
    chosen = found.orchestrators[0]
    registry = Registry(found.orchestrators, codec=PydanticCodec())
    text = example_input(chosen, registry.input_shape(chosen.name))
    command = ["durably", "start", chosen.name, f"{chosen.name}-1"]
    command += ["--input", text or "{...}"] if text != "{}" else []
    if {Path(path) for path in options.paths} - {Path("orchestrators"), Path("activities")}:
        for path in options.paths:
            command += ["--from", path]
    if options.db != (os.environ.get(DATABASE) or DEFAULT_DATABASE):
        command += ["--db", options.db]
    return shlex.join([*command, "--wait"])


def _print_unusable(error: DefinitionError) -> None:
    cause = error.__cause__
    if isinstance(error, ImportFailedError) and cause is not None:
        trace = _without_ours(cause.__traceback__)
        lines = traceback.TracebackException(type(cause), cause, trace).format()
        print("".join(lines), end="", file=sys.stderr)
    say(str(error))


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the user's file on."""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name != discovery.__file__ and "importlib" not in name:
            return trace
        trace = trace.tb_next
    return None


class _Lines(logging.Formatter):
    """One line a record, then its traceback: time, level, logger, message, execution."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(" ", "milliseconds")[11:23]
        execution_id = getattr(record, "execution_id", None)
        who = record.name if execution_id is None else f"{record.name} [{execution_id}]"
        text = f"{at} {record.levelname:<7} {who}: {record.getMessage()}"
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return f"{text}\n{self.formatStack(record.stack_info)}" if record.stack_info else text


def _log(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logging.basicConfig(level=level.upper(), handlers=[handler])
