"""The function that serves all dead-letter queues. Whatever was received in vain comes back: a message as itself, an
activity task through the retry fence as a lost attempt. So no execution waits for a message that nobody will send (P5).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from durably.adapters.aws import keys
from durably.adapters.aws.faults import aws_errors, code_of, storage_error
from durably.aws.batch import COMEBACKS, Batch, Response, comebacks, known_queue, opened
from durably.aws.local import is_local
from durably.aws.surroundings import Surroundings, prepare_in_lambda
from durably.codec.wire import WireError
from durably.core.errors import NonRetryableError, StorageError
from durably.core.events import ActivityFailed, ChildFailed, InboundEvent, SignalFailed
from durably.core.failures import failure_of
from durably.core.keys import RunKey
from durably.ports.messages import ActivityTask, Delivery, EventMessage, Outgoing
from durably.runtime.attempt import attempt_lost, settle_answer
from durably.runtime.runtime import Runtime

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from mypy_boto3_sqs.type_defs import SendMessageRequestTypeDef

_logger = logging.getLogger("durably.dead_letters")
_UNREAD_COMEBACKS = 2
_LOST = ("NoSuchKey", "404")
_ID = re.compile(r"([^.]+)\.(\d{1,9})\.([a-z]+)\.(\d{1,9})(?:\.(\d{1,9}))?(?:\..*)?")  # gen, run, what, seq, attempt
_OF_ACTIVITIES = ("task", "completed", "failed", "deadline", "check", "heartbeat")
_OF_CHILDREN = ("start", "returned", "raised")
_OF_SIGNALS = ("signal", "undelivered")
_SCHEDULE = "SCHEDULE_ARN"  # a message attribute that the scheduler sets


def dead_letters_handler(*, surroundings: Surroundings | None = None) -> DeadLettersHandler:
    """The handler of the function that serves the dead-letter queues.

    Args:
        surroundings: instead of those that the environment describes.
    """
    return DeadLettersHandler(surroundings)


class DeadLettersHandler:
    """Sends each dead letter back, unread at first: what killed its consumers may do so here, too.

    Bodies that are no message of ours, and messages whose body in S3 is gone, are put aside in the bucket under
    `dead-letters/`, for a person to look at; an execution that waits for one of these is told that it failed.
    """

    def __init__(self, surroundings: Surroundings | None) -> None:
        self._given = surroundings
        prepare_in_lambda(lambda: self._runtime)

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> Response:
        """Handle an invocation; the answer names the messages that are not dealt with."""
        return Batch(event, self._surroundings).process_records(self._handle, context)

    @cached_property
    def _surroundings(self) -> Surroundings:
        return self._given or Surroundings.from_environment()

    @cached_property
    def _runtime(self) -> Runtime:
        return self._surroundings.runtime(self._surroundings.registry())

    def _handle(self, record: SQSRecord) -> None:
        settings = self._surroundings.settings
        queue = self._queue_of(record)
        unread = queue in (settings.events_queue, settings.delay_queue) and comebacks(record) < _UNREAD_COMEBACKS
        if queue is not None and unread:
            self._send_back(record, queue)
            return
        try:
            message = opened(self._surroundings.backend, record.body).message
        except WireError:
            self._send_back(record, queue or settings.delay_queue)  # until a worker of the newer version gets it
            return
        except StorageError as error:
            if isinstance(error.__cause__, aws_errors()) and code_of(error.__cause__) not in _LOST:
                raise
            self._tell(record, error)
            self._put_aside(record, error)
            return
        if isinstance(message, ActivityTask) and not is_local(message) and queue != settings.delay_queue:
            self._lose_attempt(Delivery(message, record.message_id))
        else:
            self._send_back(record, queue or settings.delay_queue)

    def _queue_of(self, record: SQSRecord) -> str | None:
        """URL of the queue where a message died, or was to arrive: schedules send there what they could not deliver."""
        settings = self._surroundings.settings
        queue = known_queue(settings, record.attributes.dead_letter_queue_source_arn)
        if queue is None and record.event_source_arn.endswith(".fifo"):
            return settings.events_queue
        if queue is None and record.event_source_arn == settings.delay_dead_letters_arn:
            return settings.delay_queue
        return queue

    def _lose_attempt(self, delivery: Delivery) -> None:
        answer = attempt_lost(self._runtime, delivery)
        if answer is not None:
            settle_answer(self._runtime, answer)

    def _tell(self, record: SQSRecord, error: StorageError) -> None:
        """Tell the execution that a message about one of its requests cannot be read any more."""
        news = _news_of_loss(record.body, error)
        if news is not None:
            self._surroundings.backend.send([Outgoing(news)])

    def _send_back(self, record: SQSRecord, queue: str) -> None:
        """Send the body to the queue it came from, under a deduplication id that the queue has not seen."""
        count = comebacks(record) + 1
        request: SendMessageRequestTypeDef = {
            "QueueUrl": queue,
            "MessageBody": _sent_body(record),
            "MessageAttributes": {COMEBACKS: {"DataType": "Number", "StringValue": str(count)}},
        }
        if queue.endswith(".fifo"):
            request["MessageGroupId"] = record.attributes.message_group_id or record.message_id
            request["MessageDeduplicationId"] = f"{record.message_id}.{count}"
        try:
            self._surroundings.clients.sqs.send_message(**request)
        except aws_errors() as error:
            raise storage_error(f"send a dead letter back to {queue}", error) from error
        _logger.warning("the dead letter %s goes back to %s (%d)", record.message_id, queue, count)
        self._surroundings.backend.acknowledge([record.message_id])

    def _put_aside(self, record: SQSRecord, reason: StorageError) -> None:
        key = keys.dead_letter_key(record.event_source_arn.rpartition(":")[2], record.message_id)
        body = json.dumps({"reason": str(reason), "record": record.raw_event}, ensure_ascii=False)
        try:
            self._surroundings.clients.s3.put_object(
                Bucket=self._surroundings.settings.bucket, Key=key, Body=body.encode(), ContentType="application/json"
            )
        except aws_errors() as error:
            raise storage_error(f"put a dead letter aside as {key}", error) from error
        _logger.error("the dead letter %s is no message of ours and lies under %s: %s", record.message_id, key, reason)
        self._surroundings.backend.acknowledge([record.message_id])


def _news_of_loss(body: str, error: StorageError) -> EventMessage | None:
    """The failure that answers a request, where an envelope says whose its lost message was; what others sent has none.

    Envelopes bear the ids of their messages.
    """
    try:
        envelope = json.loads(body)
        found = _ID.fullmatch(envelope["id"])
        execution_id = envelope["execution"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if found is None or not isinstance(execution_id, str):
        return None
    gen, run, what, seq, attempt = found.groups()
    failure = failure_of(NonRetryableError(f"A message about this ({what}) is lost: {error}"))
    event: InboundEvent
    if what in _OF_CHILDREN:
        event = ChildFailed(seq=int(seq), failure=failure)
    elif what in _OF_SIGNALS:
        event = SignalFailed(seq=int(seq), failure=failure)
    elif what in _OF_ACTIVITIES and attempt is not None:
        event = ActivityFailed(seq=int(seq), failure=failure, attempt=int(attempt))
    else:
        return None
    return EventMessage(run=RunKey(execution_id, gen, int(run)), event=event)


def _sent_body(record: SQSRecord) -> str:
    """The body as it was to be sent: a dead letter of a schedule may hold the whole call of `SendMessage`."""
    if record.message_attributes[_SCHEDULE] is None:
        return record.body
    try:
        return str(json.loads(record.body)["MessageBody"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return record.body
