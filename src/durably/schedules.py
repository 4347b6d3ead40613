"""Schedules: `Schedules(client).create("nightly", Cron("30 2 * * *", "Europe/Berlin"), report)`.

A schedule is an execution of an orchestrator of durably's own, so it lives wherever executions do, and its history says
what it did and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, overload
from uuid import uuid4

from durably.api.names import check_execution_id
from durably.api.orchestrator import Orchestrator
from durably.api.scheduler import PREFIX, run_schedule
from durably.api.schedules import (
    COMMAND,
    STATE,
    Action,
    Backfill,
    Change,
    Command,
    Cron,
    Every,
    Once,
    Overlap,
    Pause,
    Resume,
    Schedule,
    ScheduleState,
    Start,
    Trigger,
    When,
    check_schedule,
)
from durably.client import Client
from durably.core.context import Context
from durably.core.errors import (
    ExecutionClosedError,
    ExecutionExistsError,
    ExecutionNotFoundError,
    InvalidIdError,
)

__all__ = [
    "Action",
    "Cron",
    "Every",
    "Once",
    "Overlap",
    "Schedule",
    "ScheduleState",
    "Schedules",
    "Start",
    "Summary",
    "scheduled_for",
]

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST_ID = 200  # executions are named after it


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A schedule in a list.

    Attributes:
        schedule_id: its id.
        created_at_ms: milliseconds since the epoch.
        status: "running", or "stalled" where its execution is.
    """

    schedule_id: str
    created_at_ms: int
    status: str


class Schedules:
    """The schedules that a client reaches."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self,
        schedule_id: str,
        schedule: Schedule | When,
        orchestrator: Orchestrator[P, R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Start executions of an orchestrator, with these arguments, at the instants of a schedule.

        Their ids are SCHEDULE/INSTANT, such as `nightly/2026-03-01T01:30:00Z`.

        Raises:
            DefinitionError: the schedule makes no sense.
            InvalidIdError: the id has illegal characters or more than 200.
            ExecutionExistsError: there is a schedule of this id.
            UnknownOrchestratorError: the registry does not hold the orchestrator.
            PayloadError: an argument does not fit.
        """
        self.create_action(schedule_id, schedule, self._action(orchestrator, args, kwargs))

    def create_action(self, schedule_id: str, schedule: Schedule | When, action: Action) -> None:
        """The same with the orchestrator's persisted name and its input as JSON text.

        Raises:
            PayloadError: the input does not fit the orchestrator; and all that `create` raises.
        """
        shape = self._client.registry.input_shape(action.orchestrator)
        action = Action(action.orchestrator, shape.encode(*shape.decode(action.input)))
        options = run_schedule.options(id_reuse="allow_if_closed")
        try:
            self._client.start(_execution_of(schedule_id), options, _checked(schedule), action)
        except ExecutionExistsError as error:
            raise ExecutionExistsError(
                f"There is a schedule {schedule_id!r}. Change it with Schedules.update, or delete it first."
            ) from error

    @overload
    def update(self, schedule_id: str, schedule: Schedule | When, /) -> None: ...
    @overload
    def update(
        self,
        schedule_id: str,
        schedule: Schedule | When,
        orchestrator: Orchestrator[P, R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None: ...
    def update(
        self,
        schedule_id: str,
        schedule: Schedule | When,
        orchestrator: Any = None,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Go on with another definition, from now. Without an orchestrator it starts what it did.

        It stays paused if it is.

        Raises:
            DefinitionError: the schedule makes no sense.
            ExecutionNotFoundError: there is no such schedule.
            PayloadError: an argument does not fit.
        """
        action = None if orchestrator is None else self._action(orchestrator, args, kwargs)
        self._send(schedule_id, Change(_checked(schedule), action))

    def pause(self, schedule_id: str, note: str = "") -> None:
        """Start nothing until `resume`. What runs goes on.

        Raises:
            ExecutionNotFoundError: there is no such schedule.
        """
        self._send(schedule_id, Pause(note))

    def resume(self, schedule_id: str, note: str = "") -> None:
        """Go on with the next instant. Those that passed meanwhile are not made up for; `backfill` does that.

        Raises:
            ExecutionNotFoundError: there is no such schedule.
        """
        self._send(schedule_id, Resume(note))

    def trigger(self, schedule_id: str, *, overlap: Overlap | None = None, request_id: str | None = None) -> str:
        """Start one now, also while the schedule is paused.

        Args:
            schedule_id: which schedule.
            overlap: instead of the schedule's own policy, which may skip it.
            request_id: the same trigger, repeated under the same id, starts one.

        Returns:
            The id that the execution gets.

        Raises:
            ExecutionNotFoundError: there is no such schedule.
        """
        execution_id = check_execution_id(f"{schedule_id}/{request_id or uuid4()}")
        self._send(schedule_id, Trigger(execution_id, overlap), request_id)
        return execution_id

    def backfill(self, schedule_id: str, since: datetime, until: datetime, *, overlap: Overlap = "buffer_all") -> None:
        """Start what the schedule would have started in a time span, both ends included; at most 1,000 instants.

        What was started is not started again.

        Raises:
            ValueError: an end has no time zone, or they are in the wrong order.
            ExecutionNotFoundError: there is no such schedule.
        """
        if since.tzinfo is None or until.tzinfo is None or since > until:
            raise ValueError(f"A time span has two ends with their zones, the earlier first, got {since} and {until}.")
        self._send(schedule_id, Backfill(since, until, overlap))

    def delete(self, schedule_id: str) -> None:
        """End a schedule. What it started goes on; what waits in its buffer is not started.

        Raises:
            ExecutionNotFoundError: there is no such schedule.
        """
        try:
            self._client.terminate(_execution_of(schedule_id), "the schedule was deleted")
        except (ExecutionNotFoundError, ExecutionClosedError) as error:
            raise _missing(schedule_id) from error

    def describe(self, schedule_id: str) -> ScheduleState:
        """A schedule as it stands: definition, next instants, recent starts, what is buffered.

        Raises:
            ExecutionNotFoundError: there is no such schedule.
        """
        try:
            return self._client.query(_execution_of(schedule_id), STATE)
        except ExecutionNotFoundError as error:
            raise _missing(schedule_id) from error

    def list(self) -> Iterator[Summary]:
        """All schedules that are not deleted and have instants left, the newest first."""
        for record in self._client.list(orchestrator=run_schedule.name):
            if not record.closed:
                yield Summary(
                    schedule_id=record.execution_id.removeprefix(PREFIX),
                    created_at_ms=record.started_at_ms,
                    status=record.status,
                )

    def _action(self, orchestrator: Orchestrator[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Action:
        shape = self._client.registry.input_shape(orchestrator.name)
        return Action(orchestrator.name, shape.encode(args, kwargs))

    def _send(self, schedule_id: str, command: Command, request_id: str | None = None) -> None:
        try:
            self._client.signal(_execution_of(schedule_id), COMMAND, command, request_id=request_id)
        except (ExecutionNotFoundError, ExecutionClosedError) as error:
            raise _missing(schedule_id) from error


def scheduled_for(ctx: Context) -> datetime | None:
    """The instant for which a schedule started this execution; None if no schedule did, or it was triggered by hand."""
    try:
        instant = datetime.fromisoformat(ctx.execution_id.rpartition("/")[2])
    except ValueError:
        return None
    return instant if instant.tzinfo is not None else None


def _checked(schedule: Schedule | When) -> Schedule:
    return check_schedule(schedule if isinstance(schedule, Schedule) else Schedule(schedule))


def _execution_of(schedule_id: str) -> str:
    if len(schedule_id) > _LONGEST_ID:
        raise InvalidIdError(f"A schedule's id has at most {_LONGEST_ID} characters, got {len(schedule_id)}.")
    return check_execution_id(f"{PREFIX}{schedule_id}")


def _missing(schedule_id: str) -> ExecutionNotFoundError:
    return ExecutionNotFoundError(f"There is no schedule {schedule_id!r}.")
