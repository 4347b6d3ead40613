"""When schedules are due: cron with its time zones, intervals, single instants, jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest

from durably.api.schedules import Cron, Every, Once, Schedule, When, check_schedule, due_at, instants
from durably.core.errors import DefinitionError

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def first(when: When, after: str, count: int = 3) -> list[str]:
    found = islice(instants(when, at(after)), count)
    return [instant.isoformat().removesuffix("+00:00") for instant in found]


def test_in_spring_what_falls_into_the_skipped_hour_starts_when_it_is_over() -> None:
    daily = Cron("30 2 * * *", BERLIN)
    assert first(daily, "2026-03-27T12:00Z") == ["2026-03-28T01:30:00", "2026-03-29T01:00:00", "2026-03-30T00:30:00"]


def test_in_autumn_what_falls_into_the_repeated_hour_starts_once() -> None:
    daily = Cron("30 2 * * *", BERLIN)
    assert first(daily, "2026-10-23T12:00Z") == ["2026-10-24T00:30:00", "2026-10-25T00:30:00", "2026-10-26T01:30:00"]


@pytest.mark.parametrize("after", ["2026-10-25T00:30Z", "2026-10-25T00:45Z", "2026-10-25T01:10Z", "2026-10-25T01:45Z"])
def test_in_the_repeated_hour_no_instant_is_found_that_has_passed(after: str) -> None:
    assert first(Cron("30 2 * * *", BERLIN), after, 1) == ["2026-10-26T01:30:00"]


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_an_hourly_schedule_runs_each_real_hour(day: str) -> None:
    found = [at(f"{text}+00:00") for text in first(Cron("0 * * * *", BERLIN), f"{day}T00:00Z", 6)]
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=1)}


@pytest.mark.parametrize("after", ["2026-03-28T00:00Z", "2026-10-24T00:00Z"])
@pytest.mark.parametrize("expression", ["30 2 * * *", "0,30 2,3 * * *", "*/20 * * * *", "15 1-4 * * *", "5 4 3 2 1 *"])
def test_instants_go_forward_and_do_not_depend_on_where_one_begins(after: str, expression: str) -> None:
    when = Cron(expression, BERLIN)
    found = list(islice(instants(when, at(after)), 60))
    assert found == sorted(set(found))
    for earlier, later in pairwise(found):
        assert next(instants(when, earlier)) == later
        assert next(instants(when, later - timedelta(milliseconds=1))) == later


def test_cron_is_in_utc_unless_it_says_otherwise() -> None:
    assert first(Cron("0 9 * * 1-5"), "2026-01-02T10:00Z", 1) == ["2026-01-05T09:00:00"]


def test_intervals_are_counted_from_the_epoch() -> None:
    assert first(Every(timedelta(hours=6)), "2026-01-01T06:00Z", 2) == ["2026-01-01T12:00:00", "2026-01-01T18:00:00"]
    offset = Every(timedelta(hours=1), offset=timedelta(minutes=5))
    assert first(offset, "2026-01-01T06:04:59Z", 2) == ["2026-01-01T06:05:00", "2026-01-01T07:05:00"]


def test_once_is_once() -> None:
    once = Once(at("2026-01-01T12:00:00.123456+01:00"))
    assert first(once, "2026-01-01T00:00Z") == ["2026-01-01T11:00:00.123000"]
    assert first(once, "2026-01-01T11:00:00.123Z") == []


def test_jitter_is_bounded_and_the_same_each_time() -> None:
    schedule = Schedule(Every(timedelta(hours=1)), jitter=timedelta(minutes=10))
    found = list(islice(instants(schedule.when, at("2026-01-01T00:00Z")), 200))
    delays = [due_at("nightly", schedule, instant) - instant for instant in found]
    assert delays == [due_at("nightly", schedule, instant) - instant for instant in found]
    assert all(timedelta(0) <= delay <= timedelta(minutes=10) for delay in delays)
    assert max(delays) - min(delays) > timedelta(minutes=8)
    assert delays != [due_at("weekly", schedule, instant) - instant for instant in found]


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        (Schedule(Cron("61 * * * *")), "is no cron expression: Bad minute"),
        (Schedule(Cron("0 0 31 2,4 *")), "is no cron expression: Bad day-of-month"),
        (Schedule(Cron("* * *")), "is no cron expression: Wrong number of fields"),
        (Schedule(Cron("0 0 * * *", "Berlin")), "no time zone 'Berlin'"),
        (Schedule(Cron("0 0 * * *", "../etc")), r"no time zone '\.\./etc'"),
        (Schedule(Every(timedelta(0))), "at least 1 s"),
        (Schedule(Once(datetime(2026, 1, 1))), "Which zone"),  # noqa: DTZ001
        (Schedule(Every(timedelta(1)), jitter=timedelta(-1)), "jitter cannot be negative"),
        (Schedule(Every(timedelta(1)), catch_up=timedelta(-1)), "catch_up cannot be negative"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(schedule: Schedule, reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        check_schedule(schedule)


def test_everything_is_in_utc() -> None:
    assert {instant.tzinfo for instant in islice(instants(Cron("0 2 * * *", BERLIN), at("2026-03-28T00:00Z")), 3)} == {
        UTC
    }
