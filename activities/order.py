"""Orders: booked in a shop's SQLite file, confirmed by an email that is left in its outbox. SHOP_FOLDER holds both.

Both activities may run again after a crash and then find what they did: the key of the booking and the name of the
email are the same at each attempt.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from durably import NonRetryableError, activity, attempt_info

SHOP_FOLDER = "SHOP_FOLDER"


class Order(BaseModel):
    """What is ordered, and who is told."""

    model_config = ConfigDict(extra="forbid")

    item: str = Field(min_length=1)
    email: str = Field(min_length=3)


@activity(name="Process")
def process(order: Order) -> int:
    """Book an order, and return its number in the shop's books."""
    with closing(sqlite3.connect(_shop() / "books.db", timeout=10)) as books, books:
        books.execute("CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, key TEXT UNIQUE, item TEXT)")
        key = attempt_info().idempotency_key
        books.execute("INSERT INTO orders (key, item) VALUES (?, ?) ON CONFLICT DO NOTHING", (key, order.item))
        number: int
        (number,) = books.execute("SELECT number FROM orders WHERE key = ?", (key,)).fetchone()
        return number


@activity(name="SendConfirmation")
def send_confirmation(order: Order, number: int) -> str:
    """Leave the confirmation of an order in the outbox, and return the name of its file."""
    message = EmailMessage()
    message["To"] = order.email
    message["Subject"] = f"Your order {number}"
    message.set_content(f"Confirmation for: {order.item}")
    outbox = _shop() / "outbox"
    outbox.mkdir(exist_ok=True)
    file = outbox / f"{attempt_info().idempotency_key}.eml"
    unfinished = file.with_suffix(".part")
    unfinished.write_bytes(bytes(message))
    unfinished.replace(file)
    return file.name


def _shop() -> Path:
    folder = os.environ.get(SHOP_FOLDER)
    if not folder:
        raise NonRetryableError(
            f"The environment variable {SHOP_FOLDER} must name the folder of the shop's books and outbox, and is not "
            "set. Set it for the process that runs the activities."
        )
    return Path(folder)
