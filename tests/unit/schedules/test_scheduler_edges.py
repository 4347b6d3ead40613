"""Schedules where things happen at once: instants, ends, pauses and new runs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durably import DefinitionError
from durably.api import scheduler
from durably.api.schedules import due_at
from durably.schedules import Every, Once, Schedule
from tests.unit.schedules.test_scheduler import HOUR, Scene, at, job, long_job


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_who_is_cancelled_before_it_began_does_not_hold_up_the_next_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "_LONG", 7)
    scene.schedules.create("s", Schedule(Every(HOUR), overlap="cancel_other"), job)
    scene.work()
    scene.sleep_until("2026-01-01T03:30Z")  # three instants pass at once
    scene.until("2026-01-01T09:30Z")
    assert [at(text).hour for text in scene.started()] == [3, 4, 5, 6, 7, 8, 9]
    assert scene.process.client.describe("schedule:s").run > 1
    assert "running" not in scene.statuses().values()


def test_what_is_put_off_until_the_earlier_one_has_ended_starts(scene: Scene) -> None:
    schedule = Schedule(Every(HOUR), jitter=HOUR)
    scene.schedules.create("s", schedule, long_job)
    for hour in range(1, 12):  # each ends after the instant of the next one, and just before that is due
        following = due_at("s", schedule, at("2026-01-01T01:00Z") + hour * HOUR)
        scene.until((following - timedelta(seconds=1)).isoformat())
        for record in list(scene.process.client.list(orchestrator="long_job", status="running")):
            scene.end(record.execution_id)
    assert [at(text).hour for text in scene.started()] == list(range(1, 12))


def test_what_waits_in_the_buffer_does_not_start_while_the_schedule_is_paused(scene: Scene) -> None:
    scene.schedules.create("s", Schedule(Every(HOUR), overlap="buffer_all"), long_job)
    scene.until("2026-01-01T03:30Z")
    scene.schedules.pause("s", "maintenance")
    scene.work()
    scene.end("s/2026-01-01T01:00:00Z")
    scene.schedules.trigger("s", request_id="by-hand")
    scene.work()
    assert scene.started() == ["2026-01-01T01:00:00Z", "by-hand"]
    scene.end("s/by-hand")
    scene.schedules.resume("s")
    scene.work()
    assert [at(text).hour for text in scene.started()[:-1]] == [1, 2]


def test_a_long_backlog_is_made_up_for_in_short_runs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_LONG", 7)
    monkeypatch.setattr(scheduler, "_MOST_AT_ONCE", 3)
    scene.schedules.create("s", Schedule(Every(HOUR), overlap="allow_all"), job)
    scene.work()
    scene.sleep_until("2026-01-01T20:10Z")
    scene.until("2026-01-01T21:00Z")
    assert [at(text).hour for text in scene.started()] == list(range(1, 22))
    assert scene.process.client.describe("schedule:s").run > 3


def test_an_instant_in_the_far_future_is_waited_for(scene: Scene) -> None:
    scene.schedules.create("s", Once(at("2150-01-01T00:00Z")), job)
    scene.until("2149-12-31T23:59Z")
    assert scene.process.record("schedule:s").status == "running"
    scene.until("2150-01-01T00:00Z")
    assert scene.started() == ["2150-01-01T00:00:00Z"]


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(Every(HOUR), catch_up=timedelta(days=900_000)),
        Schedule(Every(HOUR), jitter=timedelta(days=900_000)),
        Schedule(Every(timedelta(days=900_000))),
        Schedule(Every(HOUR, offset=timedelta(days=-900_000))),
    ],
)
def test_lengths_beyond_the_calendar_are_refused(scene: Scene, schedule: Schedule) -> None:
    with pytest.raises(DefinitionError, match="at most 36500 days"):
        scene.schedules.create("s", schedule, job)
