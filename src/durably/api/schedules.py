"""What a schedule is: when, under which policies, what it starts; and what can be said to it. No clock is read here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Literal, TypeAlias

from durably.core.channels import Query, Signal
from durably.core.errors import ConfigurationError, DefinitionError
from durably.core.retry import LONGEST

Overlap: TypeAlias = Literal["skip", "buffer_one", "buffer_all", "cancel_other", "allow_all"]
StartStatus: TypeAlias = Literal["running", "completed", "failed", "cancelled", "not started", "not followed"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHORTEST = timedelta(seconds=1)


@dataclass(frozen=True)
class Cron:
    """Instants of a cron expression: minute, hour, day of month, month, day of week; six fields begin with seconds.

    Daylight saving is treated as Debian's cron does: what falls into the hour that is skipped starts when it is over,
    and what falls into the hour that comes twice starts once.
    """

    expression: str
    zone: str = "UTC"


@dataclass(frozen=True)
class Every:
    """Each multiple of `interval` since 1970-01-01T00:00Z, plus `offset`."""

    interval: timedelta
    offset: timedelta = timedelta(0)


@dataclass(frozen=True)
class Once:
    """One instant."""

    at: datetime


When: TypeAlias = Cron | Every | Once


@dataclass(frozen=True)
class Schedule:
    """When executions start, and under which policies.

    Attributes:
        when: their instants.
        overlap: what if an earlier one still runs: "skip" the new one; keep one ("buffer_one") or up to 1,000
            ("buffer_all") for later; ask the earlier one to cancel itself and start ("cancel_other"); or start
            ("allow_all").
        jitter: each start is put off by a length between nothing and this, always the same for the same instant.
        catch_up: instants missed while nothing ran are made up for if they are no older than this.
        paused: whether nothing is started for now.
        note: why it is paused, or was resumed.
    """

    when: When
    _: KW_ONLY
    overlap: Overlap = "skip"
    jitter: timedelta = timedelta(0)
    catch_up: timedelta = timedelta(days=1)
    paused: bool = False
    note: str = ""


@dataclass(frozen=True)
class Action:
    """What a schedule starts: an orchestrator, by persisted name, with its input as JSON text."""

    orchestrator: str
    input: str


@dataclass
class Start:
    """An execution that a schedule started, or is to start.

    Attributes:
        execution_id: made of the schedule's id and the instant, so that nothing starts twice.
        scheduled_for: the instant; None where it was triggered by hand.
        started_at: when it was asked for.
        status: "not started" where the id was taken, "not followed" where the schedule forgot about it.
    """

    execution_id: str
    scheduled_for: datetime | None = None
    started_at: datetime | None = None
    status: StartStatus = "running"


@dataclass(frozen=True)
class Progress:
    """What a schedule knows about itself; goes from run to run.

    Attributes:
        since: every instant up to this one is dealt with.
        buffered: what waits for an earlier execution to end.
        started: how many executions it has started.
        recent: the latest of them, the newest last.
        held: what was in the buffer when the schedule was paused.
    """

    since: datetime
    buffered: list[Start] = field(default_factory=list[Start])
    started: int = 0
    recent: list[Start] = field(default_factory=list[Start])
    held: list[Start] = field(default_factory=list[Start])


@dataclass(frozen=True)
class ScheduleState:
    """A schedule as it stands.

    Attributes:
        schedule: its definition.
        action: what it starts.
        next: the next instants, jitter left out; none while it is paused.
        progress: what it has done.
    """

    schedule: Schedule
    action: Action
    next: list[datetime]
    progress: Progress


@dataclass(frozen=True)
class Pause:
    """Start nothing for now."""

    note: str
    kind: Literal["pause"] = "pause"


@dataclass(frozen=True)
class Resume:
    """Go on with the next instant; those that passed meanwhile are not made up for."""

    note: str
    kind: Literal["resume"] = "resume"


@dataclass(frozen=True)
class Trigger:
    """Start one now, also while paused; by the schedule's own overlap policy unless another is given."""

    execution_id: str
    overlap: Overlap | None = None
    kind: Literal["trigger"] = "trigger"


@dataclass(frozen=True)
class Backfill:
    """Start those of a time span, both ends included, that were not started; also while paused."""

    since: datetime
    until: datetime
    overlap: Overlap = "buffer_all"
    kind: Literal["backfill"] = "backfill"


@dataclass(frozen=True)
class Change:
    """Go on with another definition, from now. It stays paused if it is; None keeps what is started."""

    schedule: Schedule
    action: Action | None = None
    kind: Literal["change"] = "change"


Command: TypeAlias = Pause | Resume | Trigger | Backfill | Change
COMMAND = Signal[Command]("durably.schedule")
STATE = Query[ScheduleState]("durably.schedule")


def instants(when: When, after: datetime) -> Iterator[datetime]:
    """The instants later than `after`, in UTC and whole milliseconds.

    Raises:
        ConfigurationError: reading cron expressions needs a library that is not installed.
        DefinitionError: `when` cannot be understood.
    """
    for instant in _instants(when, after):
        at = instant.astimezone(UTC)
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        if at > after:
            yield at


def _instants(when: When, after: datetime) -> Iterator[datetime]:
    """Those instants, and perhaps some before them."""
    match when:
        case Once(at):
            return iter([at])
        case Every(interval, offset):
            first = (after - _EPOCH - offset) // interval
            return (_EPOCH + offset + interval * number for number in count(first))
        case Cron():
            return _cron(when, after)


def due_at(schedule_id: str, schedule: Schedule, instant: datetime) -> datetime:
    """When the execution of an instant starts. Its jitter follows from the instant, so it is the same in each run."""
    drawn = int.from_bytes(hashlib.sha256(f"{schedule_id}/{instant.isoformat()}".encode()).digest()[:8], "big")
    jitter_ms = schedule.jitter // timedelta(milliseconds=1) * drawn >> 64
    return instant + timedelta(milliseconds=jitter_ms)


def check_schedule(schedule: Schedule) -> Schedule:
    """`schedule`, if it makes sense.

    Raises:
        DefinitionError: it does not.
        ConfigurationError: reading cron expressions needs a library that is not installed.
    """
    match schedule.when:
        case Every(interval) if interval < _SHORTEST:
            raise DefinitionError(f"A schedule's interval is at least 1 s, got {interval}.")
        case Every(interval, offset) if max(interval, abs(offset)) > LONGEST:
            raise DefinitionError(f"A schedule's interval and offset are at most {LONGEST.days} days.")
        case Once(at) if at.tzinfo is None:
            raise DefinitionError(f"Which zone is {at.isoformat()} in? Give the instant of a schedule with its zone.")
        case _:
            next(instants(schedule.when, _EPOCH), None)
    for name, length in (("jitter", schedule.jitter), ("catch_up", schedule.catch_up)):
        if length < timedelta(0):
            raise DefinitionError(f"A schedule's {name} cannot be negative, got {length}.")
        if length > LONGEST:
            raise DefinitionError(f"A schedule's {name} is at most {LONGEST.days} days, got {length}.")
    return schedule


def _cron(when: Cron, after: datetime) -> Iterator[datetime]:
    from zoneinfo import ZoneInfo  # with cronsim: only who has cron schedules needs it

    try:
        from cronsim import CronSim, CronSimError
    except ImportError as error:
        raise ConfigurationError(
            "Cron expressions are read by the package cronsim, which is missing: pip install 'durably[schedules]'."
        ) from error
    try:
        zone = UTC if when.zone == "UTC" else ZoneInfo(when.zone)
    except (LookupError, OSError, ValueError) as error:
        raise DefinitionError(f"There is no time zone {when.zone!r} here, such as 'Europe/Berlin'.") from error
    try:
        return CronSim(when.expression, after.astimezone(zone))
    except CronSimError as error:
        raise DefinitionError(
            f"{when.expression!r} is no cron expression: {error}. Write minute, hour, day of month, month and day of "
            "week, such as '30 2 * * 1-5'."
        ) from error
