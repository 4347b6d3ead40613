"""One-off EventBridge schedules for messages that are due in more than the 900 s that SQS can delay.

The scheduler is exact to 60 s (AWS docs, "Schedule types"). So a schedule fires early, into the delay queue, whose
consumer sends the message back to that queue for the seconds that are left.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from durably.adapters.aws import keys
from durably.adapters.aws.clients import Clients
from durably.adapters.aws.faults import aws_errors, code_of, storage_error
from durably.adapters.aws.settings import AwsSettings

EARLY_MS = 120_000
_LAST = datetime(9999, 12, 31, tzinfo=UTC)
_logger = logging.getLogger("durably.aws")


class Schedules:
    """The deployment's one-off schedules."""

    def __init__(self, settings: AwsSettings, clients: Clients) -> None:
        self._settings = settings
        self._clients = clients

    def create(self, message_id: str, body: str, due_ms: int) -> None:
        """Have `body` sent to the delay queue shortly before it is due. A schedule that is there already is this one.

        Raises:
            StorageError: the scheduler refused.
        """
        settings = self._settings
        try:
            self._clients.scheduler.create_schedule(
                Name=keys.schedule_name(message_id),
                GroupName=settings.schedule_group,
                ScheduleExpression=f"at({_instant(due_ms - EARLY_MS):%Y-%m-%dT%H:%M:%S})",
                ScheduleExpressionTimezone="UTC",
                FlexibleTimeWindow={"Mode": "OFF"},
                ActionAfterCompletion="DELETE",
                Target={
                    "Arn": settings.delay_queue_arn,
                    "RoleArn": settings.schedule_role,
                    "Input": body,
                    "DeadLetterConfig": {"Arn": settings.delay_dead_letters_arn},
                    "RetryPolicy": {"MaximumEventAgeInSeconds": 86_400, "MaximumRetryAttempts": 185},
                },
            )
        except aws_errors() as error:
            if code_of(error) != "ConflictException":
                raise storage_error(f"schedule {message_id}", error) from error

    def delete(self, message_id: str) -> None:
        """Delete a schedule that nobody needs any more. Should it stay, its message is dropped where it arrives."""
        name = keys.schedule_name(message_id)
        try:
            self._clients.scheduler.delete_schedule(Name=name, GroupName=self._settings.schedule_group)
        except aws_errors() as error:
            if code_of(error) != "ResourceNotFoundException":
                _logger.warning("the schedule of %s stays until it fires: %s", message_id, error)


def _instant(ms: int) -> datetime:
    latest_ms = int(_LAST.timestamp()) * 1000
    return datetime.fromtimestamp(min(ms, latest_ms) // 1000, UTC)
