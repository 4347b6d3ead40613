"""Paths of the order story."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from activities.order import Order, process, send_confirmation
from durably import ExecutionFailedError, NonRetryableError
from durably.testing import Environment
from orchestrators.order import order_item

ORCHESTRATORS = (order_item,)
EVENT = Path(__file__).parents[2] / "events/order.json"


def ok(env: Environment) -> None:
    """Processed and confirmed."""
    env.mock(process).returns(1)
    env.mock(send_confirmation).returns("confirmation.eml")
    env.start("order-ok", order_item, _order()).result()


def refused(env: Environment) -> None:
    """There is no shop."""
    env.mock(process).raises(NonRetryableError("the shop is closed"))
    with suppress(ExecutionFailedError):
        env.start("order-refused", order_item, _order()).result()


def retried(env: Environment) -> None:
    """It failed, and was retried in another run by an operator."""
    env.mock(process).returns(1)
    env.mock(send_confirmation).side_effect([NonRetryableError("no outbox"), "confirmation.eml"])
    handle = env.start("order-retried", order_item, _order())
    env.client.retry("order-retried", "there is an outbox now")
    handle.result()


def _order() -> Order:
    return Order.model_validate_json(EVENT.read_bytes())


PATHS = (ok, refused, retried)
