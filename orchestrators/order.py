"""Orders: process one, then confirm it."""

from __future__ import annotations

from pydantic import BaseModel

from activities.order import Order, process, send_confirmation
from durably import Context, orchestrator


class Confirmation(BaseModel):
    """What became of an order.

    Attributes:
        number: in the shop's books.
        confirmation: the file of the email.
    """

    item: str
    number: int
    confirmation: str


@orchestrator
async def order_item(ctx: Context, order: Order) -> Confirmation:
    """One activity after another; each survives the process that it runs in."""
    number = await process(order)
    ctx.logger.info("order %d is booked", number)
    return Confirmation(item=order.item, number=number, confirmation=await send_confirmation(order, number))
