"""The function that a schedule calls every few minutes: it wakes what nobody would wake otherwise.

Two kinds: executions whose start was stored and whose wake was not sent, and, once after each deployment of other
orchestrators, the stalled ones.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from durably.adapters.aws import keys
from durably.adapters.aws.faults import aws_errors, storage_error
from durably.api.orchestrator import Orchestrator
from durably.aws.batch import seconds_left
from durably.aws.surroundings import Surroundings, prepare_in_lambda
from durably.ports.messages import Outgoing, Wake
from durably.ports.records import Record

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

_logger = logging.getLogger("durably.sweeper")
_RESERVE_S = 2.0
_GRACE_MS = 60_000  # a start this young may still be on its way
_OVERLAP_MS = 300_000  # records appear late in the index, and clocks differ
_MOST = 1_000
_BACKLOG = 1_000


@dataclass(slots=True)
class Progress:
    """How far the sweeps have come.

    Attributes:
        swept_ms: per shard, up to which start every record has been looked at.
        stalled: cursor of the next page of stalled executions; None for the first.
        version: of the orchestrators for which every stalled execution has been woken.
    """

    swept_ms: list[int] = field(default_factory=lambda: [0] * keys.STATUS_SHARDS)
    stalled: str | None = None
    version: str = ""


def sweeper_handler(*orchestrators: Orchestrator[..., Any], surroundings: Surroundings | None = None) -> SweeperHandler:
    """The handler of the function that a schedule calls.

    Args:
        orchestrators: as given to `orchestrator_handler`; their version says whether there is other code to try.
        surroundings: instead of those that the environment describes.
    """
    return SweeperHandler(orchestrators, surroundings)


class SweeperHandler:
    """Looks at a bounded number of executions and remembers where to go on. To look twice does no harm."""

    def __init__(self, orchestrators: Sequence[Orchestrator[..., Any]], surroundings: Surroundings | None) -> None:
        self.orchestrators = tuple(orchestrators)
        self._given = surroundings
        prepare_in_lambda(lambda: self._surroundings)

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG002
        """Sweep; how many executions were looked at and woken."""
        progress = self._read_progress()
        looked, woken = self._sweep_starts(progress, context)
        stalled = self._wake_stalled(progress)
        self._write_progress(progress)
        if woken:
            _logger.warning("woke %d executions whose start had not been followed by a turn", woken)
        return {"looked_at": looked, "woken": woken, "stalled": stalled}

    @cached_property
    def _surroundings(self) -> Surroundings:
        return self._given or Surroundings.from_environment()

    @cached_property
    def _version(self) -> str:
        return self._surroundings.registry(self.orchestrators).code_version

    def _sweep_starts(self, progress: Progress, context: LambdaContext) -> tuple[int, int]:
        if self._busy():
            return 0, 0  # that they took no turn yet is no news then
        before_ms = self._surroundings.clock.now_ms() - _GRACE_MS
        looked = woken = 0
        for shard in sorted(range(keys.STATUS_SHARDS), key=lambda each: progress.swept_ms[each]):
            after_ms = max(0, progress.swept_ms[shard] - _OVERLAP_MS)
            for record in self._surroundings.backend.started(shard, after_ms=after_ms, before_ms=before_ms):
                if looked >= _MOST or seconds_left(context) < _RESERVE_S:
                    return looked, woken
                looked += 1
                if not self._took_a_turn(record):
                    self._surroundings.backend.send([Outgoing(Wake(run=record.key, turn=1))])
                    woken += 1
                progress.swept_ms[shard] = max(progress.swept_ms[shard], record.started_at_ms)
            progress.swept_ms[shard] = before_ms
        return looked, woken

    def _wake_stalled(self, progress: Progress) -> int:
        """Wake a page of stalled executions, unless the code that they stalled under is all there is."""
        if progress.version == self._version:
            return 0
        page = self._surroundings.backend.list_records(status="stalled", cursor=progress.stalled)
        wakes = [
            Outgoing(Wake(run=record.key, turn=record.turn))
            for record in page.records
            if record.code_version != self._version
        ]
        if wakes:
            self._surroundings.backend.send(wakes)
        progress.stalled = page.cursor
        if page.cursor is None:
            progress.version = self._version
        return len(wakes)

    # --- what it asks AWS itself -----------------------------------------------------------------------------------

    def _busy(self) -> bool:
        queue = self._surroundings.settings.events_queue
        try:
            answer = self._surroundings.clients.sqs.get_queue_attributes(
                QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"]
            )
        except aws_errors() as error:
            raise storage_error(f"ask how full {queue} is", error) from error
        return int(answer["Attributes"]["ApproximateNumberOfMessages"]) > _BACKLOG

    def _took_a_turn(self, record: Record) -> bool:
        """Whether turn 2 exists: turn 1 is the start itself."""
        return self._item(*keys.turn_key(record.key, 2), projection=keys.PARTITION) is not None

    def _read_progress(self) -> Progress:
        found = self._item(*keys.SWEEPER)
        if found is None:
            return Progress()
        stored = cast("dict[str, Any]", json.loads(found["progress"]["S"]))
        return Progress(**stored)

    def _write_progress(self, progress: Progress) -> None:
        partition, sort = keys.SWEEPER
        try:
            self._surroundings.clients.dynamodb.put_item(
                TableName=self._surroundings.settings.table,
                Item={
                    keys.PARTITION: {"S": partition},
                    keys.SORT: {"S": sort},
                    "progress": {"S": json.dumps(asdict(progress))},
                },
            )
        except aws_errors() as error:
            raise storage_error("remember how far the sweep came", error) from error

    def _item(self, partition: str, sort: str, *, projection: str | None = None) -> Mapping[str, Any] | None:
        table = self._surroundings.settings.table
        key = {keys.PARTITION: {"S": partition}, keys.SORT: {"S": sort}}
        try:
            if projection is None:
                answer = self._surroundings.clients.dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True)
            else:
                answer = self._surroundings.clients.dynamodb.get_item(
                    TableName=table, Key=key, ConsistentRead=True, ProjectionExpression=projection
                )
        except aws_errors() as error:
            raise storage_error("read what the sweeper needs", error) from error
        return answer.get("Item")
