"""Schedules as executions: what is started, when, under which policy, and that nothing starts twice."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from durably import Context, DefinitionError, ExecutionExistsError, ExecutionNotFoundError, Signal, orchestrator
from durably.api import scheduler
from durably.api.schedules import Overlap
from durably.core.context import instant
from durably.core.errors import UnknownOrchestratorError
from durably.core.execution import Execution
from durably.core.replay import replay
from durably.schedules import Cron, Every, Once, Schedule, Schedules, scheduled_for
from tests.contract.harness import ManualClock
from tests.unit.runtime.harness import CODEC, Process

END = Signal[None]("end")
HOUR = timedelta(hours=1)


@orchestrator
async def job(ctx: Context, name: str = "job") -> str:
    instant = scheduled_for(ctx)
    return f"{name} {None if instant is None else instant.strftime('%H:%M')}"


@orchestrator
async def long_job(ctx: Context) -> None:
    await ctx.receive(END)


@orchestrator
async def failing(ctx: Context) -> None:
    raise ValueError("no luck")


class Scene:
    """A process, and schedules in it, at midnight of 2026-01-01."""

    def __init__(self) -> None:
        self.process = Process([job, long_job, failing], clock=ManualClock())
        self.process.clock.ms = int(at("2026-01-01T00:00Z").timestamp() * 1000)
        self.schedules = Schedules(self.process.client)

    def work(self) -> None:
        self.process.work()
        for record in self.process.client.list():  # what goes on must come back the same
            if not record.closed:
                self.replayed(record.execution_id)

    def replayed(self, execution_id: str) -> None:
        record = self.process.record(execution_id)
        program = self.process.runtime.registry.program(record.orchestrator)
        assert program is not None
        execution = Execution(record.key, program, CODEC)
        try:
            replay(execution, self.process.stored(execution_id))
        finally:
            execution.close()

    def until(self, text: str) -> None:
        """Pass time, handling everything when it is due."""
        end = int(at(text).timestamp() * 1000)
        while True:
            self.work()
            due = self.process.backend.next_due_ms()
            if due is None or due > end:
                break
            self.process.clock.ms = max(due, self.process.clock.now_ms())
        self.process.clock.ms = end
        self.work()

    def sleep_until(self, text: str) -> None:
        """Pass time with nobody there."""
        self.process.clock.ms = int(at(text).timestamp() * 1000)

    def end(self, execution_id: str) -> None:
        self.process.client.signal(execution_id, END, None)
        self.work()

    def started(self, prefix: str = "s/") -> list[str]:
        found = [record.execution_id for record in self.process.client.list()]
        return sorted(id_.removeprefix(prefix) for id_ in found if id_.startswith(prefix))

    def statuses(self) -> dict[str, str]:
        progress = self.schedules.describe("s").progress
        return {start.execution_id.removeprefix("s/"): start.status for start in progress.recent}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_executions_start_at_their_instants_with_their_arguments(scene: Scene) -> None:
    scene.schedules.create("s", Cron("30 * * * *"), job, name="hourly")
    scene.until("2026-01-01T02:00Z")
    assert scene.started() == ["2026-01-01T00:30:00Z", "2026-01-01T01:30:00Z"]
    assert scene.process.record("s/2026-01-01T01:30:00Z").result == '"hourly 01:30"'
    assert instant(scene.process.record("s/2026-01-01T01:30:00Z").started_at_ms) == at("2026-01-01T01:30Z")
    assert set(scene.statuses().values()) == {"completed"}


def test_a_daily_schedule_crosses_daylight_saving(scene: Scene) -> None:
    scene.sleep_until("2026-03-27T23:00Z")
    scene.schedules.create("s", Cron("30 2 * * *", "Europe/Berlin"), job)
    scene.until("2026-03-30T12:00Z")
    assert scene.started() == ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]


def test_a_schedule_describes_itself(scene: Scene) -> None:
    scene.schedules.create("s", Every(HOUR), job, "x")
    scene.until("2026-01-01T01:00Z")
    state = scene.schedules.describe("s")
    assert state.schedule == Schedule(Every(HOUR))
    assert (state.action.orchestrator, state.action.input) == ("job", '{"name":"x"}')
    assert [one.hour for one in state.next] == [2, 3, 4, 5, 6]
    assert state.progress.started == 1
    assert [summary.schedule_id for summary in scene.schedules.list()] == ["s"]


def test_once_starts_one_and_ends(scene: Scene) -> None:
    scene.schedules.create("s", Once(at("2026-01-01T03:00+01:00")), job)
    scene.until("2026-01-02T00:00Z")
    assert scene.started() == ["2026-01-01T02:00:00Z"]
    assert scene.process.record("schedule:s").status == "completed"
    assert not list(scene.schedules.list())
    scene.schedules.create("s", Every(HOUR), job)


def test_once_shortly_ago_is_now(scene: Scene) -> None:
    scene.schedules.create("s", Once(at("2025-12-31T23:59Z")), job)
    scene.schedules.create("t", Once(at("2025-12-01T00:00Z")), job)
    scene.work()
    assert (scene.started(), scene.started("t/")) == (["2025-12-31T23:59:00Z"], [])
    assert not list(scene.schedules.list())


# --- overlap -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overlap", "while_running", "after_its_end", "later"),
    [
        ("skip", [1], [1], [1, 4]),
        ("buffer_one", [1], [1, 2], [1, 2]),
        ("buffer_all", [1], [1, 2], [1, 2]),
        ("cancel_other", [1, 2, 3], [1, 2, 3], [1, 2, 3, 4]),
        ("allow_all", [1, 2, 3], [1, 2, 3], [1, 2, 3, 4]),
    ],
)
def test_what_overlaps_is_dealt_with_by_policy(
    scene: Scene, overlap: Overlap, while_running: list[int], after_its_end: list[int], later: list[int]
) -> None:
    def hours() -> list[int]:
        return [at(text).hour for text in scene.started()]

    scene.schedules.create("s", Schedule(Every(HOUR), overlap=overlap), long_job)
    scene.until("2026-01-01T03:30Z")
    assert hours() == while_running
    running = scene.process.record("s/2026-01-01T01:00:00Z").status
    assert running == ("cancelled" if overlap == "cancel_other" else "running")
    if running == "running":
        scene.end("s/2026-01-01T01:00:00Z")
    assert hours() == after_its_end
    scene.until("2026-01-01T04:30Z")
    assert hours() == later


def test_one_is_buffered_or_all_are(scene: Scene) -> None:
    expected: dict[Overlap, list[str]] = {"buffer_one": ["s/2026-01-01T02:00:00Z"]}
    expected["buffer_all"] = [*expected["buffer_one"], "s/2026-01-01T03:00:00Z"]
    for overlap, waiting in expected.items():
        scene = Scene()
        scene.schedules.create("s", Schedule(Every(HOUR), overlap=overlap), long_job)
        scene.until("2026-01-01T03:30Z")
        assert [start.execution_id for start in scene.schedules.describe("s").progress.buffered] == waiting
        for done in range(1, 1 + len(waiting)):
            scene.end(f"s/2026-01-01T0{done}:00:00Z")
        assert len(scene.started()) == 1 + len(waiting)
        scene.end(f"s/2026-01-01T0{1 + len(waiting)}:00:00Z")
        scene.until("2026-01-01T04:30Z")
        assert scene.started()[-1] == "2026-01-01T04:00:00Z"


def test_while_an_execution_runs_that_makes_others_be_skipped_nothing_is_recorded(scene: Scene) -> None:
    scene.schedules.create("s", Every(timedelta(seconds=1)), long_job)
    scene.until("2026-01-01T00:00:01Z")
    before = len(scene.process.client.history("schedule:s"))
    scene.until("2026-01-02T00:00:00Z")
    assert len(scene.process.client.history("schedule:s")) == before


def test_a_failure_is_told_and_the_next_one_starts(scene: Scene) -> None:
    scene.schedules.create("s", Every(HOUR), failing)
    scene.until("2026-01-01T02:00Z")
    assert list(scene.statuses().values()) == ["failed", "failed"]


def test_what_was_started_goes_on_when_the_schedule_is_deleted(scene: Scene) -> None:
    scene.schedules.create("s", Every(HOUR), long_job)
    scene.until("2026-01-01T01:00Z")
    scene.schedules.delete("s")
    scene.until("2026-01-01T05:00Z")
    assert scene.started() == ["2026-01-01T01:00:00Z"]
    assert scene.process.record("s/2026-01-01T01:00:00Z").status == "running"
    assert not list(scene.schedules.list())
    with pytest.raises(ExecutionNotFoundError, match="no schedule 's'"):
        scene.schedules.delete("s")


# --- time lost -----------------------------------------------------------------------------------------------


def test_what_was_missed_is_made_up_for_within_the_catch_up_window(scene: Scene) -> None:
    schedule = Schedule(Every(HOUR), overlap="allow_all", catch_up=timedelta(hours=2, minutes=30))
    scene.schedules.create("s", schedule, job)
    scene.work()
    scene.sleep_until("2026-01-01T10:10Z")
    scene.until("2026-01-01T11:00Z")
    assert [at(text).hour for text in scene.started()] == [8, 9, 10, 11]


def test_more_is_made_up_for_than_one_answer_holds(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_MOST_AT_ONCE", 4)
    scene.schedules.create("s", Schedule(Every(HOUR), overlap="allow_all"), job)
    scene.work()
    scene.sleep_until("2026-01-01T10:10Z")
    scene.until("2026-01-01T11:00Z")
    assert [at(text).hour for text in scene.started()] == list(range(1, 12))


def test_jitter_puts_a_start_off_but_not_its_name(scene: Scene) -> None:
    scene.schedules.create("s", Schedule(Every(HOUR), jitter=timedelta(minutes=20)), job)
    scene.until("2026-01-01T05:30Z")
    assert [at(text).hour for text in scene.started()] == [1, 2, 3, 4, 5]
    put_off = [instant(scene.process.record(f"s/{text}").started_at_ms) - at(text) for text in scene.started()]
    assert all(timedelta(0) <= length <= timedelta(minutes=20) for length in put_off)
    assert len(set(put_off)) == 5


# --- commands ------------------------------------------------------------------------------------------------


def test_a_paused_schedule_starts_nothing_and_makes_up_for_nothing(scene: Scene) -> None:
    scene.schedules.create("s", Every(HOUR), job)
    scene.until("2026-01-01T01:30Z")
    scene.schedules.pause("s", "maintenance")
    scene.until("2026-01-01T03:30Z")
    state = scene.schedules.describe("s")
    assert (state.schedule.paused, state.schedule.note, state.next) == (True, "maintenance", [])
    scene.schedules.resume("s", "done")
    scene.until("2026-01-01T04:30Z")
    assert [at(text).hour for text in scene.started()] == [1, 4]
    assert scene.schedules.describe("s").schedule.note == "done"


def test_what_comes_due_after_a_pause_is_not_started_however_late_the_schedule_hears_of_it(scene: Scene) -> None:
    scene.schedules.create("s", Every(HOUR), job)
    scene.process.take_due()
    scene.process.tasks()  # somebody takes the task of looking at the clock, and dies
    scene.schedules.pause("s")
    scene.process.take_due()
    scene.sleep_until("2026-01-01T01:30Z")
    scene.until("2026-01-01T03:00Z")
    assert scene.started() == []
    assert scene.schedules.describe("s").schedule.paused


def test_what_was_due_before_a_command_is_started_however_late_its_timer_is(scene: Scene) -> None:
    scene.schedules.create("s", Every(HOUR), job)
    scene.work()
    scene.sleep_until("2026-01-01T01:00Z")
    assert scene.process.receive()  # somebody takes the message of the timer, and dies
    scene.schedules.update("s", Every(3 * HOUR))
    scene.work()
    assert scene.started() == ["2026-01-01T01:00:00Z"]
    scene.until("2026-01-01T04:00Z")
    assert scene.started() == ["2026-01-01T01:00:00Z", "2026-01-01T03:00:00Z"]


def test_a_schedule_may_begin_paused(scene: Scene) -> None:
    scene.schedules.create("s", Schedule(Every(HOUR), paused=True), job)
    scene.until("2026-01-01T03:30Z")
    assert scene.started() == []
    scene.schedules.resume("s")
    scene.until("2026-01-01T04:30Z")
    assert [at(text).hour for text in scene.started()] == [4]


def test_a_trigger_starts_one_now_and_once(scene: Scene) -> None:
    scene.schedules.create("s", Schedule(Every(HOUR), paused=True), job)
    for _ in range(2):
        assert scene.schedules.trigger("s", request_id="by-hand") == "s/by-hand"
        scene.work()
    assert scene.process.record("s/by-hand").result == '"job None"'
    assert scene.schedules.describe("s").progress.started == 1


def test_a_trigger_is_skipped_by_policy_unless_it_says_otherwise(scene: Scene) -> None:
    scene.schedules.create("s", Every(HOUR), long_job)
    scene.until("2026-01-01T01:00Z")
    scene.schedules.trigger("s", request_id="a")
    scene.schedules.trigger("s", request_id="b", overlap="allow_all")
    scene.work()
    assert scene.started() == ["2026-01-01T01:00:00Z", "b"]


def test_a_backfill_starts_what_was_not_started_one_after_the_other(scene: Scene) -> None:
    scene.sleep_until("2026-01-01T02:30Z")
    scene.schedules.create("s", Every(HOUR), job)
    scene.until("2026-01-01T03:30Z")
    scene.schedules.backfill("s", at("2026-01-01T01:00Z"), at("2026-01-01T03:00Z"))
    scene.work()
    assert [at(text).hour for text in scene.started()] == [1, 2, 3]
    assert list(scene.statuses().values()) == ["completed", "completed", "not started"] or (
        scene.statuses()["2026-01-01T03:00:00Z"] == "not started"
    )
    with pytest.raises(ValueError, match="two ends with their zones"):
        scene.schedules.backfill("s", at("2026-01-02T00:00Z"), at("2026-01-01T00:00Z"))


def test_an_update_counts_from_now(scene: Scene) -> None:
    scene.schedules.create("s", Every(HOUR), job, "old")
    scene.until("2026-01-01T01:30Z")
    scene.schedules.update("s", Every(2 * HOUR))
    scene.until("2026-01-01T02:30Z")
    scene.schedules.update("s", Schedule(Every(HOUR)), job, "new")
    scene.until("2026-01-01T03:30Z")
    results = [scene.process.record(f"s/{text}").result for text in scene.started()]
    assert results == ['"old 01:00"', '"old 02:00"', '"new 03:00"']


# --- runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", ["skip", "buffer_all", "cancel_other", "allow_all"])
@pytest.mark.parametrize("started", [job, long_job])
def test_a_schedule_goes_on_for_ever_in_short_runs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, overlap: Overlap, started: Any
) -> None:
    monkeypatch.setattr(scheduler, "_LONG", 7)
    scene.schedules.create("s", Schedule(Every(HOUR), overlap=overlap), started)
    scene.until("2026-01-01T12:30Z")
    if started is long_job and overlap in ("skip", "buffer_all"):
        for _ in range(12):
            for record in list(scene.process.client.list(orchestrator="long_job", status="running")):
                scene.end(record.execution_id)
    if started is job or overlap != "skip":
        assert [at(text).hour for text in scene.started()] == list(range(1, 13))
        assert scene.schedules.describe("s").progress.started == 12
        assert scene.process.client.describe("schedule:s").run > 1


def test_a_run_ends_though_something_was_cancelled_before_it_was_started(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "_LONG", 8)
    scene.schedules.create("s", Schedule(Every(HOUR), overlap="cancel_other"), job)
    scene.work()
    scene.sleep_until("2026-01-01T03:00Z")  # two of three instants are cancelled by the next one at once
    scene.until("2026-01-01T06:30Z")
    assert scene.started() == [f"2026-01-01T0{hour}:00:00Z" for hour in (3, 4, 5, 6)]
    assert scene.process.record("schedule:s").run > 1
    assert scene.statuses()["2026-01-01T01:00:00Z"] == "cancelled"


def test_commands_arrive_whatever_run_it_is(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_LONG", 3)
    scene.schedules.create("s", Schedule(Every(HOUR), overlap="allow_all"), job)
    for number in range(20):
        scene.schedules.trigger("s", request_id=f"t{number:02}")
        if number % 3 == 0:
            scene.work()
    scene.work()
    assert scene.started() == [f"t{number:02}" for number in range(20)]


# --- refusals ------------------------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused_where_it_is_said(scene: Scene) -> None:
    @orchestrator
    async def unknown(ctx: Context) -> None: ...

    scene.schedules.create("s", Every(HOUR), job)
    with pytest.raises(ExecutionExistsError, match="There is a schedule 's'"):
        scene.schedules.create("s", Every(HOUR), job)
    with pytest.raises(DefinitionError, match="no cron expression"):
        scene.schedules.create("t", Cron("never"), job)
    with pytest.raises(UnknownOrchestratorError):
        scene.schedules.create("t", Every(HOUR), unknown)
    with pytest.raises(ExecutionNotFoundError, match="There is no schedule 't'"):
        scene.schedules.pause("t")
    with pytest.raises(ExecutionNotFoundError, match="There is no schedule 't'"):
        scene.schedules.describe("t")


def test_names_of_durably_are_refused_to_others() -> None:
    async def mine(ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match=r"names that begin with 'durably\.' are durably's"):
        Process([orchestrator(name="durably.schedule")(mine)])


@pytest.mark.parametrize("execution_id", ["x", "s/by-hand", "s/2026-01-01"])
def test_what_no_schedule_started_has_no_instant(scene: Scene, execution_id: str) -> None:
    scene.process.client.start(execution_id, job)
    scene.work()
    assert scene.process.record(execution_id).result == '"job None"'
