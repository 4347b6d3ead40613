"""The commands that look at a file, or leave something in it for the runtime that serves it."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from durably.adapters.sqlite import SqliteBackend
from durably.adapters.system import SystemClock, SystemEntropy
from durably.api.orchestrator import StartOptions
from durably.api.registry import Registry
from durably.cli.arguments import DEFAULT_SOURCES, Options
from durably.cli.output import (
    event_row,
    print_description,
    print_json,
    print_table,
    record_row,
)
from durably.client import Client
from durably.codec.payloads import PydanticCodec
from durably.core.errors import (
    ClientError,
    ConfigurationError,
    ExecutionExistsError,
    ExecutionFailedError,
    PayloadError,
    ResultTimeoutError,
    StorageError,
    UnknownOrchestratorError,
)
from durably.ports.records import Record
from durably.runtime.start import existing_record
from durably.views import description_view, history_view, record_view, result_view

_TERMINATION_S = 1.0
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class _Opened:
    backend: SqliteBackend
    client: Client

    def record(self, execution_id: str) -> Record:
        return existing_record(self.backend, execution_id)


@contextmanager
def _opened(options: Options, registry: Registry | None = None) -> Generator[_Opened]:
    """The file, which must exist unless something is to be started in it."""
    if registry is None:
        if not Path(options.db).is_file():
            raise StorageError(
                f"There is no file {options.db}. Name the one that `durably dev` runs on with --db, or set DURABLY_DB."
            )
        registry = Registry(codec=PydanticCodec())
    clock = SystemClock()
    with SqliteBackend(options.db, clock=clock) as backend:
        yield _Opened(backend, Client(backend, registry, clock, SystemEntropy()))


def start(options: Options) -> int:
    """`durably start`."""
    from durably.embedded.discovery import discover  # the other commands do without

    sources = options.sources or [name for name in DEFAULT_SOURCES if Path(name).is_dir()]
    if not sources:
        raise ConfigurationError(
            "Where is the orchestrator defined? There is no orchestrators/ here. Name its file or folder with --from."
        )
    input_ = _input(options)
    registry = Registry(discover(sources).orchestrators, codec=PydanticCodec())
    if options.orchestrator not in registry.orchestrator_names:
        known = ", ".join(registry.orchestrator_names) or "none"
        raise UnknownOrchestratorError(
            f"No orchestrator in {', '.join(sources)} is named {options.orchestrator!r}; there are: {known}. "
            "Name the file or folder that defines it with --from."
        )
    with _opened(options, registry) as opened:
        asked_at_ms = SystemClock().now_ms()
        try:
            opened.client.start_by_name(
                options.execution_id,
                options.orchestrator,
                input_,
                StartOptions(id_reuse=options.id_reuse, request_id=options.request_id),
            )
        except ExecutionExistsError as error:
            taken = opened.record(options.execution_id)
            raise ExecutionExistsError(
                f"The id {taken.execution_id!r} is taken: {taken.orchestrator}, {taken.status}. Choose another id, or "
                "say what you mean with --id-reuse (allow_if_closed: start again; use_existing: take that one)."
            ) from error
        record = opened.record(options.execution_id)
        existed = record.started_at_ms < asked_at_ms
        said = f"{record.execution_id} exists already, {record.status}" if existed else f"started {record.execution_id}"
        if options.wait is not None:
            print(said, file=sys.stderr)
            return _print_result(options, _wait(options, opened))
        if options.json:
            print_json({**record_view(record), "existed": existed})
        else:
            print(said)
    return 0


def _input(options: Options) -> str:
    """The JSON object given, by parameter name."""
    text = "{}"
    if options.input is not None:
        text = options.input
    elif options.input_file is not None:
        try:
            from_stdin = options.input_file == "-"
            text = (sys.stdin.buffer.read() if from_stdin else Path(options.input_file).read_bytes()).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ClientError(f"The input cannot be read from {options.input_file}: {error}.") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"The input is not JSON: {error}. Quote it for the shell: --input '{{...}}'.") from error
    if not isinstance(value, dict):
        raise PayloadError(
            f"The input must be a JSON object by parameter name, such as "
            f'\'{{"name": "World"}}\', got {type(value).__name__}.'
        )
    return str(text)


def list_(options: Options) -> int:
    """`durably list`."""
    with _opened(options) as opened:
        found = opened.client.list(status=options.status, orchestrator=options.orchestrator)
        records = list(islice(found, options.limit + 1))
    shown, more = records[: options.limit], len(records) > options.limit
    if options.json:
        print_json([record_view(record) for record in shown])
        return 0
    if not shown:
        print("no executions", file=sys.stderr)
        return 0
    now = datetime.now(UTC)
    heads = ("ID", "ORCHESTRATOR", "STATUS", "STARTED", "TOOK")
    print_table(heads, (record_row(record, now) for record in shown))
    if more:
        print(f"... and more; --limit {options.limit * 10} shows them", file=sys.stderr)
    return 0


def show(options: Options) -> int:
    """`durably show`."""
    with _opened(options) as opened:
        described = opened.client.describe(options.execution_id)
        result = opened.record(options.execution_id).result
    if options.json:
        print_json({**description_view(described), "result": None if result is None else json.loads(result)})
    else:
        print_description(described, result, datetime.now(UTC))
    return 0


def history(options: Options) -> int:
    """`durably history`."""
    with _opened(options) as opened:
        entries = opened.client.history(options.execution_id)
    if options.json:
        print_json(history_view(entries))
    else:
        print_table(("#", "AT", "EVENT", "APPLIED", "ATTRIBUTES"), map(event_row, entries))
    return 0


def result(options: Options) -> int:
    """`durably result`."""
    with _opened(options) as opened:
        record = opened.record(options.execution_id)
        if options.wait is not None:
            record = _wait(options, opened)
        return _print_result(options, record)


def terminate(options: Options) -> int:
    """`durably terminate`."""
    with _opened(options) as opened:
        opened.client.terminate(options.execution_id, options.reason)
        deadline = time.monotonic() + _TERMINATION_S
        record = opened.record(options.execution_id)
        while not record.closed and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
            record = opened.record(options.execution_id)
    if options.json:
        print_json(record_view(record))
    elif record.closed:
        print(f"{record.execution_id} is {record.status}")
    else:
        print(f"{record.execution_id} will be terminated as soon as a runtime serves {options.db}")
    return 0


def _wait(options: Options, opened: _Opened) -> Record:
    """The record once the execution has ended."""
    try:
        seconds = None if options.wait == math.inf else options.wait
        opened.client.handle(options.execution_id).result(seconds)
    except ExecutionFailedError:
        pass  # told from the record
    except ResultTimeoutError as error:
        raise ResultTimeoutError(f"{error} Is `durably dev` running on {options.db}?") from error
    return opened.record(options.execution_id)


def _print_result(options: Options, record: Record) -> int:
    if options.json:
        print_json(result_view(record))
    elif record.result is not None:
        print_json(json.loads(record.result))
    if record.status == "completed":
        return 0
    if record.failure is not None and record.closed:
        raise ExecutionFailedError(record.execution_id, record.failure)
    raise ClientError(f"Execution {record.execution_id} is {record.status}. Wait for its end with --wait.")


COMMANDS: dict[str, Callable[[Options], int]] = {
    "start": start,
    "list": list_,
    "show": show,
    "history": history,
    "result": result,
    "terminate": terminate,
}
