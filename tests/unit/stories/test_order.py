"""The order story piece by piece: the orchestrator by hand, the activities on a real shop, the tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email import policy
from email.parser import BytesParser
from pathlib import Path

import pytest

from activities.order import SHOP_FOLDER, Order, process, send_confirmation
from demo.order import Row, frames, row
from durably import AttemptInfo, NonRetryableError
from durably.api.attempt import current_attempt
from durably.core.events import (
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    Event,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    ExecutionTerminated,
)
from durably.core.failures import Failure
from durably.core.history import HistoryEntry
from orchestrators.order import Confirmation, order_item
from tests.unit.stories.driving import drive

EVENT = Path(__file__).parents[3] / "events/order.json"
ORDER = Order(item="a lamp", email="ada@example.com")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(SHOP_FOLDER, str(tmp_path))
    return tmp_path


@contextmanager
def attempt_of(key: str) -> Iterator[None]:
    info = AttemptInfo(execution_id="order-1", activity="Process", attempt=1, idempotency_key=key)
    token = current_attempt.set(info)
    yield
    current_attempt.reset(token)


# --- the orchestrator -------------------------------------------------------------------------------------------


def test_an_order_is_processed_and_then_confirmed_with_its_number() -> None:
    confirmation, asked, _ = drive(order_item, ORDER, {process: 7, send_confirmation: "letter.eml"})
    assert asked == [("Process", [ORDER]), ("SendConfirmation", [ORDER, 7])]
    assert confirmation == Confirmation(item="a lamp", number=7, confirmation="letter.eml")


def test_the_event_is_an_order() -> None:
    assert Order.model_validate_json(EVENT.read_bytes()).item == "a pair of binoculars"


# --- the activities, on a real shop -------------------------------------------------------------------------------


def test_an_order_is_booked_once_however_often_its_activity_runs(shop: Path) -> None:
    with attempt_of("01HF.1.1"):
        assert [process.fn(ORDER), process.fn(ORDER)] == [1, 1]
    with attempt_of("01HG.1.1"):
        assert process.fn(ORDER) == 2
    with closing(sqlite3.connect(shop / "books.db")) as books:
        assert books.execute("SELECT number, item FROM orders").fetchall() == [(1, "a lamp"), (2, "a lamp")]


def test_one_confirmation_lies_in_the_outbox_however_often_its_activity_runs(shop: Path) -> None:
    with attempt_of("01HF.1.2"):
        assert [send_confirmation.fn(ORDER, 7), send_confirmation.fn(ORDER, 7)] == ["01HF.1.2.eml"] * 2
    (file,) = (shop / "outbox").iterdir()
    message = BytesParser(policy=policy.default).parsebytes(file.read_bytes())
    assert (message["To"], message["Subject"]) == ("ada@example.com", "Your order 7")
    assert message.get_content().strip() == "Confirmation for: a lamp"


def test_without_a_shop_the_activity_says_which_variable_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SHOP_FOLDER, raising=False)
    with attempt_of("01HF.1.1"), pytest.raises(NonRetryableError, match=SHOP_FOLDER):
        process.fn(ORDER)


# --- the tables ---------------------------------------------------------------------------------------------------


def test_what_arrived_is_drawn_before_and_after_it_is_executed() -> None:
    rows = [
        Row(1, "ExecutionStarted", "order_item", arrived=True),
        Row(2, "ActivityScheduled", "Process", arrived=False),
        Row(3, "ActivityCompleted", "1", arrived=True),
        Row(4, "ExecutionCompleted", "done", arrived=False),
    ]
    started, scheduled = ("1", "ExecutionStarted", "order_item", "x"), ("2", "ActivityScheduled", "Process", "x")
    assert list(frames(rows)) == [
        [started, scheduled],
        [started, scheduled, ("3", "ActivityCompleted", "1", "")],
        [
            started,
            scheduled,
            ("3", "ActivityCompleted", "1", "x"),
            ("4", "ExecutionCompleted", "done", "x"),
        ],
    ]


FAILURE = Failure(type="ValueError", message="no")


@pytest.mark.parametrize(
    ("event", "attributes", "arrived"),
    [
        (ExecutionStarted(orchestrator="order_item", input="{}", seed=1, python="3.11"), "order_item", True),
        (ActivityScheduled(seq=1, name="Process", input="{}", call_site="x:1", cause=1), "Process", False),
        (ActivityCompleted(seq=1, result="7"), "7", True),
        (ActivityFailed(seq=1, failure=FAILURE), "ValueError: no", True),
        (ExecutionTerminated(reason="enough"), "enough", True),
        (ExecutionCompleted(result='{"number": 7}', cause=2), '{"number": 7}', False),
        (ExecutionFailed(failure=FAILURE, cause=2), "ValueError: no", False),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_a_row_shows_the_attribute_that_tells_most(event: Event, attributes: str, *, arrived: bool) -> None:
    assert row(HistoryEntry(3, 1, event, applied=True)) == Row(3, event.kind, attributes, arrived)
