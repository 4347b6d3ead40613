"""The commands that tell an execution something, ask it, or steer it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice

from durably.adapters.system import SystemClock, SystemEntropy
from durably.api.registry import Registry
from durably.cli.arguments import Options
from durably.cli.opening import Opened, opened, registry_of, sources_of
from durably.cli.output import moment, print_json
from durably.cli.stores import is_anybody_there, who_comes
from durably.core.context import instant
from durably.core.errors import ClientError, PayloadError, ResultTimeoutError, UpdateFailedError, UpdateRejectedError
from durably.ports.records import Record
from durably.views import record_view, update_view

_PATIENCE_S = 1.0
_PAUSE_S = 0.02


def signal(options: Options) -> int:
    """`durably signal`."""
    id_, request_id = options.execution_id, _request_id(options)
    with opened(options) as file:
        file.client.signal_by_name(id_, options.name, _payload(options), request_id=request_id)
    if options.json:
        print_json({"execution_id": id_, "signal": options.name, "request_id": request_id})
    else:
        print(f"sent {options.name} to {id_}")
    return 0


def query(options: Options) -> int:
    """`durably query`."""
    with opened(options, registry_of(sources_of(options))) as file:
        print_json(json.loads(file.client.query_by_name(options.execution_id, options.name)))
    return 0


def update(options: Options) -> int:
    """`durably update`."""
    id_, request_id = options.execution_id, _request_id(options)
    with opened(options) as file:
        try:
            reply = file.client.update_by_name(
                id_, options.name, _payload(options), request_id=request_id, timeout=options.timeout
            )
        except ResultTimeoutError as error:
            raise ResultTimeoutError(
                f"{error} {is_anybody_there(options)} Ask for the reply again with --request-id {request_id}."
            ) from error
        except (UpdateRejectedError, UpdateFailedError) as error:
            if options.json:
                print_json(update_view(id_, request_id, refusal=error))
            raise
    result = json.loads(reply)
    print_json(update_view(id_, request_id, result=result) if options.json else result)
    return 0


def cancel(options: Options) -> int:
    """`durably cancel`."""
    with opened(options) as file:
        file.client.cancel(options.execution_id, options.reason)
        record = _once(file, options, lambda record: record.closed)
    return _say(options, record, done=record.closed, otherwise="is asked to cancel itself")


def suspend(options: Options) -> int:
    """`durably suspend`."""
    with opened(options) as file:
        file.client.suspend(options.execution_id, options.reason, request_id=options.request_id)
        record = _once(file, options, lambda record: record.closed or record.status == "suspended")
    return _say(options, record, done=record.status == "suspended", otherwise=_later(options, "suspended"))


def resume(options: Options) -> int:
    """`durably resume`."""
    with opened(options) as file:
        file.client.resume(options.execution_id, options.reason, request_id=options.request_id)
        record = _once(file, options, lambda record: record.status != "suspended")
    return _say(options, record, done=record.status != "suspended", otherwise=_later(options, "resumed"))


def terminate(options: Options) -> int:
    """`durably terminate`."""
    with opened(options) as file:
        file.client.terminate(options.execution_id, options.reason)
        record = _once(file, options, lambda record: record.closed)
    return _say(options, record, done=record.closed, otherwise=_later(options, "terminated"))


def retry(options: Options) -> int:
    """`durably retry`."""
    with opened(options) as file:
        run = file.client.retry(options.execution_id, options.reason, request_id=options.request_id)
        record = file.record(options.execution_id)
    return _say(options, record, done=False, otherwise=f"goes on in run {run}")


def reset(options: Options) -> int:
    """`durably reset`."""
    with opened(options, _registry_for_input(options)) as file:
        run = file.client.reset(
            options.execution_id,
            options.to_event,
            options.reason,
            input_=options.input,
            request_id=options.request_id,
        )
        record = file.record(options.execution_id)
    return _say(options, record, done=False, otherwise=f"goes on in run {run}, from event {options.to_event}")


def fork(options: Options) -> int:
    """`durably fork`."""
    with opened(options, _registry_for_input(options)) as file:
        file.client.fork(
            options.execution_id,
            options.new_id,
            to_event=options.to_event,
            input_=options.input,
            request_id=options.request_id,
        )
        record = file.record(options.new_id)
    return _say(options, record, done=False, otherwise=f"started from {options.execution_id}, event {options.to_event}")


def _registry_for_input(options: Options) -> Registry | None:
    """What reads another input; without one nobody has to have the code."""
    return None if options.input is None else registry_of(sources_of(options))


def purge(options: Options) -> int:
    """`durably purge`."""
    with opened(options) as file:
        if options.execution_id is not None:
            return _say_purged(options, iter((_purge_one(options, file),)))
        found = file.client.purge_closed(
            closed_before=options.closed_before,
            status=options.status,
            orchestrator=options.orchestrator,
            dry_run=not options.yes,
        )
        return _say_purged(options, found)


def _purge_one(options: Options, file: Opened) -> Record:
    if options.status is not None or options.orchestrator is not None:
        raise ClientError("--status and --orchestrator choose among many, with --closed-before. Leave them out.")
    record = file.backend.read_record(options.execution_id)
    file.client.purge(options.execution_id, dry_run=not options.yes)
    assert record is not None
    return record


def _say_purged(options: Options, found: Iterator[Record]) -> int:
    """List what goes while it goes, at most `--limit`."""
    records: list[Record] = []
    for record in islice(found, options.limit):
        records.append(record)
        if not options.json:
            print(f"{'purged' if options.yes else 'would purge'} {record.execution_id}  {_end_of(record)}")
    if options.json:
        print_json({"purged": options.yes, "executions": [record_view(record) for record in records]})
    if len(records) == options.limit and options.execution_id is None:
        print(f"that is the --limit of {options.limit}; there may be more", file=sys.stderr)
    if not records:
        print("there is nothing to purge", file=sys.stderr)
    elif not options.yes:
        print("nothing is deleted yet: --yes does it", file=sys.stderr)
    return 0


def _end_of(record: Record) -> str:
    ended = "" if record.closed_at_ms is None else f" {moment(instant(record.closed_at_ms))}"
    return f"{record.orchestrator}, {record.status}{ended}"


def _payload(options: Options) -> str:
    text: str = options.payload
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(
            f"The payload is not JSON: {error}. Quote it for the shell, a text as '\"text\"'."
        ) from error
    return text


def _request_id(options: Options) -> str:
    given: str | None = options.request_id
    return given or SystemEntropy().ulid(SystemClock().now_ms())


def _once(file: Opened, options: Options, done: Callable[[Record], bool]) -> Record:
    """The record as soon as that holds, or a second later."""
    deadline = time.monotonic() + _PATIENCE_S
    record = file.record(options.execution_id)
    while not done(record) and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
        record = file.record(options.execution_id)
    return record


def _later(options: Options, what: str) -> str:
    known = "" if getattr(options, "request_id", None) is None else ", unless it was under this request id before"
    return f"will be {what} as soon as {who_comes(options)}{known}"


def _say(options: Options, record: Record, *, done: bool, otherwise: str) -> int:
    if options.json:
        print_json(record_view(record))
    else:
        print(f"{record.execution_id} is {record.status}" if done else f"{record.execution_id} {otherwise}")
    return 0


OPERATIONS: dict[str, Callable[[Options], int]] = {
    "signal": signal,
    "query": query,
    "update": update,
    "cancel": cancel,
    "suspend": suspend,
    "resume": resume,
    "terminate": terminate,
    "retry": retry,
    "reset": reset,
    "fork": fork,
    "purge": purge,
}
