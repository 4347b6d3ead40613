"""What calls cost: requests and billed units, counted where boto3 makes them.

DynamoDB says what it consumed only if asked, and emulators say 1 whatever they did, so units are computed from bytes
(AWS docs, "Read and write capacity": 1 KB a write, 4 KB a consistent read, half for an eventual one; SQS pricing:
64 KB a request).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from durably.adapters.aws import keys
from durably.adapters.aws.items import READ_UNIT_BYTES, item_size, units

if TYPE_CHECKING:
    from collections.abc import Generator

_SERVICES = ("dynamodb", "sqs", "s3", "scheduler", "secretsmanager")
_REQUEST_BYTES = 64 * 1024
_CONTEXT = "durably.parameters"


@dataclass(slots=True)
class Bill:
    """What was consumed.

    Attributes:
        requests: by "service.Operation", answered or not.
        write_units: of the table.
        index_units: write units of the status index.
        read_units: of table and index; an eventual read of up to 4 KB is half a unit.
        messages: sent to SQS.
        queue_units: SQS requests as billed, by queue URL.
    """

    requests: Counter[str] = field(default_factory=Counter[str])
    write_units: int = 0
    index_units: int = 0
    read_units: float = 0.0
    messages: int = 0
    queue_units: Counter[str] = field(default_factory=Counter[str])


class Meter:
    """Counts into `bill`. Give `meter.observe` to `Clients(observers=...)`."""

    def __init__(self) -> None:
        self.bill = Bill()
        self._lock = Lock()

    @contextmanager
    def measured(self) -> Generator[Bill, None, None]:
        """A bill of its own for what happens inside."""
        outer, self.bill = self.bill, Bill()
        try:
            yield self.bill
        finally:
            self.bill = outer

    def observe(self, client: Any) -> None:
        """Count what this client does."""
        for service in _SERVICES:
            client.meta.events.register(f"before-parameter-build.{service}", self._remember)
            client.meta.events.register(f"after-call.{service}", self._count)
            client.meta.events.register(f"after-call-error.{service}", self._count_error)

    def _remember(self, params: dict[str, Any], context: dict[str, Any], **_more: Any) -> None:
        context[_CONTEXT] = params

    def _count_error(self, event_name: str, **_more: Any) -> None:
        _, service, operation = event_name.split(".")
        with self._lock:
            self.bill.requests[f"{service}.{operation}"] += 1

    def _count(self, parsed: dict[str, Any], context: dict[str, Any], event_name: str, **_more: Any) -> None:
        _, service, operation = event_name.split(".")
        sent: dict[str, Any] = context.get(_CONTEXT, {})
        with self._lock:
            attempts = 1 + parsed.get("ResponseMetadata", {}).get("RetryAttempts", 0)
            self.bill.requests[f"{service}.{operation}"] += attempts
            match operation:
                case "PutItem":
                    self._count_put(sent["Item"], parsed)
                case "UpdateItem":
                    self._count_update(sent, parsed)
                case "DeleteItem":
                    self.bill.write_units += units(item_size(parsed.get("Attributes", {})))
                case "GetItem":
                    self._count_read(sent, [parsed.get("Item", {})])
                case "Query":
                    self._count_read(sent, parsed.get("Items", []))
                case "SendMessageBatch":
                    self._count_messages(sent)
                case _:
                    pass

    def _count_put(self, item: Mapping[str, Any], parsed: dict[str, Any]) -> None:
        if "Error" in parsed:  # a refused condition costs what the larger item would
            self.bill.write_units += units(max(item_size(item), item_size(parsed.get("Item") or {})))
            return
        self.bill.write_units += units(item_size(item))
        if keys.STATUS_PARTITION in item:
            self.bill.index_units += units(item_size(without_bodies(item)))

    def _count_update(self, sent: dict[str, Any], parsed: dict[str, Any]) -> None:
        """The stored item is not known here: what is set, and 400 bytes for what stays."""
        self.bill.write_units += units(item_size(sent["ExpressionAttributeValues"]) + 400)
        if "Error" not in parsed:
            self.bill.index_units += 2  # a new status is another partition: delete and put

    def _count_read(self, sent: dict[str, Any], items: list[Mapping[str, Any]]) -> None:
        read = units(sum(item_size(item) for item in items), READ_UNIT_BYTES)
        self.bill.read_units += read if sent.get("ConsistentRead") else read / 2

    def _count_messages(self, sent: dict[str, Any]) -> None:
        size = sum(len(entry["MessageBody"].encode()) for entry in sent["Entries"])
        self.bill.messages += len(sent["Entries"])
        self.bill.queue_units[sent["QueueUrl"]] += units(size, _REQUEST_BYTES)


def without_bodies(item: Mapping[str, Any]) -> dict[str, Any]:
    """What the status index holds of a record."""
    return {name: value for name, value in item.items() if name.removesuffix("_ref") not in ("result", "failure")}
