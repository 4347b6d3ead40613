"""Triggers of the cloud tests: one of each kind that the onboarding story has not."""

from __future__ import annotations

from durably import Context, on, orchestrator


@orchestrator
async def arrives(ctx: Context, what: str) -> str:
    """What it is given."""
    return what


@on.sns(topic="arrivals")
def announced(message: on.SnsMessage) -> on.Outcome:
    """By a message of a topic."""
    return on.start(arrives.options(execution_id="announced"), message.message)


@on.eventbridge(source="shop.*", detail_type="OrderPlaced")
def placed(event: on.EventBridgeEvent) -> on.Outcome:
    """By an event of a bus."""
    return on.start(arrives.options(execution_id=f"placed-{event.detail['order']}"), event.source)


@on.sqs(queue="arrivals-inbox")
def queued(message: on.SqsMessage) -> on.Outcome:
    """By a message of a queue."""
    return on.start(arrives.options(execution_id="queued"), message.body)


@on.schedule(rule="nightly")
def cleaned_up(tick: on.Tick) -> on.Outcome:
    """By an instant of a schedule."""
    return on.start(arrives.options(execution_id="cleaned-up"), tick.rule)
