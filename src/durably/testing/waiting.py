"""What the executions of an environment wait for, once nothing is due any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from durably.client import Client
from durably.core.events import SignalReceived
from durably.core.execution import Execution
from durably.core.replay import replay
from durably.descriptions import Description, PendingActivity
from durably.ports.records import Record
from durably.runtime.runtime import Runtime


def what_is_waited_for(client: Client, runtime: Runtime) -> str:
    """The message of the error that says so."""
    waiting = [record for record in client.list() if not record.closed]
    lines = "\n".join(line for record in reversed(waiting) for line in _lines(client, runtime, record))
    return f"Nothing is due any more, and nothing will be. Still waiting:\n{lines}"


def _lines(client: Client, runtime: Runtime, record: Record) -> Iterator[str]:
    description = client.describe(record.execution_id)
    yield f"  {description.execution_id} ({description.orchestrator}), started {description.started_at}"
    if description.status == "suspended":
        yield f"    suspended: it goes on after env.client.resume({description.execution_id!r})"
        return
    awaited, unread = _signals(runtime, record)
    found = list(_waits(description, awaited))
    yield from found or ["    for something that only its own code could bring (an Event, a Queue, a Future)"]
    for name in unread:
        yield f"    the signal {name!r} was sent to it, and it has not received it"


def _waits(description: Description, signals: list[str]) -> Iterator[str]:
    for activity in description.activities:
        yield f"    for {activity.name}, attempt {activity.attempt}, called at {activity.call_site}{_remedy(activity)}"
    for child in description.children:
        yield f"    for its child {child.execution_id} ({child.orchestrator}), called at {child.call_site}"
    for name in signals:
        yield f"    for the signal {name!r}. Send it, env.signal({description.execution_id!r}, ...)"


def _signals(runtime: Runtime, record: Record) -> tuple[list[str], list[str]]:
    """Names of those that are awaited, and of those that nobody has received."""
    program = runtime.registry.program(record.orchestrator)
    if program is None:
        return [], []
    with closing(Execution(record.key, program, runtime.registry.codec)) as execution:
        replay(execution, runtime.backend.load_turns(record.key))
        inbox = execution.inbox
        return inbox.awaited, [each.name for each in inbox.carried if isinstance(each, SignalReceived)]


def _remedy(activity: PendingActivity) -> str:
    if activity.state != "open":
        return ""
    return f": its callback is open. Complete it, env.callback({activity.name}).complete(...), or give it a timeout"
