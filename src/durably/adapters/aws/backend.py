"""`AwsBackend`: the contract of `durably.ports.backend` on DynamoDB, SQS, S3 and EventBridge Scheduler.

Where SQLite has one transaction, this has an order: what is stored first makes the redelivery of the message,
which is deleted last, repeat all that lies between.
"""

from __future__ import annotations

from collections.abc import Sequence

from durably.adapters.aws.clients import Clients
from durably.adapters.aws.settings import AwsSettings
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.ports.backend import (
    CommitOutcome,
    CreateOutcome,
    Creation,
    Page,
    Settlement,
    SettleOutcome,
    TurnCommit,
)
from durably.ports.clock import Clock
from durably.ports.messages import Delivery, Outgoing
from durably.ports.records import ActivityItem, Record, Status


class AwsBackend:
    """Storage with queues on AWS. Implements `Backend`; `keep` keeps nothing.

    Messages are delivered to Lambda functions, whose answer deletes them. So `acknowledge` only remembers:

    Attributes:
        acknowledged: receipts (SQS message ids) of this invocation's records that are dealt with. The handler clears it,
            and reports every other record as failed.
    """

    def __init__(self, settings: AwsSettings, *, clients: Clients, clock: Clock) -> None:
        self._settings = settings
        self._clients = clients
        self._clock = clock
        self.acknowledged: set[str] = set()
