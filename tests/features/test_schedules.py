"""Schedules: when executions start, and what if an earlier one still runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from durably import Context, ExecutionNotFoundError, Signal, orchestrator
from durably.api.schedules import due_at
from durably.schedules import Cron, Every, Once, Overlap, Schedule, Schedules, scheduled_for
from tests.features.places import Place

DONE = Signal[None]("done")
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@orchestrator
async def report(ctx: Context, kind: str) -> str:
    at = scheduled_for(ctx)
    return kind if at is None else f"{kind} {at.astimezone(UTC):%H:%M}"


@orchestrator
async def long_job(ctx: Context) -> None:
    """Runs until it is told that it is done, or to stop."""
    await ctx.receive(DONE)


@pytest.fixture
def schedules(place: Place) -> Schedules:
    """At half past an hour."""
    client = place.deploy(report, long_job)
    place.advance(_next(place, HOUR) - place.now + 30 * MINUTE)
    return Schedules(client)


def _next(place: Place, interval: timedelta) -> datetime:
    """The next multiple of an interval."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + ((place.now - epoch) // interval + 1) * interval


def started(place: Place, schedule_id: str) -> dict[str, str]:
    """The latest that a schedule started, by instant, and how they are."""
    place.settle()
    recent = [start.execution_id for start in Schedules(place.client).describe(schedule_id).progress.recent]
    return {id_.removeprefix(f"{schedule_id}/"): place.client.describe(id_).status for id_ in recent}


def hours(place: Place, schedule_id: str) -> list[int]:
    return [datetime.fromisoformat(text).hour for text in started(place, schedule_id)]


# --- when ------------------------------------------------------------------------------------------------------------


def test_an_interval_starts_an_execution_at_each_of_its_instants(place: Place, schedules: Schedules) -> None:
    first = _next(place, HOUR)
    schedules.create("s", Every(HOUR), report, "hourly")
    assert schedules.describe("s").next[:2] == [first, first + HOUR]
    place.advance(3 * HOUR)
    assert started(place, "s") == {f"{first + n * HOUR:%Y-%m-%dT%H:%M:%SZ}": "completed" for n in range(3)}
    assert place.result(f"s/{first:%Y-%m-%dT%H:%M:%SZ}") == f"hourly {first:%H:%M}"
    assert [summary.schedule_id for summary in schedules.list()] == ["s"]


def test_cron_is_read_in_its_time_zone(place: Place, schedules: Schedules) -> None:
    schedules.create("s", Cron("15 2 * * *", "Asia/Kolkata"), report, "nightly")
    place.advance(timedelta(days=2))
    zone = ZoneInfo("Asia/Kolkata")
    local = [datetime.fromisoformat(text).astimezone(zone) for text in started(place, "s")]
    assert [(at.hour, at.minute) for at in local] == [(2, 15)] * 2


def test_a_one_off_starts_once_and_the_schedule_ends(place: Place, schedules: Schedules) -> None:
    schedules.create("s", Once(place.now + 2 * HOUR), report, "launch")
    place.advance(HOUR)
    assert started(place, "s") == {}
    place.advance(2 * HOUR)
    assert list(started(place, "s").values()) == ["completed"]
    assert list(schedules.list()) == []


# --- overlap ---------------------------------------------------------------------------------------------------------

OVERLAPS: dict[Overlap, tuple[list[str], list[str]]] = {  # after three hours, and when the first is done
    "skip": (["running"], ["completed"]),
    "buffer_one": (["running"], ["completed", "running"]),
    "buffer_all": (["running"], ["completed", "running"]),
    "cancel_other": (["cancelled", "cancelled", "running"], ["cancelled", "cancelled", "running"]),
    "allow_all": (["running"] * 3, ["completed", "running", "running"]),
}


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_what_overlaps_is_dealt_with_by_policy(place: Place, schedules: Schedules, overlap: Overlap) -> None:
    before, after = OVERLAPS[overlap]
    schedules.create("s", Schedule(Every(HOUR), overlap=overlap), long_job)
    place.advance(3 * HOUR)
    assert list(started(place, "s").values()) == before
    first = next(iter(started(place, "s")))
    if before[0] == "running":
        place.client.signal(f"s/{first}", DONE, None)
    assert list(started(place, "s").values()) == after
    buffered = len(schedules.describe("s").progress.buffered)
    assert buffered == (1 if overlap == "buffer_all" else 0)


# --- policies --------------------------------------------------------------------------------------------------------


def test_jitter_puts_each_start_off_by_its_own_length(place: Place, schedules: Schedules) -> None:
    schedule = Schedule(Every(6 * HOUR), jitter=5 * HOUR)
    schedules.create("s", schedule, report, "late")
    place.advance(24 * HOUR)
    starts = schedules.describe("s").progress.recent
    assert len(starts) >= 3
    puts_off: set[timedelta] = set()
    for start in starts:
        assert start.scheduled_for is not None
        assert start.started_at is not None
        due = due_at("s", schedule, start.scheduled_for)
        assert timedelta(0) <= start.started_at - due < 2 * MINUTE
        puts_off.add(due - start.scheduled_for)
    assert len(puts_off) == len(starts)


def test_what_was_missed_is_made_up_for_within_the_catch_up_window(place: Place, schedules: Schedules) -> None:
    schedules.create("s", Schedule(Every(HOUR), overlap="allow_all", catch_up=100 * MINUTE), report, "missed")
    place.settle()
    now = place.now
    place.tick(5 * HOUR)  # nothing runs meanwhile
    assert hours(place, "s") == [(now + n * HOUR).hour for n in (4, 5)]


def test_a_paused_schedule_starts_nothing_and_says_why(place: Place, schedules: Schedules) -> None:
    schedules.create("s", Every(HOUR), report, "paused")
    schedules.pause("s", "the warehouse moves")
    place.advance(2 * HOUR)
    assert started(place, "s") == {}
    state = schedules.describe("s")
    assert (state.schedule.paused, state.schedule.note, state.next) == (True, "the warehouse moves", [])
    schedules.resume("s", "it has moved")
    place.advance(HOUR)
    assert len(started(place, "s")) == 1
    assert schedules.describe("s").schedule.note == "it has moved"


def test_a_trigger_starts_one_now_also_while_paused_and_once(place: Place, schedules: Schedules) -> None:
    schedules.create("s", Schedule(Every(HOUR), paused=True), report, "by hand")
    for _ in range(2):
        assert schedules.trigger("s", request_id="now") == "s/now"
        place.settle()
    assert place.result("s/now") == "by hand"
    assert schedules.describe("s").progress.started == 1


def test_a_backfill_starts_what_was_not_started(place: Place, schedules: Schedules) -> None:
    now = place.now
    schedules.create("s", Every(HOUR), report, "backfilled")
    place.advance(HOUR)
    schedules.backfill("s", now - 3 * HOUR, now + HOUR)
    assert sorted(hours(place, "s")) == sorted((now + n * HOUR).hour for n in (-2, -1, 0, 1))
    assert set(started(place, "s").values()) == {"completed"}


def test_a_schedule_is_changed_and_deleted(place: Place, schedules: Schedules) -> None:
    schedules.create("s", Every(HOUR), long_job)
    schedules.update("s", Every(2 * HOUR), report, "changed")
    place.advance(4 * HOUR)
    results = [place.result(f"s/{text}") for text in started(place, "s")]
    assert [text.startswith("changed") for text in results] == [True, True]
    schedules.delete("s")
    place.advance(4 * HOUR)
    assert len(started(place, "s")) == 2
    assert list(schedules.list()) == []
    with pytest.raises(ExecutionNotFoundError, match="There is no schedule 's'"):
        schedules.pause("s")
