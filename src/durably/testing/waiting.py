"""What the executions of an environment wait for, once nothing is due any more."""

from __future__ import annotations

from collections.abc import Iterator

from durably.client import Client
from durably.descriptions import Description, PendingActivity


def what_is_waited_for(client: Client) -> str:
    """The message of the error that says so."""
    waiting = [client.describe(record.execution_id) for record in client.list(status="running")]
    lines = "\n".join(line for description in reversed(waiting) for line in _lines(description))
    return f"Nothing is due any more, and nothing will be. Still waiting:\n{lines}"


def _lines(description: Description) -> Iterator[str]:
    yield f"  {description.execution_id} ({description.orchestrator}), started {description.started_at}"
    for activity in description.activities:
        yield f"    for {activity.name}, attempt {activity.attempt}, called at {activity.call_site}{_remedy(activity)}"
    if not description.activities and not description.timers:
        yield "    for something that only its own code could bring (an Event, a Queue, a Future)"


def _remedy(activity: PendingActivity) -> str:
    if activity.state != "open":
        return ""
    return f": its callback is open. Complete it, env.callback({activity.name}).complete(...), or give it a timeout"
