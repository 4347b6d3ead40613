"""Sending: each message to its queue, in batches, several at once, with a retry for each entry that was refused.

| message | due | goes to |
|---|---|---|
| event, wake, local activity's task | now | FIFO queue, group = execution |
| the same, callback deadline, errand | within 900 s | delay queue |
| any other activity's task | within 900 s | queue of its activity |
| any | later | one-off schedule, then delay queue |
| more than 100 of these at once | later | delay queue, whose consumer sends each again |

What can never be sent (no such activity queue, too large) becomes `ActivityFailed`: the execution learns of it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from durably.adapters.aws import keys
from durably.adapters.aws.bodies import Bodies, Reference
from durably.adapters.aws.clients import Clients
from durably.adapters.aws.envelopes import seal
from durably.adapters.aws.faults import aws_errors, code_of, is_permanent, storage_error
from durably.adapters.aws.parallel import spread
from durably.adapters.aws.schedules import Schedules
from durably.adapters.aws.settings import AwsSettings
from durably.core.errors import NonRetryableError, PayloadError, StorageError
from durably.core.events import ActivityCompleted, ActivityFailed, ChildFailed, SignalFailed
from durably.core.failures import failure_of
from durably.ports.clock import Clock
from durably.ports.messages import (
    ActivityTask,
    CallbackDeadline,
    Errand,
    EventMessage,
    HeartbeatCheck,
    Message,
    Outgoing,
)

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

    Entry = SendMessageBatchRequestEntryTypeDef

LARGEST_BODY_BYTES = 8 * 1024 * 1024
_LARGEST_DELAY_MS = 900_000
_BATCH_ENTRIES = 10
_BATCH_BYTES = 1024 * 1024 - 4096  # SQS: 1 MiB of bodies and attributes in a request; ids and such are leeway
_ROUNDS = 5
_MOST_SCHEDULES = 100  # at once: each takes tens of milliseconds, and whoever sends has seconds
_BACKOFF_S = 0.05
_logger = logging.getLogger("durably.aws")


@dataclass(frozen=True, slots=True)
class _Letter:
    """A sealed message with its address.

    Attributes:
        index: of the message in the caller's sequence.
        message: what it holds, for the case that it cannot be sent.
        queue: URL; empty for a schedule.
    """

    index: int
    message: Message
    queue: str
    body: str
    due_ms: int = 0
    delay_s: int = 0
    group: str = ""
    deduplication: str = ""

    @property
    def entry(self) -> Entry:
        """The letter as SQS wants it."""
        entry: Entry = {"Id": str(self.index), "MessageBody": self.body}
        if self.delay_s:
            entry["DelaySeconds"] = self.delay_s
        if self.group:
            entry["MessageGroupId"] = self.group
            entry["MessageDeduplicationId"] = self.deduplication
        return entry


@dataclass(slots=True)
class _Outcome:
    """What became of letters: refused for good and why, or not sent for now."""

    refused: list[tuple[_Letter, str]] = field(default_factory=list[tuple[_Letter, str]])
    unsent: list[tuple[_Letter, StorageError]] = field(default_factory=list[tuple[_Letter, StorageError]])


class Queues:
    """The sending side of all queues.

    Args:
        settings: which queues.
        clients: for SQS.
        bodies: for messages that travel by reference.
        clock: says what is due.
        sleep: between two attempts at an entry that SQS refused.
    """

    def __init__(
        self,
        settings: AwsSettings,
        clients: Clients,
        bodies: Bodies,
        clock: Clock,
        sleep: Callable[[float], None],
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._bodies = bodies
        self._clock = clock
        self._schedules = Schedules(settings, clients)
        self._sleep = sleep

    def send(self, messages: Sequence[Outgoing], *, again: str = "") -> dict[int, StorageError]:
        """Send all that can be sent; what could not be for now, by index.

        Args:
            messages: to send.
            again: makes deduplication ids new, for a message that must not be taken for its lost self.
        """
        now_ms = self._clock.now_ms()
        unsent: dict[int, StorageError] = {}
        letters: list[_Letter] = []
        crowded = sum(outgoing.due_ms - now_ms > _LARGEST_DELAY_MS for outgoing in messages) > _MOST_SCHEDULES

        def addressed(index: int) -> _Letter | StorageError:
            try:
                return self._addressed(index, messages[index], now_ms, again, crowded=crowded)
            except StorageError as error:
                return error

        parallel = self._settings.parallel if len(messages) > _BATCH_ENTRIES else 1  # S3 takes large ones first
        for index, letter in enumerate(spread(addressed, range(len(messages)), parallel=parallel)):
            if isinstance(letter, StorageError):
                unsent[index] = letter
            else:
                letters.append(letter)
        outcome = self._deliver(letters)
        failures = [letter for refused, reason in outcome.refused for letter in self._failure(refused, reason, outcome)]
        lost = self._deliver(failures)
        outcome.unsent += [(letter, StorageError(f"{letter.message.id}: {reason}")) for letter, reason in lost.refused]
        unsent |= {letter.index: error for letter, error in (*outcome.unsent, *lost.unsent)}
        return unsent

    def cancel(self, message_id: str) -> None:
        """Drop a message that waits in the scheduler."""
        self._schedules.delete(message_id)

    # --- addressing ----------------------------------------------------------------------------------------

    def _addressed(self, index: int, outgoing: Outgoing, now_ms: int, again: str, *, crowded: bool = False) -> _Letter:
        message, wait_ms = outgoing.message, outgoing.due_ms - now_ms
        queue = self._queue_of(message, wait_ms)
        if isinstance(queue, NonRetryableError):
            return self._addressed(index, _failed(message, queue), now_ms, again)
        if not queue and crowded:
            queue, wait_ms = self._settings.delay_queue, 0
        try:
            # a schedule may wait longer than an object that expires lives
            body = seal(outgoing, partial(self._put, passing=wait_ms <= _LARGEST_DELAY_MS))
        except PayloadError as error:
            return self._addressed(index, _failed(message, error), now_ms, again)
        if queue == self._settings.events_queue:
            group, deduplication = keys.message_group(message), keys.deduplication_id(message, again)
            return _Letter(index, message, queue, body, group=group, deduplication=deduplication)
        return _Letter(index, message, queue, body, due_ms=outgoing.due_ms, delay_s=max(0, -(-wait_ms // 1000)))

    def _queue_of(self, message: Message, wait_ms: int) -> str | NonRetryableError:
        """URL of a queue; empty where the scheduler has to wait first."""
        queue = None
        if isinstance(message, ActivityTask) and not _local(message):
            queue = self._settings.activity_queues.get(message.name)
            if queue is None:
                return NonRetryableError(
                    f"No queue is known for the activity {message.name!r}. Add it to an activity group's function, and "
                    "its queue to DURABLY_ACTIVITY_QUEUES (`durably template` writes both), then deploy."
                )
        if wait_ms > _LARGEST_DELAY_MS:
            return ""
        if queue is not None:
            return queue
        if wait_ms > 0 or isinstance(message, CallbackDeadline | HeartbeatCheck | Errand):
            return self._settings.delay_queue
        return self._settings.events_queue

    def _put(self, gen: str, raw: bytes, *, passing: bool) -> Reference:
        check_size(len(raw))
        return self._bodies.put(gen, raw, passing=passing)

    def _failure(self, letter: _Letter, reason: str, outcome: _Outcome) -> Iterable[_Letter]:
        """The news that a message can never be sent."""
        error = NonRetryableError(f"The message {letter.message.id} cannot be sent: {reason}")
        try:
            failed = _failed(letter.message, error)
        except StorageError as hopeless:
            outcome.unsent.append((letter, hopeless))
            return ()
        return (self._addressed(letter.index, failed, self._clock.now_ms(), ""),)

    # --- delivering ----------------------------------------------------------------------------------------

    def _deliver(self, letters: Sequence[_Letter]) -> _Outcome:
        outcome = _Outcome()
        for part in spread(self._deliver_batch, list(_batches(letters)), parallel=self._settings.parallel):
            outcome.refused += part.refused
            outcome.unsent += part.unsent
        return outcome

    def _schedule(self, letter: _Letter) -> _Outcome:
        try:
            self._schedules.create(letter.message.id, letter.body, letter.due_ms)
        except StorageError as error:
            return _Outcome(unsent=[(letter, error)])
        return _Outcome()

    def _deliver_batch(self, batch: list[_Letter]) -> _Outcome:
        """Send one batch; entries that SQS could not take for now are tried again."""
        if not batch[0].queue:
            return self._schedule(batch[0])
        outcome, left = _Outcome(), batch
        for attempt in range(_ROUNDS):
            if attempt:
                self._sleep(_BACKOFF_S * 2**attempt * random.uniform(0.5, 1))
            try:
                answer = self._clients.sqs.send_message_batch(
                    QueueUrl=batch[0].queue, Entries=[letter.entry for letter in left]
                )
            except aws_errors() as error:
                return self._refused_whole(left, error, outcome)
            failed = {entry["Id"]: entry for entry in answer.get("Failed", [])}
            left = [letter for letter in left if str(letter.index) in failed]
            for letter in left.copy():
                entry: Any = failed[str(letter.index)]
                if is_permanent(entry["Code"], sender_fault=entry["SenderFault"]):
                    outcome.refused.append((letter, f"{entry['Code']}: {entry.get('Message', '')}"))
                    left.remove(letter)
            if not left:
                return outcome
            _logger.warning("SQS took %d of %d messages for now", len(batch) - len(left), len(batch))
        outcome.unsent += [(letter, _exhausted(letter)) for letter in left]
        return outcome

    def _refused_whole(self, left: list[_Letter], error: Exception, outcome: _Outcome) -> _Outcome:
        ours = left[0].queue in (self._settings.events_queue, self._settings.delay_queue)
        if is_permanent(code_of(error)) and not ours:
            outcome.refused += [(letter, str(error)) for letter in left]
        else:
            failure = storage_error(f"send {len(left)} messages to {left[0].queue}", error)
            outcome.unsent += [(letter, failure) for letter in left]
        return outcome


def check_size(size: int) -> None:
    """Refuse a body that no message may have.

    Raises:
        PayloadError: it is too large.
    """
    if size > LARGEST_BODY_BYTES:
        raise PayloadError(
            f"A payload of {size} bytes is more than the {LARGEST_BODY_BYTES} that travel. Store it yourself "
            "(S3, a database) and pass on where it is."
        )


def _local(task: ActivityTask) -> bool:
    """Whether the orchestrator's own function runs it, so that it travels as an event does."""
    return task.options is not None and task.options.mode == "local"


def _batches(letters: Sequence[_Letter]) -> Iterable[list[_Letter]]:
    """Letters to the same queue, at most ten and 1 MiB together; those for the scheduler one by one."""
    by_queue: dict[str, list[_Letter]] = {}
    for letter in letters:
        by_queue.setdefault(letter.queue, []).append(letter)
    for queued in by_queue.values():
        batch: list[_Letter] = []
        size = 0
        for letter in queued:
            letter_size = len(letter.body.encode())
            if batch and (not letter.queue or len(batch) == _BATCH_ENTRIES or size + letter_size > _BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(letter)
            size += letter_size
        yield batch


def _failed(message: Message, error: Exception) -> Outgoing:
    """The event that what was asked for cannot be done.

    Raises:
        StorageError: the message is about nothing that was asked for.
    """
    failure = failure_of(error)
    match message:
        case (
            ActivityTask(key=key, attempt=attempt)
            | CallbackDeadline(task=ActivityTask(key=key, attempt=attempt))
            | HeartbeatCheck(task=ActivityTask(key=key, attempt=attempt))
        ):
            return Outgoing(
                EventMessage(run=key.run, event=ActivityFailed(seq=key.seq, failure=failure, attempt=attempt))
            )
        case EventMessage(run=run, event=ActivityCompleted(seq=seq, attempt=attempt)):
            return Outgoing(EventMessage(run=run, event=ActivityFailed(seq=seq, failure=failure, attempt=attempt)))
        case Errand(action="start"):
            return Outgoing(EventMessage(run=message.run, event=ChildFailed(seq=message.key.seq, failure=failure)))
        case Errand(action="signal"):
            return Outgoing(EventMessage(run=message.run, event=SignalFailed(seq=message.key.seq, failure=failure)))
        case _:
            raise StorageError(str(error)) from error


def _exhausted(letter: _Letter) -> StorageError:
    return StorageError(
        f"SQS did not take {letter.message.id} in {_ROUNDS} attempts. The message that caused it returns."
    )
