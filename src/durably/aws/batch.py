"""A batch of SQS records: decoded into deliveries, answered with the ids of those that are not dealt with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from durably.adapters.aws import AwsBackend, AwsSettings
from durably.adapters.aws.envelopes import Envelope
from durably.aws.surroundings import Surroundings
from durably.core.errors import DurablyError, StorageError
from durably.ports.messages import Delivery, Outgoing

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from mypy_boto3_sqs.type_defs import ChangeMessageVisibilityBatchRequestEntryTypeDef

_logger = logging.getLogger("durably.batch")
COMEBACKS = "durably-comebacks"  # a message attribute
_FIRST_PAUSE_S = 5
_LONGEST_PAUSE_S = 60


class ItemIdentifier(TypedDict):
    """Names a record by its message id."""

    itemIdentifier: str


class Response(TypedDict):
    """What Lambda is told: every record not named here is deleted from its queue."""

    batchItemFailures: list[ItemIdentifier]


class UnacknowledgedError(DurablyError):
    """A record was handled and is to be delivered again."""


def seconds_left(context: LambdaContext) -> float:
    """How long the invocation may still take."""
    return context.get_remaining_time_in_millis() / 1000


def known_queue(settings: AwsSettings, arn: str | None) -> str | None:
    """The URL of the queue with this ARN, if it is one that the settings name."""
    name = (arn or "").rpartition(":")[2]
    for url in (settings.events_queue, settings.delay_queue, *settings.activity_queues.values()):
        if url.rpartition("/")[2] == name and name:
            return url
    return None


def opened(backend: AwsBackend, body: str) -> Envelope:
    """The message in an SQS body, whoever wrote it.

    Raises:
        WireError: a newer worker wrote it.
        StorageError: it is none of ours, or lost.
    """
    try:
        return backend.open_envelope(body)
    except DurablyError:
        raise
    except Exception as error:  # nested too deeply, say
        raise StorageError(f"expected a message that durably sent, but its body cannot be read: {error}") from error


def comebacks(record: SQSRecord) -> int:
    """How often a message came back as a dead letter."""
    attribute = record.message_attributes[COMEBACKS]
    text = None if attribute is None else attribute.string_value
    return int(text) if text is not None and text.isdecimal() else 0


class Batch:
    """The records of one invocation. What the backend does not acknowledge comes back, after a pause.

    Args:
        event: as Lambda hands it over.
        surroundings: whose backend remembers what is dealt with; it starts afresh.
    """

    def __init__(self, event: Mapping[str, Any], surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._failed: dict[str, int | None] = {}
        self._deleted: set[str] = set()
        # what came before may be what ended a process: it comes last
        ordered = sorted(event["Records"], key=lambda record: int(record["attributes"]["ApproximateReceiveCount"]))
        self._event = {**event, "Records": ordered}
        self.records = [SQSRecord(record) for record in ordered]
        surroundings.backend.acknowledged.clear()

    def deliveries(self) -> Iterator[Delivery]:
        """The deliveries that can be read. The others stay on their queue, and end among its dead letters."""
        for record in self.records:
            try:
                yield self._read(record)[0]
            except DurablyError as error:
                _logger.error("cannot read the message %s: %s", record.message_id, error)  # noqa: TRY400  # it says it all

    def process(self, handle: Callable[[Delivery], None], context: LambdaContext) -> Response:
        """Handle each delivery by itself; what raises is not dealt with and hinders no other."""
        return self.process_records(lambda record: handle(self._read(record)[0]), context)

    def process_delayed(self, handle: Callable[[Delivery, int], None], context: LambdaContext) -> Response:
        """The same; `handle` is told when the delivery's message is due."""
        return self.process_records(lambda record: handle(*self._read(record)), context)

    def process_records(self, handle: Callable[[SQSRecord], None], context: LambdaContext) -> Response:
        """Handle each record by itself, undecoded."""
        from aws_lambda_powertools.utilities.batch import (
            BatchProcessor,
            EventType,
            process_partial_response,  # pyright: ignore[reportUnknownVariableType]  # its handlers are untyped
        )

        def checked(record: SQSRecord) -> None:
            handle(record)
            if not self._dealt_with(record):
                raise UnacknowledgedError(f"{record.message_id} is not dealt with yet")

        processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False, logger=_logger)
        process_partial_response(self._event, checked, processor, context)
        return self.response()

    def redirect(self, delivery: Delivery) -> None:
        """Send a message to the queue where it belongs, which is not this one."""
        _logger.warning("%s came through the wrong queue; it is sent to its own", delivery.message.id)
        backend = self._surroundings.backend
        try:
            backend.send([Outgoing(delivery.message)])
        except StorageError as error:
            _logger.warning("%s could not be sent to its own queue: %s; it returns", delivery.message.id, error)
        else:
            backend.acknowledge([delivery.receipt])

    def fail(self, deliveries: Iterable[Delivery], *, pause_s: int | None = None) -> None:
        """Have deliveries come back, acknowledged or not, after `pause_s` or one that grows with each receive."""
        self._failed.update((delivery.receipt, pause_s) for delivery in deliveries)

    def delete_finished(self, deliveries: Iterable[Delivery]) -> None:
        """Delete those that are dealt with, which Lambda does if the process lives on: what comes next may end it."""
        receipts = {delivery.receipt for delivery in deliveries} - self._deleted
        for record in self.records:
            if record.message_id in receipts and self._dealt_with(record):
                self._deleted.add(record.message_id)
                try:
                    self._surroundings.clients.sqs.delete_message(
                        QueueUrl=self._queue_of(record), ReceiptHandle=record.receipt_handle
                    )
                except Exception as error:  # then Lambda does it
                    _logger.warning("could not delete the message %s by now: %s", record.message_id, error)

    def response(self) -> Response:
        """The answer to Lambda; what comes back does so after its pause, not after the visibility time-out."""
        returned = [record for record in self.records if not self._dealt_with(record)]
        by_queue: dict[str, list[SQSRecord]] = {}
        for record in returned:
            by_queue.setdefault(self._queue_of(record), []).append(record)
        for queue, records in by_queue.items():
            self._pause(queue, records)
        return {"batchItemFailures": [{"itemIdentifier": record.message_id} for record in returned]}

    def _queue_of(self, record: SQSRecord) -> str:
        return known_queue(self._surroundings.settings, record.event_source_arn) or record.queue_url

    def _dealt_with(self, record: SQSRecord) -> bool:
        id_ = record.message_id
        return id_ in self._surroundings.backend.acknowledged and id_ not in self._failed

    def _read(self, record: SQSRecord) -> tuple[Delivery, int]:
        envelope = opened(self._surroundings.backend, record.body)
        # a dead letter that came back was received before, though its count begins anew
        receives = int(record.attributes.approximate_receive_count) + (1 if comebacks(record) else 0)
        return Delivery(envelope.message, record.message_id, receives), envelope.due_ms

    def _pause(self, queue: str, records: list[SQSRecord]) -> None:
        entries: list[ChangeMessageVisibilityBatchRequestEntryTypeDef] = [
            {
                "Id": str(index),
                "ReceiptHandle": record.receipt_handle,
                "VisibilityTimeout": self._pause_s(record),
            }
            for index, record in enumerate(records)
        ]
        try:
            for start in range(0, len(entries), 10):
                self._surroundings.clients.sqs.change_message_visibility_batch(
                    QueueUrl=queue, Entries=entries[start : start + 10]
                )
        except Exception as error:  # then they come back after the visibility time-out
            _logger.warning("could not shorten the pause of %d messages: %s", len(entries), error)

    def _pause_s(self, record: SQSRecord) -> int:
        pause_s = self._failed.get(record.message_id)
        if pause_s is not None:
            return pause_s
        receives = int(record.attributes.approximate_receive_count)
        return min(_FIRST_PAUSE_S << min(receives - 1, 10), _LONGEST_PAUSE_S)
