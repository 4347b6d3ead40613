"""Process an order and confirm it, and draw the history after each event: `make story NAME=order`.

The tables are those of the article on go-workflows: an event is recorded when it arrives, and executed when the
orchestrator has been run with it. Durably stores an event together with what it caused, in one write; so each event
that arrives is drawn twice, as it was on its way and as it was stored.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from activities.order import SHOP_FOLDER, Order, process, send_confirmation
from demo.console import say
from demo.processes import ROOT
from demo.running import StoryError, parser, run
from durably import Client
from durably.cli.output import print_table
from durably.core.history import HistoryEntry
from durably.embedded import Embedded
from orchestrators.order import order_item

EVENT = ROOT / "events/order.json"
EXECUTION = "order-0001"
PATIENCE_S = 60.0
TELLING = ("orchestrator", "name", "result", "failure", "reason")  # one of these is in each event
HEADS = ("#", "Name", "Attributes", "Executed")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the history; `arrived` is False for what the orchestrator itself asked for."""

    number: int
    name: str
    attributes: str
    arrived: bool


def tell(arguments: Sequence[str]) -> int:
    """Tell the story; its exit code."""
    options = parser("order", __doc__).parse_args(arguments)
    return run("order", options.db, order)


def order(db: Path) -> None:
    """Run the orchestrator, draw its history as it grows, print what came out."""
    shop = Path(f"{db}-shop")
    shop.mkdir(exist_ok=True)
    os.environ[SHOP_FOLDER] = str(shop)
    wanted = Order.model_validate_json(EVENT.read_bytes())
    with Embedded(db, orchestrators=[order_item], activities=[process, send_confirmation], http=None) as runtime:
        handle = runtime.client.start(EXECUTION, order_item.options(id_reuse="use_existing"), wanted)
        say("order", f"{wanted.item}, books and outbox in {shop}")
        for table in frames(follow(runtime.client)):
            print_table(HEADS, table)
            print()
        print(handle.result(timeout=PATIENCE_S).model_dump_json())


def follow(client: Client) -> Iterator[Row]:
    """The rows of the history, each as soon as it is stored, until the execution ends.

    Raises:
        StoryError: it does not.
    """
    give_up_at = time.monotonic() + PATIENCE_S
    known = 0
    while True:
        closed = client.describe(EXECUTION).closed_at is not None  # looked at first: what follows is complete then
        for entry in client.history(EXECUTION)[known:]:
            known = entry.number
            yield row(entry)
        if closed:
            return
        if time.monotonic() > give_up_at:
            raise StoryError(f"{EXECUTION} did not end within {PATIENCE_S:.0f} s")
        time.sleep(0.02)


def row(entry: HistoryEntry) -> Row:
    """A line of the history, with the one attribute that tells most."""
    event = entry.event
    value: object = next(getattr(event, name) for name in TELLING if hasattr(event, name))
    return Row(number=entry.number, name=event.kind, attributes=str(value), arrived=not hasattr(event, "cause"))


def frames(rows: Iterable[Row]) -> Iterator[list[tuple[str, ...]]]:
    """The table after each event: with one that arrived not yet executed, then with what it caused."""
    table: list[tuple[str, ...]] = []
    for each in rows:
        if each.arrived and table:
            yield table
            yield [*table, _cells(each, executed="")]
        table = [*table, _cells(each, executed="x")]
    yield table


def _cells(of: Row, *, executed: str) -> tuple[str, ...]:
    return str(of.number), of.name, of.attributes, executed
