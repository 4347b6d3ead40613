"""Orchestrators of the cloud tests that triggers start, one of each kind that the onboarding story has not. What they say
with `set_status` is listed; their ids hold slashes, for which the small AWS has no paths.
"""

from __future__ import annotations

from durably import Context, on, orchestrator


@on.sns(topic="arrivals")
@orchestrator
async def is_announced(ctx: Context, message: on.SnsMessage) -> None:
    """By a message of a topic."""
    ctx.set_status(message.message)


@on.eventbridge(source="shop.*", detail_type="OrderPlaced")
@orchestrator
async def is_placed(ctx: Context, event: on.EventBridgeEvent) -> None:
    """By an event of a bus."""
    ctx.set_status(str(event.detail["order_id"]))


@on.sqs(queue="arrivals-inbox")
@orchestrator
async def is_queued(ctx: Context, message: on.SqsMessage) -> None:
    """By a message of a queue."""
    ctx.set_status(message.body)


@on.schedule(rule="nightly")
@orchestrator
async def is_cleaned_up(ctx: Context, tick: on.Tick) -> None:
    """By an instant of a schedule."""
    ctx.set_status(tick.rule)
