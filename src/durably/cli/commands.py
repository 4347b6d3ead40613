"""The commands that start executions and look at them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from durably.adapters.system import SystemClock
from durably.api.orchestrator import StartOptions
from durably.cli.arguments import Options
from durably.cli.opening import Opened, opened, registry_of, sources_of
from durably.cli.operations import OPERATIONS
from durably.cli.output import (
    event_row,
    print_description,
    print_json,
    print_table,
    record_row,
)
from durably.cli.stores import is_anybody_there
from durably.core.errors import (
    ClientError,
    ExecutionExistsError,
    ExecutionFailedError,
    PayloadError,
    ResultTimeoutError,
    UnknownOrchestratorError,
)
from durably.ports.records import Record
from durably.views import description_view, history_view, record_view, result_view


def start(options: Options) -> int:
    """`durably start`."""
    input_ = _input(options)
    sources = sources_of(options)
    registry = registry_of(sources)
    if options.orchestrator not in registry.orchestrator_names:
        known = ", ".join(registry.orchestrator_names) or "none"
        raise UnknownOrchestratorError(
            f"No orchestrator in {', '.join(sources)} is named {options.orchestrator!r}; there are: {known}. "
            "Name the file or folder that defines it with --from."
        )
    with opened(options, registry, create=True) as file:
        asked_at_ms = SystemClock().now_ms()
        try:
            file.client.start_by_name(
                options.execution_id,
                options.orchestrator,
                input_,
                StartOptions(id_reuse=options.id_reuse, request_id=options.request_id, pinned=options.pinned),
            )
        except ExecutionExistsError as error:
            taken = file.record(options.execution_id)
            raise ExecutionExistsError(
                f"The id {taken.execution_id!r} is taken: {taken.orchestrator}, {taken.status}. Choose another id, or "
                "say what you mean with --id-reuse (allow_if_closed: start again; use_existing: take that one)."
            ) from error
        record = file.record(options.execution_id)
        existed = record.started_at_ms < asked_at_ms
        said = f"{record.execution_id} exists already, {record.status}" if existed else f"started {record.execution_id}"
        if options.wait is not None:
            print(said, file=sys.stderr)
            return _print_result(options, _wait(options, file))
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
    with opened(options) as file:
        found = file.client.list(status=options.status, orchestrator=options.orchestrator)
        records = list(islice(found, options.limit + 1))
    shown, more = records[: options.limit], len(records) > options.limit
    if options.json:
        print_json([record_view(record) for record in shown])
        return 0
    if not shown:
        print("no executions", file=sys.stderr)
        return 0
    now = datetime.now(UTC)
    heads = ("ID", "ORCHESTRATOR", "STATUS", "STARTED", "TOOK", "CUSTOM STATUS")
    print_table(heads, (record_row(record, now) for record in shown))
    if more:
        print(f"... and more; --limit {options.limit * 10} shows them", file=sys.stderr)
    return 0


def show(options: Options) -> int:
    """`durably show`."""
    with opened(options) as file:
        described = file.client.describe(options.execution_id)
        result = file.record(options.execution_id).result
    if options.json:
        print_json({**description_view(described), "result": None if result is None else json.loads(result)})
    else:
        print_description(described, result, datetime.now(UTC))
    return 0


def history(options: Options) -> int:
    """`durably history`."""
    with opened(options) as file:
        entries = file.client.history(options.execution_id)
    if options.json:
        print_json(history_view(entries))
    else:
        print_table(("#", "AT", "EVENT", "APPLIED", "ATTRIBUTES"), map(event_row, entries))
    return 0


def result(options: Options) -> int:
    """`durably result`."""
    with opened(options) as file:
        record = file.record(options.execution_id)
        if options.wait is not None:
            record = _wait(options, file)
        return _print_result(options, record)


def _wait(options: Options, file: Opened) -> Record:
    """The record once the execution has ended."""
    try:
        seconds = None if options.wait == math.inf else options.wait
        file.client.handle(options.execution_id).result(seconds)
    except ExecutionFailedError:
        pass  # told from the record
    except ResultTimeoutError as error:
        raise ResultTimeoutError(f"{error} {is_anybody_there(options)}") from error
    return file.record(options.execution_id)


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
    **OPERATIONS,
}
