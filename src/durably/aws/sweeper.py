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
from durably.core.errors import StorageError
from durably.ports.messages import Outgoing, Wake
from durably.ports.records import Record

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

_logger = logging.getLogger("durably.sweeper")
_RESERVE_S = 2.0
_GRACE_MS = 60_000  # a start this young may still be on its way
_OVERLAP_MS = 300_000  # records appear late in the index, and clocks differ
_MOST = 5_000  # a bound for the bill; that for the time is the context's
_OFTEN = 100  # looks between two writes of the progress, which a time-out would take along
_BACKLOG = 1_000


@dataclass(slots=True)
class Progress:
    """How far the sweeps have come.

    Attributes:
        swept_ms: per shard, up to which start every record has been looked at.
        shard: the one that is being looked through, over as many sweeps as that takes; None between two.
        at_ms: start of the record in it that was looked at last.
        at_id: execution id of that record.
        until_ms: the last start that is looked for in it, fixed when that began: what appears late is found next time.
        stalled: cursor of the next page of stalled executions; None for the first.
        version: of the orchestrators for which every stalled execution has been woken.
        waking: the version for which they are being woken; the cursor is of its pages.
    """

    swept_ms: list[int] = field(default_factory=lambda: [0] * keys.STATUS_SHARDS)
    shard: int | None = None
    at_ms: int = 0
    at_id: str = ""
    until_ms: int = 0
    stalled: str | None = None
    version: str = ""
    waking: str = ""


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
        self._written = ""
        prepare_in_lambda(lambda: self._surroundings)

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG002
        """Sweep; how many executions were looked at and woken.

        Raises:
            StorageError: AWS refused something. What was done is remembered, and the next sweep goes on there.
        """
        progress = self._read_progress()
        report = {"looked_at": 0, "woken": 0, "stalled": 0}
        refused: StorageError | None = None
        for sweep in (self._wake_stalled, self._sweep_starts):
            try:
                sweep(progress, report, context)
            except StorageError as error:  # which is no reason not to try the other
                refused = refused or error
            self._write_progress(progress)
        if report["woken"]:
            _logger.warning("woke %d executions whose start had not been followed by a turn", report["woken"])
        if refused is not None:
            raise refused
        return report

    @cached_property
    def _surroundings(self) -> Surroundings:
        return self._given or Surroundings.from_environment()

    @cached_property
    def _version(self) -> str:
        return self._surroundings.registry(self.orchestrators).code_version

    def _wake_stalled(self, progress: Progress, report: dict[str, int], context: LambdaContext) -> None:
        """Wake stalled executions, unless the code that they stalled under is all there is; half of the time is theirs.

        A wake may have been sent under other code minutes ago: the version keeps SQS from taking this one for its copy.
        """
        if progress.waking != self._version:
            progress.waking, progress.stalled = self._version, None
        least_s = seconds_left(context) / 2
        while progress.version != self._version and seconds_left(context) > least_s:
            page = self._surroundings.backend.list_records(status="stalled", cursor=progress.stalled)
            wakes = [
                Outgoing(Wake(run=record.key, turn=record.turn))
                for record in page.records
                if record.code_version != self._version
            ]
            if wakes:
                self._surroundings.backend.send_again(wakes, again=self._version)
                report["stalled"] += len(wakes)
            progress.stalled = page.cursor
            if page.cursor is None:
                progress.version = self._version
            self._write_progress(progress)

    def _sweep_starts(self, progress: Progress, report: dict[str, int], context: LambdaContext) -> None:
        """Wake what was started and took no turn: where the last sweep stopped, then where none was for longest."""
        if self._busy():
            return  # that they took no turn yet is no news then
        before_ms = self._surroundings.clock.now_ms() - _GRACE_MS
        for shard in sorted(range(keys.STATUS_SHARDS), key=lambda s: (s != progress.shard, progress.swept_ms[s])):
            if shard != progress.shard:
                progress.shard, progress.at_id = shard, ""
                progress.at_ms = max(0, progress.swept_ms[shard] - _OVERLAP_MS)
                progress.until_ms = max(progress.at_ms, before_ms)
            for record in self._surroundings.backend.started(
                shard, after_ms=progress.at_ms, before_ms=progress.until_ms
            ):
                if report["looked_at"] >= _MOST or seconds_left(context) < _RESERVE_S:
                    return
                if (record.started_at_ms, record.execution_id) <= (progress.at_ms, progress.at_id):
                    continue
                report["looked_at"] += 1
                if not self._took_a_turn(record):
                    self._surroundings.backend.send([Outgoing(Wake(run=record.key, turn=1))])
                    report["woken"] += 1
                progress.at_ms, progress.at_id = record.started_at_ms, record.execution_id
                if report["looked_at"] % _OFTEN == 0:
                    self._write_progress(progress)
            progress.swept_ms[shard], progress.shard = progress.until_ms, None

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
        self._written = "{}" if found is None else str(found["progress"]["S"])
        return Progress(**cast("dict[str, Any]", json.loads(self._written)))

    def _write_progress(self, progress: Progress) -> None:
        written = json.dumps(asdict(progress))
        if written == self._written:
            return
        partition, sort = keys.SWEEPER
        try:
            self._surroundings.clients.dynamodb.put_item(
                TableName=self._surroundings.settings.table,
                Item={
                    keys.PARTITION: {"S": partition},
                    keys.SORT: {"S": sort},
                    "progress": {"S": written},
                },
            )
        except aws_errors() as error:
            raise storage_error("remember how far the sweep came", error) from error
        self._written = written

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
