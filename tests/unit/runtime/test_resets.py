"""Retry, reset and fork: another run, or another execution, begins with a prefix of a stored one."""

from __future__ import annotations

import pytest

from durably import Context, Orchestrator, RetryPolicy, Signal, Update, activity, attempt_info, orchestrator
from durably.core.errors import (
    ClientError,
    ContendedError,
    ExecutionExistsError,
    ExecutionFailedError,
    InvalidIdError,
)
from durably.core.events import ExecutionCancelRequested, ExecutionTerminated, LifeEvent
from durably.ports.messages import Errand, EventMessage, Outgoing
from tests.unit.runtime import programs
from tests.unit.runtime.harness import LEASE_MS, Process
from tests.unit.runtime.programs import process_of, step, steps

GO = Signal[int]("go")
ADD = Update[int, int]("add")


@orchestrator
async def countdown(ctx: Context, left: int, sum_: int = 0) -> int:
    if left == 0:
        return sum_
    sum_ += await step(left)
    return await ctx.continue_as_new(left - 1, sum_)


LUCK: list[int] = []


@activity
def lucky(number: int) -> int:
    LUCK.append(number)
    if len([n for n in LUCK if n == number]) == 1 and number == 2:
        raise ValueError("bad luck")
    return number


def chain() -> Orchestrator[[], int]:
    once = lucky.options(retry=RetryPolicy(max_attempts=1))

    @orchestrator
    async def in_a_row(ctx: Context) -> int:
        return await once(1) + await once(2) + await once(3)

    return in_a_row


@pytest.fixture
def failed() -> Process:
    LUCK.clear()
    process = process_of(chain(), lucky)
    process.client.start_by_name("e", "in_a_row", "{}")
    process.work()
    assert process.record().status == "failed"
    return process


def test_a_retry_runs_what_failed_again_and_nothing_that_succeeded(failed: Process) -> None:
    assert failed.client.retry("e") == 2
    failed.work()
    assert failed.record().result == "6"
    assert LUCK == [1, 2, 2, 3]
    assert failed.record().closed_at_ms is not None


def test_a_retry_after_a_bug_in_the_orchestrator_keeps_every_result() -> None:
    @orchestrator(name="steps")
    async def buggy(ctx: Context) -> int:
        first = await step(1)
        await step(2)
        raise ValueError(first)

    process = process_of(buggy)
    process.client.start("e", buggy)
    process.work()
    assert process.record().status == "failed"
    programs.RAN.clear()
    mended = process.beside([steps, step])
    mended.client.retry("e")
    mended.work()
    assert mended.record().result == "3"
    assert programs.RAN == []


def test_a_terminated_execution_can_be_retried() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take_due()
    process.client.terminate("e")
    process.take_due()
    assert process.record().status == "terminated"
    process.client.retry("e")
    process.work()
    assert process.record().result == "3"


@pytest.mark.parametrize("event", [ExecutionTerminated(reason="enough"), ExecutionCancelRequested(reason="enough")])
def test_a_copy_of_what_ended_a_run_does_not_end_the_retried_one(event: LifeEvent) -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take_due()
    message = Outgoing(EventMessage(run=process.record().key, event=event))
    process.backend.send([message])
    process.take_due()
    assert process.record().closed
    process.client.retry("e")
    process.backend.send([message])  # whoever took it died before it was deleted
    process.work()
    assert (process.record().status, process.record().result) == ("completed", "3")


def test_a_termination_that_a_reset_overtakes_ends_the_next_run() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take_due()
    process.client.terminate("e", "enough")
    process.client.reset("e", 1, "from the start")
    process.work()
    assert process.record().status == "terminated"


def test_a_retry_calls_services_under_the_same_key() -> None:
    keys: list[str] = []

    @activity(retry=RetryPolicy(max_attempts=1))
    def charge() -> None:
        keys.append(attempt_info().idempotency_key)
        if len(keys) == 1:
            raise TimeoutError("the answer is lost")

    @orchestrator
    async def pays(ctx: Context) -> None:
        await charge()

    process = process_of(pays, charge)
    process.client.start("e", pays)
    process.work()
    process.client.retry("e")
    process.work()
    assert process.record().status == "completed"
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_what_completed_or_runs_is_not_retried() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    with pytest.raises(ClientError, match="is running"):
        process.client.retry("e")
    process.work()
    with pytest.raises(ClientError, match="is completed"):
        process.client.retry("e")


def test_a_reset_goes_back_to_an_event_and_fences_the_old_run() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take_due()
    old = process.tasks()
    number = process.kinds().index("ActivityScheduled") + 1
    assert process.client.reset("e", number) == 2
    for task in old:  # of the run that is no more
        process.run(task)
    process.work()
    assert process.record().result == "3"
    assert process.record().run == 2


def test_a_completed_execution_can_be_reset() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.work()
    programs.RAN.clear()
    second = [i for i, kind in enumerate(process.kinds(), start=1) if kind == "ActivityScheduled"][1]
    process.client.reset("e", second)
    process.work()
    assert process.record().result == "3"
    assert programs.RAN == [2]


def test_a_reset_to_an_event_that_is_not_there_is_refused() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    with pytest.raises(ClientError, match="no applied event 7"):
        process.client.reset("e", 7)


def test_a_fork_goes_its_own_way_from_an_event() -> None:
    process = process_of(steps, countdown)
    process.client.start("e", steps)
    process.work()
    programs.RAN.clear()
    second = [i for i, kind in enumerate(process.kinds(), start=1) if kind == "ActivityScheduled"][1]
    handle = process.client.fork("e", "f", to_event=second)
    process.work()
    assert handle.result(0) == 3
    assert programs.RAN == [2]
    with pytest.raises(ExecutionExistsError):
        process.client.fork("e", "f")


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_a_reset_and_a_fork_to_any_event_of_what_completed_complete(number: int) -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.work()
    process.client.fork("e", "f", to_event=number)
    process.client.reset("e", number)
    process.work()
    assert (process.record("e").result, process.record("f").result) == ("3", "3")


def test_a_reset_by_a_clock_that_is_behind_does_not_turn_time_back() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.work()
    stamps = [event.at_ms for turn in process.stored() for event in turn.inbound]
    process.clock.advance(-5_000)
    process.client.reset("e", 1)
    process.work()
    stamps += [event.at_ms for turn in process.stored() for event in turn.inbound[1:]]
    assert stamps == sorted(stamps)


def test_a_fork_has_children_of_its_own() -> None:
    @orchestrator
    async def child(ctx: Context) -> int:
        return await ctx.receive(GO)

    @orchestrator
    async def parent(ctx: Context) -> int:
        handle = await child.start()
        await handle.signal(GO, await step(4))
        return await handle

    process = process_of(parent, child)
    process.client.start("e", parent)
    process.take_due()
    while not process.tasks():
        for delivery in process.receive():
            process.take([delivery])
            if isinstance(delivery.message, Errand):
                process.run_errand(delivery)
    process.client.fork("e", "f", to_event=len(process.kinds("e")))
    process.clock.advance(LEASE_MS)
    process.work()
    assert (process.record("e").result, process.record("f").result) == ("4", "4")
    assert {record.execution_id for record in process.client.list()} == {"e", "e/1.1", "f", "f/1.1"}


def test_a_fork_from_the_start_may_have_another_input() -> None:
    process = process_of(countdown)
    process.client.start("e", countdown, 0, 5)
    process.work()
    handle = process.client.fork("e", "f", input_='{"left":2,"sum_":0}')
    process.work()
    assert handle.result(0) == 3


@pytest.mark.parametrize(("request_id", "run"), [("one", 2), ("another", 3)])
def test_a_reset_whose_writer_died_halfway_is_finished_by_the_next(request_id: str, run: int) -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.work()
    record = process.record()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process.backend, "_change", lambda run, change: None)
        process.client.reset("e", 1, request_id="one")
    assert process.record() == record
    assert process.client.reset("e", 1, request_id=request_id) == run
    process.work()
    assert (process.record().run, process.record().result) == (run, "3")


def test_a_retry_or_reset_repeated_under_its_request_id_begins_one_run(failed: Process) -> None:
    assert [failed.client.retry("e", request_id="again") for _ in range(2)] == [2, 2]
    failed.work()
    assert failed.client.retry("e", request_id="again") == 2
    assert [failed.client.reset("e", 1, request_id="back") for _ in range(2)] == [3, 3]
    failed.work()
    assert failed.client.reset("e", 1) == 4
    failed.work()
    assert [failed.client.reset("e", 1, request_id="back"), failed.client.retry("e", request_id="again")] == [3, 2]
    assert failed.record().run == 4
    with pytest.raises(InvalidIdError, match="at most 256"):
        failed.client.reset("e", 1, request_id="x" * 257)


def test_a_request_id_is_remembered_across_continue_as_new_and_not_by_a_fork() -> None:
    process = process_of(countdown)
    process.client.start("e", countdown, 2)
    process.take_due()
    assert process.client.reset("e", 1, request_id="back") == 2
    process.work()
    assert process.record().run == 4
    assert process.client.reset("e", 1, request_id="back") == 2
    process.client.fork("e", "other")
    process.work()
    assert process.client.reset("other", 1, request_id="back") == 2


def test_a_fork_repeated_under_its_request_id_starts_one_execution() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.work()
    gens = [process.client.fork("e", "other", request_id="once").gen for _ in range(2)]
    process.client.purge("e")
    gens.append(process.client.fork("e", "other", request_id="once").gen)
    assert len(set(gens)) == 1
    with pytest.raises(ExecutionExistsError, match="The id 'other' is taken"):
        process.client.fork("other", "other")


def test_a_suspension_repeated_under_its_request_id_does_not_suspend_again() -> None:
    @orchestrator
    async def waits(ctx: Context) -> int:
        return await ctx.receive(GO)

    process = process_of(waits)
    process.client.start("e", waits)
    for steer in (process.client.suspend, process.client.resume, process.client.suspend):
        steer("e", request_id=steer.__name__)
        process.work()
    assert process.record().status == "running"


def test_the_wake_of_a_retried_run_may_come_before_the_record_says_so(failed: Process) -> None:
    change = failed.backend._change
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failed.backend, "_change", lambda run, change: None)
        failed.client.retry("e")
    assert failed.record().status == "failed"
    assert failed.backend._change == change
    failed.work()
    assert failed.record().result == "6"


def test_a_reset_waits_for_the_next_run_and_gives_up_after_a_while() -> None:
    process = process_of(countdown)
    process.client.start("e", countdown, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process.backend, "_change", lambda run, change: None)
        process.take_due()
        process.run(process.tasks()[0])
        process.take(process.receive()[:1])
        assert process.kinds()[-1] == "ExecutionContinuedAsNew"
        waits: list[float] = []
        patch.setattr(process.client, "_pause", waits.append)
        with pytest.raises(ContendedError, match="the next one is about to begin; try again"):
            process.client.reset("e", 1)
        assert 1 < sum(waits) < 5
    assert process.client.reset("e", 1) == 4
    process.work()
    assert process.record().result == "3"


def test_a_late_copy_of_a_childs_start_makes_no_child_of_a_run_that_was_reset() -> None:
    @orchestrator
    async def child(ctx: Context) -> int:
        return await step(1)

    @orchestrator
    async def parent(ctx: Context) -> int:
        return await child() + await ctx.receive(GO)

    process = process_of(parent, child)
    process.client.start("e", parent)
    process.take_due()
    [errand] = process.receive()
    process.run_errand(errand)
    process.work()
    process.client.reset("e", 1)
    process.work()
    second = process.record("e/1.1")
    process.run_errand(errand)
    process.work()
    assert process.record("e/1.1") == second


@orchestrator
async def helper(ctx: Context, n: int) -> int:
    return n + await ctx.receive(GO)


@orchestrator
async def careless(ctx: Context, n: int) -> int:
    handle = await helper.options(parent_close="abandon").start(await step(n))
    await ctx.receive(GO)
    return await handle


def careless_process() -> Process:
    """A parent whose child goes on while the parent is reset to before it asked for it."""
    process = process_of(careless, helper)
    process.client.start("e", careless, 1)
    process.work()
    assert process.record("e/1.2").status == "running"
    assert process.client.reset("e", process.kinds().index("ChildScheduled") + 1) == 2
    process.work()
    return process


def test_a_child_that_was_abandoned_and_still_runs_is_taken_over() -> None:
    process = careless_process()
    before = process.record("e/1.2")
    process.client.signal("e", GO, 0)
    process.work()
    assert process.record().status == "running"
    process.client.signal("e/1.2", GO, 6)
    process.work()
    process.clock.advance(1_000)
    process.work()
    assert (process.record().result, process.record("e/1.2").gen) == ("7", before.gen)
    assert process.queued() == []


def test_a_child_that_was_taken_over_is_looked_at_ever_more_rarely() -> None:
    process = careless_process()
    looks = 0
    for _ in range(24 * 60):
        looks += len(process.queued(Errand)) and process.clock.now_ms() >= process.backend.messages()[0][1]
        process.work()
        process.clock.advance(60_000)
    assert 100 < looks < 200
    assert len(process.queued()) == 1


def test_a_child_that_was_taken_over_is_not_looked_at_when_its_parent_has_ended() -> None:
    process = careless_process()
    process.client.terminate("e", "enough")
    process.work()
    process.clock.advance(1_000)
    process.work()
    assert process.queued() == []
    assert process.record("e/1.2").status == "running"


@pytest.mark.parametrize("end", ["terminate", "purge"])
def test_how_a_child_that_was_taken_over_ends_is_told(end: str) -> None:
    process = careless_process()
    process.client.signal("e", GO, 0)
    process.client.terminate("e/1.2", "enough")
    process.work()
    if end == "purge":
        process.client.purge("e/1.2")
    process.clock.advance(2_000)
    process.work()
    assert process.record().status == "failed"
    assert ("enough" if end == "terminate" else "is gone") in str(process.record().failure)


def test_an_abandoned_child_that_is_another_now_holds_its_id() -> None:
    process = process_of(careless, helper)
    process.client.start("e", careless, 1)
    process.work()
    edited = careless_of_another_input()
    other = process.beside([edited, helper, step])
    other.client.reset("e", 1)
    other.work()
    assert other.record().status == "failed"
    assert "belongs to an open execution" in str(other.record().failure)


def careless_of_another_input() -> Orchestrator[[int], int]:
    @orchestrator(name="careless")
    async def edited(ctx: Context, n: int) -> int:
        return await (await helper.options(parent_close="abandon").start(await step(n) + 1))

    return edited


def test_a_retried_run_that_was_suspended_says_so() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.client.suspend("e")
    process.work()
    process.client.terminate("e")
    process.work()
    process.client.retry("e")
    process.work()
    assert process.record().status == "suspended"
    process.client.resume("e")
    process.work()
    assert process.record().result == "3"


def test_an_execution_that_failed_for_good_says_so_until_it_is_retried(failed: Process) -> None:
    with pytest.raises(ExecutionFailedError, match="bad luck"):
        failed.client.handle("e").result(0)
