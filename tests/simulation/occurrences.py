"""What must hold of a schedule: what is due starts, once, not early, and as its overlap policy says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

from durably.api.scheduler import PREFIX
from durably.api.schedules import COMMAND, Backfill, Change, Once, Overlap, Pause, Resume, Schedule, Trigger, due_at
from durably.api.schedules import instants as instants_of
from durably.codec.payloads import PydanticCodec
from durably.core.context import instant as instant_of
from durably.core.events import (
    ActivityCompleted,
    ActivityScheduled,
    ChildCancelRequested,
    ChildCompleted,
    ChildFailed,
    ChildScheduled,
    InboundEvent,
    OutboundEvent,
    SignalReceived,
)
from tests.simulation.effects import ordered
from tests.simulation.lives import Life
from tests.simulation.schedules import NAME

if TYPE_CHECKING:
    from tests.simulation.world import World

_FOR_EVER = datetime(9999, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_COMMANDS = PydanticCodec().value(COMMAND.payload_type)


@dataclass
class _Asked:
    """What was started, or should have been: by the clock, by a backfill or by hand."""

    id: str
    due: datetime
    noticed: datetime  # when the schedule could deal with it
    overlap: Overlap


@dataclass
class _Started:
    """An execution that was started, and when it ended as far as the schedule knows."""

    id: str
    at: datetime
    until: datetime = _FOR_EVER


@dataclass
class _Period:
    """A time in which the definition was the same.

    Attributes:
        obeyed: when the schedule went by it, which is later where it was looking at the clock.
        after: when it went by the next one.
    """

    schedule: Schedule
    since: datetime
    obeyed: datetime
    until: datetime = _FOR_EVER
    after: datetime = _FOR_EVER


@dataclass
class _Story:
    """What the history of a schedule tells.

    Attributes:
        looked: when it looked at the clock, and when it knew which instants had passed.
        started: in the order of their starts.
        paused: since when it is.
        pauses: when they began and ended.
        asked: by backfills and by hand.
        overlaps: all policies that it had so far.
        runs: how many there were; an old one starts nothing any more, and waits until it may end.
        unobeyed: what was asked for while it looked at the clock.
        crowded: what is wrong with what was started while another ran.
    """

    periods: list[_Period]
    runs: int
    looked: list[tuple[datetime, datetime]] = field(default_factory=list[tuple[datetime, datetime]])
    started: list[_Started] = field(default_factory=list[_Started])
    paused: datetime | None = None
    pauses: list[tuple[datetime, datetime]] = field(default_factory=list[tuple[datetime, datetime]])
    asked: list[_Asked] = field(default_factory=list[_Asked])
    overlaps: set[Overlap] = field(default_factory=set[Overlap])
    unobeyed: list[_Asked] = field(default_factory=list[_Asked])
    crowded: list[str] = field(default_factory=list[str])

    def noticed(self, due: datetime) -> datetime:
        """When it could deal with what was due then."""
        return next((knew for looked, knew in self.looked if looked >= due), _FOR_EVER)

    def settled(self, instant: datetime) -> datetime:
        """When it did not have to look at the clock once more, since that had gone on meanwhile."""
        for looked, knew in self.looked:
            if looked == instant:
                instant = knew
        return instant

    def obeys(self, now: datetime) -> None:
        """It does what it was asked for meanwhile."""
        for asked in self.unobeyed:
            asked.noticed = now
        self.unobeyed.clear()
        for period, later in pairwise(self.periods):
            if later.obeyed == _FOR_EVER:
                period.after = later.obeyed = now

    @property
    def end(self) -> datetime:
        return self.periods[-1].until


def schedule_promises(world: World, lives: Sequence[Life]) -> Iterator[str]:
    """What is wrong with the schedule of this world, if it has one."""
    created = world.outside.timekeepers.created
    of_it = [life for life in lives if life.record.execution_id == f"{PREFIX}{NAME}"]
    for life in of_it:
        assert created is not None
        if life.record.status not in {"completed", "terminated"}:
            yield f"the schedule is {life.record.status}: {life.record.failure}"
            return
        story = _told(life, created)
        yield from story.crowded
        yield from _superfluous(world, story)
        yield from _missing(story)
    births = Counter(life.record.execution_id for life in lives if life.record.execution_id.startswith(f"{NAME}/"))
    yield from (f"{id_} was started {count} times" for id_, count in births.items() if count > 1)


# --- what happened ------------------------------------------------------------------------------------------------


def _told(life: Life, created: Schedule) -> _Story:
    began = _at(life.runs[0][0].inbound[0])
    story = _Story([_Period(created, began, began)], len(life.runs))
    story.overlaps.add(created.overlap)
    now = began
    for turns in life.runs:
        open_: dict[int, _Started] = {}
        looking: dict[int, datetime] = {}
        for event, caused in ordered(turns):
            now = _at(event)
            _heard(story, event, now, open_, looking)
            for request in caused:
                _asked_for(story, request, now, open_, looking)
            if not looking:
                story.obeys(now)
    if story.paused is not None:
        story.pauses.append((story.paused, _FOR_EVER))
    for period in story.periods:
        period.until, period.after = min(period.until, now), min(period.after, now)
    return story


def _heard(
    story: _Story, event: InboundEvent, now: datetime, open_: dict[int, _Started], looking: dict[int, datetime]
) -> None:
    match event:
        case ActivityCompleted(seq=seq):
            story.looked.append((looking.pop(seq), now))
        case ChildCompleted(seq=seq) | ChildFailed(seq=seq) if seq in open_:
            open_.pop(seq).until = now
        case SignalReceived(payload=payload):
            _commanded(story, _COMMANDS.decode(payload), now)
        case _:
            pass


def _asked_for(
    story: _Story, request: OutboundEvent, now: datetime, open_: dict[int, _Started], looking: dict[int, datetime]
) -> None:
    match request:
        case ActivityScheduled(seq=seq, input=input_):
            looking[seq] = datetime.fromisoformat(json.loads(input_)["until"])
        case ChildCancelRequested(seq=seq) if seq in open_:
            open_.pop(seq).until = now
        case ChildScheduled(seq=seq, execution_id=id_):
            if open_ and "allow_all" not in story.overlaps:
                story.crowded.append(f"{id_} overlaps {[one.id for one in open_.values()]}")
            open_[seq] = _Started(id_, now)
            story.started.append(open_[seq])
        case _:
            pass


def _commanded(story: _Story, command: object, now: datetime) -> None:
    schedule, before = story.periods[-1].schedule, len(story.unobeyed)
    match command:
        case Pause() | Resume():
            if story.paused is not None:
                story.pauses.append((story.paused, now))
            story.paused = now if isinstance(command, Pause) else None
        case Trigger(execution_id=id_, overlap=overlap):
            story.unobeyed.append(_Asked(id_, now, _FOR_EVER, overlap or schedule.overlap))
        case Backfill(since=since, until=until, overlap=overlap):
            found = instants_of(schedule.when, since - timedelta(milliseconds=1))
            for instant in takewhile(lambda each: each <= until, found):
                story.unobeyed.append(_Asked(_id_of(instant), now, _FOR_EVER, overlap))
        case Change(schedule=schedule):
            story.periods[-1].until = now
            story.periods.append(_Period(schedule, now, _FOR_EVER))
        case _:
            raise AssertionError(command)
    story.asked.extend(story.unobeyed[before:])
    story.overlaps.update((schedule.overlap, *(each.overlap for each in story.asked)))


def _due(story: _Story) -> Iterator[tuple[_Asked, datetime, _Period]]:
    """What was due by the clock, for which instant, by which definition."""
    for period in story.periods:
        since, schedule = period.since, period.schedule
        if isinstance(schedule.when, Once) and period is story.periods[0]:
            since = min(since, schedule.when.at - timedelta(milliseconds=1))
        for instant in takewhile(lambda each: each <= period.after, instants_of(schedule.when, since)):  # noqa: B023
            due = due_at(NAME, schedule, instant)
            yield _Asked(_id_of(instant), due, story.noticed(due), schedule.overlap), instant, period


# --- what should have happened ------------------------------------------------------------------------------------


def _superfluous(world: World, story: _Story) -> Iterator[str]:
    """Nothing starts that nobody asked for, early, or twice."""
    by_clock = {asked.id: asked for asked, _, _ in _due(story)}
    by_hand = Counter(asked.id for asked in story.asked)
    counts = Counter(one.id for one in story.started)
    for one in story.started:
        asked = by_clock.get(one.id)
        if asked is None and one.id not in by_hand:
            yield f"nobody asked for {one.id}"
        if counts[one.id] > by_hand[one.id] + (asked is not None):
            yield f"{one.id} was started {counts[one.id]} times"
        if asked is not None and one.id not in by_hand:
            if one.at < asked.due:
                yield f"{one.id} was started at {one.at}, and is due at {asked.due}"
            if any(begin < asked.due and one.at < end for begin, end in story.pauses):
                yield f"{one.id} was started at {one.at}, while the schedule was paused: {story.pauses}"
    yield from (f"{id_} was triggered by nobody" for id_ in by_hand if "by-hand" in id_ and _unknown(world, id_))


def _unknown(world: World, id_: str) -> bool:
    return id_ not in world.outside.timekeepers.triggers


def _missing(story: _Story) -> Iterator[str]:
    """What was due is started, or there is a reason why it was not."""
    starts = {one.id for one in story.started}
    began = story.periods[0].since
    for asked, instant, period in _due(story):
        if not period.obeyed <= max(instant, began) <= asked.noticed <= period.after:
            continue
        old = asked.noticed - instant >= period.schedule.catch_up
        paused = any(begin <= asked.noticed and instant <= end for begin, end in story.pauses)
        if asked.id not in starts and not old and not paused and not _dropped(story, asked, instant):
            yield f"{asked} was not started, only {story.started}; {story.pauses}, {story.periods}"
    for asked in story.asked:
        if asked.id not in starts and asked.noticed <= story.end and not _dropped(story, asked, asked.due):
            yield f"{asked} was asked for and not started, only {story.started}"


def _dropped(story: _Story, asked: _Asked, since: datetime) -> bool:
    """Whether its policy allows that it was not started."""
    waits = asked.overlap in {"buffer_one", "buffer_all"}
    if waits and any(one.until >= story.end - _SECOND for one in story.started):
        return True  # it waited until the schedule ended
    if waits and any(end >= story.end for _, end in story.pauses):
        return True  # it was held until then
    if "cancel_other" in story.overlaps:
        # before this one could be started
        latest = _FOR_EVER if story.runs > 1 else story.settled(asked.noticed) + 2 * _SECOND
        if waits or any(asked.due <= one.at <= latest and one.id != asked.id for one in story.started):
            return True
        if any(asked.due <= begin and end >= story.end for begin, end in story.pauses):
            return True  # what took its place was held until the schedule ended
    busy = any(one.at <= asked.noticed and since <= one.until for one in story.started)
    if asked.overlap == "buffer_one" and len(story.overlaps) == 1:
        return busy and any(one.at >= asked.due for one in story.started)
    return busy and asked.overlap in {"skip", "buffer_one"}


def _id_of(instant: datetime) -> str:
    return f"{NAME}/{instant.isoformat(timespec='seconds').replace('+00:00', 'Z')}"


def _at(event: InboundEvent) -> datetime:
    return instant_of(event.at_ms)
